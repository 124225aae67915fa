package forge

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/go-github/v90/github"
)

// gitHub is the driver for GitHub and GitHub Enterprise.
type gitHub struct {
	settings Settings
	page     *url.URL // of the forge, for people
	client   *github.Client
	// app speaks as the app itself, which its installations cannot; nil with a token.
	app *github.Client

	mu   sync.Mutex
	self string
}

func newGitHub(settings Settings, page *url.URL) (*gitHub, error) {
	api := apiOf(page)
	g := &gitHub{settings: settings, page: page}
	var installation, app http.RoundTripper = newTransport(api, settings.Token), nil
	if settings.App != nil {
		installation, app = appTransports(api, settings.App)
	}
	var err error
	if g.client, err = gitHubClient(api, installation, settings); err != nil || app == nil {
		return g, err
	}
	g.app, err = gitHubClient(api, app, settings)
	return g, err
}

// The library's own look at limits is left out: the transport has one for everything that it sends.
func gitHubClient(api *url.URL, with http.RoundTripper, settings Settings) (*github.Client, error) {
	base := api.String() + "/"
	return github.NewClient(github.WithHTTPClient(newClient(with, settings.Timeout)), github.WithURLs(&base, nil),
		github.WithUserAgent("fairway"), github.WithDisableRateLimitCheck())
}

// apiOf is where the API is for an address for people: on a host of its own at GitHub itself, also for
// enterprises with their own domain there, and below /api/v3 on Enterprise Server.
func apiOf(page *url.URL) *url.URL {
	host := strings.ToLower(page.Host)
	switch {
	case host == "github.com" || host == "www.github.com":
		return &url.URL{Scheme: page.Scheme, Host: "api.github.com"}
	case strings.HasSuffix(host, ".ghe.com"):
		return &url.URL{Scheme: page.Scheme, Host: "api." + host}
	}
	return page.JoinPath("api", "v3")
}

func (g *gitHub) PullRequest(ctx context.Context, number int) (PullRequest, error) {
	found, err := g.pullRequest(ctx, number)
	if err != nil {
		return PullRequest{}, err
	}
	pr := g.convert(found)
	if pr.State != Closed {
		return pr, nil
	}
	// Only the issue knows who did it, which the token need not be allowed to read.
	issue, _, err := g.client.Issues.Get(ctx, g.settings.Owner, g.settings.Repository, number)
	if errors.Is(err, ErrRefused) || errors.Is(err, ErrNotFound) {
		return pr, nil
	}
	pr.ClosedBy = issue.GetClosedBy().GetLogin()
	return pr, failure(ctx, err, "reading who closed pull request %d", number)
}

func (g *gitHub) pullRequest(ctx context.Context, number int) (*github.PullRequest, error) {
	found, _, err := g.client.PullRequests.Get(ctx, g.settings.Owner, g.settings.Repository, number)
	if err == nil && found.GetNumber() != number {
		err = errors.New("its answer is about another one")
	}
	return found, failure(ctx, err, "reading pull request %d", number)
}

func (g *gitHub) FindPullRequest(ctx context.Context, base, head string) (*PullRequest, error) {
	found, err := g.find(ctx, base, head, "all")
	if found == nil || err != nil {
		return nil, failure(ctx, err, "looking for a pull request from %s into %s", clean(head), clean(base))
	}
	pr := g.convert(found)
	return &pr, nil
}

func (g *gitHub) find(ctx context.Context, base, head, state string) (*github.PullRequest, error) {
	if base == "" || head == "" {
		return nil, wrong("a branch is missing")
	}
	options := &github.PullRequestListOptions{
		State: state, Base: base, Head: g.settings.Owner + ":" + head, Sort: "created", Direction: "desc", ListOptions: github.ListOptions{PerPage: 30},
	}
	list, _, err := g.client.PullRequests.List(ctx, g.settings.Owner, g.settings.Repository, options)
	if err != nil {
		return nil, err
	}
	var last *github.PullRequest
	for _, pr := range list {
		if pr.GetBase().GetRef() == base && pr.GetHead().GetRef() == head && !g.fork(pr) && pr.GetNumber() > last.GetNumber() {
			last = pr
		}
	}
	return last, nil
}

func (g *gitHub) PullRequests(ctx context.Context, filter Filter) ([]PullRequest, error) {
	state := "all"
	switch filter.State {
	case Open:
		state = "open"
	case Merged, Closed:
		state = "closed"
	}
	found, err := collect("pull requests", true, func(page int) ([]*github.PullRequest, int, error) {
		list, response, err := g.client.PullRequests.List(ctx, g.settings.Owner, g.settings.Repository, &github.PullRequestListOptions{
			State: state, Base: filter.Base, Sort: "created", Direction: "desc", ListOptions: github.ListOptions{Page: page, PerPage: 50},
		})
		return list, next(response), err
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

func (g *gitHub) Open(ctx context.Context, wanted NewPullRequest) (PullRequest, error) {
	const doing = "opening a pull request from %s into %s"
	title, body := cut(wanted.Title, mostTitle), cutText(wanted.Body)
	found, err := g.find(ctx, wanted.Base, wanted.Head, "open")
	if err == nil && found == nil {
		found, _, err = g.client.PullRequests.Create(ctx, g.settings.Owner, g.settings.Repository, github.CreatePullRequest{
			Title: &title, Head: wanted.Head, Base: wanted.Base, Body: &body,
		})
		if isStatus(err, http.StatusUnprocessableEntity) { // somebody may have been faster
			if faster, findErr := g.find(ctx, wanted.Base, wanted.Head, "open"); findErr == nil && faster != nil {
				found, err = faster, nil
			}
		}
	}
	if err == nil && found.GetNumber() == 0 {
		err = errors.New("its answer names no pull request")
	}
	if err != nil {
		return PullRequest{}, failure(ctx, err, doing, clean(wanted.Head), clean(wanted.Base))
	}
	var requested []string
	for _, user := range found.GetRequestedReviewers() {
		requested = append(requested, user.GetLogin())
	}
	pr := g.convert(found)
	return opened(ctx, g, pr, wanted, requested, func(user string) error {
		_, _, err := g.client.PullRequests.RequestReviewers(ctx, g.settings.Owner, g.settings.Repository, pr.Number, github.ReviewersRequest{Reviewers: []string{user}})
		return err
	})
}

func (g *gitHub) Edit(ctx context.Context, number int, title, body string) error {
	title, body = cut(title, mostTitle), cutText(body)
	_, _, err := g.client.PullRequests.Edit(ctx, g.settings.Owner, g.settings.Repository, number, &github.PullRequest{Title: &title, Body: &body})
	return failure(ctx, err, "editing pull request %d", number)
}

func (g *gitHub) Close(ctx context.Context, number int) error {
	found, err := g.pullRequest(ctx, number)
	if err != nil || found.GetState() == "closed" {
		return err
	}
	_, _, err = g.client.PullRequests.Edit(ctx, g.settings.Owner, g.settings.Repository, number, &github.PullRequest{State: github.Ptr("closed")})
	return failure(ctx, err, "closing pull request %d", number)
}

func (g *gitHub) Merge(ctx context.Context, number int, head, title, message string) (string, error) {
	return merged(ctx, g, number, head, func() (string, error) {
		result, _, err := g.client.PullRequests.Merge(ctx, g.settings.Owner, g.settings.Repository, number, message, &github.PullRequestOptions{
			CommitTitle: title, SHA: head, MergeMethod: "merge", DontDefaultIfBlank: true,
		})
		var refused *refusal
		if errors.As(err, &refused) {
			switch refused.status {
			case http.StatusConflict:
				refused.kind = ErrMoved
			case http.StatusMethodNotAllowed, http.StatusUnprocessableEntity:
				refused.kind = ErrNotMergeable
			}
		}
		return result.GetSHA(), err
	})
}

func (g *gitHub) Reviews(ctx context.Context, number int) ([]Review, error) {
	found, err := collect("reviews", false, func(page int) ([]*github.PullRequestReview, int, error) {
		list, response, err := g.client.PullRequests.ListReviews(ctx, g.settings.Owner, g.settings.Repository, number, &github.ListOptions{Page: page, PerPage: 100})
		return list, next(response), err
	})
	if err != nil {
		return nil, failure(ctx, err, "reading the reviews of pull request %d", number)
	}
	states := map[string]Verdict{"APPROVED": Approved, "CHANGES_REQUESTED": Rejected, "DISMISSED": Dismissed}
	var verdicts []verdict
	for _, r := range found {
		if state := states[r.GetState()]; state != "" && r.GetUser().GetLogin() != "" {
			verdicts = append(verdicts, verdict{Review{r.GetUser().GetLogin(), r.GetCommitID(), state, r.GetSubmittedAt().Time}, r.GetID()})
		}
	}
	return newest(verdicts), nil
}

func (g *gitHub) Member(ctx context.Context, team, user string) (bool, error) {
	organisation, slug, err := teamOf(team, g.settings.Owner)
	if err = cmp.Or(err, checkUser(user)); err != nil {
		return false, err
	}
	membership, _, err := g.client.Teams.GetTeamMembershipBySlug(ctx, organisation, slug, user)
	if isStatus(err, http.StatusNotFound) { // the user is not in it, or there is none
		_, _, err = g.client.Teams.GetTeamBySlug(ctx, organisation, slug)
		return false, failure(ctx, err, "reading team %s/%s", organisation, slug)
	}
	return membership.GetState() == "active", failure(ctx, err, "reading team %s/%s", organisation, slug)
}

func (g *gitHub) CanWrite(ctx context.Context, user string) (bool, error) {
	if err := checkUser(user); err != nil {
		return false, err
	}
	level, _, err := g.client.Repositories.GetPermissionLevel(ctx, g.settings.Owner, g.settings.Repository, user)
	if isStatus(err, http.StatusNotFound) {
		return false, nil
	}
	permission := level.GetPermission()
	return permission == "admin" || permission == "write", failure(ctx, err, "reading what %s may do", user)
}

func (g *gitHub) Statuses(ctx context.Context, commit string) ([]Status, error) {
	if err := checkCommit(commit); err != nil {
		return nil, err
	}
	statuses, err := g.statuses(ctx, commit)
	if err != nil {
		return nil, failure(ctx, err, "reading the statuses of %s", commit)
	}
	runs, err := collect("check runs", false, func(page int) ([]*github.CheckRun, int, error) {
		list, response, err := g.client.Checks.ListCheckRunsForRef(ctx, g.settings.Owner, g.settings.Repository, commit, &github.ListCheckRunsOptions{
			Filter: github.Ptr("latest"), ListOptions: github.ListOptions{Page: page, PerPage: 100},
		})
		if err != nil {
			return nil, 0, err
		}
		return list.GetCheckRuns(), next(response), nil
	})
	if err != nil {
		return nil, failure(ctx, err, "reading the check runs of %s", commit)
	}
	for _, run := range runs {
		state := Failure
		switch {
		case run.GetStatus() != "completed":
			state = Pending
		case run.GetConclusion() == "success", run.GetConclusion() == "neutral", run.GetConclusion() == "skipped":
			state = Success
		}
		at := run.GetCompletedAt().Time
		if at.IsZero() {
			at = run.GetStartedAt().Time
		}
		statuses = append(statuses, Status{
			Context: run.GetName(), State: state, URL: run.GetHTMLURL(), At: at,
			Description: cmp.Or(run.GetOutput().GetTitle(), run.GetConclusion(), run.GetStatus()),
		})
	}
	return worst(statuses), nil
}

// statuses are those that are no check runs.
func (g *gitHub) statuses(ctx context.Context, commit string) ([]Status, error) {
	found, err := collect("statuses", false, func(page int) ([]*github.RepoStatus, int, error) {
		combined, response, err := g.client.Repositories.GetCombinedStatus(ctx, g.settings.Owner, g.settings.Repository, commit, &github.ListOptions{Page: page, PerPage: 100})
		if err != nil {
			return nil, 0, err
		}
		return combined.GetStatuses(), next(response), nil
	})
	var refused *refusal
	if isStatus(err, http.StatusUnprocessableEntity) && errors.As(err, &refused) {
		refused.kind = ErrNotFound // the commit
	}
	var statuses []Status
	for _, s := range found {
		status := Status{Context: s.GetContext(), State: Failure, Description: s.GetDescription(), URL: s.GetTargetURL(), At: s.GetUpdatedAt().Time}
		if state := StatusState(s.GetState()); state == Success || state == Pending {
			status.State = state
		}
		statuses = append(statuses, status)
	}
	return statuses, err
}

func (g *gitHub) SetStatus(ctx context.Context, commit string, status Status) error {
	status, err := checkStatus(status)
	if err = cmp.Or(checkCommit(commit), err); err != nil {
		return err
	}
	has, err := g.statuses(ctx, commit)
	if err != nil || set(has, status) {
		return failure(ctx, err, "reading the statuses of %s", commit)
	}
	wanted := github.RepoStatus{State: github.Ptr(string(status.State)), Context: &status.Context, Description: &status.Description}
	if status.URL != "" {
		wanted.TargetURL = &status.URL
	}
	_, _, err = g.client.Repositories.CreateStatus(ctx, g.settings.Owner, g.settings.Repository, commit, wanted)
	return failure(ctx, err, "setting status %s of %s", clean(status.Context), commit)
}

func (g *gitHub) Comment(ctx context.Context, number int, marker, text string) error {
	return keepComment(ctx, g, number, marker, text)
}

func (g *gitHub) OwnComment(ctx context.Context, number int, marker string) (string, bool, error) {
	return ownComment(ctx, g, number, marker)
}

func (g *gitHub) comments(ctx context.Context, number int) ([]comment, error) {
	found, err := collect("comments", true, func(page int) ([]*github.IssueComment, int, error) {
		list, response, err := g.client.Issues.ListComments(ctx, g.settings.Owner, g.settings.Repository, number, &github.IssueListCommentsOptions{
			ListOptions: github.ListOptions{Page: page, PerPage: 100},
		})
		return list, next(response), err
	})
	var all []comment
	for _, c := range found {
		all = append(all, comment{c.GetID(), c.GetUser().GetLogin(), c.GetBody()})
	}
	return all, err
}

func (g *gitHub) addComment(ctx context.Context, number int, body string) error {
	_, _, err := g.client.Issues.CreateComment(ctx, g.settings.Owner, g.settings.Repository, number, &github.IssueComment{Body: &body})
	return err
}

func (g *gitHub) editComment(ctx context.Context, id int64, body string) error {
	_, _, err := g.client.Issues.EditComment(ctx, g.settings.Owner, g.settings.Repository, id, &github.IssueComment{Body: &body})
	return err
}

func (g *gitHub) deleteComment(ctx context.Context, id int64) error {
	_, err := g.client.Issues.DeleteComment(ctx, g.settings.Owner, g.settings.Repository, id)
	if isStatus(err, http.StatusNotFound) {
		return nil
	}
	return err
}

func (g *gitHub) AddLabels(ctx context.Context, number int, labels ...string) error {
	if err := checkLabels(labels); err != nil {
		return err
	}
	for _, label := range labels {
		if err := g.makeLabel(ctx, label); err != nil {
			return failure(ctx, err, "making label %s", clean(label))
		}
	}
	_, _, err := g.client.Issues.AddLabelsToIssue(ctx, g.settings.Owner, g.settings.Repository, number, labels)
	return failure(ctx, err, "labelling pull request %d", number)
}

func (g *gitHub) makeLabel(ctx context.Context, label string) error {
	_, _, err := g.client.Issues.GetLabel(ctx, g.settings.Owner, g.settings.Repository, url.PathEscape(label))
	if !isStatus(err, http.StatusNotFound) {
		return err
	}
	_, _, err = g.client.Issues.CreateLabel(ctx, g.settings.Owner, g.settings.Repository, github.CreateIssueLabelRequest{Name: label, Color: github.Ptr(labelColour)})
	if isStatus(err, http.StatusUnprocessableEntity) && strings.Contains(err.Error(), "already_exists") {
		return nil
	}
	return err
}

func (g *gitHub) RemoveLabel(ctx context.Context, number int, label string) error {
	_, err := g.client.Issues.RemoveLabelForIssue(ctx, g.settings.Owner, g.settings.Repository, number, url.PathEscape(label))
	if isStatus(err, http.StatusNotFound) {
		return nil
	}
	return failure(ctx, err, "removing label %s of pull request %d", clean(label), number)
}

// Labelled goes through the events from the newest page backwards: anybody can make many of them.
func (g *gitHub) Labelled(ctx context.Context, number int, label string) (LabelEvent, bool, error) {
	doing := "reading who set label %s of pull request %d"
	for page, pages := 0, 0; ; page-- {
		list, response, err := g.client.Issues.ListIssueEvents(ctx, g.settings.Owner, g.settings.Repository, number, &github.ListOptions{Page: page, PerPage: 100})
		if err != nil {
			return LabelEvent{}, false, failure(ctx, err, doing, clean(label), number)
		}
		if pages == 0 && response.LastPage > 1 { // the first answer says how many there are
			page = response.LastPage + 1
			pages = response.LastPage
			continue
		}
		for _, event := range slices.Backward(list) {
			if event.GetEvent() == "labeled" && strings.EqualFold(event.GetLabel().GetName(), label) {
				return LabelEvent{By: event.GetActor().GetLogin(), At: event.GetCreatedAt().Time}, true, nil
			}
		}
		switch {
		case page <= 1:
			return LabelEvent{}, false, nil
		case pages-page >= mostItems/100:
			return LabelEvent{}, false, failure(ctx, fmt.Errorf("its last %d events do not say it", mostItems), doing, clean(label), number)
		}
	}
}

func (g *gitHub) PushedAt(ctx context.Context, pr PullRequest) (time.Time, error) {
	const doing = "reading when the head of pull request %d was pushed"
	owner, repository, _ := strings.Cut(pr.HeadRepository, "/")
	if !name.MatchString(owner) || !name.MatchString(repository) {
		return time.Time{}, failure(ctx, &refusal{kind: ErrNotFound, text: "the repository of the head is gone"}, doing, pr.Number)
	}
	list, _, err := g.client.Repositories.ListRepositoryActivities(ctx, owner, repository, &github.ListRepositoryActivityOptions{
		Direction: "desc", PerPage: 10, Ref: "refs/heads/" + pr.Head,
	})
	if err != nil {
		return time.Time{}, failure(ctx, err, doing, pr.Number)
	}
	for _, activity := range list { // the newest first
		if activity == nil || activity.Ref != "refs/heads/"+pr.Head {
			continue
		}
		if activity.After != pr.HeadCommit || activity.Timestamp == nil {
			break
		}
		return later(activity.Timestamp.Time, pr.Created), nil
	}
	return time.Time{}, failure(ctx, notNoted(pr), doing, pr.Number)
}

func (g *gitHub) PullRequestsOf(ctx context.Context, commit string) ([]PullRequest, error) {
	if err := checkCommit(commit); err != nil {
		return nil, err
	}
	list, _, err := g.client.PullRequests.ListPullRequestsWithCommit(ctx, g.settings.Owner, g.settings.Repository, commit, &github.ListOptions{PerPage: 50})
	if isStatus(err, http.StatusNotFound) || isStatus(err, http.StatusUnprocessableEntity) { // it does not know the commit
		return nil, nil
	}
	var all []PullRequest
	for _, pr := range list {
		if strings.EqualFold(pr.GetBase().GetRepo().GetFullName(), g.settings.Owner+"/"+g.settings.Repository) {
			all = append(all, g.convert(pr))
		}
	}
	return filtered(all, Filter{State: Merged}), failure(ctx, err, "looking for the pull requests of %s", commit)
}

func (g *gitHub) CompareURL(base, head string) string {
	return comparePage(g.page, g.settings, base, head)
}

func (g *gitHub) Self(ctx context.Context) (string, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.self != "" {
		return g.self, nil
	}
	var login string
	var err error
	if g.app != nil {
		var app *github.App
		app, _, err = g.app.Apps.Get(ctx, "")
		if app.GetSlug() != "" {
			login = app.GetSlug() + "[bot]"
		}
	} else {
		var user *github.User
		user, _, err = g.client.Users.Get(ctx, "")
		login = user.GetLogin()
	}
	if err == nil && login == "" {
		err = errors.New("it does not say whom the token belongs to")
	}
	if err != nil {
		return "", failure(ctx, err, "asking whom the token belongs to")
	}
	g.self = login
	return login, nil
}

func (g *gitHub) convert(p *github.PullRequest) PullRequest {
	pr := PullRequest{
		Number: p.GetNumber(), URL: p.GetHTMLURL(), Title: p.GetTitle(), Body: p.GetBody(), Author: p.GetUser().GetLogin(),
		Head: p.GetHead().GetRef(), Base: p.GetBase().GetRef(), HeadCommit: p.GetHead().GetSHA(), Fork: g.fork(p),
		HeadRepository: p.GetHead().GetRepo().GetFullName(), Draft: p.GetDraft(), State: Open, Created: p.GetCreatedAt().Time, Updated: p.GetUpdatedAt().Time,
	}
	for _, label := range p.GetLabels() {
		pr.Labels = append(pr.Labels, label.GetName())
	}
	switch { // what merge_commit_sha is of one that is not merged is no merge commit
	case p.GetMerged() || !p.GetMergedAt().IsZero():
		pr.State, pr.Merge, pr.MergedBy = Merged, p.GetMergeCommitSHA(), p.GetMergedBy().GetLogin()
	case p.GetState() == "closed":
		pr.State = Closed
	}
	return pr
}

// fork says whether the head is in another repository, or in one that is gone.
func (g *gitHub) fork(p *github.PullRequest) bool {
	return !strings.EqualFold(p.GetHead().GetRepo().GetFullName(), g.settings.Owner+"/"+g.settings.Repository)
}

func next(response *github.Response) int {
	if response == nil {
		return 0
	}
	return response.NextPage
}

// isStatus says whether the forge answered with this status.
func isStatus(err error, status int) bool {
	var refused *refusal
	return errors.As(err, &refused) && refused.status == status
}

// filtered keeps what a filter is about: forges know part of it only.
func filtered(all []PullRequest, filter Filter) []PullRequest {
	var kept []PullRequest
	for _, pr := range all {
		if (filter.State == "" || pr.State == filter.State) && (filter.Base == "" || pr.Base == filter.Base) && (filter.Label == "" || has(pr.Labels, filter.Label)) {
			kept = append(kept, pr)
		}
	}
	return kept
}

func comparePage(page *url.URL, settings Settings, base, head string) string {
	return page.String() + fmt.Sprintf("/%s/%s/compare/%s...%s", settings.Owner, settings.Repository, branchPath(base), branchPath(head))
}

// branchPath keeps the slashes of a branch.
func branchPath(branch string) string {
	return strings.ReplaceAll(url.PathEscape(branch), "%2F", "/")
}
