package drain_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/fairway-project/fairway/drain"
)

func TestALoneReplicaGetsASecondOneBeforeItGoes(t *testing.T) {
	wanted := annotated(drain.Surge, "true")
	const waits = "hold a: it waits for its second replica to be ready on another node"
	begun := func(s drain.Surged) map[types.UID]drain.Surged { return map[types.UID]drain.Surged{"web": s} }
	scaled := begun(drain.Surged{Scaled: true})
	for rule, test := range map[string]struct {
		here, there []*corev1.Pod
		budget      *policyv1.PodDisruptionBudget
		surged      map[types.UID]drain.Surged
		departed    map[types.UID]drain.Departure
		want        string
	}{
		"its workload is scaled first":            {here: pods(lone("a", wanted)), want: waits + " | surge a"},
		"it waits for a pod to be made":           {here: pods(lone("a", wanted)), surged: scaled, want: waits},
		"it waits for the second to be ready":     {here: pods(lone("a", wanted)), there: pods(elsewhere("b", notReady)), surged: scaled, want: waits},
		"it goes when the second one is ready":    {here: pods(lone("a", wanted)), there: pods(elsewhere("b")), surged: scaled, want: "evict a"},
		"a second one on the same node is none":   {here: pods(lone("a", wanted), lone("b")), surged: scaled, want: "evict b | " + waits},
		"a second one that leaves is none":        {here: pods(lone("a", wanted)), there: pods(elsewhere("b", terminating)), surged: scaled, want: waits},
		"a second one that was evicted is none":   {here: pods(lone("a", wanted)), there: pods(elsewhere("b")), surged: scaled, departed: map[types.UID]drain.Departure{"b": {At: now}}, want: waits},
		"what a crash left unsure is done again":  {here: pods(lone("a", wanted)), surged: begun(drain.Surged{}), want: waits + " | surge a"},
		"what cannot be scaled goes like others":  {here: pods(lone("a", wanted)), surged: begun(drain.Surged{Impossible: true}), want: "evict a"},
		"nobody stands in for what serves nobody": {here: pods(lone("a", wanted, notReady)), want: "evict a"},
		"nobody stands in for a pod that has a sibling": {
			here: pods(lone("a", wanted)), there: pods(elsewhere("b", notReady)), want: "evict a",
		},
		"finished pods are no siblings":  {here: pods(lone("a", wanted)), there: pods(elsewhere("b", inPhase(corev1.PodFailed))), want: waits + " | surge a"},
		"without the annotation it goes": {here: pods(lone("a")), want: "evict a"},
		"an annotation must say true":    {here: pods(lone("a", annotated(drain.Surge, "yes"))), want: "evict a"},
		"the annotation of a StatefulSet's pod says nothing": {
			here: pods(pod("a", ownedBy("StatefulSet"), wanted)), want: "evict a",
		},
		"nor does that of an unmanaged pod": {here: pods(pod("a", wanted)), want: "evict a"},

		"a budget that wants one pod is satisfied by the second": {
			here: pods(lone("a", of("web"), wanted)), budget: budget("web", wants(1, 1), allows(0), wantsAtLeast(intstr.FromInt32(1))),
			want: "hold a for web: it waits for its second replica to be ready on another node | surge a",
		},
		"it goes when the budget counts the second one": {
			here: pods(lone("a", of("web"), wanted)), there: pods(elsewhere("b", of("web"))), surged: scaled,
			budget: budget("web", wants(1, 2), allows(1), wantsAtLeast(intstr.FromInt32(1))), want: "evict a",
		},
		"it waits until the budget counts the second one": {
			here: pods(lone("a", of("web"), wanted)), there: pods(elsewhere("b", of("web"))), surged: scaled,
			budget: budget("web", wants(1, 1), allows(0), wantsAtLeast(intstr.FromInt32(1))),
			want:   "hold a for web: the budget can never allow an eviction: it wants 1 of 1 pods healthy",
		},
		"a budget that wants all pods is not helped by another one": {
			here: pods(lone("a", of("web"), wanted)), budget: budget("web", wants(1, 1), allows(0), wantsAtLeast(intstr.FromString("100%"))),
			want: "hold a for web: the budget can never allow an eviction: it wants 1 of 1 pods healthy",
		},
		"nor is one that lets none be unavailable": {
			here: pods(lone("a", of("web"), wanted)), budget: budget("web", wants(1, 1), allows(0), letsGo(intstr.FromInt32(0))),
			want: "hold a for web: the budget can never allow an eviction: it wants 1 of 1 pods healthy",
		},
		"nor is one that wants more than two": {
			here: pods(lone("a", of("web"), wanted)), budget: budget("web", wants(2, 1), func(b *policyv1.PodDisruptionBudget) { b.Status.CurrentHealthy = 1 }, wantsAtLeast(intstr.FromInt32(2))),
			want: "hold a for web: the budget can never allow an eviction: it wants 2 of 1 pods healthy",
		},

		"the workload gets its size back when the pod leaves": {
			here: pods(lone("a", wanted, terminating)), there: pods(elsewhere("b")), surged: scaled, want: "leaving 1 | settle web",
		},
		"the workload gets its size back when the eviction was granted": {
			here: pods(lone("a", wanted)), there: pods(elsewhere("b")), surged: scaled,
			departed: map[types.UID]drain.Departure{"a": {Controller: "web", At: now}}, want: "leaving 1 | settle web",
		},
		"the workload gets its size back when the pod is gone": {there: pods(elsewhere("b")), surged: scaled, want: "settle web"},
		"what was not scaled has nothing to get back":          {surged: begun(drain.Surged{Impossible: true}), want: "done"},
	} {
		t.Run(rule, func(t *testing.T) {
			state := drain.State{
				Now: now, Started: began, Pods: test.here, Surged: test.surged, Evicted: test.departed,
				Siblings: map[types.UID][]*corev1.Pod{"web": append(append([]*corev1.Pod{}, test.here...), test.there...)},
			}
			if test.budget != nil {
				state.Budgets = budgets(test.budget)
			}
			plan := drain.Decide(state)
			words := told(plan)
			if words == "done" {
				words = ""
			}
			all := []string{}
			if words != "" {
				all = append(all, words)
			}
			for _, pod := range plan.Surge {
				all = append(all, "surge "+pod.Name)
			}
			for _, controller := range plan.Settle {
				all = append(all, "settle "+string(controller))
			}
			got := strings.Join(all, " | ")
			if got == "" {
				got = "done"
			}
			require.Equal(t, test.want, got)
			require.Equal(t, strings.Contains(got, "surge ") || strings.Contains(got, "evict "), plan.Acts())
		})
	}
}

func TestASecondReplicaThatNeverComesIsNoReasonToWaitForEver(t *testing.T) {
	plan := drain.Decide(drain.State{
		Now: now, Started: began, Policy: drain.Policy{Force: drain.ForcePolicy{After: time.Minute}},
		Pods: pods(lone("a", annotated(drain.Surge, "true"))), Surged: map[types.UID]drain.Surged{"web": {Scaled: true}},
	})
	require.NotNil(t, plan.Force)
	require.Contains(t, plan.Force.Reason, "waits for its second replica")
}

func TestAnEvictionWithoutAnAnswerMayHaveBeenGranted(t *testing.T) {
	for rule, test := range map[string]struct {
		refusal drain.Refusal
		want    string
	}{
		"it takes its share of the implicit budget": {
			drain.Refusal{Until: now.Add(time.Second), Reason: "no answer", Unsure: true},
			"hold a: no answer | hold b: the workload has no budget, so at most 1 of its 2 pods are taken away at a time, and 0 are not back yet | again in 1s",
		},
		"a refusal takes none": {
			drain.Refusal{Until: now.Add(time.Second), Reason: "busy"}, "evict b | hold a: busy | again in 1s",
		},
	} {
		t.Run(rule, func(t *testing.T) {
			here := pods(replica("a"), replica("b"))
			require.Equal(t, test.want, told(drain.Decide(drain.State{
				Now: now, Started: began, Policy: drain.Policy{ImplicitBudget: 25}, Pods: here,
				Siblings: map[types.UID][]*corev1.Pod{"web": here}, Refused: refused("a", test.refusal),
			})))
		})
	}
}

// lone is a pod of the ReplicaSet web on the node that is drained.
func lone(name string, change ...func(*corev1.Pod)) *corev1.Pod {
	return replica(name, append([]func(*corev1.Pod){func(p *corev1.Pod) { p.Spec.NodeName = "here" }}, change...)...)
}

func elsewhere(name string, change ...func(*corev1.Pod)) *corev1.Pod {
	return replica(name, append([]func(*corev1.Pod){func(p *corev1.Pod) { p.Spec.NodeName = "there" }}, change...)...)
}

func wantsAtLeast(n intstr.IntOrString) func(*policyv1.PodDisruptionBudget) {
	return func(b *policyv1.PodDisruptionBudget) { b.Spec.MinAvailable = &n }
}

func letsGo(n intstr.IntOrString) func(*policyv1.PodDisruptionBudget) {
	return func(b *policyv1.PodDisruptionBudget) { b.Spec.MaxUnavailable = &n }
}
