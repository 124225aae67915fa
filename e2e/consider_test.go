package e2e

import (
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fairway-project/fairway/promotion"
)

var (
	noon     = time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)
	pipeline = promotion.Pipeline{Channels: []string{"dev", "alpha"}, Edges: []promotion.Edge{{From: "dev", To: "alpha"}}}
	heads    = map[string]string{"dev": of("d"), "alpha": of("a"), "topic": of("t")}
)

func of(digit string) string { return strings.Repeat(digit, 40) }

func at(minute int) time.Time { return noon.Add(time.Duration(minute) * time.Minute) }

// own is a pull request of a member that is to be tested.
func own(change func(*PullRequest)) PullRequest {
	pr := PullRequest{
		Number: 12, Title: "Change", URL: "https://forge.example.org/pulls/12", Author: "anna", Labels: []string{"Ready-To-Test"}, Head: "topic", Base: "dev",
		HeadCommit: of("c"), State: Open, Trusted: true, Label: &Label{By: "bert", Trusted: true, At: at(0)}, Pushed: at(-5),
	}
	if change != nil {
		change(&pr)
	}
	return pr
}

// strange is the same of a stranger, with a label that counts.
func strange(change func(*PullRequest)) PullRequest {
	return own(func(pr *PullRequest) {
		pr.Fork, pr.Trusted, pr.Author, pr.Status = true, false, "mallory", &Status{At: at(-4)}
		if change != nil {
			change(pr)
		}
	})
}

func TestWhichPullRequestsAreTested(t *testing.T) {
	for name, c := range map[string]struct {
		pr    PullRequest
		under []Request
		start bool
		held  string // why
	}{
		"of a member, labelled":                           {pr: own(nil), start: true},
		"of a member who set the label":                   {pr: own(func(pr *PullRequest) { pr.Label.By = "anna" }), start: true},
		"of a member, pushed after the label":             {pr: own(func(pr *PullRequest) { pr.Pushed = at(5) }), start: true},
		"of a member, labelled by nobody who is known":    {pr: own(func(pr *PullRequest) { pr.Label = nil }), start: true},
		"without the label":                               {pr: own(func(pr *PullRequest) { pr.Labels = []string{"ready"} })},
		"closed":                                          {pr: own(func(pr *PullRequest) { pr.State = Closed })},
		"into what is no channel":                         {pr: own(func(pr *PullRequest) { pr.Base = "topic" })},
		"into a channel without a branch":                 {pr: own(func(pr *PullRequest) { pr.Base = "beta" }), held: "no branch beta"},
		"a draft":                                         {pr: own(func(pr *PullRequest) { pr.Draft = true }), held: "draft"},
		"of which too little is known":                    {pr: own(func(pr *PullRequest) { pr.Unknown = "The forge does not answer." }), held: "does not answer"},
		"whose head is no commit":                         {pr: own(func(pr *PullRequest) { pr.HeadCommit = "../x" }), held: "which commit"},
		"under way":                                       {pr: own(nil), under: []Request{{ID: "12/" + of("c"), Number: 12, Head: of("c"), Channel: "dev"}}},
		"with an older head under way":                    {pr: own(nil), under: []Request{{ID: "12/" + of("b"), Number: 12, Head: of("b"), Channel: "dev"}}, start: true},
		"tested since the label was set":                  {pr: own(func(pr *PullRequest) { pr.Status = &Status{Final: true, At: at(3)} })},
		"tested in the second in which the label was set": {pr: own(func(pr *PullRequest) { pr.Status = &Status{Final: true, At: at(0)} })},
		"labelled anew after a test":                      {pr: own(func(pr *PullRequest) { pr.Status = &Status{Final: true, At: at(-3)} }), start: true},
		"whose test was cancelled":                        {pr: own(func(pr *PullRequest) { pr.Status = &Status{At: at(3)} }), start: true},

		"of a stranger, labelled by a member after the push":  {pr: strange(nil), start: true},
		"of a member from a fork, labelled by another member": {pr: strange(func(pr *PullRequest) { pr.Trusted = true }), start: true},
		"of a member from a fork, labelled by that member":    {pr: strange(func(pr *PullRequest) { pr.Trusted, pr.Label.By = true, "Mallory" }), held: "who set the label"},
		"of a stranger in the repository itself":              {pr: strange(func(pr *PullRequest) { pr.Fork, pr.Label.By = false, "mallory" }), held: "who set the label"},
		"of a stranger, labelled by another stranger":         {pr: strange(func(pr *PullRequest) { pr.Label.Trusted = false }), held: "so does the label"},
		"of a stranger, labelled by nobody who is known":      {pr: strange(func(pr *PullRequest) { pr.Label = nil }), held: "remove label ready-to-test and set it again"},
		"of a stranger who pushed after the label":            {pr: strange(func(pr *PullRequest) { pr.Pushed = at(1) }), held: "pushed since"},
		"of a stranger who pushed in the same second":         {pr: strange(func(pr *PullRequest) { pr.Pushed = at(0) }), held: "pushed since"},
		"of a stranger, pushed nobody knows when":             {pr: strange(func(pr *PullRequest) { pr.Pushed = time.Time{} }), held: "fairway e2e run --pr 12"},
		"of a stranger, seen for the first time":              {pr: strange(func(pr *PullRequest) { pr.Status = nil }), held: "its head is new"},
		"of a stranger, seen a moment ago":                    {pr: strange(func(pr *PullRequest) { pr.Status.At = at(10).Add(-Settle / 2) }), held: "its head is new"},
		"of a stranger, tested, and labelled by the stranger": {pr: strange(func(pr *PullRequest) { pr.Status.Final, pr.Label.By = true, "mallory" })},
		"of a stranger, tested, and pushed before":            {pr: strange(func(pr *PullRequest) { pr.Status = &Status{Final: true, At: at(4)} })},
	} {
		t.Run(name, func(t *testing.T) {
			p := pipeline
			p.Channels = append([]string{"beta"}, p.Channels...)
			look := Consider(Defaults(), p, heads, []PullRequest{c.pr}, c.under, at(10))
			require.Equal(t, c.start, len(look.Start) == 1, "%+v", look)
			require.Equal(t, c.held != "", len(look.Held) == 1, "%+v", look)
			if c.held != "" {
				require.Contains(t, look.Held[0].Why, c.held)
				require.Equal(t, 12, look.Held[0].Number)
			}
		})
	}
}

func TestWhatATestIsOf(t *testing.T) {
	look := Consider(Defaults(), pipeline, heads, []PullRequest{own(func(pr *PullRequest) { pr.Title = "Two\nlines \x1b[31m" + strings.Repeat("x", 5000) })}, nil, at(10))
	require.Len(t, look.Start, 1)
	got := look.Start[0]
	require.Less(t, len(got.Title), 200)
	require.True(t, strings.HasPrefix(got.Title, "Two lines [31mxxx"), got.Title)
	got.Title = ""
	require.Equal(t, Request{
		ID: "12/" + of("c"), Cluster: "e2e-12-ccccccc", Number: 12, URL: "https://forge.example.org/pulls/12", Author: "anna", Channel: "dev", Base: of("d"), Head: of("c"), By: "bert",
	}, got)
	for _, id := range []string{got.Cluster, ClusterOf(0, of("c")), ClusterOf(1<<31-1, of("f"))} {
		require.Regexp(t, regexp.MustCompile(`^[a-z]([a-z0-9-]{0,38}[a-z0-9])$`), id, "it is part of names of stacks, groups and hosts")
	}
}

func TestHotfixesComeFirst(t *testing.T) {
	numbered := func(number int, minute int, change func(*PullRequest)) PullRequest {
		return own(func(pr *PullRequest) {
			pr.Number, pr.Label = number, &Label{By: "bert", Trusted: true, At: at(minute)}
			if change != nil {
				change(pr)
			}
		})
	}
	look := Consider(Defaults(), pipeline, heads, []PullRequest{
		numbered(1, 3, nil),
		numbered(2, 1, nil),
		numbered(3, 5, func(pr *PullRequest) { pr.Base = "alpha" }),
		numbered(4, 6, func(pr *PullRequest) { pr.Labels = append(pr.Labels, "HOTFIX") }),
		numbered(5, 2, func(pr *PullRequest) { pr.Base, pr.Head = "alpha", "fairway/promote/dev-to-alpha/abc" }),
		numbered(6, 7, func(pr *PullRequest) {
			pr.Base, pr.Head, pr.Fork, pr.Status = "alpha", "fairway/promote/dev-to-alpha/abc", true, &Status{At: at(0)}
		}),
	}, nil, at(10))
	var order []int
	for _, request := range look.Start {
		order = append(order, request.Number)
		require.Equal(t, request.Number == 3 || request.Number == 4 || request.Number == 6, request.Hotfix, request.Number)
	}
	require.Equal(t, []int{3, 4, 6, 2, 5, 1}, order)
}

func TestWhichTestsEnd(t *testing.T) {
	for name, c := range map[string]struct {
		pulls  []PullRequest
		byHand bool
		why    string
	}{
		"as before":                    {pulls: []PullRequest{own(nil)}},
		"closed":                       {pulls: []PullRequest{own(func(pr *PullRequest) { pr.State = Closed })}, why: "was closed"},
		"merged":                       {pulls: []PullRequest{own(func(pr *PullRequest) { pr.State = Merged })}, why: "was merged"},
		"gone":                         {pulls: []PullRequest{{Number: 12, State: Gone}}, why: "is gone"},
		"unlabelled":                   {pulls: []PullRequest{own(func(pr *PullRequest) { pr.Labels = nil })}, why: "Label ready-to-test was removed."},
		"pushed to":                    {pulls: []PullRequest{own(func(pr *PullRequest) { pr.HeadCommit = of("e") })}, why: "its head is eeeeeeeeeeee."},
		"sent into another channel":    {pulls: []PullRequest{own(func(pr *PullRequest) { pr.Base = "alpha" })}, why: "into alpha"},
		"by hand without a label":      {pulls: []PullRequest{own(func(pr *PullRequest) { pr.Labels = nil })}, byHand: true},
		"by hand, closed":              {pulls: []PullRequest{own(func(pr *PullRequest) { pr.State = Closed })}, byHand: true, why: "was closed"},
		"by hand, pushed to":           {pulls: []PullRequest{own(func(pr *PullRequest) { pr.HeadCommit = of("e") })}, byHand: true, why: "its head"},
		"not seen":                     {},
		"of which nothing is known":    {pulls: []PullRequest{{Number: 12, Unknown: "The forge does not answer."}}},
		"no draft before it was begun": {pulls: []PullRequest{own(func(pr *PullRequest) { pr.Draft = true })}},
	} {
		t.Run(name, func(t *testing.T) {
			under := []Request{
				{ID: "12/" + of("c"), Number: 12, Head: of("c"), Channel: "dev", ByHand: c.byHand},
				{ID: of("b"), Head: of("b"), Channel: "dev", ByHand: true}, // without a pull request
			}
			look := Consider(Defaults(), pipeline, heads, c.pulls, under, at(10))
			if c.why == "" {
				require.Empty(t, look.End)
				return
			}
			require.Len(t, look.End, 1)
			require.Equal(t, "12/"+of("c"), look.End[0].ID)
			require.Contains(t, look.End[0].Why, c.why)
		})
	}
}
