package lab

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

const testCluster = "test-1"

// Long enough to tell it from the time that news take on a busy machine.
var testNodeReady = [2]time.Duration{1500 * time.Millisecond, 2 * time.Second}

// cluster is a control plane with five nodes for the tests below, which run in the order of
// their appearance: the later ones break parts of it.
type cluster struct {
	*testing.T
	lab    *Lab
	ctx    context.Context
	client kubernetes.Interface
}

func TestControlPlane(t *testing.T) {
	t.Parallel()
	c := startTestCluster(t)
	for _, test := range []struct {
		rule string
		run  func(cluster)
	}{
		{"a node is NotReady until its delay has passed", testNodeReadiness},
		{"workloads run and Jobs succeed", testWorkloads},
		{"users have their own rights", testUsers},
		{"kubeconfigs lead through the proxy", testKubeconfigs},
		{"evictions respect budgets and are on record", testEvictions},
		{"the ingress answers with the pods of a service", testIngress},
		{"nobody notices evictions within a budget", testIngressDuringEvictions},
		{"a service all of whose pods are gone answers badly", testIngressWithoutPods},
		{"annotations slow pods down and keep them from being ready", testSlowPods},
		{"a pod ends with its grace period", testGracePeriod},
		{"kubelets get sick, silent and well again", testKubelets},
		{"killed parts come back with their data", testKilledParts},
		{"a paused cluster answers nobody until it is resumed", testPause},
		{"StartCluster revives what is dead and leaves the rest alone", testStartAgain},
		{"StopCluster leaves nothing behind", testStopCluster},
		{"the ingress forgets a cluster that was stopped", testIngressForgets},
	} {
		passed := t.Run(test.rule, func(t *testing.T) {
			c := c
			c.T = t
			test.run(c)
		})
		if !passed {
			return
		}
	}
}

func startTestCluster(t *testing.T) cluster {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	t.Cleanup(cancel)
	if err := Build(ctx, t.Output(), "kcp", "kubectl", "kwok"); err != nil {
		t.Fatal(err)
	}
	l, err := newLab(Options{Dir: t.TempDir(), Out: t.Output(), Delays: Delays{NodeReady: testNodeReady}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Stop(); err != nil {
			t.Error(err)
		}
	})
	start := time.Now()
	if err := l.StartCluster(ctx, testCluster); err != nil {
		t.Fatal(err)
	}
	t.Logf("the control plane serves after %.1f s", time.Since(start).Seconds())
	config, err := l.RESTConfig(testCluster)
	if err != nil {
		t.Fatal(err)
	}
	return cluster{T: t, lab: l, ctx: ctx, client: kubernetes.NewForConfigOrDie(config)}
}

func testNodeReadiness(c cluster) {
	watch, err := c.client.CoreV1().Nodes().Watch(c.ctx, metav1.ListOptions{})
	c.must(err)
	defer watch.Stop()
	for i := range 5 {
		_, err := c.client.CoreV1().Nodes().Create(c.ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{
			Name:        nodeName(i),
			Labels:      map[string]string{corev1.LabelHostname: nodeName(i)},
			Annotations: map[string]string{"kwok.x-k8s.io/node": "fake"},
		}}, metav1.CreateOptions{})
		c.must(err)
	}
	notReady := map[string]time.Time{}
	ready := map[string]bool{}
	for event := range watch.ResultChan() {
		node := event.Object.(*corev1.Node)
		switch nodeCondition(node) {
		case corev1.ConditionFalse:
			if notReady[node.Name].IsZero() {
				notReady[node.Name] = time.Now()
			}
		case corev1.ConditionTrue:
			if ready[node.Name] {
				continue
			}
			ready[node.Name] = true
			if notReady[node.Name].IsZero() {
				c.Errorf("node %s was ready at once", node.Name)
			} else if since := time.Since(notReady[node.Name]); since < testNodeReady[0]/2 {
				c.Errorf("node %s got ready %s after it was not, want %s at least", node.Name, since, testNodeReady[0])
			}
		}
		if len(ready) == 5 {
			return
		}
	}
	c.Fatal("the watch ended before all nodes were ready")
}

func testWorkloads(c cluster) {
	c.deploy("web", 5, nil)
	labels := map[string]string{"app": "agent"}
	_, err := c.client.AppsV1().DaemonSets("default").Create(c.ctx, &appsv1.DaemonSet{
		ObjectMeta: metav1.ObjectMeta{Name: "agent"},
		Spec:       appsv1.DaemonSetSpec{Selector: &metav1.LabelSelector{MatchLabels: labels}, Template: podTemplate(labels, nil)},
	}, metav1.CreateOptions{})
	c.must(err)
	job := podTemplate(map[string]string{"app": "job"}, nil)
	job.Spec.RestartPolicy = corev1.RestartPolicyNever
	_, err = c.client.BatchV1().Jobs("default").Create(c.ctx, &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{Name: "job"}, Spec: batchv1.JobSpec{Template: job},
	}, metav1.CreateOptions{})
	c.must(err)
	c.awaitReady("web", 5)
	c.awaitReady("agent", 5)
	c.eventually("the Job succeeds", func() (bool, error) {
		job, err := c.client.BatchV1().Jobs("default").Get(c.ctx, "job", metav1.GetOptions{})
		return err == nil && job.Status.Succeeded == 1, err
	})
	addresses := map[string]bool{}
	for _, pod := range append(c.pods("web"), c.pods("agent")...) {
		if pod.Status.HostIP == "" || pod.Status.PodIP == "" || addresses[pod.Status.PodIP] {
			c.Errorf("pod %s has host address %q and address %q, which has to be its own", pod.Name, pod.Status.HostIP, pod.Status.PodIP)
		}
		addresses[pod.Status.PodIP] = true
	}
}

func testUsers(c cluster) {
	viewer := c.as("viewer")
	pods, err := viewer.CoreV1().Pods("default").List(c.ctx, metav1.ListOptions{})
	c.must(err)
	if err := viewer.CoreV1().Pods("default").Delete(c.ctx, pods.Items[0].Name, metav1.DeleteOptions{}); !apierrors.IsForbidden(err) {
		c.Errorf("viewer deleting a pod: %v, want it to be forbidden", err)
	}
	access, err := c.as("fairway").AuthorizationV1().SelfSubjectAccessReviews().Create(c.ctx, &authorizationv1.SelfSubjectAccessReview{
		Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &authorizationv1.ResourceAttributes{
			Namespace: "default", Verb: "create", Resource: "pods", Subresource: "eviction",
		}},
	}, metav1.CreateOptions{})
	c.must(err)
	if !access.Status.Allowed {
		c.Error("fairway may not evict pods: deploy/kubernetes/rbac.yaml is not in force")
	}
}

func testKubeconfigs(c cluster) {
	for _, file := range []string{"kubeconfig", "kubeconfig-fairway"} {
		config, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(
			&clientcmd.ClientConfigLoadingRules{ExplicitPath: c.lab.path(file)},
			&clientcmd.ConfigOverrides{CurrentContext: testCluster},
		).ClientConfig()
		c.must(err)
		if want := "https://" + c.lab.Proxied("kubernetes/"+testCluster); config.Host != want || config.Insecure {
			c.Errorf("%s leads to %s (insecure: %t), want %s", file, config.Host, config.Insecure, want)
		}
		_, err = kubernetes.NewForConfigOrDie(config).CoreV1().Nodes().List(c.ctx, metav1.ListOptions{})
		c.must(err)
	}
}

func testEvictions(c cluster) {
	budget := intstr.FromInt32(1)
	_, err := c.client.PolicyV1().PodDisruptionBudgets("default").Create(c.ctx, &policyv1.PodDisruptionBudget{
		ObjectMeta: metav1.ObjectMeta{Name: "web"},
		Spec:       policyv1.PodDisruptionBudgetSpec{MaxUnavailable: &budget, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}},
	}, metav1.CreateOptions{})
	c.must(err)
	c.eventually("the budget allows a disruption", func() (bool, error) {
		budget, err := c.client.PolicyV1().PodDisruptionBudgets("default").Get(c.ctx, "web", metav1.GetOptions{})
		return err == nil && budget.Status.DisruptionsAllowed == 1, err
	})
	pods := c.pods("web")
	grace := int64(7)
	evict := func(pod corev1.Pod) error {
		return c.client.PolicyV1().Evictions("default").Evict(c.ctx, &policyv1.Eviction{
			ObjectMeta:    metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name},
			DeleteOptions: &metav1.DeleteOptions{GracePeriodSeconds: &grace, Preconditions: metav1.NewUIDPreconditions(string(pod.UID))},
		})
	}
	c.must(evict(pods[0]))
	if err := evict(pods[1]); !apierrors.IsTooManyRequests(err) || !apierrors.HasStatusCause(err, policyv1.DisruptionBudgetCause) {
		c.Errorf("second eviction: %v, want 429 with the cause %s", err, policyv1.DisruptionBudgetCause)
	}

	ctx, cancel := context.WithTimeout(c.ctx, 10*time.Second)
	defer cancel()
	audit, err := c.lab.AuditUntil(ctx, testCluster, func(a Audit) bool { return len(a.Evictions().By("admin")) == 2 })
	c.must(err)
	evictions := audit.Evictions()
	for i, want := range []int{201, 429} {
		event := evictions[i]
		if event.Code != want || event.Name != pods[i].Name || event.Namespace != "default" || event.UserAgent == "" {
			c.Errorf("eviction %d on record: %d of %s/%s by %q, want %d of %s", i, event.Code, event.Namespace, event.Name, event.UserAgent, want, pods[i].Name)
		}
		options, err := event.DeleteOptions()
		c.must(err)
		if *options.GracePeriodSeconds != grace || *options.Preconditions.UID != pods[i].UID {
			c.Errorf("eviction %d on record has options %v", i, options)
		}
	}
	status, err := evictions[1].Status()
	c.must(err)
	if !slices.ContainsFunc(status.Details.Causes, func(cause metav1.StatusCause) bool { return cause.Type == policyv1.DisruptionBudgetCause }) {
		c.Errorf("the refused eviction on record has the status %v", status)
	}
	c.awaitReady("web", 5)
}

func testSlowPods(c cluster) {
	c.deploy("slow", 1, map[string]string{ReadyDelayAnnotation: "3s"})
	c.deploy("never", 1, map[string]string{NotReadyAnnotation: "true"})
	c.awaitReady("slow", 1)
	slow := c.pods("slow")[0]
	if took := slow.Status.StartTime.Sub(slow.CreationTimestamp.Time); took < 2*time.Second {
		c.Errorf("the slow pod got ready after %s, want 3 s", took)
	}
	c.eventually("the pod that never gets ready runs", func() (bool, error) {
		return c.pods("never")[0].Status.Phase == corev1.PodRunning, nil
	})
	if podReady(c.pods("never")[0]) {
		c.Error("the pod that never gets ready is ready")
	}
}

func testGracePeriod(c cluster) {
	pods := c.client.CoreV1().Pods("default")
	c.create("stubborn", nodeName(0), map[string]string{StopDelayAnnotation: "1h"})
	c.create("forced", nodeName(0), map[string]string{StopDelayAnnotation: "1h"})
	c.awaitReady("stubborn", 1)
	c.awaitReady("forced", 1)

	now := int64(0)
	c.must(pods.Delete(c.ctx, "forced", metav1.DeleteOptions{GracePeriodSeconds: &now}))
	if _, err := pods.Get(c.ctx, "forced", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		c.Errorf("after a deletion without grace: %v, want that the pod is gone at once", err)
	}

	grace := int64(3)
	start := time.Now()
	c.must(pods.Delete(c.ctx, "stubborn", metav1.DeleteOptions{GracePeriodSeconds: &grace}))
	c.awaitGone("stubborn")
	if took := time.Since(start); took < 2*time.Second || took > 20*time.Second {
		c.Errorf("the stubborn pod ended after %s, want about its grace period of 3 s", took)
	}
}

func testKubelets(c cluster) {
	node := nodeName(1)
	c.must(c.lab.SetKubelet(c.ctx, testCluster, node, Sick))
	c.awaitNode(node, corev1.ConditionFalse)
	for _, pod := range append(c.pods("web"), c.pods("agent")...) {
		if pod.Spec.NodeName == node {
			c.eventually("pod "+pod.Name+" on the sick node is not ready", func() (bool, error) {
				pod, err := c.client.CoreV1().Pods("default").Get(c.ctx, pod.Name, metav1.GetOptions{})
				return err == nil && !podReady(*pod), err
			})
		}
	}
	c.must(c.lab.SetKubelet(c.ctx, testCluster, node, Healthy))
	c.awaitNode(node, corev1.ConditionTrue)
	c.awaitReady("agent", 5)

	c.create("held", node, nil)
	c.create("free", nodeName(2), nil)
	c.awaitReady("held", 1)
	c.awaitReady("free", 1)
	c.must(c.lab.SetKubelet(c.ctx, testCluster, node, Silent))
	c.awaitSilence(node)
	grace := int64(1)
	for _, name := range []string{"held", "free"} {
		c.must(c.client.CoreV1().Pods("default").Delete(c.ctx, name, metav1.DeleteOptions{GracePeriodSeconds: &grace}))
	}
	c.awaitGone("free")
	if _, err := c.client.CoreV1().Pods("default").Get(c.ctx, "held", metav1.GetOptions{}); err != nil {
		c.Errorf("pod on the silent node: %v, want that it does not stop", err)
	}
	c.must(c.lab.SetKubelet(c.ctx, testCluster, node, Healthy))
	c.awaitGone("held")
}

// awaitSilence waits until kwok has seen that a node is not its own any more: then a pod there does
// not start while one that needs much longer starts elsewhere. On a busy machine kwok has been seen to miss
// it for good, presumably while its watch began anew, so it is told again after a while.
func (c cluster) awaitSilence(node string) {
	c.Helper()
	for i := range 20 {
		there, elsewhere := fmt.Sprintf("there-%d", i), fmt.Sprintf("elsewhere-%d", i)
		c.create(there, node, nil)
		c.create(elsewhere, nodeName(2), map[string]string{ReadyDelayAnnotation: "3s"})
		c.awaitReady(elsewhere, 1)
		if pods := c.pods(there); len(pods) == 1 && !podReady(pods[0]) {
			return
		}
		if i%5 == 4 {
			c.must(c.lab.SetKubelet(c.ctx, testCluster, node, Healthy))
			c.must(c.lab.SetKubelet(c.ctx, testCluster, node, Silent))
		}
	}
	c.Fatalf("the kubelet of %s does not fall silent", node)
}

func testKilledParts(c cluster) {
	audit, err := c.lab.Audit(testCluster)
	c.must(err)
	evictions := len(audit.Evictions())
	before := c.pods("web")
	for _, name := range []string{"kwok", "kube-controller-manager", "kube-scheduler", "kube-apiserver", "etcd"} {
		part := c.lab.Part("kubernetes/" + testCluster + "/" + name)
		c.must(part.Kill())
		c.must(part.Restart(c.ctx))
	}
	c.must(c.lab.RestartControllers(c.ctx, testCluster))
	if after := c.pods("web"); !slices.EqualFunc(before, after, func(a, b corev1.Pod) bool { return a.UID == b.UID }) {
		c.Error("pods are not the same after all parts were killed")
	}
	c.deploy("later", 3, nil)
	c.awaitReady("later", 3)
	audit, err = c.lab.Audit(testCluster)
	c.must(err)
	if n := len(audit.Evictions()); n != evictions {
		c.Errorf("%d evictions on record after the API server was killed, want %d", n, evictions)
	}
}

func testPause(c cluster) {
	c.must(c.lab.PauseCluster(testCluster))
	ctx, cancel := context.WithTimeout(c.ctx, time.Second)
	defer cancel()
	if _, err := c.client.CoreV1().Nodes().List(ctx, metav1.ListOptions{}); err == nil {
		c.Error("a paused cluster has answered")
	}
	c.must(c.lab.ResumeCluster(testCluster))
	_, err := c.client.CoreV1().Nodes().List(c.ctx, metav1.ListOptions{})
	c.must(err)
}

func testStartAgain(c cluster) {
	parts := c.lab.Parts()
	pids := map[string]int{}
	for _, part := range parts {
		pids[part.Name()] = part.PID()
	}
	c.must(c.lab.StartCluster(c.ctx, testCluster))
	for _, part := range parts {
		if part.PID() != pids[part.Name()] {
			c.Errorf("%s was restarted though it ran", part.Name())
		}
	}
	before := c.pods("web")
	for _, part := range parts {
		c.must(part.Kill())
	}
	c.must(c.lab.StartCluster(c.ctx, testCluster))
	if after := c.pods("web"); !slices.EqualFunc(before, after, func(a, b corev1.Pod) bool { return a.UID == b.UID }) {
		c.Error("pods are not the same after the whole cluster was killed")
	}
	c.must(c.client.CoreV1().Pods("default").Delete(c.ctx, before[0].Name, metav1.DeleteOptions{}))
	c.awaitGone(before[0].Name)
	c.awaitReady("web", 5)
}

func testStopCluster(c cluster) {
	var pids []int
	for _, part := range c.lab.Parts() {
		pids = append(pids, part.PID())
	}
	if len(pids) != 5 {
		c.Fatalf("%d parts, want 5", len(pids))
	}
	c.must(c.lab.StopCluster(c.ctx, testCluster))
	for _, pid := range pids {
		if _, err := os.Stat(fmt.Sprintf("/proc/%d", pid)); !os.IsNotExist(err) {
			c.Errorf("process %d still runs", pid)
		}
	}
	if left := len(c.lab.Parts()); left != 0 {
		c.Errorf("%d parts are left", left)
	}
	if _, err := c.lab.RESTConfig(testCluster); err == nil {
		c.Error("the cluster still has a configuration")
	}
	kubeconfig, err := os.ReadFile(c.lab.path("kubeconfig"))
	c.must(err)
	if strings.Contains(string(kubeconfig), testCluster) {
		c.Error("the kubeconfig still has the cluster")
	}
	c.must(c.lab.StopCluster(c.ctx, testCluster))
}

func TestAClusterIDThatIsNoFileNameIsRefused(t *testing.T) {
	for _, id := range []string{"", "..", "a/b", "-x"} {
		if err := new(Lab).StartCluster(t.Context(), id); err == nil {
			t.Errorf("cluster id %q was accepted", id)
		}
	}
}

func TestAnAuditLogCutOffInALineIsRead(t *testing.T) {
	const event = `{"kind":"Event","apiVersion":"audit.k8s.io/v1","auditID":"%s","verb":"list"}`
	line := func(id string) string { return fmt.Sprintf(event, id) }
	file := t.TempDir() + "/audit.log"
	reader := auditReader{path: file}
	for _, step := range []struct{ added, ids string }{
		{"", ""},
		{line("a") + "\n" + line("b")[:40], "a"},
		{line("b")[40:] + "\n", "ab"},
		{line("lost")[:50], "ab"},
		{line("c") + "\n" + line("a") + "\n", "abc"},
	} {
		log, err := os.OpenFile(file, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err == nil {
			_, err = log.WriteString(step.added)
		}
		if err != nil {
			t.Fatal(err)
		}
		log.Close()
		if err := reader.read(); err != nil {
			t.Fatal(err)
		}
		var ids string
		for _, e := range reader.events {
			ids += e.ID
		}
		if ids != step.ids {
			t.Errorf("events %q, want %q", ids, step.ids)
		}
	}
}

func (c cluster) must(err error) {
	c.Helper()
	if err != nil {
		c.Fatal(err)
	}
}

// eventually asks until the condition holds. Errors of the API server count as "not yet".
func (c cluster) eventually(what string, met func() (bool, error)) {
	c.Helper()
	deadline := time.Now().Add(60 * time.Second)
	for {
		ok, err := met()
		if ok {
			return
		}
		if time.Now().After(deadline) {
			c.Fatalf("not within a minute: %s (%v)", what, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func (c cluster) as(user string) kubernetes.Interface {
	config, err := c.lab.RESTConfigAs(testCluster, user)
	c.must(err)
	return kubernetes.NewForConfigOrDie(config)
}

func (c cluster) deploy(name string, replicas int32, annotations map[string]string) {
	c.Helper()
	labels := map[string]string{"app": name}
	_, err := c.client.AppsV1().Deployments("default").Create(c.ctx, &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: appsv1.DeploymentSpec{
			Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: labels}, Template: podTemplate(labels, annotations),
		},
	}, metav1.CreateOptions{})
	c.must(err)
}

func (c cluster) create(name, node string, annotations map[string]string) {
	c.Helper()
	template := podTemplate(map[string]string{"app": name}, annotations)
	template.Name = name
	template.Spec.NodeName = node
	_, err := c.client.CoreV1().Pods("default").Create(c.ctx, &corev1.Pod{ObjectMeta: template.ObjectMeta, Spec: template.Spec}, metav1.CreateOptions{})
	c.must(err)
}

func podTemplate(labels, annotations map[string]string) corev1.PodTemplateSpec {
	return corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: labels, Annotations: annotations},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Image: "example.org/main:1"}}},
	}
}

// pods lists the pods of an app that are not on their way out, by name.
func (c cluster) pods(app string) []corev1.Pod {
	c.Helper()
	list, err := c.client.CoreV1().Pods("default").List(c.ctx, metav1.ListOptions{LabelSelector: "app=" + app})
	c.must(err)
	pods := slices.DeleteFunc(list.Items, func(p corev1.Pod) bool { return p.DeletionTimestamp != nil })
	slices.SortFunc(pods, func(a, b corev1.Pod) int { return strings.Compare(a.Name, b.Name) })
	return pods
}

func (c cluster) awaitReady(app string, replicas int) {
	c.Helper()
	c.eventually(fmt.Sprintf("%d pods of %s are ready", replicas, app), func() (bool, error) {
		list, err := c.client.CoreV1().Pods("default").List(c.ctx, metav1.ListOptions{LabelSelector: "app=" + app})
		if err != nil {
			return false, err
		}
		ready := slices.DeleteFunc(list.Items, func(p corev1.Pod) bool { return p.DeletionTimestamp != nil || !podReady(p) })
		return len(ready) == replicas, fmt.Errorf("%d are", len(ready))
	})
}

func (c cluster) awaitGone(pod string) {
	c.Helper()
	c.eventually("pod "+pod+" is gone", func() (bool, error) {
		_, err := c.client.CoreV1().Pods("default").Get(c.ctx, pod, metav1.GetOptions{})
		return apierrors.IsNotFound(err), err
	})
}

func (c cluster) awaitNode(name string, want corev1.ConditionStatus) {
	c.Helper()
	c.eventually(fmt.Sprintf("node %s has the condition Ready %s", name, want), func() (bool, error) {
		node, err := c.client.CoreV1().Nodes().Get(c.ctx, name, metav1.GetOptions{})
		return err == nil && nodeCondition(node) == want, err
	})
}

func nodeName(i int) string { return fmt.Sprintf("node-%d", i) }

func nodeCondition(node *corev1.Node) corev1.ConditionStatus {
	for _, condition := range node.Status.Conditions {
		if condition.Type == corev1.NodeReady {
			return condition.Status
		}
	}
	return ""
}

func podReady(pod corev1.Pod) bool {
	return slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}
