package main

import (
	"context"
	"maps"
	"strings"

	"github.com/fairway-project/fairway/activities/aws"
	"github.com/fairway-project/fairway/activities/clusters"
	"github.com/fairway-project/fairway/activities/testclusters"
	"github.com/fairway-project/fairway/calendar"
	"github.com/fairway-project/fairway/config"
	"github.com/fairway-project/fairway/e2e"
	"github.com/fairway-project/fairway/registry"
	"github.com/fairway-project/fairway/roll"
	"github.com/fairway-project/fairway/rollout"
	"github.com/fairway-project/fairway/workflows"
)

// leaseTests has clusters of tests found by their leases; nil if no tests are configured.
func leaseTests(c config.Config, known *clusters.Activities, accounts *aws.Accounts) *testclusters.Leases {
	if len(c.E2E.Accounts) == 0 {
		return nil
	}
	leases := &testclusters.Leases{Bucket: aws.Bucket{Accounts: accounts}, Accounts: c.E2E.Accounts}
	known.Leased = func(ctx context.Context, id string) (registry.Cluster, bool, error) {
		lease, found, err := leases.Find(ctx, id)
		return lease.Cluster, found, err
	}
	known.WriteLease = leases.WriteStatus
	return leases
}

// tagsOf are the tags of everything that is made for a cluster of a test; other clusters have none.
func tagsOf(c config.Config, o outside) func(context.Context, registry.Cluster) (map[string]string, error) {
	return func(ctx context.Context, cluster registry.Cluster) (map[string]string, error) {
		if !o.clusters.OfTest(cluster.ID) {
			return nil, nil
		}
		lease, err := o.leases.Tags(ctx, cluster.ID)
		if err != nil {
			return nil, err
		}
		tags := maps.Clone(c.E2E.Cluster.Tags)
		if tags == nil {
			tags = map[string]string{}
		}
		maps.Copy(tags, lease)
		return tags, nil
	}
}

// conduct is how clusters are updated. Those of tests wait for nobody and go back to nothing: an update that
// fails is what a test is to find, and what it has made is removed.
type conduct struct{ c config.Config }

func conductOf(c config.Config) conduct { return conduct{c} }

func (d conduct) ofTest(cluster registry.Cluster) bool {
	return len(d.c.E2E.Accounts) > 0 && strings.HasPrefix(cluster.ID, e2e.Prefix)
}

// Update is how a cluster is updated.
func (d conduct) Update(cluster registry.Cluster) (workflows.UpdateSettings, error) {
	settings, err := d.c.UpdateSettings(cluster)
	if d.ofTest(cluster) {
		settings.Rollback, settings.Windowed, settings.Limits = false, false, rollout.Limits{}
	}
	return workflows.UpdateSettings(settings), err
}

// Roll is how a pool of a cluster is rolled.
func (d conduct) Roll(cluster registry.Cluster, pool string) (roll.Settings, error) {
	settings, err := d.c.Settings(cluster, pool)
	if d.ofTest(cluster) {
		settings.Limits = roll.Limits{}
	}
	return settings, err
}

// Calendar is when a cluster may be disrupted.
func (d conduct) Calendar(cluster registry.Cluster) (calendar.Calendar, error) {
	if d.ofTest(cluster) {
		return calendar.Calendar{}, nil
	}
	return d.c.Calendar(cluster)
}
