package drain

import (
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Departure is a pod whose eviction was granted.
type Departure struct {
	Controller types.UID // empty if it had none
	At         time.Time
	Grace      time.Duration // which the pod has to end
}

// replaceWithin is the time in which a controller makes up for a pod that has ended. One that does
// not (it was scaled down, say) does not hold up the others for longer.
const replaceWithin = time.Minute

// implicitBudget is what a replicated workload without a budget may lose now.
type implicitBudget struct {
	room   int
	reason string    // why there is no more room
	again  time.Time // when to look again even if nothing changes
}

// implicitBudget works out what a workload may lose. What is unavailable for other reasons than
// our evictions does not count: a workload that is broken anyway would hold its nodes for ever.
func (s State) implicitBudget(controller types.UID) *implicitBudget {
	b := &implicitBudget{}
	var staying []*corev1.Pod
	var departures []departure
	present := map[types.UID]bool{}
	for _, pod := range s.Siblings[controller] {
		if finished(pod) {
			continue
		}
		present[pod.UID] = true
		switch known, evicted := s.Evicted[pod.UID]; {
		case evicted:
			departures = append(departures, departure{at: known.At})
		case pod.DeletionTimestamp != nil:
			departures = append(departures, departure{at: deleted(pod)})
		default:
			staying = append(staying, pod)
		}
	}
	for uid, known := range s.Evicted {
		if known.Controller == controller && !present[uid] {
			departures = append(departures, departure{known.At, known.At.Add(known.Grace + replaceWithin)})
		}
	}

	missing := 0
	open, notReadyYet := s.unreplaced(departures, staying)
	for _, departure := range open {
		if !departure.due.IsZero() && !s.Now.Before(departure.due) {
			continue
		}
		missing++
		if !departure.due.IsZero() && (b.again.IsZero() || departure.due.Before(b.again)) {
			b.again = departure.due
		}
	}
	all, away := len(staying)+missing, missing+notReadyYet
	allowed := max(1, all*s.Policy.ImplicitBudget/100)
	b.room = allowed - away
	b.reason = fmt.Sprintf("the workload has no budget, so at most %d of its %d pods are taken away at a time, and %d are not back yet", allowed, all, away)
	return b
}

// departure is a pod that is leaving or gone.
type departure struct {
	at  time.Time
	due time.Time // when nobody waits for its replacement any more; zero while the pod is still there
}

// unreplaced matches each pod with the last departure before its creation, and returns the
// departures that are left over and the number of replacements that are not ready yet.
func (s State) unreplaced(departures []departure, pods []*corev1.Pod) (open []departure, notReadyYet int) {
	slices.SortFunc(departures, func(a, b departure) int { return b.at.Compare(a.at) })
	slices.SortFunc(pods, func(a, b *corev1.Pod) int { return b.CreationTimestamp.Compare(a.CreationTimestamp.Time) })
	for _, pod := range pods {
		for len(departures) > 0 && createdBefore(pod, departures[0].at) {
			open = append(open, departures[0])
			departures = departures[1:]
		}
		replaces := len(departures) > 0
		if replaces {
			departures = departures[1:]
		}
		// What another attempt at this drain has evicted may be forgotten.
		if !Ready(pod) && (replaces || !createdBefore(pod, s.Started)) {
			notReadyYet++
		}
	}
	return append(open, departures...), notReadyYet
}

// createdBefore compares in whole seconds, which is what the API server records.
func createdBefore(pod *corev1.Pod, at time.Time) bool {
	return pod.CreationTimestamp.Time.Before(at.Truncate(time.Second))
}

// deleted is when the deletion of a pod was asked for: its timestamp is when the pod has to be gone.
func deleted(pod *corev1.Pod) time.Time {
	at := pod.DeletionTimestamp.Time
	if grace := pod.DeletionGracePeriodSeconds; grace != nil {
		at = at.Add(-time.Duration(*grace) * time.Second)
	}
	return at
}

// replicated returns the controller of a pod that has siblings, or nothing.
func (s State) replicated(pod *corev1.Pod) types.UID {
	if s.Policy.ImplicitBudget == 0 {
		return ""
	}
	controller := metav1.GetControllerOf(pod)
	if controller == nil || controller.Kind == "Job" || controller.Kind == "DaemonSet" {
		return ""
	}
	return controller.UID
}
