package aws

import (
	"context"
	"maps"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling/types"

	"github.com/fairway-project/fairway/registry"
)

func tagged(group types.AutoScalingGroup, key, value string) bool {
	return hasTag(group, key) && tag(group, key) == value
}

func hasTag(group types.AutoScalingGroup, key string) bool {
	return slices.ContainsFunc(group.Tags, func(t types.TagDescription) bool { return aws.ToString(t.Key) == key })
}

// tag is the value of a group's tag, empty if it has none.
func tag(group types.AutoScalingGroup, key string) string {
	for _, t := range group.Tags {
		if aws.ToString(t.Key) == key {
			return aws.ToString(t.Value)
		}
	}
	return ""
}

// tagsOf are those of the keys that a group has tags of.
func tagsOf(group types.AutoScalingGroup, keys []string) []string {
	return slices.DeleteFunc(slices.Clone(keys), func(key string) bool { return !hasTag(group, key) })
}

// note writes tags on a group, which its instances do not get.
func (account *account) note(ctx context.Context, cluster registry.Cluster, group string, tags map[string]string) error {
	if len(tags) == 0 {
		return nil
	}
	in := &autoscaling.CreateOrUpdateTagsInput{}
	for _, key := range slices.Sorted(maps.Keys(tags)) {
		in.Tags = append(in.Tags, types.Tag{
			ResourceId: aws.String(group), ResourceType: aws.String("auto-scaling-group"),
			Key: aws.String(key), Value: aws.String(tags[key]), PropagateAtLaunch: aws.Bool(false),
		})
	}
	_, err := account.autoScaling.CreateOrUpdateTags(ctx, in)
	return explain(cluster, "tagging group "+group, err)
}

// forget deletes tags of a group.
func (account *account) forget(ctx context.Context, cluster registry.Cluster, group string, keys []string) error {
	if len(keys) == 0 {
		return nil
	}
	in := &autoscaling.DeleteTagsInput{}
	for _, key := range keys {
		in.Tags = append(in.Tags, types.Tag{
			ResourceId: aws.String(group), ResourceType: aws.String("auto-scaling-group"), Key: aws.String(key),
		})
	}
	_, err := account.autoScaling.DeleteTags(ctx, in)
	return explain(cluster, "removing tags of group "+group, err)
}
