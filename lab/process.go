package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Process says how one part of the lab is run.
type Process struct {
	// Name is unique in a lab and reads like a path: "temporal", "kubernetes/dev-1/kube-apiserver".
	Name    string
	Command []string
	// Env is added to PATH and HOME; nothing else of the caller's environment is passed on.
	Env []string
	// Dir is the working directory; default is the lab's state directory.
	Dir string
	// User runs the part as somebody else; nil means as the caller.
	User *syscall.Credential
	// Ready returns nil once the part serves. It is asked every 50 ms.
	Ready func(context.Context) error
	// ReadyWithin bounds the wait for Ready; default 60 s.
	ReadyWithin time.Duration
	// StopWithin is the time between SIGTERM and SIGKILL; default 5 s.
	StopWithin time.Duration
}

// Part is a process of the lab that was started, running or not.
// It is safe for concurrent use.
type Part struct {
	process Process
	log     string
	spawn   *spawner

	mu      sync.Mutex
	cmd     *exec.Cmd
	done    chan struct{} // closed when cmd has been waited for
	exit    error
	since   time.Time // of the last change of state
	paused  bool
	ending  bool // an end of the process is wanted, not a surprise
	closed  bool // it must not be started again
	onDeath func(*Part)
}

// PartState is what a part does now.
type PartState string

// The states of a part. A paused one lives and answers nobody.
const (
	Running PartState = "running"
	Paused  PartState = "paused"
	Dead    PartState = "dead"
)

// State is what the part does now, and since when.
func (p *Part) State() (PartState, time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case !p.runningLocked():
		return Dead, p.since
	case p.paused:
		return Paused, p.since
	default:
		return Running, p.since
	}
}

// Name is the name the part was started under.
func (p *Part) Name() string { return p.process.Name }

// Log is the path of the part's log file; restarts append to it.
func (p *Part) Log() string { return p.log }

// PID is the process id, or 0 when the part does not run.
func (p *Part) PID() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.runningLocked() {
		return 0
	}
	return p.cmd.Process.Pid
}

// Running says whether the process lives (a paused one does).
func (p *Part) Running() bool { return p.PID() != 0 }

func (p *Part) runningLocked() bool {
	if p.cmd == nil {
		return false
	}
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// Kill ends the process with SIGKILL, as a crash would, and waits until it is gone.
func (p *Part) Kill() error { return p.end(syscall.SIGKILL, 0) }

// Stop ends the process with SIGTERM, and with SIGKILL if it does not comply in time.
func (p *Part) Stop() error {
	within := p.process.StopWithin
	if within == 0 {
		within = 5 * time.Second
	}
	return p.end(syscall.SIGTERM, within)
}

func (p *Part) end(signal syscall.Signal, within time.Duration) error {
	p.mu.Lock()
	if !p.runningLocked() {
		p.mu.Unlock()
		return nil
	}
	p.ending = true
	cmd, done := p.cmd, p.done
	p.mu.Unlock()

	if within > 0 {
		// A paused process cannot react to SIGTERM.
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGCONT)
		_ = syscall.Kill(-cmd.Process.Pid, signal)
		select {
		case <-done:
			return nil
		case <-time.After(within):
		}
	}
	if err := syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("killing %s: %w", p.Name(), err)
	}
	<-done
	return nil
}

// close forbids any further start; one that is on its way fails, or its process is there to be
// ended when close returns.
func (p *Part) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
}

// Pause stops the process with SIGSTOP: it keeps its sockets and answers nobody.
func (p *Part) Pause() error { return p.setPaused(true, syscall.SIGSTOP) }

// Resume undoes Pause.
func (p *Part) Resume() error { return p.setPaused(false, syscall.SIGCONT) }

func (p *Part) setPaused(paused bool, signal syscall.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.runningLocked() {
		return fmt.Errorf("%s does not run", p.Name())
	}
	if err := syscall.Kill(-p.cmd.Process.Pid, signal); err != nil {
		return fmt.Errorf("sending %v to %s: %w", signal, p.Name(), err)
	}
	if p.paused != paused {
		p.paused, p.since = paused, time.Now()
	}
	return nil
}

// Restart starts the part again, ending it first if it still runs, and waits until it is ready.
func (p *Part) Restart(ctx context.Context) error {
	if err := p.Stop(); err != nil {
		return err
	}
	return p.start(ctx)
}

// Tail returns the last lines of the part's log.
func (p *Part) Tail(lines int) string {
	data, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimRight(string(data), "\n"), "\n")
	if len(all) > lines {
		all = all[len(all)-lines:]
	}
	return strings.Join(all, "\n")
}

func (p *Part) start(ctx context.Context) error {
	if err := os.MkdirAll(filepath.Dir(p.log), 0o755); err != nil {
		return fmt.Errorf("starting %s: %w", p.Name(), err)
	}
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return fmt.Errorf("starting %s: %w", p.Name(), err)
	}
	defer log.Close()

	cmd := exec.Command(p.process.Command[0], p.process.Command[1:]...)
	cmd.Dir = p.process.Dir
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME")}, p.process.Env...)
	cmd.Stdout, cmd.Stderr = log, log
	// A process group of its own keeps Ctrl-C in the terminal away from the part, so that it
	// is the lab that stops it; Pdeathsig ends it even when the lab itself is killed.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL, Credential: p.process.User}
	done := make(chan struct{})
	p.mu.Lock()
	switch {
	case p.closed:
		err = errors.New("the lab has given it up")
	case p.runningLocked():
		err = errors.New("it runs already")
	default:
		err = p.spawn.start(cmd)
	}
	if err != nil {
		p.mu.Unlock()
		return fmt.Errorf("starting %s: %w", p.Name(), err)
	}
	p.cmd, p.done, p.exit, p.since = cmd, done, nil, time.Now()
	p.ending, p.paused = false, false
	p.mu.Unlock()
	go func() {
		err := cmd.Wait()
		// Children of the part, such as a forge's git, have no use without it.
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		p.mu.Lock()
		p.exit, p.since = err, time.Now()
		surprise := !p.ending
		p.mu.Unlock()
		close(done)
		if surprise && p.onDeath != nil {
			p.onDeath(p)
		}
	}()
	return p.awaitReady(ctx, done)
}

func (p *Part) awaitReady(ctx context.Context, done <-chan struct{}) error {
	if p.process.Ready == nil {
		return nil
	}
	within := p.process.ReadyWithin
	if within == 0 {
		within = 60 * time.Second
	}
	ctx, cancel := context.WithTimeoutCause(ctx, within, fmt.Errorf("not ready after %s", within))
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	last := errors.New("not asked yet")
	for {
		attempt, cancelAttempt := context.WithTimeout(ctx, 2*time.Second)
		err := p.process.Ready(attempt)
		cancelAttempt()
		if err == nil {
			return nil
		}
		if ctx.Err() == nil {
			last = err
		}
		select {
		case <-done:
			return fmt.Errorf("%s ended while starting (%v); the end of its log:\n%s", p.Name(), p.exitError(), p.Tail(20))
		case <-ctx.Done():
			return fmt.Errorf("%s: %w (%v); the end of its log:\n%s", p.Name(), context.Cause(ctx), last, p.Tail(20))
		case <-tick.C:
		}
	}
}

func (p *Part) exitError() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.exit == nil {
		return errors.New("exit status 0")
	}
	return p.exit
}

// spawner starts every process from one operating system thread that lives as long as the lab:
// Linux sends Pdeathsig when the *thread* that forked ends, and Go may end the others.
type spawner struct{ requests chan spawn }

type spawn struct {
	cmd  *exec.Cmd
	done chan error
}

func newSpawner() *spawner {
	s := &spawner{requests: make(chan spawn)}
	go func() {
		runtime.LockOSThread()
		for r := range s.requests {
			r.done <- r.cmd.Start()
		}
	}()
	return s
}

func (s *spawner) start(cmd *exec.Cmd) error {
	r := spawn{cmd: cmd, done: make(chan error)}
	s.requests <- r
	return <-r.done
}

// run runs a short command to its end and returns what it printed; an error carries the end of that.
func run(ctx context.Context, dir string, env []string, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), env...)
	cmd.WaitDelay = 5 * time.Second
	// The command ends with the lab; see spawner for why the thread has to stay.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, io.Writer(&out)
	if err := cmd.Run(); err != nil {
		text := strings.TrimSpace(out.String())
		if len(text) > 4000 {
			text = "..." + text[len(text)-4000:]
		}
		return out.String(), fmt.Errorf("%s %s: %w\n%s", filepath.Base(name), strings.Join(args, " "), err, text)
	}
	return out.String(), nil
}
