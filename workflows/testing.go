package workflows

import (
	"context"
	"time"

	"github.com/fairway-project/fairway/e2e"
)

// PullRequests is what workflows ask about the pull requests that are to be tested. activities/pullrequests
// implements it.
type PullRequests interface {
	// LookAtPullRequests compares the pull requests that carry the label with the tests under way, and says which
	// tests are to begin and which to end. It says on those that wait for a person what they wait for.
	LookAtPullRequests(context.Context, LookAtPullRequests) (PullRequestsLook, error)
	// ResolveTest says what a test by hand is of. InvalidInput if there is no such pull request or ref.
	ResolveTest(context.Context, ResolveTest) (e2e.Request, error)
	// ReportTest keeps the commit status, and the one comment on the pull request, as the report says. Nothing is
	// written where they are so already.
	ReportTest(context.Context, e2e.Report) error
}

// TestQueues is how tests get their turn. activities/testclusters implements it.
type TestQueues interface {
	// EnterTestQueue tells the actor of the queue, which is started if need be, that a test waits for a place. It
	// answers the test by the signal TestPlaceName. Twice is like once.
	EnterTestQueue(context.Context, TestQueueEntry) error
	// LeaveTestQueue gives the place back.
	LeaveTestQueue(context.Context, TestQueueEntry) error
}

// TestClusters keeps the leases of test clusters. activities/testclusters implements it. Through them the
// activities of UpdateCluster find the registry entries of these clusters.
type TestClusters interface {
	// LeaseCluster writes a lease for a test, before anything is made. One that the same workflow has already
	// is found as it is. InvalidInput if the cluster's id is taken.
	LeaseCluster(context.Context, LeaseCluster) (e2e.Lease, error)
	// ChangeLease sets the lifecycle of the entry, or until when the cluster is kept.
	ChangeLease(context.Context, ChangeLease) (e2e.Lease, error)
	// EndLease removes a lease, when all is gone; one that is gone is fine.
	EndLease(context.Context, ChangeLease) error
	// EstimateCost adds up what the cluster has cost until now.
	EstimateCost(context.Context, ChangeLease) (e2e.Cost, error)
}

// TestWorkloads is what runs on a test cluster during its upgrade. activities/testload implements it.
type TestWorkloads interface {
	// StartWorkload applies the workload and waits until it is ready. Unhealthy if that takes too long. It heartbeats.
	StartWorkload(context.Context, OnTestCluster) error
	// HoldLoad sends requests until it is cancelled, and returns what came of them. It heartbeats its counts, and goes
	// on from them after a crash. What is over budget is in the result, not an error.
	HoldLoad(context.Context, OnTestCluster) (e2e.LoadResult, error)
	// AwaitLoad returns when the first good answer has come. It heartbeats.
	AwaitLoad(context.Context, OnTestCluster) error
	// WitnessUpgrade watches pods and budgets until it is cancelled, and returns what it saw. It heartbeats, and goes on after a
	// crash.
	WitnessUpgrade(context.Context, OnTestCluster) (e2e.Upgrade, error)
}

// TestSuites runs suites. activities/testsuites implements it.
type TestSuites interface {
	// ListSuites names the configured suites and how they are run.
	ListSuites(context.Context) (SuitesToRun, error)
	// RunSuite runs one suite and stores its files. A suite that fails is a result, not an error. It heartbeats. After a crash it
	// begins anew; nothing of the attempt before still runs.
	RunSuite(context.Context, RunSuite) (e2e.SuiteResult, error)
	// StoreReport stores the whole report beside the files of the suites, and says where.
	StoreReport(context.Context, e2e.Report) (string, error)
}

// Sweeping finds and removes what nobody owns any more. activities/sweep implements it.
type Sweeping interface {
	// FindOrphans lists what carries the tag of a lease and is covered by none, in the order of e2e.Kinds. It
	// changes nothing; if the leases cannot be read it fails. It heartbeats.
	FindOrphans(context.Context, FindOrphans) ([]e2e.Orphan, error)
	// RemoveOrphan removes one, after it has looked once more that nothing covers it. One that is gone is fine. It heartbeats.
	RemoveOrphan(context.Context, e2e.Orphan) error
}

// Parameters and results of these activities.
type (
	LookAtPullRequests struct{}
	PullRequestsLook   struct {
		Start []e2e.Request `json:"start,omitempty"`
		End   []EndTest     `json:"end,omitempty"`
		// Held are those that wait for a person, with why.
		Held []HeldTest `json:"held,omitempty"`
	}
	HeldTest struct {
		Number int    `json:"pull_request"`
		Why    string `json:"why"`
	}
	// EndTest is also the signal EndTestName to a test: it ends then, and its cluster goes.
	EndTest struct {
		ID  string `json:"id"` // of the request
		Why string `json:"why"`
		By  string `json:"by,omitempty"`
		// Now does not even wait for the end of a time for which the cluster is kept.
		Now bool `json:"now,omitempty"`
	}
	ResolveTest struct {
		Number int `json:"pull_request,omitempty"`
		// Base and Head are refs; for a test without a pull request. Base has to be a channel.
		Base string `json:"base,omitempty"`
		Head string `json:"head,omitempty"`
		// Commit is the head that somebody has looked at: another one is refused. Empty takes any.
		Commit string        `json:"commit,omitempty"`
		By     string        `json:"by,omitempty"`
		Keep   time.Duration `json:"keep,omitempty"`
	}
	TestQueueEntry struct {
		Request e2e.Request `json:"request"`
		// Accounts are the configured ones; the actor goes by what it was told last. The activity fills them in.
		Accounts []e2e.Account `json:"accounts,omitempty"`
		Since    time.Time     `json:"since"`
		// Given is where it may make its cluster; nil while it waits.
		Given *e2e.Account `json:"given,omitempty"`
	}
	// TestPlace is the signal TestPlaceName to a test: its place in the queue, from 1, or that it may begin.
	TestPlace struct {
		Place int          `json:"place,omitempty"`
		Given *e2e.Account `json:"given,omitempty"`
	}
	LeaseCluster struct {
		Request  e2e.Request `json:"request"`
		Account  e2e.Account `json:"account"`
		Workflow string      `json:"workflow"`
	}
	ChangeLease struct {
		Cluster   string      `json:"cluster"`
		Account   e2e.Account `json:"account"`
		Lifecycle string      `json:"lifecycle_status,omitempty"`
		Kept      time.Time   `json:"kept,omitzero"`
	}
	OnTestCluster struct {
		Cluster string    `json:"cluster"`
		Since   time.Time `json:"since"`
	}
	SuitesToRun struct {
		Suites   []e2e.Suite   `json:"suites"`
		Parallel int           `json:"parallel"`
		Within   time.Duration `json:"within"` // of the whole test
		// Load and Workload say whether there are any. KeepFailed and KeepAtMost are as in e2e.Settings.
		Load       bool          `json:"load,omitempty"`
		Workload   bool          `json:"workload,omitempty"`
		KeepFailed time.Duration `json:"keep_failed,omitempty"`
		KeepAtMost time.Duration `json:"keep_at_most,omitempty"`
	}
	RunSuite struct {
		Request e2e.Request `json:"request"`
		Suite   e2e.Suite   `json:"suite"`
	}
	FindOrphans struct{}
)

// Names of the signals, updates and queries of tests. ProgressQuery of a test answers with an e2e.Report.
const (
	TestPlaceName = "place"    // signal to a test: TestPlace
	EndTestName   = "end-test" // signal to a test: EndTest
	KeepTestName  = "keep"     // update of a test: KeepTest
	EnterName     = "enter"    // signal to the queue: TestQueueEntry
	LeaveName     = "leave"    // signal to the queue: TestQueueEntry
)

// KeepTest has the cluster of a test kept after its end, or for longer.
type KeepTest struct {
	For time.Duration `json:"for"`
	By  string        `json:"by,omitempty"`
}

// TestQueueState is all that the actor of the queue knows; the answer to its StateQuery.
type TestQueueState struct {
	Accounts []e2e.Account    `json:"accounts"`
	Entries  []TestQueueEntry `json:"entries"` // in the order in which they came
}

// SweepInput says what a sweep may do.
type SweepInput struct {
	DryRun bool `json:"dry_run,omitempty"`
	// AtMost is how many things are removed at most; more are listed, people are told, and nothing is removed.
	AtMost int    `json:"at_most"`
	By     string `json:"by,omitempty"`
}

// SweepResult is what a sweep found and did.
type SweepResult struct {
	Found []e2e.Orphan `json:"found"`
	// Removed says of each thing that is gone when that was; Failed of each other one why not.
	Removed []SweptOrphan `json:"removed,omitempty"`
	Failed  []SweptOrphan `json:"failed,omitempty"`
	// Asks is why nothing was removed although something was found.
	Asks string `json:"asks,omitempty"`
}

// SweptOrphan is what became of an orphan.
type SweptOrphan struct {
	e2e.Orphan
	At      time.Time `json:"at"`
	Problem string    `json:"problem,omitempty"`
}

// Ids of the workflows and schedules of tests.
const (
	TestQueueID  = "e2e/queue"
	LookForTests = "e2e/look"
	SweepID      = "sweep"
)

// TestID is the id of the workflow that carries out a test.
func TestID(request string) string { return "e2e/" + request }
