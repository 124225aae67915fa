package main

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/fairway-project/fairway/workflows"
)

// scene is a way in which a roll can go.
type scene struct {
	name  string
	size  int               // of the pool; default 1
	full  bool              // the pool is at its maximum; otherwise it can double
	zoned bool              // all of it is in one zone
	count int               // so many nodes are named; 0 leaves the choice to the input
	items map[string]string // settings of the roll
	input workflows.RollPoolInput
	ends  bool // with an error
	alone bool // its faults would disturb others
	// before is done when the pool is there, during when the roll has begun.
	before, during func(context.Context, *pool) error
}

var (
	all    = workflows.RollPoolInput{All: true}
	remove = workflows.RollPoolInput{Remove: true}
)

var scenes = []scene{
	{name: "one", size: 2, count: 1},
	{name: "told-done", size: 2, count: 1},
	{name: "told-stopped", size: 2, input: all, before: bad(9), items: map[string]string{"bad_replacements": "1"}, ends: true},
	{name: "told-quarantine", size: 4, input: all, before: holdTwo, during: freed, items: map[string]string{"quarantine_after": "5s", "validate": "1s"}},
	{name: "none-old", size: 1},
	{name: "batches", size: 6, input: all, items: map[string]string{"surge": "100%", "parallel": "3"}},
	{name: "in-place", size: 2, input: all, items: map[string]string{"surge": "0"}},
	{name: "in-place-many", size: 4, input: all, items: map[string]string{"surge": "0", "unavailable": "50%"}},
	{name: "bad-one", size: 2, input: all, before: bad(1)},
	{name: "bad-all", size: 2, input: all, before: bad(9), items: map[string]string{"bad_replacements": "2"}, ends: true},
	{name: "bad-batch", size: 4, input: all, before: bad(2), items: map[string]string{"surge": "50%", "parallel": "2"}},
	{name: "no-room", size: 2, full: true, input: all, ends: true},
	{name: "full-in-place", size: 2, full: true, input: all, items: map[string]string{"fallbacks": "[in-place]"}},
	{name: "removed", size: 3, input: remove},
	{name: "removed-not", size: 2, input: remove, before: hold, during: cancelled(draining), ends: true},
	{name: "quarantine", size: 4, input: all, before: holdTwo, during: freed, items: map[string]string{"quarantine_after": "5s", "validate": "1s"}},
	{name: "quarantine-full", size: 4, input: all, before: holdTwo, during: freed, items: map[string]string{"quarantine_after": "5s", "quarantine_limit": "1", "surge": "100%"}},
	{name: "cancelled-early", size: 2, input: all, during: cancelled(anything), ends: true},
	{name: "cancelled-surging", size: 2, input: all, before: bad(9), during: cancelled(surging), ends: true},
	{name: "cancelled-draining", size: 1, input: all, before: hold, during: cancelled(draining), ends: true},
	{name: "cancelled-in-place", size: 2, input: all, before: hold, during: cancelled(draining), items: map[string]string{"surge": "0"}, ends: true},
	{name: "cancelled-quarantine", size: 4, input: all, before: holdTwo, during: cancelled(quarantined), items: map[string]string{"quarantine_after": "5s"}, ends: true},
	{name: "vanished", size: 1, input: all, before: hold, during: vanished},
	{name: "detached", size: 1, input: all, before: hold, during: detached, ends: true},
	{name: "ordered", size: 2, input: all, before: hold, during: ordered, alone: true},
	{name: "unknown-node", size: 1, input: workflows.RollPoolInput{Nodes: []string{"no-such-node"}}, ends: true},
	{name: "other-type", size: 2, input: all, alone: true, before: short(`{"instance_type":"m5.large"}`), during: healed, items: map[string]string{"fallbacks": "[instance-type]"}},
	{name: "other-zone", size: 2, count: 1, alone: true, before: shortInZone, during: healed, items: map[string]string{"fallbacks": "[zone]"}},
	{name: "smaller-surge", size: 4, zoned: true, input: all, alone: true, during: shortLater, items: map[string]string{"surge": "50%", "parallel": "2", "fallbacks": "[smaller-surge]"}},
	{name: "in-place-instead", size: 2, input: all, alone: true, before: short(`{}`), during: healedAfter, items: map[string]string{"fallbacks": "[in-place]"}},
	{name: "short", size: 2, input: all, alone: true, before: short(`{}`), during: cancelled(surging), items: map[string]string{"fallbacks": "[]"}, ends: true},
	{name: "short-for-ever", size: 2, input: all, alone: true, before: short(`{}`), during: healed, items: map[string]string{"fallbacks": "[]"}, ends: true},
}

// bad has the pool's next instances never become nodes.
func bad(count int) func(context.Context, *pool) error {
	return func(ctx context.Context, p *pool) error {
		return disturb(ctx, "PUT", "launch-failure", `{"group":"`+p.group()+`","count":`+string(rune('0'+count))+`}`)
	}
}

func short(of string) func(context.Context, *pool) error {
	return func(ctx context.Context, _ *pool) error { return disturb(ctx, "PUT", "shortage", of) }
}

// shortInZone has no capacity where the pool's first node is.
func shortInZone(ctx context.Context, p *pool) error {
	nodes, err := p.nodes(ctx)
	if err != nil {
		return err
	}
	return disturb(ctx, "PUT", "shortage", `{"zone":"`+nodes[0].Labels["topology.kubernetes.io/zone"]+`"}`)
}

// healed ends shortages when the roll has ended.
func healed(ctx context.Context, p *pool) error {
	_ = p.temporal.GetWorkflow(ctx, workflows.RollPoolID(cluster, p.name), "").Get(ctx, nil) // play looks at it
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return disturb(ctx, "DELETE", "shortage", "")
}

// healedAfter ends shortages when a way out of them has been taken.
func healedAfter(ctx context.Context, p *pool) error {
	if err := p.when(ctx, "a fallback is taken", func(r workflows.RollProgress) bool { return len(r.Fallbacks) > 0 }); err != nil {
		return err
	}
	return disturb(ctx, "DELETE", "shortage", "")
}

// shortLater begins a shortage when the first node is replaced.
func shortLater(ctx context.Context, p *pool) error {
	if err := p.when(ctx, "the first batch is done", func(r workflows.RollProgress) bool { return in(r, workflows.Replaced) }); err != nil {
		return err
	}
	return errors.Join(disturb(ctx, "PUT", "shortage", `{}`), healedAfter(ctx, p))
}

func freed(ctx context.Context, p *pool) error {
	if err := p.when(ctx, "a node is in quarantine", quarantined); err != nil {
		return err
	}
	return free(ctx, p)
}

// vanished ends the instance under the drain.
func vanished(ctx context.Context, p *pool) error {
	if err := p.when(ctx, "its node is drained", draining); err != nil {
		return err
	}
	return p.endOldest(ctx)
}

// detached takes the instance out of its group under the drain, so that it cannot be ended.
func detached(ctx context.Context, p *pool) error {
	if err := p.when(ctx, "its node is drained", draining); err != nil {
		return err
	}
	if err := p.detachOldest(ctx); err != nil {
		return err
	}
	return free(ctx, p)
}

// cancelled cancels the roll when its progress is so.
func cancelled(so func(workflows.RollProgress) bool) func(context.Context, *pool) error {
	return func(ctx context.Context, p *pool) error {
		if err := p.when(ctx, "it can be cancelled", so); err != nil {
			return err
		}
		time.Sleep(3 * time.Second) // in the middle of it
		if err := p.temporal.CancelWorkflow(ctx, workflows.RollPoolID(cluster, p.name), ""); err != nil {
			return err
		}
		return disturb(ctx, "DELETE", "shortage", "")
	}
}

func anything(workflows.RollProgress) bool { return true }

func surging(r workflows.RollProgress) bool { return in(r, workflows.Surging) }

func draining(r workflows.RollProgress) bool { return in(r, workflows.Replacing) }

func quarantined(r workflows.RollProgress) bool { return in(r, workflows.Quarantine) }

func in(r workflows.RollProgress, state workflows.NodeState) bool {
	return slices.ContainsFunc(r.Nodes, func(n workflows.NodeProgress) bool { return n.State == state })
}
