package workflows_test

import (
	"compress/gzip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	historypb "go.temporal.io/api/history/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/worker"

	"github.com/fairway-project/fairway/workflows"
)

// Workflows outlive the code that started them. These histories were made by released code
// (tests/record records them); code that cannot replay them would block such workflows.
func TestRecordedHistoriesReplay(t *testing.T) {
	for _, file := range recordings(t) {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".json.gz"), func(t *testing.T) {
			replayer := worker.NewWorkflowReplayer()
			replayer.RegisterWorkflow(workflows.RollPool)
			replayer.RegisterWorkflow(workflows.ReplaceNode)
			replayer.RegisterWorkflow(workflows.Cluster)
			replayer.RegisterWorkflow(workflows.Fleet)
			replayer.RegisterWorkflow(workflows.UpdateCluster)
			require.NoError(t, replayer.ReplayWorkflowHistory(nil, history(t, file)))
		})
	}
}

func TestEveryOutcomeOfEveryWorkflowIsRecorded(t *testing.T) {
	for workflow, outcomes := range map[string][]string{
		"rollpool":    {"completed", "cancelled", "failed"},
		"replacenode": {"completed", "cancelled", "failed"},
		"cluster":     {"running"}, // actors never end
		"fleet":       {"running"},
	} {
		for _, outcome := range outcomes {
			require.True(t, slices.ContainsFunc(recordings(t), func(file string) bool {
				return strings.HasPrefix(filepath.Base(file), workflow+"-"+outcome)
			}), "no %s is recorded that was %s", workflow, outcome)
		}
	}
}

// What people and activities ask of the actors is in their recordings.
func TestEveryHandlerOfTheActorsIsRecorded(t *testing.T) {
	for actor, handlers := range map[string][]string{
		"cluster": {
			"update " + workflows.BlockName, "update " + workflows.UnblockName, "update " + workflows.ForceName,
			"signal " + workflows.BlockName, "signal " + workflows.UnblockName, "signal " + workflows.ForceName,
		},
		"fleet": {"update " + workflows.TakeTurn, "update " + workflows.ReturnTurn},
	} {
		var recorded []string
		for _, file := range recordings(t) {
			if strings.HasPrefix(filepath.Base(file), actor+"-") {
				recorded = append(recorded, handled(history(t, file))...)
			}
		}
		for _, handler := range handlers {
			require.Contains(t, recorded, handler, actor)
		}
	}
}

// handled lists the signals and updates of a history.
func handled(history *historypb.History) (names []string) {
	for _, event := range history.Events {
		if signal := event.GetWorkflowExecutionSignaledEventAttributes(); signal != nil {
			names = append(names, "signal "+signal.SignalName)
		}
		if update := event.GetWorkflowExecutionUpdateAcceptedEventAttributes(); update != nil {
			names = append(names, "update "+update.GetAcceptedRequest().GetInput().GetName())
		}
	}
	return names
}

func recordings(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("testdata/histories/*.json.gz")
	require.NoError(t, err)
	return files
}

func history(t *testing.T, name string) *historypb.History {
	t.Helper()
	file, err := os.Open(name)
	require.NoError(t, err)
	defer file.Close()
	content, err := gzip.NewReader(file)
	require.NoError(t, err)
	history, err := client.HistoryFromJSON(content, client.HistoryJSONOptions{})
	require.NoError(t, err)
	return history
}
