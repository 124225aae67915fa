package workflows

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"
)

// ClusterState is all that a cluster's actor knows. It is carried from one run to the next.
type ClusterState struct {
	Cluster string  `json:"cluster"`
	Blocks  []Block `json:"blocks"`
	// Ended are blocks that hold no longer; drains that waited for them leave their time out of
	// account. They are kept for as long as a drain may last.
	Ended []Block `json:"ended,omitempty"`
	// Orders are what people decided about forcing pods, the newest last. They are forgotten when no
	// drain can be waiting for them any more.
	Orders []ForceOrder `json:"orders,omitempty"`
	// Given counts the blocks and orders so far, for their names.
	Given int `json:"given"`
	// Updates are the cluster's versions.
	Updates ClusterUpdates `json:"updates"`
}

// ScopeBlocks are the blocks of one scope: of the fleet or of a channel.
type ScopeBlocks struct {
	Holding []Block `json:"holding,omitempty"`
	Ended   []Block `json:"ended,omitempty"` // kept as ClusterState.Ended are
	Given   int     `json:"given,omitempty"`
}

// ForceOrder is what a person decided about forcing the pods of a node. The newest one that
// concerns a pod counts.
type ForceOrder struct {
	ID     string    `json:"id"`
	Node   string    `json:"node"`
	Pod    string    `json:"pod,omitempty"` // namespace/name; empty means all pods of the node
	Mode   ForceMode `json:"mode"`
	Reason string    `json:"reason"`
	By     string    `json:"by"`
	At     time.Time `json:"at"`
}

// ForceMode is what a ForceOrder wants.
type ForceMode string

// What a ForceOrder may want.
const (
	ForceNow    ForceMode = "now"    // without waiting for the configured time or for siblings
	ForceForbid ForceMode = "forbid" // not even when the time has come
	ForceByRule ForceMode = "rule"   // as configured: takes back the others
)

// Block is a standing order to change nothing.
type Block struct {
	ID     string    `json:"id"`
	Scope  string    `json:"scope,omitempty"` // "fleet", "channel NAME", "registry"; empty means the cluster
	Pool   string    `json:"pool,omitempty"`  // empty means the whole scope
	Reason string    `json:"reason"`
	By     string    `json:"by"`
	Since  time.Time `json:"since"`
	// Until is when it expires by itself, or was lifted; zero if it holds until somebody lifts it.
	Until time.Time `json:"until,omitzero"`
}

// Holds says whether the block is in force at a time, for a pool.
func (b Block) Holds(at time.Time, pool string) bool {
	return b.concerns(pool) && !at.Before(b.Since) && (b.Until.IsZero() || at.Before(b.Until))
}

func (b Block) concerns(pool string) bool { return b.Pool == "" || b.Pool == pool }

func (b Block) String() string {
	by := b.By
	if b.Scope != "" {
		by += " (" + b.Scope + ")"
	}
	text := fmt.Sprintf("blocked by %s: %s", by, b.Reason)
	if !b.Until.IsZero() {
		text += " (until " + b.Until.UTC().Format(time.RFC3339) + ")"
	}
	return text
}

// BlockRequest asks for a block; as signal and as update "block".
type BlockRequest struct {
	Pool   string `json:"pool,omitempty"` // default: the whole cluster
	Reason string `json:"reason"`
	By     string `json:"by,omitempty"`
	// For is a time such as "4h" after which the block expires; default: it does not.
	For string `json:"for,omitempty"`
}

// UnblockRequest lifts blocks; as signal and as update "unblock".
type UnblockRequest struct {
	ID string `json:"id,omitempty"` // default: all of the pool, or of the whole cluster
	// Pool restricts it to blocks of one pool.
	Pool string `json:"pool,omitempty"`
	By   string `json:"by,omitempty"`
}

// ForceRequest asks for a ForceOrder; as signal and as update "force".
type ForceRequest struct {
	Node   string    `json:"node"`
	Pod    string    `json:"pod,omitempty"` // namespace/name; default: all pods of the node
	Mode   ForceMode `json:"mode"`
	Reason string    `json:"reason"`
	By     string    `json:"by,omitempty"`
}

// Names of the signals, updates and queries of a cluster's actor.
const (
	BlockName   = "block"
	UnblockName = "unblock"
	ForceName   = "force"
	StateQuery  = "state"
)

// ClusterID is the id of a cluster's actor.
func ClusterID(cluster string) string { return "cluster/" + cluster }

// longestDrain is for how long an ended block is remembered.
const longestDrain = 30 * 24 * time.Hour

// clusterHistory is the number of events after which a cluster's actor begins a new run.
const clusterHistory = 2000

// Cluster is the actor of one cluster. It holds the cluster's blocks, which whatever changes the
// cluster asks for before each step, and its versions: it starts the updates, one at a time. It lives
// for months, in runs of a limited length.
//
// A block needs no timer to expire: whoever asks compares its end with the clock, so it expires
// also while nothing runs.
func Cluster(ctx workflow.Context, state ClusterState) error {
	c := &clusterActor{ClusterState: state}
	if err := c.handle(ctx); err != nil {
		return err
	}
	c.tell(ctx)
	selector := workflow.NewSelector(ctx)
	hearBlocks(ctx, selector, func(request BlockRequest) { c.block(ctx, request) })
	hear(ctx, selector, UnblockName, func(request UnblockRequest) { c.unblock(ctx, request) })
	hear(ctx, selector, ForceName, func(request ForceRequest) {
		if err := c.checkForce(request); err != nil {
			workflow.GetLogger(ctx).Error("an order about forcing pods was not understood and is left out", "error", err)
			return
		}
		c.force(ctx, request)
	})
	c.hear(ctx, selector)
	workflow.GoNamed(ctx, "signals", func(ctx workflow.Context) {
		for {
			selector.Select(ctx)
		}
	})
	workflow.GoNamed(ctx, "updates", c.follow)
	if err := workflow.Await(ctx, func() bool {
		return workflow.GetInfo(ctx).GetCurrentHistoryLength() >= clusterHistory && !selector.HasPending() && workflow.AllHandlersFinished(ctx) && c.busy == 0
	}); err != nil {
		return err
	}
	return workflow.NewContinueAsNewError(ctx, Cluster, c.ClusterState)
}

type clusterActor struct {
	ClusterState
	// news counts what has happened, so that whoever waits looks again.
	news int
	// busy counts what has to be through before the next run: starts of updates and messages that
	// are on their way.
	busy int
	// reported is the last message to the channel's actor.
	reported ClusterReport
	// child is the last update that this run has started. If another one is in the way, conflicts
	// counts how often, and free is when to try again.
	child     workflow.ChildWorkflowFuture
	conflicts int
	free      time.Time
}

func (c *clusterActor) handle(ctx workflow.Context) error {
	if err := workflow.SetQueryHandler(ctx, StateQuery, func() (ClusterState, error) { return c.ClusterState, nil }); err != nil {
		return err
	}
	if err := workflow.SetUpdateHandlerWithOptions(ctx, BlockName,
		func(ctx workflow.Context, request BlockRequest) (Block, error) { return c.block(ctx, request), nil },
		workflow.UpdateHandlerOptions{Validator: c.checkBlock, Description: "change nothing until this is lifted or expires"},
	); err != nil {
		return err
	}
	if err := workflow.SetUpdateHandlerWithOptions(ctx, ForceName,
		func(ctx workflow.Context, request ForceRequest) (ForceOrder, error) {
			return c.force(ctx, request), nil
		},
		workflow.UpdateHandlerOptions{Validator: c.checkForce, Description: "force the pods of a node now, forbid it, or leave it to the rule again"},
	); err != nil {
		return err
	}
	if err := c.handleUpdates(ctx); err != nil {
		return err
	}
	return workflow.SetUpdateHandlerWithOptions(ctx, UnblockName,
		func(ctx workflow.Context, request UnblockRequest) ([]Block, error) {
			return c.unblock(ctx, request), nil
		},
		workflow.UpdateHandlerOptions{Validator: c.checkUnblock, Description: "lift a block, or all of them"})
}

func (c *clusterActor) checkBlock(request BlockRequest) error { return checkBlock(request) }

func (c *clusterActor) checkForce(request ForceRequest) error {
	namespace, name, qualified := strings.Cut(request.Pod, "/")
	switch {
	case request.Node == "":
		return temporal.NewApplicationError("node is missing", InvalidInput)
	case request.Pod != "" && (!qualified || namespace == "" || name == ""):
		return temporal.NewApplicationError(fmt.Sprintf("pod is %q; must be namespace/name", request.Pod), InvalidInput)
	case request.Mode != ForceNow && request.Mode != ForceForbid && request.Mode != ForceByRule:
		return temporal.NewApplicationError(fmt.Sprintf("mode is %q; must be now, forbid or rule", request.Mode), InvalidInput)
	case strings.TrimSpace(request.Reason) == "":
		return temporal.NewApplicationError("an order about forcing pods needs a reason: it is recorded with each forced pod", InvalidInput)
	}
	return nil
}

// force records an order. It takes the place of earlier ones about the same pods.
func (c *clusterActor) force(ctx workflow.Context, request ForceRequest) ForceOrder {
	now := workflow.Now(ctx)
	c.tidy(now)
	c.Given++
	order := ForceOrder{
		ID: fmt.Sprintf("force-%d", c.Given), Node: request.Node, Pod: request.Pod, Mode: request.Mode,
		Reason: request.Reason, By: cmp.Or(request.By, nobody), At: now,
	}
	c.Orders = slices.DeleteFunc(c.Orders, func(o ForceOrder) bool {
		return o.Node == order.Node && (order.Pod == "" || o.Pod == order.Pod)
	})
	if order.Mode != ForceByRule || order.Pod != "" { // without an order the rule holds
		c.Orders = append(c.Orders, order)
	}
	c.tell(ctx)
	return order
}

func (c *clusterActor) checkUnblock(request UnblockRequest) error {
	if request.ID == registryBlock {
		return temporal.NewApplicationError(fmt.Sprintf("cluster %s is blocked by its entry in the registry: remove the config item cluster_update_block there", c.Cluster), InvalidInput)
	}
	if request.ID != "" && !slices.ContainsFunc(c.Blocks, func(b Block) bool { return b.ID == request.ID }) {
		return temporal.NewApplicationError(fmt.Sprintf("cluster %s has no block %q", c.Cluster, request.ID), InvalidInput)
	}
	return nil
}

func (c *clusterActor) block(ctx workflow.Context, request BlockRequest) Block {
	now := workflow.Now(ctx)
	c.tidy(now)
	c.Given++
	block := newBlock(c.Given, now, "", request)
	c.Blocks = append(c.Blocks, block)
	c.tell(ctx)
	return block
}

func (c *clusterActor) unblock(ctx workflow.Context, request UnblockRequest) (lifted []Block) {
	now := workflow.Now(ctx)
	c.tidy(now)
	c.Blocks, lifted = lift(c.Blocks, now, request)
	c.Ended = append(c.Ended, lifted...)
	c.tell(ctx)
	return lifted
}

const nobody = "somebody who left no name"

// tidy forgets what nothing can depend on any more.
func (c *clusterActor) tidy(now time.Time) {
	c.Blocks, c.Ended = tidied(c.Blocks, c.Ended, now)
	c.Orders = slices.DeleteFunc(c.Orders, func(o ForceOrder) bool { return now.Sub(o.At) > longestDrain })
}

func (c *clusterActor) tell(ctx workflow.Context) {
	c.news++
	details := fmt.Sprintf("Cluster `%s` is not blocked.", c.Cluster)
	if len(c.Blocks) > 0 {
		var lines []string
		for _, b := range c.Blocks {
			scope := "the whole cluster"
			if b.Pool != "" {
				scope = "pool " + b.Pool
			}
			lines = append(lines, fmt.Sprintf("- `%s`, %s: %s", b.ID, scope, b))
		}
		details = fmt.Sprintf("Cluster `%s` is **blocked**; an expired block stays in this list until the next change:\n\n%s", c.Cluster, strings.Join(lines, "\n"))
	}
	for _, o := range c.Orders {
		details += fmt.Sprintf("\n\nForcing pods of node `%s` (%s): **%s**, ordered by %s: %s", o.Node, cmp.Or(o.Pod, "all"), o.Mode, o.By, o.Reason)
	}
	workflow.SetCurrentDetails(ctx, details+c.Updates.String())
	// It fails only if the namespace lacks the attribute, which the worker checks at its start.
	_ = workflow.UpsertTypedSearchAttributes(ctx, append(c.attributes(), BlockedAttribute.ValueSet(len(c.Blocks) > 0))...)
}

// Holding lists the blocks that hold at a time, for a pool.
func (s ClusterState) Holding(at time.Time, pool string) []Block {
	return slices.DeleteFunc(slices.Clone(s.Blocks), func(b Block) bool { return !b.Holds(at, pool) })
}

// BlockedBetween is how much of a span of time something held the pool, counting what overlaps once.
func (s ClusterState) BlockedBetween(from, to time.Time, pool string) time.Duration {
	type span struct{ from, to time.Time }
	var spans []span
	for _, b := range slices.Concat(s.Ended, s.Blocks) {
		each := span{b.Since, to}
		if !b.Until.IsZero() && b.Until.Before(to) {
			each.to = b.Until
		}
		if each.from.Before(from) {
			each.from = from
		}
		if b.concerns(pool) && each.from.Before(each.to) {
			spans = append(spans, each)
		}
	}
	slices.SortFunc(spans, func(a, b span) int { return a.from.Compare(b.from) })
	var total time.Duration
	counted := from
	for _, each := range spans {
		if each.from.Before(counted) {
			each.from = counted
		}
		if each.from.Before(each.to) {
			total += each.to.Sub(each.from)
			counted = each.to
		}
	}
	return total
}

// Refusal says who has blocked a pool at a time, and why; nothing if nobody has.
func (s ClusterState) Refusal(at time.Time, pool string) string {
	holding := s.Holding(at, pool)
	if len(holding) == 0 {
		return ""
	}
	texts := make([]string, len(holding))
	for i, b := range holding {
		texts[i] = b.String()
	}
	return fmt.Sprintf("cluster %s is %s", s.Cluster, strings.Join(texts, "; and "))
}

// Refuse returns the error of an activity that must not change anything at a time, or nil. It is
// no failure: the activity is tried again until the block is gone, which costs no history.
func (s ClusterState) Refuse(at time.Time, pool string) error {
	refusal := s.Refusal(at, pool)
	if refusal == "" {
		return nil
	}
	return temporal.NewApplicationErrorWithOptions(refusal, Blocked,
		temporal.ApplicationErrorOptions{Category: temporal.ApplicationErrorCategoryBenign, NextRetryDelay: BlockCheck})
}

// BlockCheck is how often whatever waits for a block to be lifted looks again.
const BlockCheck = 3 * time.Second
