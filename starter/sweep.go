package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"
	"golang.org/x/term"

	"github.com/fairway-project/fairway/workflows"
)

func (c *cli) sweepCommand() *cobra.Command {
	var in workflows.SweepInput
	var yes bool
	cmd := &cobra.Command{
		Use:   "sweep",
		Short: "Remove what tests have left and nobody owns any more",
		Long: `Remove what tests have left and nobody owns any more: stacks, groups, instances, volumes and load balancers
in the accounts of e2e.accounts that carry the tag of a test cluster, and records and objects named after
one, if no lease covers them, and the places in the queue of tests that are gone. What is tagged otherwise is never
touched. --dry-run lists it.

If more is found than --at-most, nothing is removed: the number is shown, and at a terminal has to be
typed to go on. --yes goes on without; in scripts, --at-most is the safer way. The schedule of sweeps
("fairway schedule apply") never goes on by itself.

The exit status is 1 if something could not be removed, or if nothing was because there is too much.`,
		Example: "  fairway sweep --dry-run\n  fairway sweep\n  fairway sweep --at-most 50\n  fairway sweep --dry-run -o json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			settings, err := c.needsTests()
			if err != nil {
				return err
			}
			if !cmd.Flags().Changed("at-most") {
				in.AtMost = settings.Sweep.AtMost
			}
			if in.AtMost < 0 {
				return usage(fmt.Errorf("--at-most is %d; must be at least 0", in.AtMost))
			}
			conn, err := c.connect(cmd.Context())
			if err != nil {
				return err
			}
			defer conn.Close()
			in.By = whoami()
			return c.sweep(cmd, conn, in, func(result workflows.SweepResult) bool { return yes || goesOn(cmd, result) })
		},
	}
	cmd.Flags().BoolVar(&in.DryRun, "dry-run", false, "list what would be removed, and change nothing")
	cmd.Flags().IntVar(&in.AtMost, "at-most", 0, "remove nothing if more than so many things are found (default: e2e.sweep.at_most)")
	cmd.Flags().BoolVar(&yes, "yes", false, "go on, however much is found")
	cmd.MarkFlagsMutuallyExclusive("dry-run", "yes")
	_ = cmd.RegisterFlagCompletionFunc("at-most", cobra.NoFileCompletions)
	return cmd
}

// goesOn asks a person at a terminal whether all that was found is to be removed.
func goesOn(cmd *cobra.Command, result workflows.SweepResult) bool {
	if !term.IsTerminal(int(os.Stdin.Fd())) {
		return false
	}
	showFound(&table{newTable(cmd.ErrOrStderr())}, result)
	fmt.Fprintf(cmd.ErrOrStderr(), "%s\nType %d to remove all of it: ", cut(result.Asks, 300), len(result.Found))
	typed, err := bufio.NewReader(cmd.InOrStdin()).ReadString('\n')
	return err == nil && strings.TrimSpace(typed) == strconv.Itoa(len(result.Found))
}

// sweep has the worker sweep. If there is too much, goOn decides; then at most as much is removed as it saw.
func (c *cli) sweep(cmd *cobra.Command, conn *connection, in workflows.SweepInput, goOn func(workflows.SweepResult) bool) error {
	// A workflow would wait for a worker, or try what it does not know; who waits at the keyboard is told at once.
	if err := conn.askForTests(cmd.Context(), "ListSuites", nil, &workflows.SuitesToRun{}); err != nil {
		return err
	}
	result, err := conn.runSweep(cmd, in)
	if err != nil {
		return err
	}
	if result.Asks != "" && !in.DryRun && goOn(result) {
		in.AtMost = len(result.Found)
		if result, err = conn.runSweep(cmd, in); err != nil {
			return err
		}
	}
	if err := c.print(cmd.OutOrStdout(), result, func(t *table) { showSweep(t, result, in.DryRun) }); err != nil {
		return err
	}
	switch {
	case in.DryRun:
		return nil
	case result.Asks != "":
		return errors.New("nothing was removed: " + cut(result.Asks, 400))
	case len(result.Failed) > 0:
		return fmt.Errorf("%s could not be removed; the next sweep tries again", counted(len(result.Failed), "thing"))
	}
	return nil
}

// runSweep carries out one sweep, and waits for it.
func (c *connection) runSweep(cmd *cobra.Command, in workflows.SweepInput) (result workflows.SweepResult, err error) {
	ctx := cmd.Context()
	run, err := c.ExecuteWorkflow(ctx, client.StartWorkflowOptions{
		ID: workflows.SweepID, TaskQueue: c.taskQueue, WorkflowIDConflictPolicy: enumspb.WORKFLOW_ID_CONFLICT_POLICY_FAIL,
		WorkflowExecutionErrorWhenAlreadyStarted: true, StaticSummary: "a sweep by hand, asked for by " + in.By,
	}, sweepWorkflow, in)
	if running := (*serviceerror.WorkflowExecutionAlreadyStarted)(nil); errors.As(err, &running) {
		return result, usage(errors.New("a sweep is under way already, workflow " + workflows.SweepID + "; wait for its end"))
	}
	if err != nil {
		return result, fmt.Errorf("starting workflow %s: %w", workflows.SweepID, err)
	}
	_, err = watch(ctx, newReport(cmd.ErrOrStderr(), 1), run, &result, func() (rollView, bool) {
		return c.sweepView(ctx), false
	})
	switch {
	case ctx.Err() != nil:
		fmt.Fprintf(cmd.ErrOrStderr(), "No longer watching; workflow %s goes on.\n", workflows.SweepID)
		return result, ctx.Err()
	case temporal.IsCanceledError(err):
		return result, errors.New("the sweep was cancelled; what was removed until then is gone")
	}
	return result, c.explain(err)
}

// sweepView is what somebody who watches a sweep sees.
func (c *connection) sweepView(ctx context.Context) rollView {
	var so workflows.SweepResult
	if exists, err := c.query(ctx, workflows.SweepID, "", workflows.ProgressQuery, &so); err != nil || !exists {
		return rollView{Counts: counts{Total: 1}, Step: unanswered}
	}
	view := rollView{Counts: counts{Total: max(1, len(so.Found)), Done: len(so.Removed)}, Label: "looking", Step: "looks for what nobody owns", Waits: c.waitsFor(ctx, workflows.SweepID)}
	if len(so.Found) > 0 {
		view.Label, view.Step = fmt.Sprintf("%d of %d removed", len(so.Removed), len(so.Found)), "removes what nobody owns"
	}
	for _, failed := range so.Failed {
		view.Notes = append(view.Notes, fmt.Sprintf("%s %s: %s", cut(failed.Kind, 40), cut(failed.ID, 100), cut(failed.Problem, 200)))
	}
	return view
}

func showFound(t *table, result workflows.SweepResult) {
	t.row("KIND", "ID", "LEASE", "ACCOUNT", "REGION", "WHY")
	for _, each := range result.Found {
		t.row(cut(each.Kind, 40), cut(each.ID, 120), cut(each.Lease, 100), each.Account.Account, each.Account.Region, cut(each.Why, 120))
	}
	t.flush()
}

// showSweep shows what was found, and what became of each thing.
func showSweep(t *table, result workflows.SweepResult, dryRun bool) {
	switch {
	case len(result.Found) == 0:
		t.line("Nothing is left that nobody owns.")
		return
	case dryRun || result.Asks != "":
		showFound(t, result)
		t.line("%s found; nothing has been changed.", capital(counted(len(result.Found), "thing")))
		return
	}
	t.row("KIND", "ID", "LEASE", "REMOVED", "PROBLEM")
	for _, each := range result.Removed {
		t.row(cut(each.Kind, 40), cut(each.ID, 120), cut(each.Lease, 100), each.At.Local().Format(time.DateTime), "")
	}
	for _, each := range result.Failed {
		t.row(cut(each.Kind, 40), cut(each.ID, 120), cut(each.Lease, 100), "no", cut(each.Problem, 200))
	}
	t.flush()
	t.line("%d of %d removed.", len(result.Removed), len(result.Found))
}
