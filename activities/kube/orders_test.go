package kube_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairway-project/fairway/activities/kube"
	"github.com/fairway-project/fairway/workflows"
)

func (s *scene) order(mode workflows.ForceMode, pod string) workflows.ForceOrder {
	return workflows.ForceOrder{ID: string(mode), Node: s.nodeName(0), Pod: pod, Mode: mode, By: "anna", Reason: "we said so", At: time.Now()}
}

func testDrainOrders(t *testing.T, c cluster) {
	s := c.stage(t, "ordered", "drain: {environments: {test: {force_after: 1ms, warn_before: 0s, deadline: 1ms}}}\n")
	s.crowd(func() {
		s.deploy("lonely", 1)
		s.budget("lonely", "lonely", minAvailable(1))
		s.awaitReady("lonely", 1)
		s.awaitBudget("lonely", 1)
	})
	pod := "ordered/" + s.pods("lonely", 0)[0].Name
	s.blocks.order(s.order(workflows.ForceForbid, pod))
	var held workflows.HeldPod
	var turned time.Time
	progress, err := s.drain(func(report workflows.DrainProgress) {
		if len(report.Waiting) == 1 && turned.IsZero() {
			held, turned = report.Waiting[0], time.Now()
			s.blocks.order(s.order(workflows.ForceNow, ""))
		}
	})
	s.must(err)
	require.Contains(t, held.Reason, "anna forbade to force it: we said so")
	require.Zero(t, held.ForceAt)
	require.Less(t, time.Since(turned), 10*time.Second)
	require.Len(t, progress.Forced, 1)
	require.Equal(t, pod, progress.Forced[0].Pod)
	require.Equal(t, "anna: we said so", progress.Forced[0].Authority)
	require.Contains(t, progress.Forced[0].Reason, "as ordered")
}

func testDrainOldOrders(t *testing.T, c cluster) {
	s := c.held(t, "oldorders", "drain: {environments: {test: {force_after: 0s, warn_before: 0s, deadline: 0s}}}\n")
	order := s.order(workflows.ForceNow, "")
	order.At = s.node(0).CreationTimestamp.Add(-time.Second)
	s.blocks.order(order)
	other := s.order(workflows.ForceNow, "")
	other.Node = s.nodeName(1)
	s.blocks.order(other)
	progress, err := s.drain(nil, func(in *workflows.DrainNode) { in.GiveUpAfter = 2 * time.Second })
	s.must(err)
	require.True(t, progress.GaveUp)
	require.Empty(t, progress.Forced)
	require.Len(t, s.pods("lonely", 0), 1)
}

const opening = "drain: {on_block: uncordon}\n"

func testDrainOpens(t *testing.T, c cluster) {
	s := c.held(t, "opened", opening)
	s.cordon(0, false)
	s.must(s.change(s.activities.CordonNode, s.mark(0, "workflow")))
	step := "held"
	progress, err := s.drain(func(report workflows.DrainProgress) {
		node := s.node(0)
		switch {
		case step == "held" && len(report.Waiting) == 1:
			require.True(t, node.Spec.Unschedulable)
			s.blocks.set(workflows.Block{ID: "1", Reason: "audit", By: "anna", Since: time.Now()})
			step = "blocked"
		case step == "blocked" && !node.Spec.Unschedulable:
			require.Contains(t, report.Blocked, "audit")
			require.Equal(t, "workflow", node.Annotations[kube.CordonedBy])
			// Meanwhile the budget lets the pod go: nothing happens until the block is over.
			s.must(c.client.PolicyV1().PodDisruptionBudgets("opened").Delete(t.Context(), "lonely", metav1.DeleteOptions{}))
			s.blocks.set()
			step = "free"
		}
	})
	s.must(err)
	require.Equal(t, "free", step)
	require.Equal(t, 1, progress.Evicted)
	require.Empty(t, progress.Blocked)
	require.True(t, s.node(0).Spec.Unschedulable, "the node is cordoned again")

	audit, err := c.lab.Audit(clusterID)
	s.must(err)
	closed, evicted := 0, 0
	for i, event := range audit.By("fairway") {
		switch {
		case event.Resource == "nodes" && event.Verb == "patch" && event.Name == s.nodeName(0):
			closed = i
		case event.Subresource == "eviction" && event.Namespace == "opened":
			evicted = i
		}
	}
	require.Less(t, closed, evicted, "the node is cordoned before the next eviction")
}

func testDrainStaysClosed(t *testing.T, c cluster) {
	s := c.held(t, "closed", opening) // cordoned by a person
	s.blocks.set(workflows.Block{ID: "1", Reason: "audit", By: "anna", Since: time.Now()})
	ctx, cancel := context.WithCancel(t.Context())
	s.worker.Context = ctx
	seen := 0
	_, err := s.drain(func(report workflows.DrainProgress) {
		if report.Blocked != "" {
			if seen++; seen == 2 {
				cancel()
			}
		}
	})
	require.ErrorContains(t, err, "canceled")
	require.True(t, s.node(0).Spec.Unschedulable)
	require.Empty(t, s.node(0).Annotations[kube.CordonedBy])
}

func testDrainGivesUp(t *testing.T, c cluster) {
	s := c.held(t, "givenup", "")
	start := time.Now()
	progress, err := s.drain(nil, func(in *workflows.DrainNode) { in.GiveUpAfter = 2 * time.Second })
	s.must(err)
	require.True(t, progress.GaveUp)
	require.Equal(t, 1, progress.Left)
	require.Len(t, progress.Waiting, 1)
	require.Equal(t, "lonely", progress.Waiting[0].Budget)
	require.GreaterOrEqual(t, time.Since(start), 2*time.Second)
	require.Len(t, s.pods("lonely", 0), 1)
}

func testDrainNotifies(t *testing.T, c cluster) {
	s := c.held(t, "told", "drain: {environments: {test: {force_after: 4s, warn_before: 4s, deadline: 4s}}}\n")
	victim := s.pods("lonely", 0)[0]
	var mu sync.Mutex
	tried := map[string][]workflows.Notification{}
	s.activities.Notify = func(ctx context.Context, n workflows.Notification) error {
		mu.Lock()
		tried[n.Kind] = append(tried[n.Kind], n)
		first := len(tried[n.Kind]) == 1
		mu.Unlock()
		if n.Kind == workflows.ForceSoon {
			<-ctx.Done() // a hook that hangs
			return ctx.Err()
		}
		if first {
			return errors.New("a hook that fails once")
		}
		return nil
	}
	start := time.Now()
	progress, err := s.drain(nil)
	s.must(err)
	require.Len(t, progress.Forced, 1)
	require.Less(t, time.Since(start), 20*time.Second, "nobody waits for the hook")
	s.eventually("the notification is tried again", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(tried[workflows.Forced]) == 2
	})
	mu.Lock()
	defer mu.Unlock()
	for _, n := range []workflows.Notification{tried[workflows.ForceSoon][0], tried[workflows.Forced][1]} {
		require.Equal(t, n.Kind+"/"+string(victim.UID), n.ID)
		require.Equal(t, [6]string{clusterID, "told", s.nodeName(0), "told/" + victim.Name, "anchor"}, [6]string{n.Cluster, n.Pool, n.Node, n.Pod, n.Owner})
		require.Contains(t, n.Text, "told/"+victim.Name)
		require.NotZero(t, n.At)
	}
	require.Contains(t, tried[workflows.Forced][0].Text, "drain.force_after = 4s")
}
