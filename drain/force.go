package drain

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// ForcePolicy says when a pod that cannot leave is deleted nevertheless.
type ForcePolicy struct {
	// After is the time from the beginning of the drain to the first force, blocked time not
	// counted; 0 means never.
	After time.Duration
	// WarnBefore is how long before that the pod's people are warned.
	WarnBefore time.Duration
	// Interval lies between two forced pods of the node, and between two of a budget.
	Interval time.Duration
	// SiblingsReady is how long every other pod of the budget has to have been ready.
	SiblingsReady time.Duration
	// Deadline is the time from the beginning of the drain after which the siblings no longer
	// matter, so that young ones cannot postpone for ever; 0 means that they always matter.
	Deadline time.Duration
}

// warnLeast bounds how long a pod's people have to know before it is forced: what is held late, or
// noticed late, is not forced without a warning, and does not wait for half a day either.
const warnLeast = 10 * time.Minute

// Force is a pod to delete although it is held.
type Force struct {
	Pod    *corev1.Pod
	Budget *policyv1.PodDisruptionBudget // nil if something else holds it
	// Guards are the budgets that cover the pod, by name: those whose interval it counts for.
	Guards []*policyv1.PodDisruptionBudget
	// Reason says what held the pod, and why it is forced now.
	Reason string
	// Authority is the setting, or the person with their reason, that allows it.
	Authority string
}

// decideForce picks at most one held pod to delete. What only waits for its turn is not forced.
func (d *decision) decideForce() {
	for i := range d.plan.Held {
		held := &d.plan.Held[i]
		if held.inTurn {
			continue
		}
		switch order := d.order(held.Pod); order.Mode {
		case ForceForbid:
			held.Reason += fmt.Sprintf("; %s forbade to force it: %s", order.By, order.Reason)
		case ForceNow:
			d.decideOrdered(held, order)
		default:
			d.decideByRule(held)
		}
	}
}

// decideByRule forces a held pod if its time has come, or says what it waits for.
func (d *decision) decideByRule(held *Held) {
	if d.Policy.Force.After == 0 {
		return
	}
	if held.passing && !d.pastDeadline() {
		d.decidePassing(held)
		return
	}
	due := d.due(d.Policy.Force.After)
	warnAt := due.Add(-d.Policy.Force.WarnBefore)
	held.ForceAt = due
	if d.Now.Before(warnAt) {
		d.plan.lookAgain(warnAt)
		return
	}
	if at := d.announced(held.Pod, due); at.After(due) {
		held.ForceAt = at
	}
	if d.Now.Before(held.ForceAt) {
		held.Warn = true
		d.plan.lookAgain(held.ForceAt)
		return
	}
	if why, again := d.mayForce(*held); why != "" {
		held.Reason += "; " + why
		d.plan.lookAgain(again)
		return
	}
	d.plan.force(d.force(*held, fmt.Sprintf("drain.force_after = %s", d.Policy.Force.After),
		fmt.Sprintf("%s; forced after %s of draining", held.Reason, (d.Now.Sub(d.Started)-d.Blocked+d.Tried).Round(time.Second))))
}

// decidePassing is for what a busy API server, or a workload that recovers, holds for the moment.
// It is no reason for a force before the node's deadline.
func (d *decision) decidePassing(held *Held) {
	if d.Policy.Force.Deadline > 0 {
		held.ForceAt = d.due(d.Policy.Force.Deadline)
		d.plan.lookAgain(held.ForceAt)
	}
}

// pastDeadline says that what postpones forces no longer matters.
func (d *decision) pastDeadline() bool {
	return d.Policy.Force.Deadline > 0 && !d.Now.Before(d.due(d.Policy.Force.Deadline))
}

// announced is when a pod may be forced as far as warnings go: as its people were told, or, where
// they are told only now, when they have known for long enough. A moment's delay of the warning does
// not count.
func (d *decision) announced(pod *corev1.Pod, due time.Time) time.Time {
	if at, told := d.Announced[pod.UID]; told {
		return at
	}
	least := min(d.Policy.Force.WarnBefore, warnLeast)
	if from := d.Now.Add(least); from.Sub(due) > least/10 {
		return from
	}
	return due
}

// force is what deletes a held pod.
func (d *decision) force(held Held, authority, reason string) Force {
	return Force{Pod: held.Pod, Budget: held.Budget, Guards: covering(held.Pod, d.selectors), Reason: reason, Authority: authority}
}

// force takes the first pod that may be forced; the others have to wait for the interval.
func (p *Plan) force(f Force) {
	if p.Force == nil {
		p.Force = &f
	}
}

// mayForce says why a pod whose time has come is not forced yet, and when to look again; no reason
// means that it is.
func (d *decision) mayForce(held Held) (why string, again time.Time) {
	if why, again := d.tooSoon(held); why != "" {
		return why, again
	}
	return d.waitsForSibling(held)
}

// tooSoon says which other force was just now, and when its interval is over. Every budget that
// covers the pod counts, whatever holds it; where there is none, its controller does.
func (d *decision) tooSoon(held Held) (why string, next time.Time) {
	last, of := d.ForcedHere, "node"
	guards := covering(held.Pod, d.selectors)
	for _, guard := range guards {
		if at := d.Forced[types.NamespacedName{Namespace: guard.Namespace, Name: guard.Name}]; at.After(last) {
			last, of = at, "budget"
		}
	}
	if controller := Workload(held.Pod); len(guards) == 0 && controller != "" {
		if at := d.ForcedOf[controller]; at.After(last) {
			last, of = at, "workload"
		}
	}
	if next := last.Add(d.Policy.Force.Interval); d.Now.Before(next) {
		return fmt.Sprintf("its force waits until %s, since another pod of the %s was just forced", next.UTC().Format(time.RFC3339), of), next
	}
	return "", time.Time{}
}

// waitsForSibling says which other pod of the budget, or of the workload if it has none, has to be
// ready (for longer) first.
func (d *decision) waitsForSibling(held Held) (why string, again time.Time) {
	if d.pastDeadline() {
		return "", time.Time{}
	}
	sibling, since := d.youngestSibling(held)
	if sibling == nil {
		return "", time.Time{}
	}
	until, deadline := "that changes", time.Time{}
	if d.Policy.Force.Deadline > 0 {
		deadline = d.due(d.Policy.Force.Deadline)
		until = "its node's deadline at " + deadline.UTC().Format(time.RFC3339)
	}
	if since.IsZero() {
		return fmt.Sprintf("its force waits for its sibling %s, which is not ready, or for %s", sibling.Name, until), deadline
	}
	old := since.Add(d.Policy.Force.SiblingsReady)
	return fmt.Sprintf("its force waits until %s, when its sibling %s has been ready for %s", old.UTC().Format(time.RFC3339), sibling.Name, d.Policy.Force.SiblingsReady), old
}

// youngestSibling finds a pod of the same budgets that is not ready (zero time), or else the one
// that became ready last, if that is too recent. Pods that finish by themselves are no siblings.
func (d *decision) youngestSibling(held Held) (youngest *corev1.Pod, since time.Time) {
	for _, pod := range inOrder(d.guarded(held)) {
		if pod.UID == held.Pod.UID || finished(pod) || controlledByJob(pod) {
			continue
		}
		ready := readySince(pod)
		if ready.IsZero() || pod.DeletionTimestamp != nil {
			return pod, time.Time{}
		}
		if d.Now.Sub(ready) < d.Policy.Force.SiblingsReady && ready.After(since) {
			youngest, since = pod, ready
		}
	}
	return youngest, since
}

// guarded are the pods of all budgets that cover a held one, or those of its controller if none does.
func (d *decision) guarded(held Held) []*corev1.Pod {
	guards := covering(held.Pod, d.selectors)
	if len(guards) == 0 {
		if held.lone { // its only sibling is the second replica, which may never come
			return nil
		}
		return d.Siblings[Workload(held.Pod)]
	}
	if d.InNamespace == nil {
		return nil
	}
	var out []*corev1.Pod
	these := selectorsFor([]*corev1.Pod{held.Pod}, guards)
	for _, pod := range d.InNamespace(held.Pod.Namespace) {
		if len(covering(pod, these)) > 0 {
			out = append(out, pod)
		}
	}
	return out
}

// Workload is the controller that keeps a pod running; empty if none does, or if it is a Job,
// whose pods finish by themselves.
func Workload(pod *corev1.Pod) types.UID {
	controller := metav1.GetControllerOf(pod)
	if controller == nil || controller.Kind == "Job" {
		return ""
	}
	return controller.UID
}

// readySince is when a pod became ready; zero if it is not.
func readySince(pod *corev1.Pod) time.Time {
	for _, condition := range pod.Status.Conditions {
		if condition.Type == corev1.PodReady && condition.Status == corev1.ConditionTrue {
			return condition.LastTransitionTime.Time
		}
	}
	return time.Time{}
}

func controlledByJob(pod *corev1.Pod) bool {
	controller := metav1.GetControllerOf(pod)
	return controller != nil && controller.Kind == "Job"
}
