// Package render turns the configuration of a channel and the registry entry of a cluster into what
// is applied: stacks, manifests and deletions. It is pure: what it renders depends on its arguments
// only.
package render

import (
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/fairway-project/fairway/registry"
)

// Release is all that a version means for a cluster.
type Release struct {
	// Cluster is the entry, with the defaults of all config items.
	Cluster registry.Cluster
	Version string
	// Stacks in the order in which they are applied: etcd, then the cluster.
	Stacks []Stack
	// Pools in the registry's order, those of the control plane first.
	Pools []Pool
	// Manifests in the order in which they are applied: namespaces and CRDs first, then by path.
	Manifests []Manifest
	Deletions Deletions
}

// Stack is a CloudFormation stack.
type Stack struct {
	Name string // such as "dev-1" or "etcd-dev-1"
	File string // its template, below the repository's folder
	Body string
	Tags map[string]string // those of the template's Metadata.Tags
}

// Pool is a node pool with its stack.
type Pool struct {
	registry.NodePool
	Stack        Stack
	ControlPlane bool
}

// Manifest is one Kubernetes object.
type Manifest struct {
	File   string
	Line   int // of the file, where the object, or the list that holds it, begins
	Object *unstructured.Unstructured
}

// Deletions are what deletions.yaml asks for.
type Deletions struct {
	PreApply  []Deletion
	PostApply []Deletion
}

// Deletion names objects that are to go, by exactly one of Name and Labels.
type Deletion struct {
	Name      string            `yaml:"name"`
	Labels    map[string]string `yaml:"labels"`   // equality
	Selector  string            `yaml:"selector"` // as kubectl's --selector
	Namespace string            `yaml:"namespace"`
	Kind      string            `yaml:"kind"`
	// APIVersion tells kinds of the same name apart; default: the server's preferred one.
	APIVersion string `yaml:"api_version"`
	// HasOwner restricts it to objects with, or without, an owner; nil means both.
	HasOwner           *bool  `yaml:"has_owner"`
	PropagationPolicy  string `yaml:"propagation_policy"` // Orphan, Background or Foreground
	GracePeriodSeconds *int64 `yaml:"grace_period_seconds"`
	Line               int    `yaml:"-"`
}

// Stack finds a stack of the release by its name, those of pools included.
func (r *Release) Stack(name string) (Stack, bool) {
	for _, stack := range r.Stacks {
		if stack.Name == name {
			return stack, true
		}
	}
	for _, pool := range r.Pools {
		if pool.Stack.Name == name {
			return pool.Stack, true
		}
	}
	return Stack{}, false
}
