"""Auto Scaling groups: a loop that brings what there is to what is desired, as at AWS.

moto launches and terminates within the request that asks for it, everything in one subnet, and
looks neither at limits nor at suspended processes.
"""

import time
from collections import OrderedDict

from moto.autoscaling import models
from moto.autoscaling.exceptions import AutoscalingClientError, ValidationError
from moto.autoscaling.models import ASG_NAME_TAG, autoscaling_backends
from moto.core.exceptions import ServiceException
from moto.ec2.utils import filter_iam_instance_profiles

from . import extends, placement, tag_dict
from .activities import History, at, timestamp
from .clock import every_tick

# Seconds until a launch that failed is tried again, and for which a group must have been at
# rest, its zones out of balance, before it is rebalanced. AWS takes minutes for both.
RETRY = 2.0
REBALANCE = 5.0

COUNTED = ("Pending", "InService")

_create_group = models.FakeAutoScalingGroup.__init__
_set_zones = models.FakeAutoScalingGroup._set_azs_and_vpcs
_create_backend = models.AutoScalingBackend.__init__
_create_in_backend = models.AutoScalingBackend.create_auto_scaling_group


class Member:
    """An instance in a group; the attributes are those of DescribeAutoScalingInstances."""

    def __init__(self, group, instance, version, lifecycle_state):
        self.instance = instance
        self.instance_id = instance.id
        self.instance_type = instance.instance_type
        self.availability_zone = instance.placement.zone
        self.lifecycle_state = lifecycle_state
        self.health_status = "Healthy"
        self.unhealthy_because = "a user health-check"
        self.protected_from_scale_in = group.new_instances_protected_from_scale_in
        self.auto_scaling_group = group
        self.auto_scaling_group_name = group.name
        self.activity = None  # the launch or termination under way
        self.rebalances = False  # launched to balance the zones
        # What the instance was launched with stays, whatever becomes of the group's template.
        self.launch_template_version = version.number if version else 0
        self.launch_template = version and {
            "LaunchTemplateId": version.template.id,
            "LaunchTemplateName": version.template.name,
            "Version": str(version.number),
        }
        self.launch_configuration_name = getattr(group, "launch_configuration_name", None)

    @property
    def market(self):
        return self.instance.market

    @property
    def launched(self):
        return self.instance.launch_time.timestamp()


class Groups(OrderedDict):
    """The groups by name; one that is not there is an error of the client."""

    def __missing__(self, name):
        raise ValidationError("AutoScalingGroup name not found - null")


@extends(models.FakeAutoScalingGroup)
class Group:
    # ---- what clients see and set

    def __init__(self, *args, **kwargs):
        self.provided_launch_template_version = None
        self._suspended = {}
        self._request = None  # the sentence for the cause of the next activities
        self._retry_at = 0.0
        self._balanced_at = time.monotonic()
        self.deleting = False
        _create_group(self, *args, **kwargs)
        _check_sizes(self.min_size, self.max_size, self.desired_capacity)
        self._request = at(
            "a user request created an AutoScalingGroup changing the desired capacity "
            f"from 0 to {self.desired_capacity}."
        )

    @property
    def status(self):
        return "Delete in progress" if self.deleting else None

    @property
    def launch_template(self):
        """AWS: a group with a mixed instances policy has its launch template there only."""
        if self.ec2_launch_template is None or self.mixed_instances_policy:
            return None
        return {
            "LaunchTemplateId": self.ec2_launch_template.id,
            "LaunchTemplateName": self.ec2_launch_template.name,
            "Version": self.provided_launch_template_version,
        }

    @property
    def suspended_processes(self):
        return [{"ProcessName": p, "SuspensionReason": why} for p, why in self._suspended.items()]

    @suspended_processes.setter
    def suspended_processes(self, names):
        why = f"User suspended at {timestamp()}"
        self._suspended = {name: self._suspended.get(name, why) for name in sorted(names)}

    def get_propagated_tags(self):
        # Templates may write the flag as a string.
        return tag_dict([t for t in self.tags if str(t.get("PropagateAtLaunch")).lower() == "true"])

    def _set_azs_and_vpcs(self, *args, **kwargs):
        """AWS shows a zone once, however many of the group's subnets it has."""
        _set_zones(self, *args, **kwargs)
        self.availability_zones = list(dict.fromkeys(self.availability_zones))

    def set_desired_capacity(self, new_capacity):
        self.desired_capacity = self.min_size if new_capacity is None else new_capacity

    def request(self, desired, sentence):
        """Changes the desired capacity because somebody asked for it."""
        if desired != self.desired_capacity:
            self._request = at(f"{sentence} changing the desired capacity from {self.desired_capacity} to {desired}.")
            self._retry_at = 0.0
        self.desired_capacity = desired

    def find(self, instance_id):
        for member in self.instance_states:
            if member.instance_id == instance_id:
                return member
        raise ValidationError(f"The instance {instance_id} is not part of Auto Scaling group {self.name}.")

    def counted(self):
        """The instances that the desired capacity is about."""
        return [m for m in self.instance_states if m.lifecycle_state in COUNTED]

    # ---- the loop

    def reconcile(self, now):
        self._follow_instances()
        self._replace_unhealthy()
        self._launch(now)
        self._scale_in()
        self._rebalance(now)

    def _follow_instances(self):
        for member in list(self.instance_states):
            state = member.instance.state
            if member.lifecycle_state == "Terminating":
                if state == "terminated":
                    self.instance_states.remove(member)
                    member.activity.finish()
            elif state in ("shutting-down", "terminated", "stopping", "stopped"):
                if "HealthCheck" not in self._suspended and member.health_status == "Healthy":
                    member.health_status = "Unhealthy"
                    member.unhealthy_because = "an EC2 health check indicating it has been terminated or stopped"
            elif member.lifecycle_state == "Pending" and state == "running":
                member.lifecycle_state = "InService"
                member.activity.finish()

    def _replace_unhealthy(self):
        if self._suspended.keys() & {"ReplaceUnhealthy", "Terminate"}:
            return
        for member in self.counted():
            if member.health_status == "Unhealthy":
                self.terminate(
                    member, at(f"an instance was taken out of service in response to {member.unhealthy_because}.")
                )

    def _launch(self, now):
        missing = self.desired_capacity - len(self.counted())
        if missing <= 0 or "Launch" in self._suspended or now < self._retry_at:
            return
        without_capacity = set()
        for _ in range(missing):
            size = len(self.counted())
            cause = self._because(
                "an instance was started in response to a difference between desired and actual capacity, "
                f"increasing the capacity from {size} to {size + 1}."
            )
            for zone in placement.launch_order(self.availability_zones, self.counted()):
                if zone not in without_capacity:
                    if self._launch_in(zone, cause):
                        break
                    without_capacity.add(zone)
            else:
                self._retry_at = now + RETRY
                return
        self._request = None

    def _launch_in(self, zone, cause):
        """Launches one instance in the zone; what fails becomes a failed activity."""
        subnet = self._subnet(zone)
        activity = self.autoscaling_backend.history.add(self, "Launching a new EC2 instance", cause, zone, subnet)
        version = None
        if self.ec2_launch_template:
            version = self.ec2_launch_template.get_version(self.launch_template_version)
        spot = self._wants_spot()
        failure = "The group has neither a launch template nor a launch configuration."
        for instance_type in self._instance_types():
            try:
                instance = self._run(zone, subnet, version, instance_type, spot)
            except ServiceException as error:
                failure = error.message
                if spot is not None:
                    kind = "Spot" if spot else "On-Demand"
                    failure = f"Could not launch {kind} Instances. {error.code} - {error.message}"
                continue
            activity.description = f"Launching a new EC2 instance: {instance.id}"
            member = Member(self, instance, version, "Pending")
            member.activity = activity
            self.instance_states.append(member)
            return member
        activity.fail(failure)
        return None

    def _run(self, zone, subnet, version, instance_type, spot):
        data = version.data if version else {}
        template = None
        if version:
            template = {"LaunchTemplateId": version.template.id, "Version": str(version.number)}
        profile = data.get("IamInstanceProfile") or {}
        if profile:
            filter_iam_instance_profiles(
                self.account_id, self.ec2_backend.partition, profile.get("Arn"), profile.get("Name")
            )
        mappings = [m for m in data.get("BlockDeviceMappings", []) if "Ebs" in m]
        reservation = self.ec2_backend.run_instances(
            self.image_id,
            1,
            self.user_data,
            self.security_groups,
            group=self.name,
            instance_type=instance_type,
            is_instance_type_default=False,
            region_name=self.region,
            placement=zone,
            subnet_id=subnet,
            tags={"instance": {ASG_NAME_TAG: self.name, **self.get_propagated_tags(), **self.instance_tags}},
            launch_config=self.launch_config,
            launch_template=template,
            associate_public_ip=self.launch_config.associate_public_ip_address if self.launch_config else None,
            instance_market_options="spot" if spot else None,
            metadata_options=data.get("MetadataOptions", {}),
            **({"block_device_mappings": mappings} if mappings else {}),
        )
        instance = reservation.instances[0]
        instance.autoscaling_group = self
        if profile:
            self.ec2_backend.associate_iam_instance_profile(instance.id, profile.get("Name"), profile.get("Arn"))
        return instance

    def _scale_in(self):
        surplus = len(self.counted()) - self.desired_capacity
        # What balances the zones comes on top until it serves.
        surplus -= sum(m.rebalances and m.lifecycle_state == "Pending" for m in self.counted())
        if "Terminate" in self._suspended:
            return
        for _ in range(surplus):
            members = self.counted()
            on_demand = self._on_demand_share()
            victim = placement.victim(self.availability_zones, members, self.termination_policies, on_demand)
            if victim is None:
                return
            why = self._because(
                "an instance was taken out of service in response to a difference between desired and actual "
                f"capacity, shrinking the capacity from {len(members)} to {len(members) - 1}."
            )
            self.terminate(victim, f"{why}  {at(f'instance {victim.instance_id} was selected for termination.')}")
        if surplus > 0:
            self._request = None

    def _rebalance(self, now):
        """AWS: where zones differ by more than one instance, one is launched in the poorest, even
        above the maximum size, and when it serves, one in the richest is terminated."""
        members = self.counted()
        at_rest = len(members) == self.desired_capacity and all(m.lifecycle_state == "InService" for m in members)
        poorest = placement.imbalance(self.availability_zones, members)
        if not at_rest or poorest is None or self._suspended.keys() & {"AZRebalance", "Launch", "Terminate"}:
            self._balanced_at = now
        elif now - self._balanced_at >= REBALANCE:
            self._balanced_at = now
            cause = at(
                f"instances were launched to balance instances in zones {poorest} with other zones "
                "resulting in more than desired number of instances in the group."
            )
            member = self._launch_in(poorest, cause)
            if member:
                member.rebalances = True

    def terminate(self, member, cause):
        """Takes an instance out of service and ends it. Termination protection of the instance
        is no obstacle, as at AWS."""
        if member.lifecycle_state == "Terminating":
            return member.activity
        if member.activity:
            member.activity.cancel("The instance was terminated before it was in service.")
        member.activity = self.autoscaling_backend.history.add(
            self,
            f"Terminating EC2 instance: {member.instance_id}",
            cause,
            member.availability_zone,
            member.instance.subnet_id,
        )
        member.lifecycle_state = "Terminating"
        member.instance.terminate()
        return member.activity

    def _because(self, sentence):
        return "  ".join(filter(None, [self._request, at(sentence)]))

    # ---- where and what to launch

    def _subnet(self, zone):
        for subnet_id in (self.vpc_zone_identifier or "").split(","):
            if subnet_id and self.ec2_backend.get_subnet(subnet_id).availability_zone == zone:
                return subnet_id
        return None

    def _instance_types(self):
        """The types to try in this order; the overrides of a mixed instances policy replace the
        type of the template, prioritized as they are listed."""
        overrides = (self.mixed_instances_policy or {}).get("LaunchTemplate", {}).get("Overrides", [])
        return [o["InstanceType"] for o in overrides if "InstanceType" in o] or [self.instance_type]

    def _on_demand_share(self):
        """How many On-Demand instances a group with both markets should have; None without a
        mixed instances policy, where the launch template says it."""
        if not self.mixed_instances_policy:
            return None
        distribution = self.mixed_instances_policy.get("InstancesDistribution", {})
        return placement.on_demand_share(
            self.desired_capacity,
            int(distribution.get("OnDemandBaseCapacity") or 0),
            int(distribution.get("OnDemandPercentageAboveBaseCapacity", 100)),
        )

    def _wants_spot(self):
        share = self._on_demand_share()
        if share is None:
            return None
        return sum(m.market == "on-demand" for m in self.counted()) >= share

    # ---- CloudFormation

    @classmethod
    def create_from_cloudformation_json(cls, resource_name, cloudformation_json, account_id, region_name, **kwargs):
        properties = cloudformation_json["Properties"]
        group = autoscaling_backends[account_id][region_name].create_auto_scaling_group(
            name=resource_name,
            availability_zones=properties.get("AvailabilityZones", []),
            desired_capacity=properties.get("DesiredCapacity"),
            max_size=properties.get("MaxSize"),
            min_size=properties.get("MinSize"),
            launch_config_name=properties.get("LaunchConfigurationName"),
            launch_template=properties.get("LaunchTemplate", {}),
            mixed_instances_policy=properties.get("MixedInstancesPolicy", {}),
            vpc_zone_identifier=",".join(properties.get("VPCZoneIdentifier", [])) or None,
            default_cooldown=properties.get("Cooldown"),
            health_check_period=properties.get("HealthCheckGracePeriod"),
            health_check_type=properties.get("HealthCheckType"),
            load_balancers=properties.get("LoadBalancerNames", []),
            target_group_arns=properties.get("TargetGroupARNs", []),
            placement_group=None,
            termination_policies=properties.get("TerminationPolicies", []),
            tags=[dict(tag) for tag in properties.get("Tags", [])],
            capacity_rebalance=properties.get("CapacityRebalance", False),
            new_instances_protected_from_scale_in=properties.get("NewInstancesProtectedFromScaleIn", False),
        )
        group.stack_tags = tag_dict(properties.get("Tags", [])).keys()
        return group

    @classmethod
    def update_from_cloudformation_json(
        cls, original_resource, new_resource_name, cloudformation_json, account_id, region_name
    ):
        """AWS: the group is updated in place and keeps its instances; moto makes a new one. What
        the template does not mention, like the desired capacity, stays as it is."""
        properties = cloudformation_json["Properties"]
        backend = autoscaling_backends[account_id][region_name]
        backend.update_auto_scaling_group(
            original_resource.name,
            availability_zones=properties.get("AvailabilityZones", []),
            desired_capacity=properties.get("DesiredCapacity"),
            max_size=properties.get("MaxSize"),
            min_size=properties.get("MinSize"),
            launch_config_name=properties.get("LaunchConfigurationName"),
            launch_template=properties.get("LaunchTemplate", {}),
            mixed_instances_policy=properties.get("MixedInstancesPolicy"),
            vpc_zone_identifier=",".join(properties.get("VPCZoneIdentifier", [])) or None,
            default_cooldown=properties.get("Cooldown"),
            health_check_period=properties.get("HealthCheckGracePeriod"),
            health_check_type=properties.get("HealthCheckType"),
            termination_policies=properties.get("TerminationPolicies"),
            capacity_rebalance=properties.get("CapacityRebalance"),
            new_instances_protected_from_scale_in=properties.get("NewInstancesProtectedFromScaleIn"),
        )
        # What somebody else has put on the group stays.
        own = tag_dict(properties.get("Tags", [])).keys() | original_resource.stack_tags
        others = [tag for tag in original_resource.tags if tag["Key"] not in own]
        original_resource.tags = [dict(tag) for tag in properties.get("Tags", [])] + others
        original_resource.stack_tags = tag_dict(properties.get("Tags", [])).keys()
        return original_resource


def _completed(policy, before):
    """What an update says of a mixed instances policy, with what it leaves out: AWS keeps the
    current values, and takes its defaults in a group that had no policy."""
    defaults = {"OnDemandBaseCapacity": 0, "OnDemandPercentageAboveBaseCapacity": 100}
    return {
        "LaunchTemplate": {**before.get("LaunchTemplate", {}), **policy.get("LaunchTemplate", {})},
        "InstancesDistribution": {
            **defaults,
            **before.get("InstancesDistribution", {}),
            **policy.get("InstancesDistribution", {}),
        },
    }


def _check_sizes(minimum, maximum, desired):
    if minimum > maximum:
        raise ValidationError(f"Max bound, {maximum}, must be greater than or equal to min bound, {minimum}")
    if not minimum <= desired <= maximum:
        raise ValidationError(
            f"Desired capacity:{desired} must be between the specified min size:{minimum} and max size:{maximum}"
        )


@extends(models.AutoScalingBackend)
class Backend:
    def __init__(self, *args, **kwargs):
        _create_backend(self, *args, **kwargs)
        self.autoscaling_groups = Groups()
        self.history = History()

    def create_auto_scaling_group(self, name, *args, **kwargs):
        """AWS: a name can be used once; moto replaces the group and forgets its instances."""
        if name in self.autoscaling_groups:
            raise AutoscalingClientError(
                "AlreadyExists",
                f"AutoScalingGroup by this name already exists - A group with the name {name} already exists",
            )
        return _create_in_backend(self, name, *args, **kwargs)

    def update_auto_scaling_group(
        self,
        name,
        availability_zones=(),
        desired_capacity=None,
        max_size=None,
        min_size=None,
        launch_config_name=None,
        launch_template=None,
        vpc_zone_identifier=None,
        default_cooldown=None,
        health_check_period=None,
        health_check_type=None,
        termination_policies=None,
        capacity_rebalance=None,
        new_instances_protected_from_scale_in=None,
        mixed_instances_policy=None,
    ):
        """AWS: what is not given stays, sizes are checked before anything changes, and new bounds
        move the desired capacity. moto drops a mixed instances policy that is not repeated."""
        if sum(map(bool, (launch_config_name, launch_template, mixed_instances_policy))) > 1:
            raise ValidationError(
                "Valid requests must contain either LaunchTemplate, LaunchConfigurationName "
                "or MixedInstancesPolicy parameter."
            )
        group = self.autoscaling_groups[name]
        minimum = group.min_size if min_size is None else int(min_size)
        maximum = group.max_size if max_size is None else int(max_size)
        if minimum > maximum:
            _check_sizes(minimum, maximum, group.desired_capacity)
        desired = min(max(group.desired_capacity, minimum), maximum)
        if desired_capacity is not None:
            desired = int(desired_capacity)
        _check_sizes(minimum, maximum, desired)

        group._set_azs_and_vpcs(availability_zones, vpc_zone_identifier, update=True)
        if launch_template or launch_config_name or mixed_instances_policy:
            if mixed_instances_policy:
                mixed_instances_policy = _completed(mixed_instances_policy, group.mixed_instances_policy or {})
            group.mixed_instances_policy = mixed_instances_policy
            group._set_launch_configuration(launch_config_name, launch_template, mixed_instances_policy)
        group.min_size, group.max_size = minimum, maximum
        for attribute, value in {
            "default_cooldown": default_cooldown,
            "health_check_grace_period": health_check_period,
            "health_check_type": health_check_type,
            "termination_policies": termination_policies,
            "capacity_rebalance": capacity_rebalance,
            "new_instances_protected_from_scale_in": new_instances_protected_from_scale_in,
        }.items():
            if value is not None:
                setattr(group, attribute, value)
        group.request(desired, "a user request update of AutoScalingGroup constraints")
        return group

    def set_desired_capacity(self, group_name, desired_capacity):
        group = self.autoscaling_groups[group_name]
        if desired_capacity > group.max_size:
            raise ValidationError(
                f"New SetDesiredCapacity value {desired_capacity} is above max value {group.max_size} "
                "for the AutoScalingGroup."
            )
        if desired_capacity < group.min_size:
            raise ValidationError(
                f"New SetDesiredCapacity value {desired_capacity} is below min value {group.min_size} "
                "for the AutoScalingGroup."
            )
        group.request(desired_capacity, "a user request explicitly set group desired capacity")

    def delete_auto_scaling_group(self, group_name, force=True):
        """AWS: a group with instances is only deleted by force, and is there until they are gone."""
        group = self.autoscaling_groups[group_name]
        if group.instance_states and not force:
            raise AutoscalingClientError(
                "ResourceInUse",
                "You cannot delete an AutoScalingGroup while there are instances or pending Spot instance "
                "request(s) still in the group.",
            )
        group.deleting = True
        group.min_size = group.desired_capacity = 0
        for member in group.instance_states:
            member.protected_from_scale_in = False
            if member.lifecycle_state not in (*COUNTED, "Terminating"):
                group.terminate(member, at("an instance was taken out of service in response to a user request."))
        group.suspended_processes = []

    def terminate_instance(self, instance_id, should_decrement):
        group, member = self._managed(instance_id)
        before = group.desired_capacity
        cause = f"instance {instance_id} was taken out of service in response to a user request"
        if should_decrement:
            self._check_decrement(group, 1, "Terminating instance")
            # Also where the instance is terminating already: AWS does not promise otherwise, and a
            # client that simply repeats the request is to be found out.
            group.desired_capacity -= 1
            cause += f", shrinking the capacity from {before} to {group.desired_capacity}"
        return group.terminate(member, at(cause + "."))

    def detach_instances(self, group_name, instance_ids, should_decrement):
        group = self.autoscaling_groups[group_name]
        members = [group.find(i) for i in instance_ids]
        before = group.desired_capacity
        if should_decrement:
            self._check_decrement(group, len(members), "Detaching instance")
            group.desired_capacity -= len(members)
        activities = []
        for member in members:
            group.instance_states.remove(member)
            self.ec2_backend.delete_tags([member.instance_id], {ASG_NAME_TAG: group.name})
            activities.append(self._moved(group, member, "Detaching EC2 instance", "detached", before))
        return activities

    def attach_instances(self, group_name, instance_ids):
        group = self.autoscaling_groups[group_name]
        wanted = group.desired_capacity + len(instance_ids)
        if wanted > group.max_size:
            raise ValidationError(
                f"AutoScalingGroup max size {group.max_size} is below the resulting desired capacity {wanted}."
            )
        for instance_id in instance_ids:
            instance = self.ec2_backend.get_instance(instance_id)
            instance.autoscaling_group = group
            instance.add_tags({ASG_NAME_TAG: group.name})
            group.instance_states.append(Member(group, instance, None, "InService"))
        group.desired_capacity = wanted

    def enter_standby_instances(self, group_name, instance_ids, should_decrement):
        group = self.autoscaling_groups[group_name]
        members = [group.find(i) for i in instance_ids]
        before = group.desired_capacity
        if should_decrement:
            self._check_decrement(group, len(members), "Moving instance to Standby")
            group.desired_capacity -= len(members)
        for member in members:
            member.lifecycle_state = "Standby"
        return [self._moved(group, m, "Moving EC2 instance to Standby", "moved to standby", before) for m in members]

    def exit_standby_instances(self, group_name, instance_ids):
        group = self.autoscaling_groups[group_name]
        members = [group.find(i) for i in instance_ids]
        before = group.desired_capacity
        if before + len(members) > group.max_size:
            raise ValidationError(
                f"Exiting standby would raise the desired capacity above the max size {group.max_size}."
            )
        group.desired_capacity += len(members)
        for member in members:
            member.lifecycle_state = "InService"
        return [
            self._moved(group, m, "Moving EC2 instance out of Standby", "moved out of standby", before) for m in members
        ]

    def _moved(self, group, member, description, what, before):
        change = ""
        if group.desired_capacity != before:
            verb = "shrinking" if group.desired_capacity < before else "increasing"
            change = f", {verb} the capacity from {before} to {group.desired_capacity}"
        activity = self.history.add(
            group,
            f"{description}: {member.instance_id}",
            at(f"instance {member.instance_id} was {what} in response to a user request{change}."),
            member.availability_zone,
            member.instance.subnet_id,
        )
        activity.finish()
        return activity

    def set_instance_health(self, instance_id, health_status):
        _, member = self._managed(instance_id)
        member.health_status = health_status

    def set_instance_protection(self, group_name, instance_ids, protected_from_scale_in):
        group = self.autoscaling_groups[group_name]
        members = [group.find(i) for i in instance_ids]
        for member in members:
            if member.lifecycle_state not in ("InService", "EnteringStandby", "Standby"):
                raise ValidationError(
                    f"The instance {member.instance_id} is not in InService or EnteringStandby or Standby."
                )
        for member in members:
            member.protected_from_scale_in = protected_from_scale_in

    def suspend_processes(self, group_name, scaling_processes):
        group = self.autoscaling_groups[group_name]
        group.suspended_processes = group._suspended.keys() | set(scaling_processes or PROCESSES)

    def resume_processes(self, group_name, scaling_processes):
        group = self.autoscaling_groups[group_name]
        group.suspended_processes = group._suspended.keys() - set(scaling_processes or PROCESSES)

    def notify_terminate_instances(self, instance_ids):
        """AWS: the group notices at its next health check that an instance is gone."""

    def _managed(self, instance_id):
        for group in self.autoscaling_groups.values():
            for member in group.instance_states:
                if member.instance_id == instance_id:
                    return group, member
        raise ValidationError(f"Instance Id not found - No managed instance found for instance ID: {instance_id}")

    def _check_decrement(self, group, by, doing):
        if group.desired_capacity - by >= group.min_size:
            return
        if group.desired_capacity == group.min_size:
            raise ValidationError(
                f"Currently, desiredSize equals minSize ({group.min_size}). {doing} without replacement will "
                "violate group's min size constraint. Either set shouldDecrementDesiredCapacity flag to false "
                "or lower group's min size."
            )
        raise ValidationError(
            f"{doing} without replacement would reduce the desired capacity from {group.desired_capacity} by {by}, "
            f"below the group's min size {group.min_size}."
        )


PROCESSES = (
    "Launch",
    "Terminate",
    "AddToLoadBalancer",
    "AlarmNotification",
    "AZRebalance",
    "HealthCheck",
    "InstanceRefresh",
    "ReplaceUnhealthy",
    "ScheduledActions",
)


@every_tick
def reconcile_groups(now):
    for _, _, backend in autoscaling_backends.iter_backends():
        for group in list(backend.autoscaling_groups.values()):
            group.reconcile(now)
            if group.deleting and not group.instance_states:
                del backend.autoscaling_groups[group.name]
