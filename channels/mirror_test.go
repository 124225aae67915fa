package channels_test

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fairway-project/fairway/channels"
	"github.com/fairway-project/fairway/channels/channelstest"
)

func content(t *testing.T, m *channels.Mirror, commit, file string) string {
	t.Helper()
	folder, err := m.Tree(t.Context(), commit, "cluster")
	require.NoError(t, err)
	data, err := fs.ReadFile(folder, file)
	require.NoError(t, err)
	return string(data)
}

func TestAMirrorFollowsTheRepository(t *testing.T) {
	o := channelstest.New(t)
	first := o.Commit("dev", "a.yaml", "1")
	o.Git("update-ref", "refs/heads/team/alpha", first)
	o.Git("update-ref", "refs/pull/1/head", first)
	o.Git("tag", "light", first)
	o.Git("tag", "-m", "annotated", "heavy", first)
	m := o.Mirror()
	require.NoError(t, m.Check(t.Context()))

	heads, err := m.Heads(t.Context())
	require.NoError(t, err)
	require.Equal(t, map[string]string{"dev": first, "team/alpha": first}, heads)
	require.NoDirExists(t, m.Dir, "a look at the branches fetches nothing")
	require.Equal(t, "1", content(t, m, first, "a.yaml"))

	second := o.Commit("dev", "a.yaml", "2")
	head, err := m.Head(t.Context(), "dev")
	require.NoError(t, err)
	require.Equal(t, second, head)
	require.Equal(t, "2", content(t, m, second, "a.yaml"))
	require.Equal(t, "1", content(t, m, first, "a.yaml"))

	title, err := m.Title(t.Context(), second)
	require.NoError(t, err)
	require.Equal(t, "a.yaml is now 2", title)

	for ref, want := range map[string]string{
		"dev": second, "team/alpha": first, "light": first, "heavy": first, first: first, second[:7]: second, first[:39]: first,
	} {
		commit, err := m.Resolve(t.Context(), ref)
		require.NoError(t, err, ref)
		require.Equal(t, want, commit, ref)
	}
	third := o.Commit("dev", "a.yaml", "3")
	commit, err := m.Resolve(t.Context(), third[:10])
	require.NoError(t, err, "what is not in the mirror yet is fetched")
	require.Equal(t, third, commit)

	for _, c := range []struct {
		ancestor, commit string
		want             bool
	}{{first, third, true}, {third, third, true}, {third, first, false}} {
		within, err := m.Contains(t.Context(), c.ancestor, c.commit)
		require.NoError(t, err)
		require.Equal(t, c.want, within)
	}
}

func TestABranchThatIsNamedLikeACommitIsTheBranch(t *testing.T) {
	o := channelstest.New(t)
	first := o.Commit("dev", "a.yaml", "1")
	second := o.Commit("dev", "a.yaml", "2")
	o.Git("update-ref", "refs/heads/"+first[:7], second)
	commit, err := o.Mirror().Resolve(t.Context(), first[:7])
	require.NoError(t, err)
	require.Equal(t, second, commit)
}

func TestABranchInThePlaceOfAFolderOfBranches(t *testing.T) {
	o := channelstest.New(t)
	first := o.Commit("team", "a.yaml", "1")
	m := o.Mirror()
	require.Equal(t, "1", content(t, m, first, "a.yaml"))
	o.Git("update-ref", "-d", "refs/heads/team")
	second := o.Commit("team/dev", "a.yaml", "2")
	require.Equal(t, "2", content(t, m, second, "a.yaml"))
}

func TestWhatIsNotThereIsSaid(t *testing.T) {
	o := channelstest.New(t)
	commit := o.Commit("dev", "a.yaml", "1")
	m := o.Mirror()
	_, err := m.Head(t.Context(), "alpha")
	require.ErrorIs(t, err, channels.ErrUnknown)
	require.ErrorContains(t, err, "no branch alpha")
	_, err = m.Resolve(t.Context(), "v1")
	require.ErrorIs(t, err, channels.ErrUnknown)
	_, err = m.Resolve(t.Context(), strings.Repeat("0", 12))
	require.ErrorIs(t, err, channels.ErrUnknown)
	_, err = m.Resolve(t.Context(), strings.Repeat("0", 40))
	require.ErrorIs(t, err, channels.ErrGone)
	_, err = m.Tree(t.Context(), strings.Repeat("0", 40), "cluster")
	require.ErrorIs(t, err, channels.ErrGone)
	for folder, want := range map[string]string{
		"clusters": "has no folder clusters (repository.path)", "cluster/a.yaml": "has no folder cluster/a.yaml", "../cluster": `"../cluster" is no folder`, "/etc": "is no folder",
	} {
		_, err = m.Tree(t.Context(), commit, folder)
		require.ErrorIs(t, err, channels.ErrUnusable)
		require.ErrorContains(t, err, want)
	}
}

func TestHostileRefsNeverReachGit(t *testing.T) {
	o := channelstest.New(t)
	commit := o.Commit("dev", "a.yaml", "1")
	m := o.Mirror()
	mark := filepath.Join(t.TempDir(), "mark")
	for _, ref := range []string{
		"", "-", "--upload-pack=touch " + mark, "--upload-pack=touch${IFS}" + mark, "--all", "dev..alpha", "dev~1", "dev^", "dev:cluster", "*", "@", "HEAD@{1}",
		"dev\n", "dev\x00", "a//b", "/dev", "dev/", ".dev", "dev.lock", "refs/heads/*", strings.Repeat("a", 251), commit + "^{tree}", `a\b`, "dev ",
	} {
		_, err := m.Resolve(t.Context(), ref)
		require.ErrorIs(t, err, channels.ErrUnknown, "%q", ref)
		_, err = m.Head(t.Context(), ref)
		require.ErrorIs(t, err, channels.ErrUnknown, "%q", ref)
		_, err = m.Title(t.Context(), ref)
		require.ErrorIs(t, err, channels.ErrUnknown, "%q", ref)
	}
	require.NoFileExists(t, mark)
}

func TestAFolderHoldsAllItsFilesAndCannotBeChanged(t *testing.T) {
	o := channelstest.New(t)
	leaf := o.Tree("100644 blob "+o.Blob("x")+"\tx.yaml", "100755 blob "+o.Blob("#!")+"\trun.sh")
	commit := o.CommitTree("dev", "folders", o.Tree(
		"040000 tree "+o.Tree("040000 tree "+leaf+"\tapp", "100644 blob "+o.Blob("")+"\tempty")+"\tcluster", "120000 blob "+o.Blob("/etc/passwd")+"\toutside"))
	m := o.Mirror()
	folder, err := m.Tree(t.Context(), commit, "cluster")
	require.NoError(t, err)
	require.NoError(t, fstest.TestFS(folder, "app/x.yaml", "app/run.sh", "empty"))
	data, err := fs.ReadFile(folder, "app/x.yaml")
	require.NoError(t, err)
	data[0] = 'y'
	data, err = fs.ReadFile(folder, "app/x.yaml")
	require.NoError(t, err)
	require.Equal(t, "x", string(data))
	below, err := m.Tree(t.Context(), commit, "./cluster//app/")
	require.NoError(t, err)
	require.NoError(t, fstest.TestFS(below, "x.yaml", "run.sh"))
}

func TestALinkToAFileOfTheFolderIsThatFile(t *testing.T) {
	o := channelstest.New(t)
	pools := o.Tree("040000 tree "+o.Tree("100644 blob "+o.Blob("x")+"\tstack.yaml")+"\ta", "040000 tree "+o.Tree("120000 blob "+o.Blob("../a/stack.yaml")+"\tstack.yaml")+"\tb",
		"120000 blob "+o.Blob("b/./stack.yaml")+"\tc")
	commit := o.CommitTree("dev", "links", o.Tree("040000 tree "+pools+"\tcluster"))
	folder, err := o.Mirror().Tree(t.Context(), commit, "cluster")
	require.NoError(t, err)
	require.NoError(t, fstest.TestFS(folder, "a/stack.yaml", "b/stack.yaml", "c"))
	for _, name := range []string{"b/stack.yaml", "c"} {
		data, err := fs.ReadFile(folder, name)
		require.NoError(t, err)
		require.Equal(t, "x", string(data))
	}
}

func TestWhatNoConfigurationHoldsIsRefused(t *testing.T) {
	o := channelstest.New(t)
	file := "100644 blob " + o.Blob("x") + "\t"
	wide := o.Tree(file+"a", file+"b")
	for range 14 { // 2^15 files in 15 trees
		wide = o.Tree("040000 tree "+wide+"\ta", "040000 tree "+wide+"\tb")
	}
	deep := o.Tree(file + "a")
	for range 20 {
		deep = o.Tree("040000 tree " + deep + "\td")
	}
	var names, heavy []string
	for i := range 10_001 {
		names = append(names, fmt.Sprintf("%s%05d", file, i))
	}
	eight := o.Blob(strings.Repeat("x", 8<<20))
	for i := range 9 {
		heavy = append(heavy, fmt.Sprintf("100644 blob %s\t%d", eight, i))
	}
	link := func(target string) string { return "120000 blob " + o.Blob(target) + "\tlink" }
	m := o.Mirror()
	for want, tree := range map[string]string{
		`a/link is a link to "/etc/passwd", which is no file of the folder; put a file in its place`: o.Tree("040000 tree " + o.Tree(link("/etc/passwd")) + "\ta"),
		`a/link is a link to "../../x"`:                                  o.Tree("040000 tree " + o.Tree(link("../../x")) + "\ta"),
		`link is a link to "link"`:                                       o.Tree(link("link")),
		`link is a link to "nowhere"`:                                    o.Tree(link("nowhere")),
		`link is a link to "a"`:                                          o.Tree("040000 tree "+o.Tree(file+"a")+"\ta", link("a")),
		`link is a link to "/a"`:                                         o.Tree(file+"a", link("/a")),
		`link is a link of 1025 bytes`:                                   o.Tree(link(strings.Repeat("a", 1025))),
		"sub is a submodule":                                             o.Tree("160000 commit " + strings.Repeat("1", 40) + "\tsub"),
		"big has 8388609 bytes; at most 8388608 are read":                o.Tree("100644 blob " + o.Blob(strings.Repeat("x", 8<<20+1)) + "\tbig"),
		"8 is too much: the files of a configuration have at most":       o.Tree(heavy...),
		"10000 is one too many: a configuration has at most 10000 files": o.Tree(names...),
		"a configuration has at most 10000 files and folders":            wide,
		"lies more than 20 folders deep":                                 deep,
		`a\b has a name that a file cannot have`:                         o.Tree(file + `"a\\b"`),
	} {
		commit := o.CommitTree("dev", want, o.Tree("040000 tree "+tree+"\tcluster"))
		_, err := m.Tree(t.Context(), commit, "cluster")
		require.ErrorIs(t, err, channels.ErrUnusable)
		require.ErrorContains(t, err, want)
		require.ErrorContains(t, err, commit)
	}
}

func TestACommitThatWasRewrittenStaysReadable(t *testing.T) {
	o := channelstest.New(t)
	gone := o.Commit("dev", "a.yaml", "1")
	m, late := o.Mirror(), o.Mirror()
	require.Equal(t, "1", content(t, m, gone, "a.yaml"))
	now := o.Rewrite("dev", "a.yaml", "2")
	require.Equal(t, "1", content(t, late, gone, "a.yaml"), "as long as the repository has it, it can be fetched")
	o.Prune()
	m = &channels.Mirror{URL: m.URL, Dir: m.Dir} // without what is in memory
	require.Equal(t, "2", content(t, m, now, "a.yaml"))
	require.Equal(t, "1", content(t, m, gone, "a.yaml"))
	within, err := m.Contains(t.Context(), gone, now)
	require.NoError(t, err)
	require.False(t, within)

	t.Setenv("FORGE_TOKEN", token)
	for _, url := range []string{o.Dir, serve(t, o, nil)} {
		_, err = (&channels.Mirror{URL: url, Dir: o.Mirror().Dir, TokenEnv: "FORGE_TOKEN"}).Tree(t.Context(), gone, "cluster")
		require.ErrorIs(t, err, channels.ErrGone)
		require.ErrorContains(t, err, gone)
	}
}

func TestACommitIsNotGoneBecauseGitIsKilled(t *testing.T) {
	o := channelstest.New(t)
	commit := o.Commit("dev", "a.yaml", "1")
	git, err := exec.LookPath("git")
	require.NoError(t, err)
	bin, path := t.TempDir(), os.Getenv("PATH")
	script := "#!/bin/sh\nif [ \"$1\" = cat-file ] && [ -e \"$GIT_DIR\" ]; then kill -9 $$; fi\nexec " + git + " \"$@\"\n"
	require.NoError(t, os.WriteFile(filepath.Join(bin, "git"), []byte(script), 0o700))
	t.Setenv("PATH", bin+":"+path)
	m := o.Mirror()
	_, err = m.Tree(t.Context(), commit, "cluster")
	require.Error(t, err)
	require.NotErrorIs(t, err, channels.ErrGone)
	t.Setenv("PATH", path)
	require.Equal(t, "1", content(t, m, commit, "a.yaml"))
}

func TestPackingDropsNothing(t *testing.T) {
	o := channelstest.New(t)
	gone := o.Commit("dev", "a.yaml", "1")
	m := o.Mirror()
	require.Equal(t, "1", content(t, m, gone, "a.yaml"))
	o.Rewrite("dev", "a.yaml", "2")
	o.Prune()
	for i := range 1000 { // as loose as years of small fetches leave them
		channelstest.In(t, m.Dir).LooseObject(i)
	}
	now := o.Commit("dev", "a.yaml", "3")
	require.Equal(t, "3", content(t, m, now, "a.yaml"))
	require.Contains(t, channelstest.In(t, m.Dir).Git("count-objects", "-v"), "count: 0\n")
	m = &channels.Mirror{URL: m.URL, Dir: m.Dir}
	require.Equal(t, "1", content(t, m, gone, "a.yaml"))
}

func TestADamagedMirrorIsMadeAnew(t *testing.T) {
	for damage, do := range map[string]func(t *testing.T, dir string){
		"nothing is left": func(t *testing.T, dir string) { require.NoError(t, os.RemoveAll(dir)) },
		"an empty directory": func(t *testing.T, dir string) {
			require.NoError(t, os.RemoveAll(dir))
			require.NoError(t, os.Mkdir(dir, 0o700))
		},
		"a file": func(t *testing.T, dir string) {
			require.NoError(t, os.RemoveAll(dir))
			require.NoError(t, os.WriteFile(dir, []byte("x"), 0o600))
		},
		"no HEAD": func(t *testing.T, dir string) { require.NoError(t, os.Remove(filepath.Join(dir, "HEAD"))) },
		"nonsense for refs": func(t *testing.T, dir string) {
			overwrite(t, dir, "packed-refs", func([]byte) []byte { return []byte("nonsense\n") })
		},
		"no objects": func(t *testing.T, dir string) { require.NoError(t, os.RemoveAll(filepath.Join(dir, "objects"))) },
		"cut objects": func(t *testing.T, dir string) {
			overwrite(t, dir, "objects", func(data []byte) []byte { return data[:len(data)/2] })
		},
		"empty objects": func(t *testing.T, dir string) { overwrite(t, dir, "objects", func([]byte) []byte { return nil }) },
		"a changed byte": func(t *testing.T, dir string) {
			overwrite(t, dir, "objects", func(data []byte) []byte { data[len(data)/2] ^= 0xff; return data })
		},
		"no commit": func(t *testing.T, dir string) { remove(t, dir, "refs/heads/dev") },
		"no folder": func(t *testing.T, dir string) { remove(t, dir, "refs/heads/dev:cluster") },
		"no file":   func(t *testing.T, dir string) { remove(t, dir, "refs/heads/dev:cluster/a.yaml") },
		"a build interrupted": func(t *testing.T, dir string) {
			require.NoError(t, os.Rename(dir, dir+".old"))
			require.NoError(t, os.Mkdir(dir+".new", 0o700))
		},
		"a lock of a dead git": func(t *testing.T, dir string) {
			stale := filepath.Join(dir, "refs/heads/dev.lock")
			require.NoError(t, os.MkdirAll(filepath.Dir(stale), 0o700))
			require.NoError(t, os.WriteFile(stale, nil, 0o600))
			require.NoError(t, os.Chtimes(stale, time.Now(), time.Now().Add(-time.Hour)))
		},
	} {
		for _, packed := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, packed %t", damage, packed), func(t *testing.T) {
				o := channelstest.New(t)
				first := o.Commit("dev", "a.yaml", "1")
				m := o.Mirror()
				require.Equal(t, "1", content(t, m, first, "a.yaml"))
				if packed {
					channelstest.In(t, m.Dir).Git("repack", "-adq")
				}
				do(t, m.Dir)
				second := o.Commit("dev", "a.yaml", "2")
				m = &channels.Mirror{URL: m.URL, Dir: m.Dir}
				require.Equal(t, "1", content(t, m, first, "a.yaml"))
				require.Equal(t, "2", content(t, m, second, "a.yaml"))
				within, err := m.Contains(t.Context(), first, second)
				require.NoError(t, err)
				require.True(t, within)
			})
		}
	}
}

// remove drops an object, unless it is in a pack.
func remove(t *testing.T, dir, object string) {
	t.Helper()
	hash := channelstest.In(t, dir).Git("rev-parse", object)
	if err := os.Remove(filepath.Join(dir, "objects", hash[:2], hash[2:])); err != nil {
		require.ErrorIs(t, err, fs.ErrNotExist)
	}
}

// overwrite changes a file, or all files below a directory.
func overwrite(t *testing.T, dir, below string, change func([]byte) []byte) {
	t.Helper()
	require.NoError(t, filepath.WalkDir(filepath.Join(dir, below), func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		require.NoError(t, err)
		require.NoError(t, os.Chmod(path, 0o600))
		return os.WriteFile(path, change(bytes.Clone(data)), 0o600)
	}))
}

func TestManyRefsCostLittle(t *testing.T) {
	o := channelstest.New(t)
	commit := o.Commit("dev", "a.yaml", "1")
	var refs strings.Builder
	refs.WriteString("# pack-refs with: peeled fully-peeled sorted \n" + commit + " refs/heads/dev\n")
	for i := range 1000 {
		fmt.Fprintf(&refs, "%s refs/heads/topic/%04d\n", commit, i)
	}
	for i := range 8000 {
		fmt.Fprintf(&refs, "%s refs/pull/%04d/head\n", commit, i)
	}
	require.NoError(t, os.WriteFile(filepath.Join(o.Dir, "packed-refs"), []byte(refs.String()), 0o600))
	m := o.Mirror()
	timed := func(what string, do func()) {
		began := time.Now()
		do()
		t.Logf("%s: %s", what, time.Since(began).Round(time.Millisecond))
	}
	timed("heads of 1,001 branches beside 8,000 other refs", func() {
		heads, err := m.Heads(t.Context())
		require.NoError(t, err)
		require.Len(t, heads, 1001)
	})
	timed("head of one branch", func() {
		head, err := m.Head(t.Context(), "dev")
		require.NoError(t, err)
		require.Equal(t, commit, head)
	})
	timed("a new mirror", func() { require.Equal(t, "1", content(t, m, commit, "a.yaml")) })
	next := o.Commit("dev", "a.yaml", "2")
	timed("a new commit", func() { require.Equal(t, "2", content(t, m, next, "a.yaml")) })
	timed("from memory", func() { require.Equal(t, "2", content(t, m, next, "a.yaml")) })
	require.Empty(t, channelstest.In(t, m.Dir).Git("for-each-ref", "refs/pull"))
}

// TestMain lets the test binary be another process that uses a mirror.
func TestMain(m *testing.M) {
	if url := os.Getenv("MIRROR_URL"); url != "" {
		mirror := &channels.Mirror{URL: url, Dir: os.Getenv("MIRROR_DIR")}
		for _, commit := range strings.Fields(os.Getenv("MIRROR_COMMITS")) {
			folder, err := mirror.Tree(context.Background(), commit, "cluster")
			if err == nil {
				_, err = fs.ReadFile(folder, "a.yaml")
			}
			if err != nil {
				fmt.Println(err)
				os.Exit(1)
			}
		}
		os.Exit(0)
	}
	if url := os.Getenv("PROMOTE_URL"); url != "" {
		if err := promote(&channels.Mirror{URL: url, Dir: os.Getenv("MIRROR_DIR")}); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func TestProcessesAndGoroutinesShareAMirror(t *testing.T) {
	o := channelstest.New(t)
	var commits []string
	for i := range 12 {
		commits = append(commits, o.Rewrite("dev", "a.yaml", fmt.Sprint(i)))
		o.Git("update-ref", fmt.Sprintf("refs/heads/kept/%d", i), commits[i])
	}
	m := o.Mirror()
	var all sync.WaitGroup
	for range 3 {
		all.Go(func() {
			command := exec.Command(os.Args[0])
			command.Env = append(os.Environ(), "MIRROR_URL="+m.URL, "MIRROR_DIR="+m.Dir, "MIRROR_COMMITS="+strings.Join(commits, " "))
			out, err := command.CombinedOutput()
			if err != nil {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
	for i, commit := range commits {
		all.Go(func() {
			folder, err := m.Tree(t.Context(), commit, "cluster")
			if err != nil {
				t.Error(err)
				return
			}
			if data, err := fs.ReadFile(folder, "a.yaml"); err != nil || string(data) != fmt.Sprint(i) {
				t.Errorf("%q, %v", data, err)
			}
		})
	}
	all.Wait()
}
