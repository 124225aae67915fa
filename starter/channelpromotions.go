package main

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/fairway-project/fairway/promotion"
	"github.com/fairway-project/fairway/workflows"
)

// describedChannel is what a channel's actor knows, and what the worker says of its promotions.
type describedChannel struct {
	channelState
	// Outgoing are the edges out of the channel that have a schedule.
	Outgoing []outgoingEdge `json:"outgoing,omitempty"`
	// Lacking are commits whose content an earlier channel lacks, such as hotfixes.
	Lacking []workflows.Lacking `json:"lacking,omitempty"`
	// Unknown says what could not be found out, and why.
	Unknown []string `json:"unknown,omitempty"`
}

// outgoingEdge is an edge and what is due along it.
type outgoingEdge struct {
	To string `json:"to"`
	workflows.PromotionChoice
	// UnderWay is the promotion that runs along it.
	UnderWay *listedPromotion `json:"under_way,omitempty"`
}

// describePromotions adds what the worker says: what soaks for whom, and what earlier channels lack. What
// does not answer hides nothing else.
func (c *connection) describePromotions(cmd *cobra.Command, d *describedChannel) error {
	ctx := cmd.Context()
	edges, err := c.edges(ctx)
	if err != nil {
		d.Unknown = append(d.Unknown, "the edges out of the channel: "+err.Error())
	}
	enters := slices.ContainsFunc(edges, func(e edge) bool { return e.To == d.Channel })
	edges = slices.DeleteFunc(edges, func(e edge) bool { return e.From != d.Channel })
	d.Outgoing = make([]outgoingEdge, len(edges))
	unknown := make([]string, len(edges)+1)
	err = patiently(cmd.ErrOrStderr(), "asks what is due, and what earlier channels lack", func() error {
		var group errgroup.Group
		group.SetLimit(planning)
		for i, each := range edges {
			group.Go(func() error {
				out := &d.Outgoing[i]
				out.To = each.To
				if err := c.askLong(ctx, "ChoosePromotion", workflows.ChoosePromotion{From: each.From, To: each.To}, &out.PromotionChoice); err != nil {
					unknown[i] = fmt.Sprintf("what is due for %s: %v", each.To, err)
				}
				var err error
				out.UnderWay, err = c.promotionUnderWay(ctx, each.From, each.To)
				return err
			})
		}
		if enters || len(d.Promotions.Records) > 0 {
			group.Go(func() error {
				if err := c.askLong(ctx, "ListLacking", workflows.ListLacking{Channel: d.Channel}, &d.Lacking); err != nil {
					unknown[len(edges)] = "what earlier channels lack: " + err.Error()
				}
				return nil
			})
		}
		return group.Wait()
	})
	for _, each := range unknown {
		if each != "" {
			d.Unknown = append(d.Unknown, each)
		}
	}
	return err
}

// showPromotions shows what moves out of a channel and into it.
func (d describedChannel) showPromotions(t *table) {
	p := d.Promotions
	if len(p.Soak.Landings)+len(p.Records)+len(p.Refused)+len(p.Reverts)+len(d.Outgoing)+len(d.Lacking)+len(d.Unknown) == 0 {
		return
	}
	t.line("")
	switch {
	case len(p.Soak.Landings) == 0 || len(d.Outgoing) == 0: // nobody asks for its soak
	case !d.soaks():
		t.row("Soak clock:", "nothing waits to be promoted, so nobody looks")
	default:
		t.row("Soak clock:", soakText(p.Soak))
		for _, held := range p.Soak.Held {
			t.row("", cut(held, 160))
		}
	}
	for _, out := range d.Outgoing {
		t.row("To "+out.To+":", out.text(time.Now()))
		if out.UnderWay != nil {
			for _, wait := range out.UnderWay.WaitsFor {
				t.row("", cut(attempts.ReplaceAllString(wait, ""), 160))
			}
		}
	}
	for _, revert := range p.Reverts {
		if revert.Lifted.IsZero() {
			t.row("Reverted:", revertText(revert))
			t.row("", "nothing is promoted into the channel; `fairway channel revert "+d.Channel+" --lift --reason ...` lets it go on")
		}
	}
	t.flush()
	for _, out := range d.Outgoing {
		showWaiting(t, out.Waiting)
	}
	showInto(t, p.Records)
	if len(p.Refused) > 0 {
		t.line("")
		t.row("REFUSED", "FROM", "PULL REQUEST", "BY", "SINCE")
		for _, refusal := range p.Refused[max(0, len(p.Refused)-listedLandings):] {
			t.row(shortCommit(refusal.Candidate), refusal.From, numberText(refusal.PullRequest), refusal.By, age(refusal.At))
		}
		t.flush()
	}
	showOdd(t, p.Soak.Landings)
	if len(d.Lacking) > 0 {
		t.line("")
		t.row("LACKED BY", "COMMIT", "PULL REQUEST", "AUTHOR", "TITLE")
		for _, lacking := range d.Lacking[:min(len(d.Lacking), 2*listedLandings)] {
			t.row(lacking.Missing, shortCommit(lacking.Commit), numberText(lacking.PullRequest), cut(lacking.Author, 30), cut(lacking.Title, 80))
		}
		t.flush()
		if more := len(d.Lacking) - 2*listedLandings; more > 0 {
			t.line("%d more; -o json has all.", more)
		}
	}
	for _, unknown := range d.Unknown {
		t.line("Not known: %s", cut(unknown, 200))
	}
}

// soaks says whether something waits for an edge out of the channel, or may do so. Where nothing does, the
// health of the clusters is looked at no more, which is no problem of theirs.
func (d describedChannel) soaks() bool {
	return slices.ContainsFunc(d.Outgoing, func(o outgoingEdge) bool {
		return o.Candidate != nil || len(o.Waiting) > 0 || o.UnderWay != nil || o.Why == ""
	})
}

// soakText says whether the clock of a channel runs.
func soakText(s promotion.Soak) string {
	if len(s.Held) > 0 {
		return "stands still, because:"
	}
	return "runs; every cluster is healthy and nothing is blocked"
}

func (o outgoingEdge) text(now time.Time) string {
	switch {
	case o.UnderWay != nil:
		return o.UnderWay.text()
	case o.Go && o.Candidate != nil:
		return "due now: " + landingText(*o.Candidate)
	case o.Due.After(now):
		return fmt.Sprintf("due in %s, if nothing stops the clock. %s", short(o.Due.Sub(now)), cut(o.Why, 160))
	}
	return cmp.Or(cut(o.Why, 200), "nothing is known")
}

func revertText(r promotion.Revert) string {
	text := fmt.Sprintf("to %s, by %s: %s (%s, %s stopped)", shortCommit(r.To), cmp.Or(r.By, "nobody knows whom"), cut(r.Reason, 100), r.ID, counted(len(r.Bad), "landing"))
	if r.Commit == "" && r.PullRequest > 0 {
		text += fmt.Sprintf("; pull request #%d has to be merged", r.PullRequest)
	}
	return text
}

// showInto shows the last promotions into a channel, the newest first.
func showInto(t *table, records []promotion.Record) {
	if len(records) == 0 {
		return
	}
	t.line("")
	t.row("PROMOTED", "FROM", "OUTCOME", "ENDED", "COMMITS", "BY", "PULL REQUEST", "TITLE")
	for i, r := range slices.Backward(records) {
		if i < len(records)-listedLandings {
			break
		}
		t.row(shortCommit(r.Candidate), r.From, r.Outcome, age(r.Ended), r.Carried, r.By, numberText(r.PullRequest), cut(r.Title, 60))
	}
	t.flush()
}

// showOdd shows landings that got onto the channel in a way that was not meant, the newest first.
func showOdd(t *table, landings []promotion.Landing) {
	why := map[promotion.Kind]string{
		promotion.Mixed:  "carries what another channel has and what none has",
		promotion.Direct: "was pushed without a pull request",
	}
	shown := 0
	for _, landing := range slices.Backward(landings) {
		if why[landing.Kind] == "" || shown == listedLandings {
			continue
		}
		if shown == 0 {
			t.line("")
			t.row("NEITHER PROMOTION NOR HOTFIX", "LANDED", "AUTHOR", "WHY", "TITLE")
		}
		shown++
		t.row(shortCommit(landing.Commit), age(landing.At), cut(landing.Author, 30), why[landing.Kind], cut(landing.Title, 60))
	}
	t.flush()
}

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
	for _, revert := range reverts {
		if revert.Lifted.IsZero() {
			out = append(out, revert.ID+"\t"+cut(revert.Reason, 60))
		}
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
	switch len(r.Clusters) {
	case 0:
		t.line("No cluster follows the channel.")
	default:
		t.line("%s the channel, and %s to the restored content in waves, canaries first: %s.", capital(countVerb(len(r.Clusters), "cluster", "follows", "follow")),
			map[bool]string{true: "goes", false: "go"}[len(r.Clusters) == 1], strings.Join(r.Clusters[:min(len(r.Clusters), listedLandings)], ", "))
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
