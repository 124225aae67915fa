package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/fairway-project/fairway/promotion"
	"github.com/fairway-project/fairway/workflows"
)

// describedPromotion is a promotion and what it carries.
type describedPromotion struct {
	listedPromotion
	Report     *promotion.Report `json:"report,omitempty"`
	Unreported string            `json:"unreported,omitempty"` // why there is no report
}

func (c *cli) promotionDescribeCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "describe FROM TO | ID",
		Short: "Show a promotion: where it stands, its gates and approvals, and what it carries",
		Long: `Show a promotion: where it stands and what it waits for, its gates and approvals, and what it
carries and touches. FROM TO means the one under way, or else the last one; ID is that of
"fairway promotion list", or the beginning of one.`,
		Example:           "  fairway promotion describe alpha stable\n  fairway promotion describe dev-to-alpha/3f2a9c41",
		Args:              cobra.RangeArgs(1, 2),
		ValidArgsFunction: c.completePromotion,
		RunE: func(cmd *cobra.Command, args []string) error {
			conn, err := c.connect(cmd.Context())
			if err != nil {
				return err
			}
			defer conn.Close()
			found, err := conn.promotions(cmd.Context(), "")
			if err != nil {
				return err
			}
			described := describedPromotion{}
			if described.listedPromotion, err = findPromotion(found, args); err != nil {
				return err
			}
			if described.Candidate != "" && described.Outcome != promotion.Merged { // what has arrived lacks nothing any more
				described.Report, described.Unreported = conn.reportOf(cmd, described.Record)
			}
			return c.print(cmd.OutOrStdout(), described, described.show)
		},
	}
}

func (d describedPromotion) show(t *table) {
	showRecord(t, d.Record)
	if d.Phase != "" {
		t.row("Phase:", d.Phase)
	}
	if d.Step != "" {
		t.row("Step:", cut(d.Step, 200))
	}
	for i, wait := range d.WaitsFor {
		t.row(map[bool]string{true: "Waits for:"}[i == 0], cut(attempts.ReplaceAllString(wait, ""), 200))
	}
	t.flush()
	showGates(t, d.Gates)
	if d.Unreported != "" {
		t.line("\nWhat it carries is not known: %s", d.Unreported)
	}
	if d.Report != nil {
		showReport(t, *d.Report)
	}
}

// findPromotion finds the newest promotion of an edge, or the one whose id begins so.
func findPromotion(list promotionList, args []string) (listedPromotion, error) {
	var matching []listedPromotion
	for _, each := range list.Promotions {
		name := promotion.Name(each.From, each.To)
		if len(args) == 2 && (name == promotion.Name(args[0], args[1]) || each.Workflow == workflows.PromotionID(args[0], args[1])) {
			return each, nil
		}
		if len(args) == 1 && (each.ID == args[0] || strings.HasPrefix(each.ID, args[0]) && strings.Contains(args[0], "/")) {
			matching = append(matching, each)
		}
	}
	what := args[0]
	if len(args) == 2 {
		what = fmt.Sprintf("from %s to %s", args[0], args[1])
	}
	missing := ""
	if len(list.Silent) > 0 {
		missing = fmt.Sprintf("; no worker answered for %s", strings.Join(list.Silent, ", "))
	}
	mayKnow := len(list.Promotions) == 0 || len(args) == 2 && slices.Contains(list.Silent, workflows.ChannelID(args[1]))
	switch {
	case len(matching) == 0 && missing != "" && mayKnow:
		return listedPromotion{}, unreachable("no promotion %s is known%s", what, missing)
	case len(matching) == 0:
		return listedPromotion{}, usage(fmt.Errorf("no promotion %s is known%s; `fairway promotion list` names those that are", what, missing))
	case len(matching) > 1 && matching[0].ID != matching[len(matching)-1].ID:
		return listedPromotion{}, usage(fmt.Errorf("several promotions begin with %s: %s and %s", args[0], matching[0].ID, matching[1].ID))
	}
	return matching[0], nil
}

// showRecord shows what is known of a promotion itself.
func showRecord(t *table, r promotion.Record) {
	t.row("Promotion:", r.ID)
	if r.From != "" {
		t.row("Edge:", fmt.Sprintf("%s to %s, %s", r.From, r.To, modeText(r.Mode)))
	}
	t.row("Candidate:", strings.TrimSpace(shortCommit(r.Candidate)+" "+cut(r.Title, 80)))
	if r.Outcome != "" {
		t.row("Outcome:", r.Outcome)
	}
	for _, each := range []struct{ name, value string }{
		{"Detail:", cut(r.Detail, 500)}, {"Merge:", shortCommit(r.Merge)}, {"Merged by:", r.MergedBy}, {"Pull request:", strings.TrimSpace(numberText(r.PullRequest) + " " + r.URL)},
		{"Approved by:", strings.Join(r.Approvals, ", ")}, {"Asked by:", strings.Trim(r.By+": "+cut(r.Reason, 200), ": ")}, {"Class:", string(r.Class)},
	} {
		if each.value != "" {
			t.row(each.name, each.value)
		}
	}
	if r.Soaked > 0 {
		t.row("Soaked:", short(r.Soaked))
	}
	t.row("Began:", sinceText(r.Began))
	if !r.Ended.IsZero() {
		t.row("Ended:", fmt.Sprintf("%s (after %s)", r.Ended.Local().Format(time.DateTime), short(r.Ended.Sub(r.Began))))
	}
}

func numberText(number int) string {
	if number == 0 {
		return ""
	}
	return fmt.Sprintf("#%d", number)
}

// completePromotion offers the ends of edges and the ids of promotions.
func (c *cli) completePromotion(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
	out, directive := c.completeEdge(cmd, args, prefix)
	if len(args) > 0 || directive == cobra.ShellCompDirectiveError {
		return out, directive
	}
	conn, err := c.connect(cmd.Context())
	if err != nil {
		return out, directive
	}
	defer conn.Close()
	found, err := conn.promotions(cmd.Context(), "")
	if err != nil {
		return out, directive
	}
	for _, each := range found.Promotions {
		if each.Candidate != "" {
			out = append(out, each.ID+"\t"+cut(each.Title, 60))
		}
	}
	return out, directive
}
