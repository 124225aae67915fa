package workflows

import (
	"errors"
	"fmt"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/fairway-project/fairway/e2e"
)

// ConsiderTests looks once which pull requests are to be tested, ends tests that nobody wants any more, and begins
// those that are due. A schedule and the forge's webhook start it; what it cannot do is for the next look. Tests go
// on without it.
func ConsiderTests(ctx workflow.Context, in LookAtPullRequests) (PullRequestsLook, error) {
	var look PullRequestsLook
	if err := workflow.ExecuteActivity(consulting(ctx, "which pull requests are to be tested"), "LookAtPullRequests", in).Get(ctx, &look); err != nil {
		return look, err
	}
	ended := make([]workflow.Future, len(look.End))
	for i, end := range look.End {
		ended[i] = workflow.SignalExternalWorkflow(ctx, TestID(end.ID), "", EndTestName, end)
	}
	begun := make([]workflow.ChildWorkflowFuture, len(look.Start))
	for i, request := range look.Start {
		begun[i] = beginTest(ctx, request)
	}
	var errs []error
	for i, future := range ended {
		gone := (*temporal.UnknownExternalWorkflowExecutionError)(nil)
		if err := future.Get(ctx, nil); err != nil && !errors.As(err, &gone) { // what has ended is no more to be ended
			errs = append(errs, fmt.Errorf("ending test %s: %w", look.End[i].ID, err))
		}
	}
	for i, child := range begun {
		if err := hasBegun(ctx, child); err != nil {
			errs = append(errs, fmt.Errorf("beginning test %s: %w", look.Start[i].ID, err))
		}
	}
	workflow.SetCurrentDetails(ctx, fmt.Sprintf("It has begun %d tests and ended %d; %d pull requests wait for a person.", len(look.Start), len(look.End), len(look.Held)))
	return look, errors.Join(errs...)
}

// RunTest begins a test by hand. One that runs already is found as it is.
func RunTest(ctx workflow.Context, in ResolveTest) (e2e.Request, error) {
	var request e2e.Request
	if err := workflow.ExecuteActivity(consulting(ctx, "what is to be tested"), "ResolveTest", in).Get(ctx, &request); err != nil {
		return request, err
	}
	if err := hasBegun(ctx, beginTest(ctx, request)); err != nil {
		return request, err
	}
	workflow.SetCurrentDetails(ctx, "It has begun the test in workflow `"+TestID(request.ID)+"`, or it ran already.")
	return request, nil
}

// beginTest starts a test that outlives whoever has begun it. Its id keeps a second one from beginning.
func beginTest(ctx workflow.Context, request e2e.Request) workflow.ChildWorkflowFuture {
	return workflow.ExecuteChildWorkflow(workflow.WithChildOptions(ctx, workflow.ChildWorkflowOptions{
		WorkflowID:            TestID(request.ID),
		StaticSummary:         TestSummary(request),
		ParentClosePolicy:     enumspb.PARENT_CLOSE_POLICY_ABANDON,
		TypedSearchAttributes: TestAttributes(request),
	}), TestPullRequest, request)
}

func hasBegun(ctx workflow.Context, child workflow.ChildWorkflowFuture) error {
	err := child.GetChildWorkflowExecution().Get(ctx, nil)
	if temporal.IsWorkflowExecutionAlreadyStartedError(err) {
		return nil
	}
	return err
}

// consulting is for a look at the forge before anything has begun: what does not answer for long is a failure.
func consulting(ctx workflow.Context, summary string) workflow.Context {
	return workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		StartToCloseTimeout:    2 * time.Minute,
		ScheduleToCloseTimeout: 5 * time.Minute,
		RetryPolicy: &temporal.RetryPolicy{
			InitialInterval: time.Second, BackoffCoefficient: 2, MaximumInterval: 30 * time.Second,
			NonRetryableErrorTypes: []string{InvalidInput, AccessDenied},
		},
		Summary: summary,
	})
}
