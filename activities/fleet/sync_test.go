package fleet

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	commonpb "go.temporal.io/api/common/v1"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	workflowpb "go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"

	"github.com/fairway-project/fairway/promotion"
	"github.com/fairway-project/fairway/registry"
	"github.com/fairway-project/fairway/rollout"
	"github.com/fairway-project/fairway/workflows"
)

// actors stands for Temporal: channels that remember what they were told, and clusters.
type actors struct {
	client.Client
	mu       sync.Mutex
	channels map[string]workflows.ChannelSynced
	clusters map[string]workflows.ClusterState
	updates  map[string]enumspb.WorkflowExecutionStatus // by cluster
	unlisted map[string]bool                            // updates that visibility does not show yet
	told     []string
	syncs    map[string]workflows.ChannelSync
	outcomes []workflows.UpdateOutcome
	requests int
	down     map[string]bool // workflow ids that cannot be reached
	starts   []client.StartWorkflowOptions
	watched  map[string]workflows.Watched // by channel
	blocks   workflows.ScopeBlocks        // of the fleet
	health   map[string]workflows.ChannelHealth
}

func (a *actors) ListWorkflow(_ context.Context, request *workflowservice.ListWorkflowExecutionsRequest) (*workflowservice.ListWorkflowExecutionsResponse, error) {
	a.requests++
	if a.down["visibility"] {
		return nil, errors.New("down")
	}
	var ids []string
	for name := range a.channels {
		ids = append(ids, workflows.ChannelID(name))
	}
	for id, status := range a.updates {
		if status == enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING && !a.unlisted[id] {
			ids = append(ids, workflows.UpdateClusterID(id))
		}
	}
	slices.Sort(ids)
	page := &workflowservice.ListWorkflowExecutionsResponse{}
	from := 0
	if len(request.NextPageToken) > 0 {
		_, _ = fmt.Sscan(string(request.NextPageToken), &from)
	}
	for _, id := range ids[from:min(from+2, len(ids))] { // small pages
		page.Executions = append(page.Executions, &workflowpb.WorkflowExecutionInfo{Execution: &commonpb.WorkflowExecution{WorkflowId: id}})
	}
	if from+2 < len(ids) {
		page.NextPageToken = fmt.Append(nil, from+2)
	}
	return page, nil
}

func (a *actors) QueryWorkflow(_ context.Context, id, _, name string, _ ...any) (converter.EncodedValue, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.requests++
	if a.down[id] {
		return nil, errors.New("down")
	}
	var answer any
	if channel, is := strings.CutPrefix(id, "channel/"); is && name == workflows.SyncedQuery {
		if known, exists := a.channels[channel]; exists {
			answer = known
		}
	} else if wanted, exists := a.watched[channel]; is && exists && name == workflows.WatchedQuery {
		answer = wanted
	} else if id == workflows.FleetID {
		answer = a.blocks
	} else if cluster, exists := a.clusters[strings.TrimPrefix(id, "cluster/")]; exists {
		answer = cluster
	}
	if answer == nil {
		return nil, serviceerror.NewNotFound("no such workflow")
	}
	payloads, err := converter.GetDefaultDataConverter().ToPayloads(answer)
	return client.NewValue(payloads), err
}

func (a *actors) DescribeWorkflow(_ context.Context, id, _ string) (*client.WorkflowExecutionDescription, error) {
	cluster := strings.TrimSuffix(strings.TrimPrefix(id, "cluster/"), "/update")
	status, exists := a.updates[cluster]
	if !exists {
		return nil, serviceerror.NewNotFound("no such workflow")
	}
	description := &client.WorkflowExecutionDescription{}
	description.Status, description.WorkflowExecution.RunID = status, "run-of-"+cluster
	return description, nil
}

func (a *actors) SignalWithStartWorkflow(_ context.Context, id, signal string, arg any, options client.StartWorkflowOptions, _ any, _ ...any) (client.WorkflowRun, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.starts = append(a.starts, options)
	if a.down[id] {
		return nil, errors.New("down")
	}
	a.told = append(a.told, id+" "+signal)
	if said, is := arg.(workflows.ChannelSync); is {
		before := a.channels[said.Channel]
		synced := workflows.ChannelSynced{Commit: said.Commit, Landing: before.Landing, Merged: before.Merged, Digest: said.Digest, Open: before.Open}
		if told := len(said.Landings); told > 0 {
			synced.Landing = said.Landings[told-1].Commit
		}
		for _, each := range said.Clusters {
			synced.Clusters = append(synced.Clusters, each.ID)
		}
		a.channels[said.Channel] = synced
		a.syncs[said.Channel] = said
	}
	return nil, nil
}

func (a *actors) SignalWorkflow(_ context.Context, id, _, signal string, arg any) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.down[id+"!"] {
		return errors.New("down")
	}
	a.told = append(a.told, id+" "+signal)
	switch said := arg.(type) {
	case workflows.UpdateOutcome:
		a.outcomes = append(a.outcomes, said)
	case workflows.ChannelHealth:
		a.health[id] = said
	}
	return nil
}

// fleet is a registry, a repository and the actors.
type fleet struct {
	*actors
	t        *testing.T
	registry registry.Clusters
	heads    map[string]string
	down     map[string]bool   // "registry", "repository", "history"
	lines    map[string]string // first-parent lines of channels, such as "c1 c2"
	pipeline promotion.Pipeline
	read     []string // of the histories
}

func newFleet(t *testing.T) *fleet {
	f := &fleet{
		t: t, heads: map[string]string{"dev": "c1", "beta": "c0", "feature/x": "c9"}, down: map[string]bool{},
		actors: &actors{
			channels: map[string]workflows.ChannelSynced{}, clusters: map[string]workflows.ClusterState{}, syncs: map[string]workflows.ChannelSync{},
			updates: map[string]enumspb.WorkflowExecutionStatus{}, unlisted: map[string]bool{}, down: map[string]bool{},
		},
	}
	for id, channel := range map[string]string{"a": "dev", "b": "dev", "c": "dev", "x": "beta"} {
		f.registry = append(f.registry, registry.Cluster{
			ID: id, Channel: channel, Environment: "test", InfrastructureAccount: "aws:1", Region: "eu-central-1", LifecycleStatus: registry.Ready,
			Status: &registry.Status{CurrentVersion: "c0#" + id, LastVersion: "old"},
		})
	}
	slices.SortFunc(f.registry, func(a, b registry.Cluster) int { return strings.Compare(a.ID, b.ID) })
	return f
}

func (f *fleet) cluster(id string) *registry.Cluster {
	return &f.registry[slices.IndexFunc(f.registry, func(c registry.Cluster) bool { return c.ID == id })]
}

func (f *fleet) sync(in workflows.SyncFleet) (workflows.SyncResult, error) {
	f.told, f.requests, f.starts, f.read = nil, 0, nil, nil
	m := &Messages{
		Temporal: f.actors, TaskQueue: "q",
		Clusters: func(context.Context) (registry.Clusters, error) {
			if f.down["registry"] {
				return nil, errors.New("HTTP status 503")
			}
			return slices.Clone(f.registry), nil
		},
		Heads: func(context.Context) (map[string]string, error) {
			if f.down["repository"] {
				return nil, errors.New("no route to host")
			}
			return f.heads, nil
		},
		Title:    func(_ context.Context, commit string) string { return "title of " + commit },
		Waves:    func(string) (rollout.Settings, error) { return rollout.Settings{BakeSeconds: 600}, nil },
		Version:  func(commit string, c registry.Cluster) string { return commit + "#" + c.ID + c.ConfigItems["edited"] },
		Pipeline: f.pipeline,
	}
	if f.lines != nil {
		m.Landings = f.landings
	}
	var suite testsuite.WorkflowTestSuite
	env := suite.NewTestActivityEnvironment()
	env.RegisterActivity(m)
	answer, err := env.ExecuteActivity(m.SyncFleet, in)
	var result workflows.SyncResult
	if err == nil {
		require.NoError(f.t, answer.Get(&result))
	}
	return result, err
}

func (f *fleet) synced() workflows.SyncResult {
	result, err := f.sync(workflows.SyncFleet{})
	require.NoError(f.t, err)
	return result
}

func TestOnlyWhatIsNewIsTold(t *testing.T) {
	f := newFleet(t)
	f.cluster("b").ConfigItems = map[string]string{"cluster_update_block": " incident ", "rollout_canary": "true"}
	result := f.synced()
	require.Equal(t, workflows.SyncResult{Clusters: 4, Told: []string{"beta", "dev"}}, result)
	dev := f.syncs["dev"]
	require.Equal(t, "c1", dev.Commit)
	require.Equal(t, "title of c1", dev.Title)
	require.Equal(t, 600, dev.Settings.BakeSeconds)
	require.Len(t, dev.Clusters, 3)
	require.Equal(t, workflows.ChannelCluster{
		Cluster: rollout.Cluster{ID: "b", Account: "aws:1", Region: "eu-central-1", Canary: true},
		Want: workflows.Want{
			Cluster: "b", Channel: "dev", Version: "c1#b", Lifecycle: registry.Ready, Current: "c0#b", Last: "old", Block: "incident", Environment: "test",
		},
	}, dev.Clusters[1])
	require.Equal(t, "channel dev", f.starts[1].StaticSummary)
	require.Equal(t, "q", f.starts[1].TaskQueue)

	require.Empty(t, f.synced().Told)
	require.Equal(t, 3, f.requests, "visibility and a query for each channel, and nothing else")

	f.cluster("a").Status.NextVersion = "c1#a"
	require.Empty(t, f.synced().Told, "the channel hears from the cluster that it is being updated")
	f.cluster("a").Status.CurrentVersion = "c1#a"
	require.Empty(t, f.synced().Told, "and that it is updated")
	for what, change := range map[string]func(){
		"a new head":           func() { f.heads["dev"] = "c2" },
		"an edited entry":      func() { f.cluster("a").ConfigItems = map[string]string{"edited": "yes"} },
		"a block is lifted":    func() { f.cluster("b").ConfigItems = nil },
		"a cluster is to go":   func() { f.cluster("c").LifecycleStatus = registry.DecommissionRequested },
		"a cluster that went":  func() { f.cluster("c").LifecycleStatus = registry.Decommissioned },
		"other criticality":    func() { f.cluster("a").CriticalityLevel = 3 },
		"a cluster that comes": func() { f.registry = append(f.registry, registry.Cluster{ID: "d", Channel: "dev"}) },
	} {
		change()
		require.Equal(t, []string{"dev"}, f.synced().Told, what)
		require.Empty(t, f.synced().Told, what)
	}
}

func TestAVersionThatAClusterIsLeavingIsNotItsOwn(t *testing.T) {
	f := newFleet(t)
	f.cluster("a").Status.NextVersion = "c1#a"
	f.synced()
	want := f.syncs["dev"].Clusters[0].Want
	require.Equal(t, []string{"", "c0#a"}, []string{want.Current, want.Between})
}

func TestAClusterThatMovesLeavesItsChannelFirst(t *testing.T) {
	f := newFleet(t)
	f.synced()
	f.cluster("x").Channel = "dev"
	require.Equal(t, []string{"beta", "dev"}, f.synced().Told)
	require.Empty(t, f.syncs["beta"].Clusters, "a channel hears that its last cluster has left")
	require.Len(t, f.syncs["dev"].Clusters, 4)
	f.cluster("a").Channel = "beta"
	require.Equal(t, []string{"dev", "beta"}, f.synced().Told)
}

func TestABranchThatDoesNotExistIsAProblem(t *testing.T) {
	f := newFleet(t)
	f.synced()
	delete(f.heads, "dev")
	result := f.synced()
	require.Len(t, result.Problems, 1)
	require.Contains(t, result.Problems[0], "has no branch dev, which a and 2 more clusters follow")
	require.Equal(t, result.Problems[0], f.syncs["dev"].Problem)
	require.Empty(t, f.syncs["dev"].Clusters[0].Want.Version)
	require.Len(t, f.syncs["dev"].Clusters, 3)
}

func TestWithoutAnAnswerNothingIsTold(t *testing.T) {
	for what, break_ := range map[string]func(*fleet){
		"registry":   func(f *fleet) { f.down["registry"] = true },
		"repository": func(f *fleet) { f.down["repository"] = true },
		"visibility": func(f *fleet) { f.actors.down["visibility"] = true },
		"actor":      func(f *fleet) { f.actors.down["channel/beta"] = true },
	} {
		t.Run(what, func(t *testing.T) {
			f := newFleet(t)
			break_(f)
			_, err := f.sync(workflows.SyncFleet{})
			var typed *temporal.ApplicationError
			require.ErrorAs(t, err, &typed)
			require.Equal(t, workflows.Unreachable, typed.Type())
			require.Empty(t, f.told)
		})
	}
}

func TestAChannelThatDoesNotAnswerKeepsNoOtherFromItsHead(t *testing.T) {
	f := newFleet(t)
	f.synced()
	f.actors.down["channel/beta"] = true
	f.heads["dev"], f.heads["beta"] = "c2", "c2"
	_, err := f.sync(workflows.SyncFleet{})
	require.ErrorContains(t, err, "channel/beta")
	require.Equal(t, []string{"channel/dev sync"}, f.told)

	f.cluster("x").Channel, f.heads["dev"] = "dev", "c3"
	_, err = f.sync(workflows.SyncFleet{})
	require.Error(t, err)
	require.Empty(t, f.told, "beta has not heard yet that x leaves it")
	f.actors.down["channel/beta"] = false
	require.Equal(t, []string{"beta", "dev"}, f.synced().Told)
}

func TestMostClustersDoNotVanishAtOnce(t *testing.T) {
	f := newFleet(t)
	f.synced()
	all := f.registry
	f.registry = f.registry[:1]
	result := f.synced()
	require.Len(t, result.Problems, 1)
	require.Contains(t, result.Problems[0], "the registry has lost 3 of 4 clusters")
	require.True(t, f.syncs["dev"].Keep)
	require.True(t, f.syncs["beta"].Keep)
	f.channels["dev"] = workflows.ChannelSynced{Digest: f.channels["dev"].Digest, Clusters: []string{"a", "b", "c"}} // they were kept
	f.channels["beta"] = workflows.ChannelSynced{Digest: f.channels["beta"].Digest, Clusters: []string{"x"}}
	require.Empty(t, f.synced().Told, "once is enough")

	f.registry = all
	require.Equal(t, []string{"beta", "dev"}, f.synced().Told)
	require.False(t, f.syncs["dev"].Keep)
	f.registry = f.registry[:2]
	require.Empty(t, f.synced().Problems, "half of them may go")
	f.registry = f.registry[:0]
	result, err := f.sync(workflows.SyncFleet{Shrunk: true})
	require.NoError(t, err)
	require.Len(t, result.Problems, 1)
	require.Empty(t, f.syncs["dev"].Clusters, "somebody says that it is so")
	require.False(t, f.syncs["dev"].Keep)
}

func TestAnUpdateThatEndedFromOutsideIsFound(t *testing.T) {
	ago := func(d time.Duration) time.Time { return time.Now().Add(-d) }
	updating := func(since time.Time, history ...workflows.UpdateSummary) workflows.ClusterState {
		return workflows.ClusterState{Updates: workflows.ClusterUpdates{Running: &workflows.RunningUpdate{Kind: workflows.Upgrade, Version: "c1#a", Since: since}, History: history}}
	}
	const terminated, going = enumspb.WORKFLOW_EXECUTION_STATUS_TERMINATED, enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING
	for rule, c := range map[string]struct {
		since   time.Time     // the channel's view
		state   rollout.State // default: updating
		update  enumspb.WorkflowExecutionStatus
		hidden  bool
		cluster *workflows.ClusterState
		told    []string
		lost    bool
	}{
		"its actor is told":                      {since: ago(time.Hour), update: terminated, cluster: new(updating(ago(time.Hour))), told: []string{"cluster/a updated"}, lost: true},
		"also if nothing is left of it":          {since: ago(time.Hour), cluster: new(updating(ago(time.Hour))), told: []string{"cluster/a updated"}, lost: true},
		"not while it runs":                      {since: ago(time.Hour), update: going, cluster: new(updating(ago(time.Hour)))},
		"nor while visibility lags behind":       {since: ago(time.Hour), update: going, hidden: true, cluster: new(updating(ago(time.Hour)))},
		"nor at its beginning":                   {since: ago(time.Minute), cluster: new(updating(ago(time.Minute)))},
		"nor when the next is about to start":    {since: ago(time.Hour), update: terminated, cluster: new(updating(ago(time.Second)))},
		"nor when its actor knows":               {since: ago(time.Hour), update: terminated, cluster: new(updating(ago(time.Hour), workflows.UpdateSummary{Run: "run-of-a"}))},
		"an actor without one is told the want":  {since: ago(time.Hour), update: terminated, cluster: &workflows.ClusterState{}, told: []string{"channel/dev sync"}, lost: true},
		"and so is one that is started for that": {since: ago(time.Hour), told: []string{"channel/dev sync"}, lost: true},
		"also of an update to an older version":  {since: ago(time.Hour), state: rollout.Allowed, update: terminated, cluster: new(updating(ago(time.Hour))), told: []string{"cluster/a updated"}, lost: true},
		"or of a rollback":                       {since: ago(time.Hour), state: rollout.Failed, update: terminated, cluster: new(updating(ago(time.Hour))), told: []string{"cluster/a updated"}, lost: true},
		"an actor that has forgotten its want":   {since: ago(time.Hour), state: rollout.Allowed, cluster: &workflows.ClusterState{}, told: []string{"channel/dev sync"}, lost: true},
		"not one that cannot begin":              {since: ago(time.Hour), state: rollout.Allowed, cluster: &workflows.ClusterState{Updates: workflows.ClusterUpdates{Want: &workflows.Want{}}}},
		"nor one that waits for its wave":        {since: ago(time.Hour), state: rollout.Waiting, cluster: &workflows.ClusterState{}},
	} {
		t.Run(rule, func(t *testing.T) {
			f := newFleet(t)
			f.synced()
			known := f.channels["dev"]
			known.Open = []rollout.Member{{Cluster: rollout.Cluster{ID: "a"}, State: cmp.Or(c.state, rollout.Updating), SinceUnix: c.since.Unix()}}
			f.channels["dev"] = known
			if c.update != 0 {
				f.updates["a"] = c.update
			}
			f.unlisted["a"] = c.hidden
			if c.cluster != nil {
				f.clusters["a"] = *c.cluster
			}
			result := f.synced()
			require.Equal(t, c.told, f.told)
			if !c.lost {
				require.Empty(t, result.Lost)
				return
			}
			require.Equal(t, []string{"a"}, result.Lost)
			if len(f.outcomes) > 0 {
				outcome := f.outcomes[0]
				require.Equal(t, "failed", outcome.Phase)
				require.Equal(t, "c1#a", outcome.Version)
				require.Contains(t, outcome.Problems[0].Title, "ended from outside")
				require.Equal(t, "urn:fairway:Lost", outcome.Problems[0].Type)
				require.True(t, outcome.Changed, "nobody knows how far it had come")
			} else {
				require.True(t, f.syncs["dev"].Clusters[0].Lost)
			}
		})
	}
}

func TestAReportThatWasMissedIsMadeGood(t *testing.T) {
	f := newFleet(t)
	f.synced()
	known := f.channels["dev"]
	known.Open = []rollout.Member{{Cluster: rollout.Cluster{ID: "a"}, State: rollout.Failed, SinceUnix: time.Now().Add(-time.Hour).Unix()}}
	f.channels["dev"] = known
	require.Empty(t, f.synced().Told)
	f.cluster("a").Status.CurrentVersion = "c1#a"
	require.Equal(t, []string{"dev"}, f.synced().Told)
}

func TestOneChannelCanBeSyncedAlone(t *testing.T) {
	f := newFleet(t)
	result, err := f.sync(workflows.SyncFleet{Channel: "beta"})
	require.NoError(t, err)
	require.Equal(t, []string{"beta"}, result.Told)
	_, err = f.sync(workflows.SyncFleet{Channel: "delta"})
	require.ErrorContains(t, err, `no cluster of the registry follows channel "delta"`)
}

func TestTellingClusters(t *testing.T) {
	f := newFleet(t)
	m := &Messages{Temporal: f.actors, TaskQueue: "q"}
	var suite testsuite.WorkflowTestSuite
	env := suite.NewTestActivityEnvironment()
	env.RegisterActivity(m)
	f.actors.down["cluster/c7"] = true
	var wants []workflows.Want
	for i := range 50 {
		wants = append(wants, workflows.Want{Cluster: fmt.Sprintf("c%d", i), Channel: "dev", Version: "v", Environment: "test"})
	}
	answer, err := env.ExecuteActivity(m.TellClusters, workflows.TellClusters{Wants: wants})
	require.NoError(t, err, "the others need not be told again")
	var untold []string
	require.NoError(t, answer.Get(&untold))
	require.Equal(t, []string{"c7"}, untold)
	require.Len(t, f.told, 49, "one that cannot be told keeps no other from it")
	require.Contains(t, f.told, "cluster/c49 want")
	channel, _ := f.starts[0].TypedSearchAttributes.GetKeyword(workflows.ChannelAttribute)
	require.Equal(t, "dev", channel)

	_, err = env.ExecuteActivity(m.TellClusters, workflows.TellClusters{Wants: wants[7:8]})
	var typed *temporal.ApplicationError
	require.ErrorAs(t, err, &typed)
	require.Equal(t, workflows.Unreachable, typed.Type())
	require.ErrorContains(t, err, "telling cluster c7 what is wanted: down")

	f.actors.down = map[string]bool{}
	_, err = env.ExecuteActivity(m.TellClusters, workflows.TellClusters{Wants: wants})
	require.NoError(t, err)
}
