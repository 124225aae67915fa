package lab

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/fairway-project/fairway/registry"
	"github.com/fairway-project/fairway/render"
)

// seedFleet makes the sample fleet as it would be after years of work: the account's network,
// the stacks of each cluster, and its applications running. Control planes and nodes come up
// meanwhile: the bridge sees the stacks.
func (l *Lab) seedFleet(ctx context.Context) error {
	clusters, err := l.sampleClusters(ctx)
	if err != nil {
		return fmt.Errorf("reading the sample fleet: %w", err)
	}
	net, err := l.createNetwork(ctx)
	if err != nil {
		return fmt.Errorf("creating the network of the sample fleet: %w", err)
	}
	group, groupCtx := errgroup.WithContext(ctx)
	for _, c := range clusters {
		group.Go(func() error {
			if err := l.seedCluster(groupCtx, c, net); err != nil {
				return fmt.Errorf("creating cluster %s of the sample fleet: %w", c.ID, err)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	if err := l.writeRegistry(clusters); err != nil {
		return fmt.Errorf("writing the registry of the sample fleet: %w", err)
	}
	return nil
}

func (l *Lab) seedCluster(ctx context.Context, c registry.Cluster, net network) error {
	start := time.Now()
	if err := l.createStacks(ctx, c, net); err != nil {
		return err
	}
	// Pods that are created before all nodes are there would crowd on the first ones.
	if err := l.awaitNodes(ctx, c.ID); err != nil {
		return err
	}
	if err := l.applyManifests(ctx, c, net); err != nil {
		return err
	}
	if err := l.awaitWorkloads(ctx, c.ID); err != nil {
		return err
	}
	if err := l.startDatabase(ctx, c.ID); err != nil {
		return err
	}
	l.progress("cluster %s runs its applications (%.1f s)", c.ID, time.Since(start).Seconds())
	return nil
}

// createStacks makes the stacks of a cluster and of its pools.
func (l *Lab) createStacks(ctx context.Context, c registry.Cluster, net network) error {
	release, err := l.sampleRelease(c, net)
	if err != nil {
		return err
	}
	for _, stack := range release.Stacks {
		if err := l.createStack(ctx, stack); err != nil {
			return err
		}
	}
	group, groupCtx := errgroup.WithContext(ctx)
	for _, pool := range release.Pools {
		group.Go(func() error { return l.createStack(groupCtx, pool.Stack) })
	}
	return group.Wait()
}

// UpdatePool renders the stack of a pool again with other config items and updates it, as a
// change of the configuration would. It returns when CloudFormation has. With another
// "node_image" all nodes of the pool become old; replacing them is left to others.
func (l *Lab) UpdatePool(ctx context.Context, cluster, pool string, configItems map[string]string) error {
	if err := l.updatePool(ctx, cluster, pool, configItems); err != nil {
		return fmt.Errorf("updating pool %s of cluster %s: %w", pool, cluster, err)
	}
	return nil
}

func (l *Lab) updatePool(ctx context.Context, cluster, pool string, configItems map[string]string) error {
	clusters, err := l.sampleClusters(ctx)
	if err != nil {
		return err
	}
	c, err := clusters.Find(cluster)
	if err != nil {
		return err
	}
	of := slices.IndexFunc(c.NodePools, func(p registry.NodePool) bool { return p.Name == pool })
	if of < 0 {
		return errors.New("the cluster has no such pool")
	}
	items := maps.Clone(c.NodePools[of].ConfigItems)
	if items == nil {
		items = map[string]string{}
	}
	maps.Copy(items, configItems)
	c.NodePools[of].ConfigItems = items
	net, err := l.findNetwork(ctx)
	if err != nil {
		return err
	}
	release, err := l.sampleRelease(c, net)
	if err != nil {
		return err
	}
	of = slices.IndexFunc(release.Pools, func(p render.Pool) bool { return p.Name == pool })
	return l.updateStack(ctx, release.Pools[of].Stack)
}
