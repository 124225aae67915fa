package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/smithy-go"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

const volumeNameTag = "CSIVolumeName"

// createVolume makes the EBS volume of a claim, or finds it if it was made before; that one may
// be in another zone.
func (c *cloud) createVolume(ctx context.Context, cluster string, claim *corev1.PersistentVolumeClaim, zone string,
	size resource.Quantity, parameters map[string]string) (id, actualZone string, err error) {
	name := volumeName(claim)
	found, err := c.ec2.DescribeVolumes(ctx, &ec2.DescribeVolumesInput{
		Filters: []ec2types.Filter{{Name: aws.String("tag:" + volumeNameTag), Values: []string{name}}},
	})
	if err != nil {
		return "", "", fmt.Errorf("looking for the volume: %w", err)
	}
	if len(found.Volumes) > 0 {
		return *found.Volumes[0].VolumeId, *found.Volumes[0].AvailabilityZone, nil
	}
	const gibibyte = 1 << 30
	volumeType := ec2types.VolumeType(parameters["type"])
	if volumeType == "" {
		volumeType = ec2types.VolumeTypeGp3
	}
	tag := func(key, value string) ec2types.Tag { return ec2types.Tag{Key: &key, Value: &value} }
	created, err := c.ec2.CreateVolume(ctx, &ec2.CreateVolumeInput{
		AvailabilityZone: &zone,
		Size:             aws.Int32(int32((size.Value() + gibibyte - 1) / gibibyte)),
		VolumeType:       volumeType,
		Encrypted:        aws.Bool(parameters["encrypted"] == "true"),
		TagSpecifications: []ec2types.TagSpecification{{
			ResourceType: ec2types.ResourceTypeVolume,
			Tags: []ec2types.Tag{
				tag(volumeNameTag, name),
				tag(clusterTag+cluster, "owned"),
				tag("kubernetes.io/created-for/pv/name", name),
				tag("kubernetes.io/created-for/pvc/name", claim.Name),
				tag("kubernetes.io/created-for/pvc/namespace", claim.Namespace),
				tag("ebs.csi.aws.com/cluster", "true"),
			},
		}},
	})
	if err != nil {
		return "", "", err
	}
	return *created.VolumeId, zone, nil
}

func (c *cloud) deleteVolume(ctx context.Context, volume string) error {
	_, err := c.ec2.DeleteVolume(ctx, &ec2.DeleteVolumeInput{VolumeId: &volume})
	return except(err, "InvalidVolume.NotFound")
}

// attachVolume is a no-op if the volume is attached to this instance.
func (c *cloud) attachVolume(ctx context.Context, volume, instance string) error {
	found, err := c.ec2.DescribeInstances(ctx, &ec2.DescribeInstancesInput{InstanceIds: []string{instance}})
	if err != nil {
		return err
	}
	var devices []string
	for _, reservation := range found.Reservations {
		for _, i := range reservation.Instances {
			for _, mapping := range i.BlockDeviceMappings {
				if *mapping.Ebs.VolumeId == volume {
					return nil
				}
				devices = append(devices, *mapping.DeviceName)
			}
		}
	}
	device := ""
	for letter := 'a'; letter <= 'z' && device == ""; letter++ {
		if name := "/dev/xvdb" + string(letter); !slices.Contains(devices, name) {
			device = name
		}
	}
	if device == "" {
		return fmt.Errorf("instance %s has no device name left", instance)
	}
	_, err = c.ec2.AttachVolume(ctx, &ec2.AttachVolumeInput{VolumeId: &volume, InstanceId: &instance, Device: &device})
	return err
}

func (c *cloud) detachVolume(ctx context.Context, volume, instance string) error {
	_, err := c.ec2.DetachVolume(ctx, &ec2.DetachVolumeInput{VolumeId: &volume, InstanceId: &instance})
	return except(err, "IncorrectState", "InvalidAttachment.NotFound", "InvalidVolume.NotFound", "InvalidInstanceID.NotFound")
}

// except forgives errors that say that there is nothing to do.
func except(err error, codes ...string) error {
	var failure smithy.APIError
	if errors.As(err, &failure) && slices.Contains(codes, failure.ErrorCode()) {
		return nil
	}
	return err
}
