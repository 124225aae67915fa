package workflows_test

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"go.temporal.io/sdk/temporal"

	"github.com/fairway-project/fairway/workflows"
)

// world is a cluster with one pool that behaves as AWS and Kubernetes do, as far as workflows
// can tell. It keeps count of what must not happen twice.
type world struct {
	mu         sync.Mutex
	pool       workflows.Pool
	nodes      []workflows.Node
	cordonedBy map[string]string
	terminated []string
	launched   int

	// fail makes the named activity return an error, for as long as it says so.
	fail func(activity string) error
	// drain stands in for what holds a drain up; it returns when the node is empty.
	drain func(ctx context.Context, node string) error
	// noNode makes new instances stay without a node.
	noNode bool
}

var (
	_ workflows.Kubernetes  = (*world)(nil)
	_ workflows.AutoScaling = (*world)(nil)
	_ workflows.Registry    = (*world)(nil)
)

func newWorld() *world {
	w := &world{pool: workflows.Pool{Group: "worker-group", Min: 3, Max: 6, Desired: 3}, cordonedBy: map[string]string{}}
	for i := range 3 {
		w.launch(fmt.Sprintf("i-old%d", i))
	}
	w.launched = 0
	return w
}

func (w *world) launch(instance string) {
	w.launched++
	w.pool.Instances = append(w.pool.Instances, workflows.Instance{ID: instance, Lifecycle: "InService"})
	if !w.noNode {
		w.nodes = append(w.nodes, workflows.Node{Name: "node-of-" + instance, Instance: instance, Pool: "worker", Ready: true})
	}
}

// remove makes an instance and its node vanish. The group replaces it if that leaves it too small.
func (w *world) remove(instance string) {
	w.pool.Instances = slices.DeleteFunc(w.pool.Instances, func(i workflows.Instance) bool { return i.ID == instance })
	w.nodes = slices.DeleteFunc(w.nodes, func(n workflows.Node) bool { return n.Instance == instance })
	w.scale()
}

func (w *world) scale() {
	for len(w.pool.Instances) < w.pool.Desired {
		w.launch(fmt.Sprintf("i-new%d", w.launched))
	}
}

func (w *world) failing(activity string) error {
	if w.fail == nil {
		return nil
	}
	return w.fail(activity)
}

func (w *world) ListClusters(_ context.Context, in workflows.ListClusters) ([]workflows.ClusterInfo, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return []workflows.ClusterInfo{{ID: in.Names[0], Channel: "dev", Environment: "test"}}, w.failing("ListClusters")
}

func (w *world) ListNodes(context.Context, workflows.ListNodes) ([]workflows.Node, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.nodes, w.failing("ListNodes")
}

func (w *world) ExamineNode(_ context.Context, in workflows.ExamineNode) (workflows.Node, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, node := range w.nodes {
		if node.Name == in.Node {
			return node, w.failing("ExamineNode")
		}
	}
	return workflows.Node{}, temporal.NewNonRetryableApplicationError("no such node", workflows.NodeNotFound, nil)
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

func (w *world) AwaitNode(ctx context.Context, in workflows.AwaitNode) (workflows.Node, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, node := range w.nodes {
		if node.Instance == in.Instance {
			return node, w.failing("AwaitNode")
		}
	}
	return workflows.Node{}, temporal.NewNonRetryableApplicationError("never became a node", workflows.BadReplacement, nil)
}

func (w *world) CordonNode(_ context.Context, in workflows.CordonNode) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.failing("CordonNode"); err != nil {
		return err
	}
	w.cordonedBy[in.Node] = in.By
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

func (w *world) DrainNode(ctx context.Context, in workflows.DrainNode) (workflows.DrainProgress, error) {
	w.mu.Lock()
	err, drain := w.failing("DrainNode"), w.drain
	w.mu.Unlock()
	if err == nil && drain != nil {
		err = drain(ctx, in.Node)
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

func (w *world) ResizePool(_ context.Context, in workflows.ResizePool) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.failing("ResizePool"); err != nil {
		return err
	}
	if w.pool.Desired != in.From && w.pool.Desired != in.To {
		return temporal.NewNonRetryableApplicationError("changed meanwhile", workflows.PoolBusy, nil)
	}
	w.pool.Desired = in.To
	w.scale()
	return nil
}

func (w *world) ReleaseCapacity(_ context.Context, in workflows.ReleaseCapacity) ([]workflows.Instance, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.failing("ReleaseCapacity"); err != nil || w.pool.Desired != in.From {
		return nil, err
	}
	surplus := slices.DeleteFunc(slices.Clone(w.pool.Instances), func(i workflows.Instance) bool { return slices.Contains(in.Known, i.ID) })
	if len(surplus) == 0 {
		w.pool.Desired = in.To
	}
	return surplus, nil
}

func (w *world) AwaitInstance(_ context.Context, in workflows.AwaitInstance) (workflows.Instance, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.failing("AwaitInstance"); err != nil {
		return workflows.Instance{}, err
	}
	for _, instance := range w.pool.Instances {
		if !slices.Contains(in.Known, instance.ID) {
			return instance, nil
		}
	}
	return workflows.Instance{}, temporal.NewNonRetryableApplicationError("no capacity", workflows.BadReplacement, nil)
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
	w.pool.Desired--
	w.remove(in.Instance)
	return workflows.Termination{}, nil
}

func (w *world) AwaitTermination(context.Context, workflows.TerminateInstance) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.failing("AwaitTermination")
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
			return temporal.NewNonRetryableApplicationError(activity+" failed", kind, nil)
		}
		return nil
	}
}
