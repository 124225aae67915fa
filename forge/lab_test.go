package forge_test

import (
	"crypto/rand"
	"encoding/base64"
	"testing"
	"time"

	"code.gitea.io/sdk/gitea"
	"github.com/stretchr/testify/require"

	"github.com/fairway-project/fairway/forge"
	"github.com/fairway-project/fairway/lab"
)

const (
	eventually = 30 * time.Second
	shortly    = 100 * time.Millisecond
)

func TestGitea(t *testing.T) {
	l, err := lab.StartForge(t.Context(), lab.Options{Dir: t.TempDir(), Out: t.Output()})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, l.Stop()) })
	at := l.Forge()
	as := func(t *testing.T, token string) *gitea.Client {
		client, err := gitea.NewClient(at.URL, gitea.SetContext(t.Context()), gitea.SetGiteaVersion(""), gitea.SetToken(token))
		require.NoError(t, err)
		return client
	}
	operator := as(t, at.OperatorToken)
	team, _, err := operator.CreateTeam(at.Owner, gitea.CreateTeamOption{Name: "platform", Permission: gitea.AccessModeRead, Units: []gitea.RepoUnitType{gitea.RepoUnitCode}})
	require.NoError(t, err)
	_, err = operator.AddTeamMember(team.ID, "reviewer")
	require.NoError(t, err)

	with := func(t *testing.T, token string) forge.Driver {
		driver, err := forge.New(forge.Settings{
			Kind: "gitea", URL: at.URL + "/", Owner: at.Owner, Repository: at.Repository, Token: func() (string, error) { return token + "\n", nil },
		})
		require.NoError(t, err)
		return driver
	}
	driver := with(t, fairwayToken(t, operator, at, team.ID))
	behave(t, world{
		driver: driver,
		admin:  with(t, at.OperatorToken),
		push: func(t *testing.T, base, branch string) string {
			client := as(t, at.AuthorToken)
			options := gitea.FileOptions{Message: "Add something", BranchName: branch}
			if _, _, err := client.GetRepoBranch(at.Owner, at.Repository, branch); err != nil {
				options.BranchName, options.NewBranchName = base, branch
			}
			file, _, err := client.CreateFile(at.Owner, at.Repository, rand.Text()+".txt", gitea.CreateFileOptions{
				FileOptions: options, Content: base64.StdEncoding.EncodeToString([]byte("new\n")),
			})
			require.NoError(t, err)
			return file.Commit.SHA
		},
		remove: func(t *testing.T, branch string) {
			_, _, err := as(t, at.OperatorToken).DeleteRepoBranch(at.Owner, at.Repository, branch)
			require.NoError(t, err)
		},
		review: func(t *testing.T, number int, verdict forge.Verdict, commit string) {
			state := map[forge.Verdict]gitea.ReviewStateType{forge.Approved: gitea.ReviewStateApproved, forge.Rejected: gitea.ReviewStateRequestChanges}[verdict]
			_, _, err := as(t, at.ReviewerToken).CreatePullReview(at.Owner, at.Repository, int64(number), gitea.CreatePullReviewOptions{State: state, Body: "seen", CommitID: commit})
			require.NoError(t, err)
		},
		comment: func(t *testing.T, number int, text string) {
			_, _, err := as(t, at.AuthorToken).CreateIssueComment(at.Owner, at.Repository, int64(number), gitea.CreateIssueCommentOption{Body: text})
			require.NoError(t, err)
		},
		comments: func(t *testing.T, number int) (all []string) {
			list, _, err := as(t, at.AuthorToken).ListIssueComments(at.Owner, at.Repository, int64(number), gitea.ListIssueCommentOptions{})
			require.NoError(t, err)
			for _, c := range list {
				all = append(all, c.Body)
			}
			return all
		},
		statuses: func(t *testing.T, commit string) int {
			list, _, err := as(t, at.AuthorToken).ListStatuses(at.Owner, at.Repository, commit, gitea.ListStatusesOption{})
			require.NoError(t, err)
			return len(list)
		},
	})

	t.Run("a token with too few rights is refused", func(t *testing.T) {
		_, err := driver.CanWrite(t.Context(), "reviewer")
		require.ErrorIs(t, err, forge.ErrRefused)
		_, err = with(t, "of-nobody").PullRequest(t.Context(), 1)
		require.ErrorIs(t, err, forge.ErrRefused)
		require.NotContains(t, err.Error(), "of-nobody")
	})
	t.Run("a forge that is down does not answer", func(t *testing.T) {
		require.NoError(t, l.Part("forge").Kill())
		_, err := driver.PullRequest(t.Context(), 1)
		require.ErrorIs(t, err, forge.ErrUnreachable)
		require.NoError(t, l.Part("forge").Restart(t.Context()))
		_, err = driver.PullRequest(t.Context(), 1)
		require.NoError(t, err)
	})
}

// fairwayToken makes the user fairway-bot and a token with no more rights than docs/forge.md asks for.
func fairwayToken(t *testing.T, operator *gitea.Client, at lab.Forge, team int64) string {
	t.Helper()
	password := rand.Text()
	_, _, err := operator.AdminCreateUser(gitea.CreateUserOption{
		Username: "fairway-bot", Email: "fairway-bot@fairway.test", Password: password, MustChangePassword: gitea.OptionalBool(false),
	})
	require.NoError(t, err)
	write := gitea.AccessModeWrite
	_, err = operator.AddCollaborator(at.Owner, at.Repository, "fairway-bot", gitea.AddCollaboratorOption{Permission: &write})
	require.NoError(t, err)
	_, err = operator.AddTeamMember(team, "fairway-bot")
	require.NoError(t, err)
	itself, err := gitea.NewClient(at.URL, gitea.SetContext(t.Context()), gitea.SetGiteaVersion(""), gitea.SetBasicAuth("fairway-bot", password))
	require.NoError(t, err)
	token, _, err := itself.CreateAccessToken(gitea.CreateAccessTokenOption{
		Name: "fairway", Scopes: []gitea.AccessTokenScope{"write:repository", "write:issue", "read:organization", "read:user"},
	})
	require.NoError(t, err)
	return token.Token
}
