package product

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fairway-project/fairway/lab"
)

// MakeBranches makes the branches that the sample repository lacks; they begin at stable.
func MakeBranches(ctx context.Context, l *lab.Lab, branches []string) error {
	clone, err := os.MkdirTemp(folder, "branches-")
	if err != nil {
		return err
	}
	if _, err := Git(ctx, clone, "clone", "--quiet", Remote(l), "."); err != nil {
		return err
	}
	push := []string{"push", "--quiet", "origin"}
	for _, branch := range branches {
		if _, err := Git(ctx, clone, "rev-parse", "--verify", "origin/"+branch); err != nil {
			push = append(push, "origin/stable:refs/heads/"+branch)
		}
	}
	_, err = Git(ctx, clone, push...)
	return err
}

// Clone is a copy of the configuration repository that a test works in.
type Clone struct {
	*testing.T
	Dir string
}

// NewClone makes a copy that goes with the test.
func NewClone(t *testing.T, l *lab.Lab) Clone {
	t.Helper()
	c := Clone{t, t.TempDir()}
	c.Git("clone", "--quiet", Remote(l), ".")
	return c
}

// Git runs git in the clone.
func (c Clone) Git(args ...string) string {
	c.Helper()
	out, err := Git(c.Context(), c.Dir, args...)
	require.NoError(c, err)
	return out
}

// Fetch brings the clone up to date.
func (c Clone) Fetch() { c.Git("fetch", "--quiet", "--prune", "origin") }

// Push makes a commit on a branch that gives files a content, and returns it.
func (c Clone) Push(branch, title string, files map[string]string) string {
	c.Helper()
	c.Fetch()
	c.Git("checkout", "--quiet", "--detach", "origin/"+branch)
	return c.Commit(branch, title, files)
}

// Commit is Push on top of what is checked out.
func (c Clone) Commit(branch, title string, files map[string]string) string {
	c.Helper()
	for name, content := range files {
		path := filepath.Join(c.Dir, name)
		require.NoError(c, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(c, os.WriteFile(path, []byte(content), 0o644))
	}
	c.Git("add", "--all")
	c.Git("commit", "--quiet", "--allow-empty", "-m", title)
	c.Git("push", "--quiet", "origin", "HEAD:refs/heads/"+branch)
	return c.Git("rev-parse", "HEAD")
}

// Head is the commit that a branch is at; empty if there is no such branch.
func (c Clone) Head(branch string) string {
	c.Helper()
	commit, _, _ := strings.Cut(c.Git("ls-remote", "--heads", "origin", "refs/heads/"+branch), "\t")
	return commit
}

// File is the content of a file on a branch.
func (c Clone) File(branch, path string) string {
	c.Helper()
	c.Fetch()
	return c.Git("show", "origin/"+branch+":"+path)
}
