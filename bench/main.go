// Command bench compares three ways to empty a node on one lab control plane with stock
// settings: Fairway's drain, `kubectl drain`, and the floor, which is the least work that the
// API server allows. They take turns, so that whatever else the machine does hits all of them.
// Then it counts the Temporal history events of replacements on a full lab, and measures what a worker
// costs that has nothing to do, what it costs to find nothing to change on a cluster, and to promote on a
// large repository.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/fairway-project/fairway/lab"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	do := func() error { return run(ctx) }
	if work, set := os.LookupEnv(promotionStep); set {
		do = func() error { return doPromotionWork(ctx, work, os.Stdout) }
	}
	if err := do(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	var names []string
	for _, s := range scenarios {
		names = append(names, s.name)
	}
	names = append(names, eventsName, idleName, nochangeName, promotionName)
	rounds := flag.Int("rounds", 3, "how often each drainer runs in a scenario, and a promotion")
	slowRounds := flag.Int("slow-rounds", 1, "the same for the scenario slow, a round of which takes 10 minutes")
	only := flag.String("scenarios", strings.Join(names, ","), "the `scenarios` to run")
	blocked := flag.Duration("blocked", 5*time.Minute, "of events: how long a drain is held up at most")
	idleFor := flag.Duration("idle", 3*time.Minute, "of idle: how long a worker is watched")
	worker := flag.String("worker", "bin/fairway-worker", "of events, idle and nochange: the `program` that does the work")
	fairway := flag.String("fairway", "bin/fairway", "of idle and nochange: the command line, a `program`")
	output := flag.String("output", "table", "`form` of the results: table or json")
	flag.Parse()
	if *output != "table" && *output != "json" {
		return fmt.Errorf("--output %s: choose table or json", *output)
	}
	if *rounds < 1 || *slowRounds < 1 {
		return errors.New("--rounds and --slow-rounds start at 1")
	}
	var chosen []scenario
	others := map[string]bool{}
	for _, name := range strings.Split(*only, ",") {
		at := slices.Index(names, name)
		if at < 0 {
			return fmt.Errorf("--scenarios %s: there are %s", name, strings.Join(names, ", "))
		}
		if at >= len(scenarios) {
			others[name] = true
			continue
		}
		chosen = append(chosen, scenarios[at])
	}
	var all results
	if len(chosen) > 0 {
		if err := withCluster(ctx, func(c *cluster) (err error) {
			all.Drains, err = c.compareAll(ctx, chosen, *rounds, *slowRounds, *output == "table")
			return err
		}); err != nil {
			return err
		}
	}
	if others[eventsName] {
		e, err := countEvents(ctx, *worker, *blocked)
		if err != nil {
			return err
		}
		all.Events = &e
	}
	if others[idleName] {
		var err error
		if all.Idle, err = measureIdle(ctx, *worker, *fairway, *idleFor); err != nil {
			return err
		}
	}
	if others[nochangeName] {
		n, err := measureNochange(ctx, *worker, *fairway)
		if err != nil {
			return err
		}
		all.Nochange = &n
	}
	if others[promotionName] {
		var err error
		if all.Promotions, err = measurePromotions(ctx, *rounds); err != nil {
			return err
		}
	}
	if *output == "json" {
		return writeJSON(os.Stdout, all)
	}
	if all.Events != nil {
		all.Events.print(os.Stdout)
	}
	if all.Idle != nil {
		printIdle(os.Stdout, all.Idle)
	}
	if all.Nochange != nil {
		all.Nochange.print(os.Stdout)
	}
	if all.Promotions != nil {
		printPromotions(os.Stdout, all.Promotions)
	}
	return nil
}

// eventsName is what chooses the counting of events.
const eventsName = "events"

// results are all that is printed as JSON.
type results struct {
	Drains   []result  `json:"drains,omitempty"`
	Events   *events   `json:"events,omitempty"`
	Idle     []idle    `json:"idle,omitempty"`
	Nochange *nochange `json:"nochange,omitempty"`
	// Promotions are one for each way to reach the repository.
	Promotions []promotions `json:"promotions,omitempty"`
}

// compareAll runs scenarios one after another, and prints each when it is over if asked to.
func (c *cluster) compareAll(ctx context.Context, chosen []scenario, rounds, slowRounds int, show bool) (all []result, err error) {
	drainers, err := c.drainers()
	if err != nil {
		return nil, err
	}
	for _, s := range chosen {
		n := rounds
		if s.slow {
			n = slowRounds
		}
		r, err := c.compare(ctx, s, drainers, n)
		if err != nil {
			return nil, err
		}
		all = append(all, r)
		if show {
			r.print(os.Stdout)
		}
	}
	return all, nil
}

// withCluster runs a lab in a directory of its own for as long as do takes.
func withCluster(ctx context.Context, do func(*cluster) error) (err error) {
	dir, err := os.MkdirTemp("", "fairway-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	starting, cancel := context.WithTimeout(ctx, 20*time.Minute) // a first build included
	defer cancel()
	l, err := lab.StartControlPlane(starting, lab.Options{Dir: dir, Out: os.Stderr}, clusterID, lab.ClusterOptions{StockControllerManager: true})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Stop()) }()
	c, err := newCluster(starting, l, dir)
	if err != nil {
		return fmt.Errorf("preparing the cluster: %w", err)
	}
	return do(c)
}

func writeJSON(out io.Writer, all results) error {
	encoder := json.NewEncoder(out)
	encoder.SetIndent("", "  ")
	return encoder.Encode(all)
}
