package render

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
)

// tree is what the folder of a commit holds. It is listed once, so that nothing is read that is no
// plain file of the commit itself.
type tree struct {
	files fs.FS
	plain []string // in the order in which they are applied: folder by folder, by name
	odd   map[string]fs.FileMode
}

var errTooManyFiles = errors.New("too many files")

func list(files fs.FS, most int) (tree, error) {
	t := tree{files: files, odd: map[string]fs.FileMode{}}
	err := fs.WalkDir(files, ".", func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir():
			return nil
		case entry.Type().IsRegular():
			t.plain = append(t.plain, name)
		default:
			t.odd[name] = entry.Type()
		}
		if len(t.plain)+len(t.odd) > most {
			return errTooManyFiles
		}
		return nil
	})
	if errors.Is(err, errTooManyFiles) {
		return t, Problem{File: ".", Text: fmt.Sprintf("holds more than %d files", most)}
	}
	if err != nil {
		return t, fmt.Errorf("listing the configuration: %w", err)
	}
	return t, nil
}

func (t tree) has(name string) bool { return slices.Contains(t.plain, name) }

// read returns a file, or the Problem that there is with it.
func (t tree) read(name string, most int64) (string, error) {
	for at := name; at != "."; at = path.Dir(at) {
		if mode, odd := t.odd[at]; odd {
			return "", oddity(at, mode)
		}
	}
	if !t.has(name) {
		return "", Problem{File: name, Text: "is missing"}
	}
	file, err := t.files.Open(name)
	if err != nil {
		return "", fmt.Errorf("reading the configuration: %w", err)
	}
	defer file.Close()
	content, err := io.ReadAll(io.LimitReader(file, most+1))
	if err != nil {
		return "", fmt.Errorf("reading the configuration: %s: %w", name, err)
	}
	if int64(len(content)) > most {
		return "", Problem{File: name, Text: fmt.Sprintf("is longer than %d bytes", most)}
	}
	return string(content), nil
}

func oddity(name string, mode fs.FileMode) Problem {
	if mode&fs.ModeSymlink != 0 {
		return Problem{File: name, Text: "is a symbolic link, which is not followed; put a copy of the file in its place"}
	}
	return Problem{File: name, Text: "is no plain file"}
}
