package drain_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/fairway-project/fairway/drain"
)

func TestAssess(t *testing.T) {
	strict := drain.Policy{ImplicitBudget: 25, HoldUnmanaged: true, HoldLocalData: true}
	for rule, test := range map[string]struct {
		pods    []*corev1.Pod
		budgets []*policyv1.PodDisruptionBudget
		policy  drain.Policy
		want    drain.Difficulty
	}{
		"an empty node is easy":                         {},
		"what need not leave does not count":            {pods: pods(pod("a", ownedBy("DaemonSet")), pod("b", mirror))},
		"what leaves already has to, but is no trouble": {pods: pods(pod("a", terminating)), want: drain.Difficulty{Pods: 1}},
		"pods that only wait for each other are movable": {
			pods:    pods(member("a", "web"), member("b", "web"), member("c", "db"), member("d", "db"), member("e", "db"), pod("z", ownedBy("ReplicaSet"), prioritised(2_000_000_000))),
			budgets: budgets(budget("web", allows(1))), policy: strict, want: drain.Difficulty{Pods: 6},
		},
		"a spent budget holds": {
			pods: pods(member("a", "web"), member("b", "web"), member("c", "free")), budgets: budgets(budget("web", allows(0))), want: drain.Difficulty{Pods: 3, Held: 2},
		},
		"a budget that can never allow an eviction holds for ever": {
			pods: pods(member("a", "web")), budgets: budgets(budget("web", allows(0), wants(3, 3))), want: drain.Difficulty{Pods: 1, Held: 1, Never: 1},
		},
		"what such a budget lets go since it is not ready, goes": {
			pods: pods(member("a", "web", notReady)), budgets: budgets(budget("web", allows(0), wants(3, 3))), want: drain.Difficulty{Pods: 1},
		},
		"two budgets hold for ever": {
			pods: pods(member("a", "web")), budgets: budgets(budget("one", selecting("web"), allows(1)), budget("two", selecting("web"), allows(1))),
			want: drain.Difficulty{Pods: 1, Held: 1, Never: 1},
		},
		"a mark that forbids holds for ever, one that postpones does not": {
			pods: pods(member("a", "web", annotated(drain.DoNotDisrupt, "true")), member("b", "web", annotated(drain.DoNotDisrupt, "4h"), startedAgo(time.Hour))),
			want: drain.Difficulty{Pods: 2, Held: 2, Never: 1},
		},
		"what the policy holds is held for ever": {
			pods: pods(pod("a"), member("b", "web", emptyDir(""))), policy: strict, want: drain.Difficulty{Pods: 2, Held: 2, Never: 2},
		},
		"what the policy lets go is movable": {pods: pods(pod("a"), member("b", "web", emptyDir(""))), want: drain.Difficulty{Pods: 2}},
		"a Job that may go on is only held for its time": {
			pods: pods(pod("a", ownedBy("Job"))), policy: drain.Policy{JobsWithin: time.Hour}, want: drain.Difficulty{Pods: 1, Held: 1},
		},
	} {
		t.Run(rule, func(t *testing.T) {
			state := drain.State{Now: now, Started: now, Policy: test.policy, Pods: test.pods, Budgets: test.budgets, Siblings: drain.SiblingsOf(test.pods)}
			require.Equal(t, test.want, drain.Assess(state, drain.Volumes{}, "a"))
		})
	}
}

func TestAPodIsPinnedByAVolumeThatOnlyItsZoneServes(t *testing.T) {
	for rule, test := range map[string]struct {
		change []func(*corev1.Pod)
		volume *corev1.PersistentVolume
		want   bool
	}{
		"no volume":                                        {want: false},
		"a volume of this zone":                            {[]func(*corev1.Pod){using("data")}, inZones("a"), true},
		"a volume of this zone and another":                {[]func(*corev1.Pod){using("data")}, inZones("a", "b"), false},
		"a volume that goes anywhere":                      {[]func(*corev1.Pod){using("data")}, &corev1.PersistentVolume{}, false},
		"a volume that several nodes of this zone serve":   {[]func(*corev1.Pod){using("data")}, affine(term("a", "host-1"), term("a", "host-2")), true},
		"a volume that is not bound to a zone by one term": {[]func(*corev1.Pod){using("data")}, affine(term("a", "host-1"), corev1.NodeSelectorTerm{}), false},
		"a volume whose keys agree on this zone only": {[]func(*corev1.Pod){using("data")}, affine(corev1.NodeSelectorTerm{MatchExpressions: []corev1.NodeSelectorRequirement{
			oneOf("topology.ebs.csi.aws.com/zone", "a"), oneOf(corev1.LabelTopologyZone, "a", "b"),
		}}), true},
		"a volume bound by its label":           {[]func(*corev1.Pod){using("data")}, labelled("a"), true},
		"a volume that is not bound yet":        {[]func(*corev1.Pod){using("unbound")}, inZones("a"), false},
		"a claim that does not exist":           {[]func(*corev1.Pod){using("nothing")}, inZones("a"), false},
		"a volume that goes with the pod":       {[]func(*corev1.Pod){ephemeral("data")}, inZones("a"), false},
		"an EBS volume without a claim":         {[]func(*corev1.Pod){ebs}, nil, true},
		"a volume of a pod that need not leave": {[]func(*corev1.Pod){using("data"), ownedBy("DaemonSet")}, inZones("a"), false},
	} {
		t.Run(rule, func(t *testing.T) {
			volumes := drain.Volumes{
				Claims: map[types.NamespacedName]*corev1.PersistentVolumeClaim{
					{Namespace: "shop", Name: "data"}: claim("pv"), {Namespace: "shop", Name: "p-data"}: claim("pv"), {Namespace: "shop", Name: "unbound"}: claim(""),
				},
				Persistent: map[string]*corev1.PersistentVolume{"pv": test.volume},
			}
			state := drain.State{Now: now, Pods: pods(pod("p", test.change...))}
			require.Equal(t, test.want, drain.Assess(state, volumes, "a").Pinned)
		})
	}
}

func TestClaimsOfAPod(t *testing.T) {
	require.Equal(t, []string{"data", "p-scratch"}, drain.Claims(pod("p", emptyDir(""), using("data"), ephemeral("scratch"))))
}

func TestPodsThatStayUseTheirVolumes(t *testing.T) {
	require.True(t, drain.UsesStillOnNode(pod("p", ownedBy("DaemonSet"))))
	require.True(t, drain.UsesStillOnNode(pod("p", mirror)))
	require.False(t, drain.UsesStillOnNode(pod("p")), "it has to leave")
	require.False(t, drain.UsesStillOnNode(pod("p", ownedBy("DaemonSet"), inPhase(corev1.PodSucceeded))), "it has ended")
}

func using(claim string) func(*corev1.Pod) {
	return withVolume("v-"+claim, corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claim}})
}

func ephemeral(name string) func(*corev1.Pod) {
	return withVolume(name, corev1.VolumeSource{Ephemeral: &corev1.EphemeralVolumeSource{}})
}

func ebs(p *corev1.Pod) {
	withVolume("disk", corev1.VolumeSource{AWSElasticBlockStore: &corev1.AWSElasticBlockStoreVolumeSource{VolumeID: "vol-1"}})(p)
}

func withVolume(name string, source corev1.VolumeSource) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: name, VolumeSource: source})
	}
}

func claim(volume string) *corev1.PersistentVolumeClaim {
	return &corev1.PersistentVolumeClaim{Spec: corev1.PersistentVolumeClaimSpec{VolumeName: volume}}
}

func inZones(zones ...string) *corev1.PersistentVolume {
	return affine(corev1.NodeSelectorTerm{MatchExpressions: []corev1.NodeSelectorRequirement{oneOf(corev1.LabelTopologyZone, zones...)}})
}

func affine(terms ...corev1.NodeSelectorTerm) *corev1.PersistentVolume {
	pv := &corev1.PersistentVolume{}
	pv.Name = "pv"
	pv.Spec.NodeAffinity = &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: terms}}
	return pv
}

func term(zone, host string) corev1.NodeSelectorTerm {
	return corev1.NodeSelectorTerm{MatchExpressions: []corev1.NodeSelectorRequirement{oneOf(corev1.LabelHostname, host), oneOf(corev1.LabelTopologyZone, zone)}}
}

func oneOf(key string, values ...string) corev1.NodeSelectorRequirement {
	return corev1.NodeSelectorRequirement{Key: key, Operator: corev1.NodeSelectorOpIn, Values: values}
}

func labelled(zone string) *corev1.PersistentVolume {
	pv := &corev1.PersistentVolume{}
	pv.Labels = map[string]string{corev1.LabelTopologyZone: zone}
	return pv
}
