package channels

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
)

// Heads are the branches of the repository with the commits that they are at, as it says now. It
// fetches nothing, and asks for branches only, however many other refs there are.
func (m *Mirror) Heads(ctx context.Context) (map[string]string, error) {
	refs, err := m.list(ctx, "--heads", "--", m.URL)
	if err != nil {
		return nil, err
	}
	heads := make(map[string]string, len(refs))
	for ref, commit := range refs {
		if branch, found := strings.CutPrefix(ref, "refs/heads/"); found {
			heads[branch] = commit
		}
	}
	return heads, nil
}

// Head is the commit that a branch is at, as the repository says now.
func (m *Mirror) Head(ctx context.Context, branch string) (string, error) {
	if !isRef(branch) {
		return "", fmt.Errorf("%w: %q cannot be the name of a branch", ErrUnknown, branch)
	}
	ref := "refs/heads/" + branch
	refs, err := m.list(ctx, "--heads", "--", m.URL, ref)
	if err != nil {
		return "", err
	}
	if commit, found := refs[ref]; found {
		return commit, nil
	}
	return "", fmt.Errorf("%w: no branch %s", ErrUnknown, branch)
}

// Resolve is the commit that a branch, a tag, a full commit or the first seven or more digits of one
// stand for. Where a name has several meanings the first of these counts.
func (m *Mirror) Resolve(ctx context.Context, ref string) (string, error) {
	if !isRef(ref) {
		return "", fmt.Errorf("%w: %q is no branch, tag or commit", ErrUnknown, ref)
	}
	if fullHash.MatchString(ref) {
		_, err := m.Title(ctx, ref)
		return ref, err
	}
	branch, tag := "refs/heads/"+ref, "refs/tags/"+ref
	refs, err := m.list(ctx, "--heads", "--tags", "--", m.URL, branch, tag, tag+"^{}")
	if err != nil {
		return "", err
	}
	for _, name := range []string{branch, tag + "^{}", tag} {
		if commit, found := refs[name]; found {
			return commit, nil
		}
	}
	if !abbreviated.MatchString(ref) {
		return "", fmt.Errorf("%w: no branch or tag %s", ErrUnknown, ref)
	}
	commit, err := m.expand(ctx, ref)
	if errors.Is(err, ErrUnknown) || errors.Is(err, errMissing) {
		if err := m.refresh(ctx); err != nil {
			return "", err
		}
		commit, err = m.expand(ctx, ref)
	}
	return commit, err
}

var abbreviated = regexp.MustCompile(`^[0-9a-f]{7,39}$`)

// expand finds the one commit of the mirror that begins with some digits.
func (m *Mirror) expand(ctx context.Context, digits string) (commit string, err error) {
	err = m.reading(ctx, func(dir string) error {
		answer, err := m.git(ctx, dir, "rev-parse", "--verify", digits+"^{commit}")
		switch {
		case exitCode(err) > 0 && strings.Contains(err.Error(), "ambiguous"):
			return fmt.Errorf("%w: several commits begin with %s; give more digits", ErrUnusable, digits)
		case exitCode(err) > 0:
			return fmt.Errorf("%w: no branch, tag or commit %s", ErrUnknown, digits)
		case err != nil:
			return err
		}
		commit = strings.TrimSpace(string(answer))
		return nil
	})
	return commit, err
}

// list asks the repository for refs.
func (m *Mirror) list(ctx context.Context, args ...string) (map[string]string, error) {
	answer, err := m.git(ctx, os.DevNull, append([]string{"ls-remote"}, args...)...)
	if err != nil {
		if err = classify(err); exitCode(err) > 0 && !errors.Is(err, ErrRefused) && !errors.Is(err, ErrUnreachable) {
			err = fmt.Errorf("%w: %w", ErrUnreachable, err)
		}
		return nil, err
	}
	refs := map[string]string{}
	for line := range strings.Lines(string(answer)) {
		commit, ref, found := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		if !found || !fullHash.MatchString(commit) {
			return nil, fmt.Errorf("%w: it lists %q among its refs", ErrUnusable, readable(line, nil))
		}
		refs[ref] = commit
	}
	return refs, nil
}

// isRef says whether git could take a text for the name of a branch or tag, by the rules of
// git-check-ref-format. Whatever else people write, such as options, never reaches git.
func isRef(name string) bool {
	if name == "" || len(name) > 250 || strings.HasPrefix(name, "-") || strings.HasSuffix(name, ".") || name == "@" {
		return false
	}
	if strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r == 0x7f || strings.ContainsRune(`~^:?*[\`, r) }) {
		return false
	}
	for part := range strings.SplitSeq(name, "/") {
		if part == "" || strings.HasPrefix(part, ".") || strings.HasSuffix(part, ".lock") {
			return false
		}
	}
	return !strings.Contains(name, "..") && !strings.Contains(name, "@{")
}
