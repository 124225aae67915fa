package registry

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/gofrs/flock"

	"github.com/fairway-project/fairway/strictyaml"
)

// statuses is the content of a status file.
type statuses struct {
	known map[string]known // by the cluster's id
	err   error            // why it could not be read
}

// known is what the status file says of one cluster.
type known struct {
	ID string `yaml:"id" json:"id" validate:"required"`
	// Lifecycle is where the cluster has got: ready or decommissioned. It counts as long as the
	// registry's entry says what comes before that.
	Lifecycle LifecycleStatus `yaml:"lifecycle_status" json:"lifecycle_status,omitempty" validate:"omitempty,oneof=ready decommissioned"`
	Status    Status          `yaml:"status" json:"status"`
}

type statusDocument struct {
	Clusters []known `yaml:"clusters" json:"clusters" validate:"dive"`
}

// Check implements strictyaml.Checker.
func (d *statusDocument) Check(report func(field, format string, args ...any)) {
	first := map[string]int{}
	for i, each := range d.Clusters {
		if j, duplicate := first[each.ID]; duplicate {
			report(fmt.Sprintf("clusters[%d].id", i), "%q is the id of clusters[%d] already", each.ID, j)
			continue
		}
		first[each.ID] = i
	}
}

func readStatuses(path string) (statuses, stamp) {
	data, at, err := readFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return statuses{}, stamp{}
	}
	if err != nil {
		return statuses{err: err}, stamp{}
	}
	var d statusDocument
	if err := strictyaml.Decode(path, data, &d); err != nil {
		return statuses{err: err}, at
	}
	out := statuses{known: make(map[string]known, len(d.Clusters))}
	for _, each := range d.Clusters {
		out.known[each.ID] = each
	}
	return out, at
}

// StatusUnreadable is the type of the problem of clusters whose status cannot be read.
const StatusUnreadable = "status-unreadable"

// over lays what is known over what is wanted.
func (s statuses) over(desired Clusters) Clusters {
	out := slices.Clone(desired)
	for i := range out {
		if s.err != nil {
			out[i].Status = &Status{Problems: []Problem{{Type: StatusUnreadable, Title: "its status is not known: " + s.err.Error()}}}
			continue
		}
		of, found := s.known[out[i].ID]
		if !found {
			continue
		}
		out[i].Status = &of.Status
		if out[i].LifecycleStatus.Moves(of.Lifecycle) {
			out[i].LifecycleStatus = of.Lifecycle
		}
	}
	return out
}

// WriteStatus implements Registry. It waits for other processes that write, as long as ctx lasts. A
// status file that is broken is left to people: what it says of other clusters would be lost.
func (f File) WriteStatus(ctx context.Context, id string, status Status, lifecycle LifecycleStatus) error {
	if err := strictyaml.Validate("status of cluster "+id, &status); err != nil {
		return err
	}
	path := f.statusPath()
	unlock, err := lock(ctx, path+".lock")
	if err != nil {
		return err
	}
	defer unlock()

	desired, merged, err := f.read()
	if err != nil {
		return err
	}
	i := slices.IndexFunc(desired, func(c Cluster) bool { return c.ID == id })
	if i < 0 {
		return &UnknownClusterError{Name: id}
	}
	if err := merged[i].checkMove(lifecycle); err != nil {
		return err
	}
	all, _ := readStatuses(path)
	if all.err != nil {
		return fmt.Errorf("the status of cluster %s was not written, because what is in the file cannot be read; mend it, or move it away and lose it: %w", id, all.err)
	}
	// A lifecycle status that people have overtaken is forgotten: it must not come back when they
	// use the id for a new cluster.
	entry := known{ID: id, Status: status}
	for _, reached := range []LifecycleStatus{all.known[id].Lifecycle, lifecycle} {
		if desired[i].LifecycleStatus.Moves(reached) {
			entry.Lifecycle = reached
		}
	}
	d := statusDocument{Clusters: []known{entry}}
	for _, each := range all.known {
		if each.ID != id {
			d.Clusters = append(d.Clusters, each)
		}
	}
	slices.SortFunc(d.Clusters, func(a, b known) int { return cmp.Compare(a.ID, b.ID) })
	content, err := d.encode(filepath.Base(f.Path))
	if err != nil {
		return err
	}
	if err := replaceFile(path, content); err != nil {
		return fmt.Errorf("writing the status of cluster %s: %w", id, err)
	}
	return nil
}

// encode writes JSON, which is YAML too and keeps every character of what problems say.
func (d statusDocument) encode(desired string) ([]byte, error) {
	var out bytes.Buffer
	fmt.Fprintf(&out, "# Written by Fairway: what is known of the clusters in %s. Nobody else should write here.\n", strconv.QuoteToASCII(desired))
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(d); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// lock keeps other processes, and other calls of this one, from writing.
func lock(ctx context.Context, path string) (unlock func(), err error) {
	l := flock.New(path)
	if _, err := l.TryLockContext(ctx, 20*time.Millisecond); err != nil {
		if ctx.Err() != nil {
			return nil, fmt.Errorf("waiting for another process that writes the status of clusters (%s): %w", path, err)
		}
		return nil, fmt.Errorf("locking the status of clusters: %w", err)
	}
	return func() { _ = l.Close() }, nil
}

// replaceFile leaves either the old content or the new one behind, whatever happens in between. One
// process does so at a time.
func replaceFile(path string, content []byte) error {
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, content) {
		return nil
	}
	next := path + ".tmp"
	file, err := os.OpenFile(next, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	_, err = file.Write(content)
	if err == nil {
		err = file.Sync()
	}
	if closeErr := file.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		_ = os.Remove(next)
		return err
	}
	if err := os.Rename(next, path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = dir.Close() }()
	return dir.Sync()
}
