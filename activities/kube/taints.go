package kube

import (
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// startupTaints are the keys, and startupPrefixes the beginnings of keys, of taints that agents take
// off a new node when they are ready for pods.
var (
	startupTaints = []string{
		corev1.TaintNodeNotReady,                         // the node life cycle controller takes it off a moment after the node is Ready
		corev1.TaintNodeUnreachable,                      // the same
		"node.cilium.io/agent-not-ready",                 // https://docs.cilium.io/en/stable/installation/taints/
		"ebs.csi.aws.com/agent-not-ready",                // https://github.com/kubernetes-sigs/aws-ebs-csi-driver/blob/master/docs/install.md
		"efs.csi.aws.com/agent-not-ready",                // the same for EFS
		"node.cloudprovider.kubernetes.io/uninitialized", // https://kubernetes.io/docs/reference/labels-annotations-taints/
		"zalando.org/node-not-ready",                     // of the kube-node-ready-controller
		"karpenter.sh/unregistered",
		"node.istio.io/cni-not-ready",
	}
	startupPrefixes = []string{ // https://github.com/kubernetes/autoscaler/blob/master/cluster-autoscaler/FAQ.md
		"startup-taint.cluster-autoscaler.kubernetes.io/", "ignore-taint.cluster-autoscaler.kubernetes.io/",
	}
)

func isStartupTaint(key string) bool {
	return slices.Contains(startupTaints, key) ||
		slices.ContainsFunc(startupPrefixes, func(prefix string) bool { return strings.HasPrefix(key, prefix) })
}

// startupTaint is a taint that keeps pods off a new node and that will go: a known one, or one that
// no node of the pool has which was there before the new one was asked for. Where nothing else tells,
// a taint belongs to the pool. One that stays for half the time that a node may take to become
// usable is taken for one that its pool has got meanwhile. Taints of pressure are not meant: they
// come and go with what runs on the node.
func (a *Activities) startupTaint(v *view, node *corev1.Node, asked time.Time) *corev1.Taint {
	label := a.Clusters.Settings.PoolLabel
	var older []*corev1.Node
	for _, other := range v.allNodes() {
		if other.Name != node.Name && other.Labels[label] != "" && other.Labels[label] == node.Labels[label] && other.CreationTimestamp.Time.Before(asked) {
			older = append(older, other)
		}
	}
	patient := time.Since(asked) < a.Settings.NodeReadyWithin/2
	for i := range node.Spec.Taints {
		taint := &node.Spec.Taints[i]
		if taint.Effect == corev1.TaintEffectPreferNoSchedule {
			continue
		}
		has := func(other *corev1.Node) bool {
			return slices.ContainsFunc(other.Spec.Taints, func(t corev1.Taint) bool { return t.Key == taint.Key && t.Effect == taint.Effect })
		}
		unusual := patient && !toleratedByDefault[taint.Key] && len(older) > 0 && !slices.ContainsFunc(older, has)
		if isStartupTaint(taint.Key) || unusual {
			return taint
		}
	}
	return nil
}
