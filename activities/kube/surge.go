package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/fairway-project/fairway/drain"
	"github.com/fairway-project/fairway/workflows"
)

// SurgedWorkloads is the annotation of a node that records the Deployments which were given one
// replica more, so that their lone pod could leave the node. It is written before a Deployment is
// scaled and removed after it was scaled back: whoever drains or uncordons the node next finds it.
const SurgedWorkloads = "fairway.dev/surged"

// surgedWorkload is an entry of the record.
type surgedWorkload struct {
	Namespace  string    `json:"namespace"`
	Deployment string    `json:"deployment"`
	ReplicaSet types.UID `json:"replica_set"` // that controls the lone pod
	From       int32     `json:"from"`        // replicas before
	At         time.Time `json:"at"`
}

func (w surgedWorkload) String() string { return w.Namespace + "/" + w.Deployment }

// surgedWorkloads reads a node's record; a node that is gone has none.
func surgedWorkloads(node *corev1.Node) []surgedWorkload {
	if node == nil {
		return nil
	}
	return recorded[[]surgedWorkload](node, SurgedWorkloads)
}

// recorded reads what an annotation records as JSON. What is missing or not understood counts as
// nothing. Decisions ask all nodes and budgets, of which few have a record.
func recorded[T any](object metav1.Object, key string) (record T) {
	text, there := object.GetAnnotations()[key]
	if !there || json.Unmarshal([]byte(text), &record) != nil {
		return *new(T)
	}
	return record
}

// surge gives the workload of a lone replica a second one. It may be done again after a crash.
func (d *drainer) surge(ctx context.Context, pod *corev1.Pod) error {
	controller := metav1.GetControllerOf(pod)
	set, err := d.cluster.client.AppsV1().ReplicaSets(pod.Namespace).Get(ctx, controller.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) || (err == nil && set.UID != controller.UID) {
		d.surged[controller.UID] = impossible
		return nil // it is going, and its pod with it
	}
	if err != nil {
		return d.cluster.explain(fmt.Sprintf("reading ReplicaSet %s/%s", pod.Namespace, controller.Name), err)
	}
	owner := metav1.GetControllerOf(set)
	if owner == nil || owner.Kind != "Deployment" {
		d.surged[controller.UID] = impossible
		return nil
	}
	w := surgedWorkload{Namespace: pod.Namespace, Deployment: owner.Name, ReplicaSet: controller.UID, From: 1, At: time.Now().UTC().Truncate(time.Second)}
	deployments := d.cluster.client.AppsV1().Deployments(w.Namespace)
	scale, err := deployments.GetScale(ctx, w.Deployment, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		d.surged[controller.UID] = impossible
		return nil
	}
	if err != nil {
		return d.cluster.explain("reading the scale of Deployment "+w.String(), err)
	}
	_, recorded := d.surged[controller.UID]
	if !recorded && scale.Spec.Replicas != w.From {
		// Somebody is scaling it, or it is stuck: what it will be is not ours to guess.
		d.surged[controller.UID] = impossible
		return nil
	}
	if !recorded {
		if err := d.cluster.annotate(ctx, d.node, SurgedWorkloads, func(node *corev1.Node) any {
			return append(surgedWorkloads(node), w)
		}); err != nil {
			return err
		}
		d.surged[controller.UID] = surgedHere{workload: w}
	}
	if scale.Spec.Replicas == w.From {
		scale.Spec.Replicas = w.From + 1 // a conflict means that somebody else scales it, too
		if _, err := deployments.UpdateScale(ctx, w.Deployment, scale, metav1.UpdateOptions{FieldManager: "fairway"}); err != nil {
			return d.cluster.explain("scaling Deployment "+w.String(), err)
		}
	}
	d.surged[controller.UID] = surgedHere{workload: w, Surged: drain.Surged{Scaled: true}}
	return nil
}

// surgedHere is what a drain knows about a workload that it surged.
type surgedHere struct {
	drain.Surged
	workload surgedWorkload
}

var impossible = surgedHere{Surged: drain.Surged{Impossible: true}}

// surgedState is what the rules have to know of it.
func (d *drainer) surgedState() map[types.UID]drain.Surged {
	out := make(map[types.UID]drain.Surged, len(d.surged))
	for controller, here := range d.surged {
		out[controller] = here.Surged
	}
	return out
}

// settle gives workloads their size back.
func (d *drainer) settle(ctx context.Context, controllers []types.UID) error {
	for _, controller := range controllers {
		w := d.surged[controller].workload
		if err := scaleBack(ctx, d.cluster, d.node, w); err != nil {
			return err
		}
		delete(d.surged, controller)
	}
	return nil
}

// settleAll is settle for all workloads that the drain knows of.
func (d *drainer) settleAll(ctx context.Context) error {
	var all []types.UID
	for controller, here := range d.surged {
		if !here.Impossible {
			all = append(all, controller)
		}
	}
	return d.settle(ctx, all)
}

// restoreSurged is for whoever ends a drain from outside: it undoes what a crashed one has left.
func (a *Activities) restoreSurged(ctx context.Context, in workflows.CordonNode) error {
	c, err := a.Clusters.get(ctx, in.Cluster)
	if err != nil {
		return err
	}
	return restoreSurged(ctx, c, in.Node)
}

// restoreSurged gives the workloads in a node's record their size back. A node that is gone has none.
func restoreSurged(ctx context.Context, c *cluster, name string) error {
	node, err := c.node(ctx, name)
	if err != nil {
		return err
	}
	var errs []error
	for _, w := range surgedWorkloads(node) {
		errs = append(errs, scaleBack(ctx, c, name, w))
	}
	return several(errs...)
}

// scaleBack takes the additional replica away, unless the workload has another size by now, and
// then the workload from the node's record.
func scaleBack(ctx context.Context, c *cluster, node string, w surgedWorkload) error {
	deployments := c.client.AppsV1().Deployments(w.Namespace)
	scale, err := deployments.GetScale(ctx, w.Deployment, metav1.GetOptions{})
	if err == nil && scale.Spec.Replicas == w.From+1 {
		scale.Spec.Replicas = w.From
		_, err = deployments.UpdateScale(ctx, w.Deployment, scale, metav1.UpdateOptions{FieldManager: "fairway"})
	}
	if err != nil && !apierrors.IsNotFound(err) {
		return c.explain("scaling Deployment "+w.String()+" back", err)
	}
	return c.annotate(ctx, node, SurgedWorkloads, func(node *corev1.Node) any {
		left := slices.DeleteFunc(surgedWorkloads(node), func(other surgedWorkload) bool {
			return other.ReplicaSet == w.ReplicaSet
		})
		if len(left) == 0 {
			return nil
		}
		return left
	})
}

// annotate sets an annotation of a node to the JSON of what change makes of the node; nil removes
// it. A node that is gone is fine.
func (c *cluster) annotate(ctx context.Context, name, key string, change func(*corev1.Node) any) error {
	node, err := c.node(ctx, name)
	if err != nil || node == nil {
		return err
	}
	var encoding error
	err = c.changeNode(ctx, node, func(node *corev1.Node) (map[string]any, bool) {
		var value any // JSON's null removes an annotation
		if changed := change(node); changed != nil {
			var text []byte
			text, encoding = json.Marshal(changed)
			value = string(text)
		}
		_, there := node.Annotations[key]
		patch, _ := nodePatch(map[string]any{key: value}, nil)
		return patch, encoding == nil && (there || value != nil)
	})
	if encoding != nil {
		return fmt.Errorf("encoding %s of node %s: %w", key, name, encoding)
	}
	return err
}
