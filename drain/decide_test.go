package drain_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/fairway-project/fairway/drain"
)

var now = time.Date(2026, time.March, 1, 12, 0, 0, 0, time.UTC)

const (
	spent2of1 = "the budget has nothing to spare: 2 pods are healthy, 2 have to be"
	twoOfThem = "2 budgets cover the pod (one, two) and the API server evicts no such pod; leave one"
)

func TestDecide(t *testing.T) {
	for rule, test := range map[string]struct {
		state drain.State
		want  string // the plan, as told writes it
	}{
		"an empty node is done": {drain.State{}, "done"},
		"pods without a budget leave at once and independently": {
			drain.State{Pods: pods(pod("a"), pod("b"))},
			"evict a | evict b",
		},
		"what does not have to leave is let alone": {
			drain.State{Pods: pods(pod("agent", ownedBy("DaemonSet")), pod("static", mirror), pod("finished", inPhase(corev1.PodSucceeded)))},
			"done",
		},
		"terminating pods are waited for": {
			drain.State{Pods: pods(pod("a", terminating), pod("b", terminating, of("web"))), Budgets: budgets(budget("web", allows(0)))},
			"leaving 2",
		},
		"pods whose eviction was granted are waited for and not evicted again": {
			drain.State{Pods: pods(pod("a"), pod("b")), Evicted: map[types.UID]drain.Departure{"a": {At: now}}},
			"evict b | leaving 1",
		},

		"a budget with room lets as many go as it has room for, one after another": {
			drain.State{Pods: pods(pod("a", of("web")), pod("b", of("web")), pod("c", of("web"))), Budgets: budgets(budget("web", allows(2)))},
			"evict a, b | hold c for web: the budget has nothing to spare: 4 pods are healthy, 2 have to be",
		},
		"budgets do not wait for each other": {
			drain.State{
				Pods:    pods(pod("a", of("web")), pod("b", of("db")), pod("c", of("web")), pod("d")),
				Budgets: budgets(budget("web", allows(2)), budget("db", allows(1))),
			},
			"evict a, c | evict b | evict d",
		},
		"a spent budget holds its pods": {
			drain.State{Pods: pods(pod("a", of("web"))), Budgets: budgets(budget("web", allows(0)))},
			"hold a for web: " + spent2of1,
		},
		"a spent budget holds nobody else": {
			drain.State{Pods: pods(pod("a", of("web")), pod("b")), Budgets: budgets(budget("web", allows(0)))},
			"evict b | hold a for web: " + spent2of1,
		},
		"a budget that can never allow an eviction is called that": {
			drain.State{Pods: pods(pod("a", of("web"))), Budgets: budgets(budget("web", allows(0), wants(3, 3)))},
			"hold a for web: the budget can never allow an eviction: it wants 3 of 3 pods healthy",
		},
		"a budget that wants more pods than there are is called so too": {
			drain.State{Pods: pods(pod("a", of("web"))), Budgets: budgets(budget("web", allows(0), wants(2, 1)))},
			"hold a for web: the budget can never allow an eviction: it wants 2 of 1 pods healthy",
		},

		"what was granted since a budget was read counts against it": {
			drain.State{
				Pods: pods(pod("a", of("web")), pod("b", of("web"))), Budgets: budgets(budget("web", allows(2))),
				Spent: spent("web", drain.Spending{Version: "1", Granted: 1}),
			},
			"evict a | hold b for web: the budget has nothing to spare: 4 pods are healthy, 2 have to be",
		},
		"what was granted before a budget was read is in its status already": {
			drain.State{
				Pods: pods(pod("a", of("web")), pod("b", of("web"))), Budgets: budgets(budget("web", allows(2))),
				Spent: spent("web", drain.Spending{Version: "0", Granted: 2}),
			},
			"evict a, b",
		},
		"what was granted from a budget counts for no other of the same name": {
			drain.State{
				Pods: pods(pod("a", of("web"))), Budgets: budgets(budget("web", allows(1))),
				Spent: map[types.NamespacedName]drain.Spending{{Namespace: "elsewhere", Name: "web"}: {Version: "1", Granted: 1}},
			},
			"evict a",
		},

		"a refusal by a budget holds while the budget stays as it is": {
			drain.State{
				Pods: pods(pod("a", of("web"))), Budgets: budgets(budget("web", allows(1))),
				Refused: refused("a", drain.Refusal{Version: "1", Until: now.Add(time.Minute)}),
			},
			"hold a for web: the budget has nothing to spare: 3 pods are healthy, 2 have to be | again in 1m0s",
		},
		"a refusal by a budget is over when the budget changes": {
			drain.State{
				Pods: pods(pod("a", of("web"))), Budgets: budgets(budget("web", allows(1))),
				Refused: refused("a", drain.Refusal{Version: "0", Until: now.Add(time.Minute)}),
			},
			"evict a",
		},
		"a refusal by a budget is over when its time has passed": {
			drain.State{
				Pods: pods(pod("a", of("web"))), Budgets: budgets(budget("web", allows(1))),
				Refused: refused("a", drain.Refusal{Version: "1", Until: now}),
			},
			"evict a",
		},
		"a refused pod leaves the room to its siblings": {
			drain.State{
				Pods: pods(pod("a", of("web")), pod("b", of("web"))), Budgets: budgets(budget("web", allows(1))),
				Refused: refused("a", drain.Refusal{Version: "1", Until: now.Add(time.Minute)}),
			},
			"evict b | hold a for web: the budget has nothing to spare: 3 pods are healthy, 2 have to be | again in 1m0s",
		},
		"a refusal for another reason holds for its time whatever the budget does": {
			drain.State{
				Pods: pods(pod("a", of("web")), pod("b")), Budgets: budgets(budget("web", allows(1))),
				Refused: map[types.UID]drain.Refusal{
					"a": {Until: now.Add(2 * time.Second), Reason: "busy"},
					"b": {Until: now.Add(time.Second), Reason: "very busy"},
				},
			},
			"hold a for web: busy | hold b: very busy | again in 1s",
		},
		"a refusal for another reason is over when its time has passed": {
			drain.State{Pods: pods(pod("a")), Refused: refused("a", drain.Refusal{Until: now, Reason: "busy"})},
			"evict a",
		},
		"a refusal that a budget gave ends with the budget": {
			drain.State{Pods: pods(pod("a")), Refused: refused("a", drain.Refusal{Version: "1", Until: now.Add(time.Minute)})},
			"evict a",
		},

		"a pod that two budgets cover is held, and both are named": {
			drain.State{
				Pods:    pods(pod("a", of("web"))),
				Budgets: budgets(budget("two", selecting("web"), allows(1)), budget("one", selecting("web"), allows(1))),
			},
			"hold a for one: " + twoOfThem,
		},
		"a pod that is not ready is tried though the budget is spent": {
			drain.State{
				Pods:    pods(pod("a", of("web")), pod("b", of("web"), notReady), pod("c", of("web"), unknownReadiness)),
				Budgets: budgets(budget("web", allows(0))),
			},
			"evict b, c | hold a for web: " + spent2of1,
		},
		"a pod that is not ready takes no room of those that are": {
			drain.State{
				Pods:    pods(pod("a", of("web"), notReady), pod("b", of("web")), pod("c", of("web"))),
				Budgets: budgets(budget("web", allows(1))),
			},
			"evict a, b | hold c for web: the budget has nothing to spare: 3 pods are healthy, 2 have to be",
		},
		"a pod that is not ready and was refused is held": {
			drain.State{
				Pods: pods(pod("a", of("web"), notReady)), Budgets: budgets(budget("web", allows(0))),
				Refused: refused("a", drain.Refusal{Version: "1", Until: now.Add(time.Minute)}),
			},
			"hold a for web: " + spent2of1 + " | again in 1m0s",
		},

		"a budget of another namespace covers nothing here": {
			drain.State{Pods: pods(pod("a", of("web"))), Budgets: budgets(budget("web", allows(0), in("elsewhere")))},
			"evict a",
		},
		"a budget for other labels does not cover a pod": {
			drain.State{Pods: pods(pod("a", of("web"))), Budgets: budgets(budget("db", allows(0)))},
			"evict a",
		},
		"a budget without a selector covers nothing": {
			drain.State{Pods: pods(pod("a", of("web"))), Budgets: budgets(budget("web", allows(0), selector(nil)))},
			"evict a",
		},
		"a budget with an empty selector covers its whole namespace": {
			drain.State{
				Pods:    pods(pod("a", of("web")), pod("b"), pod("c", inNamespace("elsewhere"))),
				Budgets: budgets(budget("all", allows(0), selector(&metav1.LabelSelector{}))),
			},
			"evict elsewhere/c | hold a for all: " + spent2of1 + " | hold b for all: " + spent2of1,
		},
		"a budget with expressions covers what they match": {
			drain.State{
				Pods: pods(pod("a", of("web")), pod("b", of("db")), pod("c")),
				Budgets: budgets(budget("all", allows(0), selector(&metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{
					{Key: "app", Operator: metav1.LabelSelectorOpIn, Values: []string{"web", "db"}},
				}}))),
			},
			"evict c | hold a for all: " + spent2of1 + " | hold b for all: " + spent2of1,
		},
	} {
		t.Run(rule, func(t *testing.T) {
			test.state.Now = now
			plan := drain.Decide(test.state)
			require.Equal(t, test.want, told(plan))
			require.Equal(t, test.want == "done", plan.Done())
		})
	}
}

func TestTheSameStateGivesTheSamePlan(t *testing.T) {
	state := drain.State{
		Now: now,
		Pods: pods(pod("a"), pod("b", of("web")), pod("c", of("db")), pod("d", of("web")), pod("e", of("both")), pod("f", of("db")),
			pod("a", inNamespace("elsewhere"))),
		Budgets: budgets(budget("web", allows(2)), budget("db", allows(1)), budget("x", selecting("both")), budget("y", selecting("both"))),
	}
	const want = "evict elsewhere/a | evict a | evict b, d | evict c" +
		" | hold e for x: 2 budgets cover the pod (x, y) and the API server evicts no such pod; leave one" +
		" | hold f for db: the budget has nothing to spare: 3 pods are healthy, 2 have to be"
	require.Equal(t, want, told(drain.Decide(state)))
	slices.Reverse(state.Pods)
	slices.Reverse(state.Budgets)
	require.Equal(t, want, told(drain.Decide(state)))
}

func TestDecidingChangesNothing(t *testing.T) {
	state := drain.State{
		Now: now, Pods: pods(pod("b", of("web")), pod("a", of("web"))), Budgets: budgets(budget("web", allows(1))),
		Spent: spent("web", drain.Spending{Version: "1", Granted: 1}),
	}
	first := told(drain.Decide(state))
	require.Equal(t, "b", state.Pods[0].Name)
	require.Equal(t, int32(1), state.Budgets[0].Status.DisruptionsAllowed)
	require.Equal(t, first, told(drain.Decide(state)))
}

// told puts a plan into words: "evict a, b" stands for a queue.
func told(plan drain.Plan) string {
	name := func(pod *corev1.Pod) string { return strings.TrimPrefix(pod.Namespace+"/"+pod.Name, "shop/") }
	var words []string
	for _, queue := range plan.Evict {
		var names []string
		for _, eviction := range queue {
			names = append(names, name(eviction.Pod))
		}
		words = append(words, "evict "+strings.Join(names, ", "))
	}
	for _, held := range plan.Held {
		by := ""
		if held.Budget != nil {
			by = " for " + held.Budget.Name
		}
		words = append(words, fmt.Sprintf("hold %s%s: %s", name(held.Pod), by, held.Reason))
	}
	if plan.Leaving > 0 {
		words = append(words, fmt.Sprintf("leaving %d", plan.Leaving))
	}
	if !plan.Until.IsZero() {
		words = append(words, "again in "+plan.Until.Sub(now).String())
	}
	if len(words) == 0 {
		return "done"
	}
	return strings.Join(words, " | ")
}

func refused(uid types.UID, refusal drain.Refusal) map[types.UID]drain.Refusal {
	return map[types.UID]drain.Refusal{uid: refusal}
}

func spent(budget string, spending drain.Spending) map[types.NamespacedName]drain.Spending {
	return map[types.NamespacedName]drain.Spending{{Namespace: "shop", Name: budget}: spending}
}

// ---- pods and budgets, all in the namespace "shop" unless told otherwise

func pods(all ...*corev1.Pod) []*corev1.Pod { return all }

// pod is a pod that runs and is ready; its uid is its name.
func pod(name string, change ...func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, UID: types.UID(name)},
		Status: corev1.PodStatus{
			Phase:      corev1.PodRunning,
			Conditions: []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionTrue}, {Type: corev1.PodReady, Status: corev1.ConditionTrue}},
		},
	}
	for _, change := range change {
		change(p)
	}
	return p
}

func of(app string) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Labels = map[string]string{"app": app} }
}

func inNamespace(namespace string) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Namespace, p.UID = namespace, types.UID(namespace+"/"+p.Name) }
}

func inPhase(phase corev1.PodPhase) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Status.Phase = phase }
}

func ownedBy(kind string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.OwnerReferences = append(p.OwnerReferences, metav1.OwnerReference{Kind: kind, Name: p.Name, Controller: new(true)})
	}
}

func mirror(p *corev1.Pod) {
	p.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: "0"}
}

// terminating pods were deleted 30 seconds ago.
func terminating(p *corev1.Pod) {
	p.DeletionTimestamp, p.DeletionGracePeriodSeconds = &metav1.Time{Time: now}, new(int64(30))
}

func notReady(p *corev1.Pod) { p.Status.Conditions[1].Status = corev1.ConditionFalse }

func unknownReadiness(p *corev1.Pod) { p.Status.Conditions = nil }

func budgets(all ...*policyv1.PodDisruptionBudget) []*policyv1.PodDisruptionBudget { return all }

// budget is a budget in version 1 that wants two of its pods, those of the app of its name.
func budget(name string, change ...func(*policyv1.PodDisruptionBudget)) *policyv1.PodDisruptionBudget {
	b := &policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, ResourceVersion: "1"}}
	selecting(name)(b)
	wants(2, 5)(b)
	for _, change := range change {
		change(b)
	}
	return b
}

func allows(n int32) func(*policyv1.PodDisruptionBudget) {
	return func(b *policyv1.PodDisruptionBudget) {
		b.Status.DisruptionsAllowed, b.Status.CurrentHealthy = n, b.Status.DesiredHealthy+n
	}
}

func wants(healthy, of int32) func(*policyv1.PodDisruptionBudget) {
	return func(b *policyv1.PodDisruptionBudget) { b.Status.DesiredHealthy, b.Status.ExpectedPods = healthy, of }
}

func in(namespace string) func(*policyv1.PodDisruptionBudget) {
	return func(b *policyv1.PodDisruptionBudget) { b.Namespace = namespace }
}

func selecting(app string) func(*policyv1.PodDisruptionBudget) {
	return selector(&metav1.LabelSelector{MatchLabels: map[string]string{"app": app}})
}

func selector(s *metav1.LabelSelector) func(*policyv1.PodDisruptionBudget) {
	return func(b *policyv1.PodDisruptionBudget) { b.Spec.Selector = s }
}
