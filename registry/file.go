package registry

import (
	"context"
	"fmt"
	"os"

	"github.com/fairway-project/fairway/strictyaml"
)

// File is a registry kept in a YAML file: a list of clusters under the key `clusters`.
type File struct{ Path string }

// Clusters reads the file anew, so that a change needs no restart. Everything that is wrong
// with it is in the error, with file, line and field; a broken file yields no cluster at all.
func (f File) Clusters(context.Context) (Clusters, error) {
	data, err := os.ReadFile(f.Path)
	if err != nil {
		return nil, fmt.Errorf("reading the cluster registry: %w", err)
	}
	return Parse(f.Path, data)
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
