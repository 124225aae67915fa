// Package configuration holds the activities that read the configuration repository: what a version
// means for a cluster, and when the cluster may be brought to it.
package configuration

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/expirable"
	"go.temporal.io/sdk/temporal"
	"golang.org/x/sync/singleflight"

	"github.com/fairway-project/fairway/activities"
	"github.com/fairway-project/fairway/activities/clusters"
	"github.com/fairway-project/fairway/calendar"
	"github.com/fairway-project/fairway/channels"
	"github.com/fairway-project/fairway/registry"
	"github.com/fairway-project/fairway/render"
	"github.com/fairway-project/fairway/workflows"
)

// Activities implements workflows.Configuration.
type Activities struct {
	// Mirror is the configuration repository; nil if none is configured.
	Mirror *channels.Mirror
	// Folder of the repository that holds the configuration of clusters; default is all of it.
	Folder string
	// Find returns the cluster with the given id or alias.
	Find func(ctx context.Context, name string) (registry.Cluster, error)
	// Hash identifies a registry entry without its status.
	Hash func(registry.Cluster) string
	// Network returns what templates need to know of a cluster's network.
	Network func(context.Context, registry.Cluster) (map[string]any, error)
	// Render renders a folder for a cluster. The same arguments render the same, an error included.
	Render func(folder fs.FS, cluster registry.Cluster, version string, values map[string]any) (*render.Release, error)
	// Entries keeps the registry entries that versions were made from, for each cluster's own account.
	Entries interface {
		Put(ctx context.Context, cluster registry.Cluster, key string, data []byte) error
		Get(ctx context.Context, cluster registry.Cluster, key string) ([]byte, error)
	}
	// Missing says whether an error of Entries.Get means that nothing is kept under the key.
	Missing func(error) bool
	// Settings say how a cluster is updated, Calendar when it may be disrupted.
	Settings func(registry.Cluster) (workflows.UpdateSettings, error)
	Calendar func(registry.Cluster) (calendar.Calendar, error)
	// Notify says that a hook for notifications is configured.
	Notify bool
	// Quiet says of which clusters nobody is notified; nil means of none.
	Quiet func(cluster string) bool
	// Now is the time; default time.Now.
	Now func() time.Time

	once      sync.Once
	releases  *expirable.LRU[string, *render.Release]
	rendering singleflight.Group
}

var _ workflows.Configuration = (*Activities)(nil)

// PrepareUpdate implements workflows.Configuration.
func (a *Activities) PrepareUpdate(ctx context.Context, in workflows.PrepareUpdate) (workflows.UpdatePlan, error) {
	ctx, end := activities.Working(ctx, func() any { return "rendering for cluster " + in.Cluster })
	defer end()
	plan, err := a.prepare(ctx, in)
	return plan, activities.Interrupted(ctx, err)
}

func (a *Activities) prepare(ctx context.Context, in workflows.PrepareUpdate) (workflows.UpdatePlan, error) {
	if in.Version != "" && in.Ref != "" {
		return workflows.UpdatePlan{}, invalid("cluster %s: both version %s and ref %s are given; leave one out", in.Cluster, in.Version, in.Ref)
	}
	cluster, err := a.Find(ctx, in.Cluster)
	if err != nil {
		return workflows.UpdatePlan{}, err
	}
	version := in.Version
	if version == "" {
		if version, err = a.newest(ctx, cluster, in.Ref); err != nil {
			return workflows.UpdatePlan{}, err
		}
	}
	settings, err := a.Settings(cluster)
	if err != nil {
		return workflows.UpdatePlan{}, correctable(err)
	}
	release, err := a.release(ctx, cluster, version)
	if err != nil {
		return workflows.UpdatePlan{}, err
	}
	commit, _, err := parse(version)
	if err != nil {
		return workflows.UpdatePlan{}, err
	}
	// Before anything is changed the entry is where a rollback, or a worker elsewhere, finds it.
	if err := a.keep(ctx, cluster, version); err != nil {
		return workflows.UpdatePlan{}, err
	}
	plan := workflows.UpdatePlan{
		Cluster: clusters.Describe(cluster), Version: version, Commit: commit, Stacks: []string{}, Pools: []workflows.PlannedPool{},
		Manifests: len(release.Manifests), Deletions: len(release.Deletions.PreApply) + len(release.Deletions.PostApply),
		Settings: settings, Notify: a.Notify && (a.Quiet == nil || !a.Quiet(cluster.ID)),
	}
	for _, stack := range release.Stacks {
		plan.Stacks = append(plan.Stacks, stack.Name)
	}
	for _, pool := range release.Pools {
		plan.Pools = append(plan.Pools, workflows.PlannedPool{Name: pool.Name, Stack: pool.Stack.Name, ControlPlane: pool.ControlPlane})
	}
	return plan, nil
}

// newest is the version of the cluster's entry at a ref or, without one, at the head of its channel.
func (a *Activities) newest(ctx context.Context, cluster registry.Cluster, ref string) (string, error) {
	if a.Mirror == nil {
		return "", errNoRepository
	}
	find, what := a.Mirror.Resolve, ref
	if ref == "" {
		find, what = a.Mirror.Head, cluster.Channel
	}
	commit, err := find(ctx, what)
	if err != nil {
		return "", typed(cluster, err)
	}
	return commit + "#" + a.Hash(cluster), nil
}

// mostWait bounds how late a change of windows is seen by who waits for one.
const mostWait = 10 * time.Minute

// AwaitWindow implements workflows.Configuration. It asks to be tried again when the calendar opens,
// but after ten minutes at the latest, because windows can be changed meanwhile.
func (a *Activities) AwaitWindow(ctx context.Context, in workflows.AwaitWindow) error {
	cluster, err := a.Find(ctx, in.Cluster)
	if err != nil {
		return err
	}
	hours, err := a.Calendar(cluster)
	if err != nil {
		return correctable(err)
	}
	now := time.Now()
	if a.Now != nil {
		now = a.Now()
	}
	open, reason := hours.OpenAt(now)
	if open {
		return nil
	}
	next, wait := "it never opens", mostWait
	if opening, ok := hours.NextOpening(now); ok {
		next = "it opens at " + opening.UTC().Format(time.RFC3339)
		wait = min(max(opening.Sub(now), time.Second), mostWait)
	}
	return temporal.NewApplicationErrorWithOptions(fmt.Sprintf("cluster %s: %s waits: %s; %s", cluster.ID, in.What, reason, next), workflows.WindowClosed,
		temporal.ApplicationErrorOptions{Category: temporal.ApplicationErrorCategoryBenign, NextRetryDelay: wait})
}

var errNoRepository = invalid("no configuration repository is configured; set repository.url")

// typed says for workflows what kind of thing is wrong with the repository.
func typed(cluster registry.Cluster, err error) error {
	text := fmt.Sprintf("cluster %s: %v", cluster.ID, err)
	switch {
	case errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded):
		return err
	case errors.Is(err, channels.ErrGone):
		return temporal.NewNonRetryableApplicationError(text, workflows.VersionGone, nil)
	case errors.Is(err, channels.ErrUnknown), errors.Is(err, channels.ErrUnusable):
		return temporal.NewNonRetryableApplicationError(text, workflows.InvalidInput, nil)
	case errors.Is(err, channels.ErrRefused):
		return temporal.NewApplicationError(text, workflows.AccessDenied)
	default: // no answer, a full disk, a lock: things that pass or are mended from outside
		return temporal.NewApplicationError(text, workflows.Unreachable)
	}
}

// correctable is for what is wrong in a file that people correct.
func correctable(err error) error {
	return temporal.NewApplicationError(err.Error(), workflows.InvalidInput)
}

func invalid(format string, args ...any) error {
	return temporal.NewNonRetryableApplicationError(fmt.Sprintf(format, args...), workflows.InvalidInput, nil)
}
