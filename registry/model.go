// Package registry holds the cluster registry: which clusters there are, what each of them
// should look like, and what is known about the state they are in.
package registry

import (
	"fmt"
	"regexp"
	"strings"
	"unicode"
)

// LifecycleStatus says where a cluster is between being asked for and being gone.
type LifecycleStatus string

// The lifecycle of a cluster, in order.
const (
	Requested              LifecycleStatus = "requested"
	Ready                  LifecycleStatus = "ready"
	DecommissionRequested  LifecycleStatus = "decommission-requested"
	Decommissioned         LifecycleStatus = "decommissioned"
	defaultLifecycleStatus                 = Ready
)

// Cluster is one entry of the registry. The fields and their names are those of Zalando's
// cluster registry, so that its entries can be used as they are.
type Cluster struct {
	// ID is unique in the registry and never changes. Workflow ids and kubeconfig contexts carry
	// it: letters, digits and ":._-", at most 100 of them.
	ID string `yaml:"id" json:"id" validate:"required,max=100"`
	// Alias is a name for people; it can be used wherever an id is expected. Unique if set.
	Alias string `yaml:"alias" json:"alias,omitempty"`
	// LocalID is unique in the infrastructure account; templates may use it. Default: ID.
	LocalID string `yaml:"local_id" json:"local_id,omitempty"`
	// APIServerURL is where the Kubernetes API answers, such as https://dev-1.example.org.
	APIServerURL string `yaml:"api_server_url" json:"api_server_url" validate:"required,http_url"`
	// Channel is the branch of the configuration repository that the cluster follows.
	Channel string `yaml:"channel" json:"channel" validate:"required"`
	// ConfigItems are values for templates; an item here wins over its default.
	ConfigItems map[string]string `yaml:"config_items" json:"config_items,omitempty"`
	// CriticalityLevel is 0 for what nobody misses, more for what matters more.
	CriticalityLevel int `yaml:"criticality_level" json:"criticality_level" validate:"gte=0,lte=100"`
	// Environment selects defaults such as the times after which pods are forced:
	// "production" or "test", or any other name that the configuration knows.
	Environment string `yaml:"environment" json:"environment" validate:"required"`
	// InfrastructureAccount is the AWS account, such as "aws:123456789012".
	InfrastructureAccount string `yaml:"infrastructure_account" json:"infrastructure_account" validate:"required"`
	// LifecycleStatus defaults to "ready".
	LifecycleStatus LifecycleStatus `yaml:"lifecycle_status" json:"lifecycle_status" validate:"omitempty,oneof=requested ready decommission-requested decommissioned"`
	NodePools       []NodePool      `yaml:"node_pools" json:"node_pools,omitempty" validate:"dive"`
	// Owner is the team that is told before something disrupts.
	Owner string `yaml:"owner" json:"owner,omitempty"`
	// Provider says how clusters of this kind are built; "zalando-aws" is the default.
	Provider string `yaml:"provider" json:"provider,omitempty"`
	Region   string `yaml:"region" json:"region" validate:"required"`
	// Status is written by Fairway, never by people, and is no part of the desired state.
	Status *Status `yaml:"status" json:"status,omitempty"`
}

// NodePool is a group of alike nodes: an Auto Scaling group with its launch template.
type NodePool struct {
	Name string `yaml:"name" json:"name" validate:"required"`
	// Profile is the folder of the configuration repository that describes such pools.
	Profile string `yaml:"profile" json:"profile" validate:"required"`
	// InstanceTypes are usable types, the preferred one first.
	InstanceTypes []string `yaml:"instance_types" json:"instance_types" validate:"min=1,dive,required"`
	MinSize       int      `yaml:"min_size" json:"min_size" validate:"gte=0"`
	MaxSize       int      `yaml:"max_size" json:"max_size" validate:"gte=0"`
	// DiscountStrategy is "none" (default) or "spot".
	DiscountStrategy string            `yaml:"discount_strategy" json:"discount_strategy,omitempty" validate:"omitempty,oneof=none spot spot_max_price"`
	ConfigItems      map[string]string `yaml:"config_items" json:"config_items,omitempty"`
}

// Spot says whether the pool asks for Spot instances.
func (p NodePool) Spot() bool { return p.DiscountStrategy != "" && p.DiscountStrategy != "none" }

// Status is what Fairway knows about a cluster.
type Status struct {
	CurrentVersion string    `yaml:"current_version" json:"current_version,omitempty"`
	LastVersion    string    `yaml:"last_version" json:"last_version,omitempty"`
	NextVersion    string    `yaml:"next_version" json:"next_version,omitempty"`
	Problems       []Problem `yaml:"problems" json:"problems,omitempty" validate:"dive"`
}

// Problem describes something wrong with a cluster, as RFC 7807 does.
type Problem struct {
	Type  string `yaml:"type" json:"type" validate:"required"`
	Title string `yaml:"title" json:"title" validate:"required"`
	// Detail says more about this occurrence; Status is an HTTP status, where there is one.
	Detail   string `yaml:"detail" json:"detail,omitempty"`
	Status   int    `yaml:"status" json:"status,omitempty"`
	Instance string `yaml:"instance" json:"instance,omitempty"`
}

// Pool finds a node pool by its name.
func (c Cluster) Pool(name string) (NodePool, bool) {
	for _, pool := range c.NodePools {
		if pool.Name == name {
			return pool, true
		}
	}
	return NodePool{}, false
}

// Clusters are the entries of a registry, in its order.
type Clusters []Cluster

// Find returns the cluster with the given id or alias.
func (cs Clusters) Find(name string) (Cluster, error) {
	for _, c := range cs {
		if c.ID == name || (c.Alias != "" && c.Alias == name) {
			return c, nil
		}
	}
	return Cluster{}, &UnknownClusterError{Name: name}
}

// UnknownClusterError says that the registry has no cluster of that id or alias.
type UnknownClusterError struct{ Name string }

func (e *UnknownClusterError) Error() string {
	return fmt.Sprintf("cluster %q is not in the registry; `fairway cluster list` shows those that are", e.Name)
}

// Names become parts of workflow ids, tags and stack names.
var (
	clusterID = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9:._-]*$`)
	poolName  = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
)

// document is the file form of a registry.
type document struct {
	Clusters Clusters `yaml:"clusters" validate:"required,dive"`
}

// Check reports what the tags of the single fields cannot say.
func (d *document) Check(report func(field, format string, args ...any)) {
	taken := map[string]int{} // ids and aliases share one name space
	claim := func(field, name string, index int) {
		if first, duplicate := taken[name]; duplicate && first != index {
			report(field, "%q is taken by clusters[%d] already; ids and aliases must differ", name, first)
			return
		}
		taken[name] = index
	}
	for i, cluster := range d.Clusters {
		at := fmt.Sprintf("clusters[%d]", i)
		if cluster.ID != "" {
			if !clusterID.MatchString(cluster.ID) {
				report(at+".id", "is %q; use letters, digits and the characters : . _ -", cluster.ID)
			}
			claim(at+".id", cluster.ID, i)
		}
		if cluster.Alias != "" {
			if strings.ContainsFunc(cluster.Alias, unicode.IsControl) {
				report(at+".alias", "is %q; use no control characters", cluster.Alias)
			}
			claim(at+".alias", cluster.Alias, i)
		}
		CheckPools(at+".node_pools", cluster.NodePools, report)
	}
}

// CheckPools reports what the tags of the single fields of node pools cannot say; at is where they are.
func CheckPools(at string, all []NodePool, report func(field, format string, args ...any)) {
	pools := map[string]int{}
	for j, pool := range all {
		at := fmt.Sprintf("%s[%d]", at, j)
		if pool.Name != "" && !poolName.MatchString(pool.Name) {
			report(at+".name", "is %q; use lower-case letters, digits and dashes, at most 63", pool.Name)
		}
		if first, duplicate := pools[pool.Name]; duplicate {
			report(at+".name", "%q is the name of node_pools[%d] already", pool.Name, first)
		}
		pools[pool.Name] = j
		if pool.MaxSize < pool.MinSize {
			report(at+".max_size", "is %d; must be at least min_size, which is %d", pool.MaxSize, pool.MinSize)
		}
	}
}

func (d *document) setDefaults() {
	for i := range d.Clusters {
		d.Clusters[i].setDefaults()
	}
}

func (c *Cluster) setDefaults() {
	if c.LocalID == "" {
		c.LocalID = c.ID
	}
	if c.LifecycleStatus == "" {
		c.LifecycleStatus = defaultLifecycleStatus
	}
	if c.Provider == "" {
		c.Provider = "zalando-aws"
	}
	for i := range c.NodePools {
		if c.NodePools[i].DiscountStrategy == "" {
			c.NodePools[i].DiscountStrategy = "none"
		}
	}
}
