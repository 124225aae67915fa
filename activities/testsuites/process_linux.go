package testsuites

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// attributes have a process lead a group, and die with the worker.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// killMarked kills all processes that a suite has started in this folder, whoever their parent is now. They are
// found by their environment: ids are given to others after a while, and children leave their group.
func killMarked(folder string) error {
	const rounds = 200
	for range rounds {
		found, err := marked(folder)
		if err != nil {
			return err
		}
		if len(found) == 0 {
			return nil
		}
		for _, pid := range found {
			process, err := os.FindProcess(pid) // a pidfd: it stays this process
			if err != nil {
				continue
			}
			if isMarked(pid, folder) {
				_ = process.Kill()
			}
			_ = process.Release()
		}
		time.Sleep(10 * time.Millisecond) // they may have started others meanwhile
	}
	return fmt.Errorf("processes of %s do not die", folder)
}

func marked(folder string) (pids []int, err error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	for _, entry := range entries {
		if pid, err := strconv.Atoi(entry.Name()); err == nil && pid != os.Getpid() && isMarked(pid, folder) {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// isMarked looks at a process; those of other users cannot be looked at, and are none of a suite.
func isMarked(pid int, folder string) bool {
	environment, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "environ"))
	return err == nil && bytes.Contains(append([]byte{0}, environment...), []byte("\x00"+mark+"="+folder+"\x00"))
}
