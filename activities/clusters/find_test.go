package clusters

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/fairway-project/fairway/registry"
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
