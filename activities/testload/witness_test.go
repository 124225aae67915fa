package testload

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/fairway-project/fairway/e2e"
)

var began = time.Date(2026, 11, 1, 12, 0, 0, 500, time.UTC)

func disrupted(name, reason string, at time.Time) *corev1.Pod {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, UID: types.UID(name)}}
	if reason != "" {
		pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: reason, LastTransitionTime: metav1.NewTime(at)}}
	}
	return pod
}

func pdb(healthy, desired int32) *policyv1.PodDisruptionBudget {
	return &policyv1.PodDisruptionBudget{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", UID: "budget", Generation: 1},
		Status:     policyv1.PodDisruptionBudgetStatus{ObservedGeneration: 1, CurrentHealthy: healthy, DesiredHealthy: desired},
	}
}

func forcedEvent(pod string, at time.Time) *corev1.Event {
	return &corev1.Event{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: pod + ".pod.fairwayforced"}, Reason: forcedReason, LastTimestamp: metav1.NewTime(at),
		InvolvedObject: corev1.ObjectReference{Kind: "Pod", Namespace: "shop", Name: pod, UID: types.UID(pod)},
	}
}

func TestEachEvictedPodCountsOnce(t *testing.T) {
	later := began.Add(time.Minute)
	for _, test := range []struct {
		rule  string
		see   []*corev1.Pod
		lose  []*corev1.Pod
		count int
	}{
		{"one that stays as it is counts not", []*corev1.Pod{disrupted("a", "", later)}, nil, 0},
		{"one seen twice counts once", []*corev1.Pod{disrupted("a", evictedByAPI, later), disrupted("a", evictedByAPI, later)}, nil, 1},
		{"one that goes does not count again", []*corev1.Pod{disrupted("a", evictedByAPI, later)}, []*corev1.Pod{disrupted("a", evictedByAPI, later)}, 1},
		{"one whose end is the first news of it counts", nil, []*corev1.Pod{disrupted("a", evictedByAPI, later)}, 1},
		{"one that a scheduler preempts counts not", []*corev1.Pod{disrupted("a", corev1.PodReasonPreemptionByScheduler, later)}, nil, 0},
		{"one of before the update counts not", []*corev1.Pod{disrupted("a", evictedByAPI, began.Add(-time.Minute))}, nil, 0},
		{"one of the update's first second counts", []*corev1.Pod{disrupted("a", evictedByAPI, began.Truncate(time.Second))}, nil, 1},
	} {
		t.Run(test.rule, func(t *testing.T) {
			w := newWitnessed(began)
			for _, pod := range test.see {
				w.seePod(pod)
			}
			for _, pod := range test.lose {
				w.losePod(pod)
				require.Empty(t, w.Evicted)
			}
			require.Equal(t, test.count, w.Upgrade.Evictions)
		})
	}
}

func TestABudgetIsViolatedWhenItLosesWhatItHad(t *testing.T) {
	older, going := pdb(0, 2), pdb(3, 2)
	older.Generation = 2
	going.DeletionTimestamp = new(metav1.NewTime(began))
	for _, test := range []struct {
		rule string
		see  []*policyv1.PodDisruptionBudget
		want []e2e.Violation
	}{
		{"enough is no violation", []*policyv1.PodDisruptionBudget{pdb(3, 2), pdb(2, 2), pdb(3, 2)}, nil},
		{"one that never had enough is none", []*policyv1.PodDisruptionBudget{pdb(0, 2), pdb(1, 2), pdb(0, 2)}, nil},
		{"less than it wants is one, from then until it has enough, with the worst of it", []*policyv1.PodDisruptionBudget{pdb(3, 2), pdb(1, 2), pdb(0, 2), pdb(1, 2), pdb(2, 2)},
			[]e2e.Violation{{Budget: "shop/web", Healthy: 0, Desired: 2, From: at(1), To: at(4)}}},
		{"one that does not end has no end", []*policyv1.PodDisruptionBudget{pdb(3, 2), pdb(1, 2)}, []e2e.Violation{{Budget: "shop/web", Healthy: 1, Desired: 2, From: at(1)}}},
		{"each counts", []*policyv1.PodDisruptionBudget{pdb(2, 2), pdb(1, 2), pdb(2, 2), pdb(1, 2), pdb(2, 2)},
			[]e2e.Violation{{Budget: "shop/web", Healthy: 1, Desired: 2, From: at(1), To: at(2)}, {Budget: "shop/web", Healthy: 1, Desired: 2, From: at(3), To: at(4)}}},
		{"a workload that grows violates nothing", []*policyv1.PodDisruptionBudget{pdb(3, 2), pdb(3, 5), pdb(6, 5)}, nil},
		{"one that grows and loses pods does", []*policyv1.PodDisruptionBudget{pdb(3, 2), pdb(3, 5), pdb(1, 5)}, []e2e.Violation{{Budget: "shop/web", Healthy: 1, Desired: 5, From: at(2)}}},
		{"a status about an older budget says nothing", []*policyv1.PodDisruptionBudget{pdb(3, 2), older}, nil},
		{"the end of a budget ends its violation", []*policyv1.PodDisruptionBudget{pdb(2, 2), pdb(1, 2), going}, []e2e.Violation{{Budget: "shop/web", Healthy: 1, Desired: 2, From: at(1), To: at(2)}}},
	} {
		t.Run(test.rule, func(t *testing.T) {
			w := newWitnessed(began)
			for i, b := range test.see {
				w.seeBudget(b, at(i))
			}
			require.Equal(t, test.want, w.Upgrade.Violations)
		})
	}
}

func at(minute int) time.Time { return began.Add(time.Duration(minute) * time.Minute) }

func TestWhatIsKeptIsBounded(t *testing.T) {
	w := newWitnessed(began)
	for i := range 2 * mostTracked {
		name := fmt.Sprintf("%040d", i)
		w.seePod(disrupted(name, evictedByAPI, at(1)))
		w.seeEvent(forcedEvent(name, at(1)))
		w.seeNode(types.UID(name))
		b := pdb(2, 2)
		b.UID = types.UID(name)
		w.seeBudget(b, at(1))
		b.Status.CurrentHealthy = 0
		w.seeBudget(b, at(2))
	}
	text, err := json.Marshal(w.clone())
	require.NoError(t, err)
	require.Less(t, len(text), 1<<20, "Temporal takes 2 MiB")
	require.Len(t, w.Upgrade.Forced, mostForced)
	require.Len(t, w.Upgrade.Violations, mostViolations)
}

// follow lets a witness watch until done says that it has seen enough.
func follow(t *testing.T, w *witness, client *fake.Clientset, change func(context.Context), done func(witnessed) bool) e2e.Upgrade {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- w.follow(ctx, "c", client) }()
	require.Eventually(t, w.looked, 10*time.Second, 5*time.Millisecond)
	change(ctx)
	require.Eventually(t, func() bool { return done(w.state().(witnessed)) }, 10*time.Second, 5*time.Millisecond)
	cancel()
	require.ErrorIs(t, <-ended, context.Canceled)
	return w.state().(witnessed).Upgrade
}

func empty(since time.Time) *witness {
	return &witness{seen: newWitnessed(since), staleNodes: map[types.UID]bool{}, staleBudgets: map[types.UID]bool{}, stalePods: map[types.UID]bool{}}
}

func TestAWitnessSeesEvictionsForceViolationsAndNodesThatGo(t *testing.T) {
	client := fake.NewClientset(
		&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "old", UID: "old"}}, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "new", UID: "new"}},
		disrupted("a", "", began), disrupted("b", "", began), pdb(2, 2))
	now := time.Now()
	seen := follow(t, empty(began), client, func(ctx context.Context) {
		_, err := client.CoreV1().Pods("shop").Update(ctx, disrupted("a", evictedByAPI, now), metav1.UpdateOptions{})
		require.NoError(t, err)
		require.NoError(t, client.CoreV1().Pods("shop").Delete(ctx, "a", metav1.DeleteOptions{}))
		_, err = client.CoreV1().Events("shop").Create(ctx, forcedEvent("b", now), metav1.CreateOptions{})
		require.NoError(t, err)
		for _, healthy := range []int32{1, 2} {
			_, err = client.PolicyV1().PodDisruptionBudgets("shop").Update(ctx, pdb(healthy, 2), metav1.UpdateOptions{})
			require.NoError(t, err)
		}
		require.NoError(t, client.CoreV1().Nodes().Delete(ctx, "old", metav1.DeleteOptions{}))
	}, func(w witnessed) bool {
		return w.Upgrade.Nodes == 1 && len(w.Upgrade.Forced) == 1 && w.Upgrade.Evictions == 1 && len(w.Upgrade.Violations) == 1 && !w.Upgrade.Violations[0].To.IsZero()
	})
	require.Equal(t, []string{"shop/b"}, seen.Forced)
	require.Equal(t, "shop/web", seen.Violations[0].Budget)
}

func TestAfterACrashAListTellsWhatHasGoneAndNothingCountsTwice(t *testing.T) {
	before := newWitnessed(began)
	before.Upgrade = e2e.Upgrade{Nodes: 1, Evictions: 3, Forced: []string{"shop/b"}, Violations: []e2e.Violation{{Budget: "shop/web", Healthy: 1, Desired: 2, From: at(1)}}}
	before.Nodes = map[types.UID]bool{"gone": true, "there": true}
	before.Evicted = map[types.UID]bool{"a": true, "went": true}
	before.Forced = map[types.UID]bool{"b": true}
	before.Budgets = map[types.UID]*budget{"budget": {Held: 2, Violation: 1}, "other": {Held: 1, Violation: 7}}
	text, err := json.Marshal(before)
	require.NoError(t, err)
	var read witnessed
	require.NoError(t, json.Unmarshal(text, &read))
	read.fill()
	require.NotContains(t, read.Budgets, types.UID("other"), "a state that makes no sense is not believed")
	w := empty(began)
	w.seen = &read
	w.seen.Looked = false
	w.staleNodes = map[types.UID]bool{"gone": true, "there": true}
	w.staleBudgets, w.stalePods = map[types.UID]bool{"budget": true}, map[types.UID]bool{"a": true, "went": true}
	client := fake.NewClientset(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "there", UID: "there"}},
		disrupted("a", evictedByAPI, at(1)), disrupted("c", evictedByAPI, at(1)), forcedEvent("b", at(1)), pdb(2, 2))
	seen := follow(t, w, client, func(context.Context) {}, func(witnessed) bool { return true })
	require.Equal(t, 2, seen.Nodes)
	require.Equal(t, 4, seen.Evictions)
	require.Equal(t, []string{"shop/b"}, seen.Forced)
	require.Len(t, seen.Violations, 1)
	require.False(t, seen.Violations[0].To.IsZero())
	require.Equal(t, map[types.UID]bool{"a": true, "c": true}, w.state().(witnessed).Evicted)
}
