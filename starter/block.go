package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"

	"github.com/fairway-project/fairway/workflows"
)

// blockFlags are those of all commands that block something.
type blockFlags struct {
	workflows.BlockRequest
	lasts time.Duration
}

func (f *blockFlags) on(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.Reason, "reason", "", "why, for everybody who will ask (required)")
	cmd.Flags().DurationVar(&f.lasts, "for", 0, "time after which the block expires, such as 4h (default: never)")
}

// request is what is asked for. What is wrong is said before anything is asked.
func (f *blockFlags) request(cmd *cobra.Command) (workflows.BlockRequest, error) {
	if strings.TrimSpace(f.Reason) == "" {
		return f.BlockRequest, usage(errors.New("--reason is missing: others will ask for it"))
	}
	if cmd.Flags().Changed("for") {
		if f.lasts <= 0 {
			return f.BlockRequest, usage(fmt.Errorf("--for is %s; must be a time such as 4h", f.lasts))
		}
		f.For = f.lasts.String()
	}
	f.By = whoami()
	return f.BlockRequest, nil
}

func (c *cli) clusterBlockCommand() *cobra.Command {
	var flags blockFlags
	var now bool
	cmd := &cobra.Command{
		Use:   "block CLUSTER",
		Short: "Change nothing in a cluster, or in one of its pools, until the block is lifted",
		Long: `Change nothing in a cluster, or in one of its pools, until the block is lifted or expires.

A block holds before the next eviction, termination, change of size, stack change or manifest step,
also of work that is under way; that work stays where it is and goes on afterwards. Several blocks
may hold at once. Time that is blocked does not count towards the time after which pods are forced.

What has been asked of AWS or of the API server already runs to its end: a stack that is being
changed, an instance that is ending. With --now the command waits until all of that has ended, so
that nothing in the cluster changes any more when it returns; the block itself is the same.

In the Temporal UI, the signal "block" to workflow cluster/<id> with {"reason": "...", "by":
"..."} does the same, and the signal "unblock" with {} lifts all blocks.`,
		Example: `  fairway cluster block dev-1 --reason "incident 4711"
  fairway cluster block dev-1 --reason "incident 4711" --now
  fairway cluster block dev-1 --pool worker --for 4h --reason "load test"`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: c.completeCluster,
		RunE: func(cmd *cobra.Command, args []string) error {
			request, err := flags.request(cmd)
			if err != nil {
				return err
			}
			conn, cluster, err := c.connectTo(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			defer conn.Close()
			var block workflows.Block
			if err := conn.tellCluster(cmd.Context(), cluster, workflows.BlockName, request, &block); err != nil {
				return err
			}
			held, what := heldWork{Block: block}, "cluster "+cluster
			if block.Pool != "" {
				what = "pool " + block.Pool + " of " + what
				// A block counts at once, whatever can be found out of the pool.
				err := conn.ask(cmd.Context(), "ExaminePool", workflows.ExaminePool{Cluster: cluster, Pool: block.Pool}, &workflows.Pool{})
				if status := (*statusError)(nil); errors.As(err, &status) && status.kind == workflows.PoolNotFound {
					fmt.Fprintf(cmd.ErrOrStderr(), "Warning: %v; the block holds nothing until there is one.\n", err)
				}
			}
			if now {
				fmt.Fprintf(cmd.ErrOrStderr(), "%s is %s [%s].\n", capital(what), block, block.ID)
				if held.Held, err = conn.awaitStill(cmd, cluster, block); err != nil {
					return err
				}
			}
			return c.print(cmd.OutOrStdout(), held, func(t *table) {
				if !now {
					t.line("%s is %s [%s].", capital(what), block, block.ID)
					return
				}
				t.line("Nothing changes in %s any more.", what)
				for _, each := range held.Held {
					t.line("%s is held.", each)
				}
			})
		},
	}
	flags.on(cmd)
	cmd.Flags().StringVar(&flags.Pool, "pool", "", "block only this pool")
	cmd.Flags().BoolVar(&now, "now", false, "wait until everything under way has stopped")
	_ = cmd.RegisterFlagCompletionFunc("pool", c.completePoolFlag)
	return cmd
}

func (c *cli) clusterUnblockCommand() *cobra.Command {
	var request workflows.UnblockRequest
	cmd := &cobra.Command{
		Use:   "unblock CLUSTER [BLOCK]",
		Short: "Lift a block, or all blocks of a cluster or pool",
		Long: `Lift a block, or all blocks of a cluster or pool. Blocks of its channel and of the fleet
hold on: "fairway channel unblock" and "fairway fleet unblock" lift those. A block by the config item
cluster_update_block of the cluster's registry entry comes back until the item is removed.`,
		Example: `  fairway cluster unblock dev-1
  fairway cluster unblock dev-1 block-3
  fairway cluster unblock dev-1 --pool worker`,
		Args:              cobra.RangeArgs(1, 2),
		ValidArgsFunction: c.completeClusterBlock,
		RunE: func(cmd *cobra.Command, args []string) error {
			conn, cluster, err := c.connectTo(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			defer conn.Close()
			return c.unblock(cmd, conn, clusterActor(cluster), request, args[1:])
		},
	}
	cmd.Flags().StringVar(&request.Pool, "pool", "", "lift only blocks of this pool")
	_ = cmd.RegisterFlagCompletionFunc("pool", c.completePoolFlag)
	return cmd
}

// blockScope blocks a channel or the fleet.
func (c *cli) blockScope(cmd *cobra.Command, conn *connection, scope actor, request workflows.BlockRequest) error {
	var block workflows.Block
	if err := conn.tell(cmd.Context(), scope, workflows.BlockName, request, &block); err != nil {
		return err
	}
	return c.print(cmd.OutOrStdout(), block, func(t *table) { t.line("%s is %s [%s].", capital(scope.name), block, block.ID) })
}

// unblock lifts blocks of a cluster, a channel or the fleet: one, or all.
func (c *cli) unblock(cmd *cobra.Command, conn *connection, scope actor, request workflows.UnblockRequest, named []string) error {
	if len(named) > 0 {
		request.ID = named[0]
	}
	request.By = whoami()
	lifted := []workflows.Block{}
	if err := conn.tell(cmd.Context(), scope, workflows.UnblockName, request, &lifted); err != nil {
		return err
	}
	return c.print(cmd.OutOrStdout(), lifted, func(t *table) {
		if len(lifted) == 0 {
			t.line("%s had no block.", capital(scope.name))
		}
		for _, block := range lifted {
			t.line("Lifted %s of %s: %s", block.ID, scope.name, block.Reason)
		}
	})
}

// completeClusterBlock offers a cluster, and then its blocks.
func (c *cli) completeClusterBlock(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
	if len(args) != 1 {
		return c.completeCluster(cmd, args, prefix)
	}
	return c.completeBlock(cmd, func(ctx context.Context, conn *connection) ([]workflows.Block, error) {
		var clusters []workflows.ClusterInfo
		if err := conn.ask(ctx, "ListClusters", workflows.ListClusters{Names: args}, &clusters); err != nil {
			return nil, err
		}
		return conn.blocks(ctx, clusters[0].ID)
	})
}

// completeChannelBlock offers a channel, and then its blocks.
func (c *cli) completeChannelBlock(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
	if len(args) != 1 {
		return c.completeChannel(cmd, args, prefix)
	}
	return c.completeBlock(cmd, func(ctx context.Context, conn *connection) ([]workflows.Block, error) {
		var state workflows.ChannelState
		_, err := conn.query(ctx, workflows.ChannelID(args[0]), "", workflows.StateQuery, &state)
		return holding(state.Blocks.Holding, "", time.Now()), err
	})
}

// completeFleetBlock offers the blocks of the fleet.
func (c *cli) completeFleetBlock(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return c.completeBlock(cmd, func(ctx context.Context, conn *connection) ([]workflows.Block, error) {
		var state workflows.FleetState
		_, err := conn.query(ctx, workflows.FleetID, "", workflows.StateQuery, &state)
		return holding(state.Blocks.Holding, "", time.Now()), err
	})
}

// completeBlock offers the ids of blocks, with their reasons.
func (c *cli) completeBlock(cmd *cobra.Command, find func(context.Context, *connection) ([]workflows.Block, error)) ([]string, cobra.ShellCompDirective) {
	conn, err := c.connect(cmd.Context())
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	defer conn.Close()
	blocks, err := find(cmd.Context(), conn)
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	var out []string
	for _, block := range blocks {
		out = append(out, block.ID+"\t"+cut(block.Reason, 60))
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}

// blockText says what a block holds, by whom and why.
func blockText(b workflows.Block) string {
	text := b.Scope
	if b.Pool != "" {
		text = strings.TrimSpace(text + " pool " + b.Pool)
	}
	if text != "" {
		text += ", "
	}
	text += fmt.Sprintf("by %s: %s", b.By, b.Reason)
	if !b.Until.IsZero() {
		text += fmt.Sprintf(" (until %s)", b.Until.Local().Format(time.DateTime))
	}
	return text + " [" + b.ID + "]"
}

// capital begins a sentence with a text.
func capital(text string) string {
	if text == "" {
		return ""
	}
	return strings.ToUpper(text[:1]) + text[1:]
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

// actor is a workflow that lives as long as what it stands for, and is started when it is first told
// something.
type actor struct {
	id, name   string // the name is for people
	workflow   any
	state      any
	attributes temporal.SearchAttributes
}

func clusterActor(cluster string) actor {
	return actor{workflows.ClusterID(cluster), "cluster " + cluster, workflows.Cluster, workflows.ClusterState{Cluster: cluster},
		temporal.NewSearchAttributes(workflows.ClusterAttribute.ValueSet(cluster))}
}

func channelActor(channel string) actor {
	return actor{workflows.ChannelID(channel), "channel " + channel, "Channel", workflows.ChannelState{ChannelSync: workflows.ChannelSync{Channel: channel}},
		temporal.NewSearchAttributes(workflows.ChannelAttribute.ValueSet(channel))}
}

func fleetActor() actor {
	return actor{workflows.FleetID, "the fleet", workflows.Fleet, workflows.FleetState{}, temporal.SearchAttributes{}}
}

// tell has an actor carry out an update, and starts the actor if need be.
func (c *connection) tell(ctx context.Context, to actor, update string, in, out any) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	handle, err := c.UpdateWithStartWorkflow(ctx, client.UpdateWithStartWorkflowOptions{
		StartWorkflowOperation: c.NewWithStartWorkflowOperation(client.StartWorkflowOptions{
			ID:                       to.id,
			TaskQueue:                c.taskQueue,
			WorkflowIDConflictPolicy: enumspb.WORKFLOW_ID_CONFLICT_POLICY_USE_EXISTING,
			StaticSummary:            to.name,
			TypedSearchAttributes:    to.attributes,
		}, to.workflow, to.state),
		UpdateOptions: client.UpdateWorkflowOptions{
			UpdateID: uuid.NewString(), UpdateName: update, Args: []any{in}, WaitForStage: client.WorkflowUpdateStageCompleted,
		},
	})
	if err == nil {
		err = handle.Get(ctx, out)
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return unreachable("no worker answered for %s within 20 s; it is not known whether the %s took effect", to.name, update)
	}
	return c.explain(err)
}

// tellCluster has the actor of a cluster carry out an update.
func (c *connection) tellCluster(ctx context.Context, cluster, update string, in, out any) error {
	return c.tell(ctx, clusterActor(cluster), update, in, out)
}

// clusterState asks a cluster's actor what it knows. Without an actor, nobody ordered anything.
func (c *connection) clusterState(ctx context.Context, cluster string) (state workflows.ClusterState, err error) {
	if _, err = c.query(ctx, workflows.ClusterID(cluster), "", workflows.StateQuery, &state); err != nil {
		err = fmt.Errorf("asking what was ordered for cluster %s: %w", cluster, err)
	}
	return state, err
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
