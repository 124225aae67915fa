package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/fairway-project/fairway/drain"
	"github.com/fairway-project/fairway/workflows"
)

// ForcedPods is the annotation of a node that records the pods forced off it. It is written before
// a pod is deleted, so that neither the record nor the interval to the next one is lost in a crash.
// It stays when a drain is cancelled: it tells what happened, and the interval goes on.
const ForcedPods = "fairway.dev/forced-pods"

// LastForced is the annotation of a PodDisruptionBudget that tells when one of its pods was last
// forced. It outlives the node, and it is the turnstile for drains of several nodes on several
// workers: it is written with the version of the budget that was decided on, so only one gets through.
const LastForced = "fairway.dev/last-forced"

// forced is an entry of a node's record.
type forced struct {
	workflows.ForcedPod
	// Controller is that of a pod without a budget.
	Controller types.UID `json:"controller,omitempty"`
}

// claim is what LastForced says.
type claim struct {
	At   time.Time `json:"at"`
	Pod  string    `json:"pod"` // namespace/name
	UID  types.UID `json:"uid"`
	Node string    `json:"node"`
}

// forcedPods reads a node's record; a node that is gone has none.
func forcedPods(node *corev1.Node) []forced {
	if node == nil {
		return nil
	}
	return recorded[[]forced](node, ForcedPods)
}

func claimOf(budget *policyv1.PodDisruptionBudget) claim { return recorded[claim](budget, LastForced) }

// forces are the last ones of the node, of each budget, and of each controller without one.
type forces struct {
	here         time.Time
	byBudget     map[types.NamespacedName]time.Time
	byController map[types.UID]time.Time
}

// lastForces reads what nodes and budgets tell. The claim for a pod whose force is still to come
// does not keep it from coming.
func (d *drainer) lastForces() forces {
	out := forces{byBudget: map[types.NamespacedName]time.Time{}, byController: map[types.UID]time.Time{}}
	for _, budget := range d.view.allBudgets() {
		if last := claimOf(budget); last.UID != d.claimed.UID {
			out.byBudget[types.NamespacedName{Namespace: budget.Namespace, Name: budget.Name}] = last.At
		}
	}
	for _, node := range d.view.allNodes() {
		for _, forced := range forcedPods(node) {
			if node.Name == d.node && forced.At.After(out.here) {
				out.here = forced.At
			}
			namespace, _, _ := strings.Cut(forced.Pod, "/")
			key := types.NamespacedName{Namespace: namespace, Name: forced.Budget}
			if forced.Budget != "" && forced.At.After(out.byBudget[key]) {
				out.byBudget[key] = forced.At
			}
			if forced.Controller != "" && forced.At.After(out.byController[forced.Controller]) {
				out.byController[forced.Controller] = forced.At
			}
		}
	}
	return out
}

func (c claim) same(other claim) bool { return c.UID == other.UID && c.At.Equal(other.At) }

// forceAlone forces a pod, provided that no other drain forces one of the same budgets or the same
// workload. With budgets that takes two steps: the claim, and, when the view shows it, the force, if
// it is still right with what the view shows of the siblings by then.
func (d *drainer) forceAlone(ctx context.Context, woken <-chan struct{}, f drain.Force, progress workflows.DrainProgress) error {
	act := func(do func(context.Context) (bool, error)) (done bool, err error) {
		err = d.beating(ctx, progress, func(ctx context.Context) (err error) {
			done, err = do(ctx)
			return err
		})
		return done, err
	}
	if !d.holdsClaim(f) {
		if _, err := act(func(ctx context.Context) (bool, error) { return d.claim(ctx, f) }); err != nil {
			return err
		}
		// Lost or won, what to do next depends on what the view shows of it.
		return d.pause(ctx, woken, time.Now().Add(retryBusy), progress)
	}
	done, err := act(func(ctx context.Context) (bool, error) { return d.force(ctx, f) })
	if err != nil {
		return err
	}
	d.claimed = claim{}
	if !done {
		// Drains that have withdrawn at the same time do not come back at the same time.
		return d.pause(ctx, nil, time.Now().Add(retryBusy+rand.N(retryBusy)), progress)
	}
	return d.seeForce(ctx, woken, f.Pod.UID, progress)
}

// holdsClaim says whether the view shows the claim for a force on all budgets that cover its pod.
func (d *drainer) holdsClaim(f drain.Force) bool {
	return !slices.ContainsFunc(f.Guards, func(guard *policyv1.PodDisruptionBudget) bool {
		return d.claimed.UID != f.Pod.UID || !claimOf(guard).same(d.claimed)
	})
}

// claim takes the right to force a pod from all budgets that cover it, unless one of them has
// changed since the force was decided. What was taken in vain costs others one interval.
func (d *drainer) claim(ctx context.Context, f drain.Force) (won bool, err error) {
	pod := f.Pod
	mine := claim{At: time.Now().UTC().Truncate(time.Millisecond), Pod: pod.Namespace + "/" + pod.Name, UID: pod.UID, Node: d.node}
	text, err := json.Marshal(mine)
	if err != nil {
		return false, fmt.Errorf("encoding a claim: %w", err)
	}
	d.claimed = mine
	for _, guard := range f.Guards {
		patch, err := json.Marshal(map[string]any{"metadata": map[string]any{
			"resourceVersion": guard.ResourceVersion, "annotations": map[string]string{LastForced: string(text)},
		}})
		if err != nil {
			return false, fmt.Errorf("encoding a patch: %w", err)
		}
		_, err = d.cluster.client.PolicyV1().PodDisruptionBudgets(guard.Namespace).
			Patch(ctx, guard.Name, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: "fairway"})
		if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
			return false, nil
		}
		if err != nil {
			return false, d.cluster.explain(fmt.Sprintf("writing %s on budget %s/%s", LastForced, guard.Namespace, guard.Name), err)
		}
	}
	return true, nil
}

// seeForce waits until the watch shows the record of a forced pod, which decides about the next one.
func (d *drainer) seeForce(ctx context.Context, woken <-chan struct{}, uid types.UID, progress workflows.DrainProgress) error {
	for {
		recorded := slices.ContainsFunc(forcedPods(d.view.node(d.node)), func(f forced) bool { return f.UID == string(uid) })
		if recorded || d.vanished() {
			return nil
		}
		if err := d.pause(ctx, woken, time.Time{}, progress); err != nil {
			return err
		}
	}
}

// rival says whether a node records the force of another pod of the same controller within the
// interval. Every drain writes its record first and reads those of all nodes then, from the API
// server itself: of two at the same time at least one sees the other, on whatever workers they run.
func (d *drainer) rival(ctx context.Context, mine forced) (bool, error) {
	nodes, err := d.cluster.listNodes(ctx)
	if err != nil {
		return false, err
	}
	for _, node := range nodes {
		for _, other := range forcedPods(node) {
			if other.Controller == mine.Controller && other.UID != mine.UID && time.Since(other.At) < d.policy.Force.Interval {
				return true, nil
			}
		}
	}
	return false, nil
}

// force deletes a pod that cannot leave, after it has been recorded and announced. The pod still
// gets its grace period. It is not done if another pod of its workload is forced at the same time.
func (d *drainer) force(ctx context.Context, f drain.Force) (done bool, err error) {
	pod := f.Pod
	record := forced{ForcedPod: workflows.ForcedPod{
		Pod: pod.Namespace + "/" + pod.Name, UID: string(pod.UID), Owner: drain.Owner(pod), Reason: f.Reason,
		At: time.Now().UTC().Truncate(time.Second), Authority: f.Authority,
	}}
	if f.Budget != nil {
		record.Budget = f.Budget.Name
	}
	if len(f.Guards) == 0 {
		record.Controller = drain.Workload(pod)
	}
	others := func(node *corev1.Node) []forced { // an attempt before this one may have recorded it in vain
		return slices.DeleteFunc(forcedPods(node), func(old forced) bool { return old.UID == record.UID })
	}
	if err := d.cluster.annotate(ctx, d.node, ForcedPods, func(node *corev1.Node) any { return append(others(node), record) }); err != nil {
		return false, err
	}
	if record.Controller != "" {
		if rival, err := d.rival(ctx, record); err != nil {
			return false, err
		} else if rival {
			return false, d.cluster.annotate(ctx, d.node, ForcedPods, func(node *corev1.Node) any {
				if left := others(node); len(left) > 0 {
					return left
				}
				return nil
			})
		}
	}
	if err := d.announce(ctx, pod, "FairwayForced", fmt.Sprintf("Deleted to empty node %s: %s", d.node, f.Reason)); err != nil {
		return false, d.cluster.explain("announcing a force", err)
	}
	err = d.cluster.client.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(pod.UID))})
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return true, nil // it went by itself meanwhile
	}
	if err != nil {
		return false, d.cluster.explain("deleting pod "+record.Pod, err)
	}
	d.cluster.departed.add(pod, time.Now())
	d.tell(ctx, workflows.Forced, pod, fmt.Sprintf("Pod %s was deleted to empty node %s of cluster %s, on the authority of %s: %s.",
		record.Pod, d.node, d.cluster.id, f.Authority, f.Reason))
	return true, nil
}

// warn tells a pod's people that it will be forced. The events have fixed names, so that each is
// written once, also after a crash.
func (d *drainer) warn(ctx context.Context, held []drain.Held) error {
	for _, each := range held {
		if _, told := d.announced[each.Pod.UID]; told || !each.Warn {
			continue
		}
		if err := d.announce(ctx, each.Pod, "FairwayForceSoon", fmt.Sprintf("Will be deleted at %s to empty node %s unless it can be evicted before: %s",
			each.ForceAt.UTC().Format(time.RFC3339), d.node, each.Reason)); err != nil {
			return d.cluster.explain("announcing a force", err)
		}
		d.announced[each.Pod.UID] = each.ForceAt
		d.tell(ctx, workflows.ForceSoon, each.Pod, fmt.Sprintf("Pod %s/%s will be deleted at %s to empty node %s of cluster %s unless it can be evicted before: %s.",
			each.Pod.Namespace, each.Pod.Name, each.ForceAt.UTC().Format(time.RFC3339), d.node, d.cluster.id, each.Reason))
	}
	return nil
}

// What is told is tried so often, and for so long. A hook that does not answer holds up nothing.
const (
	tellTries  = 3
	tellWithin = time.Minute
)

// tell notifies people in the background. What fails is in the log, and for a pod's own people
// there are events.
func (d *drainer) tell(ctx context.Context, kind string, pod *corev1.Pod, text string) {
	if d.notify == nil {
		return
	}
	n := workflows.Notification{
		ID: kind + "/" + string(pod.UID), Kind: kind, Cluster: d.cluster.id, Pool: d.pool, Node: d.node,
		Pod: pod.Namespace + "/" + pod.Name, Owner: drain.Owner(pod), Text: text, At: time.Now().UTC(),
	}
	logger := activity.GetLogger(ctx)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), tellWithin) // the drain may be over before
	go func() {
		defer cancel()
		_, err := backoff.Retry(ctx, func() (struct{}, error) {
			err := d.notify(ctx, n)
			var typed *temporal.ApplicationError
			if errors.As(err, &typed) && typed.NonRetryable() {
				err = backoff.Permanent(err)
			} else if typed != nil && typed.NextRetryDelay() > 0 {
				err = errors.Join(err, &backoff.RetryAfterError{Duration: typed.NextRetryDelay()})
			}
			return struct{}{}, err
		}, backoff.WithMaxTries(tellTries), backoff.WithMaxElapsedTime(tellWithin))
		if err != nil {
			logger.Warn("a notification was not delivered", "kind", kind, "pod", n.Pod, "node", n.Node, "tries", tellTries, "error", err)
		}
	}()
}

// announce writes an event on a pod, and on the workload that it belongs to.
func (d *drainer) announce(ctx context.Context, pod *corev1.Pod, reason, message string) error {
	about := []corev1.ObjectReference{{APIVersion: "v1", Kind: "Pod", Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID}}
	if controller := metav1.GetControllerOf(pod); controller != nil {
		about = append(about, corev1.ObjectReference{
			APIVersion: controller.APIVersion, Kind: controller.Kind, Namespace: pod.Namespace, Name: controller.Name, UID: controller.UID,
		})
	}
	now := metav1.Now()
	for _, object := range about {
		_, err := d.cluster.client.CoreV1().Events(pod.Namespace).Create(ctx, &corev1.Event{
			ObjectMeta:     metav1.ObjectMeta{Namespace: pod.Namespace, Name: eventName(reason, object, pod)},
			InvolvedObject: object,
			Type:           corev1.EventTypeWarning,
			Reason:         reason,
			Message:        message,
			Source:         corev1.EventSource{Component: "fairway"},
			FirstTimestamp: now, LastTimestamp: now, Count: 1,
		}, metav1.CreateOptions{})
		if apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
			return nil // its people have sent it away themselves
		}
		if err != nil && !apierrors.IsAlreadyExists(err) {
			return err
		}
	}
	return nil
}

// eventName is the same for the same thing said about the same pod.
func eventName(reason string, object corev1.ObjectReference, pod *corev1.Pod) string {
	return strings.ToLower(fmt.Sprintf("%s.%s.%s", pod.UID, object.Kind, reason))
}
