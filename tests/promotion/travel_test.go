package promotion

import (
	"strings"
	"testing"
	"time"

	"code.gitea.io/sdk/gitea"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/fairway-project/fairway/promotion"
	"github.com/fairway-project/fairway/tests/product"
)

// A commit on dev gets to alpha by itself and waits as a pull request to stable, which takes it once
// the second user has approved; the worker and Temporal die on the way.
func TestACommitTravelsFromDevToStableWhateverDies(t *testing.T) {
	t.Parallel()
	c := newClone(t)
	commit := c.Push("dev", "Run more of skipper", map[string]string{"cluster/manifests/travel/config.yaml": configMap("travel", "first")})
	knows(t, "dev", commit)
	kill(t)
	soaks := func(met func(promotion.Soak, promotion.Landing) bool, what string) {
		require.Eventually(t, func() bool {
			soak := channel(t, "dev").Promotions.Soak
			i := soak.Index(commit)
			return i >= 0 && met(soak, soak.Landings[i])
		}, patience, 200*time.Millisecond, what)
	}
	sicken(t)
	soaks(func(s promotion.Soak, _ promotion.Landing) bool {
		return strings.Contains(strings.Join(s.Held, " "), "ailing")
	}, "the clock stands still while the cluster is sick")
	require.Contains(t, fairway(t, "promote", "dev", "alpha", "--dry-run"), "ailing")
	stood := channel(t, "dev").Promotions.Soak
	soaks(func(s promotion.Soak, _ promotion.Landing) bool { return s.Until.Sub(stood.Until) > 6*time.Second }, "it stands longer than a soak lasts")
	require.Equal(t, stood.Clock, channel(t, "dev").Promotions.Soak.Clock)
	require.False(t, c.has("alpha", commit))
	heal(t)
	soaks(func(_ promotion.Soak, l promotion.Landing) bool { return l.Ran }, "the cluster has it")
	c.arrives("alpha", commit)
	merge := c.mergedOnce("alpha", "dev", commit)
	message := c.Git("log", "-1", "--format=%an%n%B", merge)
	require.Contains(t, message, "Fairway-Candidate: "+commit)
	require.True(t, strings.HasPrefix(message, "Fairway\n"))
	record := recorded(t, "dev", "alpha", commit, promotion.Merged)
	require.Equal(t, merge, record.Merge)
	require.GreaterOrEqual(t, record.Soaked, 4*time.Second)

	request := opened(t, "stable", merge)
	require.Equal(t, "fairway/promote/alpha-to-stable/"+merge[:12], request.Head.Ref)
	require.Eventually(t, func() bool {
		request := opened(t, "stable", merge)
		return len(request.Labels) == 1 && request.Labels[0].Name == "promotion"
	}, patience, 300*time.Millisecond)
	require.NoError(t, theLab.Part("temporal").Kill())
	require.NoError(t, theLab.Part("temporal").Restart(t.Context()))
	says(t, request.Index, "approv")

	// An update that fails stops the clock, until a commit that mends it is on the cluster.
	const brokenFile = "cluster/manifests/travel/broken.yaml"
	c.Push("dev", "Break it", map[string]string{brokenFile: "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: broken, namespace: default}\ndata: {value: 1}\n"})
	soaks(func(s promotion.Soak, _ promotion.Landing) bool {
		return strings.Contains(strings.Join(s.Held, " "), "failed")
	}, "the clock stands still after a failed update")

	// What lands later neither rides along nor takes its place.
	later := c.Push("dev", "And more of it", map[string]string{
		"cluster/manifests/travel/config.yaml": configMap("travel", "second"), brokenFile: configMap("mended", "x"),
	})
	c.arrives("alpha", later)
	kill(t)
	review(t, request.Index, merge, gitea.ReviewStateApproved)
	c.arrives("stable", merge)
	require.False(t, c.has("stable", later))
	arrived := c.mergedOnce("stable", "alpha", merge)
	require.Contains(t, c.Git("log", "-1", "--format=%B", arrived), "Fairway-Approved-By: reviewer")
	record = recorded(t, "alpha", "stable", merge, promotion.Merged)
	require.Equal(t, arrived, record.Merge)
	require.Equal(t, []string{"reviewer"}, record.Approvals)
	require.Len(t, product.Comments(t, theLab, request.Index), 1, "one comment was kept up to date")
	require.Contains(t, c.File("stable", "cluster/manifests/travel/config.yaml"), "first")

	var list struct{ Promotions []promotion.Record }
	answers(t, &list, "promotion", "list", "--channel", "stable")
	require.NotEmpty(t, list.Promotions)
	described := fairway(t, "promotion", "describe", promotion.ID("alpha", "stable", merge))
	require.Contains(t, described, "Run more of skipper")
	require.Contains(t, described, "reviewer")
}

// sicken makes the cluster unhealthy: a system workload cannot be placed.
func sicken(t *testing.T) {
	t.Helper()
	labels := map[string]string{"application": "ailing"}
	_, err := kube(t).AppsV1().Deployments("kube-system").Create(t.Context(), &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: "ailing"},
		Spec: appsv1.DeploymentSpec{
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec: corev1.PodSpec{
					NodeSelector: map[string]string{"there-is": "none"},
					Containers:   []corev1.Container{{Name: "ailing", Image: "registry.example.org/ailing:1"}},
				},
			},
		},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
}

func heal(t *testing.T) {
	t.Helper()
	require.NoError(t, kube(t).AppsV1().Deployments("kube-system").Delete(t.Context(), "ailing", metav1.DeleteOptions{}))
}

// kube is an administrator's way to the cluster, past the proxies.
func kube(t *testing.T) kubernetes.Interface {
	t.Helper()
	config, err := theLab.RESTConfig(cluster)
	require.NoError(t, err)
	client, err := kubernetes.NewForConfig(config)
	require.NoError(t, err)
	return client
}

func configMap(name, value string) string {
	return "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: " + name + ", namespace: default, labels: {application: " + name + "}}\ndata:\n  value: " + value + "\n"
}
