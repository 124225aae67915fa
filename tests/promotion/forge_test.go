package promotion

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"code.gitea.io/sdk/gitea"
	"github.com/stretchr/testify/require"

	"github.com/fairway-project/fairway/promotion"
	"github.com/fairway-project/fairway/tests/product"
	"github.com/fairway-project/fairway/workflows"
)

// patience bounds every wait; the machine may be busy.
const patience = 2 * time.Minute

// ---- the configuration repository, past the proxies

// clone is a copy of the repository that a test works in.
type clone struct{ product.Clone }

func newClone(t *testing.T) clone {
	t.Helper()
	return clone{product.NewClone(t, theLab)}
}

// has says whether a branch has got a commit.
func (c clone) has(branch, commit string) bool {
	c.Helper()
	c.Fetch()
	_, err := product.Git(c.Context(), c.Dir, "merge-base", "--is-ancestor", commit, "origin/"+branch)
	return err == nil
}

// arrives waits until a branch has a commit.
func (c clone) arrives(branch, commit string) {
	c.Helper()
	require.Eventually(c, func() bool { return c.has(branch, commit) }, patience, 200*time.Millisecond, "%.8s does not arrive on %s", commit, branch)
	c.Logf("%s %.8s has arrived on %s", time.Now().Format(time.TimeOnly), commit, branch)
}

// merges are the commits of a branch that promote a candidate, by what their trailers say.
func (c clone) merges(branch, from, candidate string) []string {
	c.Helper()
	c.Fetch()
	return strings.Fields(c.Git("log", "--format=%H", "--fixed-strings", "--grep=Fairway-Promotion: "+promotion.ID(from, branch, candidate), "origin/"+branch))
}

// mergedOnce checks that a candidate was merged by Fairway once, and returns the merge.
func (c clone) mergedOnce(branch, from, candidate string) string {
	c.Helper()
	found := c.merges(branch, from, candidate)
	require.Len(c, found, 1, "%.8s was merged once into %s", candidate, branch)
	parents := strings.Fields(c.Git("log", "-1", "--format=%P", found[0]))
	require.Len(c, parents, 2)
	require.Equal(c, candidate, parents[1])
	return found[0]
}

// ---- the forge

// as is somebody's way to the forge.
func as(t *testing.T, token string) *gitea.Client { return product.As(t, theLab, token) }

func owner() string { return theLab.Forge().Owner }
func repo() string  { return theLab.Forge().Repository }

// pullRequests are those into a branch, newest first.
func pullRequests(t *testing.T, base string, state gitea.StateType) (found []*gitea.PullRequest) {
	t.Helper()
	client := as(t, theLab.Forge().OperatorToken)
	for page := 1; ; page++ {
		list, _, err := client.ListRepoPullRequests(owner(), repo(), gitea.ListPullRequestsOptions{State: state, ListOptions: gitea.ListOptions{Page: page, PageSize: 50}})
		require.NoError(t, err)
		for _, each := range list {
			if each.Base.Ref == base {
				found = append(found, each)
			}
		}
		if len(list) < 50 {
			return found
		}
	}
}

// opened waits for an open pull request into a branch whose head is at a commit.
func opened(t *testing.T, base, commit string) (found *gitea.PullRequest) {
	t.Helper()
	require.Eventually(t, func() bool {
		for _, each := range pullRequests(t, base, gitea.StateOpen) {
			if each.Head.Sha == commit {
				found = each
			}
		}
		return found != nil
	}, patience, 300*time.Millisecond, "no pull request of %.8s into %s", commit, base)
	return found
}

// review is a verdict of the second user.
func review(t *testing.T, number int64, commit string, verdict gitea.ReviewStateType) {
	t.Helper()
	_, _, err := as(t, theLab.Forge().ReviewerToken).CreatePullReview(owner(), repo(), number, gitea.CreatePullReviewOptions{
		State: verdict, Body: "seen", CommitID: commit,
	})
	require.NoError(t, err)
}

// says waits until the one comment of Fairway's on a pull request contains a text.
func says(t *testing.T, number int64, text string) {
	t.Helper()
	var last []string
	require.Eventually(t, func() bool {
		last = product.Comments(t, theLab, number)
		return len(last) == 1 && strings.Contains(last[0], text)
	}, patience, 300*time.Millisecond, "the comment on #%d does not say %q", number, text)
}

func status(t *testing.T, commit, context string, state gitea.StatusState) {
	t.Helper()
	_, _, err := as(t, theLab.Forge().AuthorToken).CreateStatus(owner(), repo(), commit, gitea.CreateStatusOption{State: state, Context: context, Description: "of the test"})
	require.NoError(t, err)
}

// ---- the product

// kill ends the worker as a crash does, and starts it again.
func kill(t *testing.T) {
	t.Helper()
	require.NoError(t, worker.Kill())
	require.NoError(t, worker.Restart(t.Context()))
}

// command runs the command line.
func command(ctx context.Context, args ...string) (out string, status int, err error) {
	return product.Command(ctx, patience, env, args...)
}

// fairway runs the command line, which has to succeed.
func fairway(t *testing.T, args ...string) string {
	t.Helper()
	return product.Fairway(t, patience, env, args...)
}

// answers runs the command line and reads its JSON.
func answers(t *testing.T, out any, args ...string) {
	t.Helper()
	text := fairway(t, append(args, "--output", "json")...)
	require.NoError(t, json.Unmarshal([]byte(text), out), text)
}

// channel is what the actor of a channel knows.
func channel(t *testing.T, name string) (state workflows.ChannelState) {
	t.Helper()
	require.Eventually(t, func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		answer, err := temporal.QueryWorkflow(ctx, workflows.ChannelID(name), "", workflows.StateQuery)
		return err == nil && answer.Get(&state) == nil
	}, patience, 200*time.Millisecond, "the actor of channel %s does not answer", name)
	return state
}

// recorded waits until the actor of a channel knows how the promotion of a candidate has ended.
func recorded(t *testing.T, from, to, candidate string, outcome promotion.Outcome) (found promotion.Record) {
	t.Helper()
	require.Eventually(t, func() bool {
		for _, record := range channel(t, to).Promotions.Records {
			if record.ID == promotion.ID(from, to, candidate) && record.Outcome == outcome {
				found = record
			}
		}
		return found.ID != ""
	}, patience, 300*time.Millisecond, "the promotion of %.8s to %s is not recorded as %s", candidate, to, outcome)
	return found
}

// knows waits until the actor of a channel has heard of a landing.
func knows(t *testing.T, name, commit string) {
	t.Helper()
	require.Eventually(t, func() bool {
		state := channel(t, name)
		return state.Promotions.Soak.Index(commit) >= 0
	}, patience, 200*time.Millisecond, "channel %s does not hear of %.8s", name, commit)
}
