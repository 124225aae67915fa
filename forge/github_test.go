package forge_test

import (
	"cmp"
	"crypto/sha1"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fairway-project/fairway/forge"
)

// hub answers like GitHub Enterprise, as far as its documentation says what is answered, for the repository
// fairway/config. It checks each request, and puts at most two things on a page.
type hub struct {
	*httptest.Server
	t *testing.T

	mu       sync.Mutex
	ids      int
	branches map[string]string
	pulls    map[int]*hubPull
	labels   map[string]bool
	comments []object
	statuses []object // with "sha"
	runs     []object
	events   []object // of issues, with "on"
	activity []object // the newest first
	requests []string
	// before is called with each request to a path, once.
	before map[string]func()
	// cut are requests that are carried out without an answer, once.
	cut map[string]bool
}

type object = map[string]any

type hubPull struct {
	object
	reviews []object
}

const hubToken = "ghp_secret"

func newHub(t *testing.T) *hub {
	h := &hub{t: t, branches: map[string]string{"stable": hubCommit("stable"), "dev": hubCommit("dev")}, pulls: map[int]*hubPull{}, labels: map[string]bool{}, before: map[string]func(){}, cut: map[string]bool{}}
	h.Server = httptest.NewServer(h.checked(h.routes()))
	t.Cleanup(h.Close)
	return h
}

func (h *hub) driver() forge.Driver {
	driver, err := forge.New(forge.Settings{
		Kind: "github", URL: h.URL, Owner: "fairway", Repository: "config", Token: func() (string, error) { return hubToken + "\n", nil },
	})
	require.NoError(h.t, err)
	return driver
}

func (h *hub) checked(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		what := r.Method + " " + strings.TrimPrefix(r.URL.Path, "/api/v3")
		if r.Header.Get("Authorization") != "token "+hubToken || r.Header.Get("X-GitHub-Api-Version") != "2022-11-28" ||
			!strings.HasPrefix(r.Header.Get("Accept"), "application/vnd.github") || r.Header.Get("User-Agent") != "fairway" {
			h.t.Errorf("%s has the headers %v", what, r.Header)
		}
		h.mu.Lock()
		h.requests = append(h.requests, what)
		before := h.before[what]
		delete(h.before, what)
		h.mu.Unlock()
		if before != nil {
			before()
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.cut[what] {
			delete(h.cut, what)
			next.ServeHTTP(httptest.NewRecorder(), r)
			panic(http.ErrAbortHandler)
		}
		next.ServeHTTP(w, r)
	})
}

func (h *hub) routes() http.Handler {
	mux := http.NewServeMux()
	const repo = "/api/v3/repos/fairway/config"
	handle := func(pattern string, answer func(r *http.Request, in object) (int, any)) {
		method, path, _ := strings.Cut(pattern, " ")
		mux.HandleFunc(method+" "+path, func(w http.ResponseWriter, r *http.Request) {
			var in object
			if r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/labels") && strings.Contains(r.URL.Path, "/issues/") {
				var names []any
				require.NoError(h.t, json.NewDecoder(r.Body).Decode(&names))
				in = object{"labels": names}
			} else if r.Method != http.MethodGet && r.Method != http.MethodDelete {
				require.NoError(h.t, json.NewDecoder(r.Body).Decode(&in))
			}
			status, out := answer(r, in)
			h.answer(w, r, status, out)
		})
	}
	pull := func(answer func(p *hubPull, in object) (int, any)) func(*http.Request, object) (int, any) {
		return func(r *http.Request, in object) (int, any) {
			number, _ := strconv.Atoi(r.PathValue("number"))
			if p := h.pulls[number]; p != nil {
				return answer(p, in)
			}
			return notFound()
		}
	}
	handle("GET /api/v3/user", func(*http.Request, object) (int, any) { return 200, user("fairway-bot") })
	handle("GET /api/v3/orgs/{org}/teams/{team}", func(r *http.Request, _ object) (int, any) {
		if r.PathValue("org") != "fairway" || r.PathValue("team") != "platform" {
			return notFound()
		}
		return 200, object{"slug": "platform"}
	})
	handle("GET /api/v3/orgs/{org}/teams/{team}/memberships/{user}", func(r *http.Request, _ object) (int, any) {
		if r.PathValue("org") != "fairway" || r.PathValue("team") != "platform" || r.PathValue("user") != "reviewer" {
			return notFound()
		}
		return 200, object{"state": "active", "role": "member"}
	})
	handle("GET "+repo+"/collaborators/{user}/permission", func(r *http.Request, _ object) (int, any) {
		permission, known := map[string]string{"operator": "admin", "author": "write", "reviewer": "write", "visitor": "read"}[r.PathValue("user")]
		if !known {
			return notFound()
		}
		return 200, object{"permission": permission, "role_name": permission}
	})
	handle("GET "+repo+"/pulls", func(r *http.Request, _ object) (int, any) {
		q := r.URL.Query()
		var found []object
		for _, p := range h.newest() {
			state := q.Get("state")
			if (state == "all" || state == p.object["state"]) && (q.Get("base") == "" || q.Get("base") == p.branch("base")) &&
				(q.Get("head") == "" || q.Get("head") == "fairway:"+p.branch("head")) {
				found = append(found, without(p.object, "merged", "merged_by", "mergeable"))
			}
		}
		return 200, found
	})
	handle("POST "+repo+"/pulls", func(_ *http.Request, in object) (int, any) {
		head, base := in["head"].(string), in["base"].(string)
		if h.branches[head] == "" {
			return 422, object{"message": "Validation Failed", "errors": []object{{"resource": "PullRequest", "field": "head", "code": "invalid"}}}
		}
		for _, p := range h.pulls {
			if p.object["state"] == "open" && p.branch("head") == head && p.branch("base") == base {
				return 422, object{"message": "Validation Failed", "errors": []object{{"resource": "PullRequest", "code": "custom", "message": "A pull request already exists for fairway:" + head + "."}}}
			}
		}
		h.ids++
		h.pulls[h.ids] = &hubPull{object: object{
			"number": h.ids, "state": "open", "title": in["title"], "body": in["body"], "user": user("fairway-bot"), "draft": false, "merged": false, "merged_at": nil,
			"html_url":         fmt.Sprintf("%s/fairway/config/pull/%d", h.URL, h.ids),
			"merge_commit_sha": hubCommit("a try"), // which GitHub makes of each open one
			"head":             object{"ref": head, "sha": h.branches[head], "repo": object{"full_name": "fairway/config"}},
			"base":             object{"ref": base, "sha": h.branches[base], "repo": object{"full_name": "fairway/config"}},
			"labels":           []any{}, "requested_reviewers": []any{}, "created_at": time.Now().Format(time.RFC3339), "updated_at": time.Now().Format(time.RFC3339),
		}}
		return 201, h.pulls[h.ids].object
	})
	handle("GET "+repo+"/pulls/{number}", pull(func(p *hubPull, _ object) (int, any) { return 200, p.object }))
	handle("PATCH "+repo+"/pulls/{number}", pull(func(p *hubPull, in object) (int, any) {
		for _, key := range []string{"title", "body", "state"} {
			if in[key] != nil {
				p.object[key] = in[key]
			}
		}
		return 200, p.object
	}))
	handle("PUT "+repo+"/pulls/{number}/merge", pull(h.merge))
	handle("GET "+repo+"/pulls/{number}/reviews", pull(func(p *hubPull, _ object) (int, any) { return 200, p.reviews }))
	handle("POST "+repo+"/pulls/{number}/requested_reviewers", pull(func(p *hubPull, in object) (int, any) {
		for _, name := range in["reviewers"].([]any) {
			if name != "reviewer" && name != "author" {
				return 422, object{"message": "Reviews may only be requested from collaborators. One or more of the users or teams you specified is not a collaborator of the fairway/config repository."}
			}
			p.object["requested_reviewers"] = append(p.object["requested_reviewers"].([]any), user(name.(string)))
		}
		return 201, p.object
	}))
	handle("GET "+repo+"/issues/{number}", pull(func(p *hubPull, _ object) (int, any) {
		return 200, object{"number": p.object["number"], "state": p.object["state"], "closed_by": user("fairway-bot")}
	}))
	handle("GET "+repo+"/issues/{number}/comments", pull(func(p *hubPull, _ object) (int, any) {
		var found []object
		for _, c := range h.comments {
			if c["on"] == p.object["number"] {
				found = append(found, c)
			}
		}
		return 200, found
	}))
	handle("POST "+repo+"/issues/{number}/comments", pull(func(p *hubPull, in object) (int, any) {
		return 201, h.comment(p.object["number"].(int), "fairway-bot", in["body"].(string))
	}))
	handle("PATCH "+repo+"/issues/comments/{id}", func(r *http.Request, in object) (int, any) {
		for _, c := range h.comments {
			if strconv.Itoa(c["id"].(int)) == r.PathValue("id") {
				c["body"] = strings.ReplaceAll(in["body"].(string), "\n", "\r\n")
				return 200, c
			}
		}
		return notFound()
	})
	handle("DELETE "+repo+"/issues/comments/{id}", func(r *http.Request, _ object) (int, any) {
		h.comments = slices.DeleteFunc(h.comments, func(c object) bool { return strconv.Itoa(c["id"].(int)) == r.PathValue("id") })
		return 204, nil
	})
	handle("GET "+repo+"/labels/{name}", func(r *http.Request, _ object) (int, any) {
		if !h.labels[r.PathValue("name")] {
			return notFound()
		}
		return 200, object{"name": r.PathValue("name")}
	})
	handle("POST "+repo+"/labels", func(_ *http.Request, in object) (int, any) {
		name := in["name"].(string)
		if h.labels[name] {
			return 422, object{"message": "Validation Failed", "errors": []object{{"resource": "Label", "code": "already_exists", "field": "name"}}}
		}
		h.labels[name] = true
		return 201, in
	})
	handle("POST "+repo+"/issues/{number}/labels", pull(func(p *hubPull, in object) (int, any) {
		for _, name := range in["labels"].([]any) {
			if !h.labels[name.(string)] {
				h.t.Errorf("label %s was not made", name)
			}
			p.object["labels"] = append(p.object["labels"].([]any), object{"name": name})
			h.event(p.object["number"].(int), "labeled", name.(string))
		}
		return 200, p.object["labels"]
	}))
	handle("DELETE "+repo+"/issues/{number}/labels/{name}", func(r *http.Request, _ object) (int, any) {
		number, _ := strconv.Atoi(r.PathValue("number"))
		labels := h.pulls[number].object["labels"].([]any)
		kept := slices.DeleteFunc(slices.Clone(labels), func(l any) bool { return l.(object)["name"] == r.PathValue("name") })
		if len(kept) == len(labels) {
			return 404, object{"message": "Label does not exist"}
		}
		h.pulls[number].object["labels"] = kept
		h.event(number, "unlabeled", r.PathValue("name"))
		return 200, kept
	})
	handle("GET "+repo+"/issues/{number}/events", pull(func(p *hubPull, _ object) (int, any) {
		var found []object
		for _, e := range h.events {
			if e["on"] == p.object["number"] {
				found = append(found, e)
			}
		}
		return 200, found
	}))
	handle("GET "+repo+"/activity", func(r *http.Request, _ object) (int, any) {
		var found []object
		for _, a := range h.activity {
			if a["ref"] == r.URL.Query().Get("ref") {
				found = append(found, a)
			}
		}
		return 200, found
	})
	handle("GET "+repo+"/commits/{sha}/status", func(r *http.Request, _ object) (int, any) {
		if strings.HasPrefix(r.PathValue("sha"), "0000") {
			return 422, object{"message": "No commit found for SHA: " + r.PathValue("sha")}
		}
		var last []object
		for _, s := range h.statuses {
			last = slices.DeleteFunc(last, func(l object) bool { return l["context"] == s["context"] && s["sha"] == r.PathValue("sha") })
			if s["sha"] == r.PathValue("sha") {
				last = append(last, s)
			}
		}
		return 200, within{"statuses", last}
	})
	handle("POST "+repo+"/statuses/{sha}", func(r *http.Request, in object) (int, any) {
		in["sha"], in["updated_at"] = r.PathValue("sha"), time.Now().Format(time.RFC3339)
		h.statuses = append(h.statuses, in)
		return 201, in
	})
	handle("GET "+repo+"/commits/{sha}/check-runs", func(r *http.Request, _ object) (int, any) {
		if r.URL.Query().Get("filter") != "latest" {
			h.t.Error("older check runs are asked for too")
		}
		return 200, within{"check_runs", h.runs}
	})
	handle("GET "+repo+"/commits/{sha}/pulls", func(r *http.Request, _ object) (int, any) {
		var found []object
		for _, p := range h.newest() {
			if p.object["merge_commit_sha"] == r.PathValue("sha") || p.object["head"].(object)["sha"] == r.PathValue("sha") {
				found = append(found, p.object)
			}
		}
		if found == nil {
			return 422, object{"message": "No commit found for SHA: " + r.PathValue("sha")}
		}
		return 200, found
	})
	mux.HandleFunc("/", func(_ http.ResponseWriter, r *http.Request) { h.t.Errorf("GitHub has no %s %s", r.Method, r.URL.Path) })
	return mux
}

// merge is refused as documented for a branch that wants the approval of what is merged.
func (h *hub) merge(p *hubPull, in object) (int, any) {
	state, approved := p.object["state"], 0
	for _, r := range p.reviews {
		if r["state"] == "APPROVED" {
			approved++
		}
		if r["state"] == "CHANGES_REQUESTED" {
			approved = -9
		}
	}
	switch {
	case in["merge_method"] != "merge" || in["commit_title"] == "":
		h.t.Errorf("merging with %v", in)
	case state != "open":
		return 405, object{"message": "Pull Request is not mergeable"}
	case p.object["head"].(object)["sha"] != in["sha"]:
		return 409, object{"message": "Head branch was modified. Review and try the merge again."}
	case p.branch("base") == "stable" && approved < 0:
		return 405, object{"message": "Changes requested by reviewer."}
	case p.branch("base") == "stable" && approved == 0:
		return 405, object{"message": "At least 1 approving review is required by reviewers with write access."}
	}
	merge := hubCommit(fmt.Sprint("merge", in))
	p.object["state"], p.object["merged"], p.object["merged_at"] = "closed", true, time.Now().Format(time.RFC3339)
	p.object["merge_commit_sha"], p.object["merged_by"] = merge, user("fairway-bot")
	return 200, object{"sha": merge, "merged": true, "message": "Pull Request successfully merged"}
}

// within is a list inside of an object.
type within struct {
	field string
	items []object
}

// answer puts two items on a page, with links to the others.
func (h *hub) answer(w http.ResponseWriter, r *http.Request, status int, out any) {
	page := max(1, must(strconv.Atoi(cmp.Or(r.URL.Query().Get("page"), "1"))))
	paged := func(items []object) []object {
		from, to := min(2*(page-1), len(items)), min(2*page, len(items))
		if to < len(items) {
			next := *r.URL
			query := next.Query()
			query.Set("page", strconv.Itoa(page+1))
			next.RawQuery = query.Encode()
			last := next
			query.Set("page", strconv.Itoa((len(items)+1)/2))
			last.RawQuery = query.Encode()
			w.Header().Set("Link", fmt.Sprintf(`<%s%s>; rel="next", <%s%s>; rel="last"`, h.URL, next.String(), h.URL, last.String()))
		}
		return append([]object{}, items[from:to]...)
	}
	switch list := out.(type) {
	case []object:
		out = paged(list)
	case within:
		out = object{list.field: paged(list.items), "total_count": len(list.items)}
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	if out != nil {
		require.NoError(h.t, json.NewEncoder(w).Encode(out))
	}
}

func (h *hub) newest() []*hubPull {
	var all []*hubPull
	for number := h.ids; number > 0; number-- {
		if p := h.pulls[number]; p != nil {
			all = append(all, p)
		}
	}
	return all
}

func (h *hub) event(number int, what, label string) {
	h.events = append(h.events, object{"id": len(h.events) + 1, "on": number, "event": what, "actor": user("fairway-bot"), "label": object{"name": label}, "created_at": time.Now().Format(time.RFC3339)})
}

func (h *hub) comment(number int, by, body string) object {
	h.ids++
	c := object{"id": h.ids, "on": number, "user": user(by), "body": body}
	h.comments = append(h.comments, c)
	return c
}

// push moves a branch, and open pull requests with it: approvals of what was there are dismissed.
func (h *hub) push(branch string) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ids++
	before := h.branches[branch]
	h.branches[branch] = hubCommit(fmt.Sprint(branch, h.ids))
	h.activity = append([]object{{"id": h.ids, "ref": "refs/heads/" + branch, "before": before, "after": h.branches[branch], "timestamp": time.Now().Format(time.RFC3339), "activity_type": "push", "actor": user("author")}}, h.activity...)
	for _, p := range h.pulls {
		if p.object["state"] != "open" || p.branch("head") != branch {
			continue
		}
		p.object["head"].(object)["sha"] = h.branches[branch]
		for _, r := range p.reviews {
			if r["state"] == "APPROVED" {
				r["state"] = "DISMISSED"
			}
		}
	}
	return h.branches[branch]
}

// review is one that takes the place of older ones of the same user.
func (h *hub) review(number int, by, state, commit string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	p := h.pulls[number]
	h.ids++
	p.reviews = slices.DeleteFunc(p.reviews, func(r object) bool {
		return r["state"] == "CHANGES_REQUESTED" && state == "APPROVED" && r["user"].(object)["login"] == by
	})
	p.reviews = append(p.reviews, object{"id": h.ids, "user": user(by), "state": state, "commit_id": commit, "submitted_at": time.Now().Format(time.RFC3339Nano)})
}

func (p *hubPull) branch(side string) string { return p.object[side].(object)["ref"].(string) }

func user(login string) object { return object{"login": login} }

func notFound() (int, any) {
	return 404, object{"message": "Not Found", "documentation_url": "https://docs.github.com/rest"}
}

func without(o object, keys ...string) object {
	left := object{}
	for key, value := range o {
		if !slices.Contains(keys, key) {
			left[key] = value
		}
	}
	return left
}

func hubCommit(of string) string {
	sum := sha1.Sum([]byte(of))
	return hex.EncodeToString(sum[:])
}

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

func TestGitHub(t *testing.T) {
	h := newHub(t)
	behave(t, world{
		driver: h.driver(),
		admin:  h.driver(),
		push:   func(_ *testing.T, _, branch string) string { return h.push(branch) },
		remove: func(_ *testing.T, branch string) { delete(h.branches, branch) },
		review: func(_ *testing.T, number int, verdict forge.Verdict, commit string) {
			h.review(number, "reviewer", map[forge.Verdict]string{forge.Approved: "APPROVED", forge.Rejected: "CHANGES_REQUESTED"}[verdict], commit)
		},
		comment: func(_ *testing.T, number int, text string) { h.comment(number, "author", text) },
		comments: func(_ *testing.T, number int) (all []string) {
			for _, c := range h.comments {
				if c["on"] == number {
					all = append(all, c["body"].(string))
				}
			}
			return all
		},
		statuses: func(_ *testing.T, commit string) (set int) {
			for _, s := range h.statuses {
				if s["sha"] == commit {
					set++
				}
			}
			return set
		},
	})
}

// opened is a hub with a pull request into dev.
func openedHub(t *testing.T) (*hub, forge.Driver, forge.PullRequest) {
	h := newHub(t)
	d := h.driver()
	h.push("change")
	pr, err := d.Open(t.Context(), forge.NewPullRequest{Head: "change", Base: "dev", Title: "Change"})
	require.NoError(t, err)
	return h, d, pr
}

func TestSomebodyElseIsFaster(t *testing.T) {
	const merge = "PUT /repos/fairway/config/pulls/2/merge"
	t.Run("with opening", func(t *testing.T) {
		h := newHub(t)
		h.push("change")
		wanted := forge.NewPullRequest{Head: "change", Base: "dev", Title: "Change"}
		var faster forge.PullRequest
		h.before["POST /repos/fairway/config/pulls"] = func() { faster, _ = h.driver().Open(t.Context(), wanted) }
		pr, err := h.driver().Open(t.Context(), wanted)
		require.NoError(t, err)
		require.Equal(t, faster.Number, pr.Number)
	})
	t.Run("with merging", func(t *testing.T) {
		h, d, pr := openedHub(t)
		var faster string
		h.before[merge] = func() {
			faster, _ = h.driver().Merge(t.Context(), pr.Number, pr.HeadCommit, "By somebody else", "")
		}
		commit, err := d.Merge(t.Context(), pr.Number, pr.HeadCommit, "Change", "")
		require.NoError(t, err)
		require.NotEmpty(t, commit)
		require.Equal(t, faster, commit)
	})
	t.Run("with a push", func(t *testing.T) {
		h, d, pr := openedHub(t)
		h.before[merge] = func() { h.push("change") }
		_, err := d.Merge(t.Context(), pr.Number, pr.HeadCommit, "Change", "")
		require.ErrorIs(t, err, forge.ErrMoved)
	})
	t.Run("with closing", func(t *testing.T) {
		h, d, pr := openedHub(t)
		h.before[merge] = func() { require.NoError(t, h.driver().Close(t.Context(), pr.Number)) }
		_, err := d.Merge(t.Context(), pr.Number, pr.HeadCommit, "Change", "")
		require.ErrorIs(t, err, forge.ErrNotMergeable)
	})
	t.Run("with a label", func(t *testing.T) {
		h, d, pr := openedHub(t)
		h.before["POST /repos/fairway/config/labels"] = func() { h.labels["promotion"] = true }
		require.NoError(t, d.AddLabels(t.Context(), pr.Number, "promotion"))
	})
	t.Run("with the same comment", func(t *testing.T) {
		h, d, pr := openedHub(t)
		h.before["POST /repos/fairway/config/issues/2/comments"] = func() {
			require.NoError(t, h.driver().Comment(t.Context(), pr.Number, "fairway:state", "It waits."))
		}
		require.NoError(t, d.Comment(t.Context(), pr.Number, "fairway:state", "It waits."))
		require.Len(t, h.comments, 2)
		require.NoError(t, d.Comment(t.Context(), pr.Number, "fairway:state", "It waits."))
		require.Len(t, h.comments, 1, "the double is still there")
	})
}

func TestNothingIsDoneTwiceWhereAnswersAreLost(t *testing.T) {
	const repo = " /repos/fairway/config"
	h := newHub(t)
	d := h.driver()
	head := h.push("change")
	wanted := forge.NewPullRequest{Head: "change", Base: "dev", Title: "Change", Labels: []string{"promotion"}, Reviewers: []string{"reviewer"}}
	open := func() (err error) { _, err = d.Open(t.Context(), wanted); return err }
	for _, c := range []struct {
		request string
		goOn    bool
		do      func() error
	}{
		{"POST" + repo + "/pulls", true, open},
		{"POST" + repo + "/labels", true, open},
		{"POST" + repo + "/issues/2/labels", true, open},
		{"POST" + repo + "/pulls/2/requested_reviewers", false, open},
		{"POST" + repo + "/issues/2/comments", false, func() error { return d.Comment(t.Context(), 2, "fairway:state", "It waits.") }},
		{"PATCH" + repo + "/issues/comments/3", false, func() error { return d.Comment(t.Context(), 2, "fairway:state", "It is merged.") }},
		{"POST" + repo + "/statuses/" + head, false, func() error {
			return d.SetStatus(t.Context(), head, forge.Status{Context: "soak", State: forge.Success})
		}},
		{"DELETE" + repo + "/issues/2/labels/promotion", false, func() error { return d.RemoveLabel(t.Context(), 2, "promotion") }},
		{"PUT" + repo + "/pulls/2/merge", false, func() (err error) { _, err = d.Merge(t.Context(), 2, head, "Change", ""); return err }},
	} {
		h.cut[c.request] = true
		require.ErrorIs(t, c.do(), forge.ErrUnreachable, c.request)
		require.Empty(t, h.cut, c.request)
		if c.goOn {
			continue // the next attempt is cut off at the next step
		}
		require.NoError(t, c.do(), c.request)
		require.NoError(t, c.do(), c.request)
	}
	require.Len(t, h.pulls, 1)
	require.Len(t, h.comments, 1)
	require.Len(t, h.statuses, 1)
	require.Len(t, h.pulls[2].object["requested_reviewers"], 1)
	require.Empty(t, h.pulls[2].object["labels"])
}

func TestForksAreNotOurs(t *testing.T) {
	h, d, pr := openedHub(t)
	require.False(t, pr.Fork)
	h.pulls[2].object["head"].(object)["repo"] = object{"full_name": "fairway-fork/config"}
	found, err := d.FindPullRequest(t.Context(), "dev", "change")
	require.NoError(t, err)
	require.Nil(t, found)
	pr, err = d.PullRequest(t.Context(), 2)
	require.NoError(t, err)
	require.True(t, pr.Fork)
	h.pulls[2].object["head"].(object)["repo"] = nil // it was deleted
	pr, err = d.PullRequest(t.Context(), 2)
	require.NoError(t, err)
	require.True(t, pr.Fork)
}

func TestWhoClosedMayBeUnknown(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/issues/") {
			w.WriteHeader(http.StatusForbidden)
		}
		fmt.Fprint(w, `{"number": 7, "state": "closed"}`)
	}))
	defer server.Close()
	pr, err := driverFor(t, "github", server.URL).PullRequest(t.Context(), 7)
	require.NoError(t, err)
	require.Equal(t, forge.Closed, pr.State)
	require.Empty(t, pr.ClosedBy)
}

func TestGitHubMergeAnswers(t *testing.T) {
	h, _, pr := openedHub(t)
	require.Equal(t, 2, pr.Number)
	for _, c := range []struct {
		status  int
		message string
		kind    error
	}{
		{405, "Base branch was modified. Review and try the merge again.", forge.ErrNotMergeable},
		{405, "Merge commits are not allowed on this repository.", forge.ErrNotMergeable},
		{409, "Head branch was modified. Review and try the merge again.", forge.ErrMoved},
		{422, "Required status check \"conformance\" is expected.", forge.ErrNotMergeable},
		{403, "Resource not accessible by integration", forge.ErrRefused},
		{404, "Not Found", forge.ErrNotFound},
		{502, "Server Error", forge.ErrUnreachable},
	} {
		hub := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPut {
				w.WriteHeader(c.status)
				require.NoError(t, json.NewEncoder(w).Encode(object{"message": c.message}))
				return
			}
			require.NoError(t, json.NewEncoder(w).Encode(h.pulls[2].object))
		}))
		defer hub.Close()
		_, err := driverFor(t, "github", hub.URL).Merge(t.Context(), pr.Number, pr.HeadCommit, "Change", "")
		require.ErrorIs(t, err, c.kind, c.message)
		require.ErrorContains(t, err, c.message)
	}
}

func TestGitHubReviews(t *testing.T) {
	h, d, pr := openedHub(t)
	old := pr.HeadCommit
	h.review(2, "anna", "CHANGES_REQUESTED", old)
	h.review(2, "bert", "APPROVED", old)
	h.review(2, "anna", "COMMENTED", old)
	h.review(2, "bert", "PENDING", old)
	h.review(2, "carl", "APPROVED", old)
	head := h.push("change")
	h.review(2, "Carl", "APPROVED", head)
	h.pulls[2].reviews = append(h.pulls[2].reviews, object{"id": 999, "user": nil, "state": "APPROVED", "commit_id": head}, nil)
	reviews, err := d.Reviews(t.Context(), 2)
	require.NoError(t, err)
	var said []string
	for _, r := range reviews {
		said = append(said, fmt.Sprint(r.User, " ", r.State, " ", r.Commit == head))
	}
	require.Equal(t, []string{"anna rejected false", "bert dismissed false", "Carl approved true"}, said)
}

func TestGitHubCheckRuns(t *testing.T) {
	h := newHub(t)
	commit := hubCommit("checked")
	h.runs = []object{
		{"name": "built", "status": "completed", "conclusion": "success", "completed_at": "2026-11-01T10:00:00Z", "output": object{"title": "All fine"}},
		{"name": "linted", "status": "in_progress", "started_at": "2026-11-01T10:00:00Z"},
		{"name": "skipped", "status": "completed", "conclusion": "skipped"},
		{"name": "cancelled", "status": "completed", "conclusion": "cancelled"},
		{"name": "twice", "status": "completed", "conclusion": "success", "app": object{"slug": "one"}},
		{"name": "twice", "status": "completed", "conclusion": "timed_out", "app": object{"slug": "other"}},
		{"name": "conformance", "status": "completed", "conclusion": "success"},
		nil,
	}
	h.statuses = []object{{"sha": commit, "context": "conformance", "state": "error", "updated_at": "2026-11-01T10:00:00Z"}}
	statuses, err := h.driver().Statuses(t.Context(), commit)
	require.NoError(t, err)
	states := map[string]forge.StatusState{}
	for _, s := range statuses {
		states[s.Context] = s.State
	}
	delete(states, "") // of what is no check run
	require.Equal(t, map[string]forge.StatusState{
		"built": forge.Success, "linted": forge.Pending, "skipped": forge.Success, "cancelled": forge.Failure, "twice": forge.Failure, "conformance": forge.Failure,
	}, states)
	require.Equal(t, "All fine", statuses[slices.IndexFunc(statuses, func(s forge.Status) bool { return s.Context == "built" })].Description)
}

func TestListsAreBounded(t *testing.T) {
	var asked int
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked++
		page, _ := strconv.Atoi(cmp.Or(r.URL.Query().Get("page"), "1"))
		w.Header().Set("Link", fmt.Sprintf(`<http://%s%s?page=%d>; rel="next"`, r.Host, r.URL.Path, page+1))
		item := object{"id": page, "number": page, "state": "open", "login": "operator"}
		var out any = slices.Repeat([]object{item}, 100)
		if strings.HasSuffix(r.URL.Path, "/user") {
			out = item
		}
		require.NoError(t, json.NewEncoder(w).Encode(out))
	}))
	defer server.Close()
	for _, kind := range []string{"github", "gitea"} {
		d := driverFor(t, kind, server.URL)
		asked = 0
		list, err := d.PullRequests(t.Context(), forge.Filter{})
		require.NoError(t, err)
		require.Len(t, list, 1000)
		require.Equal(t, 10, asked)
		_, err = d.Reviews(t.Context(), 1)
		require.ErrorContains(t, err, "more than 1000 reviews", kind)
	}
	require.ErrorContains(t, driverFor(t, "github", server.URL).Comment(t.Context(), 1, "m", "text"), "more than 1000 comments")
}

func TestPagesGoOn(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Link", fmt.Sprintf(`<http://%s%s?page=1>; rel="next"`, r.Host, r.URL.Path))
		fmt.Fprint(w, `[{"number": 1}]`)
	}))
	defer server.Close()
	_, err := driverFor(t, "github", server.URL).PullRequests(t.Context(), forge.Filter{})
	require.ErrorIs(t, err, forge.ErrUnreachable)
	require.ErrorContains(t, err, "page 1 of its pull requests is followed by page 1")
}

func TestAddresses(t *testing.T) {
	for page, api := range map[string]string{
		"":                          "https://api.github.com",
		"https://github.com":        "https://api.github.com",
		"https://github.com/":       "https://api.github.com",
		"https://acme.ghe.com":      "https://api.acme.ghe.com",
		"https://git.example.org":   "https://git.example.org/api/v3",
		"https://example.org/hub/":  "https://example.org/hub/api/v3",
		"http://127.0.0.1:8080/hub": "http://127.0.0.1:8080/hub/api/v3",
	} {
		if page != "" {
			address, err := url.Parse(strings.TrimRight(page, "/"))
			require.NoError(t, err)
			require.Equal(t, api, forge.APIOf(address))
		}
		d, err := forge.New(forge.Settings{Kind: "github", URL: page, Owner: "fairway", Repository: "config", Token: func() (string, error) { return "", nil }})
		require.NoError(t, err, page)
		require.Equal(t, cmp.Or(strings.TrimRight(page, "/"), "https://github.com")+"/fairway/config/compare/stable...dev", d.CompareURL("stable", "dev"))
	}
}

func TestManyCommentsOfOthersHideNotOurs(t *testing.T) {
	var edited int
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		page, _ := strconv.Atoi(cmp.Or(r.URL.Query().Get("page"), "1"))
		w.Header().Set("Link", fmt.Sprintf(`<http://%s%s?page=%d>; rel="next"`, r.Host, r.URL.Path, page+1))
		others := slices.Repeat([]object{{"id": 1000 + page, "user": object{"login": "mallory"}, "body": "<!-- m -->\nno"}}, 99)
		ours := object{"id": page, "user": object{"login": "fairway"}, "body": "nothing of note"}
		if page == 1 {
			ours["body"] = "<!-- m -->\nold"
		}
		var out any = append(others, ours)
		switch {
		case strings.HasSuffix(r.URL.Path, "/user"):
			out = object{"login": "fairway"}
		case r.Method == http.MethodPatch && strings.HasSuffix(r.URL.Path, "/comments/1"):
			edited++
			out = ours
		}
		require.NoError(t, json.NewEncoder(w).Encode(out))
	}))
	defer server.Close()
	d := driverFor(t, "github", server.URL)
	text, found, err := d.OwnComment(t.Context(), 1, "m")
	require.NoError(t, err)
	require.True(t, found)
	require.Equal(t, "old", text)
	require.NoError(t, d.Comment(t.Context(), 1, "m", "new"))
	require.Equal(t, 1, edited)
	_, _, err = d.OwnComment(t.Context(), 1, "other")
	require.ErrorContains(t, err, "more than 1000 comments", "it may be among the rest")
}

func TestLongTextsAreCutAfterALine(t *testing.T) {
	var sent string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPatch {
			var in struct{ Body string }
			require.NoError(t, json.NewDecoder(r.Body).Decode(&in))
			sent = in.Body
		}
		require.NoError(t, json.NewEncoder(w).Encode(object{"number": 1, "state": "open"}))
	}))
	defer server.Close()
	for _, kind := range []string{"github", "gitea"} {
		line := "- `" + strings.Repeat("@everyone ", 11) + "`\n"
		require.NoError(t, driverFor(t, kind, server.URL).Edit(t.Context(), 1, "title", strings.Repeat(line, 1000)))
		require.LessOrEqual(t, len(sent), 60_000)
		require.True(t, strings.HasSuffix(sent, "`\n…"), "%s: code that is left open is none: %q", kind, sent[len(sent)-20:])
	}
}

func TestALabelIsFoundBehindManyEvents(t *testing.T) {
	h, d, pr := openedHub(t)
	require.NoError(t, d.AddLabels(t.Context(), pr.Number, "ready-to-test"))
	for range 9 { // two are on a page
		h.event(pr.Number, "renamed", "")
	}
	event, found, err := d.Labelled(t.Context(), pr.Number, "ready-to-test")
	require.NoError(t, err)
	require.True(t, found)
	require.Equal(t, "fairway-bot", event.By)
	for range 30 {
		h.event(pr.Number, "renamed", "")
	}
	_, _, err = d.Labelled(t.Context(), pr.Number, "ready-to-test")
	require.ErrorContains(t, err, "do not say it", "there is an end to looking")
}

func TestWhereTheHeadsRepositoryIsGoneNobodyKnowsWhenItWasPushed(t *testing.T) {
	_, d, pr := openedHub(t)
	pr.HeadRepository = ""
	_, err := d.PushedAt(t.Context(), pr)
	require.ErrorIs(t, err, forge.ErrNotFound)
}
