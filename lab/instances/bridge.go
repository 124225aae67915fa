package main

import (
	"context"
	"log"
	"slices"
	"sync"
	"time"
)

// bridge compares what AWS has with the control planes there are, again and again.
type bridge struct {
	options options
	cloud   *cloud
	control control

	clusters map[string]*cluster // those whose nodes the bridge looks after

	mu   sync.Mutex
	busy map[string]bool // clusters whose control plane is being started or stopped
}

// look takes one look at AWS and at the lab and begins what follows from it.
func (b *bridge) look(life context.Context) error {
	ctx, cancel := context.WithTimeout(life, 10*time.Second)
	defer cancel()
	seen, err := b.cloud.observe(ctx)
	if err != nil {
		return err
	}
	running, err := b.control.clusters(ctx)
	if err != nil {
		return err
	}
	for id, wanted := range seen.clusters {
		switch there := slices.Contains(running, id); {
		case wanted && !there:
			b.begin(life, id, "starting", b.control.start)
		case !wanted && there:
			b.begin(life, id, "stopping", b.control.stop)
		}
	}
	b.lookAfter(life, running, seen)
	return nil
}

// begin starts or stops a control plane, which takes seconds, unless that is under way.
func (b *bridge) begin(life context.Context, id, what string, do func(context.Context, string) error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.busy[id] {
		return
	}
	b.busy[id] = true
	go func() {
		log.Printf("cluster %s: %s its control plane", id, what)
		if err := do(life, id); err != nil {
			log.Printf("cluster %s: %s its control plane: %v", id, what, err)
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.busy, id)
	}()
}

// lookAfter hands each cluster its instances and lets go of those whose control plane is gone.
func (b *bridge) lookAfter(life context.Context, running []string, seen *observation) {
	for _, id := range running {
		c := b.clusters[id]
		if c == nil {
			c = newCluster(id, b.options, b.cloud)
			b.clusters[id] = c
			defer c.start(life) // when it knows its instances
		}
		c.show(seen.instances[id])
	}
	for id, c := range b.clusters {
		if !slices.Contains(running, id) {
			c.stop()
			delete(b.clusters, id)
		}
	}
}
