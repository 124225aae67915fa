package aws_test

import (
	"testing"
	"time"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling"
	astypes "github.com/aws/aws-sdk-go-v2/service/autoscaling/types"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/stretchr/testify/require"

	"github.com/fairway-project/fairway/lab"
	"github.com/fairway-project/fairway/workflows"
)

func testAwaitInstances(t *testing.T, a account) {
	p := a.newPool(t, "awaited", 2, 5)
	known := p.members()
	require.NoError(t, p.grow(2, 4, workflows.Launch{}))
	fresh, err := p.await(2, time.Now(), known...)
	require.NoError(t, err)
	require.Len(t, fresh, 2)
	for _, instance := range fresh {
		require.NotContains(t, known, instance.ID)
		require.Contains(t, p.members(), instance.ID)
		require.Equal(t, "InService", instance.Lifecycle)
		require.Equal(t, "m5.large", instance.Type)
		require.NotEmpty(t, instance.Zone)
	}
	require.ElementsMatch(t, []string{fresh[0].ID, fresh[1].ID}, p.look().Protected, "they are protected, and nothing else is")
	require.Equal(t, p.look().Protected, p.look().Tagged)
}

func testShortage(t *testing.T, a account) {
	p := a.newPool(t, "starved", 1, 4)
	p.runOut("x1e.xlarge")
	since := time.Now()
	require.NoError(t, p.grow(1, 2, workflows.Launch{}))
	_, err := p.await(1, since, p.members()...)
	requireError(t, err, workflows.NoCapacity, true, "cluster dev-1: group starved has no new instance in service yet: "+
		"We currently do not have sufficient x1e.xlarge capacity")
	require.ErrorContains(t, err, "; AWS has lacked capacity for 3s")
	require.Contains(t, p.beats[len(p.beats)-1], "sufficient x1e.xlarge capacity", "people see it while it is being waited for")
}

// badProfile makes all launches fail for a reason that is not capacity.
var badProfile = &ec2types.RequestLaunchTemplateData{
	IamInstanceProfile: &ec2types.LaunchTemplateIamInstanceProfileSpecificationRequest{Name: awssdk.String("nobody")},
}

func testLaunchFailing(t *testing.T, a account) {
	p := a.newPool(t, "misconfigured", 1, 4)
	p.launchTemplateVersion(badProfile)
	since := time.Now()
	require.NoError(t, p.grow(1, 2, workflows.Launch{}))
	_, err := p.await(1, since, p.members()...)
	requireError(t, err, workflows.LaunchFailing, true, "cluster dev-1: group misconfigured has no new instance in service yet: ")
	require.ErrorContains(t, err, "Launching EC2 instance failed.; 3 launches have failed")
	require.ErrorContains(t, err, "nobody")
}

func testNothingCame(t *testing.T, a account) {
	p := a.newPool(t, "silent", 1, 4)
	p.suspend("Launch")
	require.NoError(t, p.grow(1, 3, workflows.Launch{}))
	p.activities.ReadyWithin = time.Second
	_, err := p.await(2, time.Now(), p.members()...)
	requireError(t, err, workflows.LaunchFailing, true, "cluster dev-1: group silent has 0 of 2 new instances in service: "+
		"somebody has suspended its process Launch, 1s after it was asked for")
}

func testOldFailures(t *testing.T, a account) {
	p := a.newPool(t, "mended", 1, 4)
	p.launchTemplateVersion(badProfile)
	known := p.members()
	since := time.Now()
	require.NoError(t, p.grow(1, 2, workflows.Launch{}))
	_, err := p.await(1, since, known...)
	requireError(t, err, workflows.LaunchFailing, true, "3 launches have failed")
	p.suspend("Launch")
	time.Sleep(3 * time.Second) // more than the clocks may differ
	p.activities.ReadyWithin = time.Second
	_, err = p.await(1, time.Now(), known...)
	requireError(t, err, workflows.LaunchFailing, true, "group mended has no new instance in service yet: somebody has suspended its process Launch")
}

func testZones(t *testing.T, a account) {
	p := a.newPool(t, "zoned", 1, 5)
	before := p.look()
	known := p.members()
	for range 2 { // as after a lost answer
		require.NoError(t, p.grow(1, 3, workflows.Launch{Zones: []string{"eu-central-1c"}}))
		now := p.look()
		require.Equal(t, []string{"eu-central-1c"}, now.Zones)
		require.Equal(t, []string{"AZRebalance"}, now.Suspended, "or it would end the instances elsewhere")
		require.Contains(t, now.Tags["fairway.dev/subnets"], "subnet-")
	}
	got, err := p.examine()
	require.NoError(t, err)
	require.Equal(t, before.Zones, got.Zones, "they are told as they are otherwise")
	fresh, err := p.await(2, time.Now(), known...)
	require.NoError(t, err)
	require.Equal(t, []string{"eu-central-1c", "eu-central-1c"}, []string{fresh[0].Zone, fresh[1].Zone})
	now := p.look()
	require.Equal(t, before.Zones, now.Zones)
	require.Equal(t, map[string]string{"fairway.dev/suspended": "AZRebalance"}, now.Tags)
	require.Equal(t, p.subnets, *p.group().VPCZoneIdentifier)
}

// A group need not name subnets, where the account has default ones.
func testWithoutSubnets(t *testing.T, a account) {
	p := a.noPool(t, "subnetless")
	p.launchTemplate("m5.large")
	_, err := p.scaling.CreateAutoScalingGroup(t.Context(), &autoscaling.CreateAutoScalingGroupInput{
		AutoScalingGroupName: &p.name, MinSize: awssdk.Int32(1), MaxSize: awssdk.Int32(4),
		AvailabilityZones: []string{"eu-central-1a", "eu-central-1b"},
		LaunchTemplate:    &astypes.LaunchTemplateSpecification{LaunchTemplateName: &p.name, Version: awssdk.String("$Latest")},
	})
	require.NoError(t, err)
	p.settles(1)
	before := p.look()
	known := p.members()
	require.NoError(t, p.grow(1, 2, workflows.Launch{Zones: []string{"eu-central-1b"}}))
	now := p.look()
	require.Equal(t, []string{"eu-central-1b"}, now.Zones)
	require.Equal(t, "eu-central-1a eu-central-1b", now.Tags["fairway.dev/zones"])
	fresh, err := p.await(1, time.Now(), known...)
	require.NoError(t, err)
	require.Equal(t, "eu-central-1b", fresh[0].Zone)
	p.restored()
	require.Equal(t, before, p.look())
}

func testSingleZone(t *testing.T, a account) {
	p := a.newPool(t, "alone", 1, 4)
	got, err := p.examine()
	require.NoError(t, err)
	zone := got.Instances[0].Zone
	p.oneZone(zone)
	before := p.look()
	require.NoError(t, p.grow(1, 2, workflows.Launch{Zones: []string{zone}}))
	require.Equal(t, before, p.look())
	require.Equal(t, 2, p.desired())
}

func testOtherType(t *testing.T, a account) {
	p := a.newPool(t, "typed", 1, 4)
	before := p.look()
	known := p.members()
	require.NoError(t, p.grow(1, 2, workflows.Launch{Type: "m5a.large", OnDemand: true}))
	now := p.look()
	require.Equal(t, []string{"m5a.large"}, now.Types)
	require.EqualValues(t, 100, now.OnDemand)
	got, err := p.examine()
	require.NoError(t, err)
	require.False(t, got.Instances[0].Old, "the template is the same")
	fresh, err := p.await(1, time.Now(), known...)
	require.NoError(t, err)
	require.Equal(t, "m5a.large", fresh[0].Type)
	p.restored()
	require.Equal(t, before, p.look())
}

func testMixed(t *testing.T, a account) {
	p := a.newPool(t, "mixed", 1, 4)
	p.mix(0, "m5.large", "m5a.large")
	before := p.look()
	known := p.members()
	for at, instanceType := range []string{"m5a.large", "m4.large"} { // one of its own, and another one
		require.NoError(t, p.grow(1+at, 2+at, workflows.Launch{Type: instanceType}))
		require.Equal(t, []string{instanceType}, p.look().Types)
		got, err := p.examine()
		require.NoError(t, err)
		require.True(t, got.Spot)
		fresh, err := p.await(1, time.Now(), known...)
		require.NoError(t, err)
		require.Equal(t, instanceType, fresh[0].Type)
		known = append(known, fresh[0].ID)
		require.Equal(t, before.Types, p.look().Types)
	}
	p.restored()
	require.Equal(t, before, p.look())
}

func testOnDemand(t *testing.T, a account) {
	p := a.newPool(t, "spotted", 1, 4)
	p.mix(20, "m5.large", "m5a.large")
	before := p.look()
	known := p.members()
	require.NoError(t, p.grow(1, 2, workflows.Launch{OnDemand: true}))
	now := p.look()
	require.EqualValues(t, 100, now.OnDemand)
	require.Equal(t, before.Types, now.Types)
	got, err := p.examine()
	require.NoError(t, err)
	require.True(t, got.Spot, "as it is otherwise")
	fresh, err := p.await(1, time.Now(), known...)
	require.NoError(t, err)
	answer, err := p.ec2.DescribeInstances(t.Context(), &ec2.DescribeInstancesInput{InstanceIds: []string{fresh[0].ID}})
	require.NoError(t, err)
	require.Empty(t, answer.Reservations[0].Instances[0].InstanceLifecycle)
	p.restored()
	require.Equal(t, before, p.look())
}

func testImpossible(t *testing.T, a account) {
	p := a.newPool(t, "impossible", 1, 4)
	refused := func(launch workflows.Launch, message string) {
		t.Helper()
		before := p.look()
		requireError(t, p.grow(1, 2, launch), workflows.InvalidInput, true, "cluster dev-1: group impossible cannot launch as asked: "+message)
		_, err := p.replace(p.members()[0], launch)
		requireError(t, err, workflows.InvalidInput, true, message)
		require.Equal(t, before, p.look())
		require.Equal(t, 1, p.desired())
	}
	refused(workflows.Launch{Zones: []string{"eu-central-1a", "eu-central-1z"}}, "it has no subnet in zone eu-central-1z")
	p.launchTemplateVersion(&ec2types.RequestLaunchTemplateData{
		InstanceMarketOptions: &ec2types.LaunchTemplateInstanceMarketOptionsRequest{MarketType: ec2types.MarketTypeSpot},
	})
	got, err := p.examine()
	require.NoError(t, err)
	require.True(t, got.Spot)
	refused(workflows.Launch{Type: "m5a.large"}, "its launch template lt-")
	refused(workflows.Launch{OnDemand: true}, "its launch template lt-")
	p.mix(100)
	refused(workflows.Launch{Type: "m5a.large"}, "its mixed instances policy has no plain list of instance types")
	p.overrides(astypes.LaunchTemplateOverrides{InstanceType: awssdk.String("m5.large"), WeightedCapacity: awssdk.String("2")})
	refused(workflows.Launch{Type: "m5a.large"}, "its instance types have weights, and m5a.large is not among them")
	p.mix(100, "m5.large", "m5.xlarge", "m5.2xlarge", "m5.4xlarge", "m5.8xlarge", "m5.12xlarge", "m5.16xlarge", "m5.24xlarge", "m5.metal",
		"m5a.large", "m5a.xlarge", "m5a.2xlarge", "m5a.4xlarge", "m5a.8xlarge", "m5a.12xlarge", "m5a.16xlarge", "m5a.24xlarge",
		"r5.large", "r5.xlarge", "r5.2xlarge", "r5.4xlarge", "r5.8xlarge", "r5.12xlarge", "r5.16xlarge", "r5.24xlarge", "r5.metal")
	refused(workflows.Launch{Type: "m5a.large"}, "what it is to launch afterwards does not fit into tag fairway.dev/instance-types, which takes 256 characters: m5.large")
}

func testRefusedLaunch(t *testing.T, a account) {
	p := a.newPool(t, "beyond", 1, 2)
	before := p.look()
	requireError(t, p.grow(1, 3, workflows.Launch{Zones: []string{"eu-central-1b"}}), workflows.InvalidInput, true,
		"cluster dev-1: group beyond cannot launch as asked: AWS says Desired capacity:3 must be between")
	p.restored()
	require.Equal(t, before, p.look())
}

func testLeftovers(t *testing.T, a account) {
	p := a.newPool(t, "leftover", 1, 5)
	before := p.look()
	require.NoError(t, p.grow(1, 2, workflows.Launch{Zones: []string{"eu-central-1b"}, Type: "m5a.large"}))
	require.NoError(t, p.grow(2, 3, workflows.Launch{Zones: []string{"eu-central-1c"}}))
	now := p.look()
	require.Equal(t, []string{"eu-central-1c"}, now.Zones)
	require.Equal(t, before.Template, now.Template)
	require.NotContains(t, now.Tags, "fairway.dev/launch-template")
	require.NoError(t, p.grow(3, 4, workflows.Launch{}))
	now = p.look()
	require.Equal(t, before.Zones, now.Zones)
	require.Equal(t, map[string]string{"fairway.dev/suspended": "AZRebalance"}, now.Tags)
}

func testLaunchingChanged(t *testing.T, a account) {
	p := a.newPool(t, "redefined", 1, 4)
	require.NoError(t, p.grow(1, 2, workflows.Launch{Zones: []string{"eu-central-1b"}, Type: "m5a.large"}))
	p.oneZone("eu-central-1a")
	p.update(func(in *autoscaling.UpdateAutoScalingGroupInput) { // as a stack does
		in.LaunchTemplate = &astypes.LaunchTemplateSpecification{LaunchTemplateName: &p.name, Version: awssdk.String("1")}
	})
	p.tagGroup("fairway.dev/subnets", "subnet-0 subnet-1") // others than the group has now
	_, err := p.restore(false)
	require.NoError(t, err)
	now := p.look()
	require.Equal(t, []string{"eu-central-1a"}, now.Zones)
	require.Equal(t, "redefined:1", now.Template)
	require.NotContains(t, now.Tags, "fairway.dev/subnets")
	require.NotContains(t, now.Tags, "fairway.dev/launch-template")
}

func testRelease(t *testing.T, a account) {
	p := a.newPool(t, "released", 1, 4)
	p.runOut("x1e.2xlarge")
	require.NoError(t, p.grow(1, 2, workflows.Launch{}))
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
	require.NoError(t, p.grow(1, 2, workflows.Launch{}))
	fresh, err := p.await(1, time.Now(), known...)
	require.NoError(t, err)
	surplus, err := p.release(2, 1, known...)
	require.NoError(t, err)
	require.Equal(t, fresh, surplus)
	require.Equal(t, 2, p.desired())

	_, err = p.terminate(fresh[0].ID)
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

func testReleaseRestores(t *testing.T, a account) {
	p := a.newPool(t, "undone", 1, 4)
	require.NoError(t, p.lab.Shortage(t.Context(), lab.Shortage{InstanceType: "x1e.4xlarge"}))
	before := p.look()
	since := time.Now()
	require.NoError(t, p.grow(1, 2, workflows.Launch{Type: "x1e.4xlarge"}))
	_, err := p.await(1, since, p.members()...)
	requireError(t, err, workflows.NoCapacity, true, "sufficient x1e.4xlarge capacity")
	surplus, err := p.release(2, 1, p.members()...)
	require.NoError(t, err)
	require.Empty(t, surplus)
	require.Equal(t, 1, p.desired())
	now := p.look()
	require.Equal(t, before.Template, now.Template)
	require.Empty(t, now.Tags)
	p.restored()
	require.Equal(t, before, p.look())
}

func testReleaseStillToCome(t *testing.T, a account) {
	p := a.newPool(t, "shrunk", 1, 5)
	p.runOut("x1e.8xlarge")
	before := p.look()
	pinned := workflows.Launch{Zones: []string{"eu-central-1c"}}
	require.NoError(t, p.grow(1, 4, pinned))
	for range 2 { // the second attempt finds it done
		require.NoError(t, p.releaseAs(pinned, 4, 2, p.members()...))
		require.Equal(t, 2, p.desired())
		require.Equal(t, []string{"eu-central-1c"}, p.look().Zones, "one is still to come")
	}
	require.NoError(t, p.releaseAs(pinned, 2, 1, p.members()...))
	require.Equal(t, 1, p.desired())
	require.Equal(t, before.Zones, p.look().Zones, "none is")
}

func testReleaseProtects(t *testing.T, a account) {
	p := a.newPool(t, "joined", 1, 5)
	p.setDesired(3) // by somebody else, so none of them is protected
	p.settles(3)
	known := p.members()
	p.runOut("x1e.16xlarge")
	require.NoError(t, p.grow(3, 4, workflows.Launch{}))
	surplus, err := p.release(4, 2, known...)
	require.NoError(t, err)
	require.Empty(t, surplus)
	require.Equal(t, 2, p.desired())
	require.ElementsMatch(t, known, p.look().Protected)
	require.Equal(t, p.look().Protected, p.look().Tagged, "so that they are unprotected again")
	// Not with require.Never, whose last look may come after the end of the test.
	for watched := time.Now().Add(2 * time.Second); time.Now().Before(watched); time.Sleep(100 * time.Millisecond) {
		require.Len(t, p.members(), 3, "none is ended with its pods on it")
	}
}

func testReleaseAnyway(t *testing.T, a account) {
	p := a.newPool(t, "unshrunk", 1, 4)
	p.runOut("x1.16xlarge")
	require.NoError(t, p.grow(1, 2, workflows.Launch{Zones: []string{"eu-central-1b"}}))
	p.loseSubnet()
	for range 2 {
		_, err := p.release(2, 1, p.members()...)
		require.NoError(t, err)
		require.Equal(t, 1, p.desired())
	}
}

// loseSubnet has one of the subnets that an altered group is to launch in afterwards be deleted.
func (p *pool) loseSubnet() {
	p.Helper()
	before := p.look().Tags["fairway.dev/subnets"]
	require.NotEmpty(p, before)
	p.tagGroup("fairway.dev/subnets", before+" subnet-0123456789abcdef0")
}
