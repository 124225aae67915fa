package main

import (
	"context"
	"errors"
	"time"

	"go.uber.org/zap"

	"github.com/fairway-project/fairway/registry"
)

// awaitRegistry asks the registry until it answers: a worker may well start before it. What is wrong
// with an answer is for people to mend.
func awaitRegistry(ctx context.Context, read func(context.Context) (registry.Clusters, error), logger *zap.Logger) error {
	for {
		_, err := read(ctx)
		var silent *registry.UnreachableError
		if !errors.As(err, &silent) {
			return err
		}
		logger.Warn("the cluster registry does not answer; trying again", zap.Error(err))
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(2 * time.Second):
		}
	}
}
