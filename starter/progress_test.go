package main

import (
	"bytes"
	"io"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/vbauerster/mpb/v8/decor"
	"go.temporal.io/api/common/v1"
	"go.temporal.io/api/failure/v1"
	"go.temporal.io/api/workflow/v1"
	"go.temporal.io/sdk/converter"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/fairway-project/fairway/roll"
	"github.com/fairway-project/fairway/workflows"
)

func TestAViewCountsNodesByTheirState(t *testing.T) {
	progress := workflows.RollProgress{
		Phase: "replacing", Step: "moves the pods of `c`, `d` elsewhere", Batch: 1, Bad: 1,
		Nodes: []workflows.NodeProgress{
			done("a", 0, 3), {Node: "b", State: workflows.Quarantine, Reason: "pod shop/db: never"}, {Node: "c", State: workflows.Replacing, Began: after(5)},
			{Node: "d", State: workflows.Surging, Began: after(5)}, {Node: "e", State: workflows.Waiting},
		},
		Fallbacks: []workflows.FallbackTaken{{Kind: roll.OtherZone, Text: "instances in z2 are asked for"}},
	}
	plan := rollPlan{RollPlan: workflows.RollPlan{Batches: [][]string{{"a"}, {"b", "c", "d"}, {"e"}}}}
	require.Equal(t, rollView{
		Counts: counts{Total: 5, Done: 1, Launching: 1, Draining: 1, Waiting: 1, Quarantined: 1},
		Step:   "replacing: moves the pods of c, d elsewhere",
		Left:   "about 5m left, quarantine not counted",
		Notes: []string{
			"b is in quarantine: pod shop/db: never",
			"fallback zone: instances in z2 are asked for",
			"1 new instance did not become a usable node",
		},
	}, viewOf(plan, pace{}, progress, after(6)))
	require.Equal(t, "1 of 5 done, 1 draining, 1 launching, 1 waiting, 1 in quarantine", countsOf(progress).String())
}

func TestADrainSaysWhatItWaitsFor(t *testing.T) {
	force := time.Date(2026, 3, 2, 12, 0, 0, 0, time.Local)
	held := workflows.HeldPod{Pod: "shop/db-0", Budget: "db", Owner: "team-a", Reason: "never allowed", ForceAt: force}
	for name, test := range map[string]struct {
		drain workflows.DrainProgress
		want  []string
	}{
		"one that has not begun": {},
		"one that goes well":     {workflows.DrainProgress{Total: 9, Left: 4}, []string{"4 of 9 pods left"}},
		"one that is blocked":    {workflows.DrainProgress{Total: 9, Left: 4, Blocked: "blocked by ben: incident"}, []string{"4 of 9 pods left, blocked by ben: incident"}},
		"one that is held": {
			workflows.DrainProgress{Total: 9, Left: 4, Waiting: []workflows.HeldPod{held, {Pod: "a/b", Reason: "postponed"}, held, held}, Forced: make([]workflows.ForcedPod, 1)},
			[]string{
				"4 of 9 pods left, 1 forced",
				"  shop/db-0 of team-a held by budget db: never allowed (may be forced from 2026-03-02 12:00:00 on)",
				"  a/b held: postponed",
				"  shop/db-0 of team-a held by budget db: never allowed (may be forced from 2026-03-02 12:00:00 on)",
				"  1 more held; `fairway blockers` lists them",
			},
		},
		"one that waits for volumes":   {workflows.DrainProgress{Total: 1, Detaching: []string{"pv-1"}}, []string{"0 of 1 pods left", "  volumes are being detached: pv-1"}},
		"one whose API server is away": {workflows.DrainProgress{Trouble: "the API server does not answer"}, []string{"0 of 0 pods left", "  the API server does not answer"}},
		"one with a pod that is stuck": {workflows.DrainProgress{Total: 2, Left: 1, Stuck: []string{"a/b"}}, []string{"1 of 2 pods left", "  a/b does not end although its grace period is over"}},
	} {
		t.Run(name, func(t *testing.T) { require.Equal(t, test.want, describeDrain(test.drain)) })
	}
}

func TestALogGetsALineOnlyWhenSomethingChanges(t *testing.T) {
	var out bytes.Buffer
	r := newReport(&out, 2)
	view := rollView{Counts: counts{Total: 2, Waiting: 2}, Step: "surging: grows"}
	r.show(view)
	r.show(view)
	view.Waits = []string{"n: 2 of 3 pods left", "  a/b held"}
	r.show(view)
	r.show(rollView{Step: unanswered})
	view.Counts, view.Notes, view.Left = counts{Total: 2, Done: 1, Waiting: 1}, []string{"fallback zone: another one"}, "about 5m left"
	r.show(view)
	r.show(view)
	r.end()
	require.Equal(t, `  surging: grows
    n: 2 of 3 pods left; a/b held
  waiting for a worker to answer
  surging: grows
    1 of 2 done, 1 waiting; about 5m left
    fallback zone: another one
    n: 2 of 3 pods left; a/b held
`, regexp.MustCompile(`(?m)^ *\d+s`).ReplaceAllString(out.String(), ""))
}

func TestLinesBelowABarFitTheTerminal(t *testing.T) {
	r := newBar(io.Discard, 1)
	defer r.end()
	many := make([]string, 30)
	for i := range many {
		many[i] = strings.Repeat("x", 200)
	}
	r.show(rollView{Step: "draining", Waits: many})
	var out bytes.Buffer
	require.NoError(t, r.below(&out, decor.Statistics{AvailableWidth: 80}))
	lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
	require.Len(t, lines, barLines)
	require.Contains(t, lines[barLines-1], "20 more lines")
	for _, line := range lines {
		require.Less(t, len([]rune(line)), 80)
	}
}

func TestTheEndOfARollSaysWhatBecameOfEachNode(t *testing.T) {
	result := workflows.RollProgress{
		Nodes: []workflows.NodeProgress{
			{Node: "a", State: workflows.Replaced, Replacement: "x", Evicted: 3},
			{Node: "b", State: workflows.Replaced, Evicted: 1, Forced: []workflows.ForcedPod{{Pod: "shop/db-0", Authority: "ben: agreed", Reason: "held by budget db"}}},
			{Node: "c", State: workflows.Quarantine, Reason: "pod shop/db-1: never"},
			{Node: "d", State: workflows.Waiting},
		},
		Left: "instance i-1 is still protected",
	}
	require.Equal(t, []string{
		"Node a is replaced by x; 3 pods evicted.",
		"Node b is replaced by an instance that its group launched; 1 pod evicted, 1 forced.",
		"  Pod shop/db-0 was forced, as ben: agreed allowed: held by budget db",
		"Node c is not emptied, because pod shop/db-1: never; 0 pods evicted.",
		"Node d is left as it was; 0 pods evicted.",
		"Not as before: instance i-1 is still protected",
	}, describeResult(result, false))
	require.Equal(t, "Node a is removed; 3 pods evicted.", describeResult(result, true)[0])
	require.Equal(t, []string{"No node had to be replaced."}, describeResult(workflows.RollProgress{}, false))
}

func TestAnAttemptThatHasToldSomethingIsMoreRecentThanAFailure(t *testing.T) {
	heartbeat, err := converter.GetDefaultDataConverter().ToPayloads("is Pending")
	require.NoError(t, err)
	pending := func(attempt int32, heartbeatAt float64) *workflow.PendingActivityInfo {
		return &workflow.PendingActivityInfo{
			ActivityType: &common.ActivityType{Name: "AwaitNode"}, Attempt: attempt, LastFailure: &failure.Failure{Message: "it does not answer"},
			LastStartedTime: timestamppb.New(after(5)), LastHeartbeatTime: timestamppb.New(after(heartbeatAt)), HeartbeatDetails: heartbeat,
		}
	}
	require.Equal(t, []string{"attempt 3, because it does not answer"}, describePending(pending(3, 4)))
	require.Equal(t, []string{"is Pending"}, describePending(pending(3, 6)))
	require.Equal(t, []string{"is Pending"}, describePending(pending(1, 6)))
}

func TestAStackSaysWhereItStands(t *testing.T) {
	heartbeat, err := converter.GetDefaultDataConverter().ToPayloads(workflows.StackProgress{Status: "UPDATE_IN_PROGRESS", Event: "Role is being updated"})
	require.NoError(t, err)
	require.Equal(t, []string{"UPDATE_IN_PROGRESS: Role is being updated"}, describePending(&workflow.PendingActivityInfo{ActivityType: &common.ActivityType{Name: "ApplyStack"}, HeartbeatDetails: heartbeat}))
}
