package manifests

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	"go.temporal.io/sdk/temporal"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"

	"github.com/fairway-project/fairway/workflows"
)

// awaited are the kinds whose objects are waited for. Others become what they are to be at once, or
// need something from outside: a Service its load balancer, a claim its first pod, which is waited
// for. CRDs are waited for while they are applied.
var awaited = map[schema.GroupKind]bool{
	{Group: "apps", Kind: "Deployment"}:  true,
	{Group: "apps", Kind: "StatefulSet"}: true,
	{Group: "apps", Kind: "DaemonSet"}:   true,
	{Group: "batch", Kind: "Job"}:        true,
	{Kind: "Pod"}:                        true,
}

const (
	// fillWithin is how long the first lists may take.
	fillWithin = time.Minute
	// reasonsEvery is how often pods are asked why they are not ready, and of how many workloads.
	reasonsEvery = 10 * time.Second
	reasonsOf    = 10
)

// AwaitWorkloads implements workflows.Manifests. It costs one list and one watch for each kind.
func (a *Activities) AwaitWorkloads(ctx context.Context, in workflows.AwaitWorkloads) error {
	ctx, progress, end := begin(ctx)
	defer end()
	progress.say("rendering manifests")
	release, s, err := a.prepare(ctx, in.Cluster, in.Version)
	if err != nil {
		return err
	}
	items, problems := s.itemsOf(release)
	if err := problems.err(s.cluster.ID, fmt.Sprintf("%d of %d manifests are wrong", len(problems), len(release.Manifests))); err != nil {
		return err
	}
	items = slices.DeleteFunc(items, func(i *item) bool { return !awaited[i.id.GroupKind] || i.mapping == nil })
	if len(items) == 0 {
		return nil
	}
	w, err := s.watch(ctx, items)
	if err != nil {
		return err
	}
	if err := w.filled(ctx); err != nil {
		return err
	}

	since := in.Since
	if since.IsZero() {
		since = time.Now()
	}
	deadline := time.NewTimer(time.Until(since.Add(in.Within)))
	defer deadline.Stop()
	clock := time.NewTicker(time.Second) // some statuses depend on it
	defer clock.Stop()
	late, reasons := false, map[identity]string{}
	var absent absentees
	for asked := (time.Time{}); ; {
		left := w.unready(items)
		if left, err = absent.excuse(ctx, s, left); err != nil {
			return err
		}
		if len(left) == 0 {
			return nil
		}
		if late || time.Since(asked) >= reasonsEvery {
			reasons, asked = s.reasons(ctx, left), time.Now()
		}
		for _, u := range left {
			u.reasons = reasons[u.id]
		}
		text := fmt.Sprintf("%d of %d workloads are not ready: %s", len(left), len(items), summary(left))
		progress.say("%s", shorten(text, textLimit))
		if late {
			return temporal.NewNonRetryableApplicationError(shorten(fmt.Sprintf("cluster %s: after %s, %s", s.cluster.ID, in.Within, text), 10*textLimit), workflows.Unhealthy, nil)
		}
		select {
		case <-ctx.Done():
			return stopped(ctx)
		case <-w.woken:
		case <-clock.C:
		case <-deadline.C:
			late = true // after one more look
		}
	}
}

// watcher follows the objects of some kinds that Fairway has applied.
type watcher struct {
	*server
	informers map[schema.GroupKind]cache.SharedIndexInformer
	woken     chan struct{}

	mu      sync.Mutex
	trouble error
}

func (s *server) watch(ctx context.Context, items []*item) (*watcher, error) {
	w := &watcher{server: s, informers: map[schema.GroupKind]cache.SharedIndexInformer{}, woken: make(chan struct{}, 1)}
	for _, i := range items {
		if w.informers[i.id.GroupKind] != nil {
			continue
		}
		objects := s.watching.Resource(i.mapping.Resource)
		informer := cache.NewSharedIndexInformer(&cache.ListWatch{
			ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
				options.LabelSelector = ours
				if options.ResourceVersion == "0" {
					options.ResourceVersion = "" // an old answer could be from before the manifests were applied
				}
				return objects.List(ctx, options)
			},
			WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
				options.LabelSelector = ours
				return objects.Watch(ctx, options)
			},
		}, &unstructured.Unstructured{}, 0, cache.Indexers{})
		err := cmp.Or(
			informer.SetTransform(func(object any) (any, error) {
				if o, ok := object.(metav1.Object); ok {
					o.SetManagedFields(nil)
				}
				return object, nil
			}),
			informer.SetWatchErrorHandlerWithContext(func(_ context.Context, _ *cache.Reflector, err error) { w.failed(err) }),
		)
		if err == nil {
			_, err = informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
				AddFunc: func(any) { w.wake() }, UpdateFunc: func(_, _ any) { w.wake() }, DeleteFunc: func(any) { w.wake() },
			})
		}
		if err != nil {
			return nil, invalid("cluster %s: watching %s: %v", s.cluster.ID, i.mapping.Resource.Resource, err)
		}
		w.informers[i.id.GroupKind] = informer
	}
	for _, informer := range w.informers {
		go informer.RunWithContext(ctx)
	}
	return w, nil
}

func (w *watcher) wake() {
	select {
	case w.woken <- struct{}{}:
	default:
	}
}

func (w *watcher) failed(err error) {
	w.mu.Lock()
	w.trouble = err
	w.mu.Unlock()
	w.wake()
}

// filled waits for the first lists.
func (w *watcher) filled(ctx context.Context) error {
	deadline := time.NewTimer(fillWithin)
	defer deadline.Stop()
	clock := time.NewTicker(20 * time.Millisecond)
	defer clock.Stop()
	for {
		all := true
		for _, informer := range w.informers {
			all = all && informer.HasSynced()
		}
		if all {
			return nil
		}
		w.mu.Lock()
		trouble := w.trouble
		w.mu.Unlock()
		if apierrors.IsForbidden(trouble) || apierrors.IsUnauthorized(trouble) {
			return w.explain(ctx, "watching workloads", trouble)
		}
		select {
		case <-ctx.Done():
			return stopped(ctx)
		case <-deadline.C:
			if trouble == nil {
				trouble = fmt.Errorf("no complete answer within %s", fillWithin)
			}
			return w.explain(ctx, "watching workloads", trouble)
		case <-clock.C:
		}
	}
}

// unready is a workload that is not as it should be.
type unready struct {
	*item
	live    *unstructured.Unstructured // nil if it is not there
	message string
	reasons string
}

func (w *watcher) unready(items []*item) []*unready {
	var left []*unready
	for _, i := range items {
		object, exists, _ := w.informers[i.id.GroupKind].GetStore().GetByKey(i.id.title())
		live, _ := object.(*unstructured.Unstructured)
		switch {
		case !exists && i.id.Kind == "Job": // it has ended long ago and was cleaned up
		case !exists:
			left = append(left, &unready{item: i, message: "it is gone"})
		default:
			if message := notReady(live); message != "" {
				left = append(left, &unready{item: i, live: live, message: message})
			}
		}
	}
	return left
}

// absentees are the nodes on which a DaemonSet cannot run: one that is quarantined for days must not
// keep every update from its end.
type absentees struct {
	nodes int
	asked time.Time
}

// excuse takes the DaemonSets off a list that lack pods only there. Nodes are asked for only if a
// DaemonSet lacks any.
func (a *absentees) excuse(ctx context.Context, s *server, left []*unready) ([]*unready, error) {
	if !slices.ContainsFunc(left, func(u *unready) bool { return u.id.Kind == "DaemonSet" && u.live != nil }) {
		return left, nil
	}
	if time.Since(a.asked) >= reasonsEvery {
		nodes := 0
		if err := s.eachNode(ctx, func(_ *corev1.Node, is standing) {
			if is.leaving || is.young && !is.ready {
				nodes++
			}
		}); err != nil {
			return nil, err
		}
		a.nodes, a.asked = nodes, time.Now()
	}
	return slices.DeleteFunc(left, func(u *unready) bool { return u.live != nil && runsElsewhere(u.live, a.nodes) }), nil
}

// notReady says why an object is not as it should be; empty if it is.
func notReady(object *unstructured.Unstructured) string {
	switch object.GetKind() {
	case "Job":
		if suspended, _, _ := unstructured.NestedBool(object.Object, "spec", "suspend"); suspended {
			return ""
		}
	case "Deployment":
		// Nothing happens to it until somebody resumes it, so what is asked is how the pods are that it has.
		if paused, _, _ := unstructured.NestedBool(object.Object, "spec", "paused"); paused {
			if has, available := count(object, "status", "replicas"), count(object, "status", "availableReplicas"); available < has {
				return fmt.Sprintf("Available: %d/%d, and it is paused", available, has)
			}
			return ""
		}
	case "StatefulSet":
		// Its pods become new ones when somebody deletes them. kstatus does not look at them at all.
		if strategy, _, _ := unstructured.NestedString(object.Object, "spec", "updateStrategy", "type"); strategy == "OnDelete" {
			if wanted, ready := count(object, "spec", "replicas"), count(object, "status", "readyReplicas"); ready < wanted {
				return fmt.Sprintf("Ready: %d/%d", ready, wanted)
			}
		}
	case "Pod":
		if phase, _, _ := unstructured.NestedString(object.Object, "status", "phase"); phase == string(corev1.PodFailed) {
			return "it has failed" // which kstatus takes for an end like any other
		}
	case "DaemonSet":
		// Its pods become new ones when somebody deletes them. kstatus would wait for that.
		if strategy, _, _ := unstructured.NestedString(object.Object, "spec", "updateStrategy", "type"); strategy == "OnDelete" {
			desired, _, _ := unstructured.NestedFieldNoCopy(object.Object, "status", "desiredNumberScheduled")
			object = object.DeepCopy()
			if desired != nil {
				_ = unstructured.SetNestedField(object.Object, desired, "status", "updatedNumberScheduled")
			}
		}
	}
	result, err := status.Compute(object)
	switch {
	case err != nil:
		return err.Error()
	case result.Status == status.CurrentStatus:
		return ""
	case result.Message == "":
		return result.Status.String()
	default:
		return strings.TrimSuffix(result.Message, ".")
	}
}

func count(object *unstructured.Unstructured, path ...string) int64 {
	n, _, _ := unstructured.NestedInt64(object.Object, path...)
	return n
}

func summary(left []*unready) string {
	var texts []string
	for _, u := range left {
		text := u.id.String() + ": " + u.message
		if u.reasons != "" {
			text += " (" + u.reasons + ")"
		}
		texts = append(texts, shorten(text, textLimit/2))
	}
	return strings.Join(limited(texts), "; ")
}
