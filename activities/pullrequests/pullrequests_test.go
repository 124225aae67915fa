package pullrequests

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/temporal"

	"github.com/fairway-project/fairway/e2e"
	"github.com/fairway-project/fairway/forge"
	"github.com/fairway-project/fairway/workflows"
)

func requireKind(t *testing.T, err error, kind, says string) {
	t.Helper()
	var failed *temporal.ApplicationError
	require.ErrorAs(t, err, &failed)
	require.Equal(t, kind, failed.Type())
	require.Contains(t, failed.Error(), says)
}

func TestALabelledPullRequestIsTestedOnceUntilTheLabelIsSetAnew(t *testing.T) {
	w := newWorld(t)
	pr := w.open("anna", false)
	look := w.look()
	require.Len(t, look.Start, 1)
	test := look.Start[0]
	require.Equal(t, []string{"1/" + pr.HeadCommit, "e2e-1-" + pr.HeadCommit[:7], "dev", w.origin.Git("rev-parse", "dev"), "bert"}, []string{test.ID, test.Cluster, test.Channel, test.Base, test.By})

	w.queue.tests = look.Start
	w.now = w.now.Add(time.Minute)
	require.Empty(t, w.look(), "it is under way")
	w.report(e2e.Report{Request: test, Verdict: e2e.Passed, Phase: e2e.Done, Workflow: workflows.TestID(test.ID), Run: "0123"})
	w.queue.tests = nil
	for range 3 {
		w.now = w.now.Add(time.Minute)
		require.Empty(t, w.look())
	}
	asked := w.forge.count("Labelled")
	for range 3 {
		w.now = w.now.Add(time.Second)
		require.Empty(t, w.look())
	}
	require.Equal(t, asked, w.forge.count("Labelled"), "nothing is asked again of what has not changed")
	w.now = w.now.Add(time.Minute)
	w.label(pr, "anna")
	require.Len(t, w.look().Start, 1)
}

func TestThePullRequestOfAStrangerWaitsForAMember(t *testing.T) {
	w := newWorld(t)
	pr := w.open("mallory", true)
	w.label(pr, "mallory")
	look := w.look()
	require.Empty(t, look.Start)
	require.Len(t, look.Held, 1)
	require.Contains(t, look.Held[0].Why, "who set the label")
	require.Equal(t, forge.Pending, w.status(pr.HeadCommit).State)
	require.Equal(t, pr.URL, w.status(pr.HeadCommit).URL)
	require.Contains(t, w.forge.comments[1], "remove label ready-to-test and set it again")
	for range 3 {
		w.now = w.now.Add(time.Minute)
		require.Len(t, w.look().Held, 1)
	}
	require.Equal(t, 1, w.forge.edits, "it is said once")

	w.label(pr, "bert")
	require.Len(t, w.look().Start, 1, "its head has been known for minutes")

	w.now = w.now.Add(time.Minute)
	w.push(pr)
	require.Contains(t, w.look().Held[0].Why, "pushed since")
	w.now = w.now.Add(time.Second)
	w.label(pr, "bert")
	look = w.look()
	require.Empty(t, look.Start, "its head is known since a second ago")
	require.Contains(t, look.Held[0].Why, "its head is new")
	w.now = w.now.Add(time.Minute)
	require.Len(t, w.look().Start, 1)
}

func TestTheStatusOfAnotherPullRequestWithTheSameHeadSaysNothing(t *testing.T) {
	w := newWorld(t)
	first := w.open("anna", false)
	test := w.look().Start[0]
	w.now = w.now.Add(time.Minute)
	second := w.open("anna", false)
	second.HeadCommit, second.Base = first.HeadCommit, "alpha"
	w.label(second, "bert")
	for _, run := range []string{"", "0123"} { // its page is that of the pull request or of the workflow
		w.now = w.now.Add(time.Minute)
		w.report(e2e.Report{Request: test, Phase: e2e.Done, Verdict: e2e.Passed, Workflow: workflows.TestID(test.ID), Run: run})
		look := w.look()
		require.Len(t, look.Start, 1, "it goes into another channel")
		require.Equal(t, "2/"+first.HeadCommit, look.Start[0].ID)
	}

	strange := w.open("mallory", true)
	w.now = w.now.Add(time.Minute)
	require.Contains(t, w.look().Held[0].Why, "its head is new")
	w.now = w.now.Add(time.Minute)
	other := w.open("mallory", true)
	other.HeadCommit = strange.HeadCommit
	look := w.look()
	require.Len(t, look.Held, 1)
	require.Equal(t, other.Number, look.Held[0].Number, "its head is new there")
}

func TestADraftIsTestedOnceItIsReady(t *testing.T) {
	w := newWorld(t)
	pr := w.open("anna", false)
	pr.Draft = true
	w.now = w.now.Add(time.Minute)
	for range 3 {
		require.Contains(t, w.look().Held[0].Why, "draft")
		w.now = w.now.Add(time.Minute)
	}
	pr.Draft = false
	require.Len(t, w.look().Start, 1)
}

func TestTestsEndWithWhatTheyAreOf(t *testing.T) {
	w := newWorld(t)
	var under []e2e.Request
	for range 6 {
		w.open("anna", false)
	}
	under = w.look().Start
	require.Len(t, under, 6)
	w.queue.tests = append(under, e2e.Request{ID: "x", Head: "x", ByHand: true}, e2e.Request{ID: "99/x", Number: 99, Head: "x"})
	w.now = w.now.Add(time.Minute)
	w.forge.requests[0].State = forge.Closed
	w.forge.requests[1].State = forge.Merged
	w.forge.requests[2].Labels = nil
	w.push(w.forge.requests[3])
	w.forge.requests[4].State = forge.Closed
	w.forge.down["PullRequest 5"] = forge.ErrUnreachable
	for range 2 { // as the activity may be tried again
		look := w.look()
		why := map[string]string{}
		for _, end := range look.End {
			number, _, _ := strings.Cut(end.ID, "/")
			why[number] = end.Why
		}
		require.Len(t, why, 5, why)
		require.Contains(t, why["1"], "closed")
		require.Contains(t, why["2"], "merged")
		require.Contains(t, why["3"], "removed")
		require.Contains(t, why["4"], "pushed")
		require.Contains(t, why["99"], "gone")
		require.Len(t, look.Start, 1, "the new head is tested")
		require.Equal(t, w.forge.requests[3].HeadCommit, look.Start[0].Head)
	}
	w.queue.reports = map[string]e2e.Report{
		workflows.TestID(under[0].ID): {Verdict: e2e.Cancelled, Phase: e2e.Removing}, workflows.TestID(under[1].ID): {Phase: e2e.Creating},
	}
	left := w.look().End
	require.Len(t, left, 4)
	require.False(t, slices.ContainsFunc(left, func(end workflows.EndTest) bool { return end.ID == under[0].ID }), "one that has its verdict is not told again")
}

func TestAnotherBaseIsTestedAnewWhereEachHasAStatusOfItsOwn(t *testing.T) {
	w := newWorld(t)
	w.acts.Settings.Status = "fairway/e2e/{channel}"
	pr := w.open("anna", false)
	w.forge.statuses[pr.HeadCommit] = []forge.Status{{Context: "fairway/e2e/dev", State: forge.Success, URL: pr.URL, At: w.now.Add(time.Hour)}}
	require.Empty(t, w.look().Start, "it is tested already")
	pr.Base = "alpha"
	started := w.look().Start
	require.Len(t, started, 1)
	require.Equal(t, "alpha", started[0].Channel)
}

func TestOnePullRequestThatCannotBeReadKeepsNoOtherFromBeingTested(t *testing.T) {
	for method, of := range map[string]string{"Labelled": "1", "CanWrite": "mallory", "Statuses": ""} {
		w := newWorld(t)
		first := w.open("mallory", true)
		w.open("anna", false)
		if method == "Statuses" {
			of = first.HeadCommit
		}
		for _, err := range []error{forge.ErrUnreachable, forge.ErrRefused, forge.ErrInvalid} {
			w.forge.down = map[string]error{method + " " + of: err}
			look := w.look()
			require.Len(t, look.Start, 1, method)
			require.Equal(t, 2, look.Start[0].Number)
		}
		require.Empty(t, w.forge.comments, "what passes is not told")
	}
	w := newWorld(t)
	w.open("mallory", true)
	w.open("anna", false)
	w.forge.down["Comment"], w.forge.down["SetStatus"] = forge.ErrRefused, forge.ErrRefused
	require.Len(t, w.look().Start, 1, "what cannot be written keeps nothing")
}

func TestWithoutAnAnswerNothingBeginsOrEnds(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(*world)
		kind  string
	}{
		"the queue":            {func(w *world) { w.queue.down = true }, workflows.Unreachable},
		"the list":             {func(w *world) { w.forge.down["PullRequests"] = forge.ErrUnreachable }, workflows.Unreachable},
		"a forge with a limit": {func(w *world) { w.forge.down["Labelled"] = &forge.LimitedError{Until: noon, Err: forge.ErrUnreachable} }, workflows.Unreachable},
		"a refused list":       {func(w *world) { w.forge.down["PullRequests"] = forge.ErrRefused }, workflows.AccessDenied},
		"without a forge":      {func(w *world) { w.acts.Forge = nil }, workflows.InvalidInput},
		"without a repository": {func(w *world) { w.acts.Repository = nil }, workflows.InvalidInput},
		"without either of it": {func(w *world) { w.acts.Repository, w.acts.Forge = nil, nil }, workflows.InvalidInput},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.open("anna", false)
			c.spoil(w)
			requireKind(t, w.run(w.acts.LookAtPullRequests, workflows.LookAtPullRequests{}, nil), c.kind, "")
		})
	}
}

func TestATestByHandIsOfAPullRequestOrTwoRefs(t *testing.T) {
	w := newWorld(t)
	pr := w.open("mallory", true)
	pr.Labels, pr.Draft = nil, true
	dev := w.origin.Git("rev-parse", "dev")
	var got e2e.Request
	require.NoError(t, w.run(w.acts.ResolveTest, workflows.ResolveTest{Number: 1, Commit: pr.HeadCommit, By: "anna", Keep: time.Hour}, &got))
	require.Equal(t, e2e.Request{
		ID: "1/" + pr.HeadCommit, Cluster: "e2e-1-" + pr.HeadCommit[:7], Number: 1, Title: "Change", URL: pr.URL, Author: "mallory",
		Channel: "dev", Base: dev, Head: pr.HeadCommit, By: "anna", ByHand: true, Keep: time.Hour,
	}, got)
	w.queue.tests = []e2e.Request{got}
	require.Empty(t, w.look().End, "no label belongs to it")

	for _, ref := range []string{"topic-1", pr.HeadCommit, pr.HeadCommit[:8]} {
		var got e2e.Request
		require.NoError(t, w.run(w.acts.ResolveTest, workflows.ResolveTest{Base: "dev", Head: ref, By: "anna"}, &got))
		require.Equal(t, []string{pr.HeadCommit, "e2e-" + pr.HeadCommit[:7], "dev", dev, pr.HeadCommit}, []string{got.ID, got.Cluster, got.Channel, got.Base, got.Head})
		require.Zero(t, got.Number)
	}

	closed := w.open("anna", false)
	closed.State = forge.Closed
	elsewhere := w.open("anna", false)
	elsewhere.Base = "topic-1"
	unfetched := w.open("mallory", true)
	unfetched.HeadCommit = strings.Repeat("e", 40)
	for says, in := range map[string]workflows.ResolveTest{
		"give --pr N or --ref":        {},
		"or of two refs":              {Number: 1, Base: "dev", Head: "topic-1"},
		"is of a pull request":        {Number: -1},
		"there is no pull request 99": {Number: 99},
		"pull request 2 is closed":    {Number: 2},
		`"topic-1" is no channel`:     {Number: 3},
		"cannot be tested":            {Number: 4},
		`"main" is no channel`:        {Base: "main", Head: "topic-1"},
		`"nothing" cannot be tested`:  {Base: "dev", Head: "nothing"},
		`"--upload-pack=x" cannot be`: {Base: "dev", Head: "--upload-pack=x"},
		"nothing to upgrade":          {Base: "dev", Head: "dev"},
		"kept for 24h0m0s at most":    {Number: 1, Keep: 25 * time.Hour},
		"which you were shown":        {Number: 1, Commit: strings.Repeat("f", 40)},
	} {
		requireKind(t, w.run(w.acts.ResolveTest, in, nil), workflows.InvalidInput, says)
	}
	w.forge.down["PullRequest"] = forge.ErrUnreachable
	requireKind(t, w.run(w.acts.ResolveTest, workflows.ResolveTest{Number: 1}, nil), workflows.Unreachable, "")
}

func (w *world) report(r e2e.Report) {
	w.t.Helper()
	require.NoError(w.t, w.run(w.acts.ReportTest, r, nil))
}

func TestAReportIsAStatusAndOneComment(t *testing.T) {
	w := newWorld(t)
	pr := w.open("anna", false)
	test := w.look().Start[0]
	r := e2e.Report{Request: test, Phase: e2e.Queued, Place: 2, Workflow: workflows.TestID(test.ID), Run: "0123"}
	w.report(r)
	w.report(r)
	status := w.status(pr.HeadCommit)
	require.Len(t, w.forge.statuses[pr.HeadCommit], 1)
	require.Equal(t, 1, w.forge.edits)
	require.Equal(t, []any{"fairway/e2e", forge.Pending, "Waiting for a place: number 2 in the queue."}, []any{status.Context, status.State, status.Description})
	require.Equal(t, "https://temporal.example.org/namespaces/default/workflows/e2e%2F1%2F"+pr.HeadCommit+"/0123/history", status.URL)
	require.Equal(t, e2e.Comment(r), w.forge.comments[1])
	for verdict, state := range map[e2e.Verdict]forge.StatusState{"": forge.Pending, e2e.Passed: forge.Success, e2e.Failed: forge.Failure} {
		r.Phase, r.Verdict = e2e.Done, verdict
		w.report(r)
		require.Equal(t, state, w.status(pr.HeadCommit).State)
		require.Equal(t, e2e.Comment(r), w.forge.comments[1])
	}
	w.acts.Settings.UI = ""
	w.report(r)
	require.Equal(t, pr.URL, w.status(pr.HeadCommit).URL)
}

func TestAReportOfAnOlderHeadLeavesTheCommentAlone(t *testing.T) {
	w := newWorld(t)
	pr := w.open("anna", false)
	old := w.look().Start[0]
	w.now = w.now.Add(time.Minute)
	w.push(pr)
	newer := e2e.Report{Request: w.look().Start[0], Phase: e2e.Creating}
	w.report(newer)
	w.report(e2e.Report{Request: old, Phase: e2e.Done, Verdict: e2e.Cancelled, Problem: "Somebody has pushed."})
	require.Equal(t, e2e.Comment(newer), w.forge.comments[1])
	require.Equal(t, forge.Pending, w.status(old.Head).State)
	require.Equal(t, "Cancelled: Somebody has pushed.", w.status(old.Head).Description)
}

func TestACancelledTestIsPendingUnlessItWouldBeBegunAgain(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*world, *forge.PullRequest)
		want   forge.StatusState
	}{
		"unlabelled":                         {func(_ *world, pr *forge.PullRequest) { pr.Labels = nil }, forge.Pending},
		"closed":                             {func(_ *world, pr *forge.PullRequest) { pr.State = forge.Closed }, forge.Pending},
		"merged":                             {func(_ *world, pr *forge.PullRequest) { pr.State = forge.Merged }, forge.Pending},
		"into another channel":               {func(_ *world, pr *forge.PullRequest) { pr.Base = "alpha" }, forge.Pending},
		"gone":                               {func(w *world, pr *forge.PullRequest) { w.forge.down["PullRequest"] = forge.ErrNotFound }, forge.Pending},
		"labelled anew":                      {func(w *world, pr *forge.PullRequest) { w.label(pr, "bert") }, forge.Pending},
		"ended by a person, all else stands": {func(*world, *forge.PullRequest) {}, forge.Failure},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			pr := w.open("anna", false)
			test := w.look().Start[0]
			began := w.now.Add(time.Second)
			w.now = w.now.Add(time.Minute)
			c.change(w, pr)
			w.report(e2e.Report{Request: test, Phase: e2e.Done, Verdict: e2e.Cancelled, Phases: []e2e.PhaseTime{{Phase: e2e.Queued, Began: began}}})
			require.Equal(t, c.want, w.status(test.Head).State)
			if name == "labelled anew" {
				require.Len(t, w.look().Start, 1)
			}
			if c.want == forge.Failure {
				require.Empty(t, w.look().Start, "it does not begin again by itself")
			}
		})
	}
}

func TestReportsGoOnWhereTheForgeHasForgotten(t *testing.T) {
	w := newWorld(t)
	pr := w.open("anna", false)
	r := e2e.Report{Request: w.look().Start[0], Phase: e2e.Done, Verdict: e2e.Passed}
	w.forge.down["SetStatus"] = forge.ErrNotFound
	w.report(r)
	require.Equal(t, e2e.Comment(r), w.forge.comments[pr.Number])
	w.forge.down = map[string]error{"SetStatus": forge.ErrUnreachable}
	requireKind(t, w.run(w.acts.ReportTest, r, nil), workflows.Unreachable, "")
	w.forge.down = map[string]error{"Comment": errors.New("cut off")}
	requireKind(t, w.run(w.acts.ReportTest, r, nil), workflows.Unreachable, "cut off")

	w.forge.down = map[string]error{"SetStatus": forge.ErrInvalid}
	byHand := e2e.Report{Request: e2e.Request{ID: "x", Head: pr.HeadCommit, ByHand: true}, Verdict: e2e.Failed}
	w.report(byHand) // of a commit that only the mirror has
	w.forge.down = nil
	w.report(byHand)
	require.Equal(t, forge.Failure, w.status(pr.HeadCommit).State)
	w.acts.Forge = nil
	w.report(byHand)
}
