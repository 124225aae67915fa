package product

import (
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling"
	"github.com/aws/aws-sdk-go-v2/service/cloudformation"
	cftypes "github.com/aws/aws-sdk-go-v2/service/cloudformation/types"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/stretchr/testify/require"

	"github.com/fairway-project/fairway/lab"
)

// Inventory lists all that AWS has of a cluster, by its name or its tag. Instances that have ended are
// shown by AWS for a while, and keys are deleted after days of waiting.
func Inventory(t *testing.T, l *lab.Lab, cluster string) (left []string) {
	t.Helper()
	config := l.AWSConfig()
	add := func(kind string, names ...*string) {
		for _, name := range names {
			if strings.Contains(aws.ToString(name), cluster) {
				left = append(left, kind+" "+aws.ToString(name))
			}
		}
	}
	own := func(kind string, id *string, tags []ec2types.Tag) {
		for _, tag := range tags {
			if *tag.Key == "kubernetes.io/cluster/"+cluster {
				left = append(left, kind+" "+*id)
			}
		}
	}
	stacks := cloudformation.NewDescribeStacksPaginator(cloudformation.NewFromConfig(config), &cloudformation.DescribeStacksInput{})
	for stacks.HasMorePages() {
		page, err := stacks.NextPage(t.Context())
		require.NoError(t, err)
		for _, stack := range page.Stacks {
			if stack.StackStatus != cftypes.StackStatusDeleteComplete {
				add("stack", stack.StackName)
			}
		}
	}
	groups, err := autoscaling.NewFromConfig(config).DescribeAutoScalingGroups(t.Context(), nil)
	require.NoError(t, err)
	for _, group := range groups.AutoScalingGroups {
		add("group", group.AutoScalingGroupName)
	}
	client := ec2.NewFromConfig(config)
	templates, err := client.DescribeLaunchTemplates(t.Context(), nil)
	require.NoError(t, err)
	for _, template := range templates.LaunchTemplates {
		add("launch template", template.LaunchTemplateName)
	}
	reservations, err := client.DescribeInstances(t.Context(), nil)
	require.NoError(t, err)
	for _, reservation := range reservations.Reservations {
		for _, instance := range reservation.Instances {
			if state := instance.State.Name; state != ec2types.InstanceStateNameTerminated && state != ec2types.InstanceStateNameShuttingDown {
				own("instance", instance.InstanceId, instance.Tags)
			}
		}
	}
	disks, err := client.DescribeVolumes(t.Context(), nil)
	require.NoError(t, err)
	for _, disk := range disks.Volumes {
		own("volume", disk.VolumeId, disk.Tags)
	}
	firewalls, err := client.DescribeSecurityGroups(t.Context(), nil)
	require.NoError(t, err)
	for _, firewall := range firewalls.SecurityGroups {
		own("security group", firewall.GroupId, firewall.Tags)
	}
	people := iam.NewFromConfig(config)
	roles, err := people.ListRoles(t.Context(), nil)
	require.NoError(t, err)
	for _, role := range roles.Roles {
		add("role", role.RoleName)
	}
	profiles, err := people.ListInstanceProfiles(t.Context(), nil)
	require.NoError(t, err)
	for _, profile := range profiles.InstanceProfiles {
		add("instance profile", profile.InstanceProfileName)
	}
	buckets, err := s3.NewFromConfig(config, func(o *s3.Options) { o.UsePathStyle = true }).ListBuckets(t.Context(), nil)
	require.NoError(t, err)
	for _, bucket := range buckets.Buckets {
		add("bucket", bucket.Name)
	}
	return left
}

// NoParts says that no process of a cluster's control plane runs.
func NoParts(l *lab.Lab, cluster string) bool {
	return !slices.ContainsFunc(l.Parts(), func(p *lab.Part) bool {
		return strings.HasPrefix(p.Name(), "kubernetes/"+cluster+"/")
	})
}
