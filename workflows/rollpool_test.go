package workflows_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/mock"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/workflow"

	"github.com/fairway-project/fairway/roll"
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

func rollNodes(env *testsuite.TestWorkflowEnvironment, nodes ...string) {
	rollPool(env, workflows.RollPoolInput{Nodes: nodes})
}

func rollPool(env *testsuite.TestWorkflowEnvironment, in workflows.RollPoolInput) {
	in.Cluster, in.Pool, in.By = "dev-1", "worker", "test"
	env.ExecuteWorkflow(workflows.RollPool, in)
}

func result(t *testing.T, env *testsuite.TestWorkflowEnvironment) (progress workflows.RollProgress) {
	t.Helper()
	require.NoError(t, env.GetWorkflowError())
	require.NoError(t, env.GetWorkflowResult(&progress))
	require.Equal(t, "done", progress.Phase)
	return progress
}

func requireKind(t *testing.T, env *testsuite.TestWorkflowEnvironment, kind string) {
	t.Helper()
	var application *temporal.ApplicationError
	require.ErrorAs(t, env.GetWorkflowError(), &application)
	require.Equal(t, kind, application.Type())
}

// requireAsBefore is what holds after every roll, however it ended.
func requireAsBefore(t *testing.T, w *world, size int) {
	t.Helper()
	require.Equal(t, size, w.pool.Desired, "the pool has its size")
	require.Len(t, w.pool.Instances, size)
	require.Equal(t, workflows.Launch{}, w.launch, "the group launches as it did")
	require.False(t, w.protected, "the protections are undone")
	require.Empty(t, w.marked, "the marks are gone")
	require.Empty(t, w.turns, "the turn was given back")
	for _, node := range w.nodes {
		require.NotContains(t, w.cordonedBy, node.Name, "no node that is left is cordoned")
		require.NotContains(t, w.quarantined, node.Name)
	}
	ended := slices.Clone(w.terminated)
	slices.Sort(ended)
	require.Len(t, slices.Compact(ended), len(w.terminated), "no instance was ended twice")
}

func TestARollReplacesEachNodeOnceAndKeepsThePoolsSize(t *testing.T) {
	w := newWorld()
	w.settings.Limits = roll.Limits{Fleet: 10}
	env := newEnvironment(t, w)
	rollNodes(env, "node-of-i-old0", "node-of-i-old1")
	progress := result(t, env)
	require.Equal(t, []string{"i-old0", "i-old1"}, w.terminated)
	require.Equal(t, 2, w.launched)
	require.Equal(t, 4, w.largest)
	requireAsBefore(t, w, 3)
	for _, node := range progress.Nodes {
		require.Equal(t, workflows.Replaced, node.State)
		require.Equal(t, 4, node.Evicted)
		require.NotEmpty(t, node.Replacement)
	}
}

func TestARollTakesTheOldNodesByDefault(t *testing.T) {
	w := newWorld()
	w.pool.Instances[1].Old = false
	env := newEnvironment(t, w)
	rollPool(env, workflows.RollPoolInput{})
	result(t, env)
	require.Equal(t, []string{"i-old0", "i-old2"}, w.terminated)
	requireAsBefore(t, w, 3)
}

func TestAPoolWithoutOldNodesIsLeftAlone(t *testing.T) {
	w := newWorld()
	for i := range w.pool.Instances {
		w.pool.Instances[i].Old = false
	}
	env := newEnvironment(t, w)
	rollPool(env, workflows.RollPoolInput{})
	require.Empty(t, result(t, env).Nodes)
	require.Empty(t, w.terminated)
	require.Zero(t, w.launched)
}

func TestBatchesGrowUpToTheLimitAndKeepToOneZone(t *testing.T) {
	w := newWorldOf("a", "a", "a", "a", "a", "a", "b", "b")
	w.settings.Surge, w.settings.Parallel = roll.Share{Percent: 100}, 3
	var together []int // how many drains run at a time, by batch
	running := 0
	w.drain = func(ctx context.Context, in workflows.DrainNode) (bool, error) {
		w.mu.Lock()
		running++
		w.mu.Unlock()
		time.Sleep(20 * time.Millisecond)
		w.mu.Lock()
		defer w.mu.Unlock()
		if running > 0 {
			together = append(together, running)
		}
		running = 0
		return false, nil
	}
	env := newEnvironment(t, w)
	rollPool(env, workflows.RollPoolInput{})
	progress := result(t, env)
	require.Equal(t, []int{1, 2, 3, 2}, together)
	require.Equal(t, 8, w.launched)
	require.Equal(t, 11, w.largest)
	requireAsBefore(t, w, 8)
	for _, node := range progress.Nodes {
		at := slices.IndexFunc(w.nodes, func(n workflows.Node) bool { return n.Name == node.Replacement })
		require.Equal(t, node.Zone, w.nodes[at].Zone, "the replacement is in the zone of its old node")
	}
}

func TestInPlaceAnOldNodeIsEndedFirst(t *testing.T) {
	w := newWorld()
	w.settings.Surge = roll.Share{}
	w.pool.Max = 3
	env := newEnvironment(t, w)
	rollPool(env, workflows.RollPoolInput{})
	progress := result(t, env)
	require.Equal(t, []string{"i-old0", "i-old1", "i-old2"}, w.terminated)
	require.Equal(t, 3, w.largest)
	require.Equal(t, 2, w.smallest)
	require.NotEmpty(t, progress.Nodes[2].Replacement)
	requireAsBefore(t, w, 3)
}

func TestAPoolIsEmptiedWithoutReplacements(t *testing.T) {
	w := newWorld()
	env := newEnvironment(t, w)
	rollPool(env, workflows.RollPoolInput{Remove: true})
	result(t, env)
	require.Len(t, w.terminated, 3)
	require.Zero(t, w.launched)
	require.Zero(t, w.pool.Min)
	requireAsBefore(t, w, 0)
}

func TestAPoolThatCannotBeEmptiedGetsItsSizeBack(t *testing.T) {
	w := newWorld()
	w.settings.Parallel = 1
	w.drain = func(_ context.Context, in workflows.DrainNode) (bool, error) {
		if in.Node == "node-of-i-old1" {
			return false, final("Forbidden", "no")
		}
		return false, nil
	}
	env := newEnvironment(t, w)
	rollPool(env, workflows.RollPoolInput{Remove: true})
	requireKind(t, env, "Forbidden")
	require.Equal(t, []string{"i-old0"}, w.terminated)
	require.Equal(t, 3, w.pool.Min)
	requireAsBefore(t, w, 3)
}

func TestAnActivityThatFailsForAWhileDelaysARollAndNothingElse(t *testing.T) {
	for _, activity := range []string{
		"FindPool", "ExaminePool", "SurveyPool", "ProtectPool", "MarkNodes", "AwaitTurn", "GrowPool", "AwaitInstances", "AwaitNode", "CordonNode",
		"DrainNode", "TerminateInstance", "AwaitTermination", "AwaitNodeGone", "EndTurn", "UnmarkNodes", "RestorePool", "Notify",
	} {
		t.Run(activity, func(t *testing.T) {
			w := newWorld()
			w.settings.Limits = roll.Limits{Fleet: 10}
			w.fail = failTimes(activity, 2)
			env := newEnvironment(t, w)
			rollNodes(env, "node-of-i-old0", "node-of-i-old1")
			result(t, env)
			require.Equal(t, []string{"i-old0", "i-old1"}, w.terminated)
			requireAsBefore(t, w, 3)
		})
	}
}

func TestBadInputIsRefusedBeforeAnythingIsChanged(t *testing.T) {
	nothing := func(*world) {}
	one := workflows.RollPoolInput{Nodes: []string{"node-of-i-old0"}}
	for name, test := range map[string]struct {
		prepare func(*world)
		in      workflows.RollPoolInput
		kind    string
	}{
		"unknown node":            {nothing, workflows.RollPoolInput{Nodes: []string{"node-of-nothing"}}, workflows.NodeNotFound},
		"unknown cluster":         {func(w *world) { w.fail = failAlways("FindPool", workflows.ClusterNotFound) }, one, workflows.ClusterNotFound},
		"unknown pool":            {func(w *world) { w.fail = failAlways("ExaminePool", workflows.PoolNotFound) }, one, workflows.PoolNotFound},
		"credentials refused":     {func(w *world) { w.fail = failAlways("SurveyPool", workflows.AccessDenied) }, one, workflows.AccessDenied},
		"pool at its maximum":     {func(w *world) { w.pool.Max = 3 }, one, workflows.NoSurgeRoom},
		"instance of another one": {func(w *world) { w.nodes[0].Instance = "i-elsewhere" }, one, workflows.NodeNotFound},
		"no age":                  {nothing, workflows.RollPoolInput{MaxAge: "old"}, workflows.InvalidInput},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld()
			test.prepare(w)
			env := newEnvironment(t, w)
			rollPool(env, test.in)
			requireKind(t, env, test.kind)
			require.Empty(t, w.terminated)
			require.Zero(t, w.launched)
			requireAsBefore(t, w, 3)
		})
	}
}

func TestAFailureAfterTheSurgeGivesTheSurplusInstanceBack(t *testing.T) {
	for activity, kind := range map[string]string{
		"AwaitNode":         "Forbidden",
		"CordonNode":        "Forbidden",
		"DrainNode":         "Forbidden",
		"TerminateInstance": workflows.Detached,
	} {
		t.Run(activity, func(t *testing.T) {
			w := newWorld()
			w.fail = failOnce(activity, kind)
			env := newEnvironment(t, w)
			rollNodes(env, "node-of-i-old0")
			requireKind(t, env, kind)
			require.Equal(t, []string{"i-new0"}, w.terminated, "the new instance goes, the old ones stay")
			requireAsBefore(t, w, 3)
		})
	}
}

func TestAnInstanceThatNeverBecomesANodeIsReplaced(t *testing.T) {
	w := newWorld()
	w.noNode = 2
	env := newEnvironment(t, w)
	rollNodes(env, "node-of-i-old0")
	require.Equal(t, 2, result(t, env).Bad)
	require.Equal(t, []string{"i-new0", "i-new1", "i-old0"}, w.terminated)
	requireAsBefore(t, w, 3)
}

func TestTooManyBadReplacementsStopTheRoll(t *testing.T) {
	w := newWorld()
	w.noNode = 99
	env := newEnvironment(t, w)
	rollPool(env, workflows.RollPoolInput{})
	requireKind(t, env, workflows.BadReplacement)
	require.Equal(t, []string{"i-new0", "i-new1", "i-new2"}, w.terminated, "the old ones stay")
	require.Len(t, w.told, 2, "people are told once that it begins, and once that it stopped")
	require.Equal(t, workflows.RollBegins, w.told[0].Kind)
	require.Contains(t, w.told[0].Text, "begins to replace 3 nodes of pool worker")
	require.Equal(t, workflows.RollStopped, w.told[1].Kind)
	requireAsBefore(t, w, 3)
}

func TestAFirstReplacementThatDoesNotLastStopsTheRoll(t *testing.T) {
	w := newWorld()
	w.settings.Validate = time.Minute
	w.fail = failAlways("AwaitNode/settle", workflows.BadReplacement)
	env := newEnvironment(t, w)
	rollPool(env, workflows.RollPoolInput{})
	requireKind(t, env, workflows.BadReplacement)
	require.Equal(t, []string{"i-old0"}, w.terminated)
	requireAsBefore(t, w, 3)
}

func TestWaysOutOfAShortageAreTakenInTheirOrderAndTold(t *testing.T) {
	only := func(launch workflows.Launch) func(workflows.Launch) bool {
		return func(asked workflows.Launch) bool {
			return asked.Type == launch.Type && asked.OnDemand == launch.OnDemand && slices.Equal(asked.Zones, launch.Zones)
		}
	}
	none := func(workflows.Launch) bool { return false }
	for name, test := range map[string]struct {
		capacity func(workflows.Launch) bool
		prepare  func(*world)
		want     []roll.FallbackKind
	}{
		"another type":    {only(workflows.Launch{Zones: []string{"a"}, Type: "m6"}), func(*world) {}, []roll.FallbackKind{roll.OtherType, roll.OtherType}},
		"another zone":    {only(workflows.Launch{Zones: []string{"b"}}), func(*world) {}, []roll.FallbackKind{roll.OtherType, roll.OtherType, roll.OtherZone}},
		"On-Demand":       {only(workflows.Launch{Zones: []string{"a"}, OnDemand: true}), func(w *world) { w.pool.Spot = true }, []roll.FallbackKind{roll.OtherType, roll.OtherType, roll.OtherZone, roll.OnDemand}},
		"only what is on": {only(workflows.Launch{Zones: []string{"b"}}), func(w *world) { w.settings.Fallbacks = []roll.FallbackKind{roll.OtherZone} }, []roll.FallbackKind{roll.OtherZone}},
		"not from volumes": {none, func(w *world) {
			w.settings.Fallbacks = []roll.FallbackKind{roll.OtherZone}
			for i := range w.nodes {
				w.nodes[i].Pinned = true
			}
		}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorldOf("a", "a", "b")
			w.types = []string{"m5", "m5a", "m6"}
			w.settings.Fallbacks = []roll.FallbackKind{roll.OtherType, roll.OtherZone, roll.OnDemand, roll.SmallerSurge, roll.InPlace}
			w.capacity = test.capacity
			test.prepare(w)
			env := newEnvironment(t, w)
			rollNodes(env, "node-of-i-old0")
			if test.want == nil {
				requireKind(t, env, workflows.NoCapacity)
				require.Empty(t, w.terminated)
				requireAsBefore(t, w, 3)
				return
			}
			var kinds []roll.FallbackKind
			for _, taken := range result(t, env).Fallbacks {
				kinds = append(kinds, taken.Kind)
				require.Contains(t, taken.Text, "because AWS has no such instances now")
			}
			require.Equal(t, test.want, kinds)
			require.Len(t, slices.DeleteFunc(w.told, func(n workflows.Notification) bool { return n.Kind != workflows.Fallback }), len(kinds), "none is silent")
			require.Equal(t, []string{"i-old0"}, w.terminated)
			requireAsBefore(t, w, 3)
		})
	}
}

func TestAShortageMakesTheSurgeSmaller(t *testing.T) {
	for left, want := range map[int]int{3: 3, 1: 1, 0: 1} {
		t.Run(fmt.Sprintf("%d of 4 come", left), func(t *testing.T) {
			w := newWorldOf("a", "a", "a", "a", "a", "a", "a")
			w.settings.Surge = roll.Share{Count: 4}
			w.settings.Fallbacks = []roll.FallbackKind{roll.SmallerSurge}
			w.capacity = func(workflows.Launch) bool { // enough for batches of 1 and 2, then it gets scarce
				if w.launched < 3 {
					return true
				}
				return len(w.pool.Instances) < 7+left || (left == 0 && w.pool.Desired == 8)
			}
			env := newEnvironment(t, w)
			rollPool(env, workflows.RollPoolInput{})
			progress := result(t, env)
			require.NotEmpty(t, progress.Fallbacks)
			require.Equal(t, 7+max(want, 2), w.largest)
			require.Len(t, w.terminated, 7)
			requireAsBefore(t, w, 7)
		})
	}
}

func TestWithoutAnyCapacityARollMayGoInPlace(t *testing.T) {
	w := newWorld()
	w.settings.Fallbacks = []roll.FallbackKind{roll.SmallerSurge, roll.InPlace}
	w.capacity = func(workflows.Launch) bool { return len(w.pool.Instances) < 3 }
	env := newEnvironment(t, w)
	rollPool(env, workflows.RollPoolInput{})
	progress := result(t, env)
	require.Equal(t, roll.InPlace, progress.Fallbacks[0].Kind)
	require.Equal(t, 3, w.largest)
	require.Len(t, w.terminated, 3)
	requireAsBefore(t, w, 3)
}

func TestAFullPoolMayBeRolledInPlace(t *testing.T) {
	w := newWorld()
	w.pool.Max = 3
	w.settings.Fallbacks = []roll.FallbackKind{roll.InPlace}
	env := newEnvironment(t, w)
	rollPool(env, workflows.RollPoolInput{})
	require.Contains(t, result(t, env).Fallbacks[0].Text, "at its maximum of 3")
	require.Len(t, w.terminated, 3)
	requireAsBefore(t, w, 3)
}

// stubborn makes drains of a node give up as long as they may.
func stubborn(nodes ...string) func(context.Context, workflows.DrainNode) (bool, error) {
	return func(_ context.Context, in workflows.DrainNode) (bool, error) {
		return in.GiveUpAfter > 0 && slices.Contains(nodes, in.Node), nil
	}
}

func TestANodeThatCannotBeDrainedIsLeftForTheEnd(t *testing.T) {
	for name, room := range map[string]int{"with room": 6, "without room for another surge": 4} {
		t.Run(name, func(t *testing.T) {
			w := newWorld()
			w.pool.Max = room
			w.settings.QuarantineAfter = time.Hour
			w.drain = stubborn("node-of-i-old0")
			env := newEnvironment(t, w)
			rollPool(env, workflows.RollPoolInput{})
			progress := result(t, env)
			require.Equal(t, []string{"i-old1", "i-old2", "i-old0"}, w.terminated)
			require.Equal(t, 3, w.launched, "its replacement serves the next node")
			require.Equal(t, 4, w.largest)
			require.Equal(t, 7, progress.Nodes[0].Evicted)
			require.Equal(t, workflows.Quarantined, w.told[1].Kind)
			require.Contains(t, w.told[1].Text, "pod shop/cart-0: its budget has nothing to spare")
			requireAsBefore(t, w, 3)
		})
	}
}

func TestTooManyNodesInQuarantineAreTakenUpBeforeOthers(t *testing.T) {
	w := newWorldOf("a", "a", "a", "a")
	w.settings.QuarantineAfter, w.settings.QuarantineLimit = time.Hour, 2
	w.drain = stubborn("node-of-i-old0", "node-of-i-old1", "node-of-i-old2")
	env := newEnvironment(t, w)
	rollPool(env, workflows.RollPoolInput{})
	result(t, env)
	require.Equal(t, []string{"i-old0", "i-old1", "i-old3", "i-old2"}, w.terminated)
	requireAsBefore(t, w, 4)
}

func TestCancellingARollWithANodeInQuarantineUndoesIt(t *testing.T) {
	w := newWorld()
	w.settings.QuarantineAfter = time.Hour
	env := newEnvironment(t, w)
	w.drain = func(ctx context.Context, in workflows.DrainNode) (bool, error) {
		switch in.Node {
		case "node-of-i-old0":
			return true, nil
		case "node-of-i-old1":
			env.CancelWorkflow()
			return false, untilCancelled(ctx)
		}
		return false, nil
	}
	rollPool(env, workflows.RollPoolInput{})
	require.True(t, temporal.IsCanceledError(env.GetWorkflowError()), "%v", env.GetWorkflowError())
	require.Equal(t, []string{"i-new0"}, w.terminated, "the spare goes, the old ones stay")
	requireAsBefore(t, w, 3)
}

func untilCancelled(ctx context.Context) error {
	for { // a cancellation arrives with the answer to a heartbeat
		activity.RecordHeartbeat(ctx)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Millisecond):
		}
	}
}

func TestCancellingADrainUndoesTheRoll(t *testing.T) {
	w := newWorld()
	env := newEnvironment(t, w)
	w.drain = func(ctx context.Context, in workflows.DrainNode) (bool, error) {
		if in.Node != "node-of-i-old0" {
			return false, nil
		}
		env.CancelWorkflow()
		return false, untilCancelled(ctx)
	}
	rollNodes(env, "node-of-i-old0")
	require.True(t, temporal.IsCanceledError(env.GetWorkflowError()), "%v", env.GetWorkflowError())
	require.Equal(t, []string{"i-new0"}, w.terminated, "the surplus instance goes, the old ones stay")
	requireAsBefore(t, w, 3)
}

func TestANodeThatVanishesUnderTheDrainLeavesNoSurplusBehind(t *testing.T) {
	w := newWorld()
	w.drain = func(_ context.Context, in workflows.DrainNode) (bool, error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		if in.Node == "node-of-i-old0" {
			w.remove("i-old0") // its group launches another one
		}
		return false, nil
	}
	env := newEnvironment(t, w)
	rollNodes(env, "node-of-i-old0")
	result(t, env)
	require.Equal(t, []string{"i-new1"}, w.terminated, "only what the group launched too much")
	requireAsBefore(t, w, 3)
}

func TestANodeThatVanishesBeforeItsTurnNeedsNoReplacement(t *testing.T) {
	w := newWorld()
	w.drain = func(_ context.Context, in workflows.DrainNode) (bool, error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		if in.Node == "node-of-i-old0" {
			w.remove("i-old1")
		}
		return false, nil
	}
	env := newEnvironment(t, w)
	rollPool(env, workflows.RollPoolInput{})
	result(t, env)
	require.Equal(t, []string{"i-old0", "i-old2"}, w.terminated)
	requireAsBefore(t, w, 3)
}

func TestANodeThatIsJustVanishingWhenItsTurnComesLeavesWhatTookItsPlaceAlone(t *testing.T) {
	w := newWorld()
	vanishing := func() int {
		return slices.IndexFunc(w.pool.Instances, func(i workflows.Instance) bool { return i.Lifecycle == "Terminating" })
	}
	w.drain = func(_ context.Context, in workflows.DrainNode) (bool, error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		if in.Node == "node-of-i-old0" {
			at := slices.IndexFunc(w.pool.Instances, func(i workflows.Instance) bool { return i.ID == "i-old1" })
			w.pool.Instances[at].Lifecycle = "Terminating"
			w.add("i-instead", "a")
		}
		return false, nil
	}
	w.fail = func(activity string) error {
		if at := vanishing(); activity == "GrowPool" && at >= 0 {
			w.remove(w.pool.Instances[at].ID) // now it has gone
		}
		return nil
	}
	env := newEnvironment(t, w)
	rollPool(env, workflows.RollPoolInput{})
	result(t, env)
	require.Equal(t, []string{"i-old0", "i-old2"}, w.terminated)
	require.True(t, slices.ContainsFunc(w.pool.Instances, func(i workflows.Instance) bool { return i.ID == "i-instead" }))
	requireAsBefore(t, w, 3)
}

func TestASizeThatSomebodyElseChangedIsKept(t *testing.T) {
	for name, when := range map[string]string{"during the drain": "drain", "just before the surge": "surge"} {
		t.Run(name, func(t *testing.T) {
			w := newWorld()
			scaleUp := func() { // as an autoscaler does
				w.pool.Desired++
				w.scale()
			}
			if when == "drain" {
				w.drain = func(context.Context, workflows.DrainNode) (bool, error) {
					w.mu.Lock()
					defer w.mu.Unlock()
					scaleUp()
					return false, nil
				}
			} else {
				w.fail = func(activity string) error {
					if activity == "GrowPool" && w.launched == 0 {
						w.pool.Desired++
						scaleUp()
					}
					return nil
				}
			}
			env := newEnvironment(t, w)
			rollNodes(env, "node-of-i-old0")
			result(t, env)
			require.Equal(t, []string{"i-old0"}, w.terminated)
			require.Equal(t, map[string]int{"drain": 4, "surge": 5}[when], w.pool.Desired)
		})
	}
}

func TestADrainMayLastForThreeDays(t *testing.T) {
	w := newWorld()
	env := newEnvironment(t, w)
	forced := []workflows.ForcedPod{{Pod: "shop/cart-0", Reason: "the budget can never allow an eviction"}}
	env.OnActivity("DrainNode", mock.Anything, mock.Anything).Return(workflows.DrainProgress{Total: 1, Forced: forced, Tried: 72 * time.Hour}, nil).After(72 * time.Hour)
	rollNodes(env, "node-of-i-old0")
	progress := result(t, env)
	require.Equal(t, 72*time.Hour, progress.Nodes[0].Drained)
	require.Equal(t, forced, progress.Nodes[0].Forced)
	require.Equal(t, 72*time.Hour, progress.Nodes[0].Ended.Sub(progress.Nodes[0].Began).Round(time.Hour))
	requireAsBefore(t, w, 3)
}

func TestWhatAnEarlierDrainHasTriedCountsForTheNext(t *testing.T) {
	w := newWorld()
	w.settings.QuarantineAfter = time.Hour
	env := newEnvironment(t, w)
	var tried []time.Duration // before
	env.OnActivity("DrainNode", mock.Anything, mock.Anything).Return(func(_ context.Context, in workflows.DrainNode) (workflows.DrainProgress, error) {
		if in.Node != "node-of-i-old0" {
			return workflows.DrainProgress{}, nil
		}
		tried = append(tried, in.Tried)
		return workflows.DrainProgress{GaveUp: in.GiveUpAfter > 0, Left: 1, Tried: 50 * time.Minute}, nil
	}).After(time.Hour)
	rollPool(env, workflows.RollPoolInput{})
	result(t, env)
	require.Equal(t, []time.Duration{0, 50 * time.Minute}, tried)
}

func TestALongRollGoesOnInANewRun(t *testing.T) {
	w := newWorld()
	in := workflows.RollPoolInput{Cluster: "dev-1", Pool: "worker", By: "test"}
	for run := 1; ; run++ {
		env := newEnvironment(t, w)
		env.SetCurrentHistoryLength(20_000)
		env.ExecuteWorkflow(workflows.RollPool, in)
		var next *workflow.ContinueAsNewError
		if !errors.As(env.GetWorkflowError(), &next) {
			result(t, env)
			break
		}
		require.Less(t, run, 5)
		require.NoError(t, converter.GetDefaultDataConverter().FromPayloads(next.Input, &in))
		require.True(t, w.protected, "the roll goes on")
	}
	require.Equal(t, []string{"i-old0", "i-old1", "i-old2"}, w.terminated)
	requireAsBefore(t, w, 3)
}

func TestABadReplacementThatHasBecomeANodeIsEmptiedFirst(t *testing.T) {
	w := newWorld()
	w.fail = failOnce("AwaitNode", workflows.BadReplacement) // it is a node, on which something does not run
	var drained []string
	w.drain = func(_ context.Context, in workflows.DrainNode) (bool, error) {
		drained = append(drained, in.Node)
		return false, nil
	}
	env := newEnvironment(t, w)
	rollNodes(env, "node-of-i-old0")
	require.Equal(t, 1, result(t, env).Bad)
	require.Equal(t, []string{"node-of-i-new0", "node-of-i-old0"}, drained)
	require.Equal(t, []string{"i-new0", "i-old0"}, w.terminated)
	requireAsBefore(t, w, 3)
}

func TestANodeIsEmptiedAgainIfItsEndWasBlocked(t *testing.T) {
	w := newWorld()
	blocked, drains := true, 0
	w.fail = func(activity string) error {
		if activity == "TerminateInstance" && blocked {
			blocked = false
			return temporal.NewApplicationError("blocked by anna", workflows.Blocked)
		}
		return nil
	}
	w.drain = func(context.Context, workflows.DrainNode) (bool, error) {
		drains++
		return false, nil
	}
	env := newEnvironment(t, w)
	rollNodes(env, "node-of-i-old0")
	require.Equal(t, 8, result(t, env).Nodes[0].Evicted)
	require.Equal(t, 2, drains)
	require.Equal(t, []string{"i-old0"}, w.terminated)
	requireAsBefore(t, w, 3)
}

func TestSurplusIsEndedByNameWhateverTheSizeIsNow(t *testing.T) {
	w := newWorld()
	w.drain = func(_ context.Context, in workflows.DrainNode) (bool, error) {
		if in.Node != "node-of-i-old0" {
			return false, nil
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		w.pool.Desired++ // an autoscaler makes room for the pods that wait
		w.scale()
		return false, final("Forbidden", "no")
	}
	env := newEnvironment(t, w)
	rollNodes(env, "node-of-i-old0")
	requireKind(t, env, "Forbidden")
	require.Equal(t, []string{"i-new0"}, w.terminated)
	requireAsBefore(t, w, 4)
}

func TestWhatCannotBeUndoneIsSaidAlsoOfACancelledRoll(t *testing.T) {
	w := newWorld()
	env := newEnvironment(t, w)
	w.drain = func(ctx context.Context, in workflows.DrainNode) (bool, error) {
		if in.Node != "node-of-i-old0" {
			return false, nil
		}
		env.CancelWorkflow()
		return false, untilCancelled(ctx)
	}
	w.fail = failAlways("RestorePool", "Forbidden")
	rollNodes(env, "node-of-i-old0")
	requireKind(t, env, workflows.UndoFailed)
	require.ErrorContains(t, env.GetWorkflowError(), "look after it: RestorePool failed")
}

func TestMastersGoOneAtATimeInTheWholeCluster(t *testing.T) {
	w := newWorld()
	w.settings.Surge = roll.Share{Count: 3}
	for i := range w.nodes {
		w.nodes[i].ControlPlane = true
	}
	env := newEnvironment(t, w)
	var turns []workflows.AwaitTurn
	env.OnActivity("AwaitTurn", mock.Anything, mock.Anything).Return(func(_ context.Context, in workflows.AwaitTurn) error {
		turns = append(turns, in)
		return nil
	})
	rollPool(env, workflows.RollPoolInput{})
	result(t, env)
	require.Len(t, turns, 3)
	require.Equal(t, "dev-1", turns[0].ControlPlane)
	require.Equal(t, 1, turns[0].Nodes)
	require.Equal(t, 4, w.largest)
}

func TestAWayOutThatIsImpossibleIsPassedOver(t *testing.T) {
	w := newWorldOf("a", "b")
	w.types = []string{"m5", "m5a"}
	w.settings.Fallbacks = []roll.FallbackKind{roll.OtherType, roll.OtherZone}
	w.capacity = func(launch workflows.Launch) bool { return slices.Equal(launch.Zones, []string{"b"}) }
	impossible := 0
	w.impossible = func(launch workflows.Launch) error {
		if launch.Type == "" {
			return nil
		}
		impossible++
		return final(workflows.InvalidInput, "the group has a launch configuration")
	}
	env := newEnvironment(t, w)
	rollNodes(env, "node-of-i-old0")
	require.Len(t, result(t, env).Fallbacks, 3)
	require.Equal(t, 1, impossible)
	requireAsBefore(t, w, 2)
}

func TestASpareThatVanishesIsNotCountedOn(t *testing.T) {
	w := newWorld()
	w.settings.QuarantineAfter = time.Hour
	w.drain = func(_ context.Context, in workflows.DrainNode) (bool, error) {
		if in.Node == "node-of-i-old0" && in.GiveUpAfter > 0 {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.remove("i-new0") // its group launches another one
			return true, nil
		}
		return false, nil
	}
	env := newEnvironment(t, w)
	rollPool(env, workflows.RollPoolInput{})
	progress := result(t, env)
	require.Contains(t, progress.Left, "node-of-i-new0, a replacement of this roll, vanished")
	require.Equal(t, []string{"i-old1", "i-old2", "i-old0"}, w.terminated, "no instance is ended that was not emptied")
	require.Equal(t, 4, w.pool.Desired, "better one too many")
}

func TestARollThatIsToldToStopEndsAfterTheBatchInHand(t *testing.T) {
	w := newWorld()
	w.settings.Parallel = 1
	env := newEnvironment(t, w)
	w.drain = func(context.Context, workflows.DrainNode) (bool, error) {
		env.SignalWorkflow(workflows.StopName, "a newer version is wanted")
		return false, nil
	}
	rollPool(env, workflows.RollPoolInput{})
	require.NoError(t, env.GetWorkflowError())
	var progress workflows.RollProgress
	require.NoError(t, env.GetWorkflowResult(&progress))
	require.Equal(t, "stopped", progress.Phase)
	require.Contains(t, progress.Step, "a newer version is wanted")
	require.Equal(t, []string{"i-old0"}, w.terminated, "the batch in hand is finished")
	require.Equal(t, workflows.Waiting, progress.Nodes[1].State)
	requireAsBefore(t, w, 3)
}

func TestARollThatIsToldToStopInNoWordsStopsAllTheSame(t *testing.T) {
	w := newWorld()
	w.settings.Parallel = 1
	env := newEnvironment(t, w)
	w.drain = func(context.Context, workflows.DrainNode) (bool, error) {
		env.SignalWorkflow(workflows.StopName, map[string]string{"reason": "sent by hand"})
		return false, nil
	}
	rollPool(env, workflows.RollPoolInput{})
	var progress workflows.RollProgress
	require.NoError(t, env.GetWorkflowResult(&progress))
	require.Equal(t, "stopped", progress.Phase)
	require.Equal(t, []string{"i-old0"}, w.terminated)
}

func TestAStopInTheLastBatchIsNoStop(t *testing.T) {
	w := newWorld()
	env := newEnvironment(t, w)
	w.drain = func(context.Context, workflows.DrainNode) (bool, error) {
		env.SignalWorkflow(workflows.StopName, "x")
		return false, nil
	}
	rollNodes(env, "node-of-i-old0")
	result(t, env)
}

func TestAStopEndsTheWaitForATurnOrAWindow(t *testing.T) {
	for _, activity := range []string{"AwaitTurn", "AwaitWindow", "AwaitUnblocked"} {
		t.Run(activity, func(t *testing.T) {
			w := newWorld()
			w.windowed, w.settings.Limits = true, roll.Limits{Fleet: 10}
			w.fail = func(name string) error {
				if name == activity {
					return temporal.NewApplicationErrorWithOptions("not yet", workflows.WindowClosed, temporal.ApplicationErrorOptions{NextRetryDelay: 10 * time.Hour})
				}
				return nil
			}
			env := newEnvironment(t, w)
			env.RegisterDelayedCallback(func() { env.SignalWorkflow(workflows.StopName, "x") }, time.Hour)
			rollPool(env, workflows.RollPoolInput{})
			require.NoError(t, env.GetWorkflowError())
			var progress workflows.RollProgress
			require.NoError(t, env.GetWorkflowResult(&progress))
			require.Equal(t, "stopped", progress.Phase)
			require.Empty(t, w.terminated)
			require.Zero(t, w.launched)
			requireAsBefore(t, w, 3)
		})
	}
}

func TestAPoolThatIsStoppedWhileItIsEmptiedGetsItsSizeBack(t *testing.T) {
	w := newWorld()
	w.settings.Parallel = 1
	env := newEnvironment(t, w)
	w.drain = func(context.Context, workflows.DrainNode) (bool, error) {
		env.SignalWorkflow(workflows.StopName, "x")
		return false, nil
	}
	rollPool(env, workflows.RollPoolInput{Remove: true})
	require.NoError(t, env.GetWorkflowError())
	require.Equal(t, []string{"i-old0"}, w.terminated)
	requireAsBefore(t, w, 3)
}

func TestEachBatchWaitsForAWindowInOneActivity(t *testing.T) {
	w := newWorld()
	w.windowed, w.settings.Parallel = true, 1
	env := newEnvironment(t, w)
	env.SetStartTime(noon)
	scheduled, attempts := 0, 0
	env.SetOnActivityStartedListener(func(info *activity.Info, _ context.Context, _ converter.EncodedValues) {
		if info.ActivityType.Name == "AwaitWindow" {
			if attempts++; info.Attempt == 1 {
				scheduled++
			}
		}
	})
	w.fail = func(name string) error {
		if name == "AwaitWindow" && env.Now().Before(noon.Add(72*time.Hour)) {
			return temporal.NewApplicationErrorWithOptions("closed", workflows.WindowClosed, temporal.ApplicationErrorOptions{NextRetryDelay: 12 * time.Hour})
		}
		return nil
	}
	rollPool(env, workflows.RollPoolInput{})
	result(t, env)
	require.Equal(t, 3, scheduled, "one for each batch, however long it waits")
	require.Equal(t, 9, attempts)
}

func TestAnUrgentRollWaitsForBlocksAndTurnsButNoWindow(t *testing.T) {
	w := newWorld()
	w.windowed, w.settings.Limits = true, roll.Limits{Fleet: 1}
	env := newEnvironment(t, w)
	asked := map[string]int{}
	w.fail = func(name string) error {
		if asked[name]++; name == "AwaitTurn" && asked[name] == 1 { // long enough to look at the window again
			return temporal.NewApplicationErrorWithOptions("full", workflows.NoTurn, temporal.ApplicationErrorOptions{NextRetryDelay: time.Hour})
		}
		return nil
	}
	rollPool(env, workflows.RollPoolInput{Urgent: true})
	result(t, env)
	require.Zero(t, asked["AwaitWindow"])
	require.Positive(t, asked["AwaitUnblocked"])
	require.Positive(t, asked["AwaitTurn"])
}

func TestABatchDoesNotBeginInAWindowThatHasClosedWhileItWaitedForItsTurn(t *testing.T) {
	w := newWorld()
	w.windowed, w.settings.Parallel, w.settings.Limits = true, 1, roll.Limits{Fleet: 1}
	env := newEnvironment(t, w)
	env.SetStartTime(noon)
	var calls []string
	w.fail = func(name string) error {
		since := env.Now().Sub(noon)
		switch {
		case name == "AwaitTurn" && since < 2*time.Hour:
			return temporal.NewApplicationErrorWithOptions("full", workflows.NoTurn, temporal.ApplicationErrorOptions{NextRetryDelay: 90 * time.Minute})
		case name == "AwaitWindow" && since > time.Hour && since < 22*time.Hour:
			return temporal.NewApplicationErrorWithOptions("closed", workflows.WindowClosed, temporal.ApplicationErrorOptions{NextRetryDelay: 5 * time.Hour})
		case name == "GrowPool":
			calls = append(calls, since.Truncate(time.Hour).String())
		case name == "EndTurn" && len(calls) == 0:
			calls = append(calls, "end turn")
		}
		return nil
	}
	rollPool(env, workflows.RollPoolInput{})
	result(t, env)
	require.Equal(t, "end turn", calls[0], "others can go on")
	require.Equal(t, "23h0m0s", calls[1])
	requireAsBefore(t, w, 3)
}

func TestABlockedBatchHoldsNoTurn(t *testing.T) {
	for rule, from := range map[string]time.Duration{"from the beginning": 0, "while it waits": time.Hour} {
		t.Run(rule, func(t *testing.T) {
			w := newWorld()
			w.settings.Limits = roll.Limits{Fleet: 1}
			env := newEnvironment(t, w)
			env.SetStartTime(noon)
			w.fail = func(name string) error {
				since := env.Now().Sub(noon)
				switch {
				case name == "AwaitTurn" && since < 2*time.Hour && from > 0:
					return temporal.NewApplicationErrorWithOptions("full", workflows.NoTurn, temporal.ApplicationErrorOptions{NextRetryDelay: 90 * time.Minute})
				case name == "AwaitUnblocked" && since >= from && since < 22*time.Hour:
					return temporal.NewApplicationErrorWithOptions("blocked", workflows.Blocked, temporal.ApplicationErrorOptions{NextRetryDelay: 5 * time.Hour})
				case name == "GrowPool":
					require.Greater(t, since, 22*time.Hour)
				}
				return nil
			}
			env.RegisterDelayedCallback(func() {
				w.mu.Lock()
				defer w.mu.Unlock()
				require.Empty(t, w.turns)
			}, 15*time.Hour)
			rollPool(env, workflows.RollPoolInput{})
			result(t, env)
			requireAsBefore(t, w, 3)
		})
	}
}

// zombies makes instances of a pool no nodes.
func (w *world) zombies(instances ...string) {
	w.nodes = slices.DeleteFunc(w.nodes, func(n workflows.Node) bool { return slices.Contains(instances, n.Instance) })
}

func TestAnOldInstanceThatBecomesANodeInTimeIsDrained(t *testing.T) {
	w := newWorld()
	late := w.nodes[2]
	w.zombies("i-old2")
	looks := 0
	w.fail = func(activity string) error {
		if activity == "ExaminePool" {
			if looks++; looks == 3 {
				w.nodes = append(w.nodes, late)
			}
		}
		return nil
	}
	env := newEnvironment(t, w)
	rollPool(env, workflows.RollPoolInput{})
	progress := result(t, env)
	require.Len(t, progress.Nodes, 3)
	require.Empty(t, progress.NoNodes)
	requireAsBefore(t, w, 3)
}

func TestAnOldInstanceThatBecomesNoNodeIsEndedLast(t *testing.T) {
	for _, instances := range [][]string{{"i-old0"}, {"i-old0", "i-old1", "i-old2"}} {
		w := newWorld()
		w.zombies(instances...)
		env := newEnvironment(t, w)
		began := env.Now()
		rollPool(env, workflows.RollPoolInput{})
		progress := result(t, env)
		require.Len(t, progress.Nodes, 3-len(instances))
		require.GreaterOrEqual(t, env.Now().Sub(began), 5*time.Minute)
		require.Equal(t, instances, w.terminated[3-len(instances):])
		require.Len(t, w.nodes, 3, "their group has replaced them")
		requireAsBefore(t, w, 3)
	}
}

func TestAnInstanceThatBecomesANodeTooLateIsLeftForTheNextRoll(t *testing.T) {
	w := newWorld()
	late := w.nodes[0]
	w.zombies("i-old0")
	w.fail = func(activity string) error {
		if activity == "AwaitUnblocked" && !slices.Contains(w.nodes, late) {
			w.nodes = append(w.nodes, late)
		}
		return nil
	}
	env := newEnvironment(t, w)
	rollPool(env, workflows.RollPoolInput{})
	requireKind(t, env, workflows.PoolBusy)
	require.NotContains(t, w.terminated, "i-old0", "it may have pods")
	requireAsBefore(t, w, 3)
}

func TestInstancesThatAreNoNodesHoldUpNoRemoval(t *testing.T) {
	for _, instances := range [][]string{{"i-old0"}, {"i-old0", "i-old1", "i-old2"}} {
		w := newWorld()
		w.zombies(instances...)
		env := newEnvironment(t, w)
		rollPool(env, workflows.RollPoolInput{Remove: true})
		require.Len(t, result(t, env).Nodes, 3-len(instances))
		require.Equal(t, len(instances), w.pool.Desired, "the deletion of their group ends the rest")
		require.Zero(t, w.launched)
		require.Empty(t, w.nodes)
	}
}

func TestAStopEndsTheWaitForInstancesToBecomeNodes(t *testing.T) {
	w := newWorld()
	w.zombies("i-old0", "i-old1", "i-old2")
	env := newEnvironment(t, w)
	env.RegisterDelayedCallback(func() { env.SignalWorkflow(workflows.StopName, "another version is wanted") }, time.Minute)
	rollPool(env, workflows.RollPoolInput{})
	var progress workflows.RollProgress
	require.NoError(t, env.GetWorkflowResult(&progress))
	require.Equal(t, "stopped", progress.Phase)
	require.Empty(t, w.terminated)
}
