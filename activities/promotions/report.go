package promotions

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sort"
	"strings"
	"sync"

	"go.temporal.io/sdk/activity"
	"golang.org/x/sync/errgroup"

	"github.com/fairway-project/fairway/activities/failures"
	"github.com/fairway-project/fairway/channels"
	"github.com/fairway-project/fairway/forge"
	"github.com/fairway-project/fairway/promotion"
	"github.com/fairway-project/fairway/prose"
	"github.com/fairway-project/fairway/registry"
	"github.com/fairway-project/fairway/workflows"
)

// Bounds of a report.
const (
	mostListed   = 100 // commits
	mostAsked    = 50  // commits and landings whose pull requests the forge is asked for
	askedAtOnce  = 5
	mostTouching = 300 // clusters
)

// ReportPromotion implements workflows.Promotions. A target that has the candidate already lacks nothing.
func (a *Activities) ReportPromotion(ctx context.Context, in workflows.PromotionOf) (report promotion.Report, err error) {
	ctx, end := failures.Begin(ctx, "looking at what "+in.ID+" carries")
	defer end(&err)
	edge, heads, err := a.opening(ctx, in)
	if err != nil {
		return report, err
	}
	merge, _, err := a.merge(ctx, in.Record, heads[edge.To])
	if err != nil {
		return report, err
	}
	report, unread, err := a.report(ctx, edge, in.Candidate, heads[edge.To], merge)
	if unread != "" && err == nil {
		report.Why += " " + unread
	}
	return report, err
}

// report says what a candidate carries that a head of the target lacks. After is the merge of the two;
// empty if they are in conflict. Unread is why not all labels are known; empty if they are.
func (a *Activities) report(ctx context.Context, edge promotion.Edge, candidate, head, after string) (report promotion.Report, unread string, err error) {
	commits, omitted, err := a.Repository.Commits(ctx, head, candidate, mostListed)
	if err != nil {
		return report, "", err
	}
	report.Omitted = omitted
	for _, commit := range commits {
		report.Commits = append(report.Commits, promotion.Change{Commit: commit.SHA, Title: prose.Line(commit.Title, prose.Title), Author: prose.Line(commit.Author, prose.Title)})
	}
	if a.Forge != nil {
		report.Compare = a.Forge.CompareURL(edge.To, candidate)
		if unread, err = a.origins(ctx, candidate, head, &report); err != nil {
			return report, "", err
		}
	}
	impact, err := a.impact(ctx, head, candidate, after)
	if err != nil {
		return report, "", err
	}
	report.Areas = impact.Areas
	report.Class, report.Why = a.Pipeline.Labelled(impact, report.Commits)
	clusters, err := a.Clusters(ctx)
	if err != nil {
		return report, "", fmt.Errorf("reading the cluster registry: %w", err)
	}
	for _, cluster := range clusters {
		if cluster.Channel == edge.To && cluster.LifecycleStatus != registry.Decommissioned && len(report.Clusters) < mostTouching {
			report.Clusters = append(report.Clusters, cluster.ID)
		}
	}
	slices.Sort(report.Clusters)
	return report, unread, nil
}

// impact is what the files may do that a promotion changes.
func (a *Activities) impact(ctx context.Context, head, candidate, after string) (promotion.Impact, error) {
	changes, err := a.Repository.Changes(ctx, head, candidate)
	if err != nil {
		return promotion.Impact{}, err
	}
	return a.impactOf(ctx, changes, head, cmp.Or(after, candidate))
}

// impactOf says what changes between two commits may do.
func (a *Activities) impactOf(ctx context.Context, changes []channels.FileChange, before, after string) (promotion.Impact, error) {
	files := make([]promotion.File, len(changes))
	for i, change := range changes {
		files[i] = promotion.File{Path: change.Path, Before: change.Before}
	}
	var trees [2]fs.FS
	for i, commit := range []string{before, after} {
		tree, err := a.Repository.Tree(ctx, commit, a.Folder)
		switch {
		case err == nil:
			trees[i] = tree
		case !errors.Is(err, channels.ErrUnusable): // the worst is assumed where there is no such folder
			return promotion.Impact{}, err
		}
	}
	return promotion.ImpactOf(a.Folder, files, trees[0], trees[1]), nil
}

// origins finds the pull requests that commits came with: by the commits themselves where the forge
// knows them, and by the merges of the source's first-parent line. A forge that does not answer costs
// the report nothing but them.
func (a *Activities) origins(ctx context.Context, candidate, head string, report *promotion.Report) (unread string, err error) {
	landings, err := a.carried(ctx, candidate, head)
	if err != nil {
		return "", err
	}
	asked := []string{}
	for _, landing := range landings {
		if len(landing.Parents) > 1 {
			asked = append(asked, landing.SHA)
		}
	}
	merges := len(asked)
	for _, change := range report.Commits {
		asked = append(asked, change.Commit)
	}
	left := max(0, len(asked)-mostAsked) + report.Omitted
	asked = asked[:min(len(asked), mostAsked)]
	found, failed := a.pullRequestsOf(ctx, asked)
	if err := ctx.Err(); err != nil {
		return "", err
	}
	of := map[string]*forge.PullRequest{}
	for i, commit := range asked {
		of[commit] = found[i]
	}
	// What a merge has brought came with its pull request, unless it has one of its own.
	for i, commit := range asked[:min(merges, len(asked))] {
		if found[i] == nil {
			continue
		}
		at := slices.IndexFunc(landings, func(l channels.Commit) bool { return l.SHA == commit })
		brought, _, err := a.Repository.Commits(ctx, landings[at].Parents[0], commit, mostListed)
		if err != nil {
			return "", err
		}
		for _, each := range brought {
			if of[each.SHA] == nil {
				of[each.SHA] = found[i]
			}
		}
	}
	for i := range report.Commits {
		change := &report.Commits[i]
		if pr := of[change.Commit]; pr != nil {
			change.PullRequest, change.URL = pr.Number, pr.URL
			change.Labels = a.labels(pr.Labels)
		}
	}
	switch {
	case failed != nil:
		activity.GetLogger(ctx).Warn("the forge was asked for pull requests in vain", "candidate", candidate, "error", failed)
		return "The labels of its pull requests could not all be read.", nil
	case left > 0:
		return fmt.Sprintf("The labels of %s were not read.", prose.Counted(left, "further commit")), nil
	}
	return "", nil
}

// mostLabels bounds those that are kept of a commit.
const mostLabels = 20

// labels are those of others, those first that say that a change is breaking: they are never left out.
func (a *Activities) labels(all []string) []string {
	all = slices.Clone(all)
	slices.SortStableFunc(all, func(x, y string) int { return a.harm(y) - a.harm(x) })
	all = all[:min(len(all), mostLabels)]
	for i, label := range all {
		all[i] = prose.Line(label, prose.Title)
	}
	return all
}

func (a *Activities) harm(label string) int {
	if slices.ContainsFunc(a.Pipeline.BreakingLabels, func(breaking string) bool { return strings.EqualFold(breaking, label) }) {
		return 1
	}
	return 0
}

// origin is the pull request with which a commit was written, of all that have brought it to some branch, with
// the labels of all: those of promotions are not those of the change.
func origin(all []forge.PullRequest) *forge.PullRequest {
	if len(all) == 0 {
		return nil
	}
	first := all[0]
	for _, pr := range all[1:] {
		own, better := strings.HasPrefix(first.Head, ownBranches), strings.HasPrefix(pr.Head, ownBranches)
		if own && !better || own == better && pr.Number < first.Number {
			first = pr
		}
	}
	var labels []string
	for _, pr := range all {
		labels = append(labels, pr.Labels...)
	}
	first.Labels = labels
	return &first
}

// carried are the landings of the source that a head of the target lacks, newest first.
func (a *Activities) carried(ctx context.Context, candidate, head string) ([]channels.Commit, error) {
	landings, _, err := a.Repository.Landings(ctx, "", candidate, mostAsked)
	if err != nil {
		return nil, err
	}
	slices.Reverse(landings)
	n := sort.Search(len(landings), func(i int) bool { // the first one that the target has: it has all before it too
		contained, failed := a.Repository.Contains(ctx, landings[i].SHA, head)
		if failed != nil {
			err = failed
		}
		return contained
	})
	return landings[:n], err
}

// pullRequestsOf asks for the pull requests of commits, a few at a time. It stops when the forge asks to
// wait.
func (a *Activities) pullRequestsOf(ctx context.Context, commits []string) (found []*forge.PullRequest, failed error) {
	found = make([]*forge.PullRequest, len(commits))
	var mu sync.Mutex
	var limited *forge.LimitedError
	var group errgroup.Group
	group.SetLimit(askedAtOnce)
	for i, commit := range commits {
		group.Go(func() error {
			mu.Lock()
			stop := errors.As(failed, &limited)
			mu.Unlock()
			if stop || ctx.Err() != nil {
				return nil
			}
			all, err := a.Forge.PullRequestsOf(ctx, commit)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err != nil && !errors.Is(err, forge.ErrNotFound):
				failed = err
			default:
				found[i] = origin(all)
			}
			return nil
		})
	}
	_ = group.Wait()
	return found, failed
}
