package manifests_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/temporal"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"

	"github.com/fairway-project/fairway/activities/activitytest"
	"github.com/fairway-project/fairway/activities/manifests"
	"github.com/fairway-project/fairway/lab"
	"github.com/fairway-project/fairway/registry"
	"github.com/fairway-project/fairway/render"
	"github.com/fairway-project/fairway/workflows"
)

const clusterID = "dev-1"

// TestOnAnAPIServer starts one control plane for all scenes. They come one after another, because a
// cluster has one inventory.
func TestOnAnAPIServer(t *testing.T) {
	c := startCluster(t)
	for _, scene := range []struct {
		name string
		run  func(*scene)
	}{
		{"what is as it was applied costs no request of its own", testNoChange},
		{"namespaces and kinds come before what needs them", testOrder},
		{"fields of another manager are a conflict", testConflict},
		{"what kubectl has applied is taken over", testLegacy},
		{"a workload that a drain has scaled waits", testSurged},
		{"what kubectl has applied and a drain has scaled is taken over", testLegacyAndScaled},
		{"a webhook that is down holds up only what it is for", testDeadWebhook},
		{"a kind that is not known yet is waited for", testLateKind},
		{"all that is wrong is named", testInvalid},
		{"a block stops before the next object", testBlock},
		{"a refusal is handed on at once", testBusy},
		{"kinds of a server that does not answer are not taken for wrong", testSilentGroup},
		{"deletions", testDeletions},
		{"what holds data is not deleted without a mark", testGuards},
		{"what does not go is named with its finalizers", testHeld},
		{"a plan shows what would change and changes nothing", testPlan},
		{"workloads are waited for", testAwait},
		{"health", testHealth},
		{"alerts", testAlerts},
		{"an API server is waited for", testAwaitAPIServer},
		{"what no manifest contains any more is pruned", testPrune},
	} {
		t.Run(scene.name, func(t *testing.T) { scene.run(c.stage(t)) })
	}
}

type cluster struct {
	lab     *lab.Lab
	access  *rest.Config // of the user fairway
	client  kubernetes.Interface
	dynamic dynamic.Interface
	scenes  *int
}

func startCluster(t *testing.T) cluster {
	t.Helper()
	soon := [2]time.Duration{100 * time.Millisecond, 300 * time.Millisecond}
	l, err := lab.StartControlPlane(t.Context(), lab.Options{
		Dir: t.TempDir(), Out: t.Output(), Delays: lab.Delays{NodeReady: [2]time.Duration{time.Second, time.Second}, PodReady: soon, PodStop: soon},
	}, clusterID, lab.ClusterOptions{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, l.Stop()) })
	admin, err := l.RESTConfig(clusterID)
	require.NoError(t, err)
	access, err := l.RESTConfigAs(clusterID, "fairway")
	require.NoError(t, err)
	client, err := kubernetes.NewForConfig(admin)
	require.NoError(t, err)
	objects, err := dynamic.NewForConfig(admin)
	require.NoError(t, err)
	return cluster{l, access, client, objects, new(int)}
}

// scene is a namespace, and what the release of the cluster is at the moment.
type scene struct {
	*testing.T
	cluster
	namespace  string
	activities *manifests.Activities
	worker     activitytest.Worker
	release    render.Release
	settings   manifests.HealthSettings
	blocked    error

	mu       sync.Mutex
	requests []string // method and path
	fault    func(*http.Request) *http.Response
	said     []string
}

func (c cluster) stage(t *testing.T) *scene {
	t.Helper()
	*c.scenes++
	s := &scene{T: t, cluster: c, namespace: fmt.Sprintf("scene-%d", *c.scenes)}
	_, err := c.client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: s.namespace}}, metav1.CreateOptions{})
	s.must(err)
	s.activities = &manifests.Activities{
		Clusters: s,
		Release: func(context.Context, string, string) (*render.Release, error) {
			release := s.release
			return &release, nil
		},
		Blocks:   s,
		Settings: func(registry.Cluster) (manifests.HealthSettings, error) { return s.settings, nil },
	}
	s.worker.Heartbeat = func(details any) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.said = append(s.said, fmt.Sprint(details))
	}
	return s
}

// REST counts requests.
func (s *scene) REST(context.Context, string) (*rest.Config, registry.Cluster, error) {
	access := rest.CopyConfig(s.access)
	access.Wrap(func(next http.RoundTripper) http.RoundTripper { return counting{s, next} })
	return access, registry.Cluster{ID: clusterID, Environment: "test"}, nil
}

type counting struct {
	*scene
	next http.RoundTripper
}

func (c counting) RoundTrip(request *http.Request) (*http.Response, error) {
	c.mu.Lock()
	c.requests = append(c.requests, request.Method+" "+request.URL.Path)
	fault := c.fault
	c.mu.Unlock()
	if fault != nil {
		if response := fault(request); response != nil {
			return response, nil
		}
	}
	return c.next.RoundTrip(request)
}

func (s *scene) Check(context.Context, string, string) error { return s.blocked }

// count returns the requests since the last call that begin like that.
func (s *scene) count(prefixes ...string) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, request := range s.requests {
		for _, prefix := range prefixes {
			if strings.HasPrefix(request, prefix) {
				n++
				break
			}
		}
	}
	return n
}

func (s *scene) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests, s.said = nil, nil
}

func (s *scene) must(err error) {
	s.Helper()
	require.NoError(s, err)
}

func (s *scene) eventually(what string, condition func() bool) {
	s.Helper()
	require.Eventually(s, condition, 30*time.Second, 50*time.Millisecond, what)
}

func (s *scene) requireError(err error, kind string, messages ...string) {
	s.Helper()
	var application *temporal.ApplicationError
	require.ErrorAs(s, err, &application)
	require.Equal(s, kind, application.Type(), application.Message())
	for _, message := range messages {
		require.Contains(s, application.Message(), message)
	}
}

// manifest adds objects of a file to the release; NS stands for the scene's namespace.
func (s *scene) manifest(file, documents string) {
	s.Helper()
	line := 1
	for document := range strings.SplitSeq(documents, "\n---\n") {
		filled := strings.ReplaceAll(document, "NS", s.namespace)
		text, err := yaml.YAMLToJSON([]byte(filled))
		s.must(err)
		object := &unstructured.Unstructured{}
		s.must(object.UnmarshalJSON(text))
		s.release.Manifests = append(s.release.Manifests, render.Manifest{File: "cluster/manifests/" + file, Line: line, Object: object})
		line += strings.Count(document, "\n") + 2
	}
}

func (s *scene) apply() (workflows.Applied, error) {
	var applied workflows.Applied
	err := s.worker.Run(s.activities.ApplyManifests, workflows.ManifestsOf{Cluster: clusterID, Version: "v"}, &applied)
	return applied, err
}

func (s *scene) remove(when workflows.DeletionTime) ([]workflows.ObjectChange, error) {
	var changes []workflows.ObjectChange
	err := s.worker.Run(s.activities.DeleteObjects, workflows.DeleteObjects{Cluster: clusterID, Version: "v", When: when}, &changes)
	return changes, err
}

func (s *scene) plan() (map[string]workflows.ObjectChange, error) {
	var changes []workflows.ObjectChange
	err := s.worker.Run(s.activities.PlanManifests, workflows.ManifestsOf{Cluster: clusterID, Version: "v"}, &changes)
	byName := map[string]workflows.ObjectChange{}
	for _, change := range changes {
		byName[change.Kind+" "+change.Name] = change
	}
	return byName, err
}

var (
	configMaps  = schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}
	crds        = schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}
	deployments = schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "deployments"}
)

func (s *scene) get(resource schema.GroupVersionResource, name string) *unstructured.Unstructured {
	s.Helper()
	object, err := s.dynamic.Resource(resource).Namespace(s.namespace).Get(s.Context(), name, metav1.GetOptions{})
	s.must(err)
	return object
}

// exists says whether a ConfigMap of the scene is there.
func (s *scene) exists(name string) bool {
	s.Helper()
	list, err := s.client.CoreV1().ConfigMaps(s.namespace).List(s.Context(), metav1.ListOptions{FieldSelector: "metadata.name=" + name})
	s.must(err)
	return len(list.Items) == 1
}

func (s *scene) configMap(name string, change ...func(*corev1.ConfigMap)) *corev1.ConfigMap {
	s.Helper()
	object := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}}
	for _, change := range change {
		change(object)
	}
	made, err := s.client.CoreV1().ConfigMaps(s.namespace).Create(s.Context(), object, metav1.CreateOptions{})
	s.must(err)
	return made
}

func answer(code int, header http.Header, body string) *http.Response {
	header.Set("Content-Type", "application/json")
	return &http.Response{StatusCode: code, Header: header, Body: io.NopCloser(strings.NewReader(body))}
}

func encode(s *scene, value any) string {
	s.Helper()
	text, err := json.Marshal(value)
	s.must(err)
	return string(text)
}
