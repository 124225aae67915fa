// Package blocks asks the actors of clusters what is blocked.
package blocks

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"

	"github.com/fairway-project/fairway/workflows"
)

// Asker asks the actors over Temporal. A query costs no history.
type Asker struct{ Temporal client.Client }

// State is what the actor of a cluster knows; a cluster without an actor has no blocks. If the
// actor does not answer, nothing may be changed.
func (a Asker) State(ctx context.Context, cluster string) (workflows.ClusterState, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	var state workflows.ClusterState
	answer, err := a.Temporal.QueryWorkflow(ctx, workflows.ClusterID(cluster), "", workflows.StateQuery)
	if unknown := (*serviceerror.NotFound)(nil); errors.As(err, &unknown) {
		return workflows.ClusterState{Cluster: cluster}, nil
	}
	if err == nil {
		err = answer.Get(&state)
	}
	if err != nil {
		return state, temporal.NewApplicationError(fmt.Sprintf("cluster %s: asking whether it is blocked: %v", cluster, err), workflows.Unreachable)
	}
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
