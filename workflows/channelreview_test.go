package workflows_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fairway-project/fairway/promotion"
	"github.com/fairway-project/fairway/registry"
	"github.com/fairway-project/fairway/rollout"
	"github.com/fairway-project/fairway/workflows"
)

func TestANewHeadDoesNotMakeAClusterWholeThatAFailureLeftBetweenVersions(t *testing.T) {
	tr := newTrain(t)
	watched(tr)
	tr.at(0, func() { tr.sync(landed(head("v1", "v1", "a b"), "v1")) })
	tr.at(10, func() {
		tr.fails["a"] = true
		tr.sync(landed(head("v2", "v1", "a b"), "v2"))
	})
	var before int
	tr.at(15, func() {
		require.Contains(t, tr.held(), "cluster a: an update has failed")
		before = tr.soaked("v1")
		tr.idle["a"] = true
		tr.sync(landed(head("v3", "v1", "a b"), "v3"))
	})
	tr.at(30, func() {
		require.Equal(t, before, tr.soaked("v1"), "it is still between v1 and v2")
		require.Contains(t, tr.held(), "cluster a: an update has failed")
		tr.SignalWorkflow(workflows.ReportName, workflows.ClusterReport{Cluster: "a", Version: "v3#a", State: rollout.Updating, Broken: "the stack is stuck", At: tr.Now()})
	})
	tr.at(31, func() {
		require.Contains(t, tr.held(), "cluster a: an update has failed")
		tr.SignalWorkflow(workflows.ReportName, workflows.ClusterReport{Cluster: "a", Version: "v3#a", State: rollout.Done, Current: "v3#a", At: tr.Now()})
	})
	tr.at(40, func() {
		require.Empty(t, tr.held())
		require.InDelta(t, before+8, tr.soaked("v1"), 1)
		tr.fails["a"], tr.idle["a"] = false, true
		tr.sync(landed(head("v4", "v3", "a b"), "v4"))
	})
	tr.at(41, func() { // this one has gone back to its version by itself
		tr.SignalWorkflow(workflows.ReportName, workflows.ClusterReport{Cluster: "a", Version: "v4#a", State: rollout.Failed, Current: "v3#a", At: tr.Now()})
	})
	tr.at(43, func() {
		require.Contains(t, tr.held(), "cluster a: an update has failed")
		tr.sync(landed(head("v5", "v3", "a b"), "v5"))
	})
	tr.at(45, func() {
		require.Empty(t, tr.held(), "nothing is left of what failed")
		tr.SignalWorkflow(workflows.ReportName, workflows.ClusterReport{Cluster: "a", Version: "v5#a", State: rollout.Waiting, Broken: "its nodes never came", At: tr.Now()})
	})
	tr.at(46, func() {
		require.Contains(t, tr.held(), "cluster a: an update has failed, and none has mended it since: its nodes never came", "v4 failed when v5 was wanted already")
		tr.CancelWorkflow()
	})
	tr.run()
}

func TestABlockOfBeforeDoesNotLetTheNextWaveGoAtOnce(t *testing.T) {
	tr := newTrain(t)
	watched(tr)
	tr.idle["b"] = true
	withBake := func(commit string) workflows.ChannelSync {
		s := landed(head(commit, "v0", "a b c"), "v0 "+commit)
		s.Settings.BakeSeconds = 600
		return s
	}
	tr.at(0, func() { tr.sync(withBake("v1")) })
	tr.at(12, func() {
		tr.SignalWorkflow(workflows.ReportName, workflows.ClusterReport{Cluster: "b", Version: "v1#b", State: rollout.Allowed, At: tr.Now(), Held: true})
	})
	tr.at(13, func() { tr.sync(withBake("v2")) })
	tr.at(14, func() { // its block has been lifted
		tr.SignalWorkflow(workflows.ReportName, workflows.ClusterReport{Cluster: "b", Version: "v2#b", State: rollout.Waiting, At: tr.Now()})
	})
	tr.at(16, func() { require.Empty(t, tr.held(), "nothing is blocked") })
	tr.at(26, func() {
		require.Equal(t, rollout.Allowed, tr.member("b").State)
		require.Equal(t, rollout.Waiting, tr.member("c").State, "b has proved nothing of v2")
		tr.CancelWorkflow()
	})
	tr.run()
}

func TestALookIsBelievedForAnHourAtMostHoweverRareLooksAre(t *testing.T) {
	tr := newTrain(t)
	look := func(good int64) {
		tr.SignalWorkflow(workflows.HealthName, workflows.ChannelHealth{At: tr.Now(), GoodSeconds: good, Clusters: []workflows.ClusterHealth{{Cluster: "a"}}})
	}
	tr.at(0, func() { tr.sync(landed(head("v1", "v1", "a"), "v1")) })
	tr.at(1, func() { look(3700) })
	tr.at(50, func() { require.Equal(t, 49, tr.soaked("v1")) })
	tr.at(90, func() {
		require.Equal(t, 60, tr.soaked("v1"))
		look(-1)
	})
	tr.at(100, func() {
		require.Equal(t, 63, tr.soaked("v1"))
		tr.CancelWorkflow()
	})
	tr.run()
}

func TestWhatIsHeardWhileClustersAreToldStopsTheClock(t *testing.T) {
	tr := newTrain(t)
	watched(tr)
	tr.at(0, func() { tr.sync(landed(head("v1", "v1", "a b"), "v1")) })
	tr.at(10, func() {
		tr.slow = true
		tr.sync(landed(head("v2", "v1", "a b"), "v2"))
	})
	tr.at(11, func() {
		tr.SignalWorkflow(workflows.ReportName, workflows.ClusterReport{Cluster: "b", Version: "v2#b", State: rollout.Failed, At: tr.Now()})
	})
	tr.RegisterDelayedCallback(func() {
		require.Contains(t, tr.held(), "cluster b: an update has failed")
		tr.CancelWorkflow()
	}, 11*time.Minute+10*time.Second)
	tr.run()
}

func TestNonsenseLeavesNothingInWhatIsHeardNext(t *testing.T) {
	tr := newTrain(t)
	watched(tr).away = true
	tr.at(0, func() { tr.sync(landed(head("v1", "v1", "a"), "v1")) })
	tr.at(1, func() {
		tr.SignalWorkflow(workflows.HealthName, map[string]any{"blocked": "nonsense", "clusters": 5})
		tr.SignalWorkflow(workflows.HealthName, workflows.ChannelHealth{At: tr.Now(), Clusters: []workflows.ClusterHealth{{Cluster: "a"}}})
	})
	tr.at(2, func() {
		require.Empty(t, tr.held())
		tr.SignalWorkflow(workflows.BlockName, "stop everything")
	})
	tr.at(3, func() {
		require.Len(t, tr.state().Blocks.Holding, 1, "better to stop than to guess")
		require.Contains(t, tr.held(), "not understood")
		tr.CancelWorkflow()
	})
	tr.run()
}

func TestWhatClustersSayIsBounded(t *testing.T) {
	tr := newTrain(t)
	tr.idle["a"] = true
	long := strings.Repeat("x", 100_000)
	tr.at(0, func() { tr.sync(landed(head("v1", "v0", "a"), "v1")) })
	tr.at(1, func() {
		tr.SignalWorkflow(workflows.ReportName, workflows.ClusterReport{Cluster: "a", Version: "v1#a", State: rollout.Failed, At: tr.Now(), Problem: long})
		tr.SignalWorkflow(workflows.RevertedName, promotion.Revert{ID: "r1", To: "v0", Bad: []string{"v1"}})
	})
	tr.at(2, func() {
		require.NotEmpty(t, tr.member("a").Problem)
		require.Less(t, len(tr.member("a").Problem), 2000)
		tr.CancelWorkflow()
	})
	tr.run()
}

func TestAClusterThatIsReadyBeforeItsActorSaysSoEndsNoSoak(t *testing.T) {
	tr := newTrain(t)
	watched(tr)
	tr.idle["b"] = true
	with := func(lifecycle registry.LifecycleStatus, current string) workflows.ChannelSync {
		s := landed(head("v1", "v1", "a b"), "v1")
		s.Clusters[1].Want.Lifecycle, s.Clusters[1].Want.Current = lifecycle, current
		return s
	}
	tr.at(0, func() { tr.sync(landed(head("v1", "v1", "a"), "v1")) })
	tr.at(5, func() { tr.sync(with(registry.Requested, "")) })
	tr.at(6, func() {
		tr.SignalWorkflow(workflows.ReportName, workflows.ClusterReport{Cluster: "b", Version: "v1#b", State: rollout.Updating, At: tr.Now()})
	})
	tr.at(20, func() {
		require.InDelta(t, 19, tr.soaked("v1"), 1, "a cluster that is made proves nothing")
		tr.sync(with(registry.Ready, "v1#b")) // what the update has done stands in the registry first
	})
	tr.at(21, func() {
		tr.SignalWorkflow(workflows.ReportName, workflows.ClusterReport{Cluster: "b", Version: "v1#b", State: rollout.Done, Current: "v1#b", At: tr.Now()})
	})
	tr.at(30, func() {
		require.Empty(t, tr.held())
		require.InDelta(t, 28, tr.soaked("v1"), 2)
		tr.CancelWorkflow()
	})
	tr.run()
}
