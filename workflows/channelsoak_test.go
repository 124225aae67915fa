package workflows_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/workflow"

	"github.com/fairway-project/fairway/promotion"
	"github.com/fairway-project/fairway/registry"
	"github.com/fairway-project/fairway/rollout"
	"github.com/fairway-project/fairway/workflows"
)

// watch stands for those who look at the health of a train's clusters, every minute.
type watch struct {
	away    bool              // nobody looks
	sick    map[string]string // by cluster
	blocked map[string]string // by cluster; "fleet" for that
	looks   int
}

// watched has somebody look at the clusters that the actor wants to know about.
func watched(tr *train) *watch {
	w := &watch{sick: map[string]string{}, blocked: map[string]string{}}
	var look func()
	look = func() {
		if wanted := tr.watched(); !w.away && len(wanted.Clusters) > 0 {
			w.looks++
			health := workflows.ChannelHealth{At: tr.Now(), Blocked: w.blocked["fleet"]}
			for _, id := range wanted.Clusters {
				seen := workflows.ClusterHealth{Cluster: id, Blocked: w.blocked[id]}
				if w.sick[id] != "" {
					seen.Problems = []string{w.sick[id]}
				}
				health.Clusters = append(health.Clusters, seen)
			}
			tr.SignalWorkflow(workflows.HealthName, health)
		}
		tr.RegisterDelayedCallback(look, time.Minute)
	}
	tr.RegisterDelayedCallback(look, 30*time.Second)
	return w
}

func (tr *train) watched() (w workflows.Watched) {
	answer, err := tr.QueryWorkflow(workflows.WatchedQuery)
	require.NoError(tr.t, err)
	require.NoError(tr.t, answer.Get(&w))
	return w
}

func (tr *train) synced() (s workflows.ChannelSynced) {
	answer, err := tr.QueryWorkflow(workflows.SyncedQuery)
	require.NoError(tr.t, err)
	require.NoError(tr.t, answer.Get(&s))
	return s
}

// soaked is for how many minutes a landing has soaked; -1 if not every cluster has it.
func (tr *train) soaked(commit string) int {
	soak := tr.state().Promotions.Soak.At(tr.Now())
	i := soak.Index(commit)
	require.GreaterOrEqual(tr.t, i, 0, commit)
	if !soak.Landings[i].Ran {
		return -1
	}
	return int(soak.Soaked(i) / time.Minute)
}

func (tr *train) held() string {
	return strings.Join(tr.state().Promotions.Soak.At(tr.Now()).Held, "; ")
}

// landed is a sync with which commits have landed, on a channel that is promoted to one other.
func landed(s workflows.ChannelSync, commits string) workflows.ChannelSync {
	s.SoakSeconds, s.Promoted = 3600, []string{""}
	s.Settings.BakeSeconds = 0
	for _, commit := range strings.Fields(commits) {
		commit, kind, _ := strings.Cut(commit, ":")
		s.Landings = append(s.Landings, promotion.Landing{Commit: commit, Title: "title of " + commit, Author: "anna", Kind: promotion.Kind(kind)})
	}
	return s
}

func TestALandingSoaksWhileEveryClusterRunsItHealthyAndUnblocked(t *testing.T) {
	tr := newTrain(t)
	w := watched(tr)
	tr.at(0, func() { tr.sync(landed(head("v1", "v0", "a b"), "v0 v1")) })
	tr.at(1, func() {
		require.Equal(t, 0, tr.soaked("v0"), "all have had it before")
		require.Equal(t, -1, tr.soaked("v1"))
	})
	tr.at(12, func() {
		require.Equal(t, 10, tr.soaked("v1"), "both have it since minute 2")
		require.Empty(t, tr.held())
		w.sick["b"] = "Node n1 is not Ready."
	})
	tr.at(22, func() {
		require.InDelta(t, 11, tr.soaked("v1"), 1, "up to the next look")
		require.Equal(t, "cluster b: it is not healthy: Node n1 is not Ready.", tr.held())
		delete(w.sick, "b")
	})
	var before int
	still := func(minute int, why string) {
		tr.at(minute, func() {
			require.InDelta(t, before, tr.soaked("v1"), 1, why)
			require.Contains(t, tr.held(), why)
		})
	}
	tr.at(30, func() { before = tr.soaked("v1"); require.InDelta(t, 18, before, 1); w.blocked["a"] = "load test" })
	still(35, "cluster a: it is blocked: load test")
	tr.at(36, func() { delete(w.blocked, "a"); w.blocked["fleet"] = "blocked by ben (fleet): freeze" })
	still(40, "blocked by ben (fleet): freeze")
	tr.at(41, func() {
		delete(w.blocked, "fleet")
		tr.SignalWorkflow(workflows.BlockName, workflows.BlockRequest{Reason: "incident", By: "anna", For: "9m"})
	})
	still(45, "blocked by anna (channel dev): incident")
	tr.at(60, func() {
		require.InDelta(t, before+10, tr.soaked("v1"), 2, "the block has expired by itself at 50")
		before = tr.soaked("v1")
		w.away = true
	})
	tr.at(80, func() {
		require.InDelta(t, before+3, tr.soaked("v1"), 1, "what nobody has seen does not count, but for a while")
		require.NotEmpty(t, tr.held())
		w.away = false
	})
	tr.at(82, func() {
		require.Empty(t, tr.held())
		before = tr.soaked("v1")
		tr.sync(landed(head("v2", "v1", "a b"), "v2"))
	})
	tr.at(92, func() {
		require.Equal(t, before+10, tr.soaked("v1"), "a new landing changes nothing for the one before")
		require.InDelta(t, 8, tr.soaked("v2"), 1, "and has a clock of its own")
		tr.SignalWorkflow(workflows.ReportName, workflows.ClusterReport{Cluster: "b", Version: "v2#b", State: rollout.Failed, Current: "v1#b", At: tr.Now(), Problem: "a stack rolled back"})
	})
	tr.at(100, func() {
		require.Equal(t, -1, tr.soaked("v2"), "a cluster that went back does not have it")
		require.Equal(t, before+10, tr.soaked("v1"))
		require.Contains(t, tr.held(), "cluster b: an update has failed: a stack rolled back")
		tr.UpdateWorkflowNoRejection(workflows.ResumeName, "", t, workflows.ResumeRequest{Reason: "b is special"})
	})
	tr.at(101, func() {
		require.Contains(t, tr.held(), "an update has failed", "what is forgiven has not soaked all the same")
		tr.SignalWorkflow(workflows.ReportName, workflows.ClusterReport{Cluster: "b", Version: "v2#b", State: rollout.Done, Current: "v2#b", At: tr.Now()})
	})
	tr.at(111, func() {
		require.InDelta(t, 10, tr.soaked("v2"), 1, "from nothing")
		require.InDelta(t, before+20, tr.soaked("v1"), 1)
		tr.CancelWorkflow()
	})
	tr.run()
}

func TestClustersThatAreMadeOrRemovedProveNothing(t *testing.T) {
	tr := newTrain(t)
	watched(tr)
	tr.at(0, func() {
		s := landed(head("v1", "v1", "a b c"), "v1")
		s.Clusters[1].Want.Lifecycle, s.Clusters[1].Want.Current = registry.Requested, ""
		s.Clusters[2].Want.Lifecycle = registry.DecommissionRequested
		tr.sync(s)
	})
	tr.at(11, func() {
		require.Equal(t, []string{"a"}, tr.watched().Clusters)
		require.Equal(t, 10, tr.soaked("v1"))
		tr.CancelWorkflow()
	})
	tr.run()
}

func TestAChannelWithoutClustersSoaksFromTheLanding(t *testing.T) {
	tr := newTrain(t)
	tr.at(0, func() { tr.sync(landed(head("v1", "", ""), "v1")) })
	tr.at(10, func() {
		require.Equal(t, 10, tr.soaked("v1"))
		require.Equal(t, workflows.Watched{Soaks: true}, tr.watched())
		tr.SignalWorkflow(workflows.HealthName, workflows.ChannelHealth{At: tr.Now(), Blocked: "freeze"})
	})
	tr.at(20, func() {
		require.Equal(t, 10, tr.soaked("v1"))
		require.Equal(t, workflows.Watched{Soaks: true, Blocked: "freeze"}, tr.watched())
		tr.SignalWorkflow(workflows.HealthName, workflows.ChannelHealth{At: tr.Now()})
	})
	tr.at(30, func() {
		require.Equal(t, 20, tr.soaked("v1"))
		tr.CancelWorkflow()
	})
	tr.run()
}

func TestAChannelOfManyClustersAndLandingsStaysSmall(t *testing.T) {
	tr := newTrain(t)
	long := strings.Repeat("long ", 200)
	var ids []string
	for i := range 150 {
		ids = append(ids, fmt.Sprintf("c%03d", i))
	}
	tr.at(0, func() {
		s := landed(head("v1", "v1", strings.Join(ids, " ")), "")
		for i := range 400 {
			s.Landings = append(s.Landings, promotion.Landing{Commit: fmt.Sprintf("%040d", i), Title: long, Author: long})
		}
		tr.sync(s)
	})
	tr.at(1, func() {
		health := workflows.ChannelHealth{At: tr.Now(), Blocked: long}
		for _, id := range ids {
			health.Clusters = append(health.Clusters, workflows.ClusterHealth{Cluster: id, Problems: []string{long, long}, Blocked: long})
		}
		tr.SignalWorkflow(workflows.HealthName, health)
		for i := range 80 {
			record := promotion.Record{ID: fmt.Sprint(i), To: "dev", Title: long, Detail: long, Reason: long, Approvals: ids}
			for range 30 {
				record.Gates = append(record.Gates, promotion.GateResult{Name: "gate", Detail: long})
			}
			tr.SignalWorkflow(workflows.PromotedName, record)
		}
	})
	tr.at(2, func() {
		encoded, err := converter.GetDefaultDataConverter().ToPayload(tr.state())
		require.NoError(t, err)
		t.Logf("the state has %d bytes", len(encoded.Data))
		require.Less(t, len(encoded.Data), 700_000, "2 MiB is what Temporal takes")
		tr.CancelWorkflow()
	})
	tr.run()
}

func TestALookIsDoneOnceByAWorkflow(t *testing.T) {
	var suite testsuite.WorkflowTestSuite
	env := suite.NewTestWorkflowEnvironment()
	tries := 0
	env.RegisterActivityWithOptions(func(context.Context, workflows.LookAtHealth) (workflows.LookedAt, error) {
		if tries++; tries == 1 {
			return workflows.LookedAt{}, temporal.NewApplicationError("visibility does not answer", workflows.Unreachable)
		}
		return workflows.LookedAt{Clusters: 3, Unhealthy: []string{"a"}}, nil
	}, activity.RegisterOptions{Name: "LookAtHealth"})
	env.ExecuteWorkflow(workflows.WatchHealth, workflows.LookAtHealth{})
	var looked workflows.LookedAt
	require.NoError(t, env.GetWorkflowResult(&looked))
	require.Equal(t, workflows.LookedAt{Clusters: 3, Unhealthy: []string{"a"}}, looked)
}

func TestWhoseHealthMatters(t *testing.T) {
	tr := newTrain(t)
	waves := func(commit, before string, promoted ...string) workflows.ChannelSync {
		s := landed(head(commit, before, "a b c"), commit)
		s.Promoted, s.Settings.BakeSeconds = promoted, 600
		if len(promoted) == 0 {
			s.SoakSeconds = 0
		}
		return s
	}
	tr.at(0, func() { tr.sync(waves("v1", "v1")) })
	tr.at(1, func() {
		require.Zero(t, tr.watched(), "nobody's where nothing is promoted from, and nobody waits")
		s := waves("v2", "v1")
		s.Settings.Health = true
		tr.sync(s)
	})
	tr.at(5, func() {
		require.Equal(t, workflows.Watched{Clusters: []string{"a"}}, tr.watched(), "those who hold up others")
		tr.sync(waves("v3", "v3", "v2", ""))
	})
	tr.at(7, func() {
		require.Equal(t, workflows.Watched{Soaks: true, Clusters: []string{"a", "b", "c"}}, tr.watched(), "all where something is to be promoted")
		s := waves("v3", "v3", "v3", "v3")
		s.Landings = nil
		tr.sync(s)
	})
	tr.at(8, func() {
		require.Zero(t, tr.watched(), "until all have it")
		tr.CancelWorkflow()
	})
	tr.run()
}

func TestSignalsThatAreNonsenseKeepNoOtherFromBeingHeard(t *testing.T) {
	tr := newTrain(t)
	tr.at(0, func() {
		for _, name := range []string{
			workflows.SyncName, workflows.ReportName, workflows.HealthName, workflows.PromotedName, workflows.RevertedName, workflows.BlockName, workflows.UnblockName,
		} {
			tr.SignalWorkflow(name, []string{"nonsense"})
		}
		tr.sync(head("v1", "v1", "a"))
	})
	tr.at(1, func() {
		require.Equal(t, "v1", tr.state().Commit)
		tr.SignalWorkflow(workflows.BlockName, workflows.BlockRequest{Reason: "incident"})
	})
	tr.at(2, func() {
		require.Len(t, tr.state().Blocks.Holding, 2, "one that was not understood blocks too")
		tr.CancelWorkflow()
	})
	tr.run()
}

func TestLooksThatAreLateOrTwiceAreNoNews(t *testing.T) {
	tr := newTrain(t)
	look := func(at time.Duration, id, problem string) {
		seen := workflows.ClusterHealth{Cluster: id}
		if problem != "" {
			seen.Problems = []string{problem, "more", "and more"}
		}
		tr.SignalWorkflow(workflows.HealthName, workflows.ChannelHealth{At: noon.Add(at), GoodSeconds: 60, Clusters: []workflows.ClusterHealth{seen}})
	}
	tr.at(0, func() { tr.sync(landed(head("v1", "v1", "a"), "v1")) })
	tr.at(10, func() {
		look(9*time.Minute, "a", "")
		look(9*time.Minute, "a", "told twice, differently")
		look(8*time.Minute, "a", "out of order")
		look(9*time.Minute+time.Second, "gone", "has left")
		tr.SignalWorkflow(workflows.HealthName, workflows.ChannelHealth{})
	})
	tr.at(11, func() {
		a := tr.member("a")
		require.Equal(t, noon.Add(9*time.Minute).Unix(), a.HealthyUnix)
		require.Empty(t, a.Sick)
		require.Contains(t, tr.held(), "cluster a: it has not been seen to be healthy since 2026-03-01T12:09:00Z")
		look(99*time.Hour, "a", strings.Repeat("x\x1b[31m", 300)+"\nsecond line")
	})
	tr.at(12, func() {
		require.Equal(t, noon.Add(11*time.Minute), tr.state().Looked.At.UTC(), "no clock is believed to be ahead")
		require.Contains(t, tr.member("a").Sick, "x[31mx[31m")
		require.Contains(t, tr.member("a").Sick, "... (and 2 more)")
		require.Less(t, len(tr.member("a").Sick), 250)
		require.Equal(t, noon.Add(9*time.Minute).Unix(), tr.member("a").HealthyUnix)
		look(12*time.Minute, "a", "")
	})
	tr.at(13, func() {
		require.Empty(t, tr.member("a").Sick)
		tr.CancelWorkflow()
	})
	tr.run()
}

func TestTheNextWaveGoesWhenTheOneBeforeIsHealthyAfterItsBake(t *testing.T) {
	tr := newTrain(t)
	w := watched(tr)
	careful := func(commit, before string) workflows.ChannelSync {
		s := head(commit, before, "a b c")
		s.Settings.Health = true
		return s
	}
	tr.at(0, func() { tr.sync(careful("v1", "v0")) })
	tr.at(5, func() { tr.heard(); w.sick["a"] = "No node is Ready." })
	tr.at(30, func() {
		require.Empty(t, tr.heard())
		require.Len(t, tr.people, 1, "people are told once")
		require.Contains(t, tr.people[0], "No more clusters of channel dev are let go on to v1: 1 cluster is not healthy (a: No node is Ready): mend them")
		require.Contains(t, tr.state().Unhealthy, "1 cluster is not healthy")
		require.Empty(t, tr.state().Stopped)
		delete(w.sick, "a")
	})
	tr.at(32, func() {
		require.Equal(t, "b=v1", tr.heard())
		w.away = true
	})
	tr.at(43, func() {
		require.Empty(t, tr.heard(), "nobody has looked since the bake ended")
		require.Contains(t, tr.state().Unhealthy, "1 cluster has not been seen to be healthy since the bake ended at")
		require.Len(t, tr.people, 1, "that may be on its way")
	})
	tr.at(60, func() {
		require.Len(t, tr.people, 2, "people hear of it by itself")
		require.Contains(t, tr.people[1], "has not been seen to be healthy")
		tr.UpdateWorkflowNoRejection(workflows.ResumeName, "", t, workflows.ResumeRequest{Reason: "the worker cannot reach it", By: "anna"})
	})
	tr.at(61, func() { require.Equal(t, "c=v1", tr.heard()) })
	tr.at(70, func() {
		require.False(t, tr.state().Announced)
		require.True(t, tr.member("b").Forgiven)
		w.away = false
		w.sick["a"], w.sick["b"] = "broken", "broken"
		tr.sync(careful("v2", "v1"))
	})
	tr.at(90, func() {
		require.Equal(t, "a=v2", tr.heard(), "what was forgiven was so for the head of then")
		require.Len(t, tr.people, 3)
		tr.UpdateWorkflowNoRejection(workflows.ResumeName, "", t, workflows.ResumeRequest{Reason: "known", By: "anna"})
		tr.SignalWorkflow(workflows.ReportName, workflows.ClusterReport{Cluster: "a", Version: "v2#a", State: rollout.Done, Current: "v2#a", At: tr.Now()})
	})
	tr.at(91, func() {
		require.Equal(t, "b=v2", tr.heard(), "it stays forgiven when it says once more that it is done")
		tr.UpdateWorkflow(workflows.ResumeName, "", &testsuite.TestUpdateCallback{
			OnAccept: func() { t.Error("accepted") }, OnComplete: func(any, error) {},
			OnReject: func(err error) { require.ErrorContains(t, err, "none that is not healthy holds up others") },
		}, workflows.ResumeRequest{Reason: "x"})
		tr.CancelWorkflow()
	})
	tr.run()
}

func TestLandingsAreKnownOnceAndStraysAreTold(t *testing.T) {
	tr := newTrain(t)
	tr.at(0, func() { tr.sync(landed(head("v3", "v3", "a"), "v1:direct v2:mixed v3:promotion")) })
	tr.at(1, func() {
		require.Empty(t, tr.people, "what was there before is nobody's news")
		require.Equal(t, "v3", tr.synced().Landing)
		require.Empty(t, tr.state().Landings, "they are kept once")
		s := landed(head("v6", "v3", "a"), "v4:direct v5:hotfix v6:mixed")
		s.Landings[0].Title = "evil\x1b[2J title"
		tr.sync(s)
		tr.sync(s)
		missing := head("", "v3", "a")
		missing.Problem = "the branch is gone"
		tr.sync(missing)
	})
	tr.at(2, func() {
		require.Len(t, tr.people, 2)
		require.Contains(t, strings.Join(tr.people, "\n"), "the branch is gone") // they are told side by side, in any order
		require.Contains(t, tr.people, "What has landed on channel dev is neither a promotion nor a hotfix: v4 (evil[2J title) by anna without a pull request; "+
			"v6 (title of v6) by anna with changes of another channel and changes of its own.")
		require.Equal(t, "v6", tr.synced().Landing)
		require.Len(t, tr.state().Promotions.Soak.Landings, 6)
		s := landed(head("v5", "v3", "a"), "v2 v3 v7:direct")
		s.Rewritten = true
		tr.sync(s)
	})
	tr.at(3, func() {
		require.Len(t, tr.state().Promotions.Soak.Landings, 4, "another line: v1 v2 v3 v7")
		require.Len(t, tr.people, 3)
		var many strings.Builder
		for i := range 400 {
			fmt.Fprintf(&many, "m%d:direct ", i)
		}
		tr.sync(landed(head("m399", "v3", "a"), many.String()))
	})
	tr.at(4, func() {
		require.Len(t, tr.state().Promotions.Soak.Landings, promotion.MostLandings)
		require.Contains(t, tr.people[3], "m399 (title of m399) by anna without a pull request; and 395 before that.")
		tr.CancelWorkflow()
	})
	tr.run()
}

func TestPromotionsIntoAChannelAreRemembered(t *testing.T) {
	tr := newTrain(t)
	record := func(id string, outcome promotion.Outcome, ended time.Duration) promotion.Record {
		return promotion.Record{
			ID: "main-to-dev/" + id, From: "main", To: "dev", Candidate: id, Outcome: outcome, Began: noon, Ended: noon.Add(ended), ClosedBy: "ben", PullRequest: 7,
			Title: "a\ttitle",
		}
	}
	send := func(r promotion.Record) { tr.SignalWorkflow(workflows.PromotedName, r) }
	tr.at(0, func() { tr.sync(head("v1", "v1", "a")) })
	tr.at(1, func() {
		send(record("1", promotion.Held, time.Minute))
		send(record("1", promotion.Merged, 2*time.Minute))
		send(record("1", promotion.Held, time.Minute)) // late
		send(record("2", promotion.Refused, 3*time.Minute))
		send(record("2", promotion.Refused, 3*time.Minute)) // told twice
		send(promotion.Record{ID: "main-to-beta/1", To: "beta"})
		send(promotion.Record{To: "dev"})
	})
	tr.at(2, func() {
		p := tr.state().Promotions
		require.Len(t, p.Records, 2)
		require.Equal(t, promotion.Merged, p.Records[0].Outcome)
		require.Equal(t, "atitle", p.Records[0].Title)
		require.Equal(t, []promotion.Refusal{{From: "main", Candidate: "2", PullRequest: 7, By: "ben", At: noon.Add(3 * time.Minute)}}, p.Refused)
		require.Equal(t, map[string]string{"main": "1"}, tr.synced().Merged)
		for i := range 150 {
			send(record(fmt.Sprintf("many%d", i), promotion.Refused, time.Hour))
		}
		again := record("2", "", 0)
		again.Began, again.Ended = noon.Add(4*time.Hour), time.Time{}
		send(again)
	})
	tr.at(3, func() {
		p := tr.state().Promotions
		require.Len(t, p.Records, 50)
		require.Len(t, p.Refused, 100)
		require.Equal(t, "main-to-dev/2", p.Records[49].ID, "begun anew")
		require.Equal(t, "many149", p.Refused[99].Candidate)
		tr.CancelWorkflow()
	})
	tr.run()
}

func TestARevertHoldsUntilSomebodyLiftsIt(t *testing.T) {
	tr := newTrain(t)
	revert := promotion.Revert{ID: "r1", To: "v1", Head: "v3", Bad: []string{"v2", "v3"}, By: "anna", Reason: "it burns.", At: noon}
	send := func(r promotion.Revert) { tr.SignalWorkflow(workflows.RevertedName, r) }
	reject := func(request workflows.LiftRevert, text string) {
		tr.UpdateWorkflow(workflows.LiftRevertName, "", &testsuite.TestUpdateCallback{
			OnAccept: func() { t.Error("accepted") }, OnReject: func(err error) { require.ErrorContains(t, err, text) }, OnComplete: func(any, error) {},
		}, request)
	}
	tr.at(0, func() { tr.sync(head("v3", "v3", "a")) })
	tr.at(1, func() {
		send(revert)
		done := revert
		done.Commit = "v4"
		send(done)
		send(revert) // late
		send(promotion.Revert{ID: "nonsense"})
	})
	tr.at(2, func() {
		reverts := tr.state().Promotions.Reverts
		require.Len(t, reverts, 1)
		require.Equal(t, "v4", reverts[0].Commit)
		require.Equal(t, []string{"anna sets channel dev back to v1: it burns. What has landed after that, up to v3, is promoted nowhere, " +
			"and nothing is promoted into the channel until somebody lifts the revert."}, tr.people, "people are told once")
		reject(workflows.LiftRevert{}, "needs a reason")
		reject(workflows.LiftRevert{ID: "r2", Reason: "x"}, `channel dev has no revert "r2" that is to be lifted`)
		tr.UpdateWorkflow(workflows.LiftRevertName, "", &testsuite.TestUpdateCallback{
			OnAccept: func() {}, OnReject: func(err error) { require.NoError(t, err) },
			OnComplete: func(answer any, err error) {
				require.NoError(t, err)
				require.Len(t, answer, 1)
			},
		}, workflows.LiftRevert{Reason: "mended", By: "ben"})
	})
	tr.at(3, func() {
		send(revert)
		reject(workflows.LiftRevert{Reason: "x"}, "channel dev has no revert that is to be lifted")
	})
	tr.at(4, func() {
		lifted := tr.state().Promotions.Reverts[0]
		require.Equal(t, noon.Add(2*time.Minute), lifted.Lifted.UTC(), "what comes late does not take it back")
		require.Equal(t, "ben", lifted.LiftedBy)
		for i := range 30 {
			next := revert
			next.ID = fmt.Sprintf("many%d", i)
			send(next)
		}
	})
	tr.at(5, func() {
		require.Len(t, tr.state().Promotions.Reverts, 20)
		require.NotEqual(t, "r1", tr.state().Promotions.Reverts[0].ID)
		tr.CancelWorkflow()
	})
	tr.run()
}

func TestALongRunHandsOnWhatSoaks(t *testing.T) {
	first := newTrain(t)
	watched(first)
	first.at(0, func() { first.sync(landed(head("v1", "v1", "a b"), "v1")) })
	first.at(19, func() {
		first.SignalWorkflow(workflows.PromotedName, promotion.Record{ID: "x-to-dev/1", From: "x", To: "dev", Candidate: "1", Outcome: promotion.Merged})
		first.SignalWorkflow(workflows.RevertedName, promotion.Revert{ID: "r1", To: "v0"})
	})
	first.at(20, func() {
		require.InDelta(t, 19, first.soaked("v1"), 1)
		first.SetCurrentHistoryLength(3000)
	})
	first.run()
	state := handedOn(first)

	second := newTrain(t)
	second.SetStartTime(noon.Add(21 * time.Minute))
	watched(second)
	second.at(10, func() {
		require.InDelta(t, 30, second.soaked("v1"), 2)
		p := second.state().Promotions
		require.Len(t, p.Records, 1)
		require.Len(t, p.Reverts, 1)
		require.Equal(t, "v1", second.synced().Landing)
		second.CancelWorkflow()
	})
	second.ExecuteWorkflow(workflows.Channel, state)
	require.Empty(t, second.people)

	third := newTrain(t)
	third.SetCurrentHistoryLength(3000)
	third.RegisterDelayedCallback(func() { third.sync(landed(head("v2", "v1", "a b"), "v2:direct")) }, 0)
	third.ExecuteWorkflow(workflows.Channel, state)
	require.Len(t, third.people, 1, "nobody is forgotten over the next run")
	require.Len(t, handedOn(third).Promotions.Soak.Landings, 2)
}

// handedOn is what the next run of the actor begins with.
func handedOn(tr *train) (state workflows.ChannelState) {
	var next *workflow.ContinueAsNewError
	require.ErrorAs(tr.t, tr.GetWorkflowError(), &next)
	require.NoError(tr.t, converter.GetDefaultDataConverter().FromPayloads(next.Input, &state))
	return state
}

func TestARevertByPullRequestIsCompleteOnceItHasLanded(t *testing.T) {
	tr := newTrain(t)
	tr.at(0, func() { tr.sync(landed(head("m2", "v2", "a"), "m1 m2")) })
	tr.at(1, func() {
		tr.SignalWorkflow(workflows.RevertedName, promotion.Revert{ID: "r", To: "m1", Head: "m2", Bad: []string{"m2"}, PullRequest: 5, By: "ann", Reason: "it breaks"})
	})
	tr.at(2, func() {
		tr.sync(landed(head("m3", "v3", "a"), "m3:revert"))
	})
	tr.at(3, func() {
		require.Equal(t, "m3", tr.state().Promotions.Reverts[0].Commit)
		tr.CancelWorkflow()
	})
	tr.run()
}
