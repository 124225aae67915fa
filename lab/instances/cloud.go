package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
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
	taintTag        = "k8s.io/cluster-autoscaler/node-template/taint/"

	// neverBootsTag is on instances whose launch a test lets fail.
	neverBootsTag = "lab.fairway.dev/never-boots"
	// bootedTag is on instances that have registered their node. A kubelet does that once: a
	// node that somebody deletes does not come back.
	bootedTag = "lab.fairway.dev/booted"
)

// cloud is what the bridge sees of AWS and does there.
type cloud struct {
	url string
	ec2 *ec2.Client
}

// stack is a CloudFormation stack, maybe a deleted one.
type stack struct {
	Status cfntypes.StackStatus
	Tags   map[string]string
}

// instance is an EC2 instance that is not being terminated.
type instance struct {
	ID, Zone, Region, Type, Address string
	DNSName                         string `json:"dns_name"`
	State                           ec2types.InstanceStateName
	Launched                        time.Time
	CPUs                            int64
	MemoryMiB                       int64 `json:"memory_mib"`
	Tags                            map[string]string
}

// observation is one look at AWS.
type observation struct {
	clusters  map[string]bool                // true: there is a cluster stack; false: there was one
	instances map[string]map[string]instance // of the groups of a cluster, by cluster and instance id
}

func newCloud(ctx context.Context, url string) (*cloud, error) {
	config, err := config.LoadDefaultConfig(ctx, config.WithBaseEndpoint(url), config.WithRetryMaxAttempts(1))
	if err != nil {
		return nil, fmt.Errorf("configuring access to AWS: %w", err)
	}
	return &cloud{url: url, ec2: ec2.NewFromConfig(config)}, nil
}

// observe asks the lab's AWS endpoint for all at once: DescribeInstances costs it milliseconds an
// instance, which is too much for several times a second.
func (c *cloud) observe(ctx context.Context) (*observation, error) {
	var view struct {
		Stacks    []stack
		Instances []instance
	}
	if err := c.get(ctx, "/lab/view", &view); err != nil {
		return nil, fmt.Errorf("asking AWS for stacks and instances: %w", err)
	}
	o := &observation{clusters: map[string]bool{}, instances: map[string]map[string]instance{}}
	for _, s := range view.Stacks {
		if id := clusterOf(s.Tags); id != "" && s.Tags[controlPlaneTag] == "true" {
			o.clusters[id] = o.clusters[id] || exists(s.Status)
		}
	}
	for _, i := range view.Instances {
		cluster := clusterOf(i.Tags)
		if cluster == "" || i.Tags[groupTag] == "" {
			continue
		}
		if o.instances[cluster] == nil {
			o.instances[cluster] = map[string]instance{}
		}
		o.instances[cluster][i.ID] = i
	}
	return o, nil
}

func (c *cloud) get(ctx context.Context, path string, answer any) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, c.url+path, nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s", path, response.Status)
	}
	return json.NewDecoder(response.Body).Decode(answer)
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

// clusterOf is the id of the cluster that owns something with these tags, if one does.
func clusterOf(tags map[string]string) string {
	for key, value := range tags {
		if id, found := strings.CutPrefix(key, clusterTag); found && value == "owned" {
			return id
		}
	}
	return ""
}

// exists says whether a stack in this state has its resources, or some of them.
func exists(status cfntypes.StackStatus) bool {
	switch status {
	case cfntypes.StackStatusReviewInProgress, cfntypes.StackStatusRollbackInProgress,
		cfntypes.StackStatusRollbackComplete, cfntypes.StackStatusDeleteComplete:
		return false
	}
	return true
}
