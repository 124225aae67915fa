package promotions

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/temporal"

	"github.com/fairway-project/fairway/forge"
	"github.com/fairway-project/fairway/promotion"
	"github.com/fairway-project/fairway/workflows"
)

// proposal is a candidate of alpha for stable, whose pull request is open.
func proposal(t *testing.T) (*world, workflows.PromotionOf) {
	w := newWorld(t)
	candidate := w.commit("alpha", "Change @everyone `x`", files{"cluster/manifests/a/b.yaml": "kind: ConfigMap\n"})
	w.soak("alpha", 2*time.Hour)
	return w, w.open(w.promotes("alpha", "stable", candidate))
}

func (w *world) open(in workflows.PromotionOf) workflows.PromotionOf {
	w.t.Helper()
	var record promotion.Record
	require.NoError(w.t, w.run(w.acts.OpenPromotion, in, &record))
	require.Empty(w.t, record.Outcome, record.Detail)
	in.Record = record
	return in
}

func (w *world) approve(number int, commit string, users ...string) {
	for _, user := range users {
		w.forge.reviews[number] = append(w.forge.reviews[number], forge.Review{User: user, Commit: commit, State: forge.Approved})
	}
}

// waits is why a promotion is still followed.
func (w *world) waits(in workflows.PromotionOf) string {
	w.t.Helper()
	var record promotion.Record
	err := w.run(w.acts.FollowPromotion, in, &record)
	require.Equal(w.t, workflows.NotYet, typeOf(err), "%v %+v", err, record)
	var typed *temporal.ApplicationError
	require.True(w.t, errors.As(err, &typed))
	require.Equal(w.t, temporal.ApplicationErrorCategoryBenign, typed.Category())
	require.False(w.t, typed.NonRetryable())
	require.Positive(w.t, typed.NextRetryDelay())
	return err.Error()
}

func (w *world) ends(in workflows.PromotionOf, outcome promotion.Outcome) promotion.Record {
	w.t.Helper()
	var record promotion.Record
	require.NoError(w.t, w.run(w.acts.FollowPromotion, in, &record))
	require.Equal(w.t, outcome, record.Outcome, record.Detail)
	require.NotEmpty(w.t, record.Detail)
	return record
}

func TestAPullRequestSaysWhatItCarriesAndMentionsNobody(t *testing.T) {
	w := newWorld(t)
	w.edge(1).PullRequest.Labels, w.edge(1).PullRequest.Reviewers = []string{"promotion"}, []string{"anna"}
	candidate := w.commit("alpha", "Change @everyone `x` fixes #1", files{"cluster/manifests/a/b.yaml": "kind: ConfigMap\n"})
	w.soak("alpha", 2*time.Hour)
	in := w.promotes("alpha", "stable", candidate)
	in.By, in.Reason = "ben", "closes #2"
	in = w.open(in)
	require.Equal(t, 1, in.PullRequest)
	require.Equal(t, "https://forge.example.org/pulls/1", in.URL)
	require.Equal(t, promotion.ManifestsOnly, in.Class)
	require.Equal(t, 1, in.Carried)
	require.Equal(t, 2*time.Hour, in.Soaked)
	branch := "fairway/promote/alpha-to-stable/" + candidate[:12]
	require.Equal(t, candidate, w.head(branch))
	pr := w.forge.requests[0]
	require.Equal(t, "Promote alpha to stable: Change @ everyone `x` fixes # 1", pr.Title)
	require.Equal(t, []string{"promotion"}, pr.Labels)
	outside := "" // of code, in which nobody looks for names and numbers
	for i, each := range strings.Split(pr.Body, "`") {
		if i%2 == 0 {
			outside += each
		}
	}
	require.NotContains(t, outside, "@")
	require.NotContains(t, outside, "#1")
	require.NotContains(t, outside, "#2")
	require.Contains(t, pr.Body, "`manifests/a`: 1 file")
}

func TestThereIsOnePullRequestWhereverTheProcessDies(t *testing.T) {
	for at := 1; ; at++ {
		w := newWorld(t)
		candidate := w.commit("alpha", "Change", files{"cluster/a.yaml": "new\n"})
		w.soak("alpha", 2*time.Hour)
		in := w.promotes("alpha", "stable", candidate)
		w.life.reset(at)
		_ = w.run(w.acts.OpenPromotion, in, nil)
		died := w.life.dead
		w.life.reset(0)
		in = w.open(in)
		require.Len(t, w.forge.requests, 1)
		require.Equal(t, 1, in.PullRequest)

		w.edge(1).PullRequest.Automerge = true
		w.approve(1, candidate, "anna")
		w.life.reset(at)
		_ = w.run(w.acts.FollowPromotion, in, nil)
		died = died || w.life.dead
		w.life.reset(0)
		record := w.ends(in, promotion.Merged)
		require.Equal(t, []string{record.Merge}, w.mergesOf("stable", in.ID))
		require.Equal(t, record.Merge, w.head("stable"))
		require.Empty(t, w.head(pinned(*w.edge(1), candidate)), "its branch is gone")
		if !died {
			require.Greater(t, at, 10)
			return
		}
	}
}

func TestApprovalsThatCount(t *testing.T) {
	for name, c := range map[string]struct {
		needed  *int
		team    string
		reviews func(candidate string) []forge.Review
		merged  bool
		want    string // of the comment
	}{
		"none":            {want: "It waits for 1 approval"},
		"one":             {reviews: func(c string) []forge.Review { return []forge.Review{{User: "anna", Commit: c, State: forge.Approved}} }, merged: true},
		"none are needed": {needed: new(0), merged: true},
		"one of two":      {needed: new(2), reviews: func(c string) []forge.Review { return []forge.Review{{User: "anna", Commit: c, State: forge.Approved}} }, want: "1 of 2, by `anna`"},
		"by the author": {reviews: func(c string) []forge.Review {
			return []forge.Review{{User: "Fairway", Commit: c, State: forge.Approved}}
		}, want: "authors do not approve"},
		"of another head": {reviews: func(string) []forge.Review {
			return []forge.Review{{User: "anna", Commit: strings.Repeat("1", 40), State: forge.Approved}}
		}, want: "it is of `111111111111`"},
		"dismissed": {reviews: func(c string) []forge.Review {
			return []forge.Review{{User: "anna", Commit: c, State: forge.Dismissed}}
		}, want: "It waits for 1 approval"},
		"by a reader": {reviews: func(c string) []forge.Review {
			return []forge.Review{{User: "stranger", Commit: c, State: forge.Approved}}
		}, want: "may not push"},
		"not of the team": {team: "platform", reviews: func(c string) []forge.Review { return []forge.Review{{User: "ben", Commit: c, State: forge.Approved}} }, want: "not in the team `platform`"},
		"of the team":     {team: "platform", reviews: func(c string) []forge.Review { return []forge.Review{{User: "anna", Commit: c, State: forge.Approved}} }, merged: true},
		"of no such team": {team: "nobody", reviews: func(c string) []forge.Review { return []forge.Review{{User: "anna", Commit: c, State: forge.Approved}} }, want: "there is no team `nobody`"},
		"and one rejected": {reviews: func(c string) []forge.Review {
			return []forge.Review{{User: "anna", Commit: c, State: forge.Approved}, {User: "ben", Commit: strings.Repeat("1", 40), State: forge.Rejected}}
		}, want: "Changes are requested by `ben`"},
	} {
		t.Run(name, func(t *testing.T) {
			w, in := proposal(t)
			settings := &w.edge(1).PullRequest
			settings.Automerge, settings.Approvals, settings.Team = true, c.needed, c.team
			w.forge.teams, w.forge.readers = map[string][]string{"platform": {"anna"}}, []string{"stranger"}
			if c.reviews != nil {
				w.forge.reviews[1] = c.reviews(in.Candidate)
			}
			if c.merged {
				record := w.ends(in, promotion.Merged)
				require.Equal(t, w.head("stable"), record.Merge)
				if len(record.Approvals) > 0 {
					require.Contains(t, w.origin.Git("log", "-1", "--format=%B", "stable"), "Fairway-Approved-By: anna")
				}
				return
			}
			w.waits(in)
			require.Contains(t, w.forge.comments[1], c.want)
			require.Zero(t, w.life.count("forge Merge"))
		})
	}
}

func TestAPersonIsNeededWhereTheClassIsWhyThereIsAPullRequest(t *testing.T) {
	w := newWorld(t)
	w.edge(0).PersonFor, w.edge(0).PullRequest = []promotion.Class{promotion.AddOns}, promotion.PullRequest{Approvals: new(0), Automerge: true}
	candidate := w.commit("dev", "Change", files{"cluster/cluster.yaml": "x\n"})
	w.soak("dev", 2*time.Hour)
	in := w.open(w.promotes("dev", "alpha", candidate))
	require.Contains(t, w.waits(in), "It waits for 1 approval")
	w.approve(1, candidate, "anna")
	w.ends(in, promotion.Merged)
}

func TestTheCommentChangesOnlyWithWhatItSays(t *testing.T) {
	w, in := proposal(t)
	w.edge(1).Gates = e2e
	w.waits(in)
	w.now = w.now.Add(time.Minute)
	w.waits(in)
	require.Equal(t, 1, w.forge.edits)
	require.Contains(t, w.forge.comments[1], "gate `e2e` | `the candidate has no status fairway/e2e yet`")
	w.forge.statuses[in.Candidate] = []forge.Status{{Context: "fairway/e2e", State: forge.Success}}
	w.waits(in)
	require.Equal(t, 2, w.forge.edits)
	w.approve(1, in.Candidate, "anna")
	require.Contains(t, w.waits(in), "It is approved, and nothing is missing: a person merges it.")
	require.Equal(t, 3, w.forge.edits)
}

func TestWhatFairwayDoesNotMergeThoughItIsApproved(t *testing.T) {
	for name, c := range map[string]struct {
		change func(w *world, in *workflows.PromotionOf)
		want   string
	}{
		"another head": {func(w *world, in *workflows.PromotionOf) {
			w.commit(pinned(*w.edge(1), in.Candidate), "Sneak in", files{"x": "y"})
		}, "Somebody has moved the branch to"},
		"another base": {func(w *world, _ *workflows.PromotionOf) { w.forge.requests[0].Base = "dev" }, "Somebody has turned the pull request to dev"},
		"a draft":      {func(w *world, _ *workflows.PromotionOf) { w.forge.requests[0].Draft = true }, "It is a draft."},
		"no window":    {func(w *world, _ *workflows.PromotionOf) { w.edge(1).Windows = sundays }, "It waits for a window."},
		"a gate":       {func(w *world, _ *workflows.PromotionOf) { w.edge(1).Gates = e2e }, "It waits for its gates."},
		"a block": {func(w *world, _ *workflows.PromotionOf) {
			w.blocks = []workflows.Block{{Scope: "fleet", Reason: "we look", By: "anna"}}
		}, "It is blocked."},
		"a revert":      {func(w *world, _ *workflows.PromotionOf) { w.reverted("stable", "x", time.Time{}) }, "was set back"},
		"silent actors": {func(w *world, _ *workflows.PromotionOf) { w.actors.down["stable"] = true }, "does not say what it knows"},
		"silent blocks": {func(w *world, _ *workflows.PromotionOf) { w.silent = true }, "no answer"},
		"the forge's own": {func(w *world, _ *workflows.PromotionOf) {
			w.forge.protects = "not all required status checks successful"
		}, "not all required status checks successful"},
		"a forge down":   {func(w *world, _ *workflows.PromotionOf) { w.forge.down[""] = forge.ErrUnreachable }, "does not answer"},
		"refused access": {func(w *world, _ *workflows.PromotionOf) { w.forge.down[""] = forge.ErrRefused }, "refuses access"},
		"a lost branch":  {func(w *world, _ *workflows.PromotionOf) { w.origin.Git("update-ref", "-d", "refs/heads/stable") }, "no branch"},
		"a conflict": {func(w *world, _ *workflows.PromotionOf) {
			w.commit("stable", "Mend", files{"cluster/manifests/a/b.yaml": "kind: Secret\n"})
		}, "in conflict"},
	} {
		t.Run(name, func(t *testing.T) {
			w, in := proposal(t)
			w.edge(1).PullRequest.Automerge = true
			w.approve(1, in.Candidate, "anna")
			before := w.head("stable")
			c.change(w, &in)
			require.Contains(t, w.waits(in), c.want)
			require.NotEqual(t, forge.Merged, w.forge.requests[0].State)
			if name != "a conflict" && name != "a lost branch" {
				require.Equal(t, before, w.head("stable"))
			}
		})
	}
}

func TestALimitedForgeIsLeftAloneUntilItSaysSo(t *testing.T) {
	w, in := proposal(t)
	w.forge.down["PullRequest"] = fmt.Errorf("reading: %w", &forge.LimitedError{Until: time.Now().Add(20 * time.Minute), Err: forge.ErrUnreachable})
	err := w.run(w.acts.FollowPromotion, in, nil)
	var typed *temporal.ApplicationError
	require.True(t, errors.As(err, &typed))
	require.Equal(t, workflows.NotYet, typed.Type())
	require.InDelta(t, 20*time.Minute, typed.NextRetryDelay(), float64(time.Minute))
	w.forge.down["FindPullRequest"] = w.forge.down["PullRequest"]
	err = w.run(w.acts.OpenPromotion, in, nil)
	require.True(t, errors.As(err, &typed))
	require.Equal(t, workflows.Unreachable, typed.Type())
	require.Equal(t, temporal.ApplicationErrorCategoryBenign, typed.Category())
	require.InDelta(t, 20*time.Minute, typed.NextRetryDelay(), float64(time.Minute))
}

func TestAPersonEndsAPullRequest(t *testing.T) {
	t.Run("by merging it", func(t *testing.T) {
		w, in := proposal(t)
		w.approve(1, in.Candidate, "anna")
		merge := w.forge.mergeAs(w.forge.requests[0], "ben", "Merge it")
		record := w.ends(in, promotion.Merged)
		require.Equal(t, merge, record.Merge)
		require.Equal(t, "ben", record.MergedBy)
		require.Equal(t, []string{"anna"}, record.Approvals)
		require.Empty(t, w.head(pinned(*w.edge(1), in.Candidate)))
	})
	t.Run("by merging it by hand", func(t *testing.T) {
		w, in := proposal(t)
		merge := w.commit("stable", "Merge by hand", files{"cluster/manifests/a/b.yaml": "kind: ConfigMap\n"}, in.Candidate)
		record := w.ends(in, promotion.Merged)
		require.Equal(t, merge, record.Merge)
		require.Equal(t, forge.Closed, w.forge.requests[0].State)
	})
	t.Run("by squashing it", func(t *testing.T) {
		w, in := proposal(t)
		squashed := w.commit("stable", "Squashed", files{"cluster/manifests/a/b.yaml": "kind: ConfigMap\n"})
		pr := w.forge.requests[0]
		pr.State, pr.Merge, pr.MergedBy = forge.Merged, squashed, "ben"
		record := w.ends(in, promotion.Merged)
		require.Equal(t, squashed, record.Merge)
		require.Contains(t, record.Detail, "squashing")
		require.NoError(t, w.run(w.acts.RecordPromotion, record, nil))
		require.False(t, w.choose(workflows.ChoosePromotion{From: "alpha", To: "stable"}).Go, "it is not promoted again and again")
	})
	t.Run("by merging it into another branch", func(t *testing.T) {
		w, in := proposal(t)
		pr := w.forge.requests[0]
		pr.Base = "dev"
		w.forge.mergeAs(pr, "ben", "Merge it")
		require.Contains(t, w.ends(in, promotion.Withdrawn).Detail, "into dev instead")
	})
	t.Run("by closing it", func(t *testing.T) {
		w, in := proposal(t)
		w.waits(in)
		require.NoError(t, w.forge.closeAs(1, "ben"))
		require.Equal(t, "Pull request 1 was closed by ben.", w.ends(in, promotion.Refused).Detail)
		require.Empty(t, w.head(pinned(*w.edge(1), in.Candidate)))

		// Neither an attempt that comes late nor a worker that has forgotten opens it again.
		var record promotion.Record
		require.NoError(t, w.run(w.acts.OpenPromotion, w.promotes("alpha", "stable", in.Candidate), &record))
		require.Equal(t, promotion.Refused, record.Outcome)
		require.Len(t, w.forge.requests, 1)

		// A person who asks for it again gets another one.
		again := w.promotes("alpha", "stable", in.Candidate)
		again.By, again.Began = "anna", w.now.Add(time.Hour)
		require.Equal(t, 2, w.open(again).PullRequest)
	})
	t.Run("as if Fairway had", func(t *testing.T) {
		w, in := proposal(t)
		w.waits(in)
		w.forge.requests[0].Body += "\n<!-- fairway:withdrawn -->\n"
		require.NoError(t, w.forge.closeAs(1, "ben"))
		w.ends(in, promotion.Refused)
	})
}

func TestANewerCandidateTakesThePlaceOnlyAsConfigured(t *testing.T) {
	for name, c := range map[string]struct {
		supersede promotion.Supersede
		approved  bool
		gated     bool
		want      promotion.Outcome // empty: it goes on
	}{
		"never":                    {promotion.Never, false, false, ""},
		"by default":               {"", false, false, ""},
		"unapproved":               {promotion.Unapproved, false, false, promotion.Superseded},
		"unapproved, but it is":    {promotion.Unapproved, true, false, ""},
		"always":                   {promotion.Always, true, false, promotion.Superseded},
		"by one with closed gates": {promotion.Always, true, true, ""},
	} {
		t.Run(name, func(t *testing.T) {
			w, in := proposal(t)
			w.edge(1).PullRequest.Supersede = c.supersede
			if c.approved {
				w.approve(1, in.Candidate, "anna")
			}
			newer := w.commit("alpha", "Newer", files{"cluster/newer.yaml": "x\n"})
			w.soak("alpha", 2*time.Hour)
			if c.gated {
				w.edge(1).Gates = e2e
			}
			if c.want == "" {
				w.waits(in)
				require.Equal(t, forge.Open, w.forge.requests[0].State)
				return
			}
			w.ends(in, c.want)
			require.Equal(t, forge.Closed, w.forge.requests[0].State)
			require.Contains(t, w.forge.comments[1], newer[:12])
			require.True(t, marked(w.forge.comments[1], supersededMarker))
			w.ends(in, c.want) // once more, after the process has died
			next := w.open(w.promotes("alpha", "stable", newer))
			require.Equal(t, 2, next.PullRequest)
			require.Empty(t, w.head(pinned(*w.edge(1), in.Candidate)))
		})
	}
}

func TestWhatIsWithdrawnByItself(t *testing.T) {
	for name, change := range map[string]func(w *world, candidate string){
		"the candidate is bad": func(w *world, c string) { w.reverted("alpha", c, time.Time{}) },
		"the edge is gone":     func(w *world, _ string) { w.acts.Pipeline.Edges = w.acts.Pipeline.Edges[:1] },
	} {
		t.Run(name, func(t *testing.T) {
			w, in := proposal(t)
			w.edge(1).PullRequest.Automerge = true
			w.approve(1, in.Candidate, "anna")
			change(w, in.Candidate)
			w.ends(in, promotion.Withdrawn)
			require.Equal(t, forge.Closed, w.forge.requests[0].State)
			require.True(t, marked(w.forge.comments[1], withdrawnMarker))
			require.Empty(t, w.origin.Git("for-each-ref", "refs/heads/fairway"))
		})
	}
}

func TestAPromotionIsWithdrawn(t *testing.T) {
	w, in := proposal(t)
	require.NoError(t, w.run(w.acts.WithdrawPromotion, in, nil))
	require.NoError(t, w.run(w.acts.WithdrawPromotion, in, nil), "twice is fine")
	require.Equal(t, forge.Closed, w.forge.requests[0].State)
	require.Empty(t, w.origin.Git("for-each-ref", "refs/heads/fairway"))
	require.Equal(t, 2, w.open(w.promotes("alpha", "stable", in.Candidate)).PullRequest, "what Fairway has closed itself is no refusal")

	never := w.promotes("dev", "alpha", w.head("dev"))
	require.NoError(t, w.run(w.acts.WithdrawPromotion, never, nil), "nothing was opened")

	w, in = proposal(t)
	sneaked := w.commit(pinned(*w.edge(1), in.Candidate), "Work", files{"x": "y"})
	require.NoError(t, w.run(w.acts.WithdrawPromotion, in, nil))
	require.Equal(t, sneaked, w.head(pinned(*w.edge(1), in.Candidate)), "what somebody has done there is not lost")
}

func TestOpeningWhatIsThereOrInConflict(t *testing.T) {
	w, in := proposal(t)
	w.forge.mergeAs(w.forge.requests[0], "ben", "Merge it")
	var record promotion.Record
	require.NoError(t, w.run(w.acts.OpenPromotion, w.promotes("alpha", "stable", in.Candidate), &record))
	require.Equal(t, promotion.Merged, record.Outcome)

	w.commit("stable", "Mend stable", files{"cluster/manifests/a/a.yaml": numbered(map[int]string{3: "stable"})})
	candidate := w.commit("alpha", "Mend alpha", files{"cluster/manifests/a/a.yaml": numbered(map[int]string{3: "alpha"})})
	require.NoError(t, w.run(w.acts.OpenPromotion, w.promotes("alpha", "stable", candidate), &record))
	require.Equal(t, promotion.Conflicted, record.Outcome)
	require.Len(t, w.forge.requests, 1)

	candidate = w.commit("dev", "Change", files{"cluster/dev.yaml": "x\n"})
	w.commit("fairway/promote/dev-to-alpha/"+candidate[:12], "Somebody's", files{"x": "y"})
	err := w.run(w.acts.OpenPromotion, w.promotes("dev", "alpha", candidate), nil)
	require.Equal(t, workflows.InvalidInput, typeOf(err))
	w.acts.Forge = nil
	require.ErrorContains(t, w.run(w.acts.FollowPromotion, in, nil), "set forge.kind")
}
