package tests

import (
	"os"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/goccy/go-yaml"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	sdk "go.temporal.io/sdk/temporal"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairway-project/fairway/config"
	"github.com/fairway-project/fairway/lab"
	"github.com/fairway-project/fairway/registry"
	"github.com/fairway-project/fairway/roll"
	"github.com/fairway-project/fairway/workflows"
)

// requireKind checks the type and a part of the error of a roll.
func requireKind(t *testing.T, err error, kind, text string) {
	t.Helper()
	var application *sdk.ApplicationError
	require.ErrorAs(t, err, &application)
	require.Equal(t, kind, application.Type(), application.Message())
	require.Contains(t, application.Message(), text)
}

// changeRegistry changes a cluster in the registry of a worker.
func changeRegistry(t *testing.T, c *config.Config, id string, change func(*registry.Cluster)) {
	t.Helper()
	clusters, err := c.Registry.Clusters(t.Context())
	require.NoError(t, err)
	for i := range clusters {
		if clusters[i].ID == id {
			change(&clusters[i])
		}
	}
	data, err := yaml.MarshalWithOptions(map[string]any{"clusters": clusters}, yaml.IndentSequence(true), yaml.OmitEmpty())
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(c.Registry.File, data, 0o644))
}

// register writes the pool and its instance types into the registry of a worker.
func (p pool) register(t *testing.T, instanceTypes ...string) func(*config.Config) {
	return func(c *config.Config) {
		changeRegistry(t, c, p.cluster, func(cluster *registry.Cluster) {
			cluster.NodePools = append(cluster.NodePools, registry.NodePool{
				Name: p.name, Profile: "test", InstanceTypes: instanceTypes, MinSize: p.size, MaxSize: p.size + 1, DiscountStrategy: "none",
			})
		})
	}
}

func fallbacks(kinds ...roll.FallbackKind) func(*config.Config) {
	texts := []string{}
	for _, kind := range kinds {
		texts = append(texts, string(kind))
	}
	return func(c *config.Config) { c.Roll.Fallbacks = &texts }
}

func TestAnInstanceThatNeverBecomesANodeIsReplaced(t *testing.T) {
	t.Parallel()
	p := newPool(t, busy)
	p.run(t, application{})
	w := startWorker(t, busy, paced(func(c *config.Config) { c.Replace.NodeReadyWithin = 20 * time.Second }))
	require.NoError(t, theLab.FailLaunches(t.Context(), p.group, 1))
	r := p.roll(t, w, workflows.RollPoolInput{All: true})
	result := r.requireRolled(t, outcome{replaced: r.before.names(), surplus: 1})
	require.Equal(t, 1, result.Bad)
}

func TestARollStopsAfterTooManyInstancesThatNeverBecomeNodes(t *testing.T) {
	t.Parallel()
	p := newPool(t, busy)
	p.run(t, application{})
	w := startWorker(t, busy, paced(func(c *config.Config) {
		c.Replace.NodeReadyWithin, c.Roll.BadReplacements = 6*time.Second, new(2)
	}))
	require.NoError(t, theLab.FailLaunches(t.Context(), p.group, 100))
	r := p.roll(t, w, workflows.RollPoolInput{All: true})
	_, err := r.end(t)
	requireKind(t, err, workflows.BadReplacement, "is not a node yet, 6s after it was asked for")
	progress := r.progress(t)
	require.Equal(t, "failed", progress.Phase)
	require.Contains(t, progress.Step, "is not a node yet")
	require.Equal(t, 2, progress.Bad)
	r.requireNothingReplaced(t, progress, 2)
}

// requireNothingReplaced checks what has to hold after a roll that stopped before it replaced anything.
func (r poolRoll) requireNothingReplaced(t *testing.T, progress workflows.RollProgress, surplus int) {
	t.Helper()
	require.Len(t, progress.Nodes, len(r.before.Nodes))
	for _, node := range progress.Nodes {
		require.Equal(t, workflows.Waiting, node.State, node.Node)
	}
	r.require(t, outcome{surplus: surplus})
}

// Shortages are the lab's, so each of these pools has an instance type of its own.
func TestAShortageOfCapacity(t *testing.T) {
	t.Parallel()
	t.Cleanup(func() { require.NoError(t, theLab.ClearShortages(cleanup(t))) })
	t.Run("while it lasts", func(t *testing.T) {
		t.Run("another type", func(t *testing.T) {
			t.Parallel()
			p := newPool(t, busy, shape{instanceType: types.InstanceTypeC5Large})
			p.run(t, application{})
			w := startWorker(t, busy, paced(p.register(t, "c5.large", "c5d.large", "c5a.large"), fallbacks(roll.OtherType, roll.OtherZone)))
			for _, short := range []string{"c5.large", "c5d.large"} {
				require.NoError(t, theLab.Shortage(t.Context(), lab.Shortage{InstanceType: short}))
			}
			old := p.nodes(t)[0].Name
			r := p.roll(t, w, workflows.RollPoolInput{Nodes: []string{old}})
			result := r.requireRolled(t, outcome{replaced: []string{old}})
			require.Equal(t, []roll.FallbackKind{roll.OtherType, roll.OtherType}, kinds(result), "types are tried in their order")
			require.Contains(t, result.Fallbacks[1].Text, "instances of type c5a.large are asked for, because")
			require.Contains(t, result.Fallbacks[1].Text, "sufficient c5d.large capacity")
			require.Equal(t, "c5a.large", p.label(t, result.Nodes[0].Replacement, corev1.LabelInstanceTypeStable))
		})
		t.Run("another zone", func(t *testing.T) {
			t.Parallel()
			// With two nodes in one zone and one in the other, a move leaves as many in balance.
			p := newPool(t, busy, shape{size: 3, zones: []string{"eu-central-1a", "eu-central-1b"}, instanceType: types.InstanceTypeR5Large})
			p.run(t, application{replicas: 6})
			byZone := map[string][]string{}
			for _, node := range p.nodes(t) {
				zone := p.label(t, node.Name, corev1.LabelTopologyZone)
				byZone[zone] = append(byZone[zone], node.Name)
			}
			short, other := "eu-central-1a", "eu-central-1b"
			if len(byZone[other]) == 2 {
				short, other = other, short
			}
			require.Len(t, byZone[short], 2)
			w := startWorker(t, busy, paced(fallbacks(roll.OtherType, roll.OtherZone)))
			require.NoError(t, theLab.Shortage(t.Context(), lab.Shortage{Zone: short, InstanceType: "r5.large"}))
			old := byZone[short][0]
			r := p.roll(t, w, workflows.RollPoolInput{Nodes: []string{old}})
			result := r.requireRolled(t, outcome{replaced: []string{old}})
			require.Equal(t, []roll.FallbackKind{roll.OtherZone}, kinds(result))
			require.Contains(t, result.Fallbacks[0].Text, "instances in "+other+" are asked for instead of "+short)
			require.Equal(t, other, p.label(t, result.Nodes[0].Replacement, corev1.LabelTopologyZone))
		})
		t.Run("is not moved away from where volumes are", func(t *testing.T) {
			t.Parallel()
			p := newPool(t, busy, shape{zones: []string{"eu-central-1a", "eu-central-1b"}, instanceType: types.InstanceTypeM5dLarge})
			p.run(t, application{})
			old := p.store(t)
			w := startWorker(t, busy, paced(fallbacks(roll.OtherZone)))
			require.NoError(t, theLab.Shortage(t.Context(), lab.Shortage{Zone: p.label(t, old, corev1.LabelTopologyZone), InstanceType: "m5d.large"}))
			r := p.roll(t, w, workflows.RollPoolInput{Nodes: []string{old}})
			_, err := r.end(t)
			requireKind(t, err, workflows.NoCapacity, "sufficient m5d.large capacity")
			require.Empty(t, r.progress(t).Fallbacks)
			r.require(t, outcome{})
		})
	})
	t.Run("without a way out stops the roll until it is over", func(t *testing.T) {
		p := newPool(t, busy, shape{instanceType: types.InstanceTypeM4Large})
		p.run(t, application{})
		w := startWorker(t, busy, paced(fallbacks(roll.OtherType, roll.OtherZone, roll.OnDemand, roll.SmallerSurge)))
		require.NoError(t, theLab.Shortage(t.Context(), lab.Shortage{InstanceType: "m4.large"}))
		r := p.roll(t, w, workflows.RollPoolInput{All: true})
		_, err := r.end(t)
		requireKind(t, err, workflows.NoCapacity, "sufficient m4.large capacity")
		progress := r.progress(t)
		require.Equal(t, "failed", progress.Phase)
		r.requireNothingReplaced(t, progress, 0)

		require.NoError(t, theLab.ClearShortages(t.Context()))
		again := p.roll(t, w, workflows.RollPoolInput{All: true})
		again.requireRolled(t, outcome{replaced: again.before.names()})
	})
}

// store runs a pod with a volume on the pool, and returns the node it runs on.
func (p pool) store(t *testing.T) (node string) {
	t.Helper()
	ctx, meta := t.Context(), metav1.ObjectMeta{Name: "store", Namespace: p.name, Labels: map[string]string{"application": "store"}}
	_, err := p.client.AppsV1().StatefulSets(p.name).Create(ctx, &appsv1.StatefulSet{ObjectMeta: meta, Spec: appsv1.StatefulSetSpec{
		Replicas: new(int32(1)), Selector: &metav1.LabelSelector{MatchLabels: meta.Labels}, ServiceName: "store",
		Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: meta.Labels}, Spec: corev1.PodSpec{
			NodeSelector: map[string]string{poolLabel: p.name},
			Tolerations:  []corev1.Toleration{{Key: ownTaint, Operator: corev1.TolerationOpExists}},
			Containers: []corev1.Container{{
				Name: "store", Image: "registry.fleet.internal/test/store:1", VolumeMounts: []corev1.VolumeMount{{Name: "data", MountPath: "/data"}},
			}},
		}},
		VolumeClaimTemplates: []corev1.PersistentVolumeClaim{{ObjectMeta: metav1.ObjectMeta{Name: "data"}, Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}, StorageClassName: new("zonal"),
			Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}},
		}}},
	}}, metav1.CreateOptions{})
	require.NoError(t, err)
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		pod, err := p.client.CoreV1().Pods(p.name).Get(background, "store-0", metav1.GetOptions{})
		require.NoError(c, err)
		require.Equal(c, corev1.PodRunning, pod.Status.Phase)
		node = pod.Spec.NodeName
	}, time.Minute, 100*time.Millisecond, "the pod with a volume does not run")
	return node
}

func kinds(result workflows.RollProgress) (out []roll.FallbackKind) {
	for _, taken := range result.Fallbacks {
		out = append(out, taken.Kind)
	}
	return out
}

func TestAPoolAtItsMaximumIsRefusedBeforeAnythingIsChanged(t *testing.T) {
	t.Parallel()
	p := newPool(t, busy, shape{max: poolSize})
	w := startWorker(t, busy, paced())
	before := p.look(t)
	got := w.fairway(t, "pool", "roll", busy, p.name, "--all", "--reason", "too large")
	require.Equal(t, wrongInput, got.status)
	require.Contains(t, got.stderr, "pool "+p.name+" has no room for a replacement")
	require.Contains(t, got.stderr, "raise max_size by one")
	require.Equal(t, before, p.look(t), "no workflow was started, and nothing has changed")

	r := p.roll(t, w, workflows.RollPoolInput{All: true})
	_, err := r.end(t)
	requireKind(t, err, workflows.NoSurgeRoom, "allow the fallback in-place")
	after := p.look(t)
	after.Workflows = before.Workflows
	require.Equal(t, before, after, "nothing has changed")
	require.NotContains(t, summaries(t, r.roll), "ProtectPool", "nothing was tried either")
}

func TestAPoolAtItsMaximumIsRolledInPlaceWhereThatIsAllowed(t *testing.T) {
	t.Parallel()
	p := newPool(t, busy, shape{max: poolSize})
	p.run(t, application{})
	w := startWorker(t, busy, paced(fallbacks(roll.InPlace)))
	most := p.serving(t)
	r := p.roll(t, w, workflows.RollPoolInput{All: true})
	result := r.requireRolled(t, outcome{replaced: r.before.names()})
	require.Equal(t, p.size, most(), "instances at a time")
	require.Equal(t, []roll.FallbackKind{roll.InPlace, roll.InPlace}, kinds(result), "it is not silent")
	require.Contains(t, result.Fallbacks[0].Text, "is at its maximum of 2")
}
