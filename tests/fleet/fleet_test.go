package fleet

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairway-project/fairway/registry"
	"github.com/fairway-project/fairway/tests/product"
	"github.com/fairway-project/fairway/workflows"
)

// patience bounds every wait; the machine may be busy.
const patience = 4 * time.Minute

// ---- the configuration repository

// edits change files of the configuration repository; nil deletes one.
type edits map[string]func(old string) string

// replaced is an edit that exchanges one text for another, which has to be there.
func replaced(t *testing.T, old, by string) func(string) string {
	return func(content string) string {
		require.Contains(t, content, old)
		return strings.ReplaceAll(content, old, by)
	}
}

func written(content string) func(string) string { return func(string) string { return content } }

// push makes a commit on a channel and returns it. A channel that does not exist begins
// at stable, which no test changes.
func push(t *testing.T, channel, title string, change edits) string {
	t.Helper()
	clone := clone(t)
	if git(t, clone, "ls-remote", "--heads", "origin", channel) == "" {
		git(t, clone, "checkout", "--quiet", "-b", channel, "origin/stable")
	} else {
		git(t, clone, "checkout", "--quiet", channel)
	}
	for name, edit := range change {
		path := filepath.Join(clone, "cluster", name)
		if edit == nil {
			require.NoError(t, os.RemoveAll(path))
			continue
		}
		old, err := os.ReadFile(path)
		if !errors.Is(err, os.ErrNotExist) {
			require.NoError(t, err)
		}
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(edit(string(old))), 0o644))
	}
	git(t, clone, "add", "--all")
	git(t, clone, "commit", "--quiet", "--allow-empty", "-m", title)
	git(t, clone, "push", "--quiet", "origin", "HEAD:"+channel)
	return git(t, clone, "rev-parse", "HEAD")
}

// branchOff makes a channel that begins at the head of another one.
func branchOff(t *testing.T, from, channel string) {
	t.Helper()
	git(t, clone(t), "push", "--quiet", "origin", "origin/"+from+":refs/heads/"+channel)
}

func clone(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	git(t, dir, "clone", "--quiet", product.Remote(theLab), ".")
	return dir
}

func git(t *testing.T, dir string, args ...string) string {
	t.Helper()
	out, err := product.Git(t.Context(), dir, args...)
	require.NoError(t, err)
	return out
}

// ---- the registry

// ask sends a request of people's to the registry server, past the proxy of the tests.
func ask(t *testing.T, method, path string, body, answer any) {
	t.Helper()
	data, err := json.Marshal(body)
	require.NoError(t, err)
	request, err := http.NewRequestWithContext(t.Context(), method, registryURL+path, bytes.NewReader(data))
	require.NoError(t, err)
	request.Header.Set("Authorization", "Bearer "+writeToken)
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	require.NoError(t, err)
	defer response.Body.Close()
	var text bytes.Buffer
	_, err = text.ReadFrom(response.Body)
	require.NoError(t, err)
	require.Less(t, response.StatusCode, 300, "%s %s: %s", method, path, text.String())
	if answer != nil {
		require.NoError(t, json.Unmarshal(text.Bytes(), answer))
	}
}

func entry(t *testing.T, cluster string) registry.Cluster {
	t.Helper()
	var out registry.Cluster
	ask(t, http.MethodGet, "/kubernetes-clusters/"+cluster, nil, &out)
	return out
}

// follow has clusters follow a channel.
func follow(t *testing.T, channel string, clusters ...string) {
	t.Helper()
	for _, cluster := range clusters {
		ask(t, http.MethodPatch, "/kubernetes-clusters/"+cluster, map[string]any{"channel": channel}, nil)
	}
}

func setItem(t *testing.T, cluster, key, value string) {
	t.Helper()
	ask(t, http.MethodPut, "/kubernetes-clusters/"+cluster+"/config-items/"+key, map[string]any{"value": value}, nil)
}

func removeItem(t *testing.T, cluster, key string) {
	t.Helper()
	ask(t, http.MethodDelete, "/kubernetes-clusters/"+cluster+"/config-items/"+key, nil, nil)
}

// ---- Temporal

// query asks a workflow something; false if there is none, or no worker answers now.
func query(ctx context.Context, id, name string, out any) bool {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	answer, err := temporal.QueryWorkflow(ctx, id, "", name)
	return err == nil && answer.Get(out) == nil
}

// updates are what a cluster's actor knows about its versions.
func updates(t *testing.T, cluster string) (out workflows.ClusterState, known bool) {
	known = query(t.Context(), workflows.ClusterID(cluster), workflows.StateQuery, &out)
	return out, known
}

// await waits until the actor of a cluster knows what is asked for.
func await(t *testing.T, cluster, what string, met func(workflows.ClusterUpdates) bool) workflows.ClusterUpdates {
	t.Helper()
	var last workflows.ClusterState
	require.Eventually(t, func() bool {
		state, known := updates(t, cluster)
		if known {
			last = state
		}
		return known && met(state.Updates)
	}, patience, 200*time.Millisecond, "cluster %s: %s does not come", cluster, what)
	t.Logf("%s cluster %s: %s", time.Now().Format(time.TimeOnly), cluster, what)
	return last.Updates
}

// reaches waits until a cluster has the commit and nothing is under way.
func reaches(t *testing.T, cluster, commit string) workflows.ClusterUpdates {
	t.Helper()
	got := await(t, cluster, "commit "+commit[:8], func(u workflows.ClusterUpdates) bool {
		return strings.HasPrefix(u.Current, commit) && u.Running == nil
	})
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		status := entry(t, cluster).Status
		require.NotNil(c, status)
		require.Equal(c, got.Current, status.CurrentVersion)
		require.Empty(c, status.NextVersion)
		require.Empty(c, status.Problems)
	}, 10*time.Second, 100*time.Millisecond, "the registry says so too")
	return got
}

// inPhase waits until an update of the cluster to the commit is in a phase.
func inPhase(t *testing.T, cluster, commit, phase string) workflows.UpdateProgress {
	t.Helper()
	var last workflows.UpdateProgress
	require.Eventually(t, func() bool {
		var progress workflows.UpdateProgress
		if query(t.Context(), workflows.UpdateClusterID(cluster), workflows.ProgressQuery, &progress) {
			last = progress
		}
		return strings.HasPrefix(last.Version, commit) && last.Phase == phase
	}, patience, 50*time.Millisecond, "the update of %s to %s does not get to %s", cluster, commit[:8], phase)
	return last
}

// ---- the command line

// answer is what a program printed and the status it ended with.
type answer struct {
	stdout, stderr string
	status         int
}

func fairway(t *testing.T, args ...string) answer {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), patience) // what is given has to be lifted
	defer cancel()
	stdout, stderr, status, err := product.Execute(ctx, env, product.Program("starter"), args...)
	require.NoError(t, err)
	return answer{stdout, stderr, status}
}

// succeeds runs the command line, which has to succeed, and reads its JSON. While another test kills
// whoever answers, or has the registry answer nonsense, it asks again.
func succeeds(t *testing.T, out any, args ...string) answer {
	t.Helper()
	if out != nil {
		args = append(args, "--output", "json")
	}
	var got answer
	require.Eventually(t, func() bool {
		got = fairway(t, args...)
		return !strings.Contains(got.stderr, "the cluster registry answers nonsense") && got.status != product.Unreachable
	}, patience, time.Second, "fairway %v", args)
	require.Zero(t, got.status, "fairway %v: %s", args, got.stderr)
	if out != nil {
		require.NoError(t, json.Unmarshal([]byte(got.stdout), out), got.stdout)
	}
	return got
}

func version(commit string) string { return fmt.Sprintf("%.8s", commit) }
