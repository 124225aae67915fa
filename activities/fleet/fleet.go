// Package fleet holds the activities that keep the limits across clusters, with the help of the
// fleet's actor.
package fleet

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"

	"github.com/fairway-project/fairway/activities"
	"github.com/fairway-project/fairway/workflows"
)

// Activities implements workflows.Turns.
type Activities struct {
	Temporal client.Client
	// TaskQueue is where the actor runs if it has to be started.
	TaskQueue string
}

var _ workflows.Turns = (*Activities)(nil)

// askAgain is the time between two requests for a turn; a refused one costs no history.
const askAgain = 2 * time.Second

// askAgainForCluster is the same for a turn to update a cluster, which others have for longer: a wave
// may have a hundred that wait.
const askAgainForCluster = 10 * time.Second

// lookForForgotten is the time between two looks for turns whose holders have ended; each costs a
// request for every turn.
const lookForForgotten = time.Minute

// AwaitTurn implements workflows.Turns.
func (a *Activities) AwaitTurn(ctx context.Context, in workflows.AwaitTurn) error {
	var looked time.Time
	every := askAgain
	if in.Clusters {
		every = askAgainForCluster
	}
	beat := time.Tick(activities.BeatEvery)
	for again := time.Tick(every); ; {
		err := a.update(ctx, workflows.TakeTurn, in)
		if ctx.Err() != nil {
			return ctx.Err() // a cancellation in the middle of a request is no outage
		}
		var refused *temporal.ApplicationError
		if !errors.As(err, &refused) || refused.Type() != workflows.NoTurn {
			return err
		}
		activity.RecordHeartbeat(ctx, refused.Message())
		if time.Since(looked) > lookForForgotten {
			if err := a.endForgotten(ctx); err != nil && ctx.Err() == nil {
				return err
			}
			looked = time.Now()
		}
		for waiting := true; waiting; {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-activity.GetWorkerStopChannel(ctx):
				return activities.ErrStopping
			case <-beat:
				activity.RecordHeartbeat(ctx, refused.Message())
			case <-again:
				waiting = false
			}
		}
	}
}

// EndTurn implements workflows.Turns.
func (a *Activities) EndTurn(ctx context.Context, in workflows.AwaitTurn) error {
	return a.update(ctx, workflows.ReturnTurn, in.Holder)
}

// clocks is by how much those of Temporal's servers may differ.
const clocks = time.Minute

// endForgotten gives back the turns of workflows that were terminated and could not do so. The next
// workflow of the id may run by now, and begin with another wait than that for a turn.
func (a *Activities) endForgotten(ctx context.Context) error {
	answer, err := a.Temporal.QueryWorkflow(ctx, workflows.FleetID, "", workflows.StateQuery)
	var state workflows.FleetState
	if err == nil {
		err = answer.Get(&state)
	}
	if err != nil {
		return unreachable(err)
	}
	for _, turn := range state.Turns {
		activity.RecordHeartbeat(ctx, "looking for turns whose holders have ended")
		description, err := a.Temporal.DescribeWorkflow(ctx, turn.Holder, "")
		unknown := (*serviceerror.NotFound)(nil)
		switch {
		case errors.As(err, &unknown), err == nil && (description.Status != enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING || description.WorkflowStartTime.After(turn.Since.Add(clocks))):
			if err := a.update(ctx, workflows.ReturnTurn, turn.Holder); err != nil {
				return err
			}
		case err != nil:
			return unreachable(err)
		}
	}
	return nil
}

// update has the actor carry out an update, and starts it if need be.
func (a *Activities) update(ctx context.Context, name string, argument any) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	handle, err := a.Temporal.UpdateWithStartWorkflow(ctx, client.UpdateWithStartWorkflowOptions{
		StartWorkflowOperation: a.Temporal.NewWithStartWorkflowOperation(client.StartWorkflowOptions{
			ID: workflows.FleetID, TaskQueue: a.TaskQueue, StaticSummary: "limits across clusters",
			WorkflowIDConflictPolicy: enumspb.WORKFLOW_ID_CONFLICT_POLICY_USE_EXISTING,
		}, workflows.Fleet, workflows.FleetState{}),
		UpdateOptions: client.UpdateWorkflowOptions{
			UpdateID: uuid.NewString(), UpdateName: name, Args: []any{argument}, WaitForStage: client.WorkflowUpdateStageCompleted,
		},
	})
	if err == nil {
		err = handle.Get(ctx, nil)
	}
	if typed := (*temporal.ApplicationError)(nil); err == nil || errors.As(err, &typed) {
		return err
	}
	return unreachable(err)
}

func unreachable(err error) error {
	return temporal.NewApplicationError(fmt.Sprintf("asking workflow %s about the limits across clusters: %v", workflows.FleetID, err), workflows.Unreachable)
}
