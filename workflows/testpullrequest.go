package workflows

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/fairway-project/fairway/e2e"
	"github.com/fairway-project/fairway/registry"
)

// TestPullRequest makes a cluster on the base, puts load on it, updates it to the head, runs the suites,
// says what came of it, and takes the cluster down again: whatever happens, and however long that takes. A
// test that fails is a result; an error is only what cancels the workflow. Its id is TestID.
func TestPullRequest(ctx workflow.Context, request e2e.Request) (e2e.Report, error) {
	t := newTest(ctx, request)
	if err := workflow.SetQueryHandler(ctx, ProgressQuery, func() (e2e.Report, error) { return t.Report, nil }); err != nil {
		return t.Report, err
	}
	work, stop := workflow.WithCancel(ctx)
	t.stop = stop
	if err := t.listen(ctx); err != nil {
		return t.Report, err
	}
	err := t.carryOut(work)
	interrupted := err != nil && work.Err() != nil // what is interrupted may fail otherwise, such as by the end of its worker
	stop()

	after, end := workflow.NewDisconnectedContext(ctx) // what was begun is ended, whatever happens
	defer end()
	t.conclude(after, interrupted)
	t.keep(ctx)
	t.tearDown(after)
	if t.Verdict == e2e.Cancelled && t.ended == nil {
		return t.Report, ctx.Err()
	}
	return t.Report, nil
}

// carryOut takes the test to its last suite, or to what makes the rest of it pointless.
func (t *test) carryOut(ctx workflow.Context) error {
	for _, step := range []struct {
		failed string
		do     func(workflow.Context) error
	}{
		{"Nobody knows what there is to run", t.begin},
		{"The test could not get into the queue", t.awaitPlace},
		{"The cluster could not be leased", t.lease},
		{"The cluster could not be created at the base " + short12(t.Request.Base), t.create},
		{"The workload and the load could not be started", t.startLoad},
		{"The update to the head " + short12(t.Request.Head) + " failed", t.upgrade},
		{"The suites could not be run", t.runSuites},
	} {
		if err := step.do(ctx); err != nil {
			if ctx.Err() == nil {
				t.fail("%s: %s", step.failed, sentenceOf(err))
			}
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	return nil
}

// begin has the pull request show that it is tested, before anything else.
func (t *test) begin(ctx workflow.Context) error {
	t.phase(ctx, e2e.Queued)
	err := workflow.ExecuteActivity(looking(ctx, "what is there to run"), "ListSuites").Get(ctx, &t.plan)
	t.plan.Suites = slices.DeleteFunc(t.plan.Suites, func(suite e2e.Suite) bool {
		return len(suite.Channels) > 0 && !slices.Contains(suite.Channels, t.Request.Channel)
	})
	return err
}

// awaitPlace waits for a place in one of the accounts.
func (t *test) awaitPlace(ctx workflow.Context) error {
	t.entered = true
	entering := decided(changing(ctx, "enter the queue"))
	for told := 0; ; {
		// Once more after a while, in case that the queue has lost it: twice is like once.
		if err := workflow.ExecuteActivity(entering, "EnterTestQueue", t.entry()).Get(ctx, nil); err != nil {
			return err
		}
		for again := false; !again; {
			news, err := workflow.AwaitWithOptions(ctx, workflow.AwaitOptions{
				Timeout: askForPlaceAfter, TimerOptions: workflow.TimerOptions{Summary: "ask for the place once more"},
			}, func() bool { return t.Account.Account != "" || t.Place != told })
			switch {
			case err != nil:
				return err
			case t.Account.Account != "":
				t.Place = 0
				return nil
			case news:
				told = t.Place
				t.report(ctx, briefly)
			default:
				again = true
			}
		}
	}
}

// askForPlaceAfter is how long a test hears nothing from the queue before it asks again.
const askForPlaceAfter = time.Hour

// lease writes down whose the cluster is before anything of it is made. From then on the test's time runs.
func (t *test) lease(ctx workflow.Context) error {
	t.phase(ctx, e2e.Creating)
	var lease e2e.Lease
	err := workflow.ExecuteActivity(decided(changing(ctx, "write the lease")), "LeaseCluster",
		LeaseCluster{Request: t.Request, Account: t.Account, Workflow: t.Workflow}).Get(ctx, &lease)
	if err != nil {
		t.written = !isKind(err, InvalidInput) // nobody knows whether it was
		return err
	}
	t.leased, t.written = true, true
	t.owner = lease.Owner
	t.hash = lease.Cluster.Hash() //workflowcheck:ignore -- it is the same for the same entry, whatever the order of its maps
	workflow.GoNamed(ctx, "time limit", func(ctx workflow.Context) {
		if workflow.NewTimerWithOptions(ctx, t.within(), workflow.TimerOptions{Summary: "time limit of the test"}).Get(ctx, nil) == nil {
			t.late = true
			t.stop()
		}
	})
	return nil
}

// create makes the cluster as every cluster is made.
func (t *test) create(ctx workflow.Context) error {
	_, err := t.update(ctx, UpdateClusterInput{Kind: Provision, Version: t.version(t.Request.Base)})
	return err
}

// startLoad has something run on the cluster that must not notice the upgrade.
func (t *test) startLoad(ctx workflow.Context) error {
	if !t.plan.Workload && !t.plan.Load {
		return nil
	}
	t.phase(ctx, e2e.Loading)
	if t.plan.Workload {
		if err := workflow.ExecuteActivity(t.besides(ctx, "start the workload"), "StartWorkload", t.cluster(ctx)).Get(ctx, nil); err != nil {
			return err
		}
	}
	if !t.plan.Load {
		return nil
	}
	return workflow.ExecuteActivity(t.besides(ctx, "wait for the first good answer"), "AwaitLoad", t.cluster(ctx)).Get(ctx, nil)
}

// upgrade updates the cluster to the head, which is a test itself: while load is held and budgets are watched.
func (t *test) upgrade(ctx workflow.Context) error {
	t.phase(ctx, e2e.Upgrading)
	beside, end := workflow.WithCancel(ctx)
	defer end()
	witness := workflow.ExecuteActivity(t.besides(beside, "watch pods and budgets"), "WitnessUpgrade", t.cluster(ctx))
	var load workflow.Future
	if t.plan.Load {
		load = workflow.ExecuteActivity(t.besides(beside, "hold the load"), "HoldLoad", t.cluster(ctx))
	}
	progress, err := t.update(ctx, UpdateClusterInput{Kind: Upgrade, Version: t.version(t.Request.Head), From: t.version(t.Request.Base)})
	t.updated = err == nil
	end()
	t.hearWitness(ctx, witness)
	if load != nil {
		t.hearLoad(ctx, load)
	}
	for _, pool := range progress.Pools {
		t.Upgrade.Nodes += pool.Replaced
	}
	t.Upgrade.Own = progress.Evicted
	for _, forced := range progress.Forced {
		if !slices.Contains(t.Upgrade.Forced, forced.Pod) {
			t.Upgrade.Forced = append(t.Upgrade.Forced, forced.Pod)
		}
	}
	return err
}

// hearWitness takes over what was seen of pods and budgets. Pods that were forced are only reported.
func (t *test) hearWitness(ctx workflow.Context, witness workflow.Future) {
	if _, err := takeOver(ctx, witness, &t.Upgrade); err != nil && ctx.Err() == nil {
		t.fail("Nobody knows whether budgets held during the upgrade: %s", sentenceOf(err))
	}
	if violations := t.Upgrade.Violations; len(violations) > 0 {
		var of []string
		for _, v := range violations {
			if text := fmt.Sprintf("%s (%d of %d healthy)", firstLine(v.Budget), v.Healthy, v.Desired); len(of) < toldViolations && !slices.Contains(of, text) {
				of = append(of, text)
			}
		}
		t.fail("Disruption budgets did not hold during the upgrade, %d times in all: %s.", len(violations), strings.Join(of, ", "))
	}
}

// toldViolations is how many are named in the problem; the report has all.
const toldViolations = 5

func (t *test) hearLoad(ctx workflow.Context, load workflow.Future) {
	whole, err := takeOver(ctx, load, &t.Load)
	switch {
	case ctx.Err() != nil: // whatever the load says, the test was interrupted
	case err != nil:
		t.Load.Problem = "Nobody knows what came of the load: " + sentenceOf(err)
	case !whole && t.Load.Problem == "" && (t.Load.Bad > 0 || t.Load.Good == 0):
		t.Load.Problem = fmt.Sprintf("A worker was lost while the load ended, so nobody has judged it: %d requests were answered well, %d were not.", t.Load.Good, t.Load.Bad)
	}
	if t.Load.Problem != "" {
		t.fail("The load noticed the upgrade: %s", t.Load.Problem)
	}
}

// takeOver waits for the end of what was cancelled. Where a worker was lost at that moment, there is what
// it said last; it is not whole then.
func takeOver(ctx workflow.Context, future workflow.Future, into any) (whole bool, err error) {
	err = future.Get(ctx, into)
	var lost *temporal.TimeoutError
	if errors.As(err, &lost) && lost.HasLastHeartbeatDetails() {
		return false, lost.LastHeartbeatDetails(into)
	}
	return err == nil, err
}

// runSuites runs all suites, some at a time. One that fails keeps no other from running.
func (t *test) runSuites(ctx workflow.Context) error {
	t.phase(ctx, e2e.Testing)
	results := make([]*e2e.SuiteResult, len(t.plan.Suites))
	free, wait := workflow.NewSemaphore(ctx, int64(max(1, t.plan.Parallel))), workflow.NewWaitGroup(ctx)
	for i, suite := range t.plan.Suites {
		wait.Add(1)
		workflow.GoNamed(ctx, "suite "+suite.Name, func(ctx workflow.Context) {
			defer wait.Done()
			if free.Acquire(ctx, 1) != nil {
				return
			}
			result := t.runSuite(ctx, suite)
			free.Release(1)
			if ctx.Err() != nil {
				return
			}
			results[i] = &result
			t.Suites = slices.Collect(present(results))
			t.report(ctx, briefly)
		})
	}
	wait.Wait(ctx)
	if err := ctx.Err(); err != nil {
		return err
	}
	for _, result := range t.Suites {
		if !result.Passed && !result.Optional {
			t.fail("Suite %s failed: %s", result.Name, suiteProblem(result))
		}
	}
	return nil
}

// present are the results that there are, in the order of the suites.
func present(results []*e2e.SuiteResult) func(yield func(e2e.SuiteResult) bool) {
	return func(yield func(e2e.SuiteResult) bool) {
		for _, result := range results {
			if result != nil && !yield(*result) {
				return
			}
		}
	}
}

func (t *test) runSuite(ctx workflow.Context, suite e2e.Suite) (result e2e.SuiteResult) {
	began := workflow.Now(ctx)
	err := workflow.ExecuteActivity(t.running(ctx, suite), "RunSuite", RunSuite{Request: t.Request, Suite: suite}).Get(ctx, &result)
	if err != nil {
		result = e2e.SuiteResult{Problem: "It could not be run: " + sentenceOf(err), Took: workflow.Now(ctx).Sub(began)}
	}
	result.Name, result.Optional = suite.Name, suite.Optional
	result.Failures = result.Failures[:min(len(result.Failures), e2e.MostFailures)]
	return result
}

func suiteProblem(result e2e.SuiteResult) string {
	if result.Problem != "" {
		return result.Problem
	}
	return fmt.Sprintf("%d of %d cases.", result.Failed, result.Ran)
}

// running is for a suite. One that does not heartbeat any more is begun anew, but not for ever.
func (t *test) running(ctx workflow.Context, suite e2e.Suite) workflow.Context {
	policy := *patient
	policy.InitialInterval, policy.MaximumInterval, policy.MaximumAttempts = 10*time.Second, time.Minute, 8
	policy.NonRetryableErrorTypes = beyondRetry
	return workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		ScheduleToCloseTimeout: t.within(), // from the beginning of the test on a timer bounds it already
		HeartbeatTimeout:       heartbeatTimeout,
		WaitForCancellation:    true,
		RetryPolicy:            &policy,
		Summary:                "suite " + suite.Name,
	})
}

// besides is for what heartbeats and lasts as long as a part of the test.
func (t *test) besides(ctx workflow.Context, summary string) workflow.Context {
	return decided(watching(ctx, summary, t.within()+time.Hour))
}

// update runs UpdateCluster to its end, a cancelled one too. One that is left of a run of this test that
// somebody has terminated is ended first.
func (t *test) update(ctx workflow.Context, in UpdateClusterInput) (progress UpdateProgress, err error) {
	id := UpdateClusterID(t.Request.Cluster)
	in.Cluster, in.By, in.Reason, in.Attempt = t.Request.Cluster, t.Request.By, t.what(), max(1, in.Attempt)
	for {
		child := workflow.ExecuteChildWorkflow(asChild(ctx, id, fmt.Sprintf("%s %s to %s", in.Kind, in.Cluster, short(in.Version)), t.attributes()), UpdateCluster, in)
		if err := child.GetChildWorkflowExecution().Get(ctx, nil); !temporal.IsWorkflowExecutionAlreadyStartedError(err) {
			return progress, child.Get(ctx, &progress)
		}
		if err := workflow.RequestCancelExternalWorkflow(ctx, id, "").Get(ctx, nil); err != nil {
			workflow.GetLogger(ctx).Info("an update that runs already was not cancelled; it may have ended", "error", err)
		}
		options := workflow.GetActivityOptions(waiting(ctx, "wait for the end of an update of an earlier run"))
		options.ScheduleToCloseTimeout = rollEndsWithin
		if err := workflow.ExecuteActivity(workflow.WithActivityOptions(ctx, options), "AwaitEnd", AwaitEnd{Workflow: id}).Get(ctx, nil); err != nil {
			return progress, err
		}
	}
}

// version is a commit for this cluster. Its entry is the same all the time.
func (t *test) version(commit string) string { return commit + "#" + t.hash }

func (t *test) cluster(ctx workflow.Context) OnTestCluster {
	return OnTestCluster{Cluster: t.Request.Cluster, Since: workflow.Now(ctx)}
}

func (t *test) entry() TestQueueEntry { return TestQueueEntry{Request: t.Request, Since: t.began} }

func (t *test) lifecycle(status registry.LifecycleStatus) ChangeLease {
	return ChangeLease{Cluster: t.Request.Cluster, Account: t.Account, Lifecycle: string(status)}
}

// sentenceOf is what an activity or a child said, as the end of a sentence.
func sentenceOf(err error) string {
	reason := reasonOf(err)
	if temporal.IsCanceledError(err) {
		reason = "somebody cancelled it"
	}
	return strings.TrimSuffix(clip(strings.TrimSpace(reason), 1000), ".") + "."
}
