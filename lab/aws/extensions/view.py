"""What the bridge to Kubernetes needs to know, several times a second, at a hundredth of the
cost of DescribeInstances and DescribeStacks."""

from datetime import UTC

from moto.cloudformation.models import cloudformation_backends
from moto.ec2 import ec2_backends
from moto.ec2.models.instance_types import INSTANCE_TYPES


def view() -> dict:
    return {
        "stacks": [
            {"id": stack.stack_id, "status": stack.status, "tags": stack.tags}
            for _, _, backend in cloudformation_backends.iter_backends()
            for stack in [*backend.stacks.values(), *backend.deleted_stacks.values()]
        ],
        "instances": [
            _instance(instance)
            for _, _, backend in ec2_backends.iter_backends()
            for reservation in backend.reservations.values()
            for instance in reservation.instances
            if instance.state not in ("shutting-down", "terminated")
        ],
    }


def _instance(instance) -> dict:
    size = INSTANCE_TYPES.get(instance.instance_type, {})
    return {
        "id": instance.id,
        "state": instance.state,
        "launched": instance.launch_time.replace(tzinfo=UTC).isoformat(),
        "zone": instance.placement.zone,
        "region": instance.region_name,
        "dns_name": instance.private_dns_name,
        "address": instance.private_ip,
        "type": instance.instance_type,
        "cpus": size.get("VCpuInfo", {}).get("DefaultVCpus", 0),
        "memory_mib": size.get("MemoryInfo", {}).get("SizeInMiB", 0),
        "tags": instance.ec2_backend.tags.get(instance.id, {}),
    }
