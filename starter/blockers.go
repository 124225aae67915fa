package main

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.temporal.io/api/workflow/v1"
	"go.temporal.io/sdk/converter"

	"github.com/fairway-project/fairway/workflows"
)

// blocker is a pod that keeps a node from being emptied.
type blocker struct {
	Cluster string `json:"cluster"`
	Node    string `json:"node"`
	workflows.HeldPod
}

func (c *cli) blockersCommand() *cobra.Command {
	var cluster string
	cmd := &cobra.Command{
		Use:   "blockers",
		Short: "List the pods that keep nodes from being emptied, over the whole fleet",
		Long: `List the pods that keep nodes from being emptied, over the whole fleet: which budget or
wish holds which pod on which node, who owns it, and when it may be forced. The answer comes from
the drains that are under way, as of their last heartbeat; a drain names at most 20 pods.`,
		Example: "  fairway blockers\n  fairway blockers --cluster dev-1 -o json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			conn, err := c.connect(cmd.Context())
			if err != nil {
				return err
			}
			defer conn.Close()
			found, err := conn.blockers(cmd.Context(), cluster)
			if err != nil {
				return err
			}
			return c.print(cmd.OutOrStdout(), found, func(t *table) {
				if len(found) == 0 {
					t.line("Nothing keeps a node from being emptied.")
					return
				}
				t.row("CLUSTER", "NODE", "POD", "BUDGET", "OWNER", "FORCE FROM", "REASON")
				for _, each := range found {
					force := "never"
					if !each.ForceAt.IsZero() {
						force = each.ForceAt.Local().Format(time.DateTime)
					}
					t.row(each.Cluster, each.Node, each.Pod, each.Budget, each.Owner, force, each.Reason)
				}
			})
		},
	}
	cmd.Flags().StringVar(&cluster, "cluster", "", "only this cluster, by its id")
	return cmd
}

// blockers asks no cluster: what a drain waits for is in the last heartbeat of its activity.
func (c *connection) blockers(ctx context.Context, cluster string) ([]blocker, error) {
	found := []blocker{}
	var draining []string
	if err := c.running(ctx, "WorkflowType = 'ReplaceNode'", func(each *workflow.WorkflowExecutionInfo) {
		draining = append(draining, each.Execution.WorkflowId)
	}); err != nil {
		return nil, err
	}
	decode := converter.GetDefaultDataConverter()
	for _, id := range draining {
		of, node, _ := strings.Cut(strings.TrimPrefix(id, workflows.ClusterID("")), "/node/")
		if cluster != "" && of != cluster {
			continue
		}
		description, err := c.DescribeWorkflowExecution(ctx, id, "")
		if err != nil {
			continue // it has ended meanwhile
		}
		for _, pending := range description.PendingActivities {
			var progress workflows.DrainProgress
			if pending.ActivityType.Name != "DrainNode" || decode.FromPayloads(pending.HeartbeatDetails, &progress) != nil {
				continue
			}
			for _, held := range progress.Waiting {
				found = append(found, blocker{of, node, held})
			}
		}
	}
	return found, nil
}
