package roll

import (
	"cmp"
	"slices"
)

// Node is what the order and the batches depend on.
type Node struct {
	Name string
	Zone string
	// ControlPlane nodes are replaced one at a time.
	ControlPlane bool
	// Never counts pods that nothing but a person or force lets go, Held those that are held now,
	// and Pods all that must leave. Pinned means that some have volumes in the node's zone.
	Never, Held, Pods int
	Pinned            bool
}

// Order sorts nodes: those whose pods are freely movable first, the hardest last, so that as much
// as possible is done before something has to be waited for.
func Order(nodes []Node) []Node {
	sorted := slices.Clone(nodes)
	slices.SortFunc(sorted, func(a, b Node) int {
		return cmp.Or(
			cmp.Compare(a.Never, b.Never),
			cmp.Compare(a.Held, b.Held),
			compareBool(a.Pinned, b.Pinned),
			cmp.Compare(a.Pods, b.Pods),
			cmp.Compare(a.Name, b.Name),
		)
	})
	return sorted
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}
