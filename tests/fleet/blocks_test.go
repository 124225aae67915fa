package fleet

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/autoscaling"
	"github.com/stretchr/testify/require"
	"go.temporal.io/api/workflow/v1"
	"go.temporal.io/sdk/client"

	"github.com/fairway-project/fairway/lab"
	"github.com/fairway-project/fairway/workflows"
)

// blockAndLift blocks a cluster in the middle of an update, and lifts the block when nothing has changed
// for a while.
func blockAndLift(t *testing.T, cluster, reason string) {
	t.Helper()
	succeeds(t, nil, "cluster", "block", cluster, "--reason", reason, "--now")
	staysAsItIs(t, cluster)
	statusTells(t, reason)
	succeeds(t, nil, "cluster", "unblock", cluster)
}

// staysAsItIs checks for a while that Fairway asks neither AWS nor the API server of a cluster for a
// change. Machines that come up meanwhile were asked for before.
func staysAsItIs(t *testing.T, cluster string) {
	t.Helper()
	stacks, nodes, writes := stacksOf(t, cluster), instancesOf(t, cluster), writesTo(cluster)
	for end := time.Now().Add(3 * time.Second); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		require.Equal(t, stacks, stacksOf(t, cluster), "no stack is changed")
		require.Subset(t, instancesOf(t, cluster), nodes, "no node is ended")
	}
	require.Equal(t, writes, writesTo(cluster), "the API server gets no request that changes something")
}

// stacksOf tells what CloudFormation has done to the stacks of a cluster so far.
func stacksOf(t *testing.T, cluster string) map[string]string {
	t.Helper()
	out := map[string]string{}
	for name, stack := range allStacks(t) {
		if strings.HasSuffix(name, cluster) {
			out[name] = string(stack.StackStatus)
			if stack.LastUpdatedTime != nil {
				out[name] += stack.LastUpdatedTime.String()
			}
		}
	}
	return out
}

// instancesOf are all that the groups of a cluster have.
func instancesOf(t *testing.T, cluster string) (ids []string) {
	t.Helper()
	pages := autoscaling.NewDescribeAutoScalingGroupsPaginator(scaling, &autoscaling.DescribeAutoScalingGroupsInput{})
	for pages.HasMorePages() {
		page, err := pages.NextPage(t.Context())
		require.NoError(t, err)
		for _, group := range page.AutoScalingGroups {
			if strings.HasSuffix(*group.AutoScalingGroupName, "-"+cluster) {
				for _, instance := range group.Instances {
					ids = append(ids, *instance.InstanceId)
				}
			}
		}
	}
	return ids
}

// writesTo are the requests of Fairway that the API server of a cluster has answered and that may have
// changed something; none if there is no API server. That a node which comes up is kept from the autoscaler
// is no change that a block holds.
func writesTo(cluster string) (writes []string) {
	audit, err := theLab.Audit(cluster)
	if err != nil {
		return nil
	}
	for _, event := range audit.By("fairway").Where(func(e lab.AuditEvent) bool {
		return slices.Contains([]string{"create", "update", "patch", "delete", "deletecollection"}, e.Verb) && !strings.Contains(e.URI, "dryRun=All") &&
			!strings.Contains(string(e.Request), "scale-down-held-by")
	}) {
		writes = append(writes, event.String())
	}
	return writes
}

// blockWhileNobodyIsThere gives a block that holds the update of a cluster, and expires while neither the
// worker nor Temporal is there to see it.
func blockWhileNobodyIsThere(t *testing.T, cluster string) {
	t.Helper()
	var block workflows.Block
	succeeds(t, &block, "cluster", "block", cluster, "--reason", "it ends by itself", "--for", "8s")
	require.Eventually(t, func() bool {
		update, err := temporal.DescribeWorkflowExecution(t.Context(), workflows.UpdateClusterID(cluster), "")
		return err == nil && slices.ContainsFunc(update.PendingActivities, func(a *workflow.PendingActivityInfo) bool {
			return a.LastFailure.GetApplicationFailureInfo().GetType() == workflows.Blocked
		})
	}, time.Until(block.Until), 50*time.Millisecond, "the update is not held")
	require.NoError(t, worker.Kill())
	require.NoError(t, theLab.Part("temporal").Kill())
	require.True(t, time.Now().Before(block.Until), "it has expired too early to show anything")
	time.Sleep(time.Until(block.Until))
	require.NoError(t, theLab.Part("temporal").Restart(t.Context()))
	require.Eventually(t, func() bool { // or what the worker does at once is not seen
		_, err := temporal.CheckHealth(t.Context(), &client.CheckHealthRequest{})
		return err == nil
	}, patience, 50*time.Millisecond, "Temporal does not answer")
	require.NoError(t, worker.Restart(t.Context()))
}

// blockWhileItVerifies gives a block when all is changed and only the health of the cluster is waited for.
// Nothing is left to hold, so the update is seen through; the next one does not begin.
func blockWhileItVerifies(t *testing.T, cluster, channel string) {
	t.Helper()
	begin := push(t, channel, "Begin", nil)
	follow(t, channel, cluster)
	reaches(t, cluster, begin)
	endAlarm := alarm(t, cluster) // which the update is said to mend
	succeeds(t, nil, "cluster", "block", cluster, "--reason", "not yet")
	commit := push(t, channel, "Run more of the shop", edits{"config-defaults.yaml": replaced(t, `shop_frontend_replicas: "6"`, `shop_frontend_replicas: "7"`)})
	await(t, cluster, "a wish for "+commit[:8], func(u workflows.ClusterUpdates) bool {
		return strings.HasPrefix(u.Want.Version, commit) && !u.Want.Hold
	})
	succeeds(t, nil, "cluster", "update", cluster, "--fix", "--reason", "to mend it")
	succeeds(t, nil, "cluster", "unblock", cluster)

	inPhase(t, cluster, commit, "verifying")
	succeeds(t, nil, "cluster", "block", cluster, "--reason", "stop in verifying", "--now")
	next := push(t, channel, "Run less of the shop", edits{"config-defaults.yaml": replaced(t, `shop_frontend_replicas: "7"`, `shop_frontend_replicas: "6"`)})
	staysAsItIs(t, cluster)
	inPhase(t, cluster, commit, "verifying")
	endAlarm()
	await(t, cluster, "the end of the update to "+commit[:8], func(u workflows.ClusterUpdates) bool { return strings.HasPrefix(u.Current, commit) && u.Running == nil })
	awaitHead(t, channel, next)
	staysAsItIs(t, cluster)
	holds(t, cluster, func(u workflows.ClusterUpdates) bool { return strings.HasPrefix(u.Current, commit) && u.Running == nil })
	succeeds(t, nil, "cluster", "unblock", cluster)
	reaches(t, cluster, next)
}
