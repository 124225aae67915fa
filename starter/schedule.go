package main

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	commonpb "go.temporal.io/api/common/v1"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
	"golang.org/x/sync/errgroup"

	"github.com/fairway-project/fairway/config"
	"github.com/fairway-project/fairway/e2e"
	"github.com/fairway-project/fairway/promotion"
	"github.com/fairway-project/fairway/workflows"
)

func (c *cli) scheduleCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "schedule", Short: "Have Temporal look for promotions, for pull requests to test, and for what tests have left"}
	cmd.AddCommand(c.scheduleApplyCommand(), c.scheduleListCommand())
	return cmd
}

func (c *cli) scheduleApplyCommand() *cobra.Command {
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "apply",
		Short: "Make the schedules of promotions and tests what fairway.yaml says",
		Long: `Make the schedules of promotions and tests what fairway.yaml says: each edge of the pipeline gets a
schedule that looks every pipeline.every whether something is due, and that of an edge that is gone is
removed. With e2e.accounts there is one that looks every e2e.every which pull requests are to be tested,
and one that sweeps every e2e.sweep.every. Doing it again changes nothing. Schedules of others are left
alone.

The worker is asked about each edge, and about tests, first. If it does not know one, because it runs
with another configuration, or if a branch is missing, nothing is changed.

One that a person has paused stays paused; the Temporal UI, or "temporal schedule toggle", lets it
go on. A promotion that is under way along an edge that is gone goes on to its end.`,
		Example: "  fairway schedule apply --config fairway.yaml --dry-run\n  fairway schedule apply --config fairway.yaml",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			loaded, err := config.Load(c.configPath)
			if err != nil {
				return usage(err)
			}
			conn, err := c.connect(cmd.Context())
			if err != nil {
				return err
			}
			defer conn.Close()
			var result appliedSchedules
			if err := patiently(cmd.ErrOrStderr(), "asks the worker about edges and tests, and Temporal about their schedules", func() (err error) {
				result, err = conn.applySchedules(cmd.Context(), loaded.Pipeline, loaded.E2E, dryRun)
				return err
			}); err != nil {
				return err
			}
			if err := c.print(cmd.OutOrStdout(), result, result.show); err != nil {
				return err
			}
			return result.failure()
		},
	}
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "say what would be changed, and change nothing")
	return cmd
}

// edgeSchedule is the schedule of the looks along an edge, or one of tests.
type edgeSchedule struct {
	ID        string        `json:"id"`
	From      string        `json:"from,omitempty"`
	To        string        `json:"to,omitempty"`
	Every     time.Duration `json:"every"` // 0 if it is not one interval
	CatchUp   time.Duration `json:"catch_up"`
	Overlap   string        `json:"overlap"`
	TaskQueue string        `json:"task_queue"`
	Workflow  string        `json:"workflow"`
	// AtMost is how many things a sweep removes.
	AtMost int `json:"at_most,omitempty"`
	// Asks says what else a look is told, which is nothing.
	Asks   string `json:"asks,omitempty"`
	Paused bool   `json:"paused,omitempty"`
	Note   string `json:"note,omitempty"`
}

// scheduleAction says what becomes of a schedule.
type scheduleAction string

const (
	makeIt   scheduleAction = "make"
	changeIt scheduleAction = "change"
	removeIt scheduleAction = "remove"
	keepIt   scheduleAction = "unchanged"
	leaveIt  scheduleAction = "left alone"
)

// scheduleChange is a schedule and what becomes of it.
type scheduleChange struct {
	edgeSchedule
	Action scheduleAction `json:"action"`
	// Changes name each field that changes.
	Changes []string `json:"changes,omitempty"`
	Remark  string   `json:"remark,omitempty"`
	Failed  string   `json:"failed,omitempty"`
}

// appliedSchedules is the result of an apply.
type appliedSchedules struct {
	DryRun    bool             `json:"dry_run,omitempty"`
	Schedules []scheduleChange `json:"schedules"`
	// Problems keep all of it from being changed, Warnings do not; whole sentences.
	Problems []string `json:"problems,omitempty"`
	Warnings []string `json:"warnings,omitempty"`
}

// lookCatchup is how late a look may be; those that were missed while Temporal was down are not made up for.
const lookCatchup = time.Minute

// lookWorkflow is the type of the workflow that looks along an edge.
const lookWorkflow = "ConsiderPromotion"

// schedulesOf are those that a pipeline needs.
func schedulesOf(pipeline promotion.Pipeline, taskQueue string) (out []edgeSchedule, err error) {
	seen := map[string]promotion.Edge{}
	for _, edge := range pipeline.Edges {
		id := workflows.PromotionID(edge.From, edge.To)
		if other, twice := seen[id]; twice {
			return nil, fmt.Errorf("the edges %s to %s and %s to %s have the same name, %s; call a channel otherwise", other.From, other.To, edge.From, edge.To, edge.Name())
		}
		seen[id] = edge
		out = append(out, edgeSchedule{
			ID: id, From: edge.From, To: edge.To, Every: max(pipeline.Every, time.Second), CatchUp: lookCatchup,
			Overlap: enumspb.SCHEDULE_OVERLAP_POLICY_SKIP.String(), TaskQueue: taskQueue, Workflow: lookWorkflow,
		})
	}
	return out, nil
}

// diffSchedules says what has to be done with those that were found, so that they become the wanted ones.
func diffSchedules(wanted, found []edgeSchedule, taskQueue string) []scheduleChange {
	out := []scheduleChange{}
	for _, want := range wanted {
		at := slices.IndexFunc(found, func(s edgeSchedule) bool { return s.ID == want.ID })
		if at < 0 {
			out = append(out, scheduleChange{edgeSchedule: want, Action: makeIt})
			continue
		}
		is := found[at]
		want.Paused, want.Note = is.Paused, is.Note
		change := scheduleChange{edgeSchedule: want, Action: keepIt, Changes: differences(is, want)}
		if len(change.Changes) > 0 {
			change.Action = changeIt
		}
		if is.Paused {
			change.Remark = strings.TrimSuffix("somebody has paused it, and it stays paused: "+is.Note, ": ")
		}
		out = append(out, change)
	}
	for _, is := range found {
		if slices.ContainsFunc(wanted, func(s edgeSchedule) bool { return s.ID == is.ID }) {
			continue
		}
		change := scheduleChange{edgeSchedule: is, Action: removeIt, Remark: "the pipeline has no such edge any more"}
		if is.Workflow != lookWorkflow {
			change.Remark = "the configuration does not ask for it any more"
		}
		if is.TaskQueue != taskQueue {
			change.Action, change.Remark = leaveIt, fmt.Sprintf("it belongs to the workers of task queue %s", is.TaskQueue)
		}
		out = append(out, change)
	}
	return out
}

// differences names each field that is not as it should be.
func differences(is, want edgeSchedule) (out []string) {
	add := func(field string, is, want any) {
		if is != want {
			out = append(out, fmt.Sprintf("%s: %v -> %v", field, is, want))
		}
	}
	every := func(s edgeSchedule) string {
		if s.Every == 0 {
			return "something else than an interval"
		}
		return short(s.Every)
	}
	if is.Every != want.Every {
		add("every", every(is), every(want))
	}
	add("catch-up", is.CatchUp, want.CatchUp)
	add("overlap", is.Overlap, want.Overlap)
	add("task queue", is.TaskQueue, want.TaskQueue)
	add("from", is.From, want.From)
	add("to", is.To, want.To)
	add("at most", is.AtMost, want.AtMost)
	if is.Asks != "" {
		add("asks for", is.Asks, "what is due")
	}
	return out
}

// applySchedules makes the schedules what pipeline and tests say, or only says what that would be.
func (c *connection) applySchedules(ctx context.Context, pipeline promotion.Pipeline, tests e2e.Settings, dryRun bool) (appliedSchedules, error) {
	result := appliedSchedules{DryRun: dryRun, Schedules: []scheduleChange{}}
	wanted, err := schedulesOf(pipeline, c.taskQueue)
	if err != nil {
		return result, usage(err)
	}
	if result.Problems, result.Warnings, err = c.checkEdges(ctx, wanted); err != nil {
		return result, err
	}
	if ofTests := schedulesOfTests(tests, c.taskQueue); len(ofTests) > 0 {
		problems, warnings, err := c.checkTests(ctx)
		if err != nil {
			return result, err
		}
		result.Problems, result.Warnings = append(result.Problems, problems...), append(result.Warnings, warnings...)
		wanted = append(wanted, ofTests...)
	}
	found, foreign, err := c.findSchedules(ctx, wanted)
	if err != nil {
		return result, err
	}
	result.Problems = append(result.Problems, foreign...)
	result.Schedules = diffSchedules(wanted, found, c.taskQueue)
	for i := range result.Schedules {
		change := &result.Schedules[i]
		if change.Action == removeIt && change.Workflow == lookWorkflow && c.isRunning(ctx, change.ID) {
			change.Remark += fmt.Sprintf("; the promotion under way goes on, unless `fairway promotion cancel %s %s --reason ...` ends it", change.From, change.To)
		}
		if dryRun || len(result.Problems) > 0 {
			continue
		}
		if err := c.applySchedule(ctx, *change); err != nil {
			change.Failed = err.Error()
		}
	}
	return result, nil
}

// checkEdges has the worker look along each edge, which changes nothing: it says if edge or branch are unknown.
func (c *connection) checkEdges(ctx context.Context, wanted []edgeSchedule) (problems, warnings []string, err error) {
	failures := make([]error, len(wanted))
	group, asked := errgroup.WithContext(ctx)
	group.SetLimit(planning)
	for i, edge := range wanted {
		group.Go(func() error {
			failures[i] = c.askLong(asked, "ChoosePromotion", workflows.ChoosePromotion{From: edge.From, To: edge.To}, &workflows.PromotionChoice{})
			if status := (*statusError)(nil); failures[i] != nil && (!errors.As(failures[i], &status) || status.kind == "") {
				return failures[i] // without a worker nothing is known of any edge
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, nil, err
	}
	for i, failure := range failures {
		status := (*statusError)(nil)
		if !errors.As(failure, &status) {
			continue
		}
		text := fmt.Sprintf("Edge %s to %s: %s", wanted[i].From, wanted[i].To, failure)
		if status.kind == workflows.Unreachable {
			warnings = append(warnings, text)
		} else {
			problems = append(problems, text)
		}
	}
	return problems, warnings, nil
}

// findSchedules describes those that are wanted and exist, and those of edges and tests that are gone. Lists
// lag behind, so the wanted ones are asked for by name. Foreign are those that have the name of one of them,
// but do something else.
func (c *connection) findSchedules(ctx context.Context, wanted []edgeSchedule) (found []edgeSchedule, foreign []string, err error) {
	var ids []string
	for _, want := range wanted {
		ids = append(ids, want.ID)
	}
	if err := c.listSchedules(ctx, func(entry *client.ScheduleListEntry) {
		if (isLook(entry) || isOfTests(entry)) && !slices.Contains(ids, entry.ID) {
			ids = append(ids, entry.ID)
		}
	}); err != nil {
		return nil, nil, err
	}
	for _, id := range ids {
		description, err := c.ScheduleClient().GetHandle(ctx, id).Describe(ctx)
		if missing := (*serviceerror.NotFound)(nil); errors.As(err, &missing) {
			continue
		}
		if err != nil {
			return nil, nil, fmt.Errorf("asking about schedule %s: %w", id, err)
		}
		is := scheduleFrom(id, description)
		means, remedy := lookWorkflow, "remove it or call a channel otherwise"
		switch id {
		case workflows.LookForTests:
			means, remedy = testsWorkflow, "remove it"
		case sweepSchedule:
			means, remedy = sweepWorkflow, "remove it"
		}
		if is.Workflow != means {
			foreign = append(foreign, fmt.Sprintf("Schedule %s is not Fairway's, since it starts workflow %s; %s.", id, is.Workflow, remedy))
			continue
		}
		found = append(found, is)
	}
	return found, foreign, nil
}

// isLook says whether a schedule is one of an edge.
func isLook(entry *client.ScheduleListEntry) bool {
	return strings.HasPrefix(entry.ID, "promotion/") && entry.WorkflowType.Name == lookWorkflow
}

func (c *connection) listSchedules(ctx context.Context, visit func(*client.ScheduleListEntry)) error {
	list, err := c.ScheduleClient().List(ctx, client.ScheduleListOptions{})
	for err == nil && list.HasNext() {
		var entry *client.ScheduleListEntry
		if entry, err = list.Next(); err == nil {
			visit(entry)
		}
	}
	if err != nil {
		return fmt.Errorf("listing schedules: %w", err)
	}
	return nil
}

// scheduleFrom is a schedule as it was found.
func scheduleFrom(id string, d *client.ScheduleDescription) edgeSchedule {
	is := edgeSchedule{ID: id}
	if spec := d.Schedule.Spec; spec != nil && len(spec.Intervals) == 1 && len(spec.Calendars)+len(spec.CronExpressions)+len(spec.Skip) == 0 &&
		spec.Intervals[0].Offset == 0 && spec.Jitter == 0 && spec.StartAt.IsZero() && spec.EndAt.IsZero() {
		is.Every = spec.Intervals[0].Every
	}
	if policy := d.Schedule.Policy; policy != nil {
		is.CatchUp, is.Overlap = policy.CatchupWindow, policy.Overlap.String()
	}
	if state := d.Schedule.State; state != nil {
		is.Paused, is.Note = state.Paused, state.Note
	}
	action, ok := d.Schedule.Action.(*client.ScheduleWorkflowAction)
	if !ok {
		return is
	}
	is.TaskQueue, is.Workflow = action.TaskQueue, fmt.Sprint(action.Workflow)
	var in struct { // of either
		workflows.ChoosePromotion
		workflows.SweepInput
	}
	switch is.Workflow {
	case lookWorkflow:
		understand(action.Args, &in.ChoosePromotion)
	case sweepWorkflow:
		understand(action.Args, &in.SweepInput)
	}
	is.From, is.To, is.AtMost = in.From, in.To, in.AtMost
	if !reflect.DeepEqual(in.ChoosePromotion, workflows.ChoosePromotion{From: in.From, To: in.To}) {
		is.Asks = fmt.Sprintf("candidate %q, now %v, without gates %v", in.Candidate, in.Now, in.SkipGates)
	}
	if in.DryRun {
		is.Asks = "a dry run"
	}
	return is
}

// understand reads the one argument that a schedule gives its workflow; what is not understood is set anew.
func understand(args []any, in any) {
	if len(args) == 1 {
		if payload, ok := args[0].(*commonpb.Payload); ok {
			_ = converter.GetDefaultDataConverter().FromPayload(payload, in)
		}
	}
}

// applySchedule makes, changes or removes a schedule. Somebody else may do the same at the same time.
func (c *connection) applySchedule(ctx context.Context, change scheduleChange) error {
	schedules := c.ScheduleClient()
	handle := schedules.GetHandle(ctx, change.ID)
	spec := client.ScheduleSpec{Intervals: []client.ScheduleIntervalSpec{{Every: change.Every}}}
	policy := client.SchedulePolicies{Overlap: enumspb.SCHEDULE_OVERLAP_POLICY_SKIP, CatchupWindow: change.CatchUp}
	action := &client.ScheduleWorkflowAction{
		ID: change.ID + "/look", Workflow: workflows.ConsiderPromotion, Args: []any{workflows.ChoosePromotion{From: change.From, To: change.To}},
		TaskQueue: change.TaskQueue, StaticSummary: fmt.Sprintf("is something to be promoted from %s to %s", change.From, change.To),
		TypedSearchAttributes: temporal.NewSearchAttributes(workflows.ChannelAttribute.ValueSet(change.To)),
	}
	memo := map[string]any{"from": change.From, "to": change.To}
	if change.Workflow == testsWorkflow || change.Workflow == sweepWorkflow {
		action, memo = actionOfTests(change.edgeSchedule), nil
	}
	switch change.Action {
	case makeIt:
		_, err := schedules.Create(ctx, client.ScheduleOptions{
			ID: change.ID, Spec: spec, Action: action, Overlap: policy.Overlap, CatchupWindow: policy.CatchupWindow,
			Memo: memo,
		})
		if !errors.Is(err, temporal.ErrScheduleAlreadyRunning) {
			return err
		}
	case changeIt:
	case removeIt:
		err := handle.Delete(ctx)
		if missing := (*serviceerror.NotFound)(nil); errors.As(err, &missing) {
			return nil
		}
		return err
	default:
		return nil
	}
	return handle.Update(ctx, client.ScheduleUpdateOptions{DoUpdate: func(found client.ScheduleUpdateInput) (*client.ScheduleUpdate, error) {
		if len(differences(scheduleFrom(change.ID, &found.Description), change.edgeSchedule)) == 0 {
			return nil, temporal.ErrSkipScheduleUpdate
		}
		schedule := found.Description.Schedule // whether it is paused stays as it is
		schedule.Spec, schedule.Action, schedule.Policy = &spec, action, &policy
		return &client.ScheduleUpdate{Schedule: &schedule}, nil
	}})
}

// isRunning says whether a workflow of an id runs. If that is not known, it is said that none does.
func (c *connection) isRunning(ctx context.Context, id string) bool {
	description, err := c.DescribeWorkflow(ctx, id, "")
	return err == nil && description.Status == enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING
}

func (r appliedSchedules) show(t *table) {
	if len(r.Schedules) == 0 {
		t.line("The pipeline has no edges, nothing is tested, and there are no schedules of any.")
	} else {
		t.row("ACTION", "SCHEDULE", "EVERY", "WHAT")
	}
	for _, change := range r.Schedules {
		what := slices.Clone(change.Changes)
		for _, each := range []string{change.Remark, change.Failed} {
			if each != "" {
				what = append(what, cut(each, 160))
			}
		}
		t.row(change.Action, change.ID, short(change.Every), strings.Join(what, "; "))
	}
	t.flush()
	for _, warning := range r.Warnings {
		t.line("Warning: %s", warning)
	}
	for _, problem := range r.Problems {
		t.line("Problem: %s", problem)
	}
	switch {
	case len(r.Problems) > 0:
	case r.DryRun:
		t.line("Nothing has been changed; `fairway schedule apply` does it.")
	}
}

// failure is what a problem makes of an apply.
func (r appliedSchedules) failure() error {
	failed := 0
	for _, change := range r.Schedules {
		if change.Failed != "" {
			failed++
		}
	}
	switch {
	case len(r.Problems) > 0:
		return usage(fmt.Errorf("nothing has been changed, because of %s", counted(len(r.Problems), "problem")))
	case failed > 0:
		return fmt.Errorf("%s could not be brought up to date; the same command tries again", counted(failed, "schedule"))
	}
	return nil
}
