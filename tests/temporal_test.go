package tests

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"
	historypb "go.temporal.io/api/history/v1"
	"go.temporal.io/api/serviceerror"
	workflowpb "go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/converter"

	"github.com/fairway-project/fairway/workflows"
)

// background is for questions that may be asked after a test has ended.
var background = context.Background()

// cleanup is a context for tidying up after a test, when its own has ended.
func cleanup(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// replacement is a roll of one node that is under way.
type replacement struct {
	pool   pool
	node   node
	before snapshot
	roll   string // workflow id
	child  string // workflow id
}

// replace begins to replace the node of a pool that has the most to lose.
func (p pool) replace(t *testing.T, w *worker) replacement {
	t.Helper()
	r := p.replacement(t)
	got := w.fairway(t, "node", "replace", p.cluster, r.node.Name, "--reason", t.Name())
	require.Zero(t, got.status, got.stderr)
	require.Contains(t, got.stdout, r.roll)
	return r
}

func (p pool) replacement(t *testing.T) replacement {
	t.Helper()
	node := p.fullest(t)
	return replacement{
		pool: p, node: node, before: p.look(t),
		roll: workflows.RollPoolID(p.cluster, p.name), child: workflows.ReplaceNodeID(p.cluster, node.Name),
	}
}

// pending are the activities that the roll or the replacement within it wait for.
func (r replacement) pending(t require.TestingT) []*workflowpb.PendingActivityInfo {
	var out []*workflowpb.PendingActivityInfo
	for _, id := range []string{r.roll, r.child} {
		description, err := temporal.DescribeWorkflowExecution(background, id, "")
		if missing := new(serviceerror.NotFound); err != nil && assert.ErrorAs(t, err, &missing) {
			continue // the child has not begun yet
		}
		require.NoError(t, err)
		out = append(out, description.PendingActivities...)
	}
	return out
}

// started says whether a worker works on an activity now.
func (r replacement) started(t require.TestingT, activity string) *workflowpb.PendingActivityInfo {
	for _, pending := range r.pending(t) {
		if pending.ActivityType.Name == activity && pending.State == enumspb.PENDING_ACTIVITY_STATE_STARTED {
			return pending
		}
	}
	return nil
}

// awaitDrain waits until the drain has evicted a pod and is not done.
func (r replacement) awaitDrain(t *testing.T) workflows.DrainProgress {
	t.Helper()
	var progress workflows.DrainProgress
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		drain := r.started(c, "DrainNode")
		require.NotNil(c, drain, "no drain")
		require.NotNil(c, drain.HeartbeatDetails, "no heartbeat")
		require.NoError(c, converter.GetDefaultDataConverter().FromPayloads(drain.HeartbeatDetails, &progress))
		assert.Positive(c, progress.Evicted)
		assert.Positive(c, progress.Left)
	}, time.Minute, 50*time.Millisecond, "the drain does not begin")
	return progress
}

// reported is the last report of the drain under way; false if there is none.
func (r replacement) reported(t require.TestingT) (progress workflows.DrainProgress, reported bool) {
	drain := r.started(t, "DrainNode")
	if drain == nil || drain.HeartbeatDetails == nil {
		return progress, false
	}
	// Before the first report it says in words that it reads the cluster.
	return progress, converter.GetDefaultDataConverter().FromPayloads(drain.HeartbeatDetails, &progress) == nil
}

// end waits for the end of the roll and returns its result or error.
func (r replacement) end(t *testing.T) (workflows.RollProgress, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	var result workflows.RollProgress
	err := temporal.GetWorkflow(ctx, r.roll, "").Get(ctx, &result)
	require.NoError(t, ctx.Err(), "the roll does not end; pending: %v", r.pending(t))
	return result, err
}

// requireDone waits for the end of the roll and checks that it has done what it should, and
// nothing else.
func (r replacement) requireDone(t *testing.T) {
	t.Helper()
	require.Empty(t, r.requireForced(t))
}

// requireForced is requireDone where pods may be forced, and returns those that were.
func (r replacement) requireForced(t *testing.T) []workflows.ForcedPod {
	t.Helper()
	result, err := r.end(t)
	require.NoError(t, err)
	require.Equal(t, "done", result.Phase)
	require.Len(t, result.Nodes, 1)
	forced := result.Nodes[0].Forced
	r.pool.requireReplaced(t, r.before, r.node.Name, forced...)
	return forced
}

// runsAbout are the runs of a workflow id, running or not.
func runsAbout(t *testing.T, id string) []string {
	t.Helper()
	var out []string
	description, err := temporal.DescribeWorkflowExecution(t.Context(), id, "")
	if missing := new(serviceerror.NotFound); err != nil && assert.ErrorAs(t, err, &missing) {
		return nil
	}
	require.NoError(t, err)
	return append(out, id+" "+description.WorkflowExecutionInfo.Execution.RunId)
}

func history(t *testing.T, id string) []*historypb.HistoryEvent {
	t.Helper()
	var out []*historypb.HistoryEvent
	events := temporal.GetWorkflowHistory(t.Context(), id, "", false, enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
	for events.HasNext() {
		event, err := events.Next()
		require.NoError(t, err)
		out = append(out, event)
	}
	return out
}

func describe(t *testing.T, id string) *workflowservice.DescribeWorkflowExecutionResponse {
	t.Helper()
	description, err := temporal.DescribeWorkflowExecution(t.Context(), id, "")
	require.NoError(t, err)
	return description
}

// completed says whether an activity of the roll, or of the replacement within it, has ended.
func completed(t *testing.T, r replacement, activity string) bool {
	t.Helper()
	for _, id := range []string{r.roll, r.child} {
		if len(runsAbout(t, id)) == 0 {
			continue
		}
		scheduled := map[int64]bool{}
		for _, event := range history(t, id) {
			if event.GetActivityTaskScheduledEventAttributes().GetActivityType().GetName() == activity {
				scheduled[event.EventId] = true
			}
			if scheduled[event.GetActivityTaskCompletedEventAttributes().GetScheduledEventId()] {
				return true
			}
		}
	}
	return false
}

// workflows are the ids of all workflows that were ever started for a worker.
func (w *worker) workflows(t *testing.T) []string {
	t.Helper()
	list, err := temporal.ListWorkflow(t.Context(), &workflowservice.ListWorkflowExecutionsRequest{Query: fmt.Sprintf("TaskQueue = %q", w.name)})
	require.NoError(t, err)
	var out []string
	for _, each := range list.Executions {
		out = append(out, each.Execution.WorkflowId)
	}
	return out
}
