// Command record keeps histories of workflows for the replay test of package workflows: closed
// ones, and those of actors, which never close. It is run at the root of the repository with the
// TEMPORAL_* variables of a server on which workflows have ended in different ways, such as a
// lab's, where ./tests/record/scenes makes them do so, or ./tests/pullrequests; `make record` and
// `make record-tests` do all of it.
//
// A history is kept if no file has its shape yet. Files are never replaced: what was released
// has to be replayable for as long as such workflows may run. Only before that, -unreleased first
// deletes those that the workflows of today do not replay.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"

	commonpb "go.temporal.io/api/common/v1"
	"go.temporal.io/api/enums/v1"
	historypb "go.temporal.io/api/history/v1"
	workflowpb "go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/contrib/envconfig"
)

const (
	histories = "workflows/testdata/histories"
	wanted    = `WorkflowType IN ("UpdateCluster", "RollPool", "ReplaceNode", "Sync", "WatchHealth", "ConsiderPromotion", "Promote", "TestPullRequest", "ConsiderTests", "RunTest", "Sweep") AND ExecutionStatus IN ("Completed", "Canceled", "Failed", "ContinuedAsNew")` +
		` OR WorkflowType IN ("Channel", "Cluster", "Fleet", "TestQueue") AND ExecutionStatus IN ("Running", "ContinuedAsNew")`
)

var actors = []string{"Channel", "Cluster", "Fleet", "TestQueue"}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	unreleased := flag.Bool("unreleased", false, "delete the recordings that today's workflows do not replay; no such workflow may run anywhere")
	flag.Parse()
	if err := record(ctx, *unreleased); err != nil {
		fmt.Fprintf(os.Stderr, "record: %v\n", err)
		os.Exit(1)
	}
}

func record(ctx context.Context, unreleased bool) error {
	if unreleased {
		if err := deleteOutdated(histories); err != nil {
			return err
		}
	}
	kept, err := readCollection(histories)
	if err != nil {
		return err
	}
	options, err := envconfig.LoadDefaultClientOptions()
	if err != nil {
		return fmt.Errorf("reading Temporal's settings: %w", err)
	}
	temporal, err := client.DialContext(ctx, options)
	if err != nil {
		return fmt.Errorf("connecting to Temporal at %q: %w", options.HostPort, err)
	}
	defer temporal.Close()
	executions, err := list(ctx, temporal)
	if err != nil {
		return fmt.Errorf("listing workflows: %w", err)
	}
	var failures []error
	for _, execution := range executions {
		history, err := download(ctx, temporal, execution.Execution)
		if err != nil {
			return fmt.Errorf("reading the history of %s: %w", execution.Execution.WorkflowId, err)
		}
		file, err := kept.add(execution.Type.Name, outcomes[execution.Status], history)
		if err != nil {
			failures = append(failures, fmt.Errorf("keeping the history of %s: %w", execution.Execution.WorkflowId, err))
			continue
		}
		fmt.Printf("%s, %d events: %s\n", execution.Execution.WorkflowId, len(history.Events), file)
	}
	return errors.Join(failures...)
}

var outcomes = map[enums.WorkflowExecutionStatus]string{
	enums.WORKFLOW_EXECUTION_STATUS_COMPLETED: "completed",
	enums.WORKFLOW_EXECUTION_STATUS_CANCELED:  "cancelled",
	enums.WORKFLOW_EXECUTION_STATUS_FAILED:    "failed",
	enums.WORKFLOW_EXECUTION_STATUS_RUNNING:   "running",
	// A run that was followed by another one.
	enums.WORKFLOW_EXECUTION_STATUS_CONTINUED_AS_NEW: "continued",
}

// list returns the workflows that may be kept, those closed first before others.
func list(ctx context.Context, temporal client.Client) ([]*workflowpb.WorkflowExecutionInfo, error) {
	var all []*workflowpb.WorkflowExecutionInfo
	for page := []byte(nil); ; {
		answer, err := temporal.ListWorkflow(ctx, &workflowservice.ListWorkflowExecutionsRequest{Query: wanted, NextPageToken: page})
		if err != nil {
			return nil, err
		}
		all = append(all, answer.Executions...)
		if page = answer.NextPageToken; len(page) == 0 {
			slices.Reverse(all)
			return all, nil
		}
	}
}

func download(ctx context.Context, temporal client.Client, execution *commonpb.WorkflowExecution) (*historypb.History, error) {
	history := &historypb.History{}
	events := temporal.GetWorkflowHistory(ctx, execution.WorkflowId, execution.RunId, false, enums.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
	for events.HasNext() {
		event, err := events.Next()
		if err != nil {
			return nil, err
		}
		history.Events = append(history.Events, event)
	}
	return history, nil
}
