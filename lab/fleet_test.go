package lab

import (
	"slices"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/autoscaling"
	astypes "github.com/aws/aws-sdk-go-v2/service/autoscaling/types"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/fairway-project/fairway/registry"
	"github.com/fairway-project/fairway/render"
)

var sampleNetwork = network{vpc: "vpc-1", subnets: map[string]string{"eu-central-1a": "subnet-1", "eu-central-1b": "subnet-2", "eu-central-1c": "subnet-3"}}

// sampleReleases is the sample configuration as it is rendered for every cluster of the sample fleet.
func sampleReleases(t *testing.T) map[string]*render.Release {
	t.Helper()
	root, err := repositoryRoot()
	require.NoError(t, err)
	l := &Lab{root: root}
	clusters, err := l.sampleClusters(t.Context())
	require.NoError(t, err)
	releases := map[string]*render.Release{}
	for _, c := range clusters {
		releases[c.ID], err = l.sampleRelease(c, sampleNetwork)
		require.NoError(t, err)
	}
	return releases
}

func TestSampleFleetHasFourClustersOnThreeChannels(t *testing.T) {
	channels := map[string]string{}
	for id, of := range sampleReleases(t) {
		channels[id] = of.Cluster.Channel
	}
	require.Equal(t, map[string]string{"dev-1": "dev", "dev-2": "dev", "alpha-1": "alpha", "stable-1": "stable"}, channels)
}

func TestWrittenRegistrySaysWhereTheAPIServersListen(t *testing.T) {
	root, err := repositoryRoot()
	require.NoError(t, err)
	l := &Lab{root: root, dir: t.TempDir(), proxies: newFaultProxies(), options: Options{Clusters: []string{"stable-1"}}}
	t.Cleanup(l.proxies.close)
	require.NoError(t, l.endpoint("kubernetes/stable-1", "127.0.0.1:1"))
	sample, err := l.sampleClusters(t.Context())
	require.NoError(t, err)
	require.NoError(t, l.writeRegistry(sample))

	written, err := registry.File{Path: l.path("registry.yaml")}.Clusters(t.Context())
	require.NoError(t, err)
	require.Len(t, written, 1)
	require.Equal(t, "https://"+l.Proxied("kubernetes/stable-1"), written[0].APIServerURL)
	written[0].APIServerURL = sample[0].APIServerURL
	require.EqualExportedValues(t, sample[0], written[0])
}

func TestSampleClustersHaveTheirStacks(t *testing.T) {
	for id, of := range sampleReleases(t) {
		var names []string
		for _, stack := range of.Stacks {
			names = append(names, stack.Name)
		}
		for _, pool := range of.Pools {
			require.Equal(t, pool.Name == "master", pool.ControlPlane)
			require.Equal(t, pool.Name, pool.Stack.Tags["node.kubernetes.io/node-pool"])
			names = append(names, pool.Stack.Name)
		}
		require.Equal(t, []string{"etcd-" + id, id, "nodepool-master-" + id, "nodepool-worker-" + id, "nodepool-worker-data-" + id}, names)
	}
}

func objectsOf(release *render.Release) (objects []*unstructured.Unstructured) {
	for _, m := range release.Manifests {
		objects = append(objects, m.Object)
	}
	return objects
}

func TestSampleObjectsNameTheirTeam(t *testing.T) {
	for _, object := range objectsOf(sampleReleases(t)["stable-1"]) {
		require.NotEmpty(t, object.GetLabels()["team"], "%s %s", object.GetKind(), object.GetName())
		if object.GetKind() != "Namespace" {
			require.NotEmpty(t, object.GetLabels()["application"], "%s %s", object.GetKind(), object.GetName())
		}
	}
}

// The eviction API fails for a pod in two budgets.
func TestSamplePodsAreInAtMostOneBudget(t *testing.T) {
	objects := objectsOf(sampleReleases(t)["stable-1"])
	var budgets []policyv1.PodDisruptionBudget
	for _, object := range objects {
		if object.GetKind() == "PodDisruptionBudget" {
			var budget policyv1.PodDisruptionBudget
			require.NoError(t, runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, &budget))
			budgets = append(budgets, budget)
		}
	}
	for _, object := range objects {
		pod, found := podOf(t, object)
		if !found {
			continue
		}
		// The members of the database differ in their role.
		for _, role := range []string{"", "replica", "primary"} {
			of := labels.Merge(pod.Labels, labels.Set{"role": role})
			var matching []string
			for _, budget := range budgets {
				selector, err := metav1.LabelSelectorAsSelector(budget.Spec.Selector)
				require.NoError(t, err)
				if budget.Namespace == object.GetNamespace() && selector.Matches(of) {
					matching = append(matching, budget.Name)
				}
			}
			require.LessOrEqual(t, len(matching), 1, "%s %s is in the budgets %v", object.GetKind(), object.GetName(), matching)
		}
	}
}

// A node may be missing while it is replaced, and two of a pool's three must do.
func TestSamplePodsFitWithoutOneNodeOfAPool(t *testing.T) {
	const nodes, cpu, memory = 2, 1900, 6 << 30 // what two nodes of m5.large leave to pods, at least
	for id, of := range sampleReleases(t) {
		needed := map[string]*struct{ cpu, memory int64 }{"worker-default": {}, "worker-data": {}}
		for _, object := range objectsOf(of) {
			pod, found := podOf(t, object)
			if !found {
				continue
			}
			replicas, _, err := unstructured.NestedInt64(object.Object, "spec", "replicas")
			require.NoError(t, err)
			switch object.GetKind() {
			case "DaemonSet":
				replicas = nodes
			case "Job", "CronJob":
				replicas = 1
			}
			for profile, sum := range needed {
				if wanted := pod.Spec.NodeSelector["node.kubernetes.io/profile"]; wanted != "" && wanted != profile {
					continue
				}
				for _, container := range pod.Spec.Containers {
					sum.cpu += replicas * container.Resources.Requests.Cpu().MilliValue()
					sum.memory += replicas * container.Resources.Requests.Memory().Value()
				}
			}
		}
		for profile, sum := range needed {
			require.Less(t, sum.cpu, int64(nodes*cpu), "CPU of %s in %s", profile, id)
			require.Less(t, sum.memory, int64(nodes*memory), "memory of %s in %s", profile, id)
		}
	}
}

// podOf is the pod template of a workload.
func podOf(t *testing.T, object *unstructured.Unstructured) (pod corev1.PodTemplateSpec, found bool) {
	t.Helper()
	path := []string{"spec", "template"}
	if object.GetKind() == "CronJob" {
		path = []string{"spec", "jobTemplate", "spec", "template"}
	}
	template, found, err := unstructured.NestedMap(object.Object, path...)
	require.NoError(t, err)
	if found {
		require.NoError(t, runtime.DefaultUnstructuredConverter.FromUnstructured(template, &pod))
	}
	return pod, found
}

func TestSampleDeletionsDifferByEnvironment(t *testing.T) {
	releases := sampleReleases(t)
	require.Len(t, releases["dev-1"].Deletions.PostApply, 3)
	require.Len(t, releases["stable-1"].Deletions.PostApply, 2)
}

func TestUpdatedPoolLeavesItsInstancesOld(t *testing.T) {
	t.Parallel()
	l, err := newLab(Options{Dir: t.TempDir(), Out: t.Output(), Clusters: []string{"dev-1"}})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, l.Stop()) })
	require.NoError(t, prepareAWS(t.Context(), l.root, t.Output()))
	require.NoError(t, l.startAWS(t.Context()))
	clusters, err := l.sampleClusters(t.Context())
	require.NoError(t, err)
	net, err := l.createNetwork(t.Context())
	require.NoError(t, err)
	require.NoError(t, l.createStacks(t.Context(), clusters[0], net))

	client := autoscaling.NewFromConfig(l.AWSConfig())
	group := func() astypes.AutoScalingGroup {
		t.Helper()
		groups, err := client.DescribeAutoScalingGroups(t.Context(), &autoscaling.DescribeAutoScalingGroupsInput{
			AutoScalingGroupNames: []string{"nodepool-worker-dev-1"},
		})
		require.NoError(t, err)
		require.Len(t, groups.AutoScalingGroups, 1)
		return groups.AutoScalingGroups[0]
	}
	launched := func() []string {
		var ids []string
		for _, instance := range group().Instances {
			ids = append(ids, *instance.InstanceId)
		}
		slices.Sort(ids)
		return ids
	}
	require.Eventually(t, func() bool { return len(launched()) == 3 }, 20*time.Second, 100*time.Millisecond)
	before := launched()

	require.NoError(t, l.UpdatePool(t.Context(), "dev-1", "worker", map[string]string{"node_image": "ami-0f1a2b3c4d5e6f702"}))
	require.Equal(t, "2", *group().LaunchTemplate.Version)
	require.Equal(t, before, launched(), "the update itself replaces nothing")
	for _, instance := range group().Instances {
		require.Equal(t, "1", *instance.LaunchTemplate.Version)
	}

	require.ErrorContains(t, l.UpdatePool(t.Context(), "dev-1", "gpu", nil), "no such pool")
}
