package lab

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// testIngress needs the Deployment web of testWorkloads and its budget of testEvictions.
func testIngress(c cluster) {
	_, err := c.client.CoreV1().Services("default").Create(c.ctx, &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: "web"},
		Spec: corev1.ServiceSpec{
			Selector: map[string]string{"app": "web"},
			Ports:    []corev1.ServicePort{{Port: 80, TargetPort: intstr.FromInt32(8080)}},
		},
	}, metav1.CreateOptions{})
	c.must(err)
	c.awaitReady("web", 5)
	c.awaitRoutes()
	for range 10 { // two rounds
		code, pod, err := c.request(testCluster, "web")
		c.must(err)
		if code != http.StatusOK || !slices.ContainsFunc(c.pods("web"), func(p corev1.Pod) bool { return p.Name == pod }) {
			c.Errorf("the service answers %d %q, want 200 and the name of one of its pods", code, pod)
		}
	}
	for _, absent := range []struct{ cluster, service, says string }{
		{"nowhere", "web", `no control plane of cluster "nowhere"`},
		{testCluster, "absent", "service default/absent has no endpoint"},
	} {
		code, says, err := c.request(absent.cluster, absent.service)
		c.must(err)
		if code != http.StatusServiceUnavailable || !strings.Contains(says, absent.says) {
			c.Errorf("service %s of cluster %s answers %d %q, want 503 and %q", absent.service, absent.cluster, code, says, absent.says)
		}
	}
}

func testIngressDuringEvictions(c cluster) {
	load := c.load()
	before := c.pods("web")
	for _, pod := range before {
		c.eventually("the budget allows an eviction", func() (bool, error) {
			budget, err := c.client.PolicyV1().PodDisruptionBudgets("default").Get(c.ctx, "web", metav1.GetOptions{})
			return err == nil && budget.Status.DisruptionsAllowed == 1, err
		})
		c.must(c.client.PolicyV1().Evictions("default").Evict(c.ctx, &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: pod.Name}}))
		c.awaitGone(pod.Name)
		c.awaitReady("web", 5)
	}
	good, bad := load()
	if good < 100 || len(bad) > 0 {
		c.Errorf("%d good answers and these bad ones while %d pods were evicted within their budget: %q", good, len(before), bad)
	}
}

func testIngressWithoutPods(c cluster) {
	load := c.load()
	now := int64(0)
	c.must(c.client.CoreV1().Pods("default").DeleteCollection(c.ctx, metav1.DeleteOptions{GracePeriodSeconds: &now}, metav1.ListOptions{LabelSelector: "app=web"}))
	c.awaitReady("web", 5)
	c.awaitRoutes()
	if good, bad := load(); len(bad) == 0 {
		c.Errorf("%d good answers and no bad one while all pods were deleted at once", good)
	}
}

// testIngressForgets is for a cluster that has just been stopped.
func testIngressForgets(c cluster) {
	i := c.lab.ingress
	i.mu.Lock()
	left := len(i.routes)
	i.mu.Unlock()
	if left != 0 {
		c.Errorf("the ingress still watches %d clusters", left)
	}
	code, says, err := c.request(testCluster, "web")
	c.must(err)
	if code != http.StatusServiceUnavailable {
		c.Errorf("the service answers %d %q, want 503", code, says)
	}
}

// awaitRoutes waits until the ingress has heard of all pods of web.
func (c cluster) awaitRoutes() {
	c.Helper()
	c.eventually("each pod of web answers", func() (bool, error) {
		answered := map[string]bool{}
		for range 5 {
			code, says, err := c.request(testCluster, "web")
			if err != nil || code != http.StatusOK {
				return false, fmt.Errorf("%d %s %v", code, says, err)
			}
			answered[says] = true
		}
		return len(answered) == 5, fmt.Errorf("%d pods do", len(answered))
	})
}

// request asks a service in the namespace default.
func (c cluster) request(cluster, service string) (code int, says string, err error) {
	ctx, cancel := context.WithTimeout(c.ctx, 10*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, c.lab.IngressURL()+"/"+cluster+"/default/"+service+"/", nil)
	if err != nil {
		return 0, "", err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return response.StatusCode, strings.TrimSpace(string(body)), err
}

// load sends requests to web, a hundred a second at most, until the function that it returns is called, which
// counts the good answers and has each bad one once.
func (c cluster) load() func() (good int, bad []string) {
	var (
		good    int
		bad     []string
		running sync.WaitGroup
	)
	stop := make(chan struct{})
	running.Go(func() {
		for tick := time.Tick(10 * time.Millisecond); ; {
			select {
			case <-stop:
				return
			case <-tick:
			}
			code, says, err := c.request(testCluster, "web")
			if err == nil && code == http.StatusOK {
				good++
			} else if answer := fmt.Sprintf("%d %s %v", code, says, err); !slices.Contains(bad, answer) {
				bad = append(bad, answer)
			}
		}
	})
	end := sync.OnceFunc(func() { close(stop); running.Wait() })
	c.Cleanup(end)
	return func() (int, []string) {
		end()
		return good, bad
	}
}
