package kube

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"time"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/fairway-project/fairway/activities"
	"github.com/fairway-project/fairway/config"
	"github.com/fairway-project/fairway/drain"
	"github.com/fairway-project/fairway/workflows"
)

// Activities implements workflows.Kubernetes.
type Activities struct {
	Clusters *Clusters
	// Settings are the `replace` part of the configuration.
	Settings config.Replace
	// Blocks tells what is blocked.
	Blocks interface {
		State(ctx context.Context, cluster string) (workflows.ClusterState, error)
		Check(ctx context.Context, cluster, pool string) error
	}
	// Drain is the `drain` part of the configuration.
	Drain config.Drain
	// Notify tells people about forces; nil tells nobody.
	Notify func(context.Context, workflows.Notification) error
}

var _ workflows.Kubernetes = (*Activities)(nil)

// CordonedBy is the annotation that names the workflow which made a node unschedulable. What
// carries no such mark was cordoned by somebody else and stays so.
const CordonedBy = "fairway.dev/cordoned-by"

// ListNodes implements workflows.Kubernetes.
func (a *Activities) ListNodes(ctx context.Context, in workflows.ListNodes) ([]workflows.Node, error) {
	c, err := a.Clusters.get(ctx, in.Cluster)
	if err != nil {
		return nil, err
	}
	nodes, err := c.client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, c.explain("listing nodes", err)
	}
	pods, err := c.client.CoreV1().Pods("").List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, c.explain("listing pods", err)
	}
	count := map[string]int{}
	for i := range pods.Items {
		if pod := &pods.Items[i]; drain.MustLeave(pod) {
			count[pod.Spec.NodeName]++
		}
	}
	out := make([]workflows.Node, len(nodes.Items))
	for i := range nodes.Items {
		out[i] = a.describe(&nodes.Items[i], count[nodes.Items[i].Name])
	}
	return out, nil
}

// ExamineNode implements workflows.Kubernetes.
func (a *Activities) ExamineNode(ctx context.Context, in workflows.ExamineNode) (workflows.Node, error) {
	c, err := a.Clusters.get(ctx, in.Cluster)
	if err != nil {
		return workflows.Node{}, err
	}
	node, err := c.client.CoreV1().Nodes().Get(ctx, in.Node, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return workflows.Node{}, notFound(c.id, in.Node)
	}
	if err != nil {
		return workflows.Node{}, c.explain("reading node "+in.Node, err)
	}
	described := a.describe(node, 0)
	if described.Instance == "" {
		return workflows.Node{}, invalid("cluster %s: node %s: its providerID %q names no EC2 instance", c.id, in.Node, node.Spec.ProviderID)
	}
	if described.Pool == "" {
		return workflows.Node{}, invalid("cluster %s: node %s carries no label %s, so its pool is unknown; set kubernetes.pool_label if your nodes use another", c.id, in.Node, a.Clusters.Settings.PoolLabel)
	}
	return described, nil
}

func (a *Activities) describe(node *corev1.Node, pods int) workflows.Node {
	return workflows.Node{
		Name:     node.Name,
		Pool:     node.Labels[a.Clusters.Settings.PoolLabel],
		Instance: instanceOf(node),
		Type:     node.Labels[corev1.LabelInstanceTypeStable],
		Zone:     node.Labels[corev1.LabelTopologyZone],
		Version:  node.Status.NodeInfo.KubeletVersion,
		Ready:    ready(node),
		Cordoned: node.Spec.Unschedulable,
		Pods:     pods,
		Created:  node.CreationTimestamp.Time,

		ControlPlane: isControlPlane(node),
		Quarantined:  node.Annotations[Quarantined],
	}
}

// isControlPlane knows the label that kubeadm sets, and its predecessor that others still do.
func isControlPlane(node *corev1.Node) bool {
	_, controlPlane := node.Labels["node-role.kubernetes.io/control-plane"]
	_, master := node.Labels["node-role.kubernetes.io/master"]
	return controlPlane || master
}

// instanceOf reads the instance id out of a providerID such as aws:///eu-central-1a/i-0abc.
func instanceOf(node *corev1.Node) string {
	id := node.Spec.ProviderID[strings.LastIndex(node.Spec.ProviderID, "/")+1:]
	if !strings.HasPrefix(node.Spec.ProviderID, "aws://") || !strings.HasPrefix(id, "i-") {
		return ""
	}
	return id
}

func ready(node *corev1.Node) bool {
	for _, condition := range node.Status.Conditions {
		if condition.Type == corev1.NodeReady {
			return condition.Status == corev1.ConditionTrue
		}
	}
	return false
}

// CordonNode implements workflows.Kubernetes.
func (a *Activities) CordonNode(ctx context.Context, in workflows.CordonNode) error {
	if err := a.Blocks.Check(ctx, in.Cluster, in.Pool); err != nil {
		return err
	}
	return a.setCordon(ctx, in, func(node *corev1.Node) (map[string]any, bool) {
		annotations, spec := map[string]any{}, map[string]any{}
		// A node that a person cordoned stays theirs: it gets no mark, so nothing is undone later.
		if !node.Spec.Unschedulable {
			annotations[CordonedBy], spec["unschedulable"] = in.By, true
		}
		if _, quarantined := node.Annotations[Quarantined]; quarantined { // it is taken up again
			annotations[Quarantined] = nil
		}
		return nodePatch(annotations, spec)
	})
}

// UncordonNode implements workflows.Kubernetes.
func (a *Activities) UncordonNode(ctx context.Context, in workflows.CordonNode) error {
	err := a.setCordon(ctx, in, func(node *corev1.Node) (map[string]any, bool) {
		annotations, spec := map[string]any{}, map[string]any{}
		if node.Annotations[CordonedBy] == in.By {
			annotations[CordonedBy], spec["unschedulable"] = nil, nil
		}
		if _, quarantined := node.Annotations[Quarantined]; quarantined {
			annotations[Quarantined] = nil
		}
		return nodePatch(annotations, spec)
	})
	return several(err, a.restoreSurged(ctx, in)) // a Deployment that cannot be scaled keeps no node cordoned
}

// setCordon patches a node if change wants it.
func (a *Activities) setCordon(ctx context.Context, in workflows.CordonNode, change func(*corev1.Node) (map[string]any, bool)) error {
	c, err := a.Clusters.get(ctx, in.Cluster)
	if err != nil {
		return err
	}
	node, err := c.node(ctx, in.Node)
	if err != nil || node == nil || instanceOf(node) != in.Instance {
		return err // gone: there is nothing to keep pods away from, and nothing to undo
	}
	return c.changeNode(ctx, node, change)
}

// AwaitNode implements workflows.Kubernetes.
func (a *Activities) AwaitNode(ctx context.Context, in workflows.AwaitNode) (workflows.Node, error) {
	c, err := a.Clusters.get(ctx, in.Cluster)
	if err != nil {
		return workflows.Node{}, err
	}
	settle := a.Settings.Settle
	if in.Settle > 0 {
		settle = in.Settle
	}
	hold := scaleDownHold{by: in.By}
	var usableSince time.Time
	var out workflows.Node
	var bad error
	err = c.await(ctx, func(v *view) (string, bool) {
		node := v.nodeOf(in.Instance)
		late := time.Since(in.Since) > a.Settings.NodeReadyWithin
		unheld := hold.set(ctx, c, node)
		if lack := a.missing(v, node, in.Since); lack != "" {
			usableSince = time.Time{}
			lack = fmt.Sprintf("instance %s %s", in.Instance, lack)
			if late {
				bad = temporal.NewNonRetryableApplicationError(
					fmt.Sprintf("cluster %s: %s, %s after it was asked for", c.id, lack, a.Settings.NodeReadyWithin), workflows.BadReplacement, nil)
			}
			return lack, bad != nil
		}
		if usableSince.IsZero() {
			usableSince = time.Now()
		}
		out = a.describe(node, 0)
		if left := settle - time.Since(usableSince); left > 0 {
			return fmt.Sprintf("node %s is Ready and has to stay so for %s more", node.Name, left.Round(time.Second)), false
		}
		// A good node is no bad replacement only because the autoscaler could not be told.
		if unheld != nil && !late {
			return fmt.Sprintf("node %s cannot be kept from the autoscaler yet: %v", node.Name, unheld), false
		}
		return "", true
	})
	return out, cmp.Or(err, bad)
}

// scaleDownHold keeps the autoscaler from a node while that is waited for.
type scaleDownHold struct {
	by      string // nobody means that it is not held
	done    bool
	triedAt time.Time
	err     error
}

// set tries to hold the node, at most once a second, and returns what is in the way.
func (h *scaleDownHold) set(ctx context.Context, c *cluster, node *corev1.Node) error {
	const every, within = time.Second, 3 * time.Second // it must not take the time of a heartbeat
	if h.by == "" || h.done || node == nil || time.Since(h.triedAt) < every {
		return h.err
	}
	h.triedAt = time.Now()
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	h.err = c.holdScaleDown(ctx, node, h.by)
	h.done = h.err == nil
	return h.err
}

// FindNode implements workflows.Kubernetes.
func (a *Activities) FindNode(ctx context.Context, in workflows.FindNode) (workflows.Node, error) {
	c, err := a.Clusters.get(ctx, in.Cluster)
	if err != nil {
		return workflows.Node{}, err
	}
	nodes, err := c.client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return workflows.Node{}, c.explain("listing nodes", err)
	}
	for i := range nodes.Items {
		if node := &nodes.Items[i]; instanceOf(node) == in.Instance {
			return a.describe(node, 0), nil
		}
	}
	return workflows.Node{}, nil
}

// missing says what a new node lacks before it may take over pods; empty means nothing. Its instance
// was asked for at the given time.
func (a *Activities) missing(v *view, node *corev1.Node, asked time.Time) string {
	switch {
	case node == nil:
		return "is not a node yet"
	case !ready(node):
		return fmt.Sprintf("is node %s, which is not Ready yet", node.Name)
	case node.Spec.Unschedulable:
		return fmt.Sprintf("is node %s, which is cordoned", node.Name)
	}
	// It is looked for first: what does not tolerate it has to run all the same when it is gone.
	if taint := a.startupTaint(v, node, asked); taint != nil {
		return fmt.Sprintf("is node %s, which still has the taint %s", node.Name, taint.ToString())
	}
	running := map[types.UID]bool{}
	for _, pod := range v.podsOn(node.Name) {
		if owner := metav1.GetControllerOf(pod); owner != nil && drain.Ready(pod) {
			running[owner.UID] = true
		}
	}
	for _, set := range v.allDaemonSets() {
		if !running[set.UID] && runsOn(set, node) {
			return fmt.Sprintf("is node %s, where a pod of DaemonSet %s/%s is not Ready yet", node.Name, set.Namespace, set.Name)
		}
	}
	return ""
}

// AwaitNodeGone implements workflows.Kubernetes.
func (a *Activities) AwaitNodeGone(ctx context.Context, in workflows.AwaitNodeGone) error {
	c, err := a.Clusters.get(ctx, in.Cluster)
	if err != nil {
		return err
	}
	return c.await(ctx, func(v *view) (string, bool) {
		node := v.node(in.Node)
		gone := node == nil || instanceOf(node) != in.Instance
		return fmt.Sprintf("node %s is still registered", in.Node), gone
	})
}

// await asks a question of the view whenever it changes, and once a second for what depends on
// the clock, until the answer is yes. What is missing meanwhile is heartbeated for people to see.
func (c *cluster) await(ctx context.Context, question func(*view) (missing string, done bool)) error {
	v, release, err := c.view.hold(ctx)
	if err != nil {
		return c.explain("watching nodes and pods", err)
	}
	defer release()
	woken, unsubscribe := v.subscribe()
	defer unsubscribe()
	clock := time.NewTicker(time.Second)
	defer clock.Stop()
	for {
		missing, done := question(v)
		if done {
			return nil
		}
		if trouble := v.lastTrouble(); trouble != nil {
			missing += fmt.Sprintf(" (the API server does not answer: %v)", trouble)
		}
		activity.RecordHeartbeat(ctx, missing)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-activity.GetWorkerStopChannel(ctx):
			return activities.ErrStopping
		case <-woken:
		case <-clock.C:
		}
	}
}
