// Package activitytest runs single activities in tests the way a worker runs them.
package activitytest

import (
	"context"
	"time"

	"go.temporal.io/sdk/interceptor"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/worker"
)

// Worker is what an activity sees of the worker that runs it. The zero value runs on undisturbed.
type Worker struct {
	// Context is the parent of the activity's; its end cancels the activity. Default: never.
	Context context.Context
	// Stopping is closed when the worker stops.
	Stopping chan struct{}
	// Heartbeat gets each thing that the activity heartbeats, when it does: Temporal's own test
	// environment passes on one in 30 s. It is called by the activity, which waits for it.
	Heartbeat func(details any)
}

// Run runs an activity and reads its result into out, a pointer, unless that is nil. The error is
// what the activity's caller gets. A run that takes longer than two minutes fails.
func (w Worker) Run(activity, in, out any) error {
	var suite testsuite.WorkflowTestSuite
	env := suite.NewTestActivityEnvironment()
	env.SetTestTimeout(2 * time.Minute)
	options := worker.Options{BackgroundActivityContext: w.Context}
	if w.Heartbeat != nil {
		options.Interceptors = []interceptor.WorkerInterceptor{&listener{heard: w.Heartbeat}}
	}
	env.SetWorkerOptions(options)
	if w.Stopping != nil {
		env.SetWorkerStopChannel(w.Stopping)
	}
	env.RegisterActivity(activity)
	value, err := env.ExecuteActivity(activity, in)
	if err != nil || out == nil {
		return err
	}
	return value.Get(out)
}

// listener puts itself between activities and Temporal.
type listener struct {
	interceptor.WorkerInterceptorBase
	heard func(details any)
}

func (l *listener) InterceptActivity(_ context.Context, next interceptor.ActivityInboundInterceptor) interceptor.ActivityInboundInterceptor {
	return &inbound{interceptor.ActivityInboundInterceptorBase{Next: next}, l.heard}
}

type inbound struct {
	interceptor.ActivityInboundInterceptorBase
	heard func(details any)
}

func (i *inbound) Init(next interceptor.ActivityOutboundInterceptor) error {
	return i.Next.Init(&outbound{interceptor.ActivityOutboundInterceptorBase{Next: next}, i.heard})
}

type outbound struct {
	interceptor.ActivityOutboundInterceptorBase
	heard func(details any)
}

func (o *outbound) RecordHeartbeat(ctx context.Context, details ...any) {
	for _, detail := range details {
		o.heard(detail)
	}
	o.Next.RecordHeartbeat(ctx, details...)
}
