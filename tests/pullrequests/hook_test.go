package pullrequests

import (
	"testing"

	"code.gitea.io/sdk/gitea"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"

	"github.com/fairway-project/fairway/e2e"
	"github.com/fairway-project/fairway/workflows"
)

// While the schedule is paused, nothing but the forge's webhook has pull requests looked at. No other test runs
// beside this one, as it would wait for the schedule.
func TestAWebhookHasALabelledPullRequestTestedAtOnce(t *testing.T) {
	schedule := temporal.ScheduleClient().GetHandle(t.Context(), workflows.LookForTests)
	require.NoError(t, schedule.Pause(t.Context(), client.SchedulePauseOptions{Note: "only webhooks"}))
	hook, _, err := as(t, theLab.Forge().OperatorToken).CreateRepoHook(owner(), repo(), gitea.CreateHookOption{
		Type: gitea.HookTypeGitea, Active: true, Events: []string{"push", "pull_request", "pull_request_label"},
		Config: map[string]string{"url": hookURL, "content_type": "json", "secret": hookSecret},
	})
	require.NoError(t, err)
	r := open(t, quietChannel, "hooked", "Tell by hook", harmless("hooked"))
	r.label()
	reaches(t, r.id(), e2e.Creating)
	r.unlabel()
	require.Equal(t, e2e.Cancelled, ends(t, r.id()).Verdict)
	gone(t, r.cluster())
	_, err = as(t, theLab.Forge().OperatorToken).DeleteRepoHook(owner(), repo(), hook.ID)
	require.NoError(t, err)
	require.NoError(t, schedule.Unpause(t.Context(), client.ScheduleUnpauseOptions{}))
}
