package promql

import (
	"fmt"
	"regexp"
	"strconv"
)

// Threshold is what a sample has to meet, such as "< 0.01". The zero value is met by none.
type Threshold struct {
	operator string
	value    float64
	text     string
}

var thresholdForm = regexp.MustCompile(`^(<|<=|>|>=|==) ?(-?[0-9]+(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?)$`)

// ParseThreshold reads an operator (<, <=, >, >= or ==) followed by a decimal number.
func ParseThreshold(text string) (Threshold, error) {
	parts := thresholdForm.FindStringSubmatch(text)
	if parts == nil {
		return Threshold{}, fmt.Errorf(`is %q; must be one of <, <=, >, >=, == and a number, such as "< 0.01"`, text)
	}
	value, err := strconv.ParseFloat(parts[2], 64)
	if err != nil {
		return Threshold{}, fmt.Errorf("is %q, whose number is too large", text)
	}
	return Threshold{parts[1], value, parts[1] + " " + parts[2]}, nil
}

// Met says whether a sample meets the threshold; NaN never does.
func (t Threshold) Met(sample float64) bool {
	switch t.operator {
	case "<":
		return sample < t.value
	case "<=":
		return sample <= t.value
	case ">":
		return sample > t.value
	case ">=":
		return sample >= t.value
	case "==":
		return sample == t.value
	}
	return false
}

// String is the threshold as it is written in a configuration.
func (t Threshold) String() string { return t.text }
