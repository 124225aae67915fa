package roll

// Pool is what the size of a batch depends on.
type Pool struct {
	Size int // number of instances that the pool should have
	Max  int
}

// Limit is how many nodes the next batch may have, after one of `last` nodes (0 before the first),
// and whether their places are emptied before replacements are launched. 0 nodes means that the
// pool has no room.
func (s Settings) Limit(p Pool, last int) (nodes int, inPlace bool) {
	if s.Surge == (Share{}) {
		return min(max(1, s.Unavailable.Of(p.Size)), s.Parallel, growth(last)), true
	}
	return min(s.Surge.Of(p.Size), s.Parallel, growth(last), max(0, p.Max-p.Size)), false
}

// growth has one node go alone, and then twice as many as before.
func growth(last int) int { return max(1, 2*last) }

// Next takes the nodes of the next batch from the beginning of a list: at most `limit` of them, all
// of one zone, so that what is spread over zones loses one place at a time and the replacements
// come where volumes are. A node of the control plane goes alone.
func Next(nodes []Node, limit int) []Node {
	var batch []Node
	for _, node := range nodes {
		switch {
		case len(batch) == limit:
			return batch
		case len(batch) > 0 && (batch[0].ControlPlane || node.ControlPlane || node.Zone != batch[0].Zone):
			continue
		}
		batch = append(batch, node)
	}
	return batch
}

// Batches lists all batches of a roll in which everything goes well. It is empty if the pool has
// no room.
func (s Settings) Batches(nodes []Node, p Pool) [][]Node {
	var batches [][]Node
	left, last := Order(nodes), 0
	for len(left) > 0 {
		limit, _ := s.Limit(p, last)
		batch := Next(left, limit)
		if len(batch) == 0 {
			return nil
		}
		left = without(left, batch)
		batches = append(batches, batch)
		last = len(batch)
	}
	return batches
}

func without(nodes, gone []Node) []Node {
	names := map[string]bool{}
	for _, node := range gone {
		names[node.Name] = true
	}
	var left []Node
	for _, node := range nodes {
		if !names[node.Name] {
			left = append(left, node)
		}
	}
	return left
}
