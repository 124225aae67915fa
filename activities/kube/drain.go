package kube

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"
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
		cluster: c, view: v, node: in.Node, instance: in.Instance, pool: in.Pool, by: in.By,
		started: in.Started, tried: in.Tried, giveUpAfter: in.GiveUpAfter, policy: policy,
		askBlocks: a.Blocks.State, setCordon: a.setCordon, notify: a.Notify,
		refused: map[types.UID]drain.Refusal{}, spent: map[types.NamespacedName]drain.Spending{},
		seen: map[types.UID]bool{}, announced: map[types.UID]time.Time{}, surged: map[types.UID]surgedHere{},
		volumes: map[types.NamespacedName]string{},
	}
	for _, w := range surgedWorkloads(v.node(in.Node)) { // by an attempt before this one
		d.surged[w.ReplicaSet] = surgedHere{workload: w}
	}
	progress, err := d.run(ctx)
	if cancelled(ctx) {
		d.undo(ctx)
	}
	return progress, err
}

// cancelled says whether somebody wants the drain to end. Other ends of its context mean that
// another attempt goes on, or soon will.
func cancelled(ctx context.Context) bool {
	cause := context.Cause(ctx)
	return errors.Is(cause, context.Canceled) || temporal.IsCanceledError(cause)
}

// undoWithin is how long a cancelled drain may take to give workloads their size back. What it
// does not manage is left to UncordonNode.
const undoWithin = 6 * time.Second

func (d *drainer) undo(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoWithin)
	defer cancel()
	for {
		err := d.settleAll(ctx)
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			activity.GetLogger(ctx).Warn("a cancelled drain could not give workloads their size back; uncordoning the node does", "node", d.node, "error", err)
			return
		case <-time.After(retryBusy):
		}
	}
}

// drainer empties one node.
type drainer struct {
	cluster        *cluster
	view           *view
	node, instance string
	pool           string
	by             string // workflow id, as on the node's cordon
	started        time.Time
	tried          time.Duration // by drains before this one
	giveUpAfter    time.Duration
	policy         drain.Policy
	askBlocks      func(ctx context.Context, cluster string) (workflows.ClusterState, error)
	setCordon      func(context.Context, workflows.CordonNode, func(*corev1.Node) (map[string]any, bool)) error
	notify         func(context.Context, workflows.Notification) error // nil tells nobody

	blocks  workflows.ClusterState // as last asked for
	asked   time.Time              // when that was
	open    bool                   // this drain made the node schedulable while a block holds
	trouble error                  // why the last step failed; it is tried again
	seen    map[types.UID]bool     // pods that had to leave
	// announced is the time that was announced for a pod's force. An attempt after a crash announces
	// it again and waits again, which is a matter of minutes.
	announced map[types.UID]time.Time
	claimed   claim // the last right to force that was taken
	surged    map[types.UID]surgedHere

	detachBy  time.Time                       // when an empty node no longer waits for its volumes; zero while it is not empty
	detaching []string                        // that it waits for
	volumes   map[types.NamespacedName]string // that claims are bound to, which never changes

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

// A drain that waits asks for blocks and orders so often, and has to be answered within a time that
// leaves room for heartbeats.
const (
	askEvery  = 5 * time.Second
	askWithin = 5 * time.Second
)

// run decides and acts until the node is empty, gone or given up. What cannot be done for the moment
// is shown and tried again.
func (d *drainer) run(ctx context.Context) (workflows.DrainProgress, error) {
	woken, unsubscribe := d.view.subscribe()
	defer unsubscribe()
	for {
		plan, err := d.decide(ctx)
		progress := d.report(plan)
		activity.RecordHeartbeat(ctx, progress)
		over := false
		if err == nil {
			over, err = d.step(ctx, woken, plan, progress)
		}
		switch {
		case err == nil:
			d.trouble = nil
			if over {
				progress = d.report(plan)
				progress.GaveUp = plan.GiveUp
				return progress, nil
			}
			continue
		case ctx.Err() != nil:
			return progress, ctx.Err()
		case !passing(err):
			return progress, err
		}
		// What fails for lack of an answer, or since somebody else was faster, is tried again here:
		// another attempt would have to read the whole cluster first.
		d.trouble = err
		if err := d.pause(ctx, nil, time.Now().Add(patience(err)), d.report(plan)); err != nil {
			return progress, err
		}
	}
}

// vanished says that the node is gone, and its pods with it.
func (d *drainer) vanished() bool {
	node := d.view.node(d.node)
	return node == nil || instanceOf(node) != d.instance
}

// decide makes a plan with what is known about blocks and orders: no older than askEvery, and
// fresh if there is something to do.
func (d *drainer) decide(ctx context.Context) (drain.Plan, error) {
	plan := d.plan()
	every := askEvery
	if d.refusal() != "" {
		every = workflows.BlockCheck
	}
	if time.Since(d.asked) < every && !plan.Acts() && !plan.GiveUp {
		return plan, nil
	}
	if err := d.ask(ctx); err != nil {
		return plan, err
	}
	return d.plan(), nil // blocked time, which does not count, is known now
}

// plan has nothing left to do on a node that is gone.
func (d *drainer) plan() drain.Plan {
	if d.vanished() {
		return drain.Plan{}
	}
	return drain.Decide(d.state())
}

// ask learns about blocks and orders.
func (d *drainer) ask(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	blocks, err := d.askBlocks(ctx, d.cluster.id)
	if err != nil {
		return err
	}
	d.blocks, d.asked = blocks, time.Now()
	return nil
}

// refusal says who has blocked the pool and why; nothing if nobody has.
func (d *drainer) refusal() string { return d.blocks.Refusal(time.Now(), d.pool) }

// step does one thing of a plan, or waits until there may be another. It says whether the drain is
// over.
func (d *drainer) step(ctx context.Context, woken <-chan struct{}, plan drain.Plan, progress workflows.DrainProgress) (over bool, err error) {
	act := func(do func(context.Context) error) error { return d.beating(ctx, progress, do) }
	if !plan.Done() {
		d.detachBy, d.detaching = time.Time{}, nil
	}
	switch {
	case len(plan.Settle) > 0: // undoing is done in a block, too
		return false, act(func(ctx context.Context) error { return d.settle(ctx, plan.Settle) })
	case progress.Blocked != "": // what an end of the drain allows is blocked, too
		if err := act(d.openNode); err != nil {
			return false, err
		}
		return false, d.pause(ctx, nil, d.asked.Add(workflows.BlockCheck), progress)
	case plan.Done():
		return d.finish(ctx, woken, progress)
	}
	if d.mayOpen() { // after a block that opened it, maybe in an attempt before this one
		if err := act(d.closeNode); err != nil {
			return false, err
		}
	}
	if plan.GiveUp {
		return true, act(d.settleAll)
	}
	if err := act(func(ctx context.Context) error { return d.warn(ctx, plan.Held) }); err != nil {
		return false, err
	}
	switch {
	case len(plan.Evict) > 0:
		return false, act(func(ctx context.Context) error { return d.evict(ctx, plan) })
	case len(plan.Surge) > 0:
		return false, act(func(ctx context.Context) error {
			for _, pod := range plan.Surge {
				if err := d.surge(ctx, pod); err != nil {
					return err
				}
			}
			return nil
		})
	case plan.Force != nil:
		return false, d.forceAlone(ctx, woken, *plan.Force, progress)
	}
	until := d.asked.Add(askEvery)
	if !plan.Until.IsZero() && plan.Until.Before(until) {
		until = plan.Until
	}
	return false, d.pause(ctx, woken, until, progress)
}

// pause returns when there may be something new to decide.
func (d *drainer) pause(ctx context.Context, woken <-chan struct{}, until time.Time, progress workflows.DrainProgress) error {
	beat := time.NewTicker(activities.BeatEvery)
	defer beat.Stop()
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
		case <-beat.C:
			activity.RecordHeartbeat(ctx, progress)
		}
	}
}

// beating does something that may wait for an API server longer than a heartbeat may take.
func (d *drainer) beating(ctx context.Context, progress workflows.DrainProgress, do func(context.Context) error) error {
	done := make(chan struct{})
	var beats sync.WaitGroup
	beats.Go(func() {
		beat := time.NewTicker(activities.BeatEvery)
		defer beat.Stop()
		for {
			select {
			case <-done:
				return
			case <-beat.C:
				activity.RecordHeartbeat(ctx, progress)
			}
		}
	})
	defer beats.Wait()
	defer close(done)
	return do(ctx)
}

// passing says whether an error may pass by itself within seconds.
func passing(err error) bool {
	var typed *temporal.ApplicationError
	switch {
	case errors.Is(err, activities.ErrStopping):
		return false
	case errors.As(err, &typed):
		return typed.Type() == workflows.Unreachable
	default:
		return apierrors.IsConflict(err) || busy(err)
	}
}

// busy says whether an API server answered that it could not do something at the moment.
func busy(err error) bool {
	return apierrors.IsTooManyRequests(err) || apierrors.IsInternalError(err) || apierrors.IsServerTimeout(err) ||
		apierrors.IsTimeout(err) || apierrors.IsServiceUnavailable(err)
}

// patience is how long to wait after an error that may pass.
func patience(err error) time.Duration {
	var typed *temporal.ApplicationError
	if errors.As(err, &typed) && typed.NextRetryDelay() > 0 {
		return typed.NextRetryDelay()
	}
	return retryBusy
}

func (d *drainer) state() drain.State {
	d.mu.Lock()
	defer d.mu.Unlock()
	now, pods := time.Now(), d.view.podsOn(d.node)
	forces := d.lastForces()
	return drain.State{
		Now:         now,
		Started:     d.started,
		Blocked:     d.blocks.BlockedBetween(d.started, now, d.pool),
		Tried:       d.tried,
		Policy:      d.policy,
		GiveUpAfter: d.giveUpAfter,
		Orders:      d.orders(),
		Surged:      d.surgedState(),
		Pods:        pods,
		Siblings:    d.view.siblings(pods),
		Budgets:     d.view.allBudgets(),
		Evicted:     d.cluster.departed.known(now),
		Refused:     maps.Clone(d.refused),
		Spent:       maps.Clone(d.spent),
		ForcedHere:  forces.here,
		Forced:      forces.byBudget,
		ForcedOf:    forces.byController,
		Announced:   maps.Clone(d.announced),
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
	case ctx.Err() != nil:
		return false, ctx.Err()
	case apierrors.IsNotFound(err), apierrors.IsConflict(err):
		// This pod is gone, another one may have its name, or somebody has just changed it. The
		// watch will show; until then there is no point in asking again.
		d.refused[pod.UID] = drain.Refusal{Until: time.Now().Add(retryBusy), Reason: "it changes at the moment: " + err.Error()}
		return true, nil
	case busy(err), apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause), unanswered(err):
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
	if unanswered(err) {
		return drain.Refusal{Until: now.Add(wait), Reason: "the API server did not answer the eviction: " + err.Error(), Unsure: true}
	}
	return drain.Refusal{Until: now.Add(wait), Reason: "the API server refused the eviction: " + err.Error()}
}

// unanswered says that a request had no answer, so that nobody knows whether it was granted.
func unanswered(err error) bool {
	var status apierrors.APIStatus
	return err != nil && !errors.As(err, &status)
}

// heldShown bounds the pods that a progress report names; a heartbeat is not the place for more.
const heldShown = 20

// overdue is the time past its grace period after which a pod is reported as stuck.
const overdue = 30 * time.Second

func (d *drainer) report(plan drain.Plan) workflows.DrainProgress {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now()
	progress := workflows.DrainProgress{
		Evicted: d.granted, Refused: d.notGranted, Blocked: d.refusal(), Detaching: d.detaching,
		Tried: max(0, now.Sub(d.started)-d.blocks.BlockedBetween(d.started, now, d.pool)),
	}
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
	for _, forced := range forcedPods(d.view.node(d.node)) {
		if !forced.At.Before(d.started.Truncate(time.Second)) { // earlier drains have told of theirs
			progress.Forced = append(progress.Forced, forced.ForcedPod)
		}
	}
	for _, held := range plan.Held[:min(len(plan.Held), heldShown)] {
		described := workflows.HeldPod{Pod: held.Pod.Namespace + "/" + held.Pod.Name, Owner: drain.Owner(held.Pod), Reason: held.Reason, Since: d.started, ForceAt: held.ForceAt}
		if held.Budget != nil {
			described.Budget = held.Budget.Name
		}
		progress.Waiting = append(progress.Waiting, described)
	}
	if trouble := d.view.lastTrouble(); trouble != nil {
		progress.Trouble = fmt.Sprintf("the API server of %s does not answer: %v", d.cluster.id, trouble)
	} else if d.trouble != nil {
		progress.Trouble = d.trouble.Error()
	}
	slices.Sort(progress.Stuck)
	return progress
}
