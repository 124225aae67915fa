package testload

import (
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/fairway-project/fairway/e2e"
)

// Bounds of what is kept, as all of it goes into each heartbeat. What is beyond them fails a test without being
// named.
const (
	mostTracked    = 5000 // of nodes, budgets, and evicted pods that are still there, each
	mostForced     = 200
	mostViolations = 100
)

const (
	// evictedByAPI is the reason of the condition DisruptionTarget of a pod that was evicted through the API.
	evictedByAPI = "EvictionByEvictionAPI"
	// forcedReason is that of the event that Fairway writes on a pod before it deletes it by force. The event
	// outlives pod and node, by an hour.
	forcedReason = "FairwayForced"
)

// witnessed is what is known of an upgrade. It only ever grows by what is new, so that what is seen again after
// a crash or in a second list counts once.
type witnessed struct {
	Since   time.Time   `json:"since"`
	Upgrade e2e.Upgrade `json:"upgrade"`
	// Looked says that nodes, pods and budgets have been seen at least once.
	Looked  bool                  `json:"looked"`
	Evicted map[types.UID]bool    `json:"evicted"` // pods that count already and are still there
	Forced  map[types.UID]bool    `json:"forced"`
	Nodes   map[types.UID]bool    `json:"nodes"` // that are there
	Budgets map[types.UID]*budget `json:"budgets"`
}

// budget is what is known of one.
type budget struct {
	// Held is how many healthy pods it wanted when it last had them; -1 before that.
	Held int32 `json:"held"`
	// Violation is 1 above the place of the one that is under way; 0 means none is.
	Violation int `json:"violation,omitempty"`
}

func newWitnessed(since time.Time) *witnessed {
	w := &witnessed{Since: since.Truncate(time.Second)} // as precise as conditions and events are
	w.fill()
	return w
}

func (w *witnessed) fill() {
	if w.Evicted == nil {
		w.Evicted = map[types.UID]bool{}
	}
	if w.Forced == nil {
		w.Forced = map[types.UID]bool{}
	}
	if w.Nodes == nil {
		w.Nodes = map[types.UID]bool{}
	}
	if w.Budgets == nil {
		w.Budgets = map[types.UID]*budget{}
	}
	maps.DeleteFunc(w.Budgets, func(_ types.UID, b *budget) bool {
		return b == nil || b.Violation < 0 || b.Violation > len(w.Upgrade.Violations)
	})
}

func (w *witnessed) clone() witnessed {
	out := *w
	out.Upgrade.Forced, out.Upgrade.Violations = slices.Clone(w.Upgrade.Forced), slices.Clone(w.Upgrade.Violations)
	out.Evicted, out.Forced, out.Nodes = maps.Clone(w.Evicted), maps.Clone(w.Forced), maps.Clone(w.Nodes)
	out.Budgets = map[types.UID]*budget{}
	for uid, b := range w.Budgets {
		out.Budgets[uid] = new(*b)
	}
	return out
}

func (w *witnessed) seePod(pod *corev1.Pod) {
	if w.Evicted[pod.UID] || len(w.Evicted) >= mostTracked {
		return
	}
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.DisruptionTarget && c.Status == corev1.ConditionTrue && c.Reason == evictedByAPI && !c.LastTransitionTime.Time.Before(w.Since) {
			w.Evicted[pod.UID] = true
			w.Upgrade.Evictions++
		}
	}
}

// losePod looks once more: the last state of a pod may be the first that says that it was evicted.
func (w *witnessed) losePod(pod *corev1.Pod) {
	w.seePod(pod)
	delete(w.Evicted, pod.UID)
}

func (w *witnessed) seeEvent(event *corev1.Event) {
	pod := event.InvolvedObject
	if event.Reason != forcedReason || pod.Kind != "Pod" || event.LastTimestamp.Time.Before(w.Since) || w.Forced[pod.UID] || len(w.Forced) >= mostForced {
		return
	}
	w.Forced[pod.UID] = true
	w.Upgrade.Forced = append(w.Upgrade.Forced, pod.Namespace+"/"+pod.Name)
}

func (w *witnessed) seeNode(node types.UID) {
	if len(w.Nodes) < mostTracked {
		w.Nodes[node] = true
	}
}

func (w *witnessed) loseNode(node types.UID) {
	if w.Nodes[node] {
		delete(w.Nodes, node)
		w.Upgrade.Nodes++
	}
}

// seeBudget compares a budget with what it was. A budget that wants more than before, as its workload grows, is
// not violated as long as it has what it wanted then. One that has never had enough protects nothing yet.
func (w *witnessed) seeBudget(b *policyv1.PodDisruptionBudget, now time.Time) {
	if b.DeletionTimestamp != nil {
		w.loseBudget(b.UID, now)
		return
	}
	if b.Status.ObservedGeneration != b.Generation {
		return // what it says is about an older one
	}
	known := w.Budgets[b.UID]
	if known == nil {
		if len(w.Budgets) >= mostTracked {
			return
		}
		known = &budget{Held: -1}
		w.Budgets[b.UID] = known
	}
	healthy, desired := b.Status.CurrentHealthy, b.Status.DesiredHealthy
	if healthy >= desired {
		known.Held = desired
		w.endViolation(known, now)
		return
	}
	switch {
	case known.Violation > 0:
		if v := &w.Upgrade.Violations[known.Violation-1]; int(healthy) < v.Healthy {
			v.Healthy, v.Desired = int(healthy), int(desired) // the worst of it
		}
	case healthy < known.Held && len(w.Upgrade.Violations) < mostViolations:
		w.Upgrade.Violations = append(w.Upgrade.Violations, e2e.Violation{
			Budget: b.Namespace + "/" + b.Name, Healthy: int(healthy), Desired: int(desired), From: now.UTC(),
		})
		known.Violation = len(w.Upgrade.Violations)
	}
}

func (w *witnessed) endViolation(b *budget, now time.Time) {
	if b.Violation > 0 {
		w.Upgrade.Violations[b.Violation-1].To = now.UTC()
		b.Violation = 0
	}
}

func (w *witnessed) loseBudget(uid types.UID, now time.Time) {
	if known := w.Budgets[uid]; known != nil {
		w.endViolation(known, now)
		delete(w.Budgets, uid)
	}
}
