package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"go.temporal.io/api/workflowservice/v1"

	"github.com/fairway-project/fairway/workflows"
)

// fleetStatus is what `fairway status` shows.
type fleetStatus struct {
	Channels []channelStatus `json:"channels"`
	Rolls    []rollStatus    `json:"rolls"`
}

type channelStatus struct {
	Channel  string   `json:"channel"`
	Clusters []string `json:"clusters"`
	Problems int      `json:"problems"`
}

type rollStatus struct {
	Workflow string    `json:"workflow"`
	Started  time.Time `json:"started"`
	Progress string    `json:"progress"`
	WaitsFor []string  `json:"waits_for,omitempty"`
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
				if len(status.Rolls) == 0 {
					t.line("Nothing is under way.")
					return
				}
				t.row("UNDER WAY", "SINCE", "PROGRESS")
				for _, roll := range status.Rolls {
					t.row(roll.Workflow, age(roll.Started), roll.Progress)
					for _, wait := range roll.WaitsFor {
						t.row("", "", "  "+wait)
					}
				}
			})
		},
	}
}

func (c *connection) status(ctx context.Context) (fleetStatus, error) {
	status := fleetStatus{Channels: []channelStatus{}, Rolls: []rollStatus{}}
	var clusters []workflows.Cluster
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
	var page []byte
	for {
		running, err := c.ListWorkflow(ctx, &workflowservice.ListWorkflowExecutionsRequest{
			Query: "WorkflowType = 'RollPool' AND ExecutionStatus = 'Running'", NextPageToken: page,
		})
		if err != nil {
			return status, fmt.Errorf("listing what is under way: %w", err)
		}
		for _, each := range running.Executions {
			id := each.Execution.WorkflowId
			step, waits := c.progress(ctx, id)
			status.Rolls = append(status.Rolls, rollStatus{Workflow: id, Started: each.StartTime.AsTime(), Progress: step, WaitsFor: waits})
		}
		if page = running.NextPageToken; len(page) == 0 {
			return status, nil
		}
	}
}
