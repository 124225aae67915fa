package promotions

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fairway-project/fairway/channels"
	"github.com/fairway-project/fairway/forge"
	"github.com/fairway-project/fairway/promotion"
	"github.com/fairway-project/fairway/prose"
	"github.com/fairway-project/fairway/workflows"
)

// A merge may be tried for hours; what it was chosen by may be otherwise by then.
func TestWhatHasChangedSinceACandidateWasChosenHoldsItsMerge(t *testing.T) {
	for name, c := range map[string]struct {
		change func(w *world, candidate string)
		want   string
	}{
		"the edge goes by pull request now": {func(w *world, _ string) { w.edge(0).Mode = promotion.ByPullRequest }, "by pull request"},
		"its class needs a person now": {func(w *world, _ string) {
			w.edge(0).PersonFor = []promotion.Class{promotion.ManifestsOnly}
		}, "needs a person"},
		"a label says that it is breaking": {func(w *world, c string) {
			w.edge(0).PersonFor = []promotion.Class{promotion.Breaking}
			w.forge.of[c] = []forge.PullRequest{{Number: 7, Labels: []string{"breaking"}}}
		}, "needs a person"},
		"the source was rewritten without it": {func(w *world, c string) {
			w.origin.Git("update-ref", "refs/heads/dev", c+"^")
		}, "is not on dev any more"},
		"a longer soak is configured": {func(w *world, _ string) { w.edge(0).Soak = new(3 * time.Hour) }, "has soaked 2h of 3h"},
		"a cluster went back behind it": {func(w *world, c string) {
			w.actors.channel("dev").Promotions.Soak.Observe(w.now, promotion.View{
				Clusters: []promotion.ClusterView{{ID: "d-1", Commit: w.origin.Git("rev-parse", c+"^")}}, Fresh: w.now.Add(time.Hour),
			})
		}, "cluster d-1 does not have it yet"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			candidate := w.commit("dev", "Change", files{"cluster/manifests/a/b.yaml": "kind: ConfigMap\n"})
			w.soak("dev", 2*time.Hour)
			before := w.head("alpha")
			c.change(w, candidate)
			var record promotion.Record
			require.NoError(t, w.run(w.acts.MergePromotion, w.promotes("dev", "alpha", candidate), &record))
			require.Equal(t, promotion.Held, record.Outcome, record.Detail)
			require.Contains(t, record.Detail, c.want)
			require.Equal(t, before, w.head("alpha"))
		})
	}
}

func TestACandidateThatWasRewrittenAwayGoesNowhere(t *testing.T) {
	w := newWorld(t)
	candidate := w.commit("dev", "Leak", files{"cluster/secret.yaml": "x\n"})
	w.soak("dev", 2*time.Hour)
	w.origin.Git("update-ref", "refs/heads/dev", candidate+"^")
	choice := w.choose(devToAlpha) // the actor has not heard of it yet
	require.False(t, choice.Go)
	require.Contains(t, choice.Why, "is not on dev any more")

	w, in := proposal(t)
	w.edge(1).PullRequest.Automerge = true
	w.approve(1, in.Candidate, "anna")
	before := w.head("stable")
	w.origin.Git("update-ref", "refs/heads/alpha", in.Candidate+"^")
	record := w.ends(in, promotion.Withdrawn)
	require.Contains(t, record.Detail, "is not on `alpha` any more")
	require.Equal(t, before, w.head("stable"))
	require.Equal(t, forge.Closed, w.forge.requests[0].State)

	record = promotion.Record{}
	require.NoError(t, w.run(w.acts.OpenPromotion, in, &record))
	require.Equal(t, promotion.Held, record.Outcome)
	require.Len(t, w.forge.requests, 1)
}

// A commit came to dev with one pull request and to alpha with another one: GitHub knows both.
func TestTheLabelsOfAllPullRequestsOfACommitCount(t *testing.T) {
	w := newWorld(t)
	candidate := w.commit("dev", "Change", files{"cluster/manifests/a/b.yaml": "kind: ConfigMap\n"})
	w.soak("dev", 2*time.Hour)
	junk := make([]string, 30)
	for i := range junk {
		junk[i] = fmt.Sprintf("junk-%d", i)
	}
	w.forge.of[candidate] = []forge.PullRequest{
		{Number: 9, Head: "fairway/promote/kube-to-dev/0123456789ab", Labels: []string{"promotion"}}, {Number: 7, Head: "change", Labels: append(junk, "Breaking")},
	}
	w.edge(0).PersonFor = []promotion.Class{promotion.Breaking}
	choice := w.choose(devToAlpha)
	require.Equal(t, promotion.Breaking, choice.Class)
	require.Equal(t, promotion.ByPullRequest, choice.Mode)
	report := w.report(candidate)
	require.Equal(t, 7, report.Commits[0].PullRequest, "the one with which it was written")
}

func TestTheForgeFindsNobodyAndNothingInTextsOfOthers(t *testing.T) {
	for text, want := range map[string]string{
		"fixes gh-12":                    "fixes gh- 12",
		"Closes GH-12":                   "Closes GH- 12",
		"closes team/config!12":          "closes team/config! 12",
		"closes https://x.example.org/1": "closes https: //x.example.org/1",
		"done!":                          "done!",
	} {
		require.Equal(t, want, prose.Plain(text, prose.Title))
	}
	// A backslash before the bar would make it end the cell, and with it the code.
	text := status(view{headline: "It waits.", blocked: `x \| @everyone`})
	for line := range strings.Lines(text) {
		if strings.Contains(line, "@everyone") {
			require.Equal(t, 4, strings.Count(line, "|"), line)
		}
	}
}

func TestTheBodyOfAConflictIsShorterThanForgesCutIt(t *testing.T) {
	var conflict channels.ConflictError
	for i := range maxFiles {
		file := channels.ConflictFile{Path: fmt.Sprintf("%d/%s", i, strings.Repeat("ü", 400))}
		for range 5 {
			commit := channels.Commit{SHA: strings.Repeat("a", 40), Title: strings.Repeat("€", 400), Author: strings.Repeat("@", 200)}
			file.Ours, file.Theirs = append(file.Ours, commit), append(file.Theirs, commit)
		}
		conflict.Files = append(conflict.Files, file)
	}
	text := conflictBody(promotion.Edge{From: "dev", To: "alpha"}, promotion.Record{Candidate: strings.Repeat("a", 40)}, strings.Repeat("b", 40), strings.Repeat("a", 40), conflict)
	require.Less(t, len(text), 60_000)
	require.Contains(t, text, "git merge origin/alpha", "how to resolve it is never cut")
	require.Contains(t, text, "more files")
}

const maxFiles = 200

func TestApprovalsOfFairwayItselfDoNotCount(t *testing.T) {
	w, in := proposal(t)
	w.edge(1).PullRequest.Automerge = true
	w.forge.requests[0].Author = "mallory" // who was faster to open it from Fairway's branch
	w.approve(1, in.Candidate, "Fairway", "mallory")
	require.Contains(t, w.waits(in), "It waits for 1 approval")
}

func TestATargetThatWasRewrittenHasNotWhatItHadBefore(t *testing.T) {
	w, in := proposal(t)
	before := w.head("stable")
	w.forge.mergeAs(w.forge.requests[0], "anna", "Merge it")
	w.origin.Git("update-ref", "refs/heads/stable", before)
	w.now = w.now.Add(time.Hour)
	record := w.ends(in, promotion.Merged)
	require.Contains(t, record.Detail, "rewritten")

	// A replica of the forge may lag behind.
	w, in = proposal(t)
	before = w.head("stable")
	merge := w.forge.mergeAs(w.forge.requests[0], "anna", "Merge it")
	w.origin.Git("update-ref", "refs/heads/stable", before)
	require.Contains(t, w.waits(in), "is merged")
	w.origin.Git("update-ref", "refs/heads/stable", merge)
	require.Equal(t, merge, w.ends(in, promotion.Merged).Merge)

	// By a merge that was pushed, too; it takes a person to bring again what a person took away.
	w = newWorld(t)
	candidate := w.commit("dev", "Change", files{"cluster/dev.yaml": "new\n"})
	w.soak("dev", 2*time.Hour)
	before = w.head("alpha")
	require.NoError(t, w.run(w.acts.MergePromotion, w.promotes("dev", "alpha", candidate), &record))
	w.actors.channel("alpha").Promotions.Records = []promotion.Record{record}
	w.origin.Git("update-ref", "refs/heads/alpha", before)
	choice := w.choose(devToAlpha)
	require.False(t, choice.Go)
	require.Contains(t, choice.Why, "rewritten")
	require.NotContains(t, choice.Why, "ull request 0")
	require.True(t, w.choose(workflows.ChoosePromotion{From: "dev", To: "alpha", Now: true}).Go)
}

func TestAPersonBringsAgainWhatTheTargetHasLost(t *testing.T) {
	w, in := proposal(t)
	before := w.head("stable")
	w.forge.mergeAs(w.forge.requests[0], "anna", "Merge it")
	w.origin.Git("update-ref", "refs/heads/stable", before)
	in.PullRequest, in.By, in.Now, in.Began = 0, "ben", true, w.now.Add(time.Minute)
	in = w.open(in)
	require.Equal(t, 2, in.PullRequest)
}

func TestAPullRequestOfAnEdgeThatIsGoneWithItsTargetIsWithdrawn(t *testing.T) {
	w, in := proposal(t)
	w.acts.Pipeline.Edges = w.acts.Pipeline.Edges[:1]
	w.origin.Git("update-ref", "-d", "refs/heads/stable")
	w.ends(in, promotion.Withdrawn)
}

func TestWhatTheForgeDoesNotTellKeepsNoPromotionThatIsOverAlive(t *testing.T) {
	w, in := proposal(t)
	w.approve(1, in.Candidate, "anna")
	w.forge.down["CanWrite"] = forge.ErrRefused // the token may not ask
	require.Contains(t, w.waits(in), "refuses")
	w.forge.mergeAs(w.forge.requests[0], "anna", "Merge it")
	require.Equal(t, "anna", w.ends(in, promotion.Merged).MergedBy)

	w, in = proposal(t)
	w.forge.down["Reviews"] = forge.ErrRefused
	require.NoError(t, w.forge.closeAs(1, "anna"))
	w.ends(in, promotion.Refused)
}

func TestABranchThatNobodyMayDeleteKeepsNoPromotionAlive(t *testing.T) {
	for outcome, end := range map[promotion.Outcome]func(w *world){
		promotion.Merged:    func(w *world) { w.forge.mergeAs(w.forge.requests[0], "anna", "Merge it") },
		promotion.Refused:   func(w *world) { require.NoError(t, w.forge.closeAs(1, "anna")) },
		promotion.Withdrawn: func(w *world) { w.acts.Pipeline.Edges = w.acts.Pipeline.Edges[:1] },
	} {
		w, in := proposal(t)
		w.origin.Git("config", "receive.denyDeletes", "true")
		end(w)
		w.ends(in, outcome)
		require.Equal(t, in.Candidate, w.head(pinned(promotion.Edge{From: "alpha", To: "stable"}, in.Candidate)), "it is left")
	}
}

func TestACandidateThatIsNowhereAnyMoreIsRefusedWithItsPullRequest(t *testing.T) {
	w, in := proposal(t)
	require.NoError(t, w.forge.closeAs(1, "anna"))
	w.origin.Git("update-ref", "-d", "refs/heads/"+pinned(*w.edge(1), in.Candidate))
	w.origin.Git("update-ref", "refs/heads/alpha", in.Candidate+"^")
	w.origin.Git("prune", "--expire=now")
	require.NoError(t, os.RemoveAll(w.acts.Repository.(*memoryRepository).Dir), "a worker on another machine")
	w.ends(in, promotion.Refused)
}

func TestApprovalsOfManyFillNoRecord(t *testing.T) {
	w, in := proposal(t)
	for i := range 500 {
		w.approve(1, in.Candidate, fmt.Sprintf("user-%d", i))
	}
	w.edge(1).PullRequest.Approvals = new(400)
	w.edge(1).PullRequest.Automerge = true
	record := w.ends(in, promotion.Merged)
	require.Len(t, record.Approvals, mostApprovals)
}

func TestARevertLeavesAloneWhatPeopleHaveDoneOnItsBranch(t *testing.T) {
	w, good, _ := spoiled(t, "stable")
	in := workflows.RevertChannel{Channel: "stable", To: good, By: "ben", Reason: "it breaks"}
	w.revert(in)
	branch := w.forge.requests[0].Head
	theirs := w.commit(branch, "Keep the hotfix", files{"cluster/hotfix.yaml": "x\n"})
	require.NoError(t, w.forge.closeAs(1, "anna"))
	err := w.run(w.acts.RevertChannel, in, nil)
	require.Equal(t, workflows.InvalidInput, typeOf(err), "%v", err)
	require.ErrorContains(t, err, "somebody has worked on it")
	require.Equal(t, theirs, w.head(branch))

	w.origin.Git("update-ref", "-d", "refs/heads/"+branch)
	require.Equal(t, 2, w.revert(in).PullRequest)
}

func TestAPullRequestThatIsTurnedElsewhereInTheLastMomentIsNoPromotion(t *testing.T) {
	w, in := proposal(t)
	w.edge(1).PullRequest.Automerge = true
	w.approve(1, in.Candidate, "anna")
	w.commit("elsewhere", "Begin", files{"x": "y"}, w.head("stable"))
	before := w.head("stable")
	w.forge.atMerge = func(pr *forge.PullRequest) { pr.Base = "elsewhere" }
	require.Contains(t, w.waits(in), "does not have")
	require.Equal(t, before, w.head("stable"))
	require.Contains(t, w.ends(in, promotion.Withdrawn).Detail, "was merged into elsewhere instead")
}

func TestApprovalsOfStrangersFillNoComment(t *testing.T) {
	w, in := proposal(t)
	for i := range 900 {
		user := fmt.Sprintf("stranger-%d", i)
		w.approve(1, in.Candidate, user)
		w.forge.readers = append(w.forge.readers, user)
	}
	w.waits(in)
	require.Less(t, len(w.forge.comments[1]), 10_000)
	require.Contains(t, w.forge.comments[1], "| approvals | 0 of 1 |", "what is waited for is not cut away")
}

func TestAMergeThatIsTriedAgainAndAgainDoesNotAskForAllLabelsEachTime(t *testing.T) {
	w := newWorld(t)
	w.edge(0).PersonFor = []promotion.Class{promotion.Breaking}
	candidate := w.commit("dev", "Change", files{"cluster/manifests/a/b.yaml": "kind: ConfigMap\n"})
	w.soak("dev", 2*time.Hour)
	require.True(t, w.choose(devToAlpha).Go)
	w.blocks = []workflows.Block{{Scope: "fleet", Reason: "we look", By: "anna"}}
	w.life.reset(0)
	for range 5 {
		require.NoError(t, w.run(w.acts.MergePromotion, w.promotes("dev", "alpha", candidate), nil))
	}
	require.Zero(t, w.life.count("forge PullRequestsOf"), "the look has asked")
	w.forge.of[candidate] = []forge.PullRequest{{Number: 7, Labels: []string{"breaking"}}}
	w.blocks = nil
	require.Equal(t, promotion.ByPullRequest, w.choose(devToAlpha).Mode, "who chooses asks")
}

func TestAPullRequestThatSomebodyElseHasOpenedSaysWhatFairwaySays(t *testing.T) {
	w := newWorld(t)
	candidate := w.commit("alpha", "Change", files{"cluster/cluster.yaml": "x\n"})
	w.soak("alpha", 2*time.Hour)
	w.origin.Git("update-ref", "refs/heads/"+pinned(*w.edge(1), candidate), candidate)
	_, err := w.forge.Open(t.Context(), forge.NewPullRequest{Head: pinned(*w.edge(1), candidate), Base: "stable", Title: "Harmless", Body: "nothing changes"})
	require.NoError(t, err)
	w.forge.requests[0].Author = "mallory"
	in := w.open(w.promotes("alpha", "stable", candidate))
	require.Equal(t, 1, in.PullRequest)
	require.Contains(t, w.forge.requests[0].Title, "Promote alpha to stable")
	require.Contains(t, w.forge.requests[0].Body, "cluster-stack")
}
