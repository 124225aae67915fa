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
	"go.temporal.io/sdk/temporal"

	"github.com/fairway-project/fairway/workflows"
)

func testProtect(t *testing.T, a account) {
	p := a.newPool(t, "protected", 3, 5)
	p.suspend("AlarmNotification", "HealthCheck")
	p.shield(p.members()[1])
	before := p.look()
	for range 2 { // as after a lost answer, or after a roll that was terminated
		require.NoError(t, p.protect(false))
		now := p.look()
		require.Equal(t, []string{"AZRebalance", "AlarmNotification", "HealthCheck", "ScheduledActions"}, now.Suspended)
		require.Equal(t, map[string]string{"fairway.dev/suspended": "AZRebalance ScheduledActions"}, now.Tags)
		require.ElementsMatch(t, p.members(), now.Protected)
		require.ElementsMatch(t, []string{p.members()[0], p.members()[2]}, now.Tagged)
		require.EqualValues(t, 3, now.Min)
	}
	for range 2 {
		p.restored()
		require.Equal(t, before, p.look())
	}
}

// A crash may come between a tag and the change that it announces, and between the undoing of a
// change and of its tag.
func testProtectCrashed(t *testing.T, a account) {
	p := a.newPool(t, "crashed", 3, 5)
	before := p.look()
	tagInstance := func() {
		_, err := p.ec2.CreateTags(t.Context(), &ec2.CreateTagsInput{
			Resources: p.members()[:1], Tags: []ec2types.Tag{{Key: awssdk.String("fairway.dev/protected"), Value: awssdk.String("true")}},
		})
		require.NoError(t, err)
	}
	notes := map[string]string{
		"fairway.dev/suspended":       "AZRebalance AlarmNotification ScheduledActions",
		"fairway.dev/min-size":        "3",
		"fairway.dev/subnets":         "subnet-1 subnet-2",
		"fairway.dev/launch-template": "lt-1:Latest",
	}
	for _, protects := range []bool{true, false} {
		for key, value := range notes {
			p.tagGroup(key, value)
		}
		tagInstance()
		if protects {
			require.NoError(t, p.protect(true))
			now := p.look()
			require.EqualValues(t, 0, now.Min)
			require.Len(t, now.Protected, 3)
			require.Len(t, now.Suspended, 3)
		}
		p.restored()
		require.Equal(t, before, p.look())
	}
}

func testEmpty(t *testing.T, a account) {
	p := a.newPool(t, "emptied", 2, 4)
	require.NoError(t, p.protect(true))
	require.NoError(t, p.protect(true))
	require.Equal(t, "2", p.look().Tags["fairway.dev/min-size"])
	for _, instance := range p.members() {
		_, err := p.terminate(instance)
		require.NoError(t, err)
	}
	p.settles(0)
	left, err := p.restore(true)
	require.NoError(t, err)
	require.Empty(t, left)
	now := p.look()
	require.EqualValues(t, 0, now.Min)
	require.Empty(t, now.Tags)
	require.Empty(t, now.Suspended)
	require.Equal(t, 0, p.desired())
}

func testUneven(t *testing.T, a account) {
	p := a.newPool(t, "uneven", 1, 5)
	require.NoError(t, p.protect(false))
	require.NoError(t, p.grow(1, 3, workflows.Launch{Zones: []string{"eu-central-1a"}}))
	fresh, err := p.await(2, time.Now(), p.members()[:1]...)
	require.NoError(t, err)
	for range 2 {
		left, err := p.restore(false)
		require.NoError(t, err)
		require.Contains(t, left, "AZRebalance of group uneven stays suspended")
		require.Contains(t, left, "eu-central-1c: 0")
		now := p.look()
		require.Equal(t, []string{"AZRebalance"}, now.Suspended)
		require.Equal(t, map[string]string{"fairway.dev/suspended": "AZRebalance"}, now.Tags)
		require.Empty(t, now.Protected)
	}
	require.NoError(t, p.protect(false)) // another roll
	for _, instance := range fresh {
		_, err := p.terminate(instance.ID)
		require.NoError(t, err)
	}
	p.restored() // although they are still on their way out
	require.Empty(t, p.look().Suspended)
}

func testRestoreAnyway(t *testing.T, a account) {
	left, err := a.noPool(t, "never").restore(false)
	require.NoError(t, err)
	require.Empty(t, left)

	p := a.newPool(t, "halted", 2, 4)
	before := p.look()
	require.NoError(t, p.protect(true))
	p.activities.Blocks = blocks(func(string) error { return temporal.NewApplicationError("blocked", workflows.Blocked) })
	requireError(t, p.protect(true), workflows.Blocked, false, "blocked")
	p.restored()
	require.Equal(t, before, p.look())
	p.activities = newActivities("")

	require.NoError(t, p.protect(true))
	p.update(func(in *autoscaling.UpdateAutoScalingGroupInput) { in.MinSize = awssdk.Int32(1) })
	p.restored()
	before.Min = 1
	require.Equal(t, before, p.look(), "a minimum that somebody else has set is kept")
}

func testReplace(t *testing.T, a account) {
	p := a.newPool(t, "inplace", 1, 1)
	before := p.look()
	victim := p.members()[0]
	for range 2 { // as after a lost answer
		termination, err := p.replace(victim, workflows.Launch{Zones: []string{"eu-central-1c"}, Type: "m5a.large"})
		require.NoError(t, err)
		require.False(t, termination.Vanished)
		require.Equal(t, []string{"eu-central-1c"}, p.look().Zones)
	}
	fresh, err := p.await(1, time.Now(), victim)
	require.NoError(t, err)
	require.Equal(t, []string{"eu-central-1c", "m5a.large"}, []string{fresh[0].Zone, fresh[0].Type})
	require.Equal(t, 1, p.desired())
	p.restored()
	require.Equal(t, before, p.look())
}

func testMinimum(t *testing.T, a account) {
	p := a.newPool(t, "least", 1, 2)
	victim := p.members()[0]
	_, err := p.terminate(victim)
	requireError(t, err, workflows.InvalidInput, true,
		"cluster dev-1: instance "+victim+" cannot go without a replacement: the size of group least, 1, is its minimum; lower the minimum first")
	require.Equal(t, ec2types.InstanceStateNameRunning, p.state(victim))
}

func testRestoreImpossible(t *testing.T, a account) {
	p := a.newPool(t, "orphaned", 1, 4)
	zones := p.look().Zones
	require.NoError(t, p.protect(false))
	known := p.members()
	require.NoError(t, p.grow(1, 2, workflows.Launch{Zones: []string{"eu-central-1b"}}))
	p.loseSubnet()
	got, err := p.examine()
	require.NoError(t, err)
	require.Equal(t, zones, got.Zones, "a subnet that is gone has no zone")
	fresh, err := p.await(1, time.Now(), known...)
	require.NoError(t, err, "the instance is there")
	require.Equal(t, "eu-central-1b", fresh[0].Zone)
	for range 2 {
		left, err := p.restore(false)
		require.NoError(t, err)
		require.Contains(t, left, "group orphaned still launches as it did for the roll (cluster dev-1: changing how group orphaned launches instances: AWS says ")
		require.Contains(t, left, "does not exist")
		require.Contains(t, left, "then delete its tags fairway.dev/subnets, which say how it was before. AZRebalance of group orphaned stays suspended")
		now := p.look()
		require.Equal(t, []string{"AZRebalance"}, now.Suspended)
		require.Equal(t, "AZRebalance", now.Tags["fairway.dev/suspended"])
		require.Empty(t, now.Protected)
		require.Empty(t, now.Tagged)
	}
	p.update(func(in *autoscaling.UpdateAutoScalingGroupInput) { in.VPCZoneIdentifier = &p.subnets }) // as people are told
	_, err = p.scaling.DeleteTags(t.Context(), &autoscaling.DeleteTagsInput{Tags: []astypes.Tag{{
		ResourceId: &p.name, ResourceType: awssdk.String("auto-scaling-group"), Key: awssdk.String("fairway.dev/subnets"),
	}}})
	require.NoError(t, err)
	p.restored()
	require.Empty(t, p.look().Tags)
	require.Empty(t, p.look().Suspended)
}

func testReplaceRestores(t *testing.T, a account) {
	p := a.newPool(t, "patient", 2, 2)
	zones := p.look().Zones
	in := workflows.Launch{Zones: []string{"eu-central-1c"}}
	victim, other := p.members()[0], p.members()[1]
	_, err := p.replace(victim, in)
	require.NoError(t, err)
	require.NoError(t, p.awaitReplaced(victim))
	require.Equal(t, zones, p.look().Zones, "while the other one drains")
	p.settles(2)

	p.runOut("x1.32xlarge")
	_, err = p.replace(other, in)
	require.NoError(t, err)
	require.NoError(t, p.awaitReplaced(other), "it does not wait for capacity")
	require.Equal(t, []string{"eu-central-1c"}, p.look().Zones)
	p.restored()
	require.Equal(t, zones, p.look().Zones)
}

// oneZone has somebody else restrict the group to a zone.
func (p *pool) oneZone(zone string) {
	p.Helper()
	answer, err := p.ec2.DescribeSubnets(p.Context(), &ec2.DescribeSubnetsInput{Filters: []ec2types.Filter{
		{Name: awssdk.String("availability-zone"), Values: []string{zone}},
	}})
	p.must(err)
	p.update(func(in *autoscaling.UpdateAutoScalingGroupInput) { in.VPCZoneIdentifier = answer.Subnets[0].SubnetId })
}
