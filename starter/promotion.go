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
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflow/v1"
	"golang.org/x/sync/errgroup"

	"github.com/fairway-project/fairway/promotion"
	"github.com/fairway-project/fairway/workflows"
)

func (c *cli) promotionCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "promotion", Short: "Look at promotions that are under way or over, and cancel them"}
	cmd.AddCommand(c.promotionListCommand(), c.promotionDescribeCommand(), c.promotionCancelCommand())
	return cmd
}

// listedPromotion is a promotion, under way or over.
type listedPromotion struct {
	promotion.Record
	// Phase, Step and WaitsFor are those of one that is under way.
	Phase    string   `json:"phase,omitempty"`
	Step     string   `json:"step,omitempty"`
	WaitsFor []string `json:"waits_for,omitempty"`
}

// text says in a line where it stands.
func (p listedPromotion) text() string {
	text := cmp.Or(p.Phase, string(p.Outcome))
	if p.Candidate != "" {
		text += " " + shortCommit(p.Candidate)
	}
	if p.URL != "" {
		text += " (" + p.URL + ")"
	}
	return text
}

func (c *cli) promotionListCommand() *cobra.Command {
	var channel string
	limit := 20
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List promotions, those that are under way first, then the newest",
		Long: `List promotions, those that are under way first, then the newest. The actors of channels know the
last 50 promotions into each.`,
		Example: "  fairway promotion list\n  fairway promotion list --channel stable --limit 5\n  fairway promotion list -o json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if limit < 1 {
				return usage(fmt.Errorf("--limit is %d; must be 1 at least", limit))
			}
			conn, err := c.connect(cmd.Context())
			if err != nil {
				return err
			}
			defer conn.Close()
			if channel != "" {
				if channel, err = conn.knownChannel(cmd.Context(), channel); err != nil {
					return err
				}
			}
			var result promotionList
			if err := patiently(cmd.ErrOrStderr(), "asks channels and promotions", func() (err error) {
				result, err = conn.promotions(cmd.Context(), channel)
				return err
			}); err != nil {
				return err
			}
			more := max(0, len(result.Promotions)-limit)
			result.Promotions = result.Promotions[:len(result.Promotions)-more]
			return c.print(cmd.OutOrStdout(), result, func(t *table) { result.show(t, more) })
		},
	}
	cmd.Flags().StringVar(&channel, "channel", "", "only promotions into this channel")
	cmd.Flags().IntVar(&limit, "limit", limit, "at most so many")
	_ = cmd.RegisterFlagCompletionFunc("channel", func(cmd *cobra.Command, _ []string, prefix string) ([]string, cobra.ShellCompDirective) {
		return c.completeChannel(cmd, nil, prefix)
	})
	return cmd
}

// promotionList is what is known of promotions.
type promotionList struct {
	Promotions []listedPromotion `json:"promotions"`
	// Silent are workflows that did not answer: what they know is missing here.
	Silent []string `json:"silent,omitempty"`
}

// promotions asks all actors of channels, and the promotions under way. What does not answer is named.
func (c *connection) promotions(ctx context.Context, channel string) (promotionList, error) {
	result := promotionList{Promotions: []listedPromotion{}}
	names, err := c.actorChannels(ctx)
	if err != nil {
		return result, err
	}
	running, err := c.runningPromotions(ctx)
	if err != nil {
		return result, err
	}
	var open []string
	for _, each := range running {
		if channel == "" || each.To == channel || each.To == "" {
			result.Promotions = append(result.Promotions, each)
			open = append(open, each.Run)
		}
		if each.Phase == "" {
			result.Silent = append(result.Silent, each.Workflow)
		}
	}
	states := make([]workflows.ChannelState, len(names))
	failures := make([]error, len(names))
	var group errgroup.Group
	group.SetLimit(asking)
	for i, name := range names {
		if channel == "" || name == channel {
			group.Go(func() error {
				_, failures[i] = c.query(ctx, workflows.ChannelID(name), "", workflows.StateQuery, &states[i])
				return ctx.Err()
			})
		}
	}
	if err := group.Wait(); err != nil {
		return result, err
	}
	var over []listedPromotion
	for i, state := range states {
		if failures[i] != nil {
			result.Silent = append(result.Silent, workflows.ChannelID(names[i]))
		}
		for _, record := range state.Promotions.Records {
			if record.Run == "" || !slices.Contains(open, record.Run) { // one that only has to end yet is there already
				over = append(over, listedPromotion{Record: record})
			}
		}
	}
	slices.SortStableFunc(over, func(a, b listedPromotion) int { return b.Ended.Compare(a.Ended) })
	result.Promotions = append(result.Promotions, over...)
	return result, nil
}

// actorChannels are the channels that have an actor, also those that no cluster follows.
func (c *connection) actorChannels(ctx context.Context) (names []string, err error) {
	err = c.running(ctx, "WorkflowType = 'Channel'", func(each *workflow.WorkflowExecutionInfo) {
		names = append(names, strings.TrimPrefix(each.Execution.WorkflowId, workflows.ChannelID("")))
	})
	slices.Sort(names)
	return names, err
}

// runningPromotions are those under way. One that does not answer has no phase.
func (c *connection) runningPromotions(ctx context.Context) ([]listedPromotion, error) {
	var ids []string
	if err := c.running(ctx, "WorkflowType = 'Promote'", func(each *workflow.WorkflowExecutionInfo) {
		ids = append(ids, each.Execution.WorkflowId)
	}); err != nil {
		return nil, err
	}
	slices.Sort(ids)
	out := make([]listedPromotion, len(ids))
	var group errgroup.Group
	group.SetLimit(asking)
	for i, id := range ids {
		group.Go(func() error {
			out[i] = c.listed(ctx, id)
			return ctx.Err()
		})
	}
	return out, group.Wait()
}

// listed asks a promotion under way where it stands and what it waits for.
func (c *connection) listed(ctx context.Context, id string) listedPromotion {
	progress, answered := c.promotionProgress(ctx, id)
	if !answered {
		return listedPromotion{Record: promotion.Record{ID: strings.TrimPrefix(id, "promotion/"), Workflow: id}, Step: unanswered}
	}
	return listedPromotion{Record: progress.Record, Phase: progress.Phase, Step: progress.Step, WaitsFor: c.waitsFor(ctx, id)}
}

// promotionUnderWay is the one along an edge that runs; nil if none does.
func (c *connection) promotionUnderWay(ctx context.Context, from, to string) (*listedPromotion, error) {
	id := workflows.PromotionID(from, to)
	if !c.isRunning(ctx, id) {
		return nil, ctx.Err()
	}
	each := c.listed(ctx, id)
	each.From, each.To = from, to
	each.Phase = cmp.Or(each.Phase, "a phase that no worker tells")
	return &each, nil
}

func (l promotionList) show(t *table, more int) {
	if len(l.Promotions) == 0 {
		t.line("Nothing has been promoted yet.")
	} else {
		t.row("PROMOTION", "STATE", "MODE", "CLASS", "COMMITS", "ENDED", "TOOK", "BY", "PULL REQUEST", "TITLE")
	}
	for _, p := range l.Promotions {
		took := ""
		if !p.Ended.IsZero() {
			took = short(p.Ended.Sub(p.Began))
		} else if !p.Began.IsZero() {
			took = short(time.Since(p.Began)) + " so far"
		}
		number := ""
		if p.PullRequest > 0 {
			number = fmt.Sprintf("#%d", p.PullRequest)
		}
		t.row(p.ID, cmp.Or(p.Phase, string(p.Outcome), unanswered), p.Mode, p.Class, p.Carried, age(p.Ended), took, p.By, number, cut(p.Title, 60))
		for _, wait := range p.WaitsFor { // below the title: a row of fewer cells would break the columns
			t.row("", "", "", "", "", "", "", "", "", "  "+cut(attempts.ReplaceAllString(wait, ""), 140))
		}
	}
	t.flush()
	if more > 0 {
		t.line("%d older ones are not listed; --limit shows more.", more)
	}
	if len(l.Silent) > 0 {
		t.line("No worker answered for %s: %s. What is known of them is missing here.", counted(len(l.Silent), "workflow"), strings.Join(l.Silent[:min(len(l.Silent), 5)], ", "))
	}
}

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
	missing := ""
	if len(list.Silent) > 0 {
		missing = fmt.Sprintf("; no worker answered for %s", strings.Join(list.Silent, ", "))
	}
	switch {
	case len(args) == 2:
		return listedPromotion{}, usage(fmt.Errorf("no promotion from %s to %s is known%s; `fairway promotion list` names those that are", args[0], args[1], missing))
	case len(matching) == 0:
		return listedPromotion{}, usage(fmt.Errorf("no promotion %s is known%s; `fairway promotion list` names those that are", args[0], missing))
	case len(matching) > 1 && matching[0].ID != matching[len(matching)-1].ID:
		return listedPromotion{}, usage(fmt.Errorf("several promotions begin with %s: %s and %s", args[0], matching[0].ID, matching[1].ID))
	}
	return matching[0], nil
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

func (c *cli) promotionCancelCommand() *cobra.Command {
	var request workflows.WithdrawRequest
	cmd := &cobra.Command{
		Use:   "cancel FROM TO",
		Short: "End a promotion that is under way, and close its pull request",
		Long: `End a promotion that is under way: its pull request is closed and its branch deleted. What is
merged already stays. The next look may promote the same candidate again; to keep it from that, close the
pull request by hand, pause the schedule of the edge, or block the channel.

Cancelling workflow promotion/<from>-to-<to> in the Temporal UI does the same, without a reason.`,
		Example:           `  fairway promotion cancel alpha stable --reason "a better one comes tomorrow"`,
		Args:              cobra.ExactArgs(2),
		ValidArgsFunction: c.completeEdge,
		RunE: func(cmd *cobra.Command, args []string) error {
			if strings.TrimSpace(request.Reason) == "" {
				return usage(errors.New("--reason is missing: others will ask for it"))
			}
			conn, err := c.connect(cmd.Context())
			if err != nil {
				return err
			}
			defer conn.Close()
			request.By = whoami()
			record, err := conn.withdraw(cmd, args[0], args[1], request)
			if err != nil {
				return err
			}
			if err := c.print(cmd.OutOrStdout(), record, func(t *table) { showRecord(t, record) }); err != nil {
				return err
			}
			if record.Outcome != promotion.Withdrawn {
				return fmt.Errorf("the promotion from %s to %s had ended before, as %s", args[0], args[1], cmp.Or(string(record.Outcome), "nobody knows what"))
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&request.Reason, "reason", "", "why, for everybody who will ask (required)")
	return cmd
}

// withdraw has a promotion end, and waits for that.
func (c *connection) withdraw(cmd *cobra.Command, from, to string, request workflows.WithdrawRequest) (record promotion.Record, err error) {
	ctx, id := cmd.Context(), workflows.PromotionID(from, to)
	err = c.SignalWorkflow(ctx, id, "", workflows.WithdrawName, request)
	if missing := (*serviceerror.NotFound)(nil); errors.As(err, &missing) {
		return record, usage(fmt.Errorf("no promotion from %s to %s is under way", from, to))
	}
	if err != nil {
		return record, fmt.Errorf("telling workflow %s to end: %w", id, err)
	}
	err = patiently(cmd.ErrOrStderr(), "waiting until the promotion has ended; it was told to", func() error {
		return c.GetWorkflow(ctx, id, "").Get(ctx, &record)
	})
	if ctx.Err() != nil {
		return record, ctx.Err()
	}
	return record, c.explain(err)
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
