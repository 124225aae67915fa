package manifests

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fairway-project/fairway/config"
	"github.com/fairway-project/fairway/registry"
	"github.com/fairway-project/fairway/workflows"
)

// prometheusSays answers instant queries, and remembers the last one.
func prometheusSays(t *testing.T, code int, body string) (url string, query, token *string) {
	query, token = new(string), new(string)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/prefix/dev-1/api/v1/query" {
			t.Errorf("asked for %s", r.URL.Path)
		}
		*query, *token = r.FormValue("query"), r.Header.Get("Authorization")
		w.Header().Set("Content-Type", "application/json")
		if code == http.StatusFound {
			w.Header().Set("Location", body)
		}
		w.WriteHeader(code)
		fmt.Fprint(w, body)
	}))
	t.Cleanup(server.Close)
	return server.URL + "/prefix/{cluster}", query, token
}

func vector(series ...string) string {
	var samples []string
	for _, one := range series {
		samples = append(samples, fmt.Sprintf(`{"metric":%s,"value":[1700000000,"1"]}`, one))
	}
	return fmt.Sprintf(`{"status":"success","data":{"resultType":"vector","result":[%s]}}`, strings.Join(samples, ","))
}

func ask(t *testing.T, settings config.Alerts) workflows.Health {
	t.Helper()
	var found complaints
	require.NoError(t, checkAlerts(t.Context(), registry.Cluster{ID: "dev-1"}, settings, &found))
	return found.health()
}

func TestEachSeriesIsAProblem(t *testing.T) {
	url, query, token := prometheusSays(t, http.StatusOK, vector(
		`{"__name__":"ALERTS","alertname":"EtcdDown","alertstate":"firing","severity":"critical","member":"etcd-1"}`,
		`{"alertname":"Watchdog"}`, `{"job":"x"}`))
	health := ask(t, config.Alerts{URL: url})
	require.Equal(t, []string{
		`Alert EtcdDown is firing: {member="etcd-1", severity="critical"}.`, "Alert Watchdog is firing.", `The query for alerts has the result {job="x"}.`,
	}, health.Problems)
	require.False(t, health.Healthy)
	require.Equal(t, `ALERTS{alertstate="firing",severity="critical"}`, *query)
	require.Empty(t, *token)

	url, query, token = prometheusSays(t, http.StatusOK, vector())
	t.Setenv("PROMETHEUS_TOKEN", " secret\n")
	require.Equal(t, workflows.Health{Healthy: true}, ask(t, config.Alerts{URL: url, Query: `up{cluster="{cluster}"} == 0`, TokenEnv: "PROMETHEUS_TOKEN"}))
	require.Equal(t, `up{cluster="dev-1"} == 0`, *query)
	require.Equal(t, "Bearer secret", *token)
}

func TestNoAnswerAboutAlertsIsNeverHealthy(t *testing.T) {
	stolen := false
	thief := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		stolen = r.Header.Get("Authorization") != ""
		fmt.Fprint(w, vector())
	}))
	t.Cleanup(thief.Close)
	token := filepath.Join(t.TempDir(), "token")
	require.NoError(t, os.WriteFile(token, []byte("secret"), 0o600))
	empty := filepath.Join(t.TempDir(), "empty")
	require.NoError(t, os.WriteFile(empty, nil, 0o600))
	for name, test := range map[string]struct {
		code     int
		body     string
		settings config.Alerts
		message  string
	}{
		"a bad query":        {http.StatusBadRequest, `{"status":"error","errorType":"bad_data","error":"parse error"}`, config.Alerts{}, "parse error"},
		"no Prometheus":      {http.StatusOK, `<html>`, config.Alerts{}, "Alerts could not be asked for: "},
		"an overload":        {http.StatusServiceUnavailable, `busy`, config.Alerts{}, "503"},
		"a number":           {http.StatusOK, `{"status":"success","data":{"resultType":"scalar","result":[1700000000,"0"]}}`, config.Alerts{}, "must be an instant vector"},
		"too much":           {http.StatusOK, vector(`{"x":"` + strings.Repeat("x", 8<<20) + `"}`), config.Alerts{}, "the answer is too long"},
		"a redirect":         {http.StatusFound, thief.URL, config.Alerts{TokenFile: token}, "302"},
		"no token":           {http.StatusOK, vector(), config.Alerts{TokenFile: "/none"}, "update.alerts.token_file: open /none"},
		"an empty token":     {http.StatusOK, vector(), config.Alerts{TokenFile: empty}, "is empty"},
		"no such variable":   {http.StatusOK, vector(), config.Alerts{TokenEnv: "FAIRWAY_TEST_UNSET"}, "the environment variable FAIRWAY_TEST_UNSET is empty"},
		"nobody there":       {0, "", config.Alerts{URL: "http://127.0.0.1:1"}, "connection refused"},
		"an address of none": {0, "", config.Alerts{URL: ":"}, "Alerts could not be asked for: "},
	} {
		t.Run(name, func(t *testing.T) {
			if test.settings.URL == "" {
				test.settings.URL, _, _ = prometheusSays(t, test.code, test.body)
			}
			health := ask(t, test.settings)
			require.False(t, health.Healthy)
			require.Len(t, health.Problems, 1)
			require.Contains(t, health.Problems[0], test.message)
			require.Less(t, len(health.Problems[0]), 2*textLimit)
		})
	}
	require.False(t, stolen)
}

func TestManyAlertsAreCounted(t *testing.T) {
	var series []string
	for i := range 500 {
		series = append(series, fmt.Sprintf(`{"alertname":"A%d"}`, i))
	}
	url, _, _ := prometheusSays(t, http.StatusOK, vector(series...))
	health := ask(t, config.Alerts{URL: url})
	require.Len(t, health.Problems, alertsLimit+1)
	require.Equal(t, "480 more alerts are firing.", health.Problems[alertsLimit])
}
