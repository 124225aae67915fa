package workflows_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/workflow"

	"github.com/fairway-project/fairway/promotion"
	"github.com/fairway-project/fairway/workflows"
)

const candidate = "0123456789abcdef0123456789abcdef01234567"

// road is an edge with its repository and forge. Its fields say how activities answer; what is nil
// succeeds.
type road struct {
	choice   workflows.PromotionChoice
	choose   func() error
	merge    func(context.Context, *promotion.Record) error
	open     func(*promotion.Record) error
	follow   func(context.Context, *promotion.Record) error
	conflict func(*promotion.Record) error
	withdraw func() error
	reports  func() (promotion.Report, error)
	tell     func() error

	mu       sync.Mutex
	did      []string // first attempts, in their order
	asked    workflows.ChoosePromotion
	of       workflows.PromotionOf // what was merged, opened or followed last
	recorded []promotion.Record
}

func (r *road) begin(ctx context.Context, what string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if activity.GetInfo(ctx).Attempt == 1 {
		r.did = append(r.did, what)
	}
}

func (r *road) ChoosePromotion(ctx context.Context, in workflows.ChoosePromotion) (workflows.PromotionChoice, error) {
	r.begin(ctx, "choose")
	r.asked = in
	if r.choose != nil {
		return workflows.PromotionChoice{}, r.choose()
	}
	return r.choice, nil
}

func (r *road) ReportPromotion(ctx context.Context, _ workflows.PromotionOf) (promotion.Report, error) {
	r.begin(ctx, "report")
	if r.reports != nil {
		return r.reports()
	}
	return promotion.Report{Commits: make([]promotion.Change, 3), Omitted: 4, Class: promotion.AddOns}, nil
}

func (r *road) answer(in workflows.PromotionOf, by func(*promotion.Record) error) (promotion.Record, error) {
	r.mu.Lock()
	r.of = in
	r.mu.Unlock()
	out := in.Record
	err := by(&out)
	return out, err
}

func (r *road) MergePromotion(ctx context.Context, in workflows.PromotionOf) (promotion.Record, error) {
	r.begin(ctx, "merge")
	return r.answer(in, func(out *promotion.Record) error {
		if r.merge != nil {
			return r.merge(ctx, out)
		}
		out.Outcome, out.Merge = promotion.Merged, "merge"
		return nil
	})
}

func (r *road) OpenPromotion(ctx context.Context, in workflows.PromotionOf) (promotion.Record, error) {
	r.begin(ctx, "open")
	return r.answer(in, func(out *promotion.Record) error {
		out.PullRequest, out.URL = 12, "https://forge/12"
		if r.open != nil {
			return r.open(out)
		}
		return nil
	})
}

func (r *road) FollowPromotion(ctx context.Context, in workflows.PromotionOf) (promotion.Record, error) {
	r.begin(ctx, "follow")
	return r.answer(in, func(out *promotion.Record) error { return r.follow(ctx, out) })
}

func (r *road) ReportConflict(ctx context.Context, in workflows.PromotionOf) (promotion.Record, error) {
	r.begin(ctx, "conflict")
	return r.answer(in, func(out *promotion.Record) error {
		out.PullRequest = 13
		if r.conflict != nil {
			return r.conflict(out)
		}
		return nil
	})
}

func (r *road) WithdrawPromotion(ctx context.Context, in workflows.PromotionOf) error {
	r.begin(ctx, "withdraw")
	if r.withdraw != nil {
		return r.withdraw()
	}
	return nil
}

func (r *road) RecordPromotion(ctx context.Context, in promotion.Record) error {
	r.begin(ctx, "record")
	if r.tell != nil {
		if err := r.tell(); err != nil {
			return err
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.recorded = append(r.recorded, in)
	return nil
}

func (*road) ListLacking(context.Context, workflows.ListLacking) ([]workflows.Lacking, error) {
	return nil, nil
}

func (*road) RevertChannel(context.Context, workflows.RevertChannel) (promotion.Revert, error) {
	return promotion.Revert{}, nil
}

var _ workflows.Promotions = (*road)(nil)

func newRoad(mode promotion.Mode) *road {
	landing := promotion.Landing{Commit: candidate, Title: "Raise the limits\n\nBecause."}
	return &road{choice: workflows.PromotionChoice{Go: true, Mode: mode, Class: promotion.ManifestsOnly, Choice: promotion.Choice{Candidate: &landing},
		Gates: []promotion.GateResult{{Name: "e2e", Passed: true}}}}
}

func (r *road) env() *testsuite.TestWorkflowEnvironment {
	var suite testsuite.WorkflowTestSuite
	env := suite.NewTestWorkflowEnvironment()
	env.SetTestTimeout(20 * time.Second)
	env.SetStartTime(noon)
	env.RegisterActivity(r)
	env.RegisterWorkflow(workflows.Promote)
	env.SetStartWorkflowOptions(client.StartWorkflowOptions{ID: workflows.PromotionID("dev", "alpha"), TaskQueue: "test"})
	return env
}

// promote runs Promote to its end.
func (r *road) promote(t *testing.T, in workflows.PromoteInput, set ...func(*testsuite.TestWorkflowEnvironment)) (promotion.Record, workflows.PromotionProgress, error) {
	t.Helper()
	env := r.env()
	for _, each := range set {
		each(env)
	}
	in.From, in.To = "dev", "alpha"
	env.ExecuteWorkflow(workflows.Promote, in)
	require.True(t, env.IsWorkflowCompleted())
	answer, err := env.QueryWorkflow(workflows.ProgressQuery)
	require.NoError(t, err)
	var progress workflows.PromotionProgress
	require.NoError(t, answer.Get(&progress))
	err = env.GetWorkflowError()
	var record promotion.Record
	if err == nil {
		require.NoError(t, env.GetWorkflowResult(&record))
	}
	return record, progress, err
}

// after has something done when a time has passed.
func after(wait time.Duration, do func(*testsuite.TestWorkflowEnvironment)) func(*testsuite.TestWorkflowEnvironment) {
	return func(env *testsuite.TestWorkflowEnvironment) {
		env.RegisterDelayedCallback(func() { do(env) }, wait)
	}
}

func look(env *testsuite.TestWorkflowEnvironment)     { env.SignalWorkflow(workflows.LookName, nil) }
func cancelIt(env *testsuite.TestWorkflowEnvironment) { env.CancelWorkflow() }
func withdrawIt(env *testsuite.TestWorkflowEnvironment) {
	env.SignalWorkflow(workflows.WithdrawName, workflows.WithdrawRequest{Reason: "a better one comes", By: "ann"})
}

func notYet(why string) error {
	return temporal.NewApplicationErrorWithOptions(why, workflows.NotYet, temporal.ApplicationErrorOptions{Category: temporal.ApplicationErrorCategoryBenign})
}

func TestWhatIsDueIsMergedAndRecorded(t *testing.T) {
	r := newRoad(promotion.Merge)
	record, progress, err := r.promote(t, workflows.PromoteInput{})
	require.NoError(t, err)
	require.Equal(t, []string{"choose", "report", "merge", "record"}, r.did)
	require.Equal(t, promotion.Record{
		ID: "dev-to-alpha/0123456789ab", From: "dev", To: "alpha", Candidate: candidate, Title: "Raise the limits", Mode: promotion.Merge, Merge: "merge",
		Outcome: promotion.Merged, Gates: r.choice.Gates, Class: promotion.AddOns, Carried: 7, Began: noon, Ended: record.Ended,
		Workflow: "promotion/dev-to-alpha", Run: record.Run,
	}, record)
	require.NotEmpty(t, record.Run)
	require.Equal(t, []promotion.Record{record}, r.recorded)
	require.Equal(t, "merged", progress.Phase)
}

func TestAPersonsOrderIsHandedOn(t *testing.T) {
	r := newRoad(promotion.Merge)
	record, _, err := r.promote(t, workflows.PromoteInput{Candidate: "0123", Now: true, SkipGates: []string{"e2e"}, By: "ann", Reason: "incident"})
	require.NoError(t, err)
	require.Equal(t, workflows.ChoosePromotion{From: "dev", To: "alpha", Candidate: "0123", Now: true, SkipGates: []string{"e2e"}}, r.asked)
	require.True(t, r.of.Now)
	require.Equal(t, []string{"e2e"}, r.of.SkipGates)
	require.Equal(t, "ann: incident", record.By+": "+record.Reason)
	require.Equal(t, candidate, record.Candidate, "its first digits are completed")
}

func TestWhatNobodyKnowsOfItsContentIsPromotedAllTheSame(t *testing.T) {
	r := newRoad(promotion.Merge)
	r.reports = func() (promotion.Report, error) {
		return promotion.Report{}, final(workflows.InvalidInput, "a label is odd")
	}
	record, _, err := r.promote(t, workflows.PromoteInput{})
	require.NoError(t, err)
	require.Equal(t, promotion.Merged, record.Outcome)
	require.Equal(t, promotion.ManifestsOnly, record.Class)
}

func TestWhatIsNotDueAnyMoreIsHeld(t *testing.T) {
	for rule, test := range map[string]struct {
		in       workflows.PromoteInput
		none     bool // no candidate
		recorded bool
	}{
		"and not recorded if it went by itself":        {},
		"and recorded if a person asked for it":        {in: workflows.PromoteInput{By: "ann"}, recorded: true},
		"and there is nothing to record of no landing": {in: workflows.PromoteInput{By: "ann"}, none: true},
	} {
		t.Run(rule, func(t *testing.T) {
			r := newRoad(promotion.Merge)
			r.choice.Go, r.choice.Why = false, "The fleet is blocked."
			if test.none {
				r.choice.Candidate = nil
			}
			record, progress, err := r.promote(t, test.in)
			require.NoError(t, err)
			require.Equal(t, promotion.Held, record.Outcome)
			require.Equal(t, "The fleet is blocked.", record.Detail)
			require.Equal(t, "held", progress.Phase)
			require.Equal(t, test.recorded, len(r.recorded) == 1)
			require.NotContains(t, r.did, "merge")
		})
	}
}

func TestAnEdgeThatDoesNotExistFailsAtOnce(t *testing.T) {
	r := newRoad(promotion.Merge)
	r.choose = func() error { return temporal.NewApplicationError("there is no edge", workflows.InvalidInput) }
	_, progress, err := r.promote(t, workflows.PromoteInput{})
	require.ErrorContains(t, err, "there is no edge")
	require.Equal(t, "failed", progress.Phase)
	require.Empty(t, r.recorded)
	require.Equal(t, []string{"choose"}, r.did)
}

func TestAConflictIsReportedToPeople(t *testing.T) {
	for _, mode := range []promotion.Mode{promotion.Merge, promotion.ByPullRequest} {
		t.Run(string(mode), func(t *testing.T) {
			r := newRoad(mode)
			conflict := func(out *promotion.Record) error {
				out.Outcome, out.Detail = promotion.Conflicted, "Both sides have changed config-defaults.yaml."
				return nil
			}
			r.merge = func(_ context.Context, out *promotion.Record) error { return conflict(out) }
			r.open = conflict
			record, _, err := r.promote(t, workflows.PromoteInput{})
			require.NoError(t, err)
			require.Equal(t, promotion.Conflicted, record.Outcome)
			require.Equal(t, 13, record.PullRequest)
			require.Equal(t, []string{"conflict", "record"}, r.did[3:])
			require.Equal(t, promotion.Conflicted, r.of.Outcome, "the report knows of what")
			require.Equal(t, []promotion.Record{record}, r.recorded)
		})
	}
}

func TestAMergeThatIsHeldIsRecorded(t *testing.T) {
	r := newRoad(promotion.Merge)
	r.merge = func(_ context.Context, out *promotion.Record) error {
		out.Outcome, out.Detail = promotion.Held, "Channel alpha is blocked."
		return nil
	}
	record, _, err := r.promote(t, workflows.PromoteInput{})
	require.NoError(t, err)
	require.Equal(t, []promotion.Record{record}, r.recorded)
	require.NotContains(t, r.did, "conflict")
}

// An attempt that died may have pushed: only the next one knows.
func TestAMergeIsTriedUntilItHasAnOutcome(t *testing.T) {
	r := newRoad(promotion.Merge)
	failures := 0
	r.merge = func(_ context.Context, out *promotion.Record) error {
		if failures++; failures < 9 {
			return temporal.NewApplicationError("the remote does not answer", map[bool]string{true: workflows.AccessDenied, false: workflows.Unreachable}[failures%2 == 0])
		}
		out.Outcome = promotion.Merged
		return nil
	}
	record, _, err := r.promote(t, workflows.PromoteInput{})
	require.NoError(t, err)
	require.Equal(t, promotion.Merged, record.Outcome)
	require.Equal(t, []string{"choose", "report", "merge", "record"}, r.did)
	require.Greater(t, record.Ended.Sub(record.Began), 2*time.Minute)
}

func TestWhatCannotSucceedFailsAndIsRecorded(t *testing.T) {
	r := newRoad(promotion.Merge)
	r.merge = func(context.Context, *promotion.Record) error {
		return temporal.NewApplicationError("the edge is gone", workflows.InvalidInput)
	}
	_, progress, err := r.promote(t, workflows.PromoteInput{})
	require.ErrorContains(t, err, "the edge is gone")
	require.Equal(t, "failed", progress.Phase)
	require.Len(t, r.recorded, 1)
	require.Equal(t, promotion.Held, r.recorded[0].Outcome)
	require.Equal(t, "It failed: the edge is gone", r.recorded[0].Detail)
}

func TestAnActivityThatSaysNoOutcomeIsAFailure(t *testing.T) {
	r := newRoad(promotion.Merge)
	r.merge = func(context.Context, *promotion.Record) error { return nil }
	_, _, err := r.promote(t, workflows.PromoteInput{})
	require.ErrorContains(t, err, "nobody says how it ended")
}

func TestARecordIsToldUntilItIsTaken(t *testing.T) {
	r := newRoad(promotion.Merge)
	failures := 0
	r.tell = func() error {
		if failures++; failures < 8 {
			return temporal.NewApplicationError("Temporal does not answer", workflows.Unreachable)
		}
		return nil
	}
	record, _, err := r.promote(t, workflows.PromoteInput{})
	require.NoError(t, err)
	require.Equal(t, []promotion.Record{record}, r.recorded)
}

func TestAPullRequestIsFollowedToItsEnd(t *testing.T) {
	for _, outcome := range []promotion.Outcome{promotion.Merged, promotion.Refused, promotion.Superseded, promotion.Withdrawn} {
		t.Run(string(outcome), func(t *testing.T) {
			r := newRoad(promotion.ByPullRequest)
			attempts := 0
			r.follow = func(_ context.Context, out *promotion.Record) error {
				if attempts++; attempts < 6 {
					return notYet("1 of 2 approvals")
				}
				out.Outcome, out.MergedBy, out.Approvals, out.By = outcome, "ben", []string{"eve"}, "mallory"
				return nil
			}
			record, _, err := r.promote(t, workflows.PromoteInput{})
			require.NoError(t, err)
			require.Equal(t, []string{"choose", "report", "open", "follow", "record"}, r.did)
			require.Equal(t, 12, r.of.PullRequest)
			require.Equal(t, outcome, record.Outcome)
			require.Equal(t, []string{"eve"}, record.Approvals)
			require.Empty(t, record.By, "who asked for it is not what the forge says")
			require.Equal(t, 150*time.Second, record.Ended.Sub(record.Began), "a look each 30 s")
			require.Equal(t, []promotion.Record{record}, r.recorded)
		})
	}
}

func TestAPullRequestThatIsThereAlreadyMayHaveEnded(t *testing.T) {
	r := newRoad(promotion.ByPullRequest)
	r.open = func(out *promotion.Record) error {
		out.Outcome = promotion.Refused
		return nil
	}
	record, _, err := r.promote(t, workflows.PromoteInput{})
	require.NoError(t, err)
	require.Equal(t, promotion.Refused, record.Outcome)
	require.NotContains(t, r.did, "follow")
}

// approvedAt lets a pull request be merged from a time on, which somebody has to look at.
func (r *road) approvedAt(at *bool) {
	r.follow = func(_ context.Context, out *promotion.Record) error {
		r.mu.Lock()
		defer r.mu.Unlock()
		if !*at {
			return notYet("nobody has approved")
		}
		out.Outcome = promotion.Merged
		return nil
	}
}

func TestNewsFromTheForgeIsLookedAtAtOnce(t *testing.T) {
	r := newRoad(promotion.ByPullRequest)
	var approved bool
	r.approvedAt(&approved)
	record, _, err := r.promote(t, workflows.PromoteInput{}, after(10*time.Second, func(env *testsuite.TestWorkflowEnvironment) {
		r.mu.Lock()
		approved = true
		r.mu.Unlock()
		look(env)
	}))
	require.NoError(t, err)
	require.Equal(t, []string{"follow", "follow", "record"}, r.did[3:])
	require.Equal(t, 10*time.Second, record.Ended.Sub(record.Began))
}

func TestNewsThatComesThickAndFastIsLookedAtTogether(t *testing.T) {
	r := newRoad(promotion.ByPullRequest)
	var approved bool
	r.approvedAt(&approved)
	var news []func(*testsuite.TestWorkflowEnvironment)
	for i := range 200 { // ten a second, for 20 s
		news = append(news, after(time.Duration(i+1)*100*time.Millisecond, func(env *testsuite.TestWorkflowEnvironment) {
			if i == 199 {
				r.mu.Lock()
				approved = true
				r.mu.Unlock()
			}
			look(env)
		}))
	}
	record, _, err := r.promote(t, workflows.PromoteInput{}, news...)
	require.NoError(t, err)
	looks := len(slices.DeleteFunc(slices.Clone(r.did), func(what string) bool { return what != "follow" }))
	require.LessOrEqual(t, looks, 6, "after 2 s, and then after twice as long each time")
	require.LessOrEqual(t, record.Ended.Sub(record.Began), 50*time.Second)
}

func TestNewsAfterAQuietTimeIsLookedAtAtOnceAgain(t *testing.T) {
	r := newRoad(promotion.ByPullRequest)
	var approved bool
	r.approvedAt(&approved)
	var set []func(*testsuite.TestWorkflowEnvironment)
	for i := range 6 {
		set = append(set, after(time.Second+time.Duration(i)*100*time.Millisecond, look))
	}
	set = append(set, after(75*time.Second, look), after(80*time.Second, func(env *testsuite.TestWorkflowEnvironment) {
		r.mu.Lock()
		approved = true
		r.mu.Unlock()
		look(env)
	}))
	record, _, err := r.promote(t, workflows.PromoteInput{}, set...)
	require.NoError(t, err)
	require.Equal(t, 80*time.Second, record.Ended.Sub(record.Began))
}

func TestALongHistoryBeginsANewRunThatGoesOnFollowing(t *testing.T) {
	r := newRoad(promotion.ByPullRequest)
	var approved bool
	r.approvedAt(&approved)
	_, progress, err := r.promote(t, workflows.PromoteInput{By: "ann", Reason: "now", SkipGates: []string{"e2e"}}, after(10*time.Second, func(env *testsuite.TestWorkflowEnvironment) {
		env.SetCurrentHistoryLength(1000)
		look(env)
	}))
	var next *workflow.ContinueAsNewError
	require.ErrorAs(t, err, &next)
	require.Empty(t, r.recorded)
	require.NotContains(t, r.did, "withdraw")
	var in workflows.PromoteInput
	require.NoError(t, converter.GetDefaultDataConverter().FromPayloads(next.Input, &in))
	require.Equal(t, progress.ID, in.Record.ID)

	r.did, approved = nil, true
	record, _, err := r.promote(t, in)
	require.NoError(t, err)
	require.Equal(t, []string{"follow", "record"}, r.did, "it is neither chosen nor opened again")
	require.Equal(t, progress.Began, record.Began)
	require.Equal(t, "ann", record.By)
	require.Equal(t, []string{"e2e"}, r.of.SkipGates)
}

func TestAPromotionThatIsCancelledTakesBackWhatIsOpen(t *testing.T) {
	waits := func(r *road) {
		r.follow = func(context.Context, *promotion.Record) error { return notYet("nobody has approved") }
	}
	busy := func(r *road) {
		r.merge = func(context.Context, *promotion.Record) error {
			return temporal.NewApplicationError("no answer", workflows.Unreachable)
		}
	}
	stuck := func(r *road) {
		r.open = func(*promotion.Record) error { return temporal.NewApplicationError("no answer", workflows.Unreachable) }
	}
	for rule, test := range map[string]struct {
		mode  promotion.Mode
		set   func(*road)
		stop  func(*testsuite.TestWorkflowEnvironment)
		fails bool
		tells string
		did   []string
	}{
		"while it merges": {promotion.Merge, busy, cancelIt, true,
			"Somebody cancelled it. If it was merged before, the merge on alpha names promotion dev-to-alpha/0123456789ab.", []string{"merge", "withdraw", "record"}},
		"while it opens":                  {promotion.ByPullRequest, stuck, cancelIt, true, "Somebody cancelled it.", []string{"open", "withdraw", "record"}},
		"while it follows":                {promotion.ByPullRequest, waits, cancelIt, true, "Somebody cancelled it.", []string{"open", "follow", "withdraw", "record"}},
		"and says why if a person did so": {promotion.ByPullRequest, waits, withdrawIt, false, "ann withdrew it: a better one comes", []string{"open", "follow", "withdraw", "record"}},
	} {
		t.Run(rule, func(t *testing.T) {
			r := newRoad(test.mode)
			test.set(r)
			record, progress, err := r.promote(t, workflows.PromoteInput{}, after(7*time.Second, test.stop))
			require.Equal(t, test.fails, temporal.IsCanceledError(err), err)
			require.Len(t, r.recorded, 1)
			require.Equal(t, promotion.Withdrawn, r.recorded[0].Outcome)
			require.Equal(t, test.tells, r.recorded[0].Detail)
			require.Equal(t, test.did, r.did[2:])
			require.Equal(t, "withdrawn", progress.Phase)
			if !test.fails {
				require.Equal(t, promotion.Withdrawn, record.Outcome)
			}
		})
	}
}

func TestAPromotionThatIsCancelledBeforeItBeganLeavesNoTrace(t *testing.T) {
	r := newRoad(promotion.Merge)
	r.choose = func() error { return temporal.NewApplicationError("no answer", workflows.Unreachable) }
	_, progress, err := r.promote(t, workflows.PromoteInput{}, after(7*time.Second, cancelIt))
	require.True(t, temporal.IsCanceledError(err), err)
	require.Equal(t, []string{"choose"}, r.did)
	require.Equal(t, "withdrawn", progress.Phase)
}

func TestAForgeThatIsGoneDoesNotKeepAWithdrawnPromotion(t *testing.T) {
	r := newRoad(promotion.ByPullRequest)
	r.follow = func(context.Context, *promotion.Record) error { return notYet("nobody has approved") }
	r.withdraw = func() error { return temporal.NewApplicationError("the forge does not answer", workflows.Unreachable) }
	_, _, err := r.promote(t, workflows.PromoteInput{}, after(time.Minute, withdrawIt))
	require.NoError(t, err)
	require.Equal(t, "ann withdrew it: a better one comes Its pull request or its branch may be left: the forge does not answer", r.recorded[0].Detail)
}

func TestACancellationThatComesWithTheMergeIsTooLate(t *testing.T) {
	r := newRoad(promotion.Merge)
	tries := 0
	r.tell = func() error {
		if tries++; tries < 5 {
			return temporal.NewApplicationError("no answer", workflows.Unreachable)
		}
		return nil
	}
	record, _, err := r.promote(t, workflows.PromoteInput{}, after(3*time.Second, cancelIt))
	require.NoError(t, err)
	require.Equal(t, promotion.Merged, record.Outcome)
	require.Equal(t, []promotion.Record{record}, r.recorded)
	require.NotContains(t, r.did, "withdraw")
}

func TestALookBeginsAPromotionThatIsDue(t *testing.T) {
	for rule, test := range map[string]struct {
		set     func(*road)
		running bool
		begins  bool
		why     string
	}{
		"when it is due":                    {func(*road) {}, false, true, ""},
		"not when it is not":                {func(r *road) { r.choice.Go, r.choice.Why = false, "It is night." }, false, false, "It is night."},
		"not while another one is underway": {func(*road) {}, true, false, "A promotion from dev to alpha is under way already."},
	} {
		t.Run(rule, func(t *testing.T) {
			r := newRoad(promotion.Merge)
			r.choice.Waiting = make([]promotion.Soaking, 50)
			test.set(r)
			var suite testsuite.WorkflowTestSuite
			env := suite.NewTestWorkflowEnvironment()
			env.SetTestTimeout(20 * time.Second)
			env.RegisterActivity(r)
			var begun []string
			env.RegisterWorkflow(workflows.ConsiderPromotion)
			env.RegisterWorkflowWithOptions(func(ctx workflow.Context, in workflows.PromoteInput) (promotion.Record, error) {
				begun = append(begun, fmt.Sprintf("%s from %s to %s", workflow.GetInfo(ctx).WorkflowExecution.ID, in.From, in.To))
				return promotion.Record{}, workflow.Sleep(ctx, time.Hour)
			}, workflow.RegisterOptions{Name: "Promote"})
			env.RegisterWorkflowWithOptions(func(ctx workflow.Context) (choice workflows.PromotionChoice, err error) {
				if test.running {
					child := workflow.WithChildOptions(ctx, workflow.ChildWorkflowOptions{WorkflowID: workflows.PromotionID("dev", "alpha")})
					if err := workflow.ExecuteChildWorkflow(child, "Promote", workflows.PromoteInput{}).GetChildWorkflowExecution().Get(ctx, nil); err != nil {
						return choice, err
					}
					begun = nil
				}
				return choice, workflow.ExecuteChildWorkflow(ctx, workflows.ConsiderPromotion, workflows.ChoosePromotion{From: "dev", To: "alpha"}).Get(ctx, &choice)
			}, workflow.RegisterOptions{Name: "look"})
			env.ExecuteWorkflow("look")
			require.NoError(t, env.GetWorkflowError())
			var choice workflows.PromotionChoice
			require.NoError(t, env.GetWorkflowResult(&choice))
			require.Equal(t, test.begins, choice.Go)
			require.Equal(t, test.why, choice.Why)
			require.Len(t, choice.Waiting, 10)
			if test.begins {
				require.Equal(t, []string{"promotion/dev-to-alpha from dev to alpha"}, begun)
			} else {
				require.Empty(t, begun)
			}
		})
	}
}

func TestALookThatFailsIsLeftToTheNext(t *testing.T) {
	for _, kind := range []string{workflows.InvalidInput, workflows.AccessDenied} {
		r := newRoad(promotion.Merge)
		r.choose = func() error { return temporal.NewApplicationError("something is wrong", kind) }
		var suite testsuite.WorkflowTestSuite
		env := suite.NewTestWorkflowEnvironment()
		env.RegisterActivity(r)
		env.ExecuteWorkflow(workflows.ConsiderPromotion, workflows.ChoosePromotion{From: "dev", To: "alpha"})
		require.ErrorContains(t, env.GetWorkflowError(), "something is wrong")
		require.Equal(t, []string{"choose"}, r.did)
	}
}

func TestAnybodyMayAskHowFarAPromotionIs(t *testing.T) {
	r := newRoad(promotion.ByPullRequest)
	r.follow = func(context.Context, *promotion.Record) error { return notYet("nobody has approved") }
	var during workflows.PromotionProgress
	_, _, err := r.promote(t, workflows.PromoteInput{By: "ann", Reason: "because"}, after(10*time.Second, func(env *testsuite.TestWorkflowEnvironment) {
		answer, err := env.QueryWorkflow(workflows.ProgressQuery)
		require.NoError(t, err)
		require.NoError(t, answer.Get(&during))
		env.CancelWorkflow()
	}))
	require.Error(t, err)
	require.Equal(t, "following", during.Phase)
	require.Equal(t, "https://forge/12", during.URL)
	require.True(t, strings.HasPrefix(during.Step, "waits for people"))
}
