package aws

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling/types"
	"github.com/aws/smithy-go"
	"github.com/stretchr/testify/require"

	"github.com/fairway-project/fairway/activities/activitytest"
	"github.com/fairway-project/fairway/registry"
)

func TestAWSAnswersTheSameForEverWhereTheRequestIsWrong(t *testing.T) {
	for code, want := range map[string]bool{
		"ValidationError":                         true,
		"InvalidSubnetID.NotFound":                true,
		"InvalidLaunchTemplateId.NotFound":        true,
		"InvalidLaunchTemplateId.VersionNotFound": true,
		"ScalingActivityInProgress":               false,
		"ResourceContention":                      false,
		"RequestLimitExceeded":                    false,
		"InvalidClientTokenId":                    false, // credentials get mended
		"AccessDenied":                            false,
	} {
		answer := &smithy.GenericAPIError{Code: code, Message: "no"}
		require.Equal(t, want, final(explain(registry.Cluster{ID: "dev-1"}, "trying", answer)), code)
	}
	require.False(t, final(explain(registry.Cluster{ID: "dev-1"}, "trying", errors.New("connection refused"))))
	require.False(t, final(nil))
}

func TestOnlyAGroupWhoseSizeCountsInstancesIsRolled(t *testing.T) {
	weights := func(weights ...*string) types.AutoScalingGroup {
		var overrides []types.LaunchTemplateOverrides
		for _, weight := range weights {
			overrides = append(overrides, types.LaunchTemplateOverrides{InstanceType: aws.String("m5.large"), WeightedCapacity: weight})
		}
		return types.AutoScalingGroup{MixedInstancesPolicy: &types.MixedInstancesPolicy{LaunchTemplate: &types.LaunchTemplate{Overrides: overrides}}}
	}
	for rule, c := range map[string]struct {
		group   types.AutoScalingGroup
		refused string
	}{
		"no policy":             {types.AutoScalingGroup{}, ""},
		"units are instances":   {types.AutoScalingGroup{DesiredCapacityType: aws.String("units")}, ""},
		"virtual CPUs":          {types.AutoScalingGroup{DesiredCapacityType: aws.String("vcpu")}, "counts vcpu and not instances"},
		"types without weights": {weights(nil, nil), ""},
		"weights of one":        {weights(aws.String("1"), aws.String("1")), ""},
		"weights":               {weights(aws.String("1"), aws.String("4")), "counts weights (m5.large is 4) and not instances"},
	} {
		t.Run(rule, func(t *testing.T) {
			err := countsInstances(registry.Cluster{ID: "dev-1"}, c.group)
			if c.refused == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, c.refused)
		})
	}
}

func TestAWaitIsSeenToLiveWhileAWSIsSlow(t *testing.T) {
	beats := make(chan any, 100)
	worker := activitytest.Worker{Heartbeat: func(details any) { beats <- details }}
	a := &Activities{Accounts: &Accounts{}}
	questions := 0
	require.NoError(t, worker.Run(func(ctx context.Context, _ struct{}) error {
		return a.poll(ctx, func() (string, bool, error) {
			questions++
			if questions == 1 {
				return "an instance is missing", false, nil
			}
			<-beats // of the answer to the first question
			for range 2 {
				select {
				case beat := <-beats:
					require.Equal(t, "an instance is missing", beat)
				case <-time.After(10 * time.Second):
					return "", false, errors.New("no heartbeat while a question is under way")
				}
			}
			return "", true, nil
		})
	}, struct{}{}, nil))
}
