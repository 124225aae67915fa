package promql_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fairway-project/fairway/promql"
)

var now = time.Date(2026, 3, 29, 1, 0, 0, 600, time.UTC)

// series is one of a matrix, with a value for each moment that is a step apart and ends now; "" is a gap.
func series(labels string, step time.Duration, values ...string) string {
	var samples []string
	for i, value := range values {
		if value != "" {
			at := now.Add(-time.Duration(len(values)-1-i) * step)
			samples = append(samples, fmt.Sprintf(`[%d,%q]`, at.Unix(), value))
		}
	}
	return fmt.Sprintf(`{"metric":%s,"values":[%s]}`, labels, strings.Join(samples, ","))
}

func matrix(series ...string) string {
	return `{"status":"success","data":{"resultType":"matrix","result":[` + strings.Join(series, ",") + `]}}`
}

func threshold(t *testing.T, text string) promql.Threshold {
	parsed, err := promql.ParseThreshold(text)
	require.NoError(t, err)
	return parsed
}

func TestHeldMeansEverySampleAtEveryMoment(t *testing.T) {
	const a, b = `{"__name__":"x","pod":"a"}`, `{"pod":"b"}`
	for name, test := range map[string]struct {
		over   time.Duration
		result string
		held   bool
		why    string
	}{
		"all good":               {3 * time.Second, matrix(series(a, time.Second, "0", "0.5", "0", "0")), true, "All values have been < 1 for 3s."},
		"now":                    {0, matrix(series(a, time.Second, "0"), series(b, time.Second, "0.9")), true, "All values are < 1."},
		"bad now":                {0, matrix(series(a, time.Second, "0"), series(b, time.Second, "1")), false, `{pod="b"} was 1 at 2026-03-29T01:00:00Z; must be < 1.`},
		"bad at first":           {3 * time.Second, matrix(series(`{}`, time.Second, "2", "0", "0", "0")), false, "The value was 2 at 2026-03-29T00:59:57Z; must be < 1 for 3s."},
		"the newest is told":     {3 * time.Second, matrix(series(b, time.Second, "0", "7", "0", "0"), series(a, time.Second, "5", "6", "8", "0")), false, `x{pod="a"} was 8 at 2026-03-29T00:59:59Z; must be < 1 for 3s.`},
		"not a number":           {0, matrix(series(a, time.Second, "NaN")), false, `x{pod="a"} was NaN at 2026-03-29T01:00:00Z; must be < 1.`},
		"nothing":                {3 * time.Second, matrix(), false, "The query has no result at 2026-03-29T01:00:00Z."},
		"nothing any more":       {3 * time.Second, matrix(series(a, time.Second, "0", "0", "0", "")), false, "The query has no result at 2026-03-29T01:00:00Z."},
		"nothing at first":       {3 * time.Second, matrix(series(a, time.Second, "", "0", "0", "0")), false, "The query has no result at 2026-03-29T00:59:57Z; must have one for 3s."},
		"a gap":                  {3 * time.Second, matrix(series(a, time.Second, "0", "0", "", "0")), false, "The query has no result at 2026-03-29T00:59:59Z; must have one for 3s."},
		"a gap after a bad one":  {3 * time.Second, matrix(series(a, time.Second, "0", "5", "", "0")), false, "The query has no result at 2026-03-29T00:59:59Z; must have one for 3s."},
		"one takes over another": {3 * time.Second, matrix(series(a, time.Second, "0", "0", "", ""), series(b, time.Second, "", "0", "0", "0")), true, "All values have been < 1 for 3s."},
		"a long time":            {time.Hour, matrix(series(a, 15*time.Second, strings.Split(strings.Repeat("0 ", 240)+"0", " ")...)), true, "All values have been < 1 for 1h0m0s."},
		"no whole steps":         {90500 * time.Millisecond, matrix(series(a, 5*time.Second, strings.Split(strings.Repeat("0 ", 19)+"0", " ")...)), true, "All values have been < 1 for 1m30.5s."},
	} {
		t.Run(name, func(t *testing.T) {
			url, last := says(t, http.StatusOK, test.result)
			held, why, err := promql.Source{URL: url}.Held(t.Context(), "x", threshold(t, "< 1"), test.over, now)
			require.NoError(t, err)
			require.Equal(t, test.why, why)
			require.Equal(t, test.held, held)
			require.Equal(t, "/api/v1/query_range", last.URL.Path)
			require.Equal(t, fmt.Sprint(now.Unix()), last.Form.Get("end"))
		})
	}
}

func TestMomentsAreAsCloseAsPrometheusAllows(t *testing.T) {
	for over, want := range map[time.Duration]struct{ span, step int }{
		0:                      {0, 1},
		-time.Minute:           {0, 1},
		500 * time.Millisecond: {1, 1},
		10 * time.Second:       {10, 1},
		2 * time.Minute:        {120, 6},
		10 * time.Minute:       {600, 15},
		24 * time.Hour:         {86400, 15},
		30 * 24 * time.Hour:    {2592072, 259}, // 10,008 of them; refused are more than 11,000
	} {
		url, last := says(t, http.StatusOK, matrix())
		_, _, err := promql.Source{URL: url}.Held(t.Context(), "x", threshold(t, "< 1"), over, now)
		require.NoError(t, err)
		require.Equal(t, fmt.Sprint(now.Unix()-int64(want.span)), last.Form.Get("start"), "%s", over)
		require.Equal(t, fmt.Sprint(want.step), last.Form.Get("step"), "%s", over)
	}
}

func TestWhatCannotBeJudgedIsAnError(t *testing.T) {
	for name, test := range map[string]struct{ result, message string }{
		"a vector":           {`{"status":"success","data":{"resultType":"vector","result":[]}}`, "query: its result over a time is a vector"},
		"no data":            {`{"status":"success"}`, "no result in it"},
		"a null series":      {matrix("null"), "no result in it"},
		"histograms":         {matrix(`{"metric":{},"histograms":[[1774746000,{"count":"1","sum":"1","buckets":[]}]]}`), "query: its result has histograms"},
		"another time":       {matrix(`{"metric":{},"values":[[1,"0"]]}`), "the answer is about 1970-01-01T00:00:01Z"},
		"a time to come":     {matrix(`{"metric":{},"values":[[1999999999,"0"]]}`), "the answer is about 2033-05-18T03:33:19Z"},
		"an incomplete part": {strings.Replace(matrix(), "{", `{"warnings":["x"],`, 1), "may be incomplete"},
	} {
		t.Run(name, func(t *testing.T) {
			url, _ := says(t, http.StatusOK, test.result)
			held, why, err := promql.Source{URL: url}.Held(t.Context(), "x", threshold(t, "< 1"), time.Minute, now)
			require.ErrorContains(t, err, test.message)
			require.False(t, held)
			require.Empty(t, why)
		})
	}
}
