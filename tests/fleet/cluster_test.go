package fleet

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling"
	astypes "github.com/aws/aws-sdk-go-v2/service/autoscaling/types"
	"github.com/aws/aws-sdk-go-v2/service/cloudformation"
	cftypes "github.com/aws/aws-sdk-go-v2/service/cloudformation/types"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// kube is an administrator's way to a cluster, past the proxies.
func kube(t *testing.T, cluster string) kubernetes.Interface {
	t.Helper()
	config, err := theLab.RESTConfig(cluster)
	require.NoError(t, err)
	client, err := kubernetes.NewForConfig(config)
	require.NoError(t, err)
	return client
}

func deployment(t *testing.T, cluster, namespace, name string) *appsv1.Deployment {
	t.Helper()
	got, err := kube(t, cluster).AppsV1().Deployments(namespace).Get(t.Context(), name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	require.NoError(t, err)
	return got
}

func group(t *testing.T, cluster, pool string) astypes.AutoScalingGroup {
	t.Helper()
	got, err := scaling.DescribeAutoScalingGroups(t.Context(), &autoscaling.DescribeAutoScalingGroupsInput{
		AutoScalingGroupNames: []string{"nodepool-" + pool + "-" + cluster},
	})
	require.NoError(t, err)
	require.Len(t, got.AutoScalingGroups, 1)
	return got.AutoScalingGroups[0]
}

func instances(t *testing.T, cluster, pool string) (ids []string) {
	t.Helper()
	for _, instance := range group(t, cluster, pool).Instances {
		ids = append(ids, *instance.InstanceId)
	}
	slices.Sort(ids)
	return ids
}

// nodesOf are the nodes of a pool that are Ready.
func nodesOf(t *testing.T, cluster, pool string) (ready []string) {
	t.Helper()
	nodes, err := kube(t, cluster).CoreV1().Nodes().List(t.Context(), metav1.ListOptions{LabelSelector: "node.kubernetes.io/node-pool=" + pool})
	require.NoError(t, err)
	for _, node := range nodes.Items {
		if slices.ContainsFunc(node.Status.Conditions, func(c corev1.NodeCondition) bool {
			return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
		}) {
			ready = append(ready, node.Name)
		}
	}
	return ready
}

// ended counts how often the group has ended each of the instances.
func ended(t *testing.T, cluster, pool string, ids []string) map[string]int {
	t.Helper()
	counts := map[string]int{}
	name := "nodepool-" + pool + "-" + cluster
	pages := autoscaling.NewDescribeScalingActivitiesPaginator(scaling, &autoscaling.DescribeScalingActivitiesInput{AutoScalingGroupName: &name})
	for pages.HasMorePages() {
		page, err := pages.NextPage(t.Context())
		require.NoError(t, err)
		for _, activity := range page.Activities {
			if id, found := strings.CutPrefix(*activity.Description, "Terminating EC2 instance: "); found && slices.Contains(ids, id) {
				counts[id]++
			}
		}
	}
	return counts
}

// requireRolled checks that a pool has wholly new instances, each old one was ended once, and the
// group is as before.
func requireRolled(t *testing.T, cluster, pool string, before astypes.AutoScalingGroup) {
	t.Helper()
	var old []string
	for _, instance := range before.Instances {
		old = append(old, *instance.InstanceId)
	}
	now := group(t, cluster, pool)
	require.Equal(t, []int32{*before.MinSize, *before.MaxSize, *before.DesiredCapacity}, []int32{*now.MinSize, *now.MaxSize, *now.DesiredCapacity}, "%s of %s has its sizes", pool, cluster)
	for _, id := range instances(t, cluster, pool) {
		require.NotContains(t, old, id, "%s of %s has new instances only", pool, cluster)
	}
	counts := ended(t, cluster, pool, old)
	for _, id := range old {
		require.Equal(t, 1, counts[id], "instance %s was ended once", id)
	}
	require.Empty(t, now.SuspendedProcesses)
	for _, tag := range now.Tags {
		require.False(t, strings.HasPrefix(*tag.Key, "fairway.dev/roll"), "the group has no marks of the roll")
	}
}

// requireServing checks that all nodes of a cluster may take pods and carry nothing of a roll.
func requireServing(t *testing.T, cluster string) {
	t.Helper()
	client := kube(t, cluster)
	require.EventuallyWithT(t, func(c *assert.CollectT) { // Kubernetes takes its taint off a little after a node is Ready
		nodes, err := client.CoreV1().Nodes().List(t.Context(), metav1.ListOptions{})
		require.NoError(c, err)
		require.NotEmpty(c, nodes.Items)
		for _, node := range nodes.Items {
			require.False(c, node.Spec.Unschedulable, "node %s is not cordoned", node.Name)
			for _, taint := range node.Spec.Taints {
				require.NotContains(c, taint.Key, "fairway", "node %s", node.Name)
				require.NotEqual(c, corev1.TaintNodeNotReady, taint.Key)
			}
			for key := range node.Annotations {
				require.NotContains(c, key, "fairway.dev/", "node %s", node.Name)
			}
		}
	}, 10*time.Second, 100*time.Millisecond, "the nodes of %s serve", cluster)
}

// stackStatus is the status of a stack; empty if there is none.
func stackStatus(t *testing.T, name string) string {
	t.Helper()
	return stackStatuses(t)[name]
}

// stackStatuses are those of all stacks that are not gone, by name.
func stackStatuses(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	for name, stack := range allStacks(t) {
		out[name] = string(stack.StackStatus)
	}
	return out
}

func allStacks(t *testing.T) map[string]cftypes.Stack {
	t.Helper()
	out := map[string]cftypes.Stack{}
	pages := cloudformation.NewDescribeStacksPaginator(stacks, &cloudformation.DescribeStacksInput{})
	for pages.HasMorePages() {
		page, err := pages.NextPage(t.Context())
		require.NoError(t, err)
		for _, stack := range page.Stacks {
			if stack.StackStatus != cftypes.StackStatusDeleteComplete {
				out[aws.ToString(stack.StackName)] = stack
			}
		}
	}
	return out
}
