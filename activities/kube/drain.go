package kube

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"go.temporal.io/sdk/activity"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/fairway-project/fairway/activities"
	"github.com/fairway-project/fairway/drain"
	"github.com/fairway-project/fairway/workflows"
)

// parallelEvictions bounds the evictions in flight for one node: those of pods that no budget
// covers, and one for each budget.
const parallelEvictions = 50

// DrainNode implements workflows.Kubernetes. Nothing of its state needs to outlive it: what has
// been evicted is gone, and everything else is seen again.
func (a *Activities) DrainNode(ctx context.Context, in workflows.DrainNode) (workflows.DrainProgress, error) {
	c, err := a.Clusters.get(ctx, in.Cluster)
	if err != nil {
		return workflows.DrainProgress{}, err
	}
	v, release, err := c.view.hold(ctx)
	if err != nil {
		return workflows.DrainProgress{}, c.explain("watching nodes and pods", err)
	}
	defer release()
	entry, err := a.Clusters.Find(ctx, in.Cluster)
	if err != nil {
		return workflows.DrainProgress{}, err
	}
	policy, err := a.Drain.Policy(entry, in.Pool)
	if err != nil {
		return workflows.DrainProgress{}, invalid("%v", err)
	}
	d := &drainer{
		cluster: c, view: v, node: in.Node, instance: in.Instance,
		pool: in.Pool, started: in.Started, policy: policy, askBlocks: a.Blocks.State,
		refused: map[types.UID]drain.Refusal{}, spent: map[types.NamespacedName]drain.Spending{}, seen: map[types.UID]bool{}, warned: map[types.UID]bool{},
	}
	return d.run(ctx)
}

// drainer empties one node.
type drainer struct {
	cluster        *cluster
	view           *view
	node, instance string
	pool           string
	askBlocks      func(ctx context.Context, cluster string) (workflows.ClusterState, error)
	blocks         workflows.ClusterState // as last asked for
	started        time.Time
	policy         drain.Policy
	seen           map[types.UID]bool // pods that had to leave
	warned         map[types.UID]bool // pods whose force was announced

	mu                  sync.Mutex // guards what evictions running in parallel report
	refused             map[types.UID]drain.Refusal
	spent               map[types.NamespacedName]drain.Spending
	granted, notGranted int
}

// departures are the pods whose eviction was granted by any drain of a cluster, so that parallel
// drains do not each take their share out of the same workload.
type departures struct {
	mu   sync.Mutex
	pods map[types.UID]drain.Departure
}

// rememberFor is longer than any pod takes to show up as terminating, and long enough for those
// that terminate slowly.
const rememberFor = time.Hour

func (d *departures) add(pod *corev1.Pod, now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.pods == nil {
		d.pods = map[types.UID]drain.Departure{}
	}
	departure := drain.Departure{At: now}
	if controller := metav1.GetControllerOf(pod); controller != nil {
		departure.Controller = controller.UID
	}
	if grace := pod.Spec.TerminationGracePeriodSeconds; grace != nil {
		departure.Grace = time.Duration(*grace) * time.Second
	}
	d.pods[pod.UID] = departure
}

func (d *departures) known(now time.Time) map[types.UID]drain.Departure {
	d.mu.Lock()
	defer d.mu.Unlock()
	maps.DeleteFunc(d.pods, func(_ types.UID, each drain.Departure) bool { return now.Sub(each.At) > rememberFor })
	return maps.Clone(d.pods)
}

func (d *drainer) run(ctx context.Context) (workflows.DrainProgress, error) {
	woken, unsubscribe := d.view.subscribe()
	defer unsubscribe()
	beat := time.NewTicker(activities.BeatEvery)
	defer beat.Stop()
	for {
		if node := d.view.node(d.node); node == nil || instanceOf(node) != d.instance {
			return d.report(drain.Plan{}), nil // the node vanished, and its pods with it
		}
		plan := drain.Decide(d.state())
		blocked := ""
		if plan.Acts() {
			var err error
			if blocked, err = d.askBlocked(ctx); err != nil {
				return d.report(plan), err
			}
			plan = drain.Decide(d.state()) // blocked time, which does not count, is known now
		}
		progress := d.report(plan)
		progress.Blocked = blocked
		activity.RecordHeartbeat(ctx, progress)
		if plan.Done() {
			return d.detached(ctx, woken, progress)
		}
		if blocked != "" {
			if err := d.pause(ctx, nil, beat.C, time.Now().Add(workflows.BlockCheck), progress); err != nil {
				return progress, err
			}
			continue
		}
		if err := d.warn(ctx, plan.Held); err != nil {
			return progress, err
		}
		if len(plan.Evict) > 0 {
			if err := d.evict(ctx, plan); err != nil {
				return progress, err
			}
			continue
		}
		if plan.Force != nil {
			if err := d.force(ctx, *plan.Force); err != nil {
				return progress, err
			}
			if err := d.seeForce(ctx, woken, plan.Force.Pod.UID); err != nil {
				return progress, err
			}
			continue
		}
		if err := d.pause(ctx, woken, beat.C, plan.Until, progress); err != nil {
			return progress, err
		}
	}
}

// askBlocked says who has blocked the pool and why; nothing if nobody has.
func (d *drainer) askBlocked(ctx context.Context) (string, error) {
	state, err := d.askBlocks(ctx, d.cluster.id)
	if err != nil {
		return "", err
	}
	d.blocks = state
	return state.Refusal(time.Now(), d.pool), nil
}

// seeForce waits until the watch shows the record of a forced pod, which decides about the next one.
func (d *drainer) seeForce(ctx context.Context, woken <-chan struct{}, uid types.UID) error {
	for {
		recorded := forcedPods(d.view.node(d.node))
		if d.view.node(d.node) == nil || slices.ContainsFunc(recorded, func(f workflows.ForcedPod) bool { return f.UID == string(uid) }) {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-activity.GetWorkerStopChannel(ctx):
			return activities.ErrStopping
		case <-woken:
		}
	}
}

// pause returns when there may be something new to decide.
func (d *drainer) pause(ctx context.Context, woken <-chan struct{}, beat <-chan time.Time, until time.Time, progress workflows.DrainProgress) error {
	var due <-chan time.Time
	if !until.IsZero() {
		timer := time.NewTimer(time.Until(until))
		defer timer.Stop()
		due = timer.C
	}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-activity.GetWorkerStopChannel(ctx):
			return activities.ErrStopping
		case <-woken:
			return nil
		case <-due:
			return nil
		case <-beat:
			activity.RecordHeartbeat(ctx, progress)
		}
	}
}

func (d *drainer) state() drain.State {
	d.mu.Lock()
	defer d.mu.Unlock()
	now, pods := time.Now(), d.view.podsOn(d.node)
	here, byBudget := d.lastForces()
	return drain.State{
		Now:         now,
		Started:     d.started,
		Blocked:     d.blocks.BlockedBetween(d.started, now, d.pool),
		Policy:      d.policy,
		Pods:        pods,
		Siblings:    d.view.siblings(pods),
		Budgets:     d.view.allBudgets(),
		Evicted:     d.cluster.departed.known(now),
		Refused:     maps.Clone(d.refused),
		Spent:       maps.Clone(d.spent),
		ForcedHere:  here,
		Forced:      byBudget,
		InNamespace: d.view.podsIn,
	}
}

// evict carries out a plan: the queues in parallel, the evictions of a queue one after another.
func (d *drainer) evict(ctx context.Context, plan drain.Plan) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(parallelEvictions)
	for _, queue := range plan.Evict {
		group.Go(func() error {
			for _, eviction := range queue {
				if granted, err := d.evictPod(ctx, eviction); err != nil || !granted {
					return err
				}
			}
			return nil
		})
	}
	return group.Wait()
}

// evictPod asks the API server to evict a pod. What it may answer is listed at
// https://kubernetes.io/docs/concepts/scheduling-eviction/api-eviction/.
func (d *drainer) evictPod(ctx context.Context, e drain.Eviction) (granted bool, err error) {
	pod := e.Pod
	err = d.cluster.evictions.Post().MaxRetries(0).
		Namespace(pod.Namespace).Resource("pods").Name(pod.Name).SubResource("eviction").
		Body(&policyv1.Eviction{
			ObjectMeta:    metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name},
			DeleteOptions: &metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(pod.UID))},
		}).
		Do(ctx).Error()

	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case err == nil:
		d.granted++
		d.cluster.departed.add(pod, time.Now())
		if drain.Ready(pod) { // others take nothing out of a budget
			d.spend(e.Budget)
		}
		return true, nil
	case apierrors.IsNotFound(err), apierrors.IsConflict(err):
		return true, nil // this pod is gone; another one may have its name
	case apierrors.IsTooManyRequests(err), apierrors.IsInternalError(err):
		d.notGranted++
		d.refused[pod.UID] = refused(e, err, time.Now())
		return false, nil
	default:
		return false, d.cluster.explain(fmt.Sprintf("evicting pod %s/%s", pod.Namespace, pod.Name), err)
	}
}

func (d *drainer) spend(budget *policyv1.PodDisruptionBudget) {
	if budget == nil {
		return
	}
	key := types.NamespacedName{Namespace: budget.Namespace, Name: budget.Name}
	spending := d.spent[key]
	if spending.Version != budget.ResourceVersion {
		spending = drain.Spending{Version: budget.ResourceVersion}
	}
	spending.Granted++
	d.spent[key] = spending
}

// A refused eviction is asked for again when its budget changes, and after these times
// regardless: a busy API server says when, and a budget might have changed unseen.
const (
	retryBusy   = time.Second
	retryBudget = time.Minute
)

func refused(e drain.Eviction, err error, now time.Time) drain.Refusal {
	if e.Budget != nil && apierrors.HasStatusCause(err, policyv1.DisruptionBudgetCause) {
		return drain.Refusal{Version: e.Budget.ResourceVersion, Until: now.Add(retryBudget)}
	}
	wait := retryBusy
	if seconds, suggested := apierrors.SuggestsClientDelay(err); suggested {
		wait = time.Duration(seconds) * time.Second
	}
	return drain.Refusal{Until: now.Add(wait), Reason: "the API server refused the eviction: " + err.Error()}
}

// heldShown bounds the pods that a progress report names; a heartbeat is not the place for more.
const heldShown = 20

// overdue is the time past its grace period after which a pod is reported as stuck.
const overdue = 30 * time.Second

func (d *drainer) report(plan drain.Plan) workflows.DrainProgress {
	d.mu.Lock()
	defer d.mu.Unlock()
	progress := workflows.DrainProgress{Evicted: d.granted, Refused: d.notGranted}
	for _, pod := range d.view.podsOn(d.node) {
		if !drain.MustLeave(pod) {
			continue
		}
		d.seen[pod.UID] = true
		progress.Left++
		if pod.DeletionTimestamp != nil && time.Since(pod.DeletionTimestamp.Time) > overdue && len(progress.Stuck) < heldShown {
			progress.Stuck = append(progress.Stuck, pod.Namespace+"/"+pod.Name)
		}
	}
	progress.Total = len(d.seen)
	progress.Forced = forcedPods(d.view.node(d.node))
	for _, held := range plan.Held[:min(len(plan.Held), heldShown)] {
		described := workflows.HeldPod{Pod: held.Pod.Namespace + "/" + held.Pod.Name, Owner: drain.Owner(held.Pod), Reason: held.Reason, ForceAt: held.ForceAt}
		if held.Budget != nil {
			described.Budget = held.Budget.Name
		}
		progress.Waiting = append(progress.Waiting, described)
	}
	if trouble := d.view.lastTrouble(); trouble != nil {
		progress.Trouble = fmt.Sprintf("the API server of %s does not answer: %v", d.cluster.id, trouble)
	}
	slices.Sort(progress.Stuck)
	return progress
}
