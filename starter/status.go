package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"
	"golang.org/x/sync/errgroup"

	"github.com/fairway-project/fairway/workflows"
)

// fleetStatus is what `fairway status` shows.
type fleetStatus struct {
	Channels []channelStatus `json:"channels"`
	Blocked  []blockStatus   `json:"blocked"`
	Rolls    []rollStatus    `json:"rolls"`
	// Turns are the nodes that are replaced now, as the limits across clusters count them.
	Turns []workflows.Turn `json:"turns"`
}

type channelStatus struct {
	Channel  string   `json:"channel"`
	Clusters []string `json:"clusters"`
	Problems int      `json:"problems"`
}

type blockStatus struct {
	Cluster string `json:"cluster"`
	workflows.Block
}

type rollStatus struct {
	Workflow string    `json:"workflow"`
	Started  time.Time `json:"started"`
	Progress string    `json:"progress"`
	Nodes    counts    `json:"nodes"`
	// Notes are nodes in quarantine, fallbacks and bad replacements.
	Notes    []string `json:"notes,omitempty"`
	WaitsFor []string `json:"waits_for,omitempty"`
	// Queueing means that the limits across clusters keep it waiting.
	Queueing bool `json:"queueing,omitempty"`
}

func (c *cli) statusCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "status",
		Short:   "Show the fleet by channel, and what is under way",
		Example: "  fairway status\n  fairway status -o json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			conn, err := c.connect(cmd.Context())
			if err != nil {
				return err
			}
			defer conn.Close()
			status, err := conn.status(cmd.Context())
			if err != nil {
				return err
			}
			return c.print(cmd.OutOrStdout(), status, func(t *table) {
				t.row("CHANNEL", "CLUSTERS", "PROBLEMS")
				for _, channel := range status.Channels {
					t.row(channel.Channel, len(channel.Clusters), channel.Problems)
				}
				t.line("")
				if len(status.Blocked) > 0 {
					t.row("BLOCKED", "POOL", "BY", "SINCE", "UNTIL", "BLOCK", "REASON")
					for _, block := range status.Blocked {
						until := ""
						if !block.Until.IsZero() {
							until = block.Until.Local().Format(time.DateTime)
						}
						t.row(block.Cluster, cmp.Or(block.Pool, "all"), block.By, age(block.Since), until, block.ID, block.Reason)
					}
					t.line("")
				}
				if len(status.Rolls) == 0 {
					t.line("Nothing is under way.")
					return
				}
				t.row("UNDER WAY", "SINCE", "NODES", "PROGRESS")
				for _, roll := range status.Rolls {
					t.row(roll.Workflow, age(roll.Started), roll.Nodes, roll.Progress)
					for _, line := range slices.Concat(roll.Notes, roll.WaitsFor) {
						t.row("", "", "", "  "+line)
					}
				}
				if line := status.limits(); line != "" {
					t.flush()
					t.line("\n%s", line)
				}
			})
		},
	}
}

func (c *connection) status(ctx context.Context) (fleetStatus, error) {
	status := fleetStatus{Channels: []channelStatus{}, Blocked: []blockStatus{}, Rolls: []rollStatus{}, Turns: []workflows.Turn{}}
	var clusters []workflows.ClusterInfo
	if err := c.ask(ctx, "ListClusters", workflows.ListClusters{}, &clusters); err != nil {
		return status, err
	}
	at := map[string]int{} // channels in the order of the registry
	for _, cluster := range clusters {
		index, known := at[cluster.Channel]
		if !known {
			index = len(status.Channels)
			at[cluster.Channel] = index
			status.Channels = append(status.Channels, channelStatus{Channel: cluster.Channel})
		}
		channel := &status.Channels[index]
		channel.Clusters = append(channel.Clusters, cluster.ID)
		if cluster.Problem != "" {
			channel.Problems++
		}
	}
	blocked, err := c.blockedClusters(ctx)
	if err != nil {
		return status, err
	}
	for _, cluster := range blocked {
		blocks, err := c.blocks(ctx, cluster)
		if err != nil {
			return status, err
		}
		for _, block := range blocks {
			status.Blocked = append(status.Blocked, blockStatus{cluster, block})
		}
	}
	if err := c.running(ctx, "WorkflowType = 'RollPool'", func(each *workflow.WorkflowExecutionInfo) {
		status.Rolls = append(status.Rolls, rollStatus{Workflow: each.Execution.WorkflowId, Started: each.StartTime.AsTime()})
	}); err != nil {
		return status, err
	}
	// Without a worker each question takes until its deadline, so they are not asked one after another.
	var group errgroup.Group
	group.SetLimit(32)
	for i := range status.Rolls {
		roll := &status.Rolls[i]
		group.Go(func() error {
			progress, answered := c.rollProgress(ctx, roll.Workflow)
			if !answered {
				roll.Progress = unanswered
				return nil
			}
			roll.Progress, roll.Nodes, roll.Notes = stepOf(progress), countsOf(progress), notesOf(progress)
			roll.Queueing, roll.WaitsFor = progress.Phase == "queueing", c.waitsFor(ctx, roll.Workflow)
			return nil
		})
	}
	if len(status.Rolls) > 0 {
		group.Go(func() (err error) {
			status.Turns, err = c.turns(ctx)
			return err
		})
	}
	return status, group.Wait()
}

// limits says how many nodes are replaced and how many rolls wait for that; nothing where no
// limit binds.
func (s fleetStatus) limits() string {
	nodes, waiting := 0, 0
	for _, turn := range s.Turns {
		nodes += turn.Nodes
	}
	for _, roll := range s.Rolls {
		if roll.Queueing {
			waiting++
		}
	}
	if waiting == 0 {
		return ""
	}
	return fmt.Sprintf("The limits across clusters bind: %s being replaced by %s, and %s waiting for a turn.",
		isAre(nodes, "node"), counted(len(s.Turns), "roll"), isAre(waiting, "roll"))
}

func isAre(count int, what string) string {
	if count == 1 {
		return counted(count, what) + " is"
	}
	return counted(count, what) + " are"
}

// turns asks the fleet's actor who replaces nodes now. A worker that does not answer has been told
// of already, with the rolls.
func (c *connection) turns(ctx context.Context) ([]workflows.Turn, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	answer, err := c.QueryWorkflow(ctx, workflows.FleetID, "", workflows.StateQuery)
	if err != nil {
		return []workflows.Turn{}, nil
	}
	var state workflows.FleetState
	err = answer.Get(&state)
	return append([]workflows.Turn{}, state.Turns...), err
}

// blockedClusters finds the clusters that have blocks, expired ones included, without asking all.
func (c *connection) blockedClusters(ctx context.Context) (clusters []string, err error) {
	err = c.running(ctx, "WorkflowType = 'Cluster' AND Blocked = true", func(each *workflow.WorkflowExecutionInfo) {
		clusters = append(clusters, strings.TrimPrefix(each.Execution.WorkflowId, workflows.ClusterID("")))
	})
	slices.Sort(clusters)
	return clusters, err
}

// running visits the workflows that run and match a query.
func (c *connection) running(ctx context.Context, query string, visit func(*workflow.WorkflowExecutionInfo)) error {
	var page []byte
	for {
		running, err := c.ListWorkflow(ctx, &workflowservice.ListWorkflowExecutionsRequest{
			Query: query + " AND ExecutionStatus = 'Running'", NextPageToken: page,
		})
		if err != nil {
			return fmt.Errorf("listing what is under way: %w", err)
		}
		for _, each := range running.Executions {
			visit(each)
		}
		if page = running.NextPageToken; len(page) == 0 {
			return nil
		}
	}
}
