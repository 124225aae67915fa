// Package clusters holds the activities that read the cluster registry, and write to it what is known
// of clusters.
package clusters

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"

	"github.com/fairway-project/fairway/registry"
	"github.com/fairway-project/fairway/roll"
	"github.com/fairway-project/fairway/workflows"
)

// Activities implements workflows.Registry and workflows.Statuses.
type Activities struct {
	// Read returns all clusters of the registry.
	Read func(context.Context) (registry.Clusters, error)
	// Write is registry.Registry's WriteStatus.
	Write func(ctx context.Context, id string, status registry.Status, lifecycle registry.LifecycleStatus) error
	// Settings says how a pool of a cluster is rolled.
	Settings func(cluster registry.Cluster, pool string) (roll.Settings, error)
	// Windowed says whether a cluster has maintenance windows or freezes; nil means that none has.
	Windowed func(cluster registry.Cluster) (bool, error)
	// Notify says that a hook for notifications is configured.
	Notify bool
}

var (
	_ workflows.Registry = (*Activities)(nil)
	_ workflows.Statuses = (*Activities)(nil)
)

// ListClusters implements workflows.Registry.
func (a *Activities) ListClusters(ctx context.Context, in workflows.ListClusters) ([]workflows.ClusterInfo, error) {
	all, err := a.read(ctx)
	if err != nil {
		return nil, err
	}
	selected := all
	if len(in.Names) > 0 {
		selected = nil
		for _, name := range in.Names {
			cluster, err := all.Find(name)
			if err != nil {
				return nil, typed(err)
			}
			selected = append(selected, cluster)
		}
	}
	out := make([]workflows.ClusterInfo, len(selected))
	for i, cluster := range selected {
		out[i] = describe(cluster)
	}
	return out, nil
}

// FindPool implements workflows.Registry.
func (a *Activities) FindPool(ctx context.Context, in workflows.FindPool) (workflows.PoolInfo, error) {
	cluster, err := a.Find(ctx, in.Cluster)
	if err != nil {
		return workflows.PoolInfo{}, err
	}
	settings, err := a.Settings(cluster, in.Pool)
	if err != nil {
		return workflows.PoolInfo{}, temporal.NewApplicationError(err.Error(), workflows.InvalidInput)
	}
	pool, _ := cluster.Pool(in.Pool)
	info := workflows.PoolInfo{
		Cluster: describe(cluster), Pool: in.Pool, Types: pool.InstanceTypes, Spot: pool.Spot(), Settings: settings, Notify: a.Notify,
	}
	if a.Windowed != nil {
		if info.Windowed, err = a.Windowed(cluster); err != nil {
			return workflows.PoolInfo{}, temporal.NewApplicationError(err.Error(), workflows.InvalidInput)
		}
	}
	return info, nil
}

// Find returns the cluster with the given id or alias, for other activities. A registry that is broken
// counts as one that does not answer: for those activities InvalidInput means that what they work on is
// wrong, and a file that somebody saves with a mistake must not end the updates that run.
func (a *Activities) Find(ctx context.Context, name string) (registry.Cluster, error) {
	all, err := a.read(ctx)
	var broken *temporal.ApplicationError
	if errors.As(err, &broken) && broken.Type() == workflows.InvalidInput {
		err = temporal.NewApplicationError(broken.Message(), workflows.Unreachable)
	}
	if err != nil {
		return registry.Cluster{}, err
	}
	cluster, err := all.Find(name)
	return cluster, typed(err)
}

func (a *Activities) read(ctx context.Context) (registry.Clusters, error) {
	all, err := a.Read(ctx)
	if err != nil {
		return nil, typed(fmt.Errorf("the cluster registry is not usable: %w", err))
	}
	return all, nil
}

// WriteStatus implements workflows.Statuses. Where people want another lifecycle by now than the one
// that the cluster has got to, theirs stays, and the rest is written.
func (a *Activities) WriteStatus(ctx context.Context, in workflows.WriteStatus) error {
	err := a.Write(ctx, in.Cluster, in.Status, in.Lifecycle)
	var overtaken *registry.LifecycleError
	if errors.As(err, &overtaken) {
		activity.GetLogger(ctx).Warn("the registry wants another lifecycle by now; it stays", "cluster", in.Cluster, "reached", in.Lifecycle, "wanted", overtaken.From)
		err = a.Write(ctx, in.Cluster, in.Status, "")
	}
	if err != nil {
		return typed(fmt.Errorf("the status of cluster %s is not in the registry: %w", in.Cluster, err))
	}
	return nil
}

// typed gives an error the type by which workflows tell what to do. An unknown cluster is final; a
// registry that is broken, gone or in want of another token can be mended while workflows wait.
func typed(err error) error {
	var (
		unknown     *registry.UnknownClusterError
		unreachable *registry.UnreachableError
		refused     *registry.RefusedError
	)
	switch {
	case err == nil, errors.Is(err, context.Canceled):
		return err
	case errors.As(err, &unknown):
		return temporal.NewNonRetryableApplicationError(unknown.Error(), workflows.ClusterNotFound, nil)
	case errors.As(err, &unreachable):
		return temporal.NewApplicationError(err.Error(), workflows.Unreachable)
	case errors.As(err, &refused) && (refused.Status == http.StatusUnauthorized || refused.Status == http.StatusForbidden):
		return temporal.NewApplicationError(err.Error(), workflows.AccessDenied)
	case errors.As(err, &refused) && refused.Status == http.StatusPreconditionFailed: // the entry was changed in between
		return temporal.NewApplicationError(err.Error(), workflows.Unreachable)
	}
	return temporal.NewApplicationError(err.Error(), workflows.InvalidInput)
}

func describe(c registry.Cluster) workflows.ClusterInfo {
	out := workflows.ClusterInfo{
		ID: c.ID, Alias: c.Alias, Channel: c.Channel, Environment: c.Environment,
		Account: c.InfrastructureAccount, Region: c.Region, Lifecycle: string(c.LifecycleStatus),
		Owner: c.Owner, Pools: len(c.NodePools), Criticality: c.CriticalityLevel,
	}
	if c.Status != nil {
		out.Version, out.NextVersion, out.LastVersion = c.Status.CurrentVersion, c.Status.NextVersion, c.Status.LastVersion
		out.Problems = c.Status.Problems
		if len(c.Status.Problems) > 0 {
			out.Problem = c.Status.Problems[0].Title
		}
	}
	return out
}
