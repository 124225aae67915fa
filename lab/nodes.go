package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"strconv"
	"text/template"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/util/retry"
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
	switch condition {
	case Healthy, Sick, Silent:
	default:
		return errors.New("there is no such condition")
	}
	var value *string
	if condition == Sick {
		value = new("true")
	}
	if _, err := client.CoreV1().Nodes().Patch(ctx, node, types.MergePatchType, annotation(value), metav1.PatchOptions{}); err != nil {
		return err
	}
	if err := setPods(ctx, client, node, condition == Sick); err != nil {
		return err
	}
	return setSilence(ctx, client, node, condition == Silent)
}

// setPods tells the pods of a node that it is sick or no longer so: their stages cannot see it.
func setPods(ctx context.Context, client kubernetes.Interface, node string, sick bool) error {
	const withNode = "with-node" // tells them from pods that a test has annotated
	pods, err := client.CoreV1().Pods("").List(ctx, metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("spec.nodeName", node).String()})
	if err != nil {
		return err
	}
	for _, pod := range pods.Items {
		var value *string
		switch now := pod.Annotations[NotReadyAnnotation]; {
		case sick && now == "":
			value = new(withNode)
		case !sick && now == withNode:
		default:
			continue
		}
		_, err := client.CoreV1().Pods(pod.Namespace).Patch(ctx, pod.Name, types.MergePatchType, annotation(value), metav1.PatchOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			return err
		}
	}
	return nil
}

// annotation is a patch that sets NotReadyAnnotation, or removes it if value is nil.
func annotation(value *string) []byte {
	to := "null"
	if value != nil {
		to = strconv.Quote(*value)
	}
	return fmt.Appendf(nil, `{"metadata":{"annotations":{%q:%s}}}`, NotReadyAnnotation, to)
}

// setSilence takes a node's lease away from kwok or gives it back. Kwok leaves a node alone
// whose lease is somebody else's and has not expired.
func setSilence(ctx context.Context, client kubernetes.Interface, node string, silent bool) error {
	const silence = "silence"
	leases := client.CoordinationV1().Leases(corev1.NamespaceNodeLease)
	return retry.RetryOnConflict(retry.DefaultRetry, func() error {
		lease, err := leases.Get(ctx, node, metav1.GetOptions{})
		if err != nil {
			return err
		}
		holder := lease.Spec.HolderIdentity
		if !silent && (holder == nil || *holder != silence) {
			return nil
		}
		lease.Spec = coordinationv1.LeaseSpec{HolderIdentity: new(silence), RenewTime: new(metav1.NowMicro())}
		if silent {
			lease.Spec.LeaseDurationSeconds = new(int32(math.MaxInt32))
		} else { // expired
			lease.Spec.LeaseDurationSeconds = new(int32(1))
		}
		_, err = leases.Update(ctx, lease, metav1.UpdateOptions{})
		return err
	})
}
