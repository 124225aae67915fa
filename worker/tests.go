package main

import (
	"context"
	"errors"
	"fmt"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/worker"
	"go.uber.org/zap"

	"github.com/fairway-project/fairway/activities/aws"
	"github.com/fairway-project/fairway/activities/pullrequests"
	"github.com/fairway-project/fairway/activities/sweep"
	"github.com/fairway-project/fairway/activities/testclusters"
	"github.com/fairway-project/fairway/activities/testload"
	"github.com/fairway-project/fairway/activities/testsuites"
	"github.com/fairway-project/fairway/channels"
	"github.com/fairway-project/fairway/config"
	"github.com/fairway-project/fairway/e2e"
	"github.com/fairway-project/fairway/forge"
	"github.com/fairway-project/fairway/registry"
	"github.com/fairway-project/fairway/workflows"
)

// registerTests names what this worker can do to test pull requests. Mirror and driver are nil where none is
// configured: what needs them says so.
func registerTests(w worker.Registry, c config.Config, mirror *channels.Mirror, driver forge.Driver, o outside, logger *zap.Logger) {
	w.RegisterWorkflow(workflows.TestPullRequest)
	w.RegisterWorkflow(workflows.TestQueue)
	w.RegisterWorkflow(workflows.ConsiderTests)
	w.RegisterWorkflow(workflows.RunTest)
	w.RegisterWorkflow(workflows.Sweep)
	if o.leases == nil {
		return
	}
	root := testsuites.DefaultRoot()
	if err := testsuites.RemoveLeftovers(root); err != nil {
		logger.Warn("something of test suites of a worker before this one is left", zap.Error(err))
	}
	leases := &testclusters.Clusters{Leases: o.leases, Settings: c.E2E, Registered: o.clusters.Registered, Uses: o.accounts.Uses}
	w.RegisterActivity(leases)
	queue, entries := &testclusters.Queue{Temporal: o.temporal, TaskQueue: c.TaskQueue, Accounts: c.E2E.Accounts}, testclusters.Entries(o.temporal)
	w.RegisterActivity(queue)
	requests := &pullrequests.Activities{Settings: c.E2E, Pipeline: c.Pipeline, Queue: entries, Temporal: o.temporal}
	suites := &testsuites.Activities{Clusters: o.kube, Settings: c.E2E, Root: root, Store: aws.Bucket{Accounts: o.accounts}.PutFile}
	if mirror != nil {
		requests.Repository = mirror
		suites.File = mirror.Text
	}
	if driver != nil {
		requests.Forge = driver
	}
	w.RegisterActivity(requests)
	w.RegisterActivity(suites)
	w.RegisterActivity(&testload.Activities{Clusters: o.kube, Workload: c.E2E.Workload, Load: c.E2E.Load})
	w.RegisterActivity(&sweep.Sweep{
		Settings: c.E2E, Accounts: o.accounts, Leases: o.leases.List, Running: sweep.Running(o.temporal),
		Clusters: func(ctx context.Context) ([]registry.Cluster, error) { return c.Clusters(ctx) }, EndLease: leases.EndLease, Blocks: o.blocks,
		Places: entries, Leave: queue.LeaveTestQueue,
	})
}

// lookForTests has the pull requests looked at now. Where nobody has made the schedule there is nothing to do.
func lookForTests(ctx context.Context, temporalClient client.Client, settings e2e.Settings) error {
	if !settings.Configured() {
		return nil
	}
	handle := temporalClient.ScheduleClient().GetHandle(ctx, workflows.LookForTests)
	err := handle.Trigger(ctx, client.ScheduleTriggerOptions{Overlap: enumspb.SCHEDULE_OVERLAP_POLICY_BUFFER_ONE})
	if unknown := (*serviceerror.NotFound)(nil); err != nil && !errors.As(err, &unknown) {
		return fmt.Errorf("having the pull requests looked at: %w", err)
	}
	return nil
}
