// Package manifests holds the activities that bring objects into a cluster and take them out again,
// and those that ask whether a cluster is well.
package manifests

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"go.temporal.io/sdk/temporal"
	"k8s.io/client-go/rest"

	"github.com/fairway-project/fairway/activities"
	"github.com/fairway-project/fairway/config"
	"github.com/fairway-project/fairway/registry"
	"github.com/fairway-project/fairway/render"
	"github.com/fairway-project/fairway/workflows"
)

// Activities implements workflows.Manifests.
type Activities struct {
	// Clusters tells how API servers are reached; activities/kube does.
	Clusters interface {
		REST(ctx context.Context, name string) (*rest.Config, registry.Cluster, error)
	}
	// Release renders a version for a cluster.
	Release func(ctx context.Context, cluster, version string) (*render.Release, error)
	// Blocks tells what is blocked.
	Blocks interface {
		Check(ctx context.Context, cluster, pool string) error
	}
	// Settings are those of `update` for a cluster.
	Settings func(registry.Cluster) (HealthSettings, error)
	// GoneWithin is how long a deleted object may take to be gone; default 3 m.
	GoneWithin time.Duration
}

// HealthSettings say when a cluster is healthy, and what is planned for it.
type HealthSettings struct {
	// SystemNamespaces are those whose workloads have to be ready.
	SystemNamespaces []string
	// Alerts must not fire; nil means that none are asked for.
	Alerts *config.Alerts
	// Prune makes plans show what pruning would delete.
	Prune bool
}

var _ workflows.Manifests = (*Activities)(nil)

// FieldManager owns every field that a manifest sets.
const FieldManager = "fairway"

// Annotations that people set.
const (
	// ForceConflicts, "true" on a manifest, takes its fields away from other managers.
	ForceConflicts = "fairway.dev/force-conflicts"
	// AllowDeletion, "true" on an object in the cluster, lets Fairway delete it although data would be
	// lost with it. On the inventory it lets pruning delete most of what there is, once.
	AllowDeletion = "fairway.dev/allow-deletion"
)

// parallel is how many requests an activity makes at a time.
const parallel = 10

// progress is what an activity does at the moment, for people.
type progress struct{ text atomic.Value }

func (p *progress) say(format string, args ...any) { p.text.Store(fmt.Sprintf(format, args...)) }

// begin returns a context that ends when the activity is cancelled or its worker stops, and
// heartbeats the progress until the returned function is called.
func begin(ctx context.Context) (context.Context, *progress, func()) {
	p := &progress{}
	p.say("")
	working, end := activities.Working(ctx, p.text.Load)
	return working, p, end
}

// pause waits, or says why the work ends.
func pause(ctx context.Context, wait time.Duration) error {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return stopped(ctx)
	case <-timer.C:
		return nil
	}
}

// gate asks before every write whether the cluster is blocked. No answer is kept for the next write, so
// that none begins after a block; those that ask at the same time share one.
type gate func(context.Context) error

func (a *Activities) gate(cluster string) gate {
	return func(ctx context.Context) error { return a.Blocks.Check(ctx, cluster, "") }
}

func invalid(format string, args ...any) error {
	return temporal.NewApplicationError(fmt.Sprintf(format, args...), workflows.InvalidInput)
}
