package promql_test

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fairway-project/fairway/promql"
)

func TestThresholdIsMetByTheRightSamples(t *testing.T) {
	for text, samples := range map[string]struct{ met, not []float64 }{
		"< 0.01":  {[]float64{0, -1, 0.009, math.Inf(-1)}, []float64{0.01, 1, math.Inf(1)}},
		"<= 0.01": {[]float64{0, 0.01}, []float64{0.011}},
		"> 3":     {[]float64{4, math.Inf(1)}, []float64{3, 2}},
		">=-2.5":  {[]float64{-2.5, 0}, []float64{-2.6}},
		"== 1e3":  {[]float64{1000}, []float64{999, 1001}},
	} {
		threshold, err := promql.ParseThreshold(text)
		require.NoError(t, err)
		for _, sample := range samples.met {
			require.True(t, threshold.Met(sample), "%v %s", sample, text)
		}
		for _, sample := range append(samples.not, math.NaN()) {
			require.False(t, threshold.Met(sample), "%v %s", sample, text)
		}
	}
	require.False(t, promql.Threshold{}.Met(0))
	threshold, err := promql.ParseThreshold(">=-2.5")
	require.NoError(t, err)
	require.Equal(t, ">= -2.5", threshold.String())
}

func TestOnlyThresholdsAreRead(t *testing.T) {
	for _, text := range []string{
		"", "0.01", "<", "< ", "=< 1", "= 1", "!= 1", "< 1%", "< 1 or > 2", " < 1", "< 1 ", "<  1", "< .5", "< 1.", "< +1",
		"< NaN", "> -Inf", "< 0x1p-2", "< 1_000", "< 1,5", "< ١", "< 1\n", "< 1m",
	} {
		_, err := promql.ParseThreshold(text)
		require.ErrorContains(t, err, "must be one of", "%q", text)
	}
	_, err := promql.ParseThreshold("< 1e999")
	require.EqualError(t, err, `is "< 1e999", whose number is too large`)
}
