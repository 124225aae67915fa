package channels

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Push takes a branch from the commit at which it is expected to one that contains it; a branch that is
// expected nowhere (empty) is made. It has nothing to do if the branch is there already: a push whose
// answer was lost can be done again. ErrMoved if the branch is elsewhere, ErrProtected if the repository
// does not accept it, ErrGone if the mirror has lost the commit, which has to be made again then.
func (m *Mirror) Push(ctx context.Context, branch, commit, expected string) error {
	return m.push(ctx, branch, commit, expected, false)
}

// Reset is Push to a commit that need not contain what the branch had.
func (m *Mirror) Reset(ctx context.Context, branch, commit, expected string) error {
	return m.push(ctx, branch, commit, expected, true)
}

func (m *Mirror) push(ctx context.Context, branch, commit, expected string, backwards bool) error {
	if !isRef(branch) {
		return fmt.Errorf("%w: %q cannot be the name of a branch", ErrUnknown, branch)
	}
	if !fullHash.MatchString(commit) { // none would delete the branch
		return notACommit(commit)
	}
	if expected != "" && !fullHash.MatchString(expected) {
		return notACommit(expected)
	}
	if expected != "" && !backwards {
		follows, err := m.Contains(ctx, expected, commit)
		switch {
		case errors.Is(err, ErrGone):
			// If it is not this one that is gone, the branch cannot be at the other one.
			if err := m.on(ctx, []string{commit}, func(string) error { return nil }); err != nil {
				return err
			}
			return m.moved(ctx, branch, commit, expected, fmt.Errorf("%w: %s is gone from the repository", ErrMoved, expected))
		case err != nil:
			return err
		case !follows:
			return fmt.Errorf("%w: commit %s does not contain %s, where branch %s is", ErrUnusable, commit, expected, branch)
		}
	}
	return m.send(ctx, branch, commit, expected, commit)
}

// DeleteBranch deletes a branch that is at a commit, or gone already. ErrMoved if it is elsewhere.
func (m *Mirror) DeleteBranch(ctx context.Context, branch, expected string) error {
	if !fullHash.MatchString(expected) {
		return notACommit(expected)
	}
	head, err := m.Head(ctx, branch)
	switch {
	case isRef(branch) && errors.Is(err, ErrUnknown):
		return nil
	case err != nil:
		return err
	case head != expected:
		return fmt.Errorf("%w: %s is at %s instead of %s", ErrMoved, branch, head, expected)
	}
	return m.send(ctx, branch, "", expected, expected)
}

// send pushes a commit, or none to delete the branch. The mirror needs to have a commit for that.
func (m *Mirror) send(ctx context.Context, branch, commit, expected, needed string) error {
	ref := "refs/heads/" + branch
	var answer string
	var refused error
	err := m.on(ctx, []string{needed}, func(dir string) error {
		said, err := m.git(ctx, dir, "push", "--porcelain", "--no-verify", "--no-follow-tags", "--no-signed", "--recurse-submodules=no",
			"--force-with-lease="+ref+":"+expected, "--", m.URL, commit+":"+ref)
		answer, refused = rejection(string(said)), err
		if exitCode(err) > 0 && answer == "" && !errors.Is(classify(err), ErrRefused) && !errors.Is(classify(err), ErrUnreachable) {
			return err // as far as one can tell it is about the mirror
		}
		return nil
	})
	if err == nil {
		err = refused
	}
	if err == nil || ctx.Err() != nil || errors.Is(err, ErrGone) {
		return err
	}
	switch {
	case passing(answer):
		err = fmt.Errorf("%w: git push says %s %s", ErrUnreachable, answer, remoteSays(err))
	case strings.HasPrefix(answer, "[rejected]"):
		err = fmt.Errorf("%w: git push says %s", ErrMoved, answer) // and back, if it is where it is expected
	case answer != "":
		err = fmt.Errorf("%w %s: %s %s", ErrProtected, branch, answer, remoteSays(err))
	default:
		err = classify(err)
	}
	return m.moved(ctx, branch, commit, expected, err)
}

// moved looks where a branch is after a push that failed. It may be done nevertheless: by itself, by an
// attempt before it or by somebody else. Otherwise the error stands, unless the branch has moved.
func (m *Mirror) moved(ctx context.Context, branch, commit, expected string, failed error) error {
	head, err := m.Head(ctx, branch)
	switch {
	case errors.Is(err, ErrUnknown):
		head = ""
	case err != nil:
		return failed
	}
	switch head {
	case commit:
		return nil
	case expected:
		return failed
	}
	return fmt.Errorf("%w: %s is %s, not %s", ErrMoved, branch, where(head), where(expected))
}

func where(commit string) string {
	if commit == "" {
		return "nowhere"
	}
	return "at " + commit
}

// rejection is how git describes a ref that was not accepted, such as "[remote rejected] (pre-receive
// hook declined)"; empty if it got no answer about it.
func rejection(porcelain string) string {
	for line := range strings.Lines(porcelain) {
		if fields := strings.SplitN(strings.TrimSpace(line), "\t", 3); len(fields) == 3 && fields[0] == "!" {
			return readable(fields[2], nil)
		}
	}
	return ""
}

// passing says whether the repository is at fault for a moment, such as when others push to it.
func passing(answer string) bool {
	return slices.ContainsFunc([]string{"failed to update ref", "cannot lock ref", "failed to lock", "incorrect old value", "already exists", "unpacker error", "nternal"},
		func(sign string) bool { return strings.Contains(answer, sign) })
}

// remoteSays is what the repository has told people about a push, rather than git.
func remoteSays(err error) string {
	var exit *exitError
	if !errors.As(err, &exit) {
		return ""
	}
	var said []string
	for line := range strings.Lines(exit.said) {
		if line, is := strings.CutPrefix(line, "remote:"); is && strings.TrimSpace(line) != "" {
			said = append(said, line)
		}
	}
	return readable(strings.Join(said, " "), nil)
}
