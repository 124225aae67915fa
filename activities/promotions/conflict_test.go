package promotions

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fairway-project/fairway/forge"
	"github.com/fairway-project/fairway/promotion"
	"github.com/fairway-project/fairway/workflows"
)

const contested = "cluster/manifests/a/a.yaml"

// conflict is a candidate of dev for alpha that both have changed.
func conflict(t *testing.T) (w *world, in workflows.PromotionOf, hotfix string) {
	w = newWorld(t)
	hotfix = w.commit("alpha", "Mend @alpha", files{contested: numbered(map[int]string{3: "alpha"})})
	candidate := w.commit("dev", "Mend dev", files{contested: numbered(map[int]string{3: "dev"})})
	w.soak("dev", 2*time.Hour)
	return w, w.promotes("dev", "alpha", candidate), hotfix
}

func (w *world) reports(in workflows.PromotionOf) promotion.Record {
	w.t.Helper()
	var record promotion.Record
	require.NoError(w.t, w.run(w.acts.ReportConflict, in, &record))
	return record
}

func TestAConflictIsReportedOnceWithFilesAndCommitsOfBothSides(t *testing.T) {
	for at := 1; ; at++ {
		w, in, hotfix := conflict(t)
		w.life.reset(at)
		_ = w.run(w.acts.ReportConflict, in, nil)
		died := w.life.dead
		w.life.reset(0)
		record := w.reports(in)
		require.Equal(t, promotion.Conflicted, record.Outcome)
		require.Len(t, w.forge.requests, 1)
		pr := w.forge.requests[0]
		require.Equal(t, pr.Number, record.PullRequest)
		require.Equal(t, in.Candidate, pr.HeadCommit)
		require.Equal(t, "Resolve the conflict between dev and alpha", pr.Title)
		require.True(t, marked(pr.Body, pair(in.Candidate, hotfix)))
		for _, text := range []string{"- `" + contested + "`", "`dev`: `" + in.Candidate[:12] + "` `Mend dev`, `Anna`", "`alpha`: `" + hotfix[:12] + "` `Mend @alpha`, `Anna`", "git merge origin/alpha"} {
			require.Contains(t, pr.Body, text)
		}
		if !died {
			w.life.reset(0)
			w.reports(in)
			require.Zero(t, w.life.count("forge Edit")+w.life.count("forge Open")+w.life.count("reset"), "nothing is new")
			return
		}
	}
}

func TestThePullRequestOfAConflictFollowsTheChannels(t *testing.T) {
	w, in, _ := conflict(t)
	w.reports(in)
	newer := w.commit("dev", "Mend dev again", files{contested: numbered(map[int]string{3: "dev again"})})
	w.soak("dev", 2*time.Hour)
	in = w.promotes("dev", "alpha", newer)
	require.Equal(t, 1, w.reports(in).PullRequest)
	require.Equal(t, newer, w.head("fairway/conflict/dev-to-alpha"))
	require.True(t, marked(w.forge.requests[0].Body, pair(newer, w.head("alpha"))))

	// Somebody works on it: that is not lost, whatever lands.
	theirs := w.commit("fairway/conflict/dev-to-alpha", "Resolve", files{contested: numbered(map[int]string{3: "both"})}, w.head("alpha"))
	newest := w.commit("dev", "And again", files{contested: numbered(map[int]string{3: "dev for the third time"})})
	w.soak("dev", 2*time.Hour)
	in = w.promotes("dev", "alpha", newest)
	w.reports(in)
	require.Equal(t, theirs, w.head("fairway/conflict/dev-to-alpha"))
	require.Contains(t, w.forge.requests[0].Body, "since somebody has worked on it")

	// They merge it, which promotes what they have resolved.
	pr := w.forge.requests[0]
	pr.HeadCommit = theirs
	merge := w.forge.mergeAs(pr, "ben", "Merge it")
	var record promotion.Record
	require.NoError(t, w.run(w.acts.MergePromotion, w.promotes("dev", "alpha", newer), &record))
	require.Equal(t, promotion.Merged, record.Outcome)
	require.Equal(t, merge, record.Merge)
	require.Empty(t, w.head("fairway/conflict/dev-to-alpha"), "what is merged needs no branch")

	// The newest one is in conflict still, and gets a pull request of its own.
	require.Equal(t, 2, w.reports(in).PullRequest)
	require.Equal(t, newest, w.head("fairway/conflict/dev-to-alpha"))
}

func TestAConflictThatIsOverIsClosed(t *testing.T) {
	w, in, _ := conflict(t)
	w.reports(in)
	w.commit("alpha", "Take what was before", files{contested: numbered(nil)})
	record := w.reports(in)
	require.Equal(t, promotion.Conflicted, record.Outcome)
	require.Contains(t, record.Detail, "The conflict is over")
	require.Equal(t, forge.Closed, w.forge.requests[0].State)

	w.commit("alpha", "Take it by hand", files{contested: numbered(map[int]string{3: "dev"})}, in.Candidate)
	require.Equal(t, promotion.Merged, w.reports(in).Outcome)
	w.acts.Forge = nil
	require.Equal(t, workflows.InvalidInput, typeOf(w.run(w.acts.ReportConflict, in, nil)))
}
