package workflows

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/fairway-project/fairway/promotion"
)

// Bounds of what a channel's actor remembers of promotions.
const (
	mostRecords  = 50
	mostRefused  = 100
	mostReverts  = 20
	mostOfRecord = 20 // gates and approvals
)

// hearPromotions takes the ends of promotions into the channel, and reverts of it.
func (c *channelActor) hearPromotions(ctx workflow.Context, selector workflow.Selector) {
	hear(ctx, selector, PromotedName, func(record promotion.Record) {
		if record.To != c.Channel || record.ID == "" {
			workflow.GetLogger(ctx).Error("a promotion was not understood and is left out", "id", record.ID, "to", record.To)
			return
		}
		c.promoted(record)
		c.news = true
	})
	hear(ctx, selector, RevertedName, func(revert promotion.Revert) {
		if revert.ID == "" || revert.To == "" {
			workflow.GetLogger(ctx).Error("a revert was not understood and is left out", "id", revert.ID)
			return
		}
		c.reverted(workflow.Now(ctx), revert)
		c.news = true
	})
}

// promoted remembers a promotion. What is older than what is known of the same one is no news.
func (c *channelActor) promoted(r promotion.Record) {
	p := &c.Promotions
	known := slices.IndexFunc(p.Records, func(each promotion.Record) bool { return each.ID == r.ID })
	if known >= 0 {
		if last := p.Records[known]; cmp.Or(r.Began.Compare(last.Began), r.Ended.Compare(last.Ended)) < 0 {
			return
		}
		p.Records = slices.Delete(p.Records, known, known+1)
	}
	r.Title, r.Detail, r.Reason = forPeople(r.Title), forPeople(r.Detail), forPeople(r.Reason)
	r.Approvals, r.Gates = r.Approvals[:min(len(r.Approvals), mostOfRecord)], slices.Clone(r.Gates[:min(len(r.Gates), mostOfRecord)])
	for i := range r.Gates {
		r.Gates[i].Detail = forPeople(r.Gates[i].Detail)
	}
	p.Records = append(p.Records, r)
	p.Records = p.Records[max(0, len(p.Records)-mostRecords):]
	if r.Outcome != promotion.Refused {
		return
	}
	p.Refused = slices.DeleteFunc(p.Refused, func(each promotion.Refusal) bool { return each.From == r.From && each.Candidate == r.Candidate })
	p.Refused = append(p.Refused, promotion.Refusal{From: r.From, Candidate: r.Candidate, PullRequest: r.PullRequest, By: r.ClosedBy, At: r.Ended})
	p.Refused = p.Refused[max(0, len(p.Refused)-mostRefused):]
}

// merged is the newest landing of each other channel that a promotion has brought here.
func (c *channelActor) merged() map[string]string {
	merged := map[string]string{}
	for _, r := range c.Promotions.Records {
		if r.Outcome == promotion.Merged {
			merged[r.From] = r.Candidate
		}
	}
	return merged
}

// reverted remembers that the channel is set back, and has people told once. What is told later of the
// same revert says how far it is; it does not take back that somebody has lifted it.
func (c *channelActor) reverted(now time.Time, r promotion.Revert) {
	p := &c.Promotions
	r.Reason, r.By = forPeople(r.Reason), cmp.Or(forPeople(r.By), nobody)
	r.Bad = r.Bad[:min(len(r.Bad), promotion.MostLandings)]
	if known := slices.IndexFunc(p.Reverts, func(each promotion.Revert) bool { return each.ID == r.ID }); known >= 0 {
		last := &p.Reverts[known]
		last.Commit, last.PullRequest = cmp.Or(r.Commit, last.Commit), cmp.Or(r.PullRequest, last.PullRequest)
		if len(r.Bad) > 0 {
			last.Head, last.Bad = cmp.Or(r.Head, last.Head), r.Bad
		}
		if last.Lifted.IsZero() {
			last.Lifted, last.LiftedBy = r.Lifted, r.LiftedBy
		}
		return
	}
	if r.At.IsZero() || r.At.After(now) {
		r.At = now
	}
	if len(p.Reverts) >= mostReverts { // rather forget one that holds up nothing
		oldest := max(0, slices.IndexFunc(p.Reverts, func(each promotion.Revert) bool { return !each.Lifted.IsZero() }))
		p.Reverts = slices.Delete(p.Reverts, oldest, oldest+1)
	}
	p.Reverts = append(p.Reverts, r)
	if r.Lifted.IsZero() {
		c.notes = append(c.notes, note{r.ID, ChannelReverted, fmt.Sprintf(
			"%s sets channel %s back to %s: %s. What has landed after that, up to %s, is promoted nowhere, and nothing is promoted into the channel until somebody lifts the revert.",
			r.By, c.Channel, commitName(r.To, ""), strings.TrimSuffix(r.Reason, "."), commitName(r.Head, ""))})
	}
}

// handleLift lets people say that promotions into the channel go on in spite of a revert.
func (c *channelActor) handleLift(ctx workflow.Context) error {
	return workflow.SetUpdateHandlerWithOptions(ctx, LiftRevertName,
		func(ctx workflow.Context, request LiftRevert) ([]promotion.Revert, error) {
			lifted := c.lift(workflow.Now(ctx), request)
			c.news = true
			return lifted, nil
		},
		workflow.UpdateHandlerOptions{Validator: c.checkLift, Description: "let promotions into the channel go on in spite of a revert"})
}

func (c *channelActor) checkLift(request LiftRevert) error {
	switch {
	case strings.TrimSpace(request.Reason) == "":
		return temporal.NewApplicationError("lifting a revert needs a reason: it stays in the history", InvalidInput)
	case slices.ContainsFunc(c.Promotions.Reverts, request.means):
		return nil
	case request.ID == "":
		return temporal.NewApplicationError(fmt.Sprintf("channel %s has no revert that is to be lifted", c.Channel), InvalidInput)
	}
	return temporal.NewApplicationError(fmt.Sprintf("channel %s has no revert %q that is to be lifted", c.Channel, request.ID), InvalidInput)
}

// means says whether a revert is to be lifted.
func (l LiftRevert) means(r promotion.Revert) bool {
	return r.Lifted.IsZero() && (l.ID == "" || l.ID == r.ID)
}

func (c *channelActor) lift(now time.Time, request LiftRevert) []promotion.Revert {
	lifted := []promotion.Revert{}
	for i := range c.Promotions.Reverts {
		if r := &c.Promotions.Reverts[i]; request.means(*r) {
			r.Lifted, r.LiftedBy = now, cmp.Or(forPeople(request.By), nobody)
			lifted = append(lifted, *r)
		}
	}
	return lifted
}

// revertDetails is a paragraph for people; empty where nothing is reverted.
func (c *channelActor) revertDetails() string {
	var lines []string
	for _, r := range c.Promotions.Reverts {
		if !r.Lifted.IsZero() {
			continue
		}
		line := fmt.Sprintf("\n- `%s` to `%s` by %s at %s: %s", r.ID, commitName(r.To, ""), r.By, r.At.UTC().Format(time.RFC3339), r.Reason)
		switch {
		case r.Commit != "":
			line += fmt.Sprintf(" (done by `%s`)", commitName(r.Commit, ""))
		case r.PullRequest > 0:
			line += fmt.Sprintf(" (waits for pull request %d)", r.PullRequest)
		}
		lines = append(lines, line)
	}
	if len(lines) == 0 {
		return ""
	}
	return "**Reverted**: nothing is promoted into this channel until these are lifted.\n" + strings.Join(lines, "")
}
