package workflows_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"

	"github.com/fairway-project/fairway/e2e"
	"github.com/fairway-project/fairway/workflows"
)

// litter is what tests have left.
type litter struct {
	mu      sync.Mutex
	found   []e2e.Orphan
	find    error
	fail    func(e2e.Orphan) error
	removed []string
	now     int
	most    int // removals at a time
	told    []workflows.Notification
	left    []string // clusters whose place was given back
}

var (
	_ workflows.Sweeping      = (*litter)(nil)
	_ workflows.Notifications = (*litter)(nil)
	_ workflows.TestQueues    = (*litter)(nil)
)

func (l *litter) FindOrphans(context.Context, workflows.FindOrphans) ([]e2e.Orphan, error) {
	return l.found, l.find
}

func (l *litter) RemoveOrphan(ctx context.Context, in e2e.Orphan) error {
	l.mu.Lock()
	l.now++
	l.most = max(l.most, l.now)
	l.mu.Unlock()
	time.Sleep(time.Millisecond) // for others to begin, if they may
	l.mu.Lock()
	defer l.mu.Unlock()
	l.now--
	if activity.GetInfo(ctx).Attempt == 1 {
		l.removed = append(l.removed, in.Kind+" "+in.ID)
	}
	if l.fail != nil {
		return l.fail(in)
	}
	return nil
}

func (l *litter) Notify(_ context.Context, in workflows.Notification) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.told = append(l.told, in)
	return nil
}

func (*litter) EnterTestQueue(context.Context, workflows.TestQueueEntry) error { return nil }

func (l *litter) LeaveTestQueue(_ context.Context, in workflows.TestQueueEntry) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.left = append(l.left, in.Request.Cluster)
	return nil
}

func (l *litter) sweep(t *testing.T, in workflows.SweepInput, set ...func(*testsuite.TestWorkflowEnvironment)) (workflows.SweepResult, error) {
	t.Helper()
	var suite testsuite.WorkflowTestSuite
	env := suite.NewTestWorkflowEnvironment()
	env.SetTestTimeout(20 * time.Second)
	env.SetStartTime(noon)
	env.RegisterActivity(l)
	for _, each := range set {
		each(env)
	}
	env.ExecuteWorkflow(workflows.Sweep, in)
	require.True(t, env.IsWorkflowCompleted())
	answer, err := env.QueryWorkflow(workflows.ProgressQuery)
	require.NoError(t, err)
	var result workflows.SweepResult
	require.NoError(t, answer.Get(&result))
	return result, env.GetWorkflowError()
}

func orphans(kinds ...string) (out []e2e.Orphan) {
	for i, kind := range kinds {
		out = append(out, e2e.Orphan{Kind: kind, ID: fmt.Sprint(i), Lease: "e2e-12-abc", Why: "its test is gone"})
	}
	return out
}

func TestASweepRemovesWhatIsMadeOfOthersFirst(t *testing.T) {
	l := &litter{found: orphans("lease", "stack", "volume", "pool-stack", "record")}
	result, err := l.sweep(t, workflows.SweepInput{AtMost: 5})
	require.NoError(t, err)
	require.Equal(t, []string{"pool-stack 3", "volume 2", "stack 1", "record 4", "lease 0"}, l.removed)
	require.Len(t, result.Removed, 5)
	require.False(t, result.Removed[0].At.IsZero())
	require.Empty(t, result.Failed)
	require.Equal(t, []string{"e2e-12-abc"}, l.left, "its test cannot give back its place any more")
	require.Len(t, l.told, 1)
	require.Equal(t, workflows.Swept, l.told[0].Kind)
	require.Contains(t, l.told[0].Text, "A sweep has removed 5 things that nobody owned. pool-stack 3 (e2e-12-abc), ")
}

func TestADryRunOnlyLists(t *testing.T) {
	l := &litter{found: orphans("stack", "lease")}
	result, err := l.sweep(t, workflows.SweepInput{AtMost: 0, DryRun: true})
	require.NoError(t, err)
	require.Equal(t, workflows.SweepResult{Found: l.found}, result)
	require.Empty(t, l.removed)
	require.Empty(t, l.told)
}

func TestASweepThatFindsNothingSaysNothing(t *testing.T) {
	l := &litter{}
	_, err := l.sweep(t, workflows.SweepInput{AtMost: 5})
	require.NoError(t, err)
	require.Empty(t, l.told)
}

func TestAMassRemovalIsAskedFor(t *testing.T) {
	l := &litter{found: orphans("stack", "stack", "lease")}
	var ids []string
	for range 2 {
		l.told = nil
		result, err := l.sweep(t, workflows.SweepInput{AtMost: 2})
		require.NoError(t, err)
		require.Empty(t, l.removed)
		require.Equal(t, "3 things are owned by nobody, and a sweep removes at most 2 by itself, so it has removed nothing. Look at them with `fairway sweep --dry-run`; if they are to go, run `fairway sweep --at-most 3`.", result.Asks)
		require.Equal(t, workflows.SweepAsks, l.told[0].Kind)
		ids = append(ids, l.told[0].ID)
	}
	require.Equal(t, ids[0], ids[1], "it is the same question")
	l.found = l.found[1:]
	_, err := l.sweep(t, workflows.SweepInput{AtMost: 1})
	require.NoError(t, err)
	require.NotEqual(t, ids[0], l.told[1].ID, "it is another one")
}

func TestARemovalThatFailsKeepsNoOtherFromBeingTried(t *testing.T) {
	l := &litter{found: orphans("stack", "stack", "lease", "dragon"), fail: func(o e2e.Orphan) error {
		if o.ID == "0" {
			return final(workflows.StackFailed, "the bucket is not empty")
		}
		return nil
	}}
	result, err := l.sweep(t, workflows.SweepInput{AtMost: 20})
	require.NoError(t, err)
	require.Len(t, result.Removed, 2)
	require.Len(t, result.Failed, 2)
	require.Equal(t, "the bucket is not empty.", result.Failed[0].Problem)
	require.Equal(t, `nobody knows how to remove a "dragon"`, result.Failed[1].Problem)
	require.Contains(t, l.told[0].Text, "2 could not be removed; the next sweep tries again. stack 0 (e2e-12-abc), dragon 3 (e2e-12-abc). The first one: the bucket is not empty.")
}

func TestASweepRemovesSomeAtATimeAndLeavesTheRestToTheNext(t *testing.T) {
	l := &litter{found: orphans(slices.Repeat([]string{"volume"}, 300)...)}
	result, err := l.sweep(t, workflows.SweepInput{AtMost: 1000})
	require.NoError(t, err)
	require.Len(t, result.Removed, 200)
	require.Len(t, result.Found, 300)
	require.Equal(t, 5, l.most)
	require.Contains(t, l.told[0].Text, "and 180 more.")
	require.Less(t, len(l.told[0].Text), 5000)
}

func TestAnEndpointThatIsGoneForAWhileIsAskedAgain(t *testing.T) {
	failures := 0
	l := &litter{found: orphans("stack"), fail: func(e2e.Orphan) error {
		if failures++; failures < 4 {
			return temporal.NewApplicationError("no answer", workflows.Unreachable)
		}
		return nil
	}}
	result, err := l.sweep(t, workflows.SweepInput{AtMost: 1})
	require.NoError(t, err)
	require.Len(t, result.Removed, 1)
}

func TestASweepThatIsCancelledSaysWhatItHasDone(t *testing.T) {
	l := &litter{found: orphans("volume", "stack", "lease"), fail: func(o e2e.Orphan) error {
		if o.Kind == "stack" {
			return temporal.NewApplicationError("no answer", workflows.Unreachable)
		}
		return nil
	}}
	result, err := l.sweep(t, workflows.SweepInput{AtMost: 3}, after(7*time.Second, cancelIt))
	require.True(t, temporal.IsCanceledError(err), err)
	require.Len(t, result.Removed, 1)
	require.Equal(t, []string{"volume 0", "stack 1"}, l.removed)
	require.Len(t, l.told, 1)
}

func TestASweepThatDoesNotKnowTheLeasesRemovesNothing(t *testing.T) {
	l := &litter{find: final(workflows.AccessDenied, "the bucket is closed"), found: orphans("stack")}
	_, err := l.sweep(t, workflows.SweepInput{AtMost: 3})
	require.ErrorContains(t, err, "the bucket is closed")
	require.Empty(t, l.removed)
}

func TestNamesThatOthersGaveDoNotFillThePage(t *testing.T) {
	l := &litter{found: []e2e.Orphan{{Kind: "stack", ID: strings.Repeat("x", 5000) + "\nBcc: all", Lease: "e2e-1"}}}
	_, err := l.sweep(t, workflows.SweepInput{AtMost: 3})
	require.NoError(t, err)
	require.Less(t, len(l.told[0].Text), 500)
	require.NotContains(t, l.told[0].Text, "Bcc")
}
