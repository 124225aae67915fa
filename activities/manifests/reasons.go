package manifests

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
)

// podsLooked is how many pods of a workload are looked at for reasons.
const podsLooked = 100

// reasons asks why the pods of the first workloads are not ready. It is for people: what goes wrong
// with asking changes nothing.
func (s *server) reasons(ctx context.Context, left []*unready) map[identity]string {
	reasons := map[identity]string{}
	for _, u := range left[:min(len(left), reasonsOf)] {
		if u.live == nil {
			continue
		}
		selector, found, err := unstructured.NestedMap(u.live.Object, "spec", "selector")
		if err != nil || !found {
			continue
		}
		var labels metav1.LabelSelector
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(selector, &labels); err != nil {
			continue
		}
		list, err := s.dynamic.Resource(corev1.SchemeGroupVersion.WithResource("pods")).Namespace(u.id.Namespace).
			List(ctx, metav1.ListOptions{LabelSelector: metav1.FormatLabelSelector(&labels), Limit: podsLooked})
		if err != nil {
			reasons[u.id] = fmt.Sprintf("listing its pods: %v", err)
			continue
		}
		reasons[u.id] = reasonsOfPods(list.Items)
	}
	return reasons
}

// reasonsOfPods sums up why pods are not ready, the most frequent reason first.
func reasonsOfPods(pods []unstructured.Unstructured) string {
	example, count := map[string]string{}, map[string]int{}
	for i := range pods {
		var pod corev1.Pod
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(pods[i].Object, &pod); err != nil {
			continue
		}
		if reason := podReason(&pod); reason != "" {
			count[reason]++
			example[reason] = cmp.Or(example[reason], pod.Name)
		}
	}
	reasons := slices.SortedFunc(maps.Keys(count), func(a, b string) int {
		return cmp.Or(cmp.Compare(count[b], count[a]), strings.Compare(a, b))
	})
	var texts []string
	for _, reason := range reasons[:min(len(reasons), 3)] {
		text := fmt.Sprintf("pod %s: %s", example[reason], reason)
		if n := count[reason]; n > 1 {
			text = fmt.Sprintf("%d pods such as %s: %s", n, example[reason], reason)
		}
		texts = append(texts, text)
	}
	return strings.Join(texts, "; ")
}

// podReason says why a pod is not ready; empty if it is, or is on its way out.
func podReason(pod *corev1.Pod) string {
	if pod.DeletionTimestamp != nil || pod.Status.Phase == corev1.PodSucceeded {
		return ""
	}
	for _, condition := range pod.Status.Conditions {
		switch {
		case condition.Type == corev1.PodReady && condition.Status == corev1.ConditionTrue:
			return ""
		case condition.Type == corev1.PodScheduled && condition.Status == corev1.ConditionFalse:
			return "not scheduled: " + shorten(cmp.Or(condition.Message, condition.Reason), 300)
		}
	}
	for _, container := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses) {
		switch {
		case container.State.Waiting != nil && container.State.Waiting.Reason != "" && container.State.Waiting.Reason != "PodInitializing":
			reason := fmt.Sprintf("container %s: %s", container.Name, container.State.Waiting.Reason)
			if last := container.LastTerminationState.Terminated; last != nil {
				reason += fmt.Sprintf(" after %s with code %d", last.Reason, last.ExitCode)
			}
			return reason
		case container.State.Terminated != nil && container.State.Terminated.ExitCode != 0:
			return fmt.Sprintf("container %s: %s with code %d", container.Name, container.State.Terminated.Reason, container.State.Terminated.ExitCode)
		}
	}
	for _, container := range pod.Status.ContainerStatuses {
		if container.State.Running != nil && !container.Ready {
			return fmt.Sprintf("container %s runs and is not ready", container.Name)
		}
	}
	return strings.ToLower(string(pod.Status.Phase))
}
