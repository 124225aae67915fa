package kube

import (
	"context"
	"slices"
	"time"

	"go.temporal.io/sdk/activity"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"

	"github.com/fairway-project/fairway/drain"
	"github.com/fairway-project/fairway/workflows"
)

// finish ends the drain of a node that looks empty, or says that it cannot end yet. Whoever is told
// that a node is empty ends its instance, so nothing may be left to chance: the node takes no pods,
// its volumes are detached, the API server itself confirms what the view shows, and nobody has
// blocked the pool meanwhile.
func (d *drainer) finish(ctx context.Context, woken <-chan struct{}, progress workflows.DrainProgress) (over bool, err error) {
	if err := d.beating(ctx, progress, func(ctx context.Context) error {
		if err := d.closeNode(ctx); err != nil {
			return err
		}
		return d.settleAll(ctx)
	}); err != nil {
		return false, err
	}
	if attached, err := d.awaitDetached(ctx, woken, progress); attached || err != nil {
		return false, err
	}
	empty := false
	if err := d.beating(ctx, progress, func(ctx context.Context) (err error) {
		empty, err = d.confirmed(ctx)
		return err
	}); err != nil {
		return false, err
	}
	if !empty { // the view will show why
		return false, d.pause(ctx, woken, time.Now().Add(retryBusy), progress)
	}
	if err := d.ask(ctx); err != nil {
		return false, err
	}
	return d.refusal() == "", nil
}

// awaitDetached waits for a change of what is attached to the node, and says whether anything was.
// An instance that is ended before keeps its volumes attached for minutes, and so their pods from
// starting elsewhere. When the policy's time for it is over, the drain ends all the same and
// reports what was left.
func (d *drainer) awaitDetached(ctx context.Context, woken <-chan struct{}, progress workflows.DrainProgress) (attached bool, err error) {
	d.detaching = nil
	if d.policy.DetachWithin == 0 || d.vanished() {
		return false, nil
	}
	if d.detaching, err = d.stillAttached(ctx); err != nil || len(d.detaching) == 0 {
		return false, err
	}
	if d.detachBy.IsZero() {
		d.detachBy = time.Now().Add(d.policy.DetachWithin)
	}
	if !time.Now().Before(d.detachBy) {
		return false, nil
	}
	progress.Detaching = d.detaching
	activity.RecordHeartbeat(ctx, progress)
	until := d.asked.Add(askEvery)
	if d.detachBy.Before(until) {
		until = d.detachBy
	}
	return true, d.pause(ctx, woken, until, progress)
}

// confirmed asks the API server whether the node is gone, or unschedulable and without pods that
// have to leave. What a watch has shown may be older than a pod that was just bound.
func (d *drainer) confirmed(ctx context.Context) (bool, error) {
	node, err := d.cluster.node(ctx, d.node)
	switch {
	case err != nil:
		return false, err
	case node == nil || instanceOf(node) != d.instance:
		return true, nil
	case d.vanished() || !node.Spec.Unschedulable:
		return false, nil
	}
	// Without a resource version the answer is as new as the question.
	pods, err := d.cluster.client.CoreV1().Pods("").List(ctx, metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("spec.nodeName", d.node).String()})
	if err != nil {
		return false, d.cluster.explain("listing the pods of node "+d.node, err)
	}
	return !slices.ContainsFunc(pointers(pods.Items), func(pod *corev1.Pod) bool { return drain.MustLeave(pod) }), nil
}
