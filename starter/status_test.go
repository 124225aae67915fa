package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fairway-project/fairway/promotion"
	"github.com/fairway-project/fairway/rollout"
	"github.com/fairway-project/fairway/workflows"
)

const (
	newCommit = "9f2c41d3aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	oldCommit = "1b7e0055bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
	newer     = newCommit + "#aaaaaaaaaa"
	older     = oldCommit + "#bbbbbbbbbb"
)

func member(id string, state rollout.State, wave int, version, problem string, since time.Duration) workflows.Member {
	return workflows.Member{
		Member:  rollout.Member{Cluster: rollout.Cluster{ID: id}, Wave: wave, State: state, SinceUnix: time.Now().Add(-since).Unix()},
		Current: version, Problem: problem,
	}
}

// smallFleet has a channel that is on its way, one that nobody has told anything, and one that is silent.
func smallFleet(t *testing.T) *fakeTemporal {
	return &fakeTemporal{
		t: t,
		activities: map[string]any{"ListClusters": []workflows.ClusterInfo{
			{ID: "dev-1", Channel: "dev"}, {ID: "dev-2", Channel: "dev"}, {ID: "dev-3", Channel: "dev", Problem: "stack dev-3 rolled back"}, {ID: "dev-4", Channel: "dev"},
			{ID: "beta-1", Channel: "beta", Version: older}, {ID: "stable-1", Channel: "stable"},
		}},
		queries: map[string]any{
			"channel/dev": workflows.ChannelState{
				ChannelSync: workflows.ChannelSync{Channel: "dev", Commit: newCommit, Title: "Raise the limits of CoreDNS"},
				Since:       time.Now().Add(-time.Hour), Stopped: "1 cluster has failed, and at most 0 may",
				Members: []workflows.Member{
					member("dev-1", rollout.Done, 0, newer, "", time.Hour), member("dev-2", rollout.Updating, 1, older, "", 2*time.Hour),
					member("dev-3", rollout.Failed, 1, older, "stack dev-3 rolled back: quota", time.Minute), member("dev-4", rollout.Waiting, 2, older, "", 5*time.Hour),
				},
				Blocks: workflows.ScopeBlocks{Holding: []workflows.Block{
					{ID: "block-2", Reason: "sale", By: "ann", Since: began, Until: time.Now().Add(time.Hour)},
					{ID: "block-1", Reason: "long ago", By: "ann", Since: began, Until: began.Add(time.Minute)},
				}},
			},
			"channel/stable": errSilent,
			"fleet":          workflows.FleetState{Blocks: workflows.ScopeBlocks{Holding: []workflows.Block{{ID: "block-1", Reason: "outage of AWS", By: "ben", Since: began}}}},
			"cluster/dev-4":  workflows.ClusterState{Blocks: []workflows.Block{{ID: "registry", Scope: "registry", Reason: "frozen", By: "the cluster's registry entry", Since: began}}},
			"cluster/dev-2/update": workflows.UpdateProgress{
				Kind: workflows.Upgrade, Version: newer, Phase: "pools", Step: "rolls pool `worker`", Started: began,
				Pools: []workflows.PoolProgress{{Pool: "master", State: "done", Nodes: 3, Replaced: 3}, {Pool: "worker", State: "rolling"}},
			},
			"cluster/dev-2/pool/worker": workflows.RollProgress{
				Phase: "replacing", Step: "moves pods", Started: time.Now().Add(-10 * time.Minute),
				Nodes: []workflows.NodeProgress{done("a", 0, 9), {Node: "b", State: workflows.Waiting}, {Node: "c", State: workflows.Waiting}, {Node: "d", State: workflows.Waiting}},
			},
		},
		running: map[string][]string{"UpdateCluster": {"cluster/dev-2/update"}, "RollPool": {"cluster/dev-2/pool/worker"}, "Cluster": {"cluster/dev-4"}},
	}
}

func TestTheStatusShowsTheFleetByChannel(t *testing.T) {
	status, err := smallFleet(t).connection().status(t.Context())
	require.NoError(t, err)
	text := shown(t, status.show)
	requireRow(t, text, "dev", "9f2c41d3", "60m", "1 of 4", "1", "1", "1", "1", "1b7e0055 (dev-4)", "Raise the limits of CoreDNS")
	requireRow(t, text, "beta", "-", "-", "? of 1")
	require.Contains(t, text, "Channel beta: nobody has told this channel anything yet; `fairway sync` does.")
	require.Contains(t, text, "Channel dev lets no more clusters go on: 1 cluster has failed, and at most 0 may")
	requireRow(t, text, "dev-2", "update", "9f2c41d3#aaaaaaaa")
	require.Contains(t, text, "4 of 7   -      rolls pool worker", "a block holds, so nobody knows how long it takes")
	requireRow(t, text, "dev-3", "dev", "60s", "9f2c41d3", "stack dev-3 rolled back: quota")
	requireRow(t, text, "fleet", "all", "ben")
	requireRow(t, text, "channel dev", "all", "ann")
	requireRow(t, text, "dev-4 (registry)", "all", "the cluster's registry entry")
	require.NotContains(t, text, "long ago", "a block that has expired holds nothing")
	requireRow(t, text, "cluster/dev-2/pool/worker")
	require.Contains(t, text, "No worker answered for 1 workflow: channel/stable.")
}

func TestTheStatusShowsPromotionsAndWhatKeepsThemOut(t *testing.T) {
	f := smallFleet(t)
	dev := f.queries["channel/dev"].(workflows.ChannelState)
	dev.Promotions.Reverts = []promotion.Revert{{ID: "r-1", To: "11111111", By: "ann", Reason: "mended", Lifted: began}, {ID: "r-2", To: "22222222", By: "ben", Reason: "DNS is slow", Bad: []string{"a"}}}
	f.queries["channel/dev"] = dev
	f.running["Promote"] = []string{"promotion/alpha-to-stable", "promotion/dev-to-alpha"}
	f.queries["promotion/alpha-to-stable"] = workflows.PromotionProgress{
		Record: promotion.Record{ID: "alpha-to-stable/9f2c41d3aaaa", From: "alpha", To: "stable", Began: began, Title: "Raise the limits", URL: "https://forge/pulls/7", PullRequest: 7}, Phase: "following",
	}
	f.queries["promotion/dev-to-alpha"] = errSilent
	status, err := f.connection().status(t.Context())
	require.NoError(t, err)
	text := shown(t, status.show)
	requireRow(t, text, "alpha-to-stable/9f2c41d3aaaa")
	require.Contains(t, text, "following")
	require.Contains(t, text, "https://forge/pulls/7")
	require.Contains(t, text, "Nothing is promoted into channel dev, which was set back to 22222222, by ben: DNS is slow")
	require.NotContains(t, text, "mended", "a revert that is lifted holds nothing")
	require.Equal(t, []string{"channel/stable", "promotion/dev-to-alpha"}, status.Silent)

	status = fleetStatus{Promotions: status.Promotions}
	require.NotContains(t, shown(t, status.show), "Nothing is under way.")
}

func TestTheStatusAsJSONHasNoNulls(t *testing.T) {
	quiet := &fakeTemporal{t: t, activities: map[string]any{"ListClusters": []workflows.ClusterInfo{}}}
	status, err := quiet.connection().status(t.Context())
	require.NoError(t, err)
	data, err := json.Marshal(status)
	require.NoError(t, err)
	require.JSONEq(t, `{"channels":[],"updating":[],"failed":[],"blocked":[],"rolls":[],"promotions":[],"turns":[]}`, string(data))
	require.Contains(t, shown(t, status.show), "Nothing is under way.")
}

func TestTheStatusOfALargeFleetIsAskedAllAtOnce(t *testing.T) {
	f := &fakeTemporal{t: t, queries: map[string]any{}, running: map[string][]string{}, delay: 20 * time.Millisecond}
	var clusters []workflows.ClusterInfo
	for i := range 150 {
		id, channel := fmt.Sprintf("c-%03d", i), fmt.Sprintf("channel-%d", i%10)
		clusters = append(clusters, workflows.ClusterInfo{ID: id, Channel: channel})
		f.queries["channel/"+channel] = workflows.ChannelState{ChannelSync: workflows.ChannelSync{Channel: channel, Commit: newCommit}}
		f.queries["cluster/"+id] = workflows.ClusterState{Blocks: []workflows.Block{{ID: "block-1", By: "ann", Reason: "r", Since: began}}}
		f.queries["cluster/"+id+"/update"] = workflows.UpdateProgress{Phase: "stacks"}
		f.running["Cluster"] = append(f.running["Cluster"], "cluster/"+id)
		f.running["UpdateCluster"] = append(f.running["UpdateCluster"], "cluster/"+id+"/update")
	}
	f.activities = map[string]any{"ListClusters": clusters}
	start := time.Now()
	status, err := f.connection().status(t.Context())
	require.NoError(t, err)
	require.Len(t, status.Blocked, 150)
	require.Len(t, status.Updating, 150)
	require.Less(t, time.Since(start), 1500*time.Millisecond, "one after another they take 6 s")
}

func TestAWatcherSeesOnlyWhatChanges(t *testing.T) {
	status, err := smallFleet(t).connection().status(t.Context())
	require.NoError(t, err)
	var out bytes.Buffer
	w := &watching{out: &out, json: true}
	require.NoError(t, w.show(status, time.Now()))
	require.NoError(t, w.show(status, time.Now()))
	status.Failed = nil
	require.NoError(t, w.show(status, time.Now()))
	require.Equal(t, 2, strings.Count(out.String(), "\n"), "each change is one line of JSON")

	out.Reset()
	w = &watching{out: &out, redraw: true}
	require.NoError(t, w.show(status, began))
	require.NoError(t, w.show(status, began))
	require.Equal(t, 2, strings.Count(out.String(), "\x1b[2J"), "a terminal is redrawn, since times pass")
}

func TestTheTimeLeftIsKnownOnlyWhileARollGoesOn(t *testing.T) {
	now := after(12)
	waiting := workflows.NodeProgress{Node: "w", State: workflows.Waiting}
	for rule, test := range map[string]struct {
		progress workflows.RollProgress
		want     time.Duration
	}{
		"nothing is done yet":   {rolled(waiting), 0},
		"half is done":          {rolled(done("a", 0, 10), waiting), 8 * time.Minute}, // less as time goes by
		"it takes longer":       {rolled(done("a", 0, 5), waiting), 0},
		"all is done":           {rolled(done("a", 0, 10)), 0},
		"something holds it up": {rolled(done("a", 0, 2), workflows.NodeProgress{State: workflows.Replacing, Began: after(3)}), 0},
	} {
		t.Run(rule, func(t *testing.T) { require.Equal(t, test.want, extrapolate(test.progress, now)) })
	}
}

func TestTurnsOfClustersAreNoNodes(t *testing.T) {
	status := fleetStatus{
		Turns: []workflows.Turn{{AwaitTurn: workflows.AwaitTurn{Holder: "cluster/a/pool/p", Nodes: 3}}, {AwaitTurn: workflows.AwaitTurn{Holder: "cluster/a/update", Nodes: 1}}},
		Rolls: []rollStatus{{Queueing: true}},
	}
	require.Equal(t, "The limits across clusters bind: 3 nodes are being replaced by 1 roll, and 1 roll is waiting for a turn.", status.limits())
}

func TestUpdatesThatWaitForTheSameAreOneLine(t *testing.T) {
	status := fleetStatus{}
	for i := range 6 {
		status.Updating = append(status.Updating, updateStatus{Cluster: fmt.Sprintf("c-%d", i), Phase: "waiting", Waits: true, WaitsFor: []string{fmt.Sprintf("attempt %d, because no window is open until 22:00", i+2)}})
	}
	status.Updating = append(status.Updating, updateStatus{Cluster: "d", Phase: "waiting", Waits: true, Step: "a turn"}, updateStatus{Cluster: "e", Phase: "stacks", Step: "stack e", WaitsFor: []string{"UPDATE_IN_PROGRESS"}})
	text := shown(t, status.show)
	requireRow(t, text, "6", "c-0, c-1, c-2, c-3 and 2 more", "no window is open until 22:00")
	requireRow(t, text, "1", "d", "a turn")
	requireRow(t, text, "e", "-", "-", "-", "stacks")
	require.Contains(t, text, "  UPDATE_IN_PROGRESS")
}

func TestNodesOfARollThatRunsAreThoseOfItsUpdate(t *testing.T) {
	update := updateStatus{Cluster: "dev-1"}
	update.learn(workflows.UpdateProgress{
		Phase: "pools", Step: "pool c",
		Steps: []workflows.UpdateStep{{Name: "pool a", Ended: began}, {Name: "pool b"}, {Name: "pool c", Ended: began}},
		Pools: []workflows.PoolProgress{{Pool: "a", State: "done", Nodes: 2, Replaced: 2}, {Pool: "b", State: "rolling"}, {Pool: "c", State: "done"}},
	})
	require.Equal(t, "pool b", update.Step, "what was begun last may have ended first")
	status := fleetStatus{
		Updating: []updateStatus{update},
		Rolls:    []rollStatus{{Workflow: "cluster/dev-1/pool/b", Nodes: counts{Total: 3, Done: 1}, left: time.Minute}},
	}
	status.join([]workflows.ClusterInfo{{ID: "dev-1", Channel: "dev"}})
	require.Equal(t, []int{5, 3}, []int{status.Updating[0].Nodes, status.Updating[0].Done})
	require.Equal(t, "about 1m", status.Updating[0].Left)

	for _, block := range []blockStatus{
		{"dev-1", workflows.Block{}}, {"", workflows.Block{Scope: "fleet"}}, {"", workflows.Block{Scope: "channel dev"}},
	} {
		status := fleetStatus{Updating: []updateStatus{update}, Rolls: status.Rolls, Blocked: []blockStatus{block}}
		status.join([]workflows.ClusterInfo{{ID: "dev-1", Channel: "dev"}})
		require.Empty(t, status.Updating[0].Left, "nobody knows how long a block holds")
	}
}
