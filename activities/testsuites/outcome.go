package testsuites

import (
	"slices"
	"strings"

	"github.com/fairway-project/fairway/e2e"
)

// outcome is what came of one attempt at a suite.
type outcome struct {
	cases   []testCase
	flaky   []string // cases that passed, but not at once
	problem string   // why it failed as a whole; in whole sentences
	final   bool     // another attempt would fare no better
	files   []file
}

// testCase is a case that ran.
type testCase struct {
	name    string
	failed  bool
	message string
	setup   bool // of the suite itself; counted only if it failed
}

// tally sums up attempts.
type tally struct {
	order   []string
	cases   map[string]*counted
	flaky   []string
	problem string // of the last attempt
}

type counted struct {
	passed, failed bool
	message        string // of the last failure
}

func (t *tally) add(o outcome) {
	if t.cases == nil {
		t.cases = map[string]*counted{}
	}
	t.problem = o.problem
	// A name that comes more than once in an attempt has passed there if all of them have.
	failed := map[string]bool{}
	for _, c := range o.cases {
		failed[c.name] = failed[c.name] || c.failed
	}
	for _, c := range o.cases {
		if c.setup && !c.failed && t.cases[c.name] == nil {
			continue
		}
		known := t.cases[c.name]
		if known == nil {
			known = &counted{}
			t.cases[c.name] = known
			t.order = append(t.order, c.name)
		}
		if c.failed {
			known.failed, known.message = true, c.message
		}
		known.passed = known.passed || !failed[c.name]
	}
	for _, name := range o.flaky {
		if !slices.Contains(t.flaky, name) {
			t.flaky = append(t.flaky, name)
		}
	}
}

// passed says whether no case is left that has passed in no attempt, and nothing else was wrong in the last one.
func (t *tally) passed() bool {
	for _, c := range t.cases {
		if !c.passed {
			return false
		}
	}
	return t.problem == ""
}

func (t *tally) result() e2e.SuiteResult {
	result := e2e.SuiteResult{Passed: t.passed(), Problem: t.problem, Ran: len(t.order), Flaky: t.flaky}
	for _, name := range t.order {
		switch c := t.cases[name]; {
		case !c.passed:
			if result.Failed++; len(result.Failures) < e2e.MostFailures {
				result.Failures = append(result.Failures, e2e.Failure{Case: cut(name), Message: cut(c.message)})
			}
		case c.failed && !slices.Contains(result.Flaky, name):
			result.Flaky = append(result.Flaky, name)
		}
	}
	if len(result.Flaky) > mostFlaky {
		result.Flaky = result.Flaky[:mostFlaky:mostFlaky]
	}
	for i, name := range result.Flaky {
		result.Flaky[i] = cut(name)
	}
	return result
}

// mostFlaky bounds how many flaky cases a result names.
const mostFlaky = 50

// cutAt is how much of a text gets into a history, in bytes.
const cutAt = 500

func cut(text string) string {
	text = strings.TrimSpace(strings.ToValidUTF8(text, "?"))
	if len(text) <= cutAt {
		return text
	}
	const mark = " ..."
	return strings.ToValidUTF8(text[:cutAt-len(mark)], "") + mark
}
