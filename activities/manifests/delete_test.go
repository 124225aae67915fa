package manifests_test

import (
	"fmt"
	"strings"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/fairway-project/fairway/activities/manifests"
	"github.com/fairway-project/fairway/render"
	"github.com/fairway-project/fairway/workflows"
)

func names(changes []workflows.ObjectChange) (names []string) {
	for _, change := range changes {
		names = append(names, change.Action+" "+change.Name)
	}
	return names
}

func testDeletions(s *scene) {
	labelled := func(c *corev1.ConfigMap) { c.Labels = map[string]string{"app": "old", "release": "canary"} }
	owner := s.configMap("owner")
	owned := func(c *corev1.ConfigMap) {
		labelled(c)
		c.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "ConfigMap", Name: owner.Name, UID: owner.UID}}
	}
	for _, name := range []string{"named", "short", "after"} {
		s.configMap(name)
	}
	s.configMap("labelled", labelled)
	s.configMap("owned", owned)
	s.configMap("other", func(c *corev1.ConfigMap) { c.Labels = map[string]string{"app": "old"} })

	s.release.Deletions = render.Deletions{
		PreApply: []render.Deletion{
			{Name: "named", Namespace: s.namespace, Kind: "ConfigMap", Line: 3},
			{Name: "named", Namespace: s.namespace, Kind: "configmaps", Line: 4},
			{Name: "short", Namespace: s.namespace, Kind: "cm", PropagationPolicy: "orphan"},
			{Name: "absent", Namespace: s.namespace, Kind: "configmap", APIVersion: "v1"},
			{Name: "absent", Kind: "Deployment"},
			{Name: "gone", Kind: "Unheard", Line: 9},
			{Labels: map[string]string{"app": "old"}, Selector: "release in (canary)", HasOwner: new(false), Namespace: s.namespace, Kind: "ConfigMap"},
		},
		PostApply: []render.Deletion{{Name: "after", Namespace: s.namespace, Kind: "ConfigMap", GracePeriodSeconds: new(int64(0))}},
	}
	changes, err := s.remove(workflows.BeforeApply)
	s.must(err)
	require.Equal(s, []string{"unchanged gone", "delete " + s.namespace + "/named", "delete " + s.namespace + "/short", "delete " + s.namespace + "/labelled"}, names(changes))
	require.Equal(s, "deletions.yaml:3", changes[1].File)
	for name, there := range map[string]bool{"named": false, "short": false, "labelled": false, "owned": true, "other": true, "after": true} {
		require.Equal(s, there, s.exists(name), name)
	}
	changes, err = s.remove(workflows.BeforeApply)
	s.must(err)
	require.Equal(s, []string{"unchanged gone"}, names(changes), "what is absent is fine")
	_, err = s.remove(workflows.AfterApply)
	s.must(err)
	require.False(s, s.exists("after"))

	for message, deletion := range map[string]render.Deletion{
		"deletions.yaml:7: needs a name, labels or a selector":       {Kind: "ConfigMap", Line: 7},
		`deletions.yaml:7: "a/b" is no name`:                         {Kind: "ConfigMap", Name: "a/b", Line: 7},
		"deletions.yaml:7: selector: ":                               {Kind: "ConfigMap", Selector: "a in", Line: 7},
		"deletions.yaml:7: labels: ":                                 {Kind: "ConfigMap", Labels: map[string]string{"a": "b c"}, Line: 7},
		`deletions.yaml:7: propagation_policy is "Sideways"`:         {Kind: "ConfigMap", Name: "x", PropagationPolicy: "Sideways", Line: 7},
		"deletions.yaml:7: grace_period_seconds is -1; must not be ": {Kind: "ConfigMap", Name: "x", GracePeriodSeconds: new(int64(-1)), Line: 7},
	} {
		s.release.Deletions.PreApply = []render.Deletion{{Name: "other", Namespace: s.namespace, Kind: "ConfigMap"}, deletion}
		_, err := s.remove(workflows.BeforeApply)
		s.requireError(err, workflows.InvalidInput, message)
		require.True(s, s.exists("other"), "nothing is deleted while an entry is wrong")
	}
}

func testGuards(s *scene) {
	s.manifest("a/crd.yaml", crontabs)
	s.manifest("b/tab.yaml", "apiVersion: NS.example.org/v1\nkind: CronTab\nmetadata: {name: tab, namespace: NS}")
	_, err := s.apply()
	s.must(err)
	_, err = s.client.CoreV1().PersistentVolumeClaims(s.namespace).Create(s.Context(), &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Name: "data"},
		Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Resources:   corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}},
		},
	}, metav1.CreateOptions{})
	s.must(err)
	s.configMap("plain")
	crd := "crontabs." + s.namespace + ".example.org"
	s.release.Deletions.PreApply = []render.Deletion{
		{Name: "plain", Namespace: s.namespace, Kind: "ConfigMap", Line: 2},
		{Name: crd, Kind: "CustomResourceDefinition", Line: 5},
		{Name: "data", Namespace: s.namespace, Kind: "pvc", Line: 8},
		{Name: s.namespace, Kind: "ns", Line: 11},
	}
	_, err = s.remove(workflows.BeforeApply)
	s.requireError(err, workflows.InvalidInput, "cluster dev-1: 3 of 4 deletions are refused:",
		"deletions.yaml:5: CustomResourceDefinition "+crd+" is not deleted, because all objects of its kind go with it",
		"deletions.yaml:8: PersistentVolumeClaim "+s.namespace+"/data is not deleted",
		"deletions.yaml:11: Namespace "+s.namespace+" is not deleted", manifests.AllowDeletion)
	require.True(s, s.exists("plain"))
	planned, err := s.plan()
	s.must(err)
	require.Equal(s, "conflict", planned["Namespace "+s.namespace].Action)
	require.Equal(s, "delete", planned["ConfigMap "+s.namespace+"/plain"].Action)

	doomed := s.namespace + "-doomed"
	_, err = s.client.CoreV1().Namespaces().Create(s.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		Name: doomed, Annotations: map[string]string{manifests.AllowDeletion: "true"},
	}}, metav1.CreateOptions{})
	s.must(err)
	mark := fmt.Appendf(nil, `{"metadata":{"annotations":{%q:"true"}}}`, manifests.AllowDeletion)
	_, err = s.dynamic.Resource(crds).Patch(s.Context(), crd, types.MergePatchType, mark, metav1.PatchOptions{})
	s.must(err)
	s.release.Deletions.PreApply = []render.Deletion{{Name: doomed, Kind: "ns"}, {Name: crd, Kind: "crd"}}
	changes, err := s.remove(workflows.BeforeApply)
	s.must(err)
	require.Equal(s, []string{"delete " + doomed, "delete " + crd}, names(changes))
	_, err = s.client.CoreV1().Namespaces().Get(s.Context(), doomed, metav1.GetOptions{})
	require.True(s, apierrors.IsNotFound(err), "%v", err)
	_, err = s.dynamic.Resource(crds).Get(s.Context(), crd, metav1.GetOptions{})
	require.True(s, apierrors.IsNotFound(err), "%v", err)

	s.release.Manifests = s.release.Manifests[:1] // a CRD of which there is no object needs no mark
	_, err = s.apply()
	s.must(err)
	s.release.Deletions.PreApply = []render.Deletion{{Name: crd, Kind: "crds"}}
	_, err = s.remove(workflows.BeforeApply)
	s.must(err)
}

func testHeld(s *scene) {
	s.configMap("held", func(c *corev1.ConfigMap) { c.Finalizers = []string{"example.org/wait"} })
	s.release.Deletions.PreApply = []render.Deletion{{Name: "held", Namespace: s.namespace, Kind: "ConfigMap"}}
	s.activities.GoneWithin = 300 * time.Millisecond
	_, err := s.remove(workflows.BeforeApply)
	s.requireError(err, workflows.Unhealthy, "not gone after 300ms: ConfigMap "+s.namespace+"/held (held by example.org/wait)")

	s.forget()
	_, err = s.remove(workflows.BeforeApply)
	s.requireError(err, workflows.Unhealthy, "held by")
	require.Zero(s, s.count("DELETE"), "it goes already")
	_, err = s.client.CoreV1().ConfigMaps(s.namespace).Patch(s.Context(), "held", types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`), metav1.PatchOptions{})
	s.must(err)
	_, err = s.remove(workflows.BeforeApply)
	s.must(err)
}

func testPrune(s *scene) {
	// What other scenes have applied is not in this one's release: all of it goes first.
	s.manifest("a/keep.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: keep, namespace: NS}")
	_, err := s.apply()
	s.must(err)
	_, err = s.remove(workflows.Pruning)
	s.requireError(err, workflows.InvalidInput, "pruning would delete", "kubectl -n kube-system annotate configmap fairway-inventory fairway.dev/allow-deletion=true")
	mark := fmt.Appendf(nil, `{"metadata":{"annotations":{%q:"true"}}}`, manifests.AllowDeletion)
	inventory := s.client.CoreV1().ConfigMaps(manifests.InventoryNamespace)
	_, err = inventory.Patch(s.Context(), manifests.InventoryName, types.MergePatchType, mark, metav1.PatchOptions{})
	s.must(err)
	_, err = s.remove(workflows.Pruning)
	s.must(err)
	object, err := inventory.Get(s.Context(), manifests.InventoryName, metav1.GetOptions{})
	s.must(err)
	require.NotContains(s, object.Annotations, manifests.AllowDeletion, "it was allowed once")
	require.True(s, s.exists("keep"))

	for i := range 4 {
		s.manifest("b/more.yaml", fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: more-%d, namespace: NS}", i))
	}
	s.manifest("c/service.yaml", "apiVersion: v1\nkind: Service\nmetadata: {name: service, namespace: NS}\nspec: {selector: {app: a}, ports: [{port: 80}]}")
	s.manifest("c/claim.yaml", "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: claim, namespace: NS}\nspec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}")
	_, err = s.apply()
	s.must(err)
	// A copy of the label on what a controller or a person has made is no reason to delete it.
	label := s.get(configMaps, "keep").GetLabels()
	s.configMap("copy", func(c *corev1.ConfigMap) { c.Labels = label })

	s.release.Manifests = s.release.Manifests[:3]
	s.settings.Prune = true
	planned, err := s.plan()
	s.must(err)
	require.Equal(s, "delete", planned["Service "+s.namespace+"/service"].Action)
	require.True(s, s.exists("more-3"))
	changes, err := s.remove(workflows.Pruning)
	s.must(err)
	pruned := strings.Join(names(changes), ", ")
	for _, want := range []string{"delete NS/more-2", "delete NS/more-3", "delete NS/service", "unchanged NS/claim"} {
		require.Contains(s, pruned, strings.ReplaceAll(want, "NS", s.namespace))
	}
	for name, there := range map[string]bool{"keep": true, "more-1": true, "more-2": false, "more-3": false, "copy": true} {
		require.Equal(s, there, s.exists(name), name)
	}
	object, err = inventory.Get(s.Context(), manifests.InventoryName, metav1.GetOptions{})
	s.must(err)
	kinds := object.Annotations["applyset.kubernetes.io/contains-group-kinds"]
	require.Contains(s, kinds, "PersistentVolumeClaim", "something of it is left")
	require.NotContains(s, kinds, "Service")

	s.release.Manifests = nil
	_, err = s.remove(workflows.Pruning)
	s.requireError(err, workflows.InvalidInput, "all of them")
}
