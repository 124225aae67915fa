package config_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fairway-project/fairway/config"
	"github.com/fairway-project/fairway/promotion"
)

// withRepository is a configuration with a repository, its forge and the channels dev, alpha and stable.
const withRepository = minimal + `repository: {url: "https://git.example.org/team/config.git"}
forge: {kind: gitea, url: "https://git.example.org", token_env: FORGE_TOKEN}
`

func TestAPipelineIsRead(t *testing.T) {
	c, err := config.Parse("/etc/fairway/fairway.yaml", []byte(minimal+`repository: {url: "https://git.example.org/team/config.git"}
forge:
  kind: github
  timeout: 5s
  app: {id: 5, installation: 7, key_file: app.pem}
pipeline:
  channels: [dev, alpha, stable]
  every: 30s
  author: Trains <trains@example.org>
  breaking_labels: [incompatible]
  edges:
  - from: dev
    to: alpha
    mode: merge
    soak: 6h
    person_for: [cluster-stack]
    gates:
    - {name: e2e, status: ci/e2e}
    - name: errors
      prometheus: {url: "https://prometheus.example.org", query: "errors{channel=\"{from}\"}", threshold: "< 0.01", for: 30m, token_file: prometheus.token}
    - name: board
      http: {url: "https://board.example.org/{candidate}", status: 204, contains: yes sir, timeout: 3s, token_file: /run/secrets/board}
  - from: alpha
    to: stable
    mode: pull-request
    soak: 0s
    windows:
    - {days: [mon], from: "09:00", to: "16:00", time_zone: Europe/Berlin}
    freezes:
    - {name: holidays, from: 2026-12-20T00:00:00Z, to: 2027-01-04T00:00:00Z}
    pull_request: {approvals: 2, team: platform, reviewers: [anna], labels: [promotion], automerge: true, supersede: unapproved}
`))
	require.NoError(t, err)
	require.Equal(t, config.Forge{Kind: "github", Timeout: 5 * time.Second, App: &config.App{ID: 5, Installation: 7, KeyFile: "/etc/fairway/app.pem"}}, c.Forge)
	require.True(t, c.Forge.Configured())
	require.Equal(t, "https://github.com", c.Forge.Address())
	require.Equal(t, []string{"dev", "alpha", "stable"}, c.Pipeline.Channels)
	require.Equal(t, []string{"incompatible"}, c.Pipeline.BreakingLabels)
	require.Equal(t, "Trains <trains@example.org>", c.Pipeline.Author)
	require.Equal(t, 30*time.Second, c.Pipeline.Every)
	dev, _ := c.Pipeline.Edge("dev", "alpha")
	require.Equal(t, 6*time.Hour, *dev.Soak)
	require.Equal(t, promotion.MetricGate{
		URL: "https://prometheus.example.org", Query: `errors{channel="{from}"}`, Threshold: "< 0.01", For: 30 * time.Minute, TokenFile: "/etc/fairway/prometheus.token",
	}, *dev.Gates[1].Prometheus)
	require.Equal(t, promotion.HTTPGate{
		URL: "https://board.example.org/{candidate}", Status: 204, Contains: "yes sir", Timeout: 3 * time.Second, TokenFile: "/run/secrets/board",
	}, *dev.Gates[2].HTTP)
	alpha, _ := c.Pipeline.Edge("alpha", "stable")
	require.Zero(t, *alpha.Soak)
	require.Equal(t, promotion.PullRequest{
		Approvals: new(2), Team: "platform", Reviewers: []string{"anna"}, Labels: []string{"promotion"}, Automerge: true, Supersede: promotion.Unapproved,
	}, alpha.PullRequest)
	require.Len(t, alpha.Windows, 1)
	require.Len(t, alpha.Freezes, 1)
}

func TestWithoutAPipelineNothingIsPromoted(t *testing.T) {
	c, err := config.Parse("fairway.yaml", []byte(minimal))
	require.NoError(t, err)
	require.Empty(t, c.Pipeline.Edges)
	require.Equal(t, time.Minute, c.Pipeline.Every)
	require.Equal(t, []string{"breaking", "major", "architectural"}, c.Pipeline.BreakingLabels)
	require.False(t, c.Forge.Configured())
	require.Empty(t, c.Forge.Address())
}

func TestABadPipelineIsRefusedWithItsLine(t *testing.T) {
	const channels = "pipeline:\n  channels: [dev, alpha]\n  edges:\n  - "
	for rule, test := range map[string]struct{ content, want string }{
		"no soak":         {withRepository + channels + "{from: dev, to: alpha, mode: merge}\n", "fairway.yaml:10: pipeline.edges[0].soak: is missing; say how long"},
		"negative soak":   {withRepository + channels + "{from: dev, to: alpha, mode: merge, soak: -1s}\n", "fairway.yaml:10: pipeline.edges[0].soak: is -1s; must be at least 0"},
		"unknown channel": {withRepository + channels + "{from: dev, to: beta, mode: merge, soak: 1h}\n", `fairway.yaml:10: pipeline.edges[0].to: is "beta", which is no channel of the pipeline`},
		"unknown mode":    {withRepository + channels + "{from: dev, to: alpha, mode: rebase, soak: 1h}\n", `pipeline.edges[0].mode: is "rebase"; must be one of merge, pull-request`},
		"no mode":         {withRepository + channels + "{from: dev, to: alpha, soak: 1h}\n", `pipeline.edges[0].mode: is missing`},
		"unknown window":  {withRepository + channels + "{from: dev, to: alpha, mode: merge, soak: 1h, windows: [{days: [weekend], from: \"1:00\", to: \"2:00\"}]}\n", `pipeline.edges[0].windows[0].days[0]`},
		"two tokens":      {withRepository + channels + "{from: dev, to: alpha, mode: merge, soak: 1h, gates: [{name: a, http: {url: 'https://x', token_env: A, token_file: b}}]}\n", `pipeline.edges[0].gates[0].http.token_env`},
		"gate of no kind": {withRepository + channels + "{from: dev, to: alpha, mode: merge, soak: 1h, gates: [{name: a}]}\n", `pipeline.edges[0].gates[0]: asks nothing`},
		"no repository":   {minimal + channels + "{from: dev, to: alpha, mode: merge, soak: 1h}\n", `pipeline: has nothing to promote: repository.url is missing`},
		"no forge for pull requests": {
			minimal + "repository: {url: /srv/git}\n" + channels + "{from: dev, to: alpha, mode: pull-request, soak: 1h}\n", `pipeline.edges[0].mode: is "pull-request", which needs a forge; set forge.kind`,
		},
		"no forge for a person": {
			minimal + "repository: {url: /srv/git}\n" + channels + "{from: dev, to: alpha, mode: merge, soak: 1h, person_for: [nodes]}\n", `pipeline.edges[0].person_for: opens pull requests, which needs a forge; set forge.kind`,
		},
		"no forge for a status": {
			minimal + "repository: {url: /srv/git}\n" + channels + "{from: dev, to: alpha, mode: merge, soak: 1h, gates: [{name: a, status: b}]}\n", `pipeline.edges[0].gates[0].status: is kept by a forge; set forge.kind`,
		},
	} {
		t.Run(rule, func(t *testing.T) {
			_, err := config.Parse("fairway.yaml", []byte(test.content))
			require.ErrorContains(t, err, test.want)
		})
	}
	_, err := config.Parse("fairway.yaml", []byte(minimal+"repository: {url: /srv/git}\n"+channels+"{from: dev, to: alpha, mode: merge, soak: 1h}\n"))
	require.NoError(t, err, "merges need no forge")
}

func TestABadForgeIsRefused(t *testing.T) {
	const repository = `repository: {url: "https://git.example.org/team/config.git"}` + "\n"
	for forge, want := range map[string]string{
		"{kind: gitlab, token_env: A}":                `forge.kind: is "gitlab"; must be one of github, gitea`,
		"{kind: gitea, token_env: A}":                 "forge.url: is missing",
		"{url: https://x}":                            "forge.kind: is missing; must be github or gitea",
		"{token_file: a}":                             "forge.kind: is missing",
		"{kind: github}":                              "forge: has no credentials; name them by token_env, token_file or, on GitHub, app",
		"{kind: github, token_env: A, token_file: b}": "forge.token_env",
		"{kind: github, token_env: A, app: {id: 1, installation: 2, key_file: k}}":  "forge.app: cannot be set together with a token",
		"{kind: gitea, url: https://x, app: {id: 1, installation: 2, key_file: k}}": "forge.app: is for kind github; gitea takes token_env or token_file",
		"{kind: github, app: {id: 1}}":                                              "forge.app.installation: is missing",
		"{kind: gitea, url: git.example.org, token_env: A}":                         "forge.url: must be an address such as https://git.example.org",
		"{kind: gitea, url: 'https://anna:hunter2@git.example.org', token_env: A}":  "forge.url: has credentials in it; take them out",
		"{kind: gitea, url: 'http://git.example.org', token_env: A}":                "forge.url: has http, which is accepted for this machine only; use https",
		"{kind: github, repository: config, token_env: A}":                          `forge.repository: is "config"; must be owner/name of the repository`,
		"{kind: github, repository: ../config, token_env: A}":                       `forge.repository: is "../config"`,
		"{kind: github, repository: team/.., token_env: A}":                         `forge.repository: is "team/.."`,
		"{kind: github, repository: a/b/c, token_env: A}":                           `forge.repository: is "a/b/c"`,
		"{kind: github, timeout: -1s, token_env: A}":                                "forge.timeout: is -1s; must be at least 0",
	} {
		_, err := config.Parse("fairway.yaml", []byte(minimal+repository+"forge: "+forge+"\n"))
		require.ErrorContains(t, err, want, forge)
		require.NotContains(t, err.Error(), "hunter2")
	}
	_, err := config.Parse("fairway.yaml", []byte(minimal+"forge: {kind: github, token_env: A}\n"))
	require.ErrorContains(t, err, "forge: has no repository: repository.url is missing")
	_, err = config.Parse("fairway.yaml", []byte(minimal+"repository: {url: /srv/config.git}\nforge: {kind: github, token_env: A}\n"))
	require.ErrorContains(t, err, "forge.repository: cannot be told from repository.url; must be owner/name of the repository")
}

func TestWhereTheRepositoryIsOnItsForge(t *testing.T) {
	for _, test := range []struct{ url, forge, repository, owner, name string }{
		{"https://github.com/team/config.git", "https://github.com", "", "team", "config"},
		{"https://github.com/team/config", "https://github.com/", "", "team", "config"},
		{"git@github.com:team/config.git", "https://github.com", "", "team", "config"},
		{"ssh://git@git.example.org:2222/team/kubernetes-on-aws.git", "https://git.example.org", "", "team", "kubernetes-on-aws"},
		{"https://example.org/gitea/team/config.git", "https://example.org/gitea/", "", "team", "config"},
		{"http://127.0.0.1:3000/team/.config", "http://127.0.0.1:3000", "", "team", ".config"},
		{"/srv/mirror.git", "https://github.com", "team/config", "team", "config"},
		{"https://mirror.example.org/team/config.git", "https://github.com", "other/name", "other", "name"},
	} {
		c := config.Config{Repository: config.Repository{URL: test.url}, Forge: config.Forge{Kind: "github", URL: test.forge, Repository: test.repository}}
		owner, name, err := c.ForgeRepository()
		require.NoError(t, err, test.url)
		require.Equal(t, test.owner+" "+test.name, owner+" "+name)
	}
}

func TestFilesOfForgeAndGatesStartAtTheConfiguration(t *testing.T) {
	c, err := config.Parse("/etc/fairway/fairway.yaml", []byte(minimal+`repository: {url: "https://git.example.org/team/config.git"}
forge: {kind: github, token_file: forge.token}
`))
	require.NoError(t, err)
	require.Equal(t, "/etc/fairway/forge.token", c.Forge.TokenFile)
}
