// Package clusters holds the activities that read the cluster registry, and write to it what is known
// of clusters.
package clusters

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"

	"github.com/fairway-project/fairway/e2e"
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
	// Leased returns the entry of a test cluster, which is not in the registry, and WriteLease is Write for it.
	// nil means that there are none.
	Leased     func(ctx context.Context, id string) (cluster registry.Cluster, found bool, err error)
	WriteLease func(ctx context.Context, id string, status registry.Status, lifecycle registry.LifecycleStatus) error
}

var (
	_ workflows.Registry = (*Activities)(nil)
	_ workflows.Statuses = (*Activities)(nil)
)

// ListClusters implements workflows.Registry. Clusters of tests are listed by their names only.
func (a *Activities) ListClusters(ctx context.Context, in workflows.ListClusters) ([]workflows.ClusterInfo, error) {
	var selected registry.Clusters
	if len(in.Names) == 0 {
		all, err := a.read(ctx)
		if err != nil {
			return nil, err
		}
		selected = all
	}
	for _, name := range in.Names {
		cluster, err := a.find(ctx, name)
		if err != nil {
			return nil, err
		}
		selected = append(selected, cluster)
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
		Cluster: describe(cluster), Pool: in.Pool, Types: pool.InstanceTypes, Spot: pool.Spot(), Settings: settings, Notify: a.Notify && !a.OfTest(cluster.ID),
	}
	if a.Windowed != nil {
		if info.Windowed, err = a.Windowed(cluster); err != nil {
			return workflows.PoolInfo{}, temporal.NewApplicationError(err.Error(), workflows.InvalidInput)
		}
	}
	return info, nil
}

// Find returns the cluster with the given id or alias, for other activities. For those of an update a
// registry that is broken counts as one that does not answer: they give up on InvalidInput, and a file
// that somebody saves with a mistake must not end the updates that run.
func (a *Activities) Find(ctx context.Context, name string) (registry.Cluster, error) {
	cluster, err := a.find(ctx, name)
	if err != nil && activity.IsActivity(ctx) && ofUpdate(activity.GetInfo(ctx)) {
		err = patient(err)
	}
	return cluster, err
}

func (a *Activities) find(ctx context.Context, name string) (registry.Cluster, error) {
	if a.OfTest(name) {
		cluster, found, err := a.Leased(ctx, name)
		if err == nil && !found {
			err = noLease(name)
		}
		return cluster, err
	}
	all, err := a.read(ctx)
	if err != nil {
		return registry.Cluster{}, err
	}
	cluster, err := all.Find(name)
	return cluster, typed(err)
}

// OfTest says whether an id is one of a cluster that is made for a test.
func (a *Activities) OfTest(id string) bool {
	return a.Leased != nil && strings.HasPrefix(id, e2e.Prefix)
}

// Registered says whether the registry has a cluster of that id or alias.
func (a *Activities) Registered(ctx context.Context, name string) (bool, error) {
	all, err := a.read(ctx)
	if err != nil {
		return false, err
	}
	_, err = all.Find(name)
	return err == nil, nil
}

func noLease(id string) error {
	return temporal.NewNonRetryableApplicationError(
		fmt.Sprintf("cluster %q is that of a test, and has no lease; `fairway e2e list` shows those that have one", id), workflows.ClusterNotFound, nil)
}

func ofUpdate(info activity.Info) bool {
	return info.WorkflowType != nil && info.WorkflowType.Name == "UpdateCluster"
}

// patient has an error be tried again that workflows take for final.
func patient(err error) error {
	var broken *temporal.ApplicationError
	if errors.As(err, &broken) && broken.Type() == workflows.InvalidInput {
		return temporal.NewApplicationError(broken.Message(), workflows.Unreachable)
	}
	return err
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
	write, where := a.Write, "the registry"
	if a.OfTest(in.Cluster) {
		write, where = a.WriteLease, "its lease"
	}
	err := write(ctx, in.Cluster, in.Status, in.Lifecycle)
	var overtaken *registry.LifecycleError
	if errors.As(err, &overtaken) {
		activity.GetLogger(ctx).Warn("another lifecycle is wanted by now; it stays", "by", where, "cluster", in.Cluster, "reached", in.Lifecycle, "wanted", overtaken.From)
		err = write(ctx, in.Cluster, in.Status, "")
	}
	if err != nil {
		return typed(fmt.Errorf("the status of cluster %s is not in %s: %w", in.Cluster, where, err))
	}
	return nil
}

// typed gives an error the type by which workflows tell what to do. An unknown cluster is final; a
// registry that is broken, gone or in want of another token can be mended while workflows wait. What has
// a type keeps it.
func typed(err error) error {
	var (
		already     *temporal.ApplicationError
		unknown     *registry.UnknownClusterError
		unreachable *registry.UnreachableError
		refused     *registry.RefusedError
	)
	switch {
	case err == nil, errors.Is(err, context.Canceled), errors.As(err, &already):
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
