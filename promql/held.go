package promql

import (
	"context"
	"fmt"
	"time"

	prometheus "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/common/model"
)

const (
	// looks is the least number of moments that a time is looked at in; finest and coarse are the
	// distances between them. Prometheus refuses more than 11,000 moments.
	looks     = 20
	finest    = time.Second
	coarse    = 15 * time.Second
	mostLooks = 10_000
)

// Held says whether every sample of a query's result has met a threshold from now-over until now, and
// why (not) as a sentence. The query is evaluated at moments that are a twentieth of over apart, but at
// least 1 s and at most 15 s (more if over is above 41 h); over 0 means now only.
//
// Each of the moments needs a sample of some series: a gap, be it at the beginning because something is
// measured only since then, means not held, and so does no result at all or NaN. A series may come or
// go, as those of pods do, as long as another one remains; a query that shall notice it has to count.
//
// An error means that nobody knows; see Query. Results that are too big, have histograms or are no
// vector or scalar are errors too.
func (s Source) Held(ctx context.Context, query string, threshold Threshold, over time.Duration, now time.Time) (held bool, why string, err error) {
	span := spanOf(over, now)
	value, err := s.ask(ctx, func(ctx context.Context, p prometheus.API, timeout prometheus.Option) (model.Value, prometheus.Warnings, error) {
		value, warnings, _, err := p.QueryRange(ctx, query, prometheus.Range{Start: span.start, End: span.end(), Step: span.step}, timeout)
		return value, warnings, err
	})
	if err != nil {
		return false, "", err
	}
	result, ok := value.(model.Matrix)
	if !ok {
		return false, "", &FieldError{"query", fmt.Sprintf("its result over a time is a %s; must be a matrix", value.Type())}
	}
	return span.judge(result, threshold)
}

// span is a row of moments, of which the last one is now.
type span struct {
	over  time.Duration
	start time.Time
	step  time.Duration
	steps int
}

func spanOf(over time.Duration, now time.Time) span {
	over = max(over, 0)
	step := min(max(over/looks, finest), coarse)
	step = max(step, over/mostLooks).Round(time.Second) // of which there are no fractions in a query
	steps := int((over + step - 1) / step)
	now = now.Truncate(time.Second)
	return span{over, now.Add(-time.Duration(steps) * step), step, steps}
}

func (s span) at(step int) time.Time { return s.start.Add(time.Duration(step) * s.step) }
func (s span) end() time.Time        { return s.at(s.steps) }

// judge finds the newest moment that speaks against it: the time has to pass from there on.
func (s span) judge(result model.Matrix, threshold Threshold) (held bool, why string, err error) {
	seen := make([]bool, s.steps+1)
	bad, badSeries, badValue := -1, model.Metric(nil), model.SampleValue(0)
	for _, series := range result {
		if series == nil {
			return false, "", errNonsense
		}
		if len(series.Histograms) > 0 {
			return false, "", &FieldError{"query", "its result has histograms; must be numbers, as histogram_quantile and histogram_sum make of them"}
		}
		for _, sample := range series.Values {
			since := sample.Timestamp.Time().Sub(s.start)
			step := int(since / s.step)
			if since < 0 || step > s.steps {
				return false, "", fmt.Errorf("the answer is about %s, which was not asked for", moment(sample.Timestamp.Time()))
			}
			seen[step] = true
			if !threshold.Met(float64(sample.Value)) && step > bad {
				bad, badSeries, badValue = step, series.Metric, sample.Value
			}
		}
	}
	gap := s.steps
	for gap >= 0 && seen[gap] {
		gap--
	}
	switch {
	case bad >= 0 && bad >= gap:
		return false, fmt.Sprintf("%s was %s at %s; must be %s%s.", name(badSeries), badValue, moment(s.at(bad)), threshold, s.length()), nil
	case gap == s.steps:
		return false, fmt.Sprintf("The query has no result at %s.", moment(s.at(gap))), nil
	case gap >= 0:
		return false, fmt.Sprintf("The query has no result at %s; must have one%s.", moment(s.at(gap)), s.length()), nil
	}
	if s.over == 0 {
		return true, fmt.Sprintf("All values are %s.", threshold), nil
	}
	return true, fmt.Sprintf("All values have been %s%s.", threshold, s.length()), nil
}

func (s span) length() string {
	if s.over == 0 {
		return ""
	}
	return " for " + s.over.String()
}

func name(series model.Metric) string {
	if len(series) == 0 {
		return "The value"
	}
	return shorten(series.String())
}

func moment(t time.Time) string { return t.UTC().Format(time.RFC3339) }
