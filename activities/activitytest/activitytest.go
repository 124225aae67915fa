// Package activitytest runs single activities in tests the way a worker runs them.
package activitytest

import (
	"cmp"
	"context"
	"sync"
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
	// Heartbeat gets each thing that the activity heartbeats, when it does, one after another:
	// Temporal's own test environment passes on one in 30 s. The activity waits for it.
	Heartbeat func(details any)
}

// patience is how long an activity may take before it is cancelled.
const patience = 2 * time.Minute

// Run runs an activity and reads its result into out, a pointer, unless that is nil. The error is
// what the activity's caller gets. After two minutes the activity is cancelled.
func (w Worker) Run(activity, in, out any) error {
	ctx, cancel := context.WithTimeout(cmp.Or(w.Context, context.Background()), patience)
	defer cancel()
	var suite testsuite.WorkflowTestSuite
	env := suite.NewTestActivityEnvironment()
	options := worker.Options{BackgroundActivityContext: ctx}
	if w.Heartbeat != nil {
		options.Interceptors = []interceptor.WorkerInterceptor{&listener{hear: oneByOne(w.Heartbeat)}}
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

func oneByOne(hear func(any)) func(any) {
	var mu sync.Mutex
	return func(details any) {
		mu.Lock()
		defer mu.Unlock()
		hear(details)
	}
}

// listener puts itself between activities and Temporal.
type listener struct {
	interceptor.WorkerInterceptorBase
	hear func(details any)
}

func (l *listener) InterceptActivity(_ context.Context, next interceptor.ActivityInboundInterceptor) interceptor.ActivityInboundInterceptor {
	return &inbound{interceptor.ActivityInboundInterceptorBase{Next: next}, l.hear}
}

type inbound struct {
	interceptor.ActivityInboundInterceptorBase
	hear func(details any)
}

func (i *inbound) Init(next interceptor.ActivityOutboundInterceptor) error {
	return i.Next.Init(&outbound{interceptor.ActivityOutboundInterceptorBase{Next: next}, i.hear})
}

type outbound struct {
	interceptor.ActivityOutboundInterceptorBase
	hear func(details any)
}

func (o *outbound) RecordHeartbeat(ctx context.Context, details ...any) {
	for _, detail := range details {
		o.hear(detail)
	}
	o.Next.RecordHeartbeat(ctx, details...)
}
