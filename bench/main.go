// Command bench compares three ways to empty a node on one lab control plane with stock
// settings: Fairway's drain, `kubectl drain`, and the floor, which is the least work that the
// API server allows. They take turns, so that whatever else the machine does hits all of them.
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
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	var names []string
	for _, s := range scenarios {
		names = append(names, s.name)
	}
	rounds := flag.Int("rounds", 3, "how often each drainer runs in a scenario")
	slowRounds := flag.Int("slow-rounds", 1, "the same for the scenario slow, a round of which takes 10 minutes")
	only := flag.String("scenarios", strings.Join(names, ","), "the `scenarios` to run")
	output := flag.String("output", "table", "`form` of the results: table or json")
	flag.Parse()
	if *output != "table" && *output != "json" {
		return fmt.Errorf("--output %s: choose table or json", *output)
	}
	if *rounds < 1 || *slowRounds < 1 {
		return errors.New("--rounds and --slow-rounds start at 1")
	}
	var chosen []scenario
	for _, name := range strings.Split(*only, ",") {
		at := slices.Index(names, name)
		if at < 0 {
			return fmt.Errorf("--scenarios %s: there are %s", name, strings.Join(names, ", "))
		}
		chosen = append(chosen, scenarios[at])
	}

	return withCluster(ctx, func(c *cluster) error {
		drainers, err := c.drainers()
		if err != nil {
			return err
		}
		var results []result
		for _, s := range chosen {
			n := *rounds
			if s.slow {
				n = *slowRounds
			}
			r, err := c.compare(ctx, s, drainers, n)
			if err != nil {
				return err
			}
			results = append(results, r)
			if *output == "table" {
				r.print(os.Stdout)
			}
		}
		if *output == "json" {
			return writeJSON(os.Stdout, results)
		}
		return nil
	})
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

func writeJSON(out io.Writer, results []result) error {
	encoder := json.NewEncoder(out)
	encoder.SetIndent("", "  ")
	return encoder.Encode(results)
}
