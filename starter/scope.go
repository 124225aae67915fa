package main

import (
	"github.com/spf13/cobra"

	"github.com/fairway-project/fairway/workflows"
)

func (c *cli) fleetCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "fleet", Short: "Block the updates of all clusters"}
	cmd.AddCommand(c.fleetBlockCommand(), c.fleetUnblockCommand())
	return cmd
}

func (c *cli) fleetBlockCommand() *cobra.Command {
	var flags blockFlags
	cmd := &cobra.Command{
		Use:   "block",
		Short: "Change nothing in any cluster until the block is lifted",
		Long: `Change nothing in any cluster until the block is lifted or expires.

It holds as "fairway cluster block" does, for all clusters, before the next step of whatever is under
way. No update begins and no channel lets clusters go on.

In the Temporal UI, the signal "block" to workflow fleet with {"reason": "...", "by": "..."} does
the same.`,
		Example: `  fairway fleet block --reason "AWS has an outage in eu-central-1" --for 4h`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			request, err := flags.request(cmd)
			if err != nil {
				return err
			}
			conn, err := c.connect(cmd.Context())
			if err != nil {
				return err
			}
			defer conn.Close()
			return c.blockScope(cmd, conn, fleetActor(), request)
		},
	}
	flags.on(cmd)
	return cmd
}

func (c *cli) fleetUnblockCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "unblock [BLOCK]",
		Short:   "Lift a block of the fleet, or all of them",
		Long:    "Lift a block of the fleet, or all of them. Blocks of channels and clusters hold on.",
		Example: "  fairway fleet unblock\n  fairway fleet unblock block-3",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			conn, err := c.connect(cmd.Context())
			if err != nil {
				return err
			}
			defer conn.Close()
			return c.unblock(cmd, conn, fleetActor(), workflows.UnblockRequest{}, args)
		},
	}
}

func (c *cli) syncCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "sync [CHANNEL]",
		Short: "Compare registry and repository with what channels know now, instead of at the next turn",
		Long: `Compare registry and repository with what channels know now, instead of at the next turn
(update.sync_every). Channels for which something is new are told, and let their clusters go on.`,
		Example:           "  fairway sync\n  fairway sync dev",
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: c.completeChannel,
		RunE: func(cmd *cobra.Command, args []string) error {
			conn, err := c.connect(cmd.Context())
			if err != nil {
				return err
			}
			defer conn.Close()
			in := workflows.SyncFleet{}
			if len(args) > 0 {
				if in.Channel, err = conn.knownChannel(cmd.Context(), args[0]); err != nil {
					return err
				}
			}
			var result workflows.SyncResult
			err = patiently(cmd.ErrOrStderr(), "asks the registry and the repository", func() error {
				return conn.askLong(cmd.Context(), "SyncFleet", in, &result)
			})
			if err != nil {
				return err
			}
			return c.print(cmd.OutOrStdout(), result, func(t *table) {
				t.line("The registry has %s.", counted(result.Clusters, "cluster"))
				if len(result.Told) == 0 {
					t.line("Nothing is new for any channel.")
				}
				for _, channel := range result.Told {
					t.line("Channel %s was told what is new.", channel)
				}
			})
		},
	}
}
