package promql_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fairway-project/fairway/lab"
	"github.com/fairway-project/fairway/promql"
)

// history is OpenMetrics text with a sample each 10 s; values go from the oldest to the one at end.
func history(name string, end time.Time, values ...float64) string {
	var text strings.Builder
	for i, value := range values {
		at := end.Add(-time.Duration(len(values)-1-i) * 10 * time.Second)
		fmt.Fprintf(&text, "%s %v %d\n", name, value, at.Unix())
	}
	return text.String()
}

func repeat(value float64, times int) []float64 {
	values := make([]float64, times)
	for i := range values {
		values[i] = value
	}
	return values
}

// TestARealPrometheusSaysWhatHasHeld asks about half an hour that has been.
func TestARealPrometheusSaysWhatHasHeld(t *testing.T) {
	end := time.Now().Truncate(time.Second).Add(-20 * time.Second)
	half := repeat(0.001, 181)
	spike := repeat(0.001, 181)
	spike[120] = 0.5 // 10 minutes ago
	counter := make([]float64, 181)
	for i := range counter {
		counter[i] = float64(i)
	}
	l, err := lab.StartPrometheus(t.Context(), lab.Options{Dir: filepath.Join(t.TempDir(), "lab"), Out: t.Output()}, lab.Prometheus{History: strings.Join([]string{
		history("good", end, half...),
		history("spike", end, spike...),
		history("late", end, repeat(0.001, 61)...),                   // measured for 10 minutes
		history("gone", end.Add(-10*time.Minute), repeat(0, 121)...), // and not any more
		history("hole", end.Add(-12*time.Minute), repeat(0, 109)...) + // nothing for 6 minutes
			history("hole", end, repeat(0, 37)...),
		"# TYPE requests counter\n" + history("requests_total", end, counter...),
		"# EOF\n",
	}, "")})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, l.Stop()) })
	source := promql.Source{URL: l.PrometheusURL()}
	at := func(ago time.Duration) string { return end.Add(-ago).UTC().Format(time.RFC3339) }

	for _, test := range []struct {
		query, threshold string
		over             time.Duration
		held             bool
		why              string
	}{
		{"good", "< 0.01", 0, true, "All values are < 0.01."},
		{"good", "< 0.01", 25 * time.Minute, true, "All values have been < 0.01 for 25m0s."},
		{"good", "> 0.01", 0, false, "good was 0.001 at " + at(0) + "; must be > 0.01."},
		{"spike", "< 0.01", 9 * time.Minute, true, "All values have been < 0.01 for 9m0s."},
		{"spike", "< 0.01", 15 * time.Minute, false, "spike was 0.5 at " + at(10*time.Minute) + "; must be < 0.01 for 15m0s."},
		{"late", "< 0.01", 10 * time.Minute, true, "All values have been < 0.01 for 10m0s."},
		{"late", "< 0.01", 20 * time.Minute, false, "The query has no result at " + at(10*time.Minute+15*time.Second) + "; must have one for 20m0s."},
		{"gone", "== 0", 20 * time.Minute, false, "The query has no result at " + at(0) + "."},
		{"none", "< 1", 10 * time.Minute, false, "The query has no result at " + at(0) + "."},
		{"none", "< 1", 0, false, "The query has no result at " + at(0) + "."},
		{"hole", "== 0", 20 * time.Minute, false, "The query has no result at " + at(6*time.Minute+15*time.Second) + "; must have one for 20m0s."},
		{"late or good", "< 0.01", 20 * time.Minute, true, "All values have been < 0.01 for 20m0s."}, // one takes over from the other
		{"rate(requests_total[1m])", ">= 0.1", 20 * time.Minute, true, "All values have been >= 0.1 for 20m0s."},
		{"0 * good / 0", "< 1", 0, false, "The value was NaN at " + at(0) + "; must be < 1."},
		{"scalar(good)", "<= 0.001", 10 * time.Minute, true, "All values have been <= 0.001 for 10m0s."},
	} {
		threshold, err := promql.ParseThreshold(test.threshold)
		require.NoError(t, err)
		held, why, err := source.Held(t.Context(), test.query, threshold, test.over, end)
		require.NoError(t, err, test.query)
		require.Equal(t, test.why, why, test.query)
		require.Equal(t, test.held, held, test.query)
	}

	always, err := promql.ParseThreshold(">= 0")
	require.NoError(t, err)
	for query, message := range map[string]string{
		"good{":       "query: ",
		"good[5m]":    "query: ",
		`"text"`:      "query: ",
		"good + on()": "query: ",
	} {
		_, _, err := source.Held(t.Context(), query, always, time.Minute, end)
		require.ErrorContains(t, err, message, query)
	}
	// A month is not more than it answers.
	held, _, err := source.Held(t.Context(), "vector(1)", always, 30*24*time.Hour, end)
	require.NoError(t, err)
	require.True(t, held)

	require.NoError(t, l.Fault("prometheus").Blackhole())
	slow := source
	slow.Timeout = 100 * time.Millisecond
	_, _, err = slow.Held(t.Context(), "good", always, time.Minute, end)
	require.ErrorContains(t, err, "exceeded")
	require.NoError(t, l.Fault("prometheus").Heal())
	require.NoError(t, l.Fault("prometheus").Delay(50*time.Millisecond, 0))
	series, err := source.Query(t.Context(), "vector(3)")
	require.NoError(t, err)
	require.Len(t, series, 1)
}
