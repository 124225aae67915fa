"""The API of Auto Scaling: what moto leaves out of requests and answers."""

from moto.autoscaling.responses import AutoScalingResponse
from moto.core.responses import ActionResult, EmptyResult

from . import extends


@extends(AutoScalingResponse)
class Responses:
    def describe_scaling_activities(self):
        backend = self.autoscaling_backend
        live = {group.arn for group in backend.autoscaling_groups.values()}
        activities = backend.history.find(
            self._get_param("AutoScalingGroupName"),
            self._get_param("ActivityIds", []),
            None if self._get_bool_param("IncludeDeletedGroups", False) else live,
        )
        page, token = self._page(activities, self._get_int_param("MaxRecords", 100))
        return ActionResult({"Activities": page, "NextToken": token})

    def describe_auto_scaling_instances(self):
        instances = self.autoscaling_backend.describe_auto_scaling_instances(self._get_param("InstanceIds", []))
        page, token = self._page(instances, self._get_int_param("MaxRecords", 50))
        return ActionResult({"AutoScalingInstances": page, "NextToken": token})

    def _page(self, items, size):
        """AWS answers in pages, 50 or 100 items if the request does not say how many."""
        start = int(self._get_param("NextToken") or 0)
        end = start + size
        return items[start:end], str(end) if end < len(items) else None

    def update_auto_scaling_group(self):
        self.autoscaling_backend.update_auto_scaling_group(
            self._get_param("AutoScalingGroupName"),
            availability_zones=self._get_param("AvailabilityZones", []),
            desired_capacity=self._get_int_param("DesiredCapacity"),
            max_size=self._get_int_param("MaxSize"),
            min_size=self._get_int_param("MinSize"),
            launch_config_name=self._get_param("LaunchConfigurationName"),
            launch_template=self._get_param("LaunchTemplate", {}),
            mixed_instances_policy=self._get_param("MixedInstancesPolicy"),
            vpc_zone_identifier=self._get_param("VPCZoneIdentifier"),
            default_cooldown=self._get_int_param("DefaultCooldown"),
            health_check_period=self._get_int_param("HealthCheckGracePeriod"),
            health_check_type=self._get_param("HealthCheckType"),
            termination_policies=self._get_param("TerminationPolicies"),
            capacity_rebalance=self._get_bool_param("CapacityRebalance", None),
            new_instances_protected_from_scale_in=self._get_bool_param("NewInstancesProtectedFromScaleIn", None),
        )
        return EmptyResult()

    def delete_auto_scaling_group(self):
        self.autoscaling_backend.delete_auto_scaling_group(
            self._get_param("AutoScalingGroupName"), self._get_bool_param("ForceDelete", False)
        )
        return EmptyResult()
