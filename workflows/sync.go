package workflows

import (
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"
)

// SyncID is the id of the Temporal Schedule that starts Sync, and what the ids of its runs begin with.
const SyncID = "sync"

// Sync looks once at the registry and at the heads of the channels, and tells the channels' actors
// what is new. If that fails, the next run of the schedule does it.
func Sync(ctx workflow.Context, in SyncFleet) (SyncResult, error) {
	ctx = workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		StartToCloseTimeout:    5 * time.Minute,
		ScheduleToCloseTimeout: 10 * time.Minute,
		HeartbeatTimeout:       30 * time.Second,
		RetryPolicy: &temporal.RetryPolicy{
			InitialInterval: time.Second, BackoffCoefficient: 2, MaximumAttempts: 4,
			NonRetryableErrorTypes: []string{InvalidInput, AccessDenied},
		},
		Summary: "compare registry and channels with what their actors know",
	})
	var result SyncResult
	err := workflow.ExecuteActivity(ctx, "SyncFleet", in).Get(ctx, &result)
	return result, err
}
