package main

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/fairway-project/fairway/registry"
)

func TestAWorkerWaitsForARegistryThatIsDownAndNotForOneThatIsWrong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		down := &registry.UnreachableError{Request: "GET x", Err: errors.New("connection refused")}
		wrong := errors.New("registry.yaml:1: is wrong")
		for _, last := range []error{nil, wrong} {
			asked := 0
			began := time.Now()
			err := awaitRegistry(t.Context(), func(context.Context) (registry.Clusters, error) {
				if asked++; asked <= 30 {
					return nil, down
				}
				return nil, last
			}, zap.NewNop())
			require.Equal(t, last, err)
			require.Equal(t, time.Minute, time.Since(began))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		err := awaitRegistry(ctx, func(context.Context) (registry.Clusters, error) { return nil, down }, zap.NewNop())
		require.ErrorIs(t, err, context.DeadlineExceeded)
	})
}
