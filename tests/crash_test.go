package tests

import (
	"testing"
	"time"

	astypes "github.com/aws/aws-sdk-go-v2/service/autoscaling/types"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairway-project/fairway/lab"
)

// slow is how much later answers arrive while an activity is made to last.
const slow = time.Second

func TestAReplacementSurvivesTheDeathOfItsWorkerIn(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		activity string
		// Activities that are over in milliseconds are made to last, by answers of "aws" or
		// "kubernetes" that come later from the start of the activity `from` on (from the
		// beginning, if that is empty).
		slow, from string
		// fleeting activities cannot be made to last: if they are over before the kill, that is fine.
		fleeting bool
	}{
		{activity: "FindPool", fleeting: true}, // reads a file
		{activity: "ExaminePool", slow: "aws"},
		{activity: "SurveyPool", slow: "kubernetes"},
		{activity: "ProtectPool", slow: "aws"},
		{activity: "AwaitTurn", fleeting: true}, // asks Temporal
		{activity: "GrowPool", slow: "aws"},
		{activity: "AwaitInstances"},
		{activity: "AwaitNode"},
		{activity: "CordonNode", slow: "kubernetes", from: "AwaitNode"},
		{activity: "DrainNode"},
		{activity: "TerminateInstance", slow: "aws", from: "DrainNode"},
		{activity: "AwaitTermination"},
		{activity: "AwaitNodeGone", slow: "kubernetes", from: "AwaitTermination"},
		{activity: "EndTurn", fleeting: true},
		{activity: "UnmarkNodes", slow: "kubernetes", from: "AwaitNodeGone"},
		{activity: "RestorePool", slow: "aws", from: "AwaitNodeGone"},
	} {
		t.Run(test.activity, func(t *testing.T) {
			t.Parallel()
			p := newPool(t, busy)
			p.run(t, application{})
			w := startWorker(t, busy)
			endpoint := map[string]string{"aws": w.aws, "kubernetes": w.kubernetes}[test.slow]
			slowDown := func() { require.NoError(t, theLab.Fault(endpoint).Delay(slow, 0)) }
			if test.slow != "" && test.from == "" {
				slowDown()
			}
			r := p.replace(t, w)
			if test.from != "" {
				r.await(t, test.from)
				slowDown()
			}
			hit := w.killIn(t, r, test.activity, test.fleeting)
			require.True(t, hit || test.fleeting, "%s was over before its worker was killed", test.activity)
			t.Logf("the worker was killed in %s: %t", test.activity, hit)
			if test.slow != "" {
				require.NoError(t, theLab.Fault(endpoint).Heal())
			}
			w.restart(t)
			r.requireDone(t)
		})
	}
}

// await waits until the activity is worked on.
func (r replacement) await(t *testing.T, activity string) {
	t.Helper()
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		require.NotNil(c, r.started(c, activity))
	}, time.Minute, 20*time.Millisecond, "%s does not begin", activity)
}

// killIn kills the worker as soon as it works on the activity, and says whether that came before
// the activity's end.
func (w *worker) killIn(t *testing.T, r replacement, activity string, fleeting bool) (hit bool) {
	t.Helper()
	deadline := time.Now().Add(90 * time.Second)
	for tick := time.Tick(5 * time.Millisecond); time.Now().Before(deadline); <-tick {
		if r.started(t, activity) != nil {
			w.kill(t)
			return r.started(t, activity) != nil // a dead worker reports no end
		}
		if fleeting && completed(t, r, activity) {
			w.kill(t)
			return false
		}
	}
	require.Fail(t, activity+" does not begin")
	return false
}

// The moments when the world has changed and nobody knows it yet: the worker dies before it has
// read the answer.
func TestAReplacementSurvivesTheDeathOfItsWorkerJustAfter(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		moment, slow string
		from         string
		came         func(require.TestingT, replacement) bool
	}{
		{"the group has grown", "aws", "", func(t require.TestingT, r replacement) bool {
			return *r.pool.describe(t).DesiredCapacity > poolSize
		}},
		{"the node was cordoned", "kubernetes", "AwaitNode", func(t require.TestingT, r replacement) bool {
			for _, node := range r.pool.nodes(t) {
				if node.Cordoned {
					return true
				}
			}
			return false
		}},
		{"a pod was evicted", "kubernetes", "CordonNode", func(t require.TestingT, r replacement) bool {
			audit, err := theLab.Audit(r.pool.cluster)
			require.NoError(t, err)
			return len(audit.By("fairway").Evictions().Where(func(e lab.AuditEvent) bool { return e.Namespace == r.pool.name && e.Code == 201 })) > 0
		}},
		{"the instance began to end", "aws", "DrainNode", func(t require.TestingT, r replacement) bool {
			for _, instance := range r.pool.describe(t).Instances {
				if *instance.InstanceId == r.node.Instance {
					return instance.LifecycleState == astypes.LifecycleStateTerminating
				}
			}
			return true
		}},
	} {
		t.Run(test.moment, func(t *testing.T) {
			t.Parallel()
			p := newPool(t, busy)
			p.run(t, application{})
			w := startWorker(t, busy)
			endpoint := map[string]string{"aws": w.aws, "kubernetes": w.kubernetes}[test.slow]
			if test.from == "" {
				require.NoError(t, theLab.Fault(endpoint).Delay(slow, 0))
			}
			r := p.replace(t, w)
			if test.from != "" {
				r.await(t, test.from)
				require.NoError(t, theLab.Fault(endpoint).Delay(slow, 0))
			}
			deadline := time.Now().Add(time.Minute)
			for tick := time.Tick(10 * time.Millisecond); !test.came(t, r); <-tick {
				require.True(t, time.Now().Before(deadline), "the moment does not come")
			}
			w.kill(t)
			require.NoError(t, theLab.Fault(endpoint).Heal())
			w.restart(t)
			r.requireDone(t)
		})
	}
}

func TestAWorkerThatIsToldToStopHandsItsDrainOver(t *testing.T) {
	t.Parallel()
	p := newPool(t, busy)
	p.run(t, application{stop: 8 * time.Second})
	w := startWorker(t, busy)
	r := p.replace(t, w)
	r.awaitDrain(t)

	start := time.Now()
	require.NoError(t, w.Stop())
	require.Less(t, time.Since(start), 10*time.Second, "it does not wait for the drain")
	require.Contains(t, w.Tail(3), "stopped", "it has ended by itself")
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		pending := r.pending(c)
		require.Len(c, pending, 1)
		require.Equal(c, "DrainNode", pending[0].ActivityType.Name)
		require.Contains(c, pending[0].LastFailure.GetMessage(), "the worker stops")
	}, 5*time.Second, 50*time.Millisecond, "it has handed the drain over")

	w.restart(t)
	r.requireDone(t)
}
