package workflows_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/workflow"

	"github.com/fairway-project/fairway/registry"
	"github.com/fairway-project/fairway/rollout"
	"github.com/fairway-project/fairway/workflows"
)

// train is a channel's actor with clusters that do what they are told, a minute after they began.
type train struct {
	*testsuite.TestWorkflowEnvironment
	t      *testing.T
	fails  map[string]bool // clusters whose updates fail
	idle   map[string]bool // clusters that do not begin
	told   []string        // in order, such as "a=v1", "a!v1" for one on hold
	calls  int
	down   bool            // Temporal does not answer
	slow   bool            // Temporal is asked again and again
	deaf   map[string]bool // clusters that cannot be told
	people []string        // what they were told
}

func newTrain(t *testing.T) *train {
	var suite testsuite.WorkflowTestSuite
	tr := &train{TestWorkflowEnvironment: suite.NewTestWorkflowEnvironment(), t: t, fails: map[string]bool{}, idle: map[string]bool{}}
	tr.SetStartTime(noon)
	tr.SetTestTimeout(20 * time.Second)
	tr.RegisterActivityWithOptions(func(_ context.Context, in workflows.TellClusters) (untold []string, err error) {
		tr.calls++
		if tr.down {
			return nil, temporal.NewNonRetryableApplicationError("down", workflows.Unreachable, nil)
		}
		if tr.slow {
			return nil, temporal.NewApplicationError("slow", workflows.Unreachable)
		}
		for _, want := range in.Wants {
			if tr.deaf[want.Cluster] {
				untold = append(untold, want.Cluster)
			} else {
				tr.hear(want)
			}
		}
		return untold, nil
	}, activity.RegisterOptions{Name: "TellClusters"})
	tr.RegisterActivityWithOptions(func(_ context.Context, n workflows.Notification) error {
		tr.people = append(tr.people, n.Text)
		return nil
	}, activity.RegisterOptions{Name: "Notify"})
	return tr
}

func (tr *train) hear(want workflows.Want) {
	sign := "="
	if want.Hold {
		sign = "!"
	}
	version, _, _ := strings.Cut(want.Version, "#")
	tr.told = append(tr.told, want.Cluster+sign+version)
	if want.Hold || tr.idle[want.Cluster] || want.Current == want.Version {
		return
	}
	report := func(after time.Duration, state rollout.State) {
		tr.RegisterDelayedCallback(func() {
			r := workflows.ClusterReport{Cluster: want.Cluster, Version: want.Version, State: state, At: tr.Now()}
			if state == rollout.Done {
				r.Current = want.Version
			} else if state == rollout.Failed {
				r.Broken = "the stack is stuck"
			}
			tr.SignalWorkflow(workflows.ReportName, r)
		}, after)
	}
	report(time.Second, rollout.Updating)
	if tr.fails[want.Cluster] {
		report(time.Minute, rollout.Failed)
	} else {
		report(time.Minute, rollout.Done)
	}
}

func (tr *train) at(minute int, do func()) {
	tr.RegisterDelayedCallback(do, time.Duration(minute)*time.Minute)
}

func (tr *train) heard() string {
	said := strings.Join(tr.told, " ")
	tr.told = nil
	return said
}

func (tr *train) state() (s workflows.ChannelState) {
	answer, err := tr.QueryWorkflow(workflows.StateQuery)
	require.NoError(tr.t, err)
	require.NoError(tr.t, answer.Get(&s))
	return s
}

func (tr *train) member(id string) workflows.Member {
	state := tr.state()
	i := slices.IndexFunc(state.Members, func(m workflows.Member) bool { return m.ID == id })
	require.GreaterOrEqual(tr.t, i, 0)
	return state.Members[i]
}

func (tr *train) sync(s workflows.ChannelSync) { tr.SignalWorkflow(workflows.SyncName, s) }

func (tr *train) run() {
	tr.ExecuteWorkflow(workflows.Channel, workflows.ChannelState{ChannelSync: workflows.ChannelSync{Channel: "dev"}})
}

// head is a sync of clusters at a commit; each cluster has the version before.
func head(commit, before, clusters string) workflows.ChannelSync {
	s := workflows.ChannelSync{
		Channel: "dev", Commit: commit,
		Settings: rollout.Settings{CanaryLevel: -1, Groups: []rollout.Group{{Count: 1}, {Percent: 100}}, BakeSeconds: 600},
	}
	for i, id := range strings.Fields(clusters) {
		s.Clusters = append(s.Clusters, workflows.ChannelCluster{
			Cluster: rollout.Cluster{ID: id, Criticality: i},
			Want:    workflows.Want{Cluster: id, Channel: "dev", Version: commit + "#" + id, Current: before + "#" + id, Lifecycle: registry.Ready},
		})
	}
	return s
}

func TestClustersFollowTheHeadInWaves(t *testing.T) {
	tr := newTrain(t)
	tr.at(0, func() { tr.sync(head("v1", "v0", "a b c d")) })
	tr.at(5, func() {
		require.Equal(t, "a=v1 b!v1 c!v1 d!v1", tr.heard(), "all know of it, the canary may begin")
		require.Equal(t, rollout.Done, tr.member("a").State)
		require.Equal(t, 1, tr.state().Wave)
		require.WithinDuration(t, noon.Add(11*time.Minute), tr.state().Next, time.Second, "a bake after the canary was done")
	})
	tr.at(10, func() { require.Empty(t, tr.heard()) })
	tr.at(12, func() { require.Equal(t, "b=v1", tr.heard()) })
	tr.at(21, func() { require.Empty(t, tr.heard()) })
	tr.at(30, func() {
		require.Equal(t, "c=v1 d=v1", tr.heard())
		require.Equal(t, 3, tr.state().Wave)
		require.Zero(t, tr.state().Next)
		tr.sync(head("v1", "v1", "a b c d"))
	})
	tr.at(60, func() {
		require.Empty(t, tr.heard(), "nothing is new")
		tr.sync(head("v2", "v1", "a b c d"))
	})
	tr.at(61, func() {
		require.Equal(t, "a=v2", tr.heard(), "a new head begins with the canary")
		tr.sync(head("v3", "v1", "a b c d"))
	})
	tr.at(65, func() {
		require.Equal(t, "a=v3", strings.TrimPrefix(tr.heard(), "a!v3 "), "and so does the next, before the first is everywhere")
		tr.CancelWorkflow()
	})
	tr.run()
	require.True(t, tr.IsWorkflowCompleted())
}

func TestFailuresStopTheRestUntilSomebodyResumes(t *testing.T) {
	tr := newTrain(t)
	tr.fails["b"] = true
	reject := func(request workflows.ResumeRequest, text string) {
		tr.UpdateWorkflow(workflows.ResumeName, "", &testsuite.TestUpdateCallback{
			OnAccept: func() { t.Error("accepted") }, OnReject: func(err error) { require.ErrorContains(t, err, text) }, OnComplete: func(any, error) {},
		}, request)
	}
	tr.at(0, func() { tr.sync(head("v1", "v0", "a b c d")) })
	tr.at(5, func() {
		tr.heard()
		reject(workflows.ResumeRequest{Reason: "x"}, "no cluster of channel dev has failed")
	})
	tr.at(100, func() {
		require.Equal(t, "b=v1", tr.heard())
		require.Contains(t, tr.state().Stopped, "1 cluster has failed (b)")
		reject(workflows.ResumeRequest{}, "needs a reason")
		tr.UpdateWorkflowNoRejection(workflows.ResumeName, "", t, workflows.ResumeRequest{Reason: "b is broken", By: "anna"})
	})
	tr.at(101, func() {
		require.Equal(t, "c=v1 d=v1", tr.heard())
		require.Empty(t, tr.state().Stopped)
		tr.SignalWorkflow(workflows.ReportName, workflows.ClusterReport{Cluster: "b", Version: "v1#b", State: rollout.Failed, At: tr.Now(), Problem: "again"})
	})
	tr.at(102, func() {
		require.Empty(t, tr.state().Stopped, "what was forgiven is, also when it fails again")
		require.Len(t, tr.people, 1, "people are told once")
		require.Contains(t, tr.people[0], "No more clusters of channel dev are let go on to v1: 1 cluster has failed (b)")
		tr.fails = map[string]bool{}
		tr.sync(head("v2", "v1", "a b c d"))
	})
	tr.at(103, func() {
		require.Equal(t, "a=v2 b!v2", tr.heard(), "a version that failed is not tried again when it is no longer the head")
		tr.CancelWorkflow()
	})
	tr.run()
}

func TestABlockOfTheChannelLetsNobodyGoOn(t *testing.T) {
	tr := newTrain(t)
	tr.at(0, func() { tr.sync(head("v1", "v0", "a b c")) })
	tr.at(5, func() {
		tr.heard()
		tr.SignalWorkflow(workflows.BlockName, workflows.BlockRequest{Reason: "fair", By: "anna", For: "1h"})
		tr.SignalWorkflow(workflows.BlockName, workflows.BlockRequest{Reason: "incident", By: "ben"})
	})
	tr.at(64, func() {
		require.Empty(t, tr.heard())
		require.Equal(t, "channel dev", tr.state().Blocks.Holding[0].Scope)
		tr.UpdateWorkflowNoRejection(workflows.UnblockName, "", t, workflows.UnblockRequest{ID: "block-2"})
	})
	tr.at(66, func() {
		require.Equal(t, "b=v1", tr.heard(), "the other one has expired by itself")
		tr.SignalWorkflow(workflows.BlockName, workflows.BlockRequest{Pool: "worker", Reason: "load test"})
	})
	tr.at(80, func() {
		require.Equal(t, "c=v1", tr.heard(), "a block of pools is asked for where pools are changed")
		tr.CancelWorkflow()
	})
	tr.run()
}

func TestWhatConcernsOneClusterAloneNeedsNoWave(t *testing.T) {
	tr := newTrain(t)
	edited := func(s workflows.ChannelSync, id string, edit func(*workflows.Want)) workflows.ChannelSync {
		for i := range s.Clusters {
			if s.Clusters[i].ID == id {
				edit(&s.Clusters[i].Want)
			}
		}
		return s
	}
	tr.idle["b"] = true
	tr.at(0, func() { tr.sync(head("v1", "v0", "a b c d")) })
	tr.at(15, func() {
		require.Equal(t, "a=v1 b!v1 c!v1 d!v1 b=v1", tr.heard())
		tr.sync(edited(head("v1", "v0", "a b c d"), "a", func(w *workflows.Want) { w.Version = "v1#edited" }))
	})
	tr.at(16, func() {
		require.Equal(t, "a=v1", tr.heard(), "an edited entry")
		tr.sync(edited(head("v1", "v0", "a b c d"), "d", func(w *workflows.Want) { w.Lifecycle = registry.DecommissionRequested }))
	})
	tr.at(17, func() {
		require.Equal(t, "a=v1 d=v1", tr.heard(), "a cluster that is to go")
		require.Equal(t, -1, tr.member("d").Wave)
		tr.sync(edited(head("v1", "v0", "a b c e"), "e", func(w *workflows.Want) { w.Lifecycle, w.Current = registry.Requested, "" }))
	})
	tr.at(19, func() {
		require.Equal(t, "e=v1", tr.heard(), "a new cluster")
		require.Len(t, tr.state().Members, 4, "and d has left")
		tr.sync(edited(head("v1", "v0", "a b c"), "c", func(w *workflows.Want) { w.Block = "incident" }))
	})
	tr.at(20, func() {
		require.Equal(t, "c!v1", tr.heard(), "a block is told, though the wave is not open")
		require.Equal(t, rollout.Waiting, tr.member("c").State)
		tr.CancelWorkflow()
	})
	tr.run()
}

func TestAHeldClusterDoesNotHoldTheOthers(t *testing.T) {
	tr := newTrain(t)
	tr.idle["b"] = true
	tr.at(0, func() { tr.sync(head("v1", "v0", "a b c")) })
	tr.at(12, func() {
		tr.SignalWorkflow(workflows.ReportName, workflows.ClusterReport{Cluster: "b", Version: "v1#b", State: rollout.Allowed, At: tr.Now(), Held: true, Problem: "blocked by anna"})
	})
	tr.at(21, func() {
		tr.heard()
		require.Equal(t, rollout.Waiting, tr.member("c").State)
	})
	tr.at(23, func() {
		require.Equal(t, "c=v1", tr.heard())
		tr.CancelWorkflow()
	})
	tr.run()
}

func TestReportsAboutSomethingElseAreNoNews(t *testing.T) {
	tr := newTrain(t)
	tr.idle["a"] = true
	report := func(version string, state rollout.State, at time.Duration) {
		tr.SignalWorkflow(workflows.ReportName, workflows.ClusterReport{Cluster: "a", Version: version, State: state, At: noon.Add(at)})
	}
	tr.at(11, func() { tr.sync(head("v1", "v0", "a b")) })
	tr.at(12, func() {
		tr.heard()
		report("v0#a", rollout.Failed, 12*time.Minute)
		report("v1#a", rollout.Failed, 0)
		report("v1#a", rollout.Waiting, 12*time.Minute)
		tr.SignalWorkflow(workflows.ReportName, workflows.ClusterReport{Cluster: "unknown", Version: "v1#a", State: rollout.Failed})
		tr.sync(workflows.ChannelSync{Channel: "other", Commit: "v9"})
	})
	tr.at(13, func() {
		require.Equal(t, rollout.Allowed, tr.member("a").State)
		require.Equal(t, "a=v1", tr.heard(), "but one that goes by an older version is told once more")
		require.Equal(t, "v1", tr.state().Commit)
		report("v1#a", rollout.Updating, 99*time.Hour) // a clock that is wrong
	})
	tr.at(14, func() {
		require.Equal(t, noon.Add(13*time.Minute).Unix(), tr.member("a").SinceUnix)
		s := head("v1", "v0", "a b")
		s.Clusters[0].Lost = true
		tr.heard()
		tr.sync(s)
	})
	tr.at(15, func() {
		require.Equal(t, "a=v1", tr.heard(), "an update that was lost is asked for again")
		tr.sync(head("v1", "v1", "a b"))
	})
	tr.at(16, func() {
		require.Equal(t, rollout.Done, tr.member("a").State, "the registry knows better")
		tr.CancelWorkflow()
	})
	tr.run()
}

func TestAHeadThatIsNotKnownChangesNothing(t *testing.T) {
	tr := newTrain(t)
	missing := head("", "v0", "a b")
	missing.Problem = "branch dev does not exist"
	for i := range missing.Clusters {
		missing.Clusters[i].Want.Version = ""
	}
	tr.at(0, func() { tr.sync(missing) })
	tr.at(1, func() {
		require.Empty(t, tr.heard())
		require.Equal(t, missing.Problem, tr.state().Stopped)
		tr.sync(head("v1", "v0", "a b"))
	})
	tr.at(5, func() {
		require.Equal(t, "a=v1 b!v1", tr.heard())
		tr.sync(missing)
	})
	tr.at(60, func() {
		state := tr.state()
		require.Equal(t, "v1", state.Commit)
		require.Equal(t, "v1#b", state.Clusters[1].Want.Version)
		require.Equal(t, missing.Problem, state.Stopped)
		require.Empty(t, tr.heard(), "nobody goes on to a branch that is gone")
		some := head("v1", "v0", "a")
		some.Keep = true
		tr.sync(some)
	})
	tr.at(61, func() {
		require.Equal(t, "b=v1", tr.heard(), "the branch is back, and b is kept")
		tr.CancelWorkflow()
	})
	tr.run()
}

func TestWantsAreToldAgainAfterAnOutage(t *testing.T) {
	tr := newTrain(t)
	tr.down = true
	tr.at(0, func() { tr.sync(head("v1", "v0", "a b")) })
	tr.at(10, func() {
		require.InDelta(t, 10, tr.calls, 2, "once a minute")
		require.True(t, tr.member("a").Tell)
		tr.down = false
	})
	tr.at(12, func() {
		require.Equal(t, "a=v1 b!v1", tr.heard())
		tr.CancelWorkflow()
	})
	tr.run()
}

func TestAClusterThatCannotBeToldDoesNotHaveTheOthersToldAgain(t *testing.T) {
	tr := newTrain(t)
	tr.deaf = map[string]bool{"a": true}
	tr.at(0, func() { tr.sync(head("v1", "v0", "a b c")) })
	tr.at(10, func() {
		require.Equal(t, "b!v1 c!v1", tr.heard())
		require.InDelta(t, 10, tr.calls, 2, "once a minute")
		tr.deaf = nil
	})
	tr.at(12, func() {
		require.Equal(t, "a=v1", tr.heard())
		tr.CancelWorkflow()
	})
	tr.run()
}

func TestALongRunOfAChannelHandsEverythingToTheNext(t *testing.T) {
	first := newTrain(t)
	first.SetCurrentHistoryLength(3000)
	first.RegisterDelayedCallback(func() {
		first.sync(head("v1", "v0", "a b c"))
		first.SignalWorkflow(workflows.BlockName, workflows.BlockRequest{Reason: "incident", By: "anna", For: "1h"})
	}, 0)
	first.run()
	var next *workflow.ContinueAsNewError
	require.ErrorAs(t, first.GetWorkflowError(), &next)
	var state workflows.ChannelState
	require.NoError(t, converter.GetDefaultDataConverter().FromPayloads(next.Input, &state))
	require.Len(t, state.Members, 3)
	require.Len(t, state.Blocks.Holding, 1)
	require.Equal(t, "v1", state.Commit)

	second := newTrain(t)
	second.at(59, func() { require.NotContains(t, second.heard(), "=") })
	second.at(62, func() {
		require.Equal(t, "a=v1", second.heard())
		second.CancelWorkflow()
	})
	second.ExecuteWorkflow(workflows.Channel, state)
}

func TestAChannelOfManyClusters(t *testing.T) {
	const clusters = 150
	tr := newTrain(t)
	var ids []string
	for i := range clusters {
		ids = append(ids, fmt.Sprintf("c%03d", i))
	}
	s := head("v1", "v0", strings.Join(ids, " "))
	s.Settings.Groups = []rollout.Group{{Percent: 10}, {Percent: 30}, {Percent: 100}}
	tr.at(0, func() { tr.sync(s) })
	tr.at(60, func() {
		for _, m := range tr.state().Members {
			require.Equal(t, rollout.Done, m.State, m.ID)
		}
		// One call tells up to fifty: three for the first news, one for the canary, one for each of
		// the groups of 14 and 44, and two for that of 90.
		require.LessOrEqual(t, tr.calls, 9)
		require.Len(t, tr.told, clusters+clusters-1)
		encoded, err := converter.GetDefaultDataConverter().ToPayload(tr.state())
		require.NoError(t, err)
		t.Logf("a state of %d clusters has %d bytes", clusters, len(encoded.Data))
		require.Less(t, len(encoded.Data), 150_000)
		tr.CancelWorkflow()
	})
	tr.run()
	require.True(t, tr.IsWorkflowCompleted())
}
