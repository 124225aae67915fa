package tests

import (
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	admissionv1 "k8s.io/api/admission/v1"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairway-project/fairway/config"
	"github.com/fairway-project/fairway/lab"
	"github.com/fairway-project/fairway/workflows"
)

// throttle lets the API server work on only one of Fairway's evictions in the pool's own namespace
// at a time. Others get 429 and Retry-After, as from one that is too busy.
func (p pool) throttle(t *testing.T) (end func()) {
	t.Helper()
	levels, schemas := p.client.FlowcontrolV1().PriorityLevelConfigurations(), p.client.FlowcontrolV1().FlowSchemas()
	meta := metav1.ObjectMeta{Name: p.name}
	_, err := levels.Create(t.Context(), &flowcontrolv1.PriorityLevelConfiguration{ObjectMeta: meta, Spec: flowcontrolv1.PriorityLevelConfigurationSpec{
		Type: flowcontrolv1.PriorityLevelEnablementLimited,
		Limited: &flowcontrolv1.LimitedPriorityLevelConfiguration{
			NominalConcurrencyShares: aws.Int32(0), BorrowingLimitPercent: aws.Int32(0),
			LimitResponse: flowcontrolv1.LimitResponse{Type: flowcontrolv1.LimitResponseTypeReject},
		},
	}}, metav1.CreateOptions{})
	require.NoError(t, err)
	_, err = schemas.Create(t.Context(), &flowcontrolv1.FlowSchema{ObjectMeta: meta, Spec: flowcontrolv1.FlowSchemaSpec{
		PriorityLevelConfiguration: flowcontrolv1.PriorityLevelConfigurationReference{Name: p.name}, MatchingPrecedence: 100,
		Rules: []flowcontrolv1.PolicyRulesWithSubjects{{
			Subjects: []flowcontrolv1.Subject{{Kind: flowcontrolv1.SubjectKindUser, User: &flowcontrolv1.UserSubject{Name: "fairway"}}},
			ResourceRules: []flowcontrolv1.ResourcePolicyRule{{
				Verbs: []string{"create"}, APIGroups: []string{""}, Resources: []string{"pods/eviction"}, Namespaces: []string{p.name},
			}},
		}},
	}}, metav1.CreateOptions{})
	require.NoError(t, err)
	end = sync.OnceFunc(func() {
		require.NoError(t, schemas.Delete(cleanup(t), p.name, metav1.DeleteOptions{}))
		require.NoError(t, levels.Delete(cleanup(t), p.name, metav1.DeleteOptions{}))
	})
	t.Cleanup(end)
	return end
}

// gate is an admission webhook that all evictions in the pool's own namespace pass.
type gate struct {
	mu      sync.Mutex
	verdict verdict
	asked   map[string]int // pods, since the verdict was set
}

type verdict string

const (
	throttled   verdict = "throttled"   // 429, with Retry-After
	conflicts   verdict = "conflicts"   // 409
	unavailable verdict = "unavailable" // 503
	silent      verdict = "silent"      // no answer, until the API server gives up
	open        verdict = "open"
)

// retryAfter is what it asks for when it throttles, in seconds.
const retryAfter = 2

// set changes the verdict.
func (g *gate) set(v verdict) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.verdict, g.asked = v, map[string]int{}
}

// pods is how many different pods were asked for since the verdict was set.
func (g *gate) pods() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.asked)
}

func (g *gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var review admissionv1.AdmissionReview
	if err := json.NewDecoder(r.Body).Decode(&review); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	g.mu.Lock()
	g.asked[review.Request.Name]++
	verdict := g.verdict
	g.mu.Unlock()
	response := &admissionv1.AdmissionResponse{UID: review.Request.UID, Allowed: verdict == open}
	switch verdict {
	case throttled:
		response.Result = &metav1.Status{
			Code: http.StatusTooManyRequests, Reason: metav1.StatusReasonTooManyRequests, Message: "too many requests",
			Details: &metav1.StatusDetails{RetryAfterSeconds: retryAfter},
		}
	case conflicts:
		response.Result = &metav1.Status{Code: http.StatusConflict, Reason: metav1.StatusReasonConflict, Message: "it was changed"}
	case unavailable:
		response.Result = &metav1.Status{Code: http.StatusServiceUnavailable, Reason: metav1.StatusReasonServiceUnavailable, Message: "it is shutting down"}
	case silent:
		<-r.Context().Done()
		return
	case open:
	}
	review.Request, review.Response = nil, response
	_ = json.NewEncoder(w).Encode(review)
}

func (p pool) gate(t *testing.T) *gate {
	t.Helper()
	g := &gate{verdict: open, asked: map[string]int{}}
	server := httptest.NewTLSServer(g)
	t.Cleanup(server.Close)
	hooks := p.client.AdmissionregistrationV1().ValidatingWebhookConfigurations()
	_, err := hooks.Create(t.Context(), &admissionregistrationv1.ValidatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: p.name},
		Webhooks: []admissionregistrationv1.ValidatingWebhook{{
			Name: "gate.fairway.test", AdmissionReviewVersions: []string{"v1"}, TimeoutSeconds: aws.Int32(1),
			SideEffects:       new(admissionregistrationv1.SideEffectClassNone),
			FailurePolicy:     new(admissionregistrationv1.Fail),
			NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: p.name}},
			ClientConfig: admissionregistrationv1.WebhookClientConfig{
				URL: &server.URL, CABundle: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}),
			},
			Rules: []admissionregistrationv1.RuleWithOperations{{
				Operations: []admissionregistrationv1.OperationType{admissionregistrationv1.Create},
				Rule:       admissionregistrationv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"pods/eviction"}},
			}},
		}},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, hooks.Delete(cleanup(t), p.name, metav1.DeleteOptions{})) })
	return g
}

func TestADrainOutlastsATroubledAPIServerWithoutAStorm(t *testing.T) {
	t.Parallel()
	const pods = 6
	p := newPool(t, busy, shape{size: 1})
	w := startWorker(t, busy, gently(config.Gentleness{ImplicitBudgetPercent: new(0)})) // so that all are asked for at once
	p.makeNamespace(t)
	p.deploy(t, "app", pods, nil)
	p.awaitPods(t, "app", pods)
	g := p.gate(t)
	endThrottle := p.throttle(t)
	g.set(throttled)
	server := theLab.Fault(w.kubernetes)
	r := p.replace(t, w)

	r.awaitHeld(t, pods, "the API server refused the eviction: ")
	require.Eventually(t, func() bool { return g.pods() > 0 }, 30*time.Second, 20*time.Millisecond, "one at a time gets past the limit of requests")
	require.NoError(t, server.Cut())
	r.awaitProgress(t, func(c *assert.CollectT, progress workflows.DrainProgress) {
		assert.Contains(c, progress.Trouble, "the API server of "+busy+" does not answer")
	})
	require.NoError(t, server.Heal())

	endThrottle()
	for _, verdict := range []verdict{conflicts, unavailable, silent} {
		g.set(verdict)
		require.Eventually(t, func() bool { return g.pods() == pods }, 30*time.Second, 20*time.Millisecond, "all pods are asked for again: %s", verdict)
	}
	// Answers that come after the client has lost its patience: the evictions are granted, and
	// nobody knows.
	require.NoError(t, server.Delay(15*time.Second, 0))
	g.set(open)
	require.Eventually(t, func() bool { return g.pods() == pods }, 30*time.Second, 20*time.Millisecond)
	r.awaitProgress(t, func(c *assert.CollectT, progress workflows.DrainProgress) {
		if progress.Left > 0 { // on a slow machine all may be gone before anybody has been told
			assert.Contains(c, heldFor(progress), "the API server did not answer the eviction")
		}
	})
	require.NoError(t, server.Heal())
	r.requireDone(t)
	p.awaitPods(t, "app", pods)

	codes, last := map[int]int{}, map[string]lab.AuditEvent{}
	for _, eviction := range p.evictionsOf(t, "") {
		codes[eviction.Code]++
		if before, again := last[eviction.Name]; again {
			require.GreaterOrEqual(t, eviction.Received.Sub(before.Answered), patience(t, before)-slack,
				"pod %s is asked for again no sooner than the API server wants, and once a second at most; at %s", eviction.Name, eviction.Received)
		}
		last[eviction.Name] = eviction
	}
	t.Logf("answers to evictions: %v", codes)
	require.Len(t, last, pods)
	for _, code := range []int{http.StatusTooManyRequests, http.StatusConflict, http.StatusServiceUnavailable, http.StatusInternalServerError} {
		require.GreaterOrEqual(t, codes[code], pods, "every pod met HTTP status %d", code)
	}
}

// slack is for clocks and timers.
const slack = 50 * time.Millisecond

// patience is how long the API server wants to be left alone after an answer.
func patience(t *testing.T, answered lab.AuditEvent) time.Duration {
	t.Helper()
	wait := time.Second
	if len(answered.Response) > 0 {
		status, err := answered.Status()
		require.NoError(t, err)
		if status.Details != nil {
			wait = max(wait, time.Duration(status.Details.RetryAfterSeconds)*time.Second)
		}
	}
	return wait
}

func heldFor(progress workflows.DrainProgress) (reasons string) {
	for _, held := range progress.Waiting {
		reasons += held.Reason + "\n"
	}
	return reasons
}
