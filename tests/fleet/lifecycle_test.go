package fleet

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairway-project/fairway/registry"
	"github.com/fairway-project/fairway/tests/product"
	"github.com/fairway-project/fairway/workflows"
)

// A cluster is asked for, comes up, gets and loses a pool, and goes without a trace.
func TestAClusterComesAndGoesWithoutATrace(t *testing.T) {
	t.Parallel()
	const cluster, channel = "scratch-1", "scratch"
	commit := push(t, channel, "Begin", nil)
	wanted := entry(t, "dev-1")
	wanted.ID, wanted.LocalID, wanted.Alias, wanted.Channel, wanted.Status = cluster, cluster, "", channel, nil
	wanted.APIServerURL = "https://scratch-1.fleet.internal"
	wanted.LifecycleStatus = registry.Requested
	wanted.ConfigItems = map[string]string{"fairway.roll.bad_replacements": "1"}
	ask(t, http.MethodPost, "/kubernetes-clusters", wanted, nil)

	inPhase(t, cluster, commit, "stacks")
	blockAndLift(t, cluster, "stop in provisioning")
	reaches(t, cluster, commit)
	got := entry(t, cluster)
	require.Equal(t, registry.Ready, got.LifecycleStatus)
	requireServing(t, cluster)
	require.NotNil(t, deployment(t, cluster, "shop", "shop-frontend"))
	require.NotEmpty(t, volumes(t, cluster), "its database has volumes")
	require.Greater(t, len(product.Inventory(t, theLab, cluster)), 15, "AWS has much of it")

	// Nothing is to be done for what is the case already, and the plan says so.
	plan := succeeds(t, nil, "cluster", "plan", cluster)
	require.NotContains(t, plan.stdout, "Modify")

	// A pool more whose nodes do not come up: the update fails, and so does each that comes after it, until
	// they are there.
	pools := slices.Clone(got.NodePools)
	extra := pools[1]
	extra.Name, extra.MinSize, extra.MaxSize = "extra", 1, 2
	require.NoError(t, theLab.FailLaunches(t.Context(), "nodepool-extra-"+cluster, 1))
	setItem(t, cluster, "fairway.update.healthy_within", "15s")
	ask(t, http.MethodPatch, "/kubernetes-clusters/"+cluster, map[string]any{"node_pools": append(slices.Clone(pools), extra)}, nil)
	failed := await(t, cluster, "the failure of the new pool", func(u workflows.ClusterUpdates) bool { return u.Failed != nil })
	require.Contains(t, failed.Failed.Problem, "the new pool extra has not got its nodes within 15s: 0 of 1 nodes are ready")
	require.Contains(t, entry(t, cluster).Status.Problems[0].Title, "the new pool extra")
	require.Equal(t, "urn:fairway:"+workflows.Unhealthy, entry(t, cluster).Status.Problems[0].Type)
	require.Eventually(t, func() bool {
		var again workflows.UpdateProgress
		return query(t.Context(), workflows.UpdateClusterID(cluster), workflows.ProgressQuery, &again) && again.Step == "nodes of extra" &&
			again.Started.After(failed.Failed.At)
	}, patience, 50*time.Millisecond, "the next attempt waits for the nodes too")
	_, err := ec2.NewFromConfig(theLab.AWSConfig()).TerminateInstances(t.Context(), &ec2.TerminateInstancesInput{InstanceIds: instances(t, cluster, "extra")})
	require.NoError(t, err)
	reaches(t, cluster, commit)
	require.Len(t, nodesOf(t, cluster, "extra"), 1)
	removeItem(t, cluster, "fairway.update.healthy_within")

	// A pool less: its nodes are drained before its stack goes.
	ask(t, http.MethodPatch, "/kubernetes-clusters/"+cluster, map[string]any{"node_pools": pools}, nil)
	require.Eventually(t, func() bool { return stackStatus(t, "nodepool-extra-"+cluster) == "" }, patience, 200*time.Millisecond)
	got2 := reaches(t, cluster, commit)
	require.Equal(t, workflows.Upgrade, got2.History[len(got2.History)-1].Kind)
	requireServing(t, cluster)

	// Where it is asked for, a cluster goes back by itself from a commit that fails halfway.
	setItem(t, cluster, "fairway.update.rollback", "true")
	asked := registry.Version(commit, entry(t, cluster)) // before that an update goes by the entry as it was
	await(t, cluster, "the entry that asks for it", func(u workflows.ClusterUpdates) bool { return u.Current == asked && u.Running == nil })
	goesBack := func(kind, title string, change edits) (broken string) {
		t.Helper()
		workers, data := instances(t, cluster, "worker"), instances(t, cluster, "worker-data")
		broken = push(t, channel, title, change)
		failed := await(t, cluster, "the way back from "+broken[:8], func(u workflows.ClusterUpdates) bool {
			return u.Failed != nil && strings.HasPrefix(u.Failed.Version, broken) && u.Running == nil
		})
		require.True(t, strings.HasPrefix(failed.Current, commit), "it is on the version that it had: %+v", failed)
		require.Zero(t, failed.Failed.Next, "it is not tried again by itself")
		status := entry(t, cluster).Status
		require.Equal(t, []string{failed.Current, ""}, []string{status.CurrentVersion, status.NextVersion})
		require.Len(t, status.Problems, 1, "going back was no problem")
		require.Equal(t, "urn:fairway:"+kind, status.Problems[0].Type)
		require.EqualValues(t, 2, *deployment(t, cluster, "kube-system", "coredns").Spec.Replicas)
		require.Equal(t, workers, instances(t, cluster, "worker"), "the nodes that it had serve on")
		require.Equal(t, data, instances(t, cluster, "worker-data"))
		requireServing(t, cluster)
		succeeds(t, nil, "cluster", "plan", cluster, "--ref", commit, "--exit-code") // nothing is left of it
		return broken
	}
	goesBack(workflows.InvalidInput, "Change one thing and break another", edits{
		"config-defaults.yaml":                replaced(t, `coredns_replicas: "2"`, `coredns_replicas: "3"`),
		"manifests/shop-frontend/broken.yaml": written(brokenManifest),
	})
	const workerStack = "node-pools/worker-default/stack.yaml"
	goesBack(workflows.StackFailed, "Break a stack after another", edits{
		"manifests/shop-frontend/broken.yaml": nil,
		"cluster.yaml":                        replaced(t, `"ec2:DetachVolume", `, ""),
		workerStack:                           replaced(t, `MaxSize: "{{ .NodePool.MaxSize }}"`, `MaxSize: "0"`),
	})
	require.NoError(t, theLab.FailLaunches(t.Context(), "nodepool-worker-"+cluster, 1))
	head := goesBack(workflows.BadReplacement, "Have new nodes that do not come up", edits{
		workerStack:    replaced(t, `MaxSize: "0"`, `MaxSize: "{{ .NodePool.MaxSize }}"`),
		workerUserData: func(old string) string { return old + "# " + randomText() + "\n" },
	})

	ask(t, http.MethodPatch, "/kubernetes-clusters/"+cluster, map[string]any{"lifecycle_status": "decommission-requested"}, nil)
	inPhase(t, cluster, head, "stacks")
	blockAndLift(t, cluster, "stop in decommissioning")
	require.NotEmpty(t, stackStatus(t, cluster), "the cluster's stack is still there")
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		require.Equal(c, registry.Decommissioned, entry(t, cluster).LifecycleStatus)
	}, patience, 500*time.Millisecond, "it is decommissioned")
	require.Empty(t, product.Inventory(t, theLab, cluster), "nothing is left on AWS")
	require.Eventually(t, func() bool { return product.NoParts(theLab, cluster) }, patience, 200*time.Millisecond, "its control plane is gone")
}

func ownedBy(cluster string) []ec2types.Filter {
	return []ec2types.Filter{{Name: aws.String("tag:kubernetes.io/cluster/" + cluster), Values: []string{"owned"}}}
}

func volumes(t *testing.T, cluster string) (ids []string) {
	t.Helper()
	got, err := ec2.NewFromConfig(theLab.AWSConfig()).DescribeVolumes(t.Context(), &ec2.DescribeVolumesInput{Filters: ownedBy(cluster)})
	require.NoError(t, err)
	for _, volume := range got.Volumes {
		for _, tag := range volume.Tags {
			if strings.HasPrefix(*tag.Key, "kubernetes.io/created-for/") {
				ids = append(ids, *volume.VolumeId)
				break
			}
		}
	}
	return ids
}
