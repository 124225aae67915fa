package lab

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"text/template"

	"github.com/goccy/go-yaml"

	"github.com/fairway-project/fairway/registry"
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

// config is the sample configuration with all that its templates may ask for. Fairway's own
// renderer knows more functions; the sample needs none to be seeded.
type config struct {
	files    fs.FS // the directory cluster/
	Cluster  registry.Cluster
	NodePool registry.NodePool
	Values   map[string]any
}

// clusterConfig is the configuration of a cluster, with the defaults of all config items.
func (l *Lab) clusterConfig(c registry.Cluster, net network) (config, error) {
	of := config{
		files:   os.DirFS(filepath.Join(l.root, "lab", "sample", "config", "cluster")),
		Cluster: c,
		Values:  net.values(),
	}
	rendered, err := of.render("config-defaults.yaml")
	if err != nil {
		return config{}, err
	}
	var defaults map[string]string
	if err := yaml.Unmarshal([]byte(rendered), &defaults); err != nil {
		return config{}, fmt.Errorf("config-defaults.yaml: %w", err)
	}
	of.Cluster.ConfigItems = overlaid(defaults, c.ConfigItems)
	return of, nil
}

// pool is the configuration of a pool, whose config items fall back to its cluster's.
func (c config) pool(pool registry.NodePool) (config, error) {
	c.NodePool = pool
	c.NodePool.ConfigItems = overlaid(c.Cluster.ConfigItems, pool.ConfigItems)
	userData, err := c.render("node-pools/" + pool.Profile + "/userdata.yaml")
	if err != nil {
		return config{}, err
	}
	c.Values = maps.Clone(c.Values)
	c.Values["UserData"] = base64.StdEncoding.EncodeToString([]byte(userData))
	return c, nil
}

func (c config) render(file string) (string, error) {
	source, err := fs.ReadFile(c.files, file)
	if err != nil {
		return "", err
	}
	parsed, err := template.New(file).Option("missingkey=error").Parse(string(source))
	if err != nil {
		return "", err
	}
	var out bytes.Buffer
	if err := parsed.Execute(&out, c); err != nil {
		return "", err
	}
	return out.String(), nil
}

// manifests renders all manifests in the order of their paths.
func (c config) manifests() (string, error) {
	files, err := fs.Glob(c.files, "manifests/*/*.yaml")
	if err != nil {
		return "", err
	}
	var all []string
	for _, file := range files {
		rendered, err := c.render(file)
		if err != nil {
			return "", err
		}
		all = append(all, "# "+path.Clean(file)+"\n"+rendered)
	}
	return strings.Join(all, "---\n"), nil
}

func poolTemplate(pool registry.NodePool) string { return "node-pools/" + pool.Profile + "/stack.yaml" }

func overlaid(under, over map[string]string) map[string]string {
	both := maps.Clone(under)
	if both == nil {
		both = map[string]string{}
	}
	maps.Copy(both, over)
	return both
}
