// Package rollout decides which clusters of a channel may go to its newest version, and when: the
// canaries first, then growing groups, each after the one before was updated and has baked. It only
// decides: workflows.Channel carries it out.
package rollout

// Limits are numbers of clusters that are updated at a time, over the fleet, of an account and of a
// region; 0 means no limit.
type Limits struct {
	Fleet   int `json:"fleet"`
	Account int `json:"account"`
	Region  int `json:"region"`
}

// Settings say how a channel's clusters follow its head.
type Settings struct {
	// CanaryLevel lets the clusters whose criticality is at most that go first; besides those that
	// are canaries by the config item rollout_canary. Negative means none by criticality.
	CanaryLevel int `json:"canary_level"`
	// Groups are the sizes of the groups after the canaries, as parts of the clusters of the channel
	// that are not canaries; the last one goes on for the rest.
	Groups []Group `json:"groups"`
	// BakeSeconds is how long a group has to be on the new version before the next goes.
	BakeSeconds int `json:"bake_seconds"`
	// MaxFailed is how many clusters may fail before no more are let go on.
	MaxFailed int `json:"max_failed"`
	// Health lets the next wave go only when each cluster of the one before has been seen to be healthy
	// after it has baked, and no cluster of any wave before is sick.
	Health bool `json:"health,omitempty"`
}

// Group is a number of clusters or a percentage of them.
type Group struct {
	Count   int `json:"count,omitempty"`
	Percent int `json:"percent,omitempty"`
}

// Cluster is what the choice of waves depends on.
type Cluster struct {
	ID          string `json:"id"`
	Account     string `json:"account"`
	Region      string `json:"region"`
	Criticality int    `json:"criticality"`
	Canary      bool   `json:"canary,omitempty"`
}

// State is where a cluster stands on the way to the head.
type State string

// The states of a cluster.
const (
	Waiting  State = "waiting"  // not let go on yet
	Allowed  State = "allowed"  // let go on; not begun, because of a block, a window or a limit
	Updating State = "updating" // under way
	Done     State = "done"     // on the head
	Failed   State = "failed"   // the last attempt failed
)

// Member is a cluster with its state.
type Member struct {
	Cluster
	Wave  int   `json:"wave"` // 0 for canaries, -1 for clusters that are being made or removed
	State State `json:"state"`
	// SinceUnix is when the state began, in Unix seconds.
	SinceUnix int64 `json:"since_unix"`
	// HeldUnix is since when a block of this cluster alone keeps it from going on; 0 if none does.
	HeldUnix int64 `json:"held_unix,omitempty"`
	// FailedUnix is when an attempt at the head failed; 0 if none has, or the cluster has got there
	// since. A cluster that tries again counts as failed all the same.
	FailedUnix int64 `json:"failed_unix,omitempty"`
	// HealthyUnix is when the cluster was last seen to be healthy; 0 if never. Sick is why it was not the
	// last time it was looked at; empty if it was, or was not looked at.
	HealthyUnix int64  `json:"healthy_unix,omitempty"`
	Sick        string `json:"sick,omitempty"`
	// Forgiven means that a person lets the rollout go on in spite of this failure, or of not being healthy.
	Forgiven bool `json:"forgiven,omitempty"`
}
