package lab

import (
	"bytes"
	"errors"
	"io"
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
	"k8s.io/apimachinery/pkg/util/yaml"

	"github.com/fairway-project/fairway/registry"
)

var sampleNetwork = network{vpc: "vpc-1", subnets: map[string]string{"eu-central-1a": "subnet-1", "eu-central-1b": "subnet-2", "eu-central-1c": "subnet-3"}}

// sampleConfigs is the configuration of every cluster of the sample fleet.
func sampleConfigs(t *testing.T) map[string]config {
	t.Helper()
	root, err := repositoryRoot()
	require.NoError(t, err)
	l := &Lab{root: root}
	clusters, err := l.sampleClusters(t.Context())
	require.NoError(t, err)
	configs := map[string]config{}
	for _, c := range clusters {
		configs[c.ID], err = l.clusterConfig(c, sampleNetwork)
		require.NoError(t, err)
	}
	return configs
}

func sampleObjects(t *testing.T, of config) []*unstructured.Unstructured {
	t.Helper()
	manifests, err := of.manifests()
	require.NoError(t, err)
	var objects []*unstructured.Unstructured
	documents := yaml.NewYAMLOrJSONDecoder(bytes.NewBufferString(manifests), 4096)
	for {
		object := &unstructured.Unstructured{}
		err := documents.Decode(object)
		if errors.Is(err, io.EOF) {
			return objects
		}
		require.NoError(t, err)
		objects = append(objects, object)
	}
}

func TestSampleFleetHasFourClustersOnThreeChannels(t *testing.T) {
	channels := map[string]string{}
	for id, of := range sampleConfigs(t) {
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

func TestSampleStacksSayWhichClusterOwnsThem(t *testing.T) {
	for id, of := range sampleConfigs(t) {
		templates := map[string]config{"cluster.yaml": of, "etcd/stack.yaml": of}
		for _, pool := range of.Cluster.NodePools {
			ofPool, err := of.pool(pool)
			require.NoError(t, err)
			templates[poolTemplate(pool)] = ofPool
		}
		require.Len(t, templates, 5)
		for file, of := range templates {
			_, tags, err := of.stack(file)
			require.NoError(t, err)
			values := map[string]string{}
			for _, tag := range tags {
				values[*tag.Key] = *tag.Value
			}
			require.Equal(t, "owned", values["kubernetes.io/cluster/"+id], "%s of %s", file, id)
		}
	}
}

func TestSampleObjectsNameTheirTeam(t *testing.T) {
	for _, object := range sampleObjects(t, sampleConfigs(t)["stable-1"]) {
		require.NotEmpty(t, object.GetLabels()["team"], "%s %s", object.GetKind(), object.GetName())
		if object.GetKind() != "Namespace" {
			require.NotEmpty(t, object.GetLabels()["application"], "%s %s", object.GetKind(), object.GetName())
		}
	}
}

// The eviction API fails for a pod in two budgets.
func TestSamplePodsAreInAtMostOneBudget(t *testing.T) {
	objects := sampleObjects(t, sampleConfigs(t)["stable-1"])
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
	for id, of := range sampleConfigs(t) {
		needed := map[string]*struct{ cpu, memory int64 }{"worker-default": {}, "worker-data": {}}
		for _, object := range sampleObjects(t, of) {
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

func TestSampleDeletionsNameOneThingEach(t *testing.T) {
	for id, of := range sampleConfigs(t) {
		rendered, err := of.render("manifests/deletions.yaml")
		require.NoError(t, err)
		var deletions struct {
			PreApply  []map[string]any `json:"pre_apply"`
			PostApply []map[string]any `json:"post_apply"`
		}
		require.NoError(t, yaml.UnmarshalStrict([]byte(rendered), &deletions))
		require.NotEmpty(t, deletions.PostApply)
		for _, deletion := range append(deletions.PreApply, deletions.PostApply...) {
			require.NotEmpty(t, deletion["kind"], id)
			require.NotEqual(t, deletion["name"] == nil, deletion["labels"] == nil, "%v of %s", deletion, id)
		}
	}
}

func TestSampleTemplateErrorsNameTheFileAndTheKey(t *testing.T) {
	of := sampleConfigs(t)["dev-1"]
	delete(of.Cluster.ConfigItems, "skipper_replicas")
	_, err := of.manifests()
	require.ErrorContains(t, err, "manifests/skipper-ingress/deployment.yaml")
	require.ErrorContains(t, err, "skipper_replicas")
}

func TestUpdatedPoolLeavesItsInstancesOld(t *testing.T) {
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
			AutoScalingGroupNames: []string{poolStack("dev-1", "worker")},
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
