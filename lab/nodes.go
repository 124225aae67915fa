package lab

import (
	"bytes"
	"context"
	"fmt"
	"path/filepath"
	"text/template"
	"time"

	"k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
)

// Annotations on pods and nodes that change how their kubelet treats them. Durations are
// written as in Go ("90s"). On the pods of a workload they belong into its template.
const (
	// NotReadyAnnotation with the value "true" lets a pod or a node not be Ready for as long as
	// it is there. Such a pod runs.
	NotReadyAnnotation = "lab.fairway.dev/not-ready"
	// ReadyDelayAnnotation replaces Delays.PodReady for a pod.
	ReadyDelayAnnotation = "lab.fairway.dev/ready-delay"
	// StopDelayAnnotation replaces Delays.PodStop for a pod. The end of the grace period is the
	// end of the pod even so.
	StopDelayAnnotation = "lab.fairway.dev/stop-delay"
	// RunTimeAnnotation is how long a pod of a Job runs before it succeeds; default is 2 s to 4 s.
	RunTimeAnnotation = "lab.fairway.dev/run-time"
)

// writeStages writes the life of nodes and pods with this lab's delays.
func (l *Lab) writeStages(file string) error {
	source := filepath.Join(l.root, "lab", "nodes", "stages.yaml")
	stages, err := template.New(filepath.Base(source)).Delims("[[", "]]").ParseFiles(source)
	if err != nil {
		return fmt.Errorf("reading the stages of nodes and pods: %w", err)
	}
	delays := l.options.Delays
	var out bytes.Buffer
	err = stages.Execute(&out, struct {
		Delays            Delays
		PodStopSpread     time.Duration
		KubernetesVersion string
	}{delays, delays.PodStop[1] - delays.PodStop[0], kubernetesVersion})
	if err != nil {
		return fmt.Errorf("filling in the stages of nodes and pods: %w", err)
	}
	return writeFile(file, out.Bytes(), 0o644)
}

// Kubelet is the condition of a simulated kubelet.
type Kubelet string

// Conditions of a kubelet.
const (
	// Healthy is how every kubelet starts.
	Healthy Kubelet = "healthy"
	// Sick kubelets work and report their node and its pods as not ready, at once.
	Sick Kubelet = "sick"
	// Silent kubelets do nothing: pods neither start nor stop on their node. The control plane
	// notices after its grace period of 50 s and calls the node's condition Unknown.
	Silent Kubelet = "silent"
)

// SetKubelet brings the kubelet of a node into a condition. From Silent to another one it takes
// up to 10 s until it works again.
func (l *Lab) SetKubelet(ctx context.Context, id, node string, condition Kubelet) error {
	if err := l.setKubelet(ctx, id, node, condition); err != nil {
		return fmt.Errorf("making the kubelet of %s in cluster %s %s: %w", node, id, condition, err)
	}
	return nil
}

func (l *Lab) setKubelet(ctx context.Context, id, node string, condition Kubelet) error {
	config, err := l.RESTConfig(id)
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	notReady, lease := "null", ownLease
	switch condition {
	case Healthy:
	case Sick:
		notReady = `"true"`
	case Silent:
		lease = foreignLease()
	default:
		return fmt.Errorf("there is no such condition")
	}
	annotate := []byte(fmt.Sprintf(`{"metadata":{"annotations":{%q:%s}}}`, NotReadyAnnotation, notReady))
	if _, err := client.CoreV1().Nodes().Patch(ctx, node, types.MergePatchType, annotate, metav1.PatchOptions{}); err != nil {
		return err
	}
	// The stages of a pod cannot see its node.
	pods, err := client.CoreV1().Pods("").List(ctx, metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("spec.nodeName", node).String()})
	if err != nil {
		return err
	}
	for _, pod := range pods.Items {
		_, err := client.CoreV1().Pods(pod.Namespace).Patch(ctx, pod.Name, types.MergePatchType, annotate, metav1.PatchOptions{})
		if err != nil && !errors.IsNotFound(err) {
			return err
		}
	}
	_, err = client.CoordinationV1().Leases("kube-node-lease").Patch(ctx, node, types.MergePatchType, []byte(lease), metav1.PatchOptions{})
	return err
}

// Kwok leaves a node alone whose lease is somebody else's and has not expired.
func foreignLease() string {
	return fmt.Sprintf(`{"spec":{"holderIdentity":"silence","leaseDurationSeconds":%d,"renewTime":%q}}`,
		int((10 * 365 * 24 * time.Hour).Seconds()), time.Now().UTC().Format(metav1.RFC3339Micro))
}

// An expired lease is taken at once, a lease of its own is kept.
const ownLease = `{"spec":{"leaseDurationSeconds":40,"renewTime":"2000-01-01T00:00:00.000000Z"}}`
