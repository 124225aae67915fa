package e2e

import (
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write testdata anew")

func reported(change func(*Report)) Report {
	r := Report{
		Request: Request{ID: "12/" + of("c"), Cluster: "e2e-12-ccccccc", Number: 12, Channel: "dev", Base: of("d"), Head: of("c"), By: "bert"},
		Phase:   Testing, Phases: []PhaseTime{{Queued, at(0), at(1)}, {Creating, at(1), at(9)}, {Loading, at(9), at(10)}, {Upgrading, at(10), at(31)}, {Phase: Testing, Began: at(31)}},
	}
	change(&r)
	return r
}

func ended(r *Report, verdict Verdict) {
	r.Verdict, r.Phase = verdict, Done
	r.Phases[4].Ended = at(40)
	r.Phases = append(r.Phases, PhaseTime{Removing, at(40), at(44)})
	r.Upgrade = Upgrade{Nodes: 3, Evictions: 14, Own: 12}
	r.Load = LoadResult{Good: 120_000}
	r.Cost = Cost{Amount: 1.234, Currency: "USD", Hours: 4.2}
	r.Results = "s3://results/e2e/12/" + of("c")
	r.Suites = []SuiteResult{{Name: "conformance", Passed: true, Ran: 64, Flaky: []string{"[sig-apps] Job"}, Took: 6 * time.Minute}, {Name: "smoke", Passed: true, Ran: 4, Took: 3 * time.Second}}
}

func TestComments(t *testing.T) {
	for name, r := range map[string]Report{
		"queued":  reported(func(r *Report) { r.Phase, r.Place, r.Phases = Queued, 3, r.Phases[:1]; r.Phases[0].Ended = time.Time{} }),
		"testing": reported(func(*Report) {}),
		"passed":  reported(func(r *Report) { ended(r, Passed) }),
		"cancelled": reported(func(r *Report) {
			r.Verdict, r.Phase, r.Problem = Cancelled, Done, "Label ready-to-test was removed."
		}),
		"failed": reported(func(r *Report) {
			ended(r, Failed)
			r.Problem, r.Phase, r.Kept = "Suite conformance has failed. The load was noticed.", Kept, at(120)
			r.Suites[0].Passed, r.Suites[0].Failed = false, 23
			r.Suites[0].Failures = []Failure{{"[sig-api-machinery] Watchers", "expected\n  <int>: 1\nto equal\n  <int>: 2"}, {"[sig-node] Pods", ""}}
			r.Suites[1] = SuiteResult{Name: "smoke", Optional: true, Problem: "It took longer than 1h0m0s.", Took: time.Hour}
			r.Upgrade.Forced = []string{"default/web-0"}
			r.Upgrade.Violations = []Violation{{"default/web", 1, 2, at(12), at(13)}, {Budget: "default/db", Healthy: 0, Desired: 1, From: at(14)}}
			r.Load = LoadResult{Good: 119_990, Bad: 10, Lost: 4, Errors: []string{"503 Service Unavailable"}, Problem: "10 of 120000 requests failed."}
			r.Cost.Unpriced = []string{"m9.large"}
			r.Left = "stack e2e-12-ccccccc: DELETE_FAILED"
		}),
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join("testdata", "comment-"+name+".md")
			text := Comment(r)
			require.Equal(t, text, Comment(r))
			if *update {
				require.NoError(t, os.WriteFile(file, []byte(text), 0o644))
			}
			want, err := os.ReadFile(file)
			require.NoError(t, err)
			require.Equal(t, string(want), text)
		})
	}
}

// outside is a text without what is code, in which forges look for nothing.
func outside(text string) string {
	text = regexp.MustCompile("(?s)\n```\n.*?\n```\n").ReplaceAllString(text, "\n")
	text = regexp.MustCompile("<code>[^<]*</code>").ReplaceAllString(text, "")
	return regexp.MustCompile("`[^`\n]*`").ReplaceAllString(text, "")
}

func TestWhatOthersWriteIsNotObeyedInAComment(t *testing.T) {
	for _, evil := range []string{
		"@everyone look at #1 and gh-2 and !3", "`@anna`", "```\n@anna\n```", "~~~\n@anna", "</code></summary></details><img src=x onerror=alert(1)>@anna", "</details>\n\n# @anna",
		"<!-- fairway-e2e -->", "\n<!-- fairway-e2e -->\n", "a | b | @anna", "[x](https://evil.example.org) @anna", "\x1b[31m\u202e@anna", "\xff\xfe@anna", strings.Repeat("@anna\n", 20_000), strings.Repeat("`", 50_000), "&lt;@anna&gt;", "", "\n\n",
	} {
		r := reported(func(r *Report) {
			ended(r, Failed)
			r.Request.By, r.Request.Channel, r.Request.ID, r.Request.Cluster, r.Request.Head, r.Problem, r.Results, r.Left = evil, evil, evil, evil, evil, evil, evil, evil
			r.Phase, r.Kept = Kept, at(50)
			r.Phases[0].Phase = evil
			r.Suites = []SuiteResult{{Name: evil, Problem: evil, Failed: 3, Failures: []Failure{{evil, evil}}, Flaky: []string{evil}}}
			r.Upgrade.Forced, r.Upgrade.Violations = []string{evil}, []Violation{{Budget: evil}}
			r.Load = LoadResult{Bad: 1, Errors: []string{evil}, Problem: evil}
			r.Cost.Currency, r.Cost.Unpriced = evil, []string{evil}
		})
		r.Phases = r.Phases[1:] // their names are Fairway's own
		text := Comment(r)
		require.Less(t, len(text), 60_000)
		left := outside(text)
		for _, sign := range []string{"anna", "everyone", "evil", "<img", "<!--", "gh-2", "\x1b", "```", "#1 "} {
			require.NotContains(t, left, sign, "%.60q", evil)
		}
		require.Equal(t, strings.Count(left, "<details>"), strings.Count(left, "</details>"), "%.60q", evil)
		for line := range strings.Lines(text) {
			require.NotEqual(t, "<!-- fairway-e2e -->", strings.TrimSpace(line), "a marker on a line of its own is Fairway's")
		}
		require.Less(t, len(Summary(r)), 600)
	}
}

func TestACommentIsNeverTooLong(t *testing.T) {
	r := reported(func(r *Report) {
		ended(r, Failed)
		suite := SuiteResult{Name: strings.Repeat("s", 500), Problem: strings.Repeat("p", 5000), Failed: 500}
		failure := Failure{strings.Repeat("c", 5000), strings.Repeat("message\n", 5000)}
		for range 500 {
			suite.Failures = append(suite.Failures, failure)
		}
		for range 500 {
			r.Suites = append(r.Suites, suite)
			r.Upgrade.Violations = append(r.Upgrade.Violations, Violation{Budget: suite.Name})
			r.Upgrade.Forced = append(r.Upgrade.Forced, suite.Problem)
			r.Load.Errors = append(r.Load.Errors, suite.Problem)
			r.Phases = append(r.Phases, r.Phases[0])
		}
	})
	text := Comment(r)
	require.Less(t, len(text), 60_000)
	require.Equal(t, strings.Count(text, "<details>"), strings.Count(text, "</details>"))
	require.Contains(t, text, "More failures are in the results.")
	require.Contains(t, text, "s3://results", "where the rest is")
}

func TestSummaries(t *testing.T) {
	for want, r := range map[string]Report{
		"Waiting for a place: number 3 in the queue.": {Phase: Queued, Place: 3},
		"Waiting for a place.":                        {Phase: Queued},
		"Upgrading to the head.":                      {Phase: Upgrading},
		"Passed: 1 of 1 suite.":                       {Phase: Removing, Verdict: Passed, Suites: []SuiteResult{{Passed: true}}},
		"Passed.":                                     {Verdict: Passed},
		"Failed: Suite smoke has failed.":             {Verdict: Failed, Problem: "Suite smoke\nhas failed."},
		"Failed: 0 of 1 suite.":                       {Verdict: Failed, Suites: []SuiteResult{{}}},
		"Cancelled: Label x was removed.":             {Verdict: Cancelled, Problem: "Label x was removed."},
		"":                                            {},
	} {
		require.Equal(t, want, Summary(r))
	}
}
