package promotions

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fairway-project/fairway/forge"
	"github.com/fairway-project/fairway/promotion"
	"github.com/fairway-project/fairway/prose"
	"github.com/fairway-project/fairway/workflows"
)

func (w *world) report(candidate string) promotion.Report {
	w.t.Helper()
	var report promotion.Report
	require.NoError(w.t, w.run(w.acts.ReportPromotion, w.promotes("dev", "alpha", candidate), &report))
	return report
}

func TestAReportSaysWhatAPromotionCarriesAndTouches(t *testing.T) {
	w := newWorld(t)
	w.origin.Git("update-ref", "refs/heads/feature", w.head("dev"))
	fix := w.commit("feature", "Fix\x1b[31m it", files{"cluster/node-pools/worker/userdata.yaml": "x\n"})
	tested := w.commit("feature", "Test it", files{"docs/test.md": "x\n"})
	merge := w.commit("dev", "Merge pull request #7", files{"cluster/node-pools/worker/userdata.yaml": "x\n", "docs/test.md": "x\n"}, tested)
	pushed := w.commit("dev", "Pushed", files{"cluster/manifests/a/b.yaml": "kind: ConfigMap\n"})
	candidate := w.commit("dev", "Squashed", files{"cluster/manifests/a/c.yaml": "kind: ConfigMap\n"})
	w.commit("dev", "Later", files{"cluster/cluster.yaml": "x\n"})
	w.forge.of[merge] = []forge.PullRequest{{Number: 7, URL: "https://forge.example.org/pulls/7", Labels: []string{"minor"}}}
	w.forge.of[candidate] = []forge.PullRequest{{Number: 9}}

	report := w.report(candidate)
	require.Equal(t, []promotion.Change{
		{Commit: candidate, Title: "Squashed", Author: "Anna", PullRequest: 9},
		{Commit: pushed, Title: "Pushed", Author: "Anna"},
		{Commit: tested, Title: "Test it", Author: "Anna", PullRequest: 7, URL: "https://forge.example.org/pulls/7", Labels: []string{"minor"}},
		{Commit: fix, Title: "Fix [31m it", Author: "Anna", PullRequest: 7, URL: "https://forge.example.org/pulls/7", Labels: []string{"minor"}},
	}, report.Commits)
	require.Equal(t, promotion.NodesRoll, report.Class)
	require.Contains(t, report.Why, "cluster/node-pools/worker/userdata.yaml")
	require.Equal(t, []string{"a-1", "a-2"}, report.Clusters, "those that are decommissioned are touched no more")
	require.Equal(t, "https://forge.example.org/compare/alpha..."+candidate, report.Compare)
	var areas []string
	for _, area := range report.Areas {
		areas = append(areas, area.Name)
	}
	require.Contains(t, areas, "manifests/a")
	require.Contains(t, areas, "node-pools/worker")

	w.forge.down["PullRequestsOf"] = &forge.LimitedError{Until: time.Now().Add(time.Hour), Err: forge.ErrUnreachable}
	w.life.reset(0)
	report = w.report(candidate)
	require.Len(t, report.Commits, 4, "a forge that is down costs only what it knows")
	require.Contains(t, report.Why, "could not all be read")
	require.LessOrEqual(t, w.life.count("forge PullRequestsOf"), askedAtOnce, "who asks to wait is not asked on")
	w.acts.Forge = nil
	report = w.report(candidate)
	require.Empty(t, report.Compare)
	require.Zero(t, report.Commits[3].PullRequest)
}

func TestAReportAsksTheForgeForFewOfManyCommits(t *testing.T) {
	w := newWorld(t)
	many := "reset refs/heads/dev\nfrom " + w.head("dev") + "\n"
	for i := range mostListed + 5 {
		many += fmt.Sprintf("commit refs/heads/dev\ncommitter Anna <anna@example.org> %d +0000\ndata 6\nChange\nM 100644 inline docs/x.md\ndata 3\n%03d\n", began.Unix()+int64(i)+10, i)
	}
	w.origin.GitWith(many, "fast-import", "--quiet", "--force")
	candidate := w.head("dev")
	w.life.reset(0)
	report := w.report(candidate)
	require.Len(t, report.Commits, mostListed)
	require.Equal(t, 5, report.Omitted)
	require.Equal(t, mostAsked, w.life.count("forge PullRequestsOf"))
	require.Contains(t, report.Why, "The labels of 55 further commits were not read.")

	w.edge(0).PersonFor = []promotion.Class{promotion.Breaking}
	w.soak("dev", 2*time.Hour)
	require.Equal(t, promotion.ByPullRequest, w.choose(devToAlpha).Mode, "one of them may be labelled")
}

func TestWhatEarlierChannelsLack(t *testing.T) {
	w := newWorld(t)
	fix := w.commit("stable", "Mend stable", files{"cluster/fix.yaml": "x\n"})
	both := w.commit("stable", "Mend all", files{"cluster/both.yaml": "y\n"})
	w.commit("dev", "Mend all, too", files{"cluster/both.yaml": "y\n"})
	var lacking []workflows.Lacking
	require.NoError(t, w.run(w.acts.ListLacking, workflows.ListLacking{Channel: "stable"}, &lacking))
	var found []string
	for _, each := range lacking {
		found = append(found, each.Missing+" "+each.Commit)
	}
	require.Equal(t, []string{"alpha " + both, "alpha " + fix, "dev " + fix}, found, "equal content counts as present")
	require.NoError(t, w.run(w.acts.ListLacking, workflows.ListLacking{Channel: "dev"}, &lacking))
	require.Empty(t, lacking)
	require.NoError(t, w.run(w.acts.ListLacking, workflows.ListLacking{Channel: "feature/x"}, &lacking), "what is no part of the pipeline has nothing before it")
}

func TestAPromotionIsRecordedWithTheTargetsActor(t *testing.T) {
	w := newWorld(t)
	record := w.promotes("dev", "alpha", w.head("dev")).Record
	record.Outcome = promotion.Merged
	require.NoError(t, w.run(w.acts.RecordPromotion, record, nil))
	require.NoError(t, w.run(w.acts.RecordPromotion, record, nil))
	require.Len(t, w.actors.channel("alpha").Promotions.Records, 1)
	require.Equal(t, workflows.InvalidInput, typeOf(w.run(w.acts.RecordPromotion, promotion.Record{}, nil)))
}

func TestTextsOfOthersAreHarmless(t *testing.T) {
	require.Equal(t, "fixes # 12 by @ anna, GH- 3, https: //x", prose.Plain("fixes #12\nby @anna,\tGH-3, https://x", 100))
	require.Equal(t, "`a'b @anna`", prose.Code("a`b\x1b @anna\u202e", 100))
	require.Equal(t, "`abc ...`", prose.Code("abcdef", 3))
	require.Equal(t, "(nothing)", prose.Code("\n", 3))
	require.False(t, marked("text <!-- fairway:withdrawn -->", withdrawnMarker), "only on a line of its own")
	require.True(t, marked("x\r\n<!-- fairway:withdrawn -->\r\ny", withdrawnMarker))
	require.False(t, marked(status(view{headline: prose.Code("x\n<!-- fairway:withdrawn -->\n", 100)}), withdrawnMarker))
}
