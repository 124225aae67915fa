package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling"
	astypes "github.com/aws/aws-sdk-go-v2/service/autoscaling/types"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/fairway-project/fairway/workflows"
)

const (
	poolLabel = "node.kubernetes.io/node-pool"
	ownTaint  = "fairway.test/own" // keeps the sample's applications off
)

// pool is the node pool of a scene.
type pool struct {
	*stage
	name string
	size int
}

func (s *stage) newPool(ctx context.Context, each scene) (*pool, error) {
	p := &pool{stage: s, name: each.name, size: max(each.size, 1)}
	model, err := s.scaling.DescribeAutoScalingGroups(ctx, &autoscaling.DescribeAutoScalingGroupsInput{AutoScalingGroupNames: []string{"nodepool-worker-" + cluster}})
	if err != nil || len(model.AutoScalingGroups) == 0 {
		return nil, fmt.Errorf("finding the model, nodepool-worker-%s: %w", cluster, err)
	}
	tag := func(key, value string) astypes.Tag {
		return astypes.Tag{Key: &key, Value: &value, PropagateAtLaunch: aws.Bool(true)}
	}
	room := p.size * 2
	if each.full {
		room = p.size
	}
	subnets := *model.AutoScalingGroups[0].VPCZoneIdentifier
	if each.zoned {
		subnets, _, _ = strings.Cut(subnets, ",")
	}
	_, err = s.scaling.CreateAutoScalingGroup(ctx, &autoscaling.CreateAutoScalingGroupInput{
		AutoScalingGroupName: aws.String(p.group()), MinSize: aws.Int32(int32(p.size)), MaxSize: aws.Int32(int32(room)), DesiredCapacity: aws.Int32(int32(p.size)),
		LaunchTemplate:    &astypes.LaunchTemplateSpecification{LaunchTemplateName: aws.String(cluster + "-worker"), Version: aws.String("$Latest")},
		VPCZoneIdentifier: &subnets,
		Tags: []astypes.Tag{
			tag("kubernetes.io/cluster/"+cluster, "owned"), tag(poolLabel, p.name),
			tag("node.kubernetes.io/profile", "test"), tag("k8s.io/cluster-autoscaler/node-template/taint/"+ownTaint, "true:NoSchedule"),
		},
	})
	if err != nil {
		return nil, err
	}
	return p, until(ctx, "the pool's nodes are ready", func(ctx context.Context) (bool, error) {
		nodes, err := p.nodes(ctx)
		return len(nodes) == p.size, err
	})
}

func (p *pool) group() string { return "scene-" + p.name }

// remove ends what the scene has made.
func (p *pool) remove(ctx context.Context) error {
	_, err := p.scaling.DeleteAutoScalingGroup(ctx, &autoscaling.DeleteAutoScalingGroupInput{AutoScalingGroupName: aws.String(p.group()), ForceDelete: aws.Bool(true)})
	name := "scene-" + p.name
	return errors.Join(err,
		ignoreNotFound(p.kube.AppsV1().Deployments(metav1.NamespaceDefault).Delete(ctx, name, metav1.DeleteOptions{})),
		ignoreNotFound(p.kube.PolicyV1().PodDisruptionBudgets(metav1.NamespaceDefault).Delete(ctx, name, metav1.DeleteOptions{})))
}

// nodes lists those that are ready.
func (p *pool) nodes(ctx context.Context) ([]corev1.Node, error) {
	list, err := p.kube.CoreV1().Nodes().List(ctx, metav1.ListOptions{LabelSelector: poolLabel + "=" + p.name})
	if err != nil {
		return nil, err
	}
	var out []corev1.Node
	for _, node := range list.Items {
		for _, condition := range node.Status.Conditions {
			if condition.Type == corev1.NodeReady && condition.Status == corev1.ConditionTrue {
				out = append(out, node)
			}
		}
	}
	return out, nil
}

func (p *pool) nodeNames(ctx context.Context, count int) (names []string, err error) {
	nodes, err := p.nodes(ctx)
	for _, node := range nodes[:min(count, len(nodes))] {
		names = append(names, node.Name)
	}
	return names, err
}

// hold runs a pod on the pool that its budget never lets go, and holdTwo one on each of two nodes:
// the last node of a roll is never left for later.
func hold(ctx context.Context, p *pool) error    { return p.hold(ctx, 1) }
func holdTwo(ctx context.Context, p *pool) error { return p.hold(ctx, 2) }

func (p *pool) hold(ctx context.Context, count int32) error {
	labels := map[string]string{"application": "scene-" + p.name}
	meta := metav1.ObjectMeta{Name: "scene-" + p.name, Labels: labels}
	selector := &metav1.LabelSelector{MatchLabels: labels}
	never := intstr.FromInt32(0)
	_, err := p.kube.PolicyV1().PodDisruptionBudgets(metav1.NamespaceDefault).Create(ctx, &policyv1.PodDisruptionBudget{
		ObjectMeta: meta, Spec: policyv1.PodDisruptionBudgetSpec{MaxUnavailable: &never, Selector: selector},
	}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	_, err = p.kube.AppsV1().Deployments(metav1.NamespaceDefault).Create(ctx, &appsv1.Deployment{ObjectMeta: meta, Spec: appsv1.DeploymentSpec{
		Replicas: &count, Selector: selector,
		Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: corev1.PodSpec{
			NodeSelector: map[string]string{poolLabel: p.name},
			Tolerations:  []corev1.Toleration{{Key: ownTaint, Operator: corev1.TolerationOpExists}},
			TopologySpreadConstraints: []corev1.TopologySpreadConstraint{{
				TopologyKey: corev1.LabelHostname, MaxSkew: 1, WhenUnsatisfiable: corev1.DoNotSchedule, LabelSelector: selector,
			}},
			Containers: []corev1.Container{{Name: "app", Image: "registry.fleet.internal/test/app:1"}},
		}},
	}}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	return until(ctx, "the held pods are ready", func(ctx context.Context) (bool, error) {
		deployment, err := p.kube.AppsV1().Deployments(metav1.NamespaceDefault).Get(ctx, meta.Name, metav1.GetOptions{})
		return err == nil && deployment.Status.ReadyReplicas == count, err
	})
}

// free lets the held pod go.
func free(ctx context.Context, p *pool) error {
	_, err := p.kube.PolicyV1().PodDisruptionBudgets(metav1.NamespaceDefault).Patch(ctx, "scene-"+p.name, types.MergePatchType,
		[]byte(`{"spec":{"maxUnavailable":"100%"}}`), metav1.PatchOptions{})
	return err
}

// when waits until the roll's progress is so.
func (p *pool) when(ctx context.Context, what string, so func(workflows.RollProgress) bool) error {
	return until(ctx, what, func(ctx context.Context) (bool, error) {
		answer, err := p.temporal.QueryWorkflow(ctx, workflows.RollPoolID(cluster, p.name), "", workflows.ProgressQuery)
		if err != nil {
			return false, err
		}
		var progress workflows.RollProgress
		err = answer.Get(&progress)
		return err == nil && so(progress), err
	})
}

func until(ctx context.Context, what string, met wait.ConditionWithContextFunc) error {
	if err := wait.PollUntilContextCancel(ctx, 500*time.Millisecond, true, met); err != nil {
		return fmt.Errorf("waiting until %s: %w", what, err)
	}
	return nil
}

// endOldest ends the instance of the pool's first node, as Spot or a person might.
func (p *pool) endOldest(ctx context.Context) error {
	id, err := p.oldest(ctx)
	if err != nil {
		return err
	}
	_, err = p.scaling.TerminateInstanceInAutoScalingGroup(ctx, &autoscaling.TerminateInstanceInAutoScalingGroupInput{
		InstanceId: &id, ShouldDecrementDesiredCapacity: aws.Bool(false),
	})
	return err
}

func (p *pool) detachOldest(ctx context.Context) error {
	id, err := p.oldest(ctx)
	if err != nil {
		return err
	}
	group := p.group()
	_, err = p.scaling.DetachInstances(ctx, &autoscaling.DetachInstancesInput{
		AutoScalingGroupName: &group, InstanceIds: []string{id}, ShouldDecrementDesiredCapacity: aws.Bool(true),
	})
	return err
}

// oldest is the instance of the pool's oldest node.
func (p *pool) oldest(ctx context.Context) (id string, err error) {
	nodes, err := p.nodes(ctx)
	if err != nil {
		return "", err
	}
	oldest := slices.MinFunc(nodes, func(a, b corev1.Node) int { return a.CreationTimestamp.Compare(b.CreationTimestamp.Time) })
	return oldest.Spec.ProviderID[strings.LastIndex(oldest.Spec.ProviderID, "/")+1:], nil
}

func ignoreNotFound(err error) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
