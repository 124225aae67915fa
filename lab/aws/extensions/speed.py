"""Not a difference to AWS but to its speed: what makes moto slow with some hundred resources."""

from moto.core.serialize import XFormedAttributePicker
from moto.ec2.models.core import TaggedEC2Resource

from . import extends

_possible_keys = XFormedAttributePicker.get_possible_keys
_known_keys = {}


@extends(XFormedAttributePicker)
class Keys:
    """moto tries the same names for a field of an answer with every object of a class."""

    def get_possible_keys(self, context):
        field = type(context.obj), context.key, id(context.shape)
        if field not in _known_keys:
            # With the shape, which must live as long as its id stands for it.
            _known_keys[field] = list(_possible_keys(self, context)), context.shape
        return _known_keys[field][0]


@extends(TaggedEC2Resource)
class Tags:
    """moto matches every tag of the account against the id of each resource that it describes."""

    def get_tags(self):
        return [
            {"key": key, "value": value, "resource_id": self.id}
            for key, value in self.ec2_backend.tags.get(self.id, {}).items()
        ]
