package kube_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairway-project/fairway/workflows"
)

// claim makes a volume of a zone and binds the claim of the same name to it. The volume is a
// directory, which nothing has to be attached for.
func (s *scene) claim(name, zone string) {
	s.Helper()
	size := corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}
	once := []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}
	_, err := s.client.CoreV1().PersistentVolumes().Create(s.Context(), &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: s.name + "-" + name},
		Spec: corev1.PersistentVolumeSpec{
			Capacity: size, AccessModes: once, ClaimRef: &corev1.ObjectReference{Namespace: s.name, Name: name},
			PersistentVolumeSource: corev1.PersistentVolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/data"}},
			NodeAffinity: &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
				MatchExpressions: []corev1.NodeSelectorRequirement{{Key: corev1.LabelTopologyZone, Operator: corev1.NodeSelectorOpIn, Values: []string{zone}}},
			}}}},
		},
	}, metav1.CreateOptions{})
	s.must(err)
	_, err = s.client.CoreV1().PersistentVolumeClaims(s.name).Create(s.Context(), &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PersistentVolumeClaimSpec{
			StorageClassName: new(""), AccessModes: once, VolumeName: s.name + "-" + name, Resources: corev1.VolumeResourceRequirements{Requests: size},
		},
	}, metav1.CreateOptions{})
	s.must(err)
}

func using(template *corev1.PodTemplateSpec, claim string) {
	template.Spec.Volumes = []corev1.Volume{{Name: "data", VolumeSource: corev1.VolumeSource{
		PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claim},
	}}}
}

// testSurvey looks at one pool among those of all other scenes.
func testSurvey(t *testing.T, c cluster) {
	s := c.stage(t, "surveyed", "")
	s.makeNode(0)
	s.makeNode(1, func(node *corev1.Node) {
		node.Labels["node-role.kubernetes.io/control-plane"] = ""
		node.Annotations["fairway.dev/quarantined"] = "web cannot move"
		node.Spec.Unschedulable = true
	})
	s.claim("data", "eu-central-1a")
	s.deployDaemonSet("agent", s.podTemplate("agent", nil))
	s.deploy("web", 2)
	s.budget("web", "web", maxUnavailable(0))
	s.deploy("wide", 2)
	s.budget("wide", "wide", maxUnavailable(1))
	s.deploy("twice", 2)
	s.budget("one", "twice", maxUnavailable(1))
	s.budget("two", "twice", maxUnavailable(1))
	s.deploy("db", 1, func(d *appsv1.Deployment) {
		d.Spec.Template.Annotations = map[string]string{"karpenter.sh/do-not-disrupt": "true"}
		using(&d.Spec.Template, "data")
	})
	s.deploy("cache", 2, func(d *appsv1.Deployment) {
		d.Spec.Template.Spec.Volumes = []corev1.Volume{{Name: "scratch", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}
	})
	s.awaitReady("web", 2) // the service account is there by now
	solo := s.podTemplate("solo", nil)
	_, err := c.client.CoreV1().Pods("surveyed").Create(t.Context(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "solo", Labels: solo.Labels}, Spec: solo.Spec,
	}, metav1.CreateOptions{})
	s.must(err)
	for app, replicas := range map[string]int{"wide": 2, "twice": 2, "db": 1, "cache": 2, "solo": 1, "agent": 2} {
		s.awaitReady(app, replicas)
	}
	s.awaitBudget("web", 2)
	s.awaitBudget("wide", 2)

	var nodes []workflows.Node
	s.must(s.worker.Run(s.activities.SurveyPool, workflows.SurveyPool{Cluster: clusterID, Pool: "surveyed"}, &nodes))
	require.Len(t, nodes, 2)
	require.Equal(t, []string{"surveyed-0", "surveyed-1"}, []string{nodes[0].Name, nodes[1].Name})
	easy, hard := nodes[1], nodes[0]
	require.Equal(t, 10, hard.Pods)
	require.Equal(t, 6, hard.Held, "web, twice, db and solo")
	require.Equal(t, 6, hard.Never)
	require.True(t, hard.Pinned)
	require.False(t, hard.ControlPlane)
	require.Zero(t, easy.Pods+easy.Held+easy.Never)
	require.False(t, easy.Pinned)
	require.True(t, easy.ControlPlane)
	require.Equal(t, "web cannot move", easy.Quarantined)

	var none []workflows.Node
	s.must(s.worker.Run(s.activities.SurveyPool, workflows.SurveyPool{Cluster: clusterID, Pool: "no-such-pool"}, &none))
	require.Empty(t, none)

	findings := s.preflight("eu-central-1b", "eu-central-1c")
	var told []string
	for _, f := range findings {
		told = append(told, f.Kind+" "+f.Namespace+"/"+f.Name)
		require.Equal(t, "anchor", f.Owner)
		require.Equal(t, []string{"surveyed-0"}, f.Nodes)
		require.NotEmpty(t, f.Problem)
		require.NotEmpty(t, f.Remedy)
	}
	require.Equal(t, []string{
		"do-not-disrupt surveyed/db", "local-data surveyed/cache", "never-allowed surveyed/web", "single-replica surveyed/db",
		"two-budgets surveyed/one, two", "unmanaged surveyed/solo", "zone-without-capacity surveyed/data",
	}, told)
	require.Len(t, findings[2].Pods, 2)
	require.Equal(t, []string{"surveyed/solo"}, findings[5].Pods)
	require.Equal(t, "its volume surveyed-data can only be used in eu-central-1a, and the pool launches in eu-central-1b, eu-central-1c", findings[6].Problem)
	require.Equal(t, findings, s.preflight("eu-central-1b", "eu-central-1c"), "the same is told in the same order")
	require.Len(t, s.preflight("eu-central-1a"), 6)
	require.Zero(t, s.patches(0)+len(s.evictions()), "looking changes nothing")
}

func (s *scene) preflight(zones ...string) (findings []workflows.Finding) {
	s.Helper()
	s.must(s.worker.Run(s.activities.Preflight, workflows.Preflight{Cluster: clusterID, Pool: s.name, Zones: zones}, &findings))
	return findings
}
