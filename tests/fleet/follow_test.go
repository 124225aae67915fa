package fleet

import (
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/autoscaling/types"
	"github.com/stretchr/testify/require"

	"github.com/fairway-project/fairway/rollout"
)

const workerUserData = "node-pools/worker-default/userdata.yaml"

// A commit changes stacks, nodes and manifests. Both clusters of its channel follow, the canary
// first, whatever dies meanwhile.
func TestACommitReachesTheClustersOfItsChannelInWavesWhateverDies(t *testing.T) {
	t.Parallel()
	const canary, second = "dev-1", "dev-2"
	<-wavesOver
	start := push(t, "dev", "Begin", nil)
	follow(t, "dev", canary, second)
	for _, cluster := range []string{canary, second} {
		reaches(t, cluster, start)
	}
	before := map[string]types.AutoScalingGroup{canary: group(t, canary, "worker"), second: group(t, second, "worker")}
	others := map[string][]string{canary: instances(t, canary, "worker-data"), second: instances(t, second, "worker-data")}

	commit := push(t, "dev", "Mark the workers, and run more of skipper", edits{
		workerUserData:                      func(old string) string { return old + "# " + randomText() + "\n" },
		"config-defaults.yaml":              replaced(t, `skipper_replicas: "3"`, `skipper_replicas: "4"`),
		"manifests/01-namespaces/more.yaml": written("apiVersion: v1\nkind: Namespace\nmetadata: {name: news, labels: {team: platform}}\n"),
		"manifests/news/config.yaml":        written("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: news, namespace: news, labels: {team: platform, application: news}}\ndata: {commit: first}\n"),
	})

	requireFollowed := func(cluster string) {
		t.Helper()
		requireRolled(t, cluster, "worker", before[cluster])
		require.Equal(t, others[cluster], instances(t, cluster, "worker-data"), "a pool that did not change keeps its nodes")
		requireServing(t, cluster)
		require.EqualValues(t, 4, *deployment(t, cluster, "kube-system", "skipper-ingress").Spec.Replicas)
		require.Nil(t, deployment(t, cluster, "kube-system", "kube-dns"), "what deletions.yaml names is gone")
	}

	// Deaths in each phase of the canary's update.
	inPhase(t, canary, commit, "stacks")
	blockWhileNobodyIsThere(t, canary)
	inPhase(t, canary, commit, "manifests")
	require.NoError(t, theLab.Fault("kubernetes/"+canary).Cut())
	time.AfterFunc(3*time.Second, func() { _ = theLab.Fault("kubernetes/" + canary).Heal() })
	inPhase(t, canary, commit, "pools")
	state, known := updates(t, second)
	require.True(t, known)
	require.True(t, strings.HasPrefix(state.Updates.Current, start) && state.Updates.Running == nil, "the second cluster waits for the canary")
	kill(t)
	require.NoError(t, theLab.Part("temporal").Kill())
	require.NoError(t, theLab.Part("temporal").Restart(t.Context()))
	require.NoError(t, theLab.Fault("aws").Cut())
	time.AfterFunc(5*time.Second, func() { _ = theLab.Fault("aws").Heal() })

	reaches(t, canary, commit)
	canaryDone := time.Now()
	requireFollowed(canary)
	knows(t, "dev", commit, rollout.Done, canary)
	inPhase(t, second, commit, "pools") // which leaves the canary time for something else
	branchOff(t, "dev", "verified")
	blockWhileItVerifies(t, canary, "verified")
	done := reaches(t, second, commit)
	last := done.History[len(done.History)-1]
	require.Equal(t, "done", last.Phase)
	require.True(t, last.Began.After(canaryDone.Add(-15*time.Second)), "it began when the canary was done")

	requireFollowed(second)
	knows(t, "dev", commit, rollout.Done, second)
	described := fairway(t, "channel", "describe", "dev")
	require.Zero(t, described.status, described.stderr)
	require.Contains(t, described.stdout, version(commit))
	status := fairway(t, "status")
	require.Zero(t, status.status, status.stderr)
	require.Contains(t, status.stdout, version(commit))
	history := fairway(t, "cluster", "history", canary)
	require.Zero(t, history.status, history.stderr)
	require.Contains(t, history.stdout, version(commit))
}

// kill ends the worker as a crash does, and starts it again.
func kill(t *testing.T) {
	t.Helper()
	require.NoError(t, worker.Kill())
	require.NoError(t, worker.Restart(t.Context()))
}
