package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fairway-project/fairway/registry"
)

const registryFile = `clusters:
- {id: dev-1, api_server_url: https://dev-1, channel: dev, environment: test, infrastructure_account: "aws:1", region: r}
`

// serveRegistry runs `fairway registry serve` with more arguments until ctx ends.
func serveRegistry(ctx context.Context, arguments ...string) error {
	cmd := root()
	cmd.SetArgs(append([]string{"registry", "serve"}, arguments...))
	return cmd.ExecuteContext(ctx)
}

func freeAddress(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = listener.Close() }()
	return listener.Addr().String()
}

func TestARegistryIsServedFromAnImportedFileUntilItIsStopped(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "registry.yaml")
	require.NoError(t, os.WriteFile(file, []byte(registryFile), 0o600))
	require.NoError(t, registry.File{Path: file}.WriteStatus(t.Context(), "dev-1", registry.Status{CurrentVersion: "v"}, ""))
	sum := sha256.Sum256([]byte("secret"))
	t.Setenv("REGISTRY_TOKENS", "tokens: [{name: worker, role: status, sha256: "+hex.EncodeToString(sum[:])+"}]")
	address := freeAddress(t)
	client, err := registry.NewClient("http://"+address, func() (string, error) { return "secret", nil }, 5*time.Second)
	require.NoError(t, err)
	for _, want := range []string{"v", "w"} { // the second time, everything is there already
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() {
			ended <- serveRegistry(ctx, "--listen", address, "--database", filepath.Join(dir, "registry.db"), "--tokens-env", "REGISTRY_TOKENS", "--import", file)
		}()
		var clusters registry.Clusters
		require.Eventually(t, func() bool {
			clusters, err = client.Clusters(t.Context())
			return err == nil
		}, 10*time.Second, 10*time.Millisecond)
		require.Equal(t, "dev-1", clusters[0].ID)
		require.Equal(t, want, clusters[0].Status.CurrentVersion)
		require.NoError(t, client.WriteStatus(t.Context(), "dev-1", registry.Status{CurrentVersion: "w"}, ""))
		stop()
		require.NoError(t, <-ended)
	}
}

func TestARegistryDoesNotStartWithWhatIsWrong(t *testing.T) {
	dir := t.TempDir()
	tokens := filepath.Join(dir, "tokens.yaml")
	require.NoError(t, os.WriteFile(tokens, []byte("tokens: [{name: a, role: read, sha256: 2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b}]"), 0o600))
	database := filepath.Join(dir, "registry.db")
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = taken.Close() }()
	file, broken := filepath.Join(dir, "registry.yaml"), filepath.Join(dir, "broken.status.yaml")
	require.NoError(t, os.WriteFile(file, []byte(registryFile), 0o600))
	require.NoError(t, os.WriteFile(broken, []byte("clusters: ["), 0o600))
	for name, test := range map[string]struct {
		arguments []string
		want      string
		status    int
	}{
		"no tokens":           {nil, "tokens-file tokens-env", exitUsage},
		"tokens twice":        {[]string{"--tokens-file", tokens, "--tokens-env", "X"}, "tokens-env tokens-file", exitUsage},
		"no such tokens":      {[]string{"--tokens-file", tokens + "x"}, "reading the tokens", exitUsage},
		"no such variable":    {[]string{"--tokens-env", "NOT_SET"}, "the environment variable NOT_SET is empty", exitUsage},
		"half of TLS":         {[]string{"--tokens-file", tokens, "--tls-cert", "x"}, "tls-cert tls-key", exitUsage},
		"no certificate":      {[]string{"--tokens-file", tokens, "--tls-cert", "x", "--tls-key", "y"}, "reading the TLS certificate", exitUsage},
		"no file to import":   {[]string{"--tokens-file", tokens, "--import", filepath.Join(dir, "none.yaml")}, "none.yaml", exitUsage},
		"no status to import": {[]string{"--tokens-file", tokens, "--import", file, "--import-status", broken}, "broken.status.yaml:1", exitUsage},
		"no database":         {[]string{"--tokens-file", tokens, "--database", "postgres://127.0.0.1:1/x?connect_timeout=1"}, "preparing the database", exitUnreachable},
		"a port in use":       {[]string{"--tokens-file", tokens, "--listen", taken.Addr().String()}, "--listen: ", exitUsage},
	} {
		t.Run(name, func(t *testing.T) {
			err := serveRegistry(t.Context(), append([]string{"--database", database}, test.arguments...)...)
			require.ErrorContains(t, err, test.want)
			status := exitFailed
			var decided *statusError
			if errors.As(err, &decided) {
				status = decided.status
			}
			require.Equal(t, test.status, status)
		})
	}
}
