package promotions

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"

	"go.temporal.io/sdk/activity"

	"github.com/fairway-project/fairway/activities/failures"
	"github.com/fairway-project/fairway/channels"
	"github.com/fairway-project/fairway/forge"
	"github.com/fairway-project/fairway/promotion"
	"github.com/fairway-project/fairway/prose"
	"github.com/fairway-project/fairway/workflows"
)

// OpenPromotion implements workflows.Promotions. The branch of a candidate has at most one pull request
// that is open or that people have ended, and it is found again by that branch.
func (a *Activities) OpenPromotion(ctx context.Context, in workflows.PromotionOf) (record promotion.Record, err error) {
	ctx, end := failures.Begin(ctx, "opening a pull request for "+in.ID)
	defer end(&err)
	if err := a.needForge(); err != nil {
		return record, err
	}
	edge, heads, err := a.opening(ctx, in)
	if err != nil {
		return record, err
	}
	record = in.Record
	head := heads[edge.To]
	if landed, found, err := a.landed(ctx, edge, record, head); found || err != nil {
		return landed, err
	}
	switch gone, err := a.rewritten(ctx, edge, record.Candidate, heads[edge.From]); {
	case err != nil:
		return record, err
	case gone:
		return a.over(record, promotion.Held, "%s.", leftBehind(edge.From, record.Candidate)), nil
	}
	merge, conflict, err := a.merge(ctx, record, head)
	if err != nil {
		return record, err
	}
	branch := pinned(edge, record.Candidate)
	found, err := a.Forge.FindPullRequest(ctx, edge.To, branch)
	if err != nil {
		return record, err
	}
	if found == nil || found.State != forge.Open {
		if found != nil {
			over, outcome, err := a.before(ctx, in, *found, head)
			if outcome || err != nil {
				return over, err
			}
		}
		if conflict != nil {
			return a.over(record, promotion.Conflicted, "%s", explained(edge, *conflict)), nil
		}
		switch at := heads[branch]; {
		case at != "" && at != record.Candidate:
			return record, failures.Invalid("branch %s is at %s, where Fairway has not put it; delete it, so that the promotion of %s can begin", branch, prose.Short(at), prose.Short(record.Candidate))
		case at == "":
			if err := a.Repository.Push(ctx, branch, record.Candidate, ""); err != nil {
				return record, err
			}
		}
	}
	from, err := a.channel(ctx, edge.From)
	if err != nil {
		return record, err
	}
	if record.Soaked == 0 {
		record.Soaked = soakedFor(from.Promotions.Soak, record.Candidate, a.now())
	}
	report, _, err := a.report(ctx, edge, record.Candidate, head, merge)
	if err != nil {
		return record, err
	}
	title, text := mergeTitle(record), body(edge, record, report)
	opened, err := a.Forge.Open(ctx, forge.NewPullRequest{
		Head: branch, Base: edge.To, Title: title, Body: text,
		Labels: edge.PullRequest.Labels, Reviewers: edge.PullRequest.Reviewers,
	})
	if err != nil {
		return record, err
	}
	self, err := a.Forge.Self(ctx)
	if err != nil {
		return record, err
	}
	if !strings.EqualFold(opened.Author, self) { // people approve what Fairway says, not what somebody else does
		if err := a.Forge.Edit(ctx, opened.Number, title, text); err != nil {
			return record, err
		}
	}
	for _, warning := range opened.Warnings {
		activity.GetLogger(ctx).Warn("a pull request is not quite as configured", "promotion", record.ID, "warning", warning)
	}
	record.PullRequest, record.URL, record.Class, record.Mode = opened.Number, opened.URL, report.Class, promotion.ByPullRequest
	record.Carried = len(report.Commits) + report.Omitted
	return record, nil
}

// before says whether a pull request of the candidate that is over ends the promotion. One that Fairway
// has closed does not, nor one that was closed before a person asked for it again.
func (a *Activities) before(ctx context.Context, in workflows.PromotionOf, found forge.PullRequest, head string) (promotion.Record, bool, error) {
	record := in.Record
	record.PullRequest, record.URL = found.Number, found.URL
	if found.State == forge.Merged {
		lost, err := a.lost(ctx, found.Merge, head)
		if err != nil || lost && in.Now { // a person brings again what was taken away
			return record, false, err
		}
		return a.squashed(record, found, lost), true, nil
	}
	if in.By != "" && found.Updated.Before(in.Began) {
		return record, false, nil
	}
	outcome, err := a.closedBy(ctx, found.Number)
	if err != nil || outcome != promotion.Refused {
		return record, false, err
	}
	return a.refused(ctx, record)
}

// refused asks the forge once more: who closed a pull request it tells only when asked for that one.
func (a *Activities) refused(ctx context.Context, record promotion.Record) (promotion.Record, bool, error) {
	found, err := a.Forge.PullRequest(ctx, record.PullRequest)
	if err != nil {
		return record, false, err
	}
	record.ClosedBy = prose.Line(found.ClosedBy, prose.Title)
	return a.over(record, promotion.Refused, "Pull request %d was closed by %s.", record.PullRequest, cmp.Or(record.ClosedBy, "somebody")), true, nil
}

// squashed is a promotion whose pull request was merged so that the target does not contain the candidate.
func (a *Activities) squashed(record promotion.Record, found forge.PullRequest, lost bool) promotion.Record {
	record.Merge, record.MergedBy = found.Merge, prose.Line(found.MergedBy, prose.Title)
	if lost {
		return a.over(record, promotion.Merged, "Pull request %d was merged as %s, which somebody has taken away from %s: it was rewritten.", found.Number, prose.Short(found.Merge), record.To)
	}
	return a.over(record, promotion.Merged, "Pull request %d was merged without the commit itself, such as by squashing: git cannot tell that %s has it.", found.Number, record.To)
}

// lost says whether a head of the target does not have a merge that was there.
func (a *Activities) lost(ctx context.Context, merge, head string) (bool, error) {
	if merge == "" { // nobody knows
		return false, nil
	}
	contained, err := a.Repository.Contains(ctx, merge, head)
	if errors.Is(err, channels.ErrGone) {
		return true, nil
	}
	return err == nil && !contained, err
}

// closedBy says who has closed a pull request that is closed: Fairway, by the marker in its own comment,
// or a person.
func (a *Activities) closedBy(ctx context.Context, number int) (promotion.Outcome, error) {
	text, _, err := a.Forge.OwnComment(ctx, number, statusMarker)
	switch {
	case err != nil:
		return "", err
	case marked(text, supersededMarker):
		return promotion.Superseded, nil
	case marked(text, withdrawnMarker):
		return promotion.Withdrawn, nil
	}
	return promotion.Refused, nil
}

// WithdrawPromotion implements workflows.Promotions.
func (a *Activities) WithdrawPromotion(ctx context.Context, in workflows.PromotionOf) (err error) {
	ctx, end := failures.Begin(ctx, "withdrawing "+in.ID)
	defer end(&err)
	if err := a.needRepository(); err != nil {
		return err
	}
	edge := promotion.Edge{From: in.From, To: in.To} // it may be gone from the configuration
	if in.PullRequest == 0 && a.Forge != nil {
		found, err := a.Forge.FindPullRequest(ctx, edge.To, pinned(edge, in.Candidate))
		if err != nil {
			return err
		}
		if found != nil {
			in.PullRequest = found.Number
		}
	}
	if in.PullRequest == 0 {
		return a.unpin(ctx, edge, in.Candidate)
	}
	if err := a.needForge(); err != nil {
		return err
	}
	why := "The promotion was cancelled."
	if in.Detail != "" { // who did it, and why
		why = prose.Code(in.Detail, prose.Detail)
	}
	_, err = a.withdraw(ctx, edge, in.Record, promotion.Withdrawn, why)
	return err
}

// withdraw closes the pull request of a promotion, having said why, and deletes its branch. Somebody may
// merge it in the last moment.
func (a *Activities) withdraw(ctx context.Context, edge promotion.Edge, record promotion.Record, outcome promotion.Outcome, why string) (promotion.Record, error) {
	found, err := a.Forge.PullRequest(ctx, record.PullRequest)
	if errors.Is(err, forge.ErrNotFound) {
		return a.over(record, outcome, "%s", why), a.unpin(ctx, edge, record.Candidate)
	}
	if err != nil {
		return record, err
	}
	if found.State == forge.Open {
		if err := a.Forge.Comment(ctx, record.PullRequest, statusMarker, ended(outcome, why)); err != nil {
			return record, err
		}
		if err := a.Forge.Close(ctx, record.PullRequest); err != nil {
			return record, err
		}
		if found, err = a.Forge.PullRequest(ctx, record.PullRequest); err != nil {
			return record, err
		}
	}
	if err := a.unpin(ctx, edge, record.Candidate); err != nil {
		return record, err
	}
	if found.State == forge.Merged {
		record.Merge, record.MergedBy = found.Merge, prose.Line(found.MergedBy, prose.Title)
		return a.over(record, promotion.Merged, "Pull request %d was merged before it could be closed.", record.PullRequest), nil
	}
	return a.over(record, outcome, "%s", why), nil
}

// unpin deletes the branch of a candidate, unless somebody has put something else there. One that nobody may
// delete is left: it keeps no promotion alive.
func (a *Activities) unpin(ctx context.Context, edge promotion.Edge, candidate string) error {
	err := a.Repository.DeleteBranch(ctx, pinned(edge, candidate), candidate)
	switch {
	case errors.Is(err, channels.ErrProtected), errors.Is(err, channels.ErrRefused):
		activity.GetLogger(ctx).Warn("the branch of a promotion that is over was not deleted", "branch", pinned(edge, candidate), "error", err)
		return nil
	case errors.Is(err, channels.ErrMoved):
		return nil
	}
	return err
}

// body is what a pull request says of a promotion.
func body(edge promotion.Edge, record promotion.Record, report promotion.Report) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Fairway promotes %s from %s to %s", prose.Code(record.Candidate, 40), prose.Code(edge.From, prose.Title), prose.Code(edge.To, prose.Title))
	if record.By != "" {
		fmt.Fprintf(&b, ", asked by %s", prose.Code(record.By, prose.Title))
	}
	if record.Reason != "" {
		fmt.Fprintf(&b, " because of %s", prose.Code(record.Reason, prose.Detail))
	}
	fmt.Fprintf(&b, ".\n\nClass of the change: **%s**. %s\n\n", report.Class, prose.Code(report.Why, prose.Detail))
	if len(report.Clusters) == 0 {
		fmt.Fprintf(&b, "No cluster follows %s.\n", prose.Code(edge.To, prose.Title))
	} else {
		fmt.Fprintf(&b, "Clusters of %s: %s.\n", prose.Code(edge.To, prose.Title), names(report.Clusters))
	}
	fmt.Fprintf(&b, "\n### %s\n\n", prose.Counted(len(report.Commits)+report.Omitted, "commit"))
	listed := 0
	for _, change := range report.Commits[:min(len(report.Commits), mostAsked)] {
		if b.Len() > longList {
			break
		}
		listed++
		fmt.Fprintf(&b, "- %s %s, %s", prose.Code(prose.Short(change.Commit), 40), prose.Code(change.Title, prose.Title), prose.Code(change.Author, prose.Title))
		if change.PullRequest > 0 {
			fmt.Fprintf(&b, ", pull request %d", change.PullRequest)
		}
		if len(change.Labels) > 0 {
			fmt.Fprintf(&b, " (%s)", names(change.Labels))
		}
		b.WriteString("\n")
	}
	if more := len(report.Commits) + report.Omitted - listed; more > 0 {
		fmt.Fprintf(&b, "- and %d more\n", more)
	}
	b.WriteString("\n### What changes\n\n")
	listed = 0
	for _, area := range report.Areas[:min(len(report.Areas), mostAsked)] {
		if b.Len() > longList+longList/2 {
			break
		}
		listed++
		fmt.Fprintf(&b, "- %s: %s\n", prose.Code(area.Name, prose.Title), prose.Counted(len(area.Files)+area.Omitted, "file"))
	}
	if len(report.Areas) == 0 {
		b.WriteString("- no file\n")
	}
	if more := len(report.Areas) - listed; more > 0 {
		fmt.Fprintf(&b, "- and %d more areas\n", more)
	}
	fmt.Fprintf(&b, "\nThe branch stays on this commit. Closing the pull request refuses it: %s is not promoted again by itself. How far it is, is in a comment.\n", prose.Code(prose.Short(record.Candidate), 40))
	return b.String()
}
