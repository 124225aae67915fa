package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
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
			if err := result.failure(); err != nil {
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

// failure says that nobody knows whether there are promotions.
func (l promotionList) failure() error {
	if len(l.Promotions) == 0 && len(l.Silent) > 0 {
		return unreachable("no promotion is known, and no worker answered for %s", strings.Join(l.Silent, ", "))
	}
	return nil
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
