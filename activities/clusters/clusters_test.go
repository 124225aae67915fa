package clusters_test

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"

	"github.com/fairway-project/fairway/activities/clusters"
	"github.com/fairway-project/fairway/registry"
	"github.com/fairway-project/fairway/workflows"
)

var fleet = registry.Clusters{
	{
		ID: "dev-1", Alias: "kale", Channel: "dev", Environment: "test", InfrastructureAccount: "aws:123456789012",
		Region: "eu-central-1", LifecycleStatus: registry.Ready, Owner: "anchor", NodePools: []registry.NodePool{{}, {}},
		CriticalityLevel: 2,
		Status:           &registry.Status{CurrentVersion: "abc#def", NextVersion: "abd#def", LastVersion: "abb#def", Problems: []registry.Problem{{Title: "first"}, {Title: "second"}}},
	},
	{ID: "stable-1", Channel: "stable", LifecycleStatus: registry.Requested},
}

func list(t *testing.T, read func(context.Context) (registry.Clusters, error), names ...string) ([]workflows.ClusterInfo, error) {
	t.Helper()
	activities := &clusters.Activities{Read: read}
	var suite testsuite.WorkflowTestSuite
	env := suite.NewTestActivityEnvironment()
	env.RegisterActivity(activities.ListClusters)
	value, err := env.ExecuteActivity(activities.ListClusters, workflows.ListClusters{Names: names})
	if err != nil {
		return nil, err
	}
	var out []workflows.ClusterInfo
	require.NoError(t, value.Get(&out))
	return out, nil
}

func readFleet(context.Context) (registry.Clusters, error) { return fleet, nil }

func TestAllClustersAreListedInTheRegistrysOrder(t *testing.T) {
	got, err := list(t, readFleet)
	require.NoError(t, err)
	require.Equal(t, []workflows.ClusterInfo{
		{
			ID: "dev-1", Alias: "kale", Channel: "dev", Environment: "test", Account: "aws:123456789012", Region: "eu-central-1",
			Lifecycle: "ready", Version: "abc#def", Owner: "anchor", Pools: 2, Problem: "first",
			NextVersion: "abd#def", LastVersion: "abb#def", Criticality: 2, Problems: []registry.Problem{{Title: "first"}, {Title: "second"}},
		},
		{ID: "stable-1", Channel: "stable", Lifecycle: "requested"},
	}, got)
}

func TestClustersAreNamedByIDOrAlias(t *testing.T) {
	got, err := list(t, readFleet, "stable-1", "kale")
	require.NoError(t, err)
	require.Equal(t, "stable-1", got[0].ID)
	require.Equal(t, "dev-1", got[1].ID)
	require.Len(t, got, 2)
}

func TestAnUnknownClusterIsAFinalError(t *testing.T) {
	_, err := list(t, readFleet, "dev-1", "dev-9")
	requireError(t, err, workflows.ClusterNotFound, true, "cluster \"dev-9\" is not in the registry; `fairway cluster list` shows those that are")

	_, err = (&clusters.Activities{Read: readFleet}).Find(t.Context(), "dev-9")
	requireError(t, err, workflows.ClusterNotFound, true, "cluster \"dev-9\" is not in the registry; `fairway cluster list` shows those that are")
}

func TestABrokenRegistryCanBeMended(t *testing.T) {
	broken := func(context.Context) (registry.Clusters, error) {
		return nil, errors.New("registry.yaml:8: clusters[0].regoin: is no known key")
	}
	const want = "the cluster registry is not usable: registry.yaml:8: clusters[0].regoin: is no known key"
	_, err := list(t, broken)
	requireError(t, err, workflows.InvalidInput, false, want)
}

// Activities of an update give up on InvalidInput.
func TestARegistryThatIsBrokenForAWhileEndsNoUpdateThatRuns(t *testing.T) {
	for _, broken := range []error{
		errors.New("registry.yaml:8: clusters[0].regoin: is no known key"),
		&registry.AnswerError{Request: "GET x", Err: errors.New("cut off")},
		&registry.RefusedError{Request: "GET x", Status: 404},
	} {
		known := &clusters.Activities{Read: func(context.Context) (registry.Clusters, error) { return nil, broken }}
		_, err := known.Find(t.Context(), "dev-1")
		requireError(t, err, workflows.Unreachable, false, "the cluster registry is not usable: "+broken.Error())
	}
}

func TestOtherActivitiesFindAClusterByIDOrAlias(t *testing.T) {
	known := &clusters.Activities{Read: readFleet}
	for _, name := range []string{"dev-1", "kale"} {
		cluster, err := known.Find(t.Context(), name)
		require.NoError(t, err)
		require.Equal(t, "dev-1", cluster.ID)
	}
}

func requireError(t *testing.T, err error, kind string, final bool, message string) {
	t.Helper()
	var application *temporal.ApplicationError
	require.ErrorAs(t, err, &application)
	require.Equal(t, kind, application.Type())
	require.Equal(t, final, application.NonRetryable())
	require.Equal(t, message, application.Message())
}

// write runs the activity WriteStatus with what the registry answers to each call, and returns the calls.
func write(t *testing.T, in workflows.WriteStatus, answers ...error) (calls []registry.LifecycleStatus, err error) {
	t.Helper()
	activities := &clusters.Activities{Write: func(_ context.Context, id string, status registry.Status, lifecycle registry.LifecycleStatus) error {
		require.Equal(t, in.Cluster, id)
		require.Equal(t, in.Status, status)
		calls = append(calls, lifecycle)
		return answers[len(calls)-1]
	}}
	var suite testsuite.WorkflowTestSuite
	env := suite.NewTestActivityEnvironment()
	env.RegisterActivity(activities.WriteStatus)
	_, err = env.ExecuteActivity(activities.WriteStatus, in)
	return calls, err
}

var ready = workflows.WriteStatus{
	Cluster: "dev-1", Lifecycle: registry.Ready,
	Status: registry.Status{CurrentVersion: "abc#def", Problems: []registry.Problem{{Type: "x", Title: "y"}}},
}

func TestAStatusIsWrittenWithTheLifecycleThatWasReached(t *testing.T) {
	calls, err := write(t, ready, nil)
	require.NoError(t, err)
	require.Equal(t, []registry.LifecycleStatus{registry.Ready}, calls)
}

func TestALifecycleThatPeopleHaveOvertakenDoesNotKeepTheStatusFromBeingWritten(t *testing.T) {
	calls, err := write(t, ready, &registry.LifecycleError{Cluster: "dev-1", From: registry.DecommissionRequested, To: registry.Ready}, nil)
	require.NoError(t, err)
	require.Equal(t, []registry.LifecycleStatus{registry.Ready, ""}, calls)
}

func TestWhatKeepsAStatusFromBeingWrittenIsTyped(t *testing.T) {
	for name, test := range map[string]struct {
		err   error
		kind  string
		final bool
	}{
		"unknown cluster": {&registry.UnknownClusterError{Name: "dev-1"}, workflows.ClusterNotFound, true},
		"no answer":       {&registry.UnreachableError{Request: "PATCH x", Err: errors.New("connection refused")}, workflows.Unreachable, false},
		"a wrong token":   {&registry.RefusedError{Request: "PATCH x", Status: 401}, workflows.AccessDenied, false},
		"a weak token":    {&registry.RefusedError{Request: "PATCH x", Status: 403}, workflows.AccessDenied, false},
		"an older state":  {&registry.RefusedError{Request: "PATCH x", Status: 412}, workflows.Unreachable, false},
		"refused":         {&registry.RefusedError{Request: "PATCH x", Status: 400}, workflows.InvalidInput, false},
		"nonsense":        {&registry.AnswerError{Request: "PATCH x", Err: errors.New("cut off")}, workflows.InvalidInput, false},
		"a broken file":   {errors.New("registry.status.yaml:1: broken"), workflows.InvalidInput, false},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := write(t, ready, test.err)
			var application *temporal.ApplicationError
			require.ErrorAs(t, err, &application)
			require.Equal(t, test.kind, application.Type())
			require.Equal(t, test.final, application.NonRetryable())
			require.Contains(t, application.Message(), test.err.Error())
		})
	}
}

func TestARegistryThatDoesNotAnswerIsToldFromABrokenOne(t *testing.T) {
	down := func(context.Context) (registry.Clusters, error) {
		return nil, &registry.UnreachableError{Request: "GET x", Err: errors.New("connection refused")}
	}
	_, err := list(t, down)
	requireError(t, err, workflows.Unreachable, false, "the cluster registry is not usable: the cluster registry does not answer: GET x: connection refused")
}
