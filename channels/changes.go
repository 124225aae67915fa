package channels

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"github.com/go-git/go-git/v5/plumbing/filemode"
	"github.com/go-git/go-git/v5/plumbing/object"
	"github.com/go-git/go-git/v5/storage/filesystem"
)

// maxChanges bounds the files that differ.
const maxChanges = 20_000

// Changes are the files that differ once head is merged into base; if there are conflicts, those that
// head has changed since the histories parted. Paths are as they are in the repository: they may
// hold anything. ErrUnusable if there are more than 20,000.
func (m *Mirror) Changes(ctx context.Context, base, head string) (changes []FileChange, err error) {
	err = m.on(ctx, []string{base, head}, func(dir string) error {
		return m.apart(dir, func(apart []string) error {
			tree, conflicts, err := m.mergeTree(ctx, dir, apart, base, head)
			before, after := base+"^{tree}", tree
			switch {
			case errors.Is(err, errUnrelated):
				after = head + "^{tree}"
			case err != nil:
				return err
			case len(conflicts) > 0:
				answer, err := m.git(ctx, dir, "merge-base", base, head)
				if err != nil {
					return err
				}
				before, after = strings.TrimSpace(string(answer))+"^{tree}", head+"^{tree}"
			}
			changes, err = m.differing(ctx, dir, apart, before, after)
			return err
		})
	})
	return changes, err
}

// Difference are the files that are not the same in two commits, however these are related. Bounds and paths
// are those of Changes.
func (m *Mirror) Difference(ctx context.Context, before, after string) (changes []FileChange, err error) {
	err = m.on(ctx, []string{before, after}, func(dir string) error {
		return m.apart(dir, func(apart []string) error {
			changes, err = m.differing(ctx, dir, apart, before+"^{tree}", after+"^{tree}")
			return err
		})
	})
	return changes, err
}

// differing are the files that are not the same in two trees.
func (m *Mirror) differing(ctx context.Context, dir string, environment []string, before, after string) (changes []FileChange, err error) {
	answer, err := m.gitWith(ctx, dir, environment, "", "diff-tree", "-r", "-z", "--name-status", "--find-renames", "-l1000", before, after, "--")
	if err != nil {
		return nil, err
	}
	fields := strings.Split(strings.TrimSuffix(string(answer), "\x00"), "\x00")
	for len(fields) > 1 && fields[0] != "" {
		change := FileChange{Status: fields[0][0], Path: fields[1]}
		fields = fields[2:]
		if change.Status == 'R' && len(fields) > 0 {
			change.Before, change.Path = change.Path, fields[0]
			fields = fields[1:]
		}
		if changes = append(changes, change); len(changes) > maxChanges {
			return nil, fmt.Errorf("%w: more than %d files differ", ErrUnusable, maxChanges)
		}
	}
	return changes, nil
}

// Text is the content of a file at a commit; false if there is no such file, or something else than a
// file. ErrUnusable if it has more than 8 MiB.
func (m *Mirror) Text(ctx context.Context, commit, name string) (text string, found bool, err error) {
	defer func() { // go-git, about an object that is not what it expects
		if cause := recover(); cause != nil {
			text, found, err = "", false, fmt.Errorf("reading %q of commit %s: %v", name, commit, cause)
		}
	}()
	err = m.read(ctx, commit, func(c *object.Commit, storage *filesystem.Storage) error {
		text, found = "", false
		if !fs.ValidPath(name) || name == "." {
			return nil
		}
		l := loader{ctx: ctx, commit: commit, storage: storage}
		folder, base := path.Split(name)
		tree, err := l.descend(c.TreeHash, path.Clean(folder))
		if err != nil || tree == nil {
			return err
		}
		entry, err := tree.FindEntry(base)
		if errors.Is(err, object.ErrEntryNotFound) || err == nil && entry.Mode != filemode.Regular && entry.Mode != filemode.Executable && entry.Mode != filemode.Deprecated {
			return nil
		}
		if err != nil {
			return err
		}
		data, err := l.content(entry.Hash, name)
		text, found = string(data), err == nil
		return err
	})
	return text, found, err
}
