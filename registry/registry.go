package registry

import (
	"context"
	"fmt"
)

// Registry is a place where clusters are registered: a File or a Client.
type Registry interface {
	// Clusters returns all entries with what is known of their status. They may be shared with other
	// callers: no map, list or status in them may be changed.
	Clusters(context.Context) (Clusters, error)
	// WriteStatus replaces what is known of the cluster with that id, and nothing of what people want
	// of it, except that its lifecycle status may move on (see Moves). An empty lifecycle status leaves
	// it. UnknownClusterError if there is no such cluster, LifecycleError if the lifecycle status
	// cannot move there; nothing is written then.
	WriteStatus(ctx context.Context, id string, status Status, lifecycle LifecycleStatus) error
}

var (
	_ Registry = File{}
	_ Registry = (*Client)(nil)
)

// Moves says whether the work on a cluster may lead from one lifecycle status to another: from
// requested to ready and from decommission-requested to decommissioned. Everything else is for
// people to decide.
func (from LifecycleStatus) Moves(to LifecycleStatus) bool {
	return from == Requested && to == Ready || from == DecommissionRequested && to == Decommissioned
}

// LifecycleError says that the lifecycle status of a cluster cannot move on as it was to, because
// people want something else of it by now.
type LifecycleError struct {
	Cluster  string
	From, To LifecycleStatus
}

func (e *LifecycleError) Error() string {
	return fmt.Sprintf("cluster %s cannot become %s: its lifecycle status is %s", e.Cluster, e.To, e.From)
}

// checkMove is nil where the lifecycle status may be written.
func (c Cluster) checkMove(to LifecycleStatus) error {
	if to == "" || to == c.LifecycleStatus || c.LifecycleStatus.Moves(to) {
		return nil
	}
	return &LifecycleError{Cluster: c.ID, From: c.LifecycleStatus, To: to}
}
