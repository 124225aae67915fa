package main

import (
	"github.com/spf13/cobra"

	"github.com/fairway-project/fairway/workflows"
)

func (c *cli) clusterCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "cluster", Short: "Look at clusters, and block their updates"}
	cmd.AddCommand(&cobra.Command{
		Use:     "list",
		Short:   "List the clusters of the registry",
		Example: "  fairway cluster list\n  fairway cluster list -o json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			temporal, err := c.connect(cmd.Context())
			if err != nil {
				return err
			}
			defer temporal.Close()
			clusters := []workflows.ClusterInfo{}
			if err := temporal.ask(cmd.Context(), "ListClusters", workflows.ListClusters{}, &clusters); err != nil {
				return err
			}
			return c.print(cmd.OutOrStdout(), clusters, func(t *table) {
				t.row("ID", "CHANNEL", "ENVIRONMENT", "LIFECYCLE", "REGION", "POOLS", "OWNER", "VERSION", "PROBLEM")
				for _, each := range clusters {
					t.row(each.ID, each.Channel, each.Environment, each.Lifecycle, each.Region, each.Pools, each.Owner, each.Version, each.Problem)
				}
			})
		},
	})
	cmd.AddCommand(c.clusterBlockCommand(), c.clusterUnblockCommand())
	return cmd
}

// completeCluster offers the ids of the registry.
func (c *cli) completeCluster(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	temporal, err := c.connect(cmd.Context())
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	defer temporal.Close()
	var out []string
	if len(args) == 0 {
		var clusters []workflows.ClusterInfo
		if err := temporal.ask(cmd.Context(), "ListClusters", workflows.ListClusters{}, &clusters); err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		for _, each := range clusters {
			out = append(out, each.ID)
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
