package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	commonpb "go.temporal.io/api/common/v1"
	"go.temporal.io/api/enums/v1"
	historypb "go.temporal.io/api/history/v1"
)

func TestOneHistoryOfEachShapeIsKept(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "histories")
	drained, cordoned := activities("CordonNode", "DrainNode"), activities("CordonNode")
	for _, test := range []struct {
		outcome string
		history *historypb.History
		want    string
	}{
		{"completed", drained, "replacenode-completed.json.gz"},
		{"completed", cordoned, "replacenode-completed-2.json.gz"},
		{"failed", activities("DrainNode", "CordonNode"), "replacenode-failed.json.gz"},
		{"completed", drained, "replacenode-completed.json.gz"},
		{"completed", withTaskTimeout(drained), "replacenode-completed.json.gz"},
	} {
		kept, err := readCollection(dir) // as every run does
		require.NoError(t, err)
		file, err := kept.add("ReplaceNode", test.outcome, test.history)
		require.NoError(t, err)
		require.Equal(t, filepath.Join(dir, test.want), file)
	}
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, entries, 3)
}

func TestAHistoryThatIsTooLongIsRefused(t *testing.T) {
	dir := t.TempDir()
	kept, err := readCollection(dir)
	require.NoError(t, err)
	long := activities("DrainNode")
	for i := range 100_000 {
		event := activities("DrainNode").Events[0]
		event.EventId, event.TaskId = int64(i), int64(i*i*7919)
		long.Events = append(long.Events, event)
	}
	_, err = kept.add("ReplaceNode", "completed", long)
	require.ErrorContains(t, err, "at most 200000 are kept")
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, entries)
}

func TestAHistoryWithASecretIsRefused(t *testing.T) {
	t.Setenv("A_TOKEN", "0123456789abcdef0123")
	dir := t.TempDir()
	kept, err := readCollection(dir)
	require.NoError(t, err)
	leaky := activities("DrainNode")
	leaky.Events[0].GetActivityTaskScheduledEventAttributes().Input = &commonpb.Payloads{
		Payloads: []*commonpb.Payload{{Data: []byte(`{"token": "0123456789abcdef0123"}`)}},
	}
	_, err = kept.add("ReplaceNode", "completed", leaky)
	require.ErrorContains(t, err, "the value of A_TOKEN")
	require.NotContains(t, err.Error(), "0123456789abcdef0123")
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, entries)
}

func TestOnlyRecordingsThatDoNotReplayAreOutdated(t *testing.T) {
	dir := t.TempDir()
	good, err := readHistory(filepath.Join("../..", histories, "rollpool-completed.json.gz"))
	require.NoError(t, err)
	kept, err := readCollection(dir)
	require.NoError(t, err)
	_, err = kept.add("RollPool", "completed", good)
	require.NoError(t, err)
	for _, event := range good.Events {
		if activity := event.GetActivityTaskScheduledEventAttributes(); activity != nil {
			activity.ActivityType.Name = "Forgotten"
		}
	}
	_, err = kept.add("RollPool", "failed", good)
	require.NoError(t, err)

	require.NoError(t, deleteOutdated(dir))
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, left, 1)
	require.Equal(t, "rollpool-completed.json.gz", left[0].Name())
}

// How often a run did the same before it grew too long is luck.
func TestRunsThatGrewTooLongDifferByWhatTheyDidAtAll(t *testing.T) {
	kept, err := readCollection(t.TempDir())
	require.NoError(t, err)
	follow := func(names ...string) *historypb.History {
		history := activities(names...)
		history.Events = append(history.Events, &historypb.HistoryEvent{EventType: enums.EVENT_TYPE_WORKFLOW_EXECUTION_CONTINUED_AS_NEW})
		return history
	}
	first, err := kept.add("Promote", "continued", follow("OpenPromotion", "FollowPromotion"))
	require.NoError(t, err)
	same, err := kept.add("Promote", "continued", follow("OpenPromotion", "FollowPromotion", "FollowPromotion"))
	require.NoError(t, err)
	require.Equal(t, first, same)
	other, err := kept.add("Promote", "continued", follow("FollowPromotion", "FollowPromotion"))
	require.NoError(t, err)
	require.NotEqual(t, first, other)
}

// activities is a history in which these were scheduled.
func activities(names ...string) *historypb.History {
	history := &historypb.History{}
	for i, name := range names {
		history.Events = append(history.Events, &historypb.HistoryEvent{
			EventId: int64(i + 1), EventType: enums.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED,
			Attributes: &historypb.HistoryEvent_ActivityTaskScheduledEventAttributes{
				ActivityTaskScheduledEventAttributes: &historypb.ActivityTaskScheduledEventAttributes{ActivityType: &commonpb.ActivityType{Name: name}},
			},
		})
	}
	return history
}

// withTaskTimeout is what a history looks like whose worker was killed.
func withTaskTimeout(history *historypb.History) *historypb.History {
	lost := &historypb.HistoryEvent{
		EventId: 99, EventType: enums.EVENT_TYPE_WORKFLOW_TASK_TIMED_OUT,
		Attributes: &historypb.HistoryEvent_WorkflowTaskTimedOutEventAttributes{WorkflowTaskTimedOutEventAttributes: &historypb.WorkflowTaskTimedOutEventAttributes{}},
	}
	return &historypb.History{Events: append(append([]*historypb.HistoryEvent{}, history.Events...), lost)}
}
