package main

import (
	"context"
	"fmt"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"

	"github.com/fairway-project/fairway/config"
	"github.com/fairway-project/fairway/workflows"
)

// startActors makes sure that every cluster of the registry has its actor, so that people can
// send it signals by hand. One that runs already is left as it is.
func startActors(ctx context.Context, temporalClient client.Client, c config.Config) error {
	clusters, err := c.Registry.Clusters(ctx)
	if err != nil {
		return err
	}
	for _, cluster := range clusters {
		_, err := temporalClient.ExecuteWorkflow(ctx, client.StartWorkflowOptions{
			ID:                       workflows.ClusterID(cluster.ID),
			TaskQueue:                c.TaskQueue,
			WorkflowIDConflictPolicy: enumspb.WORKFLOW_ID_CONFLICT_POLICY_USE_EXISTING,
			StaticSummary:            "cluster " + cluster.ID,
			TypedSearchAttributes: temporal.NewSearchAttributes(workflows.ClusterAttribute.ValueSet(cluster.ID),
				workflows.ChannelAttribute.ValueSet(cluster.Channel), workflows.EnvironmentAttribute.ValueSet(cluster.Environment)),
		}, workflows.Cluster, workflows.ClusterState{Cluster: cluster.ID})
		if err != nil {
			return fmt.Errorf("starting the actor of cluster %s: %w", cluster.ID, err)
		}
	}
	return nil
}
