package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"

	"github.com/fairway-project/fairway/workflows"
)

// pace is how long nodes took.
type pace struct {
	// Node is the median time from the launch of a replacement until the old node was gone, and
	// Between that between two batches. Nodes counts what they are the median of.
	Node, Between time.Duration
	Nodes         int
	// Partial means that the time in which replacements were launched is missing.
	Partial bool
}

// estimate is an expected duration, and where it comes from.
type estimate struct {
	Expected time.Duration // 0 if nothing is known
	Basis    string
}

func (e estimate) String() string {
	if e.Expected == 0 {
		return "no estimate: " + e.Basis
	}
	return fmt.Sprintf("about %s (%s)", short(e.Expected), e.Basis)
}

// MarshalJSON writes the time in whole seconds.
func (e estimate) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		Expected int64  `json:"expected_seconds,omitempty"`
		Basis    string `json:"basis"`
	}{int64(e.Expected.Round(time.Second).Seconds()), e.Basis})
}

// estimate is the expected duration of some batches. The nodes of a batch go at the same time.
func (p pace) estimate(batches int, validate time.Duration) estimate {
	if p.Nodes == 0 {
		return estimate{Basis: "no node of this pool has been replaced yet"}
	}
	e := estimate{Expected: time.Duration(batches)*p.Node + time.Duration(max(0, batches-1))*p.Between + validate}
	e.Basis = fmt.Sprintf("%d × %s, the median of the last %d nodes of this pool", batches, short(p.Node), p.Nodes)
	if batches > 1 && p.Between >= time.Second {
		e.Basis += fmt.Sprintf("; %s between batches", short(p.Between))
	}
	if validate > 0 {
		e.Basis += fmt.Sprintf("; %s of validation", short(validate))
	}
	if p.Partial {
		e.Basis += "; without the time until new nodes are usable, of which nothing is known"
	}
	return e
}

// paceOf measures rolls. What was between the first two batches is left out: the first
// replacement is validated there.
func paceOf(rolls ...workflows.RollProgress) pace {
	var nodes, between []time.Duration
	for _, each := range rolls {
		type span struct{ began, ended time.Time }
		var batches []span // nodes of a batch begin at the same moment
		for _, node := range each.Nodes {
			if node.State != workflows.Replaced || node.Began.IsZero() || node.Ended.IsZero() {
				continue
			}
			nodes = append(nodes, node.Ended.Sub(node.Began))
			at := slices.IndexFunc(batches, func(s span) bool { return s.began.Equal(node.Began) })
			switch {
			case at < 0:
				batches = append(batches, span{node.Began, node.Ended})
			case node.Ended.After(batches[at].ended):
				batches[at].ended = node.Ended
			}
		}
		slices.SortFunc(batches, func(a, b span) int { return a.began.Compare(b.began) })
		for i := 2; i < len(batches); i++ {
			// A node of the batch before that was in quarantine ends long after others have begun.
			if gap := batches[i].began.Sub(batches[i-1].ended); gap > 0 {
				between = append(between, gap)
			}
		}
	}
	return pace{Node: median(nodes), Between: median(between), Nodes: len(nodes)}
}

// median of some times; 0 of none. Of an even number it is the lower one of the two in the middle.
func median(times []time.Duration) time.Duration {
	if len(times) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(times))
	return sorted[(len(sorted)-1)/2]
}

// How much of the past an estimate looks at.
const (
	pastRolls = 5
	pastNodes = 20
)

// pastPace measures the last completed rolls of a pool, or else the last nodes that were replaced
// in rolls that did not complete.
func (c *connection) pastPace(ctx context.Context, cluster, pool string) (pace, error) {
	ofPool := fmt.Sprintf("Cluster = '%s' AND Pool = '%s'", cluster, pool)
	past, err := c.completed(ctx, "WorkflowType = 'RollPool' AND "+ofPool, pastRolls)
	if err != nil {
		return pace{}, err
	}
	var rolls []workflows.RollProgress
	for _, each := range past {
		var result workflows.RollProgress
		if err := c.GetWorkflow(ctx, each.Execution.WorkflowId, each.Execution.RunId).Get(ctx, &result); err != nil {
			return pace{}, fmt.Errorf("reading how long the last roll of pool %s took: %w", pool, err)
		}
		rolls = append(rolls, result)
		if p := paceOf(rolls...); p.Nodes >= pastNodes {
			return p, nil
		}
	}
	if p := paceOf(rolls...); p.Nodes > 0 {
		return p, nil
	}
	// Drains that were given up complete too, in another phase.
	nodes, err := c.completed(ctx, "WorkflowType = 'ReplaceNode' AND Phase = 'done' AND "+ofPool, pastNodes)
	if err != nil {
		return pace{}, err
	}
	var times []time.Duration
	for _, each := range nodes {
		times = append(times, each.CloseTime.AsTime().Sub(each.StartTime.AsTime()))
	}
	return pace{Node: median(times), Nodes: len(times), Partial: true}, nil
}

// completed lists the workflows that match a query and ended well, the newest first.
func (c *connection) completed(ctx context.Context, query string, atMost int) ([]*workflow.WorkflowExecutionInfo, error) {
	answer, err := c.ListWorkflow(ctx, &workflowservice.ListWorkflowExecutionsRequest{
		Query: query + " AND ExecutionStatus = 'Completed'", PageSize: int32(atMost),
	})
	if err != nil {
		return nil, fmt.Errorf("looking for what was done before: %w", err)
	}
	found := slices.DeleteFunc(answer.Executions, func(e *workflow.WorkflowExecutionInfo) bool {
		return e.Status != enumspb.WORKFLOW_EXECUTION_STATUS_COMPLETED
	})
	slices.SortFunc(found, func(a, b *workflow.WorkflowExecutionInfo) int {
		return cmp.Compare(b.CloseTime.AsTime().UnixNano(), a.CloseTime.AsTime().UnixNano())
	})
	return found, nil
}

// remaining is the time that a roll still needs if it goes on as it went so far, or as earlier
// ones where it has replaced nothing yet. Nodes in quarantine are not counted: nobody knows when
// they let go. It is not known without any pace, nor when nodes take half as long again as that:
// then something holds them up.
func remaining(plan rollPlan, past pace, progress workflows.RollProgress, now time.Time) (left time.Duration, known bool) {
	measured := paceOf(progress)
	if measured.Nodes == 0 {
		measured = past
	}
	if measured.Nodes == 0 {
		return 0, false
	}
	if measured.Between == 0 {
		measured.Between = past.Between
	}
	state := map[string]workflows.NodeProgress{}
	for _, node := range progress.Nodes {
		state[node.Node] = node
	}
	for _, batch := range plan.Batches {
		waits, works := false, time.Duration(0)
		for _, name := range batch {
			switch node := state[name]; node.State {
			case workflows.Waiting:
				waits = true
			case workflows.Surging, workflows.Replacing:
				lasts := now.Sub(node.Began)
				if lasts > measured.Node+measured.Node/2 {
					return 0, false
				}
				works = max(works, measured.Node-lasts)
			}
		}
		if waits {
			left += measured.Node + measured.Between
		} else {
			left += works
		}
	}
	if progress.Batch == 0 && len(progress.Nodes) > 1 {
		left += plan.validates()
	}
	return left, true
}

// short writes a time as people do: seconds only where they matter.
func short(d time.Duration) string {
	switch d = d.Round(time.Second); {
	case d < time.Minute:
		return d.String()
	case d < time.Hour:
		minutes, seconds := int(d.Minutes()), int(d.Seconds())%60
		if minutes >= 10 || seconds == 0 {
			return fmt.Sprintf("%dm", int(d.Round(time.Minute).Minutes()))
		}
		return fmt.Sprintf("%dm%ds", minutes, seconds)
	}
	d = d.Round(time.Minute)
	hours, minutes := int(d.Hours()), int(d.Minutes())%60
	if minutes == 0 {
		return fmt.Sprintf("%dh", hours)
	}
	return fmt.Sprintf("%dh%dm", hours, minutes)
}
