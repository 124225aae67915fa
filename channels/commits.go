package channels

import (
	"errors"
	"fmt"
	"time"
)

var (
	// ErrMoved means that a branch is at another commit than was expected.
	ErrMoved = errors.New("the branch has moved")
	// ErrProtected means that the repository does not let Fairway push to a branch.
	ErrProtected = errors.New("the repository does not accept a push to the branch")
)

// Commit is a commit for people. Texts are without what a terminal would obey.
type Commit struct {
	SHA     string
	Parents []string
	Title   string
	Author  string // name
	At      time.Time
	// Trailers of the message, such as Fairway-Promotion.
	Trailers map[string]string
}

// NewCommit says what a commit that Fairway makes is to say of itself. The same content, parents and
// NewCommit make the same commit, so that doing it again does no harm.
type NewCommit struct {
	Message string
	Author  string // "Name <mail>"
	At      time.Time
}

// ConflictError means that a merge needs a person.
type ConflictError struct{ Files []ConflictFile }

// ConflictFile is a file that both sides have changed, and the commits that did, newest first.
type ConflictFile struct {
	Path         string
	Ours, Theirs []Commit
}

func (e *ConflictError) Error() string { return fmt.Sprintf("%d files are in conflict", len(e.Files)) }

// FileChange is a file that differs between two commits.
type FileChange struct {
	Path   string
	Before string // path before it was renamed; otherwise empty
	Status byte   // A, M, D, R or T
}
