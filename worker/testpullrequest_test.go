package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/client"
	sdk "go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"github.com/fairway-project/fairway/activities"
	"github.com/fairway-project/fairway/e2e"
	"github.com/fairway-project/fairway/lab"
	"github.com/fairway-project/fairway/registry"
	"github.com/fairway-project/fairway/workflows"
)

// ground is where tests take place, on a real Temporal: all but the workflows is imitated.
type ground struct {
	temporal client.Client
	mu       sync.Mutex
	clusters map[string]bool
	most     int // clusters at a time
	ended    map[string]bool
	shown    map[int]e2e.Report // the newest of each
	// vanish has the load of these clusters fall silent when it is to end, as a worker does that is killed.
	vanish map[string]bool
	closed chan struct{}
}

func (g *ground) ReportTest(_ context.Context, report e2e.Report) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shown[report.Request.Number] = report
	return nil
}

// shows waits until the pull request shows something of a test.
func (g *ground) shows(t *testing.T, number int, what func(e2e.Report) bool) {
	t.Helper()
	require.Eventually(t, func() bool {
		g.mu.Lock()
		defer g.mu.Unlock()
		return what(g.shown[number])
	}, time.Minute, 10*time.Millisecond)
}

func upgrades(report e2e.Report) bool { return report.Phase == e2e.Upgrading }

func (g *ground) queue(ctx context.Context, signal string, in workflows.TestQueueEntry) error {
	in.Accounts = []e2e.Account{{Account: "aws:1", Region: "eu", Limit: 2}}
	_, err := g.temporal.SignalWithStartWorkflow(ctx, workflows.TestQueueID, signal, in,
		client.StartWorkflowOptions{TaskQueue: "ground"}, workflows.TestQueue, workflows.TestQueueState{})
	return err
}

func (g *ground) EnterTestQueue(ctx context.Context, in workflows.TestQueueEntry) error {
	return g.queue(ctx, workflows.EnterName, in)
}

func (g *ground) LeaveTestQueue(ctx context.Context, in workflows.TestQueueEntry) error {
	return g.queue(ctx, workflows.LeaveName, in)
}

func (g *ground) LeaseCluster(_ context.Context, in workflows.LeaseCluster) (e2e.Lease, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.clusters[in.Request.Cluster] = true
	g.most = max(g.most, len(g.clusters))
	return e2e.Lease{Cluster: registry.Cluster{ID: in.Request.Cluster, LifecycleStatus: registry.Requested}}, nil
}

func (g *ground) ChangeLease(context.Context, workflows.ChangeLease) (e2e.Lease, error) {
	return e2e.Lease{}, nil
}

func (g *ground) EndLease(_ context.Context, in workflows.ChangeLease) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.clusters, in.Cluster)
	g.ended[in.Cluster] = true
	return nil
}

func (g *ground) EstimateCost(context.Context, workflows.ChangeLease) (e2e.Cost, error) {
	return e2e.Cost{Amount: 1}, nil
}

func (g *ground) AwaitLoad(context.Context, workflows.OnTestCluster) error { return nil }

func (g *ground) HoldLoad(ctx context.Context, in workflows.OnTestCluster) (e2e.LoadResult, error) {
	var before e2e.LoadResult
	_ = activity.GetHeartbeatDetails(ctx, &before)
	var good atomic.Int64
	good.Store(before.Good)
	ctx, done := activities.Working(ctx, func() any { return e2e.LoadResult{Good: good.Load()} })
	defer done()
	for {
		select {
		case <-ctx.Done():
			if errors.Is(context.Cause(ctx), activities.ErrStopping) {
				return e2e.LoadResult{}, activities.ErrStopping
			}
			if g.vanish[in.Cluster] {
				<-g.closed
			}
			return e2e.LoadResult{Good: good.Load()}, nil
		case <-time.After(10 * time.Millisecond):
			good.Add(1)
		}
	}
}

func (g *ground) WitnessUpgrade(ctx context.Context, _ workflows.OnTestCluster) (e2e.Upgrade, error) {
	ctx, done := activities.Working(ctx, func() any { return e2e.Upgrade{} })
	defer done()
	<-ctx.Done()
	if errors.Is(context.Cause(ctx), activities.ErrStopping) {
		return e2e.Upgrade{}, activities.ErrStopping
	}
	return e2e.Upgrade{Evictions: 3}, nil
}

func (g *ground) ListSuites(context.Context) (workflows.SuitesToRun, error) {
	return workflows.SuitesToRun{Suites: []e2e.Suite{{Name: "one"}, {Name: "two"}}, Parallel: 2, Load: true}, nil
}

func (g *ground) RunSuite(context.Context, workflows.RunSuite) (e2e.SuiteResult, error) {
	return e2e.SuiteResult{Passed: true, Ran: 1}, nil
}

func (g *ground) StoreReport(context.Context, e2e.Report) (string, error) { return "s3://results", nil }

// slowly stands for the update of a cluster.
func slowly(ctx workflow.Context, in workflows.UpdateClusterInput) (workflows.UpdateProgress, error) {
	return workflows.UpdateProgress{Kind: in.Kind, Evicted: 2}, workflow.Sleep(ctx, 3*time.Second)
}

// Tests of pull requests wait for their places, are cancelled, and take over what activities say that have been
// cancelled; with workers that come and go, on a real Temporal.
func TestPullRequestsAreTestedOnARealTemporal(t *testing.T) {
	l, err := lab.Start(t.Context(), lab.Options{Dir: filepath.Join(t.TempDir(), "lab"), Clusters: []string{}})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, l.Stop()) })
	temporalClient, err := client.DialContext(t.Context(), client.Options{HostPort: l.Direct("temporal"), Namespace: lab.TemporalNamespace})
	require.NoError(t, err)
	t.Cleanup(temporalClient.Close)
	g := &ground{temporal: temporalClient, clusters: map[string]bool{}, ended: map[string]bool{}, shown: map[int]e2e.Report{}, vanish: map[string]bool{"e2e-2": true}, closed: make(chan struct{})}
	work := func() (stop func()) {
		w := sdk.New(temporalClient, "ground", sdk.Options{DisableRegistrationAliasing: true, WorkerStopTimeout: 5 * time.Second})
		w.RegisterWorkflow(workflows.TestPullRequest)
		w.RegisterWorkflow(workflows.TestQueue)
		w.RegisterWorkflowWithOptions(slowly, workflow.RegisterOptions{Name: "UpdateCluster"})
		w.RegisterActivity(g)
		require.NoError(t, w.Start())
		return w.Stop
	}
	stop := work()
	var runs []client.WorkflowRun
	for i := range 5 {
		request := e2e.Request{ID: fmt.Sprintf("%d/head", i), Cluster: fmt.Sprintf("e2e-%d", i), Number: i, Channel: "dev", Base: "base", Head: "head"}
		run, err := temporalClient.ExecuteWorkflow(t.Context(), client.StartWorkflowOptions{
			ID: workflows.TestID(request.ID), TaskQueue: "ground", StaticSummary: workflows.TestSummary(request), TypedSearchAttributes: workflows.TestAttributes(request),
		}, workflows.TestPullRequest, request)
		require.NoError(t, err)
		runs = append(runs, run)
		time.Sleep(100 * time.Millisecond) // for their turns
	}
	g.shows(t, 4, func(r e2e.Report) bool { return r.Place == 3 })
	g.shows(t, 0, upgrades)
	stop() // the load goes on with the next worker
	stop = work()
	g.shows(t, 3, upgrades)
	require.NoError(t, temporalClient.SignalWorkflow(t.Context(), runs[3].GetID(), "", workflows.EndTestName, workflows.EndTest{Why: "a newer head was pushed"}))
	update, err := temporalClient.UpdateWorkflow(t.Context(), client.UpdateWorkflowOptions{
		WorkflowID: runs[4].GetID(), UpdateName: workflows.KeepTestName, Args: []any{workflows.KeepTest{For: 2 * time.Second}}, WaitForStage: client.WorkflowUpdateStageCompleted,
	})
	require.NoError(t, err)
	require.NoError(t, update.Get(t.Context(), nil))
	for i, run := range runs {
		var report e2e.Report
		require.NoError(t, run.Get(t.Context(), &report))
		require.Equal(t, e2e.Done, report.Phase)
		if i == 3 {
			require.Equal(t, e2e.Cancelled, report.Verdict)
			continue
		}
		require.Equal(t, e2e.Passed, report.Verdict, report.Problem)
		require.Greater(t, report.Load.Good, int64(10), "the load says what it did, also where its worker has vanished: %d", i)
		require.Equal(t, e2e.Upgrade{Evictions: 3, Own: 2}, report.Upgrade)
		t.Logf("test %d: %d events, %+v", i, events(t, temporalClient, run.GetID()), report.Phases)
	}
	close(g.closed)
	stop()
	require.Empty(t, g.clusters)
	require.Len(t, g.ended, 5)
	require.Equal(t, 2, g.most, "the limit of the account")
}
