package promotions

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"

	"github.com/fairway-project/fairway/activities"
	"github.com/fairway-project/fairway/activities/failures"
	"github.com/fairway-project/fairway/channels"
	"github.com/fairway-project/fairway/forge"
	"github.com/fairway-project/fairway/promotion"
	"github.com/fairway-project/fairway/prose"
	"github.com/fairway-project/fairway/workflows"
)

// everyLook is the time between two looks at a pull request where the pipeline does not say it.
const everyLook = time.Minute

// lagging is how long a merge may be known to the forge before git shows it.
const lagging = 5 * time.Minute

// mostApprovals bounds those that are kept with a promotion.
const mostApprovals = 20

// FollowPromotion implements workflows.Promotions. What goes wrong outside ends nothing: it is one more
// thing that is waited for.
func (a *Activities) FollowPromotion(ctx context.Context, in workflows.PromotionOf) (record promotion.Record, err error) {
	ctx, end := failures.Begin(ctx, "following the pull request of "+in.ID)
	defer end(&err)
	if err := a.needForge(); err != nil {
		return record, err
	}
	if in.ID != promotion.ID(in.From, in.To, in.Candidate) || in.Began.IsZero() {
		return record, failures.Invalid("%q is not the id of the promotion of %q from %s to %s, or its beginning is missing", prose.Line(in.ID, prose.Title), prose.Line(in.Candidate, prose.Title), in.From, in.To)
	}
	record, err = a.follow(ctx, in)
	return record, a.patient(ctx, err)
}

// patient turns what goes wrong into waiting.
func (a *Activities) patient(ctx context.Context, err error) error {
	waits, limited := (*temporal.ApplicationError)(nil), (*forge.LimitedError)(nil)
	every := cmp.Or(a.Pipeline.Every, everyLook)
	switch {
	case err == nil, ctx.Err() != nil, errors.Is(err, activities.ErrStopping), errors.As(err, &waits) && waits.Type() == workflows.NotYet:
		return err
	case errors.As(err, &limited):
		every = max(every, failures.Limited(limited))
	}
	activity.GetLogger(ctx).Warn("a pull request cannot be looked at", "error", err)
	return notYet(every, "%s", failures.Text(err))
}

func (a *Activities) follow(ctx context.Context, in workflows.PromotionOf) (promotion.Record, error) {
	record := in.Record
	edge, configured := a.Pipeline.Edge(in.From, in.To)
	if !configured {
		edge = promotion.Edge{From: in.From, To: in.To}
	}
	pr, err := a.followed(ctx, edge, record)
	if err != nil {
		return record, err
	}
	record.PullRequest, record.URL = pr.Number, pr.URL
	heads, err := a.heads(ctx) // after the pull request, so that the target has what was merged
	if err != nil {
		return record, err
	}
	if heads[edge.To] == "" {
		if configured {
			return record, failures.Invalid("the configuration repository has no branch %q any more", prose.Line(edge.To, prose.Title))
		}
		return a.withdraw(ctx, edge, record, promotion.Withdrawn, fmt.Sprintf("There is no channel %s any more.", prose.Code(edge.To, prose.Title)))
	}
	reviews, unread := a.reviews(ctx, edge, record, pr) // what is over is so without them, too
	record.Approvals = reviews.approvals[:min(len(reviews.approvals), mostApprovals)]
	switch landed, found, err := a.landed(ctx, edge, record, heads[edge.To]); {
	case errors.Is(err, channels.ErrGone) && pr.State == forge.Closed: // with its branches
		return a.shut(ctx, edge, record, pr)
	case err != nil:
		return record, err
	case found:
		return a.arrived(ctx, edge, landed, pr)
	}
	switch {
	case pr.State == forge.Merged && pr.Base != edge.To:
		return a.over(record, promotion.Withdrawn, "Pull request %d was merged into %s instead.", pr.Number, prose.Line(pr.Base, prose.Title)), a.unpin(ctx, edge, record.Candidate)
	case pr.State == forge.Merged:
		lost, err := a.lost(ctx, pr.Merge, heads[edge.To])
		if err != nil {
			return record, err
		}
		if lost && a.now().Sub(pr.Updated) < lagging { // where the forge answers from copies of its own
			return record, notYet(cmp.Or(a.Pipeline.Every, everyLook), "pull request %d is merged as %s, which %s does not have yet", pr.Number, prose.Short(pr.Merge), edge.To)
		}
		return a.squashed(record, pr, lost), a.unpin(ctx, edge, record.Candidate)
	case pr.State == forge.Closed:
		return a.shut(ctx, edge, record, pr)
	}
	if unread != nil {
		return record, unread
	}
	if !configured {
		return a.withdraw(ctx, edge, record, promotion.Withdrawn, fmt.Sprintf("There is no promotion from %s to %s any more (pipeline.edges).", prose.Code(edge.From, prose.Title), prose.Code(edge.To, prose.Title)))
	}
	switch gone, err := a.rewritten(ctx, edge, record.Candidate, heads[edge.From]); {
	case err != nil:
		return record, err
	case gone:
		return a.withdraw(ctx, edge, record, promotion.Withdrawn, fmt.Sprintf("%s is not on %s any more, which somebody has rewritten.", prose.Code(prose.Short(record.Candidate), 40), prose.Code(edge.From, prose.Title)))
	}
	from, to, err := a.both(ctx, edge)
	if err != nil {
		return record, err
	}
	if why := a.tainted(edge, record.Candidate, from); why != "" {
		return a.withdraw(ctx, edge, record, promotion.Withdrawn, prose.Code(sentence(why), prose.Detail))
	}
	newer, err := a.newer(ctx, edge, in, from, to, heads[edge.To])
	if err != nil {
		return record, err
	}
	if newer != "" && (edge.PullRequest.Supersede == promotion.Always || edge.PullRequest.Supersede == promotion.Unapproved && len(reviews.approvals) == 0) {
		return a.withdraw(ctx, edge, record, promotion.Superseded, fmt.Sprintf("The newer candidate %s takes its place.", prose.Code(prose.Short(newer), 40)))
	}
	if record.Soaked == 0 {
		record.Soaked = soakedFor(from.Promotions.Soak, record.Candidate, a.now())
	}
	in.Record = record
	return a.wait(ctx, edge, in, pr, heads[edge.To], reviews, from, to, newer)
}

// followed is the pull request of a promotion.
func (a *Activities) followed(ctx context.Context, edge promotion.Edge, record promotion.Record) (forge.PullRequest, error) {
	number := record.PullRequest
	if number == 0 {
		found, err := a.Forge.FindPullRequest(ctx, edge.To, pinned(edge, record.Candidate))
		if err != nil {
			return forge.PullRequest{}, err
		}
		if found == nil {
			return forge.PullRequest{}, fmt.Errorf("%w: no pull request from %s", forge.ErrNotFound, pinned(edge, record.Candidate))
		}
		number = found.Number
	}
	return a.Forge.PullRequest(ctx, number)
}

// arrived ends a promotion whose candidate the target has, in whichever way it came there.
func (a *Activities) arrived(ctx context.Context, edge promotion.Edge, record promotion.Record, pr forge.PullRequest) (promotion.Record, error) {
	if pr.State == forge.Merged {
		record.MergedBy = prose.Line(pr.MergedBy, prose.Title)
		a.conclude(ctx, pr.Number, "**Merged**: "+prose.Code(record.Detail, prose.Detail))
	}
	if pr.State == forge.Open { // somebody has merged by hand, and the forge has not noticed
		if err := a.Forge.Comment(ctx, pr.Number, statusMarker, "**Merged**: "+prose.Code(record.Detail, prose.Detail)); err != nil {
			return record, err
		}
		if err := a.Forge.Close(ctx, pr.Number); err != nil {
			return record, err
		}
	}
	return record, a.unpin(ctx, edge, record.Candidate)
}

// shut ends a promotion whose pull request is closed.
func (a *Activities) shut(ctx context.Context, edge promotion.Edge, record promotion.Record, pr forge.PullRequest) (promotion.Record, error) {
	outcome, err := a.closedBy(ctx, pr.Number)
	if err != nil {
		return record, err
	}
	if err := a.unpin(ctx, edge, record.Candidate); err != nil {
		return record, err
	}
	if outcome != promotion.Refused {
		return a.over(record, outcome, "Fairway has closed pull request %d.", pr.Number), nil
	}
	record.ClosedBy = prose.Line(pr.ClosedBy, prose.Title)
	a.conclude(ctx, pr.Number, fmt.Sprintf("**Refused**: %s is not proposed again along `%s`; what lands later is.", prose.Code(prose.Short(record.Candidate), 40), edge.Name()))
	return a.over(record, outcome, "Pull request %d was closed by %s.", pr.Number, cmp.Or(record.ClosedBy, "somebody")), nil
}

// conclude has the comment say how it ended. What has ended does not depend on that.
func (a *Activities) conclude(ctx context.Context, number int, text string) {
	if err := a.Forge.Comment(ctx, number, statusMarker, text); err != nil && ctx.Err() == nil {
		activity.GetLogger(ctx).Warn("the comment on a pull request does not say how it ended", "pull_request", number, "error", err)
	}
}

// reviews of a pull request, as far as they count.
type reviewed struct {
	needed                int
	approvals, rejections []string
	ignored               []string // why approvals do not count
}

// reviews counts approvals of exactly the candidate, by people other than the author, who belong to the
// team or, without one, may push to the repository: anybody can approve what is public. A rejection
// holds whatever it was about.
func (a *Activities) reviews(ctx context.Context, edge promotion.Edge, record promotion.Record, pr forge.PullRequest) (reviewed, error) {
	counted := reviewed{needed: 1}
	if edge.PullRequest.Approvals != nil {
		counted.needed = *edge.PullRequest.Approvals
	}
	if edge.Mode == promotion.Merge { // it is a pull request because a person is needed
		counted.needed = max(1, counted.needed)
	}
	all, err := a.Forge.Reviews(ctx, pr.Number)
	if err != nil {
		return counted, err
	}
	self, err := a.Forge.Self(ctx)
	if err != nil {
		return counted, err
	}
	for _, review := range all {
		ignore := func(format string, args ...any) {
			counted.ignored = append(counted.ignored, fmt.Sprintf("The approval of %s does not count: ", prose.Code(review.User, prose.Title))+fmt.Sprintf(format, args...))
		}
		switch {
		case review.State == forge.Rejected:
			counted.rejections = append(counted.rejections, review.User)
			continue
		case review.State != forge.Approved:
			continue
		case strings.EqualFold(review.User, pr.Author) || strings.EqualFold(review.User, self): // whoever has opened it
			ignore("authors do not approve.")
			continue
		case review.Commit != record.Candidate:
			ignore("it is of %s.", prose.Code(prose.Short(review.Commit), 40))
			continue
		}
		may, what := false, "the user may not push to the repository."
		if team := edge.PullRequest.Team; team != "" {
			may, err = a.Forge.Member(ctx, team, review.User)
			what = fmt.Sprintf("the user is not in the team %s.", prose.Code(team, prose.Title))
			if errors.Is(err, forge.ErrNotFound) {
				err, what = nil, fmt.Sprintf("there is no team %s.", prose.Code(team, prose.Title))
			}
		} else {
			may, err = a.Forge.CanWrite(ctx, review.User)
		}
		switch {
		case err != nil:
			return counted, err
		case !may:
			ignore("%s", what)
		default:
			counted.approvals = append(counted.approvals, review.User)
		}
	}
	return counted, nil
}

// newer is a newer candidate, whose gates are passed if it may take the place of this one; empty if there
// is none.
func (a *Activities) newer(ctx context.Context, edge promotion.Edge, in workflows.PromotionOf, from, to workflows.ChannelState, head string) (string, error) {
	soak := from.Promotions.Soak
	choice, err := promotion.Choose(edge, soak, a.question(edge, from, to, workflows.ChoosePromotion{From: in.From, To: in.To}, func(commit string) (bool, error) {
		return a.Repository.Contains(ctx, commit, head)
	}))
	if err != nil || choice.Candidate == nil || soak.Index(choice.Candidate.Commit) <= soak.Index(in.Candidate) {
		return "", err
	}
	newer := choice.Candidate.Commit
	if supersede := edge.PullRequest.Supersede; supersede == promotion.Always || supersede == promotion.Unapproved {
		if _, missed := judged(edge, a.gates(ctx, edge, newer, nil, from), nil); missed != "" {
			return "", ctx.Err()
		}
	}
	return newer, nil
}

// wait looks at all that a merge needs, merges if that is configured and nothing is missing, and
// otherwise says what is.
func (a *Activities) wait(ctx context.Context, edge promotion.Edge, in workflows.PromotionOf, pr forge.PullRequest, head string, reviews reviewed, from, to workflows.ChannelState, newer string) (promotion.Record, error) {
	shown := view{needed: reviews.needed, approvals: reviews.approvals, rejections: reviews.rejections, notes: reviews.ignored}
	if newer != "" {
		shown.notes = append(shown.notes, fmt.Sprintf("The newer candidate %s waits for the end of this one.", prose.Code(prose.Short(newer), 40)))
	}
	var waits []string // in markdown, what stands in the way first
	hold := func(format string, args ...any) { waits = append(waits, fmt.Sprintf(format, args...)) }
	if pr.HeadCommit != in.Candidate {
		hold("Somebody has moved the branch to %s: Fairway merges nothing but %s.", prose.Code(prose.Short(pr.HeadCommit), 40), prose.Code(prose.Short(in.Candidate), 40))
	}
	if pr.Base != edge.To {
		hold("Somebody has turned the pull request to %s: Fairway merges into %s only.", prose.Code(pr.Base, prose.Title), prose.Code(edge.To, prose.Title))
	}
	if pr.Draft {
		hold("It is a draft.")
	}
	if reverted := standing(edge.To, to); reverted != "" {
		hold("%s", prose.Code(sentence(reverted), 2*prose.Detail))
	}
	_, conflict, err := a.merge(ctx, in.Record, head)
	if err != nil {
		return in.Record, err
	}
	if conflict != nil {
		hold("%s", prose.Code(explained(edge, *conflict), 2*prose.Detail))
	}
	if len(reviews.rejections) > 0 {
		hold("Changes are requested by %s.", names(reviews.rejections))
	}
	if missing := reviews.needed - len(reviews.approvals); missing > 0 {
		hold("It waits for %s of %s.", prose.Counted(missing, "approval"), prose.Code(prose.Short(in.Candidate), 40))
	}
	shown.verdicts = a.gates(ctx, edge, in.Candidate, in.SkipGates, from)
	if err := ctx.Err(); err != nil {
		return in.Record, err
	}
	missed := ""
	if in.Gates, missed = judged(edge, shown.verdicts, in.SkipGates); missed != "" {
		hold("It waits for its gates.")
	}
	if reason, _ := a.closed(edge); reason != "" && !in.Now {
		shown.window = reason
		hold("It waits for a window.")
	}
	if shown.blocked, err = a.blocked(ctx, edge); err != nil { // asked for last
		return in.Record, err
	}
	if shown.blocked != "" {
		hold("It is blocked.")
	}
	if len(waits) == 0 && edge.PullRequest.Automerge {
		merge, err := a.Forge.Merge(ctx, pr.Number, in.Candidate, mergeTitle(in.Record), mergeMessage(in.Record, reviews.approvals))
		switch {
		case err == nil:
			heads, err := a.heads(ctx, edge.To)
			if err != nil {
				return in.Record, err
			}
			// Somebody may have turned it to another branch in the last moment: that is for the next look.
			if lost, err := a.lost(ctx, merge, heads[edge.To]); lost || err != nil {
				return in.Record, cmp.Or(err, notYet(cmp.Or(a.Pipeline.Every, everyLook), "pull request %d is merged as %s, which %s does not have yet", pr.Number, prose.Short(merge), edge.To))
			}
			in.Merge, in.MergedBy = merge, pr.Author
			return a.over(in.Record, promotion.Merged, "Merged into %s as %s by pull request %d.", edge.To, prose.Short(merge), pr.Number), a.tidy(ctx, edge, in.Record, merge)
		case !errors.Is(err, forge.ErrNotMergeable) && !errors.Is(err, forge.ErrMoved):
			return in.Record, err
		}
		hold("The forge does not merge it: %s", prose.Code(failures.Text(err), prose.Detail))
	}
	if len(waits) == 0 {
		hold("It is approved, and nothing is missing: a person merges it.")
	}
	shown.headline = waits[0]
	shown.notes = append(waits[1:], shown.notes...)
	if err := a.Forge.Comment(ctx, pr.Number, statusMarker, status(shown)); err != nil {
		return in.Record, err
	}
	why := strings.ReplaceAll(strings.Join(waits, " "), "`", "")
	return in.Record, notYet(cmp.Or(a.Pipeline.Every, everyLook), "pull request %d: %s", pr.Number, prose.Line(strings.TrimSpace(why+" "+missed), 2*prose.Detail))
}

// tidy removes what a promotion that is merged needs no more. If that fails it is left: the merge is done.
func (a *Activities) tidy(ctx context.Context, edge promotion.Edge, record promotion.Record, head string) error {
	a.closeConflict(ctx, edge, record, head)
	if err := a.unpin(ctx, edge, record.Candidate); err != nil && ctx.Err() == nil {
		activity.GetLogger(ctx).Warn("the branch of a promotion that is merged was not deleted", "promotion", record.ID, "error", err)
	}
	return nil
}
