package workflows

import (
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"
)

// HealthID is the id of the Temporal Schedule that starts WatchHealth, and what the ids of its runs begin
// with.
const HealthID = "health"

// WatchHealth looks once at the clusters whose health the actors of channels want to know, and tells them.
// If that fails, the next run of the schedule does it.
func WatchHealth(ctx workflow.Context, in LookAtHealth) (LookedAt, error) {
	ctx = workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		StartToCloseTimeout:    10 * time.Minute,
		ScheduleToCloseTimeout: 10 * time.Minute,
		HeartbeatTimeout:       heartbeatTimeout,
		RetryPolicy:            &temporal.RetryPolicy{InitialInterval: time.Second, BackoffCoefficient: 2, MaximumAttempts: 4},
		Summary:                "look at the health of clusters whose channels wait for it",
	})
	var looked LookedAt
	err := workflow.ExecuteActivity(ctx, "LookAtHealth", in).Get(ctx, &looked)
	return looked, err
}
