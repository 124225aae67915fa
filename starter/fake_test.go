package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/api/common/v1"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// fakeTemporal answers as Temporal, the worker and its actors would. Answers pass through JSON, as
// they do for real.
type fakeTemporal struct {
	client.Client
	t *testing.T
	// activities and queries answer by the activity's name and the workflow's id; an error is
	// one, and what is missing does not exist.
	activities map[string]any
	queries    map[string]any
	// running are the ids of the workflows that run, by type.
	running map[string][]string
	over    map[string][]string                        // those that have ended, also by type
	pending map[string][]*workflow.PendingActivityInfo // by workflow
	delay   time.Duration                              // of each answer
	// ends are the results of workflows by their id; those that are missing go on until nobody waits any more.
	ends      map[string]any
	updates   map[string]any // answers to updates, by the id of the workflow
	schedules *fakeSchedules

	mutex sync.Mutex
	asked map[string]any // activities that were asked, with their input
	begun []any          // inputs of workflows that were started
	told  map[string]any // signals, by their name
}

func (f *fakeTemporal) connection() *connection {
	return &connection{Client: f, address: "here", namespace: "default", taskQueue: "fairway"}
}

// into copies an answer through JSON.
func into(answer, out any) error {
	if err, failed := answer.(error); failed {
		return err
	}
	data, err := json.Marshal(answer)
	if err != nil {
		return err
	}
	return json.Unmarshal(data, out)
}

type fakeAnswer struct {
	client.ActivityHandle
	answer any
}

func (a fakeAnswer) Get(_ context.Context, out any) error                       { return into(a.answer, out) }
func (a fakeAnswer) Cancel(context.Context, client.CancelActivityOptions) error { return nil }

type fakeValue struct{ answer any }

func (v fakeValue) HasValue() bool    { return true }
func (v fakeValue) Get(out any) error { return into(v.answer, out) }

var _ converter.EncodedValue = fakeValue{}

func (f *fakeTemporal) ExecuteActivity(_ context.Context, _ client.StartActivityOptions, activity any, args ...any) (client.ActivityHandle, error) {
	name := activity.(string)
	f.mutex.Lock()
	defer f.mutex.Unlock()
	if f.asked == nil {
		f.asked = map[string]any{}
	}
	f.asked[name] = args[0]
	answer, known := f.activities[name]
	require.True(f.t, known, "nobody expected activity %s", name)
	if by := reflect.ValueOf(answer); by.Kind() == reflect.Func {
		answer = by.Call([]reflect.Value{reflect.ValueOf(args[0])})[0].Interface()
	}
	return fakeAnswer{answer: answer}, nil
}

var errSilent = errors.New("no worker answers")

func (f *fakeTemporal) QueryWorkflow(ctx context.Context, id, run, query string, _ ...any) (converter.EncodedValue, error) {
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-time.After(f.delay):
	}
	answer, known := f.queries[id]
	if !known {
		return nil, serviceerror.NewNotFound("no such workflow")
	}
	if err, failed := answer.(error); failed {
		return nil, err
	}
	return fakeValue{answer}, nil
}

func (f *fakeTemporal) ListWorkflow(_ context.Context, request *workflowservice.ListWorkflowExecutionsRequest) (*workflowservice.ListWorkflowExecutionsResponse, error) {
	out := &workflowservice.ListWorkflowExecutionsResponse{}
	listed, status := f.running, enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING
	if strings.Contains(request.Query, "!= 'Running'") {
		listed, status = f.over, enumspb.WORKFLOW_EXECUTION_STATUS_COMPLETED
	}
	for kind, ids := range listed {
		if !strings.Contains(request.Query, "'"+kind+"'") {
			continue
		}
		for _, id := range ids {
			out.Executions = append(out.Executions, &workflow.WorkflowExecutionInfo{
				Execution: &common.WorkflowExecution{WorkflowId: id, RunId: "run of " + id}, StartTime: timestamppb.New(began), Status: status,
			})
		}
	}
	return out, nil
}

func (f *fakeTemporal) DescribeWorkflowExecution(_ context.Context, id, _ string) (*workflowservice.DescribeWorkflowExecutionResponse, error) {
	return &workflowservice.DescribeWorkflowExecutionResponse{
		WorkflowExecutionInfo: &workflow.WorkflowExecutionInfo{Execution: &common.WorkflowExecution{WorkflowId: id, RunId: "run of " + id}, Status: enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING},
		PendingActivities:     f.pending[id],
	}, nil
}

func (f *fakeTemporal) DescribeWorkflow(_ context.Context, id, _ string) (*client.WorkflowExecutionDescription, error) {
	for _, ids := range f.running {
		for _, each := range ids {
			if each == id {
				return &client.WorkflowExecutionDescription{WorkflowExecutionMetadata: client.WorkflowExecutionMetadata{Status: enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING}}, nil
			}
		}
	}
	return nil, serviceerror.NewNotFound("no such workflow")
}

// shown is a result as a table.
func shown(t *testing.T, write func(*table)) string {
	t.Helper()
	var out strings.Builder
	require.NoError(t, (&cli{output: "table"}).print(&out, nil, write))
	return out.String()
}

// requireRow requires a line of a table to begin with some cells.
func requireRow(t *testing.T, table string, cells ...string) {
	t.Helper()
	for _, line := range strings.Split(table, "\n") {
		if strings.HasPrefix(strings.Join(columns(line), "|"), strings.Join(cells, "|")) {
			return
		}
	}
	require.Fail(t, fmt.Sprintf("no row %q", cells), table)
}

func columns(line string) (out []string) {
	for _, cell := range strings.Split(line, "   ") {
		if cell = strings.TrimSpace(cell); cell != "" {
			out = append(out, cell)
		}
	}
	return out
}
