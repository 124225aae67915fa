package promotion

import (
	"fmt"
	"net/mail"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"github.com/fairway-project/fairway/calendar"
	"github.com/fairway-project/fairway/prose"
)

// mostName bounds the names of channels: two of them and more become the name of one file in git.
const mostName = 100

// Edge is the edge between two channels, if there is one.
func (p Pipeline) Edge(from, to string) (Edge, bool) {
	for _, edge := range p.Edges {
		if edge.From == from && edge.To == to {
			return edge, true
		}
	}
	return Edge{}, false
}

// Into are the edges that lead into a channel, in the order of the configuration.
func (p Pipeline) Into(channel string) []Edge {
	return p.edges(func(e Edge) bool { return e.To == channel })
}

// OutOf are the edges that lead out of a channel, in the order of the configuration.
func (p Pipeline) OutOf(channel string) []Edge {
	return p.edges(func(e Edge) bool { return e.From == channel })
}

// Upstream are the channels from which changes come to a channel, however many promotions away, the nearest first.
func (p Pipeline) Upstream(channel string) []string {
	var found []string
	for next := []string{channel}; len(next) > 0; next = next[1:] {
		for _, edge := range p.Into(next[0]) {
			if edge.From != channel && !slices.Contains(found, edge.From) {
				found = append(found, edge.From)
				next = append(next, edge.From)
			}
		}
	}
	return found
}

func (p Pipeline) edges(wanted func(Edge) bool) []Edge {
	var out []Edge
	for _, edge := range p.Edges {
		if wanted(edge) {
			out = append(out, edge)
		}
	}
	return out
}

// Check reports everything that is wrong with a pipeline, by the path of the field in fairway.yaml such
// as pipeline.edges[2].to. What the tags of the fields say is checked by strictyaml.
func (p Pipeline) Check(report func(field, format string, args ...any)) {
	if (len(p.Channels) > 0 || len(p.Edges) > 0) && !isAuthor(p.Author) {
		report("pipeline.author", "is %q; must be a name and an address such as Fairway <fairway@example.org>", p.Author)
	}
	for i, label := range p.BreakingLabels {
		if problem := prose.BadName(label); problem != "" {
			report(fmt.Sprintf("pipeline.breaking_labels[%d]", i), "is %q; %s", label, problem)
		}
	}
	p.checkChannels(report)
	p.checkGraph(report)
	for i, edge := range p.Edges {
		at := fmt.Sprintf("pipeline.edges[%d]", i)
		edge.check(func(field, format string, args ...any) { report(at+"."+field, format, args...) })
	}
}

func (p Pipeline) checkChannels(report func(field, format string, args ...any)) {
	for i, channel := range p.Channels {
		field := fmt.Sprintf("pipeline.channels[%d]", i)
		switch problem := badBranch(channel); {
		case channel == "": // told by the tag
		case problem != "":
			report(field, "is %.120q; %s", channel, problem)
		case slices.Index(p.Channels, channel) < i:
			report(field, "is %q, which is listed already", channel)
		default:
			for _, other := range p.Channels {
				if strings.HasPrefix(channel, other+"/") {
					report(field, "is %q; git cannot have this branch beside the branch %s", channel, other)
				}
			}
		}
	}
}

// checkGraph looks at the edges together.
func (p Pipeline) checkGraph(report func(field, format string, args ...any)) {
	for i, edge := range p.Edges {
		at := fmt.Sprintf("pipeline.edges[%d]", i)
		known := true
		for _, end := range []struct{ field, channel string }{{"from", edge.From}, {"to", edge.To}} {
			if end.channel == "" || slices.Contains(p.Channels, end.channel) {
				continue
			}
			known = false
			report(at+"."+end.field, "is %.120q, which is no channel of the pipeline; there are %s", end.channel, list(p.Channels))
		}
		if edge.From == "" || edge.To == "" || !known {
			continue
		}
		if edge.From == edge.To {
			report(at+".to", "is %q, as from is; a promotion leads to another channel", edge.To)
			continue
		}
		for j, other := range p.Edges[:i] {
			switch {
			case other.From == edge.From && other.To == edge.To:
				report(at, "is the edge from %s to %s once more; it is edges[%d] already", edge.From, edge.To, j)
			case other.Name() == edge.Name() || strings.HasPrefix(other.Name(), edge.Name()+"/") || strings.HasPrefix(edge.Name(), other.Name()+"/"):
				report(at, "is called %s, which cannot be told from edges[%d], called %s; rename a channel", edge.Name(), j, other.Name())
			case other.To == edge.To && other.Mode == Merge && edge.Mode == Merge:
				report(at+".to", "is %q, into which edges[%d] merges by itself too: they would race into one target; let one of them be of mode %s", edge.To, j, ByPullRequest)
			}
		}
	}
	if cycle := p.cycle(); cycle != nil {
		report("pipeline.edges", "lead in a circle: %s", strings.Join(cycle, " -> "))
	}
}

// cycle is a way of edges that ends where it begins; nil if there is none. Edges from a channel to
// itself are left out.
func (p Pipeline) cycle() []string {
	done := map[string]bool{}
	var way []string
	var visit func(channel string) []string
	visit = func(channel string) []string {
		if at := slices.Index(way, channel); at >= 0 {
			return append(slices.Clone(way[at:]), channel)
		}
		if done[channel] {
			return nil
		}
		way = append(way, channel)
		for _, edge := range p.OutOf(channel) {
			if edge.To == channel {
				continue
			}
			if found := visit(edge.To); found != nil {
				return found
			}
		}
		way = way[:len(way)-1]
		done[channel] = true
		return nil
	}
	for _, edge := range p.Edges {
		if found := visit(edge.From); found != nil {
			return found
		}
	}
	return nil
}

// check looks at an edge alone; fields start at the edge.
func (e Edge) check(report func(field, format string, args ...any)) {
	if e.Soak == nil {
		report("soak", "is missing; say how long every cluster of %s has to run a change, 0s if that is enough", e.From)
	}
	e.checkGates(report)
	calendar.Calendar{Windows: e.Windows, Freezes: e.Freezes}.Check(report)
	for i, class := range e.PersonFor {
		field := fmt.Sprintf("person_for[%d]", i)
		switch {
		case !slices.Contains(classes, class):
			report(field, "is %.120q; must be one of %s", class, list(classes))
		case slices.Index(e.PersonFor, class) < i:
			report(field, "is %q, which is listed already", class)
		}
	}
	if e.Mode == ByPullRequest && len(e.PersonFor) > 0 {
		report("person_for", "is only for mode %s; a pull request is for people anyway", Merge)
	}
	e.checkPullRequest(report)
}

func (e Edge) checkGates(report func(field, format string, args ...any)) {
	names := map[string]int{}
	for i, gate := range e.Gates {
		at := fmt.Sprintf("gates[%d]", i)
		problem := prose.BadName(gate.Name)
		first, taken := names[gate.Name]
		switch {
		case gate.Name == "": // told by the tag
		case problem != "":
			report(at+".name", "is %.120q; %s", gate.Name, problem)
		case gate.Name == FleetGateName:
			report(at+".name", "is %q, which is the name of the gate that every edge has; take another", gate.Name)
		case taken:
			report(at+".name", "is %q, which is the name of gates[%d] already", gate.Name, first)
		default:
			names[gate.Name] = i
		}
		gate.check(e.badURL, func(field, format string, args ...any) {
			report(strings.TrimSuffix(at+"."+field, "."), format, args...)
		})
	}
}

func (g Gate) check(badURL func(string) string, report func(field, format string, args ...any)) {
	var kinds []string
	if g.Status != "" {
		kinds = append(kinds, "status")
		if problem := prose.BadName(g.Status); problem != "" {
			report("status", "is %.120q; %s", g.Status, problem)
		}
	}
	if m := g.Prometheus; m != nil {
		kinds = append(kinds, "prometheus")
		if problem := badURL(m.URL); problem != "" {
			report("prometheus.url", "%s", problem)
		}
		if _, err := ParseThreshold(m.Threshold); m.Threshold != "" && err != nil {
			report("prometheus.threshold", "%v", err)
		}
	}
	if h := g.HTTP; h != nil {
		kinds = append(kinds, "http")
		if problem := badURL(h.URL); problem != "" {
			report("http.url", "%s", problem)
		}
	}
	switch len(kinds) {
	case 0:
		report("", "asks nothing; set one of status, prometheus and http")
	case 1:
	default:
		report("", "sets %s; a gate asks one thing, so make several gates of it", strings.Join(kinds, " and "))
	}
}

func (e Edge) checkPullRequest(report func(field, format string, args ...any)) {
	p := e.PullRequest
	set := p.Approvals != nil || p.Team != "" || len(p.Reviewers) > 0 || len(p.Labels) > 0 || p.Automerge || p.Supersede != ""
	if e.Mode == Merge && len(e.PersonFor) == 0 {
		if set {
			report("pull_request", "has no effect: an edge of mode %s opens pull requests only with person_for", Merge)
		}
		return
	}
	if none := p.Approvals != nil && *p.Approvals == 0; none && e.Mode == Merge {
		report("pull_request.approvals", "is 0; what person_for names waits for one person at least")
	} else if none && p.Team != "" {
		report("pull_request.team", "has no effect: approvals is 0")
	}
	if problem := prose.BadName(p.Team); p.Team != "" && problem != "" {
		report("pull_request.team", "is %.120q; %s", p.Team, problem)
	} else if strings.HasPrefix(p.Team, "@") || strings.Count(p.Team, "/") > 1 {
		report("pull_request.team", "is %.120q; must be a team such as platform or, on GitHub, organisation/platform", p.Team)
	}
	for _, each := range []struct {
		field string
		names []string
	}{{"reviewers", p.Reviewers}, {"labels", p.Labels}} {
		for i, name := range each.names {
			field := fmt.Sprintf("pull_request.%s[%d]", each.field, i)
			problem := prose.BadName(name)
			switch {
			case problem != "":
				report(field, "is %.120q; %s", name, problem)
			case each.field == "reviewers" && strings.ContainsAny(name, "@/ "):
				report(field, "is %.120q; must be the login of a user, without @", name)
			case slices.Index(each.names, name) < i:
				report(field, "is %q, which is listed already", name)
			}
		}
	}
}

// badBranch says why a text cannot be a channel; empty if it can. The rules are those of
// git-check-ref-format, and that Fairway's own branches are nobody's channel.
func badBranch(name string) string {
	const unusable = "git takes no such name for a branch"
	switch {
	case len(name) > mostName:
		return fmt.Sprintf("must have at most %d bytes", mostName)
	case name == "fairway" || strings.HasPrefix(name, "fairway/"):
		return "branches below fairway are those of promotions under way"
	case strings.HasPrefix(name, "-"), strings.HasSuffix(name, "."), name == "@", name == "HEAD", strings.Contains(name, ".."), strings.Contains(name, "@{"):
		return unusable
	case strings.ContainsFunc(name, func(r rune) bool {
		return r == ' ' || !unicode.IsPrint(r) || r == unicode.ReplacementChar || strings.ContainsRune(`~^:?*[\`, r)
	}):
		return unusable
	}
	for part := range strings.SplitSeq(name, "/") {
		if part == "" || strings.HasPrefix(part, ".") || strings.HasSuffix(part, ".lock") {
			return unusable
		}
	}
	return ""
}

// badURL says what is wrong with the address of a gate; it is not shown, since it may hold a secret.
func (e Edge) badURL(address string) string {
	if address == "" { // told by the tag
		return ""
	}
	const candidate = "0123456789abcdef"
	filled := strings.NewReplacer("{from}", "from", "{to}", "to", "{candidate}", candidate).Replace(address)
	parsed, err := url.Parse(filled)
	switch {
	case err != nil || parsed.Hostname() == "" || parsed.Scheme != "http" && parsed.Scheme != "https":
		return "must be an address such as https://prometheus.example.org"
	case parsed.User != nil:
		return "has credentials in it; take them out and name them by token_env or token_file"
	case strings.ContainsAny(filled, "{}"):
		return "has braces in it; there are {from}, {to} and {candidate}, other braces have to be written as %7B and %7D"
	case strings.Contains(parsed.Host, candidate):
		return "has {candidate} in its host; no commit may say which host is asked"
	}
	_, host, _ := strings.Cut(address, "://")
	if end := strings.IndexAny(host, "/?#"); end >= 0 {
		host = host[:end]
	}
	for _, each := range []struct{ place, channel string }{{"{from}", e.From}, {"{to}", e.To}} {
		if strings.Contains(host, each.place) && !hostLabel.MatchString(each.channel) {
			return fmt.Sprintf("has %s in its host, of which %.120q cannot be a part", each.place, each.channel)
		}
	}
	return ""
}

// hostLabel is a part of the name of a host.
var hostLabel = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?$`)

// isAuthor says whether git takes a text for an author.
func isAuthor(text string) bool {
	name, rest, found := strings.Cut(text, " <")
	address, closed := strings.CutSuffix(rest, ">")
	if !found || !closed || prose.BadName(name) != "" || prose.BadName(text) != "" || strings.ContainsAny(name+address, "<>") {
		return false
	}
	_, err := mail.ParseAddress(address)
	return err == nil
}

func list[T ~string](names []T) string {
	if len(names) == 0 {
		return "none"
	}
	texts := make([]string, len(names))
	for i, name := range names {
		texts[i] = string(name)
	}
	return strings.Join(texts, ", ")
}
