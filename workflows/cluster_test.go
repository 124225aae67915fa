package workflows_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/workflow"

	"github.com/fairway-project/fairway/workflows"
)

var noon = time.Date(2026, time.March, 1, 12, 0, 0, 0, time.UTC)

func block(pool string, since, until time.Duration) workflows.Block {
	b := workflows.Block{Pool: pool, Reason: "test", By: "anna", Since: noon.Add(since)}
	if until > 0 {
		b.Until = noon.Add(until)
	}
	return b
}

func TestABlockHoldsForItsScopeAndItsTime(t *testing.T) {
	for rule, test := range map[string]struct {
		block workflows.Block
		at    time.Duration
		pool  string
		want  bool
	}{
		"a block of the cluster holds every pool":  {block("", 0, 0), time.Hour, "worker", true},
		"a block of a pool holds that pool":        {block("worker", 0, 0), time.Hour, "worker", true},
		"a block of a pool holds no other":         {block("worker", 0, 0), time.Hour, "master", false},
		"it holds from its first moment":           {block("", 0, 0), 0, "worker", true},
		"it does not hold before":                  {block("", time.Minute, 0), 0, "worker", false},
		"it holds until it expires":                {block("", 0, time.Hour), time.Hour - 1, "worker", true},
		"it expires by itself, whoever is running": {block("", 0, time.Hour), time.Hour, "worker", false},
	} {
		t.Run(rule, func(t *testing.T) {
			require.Equal(t, test.want, test.block.Holds(noon.Add(test.at), test.pool))
		})
	}
}

func TestBlockedTimeIsCountedOnce(t *testing.T) {
	state := workflows.ClusterState{
		Ended:  []workflows.Block{block("", -2*time.Hour, time.Hour), block("worker", 30*time.Minute, 2*time.Hour), block("master", 0, 9*time.Hour)},
		Blocks: []workflows.Block{block("", 5*time.Hour, 0), block("", 5*time.Hour+time.Minute, 6*time.Hour)},
	}
	for _, test := range []struct {
		pool           string
		from, to, want time.Duration
	}{
		{"worker", 0, 4 * time.Hour, 2 * time.Hour},                       // two that overlap, one begun before
		{"worker", 0, 7 * time.Hour, 4 * time.Hour},                       // and one that still holds
		{"worker", 90 * time.Minute, 100 * time.Minute, 10 * time.Minute}, // wholly inside
		{"worker", 3 * time.Hour, 4 * time.Hour, 0},
		{"other", 0, 4 * time.Hour, time.Hour},
		{"master", 0, 9 * time.Hour, 9 * time.Hour},
	} {
		require.Equal(t, test.want, state.BlockedBetween(noon.Add(test.from), noon.Add(test.to), test.pool), "%+v", test)
	}
}

func TestARefusalNamesEveryBlock(t *testing.T) {
	state := workflows.ClusterState{Cluster: "dev-1", Blocks: []workflows.Block{block("", 0, 0), block("worker", 0, time.Hour)}}
	require.NoError(t, workflows.ClusterState{}.Refuse(noon, "worker"))
	var refusal *temporal.ApplicationError
	require.ErrorAs(t, state.Refuse(noon, "worker"), &refusal)
	require.Equal(t, workflows.Blocked, refusal.Type())
	require.False(t, refusal.NonRetryable(), "whoever waits goes on when the block is gone")
	require.Equal(t, "cluster dev-1 is blocked by anna: test; and blocked by anna: test (until 2026-03-01T13:00:00Z)", refusal.Message())
}

func TestBlocksComeAndGoBySignalAndByUpdate(t *testing.T) {
	var suite testsuite.WorkflowTestSuite
	env := suite.NewTestWorkflowEnvironment()
	env.SetStartTime(noon)
	state := func() (s workflows.ClusterState) {
		answer, err := env.QueryWorkflow(workflows.StateQuery)
		require.NoError(t, err)
		require.NoError(t, answer.Get(&s))
		return s
	}
	update := func(name string, in any, accepted func(), rejected func(error)) {
		env.UpdateWorkflow(name, "", &testsuite.TestUpdateCallback{
			OnAccept:   accepted,
			OnReject:   rejected,
			OnComplete: func(any, error) {},
		}, in)
	}
	none := func() { t.Error("accepted") }
	never := func(err error) { t.Error(err) }

	env.RegisterDelayedCallback(func() {
		update(workflows.BlockName, workflows.BlockRequest{Reason: "incident", By: "anna"}, func() {}, never)
		update(workflows.BlockName, workflows.BlockRequest{Reason: " "}, none, func(err error) { require.ErrorContains(t, err, "a block needs a reason") })
		update(workflows.BlockName, workflows.BlockRequest{Reason: "x", For: "soon"}, none, func(err error) { require.ErrorContains(t, err, `for is "soon"`) })
	}, time.Minute)
	env.RegisterDelayedCallback(func() {
		require.Equal(t, []workflows.Block{{ID: "block-1", Reason: "incident", By: "anna", Since: noon.Add(time.Minute)}}, state().Blocks)
		env.SignalWorkflow(workflows.BlockName, workflows.BlockRequest{Pool: "worker", Reason: "by hand", For: "1h"})
	}, 2*time.Minute)
	env.RegisterDelayedCallback(func() {
		require.Len(t, state().Blocks, 2)
		update(workflows.UnblockName, workflows.UnblockRequest{ID: "block-9"}, none, func(err error) { require.ErrorContains(t, err, `no block "block-9"`) })
		update(workflows.UnblockName, workflows.UnblockRequest{ID: "block-1"}, func() {}, never)
	}, 3*time.Minute)
	env.RegisterDelayedCallback(func() {
		require.Len(t, state().Holding(noon.Add(4*time.Minute), "worker"), 1)
		require.Empty(t, state().Holding(noon.Add(4*time.Minute), "master"))
		env.SignalWorkflow(workflows.BlockName, workflows.BlockRequest{}) // by hand, and without a reason
	}, 4*time.Minute)
	env.RegisterDelayedCallback(func() {
		require.Len(t, state().Holding(noon.Add(5*time.Minute), "master"), 1, "better to stop than to guess")
		env.SignalWorkflow(workflows.UnblockName, workflows.UnblockRequest{})
	}, 5*time.Minute)
	env.RegisterDelayedCallback(func() {
		require.Empty(t, state().Blocks)
		require.Len(t, state().Ended, 3)
		require.Equal(t, 5*time.Minute-time.Minute, state().BlockedBetween(noon, noon.Add(time.Hour), "worker"))
		env.CancelWorkflow()
	}, 6*time.Minute)
	env.ExecuteWorkflow(workflows.Cluster, workflows.ClusterState{Cluster: "dev-1"})
	require.True(t, env.IsWorkflowCompleted())
}

func TestALongRunOfAnActorHandsEverythingToTheNext(t *testing.T) {
	var suite testsuite.WorkflowTestSuite
	env := suite.NewTestWorkflowEnvironment()
	env.SetStartTime(noon)
	env.SetCurrentHistoryLength(3000)
	env.RegisterDelayedCallback(func() {
		env.SignalWorkflow(workflows.BlockName, workflows.BlockRequest{Reason: "incident", By: "anna"})
		env.SignalWorkflow(workflows.BlockName, workflows.BlockRequest{Reason: "another", By: "ben"})
	}, 0)
	env.ExecuteWorkflow(workflows.Cluster, workflows.ClusterState{Cluster: "dev-1", Given: 7})
	var next *workflow.ContinueAsNewError
	require.ErrorAs(t, env.GetWorkflowError(), &next)
	require.Equal(t, "Cluster", next.WorkflowType.Name)
}

func TestOrdersAboutForcingPods(t *testing.T) {
	var suite testsuite.WorkflowTestSuite
	env := suite.NewTestWorkflowEnvironment()
	env.SetStartTime(noon)
	orders := func() (texts []string) {
		answer, err := env.QueryWorkflow(workflows.StateQuery)
		require.NoError(t, err)
		var state workflows.ClusterState
		require.NoError(t, answer.Get(&state))
		for _, o := range state.Orders {
			texts = append(texts, strings.TrimSpace(o.Node+" "+o.Pod)+" "+string(o.Mode)+" "+o.By)
		}
		return texts
	}
	node := func(pod string, mode workflows.ForceMode) workflows.ForceRequest {
		return workflows.ForceRequest{Node: "n1", Pod: pod, Mode: mode, Reason: "incident", By: "anna"}
	}
	at := func(minute int, do func()) { env.RegisterDelayedCallback(do, time.Duration(minute)*time.Minute) }
	at(1, func() {
		for _, refused := range []workflows.ForceRequest{
			{Mode: workflows.ForceNow, Reason: "x"}, {Node: "n1", Mode: "soon", Reason: "x"},
			{Node: "n1", Mode: workflows.ForceNow, Reason: " "}, {Node: "n1", Pod: "cart-0", Mode: workflows.ForceNow, Reason: "x"},
		} {
			env.UpdateWorkflow(workflows.ForceName, "", &testsuite.TestUpdateCallback{
				OnAccept: func() { t.Error("accepted") }, OnReject: func(error) {}, OnComplete: func(any, error) {},
			}, refused)
			env.SignalWorkflow(workflows.ForceName, refused)
		}
		env.SignalWorkflow(workflows.ForceName, node("", workflows.ForceForbid))
		env.UpdateWorkflowNoRejection(workflows.ForceName, "", t, node("shop/cart-0", workflows.ForceNow))
	})
	at(2, func() {
		require.ElementsMatch(t, []string{"n1 forbid anna", "n1 shop/cart-0 now anna"}, orders())
		env.UpdateWorkflowNoRejection(workflows.ForceName, "", t, node("shop/cart-0", workflows.ForceByRule))
	})
	at(3, func() {
		require.ElementsMatch(t, []string{"n1 forbid anna", "n1 shop/cart-0 rule anna"}, orders(), "the rule holds for this pod")
		env.SignalWorkflow(workflows.ForceName, node("", workflows.ForceByRule))
	})
	at(4, func() {
		require.Empty(t, orders(), "an order about the node takes the place of those about its pods")
		env.SignalWorkflow(workflows.ForceName, node("", workflows.ForceNow))
	})
	at(31*24*60, func() {
		env.SignalWorkflow(workflows.BlockName, workflows.BlockRequest{Reason: "x"})
	})
	at(31*24*60+1, func() {
		require.Empty(t, orders(), "orders are forgotten with the drains that they were about")
		env.CancelWorkflow()
	})
	env.ExecuteWorkflow(workflows.Cluster, workflows.ClusterState{Cluster: "dev-1"})
}
