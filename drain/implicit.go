package drain

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Departure is a pod whose eviction was granted.
type Departure struct {
	Controller types.UID // empty if it had none
	At         time.Time
}

// replaceWithin is the time in which a controller makes up for an evicted pod. One that does not
// (it was scaled down, say) does not hold up the others for longer.
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
	var replicas, fresh, notReadyYet, leaving int
	present := map[types.UID]bool{}
	for _, pod := range s.Siblings[controller] {
		if finished(pod) {
			continue
		}
		present[pod.UID] = true
		if _, evicted := s.Evicted[pod.UID]; evicted || pod.DeletionTimestamp != nil {
			leaving++
			continue
		}
		replicas++
		// What was created since the drain began stands in for what it has evicted.
		if !pod.CreationTimestamp.Time.Before(s.Started) {
			fresh++
			if !Ready(pod) {
				notReadyYet++
			}
		}
	}
	for uid, departure := range s.Evicted {
		due := departure.At.Add(replaceWithin)
		if departure.Controller != controller || present[uid] || !s.Now.Before(due) {
			continue
		}
		leaving++
		if b.again.IsZero() || due.Before(b.again) {
			b.again = due
		}
	}
	missing := max(0, leaving-fresh)
	all, away := replicas+missing, missing+notReadyYet
	allowed := max(1, all*s.Policy.ImplicitBudget/100)
	b.room = allowed - away
	b.reason = fmt.Sprintf("the workload has no budget, so at most %d of its %d pods are taken away at a time, and %d are not back yet", allowed, all, away)
	return b
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
