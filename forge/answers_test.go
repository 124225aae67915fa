package forge_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unicode"

	"github.com/stretchr/testify/require"

	"github.com/fairway-project/fairway/forge"
)

const secret = "the-secret-of-the-token"

func driverFor(t *testing.T, kind, url string) forge.Driver {
	t.Helper()
	d, err := forge.New(forge.Settings{
		Kind: kind, URL: url, Owner: "fairway", Repository: "config", Timeout: time.Second, Token: func() (string, error) { return secret, nil },
	})
	require.NoError(t, err)
	return d
}

// each runs a test against a server with each kind of driver, which reads one pull request.
func each(t *testing.T, handler http.HandlerFunc, test func(t *testing.T, read func() error, url string)) {
	t.Helper()
	for _, kind := range []string{"github", "gitea"} {
		server := httptest.NewServer(handler)
		d := driverFor(t, kind, server.URL)
		test(t, func() error { _, err := d.PullRequest(t.Context(), 7); return err }, server.URL)
		server.Close()
	}
}

func answering(status int, body string, header ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i+1 < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(status)
		io.WriteString(w, body)
	}
}

func TestAnswers(t *testing.T) {
	pr := `{"number": 7, "state": "open"}`
	for name, c := range map[string]struct {
		handler http.HandlerFunc
		kind    error
		text    string
	}{
		"bad credentials":      {answering(401, `{"message": "Bad credentials"}`), forge.ErrRefused, "Bad credentials (HTTP 401)"},
		"too few rights":       {answering(403, `{"message": "Resource not accessible by integration"}`), forge.ErrRefused, "Resource not accessible by integration (HTTP 403)"},
		"an archive":           {answering(423, `{"message": "it is archived"}`), forge.ErrRefused, "archived"},
		"nothing there":        {answering(404, `{"message": "Not Found"}`), forge.ErrNotFound, "reading pull request 7: the forge has no such thing: Not Found"},
		"gone":                 {answering(410, ``), forge.ErrNotFound, "Gone"},
		"fields that are off":  {answering(422, `{"message": "Validation Failed", "errors": [{"resource": "PullRequest", "field": "head", "code": "invalid"}, {"message": "No commits between a and b"}, "plain", 3]}`), forge.ErrInvalid, "Validation Failed; PullRequest head invalid; No commits between a and b; plain (HTTP 422)"},
		"a broken server":      {answering(500, `<html>oops</html>`), forge.ErrUnreachable, "<html>oops</html> (HTTP 500)"},
		"no word about it":     {answering(500, `{"message": "", "url": "https://git.example.org/api/swagger"}`), forge.ErrUnreachable, "Internal Server Error (HTTP 500)"},
		"a busy server":        {answering(503, ``), forge.ErrUnreachable, "Service Unavailable"},
		"a page of a proxy":    {answering(200, `<html>sign in</html>`), forge.ErrUnreachable, "reading pull request 7"},
		"half of an answer":    {answering(200, `{"number": 7, "state": "op`), forge.ErrUnreachable, "reading pull request 7"},
		"another one":          {answering(200, `{"number": 8, "state": "open"}`), forge.ErrUnreachable, "about another one"},
		"nothing at all":       {answering(200, `null`), forge.ErrUnreachable, "about another one"},
		"a wrong type":         {answering(200, `{"number": "seven"}`), forge.ErrUnreachable, "reading pull request 7"},
		"a connection cut off": {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, forge.ErrUnreachable, "EOF"},
		"one cut off halfway": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000")
			io.WriteString(w, pr[:10])
		}, forge.ErrUnreachable, "EOF"},
		"too much": {func(w http.ResponseWriter, _ *http.Request) {
			io.WriteString(w, `{"number": 7, "title": "`)
			for range 17 {
				io.WriteString(w, strings.Repeat("a", 1<<20))
			}
			io.WriteString(w, `"}`)
		}, forge.ErrUnreachable, "more than 16 MiB"},
		"too much of an error": {func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(400)
			for range 17 {
				io.WriteString(w, strings.Repeat("a", 1<<20))
			}
		}, forge.ErrInvalid, "aaa… (HTTP 400)"},
		"silence":            {func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, forge.ErrUnreachable, "reading pull request 7"},
		"redirects for ever": {func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, r.URL.Path, http.StatusFound) }, forge.ErrUnreachable, "again and again"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			each(t, c.handler, func(t *testing.T, read func() error, _ string) {
				err := read()
				require.ErrorIs(t, err, c.kind)
				require.ErrorContains(t, err, c.text)
				require.Less(t, len(err.Error()), 700)
			})
		})
	}
}

func TestErrorsAreSafeToShow(t *testing.T) {
	each(t, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(400)
		message := "you sent " + r.Header.Get("Authorization") + "\x1b[31m\r\n\u202egnp\x00\xff"
		require.NoError(t, json.NewEncoder(w).Encode(map[string]string{"message": message}))
	}, func(t *testing.T, read func() error, _ string) {
		err := read()
		require.ErrorIs(t, err, forge.ErrInvalid)
		require.NotContains(t, err.Error(), secret)
		require.Contains(t, err.Error(), "you sent token ***")
		require.NotContains(t, err.Error(), "\u202e")
		require.False(t, strings.ContainsFunc(err.Error(), unicode.IsControl), "%q", err)
	})
}

func TestLimits(t *testing.T) {
	soon := fmt.Sprint(time.Now().Add(10 * time.Minute).Unix())
	for name, c := range map[string]struct {
		handler http.HandlerFunc
		wait    time.Duration
	}{
		"the primary one":              {answering(403, `{"message": "API rate limit exceeded for user ID 1."}`, "X-RateLimit-Remaining", "0", "X-RateLimit-Reset", soon), 10 * time.Minute},
		"the primary one as 429":       {answering(429, `{}`, "X-RateLimit-Remaining", "0", "X-RateLimit-Reset", soon), 10 * time.Minute},
		"a secondary one":              {answering(403, `{"message": "You have exceeded a secondary rate limit."}`, "Retry-After", "90", "X-RateLimit-Remaining", "4000", "X-RateLimit-Reset", soon), 90 * time.Second},
		"a secondary one without time": {answering(403, `{"message": "You have exceeded a secondary rate limit."}`), time.Minute},
		"a proxy's":                    {answering(429, ``), time.Minute},
		"a proxy's with a date":        {answering(429, ``, "Retry-After", time.Now().Add(5*time.Minute).UTC().Format(http.TimeFormat)), 5 * time.Minute},
		"nonsense":                     {answering(429, ``, "Retry-After", "soon"), time.Minute},
		"far too long":                 {answering(429, ``, "Retry-After", "99999999999999"), time.Hour},
		"a year":                       {answering(429, ``, "Retry-After", "31536000"), time.Hour},
		"in the past":                  {answering(403, ``, "X-RateLimit-Remaining", "0", "X-RateLimit-Reset", "1000"), time.Second},
		"the last request":             {answering(200, `{"number": 7, "state": "open"}`, "X-RateLimit-Remaining", "0", "X-RateLimit-Reset", soon), 10 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			var requests atomic.Int32
			each(t, func(w http.ResponseWriter, r *http.Request) { requests.Add(1); c.handler(w, r) }, func(t *testing.T, read func() error, _ string) {
				requests.Store(0)
				err := read()
				if name == "the last request" {
					require.NoError(t, err)
					err = read()
				}
				var limited *forge.LimitedError
				require.ErrorAs(t, err, &limited)
				require.WithinDuration(t, time.Now().Add(c.wait), limited.Until, 3*time.Second)
				require.ErrorIs(t, err, forge.ErrUnreachable)
				require.NotErrorIs(t, err, forge.ErrRefused)
				require.ErrorAs(t, read(), &limited)
				require.EqualValues(t, 1, requests.Load(), "it was asked in spite of the limit")
			})
		})
	}
	// Ten requests left are no reason to wait.
	each(t, answering(403, `{"message": "no"}`, "X-RateLimit-Remaining", "10", "X-RateLimit-Reset", soon), func(t *testing.T, read func() error, _ string) {
		require.ErrorIs(t, read(), forge.ErrRefused)
	})
}

func TestRedirects(t *testing.T) {
	var elsewhere atomic.Int32
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { elsewhere.Add(1) }))
	defer other.Close()
	each(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, other.URL+"/x", http.StatusTemporaryRedirect)
	}, func(t *testing.T, read func() error, _ string) {
		err := read()
		require.ErrorIs(t, err, forge.ErrUnreachable)
		require.ErrorContains(t, err, "which is not followed")
	})
	require.Zero(t, elsewhere.Load(), "a request, and perhaps the token, went to another host")

	each(t, func(w http.ResponseWriter, r *http.Request) { // a repository that was renamed
		switch {
		case r.Header.Get("Authorization") != "token "+secret:
			w.WriteHeader(401)
		case strings.HasPrefix(r.URL.Path, "/renamed"):
			io.WriteString(w, `{"number": 7, "state": "open"}`)
		default:
			http.Redirect(w, r, "/renamed/7", http.StatusMovedPermanently)
		}
	}, func(t *testing.T, read func() error, url string) { require.NoError(t, read()) })

	var got atomic.Int32
	changing := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			got.Add(1)
		}
		http.Redirect(w, r, "/elsewhere", http.StatusFound)
	}))
	defer changing.Close()
	for _, kind := range []string{"github", "gitea"} {
		require.ErrorContains(t, driverFor(t, kind, changing.URL).Edit(t.Context(), 7, "a", "b"), "changes something")
	}
	require.Zero(t, got.Load(), "a change became a GET")
}

func TestTheEndOfAContextIsTold(t *testing.T) {
	each(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, func(t *testing.T, _ func() error, url string) {
		reason := errors.New("the worker stops")
		for _, kind := range []string{"github", "gitea"} {
			ctx, cancel := context.WithCancelCause(t.Context())
			cancel(reason)
			_, err := driverFor(t, kind, url).PullRequest(ctx, 7)
			require.ErrorIs(t, err, reason)
			require.NotErrorIs(t, err, forge.ErrUnreachable)
		}
	})
}

func TestTokensAreReadWheneverUsed(t *testing.T) {
	var used []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		used = append(used, r.Header.Get("Authorization"))
		io.WriteString(w, `{"number": 7, "state": "open"}`)
	}))
	defer server.Close()
	for _, kind := range []string{"github", "gitea"} {
		tokens := []string{"one", " two\n"}
		used = nil
		d, err := forge.New(forge.Settings{Kind: kind, URL: server.URL, Owner: "fairway", Repository: "config", Token: func() (string, error) {
			if len(tokens) == 0 {
				return "", errors.New("the file is gone")
			}
			token := tokens[0]
			tokens = tokens[1:]
			return token, nil
		}})
		require.NoError(t, err)
		for range 2 {
			_, err := d.PullRequest(t.Context(), 7)
			require.NoError(t, err)
		}
		require.Equal(t, []string{"token one", "token two"}, used)
		_, err = d.PullRequest(t.Context(), 7)
		require.ErrorIs(t, err, forge.ErrRefused)
		require.ErrorContains(t, err, "the file is gone")
	}
}

func TestSettings(t *testing.T) {
	token := func() (string, error) { return "", nil }
	good := forge.Settings{Kind: "gitea", URL: "https://git.example.org", Owner: "fairway", Repository: "config", Token: token}
	for _, c := range []struct {
		change func(*forge.Settings)
		text   string
	}{
		{func(s *forge.Settings) {}, ""},
		{func(s *forge.Settings) { s.Kind = "gitlab" }, `kind "gitlab" is not known`},
		{func(s *forge.Settings) { s.URL = "" }, "has to be like https://"},
		{func(s *forge.Settings) { s.URL = "ftp://example.org" }, "has to be like https://"},
		{func(s *forge.Settings) { s.URL = "https://anna:hidden@example.org" }, "must not hold credentials"},
		{func(s *forge.Settings) { s.URL = "https://anna:hidden@exa mple.org" }, "cannot be read"},
		{func(s *forge.Settings) { s.URL = "https://example.org?a=b" }, "must not have a query"},
		{func(s *forge.Settings) { s.Owner = "a/b" }, "has to be owner/name"},
		{func(s *forge.Settings) { s.Repository = "" }, "has to be owner/name"},
		{func(s *forge.Settings) { s.Token = nil }, "a token is missing"},
		{func(s *forge.Settings) { s.App = &forge.App{} }, "apps are GitHub's"},
	} {
		settings := good
		c.change(&settings)
		_, err := forge.New(settings)
		if c.text == "" {
			require.NoError(t, err)
			continue
		}
		require.ErrorContains(t, err, c.text)
		require.NotContains(t, err.Error(), "hidden")
	}
}
