package testsuites

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"
)

// storeName is the StatefulSet that StartWorkload makes.
const storeName = "fairway-e2e-store"

// updatedAnnotation on its pods has all of them replaced when it changes.
const updatedAnnotation = "fairway.dev/e2e-updated"

// statefulSet updates the workload's StatefulSet pod by pod, and looks whether each one gets its volumes back.
func (r *run) statefulSet(ctx context.Context) (outcome, error) {
	c, err := r.connect()
	if err != nil {
		return outcome{}, err
	}
	namespace := r.Settings.Workload.Namespace
	what := fmt.Sprintf("StatefulSet %s/%s", namespace, storeName)
	set, err := c.asking.AppsV1().StatefulSets(namespace).Get(ctx, storeName, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return outcome{problem: fmt.Sprintf("There is no %s, which the workload of tests has: is e2e.workload.image configured?", what), final: true}, nil
	}
	if err != nil {
		return outcome{}, r.explain("reading "+what, err)
	}
	u, err := newUpdate(set)
	if err != nil {
		return outcome{problem: fmt.Sprintf("%s: %v.", what, err), final: true}, nil
	}
	stop, err := u.watch(ctx, c)
	if err != nil {
		return outcome{}, err
	}
	defer stop()
	r.say("waiting until %s is ready", what)
	if err := u.until(ctx, u.settled); err != nil {
		return outcome{problem: fmt.Sprintf("%s was not ready to be updated: %s.", what, u.standing())}, nil
	}
	before, err := r.claims(ctx, c, set)
	if err != nil {
		return outcome{}, err
	}
	u.begin()
	patch := fmt.Sprintf(`{"spec":{"template":{"metadata":{"annotations":{%q:%q}}}}}`, updatedAnnotation, time.Now().UTC().Format(time.RFC3339Nano))
	changed, err := c.asking.AppsV1().StatefulSets(namespace).Patch(ctx, storeName, types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{FieldManager: "fairway-e2e"})
	if err != nil {
		return outcome{}, r.explain("updating "+what, err)
	}
	late := u.until(ctx, func() bool { r.say("updating %s: %s", what, u.state()); return u.updated(changed.Generation) })
	asking, cancel := context.WithTimeout(context.WithoutCancel(ctx), askWithin) // it is of use to know even when time is over
	defer cancel()
	after, err := r.claims(asking, c, set)
	if err != nil {
		return outcome{}, err
	}
	o := outcome{cases: u.cases(late)}
	for _, pod := range slices.Sorted(maps.Keys(before)) {
		test := testCase{name: fmt.Sprintf("pod %s comes back with its claims and volumes", pod)}
		test.message = compare(before[pod], after[pod])
		test.failed = test.message != ""
		o.cases = append(o.cases, test)
	}
	return o, nil
}

// claimed is what a pod has of a volume.
type claimed struct {
	uid    types.UID
	volume string
}

// claims are those of each pod, by name.
func (r *run) claims(ctx context.Context, c clients, set *appsv1.StatefulSet) (map[string]map[string]claimed, error) {
	found := map[string]map[string]claimed{}
	for ordinal := range replicasOf(set) {
		name := fmt.Sprintf("%s-%d", set.Name, ordinal+startOf(set))
		pod, err := c.asking.CoreV1().Pods(set.Namespace).Get(ctx, name, metav1.GetOptions{})
		found[name] = map[string]claimed{}
		if apierrors.IsNotFound(err) {
			continue
		}
		if err != nil {
			return nil, r.explain("reading pod "+name, err)
		}
		for _, volume := range pod.Spec.Volumes {
			if volume.PersistentVolumeClaim == nil {
				continue
			}
			claim, err := c.asking.CoreV1().PersistentVolumeClaims(set.Namespace).Get(ctx, volume.PersistentVolumeClaim.ClaimName, metav1.GetOptions{})
			if apierrors.IsNotFound(err) {
				continue
			}
			if err != nil {
				return nil, r.explain("reading claim "+volume.PersistentVolumeClaim.ClaimName, err)
			}
			found[name][claim.Name] = claimed{claim.UID, claim.Spec.VolumeName}
		}
	}
	return found, nil
}

// compare says what is wrong with the claims of a pod; empty if nothing is.
func compare(before, after map[string]claimed) string {
	if len(before) == 0 {
		return "It had no claim before the update."
	}
	for _, name := range slices.Sorted(maps.Keys(before)) {
		was, is := before[name], after[name]
		switch {
		case was.volume == "":
			return fmt.Sprintf("Its claim %s had no volume before the update.", name)
		case is == claimed{}:
			return fmt.Sprintf("It has no claim %s any more.", name)
		case was.uid != is.uid:
			return fmt.Sprintf("Its claim %s is another one of the same name.", name)
		case was.volume != is.volume:
			return fmt.Sprintf("Its claim %s had volume %s and has %q.", name, was.volume, is.volume)
		}
	}
	if len(after) > len(before) {
		return "It has more claims than before the update."
	}
	return ""
}

func replicasOf(set *appsv1.StatefulSet) int {
	if set.Spec.Replicas == nil {
		return 1
	}
	return int(*set.Spec.Replicas)
}

func startOf(set *appsv1.StatefulSet) int {
	if set.Spec.Ordinals == nil {
		return 0
	}
	return int(set.Spec.Ordinals.Start)
}

// update is what is seen of a rolling update. Pods come in the order in which they changed, as one watch tells them.
type update struct {
	selector labels.Selector

	mu      sync.Mutex
	changed chan struct{} // closed at each change
	set     *appsv1.StatefulSet
	pods    map[string]*corev1.Pod
	old     map[types.UID]bool // pods from before it
	began   bool
	// What was wrong, and in which order pods came.
	order, atOnce []string
	budgets       map[string]*budget
}

// budget is how one stands.
type budget struct{ held, broken bool }

func newUpdate(set *appsv1.StatefulSet) (*update, error) {
	selector, err := metav1.LabelSelectorAsSelector(set.Spec.Selector)
	if err != nil {
		return nil, err
	}
	if set.Spec.UpdateStrategy.Type == appsv1.OnDeleteStatefulSetStrategyType {
		return nil, fmt.Errorf("its update strategy is %s, so nothing would happen", set.Spec.UpdateStrategy.Type)
	}
	if replicasOf(set) == 0 {
		return nil, fmt.Errorf("it has no replicas")
	}
	return &update{selector: selector, set: set, pods: map[string]*corev1.Pod{}, old: map[types.UID]bool{}, budgets: map[string]*budget{}, changed: make(chan struct{})}, nil
}

// watch begins to look, and knows all that there is when it returns.
func (u *update) watch(ctx context.Context, c clients) (stop func(), err error) {
	ctx, cancel := context.WithCancel(ctx)
	factory := informers.NewSharedInformerFactoryWithOptions(c.watching, 0, informers.WithNamespace(u.set.Namespace))
	see := func(object any, gone bool) {
		if last, ok := object.(cache.DeletedFinalStateUnknown); ok {
			object = last.Obj
		}
		u.mu.Lock()
		defer u.mu.Unlock()
		u.see(object, gone)
		close(u.changed)
		u.changed = make(chan struct{})
	}
	var synced []cache.InformerSynced
	for _, informer := range []cache.SharedIndexInformer{factory.Core().V1().Pods().Informer(), factory.Apps().V1().StatefulSets().Informer(), factory.Policy().V1().PodDisruptionBudgets().Informer()} {
		registered, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc: func(object any) { see(object, false) }, UpdateFunc: func(_, object any) { see(object, false) }, DeleteFunc: func(object any) { see(object, true) },
		})
		if err != nil {
			cancel()
			return nil, err
		}
		synced = append(synced, registered.HasSynced)
	}
	factory.Start(ctx.Done())
	stop = func() { cancel(); factory.Shutdown() }
	if !cache.WaitForCacheSync(ctx.Done(), synced...) {
		stop()
		return nil, ctx.Err()
	}
	return stop, nil
}

func (u *update) see(object any, gone bool) {
	switch o := object.(type) {
	case *appsv1.StatefulSet:
		if o.Name == u.set.Name {
			u.set = o
		}
	case *corev1.Pod:
		if owner := metav1.GetControllerOf(o); owner == nil || owner.UID != u.set.UID {
			return
		}
		known := u.pods[o.Name]
		switch {
		case gone && known != nil && known.UID == o.UID:
			delete(u.pods, o.Name)
		case !gone:
			u.pods[o.Name] = o
			if u.began && !u.old[o.UID] && (known == nil || known.UID != o.UID) {
				u.came(o)
			}
		}
	case *policyv1.PodDisruptionBudget:
		selector, err := metav1.LabelSelectorAsSelector(o.Spec.Selector)
		if err != nil || gone || !selector.Matches(labels.Set(u.set.Spec.Template.Labels)) || o.Status.ObservedGeneration < o.Generation {
			return
		}
		if u.budgets[o.Name] == nil {
			u.budgets[o.Name] = &budget{}
		}
		b := u.budgets[o.Name]
		if enough := o.Status.CurrentHealthy >= o.Status.DesiredHealthy; enough {
			b.held = true
		} else if u.began && b.held {
			b.broken = true
		}
	}
}

// came notes a new pod, and which others were not ready then.
func (u *update) came(pod *corev1.Pod) {
	u.order = append(u.order, pod.Name)
	for _, other := range slices.Sorted(maps.Keys(u.pods)) {
		if other != pod.Name && !ready(u.pods[other]) {
			u.atOnce = append(u.atOnce, fmt.Sprintf("%s was replaced while %s was not ready", pod.Name, other))
		}
	}
}

func ready(pod *corev1.Pod) bool {
	return pod.DeletionTimestamp == nil && slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

// until waits for something to be so. The condition is asked with u.mu held.
func (u *update) until(ctx context.Context, so func() bool) error {
	for {
		u.mu.Lock()
		done, changed := so(), u.changed
		u.mu.Unlock()
		if done {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}

// begin takes all pods that there are for old ones.
func (u *update) begin() {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, pod := range u.pods {
		u.old[pod.UID] = true
	}
	u.began = true
}

// settled says whether all pods are there, ready, and of the newest kind.
func (u *update) settled() bool {
	s, wanted := u.set.Status, replicasOf(u.set)
	if s.ObservedGeneration < u.set.Generation || s.CurrentRevision != s.UpdateRevision || int(s.ReadyReplicas) != wanted || len(u.pods) != wanted {
		return false
	}
	for _, pod := range u.pods {
		if !ready(pod) {
			return false
		}
	}
	return true
}

func (u *update) updated(generation int64) bool {
	return u.set.Status.ObservedGeneration >= generation && u.settled() &&
		!slices.ContainsFunc(slices.Collect(maps.Values(u.pods)), func(pod *corev1.Pod) bool { return u.old[pod.UID] })
}

func (u *update) standing() string {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.state()
}

func (u *update) state() string {
	s := u.set.Status
	return fmt.Sprintf("%d of %d pods are ready, %d of the newest revision", s.ReadyReplicas, replicasOf(u.set), s.UpdatedReplicas)
}

// cases are what there is to say of the update; late is why it was not waited for any longer.
func (u *update) cases(late error) []testCase {
	state := u.standing()
	u.mu.Lock()
	defer u.mu.Unlock()
	complete := testCase{name: "the rolling update completes", failed: late != nil, message: state + "."}
	order := testCase{name: "pods are replaced from the highest ordinal down", message: "They came in the order " + strings.Join(u.order, ", ") + "."}
	order.failed = !slices.IsSortedFunc(u.order, func(a, b string) int { return ordinalOf(b) - ordinalOf(a) }) || len(u.order) == 0
	single := testCase{name: "pods are replaced one at a time", failed: len(u.atOnce) > 0, message: strings.Join(u.atOnce, "; ") + "."}
	held := testCase{name: "the budget holds during the update", failed: len(u.budgets) == 0, message: "No budget covers its pods."}
	for _, name := range slices.Sorted(maps.Keys(u.budgets)) {
		if b := u.budgets[name]; b.broken || !b.held {
			held.failed, held.message = true, fmt.Sprintf("Budget %s/%s had fewer healthy pods than it wants.", u.set.Namespace, name)
		}
	}
	return []testCase{complete, order, single, held}
}

func ordinalOf(pod string) int {
	ordinal, err := strconv.Atoi(pod[strings.LastIndexByte(pod, '-')+1:])
	if err != nil {
		return -1
	}
	return ordinal
}
