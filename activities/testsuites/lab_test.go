package testsuites

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes"

	"github.com/fairway-project/fairway/e2e"
	"github.com/fairway-project/fairway/lab"
)

// TestOnAnAPIServer starts one control plane for all suites that Fairway runs itself.
func TestOnAnAPIServer(t *testing.T) {
	soon := [2]time.Duration{100 * time.Millisecond, 300 * time.Millisecond}
	l, err := lab.StartControlPlane(t.Context(), lab.Options{
		Dir: t.TempDir(), Out: t.Output(), Delays: lab.Delays{NodeReady: soon, PodReady: soon, PodStop: soon},
	}, "e2e-12-abc", lab.ClusterOptions{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, l.Stop()) })
	w := newWorld(filepath.Join(t.TempDir(), "suites"), "")
	w.access, err = l.RESTConfigAs("e2e-12-abc", "fairway")
	require.NoError(t, err)
	admin, err := l.RESTConfig("e2e-12-abc")
	require.NoError(t, err)
	client, err := kubernetes.NewForConfig(admin)
	require.NoError(t, err)
	files := map[string]string{}
	w.activities.File = func(_ context.Context, commit, name string) (string, bool, error) {
		text, found := files[name]
		return text, found && commit == "abc", nil
	}
	w.activities.Settings.Workload.Namespace = "store"
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node", Annotations: map[string]string{"kwok.x-k8s.io/node": "fake"}}}
	_, err = client.CoreV1().Nodes().Create(t.Context(), node, metav1.CreateOptions{})
	require.NoError(t, err)

	const job = "apiVersion: batch/v1\nkind: Job\nmetadata: {name: check}\nspec:\n  template:\n    %sspec:\n      restartPolicy: Never\n      containers: [{name: main, image: 'example.org/{version}'}]\n"
	files["good.yaml"] = fmt.Sprintf(job, "metadata: {annotations: {}}\n    ")
	t.Run("a command gets into the cluster by its kubeconfig", func(t *testing.T) {
		kubectl, err := filepath.Abs("../../.lab/bin/kubectl")
		require.NoError(t, err)
		result, err := w.run(e2e.Suite{Name: "a suite", Command: []string{kubectl, "get", "node", "node"}})
		require.NoError(t, err)
		require.True(t, result.Passed, "%+v %s", result, w.stored)
		requireNothingLeft(t, w.activities.Root)
	})
	t.Run("a job that completes has passed, without a log if there is none", func(t *testing.T) {
		result, err := w.run(e2e.Suite{Name: "job", Job: &e2e.JobSuite{File: "good.yaml"}})
		require.NoError(t, err)
		require.True(t, result.Passed, "%+v", result)
		require.Equal(t, 1, result.Ran)
		require.Contains(t, w.stored, "e2e/12/abc/job/log")
		requireNoJobs(t, client)
	})
	t.Run("one whose report cannot be had has not", func(t *testing.T) {
		result, err := w.run(e2e.Suite{Name: "job", Job: &e2e.JobSuite{File: "good.yaml", JUnit: "log"}})
		require.NoError(t, err)
		require.False(t, result.Passed)
		require.Contains(t, result.Problem, "log of Job fairway-e2e-suites/check-")
		requireNoJobs(t, client)
	})
	t.Run("one that never ends is ended", func(t *testing.T) {
		files["slow.yaml"] = fmt.Sprintf(job, "metadata: {annotations: {}}\n    ") + "  suspend: true\n"
		result, err := w.run(e2e.Suite{Name: "job", Within: 2 * time.Second, Job: &e2e.JobSuite{File: "slow.yaml"}})
		require.NoError(t, err)
		require.False(t, result.Passed)
		require.Contains(t, result.Problem, "It was not over after 2s (within).")
		requireNoJobs(t, client)
	})
	t.Run("one that fails has failed", func(t *testing.T) {
		files["bad.yaml"] = fmt.Sprintf(job, "metadata: {annotations: {}}\n    ") + "  activeDeadlineSeconds: 1\n  suspend: false\n  parallelism: 1\n"
		files["bad.yaml"] += "  completions: 1000\n"
		result, err := w.run(e2e.Suite{Name: "job", Job: &e2e.JobSuite{File: "bad.yaml"}})
		require.NoError(t, err)
		require.Equal(t, 1, result.Failed, "%+v", result)
		require.Contains(t, result.Failures[0].Message, "DeadlineExceeded")
		requireNoJobs(t, client)
	})
	t.Run("a namespace that is missing is a problem", func(t *testing.T) {
		files["elsewhere.yaml"] = "apiVersion: batch/v1\nkind: Job\nmetadata: {name: a, namespace: nowhere}\nspec: {template: {spec: {restartPolicy: Never, containers: [{name: a, image: a}]}}}\n"
		result, err := w.run(e2e.Suite{Name: "job", Job: &e2e.JobSuite{File: "elsewhere.yaml"}})
		require.NoError(t, err)
		require.Contains(t, result.Problem, `"nowhere" not found`)
	})

	t.Run("without the workload there is nothing to update", func(t *testing.T) {
		result, err := w.run(e2e.Suite{Name: "store", StatefulSet: &e2e.StatefulSetSuite{}})
		require.NoError(t, err)
		require.Contains(t, result.Problem, "There is no StatefulSet store/fairway-e2e-store")
	})
	makeStore(t, client)
	t.Run("a StatefulSet is updated pod by pod and keeps its volumes", func(t *testing.T) {
		for range 2 { // as after a crash
			result, err := w.run(e2e.Suite{Name: "store", Within: time.Minute, StatefulSet: &e2e.StatefulSetSuite{}})
			require.NoError(t, err)
			require.True(t, result.Passed, "%+v", result)
			require.Equal(t, 7, result.Ran)
		}
	})
	t.Run("what runs is ready", func(t *testing.T) {
		site := httptest.NewServer(http.RedirectHandler("https://elsewhere.invalid/", http.StatusFound))
		defer site.Close()
		result, err := w.run(e2e.Suite{Name: "smoke", Smoke: &e2e.SmokeSuite{Namespaces: []string{"store"}, URLs: []string{site.URL + "/{cluster}"}}})
		require.NoError(t, err)
		require.True(t, result.Passed, "%+v", result)
		require.Equal(t, 3, result.Ran)
	})
	t.Run("what is not ready, not there or answers nothing is named", func(t *testing.T) {
		site := httptest.NewServer(http.NotFoundHandler())
		defer site.Close()
		deployment := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "stuck"}, Spec: appsv1.DeploymentSpec{
			Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "stuck"}}, Template: podTemplate("stuck")}}
		deployment.Spec.Template.Spec.NodeSelector = map[string]string{"no": "node"}
		_, err := client.AppsV1().Deployments("store").Create(t.Context(), deployment, metav1.CreateOptions{})
		require.NoError(t, err)
		result, err := w.run(e2e.Suite{Name: "smoke", Smoke: &e2e.SmokeSuite{Namespaces: []string{"store", "nowhere"}, URLs: []string{site.URL}}})
		require.NoError(t, err)
		require.Equal(t, 3, result.Failed, "%+v", result)
		require.Equal(t, "Deployment store/stuck is ready", result.Failures[0].Case)
		require.Equal(t, "namespace nowhere has workloads", result.Failures[1].Case)
		require.Equal(t, "it answers with 404 Not Found", result.Failures[2].Message)
	})
	t.Run("a pod that cannot come back ends the update by its time", func(t *testing.T) {
		_, err := client.CoreV1().Nodes().Patch(t.Context(), "node", "application/merge-patch+json", []byte(`{"spec":{"unschedulable":true}}`), metav1.PatchOptions{})
		require.NoError(t, err)
		result, err := w.run(e2e.Suite{Name: "store", Within: 5 * time.Second, StatefulSet: &e2e.StatefulSetSuite{}})
		require.NoError(t, err)
		require.False(t, result.Passed)
		require.Contains(t, result.Problem, "It was not over after 5s (within).")
		require.Equal(t, "the rolling update completes", result.Failures[0].Case, "%+v", result)
	})
}

func requireNoJobs(t *testing.T, client kubernetes.Interface) {
	t.Helper()
	jobs, err := client.BatchV1().Jobs("").List(t.Context(), metav1.ListOptions{})
	require.NoError(t, err)
	require.Empty(t, jobs.Items)
}

func podTemplate(app string) corev1.PodTemplateSpec {
	return corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": app}},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Image: "example.org/main:1"}}}}
}

// makeStore makes what StartWorkload does, with volumes that are there already.
func makeStore(t *testing.T, client kubernetes.Interface) {
	t.Helper()
	_, err := client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "store"}}, metav1.CreateOptions{})
	require.NoError(t, err)
	size, class, replicas, least := resource.MustParse("1Gi"), "by-hand", int32(3), intstr.FromInt32(2)
	for i := range replicas {
		volume := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("volume-%d", i)}, Spec: corev1.PersistentVolumeSpec{
			Capacity: corev1.ResourceList{corev1.ResourceStorage: size}, AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}, StorageClassName: class,
			PersistentVolumeSource: corev1.PersistentVolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/nowhere"}}}}
		_, err := client.CoreV1().PersistentVolumes().Create(t.Context(), volume, metav1.CreateOptions{})
		require.NoError(t, err)
	}
	selector := &metav1.LabelSelector{MatchLabels: map[string]string{"app": storeName}}
	set := &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Name: storeName}, Spec: appsv1.StatefulSetSpec{
		Replicas: &replicas, Selector: selector, ServiceName: storeName, Template: podTemplate(storeName), PodManagementPolicy: appsv1.ParallelPodManagement,
		VolumeClaimTemplates: []corev1.PersistentVolumeClaim{{ObjectMeta: metav1.ObjectMeta{Name: "data"}, Spec: corev1.PersistentVolumeClaimSpec{
			StorageClassName: &class, AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: size}}}}},
	}}
	set.Spec.Template.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "data", MountPath: "/data"}}
	_, err = client.AppsV1().StatefulSets("store").Create(t.Context(), set, metav1.CreateOptions{})
	require.NoError(t, err)
	_, err = client.PolicyV1().PodDisruptionBudgets("store").Create(t.Context(), &policyv1.PodDisruptionBudget{
		ObjectMeta: metav1.ObjectMeta{Name: storeName}, Spec: policyv1.PodDisruptionBudgetSpec{Selector: selector, MinAvailable: &least}}, metav1.CreateOptions{})
	require.NoError(t, err)
}
