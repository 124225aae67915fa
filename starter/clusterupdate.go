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
	enumspb "go.temporal.io/api/enums/v1"

	"github.com/fairway-project/fairway/workflows"
)

func (c *cli) clusterUpdateCommand() *cobra.Command {
	var request workflows.UpdateRequest
	var wait bool
	cmd := &cobra.Command{
		Use:   "update CLUSTER",
		Short: "Update a cluster to its wanted version now, without waiting for its turn",
		Long: `Update a cluster to its wanted version now: without waiting for the waves of its channel or for
the next attempt after a failure, and also if a person went back to another version before.
Maintenance windows, limits and blocks hold all the same.

A cluster that is not healthy is not updated. --fix says that this update is to mend it, and goes on.

The work goes on in the worker when this command ends; --wait only watches it, and its exit status is
1 if the update fails.`,
		Example: `  fairway cluster update dev-1 --reason "the quota was raised" --wait
  fairway cluster update dev-1 --fix --reason "mends CoreDNS, incident 4711"`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: c.completeCluster,
		RunE: func(cmd *cobra.Command, args []string) error {
			if strings.TrimSpace(request.Reason) == "" {
				return usage(errors.New("--reason is missing: others will ask for it"))
			}
			conn, cluster, err := c.connectTo(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			defer conn.Close()
			request.By = whoami()
			return c.order(cmd, conn, cluster, workflows.UpdateName, request, wait)
		},
	}
	cmd.Flags().StringVar(&request.Reason, "reason", "", "why, for everybody who will ask (required)")
	cmd.Flags().BoolVar(&request.Fix, "fix", false, "update although the cluster is not healthy: this is to mend it")
	cmd.Flags().BoolVar(&wait, "wait", false, "show progress until the update has ended")
	return cmd
}

func (c *cli) clusterRollbackCommand() *cobra.Command {
	var request workflows.RollbackRequest
	var wait, dryRun, yes bool
	cmd := &cobra.Command{
		Use:   "rollback CLUSTER",
		Short: "Bring a cluster back to a version that it has had, and keep it there",
		Long: `Bring a cluster back to a version that it has had (default: the last one), and keep it there
until another version is wanted than the one it went back from, or until "fairway cluster update".
An update that is under way ends at its next safe point first.

Stacks, manifests and nodes go back as they went forth; what applications have stored does not.
--dry-run says what would change. It asks for the cluster's id to be typed; --yes does without.`,
		Example: `  fairway cluster rollback dev-1 --dry-run
  fairway cluster rollback dev-1 --reason "DNS is slow since the update" --wait
  fairway cluster rollback dev-1 --to 3f2a9c41 --reason "incident 4711" --yes`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: c.completeCluster,
		RunE: func(cmd *cobra.Command, args []string) error {
			if strings.TrimSpace(request.Reason) == "" && !dryRun {
				return usage(errors.New("--reason is missing: others will ask for it"))
			}
			conn, cluster, err := c.connectTo(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			defer conn.Close()
			state, err := conn.clusterState(cmd.Context(), cluster)
			if err != nil {
				return err
			}
			if request.Version, err = rollbackTarget(cluster, state.Updates, request.Version); err != nil {
				return usage(err)
			}
			if dryRun {
				plan, err := conn.planCluster(cmd, workflows.PrepareUpdate{Cluster: cluster, Version: request.Version})
				if err != nil {
					return err
				}
				return c.print(cmd.OutOrStdout(), plan, func(t *table) { plan.show(t, false) })
			}
			if !yes {
				if err := confirm(cmd, "the cluster's id", cluster, fmt.Sprintf("Cluster %s goes back from version %s to %s. `fairway cluster rollback %s --dry-run` says what changes.",
					cluster, shortVersion(newestOf(state.Updates)), shortVersion(request.Version), cluster)); err != nil {
					return err
				}
			}
			request.By = whoami()
			return c.order(cmd, conn, cluster, workflows.RollbackName, request, wait)
		},
	}
	cmd.Flags().StringVar(&request.Version, "to", "", "a version that the cluster has had, or the beginning of one (default: the last one)")
	cmd.Flags().StringVar(&request.Reason, "reason", "", "why, for everybody who will ask (required)")
	cmd.Flags().BoolVar(&wait, "wait", false, "show progress until the rollback has ended")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "say what would change, and change nothing")
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask for the cluster's id")
	_ = cmd.RegisterFlagCompletionFunc("to", c.completePastVersion)
	return cmd
}

// newestOf is the version that a cluster has, or was on its way to.
func newestOf(u workflows.ClusterUpdates) string {
	if u.Current == "" && len(u.Mixed) > 0 {
		return u.Mixed[len(u.Mixed)-1]
	}
	return u.Current
}

// pastVersions are those that a cluster has had, the newest first.
func pastVersions(u workflows.ClusterUpdates) []string {
	versions := []string{u.Last}
	if u.Current == "" && len(u.Mixed) > 0 {
		versions = append([]string{u.Mixed[0]}, versions...) // where the failed update began
	}
	for _, past := range slices.Backward(u.History) {
		if past.Phase == "done" {
			versions = append(versions, past.Version)
		}
		versions = append(versions, past.From)
	}
	var out []string
	for _, version := range versions {
		if version != "" && version != u.Current && !slices.Contains(out, version) {
			out = append(out, version)
		}
	}
	return out
}

// rollbackTarget finds the version that is meant: the last one, or the one that begins so.
func rollbackTarget(cluster string, u workflows.ClusterUpdates, to string) (string, error) {
	versions := pastVersions(u)
	if len(versions) == 0 {
		return "", fmt.Errorf("cluster %s has had no version that it could go back to", cluster)
	}
	if to == "" {
		return versions[0], nil
	}
	matching := slices.DeleteFunc(slices.Clone(versions), func(v string) bool { return !strings.HasPrefix(v, to) && !strings.HasPrefix(shortVersion(v), to) })
	shown := make([]string, len(versions))
	for i, version := range versions {
		shown[i] = shortVersion(version)
	}
	switch len(matching) {
	case 0:
		return "", fmt.Errorf("cluster %s has not had version %q; it has had %s", cluster, to, strings.Join(shown, ", "))
	case 1:
		return matching[0], nil
	}
	return "", fmt.Errorf("version %q of cluster %s is ambiguous; it has had %s", to, cluster, strings.Join(shown, ", "))
}

// completePastVersion offers the versions that the cluster which is the first argument has had.
func (c *cli) completePastVersion(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	versions, directive := c.completeFromState(cmd, args, func(state workflows.ClusterState) (out []string) {
		for _, version := range pastVersions(state.Updates) {
			out = append(out, shortVersion(version))
		}
		return out
	})
	if directive == cobra.ShellCompDirectiveNoFileComp {
		directive |= cobra.ShellCompDirectiveKeepOrder // the newest first
	}
	return versions, directive
}

// order tells the actor of a cluster to begin, and follows what it begins if wanted.
func (c *cli) order(cmd *cobra.Command, conn *connection, cluster, name string, request any, wait bool) error {
	before, err := conn.clusterState(cmd.Context(), cluster)
	if err != nil {
		return err
	}
	var updates workflows.ClusterUpdates
	if err := conn.tellCluster(cmd.Context(), cluster, name, request, &updates); err != nil {
		return err
	}
	if wait {
		return c.followUpdate(cmd, conn, cluster, before.Updates)
	}
	return c.print(cmd.OutOrStdout(), updates, func(t *table) {
		t.line("Cluster %s begins as soon as its blocks, windows and limits let it.", cluster)
		t.line("`fairway cluster describe %s` shows how far it is.", cluster)
	})
}

// runsOf are the runs of updates that an actor knows of.
func runsOf(u workflows.ClusterUpdates) (out []string) {
	for _, past := range u.History {
		out = append(out, past.Run)
	}
	return out
}

// followUpdate shows an update from its beginning to its end. What was known before does not count.
func (c *cli) followUpdate(cmd *cobra.Command, conn *connection, cluster string, before workflows.ClusterUpdates) error {
	ctx := cmd.Context()
	report := newReport(cmd.ErrOrStderr(), len(updatePhases))
	asked := runsOf(before)
	var old string // the run that was under way before; it has to end first
	if before.Running != nil {
		if running, err := conn.DescribeWorkflowExecution(ctx, workflows.UpdateClusterID(cluster), ""); err == nil {
			old = running.WorkflowExecutionInfo.Execution.RunId
		}
	}
	for look := time.Tick(500 * time.Millisecond); ; {
		view, run, over := conn.lookForUpdate(ctx, cluster, old, asked)
		if over && run == "" {
			report.end()
			return c.settled(cmd, cluster)
		}
		if over {
			report.end()
			return c.concludeUpdate(cmd, conn, cluster, run)
		}
		report.show(view)
		select {
		case <-ctx.Done():
			report.end()
			fmt.Fprintf(cmd.ErrOrStderr(), "No longer watching; the update of cluster %s goes on. `fairway cluster describe %s` shows how far it is.\n", cluster, cluster)
			return ctx.Err()
		case <-look:
		}
	}
}

// lookForUpdate says where the update stands that follows the runs that are known, and whether it is
// over.
func (c *connection) lookForUpdate(ctx context.Context, cluster, old string, known []string) (view rollView, run string, over bool) {
	id := workflows.UpdateClusterID(cluster)
	description, err := c.DescribeWorkflowExecution(ctx, id, "")
	if err == nil {
		run = description.WorkflowExecutionInfo.Execution.RunId
	}
	if run == "" || run == old || slices.Contains(known, run) {
		view, over = c.whyNotBegun(ctx, cluster, run != "" && run == old)
		return view, "", over
	}
	if description.WorkflowExecutionInfo.Status != enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING {
		return rollView{}, run, true
	}
	var progress workflows.UpdateProgress
	if _, err := c.query(ctx, id, run, workflows.ProgressQuery, &progress); err != nil {
		return rollView{Step: unanswered}, run, false
	}
	view = updateView(progress)
	view.Waits = c.waitsFor(ctx, id)
	return view, run, false
}

// whyNotBegun says what an update waits for that has not begun, or that none is needed: the one under way
// went back by itself.
func (c *connection) whyNotBegun(ctx context.Context, cluster string, oldRuns bool) (view rollView, settled bool) {
	view = rollView{Counts: counts{Total: len(updatePhases)}, Label: "not begun", Step: "waiting for the cluster to begin"}
	if oldRuns {
		view.Step = "waiting until the update under way has reached a safe point"
	}
	state, err := c.clusterState(ctx, cluster)
	if err != nil {
		return rollView{Step: unanswered}, false
	}
	u := state.Updates
	if u.Running == nil && u.Pinned != nil && u.Pinned.Version == u.Current {
		return view, true
	}
	for _, block := range holding(state.Blocks, "", time.Now()) {
		view.Waits = append(view.Waits, "the cluster is "+block.String())
	}
	return view, false
}

// settled says that nothing had to be done.
func (c *cli) settled(cmd *cobra.Command, cluster string) error {
	return c.print(cmd.OutOrStdout(), map[string]string{"cluster": cluster, "phase": "done"}, func(t *table) {
		t.line("Cluster %s has that version already, and stays on it.", cluster)
	})
}

// updatePhases are the phases of an update, in their order.
var updatePhases = []string{"preparing", "checking", "waiting", "stacks", "manifests", "pools", "verifying"}

// currentSteps names what is under way; several pools may be at the same time.
func currentSteps(progress workflows.UpdateProgress) string {
	var names []string
	for _, step := range progress.Steps {
		if step.Ended.IsZero() {
			names = append(names, step.Name)
		}
	}
	if len(names) == 0 || !progress.Ended.IsZero() {
		return strings.ReplaceAll(progress.Step, "`", "")
	}
	return strings.Join(names, ", ")
}

// updateView is what somebody who watches an update sees.
func updateView(progress workflows.UpdateProgress) rollView {
	at := slices.Index(updatePhases, progress.Phase)
	view := rollView{
		Counts: counts{Total: len(updatePhases), Done: max(0, at)},
		Label:  progress.Phase,
		Step:   strings.TrimSuffix(progress.Phase+": "+currentSteps(progress), ": "),
	}
	if at >= 0 {
		view.Label = fmt.Sprintf("phase %d of %d, %s", at+1, len(updatePhases), progress.Phase)
	}
	nodes, replaced := 0, 0
	for _, pool := range progress.Pools {
		nodes, replaced = nodes+pool.Nodes, replaced+pool.Replaced
	}
	if nodes > 0 {
		view.Label += fmt.Sprintf(", %d of %d nodes replaced", replaced, nodes)
	}
	for _, step := range progress.Steps {
		if !step.Ended.IsZero() {
			view.Notes = append(view.Notes, fmt.Sprintf("%s: %s (%s)", step.Name, cmp.Or(step.Outcome, "done"), short(step.Ended.Sub(step.Began))))
		}
	}
	return view
}

// concludeUpdate shows how an update has ended. It is an error if it has failed.
func (c *cli) concludeUpdate(cmd *cobra.Command, conn *connection, cluster, run string) error {
	var progress workflows.UpdateProgress
	if _, err := conn.query(cmd.Context(), workflows.UpdateClusterID(cluster), run, workflows.ProgressQuery, &progress); err != nil {
		return unreachable("the update of cluster %s has ended as run %s, but no worker tells how: %w", cluster, run, err)
	}
	if err := c.print(cmd.OutOrStdout(), progress, func(t *table) { showUpdate(t, progress) }); err != nil {
		return err
	}
	if progress.Phase != "done" {
		return fmt.Errorf("the update of cluster %s to version %s %s", cluster, shortVersion(progress.Version), failedHow(cluster, progress))
	}
	return nil
}

func failedHow(cluster string, progress workflows.UpdateProgress) string {
	switch progress.Phase {
	case "superseded":
		return "was superseded by " + shortVersion(progress.Superseded)
	case "cancelled":
		return "was cancelled"
	}
	if len(progress.Problems) > 0 {
		return "failed: " + problemText(cluster, progress.Problems[0].Title)
	}
	return cmp.Or(progress.Phase, "ended without a word")
}

// showUpdate shows an update with its steps.
func showUpdate(t *table, p workflows.UpdateProgress) {
	t.row("Kind:", p.Kind)
	t.row("Version:", p.Version)
	t.row("From:", p.From)
	t.row("Phase:", p.Phase)
	if p.Ended.IsZero() {
		t.row("Step:", currentSteps(p))
	}
	t.row("Began:", sinceText(p.Started))
	if !p.Ended.IsZero() {
		t.row("Ended:", fmt.Sprintf("%s (after %s)", p.Ended.Local().Format(time.DateTime), short(p.Ended.Sub(p.Started))))
	}
	if p.By != "" || p.Reason != "" {
		t.row("Asked by:", strings.Trim(p.By+": "+p.Reason, ": "))
	}
	if p.Superseded != "" {
		t.row("Superseded:", shortVersion(p.Superseded))
	}
	if p.Evicted > 0 || len(p.Forced) > 0 {
		t.row("Pods:", fmt.Sprintf("%d evicted, %d forced", p.Evicted, len(p.Forced)))
	}
	t.flush()
	if len(p.Steps) > 0 {
		t.line("")
		t.row("STEP", "BEGAN", "TOOK", "OUTCOME")
		for _, step := range p.Steps {
			took := "under way"
			switch {
			case !step.Ended.IsZero():
				took = short(step.Ended.Sub(step.Began))
			case !p.Ended.IsZero():
				took = "not ended"
			}
			t.row(step.Name, step.Began.Local().Format(time.DateTime), took, cut(step.Outcome, 120))
		}
		t.flush()
	}
	if len(p.Pools) > 0 {
		t.line("")
		t.row("POOL", "STATE", "NODES REPLACED", "WORKFLOW")
		for _, pool := range p.Pools {
			t.row(pool.Pool, pool.State, fmt.Sprintf("%d of %d", pool.Replaced, pool.Nodes), pool.Workflow)
		}
		t.flush()
	}
	for i, pod := range p.Forced {
		if i == 0 {
			t.line("")
		}
		t.line("Pod %s of %s was forced, as %s allowed: %s", pod.Pod, cmp.Or(pod.Owner, "no owner"), pod.Authority, pod.Reason)
	}
	for i, problem := range p.Problems {
		if i == 0 {
			t.line("")
		}
		t.line("Problem: %s", wholeVersions.ReplaceAllStringFunc(problem.Title, shortVersion))
	}
}
