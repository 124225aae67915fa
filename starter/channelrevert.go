package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/fairway-project/fairway/promotion"
	"github.com/fairway-project/fairway/workflows"
)

// revertedChannel is a channel that is set back, and what its clusters do.
type revertedChannel struct {
	promotion.Revert
	Channel  string   `json:"channel"`
	DryRun   bool     `json:"dry_run,omitempty"`
	Clusters []string `json:"clusters"`
}

func (c *cli) channelRevertCommand() *cobra.Command {
	var in workflows.RevertChannel
	var lift bool
	var id string
	cmd := &cobra.Command{
		Use:   "revert CHANNEL (--to SHA | --lift)",
		Short: "Restore the content that a landing of a channel had, and stop what came after it",
		Long: `Restore the content that a landing of a channel had, by a commit on top of its head. No history
is rewritten. It takes the road of a promotion into the channel: where these are merged it is pushed,
otherwise a pull request is opened.

The landings after that one are promoted nowhere from then on, pull requests of theirs included, and
nothing is promoted into the channel until --lift says so, once what was wrong is mended.

The clusters of the channel follow it as they follow every landing: in waves, canaries first. To hold
them up at once, block the channel.`,
		Example: `  fairway channel revert alpha --to 3f2a9c41 --dry-run
  fairway channel revert alpha --to 3f2a9c41 --reason "DNS is slow since then, incident 4711"
  fairway channel revert alpha --lift --reason "mended by #812"`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: c.completeChannel,
		RunE: func(cmd *cobra.Command, args []string) error {
			if strings.TrimSpace(in.Reason) == "" && !in.DryRun {
				return usage(errors.New("--reason is missing: others will ask for it"))
			}
			conn, channel, err := c.connectToChannel(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			defer conn.Close()
			if lift {
				return c.liftRevert(cmd, conn, channel, workflows.LiftRevert{ID: id, Reason: in.Reason, By: whoami()})
			}
			in.Channel, in.By = channel, whoami()
			result, err := conn.revert(cmd, in)
			if err != nil {
				return err
			}
			return c.print(cmd.OutOrStdout(), result, result.show)
		},
	}
	cmd.Flags().StringVar(&in.To, "to", "", "the landing whose content is restored, by its commit or the first digits of it")
	cmd.Flags().BoolVar(&lift, "lift", false, "let promotions into the channel go on in spite of a revert")
	cmd.Flags().StringVar(&id, "id", "", "with --lift: only this revert (default: all)")
	cmd.Flags().StringVar(&in.Reason, "reason", "", "why, for everybody who will ask (required, unless --dry-run)")
	cmd.Flags().BoolVar(&in.DryRun, "dry-run", false, "say what would be done, and change nothing")
	cmd.MarkFlagsOneRequired("to", "lift")
	cmd.MarkFlagsMutuallyExclusive("to", "lift")
	cmd.MarkFlagsMutuallyExclusive("dry-run", "lift")
	cmd.MarkFlagsMutuallyExclusive("id", "to")
	_ = cmd.RegisterFlagCompletionFunc("id", func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) == 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		state, ok := c.completionState(cmd, args[0])
		if !ok {
			return nil, cobra.ShellCompDirectiveError
		}
		return revertChoices(state.Promotions.Reverts), cobra.ShellCompDirectiveNoFileComp
	})
	_ = cmd.RegisterFlagCompletionFunc("to", func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) == 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		state, ok := c.completionState(cmd, args[0])
		if !ok {
			return nil, cobra.ShellCompDirectiveError
		}
		return landingChoices(state.Promotions.Soak.Landings), cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveKeepOrder
	})
	return cmd
}

// revertChoices are the reverts that may be lifted, for a completion.
func revertChoices(reverts []promotion.Revert) (out []string) {
	for _, revert := range unlifted(reverts) {
		out = append(out, revert.ID+"\t"+cut(revert.Reason, 60))
	}
	return out
}

// revert has the worker set a channel back, or say what that would do.
func (c *connection) revert(cmd *cobra.Command, in workflows.RevertChannel) (revertedChannel, error) {
	result := revertedChannel{Channel: in.Channel, DryRun: in.DryRun, Clusters: []string{}}
	clusters, err := c.clusters(cmd.Context())
	if err != nil {
		return result, err
	}
	for _, cluster := range clusters {
		if cluster.Channel == in.Channel {
			result.Clusters = append(result.Clusters, cluster.ID)
		}
	}
	err = patiently(cmd.ErrOrStderr(), "asks the repository", func() error { return c.askLong(cmd.Context(), "RevertChannel", in, &result.Revert) })
	return result, err
}

func (r revertedChannel) show(t *table) {
	would := map[bool]string{true: "would go", false: "goes"}[r.DryRun]
	t.line("Channel %s %s back to the content of %s; its head was %s.", r.Channel, would, shortCommit(r.To), shortCommit(r.Head))
	switch {
	case r.Commit != "":
		t.line("Commit %s does that.", shortCommit(r.Commit))
	case r.PullRequest > 0:
		t.line("Pull request #%d does that when people merge it; until then the clusters stay as they are.", r.PullRequest)
	}
	names := make([]string, 0, listedLandings)
	for _, bad := range r.Bad[:min(len(r.Bad), listedLandings)] {
		names = append(names, shortCommit(bad))
	}
	if more := len(r.Bad) - listedLandings; more > 0 {
		names = append(names, fmt.Sprintf("%d more", more))
	}
	t.line("%s after it %s promoted nowhere: %s.", capital(counted(len(r.Bad), "landing")), map[bool]string{true: "is", false: "are"}[len(r.Bad) == 1], strings.Join(names, ", "))
	t.line("Nothing is promoted into %s until `fairway channel revert %s --lift --reason ...`.", r.Channel, r.Channel)
	if r.Detail != "" {
		t.line("%s", r.Detail)
	}
	if len(r.Clusters) > 0 {
		t.line("Clusters: %s.", strings.Join(r.Clusters[:min(len(r.Clusters), listedLandings)], ", "))
		t.line("Stacks, manifests and nodes go back as they went forth; what applications have stored does not. `fairway channel describe %s` shows how far they are.", r.Channel)
	}
	if r.DryRun {
		t.line("Nothing has been changed.")
	}
}

// liftRevert lets promotions into a channel go on.
func (c *cli) liftRevert(cmd *cobra.Command, conn *connection, channel string, lift workflows.LiftRevert) error {
	lifted := []promotion.Revert{}
	if err := conn.tell(cmd.Context(), channelActor(channel), workflows.LiftRevertName, lift, &lifted); err != nil {
		return err
	}
	return c.print(cmd.OutOrStdout(), lifted, func(t *table) {
		if len(lifted) == 0 {
			t.line("Channel %s has no revert that keeps promotions out.", channel)
		}
		for _, revert := range lifted {
			t.line("Promotions into channel %s go on in spite of the revert %s.", channel, revertText(revert))
		}
	})
}
