package clusters

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/fairway-project/fairway/activities/activitytest"
	"github.com/fairway-project/fairway/registry"
	"github.com/fairway-project/fairway/roll"
	"github.com/fairway-project/fairway/workflows"
)

// Activities of an update give up on InvalidInput.
func TestARegistryThatIsBrokenForAWhileEndsNoUpdateThatRuns(t *testing.T) {
	for _, broken := range []error{
		errors.New("registry.yaml:8: clusters[0].regoin: is no known key"),
		&registry.AnswerError{Request: "GET x", Err: errors.New("cut off")},
		&registry.RefusedError{Request: "GET x", Status: 404},
	} {
		a := Activities{Read: func(context.Context) (registry.Clusters, error) { return nil, broken }}
		_, err := a.read(t.Context())
		var told *temporal.ApplicationError
		require.ErrorAs(t, patient(err), &told)
		require.Equal(t, workflows.Unreachable, told.Type())
		require.False(t, told.NonRetryable())
		require.Equal(t, "the cluster registry is not usable: "+broken.Error(), told.Message())
	}
	require.True(t, ofUpdate(activity.Info{WorkflowType: &workflow.Type{Name: "UpdateCluster"}}))
	require.False(t, ofUpdate(activity.Info{WorkflowType: &workflow.Type{Name: "RollPool"}}))
	require.False(t, ofUpdate(activity.Info{}))
}

// ofTests are the activities where tests are configured: "e2e-7-abc" has one. What is written to it is in writes.
func ofTests(t *testing.T) (a *Activities, writes *[]registry.LifecycleStatus) {
	writes = &[]registry.LifecycleStatus{}
	return &Activities{
		Read: func(context.Context) (registry.Clusters, error) {
			return registry.Clusters{{ID: "dev-1"}, {ID: "dev-2", Alias: "e2e-alias"}}, nil
		},
		Write: func(context.Context, string, registry.Status, registry.LifecycleStatus) error {
			t.Error("the registry was written to")
			return nil
		},
		Settings: func(registry.Cluster, string) (roll.Settings, error) { return roll.Settings{}, nil },
		Leased: func(_ context.Context, id string) (registry.Cluster, bool, error) {
			return registry.Cluster{ID: "e2e-7-abc", Channel: "dev"}, id == "e2e-7-abc", nil
		},
		WriteLease: func(_ context.Context, id string, _ registry.Status, lifecycle registry.LifecycleStatus) error {
			require.Equal(t, "e2e-7-abc", id)
			*writes = append(*writes, lifecycle)
			if lifecycle == registry.Ready {
				return &registry.LifecycleError{Cluster: id, From: registry.DecommissionRequested, To: registry.Ready}
			}
			return nil
		},
	}, writes
}

func TestClustersOfTestsAreFoundByTheirLeaseOnly(t *testing.T) {
	a, _ := ofTests(t)
	found, err := a.Find(t.Context(), "e2e-7-abc")
	require.NoError(t, err)
	require.Equal(t, "e2e-7-abc", found.ID)
	named, err := a.ListClusters(t.Context(), workflows.ListClusters{Names: []string{"dev-1", "e2e-7-abc"}})
	require.NoError(t, err)
	require.Equal(t, []string{"dev-1", "e2e-7-abc"}, []string{named[0].ID, named[1].ID})
	pool, err := a.FindPool(t.Context(), workflows.FindPool{Cluster: "e2e-7-abc", Pool: "worker"})
	require.NoError(t, err)
	require.Equal(t, "e2e-7-abc", pool.Cluster.ID)

	all, err := a.ListClusters(t.Context(), workflows.ListClusters{})
	require.NoError(t, err)
	require.Len(t, all, 2, "those of tests are in no list of all")

	for _, name := range []string{"e2e-8-abc", "e2e-alias"} {
		_, err = a.Find(t.Context(), name)
		var told *temporal.ApplicationError
		require.ErrorAs(t, err, &told)
		require.Equal(t, workflows.ClusterNotFound, told.Type())
		require.True(t, told.NonRetryable())
	}
	a.Leased = nil
	_, err = a.Find(t.Context(), "e2e-alias")
	require.NoError(t, err, "without tests the prefix means nothing")
}

func TestWhatIsKnownOfAClusterOfATestIsWrittenToItsLeaseAndNeverToTheRegistry(t *testing.T) {
	a, writes := ofTests(t)
	require.NoError(t, activitytest.Worker{}.Run(a.WriteStatus, workflows.WriteStatus{Cluster: "e2e-7-abc", Lifecycle: registry.Ready}, nil))
	require.Equal(t, []registry.LifecycleStatus{registry.Ready, ""}, *writes, "somebody wants it gone by now")
}
