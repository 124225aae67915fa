package tests

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairway-project/fairway/config"
	"github.com/fairway-project/fairway/lab"
	"github.com/fairway-project/fairway/workflows"
)

// webhook is what an operator has notifications sent to.
type webhook struct {
	server *httptest.Server
	secret string

	mu       sync.Mutex
	heard    []workflows.Notification
	unsigned int
}

func newWebhook(t *testing.T) *webhook {
	t.Helper()
	h := &webhook{secret: "hush " + t.Name()}
	h.server = httptest.NewServer(h)
	t.Cleanup(h.server.Close)
	return h
}

func (h *webhook) ServeHTTP(_ http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	mac := hmac.New(sha256.New, []byte(h.secret))
	_, _ = mac.Write(body)
	var n workflows.Notification
	genuine := r.Header.Get("X-Fairway-Signature") == "sha256="+hex.EncodeToString(mac.Sum(nil))
	h.mu.Lock()
	defer h.mu.Unlock()
	if err != nil || !genuine || json.Unmarshal(body, &n) != nil {
		h.unsigned++
		return
	}
	h.heard = append(h.heard, n)
}

// told are the notifications of a kind, by pod.
func (h *webhook) told(kind string) map[string]workflows.Notification {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := map[string]workflows.Notification{}
	for _, n := range h.heard {
		if n.Kind == kind {
			out[n.Pod] = n
		}
	}
	return out
}

// hears sets the webhook up in the way an operator does.
func hears(h *webhook) func(*config.Config, map[string]string) {
	return func(c *config.Config, env map[string]string) {
		c.Notify.URLEnv, c.Notify.SecretEnv = "HOOK_URL", "HOOK_SECRET"
		env["HOOK_URL"], env["HOOK_SECRET"] = h.server.URL, h.secret
	}
}

// deletionsOf are those that Fairway asked for in the pool's own namespace, in their order.
func (p pool) deletionsOf(t *testing.T) lab.Audit {
	t.Helper()
	audit, err := theLab.Audit(p.cluster)
	require.NoError(t, err)
	return audit.By("fairway").PodDeletions().Where(func(e lab.AuditEvent) bool { return e.Namespace == p.name })
}

func TestPodsOfABudgetThatNeverAllowsAreForcedOneByOneAfterAWarning(t *testing.T) {
	t.Parallel()
	const after, warn, interval, ready, pods = 12 * time.Second, 8 * time.Second, 2 * time.Second, 2 * time.Second, 3
	p := newPool(t, busy, shape{size: 1})
	hook := newWebhook(t)
	w := startWorker(t, busy, hears(hook), gently(config.Gentleness{
		ForceAfter: new(after), WarnBefore: new(warn), ForceInterval: new(interval), SiblingsReady: new(ready), Deadline: new(time.Hour),
	}))
	p.makeNamespace(t)
	// A sibling takes longer to be ready again than the interval lasts.
	p.deploy(t, "app", pods, map[string]string{lab.ReadyDelayAnnotation: "3s"})
	p.awaitPods(t, "app", pods)
	p.protectAll(t, "app")
	old := p.podsOf(t, "app")
	r := p.replace(t, w)
	began := r.awaitHeld(t, pods, "the budget can never allow an eviction").Waiting[0].Since

	for _, held := range w.blockers(t, p) {
		require.Equal(t, r.node.Name, held.Node)
		require.Equal(t, "app", held.Budget)
		require.Equal(t, "app", held.Owner)
		require.Equal(t, began.Add(after), held.ForceAt, "it is said beforehand when")
	}
	require.Len(t, w.blockers(t, p), pods)
	require.Empty(t, p.deletionsOf(t))

	forced := r.requireForced(t)
	require.Len(t, forced, pods)
	require.Empty(t, p.evictionsOf(t, ""))
	deletions := p.deletionsOf(t)
	require.Len(t, deletions, pods)
	for i, force := range forced {
		require.True(t, slices.ContainsFunc(old, func(pod corev1.Pod) bool {
			return string(pod.UID) == force.UID && p.name+"/"+pod.Name == force.Pod
		}), "%s was there", force.Pod)
		require.Equal(t, [2]string{"app", "app"}, [2]string{force.Budget, force.Owner})
		require.Equal(t, "drain.force_after = 12s", force.Authority)
		require.Contains(t, force.Reason, "the budget can never allow an eviction: it wants 3 of 3 pods healthy; forced ")
		require.GreaterOrEqual(t, deletions[i].Received.Sub(began), after)
		if i > 0 {
			require.GreaterOrEqual(t, force.At.Sub(forced[i-1].At), interval, "there is an interval between two")
			p.requireReadyAt(t, deletions[i], forced, pods-1, ready)
		}
	}
	p.requireAnnounced(t, forced, warn)
	p.awaitPods(t, "app", pods)

	require.EventuallyWithT(t, func(c *assert.CollectT) {
		assert.Len(c, hook.told(workflows.RollDone), 1)
		for _, force := range forced {
			soon, done := hook.told(workflows.ForceSoon)[force.Pod], hook.told(workflows.Forced)[force.Pod]
			assert.Contains(c, soon.Text, "will be deleted at "+began.Add(after).UTC().Format(time.RFC3339))
			assert.Contains(c, done.Text, "drain.force_after = 12s")
			assert.True(c, soon.At.Before(force.At), "first the warning")
			assert.Equal(c, [4]string{busy, p.name, r.node.Name, "app"}, [4]string{done.Cluster, done.Pool, done.Node, done.Owner})
		}
	}, 30*time.Second, 100*time.Millisecond, "the webhook does not hear of it")
	require.Zero(t, hook.unsigned, "every notification is signed")
}

// blockers are the pods of the pool's own namespace that `fairway blockers` lists.
func (w *worker) blockers(t *testing.T, p pool) (held []blocker) {
	t.Helper()
	got := w.fairway(t, "blockers", "--cluster", p.cluster, "-o", "json")
	require.Zero(t, got.status, got.stderr)
	require.NoError(t, json.Unmarshal([]byte(got.stdout), &held), got.stdout)
	return slices.DeleteFunc(held, func(b blocker) bool { return !strings.HasPrefix(b.Pod, p.name+"/") })
}

type blocker struct {
	Node string `json:"node"`
	workflows.HeldPod
}

// requireReadyAt checks that so many pods of the namespace, beside the forced ones, had been ready
// for a time when a pod was deleted. Kubernetes records that in whole seconds.
func (p pool) requireReadyAt(t *testing.T, deletion lab.AuditEvent, forced []workflows.ForcedPod, want int, lasting time.Duration) {
	t.Helper()
	options, err := deletion.DeleteOptions()
	require.NoError(t, err)
	p.mu.Lock()
	defer p.mu.Unlock()
	ready := 0
	for _, pod := range p.pods {
		if pod.Namespace != p.name || pod.UID == *options.Preconditions.UID || goneBefore(deletion, pod, forced) {
			continue
		}
		for _, condition := range pod.Status.Conditions {
			if condition.Type == corev1.PodReady && condition.Status == corev1.ConditionTrue && deletion.Received.Sub(condition.LastTransitionTime.Time) >= lasting {
				ready++
			}
		}
	}
	require.GreaterOrEqual(t, ready, want, "when %s was forced at %s, not all its siblings had been ready for %s", deletion.Name, deletion.Received, lasting)
}

func goneBefore(deletion lab.AuditEvent, pod *corev1.Pod, forced []workflows.ForcedPod) bool {
	return slices.ContainsFunc(forced, func(f workflows.ForcedPod) bool {
		return f.UID == string(pod.UID) && f.At.Before(deletion.Received.Truncate(time.Second))
	})
}

// requireAnnounced checks the events on pods and workloads, and when they came.
func (p pool) requireAnnounced(t *testing.T, forced []workflows.ForcedPod, warn time.Duration) {
	t.Helper()
	list, err := p.client.CoreV1().Events(p.name).List(t.Context(), metav1.ListOptions{})
	require.NoError(t, err)
	written := map[string]int{}
	for _, event := range list.Items {
		if event.Source.Component != "fairway" {
			continue
		}
		require.Equal(t, corev1.EventTypeWarning, event.Type)
		written[event.Reason+" on "+event.InvolvedObject.Kind]++
		if event.Reason == "FairwayForceSoon" {
			require.Greater(t, forced[0].At.Sub(event.FirstTimestamp.Time), warn/2, "well before")
			require.Contains(t, event.Message, "Will be deleted at ")
		}
	}
	require.Equal(t, map[string]int{
		"FairwayForceSoon on Pod": len(forced), "FairwayForceSoon on ReplicaSet": len(forced),
		"FairwayForced on Pod": len(forced), "FairwayForced on ReplicaSet": len(forced),
	}, written)
}

// ask sends an update to the actor of the pool's cluster.
func (p pool) ask(t *testing.T, update string, request, result any) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	handle, err := temporal.UpdateWorkflow(ctx, client.UpdateWorkflowOptions{
		WorkflowID: workflows.ClusterID(p.cluster), UpdateName: update, Args: []any{request}, WaitForStage: client.WorkflowUpdateStageCompleted,
	})
	require.NoError(t, err)
	require.NoError(t, handle.Get(ctx, result))
}

func (p pool) order(t *testing.T, request workflows.ForceRequest) {
	t.Helper()
	request.By = "anna"
	p.ask(t, workflows.ForceName, request, &workflows.ForceOrder{})
}

func TestAnOperatorForbidsAForceThatIsDueAndAsksForOthers(t *testing.T) {
	t.Parallel()
	const after, interval = 4 * time.Second, 3 * time.Second
	p := newPool(t, busy, shape{size: 1})
	w := startWorker(t, busy, gently(config.Gentleness{
		ForceAfter: new(after), WarnBefore: new(time.Second), ForceInterval: new(interval), SiblingsReady: new(time.Hour), Deadline: new(2 * time.Hour),
	}))
	p.makeNamespace(t)
	p.deploy(t, "alone", 1, nil)
	p.deploy(t, "young", 2, nil)
	p.awaitPods(t, "alone", 1)
	p.awaitPods(t, "young", 2)
	p.protectAll(t, "alone") // due as soon as its time has come
	p.protectAll(t, "young") // not due: its siblings are too young
	alone := p.name + "/" + p.podsOf(t, "alone")[0].Name
	node := p.fullest(t).Name
	p.order(t, workflows.ForceRequest{Node: node, Pod: alone, Mode: workflows.ForceForbid, Reason: "month's end"})
	r := p.replace(t, w)
	began := r.awaitHeld(t, 3, "").Waiting[0].Since
	time.Sleep(time.Until(began.Add(after + 2*interval)))
	r.awaitProgress(t, func(c *assert.CollectT, progress workflows.DrainProgress) {
		require.Len(c, progress.Waiting, 3)
		for _, held := range progress.Waiting {
			if held.Pod == alone {
				assert.Contains(c, held.Reason, "anna forbade to force it: month's end")
				assert.Zero(c, held.ForceAt)
			} else {
				assert.Contains(c, held.Reason, "when its sibling ")
			}
		}
	})
	require.Empty(t, p.deletionsOf(t), "nothing was forced")

	ordered := time.Now()
	p.order(t, workflows.ForceRequest{Node: node, Mode: workflows.ForceNow, Reason: "the machine is on fire"})
	forced := r.requireForced(t)
	require.Len(t, forced, 3)
	require.WithinRange(t, p.deletionsOf(t)[0].Received, ordered, ordered.Add(2*soon))
	for i, force := range forced {
		require.Equal(t, "anna: the machine is on fire", force.Authority)
		if i > 0 {
			require.GreaterOrEqual(t, force.At.Sub(forced[i-1].At), interval, "still one at a time")
		}
	}
	p.awaitPods(t, "alone", 1)
	p.awaitPods(t, "young", 2)
}
