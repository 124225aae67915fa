package workflows_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"

	"github.com/fairway-project/fairway/workflows"
)

func newEnvironment(t *testing.T, w *world) *testsuite.TestWorkflowEnvironment {
	t.Helper()
	var suite testsuite.WorkflowTestSuite
	env := suite.NewTestWorkflowEnvironment()
	env.SetTestTimeout(30 * time.Second)
	env.RegisterWorkflow(workflows.RollPool)
	env.RegisterWorkflow(workflows.ReplaceNode)
	env.RegisterActivity(w)
	return env
}

func roll(env *testsuite.TestWorkflowEnvironment, nodes ...string) {
	env.ExecuteWorkflow(workflows.RollPool, workflows.RollPoolInput{Cluster: "dev-1", Pool: "worker", Nodes: nodes, By: "test"})
}

// requireAsBefore is what holds after every roll, however it ended.
func requireAsBefore(t *testing.T, w *world) {
	t.Helper()
	require.Equal(t, 3, w.pool.Desired, "the pool has its size")
	require.Len(t, w.pool.Instances, 3)
	for _, node := range w.nodes {
		require.NotContains(t, w.cordonedBy, node.Name, "no node that is left is cordoned")
	}
}

func TestARollReplacesEachNodeOnceAndKeepsThePoolsSize(t *testing.T) {
	w := newWorld()
	env := newEnvironment(t, w)
	roll(env, "node-of-i-old0", "node-of-i-old1")
	require.NoError(t, env.GetWorkflowError())
	require.Equal(t, []string{"i-old0", "i-old1"}, w.terminated)
	require.Equal(t, 2, w.launched)
	requireAsBefore(t, w)

	var result workflows.RollProgress
	require.NoError(t, env.GetWorkflowResult(&result))
	require.Equal(t, "done", result.Phase)
	for _, node := range result.Nodes {
		require.Equal(t, workflows.Replaced, node.State)
		require.Equal(t, 4, node.Evicted)
		require.NotEmpty(t, node.Replacement)
	}
}

func TestAnActivityThatFailsForAWhileDelaysARollAndNothingElse(t *testing.T) {
	for _, activity := range []string{
		"ListClusters", "ExaminePool", "ExamineNode", "ResizePool", "AwaitInstance", "AwaitNode", "CordonNode",
		"DrainNode", "TerminateInstance", "AwaitTermination", "AwaitNodeGone",
	} {
		t.Run(activity, func(t *testing.T) {
			w := newWorld()
			w.fail = failTimes(activity, 2)
			env := newEnvironment(t, w)
			roll(env, "node-of-i-old0")
			require.NoError(t, env.GetWorkflowError())
			require.Equal(t, []string{"i-old0"}, w.terminated)
			requireAsBefore(t, w)
		})
	}
}

func TestBadInputIsRefusedBeforeAnythingIsChanged(t *testing.T) {
	for name, test := range map[string]struct {
		prepare func(*world)
		node    string
		kind    string
	}{
		"unknown node":            {func(*world) {}, "node-of-nothing", workflows.NodeNotFound},
		"unknown cluster":         {func(w *world) { w.fail = failAlways("ListClusters", workflows.ClusterNotFound) }, "node-of-i-old0", workflows.ClusterNotFound},
		"unknown pool":            {func(w *world) { w.fail = failAlways("ExaminePool", workflows.PoolNotFound) }, "node-of-i-old0", workflows.PoolNotFound},
		"credentials refused":     {func(w *world) { w.fail = failAlways("ExamineNode", workflows.AccessDenied) }, "node-of-i-old0", workflows.AccessDenied},
		"pool at its maximum":     {func(w *world) { w.pool.Max = 3 }, "node-of-i-old0", workflows.NoSurgeRoom},
		"instance of another one": {func(w *world) { w.nodes[0].Instance = "i-elsewhere" }, "node-of-i-old0", workflows.NodeNotFound},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld()
			test.prepare(w)
			env := newEnvironment(t, w)
			roll(env, test.node)
			var application *temporal.ApplicationError
			require.ErrorAs(t, env.GetWorkflowError(), &application)
			require.Equal(t, test.kind, application.Type())
			require.Empty(t, w.terminated)
			require.Zero(t, w.launched)
			requireAsBefore(t, w)
		})
	}
}

func TestAFailureAfterTheSurgeGivesTheSurplusInstanceBack(t *testing.T) {
	for activity, kind := range map[string]string{
		"AwaitNode":         workflows.BadReplacement,
		"CordonNode":        "Forbidden",
		"DrainNode":         "Forbidden",
		"TerminateInstance": workflows.Detached,
	} {
		t.Run(activity, func(t *testing.T) {
			w := newWorld()
			broken := failAlways(activity, kind)
			times := 1
			w.fail = func(name string) error {
				if name == activity && times > 0 {
					times--
					return broken(name)
				}
				return nil
			}
			env := newEnvironment(t, w)
			roll(env, "node-of-i-old0")
			var application *temporal.ApplicationError
			require.ErrorAs(t, env.GetWorkflowError(), &application)
			require.Equal(t, kind, application.Type())
			require.Equal(t, []string{"i-new0"}, w.terminated, "the new instance goes, the old ones stay")
			requireAsBefore(t, w)
		})
	}
}

func TestAPoolThatGetsNoInstanceIsBackAtItsSize(t *testing.T) {
	w := newWorld()
	w.fail = failAlways("AwaitInstance", workflows.BadReplacement)
	env := newEnvironment(t, w)
	roll(env, "node-of-i-old0")
	require.Error(t, env.GetWorkflowError())
	requireAsBefore(t, w)
}

func TestAnInstanceThatNeverBecomesANodeIsGivenBack(t *testing.T) {
	w := newWorld()
	w.noNode = true
	env := newEnvironment(t, w)
	roll(env, "node-of-i-old0")
	var application *temporal.ApplicationError
	require.ErrorAs(t, env.GetWorkflowError(), &application)
	require.Equal(t, workflows.BadReplacement, application.Type())
	require.Equal(t, []string{"i-new0"}, w.terminated)
	requireAsBefore(t, w)
}

func TestCancellingADrainUndoesTheRoll(t *testing.T) {
	w := newWorld()
	env := newEnvironment(t, w)
	w.drain = func(ctx context.Context, node string) error {
		if node != "node-of-i-old0" {
			return nil
		}
		env.CancelWorkflow()
		for { // a cancellation arrives with the answer to a heartbeat
			activity.RecordHeartbeat(ctx)
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(time.Millisecond):
			}
		}
	}
	roll(env, "node-of-i-old0")
	require.True(t, temporal.IsCanceledError(env.GetWorkflowError()), "%v", env.GetWorkflowError())
	require.Equal(t, []string{"i-new0"}, w.terminated, "the surplus instance goes, the old ones stay")
	requireAsBefore(t, w)
}

func TestANodeThatVanishesUnderTheDrainLeavesNoSurplusBehind(t *testing.T) {
	w := newWorld()
	w.drain = func(_ context.Context, node string) error {
		w.mu.Lock()
		defer w.mu.Unlock()
		if node == "node-of-i-old0" {
			w.remove("i-old0") // its group launches another one
		}
		return nil
	}
	env := newEnvironment(t, w)
	roll(env, "node-of-i-old0")
	require.NoError(t, env.GetWorkflowError())
	require.Equal(t, []string{"i-new1"}, w.terminated, "only what the group launched too much")
	requireAsBefore(t, w)
}

func TestASizeThatSomebodyElseChangedIsKept(t *testing.T) {
	w := newWorld()
	w.drain = func(context.Context, string) error {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.pool.Desired++ // as an autoscaler does
		w.scale()
		return nil
	}
	env := newEnvironment(t, w)
	roll(env, "node-of-i-old0")
	require.NoError(t, env.GetWorkflowError())
	require.Equal(t, []string{"i-old0"}, w.terminated)
	require.Equal(t, 4, w.pool.Desired)
}
