package lab

import (
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"code.gitea.io/sdk/gitea"
	"github.com/stretchr/testify/require"
)

func TestForge(t *testing.T) {
	t.Parallel()
	require.NoError(t, Build(t.Context(), t.Output(), "gitea"))
	l, err := newLab(Options{Dir: t.TempDir(), Out: t.Output()})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, l.Stop()) })
	require.NoError(t, l.startForge(t.Context()))

	t.Run("channels hold the sample configuration", func(t *testing.T) { testChannelsHoldTheSample(t, l) })
	t.Run("stable takes only what was approved", func(t *testing.T) { testStableTakesOnlyWhatWasApproved(t, l) })
	t.Run("direct pushes are refused", func(t *testing.T) { testDirectPushesAreRefused(t, l) })
	t.Run("webhooks are delivered", func(t *testing.T) { testWebhooksAreDelivered(t, l) })
	t.Run("data survives a kill", func(t *testing.T) { testDataSurvivesAKill(t, l) })
	t.Run("logs hold no token", func(t *testing.T) { testLogsHoldNoToken(t, l) })
}

// as talks to the forge the way the product does: through the proxy.
func (f Forge) as(t *testing.T, token string) *gitea.Client {
	t.Helper()
	client, err := gitea.NewClient(f.URL, gitea.SetContext(t.Context()), gitea.SetGiteaVersion(""), gitea.SetToken(token))
	require.NoError(t, err)
	return client
}

// clone checks a channel out as the owner of the token.
func (f Forge) clone(t *testing.T, channel, token string) (dir string, git func(args ...string) (string, error)) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "config")
	env := append([]string{
		"GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=http.extraHeader", "GIT_CONFIG_VALUE_0=Authorization: token " + token,
		"GIT_AUTHOR_NAME=somebody", "GIT_AUTHOR_EMAIL=somebody@fairway.test", "GIT_COMMITTER_NAME=somebody", "GIT_COMMITTER_EMAIL=somebody@fairway.test",
	}, gitEnv...)
	_, err := run(t.Context(), t.TempDir(), env, "git", "clone", "--quiet", "--branch", channel, f.URL+"/"+f.Owner+"/"+f.Repository+".git", dir)
	require.NoError(t, err)
	return dir, func(args ...string) (string, error) { return run(t.Context(), dir, env, "git", args...) }
}

// propose opens a pull request that adds a file to a channel.
func (f Forge) propose(t *testing.T, client *gitea.Client, channel, file string) *gitea.PullRequest {
	t.Helper()
	_, _, err := client.CreateFile(f.Owner, f.Repository, file, gitea.CreateFileOptions{
		FileOptions: gitea.FileOptions{Message: "Add " + file, BranchName: channel, NewBranchName: "add-" + file},
		Content:     base64.StdEncoding.EncodeToString([]byte("new\n")),
	})
	require.NoError(t, err)
	request, _, err := client.CreatePullRequest(f.Owner, f.Repository, gitea.CreatePullRequestOption{
		Head: "add-" + file, Base: channel, Title: "Add " + file,
	})
	require.NoError(t, err)
	return request
}

func testChannelsHoldTheSample(t *testing.T, l *Lab) {
	repository, _, err := l.Forge().as(t, l.Forge().ReviewerToken).GetRepo(forgeOwner, forgeRepository)
	require.NoError(t, err)
	require.Equal(t, "dev", repository.DefaultBranch, "who clones it changes what comes first")
	for _, channel := range []string{"dev", "alpha", "stable"} {
		dir, git := l.Forge().clone(t, channel, l.Forge().ReviewerToken)
		_, err := run(t.Context(), dir, nil, "diff", "--recursive", "--exclude=.git", filepath.Join(l.root, "lab", "sample", "config"), dir)
		require.NoError(t, err, "%s differs from the sample", channel)
		landed, err := git("log", "--first-parent", "--format=%s", "origin/"+channel)
		require.NoError(t, err)
		require.Len(t, strings.Split(strings.TrimSpace(landed), "\n"), len(landings), landed)
		heads, err := git("ls-remote", "--heads", "origin")
		require.NoError(t, err)
		require.Equal(t, 3, strings.Count(heads, "refs/heads/"), heads)
	}
}

func testStableTakesOnlyWhatWasApproved(t *testing.T, l *Lab) {
	forge := l.Forge()
	author, reviewer := forge.as(t, forge.AuthorToken), forge.as(t, forge.ReviewerToken)
	request := forge.propose(t, author, "stable", "hotfix.txt")

	merge := gitea.MergePullRequestOption{Style: gitea.MergeStyleMerge, HeadCommitId: request.Head.Sha}
	merged, response, err := author.MergePullRequest(forge.Owner, forge.Repository, request.Index, merge)
	require.NoError(t, err)
	require.False(t, merged, "merged without an approval")
	require.Equal(t, http.StatusMethodNotAllowed, response.StatusCode)

	_, _, err = reviewer.CreatePullReview(forge.Owner, forge.Repository, request.Index,
		gitea.CreatePullReviewOptions{State: gitea.ReviewStateApproved, Body: "fine", CommitID: request.Head.Sha})
	require.NoError(t, err)
	require.Eventually(t, func() bool { // right after a refusal the forge may ask to try again
		merged, _, err := author.MergePullRequest(forge.Owner, forge.Repository, request.Index, merge)
		return err == nil && merged
	}, 30*time.Second, 200*time.Millisecond)
	content, _, err := author.GetFile(forge.Owner, forge.Repository, "stable", "hotfix.txt")
	require.NoError(t, err)
	require.Equal(t, "new\n", string(content))
}

func testDirectPushesAreRefused(t *testing.T, l *Lab) {
	forge := l.Forge()
	for _, c := range []struct {
		who, token, channel string
		allowed             bool
	}{
		{"author", forge.AuthorToken, "dev", true},
		{"author", forge.AuthorToken, "alpha", false},
		{"operator", forge.OperatorToken, "alpha", true},
		{"author", forge.AuthorToken, "stable", false},
		{"operator", forge.OperatorToken, "stable", false},
	} {
		_, git := forge.clone(t, c.channel, c.token)
		_, err := git("commit", "--quiet", "--allow-empty", "--message", "straight in")
		require.NoError(t, err)
		_, err = git("push", "--quiet")
		if c.allowed {
			require.NoError(t, err, "%s on %s", c.who, c.channel)
		} else {
			require.ErrorContains(t, err, "protected branch "+c.channel, "%s on %s", c.who, c.channel)
		}
	}
}

func testWebhooksAreDelivered(t *testing.T, l *Lab) {
	forge := l.Forge()
	const secret = "of the hook"
	pushed := make(chan string, 10)
	listener := httptest.NewServer(gitea.VerifyWebhookSignatureMiddleware(secret)(http.HandlerFunc(
		func(_ http.ResponseWriter, r *http.Request) { pushed <- r.Header.Get("X-Gitea-Event") })))
	t.Cleanup(listener.Close)
	_, _, err := forge.as(t, forge.OperatorToken).CreateRepoHook(forge.Owner, forge.Repository, gitea.CreateHookOption{
		Type: gitea.HookTypeGitea, Active: true, Events: []string{"push"},
		Config: map[string]string{"url": listener.URL, "content_type": "json", "secret": secret},
	})
	require.NoError(t, err)

	_, git := forge.clone(t, "dev", forge.AuthorToken)
	_, err = git("commit", "--quiet", "--allow-empty", "--message", "news")
	require.NoError(t, err)
	_, err = git("push", "--quiet")
	require.NoError(t, err)
	select {
	case event := <-pushed:
		require.Equal(t, "push", event)
	case <-time.After(10 * time.Second):
		require.Fail(t, "no webhook came", l.Part("forge").Tail(20))
	}
}

func testDataSurvivesAKill(t *testing.T, l *Lab) {
	forge := l.Forge()
	author := forge.as(t, forge.AuthorToken)
	request := forge.propose(t, author, "dev", "change.txt")

	require.NoError(t, l.Part("forge").Kill())
	_, _, err := author.GetPullRequest(forge.Owner, forge.Repository, request.Index)
	require.Error(t, err, "it answers although it was killed")
	require.NoError(t, l.Part("forge").Restart(t.Context()))

	found, _, err := author.GetPullRequest(forge.Owner, forge.Repository, request.Index)
	require.NoError(t, err)
	require.Equal(t, request.Head.Sha, found.Head.Sha)
	require.Equal(t, forge, l.Forge(), "addresses and tokens stay")
}

func testLogsHoldNoToken(t *testing.T, l *Lab) {
	forge := l.Forge()
	err := filepath.WalkDir(l.path("log"), func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		log, err := os.ReadFile(path)
		for _, token := range []string{forge.OperatorToken, forge.AuthorToken, forge.ReviewerToken} {
			require.NotContains(t, string(log), token, path)
		}
		return err
	})
	require.NoError(t, err)
}
