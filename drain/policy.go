package drain

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Policy says how gently a node is emptied. The zero value evicts whatever the API server lets go.
type Policy struct {
	// ImplicitBudget is the share of a replicated workload without a budget, in percent, that may
	// be unavailable at a time because of us; one pod always may. 0 means no limit.
	ImplicitBudget int
	// JobsWithin is how long pods of Jobs may go on before they are evicted, from the beginning of
	// the drain, blocked time not counted.
	JobsWithin time.Duration
	// HoldUnmanaged keeps pods that no controller would bring back.
	HoldUnmanaged bool
	// HoldLocalData keeps pods with emptyDir volumes on disk, whose content is lost with the pod.
	HoldLocalData bool
	// UncordonOnBlock lets pods onto a node that is being drained while a block holds.
	UncordonOnBlock bool
	// DetachWithin is how long an empty node waits for its volumes to be detached; 0 means that
	// nobody waits.
	DetachWithin time.Duration
	Force        ForcePolicy
}

// Annotations of a pod that forbid ("true") or postpone (a duration since its start, such as
// "4h") its eviction: ours, and Karpenter's.
const (
	DoNotDisrupt          = "fairway.dev/do-not-disrupt"
	KarpenterDoNotDisrupt = "karpenter.sh/do-not-disrupt"
)

// objection says why the policy, or the pod itself, is against evicting it now, and until when;
// no reason means that nothing is, and no time that only a change of the pod helps.
func (s State) objection(pod *corev1.Pod) (reason string, until time.Time) {
	for _, annotation := range []string{DoNotDisrupt, KarpenterDoNotDisrupt} {
		if reason, until := s.forbidden(pod, annotation); reason != "" {
			return reason, until
		}
	}
	controller := metav1.GetControllerOf(pod)
	switch {
	case controller == nil && s.Policy.HoldUnmanaged:
		return "no controller would bring the pod back; delete it when it may go", time.Time{}
	case controller != nil && controller.Kind == "Job" && s.Now.Before(s.due(s.Policy.JobsWithin)):
		until := s.due(s.Policy.JobsWithin)
		return fmt.Sprintf("its Job may go on until %s", until.UTC().Format(time.RFC3339)), until
	case s.Policy.HoldLocalData && hasLocalData(pod):
		return "it has data in an emptyDir volume, which would be lost; delete it when it may go", time.Time{}
	}
	return "", time.Time{}
}

func (s State) forbidden(pod *corev1.Pod, annotation string) (reason string, until time.Time) {
	value, present := pod.Annotations[annotation]
	if !present || value == "false" {
		return "", time.Time{}
	}
	if value == "true" {
		return "the pod forbids it by its annotation " + annotation, time.Time{}
	}
	postponed, err := time.ParseDuration(value)
	if err != nil {
		// A wish that is not understood is taken for the strongest one.
		return fmt.Sprintf("its annotation %s is %q; use true, false or a duration such as 4h", annotation, value), time.Time{}
	}
	until = started(pod).Add(postponed)
	if !s.Now.Before(until) {
		return "", time.Time{}
	}
	return fmt.Sprintf("the pod postpones it by its annotation %s until %s", annotation, until.UTC().Format(time.RFC3339)), until
}

func started(pod *corev1.Pod) time.Time {
	if pod.Status.StartTime != nil {
		return pod.Status.StartTime.Time
	}
	return pod.CreationTimestamp.Time
}

// hasLocalData says whether a pod keeps something on the node's disk. Memory is lost on any restart,
// so nobody keeps data in it.
func hasLocalData(pod *corev1.Pod) bool {
	for _, volume := range pod.Spec.Volumes {
		if volume.EmptyDir != nil && volume.EmptyDir.Medium != corev1.StorageMediumMemory {
			return true
		}
	}
	return false
}

// critical says whether a pod belongs to the node's or the cluster's own services, which others
// need until they are gone (https://kubernetes.io/docs/tasks/administer-cluster/guaranteed-scheduling-critical-addon-pods/).
func critical(pod *corev1.Pod) bool {
	return pod.Spec.Priority != nil && *pod.Spec.Priority >= systemCritical
}

const systemCritical = 2_000_000_000
