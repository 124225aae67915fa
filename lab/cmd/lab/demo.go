package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/fairway-project/fairway/lab"
)

func buildCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "build",
		Short: "Build what the lab consists of, and start nothing",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := lab.Prepare(cmd.Context(), cmd.OutOrStdout()); err != nil {
				return err
			}
			return lab.PreparePrometheus(cmd.Context(), cmd.OutOrStdout())
		},
	}
}

func demoCommand(t *target) *cobra.Command {
	var bin string
	command := &cobra.Command{
		Use:   "demo",
		Short: "Start the lab and Fairway's worker; a node is replaced and a commit travels before your eyes",
		Long: `Start the lab and Fairway's worker on it, replace a node of the sample fleet with progress in
the terminal, push a commit to the channel dev and follow it into both of its clusters, have it promoted from
there on, say where to look, and leave everything running until Ctrl-C.`,
		Example: "  lab demo --bin bin",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if pid, held, err := lab.Held(t.dir); err != nil || held {
				if err == nil {
					err = fmt.Errorf("a lab runs in %s already (process %d); end it with `make lab-down` first", t.dir, pid)
				}
				return err
			}
			return t.run(cmd.Context(), cmd.OutOrStdout(), lab.Options{Dir: t.dir, Out: cmd.OutOrStdout()}, func(ctx context.Context, l *lab.Lab) error {
				return demonstrate(ctx, cmd.OutOrStdout(), l, bin)
			})
		},
	}
	command.Flags().StringVar(&bin, "bin", "bin", "folder of fairway and fairway-worker")
	return command
}

func demonstrate(ctx context.Context, out io.Writer, l *lab.Lab, bin string) error {
	bin, err := filepath.Abs(bin)
	if err != nil {
		return err
	}
	var env []string
	for name, value := range l.Env() {
		env = append(env, name+"="+value)
	}
	if _, err := l.Run(ctx, lab.Process{
		Name:    "fairway-worker",
		Command: []string{filepath.Join(bin, "fairway-worker")},
		Env:     env,
		Ready:   func(ctx context.Context) error { return answers(ctx, "http://"+l.WorkerAddress()+"/readyz") },
	}); err != nil {
		return err
	}
	fmt.Fprintln(out, "Fairway's worker is up.")

	fairway := func(stdout io.Writer, args ...string) error {
		cmd := exec.CommandContext(ctx, filepath.Join(bin, "fairway"), args...)
		cmd.Env = append(os.Environ(), env...)
		cmd.Stdout, cmd.Stderr = stdout, os.Stderr
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("fairway %v: %w", args, err)
		}
		return nil
	}
	show := func(args ...string) error {
		fmt.Fprint(out, "\n$ fairway")
		for _, arg := range args {
			fmt.Fprint(out, " ", arg)
		}
		fmt.Fprintln(out)
		return fairway(out, args...)
	}
	const cluster = "dev-1"
	node, err := firstWorker(fairway, cluster)
	if err != nil {
		return err
	}
	for _, args := range [][]string{
		{"cluster", "list"},
		{"node", "list", cluster},
		{"node", "replace", cluster, node, "--wait", "--reason", "demo"},
		{"node", "list", cluster},
	} {
		if err := show(args...); err != nil {
			return err
		}
	}
	quietly := func(stdout io.Writer, args ...string) error {
		cmd := exec.CommandContext(ctx, filepath.Join(bin, "fairway"), args...)
		cmd.Env, cmd.Stdout = append(os.Environ(), env...), stdout
		return cmd.Run()
	}
	if err := travel(ctx, out, l, quietly, show); err != nil {
		return err
	}
	if err := show("schedule", "apply"); err != nil {
		return err
	}
	fmt.Fprintf(out, `
From now on what has soaked on dev for a minute gets to alpha by itself. What has soaked there for two minutes
gets a pull request to stable, which waits for your approval.

Look around:
  the workflows that did it     %s/namespaces/fairway/workflows
  the worker's log              %s
In another terminal:
%sEverything runs until Ctrl-C.
`, l.TemporalUIURL(), shortPath(l.Part("fairway-worker").Log()), things(l.EnvFile()))
	return nil
}

// things are what to try on a lab with a worker, as commands.
func things(env string) string {
	return fmt.Sprintf(`  . %s
  bin/fairway status --watch
  bin/fairway channel describe dev
  bin/fairway promote dev alpha --dry-run         # how far the commit is on its way to alpha
  bin/fairway promotion list                      # has the number of the pull request; approve it, here number 1:
  curl --json '{"event": "APPROVED"}' -H "Authorization: token $FORGE_REVIEWER_TOKEN" $FORGE_URL/api/v1/repos/fairway/config/pulls/1/reviews
  bin/fairway cluster plan alpha-1 --ref dev      # what would change if alpha-1 followed dev
  bin/fairway cluster rollback dev-1 --reason "I prefer it as it was" --wait    # nothing of dev soaks any more, until:
  bin/fairway cluster update dev-1 --reason "on again" --wait
  bin/fairway fleet block --reason "nothing moves" --for 10m
  git clone http://author:$FORGE_AUTHOR_TOKEN@${FORGE_URL#http://}/fairway/config.git      # and push to dev yourself
  bin/fairway e2e run --ref dev..my-branch --wait --yes      # or have a branch that you have pushed tested, on a cluster of its own
  .lab/bin/kubectl --context dev-1 get nodes
`, shortPath(env))
}

// firstWorker picks a node whose pods are free to move.
func firstWorker(fairway func(io.Writer, ...string) error, cluster string) (string, error) {
	reader, writer := io.Pipe()
	go func() { writer.CloseWithError(fairway(writer, "node", "list", cluster, "-o", "json")) }()
	var nodes []struct{ Name, Pool string }
	if err := json.NewDecoder(reader).Decode(&nodes); err != nil {
		return "", fmt.Errorf("reading the nodes of %s: %w", cluster, err)
	}
	for _, node := range nodes {
		if node.Pool == "worker" {
			return node.Name, nil
		}
	}
	return "", fmt.Errorf("cluster %s has no node in pool worker", cluster)
}

func answers(ctx context.Context, url string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s", url, response.Status)
	}
	return nil
}
