package workflows

import "go.temporal.io/sdk/temporal"

// Workflow ids are locks: at most one workflow of an id runs, so there is one writer per thing.

// RollPoolID is the id of the workflow that replaces nodes of a pool.
func RollPoolID(cluster, pool string) string { return "cluster/" + cluster + "/pool/" + pool }

// ReplaceNodeID is the id of the workflow that replaces one node.
func ReplaceNodeID(cluster, node string) string { return "cluster/" + cluster + "/node/" + node }

// Search attributes; they have to exist in the namespace (docs/operating.md).
var (
	ClusterAttribute     = temporal.NewSearchAttributeKeyKeyword("Cluster")
	PoolAttribute        = temporal.NewSearchAttributeKeyKeyword("Pool")
	ChannelAttribute     = temporal.NewSearchAttributeKeyKeyword("Channel")
	EnvironmentAttribute = temporal.NewSearchAttributeKeyKeyword("Environment")
	PhaseAttribute       = temporal.NewSearchAttributeKeyKeyword("Phase")
	VersionAttribute     = temporal.NewSearchAttributeKeyKeyword("Version")
	BlockedAttribute     = temporal.NewSearchAttributeKeyBool("Blocked")
)

// SearchAttributes are all that workflows set.
var SearchAttributes = []temporal.SearchAttributeKey{ClusterAttribute, PoolAttribute, ChannelAttribute, EnvironmentAttribute, PhaseAttribute, VersionAttribute, BlockedAttribute}

// ProgressQuery asks RollPool for a RollProgress, and UpdateCluster for an UpdateProgress.
const ProgressQuery = "progress"
