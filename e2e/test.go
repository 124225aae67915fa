package e2e

import (
	"time"

	"github.com/fairway-project/fairway/registry"
)

// Request is a wish for a test.
type Request struct {
	// ID names the test: "<pull request>/<head>", or "<head>" of a test without one. The workflow is e2e/<ID>.
	ID string `json:"id"`
	// Cluster is the id of its cluster: Prefix, pull request and the first digits of the head.
	Cluster string `json:"cluster"`
	Number  int    `json:"pull_request,omitempty"` // 0: none
	Title   string `json:"title,omitempty"`
	URL     string `json:"url,omitempty"` // of the pull request
	Author  string `json:"author,omitempty"`
	// Channel is the branch that the head is to get into; Base and Head are commits.
	Channel string `json:"channel"`
	Base    string `json:"base"`
	Head    string `json:"head"`
	Hotfix  bool   `json:"hotfix,omitempty"`
	// By is who asked for it: who set the label, or who ran the command.
	By string `json:"by,omitempty"`
	// ByHand is that somebody ran the command: no label is needed then, nor its removal an end.
	ByHand bool `json:"by_hand,omitempty"`
	// Keep is for how long the cluster is kept if the test fails; 0 means as configured.
	Keep time.Duration `json:"keep,omitempty"`
}

// Prefix of the ids of test clusters. No cluster of the registry may have it while tests are configured.
const Prefix = "e2e-"

// Lease says whose a test cluster is. It is kept in the bucket of the cluster's account from before the
// first thing is made until the last one is gone; its id, owner and expiry are tags on all of them.
type Lease struct {
	// Cluster is the registry entry that the cluster would have. Its id is the lease's.
	Cluster  registry.Cluster `json:"cluster"`
	Workflow string           `json:"workflow"` // that holds it
	Owner    string           `json:"owner"`
	Request  Request          `json:"request"`
	Made     time.Time        `json:"made"`
	// Expires is when nobody may want it any more, unless it is kept.
	Expires time.Time `json:"expires"`
	// Kept is until when a person wants it.
	Kept time.Time `json:"kept,omitzero"`
}

// Tags of everything that is made for a test.
const (
	LeaseTag   = "fairway.dev/lease"   // id of the cluster
	OwnerTag   = "fairway.dev/owner"   // who asked for it
	ExpiresTag = "fairway.dev/expires" // RFC 3339, UTC
	CostTag    = "fairway.dev/cost"    // "e2e/<pull request>", or "e2e"
)

// Phases of a test, in order.
const (
	Queued    = "queued"
	Creating  = "creating"
	Loading   = "starting-load"
	Upgrading = "upgrading"
	Testing   = "testing"
	Kept      = "kept"
	Removing  = "tearing-down"
	Done      = "done"
)

// Verdict of a test.
type Verdict string

// The verdicts. Empty means that there is none yet.
const (
	Passed    Verdict = "passed"
	Failed    Verdict = "failed"
	Cancelled Verdict = "cancelled"
)

// Report is all that is known of a test, at any moment of it.
type Report struct {
	Request Request `json:"request"`
	Account Account `json:"account,omitzero"`
	Phase   string  `json:"phase"`
	// Place in the queue, from 1, while queued.
	Place   int     `json:"place,omitempty"`
	Verdict Verdict `json:"verdict,omitempty"`
	// Problem is why it failed or was cancelled, in whole sentences.
	Problem string        `json:"problem,omitempty"`
	Phases  []PhaseTime   `json:"phases"`
	Suites  []SuiteResult `json:"suites,omitempty"`
	Upgrade Upgrade       `json:"upgrade,omitzero"`
	Load    LoadResult    `json:"load,omitzero"`
	Cost    Cost          `json:"cost,omitzero"`
	// Results is where JUnit files and logs are, such as s3://bucket/e2e/12/....
	Results string    `json:"results,omitempty"`
	Kept    time.Time `json:"kept,omitzero"`
	// Left is what could not be torn down yet, and why.
	Left string `json:"left,omitempty"`
	// Workflow and Run of the test, for the link.
	Workflow string `json:"workflow"`
	Run      string `json:"run"`
}

// PhaseTime is when a phase began and ended.
type PhaseTime struct {
	Phase string    `json:"phase"`
	Began time.Time `json:"began"`
	Ended time.Time `json:"ended,omitzero"`
}

// Upgrade is what the update from base to head did to the workloads.
type Upgrade struct {
	Nodes int `json:"nodes,omitempty"` // replaced
	// Evictions and Forced are counted from the cluster: pods whose condition DisruptionTarget says that they
	// were evicted through the API, and pods that were forced. Fairway's own count of evictions is Own.
	Evictions int      `json:"evictions"`
	Own       int      `json:"own_evictions"`
	Forced    []string `json:"forced,omitempty"` // namespace/name
	// Violations are moments at which a budget had fewer healthy pods than it wants, after it had enough.
	Violations []Violation `json:"violations,omitempty"`
}

// Violation is a time during which a budget did not hold.
type Violation struct {
	Budget  string    `json:"budget"` // namespace/name
	Healthy int       `json:"healthy"`
	Desired int       `json:"desired"`
	From    time.Time `json:"from"`
	To      time.Time `json:"to,omitzero"` // zero: until the end
}

// LoadResult counts requests.
type LoadResult struct {
	Good   int64    `json:"good"`
	Bad    int64    `json:"bad"`
	Lost   int64    `json:"lost,omitempty"`   // seconds during which no requests were sent, as a worker was away
	Errors []string `json:"errors,omitempty"` // some of them, each once
	// Problem is why the load has failed; empty if it has not.
	Problem string `json:"problem,omitempty"`
}

// SuiteResult is what a suite has found.
type SuiteResult struct {
	Name     string        `json:"name"`
	Passed   bool          `json:"passed"`
	Optional bool          `json:"optional,omitempty"`
	Problem  string        `json:"problem,omitempty"`  // why it failed as a whole, such as a time limit
	Ran      int           `json:"ran"`                // cases, without those skipped
	Failures []Failure     `json:"failures,omitempty"` // at most MostFailures
	Failed   int           `json:"failed"`
	Flaky    []string      `json:"flaky,omitempty"`
	Took     time.Duration `json:"took"`
	Results  string        `json:"results,omitempty"` // where its files are
}

// Failure is a case that failed.
type Failure struct {
	Case    string `json:"case"`
	Message string `json:"message"` // cut to 500 bytes
}

// MostFailures bounds what a result carries; all of them are in the JUnit files.
const MostFailures = 20

// Cost is an estimate.
type Cost struct {
	Amount   float64 `json:"amount"`
	Currency string  `json:"currency,omitempty"`
	// Hours of instances in all; Unpriced are instance types without a price.
	Hours    float64  `json:"hours"`
	Unpriced []string `json:"unpriced,omitempty"`
}

// Orphan is something that no lease covers: of an account, or a place in the queue.
type Orphan struct {
	Account Account `json:"account"`
	// Kind is one of Kinds; ID is what AWS calls it, such as a stack's name, and of a place the id of the test.
	Kind  string `json:"kind"`
	ID    string `json:"id"`
	Lease string `json:"lease"` // the id in its tag
	Why   string `json:"why"`   // nobody owns it
}

// Kinds of orphans in the order in which they are removed.
var Kinds = []string{"pool-stack", "group", "load-balancer", "target-group", "instance", "volume", "security-group", "stack", "record", "objects", "lease", "place"}
