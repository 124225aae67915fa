package kube_test

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/temporal"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/fairway-project/fairway/activities/kube"
	"github.com/fairway-project/fairway/lab"
	"github.com/fairway-project/fairway/workflows"
)

// drain drains the first node and calls seen, unless it is nil, with each report.
func (s *scene) drain(seen func(workflows.DrainProgress), change ...func(*workflows.DrainNode)) (progress workflows.DrainProgress, err error) {
	s.Helper()
	s.worker.Heartbeat = func(details any) {
		if report, ok := details.(workflows.DrainProgress); ok && seen != nil {
			seen(report)
		}
	}
	in := workflows.DrainNode{
		Cluster: clusterID, Pool: s.name, Node: s.nodeName(0), Instance: s.instance(0), Started: time.Now(), By: "workflow",
	}
	for _, change := range change {
		change(&in)
	}
	err = s.worker.Run(s.activities.DrainNode, in, &progress)
	return progress, err
}

// crowd makes two nodes of which only the first takes pods, has them deployed there, and makes the
// second one take those that will leave.
func (s *scene) crowd(deploy func()) {
	s.Helper()
	s.makeReadyNodes(2)
	s.cordon(1, true)
	deploy()
	s.cordon(0, true)
	s.cordon(1, false)
}

func testDrainWithinBudget(t *testing.T, c cluster) {
	s := c.stage(t, "budgeted", "")
	s.crowd(func() {
		s.deployDaemonSet("agent", s.podTemplate("agent", nil))
		s.deploy("web", 4)
		s.deploy("job", 2)
		s.budget("web", "web", maxUnavailable(1))
		s.awaitReady("web", 4)
		s.awaitReady("job", 2)
		s.awaitReady("agent", 2)
		s.awaitBudget("web", 4)
	})
	watch, err := c.client.PolicyV1().PodDisruptionBudgets("budgeted").Watch(t.Context(), metav1.ListOptions{})
	s.must(err)
	defer watch.Stop()

	progress, err := s.drain(nil)
	s.must(err)
	require.Equal(t, workflows.DrainProgress{Total: 6, Evicted: 6, Refused: progress.Refused, Tried: progress.Tried}, progress)
	require.Empty(t, s.pods("web", 0))
	require.Empty(t, s.pods("job", 0))
	require.Len(t, s.pods("agent", 0), 1, "pods of DaemonSets stay")
	s.awaitReady("web", 4)
	s.awaitBudget("web", 4)
	for seen, healthy := 0, int32(0); healthy < 4 || seen < 5; seen++ { // one event for each change of a pod
		event := <-watch.ResultChan()
		budget := event.Object.(*policyv1.PodDisruptionBudget)
		healthy = budget.Status.CurrentHealthy
		require.GreaterOrEqual(t, healthy, int32(3), "the budget is never violated")
	}
	require.Equal(t, 6, s.evictions()[201])
	require.Equal(t, progress.Refused, s.evictions()[429])
	audit, err := c.lab.Audit(clusterID)
	s.must(err)
	require.Empty(t, audit.By("fairway").PodDeletions().Where(func(e lab.AuditEvent) bool { return e.Namespace == "budgeted" }))
}

// testDrainHeld also shows that the next worker goes on where the one before has stopped.
func testDrainHeld(t *testing.T, c cluster) {
	s := c.stage(t, "held", "")
	s.crowd(func() {
		s.deploy("free", 1)
		s.deploy("lonely", 1)
		s.deploy("twice", 1)
		s.budget("lonely", "lonely", minAvailable(1))
		s.budget("one", "twice", maxUnavailable(1))
		s.budget("two", "twice", maxUnavailable(1))
		for _, app := range []string{"free", "lonely", "twice"} {
			s.awaitReady(app, 1)
		}
		s.awaitBudget("lonely", 1)
	})
	stopping := make(chan struct{})
	stop := sync.OnceFunc(func() { close(stopping) })
	s.worker.Stopping = stopping
	var last workflows.DrainProgress
	_, err := s.drain(func(report workflows.DrainProgress) {
		last = report
		if report.Left == 2 && len(report.Waiting) == 2 {
			stop()
		}
	})
	requireError(t, err, workflows.Unreachable, false, "the worker stops; another one goes on")
	var application *temporal.ApplicationError
	require.ErrorAs(t, err, &application)
	require.Equal(t, temporal.ApplicationErrorCategoryBenign, application.Category())

	require.Equal(t, 3, last.Total)
	require.Equal(t, 1, last.Evicted)
	for i := range last.Waiting {
		last.Waiting[i].Pod = appOf(last.Waiting[i].Pod)
		require.NotZero(t, last.Waiting[i].Since)
		last.Waiting[i].Since, last.Waiting[i].ForceAt = time.Time{}, time.Time{}
	}
	require.Equal(t, []workflows.HeldPod{
		{Pod: "lonely", Budget: "lonely", Owner: "anchor", Reason: "the budget can never allow an eviction: it wants 1 of 1 pods healthy"},
		{Pod: "twice", Budget: "one", Owner: "anchor", Reason: "2 budgets cover the pod (one, two) and the API server evicts no such pod; leave one"},
	}, last.Waiting)
	require.Equal(t, map[int]int{201: 1}, s.evictions(), "what cannot be evicted is not tried")

	for _, budget := range []string{"lonely", "one", "two"} {
		s.must(c.client.PolicyV1().PodDisruptionBudgets("held").Delete(t.Context(), budget, metav1.DeleteOptions{}))
	}
	s.worker.Stopping = nil
	progress, err := s.drain(nil)
	s.must(err)
	require.Zero(t, progress.Left)
	require.Empty(t, s.pods("lonely", 0))
	require.Empty(t, s.pods("twice", 0))
}

func testDrainGoesOn(t *testing.T, c cluster) {
	s := c.stage(t, "patient", "")
	s.crowd(func() {
		s.deploy("web", 2)
		s.budget("web", "web", maxUnavailable(0))
		s.awaitReady("web", 2)
		s.awaitBudget("web", 2)
	})
	widened := false
	_, err := s.drain(func(report workflows.DrainProgress) {
		if len(report.Waiting) == 2 && !widened {
			widened = true
			_, err := c.client.PolicyV1().PodDisruptionBudgets("patient").Patch(t.Context(), "web", types.MergePatchType,
				[]byte(`{"spec":{"maxUnavailable":1}}`), metav1.PatchOptions{})
			s.must(err)
		}
	})
	s.must(err)
	require.True(t, widened)
	require.Empty(t, s.pods("web", 0))
}

func testDrainUnready(t *testing.T, c cluster) {
	s := c.stage(t, "unready", "")
	s.crowd(func() {
		s.deploy("web", 1, func(d *appsv1.Deployment) {
			d.Name, d.Spec.Selector.MatchLabels = "a", map[string]string{"never": "ready"}
			d.Spec.Template.Labels["never"] = "ready"
			d.Spec.Template.Annotations = map[string]string{lab.NotReadyAnnotation: "true"}
		})
		s.deploy("web", 2, func(d *appsv1.Deployment) {
			d.Name, d.Spec.Selector.MatchLabels = "b", map[string]string{"soon": "ready"}
			d.Spec.Template.Labels["soon"] = "ready"
		})
		s.budget("web", "web", maxUnavailable(2)) // its status stays the same when a goes and comes
		s.awaitRunning("web", 3)
		s.awaitReady("web", 2)
		s.awaitBudget("web", 2)
	})
	progress, err := s.drain(nil)
	s.must(err)
	require.Equal(t, 3, progress.Evicted)
	require.Empty(t, s.pods("web", 0))
}

// held makes a scene whose first node cannot be emptied.
func (c cluster) held(t *testing.T, name, settings string) *scene {
	s := c.stage(t, name, settings)
	s.crowd(func() {
		s.deploy("lonely", 1)
		s.budget("lonely", "lonely", minAvailable(1))
		s.awaitReady("lonely", 1)
		s.awaitBudget("lonely", 1)
	})
	return s
}

func testDrainVanished(t *testing.T, c cluster) {
	s := c.held(t, "vanished", "")
	vanished := false
	_, err := s.drain(func(report workflows.DrainProgress) {
		if len(report.Waiting) == 1 && !vanished {
			vanished = true
			s.deleteNode(0)
		}
	})
	s.must(err)
	require.True(t, vanished)
}

func testDrainOtherInstance(t *testing.T, c cluster) {
	s := c.stage(t, "namesake", "")
	s.makeReadyNodes(1)
	s.deploy("web", 1)
	s.awaitReady("web", 1)
	s.must(s.worker.Run(s.activities.DrainNode, workflows.DrainNode{
		Cluster: clusterID, Pool: s.name, Node: s.nodeName(0), Instance: "i-former", Started: time.Now(),
	}, nil))
	require.Len(t, s.pods("web", 0), 1)
	require.Empty(t, s.evictions())
}

func testDrainCancelled(t *testing.T, c cluster) {
	s := c.held(t, "cancelled", "")
	ctx, cancel := context.WithCancel(t.Context())
	s.worker.Context = ctx
	_, err := s.drain(func(report workflows.DrainProgress) {
		if len(report.Waiting) == 1 {
			cancel()
		}
	})
	require.ErrorContains(t, err, "canceled")
	require.Len(t, s.pods("lonely", 0), 1)
}

func testDrainBlocked(t *testing.T, c cluster) {
	s := c.stage(t, "blocked", "")
	s.crowd(func() {
		s.deploy("web", 2)
		s.awaitReady("web", 2)
	})
	s.blocks.set(workflows.Block{ID: "1", Pool: "blocked", Reason: "audit", By: "anna", Since: time.Now().Add(-time.Minute)})
	var reasons []string
	progress, err := s.drain(func(report workflows.DrainProgress) {
		if report.Blocked == "" {
			return
		}
		require.Zero(t, report.Evicted)
		require.Empty(t, s.evictions())
		reasons = append(reasons, report.Blocked)
		s.blocks.set()
	})
	s.must(err)
	require.Contains(t, strings.Join(reasons, "\n"), "audit")
	require.Empty(t, progress.Blocked)
	require.Equal(t, 2, progress.Evicted)
}

func testDrainForce(t *testing.T, c cluster) {
	s := c.held(t, "forced", "drain: {environments: {test: {force_after: 4s, warn_before: 4s, deadline: 4s}}}\n")
	victim := s.pods("lonely", 0)[0]
	hook := &listener{}
	s.activities.Notify = hook.notify
	start := time.Now()
	progress, err := s.drain(nil)
	s.must(err)
	require.Less(t, time.Since(start), 20*time.Second, "nobody waits for a hook that does not answer")
	require.Len(t, progress.Forced, 1)
	forced := progress.Forced[0]
	require.Equal(t, "forced/"+victim.Name, forced.Pod)
	require.Equal(t, string(victim.UID), forced.UID)
	require.Equal(t, "lonely", forced.Budget)
	require.Equal(t, "anchor", forced.Owner)
	require.Contains(t, forced.Reason, "the budget can never allow an eviction")
	require.Contains(t, forced.Authority, "force_after = 4s")

	var recorded []workflows.ForcedPod
	s.must(json.Unmarshal([]byte(s.node(0).Annotations[kube.ForcedPods]), &recorded))
	require.Len(t, recorded, 1)
	require.Equal(t, forced.UID, recorded[0].UID)
	events, err := c.client.CoreV1().Events("forced").List(t.Context(), metav1.ListOptions{})
	s.must(err)
	for _, reason := range []string{"FairwayForceSoon", "FairwayForced"} {
		require.True(t, slices.ContainsFunc(events.Items, func(e corev1.Event) bool {
			return e.Reason == reason && e.InvolvedObject.Kind == "Pod" && e.InvolvedObject.Name == victim.Name
		}), "there is no event %s", reason)
	}
	s.requireTold(hook, victim)
}
