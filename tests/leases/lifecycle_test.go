package leases

import (
	"os"
	"strings"
	"testing"
	"time"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling"
	"github.com/aws/aws-sdk-go-v2/service/cloudformation"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"

	"github.com/fairway-project/fairway/activities/activitytest"
	"github.com/fairway-project/fairway/e2e"
	"github.com/fairway-project/fairway/registry"
	"github.com/fairway-project/fairway/tests/product"
	"github.com/fairway-project/fairway/workflows"
)

// A cluster that only a lease knows is provisioned and decommissioned as those of the registry are, although
// the fleet is blocked; all of it carries the tags of the lease.
func TestALeasedClusterComesAndGoes(t *testing.T) {
	const id = "e2e-7-abcdef0"
	head, err := product.Git(t.Context(), t.TempDir(), "ls-remote", product.Remote(theLab), "refs/heads/dev")
	require.NoError(t, err)
	commit, _, _ := strings.Cut(head, "\t")

	var lease e2e.Lease
	require.NoError(t, activitytest.Worker{}.Run(clusters.LeaseCluster, workflows.LeaseCluster{
		Request: e2e.Request{ID: "7/" + commit, Cluster: id, Number: 7, Channel: "dev", Base: commit, Head: commit, By: "author"},
		Account: account, Workflow: workflows.TestID("7/" + commit),
	}, &lease))
	blockFleet(t)

	update(t, workflows.UpdateClusterInput{Cluster: id, Kind: workflows.Provision, Version: registry.Version(commit, lease.Cluster), Attempt: 1})
	ready, found, err := clusters.Leases.Find(t.Context(), id)
	require.NoError(t, err)
	require.True(t, found)
	require.Equal(t, registry.Ready, ready.Cluster.LifecycleStatus)
	require.Equal(t, registry.Version(commit, lease.Cluster), ready.Cluster.Status.CurrentVersion)
	kubeconfig, err := os.ReadFile(theLab.Env()["KUBECONFIG"])
	require.NoError(t, err)
	require.Contains(t, string(kubeconfig), id)

	want := map[string]string{
		e2e.LeaseTag: id, e2e.OwnerTag: "author", e2e.CostTag: "e2e/7", e2e.ExpiresTag: lease.Expires.Format(time.RFC3339), "cost-centre": "tests",
	}
	stacks, groups, instances, volumes := 0, 0, 0, 0
	for kind, counted := range map[string]*int{"stack": &stacks, "group": &groups, "instance": &instances, "volume": &volumes} {
		for name, tags := range made(t, id)[kind] {
			if tags["kubernetes.io/created-for/pvc/name"] != "" {
				continue // made by the cluster's storage driver, which knows the cluster's own tag only
			}
			*counted++
			for key, value := range want {
				require.Equal(t, value, tags[key], "%s %s: tag %s", kind, name, key)
			}
		}
	}
	t.Logf("%d stacks, %d groups, %d instances, %d volumes carry the tags", stacks, groups, instances, volumes)
	require.GreaterOrEqual(t, stacks, 4, "the cluster's and one of each pool")
	require.Equal(t, 3, groups)
	require.GreaterOrEqual(t, instances, 7)
	var cost e2e.Cost
	change := workflows.ChangeLease{Cluster: id, Account: account, Lifecycle: string(registry.DecommissionRequested)}
	require.NoError(t, activitytest.Worker{}.Run(clusters.EstimateCost, change, &cost))
	require.Positive(t, cost.Hours)
	require.InDelta(t, cost.Hours*3600, cost.Amount, 0.001)
	require.Empty(t, cost.Unpriced)

	require.NoError(t, activitytest.Worker{}.Run(clusters.ChangeLease, change, &lease))
	update(t, workflows.UpdateClusterInput{Cluster: id, Kind: workflows.Decommission, Version: string(workflows.Decommission), Attempt: 1})
	for kind, of := range made(t, id) {
		require.Empty(t, of, "nothing is left of kind %s", kind)
	}
	require.Eventually(t, func() bool {
		kubeconfig, err := os.ReadFile(theLab.Env()["KUBECONFIG"])
		return err == nil && !strings.Contains(string(kubeconfig), id) && !hasParts(id)
	}, time.Minute, 200*time.Millisecond, "its control plane and the kubeconfig's context are gone")

	require.NoError(t, activitytest.Worker{}.Run(clusters.EndLease, change, nil))
	for _, prefix := range []string{"leases/", "entries/" + id + "/", "templates/" + id + "/"} {
		keys, err := clusters.Leases.Bucket.List(t.Context(), lease.Cluster, prefix)
		require.NoError(t, err)
		require.Empty(t, keys)
	}
	written, err := settings.Registry.Clusters(t.Context())
	require.NoError(t, err)
	for _, cluster := range written {
		require.NotEqual(t, id, cluster.ID)
	}
}

// update runs UpdateCluster to its end.
func update(t *testing.T, in workflows.UpdateClusterInput) {
	t.Helper()
	run, err := temporal.ExecuteWorkflow(t.Context(), client.StartWorkflowOptions{ID: workflows.UpdateClusterID(in.Cluster), TaskQueue: settings.TaskQueue}, workflows.UpdateCluster, in)
	require.NoError(t, err)
	var progress workflows.UpdateProgress
	require.NoError(t, run.Get(t.Context(), &progress))
	require.Equal(t, "done", progress.Phase, "%+v", progress)
}

// blockFleet has everybody else change nothing.
func blockFleet(t *testing.T) {
	t.Helper()
	_, err := temporal.SignalWithStartWorkflow(t.Context(), workflows.FleetID, workflows.BlockName,
		workflows.BlockRequest{Reason: "only clusters of tests may change", By: "anna"},
		client.StartWorkflowOptions{ID: workflows.FleetID, TaskQueue: settings.TaskQueue}, workflows.Fleet, workflows.FleetState{})
	require.NoError(t, err)
}

// made are the tags of what there is of a cluster, by kind and name.
func made(t *testing.T, cluster string) map[string]map[string]map[string]string {
	t.Helper()
	out := map[string]map[string]map[string]string{"stack": {}, "group": {}, "instance": {}, "volume": {}}
	own := func(kind, name string, tags map[string]string) {
		if tags["kubernetes.io/cluster/"+cluster] == "owned" {
			out[kind][name] = tags
		}
	}
	stacks, err := cloudformation.NewFromConfig(theLab.AWSConfig()).DescribeStacks(t.Context(), nil)
	require.NoError(t, err)
	for _, stack := range stacks.Stacks {
		tags := map[string]string{}
		for _, tag := range stack.Tags {
			tags[*tag.Key] = *tag.Value
		}
		own("stack", *stack.StackName, tags)
	}
	groups, err := autoscaling.NewFromConfig(theLab.AWSConfig()).DescribeAutoScalingGroups(t.Context(), nil)
	require.NoError(t, err)
	for _, group := range groups.AutoScalingGroups {
		tags := map[string]string{}
		for _, tag := range group.Tags {
			tags[*tag.Key] = *tag.Value
		}
		own("group", *group.AutoScalingGroupName, tags)
	}
	machines := ec2.NewFromConfig(theLab.AWSConfig())
	tagsOf := func(all []ec2types.Tag) map[string]string {
		tags := map[string]string{}
		for _, tag := range all {
			tags[*tag.Key] = *tag.Value
		}
		return tags
	}
	instances, err := machines.DescribeInstances(t.Context(), nil)
	require.NoError(t, err)
	for _, reservation := range instances.Reservations {
		for _, instance := range reservation.Instances {
			if state := instance.State.Name; state != ec2types.InstanceStateNameTerminated && state != ec2types.InstanceStateNameShuttingDown {
				own("instance", *instance.InstanceId, tagsOf(instance.Tags))
			}
		}
	}
	volumes, err := machines.DescribeVolumes(t.Context(), &ec2.DescribeVolumesInput{
		Filters: []ec2types.Filter{{Name: awssdk.String("tag-key"), Values: []string{"kubernetes.io/cluster/" + cluster}}},
	})
	require.NoError(t, err)
	for _, volume := range volumes.Volumes {
		own("volume", *volume.VolumeId, tagsOf(volume.Tags))
	}
	return out
}

// hasParts says whether a process of the cluster's control plane runs.
func hasParts(cluster string) bool {
	for _, part := range theLab.Parts() {
		if strings.HasPrefix(part.Name(), "kubernetes/"+cluster+"/") {
			return true
		}
	}
	return false
}
