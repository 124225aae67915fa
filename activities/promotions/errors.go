package promotions

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.temporal.io/sdk/temporal"

	"github.com/fairway-project/fairway/channels"
	"github.com/fairway-project/fairway/forge"
	"github.com/fairway-project/fairway/prose"
	"github.com/fairway-project/fairway/workflows"
)

func invalid(format string, args ...any) error {
	return temporal.NewNonRetryableApplicationError(fmt.Sprintf(format, args...), workflows.InvalidInput, nil)
}

// mostLimited bounds for how long a forge is believed that asks to wait.
const mostLimited = time.Hour

// typed says for workflows what kind of thing is wrong outside.
func typed(err error) error {
	var limited *forge.LimitedError
	switch already := (*temporal.ApplicationError)(nil); {
	case err == nil, errors.As(err, &already), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	case errors.As(err, &limited):
		return temporal.NewApplicationErrorWithOptions(text(err), workflows.Unreachable, temporal.ApplicationErrorOptions{
			Category: temporal.ApplicationErrorCategoryBenign, NextRetryDelay: limitedFor(limited),
		})
	case errors.Is(err, channels.ErrGone), errors.Is(err, channels.ErrUnknown), errors.Is(err, channels.ErrUnusable), errors.Is(err, forge.ErrInvalid):
		return temporal.NewNonRetryableApplicationError(text(err), workflows.InvalidInput, nil)
	case errors.Is(err, channels.ErrRefused), errors.Is(err, channels.ErrProtected), errors.Is(err, forge.ErrRefused):
		return temporal.NewApplicationError(text(err), workflows.AccessDenied)
	default: // no answer, a full disk, a lock: things that pass or are mended from outside
		return temporal.NewApplicationError(text(err), workflows.Unreachable)
	}
}

func limitedFor(limited *forge.LimitedError) time.Duration {
	return min(max(time.Until(limited.Until), time.Second), mostLimited)
}

// text is an error for people; the outside may have written much of it.
func text(err error) string { return prose.Line(err.Error(), 1000) }

// notYet is what FollowPromotion fails with while it waits.
func notYet(after time.Duration, format string, args ...any) error {
	return temporal.NewApplicationErrorWithOptions(fmt.Sprintf(format, args...), workflows.NotYet,
		temporal.ApplicationErrorOptions{Category: temporal.ApplicationErrorCategoryBenign, NextRetryDelay: after})
}
