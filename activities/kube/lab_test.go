package kube_test

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/temporal"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes"

	"github.com/fairway-project/fairway/activities/activitytest"
	"github.com/fairway-project/fairway/activities/kube"
	"github.com/fairway-project/fairway/config"
	"github.com/fairway-project/fairway/lab"
	"github.com/fairway-project/fairway/registry"
	"github.com/fairway-project/fairway/workflows"
)

const clusterID = "dev-1"

// cluster is a control plane of the lab. Tests share it and run at the same time, each in a
// scene of its own.
type cluster struct {
	lab        *lab.Lab
	kubeconfig string               // of the user fairway, with the rights that Fairway has
	client     kubernetes.Interface // for everybody else
}

func startCluster(t *testing.T) cluster {
	t.Helper()
	dir := t.TempDir()
	soon := [2]time.Duration{100 * time.Millisecond, 300 * time.Millisecond}
	l, err := lab.StartControlPlane(t.Context(), lab.Options{
		Dir: dir, Out: t.Output(), Delays: lab.Delays{NodeReady: [2]time.Duration{time.Second, time.Second}, PodReady: soon, PodStop: soon},
	}, clusterID, lab.ClusterOptions{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, l.Stop()) })
	access, err := l.RESTConfig(clusterID)
	require.NoError(t, err)
	access.QPS, access.Burst = 200, 400
	client, err := kubernetes.NewForConfig(access)
	require.NoError(t, err)
	// What replaces nodes has to do without the rights of what applies manifests.
	require.NoError(t, client.RbacV1().ClusterRoleBindings().Delete(t.Context(), "fairway-manifests", metav1.DeleteOptions{}))
	return cluster{lab: l, kubeconfig: filepath.Join(dir, "kubeconfig-fairway"), client: client}
}

// scene is a namespace and nodes that only its own pods may run on, both with the scene's name.
type scene struct {
	*testing.T
	cluster
	name       string
	activities *kube.Activities
	worker     activitytest.Worker
	blocks     *blocks
	said       []string // what activities other than drains have heartbeated
}

// stage makes a scene. settings are further lines of fairway.yaml.
func (c cluster) stage(t *testing.T, name, settings string) *scene {
	t.Helper()
	s := &scene{T: t, cluster: c, name: name, blocks: &blocks{}}
	s.activities = newActivities(t, c.kubeconfig, settings, s.blocks)
	s.worker.Heartbeat = func(details any) {
		if text, ok := details.(string); ok {
			s.said = append(s.said, text)
		}
	}
	_, err := c.client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	s.must(err)
	return s
}

func newActivities(t *testing.T, kubeconfig, settings string, blocks *blocks) *kube.Activities {
	t.Helper()
	c, err := config.Parse("fairway.yaml", []byte("registry: {file: registry.yaml}\nkubernetes: {kubeconfig: "+kubeconfig+"}\n"+settings))
	require.NoError(t, err)
	return &kube.Activities{
		Clusters: &kube.Clusters{
			Find: func(_ context.Context, name string) (registry.Cluster, error) {
				return registry.Cluster{ID: name, Environment: "test"}, nil
			},
			Settings: c.Kubernetes,
		},
		Settings: c.Replace,
		Blocks:   blocks,
		Drain:    c.Drain,
	}
}

// blocks stands in for the actor of the cluster.
type blocks struct {
	mu    sync.Mutex
	state workflows.ClusterState
}

func (b *blocks) State(context.Context, string) (workflows.ClusterState, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.state, nil
}

func (b *blocks) Check(ctx context.Context, cluster, pool string) error {
	state, err := b.State(ctx, cluster)
	if err != nil {
		return err
	}
	return state.Refuse(time.Now(), pool)
}

func (b *blocks) set(blocks ...workflows.Block) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.state = workflows.ClusterState{Cluster: clusterID, Blocks: blocks, Orders: b.state.Orders}
}

func (b *blocks) order(order workflows.ForceOrder) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.state.Orders = append(b.state.Orders, order)
}

func (s *scene) must(err error) {
	s.Helper()
	require.NoError(s, err)
}

func (s *scene) eventually(what string, condition func() bool) {
	s.Helper()
	require.Eventually(s, condition, time.Minute, 50*time.Millisecond, what)
}

func requireError(t testing.TB, err error, kind string, final bool, message string) {
	t.Helper()
	var application *temporal.ApplicationError
	require.ErrorAs(t, err, &application)
	require.Equal(t, kind, application.Type(), application.Message())
	require.Equal(t, final, application.NonRetryable())
	require.Contains(t, application.Message(), message)
}

// ---- nodes

func (s *scene) nodeName(i int) string { return fmt.Sprintf("%s-%d", s.name, i) }

func (s *scene) instance(i int) string { return fmt.Sprintf("i-%s%d", s.name, i) }

// makeNode makes a node, which gets Ready a second later.
func (s *scene) makeNode(i int, change ...func(*corev1.Node)) {
	s.Helper()
	node := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{
			Name: s.nodeName(i),
			Labels: map[string]string{
				corev1.LabelHostname: s.nodeName(i), "scene": s.name, "node.kubernetes.io/node-pool": s.name,
				corev1.LabelInstanceTypeStable: "m5.large", corev1.LabelTopologyZone: "eu-central-1a",
			},
			Annotations: map[string]string{"kwok.x-k8s.io/node": "fake"},
		},
		Spec: corev1.NodeSpec{
			ProviderID: "aws:///eu-central-1a/" + s.instance(i),
			Taints:     []corev1.Taint{{Key: "scene", Value: s.name, Effect: corev1.TaintEffectNoSchedule}},
		},
	}
	for _, change := range change {
		change(node)
	}
	_, err := s.client.CoreV1().Nodes().Create(s.Context(), node, metav1.CreateOptions{})
	s.must(err)
}

func (s *scene) makeReadyNodes(n int) {
	s.Helper()
	for i := range n {
		s.makeNode(i)
	}
	s.eventually("the nodes are Ready", func() bool {
		return !slices.ContainsFunc(s.nodes(), func(node corev1.Node) bool { return !nodeReady(node) })
	})
}

func nodeReady(node corev1.Node) bool {
	return slices.ContainsFunc(node.Status.Conditions, func(c corev1.NodeCondition) bool {
		return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
	})
}

func (s *scene) nodes() []corev1.Node {
	s.Helper()
	list, err := s.client.CoreV1().Nodes().List(s.Context(), metav1.ListOptions{LabelSelector: "scene=" + s.name})
	s.must(err)
	return list.Items
}

func (s *scene) node(i int) *corev1.Node {
	s.Helper()
	node, err := s.client.CoreV1().Nodes().Get(s.Context(), s.nodeName(i), metav1.GetOptions{})
	s.must(err)
	return node
}

func (s *scene) patchNode(i int, patch string) {
	s.Helper()
	_, err := s.client.CoreV1().Nodes().Patch(s.Context(), s.nodeName(i), types.MergePatchType, []byte(patch), metav1.PatchOptions{})
	s.must(err)
}

// cordon is what a person does with kubectl.
func (s *scene) cordon(i int, cordoned bool) {
	s.Helper()
	s.patchNode(i, fmt.Sprintf(`{"spec":{"unschedulable":%t}}`, cordoned))
}

func (s *scene) deleteNode(i int) {
	s.Helper()
	s.must(s.client.CoreV1().Nodes().Delete(s.Context(), s.nodeName(i), metav1.DeleteOptions{}))
}

// ---- workloads

func (s *scene) podTemplate(app string, annotations map[string]string) corev1.PodTemplateSpec {
	return corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": app, "team": "anchor"}, Annotations: annotations},
		Spec: corev1.PodSpec{
			NodeSelector: map[string]string{"scene": s.name},
			Tolerations:  []corev1.Toleration{{Key: "scene", Operator: corev1.TolerationOpExists}},
			Containers:   []corev1.Container{{Name: "main", Image: "example.org/main:1"}},
		},
	}
}

// deploy runs replicas on the first node, whatever others there are.
func (s *scene) deploy(name string, replicas int32, change ...func(*appsv1.Deployment)) {
	s.Helper()
	template := s.podTemplate(name, nil)
	deployment := &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       appsv1.DeploymentSpec{Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": name}}, Template: template},
	}
	for _, change := range change {
		change(deployment)
	}
	_, err := s.client.AppsV1().Deployments(s.name).Create(s.Context(), deployment, metav1.CreateOptions{})
	s.must(err)
}

func (s *scene) deployDaemonSet(name string, template corev1.PodTemplateSpec) {
	s.Helper()
	_, err := s.client.AppsV1().DaemonSets(s.name).Create(s.Context(), &appsv1.DaemonSet{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       appsv1.DaemonSetSpec{Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": name}}, Template: template},
	}, metav1.CreateOptions{})
	s.must(err)
}

// budget makes a budget for the app of the given name. Its status is that of all its pods when
// awaitBudget has returned.
func (s *scene) budget(name, app string, change func(*policyv1.PodDisruptionBudgetSpec)) {
	s.Helper()
	budget := &policyv1.PodDisruptionBudget{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       policyv1.PodDisruptionBudgetSpec{Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": app}}},
	}
	change(&budget.Spec)
	_, err := s.client.PolicyV1().PodDisruptionBudgets(s.name).Create(s.Context(), budget, metav1.CreateOptions{})
	s.must(err)
}

func maxUnavailable(n int32) func(*policyv1.PodDisruptionBudgetSpec) {
	return func(b *policyv1.PodDisruptionBudgetSpec) { b.MaxUnavailable = new(intstr.FromInt32(n)) }
}

func minAvailable(n int32) func(*policyv1.PodDisruptionBudgetSpec) {
	return func(b *policyv1.PodDisruptionBudgetSpec) { b.MinAvailable = new(intstr.FromInt32(n)) }
}

// awaitBudget waits until a budget counts so many healthy pods.
func (s *scene) awaitBudget(name string, healthy int32) {
	s.Helper()
	s.eventually("budget "+name+" counts its pods", func() bool {
		budget, err := s.client.PolicyV1().PodDisruptionBudgets(s.name).Get(s.Context(), name, metav1.GetOptions{})
		return err == nil && budget.Status.ObservedGeneration == budget.Generation && budget.Status.CurrentHealthy == healthy
	})
}

// pods are those of an app on a node (any, if negative) that are not on their way out.
func (s *scene) pods(app string, node int) []corev1.Pod {
	s.Helper()
	list, err := s.client.CoreV1().Pods(s.name).List(s.Context(), metav1.ListOptions{LabelSelector: "app=" + app})
	s.must(err)
	return slices.DeleteFunc(list.Items, func(pod corev1.Pod) bool {
		return pod.DeletionTimestamp != nil || (node >= 0 && pod.Spec.NodeName != s.nodeName(node))
	})
}

func (s *scene) awaitReady(app string, replicas int) {
	s.Helper()
	s.eventually(fmt.Sprintf("%d pods of %s are ready", replicas, app), func() bool {
		ready := slices.DeleteFunc(s.pods(app, -1), func(pod corev1.Pod) bool { return !podReady(pod) })
		return len(ready) == replicas
	})
}

func (s *scene) awaitRunning(app string, replicas int) {
	s.Helper()
	s.eventually(fmt.Sprintf("%d pods of %s run", replicas, app), func() bool {
		running := slices.DeleteFunc(s.pods(app, -1), func(pod corev1.Pod) bool { return pod.Status.Phase != corev1.PodRunning })
		return len(running) == replicas
	})
}

func podReady(pod corev1.Pod) bool {
	return slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

// evictions are those that Fairway has asked for in the scene, by HTTP status.
func (s *scene) evictions() map[int]int {
	s.Helper()
	audit, err := s.lab.Audit(clusterID)
	s.must(err)
	count := map[int]int{}
	for _, event := range audit.By("fairway").Evictions() {
		if event.Namespace == s.name {
			count[event.Code]++
		}
	}
	return count
}

// appOf is the app of a pod that a drain names "namespace/app-hash-hash".
func appOf(pod string) string {
	_, name, _ := strings.Cut(pod, "/")
	app, _, _ := strings.Cut(name, "-")
	return app
}
