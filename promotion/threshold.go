package promotion

import (
	"fmt"
	"math"
	"regexp"
	"strconv"
)

// Threshold is a comparison that samples have to meet.
type Threshold struct {
	Op    string // <, <=, >, >=, == or !=
	Value float64
}

var threshold = regexp.MustCompile(`^(<=|>=|==|!=|<|>) *([-+]?[0-9]+(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?)$`)

// ParseThreshold reads a comparison with a number, such as "< 0.01".
func ParseThreshold(text string) (Threshold, error) {
	malformed := fmt.Errorf("is %.120q; must be a comparison with a number such as < 0.01; there are <, <=, >, >=, == and !=", text)
	parts := threshold.FindStringSubmatch(text)
	if parts == nil {
		return Threshold{}, malformed
	}
	value, err := strconv.ParseFloat(parts[2], 64)
	if err != nil { // beyond all numbers
		return Threshold{}, malformed
	}
	return Threshold{Op: parts[1], Value: value}, nil
}

// Met says whether a sample meets it. What is not a number meets nothing.
func (t Threshold) Met(sample float64) bool {
	if math.IsNaN(sample) {
		return false
	}
	switch t.Op {
	case "<":
		return sample < t.Value
	case "<=":
		return sample <= t.Value
	case ">":
		return sample > t.Value
	case ">=":
		return sample >= t.Value
	case "==":
		return sample == t.Value
	case "!=":
		return sample != t.Value
	}
	return false
}

func (t Threshold) String() string { return t.Op + " " + strconv.FormatFloat(t.Value, 'g', -1, 64) }
