package kube_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/fairway-project/fairway/activities/kube"
	"github.com/fairway-project/fairway/lab"
	"github.com/fairway-project/fairway/workflows"
)

func TestOnACluster(t *testing.T) {
	c := startCluster(t)
	for rule, test := range map[string]func(*testing.T, cluster){
		"what is wrong with the access to a cluster is told": testAccess,
		"a kubeconfig that was changed is read anew":         testKubeconfigChanged,

		"cordoning marks a node and uncordoning takes the mark back":   testCordon,
		"a node that a person cordoned stays cordoned":                 testCordonedByAPerson,
		"a node that another workflow cordoned stays cordoned":         testCordonedByAnother,
		"a node of the same name on another instance is left alone":    testCordonOtherInstance,
		"a blocked pool is not cordoned, but uncordoned":               testCordonBlocked,
		"a node is described, or why it cannot be replaced":            testExamine,
		"a roll marks nodes, and takes back just that":                 testMarks,
		"a blocked pool is not marked, but unmarked":                   testMarkBlocked,
		"a quarantined node stays cordoned until it is taken up again": testQuarantine,
		"a pool is looked at from outside":                             testSurvey,
		"an emptied node waits for its volumes":                        testDetach,
		"a watch that is refused is told at once":                      testWatchRefused,
		"the autoscaler is kept from new nodes":                        testScaleDownHold,
		"the autoscaler is told again if that did not work":            testScaleDownHoldRetried,
		"a new node has to be Ready with its DaemonSets for a while":   testAwaitNode,
		"a node that is not usable in time is a bad replacement":       testBadReplacement,
		"a node is gone when another instance has taken over its name": testAwaitNodeGone,

		"a workload moves within its budget":                                  testDrainWithinBudget,
		"pods that cannot leave are named, with owner and reason":             testDrainHeld,
		"a drain goes on as soon as a budget has something to spare":          testDrainGoesOn,
		"a pod that is never ready does not keep its siblings":                testDrainUnready,
		"a drain ends with its node":                                          testDrainVanished,
		"a drain leaves a node of the same name on another instance":          testDrainOtherInstance,
		"a drain ends when it is cancelled":                                   testDrainCancelled,
		"a drain waits while its pool is blocked":                             testDrainBlocked,
		"a pod whose time has come is forced, on record, and people are told": testDrainForce,

		"an empty node is not done while its pool is blocked":        testDrainEmptyBlocked,
		"nor is one that is gone":                                    testDrainVanishedBlocked,
		"a node that somebody opened is cordoned before it is empty": testDrainCordonsAgain,
		"a node is empty when the API server says so":                testDrainConfirmed,
		"two drains force the pods of a budget in turn":              testForcesOfABudget,
		"two drains force the pods of a workload in turn":            testForcesOfAWorkload,
		"a drain tells of its own forces only":                       testForceRecordStays,
		"a node with startup taints is not usable yet":               testStartupTaints,
		"nodes that cannot be changed do not hold up others":         testMarkSomeFail,
		"what cannot be scaled back keeps no node marked":            testUnmarkSurged,

		"an order to force reaches a drain that waits":                testDrainOrders,
		"a block that begins while a drain waits opens the node":      testDrainOpens,
		"a block does not open a node that a person cordoned":         testDrainStaysClosed,
		"a drain that has lasted too long is given up":                testDrainGivesUp,
		"a lone replica gets a second one before it goes":             testDrainSurges,
		"a cancelled drain gives workloads their size back":           testDrainSurgeCancelled,
		"uncordoning gives back what a crashed drain has scaled":      testUncordonSurged,
		"a size that somebody else has set meanwhile stays":           testSurgedByAnother,
		"what is no Deployment's is evicted like other pods":          testDrainSurgeImpossible,
		"the next drain goes on with a second replica":                testDrainSurgeGoesOn,
		"an API server that is busy or does not answer ends no drain": testDrainTrouble,
	} {
		t.Run(rule, func(t *testing.T) {
			t.Parallel()
			test(t, c)
		})
	}
}

func (s *scene) mark(i int, by string) workflows.CordonNode {
	return workflows.CordonNode{Cluster: clusterID, Pool: s.name, Node: s.nodeName(i), Instance: s.instance(i), By: by}
}

// change runs an activity that changes a node. Control plane and kubelet change it too, and a
// conflict with them is for the next attempt.
func (s *scene) change(activity any, mark workflows.CordonNode) error {
	for {
		err := s.worker.Run(activity, mark, nil)
		if err == nil || !strings.Contains(err.Error(), "the object has been modified") {
			return err
		}
	}
}

func testCordon(t *testing.T, c cluster) {
	s := c.stage(t, "cordon", "")
	s.makeNode(0)
	s.patchNode(0, `{"metadata":{"annotations":{"a":"b"}}}`)
	for range 2 { // as after a lost answer
		s.must(s.change(s.activities.CordonNode, s.mark(0, "workflow")))
		node := s.node(0)
		require.True(t, node.Spec.Unschedulable)
		require.Equal(t, "workflow", node.Annotations[kube.CordonedBy])
	}
	for range 2 {
		s.must(s.change(s.activities.UncordonNode, s.mark(0, "workflow")))
		node := s.node(0)
		require.False(t, node.Spec.Unschedulable)
		require.NotContains(t, node.Annotations, kube.CordonedBy)
		require.Equal(t, "b", node.Annotations["a"])
	}
}

func testCordonedByAPerson(t *testing.T, c cluster) {
	s := c.stage(t, "person", "")
	s.makeNode(0)
	s.cordon(0, true)
	s.must(s.change(s.activities.CordonNode, s.mark(0, "workflow")))
	require.NotContains(t, s.node(0).Annotations, kube.CordonedBy)
	s.must(s.change(s.activities.UncordonNode, s.mark(0, "workflow")))
	require.True(t, s.node(0).Spec.Unschedulable)
}

func testCordonedByAnother(t *testing.T, c cluster) {
	s := c.stage(t, "another", "")
	s.makeNode(0)
	s.must(s.change(s.activities.CordonNode, s.mark(0, "first")))
	s.must(s.change(s.activities.CordonNode, s.mark(0, "second")))
	s.must(s.change(s.activities.UncordonNode, s.mark(0, "second")))
	require.True(t, s.node(0).Spec.Unschedulable)
	require.Equal(t, "first", s.node(0).Annotations[kube.CordonedBy])
}

func testCordonOtherInstance(t *testing.T, c cluster) {
	s := c.stage(t, "reborn", "")
	s.makeNode(0)
	former := s.mark(0, "workflow")
	former.Instance = "i-former"
	s.must(s.change(s.activities.CordonNode, former))
	require.False(t, s.node(0).Spec.Unschedulable)

	s.must(s.change(s.activities.CordonNode, s.mark(0, "workflow")))
	s.must(s.change(s.activities.UncordonNode, former))
	require.True(t, s.node(0).Spec.Unschedulable)

	s.deleteNode(0) // there is nothing left to do
	s.must(s.change(s.activities.CordonNode, s.mark(0, "workflow")))
	s.must(s.change(s.activities.UncordonNode, s.mark(0, "workflow")))
}

func testCordonBlocked(t *testing.T, c cluster) {
	s := c.stage(t, "frozen", "")
	s.makeNode(0)
	block := workflows.Block{ID: "1", Pool: "frozen", Reason: "audit", By: "anna", Since: time.Now().Add(-time.Minute)}
	s.blocks.set(block)
	requireError(t, s.change(s.activities.CordonNode, s.mark(0, "workflow")), workflows.Blocked, false, "audit")
	require.False(t, s.node(0).Spec.Unschedulable)

	s.blocks.set()
	s.must(s.change(s.activities.CordonNode, s.mark(0, "workflow")))
	s.blocks.set(block)
	s.must(s.change(s.activities.UncordonNode, s.mark(0, "workflow")))
	require.False(t, s.node(0).Spec.Unschedulable, "what was begun is undone even so")
}

func testExamine(t *testing.T, c cluster) {
	s := c.stage(t, "examined", "")
	s.makeReadyNodes(1)
	s.makeNode(1, func(node *corev1.Node) { node.Spec.ProviderID = "kind://node" })
	s.makeNode(2, func(node *corev1.Node) { delete(node.Labels, "node.kubernetes.io/node-pool") })
	s.deployDaemonSet("agent", s.podTemplate("agent", nil))
	s.cordon(1, true)
	s.cordon(2, true)
	s.deploy("web", 2)
	s.awaitReady("web", 2)
	s.awaitReady("agent", 3)

	var node workflows.Node
	s.must(s.worker.Run(s.activities.ExamineNode, workflows.ExamineNode{Cluster: clusterID, Node: "examined-0"}, &node))
	require.NotZero(t, node.Created)
	require.NotEmpty(t, node.Version)
	node.Created, node.Version = time.Time{}, ""
	want := workflows.Node{Name: "examined-0", Pool: "examined", Instance: "i-examined0", Type: "m5.large", Zone: "eu-central-1a", Ready: true}
	require.Equal(t, want, node)

	examine := func(name string) error {
		return s.worker.Run(s.activities.ExamineNode, workflows.ExamineNode{Cluster: clusterID, Node: name}, nil)
	}
	requireError(t, examine("examined-9"), workflows.NodeNotFound, true, "cluster dev-1 has no node \"examined-9\"; `fairway node list dev-1` shows those that it has")
	requireError(t, examine("examined-1"), workflows.InvalidInput, false, `node examined-1: its providerID "kind://node" names no EC2 instance`)
	requireError(t, examine("examined-2"), workflows.InvalidInput, false, "node examined-2 carries no label node.kubernetes.io/node-pool")

	var nodes []workflows.Node
	s.must(s.worker.Run(s.activities.ListNodes, workflows.ListNodes{Cluster: clusterID}, &nodes))
	at := slices.IndexFunc(nodes, func(n workflows.Node) bool { return n.Name == "examined-0" })
	require.Equal(t, 2, nodes[at].Pods, "pods of DaemonSets do not have to leave")
	at = slices.IndexFunc(nodes, func(n workflows.Node) bool { return n.Name == "examined-1" })
	require.True(t, nodes[at].Cordoned)

	s.must(s.worker.Run(s.activities.FindNode, workflows.FindNode{Cluster: clusterID, Instance: "i-examined0"}, &node))
	require.Equal(t, "examined-0", node.Name)
	var none workflows.Node
	s.must(s.worker.Run(s.activities.FindNode, workflows.FindNode{Cluster: clusterID, Instance: "i-nobody"}, &none))
	require.Empty(t, none.Name)
}

func testAwaitNode(t *testing.T, c cluster) {
	s := c.stage(t, "awaited", "replace: {settle: 2s}\n")
	s.deployDaemonSet("agent", s.podTemplate("agent", map[string]string{lab.ReadyDelayAnnotation: "2s"}))
	intolerant := s.podTemplate("elsewhere", nil)
	intolerant.Spec.Tolerations = nil
	s.deployDaemonSet("elsewhere", intolerant) // does not tolerate the taint of the node, so nobody waits for it
	heard := s.worker.Heartbeat
	s.worker.Heartbeat = func(details any) {
		heard(details)
		if len(s.said) == 2 { // after the one about the lists
			s.makeNode(0)
		}
	}
	var node workflows.Node
	s.must(s.worker.Run(s.activities.AwaitNode, workflows.AwaitNode{Cluster: clusterID, Instance: "i-awaited0", Since: time.Now()}, &node))
	require.Equal(t, "awaited-0", node.Name)
	require.True(t, node.Ready)
	s.requireSaid(
		"instance i-awaited0 is not a node yet",
		"instance i-awaited0 is node awaited-0, which is not Ready yet",
		"instance i-awaited0 is node awaited-0, where a pod of DaemonSet awaited/agent is not Ready yet",
		"node awaited-0 is Ready and has to stay so for",
	)
	require.True(t, podReady(s.pods("agent", 0)[0]))
	require.Empty(t, s.pods("elsewhere", -1))
}

// requireSaid checks that an activity has heartbeated all this, in this order.
func (s *scene) requireSaid(wanted ...string) {
	s.Helper()
	left := wanted
	for _, text := range s.said {
		if len(left) > 0 && strings.HasPrefix(text, left[0]) {
			left = left[1:]
		}
	}
	require.Empty(s, left, "said was %q", s.said)
}

// testStartupTaints has agents that take their taints off: a known one in a pool of one node, and
// one that only the older node tells to be foreign.
func testStartupTaints(t *testing.T, c cluster) {
	known := corev1.Taint{Key: "node.cilium.io/agent-not-ready", Effect: corev1.TaintEffectNoExecute}
	unknown := corev1.Taint{Key: "example.org/agent", Value: "missing", Effect: corev1.TaintEffectNoSchedule}
	for name, taint := range map[string]corev1.Taint{"known": known, "foreign": unknown} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := c.stage(t, name, "replace: {settle: 100ms}\n")
			own := corev1.Taint{Key: "scene", Value: name, Effect: corev1.TaintEffectNoSchedule}
			if taint == unknown {
				s.makeNode(1)
				time.Sleep(time.Second) // nodes are as old as whole seconds
			}
			asked := time.Now()
			// The pods of the set do not tolerate the taint, so they come only when it is gone.
			s.deployDaemonSet("agent", s.podTemplate("agent", map[string]string{lab.ReadyDelayAnnotation: "2s"}))
			s.makeNode(0, func(node *corev1.Node) { node.Spec.Taints = append(node.Spec.Taints, taint) })
			heard, wanted := s.worker.Heartbeat, "instance i-"+name+"0 is node "+name+"-0, which still has the taint "+taint.ToString()
			removed := false
			s.worker.Heartbeat = func(details any) {
				heard(details)
				if text, ok := details.(string); ok && !removed && strings.HasPrefix(text, wanted) {
					removed = true
					s.setTaints(0, own)
				}
			}
			var node workflows.Node
			s.must(s.worker.Run(s.activities.AwaitNode, workflows.AwaitNode{Cluster: clusterID, Instance: s.instance(0), Since: asked}, &node))
			s.requireSaid(wanted, "instance i-"+name+"0 is node "+name+"-0, where a pod of DaemonSet "+name+"/agent is not Ready yet")
			require.Len(t, s.pods("agent", 0), 1)
		})
	}

	t.Run("meanwhile", func(t *testing.T) { // the pool has got a taint of its own
		t.Parallel()
		s := c.stage(t, "meanwhile", "replace: {settle: 100ms, node_ready_within: 10s}\n")
		s.makeNode(1)
		time.Sleep(time.Second)
		asked := time.Now()
		s.makeNode(0, func(node *corev1.Node) { node.Spec.Taints = append(node.Spec.Taints, unknown) })
		s.must(s.worker.Run(s.activities.AwaitNode, workflows.AwaitNode{Cluster: clusterID, Instance: s.instance(0), Since: asked}, nil))
		require.GreaterOrEqual(t, time.Since(asked), 5*time.Second)
		s.requireSaid("instance i-meanwhile0 is node meanwhile-0, which still has the taint")
	})
}

func testBadReplacement(t *testing.T, c cluster) {
	s := c.stage(t, "bad", "replace: {node_ready_within: 2s, settle: 0s}\n")
	s.makeNode(0, func(node *corev1.Node) { node.Annotations[lab.NotReadyAnnotation] = "true" })
	s.makeNode(1, func(node *corev1.Node) { node.Spec.Unschedulable = true })
	await := func(instance string) error {
		return s.worker.Run(s.activities.AwaitNode, workflows.AwaitNode{Cluster: clusterID, Instance: instance, Since: time.Now().Add(-time.Second)}, nil)
	}
	requireError(t, await("i-nobody"), workflows.BadReplacement, true, "cluster dev-1: instance i-nobody is not a node yet, 2s after it was asked for")
	requireError(t, await("i-bad0"), workflows.BadReplacement, true, "instance i-bad0 is node bad-0, which is not Ready yet, 2s after")
	s.eventually("the other node is Ready", func() bool { return nodeReady(*s.node(1)) })
	requireError(t, await("i-bad1"), workflows.BadReplacement, true, "instance i-bad1 is node bad-1, which is cordoned, 2s after")
}

func testAwaitNodeGone(t *testing.T, c cluster) {
	s := c.stage(t, "gone", "")
	s.makeNode(0)
	gone := workflows.AwaitNodeGone{Cluster: clusterID, Node: "gone-0", Instance: "i-gone0"}
	heard := s.worker.Heartbeat
	s.worker.Heartbeat = func(details any) {
		heard(details)
		if len(s.said) == 2 {
			s.deleteNode(0)
			s.makeNode(0, func(node *corev1.Node) { node.Spec.ProviderID = "aws:///eu-central-1a/i-next" })
		}
	}
	s.must(s.worker.Run(s.activities.AwaitNodeGone, gone, nil))
	s.requireSaid("node gone-0 is still registered")
	require.Len(t, s.nodes(), 1)

	gone.Node = "gone-9"
	s.must(s.worker.Run(s.activities.AwaitNodeGone, gone, nil))
}
