package workflows

import (
	"cmp"
	"fmt"
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"
)

// ReplaceNodeInput says which node is to go. Its replacement is there already, unless InPlace.
type ReplaceNodeInput struct {
	Cluster  string `json:"cluster"`
	Pool     string `json:"pool"`
	Group    string `json:"group"`
	Node     string `json:"node"`
	Instance string `json:"instance"`
	// InPlace has the group launch the replacement when the node ends, as Launch says.
	InPlace bool   `json:"in_place,omitempty"`
	Launch  Launch `json:"launch,omitzero"`
	// Tried is for how long earlier drains of the node have been tried; force counts it.
	Tried time.Duration `json:"tried,omitempty"`
	// GiveUpAfter is how long all drains of the node together may last; 0 means for ever.
	GiveUpAfter time.Duration `json:"give_up_after,omitempty"`
}

// ReplaceNodeResult tells what it took.
type ReplaceNodeResult struct {
	Evicted int `json:"evicted"`
	// Drained is for how long this drain has been tried, blocked time not counted.
	Drained  time.Duration `json:"drained"`
	Finished time.Time     `json:"finished"`
	// Vanished means that the instance ended by itself, which its group makes up for.
	Vanished bool `json:"vanished,omitempty"`
	// Forced are the pods that were deleted although something held them.
	Forced []ForcedPod `json:"forced,omitempty"`
	// GaveUp means that the node could not be emptied in time, for the reason. It is cordoned and
	// marked, and otherwise as it was.
	GaveUp bool   `json:"gave_up,omitempty"`
	Reason string `json:"reason,omitempty"`
}

// ReplaceNode empties a node within the budgets of its pods and ends its instance, which makes
// the pool one smaller, or has its group replace it. Cancelled before the node is empty, it leaves the
// node usable again; from then on it goes through with the end, because a half-terminated node helps
// nobody.
func ReplaceNode(ctx workflow.Context, in ReplaceNodeInput) (result ReplaceNodeResult, err error) {
	r := &replacement{in: in, id: workflow.GetInfo(ctx).WorkflowExecution.ID}
	defer func() { r.tell(ctx, result, err) }()

	for ended := false; !ended; {
		drained, err := r.empty(ctx, &result)
		if err != nil {
			return result, withUndo(err, r.uncordon(ctx))
		}
		if drained.GaveUp {
			result.GaveUp, result.Reason = true, whyHeld(drained)
			return result, r.quarantine(ctx, result.Reason)
		}
		// A block that came in between is waited for by the drain: the node may be empty no more.
		if ended, err = r.terminate(ctx, &result); err != nil {
			return result, withUndo(err, r.uncordon(ctx))
		}
	}
	ctx, stop := workflow.NewDisconnectedContext(ctx)
	defer stop()
	if err := r.confirm(ctx); err != nil {
		return result, err
	}
	result.Finished = workflow.Now(ctx)
	return result, nil
}

type replacement struct {
	in ReplaceNodeInput
	id string
}

// empty cordons and drains the node.
func (r *replacement) empty(ctx workflow.Context, result *ReplaceNodeResult) (drained DrainProgress, err error) {
	r.phase(ctx, "draining", "keeps new pods away and evicts the node's pods as their budgets allow; the pending activity's heartbeat names the pods that wait and why")
	if err := workflow.ExecuteActivity(changing(ctx, "cordon "+r.in.Node), "CordonNode", r.mark()).Get(ctx, nil); err != nil {
		return drained, err
	}
	err = workflow.ExecuteActivity(watching(ctx, "drain "+r.in.Node, forEver), "DrainNode",
		DrainNode{
			Cluster: r.in.Cluster, Pool: r.in.Pool, Node: r.in.Node, Instance: r.in.Instance, By: r.id,
			Started: workflow.Now(ctx), Tried: r.in.Tried + result.Drained, GiveUpAfter: r.in.GiveUpAfter,
		}).Get(ctx, &drained)
	result.Evicted += drained.Evicted
	result.Drained += drained.Tried
	result.Forced = append(result.Forced, drained.Forced...)
	return drained, cmp.Or(err, ctx.Err())
}

// whyHeld names a pod that kept a node from being emptied.
func whyHeld(drained DrainProgress) string {
	if len(drained.Waiting) == 0 {
		return fmt.Sprintf("%d pods are left", drained.Left)
	}
	held := drained.Waiting[0]
	why := fmt.Sprintf("pod %s: %s", held.Pod, held.Reason)
	if others := drained.Left - 1; others > 0 {
		why += fmt.Sprintf(" (and %d others)", others)
	}
	return why
}

func (r *replacement) quarantine(ctx workflow.Context, why string) error {
	r.phase(ctx, "quarantine", "could not be emptied in time and is taken up again last: "+why)
	ctx, stop := workflow.NewDisconnectedContext(ctx)
	defer stop()
	return workflow.ExecuteActivity(changing(ctx, "quarantine "+r.in.Node), "QuarantineNode", QuarantineNode{CordonNode: r.mark(), Reason: why}).Get(ctx, nil)
}

// terminate ends the instance, unless the pool is blocked by now. Once it is asked for it is seen
// through, so it runs on a context of its own.
func (r *replacement) terminate(ctx workflow.Context, result *ReplaceNodeResult) (ended bool, err error) {
	ctx, stop := workflow.NewDisconnectedContext(ctx)
	defer stop()
	effect := "makes the group one smaller"
	if r.in.InPlace {
		effect = "has the group replace it"
	}
	r.phase(ctx, "terminating", "ends instance "+r.in.Instance+" and "+effect)
	var termination Termination
	err = workflow.ExecuteActivity(ending(ctx, "terminate "+r.in.Instance), "TerminateInstance", r.instance()).Get(ctx, &termination)
	if isKind(err, Blocked) {
		return false, nil
	}
	result.Vanished = termination.Vanished
	return true, err
}

func (r *replacement) confirm(ctx workflow.Context) error {
	r.phase(ctx, "confirming", "waits until instance and node are gone")
	err := workflow.ExecuteActivity(watching(ctx, "instance "+r.in.Instance+" is gone", forEver), "AwaitTermination", r.instance()).Get(ctx, nil)
	if err != nil {
		return err
	}
	return workflow.ExecuteActivity(watching(ctx, "node "+r.in.Node+" is gone", forEver), "AwaitNodeGone",
		AwaitNodeGone{Cluster: r.in.Cluster, Node: r.in.Node, Instance: r.in.Instance}).Get(ctx, nil)
}

// uncordon runs on a context of its own: on a cancelled one nothing would happen.
func (r *replacement) uncordon(ctx workflow.Context) error {
	ctx, stop := workflow.NewDisconnectedContext(ctx)
	defer stop()
	r.phase(ctx, "undoing", "makes the node usable again")
	return workflow.ExecuteActivity(changing(ctx, "uncordon "+r.in.Node), "UncordonNode", r.mark()).Get(ctx, nil)
}

func (r *replacement) mark() CordonNode {
	return CordonNode{Cluster: r.in.Cluster, Pool: r.in.Pool, Node: r.in.Node, Instance: r.in.Instance, By: r.id}
}

func (r *replacement) instance() TerminateInstance {
	return TerminateInstance{Cluster: r.in.Cluster, Pool: r.in.Pool, Group: r.in.Group, Instance: r.in.Instance, By: r.id, Replace: r.in.InPlace, Launch: r.in.Launch}
}

func (r *replacement) phase(ctx workflow.Context, phase, meaning string) {
	r.show(ctx, phase, fmt.Sprintf("**%s** node `%s` (instance `%s`) of pool %s in cluster %s: %s.",
		phase, r.in.Node, r.in.Instance, r.in.Pool, r.in.Cluster, meaning))
}

// tell records how the replacement ended.
func (r *replacement) tell(ctx workflow.Context, result ReplaceNodeResult, err error) {
	switch {
	case err == nil && result.GaveUp:
	case err == nil:
		r.show(ctx, "done", fmt.Sprintf("Node `%s` is replaced; instance `%s` is terminated.", r.in.Node, r.in.Instance))
	case temporal.IsCanceledError(err):
		r.show(ctx, "cancelled", fmt.Sprintf("Cancelled; node `%s` is usable again.", r.in.Node))
	default:
		r.show(ctx, "failed", fmt.Sprintf("Failed: %v", err))
	}
}

func (r *replacement) show(ctx workflow.Context, phase, details string) {
	workflow.SetCurrentDetails(ctx, details)
	// An upsert costs a history event; a failed one means the attribute is missing in the
	// namespace, which the worker has checked at its start.
	_ = workflow.UpsertTypedSearchAttributes(ctx, PhaseAttribute.ValueSet(phase))
}
