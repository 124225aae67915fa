package drain

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
)

// State is what is known about a node when the next step is decided.
type State struct {
	Now     time.Time
	Pods    []*corev1.Pod // on the node
	Budgets []*policyv1.PodDisruptionBudget
	// Evicted are pods whose eviction was granted: they are leaving even if Pods does not show it yet.
	Evicted map[types.UID]bool
	// Refused holds the last refusal of each pod's eviction.
	Refused map[types.UID]Refusal
	// Spent counts, by budget, the evictions of ready pods granted since the given resource
	// version of it was read: its status is older than they are.
	Spent map[types.NamespacedName]Spending
}

// Refusal is the API server's no to an eviction. It holds until the budget is no longer of the
// given version, or until the given time.
type Refusal struct {
	Version string // of the budget; empty if no budget was the reason
	Until   time.Time
	Reason  string // if no budget was the reason
}

func (r Refusal) holds(now time.Time, version string) bool {
	return now.Before(r.Until) && (r.Version == "" || r.Version == version)
}

// Spending is what has been taken out of a budget since it was last read.
type Spending struct {
	Version string // resource version of the budget
	Granted int32
}

// Plan says what to do now and what has to be waited for.
type Plan struct {
	// Evict holds pods to evict now. Those of one inner slice share a budget and are evicted one
	// after another, since the API server lets only one of two concurrent evictions from a budget
	// through at once; the slices are independent of each other.
	Evict   [][]Eviction
	Held    []Held
	Leaving int // pods that terminate already
	// Until is when to decide again even if nothing has changed; zero if only a change helps.
	Until time.Time
}

// Eviction is a pod to evict, and the budget that allows it, if one covers the pod.
type Eviction struct {
	Pod    *corev1.Pod
	Budget *policyv1.PodDisruptionBudget
}

// Held is a pod that cannot leave yet, and why.
type Held struct {
	Pod    *corev1.Pod
	Budget *policyv1.PodDisruptionBudget // nil if the reason is another
	Reason string
}

// Done says that nothing is left on the node that must leave.
func (p Plan) Done() bool { return len(p.Evict) == 0 && len(p.Held) == 0 && p.Leaving == 0 }

// Decide says which pods to evict now. A pod without a budget is evicted at once, one with a
// budget when the budget has something to spare, and one that two budgets cover never, because
// the API server refuses that (https://kubernetes.io/docs/concepts/workloads/pods/disruptions/).
func Decide(s State) Plan {
	var plan Plan
	room := map[types.NamespacedName]int32{}
	queues := map[types.NamespacedName]int{} // budget -> index in plan.Evict
	for _, pod := range inOrder(s.Pods) {
		if !MustLeave(pod) {
			continue
		}
		if pod.DeletionTimestamp != nil || s.Evicted[pod.UID] {
			plan.Leaving++
			continue
		}
		refusal := s.Refused[pod.UID]
		budgets := covering(pod, s.Budgets)
		switch len(budgets) {
		case 0:
			if refusal.holds(s.Now, "") {
				plan.hold(pod, nil, refusal.Reason, refusal.Until)
			} else {
				plan.Evict = append(plan.Evict, []Eviction{{Pod: pod}})
			}
			continue
		case 1:
		default:
			plan.hold(pod, budgets[0], fmt.Sprintf("%d budgets cover the pod (%s) and the API server evicts no such pod; leave one", len(budgets), names(budgets)), time.Time{})
			continue
		}

		budget := budgets[0]
		key := types.NamespacedName{Namespace: budget.Namespace, Name: budget.Name}
		if _, known := room[key]; !known {
			room[key] = spare(budget, s.Spent[key])
		}
		switch {
		case refusal.holds(s.Now, budget.ResourceVersion):
			plan.hold(pod, budget, cmp.Or(refusal.Reason, reason(budget)), refusal.Until)
			continue
		case !Ready(pod):
			// What is not ready may be evictable from a spent budget: that depends on its
			// unhealthyPodEvictionPolicy, and the API server knows. It takes nothing out of the
			// budget, whose status may then never change: what is ready must not wait for that.
		case room[key] > 0:
			room[key]--
		default:
			plan.hold(pod, budget, reason(budget), time.Time{})
			continue
		}
		eviction := Eviction{Pod: pod, Budget: budget}
		if queue, begun := queues[key]; begun {
			plan.Evict[queue] = append(plan.Evict[queue], eviction)
			continue
		}
		queues[key] = len(plan.Evict)
		plan.Evict = append(plan.Evict, []Eviction{eviction})
	}
	return plan
}

func (p *Plan) hold(pod *corev1.Pod, budget *policyv1.PodDisruptionBudget, reason string, until time.Time) {
	p.Held = append(p.Held, Held{Pod: pod, Budget: budget, Reason: reason})
	if !until.IsZero() && (p.Until.IsZero() || until.Before(p.Until)) {
		p.Until = until
	}
}

// spare is what a budget still allows after what was granted since its status was read.
func spare(budget *policyv1.PodDisruptionBudget, spent Spending) int32 {
	allowed := budget.Status.DisruptionsAllowed
	if spent.Version == budget.ResourceVersion {
		allowed -= spent.Granted
	}
	return allowed
}

func reason(budget *policyv1.PodDisruptionBudget) string {
	status := budget.Status
	if status.ExpectedPods > 0 && status.DesiredHealthy >= status.ExpectedPods {
		return fmt.Sprintf("the budget can never allow an eviction: it wants %d of %d pods healthy", status.DesiredHealthy, status.ExpectedPods)
	}
	return fmt.Sprintf("the budget has nothing to spare: %d pods are healthy, %d have to be", status.CurrentHealthy, status.DesiredHealthy)
}

// covering lists the budgets whose selector matches a pod, by name. An empty selector matches
// every pod of its namespace and a missing one none, as the policy/v1 API says.
func covering(pod *corev1.Pod, budgets []*policyv1.PodDisruptionBudget) []*policyv1.PodDisruptionBudget {
	var out []*policyv1.PodDisruptionBudget
	for _, budget := range budgets {
		if budget.Namespace != pod.Namespace || budget.Spec.Selector == nil {
			continue
		}
		selector, err := metav1.LabelSelectorAsSelector(budget.Spec.Selector)
		if err == nil && selector.Matches(labels.Set(pod.Labels)) {
			out = append(out, budget)
		}
	}
	slices.SortFunc(out, func(a, b *policyv1.PodDisruptionBudget) int { return strings.Compare(a.Name, b.Name) })
	return out
}

func names(budgets []*policyv1.PodDisruptionBudget) string {
	all := make([]string, len(budgets))
	for i, budget := range budgets {
		all[i] = budget.Name
	}
	return strings.Join(all, ", ")
}

// inOrder sorts by name, so that the same state always yields the same plan.
func inOrder(pods []*corev1.Pod) []*corev1.Pod {
	sorted := slices.Clone(pods)
	slices.SortFunc(sorted, func(a, b *corev1.Pod) int {
		return strings.Compare(a.Namespace+"/"+a.Name, b.Namespace+"/"+b.Name)
	})
	return sorted
}
