package config_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fairway-project/fairway/calendar"
	"github.com/fairway-project/fairway/config"
	"github.com/fairway-project/fairway/registry"
	"github.com/fairway-project/fairway/rollout"
	"github.com/fairway-project/fairway/workflows"
)

func TestHowAClusterIsUpdated(t *testing.T) {
	standard := workflows.UpdateSettings{
		ParallelPools: 2, HealthyWithin: 15 * time.Minute, Limits: rollout.Limits{Fleet: 10, Account: 5, Region: 5},
		RetryAfter: 5 * time.Minute, RetryAtMost: 2 * time.Hour,
	}
	with := func(change func(*workflows.UpdateSettings)) workflows.UpdateSettings {
		s := standard
		change(&s)
		return s
	}
	for rule, c := range map[string]struct {
		content, environment string
		items                map[string]string
		want                 workflows.UpdateSettings
	}{
		"by default": {want: standard},
		"test clusters try again sooner": {environment: "test", want: with(func(s *workflows.UpdateSettings) {
			s.RetryAfter, s.RetryAtMost = time.Minute, 30*time.Minute
		})},
		"all of it can be set": {
			content: `update: {parallel_pools: 4, healthy_within: 1m, rollback: true, prune: true, manifests_anytime: true,
  retry_after: 1s, retry_at_most: 2s, limits: {fleet: 1, account: 2, region: 0}}
`,
			want: workflows.UpdateSettings{
				ParallelPools: 4, HealthyWithin: time.Minute, Rollback: true, Prune: true, ManifestsAnytime: true,
				RetryAfter: time.Second, RetryAtMost: 2 * time.Second, Limits: rollout.Limits{Fleet: 1, Account: 2},
			},
		},
		"an environment wins over the rest": {
			content: "update: {rollback: true, prune: true, environments: {production: {prune: false, parallel_pools: 1}}}\n",
			want:    with(func(s *workflows.UpdateSettings) { s.Rollback, s.ParallelPools = true, 1 }),
		},
		"an item of the cluster wins over its environment": {
			content: "update: {environments: {production: {prune: true, rollback: true}}}\n",
			items:   map[string]string{"fairway.update.rollback": "false", "fairway.update.healthy_within": "1h", "cluster_update_block": "not now: {}"},
			want:    with(func(s *workflows.UpdateSettings) { s.Prune, s.HealthyWithin = true, time.Hour }),
		},
		"windows": {
			content: "update: {windows: [{from: '22:00', to: '04:00'}]}\n",
			want:    with(func(s *workflows.UpdateSettings) { s.Windowed = true }),
		},
		"windows that a cluster does not have": {
			content: "update: {windows: [{from: '22:00', to: '04:00'}]}\n", items: map[string]string{"fairway.update.windows": "anytime"},
			want: standard,
		},
		"windows of a cluster": {
			items: map[string]string{"fairway.update.windows": "mon-fri 22:00-04:00 Europe/Berlin"},
			want:  with(func(s *workflows.UpdateSettings) { s.Windowed = true }),
		},
		"freezes": {
			content: "update: {freezes: [{name: sale, from: 2026-11-23T00:00:00Z, to: 2026-12-01T00:00:00Z}]}\n",
			want:    with(func(s *workflows.UpdateSettings) { s.Windowed = true }),
		},
	} {
		t.Run(rule, func(t *testing.T) {
			parsed, err := config.Parse("fairway.yaml", []byte(minimal+c.content))
			require.NoError(t, err)
			environment := "production"
			if c.environment != "" {
				environment = c.environment
			}
			settings, err := parsed.UpdateSettings(registry.Cluster{ID: "dev-1", Environment: environment, ConfigItems: c.items})
			require.NoError(t, err)
			require.Equal(t, c.want, workflows.UpdateSettings(settings))
		})
	}
}

func TestTheCalendarOfACluster(t *testing.T) {
	parsed, err := config.Parse("fairway.yaml", []byte(minimal+`
update:
  windows: [{days: [sat, sun], from: "00:00", to: "24:00", time_zone: Europe/Berlin}]
  freezes: [{name: sale, from: 2026-11-23T00:00:00+01:00, to: 2026-12-01T00:00:00+01:00}]
  environments:
    test:
      windows: []
`))
	require.NoError(t, err)
	berlin := time.FixedZone("", 3600)
	freezes := []calendar.Freeze{{Name: "sale", From: time.Date(2026, 11, 23, 0, 0, 0, 0, berlin), To: time.Date(2026, 12, 1, 0, 0, 0, 0, berlin)}}
	for environment, want := range map[string][]calendar.Window{
		"production": {{Days: []string{"sat", "sun"}, From: "00:00", To: "24:00", TimeZone: "Europe/Berlin"}}, "test": {},
	} {
		c, err := parsed.Calendar(registry.Cluster{ID: "dev-1", Environment: environment})
		require.NoError(t, err)
		require.Equal(t, calendar.Calendar{Windows: want, Freezes: freezes}, c)
	}
	c, err := parsed.Calendar(registry.Cluster{ID: "dev-1", ConfigItems: map[string]string{"fairway.update.windows": "mon 22:00-04:00; 01:00-02:00 UTC"}})
	require.NoError(t, err)
	require.Equal(t, []calendar.Window{{Days: []string{"mon"}, From: "22:00", To: "04:00"}, {From: "01:00", To: "02:00", TimeZone: "UTC"}}, c.Windows)
}

func TestWhatBelongsToAHealthyCluster(t *testing.T) {
	parsed, err := config.Parse("/etc/fairway/fairway.yaml", []byte(minimal+`
update:
  alerts: {url: "https://prometheus.{cluster}.example.org", query: up == 0, token_file: /etc/fairway/token}
  environments:
    test:
      system_namespaces: [kube-system, visibility]
      prune: true
      alerts: {url: "https://prometheus.test.example.org", token_file: /run/token}
`))
	require.NoError(t, err)
	health, err := parsed.Health(registry.Cluster{ID: "live-1", Environment: "production"})
	require.NoError(t, err)
	require.Equal(t, config.Health{SystemNamespaces: []string{"kube-system"}, Alerts: &config.Alerts{
		URL: "https://prometheus.{cluster}.example.org", Query: "up == 0", TokenFile: "/etc/fairway/token",
	}}, health)
	health, err = parsed.Health(registry.Cluster{ID: "dev-1", Environment: "test", ConfigItems: map[string]string{"fairway.update.system_namespaces": "[a, b]"}})
	require.NoError(t, err)
	require.Equal(t, config.Health{SystemNamespaces: []string{"a", "b"}, Prune: true, Alerts: &config.Alerts{
		URL: "https://prometheus.test.example.org", TokenFile: "/run/token",
	}}, health)
}

func TestWrongSettingsOfUpdatesAreRefusedWithTheirPlace(t *testing.T) {
	for content, want := range map[string]string{
		"update:\n  parallel_pools: 0\n":                                                    "fairway.yaml:6: update.parallel_pools: is 0; must be at least 1",
		"update:\n  retry_after: 3h\n":                                                      "fairway.yaml:6: update.retry_at_most: is 2h0m0s; must be at least retry_after, which is 3h0m0s",
		"update:\n  environments:\n    test:\n      retry_at_most: 1s\n":                    "fairway.yaml:8: update.environments.test.retry_at_most: is 1s; must be at least retry_after, which is 1m0s",
		"update:\n  system_namespaces: [\"\"]\n":                                            "fairway.yaml:6: update.system_namespaces: holds an empty name",
		"update:\n  windows:\n  - to: \"04:00\"\n":                                          "fairway.yaml:7: update.windows[0].from: is missing",
		"update:\n  windows:\n  - from: \"25:00\"\n    to: \"04:00\"\n":                     `fairway.yaml:7: update.windows[0].from: is "25:00"; must be a time of the day from 00:00 to 23:59`,
		"update:\n  windows:\n  - days: [monday]\n    from: \"22:00\"\n    to: \"04:00\"\n": `update.windows[0].days[0]: is "monday"; must be one of mon, tue, wed, thu, fri, sat, sun`,
		"update:\n  environments:\n    test:\n      windows:\n      - from: \"22:00\"\n        to: \"04:00\"\n        time_zone: CEST\n": `fairway.yaml:11: update.environments.test.windows[0].time_zone: is "CEST"; must be a name of the IANA database`,
		"update:\n  freezes:\n  - name: sale\n    from: 2026-12-01T00:00:00Z\n    to: 2026-11-23T00:00:00Z\n":                            "fairway.yaml:9: update.freezes[0].to: is 2026-11-23T00:00:00Z; must be later than from, which is 2026-12-01T00:00:00Z",
		"update:\n  freezes:\n  - name: sale\n    from: 2026-12-01\n":                                                                    `fairway.yaml:8: update.freezes[0].from: is "2026-12-01"; must be a time with its offset`,
		"update:\n  freezes:\n  - name: sale\n    from: 2026-12-01T00:00:00Z\n":                                                          "update.freezes[0].to: is missing",
		"update:\n  alerts: {}\n":                                                              "update.alerts.url: is missing",
		"update:\n  alerts:\n    url: prometheus\n":                                            "fairway.yaml:7: update.alerts.url: must be the address of a Prometheus",
		"update:\n  alerts:\n    url: https://anna:s3cret@example.org\n":                       "fairway.yaml:7: update.alerts.url: has credentials in it",
		"update:\n  environments:\n    test:\n      alerts:\n        url: ftp://example.org\n": "fairway.yaml:9: update.environments.test.alerts.url: must be the address of a Prometheus",
		"repository:\n  url: ext::sh -c x\n":                                                   `fairway.yaml:6: repository.url: is "ext::sh -c x"; must be https://host/path`,
		"repository:\n  url: https://anna:s3cret@example.org/config\n":                         "fairway.yaml:6: repository.url: has credentials in it",
		"repository:\n  url: https://example.org/config\n  user: anna\n":                       "fairway.yaml:7: repository.user: has no token; name one by token_env or token_file",
		"repository:\n  path: ../cluster\n":                                                    `fairway.yaml:6: repository.path: is "../cluster"; must be a folder of the repository such as cluster`,
	} {
		_, err := config.Parse("fairway.yaml", []byte(minimal+content))
		require.ErrorContains(t, err, want, content)
		require.NotContains(t, strings.ReplaceAll(err.Error(), content, ""), "s3cret")
	}

	parsed, err := config.Parse("fairway.yaml", []byte(minimal))
	require.NoError(t, err)
	for key, c := range map[string]struct{ value, want string }{
		"fairway.update.windows":        {"mon 22:00", `registry: cluster dev-1: config_items: fairway.update.windows is "mon 22:00", whose to is ""`},
		"fairway.update.rollback":       {"maybe", `registry: cluster dev-1: config_items: fairway.update:1: rollback: is "maybe"; must be true or false`},
		"fairway.update.parallel_pools": {"0", "parallel_pools: is 0; must be at least 1"},
		"fairway.update.freezes":        {"[]", "freezes: is no known key"},
		"fairway.update.alerts":         {"{url: https://evil.example.org}", "must be a plain value"},
		"fairway.update.retry_at_most":  {"1s", "registry: cluster dev-1: fairway.update.retry_at_most is 1s; must be at least retry_after, which is 5m0s"},
	} {
		_, err := parsed.UpdateSettings(registry.Cluster{ID: "dev-1", ConfigItems: map[string]string{key: c.value}})
		require.ErrorContains(t, err, c.want)
	}
}

func TestTheRepositoryIsOpenedAsConfigured(t *testing.T) {
	t.Setenv("TOKEN", "secret")
	parsed, err := config.Parse("/etc/fairway/fairway.yaml", []byte(minimal+"repository: {url: https://example.org/config, mirror: "+t.TempDir()+"/m.git, user: anna, token_env: TOKEN, timeout: 5s}\n"))
	require.NoError(t, err)
	mirror, err := parsed.Repository.Open(t.Context())
	require.NoError(t, err)
	require.Equal(t, []string{"https://example.org/config", "anna", "TOKEN", ""}, []string{mirror.URL, mirror.User, mirror.TokenEnv, mirror.TokenFile})
	require.Equal(t, 5*time.Second, mirror.Timeout)

	mirror, err = config.Repository{}.Open(t.Context())
	require.NoError(t, err)
	require.Nil(t, mirror)
}
