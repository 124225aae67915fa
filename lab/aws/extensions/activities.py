"""Scaling activities: what a group did and why, in the words that AWS uses."""

import json
from collections import deque
from datetime import UTC, datetime

from moto.moto_api._internal import mock_random as random


def timestamp() -> str:
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"


def at(sentence: str) -> str:
    return f"At {timestamp()} {sentence}"


class Activity:
    """One launch or termination; the attributes are those of DescribeScalingActivities."""

    def __init__(self, group, description: str, cause: str, zone: str, subnet: str | None):
        self.activity_id = str(random.uuid4())
        self.auto_scaling_group_name = group.name
        self.auto_scaling_group_arn = group.arn
        self.description = description
        self.cause = cause
        self.details = json.dumps({"Subnet ID": subnet, "Availability Zone": zone})
        self.start_time = datetime.now(UTC)
        self.end_time = None
        self.status_code = "InProgress"
        self.status_message = None
        self.progress = 30

    def finish(self) -> None:
        self._end("Successful")

    def fail(self, reason: str) -> None:
        self.status_message = f"{reason} Launching EC2 instance failed."
        self.description = f"{self.description}.  Status Reason: {self.status_message}"
        self._end("Failed")

    def cancel(self, reason: str) -> None:
        """Ends an activity that is still under way."""
        if self.end_time is None:
            self.status_message = reason
            self._end("Cancelled")

    def _end(self, status: str) -> None:
        self.status_code, self.progress, self.end_time = status, 100, datetime.now(UTC)


class History:
    """The latest activities of all groups, also of deleted ones, newest first."""

    def __init__(self):
        self._activities = deque(maxlen=5000)

    def add(self, *args) -> Activity:
        activity = Activity(*args)
        self._activities.appendleft(activity)
        return activity

    def find(self, group: str | None, ids: list[str], live: set[str] | None) -> list[Activity]:
        """live restricts the answer to activities of these group ARNs."""
        return [
            a
            for a in self._activities
            if group in (None, a.auto_scaling_group_name)
            and (not ids or a.activity_id in ids)
            and (live is None or a.auto_scaling_group_arn in live)
        ]
