package tests

import (
	"context"
	"fmt"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"
	sdk "go.temporal.io/sdk/temporal"
	sdkworker "go.temporal.io/sdk/worker"

	"github.com/fairway-project/fairway/workflows"
)

// startActors runs the actors of the clusters and of the fleet on a task queue of their
// own: the workers of the tests come and go, and whoever wants to change something asks the actors.
func startActors(ctx context.Context, c client.Client, clusters ...string) (stop func(), err error) {
	w := sdkworker.New(c, "actors", sdkworker.Options{})
	w.RegisterWorkflow(workflows.Cluster)
	w.RegisterWorkflow(workflows.Fleet)
	if err := w.Start(); err != nil {
		return nil, fmt.Errorf("starting the actors' worker: %w", err)
	}
	for _, cluster := range clusters {
		if _, err := c.ExecuteWorkflow(ctx, client.StartWorkflowOptions{
			ID: workflows.ClusterID(cluster), TaskQueue: "actors",
			WorkflowIDConflictPolicy: enumspb.WORKFLOW_ID_CONFLICT_POLICY_USE_EXISTING,
			TypedSearchAttributes:    sdk.NewSearchAttributes(workflows.ClusterAttribute.ValueSet(cluster)),
		}, workflows.Cluster, workflows.ClusterState{Cluster: cluster}); err != nil {
			w.Stop()
			return nil, fmt.Errorf("starting the actor of cluster %s: %w", cluster, err)
		}
	}
	if _, err := c.ExecuteWorkflow(ctx, client.StartWorkflowOptions{
		ID: workflows.FleetID, TaskQueue: "actors", WorkflowIDConflictPolicy: enumspb.WORKFLOW_ID_CONFLICT_POLICY_USE_EXISTING,
	}, workflows.Fleet, workflows.FleetState{}); err != nil {
		w.Stop()
		return nil, fmt.Errorf("starting the actor of the fleet: %w", err)
	}
	return w.Stop, nil
}
