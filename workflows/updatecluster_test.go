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
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/workflow"

	"github.com/fairway-project/fairway/registry"
	"github.com/fairway-project/fairway/rollout"
	"github.com/fairway-project/fairway/workflows"
)

var fromV1 = workflows.UpdateClusterInput{Kind: workflows.Upgrade, From: v1, Last: v3, Attempt: 1}

func TestAnUpdateDoesEverythingInItsOrder(t *testing.T) {
	s := wholeSite()
	outcome := s.update(t, s.environment(t), fromV1)
	require.Equal(t, "done", outcome.Phase)
	require.Equal(t, wholeStory, ordered(s.story))
	require.Equal(t, registry.Status{CurrentVersion: v1, LastVersion: v3, NextVersion: v2}, s.statuses[0].Status)
	require.Equal(t, registry.Status{CurrentVersion: v2, LastVersion: v1}, s.last().Status)
	require.Empty(t, s.last().Lifecycle)
	require.Equal(t, "team", s.told[0].Owner)
	require.Equal(t, "dev-1", outcome.Steps[6].Name[len("stack "):], "steps are named for people")
	require.Equal(t, "removed", outcome.Pools[3].State)
	require.Equal(t, time.Minute, outcome.RetryAfter)
	require.Equal(t, map[string]string{"etcd-dev-1": "", "dev-1": "", "dev-1-master": "master", "dev-1-worker": "worker", "dev-1-spot": "spot", "dev-1-old": "old"},
		s.pools, "the blocks of a pool hold its stack")
}

func TestALeanUpdateAsksForNothingThatIsNotConfigured(t *testing.T) {
	s := newSite()
	s.plan.Notify, s.plan.Deletions, s.plan.Pools = false, 0, nil
	s.owned = nil
	s.update(t, s.environment(t), fromV1)
	require.Equal(t, []string{"status", "prepare 2", "health", "stack etcd-dev-1 2", "stack dev-1 2", "manifests 2", "workloads", "list stacks", "workloads", "health", "status"}, s.story)
}

func TestAnUpdateToTheSameVersionKeepsTheLastOne(t *testing.T) {
	s := newSite()
	s.update(t, s.environment(t), workflows.UpdateClusterInput{Kind: workflows.Upgrade, From: v2, Last: v1})
	require.Equal(t, registry.Status{CurrentVersion: v2, LastVersion: v1}, s.last().Status)
}

func TestANewClusterIsBuiltFromItsStacksUp(t *testing.T) {
	s := newSite()
	s.plan.Settings.Windowed = true // there is nobody yet who could be disrupted
	s.update(t, s.environment(t), workflows.UpdateClusterInput{Kind: workflows.Provision})
	require.Equal(t, []string{
		"status", "prepare 2", "tell update-begins", "stack etcd-dev-1 2", "stack dev-1 2", "API server",
		"stack dev-1-master 2", "stack dev-1-spot 2", "stack dev-1-worker 2",
		"delete objects before", "manifests 2", "delete objects after", "workloads", "workloads", "health", "tell update-done", "status",
	}, ordered(s.story))
	require.Equal(t, registry.Ready, s.last().Lifecycle)
	require.Equal(t, registry.Status{CurrentVersion: v2}, s.last().Status)
}

func TestAClusterIsTakenDownFromItsPools(t *testing.T) {
	s := newSite()
	outcome := s.update(t, s.environment(t), workflows.UpdateClusterInput{Kind: workflows.Decommission, From: v1})
	require.Equal(t, "done", outcome.Phase)
	require.Equal(t, []string{
		"status", "prepare 1", "tell update-begins", "list stacks", "delete stack dev-1-master", "delete stack dev-1-spot", "delete stack dev-1-worker",
		"delete leftovers", "delete stack dev-1", "delete stack etcd-dev-1", "list stacks", "tell update-done", "status",
	}, ordered(s.story))
	require.Equal(t, registry.Decommissioned, s.last().Lifecycle)
	require.Equal(t, registry.Status{LastVersion: v1}, s.last().Status)
	require.Empty(t, s.statuses[0].Status.NextVersion)
}

func TestAVersionThatCannotBeRenderedHindersNoDecommission(t *testing.T) {
	s := newSite()
	slices.Reverse(s.owned)
	s.fail = failing("prepare 2", workflows.InvalidInput)
	outcome := s.update(t, s.environment(t), workflows.UpdateClusterInput{Kind: workflows.Decommission})
	require.Equal(t, "done", outcome.Phase)
	require.Less(t, slices.Index(s.story, "delete stack dev-1"), slices.Index(s.story, "delete stack etcd-dev-1"))
}

func TestADecommissionThatLeavesAStackHasFailed(t *testing.T) {
	s := newSite()
	s.during = func(call string) {
		if call == "delete stack etcd-dev-1" {
			s.owned = append(s.owned, workflows.OwnedStack{Name: "dev-1-new", Pool: "new"})
		}
	}
	outcome := s.update(t, s.environment(t), workflows.UpdateClusterInput{Kind: workflows.Decommission, From: v1})
	require.Equal(t, "failed", outcome.Phase)
	require.Contains(t, outcome.Problems[0].Title, "stacks dev-1-new are left")
	require.Empty(t, s.last().Lifecycle, "it is not decommissioned")
}

func TestARollbackAsksForNoHealth(t *testing.T) {
	s := newSite()
	s.health = []workflows.Health{{Healthy: true}}
	s.update(t, s.environment(t), workflows.UpdateClusterInput{Kind: workflows.Rollback, From: v3, By: "anna", Reason: "it broke"})
	require.Equal(t, workflows.RolledBack, s.told[len(s.told)-1].Kind)
	require.Equal(t, []string{"status", "prepare 2", "tell update-begins", "stack etcd-dev-1 2"}, s.story[:4])
	require.Equal(t, registry.Status{CurrentVersion: v2, LastVersion: v3}, s.last().Status)
}

// failing makes one call fail for good.
func failing(call, kind string) func(string) error {
	return func(name string) error {
		if name == call {
			return final(kind, call+" failed.")
		}
		return nil
	}
}

func TestAFailureStopsTheUpdateWhereItIs(t *testing.T) {
	for _, test := range []struct {
		call, kind string
		changed    bool
	}{
		{"prepare 2", workflows.InvalidInput, false},
		{"prepare 2", workflows.VersionGone, false},
		{"health", workflows.AccessDenied, false},
		{"stack etcd-dev-1 2", workflows.StackFailed, true},
		{"stack dev-1 2", workflows.StackFailed, true},
		{"stack dev-1-worker 2", workflows.StackFailed, true},
		{"delete objects before", workflows.InvalidInput, true},
		{"manifests 2", workflows.Conflict, true},
		{"delete objects after", workflows.InvalidInput, true},
		{"delete objects prune", workflows.InvalidInput, true},
		{"workloads", workflows.Unhealthy, true},
		{"roll master", workflows.BadReplacement, true},
		{"roll worker", workflows.BadReplacement, true},
		{"list stacks", workflows.InvalidInput, true},
		{"empty old", workflows.NoSurgeRoom, true},
		{"delete stack dev-1-old", workflows.StackFailed, true},
	} {
		t.Run(test.call+" "+test.kind, func(t *testing.T) {
			s := wholeSite()
			s.fail = failing(test.call, test.kind)
			outcome := s.update(t, s.environment(t), fromV1)
			require.Equal(t, "failed", outcome.Phase)
			require.Equal(t, test.changed, outcome.Changed)
			require.False(t, outcome.Restored)
			// What others at the same time had begun is seen through, and nothing else is begun.
			done := ordered(s.story)
			at := slices.Index(wholeStory, test.call)
			for _, call := range wholeStory[at+1 : len(wholeStory)-3] {
				if !strings.HasPrefix(call, "stack dev-1-") || !strings.HasPrefix(test.call, "stack dev-1-") {
					require.NotContains(t, slices.DeleteFunc(slices.Clone(done), func(c string) bool { return slices.Contains(wholeStory[:at+1], c) }), call)
				}
			}
			require.Equal(t, []string{"urn:fairway:" + test.kind}, problemTypes(s.last().Status.Problems))
			require.Equal(t, test.call+" failed.", s.last().Status.Problems[0].Title)
			require.Contains(t, s.last().Status.Problems[0].Instance, "cluster/dev-1/update/")
			require.Equal(t, v1, s.last().Status.CurrentVersion)
			if test.changed {
				require.Equal(t, v2, s.last().Status.NextVersion, "it is on its way there")
			}
			require.Equal(t, workflows.UpdateFailed, s.told[len(s.told)-1].Kind)
			require.Contains(t, s.told[len(s.told)-1].Text, " It is tried again in ")
		})
	}
}

func TestAnUnhealthyClusterIsUpdatedOnlyToMendIt(t *testing.T) {
	sick := workflows.Health{Problems: []string{"Node a is not ready.", "b", "c", "d", "e", "f"}}
	s := newSite()
	s.health = []workflows.Health{sick}
	outcome := s.update(t, s.environment(t), fromV1)
	require.Equal(t, "failed", outcome.Phase)
	require.Equal(t, []string{"urn:fairway:Unhealthy"}, problemTypes(outcome.Problems))
	require.Contains(t, outcome.Problems[0].Title, "Node a is not ready. b c d e And 1 more.")
	require.False(t, outcome.Changed)

	s = newSite()
	s.health = []workflows.Health{sick, {Healthy: true}}
	fix := fromV1
	fix.Fix = true
	require.Equal(t, "done", s.update(t, s.environment(t), fix).Phase, "it is looked at only afterwards, until it is well")
	require.Equal(t, 2, count(s.story, "health"))
}

func TestAMomentOfBadHealthStopsNoUpdate(t *testing.T) {
	s := newSite()
	s.health = []workflows.Health{{Problems: []string{"A pod is not ready."}}, {Healthy: true}}
	outcome := s.update(t, s.environment(t), fromV1)
	require.Equal(t, "done", outcome.Phase)
	require.Less(t, outcome.Ended.Sub(outcome.Started), time.Minute)
}

func count(story []string, call string) (n int) {
	for _, c := range story {
		if c == call {
			n++
		}
	}
	return n
}

func TestAClusterHasItsTimeToBecomeHealthy(t *testing.T) {
	s := newSite()
	s.health = []workflows.Health{{Healthy: true}, {Problems: []string{"A pod is not ready."}}}
	env := s.environment(t)
	outcome := s.update(t, env, fromV1)
	require.Equal(t, "failed", outcome.Phase)
	require.Contains(t, outcome.Problems[0].Title, "has not become healthy within 15m0s: A pod is not ready.")
	require.Less(t, count(s.story, "health"), 15, "the looks are few")
	require.Greater(t, outcome.Ended.Sub(outcome.Started), 10*time.Minute)
}

func TestAClusterThatDoesNotAnswerAfterAnUpdateIsNotHealthy(t *testing.T) {
	for _, call := range []string{"workloads", "health"} {
		t.Run(call, func(t *testing.T) {
			s := newSite()
			s.fail = func(name string) error {
				if name == call && slices.Contains(s.story, "list stacks") {
					return temporal.NewApplicationErrorWithOptions("The API server does not answer.", workflows.Unreachable, temporal.ApplicationErrorOptions{NextRetryDelay: 5 * time.Minute})
				}
				return nil
			}
			outcome := s.update(t, s.environment(t), fromV1)
			require.Equal(t, "failed", outcome.Phase)
			require.Contains(t, outcome.Problems[0].Title, "The API server does not answer.")
			require.Less(t, outcome.Ended.Sub(noon), time.Hour)
		})
	}
}

func TestAFailedUpdateGoesBackByItselfWhereThatIsConfigured(t *testing.T) {
	for _, call := range []string{"stack dev-1 2", "manifests 2", "roll worker"} {
		t.Run(call, func(t *testing.T) {
			s := newSite()
			s.plan.Settings.Rollback = true
			failed := false
			s.fail = func(name string) error {
				if name == call && !failed {
					failed = true
					return final(workflows.StackFailed, "It broke.")
				}
				return nil
			}
			outcome := s.update(t, s.environment(t), fromV1)
			require.Equal(t, "failed", outcome.Phase, "it has not got to the version")
			require.True(t, outcome.Restored)
			back := ordered(s.story[slices.Index(s.story, "prepare 1"):])
			require.Equal(t, []string{
				"prepare 1", "stack etcd-dev-1 1", "stack dev-1 1", "stack dev-1-master 1", "stack dev-1-spot 1", "stack dev-1-worker 1",
				"delete objects before", "manifests 1", "delete objects after", "workloads", "roll master", "roll worker", "roll spot", "list stacks",
				"workloads", "health", "tell rolled-back", "status",
			}, back)
			require.Equal(t, v1, s.last().Status.CurrentVersion)
			require.Empty(t, s.last().Status.NextVersion)
			require.Equal(t, "It broke.", s.last().Status.Problems[0].Title)
			require.Contains(t, s.told[len(s.told)-1].Text, "It is back at version 11111111#11111111. It is not tried again by itself.")
		})
	}
}

func TestNothingGoesBackThatWasNotChangedOrThatAPersonStopped(t *testing.T) {
	s := newSite()
	s.plan.Settings.Rollback = true
	s.fail = failing("prepare 2", workflows.InvalidInput)
	require.False(t, s.update(t, s.environment(t), fromV1).Restored)
	require.NotContains(t, s.story, "prepare 1")

	s = newSite()
	s.plan.Settings.Rollback = true
	s.roll = func(workflow.Context, workflows.RollPoolInput) (workflows.RollProgress, error) {
		return workflows.RollProgress{Phase: "stopped", Nodes: []workflows.NodeProgress{{State: workflows.Waiting}}}, nil
	}
	outcome := s.update(t, s.environment(t), fromV1)
	require.Equal(t, []string{"urn:fairway:Stopped"}, problemTypes(outcome.Problems))
	require.NotContains(t, s.story, "prepare 1")
}

func TestAFailedRollbackIsAProblemToo(t *testing.T) {
	s := newSite()
	s.plan.Settings.Rollback = true
	s.fail = func(call string) error {
		if call == "manifests 2" || call == "stack dev-1 1" {
			return final(workflows.StackFailed, call+" broke.")
		}
		return nil
	}
	outcome := s.update(t, s.environment(t), fromV1)
	require.False(t, outcome.Restored)
	require.Len(t, outcome.Problems, 2)
	require.Equal(t, "going back to version 11111111#11111111 failed too: stack dev-1 1 broke.", outcome.Problems[1].Title)
	require.Equal(t, v2, s.last().Status.NextVersion)
}

func TestAnActivityThatFailsForAWhileDelaysAnUpdateAndNothingElse(t *testing.T) {
	for _, call := range slices.Compact(slices.Sorted(slices.Values(wholeStory))) {
		if strings.HasPrefix(call, "roll") || strings.HasPrefix(call, "empty") {
			continue // what RollPool does about that has its own tests
		}
		t.Run(call, func(t *testing.T) {
			s := wholeSite()
			times := 2
			s.fail = func(name string) error {
				if name == call && times > 0 {
					times--
					return temporal.NewApplicationError("gone for a while", workflows.Unreachable)
				}
				return nil
			}
			require.Equal(t, "done", s.update(t, s.environment(t), fromV1).Phase)
			require.Equal(t, slices.Compact(wholeStory), slices.Compact(ordered(s.story)))
		})
	}
}

func TestASupersededUpdateEndsAtTheNextSafePoint(t *testing.T) {
	next := map[string][]string{ // what still belongs to a call
		"delete objects before": {"manifests 2", "delete objects after", "delete objects prune"},
		"manifests 2":           {"delete objects after", "delete objects prune"},
		"delete objects after":  {"delete objects prune"},
	}
	for at, call := range wholeStory[:21] { // up to the removal of the old pool
		t.Run(fmt.Sprint(at, " ", call), func(t *testing.T) {
			s := wholeSite()
			env := s.environment(t)
			done := false
			s.during = func(name string) {
				if name == call && !done {
					done = true
					env.SignalWorkflow(workflows.SupersedeName, v3)
				}
			}
			outcome := s.update(t, env, fromV1)
			require.Equal(t, "superseded", outcome.Phase)
			require.Equal(t, at >= 11 && at < 16, outcome.Unready, "from the deletions before the manifests to the workloads")
			require.Equal(t, v3, outcome.Superseded)
			require.Empty(t, outcome.Problems)
			require.Equal(t, slices.ContainsFunc(s.story, func(c string) bool { return strings.HasPrefix(c, "stack") }), outcome.Changed)
			begun := ordered(s.story)
			begun = begun[slices.Index(begun, call)+1:]
			for len(begun) > 0 && strings.HasPrefix(call, "stack dev-1-") && strings.HasPrefix(begun[0], "stack dev-1-") {
				begun = begun[1:] // at the same time
			}
			begun = slices.DeleteFunc(begun, func(c string) bool { return c == "end turn" || c == "status" || c == "tell update-begins" })
			require.Equal(t, len(next[call]), len(begun), "%v", begun)
			require.Subset(t, next[call], begun)
			require.Equal(t, v1, s.last().Status.CurrentVersion)
		})
	}
}

func TestAnUpdateThatIsVerifyingIsSeenThrough(t *testing.T) {
	s := newSite()
	env := s.environment(t)
	s.health = []workflows.Health{{Healthy: true}, {Problems: []string{"Not yet."}}, {Healthy: true}}
	s.during = func(call string) {
		if call == "health" && count(s.story, call) == 2 {
			env.SignalWorkflow(workflows.SupersedeName, v3)
		}
	}
	require.Equal(t, "done", s.update(t, env, fromV1).Phase)
}

// lasting is a roll that lasts until it is told to stop, or cancelled.
func lasting(stopped *[]string) func(workflow.Context, workflows.RollPoolInput) (workflows.RollProgress, error) {
	return func(ctx workflow.Context, in workflows.RollPoolInput) (workflows.RollProgress, error) {
		progress := workflows.RollProgress{Phase: "stopped", Nodes: []workflows.NodeProgress{
			{Node: "a", State: workflows.Replaced, Evicted: 4, Forced: []workflows.ForcedPod{{Pod: "x/y"}}}, {Node: "b", State: workflows.Waiting},
		}}
		asked, why := false, ""
		workflow.Go(ctx, func(ctx workflow.Context) {
			workflow.GetSignalChannel(ctx, workflows.StopName).Receive(ctx, &why)
			asked = true
		})
		if err := workflow.Await(ctx, func() bool { return asked }); err != nil {
			return progress, err
		}
		*stopped = append(*stopped, in.Pool+": "+why)
		return progress, nil
	}
}

func TestASupersededUpdateHasItsRollsEndAfterTheBatchInHand(t *testing.T) {
	s := newSite()
	s.plan.Settings.ParallelPools = 2
	s.plan.Pools = s.plan.Pools[1:]
	s.owned = nil
	var stopped []string
	s.roll = lasting(&stopped)
	env := s.environment(t)
	env.RegisterDelayedCallback(func() { env.SignalWorkflow(workflows.SupersedeName, v3) }, time.Hour)
	outcome := s.update(t, env, fromV1)
	require.Equal(t, "superseded", outcome.Phase)
	require.ElementsMatch(t, []string{"worker: version 33333333#33333333 is wanted instead", "spot: version 33333333#33333333 is wanted instead"}, stopped)
	require.Equal(t, workflows.PoolProgress{Pool: "worker", Workflow: "cluster/dev-1/pool/worker", State: "stopped", Nodes: 2, Replaced: 1}, outcome.Pools[0])
	require.Equal(t, 8, outcome.Evicted)
	require.Len(t, outcome.Forced, 2)
}

func TestAFailedRollHasTheOthersEndAfterTheBatchInHand(t *testing.T) {
	s := newSite()
	s.plan.Settings.ParallelPools = 2
	s.plan.Pools = append(s.plan.Pools[1:], workflows.PlannedPool{Name: "third", Stack: "dev-1-third"})
	s.owned = nil
	var stopped []string
	last := lasting(&stopped)
	s.roll = func(ctx workflow.Context, in workflows.RollPoolInput) (workflows.RollProgress, error) {
		if in.Pool == "spot" {
			_ = workflow.Sleep(ctx, time.Hour)
			return workflows.RollProgress{Phase: "failed"}, final(workflows.BadReplacement, "no new node comes up.")
		}
		return last(ctx, in)
	}
	outcome := s.update(t, s.environment(t), fromV1)
	require.Equal(t, []string{"urn:fairway:BadReplacement"}, problemTypes(outcome.Problems))
	require.Equal(t, []string{"worker: another part of the update has failed"}, stopped)
	require.NotContains(t, s.story, "roll third")
	require.Equal(t, []string{"stopped", "failed", "waiting"}, []string{outcome.Pools[0].State, outcome.Pools[1].State, outcome.Pools[2].State})
}

func TestWorkersAreRolledSoManyPoolsAtATimeAndAfterTheControlPlane(t *testing.T) {
	s := newSite()
	s.plan.Settings.ParallelPools = 2
	s.plan.Pools = []workflows.PlannedPool{
		{Name: "a", Stack: "sa"}, {Name: "b", Stack: "sb"}, {Name: "c", Stack: "sc"},
		{Name: "m1", Stack: "sm1", ControlPlane: true}, {Name: "m2", Stack: "sm2", ControlPlane: true},
	}
	s.owned = nil
	running, most := 0, map[string]int{}
	s.roll = func(ctx workflow.Context, in workflows.RollPoolInput) (workflows.RollProgress, error) {
		s.mu.Lock()
		running++
		most[in.Pool] = running
		s.mu.Unlock()
		_ = workflow.Sleep(ctx, time.Hour)
		s.mu.Lock()
		running--
		s.mu.Unlock()
		return workflows.RollProgress{Phase: "done"}, nil
	}
	s.update(t, s.environment(t), fromV1)
	rolls := slices.DeleteFunc(slices.Clone(s.story), func(c string) bool { return !strings.HasPrefix(c, "roll") })
	require.Equal(t, []string{"roll m1", "roll m2"}, rolls[:2])
	require.Len(t, rolls, 5)
	require.Equal(t, []int{1, 1}, []int{most["m1"], most["m2"]})
	require.Equal(t, 2, max(most["a"], most["b"], most["c"]))
}

func TestACancelledUpdateLeavesNothingRunning(t *testing.T) {
	for at, call := range wholeStory[:24] {
		t.Run(fmt.Sprint(at, " ", call), func(t *testing.T) {
			s := wholeSite()
			s.plan.Settings.Rollback = true
			env := s.environment(t)
			done, seen := false, 0
			s.during = func(name string) {
				if seen++; name == call && !done && seen > at-5 {
					done = true
					env.CancelWorkflow()
				}
			}
			outcome := s.update(t, env, fromV1)
			if call == "health" && at > 20 && outcome.Phase == "done" {
				return // it was the last thing to do
			}
			require.Equal(t, "cancelled", outcome.Phase)
			require.Equal(t, []string{"urn:fairway:Cancelled"}, problemTypes(s.last().Status.Problems))
			require.NotContains(t, s.story, "prepare 1", "a person who cancels wants no more changes")
			require.Equal(t, "status", s.story[len(s.story)-1])
		})
	}
}

func TestACancelledUpdateCancelsItsRollsAndWaitsForThem(t *testing.T) {
	s := newSite()
	undone := false
	s.roll = func(ctx workflow.Context, _ workflows.RollPoolInput) (workflows.RollProgress, error) {
		err := workflow.Sleep(ctx, 30*24*time.Hour)
		own, stop := workflow.NewDisconnectedContext(ctx)
		defer stop()
		_ = workflow.Sleep(own, time.Minute)
		undone = true
		return workflows.RollProgress{}, err
	}
	env := s.environment(t)
	env.RegisterDelayedCallback(env.CancelWorkflow, time.Hour)
	outcome := s.update(t, env, fromV1)
	require.Equal(t, "cancelled", outcome.Phase)
	require.True(t, undone)
	require.Equal(t, noon.Add(time.Hour+time.Minute), outcome.Ended)
}

func TestAWindowIsWaitedForInOneActivity(t *testing.T) {
	s := newSite()
	s.plan.Settings.Windowed = true
	s.plan.Settings.Limits = rollout.Limits{Fleet: 5}
	env := s.environment(t)
	s.fail = func(call string) error {
		if call == "window" && env.Now().Before(noon.Add(72*time.Hour)) {
			return temporal.NewApplicationErrorWithOptions("closed", workflows.WindowClosed, temporal.ApplicationErrorOptions{NextRetryDelay: 10 * time.Hour})
		}
		return nil
	}
	scheduled := 0
	env.SetOnActivityStartedListener(func(info *activity.Info, _ context.Context, _ converter.EncodedValues) {
		if info.ActivityType.Name == "AwaitWindow" && info.Attempt == 1 {
			scheduled++
		}
	})
	outcome := s.update(t, env, fromV1)
	require.Equal(t, "done", outcome.Phase)
	require.GreaterOrEqual(t, outcome.Ended.Sub(noon), 72*time.Hour)
	require.Equal(t, 1, scheduled)
	require.Equal(t, 3, count(s.story, "health"), "after such a wait it is looked at again")
}

func TestAWaitForAWindowEndsWhenAnotherVersionIsWanted(t *testing.T) {
	s := newSite()
	s.plan.Settings.Windowed = true
	s.fail = func(call string) error {
		if call == "window" {
			return temporal.NewApplicationErrorWithOptions("closed", workflows.WindowClosed, temporal.ApplicationErrorOptions{NextRetryDelay: 10 * time.Hour})
		}
		return nil
	}
	env := s.environment(t)
	env.RegisterDelayedCallback(func() { env.SignalWorkflow(workflows.SupersedeName, v3) }, time.Hour)
	outcome := s.update(t, env, fromV1)
	require.Equal(t, "superseded", outcome.Phase)
	require.Equal(t, noon.Add(time.Hour), outcome.Ended)
	require.False(t, outcome.Changed)
	require.Empty(t, s.last().Status.NextVersion)
}

func TestManifestsMayChangeOutsideOfWindowsWhereThatIsConfigured(t *testing.T) {
	for _, changing := range []bool{false, true} {
		t.Run(fmt.Sprint("stacks change: ", changing), func(t *testing.T) {
			s := newSite()
			s.plan.Settings.Windowed, s.plan.Settings.ManifestsAnytime, s.changing = true, true, changing
			require.Equal(t, "done", s.update(t, s.environment(t), fromV1).Phase)
			require.Equal(t, changing, slices.Contains(s.story, "window"))
			require.Contains(t, s.story, "plan stack dev-1-spot")
		})
	}
}

func TestAWindowThatClosesWhileTheTurnIsWaitedForIsWaitedForAgain(t *testing.T) {
	s := newSite()
	s.plan.Settings.Windowed = true
	s.plan.Settings.Limits = rollout.Limits{Account: 1}
	env := s.environment(t)
	full := 1
	s.fail = func(call string) error {
		switch {
		case call == "turn" && full > 0:
			full--
			return temporal.NewApplicationErrorWithOptions("full", workflows.Unreachable, temporal.ApplicationErrorOptions{NextRetryDelay: time.Hour})
		case call == "window" && count(s.story, "window") == 2:
			return temporal.NewApplicationError("closed", workflows.WindowClosed)
		}
		return nil
	}
	require.Equal(t, "done", s.update(t, env, fromV1).Phase)
	waits := slices.DeleteFunc(slices.Clone(s.story), func(c string) bool { return c != "window" && c != "turn" && c != "end turn" })
	require.Equal(t, []string{"window", "turn", "turn", "window", "end turn", "window", "turn", "end turn"}, waits)
}

func TestARollThatSomebodyElseRunsIsWaitedFor(t *testing.T) {
	s := newSite()
	s.plan.Pools = s.plan.Pools[1:2]
	s.owned = nil
	both := func(ctx workflow.Context) error {
		workflow.ExecuteChildWorkflow(workflow.WithChildOptions(ctx, workflow.ChildWorkflowOptions{WorkflowID: "cluster/dev-1/pool/worker"}), "RollPool", workflows.RollPoolInput{Pool: "by anna"})
		var outcome workflows.UpdateProgress
		in := fromV1
		in.Cluster, in.Version = "dev-1", v2
		return workflow.ExecuteChildWorkflow(workflow.WithChildOptions(ctx, workflow.ChildWorkflowOptions{WorkflowID: "cluster/dev-1/update"}), workflows.UpdateCluster, in).Get(ctx, &outcome)
	}
	env := s.environment(t, func(env *testsuite.TestWorkflowEnvironment) {
		env.RegisterWorkflowWithOptions(both, workflow.RegisterOptions{Name: "both"})
	})
	s.roll = func(ctx workflow.Context, in workflows.RollPoolInput) (workflows.RollProgress, error) {
		if in.Pool == "by anna" {
			return workflows.RollProgress{Phase: "done"}, workflow.Sleep(ctx, time.Hour)
		}
		return workflows.RollProgress{Phase: "done"}, nil
	}
	s.fail = func(call string) error {
		if strings.HasPrefix(call, "await end") && env.Now().Before(noon.Add(time.Hour)) {
			return temporal.NewApplicationErrorWithOptions("still running", workflows.StillRunning, temporal.ApplicationErrorOptions{NextRetryDelay: 20 * time.Minute})
		}
		return nil
	}
	env.SetStartWorkflowOptions(client.StartWorkflowOptions{ID: "both", TaskQueue: "test"})
	env.ExecuteWorkflow("both")
	require.NoError(t, env.GetWorkflowError())
	require.Equal(t, "done", s.outcomes[0].Phase)
	require.Contains(t, s.story, "await end of cluster/dev-1/pool/worker")
	require.Contains(t, s.story, "roll worker")
}

func TestAProgressCanBeAskedFor(t *testing.T) {
	s := newSite()
	s.roll = func(ctx workflow.Context, _ workflows.RollPoolInput) (workflows.RollProgress, error) {
		return workflows.RollProgress{Phase: "done"}, workflow.Sleep(ctx, time.Hour)
	}
	env := s.environment(t)
	env.RegisterDelayedCallback(func() {
		answer, err := env.QueryWorkflow(workflows.ProgressQuery)
		require.NoError(t, err)
		var progress workflows.UpdateProgress
		require.NoError(t, answer.Get(&progress))
		require.Equal(t, "pools", progress.Phase)
		require.Equal(t, "pool master", progress.Step)
		require.Equal(t, "rolling", progress.Pools[0].State)
	}, 30*time.Minute)
	require.Equal(t, "done", s.update(t, env, fromV1).Phase)
}

func TestABlockKeepsAnUpdateFromBeginning(t *testing.T) {
	for _, kind := range []workflows.UpdateKind{workflows.Upgrade, workflows.Rollback, workflows.Provision, workflows.Decommission} {
		t.Run(string(kind), func(t *testing.T) {
			s := newSite()
			s.plan.Settings.Limits = rollout.Limits{Fleet: 5}
			env := s.environment(t)
			s.blocked = func() string {
				if env.Now().Before(noon.Add(8 * time.Hour)) {
					return "blocked by anna (fleet): sale"
				}
				return ""
			}
			outcome := s.update(t, env, workflows.UpdateClusterInput{Kind: kind, From: v1})
			require.Equal(t, "done", outcome.Phase, "%v", outcome.Problems)
			held := slices.Compact(slices.Clone(s.story))
			require.Equal(t, []string{"blocked", "status"}, held[:2], "nothing begins before, and no turn is held")
		})
	}
}

func TestABlockThatComesWhileTheTurnIsWaitedForGivesItBack(t *testing.T) {
	s := newSite()
	s.plan.Settings.Limits = rollout.Limits{Account: 1}
	env := s.environment(t)
	full := 1
	s.fail = func(call string) error {
		if call == "turn" && full > 0 {
			full--
			return temporal.NewApplicationErrorWithOptions("full", workflows.Unreachable, temporal.ApplicationErrorOptions{NextRetryDelay: time.Hour})
		}
		return nil
	}
	s.blocked = func() string {
		if now := env.Now().Sub(noon); now > 30*time.Minute && now < 5*time.Hour {
			return "blocked by anna (channel dev): sale"
		}
		return ""
	}
	require.Equal(t, "done", s.update(t, env, fromV1).Phase)
	waits := slices.Compact(slices.DeleteFunc(slices.Clone(s.story), func(c string) bool { return c != "blocked" && c != "turn" && c != "end turn" }))
	require.Equal(t, []string{"turn", "blocked", "end turn", "blocked", "turn", "end turn"}, waits)
}

func TestAClusterThatIsToStayAfterAllIsNotDeleted(t *testing.T) {
	s := newSite()
	s.lifecycle = registry.Ready // whatever was heard before
	outcome := s.update(t, s.environment(t), workflows.UpdateClusterInput{Kind: workflows.Decommission, From: v1})
	require.Equal(t, []string{"urn:fairway:Stopped"}, problemTypes(outcome.Problems))
	require.Contains(t, outcome.Problems[0].Title, "nothing more of it is deleted")
	require.Equal(t, "The decommission of cluster dev-1 failed: cluster dev-1 is not decommission-requested in the registry any more, so nothing more of it is deleted. Nothing was changed. It is not tried again by itself.",
		s.told[len(s.told)-1].Text)
	require.False(t, outcome.Changed)
	require.Empty(t, slices.DeleteFunc(s.story, func(c string) bool { return !strings.HasPrefix(c, "delete") }))

	for call, rest := range map[string]int{ // what may still follow a change of mind
		"prepare 1": 0, "list stacks": 0, "delete stack dev-1-master": 2, "delete leftovers": 0, "delete stack dev-1": 0,
	} {
		t.Run("during "+call, func(t *testing.T) {
			s := newSite()
			env := s.environment(t)
			s.during = func(name string) {
				if name == call {
					s.lifecycle = registry.Ready
					env.SignalWorkflow(workflows.SupersedeName, v2)
				}
			}
			require.Equal(t, "superseded", s.update(t, env, workflows.UpdateClusterInput{Kind: workflows.Decommission, From: v1}).Phase)
			after := slices.DeleteFunc(s.story[slices.Index(s.story, call)+1:], func(c string) bool { return !strings.HasPrefix(c, "delete") })
			require.LessOrEqual(t, len(after), rest, "%v", after)
		})
	}
}

func TestAVersionWithoutAnyPoolRemovesNoPool(t *testing.T) {
	s := newSite()
	s.plan.Pools = nil
	outcome := s.update(t, s.environment(t), fromV1)
	require.Equal(t, []string{"urn:fairway:InvalidInput"}, problemTypes(outcome.Problems))
	require.Contains(t, outcome.Problems[0].Title, "has no pool at all, but the cluster has 3")
	require.NotContains(t, s.story, "empty worker")
}

func TestWhoCancelsAnUpdateThatGoesBackHasItEndThere(t *testing.T) {
	s := newSite()
	s.plan.Settings.Rollback = true
	env := s.environment(t)
	s.fail = failing("manifests 2", workflows.Conflict)
	s.during = func(call string) {
		if call == "stack dev-1 1" {
			env.CancelWorkflow()
		}
	}
	outcome := s.update(t, env, fromV1)
	require.Equal(t, "cancelled", outcome.Phase, "a cancelled update is not tried again by itself")
	require.Equal(t, []string{"urn:fairway:Conflict", "urn:fairway:Cancelled"}, problemTypes(outcome.Problems))
}

func TestTheRollsOfAClusterThatIsToGoEndFirst(t *testing.T) {
	s := newSite()
	s.rolls = []string{workflows.RollPoolID("dev-1", "worker")}
	require.Equal(t, "done", s.update(t, s.environment(t), workflows.UpdateClusterInput{Kind: workflows.Decommission, From: v1}).Phase)
	at := slices.Index(s.story, "cancel cluster/dev-1/pool/worker")
	require.Equal(t, "await end of cluster/dev-1/pool/worker", s.story[at+1])
	require.Equal(t, 1, count(s.story, "await end of cluster/dev-1/pool/worker"))
	for _, later := range s.story[:at] {
		require.NotContains(t, later, "delete")
	}
}

func TestARollThatDoesNotEndKeepsNoClusterFromGoing(t *testing.T) {
	s := newSite()
	s.rolls = []string{workflows.RollPoolID("dev-1", "worker")}
	s.fail = func(call string) error {
		if strings.HasPrefix(call, "await end") {
			return temporal.NewApplicationErrorWithOptions("still running", workflows.StillRunning, temporal.ApplicationErrorOptions{NextRetryDelay: 4 * time.Minute})
		}
		return nil
	}
	outcome := s.update(t, s.environment(t), workflows.UpdateClusterInput{Kind: workflows.Decommission, From: v1})
	require.Equal(t, "done", outcome.Phase)
	require.Less(t, outcome.Ended.Sub(noon), 20*time.Minute)
}

func TestWhatDoesNotAnswerForAMomentFailsNoUpdateBeforeItBegins(t *testing.T) {
	for _, call := range []string{"prepare 2", "health"} {
		for lasts, phase := range map[time.Duration]string{3 * time.Minute: "done", 48 * time.Hour: "failed"} {
			s := newSite()
			env := s.environment(t)
			s.fail = func(name string) error {
				if name == call && env.Now().Before(noon.Add(lasts)) {
					return temporal.NewApplicationErrorWithOptions("It does not answer.", workflows.Unreachable, temporal.ApplicationErrorOptions{NextRetryDelay: 30 * time.Second * time.Duration(1+lasts/time.Hour)})
				}
				return nil
			}
			outcome := s.update(t, env, fromV1)
			require.Equal(t, phase, outcome.Phase, call)
			require.Less(t, outcome.Ended.Sub(noon), 20*time.Minute)
			if phase == "failed" {
				require.Equal(t, []string{"urn:fairway:Unreachable"}, problemTypes(outcome.Problems))
			}
		}
	}
}

func TestAPoolThatAnUpdateAddsHasToGetItsNodes(t *testing.T) {
	for rule, c := range map[string]struct {
		kind    workflows.UpdateKind
		before  bool // an update before this one has added it
		noNodes []string
		becomes bool
		phase   string
	}{
		"and has them":                     {phase: "done"},
		"and gets them in time":            {noNodes: []string{"i-old1"}, becomes: true, phase: "done"},
		"or else it is unhealthy":          {noNodes: []string{"i-old1"}, phase: "failed"},
		"also if an update before did":     {before: true, noNodes: []string{"i-old1"}, phase: "failed"},
		"which it is forgiven in time":     {before: true, noNodes: []string{"i-old1"}, becomes: true, phase: "done"},
		"also on the way back":             {kind: workflows.Rollback, before: true, noNodes: []string{"i-old1"}, phase: "failed"},
		"as a new cluster has to have all": {kind: workflows.Provision, noNodes: []string{"i-old1"}, phase: "failed"},
	} {
		t.Run(rule, func(t *testing.T) {
			s, w := newSite(), newWorldOf("a", "b")
			in := fromV1
			in.Kind = c.kind
			if c.before {
				in.Added = []string{"spot", "of another version"}
			} else {
				s.created = []string{"dev-1-spot"}
			}
			nodes := slices.Clone(w.nodes)
			w.zombies(c.noNodes...)
			looks := 0
			w.fail = func(activity string) error {
				if activity == "ExaminePool" {
					if looks++; looks == 3 && c.becomes {
						w.nodes = nodes
					}
				}
				return nil
			}
			outcome := s.update(t, s.environment(t, func(env *testsuite.TestWorkflowEnvironment) {
				env.RegisterActivity(w.ExaminePool)
				env.RegisterActivity(w.SurveyPool)
			}), in)
			require.Equal(t, c.phase, outcome.Phase)
			require.Positive(t, looks)
			require.Less(t, looks, 20, "the looks are few")
			require.Equal(t, c.phase == "failed", slices.Contains(outcome.Added, "spot"), "the next update waits for them too")
			if c.phase == "failed" {
				require.Equal(t, []string{"urn:fairway:Unhealthy"}, problemTypes(outcome.Problems))
				require.Contains(t, outcome.Problems[0].Title, "the new pool spot has not got its nodes within 15m0s: 1 of 2 nodes are ready; no ready nodes are instances i-old1")
			}
		})
	}
}

func TestAPoolThatIsRemovedIsWaitedForNoMore(t *testing.T) {
	s := wholeSite()
	s.fail = func(call string) error {
		if call == "workloads" && slices.Contains(s.story, "delete stack dev-1-old") {
			return final(workflows.Unhealthy, "A pod is not ready.")
		}
		return nil
	}
	in := fromV1
	in.Added = []string{"old"}
	outcome := s.update(t, s.environment(t), in)
	require.Equal(t, "failed", outcome.Phase)
	require.Empty(t, outcome.Added)
}

func TestWhatDoesNotAnswerOrRefusesForLongFailsAnUpdateThatHasBegun(t *testing.T) {
	for _, call := range []string{"stack dev-1 2", "delete objects before", "manifests 2", "list stacks", "delete stack dev-1-old"} {
		for _, test := range []struct {
			kind          string
			lasts, within time.Duration
			phase         string
		}{
			{workflows.AccessDenied, 2 * time.Minute, 10 * time.Minute, "done"},
			{workflows.AccessDenied, 48 * time.Hour, 10 * time.Minute, "failed"},
			{workflows.Unreachable, 20 * time.Minute, 40 * time.Minute, "done"},
			{workflows.Unreachable, 48 * time.Hour, 40 * time.Minute, "failed"},
			{workflows.Blocked, 48 * time.Hour, 55 * time.Hour, "done"}, // there is no limit to a block
		} {
			t.Run(fmt.Sprint(call, " ", test.kind, " ", test.lasts), func(t *testing.T) {
				s := wholeSite()
				env := s.environment(t)
				s.fail = func(name string) error {
					if name != call || !env.Now().Before(noon.Add(test.lasts)) {
						return nil
					}
					options := temporal.ApplicationErrorOptions{}
					if test.kind == workflows.Blocked {
						options.NextRetryDelay = 10 * time.Hour
					}
					return temporal.NewApplicationErrorWithOptions("It is not to be.", test.kind, options)
				}
				outcome := s.update(t, env, fromV1)
				require.Equal(t, test.phase, outcome.Phase, "%v", outcome.Problems)
				require.Less(t, outcome.Ended.Sub(noon), test.within)
				if test.phase == "failed" {
					require.Greater(t, outcome.Ended.Sub(noon), test.within*2/5, "it has had its time")
					require.Equal(t, []string{"urn:fairway:" + test.kind}, problemTypes(s.last().Status.Problems))
					require.Less(t, count(s.story, call), 40, "the attempts that the history has are few")
					require.Equal(t, workflows.UpdateFailed, s.told[len(s.told)-1].Kind)
				}
			})
		}
	}
}

func TestWorkersThatStopFailNoUpdateHoweverOftenTheyDo(t *testing.T) {
	s := newSite()
	env := s.environment(t)
	attempts := 0
	s.fail = func(name string) error {
		if name == "stack dev-1 2" && env.Now().Before(noon.Add(3*time.Hour)) {
			attempts++
			kind, options := workflows.Blocked, temporal.ApplicationErrorOptions{NextRetryDelay: 10 * time.Minute}
			if attempts%2 == 0 {
				kind, options.Category = workflows.Unreachable, temporal.ApplicationErrorCategoryBenign
			}
			return temporal.NewApplicationErrorWithOptions("The worker stops.", kind, options)
		}
		return nil
	}
	require.Equal(t, "done", s.update(t, env, fromV1).Phase)
	require.Greater(t, attempts, 30)
}

func TestAWayBackWaitsForNoWindowAndItsRollsDoNotEither(t *testing.T) {
	urgent := map[string]bool{}
	roll := func(_ workflow.Context, in workflows.RollPoolInput) (workflows.RollProgress, error) {
		urgent[in.Pool] = in.Urgent
		return workflows.RollProgress{Phase: "done"}, nil
	}
	s := wholeSite()
	s.plan.Settings.ManifestsAnytime = true
	s.roll = roll
	require.Equal(t, "done", s.update(t, s.environment(t), workflows.UpdateClusterInput{Kind: workflows.Rollback, From: v3, By: "anna"}).Phase)
	require.NotContains(t, s.story, "window")
	require.Contains(t, s.story, "turn", "the limits hold")
	require.Equal(t, map[string]bool{"master": true, "worker": true, "spot": true, "old": true}, urgent)

	s = wholeSite()
	s.plan.Settings.Rollback = true
	var tries []bool
	s.roll = func(ctx workflow.Context, in workflows.RollPoolInput) (workflows.RollProgress, error) {
		if in.Pool == "master" {
			if tries = append(tries, in.Urgent); len(tries) == 1 {
				return workflows.RollProgress{Phase: "failed"}, final(workflows.BadReplacement, "It broke.")
			}
		}
		return roll(ctx, in)
	}
	require.True(t, s.update(t, s.environment(t), fromV1).Restored)
	require.Equal(t, []bool{false, true}, tries, "an update waits for windows, its way back does not")
}

func TestAWorkerThatIsKilledIsNoticedSoonWhereItHeartbeats(t *testing.T) {
	s := wholeSite()
	s.plan.Settings.ManifestsAnytime = true
	env := s.environment(t)
	beats := map[string]bool{}
	env.SetOnActivityStartedListener(func(info *activity.Info, _ context.Context, _ converter.EncodedValues) {
		beats[info.ActivityType.Name] = info.HeartbeatTimeout > 0
	})
	require.Equal(t, "done", s.update(t, env, fromV1).Phase)
	for name, want := range map[string]bool{"PlanStack": true, "ApplyStack": true, "DeleteObjects": true, "ApplyManifests": true, "ListStacks": false} {
		require.Equal(t, want, beats[name], name)
	}
}
