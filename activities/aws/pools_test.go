package aws_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync"
	"testing"
	"time"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling"
	astypes "github.com/aws/aws-sdk-go-v2/service/autoscaling/types"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/temporal"

	"github.com/fairway-project/fairway/activities/activitytest"
	"github.com/fairway-project/fairway/workflows"
)

func TestPools(t *testing.T) {
	a := startAccount(t)
	t.Run("credentials that are refused are named as the reason", func(t *testing.T) { testRefusedCredentials(t, a) })
	t.Run("an endpoint that does not answer is named as the reason", func(t *testing.T) { testNoAnswer(t, a) })
	t.Run("the role of the cluster's account is taken on", func(t *testing.T) { testAssumeRole(t, a) })
	for rule, test := range map[string]func(*testing.T, account){
		"a pool is the group with its tags":                              testExamine,
		"a pool whose group lacks a tag is not found":                    testMissingTags,
		"a pool with two groups is refused":                              testAmbiguousTags,
		"a resize is done once":                                          testResizeTwice,
		"a size that somebody else has set is kept":                      testResizeChanged,
		"a size that AWS refuses is told":                                testResizeRefused,
		"a blocked pool is neither resized nor made smaller":             testBlocked,
		"a block comes too late for a termination under way":             testBlockedTooLate,
		"a group that is gone is told":                                   testGroupGone,
		"new instances are those that were not known":                    testAwaitInstances,
		"a shortage is given up soon, in AWS's words":                    testShortage,
		"launches that cannot work are given up, in AWS's words":         testLaunchFailing,
		"what does not come for no stated reason is given up":            testNothingCame,
		"failures of launches before are not counted":                    testOldFailures,
		"launches in one zone leave the group's zones as they were":      testZones,
		"zones are changed in a group without subnets, too":              testWithoutSubnets,
		"a single zone needs no change":                                  testSingleZone,
		"a launch of another type leaves the template as it was":         testOtherType,
		"a mixed group gets another type and gets its own back":          testMixed,
		"a Spot group launches On-Demand and returns to Spot":            testOnDemand,
		"what cannot be launched is refused before anything changes":     testImpossible,
		"a launch that AWS refuses is not tried again":                   testRefusedLaunch,
		"what is left of an earlier launch is undone by the next":        testLeftovers,
		"launches that somebody else has changed are kept":               testLaunchingChanged,
		"a pool is as before when it was protected and restored":         testProtect,
		"a protection is finished and undone after a crash at any step":  testProtectCrashed,
		"a pool that was emptied keeps its minimum of 0":                 testEmpty,
		"zones stay as they are while they are uneven":                   testUneven,
		"a blocked pool is restored and a group that is gone is nothing": testRestoreAnyway,
		"an instance is replaced as asked":                               testReplace,
		"a group does not get smaller than its minimum":                  testMinimum,
		"a wait ends with its cancellation or its worker":                testWaitEnds,
		"capacity is released while it has no instance":                  testRelease,
		"what is still to come after a release launches as asked":        testReleaseStillToCome,
		"a release ends no instance that joined by itself":               testReleaseProtects,
		"a release works although launches cannot be restored":           testReleaseAnyway,
		"what AWS will not restore is told and stops nothing else":       testRestoreImpossible,
		"launches are restored when an instance has its replacement":     testReplaceRestores,
		"sizes that count no instances are refused":                      testWeights,
		"an instance type's own template makes new instances":            testOwnTemplates,
		"an instance of a version that says the same is not old":         testReturn,
		"surplus instances are reported and kept":                        testReleaseSurplus,
		"capacity that somebody else has set is kept":                    testReleaseChanged,
		"capacity is released as launches are restored":                  testReleaseRestores,
		"an instance is terminated once and lowers the size once":        testTerminateTwice,
		"an instance that another ended has vanished":                    testVanished,
		"an instance that another ended out of its group has vanished":   testVanishedByScaling,
		"an instance that left its group alive was detached and runs on": testDetached,
		"an instance that EC2 has forgotten is terminated":               testForgotten,
	} {
		t.Run(rule, func(t *testing.T) {
			t.Parallel()
			test(t, a)
		})
	}
}

func testRefusedCredentials(t *testing.T, a account) {
	t.Setenv("AWS_ACCESS_KEY_ID", "somebody")
	p := a.noPool(t, "refused")
	_, err := p.examine()
	requireError(t, err, workflows.AccessDenied, false, "cluster dev-1: looking for the group of pool refused: AWS refuses (InvalidClientTokenId)")
	_, err = p.terminate("i-1")
	requireError(t, err, workflows.AccessDenied, false, "check the worker's credentials, aws.assume_role and deploy/aws/policy.json")
}

func testNoAnswer(t *testing.T, a account) {
	t.Setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
	t.Setenv("AWS_MAX_ATTEMPTS", "1")
	p := a.noPool(t, "unreachable")
	_, err := p.examine()
	requireError(t, err, workflows.Unreachable, false, "cluster dev-1: looking for the group of pool unreachable: AWS does not answer")
}

func testExamine(t *testing.T, a account) {
	p := a.newPool(t, "examined", 3, 6)
	got, err := p.examine()
	require.NoError(t, err)
	require.Equal(t, "examined", got.Group)
	require.Equal(t, []int{3, 6, 3}, []int{got.Min, got.Max, got.Desired})
	require.Len(t, got.Instances, 3)
	zones := map[string]bool{}
	for _, instance := range got.Instances {
		require.Contains(t, p.members(), instance.ID)
		require.Equal(t, "m5.large", instance.Type)
		require.Equal(t, "InService", instance.Lifecycle)
		zones[instance.Zone] = true
	}
	require.Equal(t, []string{"eu-central-1a", "eu-central-1b", "eu-central-1c"}, got.Zones)
	require.False(t, got.Spot)
	require.Equal(t, map[string]bool{"eu-central-1a": true, "eu-central-1b": true, "eu-central-1c": true}, zones)
}

func testMissingTags(t *testing.T, a account) {
	p := a.noPool(t, "untagged")
	p.launchTemplate("m5.large")
	own, of := "kubernetes.io/cluster/dev-1", "node.kubernetes.io/node-pool"
	for name, tags := range map[string]map[string]string{
		"none":             nil,
		"only-the-cluster": {own: "owned"},
		"only-the-pool":    {of: "untagged"},
		"another-pool":     {own: "owned", of: "untagged-2"},
		"another-cluster":  {"kubernetes.io/cluster/dev-10": "owned", of: "untagged"},
		"shared":           {own: "shared", of: "untagged"},
	} {
		p.createGroup("untagged-"+name, 0, 1, tags)
	}
	_, err := p.examine()
	requireError(t, err, workflows.PoolNotFound, true, `cluster dev-1 has no pool "untagged": no Auto Scaling group in eu-central-1 carries the tags `+
		"kubernetes.io/cluster/dev-1=owned and node.kubernetes.io/node-pool=untagged")
}

func testAmbiguousTags(t *testing.T, a account) {
	p := a.newPool(t, "ambiguous", 0, 1)
	p.createGroup("ambiguous-too", 0, 1, ownTags("ambiguous"))
	_, err := p.examine()
	requireError(t, err, workflows.InvalidInput, false, `cluster dev-1: pool "ambiguous" is ambiguous: 2 Auto Scaling groups in eu-central-1 carry its tags`)
}

func testAssumeRole(t *testing.T, a account) {
	var asked url.Values
	sts := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = r.ParseForm()
		asked = r.Form
		fmt.Fprint(w, `<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult><Credentials>
<AccessKeyId>ASIATHEROLES</AccessKeyId><SecretAccessKey>secret</SecretAccessKey><SessionToken>token</SessionToken>
<Expiration>2999-01-01T00:00:00Z</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>`)
	}))
	defer sts.Close()
	t.Setenv("AWS_ENDPOINT_URL_STS", sts.URL)
	p := a.newPool(t, "assumed", 0, 1)
	_, err := p.examine()
	require.NoError(t, err)
	require.Nil(t, asked, "none is taken on unless one is configured")

	p.activities = newActivities("arn:aws:iam::{account}:role/fairway")
	_, err = p.examine()
	require.NoError(t, err)
	require.Equal(t, "arn:aws:iam::123456789012:role/fairway", asked.Get("RoleArn"))
	require.Equal(t, "fairway", asked.Get("RoleSessionName"))

	t.Setenv("AWS_MAX_ATTEMPTS", "1")
	t.Setenv("AWS_ENDPOINT_URL_STS", "http://127.0.0.1:1")
	p.activities = newActivities("arn:aws:iam::{account}:role/fairway")
	_, err = p.examine()
	requireError(t, err, workflows.Unreachable, false, "AWS does not answer")
}

func testResizeTwice(t *testing.T, a account) {
	p := a.newPool(t, "resized", 1, 4)
	require.NoError(t, p.grow(1, 2, workflows.Launch{}))
	p.settles(2)
	require.NoError(t, p.grow(1, 2, workflows.Launch{}))
	require.Equal(t, 2, p.desired())
}

func testResizeChanged(t *testing.T, a account) {
	p := a.newPool(t, "changed", 1, 4)
	p.setDesired(3)
	requireError(t, p.grow(1, 2, workflows.Launch{}), workflows.PoolBusy, true, "cluster dev-1: the size of group changed changed to 3 while it was about to go from 1 to 2")
	require.Equal(t, 3, p.desired())
}

func testResizeRefused(t *testing.T, a account) {
	p := a.newPool(t, "full", 1, 1)
	require.ErrorContains(t, p.grow(1, 2, workflows.Launch{}), "cluster dev-1: setting the size of group full to 2: AWS says ValidationError: ")
}

func testBlocked(t *testing.T, a account) {
	p := a.newPool(t, "blocked", 1, 4)
	p.setDesired(2)
	p.settles(2)
	p.activities.Blocks = blocks(func(pool string) error {
		return temporal.NewApplicationError("pool "+pool+" is blocked", workflows.Blocked)
	})
	requireError(t, p.grow(2, 3, workflows.Launch{}), workflows.Blocked, false, "pool blocked is blocked")
	_, err := p.terminate(p.members()[0])
	requireError(t, err, workflows.Blocked, false, "pool blocked is blocked")
	before := p.look()
	_, err = p.replace(p.members()[0], workflows.Launch{Zones: []string{"eu-central-1c"}})
	requireError(t, err, workflows.Blocked, false, "pool blocked is blocked")
	require.Equal(t, before, p.look())
	require.Equal(t, 2, p.desired())
	for _, instance := range p.members() {
		require.Equal(t, ec2types.InstanceStateNameRunning, p.state(instance))
		require.NotContains(t, p.tagsOf(instance), "fairway.dev/terminated-by")
	}

	_, err = p.release(2, 1, p.members()...)
	require.NoError(t, err, "what was begun is undone even so")
	require.Equal(t, 1, p.desired())
}

func testBlockedTooLate(t *testing.T, a account) {
	p := a.newPool(t, "late", 1, 4)
	p.setDesired(2)
	p.settles(2)
	victim := p.members()[0]
	_, err := p.terminate(victim)
	require.NoError(t, err)
	p.activities.Blocks = blocks(func(string) error { return temporal.NewApplicationError("blocked", workflows.Blocked) })
	termination, err := p.terminate(victim)
	require.NoError(t, err)
	require.False(t, termination.Vanished)

	// EC2 knows before the group does.
	victim = p.members()[len(p.members())-1]
	p.suspend("HealthCheck")
	_, err = p.ec2.TerminateInstances(t.Context(), &ec2.TerminateInstancesInput{InstanceIds: []string{victim}})
	require.NoError(t, err)
	termination, err = p.terminate(victim)
	require.NoError(t, err)
	require.True(t, termination.Vanished)
}

func testWeights(t *testing.T, a account) {
	p := a.newPool(t, "weighted", 1, 4)
	p.overrides(astypes.LaunchTemplateOverrides{InstanceType: awssdk.String("m5.large"), WeightedCapacity: awssdk.String("2")})
	before := p.look()
	_, err := p.examine()
	requireError(t, err, workflows.InvalidInput, true, "cluster dev-1: the size of group weighted counts weights (m5.large is 2) and not instances")
	require.Equal(t, before, p.look())
	p.overrides(astypes.LaunchTemplateOverrides{InstanceType: awssdk.String("m5.large"), WeightedCapacity: awssdk.String("1")})
	_, err = p.examine()
	require.NoError(t, err)
}

func testOwnTemplates(t *testing.T, a account) {
	p := a.newPool(t, "owner", 1, 4)
	main := a.noPool(t, "owner-main")
	main.launchTemplate("m5.large")
	own := astypes.LaunchTemplateOverrides{
		InstanceType:                awssdk.String("m5.large"),
		LaunchTemplateSpecification: &astypes.LaunchTemplateSpecification{LaunchTemplateId: p.group().LaunchTemplate.LaunchTemplateId, Version: awssdk.String("$Latest")},
	}
	p.overridesOf(main.name, own) // the group's own template is another one now
	got, err := p.examine()
	require.NoError(t, err)
	require.False(t, got.Instances[0].Old)
	p.launchTemplateVersion(&ec2types.RequestLaunchTemplateData{InstanceType: "m5.xlarge"})
	got, err = p.examine()
	require.NoError(t, err)
	require.True(t, got.Instances[0].Old)
}

func testReturn(t *testing.T, a account) {
	p := a.newPool(t, "returning", 1, 4)
	for _, c := range []struct {
		instanceType ec2types.InstanceType
		old          bool
	}{{"m5.xlarge", true}, {"m5.large", false}, {"m5.2xlarge", true}} {
		p.launchTemplateVersion(&ec2types.RequestLaunchTemplateData{ImageId: awssdk.String("ami-1"), InstanceType: c.instanceType})
		got, err := p.examine()
		require.NoError(t, err)
		require.Equal(t, c.old, got.Instances[0].Old, c.instanceType)
	}
}

func testGroupGone(t *testing.T, a account) {
	p := a.noPool(t, "gone")
	const message = "cluster dev-1: Auto Scaling group gone is gone"
	requireError(t, p.grow(1, 2, workflows.Launch{}), workflows.PoolNotFound, true, message)
	_, err := p.terminate("i-1")
	requireError(t, err, workflows.PoolNotFound, true, message)
	_, err = p.await(1, time.Now())
	requireError(t, err, workflows.PoolNotFound, true, message)
	_, err = p.release(2, 1)
	requireError(t, err, workflows.PoolNotFound, true, message)
}

func testWaitEnds(t *testing.T, a account) {
	p := a.newPool(t, "waiting", 1, 4)
	in := workflows.AwaitInstances{Cluster: cluster, Group: p.name, Known: p.members(), Count: 1, Since: time.Now()}

	stopping := make(chan struct{})
	p.worker.Stopping = stopping
	stop := sync.OnceFunc(func() { close(stopping) })
	p.worker.Heartbeat = func(any) { stop() }
	err := p.worker.Run(p.activities.AwaitInstances, in, nil)
	requireError(t, err, workflows.Unreachable, false, "the worker stops; another one goes on")
	var application *temporal.ApplicationError
	require.ErrorAs(t, err, &application)
	require.Equal(t, temporal.ApplicationErrorCategoryBenign, application.Category())

	ctx, cancel := context.WithCancel(t.Context())
	p.worker = activitytest.Worker{Context: ctx, Heartbeat: func(any) { cancel() }}
	require.ErrorContains(t, p.worker.Run(p.activities.AwaitInstances, in, nil), "canceled")
}

func testTerminateTwice(t *testing.T, a account) {
	p := a.newPool(t, "terminated", 1, 4)
	p.setDesired(3)
	p.settles(3)
	victim := p.members()[1]
	for range 2 { // as after a lost answer
		termination, err := p.terminate(victim)
		require.NoError(t, err)
		require.False(t, termination.Vanished)
		require.Equal(t, 2, p.desired())
	}
	require.NoError(t, p.awaitTermination(victim))
	require.Equal(t, ec2types.InstanceStateNameTerminated, p.state(victim))
	p.settles(2)
	termination, err := p.terminate(victim) // it has left its group
	require.NoError(t, err)
	require.False(t, termination.Vanished)
	require.Equal(t, 2, p.desired())
}

func testVanished(t *testing.T, a account) {
	p := a.newPool(t, "vanished", 2, 4)
	victim := p.members()[0]
	_, err := p.ec2.TerminateInstances(t.Context(), &ec2.TerminateInstancesInput{InstanceIds: []string{victim}})
	require.NoError(t, err)
	p.eventually("its group replaces it", func() bool { return len(p.members()) == 2 && p.members()[0] != victim && p.members()[1] != victim })
	termination, err := p.terminate(victim)
	require.NoError(t, err)
	require.True(t, termination.Vanished)
	require.Equal(t, 2, p.desired())
}

func testVanishedByScaling(t *testing.T, a account) {
	p := a.newPool(t, "rebalanced", 1, 4)
	p.setDesired(2)
	p.settles(2)
	victim := p.members()[0]
	_, err := p.scaling.TerminateInstanceInAutoScalingGroup(t.Context(), &autoscaling.TerminateInstanceInAutoScalingGroupInput{
		InstanceId: &victim, ShouldDecrementDesiredCapacity: awssdk.Bool(false),
	})
	require.NoError(t, err)
	termination, err := p.terminate(victim) // it is still a member, on its way out
	require.NoError(t, err)
	require.True(t, termination.Vanished)
	require.Equal(t, 2, p.desired())
}

func testDetached(t *testing.T, a account) {
	p := a.newPool(t, "detached", 1, 4)
	p.setDesired(2)
	p.settles(2)
	victim := p.members()[0]
	_, err := p.scaling.DetachInstances(t.Context(), &autoscaling.DetachInstancesInput{
		AutoScalingGroupName: &p.name, InstanceIds: []string{victim}, ShouldDecrementDesiredCapacity: awssdk.Bool(true),
	})
	require.NoError(t, err)
	p.settles(1)
	_, err = p.terminate(victim)
	requireError(t, err, workflows.Detached, true, fmt.Sprintf(
		"cluster dev-1: instance %s is running but no longer in group detached, so somebody detached it; terminate it by hand or attach it again", victim))
	require.Equal(t, ec2types.InstanceStateNameRunning, p.state(victim))
	require.Equal(t, 1, p.desired())
}

func testForgotten(t *testing.T, a account) {
	p := a.newPool(t, "forgotten", 0, 1)
	const nobody = "i-0123456789abcdef0"
	require.NoError(t, p.awaitTermination(nobody))
	termination, err := p.terminate(nobody)
	require.NoError(t, err)
	require.True(t, termination.Vanished)
}
