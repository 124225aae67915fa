"""What the lab adds to moto where moto falls short of AWS; README.md beside this package lists it.

moto finds a service's URLs, its CloudFormation types and its own classes by class object, so a
subclass would not be seen everywhere. The extensions are therefore put into moto's classes.
"""

from collections.abc import Callable
from typing import Any


def extends(original: type) -> Callable[[type], type]:
    """Puts what the decorated class defines into one of moto's classes.

    What it needs of the replaced methods it must have taken before, by name.
    """

    def install(extension: type) -> type:
        for name, value in vars(extension).items():
            if name == "__init__" or not name.startswith("__"):
                setattr(original, name, value)
        return original

    return install


def tag_dict(tags: list[dict[str, Any]]) -> dict[str, str]:
    """The tags of a request or a template by key."""
    return {tag["Key"]: tag["Value"] for tag in tags}
