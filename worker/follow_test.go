package main

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	sdk "go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"
	"go.uber.org/zap"

	"github.com/fairway-project/fairway/activities/blocks"
	"github.com/fairway-project/fairway/activities/fleet"
	"github.com/fairway-project/fairway/config"
	"github.com/fairway-project/fairway/lab"
	"github.com/fairway-project/fairway/registry"
	"github.com/fairway-project/fairway/rollout"
	"github.com/fairway-project/fairway/workflows"
)

// quick stands for the update of a cluster: it is over at once.
func quick(ctx workflow.Context, in workflows.UpdateClusterInput) (workflows.UpdateProgress, error) {
	now, info := workflow.Now(ctx), workflow.GetInfo(ctx).WorkflowExecution
	progress := workflows.UpdateProgress{Kind: in.Kind, Version: in.Version, From: in.From, Phase: "done", Started: now, Ended: now}
	outcome := workflows.UpdateOutcome{UpdateProgress: progress, Workflow: info.ID, Run: info.RunID}
	return progress, workflow.SignalExternalWorkflow(ctx, workflows.ClusterID(in.Cluster), "", workflows.UpdatedName, outcome).Get(ctx, nil)
}

// healthy stands for a look at a cluster.
func healthy(context.Context, string) (workflows.Health, error) {
	return workflows.Health{Healthy: true}, nil
}

// A fleet follows its channels from a push to the last cluster, on a real Temporal, with workers that
// come and go.
func TestAFleetFollowsItsChannel(t *testing.T) {
	const clusters = 60
	l, err := lab.Start(t.Context(), lab.Options{Dir: filepath.Join(t.TempDir(), "lab"), Clusters: []string{}})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, l.Stop()) })
	temporalClient, err := client.DialContext(t.Context(), client.Options{HostPort: l.Direct("temporal"), Namespace: lab.TemporalNamespace})
	require.NoError(t, err)
	t.Cleanup(temporalClient.Close)

	file := filepath.Join(t.TempDir(), "registry.yaml")
	entries := &strings.Builder{}
	entries.WriteString("clusters:\n")
	for i := range clusters {
		fmt.Fprintf(entries, "- {id: c%03d, api_server_url: https://c%03d.example.org, channel: dev, environment: test, infrastructure_account: 'aws:1', region: eu-central-1, criticality_level: %d}\n", i, i, i%5)
	}
	require.NoError(t, os.WriteFile(file, []byte(entries.String()), 0o600))
	t.Setenv("HOOK", secret)
	probe := freeAddress()
	c, err := config.Parse(filepath.Join(t.TempDir(), "fairway.yaml"), fmt.Appendf(nil, `
task_queue: follow
registry: {file: %s}
kubernetes: {kubeconfig: none}
repository: {url: https://forge.example.org/config.git}
update: {sync_every: 1h, health_every: 1s}
rollout: {bake: 1s}
worker: {webhook: {listen: %q, secret_env: HOOK}}
`, file, probe))
	require.NoError(t, err)
	var head atomic.Value
	head.Store("c1")
	from := source{
		Heads: func(context.Context) (map[string]string, error) {
			return map[string]string{"dev": head.Load().(string)}, nil
		},
		Version: func(commit string, cluster registry.Cluster) string { return commit + "#" + cluster.ID },
	}
	work := func() (stop func()) {
		ctx, cancel := context.WithCancel(t.Context())
		w := sdk.New(temporalClient, c.TaskQueue, sdk.Options{DisableRegistrationAliasing: true})
		w.RegisterWorkflow(workflows.Fleet)
		w.RegisterWorkflow(workflows.Cluster)
		w.RegisterWorkflowWithOptions(quick, workflow.RegisterOptions{Name: "UpdateCluster"})
		registerChannels(w, c, temporalClient, from)
		w.RegisterActivity(&fleet.Watch{Temporal: temporalClient, Every: c.Update.HealthEvery, Health: healthy})
		require.NoError(t, w.Start())
		require.NoError(t, startSync(ctx, temporalClient, c, from, zap.NewNop()))
		return func() { cancel(); w.Stop() }
	}
	state := func() (s workflows.ChannelState) {
		answer, err := temporalClient.QueryWorkflow(t.Context(), workflows.ChannelID("dev"), "", workflows.StateQuery)
		if err != nil {
			return s // it has not been started yet
		}
		require.NoError(t, answer.Get(&s))
		return s
	}
	everywhere := func(commit string) func() bool {
		return func() bool {
			s := state()
			for _, m := range s.Members {
				if m.State != rollout.Done || !strings.HasPrefix(m.Current, commit) {
					return false
				}
			}
			return s.Commit == commit && len(s.Members) == clusters
		}
	}
	began := time.Now()
	stop := work()
	require.Eventually(t, everywhere("c1"), time.Minute, 100*time.Millisecond, "the schedule starts a sync at once")
	t.Logf("%d clusters were on the head after %s; the channel's history has %d events", clusters, time.Since(began), events(t, temporalClient, workflows.ChannelID("dev")))
	listed, err := temporalClient.CountWorkflow(t.Context(), &workflowservice.CountWorkflowExecutionsRequest{Query: `WorkflowType = "Cluster" AND Channel = "dev" AND Environment = "test"`})
	require.NoError(t, err)
	require.EqualValues(t, clusters, listed.Count)

	// A push, which the forge tells: the schedule would be an hour late. The worker goes in the middle.
	head.Store("c2")
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+probe+"/hooks/sync", strings.NewReader("{}"))
	require.NoError(t, err)
	request.Header.Set("X-Gitea-Signature", sign(secret, "{}"))
	answer, err := http.DefaultClient.Do(request)
	require.NoError(t, err)
	require.NoError(t, answer.Body.Close())
	require.Equal(t, http.StatusAccepted, answer.StatusCode)
	require.Eventually(t, func() bool { return state().Commit == "c2" }, 20*time.Second, 50*time.Millisecond)
	stop()
	c.Update.SyncEvery = time.Minute
	stop = work()
	defer stop()
	require.Eventually(t, everywhere("c2"), time.Minute, 100*time.Millisecond)
	schedule, err := temporalClient.ScheduleClient().GetHandle(t.Context(), workflows.SyncID).Describe(t.Context())
	require.NoError(t, err)
	require.Equal(t, time.Minute, schedule.Schedule.Spec.Intervals[0].Every, "the schedule is as the newest worker has it")
	require.Equal(t, enumspb.SCHEDULE_OVERLAP_POLICY_SKIP, schedule.Schedule.Policy.Overlap)

	// A look that finds nothing tells nobody, and is cheap.
	before := events(t, temporalClient, workflows.ChannelID("dev"))
	run, err := temporalClient.ExecuteWorkflow(t.Context(), client.StartWorkflowOptions{ID: "sync-by-hand", TaskQueue: c.TaskQueue}, workflows.Sync, workflows.SyncFleet{})
	require.NoError(t, err)
	began = time.Now()
	var result workflows.SyncResult
	require.NoError(t, run.Get(t.Context(), &result))
	t.Logf("a sync of %d clusters in which nothing is new took %s", clusters, time.Since(began))
	require.Equal(t, workflows.SyncResult{Clusters: clusters}, result)
	require.Equal(t, before, events(t, temporalClient, workflows.ChannelID("dev")))

	// Blocks of each scope are asked for.
	asker := blocks.NewAsker(temporalClient, nil)
	require.NoError(t, asker.Check(t.Context(), "c007", "worker"))
	require.NoError(t, temporalClient.SignalWorkflow(t.Context(), workflows.ChannelID("dev"), "", workflows.BlockName, workflows.BlockRequest{Reason: "bad", By: "anna"}))
	require.Eventually(t, func() bool { return asker.Check(t.Context(), "c007", "worker") != nil }, 10*time.Second, 10*time.Millisecond)
	require.ErrorContains(t, asker.Check(t.Context(), "c007", "worker"), "cluster c007 is blocked by anna (channel dev): bad")
	for _, callers := range []int{1, 50} {
		began, each := time.Now(), 400/callers
		done := make(chan error)
		for range callers {
			go func() {
				var err error
				for range each {
					if _, failed := asker.State(t.Context(), "c007"); failed != nil {
						err = failed
					}
				}
				done <- err
			}()
		}
		for range callers {
			require.NoError(t, <-done)
		}
		t.Logf("%d callers at once: %s for each question", callers, time.Since(began)/time.Duration(each))
	}
}

// freeAddress is one that nobody listens on.
func freeAddress() string {
	server := httptest.NewServer(nil)
	defer server.Close()
	return strings.TrimPrefix(server.URL, "http://")
}

func events(t *testing.T, c client.Client, id string) int64 {
	t.Helper()
	description, err := c.DescribeWorkflowExecution(t.Context(), id, "")
	require.NoError(t, err)
	return description.WorkflowExecutionInfo.HistoryLength
}
