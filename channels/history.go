package channels

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Bounds of what is read of a history.
const (
	maxMost     = 1000 // commits of a list
	maxTrailers = 50   // of a commit
	maxMerges   = 200  // of a range, the newest ones, that are searched for content of their own
)

// Landings are the commits of the first-parent line of head after known, oldest first; the newest if
// there are more than most (at most 1000). Without a known commit they are the newest. Rewritten means
// that known is not on that line, or gone: then, too, they are the newest.
func (m *Mirror) Landings(ctx context.Context, known, head string, most int) (landings []Commit, rewritten bool, err error) {
	if known != "" && known != head {
		err = m.on(ctx, []string{head, known}, func(dir string) error {
			line, err := m.revList(ctx, dir, "--first-parent", "--parents", head, "^"+known)
			if err != nil {
				return err
			}
			if rewritten = !begins(line, known); rewritten {
				return nil
			}
			landings, err = m.log(ctx, dir, most, "--first-parent", head, "^"+known)
			return err
		})
		if errors.Is(err, ErrGone) {
			rewritten, err = true, nil // if it is head that is gone, this is found below
		}
	}
	if known == "" || rewritten {
		err = m.on(ctx, []string{head}, func(dir string) (err error) {
			landings, err = m.log(ctx, dir, most, "--first-parent", head)
			return err
		})
	}
	slices.Reverse(landings)
	return landings, rewritten, err
}

// begins says whether a first-parent line, newest first with parents, begins right after a commit.
func begins(line [][]string, after string) bool {
	if len(line) == 0 {
		return false
	}
	oldest := line[len(line)-1]
	return len(oldest) > 1 && oldest[1] == after
}

// Commits are those that head has and base lacks, newest first, without merges that carry nothing of
// their own. Omitted is how many there are beyond most (at most 1000).
func (m *Mirror) Commits(ctx context.Context, base, head string, most int) (commits []Commit, omitted int, err error) {
	err = m.on(ctx, []string{base, head}, func(dir string) error {
		all, err := m.revList(ctx, dir, "--parents", head, "^"+base)
		if err != nil {
			return err
		}
		own, err := m.ownMerges(ctx, dir, all, head, "^"+base)
		if err != nil {
			return err
		}
		var carrying []string
		for _, commit := range all {
			if len(commit) <= 2 || len(own[commit[0]]) > 0 {
				carrying = append(carrying, commit[0])
			}
		}
		shown := carrying[:min(len(carrying), within(most))]
		omitted = len(carrying) - len(shown)
		if len(shown) > 0 {
			commits, err = m.log(ctx, dir, len(shown), append([]string{"--no-walk=unsorted"}, shown...)...)
		}
		return err
	})
	return commits, omitted, err
}

// Brought is the commit of the first-parent line of head with which a candidate came there: itself,
// or the merge. Not found means that head does not contain it.
func (m *Mirror) Brought(ctx context.Context, head, candidate string) (landing Commit, found bool, err error) {
	err = m.on(ctx, []string{head, candidate}, func(dir string) error {
		by := candidate
		if head != candidate {
			line, err := m.revList(ctx, dir, "--first-parent", "--parents", head, "^"+candidate)
			if err != nil {
				return err
			}
			if !begins(line, candidate) {
				containing, err := m.revList(ctx, dir, "--ancestry-path", head, "^"+candidate)
				if err != nil || len(containing) == 0 {
					return err
				}
				if by = oldestOf(line, containing); by == "" {
					return nil
				}
			}
		}
		commits, err := m.log(ctx, dir, 1, "--no-walk", by)
		if err != nil {
			return err
		}
		if len(commits) != 1 {
			return fmt.Errorf("git shows %d commits for %s", len(commits), by)
		}
		landing, found = commits[0], true
		return nil
	})
	return landing, found, err
}

// oldestOf a line that is among others.
func oldestOf(line, others [][]string) string {
	among := make(map[string]bool, len(others))
	for _, other := range others {
		among[other[0]] = true
	}
	for _, commit := range slices.Backward(line) {
		if among[commit[0]] {
			return commit[0]
		}
	}
	return ""
}

// ownMerges are the merges of a range with the files that make them different from what git would have
// merged. Those of more than two parents have none.
func (m *Mirror) ownMerges(ctx context.Context, dir string, all [][]string, which ...string) (map[string][]string, error) {
	if !slices.ContainsFunc(all, func(commit []string) bool { return len(commit) > 2 }) {
		return nil, nil
	}
	var answer []byte
	err := m.apart(dir, func(apart []string) (err error) { // it merges all of them anew
		answer, err = m.gitWith(ctx, dir, apart, "", append([]string{"log", "-z", "--merges", "--max-count=" + strconv.Itoa(maxMerges), "--remerge-diff", "--raw", "--no-renames",
			"--format=%H"}, which...)...)
		return err
	})
	if err != nil {
		return nil, err
	}
	own, merge := map[string][]string{}, ""
	for fields := strings.Split(string(answer), "\x00"); len(fields) > 0; fields = fields[1:] {
		switch field := strings.TrimPrefix(fields[0], "\n"); {
		case strings.HasPrefix(field, ":") && merge != "" && len(fields) > 1:
			own[merge] = append(own[merge], fields[1])
			fields = fields[1:]
		case fullHash.MatchString(field):
			merge = field
		case field != "":
			return nil, fmt.Errorf("git log answers %q", readable(field, nil))
		}
	}
	return own, nil
}

// revList lists commits, each followed by its parents if asked for.
func (m *Mirror) revList(ctx context.Context, dir string, args ...string) ([][]string, error) {
	answer, err := m.git(ctx, dir, append([]string{"rev-list"}, args...)...)
	if err != nil {
		return nil, err
	}
	var commits [][]string
	for line := range strings.Lines(string(answer)) {
		commits = append(commits, strings.Fields(line))
	}
	return commits, nil
}

// logForm ends each text with a byte that none contains, and shortens it.
const logForm = "--format=%H%x00%P%x00%ct%x00%<(100,trunc)%an%x00%<(300,trunc)%s%x00%<(4000,trunc)%(trailers:only=true,unfold=true)%x00"

const logFields = 6

// log reads commits for people, in git's order.
func (m *Mirror) log(ctx context.Context, dir string, most int, which ...string) ([]Commit, error) {
	args := append([]string{"log", "--no-show-signature", "--no-color", logForm, "--max-count=" + strconv.Itoa(within(most))}, which...)
	if !slices.Contains(args, "--") {
		args = append(args, "--")
	}
	answer, err := m.git(ctx, dir, args...)
	if err != nil {
		return nil, err
	}
	fields := strings.Split(string(answer), "\x00")
	var commits []Commit
	for ; len(fields) > logFields; fields = fields[logFields:] {
		c := Commit{
			SHA: strings.TrimPrefix(fields[0], "\n"), Parents: strings.Fields(fields[1]), Author: title(fields[3]), Title: title(fields[4]),
			Trailers: trailers(fields[5]),
		}
		if !fullHash.MatchString(c.SHA) {
			return nil, fmt.Errorf("git log answers %q", readable(c.SHA, nil))
		}
		// Other years cannot be written down.
		if seconds, err := strconv.ParseInt(fields[2], 10, 64); err == nil && seconds >= 0 && seconds < 253402300800 {
			c.At = time.Unix(seconds, 0).UTC()
		}
		commits = append(commits, c)
	}
	return commits, nil
}

func within(most int) int { return max(1, min(most, maxMost)) }

// title is a text for people; empty if there is none.
func title(text string) string {
	if strings.TrimSpace(text) == "" {
		return ""
	}
	return readable(text, nil)
}

// trailers are those of a message. Of several with the same name the last one counts, which is the
// one that Fairway has added to a message.
func trailers(text string) map[string]string {
	found := map[string]string{}
	for line := range strings.Lines(text) {
		name, value, is := strings.Cut(line, ":")
		if is && len(found) < maxTrailers && !strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r > '~' }) {
			found[name] = title(value)
		}
	}
	return found
}
