package fleet

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/testsuite"

	"github.com/fairway-project/fairway/workflows"
)

// holders stands for Temporal: the fleet's actor, and the workflows that have taken turns.
type holders struct {
	client.Client
	turns    []workflows.Turn
	runs     map[string]client.WorkflowExecutionDescription
	returned []string
}

func (h *holders) QueryWorkflow(context.Context, string, string, string, ...any) (converter.EncodedValue, error) {
	payloads, err := converter.GetDefaultDataConverter().ToPayloads(workflows.FleetState{Turns: h.turns})
	return client.NewValue(payloads), err
}

func (h *holders) DescribeWorkflow(_ context.Context, id, _ string) (*client.WorkflowExecutionDescription, error) {
	if run, known := h.runs[id]; known {
		return &run, nil
	}
	return nil, serviceerror.NewNotFound("no such workflow")
}

func (h *holders) NewWithStartWorkflowOperation(client.StartWorkflowOptions, any, ...any) client.WithStartWorkflowOperation {
	return nil
}

func (h *holders) UpdateWithStartWorkflow(_ context.Context, options client.UpdateWithStartWorkflowOptions) (client.WorkflowUpdateHandle, error) {
	h.returned = append(h.returned, options.UpdateOptions.Args[0].(string))
	return done{}, nil
}

type done struct{ client.WorkflowUpdateHandle }

func (done) Get(context.Context, any) error { return nil }

func TestTurnsOfThoseThatHaveEndedAreGivenBack(t *testing.T) {
	now := time.Now()
	run := func(status enumspb.WorkflowExecutionStatus, started time.Time) (d client.WorkflowExecutionDescription) {
		d.Status, d.WorkflowStartTime = status, started
		return d
	}
	const going, ended = enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING, enumspb.WORKFLOW_EXECUTION_STATUS_TERMINATED
	h := &holders{runs: map[string]client.WorkflowExecutionDescription{
		"goes on": run(going, now.Add(-time.Hour)), "just began": run(going, now.Add(time.Second)),
		"terminated": run(ended, now.Add(-time.Hour)), "terminated, and the next one waits": run(going, now.Add(time.Hour)),
	}}
	for _, holder := range []string{"goes on", "just began", "terminated", "terminated, and the next one waits", "forgotten"} {
		h.turns = append(h.turns, workflows.Turn{AwaitTurn: workflows.AwaitTurn{Holder: holder}, Since: now})
	}
	a := &Activities{Temporal: h}
	var suite testsuite.WorkflowTestSuite
	env := suite.NewTestActivityEnvironment()
	env.RegisterActivity(a.endForgotten)
	_, err := env.ExecuteActivity(a.endForgotten)
	require.NoError(t, err)
	require.Equal(t, []string{"terminated", "terminated, and the next one waits", "forgotten"}, h.returned)
}
