package main

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"

	"github.com/fairway-project/fairway/e2e"
	"github.com/fairway-project/fairway/promotion"
	"github.com/fairway-project/fairway/workflows"
)

func pipelineOf(every time.Duration, names ...string) promotion.Pipeline {
	p := promotion.Pipeline{Every: every}
	for i := range names[1:] {
		p.Edges = append(p.Edges, promotion.Edge{From: names[i], To: names[i+1], Mode: promotion.Merge})
	}
	return p
}

func TestTheSchedulesOfAPipelineAreComparedWithThoseThereAre(t *testing.T) {
	dev := edgeSchedule{ID: "promotion/dev-to-alpha", From: "dev", To: "alpha", Every: time.Minute, CatchUp: time.Minute, Overlap: "Skip", TaskQueue: "fairway", Workflow: lookWorkflow}
	with := func(change func(*edgeSchedule)) edgeSchedule {
		out := dev
		change(&out)
		return out
	}
	for rule, test := range map[string]struct {
		wanted, found []edgeSchedule
		action        scheduleAction
		changes       []string
		remark        string
	}{
		"a new edge":           {[]edgeSchedule{dev}, nil, makeIt, nil, ""},
		"nothing new":          {[]edgeSchedule{dev}, []edgeSchedule{dev}, keepIt, nil, ""},
		"an edge that is gone": {nil, []edgeSchedule{dev}, removeIt, nil, "the pipeline has no such edge any more"},
		"one of other workers": {nil, []edgeSchedule{with(func(s *edgeSchedule) { s.TaskQueue = "other" })}, leaveIt, nil, "it belongs to the workers of task queue other"},
		"another pace":         {[]edgeSchedule{dev}, []edgeSchedule{with(func(s *edgeSchedule) { s.Every = 90 * time.Second })}, changeIt, []string{"every: 1m30s -> 1m"}, ""},
		"a cron of somebody's": {[]edgeSchedule{dev}, []edgeSchedule{with(func(s *edgeSchedule) { s.Every = 0 })}, changeIt,
			[]string{"every: something else than an interval -> 1m"}, ""},
		"all else": {[]edgeSchedule{dev}, []edgeSchedule{with(func(s *edgeSchedule) {
			s.CatchUp, s.Overlap, s.TaskQueue, s.From, s.Asks = time.Hour, "AllowAll", "old", "", "now"
		})}, changeIt, []string{"catch-up: 1h0m0s -> 1m0s", "overlap: AllowAll -> Skip", "task queue: old -> fairway", "from:  -> dev", "asks for: now -> what is due"}, ""},
		"a paused one": {[]edgeSchedule{dev}, []edgeSchedule{with(func(s *edgeSchedule) { s.Paused, s.Note = true, "incident" })}, keepIt, nil,
			"somebody has paused it, and it stays paused: incident"},
		"a paused one that changes": {[]edgeSchedule{dev}, []edgeSchedule{with(func(s *edgeSchedule) { s.Paused, s.Every = true, time.Hour })}, changeIt, []string{"every: 1h -> 1m"},
			"somebody has paused it, and it stays paused"},
	} {
		t.Run(rule, func(t *testing.T) {
			diff := diffSchedules(test.wanted, test.found, "fairway")
			require.Len(t, diff, 1)
			require.Equal(t, test.action, diff[0].Action)
			require.Equal(t, test.changes, diff[0].Changes)
			require.Equal(t, test.remark, diff[0].Remark)
		})
	}
	require.Empty(t, diffSchedules(nil, nil, "fairway"))
}

func TestSchedulesAreMadeOfThePipeline(t *testing.T) {
	f := &fakeTemporal{t: t, activities: map[string]any{"ChoosePromotion": workflows.PromotionChoice{}}, schedules: &fakeSchedules{}}
	apply := func(pipeline promotion.Pipeline, dryRun bool) appliedSchedules {
		t.Helper()
		f.schedules.did = nil
		result, err := f.connection().applySchedules(t.Context(), pipeline, e2e.Settings{}, dryRun)
		require.NoError(t, err)
		require.NoError(t, result.failure())
		return result
	}
	pipeline := pipelineOf(time.Minute, "dev", "alpha", "stable")

	result := apply(pipeline, true)
	require.Empty(t, f.schedules.did)
	text := shown(t, result.show)
	requireRow(t, text, "make", "promotion/dev-to-alpha", "1m")
	require.Contains(t, text, "Nothing has been changed")

	apply(pipeline, false)
	require.Equal(t, []string{"make promotion/dev-to-alpha", "make promotion/alpha-to-stable"}, f.schedules.did)
	made := f.schedules.kept["promotion/alpha-to-stable"].Schedule
	require.Equal(t, []client.ScheduleIntervalSpec{{Every: time.Minute}}, made.Spec.Intervals)
	require.Equal(t, &client.SchedulePolicies{Overlap: enumspb.SCHEDULE_OVERLAP_POLICY_SKIP, CatchupWindow: time.Minute}, made.Policy)
	require.Equal(t, "promotion/alpha-to-stable/look", made.Action.(*client.ScheduleWorkflowAction).ID)

	result = apply(pipeline, false)
	require.Empty(t, f.schedules.did, "the same once more changes nothing")
	requireRow(t, shown(t, result.show), "unchanged", "promotion/dev-to-alpha")

	paused := f.schedules.kept["promotion/dev-to-alpha"]
	paused.Schedule.State.Paused, paused.Schedule.State.Note = true, "incident 4711"
	f.running = map[string][]string{"Promote": {"promotion/alpha-to-stable"}}
	result = apply(pipelineOf(5*time.Minute, "dev", "alpha"), false)
	require.Equal(t, []string{"change promotion/dev-to-alpha", "remove promotion/alpha-to-stable"}, f.schedules.did)
	require.True(t, f.schedules.kept["promotion/dev-to-alpha"].Schedule.State.Paused)
	text = shown(t, result.show)
	require.Contains(t, text, "every: 1m -> 5m; somebody has paused it, and it stays paused: incident 4711")
	require.Contains(t, text, "the promotion under way goes on, unless `fairway promotion cancel alpha stable --reason ...` ends it")

	f.schedules.hidden = []string{"promotion/dev-to-alpha"}
	apply(pipelineOf(5*time.Minute, "dev", "alpha"), false)
	require.Empty(t, f.schedules.did, "a list that lags behind is not believed")

	apply(promotion.Pipeline{}, false)
	require.Empty(t, f.schedules.did)
	f.schedules.hidden = nil
	apply(promotion.Pipeline{}, false)
	require.Equal(t, []string{"remove promotion/dev-to-alpha"}, f.schedules.did)
	require.Contains(t, shown(t, apply(promotion.Pipeline{}, false).show), "The pipeline has no edges")
}

func TestSchedulesOfOthersAreLeftAlone(t *testing.T) {
	f := &fakeTemporal{t: t, schedules: &fakeSchedules{kept: map[string]*client.ScheduleDescription{}}, activities: map[string]any{"ChoosePromotion": workflows.PromotionChoice{}}}
	other := client.Schedule{Action: &client.ScheduleWorkflowAction{Workflow: "PromoteStaff", TaskQueue: "hr"}, Spec: &client.ScheduleSpec{}, Policy: &client.SchedulePolicies{}, State: &client.ScheduleState{}}
	f.schedules.keep("promotion/yearly", other)
	result, err := f.connection().applySchedules(t.Context(), promotion.Pipeline{}, e2e.Settings{}, false)
	require.NoError(t, err)
	require.Empty(t, result.Schedules)

	f.schedules.keep("promotion/dev-to-alpha", other)
	result, err = f.connection().applySchedules(t.Context(), pipelineOf(time.Minute, "dev", "alpha", "stable"), e2e.Settings{}, false)
	require.NoError(t, err)
	require.Equal(t, []string{"Schedule promotion/dev-to-alpha is not Fairway's, since it starts workflow PromoteStaff; remove it or call a channel otherwise."}, result.Problems)
	require.Empty(t, f.schedules.did)
	requireStatus(t, exitUsage, result.failure())
}

func TestNothingIsScheduledThatTheWorkerDoesNotKnow(t *testing.T) {
	f := &fakeTemporal{t: t, schedules: &fakeSchedules{}, activities: map[string]any{"ChoosePromotion": func(in any) any {
		if in.(workflows.ChoosePromotion).To == "stable" {
			return temporal.NewApplicationError("branch stable does not exist; push it", workflows.InvalidInput)
		}
		return workflows.PromotionChoice{}
	}}}
	pipeline := pipelineOf(time.Minute, "dev", "alpha", "stable")
	result, err := f.connection().applySchedules(t.Context(), pipeline, e2e.Settings{}, false)
	require.NoError(t, err)
	require.Empty(t, f.schedules.did)
	requireStatus(t, exitUsage, result.failure())
	require.Contains(t, shown(t, result.show), "Problem: Edge alpha to stable: branch stable does not exist; push it")

	f.activities["ChoosePromotion"] = temporal.NewApplicationError("the forge does not answer", workflows.Unreachable)
	result, err = f.connection().applySchedules(t.Context(), pipeline, e2e.Settings{}, false)
	require.NoError(t, err)
	require.Len(t, f.schedules.did, 2, "a look may fail for a while")
	require.Contains(t, shown(t, result.show), "Warning: Edge dev to alpha: the forge does not answer")

	f.activities["ChoosePromotion"] = temporal.NewTimeoutError(enumspb.TIMEOUT_TYPE_SCHEDULE_TO_START, nil)
	_, err = f.connection().applySchedules(t.Context(), pipeline, e2e.Settings{}, false)
	requireStatus(t, exitUnreachable, err)
}

func TestEdgesThatCannotBeToldApartAreRefused(t *testing.T) {
	_, err := schedulesOf(promotion.Pipeline{Edges: []promotion.Edge{{From: "a", To: "b-to-c"}, {From: "a-to-b", To: "c"}}}, "fairway")
	require.EqualError(t, err, "the edges a to b-to-c and a-to-b to c have the same name, a-to-b-to-c; call a channel otherwise")
}

func TestAScheduleThatCannotBeChangedHoldsUpNoOther(t *testing.T) {
	f := &fakeTemporal{t: t, activities: map[string]any{"ChoosePromotion": workflows.PromotionChoice{}},
		schedules: &fakeSchedules{fails: map[string]error{"promotion/dev-to-alpha": errors.New("no permission")}}}
	result, err := f.connection().applySchedules(t.Context(), pipelineOf(time.Minute, "dev", "alpha", "stable"), e2e.Settings{}, false)
	require.NoError(t, err)
	require.Equal(t, []string{"make promotion/alpha-to-stable"}, f.schedules.did)
	require.EqualError(t, result.failure(), "1 schedule could not be brought up to date; the same command tries again")
	require.Contains(t, shown(t, result.show), "no permission")
}

func TestWhatSomebodyElseMadeMeanwhileIsTakenOver(t *testing.T) {
	f := &fakeTemporal{t: t, schedules: &fakeSchedules{}}
	wanted, err := schedulesOf(pipelineOf(time.Minute, "dev", "alpha"), "fairway")
	require.NoError(t, err)
	change := scheduleChange{edgeSchedule: wanted[0], Action: makeIt}
	require.NoError(t, f.connection().applySchedule(t.Context(), change))
	require.NoError(t, f.connection().applySchedule(t.Context(), change))
	change.Every = time.Hour
	require.NoError(t, f.connection().applySchedule(t.Context(), change))
	require.Equal(t, []string{"make promotion/dev-to-alpha", "change promotion/dev-to-alpha"}, f.schedules.did)
	change.Action = removeIt
	require.NoError(t, f.connection().applySchedule(t.Context(), change))
	require.NoError(t, f.connection().applySchedule(t.Context(), change), "it is gone already")
}

func TestSchedulesAreListedAndNameTheEdges(t *testing.T) {
	f := &fakeTemporal{t: t, activities: map[string]any{"ChoosePromotion": workflows.PromotionChoice{}}, schedules: &fakeSchedules{}}
	require.Contains(t, shown(t, func(table *table) { showSchedules(table, nil, time.Now()) }), "There are no schedules")
	_, err := f.connection().applySchedules(t.Context(), pipelineOf(time.Minute, "dev", "alpha", "stable"), e2e.Settings{}, false)
	require.NoError(t, err)
	f.schedules.keep("sync", client.Schedule{Action: &client.ScheduleWorkflowAction{Workflow: "Sync"}, Spec: &client.ScheduleSpec{}, State: &client.ScheduleState{Paused: true, Note: "night"}})
	f.schedules.keep("backup", client.Schedule{Action: &client.ScheduleWorkflowAction{Workflow: "Backup"}, Spec: &client.ScheduleSpec{}, State: &client.ScheduleState{}})
	listed, err := f.connection().fairwaySchedules(t.Context())
	require.NoError(t, err)
	text := shown(t, func(table *table) { showSchedules(table, listed, time.Now()) })
	requireRow(t, text, "promotion/alpha-to-stable", "1m", "-", "-", "no")
	requireRow(t, text, "sync", "-", "-", "-", "yes", "night")
	require.NotContains(t, text, "backup")

	edges, err := f.connection().edges(t.Context())
	require.NoError(t, err)
	require.Equal(t, []edge{{"alpha", "stable"}, {"dev", "alpha"}}, edges)
	require.Equal(t, []string{"alpha", "dev"}, edgeEnds(edges, nil))
	require.Equal(t, []string{"alpha"}, edgeEnds(edges, []string{"dev"}))
}

// requireStatus requires an error to end the command with an exit status.
func requireStatus(t *testing.T, status int, err error) {
	t.Helper()
	var typed *statusError
	require.ErrorAs(t, err, &typed)
	require.Equal(t, status, typed.status, err)
}
