package main

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/temporal"

	"github.com/fairway-project/fairway/roll"
	"github.com/fairway-project/fairway/workflows"
)

// planned is a cluster whose worker pool gets a new launch template.
func planned(t *testing.T) *fakeTemporal {
	stacks := map[string]workflows.StackChanges{
		"etcd-dev-1":   {Stack: "etcd-dev-1"},
		"dev-1":        {Stack: "dev-1", Changes: []workflows.ResourceChange{{Action: "Modify", Resource: "Role", Type: "AWS::IAM::Role", Replacement: "False", Detail: "Policies"}}},
		"dev-1-master": {Stack: "dev-1-master"},
		"dev-1-worker": {Stack: "dev-1-worker", Changes: []workflows.ResourceChange{
			{Action: "Modify", Resource: "LaunchTemplate", Type: "AWS::EC2::LaunchTemplate", Replacement: "False", Detail: "LaunchTemplateData"}}},
		"dev-1-batch": {Stack: "dev-1-batch", Created: true, Changes: []workflows.ResourceChange{{Action: "Add", Resource: "Group", Type: "AWS::AutoScaling::AutoScalingGroup"}}},
	}
	nodes := []workflows.Node{{Name: "n1", Instance: "i-1", Zone: "a", Ready: true}, {Name: "n2", Instance: "i-2", Zone: "a", Ready: true}}
	pool := workflows.Pool{Group: "g", Max: 9, Desired: 2, Instances: []workflows.Instance{{ID: "i-1", Lifecycle: "InService"}, {ID: "i-2", Lifecycle: "InService"}}}
	return &fakeTemporal{t: t,
		activities: map[string]any{
			"PrepareUpdate": workflows.UpdatePlan{
				Cluster: workflows.ClusterInfo{ID: "dev-1", Lifecycle: "ready", Version: older}, Version: newer, Commit: newCommit, Stacks: []string{"etcd-dev-1", "dev-1"},
				Pools:     []workflows.PlannedPool{{Name: "master", Stack: "dev-1-master", ControlPlane: true}, {Name: "worker", Stack: "dev-1-worker"}, {Name: "batch", Stack: "dev-1-batch"}},
				Manifests: 3, Deletions: 1, Settings: workflows.UpdateSettings{ParallelPools: 2},
			},
			"PlanStack":  func(in any) any { return stacks[in.(workflows.StackOf).Stack] },
			"ListStacks": []workflows.OwnedStack{{Name: "dev-1"}, {Name: "dev-1-worker", Pool: "worker"}, {Name: "dev-1-old", Pool: "old"}},
			"PlanManifests": []workflows.ObjectChange{
				{Action: "unchanged", Kind: "Namespace", Name: "shop"}, {Action: "change", Kind: "Deployment", Name: "kube-system/coredns", File: "coredns/deployment.yaml", Diff: "-  cpu: 1\n+  cpu: 2\n"},
				{Action: "delete", Kind: "Service", Name: "shop/old"}, {Action: "conflict", Kind: "ConfigMap", Name: "a/b", Diff: "field .data is owned by kubectl"},
			},
			"FindPool": func(in any) any {
				return workflows.PoolInfo{Cluster: workflows.ClusterInfo{ID: "dev-1"}, Pool: in.(workflows.FindPool).Pool, Settings: roll.Settings{Surge: roll.Share{Count: 1}, Parallel: 1}}
			},
			"ExaminePool": pool,
			"SurveyPool":  nodes,
			"Preflight":   []workflows.Finding{{Kind: "never-allowed", Namespace: "shop", Name: "db", Holds: true, Problem: "allows nothing", Nodes: []string{"n1"}}},
		},
		queries: map[string]any{"cluster/dev-1": workflows.ClusterState{Updates: workflows.ClusterUpdates{Current: older}}},
	}
}

func planOf(t *testing.T, f *fakeTemporal) (clusterPlan, string, error) {
	t.Helper()
	var progress bytes.Buffer
	cmd := &cobra.Command{}
	cmd.SetContext(t.Context())
	cmd.SetErr(&progress)
	plan, err := f.connection().planCluster(cmd, workflows.PrepareUpdate{Cluster: "dev-1", Ref: "dev"})
	return plan, progress.String(), err
}

func TestAPlanSaysWhatWouldChange(t *testing.T) {
	f := planned(t)
	plan, progress, err := planOf(t, f)
	require.NoError(t, err)
	require.True(t, plan.Changes)
	require.Equal(t, workflows.PrepareUpdate{Cluster: "dev-1", Ref: "dev"}, f.asked["PrepareUpdate"])
	require.Contains(t, progress, "render the version: 9f2c41d3#aaaaaaaa, with 3 objects and 3 pools")
	require.Contains(t, progress, "plan stack dev-1-worker: 1 change")
	require.Contains(t, progress, "plan the manifests: 1 changed, 1 deleted, 1 in conflict, 1 as they are")
	require.Contains(t, progress, "look at pool worker: 2 of 2 nodes replaced")

	text := shown(t, func(table *table) { plan.show(table, false) })
	require.Contains(t, text, "Plan of version 9f2c41d3#aaaaaaaa for cluster dev-1, which has 1b7e0055#bbbbbbbb; nothing has been changed.")
	requireRow(t, text, "etcd-dev-1", "no change")
	requireRow(t, text, "dev-1", "Modify", "Role", "AWS::IAM::Role", "False", "Policies")
	require.Contains(t, text, "Manifests: 1 changed, 1 deleted, 1 in conflict, 1 as they are; deletions.yaml has 1 entry.")
	requireRow(t, text, "change", "Deployment", "kube-system/coredns", "coredns/deployment.yaml")
	require.NotContains(t, text, "cpu: 2")
	require.Contains(t, text, "field .data is owned by kubectl", "a conflict is always explained")
	requireRow(t, text, "master", "unchanged", "2", "0", "0")
	requireRow(t, text, "worker", "rolls", "2", "0", "2", "2", "unknown", "launch template LaunchTemplate changes (LaunchTemplateData)")
	requireRow(t, text, "batch", "added")
	requireRow(t, text, "old", "removed", "2", "0", "2")
	require.Contains(t, text, "never-allowed shop/db (no owner): allows nothing")
	require.Contains(t, shown(t, func(table *table) { plan.show(table, true) }), "+  cpu: 2")
}

func TestAPlanWithoutChangesSaysSo(t *testing.T) {
	f := planned(t)
	f.activities["PlanStack"] = func(in any) any { return workflows.StackChanges{Stack: in.(workflows.StackOf).Stack} }
	f.activities["ListStacks"] = []workflows.OwnedStack{}
	f.activities["PlanManifests"] = []workflows.ObjectChange{{Action: "unchanged", Kind: "Namespace", Name: "shop"}}
	plan, _, err := planOf(t, f)
	require.NoError(t, err)
	require.False(t, plan.Changes)
	require.Contains(t, shown(t, func(table *table) { plan.show(table, false) }), "Nothing would change.")
}

func TestNodesThatAreOldAlreadyWouldRoll(t *testing.T) {
	f := planned(t)
	f.activities["PlanStack"] = func(in any) any { return workflows.StackChanges{Stack: in.(workflows.StackOf).Stack} }
	pool := f.activities["ExaminePool"].(workflows.Pool)
	pool.Instances = []workflows.Instance{{ID: "i-1", Lifecycle: "InService", Old: true}, {ID: "i-2", Lifecycle: "InService"}}
	f.activities["ExaminePool"] = pool
	plan, _, err := planOf(t, f)
	require.NoError(t, err)
	require.Equal(t, "rolls", plan.Pools[1].What)
	require.Equal(t, "1 node is old already", plan.Pools[1].Why)
	require.Equal(t, []string{"n1"}, plan.Pools[1].Goes)
}

func TestANewClusterHasNoAPIServerToAsk(t *testing.T) {
	f := planned(t)
	update := f.activities["PrepareUpdate"].(workflows.UpdatePlan)
	update.Cluster.Lifecycle, update.Cluster.Version = "requested", ""
	f.activities["PrepareUpdate"], f.queries = update, nil
	delete(f.activities, "PlanManifests")
	delete(f.activities, "SurveyPool")
	plan, _, err := planOf(t, f)
	require.NoError(t, err)
	require.True(t, plan.New)
	require.Contains(t, shown(t, func(table *table) { plan.show(table, false) }), "The cluster does not exist yet")
}

func TestAPlanThatCannotBeMadeSaysWhy(t *testing.T) {
	f := planned(t)
	f.activities["PlanManifests"] = temporal.NewApplicationError("the API server of dev-1 does not answer", workflows.Unreachable)
	_, progress, err := planOf(t, f)
	var status *statusError
	require.ErrorAs(t, err, &status)
	require.Equal(t, exitUnreachable, status.status)
	require.ErrorContains(t, err, "the API server of dev-1 does not answer")
	require.Contains(t, progress, "plan the manifests: failed")
}

func TestPoolsTakeAsLongAsTheLongestLane(t *testing.T) {
	rolls := func(minutes int, controlPlane bool) poolChange {
		return poolChange{What: "rolls", Goes: []string{"n"}, ControlPlane: controlPlane, Estimate: estimate{Expected: time.Duration(minutes) * time.Minute}}
	}
	for rule, test := range map[string]struct {
		pools    []poolChange
		parallel int
		want     time.Duration
	}{
		"nothing rolls":            {nil, 2, 0},
		"masters go first":         {[]poolChange{rolls(10, true), rolls(5, true), rolls(7, false)}, 2, 22 * time.Minute},
		"workers go in parallel":   {[]poolChange{rolls(10, false), rolls(6, false), rolls(5, false)}, 2, 11 * time.Minute},
		"one at a time":            {[]poolChange{rolls(10, false), rolls(6, false)}, 1, 16 * time.Minute},
		"what is unknown is none":  {[]poolChange{rolls(10, false), {What: "rolls", Goes: []string{"n"}}}, 2, 10 * time.Minute},
		"unchanged pools are none": {[]poolChange{{What: "unchanged"}}, 2, 0},
	} {
		t.Run(rule, func(t *testing.T) { require.Equal(t, test.want, together(test.pools, test.parallel).Expected) })
	}
	require.Contains(t, together([]poolChange{rolls(1, false), {What: "rolls", Goes: []string{"n"}}}, 1).Basis, "of 1 more nothing is known")
}

func TestTheErrorOfTheWorkerDecidesTheExitStatus(t *testing.T) {
	for kind, want := range map[string]int{
		workflows.InvalidInput: exitUsage, workflows.VersionGone: exitUsage, workflows.StackFailed: exitFailed, workflows.Unhealthy: exitFailed, workflows.Unreachable: exitUnreachable,
	} {
		var status *statusError
		require.True(t, errors.As((&connection{}).explain(temporal.NewApplicationError("text", kind)), &status))
		require.Equal(t, want, status.status, kind)
	}
}
