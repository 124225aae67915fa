package testsuites

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/tools/pager"

	"github.com/fairway-project/fairway/activities/manifests"
)

// Between two attempts things get a while to become well.
const smokeAgain = 15 * time.Second

// urlWithin bounds the answer of a URL.
const urlWithin = 10 * time.Second

// smoke looks whether everything that runs is as it should be. Each workload, the pods of each namespace and each
// URL are cases.
func (r *run) smoke(ctx context.Context) (outcome, error) {
	if r.attempt > 1 {
		select {
		case <-ctx.Done():
			return outcome{}, ctx.Err()
		case <-time.After(smokeAgain):
		}
	}
	s := r.in.Suite.Smoke
	c, err := r.connect()
	if err != nil {
		return outcome{}, err
	}
	namespaces := s.Namespaces
	if len(namespaces) == 0 {
		namespaces = []string{metav1.NamespaceAll}
	}
	var o outcome
	for _, namespace := range namespaces {
		r.say("looking at %s", placeOf(namespace))
		cases, err := r.workloads(ctx, c, namespace)
		if err != nil {
			return outcome{}, err
		}
		if len(cases) == 0 {
			cases = []testCase{{name: placeOf(namespace) + " has workloads", failed: true, message: "There is no Deployment, StatefulSet or DaemonSet."}}
		}
		pods, err := r.loopingPods(ctx, c, namespace)
		if err != nil {
			return outcome{}, err
		}
		o.cases = append(append(o.cases, cases...), testCase{name: "no container of " + placeOf(namespace) + " fails again and again",
			failed: len(pods) > 0, message: strings.Join(pods, "; ")})
	}
	for _, url := range s.URLs {
		url = strings.ReplaceAll(url, "{cluster}", r.cluster.ID)
		r.say("asking %s", url)
		test := testCase{name: url + " answers"}
		if err := answers(ctx, url); err != nil {
			test.failed, test.message = true, err.Error()
		}
		o.cases = append(o.cases, test)
	}
	return o, nil
}

func placeOf(namespace string) string {
	if namespace == metav1.NamespaceAll {
		return "all namespaces"
	}
	return "namespace " + namespace
}

var workloadKinds = []string{"deployments", "statefulsets", "daemonsets"}

func (r *run) workloads(ctx context.Context, c clients, namespace string) (cases []testCase, err error) {
	for _, kind := range workloadKinds {
		resource := c.objects.Resource(schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: kind}).Namespace(namespace)
		err := pager.New(func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
			return resource.List(ctx, options)
		}).EachListItem(ctx, metav1.ListOptions{}, func(object runtime.Object) error {
			workload, ok := object.(*unstructured.Unstructured)
			if !ok {
				return fmt.Errorf("a list of %s has a %T in it", kind, object)
			}
			why := manifests.NotReady(workload)
			cases = append(cases, testCase{name: fmt.Sprintf("%s %s/%s is ready", workload.GetKind(), workload.GetNamespace(), workload.GetName()), failed: why != "", message: why})
			return nil
		})
		if err != nil {
			return nil, r.explain("listing "+kind, err)
		}
	}
	return cases, nil
}

// stuck are reasons of containers that do not come up by themselves.
var stuck = []string{"CrashLoopBackOff", "ImagePullBackOff", "ErrImagePull", "InvalidImageName", "CreateContainerConfigError", "CreateContainerError", "RunContainerError"}

// mostPods bounds how many pods are named.
const mostPods = 5

func (r *run) loopingPods(ctx context.Context, c clients, namespace string) (found []string, err error) {
	err = pager.New(func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
		return c.asking.CoreV1().Pods(namespace).List(ctx, options)
	}).EachListItem(ctx, metav1.ListOptions{}, func(object runtime.Object) error {
		pod, ok := object.(*corev1.Pod)
		if !ok {
			return fmt.Errorf("a list of pods has a %T in it", object)
		}
		for _, container := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses) {
			if waiting := container.State.Waiting; waiting != nil && slices.Contains(stuck, waiting.Reason) && len(found) < mostPods {
				found = append(found, fmt.Sprintf("%s of %s/%s: %s", container.Name, pod.Namespace, pod.Name, waiting.Reason))
			}
		}
		return nil
	})
	return found, r.explain("listing pods", err)
}

// answers asks a URL, and follows it nowhere: 3xx is a good answer as well.
func answers(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, urlWithin)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	client := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	answer, err := client.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(answer.Body, 1<<20))
	if answer.StatusCode < 200 || answer.StatusCode > 399 {
		return fmt.Errorf("it answers with %s", answer.Status)
	}
	return nil
}
