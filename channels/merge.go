package channels

import (
	"cmp"
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode"
)

// Bounds of what a merge tells.
const (
	maxConflicts = 200      // files that are named
	maxExplained = 20       // of these, files whose commits are named
	maxTouching  = 5        // commits of each side for a file
	maxMessage   = 64 << 10 // bytes
)

// Merge makes the commit that merges theirs into ours, in the mirror only; Push brings it to the
// repository. It is ours itself if that contains theirs. *ConflictError if people have to do it,
// ErrUnusable if the two have nothing in common.
func (m *Mirror) Merge(ctx context.Context, ours, theirs string, n NewCommit) (commit string, err error) {
	environment, err := n.check()
	if err != nil {
		return "", err
	}
	err = m.on(ctx, []string{ours, theirs}, func(dir string) error {
		there, err := m.contains(ctx, dir, theirs, ours)
		if err != nil {
			return err
		}
		if there {
			commit = ours
			return nil
		}
		tree, conflicts, err := m.mergeTree(ctx, dir, nil, ours, theirs)
		if err != nil {
			return err
		}
		if len(conflicts) > 0 {
			return m.explain(ctx, dir, ours, theirs, conflicts)
		}
		commit, err = m.commitTree(ctx, dir, environment, n.Message, tree, ours, theirs)
		return err
	})
	if err != nil {
		return "", err
	}
	return commit, nil
}

// Restore makes a commit on top of head that has the content of another one, in the mirror only.
func (m *Mirror) Restore(ctx context.Context, head, to string, n NewCommit) (commit string, err error) {
	environment, err := n.check()
	if err != nil {
		return "", err
	}
	err = m.on(ctx, []string{head, to}, func(dir string) (err error) {
		commit, err = m.commitTree(ctx, dir, environment, n.Message, to+"^{tree}", head)
		return err
	})
	if err != nil {
		return "", err
	}
	return commit, nil
}

// errUnrelated is about commits that have nothing in common.
var errUnrelated = fmt.Errorf("%w: the two histories have no commit in common", ErrUnusable)

// mergeTree merges two commits into a tree, in which the files that are in conflict hold both sides.
func (m *Mirror) mergeTree(ctx context.Context, dir string, environment []string, ours, theirs string) (tree string, conflicts []string, err error) {
	answer, err := m.gitWith(ctx, dir, environment, "", "merge-tree", "--write-tree", "-z", "--name-only", "--no-messages", ours, theirs)
	tree, names, _ := strings.Cut(string(answer), "\x00")
	// A commit that is not there is code 1, too, but then there is no tree.
	conflicted := exitCode(err) == 1 && fullHash.MatchString(tree)
	switch {
	case exitCode(err) > 1 && strings.Contains(err.Error(), "unrelated histories"):
		return "", nil, fmt.Errorf("%w: %s and %s", errUnrelated, ours, theirs)
	case err != nil && !conflicted:
		return "", nil, err
	case !fullHash.MatchString(tree):
		return "", nil, fmt.Errorf("git merge-tree answers %q", readable(string(answer), nil))
	}
	for name := range strings.SplitSeq(names, "\x00") {
		if name != "" {
			conflicts = append(conflicts, name)
		}
	}
	if conflicted && len(conflicts) == 0 {
		return "", nil, fmt.Errorf("git merge-tree finds a conflict between %s and %s, but names no file", ours, theirs)
	}
	slices.Sort(conflicts)
	return tree, slices.Compact(conflicts), nil
}

// explain finds the commits that made a conflict.
func (m *Mirror) explain(ctx context.Context, dir, ours, theirs string, names []string) error {
	conflict, side := &ConflictError{}, &sides{m: m, dir: dir}
	for i, name := range names[:min(len(names), maxConflicts)] {
		file := ConflictFile{Path: name}
		if i < maxExplained {
			var err error
			if file.Ours, err = side.touching(ctx, ours, theirs, name); err != nil {
				return err
			}
			if file.Theirs, err = side.touching(ctx, theirs, ours, name); err != nil {
				return err
			}
		}
		conflict.Files = append(conflict.Files, file)
	}
	return conflict
}

// sides finds the commits of the two sides of a conflict.
type sides struct {
	m       *Mirror
	dir     string
	renamed map[string]map[string]string // by commit: files that it has renamed since the histories parted, with their former names
}

// touching are the newest commits that changed a file in one history and are not in another one, which
// may have renamed the file.
func (s *sides) touching(ctx context.Context, in, without, name string) ([]Commit, error) {
	commits, err := s.m.log(ctx, s.dir, maxTouching, "--no-merges", in, "^"+without, "--", name)
	if err != nil || len(commits) > 0 {
		return commits, err
	}
	former, err := s.former(ctx, without, in, name)
	if err != nil {
		return nil, err
	}
	return s.m.log(ctx, s.dir, maxTouching, in, "^"+without, "--", name, former)
}

// former is the name that a file had before one of the sides renamed it; its own name if it did not.
func (s *sides) former(ctx context.Context, by, other, name string) (string, error) {
	if s.renamed[by] == nil {
		base, err := s.m.git(ctx, s.dir, "merge-base", by, other)
		if err != nil {
			return "", err
		}
		changes, err := s.m.differing(ctx, s.dir, nil, strings.TrimSpace(string(base))+"^{tree}", by+"^{tree}")
		if err != nil {
			return "", err
		}
		names := map[string]string{}
		for _, change := range changes {
			if change.Before != "" {
				names[change.Path] = change.Before
			}
		}
		if s.renamed == nil {
			s.renamed = map[string]map[string]string{}
		}
		s.renamed[by] = names
	}
	return cmp.Or(s.renamed[by][name], name), nil
}

// commitTree makes a commit that depends on nothing but the parameters.
func (m *Mirror) commitTree(ctx context.Context, dir string, environment []string, message, tree string, parents ...string) (string, error) {
	args := []string{"commit-tree", "-F", "-"}
	for _, parent := range parents {
		args = append(args, "-p", parent)
	}
	answer, err := m.gitWith(ctx, dir, environment, message, append(args, tree)...)
	if err != nil {
		return "", err
	}
	commit := strings.TrimSpace(string(answer))
	if !fullHash.MatchString(commit) {
		return "", fmt.Errorf("git commit-tree answers %q", readable(commit, nil))
	}
	return commit, nil
}

var ident = regexp.MustCompile(`^([^<>]*[\pL\pN][^<>]*) <([^<>\s]+)>$`)

// check is the environment in which git makes the commit.
func (n NewCommit) check() ([]string, error) {
	author := ident.FindStringSubmatch(n.Author)
	isControl := func(r rune) bool {
		return unicode.IsControl(r) && r != '\n' && r != '\t' || r == unicode.ReplacementChar
	}
	switch {
	case author == nil || strings.ContainsFunc(n.Author, unicode.IsControl):
		return nil, fmt.Errorf("%w: the author of a commit is %q; must be like Fairway <fairway@example.org>", ErrUnusable, n.Author)
	case n.At.Unix() <= 0 || n.At.Year() > 9999:
		return nil, fmt.Errorf("%w: a commit cannot be of %s", ErrUnusable, n.At)
	case strings.TrimSpace(n.Message) == "" || len(n.Message) > maxMessage || strings.ContainsFunc(n.Message, isControl):
		return nil, fmt.Errorf("%w: the message of a commit is empty, longer than %d bytes or not plain text", ErrUnusable, maxMessage)
	}
	at := fmt.Sprintf("@%d +0000", n.At.Unix())
	return []string{
		"GIT_AUTHOR_NAME=" + author[1], "GIT_AUTHOR_EMAIL=" + author[2], "GIT_AUTHOR_DATE=" + at,
		"GIT_COMMITTER_NAME=" + author[1], "GIT_COMMITTER_EMAIL=" + author[2], "GIT_COMMITTER_DATE=" + at,
	}, nil
}
