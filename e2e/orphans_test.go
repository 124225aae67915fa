package e2e_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fairway-project/fairway/e2e"
	"github.com/fairway-project/fairway/registry"
)

var (
	now  = time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)
	old  = now.Add(-time.Hour)
	here = e2e.Account{Account: "aws:123456789012", Region: "eu-central-1"}
)

const (
	id  = "e2e-7-abcdef0"
	own = "kubernetes.io/cluster/" + id
)

const grace = 10 * time.Minute

func lease(change func(*e2e.Lease)) []e2e.Lease {
	l := e2e.Lease{Cluster: registry.Cluster{ID: id}, Workflow: "e2e/7/abcdef0", Made: old, Expires: now.Add(time.Hour)}
	change(&l)
	return []e2e.Lease{l}
}

func owners(leases []e2e.Lease, running bool) e2e.Owners {
	return e2e.Owners{
		Leases: leases, Running: map[string]bool{"e2e/7/abcdef0": running}, Now: now, Grace: grace, ClusterTag: "kubernetes.io/cluster/{cluster}",
		Registry: e2e.RegistryNames([]registry.Cluster{{ID: "prod-1", Alias: "e2e-real"}, {ID: "e2e-registered"}}),
	}
}

func TestWhatLeasesCover(t *testing.T) {
	for name, test := range map[string]struct {
		leases  []e2e.Lease
		running bool
		why     string // it is an orphan; empty: it is not
	}{
		"a lease covers while its workflow runs":                          {lease(func(*e2e.Lease) {}), true, ""},
		"a lease whose workflow has ended covers nothing":                 {lease(func(*e2e.Lease) {}), false, "its workflow e2e/7/abcdef0 does not run any more"},
		"a lease covers while it is kept":                                 {lease(func(l *e2e.Lease) { l.Kept = now.Add(time.Second) }), false, ""},
		"a lease that is kept covers after it has expired":                {lease(func(l *e2e.Lease) { l.Kept, l.Expires = now.Add(time.Second), old }), false, ""},
		"a lease covers no longer than it is kept":                        {lease(func(l *e2e.Lease) { l.Kept = now }), false, "its workflow e2e/7/abcdef0 does not run any more"},
		"a lease that has expired covers nothing, even if something runs": {lease(func(l *e2e.Lease) { l.Expires = now }), true, "its lease expired at 2026-07-01T12:00:00Z"},
		"a new lease covers before its workflow is seen":                  {lease(func(l *e2e.Lease) { l.Made = now.Add(-grace + time.Second) }), false, ""},
		"a lease is new for the grace and no longer":                      {lease(func(l *e2e.Lease) { l.Made = now.Add(-grace) }), false, "its workflow e2e/7/abcdef0 does not run any more"},
		"one of two leases is enough":                                     {append(lease(func(l *e2e.Lease) { l.Expires = old }), lease(func(*e2e.Lease) {})...), true, ""},
		"the lease of another cluster covers nothing":                     {lease(func(l *e2e.Lease) { l.Cluster.ID = "e2e-8" }), true, "it has no lease, and was made at 2026-07-01T11:00:00Z"},
	} {
		t.Run(name, func(t *testing.T) {
			thing := e2e.Thing{Account: here, Kind: "volume", ID: "vol-1", Tags: map[string]string{e2e.LeaseTag: id}, Made: old}
			o := owners(test.leases, test.running)
			want := []e2e.Orphan{}
			if test.why != "" {
				want = append(want, e2e.Orphan{Account: here, Kind: "volume", ID: "vol-1", Lease: id, Why: test.why})
			}
			require.Equal(t, want, o.Orphans([]e2e.Thing{thing}))
			require.Equal(t, test.why == "", o.Spared(thing, id) != "")
		})
	}
}

func TestWhatCountsAsATests(t *testing.T) {
	for name, test := range map[string]struct {
		tags  map[string]string
		named string
		want  string
	}{
		"what carries the tag of a lease": {map[string]string{e2e.LeaseTag: id}, "", id},
		"what the cluster owns":           {map[string]string{own: "owned"}, "", id},
		"both":                            {map[string]string{own: "owned", e2e.LeaseTag: id}, "", id},
		"what its load balancer controller has made":                 {map[string]string{"elbv2.k8s.aws/cluster": id}, "", id},
		"what is named after it":                                     {nil, id, id},
		"not what it only uses":                                      {map[string]string{own: "shared"}, "", ""},
		"not what carries nothing":                                   {nil, "", ""},
		"not what has a name like one":                               {map[string]string{"Name": id}, "", ""},
		"not what carries another tag with its id":                   {map[string]string{"example.org/lease": id}, "", ""},
		"not what belongs to a cluster without the prefix":           {map[string]string{"kubernetes.io/cluster/dev-1": "owned"}, "", ""},
		"not what carries the tag of a lease without the prefix":     {map[string]string{e2e.LeaseTag: "prod-1"}, "", ""},
		"not the prefix itself":                                      {map[string]string{e2e.LeaseTag: e2e.Prefix}, "", ""},
		"not what belongs to a cluster of the registry":              {map[string]string{"kubernetes.io/cluster/e2e-registered": "owned"}, "", ""},
		"not what carries a lease's tag with the alias of a cluster": {map[string]string{e2e.LeaseTag: "e2e-real"}, "", ""},
		"not what another cluster owns too":                          {map[string]string{e2e.LeaseTag: id, "kubernetes.io/cluster/prod-1": "owned"}, "", ""},
		"not what another cluster uses too":                          {map[string]string{own: "owned", "kubernetes.io/cluster/prod-1": "shared"}, "", ""},
		"not what two tests claim":                                   {map[string]string{e2e.LeaseTag: id, "elbv2.k8s.aws/cluster": "e2e-8"}, "", ""},
		"not what is named after another test":                       {map[string]string{e2e.LeaseTag: id}, "e2e-8", ""},
	} {
		t.Run(name, func(t *testing.T) {
			for range 20 { // the order of tags is no matter
				require.Equal(t, test.want, owners(nil, false).Of(e2e.Thing{Tags: test.tags, Named: test.named}))
			}
		})
	}
}

func TestWhatHasNoLease(t *testing.T) {
	expired, lasting := map[string]string{e2e.LeaseTag: id, e2e.ExpiresTag: "2026-07-01T12:00:00Z"}, map[string]string{e2e.LeaseTag: id, e2e.ExpiresTag: "2026-07-02T12:00:00Z"}
	for name, test := range map[string]struct {
		tags map[string]string
		made time.Time
		gone bool
	}{
		"young things are about to get one":                   {map[string]string{e2e.LeaseTag: id}, now.Add(-grace + time.Second), false},
		"things older than the grace are orphans":             {map[string]string{e2e.LeaseTag: id}, now.Add(-grace), true},
		"things older than the grace do not wait to expire":   {lasting, old, true},
		"young things that have expired are orphans":          {expired, now, true},
		"things of unknown age are young":                     {lasting, time.Time{}, false},
		"things of unknown age that have expired are orphans": {expired, time.Time{}, true},
		"an expiry that cannot be read says nothing":          {map[string]string{e2e.LeaseTag: id, e2e.ExpiresTag: "yesterday"}, now, false},
		"what Kubernetes has made becomes an orphan by age":   {map[string]string{own: "owned"}, old, true},
	} {
		t.Run(name, func(t *testing.T) {
			orphans := owners(nil, false).Orphans([]e2e.Thing{{Kind: "security-group", ID: "sg-1", Tags: test.tags, Made: test.made}})
			require.Equal(t, test.gone, len(orphans) == 1)
		})
	}
}

func TestWhatHasNoAgeGoesWithTheRestOfItsCluster(t *testing.T) {
	record := e2e.Thing{Kind: "record", ID: "Z1/A/api." + id, Named: id}
	require.Empty(t, owners(nil, false).Orphans([]e2e.Thing{record}), "a record alone is left")
	volume := e2e.Thing{Kind: "volume", ID: "vol-1", Tags: map[string]string{e2e.LeaseTag: id}, Made: old}
	require.Len(t, owners(nil, false).Orphans([]e2e.Thing{record, volume}), 2)
	volume.Made = now
	require.Empty(t, owners(nil, false).Orphans([]e2e.Thing{record, volume}), "what is young does not tell")
	require.Len(t, owners(lease(func(*e2e.Lease) {}), false).Orphans([]e2e.Thing{record}), 1, "a lease that covers nothing does")
}

func TestOrphansAreListedInTheOrderOfTheirRemoval(t *testing.T) {
	tags := map[string]string{e2e.LeaseTag: id}
	things := []e2e.Thing{{Kind: "lease", ID: id, Named: id}, {Kind: "stack", ID: "etcd-" + id, Tags: tags}, {Kind: "stack", ID: id, Tags: tags}}
	for _, kind := range []string{"objects", "record", "security-group", "volume", "instance", "target-group", "load-balancer", "group", "pool-stack"} {
		things = append(things, e2e.Thing{Kind: kind, ID: kind, Tags: tags})
	}
	o := owners(lease(func(*e2e.Lease) {}), false)
	var ids []string
	for _, orphan := range o.Orphans(things) {
		ids = append(ids, orphan.ID)
	}
	require.Equal(t, []string{"pool-stack", "group", "load-balancer", "target-group", "instance", "volume", "security-group", id, "etcd-" + id, "record", "objects", id}, ids)

	attached := e2e.Thing{Kind: "volume", ID: "vol-2", Tags: tags, InUse: true}
	for _, orphan := range o.Orphans(append(things, attached)) {
		require.NotEqual(t, "vol-2", orphan.ID, "it goes when its instance is gone")
		require.NotEqual(t, "lease", orphan.Kind, "which stays until then")
	}
}

func TestWhatIsSparedWhenItIsLookedAtOnceMore(t *testing.T) {
	tags := map[string]string{e2e.LeaseTag: id}
	for name, test := range map[string]struct {
		thing  e2e.Thing
		id     string
		spared bool
	}{
		"not what is old and has no lease":     {e2e.Thing{Tags: tags, Made: old}, id, false},
		"not what has no age":                  {e2e.Thing{Named: id}, id, false},
		"what is young":                        {e2e.Thing{Tags: tags, Made: now}, id, true},
		"what has become another test's":       {e2e.Thing{Tags: tags, Made: old}, "e2e-8", true},
		"what is no test's":                    {e2e.Thing{Made: old}, id, true},
		"what is no test's, of no test":        {e2e.Thing{Made: old}, "", true},
		"what is of a cluster in the registry": {e2e.Thing{Tags: map[string]string{e2e.LeaseTag: "e2e-registered"}, Made: old}, "e2e-registered", true},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, test.spared, owners(nil, false).Spared(test.thing, test.id) != "")
		})
	}
}

func TestLabelsOfNames(t *testing.T) {
	clusters := map[string]bool{id: true}
	for domain, want := range map[string]string{
		"api." + id + ".example.org.": id, id + ".example.org": id, "*." + id + ".example.org.": id,
		"x" + id + ".example.org.": "", id + "-docs.example.org.": "", "example.org.": "", "": "",
	} {
		require.Equal(t, want, e2e.InName(domain, clusters), domain)
	}
}
