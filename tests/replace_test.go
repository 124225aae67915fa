package tests

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"
	sdkpb "go.temporal.io/api/sdk/v1"
	"go.temporal.io/sdk/converter"
)

// The events of a replacement without incidents, with room for a few more. What grows with time
// or with the number of pods would go beyond.
const (
	rollEvents    = 98
	replaceEvents = 44
)

func TestANodeOfTheSampleFleetIsReplaced(t *testing.T) {
	t.Parallel()
	p := samplePool(busy, "worker")
	w := startWorker(t, busy)
	r := p.replacement(t)
	start := time.Now()
	got := w.fairway(t, "node", "replace", busy, r.node.Name, "--wait", "--reason", "disk errors")
	require.Zero(t, got.status, got.stderr)
	t.Logf("replaced in %s", time.Since(start).Round(100*time.Millisecond))
	require.Contains(t, got.stdout, "Node "+r.node.Name+" is replaced by ")
	for _, phase := range []string{"surging: ", "replacing: "} {
		require.Contains(t, got.stderr, phase, "progress is shown")
	}
	r.requireDone(t)

	t.Run("its workflows are found by what they work on", func(t *testing.T) {
		for _, id := range []string{"cluster/" + busy + "/pool/worker", "cluster/" + busy + "/node/" + r.node.Name} {
			require.Equal(t, map[string]string{
				"Cluster": busy, "Pool": "worker", "Channel": "dev", "Environment": "test", "Phase": "done",
			}, searchAttributes(t, id), id)
		}
	})
	t.Run("its activities say what they are for", func(t *testing.T) {
		roll, child := summaries(t, r.roll), summaries(t, r.child)
		require.Equal(t, fmt.Sprintf("grow %s to 4", p.group), roll["GrowPool"])
		require.Equal(t, "drain "+r.node.Name, child["DrainNode"])
		for _, all := range []map[string]string{roll, child} {
			for activity, summary := range all {
				require.NotEmpty(t, summary, activity)
			}
		}
	})
	t.Run("its current details are a readable paragraph", func(t *testing.T) {
		details := currentDetails(t, r.roll)
		for _, want := range []string{"**done**", "pool worker of cluster " + busy, "1 of 1 nodes replaced", "Reason: disk errors"} {
			require.Contains(t, details, want)
		}
		require.Equal(t, fmt.Sprintf("Node `%s` is replaced; instance `%s` is terminated.", r.node.Name, r.node.Instance), currentDetails(t, r.child))
	})
	t.Run("its history is small", func(t *testing.T) {
		roll, child := len(history(t, r.roll)), len(history(t, r.child))
		t.Logf("%d events of the roll, %d of the replacement", roll, child)
		require.LessOrEqual(t, roll, rollEvents)
		require.LessOrEqual(t, child, replaceEvents)
	})
}

func searchAttributes(t *testing.T, id string) map[string]string {
	t.Helper()
	out := map[string]string{}
	for name, payload := range describe(t, id).WorkflowExecutionInfo.SearchAttributes.IndexedFields {
		if name == "BuildIds" || strings.HasPrefix(name, "Temporal") {
			continue // the server's own
		}
		var value string
		require.NoError(t, converter.GetDefaultDataConverter().FromPayload(payload, &value), name)
		out[name] = value
	}
	return out
}

// summaries are those of the activities of a workflow.
func summaries(t *testing.T, id string) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, event := range history(t, id) {
		if event.EventType != enumspb.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED {
			continue
		}
		var summary string
		if payload := event.GetUserMetadata().GetSummary(); payload != nil {
			require.NoError(t, converter.GetDefaultDataConverter().FromPayload(payload, &summary))
		}
		out[event.GetActivityTaskScheduledEventAttributes().ActivityType.Name] = summary
	}
	return out
}

func currentDetails(t *testing.T, id string) string {
	t.Helper()
	answer, err := temporal.QueryWorkflow(t.Context(), id, "", "__temporal_workflow_metadata")
	require.NoError(t, err)
	var metadata sdkpb.WorkflowMetadata
	require.NoError(t, answer.Get(&metadata))
	return metadata.CurrentDetails
}
