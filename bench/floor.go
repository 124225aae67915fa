package main

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"

	"github.com/fairway-project/fairway/drain"
)

// floor knows what a scenario is and does nothing that it does not need: no limit of requests,
// 50 evictions at a time where there is no budget, and one after another where there is one,
// since the API server lets only one of two from a budget through at once.
type floor struct{ client kubernetes.Interface }

func (f floor) drain(ctx context.Context, s scenario) error {
	if err := cordon(ctx, f.client, drained, true); err != nil {
		return err
	}
	list, err := f.client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	changes, err := f.client.CoreV1().Pods(namespace).Watch(ctx, metav1.ListOptions{ResourceVersion: list.ResourceVersion})
	if err != nil {
		return err
	}
	defer changes.Stop()
	d := departure{
		floor: f, mayLeave: s.mayLeave(), waiting: list.Items, replicas: s.replicas,
		left: map[types.UID]bool{}, evicted: map[types.UID]bool{}, ready: map[string]map[types.UID]bool{},
	}
	for i := range list.Items {
		d.left[list.Items[i].UID] = true
		d.note(&list.Items[i])
	}
	group, ctx := errgroup.WithContext(ctx)
	if s.budget != "" {
		d.waiting = nil
		group.Go(func() error { return f.evictWithin(ctx, "workload-0", list.Items) })
	}
	group.Go(func() error { return d.run(ctx, changes) })
	return group.Wait()
}

// departure follows the pods of the namespace, all of which are on the node at first, and evicts
// those that are waiting.
type departure struct {
	floor
	replicas, mayLeave int // of each workload
	waiting            []corev1.Pod
	left, evicted      map[types.UID]bool            // of those on the node
	ready              map[string]map[types.UID]bool // by workload
}

func (d *departure) run(ctx context.Context, changes watch.Interface) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(50)
	for len(d.left) > 0 {
		var still []corev1.Pod
		for _, pod := range d.waiting {
			ready := d.ready[pod.Labels["app"]]
			if len(ready) <= d.replicas-d.mayLeave {
				still = append(still, pod)
				continue
			}
			d.evicted[pod.UID] = true
			d.note(&pod)
			group.Go(func() error { return d.evict(ctx, pod) })
		}
		d.waiting = still
		select {
		case event, open := <-changes.ResultChan():
			pod, ok := event.Object.(*corev1.Pod)
			if !open || !ok {
				return errors.Join(errors.New("the watch of the pods ended"), group.Wait())
			}
			if event.Type == watch.Deleted {
				delete(d.left, pod.UID)
			}
			d.note(pod)
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), group.Wait())
		}
	}
	return group.Wait()
}

func (d *departure) note(pod *corev1.Pod) {
	ready := d.ready[pod.Labels["app"]]
	if ready == nil {
		ready = map[types.UID]bool{}
		d.ready[pod.Labels["app"]] = ready
	}
	switch {
	case pod.DeletionTimestamp != nil, d.evicted[pod.UID]:
		delete(ready, pod.UID)
	case drain.Ready(pod):
		ready[pod.UID] = true
	}
}

// evictWithin evicts as many pods as the budget's status allows, and then waits for its change.
func (f floor) evictWithin(ctx context.Context, budget string, pods []corev1.Pod) error {
	changes, err := f.client.PolicyV1().PodDisruptionBudgets(namespace).Watch(ctx, metav1.SingleObject(metav1.ObjectMeta{Name: budget}))
	if err != nil {
		return err
	}
	defer changes.Stop()
	var status policyv1.PodDisruptionBudgetStatus
	for _, pod := range pods {
		for granted := false; !granted; {
			for status.DisruptionsAllowed == 0 {
				if status, err = next(ctx, changes); err != nil {
					return err
				}
			}
			err := f.evict(ctx, pod)
			switch {
			case apierrors.IsTooManyRequests(err):
				status.DisruptionsAllowed = 0
			case err != nil:
				return err
			default:
				granted = true
			}
		}
		// The API server has taken the eviction out of the budget and noted the pod there. What
		// came before that in the watch is out of date.
		for noted := false; !noted; _, noted = status.DisruptedPods[pod.Name] {
			if status, err = next(ctx, changes); err != nil {
				return err
			}
		}
	}
	return nil
}

func next(ctx context.Context, changes watch.Interface) (policyv1.PodDisruptionBudgetStatus, error) {
	select {
	case event := <-changes.ResultChan():
		if budget, ok := event.Object.(*policyv1.PodDisruptionBudget); ok {
			return budget.Status, nil
		}
		return policyv1.PodDisruptionBudgetStatus{}, fmt.Errorf("the watch of the budget ended: %v", event)
	case <-ctx.Done():
		return policyv1.PodDisruptionBudgetStatus{}, context.Cause(ctx)
	}
}

func (f floor) evict(ctx context.Context, pod corev1.Pod) error {
	return f.client.CoreV1().RESTClient().Post().MaxRetries(0).
		Namespace(pod.Namespace).Resource("pods").Name(pod.Name).SubResource("eviction").
		Body(&policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name}}).
		Do(ctx).Error()
}
