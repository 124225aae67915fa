package testsuites

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// mark is the environment variable that tells the processes of a suite from all others, with its folder.
const mark = "FAIRWAY_SUITE"

// pipeWithin is how long the output of a process is waited for after its end. Its children are killed then.
const pipeWithin = 2 * time.Second

// process is a command of a suite.
type process struct {
	command     []string
	dir         string
	environment []string
	folder      string // that marks it
	out         io.Writer
	grace       time.Duration
}

// run runs it to its end. At the end of the context it is told to end, and killed after a while, with all
// processes that it has started. The error says how it ended; nil is exit status 0. notStarted if it could not begin.
func (p process) run(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, p.command[0], p.command[1:]...)
	cmd.Dir, cmd.Env = p.dir, append(p.environment, mark+"="+p.folder)
	cmd.Stdout, cmd.Stderr = p.out, p.out
	cmd.SysProcAttr = attributes()
	killed := make(chan struct{})
	cmd.Cancel = func() error {
		go func() {
			select {
			case <-time.After(p.grace):
				_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
			case <-killed:
			}
		}()
		return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM)
	}
	cmd.WaitDelay = p.grace + pipeWithin
	defer close(killed)

	// Linux tells a process that its parent has died when the thread that started it ends.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := cmd.Start(); err != nil {
		return notStarted{err}
	}
	err := cmd.Wait() // a child that keeps the output open is not waited for: see WaitDelay
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	if left := killMarked(p.folder); left != nil {
		return left
	}
	if cmd.ProcessState == nil {
		return fmt.Errorf("an end that nobody saw: %w", err)
	}
	if cmd.ProcessState.Success() {
		return nil
	}
	return errors.New(cmd.ProcessState.String())
}

// notStarted is why a process could not begin.
type notStarted struct{ error }
