package aws

import (
	"context"
	"fmt"
	"strconv"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling/types"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"go.temporal.io/sdk/temporal"

	"github.com/fairway-project/fairway/registry"
	"github.com/fairway-project/fairway/workflows"
)

// template is a version of a launch template. The zero value stands for a group without one.
type template struct {
	id, version string // the version as a number
	spot        bool   // it asks for Spot instances itself
}

// made says whether an instance was launched from this version.
func (t template) made(instance types.Instance) bool {
	if instance.LaunchTemplate == nil {
		return t.id == ""
	}
	return aws.ToString(instance.LaunchTemplate.LaunchTemplateId) == t.id && aws.ToString(instance.LaunchTemplate.Version) == t.version
}

// template reads what a group launches instances from now, with its symbolic version resolved.
func (account *account) template(ctx context.Context, cluster registry.Cluster, group types.AutoScalingGroup) (template, error) {
	specification := group.LaunchTemplate
	if mixed := group.MixedInstancesPolicy; mixed != nil && mixed.LaunchTemplate != nil {
		specification = mixed.LaunchTemplate.LaunchTemplateSpecification
	}
	if specification == nil {
		return template{}, nil
	}
	id, version := aws.ToString(specification.LaunchTemplateId), aws.ToString(specification.Version)
	if version == "" {
		version = "$Default"
	}
	out, err := account.ec2.DescribeLaunchTemplateVersions(ctx, &ec2.DescribeLaunchTemplateVersionsInput{
		LaunchTemplateId: aws.String(id), Versions: []string{version},
	})
	if err != nil {
		return template{}, explain(cluster, "reading launch template "+id, err)
	}
	for _, found := range out.LaunchTemplateVersions {
		if aws.ToString(found.LaunchTemplateId) != id {
			continue
		}
		current := template{id: id, version: strconv.FormatInt(aws.ToInt64(found.VersionNumber), 10)}
		if data := found.LaunchTemplateData; data != nil && data.InstanceMarketOptions != nil {
			current.spot = data.InstanceMarketOptions.MarketType == ec2types.MarketTypeSpot
		}
		return current, nil
	}
	return template{}, temporal.NewApplicationError(
		fmt.Sprintf("cluster %s: launch template %s of group %s is gone", cluster.ID, id, aws.ToString(group.AutoScalingGroupName)), workflows.InvalidInput)
}
