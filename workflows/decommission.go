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
)

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

// deleteLeftovers deletes what Kubernetes made in the network of the cluster's stack, which could not
// be deleted before that is gone.
func (u *updating) deleteLeftovers(ctx workflow.Context) error {
	if err := u.stillToGo(ctx); err != nil {
		return err
	}
	return u.step(ctx, "leftovers", func() (string, error) {
		u.progress.Changed = true
		var deleted []string
		err := carryOn(applying(ctx, "delete what Kubernetes made"), "DeleteLeftovers", StacksOf{Cluster: u.in.Cluster}, &deleted)
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
