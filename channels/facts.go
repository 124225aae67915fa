package channels

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Facts are what tells how a landing got onto a channel. Merges that carry nothing of their own do not
// count among what it carries.
type Facts struct {
	Commit
	Merge bool
	// Known means that it carries commits that one of the sources has, or has the same as: by the patch.
	Known bool
	// Picked means that some of these are not the very commits.
	Picked bool
	// New means that it carries commits that no source has, or a merge that changes more than it had to.
	New bool
	// Resolved means that it carries a merge whose conflicts people have resolved.
	Resolved bool
}

// FactsOf a landing, which brings what its first parent lacks, with regard to the heads of the channels
// that are promoted to its channel.
func (m *Mirror) FactsOf(ctx context.Context, landing string, sources []string) (facts Facts, err error) {
	err = m.on(ctx, append([]string{landing}, sources...), func(dir string) error {
		commits, err := m.log(ctx, dir, 1, "--no-walk", landing)
		if err != nil {
			return err
		}
		if len(commits) != 1 {
			return fmt.Errorf("git shows %d commits for %s", len(commits), landing)
		}
		facts = Facts{Commit: commits[0], Merge: len(commits[0].Parents) > 1}
		which := []string{landing}
		if len(facts.Parents) > 0 {
			which = append(which, "^"+facts.Parents[0])
		}
		carried, err := m.revList(ctx, dir, append([]string{"--parents"}, which...)...)
		if err != nil {
			return err
		}
		own, err := m.ownMerges(ctx, dir, carried, which...)
		if err != nil {
			return err
		}
		has, err := m.having(ctx, dir, landing, sources, which[1:])
		if err != nil {
			return err
		}
		for _, commit := range carried {
			switch sha := commit[0]; {
			case len(commit) > 2 && (len(own[sha]) == 0 || has[sha] == '>'):
			case len(commit) > 2:
				resolved, err := m.onlyResolves(ctx, dir, commit, own[sha])
				if err != nil {
					return err
				}
				facts.Resolved = facts.Resolved || resolved
				facts.New = facts.New || !resolved
			case has[sha] == 0:
				facts.New = true
			default:
				facts.Known = true
				facts.Picked = facts.Picked || has[sha] == '='
			}
		}
		return nil
	})
	return facts, err
}

// having says of the commits that a landing carries whether sources have them ('>') or the same by the patch ('=').
func (m *Mirror) having(ctx context.Context, dir, landing string, sources, less []string) (map[string]byte, error) {
	has := map[string]byte{}
	for _, source := range sources {
		missing, err := m.git(ctx, dir, append([]string{"rev-list", landing, "^" + source}, less...)...)
		if err != nil {
			return nil, err
		}
		lacks := map[string]bool{}
		for line := range strings.Lines(string(missing)) {
			lacks[strings.TrimSpace(line)] = true
		}
		all, err := m.revList(ctx, dir, append([]string{landing}, less...)...)
		if err != nil {
			return nil, err
		}
		for _, commit := range all {
			if !lacks[commit[0]] {
				has[commit[0]] = '>'
			}
		}
		if len(lacks) == 0 {
			continue
		}
		marked, err := m.cherries(ctx, dir, landing, source, less)
		if err != nil {
			return nil, err
		}
		for commit, mark := range marked {
			if mark == '=' && lacks[commit] && has[commit] == 0 {
				has[commit] = '='
			}
		}
	}
	return has, nil
}

// cherries marks the commits, without merges, that are in one of two histories only: < in the first, >
// in the second, = in both by the patch.
func (m *Mirror) cherries(ctx context.Context, dir, a, b string, less []string) (map[string]byte, error) {
	answer, err := m.git(ctx, dir, append([]string{"rev-list", "--no-merges", "--left-right", "--cherry-mark", a + "..." + b}, less...)...)
	if err != nil {
		return nil, err
	}
	marks := map[string]byte{}
	for line := range strings.Lines(string(answer)) {
		if line = strings.TrimSpace(line); len(line) != 41 {
			return nil, fmt.Errorf("git rev-list answers %q", readable(line, nil))
		}
		marks[line[1:]] = line[0]
	}
	return marks, nil
}

// onlyResolves says whether a merge differs from what git would have merged in the files only that are in conflict.
func (m *Mirror) onlyResolves(ctx context.Context, dir string, merge, differing []string) (only bool, err error) {
	if len(merge) != 3 {
		return false, nil
	}
	err = m.apart(dir, func(apart []string) error {
		_, conflicts, err := m.mergeTree(ctx, dir, apart, merge[1], merge[2])
		only = err == nil && len(conflicts) > 0 && !slices.ContainsFunc(differing, func(name string) bool { return !slices.Contains(conflicts, name) })
		if errors.Is(err, errUnrelated) {
			return nil
		}
		return err
	})
	return only, err
}

// apart lets git write what it tries out beside the mirror, which would keep it.
func (m *Mirror) apart(dir string, try func(environment []string) error) error {
	scratch, err := os.MkdirTemp("", "fairway-merge-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(scratch) }()
	objects := strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(filepath.Join(dir, "objects"))
	return try([]string{"GIT_OBJECT_DIRECTORY=" + scratch, `GIT_ALTERNATE_OBJECT_DIRECTORIES="` + objects + `"`})
}

// maxTried bounds the commits that are applied to see whether they change anything.
const maxTried = 200

// Lacking are the commits of one history, without merges, that another one lacks, newest first, at most
// 1000. It does not lack what it has by the same patch, nor what would change nothing in it, nor what
// is only left in the first history's past: undone there, or replaced by what came from the second.
func (m *Mirror) Lacking(ctx context.Context, in, from string, most int) (lacking []Commit, err error) {
	err = m.on(ctx, []string{in, from}, func(dir string) error {
		marks, err := m.cherries(ctx, dir, in, from, nil)
		if err != nil {
			return err
		}
		candidates, err := m.revList(ctx, dir, "--no-merges", in, "^"+from)
		if err != nil {
			return err
		}
		candidates = slices.DeleteFunc(candidates, func(c []string) bool { return marks[c[0]] != '<' })
		if len(candidates) == 0 {
			return nil
		}
		missing, err := m.missingFiles(ctx, dir, in, from)
		if err != nil || len(missing) == 0 {
			return err
		}
		touched, err := m.touched(ctx, dir, candidates)
		if err != nil {
			return err
		}
		have, err := m.blobs(ctx, dir, in)
		if err != nil {
			return err
		}
		other, err := m.blobs(ctx, dir, from)
		if err != nil {
			return err
		}
		var found []string
		tried := 0
		for _, candidate := range candidates {
			if len(found) == within(most) {
				break
			}
			sha := candidate[0]
			same := true
			for name, after := range touched[sha] {
				merged := other[name] != "" && !missing[name] // unless it is there by another name
				same = same && (merged || other[name] == after || other[name] == have[name])
			}
			if !same && tried < maxTried {
				tried++
				if same, err = m.changesNothing(ctx, dir, sha, from); err != nil {
					return err
				}
			}
			if !same {
				found = append(found, sha)
			}
		}
		if len(found) > 0 {
			lacking, err = m.log(ctx, dir, len(found), append([]string{"--no-walk=unsorted"}, found...)...)
		}
		return err
	})
	return lacking, err
}

// missingFiles are those that a merge of the first history into the second would change.
func (m *Mirror) missingFiles(ctx context.Context, dir, in, from string) (map[string]bool, error) {
	files := map[string]bool{}
	err := m.apart(dir, func(apart []string) error {
		tree, conflicts, err := m.mergeTree(ctx, dir, apart, from, in)
		if errors.Is(err, errUnrelated) {
			tree, err = in+"^{tree}", nil
		}
		if err != nil {
			return err
		}
		changes, err := m.differing(ctx, dir, apart, from+"^{tree}", tree)
		if err != nil {
			return err
		}
		for _, change := range changes {
			files[change.Path] = true
			if change.Before != "" {
				files[change.Before] = true
			}
		}
		for _, name := range conflicts {
			files[name] = true
		}
		return nil
	})
	return files, err
}

// touched are the files that commits changed, with the mode and the blob that each has after it; empty for one that is gone.
func (m *Mirror) touched(ctx context.Context, dir string, commits [][]string) (map[string]map[string]string, error) {
	var input strings.Builder
	for _, commit := range commits {
		input.WriteString(commit[0] + "\n")
	}
	answer, err := m.gitWith(ctx, dir, nil, input.String(), "diff-tree", "--stdin", "--root", "-r", "-z", "--no-renames")
	if err != nil {
		return nil, err
	}
	all, commit := map[string]map[string]string{}, ""
	for fields := strings.Split(string(answer), "\x00"); len(fields) > 0; fields = fields[1:] {
		switch field := strings.TrimPrefix(fields[0], "\n"); {
		case strings.HasPrefix(field, ":") && commit != "" && len(fields) > 1:
			meta := strings.Fields(field) // :mode mode blob blob status
			if len(meta) != 5 {
				return nil, fmt.Errorf("git diff-tree answers %q", readable(field, nil))
			}
			after := meta[1] + " " + meta[3]
			if meta[4] == "D" {
				after = ""
			}
			all[commit][fields[1]] = after
			fields = fields[1:]
		case fullHash.MatchString(field):
			commit = field
			all[commit] = map[string]string{}
		case field != "":
			return nil, fmt.Errorf("git diff-tree answers %q", readable(field, nil))
		}
	}
	return all, nil
}

// blobs are all files of a commit with their mode and content.
func (m *Mirror) blobs(ctx context.Context, dir, commit string) (map[string]string, error) {
	answer, err := m.git(ctx, dir, "ls-tree", "-r", "-z", "--full-tree", commit)
	if err != nil {
		return nil, err
	}
	files := map[string]string{}
	for entry := range strings.SplitSeq(string(answer), "\x00") {
		meta, name, _ := strings.Cut(entry, "\t")
		if fields := strings.Fields(meta); len(fields) == 3 {
			files[name] = fields[0] + " " + fields[2]
		}
	}
	return files, nil
}

// changesNothing applies what a commit changed to another one, by a merge of histories made up for it:
// older gits cannot be told what to take for the common ancestor.
func (m *Mirror) changesNothing(ctx context.Context, dir, commit, to string) (nothing bool, err error) {
	err = m.apart(dir, func(apart []string) error {
		trees, err := m.git(ctx, dir, "log", "--no-walk=unsorted", "--format=%T %P", commit, to, "--")
		if err != nil {
			return err
		}
		lines := strings.Split(strings.TrimSuffix(string(trees), "\n"), "\n")
		if len(lines) != 2 {
			return fmt.Errorf("git log answers %q", readable(string(trees), nil))
		}
		changed, target := strings.Fields(lines[0]), strings.Fields(lines[1])
		if len(changed) != 2 { // the first commit of all
			return nil
		}
		n := NewCommit{Message: "trial", Author: "Fairway <fairway@localhost>", At: time.Unix(1, 0)}
		environment, err := n.check()
		if err != nil {
			return err
		}
		environment = append(environment, apart...)
		base, err := m.commitTree(ctx, dir, environment, n.Message, changed[1]+"^{tree}")
		if err != nil {
			return err
		}
		ours, err := m.commitTree(ctx, dir, environment, n.Message, target[0], base)
		if err != nil {
			return err
		}
		theirs, err := m.commitTree(ctx, dir, environment, n.Message, changed[0], base)
		if err != nil {
			return err
		}
		tree, conflicts, err := m.mergeTree(ctx, dir, apart, ours, theirs)
		nothing = err == nil && len(conflicts) == 0 && tree == target[0]
		return err
	})
	return nothing, err
}
