package e2e

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/fairway-project/fairway/registry"
)

// controllerTag is what the AWS Load Balancer Controller writes on what it makes; its value is the cluster.
const controllerTag = "elbv2.k8s.aws/cluster"

// Thing is something in an account that may be a test's.
type Thing struct {
	Account Account
	Kind    string // one of Kinds
	ID      string
	Tags    map[string]string
	// Named is the id of the cluster where a name says it and no tag can: of records and of objects.
	Named string
	// Made is when, as AWS says it; zero if it does not.
	Made time.Time
	// InUse is what goes only after something else, such as a volume that is attached.
	InUse bool
}

// Owners are all that can own something.
type Owners struct {
	Leases []Lease
	// Running says of the workflows of the leases whether they run.
	Running map[string]bool
	// Registry are ids and aliases of real clusters.
	Registry map[string]bool
	// ClusterTag is the tag of what a cluster owns, with {cluster} for its id.
	ClusterTag string
	Now        time.Time
	// Grace is as in Sweep.
	Grace time.Duration
}

// Of is the id of the test cluster to which something belongs, empty if it is none's, or if tags contradict each
// other: what also carries the tag of another cluster is left alone.
func (o Owners) Of(t Thing) string {
	owned := map[string]bool{} // whether the tags say that the cluster owns it, and not just uses it
	for _, id := range []string{t.Tags[LeaseTag], t.Named, t.Tags[controllerTag]} {
		if id != "" {
			owned[id] = true
		}
	}
	before, after, named := strings.Cut(o.ClusterTag, "{cluster}")
	for key, value := range t.Tags {
		if named && len(key) > len(before)+len(after) && strings.HasPrefix(key, before) && strings.HasSuffix(key, after) {
			id := key[len(before) : len(key)-len(after)]
			owned[id] = owned[id] || value == "owned"
		}
	}
	if len(owned) != 1 {
		return ""
	}
	for id, is := range owned {
		if is && len(id) > len(Prefix) && strings.HasPrefix(id, Prefix) && !o.Registry[id] {
			return id
		}
	}
	return ""
}

// Cover says why somebody still owns what belongs to a test cluster. Otherwise why is why nobody does, empty
// if there is no lease of it at all.
func (o Owners) Cover(id string) (by, why string) {
	if o.Registry[id] {
		return "the registry has a cluster of this id", ""
	}
	for _, lease := range o.Leases {
		if lease.Cluster.ID != id {
			continue
		}
		switch {
		case lease.Kept.After(o.Now):
			return fmt.Sprintf("its lease is kept until %s", lease.Kept.UTC().Format(time.RFC3339)), ""
		case !lease.Expires.IsZero() && !lease.Expires.After(o.Now):
			why = fmt.Sprintf("its lease expired at %s", lease.Expires.UTC().Format(time.RFC3339))
		case o.Running[lease.Workflow]:
			return fmt.Sprintf("its workflow %s runs", lease.Workflow), ""
		case o.Now.Sub(lease.Made) < o.Grace:
			return fmt.Sprintf("its lease is younger than %s", o.Grace), ""
		default:
			why = fmt.Sprintf("its workflow %s does not run any more", lease.Workflow)
		}
	}
	return "", why
}

// Orphans are those of the things that nobody owns, in the order in which they are to be removed.
func (o Owners) Orphans(things []Thing) []Orphan {
	orphans, gone := []Orphan{}, map[string]bool{} // clusters of which something without a lease is an orphan
	add := func(t Thing, id, why string) {
		orphans = append(orphans, Orphan{Account: t.Account, Kind: t.Kind, ID: t.ID, Lease: id, Why: why})
	}
	held := map[string]bool{} // clusters of which something goes only after something else; the next sweep takes the lease
	for _, t := range things {
		if t.InUse {
			held[o.Of(t)] = true
		}
	}
	var ageless []Thing
	for _, t := range things {
		id := o.Of(t)
		if id == "" || t.InUse || t.Kind == "lease" && held[id] {
			continue
		}
		by, why := o.Cover(id)
		if by != "" {
			continue
		}
		if why == "" {
			why = o.alone(t)
			gone[id] = gone[id] || why != ""
		}
		switch {
		case why != "":
			add(t, id, why)
		case t.Made.IsZero():
			ageless = append(ageless, t)
		}
	}
	// AWS does not say since when there is a record, target group or security group. One without a lease goes with
	// what else there is of its cluster: a new cluster would have a lease before it has anything.
	for _, t := range ageless {
		if id := o.Of(t); gone[id] {
			add(t, id, "it has no lease, as older things of "+id)
		}
	}
	slices.SortStableFunc(orphans, func(a, b Orphan) int {
		return cmp.Or(cmp.Compare(slices.Index(Kinds, a.Kind), slices.Index(Kinds, b.Kind)), cmp.Compare(etcdLast(a), etcdLast(b)),
			cmp.Compare(a.Account.Account, b.Account.Account), cmp.Compare(a.Account.Region, b.Account.Region), cmp.Compare(a.Lease, b.Lease), cmp.Compare(a.ID, b.ID))
	})
	return orphans
}

// Spared says why a thing is not to be removed as one of a test cluster's after all; empty if it may be.
func (o Owners) Spared(t Thing, id string) string {
	if of := o.Of(t); of == "" || of != id {
		return "its tags or its name do not say any more that it is " + id + "'s alone"
	}
	by, why := o.Cover(id)
	if by == "" && why == "" && !t.Made.IsZero() && o.alone(t) == "" {
		return fmt.Sprintf("it is younger than %s", o.Grace)
	}
	return by
}

// etcdLast puts the stack of etcd behind that of the cluster, which was made after it and uses it.
func etcdLast(o Orphan) int {
	if o.Kind == "stack" && strings.HasPrefix(o.ID, "etcd-") {
		return 1
	}
	return 0
}

// alone says why nobody owns a thing of which there is no lease; empty if it may be too young for one.
func (o Owners) alone(t Thing) string {
	// A tag that cannot be read says nothing.
	if expires, err := time.Parse(time.RFC3339, t.Tags[ExpiresTag]); err == nil && !expires.After(o.Now) {
		return fmt.Sprintf("it has no lease, and its tag says that it expired at %s", expires.UTC().Format(time.RFC3339))
	}
	if !t.Made.IsZero() && o.Now.Sub(t.Made) >= o.Grace {
		return fmt.Sprintf("it has no lease, and was made at %s", t.Made.UTC().Format(time.RFC3339))
	}
	return ""
}

// RegistryNames are the names of the clusters of a registry, for Owners.
func RegistryNames(clusters []registry.Cluster) map[string]bool {
	names := map[string]bool{}
	for _, c := range clusters {
		for _, name := range []string{c.ID, c.Alias, c.LocalID} {
			if name != "" {
				names[name] = true
			}
		}
	}
	return names
}

// InName is the first of the clusters whose id is a label of a domain name, and empty if none is.
func InName(domain string, clusters map[string]bool) string {
	for label := range strings.SplitSeq(strings.TrimSuffix(domain, "."), ".") {
		if clusters[label] {
			return label
		}
	}
	return ""
}
