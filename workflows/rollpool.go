package workflows

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/fairway-project/fairway/roll"
)

// RollPoolInput says which nodes of a pool are to be replaced.
type RollPoolInput struct {
	Cluster string `json:"cluster"`
	Pool    string `json:"pool"`
	// Nodes names those to replace; none means the old ones.
	Nodes []string `json:"nodes,omitempty"`
	// All takes every node, old or not.
	All bool `json:"all,omitempty"`
	// MaxAge takes nodes of that age too, as a duration such as "720h"; default as configured.
	MaxAge string `json:"max_age,omitempty"`
	// Remove empties the pool: its nodes go and none comes.
	Remove bool `json:"remove,omitempty"`
	// Urgent waits for no maintenance window, as on the way back to a version; blocks and limits hold.
	Urgent bool `json:"urgent,omitempty"`
	// By and Reason are for people who wonder later.
	By     string `json:"by,omitempty"`
	Reason string `json:"reason,omitempty"`
	// Resume is where an earlier run of the same roll left off; not for people.
	Resume *RollProgress `json:"resume,omitempty"`
}

// RollProgress is where a roll stands. It is also all that a roll hands to its next run.
type RollProgress struct {
	Phase string         `json:"phase"`
	Step  string         `json:"step"` // what happens now, in words
	Group string         `json:"group,omitempty"`
	Nodes []NodeProgress `json:"nodes"`
	// NoNodes are instances that have not become nodes in time and are ended after all nodes.
	NoNodes []string `json:"no_nodes,omitempty"`
	// Size is the pool's desired capacity before the roll.
	Size    int       `json:"size"`
	Started time.Time `json:"started"`
	// Batch is how many nodes the last finished batch had.
	Batch int `json:"batch,omitempty"`
	// Bad counts new instances that never became usable nodes, or did not stay so.
	Bad int `json:"bad,omitempty"`
	// Fallbacks are the ways out of capacity shortages that were taken.
	Fallbacks []FallbackTaken `json:"fallbacks,omitempty"`
	// Spare are replacements whose old nodes are in quarantine; they serve the next ones.
	Spare []Node `json:"spare,omitempty"`
	// Left says what could not be put back as it was.
	Left string `json:"left,omitempty"`
	// Told means that people know that the roll has begun.
	Told bool `json:"told,omitempty"`
}

// NodeProgress is where the replacement of one node stands.
type NodeProgress struct {
	Node         string    `json:"node"`
	Instance     string    `json:"instance"`
	Zone         string    `json:"zone,omitempty"`
	ControlPlane bool      `json:"control_plane,omitempty"`
	Pinned       bool      `json:"pinned,omitempty"`
	Replacement  string    `json:"replacement,omitempty"` // name of the new node, once it is usable
	State        NodeState `json:"state"`
	Began        time.Time `json:"began,omitzero"`
	Ended        time.Time `json:"ended,omitzero"`
	Evicted      int       `json:"evicted,omitempty"`
	// Drained is for how long drains have been tried.
	Drained time.Duration `json:"drained,omitempty"`
	// Forced are the pods that were deleted although something held them.
	Forced []ForcedPod `json:"forced,omitempty"`
	// Reason is why the node is in quarantine.
	Reason string `json:"reason,omitempty"`
}

// NodeState is a stage in the replacement of a node.
type NodeState string

// The stages of a node's replacement.
const (
	Waiting    NodeState = "waiting"
	Surging    NodeState = "surging"    // the replacement is being launched
	Replacing  NodeState = "replacing"  // ReplaceNode works on it
	Replaced   NodeState = "replaced"   // it is gone
	Quarantine NodeState = "quarantine" // it could not be drained in time and is taken up again last
)

// FallbackTaken is a way out of a capacity shortage that was taken.
type FallbackTaken struct {
	At   time.Time         `json:"at"`
	Kind roll.FallbackKind `json:"kind"`
	Text string            `json:"text"` // what was done instead of what, and why
}

// rollHistory is the number of events after which a roll goes on in a new run.
const rollHistory = 10_000

// RollPool replaces nodes of a pool, in batches: one node alone, then more at a time. For each
// batch it makes the pool larger, waits until the new nodes are usable, and has ReplaceNode empty
// and end the old ones, which makes the pool as large as before. Whatever happens in between,
// the size, the protections and the marks are as before in the end, and the nodes that were not
// replaced are usable.
func RollPool(ctx workflow.Context, in RollPoolInput) (RollProgress, error) {
	r := &rolling{in: in, id: workflow.GetInfo(ctx).WorkflowExecution.ID}
	if err := workflow.SetQueryHandler(ctx, ProgressQuery, func() (RollProgress, error) { return r.progress, nil }); err != nil {
		return r.progress, err
	}
	if in.Resume != nil {
		r.progress = *in.Resume
	}
	workflow.GoNamed(ctx, "stop", func(ctx workflow.Context) {
		r.stopped, r.stopping = heardWord(ctx, StopName, "a reason that was not understood"), true
	})
	err := r.examine(ctx)
	if err != nil && in.Resume == nil {
		return r.progress, r.end(ctx, err) // nothing has been changed
	}
	if err == nil {
		err = r.protect(ctx)
	}
	for err == nil && !r.stopping {
		var candidates []*NodeProgress
		if candidates = r.next(); len(candidates) == 0 {
			break
		}
		if err = r.replace(ctx, candidates); err == nil {
			err = ctx.Err() // a batch that went through although the roll was cancelled is the last one
		}
		if err == nil && !r.stopping && workflow.GetInfo(ctx).GetCurrentHistoryLength() > rollHistory {
			in.Resume = &r.progress
			return r.progress, workflow.NewContinueAsNewError(ctx, RollPool, in)
		}
	}
	if err == nil && !r.stopping {
		err = r.endNoNodes(ctx)
	}
	emptied := err == nil && len(r.inState(Replaced)) == len(r.progress.Nodes)
	return r.progress, r.end(ctx, withUndo(err, r.restore(ctx, emptied)))
}

// rolling is the state of RollPool. All of its fields are set by workflow code only.
type rolling struct {
	in       RollPoolInput
	id       string
	info     PoolInfo
	progress RollProgress
	// seen is the group at the first look, until a batch has begun with it.
	seen   Pool
	seenAt time.Time
	// stopping means that somebody wants no more batches to begin, and stopped is why.
	stopping bool
	stopped  string
}

// cluster is the id of the cluster, or what it was called in the request while that is not known.
func (r *rolling) cluster() string { return cmp.Or(r.info.Cluster.ID, r.in.Cluster) }

func (r *rolling) group() string { return r.progress.Group }

// examine looks at everything before anything is changed.
func (r *rolling) examine(ctx workflow.Context) error {
	r.step(ctx, "examining", "looks at the pool and its nodes before anything is changed")
	found := workflow.ExecuteActivity(examining(ctx, "find pool "+r.in.Pool+" of "+r.in.Cluster), "FindPool", FindPool{Cluster: r.in.Cluster, Pool: r.in.Pool})
	examined := r.askPool(ctx)
	surveyed := r.survey(ctx)
	if err := found.Get(ctx, &r.info); err != nil {
		return err
	}
	if err := workflow.UpsertTypedSearchAttributes(ctx, ChannelAttribute.ValueSet(r.info.Cluster.Channel), EnvironmentAttribute.ValueSet(r.info.Cluster.Environment)); err != nil {
		return err
	}
	var pool Pool
	var nodes []Node
	if err := cmp.Or(examined.Get(ctx, &pool), surveyed.Get(ctx, &nodes)); err != nil {
		return err
	}
	r.seen, r.seenAt = pool, workflow.Now(ctx)
	if r.in.Resume != nil {
		return nil
	}
	for _, name := range r.in.Nodes {
		if slices.ContainsFunc(nodes, func(n Node) bool { return n.Name == name }) {
			continue
		}
		// Why it is none of the pool's is more than the survey knows.
		if err := workflow.ExecuteActivity(examining(ctx, "examine "+name), "ExamineNode", ExamineNode{Cluster: r.cluster(), Node: name}).Get(ctx, nil); err != nil {
			return err
		}
	}
	plan, err := PlanRoll(r.in, r.info, pool, nodes, workflow.Now(ctx))
	if err == nil && len(plan.NoNodes) > 0 {
		plan, err = r.awaitBecoming(ctx, plan)
	}
	if err != nil {
		return err
	}
	r.progress.Group, r.progress.Size, r.progress.Started = plan.Pool.Group, plan.Pool.Desired, workflow.Now(ctx)
	r.progress.NoNodes = plan.NoNodes
	for _, node := range plan.Nodes {
		r.progress.Nodes = append(r.progress.Nodes, NodeProgress{
			Node: node.Name, Instance: node.Instance, Zone: node.Zone, ControlPlane: node.ControlPlane, Pinned: node.Pinned, State: Waiting,
		})
	}
	return nil
}

// becomesNodeWithin is how long an instance that is to be replaced may take to become a node, such as
// one that was launched just before its template changed. It may get pods by then, so it is drained
// as all others are. One that takes longer most likely never becomes a node.
const becomesNodeWithin = 5 * time.Minute

// awaitBecoming looks at the pool until all instances that are to be replaced are nodes, or for long enough.
// The looks are few: the pauses between them grow.
func (r *rolling) awaitBecoming(ctx workflow.Context, plan RollPlan) (RollPlan, error) {
	since := workflow.Now(ctx)
	for pause := 15 * time.Second; len(plan.NoNodes) > 0 && !r.stopping; pause *= 2 {
		left := becomesNodeWithin - workflow.Now(ctx).Sub(since)
		if left <= 0 {
			break
		}
		r.step(ctx, "examining", "waits until instances "+strings.Join(plan.NoNodes, ", ")+" are nodes")
		if err := r.unlessStopped(ctx, func(ctx workflow.Context) workflow.Future {
			return workflow.NewTimerWithOptions(ctx, min(pause, left), workflow.TimerOptions{Summary: "look at the pool again"})
		}); err != nil {
			return plan, err
		}
		var pool Pool
		var nodes []Node
		examined, surveyed := r.askPool(ctx), r.survey(ctx)
		if err := cmp.Or(examined.Get(ctx, &pool), surveyed.Get(ctx, &nodes)); err != nil {
			return plan, err
		}
		var err error
		r.seen, r.seenAt = pool, workflow.Now(ctx)
		if plan, err = PlanRoll(r.in, r.info, pool, nodes, workflow.Now(ctx)); err != nil {
			return plan, err
		}
	}
	return plan, nil
}

// endNoNodes has the group replace the instances that have not become nodes. There is nothing to drain,
// and no node is missing meanwhile, so they need no surge.
func (r *rolling) endNoNodes(ctx workflow.Context) error {
	for len(r.progress.NoNodes) > 0 {
		if err := r.awaitUnblocked(ctx); err != nil || r.stopping {
			return err
		}
		instance := r.progress.NoNodes[0]
		r.step(ctx, "replacing", "ends instance "+instance+", which is no node")
		var node Node
		if err := workflow.ExecuteActivity(changing(ctx, "is "+instance+" still no node"), "FindNode", FindNode{Cluster: r.cluster(), Instance: instance}).Get(ctx, &node); err != nil {
			return err
		}
		if node.Name != "" { // it may have pods; the next roll empties it as all others
			return temporal.NewNonRetryableApplicationError(fmt.Sprintf("cluster %s: instance %s of pool %s has become node %s only after its roll had begun; roll the pool again",
				r.cluster(), instance, r.in.Pool, node.Name), PoolBusy, nil)
		}
		end := TerminateInstance{Cluster: r.cluster(), Pool: r.in.Pool, Group: r.group(), Instance: instance, By: r.id, Replace: true}
		err := workflow.ExecuteActivity(ending(ctx, "terminate "+instance), "TerminateInstance", end).Get(ctx, nil)
		if isKind(err, Blocked) {
			continue // it may be a node after the block
		}
		if err == nil {
			err = workflow.ExecuteActivity(watching(ctx, "instance "+instance+" is gone", forEver), "AwaitTermination", end).Get(ctx, nil)
		}
		if err != nil {
			return err
		}
		r.progress.NoNodes = r.progress.NoNodes[1:]
	}
	return nil
}

func (r *rolling) survey(ctx workflow.Context) workflow.Future {
	return workflow.ExecuteActivity(examining(ctx, "survey the nodes of "+r.in.Pool), "SurveyPool", SurveyPool{Cluster: r.in.Cluster, Pool: r.in.Pool})
}

func (r *rolling) askPool(ctx workflow.Context) workflow.Future {
	return workflow.ExecuteActivity(examining(ctx, "examine pool "+r.in.Pool), "ExaminePool", ExaminePool{Cluster: r.in.Cluster, Pool: r.in.Pool})
}

// lookAgain is how long the first look at a pool serves. After that, as when a block has held
// the roll up, the pool is looked at again before anything is changed.
const lookAgain = 30 * time.Second

// pool is the group as it is before a batch.
func (r *rolling) pool(ctx workflow.Context) (pool Pool, err error) {
	if r.seen.Group != "" && workflow.Now(ctx).Sub(r.seenAt) < lookAgain {
		pool, r.seen = r.seen, Pool{}
		return pool, nil
	}
	err = r.askAgain(ctx, &pool)
	return pool, err
}

// askAgain looks at a pool whose roll has begun: an endpoint that is gone for a while delays it.
func (r *rolling) askAgain(ctx workflow.Context, pool *Pool) error {
	return workflow.ExecuteActivity(changing(ctx, "examine pool "+r.in.Pool), "ExaminePool", ExaminePool{Cluster: r.cluster(), Pool: r.in.Pool}).Get(ctx, pool)
}

// protect keeps Auto Scaling from working against the roll, and evicted pods from moving onto
// nodes that are next.
func (r *rolling) protect(ctx workflow.Context) error {
	if len(r.progress.Nodes) == 0 || r.in.Resume != nil {
		return nil
	}
	r.step(ctx, "protecting", "keeps Auto Scaling from ending or moving instances, and pods from moving onto old nodes")
	protected := workflow.ExecuteActivity(changing(ctx, "protect "+r.group()), "ProtectPool", r.protection(r.in.Remove))
	var err error
	if len(r.progress.Nodes) > 1 {
		marks := MarkNodes{Cluster: r.cluster(), Pool: r.in.Pool, By: r.id}
		for _, node := range r.progress.Nodes {
			marks.Nodes = append(marks.Nodes, node.Node)
		}
		err = workflow.ExecuteActivity(changing(ctx, "mark the old nodes"), "MarkNodes", marks).Get(ctx, nil)
	}
	return cmp.Or(protected.Get(ctx, nil), err)
}

func (r *rolling) protection(empty bool) ProtectPool {
	return ProtectPool{Cluster: r.cluster(), Pool: r.in.Pool, Group: r.group(), Empty: empty}
}

// next takes the nodes of the next batch: those that wait, then those in quarantine, or these
// first if there are too many of them. None means that all are replaced.
func (r *rolling) next() []*NodeProgress {
	waiting, quarantined := r.inState(Waiting), r.inState(Quarantine)
	if len(waiting) == 0 || (len(quarantined) > 0 && len(quarantined) >= r.info.Settings.QuarantineLimit) {
		return quarantined
	}
	return waiting
}

func (r *rolling) inState(state NodeState) (out []*NodeProgress) {
	for i := range r.progress.Nodes {
		if r.progress.Nodes[i].State == state {
			out = append(out, &r.progress.Nodes[i])
		}
	}
	return out
}

// replace takes as many of the candidates as may go together through their whole replacement.
func (r *rolling) replace(ctx workflow.Context, candidates []*NodeProgress) error {
	began := workflow.Now(ctx)
	if err := r.awaitUnblocked(ctx); err != nil || r.stopping {
		return err
	}
	if err := r.awaitWindow(ctx); err != nil || r.stopping {
		return err
	}
	pool, err := r.pool(ctx)
	if err != nil {
		return err
	}
	if candidates = r.forgetVanished(candidates, pool); len(candidates) == 0 {
		return nil
	}
	b, err := r.batch(ctx, candidates, pool)
	if err != nil {
		return err
	}
	b.turn = r.turnOf(b)
	defer r.endTurn(ctx, b)
	// What has come in between, such as the end of the window, is waited for again, and others can go on.
	if err := r.awaitTurn(ctx, b); err != nil || r.stopping || r.closedSince(ctx, b, began) {
		r.progress.Spare = append(r.progress.Spare, b.fresh[:b.spares]...) // nothing has used them
		return err
	}
	r.begin(ctx)
	if err := r.surge(ctx, b); err != nil {
		return withUndo(err, r.giveBack(ctx, b))
	}
	err = r.retireAll(ctx, b)
	if err == nil && b.inPlace {
		err = r.awaitReplacements(ctx, b)
	}
	if err := withUndo(err, r.giveBack(ctx, b)); err != nil {
		return err
	}
	if err := r.validate(ctx, b); err != nil {
		return err
	}
	r.progress.Batch = max(r.progress.Batch, len(b.nodes))
	return nil
}

// begin tells people, once, that nodes are about to be replaced. Rolls that began before there was such
// a message go on without it.
func (r *rolling) begin(ctx workflow.Context) {
	if r.progress.Told || workflow.GetVersion(ctx, RollBegins, workflow.DefaultVersion, 1) == workflow.DefaultVersion {
		return
	}
	r.progress.Told = true
	what := "replace"
	if r.in.Remove {
		what = "empty and remove"
	}
	r.notify(ctx, RollBegins, "", fmt.Sprintf("Fairway begins to %s %d nodes of pool %s of cluster %s. Asked for by %s. Reason: %s.", what, len(r.progress.Nodes),
		r.in.Pool, r.cluster(), cmp.Or(r.in.By, "nobody named"), cmp.Or(r.in.Reason, "none given")))
}

// forgetVanished drops the nodes whose instances are gone already, or go: their group has replaced
// them or does so. What it has launched for one that goes would else be taken for one that was
// always there, and be ended by Auto Scaling, with its pods, when the size shrinks.
func (r *rolling) forgetVanished(candidates []*NodeProgress, pool Pool) []*NodeProgress {
	return slices.DeleteFunc(candidates, func(node *NodeProgress) bool {
		gone := !slices.ContainsFunc(pool.Instances, func(i Instance) bool { return i.ID == node.Instance && !i.ends() })
		if gone {
			node.State = Replaced
		}
		return gone
	})
}

// retireAll has ReplaceNode empty and end the nodes of a batch, all at a time.
func (r *rolling) retireAll(ctx workflow.Context, b *batch) error {
	r.step(ctx, "replacing", fmt.Sprintf("moves the pods of %s elsewhere and ends %s", b, pronoun(len(b.nodes))))
	futures := make([]workflow.ChildWorkflowFuture, len(b.nodes))
	for i, node := range b.nodes {
		node.State = Replacing
		if node.Began.IsZero() {
			node.Began = workflow.Now(ctx)
		}
		if i < len(b.fresh) {
			node.Replacement = b.fresh[i].Name
		}
		in := ReplaceNodeInput{Node: node.Node, Instance: node.Instance, InPlace: b.inPlace, Tried: node.Drained, GiveUpAfter: b.giveUpAfter}
		if b.inPlace {
			in.Launch = b.launch
		}
		futures[i] = r.retire(ctx, in)
	}
	var errs error
	for i, node := range b.nodes {
		var result ReplaceNodeResult
		err := futures[i].Get(ctx, &result)
		node.Evicted += result.Evicted
		node.Forced = append(node.Forced, result.Forced...)
		node.Drained += result.Drained
		r.account(b, i, err == nil, result)
		switch {
		case temporal.IsCanceledError(err) && ctx.Err() == nil:
			err = temporal.NewNonRetryableApplicationError(fmt.Sprintf("cluster %s: somebody cancelled the replacement of node %s, so its roll stops", r.cluster(), node.Node), Stopped, nil)
			fallthrough
		case err != nil:
			node.State, node.Replacement = Waiting, ""
			errs = cmp.Or(errs, err)
		case result.GaveUp:
			node.State, node.Replacement, node.Reason = Quarantine, "", result.Reason
			r.notify(ctx, Quarantined, node.Node, fmt.Sprintf("Node %s could not be emptied within %s and is left for later: %s", node.Node, node.Drained.Round(time.Second), result.Reason))
		default:
			node.State, node.Ended, node.Reason = Replaced, workflow.Now(ctx), ""
		}
	}
	return errs
}

// account says what became of a node's replacement: it took the node's place, or serves the next
// one, or is surplus.
func (r *rolling) account(b *batch, i int, well bool, result ReplaceNodeResult) {
	gone := well && !result.GaveUp
	switch {
	case gone && result.Vanished:
		b.vanished++
	case gone:
		b.ended++
	}
	if i >= len(b.fresh) {
		return // in place: there is none yet
	}
	launched := i >= b.spares
	if launched && well {
		b.placed++
		b.kept = append(b.kept, b.fresh[i].Instance)
	}
	if !gone && (well || !launched) {
		r.progress.Spare = append(r.progress.Spare, b.fresh[i])
	}
}

// retire has ReplaceNode empty and end a node. The child is a workflow of its own, so that its id
// guards the node and its history stays readable.
func (r *rolling) retire(ctx workflow.Context, in ReplaceNodeInput) workflow.ChildWorkflowFuture {
	in.Cluster, in.Pool, in.Group = r.cluster(), r.in.Pool, r.group()
	ctx = asChild(ctx, ReplaceNodeID(in.Cluster, in.Node), fmt.Sprintf("replace node %s of %s", in.Node, in.Cluster),
		temporal.NewSearchAttributes(
			ClusterAttribute.ValueSet(in.Cluster), PoolAttribute.ValueSet(in.Pool),
			ChannelAttribute.ValueSet(r.info.Cluster.Channel), EnvironmentAttribute.ValueSet(r.info.Cluster.Environment),
		))
	return workflow.ExecuteChildWorkflow(ctx, ReplaceNode, in)
}

// validate lets the replacement of the very first node prove itself before others follow.
func (r *rolling) validate(ctx workflow.Context, b *batch) error {
	if r.progress.Batch > 0 || len(b.fresh) == 0 || r.info.Settings.Validate == 0 || len(r.inState(Waiting)) == 0 {
		return nil
	}
	r.step(ctx, "validating", fmt.Sprintf("watches `%s`, the first replacement, for %s before others follow", b.fresh[0].Name, r.info.Settings.Validate))
	err := workflow.ExecuteActivity(watching(ctx, "validate "+b.fresh[0].Name, forEver), "AwaitNode",
		AwaitNode{Cluster: r.cluster(), Instance: b.fresh[0].Instance, Since: workflow.Now(ctx), By: r.id, Settle: r.info.Settings.Validate}).Get(ctx, nil)
	if isKind(err, BadReplacement) {
		r.progress.Bad++
	}
	return err
}

// restore puts back, whatever happened, what the roll has changed but the nodes that it replaced. It
// also puts back what an earlier roll of the pool was kept from undoing, such as a terminated one.
func (r *rolling) restore(ctx workflow.Context, well bool) error {
	ctx, stop := workflow.NewDisconnectedContext(ctx)
	defer stop()
	r.step(ctx, "restoring", "puts protections and marks back as they were")
	// The old nodes first: what is emptied after them needs room.
	errs := workflow.ExecuteActivity(changing(ctx, "unmark the nodes"), "UnmarkNodes", UnmarkNodes{Cluster: r.cluster(), By: r.id}).Get(ctx, nil)
	if len(r.progress.Spare) > 0 {
		errs = errors.Join(errs, r.giveBackSpares(ctx))
	}
	var left string
	errs = errors.Join(errs, workflow.ExecuteActivity(changing(ctx, "restore "+r.group()), "RestorePool", r.protection(r.in.Remove && well)).Get(ctx, &left))
	r.left(left)
	if r.in.Remove && !well {
		errs = errors.Join(errs, r.regrow(ctx))
	}
	return errs
}

// left adds to what could not be put back.
func (r *rolling) left(text string) {
	if text != "" {
		r.progress.Left = strings.TrimSpace(r.progress.Left + " " + strings.TrimSuffix(text, ".") + ".")
	}
}

// regrow gives a pool that was to be emptied its size back.
func (r *rolling) regrow(ctx workflow.Context) error {
	var pool Pool
	if err := r.askAgain(ctx, &pool); err != nil || pool.Desired >= r.progress.Size {
		return err
	}
	return workflow.ExecuteActivity(changing(ctx, fmt.Sprintf("%s is back at %d", r.group(), r.progress.Size)), "GrowPool",
		GrowPool{Cluster: r.cluster(), Pool: r.in.Pool, Group: r.group(), From: pool.Desired, To: r.progress.Size}).Get(ctx, nil)
}

// step records what happens now, for people: current details cost no event, the phase one.
func (r *rolling) step(ctx workflow.Context, phase, meaning string) {
	r.progress.Step = meaning
	details := fmt.Sprintf("**%s** pool %s of cluster %s: %s.\n\n%d of %d nodes replaced", phase, r.in.Pool, r.in.Cluster, meaning,
		len(r.inState(Replaced)), len(r.progress.Nodes))
	if quarantined := r.inState(Quarantine); len(quarantined) > 0 {
		details += fmt.Sprintf(", %d in quarantine", len(quarantined))
	}
	details += fmt.Sprintf(". Asked for by %s. Reason: %s.", cmp.Or(r.in.By, "nobody named"), cmp.Or(r.in.Reason, "none given"))
	for _, taken := range r.progress.Fallbacks {
		details += fmt.Sprintf("\n- %s %s", taken.At.UTC().Format(time.RFC3339), taken.Text)
	}
	workflow.SetCurrentDetails(ctx, details)
	if r.progress.Phase != phase {
		r.progress.Phase = phase
		// It fails only if the namespace lacks the attribute, which the worker checks at its start.
		_ = workflow.UpsertTypedSearchAttributes(ctx, PhaseAttribute.ValueSet(phase))
	}
}

// end records how the roll ended, and returns err.
func (r *rolling) end(ctx workflow.Context, err error) error {
	switch {
	case err == nil && len(r.progress.Nodes)+len(r.progress.NoNodes) == 0:
		r.step(ctx, "done", "no node is old")
	case err == nil && len(r.inState(Replaced)) < len(r.progress.Nodes)+len(r.progress.NoNodes):
		r.step(ctx, "stopped", fmt.Sprintf("no more batches begin, because %s; the nodes that were not replaced are usable. %s", cmp.Or(r.stopped, "somebody asked for that"), r.progress.Left))
	case err == nil:
		r.step(ctx, "done", fmt.Sprintf("all nodes are replaced and group `%s` is as before. %s", r.group(), r.progress.Left))
		r.notify(ctx, RollDone, "", fmt.Sprintf("Pool %s of cluster %s is rolled: %d nodes in %s.", r.in.Pool, r.cluster(), len(r.progress.Nodes), workflow.Now(ctx).Sub(r.progress.Started).Round(time.Second)))
	case temporal.IsCanceledError(err) && !isKind(err, UndoFailed):
		r.step(ctx, "cancelled", "what had been begun is undone. "+r.progress.Left)
	default:
		r.step(ctx, "failed", err.Error())
		if len(r.progress.Nodes) > 0 {
			r.notify(ctx, RollStopped, "", fmt.Sprintf("The roll of pool %s of cluster %s stopped after %d of %d nodes; those not replaced are usable: %v",
				r.in.Pool, r.cluster(), len(r.inState(Replaced)), len(r.progress.Nodes), err))
		}
	}
	return err
}

// notify tells people, where a hook is configured. A hook that does not answer holds nothing up.
func (r *rolling) notify(ctx workflow.Context, kind, node, text string) {
	if !r.info.Notify {
		return
	}
	ctx, stop := workflow.NewDisconnectedContext(ctx)
	defer stop()
	ctx = workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		StartToCloseTimeout: 10 * time.Second, ScheduleToCloseTimeout: 30 * time.Second, RetryPolicy: patient, Summary: "tell people: " + kind,
	})
	now := workflow.Now(ctx)
	err := workflow.ExecuteActivity(ctx, "Notify", Notification{
		ID: fmt.Sprintf("%s/%s/%s/%d", r.id, kind, node, now.Unix()), Kind: kind, Cluster: r.cluster(), Pool: r.in.Pool,
		Node: node, Owner: r.info.Cluster.Owner, Text: text, At: now,
	}).Get(ctx, nil)
	if err != nil {
		workflow.GetLogger(ctx).Warn("nobody was told", "kind", kind, "error", err)
	}
}

func instanceIDs(instances []Instance) []string {
	out := make([]string, len(instances))
	for i, instance := range instances {
		out[i] = instance.ID
	}
	return out
}

func pronoun(count int) string {
	if count == 1 {
		return "it"
	}
	return "them"
}

// isKind says whether an error came from an activity that failed with the type.
func isKind(err error, kind string) bool {
	var application *temporal.ApplicationError
	return errors.As(err, &application) && application.Type() == kind
}

// withUndo is the error of something and of undoing it. Where the undoing went well, the first error
// stays as it is, with its type. Where it did not, that is what people have to know, also of what was
// cancelled.
func withUndo(err, undo error) error {
	switch {
	case undo == nil:
		return err
	case err == nil:
		return undo
	}
	return temporal.NewNonRetryableApplicationError(fmt.Sprintf("%s; undoing it failed, so look after it: %s", reasonOf(err), reasonOf(undo)), UndoFailed, nil)
}
