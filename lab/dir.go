package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// DefaultDir is the directory of the lab that `make lab` runs: `.lab` in the repository.
func DefaultDir() (string, error) {
	root, err := repositoryRoot()
	if err != nil {
		return "", err
	}
	return filepath.Join(root, ".lab"), nil
}

// RunningError says that another lab holds the directory.
type RunningError struct {
	Dir string
	PID int // 0 if it is just starting
}

func (e *RunningError) Error() string {
	return fmt.Sprintf("a lab runs already in %s, pid %d: see `make lab-status`, end it with `make lab-down`", e.Dir, e.PID)
}

// Entries of `.lab` in the repository that outlive a lab: all labs share them.
var lasting = []string{"bin", "venv", "build.lock", "lab.lock", "log.previous"}

// takeDir locks a lab's directory and removes what a former lab left there.
func takeDir(dir string) (lock *os.File, err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	known := func(e os.DirEntry) bool {
		return slices.Contains(lasting, e.Name()) || isLab(filepath.Join(dir, e.Name()))
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	if !isLab(dir) && slices.ContainsFunc(entries, func(e os.DirEntry) bool { return !known(e) }) {
		return nil, fmt.Errorf("%s has other things in it than a lab: choose an empty directory", dir)
	}
	if lock, err = lockDir(dir); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			lock.Close()
		}
	}()
	if err := os.RemoveAll(filepath.Join(dir, "log.previous")); err != nil {
		return nil, err
	}
	if entries, err = os.ReadDir(dir); err != nil { // again, now that nobody else changes it
		return nil, err
	}
	for _, entry := range entries {
		switch {
		case entry.Name() == "log":
			err = os.Rename(filepath.Join(dir, "log"), filepath.Join(dir, "log.previous"))
		case !known(entry):
			err = os.RemoveAll(filepath.Join(dir, entry.Name()))
		}
		if err != nil {
			return nil, err
		}
	}
	return lock, nil
}

// isLab says whether a directory is that of a lab, running or not.
func isLab(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, "lab.lock"))
	return err == nil
}

// lockDir uses a lock of the open file, which ends with it however the process ends and can be
// asked for without being taken.
func lockDir(dir string) (*os.File, error) {
	path := filepath.Join(dir, "lab.lock")
	lock, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	err = unix.FcntlFlock(lock.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK})
	if errors.Is(err, unix.EAGAIN) {
		lock.Close()
		return nil, &RunningError{Dir: dir, PID: lockHolder(path)}
	}
	if err == nil {
		err = lock.Truncate(0)
	}
	if err == nil {
		_, err = fmt.Fprintln(lock, os.Getpid())
	}
	if err != nil {
		lock.Close()
		return nil, fmt.Errorf("locking %s: %w", dir, err)
	}
	return lock, nil
}

func lockHolder(path string) (pid int) {
	data, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	pid, _ = strconv.Atoi(strings.TrimSpace(string(data)))
	return pid
}

// Held says whether a lab runs, starts or stops in a directory, and the process id of its
// supervisor (0 if it has only just begun).
func Held(dir string) (pid int, held bool, err error) {
	path := filepath.Join(dir, "lab.lock")
	lock, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, err
	}
	defer lock.Close()
	question := unix.Flock_t{Type: unix.F_WRLCK}
	if err := unix.FcntlFlock(lock.Fd(), unix.F_OFD_GETLK, &question); err != nil {
		return 0, false, fmt.Errorf("asking who holds %s: %w", path, err)
	}
	if question.Type == unix.F_UNLCK {
		return 0, false, nil
	}
	return lockHolder(path), true, nil
}

// Down ends the lab in a directory and waits until it is gone; running is false if there was
// none. A supervisor that has not stopped within the given time is killed, and its parts with it.
func Down(ctx context.Context, dir string, within time.Duration) (running bool, err error) {
	pid, running, err := Held(dir)
	if err != nil || !running {
		return false, err
	}
	// It may be too early or too late for it to listen; then the lock says how it goes on.
	_ = NewClient(filepath.Join(dir, "lab.sock")).Stop(ctx)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(within)
	for {
		_, held, err := Held(dir)
		if err != nil || !held {
			return true, err
		}
		select {
		case <-tick.C:
		case <-deadline:
			deadline = nil
			if pid == 0 {
				return true, fmt.Errorf("the lab in %s does not stop, and who runs it is unknown", dir)
			}
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
				return true, fmt.Errorf("killing the lab's supervisor %d: %w", pid, err)
			}
		case <-ctx.Done():
			return true, context.Cause(ctx)
		}
	}
}

func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
