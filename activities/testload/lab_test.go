package testload

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/fairway-project/fairway/activities/activitytest"
	"github.com/fairway-project/fairway/e2e"
	"github.com/fairway-project/fairway/lab"
	"github.com/fairway-project/fairway/registry"
	"github.com/fairway-project/fairway/workflows"
)

const labCluster = "e2e-12-abc"

// labClusters reaches the clusters of a lab as Fairway.
type labClusters struct{ *lab.Lab }

func (l labClusters) REST(_ context.Context, name string) (*rest.Config, registry.Cluster, error) {
	access, err := l.RESTConfigAs(name, "fairway")
	return access, registry.Cluster{ID: name}, err
}

// world is a control plane with the workload on three nodes.
type world struct {
	*testing.T
	lab        *lab.Lab
	client     kubernetes.Interface
	activities *Activities
}

func (w world) in() workflows.OnTestCluster {
	return workflows.OnTestCluster{Cluster: labCluster, Since: time.Now()}
}

// TestTheWitnessAgreesWithTheAuditLog compares what is counted with what an API server has on record.
func TestTheWitnessAgreesWithTheAuditLog(t *testing.T) {
	soon := [2]time.Duration{100 * time.Millisecond, 300 * time.Millisecond}
	l, err := lab.StartControlPlane(t.Context(), lab.Options{
		// Pods take long enough to be ready for a budget to notice that they are not.
		Dir: t.TempDir(), Out: t.Output(), Delays: lab.Delays{NodeReady: soon, PodReady: [2]time.Duration{time.Second, 1500 * time.Millisecond}},
	}, labCluster, lab.ClusterOptions{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, l.Stop()) })
	admin, err := l.RESTConfig(labCluster)
	require.NoError(t, err)
	w := world{T: t, lab: l, client: kubernetes.NewForConfigOrDie(admin), activities: &Activities{
		Clusters: labClusters{l},
		Workload: e2e.Workload{
			Namespace: "fairway-e2e", Image: "example.org/web:1", Port: 8080, Replicas: 3, StorageClass: "by-hand", Storage: "1Gi", ReadyWithin: time.Minute,
		},
		Load: e2e.Load{
			URLs: []string{l.IngressURL() + "/{cluster}/fairway-e2e/" + Web + "/"}, Rate: 50, Timeout: 5 * time.Second, AnswersWithin: time.Minute, ErrorRatio: 0.00001,
		},
	}}
	w.furnish()
	for range 2 { // as after a crash
		require.NoError(t, activitytest.Worker{}.Run(w.activities.StartWorkload, w.in(), nil))
	}
	require.NoError(t, activitytest.Worker{}.Run(w.activities.AwaitLoad, w.in(), nil))

	t.Run("evictions within the budgets count and violate nothing", func(t *testing.T) {
		w := w
		w.T = t
		upgrade := w.during(func() {
			for _, name := range []string{Web, Store} {
				for _, pod := range w.pods(name) {
					w.awaitAllowance(name)
					require.NoError(t, w.evict(pod))
					for _, other := range w.pods(name) {
						if ready(other) { // the budget refuses a second one, but does not protect a pending replacement
							err := w.evict(other)
							require.True(t, apierrors.IsTooManyRequests(err), "%v", err)
							break
						}
					}
				}
				w.awaitAllowance(name)
			}
		})
		require.Equal(t, 6, upgrade.Evictions)
		require.Equal(t, w.evicted(), upgrade.Evictions)
		audit, err := w.lab.Audit(labCluster)
		require.NoError(t, err)
		require.Len(t, audit.Evictions(), 12, "with those that were refused")
		require.Empty(t, upgrade.Violations)
		require.Empty(t, upgrade.Forced)
	})
	t.Run("the load does not notice them", func(t *testing.T) {
		w := w
		w.T = t
		before := w.evicted()
		result := w.load(func() {
			for _, pod := range w.pods(Web) {
				w.awaitAllowance(Web)
				require.NoError(t, w.evict(pod))
			}
			w.awaitAllowance(Web)
		})
		require.Equal(t, 3, w.evicted()-before)
		require.Empty(t, result.Problem, "%+v", result)
		require.Zero(t, result.Bad, "%+v", result)
		require.Greater(t, result.Good, int64(100))
	})
	t.Run("pods that are deleted by force violate their budget and are no evictions", func(t *testing.T) {
		w := w
		w.T = t
		start, before := time.Now(), w.evicted()
		upgrade := w.during(func() {
			for _, pod := range w.pods(Web)[:2] {
				require.NoError(t, w.client.CoreV1().Pods(pod.Namespace).Delete(t.Context(), pod.Name, metav1.DeleteOptions{GracePeriodSeconds: new(int64(0))}))
			}
			w.awaitAllowance(Web)
		})
		audit, err := w.lab.Audit(labCluster)
		require.NoError(t, err)
		require.Len(t, audit.PodDeletions().By("admin"), 2)
		require.Equal(t, before, w.evicted())
		require.Zero(t, upgrade.Evictions)
		require.Empty(t, upgrade.Forced, "only Fairway says of a pod that it was forced")
		require.Len(t, upgrade.Violations, 1)
		v := upgrade.Violations[0]
		require.Equal(t, e2e.Violation{Budget: "fairway-e2e/" + Web, Healthy: 1, Desired: 2, From: v.From, To: v.To}, v)
		require.True(t, v.From.After(start) && v.To.After(v.From) && v.To.Before(time.Now()), "%+v", v)
	})
	t.Run("the load notices that all are deleted at once", func(t *testing.T) {
		w := w
		w.T = t
		result := w.load(func() {
			require.NoError(t, w.client.CoreV1().Pods("fairway-e2e").DeleteCollection(t.Context(),
				metav1.DeleteOptions{GracePeriodSeconds: new(int64(0))}, metav1.ListOptions{LabelSelector: "app.kubernetes.io/name=" + Web}))
			w.awaitAllowance(Web)
		})
		require.NotZero(t, result.Bad)
		require.Contains(t, result.Problem, "requests failed")
	})
}

// furnish makes what the workload needs of a cluster.
func (w world) furnish() {
	for i := range 3 {
		node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("node-%d", i), Annotations: map[string]string{"kwok.x-k8s.io/node": "fake"}}}
		_, err := w.client.CoreV1().Nodes().Create(w.Context(), node, metav1.CreateOptions{})
		require.NoError(w, err)
		volume := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("volume-%d", i)}, Spec: corev1.PersistentVolumeSpec{
			Capacity: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}, AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}, StorageClassName: "by-hand",
			PersistentVolumeSource: corev1.PersistentVolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/nowhere"}}}}
		_, err = w.client.CoreV1().PersistentVolumes().Create(w.Context(), volume, metav1.CreateOptions{})
		require.NoError(w, err)
	}
}

// during has an upgrade witnessed for as long as do takes, from when the witness knows the budgets on.
func (w world) during(do func()) (upgrade e2e.Upgrade) {
	w.Helper()
	type beat struct {
		at   time.Time
		seen witnessed
	}
	var last atomic.Pointer[beat]
	ctx, cancel := context.WithCancel(w.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() {
		done <- activitytest.Worker{Context: ctx, Heartbeat: func(details any) { last.Store(&beat{time.Now(), details.(witnessed)}) }}.
			Run(w.activities.WitnessUpgrade, w.in(), &upgrade)
	}()
	quiet := func(after time.Time) bool {
		b := last.Load()
		if b == nil || b.at.Before(after) || !b.seen.Looked || len(b.seen.Budgets) != 2 {
			return false
		}
		for _, each := range b.seen.Budgets {
			if each.Held != 2 || each.Violation > 0 {
				return false
			}
		}
		return true
	}
	w.eventually("the witness knows that both budgets hold", func() (bool, error) { return quiet(time.Time{}), nil })
	do()
	ended := time.Now()
	w.eventually("the witness has seen the end", func() (bool, error) { return quiet(ended), nil })
	cancel()
	require.NoError(w, <-done)
	return upgrade
}

// load holds the load for as long as do takes.
func (w world) load(do func()) (result e2e.LoadResult) {
	w.Helper()
	ctx, cancel := context.WithCancel(w.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- activitytest.Worker{Context: ctx}.Run(w.activities.HoldLoad, w.in(), &result) }()
	do()
	cancel()
	require.NoError(w, <-done)
	return result
}

// pods are those of a part of the workload that are not on their way out.
func (w world) pods(name string) (pods []corev1.Pod) {
	w.Helper()
	list, err := w.client.CoreV1().Pods("fairway-e2e").List(w.Context(), metav1.ListOptions{LabelSelector: "app.kubernetes.io/name=" + name})
	require.NoError(w, err)
	for _, pod := range list.Items {
		if pod.DeletionTimestamp == nil {
			pods = append(pods, pod)
		}
	}
	return pods
}

func ready(pod corev1.Pod) bool {
	return slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

func (w world) evict(pod corev1.Pod) error {
	return w.client.PolicyV1().Evictions(pod.Namespace).Evict(w.Context(), &policyv1.Eviction{
		ObjectMeta:    metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name},
		DeleteOptions: &metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(pod.UID))},
	})
}

// awaitAllowance waits until all pods of a part are there and ready and its budget has seen it.
func (w world) awaitAllowance(name string) {
	w.Helper()
	w.eventually("all pods of "+name+" are ready and one may be evicted", func() (bool, error) {
		are := 0
		for _, pod := range w.pods(name) {
			if ready(pod) {
				are++
			}
		}
		b, err := w.client.PolicyV1().PodDisruptionBudgets("fairway-e2e").Get(w.Context(), name, metav1.GetOptions{})
		if err != nil {
			return false, err
		}
		return are == 3 && b.Status.CurrentHealthy == 3 && b.Status.DisruptionsAllowed == 1 && len(b.Status.DisruptedPods) == 0,
			fmt.Errorf("%d are, the budget has %+v", are, b.Status)
	})
}

func (w world) eventually(what string, met func() (bool, error)) {
	w.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		ok, err := met()
		if ok {
			return
		}
		if time.Now().After(deadline) {
			require.FailNow(w, "not within a minute: "+what, "%v", err)
		}
	}
}

// evicted is how many pods were evicted by the record of the API server, which has refusals as well.
func (w world) evicted() int {
	w.Helper()
	audit, err := w.lab.Audit(labCluster)
	require.NoError(w, err)
	return len(audit.Evictions().Where(func(e lab.AuditEvent) bool { return e.Code == 201 }))
}
