package tests

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	sdk "go.temporal.io/sdk/temporal"
)

func TestARollIsTheOnlyOneOfItsPoolAndIsUndoneWhenCancelled(t *testing.T) {
	t.Parallel()
	p := newPool(t, busy)
	p.run(t, application{stop: 8 * time.Second})
	w := startWorker(t, busy)
	r := p.replacement(t)
	ended := make(chan answer, 1)
	go func() { ended <- w.fairway(t, "node", "replace", busy, r.node.Name, "--wait") }()
	r.awaitDrain(t)

	for _, node := range r.before.Nodes {
		got := w.fairway(t, "node", "replace", busy, node.Name)
		require.Equal(t, 2, got.status, got.stderr)
		require.Contains(t, got.stderr, r.roll)
	}

	require.NoError(t, temporal.CancelWorkflow(t.Context(), r.roll, ""))
	_, err := r.end(t)
	require.True(t, sdk.IsCanceledError(err), "%v", err)
	p.requireUndone(t, r.before)
	got := <-ended
	require.Equal(t, 1, got.status)
	require.Contains(t, got.stderr, "the replacement was cancelled; what it had begun is undone")
}
