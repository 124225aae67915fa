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

	"github.com/fairway-project/fairway/registry"
	"github.com/fairway-project/fairway/roll"
	"github.com/fairway-project/fairway/rollout"
)

// UpdateCluster brings a cluster to a version: its stacks, then its manifests, then the nodes of its
// pools. Everything is rendered before anything is changed. Between two steps is a safe point, where
// an update ends if another version is wanted by now. A failed one stops where it is, and goes back
// to the version before if the cluster is configured so. However it ends, the registry and the
// cluster's actor are told.
func UpdateCluster(ctx workflow.Context, in UpdateClusterInput) (UpdateProgress, error) {
	u := newUpdating(ctx, in)
	if err := workflow.SetQueryHandler(ctx, ProgressQuery, func() (UpdateProgress, error) { return u.progress, nil }); err != nil {
		return u.progress, err
	}
	u.listen(ctx)
	var err error
	switch in.Kind {
	case Provision:
		err = u.inOrder(ctx, u.awaitUnblocked, u.announce, u.prepare, u.enter, u.applyStacks, u.awaitAPIServer, u.applyPoolStacks, u.applyManifests, u.awaitWorkloads, u.verify)
	case Decommission:
		err = u.inOrder(ctx, u.awaitUnblocked, u.announce, u.find, u.deletePools, u.deleteLeftovers, u.deleteStacks, u.proveGone)
	case Rollback:
		err = u.inOrder(ctx, u.awaitUnblocked, u.announce, u.prepare, u.enter, u.applyAll)
	default:
		err = u.inOrder(ctx, u.awaitUnblocked, u.announce, u.prepare, u.checkHealth, u.enter, u.applyAll)
	}
	if err != nil && u.mayRestore(ctx, err) {
		err = u.restore(ctx, err)
	}
	return u.progress, u.end(ctx, err)
}

// applyAll is what an update changes, in this order.
func (u *updating) applyAll(ctx workflow.Context) error {
	return u.inOrder(ctx, u.applyStacks, u.applyPoolStacks, u.applyManifests, u.awaitWorkloads, u.rollPools, u.removePools, u.verify)
}

// updating is the state of UpdateCluster. All of its fields are set by workflow code only.
type updating struct {
	in       UpdateClusterInput
	id, run  string
	progress UpdateProgress
	// plan is what an update to version consists of; version is in.From while that is restored.
	plan    UpdatePlan
	version string
	// checked is when the cluster was last seen to be healthy.
	checked time.Time
	turn    AwaitTurn // taken, or its zero value
	// superseded is what is wanted instead. failing means that a part has failed, and others that go on
	// beside it are to end at their next safe point.
	superseded string
	failing    bool
	// left are the stacks that are to be deleted.
	left []OwnedStack
}

// errSuperseded ends an update at a safe point.
var errSuperseded = errors.New("another version is wanted")

func newUpdating(ctx workflow.Context, in UpdateClusterInput) *updating {
	info := workflow.GetInfo(ctx)
	in.Kind = cmp.Or(in.Kind, Upgrade)
	return &updating{in: in, id: info.WorkflowExecution.ID, run: info.WorkflowExecution.RunID, version: in.Version, progress: UpdateProgress{
		Kind: in.Kind, Version: in.Version, From: in.From, By: in.By, Reason: in.Reason, Started: workflow.Now(ctx), Steps: []UpdateStep{},
	}}
}

func (u *updating) listen(ctx workflow.Context) {
	workflow.GoNamed(ctx, "supersede", func(ctx workflow.Context) {
		for {
			var version string
			workflow.GetSignalChannel(ctx, SupersedeName).Receive(ctx, &version)
			u.superseded = cmp.Or(version, "another version")
		}
	})
}

// inOrder takes steps one after another. Between two of them is a safe point.
func (u *updating) inOrder(ctx workflow.Context, steps ...func(workflow.Context) error) error {
	for _, step := range steps {
		if err := u.safePoint(ctx); err != nil {
			return err
		}
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (u *updating) safePoint(ctx workflow.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if u.superseded != "" {
		return errSuperseded
	}
	return nil
}

// enough says that what is begun is to end at its next safe point.
func (u *updating) enough() bool { return u.superseded != "" || u.failing }

// parallel does the same for several things, at most so many at a time. After a failure no more are
// begun.
func parallel[T any](ctx workflow.Context, u *updating, limit int, things []T, do func(workflow.Context, T) error) error {
	u.failing = false
	defer func() { u.failing = false }()
	free, wait := workflow.NewSemaphore(ctx, int64(max(1, limit))), workflow.NewWaitGroup(ctx)
	var errs error
	for _, thing := range things {
		wait.Add(1)
		workflow.Go(ctx, func(ctx workflow.Context) {
			defer wait.Done()
			err := free.Acquire(ctx, 1)
			if err == nil {
				defer free.Release(1)
				if err = u.safePoint(ctx); err == nil && !u.failing {
					err = do(ctx, thing)
				}
			}
			if err != nil && !errors.Is(err, errSuperseded) {
				u.failing = true
			}
			// What failed says more than that the rest has ended for it.
			if errs == nil || errors.Is(errs, errSuperseded) {
				errs = cmp.Or(err, errs)
			}
		})
	}
	wait.Wait(ctx)
	return errs
}

// awaitUnblocked waits while somebody has blocked the cluster, its channel or the fleet, so that what
// cannot go on holds no turn. What is changed asks once more, each time.
func (u *updating) awaitUnblocked(ctx workflow.Context) error {
	u.phase(ctx, "waiting")
	return u.step(ctx, "blocks", func() (string, error) {
		return "none", u.unlessEnough(ctx, func(ctx workflow.Context) workflow.Future {
			return workflow.ExecuteActivity(waiting(ctx, "is the cluster blocked"), "AwaitUnblocked", AwaitUnblocked{Cluster: u.in.Cluster})
		})
	})
}

// announce says in the registry what is about to begin.
func (u *updating) announce(ctx workflow.Context) error {
	u.phase(ctx, "preparing")
	// No retry is too much: an update that nobody can see must not begin.
	return u.writeStatus(ctx, registry.Status{CurrentVersion: u.in.From, LastVersion: u.in.Last, NextVersion: u.next(), Problems: u.in.Problems}, "")
}

// next is the version that the cluster is on its way to.
func (u *updating) next() string {
	if u.in.Kind == Decommission {
		return ""
	}
	return u.in.Version
}

// prepare renders everything before anything is changed.
func (u *updating) prepare(ctx workflow.Context) error {
	u.phase(ctx, "preparing")
	return u.step(ctx, "render "+short(u.version), func() (string, error) {
		if err := u.askPlan(ctx, u.version); err != nil {
			return "", err
		}
		return fmt.Sprintf("%d stacks, %d pools, %d objects", len(u.plan.Stacks), len(u.plan.Pools), u.plan.Manifests), nil
	})
}

func (u *updating) askPlan(ctx workflow.Context, version string) error {
	options := workflow.GetActivityOptions(looking(ctx, "render version "+short(version)))
	options.StartToCloseTimeout, options.HeartbeatTimeout = renderWithin, heartbeatTimeout
	options.ScheduleToCloseTimeout += renderWithin
	var plan UpdatePlan
	if err := workflow.ExecuteActivity(workflow.WithActivityOptions(ctx, options), "PrepareUpdate", PrepareUpdate{Cluster: u.in.Cluster, Version: version}).Get(ctx, &plan); err != nil {
		return err
	}
	u.plan = plan
	u.progress.RetryAfter, u.progress.RetryAtMost = plan.Settings.RetryAfter, plan.Settings.RetryAtMost
	u.progress.Pools = nil
	for _, pool := range plan.Pools {
		u.progress.Pools = append(u.progress.Pools, PoolProgress{Pool: pool.Name, Workflow: RollPoolID(u.in.Cluster, pool.Name), State: "waiting"})
	}
	return workflow.UpsertTypedSearchAttributes(ctx, ClusterAttribute.ValueSet(u.in.Cluster), VersionAttribute.ValueSet(version),
		ChannelAttribute.ValueSet(plan.Cluster.Channel), EnvironmentAttribute.ValueSet(plan.Cluster.Environment))
}

// renderWithin is long: a slow repository is not a broken one.
const renderWithin = 5 * time.Minute

// checkHealth refuses to update a cluster that is not well, unless it is to be mended by that.
func (u *updating) checkHealth(ctx workflow.Context) error {
	if u.in.Fix {
		return nil
	}
	u.phase(ctx, "checking")
	return u.step(ctx, "health before", func() (string, error) {
		health, err := u.awaitHealth(ctx, looking(ctx, "is the cluster healthy"), min(passesWithin, u.plan.Settings.HealthyWithin))
		if err != nil {
			return "", err
		}
		u.checked = workflow.Now(ctx)
		return "healthy", unhealthy(u.in.Cluster, "is not healthy, so it is not updated; an update that is to mend it has to be marked as its fix", health)
	})
}

// passesWithin is how long a cluster that is to be updated may look unhealthy: a pod that was just
// rescheduled stops no rollout.
const passesWithin = 2 * time.Minute

// awaitHealth looks at a cluster until it is healthy, or does not become so within a time. The looks
// are few: the pauses between them grow.
func (u *updating) awaitHealth(ctx, asking workflow.Context, within time.Duration) (health Health, err error) {
	since := workflow.Now(ctx)
	for pause := 5 * time.Second; ; pause = min(2*pause, 2*time.Minute) {
		health = Health{}
		if err := workflow.ExecuteActivity(asking, "CheckHealth", CheckHealth{Cluster: u.in.Cluster}).Get(ctx, &health); err != nil {
			return health, err
		}
		if late := workflow.Now(ctx).Add(pause).Sub(since) > within; health.Healthy || late {
			return health, nil
		}
		if err := workflow.NewTimerWithOptions(ctx, pause, workflow.TimerOptions{Summary: "look at its health again"}).Get(ctx, nil); err != nil {
			return health, err
		}
	}
}

// unhealthy is the error of a cluster that is not well, or nil.
func unhealthy(cluster, what string, health Health) error {
	if health.Healthy {
		return nil
	}
	problems := health.Problems
	if more := len(problems) - 5; more > 0 {
		problems = append(slices.Clone(problems[:5]), fmt.Sprintf("And %d more.", more))
	}
	return temporal.NewNonRetryableApplicationError(fmt.Sprintf("cluster %s %s: %s", cluster, what, strings.Join(problems, " ")), Unhealthy, nil)
}

// enter waits until the windows of the cluster and the limits of the fleet let it begin.
func (u *updating) enter(ctx workflow.Context) error {
	u.phase(ctx, "waiting")
	windowed, err := u.needsWindow(ctx)
	if err != nil {
		return err
	}
	for {
		began := workflow.Now(ctx)
		if windowed {
			if err := u.awaitWindow(ctx); err != nil {
				return err
			}
		}
		asked := workflow.Now(ctx)
		if err := u.awaitTurn(ctx); err != nil {
			return err
		}
		opened := !windowed || !u.longAgo(ctx, asked) || once(ctx, "is the maintenance window still open", "AwaitWindow", u.window())
		if opened && (!u.longAgo(ctx, began) || once(ctx, "is the cluster still not blocked", "AwaitUnblocked", AwaitUnblocked{Cluster: u.in.Cluster})) {
			break
		}
		u.endTurn(ctx) // the window has closed, or somebody has blocked it meanwhile, and others can go on
		if err := u.awaitUnblocked(ctx); err != nil {
			return err
		}
	}
	if !u.checked.IsZero() && workflow.Now(ctx).Sub(u.checked) > lookAgain {
		if err := u.checkHealth(ctx); err != nil {
			return err
		}
	}
	u.notify(ctx, UpdateBegins, fmt.Sprintf("Fairway begins to update cluster %s to version %s.", u.in.Cluster, short(u.version)))
	return nil
}

// needsWindow says whether what follows disrupts. If only manifests change, and these may at any time,
// it does not: rolls of pools ask for their windows themselves.
func (u *updating) needsWindow(ctx workflow.Context) (bool, error) {
	if settings := u.plan.Settings; !settings.Windowed || !settings.ManifestsAnytime || u.in.Kind == Provision {
		return settings.Windowed && u.in.Kind != Provision, nil
	}
	disrupts := false
	err := u.step(ctx, "do stacks change", func() (string, error) {
		stacks := slices.Clone(u.plan.Stacks)
		for _, pool := range u.plan.Pools {
			stacks = append(stacks, pool.Stack)
		}
		err := parallel(ctx, u, 5, stacks, func(ctx workflow.Context, stack string) error {
			var changes StackChanges
			err := workflow.ExecuteActivity(requesting(ctx, "does stack "+stack+" change"), "PlanStack", u.stack(stack)).Get(ctx, &changes)
			disrupts = disrupts || changes.Created || len(changes.Changes) > 0
			return err
		})
		if disrupts {
			return "yes", err
		}
		return "no, and manifests may change at any time", err
	})
	return disrupts, err
}

func (u *updating) awaitWindow(ctx workflow.Context) error {
	return u.step(ctx, "maintenance window", func() (string, error) {
		return "open", u.unlessEnough(ctx, func(ctx workflow.Context) workflow.Future {
			return workflow.ExecuteActivity(waiting(ctx, "is a maintenance window open"), "AwaitWindow", u.window())
		})
	})
}

func (u *updating) longAgo(ctx workflow.Context, at time.Time) bool {
	return workflow.Now(ctx).Sub(at) >= lookAgain
}

func (u *updating) window() AwaitWindow {
	return AwaitWindow{Cluster: u.in.Cluster, What: "the update to " + short(u.version)}
}

func (u *updating) awaitTurn(ctx workflow.Context) error {
	limits := u.plan.Settings.Limits
	if limits == (rollout.Limits{}) {
		return nil
	}
	u.turn = AwaitTurn{
		Holder: u.id, Account: u.plan.Cluster.Account, Region: u.plan.Cluster.Region, Nodes: 1, Clusters: true,
		Limits: roll.Limits{Fleet: limits.Fleet, Account: limits.Account, Region: limits.Region},
	}
	return u.step(ctx, "a turn within the fleet's limits", func() (string, error) {
		return "taken", u.unlessEnough(ctx, func(ctx workflow.Context) workflow.Future {
			return workflow.ExecuteActivity(watching(ctx, "may one more cluster be updated", forEver), "AwaitTurn", u.turn)
		})
	})
}

func (u *updating) endTurn(ctx workflow.Context) {
	if u.turn == (AwaitTurn{}) {
		return
	}
	ctx, stop := workflow.NewDisconnectedContext(ctx)
	defer stop()
	// Whoever waits next finds out by itself if this update has ended without giving back.
	if err := workflow.ExecuteActivity(changing(ctx, "end the turn"), "EndTurn", u.turn).Get(ctx, nil); err != nil {
		workflow.GetLogger(ctx).Warn("a turn was not given back", "error", err)
	}
	u.turn = AwaitTurn{}
}

// unlessEnough waits for something that may well end unfinished.
func (u *updating) unlessEnough(ctx workflow.Context, start func(workflow.Context) workflow.Future) error {
	err := unless(ctx, u.enough, start)
	if ctx.Err() == nil && u.enough() && (err == nil || temporal.IsCanceledError(err)) {
		return errSuperseded
	}
	return err
}

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
		err := workflow.ExecuteActivity(applying(ctx, "apply stack "+of.Stack), "ApplyStack", of).Get(ctx, &changes)
		switch {
		case changes.Created:
			return "created", err
		case len(changes.Changes) == 0:
			return "no change", err
		}
		return fmt.Sprintf("%d resources changed", len(changes.Changes)), err
	})
}

func (u *updating) stack(name string) StackOf {
	return StackOf{Cluster: u.in.Cluster, Version: u.version, Stack: name}
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
	u.progress.Changed = true
	if err := u.deleteObjects(ctx, BeforeApply, "deletions before"); err != nil {
		return err
	}
	if err := u.step(ctx, "manifests", func() (string, error) {
		var applied Applied
		err := workflow.ExecuteActivity(applying(ctx, fmt.Sprintf("apply %d objects", u.plan.Manifests)), "ApplyManifests", u.manifests()).Get(ctx, &applied)
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
		err := workflow.ExecuteActivity(requesting(ctx, name), "DeleteObjects", DeleteObjects{Cluster: u.in.Cluster, Version: u.version, When: when}).Get(ctx, &deleted)
		return fmt.Sprintf("%d objects deleted", len(deleted)), err
	})
}

func (u *updating) manifests() ManifestsOf {
	return ManifestsOf{Cluster: u.in.Cluster, Version: u.version}
}

func (u *updating) awaitWorkloads(ctx workflow.Context) error {
	return u.step(ctx, "workloads", func() (string, error) {
		return "ready", u.unlessEnough(ctx, u.startAwaitWorkloads)
	})
}

func (u *updating) startAwaitWorkloads(ctx workflow.Context) workflow.Future {
	return workflow.ExecuteActivity(decided(watching(ctx, "wait for the workloads", u.plan.Settings.HealthyWithin+unreachableWithin)), "AwaitWorkloads",
		AwaitWorkloads{Cluster: u.in.Cluster, Version: u.version, Within: u.plan.Settings.HealthyWithin, Since: workflow.Now(ctx)})
}

// unreachableWithin is for how long more nobody may know how a cluster does. One whose API server does
// not answer is not healthy either.
const unreachableWithin = 10 * time.Minute

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
		u.pool(stack.Pool).State = "removed"
		return nil
	})
}

func (u *updating) listStacks(ctx workflow.Context) (owned []OwnedStack, err error) {
	err = workflow.ExecuteActivity(requesting(ctx, "list the cluster's stacks"), "ListStacks", StacksOf{Cluster: u.in.Cluster}).Get(ctx, &owned)
	return owned, err
}

func (u *updating) deleteStack(ctx workflow.Context, stack OwnedStack) error {
	return u.step(ctx, "delete stack "+stack.Name, func() (string, error) {
		u.progress.Changed = true
		return "deleted", workflow.ExecuteActivity(applying(ctx, "delete stack "+stack.Name), "DeleteStack", StackOf{Cluster: u.in.Cluster, Stack: stack.Name, Pool: stack.Pool}).Get(ctx, nil)
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

// find learns what there is to decommission. A version that cannot be rendered any more hinders
// nobody from deleting its cluster: then the order follows from the names.
func (u *updating) find(ctx workflow.Context) error {
	if err := u.askPlan(ctx, cmp.Or(u.in.From, u.in.Version)); err != nil {
		if !isKind(err, InvalidInput) && !isKind(err, VersionGone) {
			return err
		}
		workflow.GetLogger(ctx).Warn("the version cannot be rendered; the cluster is decommissioned all the same", "error", err)
	}
	u.notify(ctx, UpdateBegins, fmt.Sprintf("Fairway begins to decommission cluster %s.", u.in.Cluster))
	return u.step(ctx, "list stacks", func() (outcome string, err error) {
		u.left, err = u.listStacks(ctx)
		slices.SortStableFunc(u.left, func(a, b OwnedStack) int { return cmp.Compare(u.rank(b), u.rank(a)) })
		return fmt.Sprintf("%d stacks", len(u.left)), err
	})
}

// rank orders stacks as they are applied; they are deleted the other way round.
func (u *updating) rank(stack OwnedStack) int {
	if at := slices.Index(u.plan.Stacks, stack.Name); at >= 0 {
		return at
	}
	if strings.HasPrefix(stack.Name, "etcd") {
		return -1
	}
	return len(u.plan.Stacks)
}

// deletePools deletes the stacks of pools with their nodes. Nothing is drained: there is nowhere to go.
func (u *updating) deletePools(ctx workflow.Context) error {
	if err := u.stillToGo(ctx); err != nil {
		return err
	}
	u.phase(ctx, "stacks")
	pools := slices.DeleteFunc(slices.Clone(u.left), func(s OwnedStack) bool { return s.Pool == "" })
	if err := parallel(ctx, u, 5, pools, u.endRoll); err != nil {
		return err
	}
	return parallel(ctx, u, 5, pools, u.deleteStack)
}

// endRoll cancels the roll of a pool that is to go, if somebody runs one: without its cluster it would
// neither come to an end nor be able to undo anything.
func (u *updating) endRoll(ctx workflow.Context, stack OwnedStack) error {
	id := RollPoolID(u.in.Cluster, stack.Pool)
	if err := workflow.RequestCancelExternalWorkflow(ctx, id, "").Get(ctx, nil); err != nil {
		return ctx.Err() // none runs
	}
	return u.step(ctx, "end of the roll of pool "+stack.Pool, func() (string, error) {
		err := u.awaitEnd(ctx, id, "wait for the end of the roll of "+stack.Pool, rollEndsWithin)
		if late := (*temporal.TimeoutError)(nil); ctx.Err() == nil && (errors.As(err, &late) || isKind(err, StillRunning)) {
			return "still running", nil // an API server that is gone keeps it from undoing anything
		}
		return "ended", err
	})
}

// rollEndsWithin is how long a cancelled roll may take before its pool is deleted all the same.
const rollEndsWithin = 15 * time.Minute

func (u *updating) awaitEnd(ctx workflow.Context, id, summary string, atMost time.Duration) error {
	return u.unlessEnough(ctx, func(ctx workflow.Context) workflow.Future {
		ctx = waiting(ctx, summary)
		options := workflow.GetActivityOptions(ctx)
		options.ScheduleToCloseTimeout = atMost
		return workflow.ExecuteActivity(workflow.WithActivityOptions(ctx, options), "AwaitEnd", AwaitEnd{Workflow: id})
	})
}

// deleteLeftovers deletes what Kubernetes made in the network of the cluster's stack, which could not
// be deleted before that is gone.
func (u *updating) deleteLeftovers(ctx workflow.Context) error {
	if err := u.stillToGo(ctx); err != nil {
		return err
	}
	return u.step(ctx, "leftovers", func() (string, error) {
		u.progress.Changed = true
		var deleted []string
		err := workflow.ExecuteActivity(applying(ctx, "delete what Kubernetes made"), "DeleteLeftovers", StacksOf{Cluster: u.in.Cluster}).Get(ctx, &deleted)
		return fmt.Sprintf("%d deleted", len(deleted)), err
	})
}

// deleteStacks deletes the other stacks: the cluster, then etcd.
func (u *updating) deleteStacks(ctx workflow.Context) error {
	for _, stack := range u.left {
		if stack.Pool != "" {
			continue
		}
		if err := u.stillToGo(ctx); err != nil {
			return err
		}
		if err := u.deleteStack(ctx, stack); err != nil {
			return err
		}
	}
	return nil
}

// stillToGo asks the registry once more, after any block, before something is deleted that does not come
// back: what the actors know may be older than a change of mind.
func (u *updating) stillToGo(ctx workflow.Context) error {
	if err := u.awaitUnblocked(ctx); err != nil {
		return err
	}
	u.phase(ctx, "stacks")
	return u.step(ctx, "is it still to go", func() (string, error) {
		var found []ClusterInfo
		if err := workflow.ExecuteActivity(changing(ctx, "is it still to go"), "ListClusters", ListClusters{Names: []string{u.in.Cluster}}).Get(ctx, &found); err != nil {
			return "", err
		}
		for _, cluster := range found {
			if lifecycle := registry.LifecycleStatus(cluster.Lifecycle); cluster.ID == u.in.Cluster && (lifecycle == registry.DecommissionRequested || lifecycle == registry.Decommissioned) {
				return "yes", nil
			}
		}
		return "no", temporal.NewNonRetryableApplicationError(fmt.Sprintf("cluster %s is not decommission-requested in the registry any more, so nothing more of it is deleted", u.in.Cluster), Stopped, nil)
	})
}

func (u *updating) proveGone(ctx workflow.Context) error {
	u.phase(ctx, "verifying")
	return u.step(ctx, "nothing is left", func() (string, error) {
		owned, err := u.listStacks(ctx)
		if err == nil && len(owned) > 0 {
			names := make([]string, len(owned))
			for i, stack := range owned {
				names[i] = stack.Name
			}
			err = temporal.NewNonRetryableApplicationError(fmt.Sprintf("cluster %s is not gone: stacks %s are left", u.in.Cluster, strings.Join(names, ", ")), StackFailed, nil)
		}
		return "no stack", err
	})
}

// mayRestore says whether a failed update goes back by itself. Where another version is wanted by now,
// that one comes instead; where a person has stopped it, that person decides.
func (u *updating) mayRestore(ctx workflow.Context, err error) bool {
	return u.in.Kind == Upgrade && u.plan.Settings.Rollback && u.progress.Changed && u.superseded == "" && u.in.From != "" && u.in.From != u.in.Version &&
		ctx.Err() == nil && !errors.Is(err, errSuperseded) && !isKind(err, Stopped)
}

// restore goes back to the version before. The update has failed all the same.
func (u *updating) restore(ctx workflow.Context, failure error) error {
	u.addProblem(failure)
	u.version = u.in.From
	u.phase(ctx, "restoring")
	err := u.inOrder(ctx, u.prepare, u.applyAll)
	switch {
	case err == nil:
		u.progress.Restored = true
	case ctx.Err() != nil:
		return ctx.Err() // a person has had enough of it
	case errors.Is(err, errSuperseded), temporal.IsCanceledError(err):
	default:
		u.addProblem(temporal.NewNonRetryableApplicationError("going back to version "+short(u.in.From)+" failed too: "+reasonOf(err), kindOf(err), nil))
	}
	return failure
}

// end says how the update ended: in the registry, to people, and to the cluster's actor.
func (u *updating) end(ctx workflow.Context, err error) error {
	ctx, stop := workflow.NewDisconnectedContext(ctx)
	defer stop()
	u.endTurn(ctx)
	now := workflow.Now(ctx)
	status, lifecycle := registry.Status{CurrentVersion: u.in.From, LastVersion: u.in.Last}, registry.LifecycleStatus("")
	if u.progress.Changed && !u.progress.Restored {
		status.NextVersion = u.next() // the cluster is somewhere between the two
	}
	switch {
	case err == nil:
		u.ended(ctx, "done", "the cluster has version "+short(u.in.Version))
		status, lifecycle = u.final()
		kind := UpdateDone
		if u.in.Kind == Rollback {
			kind = RolledBack
		}
		u.notify(ctx, kind, u.doneText(now))
	case errors.Is(err, errSuperseded):
		u.ended(ctx, "superseded", "ended at a safe point, because version "+short(u.superseded)+" is wanted instead")
		u.progress.Superseded, status.Problems, err = u.superseded, u.in.Problems, nil
	case temporal.IsCanceledError(err):
		u.ended(ctx, "cancelled", "somebody cancelled it")
		u.addProblem(temporal.NewNonRetryableApplicationError(u.cancelText(), "Cancelled", nil))
		u.notify(ctx, UpdateCancelled, u.cancelText())
	default:
		if len(u.progress.Problems) == 0 {
			u.addProblem(err)
		}
		u.ended(ctx, "failed", reasonOf(err))
		kind := UpdateFailed
		if u.progress.Restored {
			kind = RolledBack
		}
		u.notify(ctx, kind, u.failText(err))
	}
	if len(u.progress.Problems) > 0 {
		status.Problems = u.progress.Problems
	}
	if failure := u.writeStatus(ctx, status, lifecycle); failure != nil {
		workflow.GetLogger(ctx).Error("the registry was not told how the update ended", "error", failure)
	}
	// An actor that is not there has nothing to do with it.
	outcome := UpdateOutcome{UpdateProgress: u.progress, Workflow: u.id, Run: u.run}
	if failure := workflow.SignalExternalWorkflow(ctx, ClusterID(u.in.Cluster), "", UpdatedName, outcome).Get(ctx, nil); failure != nil {
		workflow.GetLogger(ctx).Info("the cluster's actor was not told how the update ended", "error", failure)
	}
	return err
}

// final is what the registry says of a cluster that an update went well with.
func (u *updating) final() (registry.Status, registry.LifecycleStatus) {
	switch last := u.in.From; {
	case u.in.Kind == Decommission:
		return registry.Status{LastVersion: u.in.From}, registry.Decommissioned
	case u.in.Kind == Provision:
		return registry.Status{CurrentVersion: u.in.Version, LastVersion: u.in.Last}, registry.Ready
	default:
		if last == u.in.Version || last == "" {
			last = u.in.Last
		}
		return registry.Status{CurrentVersion: u.in.Version, LastVersion: last}, ""
	}
}

func (u *updating) doneText(now time.Time) string {
	took := now.Sub(u.progress.Started).Round(time.Second)
	if u.in.Kind == Decommission {
		return fmt.Sprintf("Cluster %s is decommissioned; that took %s.", u.in.Cluster, took)
	}
	return fmt.Sprintf("Cluster %s has version %s; the update took %s.", u.in.Cluster, short(u.in.Version), took)
}

// name is how a sentence about the update begins.
func (u *updating) name() string {
	if u.in.Kind == Decommission {
		return "The decommission of cluster " + u.in.Cluster
	}
	return fmt.Sprintf("The %s of cluster %s to version %s", u.in.Kind, u.in.Cluster, short(u.in.Version))
}

func (u *updating) cancelText() string {
	text := u.name() + " was cancelled"
	switch {
	case !u.progress.Changed:
		return text + " before anything was changed."
	case u.in.Kind == Decommission:
		return text + "; a part of it may be deleted."
	}
	return text + "; the cluster is between two versions."
}

func (u *updating) failText(err error) string {
	text := fmt.Sprintf("%s failed: %s.", u.name(), strings.TrimSuffix(reasonOf(err), "."))
	switch {
	case u.progress.Restored:
		text += " It is back at version " + short(u.in.From) + "."
	case u.progress.Changed:
		text += " It stopped where it was."
	default:
		text += " Nothing was changed."
	}
	if u.progress.Restored || byPerson(u.progress.Problems) {
		return text + " It is not tried again by itself."
	}
	return text + fmt.Sprintf(" It is tried again in %s.", pauseAfter(u.in.Attempt, u.progress.RetryAfter, u.progress.RetryAtMost))
}

// addProblem records what went wrong, in the form of the registry.
func (u *updating) addProblem(err error) {
	u.progress.Problems = append(u.progress.Problems, registry.Problem{
		Type: "urn:fairway:" + kindOf(err), Title: clip(reasonOf(err), 1000), Instance: u.id + "/" + u.run,
	})
}

// kindOf is the type of an application error.
func kindOf(err error) string {
	var application *temporal.ApplicationError
	if errors.As(err, &application) && application.Type() != "" {
		return application.Type()
	}
	return "Failed"
}

func clip(text string, most int) string {
	if runes := []rune(text); len(runes) > most {
		return string(runes[:most-1]) + "…"
	}
	return text
}

// short is a version as people write it.
func short(version string) string {
	commit, hash, qualified := strings.Cut(version, "#")
	if !qualified {
		return version
	}
	return commit[:min(len(commit), 8)] + "#" + hash[:min(len(hash), 8)]
}

func (u *updating) writeStatus(ctx workflow.Context, status registry.Status, lifecycle registry.LifecycleStatus) error {
	return workflow.ExecuteActivity(changing(ctx, "write the status"), "WriteStatus", WriteStatus{Cluster: u.in.Cluster, Status: status, Lifecycle: lifecycle}).Get(ctx, nil)
}

// pool is the progress of a pool.
func (u *updating) pool(name string) *PoolProgress {
	at := slices.IndexFunc(u.progress.Pools, func(p PoolProgress) bool { return p.Pool == name })
	if at < 0 {
		u.progress.Pools = append(u.progress.Pools, PoolProgress{Pool: name, Workflow: RollPoolID(u.in.Cluster, name)})
		at = len(u.progress.Pools) - 1
	}
	return &u.progress.Pools[at]
}

// step records a step from its beginning to its end.
func (u *updating) step(ctx workflow.Context, name string, do func() (outcome string, err error)) error {
	at := len(u.progress.Steps)
	u.progress.Steps = append(u.progress.Steps, UpdateStep{Name: name, Began: workflow.Now(ctx)})
	u.progress.Step = name
	u.tell(ctx)
	outcome, err := do()
	step := &u.progress.Steps[at]
	step.Ended, step.Outcome = workflow.Now(ctx), outcome
	switch {
	case errors.Is(err, errSuperseded):
		step.Outcome = "left, because another version is wanted"
	case temporal.IsCanceledError(err):
		step.Outcome = "cancelled"
	case err != nil:
		step.Outcome = "failed: " + clip(reasonOf(err), 200)
	}
	u.tell(ctx)
	return err
}

// phase says what part of the update is under way; what goes back is one phase.
func (u *updating) phase(ctx workflow.Context, phase string) {
	if u.version != u.in.Version && u.progress.Ended.IsZero() {
		phase = "restoring"
	}
	u.setPhase(ctx, phase)
}

func (u *updating) setPhase(ctx workflow.Context, phase string) {
	if u.progress.Phase == phase {
		return
	}
	u.progress.Phase = phase
	u.tell(ctx)
	// It fails only if the namespace lacks the attribute, which the worker checks at its start.
	_ = workflow.UpsertTypedSearchAttributes(ctx, PhaseAttribute.ValueSet(phase))
}

func (u *updating) ended(ctx workflow.Context, phase, step string) {
	u.progress.Ended, u.progress.Step = workflow.Now(ctx), step
	u.setPhase(ctx, phase)
}

// tell shows people where the update stands; that costs no event.
func (u *updating) tell(ctx workflow.Context) {
	details := fmt.Sprintf("**%s** %s of cluster %s to version `%s`, from `%s`, attempt %d: %s. Asked for by %s. Reason: %s.\n",
		u.progress.Phase, u.in.Kind, u.in.Cluster, u.in.Version, cmp.Or(u.in.From, "nothing"), max(1, u.in.Attempt), u.progress.Step,
		cmp.Or(u.in.By, "the channel"), cmp.Or(u.in.Reason, "none given"))
	if u.superseded != "" {
		details += fmt.Sprintf("\nVersion `%s` is wanted instead, so it ends at the next safe point.\n", u.superseded)
	}
	for _, step := range u.progress.Steps[max(0, len(u.progress.Steps)-30):] {
		took := "under way since " + step.Began.UTC().Format(time.RFC3339)
		if !step.Ended.IsZero() {
			took = step.Outcome + " (" + step.Ended.Sub(step.Began).Round(time.Second).String() + ")"
		}
		details += fmt.Sprintf("\n- %s: %s", step.Name, took)
	}
	for _, problem := range u.progress.Problems {
		details += "\n\n" + problem.Title
	}
	workflow.SetCurrentDetails(ctx, details)
}

// notify tells the owner, where a hook is configured. A hook that does not answer holds nothing up.
func (u *updating) notify(ctx workflow.Context, kind, text string) {
	if u.plan.Version != "" && !u.plan.Notify { // before there is a plan nobody knows, and Notify finds out
		return
	}
	ctx = workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		StartToCloseTimeout: 10 * time.Second, ScheduleToCloseTimeout: 30 * time.Second, RetryPolicy: patient, Summary: "tell people: " + kind,
	})
	if err := workflow.ExecuteActivity(ctx, "Notify", Notification{
		ID: u.id + "/" + u.run + "/" + kind, Kind: kind, Cluster: u.in.Cluster, Owner: u.plan.Cluster.Owner, Text: text, At: workflow.Now(ctx),
	}).Get(ctx, nil); err != nil {
		workflow.GetLogger(ctx).Warn("nobody was told", "kind", kind, "error", err)
	}
}

// beyondRetry are errors of what an update changes that somebody has to mend first.
var beyondRetry = []string{StackFailed, Conflict, Unhealthy, VersionGone, InvalidInput, ClusterNotFound}

// applying is for what an update changes and waits for. It heartbeats.
func applying(ctx workflow.Context, summary string) workflow.Context {
	return decided(watching(ctx, summary, forEver))
}

// requesting is for what makes many requests and does not heartbeat.
func requesting(ctx workflow.Context, summary string) workflow.Context {
	ctx = changing(ctx, summary)
	options := workflow.GetActivityOptions(ctx)
	options.StartToCloseTimeout = 10 * time.Minute
	return decided(workflow.WithActivityOptions(ctx, options))
}

// looking is for what an update asks before it changes anything. What does not answer for a moment is
// no failure, which would hold up the clusters that come after; for long it is.
func looking(ctx workflow.Context, summary string) workflow.Context {
	ctx = decided(changing(ctx, summary))
	options := workflow.GetActivityOptions(ctx)
	options.ScheduleToCloseTimeout = unreachableWithin
	options.RetryPolicy.NonRetryableErrorTypes = append(slices.Clone(beyondRetry), AccessDenied)
	return workflow.WithActivityOptions(ctx, options)
}

// decided gives up on errors that are final.
func decided(ctx workflow.Context) workflow.Context {
	options := workflow.GetActivityOptions(ctx)
	policy := *patient
	policy.NonRetryableErrorTypes = beyondRetry
	options.RetryPolicy = &policy
	return workflow.WithActivityOptions(ctx, options)
}
