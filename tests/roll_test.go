package tests

import (
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling"
	astypes "github.com/aws/aws-sdk-go-v2/service/autoscaling/types"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	sdk "go.temporal.io/sdk/temporal"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairway-project/fairway/config"
	"github.com/fairway-project/fairway/workflows"
)

// paced configures a worker's rolls for the speed of the tests: one node more at a time, and no
// waiting for the turns that other tests take.
func paced(changes ...func(*config.Config)) func(*config.Config, map[string]string) {
	return func(c *config.Config, _ map[string]string) {
		c.Limits = config.Limits{Fleet: 1000, Account: 1000, Region: 1000}
		c.Replace.Settle = time.Second
		c.Roll.Surge, c.Roll.Validate, c.Roll.ShortageAfter = new("1"), new(time.Second), new(4*time.Second)
		for _, change := range changes {
			change(c)
		}
	}
}

// poolRoll is a roll of a pool of a test's own, with what the pool was before.
type poolRoll struct {
	replacement // its node is the first one
	launching   launching
}

// launching is how a group launches instances.
type launching struct {
	Subnets           []string
	Template, Version string
	Mixed             bool
}

func (p pool) launches(t *testing.T) launching {
	t.Helper()
	group := p.describe(t)
	l := launching{Subnets: strings.Split(*group.VPCZoneIdentifier, ","), Mixed: group.MixedInstancesPolicy != nil}
	slices.Sort(l.Subnets)
	if group.LaunchTemplate != nil {
		l.Template, l.Version = *group.LaunchTemplate.LaunchTemplateId, *group.LaunchTemplate.Version
	}
	return l
}

func (p pool) poolRoll(t *testing.T) poolRoll {
	t.Helper()
	before := p.look(t)
	return poolRoll{replacement{
		pool: p, node: before.Nodes[0], before: before,
		roll: workflows.RollPoolID(p.cluster, p.name), child: workflows.ReplaceNodeID(p.cluster, before.Nodes[0].Name),
	}, p.launches(t)}
}

// roll begins to roll the pool.
func (p pool) roll(t *testing.T, w *worker, in workflows.RollPoolInput) poolRoll {
	t.Helper()
	r := p.poolRoll(t)
	in.Cluster, in.Pool, in.By, in.Reason = p.cluster, p.name, "a test", t.Name()
	_, err := temporal.ExecuteWorkflow(t.Context(), client.StartWorkflowOptions{
		ID: r.roll, TaskQueue: w.name, WorkflowExecutionErrorWhenAlreadyStarted: true,
		TypedSearchAttributes: sdk.NewSearchAttributes(workflows.ClusterAttribute.ValueSet(p.cluster), workflows.PoolAttribute.ValueSet(p.name)),
	}, workflows.RollPool, in)
	require.NoError(t, err)
	return r
}

// progress is where the roll stands, or stood when it ended.
func (r poolRoll) progress(t require.TestingT) workflows.RollProgress {
	var progress workflows.RollProgress
	answer, err := temporal.QueryWorkflow(background, r.roll, "", workflows.ProgressQuery)
	require.NoError(t, err)
	require.NoError(t, answer.Get(&progress))
	return progress
}

// draining are the nodes that a worker drains now and that have begun to lose their pods.
func (r poolRoll) draining(t require.TestingT) (names []string) {
	for _, node := range r.before.Nodes {
		description, err := temporal.DescribeWorkflowExecution(background, workflows.ReplaceNodeID(r.pool.cluster, node.Name), "")
		if missing := new(serviceerror.NotFound); err != nil && assert.ErrorAs(t, err, &missing) {
			continue // it has not begun yet
		}
		require.NoError(t, err)
		for _, pending := range description.PendingActivities {
			var progress workflows.DrainProgress
			if pending.ActivityType.Name != "DrainNode" || pending.HeartbeatDetails == nil {
				continue
			}
			require.NoError(t, converter.GetDefaultDataConverter().FromPayloads(pending.HeartbeatDetails, &progress))
			if progress.Evicted > 0 && progress.Left > 0 {
				names = append(names, node.Name)
			}
		}
	}
	return names
}

// awaitDraining waits until so many nodes lose their pods.
func (r poolRoll) awaitDraining(t *testing.T, count int) (names []string) {
	t.Helper()
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		names = r.draining(c)
		require.Len(c, names, count)
	}, 90*time.Second, 50*time.Millisecond, "the drains do not begin")
	return names
}

// outcome is what has to have become of a pool after a roll.
type outcome struct {
	replaced []string // nodes
	// vanished are those of the replaced ones that went by themselves, with pods on them.
	vanished []string
	surplus  int // further instances that were launched and are ended
	// Sizes of the group, where they are to be others than before.
	min, desired *int32
}

// requireRolled waits for a roll that goes well and checks all that has to hold after it.
func (r poolRoll) requireRolled(t *testing.T, want outcome) workflows.RollProgress {
	t.Helper()
	result, err := r.end(t)
	require.NoError(t, err)
	require.Equal(t, "done", result.Phase)
	require.Empty(t, result.Left, "all could be put back")
	for _, node := range result.Nodes {
		require.Equal(t, workflows.Replaced, node.State, node.Node)
	}
	r.require(t, want)
	return result
}

// require checks what has to hold after a roll, whatever happened on the way: each replaced node's
// instance was terminated once, after it was emptied within the budgets, and no other but surplus
// ones; the others serve as before; nothing of the roll is left behind.
func (r poolRoll) require(t *testing.T, want outcome) {
	t.Helper()
	p := r.pool
	require.Eventually(t, func() bool { // an instance that never was a node is told to end, and not waited for
		return !slices.ContainsFunc(p.describe(t).Instances, func(i astypes.Instance) bool {
			return strings.HasPrefix(string(i.LifecycleState), string(astypes.LifecycleStateTerminating))
		})
	}, 30*time.Second, 100*time.Millisecond, "an instance does not end")
	after := p.look(t)
	ended := after.Ended[len(r.before.Ended):]
	for _, name := range want.replaced {
		instance := r.before.node(t, name).Instance
		require.Len(t, slices.DeleteFunc(slices.Clone(ended), func(id string) bool { return id != instance }), 1, "instance %s of node %s was terminated once", instance, name)
		require.False(t, slices.ContainsFunc(after.Nodes, func(n node) bool { return n.Name == name }), "the old node %s is gone", name)
	}
	require.Len(t, ended, len(want.replaced)+want.surplus, "exactly these were terminated, besides surplus ones")
	min, desired := r.before.Min, r.before.Desired
	if want.min != nil {
		min, desired = *want.min, *want.desired
	}
	require.Equal(t, []int32{min, r.before.Max, desired}, []int32{after.Min, after.Max, after.Desired}, "the sizes")
	require.Len(t, after.Instances, int(desired))
	require.Len(t, after.Nodes, int(desired))
	require.Len(t, after.Launched, len(r.before.Launched)+len(ended)+int(desired-r.before.Desired), "no more were launched than needed")
	for _, kept := range r.before.Nodes {
		if !slices.Contains(want.replaced, kept.Name) {
			require.Contains(t, after.Nodes, kept, "a node that was not replaced is as before")
		}
	}
	require.Equal(t, r.launching, p.launches(t), "the group launches as before")
	p.requireClean(t, after)
	p.requireUnprotected(t)
	for _, turn := range turns(t) {
		require.NotEqual(t, r.roll, turn.Holder, "its turn was given back")
	}
	for _, name := range want.replaced {
		if !slices.Contains(want.vanished, name) {
			p.requireEmptied(t, r.before.node(t, name))
		}
	}
}

// turns are those that the fleet's actor has given.
func turns(t *testing.T) []workflows.Turn {
	t.Helper()
	answer, err := temporal.QueryWorkflow(t.Context(), workflows.FleetID, "", workflows.StateQuery)
	require.NoError(t, err)
	var state workflows.FleetState
	require.NoError(t, answer.Get(&state))
	return state.Turns
}

func (s snapshot) names() []string {
	names := make([]string, len(s.Nodes))
	for i, node := range s.Nodes {
		names[i] = node.Name
	}
	return names
}

// label is the label of a node of the cluster.
func (p pool) label(t *testing.T, node, key string) string {
	t.Helper()
	found, err := p.client.CoreV1().Nodes().Get(t.Context(), node, metav1.GetOptions{})
	require.NoError(t, err)
	return found.Labels[key]
}

// serving watches how many instances the group has that do not end, and returns what tells the
// largest number so far.
func (p pool) serving(t *testing.T) (most func() int) {
	t.Helper()
	var mu sync.Mutex
	var largest int
	var failure error
	ended := t.Context().Done()
	go func() {
		for {
			out, err := scaling.DescribeAutoScalingGroups(background, &autoscaling.DescribeAutoScalingGroupsInput{AutoScalingGroupNames: []string{p.group}})
			count := 0
			if err == nil && len(out.AutoScalingGroups) == 1 {
				for _, instance := range out.AutoScalingGroups[0].Instances {
					if !strings.HasPrefix(string(instance.LifecycleState), string(astypes.LifecycleStateTerminating)) {
						count++
					}
				}
			}
			mu.Lock()
			largest, failure = max(largest, count), err
			mu.Unlock()
			select {
			case <-ended:
				return
			case <-time.After(100 * time.Millisecond):
			}
		}
	}()
	return func() int {
		mu.Lock()
		defer mu.Unlock()
		require.NoError(t, failure)
		require.Positive(t, largest, "the group was looked at")
		return largest
	}
}

// batches are the numbers of nodes that began together, in their order.
func batches(result workflows.RollProgress) (sizes []int) {
	var began []time.Time
	for _, node := range result.Nodes {
		began = append(began, node.Began)
	}
	slices.SortFunc(began, time.Time.Compare)
	for i, at := range began {
		if i == 0 || !at.Equal(began[i-1]) {
			sizes = append(sizes, 0)
		}
		sizes[len(sizes)-1]++
	}
	return sizes
}

// events is the number of events of the roll and of all that it has begun.
func (r poolRoll) events(t *testing.T) (count int64) {
	t.Helper()
	ids := []string{r.roll}
	for _, node := range r.before.Nodes {
		ids = append(ids, workflows.ReplaceNodeID(r.pool.cluster, node.Name))
	}
	for _, id := range ids {
		description, err := temporal.DescribeWorkflowExecution(t.Context(), id, "")
		if missing := new(serviceerror.NotFound); err != nil && assert.ErrorAs(t, err, &missing) {
			continue
		}
		require.NoError(t, err)
		count += description.WorkflowExecutionInfo.HistoryLength
	}
	return count
}

// A roll of six nodes has more than 400 events. Its worker dies at a random one of each tenth part
// of them, always the same ones. Each death costs the time until a heartbeat is missed, so two rolls
// share the ten.
func TestARollOfSixNodesSurvivesTenDeathsOfItsWorker(t *testing.T) {
	t.Parallel()
	const deaths, events = 10, 400
	random := rand.New(rand.NewPCG(3, 1415))
	var moments []int64
	for death := range deaths {
		moments = append(moments, int64(death*events/deaths+random.IntN(events/deaths)))
	}
	for _, share := range []string{"odd", "even"} {
		t.Run(share, func(t *testing.T) {
			t.Parallel()
			p := newPool(t, busy, shape{size: 6, max: 9, zones: []string{"eu-central-1a"}})
			p.run(t, application{replicas: 12, unavailable: 3})
			w := startWorker(t, busy, paced(func(c *config.Config) { c.Roll.Surge, c.Roll.Parallel = new("3"), new(3) }))
			r := p.poolRoll(t)
			got := w.fairway(t, "pool", "roll", busy, p.name, "--all", "--reason", "deaths")
			require.Zero(t, got.status, got.stderr)
			for i, at := range moments {
				if (i%2 == 0) != (share == "odd") {
					continue
				}
				require.Eventually(t, func() bool { return r.events(t) >= at }, 90*time.Second, 20*time.Millisecond, "the roll does not get as far as %d events", at)
				w.kill(t)
				require.Equal(t, enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING, describe(t, r.roll).WorkflowExecutionInfo.Status, "the roll was over before its worker died at event %d", at)
				w.restart(t)
			}
			result := r.requireRolled(t, outcome{replaced: r.before.names()})
			t.Logf("%d events", r.events(t))
			require.Equal(t, []int{1, 2, 3}, batches(result), "one node goes alone, and then ever more")
		})
	}
}

func TestAReplacementIsInTheZoneOfItsNode(t *testing.T) {
	t.Parallel()
	p := newPool(t, busy, shape{size: 3, max: 6})
	p.run(t, application{replicas: 6, unavailable: 2})
	zones := map[string]string{}
	for _, node := range p.nodes(t) {
		zones[node.Name] = p.label(t, node.Name, corev1.LabelTopologyZone)
	}
	w := startWorker(t, busy, paced(func(c *config.Config) { c.Roll.Surge = new("3") }))
	r := p.roll(t, w, workflows.RollPoolInput{All: true})
	result := r.requireRolled(t, outcome{replaced: r.before.names()})
	seen := map[string]bool{}
	for _, node := range result.Nodes {
		require.Equal(t, zones[node.Node], p.label(t, node.Replacement, corev1.LabelTopologyZone), "zone of the replacement of %s", node.Node)
		seen[zones[node.Node]] = true
	}
	require.Len(t, seen, 3, "the pool was spread over all zones")
}

func TestARollInPlaceNeverHasMoreInstancesThanBefore(t *testing.T) {
	t.Parallel()
	p := newPool(t, busy, shape{size: 3, max: 6})
	p.run(t, application{replicas: 6})
	w := startWorker(t, busy, paced(func(c *config.Config) { c.Roll.Surge = new("0") }))
	most := p.serving(t)
	r := p.roll(t, w, workflows.RollPoolInput{All: true})
	result := r.requireRolled(t, outcome{replaced: r.before.names()})
	require.Equal(t, p.size, most(), "instances at a time")
	for _, node := range result.Nodes {
		require.NotEmpty(t, node.Replacement, "what came for %s is known", node.Node)
	}
}

func TestARollThatIsCancelledInTheMiddleOfABatchIsUndone(t *testing.T) {
	t.Parallel()
	p := newPool(t, busy, shape{size: 4, max: 6, zones: []string{"eu-central-1b"}})
	p.run(t, application{replicas: 8, unavailable: 2, stop: 6 * time.Second})
	w := startWorker(t, busy, paced(func(c *config.Config) { c.Roll.Surge, c.Roll.Parallel = new("2"), new(2) }))
	r := p.roll(t, w, workflows.RollPoolInput{All: true})
	r.awaitDraining(t, 2)
	require.NoError(t, temporal.CancelWorkflow(t.Context(), r.roll, ""))
	_, err := r.end(t)
	require.True(t, sdk.IsCanceledError(err), "%v", err)
	progress := r.progress(t)
	require.Equal(t, "cancelled", progress.Phase)
	var replaced []string
	for _, node := range progress.Nodes {
		if node.State == workflows.Replaced {
			replaced = append(replaced, node.Node)
		}
	}
	require.Len(t, replaced, 1, "the batch before was done, and nothing of this one")
	r.require(t, outcome{replaced: replaced, surplus: 2})
}

func TestAPoolIsEmptied(t *testing.T) {
	t.Parallel()
	p := newPool(t, busy)
	p.run(t, application{unavailable: replicas})
	w := startWorker(t, busy, paced())
	r := p.roll(t, w, workflows.RollPoolInput{Remove: true})
	r.requireRolled(t, outcome{replaced: r.before.names(), min: aws.Int32(0), desired: aws.Int32(0)})
}

func TestAnEmptyingThatIsCancelledGivesThePoolItsSizeBack(t *testing.T) {
	t.Parallel()
	p := newPool(t, busy)
	_, err := scaling.UpdateAutoScalingGroup(t.Context(), &autoscaling.UpdateAutoScalingGroupInput{
		AutoScalingGroupName: &p.group, MinSize: aws.Int32(1), // so that the minimum alone does not bring the size back
	})
	require.NoError(t, err)
	p.run(t, application{unavailable: replicas, stop: 6 * time.Second})
	w := startWorker(t, busy, paced(func(c *config.Config) { c.Roll.Parallel = new(1) }))
	r := p.roll(t, w, workflows.RollPoolInput{Remove: true})
	second := r.progressOf(t, workflows.Replacing, func(progress workflows.RollProgress) bool { return progress.Batch == 1 })
	require.NoError(t, temporal.CancelWorkflow(t.Context(), r.roll, ""))
	_, err = r.end(t)
	require.True(t, sdk.IsCanceledError(err), "%v", err)
	p.awaitNodes(t)
	replaced := slices.DeleteFunc(r.before.names(), func(name string) bool { return name == second })
	r.require(t, outcome{replaced: replaced})
}

// progressOf waits until some node is in a state while the roll is somewhere, and returns its name.
func (r poolRoll) progressOf(t *testing.T, state workflows.NodeState, where func(workflows.RollProgress) bool) (name string) {
	t.Helper()
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		progress := r.progress(c)
		require.True(c, where(progress))
		at := slices.IndexFunc(progress.Nodes, func(n workflows.NodeProgress) bool { return n.State == state })
		require.GreaterOrEqual(c, at, 0)
		name = progress.Nodes[at].Node
	}, 90*time.Second, 20*time.Millisecond, "no node is %s", state)
	return name
}
