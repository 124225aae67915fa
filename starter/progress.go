package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.temporal.io/api/workflow/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"

	"github.com/fairway-project/fairway/workflows"
)

// follow shows the progress of a roll until its end, and gives its result as its own.
func (c *cli) follow(cmd *cobra.Command, conn *connection, run client.WorkflowRun) error {
	ctx := cmd.Context()
	report := &progressReport{out: os.Stderr, started: time.Now()}
	ended := make(chan error, 1)
	var result workflows.RollProgress
	go func() { ended <- run.Get(ctx, &result) }()
	look := time.NewTicker(500 * time.Millisecond)
	defer look.Stop()
	for {
		select {
		case err := <-ended:
			switch {
			case ctx.Err() != nil:
				fmt.Fprintf(os.Stderr, "No longer watching; workflow %s goes on. `fairway status` shows how far it is.\n", run.GetID())
				return ctx.Err()
			case temporal.IsCanceledError(err):
				return errors.New("the replacement was cancelled; what it had begun is undone")
			case err != nil:
				return conn.explain(err)
			}
			return c.print(cmd.OutOrStdout(), result, func(t *table) {
				for _, node := range result.Nodes {
					t.line("Node %s is replaced by %s; %d pods were evicted.", node.Node, node.Replacement, node.Evicted)
				}
			})
		case <-look.C:
			report.show(conn.progress(ctx, run.GetID()))
		}
	}
}

// progress says what a roll does now, and what it waits for. It may fail for a moment, such as
// while a worker restarts; then it says so, and the next look tells more.
func (c *connection) progress(ctx context.Context, id string) (step string, waits []string) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	answer, err := c.QueryWorkflow(ctx, id, "", workflows.ProgressQuery)
	var progress workflows.RollProgress
	if err != nil || answer.Get(&progress) != nil {
		return "waiting for a worker to answer", nil
	}
	return progress.Phase + ": " + strings.ReplaceAll(progress.Step, "`", ""), c.waitsFor(ctx, id)
}

// waitsFor says what the pending activities of a workflow and of its children wait for: what they
// last heartbeated or why they last failed. It costs no history.
func (c *connection) waitsFor(ctx context.Context, id string) []string {
	description, err := c.DescribeWorkflowExecution(ctx, id, "")
	if err != nil {
		return nil
	}
	var out []string
	for _, pending := range description.PendingActivities {
		if text := describePending(pending); text != "" {
			out = append(out, text)
		}
	}
	for _, child := range description.PendingChildren {
		out = append(out, c.waitsFor(ctx, child.WorkflowId)...)
	}
	return out
}

func describePending(pending *workflow.PendingActivityInfo) string {
	if failure := pending.LastFailure; failure != nil && pending.Attempt > 1 {
		return fmt.Sprintf("attempt %d, because %s", pending.Attempt, failure.Message)
	}
	decode := converter.GetDefaultDataConverter()
	var drained workflows.DrainProgress
	if pending.ActivityType.Name == "DrainNode" && decode.FromPayloads(pending.HeartbeatDetails, &drained) == nil {
		return describeDrain(drained)
	}
	var text string
	if decode.FromPayloads(pending.HeartbeatDetails, &text) == nil {
		return text
	}
	return ""
}

func describeDrain(d workflows.DrainProgress) string {
	if d.Total == 0 {
		return ""
	}
	parts := []string{fmt.Sprintf("%d of %d pods left", d.Left, d.Total)}
	if d.Blocked != "" {
		parts = append(parts, d.Blocked)
	}
	for _, held := range d.Waiting[:min(len(d.Waiting), 3)] {
		by := ""
		if held.Budget != "" {
			by = " by budget " + held.Budget
		}
		text := fmt.Sprintf("%s held%s: %s", held.Pod, by, held.Reason)
		if !held.ForceAt.IsZero() {
			text += fmt.Sprintf(" (may be forced from %s on)", held.ForceAt.Local().Format(time.DateTime))
		}
		parts = append(parts, text)
	}
	if more := len(d.Waiting) - 3; more > 0 {
		parts = append(parts, fmt.Sprintf("%d more held", more))
	}
	for _, stuck := range d.Stuck {
		parts = append(parts, stuck+" does not end although its grace period is over")
	}
	if d.Trouble != "" {
		parts = append(parts, d.Trouble)
	}
	return strings.Join(parts, "; ")
}

// progressReport prints each step, and below it what it waits for, when that changes.
type progressReport struct {
	out         io.Writer
	started     time.Time
	step, waits string
}

func (r *progressReport) show(step string, waits []string) {
	if step != r.step {
		r.step, r.waits = step, ""
		fmt.Fprintf(r.out, "%6s  %s\n", time.Since(r.started).Round(time.Second), step)
	}
	if text := strings.Join(waits, "; "); text != "" && text != r.waits {
		r.waits = text
		fmt.Fprintf(r.out, "%6s    %s\n", time.Since(r.started).Round(time.Second), text)
	}
}
