"""CloudFormation templates: what refers to what, and what a new template would change."""

import copy
import re
from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter

from moto.cloudformation.exceptions import ValidationError
from moto.cloudformation.parsing import ResourceMap, clean_json

_SUB = re.compile(r"\$\{([^!}][^}]*)\}")


def references(node) -> Iterator[tuple[str, str | None]]:
    """What a piece of a template refers to: names, each with the attribute if it takes one."""
    if isinstance(node, list):
        for item in node:
            yield from references(item)
    if not isinstance(node, dict):
        return
    for key, value in node.items():
        if key == "Ref":
            yield value, None
        elif key == "Fn::GetAtt":
            name, _, attribute = value.partition(".") if isinstance(value, str) else (value[0], "", value[1])
            yield name, attribute
        elif key == "Fn::Sub":
            for reference in _SUB.findall(value[0] if isinstance(value, list) else value):
                name, _, attribute = reference.strip().partition(".")
                yield name, attribute or None
            yield from references(value[1:] if isinstance(value, list) else [])
        elif key == "DependsOn":
            for name in [value] if isinstance(value, str) else value:
                yield name, None
        else:
            yield from references(value)


def dependency_order(resources: dict) -> list[str]:
    """The resources of a template, each after those that it refers to."""
    graph = {
        name: [to for to, _ in references(resource) if to in resources and to != name]
        for name, resource in resources.items()
    }
    try:
        return list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        names = ", ".join(sorted(set(error.args[1])))
        raise ValidationError(message=f"Circular dependency between resources: [{names}]") from error


def wanted(resources: ResourceMap, name: str) -> bool:
    """Says whether the condition of a resource, if it has one, holds."""
    condition = resources._resource_json_map[name].get("Condition")
    return not condition or bool(resources.lazy_condition_map[condition])


def resolve(resources: ResourceMap, name: str) -> dict:
    """A resource's definition without functions and references."""
    definition = resources._resource_json_map[name]
    return {
        "Type": definition["Type"],
        "Properties": clean_json(copy.deepcopy(definition.get("Properties", {})), resources),
    }


def imports(resources: ResourceMap, node) -> Iterator[str]:
    """The exports of other stacks that a piece of a template uses."""
    if isinstance(node, list):
        for item in node:
            yield from imports(resources, item)
    elif isinstance(node, dict):
        for key, value in node.items():
            if key == "Fn::ImportValue":
                yield clean_json(value, resources)
            else:
                yield from imports(resources, value)


@dataclass
class Change:
    """A change of one resource, as DescribeChangeSet shows it."""

    action: str  # Add, Modify or Remove
    logical_resource_id: str
    resource_type: str
    physical_resource_id: str | None = None
    replacement: str | None = None


class _Planned:
    """Stands for a resource that is not there yet."""

    physical_resource_id = "{{changeSet:KNOWN_AFTER_APPLY}}"

    def get_cfn_attribute(self, _):
        return self.physical_resource_id


def preview(current: ResourceMap, deployed: dict, template: dict, parameters: dict) -> list[Change]:
    """What a template would change in what was deployed. Reading a resource of a moto map that
    is not there creates it; hence the stand-ins."""
    trial = ResourceMap(
        current.stack_id,
        current._parsed_resources["AWS::StackName"],
        parameters,
        current.tags,
        account_id=current._account_id,
        region_name=current._region_name,
        template=template,
        cross_stack_resources=current.cross_stack_resources,
    )
    trial.load()
    there = {name: current._parsed_resources.get(name) for name in deployed}
    changes = []
    changed = set()
    for name in dependency_order(template["Resources"]):
        if not wanted(trial, name):
            continue
        resource_type = template["Resources"][name]["Type"]
        if name not in deployed:
            trial._parsed_resources[name] = _Planned()
            changes.append(Change("Add", name, resource_type))
            continue
        trial._parsed_resources[name] = there[name]
        # An attribute of something that changes, like the latest version of a launch template,
        # may be another one then.
        follows = any(to in changed and attribute for to, attribute in references(template["Resources"][name]))
        if follows or resolve(trial, name) != deployed[name]:
            changed.add(name)
            physical = getattr(there[name], "physical_resource_id", None)
            changes.append(Change("Modify", name, resource_type, physical, "False"))
    for name, definition in deployed.items():
        if name not in template["Resources"] or not wanted(trial, name):
            physical = getattr(there[name], "physical_resource_id", None)
            changes.append(Change("Remove", name, definition["Type"], physical))
    return changes
