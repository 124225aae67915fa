package tests

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// outage is how long an endpoint is gone.
const outage = time.Minute

// This test comes first and alone: all the others need Temporal.
func TestAReplacementSurvivesTheDeathOfTemporalInItsDrain(t *testing.T) {
	p := newPool(t, busy)
	p.run(t, application{stop: 5 * time.Second})
	w := startWorker(t, busy)
	r := p.replacement(t)
	ended := make(chan answer, 1)
	go func() { ended <- w.fairway(t, "node", "replace", busy, r.node.Name, "--wait") }()
	r.awaitDrain(t)

	server := theLab.Part("temporal")
	require.NoError(t, server.Kill())
	require.NoError(t, server.Restart(t.Context()))
	r.requireDone(t)
	got := <-ended
	require.Zero(t, got.status, got.stderr)
	require.Contains(t, got.stdout, "is replaced by", "who watches is told, too")
}

func TestAReplacementSurvivesAnAPIServerThatIsGoneForAMinuteInItsDrain(t *testing.T) {
	t.Parallel()
	p := newPool(t, outcast)
	p.run(t, application{ready: 4 * time.Second})
	w := startWorker(t, outcast)
	r := p.replace(t, w)
	r.awaitDrain(t)

	server := theLab.Part("kubernetes/" + outcast + "/kube-apiserver")
	require.NoError(t, server.Kill())
	back := time.After(outage)
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		require.Contains(c, w.fairway(t, "status").stdout, "does not answer")
	}, outage, time.Second, "an operator is told")
	<-back
	require.NoError(t, server.Restart(t.Context()))
	start := time.Now()
	r.requireDone(t)
	t.Logf("done %s after the API server was back", time.Since(start).Round(time.Second))
}

func TestAReplacementSurvivesAnAWSEndpointThatIsGoneForAMinuteBeforeTheTermination(t *testing.T) {
	t.Parallel()
	p := newPool(t, busy)
	p.run(t, application{})
	w := startWorker(t, busy)
	r := p.replace(t, w)
	r.await(t, "DrainNode")
	require.NoError(t, theLab.Fault(w.aws).Cut())
	require.NoError(t, theLab.Fault(w.aws).HealAfter(outage))
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		require.Contains(c, w.fairway(t, "status").stdout, "AWS does not answer")
	}, outage, time.Second, "an operator is told")
	r.requireDone(t)
}
