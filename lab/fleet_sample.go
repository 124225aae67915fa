package lab

import (
	"context"
	"os"
	"path/filepath"
	"slices"

	"github.com/goccy/go-yaml"

	"github.com/fairway-project/fairway/registry"
	"github.com/fairway-project/fairway/render"
)

// sampleClusters reads the clusters of the sample fleet that this lab was asked for.
func (l *Lab) sampleClusters(ctx context.Context) (registry.Clusters, error) {
	all, err := registry.File{Path: filepath.Join(l.root, "lab", "sample", "registry.yaml")}.Clusters(ctx)
	if err != nil || l.options.Clusters == nil {
		return all, err
	}
	var wanted registry.Clusters
	for _, id := range l.options.Clusters {
		c, err := all.Find(id)
		if err != nil {
			return nil, err
		}
		wanted = append(wanted, c)
	}
	return wanted, nil
}

// writeRegistry writes the registry that Fairway reads, with the addresses where the API servers
// really listen.
func (l *Lab) writeRegistry(clusters registry.Clusters) error {
	clusters = slices.Clone(clusters)
	for i := range clusters {
		clusters[i].APIServerURL = "https://" + l.Proxied("kubernetes/"+clusters[i].ID)
	}
	data, err := yaml.MarshalWithOptions(map[string]any{"clusters": clusters}, yaml.IndentSequence(true), yaml.OmitEmpty())
	if err != nil {
		return err
	}
	return writeFile(l.path("registry.yaml"), data, 0o644)
}

// sampleRelease is the sample configuration, rendered for a cluster.
func (l *Lab) sampleRelease(c registry.Cluster, net network) (*render.Release, error) {
	files := os.DirFS(filepath.Join(l.root, "lab", "sample", "config", "cluster"))
	return render.Render(files, render.Input{Cluster: c, Values: net.values()})
}
