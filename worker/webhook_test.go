package main

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/fairway-project/fairway/config"
)

const secret = "0123456789abcdef0123"

func sign(key, body string) string {
	mac := hmac.New(sha256.New, []byte(key))
	_, _ = mac.Write([]byte(body))
	return hex.EncodeToString(mac.Sum(nil))
}

func testHook() *webhook {
	h := newWebhook(config.Webhook{}, zap.NewNop())
	h.secret = func() (string, error) { return secret, nil }
	return h
}

func TestOnlySignedHooksStartASync(t *testing.T) {
	const body = `{"ref":"refs/heads/dev"}`
	large := strings.Repeat("x", maxHook+1)
	for rule, c := range map[string]struct {
		body   string
		header map[string]string
		want   int
	}{
		"GitHub's signature":           {body, map[string]string{"X-Hub-Signature-256": "sha256=" + sign(secret, body)}, http.StatusAccepted},
		"Gitea's signature":            {body, map[string]string{"X-Gitea-Signature": sign(secret, body)}, http.StatusAccepted},
		"an empty body that is":        {"", map[string]string{"X-Gitea-Signature": sign(secret, "")}, http.StatusAccepted},
		"no signature":                 {body, nil, http.StatusUnauthorized},
		"an empty one":                 {body, map[string]string{"X-Hub-Signature-256": "sha256=", "X-Gitea-Signature": ""}, http.StatusUnauthorized},
		"no hexadecimal digits":        {body, map[string]string{"X-Gitea-Signature": "zz"}, http.StatusUnauthorized},
		"another key's":                {body, map[string]string{"X-Gitea-Signature": sign("another key, as long", body)}, http.StatusUnauthorized},
		"of another body":              {body + " ", map[string]string{"X-Hub-Signature-256": "sha256=" + sign(secret, body)}, http.StatusUnauthorized},
		"cut off":                      {body, map[string]string{"X-Gitea-Signature": sign(secret, body)[:32]}, http.StatusUnauthorized},
		"without its algorithm":        {body, map[string]string{"X-Hub-Signature-256": sign(secret, body)}, http.StatusUnauthorized},
		"of the weaker kind":           {body, map[string]string{"X-Hub-Signature": "sha1=" + sign(secret, body)}, http.StatusUnauthorized},
		"too large, though signed":     {large, map[string]string{"X-Gitea-Signature": sign(secret, large)}, http.StatusRequestEntityTooLarge},
		"as large as it may be":        {large[1:], map[string]string{"X-Gitea-Signature": sign(secret, large[1:])}, http.StatusAccepted},
		"one of two is enough":         {body, map[string]string{"X-Gitea-Signature": "00", "X-Hub-Signature-256": "sha256=" + sign(secret, body)}, http.StatusAccepted},
		"upper case digits are digits": {body, map[string]string{"X-Gitea-Signature": strings.ToUpper(sign(secret, body))}, http.StatusAccepted},
	} {
		t.Run(rule, func(t *testing.T) {
			h := testHook()
			request := httptest.NewRequest(http.MethodPost, "/hooks/sync", strings.NewReader(c.body))
			for name, value := range c.header {
				request.Header.Set(name, value)
			}
			answer := httptest.NewRecorder()
			h.ServeHTTP(answer, request)
			require.Equal(t, c.want, answer.Code)
			require.Len(t, h.asked, map[bool]int{true: 1, false: 0}[c.want == http.StatusAccepted])
		})
	}
}

func TestManyHooksAreFewSyncs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		h := testHook()
		syncs := 0
		go h.work(ctx, func(context.Context) error {
			syncs++
			return errors.New("Temporal does not answer") // which ends nothing
		})
		for range 100 { // a hook that is sent again and again, over a second
			request := httptest.NewRequest(http.MethodPost, "/hooks/sync", strings.NewReader("x"))
			request.Header.Set("X-Gitea-Signature", sign(secret, "x"))
			h.ServeHTTP(httptest.NewRecorder(), request)
			time.Sleep(10 * time.Millisecond)
		}
		time.Sleep(time.Minute)
		require.Equal(t, 2, syncs, "one at once, and one for all that came meanwhile")
		cancel()
		synctest.Wait()
	})
}

func TestTheWebhookIsServed(t *testing.T) {
	file := filepath.Join(t.TempDir(), "secret")
	require.NoError(t, os.WriteFile(file, []byte(secret+"\n"), 0o600))
	synced := make(chan struct{}, 1)
	address := freeAddress()
	require.NoError(t, serveWebhook(t.Context(), config.Webhook{Listen: address, SecretFile: file}, func(context.Context) error {
		synced <- struct{}{}
		return nil
	}, zap.NewNop()))
	post := func(method, path, signature string) int {
		request, err := http.NewRequestWithContext(t.Context(), method, "http://"+address+path, strings.NewReader("x"))
		require.NoError(t, err)
		request.Header.Set("X-Gitea-Signature", signature)
		answer, err := http.DefaultClient.Do(request)
		require.NoError(t, err)
		require.NoError(t, answer.Body.Close())
		return answer.StatusCode
	}
	require.Equal(t, http.StatusAccepted, post(http.MethodPost, "/hooks/sync", sign(secret, "x")))
	<-synced
	require.Equal(t, http.StatusMethodNotAllowed, post(http.MethodGet, "/hooks/sync", ""))
	require.Equal(t, http.StatusNotFound, post(http.MethodPost, "/", ""))

	require.NoError(t, os.WriteFile(file, []byte("fedcba9876543210"), 0o600))
	require.Equal(t, http.StatusUnauthorized, post(http.MethodPost, "/hooks/sync", sign(secret, "x")), "the secret was changed")
	require.NoError(t, os.Remove(file))
	require.Equal(t, http.StatusServiceUnavailable, post(http.MethodPost, "/hooks/sync", sign(secret, "x")))
}

func TestAWebhookNeedsASecret(t *testing.T) {
	t.Setenv("HOOK", "short")
	require.ErrorContains(t, serveWebhook(t.Context(), config.Webhook{Listen: "127.0.0.1:0", SecretEnv: "HOOK"}, nil, zap.NewNop()),
		"worker.webhook.secret_env: the secret has 5 characters; it needs at least 16")
	require.ErrorContains(t, serveWebhook(t.Context(), config.Webhook{Listen: "127.0.0.1:0", SecretEnv: "HOOK_THAT_IS_NOT_SET"}, nil, zap.NewNop()), "0 characters")
	require.ErrorContains(t, serveWebhook(t.Context(), config.Webhook{Listen: "127.0.0.1:0", SecretFile: "/does/not/exist"}, nil, zap.NewNop()), "worker.webhook.secret_file")
}
