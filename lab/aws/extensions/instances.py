"""EC2: instances take time to start and to end, launches can lack capacity."""

import time

from moto.ec2 import ec2_backends
from moto.ec2.models import instances as models
from moto.ec2.models.instances import InstanceBackend

from . import capacity, extends
from .clock import every_tick

# Seconds from RunInstances to running, from TerminateInstances to terminated, and from there
# until DescribeInstances forgets the instance (an hour at AWS; here the bridge reads the list
# several times a second).
PENDING = 0.5
SHUTTING_DOWN = 1.0
REMEMBERED = 600.0

_create = models.Instance.__init__
_release = models.Instance.terminate
_run_instances = InstanceBackend.run_instances


@extends(models.Instance)
class Instance:
    """AWS: an instance is pending before it runs, and shutting-down, still with its volumes and
    its address, before it is terminated. moto's instances run and are terminated at once."""

    def __init__(self, *args, **kwargs):
        _create(self, *args, **kwargs)
        self.enter("pending", 0)

    def enter(self, name, code):
        self._state = models.InstanceState(name, code)
        self.since = time.monotonic()

    @property
    def market(self):
        return "spot" if self.lifecycle == "spot" else "on-demand"

    def terminate(self):
        previous = self._state
        if previous.name not in ("shutting-down", "terminated"):
            self.enter("shutting-down", 32)
        return previous

    def advance(self, now):
        elapsed = now - self.since
        if self.state == "pending" and elapsed >= PENDING:
            self.enter("running", 16)
        elif self.state == "shutting-down" and elapsed >= SHUTTING_DOWN:
            _release(self)
            # AWS deletes the primary network interface with its instance; moto leaves it in the
            # subnet, which could then never be deleted. The address is not used again: node
            # names are made from it.
            for nic in self.nics.values():
                self.ec2_backend.enis.pop(nic.id, None)
            self.enter("terminated", 48)


@every_tick
def advance_instances(now):
    for _, _, backend in ec2_backends.iter_backends():
        for reservation in list(backend.reservations.values()):
            for instance in reservation.instances:
                instance.advance(now)
            if all(i.state == "terminated" and now - i.since >= REMEMBERED for i in reservation.instances):
                del backend.reservations[reservation.id]
                for instance in reservation.instances:
                    backend.tags.pop(instance.id, None)


@extends(InstanceBackend)
class Launches:
    """AWS: RunInstances fails with InsufficientInstanceCapacity when there is none."""

    def run_instances(self, image_id, count, user_data, security_group_names, group=None, **kwargs):
        template = kwargs.get("launch_template")
        data = self._get_template_from_args(template).data if template else {}
        instance_type = kwargs.get("instance_type")
        if kwargs.get("is_instance_type_default"):
            instance_type = data.get("InstanceType", instance_type)
        spot = kwargs.get("instance_market_options") or data.get("InstanceMarketOptions")
        zones = [zone.name for zone in self.describe_availability_zones()]
        zone = kwargs.get("placement") or zones[0]
        if kwargs.get("subnet_id"):
            zone = self.get_subnet(kwargs["subnet_id"]).availability_zone
        capacity.check(zone, zones, instance_type, "spot" if spot else "on-demand")

        reservation = _run_instances(self, image_id, count, user_data, security_group_names, **kwargs)
        for instance in reservation.instances:
            if spot:
                instance.lifecycle = "spot"
            if capacity.launch_fails(group):
                instance.add_tag(capacity.NEVER_BOOTS_TAG, "true")
        return reservation
