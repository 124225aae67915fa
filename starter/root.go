package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/fairway-project/fairway/config"
)

// cli is what all commands share: the flags, and the way to Temporal.
type cli struct {
	configPath string
	output     string
}

func root() *cobra.Command {
	c := &cli{}
	cmd := &cobra.Command{
		Use:   "fairway",
		Short: "Keeps a fleet of Kubernetes clusters on AWS up to date",
		Long: `Keeps a fleet of Kubernetes clusters on AWS up to date.

The commands speak to Temporal only, which is found by the TEMPORAL_* environment variables or
Temporal's own configuration file; the worker does the work. fairway.yaml is needed only where
it changes the task queue.

Exit status: 0 success, 1 the work failed, 2 wrong usage or input, 3 Temporal, the worker or what
it asks (an API server, AWS) does not answer, 4 something would change (only "cluster plan
--exit-code"), 130 interrupted (work that was started goes on).`,
		Version:       version,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.NoArgs,
		PersistentPreRunE: func(*cobra.Command, []string) error {
			if c.output != "table" && c.output != "json" {
				return usage(fmt.Errorf("--output is %q; must be table or json", c.output))
			}
			return nil
		},
	}
	cmd.PersistentFlags().StringVar(&c.configPath, "config", "", "path of fairway.yaml (default: $FAIRWAY_CONFIG)")
	cmd.PersistentFlags().StringVarP(&c.output, "output", "o", "table", "table or json")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"table", "json"}, cobra.ShellCompDirectiveNoFileComp))
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usage(err) })
	cmd.AddCommand(c.statusCommand(), c.clusterCommand(), c.channelCommand(), c.fleetCommand(), c.nodeCommand(), c.poolCommand(), c.blockersCommand(),
		c.promoteCommand(), c.promotionCommand(), c.scheduleCommand(), c.e2eCommand(), c.sweepCommand(), c.syncCommand(), c.registryCommand(), c.configCommand())
	for _, each := range all(cmd) {
		wrapArgs(each)
		for _, text := range []string{"reason", "for", "limit"} { // the shell would offer files
			_ = each.RegisterFlagCompletionFunc(text, cobra.NoFileCompletions)
		}
	}
	return cmd
}

func all(cmd *cobra.Command) []*cobra.Command {
	out := []*cobra.Command{cmd}
	for _, child := range cmd.Commands() {
		out = append(out, all(child)...)
	}
	return out
}

// wrapArgs makes a wrong number of arguments, wrong combinations of flags, and an unknown subcommand
// usage errors.
func wrapArgs(cmd *cobra.Command) {
	check := cmd.Args
	if check == nil {
		check = cobra.NoArgs
	}
	hint := fmt.Sprintf("usage: %s; see `%s --help`", cmd.UseLine(), cmd.CommandPath())
	if cmd.HasSubCommands() {
		hint = fmt.Sprintf("see `%s --help`", cmd.CommandPath())
		cmd.SuggestionsMinimumDistance = 2
		// What cannot be run itself shows its help for anything, as if a misspelt command had done its work.
		cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
		check = unknownCommand
	}
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		for _, err := range []error{check(cmd, args), cmd.ValidateRequiredFlags(), cmd.ValidateFlagGroups()} {
			if err != nil {
				return usage(fmt.Errorf("%w\n%s", err, hint))
			}
		}
		return nil
	}
}

// unknownCommand refuses arguments of a command that has subcommands, and names those that are similar.
func unknownCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if similar := cmd.SuggestionsFor(args[0]); len(similar) > 0 {
		return fmt.Errorf("%q is no command of %s; did you mean %s?", args[0], cmd.CommandPath(), strings.Join(similar, " or "))
	}
	return fmt.Errorf("%q is no command of %s", args[0], cmd.CommandPath())
}

// taskQueue is the worker's; without a configuration it is the default.
func (c *cli) taskQueue() (string, error) {
	if c.configPath == "" && os.Getenv("FAIRWAY_CONFIG") == "" {
		return config.DefaultTaskQueue, nil
	}
	loaded, err := config.Load(c.configPath)
	if err != nil {
		return "", usage(err)
	}
	return loaded.TaskQueue, nil
}

func (c *cli) configCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "config", Short: "Look at Fairway's configuration"}
	cmd.AddCommand(&cobra.Command{
		Use:     "validate",
		Short:   "Check fairway.yaml and the registry that it names",
		Example: "  fairway config validate --config fairway.yaml",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			loaded, err := config.Load(c.configPath)
			if err != nil {
				return usage(err)
			}
			clusters, err := loaded.Clusters(cmd.Context())
			if err != nil {
				return registryError(err)
			}
			return c.print(cmd.OutOrStdout(), struct {
				Valid    bool `json:"valid"`
				Clusters int  `json:"clusters"`
			}{true, len(clusters)}, func(t *table) { t.line("The configuration is valid; its registry has %d clusters.", len(clusters)) })
		},
	})
	return cmd
}
