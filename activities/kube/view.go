package kube

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"go.temporal.io/sdk/activity"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"github.com/fairway-project/fairway/activities"
)

// sharedView is one watch of a cluster's nodes, pods, budgets, DaemonSets and attached volumes for
// everybody who needs it: five lists and five watches, however many drains run. It lives while
// somebody holds it.
type sharedView struct {
	cluster string
	client  kubernetes.Interface

	mu      sync.Mutex
	holders int
	current *view
	stop    context.CancelFunc
}

// view answers from memory what a cluster's nodes, pods, budgets, DaemonSets and attached volumes are.
type view struct {
	nodes, pods, budgets, daemonSets, attachments cache.SharedIndexInformer

	mu          sync.Mutex
	subscribers map[chan struct{}]bool
	refused     map[cache.SharedIndexInformer]error // those that may not watch
	trouble     error                               // what last went wrong with watching; nil again with the next event
	unreachable error                               // why the last request had no answer; nil if it had one
}

// Indexes of pods.
const (
	byNode       = "node"
	byNamespace  = cache.NamespaceIndex // made by the informer itself // every informer of the factory has it
	byController = "controller"
)

// hold returns the view, filled, and a function that lets go of it.
func (s *sharedView) hold(ctx context.Context) (*view, func(), error) {
	s.mu.Lock()
	if s.holders == 0 {
		background, stop := context.WithCancel(context.Background())
		fresh, err := newView(background, s.client)
		if err != nil {
			s.mu.Unlock()
			stop()
			return nil, nil, err
		}
		s.current, s.stop = fresh, stop
	}
	s.holders++
	v := s.current
	s.mu.Unlock()

	release := sync.OnceFunc(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.holders--; s.holders == 0 {
			s.stop()
			s.current = nil
		}
	})
	if err := v.filled(ctx); err != nil {
		release()
		return nil, nil, err
	}
	return v, release, nil
}

// wire tells of every request whether it was answered at all. Informers do not: they take a watch
// that cannot be set up for one that has ended, and try again silently.
type wire struct {
	next http.RoundTripper
	tell func(error)
}

func (w wire) RoundTrip(request *http.Request) (*http.Response, error) {
	response, err := w.next.RoundTrip(request)
	if request.Context().Err() == nil { // else it was not wanted any more
		w.tell(err)
	}
	return response, err
}

// answered notes whether the API server could be reached.
func (s *sharedView) answered(err error) {
	s.mu.Lock()
	v := s.current
	s.mu.Unlock()
	if v != nil {
		v.answered(err)
	}
}

func newView(ctx context.Context, client kubernetes.Interface) (*view, error) {
	factory := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithTransform(slim))
	v := &view{
		nodes:       factory.Core().V1().Nodes().Informer(),
		pods:        factory.Core().V1().Pods().Informer(),
		budgets:     factory.Policy().V1().PodDisruptionBudgets().Informer(),
		daemonSets:  factory.Apps().V1().DaemonSets().Informer(),
		attachments: factory.Storage().V1().VolumeAttachments().Informer(),
		refused:     map[cache.SharedIndexInformer]error{},
		subscribers: map[chan struct{}]bool{},
	}
	if err := v.attachments.AddIndexers(cache.Indexers{byNode: func(object any) ([]string, error) {
		return []string{object.(*storagev1.VolumeAttachment).Spec.NodeName}, nil
	}}); err != nil {
		return nil, fmt.Errorf("indexing attached volumes: %w", err)
	}
	if err := v.pods.AddIndexers(cache.Indexers{
		byNode: func(object any) ([]string, error) {
			return []string{object.(*corev1.Pod).Spec.NodeName}, nil
		},
		byController: func(object any) ([]string, error) {
			if controller := metav1.GetControllerOf(object.(*corev1.Pod)); controller != nil {
				return []string{string(controller.UID)}, nil
			}
			return nil, nil
		},
	}); err != nil {
		return nil, fmt.Errorf("indexing pods: %w", err)
	}
	for _, informer := range v.informers() {
		if err := informer.SetWatchErrorHandlerWithContext(func(_ context.Context, _ *cache.Reflector, err error) { v.failed(informer, err) }); err != nil {
			return nil, fmt.Errorf("watching: %w", err)
		}
		if _, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc:    func(any) { v.changed() },
			UpdateFunc: func(_, _ any) { v.changed() },
			DeleteFunc: func(any) { v.changed() },
		}); err != nil {
			return nil, fmt.Errorf("watching: %w", err)
		}
	}
	factory.StartWithContext(ctx)
	return v, nil
}

// slim drops what no rule looks at, so that a big cluster fits into memory.
func slim(object any) (any, error) {
	if accessor, ok := object.(metav1.Object); ok {
		accessor.SetManagedFields(nil)
	}
	if pod, ok := object.(*corev1.Pod); ok {
		for i := range pod.Spec.Containers {
			container := &pod.Spec.Containers[i]
			container.Command, container.Args, container.Env, container.EnvFrom = nil, nil, nil, nil
		}
		pod.Spec.InitContainers, pod.Status.ContainerStatuses, pod.Status.InitContainerStatuses = nil, nil, nil
	}
	return object, nil
}

func (v *view) informers() []cache.SharedIndexInformer {
	return []cache.SharedIndexInformer{v.nodes, v.pods, v.budgets, v.daemonSets, v.attachments}
}

// filled waits until the first lists are in, unless one is refused. It heartbeats, since a large
// cluster takes a while.
func (v *view) filled(ctx context.Context) error {
	filling, cancel := context.WithTimeoutCause(ctx, fillWithin, fmt.Errorf("no complete answer within %s", fillWithin))
	defer cancel()
	filling, refuse := context.WithCancelCause(filling)
	defer refuse(nil)
	woken, unsubscribe := v.subscribe()
	defer unsubscribe()
	go func() {
		for beat := time.Tick(activities.BeatEvery); ; {
			// Not with the context of the filling: the SDK keeps the context of a heartbeat for
			// those that follow, and takes its end for the activity's.
			activity.RecordHeartbeat(ctx, "reading nodes, pods, budgets and attached volumes")
			select {
			case <-filling.Done():
				return
			case <-beat:
			}
		}
	}()
	go func() {
		for {
			if err := v.refusal(); err != nil {
				refuse(err)
			}
			select {
			case <-filling.Done():
				return
			case <-woken:
			}
		}
	}()
	var synced []cache.InformerSynced
	for _, informer := range v.informers() {
		synced = append(synced, informer.HasSynced)
	}
	if !cache.WaitForCacheSync(filling.Done(), synced...) {
		if err := v.refusal(); err != nil {
			return err
		}
		return errors.Join(context.Cause(filling), v.lastTrouble())
	}
	return nil
}

const fillWithin = 2 * time.Minute

// subscribe returns a channel that gets a value after every change; changes that come while
// one is unread are merged.
func (v *view) subscribe() (<-chan struct{}, func()) {
	woken := make(chan struct{}, 1)
	v.mu.Lock()
	defer v.mu.Unlock()
	v.subscribers[woken] = true
	return woken, func() {
		v.mu.Lock()
		defer v.mu.Unlock()
		delete(v.subscribers, woken)
	}
}

func (v *view) changed() { v.notify(nil) }

func (v *view) failed(informer cache.SharedIndexInformer, err error) {
	v.mu.Lock()
	if apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err) {
		v.refused[informer] = err
	} else {
		delete(v.refused, informer)
	}
	v.mu.Unlock()
	v.notify(err)
}

// refusal says that the first list of an informer was refused.
func (v *view) refusal() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, informer := range v.informers() {
		if err := v.refused[informer]; err != nil && !informer.HasSynced() {
			return err
		}
	}
	return nil
}

func (v *view) notify(trouble error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.trouble = trouble
	v.wake()
}

func (v *view) answered(err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	news := (v.unreachable == nil) != (err == nil)
	v.unreachable = err
	if news {
		v.wake()
	}
}

// wake tells all subscribers to look; v.mu is held.
func (v *view) wake() {
	for woken := range v.subscribers {
		select {
		case woken <- struct{}{}:
		default:
		}
	}
}

func (v *view) lastTrouble() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	return cmp.Or(v.unreachable, v.trouble)
}

func (v *view) node(name string) *corev1.Node {
	object, exists, _ := v.nodes.GetStore().GetByKey(name)
	if !exists {
		return nil
	}
	return object.(*corev1.Node)
}

func (v *view) allNodes() []*corev1.Node {
	objects := v.nodes.GetStore().List()
	nodes := make([]*corev1.Node, len(objects))
	for i, object := range objects {
		nodes[i] = object.(*corev1.Node)
	}
	return nodes
}

// nodeOf finds the node that runs on an instance.
func (v *view) nodeOf(instance string) *corev1.Node {
	for _, node := range v.allNodes() {
		if instanceOf(node) == instance {
			return node
		}
	}
	return nil
}

func (v *view) podsOn(node string) []*corev1.Pod { return v.podsBy(byNode, node) }

func (v *view) podsIn(namespace string) []*corev1.Pod { return v.podsBy(byNamespace, namespace) }

// siblings are the pods of the controllers that have a pod among the given ones, by controller.
func (v *view) siblings(pods []*corev1.Pod) map[types.UID][]*corev1.Pod {
	out := map[types.UID][]*corev1.Pod{}
	for _, pod := range pods {
		if controller := metav1.GetControllerOf(pod); controller != nil && out[controller.UID] == nil {
			out[controller.UID] = v.podsBy(byController, string(controller.UID))
		}
	}
	return out
}

func (v *view) podsBy(index, value string) []*corev1.Pod {
	objects, _ := v.pods.GetIndexer().ByIndex(index, value)
	pods := make([]*corev1.Pod, len(objects))
	for i, object := range objects {
		pods[i] = object.(*corev1.Pod)
	}
	return pods
}

func (v *view) allBudgets() []*policyv1.PodDisruptionBudget {
	objects := v.budgets.GetStore().List()
	budgets := make([]*policyv1.PodDisruptionBudget, len(objects))
	for i, object := range objects {
		budgets[i] = object.(*policyv1.PodDisruptionBudget)
	}
	return budgets
}

func (v *view) allDaemonSets() []*appsv1.DaemonSet {
	objects := v.daemonSets.GetStore().List()
	sets := make([]*appsv1.DaemonSet, len(objects))
	for i, object := range objects {
		sets[i] = object.(*appsv1.DaemonSet)
	}
	return sets
}

func (v *view) attachedTo(node string) []*storagev1.VolumeAttachment {
	objects, _ := v.attachments.GetIndexer().ByIndex(byNode, node)
	attachments := make([]*storagev1.VolumeAttachment, len(objects))
	for i, object := range objects {
		attachments[i] = object.(*storagev1.VolumeAttachment)
	}
	return attachments
}
