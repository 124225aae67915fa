package workflows

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/fairway-project/fairway/e2e"
)

// test is the state of TestPullRequest. All of its fields are set by workflow code only.
type test struct {
	e2e.Report
	plan  SuitesToRun
	began time.Time
	// stop interrupts what is carried out; late means that it took too long, ended that somebody has had enough.
	stop  workflow.CancelFunc
	late  bool
	ended *EndTest
	// now means that nobody wants the cluster any more, whoever has asked for it before.
	now bool
	// wanted counts how often somebody has asked for that.
	wanted int
	// entered and leased say what there is to give back; written that there may be a lease, without anything made.
	entered, leased, written bool
	// hash is that of the cluster's entry; updated means that it has the head.
	hash, owner string
	updated     bool
	// concluded is when there was a verdict. Clusters are kept until kept; before there is a verdict, for keepFor after it.
	concluded, kept time.Time
	keepFor         time.Duration
	removing        bool
	reporting       workflow.Mutex
}

func newTest(ctx workflow.Context, request e2e.Request) *test {
	info := workflow.GetInfo(ctx).WorkflowExecution
	return &test{
		Report: e2e.Report{Request: request, Phases: []e2e.PhaseTime{}, Workflow: info.ID, Run: info.RunID},
		began:  workflow.Now(ctx), reporting: workflow.NewMutex(ctx),
	}
}

func (t *test) listen(ctx workflow.Context) error {
	if err := workflow.SetUpdateHandlerWithOptions(ctx, KeepTestName, t.keepUpdate, workflow.UpdateHandlerOptions{
		Validator: t.mayKeep, Description: "keep the cluster for a time after the end of the test, or for longer",
	}); err != nil {
		return err
	}
	selector := workflow.NewSelector(ctx)
	hear(ctx, selector, TestPlaceName, func(place TestPlace) {
		if t.Account.Account != "" || t.Verdict != "" {
			return // a cluster is made in one account only
		}
		t.Place = max(0, place.Place)
		if place.Given != nil {
			t.Account = *place.Given
		}
	})
	hearAny(ctx, selector, EndTestName, func(end EndTest, err error) {
		if err != nil { // maybe sent by hand: it is to end, whatever the reason
			end = EndTest{Why: "for a reason that was not understood"}
		}
		if end.Now {
			t.now = true
			t.wanted++
		}
		if t.ended == nil {
			end.Why, end.By = strings.TrimSuffix(cmp.Or(firstLine(end.Why), "no reason given"), "."), firstLine(end.By)
			t.ended = &end
		}
		t.stop()
	})
	workflow.GoNamed(ctx, "signals", func(ctx workflow.Context) {
		for {
			selector.Select(ctx)
		}
	})
	return nil
}

// fail adds a problem. The first one comes first.
func (t *test) fail(format string, args ...any) {
	t.Problem = clip(strings.TrimSpace(t.Problem+" "+fmt.Sprintf(format, args...)), mostTestProblem)
}

// mostTestProblem bounds what a comment says of why a test failed.
const mostTestProblem = 4000

// within bounds the test, from its lease to the last suite.
func (t *test) within() time.Duration { return cmp.Or(t.plan.Within, e2e.Defaults().Within) }

// phase begins another part of the test, and has the pull request show it.
func (t *test) phase(ctx workflow.Context, phase string) {
	t.phases(ctx, phase)
	t.report(ctx, briefly)
}

func (t *test) phases(ctx workflow.Context, phase string) {
	if t.Phase != phase {
		t.closePhase(ctx)
		t.Phase = phase
		t.Phases = append(t.Phases, e2e.PhaseTime{Phase: phase, Began: workflow.Now(ctx)})
		// It fails only if the namespace lacks the attributes, which the worker checks at its start.
		_ = workflow.UpsertTypedSearchAttributes(ctx, PhaseAttribute.ValueSet(phase), ClusterAttribute.ValueSet(t.Request.Cluster),
			ChannelAttribute.ValueSet(t.Request.Channel), EnvironmentAttribute.ValueSet(testEnvironment))
	}
	t.tell(ctx)
}

func (t *test) closePhase(ctx workflow.Context) {
	if last := len(t.Phases) - 1; last >= 0 && t.Phases[last].Ended.IsZero() {
		t.Phases[last].Ended = workflow.Now(ctx)
	}
}

// report has the forge show where the test stands. One report comes after the other, so that no older one is the
// last; and none holds the test up for long, or is a reason to fail.
func (t *test) report(ctx workflow.Context, atMost time.Duration) {
	ctx, end := workflow.NewDisconnectedContext(ctx)
	defer end()
	if t.reporting.Lock(ctx) != nil {
		return
	}
	defer t.reporting.Unlock()
	t.tell(ctx)
	options := workflow.GetActivityOptions(bounded(ctx, "show it on the pull request", atMost))
	options.HeartbeatTimeout = heartbeatTimeout // it beats, so a worker that is lost holds the test up for no longer
	if err := workflow.ExecuteActivity(workflow.WithActivityOptions(ctx, options), "ReportTest", t.Report).Get(ctx, nil); err != nil {
		workflow.GetLogger(ctx).Warn("the pull request does not show where its test stands", "error", err)
	}
}

// tell shows people where the test stands; that costs no event.
func (t *test) tell(ctx workflow.Context) { workflow.SetCurrentDetails(ctx, t.details()) }

func (t *test) details() string {
	text := fmt.Sprintf("The test of %s from `%s` to `%s` for channel `%s` is **%s**", t.what(), short12(t.Request.Base), short12(t.Request.Head), t.Request.Channel, t.Phase)
	if t.Place > 0 {
		text += fmt.Sprintf(", at place %d of the queue", t.Place)
	}
	text += "."
	if t.leased {
		text += fmt.Sprintf(" Its cluster is %s in account %s.", t.Request.Cluster, t.Account.Account)
	}
	if t.Verdict != "" {
		text += fmt.Sprintf(" It has **%s**.", map[e2e.Verdict]string{e2e.Passed: "passed", e2e.Failed: "failed", e2e.Cancelled: "been cancelled"}[t.Verdict])
	}
	if t.Problem != "" {
		text += " " + t.Problem
	}
	if !t.Kept.IsZero() {
		text += fmt.Sprintf(" The cluster is kept until %s.", t.Kept.UTC().Format(time.RFC3339))
	}
	if t.Left != "" {
		text += " It could not be torn down yet: " + t.Left
	}
	if t.Request.By != "" {
		text += fmt.Sprintf(" %s asked for it.", firstLine(t.Request.By))
	}
	return text
}

// what is tested, in words.
func (t *test) what() string {
	if t.Request.Number == 0 {
		return "commit " + short12(t.Request.Head)
	}
	return fmt.Sprintf("pull request #%d", t.Request.Number)
}

// testEnvironment is the search attribute Environment of tests and of what they start.
const testEnvironment = "test"

func (t *test) attributes() temporal.SearchAttributes { return TestAttributes(t.Request) }

// TestAttributes are the search attributes of a test.
func TestAttributes(request e2e.Request) temporal.SearchAttributes {
	return temporal.NewSearchAttributes(ClusterAttribute.ValueSet(request.Cluster), ChannelAttribute.ValueSet(request.Channel), EnvironmentAttribute.ValueSet(testEnvironment))
}

// TestSummary is the static summary of a test.
func TestSummary(request e2e.Request) string {
	if request.Number == 0 {
		return fmt.Sprintf("test %s for %s", short12(request.Head), request.Channel)
	}
	return fmt.Sprintf("test pull request #%d for %s", request.Number, request.Channel)
}
