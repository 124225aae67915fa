package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"

	"github.com/fairway-project/fairway/workflows"
)

func (c *cli) clusterBlockCommand() *cobra.Command {
	var request workflows.BlockRequest
	var lasts time.Duration
	cmd := &cobra.Command{
		Use:   "block CLUSTER",
		Short: "Change nothing in a cluster, or in one of its pools, until the block is lifted",
		Long: `Change nothing in a cluster, or in one of its pools, until the block is lifted or expires.

A block holds before the next eviction, termination or change of size, also of work that is
under way; that work stays where it is and goes on afterwards. Several blocks may hold at once.
Time that is blocked does not count towards the time after which pods are forced.

In the Temporal UI, the signal "block" to workflow cluster/<id> with {"reason": "...", "by":
"..."} does the same, and the signal "unblock" with {} lifts all blocks.`,
		Example: `  fairway cluster block dev-1 --reason "incident 4711"
  fairway cluster block dev-1 --pool worker --for 4h --reason "load test"`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: c.completeCluster,
		RunE: func(cmd *cobra.Command, args []string) error {
			conn, cluster, err := c.connectTo(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			defer conn.Close()
			if cmd.Flags().Changed("for") {
				request.For = lasts.String()
			}
			request.By = whoami()
			var block workflows.Block
			if err := conn.tellCluster(cmd.Context(), cluster, workflows.BlockName, request, &block); err != nil {
				return err
			}
			return c.print(cmd.OutOrStdout(), block, func(t *table) { t.line("Cluster %s is %s [%s].", cluster, block, block.ID) })
		},
	}
	cmd.Flags().StringVar(&request.Reason, "reason", "", "why, for everybody who will ask (required)")
	cmd.Flags().StringVar(&request.Pool, "pool", "", "block only this pool")
	_ = cmd.RegisterFlagCompletionFunc("pool", c.completePoolFlag)
	cmd.Flags().DurationVar(&lasts, "for", 0, "time after which the block expires, such as 4h (default: never)")
	return cmd
}

func (c *cli) clusterUnblockCommand() *cobra.Command {
	var request workflows.UnblockRequest
	cmd := &cobra.Command{
		Use:   "unblock CLUSTER [BLOCK]",
		Short: "Lift a block, or all blocks of a cluster or pool",
		Example: `  fairway cluster unblock dev-1
  fairway cluster unblock dev-1 block-3
  fairway cluster unblock dev-1 --pool worker`,
		Args:              cobra.RangeArgs(1, 2),
		ValidArgsFunction: c.completeCluster,
		RunE: func(cmd *cobra.Command, args []string) error {
			conn, cluster, err := c.connectTo(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			defer conn.Close()
			if len(args) == 2 {
				request.ID = args[1]
			}
			request.By = whoami()
			lifted := []workflows.Block{}
			if err := conn.tellCluster(cmd.Context(), cluster, workflows.UnblockName, request, &lifted); err != nil {
				return err
			}
			return c.print(cmd.OutOrStdout(), lifted, func(t *table) {
				if len(lifted) == 0 {
					t.line("Cluster %s had no such block.", cluster)
				}
				for _, block := range lifted {
					t.line("Lifted %s of %s: %s", block.ID, cluster, block.Reason)
				}
			})
		},
	}
	cmd.Flags().StringVar(&request.Pool, "pool", "", "lift only blocks of this pool")
	_ = cmd.RegisterFlagCompletionFunc("pool", c.completePoolFlag)
	return cmd
}

// connectTo connects, and resolves the id or alias of a cluster.
func (c *cli) connectTo(ctx context.Context, name string) (*connection, string, error) {
	conn, err := c.connect(ctx)
	if err != nil {
		return nil, "", err
	}
	var clusters []workflows.ClusterInfo
	if err := conn.ask(ctx, "ListClusters", workflows.ListClusters{Names: []string{name}}, &clusters); err != nil {
		conn.Close()
		return nil, "", err
	}
	return conn, clusters[0].ID, nil
}

// tellCluster has the actor of a cluster carry out an update, and starts the actor if need be.
func (c *connection) tellCluster(ctx context.Context, cluster, update string, in, out any) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	handle, err := c.UpdateWithStartWorkflow(ctx, client.UpdateWithStartWorkflowOptions{
		StartWorkflowOperation: c.NewWithStartWorkflowOperation(client.StartWorkflowOptions{
			ID:                       workflows.ClusterID(cluster),
			TaskQueue:                c.taskQueue,
			WorkflowIDConflictPolicy: enumspb.WORKFLOW_ID_CONFLICT_POLICY_USE_EXISTING,
			StaticSummary:            "cluster " + cluster,
			TypedSearchAttributes:    temporal.NewSearchAttributes(workflows.ClusterAttribute.ValueSet(cluster)),
		}, workflows.Cluster, workflows.ClusterState{Cluster: cluster}),
		UpdateOptions: client.UpdateWorkflowOptions{
			UpdateID: uuid.NewString(), UpdateName: update, Args: []any{in}, WaitForStage: client.WorkflowUpdateStageCompleted,
		},
	})
	if err == nil {
		err = handle.Get(ctx, out)
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return unreachable("no worker answered for cluster %s within 20 s; it is not known whether the %s took effect", cluster, update)
	}
	return c.explain(err)
}

// clusterState asks a cluster's actor what it knows. Without an actor, nobody ordered anything.
func (c *connection) clusterState(ctx context.Context, cluster string) (state workflows.ClusterState, err error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	answer, err := c.QueryWorkflow(ctx, workflows.ClusterID(cluster), "", workflows.StateQuery)
	if unknown := (*serviceerror.NotFound)(nil); errors.As(err, &unknown) {
		return state, nil
	}
	if err == nil {
		err = answer.Get(&state)
	}
	if err != nil {
		return state, fmt.Errorf("asking what was ordered for cluster %s: %w", cluster, err)
	}
	return state, nil
}

// blocks lists what blocks a cluster now.
func (c *connection) blocks(ctx context.Context, cluster string) ([]workflows.Block, error) {
	state, err := c.clusterState(ctx, cluster)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	var holding []workflows.Block
	for _, block := range state.Blocks {
		if block.Holds(now, block.Pool) {
			holding = append(holding, block)
		}
	}
	return holding, nil
}
