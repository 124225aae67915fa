package config_test

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fairway-project/fairway/config"
)

func TestForgeKnowsItsRepository(t *testing.T) {
	t.Setenv("FORGE_TOKEN", "secret")
	for _, c := range []struct {
		forge      config.Forge
		repository string
		compare    string
		fault      string
	}{
		{config.Forge{Kind: "github", TokenEnv: "FORGE_TOKEN"}, "https://github.com/team/config.git", "https://github.com/team/config/compare/a...b", ""},
		{config.Forge{Kind: "github", TokenEnv: "FORGE_TOKEN"}, "git@github.com:team/config.git", "https://github.com/team/config/compare/a...b", ""},
		{config.Forge{Kind: "github", TokenEnv: "FORGE_TOKEN"}, "ssh://git@github.com:22/team/config", "https://github.com/team/config/compare/a...b", ""},
		{config.Forge{Kind: "github", App: &config.App{ID: 1, Installation: 2, KeyFile: "key.pem"}}, "https://github.com/team/config/", "https://github.com/team/config/compare/a...b", ""},
		{config.Forge{Kind: "gitea", URL: "https://example.org/git", TokenFile: "token"}, "https://example.org/git/team/config.git", "https://example.org/git/team/config/compare/a...b", ""},
		{config.Forge{Kind: "gitea", URL: "https://example.org", TokenFile: "token", Repository: "other/place"}, "/var/lib/mirror", "https://example.org/other/place/compare/a...b", ""},
		{config.Forge{Kind: "gitea", URL: "https://example.org", TokenFile: "token"}, "https://example.org/config", "", "forge.repository: write owner/name"},
		{config.Forge{Kind: "gitea", URL: "https://example.org", TokenFile: "token", Repository: "a/b/c"}, "", "", `forge.repository: "a/b/c" has to be owner/name`},
		{config.Forge{Kind: "gitea", URL: "https://example.org", Repository: "a/b"}, "", "", "forge: a token is missing"},
		{config.Forge{Kind: "gitea", URL: "https://anna:secret@example.org", TokenFile: "token", Repository: "a/b"}, "", "", "forge: the URL must not hold credentials"},
	} {
		driver, err := c.forge.Open(config.Repository{URL: c.repository})
		if c.fault != "" {
			require.ErrorContains(t, err, c.fault)
			require.Nil(t, driver)
			continue
		}
		require.NoError(t, err, c)
		require.Equal(t, c.compare, driver.CompareURL("a", "b"))
	}
	none, err := config.Forge{}.Open(config.Repository{URL: "https://github.com/team/config"})
	require.NoError(t, err)
	require.Nil(t, none)
}

func TestForgeReadsItsTokenWheneverUsed(t *testing.T) {
	var used string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		used = r.Header.Get("Authorization")
		_, _ = w.Write([]byte(`{"number": 7, "state": "open"}`))
	}))
	defer server.Close()
	file := filepath.Join(t.TempDir(), "token")
	byFile, err := config.Forge{Kind: "gitea", URL: server.URL, Repository: "team/config", TokenFile: file}.Open(config.Repository{})
	require.NoError(t, err)
	_, err = byFile.PullRequest(t.Context(), 7)
	require.ErrorContains(t, err, "forge.token_file")
	for _, token := range []string{"one", "two"} {
		require.NoError(t, os.WriteFile(file, []byte(token+"\n"), 0o600))
		_, err = byFile.PullRequest(t.Context(), 7)
		require.NoError(t, err)
		require.Equal(t, "token "+token, used)
	}
	for content, fault := range map[string]string{"": "holds no token", "two words": "holds no token"} {
		require.NoError(t, os.WriteFile(file, []byte(content), 0o600))
		_, err = byFile.PullRequest(t.Context(), 7)
		require.ErrorContains(t, err, fault)
	}

	byEnv, err := config.Forge{Kind: "github", URL: server.URL, Repository: "team/config", TokenEnv: "FORGE_TOKEN"}.Open(config.Repository{})
	require.NoError(t, err)
	_, err = byEnv.PullRequest(t.Context(), 7)
	require.ErrorContains(t, err, "forge.token_env: the environment variable FORGE_TOKEN holds no token")
	t.Setenv("FORGE_TOKEN", "three")
	_, err = byEnv.PullRequest(t.Context(), 7)
	require.NoError(t, err)
	require.Equal(t, "token three", used)
}
