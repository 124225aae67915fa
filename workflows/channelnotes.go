package workflows

import (
	"cmp"
	"fmt"
	"strings"
	"time"
	"unicode"

	"go.temporal.io/sdk/workflow"
)

// note is something that happened to a channel and that people are to be told once.
type note struct{ about, kind, text string }

// tellsMore marks runs of channels' actors that tell people of landings and reverts. Histories of before
// have no mark, and tell nothing until the actor's next run.
const tellsMore = "tells-of-landings"

// announce tells people once that no more clusters are let go on, and what else has happened.
func (c *channelActor) announce(ctx workflow.Context) {
	now := workflow.Now(ctx)
	why := c.Stopped
	if !now.Before(c.Overdue) {
		why = cmp.Or(why, c.Unhealthy)
	}
	if why != "" && !c.Announced {
		c.tell(ctx, note{fmt.Sprint(now.Unix()), RolloutStopped, fmt.Sprintf("No more clusters of channel %s are let go on to %s: %s.", c.Channel, c.Commit, why)})
	}
	c.Announced = why != ""
	notes := c.notes
	c.notes = nil
	if len(notes) == 0 || workflow.GetVersion(ctx, tellsMore, workflow.DefaultVersion, 1) == workflow.DefaultVersion {
		return
	}
	for _, each := range notes {
		c.tell(ctx, each)
	}
}

// tell sends people a note. A hook that does not answer holds nothing up.
func (c *channelActor) tell(ctx workflow.Context, n note) {
	told := Notification{
		ID: fmt.Sprintf("%s/%s/%s", ChannelID(c.Channel), n.kind, n.about), Kind: n.kind, At: workflow.Now(ctx), Channel: c.Channel, Text: n.text,
	}
	c.busy++
	workflow.GoNamed(ctx, "announce", func(ctx workflow.Context) {
		defer func() { c.busy-- }()
		ctx = workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
			StartToCloseTimeout: 10 * time.Second, ScheduleToCloseTimeout: 30 * time.Second, RetryPolicy: patient, Summary: "tell people: " + told.Kind,
		})
		if err := workflow.ExecuteActivity(ctx, "Notify", told).Get(ctx, nil); err != nil {
			workflow.GetLogger(ctx).Warn("nobody was told", "kind", told.Kind, "error", err)
		}
	})
}

// firstLine keeps what others wrote from filling the page.
func firstLine(text string) string {
	line, _, _ := strings.Cut(text, "\n")
	if runes := []rune(line); len(runes) > 200 {
		line = string(runes[:200]) + "..."
	}
	return line
}

// forPeople is a text that others wrote, on one line of a bounded length, and without what a terminal obeys.
func forPeople(text string) string {
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if unicode.IsGraphic(r) {
			return r
		}
		return -1
	}, firstLine(text)))
}

// commitName of a commit for people.
func commitName(commit, title string) string {
	commit = commit[:min(12, len(commit))]
	if title == "" {
		return commit
	}
	return commit + " (" + title + ")"
}
