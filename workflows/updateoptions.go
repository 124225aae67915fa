package workflows

import (
	"slices"
	"time"

	"go.temporal.io/sdk/workflow"
)

// looking is for what an update asks before it changes anything. What does not answer for a moment is
// no failure, which would hold up the clusters that come after; for long it is.
func looking(ctx workflow.Context, summary string) workflow.Context {
	ctx = decided(changing(ctx, summary))
	options := workflow.GetActivityOptions(ctx)
	options.ScheduleToCloseTimeout = unreachableWithin
	options.RetryPolicy.NonRetryableErrorTypes = append(slices.Clone(beyondRetry), AccessDenied)
	return workflow.WithActivityOptions(ctx, options)
}

// unreachableWithin is for how long more nobody may know how a cluster does. One whose API server does
// not answer is not healthy either.
const unreachableWithin = 10 * time.Minute

// requesting is for what makes many requests and does not heartbeat.
func requesting(ctx workflow.Context, summary string) workflow.Context {
	ctx = changing(ctx, summary)
	options := workflow.GetActivityOptions(ctx)
	options.StartToCloseTimeout = 10 * time.Minute
	return decided(workflow.WithActivityOptions(ctx, options))
}

// applying is for what an update changes and waits for. It heartbeats.
func applying(ctx workflow.Context, summary string) workflow.Context {
	return decided(watching(ctx, summary, forEver))
}

// decided gives up on errors that are final.
func decided(ctx workflow.Context) workflow.Context {
	options := workflow.GetActivityOptions(ctx)
	policy := *patient
	policy.NonRetryableErrorTypes = beyondRetry
	options.RetryPolicy = &policy
	return workflow.WithActivityOptions(ctx, options)
}

// beyondRetry are errors of what an update changes that somebody has to mend first.
var beyondRetry = []string{StackFailed, Conflict, Unhealthy, VersionGone, InvalidInput, ClusterNotFound}
