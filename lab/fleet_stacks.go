package lab

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudformation"
	cftypes "github.com/aws/aws-sdk-go-v2/service/cloudformation/types"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/smithy-go"

	"github.com/fairway-project/fairway/render"
)

// network is the VPC that all clusters of the account share, with a subnet in each zone.
type network struct {
	vpc     string
	subnets map[string]string // zone to subnet
}

const networkRange = "10.16.0.0/16"

var (
	// networkRanges are the subnets' shares of networkRange by zone.
	networkRanges = map[string]string{
		"eu-central-1a": "10.16.0.0/18", "eu-central-1b": "10.16.64.0/18", "eu-central-1c": "10.16.128.0/18",
	}
	networkTag = ec2types.Tag{Key: aws.String("fairway.dev/network"), Value: aws.String("fleet")}
)

func (n network) zones() []string { return slices.Sorted(maps.Keys(n.subnets)) }

func (n network) values() map[string]any {
	return map[string]any{
		"vpc_id": n.vpc, "vpc_ipv4_cidr": networkRange, "availability_zones": n.zones(), "subnets": n.subnets,
	}
}

func (l *Lab) createNetwork(ctx context.Context) (network, error) {
	client := ec2.NewFromConfig(l.AWSConfig())
	vpc, err := client.CreateVpc(ctx, &ec2.CreateVpcInput{
		CidrBlock: aws.String(networkRange), TagSpecifications: tagged(ec2types.ResourceTypeVpc, networkTag),
	})
	if err != nil {
		return network{}, err
	}
	for zone, cidr := range networkRanges {
		_, err := client.CreateSubnet(ctx, &ec2.CreateSubnetInput{
			VpcId: vpc.Vpc.VpcId, AvailabilityZone: aws.String(zone), CidrBlock: aws.String(cidr),
			TagSpecifications: tagged(ec2types.ResourceTypeSubnet, networkTag),
		})
		// The SDK asks again when an answer is lost, and then finds its own subnet in the way.
		var refused smithy.APIError
		if err != nil && !(errors.As(err, &refused) && refused.ErrorCode() == "InvalidSubnet.Conflict") {
			return network{}, err
		}
	}
	return l.findNetwork(ctx)
}

func (l *Lab) findNetwork(ctx context.Context) (network, error) {
	subnets, err := ec2.NewFromConfig(l.AWSConfig()).DescribeSubnets(ctx, &ec2.DescribeSubnetsInput{
		Filters: []ec2types.Filter{{Name: aws.String("tag:" + *networkTag.Key), Values: []string{*networkTag.Value}}},
	})
	if err != nil {
		return network{}, err
	}
	net := network{subnets: map[string]string{}}
	for _, subnet := range subnets.Subnets {
		net.vpc = *subnet.VpcId
		net.subnets[*subnet.AvailabilityZone] = *subnet.SubnetId
	}
	if len(net.subnets) == 0 {
		return network{}, errors.New("the account has no network: was the sample fleet seeded?")
	}
	return net, nil
}

func tagged(kind ec2types.ResourceType, tags ...ec2types.Tag) []ec2types.TagSpecification {
	return []ec2types.TagSpecification{{ResourceType: kind, Tags: tags}}
}

var capabilities = []cftypes.Capability{cftypes.CapabilityCapabilityNamedIam}

func (l *Lab) createStack(ctx context.Context, stack render.Stack) error {
	client := cloudformation.NewFromConfig(l.AWSConfig())
	if _, err := client.CreateStack(ctx, &cloudformation.CreateStackInput{
		StackName: &stack.Name, TemplateBody: &stack.Body, Tags: stackTags(stack), Capabilities: capabilities,
	}); err != nil {
		return fmt.Errorf("creating stack %s: %w", stack.Name, err)
	}
	waiter := cloudformation.NewStackCreateCompleteWaiter(client, func(o *cloudformation.StackCreateCompleteWaiterOptions) {
		o.MinDelay, o.MaxDelay = 100*time.Millisecond, time.Second
	})
	if err := waiter.Wait(ctx, &cloudformation.DescribeStacksInput{StackName: &stack.Name}, time.Minute); err != nil {
		return fmt.Errorf("creating stack %s: %w%s", stack.Name, err, stackFailure(ctx, client, stack.Name))
	}
	return nil
}

func (l *Lab) updateStack(ctx context.Context, stack render.Stack) error {
	client := cloudformation.NewFromConfig(l.AWSConfig())
	if _, err := client.UpdateStack(ctx, &cloudformation.UpdateStackInput{
		StackName: &stack.Name, TemplateBody: &stack.Body, Tags: stackTags(stack), Capabilities: capabilities,
	}); err != nil {
		return fmt.Errorf("updating stack %s: %w", stack.Name, err)
	}
	waiter := cloudformation.NewStackUpdateCompleteWaiter(client, func(o *cloudformation.StackUpdateCompleteWaiterOptions) {
		o.MinDelay, o.MaxDelay = 100*time.Millisecond, time.Second
	})
	if err := waiter.Wait(ctx, &cloudformation.DescribeStacksInput{StackName: &stack.Name}, time.Minute); err != nil {
		return fmt.Errorf("updating stack %s: %w%s", stack.Name, err, stackFailure(ctx, client, stack.Name))
	}
	return nil
}

// stackFailure says what went wrong first, which the state of a stack does not.
func stackFailure(ctx context.Context, client *cloudformation.Client, name string) string {
	events, err := client.DescribeStackEvents(ctx, &cloudformation.DescribeStackEventsInput{StackName: &name})
	if err != nil {
		return ""
	}
	for _, event := range slices.Backward(events.StackEvents) { // the newest comes first
		if strings.HasSuffix(string(event.ResourceStatus), "_FAILED") {
			return fmt.Sprintf(": %s: %s", aws.ToString(event.LogicalResourceId), aws.ToString(event.ResourceStatusReason))
		}
	}
	return ""
}

func stackTags(stack render.Stack) (tags []cftypes.Tag) {
	for _, key := range slices.Sorted(maps.Keys(stack.Tags)) {
		tags = append(tags, cftypes.Tag{Key: aws.String(key), Value: aws.String(stack.Tags[key])})
	}
	return tags
}
