package lab

import (
	"bytes"
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
)

// sampleCluster is a cluster's entry in lab/sample/registry.yaml, and what templates know as
// .Cluster.
type sampleCluster struct {
	ID                    string            `yaml:"id"`
	Alias                 string            `yaml:"alias"`
	LocalID               string            `yaml:"local_id"`
	APIServerURL          string            `yaml:"api_server_url"`
	Channel               string            `yaml:"channel"`
	Environment           string            `yaml:"environment"`
	CriticalityLevel      int               `yaml:"criticality_level"`
	LifecycleStatus       string            `yaml:"lifecycle_status"`
	Provider              string            `yaml:"provider"`
	Region                string            `yaml:"region"`
	InfrastructureAccount string            `yaml:"infrastructure_account"`
	Owner                 string            `yaml:"owner"`
	ConfigItems           map[string]string `yaml:"config_items"`
	NodePools             []samplePool      `yaml:"node_pools"`
}

// samplePool is a node pool of a sampleCluster, and what templates know as .NodePool.
type samplePool struct {
	Name             string            `yaml:"name"`
	Profile          string            `yaml:"profile"`
	InstanceTypes    []string          `yaml:"instance_types,flow"`
	MinSize          int               `yaml:"min_size"`
	MaxSize          int               `yaml:"max_size"`
	DiscountStrategy string            `yaml:"discount_strategy"`
	ConfigItems      map[string]string `yaml:"config_items"`
}

func (p samplePool) template() string { return "node-pools/" + p.Profile + "/stack.yaml" }

// with returns the pool with other config items.
func (p samplePool) with(configItems map[string]string) samplePool {
	p.ConfigItems = overlaid(p.ConfigItems, configItems)
	return p
}

type sampleRegistry struct {
	Clusters []sampleCluster `yaml:"clusters"`
}

// sampleClusters reads the clusters of the sample fleet that this lab was asked for.
func (l *Lab) sampleClusters() ([]sampleCluster, error) {
	data, err := os.ReadFile(filepath.Join(l.root, "lab", "sample", "registry.yaml"))
	if err != nil {
		return nil, err
	}
	var registry sampleRegistry
	if err := yaml.UnmarshalWithOptions(data, &registry, yaml.Strict()); err != nil {
		return nil, fmt.Errorf("lab/sample/registry.yaml: %w", err)
	}
	wanted := l.options.Clusters
	if wanted == nil {
		return registry.Clusters, nil
	}
	clusters := slices.DeleteFunc(registry.Clusters, func(c sampleCluster) bool { return !slices.Contains(wanted, c.ID) })
	if len(clusters) != len(wanted) {
		return nil, fmt.Errorf("it does not have all of the clusters %s", strings.Join(wanted, ", "))
	}
	return clusters, nil
}

// writeRegistry writes the registry that Fairway reads, with the addresses where the API servers
// really listen.
func (l *Lab) writeRegistry(clusters []sampleCluster) error {
	clusters = slices.Clone(clusters)
	for i := range clusters {
		clusters[i].APIServerURL = "https://" + l.Proxied("kubernetes/"+clusters[i].ID)
	}
	data, err := yaml.MarshalWithOptions(sampleRegistry{Clusters: clusters}, yaml.IndentSequence(true))
	if err != nil {
		return err
	}
	return writeFile(l.path("registry.yaml"), data, 0o644)
}

// config is the sample configuration with all that its templates may ask for. Fairway's own
// renderer knows more functions; the sample needs none to be seeded.
type config struct {
	files    fs.FS // the directory cluster/
	Cluster  sampleCluster
	NodePool samplePool
	Values   map[string]any
}

// clusterConfig is the configuration of a cluster, with the defaults of all config items.
func (l *Lab) clusterConfig(c sampleCluster, net network) (config, error) {
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
func (c config) pool(pool samplePool) (config, error) {
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

func overlaid(under, over map[string]string) map[string]string {
	both := maps.Clone(under)
	if both == nil {
		both = map[string]string{}
	}
	maps.Copy(both, over)
	return both
}
