package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/fairway-project/fairway/workflows"
)

// clusterDescription is what `fairway cluster describe` shows.
type clusterDescription struct {
	workflows.ClusterInfo
	Updates workflows.ClusterUpdates `json:"updates"`
	// Wave and State are those of the cluster in the rollout of its channel.
	Rollout *workflows.Member `json:"rollout,omitempty"`
	// Head is the commit of the channel.
	Head     string                    `json:"head,omitempty"`
	Blocks   []workflows.Block         `json:"blocks"`
	Running  *workflows.UpdateProgress `json:"running,omitempty"`
	WaitsFor []string                  `json:"waits_for,omitempty"`
	Health   *workflows.Health         `json:"health,omitempty"`
	// Unknown says what could not be found out, and why.
	Unknown []string `json:"unknown,omitempty"`
}

func (c *cli) clusterDescribeCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "describe CLUSTER",
		Short: "Show what is known of a cluster: versions, blocks, the update under way, failures and health",
		Long: `Show what is known of a cluster: the versions that it has, had and is to have, where it stands
in the rollout of its channel, the blocks that hold it (its own, those of its channel and of the
fleet), the update under way with its steps, the last failed attempt and when the next one begins,
and what is not healthy now.`,
		Example:           "  fairway cluster describe dev-1\n  fairway cluster describe dev-1 -o json",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: c.completeCluster,
		RunE: func(cmd *cobra.Command, args []string) error {
			conn, err := c.connect(cmd.Context())
			if err != nil {
				return err
			}
			defer conn.Close()
			var clusters []workflows.ClusterInfo
			if err := conn.ask(cmd.Context(), "ListClusters", workflows.ListClusters{Names: args}, &clusters); err != nil {
				return err
			}
			var description clusterDescription
			if err := patiently(cmd.ErrOrStderr(), "asks the cluster", func() (err error) {
				description, err = conn.describeCluster(cmd.Context(), clusters[0])
				return err
			}); err != nil {
				return err
			}
			return c.print(cmd.OutOrStdout(), description, func(t *table) { description.show(t, time.Now()) })
		},
	}
}

// describeCluster asks everybody who knows something, at the same time. Whoever does not answer hides
// nothing else.
func (c *connection) describeCluster(ctx context.Context, info workflows.ClusterInfo) (clusterDescription, error) {
	d := clusterDescription{ClusterInfo: info, Blocks: []workflows.Block{}}
	var cluster workflows.ClusterState
	var channel workflows.ChannelState
	var fleet workflows.FleetState
	var running workflows.UpdateProgress
	var health workflows.Health
	unknown := make([]string, 5)
	var runs bool
	var group errgroup.Group
	for i, look := range []struct {
		what string
		do   func() error
	}{
		{"what was ordered", func() (err error) {
			cluster, err = c.clusterState(ctx, info.ID)
			return err
		}},
		{"the rollout of its channel", func() error {
			_, err := c.query(ctx, workflows.ChannelID(info.Channel), "", workflows.StateQuery, &channel)
			return err
		}},
		{"the blocks of the fleet", func() error {
			_, err := c.query(ctx, workflows.FleetID, "", workflows.StateQuery, &fleet)
			return err
		}},
		{"the update under way", func() error {
			id := workflows.UpdateClusterID(info.ID)
			if runs = c.runs(ctx, id); !runs {
				return nil
			}
			d.WaitsFor = c.waitsFor(ctx, id)
			_, err := c.query(ctx, id, "", workflows.ProgressQuery, &running)
			return err
		}},
		{"its health", func() error { return c.ask(ctx, "CheckHealth", workflows.CheckHealth{Cluster: info.ID}, &health) }},
	} {
		group.Go(func() error {
			if err := look.do(); err != nil {
				unknown[i] = look.what + ": " + err.Error()
			}
			return ctx.Err()
		})
	}
	if err := group.Wait(); err != nil {
		return d, err
	}
	now := time.Now()
	d.Updates, d.Head = cluster.Updates, channel.Commit
	d.Blocks = slices.Concat(d.Blocks, holding(fleet.Blocks.Holding, "fleet", now), holding(channel.Blocks.Holding, "channel "+info.Channel, now), holding(cluster.Blocks, "", now))
	if at := slices.IndexFunc(channel.Members, func(m workflows.Member) bool { return m.ID == info.ID }); at >= 0 {
		d.Rollout = &channel.Members[at]
	}
	if runs && unknown[3] == "" {
		d.Running = &running
	}
	if unknown[4] == "" {
		d.Health = &health
	}
	d.Unknown = slices.DeleteFunc(unknown, func(text string) bool { return text == "" })
	return d, nil
}

func (d clusterDescription) show(t *table, now time.Time) {
	u := d.Updates
	t.row("Cluster:", d.ID)
	if d.Alias != "" {
		t.row("Alias:", d.Alias)
	}
	t.row("Channel:", strings.TrimSpace(d.Channel+" "+shortCommit(d.Head)))
	t.row("Environment:", d.Environment)
	t.row("Account:", fmt.Sprintf("%s, %s", d.Account, d.Region))
	t.row("Owner:", d.Owner)
	t.row("Lifecycle:", d.Lifecycle)
	t.row("Version:", d.version())
	t.row("Last version:", u.Last)
	if u.Want != nil {
		wanted := u.Want.Version
		switch {
		case u.Want.Hold:
			wanted += " (the channel has not let it go on yet)"
		case wanted == u.Current:
			wanted = "the one it has"
		}
		t.row("Wanted:", wanted)
	}
	if d.Rollout != nil {
		t.row("Rollout:", fmt.Sprintf("%s for %s, wave %s", d.Rollout.State, age(time.Unix(d.Rollout.SinceUnix, 0)), waveName(d.Rollout.Wave)))
	}
	if p := u.Pinned; p != nil {
		t.row("Pinned:", fmt.Sprintf("to %s and not %s, by %s at %s: %s", shortVersion(p.Version), shortVersion(p.Not), p.By, p.At.Local().Format(time.DateTime), p.Reason))
	}
	for i, block := range d.Blocks {
		t.row(map[bool]string{true: "Blocked:"}[i == 0], blockText(block))
	}
	if f := u.Failed; f != nil {
		t.row("Failed:", fmt.Sprintf("attempt %d at %s, %s: %s", f.Attempts, shortVersion(f.Version), sinceText(f.At), problemText(d.ID, f.Problem)))
		t.row("Next attempt:", nextAttempt(*f, now))
	}
	switch {
	case d.Health == nil:
		t.row("Health:", "unknown")
	case d.Health.Healthy:
		t.row("Health:", "healthy")
	default:
		for i, problem := range d.Health.Problems {
			t.row(map[bool]string{true: "Health:"}[i == 0], problem)
		}
	}
	for _, text := range d.Unknown {
		t.row("Not known:", cut(text, 200))
	}
	t.flush()
	if d.Running != nil {
		t.line("\nUnder way:")
		showUpdate(t, *d.Running)
		for _, line := range d.WaitsFor {
			t.line("  %s", line)
		}
		return
	}
	t.line("\nNothing is under way. `fairway cluster history %s` shows past updates.", d.ID)
}

// version is the version that the cluster has, in words.
func (d clusterDescription) version() string {
	if d.Updates.Current == "" && len(d.Updates.Mixed) > 0 {
		short := make([]string, len(d.Updates.Mixed))
		for i, version := range d.Updates.Mixed {
			short[i] = shortVersion(version)
		}
		return "between " + strings.Join(short, " and ") + ", since an update " + unfinished(d.Updates)
	}
	return cmp.Or(d.Updates.Current, d.Version)
}

// unfinished says how the update ended that has left the cluster between two versions.
func unfinished(u workflows.ClusterUpdates) string {
	last := ""
	if len(u.History) > 0 {
		last = u.History[len(u.History)-1].Phase
	}
	switch {
	case last == "cancelled":
		return "was cancelled"
	case last == "superseded" && u.Failed == nil:
		return "gave way to another"
	case last == "" && u.Failed == nil:
		return "did not get to its end" // one that this actor has not seen
	}
	return "failed"
}

// nextAttempt says when a failed update is tried again.
func nextAttempt(failed workflows.FailedUpdate, now time.Time) string {
	switch {
	case failed.Next.IsZero():
		return "not by itself; `fairway cluster update` begins one"
	case failed.Next.After(now):
		return fmt.Sprintf("in %s, or by `fairway cluster update`", short(failed.Next.Sub(now)))
	}
	return "due"
}

func (c *cli) clusterHistoryCommand() *cobra.Command {
	var run string
	cmd := &cobra.Command{
		Use:   "history CLUSTER",
		Short: "List the past updates of a cluster, or show one with its steps",
		Long: `List the past updates of a cluster, the newest first; its actor remembers 20.

--run shows one of them with its steps and their times, the rolls of its pools, the pods that were
forced and its problems, for as long as Temporal keeps its history.`,
		Example: `  fairway cluster history dev-1
  fairway cluster history dev-1 --run 2f1c7a2e-8a7e-4a53-9a0f-3c1d2b7d9e10`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: c.completeCluster,
		RunE: func(cmd *cobra.Command, args []string) error {
			conn, cluster, err := c.connectTo(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			defer conn.Close()
			state, err := conn.clusterState(cmd.Context(), cluster)
			if err != nil {
				return err
			}
			if run != "" {
				return c.showRun(cmd, conn, cluster, state.Updates, run)
			}
			history := append([]workflows.UpdateSummary{}, state.Updates.History...)
			slices.Reverse(history)
			return c.print(cmd.OutOrStdout(), history, func(t *table) { showHistory(t, cluster, history) })
		},
	}
	cmd.Flags().StringVar(&run, "run", "", "show this run, or the one that begins so")
	_ = cmd.RegisterFlagCompletionFunc("run", c.completeRun)
	return cmd
}

func showHistory(t *table, cluster string, history []workflows.UpdateSummary) {
	if len(history) == 0 {
		t.line("Cluster %s has not been updated yet.", cluster)
		return
	}
	t.row("BEGAN", "TOOK", "KIND", "FROM", "TO", "ENDED", "FORCED", "BY", "RUN", "PROBLEM OR REASON")
	for _, past := range history {
		t.row(past.Began.Local().Format(time.DateTime), short(past.Ended.Sub(past.Began)), past.Kind, shortVersion(past.From), shortVersion(past.Version),
			past.Phase, past.Forced, past.By, past.Run, cut(cmp.Or(problemText(cluster, past.Problem), past.Reason), 120))
	}
}

// showRun shows a past update, or the one under way, as its workflow tells it.
func (c *cli) showRun(cmd *cobra.Command, conn *connection, cluster string, u workflows.ClusterUpdates, run string) error {
	full, err := findRun(cluster, u, run)
	if err != nil {
		return usage(err)
	}
	var progress workflows.UpdateProgress
	exists, err := conn.query(cmd.Context(), workflows.UpdateClusterID(cluster), full, workflows.ProgressQuery, &progress)
	switch {
	case err != nil:
		return unreachable("no worker tells of run %s: %w", full, err)
	case !exists:
		return usage(fmt.Errorf("the history of run %s is no longer kept; `fairway cluster history %s` shows what the actor of the cluster remembers", full, cluster))
	}
	return c.print(cmd.OutOrStdout(), progress, func(t *table) { showUpdate(t, progress) })
}

// findRun completes the beginning of a run's id. One that is not remembered has to be whole.
func findRun(cluster string, u workflows.ClusterUpdates, run string) (string, error) {
	var found []string
	for _, each := range runsOf(u) {
		if each != "" && strings.HasPrefix(each, run) {
			found = append(found, each)
		}
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(found) > 1:
		return "", fmt.Errorf("several runs of cluster %s begin with %q", cluster, run)
	case len(run) < 36:
		return "", errors.New("no remembered run begins with " + run + "; `fairway cluster history " + cluster + "` lists them")
	}
	return run, nil
}

// completeRun offers the runs of the cluster that is the first argument.
func (c *cli) completeRun(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	return c.completeFromState(cmd, args, func(state workflows.ClusterState) []string { return runsOf(state.Updates) })
}

// completeFromState offers what the actor of the cluster that is the first argument knows.
func (c *cli) completeFromState(cmd *cobra.Command, args []string, offer func(workflows.ClusterState) []string) ([]string, cobra.ShellCompDirective) {
	if len(args) == 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	conn, cluster, err := c.connectTo(cmd.Context(), args[0])
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	defer conn.Close()
	state, err := conn.clusterState(cmd.Context(), cluster)
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	return offer(state), cobra.ShellCompDirectiveNoFileComp
}
