package promotions

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fairway-project/fairway/forge"
	"github.com/fairway-project/fairway/promotion"
	"github.com/fairway-project/fairway/workflows"
)

func (w *world) choose(in workflows.ChoosePromotion) workflows.PromotionChoice {
	w.t.Helper()
	var choice workflows.PromotionChoice
	require.NoError(w.t, w.run(w.acts.ChoosePromotion, in, &choice))
	return choice
}

var devToAlpha = workflows.ChoosePromotion{From: "dev", To: "alpha"}

func TestALookAtWhichNothingIsDueIsCheap(t *testing.T) {
	w := newWorld(t)
	w.edge(0).Gates = e2e
	w.soak("dev", 2*time.Hour)
	for _, what := range []string{"alpha has all that has landed on dev.", "has soaked 0s of 1h"} {
		w.life.reset(0)
		choice := w.choose(devToAlpha)
		require.False(t, choice.Go)
		require.Contains(t, choice.Why, what)
		require.ElementsMatch(t, []string{"ls-remote", "query channel/dev", "query channel/alpha"}, w.life.calls)
		w.commit("dev", "Change", files{"cluster/dev.yaml": "new\n"})
		w.soak("dev", 0)
	}
}

func TestWhatIsChosen(t *testing.T) {
	w := newWorld(t)
	candidate := w.commit("dev", "Change", files{"cluster/manifests/a/b.yaml": "kind: ConfigMap\n"})
	w.soak("dev", 2*time.Hour)
	later := w.commit("dev", "Later", files{"cluster/later.yaml": "x\n"})
	w.soak("dev", 0)

	choice := w.choose(devToAlpha)
	require.True(t, choice.Go, choice.Why)
	require.Equal(t, candidate, choice.Candidate.Commit)
	require.Equal(t, promotion.Merge, choice.Mode)
	require.Equal(t, promotion.ManifestsOnly, choice.Class)
	require.Len(t, choice.Waiting, 1, "what landed later soaks")
	require.Len(t, choice.Gates, 1)

	choice = w.choose(workflows.ChoosePromotion{From: "dev", To: "alpha", Now: true})
	require.True(t, choice.Go, choice.Why)
	require.Equal(t, later, choice.Candidate.Commit, "at once means without soak")
	choice = w.choose(workflows.ChoosePromotion{From: "dev", To: "alpha", Candidate: later[:8]})
	require.False(t, choice.Go)

	// The channel's actor need not have heard of what a person asks for.
	unheard := w.commit("dev", "Unheard", files{"cluster/unheard.yaml": "x\n"})
	choice = w.choose(workflows.ChoosePromotion{From: "dev", To: "alpha", Candidate: unheard[:8], Now: true})
	require.True(t, choice.Go, choice.Why)
	require.Equal(t, unheard, choice.Candidate.Commit)
	err := w.run(w.acts.ChoosePromotion, workflows.ChoosePromotion{From: "dev", To: "alpha", Candidate: "0123456"}, nil)
	require.Equal(t, workflows.InvalidInput, typeOf(err))
	err = w.run(w.acts.ChoosePromotion, workflows.ChoosePromotion{From: "alpha", To: "dev"}, nil)
	require.Equal(t, workflows.InvalidInput, typeOf(err))
	require.ErrorContains(t, err, "there are: dev to alpha, alpha to stable")
}

func TestWhyACandidateIsNotPromotedNow(t *testing.T) {
	for name, c := range map[string]struct {
		change func(w *world, candidate string)
		want   string
	}{
		"refused for this edge": {func(w *world, c string) {
			w.actors.channel("alpha").Promotions.Refused = []promotion.Refusal{{From: "dev", Candidate: c}}
		}, "was refused for alpha"},
		"refused for another edge": {func(w *world, c string) {
			w.actors.channel("alpha").Promotions.Refused = []promotion.Refusal{{From: "kube", Candidate: c}}
		}, ""},
		"squashed before": {func(w *world, c string) {
			w.actors.channel("alpha").Promotions.Records = []promotion.Record{{From: "dev", Candidate: c, Outcome: promotion.Merged, PullRequest: 7}}
		}, "Pull request 7 has brought what"},
		"bad":                     {func(w *world, c string) { w.reverted("dev", c, time.Time{}) }, "reverted"},
		"the target was set back": {func(w *world, _ string) { w.reverted("alpha", "x", time.Time{}) }, "Nothing goes into alpha"},
		"no window":               {func(w *world, _ string) { w.edge(0).Windows = sundays }, "it opens at 2026-03-08"},
		"a gate":                  {func(w *world, _ string) { w.edge(0).Gates = e2e }, "has no status fairway/e2e yet"},
		"a block": {func(w *world, _ string) {
			w.blocks = []workflows.Block{{Scope: "fleet", Reason: "we look", By: "anna"}}
		}, "Fleet is blocked by anna (fleet): we look."},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			candidate := w.commit("dev", "Change", files{"cluster/dev.yaml": "new\n"})
			w.soak("dev", 2*time.Hour)
			c.change(w, candidate)
			choice := w.choose(devToAlpha)
			require.Equal(t, c.want == "", choice.Go, choice.Why)
			require.Contains(t, choice.Why, c.want)
		})
	}
}

func TestThePullRequestOfAConflictIsForOnePair(t *testing.T) {
	w := newWorld(t)
	const file = "cluster/manifests/a/a.yaml"
	w.commit("alpha", "Mend alpha", files{file: numbered(map[int]string{3: "alpha"})})
	candidate := w.commit("dev", "Mend dev", files{file: numbered(map[int]string{3: "dev"})})
	w.soak("dev", 2*time.Hour)
	choice := w.choose(devToAlpha)
	require.True(t, choice.Go, "people have to be told: %s", choice.Why)
	require.Contains(t, choice.Why, "in conflict")

	in := w.promotes("dev", "alpha", candidate)
	var record promotion.Record
	require.NoError(t, w.run(w.acts.ReportConflict, in, &record))
	require.Equal(t, promotion.Conflicted, record.Outcome)
	require.Equal(t, 1, record.PullRequest)
	choice = w.choose(devToAlpha)
	require.False(t, choice.Go)
	require.Contains(t, choice.Why, "Pull request 1 is for people to resolve it.")

	require.NoError(t, w.forge.closeAs(1, "anna"))
	require.False(t, w.choose(devToAlpha).Go, "who closes it does not want to see it again")
	require.NoError(t, w.run(w.acts.ReportConflict, in, &record))
	require.Len(t, w.forge.requests, 1)

	moved := w.commit("alpha", "Something else", files{"cluster/else.yaml": "x\n"})
	require.True(t, w.choose(devToAlpha).Go, "it is another pair")
	require.NoError(t, w.run(w.acts.ReportConflict, in, &record))
	require.Equal(t, 2, record.PullRequest)
	require.Contains(t, w.forge.requests[1].Body, moved)
	require.False(t, w.choose(devToAlpha).Go)

	w.commit("dev", "Take what alpha has", files{file: numbered(map[int]string{3: "alpha"})})
	w.soak("dev", 2*time.Hour)
	choice = w.choose(devToAlpha)
	require.True(t, choice.Go, choice.Why)
	require.NoError(t, w.run(w.acts.MergePromotion, w.promotes("dev", "alpha", choice.Candidate.Commit), &record))
	require.Equal(t, promotion.Merged, record.Outcome)
	require.Equal(t, forge.Closed, w.forge.requests[1].State, "the conflict is over")
	require.Empty(t, w.head("fairway/conflict/dev-to-alpha"))
}

func TestAConflictWithoutAForgeWaitsForAPerson(t *testing.T) {
	w := newWorld(t)
	w.acts.Forge = nil
	w.commit("alpha", "Mend alpha", files{"cluster/manifests/a/a.yaml": numbered(map[int]string{3: "alpha"})})
	w.commit("dev", "Mend dev", files{"cluster/manifests/a/a.yaml": numbered(map[int]string{3: "dev"})})
	w.soak("dev", 2*time.Hour)
	choice := w.choose(devToAlpha)
	require.False(t, choice.Go)
	require.Contains(t, choice.Why, "dev and alpha are in conflict in 1 file")
}

func TestAClassThatNeedsAPersonIsPromotedByPullRequest(t *testing.T) {
	for name, c := range map[string]struct {
		path   string
		change func(w *world, candidate string)
		mode   promotion.Mode
		class  promotion.Class
	}{
		"harmless":  {path: "cluster/manifests/a/b.yaml", mode: promotion.Merge, class: promotion.ManifestsOnly},
		"the stack": {path: "cluster/cluster.yaml", mode: promotion.ByPullRequest, class: promotion.ClusterStack},
		"a label": {path: "cluster/manifests/a/b.yaml", mode: promotion.ByPullRequest, class: promotion.Breaking, change: func(w *world, c string) {
			w.forge.of[c] = []forge.PullRequest{{Number: 12, Labels: []string{"Breaking"}}}
		}},
		"labels that nobody can read": {path: "cluster/manifests/a/b.yaml", mode: promotion.ByPullRequest, class: promotion.ManifestsOnly, change: func(w *world, c string) {
			w.forge.down["PullRequestsOf"] = forge.ErrUnreachable
		}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.edge(0).PersonFor = []promotion.Class{promotion.NodesRoll}
			candidate := w.commit("dev", "Change", files{c.path: "kind: ConfigMap\n"})
			w.soak("dev", 2*time.Hour)
			if c.change != nil {
				c.change(w, candidate)
			}
			choice := w.choose(devToAlpha)
			require.True(t, choice.Go, choice.Why)
			require.Equal(t, c.mode, choice.Mode)
			require.Equal(t, c.class, choice.Class)

			// While people take their time the forge is not asked again and again.
			objects := w.objects()
			w.life.reset(0)
			w.now = w.now.Add(time.Minute)
			again := w.choose(devToAlpha)
			require.Equal(t, choice.Mode, again.Mode)
			require.Equal(t, choice.Class, again.Class)
			require.Equal(t, choice.Why, again.Why)
			require.Equal(t, c.mode == promotion.Merge, w.life.count("forge") > 0, "%v", w.life.calls)
			require.Equal(t, objects, w.objects(), "each look tries the same merge")
		})
	}
}

func TestAPullRequestMayBeOpenedWhileNoWindowIsOpen(t *testing.T) {
	w := newWorld(t)
	w.edge(1).Windows = sundays
	w.commit("alpha", "Change", files{"cluster/alpha.yaml": "new\n"})
	w.soak("alpha", 2*time.Hour)
	choice := w.choose(workflows.ChoosePromotion{From: "alpha", To: "stable"})
	require.True(t, choice.Go, choice.Why)
	require.Equal(t, promotion.ByPullRequest, choice.Mode)
	require.Zero(t, w.life.count("forge"), "the class decides nothing here")

	w.acts.Forge = nil
	err := w.run(w.acts.ChoosePromotion, workflows.ChoosePromotion{From: "alpha", To: "stable"}, nil)
	require.Equal(t, workflows.InvalidInput, typeOf(err))
	require.True(t, strings.Contains(err.Error(), "set forge.kind"), err)
}

func TestALookAsksNobodyElseWhileAPromotionIsUnderWay(t *testing.T) {
	w := newWorld(t)
	w.commit("dev", "Change", files{"cluster/a.yaml": "a\n"})
	w.soak("dev", 2*time.Hour)
	in := workflows.ChoosePromotion{From: "dev", To: "alpha", IfIdle: true}
	require.True(t, w.choose(in).Go)
	w.life.reset(0)
	w.actors.running = []string{"promotion/dev-to-alpha"}
	choice := w.choose(in)
	require.False(t, choice.Go)
	require.Equal(t, "A promotion from dev to alpha is under way already.", choice.Why)
	require.Equal(t, []string{"describe promotion/dev-to-alpha"}, w.life.calls)
}
