package lab

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestPrometheus(t *testing.T) {
	t.Parallel()
	target := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "temperature 21") }))
	t.Cleanup(target.Close)
	past := time.Now().Add(-time.Hour).Truncate(time.Second)
	l, err := StartPrometheus(t.Context(), Options{Dir: filepath.Join(t.TempDir(), "lab"), Out: t.Output()}, Prometheus{
		Rules:   "groups: [{name: lab, rules: [{alert: Warm, expr: temperature > 20}]}]",
		Targets: []string{strings.TrimPrefix(target.URL, "http://")},
		History: fmt.Sprintf("temperature 12 %d\n# EOF\n", past.Unix()),
	})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, l.Stop()) })
	ask := func(query string, at time.Time) (string, error) {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, l.PrometheusURL()+"/api/v1/query?query="+url.QueryEscape(query)+"&time="+fmt.Sprint(at.Unix()), nil)
		require.NoError(t, err)
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			return "", err
		}
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		return string(body), err
	}
	eventually := func(query, want string) {
		require.Eventually(t, func() bool {
			body, err := ask(query, time.Now())
			return err == nil && strings.Contains(body, want)
		}, 20*time.Second, 50*time.Millisecond)
	}

	eventually("temperature", `"21"]`)
	eventually("ALERTS", `"alertname":"Warm"`)
	body, err := ask("temperature", past)
	require.NoError(t, err)
	require.Contains(t, body, `"12"]`)

	require.NoError(t, l.Fault("prometheus").Cut())
	_, err = ask("temperature", time.Now())
	require.Error(t, err)
	require.NoError(t, l.Fault("prometheus").Heal())

	// What it has measured survives a kill.
	require.NoError(t, l.Part("prometheus").Kill())
	require.NoError(t, l.Part("prometheus").Restart(t.Context()))
	eventually("count_over_time(temperature[10m]) > bool 2", `"1"]`)
	require.ErrorContains(t, l.StartPrometheus(t.Context(), Prometheus{}), "it runs already")
}

func TestBadRulesAreToldWhenPrometheusStarts(t *testing.T) {
	_, err := StartPrometheus(t.Context(), Options{Dir: filepath.Join(t.TempDir(), "lab"), Out: t.Output()}, Prometheus{Rules: "groups: nonsense"})
	require.ErrorContains(t, err, "rules.yml")
}
