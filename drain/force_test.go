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
				ForcedHere: test.last, Forced: test.forced, Announced: announced(-time.Second, "a", "b", "c"),
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

func TestAForceCountsForTheWorkloadOfAPodWithoutABudget(t *testing.T) {
	rules := drain.ForcePolicy{After: 8 * time.Hour, Interval: 5 * time.Minute, SiblingsReady: time.Hour, Deadline: 12 * time.Hour}
	kept := replica("a", annotated(drain.DoNotDisrupt, "true"))
	for rule, test := range map[string]struct {
		drained time.Duration
		pod     *corev1.Pod
		others  []*corev1.Pod
		forced  map[types.UID]time.Time
		want    string
	}{
		"its siblings have been ready":                    {9 * time.Hour, kept, pods(replica("b", readyFor(2*time.Hour))), nil, "force a"},
		"a sibling that is not ready postpones it":        {9 * time.Hour, kept, pods(replica("b", notReady)), nil, "its sibling b, which is not ready"},
		"a young sibling postpones it":                    {9 * time.Hour, kept, pods(replica("b", readyFor(time.Minute))), nil, "its sibling b has been ready for 1h0m0s"},
		"the deadline ends that":                          {12 * time.Hour, kept, pods(replica("b", notReady)), nil, "force a"},
		"not soon after another of the workload":          {9 * time.Hour, kept, nil, map[types.UID]time.Time{"web": now.Add(-time.Minute)}, "another pod of the workload was just forced"},
		"not even past the deadline":                      {13 * time.Hour, kept, nil, map[types.UID]time.Time{"web": now.Add(-time.Minute)}, "another pod of the workload was just forced"},
		"another workload is another matter":              {9 * time.Hour, kept, nil, map[types.UID]time.Time{"db": now}, "force a"},
		"a budget counts whatever else holds the pod":     {9 * time.Hour, pod("a", of("web"), annotated(drain.DoNotDisrupt, "true")), pods(pod("b", of("web"), notReady)), nil, "its sibling b, which is not ready"},
		"one that two budgets cover heeds both of them":   {9 * time.Hour, pod("a", of("web"), withLabel("tier", "front")), pods(pod("b", withLabel("tier", "front"), notReady)), nil, "its sibling b, which is not ready"},
		"the second replica of a lone one may never come": {9 * time.Hour, replica("a", annotated(drain.Surge, "true")), pods(replica("b", notReady)), nil, "force a"},
	} {
		t.Run(rule, func(t *testing.T) {
			plan := drain.Decide(drain.State{
				Now: now, Started: now.Add(-test.drained), Policy: drain.Policy{Force: rules, ImplicitBudget: 25},
				Pods: pods(test.pod), ForcedOf: test.forced, Surged: map[types.UID]drain.Surged{"web": {Scaled: true}},
				Siblings: drain.SiblingsOf(append(test.others, test.pod)), InNamespace: func(string) []*corev1.Pod { return append(test.others, test.pod) },
				Budgets: budgets(budget("web", allows(0), wants(3, 3)), budget("front", allows(1), selector(&metav1.LabelSelector{MatchLabels: map[string]string{"tier": "front"}}))),
			})
			require.Contains(t, forceOrWhyNot(plan), test.want)
		})
	}
}

func TestWhatPassesByItselfIsForcedOnlyPastTheDeadline(t *testing.T) {
	busy := drain.Refusal{Until: now.Add(time.Second), Reason: "the API server refused the eviction: too many requests"}
	spent := drain.Refusal{Version: "1", Until: now.Add(time.Minute)}
	for rule, test := range map[string]struct {
		drained  time.Duration
		deadline time.Duration
		pod      *corev1.Pod
		others   []*corev1.Pod
		refusal  drain.Refusal
		want     string
	}{
		"a busy API server":                      {9 * time.Hour, 12 * time.Hour, replica("a"), nil, busy, "too many requests"},
		"a busy API server past the deadline":    {12 * time.Hour, 12 * time.Hour, replica("a"), nil, busy, "force a"},
		"a busy API server without a deadline":   {1000 * time.Hour, 0, replica("a"), nil, busy, "too many requests"},
		"one that is busy with a budgeted pod":   {9 * time.Hour, 12 * time.Hour, pod("a", of("web")), nil, busy, "too many requests"},
		"a budget that refuses does not pass":    {9 * time.Hour, 12 * time.Hour, pod("a", of("web")), nil, spent, "force a"},
		"a workload that recovers":               {9 * time.Hour, 12 * time.Hour, replica("a"), pods(replica("b", terminating)), drain.Refusal{}, "the workload has no budget"},
		"a workload that never does":             {12 * time.Hour, 12 * time.Hour, replica("a"), pods(replica("b", terminating)), drain.Refusal{}, "force a"},
		"a workload that never does, for orders": {time.Hour, 12 * time.Hour, replica("a", withLabel("order", "now")), pods(replica("b", terminating)), drain.Refusal{}, "force a"},
	} {
		t.Run(rule, func(t *testing.T) {
			state := drain.State{
				Now: now, Started: now.Add(-test.drained), Pods: pods(test.pod), Budgets: budgets(budget("web", allows(1))),
				Policy:   drain.Policy{ImplicitBudget: 25, Force: drain.ForcePolicy{After: 8 * time.Hour, Deadline: test.deadline}},
				Siblings: drain.SiblingsOf(append(test.others, test.pod)), Refused: refused(test.pod.UID, test.refusal),
			}
			state.Budgets[0].ResourceVersion = "1"
			if test.pod.Labels["order"] == "now" {
				state.Orders = []drain.Order{{Mode: drain.ForceNow, By: "anna", Reason: "now"}}
			}
			require.Contains(t, forceOrWhyNot(drain.Decide(state)), test.want)
		})
	}
}

func TestNobodyIsForcedWithoutAWarning(t *testing.T) {
	for rule, test := range map[string]struct {
		warnBefore time.Duration
		announced  map[types.UID]time.Time
		pod        *corev1.Pod
		orders     []drain.Order
		forceAt    time.Duration // from now; 0 is now
		warn       bool
	}{
		"one that was warned in time":                   {time.Hour, announced(-time.Hour, "a"), pod("a", of("web")), nil, 0, false},
		"one that is held late is warned first":         {time.Hour, nil, pod("a", of("web")), nil, 10 * time.Minute, true},
		"then it has some minutes":                      {time.Hour, announced(6*time.Minute, "a"), pod("a", of("web")), nil, 6 * time.Minute, true},
		"and no more than that":                         {time.Hour, announced(0, "a"), pod("a", of("web")), nil, 0, false},
		"a short warning is as long as configured":      {4 * time.Second, nil, pod("a", of("web")), nil, 4 * time.Second, true},
		"no warning is no warning":                      {0, nil, pod("a", of("web")), nil, 0, false},
		"a critical pod whose turn comes late, as well": {time.Hour, nil, pod("a", of("web"), prioritised(2_000_000_000)), nil, 10 * time.Minute, true},
		"an order needs no warning":                     {time.Hour, nil, pod("a", of("web")), []drain.Order{{Mode: drain.ForceNow, By: "anna"}}, 0, false},
		"the warning of another pod is none":            {time.Hour, announced(-time.Hour, "b"), pod("a", of("web")), nil, 10 * time.Minute, true},
	} {
		t.Run(rule, func(t *testing.T) {
			plan := drain.Decide(drain.State{
				Now: now, Started: now.Add(-9 * time.Hour), Pods: pods(test.pod), Budgets: budgets(budget("web", allows(0))), Orders: test.orders,
				Policy: drain.Policy{Force: drain.ForcePolicy{After: 8 * time.Hour, WarnBefore: test.warnBefore}}, Announced: test.announced,
			})
			require.Len(t, plan.Held, 1)
			require.Equal(t, test.warn, plan.Held[0].Warn)
			require.Equal(t, test.forceAt == 0, plan.Force != nil)
			if test.forceAt > 0 {
				require.Equal(t, now.Add(test.forceAt), plan.Held[0].ForceAt)
				require.Equal(t, now.Add(test.forceAt), plan.Until)
			}
		})
	}
}

func TestTimeOfEarlierDrainsCountsAndBlockedTimeDoesNot(t *testing.T) {
	// 10 minutes since the beginning, 4 of them blocked, after 14 minutes of earlier drains: 20.
	state := func(change func(*drain.State)) drain.Plan {
		s := drain.State{
			Now: now, Started: began, Blocked: 4 * time.Minute, Tried: 14 * time.Minute,
			Pods: pods(pod("a", of("web"))), Budgets: budgets(budget("web", allows(0))),
		}
		change(&s)
		return drain.Decide(s)
	}
	for _, left := range []time.Duration{0, time.Minute} {
		after := 20*time.Minute + left
		plan := state(func(s *drain.State) { s.Policy.Force.After = after })
		require.Equal(t, left == 0, plan.Force != nil, "force")
		require.Equal(t, now.Add(left), plan.Held[0].ForceAt)

		plan = state(func(s *drain.State) { s.GiveUpAfter = after })
		require.Equal(t, left == 0, plan.GiveUp, "giving up")

		plan = state(func(s *drain.State) {
			s.Policy.Force = drain.ForcePolicy{After: time.Minute, Deadline: after}
			s.InNamespace = func(string) []*corev1.Pod { return pods(pod("b", of("web"), notReady)) }
		})
		require.Equal(t, left == 0, plan.Force != nil, "deadline")

		plan = state(func(s *drain.State) { s.Pods, s.Policy.JobsWithin = pods(pod("j", ownedBy("Job"))), after })
		require.Equal(t, left == 0, len(plan.Evict) == 1, "jobs")
	}
}

// forceOrWhyNot is the forced pod, or why there is none.
func forceOrWhyNot(plan drain.Plan) string {
	if plan.Force != nil {
		return "force " + plan.Force.Pod.Name
	}
	return told(plan)
}

// announced says that the people of pods were told they would be forced so long from now.
func announced(in time.Duration, uids ...types.UID) map[types.UID]time.Time {
	out := map[types.UID]time.Time{}
	for _, uid := range uids {
		out[uid] = now.Add(in)
	}
	return out
}

func TestAMomentsDelayOfAWarningPostponesNoForce(t *testing.T) {
	for late, want := range map[time.Duration]time.Duration{0: 0, 6 * time.Second: 0, time.Minute: 0, 2 * time.Minute: 2 * time.Minute} {
		due := now.Add(10*time.Minute - late)
		plan := drain.Decide(drain.State{
			Now: now, Started: due.Add(-8 * time.Hour), Pods: pods(pod("a", of("web"))), Budgets: budgets(budget("web", allows(0))),
			Policy: drain.Policy{Force: drain.ForcePolicy{After: 8 * time.Hour, WarnBefore: 10 * time.Minute}},
		})
		require.True(t, plan.Held[0].Warn)
		require.Equal(t, due.Add(want), plan.Held[0].ForceAt, late)
	}
}

func withLabel(key, value string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		if p.Labels == nil {
			p.Labels = map[string]string{}
		}
		p.Labels[key] = value
	}
}

func readyFor(age time.Duration) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Status.Conditions[1].LastTransitionTime = metav1.Time{Time: now.Add(-age)} }
}
