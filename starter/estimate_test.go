package main

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fairway-project/fairway/roll"
	"github.com/fairway-project/fairway/workflows"
)

var began = time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)

// after is some minutes after the beginning.
func after(minutes float64) time.Time {
	return began.Add(time.Duration(minutes * float64(time.Minute)))
}

// done is a node that was replaced from one minute to another.
func done(name string, from, to float64) workflows.NodeProgress {
	return workflows.NodeProgress{Node: name, State: workflows.Replaced, Began: after(from), Ended: after(to)}
}

func rolled(nodes ...workflows.NodeProgress) workflows.RollProgress {
	return workflows.RollProgress{Started: began, Nodes: nodes}
}

func TestThePaceIsWhatNodesAndTheTimeBetweenBatchesTook(t *testing.T) {
	for name, test := range map[string]struct {
		rolls []workflows.RollProgress
		want  pace
	}{
		"nothing is known of no roll":          {},
		"nothing is known of an empty roll":    {rolls: []workflows.RollProgress{rolled()}},
		"a node counts from launch to end":     {rolls: []workflows.RollProgress{rolled(done("a", 0, 4))}, want: pace{Node: 4 * time.Minute, Nodes: 1}},
		"the median counts":                    {rolls: []workflows.RollProgress{rolled(done("a", 0, 4), done("b", 5, 11), done("c", 5, 65))}, want: pace{Node: 6 * time.Minute, Nodes: 3}},
		"several rolls count":                  {rolls: []workflows.RollProgress{rolled(done("a", 0, 4)), rolled(done("a", 0, 3), done("b", 0, 2))}, want: pace{Node: 3 * time.Minute, Nodes: 3}},
		"the first gap is that of validation":  {rolls: []workflows.RollProgress{rolled(done("a", 0, 4), done("b", 9, 13))}, want: pace{Node: 4 * time.Minute, Nodes: 2}},
		"the slowest of a batch ends it":       {rolls: []workflows.RollProgress{rolled(done("a", 0, 4), done("b", 9, 12), done("c", 9, 13), done("d", 15, 19))}, want: pace{Node: 4 * time.Minute, Between: 2 * time.Minute, Nodes: 4}},
		"quarantine makes no gap negative":     {rolls: []workflows.RollProgress{rolled(done("a", 0, 4), done("b", 5, 90), done("c", 65, 69), done("d", 70, 74))}, want: pace{Node: 4 * time.Minute, Between: time.Minute, Nodes: 4}},
		"a node that is not replaced is none":  {rolls: []workflows.RollProgress{rolled(workflows.NodeProgress{Node: "a", State: workflows.Waiting})}},
		"a node that vanished took no time":    {rolls: []workflows.RollProgress{rolled(workflows.NodeProgress{Node: "a", State: workflows.Replaced}, done("b", 0, 4))}, want: pace{Node: 4 * time.Minute, Nodes: 1}},
		"the lower middle one of two is taken": {rolls: []workflows.RollProgress{rolled(done("a", 0, 4), done("b", 0, 8))}, want: pace{Node: 4 * time.Minute, Nodes: 2}},
	} {
		t.Run(name, func(t *testing.T) { require.Equal(t, test.want, paceOf(test.rolls...)) })
	}
}

func TestAnEstimateSaysWhereItComesFrom(t *testing.T) {
	for name, test := range map[string]struct {
		pace     pace
		batches  int
		validate time.Duration
		want     string
	}{
		"without a past there is none": {batches: 3, validate: time.Minute, want: "no estimate: no node of this pool has been replaced yet"},
		"one batch":                    {pace: pace{Node: 4 * time.Minute, Nodes: 7}, batches: 1, want: "about 4m (1 × 4m, the median of the last 7 nodes of this pool)"},
		"batches, pauses and validation": {
			pace: pace{Node: 4 * time.Minute, Between: 30 * time.Second, Nodes: 7}, batches: 3, validate: time.Minute,
			want: "about 14m (3 × 4m, the median of the last 7 nodes of this pool; 30s between batches; 1m of validation)",
		},
		"what is not known is said": {
			pace: pace{Node: 90 * time.Second, Nodes: 2, Partial: true}, batches: 2,
			want: "about 3m (2 × 1m30s, the median of the last 2 nodes of this pool; without the time until new nodes are usable, of which nothing is known)",
		},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, test.want, test.pace.estimate(test.batches, test.validate).String())
		})
	}
}

func TestTheRemainingTimeFollowsThePace(t *testing.T) {
	plan := rollPlan{
		RollPlan: workflows.RollPlan{Batches: [][]string{{"a"}, {"b", "c"}, {"d", "e"}}},
		Settings: roll.Settings{Validate: 2 * time.Minute},
	}
	at := func(name string, state workflows.NodeState, minute float64) workflows.NodeProgress {
		return workflows.NodeProgress{Node: name, State: state, Began: after(minute)}
	}
	waiting := func(name string) workflows.NodeProgress {
		return workflows.NodeProgress{Node: name, State: workflows.Waiting}
	}
	for name, test := range map[string]struct {
		nodes   []workflows.NodeProgress
		batch   int // size of the last finished one
		past    pace
		now     float64 // minute
		want    time.Duration
		unknown bool
	}{
		"nothing is known without a pace": {nodes: []workflows.NodeProgress{at("a", workflows.Surging, 0), waiting("b")}, now: 1, unknown: true},
		"earlier rolls give the first pace": {
			nodes: []workflows.NodeProgress{at("a", workflows.Surging, 0), waiting("b"), waiting("c"), waiting("d"), waiting("e")},
			past:  pace{Node: 5 * time.Minute, Between: time.Minute, Nodes: 9}, now: 1, want: (4 + 6 + 6 + 2) * time.Minute,
		},
		"then its own counts": {
			nodes: []workflows.NodeProgress{done("a", 0, 3), at("b", workflows.Replacing, 6), at("c", workflows.Replacing, 6), waiting("d"), waiting("e")}, batch: 1,
			past: pace{Node: 5 * time.Minute, Between: time.Minute, Nodes: 9}, now: 7, want: (2 + 4) * time.Minute,
		},
		"a batch that is a little late may end any moment": {
			nodes: []workflows.NodeProgress{done("a", 0, 3), done("b", 4, 7), done("c", 4, 7), at("d", workflows.Replacing, 8), at("e", workflows.Replacing, 8)}, batch: 2,
			now: 12, want: 0,
		},
		"of one that is held up nobody knows": {
			nodes: []workflows.NodeProgress{done("a", 0, 3), done("b", 4, 7), done("c", 4, 7), at("d", workflows.Replacing, 8), at("e", workflows.Replacing, 8)}, batch: 2,
			now: 13, unknown: true,
		},
		"quarantine is not counted": {
			nodes: []workflows.NodeProgress{done("a", 0, 3), at("b", workflows.Quarantine, 4), done("c", 4, 7), waiting("d"), waiting("e")}, batch: 2,
			now: 8, want: 3 * time.Minute,
		},
		"nothing is left at the end": {
			nodes: []workflows.NodeProgress{done("a", 0, 3), done("b", 4, 7), done("c", 4, 7), done("d", 8, 11), done("e", 8, 11)}, batch: 2, now: 11,
		},
	} {
		t.Run(name, func(t *testing.T) {
			left, known := remaining(plan, test.past, workflows.RollProgress{Nodes: test.nodes, Batch: test.batch}, after(test.now))
			require.Equal(t, !test.unknown, known)
			require.Equal(t, test.want, left)
		})
	}
}

func TestTimesAreShort(t *testing.T) {
	for want, d := range map[string]time.Duration{
		"0s":     0,
		"12s":    12 * time.Second,
		"1m30s":  90 * time.Second,
		"5m":     5 * time.Minute,
		"25m":    25*time.Minute + 12*time.Second,
		"1h":     59*time.Minute + 59*time.Second + 600*time.Millisecond,
		"2h13m":  2*time.Hour + 13*time.Minute + 4*time.Second,
		"72h":    72 * time.Hour,
		"71h59m": 72*time.Hour - time.Minute,
	} {
		require.Equal(t, want, short(d))
	}
}
