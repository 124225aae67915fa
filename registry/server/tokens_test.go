package server_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fairway-project/fairway/registry/server"
)

func TestWrongTokensAreRefusedWithoutShowingThem(t *testing.T) {
	good := "tokens:\n- {name: a, role: read, sha256: " + hash("a") + "}\n"
	_, err := server.ParseTokens("tokens.yaml", []byte(good))
	require.NoError(t, err)
	_, err = server.ParseTokens("tokens.json", []byte(`{"tokens": [{"name": "a", "role": "write", "sha256": "`+hash("a")+`"}]}`))
	require.NoError(t, err)
	for name, test := range map[string]struct{ content, want string }{
		"none":            {"", "tokens.yaml: tokens: is missing"},
		"an empty list":   {"tokens: []", "tokens.yaml:1: tokens: is []; must be at least 1"},
		"no name":         {"tokens:\n- {role: read, sha256: " + hash("a") + "}", "tokens[0].name: is missing"},
		"another role":    {"tokens:\n- {name: a, role: admin, sha256: " + hash("a") + "}", `tokens[0].role: is "admin"; must be one of read, status, write`},
		"no hash":         {"tokens:\n- {name: a, role: read}", "tokens[0].sha256: is missing"},
		"the token":       {"tokens:\n- {name: a, role: read, sha256: hunter2}", "tokens.yaml:2: tokens[0].sha256: must be the SHA-256 of the token, 64 hexadecimal digits"},
		"too long a hash": {"tokens:\n- {name: a, role: read, sha256: " + hash("a") + "00}", "tokens[0].sha256: must be the SHA-256 of the token"},
		"one twice":       {good + "- {name: b, role: write, sha256: " + hash("a") + "}", "tokens[1].sha256: is that of tokens[0] already"},
		"unknown key":     {"tokens:\n- {name: a, role: read, token: x}", "tokens[0].token: is no known key"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := server.ParseTokens("tokens.yaml", []byte(test.content))
			require.ErrorContains(t, err, test.want)
			require.NotContains(t, err.Error(), "hunter2")
		})
	}
	_, err = server.OpenTokens(filepath.Join(t.TempDir(), "none"), slog.Default())
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestTokensAreReplacedWhileTheServerRuns(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tokens.yaml")
	accept := func(token string) {
		require.NoError(t, os.WriteFile(path, []byte("tokens: [{name: a, role: read, sha256: "+hash(token)+"}]"), 0o600))
	}
	accept("first")
	var log bytes.Buffer
	tokens, err := server.OpenTokens(path, slog.New(slog.NewTextHandler(&log, nil)))
	require.NoError(t, err)
	store, err := server.OpenStore(t.Context(), filepath.Join(t.TempDir(), "registry.db"))
	require.NoError(t, err)
	defer func() { _ = store.Close() }()
	a := listen(t, server.New(store, tokens, slog.New(slog.DiscardHandler)), nil)
	require.Equal(t, 200, a.do("first", "GET", "/kubernetes-clusters", "").status)

	accept("second")
	require.Equal(t, 401, a.do("first", "GET", "/kubernetes-clusters", "").status)
	require.Equal(t, 200, a.do("second", "GET", "/kubernetes-clusters", "").status)

	// Again within the same tick of a file system that knows seconds only.
	tick := time.Now().Add(-1200 * time.Millisecond)
	for _, token := range []string{"first", "second"} {
		accept(token)
		require.NoError(t, os.Chtimes(path, tick, tick))
		require.Equal(t, 200, a.do(token, "GET", "/kubernetes-clusters", "").status)
	}
	require.Equal(t, 401, a.do("first", "GET", "/kubernetes-clusters", "").status)

	require.NoError(t, os.WriteFile(path, []byte("tokens: nonsense"), 0o600))
	require.Equal(t, 200, a.do("second", "GET", "/kubernetes-clusters", "").status, "a mistake shuts nobody out")
	require.Contains(t, log.String(), "the tokens stay as they were")
}

// listen serves on a port of its own until the test ends.
func listen(t *testing.T, handler http.Handler, certificate *server.Certificate) api {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- server.Serve(ctx, listener, handler, certificate, slog.New(slog.DiscardHandler))
	}()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-ended)
	})
	return api{t: t, url: "http://" + listener.Addr().String()}
}

func TestAStoppingServerAnswersWhatIsUnderWay(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ctx, stop := context.WithCancel(t.Context())
	began, goOn := make(chan struct{}), make(chan struct{})
	ended := make(chan error, 1)
	go func() {
		ended <- server.Serve(ctx, listener, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			close(began)
			<-goOn
			if r.Context().Err() == nil {
				_, _ = io.WriteString(w, "done")
			}
		}), nil, slog.New(slog.DiscardHandler))
	}()
	answered := make(chan string, 1)
	go func() {
		a := api{t: t, url: "http://" + listener.Addr().String()}
		answered <- a.do("", "GET", "/", "").body
	}()
	<-began
	stop()
	require.Eventually(t, func() bool { // it listens no more
		connection, err := net.Dial("tcp", listener.Addr().String())
		if err == nil {
			_ = connection.Close()
		}
		return err != nil
	}, 5*time.Second, 5*time.Millisecond)
	close(goOn)
	require.Equal(t, "done", <-answered)
	require.NoError(t, <-ended)
}

func TestACertificateIsReplacedWhileTheServerRuns(t *testing.T) {
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	_, err := server.OpenCertificate(cert, key, slog.Default())
	require.ErrorIs(t, err, os.ErrNotExist)
	newCertificate(t, cert, key, 1)
	certificate, err := server.OpenCertificate(cert, key, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	a := listen(t, http.NotFoundHandler(), certificate)
	serial := func() int64 {
		connection, err := tls.Dial("tcp", a.url[len("http://"):], &tls.Config{InsecureSkipVerify: true}) // who it is is what this asks
		require.NoError(t, err)
		defer func() { _ = connection.Close() }()
		return connection.ConnectionState().PeerCertificates[0].SerialNumber.Int64()
	}
	require.Equal(t, int64(1), serial())
	newCertificate(t, cert, key, 2)
	require.Equal(t, int64(2), serial())
	require.NoError(t, os.WriteFile(cert, []byte("half"), 0o600))
	require.Equal(t, int64(2), serial())
}

// newCertificate writes a certificate with that serial number, dated so that it differs from others.
func newCertificate(t *testing.T, cert, key string, serial int64) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(serial), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	require.NoError(t, err)
	encoded, err := x509.MarshalPKCS8PrivateKey(private)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: encoded}), 0o600))
	require.NoError(t, os.WriteFile(cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	at := time.Now().Add(time.Duration(serial) * time.Minute)
	require.NoError(t, os.Chtimes(cert, at, at))
}

func TestAClientThatIsTooSlowHoldsUpNobody(t *testing.T) {
	a := listen(t, http.NotFoundHandler(), nil)
	for range 50 {
		connection, err := net.Dial("tcp", a.url[len("http://"):])
		require.NoError(t, err)
		defer func() { _ = connection.Close() }()
		_, err = fmt.Fprint(connection, "GET / HTTP/1.1\r\nHost: ")
		require.NoError(t, err)
	}
	require.Equal(t, 404, a.do("", "GET", "/", "").status)
}

func TestTheDatabaseIsTheOwnersOnly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "registry.db")
	start(t, path).ok("write", "POST", "/kubernetes-clusters", one)
	for _, suffix := range []string{"", "-wal", "-shm"} {
		info, err := os.Stat(path + suffix)
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o600), info.Mode().Perm(), suffix)
	}
}

func TestAWrongDatabaseIsNamedWithoutItsPassword(t *testing.T) {
	for _, database := range []string{
		"postgres://fairway:hunter2@127.0.0.1:1/registry?connect_timeout=1", "postgresql://fairway:hunter2@[::1/registry", filepath.Join(t.TempDir(), "none", "registry.db"),
	} {
		_, err := server.OpenStore(t.Context(), database)
		require.Error(t, err)
		require.NotContains(t, err.Error(), "hunter2")
	}
	path := filepath.Join(t.TempDir(), "registry.yaml")
	require.NoError(t, os.WriteFile(path, []byte("clusters: []\n# no database but a registry file"), 0o600))
	_, err := server.OpenStore(t.Context(), path)
	require.ErrorContains(t, err, "preparing the database: "+path+": file is not a database")
}
