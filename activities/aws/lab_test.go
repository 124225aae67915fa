package aws_test

import (
	"context"
	"slices"
	"strings"
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
	"github.com/fairway-project/fairway/activities/aws"
	"github.com/fairway-project/fairway/config"
	"github.com/fairway-project/fairway/lab"
	"github.com/fairway-project/fairway/registry"
	"github.com/fairway-project/fairway/workflows"
)

const cluster = "dev-1"

// account is the lab's AWS account as people and Auto Scaling itself use it. Tests share it and
// run at the same time, each with pools of its own.
type account struct {
	lab     *lab.Lab
	scaling *autoscaling.Client
	ec2     *ec2.Client
	subnets string
}

func startAccount(t *testing.T) account {
	t.Helper()
	l, err := lab.StartAWS(t.Context(), lab.Options{Dir: t.TempDir(), Out: t.Output()})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, l.Stop()) })
	t.Setenv("AWS_ENDPOINT_URL", l.AWSURL())
	t.Setenv("AWS_ACCESS_KEY_ID", "test")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "test")
	t.Setenv("AWS_CONFIG_FILE", "/dev/null")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
	a := account{lab: l, scaling: autoscaling.NewFromConfig(l.AWSConfig()), ec2: ec2.NewFromConfig(l.AWSConfig())}
	subnets, err := a.ec2.DescribeSubnets(t.Context(), nil)
	require.NoError(t, err)
	for _, subnet := range subnets.Subnets {
		a.subnets = strings.TrimPrefix(a.subnets+","+*subnet.SubnetId, ",")
	}
	return a
}

// pool is a group of a test with the activities that are tried on it.
type pool struct {
	*testing.T
	account
	name       string // of pool, group and launch template
	activities *aws.Activities
	worker     activitytest.Worker
	beats      []string // what the last activity has heartbeated
}

func (a account) noPool(t *testing.T, name string) *pool {
	p := &pool{T: t, account: a, name: name, activities: newActivities("")}
	p.worker.Heartbeat = func(details any) { p.beats = append(p.beats, details.(string)) }
	return p
}

// newPool makes a pool that has as many instances as it is to have at least.
func (a account) newPool(t *testing.T, name string, min, max int32) *pool {
	t.Helper()
	p := a.noPool(t, name)
	p.launchTemplate("m5.large")
	p.createGroup(name, min, max, ownTags(name))
	p.settles(int(min))
	return p
}

func newActivities(assumeRole string) *aws.Activities {
	return &aws.Activities{
		Accounts: &aws.Accounts{
			Find: func(_ context.Context, name string) (registry.Cluster, error) {
				return registry.Cluster{ID: name, Region: "eu-central-1", InfrastructureAccount: "aws:123456789012"}, nil
			},
			Settings: config.AWS{
				AssumeRole: assumeRole, ClusterTag: "kubernetes.io/cluster/{cluster}", PoolTag: "node.kubernetes.io/node-pool", PollInterval: 50 * time.Millisecond,
			},
		},
		Blocks:      blocks(func(string) error { return nil }),
		ReadyWithin: time.Minute,
	}
}

// blocks says which pools are blocked.
type blocks func(pool string) error

func (b blocks) Check(_ context.Context, _, pool string) error { return b(pool) }

func ownTags(pool string) map[string]string {
	return map[string]string{"kubernetes.io/cluster/" + cluster: "owned", "node.kubernetes.io/node-pool": pool}
}

// ---- the activities, as a worker runs them

func run[In, Out any](p *pool, activity func(context.Context, In) (Out, error), in In) (out Out, err error) {
	p.beats = nil
	err = p.worker.Run(activity, in, &out)
	return out, err
}

func (p *pool) examine() (workflows.Pool, error) {
	return run(p, p.activities.ExaminePool, workflows.ExaminePool{Cluster: cluster, Pool: p.name})
}

func (p *pool) grow(from, to int, launch workflows.Launch) error {
	return p.worker.Run(p.activities.GrowPool, workflows.GrowPool{
		Cluster: cluster, Pool: p.name, Group: p.name, From: from, To: to, Launch: launch,
	}, nil)
}

func (p *pool) protect(empty bool) error {
	return p.worker.Run(p.activities.ProtectPool, workflows.ProtectPool{Cluster: cluster, Pool: p.name, Group: p.name, Empty: empty}, nil)
}

func (p *pool) restore(empty bool) (string, error) {
	return run(p, p.activities.RestorePool, workflows.ProtectPool{Cluster: cluster, Pool: p.name, Group: p.name, Empty: empty})
}

// restored restores the pool and wants nothing to be left.
func (p *pool) restored() {
	p.Helper()
	left, err := p.restore(false)
	p.must(err)
	require.Empty(p, left)
}

func (p *pool) release(from, to int, known ...string) ([]workflows.Instance, error) {
	return run(p, p.activities.ReleaseCapacity, workflows.ReleaseCapacity{Cluster: cluster, Group: p.name, From: from, To: to, Known: known})
}

// releaseAs releases capacity while instances are still to come in this way.
func (p *pool) releaseAs(launch workflows.Launch, from, to int, known ...string) error {
	return p.worker.Run(p.activities.ReleaseCapacity, workflows.ReleaseCapacity{
		Cluster: cluster, Group: p.name, From: from, To: to, Known: known, Launch: launch,
	}, nil)
}

// await waits for new instances; a shortage is one after 3 s.
func (p *pool) await(count int, since time.Time, known ...string) ([]workflows.Instance, error) {
	return run(p, p.activities.AwaitInstances, workflows.AwaitInstances{
		Cluster: cluster, Group: p.name, Known: known, Count: count, Since: since, ShortageAfter: 3 * time.Second,
	})
}

func (p *pool) terminate(instance string) (workflows.Termination, error) {
	return run(p, p.activities.TerminateInstance, p.instance(instance))
}

func (p *pool) replace(instance string, launch workflows.Launch) (workflows.Termination, error) {
	in := p.instance(instance)
	in.Replace, in.Launch = true, launch
	return run(p, p.activities.TerminateInstance, in)
}

func (p *pool) awaitTermination(instance string) error {
	return p.worker.Run(p.activities.AwaitTermination, p.instance(instance), nil)
}

func (p *pool) awaitReplaced(instance string) error {
	in := p.instance(instance)
	in.Replace = true
	return p.worker.Run(p.activities.AwaitTermination, in, nil)
}

func (p *pool) instance(id string) workflows.TerminateInstance {
	return workflows.TerminateInstance{Cluster: cluster, Pool: p.name, Group: p.name, Instance: id, By: "workflow"}
}

func requireError(t testing.TB, err error, kind string, final bool, message string) {
	t.Helper()
	var application *temporal.ApplicationError
	require.ErrorAs(t, err, &application)
	require.Equal(t, kind, application.Type(), application.Message())
	require.Equal(t, final, application.NonRetryable())
	require.Contains(t, application.Message(), message)
}

// ---- what others do to the account, and what it looks like

func (p *pool) must(err error) {
	p.Helper()
	require.NoError(p, err)
}

func (p *pool) launchTemplate(instanceType ec2types.InstanceType) {
	p.Helper()
	_, err := p.ec2.CreateLaunchTemplate(p.Context(), &ec2.CreateLaunchTemplateInput{
		LaunchTemplateName: &p.name,
		LaunchTemplateData: &ec2types.RequestLaunchTemplateData{ImageId: awssdk.String("ami-1"), InstanceType: instanceType},
	})
	p.must(err)
}

// launchTemplateVersion makes a version of the launch template with some things changed. The
// group uses it for its next launch.
func (p *pool) launchTemplateVersion(data *ec2types.RequestLaunchTemplateData) {
	p.Helper()
	_, err := p.ec2.CreateLaunchTemplateVersion(p.Context(), &ec2.CreateLaunchTemplateVersionInput{
		LaunchTemplateName: &p.name, SourceVersion: awssdk.String("1"), LaunchTemplateData: data,
	})
	p.must(err)
}

// runOut takes away the capacity for further instances of this pool only.
func (p *pool) runOut(instanceType ec2types.InstanceType) {
	p.Helper()
	p.must(p.lab.Shortage(p.Context(), lab.Shortage{InstanceType: string(instanceType)}))
	p.launchTemplateVersion(&ec2types.RequestLaunchTemplateData{InstanceType: instanceType})
}

// update changes the group.
func (p *pool) update(change func(*autoscaling.UpdateAutoScalingGroupInput)) {
	p.Helper()
	in := &autoscaling.UpdateAutoScalingGroupInput{AutoScalingGroupName: &p.name}
	change(in)
	_, err := p.scaling.UpdateAutoScalingGroup(p.Context(), in)
	p.must(err)
}

// mix gives the group a mixed instances policy.
func (p *pool) mix(onDemandPercentage int32, instanceTypes ...string) {
	p.Helper()
	var overrides []astypes.LaunchTemplateOverrides
	for _, instanceType := range instanceTypes {
		overrides = append(overrides, astypes.LaunchTemplateOverrides{InstanceType: &instanceType})
	}
	p.update(func(in *autoscaling.UpdateAutoScalingGroupInput) {
		in.MixedInstancesPolicy = &astypes.MixedInstancesPolicy{
			LaunchTemplate: &astypes.LaunchTemplate{
				LaunchTemplateSpecification: &astypes.LaunchTemplateSpecification{LaunchTemplateName: &p.name, Version: awssdk.String("1")},
				Overrides:                   overrides,
			},
			InstancesDistribution: &astypes.InstancesDistribution{OnDemandPercentageAboveBaseCapacity: &onDemandPercentage},
		}
	})
}

// overrides gives the group a mixed instances policy with these.
func (p *pool) overrides(overrides ...astypes.LaunchTemplateOverrides) {
	p.Helper()
	p.overridesOf(p.name, overrides...)
}

// overridesOf gives the group a mixed instances policy with these and another template.
func (p *pool) overridesOf(template string, overrides ...astypes.LaunchTemplateOverrides) {
	p.Helper()
	p.update(func(in *autoscaling.UpdateAutoScalingGroupInput) {
		in.MixedInstancesPolicy = &astypes.MixedInstancesPolicy{LaunchTemplate: &astypes.LaunchTemplate{
			LaunchTemplateSpecification: &astypes.LaunchTemplateSpecification{LaunchTemplateName: &template, Version: awssdk.String("1")},
			Overrides:                   overrides,
		}}
	})
}

// suspend has somebody else suspend processes of the group.
func (p *pool) suspend(processes ...string) {
	p.Helper()
	_, err := p.scaling.SuspendProcesses(p.Context(), &autoscaling.SuspendProcessesInput{AutoScalingGroupName: &p.name, ScalingProcesses: processes})
	p.must(err)
}

// shield has somebody else protect an instance.
func (p *pool) shield(instance string) {
	p.Helper()
	_, err := p.scaling.SetInstanceProtection(p.Context(), &autoscaling.SetInstanceProtectionInput{
		AutoScalingGroupName: &p.name, InstanceIds: []string{instance}, ProtectedFromScaleIn: awssdk.Bool(true),
	})
	p.must(err)
}

func (p *pool) tagGroup(key, value string) {
	p.Helper()
	_, err := p.scaling.CreateOrUpdateTags(p.Context(), &autoscaling.CreateOrUpdateTagsInput{Tags: []astypes.Tag{{
		ResourceId: &p.name, ResourceType: awssdk.String("auto-scaling-group"), Key: &key, Value: &value, PropagateAtLaunch: awssdk.Bool(false),
	}}})
	p.must(err)
}

// look is what Fairway may change of a group, and the tags by which it remembers.
type look struct {
	Min       int32
	Zones     []string
	Template  string // of a group without a mixed instances policy
	Types     []string
	OnDemand  int32 // percentage; 0 without a policy
	Suspended []string
	Protected []string
	Tags      map[string]string
	Tagged    []string // instances
}

func (p *pool) look() look {
	p.Helper()
	group := p.group()
	out := look{Min: *group.MinSize, Zones: slices.Sorted(slices.Values(group.AvailabilityZones)), Tags: map[string]string{}}
	if group.LaunchTemplate != nil {
		out.Template = *group.LaunchTemplate.LaunchTemplateName + ":" + awssdk.ToString(group.LaunchTemplate.Version)
	}
	if policy := group.MixedInstancesPolicy; policy != nil {
		out.OnDemand = *policy.InstancesDistribution.OnDemandPercentageAboveBaseCapacity
		for _, o := range policy.LaunchTemplate.Overrides {
			out.Types = append(out.Types, *o.InstanceType)
		}
	}
	for _, process := range group.SuspendedProcesses {
		out.Suspended = append(out.Suspended, *process.ProcessName)
	}
	for _, member := range group.Instances {
		if awssdk.ToBool(member.ProtectedFromScaleIn) {
			out.Protected = append(out.Protected, *member.InstanceId)
		}
	}
	for _, tag := range group.Tags {
		if strings.HasPrefix(*tag.Key, "fairway.dev/") {
			out.Tags[*tag.Key] = *tag.Value
		}
	}
	answer, err := p.ec2.DescribeInstances(p.Context(), &ec2.DescribeInstancesInput{Filters: []ec2types.Filter{
		{Name: awssdk.String("tag:aws:autoscaling:groupName"), Values: []string{p.name}},
		{Name: awssdk.String("tag:fairway.dev/protected"), Values: []string{"true"}},
	}})
	p.must(err)
	for _, reservation := range answer.Reservations {
		for _, instance := range reservation.Instances {
			out.Tagged = append(out.Tagged, *instance.InstanceId)
		}
	}
	slices.Sort(out.Tagged)
	slices.Sort(out.Protected)
	return out
}

func (p *pool) createGroup(name string, min, max int32, tags map[string]string) {
	p.Helper()
	input := &autoscaling.CreateAutoScalingGroupInput{
		AutoScalingGroupName: &name, MinSize: &min, MaxSize: &max, VPCZoneIdentifier: &p.subnets,
		LaunchTemplate: &astypes.LaunchTemplateSpecification{LaunchTemplateName: &p.name, Version: awssdk.String("$Latest")},
	}
	for key, value := range tags {
		input.Tags = append(input.Tags, astypes.Tag{
			ResourceId: &name, ResourceType: awssdk.String("auto-scaling-group"), Key: &key, Value: &value, PropagateAtLaunch: awssdk.Bool(true),
		})
	}
	_, err := p.scaling.CreateAutoScalingGroup(p.Context(), input)
	p.must(err)
}

func (p *pool) setDesired(size int32) {
	p.Helper()
	_, err := p.scaling.SetDesiredCapacity(p.Context(), &autoscaling.SetDesiredCapacityInput{AutoScalingGroupName: &p.name, DesiredCapacity: &size})
	p.must(err)
}

func (p *pool) group() astypes.AutoScalingGroup {
	p.Helper()
	answer, err := p.scaling.DescribeAutoScalingGroups(p.Context(), &autoscaling.DescribeAutoScalingGroupsInput{AutoScalingGroupNames: []string{p.name}})
	p.must(err)
	require.Len(p, answer.AutoScalingGroups, 1)
	return answer.AutoScalingGroups[0]
}

func (p *pool) desired() int { return int(*p.group().DesiredCapacity) }

// members are the ids of the group's instances.
func (p *pool) members() []string {
	p.Helper()
	var ids []string
	for _, member := range p.group().Instances {
		ids = append(ids, *member.InstanceId)
	}
	return ids
}

// settles waits until the group has this many instances and none is on its way.
func (p *pool) settles(size int) {
	p.Helper()
	p.eventually("the group has settled", func() bool {
		members := p.group().Instances
		return len(members) == size && !slices.ContainsFunc(members, func(i astypes.Instance) bool {
			return i.LifecycleState != astypes.LifecycleStateInService
		})
	})
}

func (p *pool) tagsOf(instance string) []string {
	p.Helper()
	answer, err := p.ec2.DescribeInstances(p.Context(), &ec2.DescribeInstancesInput{InstanceIds: []string{instance}})
	p.must(err)
	var keys []string
	for _, tag := range answer.Reservations[0].Instances[0].Tags {
		keys = append(keys, *tag.Key)
	}
	return keys
}

func (p *pool) state(instance string) ec2types.InstanceStateName {
	p.Helper()
	answer, err := p.ec2.DescribeInstances(p.Context(), &ec2.DescribeInstancesInput{InstanceIds: []string{instance}})
	p.must(err)
	return answer.Reservations[0].Instances[0].State.Name
}

func (p *pool) eventually(what string, condition func() bool) {
	p.Helper()
	require.Eventually(p, condition, time.Minute, 50*time.Millisecond, what)
}
