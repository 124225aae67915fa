package promotion_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fairway-project/fairway/promotion"
)

func TestTheFleetGate(t *testing.T) {
	for rule, test := range map[string]struct {
		see    func(c *channel)
		passed bool
		detail string
	}{
		"all in order":        {func(c *channel) { c.see("a", "a") }, true, "All 2 clusters are healthy, and nothing is blocked."},
		"one cluster":         {func(c *channel) { c.see("a") }, true, "The one cluster is healthy, and nothing is blocked."},
		"no clusters":         {func(c *channel) { c.see() }, true, "No cluster follows the channel, and nothing is blocked."},
		"a sick cluster":      {func(c *channel) { c.see("a", "a!2 nodes are not ready") }, false, "The channel is not in order: cluster dev-2: 2 nodes are not ready."},
		"a block":             {func(c *channel) { c.Observe(c.now, promotion.View{Held: []string{"the fleet is blocked: fire"}}) }, false, "The channel is not in order: the fleet is blocked: fire."},
		"nobody has looked":   {func(*channel) {}, false, "The channel is not in order: nobody has looked at the clusters yet."},
		"the look is too old": {func(c *channel) { c.see("a"); c.now = c.now.Add(6 * time.Minute) }, false, "The channel is not in order: no look at the clusters has been heard of since, at the latest, 2026-03-02T09:05:00Z."},
	} {
		t.Run(rule, func(t *testing.T) {
			c := newChannel()
			c.land("a")
			test.see(c)
			require.Equal(t, promotion.GateResult{Name: "fleet", Passed: test.passed, Detail: test.detail, At: c.now}, promotion.FleetGate(c.Soak, c.now))
		})
	}
}

func TestOnlyGatesOfTheEdgeCanBeSkipped(t *testing.T) {
	dev := pipeline().Edges[0]
	require.NoError(t, dev.CheckSkips(nil))
	require.NoError(t, dev.CheckSkips([]string{"e2e", "fleet"}))
	require.EqualError(t, dev.CheckSkips([]string{"e2e", "e3e"}), `the edge from dev to alpha has no gate "e3e"; there are fleet, e2e, errors, change board`)
}

func TestAnEdgeIsOpenWhenAllItsGatesArePassedOrSkipped(t *testing.T) {
	dev := pipeline().Edges[0]
	all := func(change func(results []promotion.GateResult)) []promotion.GateResult {
		results := []promotion.GateResult{
			{Name: "change board", Passed: true, Detail: "Fine."}, {Name: "errors", Passed: true, Detail: "Fine."},
			{Name: "e2e", Passed: true, Detail: "Fine."}, {Name: "fleet", Passed: true, Detail: "Fine."},
		}
		change(results)
		return results
	}
	fail := func(i int) func([]promotion.GateResult) {
		return func(r []promotion.GateResult) { r[i].Passed, r[i].Detail = false, "It is red." }
	}
	for rule, test := range map[string]struct {
		results []promotion.GateResult
		skip    []string
		why     string
	}{
		"all passed":               {results: all(func([]promotion.GateResult) {})},
		"one failed":               {results: all(fail(2)), why: "Gate e2e is not passed: It is red."},
		"two failed":               {results: all(func(r []promotion.GateResult) { fail(1)(r); fail(3)(r) }), why: "Gate fleet is not passed: It is red. Gate errors is not passed: It is red."},
		"one failed and skipped":   {results: all(fail(2)), skip: []string{"e2e"}},
		"another is skipped":       {results: all(fail(2)), skip: []string{"errors"}, why: "Gate e2e is not passed: It is red."},
		"one was not asked":        {results: all(func([]promotion.GateResult) {})[1:], why: "Gate change board is not passed: It has not been asked."},
		"none was asked":           {why: "Gate fleet is not passed: It has not been asked. Gate e2e is not passed: It has not been asked. Gate errors is not passed: It has not been asked. Gate change board is not passed: It has not been asked."},
		"two answers, one of them": {results: append(all(fail(2)), promotion.GateResult{Name: "e2e", Passed: true}), why: "Gate e2e is not passed: It is red."},
		"two answers, the last":    {results: append(all(func([]promotion.GateResult) {}), promotion.GateResult{Name: "e2e", Detail: "It is red."}), why: "Gate e2e is not passed: It is red."},
		"a gate of another edge":   {results: append(all(func([]promotion.GateResult) {}), promotion.GateResult{Name: "x"})},
	} {
		t.Run(rule, func(t *testing.T) {
			judged, why := dev.Judge(test.results, test.skip)
			require.Equal(t, test.why, why)
			var names []string
			for _, result := range judged {
				names = append(names, result.Name)
				require.Equal(t, len(test.skip) > 0 && result.Name == test.skip[0], result.Skipped)
			}
			require.Equal(t, dev.GateNames(), names)
		})
	}
}
