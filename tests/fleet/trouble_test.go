package fleet

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fairway-project/fairway/workflows"
)

const brokenManifest = `apiVersion: apps/v1
kind: Deployment
metadata: {name: broken, namespace: shop, labels: {application: broken, team: shop}}
spec:
  replicas: many
  selector: {matchLabels: {application: broken}}
  template:
    metadata: {labels: {application: broken}}
    spec: {containers: [{name: main, image: example.org/broken}]}
`

// What is wrong with a commit stops its update where it should, and hurts nothing else.
func TestABrokenCommitStopsWhereItShouldAndTheNextOneGoesOn(t *testing.T) {
	t.Parallel()
	const cluster, channel = "alpha-1", "alpha"
	<-wavesOver
	good := push(t, channel, "Begin", nil)
	setItem(t, cluster, "fairway.roll.bad_replacements", "1")
	follow(t, channel, cluster)
	reaches(t, cluster, good)
	data, workers := instances(t, cluster, "worker-data"), instances(t, cluster, "worker")

	fails := func(commit, kind string, texts ...string) workflows.ClusterUpdates {
		t.Helper()
		got := await(t, cluster, "the failure of "+commit[:8], func(u workflows.ClusterUpdates) bool {
			return u.Failed != nil && strings.HasPrefix(u.Failed.Version, commit) && u.Running == nil
		})
		for _, text := range texts {
			require.Contains(t, got.Failed.Problem, text)
		}
		problems := entry(t, cluster).Status.Problems
		require.NotEmpty(t, problems, "the registry has the problem")
		require.Contains(t, problems[0].Type, kind)
		require.Equal(t, data, instances(t, cluster, "worker-data"), "other nodes are left alone")
		return got
	}

	// A template that cannot be rendered: nothing is changed at all.
	commit := push(t, channel, "Break a template", edits{
		"manifests/shop-frontend/service.yaml": func(old string) string { return old + "# {{ .Cluster.ConfigItems.nowhere }}\n" },
	})
	fails(commit, workflows.InvalidInput, "manifests/shop-frontend/service.yaml", "nowhere")
	require.Equal(t, workers, instances(t, cluster, "worker"))
	require.Equal(t, "CREATE_COMPLETE", strings.ReplaceAll(stackStatus(t, cluster), "UPDATE", "CREATE"))

	// A manifest that the API server refuses: named with its file.
	commit = push(t, channel, "Break a manifest", edits{
		"manifests/shop-frontend/service.yaml": func(old string) string { return strings.Split(old, "# {{")[0] },
		"manifests/shop-frontend/broken.yaml":  written(brokenManifest),
	})
	fails(commit, workflows.InvalidInput, "manifests/shop-frontend/broken.yaml", "replicas")

	// A stack that CloudFormation rolls back.
	commit = push(t, channel, "Break a stack", edits{
		"manifests/shop-frontend/broken.yaml": nil,
		"node-pools/worker-default/stack.yaml": func(old string) string {
			return strings.Replace(old, `MaxSize: "{{ .NodePool.MaxSize }}"`, `MaxSize: "0"`, 1)
		},
	})
	fails(commit, workflows.StackFailed, "nodepool-worker-"+cluster)
	require.Equal(t, "UPDATE_ROLLBACK_COMPLETE", stackStatus(t, "nodepool-worker-"+cluster))
	require.Equal(t, workers, instances(t, cluster, "worker"))

	// A node that never comes up: the roll stops, the old nodes serve.
	before := group(t, cluster, "worker")
	require.NoError(t, theLab.FailLaunches(t.Context(), "nodepool-worker-"+cluster, 1))
	commit = push(t, channel, "Mend the stack, with a node that cannot start", edits{
		"node-pools/worker-default/stack.yaml": func(old string) string {
			return strings.Replace(old, `MaxSize: "0"`, `MaxSize: "{{ .NodePool.MaxSize }}"`, 1)
		},
		workerUserData: func(old string) string { return old + "# " + randomText() + "\n" },
	})
	fails(commit, workflows.BadReplacement)
	require.Subset(t, instances(t, cluster, "worker"), workers, "the old nodes are still there")

	// The same commit is tried again by itself and goes through.
	reaches(t, cluster, commit)
	requireRolled(t, cluster, "worker", before)
	requireServing(t, cluster)

	// A person goes back, and the cluster stays there until something else is wanted.
	unloved := push(t, channel, "Run less of the shop", edits{"config-defaults.yaml": replaced(t, `shop_frontend_replicas: "6"`, `shop_frontend_replicas: "4"`)})
	reaches(t, cluster, unloved)
	succeeds(t, nil, "cluster", "rollback", cluster, "--reason", "to see that it works", "--yes", "--wait")
	reaches(t, cluster, commit)
	state, _ := updates(t, cluster)
	require.NotNil(t, state.Updates.Pinned)
	require.EqualValues(t, 6, *deployment(t, cluster, "shop", "shop-frontend").Spec.Replicas)

	next := push(t, channel, "Go on", edits{"config-defaults.yaml": replaced(t, `shop_frontend_replicas: "4"`, `shop_frontend_replicas: "5"`)})
	reaches(t, cluster, next)
	require.EqualValues(t, 5, *deployment(t, cluster, "shop", "shop-frontend").Spec.Replicas)
}

// Blocks hold in every phase; two commits in quick succession end with the second; windows are kept;
// a registry in trouble changes nothing.
func TestAClusterIsHeldByBlocksAndWindowsAndOvertakenByNewerCommits(t *testing.T) {
	t.Parallel()
	const cluster, channel = "stable-1", "held"
	<-wavesOver
	start := push(t, channel, "Begin", nil)
	follow(t, channel, cluster)
	reaches(t, cluster, start)

	// Before it begins, by the channel.
	succeeds(t, nil, "channel", "block", channel, "--reason", "not today")
	commit := push(t, channel, "Change a stack, manifests and nodes", edits{
		"cluster.yaml": func(old string) string {
			return strings.Replace(old, "GroupDescription: Masters of", "GroupDescription: All masters of", 1)
		},
		"config-defaults.yaml": replaced(t, `shop_frontend_replicas: "6"`, `shop_frontend_replicas: "7"`),
		workerUserData:         func(old string) string { return old + "# " + randomText() + "\n" },
	})
	awaitHead(t, channel, commit)
	holds(t, cluster, func(u workflows.ClusterUpdates) bool { return u.Running == nil && strings.HasPrefix(u.Current, start) })
	statusTells(t, "not today")
	succeeds(t, nil, "channel", "unblock", channel)

	// In each phase, by cluster and fleet.
	for _, each := range []struct {
		phase          string
		block, unblock []string
	}{
		{"stacks", []string{"cluster", "block", cluster, "--now"}, []string{"cluster", "unblock", cluster}},
		{"manifests", []string{"fleet", "block"}, []string{"fleet", "unblock"}},
		{"pools", []string{"cluster", "block", cluster, "--now"}, []string{"cluster", "unblock", cluster}},
	} {
		inPhase(t, cluster, commit, each.phase)
		succeeds(t, nil, append(each.block, "--reason", "stop in "+each.phase)...)
		lifted := false
		t.Cleanup(func() { // other tests need the fleet
			if !lifted {
				fairway(t, each.unblock...)
			}
		})
		if each.block[0] == "fleet" {
			time.Sleep(1500 * time.Millisecond) // what was begun may end
		}
		staysAsItIs(t, cluster)
		require.NotEqual(t, version(commit)+" done", lastOutcome(t, cluster), "the update is not over")
		statusTells(t, "stop in "+each.phase)
		succeeds(t, nil, each.unblock...)
		lifted = true
	}

	// A newer commit arrives while nodes are replaced: it is taken up at the next safe point.
	inPhase(t, cluster, commit, "pools")
	newer := push(t, channel, "Overtake", edits{"config-defaults.yaml": replaced(t, `shop_frontend_replicas: "7"`, `shop_frontend_replicas: "8"`)})
	// Meanwhile the registry is down, then slow, then answers nonsense: nothing is lost.
	for _, trouble := range []http.HandlerFunc{
		func(w http.ResponseWriter, _ *http.Request) { panic(http.ErrAbortHandler) },
		func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>welcome</html>") },
		func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"items": []}`) },
	} {
		registryProxy.answer(trouble)
		require.Eventually(t, func() bool { return registryProxy.asked() >= 2 }, patience, 100*time.Millisecond)
		registryProxy.answer(nil)
	}
	got := reaches(t, cluster, newer)
	require.EqualValues(t, 8, *deployment(t, cluster, "shop", "shop-frontend").Spec.Replicas)
	var phases []string
	for _, past := range got.History {
		phases = append(phases, fmt.Sprintf("%.8s %s", past.Version, past.Phase))
	}
	require.Contains(t, phases, version(newer)+" done")

	var members workflows.ChannelState
	require.True(t, query(t.Context(), workflows.ChannelID(channel), workflows.StateQuery, &members))
	require.Len(t, members.Members, 1, "no cluster was forgotten")
	state, _ := updates(t, cluster)
	require.True(t, strings.HasPrefix(state.Updates.Current, newer))

	// A block that the registry's entry asks for.
	setItem(t, cluster, "cluster_update_block", "asked for by its owner")
	await(t, cluster, "the block of the registry", func(workflows.ClusterUpdates) bool {
		state, known := updates(t, cluster)
		return known && len(state.Blocks) == 1 && state.Blocks[0].Scope == "registry"
	})
	last := push(t, channel, "Blocked by the registry", edits{"config-defaults.yaml": replaced(t, `shop_frontend_replicas: "8"`, `shop_frontend_replicas: "6"`)})
	awaitHead(t, channel, last)
	holds(t, cluster, func(u workflows.ClusterUpdates) bool { return u.Running == nil && strings.HasPrefix(u.Current, newer) })

	// Lifted, but an alert fires.
	endAlarm := alarm(t, cluster)
	closed := time.Now().UTC().Add(6 * time.Hour)
	setItem(t, cluster, "fairway.update.windows", fmt.Sprintf("%s-%s UTC", closed.Format("15:04"), closed.Add(time.Hour).Format("15:04")))
	removeItem(t, cluster, "cluster_update_block")
	inPhase(t, cluster, last, "checking")
	holds(t, cluster, func(u workflows.ClusterUpdates) bool { return strings.HasPrefix(u.Current, newer) })
	inPhase(t, cluster, last, "checking")
	endAlarm()

	// It has ended, but outside of the window: it waits, and says for what.
	inPhase(t, cluster, last, "waiting")
	holds(t, cluster, func(u workflows.ClusterUpdates) bool { return strings.HasPrefix(u.Current, newer) })
	removeItem(t, cluster, "fairway.update.windows")
	reaches(t, cluster, last)
	requireServing(t, cluster)
}

// statusTells waits until the status of the fleet has a text: other tests kill whoever answers.
func statusTells(t *testing.T, text string) {
	t.Helper()
	require.Eventually(t, func() bool {
		status := fairway(t, "status")
		return status.status == 0 && strings.Contains(status.stdout, text)
	}, patience, 500*time.Millisecond, "the status does not tell %q", text)
}

// lastOutcome is the newest update of a cluster that is over.
func lastOutcome(t *testing.T, cluster string) string {
	t.Helper()
	state, known := updates(t, cluster)
	if history := state.Updates.History; known && len(history) > 0 {
		return version(history[len(history)-1].Version) + " " + history[len(history)-1].Phase
	}
	return ""
}

// holds checks for a while that the actor of a cluster stays as it is.
func holds(t *testing.T, cluster string, met func(workflows.ClusterUpdates) bool) {
	t.Helper()
	for end := time.Now().Add(4 * time.Second); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		if state, known := updates(t, cluster); known { // other tests kill the worker
			require.True(t, met(state.Updates), "%+v", state.Updates)
		}
	}
}

// awaitHead waits until a channel's actor knows a commit.
func awaitHead(t *testing.T, channel, commit string) {
	t.Helper()
	require.Eventually(t, func() bool {
		var state workflows.ChannelState
		return query(t.Context(), workflows.ChannelID(channel), workflows.StateQuery, &state) && state.Commit == commit
	}, patience, 100*time.Millisecond, "channel %s does not learn of %s", channel, commit[:8])
}
