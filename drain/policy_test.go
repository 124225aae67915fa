package drain_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/fairway-project/fairway/drain"
)

// began is when the drain began, ten minutes ago.
var began = now.Add(-10 * time.Minute)

func TestThePolicyAndThePodsOwnWishesHoldPods(t *testing.T) {
	strict := drain.Policy{JobsWithin: time.Hour, HoldUnmanaged: true, HoldLocalData: true}
	const (
		inAnHour  = " | again in 50m0s"
		unmanaged = ": no controller would bring the pod back; delete it when it may go"
		localData = ": it has data in an emptyDir volume, which would be lost; delete it when it may go"
	)
	for rule, test := range map[string]struct {
		policy drain.Policy
		pods   []*corev1.Pod
		want   string
	}{
		"unmanaged pods are held if so wished": {strict, pods(pod("a"), replica("b")), "evict b | hold a" + unmanaged},
		"unmanaged pods go otherwise":          {drain.Policy{}, pods(pod("a")), "evict a"},
		"data on the node is held if so wished": {
			strict, pods(replica("a", emptyDir(corev1.StorageMediumDefault)), replica("b")), "evict b | hold a" + localData,
		},
		"data on the node goes otherwise":     {drain.Policy{}, pods(replica("a", emptyDir(corev1.StorageMediumDefault))), "evict a"},
		"data in memory is not kept anywhere": {strict, pods(replica("a", emptyDir(corev1.StorageMediumMemory))), "evict a"},
		"a Job may go on for its time": {
			strict, pods(pod("a", ownedBy("Job"))), "hold a: its Job may go on until 2026-03-01T12:50:00Z" + inAnHour,
		},
		"a Job goes after its time": {drain.Policy{JobsWithin: 10 * time.Minute}, pods(pod("a", ownedBy("Job"))), "evict a"},

		"a pod may forbid its disruption": {
			drain.Policy{}, pods(pod("a", annotated(drain.DoNotDisrupt, "true")), pod("b", annotated(drain.KarpenterDoNotDisrupt, "true"))),
			"hold a: the pod forbids it by its annotation fairway.dev/do-not-disrupt | hold b: the pod forbids it by its annotation karpenter.sh/do-not-disrupt",
		},
		"a pod that says false forbids nothing": {drain.Policy{}, pods(pod("a", annotated(drain.DoNotDisrupt, "false"))), "evict a"},
		"a pod may postpone its disruption": {
			drain.Policy{}, pods(pod("a", annotated(drain.DoNotDisrupt, "4h"), startedAgo(3*time.Hour))),
			"hold a: the pod postpones it by its annotation fairway.dev/do-not-disrupt until 2026-03-01T13:00:00Z | again in 1h0m0s",
		},
		"a pod goes when the time it asked for is over": {
			drain.Policy{}, pods(pod("a", annotated(drain.DoNotDisrupt, "4h"), startedAgo(4*time.Hour))), "evict a",
		},
		"a wish that is not understood is taken for the strongest": {
			drain.Policy{}, pods(pod("a", annotated(drain.DoNotDisrupt, "please"))),
			`hold a: its annotation fairway.dev/do-not-disrupt is "please"; use true, false or a duration such as 4h`,
		},

		"critical pods go last": {
			drain.Policy{}, pods(pod("a", prioritised(2_000_000_000)), pod("b", prioritised(1000))),
			"evict b | hold a: it is critical and goes when the ordinary pods are gone",
		},
		"critical pods wait for the ordinary ones that terminate": {
			drain.Policy{}, pods(pod("a", prioritised(2_000_001_000)), pod("b", terminating)),
			"hold a: it is critical and goes when the ordinary pods are gone | leaving 1",
		},
		"critical pods go when no ordinary pod is left": {
			drain.Policy{}, pods(pod("a", prioritised(2_000_000_000)), pod("b", prioritised(2_000_000_000), terminating)), "evict a | leaving 1",
		},
	} {
		t.Run(rule, func(t *testing.T) {
			require.Equal(t, test.want, told(drain.Decide(drain.State{Now: now, Started: began, Policy: test.policy, Pods: test.pods})))
		})
	}
}

func TestAReplicatedWorkloadWithoutABudgetGetsAnImplicitOne(t *testing.T) {
	quarter := drain.Policy{ImplicitBudget: 25}
	const twoOf8 = ": the workload has no budget, so at most 2 of its 8 pods are taken away at a time, and "
	for rule, test := range map[string]struct {
		policy   drain.Policy
		here     []*corev1.Pod // on the node
		there    []*corev1.Pod // on other nodes
		departed map[types.UID]drain.Departure
		want     string
	}{
		"only its share goes at a time": {
			quarter, pods(replica("a"), replica("b"), replica("c")), replicas("d", "e", "f", "g", "h"), nil,
			"evict a | evict b | hold c" + twoOf8 + "0 are not back yet",
		},
		"one pod always may go": {quarter, pods(replica("a"), replica("b")), nil, nil, "evict a | hold b: the workload has no budget, so at most 1 of its 2 pods are taken away at a time, and 0 are not back yet"},
		"a lone pod goes":       {quarter, pods(replica("a")), nil, nil, "evict a"},
		"workloads do not wait for each other": {
			quarter, pods(replica("a"), replica("b", controlledBy("db")), replica("c", controlledBy("db"))), nil, nil,
			"evict a | evict b | hold c: the workload has no budget, so at most 1 of its 2 pods are taken away at a time, and 0 are not back yet",
		},
		"what was evicted counts until its replacement is ready": {
			quarter, pods(replica("c"), replica("a", terminating)), append(replicas("d", "e", "f", "g", "h"), replica("a2", fresh, notReady), replica("b2", fresh, notReady)),
			map[types.UID]drain.Departure{"b": {Controller: "web", At: now.Add(-10 * time.Second)}},
			"hold c" + twoOf8 + "2 are not back yet | leaving 1",
		},
		"a replacement made within the second of the eviction stands in for it": {
			quarter, pods(replica("b"), replica("c"), replica("d")), append(replicas("e", "f", "g", "h"), replica("a2", createdAgo(time.Second))),
			map[types.UID]drain.Departure{"a": {Controller: "web", At: now.Add(-100 * time.Millisecond)}},
			"evict b | evict c | hold d" + twoOf8 + "0 are not back yet",
		},
		"replacements of earlier evictions do not stand in for later ones": {
			quarter, pods(replica("e"), replica("f")), append(replicas("g", "h"), replica("a2", createdAgo(5*time.Minute)), replica("b2", createdAgo(5*time.Minute))),
			map[types.UID]drain.Departure{
				"a": {Controller: "web", At: now.Add(-5 * time.Minute)}, "b": {Controller: "web", At: now.Add(-5 * time.Minute)},
				"c": {Controller: "web", At: now.Add(-time.Second)}, "d": {Controller: "web", At: now.Add(-time.Second)},
			},
			"hold e" + twoOf8 + "2 are not back yet | hold f" + twoOf8 + "2 are not back yet | again in 59s",
		},
		"what replaced a pod and was evicted itself has to be replaced too": {
			quarter, pods(replica("b")), append(replicas("c", "d"), replica("a3", createdAgo(10*time.Second))),
			map[types.UID]drain.Departure{
				"a": {Controller: "web", At: now.Add(-5 * time.Minute)}, "a2": {Controller: "web", At: now.Add(-11 * time.Second)},
			},
			"evict b",
		},
		"what an earlier drain evicted and is back does not count": {
			quarter, pods(replica("b")), append(replicas("c", "d"), replica("a2", createdAgo(11*time.Minute))),
			map[types.UID]drain.Departure{"a": {Controller: "web", At: began.Add(-time.Minute - 30*time.Second), Grace: time.Hour}},
			"evict b",
		},
		"a pod that may take its time to end is waited for as much longer": {
			quarter, pods(replica("b")), nil,
			map[types.UID]drain.Departure{"a": {Controller: "web", At: now.Add(-80 * time.Second), Grace: 30 * time.Second}},
			"hold b: the workload has no budget, so at most 1 of its 2 pods are taken away at a time, and 1 are not back yet | again in 10s",
		},
		"what was evicted and has no replacement yet counts too": {
			quarter, pods(replica("b"), replica("c")), replicas("d", "e", "f", "g", "h"),
			map[types.UID]drain.Departure{"a": {Controller: "web", At: now}},
			"evict b | hold c" + twoOf8 + "1 are not back yet | again in 1m0s",
		},
		"a controller that brings nothing back holds nobody up for long": {
			quarter, pods(replica("b"), replica("c")), replicas("d", "e", "f", "g", "h"),
			map[types.UID]drain.Departure{"a": {Controller: "web", At: now.Add(-time.Minute)}},
			"evict b | hold c: the workload has no budget, so at most 1 of its 7 pods are taken away at a time, and 0 are not back yet",
		},
		"departures of other workloads count for nothing": {
			quarter, pods(replica("a")), nil, map[types.UID]drain.Departure{"x": {Controller: "db", At: now}}, "evict a",
		},
		"what was not ready before does not hold its siblings": {
			quarter, pods(replica("a"), replica("b", notReady)), append(replicas("c", "d"), replica("e", notReady), replica("f", notReady)), nil,
			"evict a | evict b",
		},
		"what is not ready takes no share": {
			quarter, pods(replica("a", notReady), replica("b", notReady), replica("c")), nil, nil, "evict a | evict b | evict c",
		},
		"pods that have finished are no replicas": {
			quarter, pods(replica("a"), replica("b")), []*corev1.Pod{replica("c", inPhase(corev1.PodFailed)), replica("d", inPhase(corev1.PodSucceeded))}, nil,
			"evict a | hold b: the workload has no budget, so at most 1 of its 2 pods are taken away at a time, and 0 are not back yet",
		},
		"pods of Jobs do not stand in for each other": {
			quarter, pods(pod("a", ownedBy("Job")), pod("b", ownedBy("Job"))), nil, nil, "evict a | evict b",
		},
		"it can be switched off": {drain.Policy{}, pods(replica("a"), replica("b"), replica("c")), nil, nil, "evict a | evict b | evict c"},
	} {
		t.Run(rule, func(t *testing.T) {
			siblings := map[types.UID][]*corev1.Pod{}
			for _, pod := range append(test.here, test.there...) {
				if controller := metav1.GetControllerOf(pod); controller != nil {
					siblings[controller.UID] = append(siblings[controller.UID], pod)
				}
			}
			require.Equal(t, test.want, told(drain.Decide(drain.State{
				Now: now, Started: began, Policy: test.policy, Pods: test.here, Siblings: siblings, Evicted: test.departed,
			})))
		})
	}
}

func TestABudgetOfItsOwnReplacesTheImplicitOne(t *testing.T) {
	state := drain.State{
		Now: now, Started: began, Policy: drain.Policy{ImplicitBudget: 25},
		Pods: pods(replica("a", of("web")), replica("b", of("web")), replica("c", of("web"))), Budgets: budgets(budget("web", allows(3))),
	}
	require.Equal(t, "evict a, b, c", told(drain.Decide(state)))
}

// replica is a pod of the ReplicaSet web, created before the drain.
func replica(name string, change ...func(*corev1.Pod)) *corev1.Pod {
	return pod(name, append([]func(*corev1.Pod){controlledBy("web"), func(p *corev1.Pod) { p.CreationTimestamp.Time = began.Add(-time.Hour) }}, change...)...)
}

func replicas(names ...string) []*corev1.Pod {
	var out []*corev1.Pod
	for _, name := range names {
		out = append(out, replica(name))
	}
	return out
}

func controlledBy(name string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.OwnerReferences = []metav1.OwnerReference{{Kind: "ReplicaSet", Name: name, UID: types.UID(name), Controller: new(true)}}
	}
}

func createdAgo(ago time.Duration) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.CreationTimestamp.Time = now.Add(-ago) }
}

func fresh(p *corev1.Pod) { createdAgo(5 * time.Second)(p) }

func annotated(key, value string) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Annotations = map[string]string{key: value} }
}

func startedAgo(ago time.Duration) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Status.StartTime = &metav1.Time{Time: now.Add(-ago)} }
}

func prioritised(priority int32) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Spec.Priority = &priority }
}

func emptyDir(medium corev1.StorageMedium) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.Volumes = []corev1.Volume{{Name: "scratch", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: medium}}}}
	}
}
