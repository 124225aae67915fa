package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/goccy/go-yaml"
	"go.temporal.io/sdk/client"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/fairway-project/fairway/config"
	"github.com/fairway-project/fairway/lab"
	"github.com/fairway-project/fairway/registry"
	"github.com/fairway-project/fairway/rollout"
	"github.com/fairway-project/fairway/workflows"
)

const idleName = "idle"

// idleFleets are the numbers of clusters that a worker looks after; the first one is the floor.
var idleFleets = []int{1, 150}

// idle is what a worker costs that has nothing to do.
type idle struct {
	Clusters int     `json:"clusters"`
	Seconds  float64 `json:"seconds"` // measured over
	// Core is the share of one core, and Memory the resident set in MiB at the end.
	Core   float64 `json:"core"`
	Memory float64 `json:"memory_mib"`
	// Told is how long it took from the worker's start until every cluster's state was known.
	Told float64 `json:"told_seconds"`
}

// measureIdle runs a worker over fleets whose clusters are all on the head of their channel. Two control
// planes really run; all entries of the registry share them.
func measureIdle(ctx context.Context, worker string, over time.Duration) (out []idle, err error) {
	dir, err := os.MkdirTemp("", "fairway-bench-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	for _, clusters := range idleFleets {
		one, err := measureIdleFleet(ctx, worker, over, filepath.Join(dir, strconv.Itoa(clusters)), clusters)
		if err != nil {
			return nil, fmt.Errorf("a fleet of %d: %w", clusters, err)
		}
		out = append(out, one)
	}
	return out, nil
}

func measureIdleFleet(ctx context.Context, worker string, over time.Duration, dir string, clusters int) (out idle, err error) {
	l, err := lab.Start(ctx, lab.Options{Dir: dir, Clusters: []string{fleetCluster, "alpha-1"}, Out: os.Stderr})
	if err != nil {
		return out, err
	}
	defer func() { err = errors.Join(err, l.Stop()) }()
	const channel = "dev"
	if err := writeFleet(ctx, l, dir, channel, clusters); err != nil {
		return out, err
	}
	began := time.Now()
	command, err := runWorker(l, worker, filepath.Join(dir, "worker.log"), "FAIRWAY_CONFIG="+filepath.Join(dir, "idle.yaml"))
	if err != nil {
		return out, err
	}
	defer func() { err = errors.Join(err, command.stop()) }()
	temporal, err := client.DialContext(ctx, client.Options{HostPort: l.Direct("temporal"), Namespace: lab.TemporalNamespace})
	if err != nil {
		return out, fmt.Errorf("connecting to Temporal: %w", err)
	}
	defer temporal.Close()
	if err := until(ctx, "all clusters are known to be on the head", func(ctx context.Context) (bool, error) {
		var state workflows.ChannelState
		answer, err := temporal.QueryWorkflow(ctx, workflows.ChannelID(channel), "", workflows.StateQuery)
		if err != nil || answer.Get(&state) != nil || len(state.Members) != clusters {
			return false, nil //nolint:nilerr // the actor is not there yet
		}
		for _, member := range state.Members {
			if member.State != rollout.Done {
				return false, nil
			}
		}
		return true, nil
	}); err != nil {
		return out, err
	}
	out = idle{Clusters: clusters, Told: time.Since(began).Seconds()}
	select { // what the start has left to do
	case <-time.After(20 * time.Second):
	case <-ctx.Done():
		return out, context.Cause(ctx)
	}
	before, err := processorTime(command.Process.Pid)
	if err != nil {
		return out, err
	}
	start := time.Now()
	select {
	case <-time.After(over):
	case <-ctx.Done():
		return out, context.Cause(ctx)
	}
	after, err := processorTime(command.Process.Pid)
	if err != nil {
		return out, err
	}
	out.Seconds = time.Since(start).Seconds()
	out.Core = (after - before).Seconds() / out.Seconds
	out.Memory, err = residentMemory(command.Process.Pid)
	return out, err
}

// writeFleet writes a registry of many clusters that are all up to date, credentials for all of them,
// and a configuration with the settings of production.
func writeFleet(ctx context.Context, l *lab.Lab, dir, channel string, clusters int) error {
	c, err := config.Load(l.Env()["FAIRWAY_CONFIG"])
	if err != nil {
		return err
	}
	known, err := registry.File{Path: c.Registry.File}.Clusters(ctx)
	if err != nil {
		return err
	}
	access, err := clientcmd.LoadFromFile(c.Kubernetes.Kubeconfig)
	if err != nil {
		return err
	}
	head, err := exec.CommandContext(ctx, "git", "ls-remote", c.Repository.URL, "refs/heads/"+channel).Output()
	if err != nil {
		return fmt.Errorf("reading the head of %s: %w", channel, err)
	}
	commit, _, _ := strings.Cut(string(head), "\t")
	var fleet registry.Clusters
	for i := range clusters {
		entry := known[i%len(known)]
		context := access.Contexts[entry.ID]
		entry.ID = fmt.Sprintf("fleet-%03d", i+1)
		entry.LocalID, entry.Alias, entry.Channel = entry.ID, "", channel
		fleet = append(fleet, entry)
		access.Contexts[entry.ID] = context
	}
	file := registry.File{Path: filepath.Join(dir, "idle-registry.yaml")}
	data, err := yaml.MarshalWithOptions(map[string]any{"clusters": fleet}, yaml.OmitEmpty())
	if err != nil {
		return err
	}
	if err := os.WriteFile(file.Path, data, 0o644); err != nil {
		return err
	}
	for _, entry := range fleet {
		if err := file.WriteStatus(ctx, entry.ID, registry.Status{CurrentVersion: registry.Version(commit, entry)}, ""); err != nil {
			return err
		}
	}
	c.Registry = config.Registry{File: file.Path, Timeout: c.Registry.Timeout}
	c.Kubernetes.Kubeconfig = filepath.Join(dir, "idle-kubeconfig")
	if err := clientcmd.WriteToFile(*access, c.Kubernetes.Kubeconfig); err != nil {
		return err
	}
	c.Update.SyncEvery = time.Minute
	data, err = yaml.Marshal(c)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "idle.yaml"), data, 0o644)
}

// processorTime is what a process has computed so far (proc(5), fields 14 and 15 of stat).
func processorTime(pid int) (time.Duration, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(data), ") ") // the name may hold blanks
	fields := strings.Fields(rest)
	var ticks int
	for _, field := range fields[11:13] {
		value, err := strconv.Atoi(field)
		if err != nil {
			return 0, err
		}
		ticks += value
	}
	return time.Duration(ticks) * 10 * time.Millisecond, nil // a tick is a hundredth of a second
}

func residentMemory(pid int) (mib float64, err error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(data), "VmRSS:")
	kib, err := strconv.Atoi(strings.Fields(rest)[0])
	return float64(kib) / 1024, err
}

func printIdle(out io.Writer, all []idle) {
	fmt.Fprintln(out, "\nidle: a worker that has nothing to do")
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "clusters\tof a core\tmemory\tall known after")
	for _, one := range all {
		fmt.Fprintf(table, "%d\t%.2f %%\t%.0f MiB\t%.1f s\n", one.Clusters, 100*one.Core, one.Memory, one.Told)
	}
	floor, most := all[0], all[len(all)-1]
	fmt.Fprintf(table, "%d to %d\t%.1f times\t%.2f times\t\n", most.Clusters, floor.Clusters, most.Core/floor.Core, most.Memory/floor.Memory)
	_ = table.Flush()
}
