package drain

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
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

// Force is a pod to delete although it is held.
type Force struct {
	Pod    *corev1.Pod
	Budget *policyv1.PodDisruptionBudget // nil if something else holds it
	// Reason says what held the pod, and why it is forced now.
	Reason string
	// Authority is the setting, or the person with their reason, that allows it.
	Authority string
}

// forceAt is when held pods of this node may be forced; zero means never.
func (s State) forceAt() time.Time {
	if s.Policy.Force.After == 0 {
		return time.Time{}
	}
	return s.Started.Add(s.Blocked).Add(s.Policy.Force.After)
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
	due := d.forceAt()
	if due.IsZero() {
		return
	}
	held.ForceAt = due
	if d.Now.Before(due) {
		warnAt := due.Add(-d.Policy.Force.WarnBefore)
		held.Warn = !d.Now.Before(warnAt)
		d.plan.lookAgain(due)
		if !held.Warn {
			d.plan.lookAgain(warnAt)
		}
		return
	}
	if why, again := d.mayForce(*held); why != "" {
		held.Reason += "; " + why
		d.plan.lookAgain(again)
		return
	}
	d.plan.force(*held, fmt.Sprintf("drain.force_after = %s", d.Policy.Force.After),
		fmt.Sprintf("%s; forced %s after the drain began", held.Reason, d.Now.Sub(d.Started).Round(time.Second)))
}

// force takes the first pod that may be forced; the others have to wait for the interval.
func (p *Plan) force(held Held, authority, reason string) {
	if p.Force == nil {
		p.Force = &Force{Pod: held.Pod, Budget: held.Budget, Reason: reason, Authority: authority}
	}
}

// mayForce says why a pod whose time has come is not forced yet, and when to look again; no reason
// means that it is.
func (d *decision) mayForce(held Held) (why string, again time.Time) {
	if why, again := d.tooSoon(held); why != "" || held.Budget == nil {
		return why, again
	}
	return d.waitsForSibling(held)
}

// tooSoon says which other force was just now, and when its interval is over.
func (d *decision) tooSoon(held Held) (why string, next time.Time) {
	interval := d.Policy.Force.Interval
	if next := d.ForcedHere.Add(interval); d.Now.Before(next) {
		return fmt.Sprintf("its force waits until %s, since another pod of the node was just forced", next.UTC().Format(time.RFC3339)), next
	}
	if held.Budget == nil {
		return "", time.Time{}
	}
	key := types.NamespacedName{Namespace: held.Budget.Namespace, Name: held.Budget.Name}
	if next := d.Forced[key].Add(interval); d.Now.Before(next) {
		return fmt.Sprintf("its force waits until %s, since another pod of the budget was just forced", next.UTC().Format(time.RFC3339)), next
	}
	return "", time.Time{}
}

// waitsForSibling says which other pod of the budget has to be ready (for longer) first.
func (d *decision) waitsForSibling(held Held) (why string, again time.Time) {
	deadline := d.Started.Add(d.Blocked).Add(d.Policy.Force.Deadline)
	if d.Policy.Force.Deadline > 0 && !d.Now.Before(deadline) {
		return "", time.Time{}
	}
	sibling, since := d.youngestSibling(held)
	if sibling == nil {
		return "", time.Time{}
	}
	until := "its node's deadline"
	if d.Policy.Force.Deadline == 0 {
		until, deadline = "that changes", time.Time{}
	} else {
		until += " at " + deadline.UTC().Format(time.RFC3339)
	}
	if since.IsZero() {
		return fmt.Sprintf("its force waits for its sibling %s, which is not ready, or for %s", sibling.Name, until), deadline
	}
	old := since.Add(d.Policy.Force.SiblingsReady)
	return fmt.Sprintf("its force waits until %s, when its sibling %s has been ready for %s", old.UTC().Format(time.RFC3339), sibling.Name, d.Policy.Force.SiblingsReady), old
}

// youngestSibling finds a pod of the same budget that is not ready (zero time), or else the one
// that became ready last, if that is too recent. Pods that finish by themselves are no siblings.
func (d *decision) youngestSibling(held Held) (youngest *corev1.Pod, since time.Time) {
	selector, err := metav1.LabelSelectorAsSelector(held.Budget.Spec.Selector)
	if err != nil || d.InNamespace == nil {
		return nil, time.Time{}
	}
	for _, pod := range inOrder(d.InNamespace(held.Pod.Namespace)) {
		if pod.UID == held.Pod.UID || !selector.Matches(labels.Set(pod.Labels)) || finished(pod) || controlledByJob(pod) {
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
