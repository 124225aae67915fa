package workflows

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/fairway-project/fairway/e2e"
	"github.com/fairway-project/fairway/registry"
)

// conclude says what came of the test. The forge hears of it now: people need not wait until the cluster is gone.
func (t *test) conclude(ctx workflow.Context, interrupted bool) {
	t.concluded = workflow.Now(ctx)
	switch {
	case interrupted && t.late:
		t.fail("It took longer than %s, while it was %s.", t.within(), t.Phase)
		t.Verdict = e2e.Failed
	case interrupted:
		t.Verdict, t.Problem = e2e.Cancelled, t.whyEnded()
	case t.Problem != "":
		t.Verdict = e2e.Failed
	default:
		t.Verdict = e2e.Passed
	}
	t.Place = 0
	t.closePhase(ctx)
	t.kept = t.concluded.Add(t.keepFor)
	if t.Verdict == e2e.Failed {
		t.keptUntil(t.concluded.Add(min(cmp.Or(t.Request.Keep, t.plan.KeepFailed), t.keepAtMost())))
	}
	if t.leased {
		t.estimate(ctx)
		if err := workflow.ExecuteActivity(bounded(ctx, "store the report", briefly), "StoreReport", t.Report).Get(ctx, &t.Results); err != nil {
			workflow.GetLogger(ctx).Warn("the report was not stored", "error", err)
		}
	}
	t.report(ctx, atLength)
}

// whyEnded is why somebody has ended the test.
func (t *test) whyEnded() string {
	if t.ended == nil {
		return "Somebody cancelled the workflow."
	}
	if t.ended.By == "" {
		return "It was ended: " + t.ended.Why + "."
	}
	return fmt.Sprintf("%s ended it: %s.", t.ended.By, t.ended.Why)
}

func (t *test) estimate(ctx workflow.Context) {
	var cost e2e.Cost
	if err := workflow.ExecuteActivity(bounded(ctx, "what has it cost", briefly), "EstimateCost", t.lifecycle("")).Get(ctx, &cost); err != nil {
		workflow.GetLogger(ctx).Warn("nobody knows what the test has cost", "error", err)
		return
	}
	t.Cost = cost
}

// keep leaves the cluster to people for a time that cannot be forgotten. Whoever cancels the workflow, or ends
// the test at once, has had enough of it.
func (t *test) keep(ctx workflow.Context) {
	told := time.Time{}
	for t.leased && !t.now && ctx.Err() == nil && t.kept.After(workflow.Now(ctx)) {
		if !t.kept.Equal(told) {
			told = t.kept
			t.Kept = t.kept
			t.keepLease(ctx)
			t.phase(ctx, e2e.Kept)
			continue // that may have taken a while
		}
		if _, err := workflow.AwaitWithOptions(ctx, workflow.AwaitOptions{
			Timeout: t.kept.Sub(workflow.Now(ctx)), TimerOptions: workflow.TimerOptions{Summary: "the cluster is kept until then"},
		}, func() bool { return t.now || !t.kept.Equal(told) }); err != nil {
			break
		}
	}
	t.removing = true
	t.Kept = time.Time{}
	if !told.IsZero() {
		after, end := workflow.NewDisconnectedContext(ctx)
		defer end()
		t.estimate(after)
	}
}

// keepLease has the sweep know of it.
func (t *test) keepLease(ctx workflow.Context) {
	change := t.lifecycle("")
	change.Kept = t.kept
	if err := workflow.ExecuteActivity(bounded(ctx, "write until when the cluster is kept", atLength), "ChangeLease", change).Get(ctx, nil); err != nil {
		workflow.GetLogger(ctx).Error("the lease does not say that the cluster is kept", "error", err)
	}
}

// tearDown takes down all that was made, however often that has to be tried. People are told when it looks as
// if they had to help.
func (t *test) tearDown(ctx workflow.Context) {
	if t.leased {
		t.phase(ctx, e2e.Removing)
	}
	for attempt, pause := 1, firstRemovalPause; t.leased; attempt++ {
		wanted := t.wanted
		err := t.remove(ctx, attempt)
		if err == nil {
			break
		}
		if left := sentenceOf(err); left != t.Left {
			t.Left = left
			t.tell(ctx)
			t.report(ctx, briefly)
		}
		if attempt == toldAtAttempt {
			t.notify(ctx, TestNotTornDown, fmt.Sprintf("Cluster %s of %s could not be torn down in %d attempts, and what is left of it costs money: %s It is tried again for ever, and at once after `fairway e2e destroy %s --reason ...`.",
				t.Request.Cluster, t.what(), attempt, t.Left, t.Request.ID))
		}
		// It fails only if it is cancelled, which this context is not.
		if asked, _ := workflow.AwaitWithOptions(ctx, workflow.AwaitOptions{
			Timeout: pause, TimerOptions: workflow.TimerOptions{Summary: "tear down once more"},
		}, func() bool { return t.wanted > wanted }); asked {
			pause = firstRemovalPause
		} else {
			pause = min(2*pause, mostRemovalPause)
		}
	}
	t.Left = ""
	if t.written {
		t.must(ctx, "end the lease", "EndLease", t.lifecycle(""))
	}
	if t.entered {
		t.must(ctx, "give the place back", "LeaveTestQueue", t.entry())
	}
	t.phases(ctx, e2e.Done)
	t.closePhase(ctx)
	t.report(ctx, patiently)
}

// A teardown that failed is tried again after firstRemovalPause, and after twice as long each time: at last so
// seldom that most of a year fits into the history. Whoever has mended what was in its way says so, by asking for the end of
// the test again. People are told of the failure of attempt toldAtAttempt.
const (
	firstRemovalPause = 30 * time.Second
	mostRemovalPause  = 4 * time.Hour
	toldAtAttempt     = 3
)

// remove decommissions the cluster as every cluster is decommissioned.
func (t *test) remove(ctx workflow.Context, attempt int) error {
	err := workflow.ExecuteActivity(bounded(ctx, "the cluster is to go", atLength), "ChangeLease", t.lifecycle(registry.DecommissionRequested)).Get(ctx, nil)
	if isKind(err, ClusterNotFound) {
		return nil // a lease goes last: the sweep has done it all
	}
	if err != nil {
		return err
	}
	has := t.version(t.Request.Base)
	if t.updated {
		has = t.version(t.Request.Head)
	}
	_, err = t.update(ctx, UpdateClusterInput{Kind: Decommission, Version: has, From: has, Attempt: attempt})
	return err
}

// must has something done at the end that nothing may be left without.
func (t *test) must(ctx workflow.Context, summary, activity string, in any) {
	policy := *patient
	policy.MaximumInterval = time.Minute
	options := workflow.GetActivityOptions(changing(ctx, summary))
	options.RetryPolicy = &policy
	if err := workflow.ExecuteActivity(workflow.WithActivityOptions(ctx, options), activity, in).Get(ctx, nil); err != nil {
		workflow.GetLogger(ctx).Error("something of a test is left", "activity", activity, "error", err)
		t.Left = strings.TrimSpace(t.Left + " " + activity + ": " + sentenceOf(err))
	}
}

func (t *test) notify(ctx workflow.Context, kind, text string) {
	notifyPeople(ctx, Notification{
		ID: t.Workflow + "/" + t.Run + "/" + kind, Kind: kind, Cluster: t.Request.Cluster, Channel: t.Request.Channel, Owner: t.owner, Text: text, At: workflow.Now(ctx),
	})
}

// notifyPeople tells people. A hook that does not answer holds nothing up.
func notifyPeople(ctx workflow.Context, n Notification) {
	ctx = workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		StartToCloseTimeout: 10 * time.Second, ScheduleToCloseTimeout: 30 * time.Second, RetryPolicy: patient, Summary: "tell people: " + n.Kind,
	})
	if err := workflow.ExecuteActivity(ctx, "Notify", n).Get(ctx, nil); err != nil {
		workflow.GetLogger(ctx).Warn("nobody was told", "kind", n.Kind, "error", err)
	}
}

// bounded is for what is good to have, and nothing waits for longer than that.
func bounded(ctx workflow.Context, summary string, atMost time.Duration) workflow.Context {
	policy := *patient
	policy.MaximumInterval = time.Minute
	policy.NonRetryableErrorTypes = []string{InvalidInput, ClusterNotFound}
	return workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		StartToCloseTimeout: time.Minute, ScheduleToCloseTimeout: atMost, WaitForCancellation: true, RetryPolicy: &policy, Summary: summary,
	})
}

// For how long something is tried that a test can do without: in the middle of it, where much depends on it, and
// when nothing comes after it.
const (
	briefly   = time.Minute
	atLength  = 5 * time.Minute
	patiently = time.Hour
)

// keepUpdate is the handler of KeepTestName. It answers with the moment until which the cluster is kept, if the
// test has ended already.
func (t *test) keepUpdate(ctx workflow.Context, in KeepTest) (until time.Time, err error) {
	if err := t.mayKeep(ctx, in); err != nil { // once more: another one may have come since
		return until, err
	}
	if t.Verdict == "" {
		t.keepFor = max(t.keepFor, in.For)
		return until, nil
	}
	t.keptUntil(workflow.Now(ctx).Add(in.For))
	return t.kept, nil
}

// mayKeep says why a cluster cannot be kept as somebody asks for.
func (t *test) mayKeep(ctx workflow.Context, in KeepTest) error {
	most := t.keepAtMost()
	if !t.concluded.IsZero() {
		most -= workflow.Now(ctx).Sub(t.concluded)
	}
	var problem string
	switch {
	case in.For <= 0:
		problem = fmt.Sprintf("say for how long the cluster is to be kept, such as 2h; at most %s", t.keepAtMost())
	case t.removing || t.Verdict != "" && !t.leased:
		problem = "the cluster is being torn down already, or there is none; run the test again and ask earlier"
	case in.For > most:
		problem = fmt.Sprintf("clusters are kept for at most %s after the end of their test (e2e.keep_at_most); ask for at most %s", t.keepAtMost(), max(0, most.Truncate(time.Second)))
	default:
		return nil
	}
	return temporal.NewApplicationError(problem, InvalidInput)
}

func (t *test) keepAtMost() time.Duration {
	return cmp.Or(t.plan.KeepAtMost, e2e.Defaults().KeepAtMost)
}

func (t *test) keptUntil(until time.Time) {
	if until.After(t.kept) {
		t.kept = until
	}
}
