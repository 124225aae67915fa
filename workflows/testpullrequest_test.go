package workflows_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/workflow"

	"github.com/fairway-project/fairway/e2e"
	"github.com/fairway-project/fairway/registry"
	"github.com/fairway-project/fairway/workflows"
)

var wish = e2e.Request{ID: "12/2222222222aa", Cluster: "e2e-12-2222222", Number: 12, Author: "ann", By: "ben", Channel: "dev", Base: "1111111111aa", Head: "2222222222aa"}

// proving is everything that a test on a throw-away cluster deals with. It writes down what is done, in order.
type proving struct {
	mu      sync.Mutex
	story   []string // first attempts; reports apart
	reports []e2e.Report
	told    []workflows.Notification
	updates []workflows.UpdateClusterInput
	leases  []workflows.ChangeLease
	left    []workflows.TestQueueEntry
	most    int // suites at a time
	running int

	plan    workflows.SuitesToRun
	places  []workflows.TestPlace // signalled after entering the queue, one a second
	load    e2e.LoadResult
	upgrade e2e.Upgrade
	suites  map[string]e2e.SuiteResult
	// lasts is how long each call takes that is an update or a suite.
	lasts time.Duration
	// fail makes a call return an error; calls are named as in the story.
	fail func(call string) error
}

var (
	_ workflows.TestQueues    = (*proving)(nil)
	_ workflows.TestClusters  = (*proving)(nil)
	_ workflows.TestWorkloads = (*proving)(nil)
	_ workflows.TestSuites    = (*proving)(nil)
	_ workflows.Notifications = (*proving)(nil)
	_ workflows.Rolls         = (*proving)(nil)
)

func newProving() *proving {
	return &proving{
		plan: workflows.SuitesToRun{
			Suites: []e2e.Suite{{Name: "conformance"}, {Name: "smoke"}}, Parallel: 1, Within: 6 * time.Hour, Load: true, Workload: true, KeepAtMost: 24 * time.Hour,
		},
		places: []workflows.TestPlace{{Given: &e2e.Account{Account: "aws:1", Region: "eu"}}},
		load:   e2e.LoadResult{Good: 5000}, upgrade: e2e.Upgrade{Evictions: 7, Forced: []string{"shop/cart-0"}},
		suites: map[string]e2e.SuiteResult{"conformance": {Passed: true, Ran: 60}, "smoke": {Passed: true, Ran: 3}}, lasts: 10 * time.Minute,
	}
}

func (p *proving) call(ctx context.Context, format string, args ...any) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	call := fmt.Sprintf(format, args...)
	if activity.GetInfo(ctx).Attempt == 1 {
		p.story = append(p.story, call)
	}
	return p.failing(call)
}

func (p *proving) failing(call string) error {
	if p.fail == nil {
		return nil
	}
	return p.fail(call)
}

func (p *proving) ReportTest(_ context.Context, report e2e.Report) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.reports = append(p.reports, report)
	return p.failing("report")
}

func (p *proving) EnterTestQueue(ctx context.Context, _ workflows.TestQueueEntry) error {
	return p.call(ctx, "enter")
}

func (p *proving) LeaveTestQueue(ctx context.Context, in workflows.TestQueueEntry) error {
	p.mu.Lock()
	p.left = append(p.left, in)
	p.mu.Unlock()
	return p.call(ctx, "leave")
}

func (p *proving) LeaseCluster(ctx context.Context, in workflows.LeaseCluster) (e2e.Lease, error) {
	return e2e.Lease{Cluster: p.entry(), Workflow: in.Workflow, Owner: "team", Request: in.Request}, p.call(ctx, "lease in %s", in.Account.Account)
}

func (*proving) entry() registry.Cluster {
	return registry.Cluster{ID: wish.Cluster, Channel: "dev", Environment: "test", LifecycleStatus: registry.Requested}
}

func (p *proving) ChangeLease(ctx context.Context, in workflows.ChangeLease) (e2e.Lease, error) {
	p.mu.Lock()
	p.leases = append(p.leases, in)
	p.mu.Unlock()
	if in.Lifecycle == "" {
		return e2e.Lease{}, p.call(ctx, "keep until %s", in.Kept.UTC().Format("15:04"))
	}
	return e2e.Lease{}, p.call(ctx, "%s", in.Lifecycle)
}

func (p *proving) EndLease(ctx context.Context, _ workflows.ChangeLease) error {
	return p.call(ctx, "end lease")
}

func (p *proving) EstimateCost(ctx context.Context, _ workflows.ChangeLease) (e2e.Cost, error) {
	return e2e.Cost{Amount: 3, Currency: "USD"}, p.call(ctx, "cost")
}

func (p *proving) StartWorkload(ctx context.Context, _ workflows.OnTestCluster) error {
	return p.call(ctx, "workload")
}

func (p *proving) AwaitLoad(ctx context.Context, _ workflows.OnTestCluster) error {
	return p.call(ctx, "await load")
}

// HoldLoad and WitnessUpgrade end before they are cancelled: this environment knows no results of cancelled
// activities. They are no part of the story, since they run beside the upgrade.
func (p *proving) HoldLoad(context.Context, workflows.OnTestCluster) (e2e.LoadResult, error) {
	return p.load, p.failing("load")
}

func (p *proving) WitnessUpgrade(context.Context, workflows.OnTestCluster) (e2e.Upgrade, error) {
	return p.upgrade, p.failing("witness")
}

func (p *proving) ListSuites(ctx context.Context) (workflows.SuitesToRun, error) {
	return p.plan, p.call(ctx, "list suites")
}

func (p *proving) RunSuite(ctx context.Context, in workflows.RunSuite) (e2e.SuiteResult, error) {
	p.mu.Lock()
	p.running++
	p.most = max(p.most, p.running)
	p.mu.Unlock()
	defer func() { p.mu.Lock(); p.running--; p.mu.Unlock() }()
	time.Sleep(10 * time.Millisecond) // for others to begin, if they may
	return p.suites[in.Suite.Name], p.call(ctx, "suite %s", in.Suite.Name)
}

func (p *proving) StoreReport(ctx context.Context, _ e2e.Report) (string, error) {
	return "s3://results/12", p.call(ctx, "store")
}

func (p *proving) Notify(_ context.Context, in workflows.Notification) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.told = append(p.told, in)
	return nil
}

func (p *proving) AwaitEnd(ctx context.Context, in workflows.AwaitEnd) error {
	return p.call(ctx, "await end of %s", in.Workflow)
}

// updateCluster is registered in place of the real one.
func (p *proving) updateCluster(ctx workflow.Context, in workflows.UpdateClusterInput) (workflows.UpdateProgress, error) {
	p.mu.Lock()
	p.updates = append(p.updates, in)
	call := fmt.Sprintf("%s to %s", in.Kind, in.Version[:1])
	p.story = append(p.story, call)
	err := p.failing(call)
	p.mu.Unlock()
	lasts := p.lasts
	if in.Kind == "earlier" {
		lasts = 1000 * time.Hour
	}
	if slept := workflow.Sleep(ctx, lasts); slept != nil {
		disconnected, stop := workflow.NewDisconnectedContext(ctx)
		defer stop()
		_ = workflow.Sleep(disconnected, time.Minute) // it undoes something first
		p.mu.Lock()
		p.story = append(p.story, call+" was cancelled")
		p.mu.Unlock()
		return workflows.UpdateProgress{}, slept
	}
	return workflows.UpdateProgress{Evicted: 5, Pools: []workflows.PoolProgress{{Replaced: 2}, {Replaced: 1}}, Forced: []workflows.ForcedPod{{Pod: "shop/cart-0"}, {Pod: "shop/cart-1"}}}, err
}

func (p *proving) environment() *testsuite.TestWorkflowEnvironment {
	var suite testsuite.WorkflowTestSuite
	env := suite.NewTestWorkflowEnvironment()
	env.SetTestTimeout(20 * time.Second)
	env.SetStartTime(noon)
	env.RegisterActivity(p)
	env.RegisterWorkflow(workflows.TestPullRequest)
	env.RegisterWorkflowWithOptions(p.updateCluster, workflow.RegisterOptions{Name: "UpdateCluster"})
	env.SetStartWorkflowOptions(client.StartWorkflowOptions{ID: workflows.TestID(wish.ID), TaskQueue: "test"})
	for i, place := range p.places {
		env.RegisterDelayedCallback(func() { env.SignalWorkflow(workflows.TestPlaceName, place) }, time.Duration(i+1)*time.Second)
	}
	return env
}

// test runs a test to its end.
func (p *proving) test(t *testing.T, request e2e.Request, set ...func(*testsuite.TestWorkflowEnvironment)) (e2e.Report, error) {
	t.Helper()
	env := p.environment()
	for _, each := range set {
		each(env)
	}
	env.ExecuteWorkflow(workflows.TestPullRequest, request)
	require.True(t, env.IsWorkflowCompleted())
	answer, err := env.QueryWorkflow(workflows.ProgressQuery)
	require.NoError(t, err)
	var report e2e.Report
	require.NoError(t, answer.Get(&report))
	err = env.GetWorkflowError()
	if err == nil {
		var result e2e.Report
		require.NoError(t, env.GetWorkflowResult(&result))
		require.Equal(t, report, result)
	}
	require.Equal(t, e2e.Done, report.Phase)
	require.Empty(t, report.Left)
	require.Equal(t, report, p.reports[len(p.reports)-1], "the pull request shows the end")
	for _, phase := range report.Phases {
		require.False(t, phase.Ended.IsZero(), phase.Phase)
	}
	return report, err
}

func phasesOf(report e2e.Report) (names []string) {
	for _, phase := range report.Phases {
		names = append(names, phase.Phase)
	}
	return names
}

func endIt(end workflows.EndTest) func(*testsuite.TestWorkflowEnvironment) {
	return func(env *testsuite.TestWorkflowEnvironment) { env.SignalWorkflow(workflows.EndTestName, end) }
}

// teardown is the end of every story in which there was a lease.
var teardown = []string{"decommission-requested", "decommission to 2", "end lease", "leave"}

func TestAPullRequestIsTestedFromTheQueueToTheTeardown(t *testing.T) {
	p := newProving()
	report, err := p.test(t, wish)
	require.NoError(t, err)
	require.Equal(t, append([]string{
		"list suites", "enter", "lease in aws:1", "provision to 1", "workload", "await load", "update to 2", "suite conformance", "suite smoke", "cost", "store",
	}, teardown...), p.story)
	require.Equal(t, []string{e2e.Queued, e2e.Creating, e2e.Loading, e2e.Upgrading, e2e.Testing, e2e.Removing, e2e.Done}, phasesOf(report))
	require.Equal(t, e2e.Passed, report.Verdict)
	require.Empty(t, report.Problem)
	require.Equal(t, e2e.Upgrade{Nodes: 3, Own: 5, Evictions: 7, Forced: []string{"shop/cart-0", "shop/cart-1"}}, report.Upgrade, "forced pods are reported only")
	require.Equal(t, p.load, report.Load)
	require.Equal(t, "s3://results/12", report.Results)
	require.Equal(t, 3.0, report.Cost.Amount)
	require.Equal(t, []string{"conformance", "smoke"}, []string{report.Suites[0].Name, report.Suites[1].Name})
	require.Equal(t, "e2e/12/2222222222aa", report.Workflow)
	require.Equal(t, 1, p.most, "suites one after another")
	require.Empty(t, p.told)

	hash := p.entry().Hash()
	require.Equal(t, workflows.UpdateClusterInput{Cluster: wish.Cluster, Kind: workflows.Provision, Version: wish.Base + "#" + hash, By: "ben", Reason: "pull request #12", Attempt: 1}, p.updates[0])
	require.Equal(t, wish.Base+"#"+hash, p.updates[1].From)
	require.Equal(t, wish.Head+"#"+hash, p.updates[1].Version)
	require.Equal(t, wish.Head+"#"+hash, p.updates[2].From, "it is decommissioned as what it is")
}

func TestAPullRequestShowsItsTestFromTheFirstMomentAndTheVerdictBeforeTheTeardown(t *testing.T) {
	p := newProving()
	_, err := p.test(t, wish)
	require.NoError(t, err)
	require.Equal(t, e2e.Queued, p.reports[0].Phase)
	require.Empty(t, p.reports[0].Verdict)
	require.Equal(t, noon, p.reports[0].Phases[0].Began.UTC())
	at := slices.IndexFunc(p.reports, func(r e2e.Report) bool { return r.Verdict == e2e.Passed })
	require.Equal(t, e2e.Testing, p.reports[at].Phase, "nobody waits for the teardown")
	require.Equal(t, "s3://results/12", p.reports[at].Results)
	require.Len(t, p.reports[at-1].Suites, 2, "suites are shown as they end")
	require.Len(t, p.reports[at-2].Suites, 1)
}

func TestAPlaceInTheQueueIsShownEachTimeItChanges(t *testing.T) {
	p := newProving()
	p.places = append([]workflows.TestPlace{{Place: 3}, {Place: 3}, {Place: 1}}, p.places...)
	_, err := p.test(t, wish)
	require.NoError(t, err)
	var places []int
	for _, report := range p.reports {
		if report.Phase == e2e.Queued {
			places = append(places, report.Place)
		}
	}
	require.Equal(t, []int{0, 3, 1}, places)
}

func TestATestThatHearsNothingFromTheQueueAsksAgain(t *testing.T) {
	p := newProving()
	place := p.places[0]
	p.places = nil
	_, err := p.test(t, wish, after(150*time.Minute, func(env *testsuite.TestWorkflowEnvironment) { env.SignalWorkflow(workflows.TestPlaceName, place) }))
	require.NoError(t, err)
	require.Equal(t, 3, count(p.story, "enter"))
}

func TestWhatFailsIsTheResultAndEverythingIsTornDown(t *testing.T) {
	fails := func(call, kind string) func(*proving) {
		return func(p *proving) {
			p.fail = func(c string) error {
				if c == call {
					return final(kind, "it is broken")
				}
				return nil
			}
		}
	}
	for rule, c := range map[string]struct {
		set     func(*proving)
		problem string
		story   []string // without the beginning and the end
	}{
		"the suites are not known": {fails("list suites", workflows.InvalidInput), "Nobody knows what there is to run: it is broken.", []string{"list suites"}},
		"no queue":                 {fails("enter", workflows.InvalidInput), "The test could not get into the queue: it is broken.", []string{"list suites", "enter", "leave"}},
		"the id is taken":          {fails("lease in aws:1", workflows.InvalidInput), "The cluster could not be leased: it is broken.", []string{"list suites", "enter", "lease in aws:1", "leave"}},
		"a lease that may be written": {fails("lease in aws:1", workflows.AccessDenied), "The cluster could not be leased: it is broken.",
			[]string{"list suites", "enter", "lease in aws:1", "end lease", "leave"}},
		"the base":         {fails("provision to 1", workflows.StackFailed), "The cluster could not be created at the base 1111111111aa: it is broken.", nil},
		"the workload":     {fails("workload", workflows.Unhealthy), "The workload and the load could not be started: it is broken.", nil},
		"the upgrade":      {fails("update to 2", workflows.Unhealthy), "The update to the head 2222222222aa failed: it is broken.", nil},
		"the load":         {fails("load", workflows.InvalidInput), "The load noticed the upgrade: Nobody knows what came of the load: it is broken.", nil},
		"over budget":      {func(p *proving) { p.load.Problem = "1 of 100 requests failed." }, "The load noticed the upgrade: 1 of 100 requests failed.", nil},
		"nobody witnesses": {fails("witness", workflows.InvalidInput), "Nobody knows whether budgets held during the upgrade: it is broken.", nil},
		"a budget": {func(p *proving) {
			p.upgrade.Violations = []e2e.Violation{{Budget: "shop/cart", Healthy: 1, Desired: 2}, {Budget: "shop/cart", Healthy: 1, Desired: 2}}
		}, "Disruption budgets did not hold during the upgrade, 2 times in all: shop/cart (1 of 2 healthy).", nil},
		"a suite":                   {func(p *proving) { p.suites["smoke"] = e2e.SuiteResult{Ran: 3, Failed: 1} }, "Suite smoke failed: 1 of 3 cases.", nil},
		"a suite that does not run": {fails("suite conformance", workflows.InvalidInput), "Suite conformance failed: It could not be run: it is broken.", nil},
	} {
		t.Run(rule, func(t *testing.T) {
			p := newProving()
			c.set(p)
			report, err := p.test(t, wish)
			require.NoError(t, err)
			require.Equal(t, e2e.Failed, report.Verdict)
			require.Equal(t, c.problem, report.Problem)
			if c.story != nil {
				require.Equal(t, c.story, p.story)
				return
			}
			end := slices.Clone(teardown)
			if strings.Contains(c.problem, "could not be") && !strings.Contains(c.problem, "Suite") || strings.Contains(c.problem, "head") {
				end[1] = "decommission to 1"
			}
			require.Equal(t, end, p.story[len(p.story)-len(end):])
		})
	}
}

func TestAllThatIsWrongIsSaid(t *testing.T) {
	p := newProving()
	p.load.Problem = "Too many errors."
	p.suites["smoke"] = e2e.SuiteResult{Problem: "It took too long."}
	report, err := p.test(t, wish)
	require.NoError(t, err)
	require.Equal(t, "The load noticed the upgrade: Too many errors. Suite smoke failed: It took too long.", report.Problem)
	require.Len(t, report.Suites, 2, "one that fails keeps no other from running")
}

func TestAnOptionalSuiteFailsNothing(t *testing.T) {
	p := newProving()
	p.plan.Suites[1].Optional = true
	p.suites["smoke"] = e2e.SuiteResult{Ran: 3, Failed: 1, Failures: make([]e2e.Failure, 50)}
	report, err := p.test(t, wish)
	require.NoError(t, err)
	require.Equal(t, e2e.Passed, report.Verdict)
	require.True(t, report.Suites[1].Optional)
	require.Len(t, report.Suites[1].Failures, e2e.MostFailures)
}

func TestSuitesRunSomeAtATime(t *testing.T) {
	p := newProving()
	p.plan.Parallel = 3
	p.plan.Suites = nil
	for i := range 9 {
		p.plan.Suites = append(p.plan.Suites, e2e.Suite{Name: fmt.Sprint(i)})
		p.suites[fmt.Sprint(i)] = e2e.SuiteResult{Passed: true}
	}
	report, err := p.test(t, wish)
	require.NoError(t, err)
	require.Equal(t, 3, p.most)
	require.Len(t, report.Suites, 9)
	require.Equal(t, "8", report.Suites[8].Name, "as configured")
}

func TestALeanTestStartsNothingThatIsNotConfigured(t *testing.T) {
	p := newProving()
	p.plan = workflows.SuitesToRun{}
	p.load.Problem = "There is none."
	report, err := p.test(t, wish)
	require.NoError(t, err)
	require.Equal(t, e2e.Passed, report.Verdict)
	require.Equal(t, append([]string{"list suites", "enter", "lease in aws:1", "provision to 1", "update to 2", "cost", "store"}, teardown...), p.story)
}

func TestATestThatTakesTooLongHasFailed(t *testing.T) {
	p := newProving()
	p.plan.Within = 15 * time.Minute
	report, err := p.test(t, wish)
	require.NoError(t, err)
	require.Equal(t, e2e.Failed, report.Verdict)
	require.Equal(t, "It took longer than 15m0s, while it was upgrading.", report.Problem)
	require.Contains(t, p.story, "update to 2 was cancelled")
	require.Equal(t, []string{"decommission-requested", "decommission to 1", "end lease", "leave"}, p.story[len(p.story)-4:])
}

func TestTheTimeInTheQueueDoesNotCount(t *testing.T) {
	p := newProving()
	place := p.places[0]
	p.places = nil
	report, err := p.test(t, wish, after(50*time.Hour, func(env *testsuite.TestWorkflowEnvironment) { env.SignalWorkflow(workflows.TestPlaceName, place) }))
	require.NoError(t, err)
	require.Equal(t, e2e.Passed, report.Verdict)
}

func TestATestThatIsEndedEndsWhatRunsAndTearsDown(t *testing.T) {
	for rule, c := range map[string]struct {
		at     time.Duration
		places bool
		story  []string // of its end
	}{
		"in the queue":     {10 * time.Minute, false, []string{"list suites", "enter", "leave"}},
		"while it creates": {5 * time.Minute, true, []string{"provision to 1", "provision to 1 was cancelled", "cost", "store", "decommission-requested", "decommission to 1", "end lease", "leave"}},
		"while it upgrades": {15 * time.Minute, true,
			[]string{"update to 2", "update to 2 was cancelled", "cost", "store", "decommission-requested", "decommission to 1", "end lease", "leave"}},
	} {
		for how, end := range map[string]struct {
			do    func(*testsuite.TestWorkflowEnvironment)
			why   string
			fails bool
		}{
			"by a signal":           {endIt(workflows.EndTest{Why: "a newer head was pushed", By: "ann"}), "ann ended it: a newer head was pushed.", false},
			"by a look":             {endIt(workflows.EndTest{Why: "The label is gone."}), "It was ended: The label is gone.", false},
			"by a signal by hand":   {func(env *testsuite.TestWorkflowEnvironment) { env.SignalWorkflow(workflows.EndTestName, "stop") }, "It was ended: for a reason that was not understood.", false},
			"by a cancellation":     {cancelIt, "Somebody cancelled the workflow.", true},
			"at once, though it is": {endIt(workflows.EndTest{Why: "enough", By: "ann", Now: true}), "ann ended it: enough.", false},
		} {
			t.Run(rule+" "+how, func(t *testing.T) {
				p := newProving()
				p.plan.KeepFailed = time.Hour
				if !c.places {
					p.places = nil
				}
				report, err := p.test(t, wish, after(c.at, end.do))
				require.Equal(t, end.fails, temporal.IsCanceledError(err), err)
				require.Equal(t, e2e.Cancelled, report.Verdict)
				require.Equal(t, end.why, report.Problem)
				require.Equal(t, c.story, p.story[len(p.story)-len(c.story):])
			})
		}
	}
}

func TestAnEndThatComesTooLateChangesNoVerdict(t *testing.T) {
	p := newProving()
	for _, end := range []func(*testsuite.TestWorkflowEnvironment){endIt(workflows.EndTest{Why: "late"}), cancelIt} {
		report, err := p.test(t, wish, after(25*time.Minute, end)) // while it is torn down
		require.NoError(t, err)
		require.Equal(t, e2e.Passed, report.Verdict)
	}
}

func TestATeardownThatFailsIsTriedForEverAndPeopleAreTold(t *testing.T) {
	p := newProving()
	failures := 0
	p.fail = func(call string) error {
		if call != "decommission to 2" {
			return nil
		}
		if failures++; failures <= 12 {
			return final(workflows.StackFailed, "the bucket is not empty")
		}
		return nil
	}
	report, err := p.test(t, wish)
	require.NoError(t, err)
	require.Equal(t, e2e.Passed, report.Verdict)
	require.Len(t, p.updates, 2+13)
	require.Equal(t, 13, p.updates[14].Attempt)
	require.Len(t, p.told, 1)
	require.Equal(t, workflows.TestNotTornDown, p.told[0].Kind)
	require.Equal(t, "team", p.told[0].Owner)
	require.Contains(t, p.told[0].Text, "could not be torn down in 3 attempts, and what is left of it costs money: the bucket is not empty.")
	shown := slices.IndexFunc(p.reports, func(r e2e.Report) bool { return r.Left == "the bucket is not empty." })
	require.Equal(t, e2e.Removing, p.reports[shown].Phase)
	removing := report.Phases[len(report.Phases)-2]
	pauses := (30+60+120+240+480+960+1920+3840+7680)*time.Second + 3*4*time.Hour
	require.Equal(t, 13*p.lasts+pauses, removing.Ended.Sub(removing.Began))
}

func TestATeardownThatFailedIsTriedAtOnceWhenSomebodyAsksForIt(t *testing.T) {
	p := newProving()
	mended := false
	p.fail = func(call string) error {
		if call == "decommission to 2" && !mended {
			return final(workflows.StackFailed, "the bucket is not empty")
		}
		return nil
	}
	asked := 10 * time.Hour // between two attempts, hours after the last one
	report, err := p.test(t, wish, after(asked, func(env *testsuite.TestWorkflowEnvironment) {
		mended = true
		endIt(workflows.EndTest{Now: true, By: "ann", Why: "the bucket is empty"})(env)
	}))
	require.NoError(t, err)
	require.Equal(t, e2e.Passed, report.Verdict, "the test had ended before")
	removing := report.Phases[len(report.Phases)-2]
	require.WithinRange(t, removing.Ended, noon.Add(asked), noon.Add(asked+p.lasts))
}

func TestALeaseThatIsGoneMeansThatTheSweepWasFirst(t *testing.T) {
	p := newProving()
	p.fail = func(call string) error {
		if call == "decommission-requested" {
			return final(workflows.ClusterNotFound, "no such lease")
		}
		return nil
	}
	_, err := p.test(t, wish)
	require.NoError(t, err)
	require.Equal(t, []string{"decommission-requested", "end lease", "leave"}, p.story[len(p.story)-3:])
}

func TestAForgeThatIsGoneFailsNothing(t *testing.T) {
	p := newProving()
	p.fail = func(call string) error {
		if call == "report" {
			return temporal.NewApplicationError("the forge does not answer", workflows.Unreachable)
		}
		return nil
	}
	report, err := p.test(t, wish)
	require.NoError(t, err)
	require.Equal(t, e2e.Passed, report.Verdict)
	require.Equal(t, teardown, p.story[len(p.story)-4:])
	require.Less(t, report.Phases[5].Began.Sub(report.Phases[0].Began), 2*p.lasts+15*time.Minute, "it does not wait for the forge")
}

func TestWhatIsNiceToKnowHoldsNothingUp(t *testing.T) {
	p := newProving()
	p.fail = func(call string) error {
		if call == "cost" || call == "store" {
			return errors.New("no answer")
		}
		return nil
	}
	report, err := p.test(t, wish)
	require.NoError(t, err)
	require.Equal(t, e2e.Passed, report.Verdict)
	require.Equal(t, teardown, p.story[len(p.story)-4:])
}

func TestAClusterIsKept(t *testing.T) {
	broken := func(p *proving) { p.suites["smoke"] = e2e.SuiteResult{Ran: 3, Failed: 1} }
	keepFor := func(d time.Duration) func(*testsuite.TestWorkflowEnvironment) {
		return func(env *testsuite.TestWorkflowEnvironment) {
			env.UpdateWorkflow(workflows.KeepTestName, "", &testsuite.TestUpdateCallback{
				OnReject: func(err error) { panic(err) }, OnAccept: func() {}, OnComplete: func(any, error) {},
			}, workflows.KeepTest{For: d, By: "ann"})
		}
	}
	for rule, c := range map[string]struct {
		set  func(*proving)
		wish time.Duration
		do   []func(*testsuite.TestWorkflowEnvironment)
		kept time.Duration
	}{
		"not if it has passed":              {func(p *proving) { p.plan.KeepFailed = time.Hour }, 0, nil, 0},
		"as configured if it has failed":    {func(p *proving) { broken(p); p.plan.KeepFailed = time.Hour }, 0, nil, time.Hour},
		"as whoever began it has asked":     {func(p *proving) { broken(p); p.plan.KeepFailed = time.Hour }, 2 * time.Hour, nil, 2 * time.Hour},
		"not for longer than is allowed":    {broken, 200 * time.Hour, nil, 24 * time.Hour},
		"as people ask, even if it passes":  {func(*proving) {}, 0, []func(*testsuite.TestWorkflowEnvironment){after(5*time.Minute, keepFor(time.Hour))}, time.Hour},
		"for longer, if they ask":           {broken, time.Hour, []func(*testsuite.TestWorkflowEnvironment){after(50*time.Minute, keepFor(2*time.Hour))}, 2*time.Hour + 30*time.Minute - time.Second},
		"not for shorter, if they ask":      {broken, time.Hour, []func(*testsuite.TestWorkflowEnvironment){after(50*time.Minute, keepFor(time.Minute))}, time.Hour},
		"until somebody ends it at once":    {broken, time.Hour, []func(*testsuite.TestWorkflowEnvironment){after(50*time.Minute, endIt(workflows.EndTest{Now: true}))}, 30*time.Minute - time.Second},
		"though the label is removed":       {broken, time.Hour, []func(*testsuite.TestWorkflowEnvironment){after(50*time.Minute, endIt(workflows.EndTest{Why: "the label is gone"}))}, time.Hour},
		"until somebody cancels it":         {broken, time.Hour, []func(*testsuite.TestWorkflowEnvironment){after(50*time.Minute, cancelIt)}, 30*time.Minute - time.Second},
		"though a newer head is pushed":     {broken, 0, []func(*testsuite.TestWorkflowEnvironment){after(5*time.Minute, keepFor(time.Hour)), after(6*time.Minute, endIt(workflows.EndTest{Why: "newer"}))}, time.Hour},
		"not if it is ended at once before": {broken, time.Hour, []func(*testsuite.TestWorkflowEnvironment){after(5*time.Minute, keepFor(time.Hour)), after(6*time.Minute, endIt(workflows.EndTest{Now: true}))}, 0},
	} {
		t.Run(rule, func(t *testing.T) {
			p := newProving()
			c.set(p)
			request := wish
			request.Keep = c.wish
			report, err := p.test(t, request, c.do...)
			require.NoError(t, err)
			var kept time.Duration
			for _, phase := range report.Phases {
				if phase.Phase == e2e.Kept {
					kept += phase.Ended.Sub(phase.Began)
				}
			}
			require.InDelta(t, c.kept, kept, float64(2*time.Second))
			require.Equal(t, "leave", p.story[len(p.story)-1])
			require.True(t, report.Kept.IsZero(), "nobody is told to look at what is gone")
			if c.kept > 0 {
				at := slices.IndexFunc(p.leases, func(in workflows.ChangeLease) bool { return in.Lifecycle == "" })
				require.False(t, p.leases[at].Kept.IsZero(), "the sweep knows")
				require.Equal(t, 2, count(p.story, "cost"))
			}
		})
	}
}

func TestWhoAsksForTooMuchIsTold(t *testing.T) {
	p := newProving()
	p.suites["smoke"] = e2e.SuiteResult{Ran: 3, Failed: 1}
	request := wish
	request.Keep = 10 * time.Hour
	refused := map[string]string{}
	ask := func(when string, d time.Duration) func(*testsuite.TestWorkflowEnvironment) {
		return func(env *testsuite.TestWorkflowEnvironment) {
			env.UpdateWorkflow(workflows.KeepTestName, "", &testsuite.TestUpdateCallback{
				OnReject: func(err error) { refused[when] = err.Error() }, OnAccept: func() {}, OnComplete: func(any, error) {},
			}, workflows.KeepTest{For: d})
		}
	}
	_, err := p.test(t, request, after(5*time.Minute, ask("nothing", 0)), after(6*time.Minute, ask("much", 25*time.Hour)),
		after(4*time.Hour+20*time.Minute, ask("more", 23*time.Hour)), after(10*time.Hour+25*time.Minute, ask("late", time.Hour)))
	require.NoError(t, err)
	require.Len(t, refused, 4)
	require.Contains(t, refused["nothing"], "say for how long")
	require.Contains(t, refused["much"], "at most 24h0m0s")
	require.Contains(t, refused["more"], "ask for at most 20h0m")
	require.Contains(t, refused["late"], "being torn down already")
}

func TestAnUpdateThatIsLeftOfAnEarlierRunIsEndedFirst(t *testing.T) {
	p := newProving()
	var suite testsuite.WorkflowTestSuite
	env := suite.NewTestWorkflowEnvironment()
	env.SetTestTimeout(20 * time.Second)
	env.RegisterActivity(p)
	env.RegisterWorkflow(workflows.TestPullRequest)
	env.RegisterWorkflowWithOptions(p.updateCluster, workflow.RegisterOptions{Name: "UpdateCluster"})
	env.RegisterWorkflowWithOptions(func(ctx workflow.Context) (report e2e.Report, err error) {
		workflow.ExecuteChildWorkflow(workflow.WithChildOptions(ctx, workflow.ChildWorkflowOptions{WorkflowID: workflows.UpdateClusterID(wish.Cluster)}),
			"UpdateCluster", workflows.UpdateClusterInput{Kind: "earlier", Version: "0"})
		child := workflow.ExecuteChildWorkflow(workflow.WithChildOptions(ctx, workflow.ChildWorkflowOptions{WorkflowID: workflows.TestID(wish.ID)}), workflows.TestPullRequest, wish)
		if err := child.GetChildWorkflowExecution().Get(ctx, nil); err != nil {
			return report, err
		}
		if err := child.SignalChildWorkflow(ctx, workflows.TestPlaceName, p.places[0]).Get(ctx, nil); err != nil {
			return report, err
		}
		return report, child.Get(ctx, &report)
	}, workflow.RegisterOptions{Name: "beside"})
	env.ExecuteWorkflow("beside")
	require.NoError(t, env.GetWorkflowError())
	var report e2e.Report
	require.NoError(t, env.GetWorkflowResult(&report))
	require.Equal(t, e2e.Passed, report.Verdict)
	require.Equal(t, []string{"lease in aws:1", "await end of cluster/e2e-12-2222222/update", "provision to 1"}, p.story[3:6])
}
