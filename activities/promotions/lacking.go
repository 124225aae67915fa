package promotions

import (
	"context"
	"slices"

	"github.com/fairway-project/fairway/activities/failures"
	"github.com/fairway-project/fairway/promotion"
	"github.com/fairway-project/fairway/prose"
	"github.com/fairway-project/fairway/workflows"
)

// mostLacking bounds the commits that are listed for one channel.
const mostLacking = 100

// ListLacking implements workflows.Promotions. All channels before the one that is asked about are
// compared with it, also those from which it is more than one promotion away: a hotfix of the last one
// has to come back to the first.
func (a *Activities) ListLacking(ctx context.Context, in workflows.ListLacking) (lacking []workflows.Lacking, err error) {
	ctx, end := failures.Begin(ctx, "comparing channel "+in.Channel+" with those before it")
	defer end(&err)
	before := a.Pipeline.Upstream(in.Channel)
	lacking = []workflows.Lacking{}
	if len(before) == 0 {
		return lacking, nil
	}
	heads, err := a.heads(ctx, append(slices.Clone(before), in.Channel)...)
	if err != nil {
		return nil, err
	}
	for _, channel := range before {
		commits, err := a.Repository.Lacking(ctx, heads[in.Channel], heads[channel], mostLacking)
		if err != nil {
			return nil, err
		}
		for _, commit := range commits {
			lacking = append(lacking, workflows.Lacking{
				Change:  promotion.Change{Commit: commit.SHA, Title: prose.Line(commit.Title, prose.Title), Author: prose.Line(commit.Author, prose.Title)},
				Missing: channel,
			})
		}
	}
	return lacking, nil
}
