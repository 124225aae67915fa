package main

import (
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fairway-project/fairway/lab"
)

func TestTheDemoFindsWhatItChangesInTheSample(t *testing.T) {
	content, err := os.ReadFile(filepath.Join("..", "..", "sample", "config", "cluster", "config-defaults.yaml"))
	require.NoError(t, err)
	changed, err := oneReplicaMore(string(content))
	require.NoError(t, err)
	require.Contains(t, string(content), `shop_frontend_replicas: "6"`)
	require.Contains(t, changed, `shop_frontend_replicas: "7"`)
	require.Len(t, changed, len(content))
	_, err = oneReplicaMore("")
	require.Error(t, err)
	require.FileExists(t, filepath.Join("..", "..", "sample", "config", "cluster", "node-pools", "worker-default", "userdata.yaml"))
}

func TestTheDemoPushesOneCommitWithBothChanges(t *testing.T) {
	bare, work := t.TempDir(), t.TempDir()
	repository := filepath.Join(bare, "fairway", "config.git")
	git := func(args ...string) string {
		cmd := exec.Command("git", append([]string{"-C", work, "-c", "user.name=a", "-c", "user.email=a@b.test"}, args...)...)
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, string(out))
		return strings.TrimSpace(string(out))
	}
	git("init", "--quiet", "--bare", "--initial-branch=dev", repository)
	require.NoError(t, os.CopyFS(work, os.DirFS(filepath.Join("..", "..", "sample", "config"))))
	git("init", "--quiet", "--initial-branch=dev")
	git("add", "--all")
	git("commit", "--quiet", "-m", "Begin")
	git("push", "--quiet", repository, "dev")

	commit, diff, err := pushChange(t.Context(), lab.Forge{URL: bare, Owner: "fairway", Repository: "config", AuthorToken: "s3cret"}, "dev")
	require.NoError(t, err)
	require.Contains(t, diff, `+shop_frontend_replicas: "7"`)
	require.Contains(t, diff, "+# Changed by `make demo`")
	git("fetch", "--quiet", repository, "dev")
	require.Equal(t, commit, git("rev-parse", "FETCH_HEAD"))
	require.Equal(t, "1", git("rev-list", "--count", "HEAD..FETCH_HEAD"))

	_, _, err = pushChange(t.Context(), lab.Forge{URL: bare, Owner: "fairway", Repository: "none", AuthorToken: "s3cret"}, "dev")
	require.Error(t, err)
	require.NotContains(t, err.Error(), "s3cret")
}

func TestTheDemoTellsHowFarEachClusterIs(t *testing.T) {
	var head heading
	var now moving
	require.NoError(t, json.Unmarshal([]byte(`{"commit": "abc", "next": "2026-03-02T09:00:00Z", "members": [
		{"id": "a", "state": "updating"}, {"id": "b", "state": "updating"}, {"id": "c", "state": "failed", "problem": "quota"}, {"id": "d", "state": "waiting"}]}`), &head))
	require.NoError(t, json.Unmarshal([]byte(`{"updating": [
		{"cluster": "a", "phase": "pools", "step": "pool worker", "nodes": 3, "nodes_done": 1}, {"cluster": "b", "phase": "stacks", "step": "stack b"}]}`), &now))
	require.Equal(t, []string{
		"a: updating, pools, 1 of 3 nodes replaced", "b: updating, stacks: stack b", "c: failed: quota",
		"d: waiting, its group goes at " + time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC).Local().Format(time.TimeOnly),
	}, progress(head, now))
}

func TestTheDemoEndsWhenAllClustersHaveTheCommit(t *testing.T) {
	answers := map[string]string{
		"channel": `{"commit": "abc", "members": [{"id": "a", "state": "done"}]}`,
		"status":  `{"updating": []}`,
	}
	run := func(stdout io.Writer, args ...string) error {
		_, err := io.WriteString(stdout, answers[args[0]])
		return err
	}
	var out strings.Builder
	require.NoError(t, follow(t.Context(), &out, run, "dev", "abc"))
	require.Contains(t, out.String(), "a      done")

	answers["channel"] = `{"commit": "abc", "stopped": "too many have failed", "members": [{"id": "a", "state": "failed"}]}`
	require.ErrorContains(t, follow(t.Context(), &out, run, "dev", "abc"), "too many have failed")
}
