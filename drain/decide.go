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
	Started time.Time // when the drain began
	// Blocked is how much of the time since then the drain was not allowed to go on.
	Blocked time.Duration
	// Tried is for how long earlier drains of the node were tried; all times count from there.
	Tried  time.Duration
	Policy Policy
	// GiveUpAfter is how long the drain may last, blocked time not counted, while something is
	// held; 0 means for ever.
	GiveUpAfter time.Duration
	// Orders are what people decided about forcing pods of the node, the newest last.
	Orders []Order
	// ForcedHere is when a pod of this node was last forced, Forced when one of a budget was, and
	// ForcedOf when one of a controller was.
	ForcedHere time.Time
	Forced     map[types.NamespacedName]time.Time
	ForcedOf   map[types.UID]time.Time
	// Announced is the time at which a pod's people were told that it will be forced.
	Announced map[types.UID]time.Time
	// InNamespace returns all pods of a namespace. It is asked only when a force is due.
	InNamespace func(namespace string) []*corev1.Pod
	Pods        []*corev1.Pod // on the node
	// Siblings are the pods of the controllers that have pods on the node, wherever they run.
	Siblings map[types.UID][]*corev1.Pod
	Budgets  []*policyv1.PodDisruptionBudget
	// Evicted are pods whose eviction was granted: they are leaving even if Pods does not show it yet.
	Evicted map[types.UID]Departure
	// Surged is what has been done for lone replicas, by the ReplicaSet that controls them.
	Surged map[types.UID]Surged
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
	// Unsure means that there was no answer, so that the eviction may have been granted.
	Unsure bool
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
	Force   *Force // at most one pod, if its time has come
	Leaving int    // pods that terminate already
	// Surge holds lone replicas whose workloads get a second one now; they are among Held too.
	Surge []*corev1.Pod
	// Settle names the ReplicaSets of Surged that have no pod left on the node, so that their
	// workloads get their size back.
	Settle []types.UID
	// GiveUp says that the drain has lasted too long: nothing can be done now, and pods are held.
	GiveUp bool
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
	// ForceAt is when the pod may be forced; zero if never. Warn says that this is close.
	ForceAt time.Time
	Warn    bool

	inTurn  bool // it only waits for other pods
	passing bool // the reason passes by itself, so that it may be evicted soon
	lone    bool // it waits for a second replica
}

// Acts says that there is something to do now.
func (p Plan) Acts() bool { return len(p.Evict) > 0 || p.Force != nil || len(p.Surge) > 0 }

// Done says that nothing is left on the node that must leave.
func (p Plan) Done() bool { return len(p.Evict) == 0 && len(p.Held) == 0 && p.Leaving == 0 }

// Decide says which pods to evict now.
//
// Ordinary pods go first, critical ones when no ordinary pod is left. A pod that the policy or its
// own annotation keeps is held. One with a budget is evicted when the budget has something to
// spare; one that two budgets cover never, because the API server refuses that
// (https://kubernetes.io/docs/concepts/workloads/pods/disruptions/). A replicated workload without
// a budget gets an implicit one; everything else goes at once. When the time for it has come, one
// of the held pods is forced.
func Decide(s State) Plan {
	d := &decision{
		State: s, room: map[types.NamespacedName]int32{}, queues: map[types.NamespacedName]int{},
		implicit: map[types.UID]*implicitBudget{}, selectors: selectorsFor(s.Pods, s.Budgets),
	}
	var ordinary, last []*corev1.Pod
	for _, pod := range inOrder(s.Pods) {
		switch _, evicted := s.Evicted[pod.UID]; {
		case !MustLeave(pod):
		case evicted || pod.DeletionTimestamp != nil:
			d.plan.Leaving++
			if !critical(pod) {
				d.ordinaryLeft = true
			}
		case critical(pod):
			last = append(last, pod)
		default:
			ordinary = append(ordinary, pod)
			d.ordinaryLeft = true
		}
	}
	for _, pod := range ordinary {
		d.consider(pod)
	}
	for _, pod := range last {
		if d.ordinaryLeft {
			d.plan.hold(pod, nil, "it is critical and goes when the ordinary pods are gone", time.Time{}).inTurn = true
			continue
		}
		d.consider(pod)
	}
	d.decideForce()
	d.decideGivingUp()
	d.plan.Settle = s.settled()
	return d.plan
}

// decideGivingUp ends a drain that has lasted too long. Pods that leave within their grace period,
// and those that only wait for them, are no reason to give up.
func (d *decision) decideGivingUp() {
	stuck := slices.ContainsFunc(d.plan.Held, func(h Held) bool { return !h.inTurn })
	if d.GiveUpAfter == 0 || !stuck {
		return
	}
	due := d.due(d.GiveUpAfter)
	if d.Now.Before(due) {
		d.plan.lookAgain(due)
		return
	}
	d.plan.Surge = nil // would be taken back at once
	d.plan.GiveUp = !d.plan.Acts()
}

// due is when the drain has been tried for so long, blocked time not counted.
func (s State) due(after time.Duration) time.Time {
	return s.Started.Add(s.Blocked).Add(after - s.Tried)
}

// decision is a plan in the making, and what it has used up so far.
type decision struct {
	State
	plan         Plan
	room         map[types.NamespacedName]int32 // left in each budget
	queues       map[types.NamespacedName]int   // budget -> index in plan.Evict
	implicit     map[types.UID]*implicitBudget  // by controller
	selectors    selectors
	ordinaryLeft bool
}

// consider has a pod evicted or held.
func (d *decision) consider(pod *corev1.Pod) {
	if reason, until := d.objection(pod); reason != "" {
		d.plan.hold(pod, nil, reason, until)
		return
	}
	budgets := covering(pod, d.selectors)
	switch waits := d.secondReplica(pod, budgets); {
	case waits:
	case len(budgets) == 0:
		d.considerFree(pod)
	case len(budgets) == 1:
		d.considerBudgeted(pod, budgets[0])
	default:
		d.plan.hold(pod, budgets[0], fmt.Sprintf("%d budgets cover the pod (%s) and the API server evicts no such pod; leave one", len(budgets), names(budgets)), time.Time{})
	}
}

func (d *decision) considerFree(pod *corev1.Pod) {
	// What is not ready serves nobody, so evicting it takes nothing away.
	var implicit *implicitBudget
	if controller := d.replicated(pod); controller != "" && Ready(pod) {
		implicit = d.implicit[controller]
		if implicit == nil {
			implicit = d.implicitBudget(controller)
			d.implicit[controller] = implicit
		}
	}
	if refusal := d.Refused[pod.UID]; refusal.holds(d.Now, "") {
		if refusal.Unsure && implicit != nil {
			implicit.room--
		}
		d.plan.hold(pod, nil, refusal.Reason, refusal.Until).passing = true
		return
	}
	if implicit != nil {
		if implicit.room <= 0 {
			d.plan.hold(pod, nil, implicit.reason, implicit.again).passing = true
			return
		}
		implicit.room--
	}
	d.plan.Evict = append(d.plan.Evict, []Eviction{{Pod: pod}})
}

func (d *decision) considerBudgeted(pod *corev1.Pod, budget *policyv1.PodDisruptionBudget) {
	key := types.NamespacedName{Namespace: budget.Namespace, Name: budget.Name}
	if _, known := d.room[key]; !known {
		d.room[key] = spare(budget, d.Spent[key])
	}
	refusal := d.Refused[pod.UID]
	switch {
	case refusal.holds(d.Now, budget.ResourceVersion):
		d.plan.hold(pod, budget, cmp.Or(refusal.Reason, reason(budget)), refusal.Until).passing = refusal.Version == ""
		return
	case !Ready(pod):
		// What is not ready may be evictable from a spent budget: that depends on its
		// unhealthyPodEvictionPolicy, and the API server knows. It takes nothing out of the
		// budget, whose status may then never change: what is ready must not wait for that.
	case d.room[key] > 0:
		d.room[key]--
	default:
		d.plan.hold(pod, budget, reason(budget), time.Time{})
		return
	}
	eviction := Eviction{Pod: pod, Budget: budget}
	if queue, begun := d.queues[key]; begun {
		d.plan.Evict[queue] = append(d.plan.Evict[queue], eviction)
		return
	}
	d.queues[key] = len(d.plan.Evict)
	d.plan.Evict = append(d.plan.Evict, []Eviction{eviction})
}

func (p *Plan) hold(pod *corev1.Pod, budget *policyv1.PodDisruptionBudget, reason string, until time.Time) *Held {
	p.Held = append(p.Held, Held{Pod: pod, Budget: budget, Reason: reason})
	p.lookAgain(until)
	return &p.Held[len(p.Held)-1]
}

func (p *Plan) lookAgain(at time.Time) {
	if !at.IsZero() && (p.Until.IsZero() || at.Before(p.Until)) {
		p.Until = at
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
func covering(pod *corev1.Pod, budgets selectors) []*policyv1.PodDisruptionBudget {
	var out []*policyv1.PodDisruptionBudget
	for _, each := range budgets[pod.Namespace] {
		if each.selector.Matches(labels.Set(pod.Labels)) {
			out = append(out, each.budget)
		}
	}
	slices.SortFunc(out, func(a, b *policyv1.PodDisruptionBudget) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// selectors are the budgets of each namespace. Understanding a selector takes longer than matching
// it with all pods of a node.
type selectors map[string][]selecting

type selecting struct {
	budget   *policyv1.PodDisruptionBudget
	selector labels.Selector
}

// selectorsFor reads the budgets of the namespaces that some pods are in.
func selectorsFor(pods []*corev1.Pod, budgets []*policyv1.PodDisruptionBudget) selectors {
	out := selectors{}
	for _, pod := range pods {
		out[pod.Namespace] = nil
	}
	for _, budget := range budgets {
		if _, wanted := out[budget.Namespace]; !wanted || budget.Spec.Selector == nil {
			continue
		}
		if selector, err := metav1.LabelSelectorAsSelector(budget.Spec.Selector); err == nil {
			out[budget.Namespace] = append(out[budget.Namespace], selecting{budget, selector})
		}
	}
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
		return cmp.Or(strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name))
	})
	return sorted
}
