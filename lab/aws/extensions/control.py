"""What a test switches on and off: paths below /lab, JSON in and out.

GET    /lab/state             what is switched on
GET    /lab/view              stacks and instances, for the bridge
PUT    /lab/shortage          {"zone", "instance_type", "market"}, each optional: no such capacity
DELETE /lab/shortage          ends all shortages
PUT    /lab/launch-failure    {"group" (optional), "count"}: instances that never become nodes
DELETE /lab/launch-failure    ends those
PUT    /lab/deletion-failure  {"stack", "count"}: the next deletions of the stack end in DELETE_FAILED
DELETE /lab/deletion-failure  ends those
"""

import json
from dataclasses import asdict

from . import capacity, stacks
from .view import view


def answer(method: str, path: str, body: bytes) -> tuple[str, dict]:
    """The status and the answer to a request."""
    try:
        request = json.loads(body or b"{}")
        match method, path:
            case "GET", "/lab/state":
                pass
            case "GET", "/lab/view":
                return "200 OK", view()
            case "PUT", "/lab/shortage":
                shortage = capacity.Shortage(**request)
                if shortage.market not in (None, "spot", "on-demand"):
                    raise ValueError('market must be "spot" or "on-demand"')
                capacity.shortages.append(shortage)
            case "DELETE", "/lab/shortage":
                capacity.shortages.clear()
            case "PUT", "/lab/launch-failure":
                failure = capacity.LaunchFailure(**request)
                if failure.count < 1:
                    raise ValueError("count must be at least 1")
                capacity.launch_failures.append(failure)
            case "DELETE", "/lab/launch-failure":
                capacity.launch_failures.clear()
            case "PUT", "/lab/deletion-failure":
                if not request.get("stack") or not isinstance(request.get("count"), int) or request["count"] < 1:
                    raise ValueError("stack must be a name and count at least 1")
                stacks.deletion_failures[request["stack"]] = request["count"]
            case "DELETE", "/lab/deletion-failure":
                stacks.deletion_failures.clear()
            case _:
                return "404 Not Found", {"error": f"there is no {method} {path}"}
    except (TypeError, ValueError) as error:
        return "400 Bad Request", {"error": str(error)}
    return "200 OK", {
        "shortages": [asdict(s) for s in capacity.shortages],
        "launch_failures": [asdict(f) for f in capacity.launch_failures],
        "deletion_failures": stacks.deletion_failures,
    }
