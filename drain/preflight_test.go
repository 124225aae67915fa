package drain_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/fairway-project/fairway/drain"
)

const (
	never      = "the budget can never allow an eviction: it wants 3 of 3 pods healthy"
	onlyOne    = "only one of its pods serves, so nothing does while that moves"
	runTwo     = "run two replicas"
	surgeFirst = `run two replicas, or have it replaced before it goes by the annotation fairway.dev/surge: "true" on the pod template`
	loseData   = "it has data in an emptyDir volume, which is lost when it is evicted"
)

func TestPreflight(t *testing.T) {
	for rule, test := range map[string]struct {
		pods    []*corev1.Pod
		more    []*corev1.Pod // of the same workloads, on nodes that are not looked at
		budgets []*policyv1.PodDisruptionBudget
		policy  drain.Policy
		want    []string // kind namespace/name: problem -> remedy
	}{
		"workloads with replicas and budgets to spare are fine": {
			pods: pods(member("a", "web"), member("b", "web")), budgets: budgets(budget("web", allows(1))),
		},
		"what need not leave, leaves or has ended concerns nobody": {
			pods: pods(pod("a", ownedBy("DaemonSet"), emptyDir("")), pod("b", terminating), pod("c", inPhase(corev1.PodSucceeded))),
		},
		"a budget that wants all its pods": {
			pods: pods(member("a", "web"), member("b", "web")), budgets: budgets(budget("web", wants(3, 3), minAvailable("3"))),
			want: []string{"never-allowed shop/web: " + never + " -> run one replica more than the 3 that minAvailable wants, or lower that"},
		},
		"a budget whose percentage wants all its pods": {
			pods: pods(member("a", "web")), budgets: budgets(budget("web", wants(3, 3), minAvailable("70%"))),
			want: []string{"never-allowed shop/web: " + never + " -> lower minAvailable, or say maxUnavailable: 1 instead"},
		},
		"a budget that lets nothing be unavailable": {
			pods: pods(member("a", "web")), budgets: budgets(budget("web", wants(3, 3), maxUnavailable("0"))),
			want: []string{"never-allowed shop/web: " + never + " -> raise maxUnavailable to at least 1"},
		},
		"a budget that can never allow anything is told before its status says so": {
			pods: pods(member("a", "web")), budgets: budgets(budget("web", wants(0, 0), maxUnavailable("0%"))),
			want: []string{"never-allowed shop/web: the budget can never allow an eviction, whatever the number of replicas -> raise maxUnavailable to at least 1"},
		},
		"a budget that Kubernetes cannot work out": {
			pods: pods(pod("a", ownedBy("Job"), of("web"))), budgets: budgets(budget("web", allows(1), broken("found no controllers for pod"))),
			want: []string{"never-allowed shop/web: the budget allows no eviction since Kubernetes cannot work it out: found no controllers for pod" +
				" -> give all its pods a controller that has a scale, or say in minAvailable a number and no percentage"},
		},
		"a budget that has nothing to spare now": {
			pods: pods(member("a", "web")), budgets: budgets(budget("web", allows(0))),
			want: []string{"nothing-to-spare shop/web: " + spent2of1 + " -> find out why not all of its pods are ready, or let the budget spare one more"},
		},
		"the only replica of a Deployment": {
			pods: pods(member("a", "web")),
			want: []string{"single-replica shop/web: " + onlyOne + " -> " + surgeFirst},
		},
		"the only replica of a StatefulSet, which cannot be surged": {
			pods: pods(pod("db-0", ownedBy("StatefulSet"))),
			want: []string{"single-replica shop/db-0: " + onlyOne + " -> " + runTwo},
		},
		"the only replica that is ready": {
			pods: pods(member("a", "web")), more: pods(member("b", "web", notReady), member("c", "web", terminating)),
			want: []string{"single-replica shop/web: " + onlyOne + " -> " + surgeFirst},
		},
		"the only replica, though its budget allows that it goes": {
			pods: pods(member("a", "web")), budgets: budgets(budget("web", allows(1), wants(0, 1))),
			want: []string{"single-replica shop/web: " + onlyOne + " -> " + surgeFirst},
		},
		"a replica elsewhere serves meanwhile":               {pods: pods(member("a", "web")), more: pods(member("b", "web"))},
		"a replica that is not ready serves nobody":          {pods: pods(member("a", "web", notReady))},
		"the pod of a Job has no replicas":                   {pods: pods(pod("a", ownedBy("Job")))},
		"the only replica is surged where its owner says so": {pods: pods(member("a", "web", annotated(drain.Surge, "true")))},
		"a budget that a second replica satisfies holds no surged one": {
			pods: pods(member("a", "web", annotated(drain.Surge, "true"))), budgets: budgets(budget("web", wants(1, 1), allows(0), minAvailable("1"))),
		},
		"a budget that no replica satisfies holds a surged one too": {
			pods: pods(member("a", "web", annotated(drain.Surge, "true"))), budgets: budgets(budget("web", wants(3, 3), allows(0), maxUnavailable("0"))),
			want: []string{"never-allowed shop/web: " + never + " -> raise maxUnavailable to at least 1"},
		},
		"two budgets for the same pods": {
			pods: pods(member("a", "web"), member("b", "web")), budgets: budgets(budget("one", selecting("web"), allows(1)), budget("two", selecting("web"), allows(1))),
			want: []string{"two-budgets shop/one, two: 2 budgets cover the same pods, and the API server evicts no such pod -> leave one of them, or make their selectors disjoint"},
		},
		"a pod that nobody brings back": {
			pods: pods(pod("a")),
			want: []string{"unmanaged shop/a: no controller brings the pod back when it is evicted -> have a Deployment or StatefulSet run it"},
		},
		"a pod that nobody brings back is held if so wished": {
			pods: pods(pod("a")), policy: drain.Policy{HoldUnmanaged: true},
			want: []string{"unmanaged shop/a: no controller would bring the pod back, so it is held -> delete it when it may go, or have a Deployment or StatefulSet run it"},
		},
		"data on the node": {
			pods: pods(member("a", "web", emptyDir(""))), more: pods(member("b", "web")),
			want: []string{"local-data shop/web: " + loseData + " -> keep what has to last in a persistent volume"},
		},
		"data on the node is held if so wished": {
			pods: pods(member("a", "web", emptyDir(""))), more: pods(member("b", "web")), policy: drain.Policy{HoldLocalData: true},
			want: []string{"local-data shop/web: it has data in an emptyDir volume, which would be lost, so it is held -> delete the pod when it may go, or keep the data in a persistent volume"},
		},
		"pods that forbid their disruption": {
			pods: pods(member("a", "web", annotated(drain.DoNotDisrupt, "true")), member("b", "web", annotated(drain.DoNotDisrupt, "true"))),
			want: []string{"do-not-disrupt shop/web: the pod forbids it by its annotation fairway.dev/do-not-disrupt -> take the annotation off when the pod may be disrupted"},
		},
		"a pod without a controller that forbids its disruption": {
			pods: pods(pod("a", annotated(drain.DoNotDisrupt, "please"))),
			want: []string{
				`do-not-disrupt shop/a: its annotation fairway.dev/do-not-disrupt is "please"; use true, false or a duration such as 4h -> take the annotation off when the pod may be disrupted`,
				"unmanaged shop/a: no controller brings the pod back when it is evicted -> have a Deployment or StatefulSet run it",
			},
		},
		"pods that postpone their disruption": {
			pods: pods(member("a", "web", annotated(drain.KarpenterDoNotDisrupt, "4h"), startedAgo(time.Hour)), member("b", "web")),
			want: []string{"do-not-disrupt shop/web: the pod postpones it by its annotation karpenter.sh/do-not-disrupt, for 4h after its start -> take the annotation off when the pod may be disrupted"},
		},
		"a postponement that has run out is none": {
			pods: pods(member("a", "web", annotated(drain.DoNotDisrupt, "4h"), startedAgo(5*time.Hour)), member("b", "web")),
		},
	} {
		t.Run(rule, func(t *testing.T) {
			state := drain.State{Now: now, Started: now, Policy: test.policy, Pods: test.pods, Budgets: test.budgets, Siblings: drain.SiblingsOf(append(test.more, test.pods...))}
			var got []string
			for _, f := range drain.Preflight(state, drain.Volumes{}, nil, nil) {
				got = append(got, fmt.Sprintf("%s %s/%s: %s -> %s", f.Kind, f.Namespace, f.Name, f.Problem, f.Remedy))
			}
			require.Equal(t, test.want, got)
		})
	}
}

func TestFindingsThatAPersonOrForceHasToEnd(t *testing.T) {
	for kind, test := range map[string]struct {
		pods    []*corev1.Pod
		budgets []*policyv1.PodDisruptionBudget
		policy  drain.Policy
		want    bool
	}{
		drain.NeverAllowed:                         {pods(member("a", "web")), budgets(budget("web", wants(3, 3), allows(0))), drain.Policy{}, true},
		drain.NothingToSpare:                       {pods(member("a", "web")), budgets(budget("web", wants(2, 3), allows(0))), drain.Policy{}, false},
		drain.TwoBudgets:                           {pods(member("a", "web")), budgets(budget("one", selecting("web")), budget("two", selecting("web"))), drain.Policy{}, true},
		drain.DoNotDisruptMark:                     {pods(member("a", "web", annotated(drain.DoNotDisrupt, "true"))), nil, drain.Policy{}, true},
		drain.DoNotDisruptMark + " for a while":    {pods(member("a", "web", annotated(drain.DoNotDisrupt, "4h"), startedAgo(time.Hour))), nil, drain.Policy{}, true},
		drain.SingleReplica:                        {pods(member("a", "web")), nil, drain.Policy{}, false},
		drain.Unmanaged:                            {pods(pod("a")), nil, drain.Policy{}, false},
		drain.Unmanaged + " if the policy says so": {pods(pod("a")), nil, drain.Policy{HoldUnmanaged: true}, true},
		drain.LocalData:                            {pods(member("a", "web", emptyDir(""))), nil, drain.Policy{}, false},
		drain.LocalData + " if the policy says so": {pods(member("a", "web", emptyDir(""))), nil, drain.Policy{HoldLocalData: true}, true},
	} {
		t.Run(kind, func(t *testing.T) {
			state := drain.State{Now: now, Started: now, Policy: test.policy, Pods: test.pods, Budgets: test.budgets, Siblings: drain.SiblingsOf(test.pods)}
			wanted, _, _ := strings.Cut(kind, " ")
			seen := false
			for _, f := range drain.Preflight(state, drain.Volumes{}, nil, nil) {
				if f.Kind == wanted {
					seen = true
					require.Equal(t, test.want, f.Holds)
				}
			}
			require.True(t, seen)
		})
	}
}

func TestFindingsAreGroupedSortedAndBounded(t *testing.T) {
	var many []*corev1.Pod
	for i := range 25 {
		many = append(many, pod(fmt.Sprintf("web-%02d", i), of("web"), ownedBy("StatefulSet"), on(fmt.Sprintf("node-%02d", 30-i)), func(p *corev1.Pod) { p.Labels["team"] = "anchor" }))
	}
	many = append(many, pod("z", on("node-1")), pod("b", on("node-1"), inNamespace("elsewhere")), pod("a", on("node-2")))
	state := drain.State{Now: now, Pods: many, Budgets: budgets(budget("web", allows(0)))}
	findings := drain.Preflight(state, drain.Volumes{}, nil, nil)
	var order []string
	for _, f := range findings {
		order = append(order, f.Kind+" "+f.Namespace+"/"+f.Name)
	}
	require.Equal(t, []string{"nothing-to-spare shop/web", "unmanaged elsewhere/b", "unmanaged shop/a", "unmanaged shop/z"}, order)
	require.Equal(t, "anchor", findings[0].Owner)
	require.Len(t, findings[0].Pods, 20)
	require.Equal(t, "shop/web-00", findings[0].Pods[0])
	require.Len(t, findings[0].Nodes, 20)
	require.Equal(t, "node-06", findings[0].Nodes[0])
	require.True(t, strings.HasSuffix(findings[0].Problem, " (25 pods on 25 nodes)"))
	require.Equal(t, []string{"shop/a"}, findings[2].Pods)
	require.Equal(t, []string{"node-2"}, findings[2].Nodes)
}

func TestVolumesThatNoZoneOfThePoolServesAreFound(t *testing.T) {
	volumes := drain.Volumes{
		Claims:     map[types.NamespacedName]*corev1.PersistentVolumeClaim{{Namespace: "shop", Name: "data"}: claim("pv")},
		Persistent: map[string]*corev1.PersistentVolume{"pv": inZones("a")},
	}
	state := drain.State{Now: now, Pods: pods(member("p", "web", using("data"), on("node"))), Siblings: drain.SiblingsOf(pods(member("q", "web")))}
	for rule, test := range map[string]struct {
		launches []string
		want     string
	}{
		"a pool that launches there serves them":      {[]string{"b", "a"}, ""},
		"a pool that launches elsewhere does not":     {[]string{"b", "c"}, "its volume pv can only be used in a, and the pool launches in b, c -> let the pool launch in a, or move the data"},
		"nothing is said of a pool that is not known": {nil, ""},
	} {
		t.Run(rule, func(t *testing.T) {
			got := ""
			for _, f := range drain.Preflight(state, volumes, test.launches, map[string]string{"node": "a"}) {
				require.Equal(t, "zone-without-capacity shop/data", f.Kind+" "+f.Namespace+"/"+f.Name)
				got += f.Problem + " -> " + f.Remedy
			}
			require.Equal(t, test.want, got)
		})
	}
}

// member is a pod of a Deployment with the label app, which budgets select.
func member(name, app string, change ...func(*corev1.Pod)) *corev1.Pod {
	p := pod(name, of(app))
	p.Labels["pod-template-hash"] = "hash"
	p.OwnerReferences = []metav1.OwnerReference{{Kind: "ReplicaSet", Name: app + "-hash", UID: types.UID(app), Controller: new(true)}}
	for _, change := range change {
		change(p)
	}
	return p
}

func on(node string) func(*corev1.Pod) { return func(p *corev1.Pod) { p.Spec.NodeName = node } }

func minAvailable(value string) func(*policyv1.PodDisruptionBudget) {
	return func(b *policyv1.PodDisruptionBudget) { b.Spec.MinAvailable = new(intstr.Parse(value)) }
}

func maxUnavailable(value string) func(*policyv1.PodDisruptionBudget) {
	return func(b *policyv1.PodDisruptionBudget) { b.Spec.MaxUnavailable = new(intstr.Parse(value)) }
}

func broken(message string) func(*policyv1.PodDisruptionBudget) {
	return func(b *policyv1.PodDisruptionBudget) {
		b.Status.DisruptionsAllowed = 0
		b.Status.Conditions = []metav1.Condition{{Type: policyv1.DisruptionAllowedCondition, Status: metav1.ConditionFalse, Reason: policyv1.SyncFailedReason, Message: message}}
	}
}
