package forge

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"code.gitea.io/sdk/gitea"
)

// giteaForge is the driver for Gitea. What its SDK cannot ask, such as for a filter or the reason why
// nothing is merged, is asked by plain requests.
type giteaForge struct {
	settings Settings
	page     *url.URL
	client   *http.Client

	mu   sync.Mutex
	self string
}

func newGitea(settings Settings, page *url.URL) *giteaForge {
	return &giteaForge{settings: settings, page: page, client: newClient(newTransport(page, settings.Token), settings.Timeout)}
}

// sdk returns a client for one call, since its contexts are those of clients. An empty version spares
// asking for it, which some builds answer with "development".
func (g *giteaForge) sdk(ctx context.Context) *gitea.Client {
	client, err := gitea.NewClient(g.page.String(), gitea.SetContext(ctx), gitea.SetGiteaVersion(""), gitea.SetHTTPClient(g.client), gitea.SetUserAgent("fairway"))
	if err != nil {
		panic(err) // only by an option
	}
	return client
}

// do sends a plain request below the repository. An answer without content leaves out as it is.
func (g *giteaForge) do(ctx context.Context, method, path string, query url.Values, in, out any) (*http.Response, error) {
	var body io.Reader
	if in != nil {
		data, err := json.Marshal(in)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(data)
	}
	address := g.page.String() + "/api/v1/repos/" + g.settings.Owner + "/" + g.settings.Repository + path
	request, err := http.NewRequestWithContext(ctx, method, address+"?"+query.Encode(), body)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Accept", "application/json")
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("User-Agent", "fairway")
	response, err := g.client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if out == nil {
		return response, nil
	}
	if err := json.NewDecoder(response.Body).Decode(out); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return response, nil
}

func (g *giteaForge) PullRequest(ctx context.Context, number int) (PullRequest, error) {
	found, err := g.pullRequest(ctx, number)
	if err != nil {
		return PullRequest{}, err
	}
	pr := g.convert(found)
	switch pr.State {
	case Merged: // the branch, whose commit Gitea names, may have gone on
		refs, _, err := g.sdk(ctx).GetRepoRefs(g.settings.Owner, g.settings.Repository, "pull/"+strconv.Itoa(number)+"/head")
		if err != nil {
			return PullRequest{}, failure(ctx, err, "reading what pull request %d merged", number)
		}
		for _, ref := range refs {
			if ref != nil && ref.Object != nil && strings.HasSuffix(ref.Ref, "/"+strconv.Itoa(number)+"/head") {
				pr.HeadCommit = ref.Object.SHA
			}
		}
	case Closed: // only the timeline knows who did it
		events, err := g.timeline(ctx, number, since(found.Closed))
		if err != nil {
			return PullRequest{}, failure(ctx, err, "reading who closed pull request %d", number)
		}
		for _, event := range events {
			if event.Type == "close" {
				pr.ClosedBy = login(event.User)
			}
		}
	}
	return pr, nil
}

// giteaEvent is an entry of a timeline; the SDK does not read all that Gitea writes there.
type giteaEvent struct {
	Type    string       `json:"type"`
	User    *gitea.User  `json:"user"`
	Body    string       `json:"body"`
	Label   *gitea.Label `json:"label"`
	Created time.Time    `json:"created_at"`
}

// timeline reads what has happened to a pull request since a moment, the oldest first. It is all on one page: the
// pages that Gitea makes may be empty in between, as it leaves things out, and it does not say how many there are.
func (g *giteaForge) timeline(ctx context.Context, number int, since time.Time) ([]giteaEvent, error) {
	query := url.Values{}
	if !since.IsZero() {
		query.Set("since", since.Format(time.RFC3339))
	}
	var events []giteaEvent
	_, err := g.do(ctx, http.MethodGet, "/issues/"+strconv.Itoa(number)+"/timeline", query, nil, &events)
	return events, err
}

func (g *giteaForge) pullRequest(ctx context.Context, number int) (*gitea.PullRequest, error) {
	found, _, err := g.sdk(ctx).GetPullRequest(g.settings.Owner, g.settings.Repository, int64(number))
	if err == nil && found.Index != int64(number) {
		err = errors.New("its answer is about another one")
	}
	return found, failure(ctx, err, "reading pull request %d", number)
}

func (g *giteaForge) FindPullRequest(ctx context.Context, base, head string) (*PullRequest, error) {
	found, err := g.find(ctx, base, head, "all")
	if found == nil || err != nil {
		return nil, failure(ctx, err, "looking for a pull request from %s into %s", clean(head), clean(base))
	}
	pr := g.convert(found)
	return &pr, nil
}

// find goes through the pull requests into a branch from the newest on: asked for one by base and head,
// Gitea returns the first one that there ever was.
func (g *giteaForge) find(ctx context.Context, base, head, state string) (*gitea.PullRequest, error) {
	if base == "" || head == "" {
		return nil, wrong("a branch is missing")
	}
	var found *gitea.PullRequest
	_, err := collect("pull requests", true, func(page int) ([]*gitea.PullRequest, int, error) {
		list, next, err := g.list(ctx, page, base, state)
		for _, pr := range list {
			if c := g.convert(pr); c.Head == head && c.Base == base && !c.Fork {
				found = pr
				return list, 0, nil
			}
		}
		return list, next, err
	})
	return found, err
}

func (g *giteaForge) list(ctx context.Context, page int, base, state string) ([]*gitea.PullRequest, int, error) {
	query := url.Values{"state": {state}, "page": {strconv.Itoa(page)}, "limit": {strconv.Itoa(giteaItems)}}
	if base != "" {
		query.Set("base_branch", base)
	}
	var list []*gitea.PullRequest
	response, err := g.do(ctx, http.MethodGet, "/pulls", query, nil, &list)
	return list, after(response, page, len(list)), err
}

func (g *giteaForge) PullRequests(ctx context.Context, filter Filter) ([]PullRequest, error) {
	state := "all"
	switch filter.State {
	case Open:
		state = "open"
	case Merged, Closed:
		state = "closed"
	}
	found, err := collect("pull requests", true, func(page int) ([]*gitea.PullRequest, int, error) {
		return g.list(ctx, page, filter.Base, state)
	})
	if err != nil {
		return nil, failure(ctx, err, "listing pull requests")
	}
	var all []PullRequest
	for _, pr := range found {
		all = append(all, g.convert(pr))
	}
	return filtered(all, filter), nil
}

func (g *giteaForge) Open(ctx context.Context, wanted NewPullRequest) (PullRequest, error) {
	found, err := g.find(ctx, wanted.Base, wanted.Head, "open")
	if err == nil && found == nil {
		found, _, err = g.sdk(ctx).CreatePullRequest(g.settings.Owner, g.settings.Repository, gitea.CreatePullRequestOption{
			Head: wanted.Head, Base: wanted.Base, Title: cut(wanted.Title, mostTitle), Body: cutText(wanted.Body),
		})
		if isStatus(err, http.StatusConflict) { // somebody was faster
			if faster, findErr := g.find(ctx, wanted.Base, wanted.Head, "open"); findErr == nil && faster != nil {
				found, err = faster, nil
			}
		}
	}
	if err == nil && found.Index == 0 {
		err = errors.New("its answer names no pull request")
	}
	if err != nil {
		return PullRequest{}, failure(ctx, err, "opening a pull request from %s into %s", clean(wanted.Head), clean(wanted.Base))
	}
	var requested []string
	for _, user := range found.RequestedReviewers {
		requested = append(requested, login(user))
	}
	pr := g.convert(found)
	return opened(ctx, g, pr, wanted, requested, func(user string) error {
		_, err := g.sdk(ctx).CreateReviewRequests(g.settings.Owner, g.settings.Repository, int64(pr.Number), gitea.PullReviewRequestOptions{Reviewers: []string{user}})
		return err
	})
}

func (g *giteaForge) Edit(ctx context.Context, number int, title, body string) error {
	body = cutText(body)
	_, _, err := g.sdk(ctx).EditPullRequest(g.settings.Owner, g.settings.Repository, int64(number), gitea.EditPullRequestOption{Title: cut(title, mostTitle), Body: &body})
	return failure(ctx, err, "editing pull request %d", number)
}

func (g *giteaForge) Close(ctx context.Context, number int) error {
	found, err := g.pullRequest(ctx, number)
	if err != nil || found.State == gitea.StateClosed {
		return err
	}
	closed := gitea.StateClosed
	_, _, err = g.sdk(ctx).EditPullRequest(g.settings.Owner, g.settings.Repository, int64(number), gitea.EditPullRequestOption{State: &closed})
	return failure(ctx, err, "closing pull request %d", number)
}

func (g *giteaForge) Merge(ctx context.Context, number int, head, title, message string) (string, error) {
	return merged(ctx, g, number, head, func() (string, error) {
		_, err := g.do(ctx, http.MethodPost, "/pulls/"+strconv.Itoa(number)+"/merge", nil, gitea.MergePullRequestOption{
			Style: gitea.MergeStyleMerge, Title: title, Message: message, HeadCommitId: head,
		}, nil)
		var refused *refusal
		if errors.As(err, &refused) {
			switch {
			case refused.status == http.StatusConflict && strings.Contains(refused.text, "head out of date"):
				refused.kind = ErrMoved
			case refused.status == http.StatusConflict, refused.status == http.StatusMethodNotAllowed:
				refused.kind = ErrNotMergeable
			}
		}
		return "", err // the answer does not name the commit
	})
}

func (g *giteaForge) Reviews(ctx context.Context, number int) ([]Review, error) {
	found, err := collect("reviews", false, func(page int) ([]*gitea.PullReview, int, error) {
		list, response, err := g.sdk(ctx).ListPullReviews(g.settings.Owner, g.settings.Repository, int64(number), gitea.ListPullReviewsOptions{ListOptions: giteaPage(page)})
		return list, after(raw(response), page, len(list)), err
	})
	if err != nil {
		return nil, failure(ctx, err, "reading the reviews of pull request %d", number)
	}
	states := map[gitea.ReviewStateType]Verdict{gitea.ReviewStateApproved: Approved, gitea.ReviewStateRequestChanges: Rejected}
	var verdicts []verdict
	for _, r := range found {
		if r == nil || states[r.State] == "" || login(r.Reviewer) == "" {
			continue
		}
		state := states[r.State]
		// Somebody who wanted changes has not looked at them yet: that stands.
		if r.Dismissed || r.Stale && state == Approved {
			state = Dismissed
		}
		verdicts = append(verdicts, verdict{Review{r.Reviewer.UserName, r.CommitID, state, r.Submitted}, r.ID})
	}
	return newest(verdicts), nil
}

func (g *giteaForge) Member(ctx context.Context, team, user string) (bool, error) {
	organisation, slug, err := teamOf(team, g.settings.Owner)
	if err = cmp.Or(err, checkUser(user)); err != nil {
		return false, err
	}
	teams, err := collect("teams", false, func(page int) ([]*gitea.Team, int, error) {
		list, response, err := g.sdk(ctx).SearchOrgTeams(organisation, &gitea.SearchTeamsOptions{ListOptions: giteaPage(page), Query: slug})
		return list, after(raw(response), page, len(list)), err
	})
	if err != nil {
		return false, failure(ctx, err, "reading team %s/%s", organisation, slug)
	}
	for _, found := range teams {
		if found == nil || !strings.EqualFold(found.Name, slug) {
			continue
		}
		_, _, err := g.sdk(ctx).GetTeamMember(found.ID, user)
		if isStatus(err, http.StatusNotFound) {
			return false, nil
		}
		return err == nil, failure(ctx, err, "reading team %s/%s", organisation, slug)
	}
	return false, failure(ctx, &refusal{kind: ErrNotFound, text: "it knows no such team"}, "reading team %s/%s", organisation, slug)
}

func (g *giteaForge) CanWrite(ctx context.Context, user string) (bool, error) {
	if err := checkUser(user); err != nil {
		return false, err
	}
	result, _, err := g.sdk(ctx).CollaboratorPermission(g.settings.Owner, g.settings.Repository, user)
	if isStatus(err, http.StatusNotFound) {
		return false, nil
	}
	if err != nil || result == nil {
		return false, failure(ctx, cmp.Or(err, errors.New("its answer is empty")), "reading what %s may do", user)
	}
	switch result.Permission {
	case gitea.AccessModeWrite, gitea.AccessModeAdmin, gitea.AccessModeOwner:
		return true, nil
	}
	return false, nil
}

func (g *giteaForge) Statuses(ctx context.Context, commit string) ([]Status, error) {
	if err := checkCommit(commit); err != nil {
		return nil, err
	}
	found, err := collect("statuses", false, func(page int) ([]*gitea.Status, int, error) {
		var combined gitea.CombinedStatus
		query := url.Values{"page": {strconv.Itoa(page)}, "limit": {strconv.Itoa(giteaItems)}}
		response, err := g.do(ctx, http.MethodGet, "/commits/"+commit+"/status", query, nil, &combined)
		return combined.Statuses, after(response, page, len(combined.Statuses)), err
	})
	if err != nil {
		return nil, failure(ctx, err, "reading the statuses of %s", commit)
	}
	var statuses []Status
	for _, s := range found {
		if s == nil {
			continue
		}
		status := Status{Context: s.Context, State: Failure, Description: s.Description, URL: s.TargetURL, At: s.Updated}
		switch s.State {
		case gitea.StatusPending:
			status.State = Pending
		case gitea.StatusSuccess, "skipped":
			status.State = Success
		}
		statuses = append(statuses, status)
	}
	return worst(statuses), nil
}

func (g *giteaForge) SetStatus(ctx context.Context, commit string, status Status) error {
	status, err := checkStatus(status)
	if err != nil {
		return err
	}
	has, err := g.Statuses(ctx, commit)
	if err != nil || set(has, status) {
		return err
	}
	_, _, err = g.sdk(ctx).CreateStatus(g.settings.Owner, g.settings.Repository, commit, gitea.CreateStatusOption{
		State: gitea.StatusState(status.State), TargetURL: status.URL, Description: status.Description, Context: status.Context,
	})
	return failure(ctx, err, "setting status %s of %s", clean(status.Context), commit)
}

func (g *giteaForge) Comment(ctx context.Context, number int, marker, text string) error {
	return keepComment(ctx, g, number, marker, text)
}

func (g *giteaForge) OwnComment(ctx context.Context, number int, marker string) (string, bool, error) {
	return ownComment(ctx, g, number, marker)
}

// comments reads them all at once, which is how Gitea lists them.
func (g *giteaForge) comments(ctx context.Context, number int) ([]comment, error) {
	found, _, err := g.sdk(ctx).ListIssueComments(g.settings.Owner, g.settings.Repository, int64(number), gitea.ListIssueCommentOptions{})
	if isStatus(err, http.StatusInternalServerError) { // which is Gitea's answer, too, if there is no such pull request
		if _, missing := g.pullRequest(ctx, number); errors.Is(missing, ErrNotFound) {
			err = missing
		}
	}
	var all []comment
	for _, c := range found {
		if c != nil {
			all = append(all, comment{c.ID, login(c.Poster), c.Body})
		}
	}
	return all, err
}

func (g *giteaForge) addComment(ctx context.Context, number int, body string) error {
	_, _, err := g.sdk(ctx).CreateIssueComment(g.settings.Owner, g.settings.Repository, int64(number), gitea.CreateIssueCommentOption{Body: body})
	return err
}

func (g *giteaForge) editComment(ctx context.Context, id int64, body string) error {
	_, _, err := g.sdk(ctx).EditIssueComment(g.settings.Owner, g.settings.Repository, id, gitea.EditIssueCommentOption{Body: body})
	return err
}

func (g *giteaForge) deleteComment(ctx context.Context, id int64) error {
	_, err := g.sdk(ctx).DeleteIssueComment(g.settings.Owner, g.settings.Repository, id)
	if isStatus(err, http.StatusNotFound) {
		return nil
	}
	return err
}

func (g *giteaForge) AddLabels(ctx context.Context, number int, labels ...string) error {
	if err := checkLabels(labels); err != nil {
		return err
	}
	known, err := collect("labels", false, func(page int) ([]*gitea.Label, int, error) {
		list, response, err := g.sdk(ctx).ListRepoLabels(g.settings.Owner, g.settings.Repository, gitea.ListLabelsOptions{ListOptions: giteaPage(page)})
		return list, after(raw(response), page, len(list)), err
	})
	if err != nil {
		return failure(ctx, err, "listing labels")
	}
	var ids []int64
	for _, label := range labels {
		id := labelID(known, label)
		if id == 0 {
			made, _, err := g.sdk(ctx).CreateLabel(g.settings.Owner, g.settings.Repository, gitea.CreateLabelOption{Name: label, Color: "#" + labelColour})
			if err != nil {
				return failure(ctx, err, "making label %s", clean(label))
			}
			id, known = made.ID, append(known, made)
		}
		ids = append(ids, id)
	}
	_, _, err = g.sdk(ctx).AddIssueLabels(g.settings.Owner, g.settings.Repository, int64(number), gitea.IssueLabelsOption{Labels: ids})
	return failure(ctx, err, "labelling pull request %d", number)
}

func (g *giteaForge) RemoveLabel(ctx context.Context, number int, label string) error {
	found, err := g.pullRequest(ctx, number)
	if err != nil {
		return err
	}
	id := labelID(found.Labels, label)
	if id == 0 {
		return nil
	}
	_, err = g.sdk(ctx).DeleteIssueLabel(g.settings.Owner, g.settings.Repository, int64(number), id)
	if isStatus(err, http.StatusNotFound) {
		return nil
	}
	return failure(ctx, err, "removing label %s of pull request %d", clean(label), number)
}

func (g *giteaForge) Labelled(ctx context.Context, number int, label string) (LabelEvent, bool, error) {
	events, err := g.timeline(ctx, number, time.Time{})
	if err != nil {
		return LabelEvent{}, false, failure(ctx, err, "reading who set label %s of pull request %d", clean(label), number)
	}
	for _, event := range slices.Backward(events) { // the body of one that was removed is empty
		if event.Type == "label" && event.Body == "1" && event.Label != nil && strings.EqualFold(event.Label.Name, label) {
			return LabelEvent{By: login(event.User), At: event.Created}, true, nil
		}
	}
	return LabelEvent{}, false, nil
}

func (g *giteaForge) PushedAt(ctx context.Context, pr PullRequest) (time.Time, error) {
	const doing = "reading when the head of pull request %d was pushed"
	events, err := g.timeline(ctx, pr.Number, time.Time{})
	if err != nil {
		return time.Time{}, failure(ctx, err, doing, pr.Number)
	}
	for _, event := range slices.Backward(events) {
		if event.Type != "pull_push" {
			continue
		}
		var push struct {
			Commits []string `json:"commit_ids"` // of a push with force, the head before and after
		}
		if json.Unmarshal([]byte(event.Body), &push) != nil || !slices.Contains(push.Commits, pr.HeadCommit) {
			return time.Time{}, failure(ctx, notNoted(pr), doing, pr.Number)
		}
		return later(event.Created, pr.Created), nil
	}
	return pr.Created, nil
}

func (g *giteaForge) PullRequestsOf(ctx context.Context, commit string) ([]PullRequest, error) {
	if err := checkCommit(commit); err != nil {
		return nil, err
	}
	var found gitea.PullRequest
	_, err := g.do(ctx, http.MethodGet, "/commits/"+commit+"/pull", nil, nil, &found)
	if isStatus(err, http.StatusNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, failure(ctx, err, "looking for the pull requests of %s", commit)
	}
	return filtered([]PullRequest{g.convert(&found)}, Filter{State: Merged}), nil
}

func (g *giteaForge) CompareURL(base, head string) string {
	return comparePage(g.page, g.settings, base, head)
}

func (g *giteaForge) Self(ctx context.Context) (string, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.self != "" {
		return g.self, nil
	}
	user, _, err := g.sdk(ctx).GetMyUserInfo()
	if err == nil && login(user) == "" {
		err = errors.New("it does not say whom the token belongs to")
	}
	if err != nil {
		return "", failure(ctx, err, "asking whom the token belongs to")
	}
	g.self = user.UserName
	return g.self, nil
}

func (g *giteaForge) convert(p *gitea.PullRequest) PullRequest {
	if p == nil {
		p = &gitea.PullRequest{}
	}
	base, head := cmp.Or(p.Base, &gitea.PRBranchInfo{}), cmp.Or(p.Head, &gitea.PRBranchInfo{})
	pr := PullRequest{
		Number: int(p.Index), URL: p.HTMLURL, Title: p.Title, Body: p.Body, Author: login(p.Poster),
		// The name of a branch that is gone is only here.
		Head: head.Name, Base: base.Name, HeadCommit: head.Sha, Fork: head.RepoID != base.RepoID,
		Draft: p.Draft, State: Open, Created: at(p.Created), Updated: at(p.Updated),
	}
	if head.Repository != nil {
		pr.HeadRepository = head.Repository.FullName
	}
	for _, label := range p.Labels {
		if label != nil {
			pr.Labels = append(pr.Labels, label.Name)
		}
	}
	switch {
	case p.HasMerged:
		pr.State, pr.MergedBy = Merged, login(p.MergedBy)
		if p.MergedCommitID != nil {
			pr.Merge = *p.MergedCommitID
		}
	case p.State == gitea.StateClosed:
		pr.State = Closed
	}
	return pr
}

// giteaItems is the most that Gitea puts on a page by default.
const giteaItems = 50

func giteaPage(page int) gitea.ListOptions {
	return gitea.ListOptions{Page: page, PageSize: giteaItems}
}

func raw(response *gitea.Response) *http.Response {
	if response == nil {
		return nil
	}
	return response.Response
}

// after returns the page after this one, 0 if it was the last. Not all of Gitea's lists link to the next page, but
// all say how much there is; a server may put less on a page than is asked for.
func after(response *http.Response, page, items int) int {
	if response == nil || items == 0 {
		return 0
	}
	total, err := strconv.Atoi(response.Header.Get("X-Total-Count"))
	if err == nil && page == 1 && items >= total {
		return 0
	}
	return page + 1
}

func labelID(labels []*gitea.Label, name string) int64 {
	for _, label := range labels {
		if label != nil && strings.EqualFold(label.Name, name) {
			return label.ID
		}
	}
	return 0
}

func login(user *gitea.User) string {
	if user == nil {
		return ""
	}
	return user.UserName
}

func at(moment *time.Time) time.Time {
	if moment == nil {
		return time.Time{}
	}
	return *moment
}

// since is a moment before, as whole seconds are all that Gitea keeps.
func since(moment *time.Time) time.Time {
	if moment == nil {
		return time.Time{}
	}
	return moment.Add(-time.Second)
}
