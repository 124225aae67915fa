package sweep

import (
	"context"
	"fmt"
	"slices"

	"github.com/fairway-project/fairway/e2e"
	"github.com/fairway-project/fairway/workflows"
)

// abandoned are those of the queue's tests that hold a place in the queue, do not run any more, and are old enough. Those without
// a lease have made nothing, or nothing is left of it; the place of one that has a lease goes with that.
func (s *Sweep) abandoned(ctx context.Context, entries []workflows.TestQueueEntry) (abandoned []workflows.TestQueueEntry, err error) {
	for _, entry := range entries {
		if entry.Given == nil || s.now().Sub(entry.Since) < s.Settings.Sweep.Grace {
			continue
		}
		running, err := s.Running(ctx, workflows.TestID(entry.Request.ID))
		if err != nil {
			return nil, unread("whether "+workflows.TestID(entry.Request.ID)+" runs", err)
		}
		if !running {
			abandoned = append(abandoned, entry)
		}
	}
	return abandoned, nil
}

// places are those of abandoned tests without a lease, of whose clusters nothing is left.
func places(abandoned []workflows.TestQueueEntry, owners e2e.Owners, left []e2e.Thing) (orphans []e2e.Orphan) {
	for _, entry := range abandoned {
		cluster := entry.Request.Cluster
		if slices.ContainsFunc(owners.Leases, func(l e2e.Lease) bool { return l.Cluster.ID == cluster }) ||
			slices.ContainsFunc(left, func(t e2e.Thing) bool { return owners.Of(t) == cluster }) {
			continue
		}
		orphans = append(orphans, e2e.Orphan{
			Account: *entry.Given, Kind: "place", ID: entry.Request.ID, Lease: cluster,
			Why: fmt.Sprintf("it has no lease, and its workflow %s does not run any more", workflows.TestID(entry.Request.ID)),
		})
	}
	return orphans
}

// givePlaceBack takes a test out of the queue. InvalidInput if somebody has begun it again meanwhile.
func (s *Sweep) givePlaceBack(ctx context.Context, orphan e2e.Orphan) error {
	entries, err := s.Places(ctx)
	if err != nil {
		return unread("the queue of tests", err)
	}
	at := slices.IndexFunc(entries, func(e workflows.TestQueueEntry) bool { return e.Request.ID == orphan.ID })
	if at < 0 {
		return nil
	}
	abandoned, err := s.abandoned(ctx, entries[at:at+1])
	if err != nil {
		return err
	}
	owners, err := s.owners(ctx, &orphan.Lease)
	if err != nil {
		return err
	}
	if still := places(abandoned, owners, nil); len(still) == 0 || still[0].Lease != orphan.Lease {
		return invalid("the place of test %s is left alone: it runs, or has a lease", orphan.ID)
	}
	return s.Leave(ctx, workflows.TestQueueEntry{Request: e2e.Request{ID: orphan.ID}})
}
