package workflows

import (
	"cmp"
	"errors"
	"slices"
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/fairway-project/fairway/registry"
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
		err = u.inOrder(ctx, u.awaitUnblocked, u.announce, u.prepare, u.enter, u.applyStacks, u.awaitAPIServer, u.applyPoolStacks, u.applyManifests, u.awaitWorkloads, u.awaitNewPools, u.verify)
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
	return u.inOrder(ctx, u.applyStacks, u.applyPoolStacks, u.applyManifests, u.awaitWorkloads, u.rollPools, u.awaitNewPools, u.removePools, u.verify)
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
		Added: slices.Clone(in.Added),
	}}
}

func (u *updating) listen(ctx workflow.Context) {
	workflow.GoNamed(ctx, "supersede", func(ctx workflow.Context) {
		for {
			u.superseded = cmp.Or(heardWord(ctx, SupersedeName, ""), "another version")
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

// unlessEnough waits for something that may well end unfinished.
func (u *updating) unlessEnough(ctx workflow.Context, start func(workflow.Context) workflow.Future) error {
	err := unless(ctx, u.enough, start)
	if ctx.Err() == nil && u.enough() && (err == nil || temporal.IsCanceledError(err)) {
		return errSuperseded
	}
	return err
}

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
