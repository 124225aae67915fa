package activities

import (
	"context"
	"errors"
	"time"

	"go.temporal.io/sdk/activity"
)

// Working returns a context that ends with the activity, or with ErrStopping as its cause when the worker
// stops. Until the returned function is called the activity heartbeats what say returns: with its own
// context, since the SDK takes the end of a heartbeat's context for the activity's.
func Working(ctx context.Context, say func() any) (context.Context, func()) {
	worked, cancel := context.WithCancelCause(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for again := time.Tick(BeatEvery); ; {
			select {
			case <-worked.Done():
				return
			case <-activity.GetWorkerStopChannel(ctx):
				cancel(ErrStopping)
				return
			case <-again:
				activity.RecordHeartbeat(ctx, say())
			}
		}
	}()
	return worked, func() { cancel(nil); <-done }
}

// Interrupted is err, or ErrStopping in its place where the stop of the worker has ended a context of Working.
func Interrupted(ctx context.Context, err error) error {
	if err != nil && errors.Is(context.Cause(ctx), ErrStopping) {
		return ErrStopping
	}
	return err
}
