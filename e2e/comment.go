package e2e

import (
	"fmt"
	"html"
	"strings"
	"time"

	"github.com/fairway-project/fairway/prose"
)

// Bounds of a comment: forges take some 60 kB.
const (
	mostComment  = 40_000 // bytes after which nothing more is listed
	mostListed   = 10     // things of a kind on a line
	mostRows     = 50     // of a table
	mostLines    = 20     // of the message of a case
	mostMessage  = 1000   // characters of it
	clockFormat  = "15:04:05"
	momentFormat = "2006-01-02 15:04 MST"
)

// doing says what goes on in a phase.
var doing = map[string]string{
	Queued: "waiting for a place", Creating: "creating a cluster at the base", Loading: "starting workload and load", Upgrading: "upgrading to the head",
	Testing: "running the suites", Kept: "the cluster is kept", Removing: "tearing down", Done: "done",
}

// Summary says in a few words how far a test is, such as for a commit status.
func Summary(r Report) string {
	switch r.Verdict {
	case Passed:
		return "Passed" + suites(r) + "."
	case Failed:
		if problem := prose.Line(r.Problem, prose.Title); problem != "" {
			return "Failed: " + problem
		}
		return "Failed" + suites(r) + "."
	case Cancelled:
		if problem := prose.Line(r.Problem, prose.Title); problem != "" {
			return "Cancelled: " + problem
		}
		return "Cancelled."
	}
	if r.Phase == Queued && r.Place > 0 {
		return fmt.Sprintf("Waiting for a place: number %d in the queue.", r.Place)
	}
	return sentence(phase(r.Phase))
}

func suites(r Report) string {
	if len(r.Suites) == 0 {
		return ""
	}
	passed := 0
	for _, suite := range r.Suites {
		if suite.Passed {
			passed++
		}
	}
	return fmt.Sprintf(": %d of %s", passed, prose.Counted(len(r.Suites), "suite"))
}

func phase(name string) string {
	if words, known := doing[name]; known {
		return words
	}
	return prose.Line(name, prose.Title)
}

func sentence(words string) string {
	if words == "" {
		return ""
	}
	return strings.ToUpper(words[:1]) + words[1:] + "."
}

// Comment is what the one comment on a pull request says of its test. The same report makes the same text.
func Comment(r Report) string {
	c := &comment{}
	c.headline(r)
	c.phases(r.Phases)
	c.suites(r.Suites)
	c.upgrade(r)
	c.load(r)
	c.cost(r.Cost)
	c.end(r)
	c.line("This comment is kept up to date by Fairway.")
	return c.String()
}

// HeldComment is what it says of a pull request that waits for a person.
func HeldComment(held Held) string {
	return fmt.Sprintf("⏳ **%s is not tested yet.**\n\n%s\n\nThis comment is kept up to date by Fairway.\n", prose.Code(prose.Short(held.Head), prose.Title), held.Why)
}

// comment is one that is being written.
type comment struct{ strings.Builder }

// line is a paragraph or an entry of a list.
func (c *comment) line(format string, args ...any) { fmt.Fprintf(c, format+"\n", args...) }

// row is one of a table. Forges do not agree on what a backslash before a bar means.
func (c *comment) row(cells ...string) {
	for i, cell := range cells {
		cells[i] = strings.ReplaceAll(cell, "|", "¦")
	}
	c.line("| %s |", strings.Join(cells, " | "))
}

// full says whether no more may be listed.
func (c *comment) full() bool { return c.Len() > mostComment }

func (c *comment) headline(r Report) {
	mark, what := "⏳", "is under way: "+phase(r.Phase)
	switch r.Verdict {
	case Passed:
		mark, what = "✅", "passed"
	case Failed:
		mark, what = "❌", "failed"
	case Cancelled:
		mark, what = "🚫", "was cancelled"
	default:
		if r.Phase == Queued && r.Place > 0 {
			what += fmt.Sprintf(", number %d in the queue", r.Place)
		}
	}
	c.line("%s **The test of %s %s.**\n", mark, prose.Code(prose.Short(r.Request.Head), prose.Title), what)
	if r.Problem != "" {
		c.line("%s\n", prose.Code(r.Problem, prose.Detail))
	}
	c.line("From %s at %s to %s%s.\n", prose.Code(r.Request.Channel, prose.Title), prose.Code(prose.Short(r.Request.Base), prose.Title), prose.Code(r.Request.Head, prose.Title), asked(r.Request.By))
}

func asked(by string) string {
	if by == "" {
		return ""
	}
	return ", asked by " + prose.Code(by, prose.Title)
}

func (c *comment) phases(phases []PhaseTime) {
	if len(phases) == 0 {
		return
	}
	c.row("phase", "began", "took")
	c.row("---", "---", "---")
	for i, p := range phases {
		if i == mostRows || c.full() {
			c.row(fmt.Sprintf("and %d more", len(phases)-i), "", "")
			break
		}
		took := "under way"
		if !p.Ended.IsZero() {
			took = p.Ended.Sub(p.Began).Round(time.Second).String()
		}
		c.row(phase(p.Phase), p.Began.UTC().Format(clockFormat)+" UTC", took)
	}
	c.line("")
}

func (c *comment) suites(suites []SuiteResult) {
	if len(suites) == 0 {
		return
	}
	c.row("", "suite", "cases", "failed", "flaky", "took")
	c.row("---", "---", "---", "---", "---", "---")
	for i, s := range suites {
		if i == mostRows || c.full() {
			c.row("", prose.Counted(len(suites)-i, "more suite"), "", "", "", "")
			break
		}
		mark := "✅"
		switch {
		case !s.Passed && s.Optional:
			mark = "⚠️"
		case !s.Passed:
			mark = "❌"
		}
		name := prose.Code(s.Name, prose.Title)
		if s.Optional {
			name += " (optional)"
		}
		c.row(mark, name, fmt.Sprint(s.Ran), fmt.Sprint(s.Failed), fmt.Sprint(len(s.Flaky)), s.Took.Round(time.Second).String())
	}
	c.line("")
	for _, s := range suites {
		if c.full() {
			c.line("More failures are in the results.\n")
			return
		}
		c.failures(s)
	}
}

// failures are what a suite has found, each case folded away with its message.
func (c *comment) failures(s SuiteResult) {
	if s.Problem == "" && len(s.Failures) == 0 && len(s.Flaky) == 0 {
		return
	}
	c.line("#### %s\n", prose.Code(s.Name, prose.Title))
	if s.Problem != "" {
		c.line("%s\n", prose.Code(s.Problem, prose.Detail))
	}
	shown := 0
	for _, failure := range s.Failures[:min(len(s.Failures), MostFailures)] {
		if c.full() {
			break
		}
		shown++
		c.line("<details><summary><code>%s</code></summary>\n\n```\n%s\n```\n\n</details>\n", html.EscapeString(named(failure.Case)), block(failure.Message))
	}
	if more := max(s.Failed, len(s.Failures)) - shown; more > 0 {
		c.line("%s in the results.\n", prose.Counted(more, "more failed case"))
	}
	if len(s.Flaky) > 0 {
		c.line("Passed when they were tried again: %s.\n", codes(s.Flaky))
	}
}

// named is the name of a case, which a report may lack.
func named(name string) string {
	if name = prose.Line(name, prose.Detail); name == "" {
		return "(no name)"
	}
	return name
}

// block is a text of several lines for between two fences of backticks. There it stands on lines of its own, as
// only Fairway's markers may.
func block(text string) string {
	if most := 4 * mostMessage; len(text) > most { // no more than what is shown is looked at
		text = text[:most]
	}
	var lines []string
	left := mostMessage
	for line := range strings.Lines(text) {
		line = strings.NewReplacer("`", "'", "<!--", "<! --").Replace(prose.Line(line, left))
		if line == "" {
			continue
		}
		if len(lines) == mostLines || left <= 0 {
			lines = append(lines, "...")
			break
		}
		lines, left = append(lines, line), left-len(line)
	}
	if len(lines) == 0 {
		return "(no message)"
	}
	return strings.Join(lines, "\n")
}

func codes(texts []string) string {
	quoted := make([]string, min(len(texts), mostListed))
	for i := range quoted {
		quoted[i] = prose.Code(texts[i], prose.Title)
	}
	if more := len(texts) - len(quoted); more > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(quoted, ", "), more)
	}
	return strings.Join(quoted, ", ")
}

func (c *comment) upgrade(r Report) {
	u := r.Upgrade
	if u.Nodes == 0 && u.Evictions == 0 && u.Own == 0 && len(u.Forced) == 0 && len(u.Violations) == 0 {
		return
	}
	c.line("**Upgrade**: %s replaced, %s evicted (%d by Fairway), %s forced, %s of budgets.\n", prose.Counted(u.Nodes, "node"), prose.Counted(u.Evictions, "pod"), u.Own,
		prose.Counted(len(u.Forced), "pod"), prose.Counted(len(u.Violations), "violation"))
	if len(u.Forced) > 0 {
		c.line("- forced: %s", codes(u.Forced))
	}
	for i, v := range u.Violations {
		if i == mostListed || c.full() {
			c.line("- and %d more violations", len(u.Violations)-i)
			break
		}
		until := "to the end"
		if !v.To.IsZero() {
			until = "for " + v.To.Sub(v.From).Round(time.Second).String()
		}
		c.line("- %s had %d of %d healthy pods from %s UTC %s", prose.Code(v.Budget, prose.Title), v.Healthy, v.Desired, v.From.UTC().Format(clockFormat), until)
	}
	if len(u.Forced) > 0 || len(u.Violations) > 0 {
		c.line("")
	}
}

func (c *comment) load(r Report) {
	l := r.Load
	all := l.Good + l.Bad
	if all == 0 && l.Problem == "" && l.Lost == 0 {
		return
	}
	ratio := 0.0
	if all > 0 {
		ratio = float64(l.Bad) / float64(all)
	}
	lost := ""
	if l.Lost > 0 {
		lost = fmt.Sprintf("; none were sent for %s", prose.Counted(int(l.Lost), "second"))
	}
	c.line("**Load**: %d of %d requests failed, an error ratio of %.6f%s.\n", l.Bad, all, ratio, lost)
	if l.Problem != "" {
		c.line("- %s", prose.Code(l.Problem, prose.Detail))
	}
	for i, e := range l.Errors {
		if i == mostListed || c.full() {
			c.line("- and %d more errors", len(l.Errors)-i)
			break
		}
		c.line("- %s", prose.Code(e, prose.Detail))
	}
	if l.Problem != "" || len(l.Errors) > 0 {
		c.line("")
	}
}

func (c *comment) cost(cost Cost) {
	if cost.Hours == 0 && cost.Amount == 0 {
		return
	}
	unpriced := ""
	if len(cost.Unpriced) > 0 {
		unpriced = "; without the price of " + codes(cost.Unpriced)
	}
	c.line("**Cost**: about %.2f %s, for %.1f hours of instances%s.\n", cost.Amount, prose.Code(cost.Currency, 10), cost.Hours, unpriced)
}

func (c *comment) end(r Report) {
	if r.Results != "" {
		c.line("**Results**: %s\n", prose.Code(r.Results, prose.Detail))
	}
	if r.Left != "" {
		c.line("**Not torn down yet**: %s\n", prose.Code(r.Left, prose.Detail))
	}
	id := prose.Code(r.Request.ID, prose.Detail)
	command := func(words, more string) string {
		return prose.Code("fairway e2e "+words+" "+strings.Trim(id, "`")+more, prose.Detail)
	}
	switch {
	case r.Phase == Done || r.Phase == Removing:
	case !r.Kept.IsZero():
		c.line("The cluster %s is kept until %s. Longer: %s. Not any more: %s.\n", prose.Code(r.Request.Cluster, prose.Title), r.Kept.UTC().Format(momentFormat),
			command("keep", " --for 2h"), command("destroy", " --reason ..."))
	case r.Verdict == "" && r.Phase != Queued:
		c.line("To have a look at the cluster afterwards: %s.\n", command("keep", " --for 2h"))
	}
}
