package main

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"

	"github.com/fairway-project/fairway/e2e"
	"github.com/fairway-project/fairway/promotion"
	"github.com/fairway-project/fairway/workflows"
)

func testsOf(change func(*e2e.Settings)) e2e.Settings {
	settings := e2e.Defaults()
	settings.Accounts = []e2e.Account{{Account: "aws:123456789012", Region: "eu-central-1", Limit: 2}}
	change(&settings)
	return settings
}

func TestTestsHaveSchedulesWhileThereAreAccounts(t *testing.T) {
	f := &fakeTemporal{t: t, activities: map[string]any{"ListSuites": workflows.SuitesToRun{}}, schedules: &fakeSchedules{}}
	apply := func(change func(*e2e.Settings)) appliedSchedules {
		t.Helper()
		f.schedules.did = nil
		result, err := f.connection().applySchedules(t.Context(), promotion.Pipeline{}, testsOf(change), false)
		require.NoError(t, err)
		require.NoError(t, result.failure())
		return result
	}
	as := func(*e2e.Settings) {}

	apply(as)
	require.Equal(t, []string{"make e2e/look", "make sweep/schedule"}, f.schedules.did)
	sweep := f.schedules.kept["sweep/schedule"].Schedule
	require.Equal(t, []client.ScheduleIntervalSpec{{Every: 10 * time.Minute}}, sweep.Spec.Intervals)
	require.Equal(t, "sweep", sweep.Action.(*client.ScheduleWorkflowAction).ID)
	require.Equal(t, encoded(workflows.SweepInput{AtMost: 20}), sweep.Action.(*client.ScheduleWorkflowAction).Args[0])
	require.Equal(t, encoded(workflows.LookAtPullRequests{}), f.schedules.kept["e2e/look"].Schedule.Action.(*client.ScheduleWorkflowAction).Args[0])

	apply(as)
	require.Empty(t, f.schedules.did, "the same once more changes nothing")
	listed, err := f.connection().fairwaySchedules(t.Context())
	require.NoError(t, err)
	require.Len(t, listed, 2)
	edges, err := f.connection().edges(t.Context())
	require.NoError(t, err)
	require.Empty(t, edges)

	result := apply(func(s *e2e.Settings) { s.Every, s.Sweep.AtMost = 5*time.Minute, 3 })
	require.Equal(t, []string{"change e2e/look", "change sweep/schedule"}, f.schedules.did)
	text := shown(t, result.show)
	require.Contains(t, text, "every: 1m -> 5m")
	require.Contains(t, text, "at most: 20 -> 3")

	apply(func(s *e2e.Settings) { s.Sweep.Every = 0 })
	require.Contains(t, f.schedules.did, "remove sweep/schedule")
	apply(func(s *e2e.Settings) { s.Accounts = nil })
	require.Equal(t, []string{"remove e2e/look"}, f.schedules.did)
}

func TestNoTestsAreScheduledThatTheWorkerDoesNotKnow(t *testing.T) {
	f := &fakeTemporal{t: t, activities: map[string]any{"ListSuites": temporal.NewApplicationError("unable to find activityType=ListSuites", notRegistered)}, schedules: &fakeSchedules{}}
	settings := testsOf(func(*e2e.Settings) {})
	result, err := f.connection().applySchedules(t.Context(), promotion.Pipeline{}, settings, false)
	require.NoError(t, err)
	require.Empty(t, f.schedules.did)
	require.Equal(t, []string{"Tests: the worker tests no pull requests: e2e.accounts is empty; docs/e2e.md says how tests are set up"}, result.Problems)
	requireStatus(t, exitUsage, result.failure())

	f.activities["ListSuites"] = workflows.SuitesToRun{}
	f.schedules.kept = map[string]*client.ScheduleDescription{}
	f.schedules.keep("sweep/schedule", client.Schedule{Action: &client.ScheduleWorkflowAction{Workflow: "SweepStreets"}, Spec: &client.ScheduleSpec{}, Policy: &client.SchedulePolicies{}, State: &client.ScheduleState{}})
	result, err = f.connection().applySchedules(t.Context(), promotion.Pipeline{}, settings, false)
	require.NoError(t, err)
	require.Equal(t, []string{"Schedule sweep/schedule is not Fairway's, since it starts workflow SweepStreets; remove it."}, result.Problems)
	require.Empty(t, f.schedules.did)
}
