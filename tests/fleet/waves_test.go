package fleet

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairway-project/fairway/rollout"
	"github.com/fairway-project/fairway/workflows"
)

// wavesOver is closed when the clusters of the sample fleet, which all go in waves first, are free for
// the other tests.
var wavesOver = make(chan struct{})

// A canary, a group and the rest go one after another. What fails in the group stops the rest until a
// person lets it go on.
func TestClustersGoInWavesAndAFailureInOneStopsTheNext(t *testing.T) {
	t.Parallel()
	defer close(wavesOver)
	const channel, canary, second = "waves", "dev-1", "dev-2"
	rest := []string{"alpha-1", "stable-1"}
	commit := push(t, channel, "Break one cluster of the second wave", edits{
		"manifests/shop-frontend/broken.yaml": written(`{{ if eq .Cluster.ID "` + second + `" }}` + "\n" + brokenManifest + "{{ end }}\n"),
	})
	follow(t, channel, append([]string{canary, second}, rest...)...)

	await(t, second, "the failure of "+commit[:8], func(u workflows.ClusterUpdates) bool {
		return u.Failed != nil && strings.HasPrefix(u.Failed.Version, commit)
	})
	first, group := attempts(t, canary, commit), attempts(t, second, commit)
	require.Equal(t, "done", first[len(first)-1].Phase)
	require.Equal(t, "failed", group[0].Phase)
	// The bake counts whole seconds.
	require.Greater(t, group[0].Began.Sub(first[len(first)-1].Ended), bake-time.Second, "the canary has baked")
	for _, cluster := range rest {
		holds(t, cluster, func(u workflows.ClusterUpdates) bool {
			return u.Want.Hold && (u.Running == nil || !strings.HasPrefix(u.Running.Version, commit)) && !strings.HasPrefix(u.Current, commit)
		})
		require.Empty(t, attempts(t, cluster, commit), "%s waits", cluster)
	}
	described := succeeds(t, nil, "channel", "describe", channel)
	require.Contains(t, described.stdout, "1 cluster has failed ("+second+")")
	require.Contains(t, described.stdout, "2 of 3 let go on")
	require.NotEmpty(t, entry(t, second).Status.Problems)

	resumed := time.Now()
	succeeds(t, nil, "channel", "resume", channel, "--reason", "only "+second+" is affected")
	var last []workflows.UpdateSummary
	for _, cluster := range rest {
		reaches(t, cluster, commit)
		last = append(last, attempts(t, cluster, commit)...)
	}
	require.Len(t, last, len(rest))
	require.True(t, last[0].Began.Before(last[1].Ended) && last[1].Began.Before(last[0].Ended), "the rest goes at the same time")
	require.True(t, last[0].Began.After(resumed.Add(-time.Second)) && last[1].Began.After(resumed.Add(-time.Second)))
	waves := map[string]int{}
	for _, member := range knows(t, channel, commit, rollout.Done, canary, rest[0], rest[1]) {
		waves[member.ID] = member.Wave
	}
	require.Equal(t, map[string]int{canary: 0, second: 1, rest[0]: 2, rest[1]: 2}, waves)
	require.NotContains(t, entry(t, second).Status.CurrentVersion, commit, "what has failed is forgiven, not forgotten")
}

// knows waits until the actor of a channel has heard that clusters have got to a state on the way to a
// commit, and returns all that it knows of its clusters.
func knows(t *testing.T, channel, commit string, wanted rollout.State, clusters ...string) []workflows.Member {
	t.Helper()
	var state workflows.ChannelState
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		require.True(c, query(t.Context(), workflows.ChannelID(channel), workflows.StateQuery, &state))
		require.Equal(c, commit, state.Commit)
		for _, cluster := range clusters {
			at := slices.IndexFunc(state.Members, func(m workflows.Member) bool { return m.ID == cluster })
			require.GreaterOrEqual(c, at, 0, cluster)
			require.Equal(c, wanted, state.Members[at].State, cluster)
		}
	}, 10*time.Second, 100*time.Millisecond, "channel %s does not know that %v are %s", channel, clusters, wanted)
	return state.Members
}

// attempts are the updates of a cluster to a commit that are over.
func attempts(t *testing.T, cluster, commit string) (over []workflows.UpdateSummary) {
	t.Helper()
	var state workflows.ClusterState
	require.Eventually(t, func() (known bool) {
		state, known = updates(t, cluster)
		return known
	}, patience, 200*time.Millisecond, "cluster %s does not answer", cluster)
	for _, past := range state.Updates.History {
		if strings.HasPrefix(past.Version, commit) {
			over = append(over, past)
		}
	}
	return over
}
