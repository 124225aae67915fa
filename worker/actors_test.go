package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"

	"github.com/fairway-project/fairway/config"
)

// slowTemporal takes a while to start a workflow.
type slowTemporal struct {
	client.Client
	mu      sync.Mutex
	started map[string]bool
	broken  string
}

func (s *slowTemporal) ExecuteWorkflow(ctx context.Context, options client.StartWorkflowOptions, _ any, _ ...any) (client.WorkflowRun, error) {
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-time.After(time.Second):
	}
	if options.ID == s.broken {
		return nil, errors.New("no room")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.started[options.ID] = true
	return nil, nil
}

func fleetOf(t *testing.T, clusters int) config.Config {
	text := "clusters:\n"
	for i := range clusters {
		text += fmt.Sprintf("- {id: fleet-%d, channel: dev, environment: test, infrastructure_account: \"aws:1\", region: eu-central-1, api_server_url: \"https://fleet.example.org\", lifecycle_status: ready}\n", i)
	}
	path := filepath.Join(t.TempDir(), "registry.yaml")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return config.Config{Registry: config.Registry{File: path}}
}

func TestALargeFleetsActorsAreStartedSeveralAtATime(t *testing.T) {
	c := fleetOf(t, 25)
	synctest.Test(t, func(t *testing.T) {
		temporal, began := &slowTemporal{started: map[string]bool{}}, time.Now()
		require.NoError(t, startActors(t.Context(), temporal, c))
		require.Len(t, temporal.started, 25)
		require.Equal(t, 3*time.Second, time.Since(began))
	})
}

func TestAnActorThatCannotBeStartedIsNamed(t *testing.T) {
	c := fleetOf(t, 2)
	synctest.Test(t, func(t *testing.T) {
		temporal := &slowTemporal{started: map[string]bool{}, broken: "cluster/fleet-1"}
		require.ErrorContains(t, startActors(t.Context(), temporal, c), "starting the actor of cluster fleet-1: no room")
	})
}
