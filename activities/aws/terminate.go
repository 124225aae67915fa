package aws

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

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
// does not stop it. InvalidInput if the group is to get smaller than its minimum. Blocked only before
// it has changed anything: a termination under way is not called back.
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
	if blocked := a.Blocks.Check(ctx, cluster.ID, in.Pool); blocked != nil {
		// The group may not show yet what an attempt before this one has done.
		if instance, err := account.instance(ctx, cluster, in.Instance); err == nil && ending(instance) {
			return account.termination(ctx, cluster, in, false)
		}
		return workflows.Termination{}, blocked
	}
	if desired := aws.ToInt32(group.DesiredCapacity); !in.Replace && desired <= aws.ToInt32(group.MinSize) {
		return workflows.Termination{}, temporal.NewNonRetryableApplicationError(
			fmt.Sprintf("cluster %s: instance %s cannot go without a replacement: the size of group %s, %d, is its minimum; lower the minimum first",
				cluster.ID, in.Instance, in.Group, desired), workflows.InvalidInput, nil)
	}
	var asked launching
	if in.Replace {
		if asked, err = account.asAsked(ctx, cluster, group, in.Launch); err != nil {
			return workflows.Termination{}, err
		}
		if err := account.launchAs(ctx, cluster, group, asked, nil); err != nil {
			return workflows.Termination{}, err
		}
	}
	if _, err := account.ec2.CreateTags(ctx, &ec2.CreateTagsInput{
		Resources: []string{in.Instance}, Tags: []ec2types.Tag{{Key: aws.String(terminatedBy), Value: aws.String(in.By)}},
	}); err != nil {
		return workflows.Termination{}, explain(cluster, "tagging instance "+in.Instance, err)
	}
	if _, err = account.autoScaling.TerminateInstanceInAutoScalingGroup(ctx, &autoscaling.TerminateInstanceInAutoScalingGroupInput{
		InstanceId: aws.String(in.Instance), ShouldDecrementDesiredCapacity: aws.Bool(!in.Replace),
	}); err != nil || !in.Replace {
		return workflows.Termination{}, explain(cluster, "terminating instance "+in.Instance, err)
	}
	// The group was complete until now, so AwaitTermination of another one may have restored how it
	// launches in between.
	if group, err = account.group(ctx, cluster, in.Group); err != nil {
		return workflows.Termination{}, err
	}
	return workflows.Termination{}, account.launchAs(ctx, cluster, group, asked, nil)
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

// AwaitTermination implements workflows.AutoScaling. Where the group replaces the instance, launches
// are restored as soon as it has done so: other nodes of the batch may drain for days.
func (a *Activities) AwaitTermination(ctx context.Context, in workflows.TerminateInstance) error {
	cluster, account, err := a.Accounts.get(ctx, in.Cluster)
	if err != nil {
		return err
	}
	began := time.Now()
	var terminated time.Time
	return a.poll(ctx, func() (string, bool, error) {
		if terminated.IsZero() {
			instance, err := account.instance(ctx, cluster, in.Instance)
			if err != nil {
				return "", false, err
			}
			if state := instance.State.Name; state != ec2types.InstanceStateNameTerminated {
				return fmt.Sprintf("instance %s is %s", in.Instance, state), false, nil
			}
			terminated = time.Now()
		}
		if !in.Replace {
			return "", true, nil
		}
		complete, err := account.restoreIfComplete(ctx, cluster, in.Group, began)
		return fmt.Sprintf("group %s has not launched in the place of %s yet", in.Group, in.Instance), complete || time.Since(terminated) > relaunchedWithin, err
	})
}

// relaunchedWithin is how long the launch in the place of an instance is waited for, in order to
// restore launches. After that AwaitInstances does, which knows what to do about a shortage.
const relaunchedWithin = time.Minute

// restoreIfComplete restores how a group launches if it has nothing to launch. It is done then, and
// also if there is nothing to restore or launches fail.
func (account *account) restoreIfComplete(ctx context.Context, cluster registry.Cluster, name string, since time.Time) (done bool, err error) {
	group, err := account.group(ctx, cluster, name)
	var gone *temporal.ApplicationError
	switch {
	case errors.As(err, &gone) && gone.Type() == workflows.PoolNotFound:
		return true, nil
	case err != nil:
		return false, err
	case len(tagsOf(group, launchingTags)) == 0:
		return true, nil
	case alive(group) >= int(aws.ToInt32(group.DesiredCapacity)):
		return true, unlessFinal(account.restoreLaunching(ctx, cluster, group))
	}
	failed, err := account.failures(ctx, cluster, name, since)
	return failed.latest != "", err
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
