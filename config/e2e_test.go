package config_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fairway-project/fairway/config"
	"github.com/fairway-project/fairway/e2e"
)

const withForge = minimal + `repository: {url: "https://git.example.org/team/config.git"}
forge: {kind: gitea, url: "https://git.example.org", token_env: TOKEN}
pipeline: {channels: [dev]}
`

// withTests has tests from its line 8 on; the last section is e2e.
const withTests = withForge + `e2e:
  accounts: [{account: "aws:123456789012", region: eu-central-1}]
  cluster:
    api_server_url: https://{cluster}.example.org
    node_pools: [{name: workers, profile: worker, instance_types: [m5.large], min_size: 1, max_size: 3}]
`

func TestTestsHaveDefaults(t *testing.T) {
	c, err := config.Parse("fairway.yaml", []byte(minimal))
	require.NoError(t, err)
	require.Equal(t, e2e.Defaults(), c.E2E)
	require.False(t, c.E2E.Configured())

	c, err = config.Parse("fairway.yaml", []byte(withTests+"  sweep: {every: 0s}\n  suites: [{name: smoke, smoke: {}, within: 5m}]\n"))
	require.NoError(t, err)
	require.True(t, c.E2E.Configured())
	require.Equal(t, "ready-to-test", c.E2E.Label)
	require.Zero(t, c.E2E.Sweep.Every)
	require.Equal(t, []e2e.Suite{{Name: "smoke", Smoke: &e2e.SmokeSuite{}, Within: 5 * time.Minute}}, c.E2E.Suites)
}

func TestBadTestsAreRefusedWithLineAndField(t *testing.T) {
	const accounts = withForge + "e2e:\n  accounts: [{account: \"aws:123456789012\", region: eu-central-1}]\n"
	const pools = "    node_pools: [{name: w, profile: worker, instance_types: [m5.large], min_size: 1, max_size: 3}]\n"
	const cluster = "  cluster:\n    api_server_url: https://{cluster}.example.org\n" + pools
	for rule, test := range map[string]struct{ content, want string }{
		"no repository":      {minimal + "e2e:\n  accounts: [{account: \"aws:123456789012\", region: eu-central-1}]\n" + cluster, "fairway.yaml:6: e2e: has nothing to test: repository.url is missing"},
		"no forge":           {minimal + "e2e:\n  accounts: [{account: \"aws:123456789012\", region: eu-central-1}]\n" + cluster, "fairway.yaml:6: e2e: tests pull requests, which needs a forge; set forge.kind"},
		"no channels":        {minimal + "e2e:\n  accounts: [{account: \"aws:123456789012\", region: eu-central-1}]\n" + cluster, "fairway.yaml:6: e2e: tests pull requests into channels, of which pipeline.channels has none"},
		"unknown key":        {withTests + "  labels: a\n", "fairway.yaml:13: e2e.labels: is no known key"},
		"no label":           {withTests + "  label: ''\n", `fairway.yaml:13: e2e.label: is ""; must not be empty`},
		"one label for both": {withTests + "  label: Hotfix\n", `e2e.hotfix_label: is "hotfix", as label is`},
		"no status":          {withTests + "  status: ' a'\n", `fairway.yaml:13: e2e.status: is " a"; must not begin or end with spaces`},
		"negative time":      {withTests + "  within: -1h\n", "fairway.yaml:13: e2e.within: is -1h0m0s; must be at least 0"},
		"no time":            {withTests + "  within: 0s\n", "fairway.yaml:13: e2e.within: is 0; must be more than 0"},
		"days":               {withTests + "  keep_failed: 1 day\n", `fairway.yaml:13: e2e.keep_failed: is "1 day"; must be a duration`},
		"kept for too long":  {withTests + "  keep_failed: 48h\n", "fairway.yaml:13: e2e.keep_failed: is 48h0m0s; must be at most keep_at_most, which is 24h0m0s"},
		"no link":            {withTests + "  ui: temporal\n", "fairway.yaml:13: e2e.ui: is \"temporal\"; must be a URL"},
		"no account":         {withForge + "e2e:\n  accounts: [{region: eu-central-1}]\n" + cluster, "fairway.yaml:9: e2e.accounts[0].account: is missing"},
		"bad account":        {withForge + "e2e:\n  accounts: [{account: test, region: eu-central-1}]\n" + cluster, `fairway.yaml:9: e2e.accounts[0].account: is "test"; must be an account such as aws:123456789012`},
		"bad region":         {withForge + "e2e:\n  accounts: [{account: \"aws:123456789012\", region: Frankfurt}]\n" + cluster, `fairway.yaml:9: e2e.accounts[0].region: is "Frankfurt"; must be a region such as eu-central-1`},
		"an account twice": {
			withForge + "e2e:\n  accounts:\n  - {account: \"aws:123456789012\", region: eu-central-1}\n  - {account: \"aws:123456789012\", region: eu-central-1, limit: 4}\n" + cluster,
			"fairway.yaml:11: e2e.accounts[1]: is aws:123456789012 in eu-central-1 once more; it is accounts[0] already",
		},
		"no API server":    {accounts + "  cluster:\n" + pools, "e2e.cluster.api_server_url: is missing"},
		"no address":       {accounts + "  cluster:\n    api_server_url: ftp://{cluster}\n" + pools, "fairway.yaml:11: e2e.cluster.api_server_url: must be an address such as"},
		"one API server":   {accounts + "  cluster:\n    api_server_url: https://example.org\n" + pools, `fairway.yaml:11: e2e.cluster.api_server_url: is "https://example.org"; must contain {cluster}`},
		"unknown braces":   {accounts + "  cluster:\n    api_server_url: https://{cluster}.{region}.example.org\n" + pools, "e2e.cluster.api_server_url: has braces in it; there is {cluster}"},
		"credentials":      {accounts + "  cluster:\n    api_server_url: https://anna:hunter2@{cluster}\n" + pools, "e2e.cluster.api_server_url: has credentials in it"},
		"no nodes":         {accounts + "  cluster:\n    api_server_url: https://{cluster}\n", "e2e.cluster.node_pools: is missing"},
		"no environment":   {withTests + "    environment: ''\n", "fairway.yaml:13: e2e.cluster.environment: is missing"},
		"a bad pool":       {accounts + "  cluster:\n    api_server_url: https://{cluster}\n    node_pools: [{name: W, profile: p, instance_types: [a], min_size: 3, max_size: 1}]\n", `fairway.yaml:12: e2e.cluster.node_pools[0].name: is "W"; use lower-case letters`},
		"sizes of a pool":  {accounts + "  cluster:\n    api_server_url: https://{cluster}\n    node_pools: [{name: w, profile: p, instance_types: [a], min_size: 3, max_size: 1}]\n", "e2e.cluster.node_pools[0].max_size: is 1; must be at least min_size, which is 3"},
		"no types":         {accounts + "  cluster:\n    api_server_url: https://{cluster}\n    node_pools: [{name: w, profile: p}]\n", "e2e.cluster.node_pools[0].instance_types: is []; must be at least 1"},
		"a tag of ours":    {withTests + "    tags: {fairway.dev/lease: mine}\n", `fairway.yaml:13: e2e.cluster.tags: has the key "fairway.dev/lease", which is for Fairway or AWS itself`},
		"bad image":        {withTests + "  workload: {image: a b}\n", `fairway.yaml:13: e2e.workload.image: is "a b"`},
		"bad storage":      {withTests + "  workload: {image: a, storage: big}\n", `fairway.yaml:13: e2e.workload.storage: is "big"; must be a size such as 1Gi`},
		"bad namespace":    {withTests + "  workload: {image: a, namespace: A}\n", `fairway.yaml:13: e2e.workload.namespace: is "A"`},
		"no replicas":      {withTests + "  workload: {image: a, replicas: 0}\n", "fairway.yaml:13: e2e.workload.replicas: is 0; must be more than 0"},
		"a bad load":       {withTests + "  load: {urls: [\"https://{cluster}\", app]}\n", "fairway.yaml:13: e2e.load.urls[1]: must be an address such as"},
		"no rate":          {withTests + "  load: {urls: [\"https://{cluster}\"], rate: 0}\n", "fairway.yaml:13: e2e.load.rate: is 0; must be more than 0"},
		"too many errors":  {withTests + "  load: {error_ratio: 2}\n", "fairway.yaml:13: e2e.load.error_ratio: is 2; must be at most 1"},
		"no suite's name":  {withTests + "  suites: [{smoke: {}}]\n", "fairway.yaml:13: e2e.suites[0].name: is missing"},
		"a path":           {withTests + "  suites: [{name: ../a, smoke: {}}]\n", `fairway.yaml:13: e2e.suites[0].name: is "../a", and becomes part of paths`},
		"a name twice":     {withTests + "  suites: [{name: a, smoke: {}}, {name: a, command: [x]}]\n", `fairway.yaml:13: e2e.suites[1].name: is "a", which is the name of suites[0] already`},
		"no kind":          {withTests + "  suites: [{name: a}]\n", "fairway.yaml:13: e2e.suites[0]: runs nothing; set one of command, job, kubernetes, stateful_set and smoke"},
		"two kinds":        {withTests + "  suites: [{name: a, smoke: {}, command: [x]}]\n", "fairway.yaml:13: e2e.suites[0]: sets command and smoke; a suite is one thing"},
		"no binary":        {withTests + "  suites: [{name: a, kubernetes: {}}]\n", "e2e.suites[0].kubernetes.binary: is missing"},
		"a bad focus":      {withTests + "  suites: [{name: a, kubernetes: {binary: b, focus: '['}}]\n", "fairway.yaml:13: e2e.suites[0].kubernetes.focus: is no regular expression"},
		"a file elsewhere": {withTests + "  suites: [{name: a, job: {file: ../job.yaml}}]\n", `fairway.yaml:13: e2e.suites[0].job.file: is "../job.yaml"; must be the path of a file in the configuration repository`},
		"no workload":      {withTests + "  suites: [{name: a, stateful_set: {}}]\n", "fairway.yaml:13: e2e.suites[0].stateful_set: looks after the StatefulSet of the workload, of which there is none"},
		"a smoke address":  {withTests + "  suites: [{name: a, smoke: {urls: [x]}}]\n", "fairway.yaml:13: e2e.suites[0].smoke.urls[0]: must be an address"},
		"unknown channel":  {withTests + "  suites: [{name: a, smoke: {}, channels: [dev, prod]}]\n", `fairway.yaml:13: e2e.suites[0].channels[1]: is "prod", which is no channel of the pipeline; there are dev`},
		"no variable":      {withTests + "  suites: [{name: a, command: [x], env: ['A=b']}]\n", `fairway.yaml:13: e2e.suites[0].env[0]: is "A=b"; must be the name of an environment variable`},
		"useless variable": {withTests + "  suites: [{name: a, smoke: {}, env: [A]}]\n", "fairway.yaml:13: e2e.suites[0].env[0]: has no effect"},
		"many retries":     {withTests + "  suites: [{name: a, smoke: {}, retries: 11}]\n", "fairway.yaml:13: e2e.suites[0].retries: is 11; must be at most 10"},
		"a negative price": {withTests + "  prices: {hour: {m5.large: -1}}\n", `fairway.yaml:13: e2e.prices.hour: has -1 for "m5.large"; must be at least 0`},
		"a negative plane": {withTests + "  prices: {control_plane: -1}\n", "fairway.yaml:13: e2e.prices.control_plane: is -1; must be at least 0"},
		"a bad zone":       {withTests + "  sweep: {hosted_zones: [example.org]}\n", `fairway.yaml:13: e2e.sweep.hosted_zones[0]: is "example.org"; must be the id of a zone`},
		"a negative limit": {withTests + "  sweep: {at_most: -1}\n", "fairway.yaml:13: e2e.sweep.at_most: is -1; must be at least 0"},
	} {
		t.Run(rule, func(t *testing.T) {
			_, err := config.Parse("fairway.yaml", []byte(test.content))
			require.ErrorContains(t, err, test.want)
			require.NotContains(t, err.Error(), "hunter2")
		})
	}
}
