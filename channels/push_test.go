package channels_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fairway-project/fairway/channels"
	"github.com/fairway-project/fairway/channels/channelstest"
)

// diverged is a repository whose dev has what alpha lacks, and the other way round.
func diverged(t *testing.T) (h history, alpha, dev string) {
	h = newHistory(t)
	base := h.commit("base", files{"a": "1", "b": "1"})
	alpha = h.branch("alpha", h.commit("hotfix", files{"a": "2", "b": "1"}, base))
	dev = h.branch("dev", h.commit("change", files{"a": "1", "b": "2"}, base))
	return h, alpha, dev
}

func TestAMergeIsPushed(t *testing.T) {
	h, alpha, dev := diverged(t)
	for _, url := range []string{h.Dir, "file://" + h.Dir} {
		m := h.Mirror()
		m.URL = url
		h.branch("alpha", alpha)
		commit, err := m.Merge(t.Context(), alpha, dev, promotion)
		require.NoError(t, err)
		require.NoError(t, m.Push(t.Context(), "alpha", commit, alpha))
		require.Equal(t, commit, h.Git("rev-parse", "refs/heads/alpha"))
		require.NoError(t, m.Push(t.Context(), "alpha", commit, alpha), "again, as after an answer that was lost")
		require.Equal(t, "1", h.Git("rev-list", "--count", "--first-parent", alpha+"..alpha"))
		require.ErrorIs(t, m.Push(t.Context(), "alpha", dev, dev), channels.ErrMoved)
		require.Equal(t, commit, h.Git("rev-parse", "refs/heads/alpha"))
	}
}

func TestABranchIsPushedOnlyFromWhereItIsExpected(t *testing.T) {
	h, alpha, dev := diverged(t)
	m := h.Mirror()
	next := h.commit("next", files{"a": "3", "b": "1"}, alpha)
	head := func(branch string) string {
		return h.Git("for-each-ref", "--format=%(objectname)", "refs/heads/"+branch)
	}

	require.NoError(t, m.Push(t.Context(), "pin/one", dev, ""))
	require.Equal(t, dev, head("pin/one"))
	require.NoError(t, m.Push(t.Context(), "pin/one", dev, ""), "it is there already")
	require.ErrorIs(t, m.Push(t.Context(), "pin/one", alpha, ""), channels.ErrMoved)
	require.ErrorIs(t, m.Push(t.Context(), "pin/two", next, alpha), channels.ErrMoved, "it is nowhere")
	require.Empty(t, head("pin/two"))

	err := m.Push(t.Context(), "alpha", dev, alpha)
	require.ErrorIs(t, err, channels.ErrUnusable)
	require.ErrorContains(t, err, "does not contain "+alpha)
	require.Equal(t, alpha, head("alpha"))
	require.ErrorIs(t, m.Reset(t.Context(), "alpha", next, dev), channels.ErrMoved)
	require.Equal(t, alpha, head("alpha"))
	require.NoError(t, m.Reset(t.Context(), "alpha", dev, alpha))
	require.Equal(t, dev, head("alpha"))

	// What is expected is neither in the repository nor in the mirror.
	err = m.Push(t.Context(), "alpha", next, strings.Repeat("1", 40))
	require.ErrorIs(t, err, channels.ErrMoved)
	require.ErrorContains(t, err, "alpha is at "+dev+", not at "+strings.Repeat("1", 40))
	require.ErrorIs(t, m.Push(t.Context(), "alpha", strings.Repeat("2", 40), dev), channels.ErrGone)

	require.ErrorIs(t, m.DeleteBranch(t.Context(), "pin/one", alpha), channels.ErrMoved)
	require.Equal(t, dev, head("pin/one"))
	require.NoError(t, m.DeleteBranch(t.Context(), "pin/one", dev))
	require.Empty(t, head("pin/one"))
	require.NoError(t, m.DeleteBranch(t.Context(), "pin/one", dev), "gone already")
}

func TestForgedNamesNeverReachGit(t *testing.T) {
	h, alpha, dev := diverged(t)
	m := h.Mirror()
	mark := filepath.Join(t.TempDir(), "mark")
	for _, name := range []string{
		"", "-", "--receive-pack=touch " + mark, "--receive-pack=touch${IFS}" + mark, "--exec=touch", "*", "dev:alpha", "+dev", "@", "a..b", "dev^", "a b", "a\nb", "refs/heads/*",
	} {
		if name != "+dev" { // is a name that a branch may have
			require.ErrorIs(t, m.Push(t.Context(), name, dev, ""), channels.ErrUnknown, "%q", name)
			require.ErrorIs(t, m.DeleteBranch(t.Context(), name, dev), channels.ErrUnknown, "%q", name)
		}
		for what, err := range map[string]error{
			"push": m.Push(t.Context(), "x", name, ""), "reset": m.Reset(t.Context(), "x", name, dev), "delete": m.DeleteBranch(t.Context(), "x", name),
			"merge": second(m.Merge(t.Context(), alpha, name, promotion)), "restore": second(m.Restore(t.Context(), name, dev, promotion)),
			"text": third(m.Text(t.Context(), name, "a")), "changes": second(m.Changes(t.Context(), name, dev)), "landings": third(m.Landings(t.Context(), "", name, 1)),
			"commits": third(m.Commits(t.Context(), dev, name, 1)), "brought": third(m.Brought(t.Context(), dev, name)),
			"facts": second(m.FactsOf(t.Context(), dev, []string{name})), "lacking": second(m.Lacking(t.Context(), name, dev, 1)), "contains": second(m.Contains(t.Context(), name, dev)),
		} {
			require.ErrorIs(t, err, channels.ErrUnknown, "%s %q", what, name)
		}
	}
	require.NoFileExists(t, mark)
	require.ErrorIs(t, m.Push(t.Context(), "x", dev, "--all"), channels.ErrUnknown)
	require.NoError(t, m.Push(t.Context(), "+dev", dev, ""))
	require.Equal(t, dev, h.Git("rev-parse", "refs/heads/+dev"))
	tree := h.Git("rev-parse", dev+"^{tree}")
	require.ErrorIs(t, second(m.Merge(t.Context(), alpha, tree, promotion)), channels.ErrUnknown, "a tree is no commit")

	for reason, n := range map[string]channels.NewCommit{
		"the author of a commit is": {Message: "x", Author: "Fairway", At: promotion.At},
		"must be like Fairway":      {Message: "x", Author: "Fairway <a@b>\ncommitter Eve <e@e> 1 +0000", At: promotion.At},
		"a commit cannot be of":     {Message: "x", Author: promotion.Author},
		"is empty":                  {Message: " \n", Author: promotion.Author, At: promotion.At},
		"not plain text":            {Message: "x\x1b[2J", Author: promotion.Author, At: promotion.At},
		"longer than 65536 bytes":   {Message: strings.Repeat("x", 65537), Author: promotion.Author, At: promotion.At},
	} {
		_, err := m.Merge(t.Context(), alpha, dev, n)
		require.ErrorIs(t, err, channels.ErrUnusable)
		require.ErrorContains(t, err, reason)
	}
}

func second[T any](_ T, err error) error        { return err }
func third[T, U any](_ T, _ U, err error) error { return err }

// hook is a script that the repository runs at a push.
func hook(t *testing.T, o channelstest.Repository, name, script string) {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Join(o.Dir, "hooks"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(o.Dir, "hooks", name), []byte("#!/bin/sh\n"+script+"\n"), 0o700))
}

func TestAProtectedBranchSaysWhy(t *testing.T) {
	h, alpha, dev := diverged(t)
	m := h.Mirror()
	commit, err := m.Merge(t.Context(), alpha, dev, promotion)
	require.NoError(t, err)
	hook(t, h.Repository, "pre-receive", `printf 'GH006: \033[31mProtected branch update failed\033[0m\nNot allowed to push to alpha\n' >&2; exit 1`)
	for what, err := range map[string]error{"push": m.Push(t.Context(), "alpha", commit, alpha), "delete": m.DeleteBranch(t.Context(), "alpha", alpha)} {
		require.ErrorIs(t, err, channels.ErrProtected, what)
		require.EqualError(t, err, "the repository does not accept a push to the branch alpha: [remote rejected] (pre-receive hook declined) GH006: [31mProtected branch update failed [0m Not allowed to push to alpha")
	}
	require.Equal(t, alpha, h.Git("rev-parse", "refs/heads/alpha"))

	hook(t, h.Repository, "pre-receive", "env -u GIT_QUARANTINE_PATH git update-ref refs/heads/alpha "+dev+"; exit 1")
	require.ErrorIs(t, m.Push(t.Context(), "alpha", commit, alpha), channels.ErrMoved, "it was refused, but another reason comes first")
}

func TestAPushWhoseAnswerIsLostIsFoundDone(t *testing.T) {
	h, alpha, dev := diverged(t)
	m := h.Mirror()
	commit, err := m.Merge(t.Context(), alpha, dev, promotion)
	require.NoError(t, err)
	hook(t, h.Repository, "post-update", `kill -9 $PPID`) // receive-pack, before it answers
	require.NoError(t, m.Push(t.Context(), "alpha", commit, alpha))
	require.Equal(t, commit, h.Git("rev-parse", "refs/heads/alpha"))

	h.branch("alpha", alpha)
	hook(t, h.Repository, "pre-receive", `kill -9 $PPID`) // before it has done anything
	require.ErrorIs(t, m.Push(t.Context(), "alpha", commit, alpha), channels.ErrUnreachable)
	require.Equal(t, alpha, h.Git("rev-parse", "refs/heads/alpha"))
}

func TestPushingToAForge(t *testing.T) {
	h, alpha, dev := diverged(t)
	h.Git("config", "http.receivepack", "true")
	t.Setenv("FORGE_TOKEN", token)
	t.Setenv("OTHER_TOKEN", "s3cret-but-wrong")
	m := h.Mirror()
	commit, err := m.Merge(t.Context(), alpha, dev, promotion)
	require.NoError(t, err)
	at := func(url, env string) *channels.Mirror {
		return &channels.Mirror{URL: url, Dir: m.Dir, TokenEnv: env}
	}
	onPush := func(do func(w http.ResponseWriter)) string {
		return serve(t, h.Repository, func(w http.ResponseWriter, r *http.Request) bool {
			if r.URL.Query().Get("service") != "git-receive-pack" && !strings.HasSuffix(r.URL.Path, "/git-receive-pack") {
				return false
			}
			do(w)
			return true
		})
	}
	err = at(serve(t, h.Repository, nil), "OTHER_TOKEN").Push(t.Context(), "alpha", commit, alpha)
	require.ErrorIs(t, err, channels.ErrRefused)
	require.NotContains(t, err.Error(), "s3cret")
	err = at(onPush(func(w http.ResponseWriter) { http.Error(w, "you may only read, "+token, http.StatusForbidden) }), "FORGE_TOKEN").Push(t.Context(), "alpha", commit, alpha)
	require.ErrorIs(t, err, channels.ErrRefused)
	require.NotContains(t, err.Error(), token)
	for _, answer := range []func(http.ResponseWriter){
		func(w http.ResponseWriter) { http.Error(w, "", http.StatusBadGateway) },
		func(http.ResponseWriter) { panic(http.ErrAbortHandler) },
	} {
		require.ErrorIs(t, at(onPush(answer), "FORGE_TOKEN").Push(t.Context(), "alpha", commit, alpha), channels.ErrUnreachable)
	}
	require.Equal(t, alpha, h.Git("rev-parse", "refs/heads/alpha"))
	require.NoError(t, at(serve(t, h.Repository, nil), "FORGE_TOKEN").Push(t.Context(), "alpha", commit, alpha))
	require.Equal(t, commit, h.Git("rev-parse", "refs/heads/alpha"))

	// It arrives, but its answer does not.
	h.branch("alpha", alpha)
	lost := 0
	url := serve(t, h.Repository, func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodPost || !strings.HasSuffix(r.URL.Path, "/git-receive-pack") || lost > 0 {
			return false
		}
		lost++
		backend := filepath.Join(strings.TrimSpace(output(t, "git", "--exec-path")), "git-http-backend")
		(&cgi.Handler{Path: backend, Env: []string{"GIT_PROJECT_ROOT=" + filepath.Dir(h.Dir), "GIT_HTTP_EXPORT_ALL=1"}}).ServeHTTP(httptest.NewRecorder(), r)
		panic(http.ErrAbortHandler)
	})
	require.NoError(t, at(url, "FORGE_TOKEN").Push(t.Context(), "alpha", commit, alpha))
	require.Equal(t, 1, lost)
	require.Equal(t, commit, h.Git("rev-parse", "refs/heads/alpha"))
}

func TestWhatIsMergedOutlivesPackingButNotANewMirror(t *testing.T) {
	h, alpha, dev := diverged(t)
	m := h.Mirror()
	commit, err := m.Merge(t.Context(), alpha, dev, promotion)
	require.NoError(t, err)
	for i := range 1000 {
		channelstest.In(t, m.Dir).LooseObject(i)
	}
	next := h.branch("dev", h.commit("next", files{"a": "1", "b": "3"}, dev))
	_, _, err = m.Landings(t.Context(), dev, next, 1) // fetches, and packs
	require.NoError(t, err)
	require.Contains(t, channelstest.In(t, m.Dir).Git("count-objects", "-v"), "count: 0\n")
	require.Equal(t, "commit", channelstest.In(t, m.Dir).Git("cat-file", "-t", commit))

	overwrite(t, m.Dir, "objects", func(data []byte) []byte { return data[:len(data)/2] })
	require.ErrorIs(t, m.Push(t.Context(), "alpha", commit, alpha), channels.ErrGone)
	again, err := m.Merge(t.Context(), alpha, dev, promotion)
	require.NoError(t, err)
	require.Equal(t, commit, again)
	require.NoError(t, m.Push(t.Context(), "alpha", commit, alpha))
	require.Equal(t, commit, h.Git("rev-parse", "refs/heads/alpha"))
}

func TestOfManyPushesExactlyOneWins(t *testing.T) {
	h, alpha, dev := diverged(t)
	hook(t, h.Repository, "post-receive", `cat >> "$GIT_DIR/log"`)
	m := h.Mirror()
	const rivals = 6
	for round := range 3 {
		before := h.Git("rev-parse", "refs/heads/alpha")
		commits, outcomes := make([]string, rivals), make([]error, rivals)
		var all sync.WaitGroup
		for i := range rivals {
			all.Go(func() {
				mirror := m
				if i%2 == 1 { // as another process would, with a mirror of its own
					mirror = &channels.Mirror{URL: m.URL, Dir: m.Dir}
				}
				n := promotion
				n.Message = fmt.Sprintf("round %d rival %d", round, i)
				if commits[i], outcomes[i] = mirror.Merge(t.Context(), alpha, dev, n); outcomes[i] == nil {
					if round > 0 {
						commits[i], outcomes[i] = mirror.Restore(t.Context(), before, dev, n)
					}
					outcomes[i] = mirror.Push(t.Context(), "alpha", commits[i], before)
				}
			})
		}
		all.Wait()
		winner := ""
		for i, err := range outcomes {
			if err == nil {
				require.Empty(t, winner)
				winner = commits[i]
			} else {
				require.ErrorIs(t, err, channels.ErrMoved)
			}
		}
		require.NotEmpty(t, winner)
		require.Equal(t, winner, h.Git("rev-parse", "refs/heads/alpha"))
	}
	log, err := os.ReadFile(filepath.Join(h.Dir, "log"))
	require.NoError(t, err)
	require.Len(t, strings.Split(strings.TrimSpace(string(log)), "\n"), 3)
	channelstest.In(t, m.Dir).Git("fsck", "--connectivity-only")
	h.Git("fsck", "--connectivity-only")
}

// promote is what a process does that merges dev into alpha until it has arrived.
func promote(m *channels.Mirror) error {
	ctx := context.Background()
	for {
		heads, err := m.Heads(ctx)
		if err != nil {
			return err
		}
		alpha, dev := heads["alpha"], heads["dev"]
		if there, err := m.Contains(ctx, dev, alpha); err != nil || there {
			return err
		}
		commit, err := m.Merge(ctx, alpha, dev, promotion)
		if err == nil {
			err = m.Push(ctx, "alpha", commit, alpha)
		}
		if err != nil && !errors.Is(err, channels.ErrMoved) && !errors.Is(err, channels.ErrGone) {
			return err
		}
	}
}

func TestProcessesThatAreKilledPromoteOnce(t *testing.T) {
	h, alpha, dev := diverged(t)
	m := h.Mirror()
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			command := exec.Command(os.Args[0])
			command.Env = append(os.Environ(), "PROMOTE_URL="+m.URL, "MIRROR_DIR="+m.Dir)
			if i == 0 { // lives
				if out, err := command.CombinedOutput(); err != nil {
					t.Errorf("%v: %s", err, out)
				}
				return
			}
			if err := command.Start(); err != nil {
				t.Error(err)
				return
			}
			time.AfterFunc(time.Duration(i)*15*time.Millisecond, func() { _ = command.Process.Kill() })
			_ = command.Wait()
		})
	}
	all.Wait()
	require.NoError(t, promote(m))
	require.Equal(t, "1", h.Git("rev-list", "--count", "--first-parent", alpha+"..refs/heads/alpha"))
	require.Equal(t, alpha+" "+dev, h.Git("log", "-1", "--format=%P", "refs/heads/alpha"))
	channelstest.In(t, m.Dir).Git("fsck", "--connectivity-only")
}
