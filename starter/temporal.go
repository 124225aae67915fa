package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/google/uuid"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/contrib/envconfig"
	"go.temporal.io/sdk/log"
	"go.temporal.io/sdk/temporal"

	"github.com/fairway-project/fairway/workflows"
)

// connection is a client together with where it leads, for messages.
type connection struct {
	client.Client
	address, namespace, taskQueue string
}

func (c *cli) connect(ctx context.Context) (*connection, error) {
	queue, err := c.taskQueue()
	if err != nil {
		return nil, err
	}
	options, err := envconfig.LoadDefaultClientOptions()
	if err != nil {
		return nil, usage(fmt.Errorf("reading Temporal's settings: %w", err))
	}
	if options.HostPort == "" {
		options.HostPort = client.DefaultHostPort
	}
	if options.Namespace == "" {
		options.Namespace = client.DefaultNamespace
	}
	options.Logger = log.NewStructuredLogger(slog.New(slog.NewTextHandler(io.Discard, nil)))
	dial, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	dialled, err := client.DialContext(dial, options)
	if err != nil {
		return nil, unreachable("Temporal does not answer at %s: %w; set TEMPORAL_ADDRESS", options.HostPort, err)
	}
	return &connection{Client: dialled, address: options.HostPort, namespace: options.Namespace, taskQueue: queue}, nil
}

// ask has the worker run one activity and returns its answer. It tries once: somebody waits.
func (c *connection) ask(ctx context.Context, activity string, in, out any) error {
	return c.askWithin(ctx, 20*time.Second, 0, activity, in, out)
}

// askLong asks for what may take minutes and heartbeats, so that a worker that dies is noticed.
func (c *connection) askLong(ctx context.Context, activity string, in, out any) error {
	return c.askWithin(ctx, askedLong, 30*time.Second, activity, in, out)
}

// askedLong bounds what may take minutes, such as a plan of a stack.
const askedLong = 10 * time.Minute

func (c *connection) askWithin(ctx context.Context, within, heartbeat time.Duration, activity string, in, out any) error {
	handle, err := c.ExecuteActivity(ctx, client.StartActivityOptions{
		ID:                     "ask/" + activity + "/" + uuid.NewString(),
		TaskQueue:              c.taskQueue,
		ScheduleToStartTimeout: 5 * time.Second,
		StartToCloseTimeout:    within,
		HeartbeatTimeout:       heartbeat,
		RetryPolicy:            &temporal.RetryPolicy{MaximumAttempts: 1},
		Summary:                "asked by the command line",
	}, activity, in)
	if err != nil {
		return c.explain(err)
	}
	err = handle.Get(ctx, out)
	if err != nil && ctx.Err() != nil { // whoever asked is gone; so should the work be
		soon, done := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer done()
		_ = handle.Cancel(soon, client.CancelActivityOptions{Reason: "nobody waits for it any more"})
	}
	return c.explain(err)
}

// query asks a workflow something, for at most a few seconds. A workflow that does not exist is
// found to be so; everything else that goes wrong is an error.
func (c *connection) query(ctx context.Context, id, run, query string, out any) (exists bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	answer, err := c.QueryWorkflow(ctx, id, run, query)
	if unknown := (*serviceerror.NotFound)(nil); errors.As(err, &unknown) {
		return false, nil
	}
	if err == nil {
		err = answer.Get(out)
	}
	if refused := (*serviceerror.QueryFailed)(nil); err != nil && !errors.As(err, &refused) {
		return true, unreachable("workflow %s does not answer: %w; is fairway-worker running?", id, err)
	}
	if err != nil {
		return true, fmt.Errorf("asking workflow %s: %w", id, err)
	}
	return true, nil
}

// explain turns an error of the worker's or of Temporal's into one for people, with its status.
func (c *connection) explain(err error) error {
	var application *temporal.ApplicationError
	var timeout *temporal.TimeoutError
	var nowhere *serviceerror.NamespaceNotFound
	switch {
	case err == nil:
		return nil
	case errors.As(err, &application):
		status := exitUsage
		switch application.Type() {
		case workflows.Unreachable:
			status = exitUnreachable
		case workflows.BadReplacement, workflows.Detached, workflows.NoCapacity, workflows.LaunchFailing, workflows.PoolBusy,
			workflows.StackFailed, workflows.Conflict, workflows.Unhealthy, "":
			status = exitFailed
		}
		return &statusError{status: status, kind: application.Type(), err: errors.New(application.Message())}
	case errors.As(err, &timeout) && timeout.TimeoutType() == enumspb.TIMEOUT_TYPE_SCHEDULE_TO_START:
		return unreachable("no worker took the question within 5 s: is fairway-worker running on task queue %q in namespace %q of %s?", c.taskQueue, c.namespace, c.address)
	case errors.As(err, &timeout):
		return unreachable("a worker took the question and did not answer it in time; its log may say why")
	case errors.As(err, &nowhere):
		return usage(fmt.Errorf("there is no namespace %q on Temporal at %s; set TEMPORAL_NAMESPACE", c.namespace, c.address))
	default:
		return err
	}
}
