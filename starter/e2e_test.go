package main

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"

	"github.com/fairway-project/fairway/e2e"
	"github.com/fairway-project/fairway/workflows"
)

const (
	headA = "aaaaaaaa11111111222222223333333344444444"
	headB = "bbbbbbbb11111111222222223333333344444444"
	headC = "cccccccc11111111222222223333333344444444"
)

func requestOf(number int, head string) e2e.Request {
	request := e2e.Request{ID: head, Cluster: "e2e-0-" + head[:8], Channel: "dev", Base: newCommit, Head: head}
	if number > 0 {
		request.ID, request.Number, request.Author, request.Title = numberText(number)[1:]+"/"+head, number, "anna", "Upgrade CoreDNS"
	}
	return request
}

func TestTestsAreListedWithQueueAndPlaces(t *testing.T) {
	account := e2e.Account{Account: "aws:123456789012", Region: "eu-central-1", Limit: 1}
	under, queued, silent, past := requestOf(12, headA), requestOf(14, headB), requestOf(15, headC), requestOf(12, headC)
	f := &fakeTemporal{t: t, running: map[string][]string{"TestPullRequest": {workflows.TestID(queued.ID), workflows.TestID(under.ID)}},
		over: map[string][]string{"TestPullRequest": {workflows.TestID(past.ID)}},
		queries: map[string]any{
			workflows.TestQueueID: workflows.TestQueueState{Accounts: []e2e.Account{account}, Entries: []workflows.TestQueueEntry{
				{Request: under, Given: &account}, {Request: queued}, {Request: silent, Since: time.Now().Add(-time.Hour)},
			}},
			workflows.TestID(under.ID):  e2e.Report{Request: under, Phase: e2e.Upgrading, Phases: []e2e.PhaseTime{{Phase: e2e.Upgrading, Began: time.Now().Add(-5 * time.Minute)}}},
			workflows.TestID(queued.ID): e2e.Report{Request: queued, Phase: e2e.Queued, Place: 2},
			workflows.TestID(past.ID):   e2e.Report{Request: past, Phase: e2e.Done, Verdict: e2e.Failed},
		}}
	result, err := f.connection().tests(t.Context(), 20)
	require.NoError(t, err)
	text := shown(t, result.show)
	lines := strings.Split(text, "\n")
	requireRow(t, lines[1], "12/aaaaaaaa", "#12", "upgrading", "-", "-", "5m")
	requireRow(t, text, "14/bbbbbbbb", "#14", "queued", "2")
	requireRow(t, text, "15/cccccccc", "#15", "queued")
	requireRow(t, lines[4], "12/cccccccc", "#12", "done", "-", "failed")
	require.Contains(t, text, "Account aws:123456789012 in eu-central-1: 1 of 1 places taken.")
	require.Contains(t, text, "No worker answered for 1 workflow: e2e/15/"+headC)

	f = &fakeTemporal{t: t, queries: map[string]any{workflows.TestQueueID: errSilent}}
	result, err = f.connection().tests(t.Context(), 20)
	require.NoError(t, err)
	require.Equal(t, []string{workflows.TestQueueID}, result.Silent)
	require.Contains(t, shown(t, result.show), "There are no tests")
}

func TestATestIsMeantByIDPrefixOrPullRequest(t *testing.T) {
	running, completed := enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING, enumspb.WORKFLOW_EXECUTION_STATUS_COMPLETED
	seen := []seenTest{{id: "12/" + headB, status: running}, {id: "12/" + headA, status: completed}, {id: "1/" + headA, status: completed}, {id: headC, status: completed}, {id: "cccccccc2222", status: completed}}
	for name, want := range map[string]string{
		"12": "12/" + headB, "#12": "12/" + headB, "1": "1/" + headA, "12/aaaa": "12/" + headA, "e2e/12/aaaa": "12/" + headA, "cccccccc1": headC, headC: headC,
	} {
		found, err := chooseTest(seen, name)
		require.NoError(t, err, name)
		require.Equal(t, want, found.id, name)
	}
	for name, want := range map[string]string{"": "no test", "13": `no test "13" is known`, "cccc": "several tests begin with cccc", "12/": "several tests begin with 12/"} {
		_, err := chooseTest(seen, name)
		require.ErrorContains(t, err, want)
		requireStatus(t, exitUsage, err)
	}
}

func TestATestIsDescribed(t *testing.T) {
	request := requestOf(12, headA)
	report := e2e.Report{
		Request: request, Phase: e2e.Kept, Verdict: e2e.Failed, Problem: "Suite smoke has failed.", Kept: time.Now().Add(time.Hour), Results: "s3://bucket/e2e/12",
		Phases:  []e2e.PhaseTime{{Phase: e2e.Creating, Began: began, Ended: after(2)}},
		Upgrade: e2e.Upgrade{Nodes: 3, Evictions: 12, Forced: []string{"shop/db-0"}, Violations: []e2e.Violation{{Budget: "shop/db", Healthy: 1, Desired: 2}}},
		Load:    e2e.LoadResult{Good: 998, Bad: 2, Problem: "2 of 1000 requests failed"},
		Cost:    e2e.Cost{Amount: 1.5, Currency: "USD", Hours: 3, Unpriced: []string{"x1.huge"}},
		Suites: []e2e.SuiteResult{
			{Name: "conformance", Passed: true, Ran: 73, Flaky: []string{"a"}, Took: time.Hour, Results: "s3://bucket/e2e/12/conformance"},
			{Name: "smoke", Ran: 4, Failed: 1, Failures: []e2e.Failure{{Case: "Deployment shop/web", Message: "\x1b[31mis not ready\nfor long"}}},
		},
	}
	text := shown(t, func(table *table) { showTest(table, listedTest{Report: report}, []string{"one thing"}) })
	requireRow(t, text, "Pull request:", "#12 Upgrade CoreDNS")
	requireRow(t, text, "Verdict:", "failed")
	requireRow(t, text, "Cost:", "about 1.50 USD for 3.0 hours of instances, without x1.huge")
	requireRow(t, text, "creating", began.Local().Format(time.DateTime), "2m")
	requireRow(t, text, "conformance", "passed", "73", "0", "1", "1h")
	requireRow(t, text, "smoke", "failed", "4", "1")
	require.Contains(t, text, "The upgrade replaced 3 nodes: 12 evictions, 1 forced, 1 budget broken.")
	require.Contains(t, text, "smoke: Deployment shop/web: [31mis not ready\n", "what a terminal would obey is left out")
	require.Contains(t, text, "The load had 2 bad answers of 1000.")

	files, err := filesOf(report, "")
	require.NoError(t, err)
	require.Equal(t, []whereFiles{{"the test", "s3://bucket/e2e/12"}, {"conformance", "s3://bucket/e2e/12/conformance"}}, files)
	files, err = filesOf(report, "conformance")
	require.NoError(t, err)
	require.Len(t, files, 1)
	_, err = filesOf(report, "nonsense")
	requireStatus(t, exitUsage, err)
	_, err = filesOf(e2e.Report{Phase: e2e.Creating}, "")
	require.ErrorContains(t, err, "has stored no files; its phase is creating")
}

func TestATestThatWasTerminatedIsNotShownAsGoingOn(t *testing.T) {
	report := e2e.Report{Request: requestOf(12, headA), Phase: e2e.Creating, Phases: []e2e.PhaseTime{{Phase: e2e.Creating, Began: began}}}
	terminated := listedTest{Report: report, Over: true, Status: "terminated", Since: after(3)}
	require.Equal(t, "terminated while creating", terminated.phase())
	text := shown(t, func(table *table) { showTest(table, terminated, nil) })
	requireRow(t, text, "creating", began.Local().Format(time.DateTime), "3m, then it was terminated")
	require.NotContains(t, text, "so far")
	report.Phase = e2e.Done
	require.Equal(t, e2e.Done, listedTest{Report: report, Over: true, Status: "canceled"}.phase())
}

func TestWhatIsTestedIsToldByFlags(t *testing.T) {
	for ref, want := range map[string][2]string{"dev..my-branch": {"dev", "my-branch"}, "team/dev.." + headA: {"team/dev", headA}} {
		var in workflows.ResolveTest
		require.NoError(t, whatToTest(&in, ref, false))
		require.Equal(t, want, [2]string{in.Base, in.Head})
	}
	for _, ref := range []string{"", "dev", "dev..", "..head", "dev...head", "a..b..c"} {
		requireStatus(t, exitUsage, whatToTest(&workflows.ResolveTest{}, ref, false))
	}
	requireStatus(t, exitUsage, whatToTest(&workflows.ResolveTest{}, "", true))
	requireStatus(t, exitUsage, whatToTest(&workflows.ResolveTest{Number: 1, Keep: -time.Hour}, "", true))
	require.NoError(t, whatToTest(&workflows.ResolveTest{Number: 1}, "", true))
}

func TestATestIsRunByHand(t *testing.T) {
	request := requestOf(12, headA)
	f := &fakeTemporal{t: t, activities: map[string]any{"ResolveTest": request}, ends: map[string]any{"e2e/run/12": request}, queries: map[string]any{}}
	in := workflows.ResolveTest{Number: 12, By: "ben"}
	c := &cli{output: "table"}

	cmd, out, _ := typed(t)
	require.NoError(t, c.runTest(cmd, f.connection(), in, true, false, false))
	require.Empty(t, f.begun, "a dry run starts nothing")
	require.Contains(t, out.String(), "Nothing has been started.")

	requireStatus(t, exitUsage, c.runTest(cmd, f.connection(), in, false, false, false)) // nobody is there to confirm it
	require.Empty(t, f.begun)

	cmd, out, _ = typed(t)
	require.NoError(t, c.runTest(cmd, f.connection(), in, false, false, true))
	agreed := in
	agreed.Commit = headA
	require.Equal(t, []any{agreed}, f.begun, "what is pushed since is refused")
	require.Contains(t, out.String(), "The test has begun; `fairway e2e describe 12/aaaaaaaa` shows how far it is.")

	for verdict, want := range map[e2e.Verdict]string{e2e.Passed: "", e2e.Failed: "the test has failed: It is broken.", e2e.Cancelled: "the test was cancelled: It is broken.", "": "without a verdict"} {
		report := e2e.Report{Request: request, Phase: e2e.Done, Verdict: verdict, Problem: "It is broken."}
		f.queries[workflows.TestID(request.ID)], f.ends[workflows.TestID(request.ID)] = report, report
		cmd, out, _ = typed(t)
		err := c.runTest(cmd, f.connection(), in, false, true, true)
		if want == "" {
			require.NoError(t, err)
		} else {
			require.ErrorContains(t, err, want)
		}
		requireRow(t, out.String(), "Phase:", "done")
	}

	delete(f.ends, workflows.TestID(request.ID)) // it goes on
	f.queries[workflows.TestID(request.ID)] = e2e.Report{Request: request, Phase: e2e.Kept, Verdict: e2e.Failed, Problem: "It is broken."}
	cmd, _, _ = typed(t)
	require.ErrorContains(t, c.runTest(cmd, f.connection(), in, false, true, true), "the test has failed", "a cluster that is kept is not waited for")

	f.running = map[string][]string{"TestPullRequest": {workflows.TestID(request.ID)}}
	err := c.runTest(cmd, f.connection(), in, false, false, true)
	requireStatus(t, exitUsage, err)
	require.ErrorContains(t, err, "is under way already")

	f.activities["ResolveTest"] = temporal.NewApplicationError("unable to find activityType", notRegistered)
	err = c.runTest(cmd, f.connection(), in, false, false, true)
	requireStatus(t, exitUsage, err)
	require.ErrorContains(t, err, "e2e.accounts is empty")
}

// fakeUpdate is an update of a workflow, with its answer.
type fakeUpdate struct {
	client.WorkflowUpdateHandle
	answer any
}

func (u fakeUpdate) Get(_ context.Context, out any) error { return into(u.answer, out) }

func (f *fakeTemporal) UpdateWorkflow(_ context.Context, options client.UpdateWorkflowOptions) (client.WorkflowUpdateHandle, error) {
	f.told = map[string]any{options.UpdateName: options.Args[0]}
	return fakeUpdate{answer: f.updates[options.WorkflowID]}, nil
}

func TestATestIsKeptAndDestroyed(t *testing.T) {
	request := requestOf(12, headA)
	id := workflows.TestID(request.ID)
	f := &fakeTemporal{t: t, running: map[string][]string{"TestPullRequest": {id}}, over: map[string][]string{"TestPullRequest": {workflows.TestID(requestOf(9, headB).ID)}},
		queries: map[string]any{id: e2e.Report{Request: request, Phase: e2e.Testing}}, updates: map[string]any{id: time.Time{}}}
	keep := workflows.KeepTest{For: 2 * time.Hour, By: "ben"}

	kept, err := f.connection().keepTest(t.Context(), "12", keep)
	require.NoError(t, err)
	require.Equal(t, map[string]any{workflows.KeepTestName: keep}, f.told)
	require.Contains(t, shown(t, kept.show), "is kept for 2h after the end of its test; `fairway e2e destroy 12/aaaaaaaa --reason ...`")
	f.updates[id] = began
	kept, err = f.connection().keepTest(t.Context(), "12", keep)
	require.NoError(t, err)
	require.Contains(t, shown(t, kept.show), "is kept until "+began.Local().Format(time.DateTime))
	f.updates[id] = temporal.NewApplicationError("clusters are kept for at most 1h", workflows.InvalidInput)
	_, err = f.connection().keepTest(t.Context(), "12", keep)
	requireStatus(t, exitUsage, err)
	_, err = f.connection().keepTest(t.Context(), "9", keep)
	require.ErrorContains(t, err, "is over; its cluster is gone")

	f.queries = nil // a test that does not answer can be ended all the same
	test, err := f.connection().endable(t.Context(), "12")
	require.NoError(t, err)
	require.NoError(t, f.connection().endTest(t.Context(), test, workflows.EndTest{Why: "enough", By: "ben", Now: true}))
	require.Equal(t, map[string]any{workflows.EndTestName: workflows.EndTest{ID: request.ID, Why: "enough", By: "ben", Now: true}}, f.told)
	f.running = nil
	requireStatus(t, exitUsage, f.connection().endTest(t.Context(), test, workflows.EndTest{}))

	report := e2e.Report{Request: request, Phase: e2e.Done, Left: "stack e2e-12 does not go"}
	f.queries, f.ends = map[string]any{id: report}, map[string]any{id: report}
	cmd, _, _ := typed(t)
	require.ErrorContains(t, (&cli{output: "table"}).awaitGone(cmd, f.connection(), test), "stack e2e-12 does not go; `fairway sweep` tries again")
}

func TestOrdersAboutTestsAreCheckedBeforeAnythingIsAsked(t *testing.T) {
	for arguments, want := range map[string]string{
		"e2e run":                       "at least one of the flags",
		"e2e run --pr 0":                "--pr is 0; must be the number",
		"e2e run --pr 1 --ref a..b":     "none of the others can be",
		"e2e keep 12":                   `required flag(s) "for" not set`,
		"e2e keep 12 --for -1h":         "--for is -1h0m0s; must be a time such as 2h",
		"e2e destroy 12":                "--reason is missing",
		"e2e list --limit -1":           "--limit is -1",
		"sweep --at-most -1":            "--at-most is -1; must be at least 0",
		"sweep --dry-run --yes":         "none of the others can be",
		"e2e run --pr 1 --dry-run":      "no pull requests are tested: e2e.accounts is empty",
		"sweep --dry-run":               "no pull requests are tested: e2e.accounts is empty",
		"e2e describe":                  "accepts 1 arg(s)",
		"e2e logs 1 2":                  "accepts 1 arg(s)",
		"e2e run --ref dev --yes":       "--ref is \"dev\"; must be a channel and a branch or commit",
		"e2e run --pr 1 --keep -1s":     "--keep is -1s; must be a time such as 2h",
		"e2e destroy 1 --reason r --xx": "unknown flag",
	} {
		t.Run(arguments, func(t *testing.T) {
			if strings.Contains(want, "e2e.accounts") {
				t.Setenv("FAIRWAY_CONFIG", untested(t))
			}
			cmd := root()
			cmd.SetArgs(strings.Fields(arguments))
			err := cmd.ExecuteContext(t.Context())
			require.ErrorContains(t, err, want)
			requireStatus(t, exitUsage, err)
		})
	}
}
