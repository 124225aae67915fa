// Command fairway is the operator's command line.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

// version identifies the build; the linker sets it.
var version = "development"

// Exit statuses, documented in `fairway --help`.
const (
	exitFailed      = 1
	exitUsage       = 2
	exitUnreachable = 3
	exitChanges     = 4
	exitInterrupted = 130
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := root().ExecuteContext(ctx)
	interrupted := ctx.Err() != nil
	stop()
	if err == nil {
		return
	}
	if interrupted {
		os.Exit(exitInterrupted)
	}
	fmt.Fprintf(os.Stderr, "fairway: %v\n", err)
	var status *statusError
	if errors.As(err, &status) {
		os.Exit(status.status)
	}
	os.Exit(exitFailed)
}

// statusError is an error that decides the exit status.
type statusError struct {
	status int
	err    error
	// kind is that of the worker's error, such as workflows.PoolNotFound.
	kind string
}

func (e *statusError) Error() string { return e.err.Error() }
func (e *statusError) Unwrap() error { return e.err }

func usage(err error) error { return &statusError{status: exitUsage, err: err} }

func unreachable(format string, args ...any) error {
	return &statusError{status: exitUnreachable, err: fmt.Errorf(format, args...)}
}
