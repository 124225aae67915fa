package promotions

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"go.temporal.io/sdk/activity"

	"github.com/fairway-project/fairway/activities/failures"
	"github.com/fairway-project/fairway/channels"
	"github.com/fairway-project/fairway/forge"
	"github.com/fairway-project/fairway/promotion"
	"github.com/fairway-project/fairway/prose"
	"github.com/fairway-project/fairway/workflows"
)

// MergePromotion implements workflows.Promotions. That the target contains the candidate is all that
// there is to remember of a merge: whatever dies between merge, push and record, the next attempt
// finds it there and makes no second one.
func (a *Activities) MergePromotion(ctx context.Context, in workflows.PromotionOf) (record promotion.Record, err error) {
	ctx, end := failures.Begin(ctx, "merging "+in.ID)
	defer end(&err)
	edge, heads, err := a.opening(ctx, in)
	if err != nil {
		return promotion.Record{}, err
	}
	var again time.Duration
	for {
		head := heads[edge.To]
		if record, found, err := a.landed(ctx, edge, in.Record, head); found || err != nil {
			return record, err
		}
		merge, conflict, err := a.merge(ctx, in.Record, head)
		switch {
		case err != nil:
			return promotion.Record{}, err
		case conflict != nil:
			return a.over(in.Record, promotion.Conflicted, "%s", explained(edge, *conflict)), nil
		}
		// Blocks are asked for last: what is blocked by now is not pushed.
		held, err := a.held(ctx, edge, &in, heads, merge)
		if err != nil {
			return promotion.Record{}, err
		}
		if held != "" {
			return a.over(in.Record, promotion.Held, "%s", held), nil
		}
		err = a.Repository.Push(ctx, edge.To, merge, head)
		switch {
		case err == nil:
			in.Merge = merge
			record := a.over(in.Record, promotion.Merged, "Merged into %s as %s.", edge.To, prose.Short(merge))
			a.closeConflict(ctx, edge, record, merge)
			return record, nil
		case errors.Is(err, channels.ErrProtected):
			return promotion.Record{}, fmt.Errorf("%w; allow Fairway to push to %s, or give the promotion %s the mode pull-request", err, edge.To, edge.Name())
		case !errors.Is(err, channels.ErrMoved) && !errors.Is(err, channels.ErrGone):
			return promotion.Record{}, err
		}
		// Somebody else was faster, or the merge has got lost: it is made again, with what is there now.
		if err := pause(ctx, again); err != nil {
			return promotion.Record{}, err
		}
		again = min(again*2+100*time.Millisecond, 5*time.Second)
		if heads, err = a.heads(ctx, edge.From, edge.To); err != nil {
			return promotion.Record{}, err
		}
	}
}

// opening is what activities about one promotion begin with.
func (a *Activities) opening(ctx context.Context, in workflows.PromotionOf) (promotion.Edge, map[string]string, error) {
	edge, err := a.edge(in.From, in.To)
	if err != nil {
		return edge, nil, err
	}
	if err := edge.CheckSkips(in.SkipGates); err != nil {
		return edge, nil, failures.Invalid("%v", err)
	}
	if in.ID != promotion.ID(in.From, in.To, in.Candidate) || in.Began.IsZero() {
		return edge, nil, failures.Invalid("%q is not the id of the promotion of %q along %s, or its beginning is missing", prose.Line(in.ID, prose.Title), prose.Line(in.Candidate, prose.Title), edge.Name())
	}
	heads, err := a.heads(ctx, edge.From, edge.To)
	return edge, heads, err
}

// landed says whether a head of the target has the candidate, and with which merge it came there.
func (a *Activities) landed(ctx context.Context, edge promotion.Edge, record promotion.Record, head string) (promotion.Record, bool, error) {
	contained, err := a.Repository.Contains(ctx, record.Candidate, head)
	if err != nil || !contained {
		return record, false, err
	}
	landing, found, err := a.Repository.Brought(ctx, head, record.Candidate)
	if err != nil {
		return record, false, err
	}
	detail := fmt.Sprintf("%s contains it already.", edge.To)
	if found {
		record.Merge, detail = landing.SHA, fmt.Sprintf("Merged into %s as %s.", edge.To, prose.Short(landing.SHA))
		if by := landing.Trailers[PromotionTrailer]; by != record.ID {
			detail = fmt.Sprintf("Somebody has brought it to %s with %s, %s.", edge.To, prose.Short(landing.SHA), prose.Line(landing.Title, prose.Title))
		}
	}
	record = a.over(record, promotion.Merged, "%s", detail)
	a.closeConflict(ctx, edge, record, head)
	return record, true, nil
}

// merge makes the merge of a candidate into a head of the target, in the mirror only.
func (a *Activities) merge(ctx context.Context, record promotion.Record, head string) (string, *channels.ConflictError, error) {
	merge, err := a.Repository.Merge(ctx, head, record.Candidate, channels.NewCommit{
		Message: mergeTitle(record) + "\n\n" + mergeMessage(record, record.Approvals), Author: a.Pipeline.Author, At: record.Began,
	})
	if conflict := (*channels.ConflictError)(nil); errors.As(err, &conflict) {
		return "", conflict, nil
	}
	return merge, nil, err
}

// held is why a promotion is not to be merged now; empty if nothing is against it. Since the candidate was
// chosen, which may be hours ago, everything may have changed: what the choice went by is asked for again.
// What the gates have said it keeps in the promotion. The blocks are the last thing that is asked for.
func (a *Activities) held(ctx context.Context, edge promotion.Edge, in *workflows.PromotionOf, heads map[string]string, merge string) (string, error) {
	if edge.Mode != promotion.Merge {
		return fmt.Sprintf("What is promoted from %s to %s goes by pull request by now.", edge.From, edge.To), nil
	}
	if gone, err := a.rewritten(ctx, edge, in.Candidate, heads[edge.From]); gone || err != nil {
		return sentence(leftBehind(edge.From, in.Candidate)), err
	}
	from, to, err := a.both(ctx, edge)
	if err != nil {
		return "", err
	}
	if why := cmp.Or(a.tainted(edge, in.Candidate, from), standing(edge.To, to)); why != "" {
		return sentence(why), nil
	}
	if in.Soaked == 0 {
		in.Soaked = soakedFor(from.Promotions.Soak, in.Candidate, a.now())
	}
	if reason, _ := a.closed(edge); reason != "" && !in.Now {
		return reason, nil
	}
	verdicts := a.gates(ctx, edge, in.Candidate, in.SkipGates, from)
	if err := ctx.Err(); err != nil {
		return "", err
	}
	var missed string
	if in.Gates, missed = judged(edge, verdicts, in.SkipGates); missed != "" {
		return missed, nil
	}
	if why := a.unsoaked(edge, in.Candidate, from); why != "" && !in.Now {
		return why, nil
	}
	if why, err := a.personal(ctx, edge, in.Candidate, heads[edge.To], merge); why != "" || err != nil {
		return why, err
	}
	blocked, err := a.blocked(ctx, edge)
	return sentence(blocked), err
}

// rewritten says whether a head of the source does not have a candidate any more.
func (a *Activities) rewritten(ctx context.Context, edge promotion.Edge, candidate, head string) (bool, error) {
	if head == "" {
		return false, failures.Invalid("the configuration repository has no branch %q any more", prose.Line(edge.From, prose.Title))
	}
	contained, err := a.Repository.Contains(ctx, candidate, head)
	return err == nil && !contained, err
}

func leftBehind(channel, candidate string) string {
	return fmt.Sprintf("%s is not on %s any more, which somebody has rewritten", prose.Short(candidate), channel)
}

// personal is why a person has to look at a candidate that is merged by itself otherwise: its class, and
// what is configured about that, may have changed with each head of the target. Empty if nobody has to.
func (a *Activities) personal(ctx context.Context, edge promotion.Edge, candidate, head, merge string) (string, error) {
	if len(edge.PersonFor) == 0 {
		return "", nil
	}
	if err := a.needForge(); err != nil {
		return "", err
	}
	var now workflows.PromotionChoice
	if err := a.classify(ctx, edge, candidate, head, merge, true, &now); err != nil || now.Mode == promotion.Merge {
		return "", err
	}
	return strings.TrimSpace(fmt.Sprintf("It needs a person by now, since its class is %s. %s", now.Class, now.Why)), nil
}

// over is a promotion with its outcome.
func (a *Activities) over(record promotion.Record, outcome promotion.Outcome, format string, args ...any) promotion.Record {
	record.Outcome, record.Detail, record.Ended = outcome, fmt.Sprintf(format, args...), a.now()
	return record
}

// closeConflict closes the pull request in which people were to resolve a conflict, which is over. A
// forge that does not answer is no reason to call a merge none: the pull request shows no difference
// any more, and the next merge closes it.
func (a *Activities) closeConflict(ctx context.Context, edge promotion.Edge, record promotion.Record, head string) {
	if a.Forge == nil {
		return
	}
	if err := a.endConflict(ctx, edge, record, head); err != nil && ctx.Err() == nil {
		activity.GetLogger(ctx).Warn("the pull request of a conflict that is over was not closed", "promotion", record.ID, "error", err)
	}
}

func (a *Activities) endConflict(ctx context.Context, edge promotion.Edge, record promotion.Record, head string) error {
	found, err := a.Forge.FindPullRequest(ctx, edge.To, conflicted(edge))
	if err != nil || found == nil {
		return err
	}
	if found.State == forge.Open {
		if err := a.Forge.Comment(ctx, found.Number, statusMarker, "The conflict is over: "+prose.Code(record.Detail, prose.Detail)); err != nil {
			return err
		}
		if err := a.Forge.Close(ctx, found.Number); err != nil {
			return err
		}
	}
	return a.sweep(ctx, conflicted(edge), found.HeadCommit, head)
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
