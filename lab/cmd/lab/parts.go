package main

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/fairway-project/fairway/lab"
)

type partAction struct{ name, short, done string }

var partActions = []partAction{
	{"kill", "Kill a part as a crash would (SIGKILL)", "killed"},
	{"pause", "Pause a part: it keeps its connections and answers nobody (SIGSTOP)", "paused"},
	{"resume", "Resume a paused part", "resumed"},
	{"restart", "Start a part again, alive or dead, and wait until it serves", "restarted"},
}

func partCommand(t *target, action partAction) *cobra.Command {
	return &cobra.Command{
		Use:               action.name + " PART",
		Short:             action.short,
		Example:           "  lab " + action.name + " temporal\n  lab " + action.name + " kubernetes/dev-1/kube-apiserver",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: t.completeParts,
		RunE: func(cmd *cobra.Command, args []string) error {
			if _, err := t.status(cmd.Context()); err != nil {
				return err
			}
			if err := t.client().Part(cmd.Context(), args[0], action.name); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s %s\n", action.done, args[0])
			return nil
		},
	}
}

func (t *target) completeParts(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 || t.setDefault() != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	status, err := t.status(cmd.Context())
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	var names []string
	for _, part := range status.Parts {
		names = append(names, part.Name)
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

func faultCommand(t *target) *cobra.Command {
	var details lab.FaultRequest
	command := &cobra.Command{
		Use:   "fault ENDPOINT cut|blackhole|delay|throttle|heal",
		Short: "Disturb what goes through an endpoint, or heal it",
		Long: `Disturb what goes through an endpoint: temporal, temporal-ui, aws, forge or kubernetes/<cluster>.
  cut        closes all connections and refuses new ones
  blackhole  accepts connections and lets nothing through
  delay      lets answers arrive later by --delay, give or take --jitter
  throttle   limits each connection to --rate bytes per second
  heal       ends all of these
Different faults add up.`,
		Example: `  lab fault aws cut --for 1m
  lab fault temporal delay --delay 300ms --jitter 100ms
  lab fault temporal heal`,
		Args:      cobra.ExactArgs(2),
		ValidArgs: []string{"cut", "blackhole", "delay", "throttle", "heal"},
		RunE: func(cmd *cobra.Command, args []string) error {
			if _, err := t.status(cmd.Context()); err != nil {
				return err
			}
			if err := t.client().Fault(cmd.Context(), args[0], args[1], details); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s: %s\n", args[0], args[1])
			return nil
		},
	}
	flags := command.Flags()
	flags.DurationVar(&details.For.Duration, "for", 0, "heal by itself after this time (default never)")
	flags.DurationVar(&details.Delay.Duration, "delay", 200*time.Millisecond, "of delay: how much later")
	flags.DurationVar(&details.Jitter.Duration, "jitter", 0, "of delay: give or take")
	flags.IntVar(&details.BytesPerSecond, "rate", 10_000, "of throttle: bytes per second")
	return command
}

func logsCommand(t *target) *cobra.Command {
	var follow bool
	var lines int
	command := &cobra.Command{
		Use:   "logs [PART]",
		Short: "Show the log of a part, or of the lab itself",
		Example: `  lab logs
  lab logs temporal --follow
  lab logs kubernetes/dev-1/kube-scheduler --lines 0`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: t.completeParts,
		RunE: func(cmd *cobra.Command, args []string) error {
			part := "lab"
			if len(args) > 0 {
				part = args[0]
			}
			dir := filepath.Join(t.dir, "log")
			if known := logsIn(dir); !slices.Contains(known, part) {
				return fmt.Errorf("no log of %q in %s; there are: %s", part, dir, strings.Join(known, ", "))
			}
			return showLog(cmd.Context(), cmd.OutOrStdout(), filepath.Join(dir, part+".log"), lines, follow)
		},
	}
	command.Flags().BoolVarP(&follow, "follow", "f", false, "go on with what is written from now on")
	command.Flags().IntVarP(&lines, "lines", "n", 100, "begin this many lines before the end; 0 means at the beginning")
	return command
}

func logsIn(dir string) []string {
	var names []string
	_ = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return nil // what cannot be read has no logs to offer
		}
		if name, isLog := strings.CutSuffix(path, ".log"); isLog && !entry.IsDir() {
			name, err = filepath.Rel(dir, name)
			names = append(names, name)
		}
		return err
	})
	return names
}

func showLog(ctx context.Context, out io.Writer, path string, lines int, follow bool) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	content, err := io.ReadAll(file)
	if err != nil {
		return err
	}
	if _, err := out.Write(lastLines(content, lines)); err != nil {
		return err
	}
	if !follow {
		return nil
	}
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, err := io.Copy(out, file); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// lastLines is the end of content, all of it if lines is 0.
func lastLines(content []byte, lines int) []byte {
	if lines <= 0 {
		return content
	}
	for at := len(content) - 1; at > 0; at-- {
		if content[at-1] == '\n' {
			if lines--; lines == 0 {
				return content[at:]
			}
		}
	}
	return content
}
