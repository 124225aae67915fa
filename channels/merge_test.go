package channels_test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fairway-project/fairway/channels"
	"github.com/fairway-project/fairway/channels/channelstest"
)

// files are what a commit holds, by path: the content, or "mode content" where the mode is unusual.
type files map[string]string

// history makes commits of whole trees, on no branch but what it is told.
type history struct {
	channelstest.Repository
	t *testing.T
}

func newHistory(t *testing.T) history { return history{channelstest.New(t), t} }

func (h history) tree(content files) string {
	var lines []string
	folders := map[string]files{}
	for name, text := range content {
		if folder, rest, below := strings.Cut(name, "/"); below {
			if folders[folder] == nil {
				folders[folder] = files{}
			}
			folders[folder][rest] = text
			continue
		}
		mode := "100644"
		for _, other := range []string{"100755", "120000"} {
			if rest, is := strings.CutPrefix(text, other+" "); is {
				mode, text = other, rest
			}
		}
		lines = append(lines, mode+" blob "+h.Blob(text)+"\t"+strconv.Quote(name))
	}
	for folder, below := range folders {
		lines = append(lines, "040000 tree "+h.tree(below)+"\t"+folder)
	}
	return h.Tree(lines...)
}

// commit makes one; the branches keep it reachable.
func (h history) commit(title string, content files, parents ...string) string {
	args := []string{"commit-tree", h.tree(content), "-m", title}
	for _, parent := range parents {
		args = append(args, "-p", parent)
	}
	commit := h.Git(args...)
	h.Git("update-ref", "refs/heads/kept/"+commit, commit)
	return commit
}

func (h history) branch(name, commit string) string {
	h.Git("update-ref", "refs/heads/"+name, commit)
	return commit
}

var promotion = channels.NewCommit{
	Message: "Promote dev to alpha\n\nFairway-Promotion: dev-to-alpha/0123456789ab\nFairway-Reason: soaked\n", Author: "Fairway <fairway@example.org>", At: time.Unix(1_700_000_000, 0),
}

// numbered is a file of ten lines, some of which are different.
func numbered(different map[int]string) string {
	var text strings.Builder
	for i := 1; i <= 10; i++ {
		if line, is := different[i]; is {
			fmt.Fprintln(&text, line)
		} else {
			fmt.Fprintln(&text, i)
		}
	}
	return text.String()
}

func titles(commits []channels.Commit) (all []string) {
	for _, c := range commits {
		all = append(all, c.Title)
	}
	return all
}

func TestWhatMergesAndWhatIsInConflict(t *testing.T) {
	for name, c := range map[string]struct {
		base, ours, theirs, want files
		conflicts                []string
	}{
		"one side only":                   {base: files{"a": "1"}, ours: files{"a": "1"}, theirs: files{"a": "2"}, want: files{"a": "2"}},
		"other files":                     {base: files{"a": "1", "b": "1"}, ours: files{"a": "2", "b": "1"}, theirs: files{"a": "1", "b": "2"}, want: files{"a": "2", "b": "2"}},
		"the same change":                 {base: files{"a": "1"}, ours: files{"a": "2"}, theirs: files{"a": "2"}, want: files{"a": "2"}},
		"other lines":                     {base: files{"a": numbered(nil)}, ours: files{"a": numbered(map[int]string{1: "x"})}, theirs: files{"a": numbered(map[int]string{9: "y"})}, want: files{"a": numbered(map[int]string{1: "x", 9: "y"})}},
		"the same line":                   {base: files{"a": numbered(nil)}, ours: files{"a": numbered(map[int]string{5: "x"})}, theirs: files{"a": numbered(map[int]string{5: "y"})}, conflicts: []string{"a"}},
		"both add a file":                 {base: files{"a": "1"}, ours: files{"a": "1", "b": "2"}, theirs: files{"a": "1", "b": "3"}, conflicts: []string{"b"}},
		"changed and deleted":             {base: files{"a": "1", "b": "1"}, ours: files{"a": "2", "b": "1"}, theirs: files{"b": "1"}, conflicts: []string{"a"}},
		"deleted by both":                 {base: files{"a": "1", "b": "1"}, ours: files{"b": "1"}, theirs: files{"b": "1"}, want: files{"b": "1"}},
		"renamed and changed":             {base: files{"a": numbered(nil)}, ours: files{"b": numbered(nil)}, theirs: files{"a": numbered(map[int]string{5: "x"})}, want: files{"b": numbered(map[int]string{5: "x"})}},
		"renamed to two names":            {base: files{"a": numbered(nil)}, ours: files{"b": numbered(nil)}, theirs: files{"c": numbered(nil)}, conflicts: []string{"a", "b", "c"}},
		"mode and content":                {base: files{"a": "1"}, ours: files{"a": "100755 1"}, theirs: files{"a": "2"}, want: files{"a": "100755 2"}},
		"a link and a file":               {base: files{"a": "1"}, ours: files{"a": "120000 b"}, theirs: files{"a": "2"}, conflicts: []string{"a", "a~"}},
		"two links":                       {base: files{"a": "120000 b"}, ours: files{"a": "120000 c"}, theirs: files{"a": "120000 d"}, conflicts: []string{"a"}},
		"binary":                          {base: files{"a": "\x00\x01"}, ours: files{"a": "\x00\x02"}, theirs: files{"a": "\x00\x03"}, conflicts: []string{"a"}},
		"binary on one side":              {base: files{"a": "\x00\x01", "b": "1"}, ours: files{"a": "\x00\x01", "b": "2"}, theirs: files{"a": "\x00\x03", "b": "1"}, want: files{"a": "\x00\x03", "b": "2"}},
		"a folder in the place of a file": {base: files{"a": "1"}, ours: files{"a/b": "1"}, theirs: files{"a": "2"}, conflicts: nil, want: files{"a/b": "2"}},
		"attributes of the branch are not obeyed": {base: files{".gitattributes": "* merge=union\n", "a": "1\n"}, ours: files{".gitattributes": "* merge=union\n", "a": "2\n"},
			theirs: files{".gitattributes": "* merge=union\n", "a": "3\n"}, conflicts: []string{"a"}},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHistory(t)
			base := h.commit("base", c.base)
			ours, theirs := h.commit("ours", c.ours, base), h.commit("theirs", c.theirs, base)
			m := h.Mirror()
			commit, err := m.Merge(t.Context(), ours, theirs, promotion)
			if c.want == nil {
				var conflict *channels.ConflictError
				require.ErrorAs(t, err, &conflict)
				var names []string
				for _, file := range conflict.Files {
					name, _, _ := strings.Cut(file.Path, "~")
					if name != file.Path {
						name += "~"
					}
					names = append(names, name)
				}
				require.Equal(t, c.conflicts, names)
				require.Empty(t, commit)
				return
			}
			require.NoError(t, err)
			mirror := channelstest.In(t, m.Dir)
			require.Equal(t, h.tree(c.want), mirror.Git("rev-parse", commit+"^{tree}"))
			require.Equal(t, ours+" "+theirs, mirror.Git("log", "-1", "--format=%P", commit))
		})
	}
}

func TestAMergeDependsOnItsInputOnly(t *testing.T) {
	h := newHistory(t)
	base := h.commit("base", files{"a": "1", "b": "1"})
	ours, theirs := h.commit("ours", files{"a": "2", "b": "1"}, base), h.commit("theirs", files{"a": "1", "b": "2"}, base)
	m := h.Mirror()
	commit, err := m.Merge(t.Context(), ours, theirs, promotion)
	require.NoError(t, err)
	t.Setenv("GIT_AUTHOR_NAME", "Somebody")
	t.Setenv("GIT_COMMITTER_DATE", "@1 +0000")
	t.Setenv("TZ", "Asia/Tokyo")
	again := promotion
	again.At = again.At.In(time.FixedZone("elsewhere", 3600)).Add(time.Millisecond)
	for _, mirror := range []*channels.Mirror{m, h.Mirror()} {
		same, err := mirror.Merge(t.Context(), ours, theirs, again)
		require.NoError(t, err)
		require.Equal(t, commit, same)
	}
	require.Equal(t, "Fairway <fairway@example.org> 1700000000 +0000", channelstest.In(t, m.Dir).Git("log", "-1", "--date=raw", "--format=%an <%ae> %ad", commit))
	require.Equal(t, "Fairway <fairway@example.org> 1700000000 +0000", channelstest.In(t, m.Dir).Git("log", "-1", "--date=raw", "--format=%cn <%ce> %cd", commit))
	landings, _, err := m.Landings(t.Context(), ours, commit, 10)
	require.NoError(t, err)
	require.Equal(t, []channels.Commit{{
		SHA: commit, Parents: []string{ours, theirs}, Title: "Promote dev to alpha", Author: "Fairway", At: time.Unix(1_700_000_000, 0).UTC(),
		Trailers: map[string]string{"Fairway-Promotion": "dev-to-alpha/0123456789ab", "Fairway-Reason": "soaked"},
	}}, landings)

	same, err := m.Merge(t.Context(), commit, theirs, promotion)
	require.NoError(t, err)
	require.Equal(t, commit, same, "nothing is left to merge")
}
