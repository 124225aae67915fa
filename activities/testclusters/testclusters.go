package testclusters

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"go.temporal.io/sdk/activity"

	"github.com/fairway-project/fairway/activities"
	"github.com/fairway-project/fairway/activities/aws"
	"github.com/fairway-project/fairway/e2e"
	"github.com/fairway-project/fairway/registry"
	"github.com/fairway-project/fairway/strictyaml"
	"github.com/fairway-project/fairway/workflows"
)

// Clusters implements workflows.TestClusters.
type Clusters struct {
	Leases   *Leases
	Settings e2e.Settings
	// Registered says whether the registry has a cluster of that id or alias.
	Registered func(ctx context.Context, name string) (bool, error)
	// Uses are the times of the instances with a tag in a cluster's account.
	Uses func(ctx context.Context, cluster registry.Cluster, tag, value string) ([]aws.Use, error)
	// Now is the time; default time.Now.
	Now func() time.Time
}

var _ workflows.TestClusters = (*Clusters)(nil)

func (c *Clusters) now() time.Time {
	if c.Now != nil {
		return c.Now().UTC()
	}
	return time.Now().UTC()
}

// LeaseCluster implements workflows.TestClusters.
func (c *Clusters) LeaseCluster(ctx context.Context, in workflows.LeaseCluster) (e2e.Lease, error) {
	id := in.Request.Cluster
	if !usable.MatchString(id) {
		return e2e.Lease{}, invalid("cluster %.80q: the id of a test's cluster is %s with at most 40 lower-case letters, digits and dashes", id, e2e.Prefix)
	}
	if in.Workflow == "" {
		return e2e.Lease{}, invalid("cluster %s: no workflow is given that is to have its lease", id)
	}
	if err := c.configured(id, in.Account); err != nil {
		return e2e.Lease{}, err
	}
	if taken, err := c.Registered(ctx, id); err != nil {
		return e2e.Lease{}, err
	} else if taken {
		return e2e.Lease{}, invalid("cluster %s: the registry has a cluster of that name; ids that begin with %s are those of tests, so rename it", id, e2e.Prefix)
	}
	entry := c.entry(in)
	if err := strictyaml.Validate("e2e.cluster", &entry); err != nil {
		return e2e.Lease{}, invalid("cluster %s: %v", id, err)
	}
	now := c.now()
	return c.Leases.create(ctx, e2e.Lease{
		Cluster: entry, Workflow: in.Workflow, Owner: cmp.Or(in.Request.By, in.Request.Author, c.Settings.Cluster.Owner), Request: in.Request,
		Made: now, Expires: now.Add(c.Settings.Within + c.Settings.KeepAtMost).Truncate(time.Second),
	})
}

// configured refuses an account that is none of e2e.accounts: no lease is found there, which says nothing of the
// cluster.
func (c *Clusters) configured(cluster string, account e2e.Account) error {
	if _, is := c.Settings.ConfiguredAccount(account); is {
		return nil
	}
	return invalid("cluster %s: account %.80q in %.40q is none of e2e.accounts; an account stays there until all of its test clusters are gone", cluster, account.Account, account.Region)
}

// entry is what the registry would have of the cluster.
func (c *Clusters) entry(in workflows.LeaseCluster) registry.Cluster {
	shape, id := c.Settings.Cluster, in.Request.Cluster
	entry := registry.Cluster{
		ID: id, LocalID: id, APIServerURL: strings.ReplaceAll(shape.APIServerURL, "{cluster}", id), Channel: in.Request.Channel,
		ConfigItems: maps.Clone(shape.ConfigItems), Environment: shape.Environment, Owner: shape.Owner,
		InfrastructureAccount: in.Account.Account, Region: in.Account.Region, LifecycleStatus: registry.Requested,
		Provider: cmp.Or(shape.Provider, "zalando-aws"), NodePools: slices.Clone(shape.NodePools),
	}
	for i, pool := range entry.NodePools {
		entry.NodePools[i].DiscountStrategy = cmp.Or(pool.DiscountStrategy, "none")
	}
	return entry
}

// ChangeLease implements workflows.TestClusters. When it returns, no worker takes the lifecycle for another
// any more. It heartbeats.
func (c *Clusters) ChangeLease(ctx context.Context, in workflows.ChangeLease) (e2e.Lease, error) {
	ctx, end := activities.Working(ctx, func() any { return "changing the lease of cluster " + in.Cluster })
	defer end()
	lifecycle := registry.LifecycleStatus(in.Lifecycle)
	if !slices.Contains([]registry.LifecycleStatus{"", registry.Requested, registry.Ready, registry.DecommissionRequested, registry.Decommissioned}, lifecycle) {
		return e2e.Lease{}, invalid("cluster %s: %.40q is no lifecycle status", in.Cluster, lifecycle)
	}
	if err := c.configured(in.Cluster, in.Account); err != nil {
		return e2e.Lease{}, err
	}
	lease, err := c.Leases.change(ctx, in.Cluster, func(lease *e2e.Lease) error {
		lease.Cluster.LifecycleStatus = cmp.Or(lifecycle, lease.Cluster.LifecycleStatus)
		if !in.Kept.IsZero() {
			lease.Kept = in.Kept.UTC()
		}
		return nil
	})
	if err != nil || lifecycle == "" {
		return lease, activities.Interrupted(ctx, err)
	}
	select {
	case <-time.After(seenFor):
		return lease, nil
	case <-ctx.Done():
		return e2e.Lease{}, activities.Interrupted(ctx, ctx.Err())
	}
}

// EndLease implements workflows.TestClusters.
func (c *Clusters) EndLease(ctx context.Context, in workflows.ChangeLease) error {
	if !usable.MatchString(in.Cluster) {
		return invalid("cluster %.80q: no cluster of a test has such an id", in.Cluster)
	}
	if err := c.configured(in.Cluster, in.Account); err != nil {
		return err
	}
	return c.Leases.end(ctx, in.Account, in.Cluster)
}

// EstimateCost implements workflows.TestClusters. Instances that have ended more than an hour ago AWS
// has forgotten: what they have cost is not in it.
func (c *Clusters) EstimateCost(ctx context.Context, in workflows.ChangeLease) (e2e.Cost, error) {
	lease, found, err := c.Leases.Find(ctx, in.Cluster)
	if err == nil && !found {
		err = gone(in.Cluster)
	}
	if err != nil {
		return e2e.Cost{}, err
	}
	uses, err := c.Uses(ctx, lease.Cluster, e2e.LeaseTag, lease.Cluster.ID)
	if err != nil {
		return e2e.Cost{}, fmt.Errorf("adding up what cluster %s has cost: %w", in.Cluster, err)
	}
	cost := estimate(c.Settings.Prices, lease.Made, uses, c.now())
	if activity.IsActivity(ctx) && len(cost.Unpriced) > 0 {
		activity.GetLogger(ctx).Warn("instance types have no price in e2e.prices.hour", "cluster", in.Cluster, "types", cost.Unpriced)
	}
	return cost, nil
}

func estimate(prices e2e.Prices, made time.Time, uses []aws.Use, now time.Time) e2e.Cost {
	cost := e2e.Cost{Currency: prices.Currency, Amount: prices.ControlPlane * max(now.Sub(made), 0).Hours()}
	for _, use := range uses {
		end := use.To
		if end.IsZero() || end.After(now) {
			end = now
		}
		hours := max(end.Sub(use.From), 0).Hours()
		cost.Hours += hours
		price, known := prices.Hour[use.Type]
		if !known && !slices.Contains(cost.Unpriced, use.Type) {
			cost.Unpriced = append(cost.Unpriced, use.Type)
		}
		cost.Amount += price * hours
	}
	slices.Sort(cost.Unpriced)
	return cost
}
