package sweep_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling"
	astypes "github.com/aws/aws-sdk-go-v2/service/autoscaling/types"
	"github.com/aws/aws-sdk-go-v2/service/cloudformation"
	cftypes "github.com/aws/aws-sdk-go-v2/service/cloudformation/types"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/elasticloadbalancing"
	elbtypes "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancing/types"
	"github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	elbv2types "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2/types"
	"github.com/aws/aws-sdk-go-v2/service/route53"
	r53types "github.com/aws/aws-sdk-go-v2/service/route53/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	s3types "github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/stretchr/testify/require"

	"github.com/fairway-project/fairway/e2e"
)

// clients reach the account as people do.
type clients struct {
	scaling   *autoscaling.Client
	ec2       *ec2.Client
	formation *cloudformation.Client
	classic   *elasticloadbalancing.Client
	balancing *elasticloadbalancingv2.Client
	dns       *route53.Client
	s3        *s3.Client
}

func newClients(access awssdk.Config) clients {
	return clients{
		autoscaling.NewFromConfig(access), ec2.NewFromConfig(access), cloudformation.NewFromConfig(access), elasticloadbalancing.NewFromConfig(access),
		elasticloadbalancingv2.NewFromConfig(access), route53.NewFromConfig(access), s3.NewFromConfig(access, func(o *s3.Options) { o.UsePathStyle = true }),
	}
}

type network struct{ vpc, subnet string }

func (w *world) findNetwork() network {
	w.Helper()
	subnets, err := w.clients.ec2.DescribeSubnets(w.Context(), &ec2.DescribeSubnetsInput{Filters: []ec2types.Filter{{Name: awssdk.String("tag:fairway.dev/network"), Values: []string{"fleet"}}}})
	require.NoError(w, err)
	return network{*subnets.Subnets[0].VpcId, *subnets.Subnets[0].SubnetId}
}

// tagsFor are those of what is made for a test.
func tagsFor(cluster string) map[string]string {
	return map[string]string{
		e2e.LeaseTag: cluster, e2e.OwnerTag: "alice", e2e.CostTag: "e2e/1", e2e.ExpiresTag: time.Now().Add(24 * time.Hour).UTC().Format(time.RFC3339),
		"kubernetes.io/cluster/" + cluster: "owned",
	}
}

// seedCluster makes all that a test can leave: what its stacks are, what they once were, and what Kubernetes has made.
func (w *world) seedCluster(cluster, zone string) {
	w.Helper()
	tags, made := tagsFor(cluster), map[string]string{"kubernetes.io/cluster/" + cluster: "owned"}
	w.stack("etcd-"+cluster, cluster, nil, bucketTemplate("etcd-"+cluster))
	w.stack(cluster, cluster, nil, bucketTemplate("files-"+cluster))
	w.putIn("files-" + cluster)
	w.stack("nodepool-worker-"+cluster, cluster, map[string]string{"node.kubernetes.io/node-pool": "worker"}, w.poolTemplate("worker-"+cluster))
	w.group("group-"+cluster, tags)
	w.instance(tags)
	w.balancers("b-"+cluster, made, map[string]string{"elbv2.k8s.aws/cluster": cluster})
	w.volume(made)
	balancer, nodes := w.securityGroup("balancer-"+cluster, map[string]string{"elbv2.k8s.aws/cluster": cluster}), w.securityGroup("nodes-"+cluster, made)
	_, err := w.clients.ec2.AuthorizeSecurityGroupIngress(w.Context(), &ec2.AuthorizeSecurityGroupIngressInput{GroupId: &nodes, IpPermissions: []ec2types.IpPermission{{
		IpProtocol: awssdk.String("tcp"), FromPort: awssdk.Int32(80), ToPort: awssdk.Int32(80), UserIdGroupPairs: []ec2types.UserIdGroupPair{{GroupId: &balancer}},
	}}})
	require.NoError(w, err)
	w.record(zone, "A", "api."+cluster+".example.org.", "192.0.2.1")
	w.record(zone, "CNAME", "app."+cluster+".example.org.", "balancer.example.net.")
	w.record(zone, "TXT", "app-owner."+cluster+".example.org.", `"heritage=external-dns"`)
	w.object("entries/" + cluster + "/1.json")
	w.object("templates/" + cluster + "/" + cluster + "/1")
}

// seedLookAlikes makes what looks like a test's and is none's: by its name, by another tag, and real clusters' things.
func (w *world) seedLookAlikes(zone string) {
	w.Helper()
	for n, tags := range []map[string]string{
		{},
		{"example.org/lease": gone, "Name": gone},
		{"fairway.dev/lease-of": gone, e2e.CostTag: "e2e/1", e2e.ExpiresTag: "2020-01-01T00:00:00Z"},
		{"kubernetes.io/cluster/dev-1": "owned"},
		{"kubernetes.io/cluster/" + gone: "shared"},
		{"kubernetes.io/cluster/e2e-registered": "owned", e2e.ExpiresTag: "2020-01-01T00:00:00Z"},
		{e2e.LeaseTag: gone, "kubernetes.io/cluster/dev-1": "owned"},
		{e2e.LeaseTag: "dev-1"},
	} {
		name := fmt.Sprintf("%s-%d", gone, n)
		w.stackWith(name, tags, bucketTemplate("like-"+name))
		w.putIn("like-" + name)
		w.group(name, tags)
		w.instance(tags)
		w.balancers(name, tags, tags)
		w.volume(tags)
		w.securityGroup(name, tags)
	}
	w.record(zone, "A", "docs-"+gone+".example.org.", "192.0.2.9")
	w.record(zone, "A", "e2e-docs.example.org.", "192.0.2.9")
	w.record(zone, "A", "api.dev-1.example.org.", "192.0.2.9")
	w.record(zone, "MX", gone+".example.org.", "10 mail.example.org.")
	for _, key := range []string{"entries/dev-1/1.json", "entries/e2e-registered/1.json", "templates/dev-1/dev-1/1", "entries/" + gone, gone + "/1.json", "e2e/" + gone + "/1.json"} {
		w.object(key)
	}
}

func pairs[T any](tags map[string]string, pair func(key, value string) T) (list []T) {
	for _, key := range slices.Sorted(maps.Keys(tags)) {
		list = append(list, pair(key, tags[key]))
	}
	return list
}

func ec2Tags(of ec2types.ResourceType, tags map[string]string) []ec2types.TagSpecification {
	if len(tags) == 0 {
		return nil
	}
	return []ec2types.TagSpecification{{ResourceType: of, Tags: pairs(tags, func(k, v string) ec2types.Tag { return ec2types.Tag{Key: &k, Value: &v} })}}
}

func bucketTemplate(name string) string {
	return fmt.Sprintf(`{"Resources": {"Files": {"Type": "AWS::S3::Bucket", "Properties": {"BucketName": %q}}}}`, name)
}

func (w *world) poolTemplate(name string) string {
	return fmt.Sprintf(`
Resources:
  Group:
    Type: AWS::AutoScaling::AutoScalingGroup
    Properties:
      AutoScalingGroupName: %[1]s
      MinSize: "1"
      MaxSize: "1"
      VPCZoneIdentifier: [%[2]s]
      LaunchTemplate: {LaunchTemplateId: !Ref Template, Version: !GetAtt Template.LatestVersionNumber}
  Template:
    Type: AWS::EC2::LaunchTemplate
    Properties:
      LaunchTemplateName: %[1]s
      LaunchTemplateData: {ImageId: ami-1, InstanceType: m5.large}
`, name, w.network.subnet)
}

// stack makes a stack of a test, protected from deletion.
func (w *world) stack(name, cluster string, more map[string]string, template string) {
	w.Helper()
	tags := map[string]string{"kubernetes.io/cluster/" + cluster: "owned"}
	if strings.HasPrefix(cluster, e2e.Prefix) {
		tags = tagsFor(cluster)
	}
	maps.Copy(tags, more)
	w.stackWith(name, tags, template)
}

func (w *world) stackWith(name string, tags map[string]string, template string) {
	w.Helper()
	_, err := w.clients.formation.CreateStack(w.Context(), &cloudformation.CreateStackInput{
		StackName: &name, TemplateBody: &template, EnableTerminationProtection: awssdk.Bool(true),
		Tags: pairs(tags, func(k, v string) cftypes.Tag { return cftypes.Tag{Key: &k, Value: &v} }),
	})
	require.NoError(w, err)
	require.Eventually(w, func() bool { return w.describe(name).StackStatus == cftypes.StackStatusCreateComplete }, time.Minute, 50*time.Millisecond)
}

// describe is the stack of a name; nil if there is none.
func (w *world) describe(name string) *cftypes.Stack {
	w.Helper()
	out, err := w.clients.formation.DescribeStacks(w.Context(), &cloudformation.DescribeStacksInput{StackName: &name})
	if err != nil {
		require.ErrorContains(w, err, "does not exist")
		return nil
	}
	return &out.Stacks[0]
}

func (w *world) putIn(bucket string) {
	w.Helper()
	_, err := w.clients.s3.PutObject(w.Context(), &s3.PutObjectInput{Bucket: &bucket, Key: awssdk.String("key"), Body: strings.NewReader("content")})
	require.NoError(w, err)
}

// object puts something in the bucket of the account.
func (w *world) object(key string) {
	w.Helper()
	_, _ = w.clients.s3.CreateBucket(w.Context(), &s3.CreateBucketInput{Bucket: awssdk.String(bucket), CreateBucketConfiguration: &s3types.CreateBucketConfiguration{LocationConstraint: "eu-central-1"}})
	_, err := w.clients.s3.PutObject(w.Context(), &s3.PutObjectInput{Bucket: awssdk.String(bucket), Key: &key, Body: strings.NewReader("content")})
	require.NoError(w, err)
}

func (w *world) group(name string, tags map[string]string) {
	w.Helper()
	_, err := w.clients.ec2.CreateLaunchTemplate(w.Context(), &ec2.CreateLaunchTemplateInput{
		LaunchTemplateName: &name, LaunchTemplateData: &ec2types.RequestLaunchTemplateData{ImageId: awssdk.String("ami-1"), InstanceType: "m5.large"},
	})
	require.NoError(w, err)
	_, err = w.clients.scaling.CreateAutoScalingGroup(w.Context(), &autoscaling.CreateAutoScalingGroupInput{
		AutoScalingGroupName: &name, MinSize: awssdk.Int32(1), MaxSize: awssdk.Int32(1), VPCZoneIdentifier: &w.network.subnet,
		LaunchTemplate: &astypes.LaunchTemplateSpecification{LaunchTemplateName: &name, Version: awssdk.String("$Latest")},
		Tags: pairs(tags, func(k, v string) astypes.Tag {
			return astypes.Tag{ResourceId: &name, ResourceType: awssdk.String("auto-scaling-group"), Key: &k, Value: &v, PropagateAtLaunch: awssdk.Bool(true)}
		}),
	})
	require.NoError(w, err)
	require.Eventually(w, func() bool {
		out, err := w.clients.scaling.DescribeAutoScalingGroups(w.Context(), &autoscaling.DescribeAutoScalingGroupsInput{AutoScalingGroupNames: []string{name}})
		return err == nil && len(out.AutoScalingGroups[0].Instances) == 1 && out.AutoScalingGroups[0].Instances[0].LifecycleState == astypes.LifecycleStateInService
	}, time.Minute, 50*time.Millisecond)
}

func (w *world) instance(tags map[string]string) {
	w.Helper()
	_, err := w.clients.ec2.RunInstances(w.Context(), &ec2.RunInstancesInput{
		ImageId: awssdk.String("ami-1"), InstanceType: "m5.large", MinCount: awssdk.Int32(1), MaxCount: awssdk.Int32(1), SubnetId: &w.network.subnet,
		TagSpecifications: ec2Tags(ec2types.ResourceTypeInstance, tags),
	})
	require.NoError(w, err)
}

// balancers makes a classic load balancer, and another one with a target group.
func (w *world) balancers(name string, tags, groupTags map[string]string) {
	w.Helper()
	_, err := w.clients.classic.CreateLoadBalancer(w.Context(), &elasticloadbalancing.CreateLoadBalancerInput{
		LoadBalancerName: &name, Subnets: []string{w.network.subnet},
		Listeners: []elbtypes.Listener{{InstancePort: awssdk.Int32(80), LoadBalancerPort: 80, Protocol: awssdk.String("tcp")}},
		Tags:      pairs(tags, func(k, v string) elbtypes.Tag { return elbtypes.Tag{Key: &k, Value: &v} }),
	})
	require.NoError(w, err)
	v2 := func(k, v string) elbv2types.Tag { return elbv2types.Tag{Key: &k, Value: &v} }
	balancer, err := w.clients.balancing.CreateLoadBalancer(w.Context(), &elasticloadbalancingv2.CreateLoadBalancerInput{
		Name: &name, Subnets: []string{w.network.subnet}, Type: elbv2types.LoadBalancerTypeEnumNetwork, Tags: pairs(tags, v2),
	})
	require.NoError(w, err)
	group, err := w.clients.balancing.CreateTargetGroup(w.Context(), &elasticloadbalancingv2.CreateTargetGroupInput{
		Name: &name, Port: awssdk.Int32(80), Protocol: elbv2types.ProtocolEnumTcp, VpcId: &w.network.vpc, Tags: pairs(groupTags, v2),
	})
	require.NoError(w, err)
	_, err = w.clients.balancing.CreateListener(w.Context(), &elasticloadbalancingv2.CreateListenerInput{
		LoadBalancerArn: balancer.LoadBalancers[0].LoadBalancerArn, Port: awssdk.Int32(80), Protocol: elbv2types.ProtocolEnumTcp,
		DefaultActions: []elbv2types.Action{{Type: elbv2types.ActionTypeEnumForward, TargetGroupArn: group.TargetGroups[0].TargetGroupArn}},
	})
	require.NoError(w, err)
}

func (w *world) volume(tags map[string]string) string {
	w.Helper()
	out, err := w.clients.ec2.CreateVolume(w.Context(), &ec2.CreateVolumeInput{
		AvailabilityZone: awssdk.String("eu-central-1a"), Size: awssdk.Int32(1), TagSpecifications: ec2Tags(ec2types.ResourceTypeVolume, tags),
	})
	require.NoError(w, err)
	return *out.VolumeId
}

func (w *world) volumeStays(id string) {
	w.Helper()
	out, err := w.clients.ec2.DescribeVolumes(w.Context(), &ec2.DescribeVolumesInput{VolumeIds: []string{id}})
	require.NoError(w, err)
	require.Len(w, out.Volumes, 1)
}

func (w *world) securityGroup(name string, tags map[string]string) string {
	w.Helper()
	name = "group of " + name // whose names may not begin with sg-
	out, err := w.clients.ec2.CreateSecurityGroup(w.Context(), &ec2.CreateSecurityGroupInput{
		GroupName: &name, Description: &name, VpcId: &w.network.vpc, TagSpecifications: ec2Tags(ec2types.ResourceTypeSecurityGroup, tags),
	})
	require.NoError(w, err)
	return *out.GroupId
}

// zone makes a hosted zone.
func (w *world) zone() string {
	w.Helper()
	out, err := w.clients.dns.CreateHostedZone(w.Context(), &route53.CreateHostedZoneInput{Name: awssdk.String("example.org."), CallerReference: awssdk.String(w.Name())})
	require.NoError(w, err)
	return strings.TrimPrefix(*out.HostedZone.Id, "/hostedzone/")
}

func (w *world) record(zone, kind, name, value string) {
	w.Helper()
	_, err := w.clients.dns.ChangeResourceRecordSets(w.Context(), &route53.ChangeResourceRecordSetsInput{HostedZoneId: &zone, ChangeBatch: &r53types.ChangeBatch{
		Changes: []r53types.Change{{Action: r53types.ChangeActionCreate, ResourceRecordSet: &r53types.ResourceRecordSet{
			Name: &name, Type: r53types.RRType(kind), TTL: awssdk.Int64(60), ResourceRecords: []r53types.ResourceRecord{{Value: &value}},
		}}},
	}})
	require.NoError(w, err)
}

// everything is all that there is in the account, by kind and name.
func (w *world) everything(zone string) map[string]bool {
	w.Helper()
	all := map[string]bool{}
	add := func(kind string, name *string) { all[kind+" "+awssdk.ToString(name)] = true }
	stacks, err := w.clients.formation.DescribeStacks(w.Context(), nil)
	require.NoError(w, err)
	for _, s := range stacks.Stacks {
		if s.StackStatus != cftypes.StackStatusDeleteComplete {
			add("stack", s.StackName)
		}
	}
	groups, err := w.clients.scaling.DescribeAutoScalingGroups(w.Context(), nil)
	require.NoError(w, err)
	for _, g := range groups.AutoScalingGroups {
		add("group", g.AutoScalingGroupName)
	}
	instances, err := w.clients.ec2.DescribeInstances(w.Context(), nil)
	require.NoError(w, err)
	for _, r := range instances.Reservations {
		for _, i := range r.Instances {
			if i.State.Name != ec2types.InstanceStateNameTerminated {
				add("instance", i.InstanceId)
			}
		}
	}
	volumes, err := w.clients.ec2.DescribeVolumes(w.Context(), nil)
	require.NoError(w, err)
	for _, v := range volumes.Volumes {
		add("volume", v.VolumeId)
	}
	security, err := w.clients.ec2.DescribeSecurityGroups(w.Context(), nil)
	require.NoError(w, err)
	for _, g := range security.SecurityGroups {
		if strings.HasPrefix(*g.GroupName, "default_elb_") { // AWS makes it with the first classic load balancer of a VPC
			continue
		}
		add("security-group", g.GroupId)
	}
	classic, err := w.clients.classic.DescribeLoadBalancers(w.Context(), nil)
	require.NoError(w, err)
	for _, b := range classic.LoadBalancerDescriptions {
		add("classic", b.LoadBalancerName)
	}
	balancers, err := w.clients.balancing.DescribeLoadBalancers(w.Context(), nil)
	require.NoError(w, err)
	for _, b := range balancers.LoadBalancers {
		add("balancer", b.LoadBalancerArn)
	}
	targets, err := w.clients.balancing.DescribeTargetGroups(w.Context(), nil)
	require.NoError(w, err)
	for _, g := range targets.TargetGroups {
		add("target-group", g.TargetGroupArn)
	}
	buckets, err := w.clients.s3.ListBuckets(w.Context(), nil)
	require.NoError(w, err)
	for _, b := range buckets.Buckets {
		add("bucket", b.Name)
		objects, err := w.clients.s3.ListObjectsV2(w.Context(), &s3.ListObjectsV2Input{Bucket: b.Name})
		require.NoError(w, err)
		for _, o := range objects.Contents {
			if *b.Name == bucket {
				add("s3", o.Key)
			} else {
				all["object "+*b.Name+"/"+*o.Key] = true
			}
		}
	}
	if zone != "" {
		records, err := w.clients.dns.ListResourceRecordSets(w.Context(), &route53.ListResourceRecordSetsInput{HostedZoneId: &zone})
		require.NoError(w, err)
		for _, r := range records.ResourceRecordSets {
			add("record "+string(r.Type), r.Name)
		}
	}
	return all
}
