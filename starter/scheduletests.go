package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"

	"github.com/fairway-project/fairway/e2e"
	"github.com/fairway-project/fairway/workflows"
)

// Types of the workflows of tests that a schedule starts.
const (
	testsWorkflow = "ConsiderTests"
	sweepWorkflow = "Sweep"
)

// sweepSchedule is the schedule of the sweeps.
const sweepSchedule = workflows.SweepID + "/schedule"

// schedulesOfTests are those that the tests of pull requests need; none without accounts.
func schedulesOfTests(settings e2e.Settings, taskQueue string) (out []edgeSchedule) {
	if !settings.Configured() {
		return nil
	}
	schedule := edgeSchedule{CatchUp: lookCatchup, Overlap: enumspb.SCHEDULE_OVERLAP_POLICY_SKIP.String(), TaskQueue: taskQueue}
	schedule.ID, schedule.Workflow, schedule.Every = workflows.LookForTests, testsWorkflow, max(settings.Every, time.Second)
	out = append(out, schedule)
	if settings.Sweep.Every > 0 {
		schedule.ID, schedule.Workflow, schedule.Every = sweepSchedule, sweepWorkflow, max(settings.Sweep.Every, time.Second)
		schedule.AtMost = settings.Sweep.AtMost
		out = append(out, schedule)
	}
	return out
}

// isOfTests says whether a schedule is one of tests.
func isOfTests(entry *client.ScheduleListEntry) bool {
	return entry.ID == workflows.LookForTests && entry.WorkflowType.Name == testsWorkflow || entry.ID == sweepSchedule && entry.WorkflowType.Name == sweepWorkflow
}

// actionOfTests is what a schedule of tests does.
func actionOfTests(s edgeSchedule) *client.ScheduleWorkflowAction {
	if s.Workflow == sweepWorkflow {
		return &client.ScheduleWorkflowAction{
			ID: workflows.SweepID, Workflow: sweepWorkflow, Args: []any{workflows.SweepInput{AtMost: s.AtMost}},
			TaskQueue: s.TaskQueue, StaticSummary: "is something of a test left that nobody owns",
		}
	}
	return &client.ScheduleWorkflowAction{
		ID: workflows.LookForTests, Workflow: testsWorkflow, Args: []any{workflows.LookAtPullRequests{}},
		TaskQueue: s.TaskQueue, StaticSummary: "is a pull request to be tested",
	}
}

// checkTests asks the worker whether it tests pull requests, which changes nothing.
func (c *connection) checkTests(ctx context.Context) (problems, warnings []string, err error) {
	err = c.askForTests(ctx, "ListSuites", nil, &workflows.SuitesToRun{})
	status := (*statusError)(nil)
	switch {
	case err == nil:
		return nil, nil, nil
	case !errors.As(err, &status) || status.kind == "":
		return nil, nil, err // without a worker nothing is known
	case status.kind == workflows.Unreachable:
		return nil, []string{"Tests: " + err.Error()}, nil
	}
	return []string{"Tests: " + err.Error()}, nil, nil
}

// notRegistered is the kind of the error of a worker that does not know an activity.
const notRegistered = "ActivityNotRegisteredError"

// askForTests has the worker run an activity of tests. A worker without accounts for tests has none.
func (c *connection) askForTests(ctx context.Context, activity string, in, out any) error {
	err := c.askLong(ctx, activity, in, out)
	if status := (*statusError)(nil); errors.As(err, &status) && status.kind == notRegistered {
		return &statusError{status: exitUsage, kind: notRegistered, err: fmt.Errorf("the worker tests no pull requests: %w", errNoTests)}
	}
	return err
}

// errNoTests says what to do where tests are not configured.
var errNoTests = errors.New("e2e.accounts is empty; docs/e2e.md says how tests are set up")
