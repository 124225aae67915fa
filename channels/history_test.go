package channels_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fairway-project/fairway/channels"
	"github.com/fairway-project/fairway/channels/channelstest"
)

func TestLandingsAreTheFirstParentLine(t *testing.T) {
	h := newHistory(t)
	root := h.commit("root", files{"a": "1"})
	topic := h.commit("topic", files{"a": "1", "b": "1"}, root)
	one := h.commit("one", files{"a": "2"}, root)
	two := h.commit("two", files{"a": "2", "b": "1"}, one, topic)
	three := h.branch("dev", h.commit("three", files{"a": "3", "b": "1"}, two))
	other := h.commit("other", files{"a": "9"}, root)
	gone := strings.Repeat("1", 40)
	m := h.Mirror()
	for name, c := range map[string]struct {
		known, head string
		most        int
		want        []string
		rewritten   bool
	}{
		"nothing is known":              {"", three, 50, []string{"root", "one", "two", "three"}, false},
		"the newest only":               {"", three, 2, []string{"two", "three"}, false},
		"since a landing":               {one, three, 50, []string{"two", "three"}, false},
		"since the first":               {root, three, 50, []string{"one", "two", "three"}, false},
		"fewer than there are":          {root, three, 1, []string{"three"}, false},
		"nothing new":                   {three, three, 50, nil, false},
		"merged, but not on the line":   {topic, three, 50, []string{"root", "one", "two", "three"}, true},
		"gone back":                     {three, one, 50, []string{"root", "one"}, true},
		"another line":                  {other, three, 2, []string{"two", "three"}, true},
		"not even in the repository":    {gone, three, 2, []string{"two", "three"}, true},
		"of a branch without that line": {three, other, 50, []string{"root", "other"}, true},
	} {
		landings, rewritten, err := m.Landings(t.Context(), c.known, c.head, c.most)
		require.NoError(t, err, name)
		require.Equal(t, c.want, titles(landings), name)
		require.Equal(t, c.rewritten, rewritten, name)
	}
	_, _, err := m.Landings(t.Context(), one, gone, 1)
	require.ErrorIs(t, err, channels.ErrGone)
}

func TestNothingIsFetchedThatIsThere(t *testing.T) {
	h := newHistory(t)
	one := h.branch("dev", h.commit("one", files{"a": "1"}))
	m := h.Mirror()
	_, _, err := m.Landings(t.Context(), "", one, 1)
	require.NoError(t, err)
	two := h.branch("dev", h.commit("two", files{"a": "2"}, one))
	offline := &channels.Mirror{URL: h.Dir + "-is-away", Dir: m.Dir}
	_, _, err = offline.Landings(t.Context(), "", one, 1)
	require.NoError(t, err)
	_, _, err = offline.Landings(t.Context(), one, two, 1)
	require.ErrorIs(t, err, channels.ErrRefused)
}

func TestCommitsLeaveOutMergesThatCarryNothing(t *testing.T) {
	h := newHistory(t)
	base := h.commit("base", files{"a": numbered(nil), "b": "1"})
	left := h.commit("left", files{"a": numbered(map[int]string{1: "x"}), "b": "1"}, base)
	right := h.commit("right", files{"a": numbered(map[int]string{1: "y", 9: "z"}), "b": "1"}, base)
	away := h.commit("away", files{"a": numbered(nil), "b": "2"}, base)
	clean := h.commit("clean", files{"a": numbered(map[int]string{1: "x"}), "b": "2"}, left, away)
	dropping := h.commit("dropping", files{"a": numbered(map[int]string{1: "x"}), "b": "1"}, left, away)
	resolved := h.commit("resolved", files{"a": numbered(map[int]string{1: "xy", 9: "z"}), "b": "2"}, clean, right)
	m := h.Mirror()
	for head, want := range map[string][]string{
		clean: {"away", "left"}, dropping: {"dropping", "away", "left"}, resolved: {"resolved", "away", "right", "left"}, base: nil,
	} {
		commits, omitted, err := m.Commits(t.Context(), base, head, 50)
		require.NoError(t, err)
		require.ElementsMatch(t, want, titles(commits))
		require.Zero(t, omitted)
	}
	commits, omitted, err := m.Commits(t.Context(), base, resolved, 1)
	require.NoError(t, err)
	require.Equal(t, []string{"resolved"}, titles(commits), "the newest first")
	require.Equal(t, 3, omitted)
	require.NoDirExists(t, m.Dir+"/objects/remerge-diff")
}

func TestWhichMergeBroughtACandidate(t *testing.T) {
	h := newHistory(t)
	root := h.commit("root", files{"a": "1"})
	one := h.commit("one", files{"a": "2"}, root)
	two := h.commit("two", files{"a": "3"}, one)
	first := h.commit("first", files{"a": "2"}, root, one)
	inner := h.commit("inner", files{"a": "3"}, first, two) // made by a forge, and merged by a person
	mid := h.commit("mid", files{"a": "2", "b": "1"}, first)
	promoted := h.commit("promoted", files{"a": "3", "b": "1"}, mid, inner)
	head := h.commit("head", files{"a": "3", "b": "2"}, promoted)
	m := h.Mirror()
	for candidate, want := range map[string]string{one: "first", two: "promoted", inner: "promoted", mid: "mid", head: "head", root: "root", promoted: "promoted"} {
		landing, found, err := m.Brought(t.Context(), head, candidate)
		require.NoError(t, err)
		require.True(t, found)
		require.Equal(t, want, landing.Title)
	}
	_, found, err := m.Brought(t.Context(), first, two)
	require.NoError(t, err)
	require.False(t, found)
	_, found, err = m.Brought(t.Context(), two, first)
	require.NoError(t, err)
	require.False(t, found)
}

func TestACrissCrossMerges(t *testing.T) {
	h := newHistory(t)
	base := h.commit("base", files{"a": numbered(nil)})
	left := h.commit("left", files{"a": numbered(map[int]string{1: "x"})}, base)
	right := h.commit("right", files{"a": numbered(map[int]string{9: "y"})}, base)
	both := files{"a": numbered(map[int]string{1: "x", 9: "y"})}
	ours, theirs := h.commit("ours", both, left, right), h.commit("theirs", both, right, left)
	ours = h.commit("ours again", files{"a": numbered(map[int]string{1: "x", 9: "y2"})}, ours)
	theirs = h.commit("theirs again", files{"a": numbered(map[int]string{1: "x2", 9: "y"})}, theirs)
	require.Len(t, strings.Fields(h.Git("merge-base", "--all", ours, theirs)), 2)
	m := h.Mirror()
	changes, err := m.Changes(t.Context(), ours, theirs)
	require.NoError(t, err)
	require.Equal(t, []channels.FileChange{{Path: "a", Status: 'M'}}, changes)
	commit, err := m.Merge(t.Context(), ours, theirs, promotion)
	require.NoError(t, err)
	text, found, err := m.Text(t.Context(), commit, "a")
	require.NoError(t, err)
	require.True(t, found)
	require.Equal(t, numbered(map[int]string{1: "x2", 9: "y2"}), text)
}

func TestAConflictNamesTheCommitsOfBothSides(t *testing.T) {
	h := newHistory(t)
	base := h.commit("base", files{"*": "1", "b": "1"})
	ours, theirs := base, base
	for _, text := range strings.Fields("a b c d e f g") {
		ours = h.commit("hotfix "+text, files{"*": text, "b": "1"}, ours)
		theirs = h.commit("beside "+text, files{"*": "1", "b": text}, theirs)
	}
	theirs = h.commit("change", files{"*": "2", "b": "g"}, theirs)
	ours = h.commit("merged before", files{"*": "g", "b": "1"}, ours, h.commit("topic", files{"*": "1", "b": "1"}, base))
	_, err := h.Mirror().Merge(t.Context(), ours, theirs, promotion)
	var conflict *channels.ConflictError
	require.ErrorAs(t, err, &conflict)
	require.Len(t, conflict.Files, 1)
	require.Equal(t, "*", conflict.Files[0].Path, "a name, not a pattern")
	require.Len(t, conflict.Files[0].Ours, 5)
	require.Equal(t, "hotfix g", conflict.Files[0].Ours[0].Title)
	require.Equal(t, []string{"change"}, titles(conflict.Files[0].Theirs))
}

func TestAConflictWithARenamedFileNamesTheCommitsOfItsFormerName(t *testing.T) {
	h := newHistory(t)
	base := h.commit("base", files{"old": numbered(nil)})
	ours := h.commit("hotfix", files{"old": numbered(map[int]string{5: "x"})}, base)
	theirs := h.commit("change", files{"new": numbered(map[int]string{5: "y"})}, h.commit("rename", files{"new": numbered(nil)}, base))
	_, err := h.Mirror().Merge(t.Context(), ours, theirs, promotion)
	var conflict *channels.ConflictError
	require.ErrorAs(t, err, &conflict)
	require.Len(t, conflict.Files, 1)
	require.Equal(t, "new", conflict.Files[0].Path)
	require.Equal(t, []string{"hotfix"}, titles(conflict.Files[0].Ours))
	require.Equal(t, []string{"change", "rename"}, titles(conflict.Files[0].Theirs))
}

func TestHistoriesWithNothingInCommonAreNotMerged(t *testing.T) {
	h := newHistory(t)
	one, two := h.commit("one", files{"a": "1"}), h.commit("two", files{"b": "2"})
	m := h.Mirror()
	_, err := m.Merge(t.Context(), one, two, promotion)
	require.ErrorIs(t, err, channels.ErrUnusable)
	require.ErrorContains(t, err, "no commit in common")
	changes, err := m.Changes(t.Context(), one, two)
	require.NoError(t, err)
	require.Equal(t, []channels.FileChange{{Path: "a", Status: 'D'}, {Path: "b", Status: 'A'}}, changes)
}

func TestRestoringMakesACommitOnTop(t *testing.T) {
	h := newHistory(t)
	good := h.commit("good", files{"a": "1"})
	bad := h.branch("alpha", h.commit("bad", files{"a": "2", "b": "1"}, good))
	m := h.Mirror()
	commit, err := m.Restore(t.Context(), bad, good, promotion)
	require.NoError(t, err)
	require.NoError(t, m.Push(t.Context(), "alpha", commit, bad))
	require.Equal(t, h.Git("rev-parse", good+"^{tree}"), h.Git("rev-parse", "alpha^{tree}"))
	require.Equal(t, bad, h.Git("rev-parse", "alpha^"))
	again, err := h.Mirror().Restore(t.Context(), bad, good, promotion)
	require.NoError(t, err)
	require.Equal(t, commit, again)
}

func TestChangesAreWhatAMergeBrings(t *testing.T) {
	h := newHistory(t)
	ten := numbered(nil)
	base := h.commit("base", files{"kept": "1", "changed": "1", "deleted": "1", "renamed": ten, "mode": "1", "link": "1", "both": "1"})
	ours := h.commit("ours", files{"kept": "ours", "changed": "1", "deleted": "1", "renamed": ten, "mode": "1", "link": "1", "both": "2"}, base)
	theirs := h.commit("theirs", files{"kept": "1", "changed": "2", "x/new name": ten, "mode": "100755 1", "link": "120000 kept", "both": "2", "added\n": "new"}, base)
	m := h.Mirror()
	changes, err := m.Changes(t.Context(), ours, theirs)
	require.NoError(t, err)
	require.ElementsMatch(t, []channels.FileChange{
		{Path: "changed", Status: 'M'}, {Path: "deleted", Status: 'D'}, {Path: "x/new name", Before: "renamed", Status: 'R'}, {Path: "mode", Status: 'M'},
		{Path: "link", Status: 'T'}, {Path: "added\n", Status: 'A'},
	}, changes, "neither what ours has changed nor what both have")
	conflicting := h.commit("conflicting", files{"kept": "theirs", "changed": "1", "deleted": "1", "renamed": ten, "mode": "1", "link": "1", "both": "1"}, base)
	changes, err = m.Changes(t.Context(), ours, conflicting)
	require.NoError(t, err)
	require.Equal(t, []channels.FileChange{{Path: "kept", Status: 'M'}}, changes)
	changes, err = m.Changes(t.Context(), ours, base)
	require.NoError(t, err)
	require.Empty(t, changes)
}

func TestTheTextOfAFile(t *testing.T) {
	h := newHistory(t)
	commit := h.commit("x", files{"a": "1", "b/c": "100755 2", "link": "120000 a", "big": strings.Repeat("x", 8<<20+1)})
	m := h.Mirror()
	for name, want := range map[string]string{"a": "1", "b/c": "2"} {
		text, found, err := m.Text(t.Context(), commit, name)
		require.NoError(t, err)
		require.True(t, found)
		require.Equal(t, want, text)
	}
	for _, name := range []string{"", ".", "b", "b/", "../a", "/a", "link", "link/a", "a/b", "nothing", "b/nothing", "nothing/b", "--help"} {
		_, found, err := m.Text(t.Context(), commit, name)
		require.NoError(t, err)
		require.False(t, found, "%q", name)
	}
	_, _, err := m.Text(t.Context(), commit, "big")
	require.ErrorIs(t, err, channels.ErrUnusable)
}

func TestHowALandingCame(t *testing.T) {
	h := newHistory(t)
	base := h.commit("base", files{"a": numbered(nil), "b": "1"})
	change := h.commit("change", files{"a": numbered(map[int]string{2: "x"}), "b": "1"}, base)
	dev := h.commit("more", files{"a": numbered(map[int]string{2: "x", 9: "y"}), "b": "1"}, change)
	alpha := base
	fix := h.commit("fix", files{"a": numbered(nil), "b": "2"}, alpha)
	pick := h.commit("pick", files{"a": numbered(map[int]string{2: "x"}), "b": "1", "c": "1"}, h.commit("other", files{"a": numbered(nil), "b": "1", "c": "1"}, alpha))
	picked := h.commit("picked", files{"a": numbered(map[int]string{2: "x"}), "b": "1"}, alpha)
	inner := h.commit("inner", files{"a": numbered(map[int]string{2: "x", 9: "y"}), "b": "1"}, alpha, dev)
	fixed := h.commit("fixed", files{"a": numbered(map[int]string{2: "z"}), "b": "1"}, alpha)
	for name, c := range map[string]struct {
		landing string
		want    channels.Facts
	}{
		"a promotion":            {h.commit("m", files{"a": numbered(map[int]string{2: "x", 9: "y"}), "b": "1"}, alpha, dev), channels.Facts{Merge: true, Known: true}},
		"by a branch of a forge": {h.commit("m", files{"a": numbered(map[int]string{2: "x", 9: "y"}), "b": "1"}, alpha, inner), channels.Facts{Merge: true, Known: true}},
		"a hotfix":               {h.commit("m", files{"a": numbered(nil), "b": "2"}, alpha, fix), channels.Facts{Merge: true, New: true}},
		"picked from the source": {h.commit("m", files{"a": numbered(map[int]string{2: "x"}), "b": "1"}, alpha, picked), channels.Facts{Merge: true, Known: true, Picked: true}},
		"picked, and more":       {h.commit("m", files{"a": numbered(map[int]string{2: "x"}), "b": "1", "c": "1"}, alpha, pick), channels.Facts{Merge: true, Known: true, Picked: true, New: true}},
		"pushed":                 {fix, channels.Facts{New: true}},
		"fast-forwarded":         {change, channels.Facts{Known: true}},
		"the first of all":       {base, channels.Facts{Known: true}},
		"a merge that hides a change": {h.commit("m", files{"a": numbered(map[int]string{2: "x", 9: "y"}), "b": "hidden"}, alpha, dev),
			channels.Facts{Merge: true, Known: true, New: true}},
		"a conflict that was resolved": {h.commit("m", files{"a": numbered(map[int]string{2: "xz", 9: "y"}), "b": "1"}, fixed, dev), channels.Facts{Merge: true, Known: true, Resolved: true}},
		"a conflict that was resolved, and more": {h.commit("m", files{"a": numbered(map[int]string{2: "xz", 9: "y"}), "b": "hidden"}, fixed, dev),
			channels.Facts{Merge: true, Known: true, New: true}},
		"a promotion with a rider": {h.commit("m", files{"a": numbered(map[int]string{2: "x", 9: "y"}), "b": "2"}, alpha,
			h.commit("rider", files{"a": numbered(map[int]string{2: "x", 9: "y"}), "b": "2"}, dev)), channels.Facts{Merge: true, Known: true, New: true}},
	} {
		t.Run(name, func(t *testing.T) {
			facts, err := h.Mirror().FactsOf(t.Context(), c.landing, []string{dev})
			require.NoError(t, err)
			require.Equal(t, c.landing, facts.SHA)
			facts.Commit = channels.Commit{}
			require.Equal(t, c.want, facts)
		})
	}
	facts, err := h.Mirror().FactsOf(t.Context(), fix, nil)
	require.NoError(t, err)
	require.True(t, facts.New)
	facts, err = h.Mirror().FactsOf(t.Context(), fix, []string{dev, fix})
	require.NoError(t, err)
	require.True(t, facts.Known)
	require.False(t, facts.New)
}

func TestWhatAnEarlierChannelLacks(t *testing.T) {
	// Each is a history of dev and one of alpha on top of the same base.
	base := files{"a": numbered(nil), "b": "1"}
	with := func(different map[int]string) files { return files{"a": numbered(different), "b": "1"} }
	type step struct {
		title string
		tree  files
	}
	for name, c := range map[string]struct {
		dev, alpha []step
		want       []string
	}{
		"a hotfix":                     {nil, []step{{"fix", with(map[int]string{5: "x"})}}, []string{"fix"}},
		"two of them":                  {nil, []step{{"fix", with(map[int]string{5: "x"})}, {"again", with(map[int]string{5: "y"})}}, []string{"again", "fix"}},
		"picked":                       {[]step{{"picked", with(map[int]string{5: "x"})}}, []step{{"fix", with(map[int]string{5: "x"})}}, nil},
		"picked elsewhere in the file": {[]step{{"far", with(map[int]string{10: "z"})}, {"picked", with(map[int]string{1: "x", 10: "z"})}}, []step{{"fix", with(map[int]string{1: "x"})}}, nil},
		"picked with another context":  {[]step{{"near", with(map[int]string{7: "z"})}, {"picked", with(map[int]string{5: "x", 7: "z"})}}, []step{{"fix", with(map[int]string{5: "x"})}}, nil},
		"picked and then taken back":   {[]step{{"picked", with(map[int]string{5: "x"})}, {"back", with(nil)}}, []step{{"fix", with(map[int]string{5: "x"})}}, nil},
		"reverted":                     {nil, []step{{"fix", with(map[int]string{5: "x"})}, {"revert", with(nil)}}, nil},
		"reverted while dev went on":   {[]step{{"on", with(map[int]string{9: "z"})}}, []step{{"fix", with(map[int]string{1: "x"})}, {"revert", with(nil)}}, nil},
		"renamed by dev":               {[]step{{"rename", files{"c": numbered(nil), "b": "1"}}}, []step{{"fix", with(map[int]string{5: "x"})}}, []string{"fix"}},
		"renamed and picked by dev":    {[]step{{"rename", files{"c": numbered(nil), "b": "1"}}, {"picked", files{"c": numbered(map[int]string{5: "x"}), "b": "1"}}}, []step{{"fix", with(map[int]string{5: "x"})}}, nil},
		"the same content in two steps": {[]step{{"half", with(map[int]string{5: "x"})}, {"whole", with(map[int]string{5: "x", 6: "y"})}},
			[]step{{"fix", with(map[int]string{5: "x", 6: "y"})}}, nil},
		"something else on the same lines": {[]step{{"other", with(map[int]string{5: "y"})}}, []step{{"fix", with(map[int]string{5: "x"})}}, []string{"fix"}},
		"half of it":                       {[]step{{"half", with(map[int]string{5: "x"})}}, []step{{"fix", files{"a": numbered(map[int]string{5: "x"}), "b": "2"}}}, []string{"fix"}},
		"a deletion":                       {nil, []step{{"delete", files{"a": numbered(nil)}}}, []string{"delete"}},
		"a deletion in both":               {[]step{{"gone", files{"a": numbered(nil)}}, {"on", files{"a": "1"}}}, []step{{"delete", files{"a": numbered(nil)}}}, nil},
		"a mode":                           {nil, []step{{"executable", files{"a": numbered(nil), "b": "100755 1"}}}, []string{"executable"}},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHistory(t)
			root := h.commit("base", base)
			grow := func(steps []step) string {
				head := root
				for _, s := range steps {
					head = h.commit(s.title, s.tree, head)
				}
				return head
			}
			dev, alpha := grow(c.dev), grow(c.alpha)
			m := h.Mirror()
			_, err := m.Title(t.Context(), alpha)
			require.NoError(t, err)
			before := channelstest.In(t, m.Dir).Git("count-objects", "-v")
			lacking, err := m.Lacking(t.Context(), alpha, dev, 50)
			require.NoError(t, err)
			require.Equal(t, c.want, titles(lacking))
			require.Equal(t, before, channelstest.In(t, m.Dir).Git("count-objects", "-v"), "what was tried out is not kept")
		})
	}
}

func TestAHotfixWhoseTwinHasComeThroughTheChannelsIsNotLacking(t *testing.T) {
	h := newHistory(t)
	base := h.commit("base", files{"a": numbered(nil)})
	fix := h.commit("fix", files{"a": numbered(map[int]string{5: "x"})}, base)
	twin := h.commit("twin", files{"a": numbered(map[int]string{4: "z", 5: "x"})}, h.commit("near", files{"a": numbered(map[int]string{4: "z"})}, base))
	alpha := h.commit("promotion", files{"a": numbered(map[int]string{4: "z", 5: "x"})}, fix, twin)
	dev := h.commit("on", files{"a": numbered(map[int]string{4: "z", 5: "other", 6: "more"})}, twin)
	lacking, err := h.Mirror().Lacking(t.Context(), alpha, dev, 50)
	require.NoError(t, err)
	require.Empty(t, lacking)
	later := h.commit("later", files{"a": numbered(map[int]string{4: "z", 5: "x", 10: "y"})}, alpha)
	lacking, err = h.Mirror().Lacking(t.Context(), later, dev, 50)
	require.NoError(t, err)
	require.Contains(t, titles(lacking), "later")
}

func TestTextsOfCommitsAreHarmless(t *testing.T) {
	h := newHistory(t)
	tree := h.tree(files{"a": "1"})
	raw := func(message string) string {
		commit := h.GitWith("tree "+tree+"\nauthor \x1b[31mEve\x07 <e@e> 99999999999999999 +0000\ncommitter Eve <e@e> 99999999999999999 +0000\n\n"+message, "hash-object", "-t", "commit", "-w", "--stdin", "--literally")
		h.Git("update-ref", "refs/heads/kept/"+commit, commit)
		return commit
	}
	m := h.Mirror()
	landings, _, err := m.Landings(t.Context(), "", raw("\x1b[2Jtitle\u202e"+strings.Repeat("x", 1000)+"\n\nFairway-By: me\x1b[0m\nFairway-By: you\nbad name: x\n"), 1)
	require.NoError(t, err)
	require.True(t, landings[0].At.IsZero())
	require.NotContains(t, landings[0].Title+landings[0].Author, "\x1b")
	require.LessOrEqual(t, len(landings[0].Title), 310)
	landings, _, err = m.Landings(t.Context(), "", raw(""), 1)
	require.NoError(t, err)
	require.Empty(t, landings[0].Title)
	landings, _, err = m.Landings(t.Context(), "", raw("a\n\nFairway-By: me\x1b[0m\nFairway-By: you\n"), 1)
	require.NoError(t, err)
	require.Equal(t, map[string]string{"Fairway-By": "you"}, landings[0].Trailers)
}

func TestTheCommitGraphIsThere(t *testing.T) {
	h := newHistory(t)
	one := h.branch("dev", h.commit("one", files{"a": "1"}))
	m := h.Mirror()
	_, err := m.Title(t.Context(), one)
	require.NoError(t, err)
	graph := func() string { return channelstest.In(t, m.Dir).Git("commit-graph", "verify", "--no-progress") }
	require.DirExists(t, m.Dir+"/objects/info/commit-graphs")
	graph()
	_, err = m.Title(t.Context(), h.branch("dev", h.commit("two", files{"a": "2"}, one)))
	require.NoError(t, err)
	graph()
}
