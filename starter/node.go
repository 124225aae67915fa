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
	cmd := &cobra.Command{Use: "node", Short: "Look at and replace nodes, and order what happens to pods that hold them up"}
	cmd.AddCommand(c.nodeListCommand(), c.nodeReplaceCommand(), c.nodeForceCommand())
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
	if node.Quarantined != "" {
		state += ",Quarantined"
	}
	return state
}

func (c *cli) nodeReplaceCommand() *cobra.Command {
	var flags rollFlags
	cmd := &cobra.Command{
		Use:   "replace CLUSTER NODE",
		Short: "Replace a node by a new one, without hurting what runs on it",
		Long: `Replace a node by a new one, without hurting what runs on it.

The node's Auto Scaling group is made one larger. When the new node is Ready and runs its
DaemonSets, the old one is cordoned, its pods are evicted as their budgets allow, and its
instance is terminated, which brings the group back to its size. Where the pool is rolled without
surge, the old node is ended first. If that is cancelled or fails, the node is made usable again
and the group gets its size back.

It is a roll of the node's pool with one node: see "fairway pool roll". The work goes on in the
worker when this command ends; --wait only watches it.`,
		Example: `  fairway node replace dev-1 ip-10-0-1-23.eu-central-1.compute.internal --wait
  fairway node replace dev-1 ip-10-0-1-23.eu-central-1.compute.internal --dry-run
  fairway node replace dev-1 ip-10-0-1-23.eu-central-1.compute.internal --reason "disk errors"`,
		Args:              cobra.ExactArgs(2),
		ValidArgsFunction: c.completeNode,
		RunE: func(cmd *cobra.Command, args []string) error {
			conn, cluster, err := c.connectTo(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			defer conn.Close()
			var node workflows.Node
			if err := conn.ask(cmd.Context(), "ExamineNode", workflows.ExamineNode{Cluster: cluster, Node: args[1]}, &node); err != nil {
				return err
			}
			return c.roll(cmd, conn, workflows.RollPoolInput{Cluster: cluster, Pool: node.Pool, Nodes: []string{node.Name}, Reason: flags.reason}, flags)
		},
	}
	flags.on(cmd, "the node is replaced")
	return cmd
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
