package sweep_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudformation"
	cftypes "github.com/aws/aws-sdk-go-v2/service/cloudformation/types"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/temporal"

	"github.com/fairway-project/fairway/activities/activitytest"
	"github.com/fairway-project/fairway/activities/aws"
	"github.com/fairway-project/fairway/activities/sweep"
	"github.com/fairway-project/fairway/config"
	"github.com/fairway-project/fairway/e2e"
	"github.com/fairway-project/fairway/lab"
	"github.com/fairway-project/fairway/registry"
	"github.com/fairway-project/fairway/workflows"
)

const (
	gone   = "e2e-1-aaaaaaa" // its test has ended without tearing down
	alive  = "e2e-2-bbbbbbb" // its test runs
	lost   = "e2e-3-ccccccc" // has no lease
	bucket = "fairway-123456789012-eu-central-1"
)

var here = e2e.Account{Account: "aws:123456789012", Region: "eu-central-1", Limit: 2}

// world is an account in which tests have been, and what owns something there.
type world struct {
	*testing.T
	lab     *lab.Lab
	clients clients
	sweep   *sweep.Sweep
	leases  map[string]e2e.Lease
	queue   []workflows.TestQueueEntry
	running map[string]bool
	blocked error
	worker  activitytest.Worker
	broken  string // what cannot be read
	refuse  atomic.Pointer[func(action string) string]
	actions atomic.Int64
	network network
}

func newWorld(t *testing.T, l *lab.Lab) *world {
	w := &world{T: t, lab: l, clients: newClients(l.AWSConfig()), leases: map[string]e2e.Lease{}, running: map[string]bool{}}
	w.proxy()
	w.network = w.findNetwork()
	fails := func(what string) error {
		if w.broken == what {
			return errors.New(what + " do not answer")
		}
		return nil
	}
	w.sweep = &sweep.Sweep{
		Settings: e2e.Settings{Accounts: []e2e.Account{here}, Sweep: e2e.Defaults().Sweep},
		Accounts: &aws.Accounts{
			Find: func(context.Context, string) (registry.Cluster, error) {
				return registry.Cluster{}, errors.New("no test cluster is in the registry")
			},
			Settings: config.AWS{
				ClusterTag: "kubernetes.io/cluster/{cluster}", PoolTag: "node.kubernetes.io/node-pool", Bucket: "fairway-{account}-{region}", PollInterval: 50 * time.Millisecond,
			},
		},
		Leases: func(context.Context) ([]e2e.Lease, error) {
			return slices.Collect(maps.Values(w.leases)), fails("leases")
		},
		Running: func(_ context.Context, workflow string) (bool, error) { return w.running[workflow], fails("workflows") },
		Clusters: func(context.Context) ([]registry.Cluster, error) {
			return []registry.Cluster{{ID: "dev-1"}, {ID: "e2e-registered"}}, fails("clusters")
		},
		EndLease: func(_ context.Context, in workflows.ChangeLease) error {
			require.Equal(t, here, in.Account)
			delete(w.leases, in.Cluster)
			return nil
		},
		Places: func(context.Context) ([]workflows.TestQueueEntry, error) { return w.queue, fails("places") },
		Leave: func(_ context.Context, in workflows.TestQueueEntry) error {
			w.queue = slices.DeleteFunc(w.queue, func(e workflows.TestQueueEntry) bool { return e.Request.ID == in.Request.ID })
			return nil
		},
		Blocks: blocks(func() error { return w.blocked }),
		GiveUp: 2 * time.Second,
		Now:    func() time.Time { return time.Now().Add(time.Hour) }, // all here is an hour old
	}
	return w
}

type blocks func() error

func (b blocks) Check(context.Context, string, string) error { return b() }

// proxy lets tests refuse single requests of the sweep as AWS does.
func (w *world) proxy() {
	w.Helper()
	target, err := url.Parse(w.lab.AWSURL())
	require.NoError(w, err)
	proxy := httputil.NewSingleHostReverseProxy(target)
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		r.Body = io.NopCloser(bytes.NewReader(body))
		form, _ := url.ParseQuery(string(body))
		if refuse := w.refuse.Load(); refuse != nil {
			if code := (*refuse)(form.Get("Action")); code != "" {
				w.actions.Add(1)
				rw.WriteHeader(http.StatusBadRequest)
				fmt.Fprintf(rw, "<Response><Errors><Error><Code>%s</Code><Message>resource has a dependent object</Message></Error></Errors><RequestID>1</RequestID></Response>", code)
				return
			}
		}
		proxy.ServeHTTP(rw, r)
	}))
	w.Cleanup(server.Close)
	w.Setenv("AWS_ENDPOINT_URL", server.URL)
}

func (w *world) lease(cluster string, running bool) {
	workflow := workflows.TestID(cluster)
	w.running[workflow] = running
	w.leases[cluster] = e2e.Lease{
		Cluster:  registry.Cluster{ID: cluster, InfrastructureAccount: here.Account, Region: here.Region},
		Workflow: workflow, Made: time.Now(), Expires: time.Now().Add(24 * time.Hour),
	}
}

func (w *world) find() ([]e2e.Orphan, error) {
	var found []e2e.Orphan
	err := w.worker.Run(w.sweep.FindOrphans, workflows.FindOrphans{}, &found)
	return found, err
}

func (w *world) found() []e2e.Orphan {
	w.Helper()
	found, err := w.find()
	require.NoError(w, err)
	return found
}

func (w *world) remove(o e2e.Orphan) error { return w.worker.Run(w.sweep.RemoveOrphan, o, nil) }

func requireError(t testing.TB, err error, kind string, final bool, message string) {
	t.Helper()
	var application *temporal.ApplicationError
	require.ErrorAs(t, err, &application)
	require.Equal(t, kind, application.Type(), application.Message())
	require.Equal(t, final, application.NonRetryable())
	require.Contains(t, application.Message(), message)
}

func TestSweep(t *testing.T) {
	l, err := lab.StartAWS(t.Context(), lab.Options{Dir: t.TempDir(), Out: t.Output()})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, l.Stop()) })
	t.Setenv("AWS_ACCESS_KEY_ID", "test")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "test")
	t.Setenv("AWS_CONFIG_FILE", "/dev/null")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
	for _, test := range []struct {
		name string
		run  func(*world)
	}{
		{"nothing is an orphan when something cannot be read", testUnreadable},
		{"nothing is removed that somebody owns by now", testOwnedAgain},
		{"nothing is removed while changes are blocked", testBlocked},
		{"nothing is removed that is no test's", testForeign},
		{"what is in use is tried again, and reported when that does not end", testInUse},
		{"a stack that fails to delete is tried again, and reported", testStackInUse},
		{"a lease stays as long as something is left of its cluster", testLeaseStays},
		{"only the configured account is touched", testOtherAccount},
		{"a place is given back that a test holds which is gone and has no lease", testPlaces},
		// Last, as it wants the others to have left nothing.
		{"all that nobody owns is removed, and nothing else", testAll},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(newWorld(t, l)) })
	}
}

func testAll(w *world) {
	zone := w.zone()
	w.sweep.Settings.Sweep.HostedZones = []string{zone}
	w.lease(gone, false)
	w.lease(alive, true)
	w.seedLookAlikes(zone)
	w.seedCluster(alive, zone)
	before := w.everything(zone)
	w.holds("lost", lost) // its turn comes when nothing is left of the cluster
	w.holds("never", "e2e-9-fffffff")
	volume := w.volume(map[string]string{"kubernetes.io/cluster/" + lost: "owned"})
	w.object("templates/" + lost + "/template")
	w.seedCluster(gone, zone)
	w.object("e2e/1/aaaaaaa/junit.xml") // the results of a test stay
	before["s3 e2e/1/aaaaaaa/junit.xml"] = true

	found := w.found()
	require.True(w, slices.ContainsFunc(found, func(o e2e.Orphan) bool { return o.ID == volume && o.Lease == lost }))
	kinds := map[string]int{}
	var order []string
	for _, o := range found {
		require.Contains(w, []string{gone, lost, "e2e-9-fffffff"}, o.Lease, "%+v", o)
		require.Equal(w, here, o.Account)
		require.NotEmpty(w, o.Why)
		kinds[o.Kind]++
		order = append(order, o.Kind)
	}
	require.Equal(w, map[string]int{
		"pool-stack": 1, "group": 1, "load-balancer": 2, "target-group": 1, "instance": 1, "volume": 2, "security-group": 2, "stack": 2, "record": 3, "objects": 3, "lease": 1, "place": 1,
	}, kinds, "%+v", found)
	require.Equal(w, e2e.Kinds, slices.Compact(order))
	require.Equal(w, found, w.found(), "to look changes nothing")

	for _, o := range found {
		require.NoError(w, w.remove(o), "%+v", o)
		if o.Kind == "group" {
			require.NoError(w, w.remove(o), "what is gone is gone")
		}
	}
	require.Equal(w, slices.Sorted(maps.Keys(before)), slices.Sorted(maps.Keys(w.everything(zone))))
	require.Equal(w, []string{alive}, slices.Collect(maps.Keys(w.leases)))
	found = w.found()
	require.Len(w, found, 1)
	require.Equal(w, "place lost", found[0].Kind+" "+found[0].ID)
	require.NoError(w, w.remove(found[0]))
	require.Empty(w, w.queue)
	require.Empty(w, w.found())
}

func testUnreadable(w *world) {
	w.lease(gone, false)
	require.NotEmpty(w, w.found())
	orphan := w.found()[0]
	for _, w.broken = range []string{"leases", "workflows", "clusters"} {
		_, err := w.find()
		requireError(w, err, workflows.Unreachable, false, w.broken+" do not answer")
		requireError(w, w.remove(orphan), workflows.Unreachable, false, w.broken+" do not answer")
	}
	w.broken = "places"
	require.NotEmpty(w, w.found(), "what costs money does not wait for the queue")
	w.broken = ""
	w.leases[gone] = e2e.Lease{Cluster: registry.Cluster{ID: gone}}
	_, err := w.find()
	requireError(w, err, workflows.InvalidInput, true, `the lease of test cluster "e2e-1-aaaaaaa" lacks`)
	delete(w.leases, gone)

	w.sweep.Settings.Sweep.HostedZones = []string{"Z00000000000"}
	_, err = w.find()
	requireError(w, err, workflows.InvalidInput, true, "hosted zone Z00000000000 (e2e.sweep.hosted_zones) is in none of the accounts")
}

func testOwnedAgain(w *world) {
	volume := w.volume(map[string]string{e2e.LeaseTag: gone})
	w.stack("nodepool-again-"+gone, gone, map[string]string{"node.kubernetes.io/node-pool": "again"}, bucketTemplate("again-files"))
	w.putIn("again-files")
	found := w.found()
	require.Len(w, found, 2, "%+v", found)
	w.lease(gone, true)
	for _, o := range found {
		requireError(w, w.remove(o), workflows.InvalidInput, true, "is left alone: its workflow e2e/"+gone+" runs")
	}
	w.lease(gone, false)
	_, err := w.clients.ec2.CreateTags(w.Context(), &ec2.CreateTagsInput{Resources: []string{volume}, Tags: []ec2types.Tag{{Key: awssdk.String("kubernetes.io/cluster/dev-1"), Value: awssdk.String("owned")}}})
	require.NoError(w, err)
	requireError(w, w.remove(found[1]), workflows.InvalidInput, true, "do not say any more")
	require.True(w, *w.describe("nodepool-again-" + gone).EnableTerminationProtection, "nothing was changed")
	require.NoError(w, w.remove(found[0]))
	require.Nil(w, w.describe("nodepool-again-"+gone))
	w.volumeStays(volume)

	// The lease of a new test of the same cluster comes while the buckets are emptied.
	w.stack("nodepool-again-"+gone, gone, map[string]string{"node.kubernetes.io/node-pool": "again"}, bucketTemplate("again-files"))
	looks := 0
	w.sweep.Running = func(context.Context, string) (bool, error) { looks++; return looks > 1, nil }
	requireError(w, w.remove(found[0]), workflows.InvalidInput, true, "runs")
	require.Equal(w, cftypes.StackStatusCreateComplete, w.describe("nodepool-again-"+gone).StackStatus)
	w.sweep.Running = func(context.Context, string) (bool, error) { return false, nil }
	require.NoError(w, w.remove(found[0]))
}

func testBlocked(w *world) {
	volume := w.volume(map[string]string{e2e.LeaseTag: lost})
	w.blocked = temporal.NewApplicationError("the fleet is blocked", workflows.Blocked)
	requireError(w, w.remove(e2e.Orphan{Account: here, Kind: "volume", ID: volume, Lease: lost}), workflows.Blocked, false, "the fleet is blocked")
	w.volumeStays(volume)
	w.blocked = nil
	require.NoError(w, w.remove(e2e.Orphan{Account: here, Kind: "volume", ID: volume, Lease: lost}))
}

func testForeign(w *world) {
	w.object("entries/dev-1/1.json")
	volume := w.volume(map[string]string{"kubernetes.io/cluster/dev-1": "owned"})
	w.stack("foreign-1", "dev-1", nil, bucketTemplate("foreign-files"))
	w.putIn("foreign-files")
	for _, o := range []e2e.Orphan{{Kind: "volume", ID: volume, Lease: gone}, {Kind: "volume", ID: volume, Lease: "dev-1"}, {Kind: "volume", ID: volume}, {Kind: "stack", ID: "foreign-1", Lease: gone}, {Kind: "stack", ID: "foreign-1", Lease: "dev-1"}} {
		o.Account = here
		requireError(w, w.remove(o), workflows.InvalidInput, true, "is left alone")
	}
	for _, o := range []e2e.Orphan{{Kind: "objects", ID: "entries/dev-1/", Lease: "dev-1"}, {Kind: "objects", ID: "entries/", Lease: gone}, {Kind: "objects", ID: "", Lease: gone}} {
		o.Account = here
		require.NoError(w, w.remove(o), "no sweep finds such a thing")
	}
	requireError(w, w.remove(e2e.Orphan{Account: here, Kind: "bucket", ID: bucket, Lease: gone}), workflows.InvalidInput, true, `of the kind "bucket"`)
	w.volumeStays(volume)
	require.True(w, w.everything("")["s3 entries/dev-1/1.json"])
	require.True(w, w.everything("")["object foreign-files/key"])
}

func testInUse(w *world) {
	group := w.securityGroup("in-use", map[string]string{e2e.LeaseTag: lost, e2e.ExpiresTag: "2020-01-01T00:00:00Z"})
	found := w.found()
	require.Len(w, found, 1)
	var times atomic.Int64
	refuse := func(action string) string {
		if action == "DeleteSecurityGroup" && times.Add(1) <= 3 {
			return "DependencyViolation"
		}
		return ""
	}
	w.refuse.Store(&refuse)
	require.NoError(w, w.remove(found[0]))
	require.EqualValues(w, 4, times.Load())
	require.False(w, w.everything("")["security-group "+group])

	group = w.securityGroup("in-use", map[string]string{e2e.LeaseTag: lost, e2e.ExpiresTag: "2020-01-01T00:00:00Z"})
	times.Store(-1000)
	requireError(w, w.remove(e2e.Orphan{Account: here, Kind: "security-group", ID: group, Lease: lost}), workflows.StackFailed, true, "resource has a dependent object")
	times.Store(1000)
	require.NoError(w, w.remove(e2e.Orphan{Account: here, Kind: "security-group", ID: group, Lease: lost}))
}

func testStackInUse(w *world) {
	w.stack(lost, lost, nil, `{"Resources": {"Network": {"Type": "AWS::EC2::VPC", "Properties": {"CidrBlock": "10.99.0.0/16"}}}}`)
	resource, err := w.clients.formation.DescribeStackResource(w.Context(), &cloudformation.DescribeStackResourceInput{StackName: awssdk.String(lost), LogicalResourceId: awssdk.String("Network")})
	require.NoError(w, err)
	vpc := resource.StackResourceDetail.PhysicalResourceId
	table, err := w.clients.ec2.CreateRouteTable(w.Context(), &ec2.CreateRouteTableInput{VpcId: vpc}) // which a person has made
	require.NoError(w, err)

	found := w.found()
	require.Len(w, found, 1)
	requireError(w, w.remove(found[0]), workflows.StackFailed, true, "DELETE_FAILED: Network DELETE_FAILED: ")
	require.Equal(w, cftypes.StackStatusDeleteFailed, w.describe(lost).StackStatus)
	require.Equal(w, found, w.found(), "it is found again")

	// It goes at the second try.
	tries := 0
	w.worker.Heartbeat = func(details any) {
		if progress, is := details.(workflows.StackProgress); is && progress.Status == "trying again" && tries == 0 {
			tries++
			_, err := w.clients.ec2.DeleteRouteTable(w.Context(), &ec2.DeleteRouteTableInput{RouteTableId: table.RouteTable.RouteTableId})
			require.NoError(w, err)
		}
	}
	require.NoError(w, w.remove(found[0]))
	require.Equal(w, 1, tries)
	require.Nil(w, w.describe(lost))
}

func testLeaseStays(w *world) {
	w.lease(lost, false)
	volume := w.volume(map[string]string{e2e.LeaseTag: lost})
	found := w.found()
	require.Len(w, found, 2)
	requireError(w, w.remove(found[1]), workflows.StackFailed, true, "the lease stays as long as there are: volume "+volume)
	require.Contains(w, w.leases, lost)
	require.NoError(w, w.remove(found[0]))
	w.running[workflows.TestID(lost)] = true
	requireError(w, w.remove(found[1]), workflows.InvalidInput, true, "runs")
	w.running[workflows.TestID(lost)] = false
	require.NoError(w, w.remove(found[1]))
	require.NotContains(w, w.leases, lost)
	require.NoError(w, w.remove(found[1]), "what is gone is gone")
}

func testOtherAccount(w *world) {
	elsewhere := e2e.Account{Account: "aws:999999999999", Region: "eu-central-1"}
	requireError(w, w.remove(e2e.Orphan{Account: elsewhere, Kind: "volume", ID: "vol-1", Lease: gone}), workflows.InvalidInput, true, "is none of e2e.accounts")
	w.sweep.Settings.Accounts = []e2e.Account{elsewhere}
	_, err := w.find()
	requireError(w, err, workflows.InvalidInput, true, "the worker's credentials are those of account 123456789012, test clusters are made in account 999999999999")
}

// holds has a test hold a place for two hours.
func (w *world) holds(test, cluster string) {
	w.queue = append(w.queue, workflows.TestQueueEntry{Request: e2e.Request{ID: test, Cluster: cluster}, Since: time.Now().Add(-time.Hour), Given: &here})
}

func testPlaces(w *world) {
	w.holds("gone", gone)
	w.holds("alive", alive)
	w.running[workflows.TestID("alive")] = true
	w.holds("leased", lost)
	w.lease(lost, true)
	w.holds("young", "e2e-4-ddddddd")
	w.queue[3].Since = time.Now().Add(time.Hour)
	w.queue = append(w.queue, workflows.TestQueueEntry{Request: e2e.Request{ID: "waits", Cluster: "e2e-5-eeeeeee"}, Since: time.Now().Add(-time.Hour)})

	found := w.found()
	require.Len(w, found, 1, "%+v", found)
	require.Equal(w, "place gone "+gone, found[0].Kind+" "+found[0].ID+" "+found[0].Lease)
	require.Contains(w, found[0].Why, "e2e/gone does not run any more")

	w.running[workflows.TestID("gone")] = true // somebody has begun it again
	requireError(w, w.remove(found[0]), workflows.InvalidInput, true, "is left alone")
	require.Len(w, w.queue, 5)
	w.running[workflows.TestID("gone")] = false
	w.lease(gone, true) // written by an attempt that came late
	requireError(w, w.remove(found[0]), workflows.InvalidInput, true, "is left alone")
	require.Len(w, w.queue, 5)
	delete(w.leases, gone)
	w.broken = "places"
	requireError(w, w.remove(found[0]), workflows.Unreachable, false, "places do not answer")
	w.broken = ""
	require.NoError(w, w.remove(found[0]))
	require.Len(w, w.queue, 4)
	require.NoError(w, w.remove(found[0]), "what is given back is given back")
	require.Empty(w, w.found())
}
