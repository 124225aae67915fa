package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
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
	"github.com/fairway-project/fairway/registry/server"
	"github.com/fairway-project/fairway/rollout"
	"github.com/fairway-project/fairway/workflows"
)

const idleName = "idle"

// idleFleets are the fleets that a worker looks after; the first one is the floor. Each has the clusters
// of the one before.
var idleFleets = []struct {
	clusters int
	registry string // how the worker reaches it
}{{1, "file"}, {150, "file"}, {150, "server"}}

// idle is what a worker costs that has nothing to do.
type idle struct {
	Clusters int     `json:"clusters"`
	Registry string  `json:"registry"` // file or server
	Seconds  float64 `json:"seconds"`  // measured over
	// Core is the share of one core, with what runs for the worker, and Memory the resident set in MiB at the end.
	Core   float64 `json:"core"`
	Memory float64 `json:"memory_mib"`
	// Sync is how long a look at registry and repository takes that finds nothing new, and Status how
	// long `fairway status` takes.
	Sync   float64 `json:"sync_seconds"`
	Status float64 `json:"status_seconds"`
}

// measureIdle runs a worker over fleets whose clusters are all on the head of their channel. Two control
// planes really run; all entries of the registry share them.
func measureIdle(ctx context.Context, worker, fairway string, over time.Duration) (out []idle, err error) {
	dir, err := os.MkdirTemp("", "fairway-bench-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	l, err := lab.Start(ctx, lab.Options{Dir: dir, Clusters: []string{fleetCluster, "alpha-1"}, Out: os.Stderr})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, l.Stop()) }()
	temporal, err := client.DialContext(ctx, client.Options{HostPort: l.Direct("temporal"), Namespace: lab.TemporalNamespace})
	if err != nil {
		return nil, fmt.Errorf("connecting to Temporal: %w", err)
	}
	defer temporal.Close()
	for _, fleet := range idleFleets {
		m := idleMeasurement{lab: l, temporal: temporal, dir: dir, worker: worker, fairway: fairway}
		one, err := m.measure(ctx, over, fleet.clusters, fleet.registry)
		if err != nil {
			return nil, fmt.Errorf("a fleet of %d in a %s: %w", fleet.clusters, fleet.registry, err)
		}
		out = append(out, one)
	}
	return out, nil
}

type idleMeasurement struct {
	lab             *lab.Lab
	temporal        client.Client
	dir             string
	worker, fairway string // programs
}

// idleChannel is what all clusters follow.
const idleChannel = "dev"

func (m idleMeasurement) measure(ctx context.Context, over time.Duration, clusters int, kind string) (out idle, err error) {
	c, stop, err := m.writeFleet(ctx, clusters, kind)
	if err != nil {
		return out, err
	}
	defer stop()
	settings := "FAIRWAY_CONFIG=" + filepath.Join(m.dir, "idle.yaml")
	command, err := runWorker(m.lab, m.worker, filepath.Join(m.dir, "worker.log"), settings)
	if err != nil {
		return out, err
	}
	defer func() { err = errors.Join(err, command.stop()) }()
	if _, err := m.sync(ctx, c.TaskQueue); err != nil {
		return out, err
	}
	if err := until(ctx, "all clusters are known to be on the head", func(ctx context.Context) (bool, error) {
		return m.settled(ctx, clusters), nil
	}); err != nil {
		return out, err
	}
	if err := pause(ctx, 20*time.Second); err != nil { // what the start has left to do
		return out, err
	}
	out = idle{Clusters: clusters, Registry: kind}
	before, err := processorTime(command.Process.Pid)
	if err != nil {
		return out, err
	}
	start := time.Now()
	if err := pause(ctx, over); err != nil {
		return out, err
	}
	after, err := processorTime(command.Process.Pid)
	if err != nil {
		return out, err
	}
	out.Seconds = time.Since(start).Seconds()
	out.Core = (after - before).Seconds() / out.Seconds
	if out.Memory, err = residentMemory(command.Process.Pid); err != nil {
		return out, err
	}
	if out.Sync, err = m.sync(ctx, c.TaskQueue); err != nil {
		return out, err
	}
	status := exec.CommandContext(ctx, m.fairway, "status")
	status.Env = environment(m.lab, settings)
	status.Stderr = os.Stderr
	start = time.Now()
	err = status.Run()
	out.Status = time.Since(start).Seconds()
	return out, err
}

func pause(ctx context.Context, wait time.Duration) error {
	select {
	case <-time.After(wait):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// sync has the worker look at registry and repository now, and says how long that takes.
func (m idleMeasurement) sync(ctx context.Context, queue string) (seconds float64, err error) {
	began := time.Now()
	run, err := m.temporal.ExecuteWorkflow(ctx, client.StartWorkflowOptions{ID: workflows.SyncID + "-bench", TaskQueue: queue}, workflows.Sync, workflows.SyncFleet{})
	if err == nil {
		err = run.Get(ctx, nil)
	}
	return time.Since(began).Seconds(), err
}

// settled says whether the channel's actor knows that all clusters are on the head.
func (m idleMeasurement) settled(ctx context.Context, clusters int) bool {
	var state workflows.ChannelState
	answer, err := m.temporal.QueryWorkflow(ctx, workflows.ChannelID(idleChannel), "", workflows.StateQuery)
	return err == nil && answer.Get(&state) == nil && len(state.Members) == clusters &&
		!slices.ContainsFunc(state.Members, func(each workflows.Member) bool { return each.State != rollout.Done })
}

// writeFleet makes a registry of many clusters that are all up to date, credentials for all of them,
// and a configuration with the settings of production. A server answers until stop is called.
func (m idleMeasurement) writeFleet(ctx context.Context, clusters int, kind string) (c config.Config, stop func(), err error) {
	stop = func() {}
	if c, err = config.Load(m.lab.Env()["FAIRWAY_CONFIG"]); err != nil {
		return c, stop, err
	}
	known, err := registry.File{Path: c.Registry.File}.Clusters(ctx)
	if err != nil {
		return c, stop, err
	}
	access, err := clientcmd.LoadFromFile(c.Kubernetes.Kubeconfig)
	if err != nil {
		return c, stop, err
	}
	head, err := exec.CommandContext(ctx, "git", "ls-remote", c.Repository.URL, "refs/heads/"+idleChannel).Output()
	if err != nil {
		return c, stop, fmt.Errorf("reading the head of %s: %w", idleChannel, err)
	}
	commit, _, _ := strings.Cut(string(head), "\t")
	var fleet registry.Clusters
	for i := range clusters {
		entry := known[i%len(known)]
		context := access.Contexts[entry.ID]
		entry.ID = fmt.Sprintf("fleet-%03d", i+1)
		entry.LocalID, entry.Alias, entry.Channel = entry.ID, "", idleChannel
		entry.Status = &registry.Status{CurrentVersion: registry.Version(commit, entry)}
		fleet = append(fleet, entry)
		access.Contexts[entry.ID] = context
	}
	c.Registry = config.Registry{Timeout: c.Registry.Timeout}
	if kind == "server" {
		if stop, err = m.serveRegistry(ctx, fleet, &c.Registry); err != nil {
			return c, stop, err
		}
	} else {
		c.Registry.File = filepath.Join(m.dir, "idle-registry.yaml")
		if err := writeRegistry(ctx, registry.File{Path: c.Registry.File}, fleet); err != nil {
			return c, stop, err
		}
	}
	c.Kubernetes.Kubeconfig = filepath.Join(m.dir, "idle-kubeconfig")
	if err := clientcmd.WriteToFile(*access, c.Kubernetes.Kubeconfig); err != nil {
		return c, stop, err
	}
	c.Update.SyncEvery = time.Minute
	data, err := yaml.Marshal(c)
	if err != nil {
		return c, stop, err
	}
	return c, stop, os.WriteFile(filepath.Join(m.dir, "idle.yaml"), data, 0o644)
}

func writeRegistry(ctx context.Context, file registry.File, fleet registry.Clusters) error {
	desired := slices.Clone(fleet)
	for i := range desired {
		desired[i].Status = nil
	}
	data, err := yaml.MarshalWithOptions(map[string]any{"clusters": desired}, yaml.OmitEmpty())
	if err != nil {
		return err
	}
	if err := os.WriteFile(file.Path, data, 0o644); err != nil {
		return err
	}
	for _, entry := range fleet {
		if err := file.WriteStatus(ctx, entry.ID, *entry.Status, ""); err != nil {
			return err
		}
	}
	return nil
}

// serveRegistry answers like `fairway registry serve`, and says in the settings how to reach that.
func (m idleMeasurement) serveRegistry(ctx context.Context, fleet registry.Clusters, settings *config.Registry) (stop func(), err error) {
	stop = func() {}
	const token = "of-the-benchmark"
	sum := sha256.Sum256([]byte(token))
	log := slog.New(slog.DiscardHandler)
	tokens, err := server.ParseTokens("tokens", fmt.Appendf(nil, "tokens:\n- {name: bench, role: status, sha256: %x}\n", sum))
	if err != nil {
		return stop, err
	}
	store, err := server.OpenStore(ctx, filepath.Join(m.dir, "idle-registry.db"))
	if err != nil {
		return stop, err
	}
	if _, err := store.Import(ctx, fleet); err != nil {
		return stop, errors.Join(err, store.Close())
	}
	serving := httptest.NewServer(server.New(store, tokens, log))
	settings.URL, settings.TokenFile = serving.URL, filepath.Join(m.dir, "idle-token")
	return func() { serving.Close(); _ = store.Close() }, os.WriteFile(settings.TokenFile, []byte(token), 0o600)
}

// processorTime is what a process, and those that it has started and seen end, have computed so far
// (proc(5), fields 14 to 17 of stat).
func processorTime(pid int) (time.Duration, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(data), ") ") // the name may hold blanks
	fields := strings.Fields(rest)
	var ticks int
	for _, field := range fields[11:15] {
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
	fmt.Fprintln(table, "clusters\tregistry\tof a core\tmemory\tsync\tstatus")
	for _, one := range all {
		fmt.Fprintf(table, "%d\t%s\t%.2f %%\t%.0f MiB\t%.2f s\t%.2f s\n", one.Clusters, one.Registry, 100*one.Core, one.Memory, one.Sync, one.Status)
	}
	floor, most := all[0], all[len(all)-1]
	fmt.Fprintf(table, "%d to %d\t\t%.1f times\t%.2f times\t\t\n", most.Clusters, floor.Clusters, most.Core/floor.Core, most.Memory/floor.Memory)
	_ = table.Flush()
}
