package aws

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling/types"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/smithy-go"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"

	"github.com/fairway-project/fairway/activities"
	"github.com/fairway-project/fairway/registry"
	"github.com/fairway-project/fairway/workflows"
)

// Activities implements workflows.AutoScaling.
type Activities struct {
	Accounts *Accounts
	// Blocks refuses changes of a pool that is blocked.
	Blocks interface {
		Check(ctx context.Context, cluster, pool string) error
	}
	// ReadyWithin is how long an instance may take to be in service.
	ReadyWithin time.Duration
}

var _ workflows.AutoScaling = (*Activities)(nil)

// ExaminePool implements workflows.AutoScaling.
func (a *Activities) ExaminePool(ctx context.Context, in workflows.ExaminePool) (workflows.Pool, error) {
	cluster, account, err := a.Accounts.get(ctx, in.Cluster)
	if err != nil {
		return workflows.Pool{}, err
	}
	clusterTag := strings.ReplaceAll(a.Accounts.Settings.ClusterTag, "{cluster}", cluster.ID)
	poolTag := a.Accounts.Settings.PoolTag
	var found []types.AutoScalingGroup
	pages := autoscaling.NewDescribeAutoScalingGroupsPaginator(account.autoScaling, &autoscaling.DescribeAutoScalingGroupsInput{
		Filters: []types.Filter{
			{Name: aws.String("tag:" + clusterTag), Values: []string{"owned"}},
			{Name: aws.String("tag:" + poolTag), Values: []string{in.Pool}},
		},
	})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return workflows.Pool{}, explain(cluster, "looking for the group of pool "+in.Pool, err)
		}
		for _, group := range page.AutoScalingGroups {
			// The tags decide which machines get replaced, so they are not taken on trust.
			if tagged(group, clusterTag, "owned") && tagged(group, poolTag, in.Pool) {
				found = append(found, group)
			}
		}
	}
	switch len(found) {
	case 0:
		return workflows.Pool{}, temporal.NewNonRetryableApplicationError(
			fmt.Sprintf("cluster %s has no pool %q: no Auto Scaling group in %s carries the tags %s=owned and %s=%s",
				cluster.ID, in.Pool, cluster.Region, clusterTag, poolTag, in.Pool), workflows.PoolNotFound, nil)
	case 1:
		pool := describe(found[0])
		current, err := account.currentTemplate(ctx, cluster, found[0])
		if err != nil {
			return workflows.Pool{}, err
		}
		for i, instance := range found[0].Instances {
			pool.Instances[i].Old = !current.made(instance)
		}
		return pool, nil
	default:
		return workflows.Pool{}, temporal.NewApplicationError(
			fmt.Sprintf("cluster %s: pool %q is ambiguous: %d Auto Scaling groups in %s carry its tags",
				cluster.ID, in.Pool, len(found), cluster.Region), workflows.InvalidInput)
	}
}

func tagged(group types.AutoScalingGroup, key, value string) bool {
	return slices.ContainsFunc(group.Tags, func(tag types.TagDescription) bool {
		return aws.ToString(tag.Key) == key && aws.ToString(tag.Value) == value
	})
}

func describe(group types.AutoScalingGroup) workflows.Pool {
	pool := workflows.Pool{
		Group:   aws.ToString(group.AutoScalingGroupName),
		Min:     int(aws.ToInt32(group.MinSize)),
		Max:     int(aws.ToInt32(group.MaxSize)),
		Desired: int(aws.ToInt32(group.DesiredCapacity)),
	}
	for _, instance := range group.Instances {
		pool.Instances = append(pool.Instances, workflows.Instance{
			ID:        aws.ToString(instance.InstanceId),
			Zone:      aws.ToString(instance.AvailabilityZone),
			Type:      aws.ToString(instance.InstanceType),
			Lifecycle: string(instance.LifecycleState),
		})
	}
	return pool
}

// group reads an Auto Scaling group by its name.
func (account *account) group(ctx context.Context, cluster registry.Cluster, name string) (workflows.Pool, error) {
	out, err := account.autoScaling.DescribeAutoScalingGroups(ctx, &autoscaling.DescribeAutoScalingGroupsInput{AutoScalingGroupNames: []string{name}})
	if err != nil {
		return workflows.Pool{}, explain(cluster, "reading group "+name, err)
	}
	for _, group := range out.AutoScalingGroups {
		if aws.ToString(group.AutoScalingGroupName) == name {
			return describe(group), nil
		}
	}
	return workflows.Pool{}, temporal.NewNonRetryableApplicationError(
		fmt.Sprintf("cluster %s: Auto Scaling group %s is gone", cluster.ID, name), workflows.PoolNotFound, nil)
}

// ResizePool implements workflows.AutoScaling.
func (a *Activities) ResizePool(ctx context.Context, in workflows.ResizePool) error {
	cluster, account, err := a.Accounts.get(ctx, in.Cluster)
	if err != nil {
		return err
	}
	if err := a.Blocks.Check(ctx, cluster.ID, in.Pool); err != nil {
		return err
	}
	return account.resize(ctx, cluster, in.Group, in.From, in.To)
}

// resize sets the size of a group from one value to another, once.
func (account *account) resize(ctx context.Context, cluster registry.Cluster, group string, from, to int) error {
	pool, err := account.group(ctx, cluster, group)
	switch {
	case err != nil:
		return err
	case pool.Desired == to:
		return nil // an attempt before this one did it
	case pool.Desired != from:
		return temporal.NewNonRetryableApplicationError(
			fmt.Sprintf("cluster %s: the size of group %s changed to %d while it was about to go from %d to %d", cluster.ID, group, pool.Desired, from, to),
			workflows.PoolBusy, nil)
	}
	if to > from {
		if err := account.keepZones(ctx, cluster, group); err != nil {
			return err
		}
	}
	_, err = account.autoScaling.SetDesiredCapacity(ctx, &autoscaling.SetDesiredCapacityInput{
		AutoScalingGroupName: aws.String(group), DesiredCapacity: aws.Int32(int32(to)), HonorCooldown: aws.Bool(false),
	})
	return explain(cluster, fmt.Sprintf("setting the size of group %s to %d", group, to), err)
}

// keepZones suspends AZRebalance for good. The new instance may be in another zone than the old one
// was, and to bring the zones back into balance Auto Scaling would end yet another instance, whose
// node nobody has drained. The next launch goes to the zone with the fewest instances anyway
// (https://docs.aws.amazon.com/autoscaling/ec2/userguide/understand-how-suspending-processes-affects-other-processes.html).
func (account *account) keepZones(ctx context.Context, cluster registry.Cluster, group string) error {
	_, err := account.autoScaling.SuspendProcesses(ctx, &autoscaling.SuspendProcessesInput{
		AutoScalingGroupName: aws.String(group), ScalingProcesses: []string{"AZRebalance"},
	})
	return explain(cluster, "keeping group "+group+" from rebalancing its zones", err)
}

// ReleaseCapacity implements workflows.AutoScaling.
func (a *Activities) ReleaseCapacity(ctx context.Context, in workflows.ReleaseCapacity) ([]workflows.Instance, error) {
	cluster, account, err := a.Accounts.get(ctx, in.Cluster)
	if err != nil {
		return nil, err
	}
	pool, err := account.group(ctx, cluster, in.Group)
	if err != nil || pool.Desired != in.From {
		return nil, err // somebody else has set the size meanwhile, which then is not ours to change
	}
	surplus := slices.DeleteFunc(pool.Instances, func(i workflows.Instance) bool {
		return slices.Contains(in.Known, i.ID) || strings.HasPrefix(i.Lifecycle, "Terminat")
	})
	if len(surplus) > 0 {
		return surplus, nil
	}
	return nil, account.resize(ctx, cluster, in.Group, in.From, in.To)
}

// AwaitInstance implements workflows.AutoScaling.
func (a *Activities) AwaitInstance(ctx context.Context, in workflows.AwaitInstance) (workflows.Instance, error) {
	cluster, account, err := a.Accounts.get(ctx, in.Cluster)
	if err != nil {
		return workflows.Instance{}, err
	}
	var out workflows.Instance
	err = a.poll(ctx, func() (string, bool, error) {
		pool, err := account.group(ctx, cluster, in.Group)
		if err != nil {
			return "", false, err
		}
		for _, instance := range pool.Instances {
			if instance.Lifecycle == string(types.LifecycleStateInService) && !slices.Contains(in.Known, instance.ID) {
				out = instance
				return "", true, nil
			}
		}
		missing, err := account.whyNoInstance(ctx, in.Group)
		if err != nil {
			return "", false, explain(cluster, "reading the activities of group "+in.Group, err)
		}
		if time.Since(in.Since) > a.ReadyWithin {
			return "", false, temporal.NewNonRetryableApplicationError(
				fmt.Sprintf("cluster %s: %s, %s after it was asked for", cluster.ID, missing, a.ReadyWithin), workflows.BadReplacement, nil)
		}
		return missing, false, nil
	})
	return out, err
}

// whyNoInstance tells what Auto Scaling itself says about the launch that is being waited for.
func (account *account) whyNoInstance(ctx context.Context, group string) (string, error) {
	activities, err := account.autoScaling.DescribeScalingActivities(ctx, &autoscaling.DescribeScalingActivitiesInput{
		AutoScalingGroupName: aws.String(group), MaxRecords: aws.Int32(1),
	})
	if err != nil {
		return "", err
	}
	waiting := fmt.Sprintf("group %s has no new instance in service yet", group)
	if len(activities.Activities) == 0 || activities.Activities[0].StatusCode != types.ScalingActivityStatusCodeFailed {
		return waiting, nil
	}
	return waiting + ": " + aws.ToString(activities.Activities[0].StatusMessage), nil
}

// terminatedBy is the tag that an instance gets before it is terminated. It tells an attempt after
// a lost answer, and people, who ended the instance.
const terminatedBy = "fairway.dev/terminated-by"

// TerminateInstance implements workflows.AutoScaling. It looks before it acts, so that an attempt
// after a lost answer neither ends a second instance nor lowers the size twice.
func (a *Activities) TerminateInstance(ctx context.Context, in workflows.TerminateInstance) (workflows.Termination, error) {
	cluster, account, err := a.Accounts.get(ctx, in.Cluster)
	if err != nil {
		return workflows.Termination{}, err
	}
	pool, err := account.group(ctx, cluster, in.Group)
	if err != nil {
		return workflows.Termination{}, err
	}
	at := slices.IndexFunc(pool.Instances, func(i workflows.Instance) bool { return i.ID == in.Instance })
	if at < 0 || strings.HasPrefix(pool.Instances[at].Lifecycle, "Terminat") {
		return account.termination(ctx, cluster, in, at < 0)
	}
	if err := a.Blocks.Check(ctx, cluster.ID, in.Pool); err != nil {
		return workflows.Termination{}, err
	}
	if _, err := account.ec2.CreateTags(ctx, &ec2.CreateTagsInput{
		Resources: []string{in.Instance}, Tags: []ec2types.Tag{{Key: aws.String(terminatedBy), Value: aws.String(in.By)}},
	}); err != nil {
		return workflows.Termination{}, explain(cluster, "tagging instance "+in.Instance, err)
	}
	_, err = account.autoScaling.TerminateInstanceInAutoScalingGroup(ctx, &autoscaling.TerminateInstanceInAutoScalingGroupInput{
		InstanceId: aws.String(in.Instance), ShouldDecrementDesiredCapacity: aws.Bool(true),
	})
	return workflows.Termination{}, explain(cluster, "terminating instance "+in.Instance, err)
}

// termination tells who ended an instance that ends or has left its group.
func (account *account) termination(ctx context.Context, cluster registry.Cluster, in workflows.TerminateInstance, left bool) (workflows.Termination, error) {
	instance, err := account.instance(ctx, cluster, in.Instance)
	if err != nil {
		return workflows.Termination{}, err
	}
	if left && !ending(instance) {
		return workflows.Termination{}, temporal.NewNonRetryableApplicationError(
			fmt.Sprintf("cluster %s: instance %s is %s but no longer in group %s, so somebody detached it; terminate it by hand or attach it again",
				cluster.ID, in.Instance, instance.State.Name, in.Group), workflows.Detached, nil)
	}
	ours := slices.ContainsFunc(instance.Tags, func(tag ec2types.Tag) bool {
		return aws.ToString(tag.Key) == terminatedBy && aws.ToString(tag.Value) == in.By
	})
	return workflows.Termination{Vanished: !ours}, nil
}

// AwaitTermination implements workflows.AutoScaling.
func (a *Activities) AwaitTermination(ctx context.Context, in workflows.TerminateInstance) error {
	cluster, account, err := a.Accounts.get(ctx, in.Cluster)
	if err != nil {
		return err
	}
	return a.poll(ctx, func() (string, bool, error) {
		instance, err := account.instance(ctx, cluster, in.Instance)
		if err != nil {
			return "", false, err
		}
		state := instance.State.Name
		return fmt.Sprintf("instance %s is %s", in.Instance, state), state == ec2types.InstanceStateNameTerminated, nil
	})
}

// instance reads an instance; one that EC2 has forgotten counts as terminated.
func (account *account) instance(ctx context.Context, cluster registry.Cluster, id string) (ec2types.Instance, error) {
	forgotten := ec2types.Instance{State: &ec2types.InstanceState{Name: ec2types.InstanceStateNameTerminated}}
	out, err := account.ec2.DescribeInstances(ctx, &ec2.DescribeInstancesInput{InstanceIds: []string{id}})
	var answer smithy.APIError
	if errors.As(err, &answer) && answer.ErrorCode() == "InvalidInstanceID.NotFound" {
		return forgotten, nil
	}
	if err != nil {
		return ec2types.Instance{}, explain(cluster, "reading instance "+id, err)
	}
	for _, reservation := range out.Reservations {
		for _, i := range reservation.Instances {
			if aws.ToString(i.InstanceId) == id && i.State != nil {
				return i, nil
			}
		}
	}
	return forgotten, nil
}

func ending(instance ec2types.Instance) bool {
	return instance.State.Name == ec2types.InstanceStateNameShuttingDown || instance.State.Name == ec2types.InstanceStateNameTerminated
}

// poll asks AWS, which has nothing to watch, until the answer is yes. What is missing meanwhile
// is heartbeated for people to see.
func (a *Activities) poll(ctx context.Context, question func() (missing string, done bool, err error)) error {
	again := time.NewTimer(0)
	defer again.Stop()
	beat := time.NewTicker(activities.BeatEvery)
	defer beat.Stop()
	var missing string
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-activity.GetWorkerStopChannel(ctx):
			return activities.ErrStopping
		case <-beat.C:
			activity.RecordHeartbeat(ctx, missing)
		case <-again.C:
			var done bool
			var err error
			if missing, done, err = question(); err != nil || done {
				return err
			}
			activity.RecordHeartbeat(ctx, missing)
			again.Reset(a.Accounts.Settings.PollInterval)
		}
	}
}
