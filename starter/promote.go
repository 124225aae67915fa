package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"

	"github.com/fairway-project/fairway/promotion"
	"github.com/fairway-project/fairway/workflows"
)

func (c *cli) promoteCommand() *cobra.Command {
	var in workflows.PromoteInput
	var dryRun, plan, wait bool
	cmd := &cobra.Command{
		Use:   "promote FROM TO",
		Short: "Promote what is due along an edge of the pipeline now, or say what that is",
		Long: `Promote what is due along an edge of the pipeline now, instead of at the next look
(pipeline.every): the newest landing that every cluster of FROM has run for the edge's soak, healthy and
unblocked, if its gates are passed and a window is open.

--dry-run says which landing that is or why there is none, how long each landing has soaked, what the
gates say, and what the candidate carries and touches. It changes nothing. --plan adds what would change
in each cluster that follows TO, as "fairway cluster plan --ref" says it at the candidate: what TO has
and FROM lacks, such as a hotfix, shows as taken back there, which a merge does not do.

--now does not wait for soak and windows, nor until every cluster of FROM has the landing; gates and blocks
hold all the same. --skip-gate goes on without a gate. Both are recorded with their reason. A landing that
people have refused goes only by --candidate together with --now.

A merge is waited for. A pull request is opened and left to people, who may take days; --wait waits for
them. The work goes on in the worker when this command ends. Its exit status is 1 if nothing was promoted.`,
		Example: `  fairway promote dev alpha --dry-run
  fairway promote dev alpha
  fairway promote dev alpha --now --reason "mends incident 4711"
  fairway promote alpha stable --candidate 3f2a9c41 --wait
  fairway promote dev alpha --skip-gate error-rate --reason "its Prometheus is gone"`,
		Args:              cobra.ExactArgs(2),
		ValidArgsFunction: c.completeEdge,
		RunE: func(cmd *cobra.Command, args []string) error {
			in.From, in.To = args[0], args[1]
			switch explained := strings.TrimSpace(in.Reason) != ""; {
			case in.Now && !explained && !dryRun:
				return usage(errors.New("--reason is missing: others will ask why it did not wait"))
			case len(in.SkipGates) > 0 && !explained && !dryRun:
				return usage(errors.New("--reason is missing: others will ask why a gate was skipped"))
			case plan && !dryRun:
				return usage(errors.New("--plan says what would change; give --dry-run too"))
			}
			conn, err := c.connect(cmd.Context())
			if err != nil {
				return err
			}
			defer conn.Close()
			if dryRun {
				planned, err := conn.planPromotion(cmd, in, plan)
				if err != nil {
					return err
				}
				return c.print(cmd.OutOrStdout(), planned, func(t *table) { planned.show(t, time.Now()) })
			}
			in.By = whoami()
			return c.promote(cmd, conn, in, wait)
		},
	}
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "say what would be promoted, and change nothing")
	cmd.Flags().BoolVar(&plan, "plan", false, "with --dry-run: say what would change in the clusters that follow TO")
	cmd.Flags().BoolVar(&in.Now, "now", false, "do not wait for soak and windows (needs --reason)")
	cmd.Flags().StringVar(&in.Candidate, "candidate", "", "a landing of FROM, by its commit or the first digits of it (default: the newest that is due)")
	cmd.Flags().StringArrayVar(&in.SkipGates, "skip-gate", nil, "go on without the gate of that name; may be given several times (needs --reason)")
	cmd.Flags().StringVar(&in.Reason, "reason", "", "why, for everybody who will ask (required with --now and --skip-gate, unless --dry-run)")
	cmd.Flags().BoolVar(&wait, "wait", false, "wait for the end of a pull request too")
	cmd.MarkFlagsMutuallyExclusive("dry-run", "wait")
	_ = cmd.RegisterFlagCompletionFunc("candidate", c.completeCandidate)
	_ = cmd.RegisterFlagCompletionFunc("skip-gate", c.completeGate)
	return cmd
}

// promote begins a promotion if something is due, and follows it.
func (c *cli) promote(cmd *cobra.Command, conn *connection, in workflows.PromoteInput, wait bool) error {
	ctx := cmd.Context()
	if running, err := conn.promotionUnderWay(ctx, in.From, in.To); err != nil {
		return err
	} else if running != nil {
		return beingPromoted(*running)
	}
	// A promotion chooses for itself; who waits at the keyboard is told at once that nothing is due.
	choice, err := conn.choose(cmd, in)
	if err != nil {
		return err
	}
	if !choice.Go {
		plan := promotionPlan{From: in.From, To: in.To, PromotionChoice: choice}
		if err := c.print(cmd.OutOrStdout(), plan, func(t *table) { plan.show(t, time.Now()) }); err != nil {
			return err
		}
		return fmt.Errorf("nothing is promoted from %s to %s: %s", in.From, in.To, cmp.Or(cut(choice.Why, 300), "nothing is due"))
	}
	run, err := conn.startPromotion(ctx, in)
	if err != nil {
		return err
	}
	return c.followPromotion(cmd, conn, run, in.From, in.To, wait)
}

// beingPromoted refuses a second promotion along an edge, and shows the first.
func beingPromoted(running listedPromotion) error {
	return usage(fmt.Errorf("a promotion from %s to %s is under way already: %s; `fairway promotion describe %s %s` shows it, `fairway promotion cancel %s %s --reason ...` ends it",
		running.From, running.To, running.text(), running.From, running.To, running.From, running.To))
}

func (c *connection) startPromotion(ctx context.Context, in workflows.PromoteInput) (client.WorkflowRun, error) {
	id := workflows.PromotionID(in.From, in.To)
	run, err := c.ExecuteWorkflow(ctx, client.StartWorkflowOptions{
		ID:                                       id,
		TaskQueue:                                c.taskQueue,
		WorkflowIDConflictPolicy:                 enumspb.WORKFLOW_ID_CONFLICT_POLICY_FAIL,
		WorkflowExecutionErrorWhenAlreadyStarted: true,
		StaticSummary:                            workflows.PromotionSummary(in.From, in.To),
		TypedSearchAttributes:                    temporal.NewSearchAttributes(workflows.ChannelAttribute.ValueSet(in.To)),
	}, workflows.Promote, in)
	if running := (*serviceerror.WorkflowExecutionAlreadyStarted)(nil); errors.As(err, &running) {
		return nil, beingPromoted(listedPromotion{Record: promotion.Record{From: in.From, To: in.To}, Phase: "begun a moment ago"})
	}
	if err != nil {
		return nil, fmt.Errorf("starting workflow %s: %w", id, err)
	}
	return run, nil
}

// promotionPhases are those of a promotion, in their order, with those of both modes in one place.
var promotionPhases = []string{"choosing", "merging", "following", "recording"}

// followPromotion shows a promotion until its end, or until its pull request is open.
func (c *cli) followPromotion(cmd *cobra.Command, conn *connection, run client.WorkflowRun, from, to string, wait bool) error {
	ctx := cmd.Context()
	var record promotion.Record
	var progress workflows.PromotionProgress
	ended, err := watch(ctx, newReport(cmd.ErrOrStderr(), len(promotionPhases)), run, &record, func() (rollView, bool) {
		var answered bool
		if progress, answered = conn.promotionProgress(ctx, run.GetID()); !answered {
			return rollView{Counts: counts{Total: len(promotionPhases)}, Step: unanswered}, false
		}
		view := promotionView(progress)
		view.Waits = conn.waitsFor(ctx, run.GetID())
		return view, !wait && progress.Phase == "following"
	})
	switch {
	case !ended:
		return c.print(cmd.OutOrStdout(), progress.Record, func(t *table) {
			t.line("Pull request #%d for %s waits for people: %s", progress.PullRequest, shortCommit(progress.Candidate), progress.URL)
			t.line("`fairway promotion describe %s %s` says what it waits for.", from, to)
		})
	case ctx.Err() != nil:
		fmt.Fprintf(cmd.ErrOrStderr(), "No longer watching; the promotion goes on. `fairway promotion describe %s %s` shows how far it is.\n", from, to)
		return ctx.Err()
	case err != nil:
		return c.promotionFailed(cmd, conn, run.GetID(), err)
	}
	return c.concludePromotion(cmd, record)
}

// promotionFailed explains why a promotion ended without a result.
func (c *cli) promotionFailed(cmd *cobra.Command, conn *connection, id string, err error) error {
	if progress, answered := conn.promotionProgress(cmd.Context(), id); answered && progress.Outcome != "" {
		if err := c.print(cmd.OutOrStdout(), progress.Record, func(t *table) { showRecord(t, progress.Record) }); err != nil {
			return err
		}
	}
	if temporal.IsCanceledError(err) {
		return errors.New("the promotion was cancelled; what was open is withdrawn")
	}
	return conn.explain(err)
}

// concludePromotion shows how a promotion ended. It is an error if the candidate has not arrived.
func (c *cli) concludePromotion(cmd *cobra.Command, record promotion.Record) error {
	if err := c.print(cmd.OutOrStdout(), record, func(t *table) { showRecord(t, record) }); err != nil {
		return err
	}
	if record.Outcome != promotion.Merged {
		return fmt.Errorf("the promotion from %s to %s ended as %s: %s", record.From, record.To, record.Outcome, cmp.Or(cut(record.Detail, 300), "no reason was told"))
	}
	return nil
}

// promotionProgress asks a promotion where it stands. It may fail for a moment, such as while a worker
// restarts.
func (c *connection) promotionProgress(ctx context.Context, id string) (progress workflows.PromotionProgress, answered bool) {
	_, err := c.query(ctx, id, "", workflows.ProgressQuery, &progress)
	return progress, err == nil && progress.Phase != ""
}

// promotionView is what somebody who watches a promotion sees.
func promotionView(progress workflows.PromotionProgress) rollView {
	phase := progress.Phase
	if phase == "opening" {
		phase = "merging"
	}
	at := slices.Index(promotionPhases, phase)
	view := rollView{Counts: counts{Total: len(promotionPhases), Done: max(0, at)}, Label: progress.Phase, Step: progress.Phase + ": " + progress.Step}
	if at >= 0 {
		view.Label = fmt.Sprintf("phase %d of %d, %s", at+1, len(promotionPhases), progress.Phase)
	}
	if progress.Candidate != "" {
		view.Label += ", " + shortCommit(progress.Candidate)
	}
	if progress.URL != "" {
		view.Notes = append(view.Notes, "pull request "+progress.URL)
	}
	return view
}

// completeCandidate offers the landings of FROM, the newest first.
func (c *cli) completeCandidate(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) == 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	state, ok := c.completionState(cmd, args[0])
	if !ok {
		return nil, cobra.ShellCompDirectiveError
	}
	return landingChoices(state.Promotions.Soak.Landings), cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveKeepOrder
}

// landingChoices are landings for a completion, the newest first.
func landingChoices(landings []promotion.Landing) (out []string) {
	for _, landing := range slices.Backward(landings) {
		if len(out) == 20 {
			break
		}
		out = append(out, shortCommit(landing.Commit)+"\t"+cut(landing.Title, 60))
	}
	return out
}

// completeGate offers the gates that the edge's last promotions have had.
func (c *cli) completeGate(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) != 2 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	state, ok := c.completionState(cmd, args[1])
	if !ok {
		return nil, cobra.ShellCompDirectiveError
	}
	var names []string
	for _, record := range state.Promotions.Records {
		for _, gate := range record.Gates {
			if record.From == args[0] && !slices.Contains(names, gate.Name) {
				names = append(names, gate.Name)
			}
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// completionState is what a channel's actor knows.
func (c *cli) completionState(cmd *cobra.Command, channel string) (state workflows.ChannelState, ok bool) {
	conn, err := c.connect(cmd.Context())
	if err != nil {
		return state, false
	}
	defer conn.Close()
	_, err = conn.query(cmd.Context(), workflows.ChannelID(channel), "", workflows.StateQuery, &state)
	return state, err == nil
}
