// Command fairway-worker carries out Fairway's workflows and activities.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/fairway-project/fairway/config"
)

// version identifies the build; the linker sets it. It is the build id of the worker deployment,
// so two builds that behave differently must not share one.
var version = "development"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := command().ExecuteContext(ctx); err != nil {
		fmt.Fprintf(os.Stderr, "fairway-worker: %v\n", err)
		var usage *usageError
		if errors.As(err, &usage) {
			os.Exit(2)
		}
		os.Exit(1)
	}
}

// usageError is wrong input, as opposed to something that failed.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

func command() *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use:   "fairway-worker",
		Short: "Carries out Fairway's workflows and activities",
		Long: `Carries out Fairway's workflows and activities until it is told to stop (SIGTERM or
Ctrl-C); then it hands over what is under way and exits.

Temporal is found by the TEMPORAL_* environment variables or Temporal's own configuration
file, everything else by fairway.yaml. Exit status: 0 after a stop, 1 after a failure, 2 if the
configuration is wrong.`,
		Example: `  TEMPORAL_ADDRESS=127.0.0.1:7233 fairway-worker --config fairway.yaml
  FAIRWAY_CONFIG=fairway.yaml fairway-worker`,
		Args:          cobra.NoArgs,
		Version:       version,
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := config.Load(path)
			if err != nil {
				return &usageError{err}
			}
			return run(cmd.Context(), c)
		},
	}
	cmd.Flags().StringVar(&path, "config", "", "path of fairway.yaml (default: $FAIRWAY_CONFIG)")
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &usageError{err} })
	return cmd
}
