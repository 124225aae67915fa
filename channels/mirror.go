// Package channels is the configuration repository, whose branches are the channels that clusters
// follow.
//
// The git binary fetches, and go-git reads what was fetched: it does so without a process for each
// file, but its fetch reads all refs of a repository each time. The git binary merges and pushes, too:
// go-git knows no three-way merge, and its push reads the whole history. So does what go-git tells of
// history, where git has the commit-graph.
package channels

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-git/go-billy/v5/osfs"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/cache"
	"github.com/go-git/go-git/v5/plumbing/object"
	"github.com/go-git/go-git/v5/storage/filesystem"
	"github.com/gofrs/flock"
	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/sync/singleflight"
)

// Kinds of errors; the texts around them say more.
var (
	// ErrUnreachable means that a later attempt may succeed.
	ErrUnreachable = errors.New("the configuration repository does not answer")
	// ErrRefused means that the repository, or the credentials for it, are not accepted.
	ErrRefused = errors.New("the configuration repository refuses access")
	// ErrUnknown means that there is no such branch, tag or commit.
	ErrUnknown = errors.New("the configuration repository has no such thing")
	// ErrGone means that a commit is neither in the repository nor in the mirror, such as one that
	// was rewritten.
	ErrGone = errors.New("the commit is gone from the configuration repository")
	// ErrUnusable means that what is in the repository, or its address, cannot be used.
	ErrUnusable = errors.New("the configuration repository is not usable")
)

// Mirror is a copy of the configuration repository on this machine, a bare repository with all
// branches and tags. It is made when it is needed, and made anew when it is damaged. What it has got
// it keeps, also when the branches move away from it, so that clusters can go back there. Any
// number of goroutines and processes may share one.
type Mirror struct {
	// URL is the address of the repository (see CheckURL).
	URL string
	// Dir is the directory of the copy; default is one for the URL in the user's cache directory. Beside
	// it lie lock files of the same name.
	Dir string
	// Timeout bounds one run of git; default 1 m.
	Timeout time.Duration
	// User, and TokenEnv (an environment variable) or TokenFile, are credentials for https.
	User      string
	TokenEnv  string
	TokenFile string

	once    sync.Once
	folders *lru.Cache[string, fs.FS]
	loading singleflight.Group
}

const defaultTimeout = time.Minute

func (m *Mirror) timeout() time.Duration { return cmp.Or(m.Timeout, defaultTimeout) }

// Check says whether the mirror can work here: the address, git's version, and the directory. It asks
// nothing of the repository.
func (m *Mirror) Check(ctx context.Context) error {
	if err := CheckURL(m.URL); err != nil {
		return fmt.Errorf("%w: repository.url %w", ErrUnusable, err)
	}
	answer, err := m.git(ctx, os.DevNull, "version")
	if err != nil {
		return err
	}
	if err := checkGit(string(answer)); err != nil {
		return err
	}
	dir, err := m.dir()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return fmt.Errorf("repository.mirror: %w", err)
	}
	return nil
}

func (m *Mirror) dir() (string, error) {
	if m.Dir != "" {
		return filepath.Abs(m.Dir)
	}
	base, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("there is no cache directory; set repository.mirror: %w", err)
	}
	sum := sha256.Sum256([]byte(m.URL))
	return filepath.Join(base, "fairway", hex.EncodeToString(sum[:8])+".git"), nil
}

// Title is the first line of a commit's message, for people, without what a terminal would obey.
func (m *Mirror) Title(ctx context.Context, commit string) (string, error) {
	title := ""
	err := m.read(ctx, commit, func(c *object.Commit, _ *filesystem.Storage) error {
		first, _, _ := strings.Cut(strings.TrimSpace(c.Message), "\n")
		if first != "" {
			title = readable(first, nil)
		}
		return nil
	})
	return title, err
}

// Contains says whether a commit is, or has among those before it, another one.
func (m *Mirror) Contains(ctx context.Context, ancestor, commit string) (within bool, err error) {
	err = m.on(ctx, []string{ancestor, commit}, func(dir string) error {
		within, err = m.contains(ctx, dir, ancestor, commit)
		return err
	})
	return within, err
}

func (m *Mirror) contains(ctx context.Context, dir, ancestor, commit string) (bool, error) {
	_, err := m.git(ctx, dir, "merge-base", "--is-ancestor", ancestor, commit)
	if exitCode(err) == 1 {
		return false, nil
	}
	return err == nil, err
}

// on asks git something about commits of the mirror, which are fetched if need be. A mirror that git
// cannot read is made anew, once.
func (m *Mirror) on(ctx context.Context, commits []string, ask func(dir string) error) error {
	for _, commit := range commits {
		if !fullHash.MatchString(commit) {
			return notACommit(commit)
		}
	}
	missing := commits[0]
	look := func() error {
		return m.reading(ctx, func(dir string) (err error) {
			if missing, err = m.missing(ctx, dir, commits); err != nil {
				return err
			}
			if missing != "" {
				return errMissing
			}
			return ask(dir)
		})
	}
	err := look()
	for range commits {
		if !errors.Is(err, errMissing) {
			break
		}
		if err = m.fetch(ctx, missing); err != nil {
			return err
		}
		err = look()
	}
	if errors.Is(err, errMissing) { // made anew by others each time
		return fmt.Errorf("%w for long enough to have %s", ErrUnreachable, missing)
	}
	if exitCode(err) <= 0 {
		return err
	}
	if err := m.heal(ctx, commits[0], err); err != nil {
		return err
	}
	if err = look(); errors.Is(err, errMissing) {
		return fmt.Errorf("%w: %s is on no branch, and the mirror that had it was damaged", ErrGone, missing)
	}
	return err
}

// missing is the first of some commits that is not in the mirror; empty if all are.
func (m *Mirror) missing(ctx context.Context, dir string, commits []string) (string, error) {
	answer, err := m.gitWith(ctx, dir, nil, strings.Join(commits, "\n")+"\n", "cat-file", "--batch-check=%(objecttype)")
	if err != nil {
		return "", err
	}
	kinds := strings.Split(strings.TrimSuffix(string(answer), "\n"), "\n")
	if len(kinds) != len(commits) {
		return "", fmt.Errorf("repository.mirror: git answers %q when asked for %d commits", readable(string(answer), nil), len(commits))
	}
	for i, kind := range kinds {
		switch {
		case kind == "commit":
		case strings.HasSuffix(kind, " missing"):
			return commits[i], nil
		default:
			return "", fmt.Errorf("%w: %s is a %s, not a commit", ErrUnknown, commits[i], readable(kind, nil))
		}
	}
	return "", nil
}

func notACommit(commit string) error {
	return fmt.Errorf("%w: %q is no commit; a commit has 40 hexadecimal digits", ErrUnknown, commit)
}

var fullHash = regexp.MustCompile(`^[0-9a-f]{40}$`)

// read uses a commit of the mirror, fetched if need be. A mirror whose content cannot be read is made
// anew, once.
func (m *Mirror) read(ctx context.Context, commit string, use func(*object.Commit, *filesystem.Storage) error) error {
	if !fullHash.MatchString(commit) {
		return notACommit(commit)
	}
	look := func() error {
		return m.reading(ctx, func(dir string) error {
			storage := filesystem.NewStorageWithOptions(osfs.New(dir), cache.NewObjectLRU(16*cache.MiByte), filesystem.Options{KeepDescriptors: true})
			defer func() { _ = storage.Close() }()
			found, err := object.GetCommit(storage, plumbing.NewHash(commit))
			if errors.Is(err, plumbing.ErrObjectNotFound) {
				return errMissing
			}
			if err != nil {
				return err
			}
			return use(found, storage)
		})
	}
	err := look()
	if errors.Is(err, errMissing) {
		if err = m.fetch(ctx, commit); err != nil {
			return err
		}
		err = look()
	}
	if err == nil || errors.Is(err, ErrUnusable) || ctx.Err() != nil {
		return err
	}
	if err := m.heal(ctx, commit, err); err != nil {
		return err
	}
	return look()
}

var errMissing = errors.New("not in the mirror")

// reading keeps the mirror from being replaced or repacked meanwhile.
func (m *Mirror) reading(ctx context.Context, use func(dir string) error) error {
	dir, err := m.dir()
	if err != nil {
		return err
	}
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return errMissing
	}
	unlock, err := lock(ctx, dir+".lock", (*flock.Flock).TryRLockContext)
	if err != nil {
		return err
	}
	defer unlock()
	return use(dir)
}

// lock waits for a lock between goroutines and processes; one that dies leaves none behind.
func lock(ctx context.Context, path string, take func(*flock.Flock, context.Context, time.Duration) (bool, error)) (unlock func(), err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("repository.mirror: %w", err)
	}
	file := flock.New(path)
	if _, err := take(file, ctx, 20*time.Millisecond); err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, fmt.Errorf("repository.mirror: locking %s: %w", path, err)
	}
	return func() { _ = file.Unlock() }, nil
}

// fetch brings everything new, and a commit that no branch or tag has any more if the other side
// hands it out. It returns when the mirror has the commit.
func (m *Mirror) fetch(ctx context.Context, commit string) error {
	return m.changing(ctx, func(dir string) error {
		if there, err := m.has(ctx, dir, commit); there || err != nil { // somebody else has fetched it meanwhile
			return err
		}
		if err := m.update(ctx, dir); err != nil {
			return err
		}
		if there, err := m.has(ctx, dir, commit); there || err != nil {
			return err
		}
		if m.damaged(ctx, dir, "") { // git may take what a branch points to for fetched
			if err := m.build(ctx, dir); err != nil {
				return err
			}
			if there, err := m.has(ctx, dir, commit); there || err != nil {
				return err
			}
		}
		_, err := m.git(ctx, dir, "fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--no-auto-maintenance", "--", m.URL, commit)
		if err == nil {
			if there, err := m.has(ctx, dir, commit); there || err != nil {
				return err
			}
		}
		if err == nil || isGone(err) {
			return fmt.Errorf("%w: %s is on no branch, and was not fetched before it went", ErrGone, commit)
		}
		return classify(err)
	})
}

// isGone says whether the other side does not have, or not hand out, what was asked for.
func isGone(err error) bool {
	var exit *exitError
	return errors.As(err, &exit) && exit.code > 0 && slices.ContainsFunc([]string{"not our ref", "unadvertised object", "find remote ref"},
		func(sign string) bool { return strings.Contains(exit.said, sign) })
}

// refresh brings everything new.
func (m *Mirror) refresh(ctx context.Context) error {
	return m.changing(ctx, func(dir string) error { return m.update(ctx, dir) })
}

// changing is for what writes to the mirror, one at a time.
func (m *Mirror) changing(ctx context.Context, change func(dir string) error) error {
	dir, err := m.dir()
	if err != nil {
		return err
	}
	unlock, err := lock(ctx, dir+".fetch-lock", (*flock.Flock).TryLockContext)
	if err != nil {
		return err
	}
	defer unlock()
	return change(dir)
}

// has says whether the mirror has a commit. A git that was ended before it could tell is an error: what
// is gone is so for ever.
func (m *Mirror) has(ctx context.Context, dir, commit string) (bool, error) {
	_, err := m.git(ctx, dir, "cat-file", "-e", commit+"^{commit}")
	if exitCode(err) > 0 {
		return false, nil
	}
	return err == nil, err
}

// update fetches into the mirror, makes it if there is none and makes it anew if that fails because
// it is damaged.
func (m *Mirror) update(ctx context.Context, dir string) error {
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return m.build(ctx, dir)
	}
	err := m.fetchAll(ctx, dir)
	if exitCode(err) > 0 && strings.Contains(err.Error(), ".lock") && m.removeStaleLocks(dir) {
		err = m.fetchAll(ctx, dir)
	}
	if err == nil {
		m.tidy(ctx, dir)
		return nil
	}
	if exitCode(err) > 0 && m.damaged(ctx, dir, "") { // whatever git took for the reason
		return m.build(ctx, dir)
	}
	return classify(err)
}

func (m *Mirror) fetchAll(ctx context.Context, dir string) error {
	_, err := m.git(ctx, dir, "fetch", "--quiet", "--prune", "--force", "--no-write-fetch-head", "--no-auto-maintenance", "--no-recurse-submodules",
		"--", m.URL, "+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*")
	return err
}

// removeStaleLocks removes what a git that was killed has left: it runs no longer than the timeout.
func (m *Mirror) removeStaleLocks(dir string) (removed bool) {
	_ = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.HasSuffix(path, ".lock") {
			return nil
		}
		if info, err := entry.Info(); err == nil && time.Since(info.ModTime()) > m.timeout()+2*killAfter {
			removed = os.Remove(path) == nil || removed
		}
		return nil
	})
	return removed
}

// build makes the mirror beside its place and puts it there when it is complete.
func (m *Mirror) build(ctx context.Context, dir string) error {
	// Left by a build that was interrupted. Its git may go on for a moment and put something back.
	abandoned, _ := filepath.Glob(pattern(dir) + ".new*")
	for _, left := range abandoned {
		_ = os.RemoveAll(left)
	}
	if err := os.RemoveAll(dir + ".old"); err != nil {
		return fmt.Errorf("repository.mirror: %w", err)
	}
	fresh, err := os.MkdirTemp(filepath.Dir(dir), filepath.Base(dir)+".new-")
	if err != nil {
		return fmt.Errorf("repository.mirror: %w", err)
	}
	defer func() { _ = os.RemoveAll(fresh) }()
	if _, err := m.git(ctx, fresh, "init", "--quiet", "--bare", "--template=", "--initial-branch=main"); err != nil {
		return fmt.Errorf("repository.mirror: %w", err)
	}
	if err := m.fetchAll(ctx, fresh); err != nil {
		return classify(err)
	}
	_, _ = m.git(ctx, fresh, "pack-refs", "--all") // a file for each branch is only slower
	unlock, err := lock(ctx, dir+".lock", (*flock.Flock).TryLockContext)
	if err != nil {
		return err
	}
	defer unlock()
	if err := os.Rename(dir, dir+".old"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("repository.mirror: %w", err)
	}
	if err := os.Rename(fresh, dir); err != nil {
		return fmt.Errorf("repository.mirror: %w", err)
	}
	_ = os.RemoveAll(dir + ".old") // or by the next build
	return nil
}

// pattern matches nothing but a path.
func pattern(path string) string { return special.ReplaceAllString(path, `\$0`) }

var special = regexp.MustCompile(`[*?\[\\]`)

// heal makes the mirror anew if git, too, finds that it is damaged; otherwise the error stands.
func (m *Mirror) heal(ctx context.Context, commit string, cause error) error {
	return m.changing(ctx, func(dir string) error {
		if !m.damaged(ctx, dir, commit) {
			if _, err := os.Stat(dir); err == nil && m.readable(ctx, dir, commit) {
				return nil // somebody else has healed it meanwhile, or it was a passing fault
			}
			return fmt.Errorf("repository.mirror: reading %s: %w", dir, cause)
		}
		if err := m.build(ctx, dir); err != nil {
			return err
		}
		if there, err := m.has(ctx, dir, commit); there || err != nil {
			return err
		}
		return fmt.Errorf("%w: %s is on no branch, and the mirror that had it was damaged", ErrGone, commit)
	})
}

// damaged says whether git finds something wrong with the mirror, or with the content of a commit.
func (m *Mirror) damaged(ctx context.Context, dir, commit string) bool {
	if _, err := m.git(ctx, dir, "fsck", "--connectivity-only", "--no-dangling", "--no-progress"); exitCode(err) > 0 {
		return true
	}
	if commit == "" {
		return false
	}
	there, _ := m.has(ctx, dir, commit)
	return there && !m.readable(ctx, dir, commit)
}

// readable says whether git can read all that a commit holds.
func (m *Mirror) readable(ctx context.Context, dir, commit string) bool {
	_, err := m.git(ctx, dir, "archive", "--format=tar", "--output="+os.DevNull, commit)
	return exitCode(err) <= 0
}

// tidy packs what many small fetches have brought. It drops nothing, reachable or not. If it fails it
// is tried again after the next fetch.
func (m *Mirror) tidy(ctx context.Context, dir string) {
	const manyLoose, manyPacks = 1000, 30
	answer, err := m.git(ctx, dir, "count-objects", "-v")
	if err != nil || count(answer, "count") < manyLoose && count(answer, "packs") < manyPacks {
		return
	}
	unlock, err := lock(ctx, dir+".lock", (*flock.Flock).TryLockContext)
	if err != nil {
		return
	}
	defer unlock()
	_, _ = m.git(ctx, dir, "repack", "-d", "--quiet") // the next one keeps what is loose only if there is a pack
	_, _ = m.git(ctx, dir, "repack", "-a", "-d", "--keep-unreachable", "--no-write-bitmap-index", "--quiet")
	_, _ = m.git(ctx, dir, "pack-refs", "--all")
}

// count reads a line such as "packs: 3".
func count(answer []byte, name string) int {
	for line := range strings.Lines(string(answer)) {
		if value, found := strings.CutPrefix(line, name+": "); found {
			number, _ := strconv.Atoi(strings.TrimSpace(value))
			return number
		}
	}
	return 0
}

// classify says what kind of thing it is that git cannot do with the other side.
func classify(err error) error {
	var exit *exitError
	if !errors.As(err, &exit) {
		return err
	}
	for _, sign := range []string{
		"Authentication failed", "could not read Username", "could not read Password", "returned error: 401", "returned error: 403", "returned error: 404",
		"Permission denied", "access denied", "not found", "does not appear to be a git repository", "does not exist", "redirect", "returned error: 30",
		"Host key verification failed",
	} {
		if strings.Contains(exit.said, sign) {
			return fmt.Errorf("%w: %w; check repository.url and its credentials", ErrRefused, err)
		}
	}
	for _, sign := range []string{
		"Could not resolve", "Failed to connect", "Couldn't connect", "Connection refused", "Connection reset", "Connection timed out", "timed out", "unable to access", "returned error: 5", "returned error: 429",
		"early EOF", "hung up", "unexpected disconnect", "RPC failed", "Network is unreachable", "No route to host", "Could not read from remote repository",
	} {
		if strings.Contains(exit.said, sign) {
			return fmt.Errorf("%w: %w", ErrUnreachable, err)
		}
	}
	return err
}
