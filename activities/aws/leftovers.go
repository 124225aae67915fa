package aws

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/elasticloadbalancing"
	"github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	"go.temporal.io/sdk/temporal"

	"github.com/fairway-project/fairway/registry"
	"github.com/fairway-project/fairway/workflows"
)

// Tags by which those that make things in a cluster's name tell them.
const (
	stackNameTag    = "aws:cloudformation:stack-name"
	controllerTag   = "elbv2.k8s.aws/cluster"              // of the AWS Load Balancer Controller; its value is the cluster
	createdForClaim = "kubernetes.io/created-for/pvc/name" // of every provisioner of volumes
	createdByDriver = "ebs.csi.aws.com/cluster"            // of the EBS CSI driver
)

// leftovers are what Kubernetes has made in the account of a cluster.
type leftovers struct {
	*Stacks
	cluster registry.Cluster
	account *account
	deleted []string
}

// DeleteLeftovers implements workflows.Stacks. It deletes load balancers and target groups, then
// security groups, then volumes. Only what carries the cluster's tag, or that of the AWS Load Balancer
// Controller, is deleted; of the volumes those that were made for a claim; nothing of a stack or of
// another cluster. InvalidInput if the registry does not say that the cluster is to go. It looks at
// blocks before each deletion.
func (s *Stacks) DeleteLeftovers(ctx context.Context, in workflows.StacksOf) ([]string, error) {
	cluster, account, err := s.Accounts.get(ctx, in.Cluster)
	if err != nil {
		return nil, err
	}
	if cluster.LifecycleStatus != registry.DecommissionRequested && cluster.LifecycleStatus != registry.Decommissioned {
		return nil, temporal.NewNonRetryableApplicationError(
			fmt.Sprintf("cluster %s: its lifecycle_status is %s; volumes and load balancers are deleted only of a cluster for which the registry says %s",
				cluster.ID, cluster.LifecycleStatus, registry.DecommissionRequested), workflows.InvalidInput, nil)
	}
	l := &leftovers{Stacks: s, cluster: cluster, account: account, deleted: []string{}}
	for _, sweep := range []func(context.Context) ([]string, error){
		l.classicBalancers, l.balancers, l.targetGroups, l.securityGroups, l.volumes,
	} {
		if err := poll(ctx, s.Settings.PollInterval, workflows.StackProgress{Status: "looking for what Kubernetes has made"},
			func() (workflows.StackProgress, bool, error) {
				left, err := sweep(ctx)
				return workflows.StackProgress{Status: "deleting what Kubernetes has made", Event: short(strings.Join(left, ", "))}, len(left) == 0, err
			}); err != nil {
			return nil, err
		}
	}
	return l.deleted, nil
}

// made says whether Kubernetes has made something with these tags for the cluster.
func (l *leftovers) made(tags map[string]string) bool {
	_, stacked := tags[stackNameTag]
	ours := tags[l.clusterTag(l.cluster)] == owned || tags[controllerTag] == l.cluster.ID
	if other, named := tags[controllerTag]; named && other != l.cluster.ID {
		return false
	}
	return ours && !stacked && l.otherCluster(l.cluster, tags) == ""
}

// delete deletes something, if nobody has blocked that. What is gone already is success; what is still
// in use is left for the next look.
func (l *leftovers) delete(ctx context.Context, what string, remove func() error, gone ...string) error {
	if err := l.Blocks.Check(ctx, l.cluster.ID, ""); err != nil {
		return err
	}
	err := remove()
	switch {
	case hasCode(err, gone...), hasCode(err, "DependencyViolation", "ResourceInUse", "VolumeInUse", "InvalidGroup.InUse"):
		return nil
	case hasCode(err, "OperationNotPermitted"):
		return temporal.NewNonRetryableApplicationError(
			fmt.Sprintf("cluster %s: %s cannot be deleted: AWS says: %s; switch its deletion protection off", l.cluster.ID, what, answer(err)), workflows.StackFailed, nil)
	case err != nil:
		return explain(l.cluster, "deleting "+what, err)
	}
	if !slices.Contains(l.deleted, what) {
		l.deleted = append(l.deleted, what)
	}
	return nil
}

// ---- load balancers

// maxDescribed is of how many load balancers or target groups AWS tells the tags at a time.
const maxDescribed = 20

func (l *leftovers) classicBalancers(ctx context.Context) ([]string, error) {
	var names []string
	pages := elasticloadbalancing.NewDescribeLoadBalancersPaginator(l.account.balancing, &elasticloadbalancing.DescribeLoadBalancersInput{})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, explain(l.cluster, "listing classic load balancers", err)
		}
		for _, balancer := range page.LoadBalancerDescriptions {
			names = append(names, aws.ToString(balancer.LoadBalancerName))
		}
	}
	var left []string
	for some := range slices.Chunk(names, maxDescribed) {
		out, err := l.account.balancing.DescribeTags(ctx, &elasticloadbalancing.DescribeTagsInput{LoadBalancerNames: some})
		if hasCode(err, "LoadBalancerNotFound") { // deleted since by somebody: look again
			return []string{"classic load balancers"}, nil
		}
		if err != nil {
			return nil, explain(l.cluster, "reading tags of classic load balancers", err)
		}
		for _, balancer := range out.TagDescriptions {
			tags := map[string]string{}
			for _, tag := range balancer.Tags {
				tags[aws.ToString(tag.Key)] = aws.ToString(tag.Value)
			}
			if !l.made(tags) {
				continue
			}
			what := "load balancer " + aws.ToString(balancer.LoadBalancerName)
			left = append(left, what)
			if err := l.delete(ctx, what, func() error {
				_, err := l.account.balancing.DeleteLoadBalancer(ctx, &elasticloadbalancing.DeleteLoadBalancerInput{LoadBalancerName: balancer.LoadBalancerName})
				return err
			}, "LoadBalancerNotFound"); err != nil {
				return nil, err
			}
		}
	}
	return left, nil
}

func (l *leftovers) balancers(ctx context.Context) ([]string, error) {
	var arns []string
	pages := elasticloadbalancingv2.NewDescribeLoadBalancersPaginator(l.account.balancingV2, &elasticloadbalancingv2.DescribeLoadBalancersInput{})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, explain(l.cluster, "listing load balancers", err)
		}
		for _, balancer := range page.LoadBalancers {
			arns = append(arns, aws.ToString(balancer.LoadBalancerArn))
		}
	}
	return l.balancing(ctx, "load balancer", arns, func(arn string) error {
		_, err := l.account.balancingV2.DeleteLoadBalancer(ctx, &elasticloadbalancingv2.DeleteLoadBalancerInput{LoadBalancerArn: &arn})
		return err
	})
}

func (l *leftovers) targetGroups(ctx context.Context) ([]string, error) {
	var arns []string
	pages := elasticloadbalancingv2.NewDescribeTargetGroupsPaginator(l.account.balancingV2, &elasticloadbalancingv2.DescribeTargetGroupsInput{})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, explain(l.cluster, "listing target groups", err)
		}
		for _, group := range page.TargetGroups {
			arns = append(arns, aws.ToString(group.TargetGroupArn))
		}
	}
	return l.balancing(ctx, "target group", arns, func(arn string) error {
		_, err := l.account.balancingV2.DeleteTargetGroup(ctx, &elasticloadbalancingv2.DeleteTargetGroupInput{TargetGroupArn: &arn})
		return err
	})
}

// balancing deletes those of the load balancers or target groups that Kubernetes has made.
func (l *leftovers) balancing(ctx context.Context, kind string, arns []string, remove func(arn string) error) ([]string, error) {
	var left []string
	for some := range slices.Chunk(arns, maxDescribed) {
		out, err := l.account.balancingV2.DescribeTags(ctx, &elasticloadbalancingv2.DescribeTagsInput{ResourceArns: some})
		if hasCode(err, "LoadBalancerNotFound", "TargetGroupNotFound") { // deleted since by somebody: look again
			return []string{kind + "s"}, nil
		}
		if err != nil {
			return nil, explain(l.cluster, "reading tags of "+kind+"s", err)
		}
		for _, described := range out.TagDescriptions {
			tags := map[string]string{}
			for _, tag := range described.Tags {
				tags[aws.ToString(tag.Key)] = aws.ToString(tag.Value)
			}
			if !l.made(tags) {
				continue
			}
			arn := aws.ToString(described.ResourceArn)
			what := kind + " " + arn[strings.LastIndex(arn, ":")+1:]
			left = append(left, what)
			if err := l.delete(ctx, what, func() error { return remove(arn) }, "LoadBalancerNotFound", "TargetGroupNotFound"); err != nil {
				return nil, err
			}
		}
	}
	return left, nil
}

// ---- security groups

func (l *leftovers) securityGroups(ctx context.Context) ([]string, error) {
	all := map[string]ec2types.SecurityGroup{} // that carry a tag of the cluster, those of its stacks too
	for _, tag := range []ec2types.Filter{filter("tag:"+l.clusterTag(l.cluster), owned), filter("tag:"+controllerTag, l.cluster.ID)} {
		pages := ec2.NewDescribeSecurityGroupsPaginator(l.account.ec2, &ec2.DescribeSecurityGroupsInput{Filters: []ec2types.Filter{tag}})
		for pages.HasMorePages() {
			page, err := pages.NextPage(ctx)
			if err != nil {
				return nil, explain(l.cluster, "listing security groups", err)
			}
			for _, group := range page.SecurityGroups {
				all[aws.ToString(group.GroupId)] = group
			}
		}
	}
	var left []string
	for _, id := range slices.Sorted(maps.Keys(all)) {
		if !l.made(ec2Tags(all[id].Tags)) {
			continue
		}
		what := "security group " + id
		left = append(left, what)
		if err := l.delete(ctx, what, func() error {
			if err := l.revoke(ctx, id, all); err != nil {
				return err
			}
			_, err := l.account.ec2.DeleteSecurityGroup(ctx, &ec2.DeleteSecurityGroupInput{GroupId: &id})
			return err
		}, "InvalidGroup.NotFound"); err != nil {
			return nil, err
		}
	}
	return left, nil
}

// revoke takes a group out of the rules by which others of the cluster let it in: AWS deletes no group
// that a rule names. Kubernetes has made those rules, as no stack knows the group.
func (l *leftovers) revoke(ctx context.Context, id string, groups map[string]ec2types.SecurityGroup) error {
	for _, other := range slices.Sorted(maps.Keys(groups)) {
		group := groups[other]
		if l.otherCluster(l.cluster, ec2Tags(group.Tags)) != "" {
			continue
		}
		var rules []ec2types.IpPermission
		for _, rule := range group.IpPermissions {
			for _, pair := range rule.UserIdGroupPairs {
				if aws.ToString(pair.GroupId) == id {
					rules = append(rules, ec2types.IpPermission{
						IpProtocol: rule.IpProtocol, FromPort: rule.FromPort, ToPort: rule.ToPort,
						UserIdGroupPairs: []ec2types.UserIdGroupPair{{GroupId: pair.GroupId, UserId: pair.UserId}},
					})
				}
			}
		}
		if len(rules) == 0 {
			continue
		}
		if _, err := l.account.ec2.RevokeSecurityGroupIngress(ctx, &ec2.RevokeSecurityGroupIngressInput{GroupId: &other, IpPermissions: rules}); err != nil &&
			!hasCode(err, "InvalidPermission.NotFound", "InvalidGroup.NotFound") {
			return err
		}
	}
	return nil
}

// RevokeGroup takes a security group of a cluster out of the rules of others, by their ids, so that it can be deleted.
func (s *Stacks) RevokeGroup(ctx context.Context, cluster registry.Cluster, id string, others map[string]ec2types.SecurityGroup) error {
	account, err := s.Accounts.of(ctx, cluster)
	if err != nil {
		return err
	}
	l := &leftovers{Stacks: s, cluster: cluster, account: account}
	return explain(cluster, "revoking rules that name security group "+id, l.revoke(ctx, id, others))
}

func ec2Tags(list []ec2types.Tag) map[string]string {
	tags := map[string]string{}
	for _, tag := range list {
		tags[aws.ToString(tag.Key)] = aws.ToString(tag.Value)
	}
	return tags
}

// ---- volumes

// volumes deletes the volumes of claims. One that is still attached is waited for.
func (l *leftovers) volumes(ctx context.Context) ([]string, error) {
	var left []string
	pages := ec2.NewDescribeVolumesPaginator(l.account.ec2, &ec2.DescribeVolumesInput{Filters: []ec2types.Filter{
		filter("tag:"+l.clusterTag(l.cluster), owned),
	}})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, explain(l.cluster, "listing volumes", err)
		}
		for _, volume := range page.Volumes {
			tags := ec2Tags(volume.Tags)
			_, claimed := tags[createdForClaim]
			_, driven := tags[createdByDriver]
			if !l.made(tags) || !claimed && !driven || volume.State == ec2types.VolumeStateDeleted {
				continue
			}
			what := "volume " + aws.ToString(volume.VolumeId)
			left = append(left, fmt.Sprintf("%s (%s)", what, volume.State))
			if volume.State != ec2types.VolumeStateAvailable && volume.State != ec2types.VolumeStateError {
				continue
			}
			if err := l.delete(ctx, what, func() error {
				_, err := l.account.ec2.DeleteVolume(ctx, &ec2.DeleteVolumeInput{VolumeId: volume.VolumeId})
				return err
			}, "InvalidVolume.NotFound"); err != nil {
				return nil, err
			}
		}
	}
	return left, nil
}
