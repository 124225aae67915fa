package configuration

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/hashicorp/golang-lru/v2/expirable"
	"go.temporal.io/sdk/temporal"

	"github.com/fairway-project/fairway/registry"
	"github.com/fairway-project/fairway/render"
	"github.com/fairway-project/fairway/workflows"
)

// Releases in memory: one for each of the clusters that are updated at a time by default, which the
// activities of an update ask for one after another. Each has some megabytes.
const (
	keptReleases = 12
	keptFor      = 10 * time.Minute // a network is asked for again after that
	renderWithin = 5 * time.Minute
)

// Release renders a version for a cluster, for other activities. Whoever asks gets the same release
// and must not change it. Errors are typed: InvalidInput if the configuration cannot be rendered,
// VersionGone if commit or entry are not to be had any more.
func (a *Activities) Release(ctx context.Context, cluster, version string) (*render.Release, error) {
	found, err := a.Find(ctx, cluster)
	if err != nil {
		return nil, err
	}
	return a.release(ctx, found, version)
}

func (a *Activities) release(ctx context.Context, cluster registry.Cluster, version string) (*render.Release, error) {
	a.once.Do(func() { a.releases = expirable.NewLRU[string, *render.Release](keptReleases, nil, keptFor) })
	key := cluster.ID + " " + version
	if kept, found := a.releases.Get(key); found {
		return kept, nil
	}
	// Who asks first may give up before the others do.
	rendered := a.rendering.DoChan(key, func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), renderWithin)
		defer cancel()
		release, err := a.render(ctx, cluster, version)
		if err == nil {
			a.releases.Add(key, release)
		}
		return release, err
	})
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case result := <-rendered:
		if result.Err != nil {
			return nil, result.Err
		}
		return result.Val.(*render.Release), nil
	}
}

func (a *Activities) render(ctx context.Context, cluster registry.Cluster, version string) (*render.Release, error) {
	if a.Mirror == nil {
		return nil, errNoRepository
	}
	commit, hash, err := parse(version)
	if err != nil {
		return nil, err
	}
	entry, err := a.entry(ctx, cluster, hash)
	if err != nil {
		return nil, err
	}
	folder, err := a.Mirror.Tree(ctx, commit, a.Folder)
	if err != nil {
		return nil, typed(cluster, err)
	}
	network, err := a.Network(ctx, entry)
	if err != nil {
		return nil, err
	}
	release, err := a.safely(folder, entry, version, network)
	if errors.Is(err, render.ErrSlow) { // perhaps only because the worker has much else to do
		return nil, temporal.NewApplicationError(fmt.Sprintf("cluster %s: rendering version %s: %v", cluster.ID, version, err), workflows.Unreachable)
	}
	if err != nil { // the same commit and entry render the same
		return nil, invalid("cluster %s: rendering version %s: %v", cluster.ID, version, err)
	}
	return release, nil
}

// safely renders. A panic, which what a branch holds may have caused, would end the whole worker.
func (a *Activities) safely(folder fs.FS, entry registry.Cluster, version string, network map[string]any) (release *render.Release, err error) {
	defer func() {
		if cause := recover(); cause != nil {
			release, err = nil, fmt.Errorf("this is a fault of Fairway, please report it: %v", cause)
		}
	}()
	return a.Render(folder, entry, version, network)
}

// entry is the registry entry that a version was made from: that of the registry as long as it is the
// same, and afterwards the one that was kept.
func (a *Activities) entry(ctx context.Context, cluster registry.Cluster, hash string) (registry.Cluster, error) {
	cluster.Status = nil
	if a.Hash(cluster) == hash {
		return cluster, nil
	}
	data, err := a.Entries.Get(ctx, cluster, entryKey(cluster, hash))
	if err != nil && a.Missing(err) {
		return registry.Cluster{}, gone(cluster, "the registry entry with hash %s was not kept; choose a version whose update was prepared before", hash)
	}
	if err != nil {
		return registry.Cluster{}, err
	}
	var kept registry.Cluster
	if err := json.Unmarshal(data, &kept); err != nil {
		return registry.Cluster{}, gone(cluster, "what was kept of the registry entry with hash %s cannot be read: %v", hash, err)
	}
	if kept.ID != cluster.ID || a.Hash(kept) != hash {
		return registry.Cluster{}, gone(cluster, "what was kept as the registry entry with hash %s is something else", hash)
	}
	if kept.InfrastructureAccount != cluster.InfrastructureAccount || kept.Region != cluster.Region {
		return registry.Cluster{}, invalid("cluster %s: the version with entry %s is for %s in %s; the cluster is in account %s in %s, and cannot move",
			cluster.ID, hash, kept.InfrastructureAccount, kept.Region, cluster.InfrastructureAccount, cluster.Region)
	}
	return kept, nil
}

// keep stores the entry of a version. That of an earlier version is kept already: it came from there.
func (a *Activities) keep(ctx context.Context, cluster registry.Cluster, version string) error {
	_, hash, err := parse(version)
	if err != nil || a.Hash(cluster) != hash {
		return err
	}
	cluster.Status = nil
	data, err := json.Marshal(cluster)
	if err != nil {
		return invalid("cluster %s: encoding its registry entry: %v", cluster.ID, err)
	}
	return a.Entries.Put(ctx, cluster, entryKey(cluster, hash), data)
}

func entryKey(cluster registry.Cluster, hash string) string {
	return "entries/" + url.PathEscape(cluster.ID) + "/" + hash + ".json"
}

var hexadecimal = regexp.MustCompile(`^[0-9a-f]{40}$`)

func parse(version string) (commit, hash string, err error) {
	commit, hash, _ = strings.Cut(version, "#")
	if !hexadecimal.MatchString(commit) || !hexadecimal.MatchString(hash) {
		return "", "", invalid("version %.120q is no commit and hash of 40 hexadecimal digits each with a # between them", version)
	}
	return commit, hash, nil
}

func gone(cluster registry.Cluster, format string, args ...any) error {
	return temporal.NewNonRetryableApplicationError(fmt.Sprintf("cluster %s: ", cluster.ID)+fmt.Sprintf(format, args...), workflows.VersionGone, nil)
}
