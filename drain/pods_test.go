package drain_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairway-project/fairway/drain"
)

func TestMustLeave(t *testing.T) {
	for rule, test := range map[string]struct {
		pod  *corev1.Pod
		want bool
	}{
		"a pod of a ReplicaSet leaves":                 {pod("p", ownedBy("ReplicaSet")), true},
		"a pod that nobody owns leaves":                {pod("p"), true},
		"a pending pod leaves":                         {pod("p", inPhase(corev1.PodPending)), true},
		"a terminating pod is not gone yet":            {pod("p", terminating), true},
		"a pod of a DaemonSet stays":                   {pod("p", ownedBy("DaemonSet")), false},
		"a terminating pod of a DaemonSet stays":       {pod("p", ownedBy("DaemonSet"), terminating), false},
		"a pod that a DaemonSet only refers to leaves": {pod("p", referredToBy("DaemonSet")), true},
		"a mirror pod stays":                           {pod("p", mirror, ownedBy("Node")), false},
		"a pod that succeeded stays":                   {pod("p", inPhase(corev1.PodSucceeded)), false},
		"a pod that failed stays":                      {pod("p", inPhase(corev1.PodFailed)), false},
	} {
		t.Run(rule, func(t *testing.T) { require.Equal(t, test.want, drain.MustLeave(test.pod)) })
	}
}

func TestReady(t *testing.T) {
	require.True(t, drain.Ready(pod("p")))
	require.False(t, drain.Ready(pod("p", notReady)))
	require.False(t, drain.Ready(pod("p", unknownReadiness)), "without a condition nothing is known")
}

func TestOwner(t *testing.T) {
	labels := func(pairs ...string) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			p.Labels = map[string]string{}
			for i := 0; i < len(pairs); i += 2 {
				p.Labels[pairs[i]] = pairs[i+1]
			}
		}
	}
	for rule, test := range map[string]struct {
		pod  *corev1.Pod
		want string
	}{
		"the label owner comes first":         {pod("p", labels("application", "shop", "team", "anchor", "owner", "anna")), "anna"},
		"then the team":                       {pod("p", labels("application", "shop", "team", "anchor")), "anchor"},
		"then the application":                {pod("p", labels("application", "shop"), ownedBy("ReplicaSet")), "shop"},
		"an empty label names nobody":         {pod("p", labels("owner", "", "team", "anchor")), "anchor"},
		"without labels it is the controller": {pod("p", ownedBy("StatefulSet")), "StatefulSet p"},
		"a pod may have no owner":             {pod("p"), ""},
	} {
		t.Run(rule, func(t *testing.T) { require.Equal(t, test.want, drain.Owner(test.pod)) })
	}
}

func referredToBy(kind string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.OwnerReferences = append(p.OwnerReferences, metav1.OwnerReference{Kind: kind, Name: p.Name})
	}
}
