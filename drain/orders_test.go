package drain_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/fairway-project/fairway/drain"
)

func TestAnOrderDecidesAboutAForce(t *testing.T) {
	rules := drain.ForcePolicy{After: 8 * time.Hour, WarnBefore: time.Hour, Interval: 5 * time.Minute, SiblingsReady: time.Hour, Deadline: 12 * time.Hour}
	var (
		forceNow  = drain.Order{Mode: drain.ForceNow, By: "anna", Reason: "the node burns"}
		forbid    = drain.Order{Mode: drain.ForceForbid, By: "ben", Reason: "it migrates data"}
		byRule    = drain.Order{Mode: "rule", By: "eve", Reason: "over"}
		onlyB     = func(o drain.Order) drain.Order { o.Pod = "shop/b"; return o }
		web       = types.NamespacedName{Namespace: "shop", Name: "web"}
		forbidden = "; ben forbade to force it: it migrates data"
	)
	const anna, rule = "anna: the node burns", "drain.force_after = 8h0m0s"
	for name, test := range map[string]struct {
		policy  drain.ForcePolicy
		drained time.Duration
		orders  []drain.Order
		here    []*corev1.Pod
		last    time.Time // force on the node
		forced  map[types.NamespacedName]time.Time
		want    string // forced pod and authority
		because string // part of a reason
	}{
		"without orders the rules count":                      {rules, 9 * time.Hour, nil, pods(pod("a", of("web"))), time.Time{}, nil, "a by " + rule, "never allow"},
		"now does not wait for the time":                      {rules, time.Minute, []drain.Order{forceNow}, pods(pod("a", of("web"))), time.Time{}, nil, "a by " + anna, "forced at once, as ordered"},
		"now works where the rules never force":               {drain.ForcePolicy{Interval: time.Minute}, time.Minute, []drain.Order{forceNow}, pods(pod("a", of("web"))), time.Time{}, nil, "a by " + anna, ""},
		"now does not wait for siblings":                      {rules, 9 * time.Hour, []drain.Order{forceNow}, pods(pod("a", of("web"))), time.Time{}, nil, "a by " + anna, ""},
		"now forces what its annotation keeps":                {rules, 0, []drain.Order{forceNow}, pods(pod("a", annotated(drain.DoNotDisrupt, "true"))), time.Time{}, nil, "a by " + anna, "forbids it by its annotation"},
		"now forces one pod at a time":                        {rules, 0, []drain.Order{forceNow}, pods(pod("a", of("web")), pod("b", of("web"))), time.Time{}, nil, "a by " + anna, ""},
		"now waits for the interval of the node":              {rules, 0, []drain.Order{forceNow}, pods(pod("a", of("web"))), now.Add(-time.Minute), nil, "", "anna ordered to force it (the node burns); its force waits until 2026-03-01T12:04:00Z, since another pod of the node was just forced"},
		"now waits for the interval of the budget":            {rules, 0, []drain.Order{forceNow}, pods(pod("a", of("web"))), time.Time{}, map[types.NamespacedName]time.Time{web: now.Add(-time.Minute)}, "", "another pod of the budget was just forced"},
		"now does not force what waits for its turn":          {rules, 0, []drain.Order{forceNow}, pods(pod("b", of("web")), pod("c", prioritised(2_000_000_000))), now, nil, "", "it is critical and goes when"},
		"now for one pod leaves the others":                   {rules, 0, []drain.Order{onlyB(forceNow)}, pods(pod("a", of("web")), pod("b", of("web"))), time.Time{}, nil, "b by " + anna, ""},
		"now forces nothing that can be evicted":              {rules, 0, []drain.Order{forceNow}, pods(pod("d")), time.Time{}, nil, "", ""},
		"forbid holds past the deadline":                      {rules, 100 * time.Hour, []drain.Order{forbid}, pods(pod("a", of("web"))), time.Time{}, nil, "", forbidden},
		"forbid for one pod leaves the others":                {rules, 9 * time.Hour, []drain.Order{onlyB(forbid)}, pods(pod("a", of("web")), pod("b", of("web"))), time.Time{}, nil, "a by " + rule, forbidden},
		"the newest counts: forbid after now":                 {rules, 9 * time.Hour, []drain.Order{forceNow, forbid}, pods(pod("a", of("web"))), time.Time{}, nil, "", forbidden},
		"the newest counts: now after forbid":                 {rules, time.Minute, []drain.Order{forbid, forceNow}, pods(pod("a", of("web"))), time.Time{}, nil, "a by " + anna, ""},
		"an older order for all gives way to one for the pod": {rules, time.Minute, []drain.Order{forceNow, onlyB(forbid)}, pods(pod("b", of("web"))), time.Time{}, nil, "", forbidden},
		"a newer order for all counts for every pod":          {rules, time.Minute, []drain.Order{onlyB(forbid), forceNow}, pods(pod("b", of("web"))), time.Time{}, nil, "b by " + anna, ""},
		"rule takes a forbid back":                            {rules, 9 * time.Hour, []drain.Order{forbid, byRule}, pods(pod("a", of("web"))), time.Time{}, nil, "a by " + rule, ""},
		"rule takes a now back":                               {rules, time.Minute, []drain.Order{forceNow, byRule}, pods(pod("a", of("web"))), time.Time{}, nil, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			plan := drain.Decide(drain.State{
				Now: now, Started: now.Add(-test.drained), Policy: drain.Policy{Force: test.policy}, Orders: test.orders,
				Pods: test.here, Budgets: budgets(budget("web", allows(0), wants(3, 3))),
				ForcedHere: test.last, Forced: test.forced, Announced: announced(-time.Hour, "a", "b"),
			})
			got, told := "", ""
			for _, held := range plan.Held {
				told += held.Reason
			}
			if plan.Force != nil {
				got = plan.Force.Pod.Name + " by " + plan.Force.Authority
				told += plan.Force.Reason
			}
			require.Equal(t, test.want, got, told)
			require.Contains(t, told, test.because)
		})
	}
}

func TestAPodWhoseForceIsForbiddenHasNoTimeForIt(t *testing.T) {
	plan := drain.Decide(drain.State{
		Now: now, Started: now.Add(-8 * time.Hour), Policy: drain.Policy{Force: drain.ForcePolicy{After: 9 * time.Hour, WarnBefore: 2 * time.Hour}},
		Orders: []drain.Order{{Mode: drain.ForceForbid, By: "ben", Reason: "it migrates data"}},
		Pods:   pods(pod("a", of("web"))), Budgets: budgets(budget("web", allows(0))),
	})
	require.Len(t, plan.Held, 1)
	require.Zero(t, plan.Held[0].ForceAt)
	require.False(t, plan.Held[0].Warn)
	require.Zero(t, plan.Until)
}

func TestSiblingsDoNotPostponeWhatWasOrdered(t *testing.T) {
	plan := drain.Decide(drain.State{
		Now: now, Started: now.Add(-time.Hour), Policy: drain.Policy{Force: drain.ForcePolicy{After: time.Minute, SiblingsReady: time.Hour}},
		Orders: []drain.Order{{Mode: drain.ForceNow, By: "anna", Reason: "the node burns"}},
		Pods:   pods(pod("a", of("web"))), Budgets: budgets(budget("web", allows(0))),
		InNamespace: func(string) []*corev1.Pod { return pods(pod("b", of("web"), notReady)) },
	})
	require.NotNil(t, plan.Force)
	require.Equal(t, now, plan.Held[0].ForceAt)
}

func TestADrainIsGivenUpWhenItHasLastedTooLong(t *testing.T) {
	for rule, test := range map[string]struct {
		after   time.Duration
		blocked time.Duration
		here    []*corev1.Pod
		want    bool
		again   time.Duration // when to look again; 0 if not because of this
	}{
		"not before its time":               {11 * time.Minute, 0, pods(pod("a", of("web"))), false, time.Minute},
		"when its time has come":            {10 * time.Minute, 0, pods(pod("a", of("web"))), true, 0},
		"blocked time does not count":       {10 * time.Minute, 2 * time.Minute, pods(pod("a", of("web"))), false, 2 * time.Minute},
		"never, if so asked":                {0, 0, pods(pod("a", of("web"))), false, 0},
		"not for pods that merely leave":    {time.Minute, 0, pods(pod("a", terminating)), false, 0},
		"not for those that wait for them":  {time.Minute, 0, pods(pod("a", terminating), pod("c", prioritised(2_000_000_000))), false, 0},
		"not while something can be done":   {time.Minute, 0, pods(pod("a", of("web")), pod("d")), false, 0},
		"not if nothing is left":            {time.Minute, 0, nil, false, 0},
		"a second replica is not asked for": {time.Minute, 0, pods(replica("a", annotated(drain.Surge, "true"))), true, 0},
	} {
		t.Run(rule, func(t *testing.T) {
			plan := drain.Decide(drain.State{
				Now: now, Started: began, Blocked: test.blocked, GiveUpAfter: test.after,
				Pods: test.here, Budgets: budgets(budget("web", allows(0))),
			})
			require.Equal(t, test.want, plan.GiveUp)
			require.Empty(t, plan.Surge)
			if test.again > 0 {
				require.Equal(t, now.Add(test.again), plan.Until)
			} else {
				require.Zero(t, plan.Until)
			}
		})
	}
}

func TestAForceThatIsDueComesBeforeGivingUp(t *testing.T) {
	plan := drain.Decide(drain.State{
		Now: now, Started: began, GiveUpAfter: time.Minute, Policy: drain.Policy{Force: drain.ForcePolicy{After: time.Minute}},
		Pods: pods(pod("a", of("web"))), Budgets: budgets(budget("web", allows(0))),
	})
	require.NotNil(t, plan.Force)
	require.False(t, plan.GiveUp)
}
