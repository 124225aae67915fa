package workflows

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"
)

// RollPoolInput says which nodes of a pool are to be replaced.
type RollPoolInput struct {
	Cluster string   `json:"cluster"`
	Pool    string   `json:"pool"`
	Nodes   []string `json:"nodes"`
	// By and Reason are for people who wonder later.
	By     string `json:"by,omitempty"`
	Reason string `json:"reason,omitempty"`
}

// RollProgress is where a roll stands.
type RollProgress struct {
	Phase string         `json:"phase"`
	Step  string         `json:"step"` // what happens now, in words
	Nodes []NodeProgress `json:"nodes"`
	// Size is the pool's desired capacity before the roll.
	Size int `json:"size"`
}

// NodeProgress is where the replacement of one node stands.
type NodeProgress struct {
	Node        string    `json:"node"`
	Instance    string    `json:"instance"`
	Replacement string    `json:"replacement,omitempty"` // name of the new node, once it is usable
	State       NodeState `json:"state"`
	Evicted     int       `json:"evicted,omitempty"`
	// Forced are the pods that were deleted although something held them.
	Forced []ForcedPod `json:"forced,omitempty"`
}

// NodeState is a stage in the replacement of a node.
type NodeState string

// The stages of a node's replacement, in order.
const (
	Waiting   NodeState = "waiting"
	Surging   NodeState = "surging"   // the replacement is being launched
	Replacing NodeState = "replacing" // ReplaceNode works on it
	Replaced  NodeState = "replaced"
)

// RollPool replaces nodes of a pool, one after another. For each it makes the pool one larger,
// waits until the new node is usable, and has ReplaceNode empty and end the old one, which makes
// the pool as large as before. Whatever happens in between, the size is as before in the end and
// the nodes that were not replaced are usable.
func RollPool(ctx workflow.Context, in RollPoolInput) (RollProgress, error) {
	r := &rolling{in: in}
	if err := workflow.SetQueryHandler(ctx, ProgressQuery, func() (RollProgress, error) { return r.progress, nil }); err != nil {
		return r.progress, err
	}
	if err := r.examine(ctx); err != nil {
		return r.progress, r.end(ctx, err)
	}
	for i := range r.progress.Nodes {
		if err := r.replace(ctx, &r.progress.Nodes[i]); err != nil {
			return r.progress, r.end(ctx, err)
		}
	}
	return r.progress, r.end(ctx, nil)
}

// rolling is the state of RollPool. All of its fields are set by workflow code only.
type rolling struct {
	in       RollPoolInput
	cluster  ClusterInfo
	group    string
	progress RollProgress
}

// examine looks at everything before anything is changed.
func (r *rolling) examine(ctx workflow.Context) error {
	r.step(ctx, "examining", "looks at the nodes and their group before anything is changed")
	var clusters []ClusterInfo
	err := workflow.ExecuteActivity(examining(ctx, "find cluster "+r.in.Cluster), "ListClusters", ListClusters{Names: []string{r.in.Cluster}}).Get(ctx, &clusters)
	if err != nil {
		return err
	}
	r.cluster = clusters[0]
	if err := workflow.UpsertTypedSearchAttributes(ctx, ChannelAttribute.ValueSet(r.cluster.Channel), EnvironmentAttribute.ValueSet(r.cluster.Environment)); err != nil {
		return err
	}
	pool, err := r.pool(ctx)
	if err != nil {
		return err
	}
	r.group, r.progress.Size = pool.Group, pool.Desired
	for _, name := range r.in.Nodes {
		var node Node
		if err := workflow.ExecuteActivity(examining(ctx, "examine "+name), "ExamineNode", ExamineNode{Cluster: r.cluster.ID, Node: name}).Get(ctx, &node); err != nil {
			return err
		}
		if err := CheckMember(r.cluster.ID, node, pool); err != nil {
			return err
		}
		r.progress.Nodes = append(r.progress.Nodes, NodeProgress{Node: name, Instance: node.Instance, State: Waiting})
	}
	return CheckSurgeRoom(r.cluster.ID, r.in.Pool, pool)
}

// CheckMember says whether the instance of a node is one of its pool's.
func CheckMember(cluster string, node Node, p Pool) error {
	if slices.ContainsFunc(p.Instances, func(i Instance) bool { return i.ID == node.Instance }) {
		return nil
	}
	return temporal.NewNonRetryableApplicationError(fmt.Sprintf(
		"cluster %s: node %s runs on instance %s, which is not in group %s of its pool", cluster, node.Name, node.Instance, p.Group), NodeNotFound, nil)
}

// CheckSurgeRoom says whether a pool can be made one larger.
func CheckSurgeRoom(cluster, pool string, p Pool) error {
	if p.Desired < p.Max {
		return nil
	}
	return temporal.NewNonRetryableApplicationError(fmt.Sprintf(
		"cluster %s: pool %s has no room for a replacement: its group %s has %d instances, which is its maximum; raise max_size by one",
		cluster, pool, p.Group, p.Desired), NoSurgeRoom, nil)
}

func (r *rolling) pool(ctx workflow.Context) (pool Pool, err error) {
	err = workflow.ExecuteActivity(examining(ctx, "examine pool "+r.in.Pool), "ExaminePool", ExaminePool{Cluster: r.cluster.ID, Pool: r.in.Pool}).Get(ctx, &pool)
	return pool, err
}

// replace takes one node through its whole replacement.
func (r *rolling) replace(ctx workflow.Context, node *NodeProgress) error {
	before, err := r.pool(ctx)
	if err != nil {
		return err
	}
	if err := CheckSurgeRoom(r.cluster.ID, r.in.Pool, before); err != nil {
		return err
	}
	kept := instanceIDs(before.Instances)
	fresh, err := r.surge(ctx, before, node)
	if err != nil {
		node.State = Waiting
		return withUndo(err, r.giveBack(ctx, before.Desired, kept))
	}
	vanished, err := r.replaceOld(ctx, node, fresh)
	if err != nil {
		node.State = Waiting
		return withUndo(err, r.giveBack(ctx, before.Desired, kept))
	}
	node.State = Replaced
	if vanished { // its group launches another one for it, which is one too many
		return r.giveBack(ctx, before.Desired, append(kept, fresh.Instance))
	}
	return nil
}

// surge makes the pool one larger and waits until the new node is usable.
func (r *rolling) surge(ctx workflow.Context, before Pool, node *NodeProgress) (fresh Node, err error) {
	node.State = Surging
	asked, larger := workflow.Now(ctx), before.Desired+1
	r.step(ctx, "surging", fmt.Sprintf("grows group `%s` from %d to %d and waits until the new node is usable", r.group, before.Desired, larger))
	if err := workflow.ExecuteActivity(changing(ctx, fmt.Sprintf("grow %s to %d", r.group, larger)), "GrowPool",
		GrowPool{Cluster: r.cluster.ID, Pool: r.in.Pool, Group: r.group, From: before.Desired, To: larger}).Get(ctx, nil); err != nil {
		return fresh, err
	}
	var instances []Instance
	if err := workflow.ExecuteActivity(watching(ctx, "new instance in "+r.group, forEver), "AwaitInstances",
		AwaitInstances{Cluster: r.cluster.ID, Group: r.group, Known: instanceIDs(before.Instances), Count: 1, Since: asked}).Get(ctx, &instances); err != nil {
		return fresh, err
	}
	err = workflow.ExecuteActivity(watching(ctx, "instance "+instances[0].ID+" becomes a usable node", forEver), "AwaitNode",
		AwaitNode{Cluster: r.cluster.ID, Instance: instances[0].ID, Since: asked}).Get(ctx, &fresh)
	return fresh, err
}

func (r *rolling) replaceOld(ctx workflow.Context, node *NodeProgress, fresh Node) (vanished bool, err error) {
	node.State, node.Replacement = Replacing, fresh.Name
	r.step(ctx, "replacing", fmt.Sprintf("moves the pods of node `%s` elsewhere and ends it; `%s` is there already", node.Node, fresh.Name))
	result, err := r.retire(ctx, node.Node, node.Instance)
	node.Evicted, node.Forced = result.Evicted, result.Forced
	return result.Vanished, err
}

// retire has ReplaceNode empty and end a node. The child is a workflow of its own, so that its id
// guards the node and its history stays readable.
func (r *rolling) retire(ctx workflow.Context, node, instance string) (result ReplaceNodeResult, err error) {
	ctx = asChild(ctx, ReplaceNodeID(r.cluster.ID, node), fmt.Sprintf("replace node %s of %s", node, r.cluster.ID),
		temporal.NewSearchAttributes(
			ClusterAttribute.ValueSet(r.cluster.ID), PoolAttribute.ValueSet(r.in.Pool),
			ChannelAttribute.ValueSet(r.cluster.Channel), EnvironmentAttribute.ValueSet(r.cluster.Environment),
		))
	err = workflow.ExecuteChildWorkflow(ctx, ReplaceNode, ReplaceNodeInput{
		Cluster: r.cluster.ID, Pool: r.in.Pool, Group: r.group, Node: node, Instance: instance,
	}).Get(ctx, &result)
	return result, err
}

// giveBack returns the pool to its size if it is still one larger. It runs on a context of its
// own: also, and above all, after a cancellation.
func (r *rolling) giveBack(ctx workflow.Context, size int, kept []string) error {
	ctx, stop := workflow.NewDisconnectedContext(ctx)
	defer stop()
	var surplus []Instance
	if err := workflow.ExecuteActivity(changing(ctx, fmt.Sprintf("%s is back at %d", r.group, size)), "ReleaseCapacity",
		ReleaseCapacity{Cluster: r.cluster.ID, Group: r.group, From: size + 1, To: size, Known: kept}).Get(ctx, &surplus); err != nil {
		return err
	}
	if len(surplus) == 0 {
		return nil
	}
	// Pods may run on it already, so it goes the way every node goes.
	instance := surplus[0].ID
	r.step(ctx, "undoing", fmt.Sprintf("empties and ends the surplus instance `%s`", instance))
	var node Node
	if err := workflow.ExecuteActivity(changing(ctx, "find the node of "+instance), "FindNode",
		FindNode{Cluster: r.cluster.ID, Instance: instance}).Get(ctx, &node); err != nil {
		return err
	}
	if node.Name != "" {
		_, err := r.retire(ctx, node.Name, instance)
		return err
	}
	return workflow.ExecuteActivity(changing(ctx, "terminate "+instance), "TerminateInstance",
		TerminateInstance{Cluster: r.cluster.ID, Pool: r.in.Pool, Group: r.group, Instance: instance, By: workflow.GetInfo(ctx).WorkflowExecution.ID}).Get(ctx, nil)
}

// step records what happens now, for people: current details cost no event, the phase one.
func (r *rolling) step(ctx workflow.Context, phase, meaning string) {
	r.progress.Step = meaning
	done := 0
	for _, node := range r.progress.Nodes {
		if node.State == Replaced {
			done++
		}
	}
	workflow.SetCurrentDetails(ctx, fmt.Sprintf("**%s** pool %s of cluster %s: %s.\n\n%d of %d nodes replaced. Asked for by %s. Reason: %s.",
		phase, r.in.Pool, r.in.Cluster, meaning, done, len(r.in.Nodes), cmp.Or(r.in.By, "nobody named"), cmp.Or(r.in.Reason, "none given")))
	if r.progress.Phase != phase {
		r.progress.Phase = phase
		// It fails only if the namespace lacks the attribute, which the worker checks at its start.
		_ = workflow.UpsertTypedSearchAttributes(ctx, PhaseAttribute.ValueSet(phase))
	}
}

// end records how the roll ended, and returns err.
func (r *rolling) end(ctx workflow.Context, err error) error {
	switch {
	case err == nil:
		r.step(ctx, "done", fmt.Sprintf("all nodes are replaced and group `%s` has its size of %d", r.group, r.progress.Size))
	case temporal.IsCanceledError(err):
		r.step(ctx, "cancelled", "what had been begun is undone")
	default:
		r.step(ctx, "failed", err.Error())
	}
	return err
}

func instanceIDs(instances []Instance) []string {
	out := make([]string, len(instances))
	for i, instance := range instances {
		out[i] = instance.ID
	}
	return out
}

// withUndo joins the error of undoing something to the error that made it necessary. Where the
// undoing went well, the first error stays as it is, with its type.
func withUndo(err, undo error) error {
	if undo == nil {
		return err
	}
	return errors.Join(err, fmt.Errorf("undoing: %w", undo))
}
