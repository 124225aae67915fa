package lab

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"time"
)

// landing is a pull request in the past of the configuration repository.
type landing struct {
	merged string // when dev got it
	title  string
	paths  []string // what it added: files or directories; nil is all that is left
}

// landings are how lab/sample/config came about. Each was on alpha the same day and on stable
// two days later, so that at first all channels hold the same.
var landings = []landing{
	{"2026-09-01T08:30:00Z", "Describe a cluster and its node pools",
		[]string{"README.md", "cluster/cluster.yaml", "cluster/etcd", "cluster/node-pools", "cluster/config-defaults.yaml"}},
	{"2026-09-07T09:12:00Z", "Add namespaces, priorities and volumes that stay in their zone",
		[]string{"cluster/manifests/01-namespaces", "cluster/manifests/01-priorityclasses", "cluster/manifests/01-storageclass", "cluster/manifests/deletions.yaml"}},
	{"2026-09-14T13:40:00Z", "Run DNS, kube-proxy and the node exporter",
		[]string{"cluster/manifests/coredns", "cluster/manifests/kube-proxy", "cluster/manifests/node-exporter"}},
	{"2026-09-28T10:05:00Z", "Let traffic in with skipper", []string{"cluster/manifests/skipper-ingress"}},
	{"2026-10-12T11:20:00Z", "Move the applications over", nil},
}

// pushHistory fills the configuration repository. The same files always give the same commits.
func (l *Lab) pushHistory(ctx context.Context, token string) error {
	stream, err := historyStream(os.DirFS(filepath.Join(l.root, "lab", "sample", "config")))
	if err != nil {
		return fmt.Errorf("writing the history of the configuration repository: %w", err)
	}
	dir, err := os.MkdirTemp(l.dir, "history-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if _, err := run(ctx, dir, gitEnv, "git", "init", "--quiet", "--bare"); err != nil {
		return err
	}
	load := exec.CommandContext(ctx, "git", "fast-import", "--quiet")
	load.Dir, load.Env, load.Stdin = dir, append(os.Environ(), gitEnv...), bytes.NewReader(stream)
	if out, err := load.CombinedOutput(); err != nil {
		return fmt.Errorf("git fast-import: %w\n%s", err, out)
	}
	// The token goes through the environment, where neither a process list nor an error shows it.
	env := append([]string{"GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=http.extraHeader", "GIT_CONFIG_VALUE_0=Authorization: token " + token}, gitEnv...)
	url := fmt.Sprintf("http://%s/%s/%s.git", l.Direct("forge"), forgeOwner, forgeRepository)
	// What is pushed first to an empty repository becomes its default branch.
	if _, err := run(ctx, dir, env, "git", "push", "--quiet", url, "dev"); err != nil {
		return err
	}
	_, err = run(ctx, dir, env, "git", "push", "--quiet", url, "--all")
	return err
}

// gitEnv keeps git from asking anybody, and from the settings of whoever runs the lab.
var gitEnv = []string{"GIT_TERMINAL_PROMPT=0", "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=" + os.DevNull}

// historyStream writes all branches and commits as input of git fast-import.
func historyStream(config fs.FS) ([]byte, error) {
	files := map[string]string{}
	var order []string
	err := fs.WalkDir(config, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := fs.ReadFile(config, name)
		files[name] = string(content)
		order = append(order, name)
		return err
	})
	if err != nil {
		return nil, err
	}

	h := history{marks: map[string]int{}}
	for i, landing := range landings {
		merged, err := time.Parse(time.RFC3339, landing.merged)
		if err != nil {
			return nil, err
		}
		var added []string
		var rest []string
		for _, name := range order {
			if landing.adds(name) {
				added = append(added, name)
			} else {
				rest = append(rest, name)
			}
		}
		order = rest
		changes := h.blobs(added, files)
		if i == 0 {
			h.commit("dev", forgeAuthor, merged, landing.title, changes)
			h.branch("alpha", "dev")
			h.branch("stable", "dev")
			continue
		}
		branch := fmt.Sprintf("change-%d", i)
		h.branch(branch, "dev")
		h.commit(branch, forgeAuthor, merged.Add(-90*time.Minute), landing.title, changes)
		h.commit("dev", forgeReviewer, merged, fmt.Sprintf("Merge pull request '%s' (#%d)", landing.title, i), changes, branch)
		h.commit("alpha", forgeOperator, merged.Add(6*time.Hour), "Promote dev to alpha", changes, "dev")
		h.commit("stable", forgeReviewer, merged.Add(48*time.Hour), "Promote alpha to stable", changes, "alpha")
		fmt.Fprintf(&h.stream, "reset refs/heads/%s\nfrom %s\n\n", branch, strings.Repeat("0", 40))
	}
	return h.stream.Bytes(), nil
}

func (l landing) adds(name string) bool {
	if l.paths == nil {
		return true
	}
	for dir := name; dir != "."; dir = path.Dir(dir) {
		for _, p := range l.paths {
			if p == dir {
				return true
			}
		}
	}
	return false
}

// history is git fast-import's input while it is being written.
type history struct {
	stream bytes.Buffer
	last   int            // the last mark given
	marks  map[string]int // branch to its head
}

func (h *history) mark() int {
	h.last++
	return h.last
}

func (h *history) data(text string) { fmt.Fprintf(&h.stream, "data %d\n%s\n", len(text), text) }

// blobs writes the files and returns the lines that add them to a commit.
func (h *history) blobs(names []string, files map[string]string) string {
	var changes strings.Builder
	for _, name := range names {
		mark := h.mark()
		fmt.Fprintf(&h.stream, "blob\nmark :%d\n", mark)
		h.data(files[name])
		fmt.Fprintf(&changes, "M 100644 :%d %s\n", mark, name)
	}
	return changes.String()
}

func (h *history) branch(name, from string) {
	h.marks[name] = h.marks[from]
	fmt.Fprintf(&h.stream, "reset refs/heads/%s\nfrom :%d\n\n", name, h.marks[from])
}

func (h *history) commit(branch, by string, at time.Time, title, changes string, merge ...string) {
	mark := h.mark()
	who := fmt.Sprintf("%s <%s> %d +0000", by, forgeEmail(by), at.Unix())
	fmt.Fprintf(&h.stream, "commit refs/heads/%s\nmark :%d\nauthor %s\ncommitter %s\n", branch, mark, who, who)
	h.data(title + "\n")
	if head := h.marks[branch]; head != 0 {
		fmt.Fprintf(&h.stream, "from :%d\n", head)
	}
	for _, other := range merge {
		fmt.Fprintf(&h.stream, "merge :%d\n", h.marks[other])
	}
	fmt.Fprintf(&h.stream, "%s\n", changes)
	h.marks[branch] = mark
}
