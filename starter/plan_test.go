package main

import (
	"bytes"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fairway-project/fairway/roll"
	"github.com/fairway-project/fairway/workflows"
)

// written is what a command prints as a table.
func written(write func(*table)) string {
	var out bytes.Buffer
	t := &table{tabwriter.NewWriter(&out, 0, 0, 3, ' ', 0)}
	write(t)
	t.flush()
	return out.String()
}

func TestAPlanSaysHowItsBatchesAreCarriedOut(t *testing.T) {
	pool := workflows.Pool{Group: "dev-1-worker", Min: 2, Max: 8, Desired: 6}
	batches := [][]string{{"a"}, {"b", "c"}}
	nodes := []workflows.Node{{Name: "a"}, {Name: "b"}, {Name: "c"}}
	surge := roll.Settings{Surge: roll.Share{Percent: 25}, Parallel: 5, Validate: time.Minute}
	for name, test := range map[string]struct {
		plan rollPlan
		want []string
	}{
		"with surge": {
			rollPlan{RollPlan: workflows.RollPlan{Pool: pool, Nodes: nodes, Batches: batches}, Settings: surge},
			[]string{
				"Batches: 2, of 1, 2 nodes (parallel: 5)",
				"Surge: group dev-1-worker grows from 6 to at most 8 nodes for the time of a batch (surge: 25%, maximum of the group: 8)",
				"Validation: the first replacement has to stay usable for 1m before others follow",
			},
		},
		"in place, as configured": {
			rollPlan{RollPlan: workflows.RollPlan{Pool: pool, Nodes: nodes, Batches: batches, InPlace: true},
				Settings: roll.Settings{Unavailable: roll.Share{Count: 2}, Parallel: 5, Validate: time.Minute}},
			[]string{
				"Batches: 2, of 1, 2 nodes (parallel: 5)",
				"In place: a node is emptied and ended before group dev-1-worker launches its replacement (surge: 0, unavailable: 2)",
			},
		},
		"in place, for lack of room": {
			rollPlan{RollPlan: workflows.RollPlan{Pool: workflows.Pool{Group: "g", Max: 6, Desired: 6}, Nodes: nodes[:1], Batches: batches[:1], InPlace: true},
				Settings: roll.Settings{Surge: roll.Share{Count: 1}, Parallel: 5, ShortageAfter: 5 * time.Minute, Fallbacks: []roll.FallbackKind{roll.OtherZone, roll.InPlace}}},
			[]string{
				"Batches: 1, of 1 nodes (parallel: 5)",
				"In place: a node is emptied and ended before its replacement is launched, because group g is at its maximum of 6 (fallback in-place)",
				"If AWS lacks capacity for 5m: zone, then in-place",
			},
		},
		"removal": {
			rollPlan{RollPlan: workflows.RollPlan{Pool: pool, Nodes: nodes, Batches: batches, InPlace: true}, Remove: true, Settings: surge},
			[]string{
				"Batches: 2, of 1, 2 nodes (parallel: 5)",
				"Removal: nodes are emptied and ended; none comes back, and the minimum of group dev-1-worker, which is 2, becomes 0",
			},
		},
		"quarantine": {
			rollPlan{RollPlan: workflows.RollPlan{Pool: pool, Nodes: nodes, Batches: batches},
				Settings: roll.Settings{Surge: roll.Share{Count: 2}, Parallel: 2, QuarantineAfter: time.Hour, QuarantineLimit: 3}},
			[]string{
				"Batches: 2, of 1, 2 nodes (parallel: 2)",
				"Surge: group dev-1-worker grows from 6 to at most 8 nodes for the time of a batch (surge: 2, maximum of the group: 8)",
				"Quarantine: a node that is not empty after 1h is left for later, at most 3 at a time",
			},
		},
	} {
		t.Run(name, func(t *testing.T) { require.Equal(t, test.want, test.plan.how()) })
	}
}

func TestADryRunListsNodesInTheOrderOfTheirBatches(t *testing.T) {
	plan := rollPlan{
		RollPlan: workflows.RollPlan{
			Cluster: "dev-1", Name: "worker", Pool: workflows.Pool{Instances: make([]workflows.Instance, 4)},
			Nodes:   []workflows.Node{{Name: "a", Zone: "z1", Pods: 3}, {Name: "b", Zone: "z2", Held: 1}, {Name: "c", Zone: "z1", Never: 2}},
			Batches: [][]string{{"a"}, {"c"}, {"b"}},
		},
		Estimate: pace{Node: time.Minute, Nodes: 3}.estimate(3, 0),
		AtRisk:   []workflows.Finding{{Kind: "single-replica", Namespace: "shop", Name: "solo", Problem: "it is down"}, {Kind: "never-allowed", Namespace: "shop", Name: "db", Owner: "team-a", Problem: "never", Holds: true}},
	}
	require.Equal(t, `3 of 4 nodes of pool worker in cluster dev-1 would be replaced, in this order; nothing has been changed.

BATCH   NAME   INSTANCE   ZONE   STATE      PODS   HELD NOW   NEVER FREE   AGE
1       a      -          z1     NotReady   3      0          0            -
2       c      -          z1     NotReady   0      0          2            -
3       b      -          z2     NotReady   0      1          0            -

Batches: 3, of 1, 1, 1 nodes (parallel: 0)
Surge: group  grows from 0 to at most 1 nodes for the time of a batch (surge: 0, maximum of the group: 0)
Expected duration: about 3m (3 × 1m, the median of the last 3 nodes of this pool)
Pods at risk:
  never-allowed shop/db (team-a): never
  single-replica shop/solo (no owner): it is down
  `+"`fairway pool preflight dev-1 worker` lists all, and what to do about them\n", written(plan.show))
}

func TestOnlyFindingsAboutTheNodesOfAPlanConcernIt(t *testing.T) {
	findings := []workflows.Finding{{Name: "here", Nodes: []string{"x", "a"}}, {Name: "elsewhere", Nodes: []string{"b"}}, {Name: "everywhere"}}
	var names []string
	for _, finding := range concerning(findings, []workflows.Node{{Name: "a"}}) {
		names = append(names, finding.Name)
	}
	require.Equal(t, []string{"here", "everywhere"}, names)
}

func TestFindingsThatHoldUpADrainComeFirst(t *testing.T) {
	var names []string
	for _, finding := range bySeverity([]workflows.Finding{
		{Kind: "single-replica", Name: "1"}, {Kind: "unmanaged", Name: "2"}, {Kind: "unmanaged", Name: "3", Holds: true},
		{Kind: "nothing-to-spare", Name: "4"}, {Kind: "never-allowed", Namespace: "b", Name: "5", Holds: true}, {Kind: "never-allowed", Namespace: "a", Name: "6", Holds: true},
		{Kind: "two-budgets", Name: "7", Holds: true}, {Kind: "of a newer worker", Name: "8"}, {Kind: "do-not-disrupt", Name: "9", Holds: true}, {Kind: "zone-without-capacity", Name: "10", Holds: true},
	}) {
		name := finding.Name
		if finding.Holds {
			name += "!"
		}
		names = append(names, name)
	}
	require.Equal(t, []string{"6!", "5!", "7!", "9!", "10!", "3!", "8", "2", "4", "1"}, names)
}
