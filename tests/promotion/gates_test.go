package promotion

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"code.gitea.io/sdk/gitea"
	"github.com/stretchr/testify/require"

	"github.com/fairway-project/fairway/config"
	"github.com/fairway-project/fairway/promotion"
	"github.com/fairway-project/fairway/tests/product"
)

// shopErrors is what Prometheus measures.
var shopErrors atomic.Int64

// smoke is what the gate of kind http asks, and Prometheus. It answers 503 but for the paths that it was
// told are fine.
var smoke, fine = func() (*httptest.Server, *sync.Map) {
	paths := &sync.Map{}
	return httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/metrics" {
			fmt.Fprintf(w, "shop_errors{channel=\"gate-dev\"} %d\n", shopErrors.Load())
			return
		}
		if _, found := paths.Load(r.URL.Path); !found {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})), paths
}()

func TestAPromotionWaitsForItsGates(t *testing.T) {
	t.Parallel()
	c := newClone(t)
	shopErrors.Store(7)
	commit := c.Push("gate-dev", "Tested later", map[string]string{"cluster/manifests/gate/config.yaml": configMap("gate", "x")})
	knows(t, "gate-dev", commit)
	dry := func() string { return fairway(t, "promote", "gate-dev", "gate-alpha", "--dry-run") }
	require.Eventually(t, func() bool {
		text := dry()
		return strings.Contains(text, "fairway/e2e") && strings.Contains(text, "503")
	}, patience, time.Second)
	fine.Store("/gate-dev/"+commit, true)
	status(t, commit, "fairway/e2e", gitea.StatusPending)
	require.Eventually(t, func() bool { return strings.Contains(dry(), "pending") }, patience, time.Second)
	status(t, commit, "fairway/e2e", gitea.StatusSuccess)
	require.Eventually(t, func() bool {
		text := dry()
		return strings.Contains(text, "shop_errors") && !strings.Contains(text, "pending")
	}, patience, time.Second, "only Prometheus holds it")
	require.False(t, c.has("gate-alpha", commit))
	require.NoError(t, theLab.Fault("prometheus").Cut())
	shopErrors.Store(0)
	require.Eventually(t, func() bool { return strings.Contains(dry(), "cannot be asked") }, patience, time.Second, "a gate that cannot be read is not passed")
	require.False(t, c.has("gate-alpha", commit))
	require.NoError(t, theLab.Fault("prometheus").Heal())
	c.arrives("gate-alpha", commit)
	record := recorded(t, "gate-dev", "gate-alpha", commit, promotion.Merged)
	passed := map[string]bool{}
	for _, gate := range record.Gates {
		passed[gate.Name] = gate.Passed
	}
	require.True(t, passed["e2e"] && passed["smoke"] && passed["errors"], "%v", record.Gates)

	// In an emergency a person goes on without one of them, with a reason that is kept.
	urgent := c.Push("gate-dev", "Urgent", map[string]string{"cluster/manifests/gate/config.yaml": configMap("gate", "y")})
	knows(t, "gate-dev", urgent)
	fine.Store("/gate-dev/"+urgent, true)
	_, code, err := command(t.Context(), "promote", "gate-dev", "gate-alpha", "--now")
	require.NoError(t, err)
	require.NotZero(t, code, "it needs a reason")
	fairway(t, "promote", "gate-dev", "gate-alpha", "--now", "--skip-gate", "e2e", "--reason", "the shop is down")
	c.arrives("gate-alpha", urgent)
	merge := c.mergedOnce("gate-alpha", "gate-dev", urgent)
	require.Contains(t, c.Git("log", "-1", "--format=%B", merge), "the shop is down")
	require.Equal(t, "the shop is down", recorded(t, "gate-dev", "gate-alpha", urgent, promotion.Merged).Reason)
}

func TestABlockOfAChannelHoldsPromotionsOutOfItAndIntoIt(t *testing.T) {
	t.Parallel()
	c := newClone(t)
	for _, name := range []string{"block-alpha", "block-dev"} {
		fairway(t, "channel", "block", name, "--reason", "we look at something")
		commit := c.Push("block-dev", "Held by a block of "+name, map[string]string{"cluster/manifests/block/config.yaml": configMap("block", name)})
		knows(t, "block-dev", commit)
		require.Eventually(t, func() bool {
			return strings.Contains(fairway(t, "promote", "block-dev", "block-alpha", "--dry-run"), "we look at something")
		}, patience, time.Second)
		require.False(t, c.has("block-alpha", commit))
		fairway(t, "channel", "unblock", name)
		c.arrives("block-alpha", commit)
		c.mergedOnce("block-alpha", "block-dev", commit)
	}
}

// All other tests wait meanwhile: it stops the line for them, too.
func TestABlockOfTheFleetStopsTheLine(t *testing.T) {
	c := newClone(t)
	fairway(t, "fleet", "block", "--reason", "an outage", "--for", "10m")
	commit := c.Push("fleet-dev", "Held by the fleet", map[string]string{"cluster/manifests/fleet/config.yaml": configMap("fleet", "x")})
	knows(t, "fleet-dev", commit)
	require.Eventually(t, func() bool {
		return strings.Contains(fairway(t, "promote", "fleet-dev", "fleet-alpha", "--dry-run"), "an outage")
	}, patience, time.Second)
	_, code, err := command(t.Context(), "promote", "fleet-dev", "fleet-alpha", "--now", "--reason", "in a hurry")
	require.NoError(t, err)
	require.NotZero(t, code, "a block holds whoever is in a hurry")
	require.False(t, c.has("fleet-alpha", commit))
	fairway(t, "fleet", "unblock")
	c.arrives("fleet-alpha", commit)
	c.mergedOnce("fleet-alpha", "fleet-dev", commit)
}

func TestAFreezeHoldsAPromotionUntilAPersonGoesOnWithAReason(t *testing.T) {
	t.Parallel()
	c := newClone(t)
	commit := c.Push("night-dev", "In the sale", map[string]string{"cluster/manifests/night/config.yaml": configMap("night", "x")})
	knows(t, "night-dev", commit)
	require.Eventually(t, func() bool {
		return strings.Contains(fairway(t, "promote", "night-dev", "night-alpha", "--dry-run"), "sale")
	}, patience, time.Second)
	require.False(t, c.has("night-alpha", commit))
	fairway(t, "promote", "night-dev", "night-alpha", "--now", "--reason", "the sale breaks without it")
	c.arrives("night-alpha", commit)
	require.Contains(t, c.Git("log", "-1", "--format=%B", c.mergedOnce("night-alpha", "night-dev", commit)), "the sale breaks without it")
}

// The forge tells of an approval by a webhook, so that nobody waits for the next look.
func TestWebhooksOnlyHaveFairwayLookSooner(t *testing.T) {
	t.Parallel()
	send := func(secret string, body string, event string) int {
		mac := hmac.New(sha256.New, []byte(secret))
		mac.Write([]byte(body))
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, hookURL, bytes.NewBufferString(body))
		require.NoError(t, err)
		request.Header.Set("X-Gitea-Signature", hex.EncodeToString(mac.Sum(nil)))
		request.Header.Set("X-Gitea-Event", event)
		var answer *http.Response
		require.Eventually(t, func() bool {
			answer, err = http.DefaultClient.Do(request.Clone(t.Context()))
			request.Body = http.NoBody
			request.Body, _ = request.GetBody()
			return err == nil
		}, patience, time.Second)
		defer answer.Body.Close()
		return answer.StatusCode
	}
	c := newClone(t)
	commit := c.Push("hook-alpha", "Tell by hook", map[string]string{"cluster/manifests/hook/config.yaml": configMap("hook", "x")})
	request := opened(t, "hook-stable", commit)

	// What hooks say is not believed: these claim that it is approved and merged.
	lie := `{"action":"closed","pull_request":{"number":1,"merged":true,"state":"closed","head":{"sha":"` + commit + `"}},"review":{"state":"approved"}}`
	require.Equal(t, http.StatusUnauthorized, send("secret-of-somebody", lie, "pull_request"))
	for range 20 { // replayed
		require.Equal(t, http.StatusAccepted, send(hookSecret, lie, "pull_request_approved"))
	}
	says(t, request.Index, "approv")
	require.False(t, c.has("hook-stable", commit))
	_, _, err := as(t, theLab.Forge().OperatorToken).CreateRepoHook(owner(), repo(), gitea.CreateHookOption{
		Type: gitea.HookTypeGitea, Active: true, Events: []string{"push", "pull_request", "pull_request_review", "status"},
		Config: map[string]string{"url": hookURL, "content_type": "json", "secret": hookSecret},
	})
	require.NoError(t, err)
	review(t, request.Index, commit, gitea.ReviewStateApproved)
	c.arrives("hook-stable", commit)
	c.mergedOnce("hook-stable", "hook-alpha", commit)
}

func TestSchedulesAreMadeChangedAndRemovedFromTheConfiguration(t *testing.T) {
	t.Parallel()
	require.Contains(t, fairway(t, "schedule", "list"), "promotion/gone-dev-to-gone-alpha")
	var applied struct {
		Schedules []struct {
			ID     string `json:"id"`
			Action string `json:"action"`
		} `json:"schedules"`
	}
	answers(t, &applied, "schedule", "apply")
	require.NotEmpty(t, applied.Schedules)
	for _, each := range applied.Schedules {
		require.Equal(t, "unchanged", each.Action, each.ID)
	}
	c, err := config.Load(env["FAIRWAY_CONFIG"])
	require.NoError(t, err)
	c.Pipeline.Edges = c.Pipeline.Edges[:len(c.Pipeline.Edges)-1]
	shorter, err := product.Written("shorter.yaml", c)
	require.NoError(t, err)
	dry := fairway(t, "schedule", "apply", "--dry-run", "--config", shorter)
	require.Contains(t, dry, "promotion/gone-dev-to-gone-alpha")
	require.Contains(t, fairway(t, "schedule", "list"), "promotion/gone-dev-to-gone-alpha")
	fairway(t, "schedule", "apply", "--config", shorter)
	require.NotContains(t, fairway(t, "schedule", "list"), "promotion/gone-dev-to-gone-alpha")
}
