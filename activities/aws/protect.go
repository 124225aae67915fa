package aws

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling/types"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"go.temporal.io/sdk/temporal"

	"github.com/fairway-project/fairway/registry"
	"github.com/fairway-project/fairway/workflows"
)

// Tags that say what ProtectPool changed.
const (
	suspendedTag = "fairway.dev/suspended" // of a group: processes that nobody else had suspended
	minSizeTag   = "fairway.dev/min-size"  // of a group: its minimum before
	protectedTag = "fairway.dev/protected" // of an instance that nobody else had protected
)

// rebalance is the process that ends instances to bring zones into balance.
const rebalance = "AZRebalance"

// disturbing are the processes that change a group's size or move its instances on their own
// account. The others stay: without Launch, Terminate and the health checks nothing is replaced
// (https://docs.aws.amazon.com/autoscaling/ec2/userguide/as-suspend-resume-processes.html).
var disturbing = []string{rebalance, "AlarmNotification", "ScheduledActions"}

// protectAtOnce is how many instances a request may protect
// (https://docs.aws.amazon.com/autoscaling/ec2/APIReference/API_SetInstanceProtection.html).
const protectAtOnce = 50

// ProtectPool implements workflows.AutoScaling.
func (a *Activities) ProtectPool(ctx context.Context, in workflows.ProtectPool) error {
	cluster, account, err := a.Accounts.get(ctx, in.Cluster)
	if err != nil {
		return err
	}
	if err := a.Blocks.Check(ctx, cluster.ID, in.Pool); err != nil {
		return err
	}
	group, err := account.group(ctx, cluster, in.Group)
	if err != nil {
		return err
	}
	if err := account.suspend(ctx, cluster, group, disturbing...); err != nil {
		return err
	}
	if minimum := aws.ToInt32(group.MinSize); in.Empty && minimum > 0 {
		if err := account.note(ctx, cluster, in.Group, map[string]string{minSizeTag: strconv.Itoa(int(minimum))}); err != nil {
			return err
		}
		if err := account.setMinimum(ctx, cluster, in.Group, 0); err != nil {
			return err
		}
	}
	return account.protect(ctx, cluster, in.Group, group.Instances)
}

// suspend suspends those of the processes that run. The tag is written first, and adds to what
// an earlier one says: what it does not name was suspended by somebody else.
func (account *account) suspend(ctx context.Context, cluster registry.Cluster, group types.AutoScalingGroup, processes ...string) error {
	name := aws.ToString(group.AutoScalingGroupName)
	running := slices.DeleteFunc(slices.Clone(processes), func(p string) bool { return suspended(group, p) })
	if len(running) == 0 {
		return nil
	}
	ours := append(strings.Fields(tag(group, suspendedTag)), running...)
	slices.Sort(ours)
	if note := strings.Join(slices.Compact(ours), " "); note != tag(group, suspendedTag) {
		if err := account.note(ctx, cluster, name, map[string]string{suspendedTag: note}); err != nil {
			return err
		}
	}
	_, err := account.autoScaling.SuspendProcesses(ctx, &autoscaling.SuspendProcessesInput{
		AutoScalingGroupName: aws.String(name), ScalingProcesses: running,
	})
	return explain(cluster, fmt.Sprintf("suspending %s of group %s", strings.Join(running, ", "), name), err)
}

func suspended(group types.AutoScalingGroup, process string) bool {
	return slices.ContainsFunc(group.SuspendedProcesses, func(p types.SuspendedProcess) bool {
		return aws.ToString(p.ProcessName) == process
	})
}

func (account *account) setMinimum(ctx context.Context, cluster registry.Cluster, group string, minimum int) error {
	_, err := account.autoScaling.UpdateAutoScalingGroup(ctx, &autoscaling.UpdateAutoScalingGroupInput{
		AutoScalingGroupName: aws.String(group), MinSize: aws.Int32(int32(minimum)),
	})
	return explain(cluster, fmt.Sprintf("setting the minimum size of group %s to %d", group, minimum), err)
}

// protect protects those of a group's instances from scale-in that are not protected. The tag is
// written first. An instance that is not in service yet cannot be protected.
func (account *account) protect(ctx context.Context, cluster registry.Cluster, group string, members []types.Instance) error {
	var open []string
	for _, member := range members {
		if !aws.ToBool(member.ProtectedFromScaleIn) && protectable(member) {
			open = append(open, aws.ToString(member.InstanceId))
		}
	}
	for ids := range slices.Chunk(open, protectAtOnce) {
		if _, err := account.ec2.CreateTags(ctx, &ec2.CreateTagsInput{
			Resources: ids, Tags: []ec2types.Tag{{Key: aws.String(protectedTag), Value: aws.String("true")}},
		}); err != nil {
			return explain(cluster, "tagging instances of group "+group, err)
		}
		if err := account.setProtection(ctx, cluster, group, ids, true); err != nil {
			return err
		}
	}
	return nil
}

func (account *account) setProtection(ctx context.Context, cluster registry.Cluster, group string, ids []string, protected bool) error {
	_, err := account.autoScaling.SetInstanceProtection(ctx, &autoscaling.SetInstanceProtectionInput{
		AutoScalingGroupName: aws.String(group), InstanceIds: ids, ProtectedFromScaleIn: aws.Bool(protected),
	})
	return explain(cluster, "changing the scale-in protection of instances of group "+group, err)
}

// protectable says whether AWS lets the protection of an instance be changed now.
func protectable(member types.Instance) bool {
	switch member.LifecycleState {
	case types.LifecycleStateInService, types.LifecycleStateEnteringStandby, types.LifecycleStateStandby:
		return true
	}
	return false
}

// RestorePool implements workflows.AutoScaling. It is an undo, so blocks do not stop it. What AWS
// will never accept, since a subnet or a template of before is gone, is told as left.
func (a *Activities) RestorePool(ctx context.Context, in workflows.ProtectPool) (string, error) {
	cluster, account, err := a.Accounts.get(ctx, in.Cluster)
	if err != nil {
		return "", err
	}
	group, err := account.group(ctx, cluster, in.Group)
	var gone *temporal.ApplicationError
	if errors.As(err, &gone) && gone.Type() == workflows.PoolNotFound {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	// One that fails stops none of the others. What AWS will always refuse is for people.
	var left []string
	launching := account.restoreLaunching(ctx, cluster, group)
	minimum := account.restoreMinimum(ctx, cluster, group, in.Empty)
	if final(launching) {
		left = append(left, fmt.Sprintf("group %s still launches as it did for the roll (%v); set by hand how it is to launch, then delete its tags %s, which say how it was before",
			in.Group, launching, strings.Join(tagsOf(group, launchingTags), ", ")))
	}
	if final(minimum) {
		left = append(left, fmt.Sprintf("the minimum size of group %s is still 0 (%v); set it to %s by hand, then delete the tag %s",
			in.Group, minimum, tag(group, minSizeTag), minSizeTag))
	}
	suspended, err := account.resume(ctx, cluster, group, launching == nil)
	if suspended != "" {
		left = append(left, suspended)
	}
	return strings.Join(left, ". "), cmp.Or(unlessFinal(launching), unlessFinal(minimum), account.unprotect(ctx, cluster, group), err)
}

func unlessFinal(err error) error {
	if final(err) {
		return nil
	}
	return err
}

// restoreMinimum sets a group's minimum as it was, unless the group is to stay empty or somebody
// has set another one meanwhile.
func (account *account) restoreMinimum(ctx context.Context, cluster registry.Cluster, group types.AutoScalingGroup, empty bool) error {
	if !hasTag(group, minSizeTag) {
		return nil
	}
	name := aws.ToString(group.AutoScalingGroupName)
	before, err := strconv.Atoi(tag(group, minSizeTag))
	if err == nil && !empty && aws.ToInt32(group.MinSize) == 0 {
		if err := account.setMinimum(ctx, cluster, name, min(before, int(aws.ToInt32(group.MaxSize)))); err != nil {
			return err
		}
	}
	return account.forget(ctx, cluster, name, []string{minSizeTag})
}

// unprotect ends the protection of the instances that carry our tag.
func (account *account) unprotect(ctx context.Context, cluster registry.Cluster, group types.AutoScalingGroup) error {
	name := aws.ToString(group.AutoScalingGroupName)
	ours := map[string]bool{}
	pages := ec2.NewDescribeInstancesPaginator(account.ec2, &ec2.DescribeInstancesInput{Filters: []ec2types.Filter{
		{Name: aws.String("tag:aws:autoscaling:groupName"), Values: []string{name}},
		{Name: aws.String("tag:" + protectedTag), Values: []string{"true"}},
		{Name: aws.String("instance-state-name"), Values: []string{"pending", "running", "stopping", "stopped"}},
	}})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return explain(cluster, "looking for protected instances of group "+name, err)
		}
		for _, reservation := range page.Reservations {
			for _, instance := range reservation.Instances {
				ours[aws.ToString(instance.InstanceId)] = true
			}
		}
	}
	var protected []string
	for _, member := range group.Instances {
		if id := aws.ToString(member.InstanceId); ours[id] && aws.ToBool(member.ProtectedFromScaleIn) && protectable(member) {
			protected = append(protected, id)
		}
	}
	for ids := range slices.Chunk(protected, protectAtOnce) {
		if err := account.setProtection(ctx, cluster, name, ids, false); err != nil {
			return err
		}
	}
	for ids := range slices.Chunk(slices.Sorted(maps.Keys(ours)), protectAtOnce) {
		if _, err := account.ec2.DeleteTags(ctx, &ec2.DeleteTagsInput{
			Resources: ids, Tags: []ec2types.Tag{{Key: aws.String(protectedTag)}},
		}); err != nil {
			return explain(cluster, "removing tags of instances of group "+name, err)
		}
	}
	return nil
}

// resume resumes the processes that the tag names. While zones are uneven, or the group does not
// launch as it did before, AZRebalance would end an instance whose node nobody has drained, so it
// stays suspended and the tag keeps it.
func (account *account) resume(ctx context.Context, cluster registry.Cluster, group types.AutoScalingGroup, launchesAsBefore bool) (left string, err error) {
	if !hasTag(group, suspendedTag) {
		return "", nil
	}
	name := aws.ToString(group.AutoScalingGroupName)
	ours := slices.DeleteFunc(strings.Fields(tag(group, suspendedTag)), func(p string) bool { return !suspended(group, p) })
	var undecided error
	if slices.Contains(ours, rebalance) {
		left, undecided = account.keepsRebalance(ctx, cluster, group, launchesAsBefore)
	}
	stays := left != "" || undecided != nil
	if stays {
		ours = slices.DeleteFunc(ours, func(p string) bool { return p == rebalance })
	}
	if len(ours) > 0 {
		if _, err := account.autoScaling.ResumeProcesses(ctx, &autoscaling.ResumeProcessesInput{
			AutoScalingGroupName: aws.String(name), ScalingProcesses: ours,
		}); err != nil {
			return "", explain(cluster, fmt.Sprintf("resuming %s of group %s", strings.Join(ours, ", "), name), err)
		}
	}
	switch {
	case !stays:
		err = account.forget(ctx, cluster, name, []string{suspendedTag})
	case tag(group, suspendedTag) != rebalance:
		err = account.note(ctx, cluster, name, map[string]string{suspendedTag: rebalance})
	}
	return left, cmp.Or(undecided, err)
}

// keepsRebalance says why AZRebalance has to stay suspended; nothing if it need not.
func (account *account) keepsRebalance(ctx context.Context, cluster registry.Cluster, group types.AutoScalingGroup, launchesAsBefore bool) (string, error) {
	name := aws.ToString(group.AutoScalingGroupName)
	if !launchesAsBefore {
		return fmt.Sprintf("AZRebalance of group %s stays suspended, because Auto Scaling would end instances without a drain where the group launches none now; "+
			"resume it when the group launches as before", name), nil
	}
	zones, err := account.uneven(ctx, cluster, group)
	if zones == "" || err != nil {
		return "", err
	}
	return fmt.Sprintf("AZRebalance of group %s stays suspended, because Auto Scaling would end an instance without a drain to make its zones even (%s); "+
		"replace a node of the fullest zone, or resume AZRebalance yourself", name, zones), nil
}

// uneven counts a group's instances by zone if they are not spread evenly over all of its zones
// and no others; it is empty if they are.
func (account *account) uneven(ctx context.Context, cluster registry.Cluster, group types.AutoScalingGroup) (string, error) {
	zoneOf, err := account.zones(ctx, cluster, group, originalOf(group))
	if err != nil {
		return "", err
	}
	counts := map[string]int{}
	for _, zone := range zoneOf {
		counts[zone] = 0
	}
	even := true
	for _, member := range group.Instances {
		if ends(member) {
			continue
		}
		zone := aws.ToString(member.AvailabilityZone)
		if _, known := counts[zone]; !known {
			even = false // it would be moved
		}
		counts[zone]++
	}
	sizes := slices.Sorted(maps.Values(counts))
	if even && (len(sizes) == 0 || sizes[len(sizes)-1]-sizes[0] <= 1) {
		return "", nil
	}
	var text []string
	for _, zone := range slices.Sorted(maps.Keys(counts)) {
		text = append(text, fmt.Sprintf("%s: %d", zone, counts[zone]))
	}
	return strings.Join(text, ", "), nil
}
