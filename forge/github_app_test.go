package forge_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v4"
	"github.com/stretchr/testify/require"

	"github.com/fairway-project/fairway/forge"
)

// appServer lets app 11, which signs with key, into installation 22.
type appServer struct {
	*httptest.Server
	t       *testing.T
	key     *rsa.PrivateKey
	tokens  int
	expires time.Duration
	refuse  int // status of the answer to who wants a token
}

func newAppServer(t *testing.T) *appServer {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	s := &appServer{t: t, key: key, expires: time.Hour}
	s.Server = httptest.NewServer(http.HandlerFunc(s.serve))
	t.Cleanup(s.Close)
	return s
}

func (s *appServer) serve(w http.ResponseWriter, r *http.Request) {
	authorization := r.Header.Get("Authorization")
	var out any
	switch r.Method + " " + r.URL.Path {
	case "POST /api/v3/app/installations/22/access_tokens":
		s.signed(authorization)
		if s.refuse != 0 {
			w.WriteHeader(s.refuse)
			out = map[string]string{"message": "no, " + authorization}
			break
		}
		s.tokens++
		w.WriteHeader(http.StatusCreated)
		out = map[string]any{"token": "ghs_" + strings.Repeat("x", s.tokens), "expires_at": time.Now().Add(s.expires).Format(time.RFC3339)}
	case "GET /api/v3/app":
		s.signed(authorization)
		out = map[string]any{"slug": "fairway"}
	case "GET /api/v3/repos/fairway/config/pulls/7":
		require.Equal(s.t, "token ghs_"+strings.Repeat("x", s.tokens), authorization)
		out = map[string]any{"number": 7, "state": "open"}
	default:
		s.t.Errorf("asked for %s %s", r.Method, r.URL.Path)
	}
	require.NoError(s.t, json.NewEncoder(w).Encode(out))
}

func (s *appServer) signed(authorization string) {
	bearer, found := strings.CutPrefix(authorization, "Bearer ")
	require.True(s.t, found)
	var claims jwt.RegisteredClaims
	_, err := jwt.ParseWithClaims(bearer, &claims, func(token *jwt.Token) (any, error) {
		require.Equal(s.t, "RS256", token.Method.Alg())
		return &s.key.PublicKey, nil
	})
	require.NoError(s.t, err)
	require.Equal(s.t, "11", claims.Issuer)
	require.LessOrEqual(s.t, time.Until(claims.ExpiresAt.Time), 10*time.Minute, "GitHub takes no longer ones")
}

func (s *appServer) driver(key func() ([]byte, error)) forge.Driver {
	d, err := forge.New(forge.Settings{Kind: "github", URL: s.URL, Owner: "fairway", Repository: "config", App: &forge.App{ID: 11, Installation: 22, Key: key}})
	require.NoError(s.t, err)
	return d
}

func (s *appServer) pem() ([]byte, error) {
	return pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(s.key)}), nil
}

func TestApp(t *testing.T) {
	s := newAppServer(t)
	d := s.driver(s.pem)
	for range 3 {
		_, err := d.PullRequest(t.Context(), 7)
		require.NoError(t, err)
	}
	require.Equal(t, 1, s.tokens, "a token was made for each request")
	self, err := d.Self(t.Context())
	require.NoError(t, err)
	require.Equal(t, "fairway[bot]", self)

	s.expires = 30 * time.Second // so short before its end it is not used any more
	d = s.driver(s.pem)
	for range 2 {
		_, err := d.PullRequest(t.Context(), 7)
		require.NoError(t, err)
	}
	require.Equal(t, 3, s.tokens)
}

func TestAppWithoutItsRights(t *testing.T) {
	s := newAppServer(t)
	for name, c := range map[string]struct {
		key    func() ([]byte, error)
		refuse int
		kind   error
		text   string
	}{
		"no key":               {func() ([]byte, error) { return nil, errors.New("the file is gone") }, 0, forge.ErrRefused, "the file is gone"},
		"something else":       {func() ([]byte, error) { return []byte("ghp_token"), nil }, 0, forge.ErrRefused, "no private RSA key"},
		"another key":          {s.pem, http.StatusUnauthorized, forge.ErrRefused, "no, Bearer ***"},
		"not installed":        {s.pem, http.StatusNotFound, forge.ErrNotFound, "no, Bearer ***"},
		"limited":              {s.pem, http.StatusTooManyRequests, forge.ErrUnreachable, "limits requests until"},
		"GitHub has a problem": {s.pem, http.StatusBadGateway, forge.ErrUnreachable, "502"},
	} {
		t.Run(name, func(t *testing.T) {
			s.refuse = c.refuse
			_, err := s.driver(c.key).PullRequest(t.Context(), 7)
			require.ErrorIs(t, err, c.kind)
			require.ErrorContains(t, err, c.text)
			require.NotContains(t, err.Error(), "ghp_token")
		})
	}
}
