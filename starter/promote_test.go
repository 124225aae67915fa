package main

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/api/common/v1"
	"go.temporal.io/api/failure/v1"
	"go.temporal.io/api/workflow/v1"
	"go.temporal.io/sdk/temporal"

	"github.com/fairway-project/fairway/promotion"
	"github.com/fairway-project/fairway/workflows"
)

// dueForAlpha has a landing of dev that is due for alpha, and one that soaks.
func dueForAlpha(t *testing.T) *fakeTemporal {
	landing := promotion.Landing{Commit: newCommit, Title: "Raise the limits\x1b[31m of CoreDNS\n\nBecause.", Author: "Ann", At: time.Now().Add(-3 * time.Hour), Ran: true}
	soaking := promotion.Soaking{Landing: promotion.Landing{Commit: oldCommit, Title: "Newer", At: time.Now(), Ran: true}, Soaked: 20 * time.Minute, Of: time.Hour}
	rolling := promotion.Soaking{Landing: promotion.Landing{Commit: "77777777", Title: "Newest", At: time.Now()}, Of: time.Hour}
	return &fakeTemporal{t: t, schedules: &fakeSchedules{},
		activities: map[string]any{
			"ChoosePromotion": workflows.PromotionChoice{
				Go: true, Mode: promotion.Merge, Class: promotion.NodesRoll,
				Choice: promotion.Choice{Candidate: &landing, Waiting: []promotion.Soaking{soaking, rolling}, Due: time.Now().Add(40*time.Minute + time.Second)},
				Gates:  []promotion.GateResult{{Name: "e2e", Passed: true, Detail: "Status e2e is success."}, {Name: "errors", Detail: "0.02 is not < 0.01.", Skipped: true}},
			},
			"ReportPromotion": promotion.Report{
				Commits: []promotion.Change{{Commit: newCommit, Title: "Raise the limits", Author: "Ann", PullRequest: 12, Labels: []string{"minor"}}}, Omitted: 3,
				Areas: []promotion.Area{{Name: "node-pools/worker", Files: []string{"cluster/node-pools/worker/stack.yaml"}}},
				Class: promotion.NodesRoll, Why: "cluster/node-pools/worker/stack.yaml", Clusters: []string{"alpha-1", "alpha-2"}, Compare: "https://forge/compare",
			},
		},
		queries: map[string]any{}, running: map[string][]string{}, ends: map[string]any{},
	}
}

var devToAlpha = workflows.PromoteInput{From: "dev", To: "alpha"}

func TestADryRunSaysWhatWouldBePromoted(t *testing.T) {
	f := dueForAlpha(t)
	cmd, _, _ := typed(t)
	in := devToAlpha
	in.Candidate, in.Now, in.SkipGates = "9f2c", true, []string{"errors"}
	plan, err := f.connection().planPromotion(cmd, in, false)
	require.NoError(t, err)
	require.Equal(t, workflows.ChoosePromotion{From: "dev", To: "alpha", Candidate: "9f2c", Now: true, SkipGates: []string{"errors"}}, f.asked["ChoosePromotion"])
	require.Equal(t, newCommit, f.asked["ReportPromotion"].(workflows.PromotionOf).Candidate)
	require.Empty(t, f.begun)
	text := shown(t, func(table *table) { plan.show(table, time.Now()) })
	requireRow(t, text, "Edge:", "dev to alpha, by merge")
	requireRow(t, text, "Candidate:", "9f2c41d3 Raise the limits[31m of CoreDNS, by Ann (landed 3h")
	requireRow(t, text, "Due:", "now")
	requireRow(t, text, "1b7e0055", "0s", "20m of 1h", "-", "Newer")
	requireRow(t, text, "77777777", "0s", "not on every cluster yet")
	requireRow(t, text, "e2e", "yes")
	requireRow(t, text, "errors", "skipped")
	requireRow(t, text, "Carries:", "4 commits")
	requireRow(t, text, "Class:", "nodes: cluster/node-pools/worker/stack.yaml")
	requireRow(t, text, "Clusters:", "2: alpha-1, alpha-2")
	requireRow(t, text, "9f2c41d3", "#12", "Ann", "minor", "Raise the limits")
	requireRow(t, text, "node-pools/worker", "1", "cluster/node-pools/worker/stack.yaml")
	require.Contains(t, text, "3 older ones are not listed.")
	require.Contains(t, text, "Nothing has been changed.")
	require.NotContains(t, text, "\x1b", "a title says nothing to the terminal")
}

func TestADryRunSaysWhyNothingIsDue(t *testing.T) {
	f := dueForAlpha(t)
	choice := f.activities["ChoosePromotion"].(workflows.PromotionChoice)
	choice.Go, choice.Candidate, choice.Gates, choice.Why = false, nil, nil, "The clock of channel dev stands still: dev-3 is not healthy."
	f.activities["ChoosePromotion"] = choice
	f.running["Promote"] = []string{"promotion/dev-to-alpha"}
	f.queries["promotion/dev-to-alpha"] = following
	cmd, _, _ := typed(t)
	plan, err := f.connection().planPromotion(cmd, devToAlpha, true)
	require.NoError(t, err)
	text := shown(t, func(table *table) { plan.show(table, time.Now()) })
	requireRow(t, text, "Candidate:", "none")
	requireRow(t, text, "Due:", "in 40m, if nothing stops the clock")
	requireRow(t, text, "Why:", "The clock of channel dev stands still: dev-3 is not healthy.")
	requireRow(t, text, "Under way:", "following 9f2c41d3 (https://forge/12)")
	require.NotContains(t, f.asked, "ReportPromotion")
}

func TestADryRunSurvivesAForgeThatIsGone(t *testing.T) {
	f := dueForAlpha(t)
	f.activities["ReportPromotion"] = temporal.NewApplicationError("the forge does not answer", workflows.Unreachable)
	cmd, _, _ := typed(t)
	plan, err := f.connection().planPromotion(cmd, devToAlpha, false)
	require.NoError(t, err)
	require.Contains(t, shown(t, func(table *table) { plan.show(table, time.Now()) }), "What it carries is not known: the forge does not answer")
}

func TestADryRunPlansTheClustersOfTheTarget(t *testing.T) {
	f := planned(t)
	due := dueForAlpha(t)
	for name, answer := range due.activities {
		f.activities[name] = answer
	}
	f.activities["ListClusters"] = []workflows.ClusterInfo{{ID: "dev-1", Channel: "alpha"}, {ID: "dev-2", Channel: "alpha"}, {ID: "beta-1", Channel: "beta"}}
	plain := f.activities["PrepareUpdate"]
	f.activities["PrepareUpdate"] = func(in any) any {
		require.Equal(t, newCommit, in.(workflows.PrepareUpdate).Ref)
		if in.(workflows.PrepareUpdate).Cluster == "dev-2" {
			return temporal.NewApplicationError("template cluster.yaml, line 3: no value zone", workflows.InvalidInput)
		}
		return plain
	}
	cmd, _, progress := typed(t)
	plan, err := f.connection().planPromotion(cmd, devToAlpha, true)
	require.NoError(t, err)
	require.Len(t, plan.Plans, 1)
	text := shown(t, func(table *table) { plan.show(table, time.Now()) })
	require.Contains(t, text, "Plan of version 9f2c41d3#aaaaaaaa for cluster dev-1")
	require.Contains(t, text, "what alpha has and dev lacks shows as taken back")
	require.Contains(t, text, "No plan. Cluster dev-2: template cluster.yaml, line 3: no value zone")
	require.Contains(t, progress.String(), "plan the manifests")
}

func TestAMergeIsWaitedFor(t *testing.T) {
	f := dueForAlpha(t)
	f.ends["promotion/dev-to-alpha"] = promotion.Record{
		ID: "dev-to-alpha/9f2c41d3aaaa", From: "dev", To: "alpha", Candidate: newCommit, Title: "Raise the limits", Mode: promotion.Merge, Outcome: promotion.Merged, Merge: oldCommit,
		By: "ann", Reason: "incident", Began: after(0), Ended: after(1), Soaked: 2 * time.Hour,
	}
	cmd, out, _ := typed(t)
	in := devToAlpha
	in.By, in.Reason, in.Now = "ann", "incident", true
	require.NoError(t, (&cli{output: "table"}).promote(cmd, f.connection(), in, false))
	require.Equal(t, []any{in}, f.begun)
	requireRow(t, out.String(), "Promotion:", "dev-to-alpha/9f2c41d3aaaa")
	requireRow(t, out.String(), "Outcome:", "merged")
	requireRow(t, out.String(), "Merge:", "1b7e0055")
	requireRow(t, out.String(), "Asked by:", "ann: incident")
	requireRow(t, out.String(), "Soaked:", "2h")
}

func TestAPromotionThatDidNotArriveIsAFailure(t *testing.T) {
	for _, outcome := range []promotion.Outcome{promotion.Conflicted, promotion.Held, promotion.Refused, promotion.Superseded, promotion.Withdrawn} {
		f := dueForAlpha(t)
		f.ends["promotion/dev-to-alpha"] = promotion.Record{From: "dev", To: "alpha", Outcome: outcome, Detail: "Both sides have changed config-defaults.yaml."}
		cmd, out, _ := typed(t)
		err := (&cli{output: "json"}).promote(cmd, f.connection(), devToAlpha, true)
		require.EqualError(t, err, "the promotion from dev to alpha ended as "+string(outcome)+": Both sides have changed config-defaults.yaml.")
		var record promotion.Record
		require.NoError(t, json.Unmarshal(out.Bytes(), &record))
		require.Equal(t, outcome, record.Outcome)
	}
	f := dueForAlpha(t)
	f.ends["promotion/dev-to-alpha"] = temporal.NewApplicationError("the edge is gone", workflows.InvalidInput)
	cmd, _, _ := typed(t)
	requireStatus(t, exitUsage, (&cli{output: "table"}).promote(cmd, f.connection(), devToAlpha, true))
	f.ends["promotion/dev-to-alpha"] = temporal.NewCanceledError()
	require.ErrorContains(t, (&cli{output: "table"}).promote(cmd, f.connection(), devToAlpha, true), "the promotion was cancelled")
}

// following is a promotion whose pull request waits for people.
var following = workflows.PromotionProgress{Phase: "following", Step: "waits for people and gates", Record: promotion.Record{
	ID: "dev-to-alpha/9f2c41d3aaaa", From: "dev", To: "alpha", Candidate: newCommit, Mode: promotion.ByPullRequest, PullRequest: 12, URL: "https://forge/12", Began: began,
	Workflow: "promotion/dev-to-alpha", Run: "run-1",
}}

func TestAPullRequestIsLeftToPeople(t *testing.T) {
	f := dueForAlpha(t)
	f.queries["promotion/dev-to-alpha"] = following
	cmd, out, progress := typed(t)
	require.NoError(t, (&cli{output: "table"}).promote(cmd, f.connection(), devToAlpha, false))
	require.Contains(t, out.String(), "Pull request #12 for 9f2c41d3 waits for people: https://forge/12")
	require.Contains(t, progress.String(), "phase 3 of 4, following, 9f2c41d3")
}

func TestNothingIsBegunThatIsNotDue(t *testing.T) {
	f := dueForAlpha(t)
	f.activities["ChoosePromotion"] = workflows.PromotionChoice{Choice: promotion.Choice{Why: "It is night."}}
	cmd, out, _ := typed(t)
	require.EqualError(t, (&cli{output: "table"}).promote(cmd, f.connection(), devToAlpha, false), "nothing is promoted from dev to alpha: It is night.")
	requireRow(t, out.String(), "Why:", "It is night.")
	require.Empty(t, f.begun)

	f.activities["ChoosePromotion"] = temporal.NewApplicationError("there is no edge dev to alpha", workflows.InvalidInput)
	requireStatus(t, exitUsage, (&cli{output: "table"}).promote(cmd, f.connection(), devToAlpha, false))
}

func TestASecondPromotionAlongAnEdgeIsRefused(t *testing.T) {
	f := dueForAlpha(t)
	f.running["Promote"] = []string{"promotion/dev-to-alpha"}
	f.queries["promotion/dev-to-alpha"] = following
	cmd, _, _ := typed(t)
	err := (&cli{output: "table"}).promote(cmd, f.connection(), devToAlpha, false)
	requireStatus(t, exitUsage, err)
	require.ErrorContains(t, err, "a promotion from dev to alpha is under way already: following 9f2c41d3 (https://forge/12)")
	_, err = f.connection().startPromotion(t.Context(), devToAlpha)
	requireStatus(t, exitUsage, err)
}

func TestWhatIsNotExplainedIsRefused(t *testing.T) {
	for name, args := range map[string][]string{
		"not waiting":         {"promote", "dev", "alpha", "--now"},
		"skipping a gate":     {"promote", "dev", "alpha", "--skip-gate", "e2e", "--reason", " "},
		"a withdrawal":        {"promotion", "cancel", "dev", "alpha"},
		"a revert":            {"channel", "revert", "alpha", "--to", "3f2a"},
		"a lifted revert":     {"channel", "revert", "alpha", "--lift"},
		"plan, to do it":      {"promote", "dev", "alpha", "--plan"},
		"nothing to wait for": {"promote", "dev", "alpha", "--dry-run", "--wait"},
		"one end only":        {"promote", "dev"},
		"neither":             {"channel", "revert", "alpha", "--reason", "r"},
		"both":                {"channel", "revert", "alpha", "--reason", "r", "--to", "3f2a", "--lift"},
		"no configuration":    {"schedule", "apply"},
		"no limit":            {"promotion", "list", "--limit", "0"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("FAIRWAY_CONFIG", "")
			cmd := root()
			cmd.SetArgs(args)
			requireStatus(t, exitUsage, cmd.ExecuteContext(t.Context()))
		})
	}
}

func TestPromotionsAreListedWithThoseUnderWayFirst(t *testing.T) {
	f := promoted(t)
	list, err := f.connection().promotions(t.Context(), "")
	require.NoError(t, err)
	require.Len(t, list.Promotions, 3, "the one that only has to end yet is listed once")
	text := shown(t, func(table *table) { list.show(table, 2) })
	requireRow(t, text, "dev-to-alpha/9f2c41d3aaaa", "following", "pull-request")
	require.Contains(t, text, "nobody has approved")
	lines := strings.Split(text, "\n")
	require.Equal(t, strings.Index(lines[1], "following"), strings.Index(lines[3], "refused"), "what one waits for does not break the columns:\n%s", text)
	requireRow(t, text, "alpha-to-stable/777777777777", "refused")
	requireRow(t, text, "dev-to-alpha/1b7e0055bbbb", "merged", "merge", "nodes", "4")
	require.Contains(t, text, "2 older ones are not listed")
	require.Contains(t, text, "No worker answered for 1 workflow: channel/beta")

	list, err = f.connection().promotions(t.Context(), "stable")
	require.NoError(t, err)
	require.Len(t, list.Promotions, 1)
	require.Contains(t, shown(t, func(table *table) { promotionList{}.show(table, 0) }), "Nothing has been promoted yet.")
}

// promoted has promotions under way and over.
func promoted(t *testing.T) *fakeTemporal {
	f := dueForAlpha(t)
	merged := promotion.Record{ID: "dev-to-alpha/1b7e0055bbbb", From: "dev", To: "alpha", Candidate: oldCommit, Mode: promotion.Merge, Outcome: promotion.Merged, Class: promotion.NodesRoll,
		Carried: 4, Began: after(0), Ended: after(1), Run: "run-0", Approvals: []string{"ben", "eve"}}
	open := following.Record
	open.Outcome = promotion.Merged
	refused := promotion.Record{ID: "alpha-to-stable/777777777777", From: "alpha", To: "stable", Candidate: "777777777777", Mode: promotion.ByPullRequest, Outcome: promotion.Refused, Began: after(2), Ended: after(9)}
	f.running = map[string][]string{"Promote": {"promotion/dev-to-alpha"}, "Channel": {"channel/alpha", "channel/beta", "channel/stable"}}
	f.queries = map[string]any{
		"promotion/dev-to-alpha": following,
		"channel/alpha":          workflows.ChannelState{Promotions: workflows.ChannelPromotions{Records: []promotion.Record{merged, open}}},
		"channel/beta":           errSilent,
		"channel/stable":         workflows.ChannelState{Promotions: workflows.ChannelPromotions{Records: []promotion.Record{refused}}},
	}
	f.pending = map[string][]*workflow.PendingActivityInfo{"promotion/dev-to-alpha": {{
		ActivityType: &common.ActivityType{Name: "FollowPromotion"}, Attempt: 5, LastFailure: &failure.Failure{Message: "nobody has approved"},
	}}}
	return f
}

func TestAPromotionIsFoundByItsEdgeOrItsID(t *testing.T) {
	list, err := promoted(t).connection().promotions(t.Context(), "")
	require.NoError(t, err)
	for rule, test := range map[string]struct {
		args    []string
		want    string
		problem string
	}{
		"the one under way of an edge":   {[]string{"dev", "alpha"}, "dev-to-alpha/9f2c41d3aaaa", ""},
		"the last one of an edge":        {[]string{"alpha", "stable"}, "alpha-to-stable/777777777777", ""},
		"by its id":                      {[]string{"dev-to-alpha/1b7e0055bbbb"}, "dev-to-alpha/1b7e0055bbbb", ""},
		"by the beginning of its id":     {[]string{"dev-to-alpha/1b7e"}, "dev-to-alpha/1b7e0055bbbb", ""},
		"not by the beginning of a name": {[]string{"dev"}, "", "no promotion dev is known; no worker answered for channel/beta"},
		"not if there are several":       {[]string{"dev-to-alpha/"}, "", "several promotions begin with dev-to-alpha/"},
		"not if there was none":          {[]string{"dev", "stable"}, "", "no promotion from dev to stable is known"},
	} {
		t.Run(rule, func(t *testing.T) {
			found, err := findPromotion(list, test.args)
			require.Equal(t, test.want, found.ID)
			if test.problem != "" {
				require.ErrorContains(t, err, test.problem)
				requireStatus(t, exitUsage, err)
			}
		})
	}
}

func TestWhoeverIsSilentMayKnowAPromotion(t *testing.T) {
	list, err := promoted(t).connection().promotions(t.Context(), "")
	require.NoError(t, err)
	_, err = findPromotion(list, []string{"dev", "beta"})
	requireStatus(t, exitUnreachable, err)
	require.NoError(t, list.failure(), "some have answered")
	requireStatus(t, exitUnreachable, promotionList{Silent: []string{"channel/alpha"}}.failure())
	_, err = findPromotion(promotionList{Silent: []string{"channel/alpha"}}, []string{"dev-to-alpha/1b7e"})
	requireStatus(t, exitUnreachable, err)
}

func TestAPromotionIsDescribedWithWhatItWaitsFor(t *testing.T) {
	f := promoted(t)
	list, err := f.connection().promotions(t.Context(), "")
	require.NoError(t, err)
	found, err := findPromotion(list, []string{"dev", "alpha"})
	require.NoError(t, err)
	cmd, _, _ := typed(t)
	described := describedPromotion{listedPromotion: found}
	described.Report, described.Unreported = f.connection().reportOf(cmd, found.Record)
	text := shown(t, described.show)
	requireRow(t, text, "Edge:", "dev to alpha, by pull request")
	requireRow(t, text, "Pull request:", "#12 https://forge/12")
	requireRow(t, text, "Phase:", "following")
	requireRow(t, text, "Waits for:", "nobody has approved")
	requireRow(t, text, "Carries:", "4 commits")

	found, err = findPromotion(list, []string{"dev-to-alpha/1b7e0055bbbb"})
	require.NoError(t, err)
	text = shown(t, describedPromotion{listedPromotion: found, Unreported: "gone"}.show)
	requireRow(t, text, "Approved by:", "ben, eve")
	require.Contains(t, text, "What it carries is not known: gone")
}

func TestAPromotionIsWithdrawnWithAReason(t *testing.T) {
	f := promoted(t)
	f.ends["promotion/dev-to-alpha"] = promotion.Record{Outcome: promotion.Withdrawn}
	cmd, _, _ := typed(t)
	request := workflows.WithdrawRequest{Reason: "a better one", By: "ann"}
	record, err := f.connection().withdraw(cmd, "dev", "alpha", request)
	require.NoError(t, err)
	require.Equal(t, promotion.Withdrawn, record.Outcome)
	require.Equal(t, map[string]any{workflows.WithdrawName: request}, f.told)
	_, err = f.connection().withdraw(cmd, "alpha", "stable", request)
	requireStatus(t, exitUsage, err)
	require.EqualError(t, err, "no promotion from alpha to stable is under way")
}
