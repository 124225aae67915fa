package e2e

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// MostLoadErrors bounds the errors that a LoadResult carries, and loadErrorLength each of them in bytes.
const (
	MostLoadErrors  = 10
	loadErrorLength = 300
)

// Note keeps an error, cut, unless it is there already or there are enough.
func (r *LoadResult) Note(text string) {
	text = strings.ToValidUTF8(text, "?")
	if len(text) > loadErrorLength {
		end := loadErrorLength
		for !utf8.RuneStart(text[end]) {
			end--
		}
		text = text[:end] + "…"
	}
	if text != "" && len(r.Errors) < MostLoadErrors && !slices.Contains(r.Errors, text) {
		r.Errors = append(r.Errors, text)
	}
}

// Away adds a time during which nobody sent requests. A second that has begun counts.
func (r *LoadResult) Away(d time.Duration) {
	if d > 0 {
		r.Lost += int64(math.Ceil(d.Seconds()))
	}
}

// Judge says why a load has failed; empty if it has not.
func (l Load) Judge(r LoadResult) string {
	if all := r.Good + r.Bad; r.Bad > 0 && float64(r.Bad) > l.ErrorRatio*float64(all) {
		return fmt.Sprintf("%d of %d requests failed; %s may (e2e.load.error_ratio is %g).", r.Bad, all, mayFail(l.ErrorRatio), l.ErrorRatio)
	}
	if r.Good < int64(l.AtLeast) {
		return fmt.Sprintf("Only %d requests had a good answer; a test needs %d to say anything (e2e.load.at_least).", r.Good, l.AtLeast)
	}
	return ""
}

func mayFail(ratio float64) string {
	if ratio <= 0 {
		return "none"
	}
	return fmt.Sprintf("1 in %.0f", 1/ratio)
}
