package main

import (
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"

	"github.com/fairway-project/fairway/activities/blocks"
	"github.com/fairway-project/fairway/channels/channelstest"
	"github.com/fairway-project/fairway/config"
	"github.com/fairway-project/fairway/forge"
	"github.com/fairway-project/fairway/promotion"
	"github.com/fairway-project/fairway/workflows"
)

// commits makes commits with files, each a merge if it has more than one parent.
type commits struct {
	channelstest.Repository
	count int
}

func (c *commits) on(branch, message string, files map[string]string, parents ...string) string {
	c.count++
	text := fmt.Sprintf("commit refs/heads/%s\ncommitter Anna <anna@example.org> %d +0000\ndata %d\n%s\n", branch, 1_700_000_000+c.count, len(message), message)
	for i, parent := range parents {
		text += map[bool]string{true: "from ", false: "merge "}[i == 0] + parent + "\n"
	}
	for name, content := range files {
		text += fmt.Sprintf("M 100644 inline %s\ndata %d\n%s\n", name, len(content), content)
	}
	c.GitWith(text, "fast-import", "--quiet", "--force")
	return c.Git("rev-parse", "refs/heads/"+branch)
}

// knownRequests is a forge that knows the pull requests of some commits.
type knownRequests struct {
	forge.Driver
	of    map[string]int
	err   error
	asked []string
}

func (k *knownRequests) PullRequestsOf(_ context.Context, commit string) ([]forge.PullRequest, error) {
	k.asked = append(k.asked, commit)
	if number := k.of[commit]; number > 0 {
		return []forge.PullRequest{{Number: number}}, nil
	}
	return nil, k.err
}

func TestHowLandingsGotOntoAChannelIsSeenFromTheRepository(t *testing.T) {
	c := &commits{Repository: channelstest.New(t)}
	base := c.on("dev", "Begin", map[string]string{"a": "1\n"})
	change := c.on("dev", "Change", map[string]string{"b": "1\n"}, base)
	picked := c.on("dev", "Pick me", map[string]string{"c": "1\n"}, change)
	c.on("dev", "Go on", map[string]string{"c": "2\n"}, picked)

	want := []promotion.Kind{}
	head := base
	land := func(kind promotion.Kind, message string, files map[string]string, merged ...string) string {
		head = c.on("alpha", message, files, append([]string{head}, merged...)...)
		want = append(want, kind)
		return head
	}
	land(promotion.Promoted, "Promote", map[string]string{"b": "1\n"}, change)
	fix := c.on("fix", "Fix", map[string]string{"fix": "1\n"}, head)
	land(promotion.Hotfix, "Merge a fix", map[string]string{"fix": "1\n"}, fix)
	pick := c.on("pick", "Pick me", map[string]string{"c": "1\n"}, head)
	land(promotion.Hotfix, "Merge a pick", map[string]string{"c": "1\n"}, pick)
	more := c.on("more", "More", map[string]string{"more": "1\n"}, picked)
	land(promotion.Mixed, "Merge what is on dev, and more", map[string]string{"more": "1\n"}, more)
	sound := head
	land(promotion.Direct, "Push", map[string]string{"pushed": "1\n"})
	squashed := land(promotion.Hotfix, "Squashed", map[string]string{"squashed": "1\n"})
	land(promotion.Direct, "Claim\n\nFairway-Revert-To: "+sound, map[string]string{"claim": "1\n"})
	tree := c.Git("rev-parse", sound+"^{tree}")
	head = c.Git("commit-tree", tree, "-p", head, "-m", "Set back\n\nFairway-Revert-To: "+sound)
	c.Git("update-ref", "refs/heads/alpha", head)
	want = append(want, promotion.Reverted)
	land(promotion.Direct, "Hostile\n\nFairway-Revert-To: --all", map[string]string{"hostile": "1\n"})

	driver := &knownRequests{of: map[string]int{squashed: 3}}
	pipeline := promotion.Pipeline{Edges: []promotion.Edge{{From: "dev", To: "alpha"}, {From: "gone", To: "alpha"}}}
	mirror := c.Mirror()
	kinds := func(landings []promotion.Landing) (kinds []promotion.Kind) {
		for _, landing := range landings {
			kinds = append(kinds, landing.Kind)
		}
		return kinds
	}
	found, rewritten, err := landingsOf(mirror, pipeline, driver)(t.Context(), "alpha", base, head)
	require.NoError(t, err)
	require.False(t, rewritten)
	require.Equal(t, want, kinds(found))
	require.Equal(t, "Promote", found[0].Title)
	require.Equal(t, "Anna", found[0].Author)
	require.Len(t, driver.asked, 4, "the forge is asked about what looks pushed by hand only")

	driver.err = forge.ErrUnreachable
	found, _, err = landingsOf(mirror, pipeline, driver)(t.Context(), "alpha", squashed, head)
	require.NoError(t, err)
	require.Equal(t, []promotion.Kind{"", promotion.Reverted, ""}, kinds(found), "what the forge would know is left open")
	require.Len(t, driver.asked, 5, "one that does not answer is not asked again for each landing")
	found, _, err = landingsOf(mirror, pipeline, nil)(t.Context(), "alpha", squashed, head)
	require.NoError(t, err)
	require.Equal(t, want[6:], kinds(found))

	found, rewritten, err = landingsOf(mirror, pipeline, nil)(t.Context(), "dev", strings.Repeat("1", 40), c.Git("rev-parse", "dev"))
	require.NoError(t, err)
	require.True(t, rewritten)
	require.Equal(t, []promotion.Kind{promotion.Changed, promotion.Changed, promotion.Changed, promotion.Changed}, kinds(found), "nothing is promoted to dev")
}

// signalled takes signals, and counts them by workflow.
type signalled struct {
	client.Client
	mu   sync.Mutex
	told []string
	err  map[string]error
}

func (s *signalled) SignalWorkflow(_ context.Context, id, _, signal string, arg any) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.told = append(s.told, fmt.Sprint(id, " ", signal, " ", arg))
	slices.Sort(s.told)
	return s.err[id]
}

var someEdges = promotion.Pipeline{Edges: []promotion.Edge{
	{From: "dev", To: "alpha", Mode: promotion.Merge}, {From: "alpha", To: "beta", Mode: promotion.Merge, PersonFor: []promotion.Class{promotion.NodesRoll}},
	{From: "beta", To: "stable", Mode: promotion.ByPullRequest},
}}

func TestPromotionsThatMayWaitForPullRequestsAreToldToLook(t *testing.T) {
	s := &signalled{err: map[string]error{"promotion/beta-to-stable": serviceerror.NewNotFound("no such workflow")}}
	require.NoError(t, lookAtForge(t.Context(), s, someEdges), "where none is under way there is nothing to tell")
	require.Equal(t, []string{"promotion/alpha-to-beta look <nil>", "promotion/beta-to-stable look <nil>"}, s.told)
	s.err["promotion/alpha-to-beta"] = errors.New("no answer")
	require.ErrorContains(t, lookAtForge(t.Context(), s, someEdges), "telling promotion/alpha-to-beta to look: no answer")
}

// A forged hook does nothing, and one that is replayed has Fairway look for itself once more.
func TestHooksTellPromotionsNothingButToLook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		s := &signalled{}
		h := testHook()
		go h.work(ctx, func(ctx context.Context) error { return lookAtForge(ctx, s, someEdges) })
		const lie = `{"action":"closed","pull_request":{"number":1,"merged":true},"review":{"state":"approved"}}`
		send := func(key string) {
			request := httptest.NewRequest("POST", "/hooks/sync", strings.NewReader(lie))
			request.Header.Set("X-Gitea-Signature", sign(key, lie))
			h.ServeHTTP(httptest.NewRecorder(), request)
		}
		for range 50 {
			send("the key of somebody else")
		}
		time.Sleep(time.Minute)
		require.Empty(t, s.told)
		for range 50 {
			send(secret)
		}
		time.Sleep(time.Minute)
		require.Len(t, s.told, 4, "two edges, at once and once more for all that came meanwhile")
		for _, told := range s.told {
			require.True(t, strings.HasSuffix(told, " look <nil>"), told)
		}
		cancel()
		synctest.Wait()
	})
}

func TestPromotionsAreRegisteredAndSayWhatIsNotConfigured(t *testing.T) {
	var suite testsuite.WorkflowTestSuite
	env := suite.NewTestActivityEnvironment()
	c := config.Config{Pipeline: someEdges}
	registerPromotions(env, c, nil, nil, nil, blocks.Asker{})
	of := workflows.PromotionOf{Record: promotion.Record{
		ID: promotion.ID("beta", "stable", "abc"), From: "beta", To: "stable", Candidate: "abc", Began: time.Unix(1, 0),
	}}
	for name, in := range map[string]any{
		"ChoosePromotion": workflows.ChoosePromotion{From: "beta", To: "stable"}, "MergePromotion": of, "OpenPromotion": of, "FollowPromotion": of, "ReportConflict": of,
		"WithdrawPromotion": of, "ReportPromotion": of, "ListLacking": workflows.ListLacking{Channel: "stable"},
		"RevertChannel": workflows.RevertChannel{Channel: "stable", To: "abc", Reason: "x"},
	} {
		_, err := env.ExecuteActivity(name, in)
		var typed *temporal.ApplicationError
		require.ErrorAs(t, err, &typed, name)
		require.Equal(t, workflows.InvalidInput, typed.Type(), name)
		require.Regexp(t, `set (repository\.url|forge\.kind)`, err.Error(), name)
	}
}
