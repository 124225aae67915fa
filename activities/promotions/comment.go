package promotions

import (
	"fmt"
	"strings"

	"github.com/fairway-project/fairway/promotion"
	"github.com/fairway-project/fairway/prose"
)

// statusMarker marks the one comment that Fairway keeps on a pull request. It is hidden, and on a line
// of its own, onto which nothing gets that others have written.
const statusMarker = "fairway:status"

// Markers in that comment, written before Fairway closes a pull request: who finds it closed without one
// knows that a person has closed it.
const (
	supersededMarker = "fairway:superseded"
	withdrawnMarker  = "fairway:withdrawn"
)

// pair marks the pull request of a conflict with what is in conflict.
func pair(candidate, head string) string { return "fairway:conflict " + candidate + " " + head }

func hidden(marker string) string { return "<!-- " + marker + " -->" }

func marked(text, marker string) bool {
	for each := range strings.Lines(text) {
		if strings.TrimSpace(each) == hidden(marker) {
			return true
		}
	}
	return false
}

// mostNotes bounds those in a comment: anybody can approve what is public.
const mostNotes = 20

// status is the text of the comment: what holds and what is waited for. The same state makes the same
// text, so that it is edited only when there is something to say.
func status(view view) string {
	var b strings.Builder
	fmt.Fprintf(&b, "**%s**\n\n", view.headline)
	for _, note := range view.notes[:min(len(view.notes), mostNotes)] {
		fmt.Fprintf(&b, "- %s\n", note)
	}
	if more := len(view.notes) - mostNotes; more > 0 {
		fmt.Fprintf(&b, "- and %d more\n", more)
	}
	b.WriteString("\n| | what | |\n|---|---|---|\n")
	row := func(holds bool, what, detail string) {
		mark := "⏳"
		if holds {
			mark = "✅"
		}
		// Forges do not agree on what a backslash before a bar means, which would end the cell and its code.
		fmt.Fprintf(&b, "| %s | %s | %s |\n", mark, strings.ReplaceAll(what, "|", "¦"), strings.ReplaceAll(detail, "|", "¦"))
	}
	row(view.needed <= len(view.approvals), "approvals", fmt.Sprintf("%d of %d%s", len(view.approvals), view.needed, by(view.approvals)))
	if len(view.rejections) > 0 {
		row(false, "changes requested", "by "+names(view.rejections))
	}
	for _, v := range view.verdicts {
		row(v.Passed || v.Skipped, "gate "+prose.Code(v.Name, prose.Title), prose.Code(v.lasting, prose.Detail))
	}
	row(view.window == "", "window", windowText(view.window))
	row(view.blocked == "", "blocks", blockText(view.blocked))
	b.WriteString("\nThis comment is kept up to date by Fairway.\n")
	return b.String()
}

// view is what a status shows.
type view struct {
	headline              string
	notes                 []string
	needed                int
	approvals, rejections []string
	verdicts              []verdict
	window, blocked       string // why not; empty where nothing is against it
}

func windowText(closed string) string {
	if closed == "" {
		return "open"
	}
	return "closed: " + prose.Code(closed, prose.Detail)
}

func blockText(blocked string) string {
	if blocked == "" {
		return "none"
	}
	return prose.Code(blocked, prose.Detail)
}

func by(users []string) string {
	if len(users) == 0 {
		return ""
	}
	return ", by " + names(users)
}

func names(users []string) string {
	quoted := make([]string, len(users))
	for i, user := range users {
		quoted[i] = prose.Code(user, prose.Title)
	}
	return prose.Some(quoted, 10)
}

// ended is the text of the comment on a pull request that Fairway closes.
func ended(outcome promotion.Outcome, why string) string {
	marker := withdrawnMarker
	if outcome == promotion.Superseded {
		marker = supersededMarker
	}
	return fmt.Sprintf("%s\n**%s** %s\n\nFairway closes this pull request.\n", hidden(marker), sentence(string(outcome)), why)
}
