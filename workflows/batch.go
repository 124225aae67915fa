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

// batch is a number of nodes that are replaced at the same time.
type batch struct {
	nodes   []*NodeProgress
	before  Pool // the group before the batch
	inPlace bool // the old nodes are ended before their replacements are launched
	launch  Launch
	turn    AwaitTurn
	// giveUpAfter is how long a drain may last before its node is left for later; 0 means for ever.
	giveUpAfter time.Duration

	// fresh are the usable replacements; the first `spares` of them were there before.
	fresh  []Node
	spares int
	// kept are the instances that are accounted for; others of the group are surplus. arrived are
	// those that came for this batch, whatever has become of them.
	kept, arrived []string
	// How many instances the group was made larger by, and how many of these took an old node's
	// place; how many old nodes the batch has ended, and how many vanished by themselves.
	grown, placed, ended, vanished int
}

func (b *batch) String() string {
	names := make([]string, len(b.nodes))
	for i, node := range b.nodes {
		names[i] = "`" + node.Node + "`"
	}
	return strings.Join(names, ", ")
}

// batch chooses which of the candidates go together, and how.
func (r *rolling) batch(ctx workflow.Context, candidates []*NodeProgress, pool Pool) (*batch, error) {
	settings, spare := r.info.Settings, len(r.progress.Spare)
	b := &batch{before: pool, kept: instanceIDs(pool.Instances)}
	limit, inPlace := settings.Limit(roll.Pool{Size: pool.Desired, Max: pool.Max + spare}, r.progress.Batch)
	switch {
	case r.in.Remove:
		limit, inPlace = RemovalPace(settings, pool).Limit(roll.Pool{Size: pool.Desired, Max: 2 * pool.Desired}, r.progress.Batch)
	case limit == 0 && slices.Contains(settings.Fallbacks, roll.InPlace):
		limit, inPlace = 1, true
		r.took(ctx, roll.InPlace, fmt.Sprintf("a node is ended before its replacement is launched, because group %s is at its maximum of %d", r.group(), pool.Max))
	case limit == 0:
		return nil, noSurgeRoom(r.cluster(), r.in.Pool, pool)
	}
	later := len(r.inState(Waiting)) // while others wait, a node may be left for the end
	quota := settings.QuarantineLimit - len(r.inState(Quarantine))
	if candidates[0].State == Waiting && settings.QuarantineAfter > 0 && quota > 0 {
		limit = min(limit, quota)
	} else {
		later = 0
	}
	b.inPlace, b.nodes = inPlace, take(candidates, limit)
	if later > len(b.nodes) {
		b.giveUpAfter = settings.QuarantineAfter
	}
	if zone := b.nodes[0].Zone; slices.Contains(pool.Zones, zone) && !r.in.Remove {
		b.launch.Zones = []string{zone}
	}
	if inPlace || r.in.Remove {
		return b, nil
	}
	r.useSpares(b)
	room := max(0, pool.Max-pool.Desired)
	if fits := len(b.fresh) + room; fits < len(b.nodes) {
		b.nodes = b.nodes[:fits]
	}
	if len(b.nodes) > 0 {
		return b, nil
	}
	// The room is taken by replacements in other zones.
	if err := r.giveBackSpares(ctx); err != nil {
		return nil, err
	}
	if err := r.askAgain(ctx, &pool); err != nil {
		return nil, err
	}
	return r.batch(ctx, candidates, pool)
}

// take picks the nodes of a batch from the beginning of a list.
func take(candidates []*NodeProgress, limit int) []*NodeProgress {
	nodes := make([]roll.Node, len(candidates))
	for i, node := range candidates {
		nodes[i] = roll.Node{Name: node.Node, Zone: node.Zone, ControlPlane: node.ControlPlane}
	}
	var out []*NodeProgress
	for _, chosen := range roll.Next(nodes, limit) {
		out = append(out, candidates[slices.IndexFunc(candidates, func(n *NodeProgress) bool { return n.Node == chosen.Name })])
	}
	return out
}

// useSpares takes replacements that are there already, in the zone of the batch.
func (r *rolling) useSpares(b *batch) {
	r.progress.Spare = slices.DeleteFunc(r.progress.Spare, func(spare Node) bool {
		if !slices.Contains(b.kept, spare.Instance) {
			r.vanished(spare)
			return true
		}
		use := len(b.fresh) < len(b.nodes) && spare.Zone == b.nodes[0].Zone
		if use {
			b.fresh = append(b.fresh, spare)
		}
		return use
	})
	b.spares = len(b.fresh)
}

// vanished records that a replacement ended by itself before it was needed. Its group may have made up
// for it or not, which nobody can tell from its size.
func (r *rolling) vanished(spare Node) {
	r.left(fmt.Sprintf("node %s, a replacement of this roll, vanished before it was needed; group %s may have one instance too many", spare.Name, r.group()))
}

// surge makes the pool larger by a batch and waits until the new nodes are usable.
func (r *rolling) surge(ctx workflow.Context, b *batch) error {
	need := len(b.nodes) - len(b.fresh)
	if b.inPlace || r.in.Remove || need == 0 {
		return nil
	}
	for _, node := range b.nodes {
		node.State, node.Began = Surging, workflow.Now(ctx)
	}
	r.step(ctx, "surging", fmt.Sprintf("grows group `%s` from %d to %d and waits until the new nodes are usable", r.group(), b.before.Desired, b.before.Desired+need))
	err := r.grow(ctx, b, need)
	if err == nil {
		err = r.fill(ctx, b, need)
	}
	if err != nil {
		b.drop(0)
		r.progress.Spare = append(r.progress.Spare, b.fresh[:b.spares]...)
	}
	return err
}

// grow sets the group's size. If an autoscaler was faster, it looks again.
func (r *rolling) grow(ctx workflow.Context, b *batch, need int) error {
	for attempt := 1; ; attempt++ {
		to := b.before.Desired + need
		// Said before it is done: an answer may be lost, and to give back what never was changes nothing.
		b.grown = need
		err := workflow.ExecuteActivity(changing(ctx, fmt.Sprintf("grow %s to %d", r.group(), to)), "GrowPool",
			GrowPool{Cluster: r.cluster(), Pool: r.in.Pool, Group: r.group(), From: b.before.Desired, To: to, Launch: b.launch}).Get(ctx, nil)
		if !isKind(err, PoolBusy) || attempt == 5 {
			return err
		}
		b.grown = 0
		if err := r.askAgain(ctx, &b.before); err != nil {
			return err
		}
		if b.before.Desired+need > b.before.Max {
			return noSurgeRoom(r.cluster(), r.in.Pool, b.before)
		}
		b.kept = instanceIDs(b.before.Instances)
	}
}

// fill waits until the group's new instances are usable nodes. Where AWS lacks capacity, it takes
// the next way out.
func (r *rolling) fill(ctx workflow.Context, b *batch, need int) error {
	ways, asked := r.ways(b, need), b.launch
	for {
		shortage := r.awaitUsable(ctx, b, need)
		if !isKind(shortage, NoCapacity) || len(ways) == 0 {
			return shortage
		}
		way := ways[0]
		ways = ways[1:]
		r.took(ctx, way.kind, fmt.Sprintf("%s, because %s", way.text, reasonOf(shortage)))
		if !way.shrink {
			if err := r.relaunch(ctx, b, way); isKind(err, InvalidInput) {
				r.took(ctx, way.kind, "that is not possible: "+reasonOf(err))
			} else if err != nil {
				return err
			}
			continue
		}
		b.launch = asked
		var err error
		if need, err = r.shrink(ctx, b, way.need); err != nil {
			return err
		}
		if b.inPlace = b.spares+need == 0; b.inPlace {
			b.drop(1)
			return nil
		}
		b.drop(b.spares + need)
	}
}

// relaunch has the group launch what it still lacks in another way.
func (r *rolling) relaunch(ctx workflow.Context, b *batch, way way) error {
	for attempt := 1; ; attempt++ {
		var now Pool
		if err := r.askAgain(ctx, &now); err != nil {
			return err
		}
		err := workflow.ExecuteActivity(changing(ctx, way.text), "GrowPool",
			GrowPool{Cluster: r.cluster(), Pool: r.in.Pool, Group: r.group(), From: now.Desired, To: now.Desired, Launch: way.launch}).Get(ctx, nil)
		if err == nil {
			b.launch = way.launch
		}
		if !isKind(err, PoolBusy) || attempt == 5 {
			return err
		}
	}
}

// way is a way out of a capacity shortage.
type way struct {
	kind   roll.FallbackKind
	text   string
	launch Launch
	// shrink means to wait for fewer instances, but at least `need`.
	shrink bool
	need   int
}

// ways lists the ways out in the configured order, as far as they are open to a batch.
func (r *rolling) ways(b *batch, need int) []way {
	var out []way
	asked := b.launch
	zone := strings.Join(asked.Zones, ", ")
	for _, kind := range r.info.Settings.Fallbacks {
		switch kind {
		case roll.OtherType:
			for _, other := range r.info.Types[min(1, len(r.info.Types)):] {
				out = append(out, way{kind: kind, launch: Launch{Zones: asked.Zones, Type: other}, text: "instances of type " + other + " are asked for"})
			}
		case roll.OtherZone:
			others := slices.DeleteFunc(slices.Clone(b.before.Zones), func(z string) bool { return slices.Contains(asked.Zones, z) })
			pinned := slices.ContainsFunc(b.nodes, func(n *NodeProgress) bool { return n.Pinned })
			if len(others) > 0 && len(asked.Zones) > 0 && !pinned {
				out = append(out, way{kind: kind, launch: Launch{Zones: others}, text: fmt.Sprintf("instances in %s are asked for instead of %s", strings.Join(others, ", "), zone)})
			}
		case roll.OnDemand:
			if b.before.Spot || r.info.Spot {
				out = append(out, way{kind: kind, launch: Launch{Zones: asked.Zones, OnDemand: true}, text: "On-Demand instances are asked for instead of Spot"})
			}
		case roll.SmallerSurge:
			if need > 1 && !b.inPlace {
				out = append(out, way{kind: kind, shrink: true, need: 1, text: "fewer nodes are replaced at a time"})
			}
		case roll.InPlace:
			if !b.inPlace {
				out = append(out, way{kind: kind, shrink: true, text: "a node is ended before its replacement is launched"})
			}
		}
	}
	return out
}

// shrink gives up waiting for instances that do not come: the group keeps those that did come,
// and at least `need`. It says how many new instances there are to wait for.
func (r *rolling) shrink(ctx workflow.Context, b *batch, need int) (int, error) {
	var now Pool
	if err := r.askAgain(ctx, &now); err != nil {
		return 0, err
	}
	came := slices.DeleteFunc(instanceIDs(now.Instances), func(id string) bool { return slices.Contains(b.kept, id) })
	for {
		need = max(need, min(len(came), b.grown))
		var late []Instance
		err := workflow.ExecuteActivity(changing(ctx, fmt.Sprintf("shrink %s to %d", r.group(), b.before.Desired+need)), "ReleaseCapacity", ReleaseCapacity{
			Cluster: r.cluster(), Group: r.group(), From: b.before.Desired + b.grown, To: b.before.Desired + need,
			Known: slices.Concat(b.kept, came), Launch: b.launch,
		}).Get(ctx, &late)
		if err != nil || len(late) == 0 || need == b.grown {
			b.grown = need
			return need, err
		}
		came = append(came, instanceIDs(late)...)
	}
}

// drop leaves all but the first nodes of a batch for later.
func (b *batch) drop(keep int) {
	for _, node := range b.nodes[min(keep, len(b.nodes)):] {
		node.State = Waiting
	}
	b.nodes = b.nodes[:min(keep, len(b.nodes))]
}

// awaitUsable waits for new instances of the group to become usable nodes. Those that do not are
// replaced, until there have been too many of them.
func (r *rolling) awaitUsable(ctx workflow.Context, b *batch, count int) error {
	seen, usable := slices.Clone(b.kept), b.fresh[:b.spares:b.spares]
	b.arrived = nil
	for count > 0 {
		var instances []Instance
		if err := workflow.ExecuteActivity(watching(ctx, fmt.Sprintf("%d new in %s", count, r.group()), forEver), "AwaitInstances", AwaitInstances{
			Cluster: r.cluster(), Group: r.group(), Known: seen, Zones: b.launch.Zones, Count: count, Since: workflow.Now(ctx), ShortageAfter: r.info.Settings.ShortageAfter,
		}).Get(ctx, &instances); err != nil {
			return err
		}
		instances = instances[:min(count, len(instances))] // more are somebody else's
		b.arrived = append(b.arrived, instanceIDs(instances)...)
		nodes, bad, err := r.awaitNodes(ctx, instances, workflow.Now(ctx))
		if err != nil {
			return err
		}
		seen, usable = append(seen, instanceIDs(instances)...), append(usable, nodes...)
		for _, instance := range bad {
			if err := r.endNew(ctx, instance.ID, true, b.launch); err != nil {
				return err
			}
			b.arrived = slices.DeleteFunc(b.arrived, func(id string) bool { return id == instance.ID })
		}
		count = len(bad)
	}
	b.fresh = usable
	return nil
}

// awaitNodes waits until instances are usable nodes, and reports those that never were. It fails
// when there have been too many of them.
func (r *rolling) awaitNodes(ctx workflow.Context, instances []Instance, asked time.Time) (nodes []Node, bad []Instance, err error) {
	futures := make([]workflow.Future, len(instances))
	for i, instance := range instances {
		futures[i] = workflow.ExecuteActivity(watching(ctx, "instance "+instance.ID+" becomes a usable node", forEver), "AwaitNode",
			AwaitNode{Cluster: r.cluster(), Instance: instance.ID, Since: asked, By: r.id})
	}
	var last error
	for i, future := range futures {
		var node Node
		switch failure := future.Get(ctx, &node); {
		case failure == nil:
			nodes = append(nodes, node)
		case isKind(failure, BadReplacement):
			r.progress.Bad++
			bad, last = append(bad, instances[i]), failure
		default:
			err = failure
		}
	}
	if err == nil && len(bad) > 0 && r.progress.Bad >= max(1, r.info.Settings.BadReplacements) {
		err = last
	}
	return nodes, bad, err
}

// awaitReplacements waits for what the group launches in the places of nodes that were ended first.
func (r *rolling) awaitReplacements(ctx workflow.Context, b *batch) error {
	missing := b.ended + b.vanished
	if b.vanished > 0 { // somebody may have made the group smaller by them
		var now Pool
		if err := r.askAgain(ctx, &now); err != nil {
			return err
		}
		missing -= max(0, min(b.vanished, b.before.Desired-now.Desired))
	}
	if missing == 0 {
		return nil
	}
	r.step(ctx, "filling", fmt.Sprintf("waits until group `%s` has replaced %s", r.group(), b))
	if err := r.fill(ctx, b, missing); err != nil {
		return err
	}
	for i, node := range b.nodes {
		if i < len(b.fresh) && node.State == Replaced {
			node.Replacement = b.fresh[i].Name
		}
	}
	return nil
}

// giveBack returns the group to the size that it should have after a batch. It runs on a context
// of its own: also, and above all, after a cancellation.
func (r *rolling) giveBack(ctx workflow.Context, b *batch) error {
	if b.inPlace {
		return nil
	}
	ctx, stop := workflow.NewDisconnectedContext(ctx)
	defer stop()
	// What came for the batch and took nobody's place is known by name, whatever the size is now.
	surplus := slices.DeleteFunc(slices.Clone(b.arrived), func(id string) bool { return slices.Contains(b.kept, id) })
	size, target := b.before.Desired+b.grown-b.ended, b.before.Desired+b.placed-b.ended-b.vanished
	surplus = surplus[:min(len(surplus), max(0, size-target))]
	if err := r.endSurplus(ctx, surplus); err != nil {
		return err
	}
	return r.release(ctx, size-len(surplus), target, b.kept)
}

// giveBackSpares ends the replacements that no old node needs any more.
func (r *rolling) giveBackSpares(ctx workflow.Context) error {
	ctx, stop := workflow.NewDisconnectedContext(ctx)
	defer stop()
	var now Pool
	if err := r.askAgain(ctx, &now); err != nil {
		return err
	}
	var spare []string
	for _, node := range r.progress.Spare {
		if slices.Contains(instanceIDs(now.Instances), node.Instance) {
			spare = append(spare, node.Instance)
		} else {
			r.vanished(node)
		}
	}
	r.progress.Spare = nil
	return r.endSurplus(ctx, spare)
}

// release makes the group smaller. Instances beyond the kept ones are ended by name.
func (r *rolling) release(ctx workflow.Context, size, target int, kept []string) error {
	for size > target {
		var surplus []Instance
		if err := workflow.ExecuteActivity(changing(ctx, fmt.Sprintf("%s is back at %d", r.group(), target)), "ReleaseCapacity",
			ReleaseCapacity{Cluster: r.cluster(), Group: r.group(), From: size, To: target, Known: kept}).Get(ctx, &surplus); err != nil {
			return err
		}
		if len(surplus) == 0 {
			return nil
		}
		surplus = surplus[:min(len(surplus), size-target)]
		if err := r.endSurplus(ctx, instanceIDs(surplus)); err != nil {
			return err
		}
		size -= len(surplus)
	}
	return nil
}

// endSurplus ends instances and makes the group smaller by them, all at a time.
func (r *rolling) endSurplus(ctx workflow.Context, instances []string) error {
	if len(instances) == 0 {
		return nil
	}
	r.step(ctx, "undoing", fmt.Sprintf("empties and ends %d surplus instances of group `%s`", len(instances), r.group()))
	var errs error
	wait := workflow.NewWaitGroup(ctx)
	for _, instance := range instances {
		wait.Add(1)
		workflow.Go(ctx, func(ctx workflow.Context) {
			defer wait.Done()
			err := r.endNew(ctx, instance, false, Launch{})
			if isKind(err, InvalidInput) { // the group is at its minimum: somebody made it smaller meanwhile
				r.left(reasonOf(err))
				err = nil
			}
			errs = cmp.Or(errs, err)
		})
	}
	wait.Wait(ctx)
	return errs
}

// endNew ends an instance that this roll has got, and has the group replace it or be one smaller. If
// it has become a node, pods may run on it, so it goes the way every node goes.
func (r *rolling) endNew(ctx workflow.Context, instance string, replace bool, launch Launch) error {
	for {
		var node Node
		if err := workflow.ExecuteActivity(changing(ctx, "find the node of "+instance), "FindNode",
			FindNode{Cluster: r.cluster(), Instance: instance}).Get(ctx, &node); err != nil {
			return err
		}
		if node.Name != "" {
			return r.retire(ctx, ReplaceNodeInput{Node: node.Name, Instance: instance, InPlace: replace, Launch: launch}).Get(ctx, nil)
		}
		err := workflow.ExecuteActivity(ending(ctx, "terminate "+instance), "TerminateInstance", TerminateInstance{
			Cluster: r.cluster(), Pool: r.in.Pool, Group: r.group(), Instance: instance, By: r.id, Replace: replace, Launch: launch,
		}).Get(ctx, nil)
		if !isKind(err, Blocked) {
			return err
		}
		// Until the block is over it may well become a node. Protecting the group waits for that end.
		if err := workflow.ExecuteActivity(changing(ctx, "wait until "+instance+" may be terminated"), "ProtectPool", r.protection(r.in.Remove)).Get(ctx, nil); err != nil {
			return err
		}
	}
}

// awaitTurn waits until the limits across clusters let the batch begin.
func (r *rolling) awaitTurn(ctx workflow.Context, b *batch) error {
	if b.turn == (AwaitTurn{}) {
		return nil
	}
	r.step(ctx, "queueing", fmt.Sprintf("waits until the limits across clusters let it replace %s", b))
	return r.unlessStopped(ctx, func(ctx workflow.Context) workflow.Future {
		return workflow.ExecuteActivity(watching(ctx, fmt.Sprintf("may %d nodes be replaced", b.turn.Nodes), forEver), "AwaitTurn", b.turn)
	})
}

// awaitUnblocked waits while somebody blocks the pool: what cannot go on holds no turn. What is changed
// asks once more, each time.
func (r *rolling) awaitUnblocked(ctx workflow.Context) error {
	if workflow.GetVersion(ctx, blockedWithoutTurn, workflow.DefaultVersion, 1) == workflow.DefaultVersion {
		return nil
	}
	r.step(ctx, "queueing", "waits while somebody blocks it")
	return r.unlessStopped(ctx, func(ctx workflow.Context) workflow.Future {
		return workflow.ExecuteActivity(waiting(ctx, "is the pool blocked"), "AwaitUnblocked", r.unblocked())
	})
}

// awaitWindow waits until the maintenance windows of the cluster let a batch begin. One that has begun
// goes on when its window closes.
func (r *rolling) awaitWindow(ctx workflow.Context) error {
	if !r.windowed() {
		return nil
	}
	r.step(ctx, "queueing", "waits until a maintenance window is open")
	return r.unlessStopped(ctx, func(ctx workflow.Context) workflow.Future {
		return workflow.ExecuteActivity(waiting(ctx, "is a maintenance window open"), "AwaitWindow", r.window())
	})
}

func (r *rolling) windowed() bool { return r.info.Windowed && !r.in.Urgent }

// blockedWithoutTurn is the change of rolls that had them wait for the end of blocks before their turns.
const blockedWithoutTurn = "blocked-without-turn"

// closedSince says whether the window may have closed since a time, or somebody may have blocked the pool.
// What cannot be known now is found out by waiting.
func (r *rolling) closedSince(ctx workflow.Context, b *batch, at time.Time) bool {
	if b.turn == (AwaitTurn{}) || workflow.Now(ctx).Sub(at) < lookAgain {
		return false
	}
	return (r.windowed() && !once(ctx, "is the maintenance window still open", "AwaitWindow", r.window())) ||
		(workflow.GetVersion(ctx, blockedWithoutTurn, workflow.DefaultVersion, 1) == 1 && !once(ctx, "is the pool still not blocked", "AwaitUnblocked", r.unblocked()))
}

func (r *rolling) unblocked() AwaitUnblocked {
	return AwaitUnblocked{Cluster: r.cluster(), Pool: r.in.Pool}
}

func (r *rolling) window() AwaitWindow {
	return AwaitWindow{Cluster: r.cluster(), What: "the next nodes of pool " + r.in.Pool}
}

// unlessStopped waits for what comes before a batch; nothing is in hand yet, so a stop ends it at once.
func (r *rolling) unlessStopped(ctx workflow.Context, start func(workflow.Context) workflow.Future) error {
	err := unless(ctx, func() bool { return r.stopping }, start)
	if r.stopping && ctx.Err() == nil {
		return nil
	}
	return err
}

func (r *rolling) endTurn(ctx workflow.Context, b *batch) {
	if b.turn == (AwaitTurn{}) {
		return
	}
	ctx, stop := workflow.NewDisconnectedContext(ctx)
	defer stop()
	// Whoever waits next finds out by itself if this roll has ended without giving back.
	if err := workflow.ExecuteActivity(changing(ctx, "end the turn"), "EndTurn", b.turn).Get(ctx, nil); err != nil {
		workflow.GetLogger(ctx).Warn("a turn was not given back", "error", err)
	}
}

// turnOf is the turn that a batch needs; its zero value is none.
func (r *rolling) turnOf(b *batch) AwaitTurn {
	turn := AwaitTurn{Holder: r.id, Account: r.info.Cluster.Account, Region: r.info.Cluster.Region, Nodes: len(b.nodes), Limits: r.info.Settings.Limits}
	if b.nodes[0].ControlPlane {
		turn.ControlPlane = r.cluster()
	}
	if turn.Limits == (roll.Limits{}) && turn.ControlPlane == "" {
		return AwaitTurn{}
	}
	return turn
}

// took records a way out of a shortage, and tells people.
func (r *rolling) took(ctx workflow.Context, kind roll.FallbackKind, text string) {
	r.progress.Fallbacks = append(r.progress.Fallbacks, FallbackTaken{At: workflow.Now(ctx), Kind: kind, Text: text})
	r.step(ctx, r.progress.Phase, text)
	r.notify(ctx, Fallback, "", fmt.Sprintf("Pool %s of cluster %s: %s.", r.in.Pool, r.cluster(), text))
}

// reasonOf is what an activity said, without the wrapping.
func reasonOf(err error) string {
	var application *temporal.ApplicationError
	if errors.As(err, &application) {
		return application.Message()
	}
	return err.Error()
}
