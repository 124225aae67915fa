package main

import (
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/require"
	"go.temporal.io/api/common/v1"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/failure/v1"
	"go.temporal.io/api/workflow/v1"
	"go.temporal.io/sdk/converter"

	"github.com/fairway-project/fairway/registry"
	"github.com/fairway-project/fairway/rollout"
	"github.com/fairway-project/fairway/workflows"
)

const oldest = "77777777cccccccccccccccccccccccccccccccc#cccccccccc"

func TestARollbackGoesToAVersionThatTheClusterHasHad(t *testing.T) {
	had := workflows.ClusterUpdates{Current: newer, Last: older, History: []workflows.UpdateSummary{
		{Phase: "done", Version: oldest}, {Phase: "failed", Version: "never#been", From: oldest}, {Phase: "done", Version: older, From: oldest}, {Phase: "done", Version: newer, From: older},
	}}
	require.Equal(t, []string{older, oldest}, pastVersions(had), "one that only failed was never had")
	for name, test := range map[string]struct{ to, want, problem string }{
		"the last one by default": {"", older, ""},
		"by the whole version":    {oldest, oldest, ""},
		"by its beginning":        {"7777", oldest, ""},
		"by its short form":       {"77777777#cccccccc", oldest, ""},
		"not one it never had":    {"abc", "", `cluster dev-1 has not had version "abc"; it has had 1b7e0055#bbbbbbbb, 77777777#cccccccc`},
		"not the one it has":      {"9f2c", "", `cluster dev-1 has not had version "9f2c"`},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := rollbackTarget("dev-1", had, test.to)
			require.Equal(t, test.want, got)
			if test.problem != "" {
				require.ErrorContains(t, err, test.problem)
			}
		})
	}
	mixed := workflows.ClusterUpdates{Mixed: []string{older, newer}, Last: oldest}
	got, err := rollbackTarget("dev-1", mixed, "")
	require.NoError(t, err)
	require.Equal(t, older, got, "between two versions it goes back to where it began")
	require.Equal(t, newer, newestOf(mixed))
	_, err = rollbackTarget("dev-1", workflows.ClusterUpdates{Current: newer}, "")
	require.EqualError(t, err, "cluster dev-1 has had no version that it could go back to")
}

func TestAnUpdateIsWatchedByItsPhases(t *testing.T) {
	view := updateView(workflows.UpdateProgress{
		Phase: "pools", Step: "rolls `worker`", Pools: []workflows.PoolProgress{{Nodes: 3, Replaced: 3}, {Nodes: 5, Replaced: 1}},
		Steps: []workflows.UpdateStep{{Name: "stack dev-1", Began: after(0), Ended: after(2), Outcome: "3 resources changed"}, {Name: "pool worker", Began: after(2)}},
	})
	require.Equal(t, rollView{
		Counts: counts{Total: 7, Done: 5}, Label: "phase 6 of 7, pools, 4 of 8 nodes replaced", Step: "pools: pool worker",
		Notes: []string{"stack dev-1: 3 resources changed (2m)"},
	}, view)
	require.Equal(t, "restoring", updateView(workflows.UpdateProgress{Phase: "restoring"}).Label)
}

func TestAWatchWaitsForTheUpdateThatWasAskedFor(t *testing.T) {
	f := &fakeTemporal{t: t, queries: map[string]any{
		"cluster/dev-1": workflows.ClusterState{Blocks: []workflows.Block{{Reason: "incident", By: "ann", Since: began}}}, "cluster/dev-1/update": workflows.UpdateProgress{Phase: "stacks", Step: "applies"},
	}}
	run := "run of cluster/dev-1/update"
	view, got, over := f.connection().lookForUpdate(t.Context(), "dev-1", run, nil)
	require.False(t, over)
	require.Empty(t, got, "the one under way is another one")
	require.Equal(t, "waiting until the update under way has reached a safe point", view.Step)
	view, got, _ = f.connection().lookForUpdate(t.Context(), "dev-1", "", []string{run})
	require.Empty(t, got, "it ended before")
	require.Equal(t, []string{"the cluster is blocked by ann: incident"}, view.Waits)
	view, got, over = f.connection().lookForUpdate(t.Context(), "dev-1", "an older one", nil)
	require.False(t, over)
	require.Equal(t, run, got)
	require.Equal(t, "stacks: applies", view.Step)

	f.queries["cluster/dev-1"] = workflows.ClusterState{Updates: workflows.ClusterUpdates{Current: older, Pinned: &workflows.PinnedVersion{Version: older}}}
	_, got, over = f.connection().lookForUpdate(t.Context(), "dev-1", run, nil)
	require.True(t, over, "the one under way went back by itself")
	require.Empty(t, got)
}

func TestAnUpdateThatEndedIsShownWithItsSteps(t *testing.T) {
	progress := workflows.UpdateProgress{
		Kind: workflows.Upgrade, Version: newer, From: older, Phase: "failed", Started: after(0), Ended: after(9), By: "ann", Reason: "because", Evicted: 12,
		Steps:    []workflows.UpdateStep{{Name: "stack dev-1", Began: after(0), Ended: after(2), Outcome: "no change"}, {Name: "pool worker", Began: after(2)}},
		Pools:    []workflows.PoolProgress{{Pool: "worker", State: "failed", Nodes: 5, Replaced: 1, Workflow: "cluster/dev-1/pool/worker"}},
		Forced:   []workflows.ForcedPod{{Pod: "shop/db-0", Owner: "team-shop", Authority: "drain.force_after", Reason: "held by budget db"}},
		Problems: []registry.Problem{{Title: "3 new instances never became usable nodes"}},
	}
	text := shown(t, func(table *table) { showUpdate(table, progress) })
	requireRow(t, text, "Asked by:", "ann: because")
	requireRow(t, text, "Pods:", "12 evicted, 1 forced")
	require.Contains(t, text, "(after 9m)")
	require.Contains(t, text, "2m       ")
	require.Contains(t, text, "not ended")
	requireRow(t, text, "worker", "failed", "1 of 5", "cluster/dev-1/pool/worker")
	require.Contains(t, text, "Pod shop/db-0 of team-shop was forced, as drain.force_after allowed: held by budget db")
	require.Contains(t, text, "Problem: 3 new instances never became usable nodes")
	require.Equal(t, "failed: 3 new instances never became usable nodes", failedHow("dev-1", progress))
	require.Equal(t, "was superseded by 1b7e0055#bbbbbbbb", failedHow("dev-1", workflows.UpdateProgress{Phase: "superseded", Superseded: older}))
}

func TestAClusterIsDescribedByEverybodyWhoKnowsSomething(t *testing.T) {
	f := smallFleet(t)
	f.activities["CheckHealth"] = workflows.Health{Problems: []string{"Node n1 is not ready."}}
	f.queries["cluster/dev-3"] = workflows.ClusterState{
		Blocks: []workflows.Block{{ID: "block-9", Pool: "worker", Reason: "test", By: "eve", Since: began}},
		Updates: workflows.ClusterUpdates{
			Mixed: []string{older, newer}, Last: oldest, Want: &workflows.Want{Version: newer},
			Failed: &workflows.FailedUpdate{Version: newer, Problem: "stack dev-3 rolled back", Attempts: 2, At: time.Now().Add(-time.Minute), Next: time.Now().Add(10*time.Minute + time.Second)},
			Pinned: &workflows.PinnedVersion{Version: older, Not: newer, By: "ann", Reason: "DNS", At: began},
		},
	}
	d, err := f.connection().describeCluster(t.Context(), workflows.ClusterInfo{ID: "dev-3", Channel: "dev", Owner: "team-shop"})
	require.NoError(t, err)
	require.Equal(t, rollout.Failed, d.Rollout.State)
	text := shown(t, func(table *table) { d.show(table, time.Now()) })
	requireRow(t, text, "Channel:", "dev 9f2c41d3")
	requireRow(t, text, "Version:", "between 1b7e0055#bbbbbbbb and 9f2c41d3#aaaaaaaa, since an update failed")
	requireRow(t, text, "Rollout:", "failed for 60s, wave 1")
	requireRow(t, text, "Pinned:", "to 1b7e0055#bbbbbbbb and not 9f2c41d3#aaaaaaaa, by ann")
	require.Contains(t, text, "fleet, by ben: outage of AWS [block-1]")
	require.Contains(t, text, "channel dev, by ann: sale (until ")
	require.Contains(t, text, "pool worker, by eve: test [block-9]")
	requireRow(t, text, "Next attempt:", "in 10m, or by `fairway cluster update`")
	requireRow(t, text, "Health:", "Node n1 is not ready.")
	require.Contains(t, text, "Nothing is under way.")

	f.queries["channel/dev"], f.activities["CheckHealth"] = errSilent, errSilent
	d, err = f.connection().describeCluster(t.Context(), workflows.ClusterInfo{ID: "dev-2", Channel: "dev"})
	require.NoError(t, err)
	text = shown(t, func(table *table) { d.show(table, time.Now()) })
	requireRow(t, text, "Health:", "unknown")
	require.Contains(t, text, "the rollout of its channel: workflow channel/dev does not answer: no worker answers")
	require.Contains(t, text, "Under way:")
	require.Contains(t, text, "3 of 3")
}

func TestPastUpdatesAreListedAndFoundByTheirRun(t *testing.T) {
	u := workflows.ClusterUpdates{History: []workflows.UpdateSummary{
		{Kind: workflows.Upgrade, Version: newer, From: older, Began: after(0), Ended: after(9), Phase: "failed", Problem: "stack rolled back", Run: "aaaa-1", By: "ann", Forced: 2},
		{Kind: workflows.Rollback, Version: older, From: newer, Began: after(10), Ended: after(19), Phase: "done", Reason: "incident", Run: "aabb-2"},
	}}
	text := shown(t, func(table *table) { showHistory(table, "dev-1", u.History) })
	require.Contains(t, text, "9m     update     1b7e0055#bbbbbbbb   9f2c41d3#aaaaaaaa   failed   2        ann   aaaa-1   stack rolled back")
	require.Contains(t, text, "incident")
	require.Contains(t, shown(t, func(table *table) { showHistory(table, "dev-1", nil) }), "Cluster dev-1 has not been updated yet.")
	for run, want := range map[string]string{"aaa": "aaaa-1", "aabb-2": "aabb-2", "2f1c7a2e-8a7e-4a53-9a0f-3c1d2b7d9e10": "2f1c7a2e-8a7e-4a53-9a0f-3c1d2b7d9e10"} {
		got, err := findRun("dev-1", u, run)
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	_, err := findRun("dev-1", u, "aa")
	require.ErrorContains(t, err, "several runs")
	_, err = findRun("dev-1", u, "zz")
	require.ErrorContains(t, err, "no remembered run begins with zz")
}

func TestWhatABlockHoldsChangesNothing(t *testing.T) {
	payload := func(value any) *common.Payloads {
		encoded, err := converter.GetDefaultDataConverter().ToPayloads(value)
		require.NoError(t, err)
		return encoded
	}
	blocked := &failure.Failure{Message: "blocked by ann", FailureInfo: &failure.Failure_ApplicationFailureInfo{ApplicationFailureInfo: &failure.ApplicationFailureInfo{Type: workflows.Blocked}}}
	for rule, test := range map[string]struct {
		name    string
		state   enumspb.PendingActivityState
		details any
		failure *failure.Failure
		changes bool
	}{
		"a stack that is being changed":         {"ApplyStack", enumspb.PENDING_ACTIVITY_STATE_STARTED, nil, nil, true},
		"a stack that waits for the block":      {"ApplyStack", enumspb.PENDING_ACTIVITY_STATE_SCHEDULED, nil, blocked, false},
		"one that looks whether it still holds": {"ApplyStack", enumspb.PENDING_ACTIVITY_STATE_STARTED, nil, blocked, true},
		"one that failed for another reason":    {"ApplyStack", enumspb.PENDING_ACTIVITY_STATE_SCHEDULED, nil, &failure.Failure{Message: "no answer"}, true},
		"a drain that evicts":                   {"DrainNode", enumspb.PENDING_ACTIVITY_STATE_STARTED, workflows.DrainProgress{Total: 3, Left: 2}, nil, true},
		"a drain that the block holds":          {"DrainNode", enumspb.PENDING_ACTIVITY_STATE_STARTED, workflows.DrainProgress{Total: 3, Left: 2, Blocked: "blocked by ann"}, nil, false},
		"a look at a node":                      {"AwaitNode", enumspb.PENDING_ACTIVITY_STATE_STARTED, nil, nil, false},
		"what nobody knows":                     {"Whatever", enumspb.PENDING_ACTIVITY_STATE_STARTED, nil, nil, true},
	} {
		t.Run(rule, func(t *testing.T) {
			pending := &workflow.PendingActivityInfo{ActivityType: &common.ActivityType{Name: test.name}, State: test.state, LastFailure: test.failure, Attempt: 2}
			if test.details != nil {
				pending.HeartbeatDetails = payload(test.details)
			}
			require.Equal(t, test.changes, changes(pending) != "", changes(pending))
		})
	}
}

func TestWorkUnderWayIsToldApartFromWorkThatIsHeld(t *testing.T) {
	f := &fakeTemporal{t: t,
		running: map[string][]string{"UpdateCluster": {"cluster/dev-1/update"}, "RollPool": {"cluster/dev-1/pool/worker"}},
		pending: map[string][]*workflow.PendingActivityInfo{"cluster/dev-1/update": {{ActivityType: &common.ActivityType{Name: "ApplyStack"}, State: enumspb.PENDING_ACTIVITY_STATE_STARTED}}},
	}
	now, err := f.connection().underWay(t.Context(), "dev-1", "")
	require.NoError(t, err)
	require.Equal(t, underWay{workflows: []string{"cluster/dev-1/pool/worker", "cluster/dev-1/update"}, changing: []string{"cluster/dev-1/update: ApplyStack"}}, now)
	now, err = f.connection().underWay(t.Context(), "dev-1", "worker")
	require.NoError(t, err)
	require.Equal(t, underWay{workflows: []string{"cluster/dev-1/pool/worker"}}, now, "a block of a pool does not hold the update")
}

func TestABlockThatExpiresBeforeAllHasStoppedIsAnError(t *testing.T) {
	f := &fakeTemporal{t: t,
		running: map[string][]string{"UpdateCluster": {"cluster/dev-1/update"}},
		pending: map[string][]*workflow.PendingActivityInfo{"cluster/dev-1/update": {{ActivityType: &common.ActivityType{Name: "ApplyStack"}, State: enumspb.PENDING_ACTIVITY_STATE_STARTED}}},
	}
	cmd := &cobra.Command{}
	cmd.SetContext(t.Context())
	_, err := f.connection().awaitStill(cmd, "dev-1", workflows.Block{Until: time.Now().Add(-time.Second)})
	require.ErrorContains(t, err, "before everything had stopped (1 step is still under way): block it for longer")
}

func TestAClusterBetweenVersionsSaysWhatLeftItThere(t *testing.T) {
	failed := &workflows.FailedUpdate{Version: newer}
	for name, c := range map[string]struct {
		last   string
		failed *workflows.FailedUpdate
		says   string
	}{
		"failed":                        {"failed", failed, "failed"},
		"cancelled":                     {"cancelled", failed, "was cancelled"},
		"superseded":                    {"superseded", nil, "gave way to another"},
		"superseded, and failed before": {"superseded", failed, "failed"},
		"not seen":                      {"", nil, "did not get to its end"},
	} {
		t.Run(name, func(t *testing.T) {
			u := workflows.ClusterUpdates{Mixed: []string{older, newer}, Failed: c.failed}
			if c.last != "" {
				u.History = []workflows.UpdateSummary{{Phase: "done"}, {Phase: c.last}}
			}
			require.Equal(t, "between 1b7e0055#bbbbbbbb and 9f2c41d3#aaaaaaaa, since an update "+c.says, clusterDescription{Updates: u}.version())
		})
	}
}
