package main

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	commonpb "go.temporal.io/api/common/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
)

// fakeRun is a workflow that ends as its fake says.
type fakeRun struct {
	client.WorkflowRun
	f  *fakeTemporal
	id string
}

func (r fakeRun) GetID() string { return r.id }

func (r fakeRun) Get(ctx context.Context, out any) error {
	r.f.mutex.Lock()
	answer, ends := r.f.ends[r.id]
	r.f.mutex.Unlock()
	if !ends {
		<-ctx.Done()
		return ctx.Err()
	}
	return into(answer, out)
}

func (f *fakeTemporal) GetWorkflow(_ context.Context, id, _ string) client.WorkflowRun {
	return fakeRun{f: f, id: id}
}

func (f *fakeTemporal) ExecuteWorkflow(_ context.Context, options client.StartWorkflowOptions, _ any, args ...any) (client.WorkflowRun, error) {
	for _, ids := range f.running {
		if slices.Contains(ids, options.ID) {
			return nil, serviceerror.NewWorkflowExecutionAlreadyStarted("it runs", "", "")
		}
	}
	f.begun = append(f.begun, args[0])
	return fakeRun{f: f, id: options.ID}, nil
}

func (f *fakeTemporal) SignalWorkflow(_ context.Context, id, _, name string, arg any) error {
	for _, ids := range f.running {
		if slices.Contains(ids, id) {
			f.told = map[string]any{name: arg}
			return nil
		}
	}
	return serviceerror.NewNotFound("no such workflow")
}

func (f *fakeTemporal) ScheduleClient() client.ScheduleClient { return f.schedules }

// fakeSchedules keeps schedules as Temporal does.
type fakeSchedules struct {
	client.ScheduleClient
	kept map[string]*client.ScheduleDescription
	memo map[string]*commonpb.Memo
	did  []string
	// hidden are not listed, as those that were made a moment ago.
	hidden []string
	// fails says what a change of a schedule fails with.
	fails map[string]error
}

func encoded(value any) *commonpb.Payload {
	payload, err := converter.GetDefaultDataConverter().ToPayload(value)
	if err != nil {
		panic(err)
	}
	return payload
}

func (s *fakeSchedules) Create(_ context.Context, options client.ScheduleOptions) (client.ScheduleHandle, error) {
	if err := s.fails[options.ID]; err != nil {
		return nil, err
	}
	if s.kept[options.ID] != nil {
		return nil, temporal.ErrScheduleAlreadyRunning
	}
	s.did = append(s.did, "make "+options.ID)
	if s.kept == nil {
		s.kept, s.memo = map[string]*client.ScheduleDescription{}, map[string]*commonpb.Memo{}
	}
	s.keep(options.ID, client.Schedule{
		Action: options.Action, Spec: &options.Spec, Policy: &client.SchedulePolicies{Overlap: options.Overlap, CatchupWindow: options.CatchupWindow}, State: &client.ScheduleState{},
	})
	s.memo[options.ID] = &commonpb.Memo{Fields: map[string]*commonpb.Payload{}}
	for name, value := range options.Memo {
		s.memo[options.ID].Fields[name] = encoded(value)
	}
	return nil, nil
}

// keep keeps a schedule in the form in which it is described.
func (s *fakeSchedules) keep(id string, schedule client.Schedule) {
	action := *schedule.Action.(*client.ScheduleWorkflowAction)
	if _, named := action.Workflow.(string); !named {
		action.Workflow = lookWorkflow
	}
	for i, arg := range action.Args {
		if _, is := arg.(*commonpb.Payload); !is {
			action.Args[i] = encoded(arg)
		}
	}
	schedule.Action = &action
	s.kept[id] = &client.ScheduleDescription{Schedule: schedule}
}

type fakeScheduleList struct{ entries []*client.ScheduleListEntry }

func (l *fakeScheduleList) HasNext() bool { return len(l.entries) > 0 }

func (l *fakeScheduleList) Next() (*client.ScheduleListEntry, error) {
	next := l.entries[0]
	l.entries = l.entries[1:]
	return next, nil
}

func (s *fakeSchedules) List(context.Context, client.ScheduleListOptions) (client.ScheduleListIterator, error) {
	list := &fakeScheduleList{}
	if s == nil {
		return list, nil
	}
	for id, each := range s.kept {
		if !slices.Contains(s.hidden, id) {
			action := each.Schedule.Action.(*client.ScheduleWorkflowAction)
			entry := &client.ScheduleListEntry{ID: id, Spec: each.Schedule.Spec, Paused: each.Schedule.State.Paused, Note: each.Schedule.State.Note, Memo: s.memo[id]}
			entry.WorkflowType.Name = action.Workflow.(string)
			list.entries = append(list.entries, entry)
		}
	}
	slices.SortFunc(list.entries, func(a, b *client.ScheduleListEntry) int { return strings.Compare(a.ID, b.ID) })
	return list, nil
}

func (s *fakeSchedules) GetHandle(_ context.Context, id string) client.ScheduleHandle {
	return &fakeSchedule{schedules: s, id: id}
}

type fakeSchedule struct {
	client.ScheduleHandle
	schedules *fakeSchedules
	id        string
}

func (h *fakeSchedule) Describe(context.Context) (*client.ScheduleDescription, error) {
	if found := h.schedules.kept[h.id]; found != nil {
		return found, nil
	}
	return nil, serviceerror.NewNotFound("no such schedule")
}

func (h *fakeSchedule) Update(_ context.Context, options client.ScheduleUpdateOptions) error {
	if err := h.schedules.fails[h.id]; err != nil {
		return err
	}
	update, err := options.DoUpdate(client.ScheduleUpdateInput{Description: *h.schedules.kept[h.id]})
	if err == temporal.ErrSkipScheduleUpdate {
		return nil
	}
	if err == nil {
		h.schedules.did = append(h.schedules.did, "change "+h.id)
		h.schedules.keep(h.id, *update.Schedule)
	}
	return err
}

func (h *fakeSchedule) Delete(context.Context) error {
	if h.schedules.kept[h.id] == nil {
		return serviceerror.NewNotFound("no such schedule")
	}
	h.schedules.did = append(h.schedules.did, "remove "+h.id)
	delete(h.schedules.kept, h.id)
	return nil
}

// typed is a command as somebody has typed it, with what it has written.
func typed(t *testing.T) (cmd *cobra.Command, out, progress *bytes.Buffer) {
	t.Helper()
	cmd, out, progress = &cobra.Command{}, &bytes.Buffer{}, &bytes.Buffer{}
	cmd.SetContext(t.Context())
	cmd.SetOut(out)
	cmd.SetErr(progress)
	return cmd, out, progress
}
