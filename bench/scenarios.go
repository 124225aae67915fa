package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/fairway-project/fairway/lab"
)

// scenario is what runs on the node that is drained.
type scenario struct {
	name, title string
	workloads   int
	replicas    int
	budget      string // what may be unavailable of each workload; empty if it has no budget
	// gentle leaves Fairway the budget that it gives to workloads without one, as by default, and
	// holds the floor to the same.
	gentle     bool
	readyAfter time.Duration // how long a pod takes to get ready; 0 means the lab's 0.5 s to 1.5 s
	// held lets the budget allow nothing until a while after the drain has begun.
	held bool
	slow bool
}

var scenarios = []scenario{
	{name: "many", title: "110 pods of 11 workloads without budgets, Fairway's implicit budget switched off", workloads: 11, replicas: 10},
	{name: "gentle", title: "110 pods of 11 workloads without budgets, Fairway and floor keep to its implicit budget of 25%", workloads: 11, replicas: 10, gentle: true},
	{name: "budget", title: "110 pods of one workload with a budget of 10%", workloads: 1, replicas: 110, budget: "10%"},
	{name: "slow", title: "30 pods of one workload with a budget of 10% that take 15 s to get ready", workloads: 1, replicas: 30, budget: "10%", readyAfter: 15 * time.Second, slow: true},
	{name: "blocked", title: "one pod whose budget allows nothing for 6 s to 11 s", workloads: 1, replicas: 1, budget: "100%", held: true},
}

// mayLeave is how many pods of a workload without a budget the floor takes away at a time.
func (s scenario) mayLeave() int {
	if s.gentle {
		return s.replicas / 4
	}
	return s.replicas
}

// hold spreads the times of a budget's release evenly over five seconds, the period in which
// kubectl asks again: at one fixed time it would always be early or always late.
func (s scenario) hold(round, rounds int) time.Duration {
	return 6*time.Second + 5*time.Second*time.Duration(round)/time.Duration(rounds)
}

// trial is one drain. Requests are those of the drainer, by its user agent in the audit log.
type trial struct {
	Drainer  string  `json:"drainer"`
	Seconds  float64 `json:"seconds"`
	Requests int     `json:"requests"`
	Evicted  int     `json:"evicted"`
	Refused  int     `json:"refused"` // evictions answered with 429
	// LeastReady is the smallest number of ready pods that any workload had.
	LeastReady int `json:"least_ready"`
	// Reaction is the time in seconds from the release of the budget to the eviction it granted.
	Reaction float64 `json:"reaction_seconds,omitempty"`
	// Load is the machine's load average of the last minute when the drain began.
	Load float64 `json:"load"`

	began, ended, released time.Time
}

// compare lets the drainers take turns; who is first changes from round to round.
func (c *cluster) compare(ctx context.Context, s scenario, drainers []drainer, rounds int) (result, error) {
	r := result{Scenario: s.name, Title: s.title, Replicas: s.replicas, Held: s.held}
	for round := range rounds {
		for i := range drainers {
			d := drainers[(i+round)%len(drainers)]
			t, err := c.try(ctx, s, d, s.hold(round, rounds))
			if err != nil {
				return r, fmt.Errorf("scenario %s, round %d, %s: %w", s.name, round+1, d.name, err)
			}
			fmt.Fprintf(os.Stderr, "%s, round %d of %d: %s took %.1f s\n", s.name, round+1, rounds, d.name, t.Seconds)
			r.Trials = append(r.Trials, t)
		}
	}
	audit, err := c.lab.Audit(clusterID)
	if err != nil {
		return r, err
	}
	for i := range r.Trials {
		r.Trials[i].count(audit, drainers)
	}
	r.summarise(drainers)
	return r, nil
}

// try fills the node and empties it once.
func (c *cluster) try(ctx context.Context, s scenario, d drainer, hold time.Duration) (trial, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, 10*time.Minute, errors.New("not done after 10 minutes"))
	defer cancel()
	pods, err := c.fill(ctx, s)
	if err != nil {
		return trial{}, fmt.Errorf("filling the node: %w", err)
	}
	defer pods.stop()
	t := trial{Drainer: d.name, Load: loadAverage()}
	pods.watchLeast()
	var release errgroup.Group
	t.began = time.Now()
	if s.held {
		release.Go(func() (err error) {
			t.released, err = c.release(ctx, s, hold)
			return err
		})
	}
	err = d.drain(ctx, s)
	t.ended = time.Now()
	t.Seconds = t.ended.Sub(t.began).Seconds()
	if err := errors.Join(err, release.Wait()); err != nil {
		return t, err
	}
	t.LeastReady = pods.least()
	if left, err := c.left(ctx); err != nil || len(left) > 0 {
		if err == nil {
			err = fmt.Errorf("%d pods are left on the node: %s", len(left), strings.Join(left, ", "))
		}
		return t, err
	}
	return t, c.clear(ctx)
}

// count reads out of the audit log what the drainer asked for.
func (t *trial) count(audit lab.Audit, drainers []drainer) {
	var agent string
	for _, d := range drainers {
		if d.name == t.Drainer {
			agent = d.agent
		}
	}
	own := audit.Where(func(e lab.AuditEvent) bool {
		return strings.HasPrefix(e.UserAgent, agent) && !e.Received.Before(t.began) && !e.Received.After(t.ended)
	})
	t.Requests = len(own)
	for _, eviction := range own.Evictions() {
		switch eviction.Code {
		case 201:
			t.Evicted++
			if !t.released.IsZero() {
				t.Reaction = eviction.Received.Sub(t.released).Seconds()
			}
		case 429:
			t.Refused++
		}
	}
}

func loadAverage() (load float64) {
	data, err := os.ReadFile("/proc/loadavg")
	if err == nil {
		_, _ = fmt.Sscan(string(data), &load)
	}
	return load
}
