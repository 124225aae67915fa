package fleet

import (
	"context"
	"errors"
	"fmt"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"
	"golang.org/x/sync/errgroup"

	"github.com/fairway-project/fairway/activities"
	"github.com/fairway-project/fairway/promotion"
	"github.com/fairway-project/fairway/registry"
	"github.com/fairway-project/fairway/rollout"
	"github.com/fairway-project/fairway/workflows"
)

// Messages implements workflows.Messages.
type Messages struct {
	Temporal client.Client
	// TaskQueue is where actors run that have to be started.
	TaskQueue string

	// Clusters reads the registry, Heads the commit of every branch of the repository.
	Clusters func(context.Context) (registry.Clusters, error)
	Heads    func(context.Context) (map[string]string, error)
	// Title returns the first line of a commit's message; nil or an empty text where that is not known.
	Title func(ctx context.Context, commit string) string
	// Waves are the settings of a channel's rollout.
	Waves func(channel string) (rollout.Settings, error)
	// Retry is how long after a failed update a cluster tries again, at first and at most; nil leaves
	// that to its actor.
	Retry func(registry.Cluster) (after, atMost time.Duration)
	// Version is what a cluster has at a commit.
	Version func(commit string, cluster registry.Cluster) string
	// Landings are the first-parent commits of a channel from its head back to the one that is known, which is
	// empty for none: oldest first, the newest promotion.MostLandings at most. Rewritten means that the known one is not on that
	// line: then, too, they are the newest. Nil where nobody has to know.
	Landings func(ctx context.Context, channel, known, head string) (landings []promotion.Landing, rewritten bool, err error)
	// Pipeline is which channels there are, besides those that clusters follow, and what is promoted from where.
	Pipeline promotion.Pipeline
}

var _ workflows.Messages = (*Messages)(nil)

// atOnce bounds the requests to Temporal in flight.
const atOnce = 10

// TellClusters implements workflows.Messages. Telling a cluster the same once more does no harm, but each
// time is an event of its actor: one that cannot be told does not have the others told again.
func (m *Messages) TellClusters(ctx context.Context, in workflows.TellClusters) (untold []string, err error) {
	defer beating(ctx)()
	errs := make([]error, len(in.Wants))
	var group errgroup.Group
	group.SetLimit(atOnce)
	for i, want := range in.Wants {
		group.Go(func() error {
			errs[i] = m.tellCluster(ctx, want)
			return nil
		})
	}
	_ = group.Wait() // one that cannot be told keeps no other from it
	for i, err := range errs {
		if err != nil {
			untold = append(untold, in.Wants[i].Cluster)
		}
	}
	err = errors.Join(errs...)
	if len(untold) == len(in.Wants) {
		return nil, noAnswer(err)
	}
	if err != nil {
		activity.GetLogger(ctx).Error("some clusters were not told what is wanted; they will be", "error", err)
	}
	return untold, nil
}

func (m *Messages) tellCluster(ctx context.Context, want workflows.Want) error {
	attributes := []temporal.SearchAttributeUpdate{workflows.ClusterAttribute.ValueSet(want.Cluster), workflows.ChannelAttribute.ValueSet(want.Channel)}
	if want.Environment != "" {
		attributes = append(attributes, workflows.EnvironmentAttribute.ValueSet(want.Environment))
	}
	_, err := m.Temporal.SignalWithStartWorkflow(ctx, workflows.ClusterID(want.Cluster), workflows.WantName, want, client.StartWorkflowOptions{
		ID: workflows.ClusterID(want.Cluster), TaskQueue: m.TaskQueue, StaticSummary: "cluster " + want.Cluster,
		WorkflowIDConflictPolicy: enumspb.WORKFLOW_ID_CONFLICT_POLICY_USE_EXISTING,
		TypedSearchAttributes:    temporal.NewSearchAttributes(attributes...),
	}, workflows.Cluster, workflows.ClusterState{Cluster: want.Cluster})
	if err != nil {
		return fmt.Errorf("telling cluster %s what is wanted: %w", want.Cluster, err)
	}
	return nil
}

func (m *Messages) tellChannel(ctx context.Context, sync workflows.ChannelSync) error {
	_, err := m.Temporal.SignalWithStartWorkflow(ctx, workflows.ChannelID(sync.Channel), workflows.SyncName, sync, client.StartWorkflowOptions{
		ID: workflows.ChannelID(sync.Channel), TaskQueue: m.TaskQueue, StaticSummary: "channel " + sync.Channel,
		WorkflowIDConflictPolicy: enumspb.WORKFLOW_ID_CONFLICT_POLICY_USE_EXISTING,
		TypedSearchAttributes:    temporal.NewSearchAttributes(workflows.ChannelAttribute.ValueSet(sync.Channel)),
	}, workflows.Channel, workflows.ChannelState{ChannelSync: workflows.ChannelSync{Channel: sync.Channel}})
	if err != nil {
		return fmt.Errorf("telling channel %s what is new: %w", sync.Channel, err)
	}
	return nil
}

// beating heartbeats until the returned function is called.
func beating(ctx context.Context) (stop func()) {
	done := make(chan struct{})
	go func() {
		for tick := time.Tick(activities.BeatEvery); ; {
			select {
			case <-done:
				return
			case <-tick:
				activity.RecordHeartbeat(ctx)
			}
		}
	}()
	return func() { close(done) }
}

// noAnswer makes an error one that another attempt may not meet, unless it says what it is itself.
func noAnswer(err error) error {
	var typed *temporal.ApplicationError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &typed):
		return temporal.NewApplicationErrorWithOptions(err.Error(), typed.Type(), temporal.ApplicationErrorOptions{NonRetryable: typed.NonRetryable()})
	default:
		return temporal.NewApplicationError(err.Error(), workflows.Unreachable)
	}
}
