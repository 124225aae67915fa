package config_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fairway-project/fairway/config"
	"github.com/fairway-project/fairway/e2e"
	"github.com/fairway-project/fairway/promotion"
)

const minimal = `registry:
  file: registry.yaml
kubernetes:
  kubeconfig: kubeconfig
`

func TestEveryFieldIsRead(t *testing.T) {
	t.Setenv("KUBECONFIG", "/elsewhere/kubeconfig")
	c, err := config.Parse("/etc/fairway/fairway.yaml", []byte(`
task_queue: trains
registry:
  file: clusters/registry.yaml
kubernetes:
  kubeconfig: /var/lib/fairway/kubeconfig
  pool_label: example.org/pool
  qps: 12.5
  burst: 25
aws:
  assume_role: arn:aws:iam::{account}:role/fairway
  cluster_tag: example.org/cluster/{cluster}
  pool_tag: example.org/pool
  bucket: configuration-{account}
  network_tag: network=clusters
  poll_interval: 10s
  qps: 7.5
  burst: 15
repository:
  url: https://example.org/team/config.git
  mirror: mirror.git
  user: anna
  token_file: token
  timeout: 10s
  path: clusters
replace:
  node_ready_within: 1h30m
  settle: 500ms
limits:
  fleet: 3
  account: 2
  region: 1
notify:
  url_env: HOOK
  secret_file: /run/secrets/hook
  kinds: [forced]
  timeout: 1s
worker:
  listen: 0.0.0.0:9000
  stop_within: 2m
  deployment: trains
  promote: true
  log:
    format: console
    level: debug
`))
	require.NoError(t, err)
	c.Drain, c.Roll, c.Update, c.Rollout = config.Drain{}, config.Roll{}, config.Update{}, config.Rollout{} // have tests of their own
	c.Forge, c.Pipeline, c.E2E = config.Forge{}, promotion.Pipeline{}, e2e.Settings{}
	require.Equal(t, config.Config{
		TaskQueue:  "trains",
		Registry:   config.Registry{File: "/etc/fairway/clusters/registry.yaml", Timeout: 10 * time.Second},
		Kubernetes: config.Kubernetes{Access: "kubeconfig", Kubeconfig: "/var/lib/fairway/kubeconfig", PoolLabel: "example.org/pool", QPS: 12.5, Burst: 25},
		AWS: config.AWS{
			AssumeRole: "arn:aws:iam::{account}:role/fairway", ClusterTag: "example.org/cluster/{cluster}",
			PoolTag: "example.org/pool", Bucket: "configuration-{account}", NetworkTag: "network=clusters", PollInterval: 10 * time.Second, QPS: 7.5, Burst: 15,
		},
		Repository: config.Repository{
			URL: "https://example.org/team/config.git", Mirror: "/etc/fairway/mirror.git", User: "anna", TokenFile: "/etc/fairway/token",
			Timeout: 10 * time.Second, Path: "clusters",
		},
		Replace: config.Replace{NodeReadyWithin: 90 * time.Minute, Settle: 500 * time.Millisecond},
		Limits:  config.Limits{Fleet: 3, Account: 2, Region: 1},
		Notify:  config.Notify{URLEnv: "HOOK", SecretFile: "/run/secrets/hook", Kinds: []string{"forced"}, Timeout: time.Second},
		Worker: config.Worker{
			Listen: "0.0.0.0:9000", StopWithin: 2 * time.Minute, Deployment: "trains", Promote: true,
			Log: config.Log{Format: "console", Level: "debug"},
		},
	}, c)
}

func TestWhatIsLeftOutHasADefault(t *testing.T) {
	want := config.Config{
		TaskQueue:  "fairway",
		Registry:   config.Registry{File: "/etc/fairway/registry.yaml", Timeout: 10 * time.Second},
		Kubernetes: config.Kubernetes{Access: "kubeconfig", Kubeconfig: "/etc/fairway/kubeconfig", PoolLabel: "node.kubernetes.io/node-pool", QPS: 200, Burst: 400},
		AWS:        config.AWS{ClusterTag: "kubernetes.io/cluster/{cluster}", PoolTag: "node.kubernetes.io/node-pool", Bucket: "fairway-{account}-{region}", PollInterval: 5 * time.Second, QPS: 20, Burst: 40},
		Repository: config.Repository{Timeout: time.Minute, Path: "cluster"},
		Replace:    config.Replace{NodeReadyWithin: 15 * time.Minute, Settle: 30 * time.Second},
		Limits:     config.Limits{Fleet: 50, Account: 10, Region: 25},
		Notify:     config.Notify{Timeout: 10 * time.Second},
		Worker: config.Worker{
			Listen: "127.0.0.1:9464", StopWithin: 30 * time.Second, Deployment: "fairway", Log: config.Log{Format: "json", Level: "info"},
		},
	}
	for name, content := range map[string]string{
		"field":  minimal,
		"value":  minimal + "worker:\n  listen:\n  log:\n    level:\nreplace:\n  settle:\n",
		"values": minimal + "worker:\nreplace: {}\naws: null\n",
	} {
		t.Run(name, func(t *testing.T) {
			c, err := config.Parse("/etc/fairway/fairway.yaml", []byte(content))
			require.NoError(t, err)
			c.Drain, c.Roll, c.Update, c.Rollout = config.Drain{}, config.Roll{}, config.Update{}, config.Rollout{} // have tests of their own
			c.Forge, c.Pipeline, c.E2E = config.Forge{}, promotion.Pipeline{}, e2e.Settings{}
			require.Equal(t, want, c)
		})
	}
}

func TestRelativePathsStartAtTheFile(t *testing.T) {
	for _, test := range []struct{ path, registry, kubeconfig string }{
		{"/etc/fairway/fairway.yaml", "/etc/fairway/registry.yaml", "/etc/fairway/kubeconfig"},
		{"deploy/fairway.yaml", "deploy/registry.yaml", "deploy/kubeconfig"},
		{"fairway.yaml", "registry.yaml", "kubeconfig"},
	} {
		c, err := config.Parse(test.path, []byte(minimal))
		require.NoError(t, err)
		require.Equal(t, test.registry, c.Registry.File)
		require.Equal(t, test.kubeconfig, c.Kubernetes.Kubeconfig)
	}
}

func TestTheKubeconfigComesFromTheEnvironmentIfNoneIsNamed(t *testing.T) {
	t.Setenv("KUBECONFIG", "/home/anna/.kube/config")
	c, err := config.Parse("/etc/fairway/fairway.yaml", []byte("registry:\n  file: registry.yaml\n"))
	require.NoError(t, err)
	require.Equal(t, "/home/anna/.kube/config", c.Kubernetes.Kubeconfig)
}

func TestAWrongConfigurationIsRefusedWithFileLineAndField(t *testing.T) {
	t.Setenv("KUBECONFIG", "")
	const duration = "; must be a duration in hours, minutes and seconds, such as 72h, 1h30m or 500ms"
	for name, test := range map[string]struct{ content, want string }{
		"empty file":            {"", "fairway.yaml: registry.file: is missing\nfairway.yaml: kubernetes.kubeconfig: is missing"},
		"no registry":           {"registry: {}\nkubernetes: {kubeconfig: k}", "fairway.yaml:1: registry.file: is missing"},
		"no token file":         {"registry: {file: r}\nkubernetes: {access: token}", "fairway.yaml:2: kubernetes.token_file: is missing"},
		"unknown access":        {"registry: {file: r}\nkubernetes: {access: ldap}", `fairway.yaml:2: kubernetes.access: is "ldap"; must be one of kubeconfig, token, eks`},
		"no kubeconfig":         {"registry: {file: r}", "fairway.yaml: kubernetes.kubeconfig: is missing"},
		"unknown key":           {minimal + "taskqueue: a\n", "fairway.yaml:5: taskqueue: is no known key; there are aws, drain, e2e, forge, kubernetes, limits, notify, pipeline, registry, replace, repository, roll, rollout, task_queue, update, worker"},
		"unknown key in a part": {minimal + "replace:\n  settled: 1s\n", "fairway.yaml:6: replace.settled: is no known key; there are node_ready_within, settle"},
		"days":                  {minimal + "replace:\n  node_ready_within: 3 days\n", `fairway.yaml:6: replace.node_ready_within: is "3 days"` + duration},
		"duration without unit": {minimal + "worker:\n  stop_within: 30\n", "fairway.yaml:6: worker.stop_within: is 30" + duration},
		"negative duration":     {minimal + "aws:\n  poll_interval: -5s\n", "fairway.yaml:6: aws.poll_interval: is -5s; must be at least 0"},
		"no limit of requests":  {minimal + "  qps: 0\n", "fairway.yaml:5: kubernetes.qps: is 0; must be more than 0"},
		"no request to AWS":     {minimal + "aws:\n  qps: 0\n", "fairway.yaml:6: aws.qps: is 0; must be more than 0"},
		"text for a number":     {minimal + "  burst: many\n", `fairway.yaml:5: kubernetes.burst: is "many"; must be a whole number`},
		"no address":            {minimal + "worker:\n  listen: 9464\n", `fairway.yaml:6: worker.listen: is "9464"; must be an address such as 127.0.0.1:9464`},
		"no truth value":        {minimal + "worker:\n  promote: yes\n", `fairway.yaml:6: worker.promote: is "yes"; must be true or false`},
		"no log format":         {minimal + "worker:\n  log:\n    format: text\n", `fairway.yaml:7: worker.log.format: is "text"; must be one of json, console`},
		"one tag for all":       {minimal + "aws:\n  cluster_tag: owner\n", `fairway.yaml:6: aws.cluster_tag: is "owner"; must contain {cluster}, since what carries the tag is deleted with the cluster`},
		"no tag of pools":       {minimal + "aws:\n  pool_tag: ''\n", `fairway.yaml:6: aws.pool_tag: is empty; must be the tag that names a pool`},
		"no log level":          {minimal + "worker:\n  log:\n    level: loud\n", `fairway.yaml:7: worker.log.level: is "loud"; must be one of debug, info, warn, error`},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := config.Parse("fairway.yaml", []byte(test.content))
			require.EqualError(t, err, test.want)
			require.Zero(t, c)
		})
	}
}

func TestTheFileIsNamedByPathOrByTheEnvironment(t *testing.T) {
	dir := t.TempDir()
	write := func(name, queue string) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(minimal+"task_queue: "+queue+"\n"), 0o600))
		return path
	}
	named, fromEnvironment := write("named.yaml", "named"), write("environment.yaml", "environment")

	t.Setenv("FAIRWAY_CONFIG", fromEnvironment)
	c, err := config.Load("")
	require.NoError(t, err)
	require.Equal(t, "environment", c.TaskQueue)
	require.Equal(t, filepath.Join(dir, "registry.yaml"), c.Registry.File)

	c, err = config.Load(named)
	require.NoError(t, err)
	require.Equal(t, "named", c.TaskQueue)

	t.Setenv("FAIRWAY_CONFIG", "")
	_, err = config.Load("")
	require.EqualError(t, err, "no configuration: name the file with --config or the environment variable FAIRWAY_CONFIG")
}

func TestAFileThatCannotBeReadIsNamed(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "fairway.yaml")
	_, err := config.Load(missing)
	require.ErrorIs(t, err, os.ErrNotExist)
	require.ErrorContains(t, err, missing)
}

func TestTheRegistryIsReadThroughTheConfiguration(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "registry.yaml"), []byte("clusters: []\n"), 0o600))
	c, err := config.Parse(filepath.Join(dir, "fairway.yaml"), []byte(minimal))
	require.NoError(t, err)
	clusters, err := c.Registry.Clusters(t.Context())
	require.NoError(t, err)
	require.Empty(t, clusters)
}

func TestFilesThatHoldTokensStartAtTheConfiguration(t *testing.T) {
	c, err := config.Parse("/etc/fairway/fairway.yaml", []byte(`registry: {file: r}
kubernetes: {access: token, token_file: "tokens/{cluster}", ca_file: ca.pem}
update:
  alerts: {url: "https://prometheus.example.org", token_file: prometheus.token}
  environments: {test: {alerts: {url: "https://prometheus.test.example.org", token_file: test.token}}}
`))
	require.NoError(t, err)
	require.Equal(t, "/etc/fairway/tokens/{cluster}", c.Kubernetes.TokenFile)
	require.Equal(t, "/etc/fairway/ca.pem", c.Kubernetes.CAFile)
	require.Equal(t, "/etc/fairway/prometheus.token", c.Update.Alerts.TokenFile)
	require.Equal(t, "/etc/fairway/test.token", c.Update.Environments["test"].Alerts.TokenFile)
}
