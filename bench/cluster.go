package main

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"

	"github.com/fairway-project/fairway/drain"
	"github.com/fairway-project/fairway/lab"
)

const (
	clusterID = "bench"
	namespace = "bench"
	drained   = "n1"
	instance  = "i-00000000000000001" // of the node that is drained
)

var others = []string{"n2", "n3", "n4", "n5"}

// cluster is a control plane with five nodes. The first is filled and drained, the others take
// what leaves it.
type cluster struct {
	lab    *lab.Lab
	dir    string // of the lab
	client kubernetes.Interface
}

func newCluster(ctx context.Context, l *lab.Lab, dir string) (*cluster, error) {
	access, err := l.RESTConfig(clusterID)
	if err != nil {
		return nil, err
	}
	access.UserAgent = "bench"
	client, err := kubernetes.NewForConfig(access)
	if err != nil {
		return nil, err
	}
	c := &cluster{lab: l, dir: dir, client: client}
	capacity := corev1.ResourceList{
		corev1.ResourceCPU: resource.MustParse("64"), corev1.ResourceMemory: resource.MustParse("256Gi"), corev1.ResourcePods: resource.MustParse("250"),
	}
	for i, name := range append([]string{drained}, others...) {
		_, err := client.CoreV1().Nodes().Create(ctx, &corev1.Node{
			ObjectMeta: metav1.ObjectMeta{
				Name:        name,
				Labels:      map[string]string{corev1.LabelHostname: name, corev1.LabelTopologyZone: "eu-central-1a"},
				Annotations: map[string]string{"kwok.x-k8s.io/node": "fake"},
			},
			Spec:   corev1.NodeSpec{ProviderID: fmt.Sprintf("aws:///eu-central-1a/i-%017d", i+1)},
			Status: corev1.NodeStatus{Capacity: capacity, Allocatable: capacity},
		}, metav1.CreateOptions{})
		if err != nil {
			return nil, err
		}
	}
	// Every real node has such a pod, and every drainer has to know that it stays.
	labels := map[string]string{"app": "agent"}
	_, err = client.AppsV1().DaemonSets(metav1.NamespaceDefault).Create(ctx, &appsv1.DaemonSet{
		ObjectMeta: metav1.ObjectMeta{Name: "agent"},
		Spec:       appsv1.DaemonSetSpec{Selector: &metav1.LabelSelector{MatchLabels: labels}, Template: podTemplate(labels, 0)},
	}, metav1.CreateOptions{})
	if err != nil {
		return nil, err
	}
	return c, until(ctx, "the agent runs on every node", func(ctx context.Context) (bool, error) {
		set, err := client.AppsV1().DaemonSets(metav1.NamespaceDefault).Get(ctx, "agent", metav1.GetOptions{})
		return err == nil && set.Status.NumberReady == int32(1+len(others)), err
	})
}

// fill brings the pods of a scenario onto the node that is drained and opens the other nodes.
func (c *cluster) fill(ctx context.Context, s scenario) (*pods, error) {
	if err := c.cordon(ctx, true, others...); err != nil {
		return nil, err
	}
	if err := c.cordon(ctx, false, drained); err != nil {
		return nil, err
	}
	if _, err := c.client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}, metav1.CreateOptions{}); err != nil {
		return nil, err
	}
	err := until(ctx, "the namespace has its service account", func(ctx context.Context) (bool, error) {
		_, err := c.client.CoreV1().ServiceAccounts(namespace).Get(ctx, "default", metav1.GetOptions{})
		return err == nil, ignoreNotFound(err)
	})
	if err != nil {
		return nil, err
	}
	for i := range s.workloads {
		if err := c.deploy(ctx, s, fmt.Sprintf("workload-%d", i)); err != nil {
			return nil, err
		}
	}
	pods, err := watchPods(ctx, c.client)
	if err != nil {
		return nil, err
	}
	if err := pods.awaitReady(ctx, s.workloads*s.replicas); err != nil {
		return nil, err
	}
	for i := range s.workloads {
		if err := c.awaitBudget(ctx, s, fmt.Sprintf("workload-%d", i)); err != nil {
			return nil, err
		}
	}
	if err := c.cordon(ctx, false, others...); err != nil {
		return nil, err
	}
	// The controllers have used up what their limits let them do at once (30 requests, 20 more a
	// second). Every drain starts with that filled up again.
	select {
	case <-time.After(2 * time.Second):
		return pods, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (c *cluster) deploy(ctx context.Context, s scenario, name string) error {
	labels := map[string]string{"app": name}
	selector := &metav1.LabelSelector{MatchLabels: labels}
	if s.budget != "" {
		may := intstr.Parse(s.budget)
		budget := policyv1.PodDisruptionBudgetSpec{Selector: selector, MaxUnavailable: &may}
		if s.held {
			budget.MaxUnavailable = new(intstr.FromInt32(0))
		}
		_, err := c.client.PolicyV1().PodDisruptionBudgets(namespace).Create(ctx, &policyv1.PodDisruptionBudget{
			ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: budget,
		}, metav1.CreateOptions{})
		if err != nil {
			return err
		}
	}
	_, err := c.client.AppsV1().Deployments(namespace).Create(ctx, &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       appsv1.DeploymentSpec{Replicas: new(int32(s.replicas)), Selector: selector, Template: podTemplate(labels, s.readyAfter)},
	}, metav1.CreateOptions{})
	return err
}

func podTemplate(labels map[string]string, readyAfter time.Duration) corev1.PodTemplateSpec {
	template := corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: labels},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Image: "example.org/main:1"}}},
	}
	if readyAfter > 0 {
		template.Annotations = map[string]string{lab.ReadyDelayAnnotation: readyAfter.String()}
	}
	return template
}

// awaitBudget waits until a workload's budget knows that all its pods are ready.
func (c *cluster) awaitBudget(ctx context.Context, s scenario, name string) error {
	if s.budget == "" {
		return nil
	}
	return until(ctx, "budget "+name+" is up to date", func(ctx context.Context) (bool, error) {
		budget, err := c.client.PolicyV1().PodDisruptionBudgets(namespace).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return false, err
		}
		return budget.Status.ObservedGeneration == budget.Generation && budget.Status.CurrentHealthy == int32(s.replicas), nil
	})
}

// release lets a budget that was held allow what the scenario says, after a while. It returns
// when that was in force.
func (c *cluster) release(ctx context.Context, s scenario, hold time.Duration) (time.Time, error) {
	select {
	case <-time.After(hold):
	case <-ctx.Done():
		return time.Time{}, context.Cause(ctx)
	}
	patch := fmt.Appendf(nil, `{"spec":{"maxUnavailable":%q}}`, s.budget)
	_, err := c.client.PolicyV1().PodDisruptionBudgets(namespace).Patch(ctx, "workload-0", types.MergePatchType, patch, metav1.PatchOptions{})
	if err != nil {
		return time.Time{}, fmt.Errorf("releasing the budget: %w", err)
	}
	return time.Now(), nil
}

// left names the pods that should have gone from the drained node.
func (c *cluster) left(ctx context.Context) (names []string, err error) {
	list, err := c.client.CoreV1().Pods("").List(ctx, metav1.ListOptions{FieldSelector: "spec.nodeName=" + drained})
	if err != nil {
		return nil, err
	}
	for i := range list.Items {
		if pod := &list.Items[i]; drain.MustLeave(pod) {
			names = append(names, pod.Name)
		}
	}
	return names, nil
}

// clear removes everything that fill made.
func (c *cluster) clear(ctx context.Context) error {
	if err := c.client.CoreV1().Namespaces().Delete(ctx, namespace, metav1.DeleteOptions{}); err != nil {
		return err
	}
	return until(ctx, "the namespace is gone", func(ctx context.Context) (bool, error) {
		_, err := c.client.CoreV1().Namespaces().Get(ctx, namespace, metav1.GetOptions{})
		return apierrors.IsNotFound(err), ignoreNotFound(err)
	})
}

func (c *cluster) cordon(ctx context.Context, cordoned bool, nodes ...string) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, node := range nodes {
		group.Go(func() error { return cordon(ctx, c.client, node, cordoned) })
	}
	return group.Wait()
}

func cordon(ctx context.Context, client kubernetes.Interface, node string, cordoned bool) error {
	patch := fmt.Appendf(nil, `{"spec":{"unschedulable":%t}}`, cordoned)
	_, err := client.CoreV1().Nodes().Patch(ctx, node, types.MergePatchType, patch, metav1.PatchOptions{})
	return err
}

// until waits for something outside of a measurement.
func until(ctx context.Context, what string, met wait.ConditionWithContextFunc) error {
	if err := wait.PollUntilContextCancel(ctx, 200*time.Millisecond, true, met); err != nil {
		return fmt.Errorf("waiting until %s: %w", what, err)
	}
	return nil
}

func ignoreNotFound(err error) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
