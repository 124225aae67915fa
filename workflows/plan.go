package workflows

import (
	"fmt"
	"slices"
	"time"

	"go.temporal.io/sdk/temporal"

	"github.com/fairway-project/fairway/roll"
)

// RollPlan is what a roll would do if all goes well.
type RollPlan struct {
	Cluster string `json:"cluster"`
	Name    string `json:"name"` // of the pool
	Pool    Pool   `json:"pool"`
	// Nodes are those to replace, in their order.
	Nodes []Node `json:"nodes"`
	// Batches are the names of the nodes that go at the same time.
	Batches [][]string `json:"batches"`
	// NoNodes are instances that are to be replaced and are no nodes (yet). They have nothing to drain:
	// a roll gives them some time to become nodes, and ends in the end those that do not.
	NoNodes []string `json:"no_nodes,omitempty"`
	// InPlace means that old nodes are ended before their replacements are launched.
	InPlace bool `json:"in_place,omitempty"`
}

// PlanRoll decides which nodes a roll replaces, and in which order. It returns an application error
// of type NodeNotFound, InvalidInput or NoSurgeRoom if the roll must not begin.
func PlanRoll(in RollPoolInput, info PoolInfo, pool Pool, nodes []Node, now time.Time) (RollPlan, error) {
	plan := RollPlan{Cluster: info.Cluster.ID, Name: info.Pool, Pool: pool, Nodes: []Node{}, Batches: [][]string{}}
	old, noNodes, err := chosen(in, info, pool, nodes, now)
	plan.NoNodes = noNodes
	if err != nil || len(old) == 0 {
		return plan, err
	}
	byName, simple := map[string]Node{}, make([]roll.Node, len(old))
	for i, node := range old {
		byName[node.Name] = node
		simple[i] = roll.Node{
			Name: node.Name, Zone: node.Zone, ControlPlane: node.ControlPlane,
			Never: node.Never, Held: node.Held, Pods: node.Pods, Pinned: node.Pinned,
		}
	}
	for _, node := range roll.Order(simple) {
		plan.Nodes = append(plan.Nodes, byName[node.Name])
	}
	settings, size := info.Settings, roll.Pool{Size: pool.Desired, Max: pool.Max}
	if in.Remove {
		settings, size.Max = RemovalPace(settings, pool), 2*pool.Desired
	}
	if limit, inPlace := settings.Limit(size, 0); inPlace || in.Remove {
		plan.InPlace = true
	} else if limit == 0 {
		if !slices.Contains(settings.Fallbacks, roll.InPlace) {
			return plan, CheckSurgeRoom(info.Cluster.ID, info.Pool, pool)
		}
		plan.InPlace, settings = true, roll.Settings{Parallel: 1}
	}
	for _, batch := range settings.Batches(simple, size) {
		names := make([]string, len(batch))
		for i, node := range batch {
			names[i] = node.Name
		}
		plan.Batches = append(plan.Batches, names)
	}
	return plan, nil
}

// RemovalPace is how a pool is emptied: at the pace of its rolls, but without replacements there is
// nothing that a surge would bound.
func RemovalPace(s roll.Settings, pool Pool) roll.Settings {
	return roll.Settings{Surge: roll.Share{Count: pool.Desired}, Parallel: s.Parallel}
}

// chosen lists the nodes that are to be replaced, and the instances that are to be and are no nodes.
func chosen(in RollPoolInput, info PoolInfo, pool Pool, nodes []Node, now time.Time) (out []Node, noNodes []string, err error) {
	oldest := info.Settings.MaxAge
	if in.MaxAge != "" {
		age, err := time.ParseDuration(in.MaxAge)
		if err != nil || age <= 0 {
			return nil, nil, temporal.NewNonRetryableApplicationError(fmt.Sprintf("max_age is %q; must be a duration such as 720h", in.MaxAge), InvalidInput, nil)
		}
		oldest = age
	}
	if len(in.Nodes) > 0 {
		out, err = named(in.Nodes, info, pool, nodes)
		return out, nil, err
	}
	for _, instance := range pool.Instances {
		if instance.ends() {
			continue
		}
		at := slices.IndexFunc(nodes, func(n Node) bool { return n.Instance == instance.ID })
		aged := at >= 0 && oldest > 0 && now.Sub(nodes[at].Created) >= oldest
		switch {
		case !instance.Old && !in.All && !in.Remove && !aged:
		case at < 0 && in.Remove: // it goes with its group
		case at < 0:
			noNodes = append(noNodes, instance.ID)
		default:
			out = append(out, nodes[at])
		}
	}
	return out, noNodes, nil
}

func named(names []string, info PoolInfo, pool Pool, nodes []Node) ([]Node, error) {
	var out []Node
	for _, name := range slices.Compact(slices.Sorted(slices.Values(names))) {
		at := slices.IndexFunc(nodes, func(n Node) bool { return n.Name == name })
		if at < 0 {
			return nil, temporal.NewNonRetryableApplicationError(fmt.Sprintf(
				"cluster %s: node %s is not in pool %s; `fairway node list %s` shows the pools", info.Cluster.ID, name, info.Pool, info.Cluster.ID), NodeNotFound, nil)
		}
		if err := CheckMember(info.Cluster.ID, nodes[at], pool); err != nil {
			return nil, err
		}
		out = append(out, nodes[at])
	}
	return out, nil
}

// CheckMember says whether the instance of a node is one of its pool's.
func CheckMember(cluster string, node Node, p Pool) error {
	if slices.ContainsFunc(p.Instances, func(i Instance) bool { return i.ID == node.Instance }) {
		return nil
	}
	return temporal.NewNonRetryableApplicationError(fmt.Sprintf(
		"cluster %s: node %s runs on instance %s, which is not in group %s of its pool", cluster, node.Name, node.Instance, p.Group), NodeNotFound, nil)
}

// CheckSurgeRoom says whether a pool can be made one larger.
func CheckSurgeRoom(cluster, pool string, p Pool) error {
	if p.Desired < p.Max {
		return nil
	}
	return noSurgeRoom(cluster, pool, p)
}

func noSurgeRoom(cluster, pool string, p Pool) error {
	return temporal.NewNonRetryableApplicationError(fmt.Sprintf(
		"cluster %s: pool %s has no room for a replacement: its group %s has %d instances, which is its maximum; raise max_size by one, or allow the fallback in-place",
		cluster, pool, p.Group, p.Desired), NoSurgeRoom, nil)
}
