package aws

import "testing"

func TestOnlyAShortageIsMetByLaunchingInAnotherWay(t *testing.T) {
	for words, want := range map[string]bool{
		"We currently do not have sufficient m5.large capacity in the Availability Zone you requested (eu-central-1a). Launching EC2 instance failed.": true,
		"Could not launch Spot Instances. InsufficientInstanceCapacity - There is no Spot capacity available that matches your request.":               true,
		"Could not launch Spot Instances. UnfulfillableCapacity - Unable to fulfill capacity due to your request configuration.":                       true,
		"Could not launch On-Demand Instances. InsufficientInstanceCapacity - Insufficient capacity. Launching EC2 instance failed.":                   true,
		"MaxSpotInstanceCountExceeded - Max spot instance count exceeded. Launching EC2 instance failed.":                                              true,
		"Max spot instance count exceeded. Placing Spot instance request failed.":                                                                      true,
		"You have requested more vCPU capacity than your current vCPU limit of 32 allows for the instance bucket. Launching EC2 instance failed.":      true,
		"Could not launch On-Demand Instances. VcpuLimitExceeded - You have requested more vCPU capacity than your limit. Launching failed.":           true,
		"InstanceLimitExceeded: Your quota allows for 0 more running instance(s).":                                                                     true,
		"SpotMaxPriceTooLow - Your Spot request price of 0.01 is lower than the minimum required Spot request fulfillment price of 0.03.":              true,
		"InsufficientFreeAddressesInSubnet - There are not enough free addresses in subnet 'subnet-1'. Launching EC2 instance failed.":                 true,
		"Your requested instance type (m7g.large) is not supported in your requested Availability Zone (us-east-1e). Launching EC2 instance failed.":   true,
		"The image id '[ami-1]' does not exist. Launching EC2 instance failed.":                                                                        false,
		"The key pair 'lost' does not exist. Launching EC2 instance failed.":                                                                           false,
		"Invalid IAM Instance Profile name. Launching EC2 instance failed.":                                                                            false,
		"Client.InternalError: Client error on launch":                                                                                                 false,
		"": false,
	} {
		if got := shortage(words); got != want {
			t.Errorf("%q is a shortage: %t", words, got)
		}
	}
}
