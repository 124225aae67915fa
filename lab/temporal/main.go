// Command temporal-lab is a Temporal server with its Web UI on one SQLite file, for the lab:
// it keeps its state over a crash, comes back on the same ports and listens on 127.0.0.1 only.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"go.temporal.io/server/common/log"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

func main() {
	options, err := parseOptions(os.Args[1:], os.Stderr)
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "temporal-lab:", err)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := run(ctx, options); err != nil {
		fmt.Fprintln(os.Stderr, "temporal-lab:", err)
		os.Exit(1)
	}
}

// run serves until ctx ends. The Web UI starts last: once it answers, everything does.
func run(ctx context.Context, options options) error {
	for _, port := range []int{options.port, options.uiPort} {
		if err := awaitFree(ctx, port); err != nil {
			return err
		}
	}
	logger, err := newLogger(options.logLevel)
	if err != nil {
		return fmt.Errorf("opening the log: %w", err)
	}
	if err := prepareDatabase(ctx, options, logger); err != nil {
		return err
	}
	server, err := newServer(options, logger)
	if err != nil {
		return fmt.Errorf("preparing the Temporal server: %w", err)
	}
	if err := server.Start(); err != nil {
		return fmt.Errorf("starting the Temporal server: %w", err)
	}
	ui := newUI(options)
	served := make(chan error, 1)
	go func() { served <- ui.Start() }()
	fmt.Fprintf(os.Stderr, "temporal-lab: Temporal on %s, Web UI on http://%s, namespace %s in %s\n",
		loopback(options.port), loopback(options.uiPort), options.namespace, options.database)

	select {
	case err = <-served:
	case <-ctx.Done():
		ui.Stop()
		err = <-served
	}
	if err != nil {
		err = fmt.Errorf("serving the Web UI: %w", err)
	}
	if stopErr := server.Stop(); stopErr != nil {
		err = errors.Join(err, fmt.Errorf("stopping the Temporal server: %w", stopErr))
	}
	return err
}

// newLogger leaves out stack traces: the server logs an error for every call that a stop cuts
// off, and what the lab shows of a dead part is the end of this log.
func newLogger(level string) (log.Logger, error) {
	parsed, err := zap.ParseAtomicLevel(level)
	if err != nil {
		return nil, err
	}
	config := zap.NewProductionConfig()
	config.Level = parsed
	config.Sampling = nil
	config.DisableCaller = true // the server adds its own
	config.DisableStacktrace = true
	config.EncoderConfig.EncodeTime = zapcore.ISO8601TimeEncoder
	logger, err := config.Build()
	if err != nil {
		return nil, err
	}
	return log.NewZapLogger(logger), nil
}
