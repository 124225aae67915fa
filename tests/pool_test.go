package tests

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling"
	astypes "github.com/aws/aws-sdk-go-v2/service/autoscaling/types"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/fairway-project/fairway/lab"
	"github.com/fairway-project/fairway/workflows"
)

const (
	poolLabel = "node.kubernetes.io/node-pool"
	ownTaint  = "fairway.test/own" // keeps others off a test's own pool
	poolSize  = 2                  // nodes of a test's own pool; it has room for one more
	replicas  = 4                  // of the application on it
)

// pool is a node pool and the Auto Scaling group behind it.
type pool struct {
	cluster, name, group string
	size                 int
	taints               []string // of its nodes, from the beginning
	*witness
}

func samplePool(cluster, name string) pool {
	return pool{cluster: cluster, name: name, group: "nodepool-" + name + "-" + cluster, witness: watched[cluster]}
}

// shape says how a test's own pool differs from others; the zero value means not at all.
type shape struct {
	suffix    string   // of the pool's name, where a test has several
	size, max int      // default: poolSize, and room for one more
	zones     []string // default: all
	// instanceType gives the pool a launch template of its own, called like its group. Default: it
	// shares that of the sample's workers.
	instanceType ec2types.InstanceType
}

// newPool makes a pool that only this test uses, and removes it in the end. Its nodes have a taint
// that keeps the sample's applications off: the end of the pool is a rough one.
func newPool(t *testing.T, cluster string, as ...shape) pool {
	t.Helper()
	model := samplePool(cluster, "worker")
	p := samplePool(cluster, nameOf(t))
	if len(as) > 0 {
		p = samplePool(cluster, p.name+as[0].suffix)
	}
	p.taints, p.size = []string{ownTaint + "=true:NoSchedule"}, poolSize
	limit, subnets, template := 0, *model.describe(t).VPCZoneIdentifier, cluster+"-worker"
	for _, s := range as {
		p.size, limit = cmp.Or(s.size, p.size), s.max
		if len(s.zones) > 0 {
			subnets = subnetsIn(t, subnets, s.zones)
		}
		if s.instanceType != "" {
			template = p.group
			p.createTemplate(t, s.instanceType)
		}
	}
	limit = cmp.Or(limit, p.size+1)
	tag := func(key, value string) astypes.Tag {
		return astypes.Tag{Key: &key, Value: &value, PropagateAtLaunch: aws.Bool(true)}
	}
	_, err := scaling.CreateAutoScalingGroup(t.Context(), &autoscaling.CreateAutoScalingGroupInput{
		AutoScalingGroupName: &p.group, MinSize: aws.Int32(int32(p.size)), MaxSize: aws.Int32(int32(limit)), DesiredCapacity: aws.Int32(int32(p.size)),
		LaunchTemplate:    &astypes.LaunchTemplateSpecification{LaunchTemplateName: &template, Version: aws.String("$Latest")},
		VPCZoneIdentifier: &subnets,
		Tags: []astypes.Tag{
			tag("kubernetes.io/cluster/"+cluster, "owned"), tag(poolLabel, p.name),
			tag("node.kubernetes.io/profile", "test"), tag("k8s.io/cluster-autoscaler/node-template/taint/"+ownTaint, "true:NoSchedule"),
		},
	})
	require.NoError(t, err)
	t.Cleanup(func() {
		_, err := scaling.DeleteAutoScalingGroup(cleanup(t), &autoscaling.DeleteAutoScalingGroupInput{
			AutoScalingGroupName: &p.group, ForceDelete: aws.Bool(true),
		})
		require.NoError(t, err)
	})
	p.awaitNodes(t)
	return p
}

// subnetsIn are those of a list of subnets that are in some zones.
func subnetsIn(t *testing.T, subnets string, zones []string) string {
	t.Helper()
	out, err := ec2.NewFromConfig(theLab.AWSConfig()).DescribeSubnets(t.Context(), &ec2.DescribeSubnetsInput{SubnetIds: strings.Split(subnets, ",")})
	require.NoError(t, err)
	var ids []string
	for _, subnet := range out.Subnets {
		if slices.Contains(zones, *subnet.AvailabilityZone) {
			ids = append(ids, *subnet.SubnetId)
		}
	}
	require.Len(t, ids, len(zones), "a subnet in each of %v", zones)
	return strings.Join(ids, ",")
}

// createTemplate makes a launch template for a pool alone.
func (p pool) createTemplate(t *testing.T, instanceType ec2types.InstanceType) {
	t.Helper()
	client := ec2.NewFromConfig(theLab.AWSConfig())
	_, err := client.CreateLaunchTemplate(t.Context(), &ec2.CreateLaunchTemplateInput{
		LaunchTemplateName: &p.group,
		LaunchTemplateData: &ec2types.RequestLaunchTemplateData{ImageId: aws.String("ami-1"), InstanceType: instanceType},
	})
	require.NoError(t, err)
	t.Cleanup(func() {
		_, err := client.DeleteLaunchTemplate(cleanup(t), &ec2.DeleteLaunchTemplateInput{LaunchTemplateName: &p.group})
		require.NoError(t, err)
	})
}

// awaitNodes waits until all nodes of a test's own pool take pods.
func (p pool) awaitNodes(t *testing.T) {
	t.Helper()
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		nodes := p.nodes(c)
		assert.Len(c, nodes, p.size)
		for _, node := range nodes {
			assert.True(c, node.Ready, node.Name)
			assert.Equal(c, p.taints, node.Taints, node.Name)
		}
	}, 2*time.Minute, 100*time.Millisecond, "the pool has no nodes")
}

// application is what runs on a pool: replicas behind a budget that lets them go one by one.
type application struct {
	replicas    int32         // default: replicas
	unavailable int           // what the budget allows at a time; default 1
	stop        time.Duration // a pod's way from eviction to end; default is the lab's
	ready       time.Duration // a pod's way from start to ready; default is the lab's
}

// run starts an application on the pool and waits until all of it is ready.
func (p pool) run(t *testing.T, a application) {
	t.Helper()
	annotations := map[string]string{}
	if a.stop > 0 {
		annotations[lab.StopDelayAnnotation] = a.stop.String()
	}
	if a.ready > 0 {
		annotations[lab.ReadyDelayAnnotation] = a.ready.String()
	}
	count, allowed := cmp.Or(a.replicas, replicas), cmp.Or(a.unavailable, 1)
	p.makeNamespace(t)
	p.deploy(t, "app", count, annotations)
	p.protect(t, "app", policyv1.PodDisruptionBudgetSpec{
		MaxUnavailable: new(intstr.FromInt(allowed)), Selector: &metav1.LabelSelector{MatchLabels: labelsOf("app")},
	})
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		budget, err := p.client.PolicyV1().PodDisruptionBudgets(p.name).Get(t.Context(), "app", metav1.GetOptions{})
		require.NoError(c, err)
		assert.EqualValues(c, count, budget.Status.CurrentHealthy)
		assert.EqualValues(c, allowed, budget.Status.DisruptionsAllowed)
	}, 2*time.Minute, 200*time.Millisecond, "the application does not get ready")
}

func (p pool) describe(t require.TestingT) astypes.AutoScalingGroup {
	out, err := scaling.DescribeAutoScalingGroups(background, &autoscaling.DescribeAutoScalingGroupsInput{AutoScalingGroupNames: []string{p.group}})
	require.NoError(t, err)
	require.Len(t, out.AutoScalingGroups, 1, p.group)
	return out.AutoScalingGroups[0]
}

// node is what matters of a node of a pool.
type node struct {
	Name, Instance string
	Ready          bool
	Cordoned       bool
	Taints         []string
	Marks          []string // annotations by Fairway, also those meant for the autoscaler
	Pods           int      // of the pool's application
}

func (p pool) nodes(t require.TestingT) []node {
	list, err := p.client.CoreV1().Nodes().List(background, metav1.ListOptions{LabelSelector: poolLabel + "=" + p.name})
	require.NoError(t, err)
	pods, err := p.client.CoreV1().Pods(p.name).List(background, metav1.ListOptions{})
	require.NoError(t, err)
	var out []node
	for _, each := range list.Items {
		n := node{Name: each.Name, Cordoned: each.Spec.Unschedulable, Instance: each.Spec.ProviderID[strings.LastIndex(each.Spec.ProviderID, "/")+1:]}
		for _, condition := range each.Status.Conditions {
			if condition.Type == corev1.NodeReady {
				n.Ready = condition.Status == corev1.ConditionTrue
			}
		}
		for _, taint := range each.Spec.Taints {
			n.Taints = append(n.Taints, taint.ToString())
		}
		for key, value := range each.Annotations {
			if strings.HasPrefix(key, "fairway.dev/") || strings.HasPrefix(key, "cluster-autoscaler.kubernetes.io/") {
				n.Marks = append(n.Marks, key+"="+value)
			}
		}
		for _, pod := range pods.Items {
			if pod.Spec.NodeName == each.Name {
				n.Pods++
			}
		}
		out = append(out, n)
	}
	return out
}

// fullest is the node that most pods of the pool's application run on.
func (p pool) fullest(t *testing.T) node {
	t.Helper()
	nodes := p.nodes(t)
	require.NotEmpty(t, nodes)
	return slices.MaxFunc(nodes, func(a, b node) int { return a.Pods - b.Pods })
}

// snapshot is everything about a pool that a test can find changed.
type snapshot struct {
	Min, Max, Desired int32
	Instances         []string // with their lifecycle
	Nodes             []node   // without counts of pods
	Launched, Ended   []string // instances, since the pool was made
	Workflows         []string // runs of workflows about the pool or its nodes
}

func (p pool) look(t *testing.T) snapshot {
	t.Helper()
	group := p.describe(t)
	s := snapshot{Min: *group.MinSize, Max: *group.MaxSize, Desired: *group.DesiredCapacity}
	for _, instance := range group.Instances {
		s.Instances = append(s.Instances, *instance.InstanceId+" "+string(instance.LifecycleState))
	}
	slices.Sort(s.Instances)
	s.Nodes = p.nodes(t)
	for i := range s.Nodes {
		s.Nodes[i].Pods = 0
	}
	slices.SortFunc(s.Nodes, func(a, b node) int { return strings.Compare(a.Name, b.Name) })
	for _, activity := range p.activities(t) {
		if id, launched := strings.CutPrefix(*activity.Description, "Launching a new EC2 instance: "); launched {
			s.Launched = append(s.Launched, id)
		}
		if id, ended := strings.CutPrefix(*activity.Description, terminating); ended {
			s.Ended = append(s.Ended, id)
		}
	}
	s.Workflows = runsAbout(t, workflows.RollPoolID(p.cluster, p.name))
	for _, node := range s.Nodes {
		s.Workflows = append(s.Workflows, runsAbout(t, workflows.ReplaceNodeID(p.cluster, node.Name))...)
	}
	return s
}

const terminating = "Terminating EC2 instance: "

// activities are those of the Auto Scaling group, oldest first.
func (p pool) activities(t *testing.T) []astypes.Activity {
	t.Helper()
	var out []astypes.Activity
	pages := autoscaling.NewDescribeScalingActivitiesPaginator(scaling, &autoscaling.DescribeScalingActivitiesInput{AutoScalingGroupName: &p.group})
	for pages.HasMorePages() {
		page, err := pages.NextPage(t.Context())
		require.NoError(t, err)
		out = append(out, page.Activities...)
	}
	slices.Reverse(out)
	return out
}

func (s snapshot) node(t *testing.T, name string) node {
	t.Helper()
	at := slices.IndexFunc(s.Nodes, func(n node) bool { return n.Name == name })
	require.GreaterOrEqual(t, at, 0, "no node %s", name)
	return s.Nodes[at]
}

// requireClean checks that every node of the pool is as one would find it without Fairway.
func (p pool) requireClean(t *testing.T, s snapshot) {
	t.Helper()
	for _, node := range s.Nodes {
		require.True(t, node.Ready, "node %s is Ready", node.Name)
		require.False(t, node.Cordoned, "node %s is not cordoned", node.Name)
		require.Equal(t, p.taints, node.Taints, "node %s has the taints of its pool and no others", node.Name)
		require.Empty(t, node.Marks, "node %s has no marks of Fairway", node.Name)
	}
	for _, instance := range s.Instances {
		require.Contains(t, instance, string(astypes.LifecycleStateInService))
	}
}

// requireReplaced checks what has to hold after the replacement of one node, whatever happened on
// the way: exactly one instance was terminated, that of the node, after it was emptied within the
// budgets or with the forces given; the pool has its size, and nothing is left behind.
func (p pool) requireReplaced(t *testing.T, before snapshot, name string, forced ...workflows.ForcedPod) {
	t.Helper()
	old, after := before.node(t, name), p.look(t)
	require.Equal(t, append(slices.Clone(before.Ended), old.Instance), after.Ended, "exactly the old instance was terminated")
	require.Len(t, after.Launched, len(before.Launched)+1, "exactly one instance was launched")
	require.Equal(t, []int32{before.Min, before.Max, before.Desired}, []int32{after.Min, after.Max, after.Desired}, "the pool has its original size")
	require.Len(t, after.Instances, len(before.Instances))
	require.Len(t, after.Nodes, len(before.Nodes))
	require.False(t, slices.ContainsFunc(after.Nodes, func(n node) bool { return n.Name == name }), "the old node is gone")
	p.requireClean(t, after)
	p.requireUnprotected(t)
	p.requireEmptied(t, old, forced...)
}

// requireUnprotected checks that a roll has left nothing of its protections on the group.
func (p pool) requireUnprotected(t *testing.T) {
	t.Helper()
	group := p.describe(t)
	require.Empty(t, group.SuspendedProcesses, "no process is suspended")
	for _, tag := range group.Tags {
		require.NotContains(t, *tag.Key, "fairway.dev/", "the group has no marks of Fairway")
	}
	for _, instance := range group.Instances {
		require.False(t, *instance.ProtectedFromScaleIn, "instance %s is not protected", *instance.InstanceId)
	}
}

// requireUndone checks what has to hold after a replacement that was called off before the old
// node was terminated: all old instances serve as before, and the new one is gone again.
func (p pool) requireUndone(t *testing.T, before snapshot) {
	t.Helper()
	after := p.look(t)
	require.Len(t, after.Launched, len(before.Launched)+1, "exactly one instance was launched")
	surplus := after.Launched[len(after.Launched)-1]
	require.Equal(t, append(slices.Clone(before.Ended), surplus), after.Ended, "exactly the new instance was terminated")
	after.Launched, after.Ended, after.Workflows = before.Launched, before.Ended, before.Workflows
	require.Equal(t, before, after)
	p.requireClean(t, after)
	p.requireUnprotected(t)
}

// requireEmptied checks that the node's pods were gone before its instance was ended, by
// evictions and the given forces alone, and that no budget was hurt but by the forces.
func (p pool) requireEmptied(t *testing.T, old node, forced ...workflows.ForcedPod) {
	t.Helper()
	audit, err := theLab.Audit(p.cluster)
	require.NoError(t, err)
	ours := audit.By("fairway")
	cordons := ours.Where(func(e lab.AuditEvent) bool {
		return e.Verb == "patch" && e.Resource == "nodes" && e.Name == old.Name && e.Code == 200
	})
	require.NotEmpty(t, cordons, "node %s was never cordoned", old.Name)
	cordoned, ended := cordons[0].Received, p.ended(t, old.Instance)

	evicted, deleted, hurtByForce := map[string]bool{}, map[string]bool{}, map[string]bool{} // by uid, and budgets by name
	for _, deletion := range ours.PodDeletions() {
		options, err := deletion.DeleteOptions()
		require.NoError(t, err)
		require.NotNil(t, options.Preconditions, "a deletion names the very pod that it means")
		require.Nil(t, options.GracePeriodSeconds, "a forced pod has its grace period")
		deleted[string(*options.Preconditions.UID)] = true
	}
	allowed := map[string]bool{}
	for _, force := range forced {
		allowed[force.UID] = true
		hurtByForce[force.Budget] = true
	}
	for _, eviction := range ours.Evictions() {
		if len(eviction.Request) == 0 {
			continue // the API server was too busy to read it
		}
		options, err := eviction.DeleteOptions()
		require.NoError(t, err)
		require.NotNil(t, options.Preconditions, "an eviction names the very pod that it means")
		if eviction.Code == 201 {
			evicted[string(*options.Preconditions.UID)] = true
		}
	}
	namespaces := map[string]bool{}
	for _, pod := range p.podsOn(old.Name) {
		if owner := metav1.GetControllerOf(pod); owner != nil && owner.Kind == "DaemonSet" || pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
			continue
		}
		name := pod.Namespace + "/" + pod.Name
		confirmed := audit.PodDeletions().Where(func(e lab.AuditEvent) bool {
			return e.User == "kwok" && e.Namespace == pod.Namespace && e.Name == pod.Name && e.Received.After(pod.CreationTimestamp.Time)
		})
		require.NotEmpty(t, confirmed, "the kubelet has confirmed the end of pod %s", name)
		gone := confirmed[0].Answered
		if gone.Before(cordoned) {
			continue // it was not there any more
		}
		uid := string(pod.UID)
		require.Equal(t, allowed[uid], deleted[uid], "Fairway deletes no pods but those that it reports, it evicts them: %s", name)
		require.True(t, evicted[uid] || deleted[uid], "pod %s was evicted, or else forced", name)
		require.True(t, gone.Before(ended), "pod %s was gone at %s, before its instance was terminated at %s", name, gone, ended)
		namespaces[pod.Namespace] = true
	}
	require.NotEmpty(t, namespaces, "no pod was on node %s, so nothing was proved", old.Name)
	hurt := slices.DeleteFunc(p.hurt(cordoned, namespaces), func(b budgetSeen) bool { return hurtByForce[b.name] })
	require.Empty(t, hurt, "no budget was violated")
}

// ended is when the termination of an instance began.
func (p pool) ended(t *testing.T, instance string) time.Time {
	t.Helper()
	for _, activity := range p.activities(t) {
		if *activity.Description == terminating+instance {
			return *activity.StartTime
		}
	}
	require.Fail(t, fmt.Sprintf("instance %s was not terminated by its group", instance))
	return time.Time{}
}
