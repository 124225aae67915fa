package tests

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/fairway-project/fairway/config"
	"github.com/fairway-project/fairway/drain"
	"github.com/fairway-project/fairway/workflows"
)

// makeNamespace makes the namespace of a test's own pool.
func (p pool) makeNamespace(t *testing.T) {
	t.Helper()
	_, err := p.client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: p.name}}, metav1.CreateOptions{})
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, p.client.CoreV1().Namespaces().Delete(cleanup(t), p.name, metav1.DeleteOptions{}))
	})
}

func labelsOf(name string) map[string]string { return map[string]string{"application": name} }

// podTemplate is of pods that run on the pool, spread over its nodes.
func (p pool) podTemplate(name string, annotations map[string]string) corev1.PodTemplateSpec {
	return corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: labelsOf(name), Annotations: annotations},
		Spec: corev1.PodSpec{
			NodeSelector:                  map[string]string{poolLabel: p.name},
			Tolerations:                   []corev1.Toleration{{Key: ownTaint, Operator: corev1.TolerationOpExists}},
			TerminationGracePeriodSeconds: aws.Int64(300),
			TopologySpreadConstraints: []corev1.TopologySpreadConstraint{{
				TopologyKey: corev1.LabelHostname, MaxSkew: 1, WhenUnsatisfiable: corev1.ScheduleAnyway,
				LabelSelector: &metav1.LabelSelector{MatchLabels: labelsOf(name)},
			}},
			Containers: []corev1.Container{{Name: "app", Image: "registry.fleet.internal/test/app:1"}},
		},
	}
}

// deploy runs a Deployment on the pool, in the namespace that makeNamespace has made.
func (p pool) deploy(t *testing.T, name string, replicas int32, annotations map[string]string) {
	t.Helper()
	_, err := p.client.AppsV1().Deployments(p.name).Create(t.Context(), &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labelsOf(name)},
		Spec: appsv1.DeploymentSpec{
			Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: labelsOf(name)}, Template: p.podTemplate(name, annotations),
		},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
}

// deploySet runs a StatefulSet on the pool; each pod has a volume of the sample's storage class if
// that is wanted.
func (p pool) deploySet(t *testing.T, name string, replicas int32, volumes bool) {
	t.Helper()
	set := &appsv1.StatefulSet{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labelsOf(name)},
		Spec: appsv1.StatefulSetSpec{
			Replicas: &replicas, ServiceName: name, PodManagementPolicy: appsv1.ParallelPodManagement,
			Selector: &metav1.LabelSelector{MatchLabels: labelsOf(name)}, Template: p.podTemplate(name, nil),
		},
	}
	if volumes {
		container := &set.Spec.Template.Spec.Containers[0]
		container.VolumeMounts = []corev1.VolumeMount{{Name: "data", MountPath: "/data"}}
		set.Spec.VolumeClaimTemplates = []corev1.PersistentVolumeClaim{{
			ObjectMeta: metav1.ObjectMeta{Name: "data"},
			Spec: corev1.PersistentVolumeClaimSpec{
				AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}, StorageClassName: aws.String("zonal"),
				Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}},
			},
		}}
	}
	_, err := p.client.AppsV1().StatefulSets(p.name).Create(t.Context(), set, metav1.CreateOptions{})
	require.NoError(t, err)
}

// protect makes a budget.
func (p pool) protect(t *testing.T, name string, spec policyv1.PodDisruptionBudgetSpec) {
	t.Helper()
	_, err := p.client.PolicyV1().PodDisruptionBudgets(p.name).Create(t.Context(), &policyv1.PodDisruptionBudget{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labelsOf(name)}, Spec: spec,
	}, metav1.CreateOptions{})
	require.NoError(t, err)
}

// protectAll makes a budget of the name of an application that lets none of its pods go.
func (p pool) protectAll(t *testing.T, name string) {
	t.Helper()
	p.protect(t, name, policyv1.PodDisruptionBudgetSpec{
		MaxUnavailable: new(intstr.FromInt32(0)), Selector: &metav1.LabelSelector{MatchLabels: labelsOf(name)},
	})
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		budget, err := p.client.PolicyV1().PodDisruptionBudgets(p.name).Get(t.Context(), name, metav1.GetOptions{})
		require.NoError(c, err)
		assert.Positive(c, budget.Status.CurrentHealthy)
		assert.Equal(c, budget.Status.ExpectedPods, budget.Status.CurrentHealthy)
	}, time.Minute, 100*time.Millisecond, "budget %s does not count its pods", name)
}

// podsOf are the pods of an application that are not on their way out, by name.
func (p pool) podsOf(t require.TestingT, name string) []corev1.Pod {
	list, err := p.client.CoreV1().Pods(p.name).List(background, metav1.ListOptions{LabelSelector: "application=" + name})
	require.NoError(t, err)
	return slices.DeleteFunc(list.Items, func(pod corev1.Pod) bool { return pod.DeletionTimestamp != nil })
}

func (p pool) awaitPods(t *testing.T, name string, replicas int) {
	t.Helper()
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		ready := 0
		for _, pod := range p.podsOf(c, name) {
			if drain.Ready(&pod) {
				ready++
			}
		}
		assert.Equal(c, replicas, ready)
	}, 2*time.Minute, 100*time.Millisecond, "%d pods of %s do not get ready", replicas, name)
}

// patchPod merges a patch of JSON into a pod.
func (p pool) patchPod(t *testing.T, name, patch string) {
	t.Helper()
	_, err := p.client.CoreV1().Pods(p.name).Patch(t.Context(), name, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
	require.NoError(t, err)
}

// annotate is a patch that sets an annotation, or removes it if the value is "null".
func annotate(annotation, value string) string {
	return fmt.Sprintf(`{"metadata":{"annotations":{%q:%s}}}`, annotation, value)
}

// gently sets how the nodes of the tests' clusters are drained.
func gently(g config.Gentleness) func(*config.Config, map[string]string) {
	return func(c *config.Config, _ map[string]string) {
		c.Drain.Environments = map[string]config.Gentleness{"test": g}
	}
}

// awaitHeld waits until exactly so many pods are left on the node, all held for a reason with this text.
func (r replacement) awaitHeld(t *testing.T, pods int, reason string) workflows.DrainProgress {
	t.Helper()
	return r.awaitProgress(t, func(c *assert.CollectT, progress workflows.DrainProgress) {
		assert.Equal(c, pods, progress.Left)
		require.Len(c, progress.Waiting, pods)
		for _, held := range progress.Waiting {
			assert.Contains(c, held.Reason, reason)
		}
	})
}

// awaitProgress waits until the drain has reported what is expected.
func (r replacement) awaitProgress(t *testing.T, expect func(*assert.CollectT, workflows.DrainProgress)) (progress workflows.DrainProgress) {
	t.Helper()
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		var reported bool
		progress, reported = r.reported(c)
		require.True(c, reported, "no drain")
		expect(c, progress)
	}, 90*time.Second, 50*time.Millisecond, "the drain does not come so far; it reported %+v", &progress)
	return progress
}
