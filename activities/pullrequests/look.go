package pullrequests

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/golang-lru/v2/expirable"
	"go.temporal.io/sdk/activity"

	"github.com/fairway-project/fairway/activities/failures"
	"github.com/fairway-project/fairway/e2e"
	"github.com/fairway-project/fairway/forge"
	"github.com/fairway-project/fairway/workflows"
)

const (
	askWithin   = 10 * time.Second // one question to the actor of the queue
	keptSettled = 1000
	// keepSettled is for how long what was found out of a pull request is believed while the forge does not say
	// that it has changed: rights of people change without that.
	keepSettled = 5 * time.Minute
	// settledAfter is how old the last change is of one that is remembered: of two within a second forges do not tell
	// the second one.
	settledAfter = 10 * time.Second
)

// settled is a pull request that was neither to be begun nor to be ended, as it was then. A look each minute at
// everything that is known of each one would use up what a forge answers in an hour.
type settled struct {
	head    string
	updated time.Time
	draft   bool
	held    *e2e.Held // nil if it was tested
}

// LookAtPullRequests implements workflows.PullRequests.
func (a *Activities) LookAtPullRequests(ctx context.Context, _ workflows.LookAtPullRequests) (look workflows.PullRequestsLook, err error) {
	ctx, end := failures.Begin(ctx, "looking at the pull requests")
	defer end(&err)
	if err := a.needRepository(); err != nil {
		return look, err
	}
	if err := a.needForge(); err != nil {
		return look, err
	}
	a.once.Do(func() { a.settled = expirable.NewLRU[int, settled](keptSettled, nil, keepSettled) })
	under, err := a.underWay(ctx)
	if err != nil {
		return look, err
	}
	heads, err := a.Repository.Heads(ctx)
	if err != nil {
		return look, err
	}
	open, err := a.Forge.PullRequests(ctx, forge.Filter{State: forge.Open, Label: a.Settings.Label})
	if err != nil {
		return look, err
	}
	var pulls []e2e.PullRequest
	now := a.now()
	for _, pr := range open {
		if !slices.ContainsFunc(under, func(test e2e.Request) bool { return test.Number == pr.Number }) {
			if !slices.Contains(a.Pipeline.Channels, pr.Base) {
				continue
			}
			if before, found := a.settled.Get(pr.Number); found && before.of(pr) {
				if before.held != nil {
					look.Held = append(look.Held, workflows.HeldTest{Number: pr.Number, Why: before.held.Why})
				}
				continue
			}
		}
		known := convert(pr)
		if !slices.ContainsFunc(under, func(test e2e.Request) bool { return test.ID == e2e.TestOf(pr.Number, pr.HeadCommit) }) {
			if err := a.ask(ctx, pr, &known); err != nil {
				if ends(ctx, err) {
					return look, err
				}
				known.Unknown = sentence(failures.Text(err)) // of this one: the others go on
			}
		}
		pulls = append(pulls, known)
	}
	for _, test := range under {
		if test.Number == 0 || slices.ContainsFunc(open, func(pr forge.PullRequest) bool { return pr.Number == test.Number }) {
			continue
		}
		pr, err := a.Forge.PullRequest(ctx, test.Number)
		switch {
		case errors.Is(err, forge.ErrNotFound):
			pulls = append(pulls, e2e.PullRequest{Number: test.Number, State: e2e.Gone})
		case err != nil && ends(ctx, err):
			return look, err
		case err != nil: // its test goes on as long as nobody knows
			activity.GetLogger(ctx).Warn("a pull request whose test is under way cannot be read", "pull request", test.Number, "error", err)
		default:
			pulls = append(pulls, convert(pr))
		}
	}
	found := e2e.Consider(a.Settings, a.Pipeline, heads, pulls, under, now)
	look.Start = found.Start
	for _, ending := range found.End {
		if a.concluded(ctx, ending.ID) { // each signal would fill its history, however long its cluster takes to go
			continue
		}
		look.End = append(look.End, workflows.EndTest{ID: ending.ID, Why: ending.Why})
	}
	for _, held := range found.Held {
		look.Held = append(look.Held, workflows.HeldTest{Number: held.Number, Why: held.Why})
	}
	a.tell(ctx, open, pulls, found)
	return look, nil
}

// ends says whether an error is one that ends the whole look: the forge is to be left alone, or nobody waits any more.
func ends(ctx context.Context, err error) bool {
	limited := (*forge.LimitedError)(nil)
	return ctx.Err() != nil || errors.As(err, &limited)
}

// of says whether a pull request is as it was.
func (s settled) of(pr forge.PullRequest) bool {
	return s.head == pr.HeadCommit && s.updated.Equal(pr.Updated) && s.draft == pr.Draft
}

// underWay are the tests that the queue knows.
func (a *Activities) underWay(ctx context.Context) ([]e2e.Request, error) {
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	entries, err := a.Queue(ctx)
	if err != nil {
		return nil, err
	}
	var under []e2e.Request
	for _, entry := range entries {
		under = append(under, entry.Request)
	}
	return under, nil
}

// concluded says whether a test has its verdict, so that there is nothing to end any more. It has none if it does not
// answer.
func (a *Activities) concluded(ctx context.Context, test string) bool {
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	var report e2e.Report
	answer, err := a.Temporal.QueryWorkflow(ctx, workflows.TestID(test), "", workflows.ProgressQuery)
	return err == nil && answer.Get(&report) == nil && report.Verdict != ""
}

// ask finds out what decides whether a pull request is tested.
func (a *Activities) ask(ctx context.Context, pr forge.PullRequest, known *e2e.PullRequest) (err error) {
	if known.Status, err = a.status(ctx, pr); err != nil {
		return err
	}
	event, found, err := a.Forge.Labelled(ctx, pr.Number, a.Settings.Label)
	if err != nil {
		return err
	}
	if found {
		known.Label = &e2e.Label{By: event.By, At: event.At}
	}
	if known.Trusted, err = a.canWrite(ctx, pr.Author); err != nil {
		return err
	}
	if known.Trusted && !pr.Fork || !found {
		return nil
	}
	if known.Label.Trusted, err = a.canWrite(ctx, event.By); err != nil || !known.Label.Trusted {
		return err
	}
	known.Pushed, err = a.Forge.PushedAt(ctx, pr)
	if errors.Is(err, forge.ErrNotFound) || errors.Is(err, forge.ErrRefused) { // such as the fork of a head that is gone: a person is told
		return nil
	}
	return err
}

// canWrite says whether a user may write; somebody whom the forge does not name may not.
func (a *Activities) canWrite(ctx context.Context, user string) (bool, error) {
	if user == "" {
		return false, nil
	}
	can, err := a.Forge.CanWrite(ctx, user)
	if errors.Is(err, forge.ErrNotFound) || errors.Is(err, forge.ErrInvalid) { // somebody who is gone
		return false, nil
	}
	return can, err
}

// status is that of the tests of a pull request on its head; nil if there is none. Another pull request with the same
// head shares the status, and nothing follows from that: it may go into another channel, and who
// pushed to it when is not known.
func (a *Activities) status(ctx context.Context, pr forge.PullRequest) (*e2e.Status, error) {
	all, err := a.Forge.Statuses(ctx, pr.HeadCommit)
	if err != nil {
		return nil, err
	}
	page := workflowPage(workflows.TestID(e2e.TestOf(pr.Number, pr.HeadCommit)))
	var newest *forge.Status
	for i, status := range all {
		if status.Context == a.Settings.StatusOf(pr.Base) && (newest == nil || status.At.After(newest.At)) {
			newest = &all[i]
		}
	}
	if newest == nil || newest.URL != pr.URL && !strings.Contains(newest.URL, page) {
		return nil, nil
	}
	return &e2e.Status{Final: newest.State != forge.Pending, At: newest.At}, nil
}

// tell says on pull requests that wait what they wait for, and remembers of which nothing new is expected. What cannot
// be written now is at the next look; tests do not wait for it.
func (a *Activities) tell(ctx context.Context, open []forge.PullRequest, pulls []e2e.PullRequest, look e2e.Look) {
	for _, pr := range open {
		i := slices.IndexFunc(pulls, func(known e2e.PullRequest) bool { return known.Number == pr.Number })
		if i < 0 || pulls[i].Unknown != "" || slices.ContainsFunc(look.Start, func(r e2e.Request) bool { return r.Number == pr.Number }) {
			continue
		}
		quiet := a.now().Sub(pr.Updated) > settledAfter
		at := slices.IndexFunc(look.Held, func(held e2e.Held) bool { return held.Number == pr.Number })
		if at < 0 {
			if pulls[i].Status != nil && pulls[i].Status.Final && quiet {
				a.settled.Add(pr.Number, settled{pr.HeadCommit, pr.Updated, pr.Draft, nil})
			}
			continue
		}
		held := look.Held[at]
		if err := a.hold(ctx, pr, held); err != nil {
			activity.GetLogger(ctx).Warn("what a pull request waits for cannot be said on it", "pull request", pr.Number, "error", err)
			continue
		}
		if !held.Passing && quiet {
			a.settled.Add(pr.Number, settled{pr.HeadCommit, pr.Updated, pr.Draft, &held})
		}
	}
}

// hold says on a pull request what it waits for.
func (a *Activities) hold(ctx context.Context, pr forge.PullRequest, held e2e.Held) error {
	err := a.Forge.SetStatus(ctx, pr.HeadCommit, forge.Status{Context: a.Settings.StatusOf(pr.Base), State: forge.Pending, Description: held.Why, URL: pr.URL})
	if err != nil || held.Passing {
		return err
	}
	return a.Forge.Comment(ctx, pr.Number, commentMarker, e2e.HeldComment(held))
}

func convert(pr forge.PullRequest) e2e.PullRequest {
	return e2e.PullRequest{
		Number: pr.Number, Title: pr.Title, URL: pr.URL, Author: pr.Author, Labels: pr.Labels, Head: pr.Head, Base: pr.Base, HeadCommit: pr.HeadCommit,
		Fork: pr.Fork, Draft: pr.Draft, State: e2e.State(pr.State),
	}
}

// sentence makes a whole one of words.
func sentence(words string) string {
	if words == "" {
		return ""
	}
	return strings.ToUpper(words[:1]) + strings.TrimSuffix(words[1:], ".") + "."
}
