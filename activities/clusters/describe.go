package clusters

import (
	"github.com/fairway-project/fairway/registry"
	"github.com/fairway-project/fairway/workflows"
)

// Describe is what workflows and the command line need of a cluster.
func Describe(c registry.Cluster) workflows.ClusterInfo { return describe(c) }
