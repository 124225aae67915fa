package workflows

import (
	"context"
	"time"

	"github.com/fairway-project/fairway/promotion"
)

// Promotions is what workflows ask about promotions: of the pipeline, the configuration repository and
// its forge. activities/promotions implements it. An edge is named by its two channels; what is
// configured about it is read by the activities.
type Promotions interface {
	// ChoosePromotion says which landing is to be promoted along an edge now, if any: soak, windows,
	// gates, blocks, refusals and reverts are looked at. It changes nothing. InvalidInput if there is
	// no such edge or branch.
	ChoosePromotion(context.Context, ChoosePromotion) (PromotionChoice, error)
	// MergePromotion merges a candidate into the target and pushes it, once, against the head that the
	// target has at that moment. A candidate that the target has already is found with the merge that
	// brought it. A conflict, a gate, a block or a window is an outcome, not an error.
	MergePromotion(context.Context, PromotionOf) (promotion.Record, error)
	// OpenPromotion pins the candidate by a branch and opens the one pull request for it, or finds it.
	// A conflict is an outcome.
	OpenPromotion(context.Context, PromotionOf) (promotion.Record, error)
	// FollowPromotion returns when a pull request has come to its end: merged, by itself if so
	// configured, refused, superseded or withdrawn. Until then it keeps its comment up to date and
	// fails with NotYet, benign, whose message says what it waits for: waiting costs no history.
	FollowPromotion(context.Context, PromotionOf) (promotion.Record, error)
	// ReportConflict opens a pull request that names the files and commits of a conflict, or brings it
	// up to date, for people to resolve.
	ReportConflict(context.Context, PromotionOf) (promotion.Record, error)
	// WithdrawPromotion closes the pull request of a promotion and deletes its branch; either may be
	// gone already.
	WithdrawPromotion(context.Context, PromotionOf) error
	// RecordPromotion tells the actor of the target what became of a promotion.
	RecordPromotion(context.Context, promotion.Record) error
	// ReportPromotion says what a candidate carries and touches.
	ReportPromotion(context.Context, PromotionOf) (promotion.Report, error)
	// ListLacking lists what the channel has that a channel it is promoted from still lacks; equal content
	// counts as present.
	ListLacking(context.Context, ListLacking) ([]Lacking, error)
	// RevertChannel restores the content that a landing of the channel had, by a commit on top of its head
	// that takes the same road as a promotion: a push, or a pull request.
	RevertChannel(context.Context, RevertChannel) (promotion.Revert, error)
}

// NotYet is the type of the error with which FollowPromotion waits.
const NotYet = "NotYet"

// Parameters and results of these activities.
type (
	ChoosePromotion struct {
		From string `json:"from"`
		To   string `json:"to"`
		// Candidate is a commit of From, or the first digits of one; default: the newest that has soaked.
		Candidate string `json:"candidate,omitempty"`
		// Now does not wait for soak and windows.
		Now bool `json:"now,omitempty"`
		// SkipGates are the names of gates that need not be passed.
		SkipGates []string `json:"skip_gates,omitempty"`
		// IfIdle chooses nothing, and asks nobody else, while a promotion along the edge is under way.
		IfIdle bool `json:"if_idle,omitempty"`
	}
	PromotionChoice struct {
		promotion.Choice
		Mode promotion.Mode `json:"mode"` // by pull request too where the class of the change needs a person
		// Gates are the results of those that were asked, empty without a candidate.
		Gates []promotion.GateResult `json:"gates,omitempty"`
		Class promotion.Class        `json:"class,omitempty"`
		// Soaked is for how long the candidate has.
		Soaked time.Duration `json:"soaked,omitempty"`
		// Go means that the candidate is to be promoted now; Choice.Why says why not otherwise.
		Go bool `json:"go"`
	}
	PromotionOf struct {
		promotion.Record
		Now       bool     `json:"now,omitempty"`
		SkipGates []string `json:"skip_gates,omitempty"`
	}
	ListLacking struct {
		Channel string `json:"channel"`
	}
	// Lacking is a commit of a channel whose content another one lacks.
	Lacking struct {
		promotion.Change
		Missing string `json:"missing"` // the channel that lacks it
	}
	RevertChannel struct {
		Channel string `json:"channel"`
		To      string `json:"to"`
		By      string `json:"by,omitempty"`
		Reason  string `json:"reason"`
		// DryRun only says what would be done.
		DryRun bool `json:"dry_run,omitempty"`
	}
)

// PromoteInput says what Promote is to do. The zero values of all but the channels mean: what is due.
type PromoteInput struct {
	From      string   `json:"from"`
	To        string   `json:"to"`
	Candidate string   `json:"candidate,omitempty"`
	Now       bool     `json:"now,omitempty"`
	SkipGates []string `json:"skip_gates,omitempty"`
	By        string   `json:"by,omitempty"`
	Reason    string   `json:"reason,omitempty"`
	// Record is handed on by a run that continues as new while it follows a pull request.
	Record *promotion.Record `json:"record,omitempty"`
}

// PromotionProgress is the answer of Promote to ProgressQuery.
type PromotionProgress struct {
	promotion.Record
	Phase string `json:"phase"` // choosing, merging, opening, following, recording, withdrawing
	Step  string `json:"step"`  // in words
}

// Names of signals to Promote and to the actors of channels.
const (
	LookName     = "look"     // to Promote: something has happened on the forge
	PromotedName = "promoted" // to a channel's actor, from those who promote into it: promotion.Record
	HealthName   = "health"   // to a channel's actor: ChannelHealth
	RevertedName = "reverted" // to a channel's actor: promotion.Revert; an ID known already is brought up to date
)

// LiftRevertName is an update of a channel's actor: promotions into it go on in spite of a revert.
const LiftRevertName = "lift-revert"

// LiftRevert says which revert is lifted.
type LiftRevert struct {
	ID     string `json:"id,omitempty"` // default: all
	Reason string `json:"reason"`
	By     string `json:"by,omitempty"`
}

// WatchedQuery asks a channel's actor for its Watched.
const WatchedQuery = "watched"

// Watched are the clusters whose health a channel's actor wants to know now: those of a channel on which
// something soaks, or of a wave that bakes; none otherwise.
type Watched struct {
	Clusters []string `json:"clusters,omitempty"`
	// Soaks means that something soaks. Where the channel has no clusters, only a change of Blocked, which is
	// what it was told last of the fleet, has to be told.
	Soaks   bool   `json:"soaks,omitempty"`
	Blocked string `json:"blocked,omitempty"`
}

// ChannelHealth is a look at clusters of a channel.
type ChannelHealth struct {
	// At is when the look began: none of what it has seen is older.
	At time.Time `json:"at"`
	// GoodSeconds is for how long it may be believed, at most an hour; default 3 m.
	GoodSeconds int64           `json:"good_seconds,omitempty"`
	Clusters    []ClusterHealth `json:"clusters"`
	// Blocked is why the fleet is blocked; empty if it is not.
	Blocked string `json:"blocked,omitempty"`
}

// ClusterHealth is a look at a cluster.
type ClusterHealth struct {
	Cluster string `json:"cluster"`
	// Problems are empty where it is healthy. A cluster that does not answer has one. At most three, shortened.
	Problems []string `json:"problems,omitempty"`
	// Blocked is the reason of a block of this cluster; empty without one.
	Blocked string `json:"blocked,omitempty"`
}

// ChannelPromotions is what a channel's actor knows about promotions; part of ChannelState.
type ChannelPromotions struct {
	// Soak is about promotions out of the channel.
	Soak promotion.Soak `json:"soak"`
	// Records are the newest promotions into the channel, the last one last; at most 50.
	Records []promotion.Record `json:"records,omitempty"`
	// Refused are candidates that people have refused, by edge into the channel; at most 100.
	Refused []promotion.Refusal `json:"refused,omitempty"`
	// Reverts are the newest, the last one last; at most 20.
	Reverts []promotion.Revert `json:"reverts,omitempty"`
}

// Looked is what a channel's actor knows of the last look at health; part of ChannelState.
type Looked struct {
	At          time.Time `json:"at,omitzero"`
	GoodSeconds int64     `json:"good_seconds,omitempty"`
	// Blocked is why the fleet was blocked then; empty if it was not.
	Blocked string `json:"blocked,omitempty"`
}

// PromotionID is the id of the workflow that promotes along an edge, of its schedule, and what the ids
// of the scheduled looks begin with.
func PromotionID(from, to string) string { return "promotion/" + promotion.Name(from, to) }
