package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/fairway-project/fairway/workflows"
)

func (c *cli) fleetCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "fleet", Short: "Block every change in all clusters"}
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
way. No update begins, no channel lets clusters go on, and nothing is promoted.

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
		Args:    cobra.MaximumNArgs(1), ValidArgsFunction: c.completeFleetBlock,
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

// syncRequest and syncResult are workflows.SyncFleet and its answer, with what people may say and want to
// know besides.
type syncRequest struct {
	workflows.SyncFleet
	Shrunk bool `json:"shrunk,omitempty"`
}

type syncResult struct {
	workflows.SyncResult
	Lost     []string `json:"lost,omitempty"`     // clusters whose updates ended without a word
	Problems []string `json:"problems,omitempty"` // whole sentences
}

func (c *cli) syncCommand() *cobra.Command {
	var in syncRequest
	cmd := &cobra.Command{
		Use:   "sync [CHANNEL]",
		Short: "Compare registry and repository with what channels know now, instead of at the next turn",
		Long: `Compare registry and repository with what channels know now, instead of at the next turn
(update.sync_every). Channels for which something is new are told, and let their clusters go on.

A registry that suddenly lacks more than half of the clusters is not believed; --shrunk says that it is
right.`,
		Example:           "  fairway sync\n  fairway sync dev\n  fairway sync --shrunk",
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: c.completeChannel,
		RunE: func(cmd *cobra.Command, args []string) error {
			conn, err := c.connect(cmd.Context())
			if err != nil {
				return err
			}
			defer conn.Close()
			if len(args) > 0 {
				if in.Channel, err = conn.knownChannel(cmd.Context(), args[0]); err != nil {
					return err
				}
			}
			var result syncResult
			if err := patiently(cmd.ErrOrStderr(), "asks the registry and the repository", func() error {
				return conn.askLong(cmd.Context(), "SyncFleet", in, &result)
			}); err != nil {
				return err
			}
			if err := c.print(cmd.OutOrStdout(), result, result.show); err != nil {
				return err
			}
			if len(result.Problems) > 0 {
				return fmt.Errorf("%s while comparing; what is not concerned was told", countVerb(len(result.Problems), "problem", "arose", "arose"))
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&in.Shrunk, "shrunk", false, "believe a registry that has lost more than half of its clusters")
	return cmd
}

func (r syncResult) show(t *table) {
	t.line("The registry has %s.", counted(r.Clusters, "cluster"))
	if len(r.Told) == 0 {
		t.line("Nothing is new that channels have not been told already.")
	}
	for _, channel := range r.Told {
		t.line("Channel %s was told what is new.", channel)
	}
	for _, cluster := range r.Lost {
		t.line("The update of cluster %s ended without a word; it is begun again.", cluster)
	}
	for _, problem := range r.Problems {
		t.line("Problem: %s", problem)
	}
}
