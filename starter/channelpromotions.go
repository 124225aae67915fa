package main

import (
	"cmp"
	"fmt"
	"slices"
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
	reverts := unlifted(p.Reverts)
	if len(d.Outgoing)+len(reverts) > 0 {
		t.line("")
	}
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
	for _, revert := range reverts {
		t.row("Reverted:", revertText(revert))
		t.row("", "nothing is promoted into the channel; `fairway channel revert "+d.Channel+" --lift --reason ...` lets it go on")
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

// unlifted are the reverts that keep promotions out.
func unlifted(reverts []promotion.Revert) (out []promotion.Revert) {
	for _, revert := range reverts {
		if revert.Lifted.IsZero() {
			out = append(out, revert)
		}
	}
	return out
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
