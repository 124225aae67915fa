package workflows

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/fairway-project/fairway/e2e"
)

// TestQueue is the actor that gives tests their places: so many in each account, hotfixes first, then who has
// waited longest. Tests hear of their places by signal. Who has one gives it back when all of the cluster is gone.
func TestQueue(ctx workflow.Context, state TestQueueState) error {
	q := newTestQueue(state)
	if err := workflow.SetQueryHandler(ctx, StateQuery, func() (TestQueueState, error) { return q.TestQueueState, nil }); err != nil {
		return err
	}
	selector := workflow.NewSelector(ctx)
	hear(ctx, selector, EnterName, q.enter)
	hear(ctx, selector, LeaveName, q.leave)
	selector.AddReceive(ctx.Done(), func(workflow.ReceiveChannel, bool) {})
	for {
		for selector.HasPending() && ctx.Err() == nil {
			selector.Select(ctx)
		}
		q.give()
		q.show(ctx)
		if q.say(ctx) { // others may have come meanwhile, or who has gone has left a place
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		info := workflow.GetInfo(ctx)
		if (info.GetCurrentHistoryLength() > clusterHistory || info.GetContinueAsNewSuggested()) && !selector.HasPending() {
			return workflow.NewContinueAsNewError(ctx, TestQueue, q.TestQueueState)
		}
		selector.Select(ctx)
	}
}

type testQueue struct {
	TestQueueState
	// places are those of the entries now, by the id of the request; told is what the tests know.
	places, told map[string]TestPlace
	// asked are those that are told whether it has changed or not.
	asked map[string]bool
}

// newTestQueue goes on where the run before ended, which has told everybody.
func newTestQueue(state TestQueueState) *testQueue {
	q := &testQueue{TestQueueState: state, told: map[string]TestPlace{}, asked: map[string]bool{}}
	q.give()
	for _, entry := range q.Entries {
		q.told[entry.Request.ID] = q.places[entry.Request.ID]
	}
	return q
}

// enter has a test wait, or tells it once more what its place is.
func (q *testQueue) enter(entry TestQueueEntry) {
	if entry.Request.ID == "" {
		return
	}
	q.Accounts = entry.Accounts
	q.asked[entry.Request.ID] = true
	if !slices.ContainsFunc(q.Entries, entry.same) {
		entry.Accounts, entry.Given = nil, nil // the actor knows better
		q.Entries = append(q.Entries, entry)
	}
}

// leave takes a test out. Where only its cluster is known, such as after a sweep, that is enough.
func (q *testQueue) leave(entry TestQueueEntry) {
	q.Entries = slices.DeleteFunc(q.Entries, func(e TestQueueEntry) bool {
		return entry.same(e) || entry.Request.ID == "" && entry.Request.Cluster != "" && entry.Request.Cluster == e.Request.Cluster
	})
}

func (e TestQueueEntry) same(other TestQueueEntry) bool { return e.Request.ID == other.Request.ID }

// give hands out what is free.
func (q *testQueue) give() {
	queue := make([]e2e.Entry, len(q.Entries))
	for i, entry := range q.Entries {
		queue[i] = e2e.Entry{Hotfix: entry.Request.Hotfix, Since: entry.Since, Given: entry.Given}
	}
	q.places = map[string]TestPlace{}
	for i, place := range e2e.Places(q.Accounts, queue) {
		q.Entries[i].Given = place.Given
		q.places[q.Entries[i].Request.ID] = TestPlace(place)
	}
}

// say tells the tests whose places have changed, and says whether there were any. A test that is gone although it
// has not even heard of a place has made nothing, and is forgotten.
func (q *testQueue) say(ctx workflow.Context) (said bool) {
	type told struct {
		id     string
		place  TestPlace
		future workflow.Future
	}
	var telling []told
	for _, entry := range q.Entries {
		id := entry.Request.ID
		before, heard := q.told[id]
		if place := q.places[id]; q.asked[id] || !heard || !before.equals(place) {
			telling = append(telling, told{id, place, workflow.SignalExternalWorkflow(ctx, TestID(id), "", TestPlaceName, place)})
		}
	}
	clear(q.asked)
	for _, t := range telling {
		err := t.future.Get(ctx, nil)
		before, heard := q.told[t.id]
		q.told[t.id] = t.place
		if err == nil {
			continue
		}
		workflow.GetLogger(ctx).Info("a test was not told its place", "test", t.id, "error", err)
		gone := (*temporal.UnknownExternalWorkflowExecutionError)(nil)
		if held := heard && before.Given != nil; errors.As(err, &gone) && !held {
			q.leave(TestQueueEntry{Request: e2e.Request{ID: t.id}})
			delete(q.told, t.id)
		}
	}
	return len(telling) > 0
}

func (p TestPlace) equals(other TestPlace) bool {
	if p.Given == nil || other.Given == nil {
		return p == other
	}
	return p.Place == other.Place && *p.Given == *other.Given
}

// show tells people who waits; that costs no event.
func (q *testQueue) show(ctx workflow.Context) {
	var waiting, running string
	for _, entry := range q.Entries {
		name := fmt.Sprintf("`%s` (%s)", TestID(entry.Request.ID), TestSummary(entry.Request))
		if entry.Given != nil {
			running += fmt.Sprintf("\n- %s in account %s, %s", name, entry.Given.Account, entry.Given.Region)
			continue
		}
		if entry.Request.Hotfix {
			name += ", a hotfix,"
		}
		waiting += fmt.Sprintf("\n- place %d: %s since %s", q.places[entry.Request.ID].Place, name, entry.Since.UTC().Format(time.RFC3339))
	}
	details := "No test has a cluster."
	if running != "" {
		details = "Tests that have a cluster:\n" + running
	}
	if waiting != "" {
		details += "\n\nTests that wait for one:\n" + waiting
	}
	workflow.SetCurrentDetails(ctx, details)
}
