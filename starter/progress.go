package main

import (
	"cmp"
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
	"golang.org/x/term"

	"github.com/fairway-project/fairway/workflows"
)

// follow shows the progress of a roll until its end, and gives its result as its own.
func (c *cli) follow(cmd *cobra.Command, conn *connection, run client.WorkflowRun, plan rollPlan) error {
	ctx := cmd.Context()
	// An estimate is nice to have; without a past there is none until the first node is replaced.
	past, _ := conn.pastPace(ctx, plan.Cluster, plan.Name)
	var result workflows.RollProgress
	_, err := watch(ctx, newReport(cmd.ErrOrStderr(), len(plan.Nodes)), run, &result, func() (rollView, bool) {
		progress, answered := conn.rollProgress(ctx, run.GetID())
		view := rollView{Step: unanswered}
		if answered {
			view = viewOf(plan, past, progress, time.Now())
			view.Waits = conn.waitsFor(ctx, run.GetID())
		}
		return view, false
	})
	if ctx.Err() != nil {
		fmt.Fprintf(os.Stderr, "No longer watching; workflow %s goes on. `fairway status` shows how far it is.\n", run.GetID())
		return ctx.Err()
	}
	told := err == nil
	if err != nil { // what it has done until then is worth knowing, too
		result, told = conn.rollProgress(ctx, run.GetID())
	}
	if told && (err == nil || len(plan.Nodes) > 1) {
		err = cmp.Or(err, c.print(cmd.OutOrStdout(), result, func(t *table) {
			for _, line := range describeResult(result, plan.Remove) {
				t.line("%s", line)
			}
		}))
	}
	if temporal.IsCanceledError(err) {
		return errors.New("the replacement was cancelled; what it had begun is undone")
	}
	return conn.explain(err)
}

// watch shows twice a second what look sees, until the workflow ends or look has seen enough. The error is
// that with which the workflow, or the watching, ended.
func watch(ctx context.Context, report report, run client.WorkflowRun, result any, look func() (view rollView, enough bool)) (ended bool, err error) {
	defer report.end()
	over := make(chan error, 1)
	go func() { over <- run.Get(ctx, result) }()
	again := time.NewTicker(500 * time.Millisecond)
	defer again.Stop()
	for {
		select {
		case err := <-over:
			return true, err
		case <-again.C:
			view, enough := look()
			report.show(view)
			if enough {
				return false, nil
			}
		}
	}
}

// describeResult says what became of each node, and what is not as before.
func describeResult(result workflows.RollProgress, remove bool) []string {
	var out []string
	for _, node := range result.Nodes {
		became := "replaced by " + cmp.Or(node.Replacement, "an instance that its group launched")
		switch {
		case node.State == workflows.Quarantine:
			became = "not emptied, because " + node.Reason
		case node.State != workflows.Replaced:
			became = "left as it was"
		case remove:
			became = "removed"
		}
		text := fmt.Sprintf("Node %s is %s; %s evicted", node.Node, became, counted(node.Evicted, "pod"))
		if len(node.Forced) > 0 {
			text += fmt.Sprintf(", %d forced", len(node.Forced))
		}
		out = append(out, text+".")
		for _, pod := range node.Forced {
			out = append(out, fmt.Sprintf("  Pod %s was forced, as %s allowed: %s", pod.Pod, pod.Authority, pod.Reason))
		}
	}
	if len(result.Nodes) == 0 {
		out = append(out, "No node had to be replaced.")
	}
	for _, taken := range result.Fallbacks {
		out = append(out, fmt.Sprintf("Fallback %s at %s: %s", taken.Kind, taken.At.Local().Format(time.TimeOnly), taken.Text))
	}
	if result.Left != "" {
		out = append(out, "Not as before: "+result.Left)
	}
	return out
}

// unanswered is the step of a roll that no worker tells of at the moment.
const unanswered = "waiting for a worker to answer"

// rollProgress asks a roll where it stands. It may fail for a moment, such as while a worker
// restarts; the next look tells more.
func (c *connection) rollProgress(ctx context.Context, id string) (progress workflows.RollProgress, answered bool) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	answer, err := c.QueryWorkflow(ctx, id, "", workflows.ProgressQuery)
	return progress, err == nil && answer.Get(&progress) == nil
}

// stepOf says what a roll does now.
func stepOf(progress workflows.RollProgress) string {
	return progress.Phase + ": " + strings.ReplaceAll(progress.Step, "`", "")
}

// counts are the nodes of a roll by what happens to them.
type counts struct {
	Total       int `json:"total"`
	Done        int `json:"done"`
	Launching   int `json:"launching"`
	Draining    int `json:"draining"`
	Waiting     int `json:"waiting"`
	Quarantined int `json:"quarantined"`
}

func countsOf(progress workflows.RollProgress) counts {
	c := counts{Total: len(progress.Nodes)}
	for _, node := range progress.Nodes {
		switch node.State {
		case workflows.Replaced:
			c.Done++
		case workflows.Surging:
			c.Launching++
		case workflows.Replacing:
			c.Draining++
		case workflows.Quarantine:
			c.Quarantined++
		case workflows.Waiting:
			c.Waiting++
		}
	}
	return c
}

func (c counts) String() string {
	if c.Total == 0 {
		return ""
	}
	parts := []string{fmt.Sprintf("%d of %d done", c.Done, c.Total)}
	for _, each := range []struct {
		count int
		what  string
	}{{c.Draining, "draining"}, {c.Launching, "launching"}, {c.Waiting, "waiting"}, {c.Quarantined, "in quarantine"}} {
		if each.count > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", each.count, each.what))
		}
	}
	return strings.Join(parts, ", ")
}

// rollView is what somebody who watches a roll sees.
type rollView struct {
	Counts counts
	// Label says how far it is where that is not a number of nodes.
	Label string
	Step  string
	// Left is the time that it still needs; empty if that is not known.
	Left string
	// Notes are what has happened: nodes in quarantine, fallbacks, bad replacements.
	Notes []string
	Waits []string
}

// summary is how far it is.
func (v rollView) summary() string { return cmp.Or(v.Label, v.Counts.String()) }

func viewOf(plan rollPlan, past pace, progress workflows.RollProgress, now time.Time) rollView {
	view := rollView{Counts: countsOf(progress), Step: stepOf(progress), Notes: notesOf(progress)}
	if left, known := remaining(plan, past, progress, now); known && view.Counts.Done < view.Counts.Total {
		view.Left = "about " + short(left) + " left"
		if left < 10*time.Second {
			view.Left = "any moment"
		}
		if view.Counts.Quarantined > 0 {
			view.Left += ", quarantine not counted"
		}
	}
	return view
}

// notesOf says what did not go by the plan.
func notesOf(progress workflows.RollProgress) []string {
	var out []string
	for _, node := range progress.Nodes {
		if node.State == workflows.Quarantine {
			out = append(out, fmt.Sprintf("%s is in quarantine: %s", node.Node, node.Reason))
		}
	}
	for _, taken := range progress.Fallbacks {
		out = append(out, fmt.Sprintf("fallback %s: %s", taken.Kind, taken.Text))
	}
	if progress.Bad > 0 {
		out = append(out, counted(progress.Bad, "new instance")+" did not become a usable node")
	}
	return out
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
		out = append(out, describePending(pending)...)
	}
	for _, child := range description.PendingChildren {
		waits := c.waitsFor(ctx, child.WorkflowId)
		if _, node := nodeOf(child.WorkflowId); len(waits) > 0 && node != "" {
			waits[0] = node + ": " + waits[0]
		}
		out = append(out, waits...)
	}
	return out
}

// nodeOf takes the id of a ReplaceNode apart.
func nodeOf(id string) (cluster, node string) {
	cluster, node, _ = strings.Cut(strings.TrimPrefix(id, workflows.ClusterID("")), "/node/")
	return cluster, node
}

func describePending(pending *workflow.PendingActivityInfo) []string {
	// What the attempt under way has told is more recent than why the one before it failed.
	told := pending.LastStartedTime != nil && pending.LastHeartbeatTime.AsTime().After(pending.LastStartedTime.AsTime())
	if failure := pending.LastFailure; failure != nil && pending.Attempt > 1 && !told {
		return []string{fmt.Sprintf("attempt %d, because %s", pending.Attempt, failure.Message)}
	}
	if pending.HeartbeatDetails == nil {
		return nil
	}
	if drained, ok := drainOf(pending); ok {
		return describeDrain(drained)
	}
	var stack workflows.StackProgress
	if name := pending.ActivityType.GetName(); name == "ApplyStack" || name == "DeleteStack" {
		if converter.GetDefaultDataConverter().FromPayloads(pending.HeartbeatDetails, &stack) == nil && stack.Status != "" {
			return []string{strings.TrimSuffix(stack.Status+": "+stack.Event, ": ")}
		}
	}
	var text string
	if converter.GetDefaultDataConverter().FromPayloads(pending.HeartbeatDetails, &text) == nil && text != "" {
		return []string{text}
	}
	return nil
}

// drainOf is what a pending drain last told.
func drainOf(pending *workflow.PendingActivityInfo) (drained workflows.DrainProgress, ok bool) {
	if pending.ActivityType.Name != "DrainNode" || pending.HeartbeatDetails == nil {
		return drained, false
	}
	return drained, converter.GetDefaultDataConverter().FromPayloads(pending.HeartbeatDetails, &drained) == nil
}

// describeDrain says how far a drain is, and below that what it waits for.
func describeDrain(d workflows.DrainProgress) []string {
	if d.Total == 0 && d.Trouble == "" {
		return nil
	}
	first := fmt.Sprintf("%d of %d pods left", d.Left, d.Total)
	if len(d.Forced) > 0 {
		first += fmt.Sprintf(", %d forced", len(d.Forced))
	}
	if d.Blocked != "" {
		first += ", " + d.Blocked
	}
	out := []string{first}
	for _, held := range d.Waiting[:min(len(d.Waiting), 3)] {
		by := ""
		if held.Budget != "" {
			by = " by budget " + held.Budget
		}
		text := fmt.Sprintf("%s held%s: %s", held.Pod, by, held.Reason)
		if held.Owner != "" {
			text = fmt.Sprintf("%s of %s held%s: %s", held.Pod, held.Owner, by, held.Reason)
		}
		if !held.ForceAt.IsZero() {
			text += fmt.Sprintf(" (may be forced from %s on)", held.ForceAt.Local().Format(time.DateTime))
		}
		out = append(out, "  "+text)
	}
	if more := len(d.Waiting) - 3; more > 0 {
		out = append(out, fmt.Sprintf("  %d more held; `fairway blockers` lists them", more))
	}
	for _, stuck := range d.Stuck {
		out = append(out, "  "+stuck+" does not end although its grace period is over")
	}
	if len(d.Detaching) > 0 {
		out = append(out, "  volumes are being detached: "+strings.Join(d.Detaching, ", "))
	}
	if d.Trouble != "" {
		out = append(out, "  "+d.Trouble)
	}
	return out
}

// report shows a roll to somebody who watches it.
type report interface {
	show(rollView)
	end()
}

// newReport draws a bar where that is seen, and else prints lines for a log.
func newReport(out io.Writer, nodes int) report {
	if file, ok := out.(*os.File); ok && term.IsTerminal(int(file.Fd())) {
		return newBar(file, nodes)
	}
	return &lineReport{out: out, started: time.Now()}
}

// lineReport prints each step, and below it what has happened and what it waits for, when that
// changes.
type lineReport struct {
	out          io.Writer
	started      time.Time
	step, waits  string
	label        string
	done, quaran int
	notes        int
}

func (r *lineReport) print(indent, text string) {
	fmt.Fprintf(r.out, "%6s  %s%s\n", time.Since(r.started).Round(time.Second), indent, text)
}

func (r *lineReport) show(view rollView) {
	if view.Step != r.step {
		r.step, r.waits = view.Step, ""
		r.print("", view.Step)
	}
	if c := view.Counts; (c.Total > 1 && (c.Done != r.done || c.Quarantined != r.quaran)) || (view.Label != "" && view.Label != r.label) {
		r.done, r.quaran, r.label = c.Done, c.Quarantined, view.Label
		text := view.summary()
		if view.Left != "" {
			text += "; " + view.Left
		}
		r.print("  ", text)
	}
	for _, note := range view.Notes[min(r.notes, len(view.Notes)):] {
		r.print("  ", note)
	}
	if view.Step != unanswered {
		r.notes = len(view.Notes)
	}
	trimmed := make([]string, len(view.Waits))
	for i, wait := range view.Waits {
		trimmed[i] = strings.TrimSpace(wait)
	}
	if text := strings.Join(trimmed, "; "); text != "" && text != r.waits {
		r.waits = text
		r.print("  ", text)
	}
}

func (*lineReport) end() {}

// patiently does what may take a while, and says what it waits for if it does.
func patiently(out io.Writer, what string, do func() error) error {
	ended := make(chan error, 1)
	go func() { ended <- do() }()
	select {
	case err := <-ended:
		return err
	case <-time.After(time.Second):
	}
	report := newReport(out, 1)
	report.show(rollView{Counts: counts{Total: 1}, Label: "waiting", Step: what})
	defer report.end()
	return <-ended
}
