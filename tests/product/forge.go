package product

import (
	"testing"

	"code.gitea.io/sdk/gitea"
	"github.com/stretchr/testify/require"

	"github.com/fairway-project/fairway/lab"
)

// As is somebody's way to the forge, past the lab's proxy.
func As(t *testing.T, l *lab.Lab, token string) *gitea.Client {
	t.Helper()
	client, err := gitea.NewClient("http://"+l.Direct("forge"), gitea.SetContext(t.Context()), gitea.SetGiteaVersion(""), gitea.SetToken(token))
	require.NoError(t, err)
	return client
}

// Comments are what Fairway has written on a pull request.
func Comments(t *testing.T, l *lab.Lab, number int64) (texts []string) {
	t.Helper()
	forge := l.Forge()
	list, _, err := As(t, l, forge.OperatorToken).ListIssueComments(forge.Owner, forge.Repository, number, gitea.ListIssueCommentOptions{})
	require.NoError(t, err)
	for _, each := range list {
		if each.Poster.UserName == "operator" {
			texts = append(texts, each.Body)
		}
	}
	return texts
}
