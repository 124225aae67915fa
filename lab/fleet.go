package lab

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/fairway-project/fairway/registry"
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
	config, err := l.clusterConfig(c, net)
	if err != nil {
		return err
	}
	for _, stack := range []struct{ name, template string }{
		{"etcd-" + c.ID, "etcd/stack.yaml"}, {c.ID, "cluster.yaml"},
	} {
		if err := l.createStack(ctx, stack.name, config, stack.template); err != nil {
			return err
		}
	}
	group, groupCtx := errgroup.WithContext(ctx)
	for _, pool := range c.NodePools {
		group.Go(func() error {
			ofPool, err := config.pool(pool)
			if err != nil {
				return err
			}
			return l.createStack(groupCtx, poolStack(c.ID, pool.Name), ofPool, poolTemplate(pool))
		})
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
	p, found := c.Pool(pool)
	if !found {
		return errors.New("the cluster has no such pool")
	}
	net, err := l.findNetwork(ctx)
	if err != nil {
		return err
	}
	config, err := l.clusterConfig(c, net)
	if err != nil {
		return err
	}
	p.ConfigItems = overlaid(p.ConfigItems, configItems)
	ofPool, err := config.pool(p)
	if err != nil {
		return err
	}
	return l.updateStack(ctx, poolStack(c.ID, p.Name), ofPool, poolTemplate(p))
}
