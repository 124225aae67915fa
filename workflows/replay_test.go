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
			require.NoError(t, replayer.ReplayWorkflowHistory(nil, history(t, file)))
		})
	}
}

func TestEveryOutcomeOfEveryWorkflowIsRecorded(t *testing.T) {
	for _, workflow := range []string{"rollpool", "replacenode"} {
		for _, outcome := range []string{"completed", "cancelled", "failed"} {
			require.True(t, slices.ContainsFunc(recordings(t), func(file string) bool {
				return strings.HasPrefix(filepath.Base(file), workflow+"-"+outcome)
			}), "no %s is recorded that was %s", workflow, outcome)
		}
	}
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
