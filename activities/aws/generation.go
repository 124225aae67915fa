package aws

import (
	"context"
	"fmt"
	"strconv"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling/types"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"go.temporal.io/sdk/temporal"

	"github.com/fairway-project/fairway/registry"
	"github.com/fairway-project/fairway/workflows"
)

// template is a version of a launch template. The zero value stands for a group without one.
type template struct{ id, version string }

// made says whether an instance was launched from this version.
func (t template) made(instance types.Instance) bool {
	if instance.LaunchTemplate == nil {
		return t == template{}
	}
	return aws.ToString(instance.LaunchTemplate.LaunchTemplateId) == t.id && aws.ToString(instance.LaunchTemplate.Version) == t.version
}

// currentTemplate is what a group launches instances from now, with its symbolic version resolved.
func (account *account) currentTemplate(ctx context.Context, cluster registry.Cluster, group types.AutoScalingGroup) (template, error) {
	specification := group.LaunchTemplate
	if mixed := group.MixedInstancesPolicy; mixed != nil && mixed.LaunchTemplate != nil {
		specification = mixed.LaunchTemplate.LaunchTemplateSpecification
	}
	if specification == nil {
		return template{}, nil
	}
	current := template{aws.ToString(specification.LaunchTemplateId), aws.ToString(specification.Version)}
	if current.version != "" && current.version[0] != '$' {
		return current, nil
	}
	out, err := account.ec2.DescribeLaunchTemplates(ctx, &ec2.DescribeLaunchTemplatesInput{LaunchTemplateIds: []string{current.id}})
	if err != nil {
		return template{}, explain(cluster, "reading launch template "+current.id, err)
	}
	for _, found := range out.LaunchTemplates {
		if aws.ToString(found.LaunchTemplateId) != current.id {
			continue
		}
		number := found.DefaultVersionNumber // what an empty version means, too
		if current.version == "$Latest" {
			number = found.LatestVersionNumber
		}
		current.version = strconv.FormatInt(aws.ToInt64(number), 10)
		return current, nil
	}
	return template{}, temporal.NewApplicationError(
		fmt.Sprintf("cluster %s: launch template %s of group %s is gone", cluster.ID, current.id, aws.ToString(group.AutoScalingGroupName)), workflows.InvalidInput)
}
