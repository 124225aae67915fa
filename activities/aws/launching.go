package aws

import (
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
	"github.com/aws/smithy-go"
	"go.temporal.io/sdk/temporal"

	"github.com/fairway-project/fairway/registry"
	"github.com/fairway-project/fairway/workflows"
)

// Tags of a group that keep how it launched instances before Fairway changed that.
const (
	subnetsTag       = "fairway.dev/subnets"              // ids
	zonesTag         = "fairway.dev/zones"                // of a group without subnets
	templateTag      = "fairway.dev/launch-template"      // id:version, of a group that had no mixed instances policy
	instanceTypesTag = "fairway.dev/instance-types"       // type or type=weight, of a mixed instances policy
	onDemandTag      = "fairway.dev/on-demand-percentage" // above the base, of a mixed instances policy
)

// launchingTags are all of them, in the order in which they are deleted.
var launchingTags = []string{subnetsTag, zonesTag, templateTag, instanceTypesTag, onDemandTag}

// longestTag is how many characters the value of a tag may have
// (https://docs.aws.amazon.com/autoscaling/ec2/userguide/ec2-auto-scaling-tagging.html).
const longestTag = 256

// launching is how a group launches instances, as far as Fairway may change it.
type launching struct {
	subnets []string
	zones   []string // looked at only where there are no subnets
	// template is nil for a group with a launch configuration.
	template *types.LaunchTemplateSpecification
	// The others are of a mixed instances policy. onDemand is the percentage above the base.
	mixed     bool
	overrides []types.LaunchTemplateOverrides
	onDemand  int
}

// launchingOf is how a group launches instances now.
func launchingOf(group types.AutoScalingGroup) launching {
	l := launching{
		subnets: strings.FieldsFunc(aws.ToString(group.VPCZoneIdentifier), func(r rune) bool { return r == ',' || r == ' ' }),
		zones:   group.AvailabilityZones,
	}
	specification := group.LaunchTemplate
	if policy := group.MixedInstancesPolicy; policy != nil && policy.LaunchTemplate != nil {
		l.mixed, l.onDemand = true, 100
		specification, l.overrides = policy.LaunchTemplate.LaunchTemplateSpecification, slices.Clone(policy.LaunchTemplate.Overrides)
		for i, o := range l.overrides {
			l.overrides[i].LaunchTemplateSpecification = byID(o.LaunchTemplateSpecification)
		}
		if d := policy.InstancesDistribution; d != nil && d.OnDemandPercentageAboveBaseCapacity != nil {
			l.onDemand = int(*d.OnDemandPercentageAboveBaseCapacity)
		}
	}
	l.template = byID(specification)
	return l
}

// byID leaves out the name of a launch template: AWS shows it, too, and takes only one of them.
func byID(shown *types.LaunchTemplateSpecification) *types.LaunchTemplateSpecification {
	if shown == nil {
		return nil
	}
	return &types.LaunchTemplateSpecification{LaunchTemplateId: shown.LaunchTemplateId, Version: shown.Version}
}

// originalOf is how a group launched instances before Fairway changed that. A tag counts only
// where the group looks like what Fairway makes of it: otherwise it is older than a change by
// somebody else, or Fairway died before it changed anything.
func originalOf(group types.AutoScalingGroup) launching {
	l := launchingOf(group)
	if before := strings.Fields(tag(group, subnetsTag)); len(l.subnets) > 0 && subset(l.subnets, before) {
		l.subnets = before
	}
	if before := strings.Fields(tag(group, zonesTag)); len(l.subnets) == 0 && subset(l.zones, before) {
		l.zones = before
	}
	if id, version, ok := strings.Cut(tag(group, templateTag), ":"); ok && l.mixed && l.template != nil && aws.ToString(l.template.LaunchTemplateId) == id {
		l.mixed, l.overrides, l.onDemand = false, nil, 0
		l.template = specification(id, version)
	}
	if before := strings.Fields(tag(group, instanceTypesTag)); len(before) > 0 && len(l.overrides) == 1 {
		l.overrides = nil
		for _, text := range before {
			l.overrides = append(l.overrides, override(text))
		}
	}
	if before, err := strconv.Atoi(tag(group, onDemandTag)); err == nil && l.mixed && l.onDemand == 100 {
		l.onDemand = before
	}
	return l
}

func subset(some, all []string) bool {
	return !slices.ContainsFunc(some, func(one string) bool { return !slices.Contains(all, one) })
}

// specification reads the value of the tag; a dollar sign is not allowed in one.
func specification(id, version string) *types.LaunchTemplateSpecification {
	out := &types.LaunchTemplateSpecification{LaunchTemplateId: aws.String(id)}
	switch version {
	case "":
	case "Latest", "Default":
		out.Version = aws.String("$" + version)
	default:
		out.Version = aws.String(version)
	}
	return out
}

func override(text string) types.LaunchTemplateOverrides {
	name, weight, weighted := strings.Cut(text, "=")
	out := types.LaunchTemplateOverrides{InstanceType: aws.String(name)}
	if weighted {
		out.WeightedCapacity = aws.String(weight)
	}
	return out
}

// types are the instance types of the overrides as a tag has them; false if there is more to them.
func (l launching) types() (string, bool) {
	var out []string
	for _, o := range l.overrides {
		if o.InstanceType == nil || o.InstanceRequirements != nil || o.LaunchTemplateSpecification != nil || o.ImageId != nil {
			return "", false
		}
		text := *o.InstanceType
		if o.WeightedCapacity != nil {
			text += "=" + *o.WeightedCapacity
		}
		out = append(out, text)
	}
	return strings.Join(out, " "), true
}

// asAsked is how a group has to launch instances for once. InvalidInput if it cannot.
func (account *account) asAsked(ctx context.Context, cluster registry.Cluster, group types.AutoScalingGroup, asked workflows.Launch) (launching, error) {
	l := originalOf(group)
	name := aws.ToString(group.AutoScalingGroupName)
	impossible := func(format string, args ...any) error {
		return temporal.NewNonRetryableApplicationError(
			fmt.Sprintf("cluster %s: group %s cannot launch as asked: %s", cluster.ID, name, fmt.Sprintf(format, args...)), workflows.InvalidInput, nil)
	}
	if len(asked.Zones) > 0 {
		zoneOf, err := account.zones(ctx, cluster, group, l)
		if err != nil {
			return launching{}, err
		}
		for _, zone := range asked.Zones {
			if !slices.Contains(slices.Collect(maps.Values(zoneOf)), zone) {
				return launching{}, impossible("it has no subnet in zone %s", zone)
			}
		}
		elsewhere := func(place string) bool { return !slices.Contains(asked.Zones, zoneOf[place]) }
		l.subnets = slices.DeleteFunc(slices.Clone(l.subnets), elsewhere)
		if len(l.subnets) == 0 {
			l.zones = slices.DeleteFunc(slices.Clone(l.zones), elsewhere)
		}
	}
	if asked.Type == "" && !asked.OnDemand {
		return l, nil
	}
	if !l.mixed {
		if l.template == nil {
			return launching{}, impossible("it has a launch configuration; give it a launch template")
		}
		template, err := account.template(ctx, cluster, group)
		if err != nil {
			return launching{}, err
		}
		if template.spot {
			return launching{}, impossible("its launch template %s asks for Spot instances itself; say so in a mixed instances policy instead", template.id)
		}
		if asked.Type != "" { // an override of the type needs a policy; what was On-Demand stays so
			l.mixed, l.onDemand = true, 100
			l.overrides = []types.LaunchTemplateOverrides{override(asked.Type)}
		}
		return l, nil
	}
	if asked.OnDemand {
		l.onDemand = 100
	}
	if asked.Type != "" {
		if plain, ok := l.types(); !ok || plain == "" {
			return launching{}, impossible("its mixed instances policy has no plain list of instance types")
		}
		of := func(o types.LaunchTemplateOverrides) bool { return *o.InstanceType == asked.Type }
		weighted := func(o types.LaunchTemplateOverrides) bool { return o.WeightedCapacity != nil }
		switch at := slices.IndexFunc(l.overrides, of); {
		case at >= 0:
			l.overrides = l.overrides[at : at+1]
		case slices.ContainsFunc(l.overrides, weighted):
			return launching{}, impossible("its instance types have weights, and %s is not among them", asked.Type)
		default:
			l.overrides = []types.LaunchTemplateOverrides{override(asked.Type)}
		}
	}
	return l, nil
}

// zones tells the zone of each subnet of a group; of a group without subnets, of each zone itself.
// Subnets that are deleted have none.
func (account *account) zones(ctx context.Context, cluster registry.Cluster, group types.AutoScalingGroup, of launching) (map[string]string, error) {
	zoneOf := map[string]string{}
	switch {
	case len(of.subnets) == 0:
		for _, zone := range of.zones {
			zoneOf[zone] = zone
		}
		return zoneOf, nil
	case len(group.AvailabilityZones) == 1 && slices.Equal(of.subnets, launchingOf(group).subnets):
		for _, subnet := range of.subnets {
			zoneOf[subnet] = group.AvailabilityZones[0]
		}
		return zoneOf, nil
	}
	// A filter, because to ask for one that is deleted is an error otherwise.
	pages := ec2.NewDescribeSubnetsPaginator(account.ec2, &ec2.DescribeSubnetsInput{
		Filters: []ec2types.Filter{{Name: aws.String("subnet-id"), Values: of.subnets}},
	})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, explain(cluster, "reading the subnets of group "+aws.ToString(group.AutoScalingGroupName), err)
		}
		for _, subnet := range page.Subnets {
			zoneOf[aws.ToString(subnet.SubnetId)] = aws.ToString(subnet.AvailabilityZone)
		}
	}
	return zoneOf, nil
}

// notes are the tags that keep what is different in the original.
func (l launching) notes(original launching) map[string]string {
	notes := map[string]string{}
	switch {
	case !slices.Equal(l.subnets, original.subnets):
		notes[subnetsTag] = strings.Join(original.subnets, " ")
	case len(l.subnets) == 0 && !slices.Equal(l.zones, original.zones):
		notes[zonesTag] = strings.Join(original.zones, " ")
	}
	if l.mixed != original.mixed {
		version := strings.TrimPrefix(aws.ToString(original.template.Version), "$")
		notes[templateTag] = aws.ToString(original.template.LaunchTemplateId) + ":" + version
		return notes
	}
	before, _ := original.types()
	if now, _ := l.types(); now != before {
		notes[instanceTypesTag] = before
	}
	if l.onDemand != original.onDemand {
		notes[onDemandTag] = strconv.Itoa(original.onDemand)
	}
	return notes
}

// launchAs makes a group launch instances in this way, and have this size if one is given, in one
// request. Tags keep what was before; those that have nothing left to keep are deleted.
func (account *account) launchAs(ctx context.Context, cluster registry.Cluster, group types.AutoScalingGroup, l launching, size *int) error {
	name := aws.ToString(group.AutoScalingGroupName)
	kept := l.notes(originalOf(group))
	unwritten := map[string]string{}
	for key, value := range kept {
		if len(value) > longestTag {
			return temporal.NewNonRetryableApplicationError(fmt.Sprintf(
				"cluster %s: group %s cannot launch as asked: what it is to launch afterwards does not fit into tag %s, which takes %d characters: %s",
				cluster.ID, name, key, longestTag, value), workflows.InvalidInput, nil)
		}
		if tag(group, key) != value {
			unwritten[key] = value
		}
	}
	if err := account.note(ctx, cluster, name, unwritten); err != nil {
		return err
	}
	if kept[subnetsTag] != "" || kept[zonesTag] != "" {
		// It would end the instances in zones that the group leaves for the moment.
		if err := account.suspend(ctx, cluster, group, rebalance); err != nil {
			return err
		}
	}
	doing, err := account.update(ctx, name, launchingOf(group), l, size)
	var answer smithy.APIError
	if len(kept) > 0 && errors.As(err, &answer) && answer.ErrorCode() == "ValidationError" {
		// More attempts do not help, but another way to launch may.
		return temporal.NewNonRetryableApplicationError(
			fmt.Sprintf("cluster %s: group %s cannot launch as asked: AWS says %s", cluster.ID, name, answer.ErrorMessage()), workflows.InvalidInput, err)
	}
	if err != nil {
		return explain(cluster, doing, err)
	}
	var over []string
	for _, key := range launchingTags {
		if _, keep := kept[key]; !keep && hasTag(group, key) {
			over = append(over, key)
		}
	}
	return account.forget(ctx, cluster, name, over)
}

// update changes in a group what is different from before, and says what that is. A size alone
// needs no permission to change anything else.
func (account *account) update(ctx context.Context, name string, before, l launching, size *int) (doing string, err error) {
	in := &autoscaling.UpdateAutoScalingGroupInput{AutoScalingGroupName: aws.String(name)}
	changed := l.notes(before)
	for key := range changed {
		switch {
		case key == subnetsTag:
			in.VPCZoneIdentifier = aws.String(strings.Join(l.subnets, ","))
		case key == zonesTag:
			in.AvailabilityZones = l.zones
		case l.mixed:
			in.MixedInstancesPolicy = &types.MixedInstancesPolicy{
				LaunchTemplate:        &types.LaunchTemplate{LaunchTemplateSpecification: l.template, Overrides: l.overrides},
				InstancesDistribution: &types.InstancesDistribution{OnDemandPercentageAboveBaseCapacity: aws.Int32(int32(l.onDemand))},
			}
		default:
			in.LaunchTemplate = l.template
		}
	}
	switch {
	case len(changed) == 0 && size == nil:
		return "", nil
	case len(changed) == 0:
		_, err := account.autoScaling.SetDesiredCapacity(ctx, &autoscaling.SetDesiredCapacityInput{
			AutoScalingGroupName: aws.String(name), DesiredCapacity: aws.Int32(int32(*size)), HonorCooldown: aws.Bool(false),
		})
		return fmt.Sprintf("setting the size of group %s to %d", name, *size), err
	case size != nil:
		in.DesiredCapacity = aws.Int32(int32(*size))
	}
	_, err = account.autoScaling.UpdateAutoScalingGroup(ctx, in)
	return "changing how group " + name + " launches instances", err
}

// restoreLaunching undoes what is left of changes to how a group launches instances.
func (account *account) restoreLaunching(ctx context.Context, cluster registry.Cluster, group types.AutoScalingGroup) error {
	return account.launchAs(ctx, cluster, group, originalOf(group), nil)
}
