package workflows_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"go.temporal.io/sdk/temporal"

	"github.com/fairway-project/fairway/roll"
	"github.com/fairway-project/fairway/workflows"
)

// world is a cluster with one pool that behaves as AWS and Kubernetes do, as far as workflows
// can tell. It keeps count of what must not happen twice.
type world struct {
	mu       sync.Mutex
	pool     workflows.Pool
	nodes    []workflows.Node
	settings roll.Settings
	types    []string
	windowed bool

	cordonedBy  map[string]string
	quarantined map[string]string
	marked      []string
	protected   bool
	minimum     int // before it was lowered
	turns       map[string]int
	told        []workflows.Notification

	terminated []string
	launched   int
	largest    int // most instances at a time
	smallest   int // fewest usable nodes at a time

	// fail makes the named activity return an error, for as long as it says so.
	fail func(activity string) error
	// drain stands in for what holds a drain up; it returns when the node is empty.
	drain func(ctx context.Context, in workflows.DrainNode) (gaveUp bool, err error)
	// noNode is how many of the next instances never become nodes.
	noNode int
	// capacity says whether AWS has an instance for a launch; nil means always.
	capacity func(workflows.Launch) bool
	launch   workflows.Launch // as the group launches now
	// impossible refuses launches; nil means none.
	impossible func(workflows.Launch) error
}

var (
	_ workflows.Kubernetes    = (*world)(nil)
	_ workflows.AutoScaling   = (*world)(nil)
	_ workflows.Registry      = (*world)(nil)
	_ workflows.Turns         = (*world)(nil)
	_ workflows.Notifications = (*world)(nil)
)

func newWorld() *world { return newWorldOf("a", "a", "a") }

// newWorldOf makes a pool with an old node in each of the given zones, and as much room again.
func newWorldOf(zones ...string) *world {
	w := &world{
		pool:       workflows.Pool{Group: "worker-group", Min: len(zones), Max: 2 * len(zones), Desired: len(zones), Zones: slices.Compact(slices.Sorted(slices.Values(zones)))},
		cordonedBy: map[string]string{}, quarantined: map[string]string{}, turns: map[string]int{},
		settings: roll.Settings{Surge: roll.Share{Count: 1}, Unavailable: roll.Share{Count: 1}, Parallel: 5, BadReplacements: 3, QuarantineLimit: 2},
		smallest: len(zones),
	}
	for i, zone := range zones {
		w.add(fmt.Sprintf("i-old%d", i), zone)
		w.pool.Instances[i].Old = true
	}
	w.launched = 0
	return w
}

func (w *world) add(instance, zone string) {
	w.launched++
	w.pool.Instances = append(w.pool.Instances, workflows.Instance{ID: instance, Zone: zone, Lifecycle: "InService"})
	if w.noNode > 0 {
		w.noNode--
		return
	}
	w.nodes = append(w.nodes, workflows.Node{Name: "node-of-" + instance, Instance: instance, Zone: zone, Pool: "worker", Ready: true, Created: time.Unix(0, 0)})
}

// remove makes an instance and its node vanish. The group replaces it if that leaves it too small.
func (w *world) remove(instance string) {
	w.pool.Instances = slices.DeleteFunc(w.pool.Instances, func(i workflows.Instance) bool { return i.ID == instance })
	w.nodes = slices.DeleteFunc(w.nodes, func(n workflows.Node) bool { return n.Instance == instance })
	w.smallest = min(w.smallest, len(w.nodes))
	w.scale()
}

func (w *world) scale() {
	for len(w.pool.Instances) < w.pool.Desired && (w.capacity == nil || w.capacity(w.launch)) {
		zone := w.pool.Zones[0]
		if len(w.launch.Zones) > 0 {
			zone = w.launch.Zones[0]
		}
		w.add(fmt.Sprintf("i-new%d", w.launched), zone)
	}
	w.largest = max(w.largest, len(w.pool.Instances))
}

func (w *world) failing(activity string) error {
	if w.fail == nil {
		return nil
	}
	return w.fail(activity)
}

func final(kind, message string) error {
	return temporal.NewNonRetryableApplicationError(message, kind, nil)
}

func (w *world) ListClusters(_ context.Context, in workflows.ListClusters) ([]workflows.ClusterInfo, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return []workflows.ClusterInfo{{ID: in.Names[0]}}, w.failing("ListClusters")
}

func (w *world) FindPool(_ context.Context, in workflows.FindPool) (workflows.PoolInfo, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return workflows.PoolInfo{
		Cluster: workflows.ClusterInfo{ID: in.Cluster, Channel: "dev", Environment: "test", Account: "1", Region: "eu"},
		Pool:    in.Pool, Settings: w.settings, Types: w.types, Notify: true, Windowed: w.windowed,
	}, w.failing("FindPool")
}

func (w *world) ListNodes(context.Context, workflows.ListNodes) ([]workflows.Node, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.nodes), w.failing("ListNodes")
}

func (w *world) SurveyPool(context.Context, workflows.SurveyPool) ([]workflows.Node, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.nodes), w.failing("SurveyPool")
}

func (w *world) Preflight(context.Context, workflows.Preflight) ([]workflows.Finding, error) {
	return nil, nil
}

func (w *world) ExamineNode(_ context.Context, in workflows.ExamineNode) (workflows.Node, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, node := range w.nodes {
		if node.Name == in.Node {
			return node, w.failing("ExamineNode")
		}
	}
	return workflows.Node{}, final(workflows.NodeNotFound, "no such node")
}

func (w *world) FindNode(_ context.Context, in workflows.FindNode) (workflows.Node, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, node := range w.nodes {
		if node.Instance == in.Instance {
			return node, w.failing("FindNode")
		}
	}
	return workflows.Node{}, w.failing("FindNode")
}

func (w *world) MarkNodes(_ context.Context, in workflows.MarkNodes) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.failing("MarkNodes"); err != nil {
		return err
	}
	w.marked = in.Nodes
	return nil
}

func (w *world) UnmarkNodes(context.Context, workflows.UnmarkNodes) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.failing("UnmarkNodes"); err != nil {
		return err
	}
	for _, name := range w.marked {
		delete(w.cordonedBy, name)
		delete(w.quarantined, name)
	}
	w.marked = nil
	return nil
}

func (w *world) AwaitNode(_ context.Context, in workflows.AwaitNode) (workflows.Node, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.failing("AwaitNode"); err != nil {
		return workflows.Node{}, err
	}
	if in.Settle > 0 {
		if err := w.failing("AwaitNode/settle"); err != nil {
			return workflows.Node{}, err
		}
	}
	for _, node := range w.nodes {
		if node.Instance == in.Instance {
			return node, nil
		}
	}
	return workflows.Node{}, final(workflows.BadReplacement, "never became a node")
}

func (w *world) CordonNode(_ context.Context, in workflows.CordonNode) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.failing("CordonNode"); err != nil {
		return err
	}
	w.cordonedBy[in.Node] = in.By
	delete(w.quarantined, in.Node)
	return nil
}

func (w *world) UncordonNode(_ context.Context, in workflows.CordonNode) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.failing("UncordonNode"); err != nil {
		return err
	}
	if w.cordonedBy[in.Node] == in.By {
		delete(w.cordonedBy, in.Node)
	}
	return nil
}

func (w *world) QuarantineNode(_ context.Context, in workflows.QuarantineNode) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.quarantined[in.Node] = in.Reason
	return w.failing("QuarantineNode")
}

func (w *world) DrainNode(ctx context.Context, in workflows.DrainNode) (workflows.DrainProgress, error) {
	w.mu.Lock()
	err, drain := w.failing("DrainNode"), w.drain
	w.mu.Unlock()
	if err == nil && drain != nil {
		var gaveUp bool
		if gaveUp, err = drain(ctx, in); gaveUp {
			return workflows.DrainProgress{Total: 4, Left: 1, Evicted: 3, GaveUp: true, Waiting: []workflows.HeldPod{{Pod: "shop/cart-0", Reason: "its budget has nothing to spare"}}}, err
		}
	}
	return workflows.DrainProgress{Total: 4, Evicted: 4}, err
}

func (w *world) AwaitNodeGone(context.Context, workflows.AwaitNodeGone) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.failing("AwaitNodeGone")
}

func (w *world) ExaminePool(context.Context, workflows.ExaminePool) (workflows.Pool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	pool := w.pool
	pool.Instances = slices.Clone(w.pool.Instances)
	return pool, w.failing("ExaminePool")
}

func (w *world) ProtectPool(_ context.Context, in workflows.ProtectPool) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.failing("ProtectPool"); err != nil {
		return err
	}
	w.protected = true
	if in.Empty {
		w.minimum, w.pool.Min = w.pool.Min, 0
	}
	return nil
}

func (w *world) RestorePool(_ context.Context, in workflows.ProtectPool) (string, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.failing("RestorePool"); err != nil {
		return "", err
	}
	w.protected, w.launch = false, workflows.Launch{}
	if !in.Empty && w.minimum > 0 {
		w.pool.Min = w.minimum
	}
	return "", nil
}

func (w *world) GrowPool(_ context.Context, in workflows.GrowPool) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.failing("GrowPool"); err != nil {
		return err
	}
	if w.pool.Desired != in.From && w.pool.Desired != in.To {
		return final(workflows.PoolBusy, "changed meanwhile")
	}
	if w.impossible != nil {
		if err := w.impossible(in.Launch); err != nil {
			return err
		}
	}
	w.pool.Desired, w.launch = in.To, in.Launch
	w.scale()
	return nil
}

func (w *world) AwaitInstances(_ context.Context, in workflows.AwaitInstances) ([]workflows.Instance, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.failing("AwaitInstances"); err != nil {
		return nil, err
	}
	w.scale() // a group keeps trying
	var fresh []workflows.Instance
	for _, instance := range w.pool.Instances {
		if !slices.Contains(in.Known, instance.ID) && (len(in.Zones) == 0 || slices.Contains(in.Zones, instance.Zone)) {
			fresh = append(fresh, instance)
		}
	}
	if len(fresh) < in.Count {
		return nil, final(workflows.NoCapacity, "AWS has no such instances now")
	}
	w.launch = workflows.Launch{}
	return fresh[:in.Count], nil
}

func (w *world) ReleaseCapacity(_ context.Context, in workflows.ReleaseCapacity) ([]workflows.Instance, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.failing("ReleaseCapacity"); err != nil || w.pool.Desired != in.From {
		return nil, err
	}
	surplus := slices.DeleteFunc(slices.Clone(w.pool.Instances), func(i workflows.Instance) bool { return slices.Contains(in.Known, i.ID) })
	if len(surplus) == 0 {
		w.pool.Desired, w.launch = in.To, in.Launch
	}
	return surplus, nil
}

func (w *world) TerminateInstance(_ context.Context, in workflows.TerminateInstance) (workflows.Termination, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.failing("TerminateInstance"); err != nil {
		return workflows.Termination{}, err
	}
	if !slices.ContainsFunc(w.pool.Instances, func(i workflows.Instance) bool { return i.ID == in.Instance }) {
		return workflows.Termination{Vanished: true}, nil
	}
	w.terminated = append(w.terminated, in.Instance)
	if in.Replace {
		w.launch = in.Launch
	} else {
		if w.pool.Desired == w.pool.Min {
			return workflows.Termination{}, final(workflows.InvalidInput, "the group is at its minimum")
		}
		w.pool.Desired--
	}
	w.remove(in.Instance)
	return workflows.Termination{}, nil
}

func (w *world) AwaitTermination(context.Context, workflows.TerminateInstance) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.failing("AwaitTermination")
}

func (w *world) AwaitTurn(_ context.Context, in workflows.AwaitTurn) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.turns[in.Holder] = in.Nodes
	return w.failing("AwaitTurn")
}

func (w *world) EndTurn(_ context.Context, in workflows.AwaitTurn) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.turns, in.Holder)
	return w.failing("EndTurn")
}

func (w *world) AwaitUnblocked(context.Context, workflows.AwaitUnblocked) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.failing("AwaitUnblocked")
}

func (w *world) AwaitWindow(context.Context, workflows.AwaitWindow) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.failing("AwaitWindow")
}

func (w *world) Notify(_ context.Context, in workflows.Notification) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.told = append(w.told, in)
	return w.failing("Notify")
}

// failTimes makes an activity fail its first attempts, as an endpoint does that is gone for a while.
func failTimes(activity string, times int) func(string) error {
	return func(name string) error {
		if name == activity && times > 0 {
			times--
			return temporal.NewApplicationError("gone for a while", workflows.Unreachable)
		}
		return nil
	}
}

// failAlways makes an activity fail for good.
func failAlways(activity, kind string) func(string) error {
	return func(name string) error {
		if name == activity {
			return final(kind, activity+" failed")
		}
		return nil
	}
}

// failOnce makes an activity fail for good, but only the first time.
func failOnce(activity, kind string) func(string) error {
	failed := false
	return func(name string) error {
		if name == activity && !failed {
			failed = true
			return final(kind, activity+" failed")
		}
		return nil
	}
}
