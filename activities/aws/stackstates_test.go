package aws

import (
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/cloudformation/types"
	"github.com/stretchr/testify/require"

	"github.com/fairway-project/fairway/registry"
)

func TestEveryStatusOfAStackHasANextStep(t *testing.T) {
	want := map[types.StackStatus]step{
		"":                                                       create,
		types.StackStatusDeleteComplete:                          create,
		types.StackStatusReviewInProgress:                        create,
		types.StackStatusCreateComplete:                          update,
		types.StackStatusUpdateComplete:                          update,
		types.StackStatusUpdateRollbackComplete:                  update,
		types.StackStatusImportComplete:                          update,
		types.StackStatusImportRollbackComplete:                  update,
		types.StackStatusCreateInProgress:                        wait,
		types.StackStatusRollbackInProgress:                      wait,
		types.StackStatusUpdateInProgress:                        wait,
		types.StackStatusUpdateRollbackInProgress:                wait,
		types.StackStatusImportInProgress:                        wait,
		types.StackStatusImportRollbackInProgress:                wait,
		types.StackStatusDeleteInProgress:                        wait,
		types.StackStatusRollbackComplete:                        replace,
		types.StackStatusRollbackFailed:                          replace,
		types.StackStatusCreateFailed:                            refuse,
		types.StackStatusUpdateFailed:                            refuse,
		types.StackStatusUpdateRollbackFailed:                    refuse,
		types.StackStatusImportRollbackFailed:                    refuse,
		types.StackStatusDeleteFailed:                            refuse,
		types.StackStatusUpdateCompleteCleanupInProgress:         wait,
		types.StackStatusUpdateRollbackCompleteCleanupInProgress: wait,
	}
	for _, status := range append(types.StackStatus("").Values(), "") {
		expected, known := want[status]
		require.True(t, known, "AWS has a status that nobody has thought of: %s", status)
		todo, why := nextStep(status)
		require.Equal(t, expected, todo, status)
		if todo == replace || todo == refuse {
			require.NotEmpty(t, why, status)
		}
	}
	todo, why := nextStep("SURPRISE")
	require.Equal(t, refuse, todo)
	require.Contains(t, why, "SURPRISE")
}

func TestTheFirstFailureIsTheReason(t *testing.T) {
	event := func(name string, status types.ResourceStatus, reason string) types.StackEvent {
		id, stack := name+"-id", "stack-id"
		if name == "stack" {
			id = stack
		}
		return types.StackEvent{LogicalResourceId: &name, ResourceStatus: status, ResourceStatusReason: &reason, PhysicalResourceId: &id, StackId: &stack}
	}
	newestFirst := []types.StackEvent{
		event("stack", "UPDATE_ROLLBACK_FAILED", "The following resource(s) failed"),
		event("Role", "UPDATE_FAILED", "cannot be undone"),
		event("Group", "CREATE_FAILED", "no such subnet"),
		event("Queue", "CREATE_FAILED", "Resource creation cancelled"),
		event("stack", "UPDATE_IN_PROGRESS", "User Initiated"),
	}
	require.Equal(t, "Group CREATE_FAILED: no such subnet", firstFailure(newestFirst))
	require.Equal(t, "Queue CREATE_FAILED: Resource creation cancelled; Group CREATE_FAILED: no such subnet; Role UPDATE_FAILED: cannot be undone", allFailures(newestFirst))
	require.Equal(t, "Queue CREATE_FAILED: Resource creation cancelled", firstFailure(newestFirst[3:]))
	require.Empty(t, firstFailure(newestFirst[4:]))
}

func TestATagOfAnotherClusterIsRecognised(t *testing.T) {
	s := &Stacks{}
	s.Settings.ClusterTag = "kubernetes.io/cluster/{cluster}"
	cluster := registryCluster("dev-1")
	require.Empty(t, s.otherCluster(cluster, map[string]string{"kubernetes.io/cluster/dev-1": "owned", "team": "x"}))
	require.Equal(t, "kubernetes.io/cluster/dev-10", s.otherCluster(cluster, map[string]string{"kubernetes.io/cluster/dev-1": "owned", "kubernetes.io/cluster/dev-10": "shared"}))
	s.Settings.ClusterTag = "cluster"
	require.Empty(t, s.otherCluster(cluster, map[string]string{"cluster": "owned", "clusters": "owned"}))
}

func registryCluster(id string) registry.Cluster { return registry.Cluster{ID: id} }
