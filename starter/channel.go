package main

import (
	"cmp"
	"context"
	"errors"
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

// channelState is workflows.ChannelState, with why the head is not known.
type channelState struct {
	workflows.ChannelState
	Problem string `json:"problem,omitempty"`
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
	for _, revert := range state.Promotions.Reverts {
		if revert.Lifted.IsZero() {
			s.Reverts = append(s.Reverts, revert)
		}
	}
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
