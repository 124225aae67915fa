package main

import (
	"context"
	"fmt"
	"hash/fnv"
	"log"
	"maps"
	"slices"
	"strings"
	"time"

	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// instanceLabel is on the nodes that the bridge has made; it touches no others.
const instanceLabel = "lab.fairway.dev/instance"

// reconcileNodes creates the nodes of instances that have booted and deletes those of instances
// that are gone.
func (s *session) reconcileNodes(ctx context.Context, now time.Time) error {
	all, err := s.nodes.List(labels.Everything())
	if err != nil {
		return err
	}
	nodes := map[string]*corev1.Node{}
	for _, node := range all {
		if id := node.Labels[instanceLabel]; id != "" {
			nodes[id] = node
		}
	}
	s.mu.Lock()
	instances := s.instances
	s.mu.Unlock()
	var group errgroup.Group // machines do not wait for each other
	for id, i := range instances {
		switch {
		case i.Tags[bootedTag] != "" || i.Tags[neverBootsTag] != "":
		case nodes[id] != nil:
			group.Go(func() error { return s.cloud.markBooted(ctx, id) })
		case i.State == ec2types.InstanceStateNameRunning && now.Sub(i.Launched) >= s.options.boot.of(id):
			group.Go(func() error { return s.createNode(ctx, i) })
		}
	}
	for id, node := range nodes {
		if _, there := instances[id]; !there && s.sinceEnd(id, now) >= s.options.shutdown.of(id) {
			group.Go(func() error { return s.deleteNode(ctx, node) })
		}
	}
	return group.Wait()
}

func (s *session) createNode(ctx context.Context, i instance) error {
	_, err := s.client.CoreV1().Nodes().Create(ctx, newNode(i), metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		return nil // the informer lags behind
	}
	if err != nil {
		return fmt.Errorf("creating node %s: %w", i.DNSName, err)
	}
	log.Printf("cluster %s: %s has booted: node %s", s.id, i.ID, i.DNSName)
	return s.cloud.markBooted(ctx, i.ID)
}

func (s *session) deleteNode(ctx context.Context, node *corev1.Node) error {
	err := s.client.CoreV1().Nodes().Delete(ctx, node.Name, *metav1.NewPreconditionDeleteOptions(string(node.UID)))
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("deleting node %s: %w", node.Name, err)
	}
	log.Printf("cluster %s: %s is gone, and so is node %s", s.id, node.Labels[instanceLabel], node.Name)
	return nil
}

// sinceEnd is the time since the bridge has noticed that an instance is gone.
func (s *session) sinceEnd(id string, now time.Time) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended[id].IsZero() {
		s.ended[id] = now
	}
	return now.Sub(s.ended[id])
}

// of draws the delay of an instance, always the same one.
func (d delay) of(id string) time.Duration {
	hash := fnv.New32a()
	hash.Write([]byte(id))
	return d.from + time.Duration(float64(d.to-d.from)*float64(hash.Sum32()%1000)/1000)
}

func newNode(i instance) *corev1.Node {
	role := i.Tags[roleTag]
	if role == "" {
		role = "worker"
		if strings.HasPrefix(i.Tags[profileTag], "master") {
			role = "master"
		}
	}
	node := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{
			Name: i.DNSName,
			Labels: map[string]string{
				instanceLabel:                  i.ID,
				corev1.LabelHostname:           i.DNSName,
				corev1.LabelOSStable:           "linux",
				corev1.LabelArchStable:         "amd64",
				corev1.LabelTopologyZone:       i.Zone,
				corev1.LabelTopologyRegion:     i.Region,
				corev1.LabelInstanceTypeStable: i.Type,
				"node.kubernetes.io/role":      role,
				"node.kubernetes.io/node-pool": i.Tags[poolTag],
				"node.kubernetes.io/profile":   i.Tags[profileTag],
			},
			Annotations: map[string]string{
				"kwok.x-k8s.io/node": "fake", // kwok plays the kubelet
				// Kubelets leave attaching to the control plane.
				"volumes.kubernetes.io/controller-managed-attach-detach": "true",
			},
		},
		Spec: corev1.NodeSpec{ProviderID: fmt.Sprintf("aws:///%s/%s", i.Zone, i.ID)},
		Status: corev1.NodeStatus{
			Capacity:    i.resources(0, 0),
			Allocatable: i.resources(100, 512),
			Addresses: []corev1.NodeAddress{
				{Type: corev1.NodeInternalIP, Address: i.Address},
				{Type: corev1.NodeInternalDNS, Address: i.DNSName},
				{Type: corev1.NodeHostName, Address: i.DNSName},
			},
		},
	}
	maps.DeleteFunc(node.Labels, func(_, value string) bool { return value == "" })
	if role == "master" {
		node.Labels[controlPlane] = ""
		node.Spec.Taints = []corev1.Taint{{Key: controlPlane, Effect: corev1.TaintEffectNoSchedule}}
	}
	node.Spec.Taints = append(node.Spec.Taints, taints(i.Tags)...)
	return node
}

// controlPlane is the label and the taint of masters.
const controlPlane = "node-role.kubernetes.io/control-plane"

// taints are what the tags of an instance say about its node's taints, the way the cluster
// autoscaler reads them: <taintTag><key> = <value>:<effect>.
func taints(tags map[string]string) []corev1.Taint {
	var out []corev1.Taint
	for _, tag := range slices.Sorted(maps.Keys(tags)) {
		key, about := strings.CutPrefix(tag, taintTag)
		value, effect, valid := strings.Cut(tags[tag], ":")
		if about && valid {
			out = append(out, corev1.Taint{Key: key, Value: value, Effect: corev1.TaintEffect(effect)})
		}
	}
	return out
}

// resources are those of the machine less what the system keeps for itself.
func (i instance) resources(millicpus, mebibytes int64) corev1.ResourceList {
	return corev1.ResourceList{
		corev1.ResourceCPU:              *resource.NewMilliQuantity(1000*i.CPUs-millicpus, resource.DecimalSI),
		corev1.ResourceMemory:           *resource.NewQuantity((i.MemoryMiB-mebibytes)<<20, resource.BinarySI),
		corev1.ResourceEphemeralStorage: resource.MustParse("50Gi"),
		corev1.ResourcePods:             resource.MustParse("110"),
	}
}
