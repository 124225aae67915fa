package drain

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// Kinds of findings.
const (
	NeverAllowed        = "never-allowed"         // a budget lets no pod go, however many are healthy
	NothingToSpare      = "nothing-to-spare"      // a budget lets no pod go at the moment
	SingleReplica       = "single-replica"        // nothing serves while the pod moves
	TwoBudgets          = "two-budgets"           // the API server evicts no pod that two budgets cover
	Unmanaged           = "unmanaged"             // no controller brings the pod back; the policy says whether it is held
	LocalData           = "local-data"            // data is lost with the pod; the policy says whether it is held
	DoNotDisruptMark    = "do-not-disrupt"        // an annotation forbids or postpones it
	ZoneWithoutCapacity = "zone-without-capacity" // a volume keeps the pod from starting elsewhere
)

// Finding is something that would hold up the drain of a node, or be hurt by it. Findings about the
// pods of one budget, workload or claim are one finding.
type Finding struct {
	Kind      string
	Namespace string
	Name      string
	Owner     string
	Pods      []string // namespace/name, at most listed
	Nodes     []string // at most listed
	Problem   string
	Remedy    string
	// Holds means that a drain waits for it until a person acts or force comes. Budgets that have
	// nothing to spare at the moment hold nothing for long.
	Holds bool
}

// listed bounds the pods and nodes that a finding names.
const listed = 20

// Preflight lists what is to be known before nodes are drained whose pods are s.Pods, by kind,
// namespace and name. launches are the zones in which their pool launches, if that is known, and
// zones those of the nodes.
func Preflight(s State, volumes Volumes, launches []string, zones map[string]string) []Finding {
	type key struct{ kind, namespace, name string }
	type group struct {
		obstacle
		pods []*corev1.Pod
	}
	groups := map[key]*group{}
	for _, pod := range inOrder(s.Pods) {
		if _, evicted := s.Evicted[pod.UID]; evicted || pod.DeletionTimestamp != nil || !MustLeave(pod) {
			continue
		}
		for _, each := range append(s.obstacles(pod), misplaced(pod, volumes, launches, zones[pod.Spec.NodeName])...) {
			k := key{each.kind, pod.Namespace, each.name}
			if groups[k] == nil {
				groups[k] = &group{obstacle: each}
			}
			groups[k].pods = append(groups[k].pods, pod)
		}
	}
	out := make([]Finding, 0, len(groups))
	for k, group := range groups {
		finding := Finding{Kind: k.kind, Namespace: k.namespace, Name: k.name, Problem: group.problem, Remedy: group.remedy, Holds: group.holds()}
		var owners []string
		for _, pod := range group.pods {
			finding.Pods = append(finding.Pods, pod.Namespace+"/"+pod.Name)
			finding.Nodes = append(finding.Nodes, pod.Spec.NodeName)
			owners = append(owners, Owner(pod))
		}
		slices.Sort(finding.Nodes)
		finding.Nodes = slices.Compact(finding.Nodes)
		slices.Sort(owners)
		finding.Owner = strings.Join(slices.Compact(owners), ", ")
		if pods, nodes := len(finding.Pods), len(finding.Nodes); pods > listed {
			finding.Problem += fmt.Sprintf(" (%d pods on %d nodes)", pods, nodes)
			finding.Pods, finding.Nodes = finding.Pods[:listed], finding.Nodes[:min(nodes, listed)]
		}
		out = append(out, finding)
	}
	slices.SortFunc(out, func(a, b Finding) int {
		return cmp.Or(strings.Compare(a.Kind, b.Kind), strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name))
	})
	return out
}

// obstacle is something about a pod that holds up the drain of its node, or that the drain hurts.
type obstacle struct {
	kind            string
	name            string // of the budget, workload, pod or claim
	problem, remedy string
	never           bool // only a person or force lets the pod go
}

// holds says whether a drain waits for the obstacle. What a volume keeps from starting elsewhere is
// not ready there, and that holds the rest of its workload.
func (o obstacle) holds() bool {
	switch o.kind {
	case DoNotDisruptMark, ZoneWithoutCapacity:
		return true
	default:
		return o.never
	}
}

// obstacles lists all that is to be known about a pod, its volumes aside.
func (s State) obstacles(pod *corev1.Pod) []obstacle {
	var out []obstacle
	switch budgets := covering(pod, selectorsFor([]*corev1.Pod{pod}, s.Budgets)); len(budgets) {
	case 0:
		out = append(out, s.lone(pod)...)
	case 1:
		if s.secondHelps(pod, budgets[0]) {
			break // it is surged, and then its budget lets it go
		}
		if strict, found := strict(budgets[0]); found {
			out = append(out, strict)
		} else {
			out = append(out, s.lone(pod)...)
		}
	default:
		out = append(out, obstacle{
			kind: TwoBudgets, name: names(budgets), never: true,
			problem: fmt.Sprintf("%d budgets cover the same pods, and the API server evicts no such pod", len(budgets)),
			remedy:  "leave one of them, or make their selectors disjoint",
		})
	}
	out = append(out, s.marks(pod)...)
	if metav1.GetControllerOf(pod) == nil {
		out = append(out, s.unmanaged(pod))
	}
	if hasLocalData(pod) {
		out = append(out, s.localData(pod))
	}
	return out
}

// strict tells of a budget that allows no eviction now, or ever.
func strict(budget *policyv1.PodDisruptionBudget) (obstacle, bool) {
	status, spec := budget.Status, budget.Spec
	failure := failed(budget)
	switch {
	case failure != "":
		return obstacle{
			kind: NeverAllowed, name: budget.Name, never: true,
			problem: "the budget allows no eviction since Kubernetes cannot work it out: " + failure,
			remedy:  "give all its pods a controller that has a scale, or say in minAvailable a number and no percentage",
		}, true
	case isAll(spec.MinAvailable, "100%") || isAll(spec.MaxUnavailable, "0%") || isZero(spec.MaxUnavailable) ||
		(status.ExpectedPods > 0 && status.DesiredHealthy >= status.ExpectedPods):
		problem := "the budget can never allow an eviction, whatever the number of replicas"
		if status.ExpectedPods > 0 {
			problem = fmt.Sprintf("the budget can never allow an eviction: it wants %d of %d pods healthy", status.DesiredHealthy, status.ExpectedPods)
		}
		return obstacle{kind: NeverAllowed, name: budget.Name, never: true, problem: problem, remedy: loosen(budget)}, true
	case status.DisruptionsAllowed <= 0:
		return obstacle{
			kind: NothingToSpare, name: budget.Name, problem: reason(budget),
			remedy: "find out why not all of its pods are ready, or let the budget spare one more",
		}, true
	}
	return obstacle{}, false
}

// loosen says how a budget that can never allow an eviction is made to.
func loosen(budget *policyv1.PodDisruptionBudget) string {
	switch available := budget.Spec.MinAvailable; {
	case budget.Spec.MaxUnavailable != nil:
		return "raise maxUnavailable to at least 1"
	case available != nil && available.Type == intstr.Int:
		return fmt.Sprintf("run one replica more than the %d that minAvailable wants, or lower that", available.IntVal)
	default:
		return "lower minAvailable, or say maxUnavailable: 1 instead"
	}
}

func isAll(value *intstr.IntOrString, percentage string) bool {
	return value != nil && value.Type == intstr.String && value.StrVal == percentage
}

func isZero(value *intstr.IntOrString) bool {
	return value != nil && value.Type == intstr.Int && value.IntVal == 0
}

// failed says why the disruption controller could not work out a budget; empty if it could.
func failed(budget *policyv1.PodDisruptionBudget) string {
	for _, condition := range budget.Status.Conditions {
		if condition.Type == policyv1.DisruptionAllowedCondition && condition.Reason == policyv1.SyncFailedReason {
			return cmp.Or(condition.Message, condition.Reason)
		}
	}
	return ""
}

// secondHelps says whether a pod is surged before it goes, and its budget allows that.
func (s State) secondHelps(pod *corev1.Pod, budget *policyv1.PodDisruptionBudget) bool {
	controller := metav1.GetControllerOf(pod)
	return pod.Annotations[Surge] == "true" && controller != nil && controller.Kind == "ReplicaSet" &&
		len(s.Siblings[controller.UID]) == 1 && surgeHelps(budget)
}

// lone tells of a pod that is the only one of its workload which serves.
func (s State) lone(pod *corev1.Pod) []obstacle {
	controller := metav1.GetControllerOf(pod)
	if controller == nil || controller.Kind == "Job" || !Ready(pod) {
		return nil
	}
	remedy := "run two replicas"
	if controller.Kind == "ReplicaSet" {
		if pod.Annotations[Surge] == "true" {
			return nil
		}
		remedy += fmt.Sprintf(`, or have it replaced before it goes by the annotation %s: "true" on the pod template`, Surge)
	}
	for _, sibling := range s.Siblings[controller.UID] {
		if sibling.UID != pod.UID && Ready(sibling) && !finished(sibling) && sibling.DeletionTimestamp == nil {
			return nil
		}
	}
	return []obstacle{{
		kind: SingleReplica, name: workload(pod), remedy: remedy,
		problem: "only one of its pods serves, so nothing does while that moves",
	}}
}

// marks tells of annotations that forbid or postpone a pod's disruption.
func (s State) marks(pod *corev1.Pod) []obstacle {
	for _, annotation := range []string{DoNotDisrupt, KarpenterDoNotDisrupt} {
		problem, until := s.forbidden(pod, annotation)
		if problem == "" {
			continue
		}
		if !until.IsZero() { // which is another time for each pod
			problem = fmt.Sprintf("the pod postpones it by its annotation %s, for %s after its start", annotation, pod.Annotations[annotation])
		}
		return []obstacle{{
			kind: DoNotDisruptMark, name: workload(pod), never: until.IsZero(), problem: problem,
			remedy: "take the annotation off when the pod may be disrupted",
		}}
	}
	return nil
}

func (s State) unmanaged(pod *corev1.Pod) obstacle {
	o := obstacle{
		kind: Unmanaged, name: pod.Name, never: s.Policy.HoldUnmanaged,
		problem: "no controller would bring the pod back, so it is held",
		remedy:  "delete it when it may go, or have a Deployment or StatefulSet run it",
	}
	if !o.never {
		o.problem, o.remedy = "no controller brings the pod back when it is evicted", "have a Deployment or StatefulSet run it"
	}
	return o
}

func (s State) localData(pod *corev1.Pod) obstacle {
	o := obstacle{
		kind: LocalData, name: workload(pod), never: s.Policy.HoldLocalData,
		problem: "it has data in an emptyDir volume, which would be lost, so it is held",
		remedy:  "delete the pod when it may go, or keep the data in a persistent volume",
	}
	if !o.never {
		o.problem, o.remedy = "it has data in an emptyDir volume, which is lost when it is evicted", "keep what has to last in a persistent volume"
	}
	return o
}

// misplaced tells of volumes that no zone serves in which the pool launches.
func misplaced(pod *corev1.Pod, volumes Volumes, launches []string, zone string) []obstacle {
	if len(launches) == 0 {
		return nil
	}
	var out []obstacle
	for _, volume := range volumes.of(pod, zone) {
		if slices.ContainsFunc(volume.zones, func(zone string) bool { return slices.Contains(launches, zone) }) {
			continue
		}
		out = append(out, obstacle{
			kind: ZoneWithoutCapacity, name: volume.claim,
			problem: fmt.Sprintf("its volume %s can only be used in %s, and the pool launches in %s", volume.volume, strings.Join(volume.zones, ", "), strings.Join(launches, ", ")),
			remedy:  fmt.Sprintf("let the pool launch in %s, or move the data", volume.zones[0]),
		})
	}
	return out
}

// workload names what a person would look for: a Deployment instead of the ReplicaSet between it
// and the pod, which is named after it and the pod's template.
func workload(pod *corev1.Pod) string {
	controller := metav1.GetControllerOf(pod)
	if controller == nil {
		return pod.Name
	}
	if hash := pod.Labels["pod-template-hash"]; controller.Kind == "ReplicaSet" && hash != "" {
		return strings.TrimSuffix(controller.Name, "-"+hash)
	}
	return controller.Name
}

// SiblingsOf are the pods of a cluster by their controllers.
func SiblingsOf(pods []*corev1.Pod) map[types.UID][]*corev1.Pod {
	out := map[types.UID][]*corev1.Pod{}
	for _, pod := range pods {
		if controller := metav1.GetControllerOf(pod); controller != nil {
			out[controller.UID] = append(out[controller.UID], pod)
		}
	}
	return out
}
