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

func TestAHeldPodIsForcedGently(t *testing.T) {
	production := drain.ForcePolicy{After: 72 * time.Hour, WarnBefore: 12 * time.Hour, Interval: 5 * time.Minute, SiblingsReady: time.Hour, Deadline: 96 * time.Hour}
	noDeadline := production
	noDeadline.Deadline = 0
	old := readyFor(2 * time.Hour)
	web := types.NamespacedName{Namespace: "shop", Name: "web"}

	for rule, test := range map[string]struct {
		policy   drain.ForcePolicy
		drained  time.Duration // how long the drain has lasted
		blocked  time.Duration
		here     []*corev1.Pod
		siblings []*corev1.Pod
		forced   map[types.NamespacedName]time.Time
		last     time.Time
		want     string // the forced pod; "" none, "warn" a warning
		because  string
	}{
		"not before its time":                     {production, 59 * time.Hour, 0, pods(pod("a", of("web"))), nil, nil, time.Time{}, "", ""},
		"a warning comes well before":             {production, 60 * time.Hour, 0, pods(pod("a", of("web"))), nil, nil, time.Time{}, "warn", ""},
		"its time has come":                       {production, 72 * time.Hour, 0, pods(pod("a", of("web"))), nil, nil, time.Time{}, "a", "never allow an eviction"},
		"blocked time does not count":             {production, 100 * time.Hour, 40 * time.Hour, pods(pod("a", of("web"))), nil, nil, time.Time{}, "warn", ""},
		"never, if so configured":                 {drain.ForcePolicy{}, 1000 * time.Hour, 0, pods(pod("a", of("web"))), nil, nil, time.Time{}, "", ""},
		"what its annotation keeps is forced too": {production, 72 * time.Hour, 0, pods(pod("a", annotated(drain.DoNotDisrupt, "true"))), nil, nil, time.Time{}, "a", "forbids it by its annotation"},
		"critical pods that wait for others are not forced": {
			production, 72 * time.Hour, 0, pods(pod("b", of("web")), pod("c", prioritised(2_000_000_000))), nil, nil, now, "", "",
		},
		"one pod at a time":                  {production, 72 * time.Hour, 0, pods(pod("a", of("web")), pod("b", annotated(drain.DoNotDisrupt, "true"))), nil, nil, time.Time{}, "a", ""},
		"not soon after another of the node": {production, 72 * time.Hour, 0, pods(pod("a", of("web"))), nil, nil, now.Add(-4 * time.Minute), "", "another pod of the node was just forced"},
		"the interval is over":               {production, 72 * time.Hour, 0, pods(pod("a", of("web"))), nil, nil, now.Add(-5 * time.Minute), "a", ""},
		"not soon after another of the budget": {
			production, 72 * time.Hour, 0, pods(pod("a", of("web"))), nil, map[types.NamespacedName]time.Time{web: now.Add(-time.Minute)}, time.Time{}, "",
			"another pod of the budget was just forced",
		},
		"siblings that have been ready long enough allow it": {
			production, 72 * time.Hour, 0, pods(pod("a", of("web"))), pods(pod("b", of("web"), old)), nil, time.Time{}, "a", "",
		},
		"a sibling that became ready lately postpones it": {
			production, 72 * time.Hour, 0, pods(pod("a", of("web"))), pods(pod("b", of("web"), old), pod("c", of("web"), readyFor(20*time.Minute))), nil, time.Time{}, "",
			"its force waits until 2026-03-01T12:40:00Z, when its sibling c has been ready for 1h0m0s",
		},
		"a sibling that is not ready postpones it": {
			production, 72 * time.Hour, 0, pods(pod("a", of("web"))), pods(pod("b", of("web"), notReady)), nil, time.Time{}, "",
			"its force waits for its sibling b, which is not ready",
		},
		"siblings postpone it up to the node's deadline": {
			production, 96 * time.Hour, 0, pods(pod("a", of("web"))), pods(pod("b", of("web"), notReady)), nil, time.Time{}, "a", "",
		},
		"siblings postpone it for ever without a deadline": {
			noDeadline, 9600 * time.Hour, 0, pods(pod("a", of("web"))), pods(pod("b", of("web"), notReady)), nil, time.Time{}, "", "which is not ready",
		},
		"siblings that finish by themselves do not count": {
			production, 72 * time.Hour, 0, pods(pod("a", of("web"))),
			pods(pod("b", of("web"), notReady, ownedBy("Job")), pod("c", of("web"), notReady, inPhase(corev1.PodSucceeded))), nil, time.Time{}, "a", "",
		},
		"pods of other workloads do not count": {
			production, 72 * time.Hour, 0, pods(pod("a", of("web"))), pods(pod("b", of("db"), notReady)), nil, time.Time{}, "a", "",
		},
	} {
		t.Run(rule, func(t *testing.T) {
			plan := drain.Decide(drain.State{
				Now: now, Started: now.Add(-test.drained), Blocked: test.blocked, Policy: drain.Policy{Force: test.policy},
				Pods: test.here, Budgets: budgets(budget("web", allows(0), wants(3, 3))),
				ForcedHere: test.last, Forced: test.forced,
				InNamespace: func(string) []*corev1.Pod { return append(test.siblings, test.here...) },
			})
			got, told := "", ""
			for _, held := range plan.Held {
				told += held.Reason
				if held.Warn {
					got = "warn"
				}
			}
			if plan.Force != nil {
				got = plan.Force.Pod.Name
				told += plan.Force.Reason
			}
			require.Equal(t, test.want, got, told)
			require.Contains(t, told, test.because)
		})
	}
}

func TestAForceIsAnnouncedWithItsTime(t *testing.T) {
	plan := drain.Decide(drain.State{
		Now: now, Started: now.Add(-time.Hour), Blocked: 30 * time.Minute, Policy: drain.Policy{Force: drain.ForcePolicy{After: 8 * time.Hour}},
		Pods: pods(pod("a", of("web"))), Budgets: budgets(budget("web", allows(0))),
	})
	require.Len(t, plan.Held, 1)
	require.Equal(t, now.Add(7*time.Hour+30*time.Minute), plan.Held[0].ForceAt)
}

func readyFor(age time.Duration) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Status.Conditions[1].LastTransitionTime = metav1.Time{Time: now.Add(-age)} }
}
