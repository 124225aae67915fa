package main

import (
	"errors"
	"strings"

	"github.com/spf13/cobra"

	"github.com/fairway-project/fairway/workflows"
)

func (c *cli) channelBlockCommand() *cobra.Command {
	var flags blockFlags
	cmd := &cobra.Command{
		Use:   "block CHANNEL",
		Short: "Change nothing in the clusters of a channel until the block is lifted",
		Long: `Change nothing in the clusters of a channel until the block is lifted or expires.

It holds as "fairway cluster block" does, for all clusters that follow the channel, before the next
step of whatever is under way. The channel lets no more clusters go on, and nothing is promoted out of
it or into it.

In the Temporal UI, the signal "block" to workflow channel/<name> with {"reason": "...", "by":
"..."} does the same.`,
		Example: `  fairway channel block stable --reason "sale until Sunday" --for 72h`,
		Args:    cobra.ExactArgs(1), ValidArgsFunction: c.completeChannel,
		RunE: func(cmd *cobra.Command, args []string) error {
			request, err := flags.request(cmd)
			if err != nil {
				return err
			}
			conn, channel, err := c.connectToChannel(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			defer conn.Close()
			return c.blockScope(cmd, conn, channelActor(channel), request)
		},
	}
	flags.on(cmd)
	return cmd
}

func (c *cli) channelUnblockCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "unblock CHANNEL [BLOCK]",
		Short:   "Lift a block of a channel, or all of them",
		Long:    "Lift a block of a channel, or all of them. Blocks of the fleet and of clusters hold on.",
		Example: "  fairway channel unblock stable\n  fairway channel unblock stable block-3",
		Args:    cobra.RangeArgs(1, 2), ValidArgsFunction: c.completeChannelBlock,
		RunE: func(cmd *cobra.Command, args []string) error {
			conn, channel, err := c.connectToChannel(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			defer conn.Close()
			return c.unblock(cmd, conn, channelActor(channel), workflows.UnblockRequest{}, args[1:])
		},
	}
}

// resumeRequest lets a rollout go on.
type resumeRequest struct {
	Reason string `json:"reason"`
	By     string `json:"by,omitempty"`
}

// resumeName is the update of a channel's actor.
const resumeName = "resume"

func (c *cli) channelResumeCommand() *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use:   "resume CHANNEL",
		Short: "Let the rollout of a channel go on although clusters have failed",
		Long: `Let the rollout of a channel go on although clusters have failed. The failures so far no
longer count against rollout.max_failed; new ones do. The failed clusters are tried again as before.`,
		Example: `  fairway channel resume alpha --reason "the failure was a spot shortage"`,
		Args:    cobra.ExactArgs(1), ValidArgsFunction: c.completeChannel,
		RunE: func(cmd *cobra.Command, args []string) error {
			if strings.TrimSpace(reason) == "" {
				return usage(errors.New("--reason is missing: others will ask why it went on"))
			}
			conn, channel, err := c.connectToChannel(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			defer conn.Close()
			forgiven := []string{}
			if err := conn.tell(cmd.Context(), channelActor(channel), resumeName, resumeRequest{Reason: reason, By: whoami()}, &forgiven); err != nil {
				return err
			}
			return c.print(cmd.OutOrStdout(), forgiven, func(t *table) {
				t.line("The rollout of channel %s goes on; %s no longer against it: %s", channel, countVerb(len(forgiven), "failure", "counts", "count"), strings.Join(forgiven, ", "))
			})
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why, for everybody who will ask (required)")
	return cmd
}
