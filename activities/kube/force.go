package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/fairway-project/fairway/drain"
	"github.com/fairway-project/fairway/workflows"
)

// ForcedPods is the annotation of a node that records the pods forced off it. It is written before
// a pod is deleted, so that neither the record nor the interval to the next one is lost in a crash.
const ForcedPods = "fairway.dev/forced-pods"

// forcedPods reads a node's record. One that is not understood counts as none.
func forcedPods(node *corev1.Node) []workflows.ForcedPod {
	var pods []workflows.ForcedPod
	if node != nil && json.Unmarshal([]byte(node.Annotations[ForcedPods]), &pods) != nil {
		return nil
	}
	return pods
}

// lastForces tells when a pod of this node was last forced, and when one of each budget was.
func (d *drainer) lastForces() (here time.Time, byBudget map[types.NamespacedName]time.Time) {
	byBudget = map[types.NamespacedName]time.Time{}
	for _, node := range d.view.allNodes() {
		for _, forced := range forcedPods(node) {
			if node.Name == d.node && forced.At.After(here) {
				here = forced.At
			}
			namespace, _, _ := strings.Cut(forced.Pod, "/")
			key := types.NamespacedName{Namespace: namespace, Name: forced.Budget}
			if forced.Budget != "" && forced.At.After(byBudget[key]) {
				byBudget[key] = forced.At
			}
		}
	}
	return here, byBudget
}

// force deletes a pod that cannot leave, after it has been recorded and announced. The pod still
// gets its grace period.
func (d *drainer) force(ctx context.Context, f drain.Force) error {
	pod := f.Pod
	record := workflows.ForcedPod{
		Pod: pod.Namespace + "/" + pod.Name, UID: string(pod.UID), Owner: drain.Owner(pod), Reason: f.Reason,
		At: time.Now().UTC().Truncate(time.Second), Authority: f.Authority,
	}
	if f.Budget != nil {
		record.Budget = f.Budget.Name
	}
	// An attempt before this one may have recorded it and then failed to delete it.
	if err := d.cluster.annotate(ctx, d.node, ForcedPods, func(node *corev1.Node) any {
		return append(slices.DeleteFunc(forcedPods(node), func(old workflows.ForcedPod) bool { return old.UID == record.UID }), record)
	}); err != nil {
		return err
	}
	if err := d.announce(ctx, pod, "FairwayForced", fmt.Sprintf("Deleted to empty node %s: %s", d.node, f.Reason)); err != nil {
		return d.cluster.explain("announcing a force", err)
	}
	err := d.cluster.client.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(pod.UID))})
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil // it went by itself meanwhile
	}
	if err != nil {
		return d.cluster.explain("deleting pod "+record.Pod, err)
	}
	d.cluster.departed.add(pod, time.Now())
	d.tell(ctx, workflows.Forced, pod, fmt.Sprintf("Pod %s was deleted to empty node %s of cluster %s, on the authority of %s: %s.",
		record.Pod, d.node, d.cluster.id, f.Authority, f.Reason))
	return nil
}

// warn tells a pod's people that it will be forced. The events have fixed names, so that each is
// written once, also after a crash.
func (d *drainer) warn(ctx context.Context, held []drain.Held) error {
	for _, each := range held {
		if !each.Warn || d.warned[each.Pod.UID] {
			continue
		}
		if err := d.announce(ctx, each.Pod, "FairwayForceSoon", fmt.Sprintf("Will be deleted at %s to empty node %s unless it can be evicted before: %s",
			each.ForceAt.UTC().Format(time.RFC3339), d.node, each.Reason)); err != nil {
			return d.cluster.explain("announcing a force", err)
		}
		d.warned[each.Pod.UID] = true
		d.tell(ctx, workflows.ForceSoon, each.Pod, fmt.Sprintf("Pod %s/%s will be deleted at %s to empty node %s of cluster %s unless it can be evicted before: %s.",
			each.Pod.Namespace, each.Pod.Name, each.ForceAt.UTC().Format(time.RFC3339), d.node, d.cluster.id, each.Reason))
	}
	return nil
}

// What is told is tried so often, and for so long. A hook that does not answer holds up nothing.
const (
	tellTries  = 3
	tellWithin = time.Minute
)

// tell notifies people in the background. What fails is in the log, and for a pod's own people
// there are events.
func (d *drainer) tell(ctx context.Context, kind string, pod *corev1.Pod, text string) {
	if d.notify == nil {
		return
	}
	n := workflows.Notification{
		ID: kind + "/" + string(pod.UID), Kind: kind, Cluster: d.cluster.id, Pool: d.pool, Node: d.node,
		Pod: pod.Namespace + "/" + pod.Name, Owner: drain.Owner(pod), Text: text, At: time.Now().UTC(),
	}
	logger := activity.GetLogger(ctx)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), tellWithin) // the drain may be over before
	go func() {
		defer cancel()
		_, err := backoff.Retry(ctx, func() (struct{}, error) {
			err := d.notify(ctx, n)
			var typed *temporal.ApplicationError
			if errors.As(err, &typed) && typed.NonRetryable() {
				err = backoff.Permanent(err)
			} else if typed != nil && typed.NextRetryDelay() > 0 {
				err = errors.Join(err, &backoff.RetryAfterError{Duration: typed.NextRetryDelay()})
			}
			return struct{}{}, err
		}, backoff.WithMaxTries(tellTries), backoff.WithMaxElapsedTime(tellWithin))
		if err != nil {
			logger.Warn("a notification was not delivered", "kind", kind, "pod", n.Pod, "node", n.Node, "tries", tellTries, "error", err)
		}
	}()
}

// announce writes an event on a pod, and on the workload that it belongs to.
func (d *drainer) announce(ctx context.Context, pod *corev1.Pod, reason, message string) error {
	about := []corev1.ObjectReference{{APIVersion: "v1", Kind: "Pod", Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID}}
	if controller := metav1.GetControllerOf(pod); controller != nil {
		about = append(about, corev1.ObjectReference{
			APIVersion: controller.APIVersion, Kind: controller.Kind, Namespace: pod.Namespace, Name: controller.Name, UID: controller.UID,
		})
	}
	now := metav1.Now()
	for _, object := range about {
		_, err := d.cluster.client.CoreV1().Events(pod.Namespace).Create(ctx, &corev1.Event{
			ObjectMeta:     metav1.ObjectMeta{Namespace: pod.Namespace, Name: eventName(reason, object, pod)},
			InvolvedObject: object,
			Type:           corev1.EventTypeWarning,
			Reason:         reason,
			Message:        message,
			Source:         corev1.EventSource{Component: "fairway"},
			FirstTimestamp: now, LastTimestamp: now, Count: 1,
		}, metav1.CreateOptions{})
		if apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
			return nil // its people have sent it away themselves
		}
		if err != nil && !apierrors.IsAlreadyExists(err) {
			return err
		}
	}
	return nil
}

// eventName is the same for the same thing said about the same pod.
func eventName(reason string, object corev1.ObjectReference, pod *corev1.Pod) string {
	return strings.ToLower(fmt.Sprintf("%s.%s.%s", pod.UID, object.Kind, reason))
}
