package kube_test

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/fairway-project/fairway/activities/kube"
	"github.com/fairway-project/fairway/lab"
	"github.com/fairway-project/fairway/workflows"
)

var outdated = corev1.Taint{Key: "fairway.dev/outdated", Value: "true", Effect: corev1.TaintEffectPreferNoSchedule}

// rollID is one for each scene, since what a roll leaves is undone on all nodes of the cluster.
func (s *scene) rollID() string { return "cluster/dev-1/pool/" + s.name }

// taints are those that Kubernetes did not put on a node by itself.
func (s *scene) taints(i int) []corev1.Taint {
	s.Helper()
	return slices.DeleteFunc(s.node(i).Spec.Taints, func(t corev1.Taint) bool { return strings.HasPrefix(t.Key, "node.kubernetes.io/") })
}

func (s *scene) annotation(i int, name string) string {
	s.Helper()
	return s.node(i).Annotations[name]
}

func (s *scene) markNodes(nodes ...int) error {
	in := workflows.MarkNodes{Cluster: clusterID, Pool: s.name, By: s.rollID()}
	for _, i := range nodes {
		in.Nodes = append(in.Nodes, s.nodeName(i))
	}
	return s.worker.Run(s.activities.MarkNodes, in, nil)
}

func (s *scene) unmarkNodes(by string) error {
	return s.worker.Run(s.activities.UnmarkNodes, workflows.UnmarkNodes{Cluster: clusterID, By: by}, nil)
}

// patches counts how often Fairway has changed a node.
func (s *scene) patches(i int) int {
	s.Helper()
	audit, err := s.lab.Audit(clusterID)
	s.must(err)
	return len(audit.By("fairway").Where(func(e lab.AuditEvent) bool {
		return e.Resource == "nodes" && e.Verb == "patch" && e.Name == s.nodeName(i) && e.Code == 200
	}))
}

func testMarks(t *testing.T, c cluster) {
	s := c.stage(t, "marked", "")
	own := corev1.Taint{Key: "scene", Value: "marked", Effect: corev1.TaintEffectNoSchedule}
	dedicated := corev1.Taint{Key: "dedicated", Value: "db", Effect: corev1.TaintEffectNoExecute}
	s.makeReadyNodes(4)
	s.cordon(1, true) // by a person
	replacing := s.mark(2, workflows.ReplaceNodeID(clusterID, s.nodeName(2)))
	s.must(s.change(s.activities.CordonNode, replacing))
	elsewhere := s.mark(3, workflows.ReplaceNodeID(clusterID, s.nodeName(3)))
	s.must(s.change(s.activities.CordonNode, elsewhere))

	s.must(s.markNodes(0, 1, 2, 9)) // there is no node 9
	for i := range 3 {
		require.Equal(t, []corev1.Taint{own, outdated}, s.taints(i))
		require.Equal(t, s.rollID(), s.annotation(i, kube.RolledBy))
	}
	require.Equal(t, []corev1.Taint{own}, s.taints(3), "a node that is not named is left alone")
	s.must(s.markNodes(0, 1, 2, 9)) // as after a lost answer
	require.Equal(t, 1, s.patches(0))

	s.must(s.change(func(ctx context.Context, in workflows.CordonNode) error {
		return s.activities.QuarantineNode(ctx, workflows.QuarantineNode{CordonNode: in, Reason: "web cannot move"})
	}, replacing))
	s.setTaints(0, own, outdated, dedicated)

	s.must(s.unmarkNodes("another roll"))
	require.Contains(t, s.taints(0), outdated)
	for range 2 {
		s.must(s.unmarkNodes(s.rollID()))
		require.Equal(t, []corev1.Taint{own, dedicated}, s.taints(0), "the taints of others stay in their order")
		for i := range 3 {
			require.NotContains(t, s.taints(i), outdated)
			require.NotContains(t, s.node(i).Annotations, kube.RolledBy)
		}
	}
	require.True(t, s.node(1).Spec.Unschedulable, "a person's cordon stays")
	require.False(t, s.node(2).Spec.Unschedulable)
	require.NotContains(t, s.node(2).Annotations, kube.CordonedBy)
	require.NotContains(t, s.node(2).Annotations, kube.Quarantined)
	require.True(t, s.node(3).Spec.Unschedulable, "what another workflow does to other nodes stays")
	require.Equal(t, elsewhere.By, s.annotation(3, kube.CordonedBy))
	require.Equal(t, 2, s.patches(0))
}

func (s *scene) setTaints(i int, taints ...corev1.Taint) {
	s.Helper()
	s.eventually("the taints are set", func() bool {
		node := s.node(i)
		node.Spec.Taints = taints
		_, err := s.client.CoreV1().Nodes().Update(s.Context(), node, metav1.UpdateOptions{})
		return err == nil
	})
}

func testMarkBlocked(t *testing.T, c cluster) {
	s := c.stage(t, "unmarkable", "")
	s.makeReadyNodes(1)
	block := workflows.Block{ID: "1", Pool: "unmarkable", Reason: "audit", By: "anna", Since: time.Now().Add(-time.Minute)}
	s.blocks.set(block)
	requireError(t, s.markNodes(0), workflows.Blocked, false, "audit")
	require.NotContains(t, s.taints(0), outdated)

	s.blocks.set()
	s.must(s.markNodes(0))
	s.blocks.set(block)
	s.must(s.unmarkNodes(s.rollID()))
	require.NotContains(t, s.taints(0), outdated, "what was begun is undone even so")
}

func testScaleDownHold(t *testing.T, c cluster) {
	s := c.stage(t, "kept", "replace: {node_ready_within: 3s, settle: 1h}\n")
	s.makeReadyNodes(2)
	s.makeNode(2, func(node *corev1.Node) { node.Annotations[kube.ScaleDownDisabled] = "true" })
	s.makeNode(3, func(node *corev1.Node) { node.Annotations[lab.NotReadyAnnotation] = "true" })
	await := func(i int, by string) error {
		return s.worker.Run(s.activities.AwaitNode, workflows.AwaitNode{
			Cluster: clusterID, Instance: s.instance(i), Since: time.Now().Add(-time.Second), By: by, Settle: 100 * time.Millisecond,
		}, nil)
	}
	s.must(await(0, s.rollID()))
	s.must(await(1, ""))
	s.eventually("the node is Ready", func() bool { return nodeReady(*s.node(2)) })
	s.must(await(2, s.rollID()))
	requireError(t, await(3, s.rollID()), workflows.BadReplacement, true, "which is not Ready yet")

	for _, i := range []int{0, 3} { // as soon as there is a node
		require.Equal(t, "true", s.annotation(i, kube.ScaleDownDisabled))
		require.Equal(t, s.rollID(), s.annotation(i, kube.ScaleDownHeldBy))
	}
	require.NotContains(t, s.node(1).Annotations, kube.ScaleDownDisabled, "nobody wants it held")
	require.NotContains(t, s.node(2).Annotations, kube.ScaleDownHeldBy, "it is somebody else's")

	s.must(s.unmarkNodes(s.rollID()))
	for _, i := range []int{0, 3} {
		require.NotContains(t, s.node(i).Annotations, kube.ScaleDownDisabled)
		require.NotContains(t, s.node(i).Annotations, kube.ScaleDownHeldBy)
	}
	require.Equal(t, "true", s.annotation(2, kube.ScaleDownDisabled))
}

// testScaleDownHoldRetried has an admission policy refuse the hold for a while.
func testScaleDownHoldRetried(t *testing.T, c cluster) {
	s := c.stage(t, "unlucky", "replace: {settle: 0s}\n")
	s.makeReadyNodes(1)
	policies := c.client.AdmissionregistrationV1()
	_, err := policies.ValidatingAdmissionPolicies().Create(t.Context(), &admissionv1.ValidatingAdmissionPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: "unlucky"},
		Spec: admissionv1.ValidatingAdmissionPolicySpec{
			MatchConstraints: &admissionv1.MatchResources{ResourceRules: []admissionv1.NamedRuleWithOperations{{RuleWithOperations: admissionv1.RuleWithOperations{
				Operations: []admissionv1.OperationType{admissionv1.Update},
				Rule:       admissionv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"nodes"}},
			}}}},
			Validations: []admissionv1.Validation{{
				Expression: `object.metadata.name != "unlucky-0" || !("fairway.dev/scale-down-held-by" in object.metadata.annotations)`, Message: "not now",
			}},
		},
	}, metav1.CreateOptions{})
	s.must(err)
	_, err = policies.ValidatingAdmissionPolicyBindings().Create(t.Context(), &admissionv1.ValidatingAdmissionPolicyBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "unlucky"},
		Spec: admissionv1.ValidatingAdmissionPolicyBindingSpec{
			PolicyName: "unlucky", ValidationActions: []admissionv1.ValidationAction{admissionv1.Deny},
		},
	}, metav1.CreateOptions{})
	s.must(err)
	s.eventually("the policy works", func() bool {
		node := s.node(0)
		node.Annotations[kube.ScaleDownHeldBy] = "trial"
		_, err := c.client.CoreV1().Nodes().Update(t.Context(), node, metav1.UpdateOptions{DryRun: []string{metav1.DryRunAll}})
		return err != nil && strings.Contains(err.Error(), "not now")
	})

	heard, lifted := s.worker.Heartbeat, false
	s.worker.Heartbeat = func(details any) {
		heard(details)
		if text, ok := details.(string); ok && strings.Contains(text, "cannot be kept from the autoscaler yet") && !lifted {
			require.Contains(t, text, "not now")
			lifted = true
			s.must(policies.ValidatingAdmissionPolicyBindings().Delete(t.Context(), "unlucky", metav1.DeleteOptions{}))
		}
	}
	s.must(s.worker.Run(s.activities.AwaitNode, workflows.AwaitNode{Cluster: clusterID, Instance: s.instance(0), Since: time.Now(), By: s.rollID()}, nil))
	require.True(t, lifted)
	require.Equal(t, s.rollID(), s.annotation(0, kube.ScaleDownHeldBy))
}

func testQuarantine(t *testing.T, c cluster) {
	s := c.stage(t, "stuck", "")
	s.makeReadyNodes(2)
	quarantine := func(mark workflows.CordonNode, reason string) {
		t.Helper()
		s.must(s.worker.Run(s.activities.QuarantineNode, workflows.QuarantineNode{CordonNode: mark, Reason: reason}, nil))
	}
	mark := s.mark(0, "workflow")
	s.must(s.change(s.activities.CordonNode, mark))
	quarantine(mark, "web cannot move")
	before := s.patches(0)
	quarantine(mark, "web cannot move")
	require.Equal(t, before, s.patches(0))
	var node workflows.Node
	s.must(s.worker.Run(s.activities.ExamineNode, workflows.ExamineNode{Cluster: clusterID, Node: "stuck-0"}, &node))
	require.Equal(t, "web cannot move", node.Quarantined)
	require.True(t, node.Cordoned)
	quarantine(mark, strings.Repeat("ä", 10_000))
	require.Equal(t, strings.Repeat("ä", 500)+"…", s.annotation(0, kube.Quarantined))

	s.must(s.change(s.activities.CordonNode, mark)) // it is taken up again
	require.NotContains(t, s.node(0).Annotations, kube.Quarantined)
	require.True(t, s.node(0).Spec.Unschedulable)
	require.Equal(t, "workflow", s.annotation(0, kube.CordonedBy))
	s.cordon(0, false) // as a block may do
	quarantine(mark, "web cannot move")
	require.True(t, s.node(0).Spec.Unschedulable)
	s.must(s.change(s.activities.UncordonNode, mark))
	require.NotContains(t, s.node(0).Annotations, kube.Quarantined)
	require.False(t, s.node(0).Spec.Unschedulable)

	s.cordon(1, true) // by a person
	theirs := s.mark(1, "workflow")
	quarantine(theirs, "web cannot move")
	require.NotContains(t, s.node(1).Annotations, kube.CordonedBy)
	s.must(s.change(s.activities.UncordonNode, theirs))
	require.NotContains(t, s.node(1).Annotations, kube.Quarantined)
	require.True(t, s.node(1).Spec.Unschedulable)

	former := mark
	former.Instance = "i-former"
	quarantine(former, "gone")
	require.NotContains(t, s.node(0).Annotations, kube.Quarantined)
	s.deleteNode(0)
	quarantine(mark, "gone")
}

// testMarkSomeFail has nodes that nobody may change.
func testMarkSomeFail(t *testing.T, c cluster) {
	s := c.stage(t, "partly", "")
	s.makeReadyNodes(12)
	s.activities = newActivities(t, c.front(t, func(w http.ResponseWriter, r *http.Request) bool {
		name := strings.TrimPrefix(r.URL.Path, "/api/v1/nodes/partly-")
		if r.Method != http.MethodPatch || !slices.Contains([]string{"0", "1", "2", "3", "4"}, name) {
			return false
		}
		refuse(apierrors.NewForbidden(schema.GroupResource{Resource: "nodes"}, name, errors.New("a freeze")))(w)
		return true
	}), "", s.blocks)
	err := s.markNodes(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11)
	require.ErrorContains(t, err, "a freeze")
	require.ErrorContains(t, err, "and 2 more errors")
	for i := 5; i < 12; i++ {
		require.Contains(t, s.taints(i), outdated, "the others do not wait for them")
	}
}
