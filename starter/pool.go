package main

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/fairway-project/fairway/workflows"
)

func (c *cli) poolCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "pool", Short: "Roll and empty node pools, and see what would hold that up"}
	cmd.AddCommand(c.poolRollCommand(), c.poolEmptyCommand(), c.poolPreflightCommand())
	return cmd
}

// rollFlags are those of all commands that replace nodes.
type rollFlags struct {
	wait, dryRun bool
	reason       string
}

func (f *rollFlags) on(cmd *cobra.Command, until string) {
	cmd.Flags().BoolVar(&f.wait, "wait", false, "show progress until "+until)
	cmd.Flags().BoolVar(&f.dryRun, "dry-run", false, "say what would be done, and change nothing")
	cmd.Flags().StringVar(&f.reason, "reason", "", "why, for those who look later")
}

func (c *cli) poolRollCommand() *cobra.Command {
	var flags rollFlags
	var in workflows.RollPoolInput
	var oldest time.Duration
	cmd := &cobra.Command{
		Use:   "roll CLUSTER POOL",
		Short: "Replace the old nodes of a pool by new ones, without hurting what runs on them",
		Long: `Replace the old nodes of a pool by new ones, without hurting what runs on them.

A node is old if its instance was launched from another version of the launch template than the
pool's Auto Scaling group uses now, or if it has reached --max-age (default: roll.max_node_age of
fairway.yaml); --all takes every node, --node only those named. Which nodes that are is decided
at the beginning.

One node goes alone, its replacement is watched for a while, then batches grow up to
roll.parallel. A node that cannot be emptied in time is put in quarantine and taken up again last.
If the roll is cancelled or fails, the nodes not yet replaced are usable and the pool has its size.

--dry-run decides as the roll itself does and prints the batches, how long they may take, and the
pods that would hold them up. The work goes on in the worker when this command ends; --wait only
watches it.`,
		Example: `  fairway pool roll dev-1 worker --dry-run
  fairway pool roll dev-1 worker --wait --reason "new image"
  fairway pool roll dev-1 worker --all
  fairway pool roll dev-1 worker --max-age 720h
  fairway pool roll dev-1 worker --node ip-10-0-1-23.eu-central-1.compute.internal --node ip-10-0-2-7.eu-central-1.compute.internal`,
		Args:              cobra.ExactArgs(2),
		ValidArgsFunction: c.completePool,
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("max-age") {
				in.MaxAge = oldest.String()
			}
			if len(in.Nodes) > 0 && (in.All || in.MaxAge != "") {
				return usage(errors.New("--node names all that is replaced; leave out --all and --max-age"))
			}
			conn, err := c.connect(cmd.Context())
			if err != nil {
				return err
			}
			defer conn.Close()
			in.Cluster, in.Pool, in.Reason = args[0], args[1], flags.reason
			return c.roll(cmd, conn, in, flags)
		},
	}
	flags.on(cmd, "all nodes are replaced")
	cmd.Flags().BoolVar(&in.All, "all", false, "replace every node, old or not")
	cmd.Flags().StringArrayVar(&in.Nodes, "node", nil, "replace only this node, old or not; may be given several times")
	cmd.Flags().DurationVar(&oldest, "max-age", 0, "replace nodes of that age too, such as 720h")
	_ = cmd.RegisterFlagCompletionFunc("node", c.completeNodeOfPool)
	return cmd
}

func (c *cli) poolEmptyCommand() *cobra.Command {
	var flags rollFlags
	var yes bool
	cmd := &cobra.Command{
		Use:   "empty CLUSTER POOL",
		Short: "Remove all nodes of a pool, without hurting what runs on them; none comes back",
		Long: `Remove all nodes of a pool, without hurting what runs on them; none comes back.

The nodes are emptied as "fairway pool roll" does it, and ended. The minimum and the desired size
of the pool's Auto Scaling group become 0 and stay so. The group itself, its launch template and
the registry are left as they are. Pods need room in other pools: without it they stay pending,
and their budgets hold the rest.

If it is cancelled or fails, the pool gets its size back. It asks for the pool's name to be typed;
--yes does without.`,
		Example: `  fairway pool empty dev-1 worker --dry-run
  fairway pool empty dev-1 worker --reason "moved to pool general" --wait
  fairway pool empty dev-1 worker --reason "moved to pool general" --yes`,
		Args:              cobra.ExactArgs(2),
		ValidArgsFunction: c.completePool,
		RunE: func(cmd *cobra.Command, args []string) error {
			if strings.TrimSpace(flags.reason) == "" && !flags.dryRun {
				return usage(errors.New("--reason is missing: others will ask why the pool is empty"))
			}
			conn, err := c.connect(cmd.Context())
			if err != nil {
				return err
			}
			defer conn.Close()
			if !flags.dryRun && !yes {
				if err := confirm(cmd, "the pool's name", args[1], fmt.Sprintf("All nodes of pool %s in cluster %s are emptied and ended. The pool's minimum becomes 0, and no node comes back.", args[1], args[0])); err != nil {
					return err
				}
			}
			return c.roll(cmd, conn, workflows.RollPoolInput{Cluster: args[0], Pool: args[1], Remove: true, Reason: flags.reason}, flags)
		},
	}
	flags.on(cmd, "the pool is empty")
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask for the pool's name")
	return cmd
}

// confirm has somebody at a terminal type a name, after saying what will be done.
func confirm(cmd *cobra.Command, what, name, text string) error {
	if !term.IsTerminal(int(os.Stdin.Fd())) {
		return usage(fmt.Errorf("nobody is there to confirm it; do so with --yes: %s", text))
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "%s\nType %s to go on: ", text, what)
	typed, err := bufio.NewReader(cmd.InOrStdin()).ReadString('\n')
	if err != nil || strings.TrimSpace(typed) != name {
		return usage(fmt.Errorf("that is not %s; nothing has been changed", what))
	}
	return nil
}

// roll starts a roll, or says what it would do. What is wrong is said here and now, by the same
// rules by which the workflow decides.
func (c *cli) roll(cmd *cobra.Command, conn *connection, in workflows.RollPoolInput, flags rollFlags) error {
	plan, err := conn.planRoll(cmd.Context(), in)
	if err != nil {
		return err
	}
	if flags.dryRun || len(plan.Nodes)+len(plan.NoNodes) == 0 {
		if len(plan.Nodes) > 0 {
			if err := conn.foresee(cmd.Context(), &plan); err != nil {
				return err
			}
		}
		return c.print(cmd.OutOrStdout(), plan, plan.show)
	}
	in.Cluster, in.By = plan.Cluster, whoami()
	run, err := conn.startRoll(cmd.Context(), in)
	if err != nil {
		return err
	}
	if flags.wait {
		return c.follow(cmd, conn, run, plan)
	}
	return c.print(cmd.OutOrStdout(), map[string]string{"workflow": run.GetID(), "run": run.GetRunID()}, func(t *table) {
		switch {
		case in.Remove:
			t.line("Pool %s is being emptied of its %d nodes by workflow %s. Its minimum becomes 0; no node comes back.", in.Pool, len(plan.Nodes), run.GetID())
		case len(plan.Nodes) == 1:
			t.line("The replacement of %s is under way as workflow %s.", plan.Nodes[0].Name, run.GetID())
		default:
			t.line("The roll of %d nodes is under way as workflow %s.", len(plan.Nodes), run.GetID())
		}
		t.line("`fairway status` shows how far it is.")
	})
}

// completePool offers a cluster, and then its pools.
func (c *cli) completePool(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
	if len(args) != 1 {
		return c.completeCluster(cmd, args, prefix)
	}
	return c.completeFromNodes(cmd, args[0], func(node workflows.Node) string { return node.Pool })
}

// completePoolFlag offers the pools of the cluster that is the first argument.
func (c *cli) completePoolFlag(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
	if len(args) == 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return c.completePool(cmd, args[:1], prefix)
}

// completeNodeOfPool offers the nodes of the pool that is the second argument.
func (c *cli) completeNodeOfPool(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) < 2 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return c.completeFromNodes(cmd, args[0], func(node workflows.Node) string {
		if node.Pool != args[1] {
			return ""
		}
		return node.Name
	})
}

// completeFromNodes offers what the nodes of a cluster say, once each.
func (c *cli) completeFromNodes(cmd *cobra.Command, cluster string, get func(workflows.Node) string) ([]string, cobra.ShellCompDirective) {
	conn, err := c.connect(cmd.Context())
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	defer conn.Close()
	var nodes []workflows.Node
	if err := conn.ask(cmd.Context(), "ListNodes", workflows.ListNodes{Cluster: cluster}, &nodes); err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	var out []string
	for _, node := range nodes {
		if text := get(node); text != "" {
			out = append(out, text)
		}
	}
	slices.SortFunc(out, cmp.Compare[string])
	return slices.Compact(out), cobra.ShellCompDirectiveNoFileComp
}
