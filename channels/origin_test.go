package channels_test

import (
	"bytes"
	"compress/zlib"
	"crypto/sha1" //nolint:gosec // what git uses
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fairway-project/fairway/channels"
)

// origin is a configuration repository for a test.
type origin struct {
	t   *testing.T
	dir string
}

func newOrigin(t *testing.T) origin {
	o := origin{t, filepath.Join(t.TempDir(), "origin.git")}
	o.git("init", "--quiet", "--bare", "--initial-branch=dev", o.dir)
	return o
}

func (o origin) git(args ...string) string { return o.gitWith("", args...) }

func (o origin) gitWith(input string, args ...string) string {
	o.t.Helper()
	command := exec.Command("git", args...)
	command.Env = append(os.Environ(), "GIT_DIR="+o.dir, "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1",
		"GIT_AUTHOR_NAME=Anna", "GIT_AUTHOR_EMAIL=anna@example.org", "GIT_COMMITTER_NAME=Anna", "GIT_COMMITTER_EMAIL=anna@example.org")
	command.Stdin = strings.NewReader(input)
	out, err := command.Output()
	if err != nil {
		exit, _ := err.(*exec.ExitError) //nolint:errorlint // for its text
		require.NoError(o.t, err, "git %v: %s", args, exit.Stderr)
	}
	return strings.TrimSpace(string(out))
}

func (o origin) blob(content string) string {
	return o.gitWith(content, "hash-object", "-w", "--stdin")
}

// tree makes one of lines such as "100644 blob <hash>\tname".
func (o origin) tree(lines ...string) string {
	return o.gitWith(strings.Join(lines, "\n")+"\n", "mktree", "--missing")
}

// commit moves a branch on to a commit with one file below cluster/.
func (o origin) commit(branch, file, content string) string {
	inner := o.tree("100644 blob " + o.blob(content) + "\t" + file)
	return o.commitTree(branch, file+" is now "+content, o.tree("040000 tree "+inner+"\tcluster"))
}

func (o origin) commitTree(branch, message, tree string) string {
	args := []string{"commit-tree", tree, "-m", message}
	if parent := o.git("for-each-ref", "--format=%(objectname)", "refs/heads/"+branch); parent != "" {
		args = append(args, "-p", parent)
	}
	commit := o.git(args...)
	o.git("update-ref", "refs/heads/"+branch, commit)
	return commit
}

// rewrite takes a branch to where its commits have never been, as a force push does.
func (o origin) rewrite(branch, file, content string) string {
	o.git("update-ref", "-d", "refs/heads/"+branch)
	return o.commit(branch, file, content)
}

// prune drops what no branch has any more.
func (o origin) prune() { o.git("gc", "--quiet", "--prune=now") }

func (o origin) mirror() *channels.Mirror {
	return &channels.Mirror{URL: o.dir, Dir: filepath.Join(o.t.TempDir(), "mirror.git")}
}

// looseObject writes an object of its own.
func (o origin) looseObject(number int) {
	o.t.Helper()
	content := fmt.Sprintf("blob 8\x00%08d", number)
	sum := fmt.Sprintf("%x", sha1.Sum([]byte(content)))
	dir := filepath.Join(o.dir, "objects", sum[:2])
	require.NoError(o.t, os.MkdirAll(dir, 0o700))
	var packed bytes.Buffer
	writer := zlib.NewWriter(&packed)
	_, _ = writer.Write([]byte(content))
	require.NoError(o.t, writer.Close())
	require.NoError(o.t, os.WriteFile(filepath.Join(dir, sum[2:]), packed.Bytes(), 0o444))
}
