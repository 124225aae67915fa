package testload

import (
	"context"
	"encoding/json"
	"fmt"
	"sync/atomic"

	"go.temporal.io/sdk/temporal"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	watchtools "k8s.io/client-go/tools/watch"

	"github.com/fairway-project/fairway/activities"
	"github.com/fairway-project/fairway/workflows"
)

// Names of the workload's parts, all in its namespace. Deployment, Service and budget share a name.
const (
	Web   = "fairway-e2e-web"
	Store = "fairway-e2e-store"
)

const fieldManager = "fairway-e2e"

// stopSleep is how long a pod of the web server goes on to answer after it was told to end, so that all who
// send requests have heard of it before.
const stopSleep = 10

// StartWorkload implements workflows.TestWorkloads.
func (a *Activities) StartWorkload(ctx context.Context, in workflows.OnTestCluster) error {
	var waitsFor atomic.Value
	waitsFor.Store("applying the workload")
	ctx, end := activities.Working(ctx, waitsFor.Load)
	defer end()
	client, err := a.client(ctx, in.Cluster)
	if err != nil {
		return err
	}
	size, err := resource.ParseQuantity(a.Workload.Storage)
	if err != nil {
		return invalid("e2e.workload.storage: %q is no size: %v", a.Workload.Storage, err)
	}
	if err := a.applyWorkload(ctx, client, in.Cluster, size); err != nil {
		return activities.Interrupted(ctx, err)
	}
	within, cancel := context.WithDeadline(ctx, in.Since.Add(a.Workload.ReadyWithin))
	defer cancel()
	apps, namespace := client.AppsV1().RESTClient(), a.Workload.Namespace
	for _, part := range []struct {
		resource, name string
		kind           runtime.Object
		ready          func(runtime.Object) (bool, string)
	}{
		{"deployments", Web, &appsv1.Deployment{}, deploymentReady},
		{"statefulsets", Store, &appsv1.StatefulSet{}, statefulSetReady},
	} {
		state := "nothing is known of it"
		waitsFor.Store(fmt.Sprintf("waiting for %s %s/%s", part.resource, namespace, part.name))
		if err := await(within, apps, part.resource, namespace, part.name, part.kind, func(object runtime.Object) bool {
			var ready bool
			ready, state = part.ready(object)
			return ready
		}); err != nil {
			if within.Err() != nil && ctx.Err() == nil {
				return temporal.NewNonRetryableApplicationError(fmt.Sprintf("cluster %s: %s %s/%s is not ready within %s: %s; does the cluster have room and the image (e2e.workload.image)?",
					in.Cluster, part.resource, namespace, part.name, a.Workload.ReadyWithin, state), workflows.Unhealthy, nil)
			}
			return activities.Interrupted(ctx, err)
		}
	}
	return nil
}

// await watches one object until it is as wanted.
func await(ctx context.Context, client rest.Interface, resource, namespace, name string, kind runtime.Object, wanted func(runtime.Object) bool) error {
	one := cache.NewListWatchFromClient(client, resource, namespace, fields.OneTermEqualSelector("metadata.name", name))
	_, err := watchtools.UntilWithSync(ctx, one, kind, nil, func(event watch.Event) (bool, error) {
		return event.Type != watch.Deleted && wanted(event.Object), nil
	})
	return err
}

func deploymentReady(object runtime.Object) (bool, string) {
	d, is := object.(*appsv1.Deployment)
	if !is {
		return false, "it is no Deployment"
	}
	s := d.Status
	return s.ObservedGeneration >= d.Generation && s.UpdatedReplicas == *d.Spec.Replicas && s.AvailableReplicas == *d.Spec.Replicas && s.Replicas == *d.Spec.Replicas,
		fmt.Sprintf("%d of %d pods are available", s.AvailableReplicas, *d.Spec.Replicas)
}

func statefulSetReady(object runtime.Object) (bool, string) {
	set, is := object.(*appsv1.StatefulSet)
	if !is {
		return false, "it is no StatefulSet"
	}
	s := set.Status
	return s.ObservedGeneration >= set.Generation && s.ReadyReplicas == *set.Spec.Replicas && s.UpdateRevision == s.CurrentRevision,
		fmt.Sprintf("%d of %d pods are ready", s.ReadyReplicas, *set.Spec.Replicas)
}

// applyWorkload applies all parts on the server side. What is there already stays as it is.
func (a *Activities) applyWorkload(ctx context.Context, client kubernetes.Interface, cluster string, storage resource.Quantity) error {
	core, apps, policy := client.CoreV1().RESTClient(), client.AppsV1().RESTClient(), client.PolicyV1().RESTClient()
	for _, part := range []struct {
		client   rest.Interface
		resource string
		object   metav1.Object
	}{
		{core, "namespaces", a.namespace()},
		{core, "services", a.service(Web, false)},
		{core, "services", a.service(Store, true)},
		{policy, "poddisruptionbudgets", a.budget(Web)},
		{policy, "poddisruptionbudgets", a.budget(Store)},
		{apps, "deployments", a.deployment()},
		{apps, "statefulsets", a.statefulSet(storage)},
	} {
		body, err := json.Marshal(part.object)
		if err != nil {
			return invalid("cluster %s: encoding %s %s: %v", cluster, part.resource, part.object.GetName(), err)
		}
		request := part.client.Patch(types.ApplyPatchType).Resource(part.resource).Name(part.object.GetName()).
			VersionedParams(&metav1.PatchOptions{FieldManager: fieldManager, Force: new(true)}, metav1.ParameterCodec).Body(body).Timeout(answerWithin)
		if part.object.GetNamespace() != "" {
			request = request.Namespace(part.object.GetNamespace())
		}
		if err := request.Do(ctx).Error(); err != nil {
			return fmt.Errorf("cluster %s: applying %s %s: %w", cluster, part.resource, part.object.GetName(), err)
		}
	}
	return nil
}

func labelsOf(name string) map[string]string {
	return map[string]string{"app.kubernetes.io/name": name}
}

func (a *Activities) meta(name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Name: name, Namespace: a.Workload.Namespace, Labels: labelsOf(name)}
}

func (a *Activities) namespace() *corev1.Namespace {
	return &corev1.Namespace{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Namespace"}, ObjectMeta: metav1.ObjectMeta{Name: a.Workload.Namespace}}
}

func (a *Activities) service(name string, headless bool) *corev1.Service {
	service := &corev1.Service{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Service"}, ObjectMeta: a.meta(name),
		Spec: corev1.ServiceSpec{Selector: labelsOf(name), Ports: []corev1.ServicePort{{
			Name: "http", Port: 80, Protocol: corev1.ProtocolTCP, TargetPort: intstr.FromInt(a.Workload.Port),
		}}},
	}
	if headless {
		service.Spec.ClusterIP = corev1.ClusterIPNone
	}
	return service
}

func (a *Activities) budget(name string) *policyv1.PodDisruptionBudget {
	return &policyv1.PodDisruptionBudget{
		TypeMeta: metav1.TypeMeta{APIVersion: "policy/v1", Kind: "PodDisruptionBudget"}, ObjectMeta: a.meta(name),
		Spec: policyv1.PodDisruptionBudgetSpec{MaxUnavailable: new(intstr.FromInt(1)), Selector: &metav1.LabelSelector{MatchLabels: labelsOf(name)}},
	}
}

func (a *Activities) deployment() *appsv1.Deployment {
	template := a.pod(Web)
	template.Spec.Containers[0].Lifecycle = &corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{Sleep: &corev1.SleepAction{Seconds: stopSleep}}}
	return &appsv1.Deployment{
		TypeMeta: metav1.TypeMeta{APIVersion: "apps/v1", Kind: "Deployment"}, ObjectMeta: a.meta(Web),
		Spec: appsv1.DeploymentSpec{Replicas: new(int32(a.Workload.Replicas)), Selector: &metav1.LabelSelector{MatchLabels: labelsOf(Web)}, Template: template},
	}
}

func (a *Activities) statefulSet(storage resource.Quantity) *appsv1.StatefulSet {
	template := a.pod(Store)
	template.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "data", MountPath: "/data"}}
	claim := corev1.PersistentVolumeClaim{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "PersistentVolumeClaim"}, ObjectMeta: metav1.ObjectMeta{Name: "data"},
		Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Resources:   corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: storage}},
		},
	}
	if a.Workload.StorageClass != "" {
		claim.Spec.StorageClassName = &a.Workload.StorageClass
	}
	return &appsv1.StatefulSet{
		TypeMeta: metav1.TypeMeta{APIVersion: "apps/v1", Kind: "StatefulSet"}, ObjectMeta: a.meta(Store),
		Spec: appsv1.StatefulSetSpec{
			Replicas: new(int32(a.Workload.Replicas)), ServiceName: Store, Selector: &metav1.LabelSelector{MatchLabels: labelsOf(Store)},
			Template: template, VolumeClaimTemplates: []corev1.PersistentVolumeClaim{claim},
			PersistentVolumeClaimRetentionPolicy: &appsv1.StatefulSetPersistentVolumeClaimRetentionPolicy{
				WhenDeleted: appsv1.DeletePersistentVolumeClaimRetentionPolicyType, WhenScaled: appsv1.RetainPersistentVolumeClaimRetentionPolicyType,
			},
		},
	}
}

func (a *Activities) pod(name string) corev1.PodTemplateSpec {
	return corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: labelsOf(name)},
		Spec: corev1.PodSpec{
			TerminationGracePeriodSeconds: new(int64(30)),
			TopologySpreadConstraints: []corev1.TopologySpreadConstraint{{
				MaxSkew: 1, TopologyKey: corev1.LabelHostname, WhenUnsatisfiable: corev1.ScheduleAnyway, LabelSelector: &metav1.LabelSelector{MatchLabels: labelsOf(name)},
			}},
			Containers: []corev1.Container{{
				Name: "server", Image: a.Workload.Image,
				Env:   []corev1.EnvVar{{Name: "PORT", Value: fmt.Sprint(a.Workload.Port)}},
				Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: int32(a.Workload.Port), Protocol: corev1.ProtocolTCP}},
				ReadinessProbe: &corev1.Probe{
					ProbeHandler:  corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/", Port: intstr.FromInt(a.Workload.Port)}},
					PeriodSeconds: 2,
				},
				Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{
					corev1.ResourceCPU: resource.MustParse("10m"), corev1.ResourceMemory: resource.MustParse("32Mi"),
				}},
			}},
		},
	}
}
