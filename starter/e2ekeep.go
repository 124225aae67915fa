package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"

	"github.com/fairway-project/fairway/workflows"
)

func (c *cli) e2eKeepCommand() *cobra.Command {
	var keep workflows.KeepTest
	cmd := &cobra.Command{
		Use:   "keep ID --for DURATION",
		Short: "Keep the cluster of a test after its end, to look into it",
		Long: `Keep the cluster of a test after its end, whatever its verdict, to look into it. The time counts from
the end of the test, or from now on if it is kept already; it never gets shorter. It ends by itself, and
e2e.keep_at_most bounds it. A cluster that is being removed cannot be kept any more. A kept cluster holds its place in the account, so others wait for it. ID is as for
"fairway e2e describe".`,
		Example:           "  fairway e2e keep 12 --for 2h\n  fairway e2e keep 12/3f2a9c41 --for 30m",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: c.completeTest,
		RunE: func(cmd *cobra.Command, args []string) error {
			if keep.For <= 0 {
				return usage(fmt.Errorf("--for is %s; must be a time such as 2h", keep.For))
			}
			conn, err := c.connect(cmd.Context())
			if err != nil {
				return err
			}
			defer conn.Close()
			keep.By = whoami()
			kept, err := conn.keepTest(cmd.Context(), args[0], keep)
			if err != nil {
				return err
			}
			return c.print(cmd.OutOrStdout(), kept, kept.show)
		},
	}
	cmd.Flags().DurationVar(&keep.For, "for", 0, "for how long, such as 2h (required)")
	_ = cmd.MarkFlagRequired("for")
	return cmd
}

// keptTest is a test whose cluster is kept.
type keptTest struct {
	Test    string        `json:"test"`
	Cluster string        `json:"cluster"`
	For     time.Duration `json:"for"`
	Until   time.Time     `json:"until,omitzero"` // not known while the test goes on
}

func (k keptTest) show(t *table) {
	until := "for " + short(k.For) + " after the end of its test"
	if !k.Until.IsZero() {
		until = "until " + k.Until.Local().Format(time.DateTime)
	}
	t.line("Cluster %s is kept %s; `fairway e2e destroy %s --reason ...` removes it before.", cut(k.Cluster, 100), until, shortTest(k.Test))
}

// keepTest has a test keep its cluster.
func (c *connection) keepTest(ctx context.Context, name string, keep workflows.KeepTest) (keptTest, error) {
	test, err := c.endable(ctx, name)
	if err != nil {
		return keptTest{}, err
	}
	id := test.Request.ID
	kept := keptTest{Test: id, Cluster: test.Request.Cluster, For: keep.For}
	bounded, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	handle, err := c.UpdateWorkflow(bounded, client.UpdateWorkflowOptions{
		WorkflowID: workflows.TestID(id), UpdateID: uuid.NewString(), UpdateName: workflows.KeepTestName, Args: []any{keep}, WaitForStage: client.WorkflowUpdateStageCompleted,
	})
	if err == nil {
		err = handle.Get(bounded, &kept.Until)
	}
	missing := (*serviceerror.NotFound)(nil)
	switch {
	case errors.As(err, &missing):
		return kept, usage(fmt.Errorf("test %s is over; its cluster is gone", id))
	case errors.Is(err, context.DeadlineExceeded):
		return kept, unreachable("no worker answered for test %s within 20 s; it is not known whether its cluster is kept", id)
	}
	return kept, c.explain(err)
}

func (c *cli) e2eDestroyCommand() *cobra.Command {
	var end workflows.EndTest
	var dryRun, wait, yes bool
	cmd := &cobra.Command{
		Use:   "destroy ID --reason R",
		Short: "End a test at once and remove its cluster, also one that is kept",
		Long: `End a test at once and remove its cluster, also one that is kept. What it has found until then is
reported. It asks for the id to be typed; --yes does without. Take the label off the pull request if it is
not to be tested any more. ID is as for "fairway e2e describe".`,
		Example: `  fairway e2e destroy 12 --dry-run
  fairway e2e destroy 12 --reason "no longer needed"
  fairway e2e destroy 12/3f2a9c41 --reason "costs too much" --yes --wait`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: c.completeTest,
		RunE: func(cmd *cobra.Command, args []string) error {
			if strings.TrimSpace(end.Why) == "" && !dryRun {
				return usage(errors.New("--reason is missing: others will ask for it"))
			}
			conn, err := c.connect(cmd.Context())
			if err != nil {
				return err
			}
			defer conn.Close()
			test, err := conn.endable(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if dryRun {
				return c.print(cmd.OutOrStdout(), test, func(t *table) {
					t.line("Test %s, in phase %s, would end, and cluster %s be removed.", test.Request.ID, cut(test.phase(), 40), cut(test.Request.Cluster, 100))
					t.line("Nothing has been changed.")
				})
			}
			if !yes {
				short := shortTest(test.Request.ID)
				if err := confirm(cmd, "the test's id, "+short, short, fmt.Sprintf("Test %s ends in phase %s, and cluster %s is removed.", short, cut(test.phase(), 40), cut(test.Request.Cluster, 100))); err != nil {
					return err
				}
			}
			end.By, end.Now = whoami(), true
			if err := conn.endTest(cmd.Context(), test, end); err != nil {
				return err
			}
			if wait {
				return c.awaitGone(cmd, conn, test)
			}
			return c.print(cmd.OutOrStdout(), test, func(t *table) {
				t.line("Test %s ends; `fairway e2e describe %s` shows how far the removal of its cluster is.", test.Request.ID, shortTest(test.Request.ID))
			})
		},
	}
	cmd.Flags().StringVar(&end.Why, "reason", "", "why, for everybody who will ask (required, unless --dry-run)")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "say what would end, and change nothing")
	cmd.Flags().BoolVar(&wait, "wait", false, "wait until the cluster is gone")
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask for the id")
	cmd.MarkFlagsMutuallyExclusive("dry-run", "wait")
	return cmd
}

// endable finds a test that is not over. It need not answer: the signal waits for its worker.
func (c *connection) endable(ctx context.Context, name string) (listedTest, error) {
	seen, err := c.seenTests(ctx, mostTests)
	if err != nil {
		return listedTest{}, err
	}
	found, err := chooseTest(seen, name)
	if err != nil {
		return listedTest{}, err
	}
	if found.over() {
		return listedTest{}, usage(fmt.Errorf("test %s is over; its cluster is gone", found.id))
	}
	test, _ := c.listedTest(ctx, found)
	return test, nil
}

// endTest has a test end at once.
func (c *connection) endTest(ctx context.Context, test listedTest, end workflows.EndTest) error {
	end.ID = test.Request.ID
	id := workflows.TestID(end.ID)
	err := c.SignalWorkflow(ctx, id, "", workflows.EndTestName, end)
	if missing := (*serviceerror.NotFound)(nil); errors.As(err, &missing) {
		return usage(fmt.Errorf("test %s is over; its cluster is gone", end.ID))
	}
	if err != nil {
		return fmt.Errorf("telling workflow %s to end: %w", id, err)
	}
	return nil
}

// awaitGone waits until a test that was told to end has removed its cluster.
func (c *cli) awaitGone(cmd *cobra.Command, conn *connection, test listedTest) error {
	ctx, id := cmd.Context(), workflows.TestID(test.Request.ID)
	var result any
	_, err := watch(ctx, newReport(cmd.ErrOrStderr(), len(testPhases)), conn.GetWorkflow(ctx, id, ""), &result, func() (rollView, bool) {
		report, answered := conn.testReport(ctx, id)
		if !answered {
			return rollView{Counts: counts{Total: len(testPhases)}, Step: unanswered}, false
		}
		view := testView(report)
		view.Waits = conn.waitsFor(ctx, id)
		return view, false
	})
	if ctx.Err() != nil {
		return ctx.Err()
	}
	report, answered := conn.testReport(ctx, id)
	if !answered {
		return errors.Join(conn.explain(err), unreachable("test %s is over; no worker tells how it ended", test.Request.ID))
	}
	if err := c.print(cmd.OutOrStdout(), report, func(t *table) {
		if report.Left == "" {
			t.line("Test %s is over, and cluster %s is gone.", test.Request.ID, cut(report.Request.Cluster, 100))
		}
	}); err != nil {
		return err
	}
	if report.Left != "" {
		return fmt.Errorf("not all of test %s could be removed: %s; `fairway sweep` tries again", test.Request.ID, cut(report.Left, 300))
	}
	return nil
}
