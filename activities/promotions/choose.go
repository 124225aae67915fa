package promotions

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/golang-lru/v2/expirable"
	"golang.org/x/sync/errgroup"

	"github.com/fairway-project/fairway/activities/failures"
	"github.com/fairway-project/fairway/forge"
	"github.com/fairway-project/fairway/promotion"
	"github.com/fairway-project/fairway/prose"
	"github.com/fairway-project/fairway/workflows"
)

// ChoosePromotion implements workflows.Promotions. Where nothing is due it costs one request to the
// repository and two queries.
func (a *Activities) ChoosePromotion(ctx context.Context, in workflows.ChoosePromotion) (choice workflows.PromotionChoice, err error) {
	ctx, end := failures.Begin(ctx, "choosing what to promote from "+in.From+" to "+in.To)
	defer end(&err)
	if err := a.needRepository(); err != nil {
		return choice, err
	}
	edge, err := a.edge(in.From, in.To)
	if err != nil {
		return choice, err
	}
	if err := edge.CheckSkips(in.SkipGates); err != nil {
		return choice, failures.Invalid("%v", err)
	}
	if in.IfIdle {
		if busy, err := a.underWay(ctx, edge); busy || err != nil {
			choice.Mode, choice.Why = edge.Mode, workflows.UnderWay(edge.From, edge.To)
			return choice, err
		}
	}
	var heads map[string]string
	var from, to workflows.ChannelState
	asking, asked := errgroup.WithContext(ctx)
	asking.Go(func() (err error) { heads, err = a.heads(asked, edge.From, edge.To); return err })
	asking.Go(func() (err error) { from, to, err = a.both(asked, edge); return err })
	if err := asking.Wait(); err != nil {
		return choice, err
	}
	head := heads[edge.To]
	soak := from.Promotions.Soak
	if in.Now || in.Candidate != "" { // a person need not wait until the channel's actor has heard of the landing
		if err := a.land(ctx, &soak, heads[edge.From]); err != nil {
			return choice, err
		}
	}
	choice.Mode = edge.Mode
	choice.Choice, err = promotion.Choose(edge, soak, a.question(edge, from, to, in, func(commit string) (bool, error) {
		return a.Repository.Contains(ctx, commit, head)
	}))
	switch {
	case errors.Is(err, promotion.ErrNoLanding):
		return choice, failures.Invalid("%v", err)
	case err != nil || choice.Candidate == nil:
		return choice, err
	}
	choice.Soaked = soakedFor(soak, choice.Candidate.Commit, a.now())
	return choice, a.examine(ctx, edge, in, from, to, heads[edge.From], head, &choice)
}

// question is what a choice depends on.
func (a *Activities) question(edge promotion.Edge, from, to workflows.ChannelState, in workflows.ChoosePromotion, has func(string) (bool, error)) promotion.Question {
	question := promotion.Question{Now: a.now(), Has: has, Reverts: from.Promotions.Reverts, Candidate: in.Candidate, Immediately: in.Now}
	for _, refusal := range to.Promotions.Refused {
		if refusal.From == edge.From {
			question.Refused = append(question.Refused, refusal.Candidate)
		}
	}
	if reverted := standing(edge.To, to); reverted != "" {
		question.Held = append(question.Held, reverted)
	}
	return question
}

// land tells a soak of the landings that its channel's actor has not heard of.
func (a *Activities) land(ctx context.Context, soak *promotion.Soak, head string) error {
	known := ""
	if n := len(soak.Landings); n > 0 {
		known = soak.Landings[n-1].Commit
	}
	if known == head {
		return nil
	}
	commits, rewritten, err := a.Repository.Landings(ctx, known, head, promotion.MostLandings)
	if err != nil {
		return err
	}
	landings := make([]promotion.Landing, len(commits))
	for i, commit := range commits {
		landings[i] = promotion.Landing{Commit: commit.SHA, Title: commit.Title, Author: commit.Author}
	}
	soak.Land(a.now(), landings, rewritten || known == "")
	return nil
}

// examine says whether a candidate is to be promoted now, at these heads of source and target.
func (a *Activities) examine(ctx context.Context, edge promotion.Edge, in workflows.ChoosePromotion, from, to workflows.ChannelState, source, head string, choice *workflows.PromotionChoice) error {
	candidate := choice.Candidate.Commit
	wait := func(format string, args ...any) error {
		choice.Why = fmt.Sprintf(format, args...)
		return nil
	}
	if gone, err := a.rewritten(ctx, edge, candidate, source); err != nil {
		return err
	} else if gone {
		return wait("%s.", leftBehind(edge.From, candidate))
	}
	if done := slices.IndexFunc(to.Promotions.Records, func(r promotion.Record) bool {
		return r.From == edge.From && r.Candidate == candidate && r.Outcome == promotion.Merged
	}); done >= 0 && !in.Now {
		record := to.Promotions.Records[done]
		switch lost, err := a.lost(ctx, record.Merge, head); {
		case err != nil:
			return err
		case lost:
			return wait("%s had %s by %s, which somebody has taken away: it was rewritten. The next landing goes by itself, or this one by its name and at once.",
				edge.To, prose.Short(candidate), prose.Short(record.Merge))
		}
		return wait("Pull request %d has brought what %s carries to %s, but without the commit: merge by a merge commit instead of squashing, so that git can tell.",
			record.PullRequest, prose.Short(candidate), edge.To)
	}
	if edge.Mode == promotion.ByPullRequest || len(edge.PersonFor) > 0 {
		if err := a.needForge(); err != nil {
			return err
		}
	}
	// A pull request may be opened, and looked at, while no window is open.
	if reason, opening := a.closed(edge); reason != "" && !in.Now && edge.Mode == promotion.Merge {
		choice.Due = opening
		return wait("%s", reason)
	}
	verdicts := a.gates(ctx, edge, candidate, in.SkipGates, from)
	if err := ctx.Err(); err != nil {
		return err
	}
	var missed string
	if choice.Gates, missed = judged(edge, verdicts, in.SkipGates); missed != "" {
		return wait("%s", missed)
	}
	switch blocked, err := a.blocked(ctx, edge); {
	case err != nil:
		return err
	case blocked != "":
		return wait("%s", sentence(blocked))
	}
	// Each look tries the same merge, so that the worker's copy does not fill up with them.
	record := promotion.Record{ID: promotion.ID(edge.From, edge.To, candidate), From: edge.From, To: edge.To, Candidate: candidate, Title: choice.Candidate.Title, Began: choice.Candidate.At}
	merge, conflict, err := a.merge(ctx, record, head)
	if err != nil {
		return err
	}
	if conflict != nil {
		choice.Why = explained(edge, *conflict)
		if a.Forge == nil {
			return nil // only a person can go on, and there is nowhere to say more
		}
		found, err := a.Forge.FindPullRequest(ctx, edge.To, conflicted(edge))
		if err != nil {
			return err
		}
		if found != nil && found.State != forge.Merged && marked(found.Body, pair(candidate, head)) {
			return wait("%s Pull request %d is for people to resolve it.", choice.Why, found.Number)
		}
		choice.Go = true
		return nil
	}
	if edge.Mode == promotion.ByPullRequest && !in.Now {
		// Such as a revert whose target has what it restores: nobody has to read that.
		switch same, err := a.Repository.Same(ctx, head, merge); {
		case err != nil:
			return err
		case same:
			return wait("%s changes nothing that %s has, and goes along with the next one.", prose.Short(candidate), edge.To)
		}
	}
	choice.Go = true
	return a.classify(ctx, edge, candidate, head, merge, false, choice)
}

// keptPersons is how many answers are kept, and for how long: that a person is needed is found out once,
// not at each look while people take their time, since it may cost many requests to the forge. That none is
// needed each choice finds out anew, but not each attempt to merge what it has chosen.
const (
	keptPersons = 100
	keepPersons = 10 * time.Minute
)

// classify says what a candidate may do, and so how it is promoted. The forge is asked for labels only where
// a person may be needed for them; chosen means that it was not long ago.
func (a *Activities) classify(ctx context.Context, edge promotion.Edge, candidate, head, merge string, chosen bool, choice *workflows.PromotionChoice) error {
	if len(edge.PersonFor) == 0 {
		impact, err := a.impact(ctx, head, candidate, merge)
		choice.Class = impact.Class
		return err
	}
	a.once.Do(func() { a.persons = expirable.NewLRU[string, workflows.PromotionChoice](keptPersons, nil, keepPersons) })
	key := strings.Join([]string{edge.From, edge.To, candidate, head}, "\x00")
	if known, found := a.persons.Get(key); found && (chosen || known.Mode == promotion.ByPullRequest) {
		choice.Class, choice.Mode, choice.Why = known.Class, known.Mode, known.Why
		return nil
	}
	report, unread, err := a.report(ctx, edge, candidate, head, merge)
	if err != nil {
		return err
	}
	choice.Class, choice.Mode = report.Class, edge.ModeFor(report.Class)
	if unread != "" {
		// A label that nobody has read may be one for which a person has to look.
		choice.Mode, choice.Why = promotion.ByPullRequest, unread
	}
	a.persons.Add(key, workflows.PromotionChoice{Choice: promotion.Choice{Why: choice.Why}, Class: choice.Class, Mode: choice.Mode})
	return nil
}
