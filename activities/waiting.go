// Package activities holds what all activities share that wait for the outside world; those
// themselves are in a package for each outside system.
package activities

import (
	"time"

	"go.temporal.io/sdk/temporal"

	"github.com/fairway-project/fairway/workflows"
)

// BeatEvery is the time between two heartbeats of an activity to which nothing happens.
const BeatEvery = 2 * time.Second

// ErrStopping ends an activity because its worker stops; the next worker takes it up again.
var ErrStopping = temporal.NewApplicationErrorWithOptions("the worker stops; another one goes on", workflows.Unreachable,
	temporal.ApplicationErrorOptions{Category: temporal.ApplicationErrorCategoryBenign, NextRetryDelay: 100 * time.Millisecond})
