package tests

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestABlockNowReturnsWhenNothingChangesAnyMore(t *testing.T) {
	t.Parallel()
	p := newPool(t, busy, shape{size: 1})
	w := startWorker(t, busy)
	p.run(t, application{ready: 4 * time.Second}) // so long does the budget take to let the next pod go
	r := p.replace(t, w)
	r.awaitDrain(t)

	got := w.fairway(t, "cluster", "block", busy, "--pool", p.name, "--reason", "incident 4711", "--now")
	still := time.Now()
	require.Zero(t, got.status, got.stderr)
	require.Contains(t, got.stderr, "incident 4711")
	require.Contains(t, got.stdout, "Nothing changes in pool "+p.name+" of cluster "+busy+" any more.\n")
	require.Contains(t, got.stdout, "cluster/"+busy+"/pool/"+p.name+" is held.\n")
	require.Contains(t, got.stdout, "cluster/"+busy+"/node/")
	shown := w.fairway(t, "status")
	require.Zero(t, shown.status, shown.stderr)
	require.Contains(t, shown.stdout, "incident 4711")
	require.Contains(t, shown.stdout, "cluster/"+busy+"/pool/"+p.name)
	time.Sleep(time.Until(still.Add(5 * time.Second))) // more than the budget takes
	require.Empty(t, p.evictedBetween(t, still, time.Now()))

	got = w.fairway(t, "cluster", "unblock", busy, "--pool", p.name)
	require.Zero(t, got.status, got.stderr)
	r.requireDone(t)
}
