package sweep

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling"
	"github.com/aws/aws-sdk-go-v2/service/cloudformation"
	cftypes "github.com/aws/aws-sdk-go-v2/service/cloudformation/types"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/elasticloadbalancing"
	"github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	"github.com/aws/aws-sdk-go-v2/service/route53"
	r53types "github.com/aws/aws-sdk-go-v2/service/route53/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/fairway-project/fairway/activities/aws"
	"github.com/fairway-project/fairway/config"
	"github.com/fairway-project/fairway/e2e"
	"github.com/fairway-project/fairway/registry"
)

// Tags of AWS on what goes with its stack or its group.
const (
	stackTag = "aws:cloudformation:stack-name"
	groupTag = "aws:autoscaling:groupName"
)

// once remembers what several accounts share: a bucket, the zones of one account's regions.
type once map[string]bool

func (o once) first(what string) bool {
	if o == nil {
		return true
	}
	before := o[what]
	o[what] = true
	return !before
}

// account is one in which test clusters are made, in a region.
type account struct {
	e2e.Account
	settings config.AWS
	zones    []string
	who      registry.Cluster // for errors
	bucket   string
	once     once

	scaling   *autoscaling.Client
	ec2       *ec2.Client
	formation *cloudformation.Client
	classic   *elasticloadbalancing.Client
	balancing *elasticloadbalancingv2.Client
	dns       *route53.Client
	s3        *s3.Client
}

// open is access to an account. InvalidInput if the credentials lead to another one.
func (s *Sweep) open(ctx context.Context, of e2e.Account) (*account, error) {
	who := entry(of, e2e.Prefix+"*")
	access, err := s.Accounts.Access(ctx, who)
	if err != nil {
		return nil, err
	}
	identity, err := sts.NewFromConfig(access).GetCallerIdentity(ctx, nil)
	if err != nil {
		return nil, aws.Explain(who, "asking AWS which account "+of.Account+" is", err)
	}
	if got := awssdk.ToString(identity.Account); got != number(of.Account) {
		return nil, invalid("the worker's credentials are those of account %s, test clusters are made in account %s; check aws.assume_role and e2e.accounts", got, number(of.Account))
	}
	return &account{
		Account: of, settings: s.Accounts.Settings, zones: s.Settings.Sweep.HostedZones, who: who,
		bucket:  strings.NewReplacer("{account}", number(of.Account), "{region}", of.Region).Replace(s.Accounts.Settings.Bucket),
		scaling: autoscaling.NewFromConfig(access), ec2: ec2.NewFromConfig(access), formation: cloudformation.NewFromConfig(access),
		classic: elasticloadbalancing.NewFromConfig(access), balancing: elasticloadbalancingv2.NewFromConfig(access),
		dns: route53.NewFromConfig(access), s3: s3.NewFromConfig(access),
	}, nil
}

// things are all that there are in the account that could be a test's. What goes with its stack or group is not
// among them.
func (a *account) things(ctx context.Context, owners e2e.Owners) ([]e2e.Thing, error) {
	var all []e2e.Thing
	stacks, groups, clusters := map[string]bool{}, map[string]bool{}, map[string]bool{}
	for _, lease := range owners.Leases {
		clusters[lease.Cluster.ID] = true
	}
	for _, look := range []func(context.Context) ([]e2e.Thing, error){
		a.stacks, a.groups, a.balancers, a.targetGroups, a.instances, a.volumes, a.securityGroups, a.objects,
	} {
		things, err := look(ctx)
		if err != nil {
			return nil, err
		}
		for _, t := range things {
			switch t.Kind {
			case nested:
				stacks[t.ID] = true
				continue
			case "pool-stack", "stack":
				stacks[t.ID] = true
			case "group":
				groups[t.ID] = true
			}
			if stacks[t.Tags[stackTag]] || groups[t.Tags[groupTag]] {
				continue
			}
			if id := owners.Of(t); id != "" {
				clusters[id] = true
				all = append(all, t)
			}
		}
	}
	records, err := a.records(ctx, clusters)
	return append(all, records...), err
}

// of are all things of a kind, for another look at one of them.
func (a *account) of(ctx context.Context, kind, cluster string) ([]e2e.Thing, error) {
	looks := map[string]func(context.Context) ([]e2e.Thing, error){
		"pool-stack": a.stacks, "stack": a.stacks, "group": a.groups, "load-balancer": a.balancers, "target-group": a.targetGroups,
		"instance": a.instances, "volume": a.volumes, "security-group": a.securityGroups, "objects": a.objects,
		"record": func(ctx context.Context) ([]e2e.Thing, error) { return a.records(ctx, map[string]bool{cluster: true}) },
	}
	look, known := looks[kind]
	if !known {
		return nil, invalid("no sweep finds things of the kind %q", kind)
	}
	return look(ctx)
}

func (a *account) explain(doing string, err error) error {
	return aws.Explain(a.who, doing+" in account "+a.Account.Account, err)
}

// tagMap makes a map of the tags of some service.
func tagMap[T any](list []T, pair func(T) (key, value *string)) map[string]string {
	tags := map[string]string{}
	for _, tag := range list {
		key, value := pair(tag)
		tags[awssdk.ToString(key)] = awssdk.ToString(value)
	}
	return tags
}

func ec2Tags(list []ec2types.Tag) map[string]string {
	return tagMap(list, func(t ec2types.Tag) (*string, *string) { return t.Key, t.Value })
}

// nested is the kind of stacks that are their parents' business, and what they are made of with them.
const nested = "nested-stack"

// stacks are those of clusters and of pools, and nested ones.
func (a *account) stacks(ctx context.Context) (things []e2e.Thing, err error) {
	pages := cloudformation.NewDescribeStacksPaginator(a.formation, &cloudformation.DescribeStacksInput{})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, a.explain("listing stacks", err)
		}
		for _, stack := range page.Stacks {
			if stack.StackStatus == cftypes.StackStatusDeleteComplete {
				continue
			}
			tags := tagMap(stack.Tags, func(t cftypes.Tag) (*string, *string) { return t.Key, t.Value })
			kind := "stack"
			if tags[a.settings.PoolTag] != "" {
				kind = "pool-stack"
			}
			if stack.ParentId != nil {
				kind = nested
			}
			things = append(things, e2e.Thing{Account: a.Account, Kind: kind, ID: awssdk.ToString(stack.StackName), Tags: tags, Made: awssdk.ToTime(stack.CreationTime)})
		}
	}
	return things, nil
}

func (a *account) groups(ctx context.Context) (things []e2e.Thing, err error) {
	pages := autoscaling.NewDescribeAutoScalingGroupsPaginator(a.scaling, &autoscaling.DescribeAutoScalingGroupsInput{})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, a.explain("listing Auto Scaling groups", err)
		}
		for _, group := range page.AutoScalingGroups {
			tags := map[string]string{}
			for _, tag := range group.Tags {
				tags[awssdk.ToString(tag.Key)] = awssdk.ToString(tag.Value)
			}
			things = append(things, e2e.Thing{Account: a.Account, Kind: "group", ID: awssdk.ToString(group.AutoScalingGroupName), Tags: tags, Made: awssdk.ToTime(group.CreatedTime)})
		}
	}
	return things, nil
}

// maxDescribed is of how many load balancers or target groups AWS tells the tags at a time.
const maxDescribed = 20

// balancers are classic ones, by their names, and the others, by their ARNs.
func (a *account) balancers(ctx context.Context) (things []e2e.Thing, err error) {
	made := map[string]time.Time{}
	classic := elasticloadbalancing.NewDescribeLoadBalancersPaginator(a.classic, &elasticloadbalancing.DescribeLoadBalancersInput{})
	for classic.HasMorePages() {
		page, err := classic.NextPage(ctx)
		if err != nil {
			return nil, a.explain("listing classic load balancers", err)
		}
		for _, balancer := range page.LoadBalancerDescriptions {
			made[awssdk.ToString(balancer.LoadBalancerName)] = awssdk.ToTime(balancer.CreatedTime)
		}
	}
	for names := range slices.Chunk(slices.Sorted(maps.Keys(made)), maxDescribed) {
		out, err := a.classic.DescribeTags(ctx, &elasticloadbalancing.DescribeTagsInput{LoadBalancerNames: names})
		if err != nil {
			return nil, a.explain("reading tags of classic load balancers", err)
		}
		for _, balancer := range out.TagDescriptions {
			tags := map[string]string{}
			for _, tag := range balancer.Tags {
				tags[awssdk.ToString(tag.Key)] = awssdk.ToString(tag.Value)
			}
			name := awssdk.ToString(balancer.LoadBalancerName)
			things = append(things, e2e.Thing{Account: a.Account, Kind: "load-balancer", ID: name, Tags: tags, Made: made[name]})
		}
	}
	made = map[string]time.Time{}
	pages := elasticloadbalancingv2.NewDescribeLoadBalancersPaginator(a.balancing, &elasticloadbalancingv2.DescribeLoadBalancersInput{})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, a.explain("listing load balancers", err)
		}
		for _, balancer := range page.LoadBalancers {
			made[awssdk.ToString(balancer.LoadBalancerArn)] = awssdk.ToTime(balancer.CreatedTime)
		}
	}
	more, err := a.balancing2(ctx, "load-balancer", made)
	return append(things, more...), err
}

func (a *account) targetGroups(ctx context.Context) ([]e2e.Thing, error) {
	made := map[string]time.Time{} // AWS does not say when
	pages := elasticloadbalancingv2.NewDescribeTargetGroupsPaginator(a.balancing, &elasticloadbalancingv2.DescribeTargetGroupsInput{})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, a.explain("listing target groups", err)
		}
		for _, group := range page.TargetGroups {
			made[awssdk.ToString(group.TargetGroupArn)] = time.Time{}
		}
	}
	return a.balancing2(ctx, "target-group", made)
}

// balancing2 reads the tags of load balancers or target groups.
func (a *account) balancing2(ctx context.Context, kind string, made map[string]time.Time) (things []e2e.Thing, err error) {
	for arns := range slices.Chunk(slices.Sorted(maps.Keys(made)), maxDescribed) {
		out, err := a.balancing.DescribeTags(ctx, &elasticloadbalancingv2.DescribeTagsInput{ResourceArns: arns})
		if err != nil { // also of one that was deleted since: another attempt looks again
			return nil, a.explain("reading tags of things of the kind "+kind, err)
		}
		for _, described := range out.TagDescriptions {
			tags := map[string]string{}
			for _, tag := range described.Tags {
				tags[awssdk.ToString(tag.Key)] = awssdk.ToString(tag.Value)
			}
			arn := awssdk.ToString(described.ResourceArn)
			things = append(things, e2e.Thing{Account: a.Account, Kind: kind, ID: arn, Tags: tags, Made: made[arn]})
		}
	}
	return things, nil
}

func (a *account) instances(ctx context.Context) (things []e2e.Thing, err error) {
	pages := ec2.NewDescribeInstancesPaginator(a.ec2, &ec2.DescribeInstancesInput{})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, a.explain("listing instances", err)
		}
		for _, reservation := range page.Reservations {
			for _, instance := range reservation.Instances {
				if instance.State == nil || instance.State.Name == ec2types.InstanceStateNameTerminated {
					continue
				}
				things = append(things, e2e.Thing{Account: a.Account, Kind: "instance", ID: awssdk.ToString(instance.InstanceId), Tags: ec2Tags(instance.Tags), Made: awssdk.ToTime(instance.LaunchTime)})
			}
		}
	}
	return things, nil
}

func (a *account) volumes(ctx context.Context) (things []e2e.Thing, err error) {
	pages := ec2.NewDescribeVolumesPaginator(a.ec2, &ec2.DescribeVolumesInput{})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, a.explain("listing volumes", err)
		}
		for _, volume := range page.Volumes {
			if volume.State == ec2types.VolumeStateDeleted {
				continue
			}
			things = append(things, e2e.Thing{
				Account: a.Account, Kind: "volume", ID: awssdk.ToString(volume.VolumeId), Tags: ec2Tags(volume.Tags), Made: awssdk.ToTime(volume.CreateTime),
				InUse: volume.State != ec2types.VolumeStateAvailable && volume.State != ec2types.VolumeStateError,
			})
		}
	}
	return things, nil
}

func (a *account) securityGroups(ctx context.Context) (things []e2e.Thing, err error) {
	groups, err := a.allSecurityGroups(ctx)
	for _, group := range groups {
		if awssdk.ToString(group.GroupName) != "default" { // which goes with its VPC
			things = append(things, e2e.Thing{Account: a.Account, Kind: "security-group", ID: awssdk.ToString(group.GroupId), Tags: ec2Tags(group.Tags)})
		}
	}
	return things, err
}

func (a *account) allSecurityGroups(ctx context.Context) (groups []ec2types.SecurityGroup, err error) {
	pages := ec2.NewDescribeSecurityGroupsPaginator(a.ec2, &ec2.DescribeSecurityGroupsInput{})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, a.explain("listing security groups", err)
		}
		groups = append(groups, page.SecurityGroups...)
	}
	return groups, nil
}

// objects are the prefixes under which the bucket keeps what belongs to a cluster. Results of tests are not
// among them.
func (a *account) objects(ctx context.Context) (things []e2e.Thing, err error) {
	if !a.once.first("bucket " + a.bucket) {
		return nil, nil
	}
	for _, folder := range []string{"entries/", "templates/"} {
		pages := s3.NewListObjectsV2Paginator(a.s3, &s3.ListObjectsV2Input{
			Bucket: &a.bucket, Prefix: awssdk.String(folder + e2e.Prefix), Delimiter: awssdk.String("/"), ExpectedBucketOwner: awssdk.String(number(a.Account.Account)),
		})
		// With a delimiter S3 groups all after the prefix: folder/<cluster>/.
		for pages.HasMorePages() {
			page, err := pages.NextPage(ctx)
			if aws.HasCode(err, "NoSuchBucket") {
				return nil, nil
			}
			if err != nil {
				return nil, a.explain("listing s3://"+a.bucket+"/"+folder, err)
			}
			for _, found := range page.CommonPrefixes {
				prefix := awssdk.ToString(found.Prefix)
				newest, err := a.newest(ctx, prefix)
				if err != nil {
					return nil, err
				}
				cluster := strings.TrimSuffix(strings.TrimPrefix(prefix, folder), "/")
				things = append(things, e2e.Thing{Account: a.Account, Kind: "objects", ID: prefix, Named: cluster, Made: newest})
			}
		}
	}
	return things, nil
}

// newest is when the newest object under a prefix was written.
func (a *account) newest(ctx context.Context, prefix string) (newest time.Time, err error) {
	pages := s3.NewListObjectsV2Paginator(a.s3, &s3.ListObjectsV2Input{Bucket: &a.bucket, Prefix: &prefix, ExpectedBucketOwner: awssdk.String(number(a.Account.Account))})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return newest, a.explain("listing s3://"+a.bucket+"/"+prefix, err)
		}
		for _, object := range page.Contents {
			if made := awssdk.ToTime(object.LastModified); made.After(newest) {
				newest = made
			}
		}
	}
	return newest, nil
}

// records are those whose names have the id of one of the clusters as a label.
func (a *account) records(ctx context.Context, clusters map[string]bool) (things []e2e.Thing, err error) {
	if !a.once.first("zones " + a.Account.Account) {
		return nil, nil
	}
	err = a.eachRecord(ctx, func(zone string, set r53types.ResourceRecordSet) {
		if cluster := e2e.InName(awssdk.ToString(set.Name), clusters); cluster != "" {
			things = append(things, e2e.Thing{Account: a.Account, Kind: "record", ID: recordID(zone, set), Named: cluster})
		}
	})
	return things, err
}

// eachRecord goes over the addresses, aliases and texts of the configured zones that are in the account.
func (a *account) eachRecord(ctx context.Context, see func(zone string, set r53types.ResourceRecordSet)) error {
	for _, zone := range a.zones {
		pages := route53.NewListResourceRecordSetsPaginator(a.dns, &route53.ListResourceRecordSetsInput{HostedZoneId: &zone})
		for pages.HasMorePages() {
			page, err := pages.NextPage(ctx)
			if aws.HasCode(err, "NoSuchHostedZone") {
				break
			}
			if err != nil {
				return a.explain("listing records of hosted zone "+zone, err)
			}
			if a.once != nil {
				a.once["found "+zone] = true
			}
			for _, set := range page.ResourceRecordSets {
				switch set.Type {
				case r53types.RRTypeA, r53types.RRTypeAaaa, r53types.RRTypeCname, r53types.RRTypeTxt:
					see(zone, set)
				}
			}
		}
	}
	return nil
}

func recordID(zone string, set r53types.ResourceRecordSet) string {
	id := zone + "/" + string(set.Type) + "/" + awssdk.ToString(set.Name)
	if set.SetIdentifier != nil {
		id += "/" + *set.SetIdentifier
	}
	return id
}
