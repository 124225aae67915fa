package main

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fairway-project/fairway/rollout"
	"github.com/fairway-project/fairway/workflows"
)

func TestAChannelIsDescribedByItsWaves(t *testing.T) {
	now := time.Now()
	state := channelState{ChannelState: workflows.ChannelState{
		ChannelSync: workflows.ChannelSync{
			Channel: "dev", Commit: newCommit, Title: "Raise the limits of CoreDNS\n\nBecause.",
			Clusters: []workflows.ChannelCluster{{Cluster: rollout.Cluster{ID: "b"}, Want: workflows.Want{Version: newer}}},
		},
		Since: now.Add(-time.Hour), Wave: 1, Next: now.Add(5*time.Minute + time.Second), Stopped: "",
		Members: []workflows.Member{
			member("c", rollout.Waiting, 2, older, "", time.Hour), member("b", rollout.Failed, 1, older, "stack b rolled back", time.Minute), member("a", rollout.Done, 0, newer, "", time.Hour),
		},
		Blocks: workflows.ScopeBlocks{Holding: []workflows.Block{{ID: "block-1", Reason: "sale", By: "ann", Since: began}}},
	}}
	text := shown(t, func(table *table) { showChannel(table, state, now) })
	requireRow(t, text, "Head:", "9f2c41d3 Raise the limits of CoreDNS")
	requireRow(t, text, "Clusters:", "1 of 3 on the head")
	requireRow(t, text, "Waves:", "1 of 3 let go on; the next one in 5m")
	requireRow(t, text, "Blocked:", "channel dev, by ann: sale [block-1]")
	requireRow(t, text, "canary", "a", "done")
	requireRow(t, text, "1", "b", "failed", "60s", "1b7e0055#bbbbbbbb", "9f2c41d3#aaaaaaaa", "stack b rolled back")
	requireRow(t, text, "2", "c", "waiting")

	state.Stopped = "1 cluster has failed, and at most 0 may"
	text = shown(t, func(table *table) { showChannel(table, state, now) })
	requireRow(t, text, "Stopped:", "1 cluster has failed, and at most 0 may")
	require.Contains(t, text, "`fairway channel resume dev --reason ...` lets it go on")
	state.Problem = "branch dev does not exist"
	requireRow(t, shown(t, func(table *table) { showChannel(table, state, now) }), "Not known:", "branch dev does not exist")
	state.Stopped, state.Wave = "", 3
	require.Equal(t, "3 of 3 let go on", wavesText(state, now))
	state.Wave, state.Next = 2, time.Time{}
	require.Equal(t, "2 of 3 let go on; the next one when the one before has proved itself", wavesText(state, now))
}

func TestAMisspeltChannelIsRefused(t *testing.T) {
	conn := smallFleet(t).connection()
	name, err := conn.knownChannel(t.Context(), "beta")
	require.NoError(t, err)
	require.Equal(t, "beta", name)
	_, err = conn.knownChannel(t.Context(), "btea")
	require.EqualError(t, err, `no cluster follows channel "btea", and nothing is promoted from or to it; there are beta, dev, stable`)
}

func TestClustersAreListedWithWhatTheirChannelKnows(t *testing.T) {
	conn := smallFleet(t).connection()
	clusters, err := conn.clusters(t.Context())
	require.NoError(t, err)
	channels := channelsOf(clusters)
	require.NoError(t, conn.addChannels(t.Context(), channels))
	listed := listClusters(clusters, channels)
	require.Len(t, listed, 6)
	require.Equal(t, "failed", listed[2].State)
	require.Equal(t, older, listed[2].Version)
	require.Equal(t, "stack dev-3 rolled back: quota", listed[2].Problem, "it is newer than that of the registry")
	require.Equal(t, listedCluster{ClusterInfo: clusters[4]}, listed[4], "without an actor the registry's word counts")
}

func TestASyncTellsWhatIsNewAndWhatIsWrong(t *testing.T) {
	f := &fakeTemporal{t: t, activities: map[string]any{"SyncFleet": map[string]any{"clusters": 3, "told": []string{"dev"}, "lost": []string{"dev-1"}, "problems": []string{"Branch beta does not exist."}}}}
	var result syncResult
	require.NoError(t, f.connection().askLong(t.Context(), "SyncFleet", syncRequest{Shrunk: true}, &result))
	require.Equal(t, "The registry has 3 clusters.\nChannel dev was told what is new.\nThe update of cluster dev-1 ended without a word; it is begun again.\nProblem: Branch beta does not exist.\n", shown(t, result.show))
	require.Equal(t, "The registry has 0 clusters.\nNothing is new that channels have not been told already.\n", shown(t, syncResult{}.show))
}
