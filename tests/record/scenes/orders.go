package main

import (
	"context"
	"fmt"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"

	"github.com/fairway-project/fairway/workflows"
)

// ordered has people block, unblock and decide about forcing pods in every way, which lets the held
// pod go in the end.
func ordered(ctx context.Context, p *pool) error {
	if err := p.when(ctx, "its node is drained", draining); err != nil {
		return err
	}
	nodes, err := p.nodeNames(ctx, 9)
	if err != nil {
		return err
	}
	if err := p.order(ctx, workflows.BlockName, workflows.BlockRequest{Pool: p.name, Reason: "a scene", By: "the recorder"}); err != nil {
		return err
	}
	time.Sleep(5 * time.Second) // the drain sees it
	for _, node := range nodes {
		force := workflows.ForceRequest{Node: node, Mode: workflows.ForceForbid, Reason: "a scene"}
		for _, order := range []func() error{
			func() error {
				return p.signal(ctx, workflows.BlockName, workflows.BlockRequest{Pool: p.name, Reason: "a scene", For: "1s"})
			},
			func() error { return p.signal(ctx, workflows.BlockName, workflows.BlockRequest{Pool: p.name}) },
			func() error { return p.signal(ctx, workflows.UnblockName, workflows.UnblockRequest{}) },
			func() error { return p.order(ctx, workflows.BlockName, workflows.BlockRequest{Reason: "a scene"}) },
			func() error { return p.order(ctx, workflows.UnblockName, workflows.UnblockRequest{}) },
			func() error { return p.order(ctx, workflows.ForceName, force) },
			func() error { force.Mode = workflows.ForceByRule; return p.signal(ctx, workflows.ForceName, force) },
			func() error { return p.signal(ctx, workflows.ForceName, workflows.ForceRequest{}) },
			func() error { force.Mode = workflows.ForceNow; return p.order(ctx, workflows.ForceName, force) },
		} {
			if err := order(); err != nil {
				return err
			}
		}
	}
	return nil
}

func (p *pool) signal(ctx context.Context, name string, argument any) error {
	return p.temporal.SignalWorkflow(ctx, workflows.ClusterID(cluster), "", name, argument)
}

// order updates the cluster's actor, and starts it if need be.
func (p *pool) order(ctx context.Context, name string, argument any) error {
	handle, err := p.temporal.UpdateWithStartWorkflow(ctx, client.UpdateWithStartWorkflowOptions{
		StartWorkflowOperation: p.temporal.NewWithStartWorkflowOperation(client.StartWorkflowOptions{
			ID: workflows.ClusterID(cluster), TaskQueue: taskQueue,
			WorkflowIDConflictPolicy: enumspb.WORKFLOW_ID_CONFLICT_POLICY_USE_EXISTING,
		}, workflows.Cluster, workflows.ClusterState{Cluster: cluster}),
		UpdateOptions: client.UpdateWorkflowOptions{UpdateName: name, Args: []any{argument}, WaitForStage: client.WorkflowUpdateStageCompleted},
	})
	if err == nil {
		err = handle.Get(ctx, nil)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}
