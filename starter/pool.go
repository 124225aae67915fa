package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/fairway-project/fairway/workflows"
)

func (c *cli) poolCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "pool", Short: "Roll node pools"}
	cmd.AddCommand(c.poolRollCommand())
	return cmd
}

func (c *cli) poolRollCommand() *cobra.Command {
	var wait, dryRun, all bool
	var reason string
	cmd := &cobra.Command{
		Use:   "roll CLUSTER POOL",
		Short: "Replace the old nodes of a pool, one after another",
		Long: `Replace the old nodes of a pool, one after another, each as "fairway node replace" does it.

A node is old if its instance was launched from another version of the launch template than the
pool's Auto Scaling group uses now; --all takes every node. Which nodes that are is decided at
the beginning. If the roll is cancelled or fails, the nodes not yet replaced are usable and the
pool has its size.`,
		Example: `  fairway pool roll dev-1 worker --dry-run
  fairway pool roll dev-1 worker --wait --reason "new image"
  fairway pool roll dev-1 worker --all`,
		Args:              cobra.ExactArgs(2),
		ValidArgsFunction: c.completeCluster,
		RunE: func(cmd *cobra.Command, args []string) error {
			conn, cluster, err := c.connectTo(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			defer conn.Close()
			plan, err := conn.planRoll(cmd.Context(), cluster, args[1], all)
			if err != nil {
				return err
			}
			if dryRun || len(plan.Nodes) == 0 {
				return c.print(cmd.OutOrStdout(), plan, plan.show)
			}
			run, err := conn.startRoll(cmd.Context(), workflows.RollPoolInput{
				Cluster: cluster, Pool: args[1], Nodes: plan.names(), Reason: reason, By: whoami(),
			})
			if err != nil {
				return err
			}
			if wait {
				return c.follow(cmd, conn, run)
			}
			return c.print(cmd.OutOrStdout(), map[string]string{"workflow": run.GetID(), "run": run.GetRunID()}, func(t *table) {
				t.line("The roll of %d nodes is under way as workflow %s.", len(plan.Nodes), run.GetID())
				t.line("`fairway status` shows how far it is.")
			})
		},
	}
	cmd.Flags().BoolVar(&wait, "wait", false, "show progress until all nodes are replaced")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "say what would be done, and change nothing")
	cmd.Flags().BoolVar(&all, "all", false, "replace every node, old or not")
	cmd.Flags().StringVar(&reason, "reason", "", "why, for those who look later")
	return cmd
}

// rollPlan is what a roll would do.
type rollPlan struct {
	Cluster string           `json:"cluster"`
	Name    string           `json:"name"`
	Pool    workflows.Pool   `json:"pool"`
	Nodes   []workflows.Node `json:"nodes"` // in the order of their replacement
}

func (p rollPlan) names() []string {
	names := make([]string, len(p.Nodes))
	for i, node := range p.Nodes {
		names[i] = node.Name
	}
	return names
}

func (p rollPlan) show(t *table) {
	if len(p.Nodes) == 0 {
		t.line("No node of pool %s in cluster %s is old; nothing has to be replaced.", p.Name, p.Cluster)
		return
	}
	t.line("%d of %d nodes of pool %s in cluster %s would be replaced, in this order; nothing has been changed.", len(p.Nodes), len(p.Pool.Instances), p.Name, p.Cluster)
	t.row("NAME", "INSTANCE", "ZONE", "STATE", "PODS", "AGE")
	for _, node := range p.Nodes {
		t.row(node.Name, node.Instance, node.Zone, nodeState(node), node.Pods, age(node.Created))
	}
}

// planRoll finds the nodes to replace, and whether the pool has room for it.
func (c *connection) planRoll(ctx context.Context, cluster, pool string, all bool) (rollPlan, error) {
	plan := rollPlan{Cluster: cluster, Name: pool, Nodes: []workflows.Node{}}
	if err := c.ask(ctx, "ExaminePool", workflows.ExaminePool{Cluster: cluster, Pool: pool}, &plan.Pool); err != nil {
		return plan, err
	}
	var nodes []workflows.Node
	if err := c.ask(ctx, "ListNodes", workflows.ListNodes{Cluster: cluster}, &nodes); err != nil {
		return plan, err
	}
	byInstance := map[string]workflows.Node{}
	for _, node := range nodes {
		byInstance[node.Instance] = node
	}
	for _, instance := range plan.Pool.Instances {
		if (!instance.Old && !all) || strings.HasPrefix(instance.Lifecycle, "Terminat") {
			continue
		}
		node, registered := byInstance[instance.ID]
		if !registered {
			return plan, usage(fmt.Errorf("cluster %s: instance %s of pool %s is %s and not a node; wait until it is one, or terminate it", cluster, instance.ID, pool, instance.Lifecycle))
		}
		plan.Nodes = append(plan.Nodes, node)
	}
	if len(plan.Nodes) == 0 {
		return plan, nil
	}
	return plan, c.checkRoom(ctx, cluster, pool, plan.Pool)
}
