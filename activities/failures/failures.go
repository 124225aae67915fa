// Package failures says for workflows what kind of thing is wrong where the configuration repository or its
// forge fails.
package failures

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.temporal.io/sdk/temporal"

	"github.com/fairway-project/fairway/activities"
	"github.com/fairway-project/fairway/channels"
	"github.com/fairway-project/fairway/forge"
	"github.com/fairway-project/fairway/prose"
	"github.com/fairway-project/fairway/workflows"
)

// Begin is what an activity begins with: a context that ends with the activity or its worker, and that
// heartbeats until the returned function is called, which also says what kind of error there is.
func Begin(ctx context.Context, what string) (context.Context, func(*error)) {
	worked, stop := activities.Working(ctx, func() any { return what })
	return worked, func(err *error) {
		*err = Typed(activities.Interrupted(worked, *err))
		stop()
	}
}

// Invalid is that somebody has to ask, or to configure, something else.
func Invalid(format string, args ...any) error {
	return temporal.NewNonRetryableApplicationError(fmt.Sprintf(format, args...), workflows.InvalidInput, nil)
}

// mostLimited bounds for how long a forge is believed that asks to wait.
const mostLimited = time.Hour

// Typed says for workflows what kind of thing is wrong outside.
func Typed(err error) error {
	var limited *forge.LimitedError
	switch already := (*temporal.ApplicationError)(nil); {
	case err == nil, errors.As(err, &already), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	case errors.As(err, &limited):
		return temporal.NewApplicationErrorWithOptions(Text(err), workflows.Unreachable, temporal.ApplicationErrorOptions{
			Category: temporal.ApplicationErrorCategoryBenign, NextRetryDelay: Limited(limited),
		})
	case errors.Is(err, channels.ErrGone), errors.Is(err, channels.ErrUnknown), errors.Is(err, channels.ErrUnusable), errors.Is(err, forge.ErrInvalid):
		return temporal.NewNonRetryableApplicationError(Text(err), workflows.InvalidInput, nil)
	case errors.Is(err, channels.ErrRefused), errors.Is(err, channels.ErrProtected), errors.Is(err, forge.ErrRefused):
		return temporal.NewApplicationError(Text(err), workflows.AccessDenied)
	default: // no answer, a full disk, a lock: things that pass or are mended from outside
		return temporal.NewApplicationError(Text(err), workflows.Unreachable)
	}
}

// Limited is for how long to wait for a forge that asks for it.
func Limited(limited *forge.LimitedError) time.Duration {
	return min(max(time.Until(limited.Until), time.Second), mostLimited)
}

// Text is an error for people; the outside may have written much of it.
func Text(err error) string { return prose.Line(err.Error(), 1000) }
