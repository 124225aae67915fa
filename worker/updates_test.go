package main

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/temporal"

	"github.com/fairway-project/fairway/registry"
	"github.com/fairway-project/fairway/workflows"
)

func TestTheChannelOfAClusterIsGoodForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		answer, asked := error(nil), 0
		channel := channelOf(func(_ context.Context, id string) (registry.Cluster, error) {
			asked++
			return registry.Cluster{ID: id, Channel: "dev"}, answer
		})
		expect := func(want string) {
			t.Helper()
			name, err := channel(t.Context(), "a")
			require.NoError(t, err)
			require.Equal(t, want, name)
		}
		expect("dev")
		answer = errors.New("the registry does not answer")
		expect("dev")
		require.Equal(t, 1, asked)
		time.Sleep(time.Minute)
		_, err := channel(t.Context(), "a")
		require.ErrorIs(t, err, answer, "without an answer nothing is known, so nothing may be changed")

		unknown := channelOf(func(context.Context, string) (registry.Cluster, error) {
			return registry.Cluster{}, temporal.NewNonRetryableApplicationError("unknown", workflows.ClusterNotFound, nil)
		})
		name, err := unknown(t.Context(), "a")
		require.NoError(t, err)
		require.Empty(t, name)
	})
}
