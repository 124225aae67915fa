package promotions

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"
	"golang.org/x/sync/errgroup"

	"github.com/fairway-project/fairway/activities/failures"
	"github.com/fairway-project/fairway/promotion"
	"github.com/fairway-project/fairway/prose"
	"github.com/fairway-project/fairway/workflows"
)

// askWithin bounds one question to an actor.
const askWithin = 10 * time.Second

// channel is all that a channel's actor knows; nothing if there is no such actor.
func (a *Activities) channel(ctx context.Context, name string) (workflows.ChannelState, error) {
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	var state workflows.ChannelState
	answer, err := a.Temporal.QueryWorkflow(ctx, workflows.ChannelID(name), "", workflows.StateQuery)
	if unknown := (*serviceerror.NotFound)(nil); errors.As(err, &unknown) {
		return state, nil
	}
	if err == nil {
		err = answer.Get(&state)
	}
	if err != nil {
		return state, temporal.NewApplicationError(fmt.Sprintf("channel %s: its actor does not say what it knows: %v", name, err), workflows.Unreachable)
	}
	return state, nil
}

// underWay says whether a promotion along an edge runs.
func (a *Activities) underWay(ctx context.Context, edge promotion.Edge) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	id := workflows.PromotionID(edge.From, edge.To)
	description, err := a.Temporal.DescribeWorkflowExecution(ctx, id, "")
	if unknown := (*serviceerror.NotFound)(nil); errors.As(err, &unknown) {
		return false, nil
	}
	if err != nil {
		return false, temporal.NewApplicationError(fmt.Sprintf("asking whether workflow %s runs: %v", id, err), workflows.Unreachable)
	}
	return description.GetWorkflowExecutionInfo().GetStatus() == enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING, nil
}

// both asks the actors of the two channels of an edge at once.
func (a *Activities) both(ctx context.Context, edge promotion.Edge) (from, to workflows.ChannelState, err error) {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() (err error) { from, err = a.channel(ctx, edge.From); return err })
	group.Go(func() (err error) { to, err = a.channel(ctx, edge.To); return err })
	return from, to, group.Wait()
}

// tell signals the actor of a channel, which is started if it does not run. Telling it the same once
// more does no harm.
func (a *Activities) tell(ctx context.Context, channel, name string, what any) error {
	_, err := a.Temporal.SignalWithStartWorkflow(ctx, workflows.ChannelID(channel), name, what, client.StartWorkflowOptions{
		ID: workflows.ChannelID(channel), TaskQueue: a.TaskQueue, StaticSummary: "channel " + channel,
		WorkflowIDConflictPolicy: enumspb.WORKFLOW_ID_CONFLICT_POLICY_USE_EXISTING,
		TypedSearchAttributes:    temporal.NewSearchAttributes(workflows.ChannelAttribute.ValueSet(channel)),
	}, workflows.Channel, workflows.ChannelState{ChannelSync: workflows.ChannelSync{Channel: channel}})
	if err != nil {
		return temporal.NewApplicationError(fmt.Sprintf("channel %s: telling its actor: %v", channel, err), workflows.Unreachable)
	}
	return nil
}

// soakedFor is how long a landing has soaked at a time; 0 if it is not known.
func soakedFor(soak promotion.Soak, commit string, now time.Time) time.Duration {
	soak = soak.At(now)
	if i := soak.Index(commit); i >= 0 {
		return soak.Soaked(i)
	}
	return 0
}

// RecordPromotion implements workflows.Promotions.
func (a *Activities) RecordPromotion(ctx context.Context, record promotion.Record) error {
	if record.To == "" || record.ID == "" {
		return failures.Invalid("a promotion without a target or an id cannot be recorded")
	}
	return a.tell(ctx, record.To, workflows.PromotedName, record)
}

// standing is the revert that keeps promotions from going into a channel, in words; empty without one.
func standing(channel string, known workflows.ChannelState) string {
	for _, revert := range known.Promotions.Reverts {
		if revert.Lifted.IsZero() {
			return fmt.Sprintf("channel %s was set back to %s by %s (%s); nothing is promoted into it until that is lifted: fairway channel revert %s --lift --reason R",
				channel, prose.Short(revert.To), prose.Line(revert.By, prose.Title), prose.Line(revert.Reason, prose.Detail), channel)
		}
	}
	return ""
}

// unsoaked is why a landing has not soaked by what is known now; empty if it has, or if it is so old that the
// actor of the source has forgotten it.
func (a *Activities) unsoaked(edge promotion.Edge, candidate string, from workflows.ChannelState) string {
	choice, err := promotion.Choose(edge, from.Promotions.Soak, promotion.Question{
		Now: a.now(), Has: func(string) (bool, error) { return false, nil }, Candidate: candidate,
	})
	if err == nil && choice.Candidate == nil {
		return choice.Why
	}
	return ""
}

// tainted is why a landing of the source is promoted nowhere, whatever else holds; empty if it may be.
func (a *Activities) tainted(edge promotion.Edge, candidate string, from workflows.ChannelState) string {
	choice, err := promotion.Choose(edge, from.Promotions.Soak, promotion.Question{
		Now: a.now(), Has: func(string) (bool, error) { return false, nil }, Reverts: from.Promotions.Reverts, Candidate: candidate, Immediately: true,
	})
	if err == nil && choice.Candidate == nil {
		return strings.TrimSuffix(choice.Why, ".")
	}
	for _, revert := range from.Promotions.Reverts { // it may be older than what the soak knows
		if slices.Contains(revert.Bad, candidate) {
			return fmt.Sprintf("%s is in a range of %s that was reverted by %s: %s", prose.Short(candidate), edge.From, prose.Line(revert.By, prose.Title), prose.Line(revert.Reason, prose.Detail))
		}
	}
	return ""
}
