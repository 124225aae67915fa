package main

import (
	"context"
	"errors"
	"fmt"

	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"
	"golang.org/x/sync/errgroup"

	"github.com/fairway-project/fairway/activities/blocks"
	"github.com/fairway-project/fairway/activities/promotions"
	"github.com/fairway-project/fairway/channels"
	"github.com/fairway-project/fairway/config"
	"github.com/fairway-project/fairway/forge"
	"github.com/fairway-project/fairway/promotion"
	"github.com/fairway-project/fairway/workflows"
)

// registerPromotions names what this worker can do to move changes from one channel to the next. Mirror
// and driver are nil where none is configured: what needs them says so.
func registerPromotions(w interface{ RegisterActivity(any) }, c config.Config, temporalClient client.Client, mirror *channels.Mirror, driver forge.Driver, asker blocks.Asker) {
	a := &promotions.Activities{
		Pipeline: c.Pipeline, Folder: c.Repository.Path, Temporal: temporalClient, TaskQueue: c.TaskQueue,
		Blocks: asker.Channels, Clusters: c.Clusters,
	}
	if mirror != nil {
		a.Repository = mirror
	}
	if driver != nil {
		a.Forge = driver
	}
	w.RegisterActivity(a)
}

// newestLandings is how many of a channel are handed over that nobody knows yet.
const newestLandings = 50

// landings are those of a channel that are new since a head that is known, oldest first; rewritten means
// that the known head is not among the commits before them.
type landings func(ctx context.Context, channel, known, head string) (new []promotion.Landing, rewritten bool, err error)

// landingsOf reads them from the repository, each with how it got there if the channel is one that others
// are promoted to. The forge is asked only about what looks as if it was pushed by hand; it may be nil.
func landingsOf(mirror *channels.Mirror, pipeline promotion.Pipeline, driver forge.Driver) landings {
	return func(ctx context.Context, channel, known, head string) ([]promotion.Landing, bool, error) {
		most := promotion.MostLandings
		if known == "" {
			most = newestLandings
		}
		commits, rewritten, err := mirror.Landings(ctx, known, head, most)
		if err != nil {
			return nil, false, err
		}
		before := pipeline.Upstream(channel)
		var sources []string
		if len(before) > 0 && len(commits) > 0 {
			heads, err := mirror.Heads(ctx)
			if err != nil {
				return nil, false, err
			}
			for _, name := range before {
				if head := heads[name]; head != "" {
					sources = append(sources, head)
				}
			}
		}
		requests := requestsOf(driver)
		found := make([]promotion.Landing, len(commits))
		for i, commit := range commits {
			found[i] = promotion.Landing{Commit: commit.SHA, Title: commit.Title, Author: commit.Author, Kind: promotion.KindOf(promotion.Facts{})}
			if len(sources) > 0 {
				if found[i].Kind, err = kindOf(ctx, mirror, requests, commit.SHA, sources); err != nil {
					return nil, false, fmt.Errorf("channel %s: %w", channel, err)
				}
			}
		}
		return found, rewritten, nil
	}
}

// kindOf says how a landing got onto a channel to which the channels with some heads are promoted; empty
// if the forge, which would know, does not answer.
func kindOf(ctx context.Context, mirror *channels.Mirror, requests requests, landing string, sources []string) (promotion.Kind, error) {
	of, err := mirror.FactsOf(ctx, landing, sources)
	if err != nil {
		return "", err
	}
	facts := promotion.Facts{Fed: true, Merge: of.Merge, Carried: count(of.Known), New: count(of.New)}
	if of.Picked { // the same as a commit of a source, and yet another one
		facts.New = 1
		carries, err := carries(ctx, mirror, of.Commit, sources)
		if err != nil {
			return "", err
		}
		facts.Carried = count(carries)
	}
	if facts.Restores, err = restores(ctx, mirror, of.Commit); err != nil {
		return "", err
	}
	kind := promotion.KindOf(facts)
	if kind != promotion.Direct || requests == nil {
		return kind, nil
	}
	if facts.PullRequest, err = requests(ctx, landing); err != nil {
		return "", ctx.Err()
	}
	return promotion.KindOf(facts), nil
}

// requests says whether a commit is what a pull request was merged as.
type requests func(ctx context.Context, commit string) (bool, error)

// requestsOf asks a forge, and not again once it has not answered: its landings would wait for a forge that
// hangs until all time is over, each time anew, and nothing would ever soak. Nil without a forge.
func requestsOf(driver forge.Driver) requests {
	if driver == nil {
		return nil
	}
	var silent error
	return func(ctx context.Context, commit string) (bool, error) {
		if silent != nil {
			return false, silent
		}
		found, err := driver.PullRequestsOf(ctx, commit)
		if err != nil && !errors.Is(err, forge.ErrNotFound) {
			silent = err
			return false, err
		}
		return len(found) > 0, nil
	}
}

// carries says whether a landing brings a very commit that a source has.
func carries(ctx context.Context, mirror *channels.Mirror, landing channels.Commit, sources []string) (bool, error) {
	if len(landing.Parents) == 0 {
		return false, nil
	}
	commits, _, err := mirror.Commits(ctx, landing.Parents[0], landing.SHA, promotion.MostLandings)
	if err != nil {
		return false, err
	}
	for _, commit := range commits {
		for _, source := range sources {
			if has, err := mirror.Contains(ctx, commit.SHA, source); has || err != nil {
				return has, err
			}
		}
	}
	return false, nil
}

// restores says whether a landing has the content of the earlier one that it names.
func restores(ctx context.Context, mirror *channels.Mirror, landing channels.Commit) (bool, error) {
	to := landing.Trailers[promotions.RevertTrailer]
	if to == "" {
		return false, nil
	}
	earlier, found, err := mirror.Brought(ctx, landing.SHA, to)
	switch {
	case errors.Is(err, channels.ErrUnknown), errors.Is(err, channels.ErrGone): // anybody can write a message
		return false, nil
	case err != nil || !found || earlier.SHA != to || to == landing.SHA:
		return false, err
	}
	return mirror.Same(ctx, landing.SHA, to)
}

func count(any bool) int {
	if any {
		return 1
	}
	return 0
}

// lookAtForge tells the promotions that wait for pull requests that something has happened on the forge.
// What has happened they find out themselves; where none is under way there is nothing to tell.
func lookAtForge(ctx context.Context, temporalClient client.Client, pipeline promotion.Pipeline) error {
	var group errgroup.Group
	group.SetLimit(startedAtOnce)
	for _, edge := range pipeline.Edges {
		if edge.Mode != promotion.ByPullRequest && len(edge.PersonFor) == 0 {
			continue
		}
		group.Go(func() error {
			id := workflows.PromotionID(edge.From, edge.To)
			err := temporalClient.SignalWorkflow(ctx, id, "", workflows.LookName, nil)
			if unknown := (*serviceerror.NotFound)(nil); err != nil && !errors.As(err, &unknown) {
				return fmt.Errorf("telling %s to look: %w", id, err)
			}
			return nil
		})
	}
	return group.Wait()
}
