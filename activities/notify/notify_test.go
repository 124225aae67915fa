package notify_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/temporal"

	"github.com/fairway-project/fairway/activities/notify"
	"github.com/fairway-project/fairway/config"
	"github.com/fairway-project/fairway/workflows"
)

var soon = workflows.Notification{
	ID: "force-soon/1", Kind: workflows.ForceSoon, Cluster: "dev-1", Pool: "workers", Node: "n1", Pod: "shop/web-1", Owner: "anchor",
	Text: "Pod shop/web-1 will be deleted.", At: time.Date(2026, time.March, 1, 12, 0, 0, 0, time.UTC),
}

// named is another notification.
func named(id string) workflows.Notification {
	n := soon
	n.ID, n.Text = id, "About "+id+"."
	return n
}

const path = "/services/T0/hush"

// hook serves at an address whose path is a secret, and counts the calls.
type hook struct {
	*httptest.Server
	calls atomic.Int32
	mutex sync.Mutex
	last  *http.Request
	body  []byte
}

func serve(t *testing.T, answer http.HandlerFunc) *hook {
	t.Helper()
	h := &hook{}
	h.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.calls.Add(1)
		body, _ := io.ReadAll(r.Body)
		h.mutex.Lock()
		h.last, h.body = r, body
		h.mutex.Unlock()
		answer(w, r)
	}))
	t.Cleanup(h.Close)
	t.Setenv("HOOK", h.URL+path)
	return h
}

func status(code int, header ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(code)
		_, _ = io.WriteString(w, strings.Repeat("whatever ", 100_000))
	}
}

func settings(change ...func(*config.Notify)) config.Notify {
	s := config.Notify{URLEnv: "HOOK", Timeout: 5 * time.Second}
	for _, change := range change {
		change(&s)
	}
	return s
}

func TestANotificationIsPostedAsJSON(t *testing.T) {
	h := serve(t, status(http.StatusNoContent))
	require.NoError(t, (&notify.Activities{Settings: settings()}).Notify(t.Context(), soon))
	require.Equal(t, int32(1), h.calls.Load())
	require.Equal(t, http.MethodPost, h.last.Method)
	require.Equal(t, path, h.last.URL.Path)
	require.Equal(t, "application/json", h.last.Header.Get("Content-Type"))
	require.Empty(t, h.last.Header.Get(notify.Signature))
	var got workflows.Notification
	require.NoError(t, json.Unmarshal(h.body, &got))
	require.Equal(t, soon, got)
	var shown struct{ Text string }
	require.NoError(t, json.Unmarshal(h.body, &shown))
	require.Equal(t, soon.Text, shown.Text, "Slack and Mattermost show this field")
}

func TestANotificationIsSignedWithTheSecretOfTheMoment(t *testing.T) {
	h := serve(t, status(http.StatusOK))
	file := filepath.Join(t.TempDir(), "secret")
	a := notify.Activities{Settings: settings(func(s *config.Notify) { s.SecretFile = file })}
	for _, secret := range []string{"first", "second"} {
		require.NoError(t, os.WriteFile(file, []byte(secret+"\n"), 0o600))
		require.NoError(t, a.Notify(t.Context(), named(secret)))
		mac := hmac.New(sha256.New, []byte(secret))
		mac.Write(h.body)
		require.Equal(t, "sha256="+hex.EncodeToString(mac.Sum(nil)), h.last.Header.Get("X-Fairway-Signature"))
	}
}

func TestNobodyIsToldWhatHeDoesNotWant(t *testing.T) {
	h := serve(t, status(http.StatusOK))
	require.NoError(t, (&notify.Activities{Settings: config.Notify{}}).Notify(t.Context(), soon), "there is no hook")
	only := notify.Activities{Settings: settings(func(s *config.Notify) { s.Kinds = []string{workflows.Forced} })}
	require.NoError(t, only.Notify(t.Context(), soon))
	require.Zero(t, h.calls.Load())
	forced := soon
	forced.Kind = workflows.Forced
	require.NoError(t, only.Notify(t.Context(), forced))
	require.Equal(t, int32(1), h.calls.Load())
}

func TestWhatAHookAnswersDecidesAboutAnotherAttempt(t *testing.T) {
	hour := time.Now().Add(30 * time.Minute).UTC().Format(http.TimeFormat)
	for rule, test := range map[string]struct {
		answer          http.HandlerFunc
		kind            string // of the error; "" for none
		final           bool
		atLeast, atMost time.Duration // of the delay
	}{
		"every 2xx is a success":                     {status(http.StatusAccepted), "", false, 0, 0},
		"a hook that is busy is tried again":         {status(http.StatusTooManyRequests), workflows.Unreachable, false, 0, 0},
		"a hook may say when, in seconds":            {status(http.StatusTooManyRequests, "Retry-After", "7"), workflows.Unreachable, false, 7 * time.Second, 7 * time.Second},
		"a hook may say when, as a date":             {status(http.StatusServiceUnavailable, "Retry-After", hour), workflows.Unreachable, false, 29 * time.Minute, 30 * time.Minute},
		"a hook cannot put it off for ever":          {status(http.StatusTooManyRequests, "Retry-After", "99999999"), workflows.Unreachable, false, time.Hour, time.Hour},
		"a hook that says nonsense is tried as ever": {status(http.StatusTooManyRequests, "Retry-After", "soon"), workflows.Unreachable, false, 0, 0},
		"a hook that fails is tried again":           {status(http.StatusInternalServerError), workflows.Unreachable, false, 0, 0},
		"a hook that refuses is not tried again":     {status(http.StatusForbidden), workflows.InvalidInput, true, 0, 0},
		"a hook that is gone is not tried again":     {status(http.StatusNotFound), workflows.InvalidInput, true, 0, 0},
		"a redirect that drops the body is refused":  {status(http.StatusFound, "Location", "/elsewhere"), workflows.InvalidInput, true, 0, 0},
		"an answer that breaks off is no answer":     {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, workflows.Unreachable, false, 0, 0},
	} {
		t.Run(rule, func(t *testing.T) {
			h := serve(t, test.answer)
			err := (&notify.Activities{Settings: settings()}).Notify(t.Context(), soon)
			require.Equal(t, int32(1), h.calls.Load())
			if test.kind == "" {
				require.NoError(t, err)
				return
			}
			requireError(t, err, test.kind, test.final)
			var typed *temporal.ApplicationError
			require.ErrorAs(t, err, &typed)
			require.GreaterOrEqual(t, typed.NextRetryDelay(), test.atLeast)
			require.LessOrEqual(t, typed.NextRetryDelay(), test.atMost)
		})
	}
}

func TestAHookThatDoesNotAnswerIsGivenUpInTime(t *testing.T) {
	ended := make(chan struct{})
	serve(t, func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-ended:
		case <-r.Context().Done():
		}
	})
	defer close(ended)
	start := time.Now()
	err := (&notify.Activities{Settings: settings(func(s *config.Notify) { s.Timeout = 50 * time.Millisecond })}).Notify(t.Context(), soon)
	requireError(t, err, workflows.Unreachable, false)
	require.ErrorContains(t, err, "notify.timeout")
	require.Less(t, time.Since(start), 3*time.Second)
}

func TestAHookMayMoveOnItsHostOnly(t *testing.T) {
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("another host was told") }))
	defer other.Close()
	target := ""
	h := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/moved" {
			http.Redirect(w, r, target, http.StatusTemporaryRedirect)
		}
	})
	a := notify.Activities{Settings: settings()}
	target = "/moved"
	require.NoError(t, a.Notify(t.Context(), soon))
	require.Equal(t, "/moved", h.last.URL.Path)
	require.NotEmpty(t, h.body)
	target = other.URL + "/hush"
	requireError(t, a.Notify(t.Context(), named("another")), workflows.InvalidInput, true)
}

func TestWhatIsWrongWithTheSettingsIsToldWithoutTheSecrets(t *testing.T) {
	t.Setenv("EMPTY", "")
	t.Setenv("NONSENSE", "hush:%zz")
	t.Setenv("NO_HOST", "https:///hush")
	t.Setenv("NOBODY", "http://127.0.0.1:1"+path)
	for env, want := range map[string]string{
		"EMPTY":    "notify.url_env: the environment variable EMPTY is empty",
		"NONSENSE": "what the environment variable NONSENSE holds is not the address of a webhook",
		"NO_HOST":  "what the environment variable NO_HOST holds is not the address of a webhook",
		"NOBODY":   "the webhook does not answer: connection refused",
	} {
		err := (&notify.Activities{Settings: config.Notify{URLEnv: env, Timeout: 5 * time.Second}}).Notify(t.Context(), soon)
		require.ErrorContains(t, err, want)
		require.NotContains(t, err.Error(), "hush")
	}
	missing := notify.Activities{Settings: config.Notify{URLFile: filepath.Join(t.TempDir(), "nothing")}}
	requireError(t, missing.Notify(t.Context(), soon), workflows.InvalidInput, true)
}

func requireError(t *testing.T, err error, kind string, final bool) {
	t.Helper()
	var typed *temporal.ApplicationError
	require.ErrorAs(t, err, &typed)
	require.Equal(t, kind, typed.Type(), typed.Message())
	require.Equal(t, final, typed.NonRetryable())
	require.NotContains(t, err.Error(), "hush", "the address is a secret")
	require.NotContains(t, err.Error(), "127.0.0.1")
}
