package manifests_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/fairway-project/fairway/activities/kube"
	"github.com/fairway-project/fairway/workflows"
)

// node makes one that gets Ready a second later, unless it is to stay as it is.
func (s *scene) node(name string, ready bool, annotations map[string]string) {
	s.Helper()
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{
		Name: name, Labels: map[string]string{"scene": s.namespace}, Annotations: map[string]string{"kwok.x-k8s.io/node": "fake"},
	}}
	for key, value := range annotations {
		node.Annotations[key] = value
	}
	if !ready {
		node.Annotations["lab.fairway.dev/not-ready"] = "true"
	}
	_, err := s.client.CoreV1().Nodes().Create(s.Context(), node, metav1.CreateOptions{})
	s.must(err)
	s.Cleanup(func() {
		_ = s.client.CoreV1().Nodes().Delete(context.Background(), name, metav1.DeleteOptions{})
	})
	if ready {
		s.eventually("node "+name+" is Ready", func() bool {
			node, err := s.client.CoreV1().Nodes().Get(s.Context(), name, metav1.GetOptions{})
			if err != nil {
				return false
			}
			for _, condition := range node.Status.Conditions {
				if condition.Type == corev1.NodeReady && condition.Status == corev1.ConditionTrue {
					return true
				}
			}
			return false
		})
	}
}

const web = `apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: NS}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template: {metadata: {labels: {app: web}}, spec: {nodeSelector: {scene: NS}, containers: [{name: main, image: "example.org/main:1"}]}}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: agent, namespace: NS}
spec:
  updateStrategy: {type: OnDelete}
  selector: {matchLabels: {app: agent}}
  template: {metadata: {labels: {app: agent}}, spec: {nodeSelector: {scene: NS}, containers: [{name: main, image: "example.org/main:1"}]}}
---
apiVersion: batch/v1
kind: Job
metadata: {name: later, namespace: NS}
spec: {suspend: true, template: {spec: {restartPolicy: Never, containers: [{name: main, image: "example.org/main:1"}]}}}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: NS}
spec: {type: LoadBalancer, selector: {app: web}, ports: [{port: 80}]}`

func testAwait(s *scene) {
	await := func(since time.Time, within time.Duration) error {
		return s.worker.Run(s.activities.AwaitWorkloads, workflows.AwaitWorkloads{Cluster: clusterID, Version: "v", Since: since, Within: within}, nil)
	}
	s.must(await(time.Now(), time.Minute)) // nothing to wait for
	s.manifest("a/web.yaml", web)
	_, err := s.apply()
	s.must(err)

	err = await(time.Now(), 500*time.Millisecond)
	s.requireError(err, workflows.Unhealthy, "cluster dev-1: after 500ms, 1 of 3 workloads are not ready: Deployment "+s.namespace+"/web: ", "2 pods such as web-", "not scheduled: ")
	require.NotContains(s, err.Error(), "Service")

	waiting := make(chan error, 1)
	s.forget()
	go func() { waiting <- await(time.Now(), time.Minute) }()
	s.eventually("it says what it waits for", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return strings.Contains(strings.Join(s.said, "\n"), "Deployment "+s.namespace+"/web")
	})
	s.node(s.namespace, true, nil)
	s.must(<-waiting)
	watches := s.count("GET /apis/apps/v1/deployments", "GET /apis/apps/v1/daemonsets", "GET /apis/batch/v1/jobs")
	require.LessOrEqual(s, watches, 6, "it watches and does not poll")

	agent := func(pods string) {
		_, err := s.client.AppsV1().DaemonSets(s.namespace).Patch(s.Context(), "agent", types.MergePatchType, fmt.Appendf(nil,
			`{"spec":{"updateStrategy":{"type":"RollingUpdate"},"template":{"metadata":{"annotations":{"lab.fairway.dev/not-ready":%q}}}}}`, pods), metav1.PatchOptions{})
		s.must(err)
	}
	mark := func(value string) {
		_, err := s.client.CoreV1().Nodes().Patch(s.Context(), s.namespace, types.MergePatchType, fmt.Appendf(nil, `{"metadata":{"annotations":{%q:%s}}}`, kube.Quarantined, value), metav1.PatchOptions{})
		s.must(err)
	}
	agent("true")
	s.requireError(await(time.Now(), time.Second), workflows.Unhealthy, "DaemonSet "+s.namespace+"/agent: ")
	mark(`"x"`)
	s.must(await(time.Now(), time.Minute)) // on a node that is given up for a while it need not run
	mark("null")
	s.requireError(await(time.Now(), time.Second), workflows.Unhealthy, "DaemonSet "+s.namespace+"/agent: ")

	s.must(s.client.AppsV1().DaemonSets(s.namespace).Delete(s.Context(), "agent", metav1.DeleteOptions{}))
	s.requireError(await(time.Now().Add(-time.Hour), time.Minute), workflows.Unhealthy, "DaemonSet "+s.namespace+"/agent: it is gone")
}

func testHealth(s *scene) {
	check := func() workflows.Health {
		var health workflows.Health
		s.must(s.worker.Run(s.activities.CheckHealth, workflows.CheckHealth{Cluster: clusterID}, &health))
		return health
	}
	s.settings.SystemNamespaces = []string{s.namespace}
	require.Equal(s, workflows.Health{Healthy: true}, check())

	s.node(s.namespace+"-booting", false, nil)
	health := check()
	require.False(s, health.Healthy)
	require.Contains(s, health.Problems[0], "No node is Ready; 1 have been started less than 10m0s ago.")
	s.node(s.namespace+"-ready", true, nil)
	require.True(s, check().Healthy, "a node may take a while to start")

	// Nodes as old as that cannot be made here: the API server says when they were made.
	s.fault = aged(s)
	health = check()
	require.Len(s, health.Problems, 1)
	require.Contains(s, health.Problems[0], "Node "+s.namespace+"-booting is not Ready")
	for _, mark := range []string{kube.CordonedBy, kube.Quarantined} {
		_, err := s.client.CoreV1().Nodes().Patch(s.Context(), s.namespace+"-booting", types.MergePatchType,
			fmt.Appendf(nil, `{"metadata":{"annotations":{%q:"x"}}}`, mark), metav1.PatchOptions{})
		s.must(err)
		require.True(s, check().Healthy, "a node that is being replaced is no problem")
		_, err = s.client.CoreV1().Nodes().Patch(s.Context(), s.namespace+"-booting", types.MergePatchType,
			fmt.Appendf(nil, `{"metadata":{"annotations":{%q:null}}}`, mark), metav1.PatchOptions{})
		s.must(err)
	}
	taint := func(taints string) {
		_, err := s.client.CoreV1().Nodes().Patch(s.Context(), s.namespace+"-booting", types.MergePatchType, fmt.Appendf(nil, `{"spec":{"taints":%s}}`, taints), metav1.PatchOptions{})
		s.must(err)
	}
	taint(`[{"key":"ToBeDeletedByClusterAutoscaler","value":"1","effect":"NoSchedule"}]`)
	require.True(s, check().Healthy, "nor is one that an autoscaler takes away")
	taint("null")
	s.fault = nil

	s.manifest("a/web.yaml", strings.ReplaceAll(web, "scene: NS", "scene: none"))
	_, err := s.apply()
	s.must(err)
	s.eventually("the workload is a problem", func() bool {
		health = check()
		return !health.Healthy
	})
	require.Len(s, health.Problems, 1)
	require.Contains(s, health.Problems[0], "Deployment "+s.namespace+"/web is not ready: ")
}

// aged makes nodes an hour older than they are.
func aged(s *scene) func(*http.Request) *http.Response {
	return func(request *http.Request) *http.Response {
		if request.URL.Path != "/api/v1/nodes" {
			return nil
		}
		list, err := s.client.CoreV1().Nodes().List(request.Context(), metav1.ListOptions{})
		s.must(err)
		list.Kind, list.APIVersion = "NodeList", "v1"
		for i := range list.Items {
			list.Items[i].CreationTimestamp.Time = list.Items[i].CreationTimestamp.Add(-time.Hour)
			list.Items[i].Kind, list.Items[i].APIVersion = "Node", "v1"
		}
		return answer(http.StatusOK, http.Header{}, encode(s, list))
	}
}

func testAwaitAPIServer(s *scene) {
	var asked atomic.Int32
	s.fault = func(request *http.Request) *http.Response {
		if asked.Add(1) > 2 {
			return nil
		}
		return answer(http.StatusServiceUnavailable, http.Header{}, `[-]etcd failed`)
	}
	s.must(s.worker.Run(s.activities.AwaitAPIServer, workflows.ManifestsOf{Cluster: clusterID}, nil))
	require.EqualValues(s, 3, asked.Load())

	s.fault = func(*http.Request) *http.Response { return answer(http.StatusServiceUnavailable, http.Header{}, `no`) }
	stopping := make(chan struct{})
	worker := s.worker
	worker.Stopping = stopping
	worker.Heartbeat = func(details any) {
		if strings.Contains(fmt.Sprint(details), "asking whether the API server is ready") {
			close(stopping)
		}
	}
	s.requireError(worker.Run(s.activities.AwaitAPIServer, workflows.ManifestsOf{Cluster: clusterID}, nil), workflows.Unreachable, "the worker stops")
}
