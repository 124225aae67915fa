package workflows

import (
	"context"
	"time"

	"github.com/fairway-project/fairway/promotion"
	"github.com/fairway-project/fairway/registry"
	"github.com/fairway-project/fairway/rollout"
)

// Configuration is what workflows ask of the configuration repository. activities/configuration
// implements it.
type Configuration interface {
	// PrepareUpdate renders everything of a version for a cluster, and says what an update to it
	// consists of. It changes nothing but to keep the cluster's entry, so that the version can be
	// rendered again later, for a rollback too. InvalidInput if a template or its output is wrong,
	// with file and line; VersionGone if commit or entry are not to be had any more.
	PrepareUpdate(context.Context, PrepareUpdate) (UpdatePlan, error)
	// AwaitWindow returns when the maintenance windows and freezes of the cluster allow disruption.
	// Until then it fails with WindowClosed, benign, to be tried again: waiting costs no history.
	AwaitWindow(context.Context, AwaitWindow) error
}

// Stacks is what workflows ask of CloudFormation. activities/stacks implements it. Stacks are named
// as the release of the cluster's version names them; no template passes through a workflow.
type Stacks interface {
	// PlanStack says what ApplyStack would change, by a change set that it deletes again.
	PlanStack(context.Context, StackOf) (StackChanges, error)
	// ApplyStack creates or updates a stack by change set and waits for its end. No change is
	// success. It heartbeats a StackProgress. StackFailed if the stack rolled back or is stuck in a
	// state that needs a person.
	ApplyStack(context.Context, StackOf) (StackChanges, error)
	// DeleteStack removes a stack, its termination protection first, and waits until it is gone. A
	// stack that is gone is success. StackFailed names what could not be deleted.
	DeleteStack(context.Context, StackOf) error
	// ListStacks names the stacks that carry the cluster's tag, pools' stacks with their pool.
	ListStacks(context.Context, StacksOf) ([]OwnedStack, error)
	// DeleteLeftovers deletes the volumes, load balancers and security groups that Kubernetes has made
	// for the cluster, and waits until they are gone. It returns what it deleted. It heartbeats.
	DeleteLeftovers(context.Context, StacksOf) ([]string, error)
}

// Manifests is what workflows ask of a cluster's API server about manifests. activities/manifests
// implements it.
type Manifests interface {
	// AwaitAPIServer waits until the API server answers and is ready. It heartbeats.
	AwaitAPIServer(context.Context, ManifestsOf) error
	// PlanManifests says by a server-side dry run what ApplyManifests and DeleteObjects would change.
	PlanManifests(context.Context, ManifestsOf) ([]ObjectChange, error)
	// DeleteObjects carries out the deletions before or after the manifests are applied, or the
	// pruning of what no manifest contains any more. It returns what it deleted.
	DeleteObjects(context.Context, DeleteObjects) ([]ObjectChange, error)
	// ApplyManifests applies all manifests on the server side: namespaces and CRDs first. What is the
	// same already costs a request and no write. Conflict names the other manager. It heartbeats.
	ApplyManifests(context.Context, ManifestsOf) (Applied, error)
	// AwaitWorkloads waits until everything applied is as it should be (kstatus). It heartbeats what
	// is not ready and why. Unhealthy if that takes longer than Within.
	AwaitWorkloads(context.Context, AwaitWorkloads) error
	// CheckHealth looks at nodes, system workloads and, where configured, alerts. It does not wait
	// and does not fail for what is unhealthy.
	CheckHealth(context.Context, CheckHealth) (Health, error)
}

// Statuses is how workflows write to the registry. activities/clusters implements it.
type Statuses interface {
	// WriteStatus replaces what is known of a cluster. It never touches the desired part, except that
	// a lifecycle status moves on, from requested to ready and from decommission-requested to
	// decommissioned.
	WriteStatus(context.Context, WriteStatus) error
}

// Messages is how one actor reaches another, which may not have been started yet. activities/fleet
// implements it.
type Messages interface {
	// TellClusters hands wanted versions to the actors of clusters and starts those that are missing. It
	// returns the clusters that could not be told, and fails if none could.
	TellClusters(context.Context, TellClusters) (untold []string, err error)
	// SyncFleet compares the registry and the heads of all channels with what the actors of the
	// channels know, and tells those for which something is new. It costs one request to the
	// registry and one to the repository where nothing is.
	SyncFleet(context.Context, SyncFleet) (SyncResult, error)
}

// Watch is how the actors of channels hear of the health of clusters. activities/fleet implements it.
type Watch interface {
	// LookAtHealth asks the actors of channels which clusters they want to know the health of, looks at
	// those, and tells the actors. It costs one query for each channel where nobody wants to know. It heartbeats.
	LookAtHealth(context.Context, LookAtHealth) (LookedAt, error)
}

// Gates is how an update or a batch waits for the end of blocks before it begins. activities/blocks implements it.
type Gates interface {
	// AwaitUnblocked returns when nobody blocks the cluster, or the pool, its channel or the fleet. Until then
	// it fails with Blocked, benign, to be tried again: waiting costs no history.
	AwaitUnblocked(context.Context, AwaitUnblocked) error
}

// Rolls is how an update waits for a roll that somebody else has begun. activities/fleet implements it.
type Rolls interface {
	// AwaitEnd returns when no workflow of the id runs. Until then it fails with StillRunning,
	// benign, to be tried again: waiting costs no history.
	AwaitEnd(context.Context, AwaitEnd) error
}

// UpdatePlan is what an update of a cluster to a version consists of.
type UpdatePlan struct {
	Cluster ClusterInfo `json:"cluster"`
	Version string      `json:"version"`
	Commit  string      `json:"commit"`
	// Stacks are applied one after another: etcd, then the cluster.
	Stacks []string `json:"stacks"`
	// Pools in the registry's order, those of the control plane first.
	Pools     []PlannedPool  `json:"pools"`
	Manifests int            `json:"manifests"` // objects
	Deletions int            `json:"deletions"` // entries of deletions.yaml
	Settings  UpdateSettings `json:"settings"`
	Notify    bool           `json:"notify,omitempty"`
}

// PlannedPool is a node pool of a plan.
type PlannedPool struct {
	Name         string `json:"name"`
	Stack        string `json:"stack"`
	ControlPlane bool   `json:"control_plane,omitempty"`
}

// UpdateSettings say how a cluster is updated. Config items of the cluster win over the
// environment's settings, those over the rest of fairway.yaml (config.Update).
type UpdateSettings struct {
	// ParallelPools is how many worker pools are rolled at a time.
	ParallelPools int `json:"parallel_pools"`
	// HealthyWithin is how long workloads may take to become ready after manifests were applied, and
	// the cluster to become healthy after the update.
	HealthyWithin time.Duration `json:"healthy_within"`
	// Rollback goes back to the last version by itself when an update has failed.
	Rollback bool `json:"rollback,omitempty"`
	// Prune deletes objects that Fairway applied and no manifest contains any more.
	Prune bool `json:"prune,omitempty"`
	// Windowed means that the cluster has maintenance windows or freezes to ask for.
	Windowed bool `json:"windowed,omitempty"`
	// ManifestsAnytime applies manifests outside of windows too.
	ManifestsAnytime bool `json:"manifests_anytime,omitempty"`
	// Limits on clusters that are updated at a time.
	Limits rollout.Limits `json:"limits"`
	// RetryAfter is the wait after the first failed attempt; it doubles up to RetryAtMost.
	RetryAfter  time.Duration `json:"retry_after"`
	RetryAtMost time.Duration `json:"retry_at_most"`
}

// StackChanges is what a change set says.
type StackChanges struct {
	Stack   string `json:"stack"`
	Created bool   `json:"created,omitempty"` // it did not exist before
	// Changes are empty where nothing changes.
	Changes []ResourceChange `json:"changes"`
}

// ResourceChange is one line of a change set.
type ResourceChange struct {
	Action      string `json:"action"` // Add, Modify, Remove, Import or Dynamic
	Resource    string `json:"resource"`
	Type        string `json:"type"`
	Replacement string `json:"replacement,omitempty"` // True, False or Conditional
	Detail      string `json:"detail,omitempty"`      // which properties
}

// StackProgress is where a stack stands; ApplyStack and DeleteStack heartbeat it.
type StackProgress struct {
	Status string `json:"status"`
	Event  string `json:"event,omitempty"` // the newest one, for people
}

// OwnedStack is a stack that carries a cluster's tag.
type OwnedStack struct {
	Name   string `json:"name"`
	Pool   string `json:"pool,omitempty"`
	Status string `json:"status"`
}

// ObjectChange is a change of one Kubernetes object.
type ObjectChange struct {
	Action string `json:"action"` // create, change, delete, unchanged, conflict
	Kind   string `json:"kind"`
	// Name is namespace/name, or only the name.
	Name string `json:"name"`
	File string `json:"file,omitempty"` // where the manifest is
	Diff string `json:"diff,omitempty"` // for people; values of secrets are left out
}

// Applied counts what ApplyManifests did.
type Applied struct {
	Created, Changed, Unchanged int
}

// Health is a look at a cluster. Problems are empty where it is healthy.
type Health struct {
	Healthy  bool     `json:"healthy"`
	Problems []string `json:"problems,omitempty"` // whole sentences
}

// Parameters of these activities. Cluster is always a registry id. Version is `commit#hash`.
type (
	PrepareUpdate struct {
		Cluster string `json:"cluster"`
		// Version is the wanted one; empty means that of the registry's entry at Ref.
		Version string `json:"version,omitempty"`
		// Ref is a branch, tag or commit; default is the cluster's channel. Only without a version.
		Ref string `json:"ref,omitempty"`
	}
	AwaitWindow struct {
		Cluster string `json:"cluster"`
		What    string `json:"what"` // that waits, for people
	}
	StackOf struct {
		Cluster string `json:"cluster"`
		Version string `json:"version,omitempty"` // not for DeleteStack
		Stack   string `json:"stack"`
		Pool    string `json:"pool,omitempty"` // whose stack it is, and whose blocks hold it
		// Since is when the update began, for ApplyStack: a stack that is younger was created by it, by an
		// attempt that could not say so.
		Since time.Time `json:"since,omitzero"`
	}
	StacksOf struct {
		Cluster string `json:"cluster"`
	}
	ManifestsOf struct {
		Cluster string `json:"cluster"`
		Version string `json:"version"`
	}
	DeleteObjects struct {
		Cluster string       `json:"cluster"`
		Version string       `json:"version"`
		When    DeletionTime `json:"when"`
	}
	AwaitWorkloads struct {
		Cluster string        `json:"cluster"`
		Version string        `json:"version"`
		Within  time.Duration `json:"within"`
		Since   time.Time     `json:"since"`
	}
	CheckHealth struct {
		Cluster string `json:"cluster"`
	}
	AwaitUnblocked struct {
		Cluster string `json:"cluster"`
		Pool    string `json:"pool,omitempty"` // whose blocks count too
	}
	AwaitEnd struct {
		Workflow string `json:"workflow"`
	}
	WriteStatus struct {
		Cluster string          `json:"cluster"`
		Status  registry.Status `json:"status"`
		// Lifecycle is where the cluster has got; empty leaves it.
		Lifecycle registry.LifecycleStatus `json:"lifecycle_status,omitempty"`
	}
	TellClusters struct {
		Wants []Want `json:"wants"`
	}
	SyncFleet struct {
		Channel string `json:"channel,omitempty"` // default: all
		// Shrunk believes a registry that has lost more than half of the clusters that are known.
		Shrunk bool `json:"shrunk,omitempty"`
	}
	LookAtHealth struct{}
	LookedAt     struct {
		Clusters  int      `json:"clusters"`
		Unhealthy []string `json:"unhealthy,omitempty"`
		Problems  []string `json:"problems,omitempty"` // of the look itself; whole sentences
	}
	SyncResult struct {
		Clusters int      `json:"clusters"`
		Told     []string `json:"told,omitempty"` // channels
		// Lost are clusters whose updates ended without a word.
		Lost     []string `json:"lost,omitempty"`
		Problems []string `json:"problems,omitempty"` // whole sentences
	}
)

// DeletionTime says which deletions are meant.
type DeletionTime string

// The deletions of an update.
const (
	BeforeApply DeletionTime = "before"
	AfterApply  DeletionTime = "after"
	Pruning     DeletionTime = "prune"
)

// Want is the version that a cluster is to have.
type Want struct {
	Cluster   string                   `json:"cluster"`
	Channel   string                   `json:"channel"`
	Version   string                   `json:"version"`
	Lifecycle registry.LifecycleStatus `json:"lifecycle_status"`
	// Current is what the registry says that the cluster has; an actor that knows better ignores it.
	Current string `json:"current_version,omitempty"`
	Last    string `json:"last_version,omitempty"`
	// Between is the last whole version, in place of Current, where the registry says that the cluster
	// is on its way to another.
	Between string `json:"between,omitempty"`
	// Environment of the cluster, for the search attributes of its actor.
	Environment string `json:"environment,omitempty"`
	// Block is the config item cluster_update_block of the entry; empty means none.
	Block string `json:"block,omitempty"`
	// Hold means that the channel has not let the cluster go on yet: Block and Lifecycle are news,
	// Version is not to be started.
	Hold bool `json:"hold,omitempty"`
	// RetryAfter and RetryAtMost are the waits between failed attempts, as in UpdateSettings, which
	// win once an update knows them; 0 means 5 m and 2 h.
	RetryAfter  time.Duration `json:"retry_after,omitempty"`
	RetryAtMost time.Duration `json:"retry_at_most,omitempty"`
}

// Types of application errors of updates.
const (
	VersionGone  = "VersionGone"  // commit or entry of a version are not to be had any more
	StackFailed  = "StackFailed"  // a stack could not be changed
	Conflict     = "Conflict"     // fields of an object belong to another manager
	Unhealthy    = "Unhealthy"    // the cluster, or what was applied, does not become healthy
	WindowClosed = "WindowClosed" // no maintenance window is open, or a freeze holds
	StillRunning = "StillRunning" // a workflow that is waited for has not ended
)

// Names of the signals and queries of updates, clusters' and channels' actors.
const (
	WantName      = "want"      // to a cluster's actor: Want
	UpdatedName   = "updated"   // to a cluster's actor: UpdateOutcome
	SupersedeName = "supersede" // to UpdateCluster: the version that is wanted instead
	StopName      = "stop"      // to RollPool: end after the batch in hand
	SyncName      = "sync"      // to a channel's actor: ChannelSync
	ReportName    = "report"    // to a channel's actor: ClusterReport
	RollbackName  = "rollback"  // update of a cluster's actor: RollbackRequest
	UpdateName    = "update"    // update of a cluster's actor: UpdateRequest
)

// UpdateClusterInput says what UpdateCluster is to do with a cluster.
type UpdateClusterInput struct {
	Cluster string     `json:"cluster"`
	Kind    UpdateKind `json:"kind"`
	// Version is the wanted one; From the one that the cluster has, empty if it is new.
	Version string `json:"version"`
	From    string `json:"from,omitempty"`
	// Fix goes on although the cluster is not healthy: this update is to mend it.
	Fix     bool   `json:"fix,omitempty"`
	By      string `json:"by,omitempty"`
	Reason  string `json:"reason,omitempty"`
	Attempt int    `json:"attempt"` // 1 for the first
	// Last is the version that the cluster had before From.
	Last string `json:"last,omitempty"`
	// Problems of the attempt before stand in the registry until this one has ended.
	Problems []registry.Problem `json:"problems,omitempty"`
	// Added are the pools that updates before this one have added and not seen to get their nodes.
	Added []string `json:"added,omitempty"`
}

// UpdateKind is what becomes of the cluster.
type UpdateKind string

// The kinds of updates.
const (
	Upgrade      UpdateKind = "update"
	Provision    UpdateKind = "provision"
	Decommission UpdateKind = "decommission"
	Rollback     UpdateKind = "rollback"
)

// UpdateProgress is where an update stands: the answer to ProgressQuery, and its result.
type UpdateProgress struct {
	Kind    UpdateKind `json:"kind"`
	Version string     `json:"version"`
	From    string     `json:"from,omitempty"`
	Phase   string     `json:"phase"` // preparing, checking, waiting (for window or turn), stacks, manifests, pools, verifying, restoring, done, failed, cancelled, superseded
	Step    string     `json:"step"`  // what happens now, in words
	Started time.Time  `json:"started"`
	Ended   time.Time  `json:"ended,omitzero"`
	// Unready means that manifests were applied whose workloads have not been seen to be ready.
	Unready bool `json:"unready,omitempty"`
	// Steps are those begun, in order.
	Steps []UpdateStep `json:"steps"`
	// Pools of the plan that are rolled or will be, with the workflow that rolls them.
	Pools  []PoolProgress `json:"pools,omitempty"`
	By     string         `json:"by,omitempty"`
	Reason string         `json:"reason,omitempty"`
	// Added are the pools that this update, or one before it, has added and that have not been seen to
	// have their nodes yet.
	Added []string `json:"added,omitempty"`
	// Superseded is the version that was wanted instead in the middle.
	Superseded string             `json:"superseded,omitempty"`
	Problems   []registry.Problem `json:"problems,omitempty"`
	Forced     []ForcedPod        `json:"forced,omitempty"`
	Evicted    int                `json:"evicted,omitempty"`
	// Changed means that something of the cluster may not be as it was any more. Restored means that
	// an update that failed has gone back to From by itself.
	Changed  bool `json:"changed,omitempty"`
	Restored bool `json:"restored,omitempty"`
	// RetryAfter and RetryAtMost are those of the cluster's settings, once these are known.
	RetryAfter  time.Duration `json:"retry_after,omitempty"`
	RetryAtMost time.Duration `json:"retry_at_most,omitempty"`
}

// UpdateStep is one step of an update, for people.
type UpdateStep struct {
	Name    string    `json:"name"` // such as "stack dev-1"
	Began   time.Time `json:"began"`
	Ended   time.Time `json:"ended,omitzero"`
	Outcome string    `json:"outcome,omitempty"` // such as "3 resources changed", "no change"
}

// PoolProgress is where the roll of a pool stands.
type PoolProgress struct {
	Pool     string `json:"pool"`
	Workflow string `json:"workflow"`
	State    string `json:"state"` // waiting, rolling, done, failed, stopped, removed
	Nodes    int    `json:"nodes,omitempty"`
	Replaced int    `json:"replaced,omitempty"`
}

// UpdateOutcome is how an update ended; UpdateCluster signals it to the cluster's actor.
type UpdateOutcome struct {
	UpdateProgress
	Workflow string `json:"workflow"`
	Run      string `json:"run"`
}

// RollbackRequest asks a cluster's actor to go back to a version.
type RollbackRequest struct {
	// Version is one that the cluster has had; default: the last one.
	Version string `json:"version,omitempty"`
	By      string `json:"by,omitempty"`
	Reason  string `json:"reason"`
}

// UpdateRequest asks a cluster's actor to begin at once: without waiting for the next attempt or for
// the channel's waves, but within windows, limits and blocks.
type UpdateRequest struct {
	Fix    bool   `json:"fix,omitempty"`
	By     string `json:"by,omitempty"`
	Reason string `json:"reason"`
}

// ClusterUpdates is what a cluster's actor knows about its versions; part of ClusterState.
type ClusterUpdates struct {
	Want *Want `json:"want,omitempty"`
	// Current and Last are the versions that the cluster has and had before; Current is empty while
	// an update that failed has left the cluster between two versions, and Mixed names both.
	Current string   `json:"current_version,omitempty"`
	Last    string   `json:"last_version,omitempty"`
	Mixed   []string `json:"mixed,omitempty"`
	// Sound means that what has left the cluster between versions was superseded with its workloads ready, and that nothing failed.
	Sound bool `json:"sound,omitempty"`
	// Added are the pools that the next update has to see get their nodes, as in UpdateProgress.
	Added []string `json:"added,omitempty"`
	// Running is the update under way.
	Running *RunningUpdate `json:"running,omitempty"`
	// Asked is a person's request to begin, until the update has begun.
	Asked *UpdateRequest `json:"asked,omitempty"`
	// Failed is the last failed attempt at the wanted version; nil if there was none.
	Failed *FailedUpdate `json:"failed,omitempty"`
	// Pinned is a version that a person went back to. Until another version than the one it went
	// back from is wanted, the cluster stays on it.
	Pinned *PinnedVersion `json:"pinned,omitempty"`
	// History are the newest updates, the last one last; at most 20.
	History []UpdateSummary `json:"history,omitempty"`
}

// RunningUpdate is an update under way.
type RunningUpdate struct {
	Kind       UpdateKind `json:"kind"`
	Version    string     `json:"version"`
	Since      time.Time  `json:"since"`
	Run        string     `json:"run,omitempty"`        // of the workflow cluster/<id>/update
	Superseded bool       `json:"superseded,omitempty"` // it was told that another version is wanted
}

// FailedUpdate is a failed attempt.
type FailedUpdate struct {
	Kind     UpdateKind         `json:"kind"`
	Version  string             `json:"version"`
	Problem  string             `json:"problem"`
	Problems []registry.Problem `json:"problems,omitempty"`
	Attempts int                `json:"attempts"`
	At       time.Time          `json:"at"`
	// Next is when it is tried again. Zero means not by itself: a person has cancelled it, or it was
	// rolled back, and to try it again would only roll the nodes forth and back.
	Next time.Time `json:"next,omitzero"`
}

// PinnedVersion keeps a cluster from a version that a person went back from.
type PinnedVersion struct {
	Version string    `json:"version"` // that it stays on
	Not     string    `json:"not"`     // that it does not go to
	By      string    `json:"by"`
	Reason  string    `json:"reason"`
	At      time.Time `json:"at"`
}

// UpdateSummary is a past update.
type UpdateSummary struct {
	Kind    UpdateKind `json:"kind"`
	Version string     `json:"version"`
	From    string     `json:"from,omitempty"`
	Began   time.Time  `json:"began"`
	Ended   time.Time  `json:"ended"`
	Phase   string     `json:"phase"` // done, failed, cancelled, superseded
	Problem string     `json:"problem,omitempty"`
	Run     string     `json:"run"` // of the workflow cluster/<id>/update
	By      string     `json:"by,omitempty"`
	Reason  string     `json:"reason,omitempty"`
	Forced  int        `json:"forced,omitempty"`
}

// ChannelSync is what the registry and the repository say of a channel.
type ChannelSync struct {
	Channel string `json:"channel"`
	// Commit is the head of the branch; Title the first line of its message.
	Commit   string           `json:"commit"`
	Title    string           `json:"title,omitempty"`
	Clusters []ChannelCluster `json:"clusters"`
	Settings rollout.Settings `json:"settings"`
	// Problem is why the head is not known, such as a branch that does not exist; the commit is empty
	// then, and what was wanted before stays wanted.
	Problem string `json:"problem,omitempty"`
	// Landings are those that are new since the head that the actor knew, oldest first, without times. Rewritten means that the
	// head that it knew is not on the line any more: they are the newest of the line then.
	Landings  []promotion.Landing `json:"landings,omitempty"`
	Rewritten bool                `json:"rewritten,omitempty"`
	// SoakSeconds is how long a landing has to soak, where that is longest, to be promoted to another channel; 0
	// means that nothing is promoted from here.
	SoakSeconds int64 `json:"soak_seconds,omitempty"`
	// Promoted is the newest landing that each of these other channels is known to have, empty where none is.
	Promoted []string `json:"promoted,omitempty"`
	// Keep means that clusters that are missing here have not left: the registry is not believed.
	Keep bool `json:"keep,omitempty"`
	// Digest stands for all of it, so that the same need not be told twice.
	Digest string `json:"digest,omitempty"`
}

// ChannelCluster is a cluster that follows a channel.
type ChannelCluster struct {
	rollout.Cluster
	// Want is what the cluster's actor is to be told.
	Want Want `json:"want"`
	// Lost means that its actor knows of no update although the channel's does: it is told again.
	Lost bool `json:"lost,omitempty"`
}

// ClusterReport is what a cluster's actor tells its channel's.
type ClusterReport struct {
	Cluster string        `json:"cluster"`
	Version string        `json:"version"` // wanted
	State   rollout.State `json:"state"`
	At      time.Time     `json:"at"`
	Problem string        `json:"problem,omitempty"`
	Current string        `json:"current_version,omitempty"`
	// Broken is why an update has failed that has left the cluster between versions, until it has one again:
	// to whatever version, and whatever is wanted since.
	Broken string `json:"broken,omitempty"`
	// Held means that a block of this cluster alone, not one of its channel or the fleet, keeps it
	// from going on.
	Held bool `json:"held,omitempty"`
}

// ChannelState is all that a channel's actor knows; the answer to StateQuery.
type ChannelState struct {
	ChannelSync
	Since   time.Time `json:"since"` // of the head
	Members []Member  `json:"members"`
	// Stopped is why no more clusters are let go on; empty while the rollout goes on.
	Stopped string `json:"stopped,omitempty"`
	// Wave counts the groups that have been let go on; Next is when the next one may, if that is
	// known already.
	Wave   int         `json:"wave"`
	Next   time.Time   `json:"next,omitzero"`
	Blocks ScopeBlocks `json:"blocks"`
	// Unhealthy is why the next wave waits although the one before has baked; Overdue when people are told.
	Unhealthy string    `json:"unhealthy,omitempty"`
	Overdue   time.Time `json:"overdue,omitzero"`
	// Announced means that people have been told that the rollout is stopped, or waits for health.
	Announced bool `json:"announced,omitempty"`

	Looked     Looked            `json:"looked,omitzero"`
	Promotions ChannelPromotions `json:"promotions,omitzero"`
}

// Member is a cluster of a channel and where it stands on the way to the channel's head.
type Member struct {
	rollout.Member
	Current string `json:"current_version,omitempty"`
	Problem string `json:"problem,omitempty"`
	// Broken is as in ClusterReport.
	Broken string `json:"broken,omitempty"`
	// Tell means that the cluster's actor has yet to be told what is wanted.
	Tell bool `json:"tell,omitempty"`
	// Blocked is the reason of a block of this cluster alone at the last look; empty without one.
	Blocked string `json:"blocked,omitempty"`
}

// ChannelID is the id of a channel's actor.
func ChannelID(channel string) string { return "channel/" + channel }

// UpdateClusterID is the id of the workflow that updates a cluster.
func UpdateClusterID(cluster string) string { return ClusterID(cluster) + "/update" }
