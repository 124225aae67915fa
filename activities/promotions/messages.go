package promotions

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/fairway-project/fairway/promotion"
	"github.com/fairway-project/fairway/prose"
)

// Trailers of the commits that Fairway makes.
const (
	PromotionTrailer = "Fairway-Promotion"
	candidateTrailer = "Fairway-Candidate"
	approvedTrailer  = "Fairway-Approved-By"
	reasonTrailer    = "Fairway-Reason"
	byTrailer        = "Fairway-By"
	RevertTrailer    = "Fairway-Revert-To"
)

// mergeTitle and mergeMessage are what the commit of a promotion says. They depend on nothing but the
// promotion, so that the same merge made again is the same commit.
func mergeTitle(record promotion.Record) string {
	title := fmt.Sprintf("Promote %s to %s", record.From, record.To)
	if record.Title != "" {
		title += ": " + prose.Plain(record.Title, prose.Title)
	}
	return title
}

func mergeMessage(record promotion.Record, approvals []string) string {
	trailers := []string{PromotionTrailer + ": " + record.ID, candidateTrailer + ": " + record.Candidate}
	if len(approvals) > 0 {
		trailers = append(trailers, approvedTrailer+": "+prose.Plain(strings.Join(approvals, ", "), prose.Detail))
	}
	if record.By != "" {
		trailers = append(trailers, byTrailer+": "+prose.Plain(record.By, prose.Title))
	}
	if record.Reason != "" {
		trailers = append(trailers, reasonTrailer+": "+prose.Plain(record.Reason, prose.Detail))
	}
	return strings.Join(trailers, "\n")
}

func revertTitle(revert promotion.Revert, channel, title string) string {
	return fmt.Sprintf("Set %s back to %s: %s", channel, prose.Short(revert.To), prose.Plain(cmp.Or(title, "(no title)"), prose.Title))
}

func revertMessage(revert promotion.Revert) string {
	return strings.Join([]string{
		RevertTrailer + ": " + revert.To, reasonTrailer + ": " + prose.Plain(revert.Reason, prose.Detail), byTrailer + ": " + prose.Plain(cmp.Or(revert.By, "nobody"), prose.Title),
	}, "\n")
}
