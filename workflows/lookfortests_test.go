package workflows_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/mock"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/workflow"

	"github.com/fairway-project/fairway/e2e"
	"github.com/fairway-project/fairway/workflows"
)

// pulls are the pull requests of a forge.
type pulls struct {
	look     workflows.PullRequestsLook
	asked    workflows.ResolveTest
	fail     error
	attempts int
	begun    []e2e.Request
	ended    []workflows.EndTest
}

var _ workflows.PullRequests = (*pulls)(nil)

func (p *pulls) LookAtPullRequests(context.Context, workflows.LookAtPullRequests) (workflows.PullRequestsLook, error) {
	p.attempts++
	return p.look, p.fail
}

func (p *pulls) ResolveTest(_ context.Context, in workflows.ResolveTest) (e2e.Request, error) {
	p.attempts++
	p.asked = in
	return wish, p.fail
}

func (*pulls) ReportTest(context.Context, e2e.Report) error { return errors.New("not here") }

// run runs a workflow beside tests that run already.
func (p *pulls) run(t *testing.T, running []string, do func(ctx workflow.Context) error) error {
	t.Helper()
	var suite testsuite.WorkflowTestSuite
	env := suite.NewTestWorkflowEnvironment()
	env.SetTestTimeout(20 * time.Second)
	env.RegisterActivity(p)
	env.RegisterWorkflow(workflows.ConsiderTests)
	env.RegisterWorkflow(workflows.RunTest)
	env.RegisterWorkflowWithOptions(func(ctx workflow.Context, request e2e.Request) (e2e.Report, error) {
		p.begun = append(p.begun, request)
		require.Equal(t, workflows.TestID(request.ID), workflow.GetInfo(ctx).WorkflowExecution.ID)
		var end workflows.EndTest
		if received, _ := workflow.GetSignalChannel(ctx, workflows.EndTestName).ReceiveWithTimeout(ctx, time.Hour, &end); received {
			p.ended = append(p.ended, end)
		}
		return e2e.Report{}, nil
	}, workflow.RegisterOptions{Name: "TestPullRequest"})
	env.RegisterWorkflowWithOptions(func(ctx workflow.Context) error {
		for _, id := range running {
			child := workflow.WithChildOptions(ctx, workflow.ChildWorkflowOptions{WorkflowID: workflows.TestID(id)})
			if err := workflow.ExecuteChildWorkflow(child, "TestPullRequest", e2e.Request{ID: id}).GetChildWorkflowExecution().Get(ctx, nil); err != nil {
				return err
			}
		}
		p.begun = nil
		err := do(ctx)
		if slept := workflow.Sleep(ctx, time.Minute); slept != nil {
			return slept
		}
		return err
	}, workflow.RegisterOptions{Name: "beside"})
	env.OnSignalExternalWorkflow(mock.Anything, "e2e/4/gone", "", workflows.EndTestName, mock.Anything).Maybe().Return(&temporal.UnknownExternalWorkflowExecutionError{})
	env.ExecuteWorkflow("beside")
	require.True(t, env.IsWorkflowCompleted())
	return env.GetWorkflowError()
}

func (p *pulls) ids() (ids []string) {
	for _, request := range p.begun {
		ids = append(ids, request.ID)
	}
	slices.Sort(ids)
	return ids
}

func TestALookBeginsAndEndsTests(t *testing.T) {
	p := &pulls{look: workflows.PullRequestsLook{
		Start: []e2e.Request{{ID: "1/new"}, {ID: "2/head"}, {ID: "3/runs"}},
		End:   []workflows.EndTest{{ID: "1/old", Why: "a newer head was pushed"}, {ID: "4/gone", Why: "the label is gone"}},
		Held:  []workflows.HeldTest{{Number: 5, Why: "a stranger"}},
	}}
	var look workflows.PullRequestsLook
	require.NoError(t, p.run(t, []string{"1/old", "3/runs"}, func(ctx workflow.Context) error {
		return workflow.ExecuteChildWorkflow(ctx, workflows.ConsiderTests, workflows.LookAtPullRequests{}).Get(ctx, &look)
	}))
	require.Equal(t, []string{"1/new", "2/head"}, p.ids(), "what runs already is fine")
	require.Equal(t, []workflows.EndTest{{ID: "1/old", Why: "a newer head was pushed"}}, p.ended, "what has ended already is fine")
	require.Equal(t, p.look, look)
}

func TestALookThatFindsNothingDoesNothing(t *testing.T) {
	p := &pulls{}
	require.NoError(t, p.run(t, nil, func(ctx workflow.Context) error {
		return workflow.ExecuteChildWorkflow(ctx, workflows.ConsiderTests, workflows.LookAtPullRequests{}).Get(ctx, nil)
	}))
	require.Empty(t, p.begun)
}

func TestALookAtPullRequestsThatFailsIsLeftToTheNext(t *testing.T) {
	p := &pulls{fail: final(workflows.AccessDenied, "the token is refused")}
	require.ErrorContains(t, p.run(t, nil, func(ctx workflow.Context) error {
		return workflow.ExecuteChildWorkflow(ctx, workflows.ConsiderTests, workflows.LookAtPullRequests{}).Get(ctx, nil)
	}), "the token is refused")
	require.Equal(t, 1, p.attempts)
}

func TestATestByHandIsResolvedAndBegun(t *testing.T) {
	for rule, running := range map[string][]string{"anew": nil, "or found as it is": {wish.ID}} {
		t.Run(rule, func(t *testing.T) {
			p, in := &pulls{}, workflows.ResolveTest{Number: 12, By: "ben", Keep: time.Hour}
			var request e2e.Request
			require.NoError(t, p.run(t, running, func(ctx workflow.Context) error {
				return workflow.ExecuteChildWorkflow(ctx, workflows.RunTest, in).Get(ctx, &request)
			}))
			require.Equal(t, wish, request)
			require.Equal(t, in, p.asked)
			require.Len(t, p.begun, 1-len(running))
		})
	}
}

func TestWhatCannotBeResolvedIsSaidAtOnce(t *testing.T) {
	p := &pulls{fail: final(workflows.InvalidInput, "there is no pull request #99")}
	require.ErrorContains(t, p.run(t, nil, func(ctx workflow.Context) error {
		return workflow.ExecuteChildWorkflow(ctx, workflows.RunTest, workflows.ResolveTest{Number: 99}).Get(ctx, nil)
	}), "there is no pull request #99")
	require.Empty(t, p.begun)
}
