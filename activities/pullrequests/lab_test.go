package pullrequests

import (
	"crypto/rand"
	"encoding/base64"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"code.gitea.io/sdk/gitea"
	"github.com/stretchr/testify/require"

	"github.com/fairway-project/fairway/activities/activitytest"
	"github.com/fairway-project/fairway/channels"
	"github.com/fairway-project/fairway/e2e"
	"github.com/fairway-project/fairway/forge"
	"github.com/fairway-project/fairway/lab"
	"github.com/fairway-project/fairway/promotion"
	"github.com/fairway-project/fairway/workflows"
)

const (
	eventually = 45 * time.Second
	shortly    = 500 * time.Millisecond
)

// TestOnGitea has a stranger open a pull request from a fork, and a member one from a branch.
func TestOnGitea(t *testing.T) {
	l, err := lab.StartForge(t.Context(), lab.Options{Dir: t.TempDir(), Out: t.Output()})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, l.Stop()) })
	at := l.Forge()
	with := func(options ...gitea.ClientOption) *gitea.Client {
		client, err := gitea.NewClient(at.URL, append(options, gitea.SetContext(t.Context()), gitea.SetGiteaVersion(""))...)
		require.NoError(t, err)
		return client
	}
	driver := func(token string) forge.Driver {
		driver, err := forge.New(forge.Settings{Kind: "gitea", URL: at.URL, Owner: at.Owner, Repository: at.Repository, Token: func() (string, error) { return token, nil }})
		require.NoError(t, err)
		return driver
	}
	operator, author := with(gitea.SetToken(at.OperatorToken)), with(gitea.SetToken(at.AuthorToken))
	password := rand.Text()
	_, _, err = operator.AdminCreateUser(gitea.CreateUserOption{Username: "mallory", Email: "mallory@fairway.test", Password: password, MustChangePassword: gitea.OptionalBool(false)})
	require.NoError(t, err)
	stranger := with(gitea.SetBasicAuth("mallory", password))
	_, _, err = stranger.CreateFork(at.Owner, at.Repository, gitea.CreateForkOption{})
	require.NoError(t, err)
	push := func(by *gitea.Client, owner, branch string) string {
		options := gitea.FileOptions{Message: "Add something", BranchName: branch}
		if _, _, err := by.GetRepoBranch(owner, at.Repository, branch); err != nil {
			options.BranchName, options.NewBranchName = "dev", branch
		}
		file, _, err := by.CreateFile(owner, at.Repository, rand.Text()+".txt", gitea.CreateFileOptions{FileOptions: options, Content: base64.StdEncoding.EncodeToString([]byte("new\n"))})
		require.NoError(t, err)
		return file.Commit.SHA
	}

	t.Setenv("FORGE_TOKEN", at.OperatorToken)
	settings := e2e.Defaults()
	acts := &Activities{
		Settings: settings, Pipeline: promotion.Pipeline{Channels: []string{"dev", "stable"}, Edges: []promotion.Edge{{From: "dev", To: "stable"}}},
		Repository: &channels.Mirror{URL: at.URL + "/" + at.Owner + "/" + at.Repository + ".git", Dir: filepath.Join(t.TempDir(), "mirror.git"), TokenEnv: "FORGE_TOKEN"},
		Forge:      driver(at.OperatorToken), Queue: (&memoryQueue{}).entries, Temporal: &memoryQueue{},
	}
	look := func() (look workflows.PullRequestsLook) {
		t.Helper()
		require.NoError(t, activitytest.Worker{}.Run(acts.LookAtPullRequests, workflows.LookAtPullRequests{}, &look))
		return look
	}
	comments := func(number int64) (all []string) {
		list, _, err := operator.ListIssueComments(at.Owner, at.Repository, number, gitea.ListIssueCommentOptions{})
		require.NoError(t, err)
		for _, c := range list {
			all = append(all, c.Body)
		}
		return all
	}
	status := func(commit string) forge.Status {
		all, err := acts.Forge.Statuses(t.Context(), commit)
		require.NoError(t, err)
		require.Len(t, all, 1)
		return all[0]
	}

	push(stranger, "mallory", "topic")
	head := push(stranger, "mallory", "topic")
	opened, _, err := stranger.CreatePullRequest(at.Owner, at.Repository, gitea.CreatePullRequestOption{Head: "mallory:topic", Base: "dev", Title: "From outside"})
	require.NoError(t, err)
	number := int(opened.Index)
	require.Empty(t, look(), "it has no label")
	reviewer := driver(at.ReviewerToken)
	time.Sleep(1100 * time.Millisecond) // the forge knows seconds, and within one nobody knows what came first
	require.NoError(t, reviewer.AddLabels(t.Context(), number, "ready-to-test"))
	require.Contains(t, look().Held[0].Why, "its head is new")
	require.Equal(t, forge.Pending, status(head).State)
	var test e2e.Request
	require.Eventually(t, func() bool {
		found := look()
		if len(found.Start) == 1 {
			test = found.Start[0]
		}
		return test.Number != 0
	}, eventually, shortly, "a member has set the label after the push")
	require.Equal(t, []string{head, "reviewer", "mallory", "dev"}, []string{test.Head, test.By, test.Author, test.Channel})

	// The mirror gets what is in no branch of the repository itself.
	_, err = acts.Repository.Resolve(t.Context(), "topic")
	require.ErrorIs(t, err, channels.ErrUnknown)
	var byHand e2e.Request
	require.NoError(t, activitytest.Worker{}.Run(acts.ResolveTest, workflows.ResolveTest{Number: number, By: "author"}, &byHand))
	require.Equal(t, []string{test.ID, test.Cluster, test.Base, head}, []string{byHand.ID, byHand.Cluster, byHand.Base, byHand.Head})
	_, err = acts.Repository.(*channels.Mirror).Tree(t.Context(), head, "cluster")
	require.NoError(t, err)

	for range 2 {
		require.NoError(t, activitytest.Worker{}.Run(acts.ReportTest, e2e.Report{Request: test, Phase: e2e.Upgrading}, nil))
	}
	require.Equal(t, "Upgrading to the head.", status(head).Description)
	require.Len(t, comments(opened.Index), 1)

	acts.Queue = (&memoryQueue{tests: []e2e.Request{test}}).entries
	moved := push(stranger, "mallory", "topic")
	require.Eventually(t, func() bool {
		found := look()
		return len(found.End) == 1 && len(found.Held) == 1 && found.End[0].ID == test.ID
	}, eventually, shortly, "the new head is not tested by the old label")
	require.Eventually(t, func() bool {
		found := look()
		require.Empty(t, found.Start)
		return len(found.Held) == 1 && comments(opened.Index)[0] != "" && status(moved).State == forge.Pending && strings.Contains(found.Held[0].Why, "pushed since")
	}, eventually, shortly)
	require.NoError(t, activitytest.Worker{}.Run(acts.ReportTest, e2e.Report{Request: test, Phase: e2e.Done, Verdict: e2e.Cancelled, Problem: "Somebody has pushed."}, nil))
	require.Equal(t, "Cancelled: Somebody has pushed.", status(head).Description)
	require.Len(t, comments(opened.Index), 1)
	require.Contains(t, comments(opened.Index)[0], "set it again")

	acts.Queue = (&memoryQueue{}).entries
	push(author, at.Owner, "own")
	own, _, err := author.CreatePullRequest(at.Owner, at.Repository, gitea.CreatePullRequestOption{Head: "own", Base: "dev", Title: "Of a member"})
	require.NoError(t, err)
	require.NoError(t, driver(at.AuthorToken).AddLabels(t.Context(), int(own.Index), "ready-to-test"))
	found := look()
	require.Len(t, found.Start, 1)
	require.Equal(t, []string{"author", "author"}, []string{found.Start[0].By, found.Start[0].Author})
	time.Sleep(1100 * time.Millisecond)
	require.NoError(t, activitytest.Worker{}.Run(acts.ReportTest, e2e.Report{Request: found.Start[0], Phase: e2e.Done, Verdict: e2e.Passed}, nil))
	require.Equal(t, forge.Success, status(found.Start[0].Head).State)
	require.Empty(t, look().Start)
	time.Sleep(1100 * time.Millisecond)
	require.NoError(t, reviewer.RemoveLabel(t.Context(), int(own.Index), "ready-to-test"))
	require.NoError(t, reviewer.AddLabels(t.Context(), int(own.Index), "ready-to-test"))
	require.Len(t, look().Start, 1, "the label was set anew")
}
