// Package forge speaks to the forge of the configuration repository: pull requests, reviews, statuses
// and labels, on GitHub (also Enterprise) and Gitea. Branches are git's business (package channels).
package forge

import (
	"errors"
	"fmt"
	"time"
)

// Kinds of errors; the texts around them say more. What is none of them may pass.
var (
	ErrNotFound = errors.New("the forge has no such thing")
	// ErrRefused means that the credentials, or their rights, do not suffice.
	ErrRefused = errors.New("the forge refuses access")
	// ErrUnreachable means that a later attempt may succeed.
	ErrUnreachable = errors.New("the forge does not answer")
	// ErrInvalid means that the forge does not take what was asked for.
	ErrInvalid = errors.New("the forge does not accept the request")
	// ErrMoved means that the head of a pull request is another one than was expected.
	ErrMoved = errors.New("the pull request has another head")
	// ErrNotMergeable means that rules of the forge, such as approvals or statuses that a protected branch
	// asks for, or a conflict, keep a pull request from being merged now.
	ErrNotMergeable = errors.New("the forge does not merge it")
)

// LimitedError means that the forge asks to wait.
type LimitedError struct {
	Until time.Time
	Err   error
}

func (e *LimitedError) Error() string {
	return fmt.Sprintf("the forge limits requests until %s: %v", e.Until.Format(time.RFC3339), e.Err)
}

func (e *LimitedError) Unwrap() error { return e.Err }

// PullRequest is a pull request as the forge knows it.
type PullRequest struct {
	Number int
	URL    string // page for people
	Title  string
	Body   string
	Author string
	Labels []string
	// Head and Base are branches, HeadCommit the commit of the head. Fork means that the head is in
	// another repository.
	Head, Base string
	HeadCommit string
	// HeadRepository is owner/name of where the head is; empty if that is gone.
	HeadRepository string
	Fork           bool
	Draft          bool
	State          State
	// Merge is the commit that merged it and MergedBy who did; ClosedBy is who closed it, where the forge tells.
	Merge, MergedBy, ClosedBy string
	Created, Updated          time.Time
	// Warnings are set by Driver.Open only: what was asked for and does not hinder the pull request, such as
	// reviewers whom the forge does not know.
	Warnings []string
}

// LabelEvent is that a label was set.
type LabelEvent struct {
	By string // empty if the forge does not know any more
	At time.Time
}

// Filter says which pull requests are listed; what is empty does not matter.
type Filter struct {
	State State
	Base  string
	Label string
}

// State is that of a pull request.
type State string

// The states of a pull request.
const (
	Open   State = "open"
	Merged State = "merged"
	Closed State = "closed" // without being merged
)

// NewPullRequest is what is to be opened.
type NewPullRequest struct {
	Head, Base  string // branches
	Title, Body string
	Labels      []string // made where they are missing
	Reviewers   []string // users
}

// Review is the newest verdict of a user; comments are none.
type Review struct {
	User   string
	Commit string // that was looked at
	State  Verdict
	At     time.Time
}

// Verdict of a review.
type Verdict string

// The verdicts of reviews.
const (
	Approved  Verdict = "approved"
	Rejected  Verdict = "rejected"  // changes are requested
	Dismissed Verdict = "dismissed" // or stale
)

// Status is the newest commit status of a context, or check run of a name.
type Status struct {
	Context     string
	State       StatusState
	Description string
	URL         string
	At          time.Time
}

// StatusState is that of a commit status.
type StatusState string

// The states of a commit status.
const (
	Pending StatusState = "pending"
	Success StatusState = "success"
	Failure StatusState = "failure"
)
