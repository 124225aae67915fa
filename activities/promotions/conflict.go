package promotions

import (
	"context"
	"fmt"
	"strings"

	"github.com/fairway-project/fairway/activities/failures"
	"github.com/fairway-project/fairway/channels"
	"github.com/fairway-project/fairway/forge"
	"github.com/fairway-project/fairway/promotion"
	"github.com/fairway-project/fairway/prose"
	"github.com/fairway-project/fairway/workflows"
)

// ReportConflict implements workflows.Promotions. Each edge has one pull request for its conflicts, which
// says by a hidden marker what it is about: candidate and head of the target.
func (a *Activities) ReportConflict(ctx context.Context, in workflows.PromotionOf) (record promotion.Record, err error) {
	ctx, end := failures.Begin(ctx, "reporting the conflict of "+in.ID)
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
	_, conflict, err := a.merge(ctx, record, head)
	if err != nil {
		return record, err
	}
	if conflict == nil {
		a.closeConflict(ctx, edge, record, head)
		return a.over(record, promotion.Conflicted, "The conflict is over: %s has changed meanwhile.", edge.To), nil
	}
	record = a.over(record, promotion.Conflicted, "%s", explained(edge, *conflict))
	branch := conflicted(edge)
	at, err := a.pin(ctx, branch, record.Candidate, heads[branch], func(commit string) (bool, error) {
		// What source or target have themselves is no work that could get lost.
		if has, err := a.Repository.Contains(ctx, commit, heads[edge.From]); has || err != nil {
			return has, err
		}
		return a.Repository.Contains(ctx, commit, head)
	})
	if err != nil {
		return record, err
	}
	title := fmt.Sprintf("Resolve the conflict between %s and %s", edge.From, edge.To)
	text := conflictBody(edge, record, head, at, *conflict)
	found, err := a.Forge.FindPullRequest(ctx, edge.To, branch)
	if err != nil {
		return record, err
	}
	if found != nil && found.State == forge.Closed && marked(found.Body, pair(record.Candidate, head)) {
		record.PullRequest, record.URL = found.Number, found.URL // a person does not want to see it again
		return record, nil
	}
	if found == nil || found.State != forge.Open {
		opened, err := a.Forge.Open(ctx, forge.NewPullRequest{
			Head: branch, Base: edge.To, Title: title, Body: text, Labels: edge.PullRequest.Labels, Reviewers: edge.PullRequest.Reviewers,
		})
		if err != nil {
			return record, err
		}
		found = &opened
	}
	record.PullRequest, record.URL = found.Number, found.URL
	if found.Title != title || strings.TrimSpace(strings.ReplaceAll(found.Body, "\r\n", "\n")) != strings.TrimSpace(text) {
		return record, a.Forge.Edit(ctx, found.Number, title, text)
	}
	return record, nil
}

// longList is the length of a list in bytes after which no more entries are begun, so that a text stays below
// what forges cut, however long the names are. The longest entry has some 15 KB.
const longList = 30_000

// mostNamed bounds the files that a sentence about a conflict names.
const mostNamed = 5

// explained says what is in conflict, in whole sentences.
func explained(edge promotion.Edge, conflict channels.ConflictError) string {
	var files []string
	for _, file := range conflict.Files {
		text := prose.Line(file.Path, prose.Title)
		if sides := side(edge.From, file.Theirs) + side(edge.To, file.Ours); sides != "" {
			text += " (" + strings.TrimSuffix(sides, "; ") + ")"
		}
		files = append(files, text)
	}
	return fmt.Sprintf("%s and %s are in conflict in %s: %s.", edge.From, edge.To, prose.Counted(len(files), "file"), prose.Some(files, mostNamed))
}

func side(channel string, commits []channels.Commit) string {
	if len(commits) == 0 {
		return ""
	}
	return fmt.Sprintf("%s: %s %s, by %s; ", channel, prose.Short(commits[0].SHA), prose.Line(commits[0].Title, 60), prose.Line(commits[0].Author, 60))
}

// conflictBody is what the pull request of a conflict says. Marker included, it depends on nothing but
// the conflict, and on where the branch is.
func conflictBody(edge promotion.Edge, record promotion.Record, head, at string, conflict channels.ConflictError) string {
	var b strings.Builder
	from, to, branch := prose.Code(edge.From, prose.Title), prose.Code(edge.To, prose.Title), conflicted(edge)
	fmt.Fprintf(&b, "%s\nFairway cannot merge %s from %s into %s at %s: both have changed %s, and it does not guess. The promotion waits; others go on.\n\n",
		hidden(pair(record.Candidate, head)), prose.Code(prose.Short(record.Candidate), 40), from, to, prose.Code(prose.Short(head), 40), prose.Counted(len(conflict.Files), "file"))
	listed := 0
	for _, file := range conflict.Files {
		if b.Len() > longList {
			break
		}
		listed++
		fmt.Fprintf(&b, "- %s\n", prose.Code(file.Path, prose.Detail))
		for _, each := range []struct {
			channel string
			commits []channels.Commit
		}{{from, file.Theirs}, {to, file.Ours}} {
			for _, commit := range each.commits {
				fmt.Fprintf(&b, "  - %s: %s %s, %s\n", each.channel, prose.Code(prose.Short(commit.SHA), 40), prose.Code(commit.Title, prose.Title), prose.Code(commit.Author, prose.Title))
			}
		}
	}
	if more := len(conflict.Files) - listed; more > 0 {
		fmt.Fprintf(&b, "- and %s\n", prose.Counted(more, "more file"))
	}
	if at != record.Candidate {
		fmt.Fprintf(&b, "\nThe branch is left at %s, since somebody has worked on it.\n", prose.Code(prose.Short(at), 40))
	}
	fmt.Fprintf(&b, `
To resolve it, merge %[1]s into this branch, and this pull request by a merge commit:

    git fetch origin
    git switch %[2]s
    git merge origin/%[3]s
    git push origin %[2]s

That is the promotion then. It is tried again by itself whenever %[4]s or %[1]s changes. Closing this pull request does not resolve it.
`, to, branch, edge.To, from)
	return b.String()
}
