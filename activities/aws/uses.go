package aws

import (
	"context"
	"fmt"
	"regexp"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/fairway-project/fairway/registry"
)

// Use is the time during which an instance ran.
type Use struct {
	Instance, Type string
	From, To       time.Time // To is zero as long as it runs
}

// Uses are those of the instances with a tag in the account of a cluster, as far as AWS still knows: it
// forgets instances about an hour after their end.
func (a *Accounts) Uses(ctx context.Context, cluster registry.Cluster, tag, value string) ([]Use, error) {
	account, err := a.of(ctx, cluster)
	if err != nil {
		return nil, err
	}
	var uses []Use
	pages := ec2.NewDescribeInstancesPaginator(account.ec2, &ec2.DescribeInstancesInput{
		Filters: []types.Filter{{Name: aws.String("tag:" + tag), Values: []string{value}}},
	})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, explain(cluster, fmt.Sprintf("listing the instances with the tag %s=%s", tag, value), err)
		}
		for _, reservation := range page.Reservations {
			for _, i := range reservation.Instances {
				use := Use{Instance: aws.ToString(i.InstanceId), Type: string(i.InstanceType), From: aws.ToTime(i.LaunchTime)}
				if i.State != nil && i.State.Name == types.InstanceStateNameTerminated {
					use.To = endOf(aws.ToString(i.StateTransitionReason))
				}
				uses = append(uses, use)
			}
		}
	}
	return uses, nil
}

// transition is in sentences such as "User initiated (2026-11-26 21:30:00 GMT)".
var transition = regexp.MustCompile(`\((\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) (?:GMT|UTC)\)`)

// endOf is when an instance ended; zero if AWS does not say so.
func endOf(reason string) time.Time {
	found := transition.FindStringSubmatch(reason)
	if found == nil {
		return time.Time{}
	}
	at, err := time.Parse(time.DateTime, found[1])
	if err != nil {
		return time.Time{}
	}
	return at
}
