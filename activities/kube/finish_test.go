package kube_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairway-project/fairway/activities/kube"
	"github.com/fairway-project/fairway/drain"
	"github.com/fairway-project/fairway/workflows"
)

// testDrainEmptyBlocked has nothing to evict, so that only the end of the drain is blocked: in turn
// for a node that stays cordoned, and for one that takes pods meanwhile.
func testDrainEmptyBlocked(t *testing.T, c cluster) {
	for name, settings := range map[string]string{"emptyblocked": "", "emptyopened": opening} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := c.stage(t, name, settings)
			s.makeReadyNodes(1)
			s.must(s.change(s.activities.CordonNode, s.mark(0, "workflow")))
			s.blocks.set(workflows.Block{ID: "1", Reason: "audit", By: "anna", Since: time.Now()})
			seen := 0
			progress, err := s.drain(func(report workflows.DrainProgress) {
				if report.Blocked == "" {
					return
				}
				require.Zero(t, report.Left)
				if seen++; seen < 3 {
					return
				}
				require.Equal(t, settings == "", s.node(0).Spec.Unschedulable)
				s.blocks.set()
			})
			s.must(err)
			require.GreaterOrEqual(t, seen, 3)
			require.Empty(t, progress.Blocked)
			require.True(t, s.node(0).Spec.Unschedulable)
		})
	}
}

// testDrainVanishedBlocked shows that the end of a node is no way around a block either: its
// instance may go on without it.
func testDrainVanishedBlocked(t *testing.T, c cluster) {
	s := c.stage(t, "goneblocked", "")
	s.blocks.set(workflows.Block{ID: "1", Reason: "audit", By: "anna", Since: time.Now()})
	seen := 0
	_, err := s.drain(func(report workflows.DrainProgress) {
		if report.Blocked != "" {
			if seen++; seen == 2 {
				s.blocks.set()
			}
		}
	})
	s.must(err)
	require.Equal(t, 2, seen)
}

func testDrainCordonsAgain(t *testing.T, c cluster) {
	s := c.held(t, "reopened", "")
	opened := false
	progress, err := s.drain(func(report workflows.DrainProgress) {
		if len(report.Waiting) == 1 && !opened {
			opened = true
			s.cordon(0, false)
			s.must(c.client.PolicyV1().PodDisruptionBudgets(s.name).Delete(t.Context(), "lonely", metav1.DeleteOptions{}))
		}
	})
	s.must(err)
	require.True(t, opened)
	require.Zero(t, progress.Left)
	require.True(t, s.node(0).Spec.Unschedulable, "what is empty takes no pods")
	require.Equal(t, "workflow", s.annotation(0, kube.CordonedBy), "so that a cancel undoes it")
}

// testDrainConfirmed has the API server know of a pod that no watch has shown yet.
func testDrainConfirmed(t *testing.T, c cluster) {
	var mu sync.Mutex
	asked := 0
	s := c.stage(t, "confirmed", "")
	kubeconfig := c.front(t, func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodGet || !strings.Contains(r.URL.Query().Get("fieldSelector"), "spec.nodeName=confirmed-0") {
			return false
		}
		mu.Lock()
		defer mu.Unlock()
		if asked++; asked > 1 {
			return false
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(corev1.PodList{
			TypeMeta: metav1.TypeMeta{Kind: "PodList", APIVersion: "v1"},
			Items:    []corev1.Pod{{ObjectMeta: metav1.ObjectMeta{Namespace: "confirmed", Name: "late"}}},
		})
		return true
	})
	s.activities = newActivities(t, kubeconfig, "", s.blocks)
	s.crowd(func() {
		s.deploy("web", 1)
		s.awaitReady("web", 1)
	})
	progress, err := s.drain(nil)
	s.must(err)
	require.Equal(t, 1, progress.Evicted)
	mu.Lock()
	defer mu.Unlock()
	require.Equal(t, 2, asked)
}

// spread runs two replicas of which nothing lets either go, each on a node of its own.
func (c cluster) spread(t *testing.T, name string, change func(*appsv1.Deployment)) *scene {
	s := c.stage(t, name, "")
	s.makeReadyNodes(2)
	s.deploy("web", 2, func(d *appsv1.Deployment) {
		d.Spec.Template.Spec.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{
			RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{{LabelSelector: d.Spec.Selector, TopologyKey: corev1.LabelHostname}},
		}}
		change(d)
	})
	s.awaitReady("web", 2)
	s.cordon(0, true)
	s.cordon(1, true)
	return s
}

// requireInTurn has two workers drain the nodes of a scene at the same time. Both pods are due at
// the same moment, and past the deadline, so that nothing but the interval keeps them apart.
func (s *scene) requireInTurn() {
	s.Helper()
	const settings = "drain: {environments: {test: {force_after: 4s, warn_before: 1s, deadline: 4s, force_interval: 6s}}}\n"
	started := time.Now()
	var drains sync.WaitGroup
	var progress [2]workflows.DrainProgress
	var errs [2]error
	for i := range 2 {
		worker := newActivities(s.T, s.kubeconfig, settings, s.blocks)
		drains.Go(func() {
			errs[i] = s.worker.Run(worker.DrainNode, workflows.DrainNode{
				Cluster: clusterID, Pool: s.name, Node: s.nodeName(i), Instance: s.instance(i), Started: started, By: "workflow",
			}, &progress[i])
		})
	}
	drains.Wait()
	for i := range 2 {
		s.must(errs[i])
		require.Len(s, progress[i].Forced, 1)
		require.GreaterOrEqual(s, progress[i].Tried, 4*time.Second)
	}
	apart := progress[0].Forced[0].At.Sub(progress[1].Forced[0].At).Abs()
	require.GreaterOrEqual(s, apart, 5*time.Second, "the interval lies between them, records are exact to the second")
	require.Less(s, apart, 20*time.Second)
}

func testForcesOfABudget(t *testing.T, c cluster) {
	s := c.spread(t, "turns", func(*appsv1.Deployment) {})
	s.budget("web", "web", maxUnavailable(0))
	s.awaitBudget("web", 2)
	s.requireInTurn()
	budget, err := c.client.PolicyV1().PodDisruptionBudgets(s.name).Get(t.Context(), "web", metav1.GetOptions{})
	s.must(err)
	require.Contains(t, budget.Annotations[kube.LastForced], `"node":"turns-`)
}

func testForcesOfAWorkload(t *testing.T, c cluster) {
	c.spread(t, "turnsfree", func(d *appsv1.Deployment) {
		d.Spec.Template.Annotations = map[string]string{drain.DoNotDisrupt: "true"}
	}).requireInTurn()
}

// testForceRecordStays has a node whose earlier drain, which was cancelled, forced a pod.
func testForceRecordStays(t *testing.T, c cluster) {
	s := c.held(t, "recorded", "drain: {environments: {test: {force_after: 1s, warn_before: 0s, deadline: 1s, force_interval: 1h}}}\n")
	former := workflows.ForcedPod{Pod: "recorded/former", UID: "former", At: time.Now().Add(-time.Minute)}
	record, err := json.Marshal([]workflows.ForcedPod{former})
	s.must(err)
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": map[string]string{kube.ForcedPods: string(record)}}})
	s.must(err)
	s.patchNode(0, string(patch))
	progress, err := s.drain(nil, func(in *workflows.DrainNode) { in.Tried, in.GiveUpAfter = time.Hour, time.Hour+2*time.Second })
	s.must(err)
	require.True(t, progress.GaveUp)
	require.Empty(t, progress.Forced, "it was told by the drain that did it")
	require.Contains(t, progress.Waiting[0].Reason, "another pod of the node was just forced", "and still counts for the interval")
	require.GreaterOrEqual(t, progress.Tried, 2*time.Second)
	require.Less(t, progress.Tried, time.Minute)
}
