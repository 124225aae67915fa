package promotions

import (
	"fmt"
	"time"

	"go.temporal.io/sdk/temporal"

	"github.com/fairway-project/fairway/workflows"
)

// notYet is what FollowPromotion fails with while it waits.
func notYet(after time.Duration, format string, args ...any) error {
	return temporal.NewApplicationErrorWithOptions(fmt.Sprintf(format, args...), workflows.NotYet,
		temporal.ApplicationErrorOptions{Category: temporal.ApplicationErrorCategoryBenign, NextRetryDelay: after})
}
