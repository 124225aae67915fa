package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/worker"
	"go.uber.org/zap"

	"github.com/fairway-project/fairway/activities/aws"
	"github.com/fairway-project/fairway/activities/blocks"
	"github.com/fairway-project/fairway/activities/clusters"
	"github.com/fairway-project/fairway/activities/configuration"
	"github.com/fairway-project/fairway/activities/fleet"
	"github.com/fairway-project/fairway/activities/kube"
	"github.com/fairway-project/fairway/activities/manifests"
	"github.com/fairway-project/fairway/activities/testclusters"
	"github.com/fairway-project/fairway/channels"
	"github.com/fairway-project/fairway/config"
	"github.com/fairway-project/fairway/promotion"
	"github.com/fairway-project/fairway/registry"
	"github.com/fairway-project/fairway/render"
	"github.com/fairway-project/fairway/workflows"
)

// source is what a sync asks of the configuration repository; its zero value means that nothing
// follows a channel.
type source struct {
	Heads   func(context.Context) (map[string]string, error)
	Title   func(ctx context.Context, commit string) string // may be nil
	Version func(commit string, cluster registry.Cluster) string
	// Landings may be nil; see fleet.Messages.
	Landings func(ctx context.Context, channel, known, head string) (landings []promotion.Landing, rewritten bool, err error)
}

// sourceOf is the repository, if one is configured.
func sourceOf(mirror *channels.Mirror) source {
	if mirror == nil {
		return source{}
	}
	return source{
		Heads: mirror.Heads,
		Title: func(ctx context.Context, commit string) string {
			title, err := mirror.Title(ctx, commit)
			if err != nil {
				return "" // it is for people only
			}
			return title
		},
		Version: registry.Version,
	}
}

// outside is what activities of several packages reach the outside by.
type outside struct {
	temporal client.Client
	clusters *clusters.Activities
	accounts *aws.Accounts
	kube     *kube.Clusters
	blocks   blocks.Asker
	leases   *testclusters.Leases // nil if no tests are configured
}

// registerChannels names what this worker can do to let clusters know what they are to have.
func registerChannels(w worker.Registry, c config.Config, temporalClient client.Client, from source) {
	w.RegisterWorkflow(workflows.Channel)
	w.RegisterWorkflow(workflows.Sync)
	w.RegisterWorkflow(workflows.WatchHealth)
	messages := &fleet.Messages{
		Temporal: temporalClient, TaskQueue: c.TaskQueue,
		Clusters: c.Clusters, Heads: from.Heads, Title: from.Title, Waves: c.Rollout.Settings, Version: from.Version,
		Landings: from.Landings, Pipeline: c.Pipeline,
		Retry: func(cluster registry.Cluster) (after, atMost time.Duration) {
			settings, err := c.UpdateSettings(cluster)
			if err != nil {
				return 0, 0 // the update itself will say what is wrong
			}
			return settings.RetryAfter, settings.RetryAtMost
		},
	}
	w.RegisterActivity(messages.TellClusters)
	if from.Heads != nil {
		w.RegisterActivity(messages.SyncFleet)
	}
}

// registerUpdates names what this worker can do to bring clusters there.
func registerUpdates(w worker.Registry, c config.Config, mirror *channels.Mirror, o outside) {
	w.RegisterWorkflow(workflows.UpdateCluster)
	w.RegisterActivity(o.clusters.WriteStatus)
	w.RegisterActivity(&blocks.Gates{Asker: o.blocks})
	conduct := conductOf(c)
	versions := &configuration.Activities{
		Mirror: mirror, Folder: c.Repository.Path, Find: o.clusters.Find, Hash: registry.Cluster.Hash,
		Network: o.accounts.Network, Entries: aws.Bucket{Accounts: o.accounts}, Missing: aws.IsMissing,
		Settings: conduct.Update, Calendar: conduct.Calendar, Notify: c.Notify.Configured(), Quiet: o.clusters.OfTest,
		Render: func(folder fs.FS, cluster registry.Cluster, version string, values map[string]any) (*render.Release, error) {
			return render.Render(folder, render.Input{Cluster: cluster, Version: version, Values: values})
		},
	}
	w.RegisterActivity(versions.PrepareUpdate)
	w.RegisterActivity(versions.AwaitWindow)
	w.RegisterActivity(&aws.Stacks{Accounts: o.accounts, Release: versions.Release, Blocks: o.blocks, Settings: c.AWS, Tags: tagsOf(c, o)})
	health := func(cluster registry.Cluster) (manifests.HealthSettings, error) {
		h, err := c.Health(cluster)
		return manifests.HealthSettings(h), err
	}
	objects := &manifests.Activities{Clusters: o.kube, Release: versions.Release, Blocks: o.blocks, Settings: health}
	w.RegisterActivity(objects)
	w.RegisterActivity(&fleet.Watch{Temporal: o.temporal, Every: c.Update.HealthEvery, Health: func(ctx context.Context, cluster string) (workflows.Health, error) {
		return manifests.Look(ctx, objects, cluster)
	}})
}

// channelOf names the channel of a cluster whose actor does not know it yet. A cluster that is not in
// the registry has none. It is asked before each step of a drain, and clusters seldom move: what the
// registry says is good for a while.
func channelOf(find func(ctx context.Context, cluster string) (registry.Cluster, error)) func(context.Context, string) (string, error) {
	type known struct {
		channel string
		until   time.Time
	}
	var mu sync.Mutex
	channels := map[string]known{}
	return func(ctx context.Context, id string) (string, error) {
		mu.Lock()
		last := channels[id]
		mu.Unlock()
		if time.Now().Before(last.until) {
			return last.channel, nil
		}
		cluster, err := find(ctx, id)
		if typed := (*temporal.ApplicationError)(nil); err != nil && (!errors.As(err, &typed) || typed.Type() != workflows.ClusterNotFound) {
			return "", err
		}
		mu.Lock()
		defer mu.Unlock()
		channels[id] = known{cluster.Channel, time.Now().Add(time.Minute)}
		return cluster.Channel, nil
	}
}

// startSync has the registry, the channels and the health of clusters looked at again and again, the first
// two at once when a webhook says so, until the context ends. Where nothing follows a channel it does nothing.
func startSync(ctx context.Context, temporalClient client.Client, c config.Config, from source, logger *zap.Logger) error {
	if from.Heads == nil {
		return nil
	}
	handle, err := schedule(ctx, temporalClient, c.TaskQueue, regular{
		workflows.SyncID, c.Update.SyncEvery, workflows.Sync, workflows.SyncFleet{}, "compare registry and channels with what their actors know",
	})
	if err != nil {
		return err
	}
	if _, err = schedule(ctx, temporalClient, c.TaskQueue, regular{
		workflows.HealthID, c.Update.HealthEvery, workflows.WatchHealth, workflows.LookAtHealth{}, "look at the health of clusters whose channels wait for it",
	}); err != nil {
		return err
	}
	if c.Worker.Webhook.Listen == "" {
		return nil
	}
	return serveWebhook(ctx, c.Worker.Webhook, func(ctx context.Context) error {
		// A sync under way may have looked before what was pushed.
		err := handle.Trigger(ctx, client.ScheduleTriggerOptions{Overlap: enumspb.SCHEDULE_OVERLAP_POLICY_BUFFER_ONE})
		return errors.Join(err, lookAtForge(ctx, temporalClient, c.Pipeline), lookForTests(ctx, temporalClient, c.E2E))
	}, logger)
}

// catchup is how late a look may be; what was missed while Temporal was down is not made up for.
const catchup = time.Minute

// regular is a workflow that a schedule of its id starts again and again.
type regular struct {
	id             string
	every          time.Duration
	workflow, with any
	summary        string
}

// schedule makes the schedule, or changes it to what is configured. One that a person has paused stays
// paused.
func schedule(ctx context.Context, temporalClient client.Client, taskQueue string, r regular) (client.ScheduleHandle, error) {
	spec := client.ScheduleSpec{Intervals: []client.ScheduleIntervalSpec{{Every: max(r.every, time.Second)}}}
	action := &client.ScheduleWorkflowAction{ID: r.id, Workflow: r.workflow, Args: []any{r.with}, TaskQueue: taskQueue, StaticSummary: r.summary}
	policies := client.SchedulePolicies{Overlap: enumspb.SCHEDULE_OVERLAP_POLICY_SKIP, CatchupWindow: catchup}
	schedules := temporalClient.ScheduleClient()
	_, err := schedules.Create(ctx, client.ScheduleOptions{
		ID: r.id, Spec: spec, Action: action, Overlap: policies.Overlap, CatchupWindow: policies.CatchupWindow, TriggerImmediately: true,
	})
	handle := schedules.GetHandle(ctx, r.id)
	if errors.Is(err, temporal.ErrScheduleAlreadyRunning) {
		err = handle.Update(ctx, client.ScheduleUpdateOptions{DoUpdate: func(found client.ScheduleUpdateInput) (*client.ScheduleUpdate, error) {
			schedule := found.Description.Schedule
			if same(schedule, taskQueue, spec) {
				return nil, temporal.ErrSkipScheduleUpdate
			}
			schedule.Spec, schedule.Action, schedule.Policy = &spec, action, &policies
			return &client.ScheduleUpdate{Schedule: &schedule}, nil
		}})
	}
	if err != nil {
		return nil, fmt.Errorf("scheduling %s: %w", r.id, err)
	}
	return handle, nil
}

// same says whether a schedule is as it should be: workers that start together need not change it.
func same(found client.Schedule, taskQueue string, spec client.ScheduleSpec) bool {
	action, is := found.Action.(*client.ScheduleWorkflowAction)
	return is && action.TaskQueue == taskQueue && found.Spec != nil && slices.Equal(found.Spec.Intervals, spec.Intervals) &&
		found.Policy != nil && found.Policy.Overlap == enumspb.SCHEDULE_OVERLAP_POLICY_SKIP && found.Policy.CatchupWindow == catchup
}
