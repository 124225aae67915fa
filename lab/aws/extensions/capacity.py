"""The faults of machines that a test can switch on: capacity shortages and launches that fail."""

from dataclasses import dataclass

from moto.ec2.exceptions import EC2ClientError

# Set on an instance that is never to become a node.
NEVER_BOOTS_TAG = "lab.fairway.dev/never-boots"


@dataclass
class Shortage:
    """No capacity; a field that is not set matches everything."""

    zone: str | None = None
    instance_type: str | None = None
    market: str | None = None  # "spot" or "on-demand"

    def covers(self, zone: str, instance_type: str, market: str) -> bool:
        return (
            self.zone in (None, zone) and self.instance_type in (None, instance_type) and self.market in (None, market)
        )


@dataclass
class LaunchFailure:
    """The next count instances (of the group, if set) launch and never become nodes."""

    count: int
    group: str | None = None


shortages: list[Shortage] = []
launch_failures: list[LaunchFailure] = []


class InsufficientInstanceCapacity(EC2ClientError):
    code = "InsufficientInstanceCapacity"


def short(zone: str, instance_type: str, market: str) -> bool:
    """Says whether this cannot be launched now."""
    return any(s.covers(zone, instance_type, market) for s in shortages)


def check(zone: str, zones: list[str], instance_type: str, market: str) -> None:
    """Raises what RunInstances answers when there is a shortage, in the words of AWS."""
    if not short(zone, instance_type, market):
        return
    if market == "spot":
        raise InsufficientInstanceCapacity("There is no Spot capacity available that matches your request.")
    message = (
        f"We currently do not have sufficient {instance_type} capacity in the Availability Zone "
        f"you requested ({zone}). Our system will be working on provisioning additional capacity."
    )
    others = [z for z in zones if not short(z, instance_type, market)]
    if others:
        message += (
            f" You can currently get {instance_type} capacity by not specifying an Availability Zone "
            f"in your request or choosing {', '.join(others)}."
        )
    raise InsufficientInstanceCapacity(message)


def launch_fails(group: str | None) -> bool:
    """Says whether the instance just launched is to fail, and counts it."""
    for failure in launch_failures:
        if failure.group in (None, group):
            failure.count -= 1
            if failure.count == 0:
                launch_failures.remove(failure)
            return True
    return False
