package workflows

import (
	"errors"
	"slices"
	"time"

	"go.temporal.io/sdk/temporal"
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

// requesting is for what makes many requests. Where it does not heartbeat, a killed worker is noticed at
// the end of its time only.
func requesting(ctx workflow.Context, summary string) workflow.Context {
	ctx = changing(ctx, summary)
	options := workflow.GetActivityOptions(ctx)
	options.StartToCloseTimeout = 10 * time.Minute
	return decided(workflow.WithActivityOptions(ctx, options))
}

// beating is for requests of what heartbeats, so that a killed worker is noticed soon.
func beating(ctx workflow.Context, summary string) workflow.Context {
	ctx = requesting(ctx, summary)
	options := workflow.GetActivityOptions(ctx)
	options.HeartbeatTimeout = heartbeatTimeout
	return workflow.WithActivityOptions(ctx, options)
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

// Once something has begun, what does not answer may take longer to come back than before it, but a right
// that is missing, or a dead webhook, is a failure in the end: people have to know, and others get the turn.
const (
	unansweredWithin = 30 * time.Minute
	deniedWithin     = 5 * time.Minute // credentials may be refused for a moment
)

// carryOn runs an activity until it has an outcome, or has been unreachable or denied for too long. No
// retry policy can do that: it counts the time of blocks, which have no end, and of stacks that take an
// hour. So the policy still retries all else, which costs no history, and these failures come back to the
// workflow, few of them, because the pauses grow. The time counts from the first of them on. An attempt
// that lasted that long itself was no silence, and begins it anew.
func carryOn(ctx workflow.Context, activity string, in, out any) error {
	options := workflow.GetActivityOptions(ctx)
	policy := *options.RetryPolicy
	policy.NonRetryableErrorTypes = append(slices.Clone(policy.NonRetryableErrorTypes), AccessDenied, Unreachable)
	options.RetryPolicy = &policy
	trying := workflow.WithActivityOptions(ctx, options)
	var since time.Time
	for pause := time.Second; ; pause = min(2*pause, 2*time.Minute) {
		began := workflow.Now(ctx)
		err := workflow.ExecuteActivity(trying, activity, in).Get(ctx, out)
		within := unansweredWithin
		switch {
		case isKind(err, AccessDenied):
			within = deniedWithin
		case !isKind(err, Unreachable):
			return err
		}
		now := workflow.Now(ctx)
		if since.IsZero() || now.Sub(began) >= within || isBenign(err) { // a worker that stops is no failure, however many do
			since, pause = now, time.Second
		}
		if now.Add(pause).Sub(since) > within {
			return err
		}
		if err := workflow.NewTimerWithOptions(ctx, pause, workflow.TimerOptions{Summary: "it was " + kindOf(err) + ", so try again"}).Get(ctx, nil); err != nil {
			return err
		}
	}
}

func isBenign(err error) bool {
	var application *temporal.ApplicationError
	return errors.As(err, &application) && application.Category() == temporal.ApplicationErrorCategoryBenign
}
