package kube_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/fairway-project/fairway/activities/kube"
	"github.com/fairway-project/fairway/drain"
	"github.com/fairway-project/fairway/workflows"
)

// lone makes a scene with a lone replica on the first node, whose owner wants a second one first.
// The second node takes pods only if it is open.
func (c cluster) lone(t *testing.T, name string, open bool) *scene {
	s := c.stage(t, name, "")
	s.crowd(func() {
		s.deploy("lonely", 1, func(d *appsv1.Deployment) {
			d.Spec.Template.Annotations = map[string]string{drain.Surge: "true"}
		})
		s.budget("lonely", "lonely", minAvailable(1))
		s.awaitReady("lonely", 1)
		s.awaitBudget("lonely", 1)
	})
	s.cordon(1, !open)
	return s
}

func (s *scene) replicas() int32 {
	s.Helper()
	deployment, err := s.client.AppsV1().Deployments(s.name).Get(s.Context(), "lonely", metav1.GetOptions{})
	s.must(err)
	return *deployment.Spec.Replicas
}

func (s *scene) requireSettled() {
	s.Helper()
	require.Equal(s, int32(1), s.replicas())
	require.NotContains(s, s.node(0).Annotations, kube.SurgedWorkloads)
}

func testDrainSurges(t *testing.T, c cluster) {
	s := c.lone(t, "surged", true)
	waited, recorded := "", ""
	watch, err := c.client.PolicyV1().PodDisruptionBudgets("surged").Watch(t.Context(), metav1.ListOptions{})
	s.must(err)
	defer watch.Stop()
	progress, err := s.drain(func(report workflows.DrainProgress) {
		if len(report.Waiting) == 1 && waited == "" {
			waited = report.Waiting[0].Reason
		}
		if recorded == "" {
			recorded = s.node(0).Annotations[kube.SurgedWorkloads]
		}
	})
	s.must(err)
	require.Contains(t, waited, "it waits for its second replica")
	require.Equal(t, 1, progress.Evicted)
	require.Empty(t, progress.Forced)
	var record []map[string]any
	s.must(json.Unmarshal([]byte(recorded), &record))
	require.Len(t, record, 1)
	require.Equal(t, []any{"surged", "lonely", 1.0}, []any{record[0]["namespace"], record[0]["deployment"], record[0]["from"]})
	s.requireSettled()
	s.awaitReady("lonely", 1)
	require.Len(t, s.pods("lonely", 1), 1)
	audit, err := c.lab.Audit(clusterID)
	s.must(err)
	for _, event := range audit.By("fairway") {
		if event.Namespace == "surged" {
			require.NotEqual(t, "delete", event.Verb)
		}
	}
}

func testDrainSurgeCancelled(t *testing.T, c cluster) {
	s := c.lone(t, "surgecancelled", false)
	ctx, cancel := context.WithCancel(t.Context())
	s.worker.Context = ctx
	_, err := s.drain(func(workflows.DrainProgress) {
		if s.replicas() == 2 {
			cancel()
		}
	})
	require.ErrorContains(t, err, "canceled")
	s.requireSettled()
	require.Len(t, s.pods("lonely", 0), 1)
}

// crashed leaves a scene as a worker does that dies while a second replica is waited for.
func (s *scene) crashed() {
	s.Helper()
	stopping := make(chan struct{})
	s.worker.Stopping = stopping
	stopped := false
	_, err := s.drain(func(workflows.DrainProgress) {
		if !stopped && s.replicas() == 2 {
			stopped = true
			close(stopping)
		}
	})
	requireError(s, err, workflows.Unreachable, false, "the worker stops")
	s.worker.Stopping = nil
	require.Equal(s, int32(2), s.replicas())
	require.Contains(s, s.node(0).Annotations, kube.SurgedWorkloads)
}

func testUncordonSurged(t *testing.T, c cluster) {
	s := c.lone(t, "surgecrashed", false)
	s.crashed()
	for range 2 {
		s.must(s.change(s.activities.UncordonNode, s.mark(0, "workflow")))
		s.requireSettled()
	}
	s.eventually("the second replica goes", func() bool { return len(s.pods("lonely", -1)) == 1 })
	require.Len(t, s.pods("lonely", 0), 1)
}

// testDrainSurgeGoesOn also shows that a drain which is given up gives workloads their size back.
func testDrainSurgeGoesOn(t *testing.T, c cluster) {
	s := c.lone(t, "surgeon", false)
	s.crashed()
	progress, err := s.drain(nil, func(in *workflows.DrainNode) { in.GiveUpAfter = time.Second })
	s.must(err)
	require.True(t, progress.GaveUp)
	require.Contains(t, progress.Waiting[0].Reason, "it waits for its second replica")
	s.requireSettled()

	s.crashed()
	s.cordon(1, false)
	progress, err = s.drain(nil)
	s.must(err)
	require.Zero(t, progress.Left)
	s.requireSettled()
	s.eventually("one replica is left", func() bool {
		pods := s.pods("lonely", -1)
		return len(pods) == 1 && podReady(pods[0])
	})
}

func testSurgedByAnother(t *testing.T, c cluster) {
	s := c.lone(t, "surgeother", false)
	s.crashed()
	_, err := c.client.AppsV1().Deployments(s.name).Patch(t.Context(), "lonely", types.MergePatchType, []byte(`{"spec":{"replicas":3}}`), metav1.PatchOptions{})
	s.must(err)
	s.must(s.change(s.activities.UncordonNode, s.mark(0, "workflow")))
	require.Equal(t, int32(3), s.replicas())
	require.NotContains(t, s.node(0).Annotations, kube.SurgedWorkloads)
}

func testDrainSurgeImpossible(t *testing.T, c cluster) {
	s := c.stage(t, "surgebare", "")
	s.crowd(func() {
		_, err := c.client.AppsV1().ReplicaSets(s.name).Create(t.Context(), &appsv1.ReplicaSet{
			ObjectMeta: metav1.ObjectMeta{Name: "bare"},
			Spec: appsv1.ReplicaSetSpec{
				Replicas: new(int32(1)), Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "bare"}},
				Template: s.podTemplate("bare", map[string]string{drain.Surge: "true"}),
			},
		}, metav1.CreateOptions{})
		s.must(err)
		s.awaitReady("bare", 1)
	})
	progress, err := s.drain(nil)
	s.must(err)
	require.Equal(t, 1, progress.Evicted)
	require.NotContains(t, s.node(0).Annotations, kube.SurgedWorkloads)
}

// testUnmarkSurged has a Deployment that cannot be scaled for a while.
func testUnmarkSurged(t *testing.T, c cluster) {
	s := c.lone(t, "unsettled", false)
	s.must(s.change(s.activities.CordonNode, s.mark(1, workflows.ReplaceNodeID(clusterID, s.nodeName(1)))))
	s.crashed()
	s.must(s.markNodes(0, 1))
	settling := s.activities
	s.activities = newActivities(t, c.front(t, func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, "/scale") {
			return false
		}
		refuse(apierrors.NewForbidden(schema.GroupResource{Resource: "deployments"}, "lonely", errors.New("a freeze")))(w)
		return true
	}), "", s.blocks)

	for range 2 {
		requireError(t, s.unmarkNodes(s.rollID()), workflows.AccessDenied, false, "a freeze")
		for i := range 2 {
			require.NotContains(t, s.taints(i), outdated)
		}
		require.Equal(t, s.rollID(), s.annotation(0, kube.RolledBy), "the next attempt has to find it")
		require.NotContains(t, s.node(1).Annotations, kube.RolledBy)
	}
	s.cordon(0, false)
	s.must(s.change(s.activities.CordonNode, s.mark(0, "workflow")))
	requireError(t, s.change(s.activities.UncordonNode, s.mark(0, "workflow")), workflows.AccessDenied, false, "a freeze")
	require.False(t, s.node(0).Spec.Unschedulable)

	s.activities = settling
	s.must(s.unmarkNodes(s.rollID()))
	require.NotContains(t, s.node(0).Annotations, kube.RolledBy)
	s.requireSettled()
}
