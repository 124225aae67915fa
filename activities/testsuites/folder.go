package testsuites

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/gofrs/flock"
	"go.temporal.io/sdk/temporal"

	"github.com/fairway-project/fairway/workflows"
)

// DefaultRoot is where suites run on this machine.
func DefaultRoot() string {
	if cache, err := os.UserCacheDir(); err == nil {
		return filepath.Join(cache, "fairway-e2e")
	}
	return filepath.Join(os.TempDir(), fmt.Sprintf("fairway-e2e-%d", os.Getuid()))
}

// folderName makes one element of a path of any name.
func folderName(name string) string {
	name = url.PathEscape(name)
	if strings.HasPrefix(name, ".") {
		name = "%2E" + name[1:]
	}
	return name
}

// folder is where one suite of one test runs. Whoever has it holds a lock beside it, which ends with the
// process; so who finds the lock free knows that nobody looks after the folder any more.
type folder struct {
	path string
	lock *flock.Flock
}

const lockSuffix = ".lock"

// enter makes the folder anew. Whatever an attempt before has left is gone then, with its processes; one that
// still winds up is waited for.
func enter(ctx context.Context, root, cluster, suite string) (*folder, error) {
	f := &folder{path: filepath.Join(root, folderName(cluster), folderName(suite))}
	for {
		if err := os.MkdirAll(filepath.Dir(f.path), 0o700); err != nil {
			return nil, unusable(err)
		}
		f.lock = flock.New(f.path+lockSuffix, flock.SetPermissions(0o600))
		held, err := f.lock.TryLock()
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // its folder has just been removed
			return nil, unusable(err)
		}
		if held && f.holds() {
			break
		}
		_ = f.lock.Close()
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
	err := f.empty()
	for _, part := range []string{f.reports(), f.work()} {
		if err == nil {
			err = os.MkdirAll(part, 0o700)
		}
	}
	if err != nil {
		return nil, errors.Join(unusable(err), f.leave())
	}
	return f, nil
}

// Parts of the folder.
func (f *folder) reports() string    { return filepath.Join(f.path, "reports") }
func (f *folder) work() string       { return filepath.Join(f.path, "work") }
func (f *folder) log() string        { return filepath.Join(f.path, "log") }
func (f *folder) kubeconfig() string { return filepath.Join(f.path, "kubeconfig") }
func (f *folder) token() string      { return filepath.Join(f.path, "token") }

// holds says whether the lock is the one that others find: who held it before may have removed it meanwhile.
func (f *folder) holds() bool {
	ours, err := f.lock.Stat()
	if err != nil {
		return false
	}
	theirs, err := os.Stat(f.path + lockSuffix)
	return err == nil && os.SameFile(ours, theirs)
}

// empty ends what still runs of the folder, and removes it: first what lets somebody into the cluster.
func (f *folder) empty() error {
	if err := killMarked(f.path); err != nil {
		return err
	}
	for _, secret := range []string{f.token(), f.kubeconfig()} {
		if err := os.Remove(secret); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) {
			return err
		}
	}
	if os.RemoveAll(f.path) == nil {
		return nil
	}
	// Tests make folders that nobody may write to.
	_ = filepath.WalkDir(f.path, func(path string, entry fs.DirEntry, _ error) error {
		if entry != nil && entry.IsDir() {
			_ = os.Chmod(path, 0o700)
		}
		return nil
	})
	return os.RemoveAll(f.path)
}

// leave removes the folder and gives it up. What cannot be removed keeps its lock file, by which it is found again.
func (f *folder) leave() error {
	if err := f.empty(); err != nil {
		_ = f.lock.Close()
		return err
	}
	f.release()
	return nil
}

func (f *folder) release() {
	_ = os.Remove(f.path + lockSuffix) // while it is held: see holds
	_ = f.lock.Close()
	_ = os.Remove(filepath.Dir(f.path)) // which fails while another suite of the cluster runs
}

func unusable(err error) error {
	return temporal.NewApplicationError(fmt.Sprintf("the folder that a suite is to run in cannot be used: %v; does the worker have a writable home or TMPDIR?", err), workflows.Unreachable)
}

// RemoveLeftovers ends and removes what suites have left whose worker is dead. Those of workers that live are
// not touched. For the start of a worker.
func RemoveLeftovers(root string) error {
	locks, err := filepath.Glob(filepath.Join(root, "*", "*"+lockSuffix))
	if err != nil {
		return err
	}
	var problems []error
	for _, lock := range locks {
		f := &folder{path: strings.TrimSuffix(lock, lockSuffix), lock: flock.New(lock)}
		held, err := f.lock.TryLock()
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			problems = append(problems, err)
		}
		if held && f.holds() {
			problems = append(problems, f.leave())
		} else {
			_ = f.lock.Close()
		}
	}
	return errors.Join(problems...)
}
