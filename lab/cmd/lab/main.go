// Command lab starts and stops the lab of Fairway, and disturbs it.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/fairway-project/fairway/lab"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	if err := newCommand().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "lab:", err)
		os.Exit(1)
	}
}

func newCommand() *cobra.Command {
	var t target
	command := &cobra.Command{
		Use:   "lab",
		Short: "Run everything outside of Fairway for real on this machine",
		Long: `The lab is Temporal with its web UI, Kubernetes control planes with simulated kubelets, an AWS
endpoint and a forge with the sample fleet in them. "lab up" runs it, and after ". .lab/env"
every ordinary tool talks to it.`,
		Example: `  lab up --detach                        start the lab and leave it running
  lab status                             what runs, where, and what is disturbed
  lab kill temporal                      kill -9 a part; "lab restart temporal" brings it back
  lab fault kubernetes/dev-1 cut --for 1m
  lab logs kubernetes/dev-1/kube-apiserver --follow
  lab down`,
		SilenceUsage:      true,
		SilenceErrors:     true,
		PersistentPreRunE: func(*cobra.Command, []string) error { return t.setDefault() },
	}
	command.PersistentFlags().StringVar(&t.dir, "dir", "", "directory of the lab's state, logs and sockets (default .lab in the repository)")
	command.AddCommand(upCommand(&t), demoCommand(&t), buildCommand(), downCommand(&t), statusCommand(&t), logsCommand(&t), faultCommand(&t))
	for _, action := range partActions {
		command.AddCommand(partCommand(&t, action))
	}
	return command
}

// target is the lab that a command is about.
type target struct{ dir string }

func (t *target) setDefault() (err error) {
	if t.dir == "" {
		t.dir, err = lab.DefaultDir()
	} else {
		t.dir, err = filepath.Abs(t.dir)
	}
	return err
}

func (t *target) client() *lab.Client { return lab.NewClient(filepath.Join(t.dir, "lab.sock")) }

// status describes the lab if one runs.
func (t *target) status(ctx context.Context) (lab.Status, error) {
	status, err := t.client().Status(ctx)
	if err != nil {
		if _, held, heldErr := lab.Held(t.dir); heldErr == nil && !held {
			return status, fmt.Errorf("%w in %s; start one with `make lab` or `lab up`", errNoLab, t.dir)
		}
	}
	return status, err
}

var errNoLab = errors.New("no lab runs")
