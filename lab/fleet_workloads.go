package lab

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/yaml"

	"github.com/fairway-project/fairway/registry"
)

// applyManifests applies the manifests of a cluster under the name that Fairway itself applies
// under, so that the fields belong to Fairway from the start.
func (l *Lab) applyManifests(ctx context.Context, c registry.Cluster, net network) error {
	release, err := l.sampleRelease(c, net)
	if err != nil {
		return err
	}
	var manifests []byte
	for _, m := range release.Manifests {
		object, err := yaml.Marshal(m.Object.Object)
		if err != nil {
			return err
		}
		manifests = append(append(manifests, "---\n"...), object...)
	}
	cluster, err := l.upCluster(c.ID)
	if err != nil {
		return err
	}
	file := cluster.path("manifests.yaml")
	if err := writeFile(file, manifests, 0o644); err != nil {
		return err
	}
	_, err = run(ctx, cluster.dir, []string{"KUBECACHEDIR=" + cluster.path("kubectl")}, l.bin("kubectl"),
		"--kubeconfig="+cluster.kubeconfig("admin"), "apply", "--server-side", "--field-manager=fairway", "-f", file)
	return err
}

// ApplySample applies the manifests of a cluster of the sample fleet once more, with kubectl.
func (l *Lab) ApplySample(ctx context.Context, cluster string) error {
	clusters, err := l.sampleClusters(ctx)
	if err != nil {
		return err
	}
	c, err := clusters.Find(cluster)
	if err != nil {
		return err
	}
	net, err := l.findNetwork(ctx)
	if err != nil {
		return err
	}
	return l.applyManifests(ctx, c, net)
}

func (l *Lab) adminClient(id string) (*kubernetes.Clientset, error) {
	config, err := l.RESTConfig(id)
	if err != nil {
		return nil, err
	}
	return kubernetes.NewForConfig(config)
}

// awaitWorkloads waits until all pods that the manifests ask for are ready.
func (l *Lab) awaitWorkloads(ctx context.Context, id string) error {
	client, err := l.adminClient(id)
	if err != nil {
		return err
	}
	const within = 3 * time.Minute
	ctx, cancel := context.WithTimeoutCause(ctx, within, fmt.Errorf("not all within %s", within))
	defer cancel()
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for {
		missing, err := unready(ctx, client)
		if err != nil {
			return err
		}
		if len(missing) == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for the pods of %s: %w", strings.Join(missing, ", "), context.Cause(ctx))
		case <-tick.C:
		}
	}
}

// unready names the workloads whose pods are not all up to date and ready.
func unready(ctx context.Context, client kubernetes.Interface) ([]string, error) {
	var names []string
	add := func(kind string, object metav1.ObjectMeta, observed int64, wanted int32, counts ...int32) {
		if observed < object.Generation || slices.ContainsFunc(counts, func(n int32) bool { return n != wanted }) {
			names = append(names, kind+" "+object.Namespace+"/"+object.Name)
		}
	}
	deployments, err := client.AppsV1().Deployments("").List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	for _, d := range deployments.Items {
		add("Deployment", d.ObjectMeta, d.Status.ObservedGeneration, *d.Spec.Replicas, d.Status.Replicas, d.Status.UpdatedReplicas, d.Status.AvailableReplicas)
	}
	sets, err := client.AppsV1().StatefulSets("").List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	for _, s := range sets.Items {
		add("StatefulSet", s.ObjectMeta, s.Status.ObservedGeneration, *s.Spec.Replicas, s.Status.Replicas, s.Status.UpdatedReplicas, s.Status.AvailableReplicas)
	}
	daemons, err := client.AppsV1().DaemonSets("").List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	for _, d := range daemons.Items {
		add("DaemonSet", d.ObjectMeta, d.Status.ObservedGeneration, d.Status.DesiredNumberScheduled, d.Status.UpdatedNumberScheduled, d.Status.NumberAvailable)
	}
	return names, nil
}
