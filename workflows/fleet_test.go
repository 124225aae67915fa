package workflows_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"

	"github.com/fairway-project/fairway/roll"
	"github.com/fairway-project/fairway/workflows"
)

func TestATurnHasRoomWithinAllLimits(t *testing.T) {
	turn := func(holder, account, region string, nodes int) workflows.Turn {
		return workflows.Turn{AwaitTurn: workflows.AwaitTurn{Holder: holder, Account: account, Region: region, Nodes: nodes}}
	}
	for rule, c := range map[string]struct {
		taken  []workflows.Turn
		want   int
		limits roll.Limits
		refuse string
	}{
		"no limit":                  {taken: []workflows.Turn{turn("x", "1", "eu", 99)}, want: 99},
		"up to the limit":           {[]workflows.Turn{turn("x", "1", "eu", 3)}, 2, roll.Limits{Fleet: 5, Account: 5, Region: 5}, ""},
		"not over the fleet's":      {[]workflows.Turn{turn("x", "2", "us", 4)}, 2, roll.Limits{Fleet: 5}, "4 nodes of the fleet are being replaced, and the limit is 5"},
		"not over the account's":    {[]workflows.Turn{turn("x", "1", "us", 4)}, 2, roll.Limits{Account: 5}, "4 nodes of account 1"},
		"other accounts do not":     {[]workflows.Turn{turn("x", "2", "eu", 4)}, 2, roll.Limits{Account: 5}, ""},
		"not over the region's":     {[]workflows.Turn{turn("x", "2", "eu", 4)}, 2, roll.Limits{Region: 5}, "4 nodes of region eu"},
		"other regions do not":      {[]workflows.Turn{turn("x", "1", "us", 4)}, 2, roll.Limits{Region: 5}, ""},
		"one's own turn is renewed": {[]workflows.Turn{turn("me", "1", "eu", 5)}, 5, roll.Limits{Fleet: 5}, ""},
		"more than a limit, alone":  {nil, 9, roll.Limits{Fleet: 5}, ""},
		"more than a limit, later":  {[]workflows.Turn{turn("x", "1", "eu", 1)}, 9, roll.Limits{Fleet: 5}, "1 nodes of the fleet"},
	} {
		t.Run(rule, func(t *testing.T) {
			err := workflows.FleetState{Turns: c.taken}.Room(workflows.AwaitTurn{Holder: "me", Account: "1", Region: "eu", Nodes: c.want, Limits: c.limits})
			if c.refuse == "" {
				require.NoError(t, err)
				return
			}
			var application *temporal.ApplicationError
			require.ErrorAs(t, err, &application)
			require.Equal(t, workflows.NoTurn, application.Type())
			require.ErrorContains(t, err, c.refuse)
		})
	}
}

func TestTurnsAreTakenAndGivenBack(t *testing.T) {
	var suite testsuite.WorkflowTestSuite
	env := suite.NewTestWorkflowEnvironment()
	env.RegisterWorkflow(workflows.Fleet)
	state := func() (state workflows.FleetState) {
		answer, err := env.QueryWorkflow(workflows.StateQuery)
		require.NoError(t, err)
		require.NoError(t, answer.Get(&state))
		return state
	}
	update := func(name string, argument any) { env.UpdateWorkflowNoRejection(name, "", t, argument) }
	one := workflows.AwaitTurn{Holder: "one", Nodes: 2, Limits: roll.Limits{Fleet: 2}}
	two := workflows.AwaitTurn{Holder: "two", Nodes: 1, Limits: roll.Limits{Fleet: 2}}
	var refused error
	at := func(step int, do func()) { env.RegisterDelayedCallback(do, time.Duration(step)*time.Second) }
	at(1, func() { update(workflows.TakeTurn, one) })
	at(2, func() {
		require.Len(t, state().Turns, 1)
		env.UpdateWorkflow(workflows.TakeTurn, "", &testsuite.TestUpdateCallback{
			OnReject: func(err error) { refused = err }, OnAccept: func() {}, OnComplete: func(any, error) {},
		}, two)
	})
	at(3, func() { update(workflows.ReturnTurn, "one") })
	at(4, func() { require.Empty(t, state().Turns) })
	at(5, func() { update(workflows.TakeTurn, two) })
	at(6, func() {
		require.Equal(t, "two", state().Turns[0].Holder)
		env.CancelWorkflow()
	})
	env.ExecuteWorkflow(workflows.Fleet, workflows.FleetState{})
	require.ErrorContains(t, refused, "the limit is 2")
}

func TestClustersAndNodesAreCountedApart(t *testing.T) {
	cluster := func(holder string) workflows.AwaitTurn {
		return workflows.AwaitTurn{Holder: holder, Account: "1", Region: "eu", Nodes: 1, Clusters: true, Limits: roll.Limits{Fleet: 9, Account: 2}}
	}
	nodes := workflows.AwaitTurn{Holder: "pool", Account: "1", Region: "eu", Nodes: 2, Limits: roll.Limits{Account: 2}}
	state := workflows.FleetState{Turns: []workflows.Turn{{AwaitTurn: cluster("a")}, {AwaitTurn: nodes}}}
	require.NoError(t, state.Room(cluster("b")), "two nodes are no clusters")
	require.ErrorContains(t, state.Room(workflows.AwaitTurn{Holder: "x", Account: "1", Nodes: 1, Limits: nodes.Limits}), "2 nodes of account 1 are being replaced, and the limit is 2")
	state.Turns = append(state.Turns, workflows.Turn{AwaitTurn: cluster("b")})
	require.ErrorContains(t, state.Room(cluster("c")), "2 clusters of account 1 are being updated, and the limit is 2")
	require.NoError(t, state.Room(cluster("b")))
}

func TestBlocksOfTheFleetComeAndGo(t *testing.T) {
	var suite testsuite.WorkflowTestSuite
	env := suite.NewTestWorkflowEnvironment()
	env.SetStartTime(noon)
	blocks := func() (b workflows.ScopeBlocks) {
		answer, err := env.QueryWorkflow(workflows.BlocksQuery)
		require.NoError(t, err)
		require.NoError(t, answer.Get(&b))
		return b
	}
	refused := func(name string, request any, text string) {
		env.UpdateWorkflow(name, "", &testsuite.TestUpdateCallback{
			OnAccept: func() { t.Error("accepted") }, OnReject: func(err error) { require.ErrorContains(t, err, text) }, OnComplete: func(any, error) {},
		}, request)
	}
	at := func(minute int, do func()) { env.RegisterDelayedCallback(do, time.Duration(minute)*time.Minute) }
	at(1, func() {
		refused(workflows.BlockName, workflows.BlockRequest{}, "a block needs a reason")
		refused(workflows.UnblockName, workflows.UnblockRequest{ID: "block-7"}, `the fleet has no block "block-7"`)
		env.UpdateWorkflowNoRejection(workflows.BlockName, "", t, workflows.BlockRequest{Reason: "black friday", By: "anna", For: "10m"})
		env.SignalWorkflow(workflows.BlockName, workflows.BlockRequest{Pool: "worker"}) // by hand, without a reason
	})
	at(2, func() {
		holding := blocks().At(noon.Add(2*time.Minute), "master")
		require.Len(t, holding, 2, "what was not understood blocks all")
		require.Equal(t, "blocked by anna (fleet): black friday (until 2026-03-01T12:11:00Z)", holding[0].String())
		require.Len(t, blocks().At(noon.Add(12*time.Minute), "master"), 1, "it expires by itself")
		env.UpdateWorkflowNoRejection(workflows.UnblockName, "", t, workflows.UnblockRequest{ID: "block-2"})
	})
	at(3, func() {
		require.Len(t, blocks().Ended, 1)
		env.SignalWorkflow(workflows.UnblockName, workflows.UnblockRequest{})
	})
	at(4, func() {
		require.Empty(t, blocks().Holding)
		require.Len(t, blocks().Ended, 2)
		env.CancelWorkflow()
	})
	env.ExecuteWorkflow(workflows.Fleet, workflows.FleetState{})
}
