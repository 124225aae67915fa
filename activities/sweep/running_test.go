package sweep_test

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/mock"
	"github.com/stretchr/testify/require"
	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	workflowpb "go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/mocks"

	"github.com/fairway-project/fairway/activities/sweep"
	"github.com/fairway-project/fairway/workflows"
)

func TestWhetherAWorkflowRuns(t *testing.T) {
	for name, test := range map[string]struct {
		status  enums.WorkflowExecutionStatus
		err     error
		running bool
		fails   string
	}{
		"one that runs":                                {status: enums.WORKFLOW_EXECUTION_STATUS_RUNNING, running: true},
		"one that somebody has paused":                 {status: enums.WORKFLOW_EXECUTION_STATUS_PAUSED, running: true},
		"one that is between two runs":                 {status: enums.WORKFLOW_EXECUTION_STATUS_CONTINUED_AS_NEW, running: true},
		"not one that has ended":                       {status: enums.WORKFLOW_EXECUTION_STATUS_COMPLETED},
		"not one that was terminated":                  {status: enums.WORKFLOW_EXECUTION_STATUS_TERMINATED},
		"not one that Temporal does not know":          {err: serviceerror.NewNotFound("workflow not found")},
		"nobody knows without an answer":               {err: errors.New("connection refused"), fails: "asking Temporal whether e2e/1 runs: connection refused"},
		"nobody knows when the namespace is missing":   {err: serviceerror.NewNamespaceNotFound("tests"), fails: "asking Temporal whether e2e/1 runs"},
		"nobody knows when the answer does not say so": {fails: "Temporal does not say whether e2e/1 runs"},
	} {
		t.Run(name, func(t *testing.T) {
			client := mocks.NewClient(t)
			client.On("DescribeWorkflowExecution", mock.Anything, "e2e/1", "").Return(
				&workflowservice.DescribeWorkflowExecutionResponse{WorkflowExecutionInfo: &workflowpb.WorkflowExecutionInfo{Status: test.status}}, test.err)
			running, err := sweep.Running(client)(t.Context(), "e2e/1")
			require.Equal(t, test.running, running)
			if test.fails == "" {
				require.NoError(t, err)
				return
			}
			requireError(t, err, workflows.Unreachable, false, test.fails)
		})
	}
}
