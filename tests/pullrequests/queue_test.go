package pullrequests

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fairway-project/fairway/e2e"
	"github.com/fairway-project/fairway/workflows"
)

// These pull requests share two places with those of all other tests. The hotfix, which comes last, overtakes
// those that wait. That there are ten in all, and never more than two places taken, is watched
// beside the tests.
func TestAHotfixOvertakesThePullRequestsThatWait(t *testing.T) {
	t.Parallel()
	var requests []*request
	for i := range 4 {
		name := fmt.Sprintf("queued-%d", i)
		requests = append(requests, open(t, queueChannel, name, fmt.Sprintf("Change %d", i), harmless(name)))
	}
	others, hotfix := requests[:3], requests[3]
	for _, r := range others {
		r.label()
		require.Eventually(t, func() bool {
			_, found := report(t.Context(), r.id())
			return found
		}, patience, sometimes)
	}
	hotfix.label("hotfix")
	waiting := map[string]bool{} // those that do when the hotfix comes
	require.Eventually(t, func() bool {
		state, found := queue(t.Context())
		if !found || !slices.ContainsFunc(state.Entries, func(e workflows.TestQueueEntry) bool { return e.Request.ID == hotfix.id() }) {
			return false
		}
		for _, entry := range state.Entries {
			if entry.Given == nil {
				waiting[entry.Request.ID] = true
			}
		}
		return true
	}, patience, sometimes/4)
	began := func(r *request) time.Time {
		last := ends(t, r.id())
		require.Equal(t, e2e.Passed, last.Verdict, last.Problem)
		gone(t, r.cluster())
		for _, phase := range last.Phases {
			if phase.Phase == e2e.Creating {
				return phase.Began
			}
		}
		return time.Time{}
	}
	first, overtaken := began(hotfix), 0
	for _, r := range others {
		if began := began(r); waiting[r.id()] {
			require.True(t, first.Before(began), "the hotfix began at %s, %s at %s", first, r.branch, began)
			overtaken++
		}
	}
	require.Positive(t, overtaken, "some had to wait")
	require.Contains(t, fairway(t, "e2e", "list"), hotfix.cluster())
}

// queue is as it is now; false if nobody has entered it yet, or a test has killed who answers.
func queue(ctx context.Context) (state workflows.TestQueueState, found bool) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	answer, err := temporal.QueryWorkflow(ctx, workflows.TestQueueID, "", workflows.StateQuery)
	return state, err == nil && answer.Get(&state) == nil
}

// places is what was seen of the queue.
type places struct {
	mu    sync.Mutex
	tests map[string]bool
	most  int // places taken at a time
}

// watch looks at the queue until it ends.
func (p *places) watch(ctx context.Context) {
	for ctx.Err() == nil {
		p.look(ctx)
		select {
		case <-ctx.Done():
		case <-time.After(sometimes / 2):
		}
	}
}

func (p *places) look(ctx context.Context) {
	state, found := queue(ctx)
	if !found {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	taken := 0
	for _, entry := range state.Entries {
		p.tests[entry.Request.ID] = true
		if entry.Given != nil {
			taken++
		}
	}
	p.most = max(p.most, taken)
}

// judge says what is wrong with what was seen. Only all tests together are ten.
func (p *places) judge(all bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	fmt.Printf("%d tests shared %d places\n", len(p.tests), p.most)
	if p.most > limit {
		return fmt.Errorf("%d places were taken at a time, the limit is %d", p.most, limit)
	}
	if all && (len(p.tests) < 10 || p.most < limit) {
		return fmt.Errorf("%d tests took %d places at a time; expected at least 10 tests that take all %d", len(p.tests), p.most, limit)
	}
	return nil
}
