package fleet

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fairway-project/fairway/config"
	"github.com/fairway-project/fairway/lab"
	"github.com/fairway-project/fairway/promql"
)

// alarms has an entry for each cluster whose alert fires; Prometheus asks for them.
var alarms sync.Map

// startPrometheus starts what the worker asks for alerts.
func startPrometheus(ctx context.Context) (*config.Alerts, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	go func() {
		_ = http.Serve(listener, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			alarms.Range(func(cluster, _ any) bool {
				fmt.Fprintf(w, "alarm{cluster=%q} 1\n", cluster)
				return true
			})
		}))
	}()
	err = theLab.StartPrometheus(ctx, lab.Prometheus{
		Rules:   "groups: [{name: fleet, rules: [{alert: Alarm, expr: alarm == 1}]}]",
		Targets: []string{listener.Addr().String()},
	})
	return &config.Alerts{URL: theLab.PrometheusURL(), Query: `ALERTS{alertstate="firing",cluster="{cluster}"}`}, err
}

// alarm lets the alert of a cluster fire until end is called.
func alarm(t *testing.T, cluster string) (end func()) {
	t.Helper()
	end = func() { alarms.Delete(cluster) }
	t.Cleanup(end)
	alarms.Store(cluster, true)
	require.Eventually(t, func() bool {
		series, err := promql.Source{URL: theLab.PrometheusURL()}.Query(t.Context(), fmt.Sprintf("ALERTS{cluster=%q}", cluster))
		return err == nil && len(series) > 0
	}, patience, 100*time.Millisecond)
	return end
}
