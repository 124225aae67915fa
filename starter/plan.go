package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"golang.org/x/sync/errgroup"

	"github.com/fairway-project/fairway/roll"
	"github.com/fairway-project/fairway/workflows"
)

// rollPlan is what a roll would do, and what is to be expected of it.
type rollPlan struct {
	workflows.RollPlan
	Remove   bool          `json:"remove,omitempty"` // the nodes go and none comes
	Settings roll.Settings `json:"settings"`
	Estimate estimate      `json:"estimate"`
	// AtRisk is what would hold up the drains of the nodes, or be hurt by them.
	AtRisk []workflows.Finding `json:"at_risk"`
}

// planRoll decides by what the workflow will look at, and with its rules.
func (c *connection) planRoll(ctx context.Context, in workflows.RollPoolInput) (rollPlan, error) {
	plan := rollPlan{Remove: in.Remove, AtRisk: []workflows.Finding{}}
	var info workflows.PoolInfo
	var pool workflows.Pool
	var nodes []workflows.Node
	errs := make([]error, 3)
	var group errgroup.Group
	for i, each := range []struct {
		activity string
		in, out  any
	}{
		{"FindPool", workflows.FindPool{Cluster: in.Cluster, Pool: in.Pool}, &info},
		{"ExaminePool", workflows.ExaminePool{Cluster: in.Cluster, Pool: in.Pool}, &pool},
		{"SurveyPool", workflows.SurveyPool{Cluster: in.Cluster, Pool: in.Pool}, &nodes},
	} {
		group.Go(func() error {
			errs[i] = c.ask(ctx, each.activity, each.in, each.out)
			return nil
		})
	}
	_ = group.Wait()
	if err := cmp.Or(errs...); err != nil { // a cluster that is unknown is the reason for all else
		return plan, err
	}
	for _, name := range in.Nodes {
		if slices.ContainsFunc(nodes, func(n workflows.Node) bool { return n.Name == name }) {
			continue
		}
		// Why it is none of the pool's is more than the survey knows.
		if err := c.ask(ctx, "ExamineNode", workflows.ExamineNode{Cluster: info.Cluster.ID, Node: name}, new(workflows.Node)); err != nil {
			return plan, err
		}
	}
	decided, err := workflows.PlanRoll(in, info, pool, nodes, time.Now())
	plan.RollPlan, plan.Settings = decided, info.Settings
	if err == nil && len(plan.Nodes) == 0 {
		return plan, nil
	}
	// A roll under way takes the room itself; then that is the reason.
	return plan, cmp.Or(c.checkIdle(ctx, info.Cluster.ID, in.Pool), c.explain(err))
}

// checkIdle says whether the pool is being rolled already.
func (c *connection) checkIdle(ctx context.Context, cluster, pool string) error {
	running, err := c.DescribeWorkflow(ctx, workflows.RollPoolID(cluster, pool), "")
	if err == nil && running.Status == enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING {
		return beingRolled(cluster, pool)
	}
	return nil
}

// foresee adds how long the roll may take, and what would hold it up.
func (c *connection) foresee(ctx context.Context, plan *rollPlan) error {
	validates := plan.validates()
	var group errgroup.Group
	group.Go(func() error {
		past, err := c.pastPace(ctx, plan.Cluster, plan.Name)
		plan.Estimate = past.estimate(len(plan.Batches), validates)
		return err
	})
	group.Go(func() error {
		var findings []workflows.Finding
		err := c.ask(ctx, "Preflight", workflows.Preflight{Cluster: plan.Cluster, Pool: plan.Name, Zones: plan.Pool.Zones}, &findings)
		plan.AtRisk = concerning(findings, plan.Nodes)
		return err
	})
	return group.Wait()
}

// concerning picks the findings about some nodes; one that names no node concerns all.
func concerning(findings []workflows.Finding, nodes []workflows.Node) []workflows.Finding {
	out := []workflows.Finding{}
	for _, finding := range findings {
		if len(finding.Nodes) == 0 || slices.ContainsFunc(nodes, func(n workflows.Node) bool { return slices.Contains(finding.Nodes, n.Name) }) {
			out = append(out, finding)
		}
	}
	return out
}

// validates is for how long the roll watches its first replacement before it goes on.
func (p rollPlan) validates() time.Duration {
	if p.Remove || p.InPlace || len(p.Batches) < 2 {
		return 0
	}
	return p.Settings.Validate
}

// listedAtRisk is how many findings a dry run shows.
const listedAtRisk = 5

func (p rollPlan) show(t *table) {
	if len(p.NoNodes) > 0 {
		t.line("To be replaced too, and no nodes: instances %s. A roll waits a while until they are, and else ends them last.", strings.Join(p.NoNodes, ", "))
	}
	if len(p.Nodes) == 0 {
		if p.Remove {
			t.line("Pool %s of cluster %s has no nodes; nothing has to be done.", p.Name, p.Cluster)
			return
		}
		t.line("No node of pool %s in cluster %s is old; nothing has to be replaced.", p.Name, p.Cluster)
		return
	}
	verb := "replaced"
	if p.Remove {
		verb = "removed"
	}
	t.line("%d of %d nodes of pool %s in cluster %s would be %s, in this order; nothing has been changed.\n",
		len(p.Nodes), len(p.Pool.Instances), p.Name, p.Cluster, verb)
	t.row("BATCH", "NAME", "INSTANCE", "ZONE", "STATE", "PODS", "HELD NOW", "NEVER FREE", "AGE")
	for _, each := range p.inBatches() {
		node := each.node
		t.row(each.batch, node.Name, node.Instance, node.Zone, nodeState(node), node.Pods, node.Held, node.Never, age(node.Created))
	}
	t.flush()
	t.line("")
	for _, line := range p.how() {
		t.line("%s", line)
	}
	t.line("Expected duration: %s", p.Estimate)
	if len(p.AtRisk) == 0 {
		t.line("Pods at risk: none were found")
		return
	}
	t.line("Pods at risk:")
	for _, finding := range bySeverity(p.AtRisk)[:min(len(p.AtRisk), listedAtRisk)] {
		t.line("  %s %s (%s): %s", finding.Kind, qualified(finding), cmp.Or(finding.Owner, "no owner"), finding.Problem)
	}
	more := ""
	if others := len(p.AtRisk) - listedAtRisk; others > 0 {
		more = fmt.Sprintf("%d more; ", others)
	}
	t.line("  %s`fairway pool preflight %s %s` lists all, and what to do about them", more, p.Cluster, p.Name)
}

type plannedNode struct {
	batch string
	node  workflows.Node
}

// inBatches lists the nodes in the order in which they go.
func (p rollPlan) inBatches() []plannedNode {
	byName := map[string]workflows.Node{}
	for _, node := range p.Nodes {
		byName[node.Name] = node
	}
	var out []plannedNode
	for i, batch := range p.Batches {
		for _, name := range batch {
			out = append(out, plannedNode{strconv.Itoa(i + 1), byName[name]})
		}
	}
	return out
}

// how says in words how the batches are carried out, and which settings decide it.
func (p rollPlan) how() []string {
	s, largest := p.Settings, 0
	sizes := make([]string, len(p.Batches))
	for i, batch := range p.Batches {
		sizes[i], largest = strconv.Itoa(len(batch)), max(largest, len(batch))
	}
	out := []string{fmt.Sprintf("Batches: %d, of %s nodes (parallel: %d)", len(p.Batches), strings.Join(sizes, ", "), s.Parallel)}
	if p.Remove {
		return append(out, fmt.Sprintf("Removal: nodes are emptied and ended; none comes back, and the minimum of group %s, which is %d, becomes 0", p.Pool.Group, p.Pool.Min))
	}
	switch {
	case p.InPlace && s.Surge == (roll.Share{}):
		out = append(out, fmt.Sprintf("In place: a node is emptied and ended before group %s launches its replacement (surge: 0, unavailable: %s)", p.Pool.Group, s.Unavailable))
	case p.InPlace:
		out = append(out, fmt.Sprintf("In place: a node is emptied and ended before its replacement is launched, because group %s is at its maximum of %d (fallback in-place)", p.Pool.Group, p.Pool.Max))
	default:
		out = append(out, fmt.Sprintf("Surge: group %s grows from %d to at most %d nodes for the time of a batch (surge: %s, maximum of the group: %d)", p.Pool.Group, p.Pool.Desired, p.Pool.Desired+largest, s.Surge, p.Pool.Max))
	}
	if validate := p.validates(); validate > 0 {
		out = append(out, fmt.Sprintf("Validation: the first replacement has to stay usable for %s before others follow", short(validate)))
	}
	if s.QuarantineAfter > 0 && s.QuarantineLimit > 0 && len(p.Nodes) > 1 {
		out = append(out, fmt.Sprintf("Quarantine: a node that is not empty after %s is left for later, at most %d at a time", short(s.QuarantineAfter), s.QuarantineLimit))
	}
	if len(s.Fallbacks) > 0 {
		kinds := make([]string, len(s.Fallbacks))
		for i, kind := range s.Fallbacks {
			kinds[i] = string(kind)
		}
		out = append(out, fmt.Sprintf("If AWS lacks capacity for %s: %s", short(s.ShortageAfter), strings.Join(kinds, ", then ")))
	}
	return out
}
