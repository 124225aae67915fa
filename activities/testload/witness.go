package testload

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"github.com/fairway-project/fairway/activities"
	"github.com/fairway-project/fairway/e2e"
	"github.com/fairway-project/fairway/workflows"
)

// WitnessUpgrade implements workflows.TestWorkloads. What happened while no worker looked is known as far as a
// list tells it: nodes that went, forced pods, and pods, evicted, that are still there.
func (a *Activities) WitnessUpgrade(ctx context.Context, in workflows.OnTestCluster) (e2e.Upgrade, error) {
	w := newWitness(ctx, in.Since)
	activity.RecordHeartbeat(ctx, w.state())
	working, end := activities.Working(ctx, w.state)
	defer end()
	err := a.witness(working, in.Cluster, w)
	last := w.state().(witnessed)
	switch {
	case stopping(working):
		activity.RecordHeartbeat(ctx, last)
		return last.Upgrade, activities.ErrStopping
	case working.Err() == nil:
		activity.RecordHeartbeat(ctx, last)
		return last.Upgrade, err
	case !last.Looked: // to say that nothing happened would be a lie
		return last.Upgrade, temporal.NewNonRetryableApplicationError(
			fmt.Sprintf("cluster %s: nobody saw what the update did to its pods, as its API server never told: %v", in.Cluster, err), workflows.Unreachable, nil)
	}
	return last.Upgrade, nil
}

// witness watches until its context ends, or until it is certain that it may not.
func (a *Activities) witness(ctx context.Context, cluster string, w *witness) error {
	var trouble error
	for {
		client, err := a.client(ctx, cluster)
		if err == nil {
			err = w.follow(ctx, cluster, client)
		}
		if ctx.Err() != nil {
			if err == nil || w.looked() {
				err = trouble
			}
			return err
		}
		if lasting(err) {
			return err
		}
		trouble = err
		if pause(ctx, retryEvery) != nil {
			return trouble
		}
	}
}

// witness is what has been seen, for several watches to add to.
type witness struct {
	mu   sync.Mutex
	seen *witnessed
	// stale is what was there before a crash and has not been seen since.
	staleNodes, staleBudgets, stalePods map[types.UID]bool
}

func newWitness(ctx context.Context, since time.Time) *witness {
	w := &witness{seen: newWitnessed(since), staleNodes: map[types.UID]bool{}, staleBudgets: map[types.UID]bool{}, stalePods: map[types.UID]bool{}}
	if before, found := remembered[witnessed](ctx); found {
		before.fill()
		w.seen = &before
		for uid := range before.Nodes {
			w.staleNodes[uid] = true
		}
		for uid := range before.Budgets {
			w.staleBudgets[uid] = true
		}
		for uid := range before.Evicted {
			w.stalePods[uid] = true
		}
	}
	return w
}

func (w *witness) state() any {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.seen.clone()
}

func (w *witness) looked() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.seen.Looked
}

// follow watches a cluster. Informers bear that its API server is away, and list again what they have missed.
func (w *witness) follow(ctx context.Context, cluster string, client kubernetes.Interface) error {
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	all := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithTransform(slim))
	events := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithTransform(slim), informers.WithTweakListOptions(func(o *metav1.ListOptions) {
		o.FieldSelector = fields.AndSelectors(fields.OneTermEqualSelector("reason", forcedReason), fields.OneTermEqualSelector("involvedObject.kind", "Pod")).String()
	}))
	var synced []cache.InformerSynced
	for _, each := range []struct {
		name      string
		informer  cache.SharedIndexInformer
		see, lose func(object any)
	}{
		{"nodes", all.Core().V1().Nodes().Informer(), func(o any) { w.seeNode(o.(*corev1.Node)) }, func(o any) { w.loseNode(o.(*corev1.Node)) }},
		{"pods", all.Core().V1().Pods().Informer(), func(o any) { w.seePod(o.(*corev1.Pod)) }, func(o any) { w.losePod(o.(*corev1.Pod)) }},
		{"budgets", all.Policy().V1().PodDisruptionBudgets().Informer(),
			func(o any) { w.seeBudget(o.(*policyv1.PodDisruptionBudget)) }, func(o any) { w.loseBudget(o.(*policyv1.PodDisruptionBudget)) }},
		{"events", events.Core().V1().Events().Informer(), func(o any) { w.seeEvent(o.(*corev1.Event)) }, func(any) {}},
	} {
		if err := each.informer.SetWatchErrorHandlerWithContext(func(_ context.Context, _ *cache.Reflector, err error) {
			if (apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err)) && !w.looked() {
				end(explain(cluster, "watching "+each.name, err))
			}
		}); err != nil {
			return fmt.Errorf("watching %s: %w", each.name, err)
		}
		registered, err := each.informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc:    each.see,
			UpdateFunc: func(_, now any) { each.see(now) },
			DeleteFunc: func(object any) {
				if unseen, ok := object.(cache.DeletedFinalStateUnknown); ok {
					object = unseen.Obj
				}
				each.lose(object)
			},
		})
		if err != nil {
			return fmt.Errorf("watching %s: %w", each.name, err)
		}
		synced = append(synced, registered.HasSynced)
	}
	all.StartWithContext(ctx)
	events.StartWithContext(ctx)
	defer all.Shutdown()
	defer events.Shutdown()
	defer end(nil) // before the shutdowns, which wait
	if cache.WaitForCacheSync(ctx.Done(), synced...) {
		w.forgetStale()
		<-ctx.Done()
	}
	return context.Cause(ctx)
}

// slim drops what no rule looks at, so that a big cluster fits into memory.
func slim(object any) (any, error) {
	if accessor, ok := object.(metav1.Object); ok {
		accessor.SetManagedFields(nil)
	}
	switch o := object.(type) {
	case *corev1.Pod:
		o.Spec, o.Status = corev1.PodSpec{}, corev1.PodStatus{Conditions: slices.Clip(o.Status.Conditions)}
	case *corev1.Node:
		o.Spec, o.Status = corev1.NodeSpec{}, corev1.NodeStatus{}
	}
	return object, nil
}

func (w *witness) seeNode(node *corev1.Node) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.staleNodes, node.UID)
	w.seen.seeNode(node.UID)
}

func (w *witness) loseNode(node *corev1.Node) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.staleNodes, node.UID)
	w.seen.loseNode(node.UID)
}

func (w *witness) seePod(pod *corev1.Pod) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.stalePods, pod.UID)
	w.seen.seePod(pod)
}

func (w *witness) losePod(pod *corev1.Pod) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.stalePods, pod.UID)
	w.seen.losePod(pod)
}

func (w *witness) seeBudget(b *policyv1.PodDisruptionBudget) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.staleBudgets, b.UID)
	w.seen.seeBudget(b, time.Now())
}

func (w *witness) loseBudget(b *policyv1.PodDisruptionBudget) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.staleBudgets, b.UID)
	w.seen.loseBudget(b.UID, time.Now())
}

func (w *witness) seeEvent(event *corev1.Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen.seeEvent(event)
}

// forgetStale is for after the first lists: what was there before and is in none of them has gone.
func (w *witness) forgetStale() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for uid := range w.staleNodes {
		w.seen.loseNode(uid)
	}
	for uid := range w.staleBudgets {
		w.seen.loseBudget(uid, time.Now())
	}
	for uid := range w.stalePods {
		delete(w.seen.Evicted, uid)
	}
	clear(w.staleNodes)
	clear(w.staleBudgets)
	clear(w.stalePods)
	w.seen.Looked = true
}
