package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fairway-project/fairway/strictyaml"
)

// File is a registry kept in a YAML file: a list of clusters under the key `clusters`. Fairway never
// writes to it. What becomes known of the clusters is kept in a second file.
type File struct {
	Path string
	// StatusPath is the file for what is known of the clusters. Default is beside the first one:
	// registry.status.yaml for registry.yaml.
	StatusPath string
	seen       *seen // nil if nothing is kept
}

// OpenFile returns a registry that reads its files again only when they have changed. While the file of
// the clusters may still be written, what is missing in it counts as it was before. An empty statusPath
// means the default.
func OpenFile(path, statusPath string) File {
	return File{Path: path, StatusPath: statusPath, seen: &seen{}}
}

// seen is what was read last. What is in it never changes: it is replaced.
type seen struct {
	sync.Mutex
	desiredAt, statusAt stamp
	desired             Clusters
	said                any // in the file of the clusters, as JSON has it
	status              statuses
	merged              Clusters
}

// Clusters reads the files, if they have changed. Everything that is wrong with the file of the
// clusters is in the error, with line and field; a broken one yields no cluster at all. A missing
// file for the status means that nothing is known yet; a broken one makes no cluster vanish: that its
// status is not known is each cluster's only problem then.
func (f File) Clusters(context.Context) (Clusters, error) {
	_, merged, err := f.read()
	return slices.Clone(merged), err
}

// read returns the entries as people wrote them, and as they are with what is known.
func (f File) read() (desired, merged Clusters, err error) {
	s := f.seen
	if s == nil {
		s = &seen{}
	}
	s.Lock()
	defer s.Unlock()
	if !s.desiredAt.same(stampOf(f.Path)) {
		now, at, err := f.desired()
		if err != nil {
			return nil, nil, err
		}
		if s.desired == nil || at.age() > rest || now.whole && !loses(s.said, now.said) {
			s.desired, s.said, s.desiredAt, s.merged = now.clusters, now.said, at, nil
		}
	}
	if !s.statusAt.same(stampOf(f.statusPath())) {
		s.status, s.statusAt = readStatuses(f.statusPath())
		s.merged = nil
	}
	if s.merged == nil {
		s.merged = s.status.over(s.desired)
	}
	return s.desired, s.merged, nil
}

// rest is for how long a file has to be left alone before it is believed that something is missing in
// it. Editors and copies write in place: for a moment the beginning of a file is all there is of it, and
// often valid.
const rest = 2 * time.Second

// loses says whether something is missing, empty or zero that was there before. Lists are compared by
// position: where their order changes that may say so in vain, which costs no more than a moment.
func loses(before, after any) bool {
	switch was := before.(type) {
	case map[string]any:
		is, _ := after.(map[string]any)
		for key, value := range was {
			if loses(value, is[key]) {
				return true
			}
		}
	case []any:
		is, _ := after.([]any)
		if len(is) < len(was) {
			return true
		}
		for i, value := range was {
			if loses(value, is[i]) {
				return true
			}
		}
	case string:
		return was != "" && (after == nil || after == "")
	case float64:
		return was != 0 && (after == nil || after == float64(0))
	}
	return false
}

// content is what a registry file says, without defaults.
type content struct {
	clusters Clusters
	said     any  // as JSON has it
	whole    bool // its last line has an end
}

func (f File) desired() (content, stamp, error) {
	data, at, err := readFile(f.Path)
	if err != nil {
		return content{}, stamp{}, fmt.Errorf("reading the cluster registry: %w", err)
	}
	var d document
	if err := strictyaml.Decode(f.Path, data, &d); err != nil {
		return content{}, stamp{}, err
	}
	c := content{clusters: d.Clusters, whole: bytes.HasSuffix(data, []byte("\n"))}
	encoded, err := json.Marshal(d.Clusters)
	if err == nil {
		err = json.Unmarshal(encoded, &c.said)
	}
	if err != nil {
		return content{}, stamp{}, fmt.Errorf("comparing %s with what it was: %w", f.Path, err)
	}
	d.setDefaults()
	return c, at, nil
}

func (f File) statusPath() string {
	if f.StatusPath != "" {
		return f.StatusPath
	}
	return strings.TrimSuffix(f.Path, filepath.Ext(f.Path)) + ".status.yaml"
}

// Parse reads the file form of a registry; name stands for the file in errors.
func Parse(name string, data []byte) (Clusters, error) {
	var d document
	if err := strictyaml.Decode(name, data, &d); err != nil {
		return nil, err
	}
	d.setDefaults()
	return d.Clusters, nil
}

// stamp tells whether a file is still the one that was read.
type stamp struct {
	info fs.FileInfo // nil if there is no file, or none was looked at
	// settled is false for a file so young that it may have been written twice within one tick of
	// the file system's clock: it is read again. A time far in the future is that of another clock.
	settled bool
}

func newStamp(info fs.FileInfo) stamp {
	tick := 100 * time.Millisecond
	if info.ModTime().Nanosecond() == 0 { // this file system seems to know seconds only, or every other one
		tick = 2 * time.Second
	}
	s := stamp{info: info}
	s.settled = s.age() > tick
	return s
}

// age is for how long the file has been left alone.
func (s stamp) age() time.Duration { return time.Since(s.info.ModTime()).Abs() }

func stampOf(path string) stamp {
	info, err := os.Stat(path)
	if err != nil {
		return stamp{} // reading it says why
	}
	return newStamp(info)
}

func (s stamp) same(now stamp) bool {
	return s.settled && now.info != nil && os.SameFile(s.info, now.info) &&
		s.info.Size() == now.info.Size() && s.info.ModTime().Equal(now.info.ModTime())
}

// readFile reads a file, up to a byte more than is accepted, together with its stamp.
func readFile(path string) ([]byte, stamp, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, stamp{}, err
	}
	defer func() { _ = file.Close() }()
	info, err := file.Stat()
	if err != nil {
		return nil, stamp{}, err
	}
	if info.IsDir() {
		return nil, stamp{}, &fs.PathError{Op: "read", Path: path, Err: errors.New("is a directory")}
	}
	at := newStamp(info)
	data, err := io.ReadAll(io.LimitReader(file, strictyaml.MaxSize+1))
	return data, at, err
}
