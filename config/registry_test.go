package config_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fairway-project/fairway/config"
	"github.com/fairway-project/fairway/e2e"
	"github.com/fairway-project/fairway/registry"
)

func registryOf(t *testing.T, settings string) config.Registry {
	t.Helper()
	c, err := config.Parse("/etc/fairway/fairway.yaml", []byte("registry: "+settings+"\nkubernetes: {kubeconfig: k}\n"))
	require.NoError(t, err)
	return c.Registry
}

func TestARegistryIsAFileOrAServer(t *testing.T) {
	require.Equal(t, config.Registry{File: "/etc/fairway/r.yaml", StatusFile: "/etc/fairway/s.yaml", Timeout: 10 * time.Second},
		registryOf(t, "{file: r.yaml, status_file: s.yaml}"))
	require.Equal(t, config.Registry{URL: "https://registry.example.org", TokenFile: "/etc/fairway/token", Timeout: time.Second},
		registryOf(t, "{url: https://registry.example.org, token_file: token, timeout: 1s}"))
	for settings, want := range map[string]string{
		"{}":                                            "registry.file: is missing",
		"{file: r, url: https://x}":                     "registry.url: cannot be set together with registry.file",
		"{file: r, token_env: X}":                       "registry.token_env: cannot be set together with registry.file",
		"{file: r, token_file: X}":                      "registry.token_file: cannot be set together with registry.file",
		"{url: https://x, status_file: s}":              "registry.status_file: cannot be set together with registry.url",
		"{url: https://x, token_env: X, token_file: y}": "registry.token_file: cannot be set together with registry.token_env",
		"{url: registry}":                               "registry.url: is \"registry\"; must be a URL",
		"{url: https://a:hunter2@x}":                    "registry.url: ",
		"{url: https://x, timeout: 5}":                  "registry.timeout: is 5; must be a duration",
	} {
		_, err := config.Parse("fairway.yaml", []byte("registry: "+settings+"\nkubernetes: {kubeconfig: k}\n"))
		require.ErrorContains(t, err, want, settings)
		require.NotContains(t, err.Error(), "hunter2")
	}
}

func TestAStatusIsWrittenToTheRegistryThatIsConfigured(t *testing.T) {
	path := filepath.Join(t.TempDir(), "registry.yaml")
	require.NoError(t, os.WriteFile(path, []byte("clusters: [{id: dev-1, api_server_url: 'https://x', channel: dev, environment: test, infrastructure_account: 'aws:1', region: r}]"), 0o600))
	r := config.Registry{File: path}
	require.NoError(t, r.WriteStatus(t.Context(), "dev-1", registry.Status{CurrentVersion: "v"}, ""))
	clusters, err := r.Clusters(t.Context())
	require.NoError(t, err)
	require.Equal(t, "v", clusters[0].Status.CurrentVersion)
	require.FileExists(t, filepath.Join(filepath.Dir(path), "registry.status.yaml"))
}

func TestARegistryIsOpenedOnce(t *testing.T) {
	r := config.Registry{URL: "https://registry.example.org", Timeout: time.Second}
	one, err := r.Open()
	require.NoError(t, err)
	two, err := r.Open()
	require.NoError(t, err)
	require.Same(t, one, two)
	r.Timeout = time.Minute
	other, err := r.Open()
	require.NoError(t, err)
	require.NotSame(t, one, other)
}

func TestTheTokenIsReadWithEachRequest(t *testing.T) {
	var got string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = r.Header.Get("Authorization")
		_, _ = io.WriteString(w, `{"items":[]}`)
	}))
	defer server.Close()
	t.Setenv("REGISTRY_TOKEN", "one\n")
	file := filepath.Join(t.TempDir(), "token")
	byEnv := config.Registry{URL: server.URL, TokenEnv: "REGISTRY_TOKEN"}
	byFile := config.Registry{URL: server.URL, TokenFile: file}
	ask := func(r config.Registry) error {
		got = ""
		_, err := r.Clusters(t.Context())
		return err
	}
	require.NoError(t, ask(byEnv))
	require.Equal(t, "Bearer one", got)
	for _, token := range []string{"two", "three"} {
		require.NoError(t, os.WriteFile(file, []byte(token+"\n"), 0o600))
		require.NoError(t, ask(byFile))
		require.Equal(t, "Bearer "+token, got)
	}
	require.NoError(t, ask(config.Registry{URL: server.URL}))
	require.Empty(t, got)

	require.NoError(t, os.WriteFile(file, []byte("two\nlines"), 0o600))
	require.ErrorContains(t, ask(byFile), "registry.token_file: "+file+" holds no token")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	require.ErrorContains(t, ask(byFile), file+" is empty")
	require.NoError(t, os.Remove(file))
	require.ErrorContains(t, ask(byFile), "registry.token_file: ")
	t.Setenv("REGISTRY_TOKEN", "")
	require.EqualError(t, ask(byEnv), "registry.token_env: the environment variable REGISTRY_TOKEN is empty")
}

func TestTheRegistryHasNoClusterThatIsTakenForOneOfATest(t *testing.T) {
	path := filepath.Join(t.TempDir(), "registry.yaml")
	c := config.Config{Registry: config.Registry{File: path}}
	tests := c
	tests.E2E.Accounts = []e2e.Account{{Account: "aws:1", Region: "r"}}
	write := func(id, alias string) {
		t.Helper()
		entry := "clusters: [{id: " + id + ", alias: " + alias + ", api_server_url: https://x, channel: dev, environment: test, infrastructure_account: aws:1, region: r}]"
		require.NoError(t, os.WriteFile(path, []byte(entry), 0o600))
		require.NoError(t, os.Chtimes(path, time.Now().Add(-time.Hour), time.Now().Add(-time.Hour)))
	}
	for _, name := range [][2]string{{"e2e-1", "a"}, {"a", "e2e-1"}} {
		write(name[0], name[1])
		_, err := c.Clusters(t.Context())
		require.NoError(t, err, "without tests it is a name as any other")
		_, err = tests.Clusters(t.Context())
		require.ErrorContains(t, err, `"e2e-1" begins with e2e-`)
	}
	write("e2ea", "b")
	_, err := tests.Clusters(t.Context())
	require.NoError(t, err)
}
