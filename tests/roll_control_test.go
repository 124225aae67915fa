package tests

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"
	sdk "go.temporal.io/sdk/temporal"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/fairway-project/fairway/config"
	"github.com/fairway-project/fairway/registry"
	"github.com/fairway-project/fairway/workflows"
)

func TestANodeThatVanishesUnderItsDrainLeavesNoSurplus(t *testing.T) {
	t.Parallel()
	p := newPool(t, busy, shape{zones: []string{"eu-central-1c"}})
	p.run(t, application{stop: 8 * time.Second})
	w := startWorker(t, busy, paced())
	r := p.roll(t, w, workflows.RollPoolInput{All: true})
	vanished := r.awaitDraining(t, 1)
	r.lose(t, vanished[0])
	_, err := r.end(t)
	require.NoError(t, err)
	// Its group may have made up for it before the roll could say that nobody needs that.
	ended := p.look(t).Ended
	surplus := len(ended) - len(r.before.Ended) - len(r.before.Nodes)
	require.Contains(t, []int{0, 1}, surplus, "of %v", ended)
	r.requireRolled(t, outcome{replaced: r.before.names(), vanished: vanished, surplus: surplus})
}

// lose ends the machine of a node, as a failure of hardware would.
func (r poolRoll) lose(t *testing.T, node string) {
	t.Helper()
	_, err := ec2.NewFromConfig(theLab.AWSConfig()).TerminateInstances(t.Context(), &ec2.TerminateInstancesInput{
		InstanceIds: []string{r.before.node(t, node).Instance},
	})
	require.NoError(t, err)
}

func TestANodeThatVanishesBeforeItsTurnNeedsNoReplacement(t *testing.T) {
	t.Parallel()
	p := newPool(t, busy, shape{zones: []string{"eu-central-1c"}})
	p.run(t, application{replicas: 2, stop: 8 * time.Second}) // so that the machine takes one pod with it
	w := startWorker(t, busy, paced())
	r := p.roll(t, w, workflows.RollPoolInput{All: true})
	r.awaitDraining(t, 1)
	vanished := r.progress(t).Nodes[1].Node
	r.lose(t, vanished)
	result := r.requireRolled(t, outcome{replaced: r.before.names(), vanished: []string{vanished}})
	require.Empty(t, result.Nodes[1].Replacement, "its group has made up for it")
	require.Empty(t, runsAbout(t, workflows.ReplaceNodeID(p.cluster, vanished)), "there was nothing to drain")
}

func TestASecondRollOfAPoolIsRefused(t *testing.T) {
	t.Parallel()
	p := newPool(t, busy)
	p.run(t, application{stop: 5 * time.Second})
	w := startWorker(t, busy, paced())
	r := p.roll(t, w, workflows.RollPoolInput{All: true})
	r.awaitDraining(t, 1)
	got := w.fairway(t, "pool", "roll", busy, p.name, "--all", "--reason", "me too")
	require.Equal(t, wrongInput, got.status)
	require.Contains(t, got.stderr, r.roll)
	r.requireRolled(t, outcome{replaced: r.before.names()})
}

// alone lets one node of an account be replaced at a time. The account is the test's own, so that
// other tests take no turns of it.
func alone(t *testing.T, account string) func(*config.Config) {
	return func(c *config.Config) {
		c.Limits.Account = 1
		changeRegistry(t, c, busy, func(cluster *registry.Cluster) { cluster.InfrastructureAccount = "aws:" + account })
	}
}

func TestRollsOfTwoPoolsTakeTurns(t *testing.T) {
	t.Parallel()
	one, other := newPool(t, busy), newPool(t, busy, shape{suffix: "-b", size: 1})
	one.run(t, application{})
	other.run(t, application{})
	w := startWorker(t, busy, paced(alone(t, "210987654321")))
	rolls := []poolRoll{one.roll(t, w, workflows.RollPoolInput{All: true}), other.roll(t, w, workflows.RollPoolInput{All: true})}
	type span struct {
		node        string
		began, over time.Time
	}
	var spans []span
	for _, r := range rolls {
		r.requireRolled(t, outcome{replaced: r.before.names()})
		for _, name := range r.before.names() {
			info := describe(t, workflows.ReplaceNodeID(busy, name)).WorkflowExecutionInfo
			spans = append(spans, span{name, info.StartTime.AsTime(), info.CloseTime.AsTime()})
		}
	}
	slices.SortFunc(spans, func(a, b span) int { return a.began.Compare(b.began) })
	require.Len(t, spans, 3)
	for i := range spans[1:] {
		require.False(t, spans[i+1].began.Before(spans[i].over), "%v and %v were replaced at the same time", spans[i], spans[i+1])
	}
}

func TestTheTurnOfATerminatedRollIsGivenBack(t *testing.T) {
	t.Parallel()
	one, other := newPool(t, busy, shape{size: 1}), newPool(t, busy, shape{suffix: "-b", size: 1})
	one.run(t, application{stop: 15 * time.Second})
	other.run(t, application{})
	w := startWorker(t, busy, paced(alone(t, "210987654322")))
	holder := one.roll(t, w, workflows.RollPoolInput{All: true})
	holder.awaitDraining(t, 1)
	r := other.roll(t, w, workflows.RollPoolInput{All: true})
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		require.NotNil(c, r.started(c, "AwaitTurn"))
		require.Equal(c, "queueing", r.progress(c).Phase)
	}, time.Minute, 50*time.Millisecond)
	require.NoError(t, temporal.TerminateWorkflow(t.Context(), holder.roll, "", "a person was in a hurry"))
	r.requireRolled(t, outcome{replaced: r.before.names()})
	for _, turn := range turns(t) {
		require.NotEqual(t, holder.roll, turn.Holder, "a roll that is over holds no turn")
	}
}

func TestARollThatIsCancelledIsUndoneWhileItWaits(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, phase, activity string
		prepare               func(*testing.T, pool)
		replaced, surplus     int
	}{
		{name: "for its turn", phase: "queueing", activity: "AwaitTurn", prepare: func(t *testing.T, _ pool) {
			// Somebody who lives on has the only turn of the account.
			handle, err := temporal.UpdateWorkflow(t.Context(), client.UpdateWorkflowOptions{
				WorkflowID: workflows.FleetID, UpdateName: workflows.TakeTurn, WaitForStage: client.WorkflowUpdateStageCompleted,
				Args: []any{workflows.AwaitTurn{Holder: workflows.ClusterID(busy), Account: "aws:210987654323", Nodes: 1}},
			})
			require.NoError(t, err)
			require.NoError(t, handle.Get(t.Context(), nil))
		}},
		{name: "for an instance to become a node", phase: "surging", activity: "AwaitNode", prepare: func(t *testing.T, p pool) {
			require.NoError(t, theLab.FailLaunches(t.Context(), p.group, 100))
		}, surplus: 1},
		{name: "for the first replacement to prove itself", phase: "validating", activity: "AwaitNode", prepare: func(*testing.T, pool) {}, replaced: 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			p := newPool(t, busy)
			p.run(t, application{})
			w := startWorker(t, busy, paced(alone(t, "210987654323"), func(c *config.Config) {
				c.Roll.Validate = new(time.Minute)
				if test.phase != "queueing" {
					c.Limits.Account = 1000
				}
			}))
			test.prepare(t, p)
			r := p.roll(t, w, workflows.RollPoolInput{All: true})
			require.EventuallyWithT(t, func(c *assert.CollectT) {
				require.Equal(c, test.phase, r.progress(c).Phase)
				require.NotNil(c, r.started(c, test.activity))
			}, time.Minute, 50*time.Millisecond)
			require.NoError(t, temporal.CancelWorkflow(t.Context(), r.roll, ""))
			_, err := r.end(t)
			require.True(t, sdk.IsCanceledError(err), "%v", err)
			var replaced []string
			for _, node := range r.progress(t).Nodes {
				if node.State == workflows.Replaced {
					replaced = append(replaced, node.Node)
				}
			}
			require.Len(t, replaced, test.replaced)
			r.require(t, outcome{replaced: replaced, surplus: test.surplus})
		})
	}
}

// hold puts a pod on a node that its budget never lets go, and returns what changes that.
func (p pool) hold(t *testing.T, node string) (release func()) {
	t.Helper()
	ctx, meta := t.Context(), metav1.ObjectMeta{Name: "held", Namespace: p.name, Labels: map[string]string{"application": "held"}}
	selector := &metav1.LabelSelector{MatchLabels: meta.Labels}
	_, err := p.client.PolicyV1().PodDisruptionBudgets(p.name).Create(ctx, &policyv1.PodDisruptionBudget{ObjectMeta: meta, Spec: policyv1.PodDisruptionBudgetSpec{
		MinAvailable: new(intstr.FromInt32(1)), Selector: selector,
	}}, metav1.CreateOptions{})
	require.NoError(t, err)
	_, err = p.client.AppsV1().Deployments(p.name).Create(ctx, &appsv1.Deployment{ObjectMeta: meta, Spec: appsv1.DeploymentSpec{
		Replicas: new(int32(1)), Selector: selector,
		Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: meta.Labels}, Spec: corev1.PodSpec{
			NodeSelector: map[string]string{corev1.LabelHostname: node},
			Tolerations:  []corev1.Toleration{{Key: ownTaint, Operator: corev1.TolerationOpExists}},
			Containers:   []corev1.Container{{Name: "held", Image: "registry.fleet.internal/test/held:1"}},
		}},
	}}, metav1.CreateOptions{})
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		return slices.ContainsFunc(p.podsOn(node), func(pod *corev1.Pod) bool { return pod.Labels["application"] == "held" })
	}, 10*time.Second, 10*time.Millisecond, "the pod does not come onto node %s", node)
	return func() {
		_, err := p.client.PolicyV1().PodDisruptionBudgets(p.name).Patch(ctx, "held", types.MergePatchType, []byte(`{"spec":{"minAvailable":0}}`), metav1.PatchOptions{})
		require.NoError(t, err)
	}
}

func TestANodeThatCannotBeEmptiedWaitsInQuarantineForTheOthers(t *testing.T) {
	t.Parallel()
	p := newPool(t, busy, shape{size: 3, zones: []string{"eu-central-1a"}})
	p.run(t, application{replicas: 6, unavailable: 2})
	w := startWorker(t, busy, paced(func(c *config.Config) {
		c.Roll.QuarantineAfter, c.Replace.Settle = new(3*time.Second), 3*time.Second
	}))
	r := p.roll(t, w, workflows.RollPoolInput{All: true})
	var first string
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		progress := r.progress(c)
		require.Equal(c, "surging", progress.Phase)
		first = progress.Nodes[0].Node // the order is settled, and nothing drained yet
	}, time.Minute, 20*time.Millisecond)
	release := p.hold(t, first)
	is := func(progress workflows.RollProgress, state workflows.NodeState) (count int) {
		for _, node := range progress.Nodes {
			if node.State == state {
				count++
			}
		}
		return count
	}
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		progress := r.progress(c)
		require.Equal(c, workflows.Quarantine, progress.Nodes[0].State)
		require.Contains(c, progress.Nodes[0].Reason, "pod "+p.name+"/held-")
		require.Equal(c, 1, is(progress, workflows.Replaced), "others go on")
	}, time.Minute, 100*time.Millisecond)
	marked := p.look(t).node(t, first)
	require.True(t, marked.Cordoned)
	require.True(t, slices.ContainsFunc(marked.Marks, func(mark string) bool {
		return strings.HasPrefix(mark, "fairway.dev/quarantined=pod "+p.name+"/held-")
	}), "it is marked: %v", marked.Marks)
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		progress := r.progress(c)
		require.Equal(c, 2, is(progress, workflows.Replaced))
		require.Equal(c, workflows.Replacing, progress.Nodes[0].State, "it is taken up again when the others are done")
	}, time.Minute, 100*time.Millisecond)
	release()
	result := r.requireRolled(t, outcome{replaced: r.before.names()})
	for _, node := range result.Nodes[1:] {
		require.True(t, node.Ended.Before(result.Nodes[0].Ended), "it was the last one")
	}
	require.Empty(t, result.Nodes[0].Reason)
	require.Empty(t, result.Spare, "its replacement served another one")
}
