package kube

import (
	"context"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"github.com/fairway-project/fairway/drain"
	"github.com/fairway-project/fairway/workflows"
)

// SurveyPool implements workflows.Kubernetes.
func (a *Activities) SurveyPool(ctx context.Context, in workflows.SurveyPool) ([]workflows.Node, error) {
	s, err := a.survey(ctx, in.Cluster, in.Pool)
	if err != nil {
		return nil, err
	}
	out := make([]workflows.Node, len(s.nodes))
	for i, node := range s.nodes {
		state := s.state
		state.Pods = s.podsOn[node.Name]
		hard := drain.Assess(state, s.volumes, node.Labels[corev1.LabelTopologyZone])
		out[i] = a.describe(node, hard.Pods)
		out[i].Held, out[i].Never, out[i].Pinned = hard.Held, hard.Never, hard.Pinned
	}
	return out, nil
}

// survey is a look at a pool from the outside, before anything of it is watched.
type survey struct {
	nodes   []*corev1.Node // of the pool, by name
	podsOn  map[string][]*corev1.Pod
	volumes drain.Volumes
	state   drain.State // of the cluster, so without pods
}

// survey lists everything once. Where lists come from the API server's memory they may be some
// moments old, which a look at what changes all the time may be.
func (a *Activities) survey(ctx context.Context, name, pool string) (*survey, error) {
	c, err := a.Clusters.get(ctx, name)
	if err != nil {
		return nil, err
	}
	entry, err := a.Clusters.Find(ctx, name)
	if err != nil {
		return nil, err
	}
	policy, err := a.Drain.Policy(entry, pool)
	if err != nil {
		return nil, invalid("%v", err)
	}
	group, groupCtx := errgroup.WithContext(ctx)
	core, memory := c.client.CoreV1(), metav1.ListOptions{ResourceVersion: "0"}
	var nodes *corev1.NodeList
	var pods *corev1.PodList
	var budgets *policyv1.PodDisruptionBudgetList
	var claims *corev1.PersistentVolumeClaimList
	var persistent *corev1.PersistentVolumeList
	group.Go(func() (err error) {
		nodes, err = core.Nodes().List(groupCtx, metav1.ListOptions{LabelSelector: labels.Set{a.Clusters.Settings.PoolLabel: pool}.String()})
		return c.explain("listing nodes", err)
	})
	group.Go(func() (err error) {
		pods, err = core.Pods("").List(groupCtx, memory)
		return c.explain("listing pods", err)
	})
	group.Go(func() (err error) {
		budgets, err = c.client.PolicyV1().PodDisruptionBudgets("").List(groupCtx, memory)
		return c.explain("listing budgets", err)
	})
	group.Go(func() (err error) {
		claims, err = core.PersistentVolumeClaims("").List(groupCtx, memory)
		return c.explain("listing volume claims", err)
	})
	group.Go(func() (err error) {
		persistent, err = core.PersistentVolumes().List(groupCtx, memory)
		return c.explain("listing volumes", err)
	})
	if err := group.Wait(); err != nil {
		return nil, err
	}

	now := time.Now()
	s := &survey{
		nodes:  pointers(nodes.Items),
		podsOn: map[string][]*corev1.Pod{},
		volumes: drain.Volumes{
			Claims: map[types.NamespacedName]*corev1.PersistentVolumeClaim{}, Persistent: map[string]*corev1.PersistentVolume{},
		},
		state: drain.State{
			Now: now, Started: now, Policy: policy, Budgets: pointers(budgets.Items), Evicted: c.departed.known(now),
			Siblings: drain.SiblingsOf(pointers(pods.Items)),
		},
	}
	slices.SortFunc(s.nodes, func(a, b *corev1.Node) int { return strings.Compare(a.Name, b.Name) })
	for _, pod := range pointers(pods.Items) {
		s.podsOn[pod.Spec.NodeName] = append(s.podsOn[pod.Spec.NodeName], pod)
	}
	for _, claim := range pointers(claims.Items) {
		s.volumes.Claims[types.NamespacedName{Namespace: claim.Namespace, Name: claim.Name}] = claim
	}
	for _, volume := range pointers(persistent.Items) {
		s.volumes.Persistent[volume.Name] = volume
	}
	return s, nil
}
