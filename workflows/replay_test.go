package workflows_test

import (
	"compress/gzip"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	historypb "go.temporal.io/api/history/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/worker"
	"google.golang.org/protobuf/proto"

	"github.com/fairway-project/fairway/promotion"
	"github.com/fairway-project/fairway/workflows"
)

// Workflows outlive the code that started them. These histories were made by released code
// (tests/record records them); code that cannot replay them would block such workflows.
func TestRecordedHistoriesReplay(t *testing.T) {
	for _, file := range recordings(t) {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".json.gz"), func(t *testing.T) {
			replayer := worker.NewWorkflowReplayer()
			for _, workflow := range workflows.All() {
				replayer.RegisterWorkflow(workflow)
			}
			require.NoError(t, replayer.ReplayWorkflowHistory(nil, history(t, file)))
		})
	}
}

func TestEveryOutcomeOfEveryWorkflowIsRecorded(t *testing.T) {
	for workflow, outcomes := range map[string][]string{
		"updatecluster":     {"completed", "cancelled", "failed"},
		"rollpool":          {"completed", "cancelled", "failed"},
		"replacenode":       {"completed", "cancelled", "failed"},
		"sync":              {"completed"},
		"watchhealth":       {"completed"},
		"considerpromotion": {"completed", "failed"},
		"promote":           {"completed", "cancelled", "failed", "continued"},
		"cluster":           {"running"}, // actors never end
		"channel":           {"running", "continued"},
		"fleet":             {"running"},
		"testpullrequest":   {"completed"},
		"considertests":     {"completed"},
		"runtest":           {"completed"},
		"sweep":             {"completed"},
		"testqueue":         {"running"},
	} {
		for _, outcome := range outcomes {
			require.True(t, slices.ContainsFunc(recordings(t), func(file string) bool {
				return strings.HasPrefix(filepath.Base(file), workflow+"-"+outcome)
			}), "no %s is recorded that was %s", workflow, outcome)
		}
	}
}

// What people, workflows and activities ask of workflows is in their recordings.
func TestEveryHandlerIsRecorded(t *testing.T) {
	for workflow, handlers := range map[string][]string{
		"cluster": {
			"update " + workflows.BlockName, "update " + workflows.UnblockName, "update " + workflows.ForceName,
			"signal " + workflows.BlockName, "signal " + workflows.UnblockName, "signal " + workflows.ForceName,
			"signal " + workflows.WantName, "signal " + workflows.UpdatedName, "update " + workflows.UpdateName, "update " + workflows.RollbackName,
		},
		"channel": {
			"update " + workflows.BlockName, "update " + workflows.UnblockName, "update " + workflows.ResumeName,
			"signal " + workflows.BlockName, "signal " + workflows.UnblockName,
			"signal " + workflows.SyncName, "signal " + workflows.ReportName, "signal " + workflows.HealthName,
			"signal " + workflows.PromotedName, "signal " + workflows.RevertedName, "update " + workflows.LiftRevertName,
		},
		"fleet": {
			"update " + workflows.TakeTurn, "update " + workflows.ReturnTurn,
			"update " + workflows.BlockName, "update " + workflows.UnblockName,
			"signal " + workflows.BlockName, "signal " + workflows.UnblockName,
		},
		"updatecluster": {"signal " + workflows.SupersedeName},
		"rollpool":      {"signal " + workflows.StopName},
		"promote":       {"signal " + workflows.LookName, "signal " + workflows.WithdrawName},
	} {
		var recorded []string
		for _, file := range recordings(t) {
			if strings.HasPrefix(filepath.Base(file), workflow+"-") {
				recorded = append(recorded, handled(history(t, file))...)
			}
		}
		for _, handler := range handlers {
			require.Contains(t, recorded, handler, workflow)
		}
	}
}

// An update tells the actor of its cluster how it ended, so its recording knows what became of it.
func TestEveryWayOfAnUpdateIsRecorded(t *testing.T) {
	recorded := map[string]bool{}
	for _, file := range recordings(t) {
		for _, event := range history(t, file).Events {
			told := event.GetSignalExternalWorkflowExecutionInitiatedEventAttributes()
			if told == nil || told.SignalName != workflows.UpdatedName {
				continue
			}
			var outcome workflows.UpdateOutcome
			require.NoError(t, converter.GetDefaultDataConverter().FromPayloads(told.Input, &outcome))
			recorded[string(outcome.Kind)+" "+outcome.Phase] = true
			recorded["restored"] = recorded["restored"] || outcome.Restored
			for _, step := range outcome.Steps {
				recorded["step "+step.Name] = true
			}
			for _, pool := range outcome.Pools {
				recorded["pool "+pool.State] = true
				recorded["nodes replaced"] = recorded["nodes replaced"] || (outcome.Phase == "done" && pool.Replaced > 0)
			}
			recorded["nothing replaced"] = recorded["nothing replaced"] || (outcome.Phase == "done" && !slices.ContainsFunc(outcome.Pools, func(p workflows.PoolProgress) bool { return p.Replaced > 0 }))
		}
	}
	for _, way := range []string{
		"update done", "update failed", "update superseded", "update cancelled", "rollback done", "provision done", "decommission done",
		"restored", "nodes replaced", "nothing replaced", "pool stopped", "pool removed",
		"step maintenance window", "step do stacks change", "step pruning", "step deletions before",
	} {
		require.Contains(t, slices.Collect(maps.Keys(recorded)), way)
	}
}

// A promotion records how it ended before it does.
func TestEveryWayOfAPromotionIsRecorded(t *testing.T) {
	recorded := map[string]bool{}
	for _, file := range recordings(t) {
		for _, event := range history(t, file).Events {
			told := event.GetActivityTaskScheduledEventAttributes()
			if told == nil || told.ActivityType.Name != "RecordPromotion" {
				continue
			}
			var record promotion.Record
			require.NoError(t, converter.GetDefaultDataConverter().FromPayloads(told.Input, &record))
			recorded[string(record.Mode)+" "+string(record.Outcome)] = true
		}
	}
	for _, way := range []string{
		"merge merged", "merge conflict",
		"pull-request merged", "pull-request conflict", "pull-request refused", "pull-request withdrawn",
	} {
		require.Contains(t, slices.Collect(maps.Keys(recorded)), way)
	}
}

// A look that begins a promotion does more than one that does not, and a channel's actor begins a new run
// while people ask things of it.
func TestRunsThatLeadToOthersAreRecorded(t *testing.T) {
	var begins, rests, asked, follows bool
	for _, file := range recordings(t) {
		events := history(t, file).Events
		name := events[0].GetWorkflowExecutionStartedEventAttributes().WorkflowType.Name
		child := slices.ContainsFunc(events, func(e *historypb.HistoryEvent) bool {
			return e.GetStartChildWorkflowExecutionInitiatedEventAttributes() != nil
		})
		updated := slices.ContainsFunc(events, func(e *historypb.HistoryEvent) bool {
			return e.GetWorkflowExecutionUpdateAcceptedEventAttributes() != nil
		})
		continued := events[len(events)-1].GetWorkflowExecutionContinuedAsNewEventAttributes() != nil
		begins, rests = begins || (name == "ConsiderPromotion" && child), rests || (name == "ConsiderPromotion" && !child)
		asked = asked || (name == "Channel" && continued && updated)
		follows = follows || (name == "Promote" && events[0].GetWorkflowExecutionStartedEventAttributes().ContinuedExecutionRunId != "")
	}
	require.True(t, begins && rests, "a look that begins a promotion: %t, one that does not: %t", begins, rests)
	require.True(t, asked, "a channel's actor that begins a new run and has been asked things")
	require.True(t, follows, "a promotion that goes on in a new run")
}

// Whoever reads the repository can read its recordings. Payloads are looked at as they are: in the
// files they are base64.
func TestRecordingsHoldNoSecrets(t *testing.T) {
	secret := regexp.MustCompile(`(?i)PRIVATE KEY|BEGIN CERTIFICATE|\bAKIA[0-9A-Z]{16}\b|\bASIA[0-9A-Z]{16}\b|Bearer |Authorization:|x-amz-security-token|://[^/@\s"]+:[^/@\s"]+@`)
	for _, file := range recordings(t) {
		plain, err := proto.Marshal(history(t, file))
		require.NoError(t, err)
		require.Empty(t, string(secret.Find(plain)), file)
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
