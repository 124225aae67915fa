package main

import (
	"cmp"
	"context"
	"strings"

	"github.com/spf13/cobra"
	enumspb "go.temporal.io/api/enums/v1"

	"github.com/fairway-project/fairway/workflows"
)

func (c *cli) clusterCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "cluster", Short: "Look at clusters, plan and order their updates, and block them"}
	cmd.AddCommand(c.clusterListCommand(), c.clusterDescribeCommand(), c.clusterHistoryCommand(), c.clusterPlanCommand(), c.clusterUpdateCommand(),
		c.clusterRollbackCommand(), c.clusterBlockCommand(), c.clusterUnblockCommand())
	return cmd
}

// listedCluster is a cluster of the registry and what its channel's actor knows of it.
type listedCluster struct {
	workflows.ClusterInfo
	Wanted string `json:"wanted_version,omitempty"`
	State  string `json:"state,omitempty"`
}

func (c *cli) clusterListCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the clusters of the registry, with the versions that they have and are to have",
		Long: `List the clusters of the registry, with the versions that they have and are to have. The state
is that on the way to the head of the channel: waiting, allowed, updating, done or failed.`,
		Example: "  fairway cluster list\n  fairway cluster list -o json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			conn, err := c.connect(cmd.Context())
			if err != nil {
				return err
			}
			defer conn.Close()
			clusters, err := conn.clusters(cmd.Context())
			if err != nil {
				return err
			}
			channels := channelsOf(clusters)
			if err := conn.addChannels(cmd.Context(), channels); err != nil {
				return err
			}
			listed := listClusters(clusters, channels)
			return c.print(cmd.OutOrStdout(), listed, func(t *table) {
				t.row("ID", "CHANNEL", "ENVIRONMENT", "LIFECYCLE", "REGION", "POOLS", "OWNER", "VERSION", "WANTED", "STATE", "PROBLEM")
				for _, each := range listed {
					t.row(each.ID, each.Channel, each.Environment, each.Lifecycle, each.Region, each.Pools, each.Owner,
						shortVersion(each.Version), shortVersion(each.Wanted), each.State, cut(problemText(each.ID, each.Problem), 100))
				}
			})
		},
	}
}

// listClusters adds to clusters what their channels know.
func listClusters(clusters []workflows.ClusterInfo, channels []channelStatus) []listedCluster {
	members := map[string]workflows.Member{}
	wanted := map[string]string{}
	for _, channel := range channels {
		for _, member := range channel.members {
			members[member.ID] = member
		}
		for id, version := range channel.wanted {
			wanted[id] = version
		}
	}
	out := make([]listedCluster, len(clusters))
	for i, cluster := range clusters {
		member := members[cluster.ID]
		out[i] = listedCluster{ClusterInfo: cluster, Wanted: wanted[cluster.ID], State: string(member.State)}
		out[i].Version, out[i].Problem = cmp.Or(member.Current, cluster.Version), cmp.Or(member.Problem, cluster.Problem)
	}
	return out
}

// runs says whether a workflow runs at the moment.
func (c *connection) runs(ctx context.Context, id string) bool {
	running, err := c.DescribeWorkflow(ctx, id, "")
	return err == nil && running.Status == enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING
}

// completeCluster offers the ids of the registry.
func (c *cli) completeCluster(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
	conn, err := c.connect(cmd.Context())
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	defer conn.Close()
	var out []string
	if len(args) == 0 {
		clusters, err := conn.clusters(cmd.Context())
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		for _, each := range clusters {
			if strings.HasPrefix(each.ID, prefix) {
				out = append(out, each.ID)
			}
		}
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}

// completeNode offers a cluster, and then its nodes.
func (c *cli) completeNode(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
	if len(args) != 1 {
		return c.completeCluster(cmd, args, prefix)
	}
	return c.completeFromNodes(cmd, args[0], func(node workflows.Node) string { return node.Name })
}
