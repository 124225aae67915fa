package workflows_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/mock"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/workflow"

	"github.com/fairway-project/fairway/e2e"
	"github.com/fairway-project/fairway/workflows"
)

// hall is where tests wait. It writes down what they are told.
type hall struct {
	*testsuite.TestWorkflowEnvironment
	t    *testing.T
	mu   sync.Mutex
	told []string
	// gone are tests that do not run any more; deaf ones cannot be signalled for another reason.
	gone, deaf map[string]bool
	step       int
}

func newHall(t *testing.T) *hall {
	var suite testsuite.WorkflowTestSuite
	h := &hall{TestWorkflowEnvironment: suite.NewTestWorkflowEnvironment(), t: t, gone: map[string]bool{}, deaf: map[string]bool{}}
	h.SetTestTimeout(20 * time.Second)
	h.SetStartTime(noon)
	h.RegisterWorkflow(workflows.TestQueue)
	h.SetStartWorkflowOptions(client.StartWorkflowOptions{ID: workflows.TestQueueID, TaskQueue: "test"})
	h.OnSignalExternalWorkflow(mock.Anything, mock.Anything, "", workflows.TestPlaceName, mock.Anything).Maybe().Return(
		func(_, id, _, _ string, arg any) error {
			h.mu.Lock()
			defer h.mu.Unlock()
			place := arg.(workflows.TestPlace)
			said := fmt.Sprintf("%s: place %d", id, place.Place)
			if place.Given != nil {
				said = fmt.Sprintf("%s: in %s", id, place.Given.Account)
			}
			h.told = append(h.told, said)
			switch {
			case h.gone[id]:
				return &temporal.UnknownExternalWorkflowExecutionError{}
			case h.deaf[id]:
				return errors.New("too many signals")
			}
			return nil
		})
	return h
}

var narrow = []e2e.Account{{Account: "aws:1", Region: "eu", Limit: 1}}

func (h *hall) entry(id string) workflows.TestQueueEntry {
	return workflows.TestQueueEntry{Request: e2e.Request{ID: id, Cluster: "e2e-" + id}, Accounts: narrow, Since: h.Now()}
}

// then has something done in the next minute.
func (h *hall) then(do func()) {
	h.step++
	h.RegisterDelayedCallback(do, time.Duration(h.step)*time.Minute)
}

func (h *hall) enters(id string) {
	h.then(func() { h.SignalWorkflow(workflows.EnterName, h.entry(id)) })
}
func (h *hall) leaves(id string) {
	h.then(func() { h.SignalWorkflow(workflows.LeaveName, h.entry(id)) })
}

// heard expects what was told since it was asked last.
func (h *hall) heard(want ...string) {
	h.then(func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		require.ElementsMatch(h.t, want, h.told) // in any order: the environment sends signals side by side
		h.told = nil
	})
}

func (h *hall) state() (state workflows.TestQueueState) {
	answer, err := h.QueryWorkflow(workflows.StateQuery)
	require.NoError(h.t, err)
	require.NoError(h.t, answer.Get(&state))
	return state
}

func (h *hall) run(state workflows.TestQueueState) {
	h.then(h.CancelWorkflow)
	h.ExecuteWorkflow(workflows.TestQueue, state)
	require.True(h.t, h.IsWorkflowCompleted())
	require.True(h.t, temporal.IsCanceledError(h.GetWorkflowError()), h.GetWorkflowError())
}

func TestTestsHearOfTheirPlacesWhenThoseChange(t *testing.T) {
	h := newHall(t)
	h.enters("a")
	h.heard("e2e/a: in aws:1")
	h.enters("b")
	h.heard("e2e/b: place 1")
	h.enters("c")
	h.heard("e2e/c: place 2")
	h.leaves("a")
	h.heard("e2e/b: in aws:1", "e2e/c: place 1")
	h.leaves("a")
	h.heard([]string(nil)...)
	h.enters("c") // twice is like once, but it is told again
	h.heard("e2e/c: place 1")
	h.then(func() {
		state := h.state()
		require.Len(t, state.Entries, 2)
		require.Equal(t, "aws:1", state.Entries[0].Given.Account)
		require.Nil(t, state.Entries[1].Given)
		require.Equal(t, narrow, state.Accounts)
	})
	h.run(workflows.TestQueueState{})
}

func TestAHotfixComesBeforeOthersThatWait(t *testing.T) {
	h := newHall(t)
	h.enters("a")
	h.enters("b")
	h.heard("e2e/a: in aws:1", "e2e/b: place 1")
	h.then(func() {
		entry := h.entry("hot")
		entry.Request.Hotfix = true
		h.SignalWorkflow(workflows.EnterName, entry)
	})
	h.heard("e2e/b: place 2", "e2e/hot: place 1")
	h.run(workflows.TestQueueState{})
}

func TestNobodyIsHeldUpByTestsThatAreGone(t *testing.T) {
	h := newHall(t)
	h.enters("a")
	h.enters("b")
	h.enters("c")
	h.heard("e2e/a: in aws:1", "e2e/b: place 1", "e2e/c: place 2")
	h.then(func() { h.gone["e2e/b"] = true })
	h.leaves("a")
	h.heard("e2e/b: in aws:1", "e2e/c: place 1", "e2e/c: in aws:1")
	h.then(func() { require.Len(t, h.state().Entries, 1) })
	h.run(workflows.TestQueueState{})
}

// Who was given a place may have a cluster, which counts until it is gone.
func TestATestThatIsGoneKeepsThePlaceThatItHasHeardOf(t *testing.T) {
	h := newHall(t)
	h.enters("a")
	h.then(func() { h.gone["e2e/a"] = true })
	h.enters("a")
	h.enters("b")
	h.heard("e2e/a: in aws:1", "e2e/a: in aws:1", "e2e/b: place 1")
	h.then(func() { require.Len(t, h.state().Entries, 2) })
	h.then(func() { // as the sweep does, which knows the cluster only
		h.SignalWorkflow(workflows.LeaveName, workflows.TestQueueEntry{Request: e2e.Request{Cluster: "e2e-a"}})
	})
	h.heard("e2e/b: in aws:1")
	h.run(workflows.TestQueueState{})
}

func TestATestThatCannotBeToldWaitsOn(t *testing.T) {
	h := newHall(t)
	h.then(func() { h.deaf["e2e/a"] = true })
	h.enters("a")
	h.heard("e2e/a: in aws:1")
	h.then(func() { require.Len(t, h.state().Entries, 1) })
	h.run(workflows.TestQueueState{})
}

func TestTheQueueGoesByTheAccountsThatItWasToldLast(t *testing.T) {
	h := newHall(t)
	h.enters("a")
	h.enters("b")
	h.heard("e2e/a: in aws:1", "e2e/b: place 1")
	h.then(func() {
		entry := h.entry("c")
		entry.Accounts = append(narrow[:1:1], e2e.Account{Account: "aws:2", Region: "eu", Limit: 1})
		h.SignalWorkflow(workflows.EnterName, entry)
	})
	h.heard("e2e/b: in aws:2", "e2e/c: place 1")
	h.run(workflows.TestQueueState{})
}

func TestWhatNobodyUnderstandsKeepsTheQueueGoing(t *testing.T) {
	h := newHall(t)
	h.then(func() { h.SignalWorkflow(workflows.EnterName, "me") })
	h.then(func() { h.SignalWorkflow(workflows.EnterName, workflows.TestQueueEntry{}) })
	h.then(func() { h.SignalWorkflow(workflows.LeaveName, workflows.TestQueueEntry{}) })
	h.enters("a")
	h.heard("e2e/a: in aws:1")
	h.run(workflows.TestQueueState{})
}

func TestALongHistoryOfTheQueueBeginsANewRunThatTellsNobodyTwice(t *testing.T) {
	h := newHall(t)
	h.enters("a")
	h.enters("b")
	h.heard("e2e/a: in aws:1", "e2e/b: place 1")
	h.then(func() { h.SetCurrentHistoryLength(5000) })
	h.enters("c")
	h.ExecuteWorkflow(workflows.TestQueue, workflows.TestQueueState{})
	var next *workflow.ContinueAsNewError
	require.ErrorAs(t, h.GetWorkflowError(), &next)
	var state workflows.TestQueueState
	require.NoError(t, converter.GetDefaultDataConverter().FromPayloads(next.Input, &state))
	require.Len(t, state.Entries, 3)
	require.Equal(t, []string{"e2e/c: place 2"}, h.told)

	again := newHall(t)
	again.leaves("a")
	again.heard("e2e/b: in aws:1", "e2e/c: place 1")
	again.run(state)
}
