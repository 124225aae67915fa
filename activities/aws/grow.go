package aws

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling/types"
	"go.temporal.io/sdk/temporal"

	"github.com/fairway-project/fairway/registry"
	"github.com/fairway-project/fairway/workflows"
)

// GrowPool implements workflows.AutoScaling. How instances are launched and how many changes in
// one request, so that none is launched in another way.
func (a *Activities) GrowPool(ctx context.Context, in workflows.GrowPool) error {
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
	var size *int // none if an attempt before this one has set it
	switch desired := int(aws.ToInt32(group.DesiredCapacity)); desired {
	case in.To:
	case in.From:
		size = &in.To
	default:
		return temporal.NewNonRetryableApplicationError(
			fmt.Sprintf("cluster %s: the size of group %s changed to %d while it was about to go from %d to %d", cluster.ID, in.Group, desired, in.From, in.To),
			workflows.PoolBusy, nil)
	}
	launching, err := account.asAsked(ctx, cluster, group, in.Launch)
	if err != nil {
		return err
	}
	return account.launchAs(ctx, cluster, group, launching, size)
}

// AwaitInstances implements workflows.AutoScaling.
func (a *Activities) AwaitInstances(ctx context.Context, in workflows.AwaitInstances) ([]workflows.Instance, error) {
	cluster, account, err := a.Accounts.get(ctx, in.Cluster)
	if err != nil {
		return nil, err
	}
	var arrived []workflows.Instance
	err = a.poll(ctx, func() (string, bool, error) {
		group, err := account.group(ctx, cluster, in.Group)
		if err != nil {
			return "", false, err
		}
		fresh := slices.DeleteFunc(newcomers(group, in.Known), func(i types.Instance) bool {
			return len(in.Zones) > 0 && !slices.Contains(in.Zones, aws.ToString(i.AvailabilityZone))
		})
		serving := slices.DeleteFunc(slices.Clone(fresh), func(i types.Instance) bool { return i.LifecycleState != types.LifecycleStateInService })
		if len(serving) >= in.Count {
			if err := account.protect(ctx, cluster, in.Group, serving); err != nil {
				return "", false, err
			}
			arrived = instancesOf(serving)
			if err := account.restoreLaunching(ctx, cluster, group); !final(err) {
				return "", true, err
			}
			return "", true, nil // RestorePool tells people
		}
		failures, err := account.failures(ctx, cluster, in.Group, in.Since)
		if err != nil {
			return "", false, err
		}
		missing := missing(group, in, len(serving), failures)
		if len(fresh) < in.Count { // otherwise all of them are on their way
			err = a.hopeless(cluster, in, missing, failures)
		} else if time.Since(in.Since) > a.ReadyWithin {
			err = launchFailing(cluster, missing, a.ReadyWithin)
		}
		return missing, false, err
	})
	return arrived, err
}

// newcomers are the instances of a group that are not among the known ones and do not end.
func newcomers(group types.AutoScalingGroup, known []string) []types.Instance {
	return slices.DeleteFunc(slices.Clone(group.Instances), func(i types.Instance) bool {
		return ends(i) || slices.Contains(known, aws.ToString(i.InstanceId))
	})
}

func instancesOf(members []types.Instance) []workflows.Instance {
	var out []workflows.Instance
	for _, member := range members {
		out = append(out, instanceOf(member))
	}
	return out
}

// missing says in words what is waited for, with what Auto Scaling says about it.
func missing(group types.AutoScalingGroup, in workflows.AwaitInstances, serving int, failed failures) string {
	text := fmt.Sprintf("group %s has no new instance in service yet", in.Group)
	if in.Count > 1 {
		text = fmt.Sprintf("group %s has %d of %d new instances in service", in.Group, serving, in.Count)
	}
	switch {
	case failed.latest != "":
		text += ": " + failed.latest
	case suspended(group, "Launch"):
		text += ": somebody has suspended its process Launch"
	}
	return text
}

// failuresUntilGivenUp is how many launches may fail for a reason that more time does not mend.
const failuresUntilGivenUp = 3

// hopeless tells when waiting for further instances has no point. A workflow decides what to do
// then, so neither error is retried.
func (a *Activities) hopeless(cluster registry.Cluster, in workflows.AwaitInstances, missing string, failed failures) error {
	waited := time.Since(in.Since)
	switch {
	case failed.short && waited >= in.ShortageAfter:
		return temporal.NewNonRetryableApplicationError(
			fmt.Sprintf("cluster %s: %s; AWS has lacked capacity for %s", cluster.ID, missing, waited.Round(time.Second)), workflows.NoCapacity, nil)
	case failed.short:
		return nil
	case failed.others >= failuresUntilGivenUp:
		return temporal.NewNonRetryableApplicationError(
			fmt.Sprintf("cluster %s: %s; %d launches have failed", cluster.ID, missing, failed.others), workflows.LaunchFailing, nil)
	case waited > a.ReadyWithin:
		return launchFailing(cluster, missing, a.ReadyWithin)
	}
	return nil
}

func launchFailing(cluster registry.Cluster, missing string, within time.Duration) error {
	return temporal.NewNonRetryableApplicationError(
		fmt.Sprintf("cluster %s: %s, %s after it was asked for", cluster.ID, missing, within), workflows.LaunchFailing, nil)
}

// failures are launches that failed since a time.
type failures struct {
	latest string // in AWS's words; empty if there was none
	short  bool   // it was for lack of capacity, and no launch after it has succeeded or is under way
	others int    // how many failed for another reason
}

// clockRounding is how far a time that AWS shows may be before the one of a request: it shows
// seconds only.
const clockRounding = 2 * time.Second

// failures reads the latest 100 activities of a group, the newest first.
func (account *account) failures(ctx context.Context, cluster registry.Cluster, group string, since time.Time) (failures, error) {
	out, err := account.autoScaling.DescribeScalingActivities(ctx, &autoscaling.DescribeScalingActivitiesInput{AutoScalingGroupName: aws.String(group)})
	if err != nil {
		return failures{}, explain(cluster, "reading the activities of group "+group, err)
	}
	var failed failures
	superseded := false // by a newer launch that has succeeded, or may yet
	for _, activity := range out.Activities {
		if !strings.HasPrefix(aws.ToString(activity.Description), "Launching") || aws.ToTime(activity.StartTime).Before(since.Add(-clockRounding)) {
			continue
		}
		if activity.StatusCode != types.ScalingActivityStatusCodeFailed {
			superseded = true
			continue
		}
		words := aws.ToString(activity.StatusMessage)
		if failed.latest == "" {
			failed.latest, failed.short = words, shortage(words) && !superseded
		}
		if !shortage(words) {
			failed.others++
		}
	}
	return failed, nil
}

// shortages are the words by which a failed launch is known to lack capacity, a quota, addresses
// or a high enough price: other types, zones or markets may have what this one lacks
// (https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html,
// https://docs.aws.amazon.com/autoscaling/ec2/userguide/ts-as-capacity.html).
var shortages = []string{
	"InsufficientInstanceCapacity",
	"do not have sufficient",
	"no Spot capacity",
	"UnfulfillableCapacity",
	"MaxSpotInstanceCountExceeded",
	"Max spot instance count exceeded",
	"VcpuLimitExceeded",
	"current vCPU limit",
	"InstanceLimitExceeded",
	"SpotMaxPriceTooLow",
	"InsufficientFreeAddressesInSubnet",
	"not enough free addresses",
	"Could not launch Spot Instances",
	"not supported in your requested Availability Zone",
}

func shortage(words string) bool {
	return slices.ContainsFunc(shortages, func(known string) bool { return strings.Contains(words, known) })
}

// ReleaseCapacity implements workflows.AutoScaling. It is an undo, so blocks do not stop it. To
// lower the size ends no instance that does work: the known ones are protected from scale-in
// before, since one that has joined the group by itself, such as the stand-in of one that
// vanished, is not yet. One that is not in service cannot be protected, but has no pods either.
func (a *Activities) ReleaseCapacity(ctx context.Context, in workflows.ReleaseCapacity) ([]workflows.Instance, error) {
	cluster, account, err := a.Accounts.get(ctx, in.Cluster)
	if err != nil {
		return nil, err
	}
	group, err := account.group(ctx, cluster, in.Group)
	if err != nil {
		return nil, err
	}
	var lower *int
	size, surplus := int(aws.ToInt32(group.DesiredCapacity)), newcomers(group, in.Known)
	if size != in.From {
		surplus = nil // somebody else has set the size meanwhile, which then is not ours to change
	} else if len(surplus) == 0 {
		lower, size = &in.To, in.To
	}
	var asked workflows.Launch
	if size > alive(group) {
		asked = in.Launch
	}
	launching, err := account.asAsked(ctx, cluster, group, asked)
	if err != nil {
		return nil, err
	}
	if lower != nil {
		if err := account.protect(ctx, cluster, in.Group, group.Instances); err != nil {
			return nil, err
		}
	}
	err = account.launchAs(ctx, cluster, group, launching, lower)
	if final(err) { // RestorePool tells people; the size can be had without it
		now := launchingOf(group)
		var doing string
		doing, err = account.update(ctx, in.Group, now, now, lower)
		err = explain(cluster, doing, err)
	}
	return instancesOf(surplus), err
}
