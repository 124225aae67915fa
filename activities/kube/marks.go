package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/retry"

	"github.com/fairway-project/fairway/workflows"
)

// What a roll leaves on nodes while it lasts.
const (
	// OutdatedTaint keeps pods off nodes that are to go, as long as others have room.
	OutdatedTaint = "fairway.dev/outdated"
	// RolledBy is the annotation that names the workflow which has tainted a node.
	RolledBy = "fairway.dev/rolled-by"
	// ScaleDownDisabled is the annotation by which the Cluster Autoscaler lets a node alone, and
	// ScaleDownHeldBy names the workflow that has set it. Without that it was somebody else.
	ScaleDownDisabled = "cluster-autoscaler.kubernetes.io/scale-down-disabled"
	ScaleDownHeldBy   = "fairway.dev/scale-down-held-by"
	// Quarantined is the annotation that says why a node could not be drained.
	Quarantined = "fairway.dev/quarantined"
)

// parallelMarks bounds the nodes that are changed at a time.
const parallelMarks = 10

// MarkNodes implements workflows.Kubernetes.
func (a *Activities) MarkNodes(ctx context.Context, in workflows.MarkNodes) error {
	if err := a.Blocks.Check(ctx, in.Cluster, in.Pool); err != nil {
		return err
	}
	c, err := a.Clusters.get(ctx, in.Cluster)
	if err != nil {
		return err
	}
	nodes, err := c.listNodes(ctx)
	if err != nil {
		return err
	}
	nodes = slices.DeleteFunc(nodes, func(node *corev1.Node) bool { return !slices.Contains(in.Nodes, node.Name) })
	return c.changeNodes(ctx, nodes, func(node *corev1.Node) (map[string]any, bool) {
		annotations, spec := map[string]any{}, map[string]any{}
		if node.Annotations[RolledBy] != in.By {
			annotations[RolledBy] = in.By
		}
		if taints, tainted := markTaints(node.Spec.Taints); !tainted {
			spec["taints"] = taints
		}
		return nodePatch(annotations, spec)
	})
}

// UnmarkNodes implements workflows.Kubernetes. It is an undo, so a block does not stop it.
func (a *Activities) UnmarkNodes(ctx context.Context, in workflows.UnmarkNodes) error {
	c, err := a.Clusters.get(ctx, in.Cluster)
	if err != nil {
		return err
	}
	nodes, err := c.listNodes(ctx)
	if err != nil {
		return err
	}
	undo := func(node *corev1.Node) (map[string]any, bool) { return unmark(c.id, node, in.By) }
	errs := []error{c.changeNodes(ctx, nodes, undo)}
	for _, node := range nodes {
		if node.Annotations[RolledBy] == in.By && node.Annotations[SurgedWorkloads] != "" {
			errs = append(errs, c.settleAndUnmark(ctx, node.Name, undo))
		}
	}
	return several(errs...)
}

// settleAndUnmark is for a node whose drain was cut off, and may have left workloads larger than they were.
func (c *cluster) settleAndUnmark(ctx context.Context, name string, undo func(*corev1.Node) (map[string]any, bool)) error {
	if err := restoreSurged(ctx, c, name); err != nil {
		return err
	}
	node, err := c.node(ctx, name)
	if err != nil || node == nil {
		return err
	}
	return c.changeNode(ctx, node, undo)
}

// unmark is what a roll has to undo on a node.
func unmark(cluster string, node *corev1.Node, by string) (patch map[string]any, wanted bool) {
	annotations, spec := map[string]any{}, map[string]any{}
	if node.Annotations[RolledBy] == by {
		if node.Annotations[SurgedWorkloads] == "" { // else the next attempt has to find the node
			annotations[RolledBy] = nil
		}
		if _, quarantined := node.Annotations[Quarantined]; quarantined {
			annotations[Quarantined] = nil
		}
		if taints, tainted := unmarkTaints(node.Spec.Taints); tainted {
			spec["taints"] = taints
		}
		if node.Annotations[CordonedBy] == workflows.ReplaceNodeID(cluster, node.Name) {
			annotations[CordonedBy], spec["unschedulable"] = nil, nil
		}
	}
	if node.Annotations[ScaleDownHeldBy] == by {
		annotations[ScaleDownHeldBy] = nil
		if node.Annotations[ScaleDownDisabled] == "true" { // else somebody has changed it since
			annotations[ScaleDownDisabled] = nil
		}
	}
	return nodePatch(annotations, spec)
}

// markTaints returns the taints of a node with ours, and whether it was there already.
func markTaints(taints []corev1.Taint) ([]corev1.Taint, bool) {
	if slices.ContainsFunc(taints, isOutdated) {
		return taints, true
	}
	return append(slices.Clone(taints), corev1.Taint{Key: OutdatedTaint, Value: "true", Effect: corev1.TaintEffectPreferNoSchedule}), false
}

// unmarkTaints returns the taints of a node without ours, and whether it was there. The others
// stay as they are, in their order; nil means none.
func unmarkTaints(taints []corev1.Taint) ([]corev1.Taint, bool) {
	var left []corev1.Taint
	for _, taint := range taints {
		if !isOutdated(taint) {
			left = append(left, taint)
		}
	}
	return left, len(left) < len(taints)
}

func isOutdated(taint corev1.Taint) bool {
	return taint.Key == OutdatedTaint && taint.Effect == corev1.TaintEffectPreferNoSchedule
}

// holdScaleDown keeps the autoscaler from removing a node, unless somebody else has told it what
// to do with that.
func (c *cluster) holdScaleDown(ctx context.Context, node *corev1.Node, by string) error {
	return c.changeNode(ctx, node, func(node *corev1.Node) (map[string]any, bool) {
		_, set := node.Annotations[ScaleDownDisabled]
		return map[string]any{"metadata": map[string]any{"annotations": map[string]any{ScaleDownDisabled: "true", ScaleDownHeldBy: by}}}, !set
	})
}

// reasonShown bounds the reason on a quarantined node, in characters.
const reasonShown = 500

// QuarantineNode implements workflows.Kubernetes.
func (a *Activities) QuarantineNode(ctx context.Context, in workflows.QuarantineNode) error {
	reason := in.Reason
	if long := []rune(reason); len(long) > reasonShown {
		reason = string(long[:reasonShown]) + "…"
	}
	return a.setCordon(ctx, in.CordonNode, func(node *corev1.Node) (map[string]any, bool) {
		annotations, spec := map[string]any{}, map[string]any{}
		if node.Annotations[Quarantined] != reason {
			annotations[Quarantined] = reason
		}
		if !node.Spec.Unschedulable { // a block may have let pods onto it meanwhile
			annotations[CordonedBy], spec["unschedulable"] = in.By, true
		}
		return nodePatch(annotations, spec)
	})
}

// nodePatch changes annotations and the spec of a node; what is nil is removed. Nothing to change
// means that no patch is wanted.
func nodePatch(annotations, spec map[string]any) (patch map[string]any, wanted bool) {
	patch = map[string]any{"metadata": map[string]any{"annotations": annotations}}
	if len(spec) > 0 {
		patch["spec"] = spec
	}
	return patch, len(annotations)+len(spec) > 0
}

// node reads a node from the API server; nil if it is gone.
func (c *cluster) node(ctx context.Context, name string) (*corev1.Node, error) {
	node, err := c.client.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return nil, nil
	case err != nil:
		return nil, c.explain("reading node "+name, err)
	}
	return node, nil
}

func (c *cluster) listNodes(ctx context.Context) ([]*corev1.Node, error) {
	list, err := c.client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, c.explain("listing nodes", err)
	}
	return pointers(list.Items), nil
}

// changeNodes changes many nodes, some at a time. One that cannot be changed does not hold up the
// others, and what is done need not be done again.
func (c *cluster) changeNodes(ctx context.Context, nodes []*corev1.Node, change func(*corev1.Node) (patch map[string]any, wanted bool)) error {
	var group errgroup.Group
	group.SetLimit(parallelMarks)
	errs := make([]error, len(nodes))
	for i, node := range nodes {
		group.Go(func() error {
			errs[i] = c.changeNode(ctx, node, change)
			return nil
		})
	}
	_ = group.Wait()
	return several(errs...)
}

// severalShown bounds the errors that are told at once; an outage has one for each node.
const severalShown = 3

// several joins errors. A single one keeps its type.
func several(errs ...error) error {
	errs = slices.DeleteFunc(errs, func(err error) bool { return err == nil })
	switch {
	case len(errs) == 0:
		return nil
	case len(errs) == 1:
		return errs[0]
	case len(errs) > severalShown:
		errs = append(errs[:severalShown:severalShown], fmt.Errorf("and %d more errors", len(errs)-severalShown))
	}
	return errors.Join(errs...)
}

// changeNode patches a node as change wants it, once for each version of the node that somebody
// else was faster with. The patch carries the version that it was decided on. A node that is gone,
// or has become another one, is left alone.
func (c *cluster) changeNode(ctx context.Context, node *corev1.Node, change func(*corev1.Node) (patch map[string]any, wanted bool)) error {
	nodes, name, uid := c.client.CoreV1().Nodes(), node.Name, node.UID
	err := retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		if node == nil {
			var err error
			if node, err = nodes.Get(ctx, name, metav1.GetOptions{}); err != nil {
				return err
			}
		}
		if node.UID != uid {
			return nil
		}
		patch, wanted := change(node)
		if !wanted {
			return nil
		}
		patch["metadata"].(map[string]any)["resourceVersion"] = node.ResourceVersion
		body, err := json.Marshal(patch)
		if err != nil {
			return fmt.Errorf("encoding a patch: %w", err)
		}
		node = nil
		_, err = nodes.Patch(ctx, name, types.MergePatchType, body, metav1.PatchOptions{FieldManager: "fairway"})
		return err
	})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return c.explain("changing node "+name, err)
}

// pointers avoids copies of large objects.
func pointers[T any](items []T) []*T {
	out := make([]*T, len(items))
	for i := range items {
		out[i] = &items[i]
	}
	return out
}
