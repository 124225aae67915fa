package forge

import (
	"context"
	"fmt"
	"strings"
)

// comment is one on a pull request.
type comment struct {
	id     int64
	author string
	body   string
}

// commenter is what a forge offers for comments.
type commenter interface {
	Self(context.Context) (string, error)
	comments(ctx context.Context, number int) ([]comment, error) // oldest first, the first 1000 at least
	addComment(ctx context.Context, number int, body string) error
	editComment(ctx context.Context, id int64, body string) error
	deleteComment(ctx context.Context, id int64) error
}

// keepComment does what Driver.Comment says.
func keepComment(ctx context.Context, c commenter, number int, marker, text string) error {
	own, err := ownComments(ctx, c, number, marker)
	if err != nil {
		return err
	}
	body := hidden(marker) + "\n" + cutText(text)
	if len(own) == 0 {
		return failure(ctx, c.addComment(ctx, number, body), "commenting on pull request %d", number)
	}
	if tidy(own[0].body) != tidy(body) {
		if err := failure(ctx, c.editComment(ctx, own[0].id, body), "editing a comment on pull request %d", number); err != nil {
			return err
		}
	}
	for _, double := range own[1:] { // of two that wrote at the same time
		if err := failure(ctx, c.deleteComment(ctx, double.id), "deleting a comment on pull request %d", number); err != nil {
			return err
		}
	}
	return nil
}

// ownComment does what Driver.OwnComment says.
func ownComment(ctx context.Context, c commenter, number int, marker string) (string, bool, error) {
	own, err := ownComments(ctx, c, number, marker)
	if err != nil || len(own) == 0 {
		return "", false, err
	}
	var lines []string
	for line := range strings.Lines(tidy(own[0].body)) {
		if strings.TrimSpace(line) != hidden(marker) {
			lines = append(lines, line)
		}
	}
	return strings.TrimSpace(strings.Join(lines, "")), true, nil
}

func ownComments(ctx context.Context, c commenter, number int, marker string) ([]comment, error) {
	if !markerID.MatchString(marker) || strings.Contains(marker, "--") {
		return nil, wrong("%q cannot be a marker", marker)
	}
	self, err := c.Self(ctx)
	if err != nil {
		return nil, err
	}
	all, err := c.comments(ctx, number)
	if err != nil {
		return nil, failure(ctx, err, "reading the comments on pull request %d", number)
	}
	var own []comment
	for _, comment := range all {
		if strings.EqualFold(comment.author, self) && marked(comment.body, marker) {
			own = append(own, comment)
		}
	}
	// Ours is among the first ones. If it is not there it may be among those that were not read.
	if len(own) == 0 && len(all) >= mostItems {
		return nil, failure(ctx, fmt.Errorf("there are more than %d comments", mostItems), "reading the comments on pull request %d", number)
	}
	return own, nil
}

func hidden(marker string) string { return "<!-- " + marker + " -->" }

// marked wants the marker on a line of its own: there is no way onto one for what others have
// written and we quote.
func marked(body, marker string) bool {
	for line := range strings.Lines(tidy(body)) {
		if strings.TrimSpace(line) == hidden(marker) {
			return true
		}
	}
	return false
}

// tidy levels what forges change of a text.
func tidy(body string) string { return strings.TrimSpace(strings.ReplaceAll(body, "\r\n", "\n")) }
