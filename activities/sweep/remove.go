package sweep

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/elasticloadbalancing"
	"github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	"github.com/aws/aws-sdk-go-v2/service/route53"
	r53types "github.com/aws/aws-sdk-go-v2/service/route53/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	s3types "github.com/aws/aws-sdk-go-v2/service/s3/types"
	"go.temporal.io/sdk/temporal"

	"github.com/fairway-project/fairway/activities"
	"github.com/fairway-project/fairway/activities/aws"
	"github.com/fairway-project/fairway/e2e"
	"github.com/fairway-project/fairway/workflows"
)

// RemoveOrphan implements workflows.Sweeping. InvalidInput if the thing is somebody's after all. StackFailed if it
// cannot be removed, with what AWS says.
func (s *Sweep) RemoveOrphan(ctx context.Context, orphan e2e.Orphan) error {
	if orphan.Kind == "place" {
		working, stop := activities.Working(ctx, func() any { return "looking" })
		defer stop()
		return cause(working, s.givePlaceBack(working, orphan))
	}
	configured, known := s.Settings.ConfiguredAccount(orphan.Account) // no other one is touched
	if !known {
		return invalid("%s %s: account %s in %s is none of e2e.accounts, so nothing is removed there", orphan.Kind, orphan.ID, orphan.Account.Account, orphan.Account.Region)
	}
	a, err := s.open(ctx, configured)
	if err != nil {
		return err
	}
	r := &removal{Sweep: s, a: a, orphan: orphan}
	r.shown.Store("looking")
	switch orphan.Kind {
	case "pool-stack", "stack":
		return r.stack(ctx) // which heartbeats by itself
	case "lease":
		working, stop := activities.Working(ctx, r.shown.Load)
		defer stop()
		return cause(working, r.lease(working))
	default:
		working, stop := activities.Working(ctx, r.shown.Load)
		defer stop()
		return cause(working, r.thing(working))
	}
}

// removal is the removal of one orphan.
type removal struct {
	*Sweep
	a      *account
	orphan e2e.Orphan
	shown  atomic.Value // string
}

// allowed looks once more whether nobody owns a thing, and nobody has blocked changes.
func (r *removal) allowed(ctx context.Context, t e2e.Thing) error {
	owners, err := r.owners(ctx, &r.orphan.Lease)
	if err != nil {
		return err
	}
	if spared := owners.Spared(t, r.orphan.Lease); spared != "" {
		return invalid("%s %s of test cluster %s is left alone: %s", r.orphan.Kind, r.orphan.ID, r.orphan.Lease, spared)
	}
	return r.Blocks.Check(ctx, r.orphan.Lease, "")
}

// find is the thing as it is now.
func (r *removal) find(ctx context.Context) (e2e.Thing, bool, error) {
	things, err := r.a.of(ctx, r.orphan.Kind, r.orphan.Lease)
	at := slices.IndexFunc(things, func(t e2e.Thing) bool { return t.ID == r.orphan.ID })
	if err != nil || at < 0 {
		return e2e.Thing{}, false, err
	}
	return things[at], true, nil
}

// stack deletes a stack as decommissioning does. Whoever would block that asks here for owners too, so that they are
// looked for again after its buckets have been emptied.
func (r *removal) stack(ctx context.Context) error {
	guard := &guard{removal: r}
	stacks := &aws.Stacks{Accounts: r.Accounts, Settings: r.Accounts.Settings, Blocks: guard}
	return stacks.DeleteOrphan(ctx, entry(r.a.Account, r.orphan.Lease), r.orphan.ID, func(tags map[string]string, made time.Time) error {
		guard.thing = e2e.Thing{Account: r.a.Account, Kind: r.orphan.Kind, ID: r.orphan.ID, Tags: tags, Made: made}
		return r.allowed(ctx, guard.thing)
	})
}

// guard is a block on a stack that somebody owns.
type guard struct {
	*removal
	thing e2e.Thing
}

func (g *guard) Check(ctx context.Context, _, _ string) error { return g.allowed(ctx, g.thing) }

// thing removes what is no stack, and waits until it is gone. What something else still uses is tried again.
func (r *removal) thing(ctx context.Context) error {
	until, asked, said := time.Now().Add(r.giveUp()), false, "it is still there"
	for {
		t, there, err := r.find(ctx)
		if err != nil || !there {
			return err
		}
		if !asked {
			if err := r.allowed(ctx, t); err != nil {
				return err
			}
			r.shown.Store("removing")
			err := r.a.remove(ctx, r.Accounts, r.orphan)
			switch {
			case aws.HasCode(err, inUse...):
				said = err.Error()
				r.shown.Store("waiting for what uses it: " + short(said))
			case aws.HasCode(err, "OperationNotPermitted"):
				return r.failed("it is protected from deletion; switch that off: " + err.Error())
			case err != nil:
				return aws.Explain(entry(r.a.Account, r.orphan.Lease), "removing "+r.orphan.Kind+" "+r.orphan.ID, err)
			default:
				asked = true
				r.shown.Store("waiting until it is gone")
			}
		}
		if time.Now().After(until) {
			return r.failed(fmt.Sprintf("it is not gone after %s: %s", r.giveUp(), said))
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(r.Accounts.Settings.PollInterval):
		}
	}
}

// inUse are AWS's answers about what goes when something else is gone.
var inUse = []string{"DependencyViolation", "ResourceInUse", "VolumeInUse", "InvalidGroup.InUse", "ScalingActivityInProgress", "IncorrectState", "IncorrectInstanceState"}

func (r *removal) failed(why string) error {
	return temporal.NewNonRetryableApplicationError(fmt.Sprintf("%s %s of test cluster %s: %s", r.orphan.Kind, r.orphan.ID, r.orphan.Lease, short(why)), workflows.StackFailed, nil)
}

// short keeps a text of AWS from filling a history.
func short(text string) string {
	const most = 500
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "") + "…"
}

// remove asks AWS to remove something.
func (a *account) remove(ctx context.Context, accounts *aws.Accounts, o e2e.Orphan) (err error) {
	switch o.Kind {
	case "group":
		_, err = a.scaling.DeleteAutoScalingGroup(ctx, &autoscaling.DeleteAutoScalingGroupInput{AutoScalingGroupName: &o.ID, ForceDelete: awssdk.Bool(true)})
	case "load-balancer":
		if strings.HasPrefix(o.ID, "arn:") {
			_, err = a.balancing.DeleteLoadBalancer(ctx, &elasticloadbalancingv2.DeleteLoadBalancerInput{LoadBalancerArn: &o.ID})
		} else {
			_, err = a.classic.DeleteLoadBalancer(ctx, &elasticloadbalancing.DeleteLoadBalancerInput{LoadBalancerName: &o.ID})
		}
	case "target-group":
		_, err = a.balancing.DeleteTargetGroup(ctx, &elasticloadbalancingv2.DeleteTargetGroupInput{TargetGroupArn: &o.ID})
	case "instance":
		_, err = a.ec2.TerminateInstances(ctx, &ec2.TerminateInstancesInput{InstanceIds: []string{o.ID}})
	case "volume":
		_, err = a.ec2.DeleteVolume(ctx, &ec2.DeleteVolumeInput{VolumeId: &o.ID})
	case "security-group":
		err = a.removeSecurityGroup(ctx, accounts, o)
	case "record":
		err = a.removeRecord(ctx, o)
	case "objects":
		err = a.removeObjects(ctx, o.ID)
	default:
		return invalid("no sweep removes things of the kind %q", o.Kind)
	}
	if aws.HasCode(err, "LoadBalancerNotFound", "TargetGroupNotFound", "InvalidInstanceID.NotFound", "InvalidVolume.NotFound", "InvalidGroup.NotFound") {
		return nil // the next look finds it gone
	}
	return err
}

// removeSecurityGroup takes the group out of the rules of its cluster's other groups before it deletes it.
func (a *account) removeSecurityGroup(ctx context.Context, accounts *aws.Accounts, o e2e.Orphan) error {
	groups, err := a.allSecurityGroups(ctx)
	if err != nil {
		return err
	}
	others := map[string]ec2types.SecurityGroup{}
	owners := e2e.Owners{ClusterTag: a.settings.ClusterTag}
	for _, group := range groups {
		if owners.Of(e2e.Thing{Tags: ec2Tags(group.Tags)}) == o.Lease {
			others[awssdk.ToString(group.GroupId)] = group
		}
	}
	stacks := &aws.Stacks{Accounts: accounts, Settings: a.settings}
	if err := stacks.RevokeGroup(ctx, entry(a.Account, o.Lease), o.ID, others); err != nil {
		return err
	}
	_, err = a.ec2.DeleteSecurityGroup(ctx, &ec2.DeleteSecurityGroupInput{GroupId: &o.ID})
	return err
}

// removeRecord deletes a record as it is now: Route 53 wants all of it, so that a change meanwhile is noticed.
func (a *account) removeRecord(ctx context.Context, o e2e.Orphan) error {
	var found *r53types.ResourceRecordSet
	var in string
	if err := a.eachRecord(ctx, func(zone string, set r53types.ResourceRecordSet) {
		if recordID(zone, set) == o.ID {
			found, in = &set, zone
		}
	}); err != nil || found == nil {
		return err
	}
	_, err := a.dns.ChangeResourceRecordSets(ctx, &route53.ChangeResourceRecordSetsInput{HostedZoneId: &in, ChangeBatch: &r53types.ChangeBatch{
		Comment: awssdk.String("of the test cluster " + o.Lease + ", which is gone"),
		Changes: []r53types.Change{{Action: r53types.ChangeActionDelete, ResourceRecordSet: found}},
	}})
	return err
}

// removeObjects deletes what is under a prefix, with all versions.
func (a *account) removeObjects(ctx context.Context, prefix string) error {
	owner := awssdk.String(number(a.Account.Account))
	for {
		page, err := a.s3.ListObjectVersions(ctx, &s3.ListObjectVersionsInput{Bucket: &a.bucket, Prefix: &prefix, ExpectedBucketOwner: owner})
		if aws.HasCode(err, "NoSuchBucket") {
			return nil
		}
		if err != nil {
			return err
		}
		var going []s3types.ObjectIdentifier
		for _, version := range page.Versions {
			going = append(going, s3types.ObjectIdentifier{Key: version.Key, VersionId: version.VersionId})
		}
		for _, marker := range page.DeleteMarkers {
			going = append(going, s3types.ObjectIdentifier{Key: marker.Key, VersionId: marker.VersionId})
		}
		if len(going) == 0 {
			return nil
		}
		if at := slices.IndexFunc(going, func(o s3types.ObjectIdentifier) bool { return !strings.HasPrefix(awssdk.ToString(o.Key), prefix) }); at >= 0 {
			return invalid("s3://%s: asked for what is under %s, the answer has %s; nothing of it is deleted", a.bucket, prefix, short(awssdk.ToString(going[at].Key)))
		}
		out, err := a.s3.DeleteObjects(ctx, &s3.DeleteObjectsInput{Bucket: &a.bucket, ExpectedBucketOwner: owner, Delete: &s3types.Delete{Objects: going, Quiet: awssdk.Bool(true)}})
		if err != nil {
			return err
		}
		if len(out.Errors) > 0 {
			return fmt.Errorf("deleting s3://%s/%s: AWS says %s: %s", a.bucket, awssdk.ToString(out.Errors[0].Key), awssdk.ToString(out.Errors[0].Code), short(awssdk.ToString(out.Errors[0].Message)))
		}
	}
}

// lease removes a lease when nothing is left of what it was for: without it less would be known of the rest.
func (r *removal) lease(ctx context.Context) error {
	owners, err := r.owners(ctx, &r.orphan.Lease)
	if err != nil || len(owners.Leases) == 0 {
		return err
	}
	if r.orphan.ID != r.orphan.Lease {
		return invalid("lease %s is not that of test cluster %s", r.orphan.ID, r.orphan.Lease)
	}
	if err := r.allowed(ctx, e2e.Thing{Kind: "lease", ID: r.orphan.ID, Named: r.orphan.ID}); err != nil {
		return err
	}
	things, err := r.a.things(ctx, owners)
	if err != nil {
		return err
	}
	var left []string
	for _, t := range things {
		if owners.Of(t) == r.orphan.Lease {
			left = append(left, t.Kind+" "+t.ID)
		}
	}
	if len(left) > 0 {
		return r.failed("the lease stays as long as there are: " + strings.Join(left, ", "))
	}
	if err := r.allowed(ctx, e2e.Thing{Kind: "lease", ID: r.orphan.ID, Named: r.orphan.ID}); err != nil {
		return err
	}
	return r.EndLease(ctx, workflows.ChangeLease{Cluster: r.orphan.ID, Account: r.a.Account})
}
