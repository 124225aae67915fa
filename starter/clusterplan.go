package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/fairway-project/fairway/registry"
	"github.com/fairway-project/fairway/workflows"
)

// clusterPlan is what an update of a cluster would do.
type clusterPlan struct {
	Cluster string `json:"cluster"`
	Version string `json:"version"`
	// From is the version that the cluster has; empty if none is known.
	From    string                   `json:"from,omitempty"`
	Changes bool                     `json:"changes"` // something would change
	Stacks  []workflows.StackChanges `json:"stacks"`
	// Objects are those that would change; Unchanged counts the others.
	Objects   []workflows.ObjectChange `json:"objects"`
	Unchanged int                      `json:"unchanged"`
	Deletions int                      `json:"deletions"` // entries of deletions.yaml
	Pools     []poolChange             `json:"pools"`
	Estimate  estimate                 `json:"estimate"` // of all pools together
	AtRisk    []workflows.Finding      `json:"at_risk"`
	// New means that the cluster does not exist yet: what only its API server knows is missing.
	New bool `json:"new,omitempty"`
}

// poolChange is what an update does with the nodes of a pool.
type poolChange struct {
	Pool         string `json:"pool"`
	ControlPlane bool   `json:"control_plane,omitempty"`
	// What is "rolls", "unchanged", "added" or "removed".
	What  string `json:"what"`
	Why   string `json:"why,omitempty"`
	Nodes int    `json:"nodes"` // that the pool has
	// Old are the nodes that are old already, Goes those that would be replaced or removed.
	Old      int      `json:"old"`
	Goes     []string `json:"goes,omitempty"`
	Batches  int      `json:"batches,omitempty"`
	Estimate estimate `json:"estimate"`
	Problem  string   `json:"problem,omitempty"` // that would keep it from being rolled

	atRisk []workflows.Finding
}

func (c *cli) clusterPlanCommand() *cobra.Command {
	var ref string
	var diff, exitCode bool
	cmd := &cobra.Command{
		Use:   "plan CLUSTER",
		Short: "Say what an update of a cluster would change, by a dry run that changes nothing",
		Long: `Say what an update of a cluster would change, by a dry run that changes nothing.

Everything is rendered from the head of the cluster's channel, or from --ref. Then AWS is asked by
change sets, which are deleted again, and the API server by a server-side dry run: which resources of
which stacks, which objects and with --diff which fields, which deletions, which pools roll and why,
how long that may take, and which pods would hold it up or be hurt.

The exit status is 0 also if something would change; with --exit-code it is 4 then.`,
		Example: `  fairway cluster plan dev-1
  fairway cluster plan dev-1 --ref my-branch --diff
  fairway cluster plan stable-1 --ref alpha -o json
  fairway cluster plan dev-1 --exit-code`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: c.completeCluster,
		RunE: func(cmd *cobra.Command, args []string) error {
			conn, cluster, err := c.connectTo(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			defer conn.Close()
			plan, err := conn.planCluster(cmd, workflows.PrepareUpdate{Cluster: cluster, Ref: ref})
			if err != nil {
				return err
			}
			if err := c.print(cmd.OutOrStdout(), plan, func(t *table) { plan.show(t, diff) }); err != nil {
				return err
			}
			if exitCode && plan.Changes {
				return &statusError{status: exitChanges, err: fmt.Errorf("cluster %s would change", cluster)}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&ref, "ref", "", "a branch, tag or commit (default: the cluster's channel)")
	_ = cmd.RegisterFlagCompletionFunc("ref", func(cmd *cobra.Command, _ []string, prefix string) ([]string, cobra.ShellCompDirective) {
		return c.completeChannel(cmd, nil, prefix) // the likely ones of all refs
	})
	cmd.Flags().BoolVar(&diff, "diff", false, "show how each object would change")
	cmd.Flags().BoolVar(&exitCode, "exit-code", false, "exit with status 4 if something would change")
	return cmd
}

// planning is how many questions of a plan are asked at a time: each may cost a change set.
const planning = 6

// planCluster asks for all parts of a plan, and shows on standard error what it asks.
func (c *connection) planCluster(cmd *cobra.Command, in workflows.PrepareUpdate) (clusterPlan, error) {
	ctx := cmd.Context()
	steps := newSteps(cmd.ErrOrStderr(), 2)
	defer steps.end()
	var update workflows.UpdatePlan
	if err := steps.take("render the version", func() (string, error) {
		err := c.askLong(ctx, "PrepareUpdate", in, &update)
		return fmt.Sprintf("%s, with %s and %s", shortVersion(update.Version), counted(update.Manifests, "object"), counted(len(update.Pools), "pool")), err
	}); err != nil {
		return clusterPlan{}, err
	}
	plan := clusterPlan{
		Cluster: update.Cluster.ID, Version: update.Version, From: update.Cluster.Version, Deletions: update.Deletions,
		New: update.Cluster.Lifecycle == string(registry.Requested), Objects: []workflows.ObjectChange{}, AtRisk: []workflows.Finding{},
	}
	if state, err := c.clusterState(ctx, plan.Cluster); err == nil {
		plan.From = cmp.Or(state.Updates.Current, plan.From)
	}
	steps.add(len(update.Stacks) + 2*len(update.Pools))
	var owned []workflows.OwnedStack
	if err := c.planStacks(ctx, steps, update, &plan, &owned); err != nil {
		return plan, err
	}
	if !plan.New {
		if err := c.planInside(ctx, steps, update, owned, &plan); err != nil {
			return plan, err
		}
	}
	plan.conclude(update.Settings.ParallelPools)
	return plan, nil
}

// planStacks asks AWS: about all stacks of the version, and for those that the cluster has.
func (c *connection) planStacks(ctx context.Context, steps *steps, update workflows.UpdatePlan, plan *clusterPlan, owned *[]workflows.OwnedStack) error {
	names := slices.Clone(update.Stacks)
	for _, pool := range update.Pools {
		names = append(names, pool.Stack)
	}
	plan.Stacks = make([]workflows.StackChanges, len(names))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(planning)
	group.Go(func() error {
		return steps.take("list the cluster's stacks", func() (string, error) {
			err := c.askWithin(ctx, askedLong, 0, "ListStacks", workflows.StacksOf{Cluster: plan.Cluster}, owned)
			return counted(len(*owned), "stack"), err
		})
	})
	for i, name := range names {
		group.Go(func() error {
			return steps.take("plan stack "+name, func() (string, error) {
				err := c.askWithin(ctx, askedLong, 0, "PlanStack", workflows.StackOf{Cluster: plan.Cluster, Version: plan.Version, Stack: name}, &plan.Stacks[i])
				return stackText(plan.Stacks[i]), err
			})
		})
	}
	return group.Wait()
}

// planInside asks the API server and looks at the pools.
func (c *connection) planInside(ctx context.Context, steps *steps, update workflows.UpdatePlan, owned []workflows.OwnedStack, plan *clusterPlan) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(planning)
	steps.add(1)
	group.Go(func() error {
		return steps.take("plan the manifests", func() (string, error) {
			var changes []workflows.ObjectChange
			if err := c.askLong(ctx, "PlanManifests", workflows.ManifestsOf{Cluster: plan.Cluster, Version: plan.Version}, &changes); err != nil {
				return "", err
			}
			for _, change := range changes {
				if change.Action == "unchanged" {
					plan.Unchanged++
				} else {
					plan.Objects = append(plan.Objects, change)
				}
			}
			return objectsText(plan.Objects, plan.Unchanged), nil
		})
	})
	removed := removedPools(update.Pools, owned)
	plan.Pools = make([]poolChange, len(update.Pools)+len(removed))
	steps.add(len(removed))
	for i, pool := range update.Pools {
		group.Go(func() error {
			return steps.take("look at pool "+pool.Name, func() (string, error) {
				changes := plan.Stacks[len(update.Stacks)+i]
				change := poolChange{Pool: pool.Name, ControlPlane: pool.ControlPlane}
				err := c.planPool(ctx, plan.Cluster, changes, &change)
				plan.Pools[i] = change
				return change.text(), err
			})
		})
	}
	for i, name := range removed {
		group.Go(func() error {
			return steps.take("look at pool "+name, func() (string, error) {
				change := poolChange{Pool: name, What: "removed", Why: "the registry has no such pool any more"}
				err := c.learnRoll(ctx, workflows.RollPoolInput{Cluster: plan.Cluster, Pool: name, Remove: true}, &change)
				plan.Pools[len(update.Pools)+i] = change
				return change.text(), err
			})
		})
	}
	return group.Wait()
}

// removedPools are the pools that have a stack, but are in the plan no more.
func removedPools(planned []workflows.PlannedPool, owned []workflows.OwnedStack) (out []string) {
	for _, stack := range owned {
		if stack.Pool != "" && !slices.ContainsFunc(planned, func(p workflows.PlannedPool) bool { return p.Name == stack.Pool || p.Stack == stack.Name }) {
			out = append(out, stack.Pool)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// planPool says which nodes of a pool would be replaced, and why.
func (c *connection) planPool(ctx context.Context, cluster string, changes workflows.StackChanges, change *poolChange) error {
	if changes.Created {
		change.What, change.Why = "added", "its stack "+changes.Stack+" does not exist yet"
		return nil
	}
	in := workflows.RollPoolInput{Cluster: cluster, Pool: change.Pool}
	change.What = "unchanged"
	if change.Why = renews(changes); change.Why != "" {
		in.All = true
	}
	if err := c.learnRoll(ctx, in, change); err != nil {
		return err
	}
	if len(change.Goes) > 0 || change.Problem != "" {
		change.What = "rolls"
		if change.Why == "" {
			change.Why = fmt.Sprintf("%s old already", isAre(change.Old, "node"))
		}
	}
	return nil
}

// renews says which change of a stack makes all nodes of its pool old; nothing if none does.
func renews(changes workflows.StackChanges) string {
	for _, change := range changes.Changes {
		if change.Type == "AWS::EC2::LaunchTemplate" || change.Type == "AWS::AutoScaling::LaunchConfiguration" {
			text := fmt.Sprintf("launch template %s changes", change.Resource)
			if change.Detail != "" {
				text += " (" + cut(change.Detail, 60) + ")"
			}
			return text
		}
	}
	return ""
}

// learnRoll learns what a roll would do, by its own rules.
func (c *connection) learnRoll(ctx context.Context, in workflows.RollPoolInput, change *poolChange) error {
	roll, err := c.planRoll(ctx, in)
	change.Nodes = len(roll.Pool.Instances)
	for _, instance := range roll.Pool.Instances {
		if instance.Old {
			change.Old++
		}
	}
	for _, node := range roll.Nodes {
		change.Goes = append(change.Goes, node.Name)
	}
	change.Batches = len(roll.Batches)
	switch {
	case err != nil && roll.Pool.Group == "": // nothing is known of it
		return err
	case err != nil:
		change.Problem = err.Error()
		return nil
	case len(roll.Nodes) == 0:
		return nil
	}
	if err := c.foresee(ctx, &roll); err != nil {
		return err
	}
	change.Estimate, change.atRisk = roll.Estimate, roll.AtRisk
	return nil
}

// conclude adds what follows from all parts.
func (p *clusterPlan) conclude(parallel int) {
	if p.Stacks == nil {
		p.Stacks = []workflows.StackChanges{}
	}
	if p.Pools == nil {
		p.Pools = []poolChange{}
	}
	p.Changes = len(p.Objects) > 0
	for _, stack := range p.Stacks {
		p.Changes = p.Changes || stack.Created || len(stack.Changes) > 0
	}
	seen := map[string]bool{}
	for _, pool := range p.Pools {
		p.Changes = p.Changes || pool.What != "unchanged"
		for _, finding := range pool.atRisk {
			if key := strings.Join([]string{finding.Kind, finding.Namespace, finding.Name}, "/"); !seen[key] {
				seen[key] = true
				p.AtRisk = append(p.AtRisk, finding)
			}
		}
	}
	p.AtRisk = bySeverity(p.AtRisk)
	p.Estimate = together(p.Pools, parallel)
}

// together is how long the pools take: those of the control plane one after another, then the others, so
// many at a time.
func together(pools []poolChange, parallel int) estimate {
	lanes := make([]time.Duration, max(1, parallel))
	var masters time.Duration
	known, rolling := 0, 0
	for _, pool := range pools {
		if pool.What != "rolls" && pool.What != "removed" || len(pool.Goes) == 0 {
			continue
		}
		rolling++
		if pool.Estimate.Expected == 0 {
			continue
		}
		known++
		if pool.ControlPlane {
			masters += pool.Estimate.Expected
			continue
		}
		next := 0
		for i := range lanes {
			if lanes[i] < lanes[next] {
				next = i
			}
		}
		lanes[next] += pool.Estimate.Expected
	}
	switch {
	case rolling == 0:
		return estimate{Basis: "no pool is rolled"}
	case known == 0:
		return estimate{Basis: "no node of these pools has been replaced yet"}
	}
	e := estimate{Expected: masters + slices.Max(lanes), Basis: fmt.Sprintf("%s, %d at a time, control plane first; stacks, manifests and waits not counted", counted(known, "pool"), max(1, parallel))}
	if known < rolling {
		e.Basis += fmt.Sprintf("; of %d more nothing is known", rolling-known)
	}
	return e
}

func stackText(changes workflows.StackChanges) string {
	switch {
	case changes.Created:
		return fmt.Sprintf("new, with %s", counted(len(changes.Changes), "resource"))
	case len(changes.Changes) == 0:
		return "no change"
	}
	return counted(len(changes.Changes), "change")
}

// objectsText counts changes by what they do.
func objectsText(changes []workflows.ObjectChange, unchanged int) string {
	var parts []string
	for _, action := range []struct{ action, past string }{{"create", "created"}, {"change", "changed"}, {"delete", "deleted"}, {"conflict", "in conflict"}} {
		count := 0
		for _, change := range changes {
			if change.Action == action.action {
				count++
			}
		}
		if count > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", count, action.past))
		}
	}
	return strings.Join(append(parts, fmt.Sprintf("%d as they are", unchanged)), ", ")
}

func (p poolChange) text() string {
	switch {
	case p.Problem != "":
		return p.Problem
	case p.What == "unchanged", p.What == "added":
		return p.What
	case p.What == "removed":
		return fmt.Sprintf("removed, with %s", counted(p.Nodes, "node"))
	}
	return fmt.Sprintf("%d of %s replaced", len(p.Goes), counted(p.Nodes, "node"))
}

func (p clusterPlan) show(t *table, diff bool) {
	from := "which has no version that is known"
	if p.From != "" {
		from = "which has " + shortVersion(p.From)
	}
	t.line("Plan of version %s for cluster %s, %s; nothing has been changed.", shortVersion(p.Version), p.Cluster, from)
	if !p.Changes {
		t.line("Nothing would change.")
	}
	p.showStacks(t)
	p.showObjects(t, diff)
	p.showPools(t)
	if p.New {
		t.line("\nThe cluster does not exist yet; its manifests and pools follow when its API server answers.")
	}
}

func (p clusterPlan) showStacks(t *table) {
	t.line("")
	t.row("STACK", "ACTION", "RESOURCE", "TYPE", "REPLACED", "WHAT")
	for _, stack := range p.Stacks {
		if len(stack.Changes) == 0 {
			t.row(stack.Stack, stackText(stack), "", "", "", "")
		}
		for _, change := range stack.Changes {
			t.row(stack.Stack, change.Action, change.Resource, change.Type, change.Replacement, cut(change.Detail, 80))
		}
	}
	t.flush()
}

func (p clusterPlan) showObjects(t *table, diff bool) {
	if p.New {
		return
	}
	t.line("\nManifests: %s; deletions.yaml has %s.", objectsText(p.Objects, p.Unchanged), entries(p.Deletions))
	if len(p.Objects) == 0 {
		return
	}
	t.row("ACTION", "KIND", "NAME", "FILE")
	for _, change := range p.Objects {
		t.row(change.Action, change.Kind, change.Name, change.File)
		if !diff && change.Action != "conflict" {
			continue
		}
		for _, line := range strings.Split(strings.TrimRight(change.Diff, "\n"), "\n") {
			if line != "" {
				t.line("    %s", strings.ReplaceAll(line, "\t", "    "))
			}
		}
	}
	t.flush()
	if !diff && slices.ContainsFunc(p.Objects, func(o workflows.ObjectChange) bool { return o.Diff != "" }) {
		t.line("--diff shows how they would change.")
	}
}

func entries(count int) string {
	if count == 1 {
		return "1 entry"
	}
	return fmt.Sprintf("%d entries", count)
}

func (p clusterPlan) showPools(t *table) {
	if len(p.Pools) == 0 {
		return
	}
	t.line("")
	t.row("POOL", "WHAT", "NODES", "OLD", "GOING", "BATCHES", "DURATION", "WHY")
	for _, pool := range p.Pools {
		duration := ""
		if len(pool.Goes) > 0 {
			duration = "unknown"
			if pool.Estimate.Expected > 0 {
				duration = short(pool.Estimate.Expected)
			}
		}
		t.row(pool.Pool, pool.What, pool.Nodes, pool.Old, len(pool.Goes), pool.Batches, duration, pool.Why)
	}
	t.flush()
	for _, pool := range p.Pools {
		if pool.Problem != "" {
			t.line("Pool %s could not be rolled now: %s", pool.Pool, pool.Problem)
		}
	}
	t.line("\nExpected duration: %s", p.Estimate)
	if len(p.AtRisk) == 0 {
		t.line("Pods at risk: none were found")
		return
	}
	t.line("Pods at risk:")
	for _, finding := range p.AtRisk[:min(len(p.AtRisk), listedAtRisk)] {
		t.line("  %s %s (%s): %s", finding.Kind, qualified(finding), cmp.Or(finding.Owner, "no owner"), finding.Problem)
	}
	if more := len(p.AtRisk) - listedAtRisk; more > 0 {
		t.line("  %d more; `fairway pool preflight %s POOL` lists all, and what to do about them", more, p.Cluster)
	}
}
