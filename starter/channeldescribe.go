package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/fairway-project/fairway/rollout"
	"github.com/fairway-project/fairway/workflows"
)

// channelState is workflows.ChannelState, with why the head is not known.
type channelState struct {
	workflows.ChannelState
	Problem string `json:"problem,omitempty"`
}

func (c *cli) channelDescribeCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "describe CHANNEL",
		Short: "Show the head of a channel, how far its clusters are, and what is promoted into it and out of it",
		Long: `Show the head of a channel and how far each of its clusters is on the way to it, and what is
promoted into it and out of it: what soaks, and why the clock stands still if it does; the last
promotions; what people refused; reverts; landings that are neither promotion nor hotfix; and what
earlier channels lack of it, equal content counted as present.

Clusters go on in waves: the canaries first, then growing groups, each when the one before has been
on the new version for rollout.bake and, with rollout.health, has been seen to be healthy after that. A
cluster is waiting (for its wave), allowed (let go on, but
held by a block, a window or a limit), updating, done or failed.`,
		Example:           "  fairway channel describe alpha\n  fairway channel describe alpha -o json",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: c.completeChannel,
		RunE: func(cmd *cobra.Command, args []string) error {
			conn, channel, err := c.connectToChannel(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			defer conn.Close()
			var state channelState
			exists, err := conn.query(cmd.Context(), workflows.ChannelID(channel), "", workflows.StateQuery, &state)
			if err != nil {
				return unreachable("no worker tells of channel %s: %w", channel, err)
			}
			if !exists {
				return usage(fmt.Errorf("nobody has told channel %s anything yet; `fairway sync %s` does", channel, channel))
			}
			if soak := &state.Promotions.Soak; len(soak.Landings) > 0 {
				*soak = soak.At(time.Now())
			}
			described := describedChannel{channelState: state}
			if err := conn.describePromotions(cmd, &described); err != nil {
				return err
			}
			return c.print(cmd.OutOrStdout(), described, func(t *table) {
				showChannel(t, state, time.Now())
				t.flush()
				described.showPromotions(t)
			})
		},
	}
}

func showChannel(t *table, state channelState, now time.Time) {
	done := 0
	for _, member := range state.Members {
		if member.State == rollout.Done {
			done++
		}
	}
	t.row("Channel:", state.Channel)
	t.row("Head:", strings.TrimSpace(shortCommit(state.Commit)+" "+cut(state.Title, 80)))
	if state.Problem != "" {
		t.row("Not known:", cut(state.Problem, 200))
	}
	t.row("Since:", sinceText(state.Since))
	t.row("Clusters:", fmt.Sprintf("%d of %d on the head", done, len(state.Members)))
	t.row("Waves:", wavesText(state, now))
	if state.Stopped != "" {
		t.row("Stopped:", state.Stopped)
		t.row("", "`fairway channel resume "+state.Channel+" --reason ...` lets it go on")
	} else if state.Unhealthy != "" {
		t.row("Waits for:", state.Unhealthy)
		t.row("", "`fairway channel resume "+state.Channel+" --reason ...` lets it go on all the same")
	}
	for i, block := range holding(state.Blocks.Holding, "channel "+state.Channel, now) {
		t.row(map[bool]string{true: "Blocked:"}[i == 0], blockText(block))
	}
	t.flush()
	t.line("")
	t.row("WAVE", "CLUSTER", "STATE", "SINCE", "VERSION", "WANTED", "PROBLEM")
	members := slices.Clone(state.Members)
	slices.SortStableFunc(members, func(a, b workflows.Member) int { return cmp.Or(cmp.Compare(a.Wave, b.Wave), cmp.Compare(a.ID, b.ID)) })
	wants := map[string]string{}
	for _, cluster := range state.Clusters {
		wants[cluster.ID] = cluster.Want.Version
	}
	for _, member := range members {
		t.row(waveName(member.Wave), member.ID, member.State, age(time.Unix(member.SinceUnix, 0)), shortVersion(member.Current), shortVersion(wants[member.ID]), cut(problemText(member.ID, member.Problem), 120))
	}
}

func waveName(wave int) string {
	if wave == 0 {
		return "canary"
	}
	return fmt.Sprint(wave)
}

// wavesText says how far the waves are and when the next one may go.
func wavesText(state channelState, now time.Time) string {
	last := 0
	for _, member := range state.Members {
		last = max(last, member.Wave)
	}
	text := fmt.Sprintf("%d of %d let go on", min(state.Wave, last+1), last+1)
	switch {
	case state.Stopped != "":
		return text
	case state.Wave > last:
		return text
	case !state.Next.IsZero() && state.Next.After(now):
		return text + fmt.Sprintf("; the next one in %s", short(state.Next.Sub(now)))
	}
	return text + "; the next one when the one before has proved itself"
}

func sinceText(at time.Time) string {
	if at.IsZero() {
		return ""
	}
	return fmt.Sprintf("%s (%s ago)", at.Local().Format(time.DateTime), age(at))
}
