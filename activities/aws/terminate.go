package aws

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling/types"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/smithy-go"
	"go.temporal.io/sdk/temporal"

	"github.com/fairway-project/fairway/registry"
	"github.com/fairway-project/fairway/workflows"
)

// terminatedBy is the tag that an instance gets before it is terminated. It tells an attempt after
// a lost answer, and people, who ended the instance.
const terminatedBy = "fairway.dev/terminated-by"

// TerminateInstance implements workflows.AutoScaling. It looks before it acts, so that an attempt
// after a lost answer neither ends a second instance nor lowers the size twice. Protection from scale-in
// does not stop it. InvalidInput if the group is to get smaller than its minimum.
func (a *Activities) TerminateInstance(ctx context.Context, in workflows.TerminateInstance) (workflows.Termination, error) {
	cluster, account, err := a.Accounts.get(ctx, in.Cluster)
	if err != nil {
		return workflows.Termination{}, err
	}
	group, err := account.group(ctx, cluster, in.Group)
	if err != nil {
		return workflows.Termination{}, err
	}
	at := slices.IndexFunc(group.Instances, func(i types.Instance) bool { return aws.ToString(i.InstanceId) == in.Instance })
	if at < 0 || ends(group.Instances[at]) {
		return account.termination(ctx, cluster, in, at < 0)
	}
	if err := a.Blocks.Check(ctx, cluster.ID, in.Pool); err != nil {
		return workflows.Termination{}, err
	}
	if desired := aws.ToInt32(group.DesiredCapacity); !in.Replace && desired <= aws.ToInt32(group.MinSize) {
		return workflows.Termination{}, temporal.NewNonRetryableApplicationError(
			fmt.Sprintf("cluster %s: instance %s cannot go without a replacement: the size of group %s, %d, is its minimum; lower the minimum first",
				cluster.ID, in.Instance, in.Group, desired), workflows.InvalidInput, nil)
	}
	if in.Replace {
		launching, err := account.asAsked(ctx, cluster, group, in.Launch)
		if err != nil {
			return workflows.Termination{}, err
		}
		if err := account.launchAs(ctx, cluster, group, launching, nil); err != nil {
			return workflows.Termination{}, err
		}
	}
	if _, err := account.ec2.CreateTags(ctx, &ec2.CreateTagsInput{
		Resources: []string{in.Instance}, Tags: []ec2types.Tag{{Key: aws.String(terminatedBy), Value: aws.String(in.By)}},
	}); err != nil {
		return workflows.Termination{}, explain(cluster, "tagging instance "+in.Instance, err)
	}
	_, err = account.autoScaling.TerminateInstanceInAutoScalingGroup(ctx, &autoscaling.TerminateInstanceInAutoScalingGroupInput{
		InstanceId: aws.String(in.Instance), ShouldDecrementDesiredCapacity: aws.Bool(!in.Replace),
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
