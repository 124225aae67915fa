package lab

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
)

func TestSampleFleet(t *testing.T) {
	t.Parallel()
	l, err := Start(t.Context(), Options{Dir: t.TempDir(), Out: t.Output(), Clusters: []string{"dev-1"}})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, l.Stop()) })
	client, err := l.adminClient("dev-1")
	require.NoError(t, err)

	t.Run("all workloads are ready", func(t *testing.T) {
		missing, err := unready(t.Context(), client)
		require.NoError(t, err)
		require.Empty(t, missing)
	})
	t.Run("what was applied belongs to Fairway", func(t *testing.T) {
		deployment, err := client.AppsV1().Deployments("shop").Get(t.Context(), "shop-frontend", metav1.GetOptions{})
		require.NoError(t, err)
		require.Equal(t, "fairway", deployment.ManagedFields[0].Manager)
	})
	t.Run("the database has a volume in each zone", func(t *testing.T) { testDatabaseHasAVolumeInEachZone(t, client) })
	t.Run("the license server is never evicted", func(t *testing.T) {
		pods := podsOf(t, client, "legacy", "application=legacy-license-server")
		require.Len(t, pods, 1)
		require.True(t, apierrors.IsTooManyRequests(evict(t.Context(), client, pods[0])))
	})
	t.Run("the primary leaves a cordoned node", func(t *testing.T) { testPrimaryLeavesACordonedNode(t, client) })
}

func testDatabaseHasAVolumeInEachZone(t *testing.T, client kubernetes.Interface) {
	zones := map[string]bool{}
	for _, pod := range podsOf(t, client, databaseNamespace, databaseSelector) {
		node, err := client.CoreV1().Nodes().Get(t.Context(), pod.Spec.NodeName, metav1.GetOptions{})
		require.NoError(t, err)
		claim, err := client.CoreV1().PersistentVolumeClaims(pod.Namespace).Get(t.Context(), "data-"+pod.Name, metav1.GetOptions{})
		require.NoError(t, err)
		volume, err := client.CoreV1().PersistentVolumes().Get(t.Context(), claim.Spec.VolumeName, metav1.GetOptions{})
		require.NoError(t, err)
		zone := node.Labels[corev1.LabelTopologyZone]
		require.Equal(t, []string{zone}, volume.Spec.NodeAffinity.Required.NodeSelectorTerms[0].MatchExpressions[0].Values)
		zones[zone] = true
	}
	require.Len(t, zones, 3)
}

func testPrimaryLeavesACordonedNode(t *testing.T, client kubernetes.Interface) {
	primaries := podsOf(t, client, databaseNamespace, databaseSelector+","+databaseRole+"="+rolePrimary)
	require.Len(t, primaries, 1)
	primary := primaries[0]
	require.True(t, apierrors.IsTooManyRequests(evict(t.Context(), client, primary)), "evicted although it is the primary")

	cordon := func(on bool) {
		_, err := client.CoreV1().Nodes().Patch(context.WithoutCancel(t.Context()), primary.Spec.NodeName, types.MergePatchType,
			fmt.Appendf(nil, `{"spec":{"unschedulable":%t}}`, on), metav1.PatchOptions{})
		require.NoError(t, err)
	}
	t.Cleanup(func() { cordon(false) })
	cordon(true)
	require.Eventually(t, func() bool { return evict(t.Context(), client, primary) == nil }, 10*time.Second, 100*time.Millisecond)
	// The one that goes may keep its role for a moment: there are two, and never none.
	require.Eventually(t, func() bool {
		successors := podsOf(t, client, databaseNamespace, databaseSelector+","+databaseRole+"="+rolePrimary)
		return len(successors) == 1 && successors[0].Name != primary.Name
	}, 10*time.Second, 100*time.Millisecond)
}

func podsOf(t *testing.T, client kubernetes.Interface, namespace, selector string) []corev1.Pod {
	t.Helper()
	pods, err := client.CoreV1().Pods(namespace).List(t.Context(), metav1.ListOptions{LabelSelector: selector})
	require.NoError(t, err)
	return pods.Items
}

func evict(ctx context.Context, client kubernetes.Interface, pod corev1.Pod) error {
	return client.PolicyV1().Evictions(pod.Namespace).Evict(ctx, &policyv1.Eviction{
		ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name},
	})
}
