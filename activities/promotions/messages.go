package promotions

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/fairway-project/fairway/promotion"
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
		title += ": " + plain(record.Title, longTitle)
	}
	return title
}

func mergeMessage(record promotion.Record, approvals []string) string {
	trailers := []string{PromotionTrailer + ": " + record.ID, candidateTrailer + ": " + record.Candidate}
	if len(approvals) > 0 {
		trailers = append(trailers, approvedTrailer+": "+plain(strings.Join(approvals, ", "), longDetail))
	}
	if record.By != "" {
		trailers = append(trailers, byTrailer+": "+plain(record.By, longTitle))
	}
	if record.Reason != "" {
		trailers = append(trailers, reasonTrailer+": "+plain(record.Reason, longDetail))
	}
	return strings.Join(trailers, "\n")
}

func revertTitle(revert promotion.Revert, channel, title string) string {
	return fmt.Sprintf("Set %s back to %s: %s", channel, short(revert.To), plain(cmp.Or(title, "(no title)"), longTitle))
}

func revertMessage(revert promotion.Revert) string {
	return strings.Join([]string{
		RevertTrailer + ": " + revert.To, reasonTrailer + ": " + plain(revert.Reason, longDetail), byTrailer + ": " + plain(cmp.Or(revert.By, "nobody"), longTitle),
	}, "\n")
}
