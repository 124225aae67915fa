package manifests

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/fairway-project/fairway/render"
	"github.com/fairway-project/fairway/workflows"
)

// planDiffs bounds the diffs of a plan in bytes, all together; an answer of an activity may have 2 MiB.
const planDiffs = 512 << 10

// changesLimit is how many changes an answer names.
const changesLimit = 2000

// PlanManifests implements workflows.Manifests. Objects come in the order in which they are applied,
// after the deletions before and ahead of those after it.
func (a *Activities) PlanManifests(ctx context.Context, in workflows.ManifestsOf) ([]workflows.ObjectChange, error) {
	ctx, progress, end := begin(ctx)
	defer end()
	progress.say("rendering manifests")
	release, s, err := a.prepare(ctx, in.Cluster, in.Version)
	if err != nil {
		return nil, err
	}
	items, wrong := s.itemsOf(release)
	planned := make([]workflows.ObjectChange, len(items))
	found := make([]problems, len(items))
	var done atomic.Int32
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(parallel)
	for n, i := range items {
		if groupCtx.Err() != nil {
			break
		}
		group.Go(func() (err error) {
			progress.say("trying %s: %d of %d done", i.File, done.Add(1)-1, len(items))
			planned[n], found[n], err = s.plan(groupCtx, i)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		if ctx.Err() != nil {
			return nil, stopped(ctx)
		}
		return nil, err
	}
	for _, problems := range found {
		wrong = append(wrong, problems...)
	}
	if err := wrong.err(s.cluster.ID, fmt.Sprintf("%d of %d manifests are wrong", len(wrong), len(release.Manifests))); err != nil {
		return nil, err
	}

	progress.say("looking for what is to be deleted")
	before, skipped, err := s.planDeletions(ctx, release.Deletions.PreApply)
	if err != nil {
		return nil, err
	}
	after, skippedAfter, err := s.planDeletions(ctx, release.Deletions.PostApply)
	if err != nil {
		return nil, err
	}
	changes := append(append(append(append(before, skipped...), planned...), after...), skippedAfter...)
	settings, err := a.Settings(s.cluster)
	if err != nil {
		return nil, invalid("%v", err)
	}
	if settings.Prune {
		found, err := s.findLeftovers(ctx, release)
		if err != nil {
			return nil, err
		}
		changes = append(changes, found.kept...)
		for _, target := range found.targets {
			changes = append(changes, target.change("delete", found.refuse()))
		}
	}
	return bounded(changes), nil
}

// bounded keeps a list of changes small enough for an answer. What does not change goes first.
func bounded(changes []workflows.ObjectChange) []workflows.ObjectChange {
	if len(changes) > changesLimit {
		changes = slices.DeleteFunc(changes, func(c workflows.ObjectChange) bool { return c.Action == "unchanged" && c.Diff == "" })
	}
	if more := len(changes) - changesLimit; more > 0 {
		changes = append(changes[:changesLimit:changesLimit], workflows.ObjectChange{Action: "change", Kind: "objects", Name: fmt.Sprintf("and %d more", more)})
	}
	left := planDiffs
	for i := range changes {
		if left -= len(changes[i].Diff); left < 0 {
			changes[i].Diff = "(left out: the diffs are too long together)"
		}
	}
	return changes
}

// plan asks the API server what would become of one object.
func (s *server) plan(ctx context.Context, i *item) (workflows.ObjectChange, problems, error) {
	change := workflows.ObjectChange{Action: "create", Kind: i.id.Kind, Name: i.id.title(), File: fmt.Sprintf("%s:%d", i.File, i.Line)}
	if i.mapping == nil { // its CRD is still to be applied
		return created(change, i), nil, nil
	}
	live, answer, err := s.compare(ctx, i)
	if apierrors.IsNotFound(err) && live == nil { // its namespace is not there yet
		return created(change, i), nil, nil
	}
	if err != nil {
		kind, text := judge(err, i.secret())
		switch kind {
		case "":
			return change, nil, s.explain(ctx, fmt.Sprintf("%s:%d: trying %s", i.File, i.Line, i.id), err)
		case workflows.Conflict:
			change.Action, change.Diff = "conflict", shorten(text, diffLimit)
			return change, nil, nil
		}
		return change, problems{i.problem(kind, "%s", text)}, nil
	}
	if live == nil {
		change.Diff = diff(nil, answer.object)
		return change, nil, nil
	}
	change.Action = "change"
	if change.Diff = diff(live, answer.object); change.Diff == "" {
		change.Action = "unchanged"
	}
	return change, nil, nil
}

// compare returns an object as it is, nil if it is not there, and as it would be.
func (s *server) compare(ctx context.Context, i *item) (*unstructured.Unstructured, answer, error) {
	for attempt := 1; ; attempt++ {
		live, err := s.of(i.mapping, i.id.Namespace).Get(ctx, i.id.Name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			live, err = nil, nil
		}
		if err != nil {
			return nil, answer{}, s.explain(ctx, "reading "+i.id.String(), err)
		}
		tried, err := s.send(ctx, i, true, i.forced())
		if only(err, append(legacyManagers.UnsortedList(), FieldManager)...) { // applying takes these fields over
			tried, err = s.send(ctx, i, true, true)
		}
		// What a controller has written between the two requests is no difference that applying makes.
		if err != nil || live == nil || live.GetResourceVersion() == tried.object.GetResourceVersion() || attempt == 5 {
			return live, tried, err
		}
	}
}

func created(change workflows.ObjectChange, i *item) workflows.ObjectChange {
	change.Diff = diff(nil, i.object)
	return change
}

// planDeletions says what deletions would delete. What is guarded shows as a conflict.
func (s *server) planDeletions(ctx context.Context, deletions []render.Deletion) ([]workflows.ObjectChange, []workflows.ObjectChange, error) {
	targets, skipped, err := s.named(ctx, deletions)
	if err != nil {
		return nil, nil, err
	}
	var changes []workflows.ObjectChange
	for _, target := range targets {
		why, err := s.guard(ctx, target)
		if err != nil {
			return nil, nil, err
		}
		action := "delete"
		if why != "" {
			action = "conflict"
		}
		changes = append(changes, target.change(action, why))
	}
	return changes, skipped, nil
}
