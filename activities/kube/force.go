package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

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
		At: time.Now().UTC().Truncate(time.Second), Authority: fmt.Sprintf("drain.force_after = %s", d.policy.Force.After),
	}
	if f.Budget != nil {
		record.Budget = f.Budget.Name
	}
	if err := d.record(ctx, record); err != nil {
		return d.cluster.explain("recording a forced pod on node "+d.node, err)
	}
	if err := d.announce(ctx, pod, "FairwayForced", fmt.Sprintf("Deleted to empty node %s: %s", d.node, f.Reason)); err != nil {
		return d.cluster.explain("announcing a force", err)
	}
	err := d.cluster.client.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(pod.UID))})
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil // it went by itself meanwhile
	}
	d.cluster.departed.add(pod, time.Now())
	return d.cluster.explain("deleting pod "+record.Pod, err)
}

func (d *drainer) record(ctx context.Context, record workflows.ForcedPod) error {
	node, err := d.cluster.client.CoreV1().Nodes().Get(ctx, d.node, metav1.GetOptions{})
	if err != nil {
		return err
	}
	value, err := json.Marshal(append(forcedPods(node), record))
	if err != nil {
		return err
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{
		"resourceVersion": node.ResourceVersion, "annotations": map[string]string{ForcedPods: string(value)},
	}})
	if err != nil {
		return err
	}
	_, err = d.cluster.client.CoreV1().Nodes().Patch(ctx, d.node, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: "fairway"})
	return err
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
	}
	return nil
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
