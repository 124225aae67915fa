package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/fairway-project/fairway/promotion"
	"github.com/fairway-project/fairway/rollout"
	"github.com/fairway-project/fairway/workflows"
)

func (c *cli) channelCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "channel", Short: "Look at channels and how far their clusters are, and stop or resume them"}
	cmd.AddCommand(c.channelListCommand(), c.channelDescribeCommand(), c.channelBlockCommand(), c.channelUnblockCommand(), c.channelResumeCommand(),
		c.channelRevertCommand())
	return cmd
}

func (c *cli) channelListCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "List the channels that clusters follow or promotions use, with their heads",
		Example: "  fairway channel list\n  fairway channel list -o json",
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
			names, err := conn.actorChannels(cmd.Context())
			if err != nil {
				return err
			}
			channels := withoutClusters(channelsOf(clusters), names)
			if err := conn.addChannels(cmd.Context(), channels); err != nil {
				return err
			}
			return c.print(cmd.OutOrStdout(), channels, func(t *table) { showChannels(t, channels) })
		},
	}
}

// clusters asks for all clusters of the registry.
func (c *connection) clusters(ctx context.Context) (clusters []workflows.ClusterInfo, err error) {
	return clusters, c.ask(ctx, "ListClusters", workflows.ListClusters{}, &clusters)
}

// channelStatus is a channel and how far its clusters are.
type channelStatus struct {
	Channel  string   `json:"channel"`
	Clusters []string `json:"clusters"`
	Problems int      `json:"problems"`
	// Head is the commit; empty where nobody has told yet.
	Head    string         `json:"head,omitempty"`
	Title   string         `json:"title,omitempty"`
	Since   time.Time      `json:"since,omitzero"`
	OnHead  int            `json:"on_head"`
	States  map[string]int `json:"states,omitempty"` // clusters by state
	Stopped string         `json:"stopped,omitempty"`
	// Reverts are those that keep promotions out of the channel.
	Reverts []promotion.Revert `json:"reverts,omitempty"`
	// Problem is why the head is not known.
	Problem string             `json:"problem,omitempty"`
	Oldest  *oldestVersion     `json:"oldest,omitempty"` // nil where all are on the head
	Blocks  []workflows.Block  `json:"-"`
	members []workflows.Member // as the channel's actor knows them
	wanted  map[string]string  // version by cluster
	answer  channelAnswer      // how the actor answered
}

type channelAnswer string

const (
	noActor  channelAnswer = "nobody has told this channel anything yet"
	noAnswer channelAnswer = "does not answer"
)

// oldestVersion is that of the cluster off the head of its channel whose state has not changed for the
// longest. A new head, an attempt and a failure change it: that is not how long it has had the version.
type oldestVersion struct {
	Version string    `json:"version"`
	Cluster string    `json:"cluster"`
	Since   time.Time `json:"since"`
}

// channelsOf groups clusters by their channels, in the order of the registry.
func channelsOf(clusters []workflows.ClusterInfo) []channelStatus {
	channels, at := []channelStatus{}, map[string]int{}
	for _, cluster := range clusters {
		index, known := at[cluster.Channel]
		if !known {
			index = len(channels)
			at[cluster.Channel] = index
			channels = append(channels, channelStatus{Channel: cluster.Channel})
		}
		channel := &channels[index]
		channel.Clusters = append(channel.Clusters, cluster.ID)
		if cluster.Problem != "" {
			channel.Problems++
		}
	}
	return channels
}

// withoutClusters adds the channels that no cluster follows, but that have an actor.
func withoutClusters(channels []channelStatus, names []string) []channelStatus {
	for _, name := range names {
		if !slices.ContainsFunc(channels, func(s channelStatus) bool { return s.Channel == name }) {
			channels = append(channels, channelStatus{Channel: name, Clusters: []string{}})
		}
	}
	return channels
}

// addChannels adds what the actors of channels know, all asked at once.
func (c *connection) addChannels(ctx context.Context, channels []channelStatus) error {
	var group errgroup.Group
	group.SetLimit(asking)
	for i := range channels {
		group.Go(func() error {
			var state channelState
			exists, err := c.query(ctx, workflows.ChannelID(channels[i].Channel), "", workflows.StateQuery, &state)
			switch {
			case err != nil:
				channels[i].answer = noAnswer
			case !exists:
				channels[i].answer = noActor
			default:
				channels[i].add(state, time.Now())
			}
			return ctx.Err()
		})
	}
	return group.Wait()
}

// add takes over what the channel's actor knows.
func (s *channelStatus) add(state channelState, now time.Time) {
	s.Problem = state.Problem
	s.Head, s.Title, s.Since, s.Stopped, s.members = state.Commit, state.Title, state.Since, state.Stopped, state.Members
	s.Blocks, s.States = holding(state.Blocks.Holding, "channel "+s.Channel, now), map[string]int{}
	s.Reverts = unlifted(state.Promotions.Reverts)
	s.wanted = map[string]string{}
	for _, cluster := range state.Clusters {
		s.wanted[cluster.ID] = cluster.Want.Version
	}
	for _, member := range state.Members {
		s.States[string(member.State)]++
		if s.Head != "" && commitOf(member.Current) == s.Head {
			s.OnHead++
		} else if since := time.Unix(member.SinceUnix, 0); s.Head != "" && member.Current != "" && (s.Oldest == nil || since.Before(s.Oldest.Since)) {
			s.Oldest = &oldestVersion{member.Current, member.ID, since}
		}
	}
}

// holding picks the blocks that hold at a time, and says whose they are.
func holding(blocks []workflows.Block, scope string, now time.Time) []workflows.Block {
	var out []workflows.Block
	for _, block := range blocks {
		if block.Holds(now, block.Pool) {
			block.Scope = cmp.Or(block.Scope, scope)
			out = append(out, block)
		}
	}
	return out
}

func showChannels(t *table, channels []channelStatus) {
	t.row("CHANNEL", "HEAD", "SINCE", "ON HEAD", "UPDATING", "WAITING", "FAILED", "PROBLEMS", "OLDEST", "TITLE")
	for _, s := range channels {
		oldest := ""
		if s.Oldest != nil {
			oldest = fmt.Sprintf("%s (%s)", shortCommit(commitOf(s.Oldest.Version)), s.Oldest.Cluster)
		}
		onHead := fmt.Sprintf("%d of %d", s.OnHead, len(s.Clusters))
		if s.Head == "" {
			onHead = fmt.Sprintf("? of %d", len(s.Clusters))
		}
		t.row(s.Channel, shortCommit(s.Head), age(s.Since), onHead, s.States[string(rollout.Updating)],
			s.States[string(rollout.Waiting)]+s.States[string(rollout.Allowed)], s.States[string(rollout.Failed)], s.Problems, oldest, cut(s.Title, 60))
	}
	t.flush()
	for _, s := range channels {
		switch {
		case s.answer == noAnswer:
			t.line("Channel %s %s; what is known of it is missing here.", s.Channel, s.answer)
		case s.answer == noActor:
			t.line("Channel %s: %s; `fairway sync` does.", s.Channel, s.answer)
		case s.Problem != "":
			t.line("The head of channel %s is not known: %s", s.Channel, s.Problem)
		case s.Stopped != "":
			t.line("Channel %s lets no more clusters go on: %s", s.Channel, s.Stopped)
		}
		for _, revert := range s.Reverts {
			t.line("Nothing is promoted into channel %s, which was set back %s", s.Channel, revertText(revert))
		}
	}
}

// cut shortens a text to its first line, and that to some characters. What a terminal would obey is left out.
func cut(text string, atMost int) string {
	text, _, _ = strings.Cut(text, "\n")
	text = strings.Map(func(r rune) rune {
		switch {
		case r == '\t':
			return ' '
		case unicode.IsControl(r), unicode.Is(unicode.Cf, r):
			return -1
		}
		return r
	}, text)
	if runes := []rune(text); len(runes) > atMost {
		return string(runes[:atMost-1]) + "…"
	}
	return text
}

// countVerb writes "1 failure counts" or "2 failures count".
func countVerb(count int, what, one, many string) string {
	if count == 1 {
		return counted(count, what) + " " + one
	}
	return counted(count, what) + " " + many
}

// connectToChannel connects, and checks that some cluster follows the channel or that it has an actor.
func (c *cli) connectToChannel(ctx context.Context, name string) (*connection, string, error) {
	conn, err := c.connect(ctx)
	if err != nil {
		return nil, "", err
	}
	channel, err := conn.knownChannel(ctx, name)
	if err != nil {
		conn.Close()
		return nil, "", err
	}
	return conn, channel, nil
}

// knownChannel refuses a channel that no cluster follows and that has no actor: most likely it is misspelt.
func (c *connection) knownChannel(ctx context.Context, name string) (string, error) {
	clusters, err := c.clusters(ctx)
	if err != nil {
		return "", err
	}
	names := channelNames(clusters)
	if slices.Contains(names, name) {
		return name, nil
	}
	exists, err := c.query(ctx, workflows.ChannelID(name), "", workflows.SyncedQuery, &workflows.ChannelSynced{})
	if exists || err != nil {
		return name, err
	}
	edges, err := c.edges(ctx)
	if err != nil {
		return "", err
	}
	for _, each := range edges {
		if each.From == name || each.To == name {
			return name, nil // nobody has told it anything yet
		}
		names = append(names, each.From, each.To)
	}
	slices.Sort(names)
	return "", usage(fmt.Errorf("no cluster follows channel %q, and nothing is promoted from or to it; there are %s", name, strings.Join(slices.Compact(names), ", ")))
}

func channelNames(clusters []workflows.ClusterInfo) (names []string) {
	for _, channel := range channelsOf(clusters) {
		names = append(names, channel.Channel)
	}
	return names
}

// completeChannel offers the channels of the registry.
func (c *cli) completeChannel(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	conn, err := c.connect(cmd.Context())
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	defer conn.Close()
	clusters, err := conn.clusters(cmd.Context())
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	names, err := conn.actorChannels(cmd.Context())
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	var out []string
	for _, channel := range withoutClusters(channelsOf(clusters), names) {
		out = append(out, channel.Channel)
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}
