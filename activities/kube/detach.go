package kube

import (
	"cmp"
	"context"
	"slices"
	"time"

	"go.temporal.io/sdk/activity"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/fairway-project/fairway/activities"
	"github.com/fairway-project/fairway/drain"
	"github.com/fairway-project/fairway/workflows"
)

// detached ends a drain: it waits until the volumes of the pods that have gone are detached from the
// node. An instance that is ended before keeps them attached for minutes, and so its pods from
// starting elsewhere. When the policy's time for it is over, the drain ends all the same and
// reports what was left. Should a pod that has to leave come back meanwhile, the drain goes on.
func (d *drainer) detached(ctx context.Context, woken <-chan struct{}, progress workflows.DrainProgress) (workflows.DrainProgress, error) {
	if d.policy.DetachWithin == 0 || progress.GaveUp {
		return progress, nil
	}
	known := map[types.NamespacedName]string{}
	beat := time.NewTicker(activities.BeatEvery)
	defer beat.Stop()
	over, due := false, time.After(d.policy.DetachWithin)
	for {
		if node := d.view.node(d.node); node == nil || instanceOf(node) != d.instance {
			return progress, nil
		}
		plan := drain.Decide(d.state())
		if !plan.Done() {
			return d.run(ctx)
		}
		progress = d.report(plan)
		var err error
		if progress.Detaching, err = d.detaching(ctx, known); err != nil || len(progress.Detaching) == 0 || over {
			return progress, err
		}
		activity.RecordHeartbeat(ctx, progress)
		select {
		case <-ctx.Done():
			return progress, ctx.Err()
		case <-activity.GetWorkerStopChannel(ctx):
			return progress, activities.ErrStopping
		case <-woken:
		case <-beat.C:
		case <-due:
			over = true
		}
	}
}

// detaching names the volumes that are still attached to the node and that no pod uses which stays
// there. known keeps which volume a claim is bound to, since that never changes.
func (d *drainer) detaching(ctx context.Context, known map[types.NamespacedName]string) ([]string, error) {
	attached := d.view.attachedTo(d.node)
	if len(attached) == 0 {
		return nil, nil
	}
	used := map[string]bool{}
	for _, pod := range d.view.podsOn(d.node) {
		if !drain.UsesStillOnNode(pod) {
			continue
		}
		for _, name := range drain.Claims(pod) {
			claim := types.NamespacedName{Namespace: pod.Namespace, Name: name}
			if known[claim] == "" {
				volume, err := d.volumeOf(ctx, claim)
				if err != nil {
					return nil, err
				}
				known[claim] = volume
			}
			used[known[claim]] = true
		}
	}
	var names []string
	for _, attachment := range attached {
		name := attachment.Name // of one that has its volume inline
		if volume := attachment.Spec.Source.PersistentVolumeName; volume != nil {
			name = cmp.Or(*volume, name)
		}
		if !used[name] {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names[:min(len(names), heldShown)], nil
}

// volumeOf is the volume that a claim is bound to; empty if there is none.
func (d *drainer) volumeOf(ctx context.Context, claim types.NamespacedName) (string, error) {
	found, err := d.cluster.client.CoreV1().PersistentVolumeClaims(claim.Namespace).Get(ctx, claim.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return "", nil
	}
	if err != nil {
		return "", d.cluster.explain("reading volume claim "+claim.String(), err)
	}
	return found.Spec.VolumeName, nil
}
