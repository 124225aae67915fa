package workflows

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"
)

// applyStacks changes the stacks that do not belong to a pool: etcd, then the cluster.
func (u *updating) applyStacks(ctx workflow.Context) error {
	u.phase(ctx, "stacks")
	for _, stack := range u.plan.Stacks {
		if err := u.safePoint(ctx); err != nil {
			return err
		}
		if err := u.applyStack(ctx, u.stack(stack)); err != nil {
			return err
		}
	}
	return nil
}

// applyPoolStacks changes what new nodes of the pools are like; those that are there stay.
func (u *updating) applyPoolStacks(ctx workflow.Context) error {
	u.phase(ctx, "stacks")
	return parallel(ctx, u, 5, u.plan.Pools, func(ctx workflow.Context, pool PlannedPool) error {
		of := u.stack(pool.Stack)
		of.Pool = pool.Name
		return u.applyStack(ctx, of)
	})
}

func (u *updating) applyStack(ctx workflow.Context, of StackOf) error {
	return u.step(ctx, "stack "+of.Stack, func() (string, error) {
		// Said before it is done: an answer may be lost.
		u.progress.Changed = true
		var changes StackChanges
		err := carryOn(applying(ctx, "apply stack "+of.Stack), "ApplyStack", of, &changes)
		switch {
		case changes.Created:
			if err == nil && of.Pool != "" && !slices.Contains(u.progress.Added, of.Pool) {
				u.progress.Added = append(u.progress.Added, of.Pool)
			}
			return "created", err
		case len(changes.Changes) == 0:
			return "no change", err
		}
		return fmt.Sprintf("%d resources changed", len(changes.Changes)), err
	})
}

func (u *updating) stack(name string) StackOf {
	return StackOf{Cluster: u.in.Cluster, Version: u.version, Stack: name, Since: u.progress.Started}
}

// apiServerWithin is how long the API server of a new cluster may take to answer.
const apiServerWithin = time.Hour

func (u *updating) awaitAPIServer(ctx workflow.Context) error {
	return u.step(ctx, "API server", func() (string, error) {
		return "ready", u.unlessEnough(ctx, func(ctx workflow.Context) workflow.Future {
			return workflow.ExecuteActivity(decided(watching(ctx, "wait for the API server", apiServerWithin)), "AwaitAPIServer", u.manifests())
		})
	})
}

// applyManifests goes through as a whole: halfway it would leave objects that no version has together.
func (u *updating) applyManifests(ctx workflow.Context) error {
	u.phase(ctx, "manifests")
	u.progress.Changed, u.progress.Unready = true, true
	if err := u.deleteObjects(ctx, BeforeApply, "deletions before"); err != nil {
		return err
	}
	if err := u.step(ctx, "manifests", func() (string, error) {
		var applied Applied
		err := carryOn(applying(ctx, fmt.Sprintf("apply %d objects", u.plan.Manifests)), "ApplyManifests", u.manifests(), &applied)
		return fmt.Sprintf("%d created, %d changed, %d as they were", applied.Created, applied.Changed, applied.Unchanged), err
	}); err != nil {
		return err
	}
	if err := u.deleteObjects(ctx, AfterApply, "deletions after"); err != nil {
		return err
	}
	if u.plan.Settings.Prune {
		return u.deleteObjects(ctx, Pruning, "pruning")
	}
	return nil
}

func (u *updating) deleteObjects(ctx workflow.Context, when DeletionTime, name string) error {
	if when != Pruning && u.plan.Deletions == 0 {
		return nil
	}
	return u.step(ctx, name, func() (string, error) {
		var deleted []ObjectChange
		err := carryOn(beating(ctx, name), "DeleteObjects", DeleteObjects{Cluster: u.in.Cluster, Version: u.version, When: when}, &deleted)
		return fmt.Sprintf("%d objects deleted", len(deleted)), err
	})
}

func (u *updating) manifests() ManifestsOf {
	return ManifestsOf{Cluster: u.in.Cluster, Version: u.version}
}

func (u *updating) awaitWorkloads(ctx workflow.Context) error {
	err := u.step(ctx, "workloads", func() (string, error) {
		return "ready", u.unlessEnough(ctx, u.startAwaitWorkloads)
	})
	u.progress.Unready = err != nil
	return err
}

func (u *updating) startAwaitWorkloads(ctx workflow.Context) workflow.Future {
	return workflow.ExecuteActivity(decided(watching(ctx, "wait for the workloads", u.plan.Settings.HealthyWithin+unreachableWithin)), "AwaitWorkloads",
		AwaitWorkloads{Cluster: u.in.Cluster, Version: u.version, Within: u.plan.Settings.HealthyWithin, Since: workflow.Now(ctx)})
}

// rollPools replaces the nodes that are not as their pools' stacks want them by now: those of the
// control plane first, one pool after another.
func (u *updating) rollPools(ctx workflow.Context) error {
	u.phase(ctx, "pools")
	var workers []string
	for _, pool := range u.plan.Pools {
		if !pool.ControlPlane {
			workers = append(workers, pool.Name)
		}
	}
	for _, pool := range u.plan.Pools {
		if !pool.ControlPlane {
			continue
		}
		if err := u.safePoint(ctx); err != nil {
			return err
		}
		if err := u.roll(ctx, pool.Name); err != nil {
			return err
		}
	}
	return parallel(ctx, u, u.plan.Settings.ParallelPools, workers, u.roll)
}

func (u *updating) roll(ctx workflow.Context, pool string) error {
	return u.rollPool(ctx, RollPoolInput{Cluster: u.in.Cluster, Pool: pool})
}

// rollPool has RollPool replace the nodes of a pool. It ends at once if none is old. When it is
// enough, the roll ends after the batch in hand.
func (u *updating) rollPool(ctx workflow.Context, in RollPoolInput) error {
	in.By, in.Reason = cmp.Or(u.in.By, u.id), "update to version "+short(u.version)
	in.Urgent = u.in.Kind == Rollback || u.version != u.in.Version // half of the way back helps nobody
	u.pool(in.Pool).State = "rolling"
	err := u.step(ctx, "pool "+in.Pool, func() (string, error) {
		progress, err := u.runRoll(ctx, in)
		pool := u.pool(in.Pool)
		pool.Nodes, pool.State = len(progress.Nodes), "failed"
		for _, node := range progress.Nodes {
			if node.State == Replaced {
				pool.Replaced++
			}
			u.progress.Evicted += node.Evicted
			u.progress.Forced = append(u.progress.Forced, node.Forced...)
		}
		u.progress.Forced = u.progress.Forced[max(0, len(u.progress.Forced)-mostForced):]
		outcome := fmt.Sprintf("%d of %d nodes replaced", pool.Replaced, pool.Nodes)
		switch {
		case errors.Is(err, errSuperseded):
			pool.State = "stopped"
		case temporal.IsCanceledError(err) && ctx.Err() == nil:
			err = stopped(in.Pool, u.in.Cluster, "was cancelled by somebody")
		case err == nil && progress.Phase == "stopped" && u.superseded != "":
			pool.State, err = "stopped", errSuperseded
		case err == nil && progress.Phase == "stopped" && u.failing:
			pool.State = "stopped"
		case err == nil && progress.Phase == "stopped":
			pool.State, err = "stopped", stopped(in.Pool, u.in.Cluster, "was stopped by somebody")
		case err == nil:
			pool.State = "done"
		}
		return outcome, err
	})
	return err
}

// newPools is the change of updates that has them wait for the nodes of pools that they add.
const newPools = "new-pools"

// awaitNewPools waits until the pools that the update has added, or one before it that did not get that
// far, have the nodes that they want: their rolls find nothing that is old there, and a health check misses
// no node that never was.
func (u *updating) awaitNewPools(ctx workflow.Context) error {
	added := slices.DeleteFunc(slices.Sorted(slices.Values(u.progress.Added)), func(name string) bool {
		return !slices.ContainsFunc(u.plan.Pools, func(p PlannedPool) bool { return p.Name == name })
	})
	if len(added) == 0 || workflow.GetVersion(ctx, newPools, workflow.DefaultVersion, 1) == workflow.DefaultVersion {
		return nil
	}
	return parallel(ctx, u, 5, added, u.awaitNewPool)
}

// awaitNewPool looks at a pool as awaitHealth does at a cluster.
func (u *updating) awaitNewPool(ctx workflow.Context, name string) error {
	return u.step(ctx, "nodes of "+name, func() (string, error) {
		since, within := workflow.Now(ctx), u.plan.Settings.HealthyWithin
		options := workflow.GetActivityOptions(decided(changing(ctx, "look at new pool "+name)))
		options.ScheduleToCloseTimeout = within + unreachableWithin
		asking := workflow.WithActivityOptions(ctx, options)
		for pause := 5 * time.Second; ; pause = min(2*pause, 2*time.Minute) {
			examined := workflow.ExecuteActivity(asking, "ExaminePool", ExaminePool{Cluster: u.in.Cluster, Pool: name})
			surveyed := workflow.ExecuteActivity(asking, "SurveyPool", SurveyPool{Cluster: u.in.Cluster, Pool: name})
			var pool Pool
			var nodes []Node
			if err := cmp.Or(examined.Get(ctx, &pool), surveyed.Get(ctx, &nodes)); err != nil {
				return "", err
			}
			lack := lacking(pool, nodes)
			if lack == "" {
				u.forget(name)
				return fmt.Sprintf("%d nodes are ready", pool.Desired), nil
			}
			if workflow.Now(ctx).Add(pause).Sub(since) > within {
				return "", temporal.NewNonRetryableApplicationError(fmt.Sprintf("cluster %s: the new pool %s has not got its nodes within %s: %s", u.in.Cluster, name, within, lack), Unhealthy, nil)
			}
			if err := u.unlessEnough(ctx, func(ctx workflow.Context) workflow.Future {
				return workflow.NewTimerWithOptions(ctx, pause, workflow.TimerOptions{Summary: "look at new pool " + name + " again"})
			}); err != nil {
				return "", err
			}
		}
	})
}

// forget ends the wait for the nodes of a pool.
func (u *updating) forget(pool string) {
	u.progress.Added = slices.DeleteFunc(u.progress.Added, func(name string) bool { return name == pool })
}

// lacking says which nodes a pool has not got yet; empty if it has as many as its group wants.
func lacking(pool Pool, nodes []Node) string {
	var ready int
	var not []string
	for _, instance := range pool.Instances {
		switch {
		case instance.ends():
		case slices.ContainsFunc(nodes, func(n Node) bool { return n.Instance == instance.ID && n.Ready }):
			ready++
		default:
			not = append(not, instance.ID)
		}
	}
	if ready >= pool.Desired {
		return ""
	}
	text := fmt.Sprintf("%d of %d nodes are ready", ready, pool.Desired)
	if len(not) > 0 {
		text += "; no ready nodes are instances " + strings.Join(not, ", ")
	}
	return text
}

// mostForced bounds the forced pods that an update hands on; the rolls know all of theirs.
const mostForced = 200

func stopped(pool, cluster, how string) error {
	return temporal.NewNonRetryableApplicationError(fmt.Sprintf("the roll of pool %s of cluster %s %s, so the update stops", pool, cluster, how), Stopped, nil)
}

// runRoll runs RollPool as a child. Where somebody rolls the pool already, it waits for that end first:
// that roll may have begun before the nodes were to be replaced that are to be now.
func (u *updating) runRoll(ctx workflow.Context, in RollPoolInput) (progress RollProgress, err error) {
	id := RollPoolID(in.Cluster, in.Pool)
	for {
		child := workflow.ExecuteChildWorkflow(asChild(ctx, id, fmt.Sprintf("roll pool %s of %s", in.Pool, in.Cluster), temporal.NewSearchAttributes(
			ClusterAttribute.ValueSet(in.Cluster), PoolAttribute.ValueSet(in.Pool),
			ChannelAttribute.ValueSet(u.plan.Cluster.Channel), EnvironmentAttribute.ValueSet(u.plan.Cluster.Environment),
		)), RollPool, in)
		if err := child.GetChildWorkflowExecution().Get(ctx, nil); !temporal.IsWorkflowExecutionAlreadyStartedError(err) {
			return progress, u.seeThrough(ctx, child, &progress)
		}
		if err := u.awaitEnd(ctx, id, "wait for the roll of "+in.Pool+" that runs already", 0); err != nil {
			return progress, err
		}
	}
}

func (u *updating) awaitEnd(ctx workflow.Context, id, summary string, atMost time.Duration) error {
	return u.unlessEnough(ctx, func(ctx workflow.Context) workflow.Future {
		ctx = waiting(ctx, summary)
		options := workflow.GetActivityOptions(ctx)
		options.ScheduleToCloseTimeout = atMost
		return workflow.ExecuteActivity(workflow.WithActivityOptions(ctx, options), "AwaitEnd", AwaitEnd{Workflow: id})
	})
}

// seeThrough waits for the end of a roll, and tells it when it is enough.
func (u *updating) seeThrough(ctx workflow.Context, child workflow.ChildWorkflowFuture, progress *RollProgress) error {
	seeing, stop := workflow.NewDisconnectedContext(ctx) // a cancelled roll is waited for too
	defer stop()
	if err := workflow.Await(seeing, func() bool { return u.enough() || child.IsReady() }); err != nil {
		return err
	}
	if !child.IsReady() {
		why := "another part of the update has failed"
		if u.superseded != "" {
			why = "version " + short(u.superseded) + " is wanted instead"
		}
		if err := child.SignalChildWorkflow(seeing, StopName, why).Get(seeing, nil); err != nil {
			workflow.GetLogger(ctx).Info("a roll was not told to stop; it may have ended", "error", err)
		}
	}
	return child.Get(ctx, progress)
}

// removePools empties the pools that the version has no more, and deletes their stacks.
func (u *updating) removePools(ctx workflow.Context) error {
	u.phase(ctx, "pools")
	owned, err := u.listStacks(ctx)
	if err != nil {
		return err
	}
	gone := slices.DeleteFunc(owned, func(stack OwnedStack) bool {
		return stack.Pool == "" || slices.ContainsFunc(u.plan.Pools, func(p PlannedPool) bool { return p.Name == stack.Pool })
	})
	if len(u.plan.Pools) == 0 && len(gone) > 0 { // an entry that was read or edited wrong is likelier
		return temporal.NewNonRetryableApplicationError(fmt.Sprintf("version %s of cluster %s has no pool at all, but the cluster has %d; not all of them are removed: correct its node_pools in the registry, or decommission it",
			short(u.version), u.in.Cluster, len(gone)), InvalidInput, nil)
	}
	return parallel(ctx, u, u.plan.Settings.ParallelPools, gone, func(ctx workflow.Context, stack OwnedStack) error {
		u.progress.Changed = true
		err := u.rollPool(ctx, RollPoolInput{Cluster: u.in.Cluster, Pool: stack.Pool, Remove: true})
		if err != nil && !isKind(err, PoolNotFound) {
			return err
		}
		if u.pool(stack.Pool).State == "stopped" {
			return nil // another part has failed
		}
		if err := u.safePoint(ctx); err != nil {
			return err
		}
		if err := u.deleteStack(ctx, stack); err != nil {
			return err
		}
		u.forget(stack.Pool)
		u.pool(stack.Pool).State = "removed"
		return nil
	})
}

func (u *updating) listStacks(ctx workflow.Context) (owned []OwnedStack, err error) {
	err = carryOn(requesting(ctx, "list the cluster's stacks"), "ListStacks", StacksOf{Cluster: u.in.Cluster}, &owned)
	return owned, err
}

func (u *updating) deleteStack(ctx workflow.Context, stack OwnedStack) error {
	return u.step(ctx, "delete stack "+stack.Name, func() (string, error) {
		u.progress.Changed = true
		return "deleted", carryOn(applying(ctx, "delete stack "+stack.Name), "DeleteStack", StackOf{Cluster: u.in.Cluster, Stack: stack.Name, Pool: stack.Pool}, nil)
	})
}

// verify waits until the cluster is as it should be. An update that has got that far is seen through.
func (u *updating) verify(ctx workflow.Context) error {
	u.phase(ctx, "verifying")
	return u.step(ctx, "health after", func() (string, error) {
		since := workflow.Now(ctx)
		if err := u.startAwaitWorkloads(ctx).Get(ctx, nil); err != nil {
			return "", err
		}
		within := u.plan.Settings.HealthyWithin
		options := workflow.GetActivityOptions(changing(ctx, "is the cluster healthy"))
		options.ScheduleToCloseTimeout = within + unreachableWithin
		health, err := u.awaitHealth(ctx, workflow.WithActivityOptions(ctx, options), within-workflow.Now(ctx).Sub(since))
		if err != nil {
			return "", err
		}
		return "healthy", unhealthy(u.in.Cluster, fmt.Sprintf("has not become healthy within %s", within), health)
	})
}
