package manifests_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/stretchr/testify/require"

	"github.com/fairway-project/fairway/activities/manifests"
	"github.com/fairway-project/fairway/config"
	"github.com/fairway-project/fairway/lab"
	"github.com/fairway-project/fairway/workflows"
)

// testAlerts lets a real Prometheus decide whether the cluster is healthy.
func testAlerts(s *scene) {
	var full atomic.Int32
	target := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, "disk_full{cluster=%q} %d\ndisk_full{cluster=\"other\"} 1\n", clusterID, full.Load())
	}))
	s.Cleanup(target.Close)
	address := strings.TrimPrefix(target.URL, "http://")
	s.must(s.lab.StartPrometheus(s.Context(), lab.Prometheus{
		Targets: []string{address},
		Rules: `groups:
- name: disks
  rules:
  - {alert: DiskFull, expr: 'disk_full{cluster="dev-1"} == 1', labels: {severity: critical}}
  - {alert: SomeDiskFull, expr: disk_full == 1, labels: {severity: warning}}`,
	}))
	ask := func(query string) (health workflows.Health) {
		s.settings = manifests.HealthSettings{Alerts: &config.Alerts{URL: s.lab.PrometheusURL(), Query: query}}
		s.must(s.worker.Run(s.activities.CheckHealth, workflows.CheckHealth{Cluster: clusterID}, &health))
		return health
	}
	healthy := workflows.Health{Healthy: true}
	sick := func(problem string) workflows.Health { return workflows.Health{Problems: []string{problem}} }
	becomes := func(query string, want workflows.Health) {
		s.Helper()
		s.eventually(strings.Join(want.Problems, ""), func() bool {
			got := ask(query)
			return got.Healthy == want.Healthy && slices.Equal(got.Problems, want.Problems)
		})
	}
	series := fmt.Sprintf(`{cluster="dev-1", instance=%q, job="lab"`, address)

	// What fires for others, or is no more than a warning, is no problem of the cluster.
	becomes(`ALERTS{cluster="other"}`, sick(fmt.Sprintf(`Alert SomeDiskFull is firing: {cluster="other", instance=%q, job="lab", severity="warning"}.`, address)))
	require.Equal(s, healthy, ask(""))
	full.Store(1)
	becomes("", sick("Alert DiskFull is firing: "+series+`, severity="critical"}.`))
	becomes(`disk_full{cluster="{cluster}"} == 1`, sick("The query for alerts has the result disk_full"+series+"}."))
	full.Store(0)
	becomes("", healthy)

	for query, message := range map[string]string{
		"ALERTS{":             `update.alerts.query: invalid parameter "query": 1:8: parse error: unexpected end of input inside braces.`,
		"scalar(vector(0))":   "update.alerts.query: its result is a scalar; must be an instant vector.",
		"ALERTS[5m]":          "update.alerts.query: its result is a matrix; must be an instant vector.",
		`"no alerts"`:         `bad_response: unexpected value type "string"`,
		"disk_full + on() up": "execution: multiple matches for labels",
	} {
		requireUnasked(s, ask(query), message)
	}

	// Nobody knows whether a cluster is healthy whose Prometheus does not answer.
	s.must(s.lab.Fault("prometheus").Cut())
	requireUnasked(s, ask(""), "connection refused")
	s.must(s.lab.Fault("prometheus").Heal())
	s.must(s.lab.Part("prometheus").Kill())
	requireUnasked(s, ask(""), "EOF")
	s.must(s.lab.Part("prometheus").Restart(s.Context()))
	becomes("", healthy)
}

func requireUnasked(s *scene, health workflows.Health, message string) {
	s.Helper()
	require.False(s, health.Healthy)
	require.Len(s, health.Problems, 1)
	require.Contains(s, health.Problems[0], "Alerts could not be asked for: ")
	require.Contains(s, health.Problems[0], message)
}
