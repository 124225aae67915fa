package forge

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Driver speaks to one repository of a forge. All methods may be called at the same time and again after
// a crash: what is as it should be is left alone. Errors are those of this package or of the context;
// texts that others wrote are bounded in errors, not in results. Nothing is tried twice: when to
// come back, see LimitedError, is up to the caller.
type Driver interface {
	// PullRequest reads one.
	PullRequest(ctx context.Context, number int) (PullRequest, error)
	// FindPullRequest finds the newest one, of any state, from a branch of the repository itself into another
	// one; nil if there is none. ClosedBy and, on GitHub, MergedBy are left out: see PullRequest.
	FindPullRequest(ctx context.Context, base, head string) (*PullRequest, error)
	// PullRequests lists the newest 1000 at most, the newest first, with as much of each as FindPullRequest.
	PullRequests(ctx context.Context, filter Filter) ([]PullRequest, error)
	// Open opens one, or returns the open one from Head into Base, and sees to labels and
	// reviewers either way. Titles and bodies are cut where they are too long for a forge.
	Open(ctx context.Context, wanted NewPullRequest) (PullRequest, error)
	// Edit changes title and body.
	Edit(ctx context.Context, number int, title, body string) error
	// Close closes one without merging it; one that is closed or merged stays as it is.
	Close(ctx context.Context, number int) error
	// Merge makes a merge commit of the head, which is a commit, into the base, and returns that commit; of one that
	// is merged with this head already, the commit that did so. ErrMoved if the head is another one,
	// ErrNotMergeable, with the forge's own reason, if the forge does not merge it, if it is closed too.
	Merge(ctx context.Context, number int, head, title, message string) (commit string, err error)
	// Reviews returns the newest verdict of each user. What counts is only what Commit says: GitHub does not
	// tell that an approval is stale.
	Reviews(ctx context.Context, number int) ([]Review, error)
	// Member says whether a user belongs to a team, "platform" of the repository's owner or
	// "organisation/platform". ErrNotFound if there is no such team.
	Member(ctx context.Context, team, user string) (bool, error)
	// CanWrite says whether a user may push to the repository.
	CanWrite(ctx context.Context, user string) (bool, error)
	// Statuses returns the newest status of each context, by context. Check runs of GitHub count like
	// statuses; of several with the same name the worst counts. ErrNotFound if the forge does not have the commit.
	Statuses(ctx context.Context, commit string) ([]Status, error)
	// SetStatus sets the status of a context, unless it is that already. Descriptions are cut to 140 bytes.
	SetStatus(ctx context.Context, commit string, status Status) error
	// Comment keeps exactly one comment of Self with the hidden marker `<!-- marker -->` on a pull request:
	// it is made, changed if the text differs, and others of Self with this marker are deleted.
	Comment(ctx context.Context, number int, marker, text string) error
	// OwnComment returns the text, without the marker, of the comment of Self which has the marker on a
	// line of its own. What others write does not count.
	OwnComment(ctx context.Context, number int, marker string) (text string, found bool, err error)
	// AddLabels adds labels, and makes those that the repository lacks.
	AddLabels(ctx context.Context, number int, labels ...string) error
	// RemoveLabel removes a label; one that is not there is fine.
	RemoveLabel(ctx context.Context, number int, label string) error
	// Labelled returns when a label was set on a pull request for the last time, and by whom. It may have been removed since.
	Labelled(ctx context.Context, number int, label string) (event LabelEvent, found bool, err error)
	// PushedAt is when the head of a pull request got to where it is, as the forge has noted it: what commits say
	// of themselves anybody can make up. ErrUnreachable while the forge has not noted it yet, which it does a moment
	// after it shows the new head; that moment is not noticed where nothing at all was noted since the pull request
	// was opened on Gitea.
	PushedAt(ctx context.Context, pr PullRequest) (time.Time, error)
	// PullRequestsOf returns the merged pull requests that brought a commit; Gitea knows them by
	// their merge commit only.
	PullRequestsOf(ctx context.Context, commit string) ([]PullRequest, error)
	// CompareURL is the page that shows how head, a branch or commit, differs from base.
	CompareURL(base, head string) string
	// Self is the user that the driver acts as.
	Self(ctx context.Context) (string, error)
}

// Settings say how a repository of a forge is reached.
type Settings struct {
	// Kind is "github" or "gitea".
	Kind string
	// URL is the forge's address for people, such as https://git.example.org; for GitHub it may be
	// empty, which means https://github.com.
	URL               string
	Owner, Repository string
	// Token returns the token; it is asked with each request. Not used with App.
	Token func() (string, error)
	App   *App
	// Timeout bounds one request; default 30 s.
	Timeout time.Duration
}

// App is an installation of a GitHub App.
type App struct {
	ID, Installation int64
	// Key returns the private key as PEM; it is asked with each request.
	Key func() ([]byte, error)
}

// New returns the driver for a forge. It asks the forge for nothing.
func New(settings Settings) (Driver, error) {
	if !name.MatchString(settings.Owner) || !name.MatchString(settings.Repository) {
		return nil, fmt.Errorf("the repository is %q and has to be owner/name", settings.Owner+"/"+settings.Repository)
	}
	if settings.Kind == "github" && settings.URL == "" {
		settings.URL = "https://github.com"
	}
	address, err := url.Parse(strings.TrimRight(settings.URL, "/"))
	switch {
	case err != nil:
		return nil, errors.New("the URL cannot be read") // the error would repeat credentials in it
	case address.Scheme != "https" && address.Scheme != "http" || address.Host == "":
		return nil, errors.New("the URL has to be like https://git.example.org")
	case address.User != nil:
		return nil, errors.New("the URL must not hold credentials: they belong into a token")
	case address.RawQuery != "" || address.Fragment != "":
		return nil, errors.New("the URL must not have a query or fragment")
	case settings.App == nil && settings.Token == nil:
		return nil, errors.New("a token is missing")
	}
	settings.Timeout = cmp.Or(settings.Timeout, 30*time.Second)
	switch settings.Kind {
	case "github":
		return newGitHub(settings, address)
	case "gitea":
		if settings.App != nil {
			return nil, errors.New("apps are GitHub's")
		}
		return newGitea(settings, address), nil
	}
	return nil, fmt.Errorf("kind %q is not known: github and gitea are", settings.Kind)
}

const (
	mostItems   = 1000 // of a list
	mostTitle   = 250
	mostComment = 60_000 // bytes, also of the body of a pull request
	labelColour = "0e8a16"
)

var (
	name     = regexp.MustCompile(`^[A-Za-z0-9._-]{1,100}$`)
	userName = regexp.MustCompile(`^[A-Za-z0-9._-]{1,100}(\[bot\])?$`)
	commitID = regexp.MustCompile(`^([0-9a-f]{40}|[0-9a-f]{64})$`)
	markerID = regexp.MustCompile(`^[A-Za-z0-9._:/-]{1,200}$`)
)

// wrong says that a request is not even sent.
func wrong(format string, args ...any) error {
	return &refusal{kind: ErrInvalid, text: clean(fmt.Sprintf(format, args...))}
}

func checkUser(user string) error {
	if !userName.MatchString(user) || strings.Trim(user, ".") == "" {
		return wrong("%q is not the name of a user", user)
	}
	return nil
}

func checkCommit(commit string) error {
	if !commitID.MatchString(commit) {
		return wrong("%q is not a commit", commit)
	}
	return nil
}

func checkLabels(labels []string) error {
	if slices.ContainsFunc(labels, func(label string) bool { return strings.TrimSpace(label) == "" }) {
		return wrong("a label needs a name")
	}
	return nil
}

// teamOf takes "platform" or "organisation/platform" apart.
func teamOf(team, owner string) (organisation, slug string, err error) {
	organisation, slug, found := strings.Cut(team, "/")
	if !found {
		organisation, slug = owner, team
	}
	if !name.MatchString(organisation) || !name.MatchString(slug) || strings.Trim(slug, ".") == "" {
		return "", "", wrong("%q is not a team: it is a name or organisation/name", team)
	}
	return organisation, slug, nil
}

// collect reads a list page by page; next is 0 after the last page. Everything must fit into mostItems,
// unless only the first ones are wanted.
func collect[T any](what string, firstOnes bool, page func(page int) (items []T, next int, err error)) ([]T, error) {
	var all []T
	for number := 1; ; {
		items, next, err := page(number)
		if err != nil {
			return nil, err
		}
		all = append(all, items...)
		switch {
		case next == 0 || len(items) == 0:
			return all, nil
		case next <= number:
			return nil, fmt.Errorf("page %d of its %s is followed by page %d", number, what, next)
		case len(all) < mostItems:
			number = next
		case firstOnes:
			return all, nil
		default:
			return nil, fmt.Errorf("there are more than %d %s", mostItems, what)
		}
	}
}

// opened finishes a pull request that is open: labels and reviewers may be missing after a crash.
// requested are users who are asked already.
func opened(ctx context.Context, d Driver, pr PullRequest, wanted NewPullRequest, requested []string, request func(user string) error) (PullRequest, error) {
	missing := slices.DeleteFunc(slices.Clone(wanted.Labels), func(label string) bool {
		return has(pr.Labels, label)
	})
	if len(missing) > 0 {
		if err := d.AddLabels(ctx, pr.Number, missing...); err != nil {
			return pr, err
		}
		pr.Labels = append(pr.Labels, missing...)
	}
	if len(wanted.Reviewers) == 0 {
		return pr, nil
	}
	reviews, err := d.Reviews(ctx, pr.Number)
	if err != nil {
		return pr, err
	}
	for _, review := range reviews {
		requested = append(requested, review.User)
	}
	for _, user := range wanted.Reviewers {
		if has(requested, user) {
			continue
		}
		err := checkUser(user)
		if err == nil && strings.EqualFold(user, pr.Author) {
			err = wrong("authors do not review")
		}
		if err == nil {
			err = failure(ctx, request(user), "asking for a review")
		}
		switch {
		case err == nil:
		case errors.Is(err, ErrInvalid), errors.Is(err, ErrNotFound):
			pr.Warnings = append(pr.Warnings, fmt.Sprintf("%s is not asked for a review: %v", clean(user), err))
		default:
			return pr, err
		}
	}
	return pr, nil
}

// has looks for a name the way forges compare names.
func has(names []string, name string) bool {
	return slices.ContainsFunc(names, func(n string) bool { return strings.EqualFold(n, name) })
}

// merged merges by the given request what can be merged. Before and after: somebody may have been
// faster, even an earlier attempt.
func merged(ctx context.Context, d Driver, number int, head string, request func() (commit string, err error)) (string, error) {
	if err := checkCommit(head); err != nil {
		return "", failure(ctx, err, "merging pull request %d", number)
	}
	if commit, err := settled(ctx, d, number, head); commit != "" || err != nil {
		return commit, err
	}
	commit, err := request()
	err = failure(ctx, err, "merging pull request %d", number)
	if errors.Is(err, ErrMoved) || errors.Is(err, ErrNotMergeable) || errors.Is(err, ErrNotFound) {
		if commit, err := settled(ctx, d, number, head); commit != "" || err != nil {
			return commit, err
		}
	}
	if err != nil || commit != "" {
		return commit, err
	}
	if commit, err := settled(ctx, d, number, head); commit != "" || err != nil {
		return commit, err
	}
	return "", failure(ctx, errors.New("it says that it has merged and does not know the commit yet"), "merging pull request %d", number)
}

// settled returns the commit of a pull request that is merged, an error if it cannot be any more, and
// neither if it is still to be merged.
func settled(ctx context.Context, d Driver, number int, head string) (string, error) {
	pr, err := d.PullRequest(ctx, number)
	switch {
	case err != nil:
		return "", err
	case pr.HeadCommit != head:
		err = &refusal{kind: ErrMoved, text: fmt.Sprintf("it is %s, not %s", clean(pr.HeadCommit), head)}
	case pr.State == Merged:
		return pr.Merge, nil
	case pr.State == Closed:
		err = &refusal{kind: ErrNotMergeable, text: "it is closed"}
	}
	return "", failure(ctx, err, "merging pull request %d", number)
}

// notNoted is that a forge does not say since when a head is where it is.
func notNoted(pr PullRequest) error {
	return &refusal{kind: ErrUnreachable, text: "it has not noted when the head came to " + clean(pr.HeadCommit)}
}

// later is the later one of two moments.
func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// verdict is a review with what tells the newest.
type verdict struct {
	Review
	id int64
}

// newest keeps the newest verdict of each user, by user.
func newest(verdicts []verdict) []Review {
	slices.SortStableFunc(verdicts, func(a, b verdict) int { return cmp.Or(a.At.Compare(b.At), cmp.Compare(a.id, b.id)) })
	var reviews []Review
	for _, v := range slices.Backward(verdicts) {
		if !slices.ContainsFunc(reviews, func(r Review) bool { return strings.EqualFold(r.User, v.User) }) {
			reviews = append(reviews, v.Review)
		}
	}
	slices.SortFunc(reviews, func(a, b Review) int { return cmp.Compare(strings.ToLower(a.User), strings.ToLower(b.User)) })
	return reviews
}

// worst keeps one status of each context, by context.
func worst(statuses []Status) []Status {
	bad := map[StatusState]int{Failure: 0, Pending: 1, Success: 2}
	slices.SortStableFunc(statuses, func(a, b Status) int {
		return cmp.Or(cmp.Compare(a.Context, b.Context), cmp.Compare(bad[a.State], bad[b.State]))
	})
	return slices.CompactFunc(statuses, func(a, b Status) bool { return a.Context == b.Context })
}

// set says whether a status is there already.
func set(statuses []Status, wanted Status) bool {
	return slices.ContainsFunc(statuses, func(s Status) bool {
		return s.Context == wanted.Context && s.State == wanted.State && s.Description == wanted.Description && s.URL == wanted.URL
	})
}

func checkStatus(s Status) (Status, error) {
	s.Description = cut(s.Description, 140)
	switch {
	case s.Context == "":
		return s, wrong("a status needs a context")
	case s.State != Pending && s.State != Success && s.State != Failure:
		return s, wrong("%q is not the state of a status", s.State)
	}
	return s, nil
}
