package forge_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fairway-project/fairway/forge"
)

// world is a forge with the repository fairway/config: branch stable takes what one person has approved,
// at its present head, and nobody rejected; dev takes anything. The driver acts as user fairway-bot, with no more rights than
// documented. Users author and reviewer may write, and reviewer is in team platform.
type world struct {
	driver forge.Driver
	// admin acts as user operator, who administrates the repository.
	admin forge.Driver
	// push commits something new to a branch, which begins at base if it is new, and returns the commit.
	push func(t *testing.T, base, branch string) (commit string)
	// remove deletes a branch.
	remove func(t *testing.T, branch string)
	// review is one by user reviewer.
	review func(t *testing.T, number int, verdict forge.Verdict, commit string)
	// comment is one by user author; comments are all of them, whoever wrote them.
	comment  func(t *testing.T, number int, text string)
	comments func(t *testing.T, number int) []string
	// statuses is how often a status was set on a commit.
	statuses func(t *testing.T, commit string) int
}

// behave is what both drivers have to do alike.
func behave(t *testing.T, w world) {
	t.Run("a promotion waits for approval and is merged once", w.promotion)
	t.Run("a closed pull request stays closed and makes room for a new one", w.closed)
	t.Run("one comment is kept", w.oneComment)
	t.Run("statuses are set once and read", w.commitStatuses)
	t.Run("who set a label, and when the head moved, is known", w.labelledAndPushed)
	t.Run("teams and rights", w.rights)
	t.Run("what there is not is not found", w.nothing)
	t.Run("what cannot be is not sent", w.invalid)
}

func (w world) promotion(t *testing.T) {
	ctx, d := t.Context(), w.driver
	self, err := d.Self(ctx)
	require.NoError(t, err)
	require.Equal(t, "fairway-bot", self)

	const branch = "fairway/promote/dev-to-stable/one"
	head := w.push(t, "stable", branch)
	found, err := d.FindPullRequest(ctx, "stable", branch)
	require.NoError(t, err)
	require.Nil(t, found)

	wanted := forge.NewPullRequest{
		Head: branch, Base: "stable", Title: "Promote dev to stable", Body: "What it carries:\n\n- [x] <b>1</b>",
		Labels: []string{"promotion", "by fairway/now"}, Reviewers: []string{"reviewer", "nobody-there", "fairway-bot"},
	}
	opened, err := d.Open(ctx, wanted)
	require.NoError(t, err)
	require.Len(t, opened.Warnings, 2, opened.Warnings)
	require.Contains(t, opened.Warnings[0], "nobody-there")
	require.Contains(t, opened.Warnings[1], "authors do not review")
	again, err := d.Open(ctx, wanted)
	require.NoError(t, err)
	require.Equal(t, opened.Number, again.Number, "a second one was opened")

	pr, err := d.PullRequest(ctx, opened.Number)
	require.NoError(t, err)
	require.Equal(t, forge.Open, pr.State)
	require.Equal(t, []string{wanted.Title, wanted.Body, branch, "stable", head, "fairway-bot"}, []string{pr.Title, pr.Body, pr.Head, pr.Base, pr.HeadCommit, pr.Author})
	require.ElementsMatch(t, wanted.Labels, pr.Labels)
	require.False(t, pr.Fork)
	require.Empty(t, pr.Merge)
	require.Contains(t, pr.URL, "/fairway/config/pull")
	require.NoError(t, d.Edit(ctx, pr.Number, "Promote it", "for a reason"))
	require.NoError(t, d.RemoveLabel(ctx, pr.Number, "by fairway/now"))
	require.NoError(t, d.RemoveLabel(ctx, pr.Number, "by fairway/now"))

	w.lists(t, forge.Filter{State: forge.Open, Base: "stable", Label: "promotion"}, pr.Number, true)
	w.lists(t, forge.Filter{State: forge.Open, Label: "by fairway/now"}, pr.Number, false)
	w.lists(t, forge.Filter{State: forge.Open, Base: "dev"}, pr.Number, false)
	w.lists(t, forge.Filter{State: forge.Merged}, pr.Number, false)

	_, err = d.Merge(ctx, pr.Number, head, "Promote it", "")
	require.ErrorIs(t, err, forge.ErrNotMergeable)
	require.ErrorContains(t, err, "approv", "the forge's reason is missing")

	w.review(t, pr.Number, forge.Rejected, head)
	w.verdict(t, pr.Number, forge.Rejected, head)
	_, err = d.Merge(ctx, pr.Number, head, "Promote it", "")
	require.ErrorIs(t, err, forge.ErrNotMergeable)
	w.review(t, pr.Number, forge.Approved, head)
	w.verdict(t, pr.Number, forge.Approved, head)

	moved := w.push(t, "stable", branch)
	_, err = d.Merge(ctx, pr.Number, head, "Promote it", "")
	require.ErrorIs(t, err, forge.ErrMoved)
	require.Eventually(t, func() bool { // a moment later: Gitea would merge with the old approval until then
		reviews, err := d.Reviews(ctx, pr.Number)
		return err == nil && len(reviews) == 1 && reviews[0].State == forge.Dismissed
	}, eventually, shortly)
	w.verdict(t, pr.Number, forge.Dismissed, head)
	_, err = d.Merge(ctx, pr.Number, moved, "Promote it", "")
	require.ErrorIs(t, err, forge.ErrNotMergeable)

	w.review(t, pr.Number, forge.Approved, moved)
	w.verdict(t, pr.Number, forge.Approved, moved)
	var merge string
	require.Eventually(t, func() bool { // right after a refusal Gitea may ask to try again
		merge, err = d.Merge(ctx, pr.Number, moved, "Promote it (#1)", "Fairway-Promotion: p-1\nFairway-Reason: due")
		return err == nil
	}, eventually, shortly, "%v", err)
	require.Regexp(t, "^[0-9a-f]{40}$", merge)
	require.NotEqual(t, moved, merge)

	w.push(t, "stable", branch) // the branch goes on, the pull request does not
	repeated, err := d.Merge(ctx, pr.Number, moved, "Promote it", "")
	require.NoError(t, err)
	require.Equal(t, merge, repeated)
	_, err = d.Merge(ctx, pr.Number, head, "Promote it", "")
	require.ErrorIs(t, err, forge.ErrMoved, "it was merged with another head")

	pr, err = d.PullRequest(ctx, pr.Number)
	require.NoError(t, err)
	require.Equal(t, forge.Merged, pr.State)
	require.Equal(t, []string{merge, "fairway-bot", moved, "Promote it", "for a reason"}, []string{pr.Merge, pr.MergedBy, pr.HeadCommit, pr.Title, pr.Body})
	require.NoError(t, d.Close(ctx, pr.Number))
	of, err := d.PullRequestsOf(ctx, merge)
	require.NoError(t, err)
	require.Len(t, of, 1)
	require.Equal(t, pr.Number, of[0].Number)
	of, err = d.PullRequestsOf(ctx, strings.Repeat("0", 39)+"1")
	require.NoError(t, err)
	require.Empty(t, of)

	w.remove(t, branch)
	found, err = d.FindPullRequest(ctx, "stable", branch)
	require.NoError(t, err)
	require.NotNil(t, found, "it is not found without its branch")
	require.Equal(t, forge.Merged, found.State)
	require.Equal(t, merge, found.Merge)
}

func (w world) lists(t *testing.T, filter forge.Filter, number int, expected bool) {
	t.Helper()
	list, err := w.driver.PullRequests(t.Context(), filter)
	require.NoError(t, err)
	var numbers []int
	for _, pr := range list {
		numbers = append(numbers, pr.Number)
	}
	if expected {
		require.Contains(t, numbers, number)
	} else {
		require.NotContains(t, numbers, number)
	}
}

func (w world) verdict(t *testing.T, number int, state forge.Verdict, commit string) {
	t.Helper()
	reviews, err := w.driver.Reviews(t.Context(), number)
	require.NoError(t, err)
	require.Len(t, reviews, 1)
	require.Equal(t, "reviewer", reviews[0].User)
	require.Equal(t, state, reviews[0].State)
	require.Equal(t, commit, reviews[0].Commit)
	require.False(t, reviews[0].At.IsZero())
}

func (w world) closed(t *testing.T) {
	ctx, d := t.Context(), w.driver
	const branch = "fairway/conflict/dev-to-stable"
	head := w.push(t, "stable", branch)
	wanted := forge.NewPullRequest{Head: branch, Base: "stable", Title: "A conflict"}
	first, err := d.Open(ctx, wanted)
	require.NoError(t, err)
	require.NoError(t, d.Close(ctx, first.Number))
	require.NoError(t, d.Close(ctx, first.Number))
	pr, err := d.PullRequest(ctx, first.Number)
	require.NoError(t, err)
	require.Equal(t, forge.Closed, pr.State)
	require.Equal(t, "fairway-bot", pr.ClosedBy)
	require.Empty(t, pr.Merge)
	_, err = d.Merge(ctx, first.Number, head, "Promote it", "")
	require.ErrorIs(t, err, forge.ErrNotMergeable)
	require.ErrorContains(t, err, "closed")

	second, err := d.Open(ctx, wanted)
	require.NoError(t, err)
	require.NotEqual(t, first.Number, second.Number)
	found, err := d.FindPullRequest(ctx, "stable", branch)
	require.NoError(t, err)
	require.Equal(t, second.Number, found.Number, "the newest one is meant")
	found, err = d.FindPullRequest(ctx, "dev", branch)
	require.NoError(t, err)
	require.Nil(t, found)

	_, err = d.Open(ctx, forge.NewPullRequest{Head: "no-such-branch", Base: "stable", Title: "Nothing"})
	require.Error(t, err)
	require.NotErrorIs(t, err, forge.ErrUnreachable)
}

func (w world) oneComment(t *testing.T) {
	ctx, d := t.Context(), w.driver
	w.push(t, "dev", "commented")
	pr, err := d.Open(ctx, forge.NewPullRequest{Head: "commented", Base: "dev", Title: "To be commented on"})
	require.NoError(t, err)
	w.comment(t, pr.Number, "<!-- fairway:state -->\nnot by Fairway")
	_, found, err := d.OwnComment(ctx, pr.Number, "fairway:state")
	require.NoError(t, err)
	require.False(t, found, "somebody else's comment counts")

	for _, text := range []string{"It waits.\n\n- for you", "It waits.\n\n- for you", "It was merged.", "It was merged."} {
		require.NoError(t, d.Comment(ctx, pr.Number, "fairway:state", text))
		own, found, err := d.OwnComment(ctx, pr.Number, "fairway:state")
		require.NoError(t, err)
		require.True(t, found)
		require.Equal(t, text, own)
	}
	require.NoError(t, d.Comment(ctx, pr.Number, "fairway:other", "quotes <!-- fairway:withdrawn --> in a line"))
	_, found, err = d.OwnComment(ctx, pr.Number, "fairway:withdrawn")
	require.NoError(t, err)
	require.False(t, found, "what is quoted is no marker")
	require.Len(t, w.comments(t, pr.Number), 3, "the author's, and two of Fairway")
}

func (w world) commitStatuses(t *testing.T) {
	ctx, d := t.Context(), w.driver
	commit := w.push(t, "dev", "with-statuses")
	statuses, err := d.Statuses(ctx, commit)
	require.NoError(t, err)
	require.Empty(t, statuses)
	for _, status := range []forge.Status{
		{Context: "fairway/soak", State: forge.Pending, Description: "soaks", URL: "https://fairway.example.org/a"},
		{Context: "fairway/soak", State: forge.Success, Description: strings.Repeat("ä", 100)},
		{Context: "fairway/soak", State: forge.Success, Description: strings.Repeat("ä", 100)},
		{Context: "conformance", State: forge.Failure},
	} {
		require.NoError(t, d.SetStatus(ctx, commit, status))
	}
	require.Equal(t, 3, w.statuses(t, commit), "an equal one was set again")
	statuses, err = d.Statuses(ctx, commit)
	require.NoError(t, err)
	require.Len(t, statuses, 2)
	require.Equal(t, []any{"conformance", forge.Failure}, []any{statuses[0].Context, statuses[0].State})
	require.Equal(t, []any{"fairway/soak", forge.Success, ""}, []any{statuses[1].Context, statuses[1].State, statuses[1].URL})
	require.Equal(t, strings.Repeat("ä", 68)+"…", statuses[1].Description)
	require.False(t, statuses[1].At.IsZero())
}

func (w world) rights(t *testing.T) {
	ctx, d := t.Context(), w.driver
	for _, c := range []struct {
		team, user string
		member     bool
		err        error
	}{
		{"platform", "reviewer", true, nil},
		{"fairway/platform", "reviewer", true, nil},
		{"platform", "author", false, nil},
		{"platform", "nobody-there", false, nil},
		{"no-such-team", "reviewer", false, forge.ErrNotFound},
		{"nowhere/platform", "reviewer", false, forge.ErrNotFound},
		{"a/b/c", "reviewer", false, forge.ErrInvalid},
		{"platform", "../reviewer", false, forge.ErrInvalid},
		{"platform", "", false, forge.ErrInvalid},
	} {
		member, err := d.Member(ctx, c.team, c.user)
		require.ErrorIs(t, err, c.err, c)
		require.Equal(t, c.member, member, c)
	}
	for user, expected := range map[string]bool{"author": true, "reviewer": true, "operator": true, "nobody-there": false} {
		may, err := w.admin.CanWrite(ctx, user)
		require.NoError(t, err, user)
		require.Equal(t, expected, may, user)
	}
}

func (w world) nothing(t *testing.T) {
	ctx, d := t.Context(), w.driver
	_, err := d.PullRequest(ctx, 4711)
	require.ErrorIs(t, err, forge.ErrNotFound)
	_, err = d.Merge(ctx, 4711, strings.Repeat("a", 40), "Promote it", "")
	require.ErrorIs(t, err, forge.ErrNotFound)
	require.ErrorIs(t, d.Edit(ctx, 4711, "a", "b"), forge.ErrNotFound)
	require.ErrorIs(t, d.Close(ctx, 4711), forge.ErrNotFound)
	require.ErrorIs(t, d.Comment(ctx, 4711, "fairway:state", "text"), forge.ErrNotFound)
	unknown := strings.Repeat("0", 39) + "1"
	_, err = d.Statuses(ctx, unknown)
	require.ErrorIs(t, err, forge.ErrNotFound)
	require.ErrorIs(t, d.SetStatus(ctx, unknown, forge.Status{Context: "x", State: forge.Success}), forge.ErrNotFound)
}

func (w world) invalid(t *testing.T) {
	ctx, d := t.Context(), w.driver
	_, err := d.FindPullRequest(ctx, "stable", "")
	require.ErrorIs(t, err, forge.ErrInvalid)
	_, err = d.Statuses(ctx, "../../user")
	require.ErrorIs(t, err, forge.ErrInvalid)
	_, err = d.Merge(ctx, 1, "main", "Promote it", "")
	require.ErrorIs(t, err, forge.ErrInvalid)
	require.ErrorIs(t, d.SetStatus(ctx, strings.Repeat("a", 40), forge.Status{Context: "x", State: "fine"}), forge.ErrInvalid)
	require.ErrorIs(t, d.Comment(ctx, 1, "a --> b", "text"), forge.ErrInvalid)
	require.ErrorIs(t, d.AddLabels(ctx, 1, ""), forge.ErrInvalid)
	require.Contains(t, d.CompareURL("stable", "fairway/a b"), "/fairway/config/compare/stable...fairway/a%20b")
}

func (w world) labelledAndPushed(t *testing.T) {
	ctx, d := t.Context(), w.driver
	head := w.push(t, "dev", "labelled")
	pr, err := d.Open(ctx, forge.NewPullRequest{Head: "labelled", Base: "dev", Title: "Change"})
	require.NoError(t, err)
	require.Equal(t, "fairway/config", pr.HeadRepository)
	require.WithinDuration(t, time.Now(), pr.Created, time.Minute)
	_, found, err := d.Labelled(ctx, pr.Number, "ready-to-test")
	require.NoError(t, err)
	require.False(t, found)
	opened, err := d.PushedAt(ctx, pr)
	require.NoError(t, err)
	require.False(t, opened.Before(pr.Created))

	require.NoError(t, d.AddLabels(ctx, pr.Number, "ready-to-test", "other"))
	first, found, err := d.Labelled(ctx, pr.Number, "Ready-To-Test")
	require.NoError(t, err)
	require.True(t, found)
	require.Equal(t, "fairway-bot", first.By)
	require.WithinDuration(t, time.Now(), first.At, time.Minute)

	time.Sleep(1100 * time.Millisecond) // forges know seconds
	require.NoError(t, d.RemoveLabel(ctx, pr.Number, "ready-to-test"))
	still, found, err := d.Labelled(ctx, pr.Number, "ready-to-test")
	require.NoError(t, err)
	require.True(t, found)
	require.Equal(t, first.At.Unix(), still.At.Unix(), "it was removed then, not set")
	require.NoError(t, w.admin.AddLabels(ctx, pr.Number, "ready-to-test"))
	again, found, err := d.Labelled(ctx, pr.Number, "ready-to-test")
	require.NoError(t, err)
	require.True(t, found)
	require.True(t, again.At.After(first.At))
	self, err := w.admin.Self(ctx)
	require.NoError(t, err)
	require.Equal(t, self, again.By)

	moved := w.push(t, "dev", "labelled")
	require.NotEqual(t, head, moved)
	require.Eventually(t, func() bool { // it is noted a moment after
		pr, err = d.PullRequest(ctx, pr.Number)
		require.NoError(t, err)
		at, err := d.PushedAt(ctx, pr)
		return pr.HeadCommit == moved && err == nil && at.After(opened)
	}, eventually, shortly)
	pr.HeadCommit = strings.Repeat("0", 39) + "1"
	_, err = d.PushedAt(ctx, pr)
	require.ErrorIs(t, err, forge.ErrUnreachable, "what was pushed is something else")
}
