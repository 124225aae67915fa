package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"

	"github.com/fairway-project/fairway/e2e"
	"github.com/fairway-project/fairway/workflows"
)

// runWorkflow is the type of the workflow that begins a test by hand.
const runWorkflow = "RunTest"

func (c *cli) e2eRunCommand() *cobra.Command {
	var in workflows.ResolveTest
	var ref string
	var dryRun, wait, yes bool
	cmd := &cobra.Command{
		Use:   "run (--pr N | --ref BASE..HEAD)",
		Short: "Test a pull request, or any commit, on a cluster of its own",
		Long: `Test a pull request, or any commit, on a cluster of its own: it is made at the base, upgraded to the
head, tested and removed. BASE is a channel, HEAD a branch or commit. The test waits for its place in the
queue like others.

Who runs it vouches for the head: what it holds runs with the rights of a test cluster. So it shows
author and commit, and asks for the number of the pull request, or the first digits of the head, to be typed;
--yes does without. A pull request needs no label then. --dry-run says what would be tested.

The work goes on in the worker when this command ends. With --wait its exit status is 1 if the test has
not passed; a cluster that is kept is not waited for.`,
		Example: `  fairway e2e run --pr 12 --dry-run
  fairway e2e run --pr 12 --wait
  fairway e2e run --pr 12 --keep 2h --yes
  fairway e2e run --ref dev..my-branch --wait --yes`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := whatToTest(&in, ref, cmd.Flags().Changed("pr")); err != nil {
				return err
			}
			if _, err := c.needsTests(); err != nil {
				return err
			}
			conn, err := c.connect(cmd.Context())
			if err != nil {
				return err
			}
			defer conn.Close()
			in.By = whoami()
			return c.runTest(cmd, conn, in, dryRun, wait, yes)
		},
	}
	cmd.Flags().IntVar(&in.Number, "pr", 0, "number of a pull request")
	cmd.Flags().StringVar(&ref, "ref", "", "a channel and what is to get into it, such as dev..my-branch")
	cmd.Flags().DurationVar(&in.Keep, "keep", 0, "keep the cluster for so long if the test fails (default: e2e.keep_failed)")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "say what would be tested, and start nothing")
	cmd.Flags().BoolVar(&wait, "wait", false, "wait for the verdict")
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	cmd.MarkFlagsOneRequired("pr", "ref")
	cmd.MarkFlagsMutuallyExclusive("pr", "ref")
	cmd.MarkFlagsMutuallyExclusive("dry-run", "wait")
	for _, text := range []string{"pr", "ref", "keep"} {
		_ = cmd.RegisterFlagCompletionFunc(text, cobra.NoFileCompletions)
	}
	return cmd
}

// whatToTest takes the flags apart.
func whatToTest(in *workflows.ResolveTest, ref string, byNumber bool) error {
	switch {
	case in.Keep < 0:
		return usage(fmt.Errorf("--keep is %s; must be a time such as 2h", in.Keep))
	case byNumber && in.Number < 1:
		return usage(fmt.Errorf("--pr is %d; must be the number of a pull request", in.Number))
	case byNumber:
		return nil
	}
	base, head, found := strings.Cut(ref, "..")
	if !found || base == "" || head == "" || strings.HasPrefix(head, ".") || strings.Contains(head, "..") {
		return usage(fmt.Errorf("--ref is %.120q; must be a channel and a branch or commit, such as dev..my-branch", ref))
	}
	in.Base, in.Head = base, head
	return nil
}

// runTest begins a test, or says what it would be of.
func (c *cli) runTest(cmd *cobra.Command, conn *connection, in workflows.ResolveTest, dryRun, wait, yes bool) error {
	ctx := cmd.Context()
	var request e2e.Request
	if err := patiently(cmd.ErrOrStderr(), "asks forge and repository", func() error { return conn.askForTests(ctx, "ResolveTest", in, &request) }); err != nil {
		return err
	}
	if dryRun {
		return c.print(cmd.OutOrStdout(), request, func(t *table) {
			showRequest(t, request)
			t.line("Nothing has been started.")
		})
	}
	if conn.isRunning(ctx, workflows.TestID(request.ID)) {
		return usage(fmt.Errorf("%s is under way already; `fairway e2e describe %s` shows the test, `fairway e2e destroy %s --reason ...` ends it", requestText(request), shortTest(request.ID), shortTest(request.ID)))
	}
	if !yes {
		what, name := "the first 8 digits of the head", shortCommit(request.Head)
		if request.Number > 0 {
			what, name = "the number of the pull request", strconv.Itoa(request.Number)
		}
		if err := confirm(cmd, what, name, capital(requestText(request))+" is tested on a cluster of its own, which costs money, and what it holds is run there."); err != nil {
			return err
		}
	}
	in.Commit = request.Head // and nothing that is pushed since
	started, err := conn.startTest(ctx, in)
	if err != nil {
		return err
	}
	request = started
	if !wait {
		return c.print(cmd.OutOrStdout(), request, func(t *table) {
			showRequest(t, request)
			t.line("The test has begun; `fairway e2e describe %s` shows how far it is.", shortTest(request.ID))
		})
	}
	return c.followTest(cmd, conn, request)
}

// requestText names what is tested in a line.
func requestText(r e2e.Request) string {
	head := shortCommit(r.Head)
	if r.Number == 0 {
		return fmt.Sprintf("commit %s for channel %s", head, cut(r.Channel, 60))
	}
	return fmt.Sprintf("pull request #%d of %s at commit %s for channel %s", r.Number, cut(r.Author, 60), head, cut(r.Channel, 60))
}

func showRequest(t *table, r e2e.Request) {
	t.row("Test:", cut(r.ID, 120))
	if r.Number > 0 {
		t.row("Pull request:", strings.TrimSpace(numberText(r.Number)+" "+cut(r.Title, 80)))
		t.row("Author:", cut(r.Author, 60))
	}
	t.row("Upgrade:", upgradeText(r))
	t.row("Cluster:", cut(r.Cluster, 100))
	t.row("Hotfix:", map[bool]string{true: "yes; it goes before the others", false: "no"}[r.Hotfix])
	t.flush()
}

// startTest has the worker begin a test; two who ask for the same at once get the same.
func (c *connection) startTest(ctx context.Context, in workflows.ResolveTest) (request e2e.Request, err error) {
	id := workflows.TestID("run/" + strconv.Itoa(in.Number))
	if in.Number == 0 {
		id = workflows.TestID("run/" + in.Base + ".." + in.Head)
	}
	run, err := c.ExecuteWorkflow(ctx, client.StartWorkflowOptions{
		ID: id, TaskQueue: c.taskQueue, WorkflowIDConflictPolicy: enumspb.WORKFLOW_ID_CONFLICT_POLICY_USE_EXISTING, StaticSummary: "a test by hand, asked for by " + in.By,
	}, runWorkflow, in)
	if err != nil {
		return request, fmt.Errorf("starting workflow %s: %w", id, err)
	}
	err = run.Get(ctx, &request)
	if temporal.IsCanceledError(err) {
		return request, fmt.Errorf("workflow %s was cancelled; no test has begun", id)
	}
	return request, c.explain(err)
}

// testPhases are those of a test that is waited for.
var testPhases = []string{e2e.Queued, e2e.Creating, e2e.Loading, e2e.Upgrading, e2e.Testing, e2e.Removing}

// followTest shows a test until its end, or until its cluster is only kept.
func (c *cli) followTest(cmd *cobra.Command, conn *connection, request e2e.Request) error {
	ctx, id := cmd.Context(), workflows.TestID(request.ID)
	run := conn.GetWorkflow(ctx, id, "")
	var report e2e.Report
	var result any // the report tells more
	ended, err := watch(ctx, newReport(cmd.ErrOrStderr(), len(testPhases)), run, &result, func() (rollView, bool) {
		told, answered := conn.testReport(ctx, id)
		if !answered {
			return rollView{Counts: counts{Total: len(testPhases)}, Step: unanswered}, false
		}
		report = told
		view := testView(report)
		view.Waits = conn.waitsFor(ctx, id)
		return view, report.Phase == e2e.Kept
	})
	if ctx.Err() != nil {
		fmt.Fprintf(cmd.ErrOrStderr(), "No longer watching; the test goes on. `fairway e2e describe %s` shows how far it is.\n", shortTest(request.ID))
		return ctx.Err()
	}
	if ended {
		if told, answered := conn.testReport(ctx, id); answered {
			report = told
		}
	}
	if report.Phase == "" {
		return errors.Join(conn.explain(err), unreachable("no worker tells how test %s ended", request.ID))
	}
	test := listedTest{Report: report, Since: time.Now(), Over: ended}
	if err := c.print(cmd.OutOrStdout(), test, func(t *table) { showTest(t, test, nil) }); err != nil {
		return err
	}
	switch {
	case report.Verdict == e2e.Passed:
		return conn.explain(err)
	case report.Verdict != "":
		return fmt.Errorf("the test %s: %s", map[e2e.Verdict]string{e2e.Failed: "has failed", e2e.Cancelled: "was cancelled"}[report.Verdict], cut(report.Problem, 300))
	case temporal.IsCanceledError(err):
		return errors.New("the test was cancelled; what it had made is removed")
	case err != nil:
		return conn.explain(err)
	}
	return errors.New("the test ended without a verdict")
}

// testReport asks a test where it stands.
func (c *connection) testReport(ctx context.Context, id string) (report e2e.Report, answered bool) {
	exists, err := c.query(ctx, id, "", workflows.ProgressQuery, &report)
	return report, exists && err == nil && report.Phase != ""
}

// testView is what somebody who watches a test sees.
func testView(r e2e.Report) rollView {
	at := slices.Index(testPhases, r.Phase)
	view := rollView{Counts: counts{Total: len(testPhases), Done: max(0, at)}, Label: r.Phase, Step: r.Phase}
	if at >= 0 {
		view.Label = fmt.Sprintf("phase %d of %d, %s", at+1, len(testPhases), r.Phase)
	}
	if r.Place > 0 {
		view.Step += fmt.Sprintf(": place %d", r.Place)
	}
	for _, suite := range r.Suites {
		view.Notes = append(view.Notes, fmt.Sprintf("suite %s has %s, %s", cut(suite.Name, 63), map[bool]string{true: "passed", false: "failed"}[suite.Passed], counted(suite.Ran, "case")))
	}
	if r.Verdict != "" {
		view.Notes = append(view.Notes, "verdict: "+string(r.Verdict))
	}
	if r.Left != "" {
		view.Notes = append(view.Notes, "not removed yet: "+cut(r.Left, 200))
	}
	return view
}
