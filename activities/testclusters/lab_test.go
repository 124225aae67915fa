package testclusters

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/stretchr/testify/require"

	"github.com/fairway-project/fairway/activities/activitytest"
	"github.com/fairway-project/fairway/activities/aws"
	"github.com/fairway-project/fairway/config"
	"github.com/fairway-project/fairway/e2e"
	"github.com/fairway-project/fairway/lab"
	"github.com/fairway-project/fairway/registry"
	"github.com/fairway-project/fairway/workflows"
)

var elsewhere = e2e.Account{Account: "aws:123456789012", Region: "us-east-1"}

// process is what a worker has, over AWS.
func process(accounts ...e2e.Account) *Clusters {
	s := settings()
	s.Accounts = accounts
	outside := &aws.Accounts{Settings: config.AWS{Bucket: "fairway-{account}-{region}"}}
	return &Clusters{
		Settings: s, Uses: outside.Uses, Registered: func(context.Context, string) (bool, error) { return false, nil },
		Leases: &Leases{Bucket: aws.Bucket{Accounts: outside}, Accounts: accounts},
	}
}

func wish(cluster, workflow string, account e2e.Account) workflows.LeaseCluster {
	return workflows.LeaseCluster{
		Request: e2e.Request{ID: "7/abc", Cluster: cluster, Number: 7, Channel: "dev", By: "anna"}, Account: account, Workflow: workflow,
	}
}

func TestLeasesOnAWS(t *testing.T) {
	l, err := lab.StartAWS(t.Context(), lab.Options{Dir: t.TempDir(), Out: t.Output()})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, l.Stop()) })
	t.Setenv("AWS_ENDPOINT_URL", l.AWSURL())
	t.Setenv("AWS_ACCESS_KEY_ID", "test")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "test")
	t.Setenv("AWS_CONFIG_FILE", "/dev/null")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
	for rule, test := range map[string]func(*testing.T){
		"one of many that want a cluster's id gets it":                               testOneWins,
		"a lease is found by its workflow again, and in whatever account it is":      testSameAgain,
		"two that change a lease at the same time both do":                           testBothChange,
		"when a lifecycle has been changed every worker knows":                       testEverybodyKnows,
		"people's wish for a lifecycle stays":                                        testOvertaken,
		"leases are listed whole or not at all":                                      testListed,
		"a lease ends with all that the bucket has of its cluster, and once is once": testEnds,
		"instances cost as long as they ran":                                         func(t *testing.T) { testCost(t, l) },
	} {
		t.Run(rule, test)
	}
}

func testOneWins(t *testing.T) {
	var won, lost atomic.Int32
	var all sync.WaitGroup
	for i := range 10 {
		all.Go(func() {
			_, err := process(account, elsewhere).LeaseCluster(t.Context(), wish("e2e-1-race", fmt.Sprint("e2e/", i), account))
			if err == nil {
				won.Add(1)
				return
			}
			requireError(t, err, workflows.InvalidInput, true, "has its lease")
			lost.Add(1)
		})
	}
	all.Wait()
	require.EqualValues(t, 1, won.Load())
	require.EqualValues(t, 9, lost.Load())
}

func testSameAgain(t *testing.T) {
	first, err := process(account, elsewhere).LeaseCluster(t.Context(), wish("e2e-2-same", "e2e/7/abc", account))
	require.NoError(t, err)
	require.Equal(t, "anna", first.Owner)
	require.Equal(t, first.Made.Add(30*time.Hour).Truncate(time.Second), first.Expires)
	for _, where := range []e2e.Account{account, elsewhere} {
		again, err := process(account, elsewhere).LeaseCluster(t.Context(), wish("e2e-2-same", "e2e/7/abc", where))
		require.NoError(t, err)
		require.Equal(t, first, again)
		_, err = process(account, elsewhere).LeaseCluster(t.Context(), wish("e2e-2-same", "e2e/8/abc", where))
		requireError(t, err, workflows.InvalidInput, true, "workflow e2e/7/abc has its lease")
	}
	tags, err := process(account).Leases.Tags(t.Context(), "e2e-2-same")
	require.NoError(t, err)
	require.Equal(t, map[string]string{
		e2e.LeaseTag: "e2e-2-same", e2e.OwnerTag: "anna", e2e.CostTag: "e2e/7", e2e.ExpiresTag: first.Expires.Format(time.RFC3339),
	}, tags)
	_, err = process(account).Leases.Tags(t.Context(), "e2e-2-none")
	requireError(t, err, workflows.ClusterNotFound, true, "has no lease")
}

func testBothChange(t *testing.T) {
	_, err := process(account).LeaseCluster(t.Context(), wish("e2e-3-both", "w", account))
	require.NoError(t, err)
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			require.NoError(t, process(account).Leases.WriteStatus(t.Context(), "e2e-3-both", registry.Status{CurrentVersion: "v"}, registry.Ready))
		})
		all.Go(func() {
			in := workflows.ChangeLease{Cluster: "e2e-3-both", Account: account, Kept: now}
			require.NoError(t, activitytest.Worker{}.Run(process(account).ChangeLease, in, nil))
		})
	}
	all.Wait()
	lease, found, err := process(account).Leases.Find(t.Context(), "e2e-3-both")
	require.NoError(t, err)
	require.True(t, found)
	require.Equal(t, registry.Ready, lease.Cluster.LifecycleStatus)
	require.Equal(t, "v", lease.Cluster.Status.CurrentVersion)
	require.Equal(t, now, lease.Kept)
}

func testEverybodyKnows(t *testing.T) {
	mine, theirs := process(account), process(account)
	_, err := mine.LeaseCluster(t.Context(), wish("e2e-4-known", "w", account))
	require.NoError(t, err)
	seen, _, err := theirs.Leases.Find(t.Context(), "e2e-4-known")
	require.NoError(t, err)
	require.Equal(t, registry.Requested, seen.Cluster.LifecycleStatus)
	in := workflows.ChangeLease{Cluster: "e2e-4-known", Account: account, Lifecycle: string(registry.DecommissionRequested)}
	require.NoError(t, activitytest.Worker{}.Run(mine.ChangeLease, in, nil))
	seen, _, err = theirs.Leases.Find(t.Context(), "e2e-4-known")
	require.NoError(t, err)
	require.Equal(t, registry.DecommissionRequested, seen.Cluster.LifecycleStatus)

	in.Lifecycle = "nonsense"
	requireError(t, activitytest.Worker{}.Run(mine.ChangeLease, in, nil), workflows.InvalidInput, true, "is no lifecycle status")
	in = workflows.ChangeLease{Cluster: "e2e-4-none", Account: account, Lifecycle: string(registry.Ready)}
	requireError(t, activitytest.Worker{}.Run(mine.ChangeLease, in, nil), workflows.ClusterNotFound, true, "has no lease")
}

func testOvertaken(t *testing.T) {
	c := process(account)
	_, err := c.LeaseCluster(t.Context(), wish("e2e-5-wish", "w", account))
	require.NoError(t, err)
	in := workflows.ChangeLease{Cluster: "e2e-5-wish", Account: account, Lifecycle: string(registry.DecommissionRequested)}
	require.NoError(t, activitytest.Worker{}.Run(c.ChangeLease, in, nil))
	var overtaken *registry.LifecycleError
	require.ErrorAs(t, c.Leases.WriteStatus(t.Context(), "e2e-5-wish", registry.Status{}, registry.Ready), &overtaken)
	require.NoError(t, c.Leases.WriteStatus(t.Context(), "e2e-5-wish", registry.Status{}, registry.Decommissioned))
}

func testListed(t *testing.T) {
	here := e2e.Account{Account: account.Account, Region: "eu-west-1"} // tests before this one have made none here
	for _, id := range []string{"e2e-6-a", "e2e-6-b"} {
		_, err := process(here).LeaseCluster(t.Context(), wish(id, "w", here))
		require.NoError(t, err)
	}
	empty := e2e.Account{Account: account.Account, Region: "eu-west-2"}
	leases, err := process(here, empty).Leases.List(t.Context())
	require.NoError(t, err)
	require.Equal(t, []string{"e2e-6-a", "e2e-6-b"}, []string{leases[0].Cluster.ID, leases[1].Cluster.ID})

	closed := process(here, e2e.Account{Account: "aws:999999999999", Region: "eu-west-1"})
	closed.Leases.Bucket.Accounts.Settings.Bucket = "fairway-123456789012-eu-west-1"
	_, err = closed.Leases.List(t.Context())
	requireError(t, err, workflows.AccessDenied, false, "AWS refuses")
	_, found, err := closed.Leases.Find(t.Context(), "e2e-6-a")
	require.NoError(t, err)
	require.True(t, found, "it is where it is")
	_, _, err = closed.Leases.Find(t.Context(), "e2e-6-c")
	requireError(t, err, workflows.AccessDenied, false, "AWS refuses")

	bucket := process(here).Leases.Bucket
	require.NoError(t, bucket.Put(t.Context(), in(here, "x"), "leases/e2e-6-b.json", []byte("nonsense")))
	_, err = process(here).Leases.List(t.Context())
	requireError(t, err, workflows.InvalidInput, true, "leases/e2e-6-b.json in the bucket of account aws:123456789012 (aws.bucket) is no lease")
	require.NoError(t, bucket.Put(t.Context(), in(here, "x"), "leases/..", nil))
	_, err = process(here).Leases.List(t.Context())
	requireError(t, err, workflows.InvalidInput, true, "leases/.. in its bucket (aws.bucket) is no lease; delete it")
}

func testEnds(t *testing.T) {
	c := process(account)
	lease, err := c.LeaseCluster(t.Context(), wish("e2e-7-end", "w", account))
	require.NoError(t, err)
	bucket := c.Leases.Bucket
	for _, key := range []string{"entries/e2e-7-end/1.json", "templates/e2e-7-end/stack/1", "entries/e2e-7-end2/1.json"} {
		require.NoError(t, bucket.Put(t.Context(), lease.Cluster, key, []byte("{}")))
	}
	end := workflows.ChangeLease{Cluster: "e2e-7-end", Account: account}
	require.NoError(t, c.EndLease(t.Context(), end))
	require.NoError(t, c.EndLease(t.Context(), end))
	_, found, err := c.Leases.Find(t.Context(), "e2e-7-end")
	require.NoError(t, err)
	require.False(t, found)
	left, err := bucket.List(t.Context(), lease.Cluster, "entries/e2e-7-end")
	require.NoError(t, err)
	require.Equal(t, []string{"entries/e2e-7-end2/1.json"}, left)
	end.Cluster = "dev-1"
	requireError(t, c.EndLease(t.Context(), end), workflows.InvalidInput, true, "no cluster of a test")
}

func testCost(t *testing.T, l *lab.Lab) {
	c := process(account)
	_, err := c.LeaseCluster(t.Context(), wish("e2e-8-cost", "w", account))
	require.NoError(t, err)
	machines := ec2.NewFromConfig(l.AWSConfig())
	run := func(kind ec2types.InstanceType, lease string) string {
		out, err := machines.RunInstances(t.Context(), &ec2.RunInstancesInput{
			ImageId: awssdk.String("ami-12c6146b"), InstanceType: kind, MinCount: awssdk.Int32(1), MaxCount: awssdk.Int32(1),
			TagSpecifications: []ec2types.TagSpecification{{
				ResourceType: ec2types.ResourceTypeInstance, Tags: []ec2types.Tag{{Key: awssdk.String(e2e.LeaseTag), Value: &lease}},
			}},
		})
		require.NoError(t, err)
		return *out.Instances[0].InstanceId
	}
	run("m5.large", "e2e-8-cost")
	run("m5.large", "e2e-8-other")
	ended := run("x1.32xlarge", "e2e-8-cost")
	_, err = machines.TerminateInstances(t.Context(), &ec2.TerminateInstancesInput{InstanceIds: []string{ended}})
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		uses, err := c.Uses(t.Context(), in(account, "e2e-8-cost"), e2e.LeaseTag, "e2e-8-cost")
		return err == nil && len(uses) == 2 && (uses[0].To.IsZero() != uses[1].To.IsZero())
	}, 30*time.Second, 100*time.Millisecond, "one runs, one has ended")
	c.Now = func() time.Time { return time.Now().Add(10 * time.Hour) }
	var cost e2e.Cost
	require.NoError(t, activitytest.Worker{}.Run(c.EstimateCost, workflows.ChangeLease{Cluster: "e2e-8-cost", Account: account}, &cost))
	require.InDelta(t, 10, cost.Hours, 0.1)
	require.InDelta(t, 10*2+10, cost.Amount, 0.5)
	require.Equal(t, []string{"x1.32xlarge"}, cost.Unpriced)
}
