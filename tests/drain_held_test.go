package tests

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/fairway-project/fairway/drain"
	"github.com/fairway-project/fairway/lab"
)

// soon is how long a drain may take to notice that something lets it go on.
const soon = 5 * time.Second

// evictionsOf are those that Fairway asked for of a pod of the pool's own namespace; of any, if the
// name is empty.
func (p pool) evictionsOf(t *testing.T, pod string) lab.Audit {
	t.Helper()
	audit, err := theLab.Audit(p.cluster)
	require.NoError(t, err)
	return audit.By("fairway").Evictions().Where(func(e lab.AuditEvent) bool {
		return e.Namespace == p.name && (pod == "" || e.Name == pod)
	})
}

// The database's operator moves the role to another member when it sees that the primary's node is
// cordoned. Until then its budget never allows an eviction.
func TestAPrimaryGoesWhenAnotherMemberHasItsRole(t *testing.T) {
	t.Parallel()
	p := newPool(t, busy, shape{size: 1})
	w := startWorker(t, busy)
	p.makeNamespace(t)
	p.deploySet(t, "db", 3, false)
	p.awaitPods(t, "db", 3)
	const primary, other = "db-0", "db-1"
	lead := `{"metadata":{"labels":{"role":"primary"}}}`
	p.patchPod(t, primary, lead)
	p.protect(t, "db-primary", policyv1.PodDisruptionBudgetSpec{
		MaxUnavailable: new(intstr.FromInt32(0)),
		Selector:       &metav1.LabelSelector{MatchLabels: map[string]string{"application": "db", "role": "primary"}},
	})
	p.protect(t, "db-replicas", policyv1.PodDisruptionBudgetSpec{
		MinAvailable: new(intstr.FromInt32(1)),
		Selector: &metav1.LabelSelector{MatchLabels: labelsOf("db"), MatchExpressions: []metav1.LabelSelectorRequirement{
			{Key: "role", Operator: metav1.LabelSelectorOpNotIn, Values: []string{"primary"}},
		}},
	})
	r := p.replace(t, w)

	held := r.awaitHeld(t, 1, "the budget can never allow an eviction").Waiting[0]
	require.Equal(t, p.name+"/"+primary, held.Pod)
	require.Equal(t, "db-primary", held.Budget)
	p.awaitPods(t, "db", 3)
	time.Sleep(2 * time.Second)
	require.Empty(t, p.evictionsOf(t, primary), "nobody even asks for the primary")

	moved := time.Now()
	p.patchPod(t, other, lead)
	p.patchPod(t, primary, `{"metadata":{"labels":{"role":"replica"}}}`)
	r.requireDone(t)
	evictions := p.evictionsOf(t, primary)
	require.Len(t, evictions, 1)
	require.WithinRange(t, evictions[0].Received, moved, moved.Add(soon))
	require.Empty(t, p.evictionsOf(t, other)[1:], "the new primary is not touched any more")
	p.awaitPods(t, "db", 3)
}

func TestPodsThatForbidOrPostponeTheirDisruptionAreWaitedFor(t *testing.T) {
	t.Parallel()
	p := newPool(t, busy, shape{size: 1})
	w := startWorker(t, busy)
	p.makeNamespace(t)
	p.deploy(t, "ours", 1, map[string]string{drain.DoNotDisrupt: "true"})
	p.deploy(t, "karpenters", 1, map[string]string{drain.KarpenterDoNotDisrupt: "true"})
	p.awaitPods(t, "ours", 1)
	p.awaitPods(t, "karpenters", 1)
	ours, karpenters := p.podsOf(t, "ours")[0], p.podsOf(t, "karpenters")[0]
	r := p.replace(t, w)
	progress := r.awaitHeld(t, 2, "the pod forbids it by its annotation ")
	require.Zero(t, progress.Evicted)

	allowed := time.Now()
	p.patchPod(t, ours.Name, annotate(drain.DoNotDisrupt, "null"))
	r.awaitHeld(t, 1, drain.KarpenterDoNotDisrupt)
	began := karpenters.CreationTimestamp.Time
	if karpenters.Status.StartTime != nil {
		began = karpenters.Status.StartTime.Time
	}
	postponed := time.Since(began).Round(time.Second) + 6*time.Second
	p.patchPod(t, karpenters.Name, annotate(drain.KarpenterDoNotDisrupt, fmt.Sprintf("%q", postponed)))
	r.awaitHeld(t, 1, "the pod postpones it by its annotation "+drain.KarpenterDoNotDisrupt)

	r.requireDone(t)
	for pod, from := range map[string]time.Time{ours.Name: allowed, karpenters.Name: began.Add(postponed)} {
		evictions := p.evictionsOf(t, pod)
		require.Len(t, evictions, 1, pod)
		require.WithinRange(t, evictions[0].Received, from, from.Add(soon), pod)
	}
}

// This holds for 72 hours as well: what an hour costs, a second does.
func TestADrainCostsNoMoreHistoryTheLongerItIsHeld(t *testing.T) {
	t.Parallel()
	var events [2]map[string]int
	t.Run("held", func(t *testing.T) {
		for i, lasts := range []time.Duration{3 * time.Second, 20 * time.Second} {
			t.Run("for "+lasts.String(), func(t *testing.T) {
				t.Parallel()
				p := newPool(t, busy, shape{size: 1})
				w := startWorker(t, busy)
				p.makeNamespace(t)
				p.deploy(t, "app", 1, map[string]string{drain.DoNotDisrupt: "true"})
				p.awaitPods(t, "app", 1)
				r := p.replace(t, w)
				r.awaitHeld(t, 1, "forbids")
				time.Sleep(lasts)
				p.patchPod(t, p.podsOf(t, "app")[0].Name, annotate(drain.DoNotDisrupt, "null"))
				r.requireDone(t)
				events[i] = map[string]int{}
				for _, id := range []string{r.roll, r.child} {
					for _, event := range history(t, id) {
						// How many workflow tasks it takes depends on what comes together.
						if !strings.HasPrefix(event.EventType.String(), "WorkflowTask") {
							events[i][id[:len("cluster/"+busy+"/node")]+" "+event.EventType.String()]++
						}
					}
				}
			})
		}
	})
	require.False(t, t.Failed())
	t.Logf("events beside workflow tasks: %v", events[0])
	require.Positive(t, events[0]["cluster/"+busy+"/node "+enumspb.EVENT_TYPE_ACTIVITY_TASK_COMPLETED.String()])
	require.Equal(t, events[0], events[1])
}

// fewestReady watches the pods of an application and tells, when asked, the lowest number of
// ready ones that there has been since.
func (p pool) fewestReady(t *testing.T, name string) (fewest func() int) {
	t.Helper()
	list, err := p.client.CoreV1().Pods(p.name).List(t.Context(), metav1.ListOptions{LabelSelector: "application=" + name})
	require.NoError(t, err)
	ready := map[string]bool{}
	for _, pod := range list.Items {
		ready[pod.Name] = serves(&pod)
	}
	changes, err := p.client.CoreV1().Pods(p.name).Watch(t.Context(), metav1.ListOptions{LabelSelector: "application=" + name, ResourceVersion: list.ResourceVersion})
	require.NoError(t, err)
	count := func() (n int) {
		for _, each := range ready {
			if each {
				n++
			}
		}
		return n
	}
	least, done := count(), make(chan struct{})
	go func() {
		defer close(done)
		for event := range changes.ResultChan() {
			if pod, ok := event.Object.(*corev1.Pod); ok {
				ready[pod.Name] = event.Type != watch.Deleted && serves(pod)
				least = min(least, count())
			}
		}
	}()
	t.Cleanup(changes.Stop)
	return func() int {
		changes.Stop()
		<-done
		return least
	}
}

func serves(pod *corev1.Pod) bool { return pod.DeletionTimestamp == nil && drain.Ready(pod) }

func TestALoneReplicaIsServedByASecondOneWhileItMoves(t *testing.T) {
	t.Parallel()
	p := newPool(t, busy, shape{size: 1})
	w := startWorker(t, busy)
	p.makeNamespace(t)
	p.deploy(t, "lone", 1, map[string]string{drain.Surge: "true", lab.ReadyDelayAnnotation: "3s"})
	p.awaitPods(t, "lone", 1)
	fewest := p.fewestReady(t, "lone")
	r := p.replace(t, w)
	r.requireDone(t)
	require.Equal(t, 1, fewest(), "there is a ready pod at any time")

	deployment, err := p.client.AppsV1().Deployments(p.name).Get(t.Context(), "lone", metav1.GetOptions{})
	require.NoError(t, err)
	require.EqualValues(t, 1, *deployment.Spec.Replicas)
	p.awaitPods(t, "lone", 1)
	audit, err := theLab.Audit(p.cluster)
	require.NoError(t, err)
	scaled := audit.By("fairway").Where(func(e lab.AuditEvent) bool {
		return e.Namespace == p.name && e.Subresource == "scale" && e.Verb == "update" && e.Code == 200
	})
	require.Len(t, scaled, 2, "it was scaled up and back")
}

func TestVolumesAreDetachedBeforeTheInstanceEnds(t *testing.T) {
	t.Parallel()
	p := newPool(t, busy, shape{size: 1}) // in all zones: AWS would launch the next instance elsewhere
	w := startWorker(t, busy)
	p.makeNamespace(t)
	p.deploySet(t, "db", 2, true)
	p.awaitPods(t, "db", 2)
	zone := p.zoneOf(t, p.fullest(t).Name)
	attached := p.attachedTo(t, p.fullest(t).Name)
	require.Len(t, attached, 2)
	r := p.replace(t, w)
	r.requireDone(t)

	audit, err := theLab.Audit(p.cluster)
	require.NoError(t, err)
	ended := p.ended(t, r.node.Instance)
	for _, name := range attached {
		detached := audit.Where(func(e lab.AuditEvent) bool { // the driver takes its finalizer off, which ends the object
			return e.Resource == "volumeattachments" && e.Name == name && e.Verb == "update" && e.Subresource == "" && e.Code == 200
		})
		require.NotEmpty(t, detached, name)
		last := detached[len(detached)-1].Answered
		require.True(t, last.Before(ended), "%s was detached at %s, before the instance ended at %s", name, last, ended)
	}
	p.awaitPods(t, "db", 2)
	for _, pod := range p.podsOf(t, "db") {
		require.NotEqual(t, r.node.Name, pod.Spec.NodeName)
		require.Equal(t, zone, p.zoneOf(t, pod.Spec.NodeName), "the replacement is where the volumes are")
	}
	require.Len(t, p.attachedTo(t, p.fullest(t).Name), 2)
}

func (p pool) zoneOf(t *testing.T, name string) string {
	t.Helper()
	node, err := p.client.CoreV1().Nodes().Get(t.Context(), name, metav1.GetOptions{})
	require.NoError(t, err)
	require.NotEmpty(t, node.Labels[corev1.LabelTopologyZone])
	return node.Labels[corev1.LabelTopologyZone]
}

// attachedTo are the names of the VolumeAttachments of a node.
func (p pool) attachedTo(t *testing.T, node string) []string {
	t.Helper()
	list, err := p.client.StorageV1().VolumeAttachments().List(t.Context(), metav1.ListOptions{})
	require.NoError(t, err)
	var names []string
	for _, attachment := range list.Items {
		if attachment.Spec.NodeName == node {
			names = append(names, attachment.Name)
		}
	}
	slices.Sort(names)
	return names
}
