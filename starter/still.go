package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/workflow/v1"

	"github.com/fairway-project/fairway/workflows"
)

// heldWork is a block and the workflows that it holds.
type heldWork struct {
	workflows.Block
	Held []string `json:"held,omitempty"`
}

// looking are the activities that change nothing, or only what Fairway itself keeps.
var looking = []string{
	"LookAtHealth", "ListNodes", "ExamineNode", "FindNode", "SurveyPool", "Preflight", "AwaitNode", "ExaminePool", "AwaitInstances",
	"AwaitTurn", "EndTurn", "AwaitEnd", "Notify", "ListClusters", "FindPool", "PrepareUpdate", "AwaitWindow", "AwaitUnblocked", "PlanStack", "ListStacks", "AwaitAPIServer",
	"PlanManifests", "AwaitWorkloads", "CheckHealth", "WriteStatus", "TellClusters", "SyncFleet",
	"ChoosePromotion", "ReportPromotion", "ListLacking", "RecordPromotion",
	"LookAtPullRequests", "ResolveTest", "ReportTest", "EnterTestQueue", "LeaveTestQueue", "EstimateCost", "ListSuites", "StoreReport", "AwaitLoad", "HoldLoad", "WitnessUpgrade", "FindOrphans",
}

// changes says what a pending activity may still change, in words; nothing if a block holds it or it
// only looks. What is not known to only look may change something.
func changes(pending *workflow.PendingActivityInfo) string {
	name := pending.ActivityType.GetName()
	if slices.Contains(looking, name) {
		return ""
	}
	if drained, ok := drainOf(pending); ok && drained.Blocked != "" {
		return ""
	}
	running := pending.State == enumspb.PENDING_ACTIVITY_STATE_STARTED || pending.State == enumspb.PENDING_ACTIVITY_STATE_CANCEL_REQUESTED
	if failure := pending.LastFailure; !running && failure.GetApplicationFailureInfo().GetType() == workflows.Blocked {
		return ""
	}
	return strings.Join(append([]string{name}, describePending(pending)...), ": ")
}

// underWay is what a cluster's workflows do at the moment.
type underWay struct {
	workflows []string // all that run
	changing  []string // what some of them still change
}

// underWay asks about the work of a cluster, or about that of one pool.
func (c *connection) underWay(ctx context.Context, cluster, pool string) (now underWay, err error) {
	query := fmt.Sprintf("WorkflowType IN ('UpdateCluster', 'RollPool', 'ReplaceNode') AND Cluster = '%s'", quoted(cluster))
	if pool != "" {
		query = fmt.Sprintf("WorkflowType IN ('RollPool', 'ReplaceNode') AND Cluster = '%s' AND Pool = '%s'", quoted(cluster), quoted(pool))
	}
	if err := c.running(ctx, query, func(each *workflow.WorkflowExecutionInfo) {
		now.workflows = append(now.workflows, each.Execution.WorkflowId)
	}); err != nil {
		return now, err
	}
	slices.Sort(now.workflows)
	for _, id := range now.workflows {
		description, err := c.DescribeWorkflowExecution(ctx, id, "")
		if err != nil {
			return now, fmt.Errorf("asking what workflow %s does: %w", id, err)
		}
		for _, pending := range description.PendingActivities {
			if text := changes(pending); text != "" {
				now.changing = append(now.changing, id+": "+text)
			}
		}
	}
	return now, nil
}

func quoted(value string) string { return strings.ReplaceAll(value, "'", "''") }

// silence is for how long Temporal may not answer somebody who waits.
const silence = time.Minute

// awaitStill waits until nothing of a blocked cluster, or of a pool, changes any more: twice in a row,
// with more time between than a step takes to find the block. It returns the workflows that are held. A
// block that expires before has held in vain. Where Temporal is silent for a while, the block holds all
// the same.
func (c *connection) awaitStill(cmd *cobra.Command, cluster string, block workflows.Block) ([]string, error) {
	ctx := cmd.Context()
	var report report
	defer func() {
		if report != nil {
			report.end()
		}
	}()
	most, still, started, heard := 0, time.Time{}, time.Now(), time.Now()
	for look := time.Tick(time.Second); ; {
		now, err := c.underWay(ctx, cluster, block.Pool)
		switch {
		case ctx.Err() != nil: // interrupted
		case err != nil && time.Since(heard) > silence:
			return nil, unreachable("the block holds, but Temporal does not say whether all has stopped: %w", err)
		case err != nil:
			still = time.Time{}
		case !block.Until.IsZero() && time.Now().After(block.Until):
			return nil, fmt.Errorf("the block expired at %s, before everything had stopped (%s still under way): block it for longer",
				block.Until.Local().Format(time.DateTime), countVerb(len(now.changing), "step", "is", "are"))
		case len(now.changing) > 0:
			still = time.Time{}
		case len(now.workflows) == 0 || (!still.IsZero() && time.Since(still) > workflows.BlockCheck):
			return now.workflows, nil
		case still.IsZero():
			still = time.Now()
		}
		if err == nil {
			heard = time.Now()
		}
		most = max(most, len(now.changing))
		if report == nil && time.Since(started) > time.Second {
			report = newReport(cmd.ErrOrStderr(), max(1, most))
		}
		if report != nil {
			label := counted(len(now.changing), "step") + " under way"
			switch {
			case err != nil:
				label = "Temporal does not answer"
			case len(now.changing) == 0:
				label = "nothing changes; looking once more"
			}
			report.show(rollView{Counts: counts{Total: max(1, most), Done: max(0, most-len(now.changing))}, Label: label,
				Step: "waiting until what is under way has stopped; the block holds already", Waits: now.changing})
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-look:
		}
	}
}
