package lab

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling"
	astypes "github.com/aws/aws-sdk-go-v2/service/autoscaling/types"
	"github.com/aws/aws-sdk-go-v2/service/cloudformation"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/smithy-go"
)

// account is the lab's AWS account in a test. Tests share it and run at the same time, each with
// groups and stacks of its own.
type account struct {
	*testing.T
	lab     *Lab
	ctx     context.Context
	scaling *autoscaling.Client
	ec2     *ec2.Client
	stacks  *cloudformation.Client
	subnets []string // in zones a, b and c
}

func TestAWS(t *testing.T) {
	t.Parallel()
	a := startTestAWS(t)
	for _, test := range []struct {
		rule string
		run  func(account)
	}{
		{"a group spreads its instances over its zones", testSpread},
		{"an instance shows the template version it was launched with", testTemplateVersions},
		{"sizes outside of a group's bounds are refused", testBounds},
		{"what does not exist is the client's error", testUnknown},
		{"a termination replaces the instance or shrinks the group", testTermination},
		{"a group with instances is deleted only by force", testDeleteGroup},
		{"a scale-in takes the oldest template and spares the protected", testScaleIn},
		{"an instance that ends by itself is replaced", testHealth},
		{"a suspended process does nothing until it is resumed", testSuspension},
		{"zones out of balance are balanced", testRebalance},
		{"instances are detached, attached and put aside", testMembership},
		{"tags of a group are changed and found", testGroupTags},
		{"a shortage in a zone moves launches to the others", testZoneShortage},
		{"a shortage everywhere fails launches until it is over", testShortage},
		{"a mixed instances policy falls back to the next type", testMixedInstances},
		{"a group changes how it launches in one request, and back", testLaunchSettings},
		{"a launch that is to fail is marked", testLaunchFailure},
		{"volumes are attached within their zone", testVolumes},
		{"a stack's update keeps the instances and makes a template version", testStackUpdate},
		{"a stack that cannot be made or changed rolls back", testStackRollback},
		{"change sets show and make changes", testChangeSets},
		{"stacks are protected from deletion", testStackProtection},
		{"a stack's deletion fails as often as a test wants", testStackDeletionFails},
		{"foreign access keys are refused", testAccessKeys},
	} {
		t.Run(test.rule, func(t *testing.T) {
			t.Parallel()
			a := a
			a.T = t
			test.run(a)
		})
	}
}

func startTestAWS(t *testing.T) account {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	t.Cleanup(cancel)
	l, err := newLab(Options{Dir: t.TempDir(), Out: t.Output()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Stop(); err != nil {
			t.Error(err)
		}
	})
	if err := prepareAWS(ctx, l.root, t.Output()); err != nil {
		t.Fatal(err)
	}
	if err := l.startAWS(ctx); err != nil {
		t.Fatal(err)
	}
	network, err := l.createNetwork(ctx)
	if err != nil {
		t.Fatal(err)
	}
	a := account{
		T: t, lab: l, ctx: ctx,
		scaling: autoscaling.NewFromConfig(l.AWSConfig()),
		ec2:     ec2.NewFromConfig(l.AWSConfig()),
		stacks:  cloudformation.NewFromConfig(l.AWSConfig()),
	}
	for _, zone := range network.zones() {
		a.subnets = append(a.subnets, network.subnets[zone])
	}
	return a
}

func testSpread(a account) {
	a.group("spread", 3, 6)
	a.settles("spread", 3)
	if zones := a.zones("spread"); zones != "a1 b1 c1" {
		a.Errorf("three instances are in %s", zones)
	}
	a.must(a.resize("spread", 5))
	a.settles("spread", 5)
	if zones := a.zones("spread"); zones != "a2 b2 c1" {
		a.Errorf("five instances are in %s", zones)
	}
}

func testTemplateVersions(a account) {
	a.group("versions", 1, 3)
	a.settles("versions", 1)
	_, err := a.ec2.CreateLaunchTemplateVersion(a.ctx, &ec2.CreateLaunchTemplateVersionInput{
		LaunchTemplateName: aws.String("versions"), SourceVersion: aws.String("1"),
		LaunchTemplateData: &ec2types.RequestLaunchTemplateData{InstanceType: "m5.xlarge"},
	})
	a.must(err)
	a.must(a.resize("versions", 2)) // the group follows $Latest
	a.settles("versions", 2)
	_, err = a.scaling.UpdateAutoScalingGroup(a.ctx, &autoscaling.UpdateAutoScalingGroupInput{
		AutoScalingGroupName: aws.String("versions"), DesiredCapacity: aws.Int32(3),
		LaunchTemplate: &astypes.LaunchTemplateSpecification{LaunchTemplateName: aws.String("versions"), Version: aws.String("$Default")},
	})
	a.must(err)
	a.settles("versions", 3)
	var versions []string
	for _, i := range a.members("versions") {
		versions = append(versions, *i.LaunchTemplate.Version)
	}
	if got := strings.Join(versions, " "); got != "1 2 1" {
		a.Errorf("the instances show versions %s", got)
	}
	answer, err := a.scaling.DescribeAutoScalingInstances(a.ctx, &autoscaling.DescribeAutoScalingInstancesInput{
		InstanceIds: []string{*a.members("versions")[1].InstanceId},
	})
	a.must(err)
	if got := *answer.AutoScalingInstances[0].LaunchTemplate.Version; got != "2" {
		a.Errorf("DescribeAutoScalingInstances shows version %s", got)
	}
}

func testBounds(a account) {
	a.group("bounds", 2, 3)
	a.settles("bounds", 2)
	a.refused(a.resize("bounds", 4), "ValidationError", "New SetDesiredCapacity value 4 is above max value 3")
	a.refused(a.resize("bounds", 1), "ValidationError", "New SetDesiredCapacity value 1 is below min value 2")
	_, err := a.terminate(a.members("bounds")[0], true)
	a.refused(err, "ValidationError", "Currently, desiredSize equals minSize (2)")
	a.refused(a.bound("bounds", 5, 4), "ValidationError", "Max bound, 4, must be greater than or equal to min bound, 5")
	a.must(a.bound("bounds", 3, 4)) // raises the desired capacity with it
	a.settles("bounds", 3)
}

func testUnknown(a account) {
	a.refused(a.resize("nobody", 1), "ValidationError", "AutoScalingGroup name not found")
	_, err := a.scaling.TerminateInstanceInAutoScalingGroup(a.ctx, &autoscaling.TerminateInstanceInAutoScalingGroupInput{
		InstanceId: aws.String("i-0123456789abcdef0"), ShouldDecrementDesiredCapacity: aws.Bool(false),
	})
	a.refused(err, "ValidationError", "No managed instance found for instance ID: i-0123456789abcdef0")
	a.group("double", 0, 1)
	a.refused(a.createGroup("double", 0, 1, a.template("double")), "AlreadyExists", "already exists")
}

func testTermination(a account) {
	a.group("termination", 2, 4)
	a.must(a.resize("termination", 3))
	a.settles("termination", 3)
	first := a.members("termination")[0]
	activity, err := a.terminate(first, true)
	a.must(err)
	if want := "shrinking the capacity from 3 to 2."; !strings.HasSuffix(*activity.Cause, want) {
		a.Errorf("the cause is %q, want %q at its end", *activity.Cause, want)
	}
	if state := a.state("termination", *first.InstanceId); state != astypes.LifecycleStateTerminating {
		a.Errorf("the instance is %s at once", state)
	}
	a.settles("termination", 2)
	if a.state("termination", *first.InstanceId) != "" {
		a.Error("the instance is still in the group")
	}
	a.eventually("it is terminated and can be described", func() bool {
		return a.instance(*first.InstanceId).State.Name == ec2types.InstanceStateNameTerminated
	})

	second := a.members("termination")[0]
	_, err = a.terminate(second, false)
	a.must(err)
	a.eventually("another one replaces it", func() bool {
		return a.state("termination", *second.InstanceId) == "" && a.settled("termination", 2)
	})
}

func testDeleteGroup(a account) {
	a.group("deleted", 1, 1)
	a.settles("deleted", 1)
	remove := func(force bool) error {
		_, err := a.scaling.DeleteAutoScalingGroup(a.ctx, &autoscaling.DeleteAutoScalingGroupInput{
			AutoScalingGroupName: aws.String("deleted"), ForceDelete: &force,
		})
		return err
	}
	a.refused(remove(false), "ResourceInUse", "")
	a.must(remove(true))
	if group := a.describe("deleted"); group == nil || aws.ToString(group.Status) != "Delete in progress" {
		a.Error("the group is not being deleted")
	}
	a.eventually("the group is gone", func() bool { return a.describe("deleted") == nil })
}

func testScaleIn(a account) {
	a.group("scalein", 2, 4)
	a.settles("scalein", 2) // in zones a and b
	_, err := a.ec2.CreateLaunchTemplateVersion(a.ctx, &ec2.CreateLaunchTemplateVersionInput{
		LaunchTemplateName: aws.String("scalein"), SourceVersion: aws.String("1"),
		LaunchTemplateData: &ec2types.RequestLaunchTemplateData{ImageId: aws.String("ami-2")},
	})
	a.must(err)
	a.must(a.resize("scalein", 4))
	a.settles("scalein", 4) // old ones in a and b, new ones in c and a
	old := a.members("scalein")
	_, err = a.scaling.SetInstanceProtection(a.ctx, &autoscaling.SetInstanceProtectionInput{
		AutoScalingGroupName: aws.String("scalein"), ProtectedFromScaleIn: aws.Bool(true),
		InstanceIds: []string{*old[0].InstanceId},
	})
	a.must(err)
	a.must(a.resize("scalein", 3)) // from zone a, which has most; its old one is protected
	a.settles("scalein", 3)
	if a.state("scalein", *old[0].InstanceId) == "" || a.state("scalein", *old[3].InstanceId) != "" {
		a.Errorf("the protected instance is gone, or its newer neighbour is not: %s", a.zones("scalein"))
	}
	a.must(a.resize("scalein", 2)) // all zones have one: the oldest template goes
	a.settles("scalein", 2)
	if a.state("scalein", *old[1].InstanceId) != "" {
		a.Error("the unprotected instance of the old version is still there")
	}
	a.activity("scalein", astypes.ScalingActivityStatusCodeSuccessful,
		fmt.Sprintf("instance %s was selected for termination.", *old[1].InstanceId))
}

func testHealth(a account) {
	a.group("health", 1, 1)
	a.settles("health", 1)
	id := *a.members("health")[0].InstanceId
	a.endInstance(id)
	a.eventually("the instance is replaced", func() bool {
		return a.state("health", id) == "" && a.settled("health", 1)
	})
	a.activity("health", astypes.ScalingActivityStatusCodeSuccessful,
		"in response to an EC2 health check indicating it has been terminated or stopped.")
	id = *a.members("health")[0].InstanceId
	_, err := a.scaling.SetInstanceHealth(a.ctx, &autoscaling.SetInstanceHealthInput{
		InstanceId: &id, HealthStatus: aws.String("Unhealthy"),
	})
	a.must(err)
	a.eventually("an unhealthy one is too", func() bool {
		return a.state("health", id) == "" && a.settled("health", 1)
	})
}

func testSuspension(a account) {
	a.group("suspended", 1, 3)
	a.settles("suspended", 1)
	id := *a.members("suspended")[0].InstanceId
	processes := []string{"Launch", "ReplaceUnhealthy", "Terminate"}
	_, err := a.scaling.SuspendProcesses(a.ctx, &autoscaling.SuspendProcessesInput{
		AutoScalingGroupName: aws.String("suspended"), ScalingProcesses: processes,
	})
	a.must(err)
	var shown []string
	for _, p := range a.describe("suspended").SuspendedProcesses {
		shown = append(shown, *p.ProcessName)
	}
	if !slices.Equal(shown, processes) {
		a.Errorf("the group shows %v as suspended", shown)
	}
	a.must(a.resize("suspended", 2))
	a.endInstance(id)
	a.group("witness", 1, 1) // when it has launched, the other would have done so before
	a.settles("witness", 1)
	if members := a.members("suspended"); len(members) != 1 || *members[0].InstanceId != id {
		a.Errorf("the group went on: it has %d instances", len(members))
	}
	_, err = a.scaling.ResumeProcesses(a.ctx, &autoscaling.ResumeProcessesInput{AutoScalingGroupName: aws.String("suspended")})
	a.must(err)
	a.eventually("it makes up for it", func() bool {
		return a.state("suspended", id) == "" && a.settled("suspended", 2)
	})
}

func testRebalance(a account) {
	for _, name := range []string{"balanced", "unbalanced"} {
		a.group(name, 2, 4)
		a.must(a.resize(name, 4))
	}
	_, err := a.scaling.SuspendProcesses(a.ctx, &autoscaling.SuspendProcessesInput{
		AutoScalingGroupName: aws.String("unbalanced"), ScalingProcesses: []string{"AZRebalance"},
	})
	a.must(err)
	for _, name := range []string{"balanced", "unbalanced"} {
		a.settles(name, 4) // a2 b1 c1
		for _, member := range a.members(name) {
			if !strings.HasSuffix(*member.AvailabilityZone, "a") {
				_, err := a.terminate(member, true)
				a.must(err)
			}
		}
	}
	a.eventually("one instance moves to another zone", func() bool {
		return a.settled("balanced", 2) && a.zones("balanced") == "a1 b1"
	})
	a.activity("balanced", astypes.ScalingActivityStatusCodeSuccessful, "instances were launched to balance instances in zones eu-central-1b")
	if zones := a.zones("unbalanced"); zones != "a2" {
		a.Errorf("with AZRebalance suspended the instances are in %s", zones)
	}
}

func testMembership(a account) {
	a.group("members", 0, 3)
	a.must(a.resize("members", 2))
	a.settles("members", 2)
	members := a.members("members")
	detach := &autoscaling.DetachInstancesInput{
		AutoScalingGroupName: aws.String("members"), InstanceIds: []string{*members[0].InstanceId},
		ShouldDecrementDesiredCapacity: aws.Bool(true),
	}
	_, err := a.scaling.DetachInstances(a.ctx, detach)
	a.must(err)
	a.settles("members", 1)
	if state := a.instance(*members[0].InstanceId).State.Name; state != ec2types.InstanceStateNameRunning {
		a.Errorf("the detached instance is %s", state)
	}
	_, err = a.scaling.AttachInstances(a.ctx, &autoscaling.AttachInstancesInput{
		AutoScalingGroupName: aws.String("members"), InstanceIds: []string{*members[0].InstanceId},
	})
	a.must(err)
	a.settles("members", 2)
	_, err = a.scaling.EnterStandby(a.ctx, &autoscaling.EnterStandbyInput{
		AutoScalingGroupName: aws.String("members"), InstanceIds: []string{*members[1].InstanceId},
		ShouldDecrementDesiredCapacity: aws.Bool(false),
	})
	a.must(err)
	a.eventually("an instance in standby is stood in for", func() bool {
		return a.state("members", *members[1].InstanceId) == astypes.LifecycleStateStandby && a.settled("members", 3)
	})
}

func testGroupTags(a account) {
	a.group("tagged", 0, 1)
	tag := astypes.Tag{
		ResourceId: aws.String("tagged"), ResourceType: aws.String("auto-scaling-group"),
		Key: aws.String("roll"), Value: aws.String("42"), PropagateAtLaunch: aws.Bool(false),
	}
	_, err := a.scaling.CreateOrUpdateTags(a.ctx, &autoscaling.CreateOrUpdateTagsInput{Tags: []astypes.Tag{tag}})
	a.must(err)
	found, err := a.scaling.DescribeAutoScalingGroups(a.ctx, &autoscaling.DescribeAutoScalingGroupsInput{
		Filters: []astypes.Filter{{Name: aws.String("tag:roll"), Values: []string{"42"}}},
	})
	a.must(err)
	if len(found.AutoScalingGroups) != 1 || *found.AutoScalingGroups[0].AutoScalingGroupName != "tagged" {
		a.Errorf("%d groups have the tag", len(found.AutoScalingGroups))
	}
	_, err = a.scaling.DeleteTags(a.ctx, &autoscaling.DeleteTagsInput{Tags: []astypes.Tag{tag}})
	a.must(err)
	tags, err := a.scaling.DescribeTags(a.ctx, &autoscaling.DescribeTagsInput{
		Filters: []astypes.Filter{{Name: aws.String("auto-scaling-group"), Values: []string{"tagged"}}},
	})
	a.must(err)
	for _, tag := range tags.Tags {
		if *tag.Key == "roll" {
			a.Error("the tag is still there")
		}
	}
}

func testZoneShortage(a account) {
	a.must(a.lab.Shortage(a.ctx, Shortage{Zone: "eu-central-1a", InstanceType: "c5.large"}))
	a.groupOf("zoneshort", 3, 3, "c5.large")
	a.settles("zoneshort", 3)
	if zones := a.zones("zoneshort"); zones != "b2 c1" {
		a.Errorf("the instances are in %s", zones)
	}
	a.activity("zoneshort", astypes.ScalingActivityStatusCodeFailed,
		"We currently do not have sufficient c5.large capacity in the Availability Zone you requested (eu-central-1a). "+
			"Our system will be working on provisioning additional capacity. You can currently get c5.large capacity by not "+
			"specifying an Availability Zone in your request or choosing eu-central-1b, eu-central-1c. Launching EC2 instance failed.")
	_, err := a.ec2.RunInstances(a.ctx, &ec2.RunInstancesInput{
		ImageId: aws.String("ami-1"), InstanceType: "c5.large", SubnetId: &a.subnets[0], MinCount: aws.Int32(1), MaxCount: aws.Int32(1),
	})
	a.refused(err, "InsufficientInstanceCapacity", "")
}

func testShortage(a account) {
	// Clearing ends the shortages of other tests too, hence a lab of its own.
	a = startTestAWS(a.T)
	a.must(a.lab.Shortage(a.ctx, Shortage{InstanceType: "m5.large"}))
	a.group("short", 1, 1)
	a.eventually("the launch fails", func() bool {
		return a.hasActivity("short", astypes.ScalingActivityStatusCodeFailed, "sufficient m5.large capacity")
	})
	if members := a.members("short"); len(members) != 0 {
		a.Errorf("the group has %d instances", len(members))
	}
	a.must(a.lab.ClearShortages(a.ctx))
	a.settles("short", 1)
}

func testMixedInstances(a account) {
	a.must(a.lab.Shortage(a.ctx, Shortage{InstanceType: "r5.large", Market: "spot"}))
	a.must(a.createGroup("mixed", 3, 6, nil, func(input *autoscaling.CreateAutoScalingGroupInput) {
		input.MixedInstancesPolicy = &astypes.MixedInstancesPolicy{
			LaunchTemplate: &astypes.LaunchTemplate{
				LaunchTemplateSpecification: a.template("mixed"),
				Overrides:                   []astypes.LaunchTemplateOverrides{{InstanceType: aws.String("r5.large")}, {InstanceType: aws.String("r5a.large")}},
			},
			InstancesDistribution: &astypes.InstancesDistribution{
				OnDemandBaseCapacity: aws.Int32(1), OnDemandPercentageAboveBaseCapacity: aws.Int32(0),
			},
		}
	}))
	a.settles("mixed", 3)
	counts := map[string]int{}
	for _, member := range a.members("mixed") {
		i := a.instance(*member.InstanceId)
		counts[fmt.Sprintf("%s %s", i.InstanceLifecycle, i.InstanceType)]++
	}
	if want := map[string]int{" r5.large": 1, "spot r5a.large": 2}; !maps.Equal(counts, want) {
		a.Errorf("the instances are %v, want %v", counts, want)
	}
	a.must(a.bound("mixed", 3, 5))
	if a.describe("mixed").MixedInstancesPolicy == nil {
		a.Error("an update that does not mention the policy drops it")
	}
	a.must(a.lab.Shortage(a.ctx, Shortage{InstanceType: "r5a.large", Market: "spot"}))
	a.must(a.resize("mixed", 4))
	a.eventually("the next launch fails", func() bool {
		return a.hasActivity("mixed", astypes.ScalingActivityStatusCodeFailed,
			"Could not launch Spot Instances. InsufficientInstanceCapacity - There is no Spot capacity available that matches your request.")
	})
}

func testLaunchSettings(a account) {
	a.group("settings", 1, 6)
	a.settles("settings", 1)
	template := a.describe("settings").LaunchTemplate
	specification := &astypes.LaunchTemplateSpecification{LaunchTemplateId: template.LaunchTemplateId, Version: template.Version}
	update := func(in *autoscaling.UpdateAutoScalingGroupInput) {
		a.Helper()
		in.AutoScalingGroupName = aws.String("settings")
		_, err := a.scaling.UpdateAutoScalingGroup(a.ctx, in)
		a.must(err)
	}
	policy := func(spot bool, instanceType string) *astypes.MixedInstancesPolicy {
		distribution := &astypes.InstancesDistribution{OnDemandPercentageAboveBaseCapacity: aws.Int32(100)}
		if spot {
			distribution = &astypes.InstancesDistribution{OnDemandBaseCapacity: aws.Int32(1), OnDemandPercentageAboveBaseCapacity: aws.Int32(0)}
		}
		return &astypes.MixedInstancesPolicy{
			LaunchTemplate: &astypes.LaunchTemplate{
				LaunchTemplateSpecification: specification,
				Overrides:                   []astypes.LaunchTemplateOverrides{{InstanceType: &instanceType}},
			},
			InstancesDistribution: distribution,
		}
	}
	last := func() string {
		members := a.members("settings")
		i := a.instance(*members[len(members)-1].InstanceId)
		return strings.TrimSpace(fmt.Sprintf("%s %s %s", *i.Placement.AvailabilityZone, i.InstanceType, i.InstanceLifecycle))
	}

	update(&autoscaling.UpdateAutoScalingGroupInput{
		DesiredCapacity: aws.Int32(2), VPCZoneIdentifier: &a.subnets[2], MixedInstancesPolicy: policy(true, "m5a.large"),
	})
	a.settles("settings", 2)
	if got := last(); got != "eu-central-1c m5a.large spot" {
		a.Errorf("it launched %s", got)
	}
	if group := a.describe("settings"); group.LaunchTemplate != nil || !slices.Equal(group.AvailabilityZones, []string{"eu-central-1c"}) {
		a.Errorf("the group shows template %v and zones %v", group.LaunchTemplate, group.AvailabilityZones)
	}

	update(&autoscaling.UpdateAutoScalingGroupInput{DesiredCapacity: aws.Int32(3), MixedInstancesPolicy: policy(false, "m4.large")})
	a.settles("settings", 3)
	if got := last(); got != "eu-central-1c m4.large" {
		a.Errorf("it launched %s", got)
	}
	if base := a.describe("settings").MixedInstancesPolicy.InstancesDistribution.OnDemandBaseCapacity; aws.ToInt32(base) != 1 {
		a.Error("an update that does not mention the base drops it")
	}

	update(&autoscaling.UpdateAutoScalingGroupInput{
		DesiredCapacity: aws.Int32(4), VPCZoneIdentifier: aws.String(a.subnets[0] + "," + a.subnets[1]), LaunchTemplate: specification,
	})
	a.settles("settings", 4)
	if got := last(); !strings.HasSuffix(got, "m5.large") || strings.HasPrefix(got, "eu-central-1c") {
		a.Errorf("it launched %s", got)
	}
	if group := a.describe("settings"); group.MixedInstancesPolicy != nil || *group.LaunchTemplate.Version != *template.Version {
		a.Error("the group does not show its template as before")
	}
}

func testLaunchFailure(a account) {
	a.must(a.lab.FailLaunches(a.ctx, "failing", 1))
	a.group("failing", 2, 2)
	a.settles("failing", 2)
	marked := 0
	for _, member := range a.members("failing") {
		for _, tag := range a.instance(*member.InstanceId).Tags {
			if *tag.Key == "lab.fairway.dev/never-boots" {
				marked++
			}
		}
	}
	if marked != 1 {
		a.Errorf("%d of two instances are marked as never booting", marked)
	}
}

func testVolumes(a account) {
	a.group("volumes", 2, 2)
	a.settles("volumes", 2)
	members := a.members("volumes")
	volume, err := a.ec2.CreateVolume(a.ctx, &ec2.CreateVolumeInput{AvailabilityZone: members[0].AvailabilityZone, Size: aws.Int32(1)})
	a.must(err)
	attach := func(member astypes.Instance) error {
		_, err := a.ec2.AttachVolume(a.ctx, &ec2.AttachVolumeInput{
			VolumeId: volume.VolumeId, InstanceId: member.InstanceId, Device: aws.String("/dev/xvdba"),
		})
		return err
	}
	a.refused(attach(members[1]), "InvalidVolume.ZoneMismatch", "")
	a.must(attach(members[0]))
	a.refused(attach(members[0]), "VolumeInUse", "")
	_, err = a.terminate(members[0], false)
	a.must(err)
	a.eventually("the end of the instance frees the volume", func() bool {
		found, err := a.ec2.DescribeVolumes(a.ctx, &ec2.DescribeVolumesInput{VolumeIds: []string{*volume.VolumeId}})
		a.must(err)
		return found.Volumes[0].State == ec2types.VolumeStateAvailable
	})
}

func testAccessKeys(a account) {
	config := a.lab.AWSConfig()
	config.Credentials = credentials.NewStaticCredentialsProvider("somebody", "else", "")
	_, err := ec2.NewFromConfig(config).DescribeInstances(a.ctx, nil)
	a.refused(err, "AuthFailure", "")
	_, err = autoscaling.NewFromConfig(config).DescribeAutoScalingGroups(a.ctx, nil)
	a.refused(err, "InvalidClientTokenId", "")
}

// ---- what the tests do and see

func (a account) must(err error) {
	a.Helper()
	if err != nil {
		a.Fatal(err)
	}
}

func (a account) refused(err error, code, message string) {
	a.Helper()
	var failure smithy.APIError
	if !errors.As(err, &failure) || failure.ErrorCode() != code || !strings.Contains(failure.ErrorMessage(), message) {
		a.Errorf("the answer is %v, want %s: ...%s...", err, code, message)
	}
}

func (a account) eventually(what string, condition func() bool) {
	a.Helper()
	deadline := time.Now().Add(time.Minute)
	for !condition() {
		if time.Now().After(deadline) {
			a.Fatalf("not after a minute: %s", what)
		}
		select {
		case <-a.ctx.Done():
			a.Fatalf("not in time: %s", what)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// template makes a launch template of m5.large instances and returns its latest version.
func (a account) template(name string) *astypes.LaunchTemplateSpecification {
	a.Helper()
	return a.templateOf(name, "m5.large")
}

func (a account) templateOf(name string, instanceType ec2types.InstanceType) *astypes.LaunchTemplateSpecification {
	a.Helper()
	_, err := a.ec2.CreateLaunchTemplate(a.ctx, &ec2.CreateLaunchTemplateInput{
		LaunchTemplateName: &name,
		LaunchTemplateData: &ec2types.RequestLaunchTemplateData{ImageId: aws.String("ami-1"), InstanceType: instanceType},
	})
	var failure smithy.APIError
	if !errors.As(err, &failure) || failure.ErrorCode() != "InvalidLaunchTemplateName.AlreadyExistsException" {
		a.must(err)
	}
	return &astypes.LaunchTemplateSpecification{LaunchTemplateName: &name, Version: aws.String("$Latest")}
}

func (a account) group(name string, min, max int32) {
	a.Helper()
	a.must(a.createGroup(name, min, max, a.template(name)))
}

func (a account) groupOf(name string, min, max int32, instanceType ec2types.InstanceType) {
	a.Helper()
	a.must(a.createGroup(name, min, max, a.templateOf(name, instanceType)))
}

func (a account) createGroup(name string, min, max int32, template *astypes.LaunchTemplateSpecification, change ...func(*autoscaling.CreateAutoScalingGroupInput)) error {
	input := &autoscaling.CreateAutoScalingGroupInput{
		AutoScalingGroupName: &name, MinSize: &min, MaxSize: &max, LaunchTemplate: template,
		VPCZoneIdentifier: aws.String(strings.Join(a.subnets, ",")),
	}
	for _, change := range change {
		change(input)
	}
	_, err := a.scaling.CreateAutoScalingGroup(a.ctx, input)
	return err
}

func (a account) resize(group string, size int32) error {
	_, err := a.scaling.SetDesiredCapacity(a.ctx, &autoscaling.SetDesiredCapacityInput{AutoScalingGroupName: &group, DesiredCapacity: &size})
	return err
}

func (a account) bound(group string, min, max int32) error {
	_, err := a.scaling.UpdateAutoScalingGroup(a.ctx, &autoscaling.UpdateAutoScalingGroupInput{AutoScalingGroupName: &group, MinSize: &min, MaxSize: &max})
	return err
}

func (a account) terminate(member astypes.Instance, decrement bool) (*astypes.Activity, error) {
	answer, err := a.scaling.TerminateInstanceInAutoScalingGroup(a.ctx, &autoscaling.TerminateInstanceInAutoScalingGroupInput{
		InstanceId: member.InstanceId, ShouldDecrementDesiredCapacity: &decrement,
	})
	if err != nil {
		return nil, err
	}
	return answer.Activity, nil
}

func (a account) endInstance(id string) {
	a.Helper()
	_, err := a.ec2.TerminateInstances(a.ctx, &ec2.TerminateInstancesInput{InstanceIds: []string{id}})
	a.must(err)
}

// describe returns nil if there is no such group.
func (a account) describe(group string) *astypes.AutoScalingGroup {
	a.Helper()
	answer, err := a.scaling.DescribeAutoScalingGroups(a.ctx, &autoscaling.DescribeAutoScalingGroupsInput{AutoScalingGroupNames: []string{group}})
	a.must(err)
	if len(answer.AutoScalingGroups) == 0 {
		return nil
	}
	return &answer.AutoScalingGroups[0]
}

func (a account) members(group string) []astypes.Instance {
	a.Helper()
	if g := a.describe(group); g != nil {
		return g.Instances
	}
	return nil
}

// state is empty if the instance is not in the group.
func (a account) state(group, instance string) astypes.LifecycleState {
	a.Helper()
	for _, member := range a.members(group) {
		if *member.InstanceId == instance {
			return member.LifecycleState
		}
	}
	return ""
}

// settled says whether a group has this many instances and none is on its way.
func (a account) settled(group string, size int) bool {
	a.Helper()
	members := a.members(group)
	return len(members) == size && !slices.ContainsFunc(members, func(i astypes.Instance) bool {
		return i.LifecycleState != astypes.LifecycleStateInService && i.LifecycleState != astypes.LifecycleStateStandby
	})
}

func (a account) settles(group string, size int) {
	a.Helper()
	a.eventually(fmt.Sprintf("group %s has %d instances", group, size), func() bool { return a.settled(group, size) })
}

// zones counts the instances of a group by zone: "a2 b1".
func (a account) zones(group string) string {
	a.Helper()
	counts := map[string]int{}
	for _, member := range a.members(group) {
		counts[strings.TrimPrefix(*member.AvailabilityZone, awsRegion)]++
	}
	var text []string
	for _, zone := range slices.Sorted(maps.Keys(counts)) {
		text = append(text, fmt.Sprintf("%s%d", zone, counts[zone]))
	}
	return strings.Join(text, " ")
}

func (a account) hasActivity(group string, status astypes.ScalingActivityStatusCode, text string) bool {
	a.Helper()
	answer, err := a.scaling.DescribeScalingActivities(a.ctx, &autoscaling.DescribeScalingActivitiesInput{AutoScalingGroupName: &group})
	a.must(err)
	return slices.ContainsFunc(answer.Activities, func(activity astypes.Activity) bool {
		told := *activity.Cause + aws.ToString(activity.StatusMessage)
		return activity.StatusCode == status && strings.Contains(told, text)
	})
}

func (a account) activity(group string, status astypes.ScalingActivityStatusCode, text string) {
	a.Helper()
	if !a.hasActivity(group, status, text) {
		a.Errorf("group %s has no %s activity that says %q", group, status, text)
	}
}

func (a account) instance(id string) ec2types.Instance {
	a.Helper()
	answer, err := a.ec2.DescribeInstances(a.ctx, &ec2.DescribeInstancesInput{InstanceIds: []string{id}})
	a.must(err)
	return answer.Reservations[0].Instances[0]
}
