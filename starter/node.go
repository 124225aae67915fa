package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"

	"github.com/spf13/cobra"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"

	"github.com/fairway-project/fairway/workflows"
)

func (c *cli) nodeCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "node", Short: "Look at and replace nodes"}
	cmd.AddCommand(c.nodeListCommand(), c.nodeReplaceCommand())
	return cmd
}

func (c *cli) nodeListCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "list CLUSTER",
		Short:             "List the nodes of a cluster",
		Example:           "  fairway node list dev-1\n  fairway node list dev-1 -o json",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: c.completeCluster,
		RunE: func(cmd *cobra.Command, args []string) error {
			temporal, err := c.connect(cmd.Context())
			if err != nil {
				return err
			}
			defer temporal.Close()
			nodes := []workflows.Node{}
			if err := temporal.ask(cmd.Context(), "ListNodes", workflows.ListNodes{Cluster: args[0]}, &nodes); err != nil {
				return err
			}
			return c.print(cmd.OutOrStdout(), nodes, func(t *table) {
				t.row("NAME", "POOL", "INSTANCE", "TYPE", "ZONE", "STATE", "PODS", "AGE", "VERSION")
				for _, node := range nodes {
					t.row(node.Name, node.Pool, node.Instance, node.Type, node.Zone, nodeState(node), node.Pods, age(node.Created), node.Version)
				}
			})
		},
	}
}

func nodeState(node workflows.Node) string {
	state := "Ready"
	if !node.Ready {
		state = "NotReady"
	}
	if node.Cordoned {
		state += ",Cordoned"
	}
	return state
}

func (c *cli) nodeReplaceCommand() *cobra.Command {
	var wait, dryRun bool
	var reason string
	cmd := &cobra.Command{
		Use:   "replace CLUSTER NODE",
		Short: "Replace a node by a new one, without hurting what runs on it",
		Long: `Replace a node by a new one, without hurting what runs on it.

The node's Auto Scaling group is made one larger. When the new node is Ready and runs its
DaemonSets, the old one is cordoned, its pods are evicted as their budgets allow, and its
instance is terminated, which brings the group back to its size. If that is cancelled or fails,
the node is made usable again and the group gets its size back.

The work goes on in the worker when this command ends; --wait only watches it.`,
		Example: `  fairway node replace dev-1 ip-10-0-1-23.eu-central-1.compute.internal --wait
  fairway node replace dev-1 ip-10-0-1-23.eu-central-1.compute.internal --dry-run
  fairway node replace dev-1 ip-10-0-1-23.eu-central-1.compute.internal --reason "disk errors"`,
		Args:              cobra.ExactArgs(2),
		ValidArgsFunction: c.completeNode,
		RunE: func(cmd *cobra.Command, args []string) error {
			temporal, err := c.connect(cmd.Context())
			if err != nil {
				return err
			}
			defer temporal.Close()
			plan, err := temporal.planReplacement(cmd.Context(), args[0], args[1])
			if err != nil {
				return err
			}
			if dryRun {
				return c.print(cmd.OutOrStdout(), plan, func(t *table) {
					t.line("Node %s of cluster %s would be replaced; nothing has been changed.", plan.Node.Name, plan.Cluster)
					t.line("1. group %s grows from %d to %d (its maximum is %d)", plan.Pool.Group, plan.Pool.Desired, plan.Pool.Desired+1, plan.Pool.Max)
					t.line("2. when the new node is usable, %s is cordoned and its pods are evicted", plan.Node.Name)
					t.line("3. instance %s is terminated and the group is back at %d", plan.Node.Instance, plan.Pool.Desired)
				})
			}
			run, err := temporal.startRoll(cmd.Context(), workflows.RollPoolInput{
				Cluster: plan.Cluster, Pool: plan.Node.Pool, Nodes: []string{plan.Node.Name}, Reason: reason, By: whoami(),
			})
			if err != nil {
				return err
			}
			if wait {
				return c.follow(cmd, temporal, run)
			}
			return c.print(cmd.OutOrStdout(), map[string]string{"workflow": run.GetID(), "run": run.GetRunID()}, func(t *table) {
				t.line("The replacement of %s is under way as workflow %s.", plan.Node.Name, run.GetID())
				t.line("`fairway status` shows how far it is.")
			})
		},
	}
	cmd.Flags().BoolVar(&wait, "wait", false, "show progress until the node is replaced")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "say what would be done, and change nothing")
	cmd.Flags().StringVar(&reason, "reason", "", "why, for those who look later")
	return cmd
}

// replacementPlan is what a replacement would do.
type replacementPlan struct {
	Cluster string         `json:"cluster"`
	Node    workflows.Node `json:"node"`
	Pool    workflows.Pool `json:"pool"`
}

// planReplacement checks everything that the workflow will check, so that what is wrong is said
// here and now.
func (c *connection) planReplacement(ctx context.Context, cluster, node string) (plan replacementPlan, err error) {
	var clusters []workflows.ClusterInfo
	if err := c.ask(ctx, "ListClusters", workflows.ListClusters{Names: []string{cluster}}, &clusters); err != nil {
		return plan, err
	}
	plan.Cluster = clusters[0].ID
	if err := c.ask(ctx, "ExamineNode", workflows.ExamineNode{Cluster: plan.Cluster, Node: node}, &plan.Node); err != nil {
		return plan, err
	}
	if err := c.ask(ctx, "ExaminePool", workflows.ExaminePool{Cluster: plan.Cluster, Pool: plan.Node.Pool}, &plan.Pool); err != nil {
		return plan, err
	}
	if err := workflows.CheckMember(plan.Cluster, plan.Node, plan.Pool); err != nil {
		return plan, c.explain(err)
	}
	return plan, c.checkRoom(ctx, plan.Cluster, plan.Node.Pool, plan.Pool)
}

// checkRoom says whether a pool can be made larger. A roll under way takes the room itself; then
// that is the reason.
func (c *connection) checkRoom(ctx context.Context, cluster, pool string, p workflows.Pool) error {
	running, err := c.DescribeWorkflow(ctx, workflows.RollPoolID(cluster, pool), "")
	if err == nil && running.Status == enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING {
		return beingRolled(cluster, pool)
	}
	return c.explain(workflows.CheckSurgeRoom(cluster, pool, p))
}

func beingRolled(cluster, pool string) error {
	return usage(fmt.Errorf("pool %s of cluster %s is being rolled already by workflow %s; wait for its end or cancel it", pool, cluster, workflows.RollPoolID(cluster, pool)))
}

func (c *connection) startRoll(ctx context.Context, in workflows.RollPoolInput) (client.WorkflowRun, error) {
	id := workflows.RollPoolID(in.Cluster, in.Pool)
	run, err := c.ExecuteWorkflow(ctx, client.StartWorkflowOptions{
		ID:                                       id,
		TaskQueue:                                c.taskQueue,
		WorkflowIDConflictPolicy:                 enumspb.WORKFLOW_ID_CONFLICT_POLICY_FAIL,
		WorkflowExecutionErrorWhenAlreadyStarted: true,
		StaticSummary:                            fmt.Sprintf("roll pool %s of %s", in.Pool, in.Cluster),
		TypedSearchAttributes: temporal.NewSearchAttributes(
			workflows.ClusterAttribute.ValueSet(in.Cluster), workflows.PoolAttribute.ValueSet(in.Pool)),
	}, workflows.RollPool, in)
	var running *serviceerror.WorkflowExecutionAlreadyStarted
	if errors.As(err, &running) {
		return nil, beingRolled(in.Cluster, in.Pool)
	}
	if err != nil {
		return nil, fmt.Errorf("starting workflow %s: %w", id, err)
	}
	return run, nil
}

// whoami names the person at the keyboard, for the record.
func whoami() string {
	if current, err := user.Current(); err == nil {
		return cmp.Or(os.Getenv("SUDO_USER"), current.Username)
	}
	return os.Getenv("USER")
}
