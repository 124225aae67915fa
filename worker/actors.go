package main

import (
	"context"
	"fmt"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"
	"golang.org/x/sync/errgroup"

	"github.com/fairway-project/fairway/config"
	"github.com/fairway-project/fairway/registry"
	"github.com/fairway-project/fairway/workflows"
)

// startActors makes sure that every cluster of the registry has its actor, so that people can
// send it signals by hand. One that runs already is left as it is. Several are asked for at a time: a
// large fleet is not to keep the worker from being ready.
func startActors(ctx context.Context, temporalClient client.Client, c config.Config) error {
	clusters, err := c.Clusters(ctx)
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(startedAtOnce)
	for _, cluster := range clusters {
		group.Go(func() error { return startActor(ctx, temporalClient, c.TaskQueue, cluster) })
	}
	return group.Wait()
}

// startedAtOnce bounds the requests to Temporal in flight.
const startedAtOnce = 10

func startActor(ctx context.Context, temporalClient client.Client, taskQueue string, cluster registry.Cluster) error {
	_, err := temporalClient.ExecuteWorkflow(ctx, client.StartWorkflowOptions{
		ID:                       workflows.ClusterID(cluster.ID),
		TaskQueue:                taskQueue,
		WorkflowIDConflictPolicy: enumspb.WORKFLOW_ID_CONFLICT_POLICY_USE_EXISTING,
		StaticSummary:            "cluster " + cluster.ID,
		TypedSearchAttributes: temporal.NewSearchAttributes(workflows.ClusterAttribute.ValueSet(cluster.ID),
			workflows.ChannelAttribute.ValueSet(cluster.Channel), workflows.EnvironmentAttribute.ValueSet(cluster.Environment)),
	}, workflows.Cluster, workflows.ClusterState{Cluster: cluster.ID})
	if err != nil {
		return fmt.Errorf("starting the actor of cluster %s: %w", cluster.ID, err)
	}
	return nil
}
