package kube

import (
	"context"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairway-project/fairway/drain"
	"github.com/fairway-project/fairway/workflows"
)

// Preflight implements workflows.Kubernetes.
func (a *Activities) Preflight(ctx context.Context, in workflows.Preflight) ([]workflows.Finding, error) {
	s, err := a.survey(ctx, in.Cluster, in.Pool)
	if err != nil {
		return nil, err
	}
	zones := map[string]string{}
	for _, node := range s.nodes {
		zones[node.Name] = node.Labels[corev1.LabelTopologyZone]
		s.state.Pods = append(s.state.Pods, s.podsOn[node.Name]...)
	}
	found := drain.Preflight(s.state, s.volumes, in.Zones, zones)
	out := make([]workflows.Finding, len(found))
	for i, each := range found {
		out[i] = workflows.Finding(each)
	}
	return out, nil
}
