package tests

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

// witness watches a cluster while the tests run and remembers what it has seen.
type witness struct {
	client kubernetes.Interface

	mu      sync.Mutex
	pods    map[types.UID]*corev1.Pod // as each was seen last
	budgets []budgetSeen
}

// budgetSeen is the state of a PodDisruptionBudget at a time.
type budgetSeen struct {
	at              time.Time
	namespace, name string
	healthy, wanted int32
}

func (b budgetSeen) String() string {
	return fmt.Sprintf("%s %s/%s has %d healthy pods and wants %d", b.at.Format(time.TimeOnly), b.namespace, b.name, b.healthy, b.wanted)
}

func newWitness(ctx context.Context, cluster string) (*witness, error) {
	access, err := theLab.RESTConfig(cluster)
	if err != nil {
		return nil, err
	}
	client, err := kubernetes.NewForConfig(access)
	if err != nil {
		return nil, err
	}
	w := &witness{client: client, pods: map[types.UID]*corev1.Pod{}}
	factory := informers.NewSharedInformerFactory(client, 0)
	pods, budgets := factory.Core().V1().Pods().Informer(), factory.Policy().V1().PodDisruptionBudgets().Informer()
	_, podsErr := pods.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(object any) { w.seePod(object.(*corev1.Pod)) },
		UpdateFunc: func(_, object any) { w.seePod(object.(*corev1.Pod)) },
	})
	_, budgetsErr := budgets.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(object any) { w.seeBudget(object.(*policyv1.PodDisruptionBudget)) },
		UpdateFunc: func(_, object any) { w.seeBudget(object.(*policyv1.PodDisruptionBudget)) },
	})
	// Servers that are killed are nothing to report.
	podsQuiet := pods.SetWatchErrorHandler(func(*cache.Reflector, error) {})
	budgetsQuiet := budgets.SetWatchErrorHandler(func(*cache.Reflector, error) {})
	if err := errors.Join(podsErr, budgetsErr, podsQuiet, budgetsQuiet); err != nil {
		return nil, err
	}
	factory.Start(theLab.Gone())
	if !cache.WaitForCacheSync(ctx.Done(), pods.HasSynced, budgets.HasSynced) {
		return nil, context.Cause(ctx)
	}
	return w, nil
}

func (w *witness) seePod(pod *corev1.Pod) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.pods[pod.UID] = pod
}

func (w *witness) seeBudget(budget *policyv1.PodDisruptionBudget) {
	if budget.Status.ObservedGeneration < budget.Generation {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.budgets = append(w.budgets, budgetSeen{
		time.Now(), budget.Namespace, budget.Name, budget.Status.CurrentHealthy, budget.Status.DesiredHealthy,
	})
}

// podsOn are all pods that were ever seen on a node.
func (w *witness) podsOn(node string) []*corev1.Pod {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []*corev1.Pod
	for _, pod := range w.pods {
		if pod.Spec.NodeName == node {
			out = append(out, pod)
		}
	}
	return out
}

// hurt are the states since a time in which a budget of the given namespaces, once satisfied, had
// fewer healthy pods than it wants.
func (w *witness) hurt(since time.Time, namespaces map[string]bool) []budgetSeen {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []budgetSeen
	satisfied := map[string]bool{}
	for _, seen := range w.budgets {
		key := seen.namespace + "/" + seen.name
		switch {
		case seen.healthy >= seen.wanted:
			satisfied[key] = true
		case satisfied[key] && seen.at.After(since) && namespaces[seen.namespace]:
			out = append(out, seen)
		}
	}
	return out
}
