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
		"a group that is gone is told":                                   testGroupGone,
		"a new instance is one that was not known":                       testAwaitInstance,
		"an instance that does not come is given up with AWS's reason":   testNoInstance,
		"a wait ends with its cancellation or its worker":                testWaitEnds,
		"capacity is released while it has no instance":                  testRelease,
		"surplus instances are reported and kept":                        testReleaseSurplus,
		"capacity that somebody else has set is kept":                    testReleaseChanged,
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
	require.NoError(t, p.resize(1, 2))
	p.settles(2)
	require.NoError(t, p.resize(1, 2))
	require.Equal(t, 2, p.desired())
}

func testResizeChanged(t *testing.T, a account) {
	p := a.newPool(t, "changed", 1, 4)
	p.setDesired(3)
	requireError(t, p.resize(1, 2), workflows.PoolBusy, true, "cluster dev-1: the size of group changed changed to 3 while it was about to go from 1 to 2")
	require.Equal(t, 3, p.desired())
}

func testResizeRefused(t *testing.T, a account) {
	p := a.newPool(t, "full", 1, 1)
	require.ErrorContains(t, p.resize(1, 2), "cluster dev-1: setting the size of group full to 2: AWS says ValidationError: ")
}

func testBlocked(t *testing.T, a account) {
	p := a.newPool(t, "blocked", 1, 4)
	p.setDesired(2)
	p.settles(2)
	p.activities.Blocks = blocks(func(pool string) error {
		return temporal.NewApplicationError("pool "+pool+" is blocked", workflows.Blocked)
	})
	requireError(t, p.resize(2, 3), workflows.Blocked, false, "pool blocked is blocked")
	_, err := p.terminate(p.members()[0])
	requireError(t, err, workflows.Blocked, false, "pool blocked is blocked")
	require.Equal(t, 2, p.desired())
	for _, instance := range p.members() {
		require.Equal(t, ec2types.InstanceStateNameRunning, p.state(instance))
	}

	_, err = p.release(2, 1, p.members()...)
	require.NoError(t, err, "what was begun is undone even so")
	require.Equal(t, 1, p.desired())
}

func testGroupGone(t *testing.T, a account) {
	p := a.noPool(t, "gone")
	const message = "cluster dev-1: Auto Scaling group gone is gone"
	requireError(t, p.resize(1, 2), workflows.PoolNotFound, true, message)
	_, err := p.terminate("i-1")
	requireError(t, err, workflows.PoolNotFound, true, message)
	_, err = p.awaitInstance(time.Now())
	requireError(t, err, workflows.PoolNotFound, true, message)
	_, err = p.release(2, 1)
	requireError(t, err, workflows.PoolNotFound, true, message)
}

func testAwaitInstance(t *testing.T, a account) {
	p := a.newPool(t, "awaited", 2, 4)
	known := p.members()
	require.NoError(t, p.resize(2, 3))
	instance, err := p.awaitInstance(time.Now(), known...)
	require.NoError(t, err)
	require.NotContains(t, known, instance.ID)
	require.Contains(t, p.members(), instance.ID)
	require.Equal(t, "InService", instance.Lifecycle)
	require.Equal(t, "m5.large", instance.Type)
	require.NotEmpty(t, instance.Zone)
}

func testNoInstance(t *testing.T, a account) {
	p := a.newPool(t, "starved", 1, 4)
	p.runOut("x1e.xlarge")
	require.NoError(t, p.resize(1, 2))
	p.activities.ReadyWithin = 5 * time.Second
	_, err := p.awaitInstance(time.Now(), p.members()...)
	requireError(t, err, workflows.BadReplacement, true, "cluster dev-1: group starved has no new instance in service yet: "+
		"We currently do not have sufficient x1e.xlarge capacity")
	require.ErrorContains(t, err, "5s after it was asked for")
	require.Contains(t, p.beats[len(p.beats)-1], "sufficient x1e.xlarge capacity", "people see it while it is being waited for")
}

func testWaitEnds(t *testing.T, a account) {
	p := a.newPool(t, "waiting", 1, 4)
	in := workflows.AwaitInstance{Cluster: cluster, Group: p.name, Known: p.members(), Since: time.Now()}

	stopping := make(chan struct{})
	p.worker.Stopping = stopping
	stop := sync.OnceFunc(func() { close(stopping) })
	p.worker.Heartbeat = func(any) { stop() }
	err := p.worker.Run(p.activities.AwaitInstance, in, nil)
	requireError(t, err, workflows.Unreachable, false, "the worker stops; another one goes on")
	var application *temporal.ApplicationError
	require.ErrorAs(t, err, &application)
	require.Equal(t, temporal.ApplicationErrorCategoryBenign, application.Category())

	ctx, cancel := context.WithCancel(t.Context())
	p.worker = activitytest.Worker{Context: ctx, Heartbeat: func(any) { cancel() }}
	require.ErrorContains(t, p.worker.Run(p.activities.AwaitInstance, in, nil), "canceled")
}

func testRelease(t *testing.T, a account) {
	p := a.newPool(t, "released", 1, 4)
	p.runOut("x1e.2xlarge")
	require.NoError(t, p.resize(1, 2))
	for range 2 { // the second attempt finds it done
		surplus, err := p.release(2, 1, p.members()...)
		require.NoError(t, err)
		require.Empty(t, surplus)
		require.Equal(t, 1, p.desired())
	}
}

func testReleaseSurplus(t *testing.T, a account) {
	p := a.newPool(t, "surplus", 1, 4)
	known := p.members()
	require.NoError(t, p.resize(1, 2))
	fresh, err := p.awaitInstance(time.Now(), known...)
	require.NoError(t, err)
	surplus, err := p.release(2, 1, known...)
	require.NoError(t, err)
	require.Equal(t, []workflows.Instance{fresh}, surplus)
	require.Equal(t, 2, p.desired())

	_, err = p.terminate(fresh.ID)
	require.NoError(t, err)
	surplus, err = p.release(2, 1, known...)
	require.NoError(t, err)
	require.Empty(t, surplus, "what terminates is no surplus")
	require.Equal(t, 1, p.desired())
}

func testReleaseChanged(t *testing.T, a account) {
	p := a.newPool(t, "kept", 1, 4)
	known := p.members()
	p.setDesired(3)
	surplus, err := p.release(2, 1, known...)
	require.NoError(t, err)
	require.Empty(t, surplus)
	require.Equal(t, 3, p.desired())
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
