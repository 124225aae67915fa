package aws

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling/types"
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
		return account.pool(ctx, cluster, found[0])
	default:
		return workflows.Pool{}, temporal.NewApplicationError(
			fmt.Sprintf("cluster %s: pool %q is ambiguous: %d Auto Scaling groups in %s carry its tags",
				cluster.ID, in.Pool, len(found), cluster.Region), workflows.InvalidInput)
	}
}

// pool tells what workflows need to know of a group. While launches are altered, that is how the
// group launches otherwise.
func (account *account) pool(ctx context.Context, cluster registry.Cluster, group types.AutoScalingGroup) (workflows.Pool, error) {
	if err := countsInstances(cluster, group); err != nil {
		return workflows.Pool{}, err
	}
	current, err := account.template(ctx, cluster, group)
	if err == nil {
		err = account.findAlike(ctx, cluster, &current, group.Instances)
	}
	if err != nil {
		return workflows.Pool{}, err
	}
	pool := workflows.Pool{
		Group:   aws.ToString(group.AutoScalingGroupName),
		Min:     int(aws.ToInt32(group.MinSize)),
		Max:     int(aws.ToInt32(group.MaxSize)),
		Desired: int(aws.ToInt32(group.DesiredCapacity)),
		Zones:   slices.Compact(slices.Sorted(slices.Values(group.AvailabilityZones))),
		Spot:    current.spot,
	}
	original := originalOf(group)
	if original.mixed {
		pool.Spot = original.onDemand < 100
	}
	if !slices.Equal(original.subnets, launchingOf(group).subnets) || len(original.subnets) == 0 {
		zoneOf, err := account.zones(ctx, cluster, group, original)
		if err != nil {
			return workflows.Pool{}, err
		}
		pool.Zones = slices.Compact(slices.Sorted(maps.Values(zoneOf)))
	}
	for _, member := range group.Instances {
		instance := instanceOf(member)
		instance.Old = !current.made(member)
		pool.Instances = append(pool.Instances, instance)
	}
	return pool, nil
}

// countsInstances refuses a group whose sizes are not numbers of instances: one more would not be
// one instance more.
func countsInstances(cluster registry.Cluster, group types.AutoScalingGroup) error {
	refused := func(unit, remedy string) error {
		return temporal.NewNonRetryableApplicationError(
			fmt.Sprintf("cluster %s: the size of group %s counts %s and not instances, which cannot be rolled; %s",
				cluster.ID, aws.ToString(group.AutoScalingGroupName), unit, remedy), workflows.InvalidInput, nil)
	}
	if unit := aws.ToString(group.DesiredCapacityType); unit != "" && unit != "units" {
		return refused(unit, "set its desired capacity type to units")
	}
	for _, o := range launchingOf(group).overrides {
		if weight := aws.ToString(o.WeightedCapacity); weight != "" && weight != "1" {
			return refused(fmt.Sprintf("weights (%s is %s)", aws.ToString(o.InstanceType), weight), "take the weights out of its mixed instances policy")
		}
	}
	return nil
}

func instanceOf(member types.Instance) workflows.Instance {
	return workflows.Instance{
		ID:        aws.ToString(member.InstanceId),
		Zone:      aws.ToString(member.AvailabilityZone),
		Type:      aws.ToString(member.InstanceType),
		Lifecycle: string(member.LifecycleState),
	}
}

// alive counts the instances of a group that are not on their way out.
func alive(group types.AutoScalingGroup) int {
	return len(newcomers(group, nil))
}

// ends says whether a member of a group is on its way out.
func ends(member types.Instance) bool {
	return strings.HasPrefix(string(member.LifecycleState), "Terminat")
}

// group reads an Auto Scaling group by its name. PoolNotFound if it is gone.
func (account *account) group(ctx context.Context, cluster registry.Cluster, name string) (types.AutoScalingGroup, error) {
	out, err := account.autoScaling.DescribeAutoScalingGroups(ctx, &autoscaling.DescribeAutoScalingGroupsInput{AutoScalingGroupNames: []string{name}})
	if err != nil {
		return types.AutoScalingGroup{}, explain(cluster, "reading group "+name, err)
	}
	for _, group := range out.AutoScalingGroups {
		if aws.ToString(group.AutoScalingGroupName) == name {
			return group, nil
		}
	}
	return types.AutoScalingGroup{}, temporal.NewNonRetryableApplicationError(
		fmt.Sprintf("cluster %s: Auto Scaling group %s is gone", cluster.ID, name), workflows.PoolNotFound, nil)
}

// poll asks AWS, which has nothing to watch, until the answer is yes. What is missing meanwhile
// is heartbeated for people to see.
func (a *Activities) poll(ctx context.Context, question func() (missing string, done bool, err error)) error {
	return poll(ctx, a.Accounts.Settings.PollInterval, "", question)
}

// poll asks a question at once and then every so often until it is answered. How things stand, known
// at first, is heartbeated, also while AWS takes its time: the attempts at one request together may
// last longer than the heartbeat timeout.
func poll[Progress any](ctx context.Context, every time.Duration, known Progress, question func() (Progress, bool, error)) error {
	var shown atomic.Value
	shown.Store(known)
	defer beat(ctx, shown.Load)()
	again := time.NewTimer(0)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-activity.GetWorkerStopChannel(ctx):
			return activities.ErrStopping
		case <-again.C:
			progress, done, err := question()
			if err != nil || done {
				return err
			}
			shown.Store(progress)
			activity.RecordHeartbeat(ctx, progress)
			again.Reset(every)
		}
	}
}

// beat heartbeats what say says, until the function that it returns is called. ctx has to be the
// activity's: the SDK takes the end of a heartbeat's context for the activity's.
func beat(ctx context.Context, say func() any) (stop func()) {
	stopped, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for clock := time.Tick(activities.BeatEvery); ; {
			select {
			case <-stopped:
				return
			case <-ctx.Done():
				return
			case <-clock:
				activity.RecordHeartbeat(ctx, say())
			}
		}
	}()
	return func() {
		close(stopped)
		<-ended
	}
}
