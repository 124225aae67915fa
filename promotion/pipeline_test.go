package promotion_test

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fairway-project/fairway/calendar"
	"github.com/fairway-project/fairway/promotion"
)

// pipeline is dev to alpha by itself, alpha to stable by pull request.
func pipeline() promotion.Pipeline {
	return promotion.Pipeline{
		Channels: []string{"dev", "alpha", "stable"},
		Author:   "Fairway <fairway@example.org>",
		Edges: []promotion.Edge{
			{
				From: "dev", To: "alpha", Mode: promotion.Merge, Soak: new(6 * time.Hour), PersonFor: []promotion.Class{promotion.ClusterStack, promotion.Breaking},
				Gates: []promotion.Gate{
					{Name: "e2e", Status: "ci/e2e"},
					{Name: "errors", Prometheus: &promotion.MetricGate{URL: "https://prometheus.{from}.example.org", Query: "errors", Threshold: "< 0.01"}},
					{Name: "change board", HTTP: &promotion.HTTPGate{URL: "http://localhost:8080/changes/{candidate}?to={to}"}},
				},
				PullRequest: promotion.PullRequest{Approvals: new(2)},
			},
			{
				From: "alpha", To: "stable", Mode: promotion.ByPullRequest, Soak: new(time.Duration(0)),
				Windows: []calendar.Window{{Days: []string{"mon"}, From: "09:00", To: "16:00", TimeZone: "Europe/Berlin"}},
				PullRequest: promotion.PullRequest{
					Team: "org/platform", Reviewers: []string{"anna"}, Labels: []string{"promotion"}, Automerge: true, Supersede: promotion.Unapproved,
				},
			},
		},
	}
}

// problems of a pipeline, one a line.
func problems(p promotion.Pipeline) []string {
	var out []string
	p.Check(func(field, format string, args ...any) { out = append(out, field+": "+fmt.Sprintf(format, args...)) })
	return out
}

func TestGoodPipelines(t *testing.T) {
	require.Empty(t, problems(promotion.Pipeline{}))
	require.Empty(t, problems(pipeline()))
	p := pipeline() // as real fleets have it while they bring in a new version
	p.Channels = append(p.Channels, "kube-1.31", "release/2.x", "großes")
	soak := new(time.Duration(0))
	p.Edges = append(p.Edges,
		promotion.Edge{From: "dev", To: "kube-1.31", Mode: promotion.Merge, Soak: soak},
		promotion.Edge{From: "kube-1.31", To: "alpha", Mode: promotion.ByPullRequest, Soak: soak, PullRequest: promotion.PullRequest{Approvals: new(0), Automerge: true}},
		promotion.Edge{From: "dev", To: "stable", Mode: promotion.Merge, Soak: soak})
	require.Empty(t, problems(p))
}

func TestEachThingThatIsWrongWithAPipelineIsNamed(t *testing.T) {
	for rule, test := range map[string]struct {
		change func(p *promotion.Pipeline)
		want   string // all problems
	}{
		"unknown channel": {
			func(p *promotion.Pipeline) { p.Edges[1].To = "stabel" },
			`pipeline.edges[1].to: is "stabel", which is no channel of the pipeline; there are dev, alpha, stable`,
		},
		"unknown source": {
			func(p *promotion.Pipeline) { p.Channels = []string{"alpha", "stable"} },
			`pipeline.edges[0].from: is "dev", which is no channel of the pipeline; there are alpha, stable`,
		},
		"channel twice":        {func(p *promotion.Pipeline) { p.Channels = append(p.Channels, "dev") }, `pipeline.channels[3]: is "dev", which is listed already`},
		"space in a channel":   {func(p *promotion.Pipeline) { p.Channels = append(p.Channels, "de v") }, `pipeline.channels[3]: is "de v"; git takes no such name for a branch`},
		"option for a channel": {func(p *promotion.Pipeline) { p.Channels = append(p.Channels, "--mirror") }, `pipeline.channels[3]: is "--mirror"; git takes no such name for a branch`},
		"revision":             {func(p *promotion.Pipeline) { p.Channels = append(p.Channels, "dev..alpha") }, `pipeline.channels[3]: is "dev..alpha"; git takes no such name for a branch`},
		"reflog":               {func(p *promotion.Pipeline) { p.Channels = append(p.Channels, "dev@{1}") }, `pipeline.channels[3]: is "dev@{1}"; git takes no such name for a branch`},
		"HEAD":                 {func(p *promotion.Pipeline) { p.Channels = append(p.Channels, "HEAD") }, `pipeline.channels[3]: is "HEAD"; git takes no such name for a branch`},
		"empty part":           {func(p *promotion.Pipeline) { p.Channels = append(p.Channels, "a//b") }, `pipeline.channels[3]: is "a//b"; git takes no such name for a branch`},
		"lock file":            {func(p *promotion.Pipeline) { p.Channels = append(p.Channels, "a.lock") }, `pipeline.channels[3]: is "a.lock"; git takes no such name for a branch`},
		"control character":    {func(p *promotion.Pipeline) { p.Channels = append(p.Channels, "a\x1b[1m") }, `pipeline.channels[3]: is "a\x1b[1m"; git takes no such name for a branch`},
		"turned text":          {func(p *promotion.Pipeline) { p.Channels = append(p.Channels, "a\u202eb") }, `pipeline.channels[3]: is "a\u202eb"; git takes no such name for a branch`},
		"long channel":         {func(p *promotion.Pipeline) { p.Channels = append(p.Channels, strings.Repeat("a", 101)) }, `pipeline.channels[3]: is "` + strings.Repeat("a", 101) + `"; must have at most 100 bytes`},
		"Fairway's own branch": {func(p *promotion.Pipeline) { p.Channels = append(p.Channels, "fairway/promote") }, `pipeline.channels[3]: is "fairway/promote"; branches below fairway are those of promotions under way`},
		"folder and file":      {func(p *promotion.Pipeline) { p.Channels = append(p.Channels, "dev/next") }, `pipeline.channels[3]: is "dev/next"; git cannot have this branch beside the branch dev`},
		"edge to itself":       {func(p *promotion.Pipeline) { p.Edges[0].To = "dev" }, `pipeline.edges[0].to: is "dev", as from is; a promotion leads to another channel`},
		"edge twice": {
			func(p *promotion.Pipeline) { p.Edges = append(p.Edges, p.Edges[1]) },
			`pipeline.edges[2]: is the edge from alpha to stable once more; it is edges[1] already`,
		},
		"edges of one name": {
			func(p *promotion.Pipeline) {
				p.Channels = append(p.Channels, "a-to-b", "c", "a", "b-to-c")
				p.Edges = append(p.Edges, promotion.Edge{From: "a-to-b", To: "c", Mode: promotion.Merge, Soak: new(time.Hour)}, promotion.Edge{From: "a", To: "b-to-c", Mode: promotion.Merge, Soak: new(time.Hour)})
			},
			`pipeline.edges[3]: is called a-to-b-to-c, which cannot be told from edges[2], called a-to-b-to-c; rename a channel`,
		},
		"race": {
			func(p *promotion.Pipeline) {
				p.Edges = append(p.Edges, promotion.Edge{From: "stable", To: "alpha", Mode: promotion.Merge, Soak: new(time.Hour)})
				p.Edges[1].From = "dev"
			},
			`pipeline.edges[2].to: is "alpha", into which edges[0] merges by itself too: they would race into one target; let one of them be of mode pull-request`,
		},
		"circle": {
			func(p *promotion.Pipeline) {
				p.Edges = append(p.Edges, promotion.Edge{From: "stable", To: "dev", Mode: promotion.Merge, Soak: new(time.Hour)})
			},
			`pipeline.edges: lead in a circle: dev -> alpha -> stable -> dev`,
		},
		"no soak": {
			func(p *promotion.Pipeline) { p.Edges[1].Soak = nil },
			`pipeline.edges[1].soak: is missing; say how long every cluster of alpha has to run a change, 0s if that is enough`,
		},
		"no author":          {func(p *promotion.Pipeline) { p.Author = "" }, `pipeline.author: is ""; must be a name and an address such as Fairway <fairway@example.org>`},
		"author of one word": {func(p *promotion.Pipeline) { p.Author = "fairway@example.org" }, `pipeline.author: is "fairway@example.org"; must be a name and an address such as Fairway <fairway@example.org>`},
		"author in two lines": {
			func(p *promotion.Pipeline) { p.Author = "Fairway\nX: y <fairway@example.org>" },
			`pipeline.author: is "Fairway\nX: y <fairway@example.org>"; must be a name and an address such as Fairway <fairway@example.org>`,
		},
		"author without a name": {func(p *promotion.Pipeline) { p.Author = " <a@b>" }, `pipeline.author: is " <a@b>"; must be a name and an address such as Fairway <fairway@example.org>`},
		"author of two":         {func(p *promotion.Pipeline) { p.Author = "A <a@b> <c@d>" }, `pipeline.author: is "A <a@b> <c@d>"; must be a name and an address such as Fairway <fairway@example.org>`},
		"empty label":           {func(p *promotion.Pipeline) { p.BreakingLabels = []string{"a", ""} }, `pipeline.breaking_labels[1]: is ""; must not be empty`},
		"unknown class": {
			func(p *promotion.Pipeline) { p.Edges[0].PersonFor[0] = "everything" },
			`pipeline.edges[0].person_for[0]: is "everything"; must be one of manifests, add-ons, nodes, cluster-stack, breaking`,
		},
		"class twice": {
			func(p *promotion.Pipeline) { p.Edges[0].PersonFor[1] = promotion.ClusterStack },
			`pipeline.edges[0].person_for[1]: is "cluster-stack", which is listed already`,
		},
		"person for a pull request": {
			func(p *promotion.Pipeline) { p.Edges[1].PersonFor = []promotion.Class{promotion.NodesRoll} },
			`pipeline.edges[1].person_for: is only for mode merge; a pull request is for people anyway`,
		},
		"pull request that is never opened": {
			func(p *promotion.Pipeline) { p.Edges[0].PersonFor = nil },
			`pipeline.edges[0].pull_request: has no effect: an edge of mode merge opens pull requests only with person_for`,
		},
		"person that need not approve": {
			func(p *promotion.Pipeline) { p.Edges[0].PullRequest.Approvals = new(0) },
			`pipeline.edges[0].pull_request.approvals: is 0; what person_for names waits for one person at least`,
		},
		"team that need not approve": {
			func(p *promotion.Pipeline) { p.Edges[1].PullRequest.Approvals = new(0) },
			`pipeline.edges[1].pull_request.team: has no effect: approvals is 0`,
		},
		"team as it is mentioned": {
			func(p *promotion.Pipeline) { p.Edges[1].PullRequest.Team = "@org/platform" },
			`pipeline.edges[1].pull_request.team: is "@org/platform"; must be a team such as platform or, on GitHub, organisation/platform`,
		},
		"reviewer as mentioned": {
			func(p *promotion.Pipeline) { p.Edges[1].PullRequest.Reviewers[0] = "@anna" },
			`pipeline.edges[1].pull_request.reviewers[0]: is "@anna"; must be the login of a user, without @`,
		},
		"label twice": {
			func(p *promotion.Pipeline) { p.Edges[1].PullRequest.Labels = []string{"a", "a"} },
			`pipeline.edges[1].pull_request.labels[1]: is "a", which is listed already`,
		},
		"window": {
			func(p *promotion.Pipeline) { p.Edges[1].Windows[0].From = "25:00" },
			`pipeline.edges[1].windows[0].from: is "25:00"; must be a time of the day from 00:00 to 23:59`,
		},
		"freeze": {
			func(p *promotion.Pipeline) {
				p.Edges[1].Freezes = []calendar.Freeze{{Name: "x", From: start, To: start}}
			},
			`pipeline.edges[1].freezes[0].to: is 2026-03-02T09:00:00Z; must be later than from, which is 2026-03-02T09:00:00Z`,
		},
		"gate of no kind": {
			func(p *promotion.Pipeline) { p.Edges[0].Gates[0].Status = "" },
			`pipeline.edges[0].gates[0]: asks nothing; set one of status, prometheus and http`,
		},
		"gate of two kinds": {
			func(p *promotion.Pipeline) { p.Edges[0].Gates[2].Status = "x" },
			`pipeline.edges[0].gates[2]: sets status and http; a gate asks one thing, so make several gates of it`,
		},
		"gate twice": {
			func(p *promotion.Pipeline) { p.Edges[0].Gates[2].Name = "e2e" },
			`pipeline.edges[0].gates[2].name: is "e2e", which is the name of gates[0] already`,
		},
		"gate called as that of all": {
			func(p *promotion.Pipeline) { p.Edges[0].Gates[2].Name = "fleet" },
			`pipeline.edges[0].gates[2].name: is "fleet", which is the name of the gate that every edge has; take another`,
		},
		"gate with a line break": {
			func(p *promotion.Pipeline) { p.Edges[0].Gates[2].Name = "a\nb" },
			`pipeline.edges[0].gates[2].name: is "a\nb"; must hold nothing but printable characters`,
		},
		"address of nothing": {
			func(p *promotion.Pipeline) { p.Edges[0].Gates[1].Prometheus.URL = "prometheus:9090" },
			`pipeline.edges[0].gates[1].prometheus.url: must be an address such as https://prometheus.example.org`,
		},
		"file": {
			func(p *promotion.Pipeline) { p.Edges[0].Gates[2].HTTP.URL = "file:///etc/passwd" },
			`pipeline.edges[0].gates[2].http.url: must be an address such as https://prometheus.example.org`,
		},
		"credentials in an address": {
			func(p *promotion.Pipeline) { p.Edges[0].Gates[2].HTTP.URL = "https://anna:hunter2@example.org" },
			`pipeline.edges[0].gates[2].http.url: has credentials in it; take them out and name them by token_env or token_file`,
		},
		"unknown braces": {
			func(p *promotion.Pipeline) { p.Edges[0].Gates[2].HTTP.URL = "https://example.org/{cluster}" },
			`pipeline.edges[0].gates[2].http.url: has braces in it; there are {from}, {to} and {candidate}, other braces have to be written as %7B and %7D`,
		},
		"host by the commit": {
			func(p *promotion.Pipeline) { p.Edges[0].Gates[2].HTTP.URL = "https://{candidate}.example.org/" },
			`pipeline.edges[0].gates[2].http.url: has {candidate} in its host; no commit may say which host is asked`,
		},
		"host that cannot be": {
			func(p *promotion.Pipeline) { p.Channels[0], p.Edges[0].From = "team/dev", "team/dev" },
			`pipeline.edges[0].gates[1].prometheus.url: has {from} in its host, of which "team/dev" cannot be a part`,
		},
		"threshold": {
			func(p *promotion.Pipeline) { p.Edges[0].Gates[1].Prometheus.Threshold = "less than 1" },
			`pipeline.edges[0].gates[1].prometheus.threshold: is "less than 1"; must be a comparison with a number such as < 0.01; there are <, <=, >, >=, == and !=`,
		},
	} {
		t.Run(rule, func(t *testing.T) {
			p := pipeline()
			test.change(&p)
			found := strings.Join(problems(p), "\n")
			require.Equal(t, test.want, found)
			require.NotContains(t, found, "hunter2")
		})
	}
}

func TestWhatTheTagsTellIsNotToldTwice(t *testing.T) {
	require.Empty(t, problems(promotion.Pipeline{
		Channels: []string{""}, Author: "A <a@b>",
		Edges: []promotion.Edge{{Soak: new(time.Hour), Gates: []promotion.Gate{{HTTP: &promotion.HTTPGate{}}, {Prometheus: &promotion.MetricGate{}}}}},
	}))
}

func TestEdgesAreFoundByTheirChannels(t *testing.T) {
	p := pipeline()
	p.Edges = append(p.Edges, promotion.Edge{From: "dev", To: "stable"})
	found, known := p.Edge("alpha", "stable")
	require.True(t, known)
	require.Equal(t, "alpha-to-stable", found.Name())
	_, known = p.Edge("stable", "alpha")
	require.False(t, known)
	require.Len(t, p.Into("stable"), 2)
	require.Len(t, p.OutOf("dev"), 2)
	require.Empty(t, p.Into("dev"))
	require.Empty(t, p.OutOf("stable"))
}

func TestThresholds(t *testing.T) {
	for text, samples := range map[string]map[float64]bool{
		"< 0.01":   {0: true, 0.01: false, math.Inf(-1): true, math.Inf(1): false},
		"<=1e-3":   {0.001: true, 0.0011: false},
		">  -1.5":  {-1: true, -1.5: false},
		">= +2":    {2: true, 1: false},
		"== 0":     {0: true, 1: false},
		"!= 0":     {1: true, 0: false},
		">= 99.95": {99.95: true, 99.9: false},
	} {
		threshold, err := promotion.ParseThreshold(text)
		require.NoError(t, err)
		for sample, met := range samples {
			require.Equal(t, met, threshold.Met(sample), "%g %s", sample, text)
		}
		require.False(t, threshold.Met(math.NaN()), text)
		again, err := promotion.ParseThreshold(threshold.String())
		require.NoError(t, err)
		require.Equal(t, threshold, again)
	}
	for _, text := range []string{"", "0.01", "<", "< 1%", "=< 1", "= 1", "< 1 or vector(0)", "< NaN", "< Inf", "< 0x1p4", "< 1e999", " < 1", "< 1\n", "< 1_000", "<< 1"} {
		_, err := promotion.ParseThreshold(text)
		require.ErrorContains(t, err, "must be a comparison with a number", text)
	}
	require.False(t, promotion.Threshold{}.Met(0))
}
