package main

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"
	"golang.org/x/sync/errgroup"

	"github.com/fairway-project/fairway/config"
	"github.com/fairway-project/fairway/e2e"
	"github.com/fairway-project/fairway/workflows"
)

func (c *cli) e2eCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "e2e", Short: "Test pull requests on clusters of their own, and look after these tests"}
	cmd.AddCommand(c.e2eRunCommand(), c.e2eListCommand(), c.e2eDescribeCommand(), c.e2eLogsCommand(), c.e2eKeepCommand(), c.e2eDestroyCommand())
	return cmd
}

// needsTests refuses what makes no sense where nothing is tested. Without a configuration the worker says so.
func (c *cli) needsTests() (e2e.Settings, error) {
	if c.configPath == "" && os.Getenv("FAIRWAY_CONFIG") == "" {
		return e2e.Defaults(), nil
	}
	loaded, err := config.Load(c.configPath)
	if err != nil {
		return e2e.Settings{}, usage(err)
	}
	if !loaded.E2E.Configured() {
		return e2e.Settings{}, usage(fmt.Errorf("no pull requests are tested: %w", errNoTests))
	}
	return loaded.E2E, nil
}

// listedTest is a test, queued, under way or over.
type listedTest struct {
	e2e.Report
	Since time.Time `json:"since,omitzero"` // when its phase began, or it ended
	Over  bool      `json:"over,omitempty"`
	// Status is that of the workflow, where no worker tells the report.
	Status string `json:"status,omitempty"`
}

// phase says where it stands, whoever tells that. One that ended in the middle of a phase was ended from outside.
func (l listedTest) phase() string {
	if l.Over && l.Phase != "" && l.Phase != e2e.Done {
		return l.Status + " while " + l.Phase
	}
	return cmp.Or(l.Phase, l.Status, unanswered)
}

// testList is what is known of tests.
type testList struct {
	Accounts []takenAccount `json:"accounts"`
	Tests    []listedTest   `json:"tests"`
	// Silent are workflows that did not answer: what they know is missing here.
	Silent []string `json:"silent,omitempty"`
}

// takenAccount is an account and how many test clusters it has.
type takenAccount struct {
	e2e.Account
	Taken int `json:"taken"`
}

func (c *cli) e2eListCommand() *cobra.Command {
	limit := 20
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List tests: those under way, the queue with its places, then the last ones",
		Long: `List tests: those under way, the queue with its places, then the last ones. Temporal keeps those that are
over for as long as its namespace says.`,
		Example: "  fairway e2e list\n  fairway e2e list --limit 5\n  fairway e2e list -o json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if limit < 0 {
				return usage(fmt.Errorf("--limit is %d; must be at least 0", limit))
			}
			conn, err := c.connect(cmd.Context())
			if err != nil {
				return err
			}
			defer conn.Close()
			var result testList
			if err := patiently(cmd.ErrOrStderr(), "asks the queue and the tests", func() (err error) {
				result, err = conn.tests(cmd.Context(), limit)
				return err
			}); err != nil {
				return err
			}
			return c.print(cmd.OutOrStdout(), result, result.show)
		},
	}
	cmd.Flags().IntVar(&limit, "limit", limit, "at most so many that are over")
	return cmd
}

// seenTest is an execution of a test as Temporal lists it.
type seenTest struct {
	id, run string // of the request, and of the execution
	began   time.Time
	closed  time.Time
	status  enumspb.WorkflowExecutionStatus
}

func (s seenTest) over() bool { return s.status != enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING }

// seenTests lists the newest execution of each test: all that run, and the last ones that are over.
func (c *connection) seenTests(ctx context.Context, over int) (out []seenTest, err error) {
	known := map[string]bool{}
	visit := func(each *workflow.WorkflowExecutionInfo) {
		id := strings.TrimPrefix(each.Execution.WorkflowId, workflows.TestID(""))
		if known[id] || each.Status == enumspb.WORKFLOW_EXECUTION_STATUS_CONTINUED_AS_NEW {
			return
		}
		known[id] = true
		out = append(out, seenTest{id: id, run: each.Execution.RunId, began: each.StartTime.AsTime(), closed: timeOf(each), status: each.Status})
	}
	if err := c.running(ctx, "WorkflowType = 'TestPullRequest'", visit); err != nil {
		return nil, err
	}
	if over > 0 {
		page, err := c.ListWorkflow(ctx, &workflowservice.ListWorkflowExecutionsRequest{
			Query: "WorkflowType = 'TestPullRequest' AND ExecutionStatus != 'Running'", PageSize: int32(over),
		})
		if err != nil {
			return nil, fmt.Errorf("listing tests that are over: %w", err)
		}
		for _, each := range page.Executions {
			visit(each)
		}
	}
	slices.SortStableFunc(out, func(a, b seenTest) int { return b.began.Compare(a.began) })
	return out, nil
}

func timeOf(each *workflow.WorkflowExecutionInfo) time.Time {
	if each.CloseTime == nil {
		return time.Time{}
	}
	return each.CloseTime.AsTime()
}

// tests asks the queue and each test where it stands. What does not answer is named.
func (c *connection) tests(ctx context.Context, over int) (testList, error) {
	result := testList{Accounts: []takenAccount{}, Tests: []listedTest{}}
	seen, err := c.seenTests(ctx, over)
	if err != nil {
		return result, err
	}
	var queue workflows.TestQueueState
	if _, err := c.query(ctx, workflows.TestQueueID, "", workflows.StateQuery, &queue); err != nil {
		result.Silent = append(result.Silent, workflows.TestQueueID)
	}
	for _, entry := range queue.Entries { // one that began a moment ago may not be listed yet
		if !slices.ContainsFunc(seen, func(s seenTest) bool { return s.id == entry.Request.ID }) {
			seen = append(seen, seenTest{id: entry.Request.ID, began: entry.Since, status: enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING})
		}
	}
	tests, answered := make([]listedTest, len(seen)), make([]bool, len(seen))
	var group errgroup.Group
	group.SetLimit(asking)
	for i, each := range seen {
		group.Go(func() error {
			tests[i], answered[i] = c.listedTest(ctx, each)
			return ctx.Err()
		})
	}
	if err := group.Wait(); err != nil {
		return result, err
	}
	for i := range tests {
		if answered[i] {
			continue
		}
		result.Silent = append(result.Silent, workflows.TestID(seen[i].id))
		if at := slices.IndexFunc(queue.Entries, func(e workflows.TestQueueEntry) bool { return e.Request.ID == seen[i].id }); at >= 0 && !tests[i].Over {
			tests[i].fromQueue(queue.Entries[at])
		}
	}
	slices.SortStableFunc(tests, func(a, b listedTest) int {
		return cmp.Or(cmp.Compare(a.rank(), b.rank()), cmp.Compare(a.Place, b.Place), b.Since.Compare(a.Since))
	})
	result.Tests = append(result.Tests, tests...)
	for _, account := range queue.Accounts {
		taken := takenAccount{Account: account}
		for _, entry := range queue.Entries {
			if entry.Given != nil && entry.Given.Account == account.Account && entry.Given.Region == account.Region {
				taken.Taken++
			}
		}
		result.Accounts = append(result.Accounts, taken)
	}
	return result, nil
}

// rank is the order of lists: under way, queued, over.
func (l listedTest) rank() int {
	switch {
	case l.Over:
		return 2
	case l.Phase == e2e.Queued:
		return 1
	}
	return 0
}

// fromQueue takes what the queue knows of a test that does not answer.
func (l *listedTest) fromQueue(entry workflows.TestQueueEntry) {
	l.Request, l.Since = entry.Request, entry.Since
	if entry.Given == nil {
		l.Phase = e2e.Queued
	} else {
		l.Account = *entry.Given
	}
}

// listedTest asks a test for its report. One that nobody answers for has no phase.
func (c *connection) listedTest(ctx context.Context, seen seenTest) (listedTest, bool) {
	out := listedTest{Since: seen.began, Over: seen.over()}
	if out.Over {
		out.Since, out.Status = seen.closed, strings.ToLower(seen.status.String())
	}
	exists, err := c.query(ctx, workflows.TestID(seen.id), seen.run, workflows.ProgressQuery, &out.Report)
	if err != nil || !exists || out.Phase == "" {
		out.Report = e2e.Report{Workflow: workflows.TestID(seen.id), Run: seen.run}
		out.Request.ID = seen.id
		return out, false
	}
	out.Request.ID = seen.id // by which it is asked for
	if last := len(out.Phases) - 1; last >= 0 && !out.Over {
		out.Since = out.Phases[last].Began
	}
	return out, true
}

func (l testList) show(t *table) {
	if len(l.Tests) == 0 {
		t.line("There are no tests; `fairway e2e run --pr N` makes one, as does the label on a pull request.")
	} else {
		t.row("TEST", "PULL REQUEST", "PHASE", "PLACE", "VERDICT", "SINCE", "CLUSTER", "TITLE")
	}
	for _, test := range l.Tests {
		place := ""
		if test.Place > 0 {
			place = strconv.Itoa(test.Place)
		}
		t.row(shortTest(test.Request.ID), numberText(test.Request.Number), cut(test.phase(), 40), place, test.Verdict, age(test.Since), cut(test.Request.Cluster, 60), cut(test.Request.Title, 60))
	}
	t.flush()
	for _, account := range l.Accounts {
		t.line("Account %s in %s: %d of %d places taken.", account.Account.Account, account.Region, account.Taken, account.Limit)
	}
	if len(l.Silent) > 0 {
		t.line("No worker answered for %s: %s. What is known of them is missing here.", counted(len(l.Silent), "workflow"), strings.Join(l.Silent[:min(len(l.Silent), 5)], ", "))
	}
}

// shortTest is an id with the first digits of its commit.
func shortTest(id string) string {
	number, head, found := strings.Cut(id, "/")
	if !found {
		return shortCommit(cut(id, 60))
	}
	return number + "/" + shortCommit(cut(head, 60))
}

// mostTests bounds how many tests that are over can be asked for.
const mostTests = 1000

// findTest finds a test by its id, the beginning of it, or the number of its pull request: then it is the newest.
func (c *connection) findTest(ctx context.Context, name string) (listedTest, error) {
	seen, err := c.seenTests(ctx, mostTests)
	if err != nil {
		return listedTest{}, err
	}
	found, err := chooseTest(seen, name)
	if err != nil {
		return listedTest{}, err
	}
	test, answered := c.listedTest(ctx, found)
	if !answered {
		return test, unreachable("no worker answers for test %s; is fairway-worker running?", found.id)
	}
	return test, nil
}

// withTest connects, and has something done with the test of a name; see findTest.
func (c *cli) withTest(ctx context.Context, name string, do func(*connection, listedTest) error) error {
	conn, err := c.connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	test, err := conn.findTest(ctx, name)
	if err != nil {
		return err
	}
	return do(conn, test)
}

// chooseTest finds the test that is meant, in a list whose newest come first.
func chooseTest(seen []seenTest, name string) (seenTest, error) {
	name = strings.TrimPrefix(strings.TrimPrefix(name, workflows.TestID("")), "#")
	var matching []seenTest
	for _, each := range seen {
		if number, _, found := strings.Cut(each.id, "/"); each.id == name || found && number == name {
			return each, nil
		}
		if name != "" && strings.HasPrefix(each.id, name) {
			matching = append(matching, each)
		}
	}
	switch len(matching) {
	case 0:
		return seenTest{}, usage(fmt.Errorf("no test %.100q is known; `fairway e2e list` names those that are", name))
	case 1:
		return matching[0], nil
	}
	return seenTest{}, usage(fmt.Errorf("several tests begin with %s: %s and %s", name, matching[0].id, matching[1].id))
}

// completeTest offers the ids of tests.
func (c *cli) completeTest(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	conn, err := c.connect(cmd.Context())
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	defer conn.Close()
	seen, err := conn.seenTests(cmd.Context(), 50)
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	var out []string
	for _, each := range seen {
		out = append(out, shortTest(each.id)+"\t"+strings.ToLower(each.status.String()))
	}
	return out, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveKeepOrder
}
