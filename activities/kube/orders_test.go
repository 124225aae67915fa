package kube_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
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

// testDrainGivesUp also shows whose orders do not count: those for another node, and those for one
// that had the name before.
func testDrainGivesUp(t *testing.T, c cluster) {
	s := c.held(t, "givenup", "drain: {environments: {test: {force_after: 0s, warn_before: 0s, deadline: 0s}}}\n")
	former, other := s.order(workflows.ForceNow, ""), s.order(workflows.ForceNow, "")
	former.At = s.node(0).CreationTimestamp.Add(-time.Second)
	other.Node = s.nodeName(1)
	s.blocks.order(former)
	s.blocks.order(other)
	start := time.Now()
	progress, err := s.drain(nil, func(in *workflows.DrainNode) { in.GiveUpAfter = 2 * time.Second })
	s.must(err)
	require.True(t, progress.GaveUp)
	require.Empty(t, progress.Forced)
	require.Equal(t, 1, progress.Left)
	require.Len(t, progress.Waiting, 1)
	require.Equal(t, "lonely", progress.Waiting[0].Budget)
	require.GreaterOrEqual(t, time.Since(start), 2*time.Second)
	require.Len(t, s.pods("lonely", 0), 1)
}

// listener is a hook that hangs when a force is announced, and fails once when a pod was forced.
type listener struct {
	mu    sync.Mutex
	tried map[string][]workflows.Notification
}

func (l *listener) notify(ctx context.Context, n workflows.Notification) error {
	if l.note(n) == 1 && n.Kind == workflows.Forced {
		return errors.New("a hook that fails once")
	}
	if n.Kind == workflows.ForceSoon {
		<-ctx.Done()
		return ctx.Err()
	}
	return nil
}

func (l *listener) note(n workflows.Notification) (tries int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.tried == nil {
		l.tried = map[string][]workflows.Notification{}
	}
	l.tried[n.Kind] = append(l.tried[n.Kind], n)
	return len(l.tried[n.Kind])
}

func (l *listener) heard(kind string) []workflows.Notification {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.tried[kind])
}

// requireTold shows that people were told of a pod that was forced off the first node.
func (s *scene) requireTold(l *listener, pod corev1.Pod) {
	s.Helper()
	s.eventually("the notification is tried again", func() bool { return len(l.heard(workflows.Forced)) == 2 })
	for _, n := range []workflows.Notification{l.heard(workflows.ForceSoon)[0], l.heard(workflows.Forced)[1]} {
		require.Equal(s, n.Kind+"/"+string(pod.UID), n.ID)
		require.Equal(s, [6]string{clusterID, s.name, s.nodeName(0), s.name + "/" + pod.Name, "anchor"}, [6]string{n.Cluster, n.Pool, n.Node, n.Pod, n.Owner})
		require.Contains(s, n.Text, n.Pod)
		require.NotZero(s, n.At)
	}
	require.Contains(s, l.heard(workflows.Forced)[0].Text, "drain.force_after = 4s")
}
