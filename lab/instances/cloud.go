package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/cloudformation"
	cfntypes "github.com/aws/aws-sdk-go-v2/service/cloudformation/types"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
)

const (
	clusterTag      = "kubernetes.io/cluster/" // + id
	controlPlaneTag = "fairway.dev/control-plane"
	groupTag        = "aws:autoscaling:groupName"
	poolTag         = "node.kubernetes.io/node-pool"
	profileTag      = "node.kubernetes.io/profile"
	roleTag         = "node.kubernetes.io/role"

	// neverBootsTag is on instances whose launch a test lets fail.
	neverBootsTag = "lab.fairway.dev/never-boots"
	// bootedTag is on instances that have registered their node. A kubelet does that once: a
	// node that somebody deletes does not come back.
	bootedTag = "lab.fairway.dev/booted"
)

// cloud is what the bridge sees of AWS and does there.
type cloud struct {
	ec2      *ec2.Client
	stacks   *cloudformation.Client
	machines map[ec2types.InstanceType]machine // the types seen so far
}

// machine is the size of an instance type.
type machine struct{ cpus, memoryMiB int64 }

// instance is an instance of an Auto Scaling group of a cluster.
type instance struct {
	id, zone, region, dnsName, address string
	tags                               map[string]string
	launched                           time.Time
	state                              ec2types.InstanceStateName
	instanceType                       ec2types.InstanceType
	machine                            machine
}

// observation is one look at AWS.
type observation struct {
	clusters  map[string]bool                // ids with a cluster stack
	instances map[string]map[string]instance // by cluster and instance id
}

func newCloud(ctx context.Context, url string) (*cloud, error) {
	config, err := config.LoadDefaultConfig(ctx, config.WithBaseEndpoint(url), config.WithRetryMaxAttempts(1))
	if err != nil {
		return nil, fmt.Errorf("configuring access to AWS: %w", err)
	}
	return &cloud{
		ec2:      ec2.NewFromConfig(config),
		stacks:   cloudformation.NewFromConfig(config),
		machines: map[ec2types.InstanceType]machine{},
	}, nil
}

func (c *cloud) observe(ctx context.Context) (*observation, error) {
	o := &observation{clusters: map[string]bool{}, instances: map[string]map[string]instance{}}
	stacks := cloudformation.NewDescribeStacksPaginator(c.stacks, nil)
	for stacks.HasMorePages() {
		page, err := stacks.NextPage(ctx)
		if err != nil {
			return nil, fmt.Errorf("listing stacks: %w", err)
		}
		for _, stack := range page.Stacks {
			if id := controlPlaneOf(stack); id != "" && !failed(stack.StackStatus) {
				o.clusters[id] = true
			}
		}
	}
	instances := ec2.NewDescribeInstancesPaginator(c.ec2, &ec2.DescribeInstancesInput{
		Filters: []ec2types.Filter{
			{Name: aws.String("tag-key"), Values: []string{groupTag}},
			{Name: aws.String("instance-state-name"), Values: []string{"pending", "running", "stopping", "stopped"}},
		},
	})
	for instances.HasMorePages() {
		page, err := instances.NextPage(ctx)
		if err != nil {
			return nil, fmt.Errorf("listing instances: %w", err)
		}
		for _, reservation := range page.Reservations {
			for _, i := range reservation.Instances {
				if err := c.add(ctx, o, i); err != nil {
					return nil, err
				}
			}
		}
	}
	return o, nil
}

func (c *cloud) add(ctx context.Context, o *observation, i ec2types.Instance) error {
	tags := map[string]string{}
	cluster := ""
	for _, tag := range i.Tags {
		tags[*tag.Key] = *tag.Value
		if id, found := strings.CutPrefix(*tag.Key, clusterTag); found && *tag.Value == "owned" {
			cluster = id
		}
	}
	if cluster == "" {
		return nil
	}
	machine, err := c.machine(ctx, i.InstanceType)
	if err != nil {
		return err
	}
	if o.instances[cluster] == nil {
		o.instances[cluster] = map[string]instance{}
	}
	zone := *i.Placement.AvailabilityZone
	o.instances[cluster][*i.InstanceId] = instance{
		id: *i.InstanceId, zone: zone, region: strings.TrimRight(zone, "abcdef"),
		dnsName: *i.PrivateDnsName, address: *i.PrivateIpAddress, tags: tags,
		launched: *i.LaunchTime, state: i.State.Name, instanceType: i.InstanceType, machine: machine,
	}
	return nil
}

func (c *cloud) machine(ctx context.Context, instanceType ec2types.InstanceType) (machine, error) {
	if m, known := c.machines[instanceType]; known {
		return m, nil
	}
	answer, err := c.ec2.DescribeInstanceTypes(ctx, &ec2.DescribeInstanceTypesInput{InstanceTypes: []ec2types.InstanceType{instanceType}})
	if err != nil {
		return machine{}, fmt.Errorf("asking for the size of %s: %w", instanceType, err)
	}
	if len(answer.InstanceTypes) == 0 {
		return machine{}, fmt.Errorf("AWS knows no instance type %s", instanceType)
	}
	info := answer.InstanceTypes[0]
	m := machine{cpus: int64(*info.VCpuInfo.DefaultVCpus), memoryMiB: *info.MemoryInfo.SizeInMiB}
	c.machines[instanceType] = m
	return m, nil
}

// markBooted remembers at AWS that an instance has had its node.
func (c *cloud) markBooted(ctx context.Context, id string) error {
	_, err := c.ec2.CreateTags(ctx, &ec2.CreateTagsInput{
		Resources: []string{id},
		Tags:      []ec2types.Tag{{Key: aws.String(bootedTag), Value: aws.String("true")}},
	})
	if err != nil {
		return fmt.Errorf("tagging instance %s: %w", id, err)
	}
	return nil
}

// deletedCluster says whether the latest stack of a cluster was deleted. A control plane that
// never had a stack is somebody else's.
func (c *cloud) deletedCluster(ctx context.Context, id string) (bool, error) {
	stacks := cloudformation.NewListStacksPaginator(c.stacks, &cloudformation.ListStacksInput{
		StackStatusFilter: []cfntypes.StackStatus{cfntypes.StackStatusDeleteComplete},
	})
	for stacks.HasMorePages() {
		page, err := stacks.NextPage(ctx)
		if err != nil {
			return false, fmt.Errorf("listing deleted stacks: %w", err)
		}
		for _, summary := range page.StackSummaries {
			if *summary.StackName != strings.ReplaceAll(id, ":", "-") {
				continue
			}
			answer, err := c.stacks.DescribeStacks(ctx, &cloudformation.DescribeStacksInput{StackName: summary.StackId})
			if err != nil {
				return false, fmt.Errorf("asking for deleted stack %s: %w", *summary.StackId, err)
			}
			if len(answer.Stacks) == 1 && controlPlaneOf(answer.Stacks[0]) == id {
				return true, nil
			}
		}
	}
	return false, nil
}

// controlPlaneOf is the id of the cluster whose control plane a stack stands for, if it does.
func controlPlaneOf(stack cfntypes.Stack) string {
	id, controlPlane := "", false
	for _, tag := range stack.Tags {
		if cluster, found := strings.CutPrefix(*tag.Key, clusterTag); found && *tag.Value == "owned" {
			id = cluster
		}
		controlPlane = controlPlane || *tag.Key == controlPlaneTag && *tag.Value == "true"
	}
	if !controlPlane {
		return ""
	}
	return id
}

// failed says whether a stack has not come into being.
func failed(status cfntypes.StackStatus) bool {
	switch status {
	case cfntypes.StackStatusReviewInProgress, cfntypes.StackStatusCreateFailed,
		cfntypes.StackStatusRollbackInProgress, cfntypes.StackStatusRollbackFailed, cfntypes.StackStatusRollbackComplete:
		return true
	}
	return false
}
