package aws

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling/types"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"go.temporal.io/sdk/temporal"

	"github.com/fairway-project/fairway/registry"
	"github.com/fairway-project/fairway/workflows"
)

// template is what a group launches instances from: a version of a launch template, or a launch
// configuration, which has no versions.
type template struct {
	version
	configuration string
	spot          bool      // it asks for Spot instances itself
	overrides     []version // that instance types of a mixed instances policy have instead
	data          *ec2types.ResponseLaunchTemplateData
	alike         []version // that say the same
}

// version is a version of a launch template, as a number.
type version struct{ id, number string }

// made says whether an instance was launched from it. AWS no longer names a launch configuration
// that is deleted (https://docs.aws.amazon.com/autoscaling/ec2/APIReference/API_Instance.html).
func (t template) made(instance types.Instance) bool {
	if instance.LaunchTemplate == nil {
		return t.id == "" && aws.ToString(instance.LaunchConfigurationName) == t.configuration
	}
	from := version{aws.ToString(instance.LaunchTemplate.LaunchTemplateId), aws.ToString(instance.LaunchTemplate.Version)}
	return from == t.version || slices.Contains(t.overrides, from) || slices.Contains(t.alike, from)
}

// template reads what a group launches instances from now, with symbolic versions resolved.
func (account *account) template(ctx context.Context, cluster registry.Cluster, group types.AutoScalingGroup) (template, error) {
	specification := group.LaunchTemplate
	var overrides []types.LaunchTemplateOverrides
	if mixed := group.MixedInstancesPolicy; mixed != nil && mixed.LaunchTemplate != nil {
		specification, overrides = mixed.LaunchTemplate.LaunchTemplateSpecification, mixed.LaunchTemplate.Overrides
	}
	if specification == nil {
		return template{configuration: aws.ToString(group.LaunchConfigurationName)}, nil
	}
	current, err := account.resolve(ctx, cluster, group, specification)
	if err != nil {
		return template{}, err
	}
	for _, override := range overrides {
		if override.LaunchTemplateSpecification == nil {
			continue
		}
		own, err := account.resolve(ctx, cluster, group, override.LaunchTemplateSpecification)
		if err != nil {
			return template{}, err
		}
		current.overrides = append(current.overrides, own.version)
	}
	return current, nil
}

// resolve reads the version of a launch template that a group names.
func (account *account) resolve(ctx context.Context, cluster registry.Cluster, group types.AutoScalingGroup, named *types.LaunchTemplateSpecification) (template, error) {
	id, number := aws.ToString(named.LaunchTemplateId), aws.ToString(named.Version)
	if number == "" {
		number = "$Default"
	}
	out, err := account.ec2.DescribeLaunchTemplateVersions(ctx, &ec2.DescribeLaunchTemplateVersionsInput{
		LaunchTemplateId: aws.String(id), Versions: []string{number},
	})
	if err != nil {
		return template{}, explain(cluster, "reading launch template "+id, err)
	}
	for _, found := range out.LaunchTemplateVersions {
		if aws.ToString(found.LaunchTemplateId) != id {
			continue
		}
		current := template{version: version{id, strconv.FormatInt(aws.ToInt64(found.VersionNumber), 10)}, data: found.LaunchTemplateData}
		if data := found.LaunchTemplateData; data != nil && data.InstanceMarketOptions != nil {
			current.spot = data.InstanceMarketOptions.MarketType == ec2types.MarketTypeSpot
		}
		return current, nil
	}
	return template{}, temporal.NewApplicationError(
		fmt.Sprintf("cluster %s: launch template %s of group %s is gone", cluster.ID, id, aws.ToString(group.AutoScalingGroupName)), workflows.InvalidInput)
}

// findAlike looks which other versions of the launch template that instances come from say the same as the
// current one: who goes back to what a template was like makes a version that is new, and has no reason to
// replace the nodes that are like it already.
func (account *account) findAlike(ctx context.Context, cluster registry.Cluster, current *template, instances []types.Instance) error {
	var numbers []string
	for _, instance := range instances {
		if from := instance.LaunchTemplate; from != nil && aws.ToString(from.LaunchTemplateId) == current.id && !current.made(instance) {
			numbers = append(numbers, aws.ToString(from.Version))
		}
	}
	slices.Sort(numbers)
	for _, number := range slices.Compact(numbers) {
		out, err := account.ec2.DescribeLaunchTemplateVersions(ctx, &ec2.DescribeLaunchTemplateVersionsInput{
			LaunchTemplateId: aws.String(current.id), Versions: []string{number},
		})
		err = explain(cluster, "reading launch template "+current.id, err)
		if gone := (answered{}); errors.As(err, &gone) && gone.code == "InvalidLaunchTemplateId.VersionNotFound" {
			continue // nobody knows any more what it said
		}
		if err != nil {
			return err
		}
		for _, found := range out.LaunchTemplateVersions {
			if found.LaunchTemplateData != nil && reflect.DeepEqual(found.LaunchTemplateData, current.data) {
				current.alike = append(current.alike, version{current.id, number})
			}
		}
	}
	return nil
}
