package drain

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// Surge is the annotation of pods ("true", from their template) whose Deployment may be scaled up
// by one before its only pod is evicted. It counts for Deployments only: the second pod of a
// StatefulSet is another member and no stand-in for the first, and what else controls pods has no
// common way to be scaled. A workload that something else scales (a HorizontalPodAutoscaler, a
// deployment tool) may lose its second replica again before it helps.
const Surge = "fairway.dev/surge"

// Surged is what has been done for a lone replica.
type Surged struct {
	// Scaled means that its workload was told to have a second one. While that is not sure it is
	// told again, which changes nothing if it was.
	Scaled bool
	// Impossible means that its workload cannot be scaled, so that the pod is evicted like others.
	Impossible bool
}

// secondReplica holds a pod that is the only one of its workload, and whose owner wants a second
// one to serve first. It says whether it did.
func (d *decision) secondReplica(pod *corev1.Pod, budgets []*policyv1.PodDisruptionBudget) bool {
	controller := metav1.GetControllerOf(pod)
	if pod.Annotations[Surge] != "true" || controller == nil || controller.Kind != "ReplicaSet" {
		return false
	}
	surged, begun := d.Surged[controller.UID]
	// What is not ready serves nobody, so nobody has to stand in for it.
	if surged.Impossible || !Ready(pod) || len(budgets) > 1 || (len(budgets) == 1 && !begun && !surgeHelps(budgets[0])) {
		return false
	}
	others := slices.DeleteFunc(slices.Clone(d.Siblings[controller.UID]), func(other *corev1.Pod) bool {
		return other.UID == pod.UID || d.leaves(other)
	})
	if len(others) > 0 && !begun {
		return false // not alone
	}
	if slices.ContainsFunc(others, func(other *corev1.Pod) bool {
		return Ready(other) && other.Spec.NodeName != "" && other.Spec.NodeName != pod.Spec.NodeName
	}) {
		return false
	}
	if !surged.Scaled {
		d.plan.Surge = append(d.plan.Surge, pod)
	}
	var budget *policyv1.PodDisruptionBudget
	if len(budgets) == 1 {
		budget = budgets[0]
	}
	d.plan.hold(pod, budget, "it waits for its second replica to be ready on another node", time.Time{}).lone = true
	return true
}

// leaves says whether a pod is on its way out, or over.
func (s State) leaves(pod *corev1.Pod) bool {
	_, evicted := s.Evicted[pod.UID]
	return evicted || pod.DeletionTimestamp != nil || finished(pod)
}

// surgeHelps says whether a budget would let a pod go if there were one more. It counts as
// the disruption controller does, which rounds up.
func surgeHelps(budget *policyv1.PodDisruptionBudget) bool {
	expected := int(budget.Status.ExpectedPods) + 1
	desired := 0
	switch spec := budget.Spec; {
	case spec.MaxUnavailable != nil:
		unavailable, err := intstr.GetScaledValueFromIntOrPercent(spec.MaxUnavailable, expected, true)
		if err != nil {
			return false
		}
		desired = expected - unavailable
	case spec.MinAvailable != nil:
		var err error
		if desired, err = intstr.GetScaledValueFromIntOrPercent(spec.MinAvailable, expected, true); err != nil {
			return false
		}
	}
	return int(budget.Status.CurrentHealthy)+1 > desired
}

// settled lists what was surged and has no pod on the node any more that still has to go.
func (s State) settled() []types.UID {
	var done []types.UID
	for controller, surged := range s.Surged {
		waits := slices.ContainsFunc(s.Pods, func(pod *corev1.Pod) bool {
			owner := metav1.GetControllerOf(pod)
			return owner != nil && owner.UID == controller && !s.leaves(pod)
		})
		if !waits && !surged.Impossible {
			done = append(done, controller)
		}
	}
	slices.Sort(done)
	return done
}
