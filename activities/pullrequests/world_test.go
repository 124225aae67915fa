package pullrequests

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"

	"github.com/fairway-project/fairway/activities/activitytest"
	"github.com/fairway-project/fairway/channels/channelstest"
	"github.com/fairway-project/fairway/e2e"
	"github.com/fairway-project/fairway/forge"
	"github.com/fairway-project/fairway/promotion"
	"github.com/fairway-project/fairway/workflows"
)

var noon = time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)

// world is a repository with channels dev and alpha, its forge, and the queue.
type world struct {
	t      *testing.T
	origin channelstest.Repository
	forge  *memoryForge
	queue  *memoryQueue
	acts   *Activities
	now    time.Time
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, origin: channelstest.New(t), now: noon}
	first := w.origin.Commit("dev", "a", "1")
	w.origin.Git("update-ref", "refs/heads/alpha", first)
	w.forge = &memoryForge{w: w, down: map[string]error{}, statuses: map[string][]forge.Status{}, comments: map[int]string{}, writers: []string{"anna", "bert"}, pushed: map[int]time.Time{}, labels: map[int]forge.LabelEvent{}}
	w.queue = &memoryQueue{}
	settings := e2e.Defaults()
	settings.UI = "https://temporal.example.org/namespaces/default/"
	w.acts = &Activities{
		Settings: settings, Pipeline: promotion.Pipeline{Channels: []string{"dev", "alpha"}, Edges: []promotion.Edge{{From: "dev", To: "alpha"}}},
		Repository: w.origin.Mirror(), Forge: w.forge, Queue: w.queue.entries, Temporal: w.queue, Now: func() time.Time { return w.now },
	}
	return w
}

// open is a labelled pull request of somebody, from a fork or a branch.
func (w *world) open(author string, fork bool) *forge.PullRequest {
	number := len(w.forge.requests) + 1
	head := w.origin.Commit(fmt.Sprintf("topic-%d", number), "b", fmt.Sprint(number))
	pr := &forge.PullRequest{
		Number: number, Title: "Change", Author: author, Labels: []string{"ready-to-test"}, Head: fmt.Sprintf("topic-%d", number), Base: "dev", HeadCommit: head, Fork: fork,
		State: forge.Open, Created: w.now.Add(-time.Hour), URL: fmt.Sprintf("https://forge.example.org/pulls/%d", number),
	}
	w.forge.requests = append(w.forge.requests, pr)
	w.forge.pushed[number] = pr.Created
	w.label(pr, "bert")
	return pr
}

// label has somebody set the label now.
func (w *world) label(pr *forge.PullRequest, by string) {
	pr.Labels = []string{"ready-to-test"}
	w.forge.labels[pr.Number], pr.Updated = forge.LabelEvent{By: by, At: w.now}, w.now
}

// push moves the head of a pull request now.
func (w *world) push(pr *forge.PullRequest) {
	pr.HeadCommit = w.origin.Commit(pr.Head, "b", w.now.String())
	w.forge.pushed[pr.Number], pr.Updated = w.now, w.now
}

func (w *world) look() workflows.PullRequestsLook {
	w.t.Helper()
	var look workflows.PullRequestsLook
	require.NoError(w.t, w.run(w.acts.LookAtPullRequests, workflows.LookAtPullRequests{}, &look))
	return look
}

func (w *world) run(activity, in, out any) error { return activitytest.Worker{}.Run(activity, in, out) }

func (w *world) status(commit string) *forge.Status {
	if all := w.forge.statuses[commit]; len(all) > 0 {
		return &all[len(all)-1]
	}
	return nil
}

// memoryQueue stands for Temporal.
type memoryQueue struct {
	client.Client
	tests   []e2e.Request
	reports map[string]e2e.Report // of those that answer
	down    bool
}

func (q *memoryQueue) QueryWorkflow(_ context.Context, id, _, query string, _ ...any) (converter.EncodedValue, error) {
	report, answers := q.reports[id]
	switch {
	case q.down:
		return nil, errors.New("no answer")
	case answers && query == workflows.ProgressQuery:
		payloads, err := converter.GetDefaultDataConverter().ToPayloads(report)
		return client.NewValue(payloads), err
	}
	return nil, serviceerror.NewNotFound("no such workflow")
}

func (q *memoryQueue) entries(context.Context) (entries []workflows.TestQueueEntry, err error) {
	if q.down {
		return nil, temporal.NewApplicationError("no answer", workflows.Unreachable)
	}
	for _, test := range q.tests {
		entries = append(entries, workflows.TestQueueEntry{Request: test})
	}
	return entries, nil
}

// memoryForge behaves as forge.Driver says.
type memoryForge struct {
	w        *world
	requests []*forge.PullRequest
	labels   map[int]forge.LabelEvent
	pushed   map[int]time.Time
	writers  []string
	statuses map[string][]forge.Status
	comments map[int]string
	down     map[string]error // by method, or by method and number
	calls    []string
	edits    int
}

func (f *memoryForge) call(method string, of any) error {
	f.calls = append(f.calls, fmt.Sprintf("%s %v", method, of))
	if err := f.down[method]; err != nil {
		return err
	}
	return f.down[fmt.Sprintf("%s %v", method, of)]
}

func (f *memoryForge) count(method string) (n int) {
	for _, call := range f.calls {
		if strings.HasPrefix(call, method+" ") {
			n++
		}
	}
	return n
}

func (f *memoryForge) PullRequest(_ context.Context, number int) (forge.PullRequest, error) {
	if err := f.call("PullRequest", number); err != nil {
		return forge.PullRequest{}, err
	}
	if number > len(f.requests) {
		return forge.PullRequest{}, forge.ErrNotFound
	}
	return *f.requests[number-1], nil
}

func (f *memoryForge) PullRequests(_ context.Context, filter forge.Filter) (all []forge.PullRequest, err error) {
	for _, pr := range slices.Backward(f.requests) {
		if pr.State == filter.State && slices.Contains(pr.Labels, filter.Label) {
			all = append(all, *pr)
		}
	}
	return all, f.call("PullRequests", "")
}

func (f *memoryForge) Labelled(_ context.Context, number int, _ string) (forge.LabelEvent, bool, error) {
	event, found := f.labels[number]
	return event, found, f.call("Labelled", number)
}

func (f *memoryForge) PushedAt(_ context.Context, pr forge.PullRequest) (time.Time, error) {
	return f.pushed[pr.Number], f.call("PushedAt", pr.Number)
}

func (f *memoryForge) CanWrite(_ context.Context, user string) (bool, error) {
	return slices.Contains(f.writers, user), f.call("CanWrite", user)
}

func (f *memoryForge) Statuses(_ context.Context, commit string) ([]forge.Status, error) {
	return f.statuses[commit], f.call("Statuses", commit)
}

func (f *memoryForge) SetStatus(_ context.Context, commit string, status forge.Status) error {
	if err := f.call("SetStatus", commit); err != nil {
		return err
	}
	status.At = time.Time{}
	if last := f.w.status(commit); last != nil {
		if same := *last; same.Context == status.Context && same.State == status.State && same.Description == status.Description && same.URL == status.URL {
			return nil
		}
	}
	status.At = f.w.now
	f.statuses[commit] = append(f.statuses[commit], status)
	return nil
}

func (f *memoryForge) Comment(_ context.Context, number int, marker, text string) error {
	require.Equal(f.w.t, "fairway-e2e", marker)
	if err := f.call("Comment", number); err != nil {
		return err
	}
	if f.comments[number] != text {
		f.comments[number], f.requests[number-1].Updated = text, f.w.now
		f.edits++
	}
	return nil
}
