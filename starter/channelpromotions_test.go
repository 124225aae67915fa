package main

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/temporal"

	"github.com/fairway-project/fairway/promotion"
	"github.com/fairway-project/fairway/workflows"
)

func TestAClockThatNobodyWaitsForIsNoProblem(t *testing.T) {
	d := describedChannel{channelState: channelState{ChannelState: workflows.ChannelState{Promotions: workflows.ChannelPromotions{
		Soak: promotion.Soak{Held: []string{"cluster alpha-1: it has not been seen to be healthy yet"}, Landings: []promotion.Landing{{Commit: "11111111"}}},
	}}}}
	require.NotContains(t, shown(t, d.showPromotions), "Soak clock", "nothing is promoted out of the last channel")

	d.Outgoing = []outgoingEdge{{To: "stable", PromotionChoice: workflows.PromotionChoice{Choice: promotion.Choice{Why: "stable has all that has landed on alpha."}}}}
	text := shown(t, d.showPromotions)
	requireRow(t, text, "Soak clock:", "nothing waits to be promoted, so nobody looks")
	require.NotContains(t, text, "has not been seen")

	d.Outgoing[0].Waiting = []promotion.Soaking{{Landing: promotion.Landing{Commit: "11111111"}}}
	require.Contains(t, shown(t, d.showPromotions), "has not been seen to be healthy yet")
}

func TestRevertsThatAreLiftedAreNotOffered(t *testing.T) {
	require.Equal(t, []string{"r-2\tDNS is slow"}, revertChoices([]promotion.Revert{{ID: "r-1", Lifted: began}, {ID: "r-2", Reason: "DNS is slow"}}))
}

func TestAChannelIsDescribedByWhatIsPromoted(t *testing.T) {
	f := dueForAlpha(t)
	require.NoError(t, f.connection().applySchedule(t.Context(), scheduleChange{edgeSchedule: edgeSchedule{ID: "promotion/dev-to-alpha", From: "dev", To: "alpha", Every: time.Minute}, Action: makeIt}))
	require.NoError(t, f.connection().applySchedule(t.Context(), scheduleChange{edgeSchedule: edgeSchedule{ID: "promotion/base-to-dev", From: "base", To: "dev", Every: time.Minute}, Action: makeIt}))
	f.activities["ListLacking"] = []workflows.Lacking{{Change: promotion.Change{Commit: oldCommit, Title: "Fix SSM", Author: "Eve", PullRequest: 7}, Missing: "base"}}
	d := describedChannel{channelState: channelState{ChannelState: workflows.ChannelState{
		ChannelSync: workflows.ChannelSync{Channel: "dev"},
		Promotions: workflows.ChannelPromotions{
			Soak: promotion.Soak{Until: began, Held: []string{"cluster dev-3 is not healthy: node n1 is not ready"}, Landings: []promotion.Landing{
				{Commit: "11111111", Kind: promotion.Promoted}, {Commit: "22222222", Kind: promotion.Mixed, Author: "Ben", Title: "Everything"}, {Commit: "33333333", Kind: promotion.Direct},
			}},
			Records: []promotion.Record{{Candidate: "44444444", From: "base", Outcome: promotion.Merged, Carried: 2}, {Candidate: "55555555", From: "base", Outcome: promotion.Conflicted}},
			Refused: []promotion.Refusal{{Candidate: "66666666", From: "base", PullRequest: 9, By: "ann"}},
			Reverts: []promotion.Revert{
				{ID: "revert-1", To: "77777777", By: "ann", Reason: "old", Lifted: began},
				{ID: "revert-2", To: "88888888", By: "ben", Reason: "DNS is slow", Bad: []string{"a", "b"}, PullRequest: 11},
			},
		},
	}}}
	cmd, _, _ := typed(t)
	require.NoError(t, f.connection().describePromotions(cmd, &d))
	require.Equal(t, workflows.ListLacking{Channel: "dev"}, f.asked["ListLacking"])
	text := shown(t, d.showPromotions)
	requireRow(t, text, "Soak clock:", "stands still, because:")
	require.Contains(t, text, "cluster dev-3 is not healthy")
	requireRow(t, text, "To alpha:", "due now: 9f2c41d3")
	requireRow(t, text, "1b7e0055", "0s", "20m of 1h")
	requireRow(t, text, "Reverted:", "to 88888888, by ben: DNS is slow (revert-2, 2 landings stopped); pull request #11 has to be merged")
	require.NotContains(t, text, "revert-1")
	requireRow(t, text, "55555555", "base", "conflict")
	requireRow(t, text, "44444444", "base", "merged")
	requireRow(t, text, "66666666", "base", "#9", "ann")
	requireRow(t, text, "22222222")
	require.Contains(t, text, "carries what another channel has and what none has")
	require.Contains(t, text, "was pushed without a pull request")
	require.NotContains(t, text, "11111111")
	requireRow(t, text, "base", "1b7e0055", "#7", "Eve", "Fix SSM")

	d.Promotions.Soak.Held = nil
	f.activities["ListLacking"] = temporal.NewApplicationError("the repository does not answer", workflows.Unreachable)
	f.activities["ChoosePromotion"] = temporal.NewApplicationError("the forge does not answer", workflows.Unreachable)
	d.Lacking, d.Outgoing = nil, nil
	require.NoError(t, f.connection().describePromotions(cmd, &d))
	text = shown(t, d.showPromotions)
	requireRow(t, text, "Soak clock:", "runs; every cluster is healthy")
	require.Contains(t, text, "Not known: what is due for alpha: the forge does not answer")
	require.Contains(t, text, "Not known: what earlier channels lack: the repository does not answer")
}

func TestAChannelWithoutPromotionsIsDescribedAsBefore(t *testing.T) {
	f := &fakeTemporal{t: t, schedules: &fakeSchedules{}}
	d := describedChannel{channelState: channelState{ChannelState: workflows.ChannelState{ChannelSync: workflows.ChannelSync{Channel: "dev"}}}}
	cmd, _, _ := typed(t)
	require.NoError(t, f.connection().describePromotions(cmd, &d))
	require.Empty(t, shown(t, d.showPromotions))
}

func TestChannelsThatNoClusterFollowsAreListedToo(t *testing.T) {
	f := smallFleet(t)
	f.running["Channel"] = []string{"channel/kube-1.33", "channel/dev"}
	names, err := f.connection().actorChannels(t.Context())
	require.NoError(t, err)
	clusters, err := f.connection().clusters(t.Context())
	require.NoError(t, err)
	listed := withoutClusters(channelsOf(clusters), names)
	require.Len(t, listed, 4)
	require.Equal(t, "kube-1.33", listed[3].Channel)

	f.queries["channel/kube-1.33"] = workflows.ChannelSynced{}
	name, err := f.connection().knownChannel(t.Context(), "kube-1.33")
	require.NoError(t, err)
	require.Equal(t, "kube-1.33", name)
}

func TestARevertSaysWhatClustersWillDo(t *testing.T) {
	f := smallFleet(t)
	f.activities["RevertChannel"] = promotion.Revert{ID: "revert-1", To: oldCommit, Head: newCommit, Bad: []string{newCommit}, By: "ann", Detail: "Then the 4 clusters go there. Nodes may be replaced."}
	cmd, _, _ := typed(t)
	in := workflows.RevertChannel{Channel: "dev", To: "1b7e", By: "ann", DryRun: true}
	result, err := f.connection().revert(cmd, in)
	require.NoError(t, err)
	require.Equal(t, in, f.asked["RevertChannel"])
	text := shown(t, result.show)
	require.Contains(t, text, "Channel dev would go back to the content of 1b7e0055; its head was 9f2c41d3.")
	require.Contains(t, text, "1 landing after it is promoted nowhere: 9f2c41d3.")
	require.Contains(t, text, "Then the 4 clusters go there. Nodes may be replaced.\nClusters: dev-1, dev-2, dev-3, dev-4.")
	require.Contains(t, text, "Nothing is promoted into dev until `fairway channel revert dev --lift --reason ...`.")
	require.Contains(t, text, "Nothing has been changed.")

	result.DryRun, result.PullRequest, result.Clusters = false, 12, nil
	text = shown(t, result.show)
	require.Contains(t, text, "Pull request #12 does that when people merge it")
	require.NotContains(t, text, "Clusters:")
	result.Commit = oldCommit
	require.Contains(t, shown(t, result.show), "Commit 1b7e0055 does that.")
}
