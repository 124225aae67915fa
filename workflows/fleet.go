package workflows

import (
	"fmt"
	"slices"
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"
)

// FleetID is the id of the actor that keeps the limits across clusters, and blocks of all of them.
const FleetID = "fleet"

// FleetState is all that the fleet's actor knows.
type FleetState struct {
	Turns []Turn `json:"turns"`
	// Blocks hold the whole fleet.
	Blocks ScopeBlocks `json:"blocks"`
}

// Turn is a number of nodes that somebody may replace now, or of clusters that somebody may update.
type Turn struct {
	AwaitTurn
	Since time.Time `json:"since"`
}

// Names of the updates of the fleet's actor. Its query is StateQuery.
const (
	TakeTurn   = "take-turn"
	ReturnTurn = "return-turn"
)

// NoTurn is the type of the error with which the actor refuses a turn for the moment.
const NoTurn = "NoTurn"

// Fleet is the actor that keeps how many nodes are replaced, and how many clusters are updated, at a
// time over all clusters; and the blocks of the whole fleet. A turn that is refused costs no history: the validator of the update refuses it, and whoever wants it asks
// again. One actor serves the whole fleet; a turn costs it about ten events.
func Fleet(ctx workflow.Context, state FleetState) error {
	f := &fleetActor{state}
	if err := workflow.SetQueryHandler(ctx, StateQuery, func() (FleetState, error) { return f.FleetState, nil }); err != nil {
		return err
	}
	if err := workflow.SetUpdateHandlerWithOptions(ctx, TakeTurn,
		func(ctx workflow.Context, want AwaitTurn) error {
			// Validated once more: another one may have been let in since.
			if err := f.Room(want); err != nil {
				return err
			}
			f.end(want.Holder)
			f.Turns = append(f.Turns, Turn{want, workflow.Now(ctx)})
			f.tell(ctx)
			return nil
		},
		workflow.UpdateHandlerOptions{Validator: func(want AwaitTurn) error { return f.Room(want) }, Description: "replace some nodes or update a cluster, if the limits allow it"},
	); err != nil {
		return err
	}
	if err := workflow.SetUpdateHandlerWithOptions(ctx, ReturnTurn,
		func(ctx workflow.Context, holder string) error {
			f.end(holder)
			f.tell(ctx)
			return nil
		},
		workflow.UpdateHandlerOptions{Description: "give back what take-turn took"},
	); err != nil {
		return err
	}
	selector := workflow.NewSelector(ctx)
	if err := f.Blocks.handle(ctx, selector, FleetID, func(ctx workflow.Context) {
		f.tell(ctx)
		// Only where something changes: fleets that were never blocked have no such event. It fails
		// only if the namespace lacks the attribute, which the worker checks at its start.
		_ = workflow.UpsertTypedSearchAttributes(ctx, BlockedAttribute.ValueSet(len(f.Blocks.Holding) > 0))
	}); err != nil {
		return err
	}
	workflow.GoNamed(ctx, "signals", func(ctx workflow.Context) {
		for {
			selector.Select(ctx)
		}
	})
	f.tell(ctx)
	if err := workflow.Await(ctx, func() bool {
		return workflow.GetInfo(ctx).GetCurrentHistoryLength() > clusterHistory && !selector.HasPending() && workflow.AllHandlersFinished(ctx)
	}); err != nil {
		return err
	}
	return workflow.NewContinueAsNewError(ctx, Fleet, f.FleetState)
}

type fleetActor struct{ FleetState }

func (f *fleetActor) end(holder string) {
	f.Turns = slices.DeleteFunc(f.Turns, func(t Turn) bool { return t.Holder == holder })
}

// Room says why there is no room for a turn at the moment; nil if there is. A turn larger than a
// limit has room when nobody else has one.
func (s FleetState) Room(want AwaitTurn) error {
	for _, scope := range []struct {
		name  string
		limit int
		in    func(Turn) bool
	}{
		{"the fleet", want.Limits.Fleet, func(Turn) bool { return true }},
		{"account " + want.Account, want.Limits.Account, func(t Turn) bool { return t.Account == want.Account }},
		{"region " + want.Region, want.Limits.Region, func(t Turn) bool { return t.Region == want.Region }},
		{"the control plane of " + want.ControlPlane, min(1, len(want.ControlPlane)), func(t Turn) bool { return t.ControlPlane == want.ControlPlane }},
	} {
		taken := 0
		for _, turn := range s.Turns {
			if turn.Holder != want.Holder && turn.Clusters == want.Clusters && scope.in(turn) {
				taken += turn.Nodes
			}
		}
		if scope.limit > 0 && taken > 0 && taken+want.Nodes > scope.limit {
			what, how := "nodes", "replaced"
			if want.Clusters {
				what, how = "clusters", "updated"
			}
			return temporal.NewApplicationError(fmt.Sprintf("%d %s of %s are being %s, and the limit is %d", taken, what, scope.name, how, scope.limit), NoTurn)
		}
	}
	return nil
}

func (f *fleetActor) tell(ctx workflow.Context) {
	var nodes, clusters string
	for _, turn := range f.Turns {
		line := fmt.Sprintf("\n- %d by `%s` (%s, %s) since %s", turn.Nodes, turn.Holder, turn.Account, turn.Region, turn.Since.UTC().Format(time.RFC3339))
		if turn.Clusters {
			clusters += line
		} else {
			nodes += line
		}
	}
	details := "No nodes are being replaced."
	if nodes != "" {
		details = "Nodes that are being replaced:\n" + nodes
	}
	if clusters != "" {
		details += "\n\nClusters that are being updated:\n" + clusters
	}
	if blocked := f.Blocks.details(FleetID); blocked != "" {
		details = blocked + "\n\n" + details
	}
	workflow.SetCurrentDetails(ctx, details)
}
