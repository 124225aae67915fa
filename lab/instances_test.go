package lab

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudformation"
	cftypes "github.com/aws/aws-sdk-go-v2/service/cloudformation/types"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

const bridgedCluster = "bridge-1"

// bridged is a cluster that stacks brought into being. The tests run in the order of their
// appearance.
type bridged struct {
	account
	client kubernetes.Interface
}

func TestInstances(t *testing.T) {
	t.Parallel()
	b := startTestBridge(t)
	for _, test := range []struct {
		rule string
		run  func(bridged)
	}{
		{"an instance becomes a node of its pool and zone", testNodes},
		{"a terminated instance takes its node along", testTerminatedInstance},
		{"a failed launch never becomes a node", testNeverBoots},
		{"a deleted node does not come back", testDeletedNode},
		{"a claim gets a volume in the zone of its pod", testClaim},
		{"a killed bridge goes on where it was", testKilledBridge},
		{"an API server that was away gets its nodes", testAPIServerAway},
		{"the control plane ends with its stack", testStackEnds},
	} {
		passed := t.Run(test.rule, func(t *testing.T) {
			b := b
			b.T = t
			test.run(b)
		})
		if !passed {
			return
		}
	}
}

func startTestBridge(t *testing.T) bridged {
	t.Helper()
	a := startTestAWS(t)
	if err := Build(a.ctx, t.Output(), "kcp", "kubectl", "kwok", "lab-instances"); err != nil {
		t.Fatal(err)
	}
	a.must(a.lab.startInstances(a.ctx))
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the end of the bridge's log:\n%s", a.lab.Part("instances").Tail(30))
		}
	})
	start := time.Now()
	a.startStack(bridgedCluster, `{"Resources": {"Files": {"Type": "AWS::S3::Bucket"}}}`, map[string]string{"fairway.dev/control-plane": "true"})
	a.startStack("nodepool-worker-"+bridgedCluster, a.bridgedPool("worker", 3), nil)
	a.startStack("nodepool-master-"+bridgedCluster, a.bridgedPool("master", 1), nil)
	b := bridged{account: a}
	a.eventually("the control plane serves", func() bool {
		config, err := a.lab.RESTConfig(bridgedCluster)
		if err != nil {
			return false
		}
		b.client = kubernetes.NewForConfigOrDie(config)
		return true
	})
	t.Logf("the control plane serves %.1f s after its stack was begun", time.Since(start).Seconds())
	b.awaitNodes(4)
	t.Logf("4 nodes are Ready after %.1f s", time.Since(start).Seconds())
	return b
}

func (a account) bridgedPool(name string, size int) string {
	template := a.pool("nodepool-"+name, "ami-1", size)
	return strings.Replace(template, "Tags:", fmt.Sprintf(`Tags:
        - {Key: kubernetes.io/cluster/%s, Value: owned, PropagateAtLaunch: true}
        - {Key: node.kubernetes.io/profile, Value: %s-default, PropagateAtLaunch: true}`, bridgedCluster, name), 1)
}

func (a account) startStack(name, template string, tags map[string]string) {
	a.Helper()
	input := &cloudformation.CreateStackInput{StackName: &name, TemplateBody: &template, Tags: []cftypes.Tag{
		{Key: aws.String("kubernetes.io/cluster/" + bridgedCluster), Value: aws.String("owned")},
	}}
	for key, value := range tags {
		input.Tags = append(input.Tags, cftypes.Tag{Key: &key, Value: &value})
	}
	_, err := a.stacks.CreateStack(a.ctx, input)
	a.must(err)
}

func testNodes(b bridged) {
	zones := map[string]bool{}
	for _, node := range b.nodes() {
		id := b.instanceOf(node)
		i := b.instance(id)
		for label, want := range map[string]string{
			corev1.LabelHostname:           node.Name,
			corev1.LabelTopologyZone:       *i.Placement.AvailabilityZone,
			corev1.LabelTopologyRegion:     awsRegion,
			corev1.LabelInstanceTypeStable: "m5.large",
		} {
			if node.Labels[label] != want {
				b.Errorf("node %s has %s=%q, want %q", node.Name, label, node.Labels[label], want)
			}
		}
		if node.Name != *i.PrivateDnsName || !strings.HasPrefix(node.Name, "ip-10-") {
			b.Errorf("node %s is not named after %s", node.Name, *i.PrivateDnsName)
		}
		if want := fmt.Sprintf("aws:///%s/%s", *i.Placement.AvailabilityZone, id); node.Spec.ProviderID != want {
			b.Errorf("node %s has provider id %q, want %q", node.Name, node.Spec.ProviderID, want)
		}
		master := slices.ContainsFunc(node.Spec.Taints, func(t corev1.Taint) bool { return t.Key == "node-role.kubernetes.io/control-plane" })
		switch node.Labels["node.kubernetes.io/profile"] {
		case "master-default":
			if !master || node.Labels["node.kubernetes.io/role"] != "master" {
				b.Errorf("node %s is no master", node.Name)
			}
		case "worker-default":
			zones[*i.Placement.AvailabilityZone] = true
			if master || node.Labels["node.kubernetes.io/role"] != "worker" {
				b.Errorf("node %s is no worker", node.Name)
			}
		default:
			b.Errorf("node %s has profile %q", node.Name, node.Labels["node.kubernetes.io/profile"])
		}
		if cpus := node.Status.Capacity.Cpu().Value(); cpus != 2 || node.Status.Allocatable.Pods().Value() != 110 {
			b.Errorf("node %s has %d CPUs and takes %s pods", node.Name, cpus, node.Status.Allocatable.Pods())
		}
	}
	if len(zones) != 3 {
		b.Errorf("the workers are in %d zones", len(zones))
	}
}

func testTerminatedInstance(b bridged) {
	node := b.workers()[0]
	b.must(b.resize("nodepool-worker", 4))
	b.awaitNodes(5)
	b.endInstanceOf(node, true)
	b.awaitNodes(4)
	if b.node(node.Name) != nil {
		b.Errorf("node %s is still there", node.Name)
	}
}

func testNeverBoots(b bridged) {
	b.must(b.lab.FailLaunches(b.ctx, "nodepool-worker", 1))
	b.must(b.resize("nodepool-worker", 4))
	b.settles("nodepool-worker", 4)
	b.must(b.resize("nodepool-worker", 5)) // this one boots, and later than the other would have
	b.awaitNodes(5)
	if members := b.members("nodepool-worker"); len(members) != 5 {
		b.Errorf("the group has %d instances", len(members))
	}
	b.must(b.bound("nodepool-worker", 3, 6))
	for _, member := range b.members("nodepool-worker") {
		if !slices.ContainsFunc(b.nodes(), func(n corev1.Node) bool { return b.instanceOf(n) == *member.InstanceId }) {
			_, err := b.terminate(member, true)
			b.must(err)
		}
	}
	b.settles("nodepool-worker", 4)
}

func testDeletedNode(b bridged) {
	node := b.workers()[0]
	b.must(b.client.CoreV1().Nodes().Delete(b.ctx, node.Name, metav1.DeleteOptions{}))
	b.must(b.resize("nodepool-worker", 5))
	b.awaitNodes(5) // one more, one less: the bridge has looked at all instances since
	if b.node(node.Name) != nil {
		b.Errorf("node %s is back", node.Name)
	}
	b.endInstanceOf(node, true)
	b.settles("nodepool-worker", 4)
}

func testClaim(b bridged) {
	_, err := b.client.StorageV1().StorageClasses().Create(b.ctx, &storagev1.StorageClass{
		ObjectMeta: metav1.ObjectMeta{Name: "disposable"}, Provisioner: "ebs.csi.aws.com",
		VolumeBindingMode: new(storagev1.VolumeBindingWaitForFirstConsumer),
	}, metav1.CreateOptions{})
	b.must(err)
	_, err = b.client.CoreV1().PersistentVolumeClaims("default").Create(b.ctx, &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Name: "data"},
		Spec: corev1.PersistentVolumeClaimSpec{
			StorageClassName: aws.String("disposable"), AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("5Gi")}},
		},
	}, metav1.CreateOptions{})
	b.must(err)
	zone := b.usesClaim("first", "")
	b.must(b.client.CoreV1().Pods("default").Delete(b.ctx, "first", metav1.DeleteOptions{}))
	b.eventually("the volume is free again", func() bool {
		return b.volume().State == ec2types.VolumeStateAvailable && len(b.attachments()) == 0
	})
	// The pod that follows must go where the volume is, and there to another node.
	node := b.workerIn(zone)
	b.must(b.resize("nodepool-worker", 6))
	b.awaitNodes(7)
	b.endInstanceOf(node, true)
	b.awaitNodes(6)
	if again := b.usesClaim("second", node.Name); again != zone {
		b.Errorf("the volume in %s is used in %s", zone, again)
	}

	b.must(b.client.CoreV1().Pods("default").Delete(b.ctx, "second", metav1.DeleteOptions{}))
	b.must(b.client.CoreV1().PersistentVolumeClaims("default").Delete(b.ctx, "data", metav1.DeleteOptions{}))
	b.eventually("the volume ends with its claim", func() bool { return b.volume() == nil })
}

// usesClaim runs a pod with the claim and returns the zone in which the volume is attached to
// the instance of the pod's node.
func (b bridged) usesClaim(pod, notOn string) (zone string) {
	b.Helper()
	_, err := b.client.CoreV1().Pods("default").Create(b.ctx, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: pod},
		Spec: corev1.PodSpec{
			Containers: []corev1.Container{{Name: "main", Image: "example.org/main", VolumeMounts: []corev1.VolumeMount{{Name: "data", MountPath: "/data"}}}},
			Volumes: []corev1.Volume{{Name: "data", VolumeSource: corev1.VolumeSource{
				PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data"},
			}}},
		},
	}, metav1.CreateOptions{})
	b.must(err)
	var node *corev1.Node
	b.eventually("the pod "+pod+" runs with its volume", func() bool {
		pod, err := b.client.CoreV1().Pods("default").Get(b.ctx, pod, metav1.GetOptions{})
		b.must(err)
		if pod.Status.Phase != corev1.PodRunning || len(b.attachments()) != 1 {
			return false
		}
		node = b.node(pod.Spec.NodeName)
		return b.attachments()[0].Status.Attached
	})
	if node.Name == notOn {
		b.Errorf("pod %s is on node %s", pod, notOn)
	}
	volume := b.volume()
	if len(volume.Attachments) != 1 || *volume.Attachments[0].InstanceId != b.instanceOf(*node) {
		b.Errorf("the volume is attached to %v, want instance %s", volume.Attachments, b.instanceOf(*node))
	}
	if *volume.Size != 5 || *volume.AvailabilityZone != node.Labels[corev1.LabelTopologyZone] {
		b.Errorf("the volume has %d GiB in %s", *volume.Size, *volume.AvailabilityZone)
	}
	return *volume.AvailabilityZone
}

func testKilledBridge(b bridged) {
	before := len(b.nodes())
	part := b.lab.Part("instances")
	b.must(part.Kill())
	node := b.workers()[0]
	b.endInstanceOf(node, false)
	b.eventually("the group has replaced the instance", func() bool {
		return b.state("nodepool-worker", b.instanceOf(node)) == "" && b.settled("nodepool-worker", before-1)
	})
	if b.node(node.Name) == nil {
		b.Errorf("node %s is gone without the bridge", node.Name)
	}
	b.must(part.Restart(b.ctx))
	b.eventually("the nodes follow", func() bool { return b.node(node.Name) == nil && b.ready() == before })
}

func testAPIServerAway(b bridged) {
	before := len(b.nodes())
	part := b.lab.Part("kubernetes/" + bridgedCluster + "/kube-apiserver")
	b.must(part.Kill())
	node := b.members("nodepool-master")[0]
	_, err := b.terminate(node, false)
	b.must(err)
	b.eventually("the group has replaced the instance", func() bool {
		return b.state("nodepool-master", *node.InstanceId) == "" && b.settled("nodepool-master", 1)
	})
	b.must(part.Restart(b.ctx))
	start := time.Now()
	b.eventually("the nodes follow", func() bool {
		return b.ready() == before && !slices.ContainsFunc(b.nodes(), func(n corev1.Node) bool { return b.instanceOf(n) == *node.InstanceId })
	})
	b.Logf("nodes are right %.1f s after the API server is back", time.Since(start).Seconds())
}

func testStackEnds(b bridged) {
	for _, stack := range []string{"nodepool-worker-" + bridgedCluster, "nodepool-master-" + bridgedCluster, bridgedCluster} {
		b.deleteStack(stack)
	}
	b.eventually("the control plane is gone", func() bool {
		_, err := b.lab.RESTConfig(bridgedCluster)
		return err != nil
	})
}

func (b bridged) nodes() []corev1.Node {
	b.Helper()
	nodes, err := b.client.CoreV1().Nodes().List(b.ctx, metav1.ListOptions{})
	b.must(err)
	return nodes.Items
}

func (b bridged) workers() []corev1.Node {
	b.Helper()
	return slices.DeleteFunc(b.nodes(), func(n corev1.Node) bool { return n.Labels["node.kubernetes.io/role"] != "worker" })
}

func (b bridged) workerIn(zone string) corev1.Node {
	b.Helper()
	for _, node := range b.workers() {
		if node.Labels[corev1.LabelTopologyZone] == zone {
			return node
		}
	}
	b.Fatalf("no worker is in %s", zone)
	return corev1.Node{}
}

// node returns nil if there is no such node.
func (b bridged) node(name string) *corev1.Node {
	b.Helper()
	for _, node := range b.nodes() {
		if node.Name == name {
			return &node
		}
	}
	return nil
}

func (b bridged) instanceOf(node corev1.Node) string { return node.Labels["lab.fairway.dev/instance"] }

func (b bridged) endInstanceOf(node corev1.Node, decrement bool) {
	b.Helper()
	for _, member := range b.members("nodepool-worker") {
		if *member.InstanceId == b.instanceOf(node) {
			_, err := b.terminate(member, decrement)
			b.must(err)
			return
		}
	}
	b.Fatalf("node %s has no instance in its group", node.Name)
}

func (b bridged) ready() (count int) {
	b.Helper()
	for _, node := range b.nodes() {
		if nodeCondition(&node) == corev1.ConditionTrue {
			count++
		}
	}
	return count
}

func (b bridged) awaitNodes(count int) {
	b.Helper()
	b.eventually(fmt.Sprintf("%d nodes are Ready", count), func() bool { return b.ready() == count && len(b.nodes()) == count })
}

func (b bridged) attachments() []storagev1.VolumeAttachment {
	b.Helper()
	attachments, err := b.client.StorageV1().VolumeAttachments().List(b.ctx, metav1.ListOptions{})
	b.must(err)
	return attachments.Items
}

// volume is the only one that a claim has brought about; nil if there is none.
func (b bridged) volume() *ec2types.Volume {
	b.Helper()
	found, err := b.ec2.DescribeVolumes(b.ctx, &ec2.DescribeVolumesInput{
		Filters: []ec2types.Filter{{Name: aws.String("tag-key"), Values: []string{"CSIVolumeName"}}},
	})
	b.must(err)
	if len(found.Volumes) == 0 {
		return nil
	}
	return &found.Volumes[0]
}
