package kube_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	rbacv1 "k8s.io/api/rbac/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairway-project/fairway/activities/activitytest"
	"github.com/fairway-project/fairway/workflows"
)

// attach says that a volume is attached to a node, as the attacher of its driver would.
func (s *scene) attach(volume string, node int) {
	s.Helper()
	_, err := s.client.StorageV1().VolumeAttachments().Create(s.Context(), &storagev1.VolumeAttachment{
		ObjectMeta: metav1.ObjectMeta{Name: s.name + "-attached-" + volume},
		Spec: storagev1.VolumeAttachmentSpec{
			Attacher: "test.example.org", NodeName: s.nodeName(node), Source: storagev1.VolumeAttachmentSource{PersistentVolumeName: &volume},
		},
	}, metav1.CreateOptions{})
	s.must(err)
}

func (s *scene) detach(volume string) {
	s.Helper()
	s.must(s.client.StorageV1().VolumeAttachments().Delete(s.Context(), s.name+"-attached-"+volume, metav1.DeleteOptions{}))
}

func testDetach(t *testing.T, c cluster) {
	s := c.stage(t, "attached", "drain: {detach_within: 100s}\n")
	s.claim("logs", "eu-central-1a")
	s.crowd(func() {
		agent := s.podTemplate("agent", nil)
		using(&agent, "logs")
		s.deployDaemonSet("agent", agent)
		s.deploy("web", 1)
		s.awaitReady("web", 1)
		s.awaitReady("agent", 2)
	})
	s.attach("attached-logs", 0) // the DaemonSet goes on using it
	s.attach("one", 0)
	s.attach("two", 0)
	s.attach("elsewhere", 1)
	var seen [][]string
	began := time.Now()
	progress, err := s.drain(func(report workflows.DrainProgress) {
		if len(report.Detaching) == 0 || (len(seen) > 0 && slices.Equal(seen[len(seen)-1], report.Detaching)) {
			return
		}
		require.Zero(t, report.Left)
		seen = append(seen, report.Detaching)
		s.detach(report.Detaching[0])
	})
	s.must(err)
	require.Equal(t, [][]string{{"one", "two"}, {"two"}}, seen)
	require.Empty(t, progress.Detaching)
	require.Equal(t, 1, progress.Evicted)
	require.Less(t, time.Since(began), time.Minute, "nobody waits longer than needed")

	s.attach("three", 0)
	s.activities = newActivities(t, c.kubeconfig, "drain: {detach_within: 1s}\n", s.blocks)
	began = time.Now()
	progress, err = s.drain(nil)
	s.must(err)
	require.Equal(t, []string{"three"}, progress.Detaching, "after its time the drain ends, and says what was left")
	require.GreaterOrEqual(t, time.Since(began), time.Second)

	s.activities = newActivities(t, c.kubeconfig, "drain: {detach_within: 0s}\n", s.blocks)
	progress, err = s.drain(nil)
	s.must(err)
	require.Empty(t, progress.Detaching, "nobody waits, so nobody looks")
}

// testWatchRefused has all rights but that to watch what is attached, as with the rules of an
// older release.
func testWatchRefused(t *testing.T, c cluster) {
	const name = "test-before-volumes"
	_, err := c.client.RbacV1().ClusterRoles().Create(t.Context(), &rbacv1.ClusterRole{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Rules: []rbacv1.PolicyRule{
			{APIGroups: []string{""}, Resources: []string{"nodes", "pods"}, Verbs: []string{"list", "watch"}},
			{APIGroups: []string{"apps"}, Resources: []string{"daemonsets"}, Verbs: []string{"list", "watch"}},
			{APIGroups: []string{"policy"}, Resources: []string{"poddisruptionbudgets"}, Verbs: []string{"list", "watch"}},
		},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
	_, err = c.client.RbacV1().ClusterRoleBindings().Create(t.Context(), &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: name},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "Group", Name: "viewer"}},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
	viewer, err := c.lab.RESTConfigAs(clusterID, "viewer")
	require.NoError(t, err)
	kubeconfig, err := os.ReadFile(c.kubeconfig)
	require.NoError(t, err)
	file := filepath.Join(t.TempDir(), "kubeconfig")
	require.NoError(t, os.WriteFile(file, regexp.MustCompile(`token: \S+`).ReplaceAll(kubeconfig, []byte("token: "+viewer.BearerToken)), 0o600))

	began := time.Now()
	activities := newActivities(t, file, "", nil)
	err = activitytest.Worker{}.Run(activities.AwaitNodeGone, workflows.AwaitNodeGone{Cluster: clusterID, Node: "n", Instance: "i"}, nil)
	requireError(t, err, workflows.AccessDenied, false, "volumeattachments.storage.k8s.io is forbidden")
	require.ErrorContains(t, err, "deploy/kubernetes/rbac.yaml")
	require.Less(t, time.Since(began), time.Minute, "nobody waits for what is refused")
}
