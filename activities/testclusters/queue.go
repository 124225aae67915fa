package testclusters

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"

	"github.com/fairway-project/fairway/e2e"
	"github.com/fairway-project/fairway/workflows"
)

// Queue implements workflows.TestQueues.
type Queue struct {
	Temporal client.Client
	// TaskQueue is where the actor runs if it has to be started.
	TaskQueue string
	Accounts  []e2e.Account
}

var _ workflows.TestQueues = (*Queue)(nil)

// limit of an account for which none is configured.
const limit = 2

// EnterTestQueue implements workflows.TestQueues.
func (q *Queue) EnterTestQueue(ctx context.Context, in workflows.TestQueueEntry) error {
	in.Accounts = slices.Clone(q.Accounts)
	for i, account := range in.Accounts {
		in.Accounts[i].Limit = cmp.Or(account.Limit, limit)
	}
	_, err := q.Temporal.SignalWithStartWorkflow(ctx, workflows.TestQueueID, workflows.EnterName, in, client.StartWorkflowOptions{
		ID: workflows.TestQueueID, WorkflowIDConflictPolicy: enumspb.WORKFLOW_ID_CONFLICT_POLICY_USE_EXISTING, TaskQueue: q.TaskQueue, StaticSummary: "who may make a cluster for a test",
	}, "TestQueue", workflows.TestQueueState{Accounts: in.Accounts})
	return q.failed("entering", in, err)
}

// LeaveTestQueue implements workflows.TestQueues.
func (q *Queue) LeaveTestQueue(ctx context.Context, in workflows.TestQueueEntry) error {
	err := q.Temporal.SignalWorkflow(ctx, workflows.TestQueueID, "", workflows.LeaveName, in)
	if nobody := (*serviceerror.NotFound)(nil); errors.As(err, &nobody) {
		return nil
	}
	return q.failed("leaving", in, err)
}

// Entries asks Temporal who waits and who has a place, as the actor knows them: nobody if there is no actor, or if somebody has
// ended it. Unreachable if it does not answer.
func Entries(c client.Client) func(context.Context) ([]workflows.TestQueueEntry, error) {
	return func(ctx context.Context) ([]workflows.TestQueueEntry, error) {
		var state workflows.TestQueueState
		answer, err := c.QueryWorkflowWithOptions(ctx, &client.QueryWorkflowWithOptionsRequest{
			WorkflowID: workflows.TestQueueID, QueryType: workflows.StateQuery, QueryRejectCondition: enumspb.QUERY_REJECT_CONDITION_NOT_OPEN,
		})
		if nobody := (*serviceerror.NotFound)(nil); errors.As(err, &nobody) || err == nil && answer.QueryRejected != nil {
			return nil, nil
		}
		if err == nil {
			err = answer.QueryResult.Get(&state)
		}
		if err != nil && !errors.Is(err, context.Canceled) {
			err = temporal.NewApplicationError(fmt.Sprintf("asking the queue of tests who has a place: %v", err), workflows.Unreachable)
		}
		return state.Entries, err
	}
}

func (q *Queue) failed(doing string, in workflows.TestQueueEntry, err error) error {
	if err == nil || errors.Is(err, context.Canceled) {
		return err
	}
	return temporal.NewApplicationError(fmt.Sprintf("test %s: %s the queue of tests: Temporal says: %v", in.Request.ID, doing, err), workflows.Unreachable)
}
