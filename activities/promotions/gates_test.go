package promotions

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fairway-project/fairway/forge"
	"github.com/fairway-project/fairway/promotion"
	"github.com/fairway-project/fairway/workflows"
)

var hostile = promotion.Edge{From: `de"v'/x`, To: "al?pha`{}"}

func TestTheNewestStatusOfTheCandidateCounts(t *testing.T) {
	at := func(minute int) time.Time { return began.Add(time.Duration(minute) * time.Minute) }
	for name, c := range map[string]struct {
		statuses []forge.Status
		err      error
		passed   bool
		want     string
	}{
		"missing":       {nil, nil, false, "The candidate has no status e2e yet."},
		"of another":    {[]forge.Status{{Context: "e2e-two", State: forge.Success}}, nil, false, "no status e2e"},
		"pending":       {[]forge.Status{{Context: "e2e", State: forge.Pending}}, nil, false, "Status e2e is pending."},
		"failure":       {[]forge.Status{{Context: "e2e", State: forge.Failure, Description: "2 tests\nfail"}}, nil, false, "Status e2e is failure: 2 tests fail"},
		"success":       {[]forge.Status{{Context: "e2e", State: forge.Success}}, nil, true, "Status e2e is success."},
		"failed before": {[]forge.Status{{Context: "e2e", State: forge.Success, At: at(2)}, {Context: "e2e", State: forge.Failure, At: at(1)}}, nil, true, "success"},
		"failed since":  {[]forge.Status{{Context: "e2e", State: forge.Success, At: at(1)}, {Context: "e2e", State: forge.Failure, At: at(2)}}, nil, false, "failure"},
		"unknown state": {[]forge.Status{{Context: "e2e", State: "skipped"}}, nil, false, "skipped"},
		"unreadable":    {nil, forge.ErrUnreachable, false, "cannot be read: the forge does not answer."},
	} {
		passed, detail, lasting := statusGate("e2e", func() ([]forge.Status, error) { return c.statuses, c.err }, func() ([]broughtBy, error) { return nil, nil })
		require.Equal(t, c.passed, passed, name)
		require.Contains(t, detail, c.want, name)
		require.NotEmpty(t, lasting, name)
	}
}

func TestACandidateWithoutTheStatusHasThatOfThePullRequestsThatBroughtIt(t *testing.T) {
	status := func(state forge.StatusState) []forge.Status { return []forge.Status{{Context: "e2e", State: state}} }
	for name, c := range map[string]struct {
		own    []forge.Status
		pulls  map[string][]forge.Status // by head
		base   string
		down   string
		passed bool
		want   string
	}{
		"tested before the merge":         {pulls: map[string][]forge.Status{"one": status(forge.Success)}, passed: true, want: "Status e2e is success on pull request 1, which brought the candidate."},
		"failed before the merge":         {pulls: map[string][]forge.Status{"one": status(forge.Failure)}, want: "Status e2e is failure on pull request 1"},
		"under way":                       {pulls: map[string][]forge.Status{"one": status(forge.Pending)}, want: "Status e2e is pending on pull request 1"},
		"not tested":                      {pulls: map[string][]forge.Status{"one": nil}, want: "Neither the candidate nor pull request 1, which brought it, has a status e2e yet."},
		"one of two not tested":           {pulls: map[string][]forge.Status{"one": status(forge.Success), "two": nil}, want: "pull request 2, which brought it, has a status e2e yet"},
		"one of two failed":               {pulls: map[string][]forge.Status{"one": status(forge.Success), "two": status(forge.Failure)}, want: "failure on pull request 2"},
		"two tested":                      {pulls: map[string][]forge.Status{"one": status(forge.Success), "two": status(forge.Success)}, passed: true, want: "success"},
		"its own status counts first":     {own: status(forge.Failure), pulls: map[string][]forge.Status{"one": status(forge.Success)}, want: "Status e2e is failure."},
		"merged into another channel":     {pulls: map[string][]forge.Status{"one": status(forge.Success)}, base: "alpha", want: "The candidate has no status e2e yet."},
		"the forge does not say by which": {down: "PullRequestsOf", want: "cannot be read: the forge does not answer."},
		"the pull request cannot be read": {pulls: map[string][]forge.Status{"one": status(forge.Success)}, down: "PullRequest", want: "cannot be read"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.forge.statuses["abc"] = c.own
			for _, head := range []string{"one", "two"} {
				statuses, found := c.pulls[head]
				if !found {
					continue
				}
				pr := &forge.PullRequest{Number: len(w.forge.requests) + 1, State: forge.Merged, Base: cmp.Or(c.base, "dev"), Head: "topic", HeadCommit: head, Merge: "abc"}
				w.forge.requests, w.forge.statuses[head] = append(w.forge.requests, pr), statuses
				listed := *pr
				listed.HeadCommit = "later" // where the branch is by now
				w.forge.of["abc"] = append(w.forge.of["abc"], listed)
			}
			if c.down != "" {
				w.forge.down[c.down] = forge.ErrUnreachable
			}
			edge := w.edge(0)
			edge.Gates = []promotion.Gate{{Name: "tests", Status: "e2e"}}
			w.soak("dev", time.Hour)
			results, _ := judged(*edge, w.acts.gates(t.Context(), *edge, "abc", nil, *w.actors.channel("dev")), nil)
			require.Equal(t, c.passed, results[1].Passed, results[1].Detail)
			require.Contains(t, results[1].Detail, c.want)
		})
	}
}

func TestAnHTTPGateIsPassedByTheAnswerThatIsExpected(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	require.NoError(t, os.WriteFile(file, []byte("s3cret\n"), 0o600))
	var asked *http.Request
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("a redirect was followed") }))
	defer elsewhere.Close()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = r
		switch r.URL.Path {
		case "/moved":
			http.Redirect(w, r, elsewhere.URL, http.StatusFound)
		case "/slow":
			<-r.Context().Done()
		case "/large":
			_, _ = w.Write([]byte(strings.Repeat("x", longAnswer) + "ready"))
		case "/cut":
			w.Header().Set("Content-Length", "100")
			_, _ = w.Write([]byte("ready"))
		case "/none":
			w.WriteHeader(http.StatusNoContent)
		default:
			_, _ = w.Write([]byte("it is ready"))
		}
	}))
	defer server.Close()
	a := &Activities{}
	for name, c := range map[string]struct {
		gate   promotion.HTTPGate
		passed bool
		want   string
	}{
		"answered":           {promotion.HTTPGate{URL: "/"}, true, "answers with 200"},
		"another code":       {promotion.HTTPGate{URL: "/none"}, false, "answers with 204; must be 200"},
		"as expected":        {promotion.HTTPGate{URL: "/none", Status: 204}, true, "204"},
		"with a text":        {promotion.HTTPGate{URL: "/", Contains: "ready"}, true, "ready"},
		"without it":         {promotion.HTTPGate{URL: "/", Contains: "steady"}, false, `without "steady"`},
		"beyond what counts": {promotion.HTTPGate{URL: "/large", Contains: "ready"}, false, "without"},
		"cut off":            {promotion.HTTPGate{URL: "/cut", Contains: "absent"}, false, "ends too early"},
		"redirected":         {promotion.HTTPGate{URL: "/moved"}, false, "answers with 302"},
		"too slow":           {promotion.HTTPGate{URL: "/slow", Timeout: 20 * time.Millisecond}, false, "cannot be asked"},
		"no such token":      {promotion.HTTPGate{URL: "/", TokenEnv: "NO_SUCH_TOKEN"}, false, "NO_SUCH_TOKEN holds no token"},
		"no such file":       {promotion.HTTPGate{URL: "/", TokenFile: "/does/not/exist"}, false, "token_file"},
	} {
		c.gate.URL = server.URL + c.gate.URL
		passed, detail, _ := a.httpGate(t.Context(), c.gate, hostile, "abc")
		require.Equal(t, c.passed, passed, "%s: %s", name, detail)
		require.Contains(t, detail, c.want, name)
		require.NotContains(t, detail, server.URL, "addresses may hold what is nobody's business")
	}
	passed, detail, _ := a.httpGate(t.Context(), promotion.HTTPGate{URL: server.URL + "/{from}/{candidate}?to={to}&x=1", TokenFile: file}, hostile, "abc")
	require.True(t, passed, detail)
	require.Equal(t, `/de%22v%27%2Fx/abc?to=al%3Fpha%60%7B%7D&x=1`, asked.URL.RequestURI())
	require.Equal(t, "Bearer s3cret", asked.Header.Get("Authorization"))

	for _, address := range []string{"http://{from}.example.org/", "ftp://example.org", "http://anna:secret@example.org", "nowhere"} {
		passed, detail, _ := a.httpGate(t.Context(), promotion.HTTPGate{URL: address}, hostile, "abc")
		require.False(t, passed, address)
		require.NotContains(t, detail, "secret")
	}
}

func TestAPrometheusGateAsksWithThePromotionInIt(t *testing.T) {
	value, query := "0.005", ""
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = r.ParseForm()
		query = r.Form.Get("query")
		end := 0.0
		_, _ = fmt.Sscan(r.Form.Get("end"), &end)
		_ = json.NewEncoder(w).Encode(map[string]any{"status": "success", "data": map[string]any{
			"resultType": "matrix", "result": []any{map[string]any{"metric": map[string]string{}, "values": [][]any{{end, value}}}},
		}})
	}))
	defer server.Close()
	gate := promotion.MetricGate{URL: server.URL, Query: `errors{channel="{from}"}`, Threshold: "< 0.01"}
	passed, detail, lasting := metricGate(t.Context(), gate, hostile, "abc", time.Now())
	require.True(t, passed, detail)
	require.Equal(t, "must be < 0.01", lasting)
	require.Equal(t, `errors{channel="de\U00000022v\U00000027/x"}`, query, "no sign ends the string")

	value = "0.5"
	passed, detail, second := metricGate(t.Context(), gate, hostile, "abc", time.Now())
	require.False(t, passed)
	require.Contains(t, detail, "0.5")
	require.Equal(t, lasting, second, "what changes with each look is not in comments")
	gate.For = time.Hour
	passed, detail, lasting = metricGate(t.Context(), gate, hostile, "abc", time.Now())
	require.False(t, passed, detail)
	require.Equal(t, "must be < 0.01 for 1h0m0s", lasting)

	gate.Threshold, gate.For = "!= 0.1", 0
	passed, detail, _ = metricGate(t.Context(), gate, hostile, "abc", time.Now())
	require.True(t, passed, detail)

	server.Close()
	passed, detail, _ = metricGate(t.Context(), gate, hostile, "abc", time.Now())
	require.False(t, passed)
	require.Contains(t, detail, "Prometheus cannot be asked")
	gate.Threshold = "about 1"
	passed, detail, _ = metricGate(t.Context(), gate, hostile, "abc", time.Now())
	require.False(t, passed)
	require.Contains(t, detail, "threshold")
}

func TestAllGatesAreAskedAtOnceAndSkippedOnesAreNot(t *testing.T) {
	both := make(chan struct{}, 2)
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		both <- struct{}{}
		for len(both) < 2 { // each is answered once the other one is asked
			time.Sleep(time.Millisecond)
		}
	}))
	defer server.Close()
	w := newWorld(t)
	edge := w.edge(0)
	edge.Gates = []promotion.Gate{
		{Name: "one", HTTP: &promotion.HTTPGate{URL: server.URL}}, {Name: "two", HTTP: &promotion.HTTPGate{URL: server.URL}},
		{Name: "e2e", Status: "e2e"}, {Name: "load", Status: "load"}, {Name: "skipped", Status: "skipped"}, {Name: "nothing"},
	}
	w.soak("dev", time.Hour)
	w.forge.statuses["abc"] = []forge.Status{{Context: "e2e", State: forge.Success}}
	results, missed := judged(*edge, w.acts.gates(t.Context(), *edge, "abc", []string{"skipped"}, *w.actors.channel("dev")), []string{"skipped"})
	var passed []string
	for _, r := range results {
		require.Equal(t, w.now, r.At)
		require.NotEmpty(t, r.Detail)
		if r.Passed {
			passed = append(passed, r.Name)
		}
		require.Equal(t, r.Name == "skipped", r.Skipped)
	}
	require.Equal(t, []string{"fleet", "one", "two", "e2e"}, passed)
	require.Equal(t, "Gate load is not passed: The candidate has no status load yet. Gate nothing is not passed: Nothing is configured to ask for.", missed)
	require.Equal(t, 1, w.life.count("forge Statuses"), "one request for all statuses")
}

func TestWithoutAForgeNoStatusIsPassed(t *testing.T) {
	w := newWorld(t)
	w.acts.Forge = nil
	edge := w.edge(0)
	edge.Gates = e2e
	_, missed := judged(*edge, w.acts.gates(context.Background(), *edge, "abc", nil, workflows.ChannelState{}), nil)
	require.Contains(t, missed, "set forge.kind")
}
