package aws

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"go.temporal.io/sdk/temporal"

	"github.com/fairway-project/fairway/registry"
	"github.com/fairway-project/fairway/workflows"
)

// networkFor is how long a network is taken to be as it was. Networks change with people's plans.
const networkFor = 5 * time.Minute

// networks are those looked at lately, by account, region and what was asked for.
type networks struct {
	mu    sync.Mutex
	known map[string]network
}

type network struct {
	vpc, cidr string
	subnets   map[string]string // by zone
	until     time.Time
}

// Network tells what templates of a cluster may know of its account and network: account_id, region,
// vpc_id, vpc_ipv4_cidr, availability_zones ([]string, sorted) and subnets (map[string]string from
// zone to subnet). The subnets are those of the cluster's config item `subnets` (ids separated by
// commas), else those with aws.network_tag, else the default subnets of the account's default VPC;
// the config item `vpc_id` restricts them to a VPC. InvalidInput if there are none, or several in a
// zone or in VPCs. Answers are up to five minutes old.
func (a *Accounts) Network(ctx context.Context, cluster registry.Cluster) (map[string]any, error) {
	account, err := a.of(ctx, cluster)
	if err != nil {
		return nil, err
	}
	vpc, subnets := cluster.ConfigItems["vpc_id"], cluster.ConfigItems["subnets"]
	key := strings.Join([]string{account.number, account.region, vpc, subnets}, "/")
	a.networks.mu.Lock()
	net, known := a.networks.known[key]
	a.networks.mu.Unlock()
	if !known || time.Now().After(net.until) {
		if net, err = account.network(ctx, cluster, a.Settings.NetworkTag, vpc, subnets); err != nil {
			return nil, err
		}
		net.until = time.Now().Add(networkFor)
		a.networks.mu.Lock()
		if a.networks.known == nil {
			a.networks.known = map[string]network{}
		}
		a.networks.known[key] = net
		a.networks.mu.Unlock()
	}
	return map[string]any{
		"account_id": account.number, "region": account.region, "vpc_id": net.vpc, "vpc_ipv4_cidr": net.cidr,
		"availability_zones": slices.Sorted(maps.Keys(net.subnets)), "subnets": maps.Clone(net.subnets),
	}, nil
}

func (account *account) network(ctx context.Context, cluster registry.Cluster, tag, vpc, subnets string) (network, error) {
	in, which := &ec2.DescribeSubnetsInput{}, ""
	key, value, _ := strings.Cut(tag, "=")
	switch {
	case subnets != "":
		for id := range strings.SplitSeq(subnets, ",") {
			in.SubnetIds = append(in.SubnetIds, strings.TrimSpace(id))
		}
		which = "of the config item subnets"
	case tag != "":
		in.Filters = append(in.Filters, filter("tag:"+key, value))
		which = "with the tag " + tag + " (aws.network_tag)"
	default:
		in.Filters = append(in.Filters, filter("default-for-az", "true"))
		which = "that are the default of their zone"
	}
	if vpc != "" {
		which += " in VPC " + vpc + " (config item vpc_id)"
	}
	net := network{subnets: map[string]string{}}
	pages := ec2.NewDescribeSubnetsPaginator(account.ec2, in)
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			err = explain(cluster, "looking for the subnets "+which, err)
			if final(err) {
				return net, temporal.NewNonRetryableApplicationError(err.Error(), workflows.InvalidInput, nil)
			}
			return net, err
		}
		for _, subnet := range page.Subnets {
			zone, id, in := aws.ToString(subnet.AvailabilityZone), aws.ToString(subnet.SubnetId), aws.ToString(subnet.VpcId)
			if vpc != "" && in != vpc {
				continue
			}
			if net.vpc != "" && net.vpc != in {
				return net, ambiguous(cluster, "the subnets %s are in VPCs %s and %s; name one with the config item vpc_id", which, net.vpc, in)
			}
			if other, taken := net.subnets[zone]; taken {
				return net, ambiguous(cluster, "zone %s has two subnets %s: %s and %s; a cluster uses one in each zone, so take the tag away from one or name them with the config item subnets",
					zone, which, other, id)
			}
			net.vpc, net.subnets[zone] = in, id
		}
	}
	if net.vpc == "" {
		return net, ambiguous(cluster, "account %s has no subnets %s in %s", account.number, which, account.region)
	}
	out, err := account.ec2.DescribeVpcs(ctx, &ec2.DescribeVpcsInput{VpcIds: []string{net.vpc}})
	if err != nil {
		return net, explain(cluster, "looking at VPC "+net.vpc, err)
	}
	if len(out.Vpcs) != 1 {
		return net, ambiguous(cluster, "VPC %s is gone", net.vpc)
	}
	net.cidr = aws.ToString(out.Vpcs[0].CidrBlock)
	return net, nil
}

func ambiguous(cluster registry.Cluster, format string, args ...any) error {
	return temporal.NewApplicationError(fmt.Sprintf("cluster %s: %s", cluster.ID, fmt.Sprintf(format, args...)), workflows.InvalidInput)
}

func filter(name string, values ...string) types.Filter {
	return types.Filter{Name: aws.String(name), Values: values}
}
