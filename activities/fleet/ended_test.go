package fleet_test

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"

	"github.com/fairway-project/fairway/activities/fleet"
	"github.com/fairway-project/fairway/workflows"
)

// described is a Temporal that knows one workflow.
type described struct {
	client.Client
	status enumspb.WorkflowExecutionStatus
	err    error
}

func (d described) DescribeWorkflow(context.Context, string, string) (*client.WorkflowExecutionDescription, error) {
	if d.err != nil {
		return nil, d.err
	}
	return &client.WorkflowExecutionDescription{WorkflowExecutionMetadata: client.WorkflowExecutionMetadata{Status: d.status}}, nil
}

func TestTheEndOfAWorkflowIsWaitedForByTryingAgain(t *testing.T) {
	for rule, test := range map[string]struct {
		temporal described
		kind     string
	}{
		"one that runs":      {described{status: enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING}, workflows.StillRunning},
		"one that has ended": {described{status: enumspb.WORKFLOW_EXECUTION_STATUS_COMPLETED}, ""},
		"one that was ended": {described{status: enumspb.WORKFLOW_EXECUTION_STATUS_TERMINATED}, ""},
		"one that never was": {described{err: serviceerror.NewNotFound("no such workflow")}, ""},
		"nobody knows":       {described{err: errors.New("connection refused")}, workflows.Unreachable},
	} {
		t.Run(rule, func(t *testing.T) {
			err := (&fleet.Activities{Temporal: test.temporal}).AwaitEnd(t.Context(), workflows.AwaitEnd{Workflow: "cluster/dev-1/pool/worker"})
			if test.kind == "" {
				require.NoError(t, err)
				return
			}
			var application *temporal.ApplicationError
			require.ErrorAs(t, err, &application)
			require.Equal(t, test.kind, application.Type())
			require.False(t, application.NonRetryable())
			require.ErrorContains(t, err, "cluster/dev-1/pool/worker")
		})
	}
}
