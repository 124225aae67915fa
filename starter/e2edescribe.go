package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/fairway-project/fairway/e2e"
)

func (c *cli) e2eDescribeCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "describe ID",
		Short: "Show a test: where it stands, what its suites found, what the upgrade did, and what it cost",
		Long: `Show a test: where it stands, what its suites found, what the upgrade did, and what it cost. ID is that
of "fairway e2e list", the beginning of one, or the number of a pull request, which means its newest test.`,
		Example:           "  fairway e2e describe 12\n  fairway e2e describe 12/3f2a9c41\n  fairway e2e describe 12 -o json",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: c.completeTest,
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.withTest(cmd.Context(), args[0], func(conn *connection, test listedTest) error {
				var waits []string
				if !test.Over {
					waits = conn.waitsFor(cmd.Context(), test.Workflow)
				}
				return c.print(cmd.OutOrStdout(), test, func(t *table) { showTest(t, test, waits) })
			})
		},
	}
}

// showTest shows all that is known of a test. What forges, clusters and suites say is cut.
func showTest(t *table, test listedTest, waits []string) {
	r, request := test.Report, test.Request
	phase := test.phase()
	if r.Place > 0 {
		phase += fmt.Sprintf(", place %d", r.Place)
	}
	for _, each := range []struct{ name, value string }{
		{"Test:", cut(request.ID, 120)}, {"Pull request:", strings.TrimSpace(numberText(request.Number) + " " + cut(request.Title, 80))}, {"", cut(request.URL, 200)},
		{"Author:", cut(request.Author, 60)}, {"Asked by:", cut(request.By, 60)}, {"Upgrade:", upgradeText(request)},
		{"Phase:", phase}, {"Verdict:", string(r.Verdict)}, {"Problem:", cut(r.Problem, 500)}, {"Left:", cut(r.Left, 500)},
		{"Cluster:", cut(request.Cluster, 100)}, {"Account:", strings.TrimSpace(r.Account.Account + " " + r.Account.Region)}, {"Results:", cut(r.Results, 300)},
	} {
		if each.value != "" {
			t.row(each.name, each.value)
		}
	}
	if !r.Kept.IsZero() {
		t.row("Kept until:", r.Kept.Local().Format(time.DateTime))
	}
	if r.Cost.Hours > 0 {
		text := fmt.Sprintf("about %.2f %s for %.1f hours of instances", r.Cost.Amount, cut(r.Cost.Currency, 10), r.Cost.Hours)
		if len(r.Cost.Unpriced) > 0 {
			text += ", without " + cut(strings.Join(r.Cost.Unpriced, ", "), 100)
		}
		t.row("Cost:", text)
	}
	for i, wait := range waits {
		t.row(map[bool]string{true: "Waits for:"}[i == 0], cut(attempts.ReplaceAllString(wait, ""), 200))
	}
	t.flush()
	if len(r.Phases) > 0 {
		t.line("")
		t.row("PHASE", "BEGAN", "TOOK")
		for _, phase := range r.Phases {
			took := short(time.Since(phase.Began)) + " so far"
			switch {
			case !phase.Ended.IsZero():
				took = short(phase.Ended.Sub(phase.Began))
			case test.Over:
				took = short(test.Since.Sub(phase.Began)) + ", then it was " + test.Status
			}
			t.row(cut(phase.Phase, 40), phase.Began.Local().Format(time.DateTime), took)
		}
		t.flush()
	}
	showUpgrade(t, r)
	showSuites(t, r.Suites)
}

func upgradeText(r e2e.Request) string {
	if r.Head == "" {
		return ""
	}
	return fmt.Sprintf("%s to %s, for channel %s", shortCommit(r.Base), shortCommit(r.Head), cut(r.Channel, 60))
}

// showUpgrade shows what the upgrade did to workloads and load.
func showUpgrade(t *table, r e2e.Report) {
	u, l := r.Upgrade, r.Load
	if u.Nodes+u.Evictions+len(u.Forced)+len(u.Violations) > 0 {
		t.line("\nThe upgrade replaced %s: %s, %d forced, %s broken.", counted(u.Nodes, "node"), counted(u.Evictions, "eviction"), len(u.Forced), counted(len(u.Violations), "budget"))
		for _, pod := range u.Forced[:min(len(u.Forced), listedLandings)] {
			t.line("  Pod %s was forced.", cut(pod, 120))
		}
		for _, v := range u.Violations[:min(len(u.Violations), listedLandings)] {
			t.line("  Budget %s had %d of %d healthy pods at %s.", cut(v.Budget, 120), v.Healthy, v.Desired, v.From.Local().Format(time.TimeOnly))
		}
	}
	if all := l.Good + l.Bad; all > 0 || l.Problem != "" {
		t.line("\nThe load had %d bad answers of %d.", l.Bad, all)
		for _, text := range slices.Concat([]string{l.Problem}, l.Errors[:min(len(l.Errors), 5)]) {
			if text != "" {
				t.line("  %s", cut(text, 200))
			}
		}
	}
}

// showSuites shows what suites found, the cases that failed below.
func showSuites(t *table, suites []e2e.SuiteResult) {
	if len(suites) == 0 {
		return
	}
	t.line("")
	t.row("SUITE", "RESULT", "CASES", "FAILED", "FLAKY", "TOOK", "PROBLEM")
	for _, s := range suites {
		result := map[bool]string{true: "passed", false: "failed"}[s.Passed]
		if s.Optional {
			result += " (optional)"
		}
		t.row(cut(s.Name, 63), result, s.Ran, s.Failed, len(s.Flaky), short(s.Took), cut(s.Problem, 160))
	}
	t.flush()
	for _, s := range suites {
		for _, failure := range s.Failures[:min(len(s.Failures), listedLandings)] {
			t.line("  %s: %s: %s", cut(s.Name, 63), cut(failure.Case, 160), cut(failure.Message, 200))
		}
		if more := s.Failed - listedLandings; more > 0 && len(s.Failures) > 0 {
			t.line("  %s: %d more; `fairway e2e logs` has all of them", cut(s.Name, 63), more)
		}
	}
}
