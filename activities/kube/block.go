package kube

import (
	"context"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairway-project/fairway/drain"
	"github.com/fairway-project/fairway/workflows"
)

// openNode lets pods onto the node while a block holds, if that is configured. The node keeps the
// mark of its cordon: what carries it and is schedulable waits for the end of a block, and
// UncordonNode undoes it as ever. A node that a person cordoned carries none and stays cordoned.
func (d *drainer) openNode(ctx context.Context) error {
	if d.open || !d.mayOpen() {
		return nil
	}
	if err := d.setCordon(ctx, d.mark(), func(node *corev1.Node) (map[string]any, bool) {
		spec := map[string]any{"unschedulable": nil} // the API server leaves the field out then
		return map[string]any{"metadata": map[string]any{}, "spec": spec}, node.Annotations[CordonedBy] == d.by && node.Spec.Unschedulable
	}); err != nil {
		return err
	}
	d.open = true // once a block: a person may cordon the node meanwhile
	return nil
}

// closeNode makes the node unschedulable again, whoever opened it. What the view shows may be older
// than what this drain did, so that is asked for anew then.
func (d *drainer) closeNode(ctx context.Context) error {
	if node := d.view.node(d.node); node == nil || (!d.open && node.Spec.Unschedulable) {
		return nil
	}
	if err := d.setCordon(ctx, d.mark(), func(node *corev1.Node) (map[string]any, bool) {
		annotations, spec := map[string]any{}, map[string]any{}
		if !node.Spec.Unschedulable {
			spec["unschedulable"] = true
			if d.by != "" {
				annotations[CordonedBy] = d.by
			}
		}
		return nodePatch(annotations, spec)
	}); err != nil {
		return err
	}
	d.open = false
	return nil
}

func (d *drainer) mayOpen() bool {
	node := d.view.node(d.node)
	return d.policy.UncordonOnBlock && d.by != "" && node != nil && node.Annotations[CordonedBy] == d.by
}

func (d *drainer) mark() workflows.CordonNode {
	return workflows.CordonNode{Cluster: d.cluster.id, Pool: d.pool, Node: d.node, Instance: d.instance, By: d.by}
}

// orders are those about forcing pods of this node. Names of nodes are used again: what was
// ordered before this node was there meant another one.
func (d *drainer) orders() []drain.Order {
	node := d.view.node(d.node)
	var out []drain.Order
	for _, order := range d.blocks.Orders {
		if node != nil && order.Node == d.node && !order.At.Before(node.CreationTimestamp.Time) {
			out = append(out, drain.Order{Pod: order.Pod, Mode: drain.OrderMode(order.Mode), Reason: order.Reason, By: order.By})
		}
	}
	return out
}
