// Package roll decides in which order and how many at a time the nodes of a pool are replaced.
// It only decides: workflows.RollPool carries it out.
package roll

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Settings say how a pool is rolled.
type Settings struct {
	// Surge is how many nodes the pool may be larger for the time of the roll; 0 means that each
	// node is emptied and ended before its replacement is launched.
	Surge Share `json:"surge"`
	// Unavailable is how many nodes may be missing at a time where the surge is 0; at least one.
	Unavailable Share `json:"unavailable"`
	// Parallel is how many nodes are replaced at a time, once one has been replaced alone.
	Parallel int `json:"parallel"`
	// Validate is how long the replacement of the first node has to stay usable, with pods on it,
	// before others follow.
	Validate time.Duration `json:"validate"`
	// BadReplacements is how many new instances may fail to become usable nodes before the roll stops.
	BadReplacements int `json:"bad_replacements"`
	// QuarantineAfter is how long a drain may last before the node is left for later; 0 means for ever.
	QuarantineAfter time.Duration `json:"quarantine_after"`
	// QuarantineLimit is how many nodes may wait in quarantine while others are replaced.
	QuarantineLimit int `json:"quarantine_limit"`
	// MaxAge is the age at which a node is old even if its template is not; 0 means never.
	MaxAge time.Duration `json:"max_age"`
	// Fallbacks are tried in this order where AWS lacks capacity.
	Fallbacks []FallbackKind `json:"fallbacks"`
	// ShortageAfter is how long AWS may lack capacity before the next fallback is tried.
	ShortageAfter time.Duration `json:"shortage_after"`
	// Limits across clusters.
	Limits Limits `json:"limits"`
}

// FallbackKind is a way out of a capacity shortage.
type FallbackKind string

// The ways out of a capacity shortage.
const (
	OtherType    FallbackKind = "instance-type" // another type of the pool
	OtherZone    FallbackKind = "zone"          // another zone, unless pods have volumes in this one
	OnDemand     FallbackKind = "on-demand"     // instead of Spot
	SmallerSurge FallbackKind = "smaller-surge" // fewer nodes at a time
	InPlace      FallbackKind = "in-place"      // end the old node first
)

// Limits are numbers of nodes that may be replaced at a time, over all clusters of the fleet, of
// an account and of a region; 0 means no limit.
type Limits struct {
	Fleet   int `json:"fleet"`
	Account int `json:"account"`
	Region  int `json:"region"`
}

// Share is a number of nodes, or a percentage of them.
type Share struct {
	Count   int `json:"count,omitempty"`
	Percent int `json:"percent,omitempty"`
}

// ParseShare reads "3" or "10%".
func ParseShare(text string) (Share, error) {
	number, percent := strings.CutSuffix(strings.TrimSpace(text), "%")
	value, err := strconv.Atoi(number)
	if err != nil || value < 0 || (percent && value > 100) {
		return Share{}, fmt.Errorf("is %q; must be a number of nodes such as 3, or a percentage such as 10%%", text)
	}
	if percent {
		return Share{Percent: value}, nil
	}
	return Share{Count: value}, nil
}

// Of is the share of a number of nodes; a percentage above 0 is at least one node.
func (s Share) Of(nodes int) int {
	if s.Percent > 0 {
		return max(1, nodes*s.Percent/100)
	}
	return s.Count
}

func (s Share) String() string {
	if s.Percent > 0 {
		return strconv.Itoa(s.Percent) + "%"
	}
	return strconv.Itoa(s.Count)
}
