package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/fairway-project/fairway/lab"
)

func upCommand(t *target) *cobra.Command {
	var clusters []string
	var detach bool
	command := &cobra.Command{
		Use:   "up",
		Short: "Build and start the lab",
		Long: `Build what is not up to date, start all parts and the sample fleet, and say where things are.
In the foreground the lab runs until Ctrl-C, which leaves nothing running. A lab that runs
already is left alone. Every start is a fresh one: the state of a former lab is deleted, its
logs stay in log.previous.`,
		Example: `  lab up
  lab up --detach
  lab up --clusters dev-1,alpha-1`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, out := cmd.Context(), cmd.OutOrStdout()
			if pid, held, err := lab.Held(t.dir); err != nil || held {
				if err != nil {
					return err
				}
				return t.joinRunning(ctx, out, pid)
			}
			// Building here, with the terminal at hand, shows its progress best.
			if err := lab.Prepare(ctx, out); err != nil {
				return err
			}
			options := lab.Options{Dir: t.dir, Out: out}
			if cmd.Flags().Changed("clusters") {
				options.Clusters = clusters
			}
			if detach {
				return t.detach(ctx, out, options)
			}
			return t.run(ctx, out, options, nil)
		},
	}
	command.Flags().StringSliceVar(&clusters, "clusters", nil, "clusters of the sample fleet to run (default all)")
	command.Flags().BoolVar(&detach, "detach", false, "return when the lab is up, and leave it running")
	return command
}

// run starts a lab and lets it run until ctx ends or somebody stops it through its socket. When it
// is up, then is called; if that fails, the lab is stopped.
func (t *target) run(ctx context.Context, out io.Writer, options lab.Options, then func(context.Context, *lab.Lab) error) error {
	start := time.Now()
	l, err := lab.Start(ctx, options)
	if running := (*lab.RunningError)(nil); errors.As(err, &running) {
		return t.joinRunning(ctx, out, running.PID)
	}
	if err != nil && ctx.Err() != nil {
		return errors.New("stopped before the lab was up; nothing is left running")
	}
	if err != nil {
		return err
	}
	// A crash of the supervisor takes everything with it: keep its last words.
	if crashes, err := os.OpenFile(filepath.Join(t.dir, "log", "lab.log"), os.O_WRONLY|os.O_APPEND, 0); err == nil {
		_ = debug.SetCrashOutput(crashes, debug.CrashOptions{})
	}
	fmt.Fprintf(out, "The lab is up after %.0f s.\n", time.Since(start).Seconds())
	printPlaces(out, l.Status())
	if then == nil {
		printTry(out, l.EnvFile())
	}
	if then != nil {
		if err := then(ctx, l); err != nil && ctx.Err() == nil {
			return errors.Join(err, l.Stop())
		}
	}
	select {
	case <-ctx.Done():
		fmt.Fprintln(out, "stopping the lab")
	case <-l.Gone():
	}
	if err := l.Stop(); err != nil {
		return err
	}
	fmt.Fprintln(out, "The lab has stopped; nothing is left running.")
	return nil
}

// printTry says what to do with a lab in which no worker runs yet.
func printTry(out io.Writer, env string) {
	fmt.Fprintf(out, "\nTo try Fairway on it, build it with `make build` and run its worker in a terminal of its own:\n  . %s\n  bin/fairway-worker\nand in another one:\n%s", shortPath(env), things(env))
}

// detach starts the lab as a process of its own, in a session of its own so that closing the
// terminal does not end it, and follows it until it is up.
func (t *target) detach(ctx context.Context, out io.Writer, options lab.Options) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	output, err := os.CreateTemp("", "lab-up-*.log")
	if err != nil {
		return err
	}
	defer output.Close()
	if err := os.Remove(output.Name()); err != nil { // it is of use only as long as it is open
		return err
	}
	args := []string{"up", "--dir", t.dir}
	if options.Clusters != nil {
		args = append(args, "--clusters="+strings.Join(options.Clusters, ","))
	}
	cmd := exec.Command(self, args...)
	cmd.Stdout, cmd.Stderr = output, output
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("starting the lab in the background: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()

	follower := io.NewSectionReader(output, 0, 1<<62)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		status, statusErr := t.client().Status(ctx)
		if _, err := io.Copy(out, follower); err != nil {
			return err
		}
		if statusErr == nil && status.Phase == lab.Up && status.PID == cmd.Process.Pid {
			fmt.Fprintf(out, "It runs in the background; `%s down --dir %s` ends it.\n", shortPath(self), shortPath(t.dir))
			return nil
		}
		select {
		case err := <-ended:
			if _, err := io.Copy(out, follower); err != nil {
				return err
			}
			if err != nil {
				return errors.New("the lab did not start") // its output has said why
			}
			return nil // it found another lab running and has said so
		case <-ctx.Done():
			fmt.Fprintln(out, "stopping the lab")
			_, err := lab.Down(context.WithoutCancel(ctx), t.dir, stopWithin)
			return errors.Join(context.Cause(ctx), err)
		case <-tick.C:
		}
	}
}

// joinRunning waits until the lab that somebody else started is up.
func (t *target) joinRunning(ctx context.Context, out io.Writer, pid int) error {
	fmt.Fprintf(out, "A lab runs already in %s, pid %d.\n", t.dir, pid)
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	waiting := false
	for {
		status, err := t.status(ctx)
		switch {
		case err == nil && status.Phase == lab.Up:
			printPlaces(out, status)
			return nil
		case errors.Is(err, errNoLab):
			return errors.New("the lab that was running has ended")
		case !waiting:
			fmt.Fprintln(out, "waiting until it is up")
			waiting = true
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// stopWithin is the time a lab gets to stop before it is killed.
const stopWithin = 30 * time.Second

func downCommand(t *target) *cobra.Command {
	return &cobra.Command{
		Use:   "down",
		Short: "Stop the lab and leave nothing running",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			running, err := lab.Down(cmd.Context(), t.dir, stopWithin)
			if err != nil {
				return err
			}
			if running {
				fmt.Fprintf(cmd.OutOrStdout(), "The lab in %s has stopped; nothing is left running.\n", t.dir)
			} else {
				fmt.Fprintf(cmd.OutOrStdout(), "No lab runs in %s.\n", t.dir)
			}
			return nil
		},
	}
}
