// Package channelstest makes configuration repositories for tests, with the git binary.
package channelstest

import (
	"bytes"
	"compress/zlib"
	"crypto/sha1"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fairway-project/fairway/channels"
)

// Repository is a bare repository, the origin of mirrors or a mirror.
type Repository struct {
	t   *testing.T
	Dir string
}

// New makes an empty repository.
func New(t *testing.T) Repository {
	o := Repository{t, filepath.Join(t.TempDir(), "origin.git")}
	o.Git("init", "--quiet", "--bare", "--initial-branch=dev", o.Dir)
	return o
}

// In is the repository in a directory.
func In(t *testing.T, dir string) Repository { return Repository{t, dir} }

// Git runs git on the repository and returns what it says.
func (o Repository) Git(args ...string) string { return o.GitWith("", args...) }

// GitWith does so with an input.
func (o Repository) GitWith(input string, args ...string) string {
	o.t.Helper()
	command := exec.Command("git", args...)
	command.Env = append(os.Environ(), "GIT_DIR="+o.Dir, "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1",
		"GIT_AUTHOR_NAME=Anna", "GIT_AUTHOR_EMAIL=anna@example.org", "GIT_COMMITTER_NAME=Anna", "GIT_COMMITTER_EMAIL=anna@example.org")
	command.Stdin = strings.NewReader(input)
	out, err := command.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		require.NoError(o.t, err, "git %v: %s", args, exit.Stderr)
	}
	require.NoError(o.t, err)
	return strings.TrimSpace(string(out))
}

// Blob stores a file.
func (o Repository) Blob(content string) string {
	return o.GitWith(content, "hash-object", "-w", "--stdin")
}

// Tree makes one of lines such as "100644 blob <hash>\tname".
func (o Repository) Tree(lines ...string) string {
	return o.GitWith(strings.Join(lines, "\n")+"\n", "mktree", "--missing")
}

// Commit moves a branch on to a commit with one file below cluster/.
func (o Repository) Commit(branch, file, content string) string {
	inner := o.Tree("100644 blob " + o.Blob(content) + "\t" + file)
	return o.CommitTree(branch, file+" is now "+content, o.Tree("040000 tree "+inner+"\tcluster"))
}

// CommitTree moves a branch on to a commit with a tree.
func (o Repository) CommitTree(branch, message, tree string) string {
	args := []string{"commit-tree", tree, "-m", message}
	if parent := o.Git("for-each-ref", "--format=%(objectname)", "refs/heads/"+branch); parent != "" {
		args = append(args, "-p", parent)
	}
	commit := o.Git(args...)
	o.Git("update-ref", "refs/heads/"+branch, commit)
	return commit
}

// Rewrite takes a branch to where its commits have never been, as a force push does.
func (o Repository) Rewrite(branch, file, content string) string {
	o.Git("update-ref", "-d", "refs/heads/"+branch)
	return o.Commit(branch, file, content)
}

// Prune drops what no branch has any more.
func (o Repository) Prune() { o.Git("gc", "--quiet", "--prune=now") }

// Mirror is a new mirror of the repository.
func (o Repository) Mirror() *channels.Mirror {
	return &channels.Mirror{URL: o.Dir, Dir: filepath.Join(o.t.TempDir(), "mirror.git")}
}

// LooseObject writes an object of its own.
func (o Repository) LooseObject(number int) {
	o.t.Helper()
	content := fmt.Sprintf("blob 8\x00%08d", number)
	sum := fmt.Sprintf("%x", sha1.Sum([]byte(content)))
	dir := filepath.Join(o.Dir, "objects", sum[:2])
	require.NoError(o.t, os.MkdirAll(dir, 0o700))
	var packed bytes.Buffer
	writer := zlib.NewWriter(&packed)
	_, _ = writer.Write([]byte(content))
	require.NoError(o.t, writer.Close())
	require.NoError(o.t, os.WriteFile(filepath.Join(dir, sum[2:]), packed.Bytes(), 0o444))
}
