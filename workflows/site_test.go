package workflows_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/mock"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/workflow"

	"github.com/fairway-project/fairway/registry"
	"github.com/fairway-project/fairway/rollout"
	"github.com/fairway-project/fairway/workflows"
)

// site is a cluster with its stacks, manifests and registry, as far as updates can tell. It writes
// down what is done to it, in order.
type site struct {
	mu    sync.Mutex
	story []string
	plan  workflows.UpdatePlan
	owned []workflows.OwnedStack
	// fail makes a call return an error; calls are named as in the story.
	fail func(call string) error
	// during is called while a call of the story is under way.
	during func(call string)
	// health is answered in turn; the last one stays.
	health   []workflows.Health
	changing bool // stacks change, as PlanStack says
	statuses []workflows.WriteStatus
	told     []workflows.Notification
	turns    []workflows.AwaitTurn
	outcomes []workflows.UpdateOutcome
	// roll stands in for RollPool; nil means that nothing is old.
	roll func(ctx workflow.Context, in workflows.RollPoolInput) (workflows.RollProgress, error)
	// lifecycle is what the registry says.
	lifecycle registry.LifecycleStatus
	// blocked says who blocks the cluster at the moment; looked is how often that was asked for.
	blocked func() string
	looked  int
	// pools are those that stacks are changed and deleted as a part of.
	pools map[string]string
	// created are the stacks that did not exist before.
	created []string
	// rolls are the ids of rolls that somebody else runs; they end when they are cancelled.
	rolls []string
}

var (
	_ workflows.Configuration = (*site)(nil)
	_ workflows.Stacks        = (*site)(nil)
	_ workflows.Manifests     = (*site)(nil)
	_ workflows.Statuses      = (*site)(nil)
	_ workflows.Turns         = (*site)(nil)
	_ workflows.Rolls         = (*site)(nil)
	_ workflows.Gates         = (*site)(nil)
	_ workflows.Notifications = (*site)(nil)
)

// What the cluster has and gets.
const (
	v1 = "1111111111aa#1111111111aa"
	v2 = "2222222222aa#2222222222aa"
	v3 = "3333333333aa#3333333333aa"
)

func newSite() *site {
	return &site{
		plan: workflows.UpdatePlan{
			Cluster: workflows.ClusterInfo{ID: "dev-1", Channel: "dev", Environment: "test", Account: "1", Region: "eu", Owner: "team"},
			Stacks:  []string{"etcd-dev-1", "dev-1"},
			Pools: []workflows.PlannedPool{
				{Name: "master", Stack: "dev-1-master", ControlPlane: true}, {Name: "worker", Stack: "dev-1-worker"}, {Name: "spot", Stack: "dev-1-spot"},
			},
			Manifests: 30, Deletions: 2, Notify: true,
			Settings: workflows.UpdateSettings{ParallelPools: 1, HealthyWithin: 15 * time.Minute, RetryAfter: time.Minute, RetryAtMost: time.Hour},
		},
		owned: []workflows.OwnedStack{
			{Name: "etcd-dev-1"}, {Name: "dev-1"}, {Name: "dev-1-master", Pool: "master"}, {Name: "dev-1-worker", Pool: "worker"}, {Name: "dev-1-spot", Pool: "spot"},
		},
		health:    []workflows.Health{{Healthy: true}},
		lifecycle: registry.DecommissionRequested, pools: map[string]string{},
	}
}

// call writes a line of the story, and says how it ends.
func (s *site) call(format string, args ...any) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	call := fmt.Sprintf(format, args...)
	s.story = append(s.story, call)
	if s.during != nil {
		s.during(call)
	}
	if s.fail != nil {
		return s.fail(call)
	}
	return nil
}

// AwaitUnblocked is in the story only where somebody blocks.
func (s *site) AwaitUnblocked(context.Context, workflows.AwaitUnblocked) error {
	s.mu.Lock()
	s.looked++
	s.mu.Unlock()
	if s.blocked == nil {
		return nil
	}
	who := s.blocked()
	if who == "" {
		return nil
	}
	_ = s.call("blocked")
	return temporal.NewApplicationErrorWithOptions(who, workflows.Blocked, temporal.ApplicationErrorOptions{NextRetryDelay: time.Hour})
}

// ListClusters is no part of the story: it only asks.
func (s *site) ListClusters(context.Context, workflows.ListClusters) ([]workflows.ClusterInfo, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return []workflows.ClusterInfo{{ID: "dev-1", Lifecycle: string(s.lifecycle)}}, nil
}

func (s *site) PrepareUpdate(_ context.Context, in workflows.PrepareUpdate) (workflows.UpdatePlan, error) {
	plan := s.plan
	plan.Version = in.Version
	return plan, s.call("prepare %s", in.Version[:1])
}

func (s *site) AwaitWindow(context.Context, workflows.AwaitWindow) error {
	return s.call("window")
}

func (s *site) PlanStack(_ context.Context, in workflows.StackOf) (workflows.StackChanges, error) {
	changes := workflows.StackChanges{Stack: in.Stack}
	if s.changing && in.Stack == "dev-1-spot" {
		changes.Changes = []workflows.ResourceChange{{Action: "Modify", Resource: "Group"}}
	}
	return changes, s.call("plan stack %s", in.Stack)
}

func (s *site) ApplyStack(_ context.Context, in workflows.StackOf) (workflows.StackChanges, error) {
	s.poolOf(in)
	return workflows.StackChanges{Stack: in.Stack, Created: slices.Contains(s.created, in.Stack)}, s.call("stack %s %s", in.Stack, in.Version[:1])
}

func (s *site) poolOf(in workflows.StackOf) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pools[in.Stack] = in.Pool
}

func (s *site) DeleteStack(_ context.Context, in workflows.StackOf) error {
	s.poolOf(in)
	err := s.call("delete stack %s", in.Stack)
	if err == nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.owned = slices.DeleteFunc(s.owned, func(o workflows.OwnedStack) bool { return o.Name == in.Stack })
	}
	return err
}

func (s *site) ListStacks(context.Context, workflows.StacksOf) ([]workflows.OwnedStack, error) {
	err := s.call("list stacks")
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.owned), err
}

func (s *site) DeleteLeftovers(context.Context, workflows.StacksOf) ([]string, error) {
	return []string{"vol-1"}, s.call("delete leftovers")
}

func (s *site) AwaitAPIServer(context.Context, workflows.ManifestsOf) error {
	return s.call("API server")
}

func (s *site) PlanManifests(context.Context, workflows.ManifestsOf) ([]workflows.ObjectChange, error) {
	return nil, s.call("plan manifests")
}

func (s *site) DeleteObjects(_ context.Context, in workflows.DeleteObjects) ([]workflows.ObjectChange, error) {
	return nil, s.call("delete objects %s", in.When)
}

func (s *site) ApplyManifests(_ context.Context, in workflows.ManifestsOf) (workflows.Applied, error) {
	return workflows.Applied{Unchanged: 30}, s.call("manifests %s", in.Version[:1])
}

func (s *site) AwaitWorkloads(context.Context, workflows.AwaitWorkloads) error {
	return s.call("workloads")
}

func (s *site) CheckHealth(context.Context, workflows.CheckHealth) (workflows.Health, error) {
	err := s.call("health")
	s.mu.Lock()
	defer s.mu.Unlock()
	health := s.health[0]
	if len(s.health) > 1 {
		s.health = s.health[1:]
	}
	return health, err
}

func (s *site) WriteStatus(_ context.Context, in workflows.WriteStatus) error {
	s.mu.Lock()
	s.statuses = append(s.statuses, in)
	s.mu.Unlock()
	return s.call("status")
}

func (s *site) AwaitTurn(_ context.Context, in workflows.AwaitTurn) error {
	err := s.call("turn")
	if err == nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.turns = append(s.turns, in)
	}
	return err
}

func (s *site) EndTurn(_ context.Context, in workflows.AwaitTurn) error {
	s.mu.Lock()
	s.turns = slices.DeleteFunc(s.turns, func(t workflows.AwaitTurn) bool { return t == in })
	s.mu.Unlock()
	return s.call("end turn")
}

func (s *site) AwaitEnd(_ context.Context, in workflows.AwaitEnd) error {
	return s.call("await end of %s", in.Workflow)
}

func (s *site) Notify(_ context.Context, in workflows.Notification) error {
	s.mu.Lock()
	s.told = append(s.told, in)
	s.mu.Unlock()
	return s.call("tell %s", in.Kind)
}

// RollPool is registered in place of the real one.
func (s *site) rollPool(ctx workflow.Context, in workflows.RollPoolInput) (workflows.RollProgress, error) {
	name := "roll " + in.Pool
	if in.Remove {
		name = "empty " + in.Pool
	}
	if err := s.call("%s", name); err != nil {
		return workflows.RollProgress{Phase: "failed"}, err
	}
	if s.roll != nil {
		return s.roll(ctx, in)
	}
	return workflows.RollProgress{Phase: "done"}, nil
}

func (s *site) environment(t *testing.T, register ...func(*testsuite.TestWorkflowEnvironment)) *testsuite.TestWorkflowEnvironment {
	t.Helper()
	var suite testsuite.WorkflowTestSuite
	env := suite.NewTestWorkflowEnvironment()
	env.SetTestTimeout(30 * time.Second)
	env.SetStartTime(noon)
	env.RegisterWorkflow(workflows.UpdateCluster)
	env.RegisterWorkflowWithOptions(s.rollPool, workflow.RegisterOptions{Name: "RollPool"})
	env.RegisterActivity(s)
	for _, r := range register { // nothing can be registered any more once there is a mock
		r(env)
	}
	env.SetStartWorkflowOptions(client.StartWorkflowOptions{ID: workflows.UpdateClusterID("dev-1"), TaskQueue: "test"})
	env.OnSignalExternalWorkflow(mock.Anything, workflows.ClusterID("dev-1"), "", workflows.UpdatedName, mock.Anything).Maybe().Return(
		func(_, _, _, _ string, outcome any) error {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.outcomes = append(s.outcomes, outcome.(workflows.UpdateOutcome))
			return nil
		})
	env.OnRequestCancelExternalWorkflow(mock.Anything, mock.Anything, "").Maybe().Return(func(_, id, _ string) error {
		if !slices.Contains(s.rolls, id) {
			return errors.New("no such workflow")
		}
		return s.call("cancel %s", id)
	})
	return env
}

// update runs an update to v2, and returns how it ended.
func (s *site) update(t *testing.T, env *testsuite.TestWorkflowEnvironment, in workflows.UpdateClusterInput) workflows.UpdateOutcome {
	t.Helper()
	in.Cluster, in.Version = "dev-1", v2
	env.ExecuteWorkflow(workflows.UpdateCluster, in)
	require.True(t, env.IsWorkflowCompleted())
	require.Len(t, s.outcomes, 1, "the actor is told once: %v", env.GetWorkflowError())
	outcome := s.outcomes[0]
	require.Empty(t, s.turns, "the turn is given back")
	require.False(t, outcome.Ended.IsZero())
	switch outcome.Phase {
	case "done", "superseded":
		require.NoError(t, env.GetWorkflowError())
	case "cancelled":
		require.True(t, temporal.IsCanceledError(env.GetWorkflowError()), "%v", env.GetWorkflowError())
	default:
		require.Error(t, env.GetWorkflowError())
	}
	for _, step := range outcome.Steps {
		require.False(t, step.Ended.IsZero(), "step %s has ended", step.Name)
	}
	return outcome
}

// last is what the registry knows in the end.
func (s *site) last() workflows.WriteStatus { return s.statuses[len(s.statuses)-1] }

// whole is an update with everything in it.
func wholeSite() *site {
	s := newSite()
	s.plan.Settings.Windowed, s.plan.Settings.Prune = true, true
	s.plan.Settings.Limits = rollout.Limits{Fleet: 5}
	s.owned = append(s.owned, workflows.OwnedStack{Name: "dev-1-old", Pool: "old"})
	return s
}

var wholeStory = []string{
	"status", "prepare 2", "health", "window", "turn", "tell update-begins",
	"stack etcd-dev-1 2", "stack dev-1 2", "stack dev-1-master 2", "stack dev-1-spot 2", "stack dev-1-worker 2",
	"delete objects before", "manifests 2", "delete objects after", "delete objects prune", "workloads",
	"roll master", "roll worker", "roll spot", "list stacks", "empty old", "delete stack dev-1-old",
	"workloads", "health", "end turn", "tell update-done", "status",
}

// ordered sorts the stacks of pools, which are applied at the same time.
func ordered(story []string) []string {
	out := slices.Clone(story)
	for from := 0; from < len(out); from++ {
		to := from
		for to < len(out) && (strings.HasPrefix(out[to], "stack dev-1-") || strings.HasPrefix(out[to], "plan stack") || strings.HasPrefix(out[to], "delete stack dev-1-")) {
			to++
		}
		slices.Sort(out[from:to])
		from = max(from, to)
	}
	return out
}

func problemTypes(problems []registry.Problem) (types []string) {
	for _, problem := range problems {
		types = append(types, problem.Type)
	}
	return types
}
