package kube_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fairway-project/fairway/activities/activitytest"
	"github.com/fairway-project/fairway/workflows"
)

func testAccess(t *testing.T, c cluster) {
	dir := t.TempDir()
	valid, err := os.ReadFile(c.kubeconfig)
	require.NoError(t, err)
	for name, test := range map[string]struct {
		content func(string) string
		cluster string
		kind    string
		message string
	}{
		"no context":   {func(s string) string { return s }, "dev-9", workflows.InvalidInput, `cluster dev-9: kubeconfig `},
		"no YAML":      {func(string) string { return "- [" }, clusterID, workflows.InvalidInput, "cluster dev-1: kubeconfig "},
		"wrong token":  {replacing("token: ", "token: not"), clusterID, workflows.AccessDenied, "cluster dev-1: listing nodes: the API server refuses"},
		"wrong server": {replacing("server: https://", "server: https://127.0.0.1:1/"), clusterID, workflows.Unreachable, "cluster dev-1: listing nodes: the API server does not answer"},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(dir, strings.ReplaceAll(name, " ", "-"))
			require.NoError(t, os.WriteFile(file, []byte(test.content(string(valid))), 0o600))
			activities := newActivities(t, file, "", nil)
			err := activitytest.Worker{}.Run(activities.ListNodes, workflows.ListNodes{Cluster: test.cluster}, nil)
			requireError(t, err, test.kind, false, test.message)
		})
	}
	activities := newActivities(t, filepath.Join(dir, "missing"), "", nil)
	err = activitytest.Worker{}.Run(activities.ListNodes, workflows.ListNodes{Cluster: clusterID}, nil)
	requireError(t, err, workflows.InvalidInput, false, "reading the kubeconfig: ")
}

func replacing(old, with string) func(string) string {
	return func(s string) string { return strings.Replace(s, old, with, 1) }
}

func testKubeconfigChanged(t *testing.T, c cluster) {
	file := filepath.Join(t.TempDir(), "kubeconfig")
	valid, err := os.ReadFile(c.kubeconfig)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(file, []byte(replacing("token: ", "token: not")(string(valid))), 0o600))
	activities := newActivities(t, file, "", nil)
	list := func() error {
		return activitytest.Worker{}.Run(activities.ListNodes, workflows.ListNodes{Cluster: clusterID}, nil)
	}
	requireError(t, list(), workflows.AccessDenied, false, "the API server refuses")
	require.NoError(t, os.WriteFile(file, valid, 0o600))
	require.NoError(t, os.Chtimes(file, time.Time{}, time.Now().Add(time.Second)))
	require.NoError(t, list())
}
