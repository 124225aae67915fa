package main

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.temporal.io/sdk/client"
)

// listedSchedule is a schedule of Fairway's.
type listedSchedule struct {
	ID       string        `json:"id"`
	Workflow string        `json:"workflow"`
	Every    time.Duration `json:"every,omitempty"`
	Paused   bool          `json:"paused,omitempty"`
	Note     string        `json:"note,omitempty"`
	Last     time.Time     `json:"last,omitzero"`
	Next     time.Time     `json:"next,omitzero"`
}

func (c *cli) scheduleListCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the schedules of Fairway, with their last and next runs",
		Long: `List the schedules of Fairway, with their last and next runs: those of promotions and tests,
which "fairway schedule apply" makes, and those of the looks at channels and at the health of clusters, which
the worker makes.`,
		Example: "  fairway schedule list\n  fairway schedule list -o json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			conn, err := c.connect(cmd.Context())
			if err != nil {
				return err
			}
			defer conn.Close()
			listed, err := conn.fairwaySchedules(cmd.Context())
			if err != nil {
				return err
			}
			return c.print(cmd.OutOrStdout(), listed, func(t *table) { showSchedules(t, listed, time.Now()) })
		},
	}
}

// fairwaySchedules lists those that start a workflow of Fairway's.
func (c *connection) fairwaySchedules(ctx context.Context) ([]listedSchedule, error) {
	listed := []listedSchedule{}
	err := c.listSchedules(ctx, func(entry *client.ScheduleListEntry) {
		kind := entry.WorkflowType.Name
		if !isLook(entry) && !isOfTests(entry) && kind != "Sync" && kind != "WatchHealth" {
			return
		}
		each := listedSchedule{ID: entry.ID, Workflow: kind, Paused: entry.Paused, Note: entry.Note}
		if entry.Spec != nil && len(entry.Spec.Intervals) == 1 {
			each.Every = entry.Spec.Intervals[0].Every
		}
		if last := len(entry.RecentActions) - 1; last >= 0 {
			each.Last = entry.RecentActions[last].ActualTime
		}
		if len(entry.NextActionTimes) > 0 {
			each.Next = entry.NextActionTimes[0]
		}
		listed = append(listed, each)
	})
	slices.SortFunc(listed, func(a, b listedSchedule) int { return strings.Compare(a.ID, b.ID) })
	return listed, err
}

func showSchedules(t *table, listed []listedSchedule, now time.Time) {
	if len(listed) == 0 {
		t.line("There are no schedules; `fairway schedule apply` makes those of pipeline and tests.")
		return
	}
	t.row("SCHEDULE", "EVERY", "LAST", "NEXT", "PAUSED", "NOTE")
	for _, each := range listed {
		every, next, paused := "", "", "no"
		if each.Every > 0 {
			every = short(each.Every)
		}
		if each.Next.After(now) {
			next = "in " + short(each.Next.Sub(now))
		}
		if each.Paused {
			next, paused = "", "yes"
		}
		t.row(each.ID, every, age(each.Last), next, paused, cut(each.Note, 100))
	}
}
