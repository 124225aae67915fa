package workflows

import (
	"fmt"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"
)

// ConsiderPromotion looks once whether a promotion is due along an edge, and begins it then. A schedule
// for each edge starts it; what it cannot find out, or begin, is for the next look. The promotion goes
// on without it: the id of Promote keeps a second one along the same edge from beginning.
func ConsiderPromotion(ctx workflow.Context, in ChoosePromotion) (PromotionChoice, error) {
	in.IfIdle = true // a pull request may wait for days, and its promotion looks for itself
	choice, err := choosePromotion(ctx, in)
	if err != nil {
		return choice, err
	}
	choice.Waiting = choice.Waiting[:min(len(choice.Waiting), toldWaiting)]
	if !choice.Go {
		workflow.SetCurrentDetails(ctx, fmt.Sprintf("Nothing is promoted from `%s` to `%s` now: %s", in.From, in.To, firstLine(choice.Why)))
		return choice, nil
	}
	child := workflow.ExecuteChildWorkflow(workflow.WithChildOptions(ctx, workflow.ChildWorkflowOptions{
		WorkflowID:            PromotionID(in.From, in.To),
		StaticSummary:         PromotionSummary(in.From, in.To),
		ParentClosePolicy:     enumspb.PARENT_CLOSE_POLICY_ABANDON,
		TypedSearchAttributes: temporal.NewSearchAttributes(ChannelAttribute.ValueSet(in.To)),
	}), Promote, PromoteInput{From: in.From, To: in.To, Candidate: in.Candidate, Now: in.Now, SkipGates: in.SkipGates})
	err = child.GetChildWorkflowExecution().Get(ctx, nil)
	if temporal.IsWorkflowExecutionAlreadyStartedError(err) {
		choice.Go, choice.Why = false, UnderWay(in.From, in.To)
		err = nil
	}
	if err == nil {
		workflow.SetCurrentDetails(ctx, map[bool]string{true: "It has begun a promotion, in workflow `" + PromotionID(in.From, in.To) + "`.", false: choice.Why}[choice.Go])
	}
	return choice, err
}

// UnderWay is why nothing is chosen while a promotion goes on.
func UnderWay(from, to string) string {
	return fmt.Sprintf("A promotion from %s to %s is under way already.", from, to)
}

// toldWaiting is how many landings that still soak are named in the result of a look.
const toldWaiting = 10

// PromotionSummary is the static summary of a promotion.
func PromotionSummary(from, to string) string { return fmt.Sprintf("promote from %s to %s", from, to) }

// choosePromotion asks which candidate is due. Nothing has begun: what does not answer for long is a
// failure, which the next look may mend.
func choosePromotion(ctx workflow.Context, in ChoosePromotion) (choice PromotionChoice, err error) {
	ctx = workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		StartToCloseTimeout:    2 * time.Minute,
		ScheduleToCloseTimeout: 5 * time.Minute,
		HeartbeatTimeout:       heartbeatTimeout,
		RetryPolicy: &temporal.RetryPolicy{
			InitialInterval: time.Second, BackoffCoefficient: 2, MaximumInterval: 30 * time.Second,
			NonRetryableErrorTypes: []string{InvalidInput, AccessDenied},
		},
		Summary: "what is due",
	})
	return choice, workflow.ExecuteActivity(ctx, "ChoosePromotion", in).Get(ctx, &choice)
}
