package main

import (
	"cmp"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"go.temporal.io/api/serviceerror"

	"github.com/fairway-project/fairway/promotion"
	"github.com/fairway-project/fairway/workflows"
)

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
