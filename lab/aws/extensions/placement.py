"""Decisions of Amazon EC2 Auto Scaling as pure functions, after its user guide."""

import math
from collections.abc import Iterable
from typing import Protocol


class Member(Protocol):
    """What the decisions look at in an instance of a group."""

    availability_zone: str
    market: str
    launch_template_version: int
    launched: float
    protected_from_scale_in: bool


def count_by_zone(zones: list[str], members: Iterable[Member]) -> dict[str, int]:
    counts = dict.fromkeys(zones, 0)
    for member in members:
        # A zone that the group has left still holds its instances.
        counts[member.availability_zone] = counts.get(member.availability_zone, 0) + 1
    return counts


def launch_order(zones: list[str], members: Iterable[Member]) -> list[str]:
    """The zones to try for the next launch: the one with the fewest instances first; where that
    one has no capacity, Auto Scaling tries the others."""
    counts = count_by_zone(zones, members)
    return sorted(zones, key=lambda zone: counts[zone])


def imbalance(zones: list[str], members: Iterable[Member]) -> str | None:
    """The zone that has too few instances, if zones differ by more than one."""
    counts = count_by_zone(zones, members)
    poorest = min(zones, key=lambda zone: counts[zone])
    return poorest if max(counts.values()) - counts[poorest] > 1 else None


def on_demand_share(desired: int, base: int, percentage: int) -> int:
    """How many of the desired instances are On-Demand; fractions go to On-Demand."""
    above = max(0, desired - base)
    return min(desired, base) + math.ceil(above * percentage / 100)


def victim(zones: list[str], members: Iterable[Member], policies: list[str], on_demand: int | None) -> Member | None:
    """The instance that a scale-in ends: of the unprotected ones in the zone with the most
    instances, the one that the termination policies, applied in order, leave; among equals the
    oldest. on_demand is how many On-Demand instances a group with both markets should have."""
    members = list(members)
    candidates = [m for m in members if not m.protected_from_scale_in]
    if not candidates:
        return None
    counts = count_by_zone(zones, members)
    most = max(counts[m.availability_zone] for m in candidates)
    candidates = [m for m in candidates if counts[m.availability_zone] == most]
    for policy in policies:
        if policy in ("Default", "AllocationStrategy") and on_demand is not None:
            excess = "on-demand" if sum(m.market == "on-demand" for m in members) > on_demand else "spot"
            candidates = [m for m in candidates if m.market == excess] or candidates
        if policy in ("Default", "OldestLaunchTemplate"):
            oldest = min(m.launch_template_version for m in candidates)
            candidates = [m for m in candidates if m.launch_template_version == oldest]
        if policy == "OldestInstance":
            candidates = [min(candidates, key=lambda m: m.launched)]
        if policy == "NewestInstance":
            candidates = [max(candidates, key=lambda m: m.launched)]
    return min(candidates, key=lambda m: m.launched)
