package channels

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"testing/fstest"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/filemode"
	"github.com/go-git/go-git/v5/plumbing/object"
	"github.com/go-git/go-git/v5/storage/filesystem"
	lru "github.com/hashicorp/golang-lru/v2"
)

// Bounds of a folder. Folders of real fleets have some hundreds of files of some megabytes together.
const (
	maxFiles  = 10_000   // and folders
	maxFile   = 8 << 20  // bytes
	maxFolder = 64 << 20 // bytes, of all files together
	maxList   = 4 << 20  // bytes of a list of files
	maxDepth  = 20
	maxLinks  = 5 // from one to the next
	maxTarget = 1024
)

// keptFolders is how many folders stay in memory: those of a few channels, and what their clusters go
// back to.
const keptFolders = 6

// Tree is a folder of the repository at a commit, with all its files in memory: clusters of a channel
// share it, and what happens to the mirror does not concern it. It cannot be changed. A link to a file
// of the folder is that file. ErrUnusable if there is no such folder, or if it holds other links,
// submodules or more than a configuration may.
func (m *Mirror) Tree(ctx context.Context, commit, folder string) (fs.FS, error) {
	m.once.Do(func() { m.folders, _ = lru.New[string, fs.FS](keptFolders) }) // fails for sizes below 1 only
	folder = path.Clean(folder)
	if !fs.ValidPath(folder) {
		return nil, fmt.Errorf("%w: %q is no folder of a repository; use a path such as cluster (repository.path)", ErrUnusable, folder)
	}
	key := commit + ":" + folder
	if kept, found := m.folders.Get(key); found {
		return kept, nil
	}
	// Who asks first may give up before the others do.
	loaded := m.loading.DoChan(key, func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*m.timeout())
		defer cancel()
		loaded, err := m.safely(ctx, commit, folder)
		if err == nil {
			m.folders.Add(key, loaded)
		}
		return loaded, err
	})
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case result := <-loaded:
		if result.Err != nil {
			return nil, result.Err
		}
		return result.Val.(fs.FS), nil
	}
}

// safely loads. A panic about an object that is not what go-git expects would end the whole process.
func (m *Mirror) safely(ctx context.Context, commit, folder string) (loaded fs.FS, err error) {
	defer func() {
		if cause := recover(); cause != nil {
			loaded, err = nil, fmt.Errorf("reading %s of commit %s: %v", folder, commit, cause)
		}
	}()
	return m.load(ctx, commit, folder)
}

func (m *Mirror) load(ctx context.Context, commit, folder string) (fs.FS, error) {
	var l loader
	err := m.read(ctx, commit, func(c *object.Commit, storage *filesystem.Storage) error {
		l = loader{ctx: ctx, commit: commit, storage: storage, files: fstest.MapFS{}, links: map[string]string{}}
		tree, err := l.descend(c.TreeHash, folder)
		if err != nil {
			return err
		}
		if tree == nil {
			return fmt.Errorf("%w: commit %s has no folder %s (repository.path)", ErrUnusable, commit, folder)
		}
		if err := l.add(tree, "", 1); err != nil {
			return err
		}
		return l.follow()
	})
	if err != nil {
		return nil, err
	}
	return struct{ fs.FS }{l.files}, nil // only to be read
}

// loader reads a folder into memory.
type loader struct {
	ctx     context.Context
	commit  string
	storage *filesystem.Storage
	files   fstest.MapFS
	links   map[string]string // to where each points, which may be anywhere
	count   int
	size    int64
}

// descend finds a folder; nil if there is none.
func (l *loader) descend(root plumbing.Hash, folder string) (*object.Tree, error) {
	tree, err := l.list(root, folder)
	if err != nil || folder == "." {
		return tree, err
	}
	for part := range strings.SplitSeq(folder, "/") {
		entry, err := tree.FindEntry(part)
		if errors.Is(err, object.ErrEntryNotFound) || err == nil && entry.Mode != filemode.Dir {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		if tree, err = l.list(entry.Hash, folder); err != nil {
			return nil, err
		}
	}
	return tree, nil
}

func (l *loader) add(tree *object.Tree, at string, depth int) error {
	if depth > maxDepth {
		return l.refuse(at, "lies more than %d folders deep", maxDepth)
	}
	for _, entry := range tree.Entries {
		if err := l.ctx.Err(); err != nil {
			return err
		}
		name := path.Join(at, entry.Name)
		if l.count++; l.count > maxFiles {
			return l.refuse(name, "is one too many: a configuration has at most %d files and folders", maxFiles)
		}
		if !fs.ValidPath(entry.Name) || entry.Name == "." || strings.ContainsAny(entry.Name, `/\`) {
			return l.refuse(name, "has a name that a file cannot have")
		}
		if _, twice := l.files[name]; twice {
			return l.refuse(name, "is there twice")
		}
		switch entry.Mode {
		case filemode.Dir:
			below, err := l.list(entry.Hash, name)
			if err != nil {
				return err
			}
			l.files[name] = &fstest.MapFile{Mode: fs.ModeDir | 0o555}
			if err := l.add(below, name, depth+1); err != nil {
				return err
			}
		case filemode.Regular, filemode.Executable, filemode.Deprecated:
			data, err := l.content(entry.Hash, name)
			if err != nil {
				return err
			}
			l.files[name] = &fstest.MapFile{Data: data, Mode: 0o444}
		case filemode.Symlink:
			target, err := l.content(entry.Hash, name)
			if err != nil {
				return err
			}
			if l.links[name] = string(target); len(target) > maxTarget {
				return l.refuse(name, "is a link of %d bytes", len(target))
			}
		case filemode.Submodule:
			return l.refuse(name, "is a submodule; put its files in its place")
		default:
			return l.refuse(name, "has the unknown mode %s", entry.Mode)
		}
	}
	return nil
}

// follow puts files in the place of links to them, so that nothing that reads the folder has to know
// of links, and none leads out of it.
func (l *loader) follow() error {
	for _, name := range slices.Sorted(maps.Keys(l.links)) {
		at := name
		for range maxLinks {
			target, more := l.links[at]
			if !more {
				break
			}
			if at = path.Join(path.Dir(at), target); path.IsAbs(target) {
				at = target
			}
		}
		file := l.files[at]
		if file == nil || file.Mode.IsDir() {
			return l.refuse(name, "is a link to %.100q, which is no file of the folder; put a file in its place", l.links[name])
		}
		if l.size += int64(len(file.Data)); l.size > maxFolder {
			return l.refuse(name, "is too much: the files of a configuration have at most %d bytes together", maxFolder)
		}
		l.files[name] = file
	}
	return nil
}

func (l *loader) list(hash plumbing.Hash, name string) (*object.Tree, error) {
	size, err := l.storage.EncodedObjectSize(hash)
	if err != nil {
		return nil, fmt.Errorf("reading %s of commit %s: %w", name, l.commit, err)
	}
	if size > maxList {
		return nil, l.refuse(name, "has a list of files of %d bytes; at most %d are read", size, maxList)
	}
	tree, err := object.GetTree(l.storage, hash)
	if err != nil {
		return nil, fmt.Errorf("reading %s of commit %s: %w", name, l.commit, err)
	}
	return tree, nil
}

func (l *loader) content(hash plumbing.Hash, name string) ([]byte, error) {
	failed := func(err error) error { return fmt.Errorf("reading %s of commit %s: %w", name, l.commit, err) }
	size, err := l.storage.EncodedObjectSize(hash)
	if err != nil {
		return nil, failed(err)
	}
	if size > maxFile {
		return nil, l.refuse(name, "has %d bytes; at most %d are read", size, maxFile)
	}
	if l.size += size; l.size > maxFolder {
		return nil, l.refuse(name, "is too much: the files of a configuration have at most %d bytes together", maxFolder)
	}
	blob, err := object.GetBlob(l.storage, hash)
	if err != nil {
		return nil, failed(err)
	}
	reader, err := blob.Reader()
	if err != nil {
		return nil, failed(err)
	}
	defer func() { _ = reader.Close() }()
	data, err := io.ReadAll(io.LimitReader(reader, size+1))
	if err != nil {
		return nil, failed(err)
	}
	if int64(len(data)) != size {
		return nil, failed(io.ErrUnexpectedEOF)
	}
	return data, nil
}

func (l *loader) refuse(name, format string, args ...any) error {
	return fmt.Errorf("%w: commit %s: %s %s", ErrUnusable, l.commit, name, fmt.Sprintf(format, args...))
}
