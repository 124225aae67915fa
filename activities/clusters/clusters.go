// Package clusters holds the activities that read the cluster registry.
package clusters

import (
	"context"
	"errors"
	"fmt"

	"go.temporal.io/sdk/temporal"

	"github.com/fairway-project/fairway/registry"
	"github.com/fairway-project/fairway/roll"
	"github.com/fairway-project/fairway/workflows"
)

// Activities implements workflows.Registry.
type Activities struct {
	// Read returns all clusters of the registry.
	Read func(context.Context) (registry.Clusters, error)
	// Settings says how a pool of a cluster is rolled.
	Settings func(cluster registry.Cluster, pool string) (roll.Settings, error)
	// Notify says that a hook for notifications is configured.
	Notify bool
}

var _ workflows.Registry = (*Activities)(nil)

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
	return workflows.PoolInfo{
		Cluster: describe(cluster), Pool: in.Pool, Types: pool.InstanceTypes, Spot: pool.Spot(), Settings: settings, Notify: a.Notify,
	}, nil
}

// Find returns the cluster with the given id or alias, for other activities.
func (a *Activities) Find(ctx context.Context, name string) (registry.Cluster, error) {
	all, err := a.read(ctx)
	if err != nil {
		return registry.Cluster{}, err
	}
	cluster, err := all.Find(name)
	return cluster, typed(err)
}

func (a *Activities) read(ctx context.Context) (registry.Clusters, error) {
	all, err := a.Read(ctx)
	if err != nil {
		return nil, temporal.NewApplicationError(fmt.Sprintf("the cluster registry is not usable: %v", err), workflows.InvalidInput)
	}
	return all, nil
}

func typed(err error) error {
	var unknown *registry.UnknownClusterError
	if errors.As(err, &unknown) {
		return temporal.NewNonRetryableApplicationError(unknown.Error(), workflows.ClusterNotFound, nil)
	}
	return err
}

func describe(c registry.Cluster) workflows.ClusterInfo {
	out := workflows.ClusterInfo{
		ID: c.ID, Alias: c.Alias, Channel: c.Channel, Environment: c.Environment,
		Account: c.InfrastructureAccount, Region: c.Region, Lifecycle: string(c.LifecycleStatus),
		Owner: c.Owner, Pools: len(c.NodePools),
	}
	if c.Status != nil {
		out.Version = c.Status.CurrentVersion
		if len(c.Status.Problems) > 0 {
			out.Problem = c.Status.Problems[0].Title
		}
	}
	return out
}
