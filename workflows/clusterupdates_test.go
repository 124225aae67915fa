package workflows_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/mock"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/workflow"

	"github.com/fairway-project/fairway/registry"
	"github.com/fairway-project/fairway/rollout"
	"github.com/fairway-project/fairway/workflows"
)

// updates stand in for UpdateCluster: each lasts an hour, or until it is superseded, and ends as told.
type updates struct {
	mu      sync.Mutex
	t       *testing.T
	env     *testsuite.TestWorkflowEnvironment
	started []string
	inputs  []workflows.UpdateClusterInput
	reports []string
	// end says how an update ends that nobody supersedes; nil means done.
	end func(in workflows.UpdateClusterInput, progress *workflows.UpdateProgress)
	// silent makes updates end without a word.
	silent bool
	// linger is the time from the word to the end.
	linger time.Duration
}

func newUpdates(t *testing.T, register ...func(*updates)) *updates {
	t.Helper()
	var suite testsuite.WorkflowTestSuite
	u := &updates{t: t, env: suite.NewTestWorkflowEnvironment()}
	u.env.SetTestTimeout(30 * time.Second)
	u.env.SetStartTime(noon)
	u.env.RegisterWorkflow(workflows.Cluster)
	u.env.RegisterWorkflowWithOptions(u.run, workflow.RegisterOptions{Name: "UpdateCluster"})
	for _, r := range register { // nothing can be registered any more once there is a mock
		r(u)
	}
	u.env.SetStartWorkflowOptions(client.StartWorkflowOptions{ID: workflows.ClusterID("dev-1"), TaskQueue: "test"})
	u.env.OnSignalExternalWorkflow(mock.Anything, "channel/dev", "", workflows.ReportName, mock.Anything).Maybe().Return(
		func(_, _, _, _ string, report any) error {
			u.mu.Lock()
			defer u.mu.Unlock()
			r := report.(workflows.ClusterReport)
			text := fmt.Sprintf("%s %s", r.Version[:1], r.State)
			if r.Held {
				text += " held"
			}
			if r.Broken != "" {
				text += " broken"
			}
			u.reports = append(u.reports, text)
			return nil
		})
	return u
}

func (u *updates) run(ctx workflow.Context, in workflows.UpdateClusterInput) (workflows.UpdateProgress, error) {
	u.mu.Lock()
	u.started = append(u.started, fmt.Sprintf("%s %s after %s", in.Kind, in.Version[:1], workflow.Now(ctx).Sub(noon)))
	u.inputs = append(u.inputs, in)
	u.mu.Unlock()
	progress := workflows.UpdateProgress{
		Kind: in.Kind, Version: in.Version, From: in.From, By: in.By, Phase: "done", Started: workflow.Now(ctx), Changed: true, Added: in.Added, Steps: []workflows.UpdateStep{{Name: "one"}},
		RetryAfter: 10 * time.Minute, RetryAtMost: 35 * time.Minute,
	}
	var instead string
	superseded, _ := workflow.GetSignalChannel(ctx, workflows.SupersedeName).ReceiveWithTimeout(ctx, time.Hour, &instead)
	progress.Ended = workflow.Now(ctx)
	if u.silent {
		return progress, temporal.NewNonRetryableApplicationError("terminated", "Terminated", nil)
	}
	if superseded {
		progress.Phase, progress.Superseded = "superseded", instead
	} else if u.end != nil {
		u.end(in, &progress)
	}
	info := workflow.GetInfo(ctx).WorkflowExecution
	for range 2 { // said twice, as messages may be
		_ = workflow.SignalExternalWorkflow(ctx, workflows.ClusterID(in.Cluster), "", workflows.UpdatedName,
			workflows.UpdateOutcome{UpdateProgress: progress, Workflow: info.ID, Run: info.RunID}).Get(ctx, nil)
	}
	return progress, workflow.Sleep(ctx, u.linger)
}

func (u *updates) at(after time.Duration, do func()) { u.env.RegisterDelayedCallback(do, after) }

// want tells the actor what the cluster is to be like.
func (u *updates) want(version string, change ...func(*workflows.Want)) func() {
	want := workflows.Want{Cluster: "dev-1", Channel: "dev", Version: version, Lifecycle: registry.Ready, Current: v1}
	for _, c := range change {
		c(&want)
	}
	return func() { u.env.SignalWorkflow(workflows.WantName, want) }
}

func hold(w *workflows.Want) { w.Hold = true }

func lifecycle(status registry.LifecycleStatus) func(*workflows.Want) {
	return func(w *workflows.Want) {
		if w.Lifecycle = status; status == registry.Requested {
			w.Current = ""
		}
	}
}

func blocked(w *workflows.Want) { w.Block = "migration" }

func (u *updates) state() workflows.ClusterState {
	answer, err := u.env.QueryWorkflow(workflows.StateQuery)
	require.NoError(u.t, err)
	var state workflows.ClusterState
	require.NoError(u.t, answer.Get(&state))
	return state
}

// ask sends an update of the actor; it has to be accepted.
func (u *updates) ask(name string, request any) func() {
	return func() { u.env.UpdateWorkflowNoRejection(name, "", u.t, request) }
}

// refused sends an update of the actor that has to be refused.
func (u *updates) refused(name string, request any, why string) func() {
	return func() {
		u.env.UpdateWorkflow(name, "", &testsuite.TestUpdateCallback{
			OnAccept: func() { u.t.Errorf("accepted %+v", request) }, OnComplete: func(any, error) {},
			OnReject: func(err error) { require.ErrorContains(u.t, err, why) },
		}, request)
	}
}

// live runs the actor for a time, and returns what it knows then.
func (u *updates) live(lasts time.Duration) (state workflows.ClusterState) {
	u.at(lasts, func() {
		state = u.state()
		u.env.CancelWorkflow()
	})
	u.env.ExecuteWorkflow(workflows.Cluster, workflows.ClusterState{Cluster: "dev-1"})
	require.True(u.t, u.env.IsWorkflowCompleted())
	return state
}

func TestAClusterFollowsWhatIsWanted(t *testing.T) {
	u := newUpdates(t)
	u.at(time.Minute, u.want(v2))
	u.at(3*time.Hour, u.want(v2)) // said again
	state := u.live(4 * time.Hour)
	require.Equal(t, []string{"update 2 after 1m0s"}, u.started)
	require.Equal(t, workflows.UpdateClusterInput{Cluster: "dev-1", Kind: workflows.Upgrade, Version: v2, From: v1, Attempt: 1}, u.inputs[0])
	require.Equal(t, []string{v2, v1}, []string{state.Updates.Current, state.Updates.Last})
	require.Nil(t, state.Updates.Running)
	require.Len(t, state.Updates.History, 1, "an end that is told twice is one end")
	require.Equal(t, []string{"2 allowed", "2 updating", "2 done", "2 done"}, u.reports, "every want is answered")
}

func TestOfTwoWantsInQuickSuccessionTheNewestWins(t *testing.T) {
	u := newUpdates(t)
	u.at(time.Minute, u.want(v2))
	u.at(2*time.Minute, u.want(v3))
	state := u.live(4 * time.Hour)
	require.Equal(t, []string{"update 2 after 1m0s", "update 3 after 2m0s"}, u.started)
	require.Equal(t, "superseded", state.Updates.History[0].Phase)
	require.Equal(t, []string{v3, v1}, []string{state.Updates.Current, state.Updates.Last})
	require.False(t, u.inputs[1].Fix, "what was superseded has broken nothing, so the cluster has to be well")
	require.Equal(t, v1, u.inputs[1].From)
	require.Empty(t, state.Updates.Mixed)
}

func TestTheNextUpdateBeginsWhenTheLastOneHasReallyEnded(t *testing.T) {
	u := newUpdates(t)
	u.linger = 10 * time.Second
	u.at(0, u.want(v2))
	u.at(time.Minute, u.want(v3))
	state := u.live(4 * time.Hour)
	require.Equal(t, []string{"update 2 after 0s", "update 3 after 1m10s"}, u.started)
	require.Equal(t, v3, state.Updates.Current)
}

func TestAWantThatGoesBackToWhatWasThereIsAnUpdateToo(t *testing.T) {
	u := newUpdates(t)
	u.at(time.Minute, u.want(v2))
	u.at(2*time.Minute, u.want(v1))
	state := u.live(4 * time.Hour)
	require.Equal(t, []string{"update 2 after 1m0s", "update 1 after 2m0s"}, u.started)
	require.Equal(t, v1, state.Updates.Current)
}

func TestAFailingVersionIsTriedAgainLaterAndLaterAndANewOneAtOnce(t *testing.T) {
	u := newUpdates(t)
	u.end = func(in workflows.UpdateClusterInput, p *workflows.UpdateProgress) {
		if in.Version == v2 {
			p.Phase, p.Problems = "failed", []registry.Problem{{Type: "urn:fairway:Conflict", Title: "It broke."}}
		}
	}
	u.at(0, u.want(v2))
	u.at(5*time.Hour+10*time.Minute, func() {
		state := u.state()
		require.Equal(t, []string{v1, v2}, state.Updates.Mixed)
		require.Empty(t, state.Updates.Current)
		require.Equal(t, "It broke.", state.Updates.Failed.Problem)
		require.Equal(t, 4, state.Updates.Failed.Attempts)
		u.want(v3)()
	})
	state := u.live(10 * time.Hour)
	// An hour each, then 10, 20, 35 and again 35 minutes.
	require.Equal(t, []string{"update 2 after 0s", "update 2 after 1h10m0s", "update 2 after 2h30m0s", "update 2 after 4h5m0s", "update 3 after 5h10m0s"}, u.started)
	require.Equal(t, 3, u.inputs[2].Attempt)
	require.Equal(t, "It broke.", u.inputs[2].Problems[0].Title, "the problem stands until the attempt has ended")
	require.Equal(t, 1, u.inputs[4].Attempt)
	require.Nil(t, state.Updates.Failed)
	require.Equal(t, []string{v3, v1}, []string{state.Updates.Current, state.Updates.Last})
}

func TestThePoolsThatAnUpdateHasAddedAreHandedOnUntilTheyHaveTheirNodes(t *testing.T) {
	u := newUpdates(t)
	u.end = func(in workflows.UpdateClusterInput, p *workflows.UpdateProgress) {
		if in.Attempt == 2 && in.Version == v3 {
			return
		}
		if p.Phase = "failed"; in.Attempt == 1 {
			p.Added = append(slices.Clone(in.Added), in.Version[:1])
		}
	}
	u.at(0, u.want(v2))
	u.at(140*time.Minute, u.want(v3))
	u.at(6*time.Hour, u.want(v1))
	u.live(6*time.Hour + time.Minute)
	var handed [][]string
	for _, in := range u.inputs {
		handed = append(handed, in.Added)
	}
	require.Equal(t, [][]string{nil, {"2"}, {"2"}, {"2", "3"}, nil}, handed)
}

func TestWhatWasRolledBackOrCancelledIsNotTriedAgainUnlessSomebodyAsks(t *testing.T) {
	for name, end := range map[string]func(*workflows.UpdateProgress){
		"rolled back": func(p *workflows.UpdateProgress) { p.Phase, p.Restored = "failed", true },
		"cancelled":   func(p *workflows.UpdateProgress) { p.Phase, p.Changed = "cancelled", false },
	} {
		t.Run(name, func(t *testing.T) {
			u := newUpdates(t)
			u.end = func(_ workflows.UpdateClusterInput, p *workflows.UpdateProgress) { end(p) }
			u.at(0, u.want(v2))
			u.at(48*time.Hour, func() {
				require.Equal(t, v1, u.state().Updates.Current)
				u.ask(workflows.UpdateName, workflows.UpdateRequest{Reason: "mended outside", By: "anna"})()
			})
			u.live(72 * time.Hour)
			require.Equal(t, []string{"update 2 after 0s", "update 2 after 48h0m0s"}, u.started)
			require.Equal(t, "anna", u.inputs[1].By)
			require.Equal(t, "2 failed", u.reports[len(u.reports)-1])
		})
	}
}

func TestAnUpdateBeginsWhenTheLastBlockEnds(t *testing.T) {
	u := newUpdates(t)
	u.at(0, u.ask(workflows.BlockName, workflows.BlockRequest{Reason: "incident", For: "1h"}))
	u.at(0, u.ask(workflows.BlockName, workflows.BlockRequest{Reason: "another", For: "3h"}))
	u.at(0, u.ask(workflows.BlockName, workflows.BlockRequest{Pool: "worker", Reason: "only a pool, which its roll asks for"}))
	u.at(time.Minute, u.want(v2))
	u.live(5 * time.Hour)
	require.Equal(t, []string{"update 2 after 3h0m0s"}, u.started)
	require.Equal(t, []string{"2 allowed held", "2 allowed", "2 updating", "2 done"}, u.reports)

	u = newUpdates(t)
	u.at(0, u.ask(workflows.BlockName, workflows.BlockRequest{Reason: "incident"}))
	u.at(time.Minute, u.want(v2))
	u.at(72*time.Hour, u.ask(workflows.UnblockName, workflows.UnblockRequest{}))
	u.live(74 * time.Hour)
	require.Equal(t, []string{"update 2 after 72h0m0s"}, u.started)
}

func TestTheBlockOfARegistryEntryHoldsUntilItIsGoneThere(t *testing.T) {
	u := newUpdates(t)
	u.at(0, u.want(v2, blocked))
	u.at(time.Hour, func() {
		require.Equal(t, []workflows.Block{{ID: "registry", Scope: "registry", Reason: "migration", By: "cluster_update_block", Since: noon}}, u.state().Blocks)
		u.refused(workflows.UnblockName, workflows.UnblockRequest{ID: "registry"}, "remove the config item cluster_update_block")()
		u.ask(workflows.UnblockName, workflows.UnblockRequest{})()
	})
	u.at(2*time.Hour, func() {
		require.Len(t, u.state().Blocks, 1)
		u.want(v2, blocked)()
	})
	u.at(3*time.Hour, u.want(v2))
	state := u.live(5 * time.Hour)
	require.Equal(t, []string{"update 2 after 3h0m0s"}, u.started)
	require.Len(t, state.Ended, 1)
}

func TestAHeldVersionWaitsForTheChannelOrForAPerson(t *testing.T) {
	u := newUpdates(t)
	u.at(0, u.want(v2, hold))
	u.at(2*time.Hour, u.want(v2))
	u.at(150*time.Minute, u.want(v3, hold)) // in the middle of the update
	u.at(6*time.Hour, u.refused(workflows.UpdateName, workflows.UpdateRequest{Reason: " "}, "needs a reason"))
	u.at(7*time.Hour, u.ask(workflows.UpdateName, workflows.UpdateRequest{Reason: "wanted at once", Fix: true}))
	state := u.live(9 * time.Hour)
	require.Equal(t, []string{"update 2 after 2h0m0s", "update 3 after 7h0m0s"}, u.started)
	require.True(t, u.inputs[1].Fix)
	require.Equal(t, v3, state.Updates.Current)
	require.Equal(t, []string{"2 waiting", "2 allowed", "2 updating", "3 waiting", "3 waiting", "3 updating", "3 done"}, u.reports)
}

func TestAPersonGoesBackAndStaysThereUntilAnotherVersionIsWanted(t *testing.T) {
	u := newUpdates(t)
	u.at(0, u.want(v2))
	u.at(2*time.Hour, func() {
		u.refused(workflows.RollbackName, workflows.RollbackRequest{Reason: " "}, "needs a reason")()
		u.refused(workflows.RollbackName, workflows.RollbackRequest{Reason: "x", Version: v3}, "has not had version "+v3)()
		u.refused(workflows.RollbackName, workflows.RollbackRequest{Reason: "x", Version: v2}, "has version "+v2)()
		u.ask(workflows.RollbackName, workflows.RollbackRequest{Reason: "it is slow", By: "anna"})()
	})
	u.at(4*time.Hour, u.want(v2))
	u.at(6*time.Hour, func() {
		require.Equal(t, []string{v1, v2}, []string{u.state().Updates.Current, u.state().Updates.Last})
		u.want(v3, hold)()
	})
	u.at(8*time.Hour, u.want(v3))
	state := u.live(10 * time.Hour)
	require.Equal(t, []string{"update 2 after 0s", "rollback 1 after 2h0m0s", "update 3 after 8h0m0s"}, u.started)
	require.Equal(t, "anna", u.inputs[1].By)
	require.Nil(t, state.Updates.Pinned)
	require.Contains(t, u.reports, "2 failed", "a version that a person went back from is none for others")
}

func TestARollbackEndsTheUpdateThatIsUnderWay(t *testing.T) {
	u := newUpdates(t)
	u.at(0, u.want(v2))
	u.at(30*time.Minute, u.ask(workflows.RollbackName, workflows.RollbackRequest{Reason: "it is slow"}))
	state := u.live(10 * time.Hour)
	require.Equal(t, []string{"update 2 after 0s", "rollback 1 after 30m0s"}, u.started)
	require.Equal(t, v1, state.Updates.Current)
	require.Equal(t, v2, state.Updates.Pinned.Not)
}

func TestAClusterThatWasAskedForIsBuiltAndOneThatIsToGoIsTakenDown(t *testing.T) {
	u := newUpdates(t)
	u.at(0, u.want(v1, lifecycle(registry.Requested)))
	u.at(2*time.Hour, u.want(v2, lifecycle(registry.Requested))) // as read before the end was written
	u.at(150*time.Minute, u.want(v2, lifecycle(registry.DecommissionRequested)))
	u.at(4*time.Hour, u.want(v3, lifecycle(registry.DecommissionRequested)))
	u.at(5*time.Hour, func() {
		u.want(v3, lifecycle(registry.Decommissioned))()
		u.refused(workflows.RollbackName, workflows.RollbackRequest{Reason: "x"}, "is decommissioned")()
		u.refused(workflows.UpdateName, workflows.UpdateRequest{Reason: "x"}, "is decommissioned")()
	})
	state := u.live(10 * time.Hour)
	require.Equal(t, []string{"provision 1 after 0s", "update 2 after 2h0m0s", "decommission 2 after 2h30m0s"}, u.started)
	require.Empty(t, u.inputs[0].From)
	require.Empty(t, state.Updates.Current)
	require.Equal(t, v1, state.Updates.Last)
}

func TestAnUpdateThatEndsWithoutAWordIsTriedAgain(t *testing.T) {
	u := newUpdates(t)
	u.silent = true
	u.at(0, u.want(v2, func(w *workflows.Want) { w.RetryAfter = 20 * time.Minute }))
	u.at(70*time.Minute, func() {
		require.Contains(t, u.state().Updates.Failed.Problem, "ended from outside")
		u.mu.Lock()
		u.silent = false
		u.mu.Unlock()
	})
	state := u.live(3 * time.Hour)
	require.Equal(t, []string{"update 2 after 0s", "update 2 after 1h20m0s"}, u.started)
	require.Equal(t, v2, state.Updates.Current)
}

func TestTheEndOfAnotherUpdateIsNoEndOfTheRunningOne(t *testing.T) {
	u := newUpdates(t)
	u.at(0, u.want(v2))
	u.at(time.Minute, func() {
		u.env.SignalWorkflow(workflows.UpdatedName, workflows.UpdateOutcome{Run: "another", UpdateProgress: workflows.UpdateProgress{Version: v2, Phase: "failed"}})
	})
	u.at(2*time.Minute, func() { require.NotNil(t, u.state().Updates.Running) })
	u.live(2 * time.Hour)
	require.Equal(t, []string{"update 2 after 0s"}, u.started)
}

func TestAnUpdateThatTheActorDoesNotKnowIsEndedFirst(t *testing.T) {
	u := newUpdates(t, func(u *updates) {
		u.env.RegisterWorkflowWithOptions(func(ctx workflow.Context) error {
			workflow.ExecuteChildWorkflow(workflow.WithChildOptions(ctx, workflow.ChildWorkflowOptions{WorkflowID: "cluster/dev-1/update"}), "UpdateCluster",
				workflows.UpdateClusterInput{Cluster: "dev-1", Kind: workflows.Upgrade, Version: v3, From: v1})
			actor := workflow.ExecuteChildWorkflow(workflow.WithChildOptions(ctx, workflow.ChildWorkflowOptions{WorkflowID: "cluster/dev-1"}), workflows.Cluster, workflows.ClusterState{Cluster: "dev-1"})
			_ = workflow.Sleep(ctx, 10*time.Minute)
			_ = actor.SignalChildWorkflow(ctx, workflows.WantName, workflows.Want{Cluster: "dev-1", Channel: "dev", Version: v2, Current: v1, Lifecycle: registry.Ready}).Get(ctx, nil)
			return workflow.Sleep(ctx, 3*time.Hour)
		}, workflow.RegisterOptions{Name: "both"})
	})
	u.env.SetStartWorkflowOptions(client.StartWorkflowOptions{ID: "both", TaskQueue: "test"})
	u.env.ExecuteWorkflow("both")
	require.Equal(t, []string{"update 3 after 0s", "update 2 after 10m15s"}, u.started, "one that is about to end gets a moment, another one is told to")
	require.Equal(t, "2 done", u.reports[len(u.reports)-1])
}

func TestANewRunOfTheActorKnowsAllAboutItsUpdates(t *testing.T) {
	u := newUpdates(t)
	u.at(0, u.want(v2))
	u.at(time.Minute, func() {
		u.env.SetCurrentHistoryLength(3000)
		u.want(v2)()
	})
	u.env.ExecuteWorkflow(workflows.Cluster, workflows.ClusterState{Cluster: "dev-1"})
	var next *workflow.ContinueAsNewError
	require.ErrorAs(t, u.env.GetWorkflowError(), &next)
	var state workflows.ClusterState
	require.NoError(t, converter.GetDefaultDataConverter().FromPayloads(next.Input, &state))
	require.Equal(t, v2, state.Updates.Running.Version)
	require.NotEmpty(t, state.Updates.Running.Run)
	require.Equal(t, v2, state.Updates.Want.Version)

	// The next run hears from an update that the first one has started.
	second := newUpdates(t)
	second.at(time.Minute, func() {
		second.env.SignalWorkflow(workflows.UpdatedName, workflows.UpdateOutcome{Run: state.Updates.Running.Run, UpdateProgress: workflows.UpdateProgress{
			Kind: workflows.Upgrade, Version: v2, From: v1, Phase: "done", Changed: true,
		}})
	})
	second.at(time.Hour, func() {
		state = second.state()
		second.env.CancelWorkflow()
	})
	second.env.ExecuteWorkflow(workflows.Cluster, state)
	require.Empty(t, second.started)
	require.Equal(t, v2, state.Updates.Current)
}

func TestAnActorThatWasMadeAnewLearnsThatItsClusterIsBetweenTwoVersions(t *testing.T) {
	u := newUpdates(t)
	u.at(0, u.want(v2, func(w *workflows.Want) { w.Current, w.Between = "", v1 }))
	state := u.live(2 * time.Hour)
	require.Equal(t, v1, u.inputs[0].From, "the registry keeps it, and it can be gone back to")
	require.True(t, u.inputs[0].Fix)
	require.Equal(t, []string{v2, v1}, []string{state.Updates.Current, state.Updates.Last})
}

func TestANonsensicalWantIsLeftOut(t *testing.T) {
	u := newUpdates(t)
	u.at(0, u.want("", hold))
	u.at(0, u.want(v2, func(w *workflows.Want) { w.Cluster = "another" }))
	require.Nil(t, u.live(time.Hour).Updates.Want)
}

func TestWhereAClusterStands(t *testing.T) {
	want := func(version string, change func(*workflows.ClusterUpdates)) workflows.ClusterUpdates {
		u := workflows.ClusterUpdates{Want: &workflows.Want{Version: version, Lifecycle: registry.Ready}, Current: v1}
		change(&u)
		return u
	}
	for rule, test := range map[string]struct {
		updates workflows.ClusterUpdates
		want    rollout.State
	}{
		"nobody wants anything":         {workflows.ClusterUpdates{}, rollout.Waiting},
		"it is on the version":          {want(v1, func(*workflows.ClusterUpdates) {}), rollout.Done},
		"it may go on":                  {want(v2, func(*workflows.ClusterUpdates) {}), rollout.Allowed},
		"it is held":                    {want(v2, func(u *workflows.ClusterUpdates) { u.Want.Hold = true }), rollout.Waiting},
		"it is on its way":              {want(v2, func(u *workflows.ClusterUpdates) { u.Running = &workflows.RunningUpdate{Version: v2} }), rollout.Updating},
		"it is on its way elsewhere":    {want(v2, func(u *workflows.ClusterUpdates) { u.Running = &workflows.RunningUpdate{Version: v3} }), rollout.Allowed},
		"it failed":                     {want(v2, func(u *workflows.ClusterUpdates) { u.Failed = &workflows.FailedUpdate{Version: v2} }), rollout.Failed},
		"another version failed":        {want(v2, func(u *workflows.ClusterUpdates) { u.Failed = &workflows.FailedUpdate{Version: v3} }), rollout.Allowed},
		"a person went back from it":    {want(v2, func(u *workflows.ClusterUpdates) { u.Pinned = &workflows.PinnedVersion{Version: v1, Not: v2} }), rollout.Failed},
		"it is gone, nobody waits more": {want(v2, func(u *workflows.ClusterUpdates) { u.Want.Lifecycle = registry.Decommissioned }), rollout.Done},
	} {
		t.Run(rule, func(t *testing.T) {
			state, _ := test.updates.Standing()
			require.Equal(t, test.want, state)
		})
	}
}

// The actor and an update together, as they are.
func TestAnActorAndItsUpdatesBringAClusterToItsVersion(t *testing.T) {
	s := newSite()
	env := s.environment(t, func(env *testsuite.TestWorkflowEnvironment) { env.RegisterWorkflow(workflows.Cluster) })
	env.SetStartWorkflowOptions(client.StartWorkflowOptions{ID: workflows.ClusterID("dev-1"), TaskQueue: "test"})
	env.OnSignalExternalWorkflow(mock.Anything, "channel/dev", "", workflows.ReportName, mock.Anything).Return(temporal.NewApplicationError("no such workflow", "NotFound"))
	env.RegisterDelayedCallback(func() {
		env.SignalWorkflow(workflows.WantName, workflows.Want{Cluster: "dev-1", Channel: "dev", Version: v2, Current: v1, Lifecycle: registry.Ready})
	}, time.Minute)
	var state workflows.ClusterState
	env.RegisterDelayedCallback(func() {
		answer, err := env.QueryWorkflow(workflows.StateQuery)
		require.NoError(t, err)
		require.NoError(t, answer.Get(&state))
		env.CancelWorkflow()
	}, time.Hour)
	env.ExecuteWorkflow(workflows.Cluster, workflows.ClusterState{Cluster: "dev-1"})
	require.Equal(t, v2, state.Updates.Current)
	require.Equal(t, "done", state.Updates.History[0].Phase)
	require.Equal(t, registry.Status{CurrentVersion: v2, LastVersion: v1}, s.last().Status)
}

func TestWhoGoesBackTwiceDoesNotGoForward(t *testing.T) {
	again := workflows.RollbackRequest{Reason: "is it through?"}
	u := newUpdates(t)
	u.at(0, u.want(v2))
	u.at(2*time.Hour, u.ask(workflows.RollbackName, workflows.RollbackRequest{Reason: "it is slow"}))
	u.at(150*time.Minute, u.refused(workflows.RollbackName, again, "goes back to version "+v1+" already"))
	u.at(4*time.Hour, u.refused(workflows.RollbackName, again, "has had no version before"))
	state := u.live(10 * time.Hour)
	require.Equal(t, []string{"update 2 after 0s", "rollback 1 after 2h0m0s"}, u.started)
	require.Equal(t, v1, state.Updates.Current)
}

func TestARollbackThatFailedIsAskedForAnewAndGoesBack(t *testing.T) {
	u := newUpdates(t)
	broken := true
	u.end = func(in workflows.UpdateClusterInput, p *workflows.UpdateProgress) {
		if in.Kind == workflows.Rollback && broken {
			broken = false
			p.Phase, p.RetryAfter = "failed", 24*time.Hour
		}
	}
	u.at(0, u.want(v2))
	u.at(2*time.Hour, u.ask(workflows.RollbackName, workflows.RollbackRequest{Reason: "it is slow"}))
	u.at(181*time.Minute, u.ask(workflows.RollbackName, workflows.RollbackRequest{Reason: "once more"}))
	state := u.live(10 * time.Hour)
	require.Equal(t, "rollback 1 after 3h1m0s", u.started[len(u.started)-1])
	require.Equal(t, v1, state.Updates.Current)
}

// The item is a part of the entry, so the wanted version is another one while it is there.
func TestABlockOfTheRegistryEndsNoRollback(t *testing.T) {
	u := newUpdates(t)
	u.at(0, u.want(v2))
	u.at(2*time.Hour, u.ask(workflows.RollbackName, workflows.RollbackRequest{Reason: "it is slow"}))
	u.at(4*time.Hour, u.want(v3, blocked))
	u.at(5*time.Hour, u.want(v2))
	state := u.live(10 * time.Hour)
	require.Equal(t, []string{"update 2 after 0s", "rollback 1 after 2h0m0s"}, u.started)
	require.Equal(t, v1, state.Updates.Current)
}

func TestABlockOfTheRegistryEndsNoUpdateThatIsUnderWay(t *testing.T) {
	u := newUpdates(t)
	u.at(0, u.want(v2))
	u.at(20*time.Minute, u.want(v3, blocked))
	u.at(30*time.Minute, func() { require.False(t, u.state().Updates.Running.Superseded) })
	u.at(40*time.Minute, u.want(v2))
	state := u.live(4 * time.Hour)
	require.Equal(t, []string{"update 2 after 0s"}, u.started)
	require.Equal(t, v2, state.Updates.Current)
}

func TestAnUpdateThatHasChangedNothingLeavesTheClusterOnItsVersion(t *testing.T) {
	u := newUpdates(t)
	u.end = func(in workflows.UpdateClusterInput, p *workflows.UpdateProgress) {
		p.Phase, p.Changed, p.Steps = "superseded", false, nil // before its first step
		u.end = nil
	}
	u.at(0, u.want(v2))
	state := u.live(90 * time.Minute)
	require.Empty(t, state.Updates.Mixed)
	require.Equal(t, v1, state.Updates.Current)
	require.False(t, u.inputs[1].Fix, "its health counts")
}

func TestADecommissionEndsWhereTheClusterIsToStayAfterAll(t *testing.T) {
	u := newUpdates(t)
	u.at(0, u.want(v1))
	u.at(time.Hour, u.want(v2, lifecycle(registry.DecommissionRequested)))
	u.at(90*time.Minute, u.want(v1, hold))
	u.at(100*time.Minute, func() {
		require.Equal(t, []string{v1}, u.state().Updates.Mixed, "a part of it may be gone")
		u.want(v1)()
	})
	state := u.live(4 * time.Hour)
	require.Equal(t, []string{"decommission 2 after 1h0m0s", "update 1 after 1h40m0s"}, u.started)
	require.True(t, u.inputs[1].Fix)
	require.Equal(t, v1, state.Updates.Current)
}

func TestProblemsGoWhenTheVersionIsWantedAgainThatTheClusterHas(t *testing.T) {
	u := newUpdates(t)
	u.end = func(in workflows.UpdateClusterInput, p *workflows.UpdateProgress) {
		if in.Version == v2 {
			p.Phase, p.Restored, p.Problems = "failed", true, []registry.Problem{{Title: "It broke."}}
		}
	}
	u.at(0, u.want(v2))
	u.at(2*time.Hour, u.want(v1))
	state := u.live(6 * time.Hour)
	require.Equal(t, []string{"update 2 after 0s", "update 1 after 2h0m0s"}, u.started, "the second writes that all is well")
	require.Nil(t, state.Updates.Failed)
	require.Equal(t, v1, state.Updates.Current)
}

func TestWhatAPersonHasStoppedIsNotTriedAgainUnlessSomebodyAsks(t *testing.T) {
	u := newUpdates(t)
	u.end = func(_ workflows.UpdateClusterInput, p *workflows.UpdateProgress) {
		p.Phase, p.Problems = "failed", []registry.Problem{{Type: "urn:fairway:Stopped", Title: "the roll of pool worker was cancelled by somebody"}}
	}
	u.at(0, u.want(v2))
	u.at(48*time.Hour, u.ask(workflows.UpdateName, workflows.UpdateRequest{Reason: "it may go on"}))
	u.live(72 * time.Hour)
	require.Equal(t, []string{"update 2 after 0s", "update 2 after 48h0m0s"}, u.started)
}

func TestSignalsThatAreNonsenseKeepNoOtherFromAClustersActor(t *testing.T) {
	u := newUpdates(t)
	u.at(time.Minute, func() {
		for _, name := range []string{workflows.WantName, workflows.UpdatedName, workflows.UnblockName, workflows.ForceName} {
			u.env.SignalWorkflow(name, []string{"nonsense"})
		}
	})
	u.at(2*time.Minute, u.want(v2))
	u.at(2*time.Hour, func() {
		require.Equal(t, v2, u.state().Updates.Current)
		u.env.SignalWorkflow(workflows.BlockName, "stop everything")
	})
	u.at(2*time.Hour+time.Minute, func() {
		require.Len(t, u.state().Blocks, 1, "better to stop than to guess")
		require.Contains(t, u.state().Blocks[0].Reason, "not understood")
		u.env.SignalWorkflow(workflows.UnblockName, workflows.UnblockRequest{})
	})
	state := u.live(3 * time.Hour)
	require.Empty(t, state.Blocks)
	require.Equal(t, v2, state.Updates.Current)
}

func TestAClusterSaysThatItIsBrokenWhateverIsWantedSince(t *testing.T) {
	u := newUpdates(t)
	u.end = func(in workflows.UpdateClusterInput, p *workflows.UpdateProgress) {
		if in.Version == v2 {
			p.Phase, p.Problems = "failed", []registry.Problem{{Title: "the stack is stuck"}}
		}
	}
	u.at(0, u.want(v1))
	u.at(time.Minute, u.want(v2))
	u.at(30*time.Minute, u.want(v3, hold))
	u.at(2*time.Hour, func() {
		require.Equal(t, "3 waiting broken", u.reports[len(u.reports)-1])
		u.want(v3)()
	})
	u.live(4 * time.Hour)
	require.Equal(t, []string{"3 updating broken", "3 done"}, u.reports[len(u.reports)-2:])
}
