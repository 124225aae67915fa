package workflows

import (
	"context"
	"strings"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/fairway-project/fairway/registry"
	"github.com/fairway-project/fairway/roll"
)

// Kubernetes is what workflows ask of a cluster's API server. activities/kube implements it.
type Kubernetes interface {
	// ListNodes reports every node of a cluster.
	ListNodes(context.Context, ListNodes) ([]Node, error)
	// ExamineNode reports a node that is to be replaced. NodeNotFound if there is no such node.
	ExamineNode(context.Context, ExamineNode) (Node, error)
	// FindNode reports the node of an instance; its name is empty if there is none.
	FindNode(context.Context, FindNode) (Node, error)
	// SurveyPool reports the nodes of a pool and how hard each would be to empty now.
	SurveyPool(context.Context, SurveyPool) ([]Node, error)
	// Preflight lists what would hold up a drain of the pool's nodes, and what to do about it.
	Preflight(context.Context, Preflight) ([]Finding, error)
	// MarkNodes taints nodes that are to go, so that evicted pods prefer others, and marks them as
	// marked by the given workflow. Nodes that are gone are left out.
	MarkNodes(context.Context, MarkNodes) error
	// UnmarkNodes undoes on all nodes of the cluster what a roll has left on them: taints, holds
	// of the autoscaler, quarantines and cordons.
	UnmarkNodes(context.Context, UnmarkNodes) error
	// AwaitNode waits until the instance is a node that is Ready, runs its DaemonSets and has
	// stayed so for the settle time. BadReplacement if that takes longer than configured. As soon
	// as there is a node, the autoscaler is kept from removing it. It heartbeats.
	AwaitNode(context.Context, AwaitNode) (Node, error)
	// CordonNode makes a node unschedulable and marks it as cordoned by the given workflow.
	CordonNode(context.Context, CordonNode) error
	// UncordonNode undoes CordonNode, and nothing that somebody else did.
	UncordonNode(context.Context, CordonNode) error
	// DrainNode evicts the pods of a node within their budgets and waits until they are gone, their
	// volumes detached, and nobody blocks the pool: the node may be ended then. It heartbeats a
	// DrainProgress.
	DrainNode(context.Context, DrainNode) (DrainProgress, error)
	// QuarantineNode marks a node that could not be drained. It stays cordoned.
	QuarantineNode(context.Context, QuarantineNode) error
	// AwaitNodeGone waits until the Node object is gone. It heartbeats.
	AwaitNodeGone(context.Context, AwaitNodeGone) error
}

// AutoScaling is what workflows ask of AWS about node pools. activities/aws implements it.
type AutoScaling interface {
	// ExaminePool reports the Auto Scaling group behind a node pool. PoolNotFound if there is none.
	ExaminePool(context.Context, ExaminePool) (Pool, error)
	// ProtectPool keeps Auto Scaling from working against a roll: it suspends the processes that
	// would end or move instances, and protects the instances from scale-in. What it changes is
	// written on the group and the instances, so that RestorePool can undo it whatever happened.
	ProtectPool(context.Context, ProtectPool) error
	// RestorePool undoes ProtectPool and what is left of GrowPool's changes, and says in words what
	// could not be restored without harm; nothing if all is as before.
	RestorePool(context.Context, ProtectPool) (left string, err error)
	// GrowPool sets the group's desired capacity from one value to another, with launches as asked
	// for. It does nothing if the capacity is To already, and returns PoolBusy if it is neither.
	GrowPool(context.Context, GrowPool) error
	// AwaitInstances waits for instances in service that are not among the known ones, protects
	// them from scale-in, and undoes what GrowPool changed about launches. NoCapacity if AWS has
	// none, LaunchFailing if launches fail for another reason, with what AWS says. It heartbeats.
	AwaitInstances(context.Context, AwaitInstances) ([]Instance, error)
	// ReleaseCapacity lowers the group's desired capacity again, unless instances that are not
	// among the known ones exist: those it reports instead, since they have to be emptied first.
	ReleaseCapacity(context.Context, ReleaseCapacity) ([]Instance, error)
	// TerminateInstance ends an instance, once, and lowers the group's size by it or has the group
	// replace it.
	TerminateInstance(context.Context, TerminateInstance) (Termination, error)
	// AwaitTermination waits until the instance is terminated. It heartbeats.
	AwaitTermination(context.Context, TerminateInstance) error
}

// Turns is what workflows ask about the limits across clusters. activities/fleet implements it.
type Turns interface {
	// AwaitTurn waits until the limits of fleet, account and region let the holder replace some
	// more nodes. It heartbeats.
	AwaitTurn(context.Context, AwaitTurn) error
	// EndTurn gives back what AwaitTurn took.
	EndTurn(context.Context, AwaitTurn) error
}

// Notifications is how workflows tell people. activities/notify implements it.
type Notifications interface {
	// Notify tells the configured hook and the routes that match; without them it does nothing.
	Notify(context.Context, Notification) error
}

// Registry is what workflows ask of the cluster registry. activities/clusters implements it.
type Registry interface {
	// ListClusters reports all clusters, or those named by id or alias. ClusterNotFound if one is unknown.
	ListClusters(context.Context, ListClusters) ([]ClusterInfo, error)
	// FindPool reports a cluster, what the registry knows of one of its pools, and how the pool is
	// to be rolled. A pool that is not in the registry is rolled as by default.
	FindPool(context.Context, FindPool) (PoolInfo, error)
}

// Node is a Kubernetes node and the instance it runs on.
type Node struct {
	Name     string    `json:"name"`
	Pool     string    `json:"pool"`
	Instance string    `json:"instance"`
	Type     string    `json:"type,omitempty"`
	Zone     string    `json:"zone,omitempty"`
	Version  string    `json:"version,omitempty"`
	Ready    bool      `json:"ready"`
	Cordoned bool      `json:"cordoned"`
	Pods     int       `json:"pods"`
	Created  time.Time `json:"created"`
	// ControlPlane nodes are replaced one at a time.
	ControlPlane bool `json:"control_plane,omitempty"`
	// By SurveyPool only: pods that nothing but a person or force lets go, pods that are held at the
	// moment, and whether pods have volumes that only this zone can serve.
	Never  int  `json:"never,omitempty"`
	Held   int  `json:"held,omitempty"`
	Pinned bool `json:"pinned,omitempty"`
	// Quarantined is why an earlier drain was given up; empty if none was.
	Quarantined string `json:"quarantined,omitempty"`
}

// Pool is the Auto Scaling group behind a node pool.
type Pool struct {
	Group     string     `json:"group"`
	Min       int        `json:"min"`
	Max       int        `json:"max"`
	Desired   int        `json:"desired"`
	Zones     []string   `json:"zones,omitempty"` // in which it launches
	Spot      bool       `json:"spot,omitempty"`  // it launches Spot instances
	Instances []Instance `json:"instances"`
}

// Instance is a member of an Auto Scaling group.
type Instance struct {
	ID        string `json:"id"`
	Zone      string `json:"zone"`
	Type      string `json:"type"`
	Lifecycle string `json:"lifecycle"` // as Auto Scaling names it: Pending, InService, Terminating, ...
	// Old means that it was launched from another version of the launch template than the group uses now.
	Old bool `json:"old"`
}

func (i Instance) ends() bool { return strings.HasPrefix(i.Lifecycle, "Terminat") }

// Launch says how instances are to be launched; the zero value means as the group is configured.
type Launch struct {
	Zones    []string `json:"zones,omitempty"` // only in these
	Type     string   `json:"type,omitempty"`  // of this type
	OnDemand bool     `json:"on_demand,omitempty"`
}

// PoolInfo is a pool of the registry and how it is to be rolled.
type PoolInfo struct {
	Cluster ClusterInfo `json:"cluster"`
	Pool    string      `json:"pool"`
	// Types are the instance types that the pool may use, the preferred one first.
	Types    []string      `json:"types,omitempty"`
	Spot     bool          `json:"spot,omitempty"`
	Settings roll.Settings `json:"settings"`
	// Notify says that a hook for notifications is configured.
	Notify bool `json:"notify,omitempty"`
	// Windowed means that the cluster has maintenance windows or freezes to ask for.
	Windowed bool `json:"windowed,omitempty"`
}

// Notification is something that people want to know at once.
type Notification struct {
	// ID is the same for the same thing, so that a receiver can tell repetitions.
	ID      string    `json:"id"`
	Kind    string    `json:"kind"` // see below
	Cluster string    `json:"cluster"`
	Channel string    `json:"channel,omitempty"` // default: that of the cluster
	Pool    string    `json:"pool,omitempty"`
	Node    string    `json:"node,omitempty"`
	Pod     string    `json:"pod,omitempty"` // namespace/name
	Owner   string    `json:"owner,omitempty"`
	Text    string    `json:"text"` // for people, whole sentences
	At      time.Time `json:"at"`
}

// Finding is something that would hold up, or be hurt by, the drain of a pool's nodes.
type Finding struct {
	// Kind is never-allowed, nothing-to-spare, single-replica, two-budgets, unmanaged, local-data,
	// do-not-disrupt or zone-without-capacity.
	Kind      string   `json:"kind"`
	Namespace string   `json:"namespace"`
	Name      string   `json:"name"` // of the budget, workload, pod or volume
	Owner     string   `json:"owner,omitempty"`
	Pods      []string `json:"pods"`  // concerned, namespace/name
	Nodes     []string `json:"nodes"` // they run on
	Problem   string   `json:"problem"`
	Remedy    string   `json:"remedy"`
	// Holds means that a drain waits for it; otherwise something is only at risk.
	Holds bool `json:"holds"`
}

// Kinds of notifications.
const (
	ForceSoon   = "force-soon"
	Forced      = "forced"
	Quarantined = "quarantined"
	Fallback    = "fallback"
	RollBegins  = "roll-begins"
	RollStopped = "roll-stopped"
	RollDone    = "roll-done"

	UpdateBegins    = "update-begins"
	UpdateDone      = "update-done"
	UpdateFailed    = "update-failed"
	UpdateCancelled = "update-cancelled"
	RolledBack      = "rolled-back"
	RolloutStopped  = "rollout-stopped"

	StrayLanding    = "stray-landing"
	ChannelReverted = "channel-reverted"

	TestNotTornDown = "test-not-torn-down"
	Swept           = "swept"
	SweepAsks       = "sweep-asks"
)

// ClusterInfo is a cluster of the registry, as far as workflows and the command line need it.
type ClusterInfo struct {
	ID          string `json:"id"`
	Alias       string `json:"alias,omitempty"`
	Channel     string `json:"channel"`
	Environment string `json:"environment"`
	Account     string `json:"infrastructure_account"`
	Region      string `json:"region"`
	Lifecycle   string `json:"lifecycle_status"`
	Version     string `json:"current_version,omitempty"`
	NextVersion string `json:"next_version,omitempty"`
	LastVersion string `json:"last_version,omitempty"`
	Owner       string `json:"owner,omitempty"`
	Pools       int    `json:"node_pools"`
	Criticality int    `json:"criticality_level"`
	// Problem is the title of the first of Problems.
	Problem  string             `json:"problem,omitempty"`
	Problems []registry.Problem `json:"problems,omitempty"`
}

// Parameters of the activities. Cluster is always a registry id or alias.
type (
	ListClusters struct {
		Names []string `json:"names,omitempty"` // none means all
	}
	ListNodes struct {
		Cluster string `json:"cluster"`
	}
	ExamineNode struct {
		Cluster string `json:"cluster"`
		Node    string `json:"node"`
	}
	FindPool struct {
		Cluster string `json:"cluster"`
		Pool    string `json:"pool"`
	}
	SurveyPool struct {
		Cluster string `json:"cluster"`
		Pool    string `json:"pool"`
	}
	Preflight struct {
		Cluster string   `json:"cluster"`
		Pool    string   `json:"pool"`
		Zones   []string `json:"zones,omitempty"` // in which the pool launches
	}
	MarkNodes struct {
		Cluster string   `json:"cluster"`
		Pool    string   `json:"pool"`
		Nodes   []string `json:"nodes"`
		By      string   `json:"by"` // workflow id of the roll
	}
	UnmarkNodes struct {
		Cluster string `json:"cluster"`
		// By is the workflow id of the roll. Cordons by ReplaceNode of the nodes it has marked are
		// undone too.
		By string `json:"by"`
	}
	QuarantineNode struct {
		CordonNode
		Reason string `json:"reason"`
	}
	AwaitNode struct {
		Cluster  string    `json:"cluster"`
		Instance string    `json:"instance"`
		Since    time.Time `json:"since"` // when its instance was asked for
		By       string    `json:"by"`    // workflow id of the roll
		// Settle is how long the node has to stay usable; 0 means as configured.
		Settle time.Duration `json:"settle,omitempty"`
	}
	CordonNode struct {
		Cluster  string `json:"cluster"`
		Pool     string `json:"pool"`
		Node     string `json:"node"`
		Instance string `json:"instance"` // a node of the same name on another instance is left alone
		By       string `json:"by"`       // workflow id
	}
	DrainNode struct {
		Cluster  string    `json:"cluster"`
		Pool     string    `json:"pool"`
		Node     string    `json:"node"`
		Instance string    `json:"instance"`
		Started  time.Time `json:"started"` // of the first attempt
		// Tried is for how long earlier drains of the node were tried, blocked time not counted. It
		// counts for GiveUpAfter and towards a force.
		Tried time.Duration `json:"tried,omitempty"`
		By    string        `json:"by"` // workflow id, as on the node's cordon
		// GiveUpAfter ends the drain unfinished when it has lasted that long, blocked time not
		// counted; 0 means never.
		GiveUpAfter time.Duration `json:"give_up_after,omitempty"`
	}
	AwaitNodeGone struct {
		Cluster  string `json:"cluster"`
		Node     string `json:"node"`
		Instance string `json:"instance"`
	}
	ExaminePool struct {
		Cluster string `json:"cluster"`
		Pool    string `json:"pool"`
	}
	ProtectPool struct {
		Cluster string `json:"cluster"`
		Pool    string `json:"pool"`
		Group   string `json:"group"`
		// Empty lets the group become empty: its minimum is 0 until RestorePool, or for good if that
		// is told so too.
		Empty bool `json:"empty,omitempty"`
	}
	GrowPool struct {
		Cluster string `json:"cluster"`
		Pool    string `json:"pool"`
		Group   string `json:"group"`
		From    int    `json:"from"`
		To      int    `json:"to"`
		Launch  Launch `json:"launch"`
	}
	AwaitInstances struct {
		Cluster string    `json:"cluster"`
		Group   string    `json:"group"`
		Known   []string  `json:"known"`
		Zones   []string  `json:"zones,omitempty"` // only instances in these count; none means all
		Count   int       `json:"count"`
		Since   time.Time `json:"since"` // when they were asked for
		// ShortageAfter is how long AWS may lack capacity before that is NoCapacity.
		ShortageAfter time.Duration `json:"shortage_after"`
	}
	AwaitTurn struct {
		Holder  string      `json:"holder"` // workflow id
		Account string      `json:"account"`
		Region  string      `json:"region"`
		Nodes   int         `json:"nodes"`
		Limits  roll.Limits `json:"limits"`
		// ControlPlane is the cluster whose control plane the nodes belong to, of which only one goes
		// at a time; empty for other nodes.
		ControlPlane string `json:"control_plane,omitempty"`
		// Clusters means that it is a turn to update a cluster: the limits count clusters, not nodes.
		Clusters bool `json:"clusters,omitempty"`
	}
	ReleaseCapacity struct {
		Cluster string   `json:"cluster"`
		Group   string   `json:"group"`
		From    int      `json:"from"`
		To      int      `json:"to"`
		Known   []string `json:"known"`
		// Launch is how instances that are still to come are launched.
		Launch Launch `json:"launch,omitzero"`
	}
	FindNode struct {
		Cluster  string `json:"cluster"`
		Instance string `json:"instance"`
	}
	TerminateInstance struct {
		Cluster  string `json:"cluster"`
		Pool     string `json:"pool"`
		Group    string `json:"group"`
		Instance string `json:"instance"`
		By       string `json:"by"` // workflow id
		// Replace has the group launch another instance, as Launch says; otherwise the group gets
		// smaller by one.
		Replace bool   `json:"replace,omitempty"`
		Launch  Launch `json:"launch,omitzero"`
	}
)

// Termination tells who ended an instance.
type Termination struct {
	// Vanished means that somebody or something else did, so that the group's size is unchanged
	// and the group replaces the instance.
	Vanished bool `json:"vanished"`
}

// DrainProgress is where a drain stands; DrainNode heartbeats it and returns the last one.
type DrainProgress struct {
	Total   int         `json:"total"`   // pods that had to leave when the drain (or its last attempt) began
	Left    int         `json:"left"`    // of them still there, terminating ones included
	Evicted int         `json:"evicted"` // evictions granted
	Refused int         `json:"refused"` // evictions refused
	Waiting []HeldPod   `json:"waiting,omitempty"`
	Blocked string      `json:"blocked,omitempty"` // by whom and why nothing is evicted
	Trouble string      `json:"trouble,omitempty"` // why nothing is known at the moment, such as an API server that does not answer
	Forced  []ForcedPod `json:"forced,omitempty"`
	Stuck   []string    `json:"stuck,omitempty"` // pods long past their grace period
	// Detaching are volumes that are waited for after the pods have gone.
	Detaching []string `json:"detaching,omitempty"`
	// GaveUp means that it has lasted too long, and pods are left.
	GaveUp bool `json:"gave_up,omitempty"`
	// Tried is for how long this drain has been tried, blocked time not counted.
	Tried time.Duration `json:"tried,omitempty"`
}

// ForcedPod records a pod that was deleted although something held it.
type ForcedPod struct {
	Pod       string    `json:"pod"` // namespace/name
	UID       string    `json:"uid"`
	Budget    string    `json:"budget,omitempty"` // that held it, if one did
	Owner     string    `json:"owner,omitempty"`
	Reason    string    `json:"reason"`
	At        time.Time `json:"at"`
	Authority string    `json:"authority"` // the rule or the person that allowed it
}

// HeldPod is a pod that cannot leave yet, and why.
type HeldPod struct {
	Pod    string `json:"pod"`              // namespace/name
	Budget string `json:"budget,omitempty"` // name of the PodDisruptionBudget that holds it
	Owner  string `json:"owner,omitempty"`
	Reason string `json:"reason"`
	// Since is when the drain began that it holds up.
	Since time.Time `json:"since,omitzero"`
	// ForceAt is when it may be forced; zero if never.
	ForceAt time.Time `json:"force_at,omitzero"`
}

// Types of application errors. They are part of the contract between activities, workflows and
// the command line: whoever gets one can tell what kind of thing is wrong. Those in the first
// group are final. The others may be mended from outside at any time, so work that has begun
// keeps trying, and work that has not is refused (see examining).
const (
	ClusterNotFound = "ClusterNotFound" // not in the registry
	NodeNotFound    = "NodeNotFound"    // never was, or is gone already
	PoolNotFound    = "PoolNotFound"    // no Auto Scaling group carries its tags
	NoSurgeRoom     = "NoSurgeRoom"     // the pool is at its maximum
	PoolBusy        = "PoolBusy"        // the group is changed by somebody else
	Detached        = "Detached"        // the instance left its group, but runs
	BadReplacement  = "BadReplacement"  // a new instance never became a usable node
	NoCapacity      = "NoCapacity"      // AWS has no such instances now
	LaunchFailing   = "LaunchFailing"   // the group cannot launch instances, for a reason of its own

	AccessDenied = "AccessDenied" // credentials are refused
	InvalidInput = "InvalidInput" // a file or an object is wrong
	Unreachable  = "Unreachable"  // an endpoint does not answer
	Blocked      = "Blocked"      // somebody ordered that nothing be changed
)

// Types of the errors that workflows themselves end with.
const (
	Stopped    = "Stopped"    // a part of the work was cancelled by somebody
	UndoFailed = "UndoFailed" // what had been begun could not be undone wholly
)

// examining is for the first look at what is to be changed. What is wrong then is the caller's
// to mend; only an endpoint that does not answer is given another two chances.
func examining(ctx workflow.Context, summary string) workflow.Context {
	return workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		StartToCloseTimeout: 30 * time.Second,
		RetryPolicy: &temporal.RetryPolicy{
			MaximumAttempts:        3,
			NonRetryableErrorTypes: []string{AccessDenied, InvalidInput},
		},
		Summary: summary,
	})
}

// changing is for activities that make a few requests. Once something has begun it is carried
// on: an endpoint that is gone comes back, and credentials get mended. A cancellation waits for
// the attempt under way, whose effect has to be known before it can be undone.
func changing(ctx workflow.Context, summary string) workflow.Context {
	return workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		StartToCloseTimeout: 30 * time.Second,
		WaitForCancellation: true,
		RetryPolicy:         patient,
		Summary:             summary,
	})
}

// waiting is for activities that fail in a benign way until what they wait for is there. It costs no
// history to try them again, nor a place on a worker in between.
func waiting(ctx workflow.Context, summary string) workflow.Context {
	ctx = changing(ctx, summary)
	options := workflow.GetActivityOptions(ctx)
	policy := *patient
	policy.MaximumInterval = time.Minute
	options.RetryPolicy = &policy
	return workflow.WithActivityOptions(ctx, options)
}

// unless waits for the end of an activity, or until it is enough, which ends the activity early.
// Either way it has ended then.
func unless(ctx workflow.Context, enough func() bool, start func(workflow.Context) workflow.Future) error {
	ctx, end := workflow.WithCancel(ctx)
	defer end()
	future := start(ctx)
	seeing, stop := workflow.NewDisconnectedContext(ctx) // the end of a cancelled activity is waited for too
	defer stop()
	if err := workflow.Await(seeing, func() bool { return enough() || future.IsReady() }); err != nil {
		return err
	}
	end()
	return future.Get(ctx, nil)
}

// once asks what is else waited for a single time. What cannot be known now is found out by waiting.
func once(ctx workflow.Context, summary, activity string, in any) bool {
	options := workflow.GetActivityOptions(examining(ctx, summary))
	options.RetryPolicy.MaximumAttempts = 1
	return workflow.ExecuteActivity(workflow.WithActivityOptions(ctx, options), activity, in).Get(ctx, nil) == nil
}

// ending is for the end of an instance. A block is not waited for: what was true before it, such as
// that a node is empty, has to be made sure again after it.
func ending(ctx workflow.Context, summary string) workflow.Context {
	ctx = changing(ctx, summary)
	options := workflow.GetActivityOptions(ctx)
	policy := *patient
	policy.NonRetryableErrorTypes = []string{Blocked}
	options.RetryPolicy = &policy
	return workflow.WithActivityOptions(ctx, options)
}

// watching is for activities that wait for the outside world. They heartbeat; after a crash the
// next attempt begins when the heartbeat timeout has run out. atMost bounds all attempts together.
func watching(ctx workflow.Context, summary string, atMost time.Duration) workflow.Context {
	return workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		ScheduleToCloseTimeout: atMost,
		HeartbeatTimeout:       heartbeatTimeout,
		WaitForCancellation:    true,
		RetryPolicy:            patient,
		Summary:                summary,
	})
}

var patient = &temporal.RetryPolicy{
	InitialInterval:    time.Second,
	BackoffCoefficient: 2,
	MaximumInterval:    15 * time.Second,
}

// heartbeatTimeout is also how long a crashed worker goes unnoticed, and 80 % of it how long a
// cancellation may take to arrive.
const heartbeatTimeout = 10 * time.Second

// forEver bounds what only a person or the outside world ends.
const forEver = 365 * 24 * time.Hour

// asChild is for children that are cancelled with their parent and whose end it waits for.
func asChild(ctx workflow.Context, id, summary string, attributes temporal.SearchAttributes) workflow.Context {
	return workflow.WithChildOptions(ctx, workflow.ChildWorkflowOptions{
		WorkflowID:            id,
		StaticSummary:         summary,
		TypedSearchAttributes: attributes,
		WaitForCancellation:   true,
		ParentClosePolicy:     enumspb.PARENT_CLOSE_POLICY_REQUEST_CANCEL,
	})
}
