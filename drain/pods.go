// Package drain decides how a node is emptied. It only decides: what it is given is what is
// known at the moment, and what it returns is done by activities/kube.
package drain

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// MustLeave says whether a pod has to be gone before its node may be terminated. Pods of
// DaemonSets would come back at once, mirror pods belong to the kubelet, and finished pods no
// longer use the node.
func MustLeave(pod *corev1.Pod) bool {
	if finished(pod) {
		return false
	}
	if _, mirror := pod.Annotations[corev1.MirrorPodAnnotationKey]; mirror {
		return false
	}
	owner := metav1.GetControllerOf(pod)
	return owner == nil || owner.Kind != "DaemonSet"
}

func finished(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
}

// Ready says whether a pod serves.
func Ready(pod *corev1.Pod) bool {
	for _, condition := range pod.Status.Conditions {
		if condition.Type == corev1.PodReady {
			return condition.Status == corev1.ConditionTrue
		}
	}
	return false
}

// Owner names who answers for a pod: its label `owner`, `team` or `application`, or else the
// controller that made it.
func Owner(pod *corev1.Pod) string {
	for _, label := range []string{"owner", "team", "application"} {
		if value := pod.Labels[label]; value != "" {
			return value
		}
	}
	if controller := metav1.GetControllerOf(pod); controller != nil {
		return controller.Kind + " " + controller.Name
	}
	return ""
}
