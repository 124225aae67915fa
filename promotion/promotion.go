// Package promotion holds the rules by which changes move from one channel to the next: which
// promotions there are, how long a change has soaked, which candidate is next, what its gates have
// said and what it touches. It only decides: workflows.Promote carries it out, and package channels
// knows the repository.
package promotion

import (
	"time"

	"github.com/fairway-project/fairway/calendar"
)

// Pipeline is which promotions there are; any graph without cycles.
type Pipeline struct {
	// Channels are branches of the configuration repository.
	Channels []string `yaml:"channels" json:"channels" validate:"dive,required"`
	Edges    []Edge   `yaml:"edges" json:"edges" validate:"dive"`
	// Every is the time between two looks of an edge; default 1 m.
	Every time.Duration `yaml:"every" json:"every" validate:"gte=0"`
	// Author of the commits that Fairway makes, as "Name <mail>"; default "Fairway <fairway@localhost>".
	Author string `yaml:"author" json:"author"`
	// BreakingLabels make a change that carries one of them Breaking, in whatever case they are written;
	// default "breaking", "major" and "architectural". They are those of pull requests.
	BreakingLabels []string `yaml:"breaking_labels" json:"breaking_labels,omitempty"`
}

// Edge is one allowed promotion.
type Edge struct {
	From string `yaml:"from" json:"from" validate:"required"`
	To   string `yaml:"to" json:"to" validate:"required"`
	Mode Mode   `yaml:"mode" json:"mode" validate:"required,oneof=merge pull-request"`
	// Soak is how long every cluster of From must have run the candidate, healthy and unblocked; 0 has
	// to be written down.
	Soak *time.Duration `yaml:"soak" json:"soak" validate:"omitempty,gte=0"`
	// Gates have to be passed, besides the state of the clusters of From, which is always a gate.
	Gates []Gate `yaml:"gates" json:"gates,omitempty" validate:"dive"`
	// Windows are when Fairway may merge; default: at any time. Freezes are when it may not.
	Windows []calendar.Window `yaml:"windows" json:"windows,omitempty" validate:"dive"`
	Freezes []calendar.Freeze `yaml:"freezes" json:"freezes,omitempty" validate:"dive"`
	// PersonFor are classes of change for which, as for all that are worse, an edge of mode merge opens a
	// pull request instead, which waits for Approvals, one at least.
	PersonFor []Class `yaml:"person_for" json:"person_for,omitempty"`
	// PullRequest is for pull requests of this edge.
	PullRequest PullRequest `yaml:"pull_request" json:"pull_request"`
}

// PullRequest says how the pull requests of an edge are treated.
type PullRequest struct {
	// Approvals is how many people have to approve, besides what the forge itself asks for; the author
	// does not count. Default 1.
	Approvals *int `yaml:"approvals" json:"approvals,omitempty" validate:"omitempty,gte=0"`
	// Team is whose approvals count, such as platform or, on GitHub, organisation/platform; default: those of
	// all who may push to the repository.
	Team string `yaml:"team" json:"team,omitempty"`
	// Reviewers are users who are asked for a review, Labels what the pull request is labelled with.
	Reviewers []string `yaml:"reviewers" json:"reviewers,omitempty"`
	Labels    []string `yaml:"labels" json:"labels,omitempty"`
	// Automerge merges once it is approved, the gates are passed and a window is open; default false: a
	// person merges.
	Automerge bool `yaml:"automerge" json:"automerge,omitempty"`
	// Supersede says when a newer candidate replaces this one: "never" (default), "unapproved" (while
	// nobody has approved) or "always".
	Supersede Supersede `yaml:"supersede" json:"supersede,omitempty" validate:"omitempty,oneof=never unapproved always"`
}

// Mode is how a promotion gets into its channel.
type Mode string

// The modes of an edge.
const (
	Merge         Mode = "merge"        // by itself
	ByPullRequest Mode = "pull-request" // by a pull request that waits for people
)

// Supersede is when a newer candidate replaces one whose pull request is open.
type Supersede string

// When candidates are superseded.
const (
	Never      Supersede = "never"
	Unapproved Supersede = "unapproved"
	Always     Supersede = "always"
)

// Gate is a condition; exactly one of Status, Prometheus and HTTP is set.
type Gate struct {
	// Name is for people and --skip-gate.
	Name string `yaml:"name" json:"name" validate:"required"`
	// Status is the context of a commit status, or the name of a check run, that the candidate must have
	// with success.
	Status     string      `yaml:"status" json:"status,omitempty"`
	Prometheus *MetricGate `yaml:"prometheus" json:"prometheus,omitempty"`
	HTTP       *HTTPGate   `yaml:"http" json:"http,omitempty"`
}

// MetricGate asks a Prometheus. {from}, {to} and {candidate} in URL and Query stand for the promotion.
type MetricGate struct {
	URL   string `yaml:"url" json:"url" validate:"required"`
	Query string `yaml:"query" json:"query" validate:"required"`
	// Threshold is what each sample must meet, such as "< 0.01".
	Threshold string `yaml:"threshold" json:"threshold" validate:"required"`
	// For is for how long it must have been met until now; default 0: now.
	For       time.Duration `yaml:"for" json:"for,omitempty" validate:"gte=0"`
	TokenEnv  string        `yaml:"token_env" json:"token_env,omitempty" validate:"excluded_with=TokenFile"`
	TokenFile string        `yaml:"token_file" json:"token_file,omitempty"`
}

// HTTPGate is passed while a GET is answered as expected.
type HTTPGate struct {
	// URL with {from}, {to} and {candidate}.
	URL string `yaml:"url" json:"url" validate:"required"`
	// Status is the expected code; default 200. Redirects are not followed.
	Status int `yaml:"status" json:"status,omitempty" validate:"omitempty,gte=100,lte=599"`
	// Contains is a text that the first MiB of the answer must contain; default: any.
	Contains  string        `yaml:"contains" json:"contains,omitempty"`
	Timeout   time.Duration `yaml:"timeout" json:"timeout,omitempty" validate:"gte=0"` // default 10 s
	TokenEnv  string        `yaml:"token_env" json:"token_env,omitempty" validate:"excluded_with=TokenFile"`
	TokenFile string        `yaml:"token_file" json:"token_file,omitempty"`
}

// GateResult is what a gate has said. A gate that cannot be read is not passed.
type GateResult struct {
	Name   string    `json:"name"`
	Passed bool      `json:"passed"`
	Detail string    `json:"detail"` // a whole sentence
	At     time.Time `json:"at"`
	// Skipped means that a person went on without it.
	Skipped bool `json:"skipped,omitempty"`
}

// Class is what a change may do to clusters; the last one is the worst.
type Class string

// The classes of change, from harmless to harmful.
const (
	ManifestsOnly Class = "manifests"     // workloads of the configuration's applications change
	AddOns        Class = "add-ons"       // workloads on every node, stateful ones, CRDs or deletions
	NodesRoll     Class = "nodes"         // nodes are replaced
	ClusterStack  Class = "cluster-stack" // the stack of the cluster or of etcd changes
	Breaking      Class = "breaking"      // somebody has labelled it so
)

// Report is what a promotion carries and touches.
type Report struct {
	Commits []Change `json:"commits"`           // newest first, without merges that carry nothing themselves
	Omitted int      `json:"omitted,omitempty"` // commits beyond what is listed
	Areas   []Area   `json:"areas"`
	Class   Class    `json:"class"`
	// Why names the file or label that makes it this class.
	Why string `json:"why"`
	// Clusters follow the channel that is promoted to.
	Clusters []string `json:"clusters,omitempty"`
	// Compare is the page of the forge that shows the difference.
	Compare string `json:"compare,omitempty"`
}

// Change is a commit with the pull request that brought it.
type Change struct {
	Commit      string   `json:"commit"`
	Title       string   `json:"title"`
	Author      string   `json:"author"`
	PullRequest int      `json:"pull_request,omitempty"`
	URL         string   `json:"url,omitempty"`
	Labels      []string `json:"labels,omitempty"`
}

// Area is a part of the configuration, such as "manifests/skipper" or "node-pools/worker-default".
type Area struct {
	Name    string   `json:"name"`
	Files   []string `json:"files"`
	Omitted int      `json:"omitted,omitempty"` // files beyond what is listed
}

// Landing is a first-parent commit that has arrived on a channel.
type Landing struct {
	Commit string    `json:"commit"`
	Title  string    `json:"title"`
	Author string    `json:"author"`
	At     time.Time `json:"at"` // when Fairway learned of it: what commits say of themselves is not believed
	Kind   Kind      `json:"kind,omitempty"`
	// Ran means that every cluster has it; the Clock of the Soak read Began then.
	Ran   bool          `json:"ran,omitempty"`
	Began time.Duration `json:"began,omitempty"`
}

// Kind is how a landing got onto a channel that others are promoted to.
type Kind string

// The kinds of landings. On a channel that nothing is promoted to each landing is a Change.
const (
	Changed  Kind = "change"
	Promoted Kind = "promotion" // carries what another channel has, and nothing else
	Hotfix   Kind = "hotfix"    // carries nothing that another channel has
	Mixed    Kind = "mixed"     // carries both: neither promotion nor hotfix, and reported
	Reverted Kind = "revert"    // made by fairway channel revert
	Direct   Kind = "direct"    // pushed without a merge: reported, too, where pull requests are the way
)

// Choice is which landing is to be promoted next.
type Choice struct {
	// Candidate is the newest landing that has soaked; nil if there is none.
	Candidate *Landing `json:"candidate,omitempty"`
	// Why there is none, or what others wait for; a whole sentence.
	Why string `json:"why,omitempty"`
	// Due is when the next landing will have soaked if nothing stops the clock; zero if none will.
	Due time.Time `json:"due,omitzero"`
	// Waiting are the landings that the target lacks and that have not soaked, oldest first.
	Waiting []Soaking `json:"waiting,omitempty"`
}

// Soaking is a landing and how far it is.
type Soaking struct {
	Landing
	Soaked time.Duration `json:"soaked"`
	Of     time.Duration `json:"of"`
}

// Record is a promotion, under way or over.
type Record struct {
	// ID is from-to-target/candidate, such as dev-to-alpha/0123456789ab: the same candidate is promoted once.
	ID        string `json:"id"`
	From      string `json:"from"`
	To        string `json:"to"`
	Candidate string `json:"candidate"`
	Title     string `json:"title,omitempty"`
	Mode      Mode   `json:"mode"`
	// Merge is the commit on the target.
	Merge       string        `json:"merge,omitempty"`
	PullRequest int           `json:"pull_request,omitempty"`
	URL         string        `json:"url,omitempty"`
	Outcome     Outcome       `json:"outcome,omitempty"` // empty while under way
	Detail      string        `json:"detail,omitempty"`  // a whole sentence
	By          string        `json:"by,omitempty"`      // who asked for it; empty if it went by itself
	Reason      string        `json:"reason,omitempty"`
	MergedBy    string        `json:"merged_by,omitempty"`
	ClosedBy    string        `json:"closed_by,omitempty"` // who refused it, where the forge tells
	Approvals   []string      `json:"approvals,omitempty"`
	Gates       []GateResult  `json:"gates,omitempty"`
	Class       Class         `json:"class,omitempty"`
	Carried     int           `json:"carried,omitempty"` // commits
	Soaked      time.Duration `json:"soaked,omitempty"`
	Began       time.Time     `json:"began"`
	Ended       time.Time     `json:"ended,omitzero"`
	Workflow    string        `json:"workflow,omitempty"`
	Run         string        `json:"run,omitempty"`
}

// Outcome is how a promotion ended.
type Outcome string

// The outcomes of a promotion.
const (
	Merged     Outcome = "merged"
	Conflicted Outcome = "conflict"   // people have to resolve it
	Held       Outcome = "held"       // a gate, window or block came up before the merge: tried again
	Refused    Outcome = "refused"    // a person closed the pull request
	Superseded Outcome = "superseded" // a newer candidate took its place
	Withdrawn  Outcome = "withdrawn"  // cancelled, or the candidate is in a range that was reverted
)

// Refusal keeps a candidate from being promoted again: a person closed its pull request.
type Refusal struct {
	From        string    `json:"from"`
	Candidate   string    `json:"candidate"`
	PullRequest int       `json:"pull_request"`
	By          string    `json:"by,omitempty"`
	At          time.Time `json:"at"`
}

// Revert is a channel that was set back. Its landings after To up to Head are promoted nowhere, and
// nothing is promoted into the channel until a person lifts it.
type Revert struct {
	ID          string    `json:"id"`
	To          string    `json:"to"`               // the landing whose content is restored
	Head        string    `json:"head"`             // the newest landing of the bad range
	Commit      string    `json:"commit,omitempty"` // that restored it; empty while its pull request is open
	PullRequest int       `json:"pull_request,omitempty"`
	Bad         []string  `json:"bad"` // the landings of the range
	By          string    `json:"by"`
	Reason      string    `json:"reason"`
	At          time.Time `json:"at"`
	Lifted      time.Time `json:"lifted,omitzero"`
	LiftedBy    string    `json:"lifted_by,omitempty"`
	// Detail is what clusters will do, in whole sentences; only in the answer to who asked for the revert.
	Detail string `json:"detail,omitempty"`
}

// Name of an edge in workflow ids, branches and trailers, such as dev-to-alpha.
func (e Edge) Name() string { return Name(e.From, e.To) }

// Name is from-to-to.
func Name(from, to string) string { return from + "-to-" + to }

// ID of the promotion of a candidate along an edge.
func ID(from, to, candidate string) string {
	return Name(from, to) + "/" + candidate[:min(12, len(candidate))]
}
