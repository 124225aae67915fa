package tests

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairway-project/fairway/config"
	"github.com/fairway-project/fairway/lab"
	"github.com/fairway-project/fairway/workflows"
)

// acknowledged is how much later than a block an eviction may arrive that was on its way then.
const acknowledged = 500 * time.Millisecond

func TestABlockHoldsADrainThatIsUnderWayUntilItEnds(t *testing.T) {
	t.Parallel()
	const lasts = 7 * time.Second // more than the budget takes
	p := newPool(t, busy, shape{size: 1})
	w := startWorker(t, busy)
	p.run(t, application{ready: 4 * time.Second}) // so long does the budget take to let the next pod go
	r := p.replace(t, w)
	r.awaitDrain(t)

	block := func(args ...string) {
		t.Helper()
		got := w.fairway(t, append([]string{"cluster", "block", busy, "--pool", p.name}, args...)...)
		require.Zero(t, got.status, got.stderr)
		require.Contains(t, got.stdout, "blocked by ")
	}
	block("--reason", "incident 4711")
	blocked := time.Now()
	block("--reason", "load test", "--for", "2s")
	r.awaitBlocked(t, "incident 4711")
	time.Sleep(time.Until(blocked.Add(lasts))) // the second block is over, the first one is not

	// As a person sends it from the Temporal UI.
	lifted := time.Now()
	require.NoError(t, temporal.SignalWorkflow(t.Context(), workflows.ClusterID(busy), "", "unblock", map[string]string{"pool": p.name}))
	require.Empty(t, p.evictedBetween(t, blocked.Add(acknowledged), lifted), "nothing is evicted while any block holds")
	r.awaitProgress(t, func(c *assert.CollectT, progress workflows.DrainProgress) { require.Empty(c, progress.Blocked) })
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		require.NotEmpty(c, p.evictedBetween(t, lifted, time.Now()))
	}, 2*soon, 50*time.Millisecond, "the drain goes on when the blocks are gone")

	block("--reason", "audit", "--for", lasts.String())
	blocked = time.Now()
	r.awaitBlocked(t, "audit")
	r.requireDone(t)
	require.Empty(t, p.evictedBetween(t, blocked.Add(acknowledged), blocked.Add(lasts-acknowledged)), "until it expires")
	require.NotEmpty(t, p.evictedBetween(t, blocked.Add(lasts-acknowledged), time.Now()), "by itself")
}

// awaitBlocked waits until the drain tells that a block holds it.
func (r replacement) awaitBlocked(t *testing.T, reason string) {
	t.Helper()
	r.awaitProgress(t, func(c *assert.CollectT, progress workflows.DrainProgress) {
		assert.Contains(c, progress.Blocked, reason)
	})
}

// evictedBetween are the evictions that Fairway asked for in the pool's own namespace in a time.
func (p pool) evictedBetween(t *testing.T, from, to time.Time) lab.Audit {
	t.Helper()
	return p.evictionsOf(t, "").Where(func(e lab.AuditEvent) bool { return e.Received.After(from) && e.Received.Before(to) })
}

func TestBlockedTimeDoesNotBringAForceNearerAndTheNodeMayServeMeanwhile(t *testing.T) {
	t.Parallel()
	const after, lasts = 10 * time.Second, 12 * time.Second
	p := newPool(t, busy, shape{size: 1})
	w := startWorker(t, busy, gently(config.Gentleness{
		ForceAfter: new(after), WarnBefore: new(time.Second), SiblingsReady: new(time.Duration(0)), OnBlock: new("uncordon"),
	}))
	p.makeNamespace(t)
	p.deploy(t, "app", 1, nil)
	p.awaitPods(t, "app", 1)
	p.protectAll(t, "app")
	r := p.replace(t, w)
	began := r.awaitHeld(t, 1, "the budget can never allow an eviction").Waiting[0].Since
	require.True(t, p.cordoned(t, r.node.Name))

	var block workflows.Block
	p.ask(t, workflows.BlockName, workflows.BlockRequest{Pool: p.name, Reason: "audit", By: "anna"}, &block)
	require.Less(t, block.Since.Sub(began), after, "the machine is too slow for this test")
	r.awaitBlocked(t, "audit")
	require.Eventually(t, func() bool { return !p.cordoned(t, r.node.Name) }, 2*soon, 50*time.Millisecond, "pods may run on it meanwhile")
	time.Sleep(time.Until(block.Since.Add(lasts)))
	require.False(t, p.cordoned(t, r.node.Name))
	require.Empty(t, p.deletionsOf(t))
	lifted := time.Now()
	p.ask(t, workflows.UnblockName, workflows.UnblockRequest{Pool: p.name, By: "anna"}, &[]workflows.Block{})
	require.Eventually(t, func() bool { return p.cordoned(t, r.node.Name) }, 2*soon, 20*time.Millisecond, "it is cordoned again")
	require.Empty(t, p.deletionsOf(t), "nothing is forced right after the block")

	forced := r.requireForced(t)
	require.Len(t, forced, 1)
	due := began.Add(after).Add(lifted.Sub(block.Since))
	require.WithinRange(t, p.deletionsOf(t)[0].Received, due.Add(-time.Second), due.Add(2*soon), "blocked time does not count")
	p.awaitPods(t, "app", 1)
}

func (p pool) cordoned(t *testing.T, name string) bool {
	t.Helper()
	return p.look(t).node(t, name).Cordoned
}
