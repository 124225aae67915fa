package e2e

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/fairway-project/fairway/promotion"
	"github.com/fairway-project/fairway/prose"
)

// PullRequest is one that carries the label or has a test under way, as the forge knows it.
type PullRequest struct {
	Number             int
	Title, URL, Author string
	Labels             []string
	Head, Base         string // branches
	HeadCommit         string
	Fork, Draft        bool
	State              State
	// Trusted is that the author may write.
	Trusted bool
	// Label is when the label was set for the last time; nil if the forge does not know.
	Label *Label
	// Pushed is since when the head is where it is; zero if the forge does not know. It is needed of strangers.
	Pushed time.Time
	// Status is the status of tests on the head; nil if it has none.
	Status *Status
	// Unknown is why not enough is known of it now; nothing is begun or ended then.
	Unknown string
}

// State of a pull request.
type State string

// The states. Gone is that the forge has no such pull request.
const (
	Open   State = "open"
	Merged State = "merged"
	Closed State = "closed"
	Gone   State = "gone"
)

// Label is that the label was set.
type Label struct {
	By string
	// Trusted is that this user may write.
	Trusted bool
	At      time.Time
}

// Status is a commit status.
type Status struct {
	Final bool // success or failure
	At    time.Time
}

// Look is what follows from a look at the pull requests.
type Look struct {
	Start []Request
	End   []Ending
	Held  []Held
}

// Ending is a test that is to end.
type Ending struct{ ID, Why string }

// Held is a pull request that carries the label and is not tested.
type Held struct {
	Number int
	Head   string
	Why    string // in whole sentences
	// Passing is that it may be otherwise at the next look, without anybody doing something.
	Passing bool
}

// Settle is for how long the head of a stranger has been known to Fairway before it is tested: forges show a new
// head a moment before they note when it was pushed.
const Settle = 10 * time.Second

// Consider says which pull requests are tested, which wait for what, and which tests end. Heads are where the branches of the repository
// are, and under are the tests under way.
func Consider(settings Settings, pipeline promotion.Pipeline, heads map[string]string, pulls []PullRequest, under []Request, now time.Time) Look {
	var look Look
	for _, test := range under {
		i := slices.IndexFunc(pulls, func(pr PullRequest) bool { return pr.Number == test.Number })
		if test.Number == 0 || i < 0 {
			continue
		}
		if why := over(settings, test, pulls[i]); why != "" {
			look.End = append(look.End, Ending{test.ID, why})
		}
	}
	since := map[string]time.Time{}
	for _, pr := range pulls {
		if pr.State != Open || !has(pr.Labels, settings.Label) || !slices.Contains(pipeline.Channels, pr.Base) {
			continue
		}
		if slices.ContainsFunc(under, func(test Request) bool { return test.ID == TestOf(pr.Number, pr.HeadCommit) }) {
			continue
		}
		if pr.Unknown != "" {
			look.Held = append(look.Held, Held{pr.Number, pr.HeadCommit, pr.Unknown, true})
			continue
		}
		done := pr.Status != nil && pr.Status.Final
		if done && (pr.Label == nil || !pr.Status.At.Before(pr.Label.At)) {
			continue
		}
		why, passing := held(settings, heads, pr, now)
		switch {
		case why == "":
			request := wanted(settings, pipeline, heads, pr)
			look.Start = append(look.Start, request)
			if pr.Label != nil {
				since[request.ID] = pr.Label.At
			}
		case !done: // what was found out about this head stands
			look.Held = append(look.Held, Held{pr.Number, pr.HeadCommit, why, passing})
		}
	}
	slices.SortStableFunc(look.Start, func(a, b Request) int {
		if a.Hotfix != b.Hotfix {
			return map[bool]int{true: -1, false: 1}[a.Hotfix]
		}
		return cmp.Or(since[a.ID].Compare(since[b.ID]), cmp.Compare(a.Number, b.Number))
	})
	return look
}

// over is why a test ends; empty if it goes on.
func over(settings Settings, test Request, pr PullRequest) string {
	switch {
	case pr.State == Gone:
		return fmt.Sprintf("Pull request %d is gone.", pr.Number)
	case pr.State == Merged:
		return fmt.Sprintf("Pull request %d was merged.", pr.Number)
	case pr.State == Closed:
		return fmt.Sprintf("Pull request %d was closed.", pr.Number)
	case pr.State != Open: // nobody knows
		return ""
	case pr.HeadCommit != test.Head:
		return fmt.Sprintf("Somebody has pushed to pull request %d: its head is %s.", pr.Number, prose.Short(prose.Line(pr.HeadCommit, prose.Title)))
	case pr.Base != test.Channel:
		return fmt.Sprintf("Pull request %d goes into %s now.", pr.Number, prose.Line(pr.Base, prose.Title))
	case !test.ByHand && !has(pr.Labels, settings.Label):
		return fmt.Sprintf("Label %s was removed.", settings.Label)
	}
	return ""
}

// held is why a pull request is not tested now; empty if it is.
func held(settings Settings, heads map[string]string, pr PullRequest, now time.Time) (why string, passing bool) {
	again := fmt.Sprintf("Somebody who may write to the repository, and is not the author, has to look at the change, remove label %s and set it again.", settings.Label)
	switch {
	case !commit.MatchString(pr.HeadCommit):
		return "The forge does not say which commit its head is.", true
	case heads[pr.Base] == "":
		return fmt.Sprintf("The configuration repository has no branch %s.", prose.Line(pr.Base, prose.Title)), true
	case pr.Draft:
		return "It is a draft. Mark it as ready for review.", false
	case pr.Trusted && !pr.Fork:
		return "", false
	case pr.Label == nil:
		return "It comes from a fork or from an author without write access, and the forge does not say who set the label. " + again, false
	case strings.EqualFold(pr.Label.By, pr.Author):
		return "It comes from a fork or from an author without write access, who set the label. " + again, false
	case !pr.Label.Trusted:
		return "It comes from a fork or from an author without write access, and so does the label. " + again, false
	case pr.Pushed.IsZero():
		return "It comes from a fork or from an author without write access, and the forge does not say when it was pushed. " +
			fmt.Sprintf("Somebody who may write to the repository can look at it and run `fairway e2e run --pr %d`.", pr.Number), false
	case !pr.Label.At.After(pr.Pushed):
		return "It comes from a fork or from an author without write access, who has pushed since the label was set. " + again, false
	case pr.Status == nil || now.Sub(pr.Status.At) < Settle:
		return "It comes from a fork or from an author without write access, and its head is new. The next looks see whether the label was set after the last push.", true
	}
	return "", false
}

// wanted is the test of a pull request.
func wanted(settings Settings, pipeline promotion.Pipeline, heads map[string]string, pr PullRequest) Request {
	request := RequestOf(settings, pipeline, pr, heads[pr.Base])
	if pr.Label != nil {
		request.By = prose.Line(pr.Label.By, prose.Title)
	}
	request.By = cmp.Or(request.By, request.Author)
	return request
}

// RequestOf is a test of a pull request, whoever asks for it.
func RequestOf(settings Settings, pipeline promotion.Pipeline, pr PullRequest, base string) Request {
	return Request{
		ID: TestOf(pr.Number, pr.HeadCommit), Cluster: ClusterOf(pr.Number, pr.HeadCommit), Number: pr.Number,
		Title: prose.Line(pr.Title, prose.Title), URL: pr.URL, Author: prose.Line(pr.Author, prose.Title),
		Channel: pr.Base, Base: base, Head: pr.HeadCommit, Hotfix: hotfix(settings, pipeline, pr),
	}
}

// hotfix is what is so labelled, or is to get into a channel on another way than by its promotions.
func hotfix(settings Settings, pipeline promotion.Pipeline, pr PullRequest) bool {
	promotes := !pr.Fork && (strings.HasPrefix(pr.Head, "fairway/promote/") || strings.HasPrefix(pr.Head, "fairway/conflict/"))
	return settings.HotfixLabel != "" && has(pr.Labels, settings.HotfixLabel) || len(pipeline.Upstream(pr.Base)) > 0 && !promotes
}

var commit = regexp.MustCompile(`^([0-9a-f]{40}|[0-9a-f]{64})$`)

// TestOf is the id of the test of a head; number is 0 without a pull request.
func TestOf(number int, head string) string {
	if number == 0 {
		return head
	}
	return strconv.Itoa(number) + "/" + head
}

// ClusterOf is the id of a test's cluster. Names of stacks and hosts are made of it.
func ClusterOf(number int, head string) string {
	id := Prefix
	if number > 0 {
		id += strconv.Itoa(number) + "-"
	}
	return id + head[:min(7, len(head))]
}

// has looks for a label the way forges compare them.
func has(labels []string, label string) bool {
	return slices.ContainsFunc(labels, func(l string) bool { return strings.EqualFold(l, label) })
}
