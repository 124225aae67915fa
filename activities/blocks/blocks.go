// Package blocks asks the actors of the fleet, of channels and of clusters what is blocked.
package blocks

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"
	"golang.org/x/sync/errgroup"

	"github.com/fairway-project/fairway/workflows"
)

// askWithin bounds one question to the actors.
const askWithin = 10 * time.Second

// Asker asks the actors over Temporal. A query costs no history.
type Asker struct {
	Temporal client.Client
	// Channel names the channel of a cluster whose actor does not know it yet; empty if it has none.
	// Without it such a cluster is held by no channel.
	Channel func(ctx context.Context, cluster string) (string, error)
	// Apart says whether a cluster belongs neither to the fleet nor to its channel, so that only its own
	// actor holds it: that of a test, which is in nobody's way and has to be torn down whatever holds the
	// others. nil means that none does.
	Apart func(cluster string) bool

	shared *shared // nil asks anew for every caller
}

type shared struct {
	scopes   rounds[workflows.ScopeBlocks]
	clusters rounds[workflows.ClusterState]
}

// NewAsker returns an Asker for many callers at once: those that ask the same actor at the same time
// share a request.
func NewAsker(temporalClient client.Client, channel func(ctx context.Context, cluster string) (string, error)) Asker {
	return Asker{Temporal: temporalClient, Channel: channel, shared: &shared{}}
}

// State is what the actor of a cluster knows, and the blocks of the fleet and of the cluster's channel
// besides its own. An actor that does not exist blocks nothing. If one does not answer, nothing may
// be changed.
func (a Asker) State(ctx context.Context, cluster string) (workflows.ClusterState, error) {
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	var state workflows.ClusterState // shared with others
	var fleet, channel workflows.ScopeBlocks
	group, ctx := errgroup.WithContext(ctx)
	apart := a.Apart != nil && a.Apart(cluster)
	if !apart {
		group.Go(func() (err error) {
			fleet, err = a.scope(ctx, workflows.FleetID)
			return err
		})
	}
	group.Go(func() (err error) {
		if state, err = a.cluster(ctx, cluster); err != nil || apart {
			return err
		}
		name := ""
		if state.Updates.Want != nil {
			name = state.Updates.Want.Channel
		} else if a.Channel != nil {
			if name, err = a.Channel(ctx, cluster); err != nil {
				return err
			}
		}
		if name != "" {
			channel, err = a.scope(ctx, workflows.ChannelID(name))
		}
		return err
	})
	if err := group.Wait(); err != nil {
		if typed := (*temporal.ApplicationError)(nil); errors.As(err, &typed) {
			return state, err
		}
		return state, temporal.NewApplicationError(fmt.Sprintf("cluster %s: asking whether it is blocked: %v", cluster, err), workflows.Unreachable)
	}
	state.Cluster = cluster
	state.Blocks = slices.Concat(state.Blocks, fleet.Holding, channel.Holding)
	state.Ended = slices.Concat(state.Ended, fleet.Ended, channel.Ended)
	return state, nil
}

// Check returns an error of type workflows.Blocked if a pool of a cluster must not be changed now.
func (a Asker) Check(ctx context.Context, cluster, pool string) error {
	state, err := a.State(ctx, cluster)
	if err != nil {
		return err
	}
	return state.Refuse(time.Now(), pool)
}

// scope asks the actor of the fleet or of a channel.
func (a Asker) scope(ctx context.Context, id string) (workflows.ScopeBlocks, error) {
	var line *rounds[workflows.ScopeBlocks]
	if a.shared != nil {
		line = &a.shared.scopes
	}
	return ask(ctx, a, line, id, workflows.BlocksQuery)
}

// cluster asks the actor of a cluster.
func (a Asker) cluster(ctx context.Context, cluster string) (workflows.ClusterState, error) {
	var line *rounds[workflows.ClusterState]
	if a.shared != nil {
		line = &a.shared.clusters
	}
	return ask(ctx, a, line, workflows.ClusterID(cluster), workflows.StateQuery)
}

func ask[V any](ctx context.Context, a Asker, shared *rounds[V], id, query string) (V, error) {
	request := func(ctx context.Context) (answer V, err error) {
		ctx, cancel := context.WithTimeout(ctx, askWithin)
		defer cancel()
		err = a.query(ctx, id, query, &answer)
		return answer, err
	}
	if shared == nil {
		return request(ctx)
	}
	return shared.ask(ctx, id, request)
}

// query leaves out as it is if there is no such workflow.
func (a Asker) query(ctx context.Context, id, name string, out any) error {
	answer, err := a.Temporal.QueryWorkflow(ctx, id, "", name)
	if unknown := (*serviceerror.NotFound)(nil); errors.As(err, &unknown) {
		return nil
	}
	if err == nil {
		err = answer.Get(out)
	}
	if err != nil {
		return fmt.Errorf("workflow %s does not answer: %w", id, err)
	}
	return nil
}
