package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	enumspb "go.temporal.io/api/enums/v1"

	"github.com/fairway-project/fairway/workflows"
)

func (c *cli) nodeForceCommand() *cobra.Command {
	var forbid, byRule bool
	var request workflows.ForceRequest
	cmd := &cobra.Command{
		Use:   "force CLUSTER NODE",
		Short: "Order that held pods of a node are forced now, or never, or by the rule again",
		Long: `Order that held pods of a node are forced now, or never, or by the rule again.

Without --forbid or --by-rule, the pods that budgets or wishes keep on the node are deleted without
waiting for drain.force_after or for their siblings. Still one pod goes at a time, with its grace
period and with drain.force_interval between two of the node and between two of a budget; blocks
hold too. --forbid lets no pod be forced, not even at the node's deadline. --by-rule takes back
what was ordered before.

The newest order about a pod counts. It is recorded, with who gave it and why, on each pod that is
forced. An order about a node that is not being drained takes effect when it is; it is
forgotten with the node.

In the Temporal UI, the signal "force" to workflow cluster/<id> with {"node": "...", "pod":
"namespace/name", "mode": "now", "reason": "...", "by": "..."} does the same; mode is now, forbid
or rule, and without pod it means all pods of the node.`,
		Example: `  fairway node force dev-1 ip-10-0-1-23.eu-central-1.compute.internal --reason "incident 4711: the node burns"
  fairway node force dev-1 ip-10-0-1-23.eu-central-1.compute.internal --pod shop/cart-0 --reason "its owner agreed"
  fairway node force dev-1 ip-10-0-1-23.eu-central-1.compute.internal --pod shop/db-1 --forbid --reason "it migrates data"
  fairway node force dev-1 ip-10-0-1-23.eu-central-1.compute.internal --by-rule --reason "the migration is over"`,
		Args:              cobra.ExactArgs(2),
		ValidArgsFunction: c.completeNode,
		RunE: func(cmd *cobra.Command, args []string) error {
			request.Mode = workflows.ForceNow
			switch {
			case forbid && byRule:
				return usage(errors.New("--forbid and --by-rule exclude each other"))
			case forbid:
				request.Mode = workflows.ForceForbid
			case byRule:
				request.Mode = workflows.ForceByRule
			}
			conn, cluster, err := c.connectTo(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			defer conn.Close()
			var node workflows.Node
			if err := conn.ask(cmd.Context(), "ExamineNode", workflows.ExamineNode{Cluster: cluster, Node: args[1]}, &node); err != nil {
				return err
			}
			request.Node, request.By = node.Name, whoami()
			var order workflows.ForceOrder
			if err := conn.tellCluster(cmd.Context(), cluster, workflows.ForceName, request, &order); err != nil {
				return err
			}
			replacing, err := conn.DescribeWorkflow(cmd.Context(), workflows.ReplaceNodeID(cluster, node.Name), "")
			draining := err == nil && replacing.Status == enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING
			if !draining {
				fmt.Fprintf(cmd.ErrOrStderr(), "Warning: node %s of cluster %s is not being drained; the order takes effect when it is.\n", node.Name, cluster)
			}
			return c.print(cmd.OutOrStdout(), givenOrder{order, draining}, func(t *table) {
				for _, line := range describeOrder(order) {
					t.line("%s", line)
				}
			})
		},
	}
	cmd.Flags().StringVar(&request.Reason, "reason", "", "why; it is recorded with each forced pod (required)")
	cmd.Flags().StringVar(&request.Pod, "pod", "", "only this pod, as namespace/name (default: all pods of the node)")
	cmd.Flags().BoolVar(&forbid, "forbid", false, "force no pod, not even when its time has come")
	cmd.Flags().BoolVar(&byRule, "by-rule", false, "force as configured again")
	_ = cmd.RegisterFlagCompletionFunc("pod", c.completeHeldPod)
	return cmd
}

// completeHeldPod offers the pods that hold up the drain of the node that is the second argument.
func (c *cli) completeHeldPod(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) < 2 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	conn, cluster, err := c.connectTo(cmd.Context(), args[0])
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	defer conn.Close()
	var out []string
	held, _ := conn.heldBy(cmd.Context(), workflows.ReplaceNodeID(cluster, args[1]))
	for _, each := range held {
		out = append(out, each.Pod)
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}

// givenOrder is an order and whether it takes effect at once.
type givenOrder struct {
	workflows.ForceOrder
	Draining bool `json:"draining"` // the node is being drained
}

// describeOrder says what an order leads to, and what still holds.
func describeOrder(order workflows.ForceOrder) []string {
	what := "Held pods of node " + order.Node
	if order.Pod != "" {
		what = "Pod " + order.Pod + " of node " + order.Node
	}
	switch order.Mode {
	case workflows.ForceForbid:
		return []string{
			fmt.Sprintf("%s will not be forced, not even at the node's deadline [%s].", what, order.ID),
			"The node stays as it is until they leave by themselves; --by-rule takes this back.",
		}
	case workflows.ForceByRule:
		return []string{fmt.Sprintf("%s will be forced as configured again: after drain.force_after, when their siblings have been ready for long enough [%s].", what, order.ID)}
	}
	return []string{
		fmt.Sprintf("%s will be forced now, whatever holds them, without waiting for drain.force_after or for siblings [%s].", what, order.ID),
		"Still one pod goes at a time, with its grace period and with drain.force_interval between two; blocks hold too.",
		"`fairway blockers` shows what is left.",
	}
}
