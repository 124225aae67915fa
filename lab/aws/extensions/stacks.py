"""CloudFormation: stacks change over time, one resource after the other, and roll back.

moto makes all changes within the request, in any order, does not notice what follows from a
change (a group follows the latest version of its launch template), replaces an updated group
with all its instances, and leaves a stack half-made when something fails.
"""

import time

from moto.autoscaling.models import FakeAutoScalingGroup, autoscaling_backends
from moto.cloudformation import models
from moto.cloudformation.exceptions import AlreadyExistsException, CloudFormationError, ValidationError
from moto.cloudformation.models import cloudformation_backends
from moto.cloudformation.parsing import parse_and_update_resource
from moto.cloudformation.utils import generate_changeset_id, generate_stack_id, validate_create_change_set
from moto.core.utils import utcnow
from moto.ec2.models import ec2_backends
from moto.ec2.models.core import TaggedEC2Resource

from . import extends, templates
from .clock import every_tick

# Seconds between two steps of an operation, and those after which a group that does not get its
# instances has failed (more than an hour at AWS).
STEP = 0.1
STABILIZE = 120.0

# How many more deletions of a stack, by its name, are to fail: a fault that tests switch on.
deletion_failures: dict[str, int] = {}

_create = models.Stack.__init__
_create_change_set = models.ChangeSet.__init__


class ResourceFailed(Exception):
    """A resource could not be brought to its new state; an event says why."""


@extends(models.Stack)
class Stack:
    def __init__(self, *args, **kwargs):
        self.operation = None  # a generator: makes a step and yields the seconds until the next
        self._next_step = 0.0
        self.on_failure = "ROLLBACK"
        self.request_token = None  # of the operation; its events carry it
        self.status_reason = self.last_updated_time = self.deletion_time = None
        self.deployed = {}  # the definitions, without references, of the resources that are there
        self.resource_states = {}  # the latest event of each resource
        self._outputs, self._exports, self.imports = None, [], set()
        _create(self, *args, **kwargs)
        # moto gives stacks that are made before the first export a list of their own.
        self.cross_stack_resources = cloudformation_backends[self.account_id][self.region_name].exports
        self.resource_map.cross_stack_resources = self.cross_stack_resources

    # moto computes these when asked, which creates what is not there yet or no more.
    outputs = property(lambda self: self._outputs)
    exports = property(lambda self: self._exports)

    @property
    def stack_resources(self):
        parsed = self.resource_map._parsed_resources
        return [parsed[name] for name in self.deployed if parsed.get(name) is not None]

    def busy(self):
        return self.operation is not None

    def begin(self, operation, request_token=None):
        self.operation, self.request_token = operation, request_token
        self._next_step = 0.0

    def advance(self, now):
        if self.operation is None or now < self._next_step:
            return
        try:
            self._next_step = now + next(self.operation)
        except StopIteration:
            self.operation = None

    def preview(self, template_dict, parameters):
        """The changes of resources that an update would make."""
        return templates.preview(self.resource_map, self.deployed, template_dict, parameters)

    def differs(self, template_dict, tags):
        """Says whether something besides resources is to change."""
        same_outputs = template_dict.get("Outputs") == self.template_dict.get("Outputs")
        return not same_outputs or (bool(tags) and tags != self.tags)

    # ---- operations

    def creating(self):
        self.report("CREATE_IN_PROGRESS", reason="User Initiated")
        yield STEP
        try:
            yield from self._apply(self.template, self.parameters, self.tags)
        except ResourceFailed as failed:
            if self.on_failure == "DO_NOTHING":
                self.report("CREATE_FAILED", reason=str(failed))
                return
            if self.on_failure == "DELETE":
                yield from self.deleting()
                return
            self.report("ROLLBACK_IN_PROGRESS", reason=f"{failed} Rollback requested by user.")
            try:
                yield from self._remove_all()
            except ResourceFailed as again:
                self.report("ROLLBACK_FAILED", reason=str(again))
                return
            self.report("ROLLBACK_COMPLETE")
            return
        self._finish("CREATE_COMPLETE")

    def updating(self, template, parameters, tags):
        before = self.template, self.parameters, self.tags
        self.last_updated_time = utcnow()
        self.report("UPDATE_IN_PROGRESS", reason="User Initiated")
        yield STEP
        try:
            yield from self._apply(template, parameters, tags)
            outcome = "UPDATE"
        except ResourceFailed as failed:
            self.report("UPDATE_ROLLBACK_IN_PROGRESS", reason=str(failed))
            yield STEP
            try:
                yield from self._apply(*before)
            except ResourceFailed as again:
                self.report("UPDATE_ROLLBACK_FAILED", reason=str(again))
                return
            outcome = "UPDATE_ROLLBACK"
        self.report(f"{outcome}_COMPLETE_CLEANUP_IN_PROGRESS")
        yield STEP
        yield from self._clean_up()
        self._finish(f"{outcome}_COMPLETE")

    def deleting(self):
        self.report("DELETE_IN_PROGRESS", reason="User Initiated")
        yield STEP
        try:
            yield from self._remove_all(failing=_deletion_fails(self.name))
        except ResourceFailed as failed:
            self.report("DELETE_FAILED", reason=str(failed))
            return
        backend = cloudformation_backends[self.account_id][self.region_name]
        for export in self._exports:
            backend.exports.pop(export.name, None)
        self.deletion_time = utcnow()
        self.report("DELETE_COMPLETE")
        backend.forget(self)

    # ---- their parts

    def _apply(self, template, parameters, tags):
        """Creates and updates resources, each after those that it refers to."""
        self._load(template, parameters, tags)
        for name in templates.dependency_order(self.template_dict["Resources"]):
            if not templates.wanted(self.resource_map, name):
                continue
            try:
                definition = templates.resolve(self.resource_map, name)
            except Exception as error:
                raise self._failed("CREATE" if name not in self.deployed else "UPDATE", name, error) from error
            if name not in self.deployed:
                yield from self._change("CREATE", name, definition)
            elif self.deployed[name] != definition:
                yield from self._change("UPDATE", name, definition)
        self._check_exports()

    def _load(self, template, parameters, tags):
        self.template, self.parameters, self.tags = template, parameters, tags
        self._parse_template()
        self.description = self.template_dict.get("Description")
        resources = self.resource_map
        resources._template = self.template_dict
        resources._resource_json_map = self.template_dict["Resources"]
        resources.input_parameters, resources.resolved_parameters = parameters, {}
        resources.tags = dict(tags)
        resources.load_mapping()
        resources.transform_mapping()
        resources.load_parameters()
        resources.load_conditions()
        self.output_map = self._create_output_map()

    def _change(self, action, name, definition):
        self.report(f"{action}_IN_PROGRESS", name)
        yield STEP
        resources = self.resource_map
        try:
            if action == "CREATE":
                resource = resources[name]  # creates it
            else:
                # Where moto cannot update a resource, it stays as it is.
                resource = parse_and_update_resource(
                    name, resources._resource_json_map[name], resources, self.account_id, self.region_name
                )
                resource = resource or resources._parsed_resources.get(name)
                resources._parsed_resources[name] = resource
        except Exception as error:
            raise self._failed(action, name, error) from error
        self.deployed[name] = definition
        self._tag(name, resource)
        deadline = time.monotonic() + STABILIZE
        while (problem := _unsettled(resource)) is not None:
            if time.monotonic() > deadline:
                raise self._failed(action, name, problem)
            yield STEP
        self.report(f"{action}_COMPLETE", name)

    def _remove_all(self, failing=False):
        order = templates.dependency_order(self.resource_map._resource_json_map)
        surplus = [n for n in self.deployed if n not in order]
        names = [n for n in order if n in self.deployed] + surplus
        # What the others refer to is left, as that is what something unknown to the stack uses most.
        yield from self._remove(names[1:] if failing else names)
        if failing and not names:
            raise ResourceFailed("Nothing is left of the stack, and yet its deletion fails.")
        if failing:
            raise self._failed("DELETE", names[0], f"resource {names[0]} has a dependent object (DependencyViolation)")

    def _clean_up(self):
        """Removes what the template no longer has; what cannot be removed is left, as at AWS."""
        resources = self.template_dict["Resources"]
        surplus = [n for n in self.deployed if n not in resources or not templates.wanted(self.resource_map, n)]
        try:
            yield from self._remove(surplus)
        except ResourceFailed:
            for name in surplus:
                self.deployed.pop(name, None)

    def _remove(self, names):
        """Removes resources, each before those that it refers to."""
        for name in reversed(names):
            resource = self.resource_map._parsed_resources.get(name)
            definition = self.resource_map._resource_json_map.get(name) or self.deployed[name]
            if definition.get("DeletionPolicy") in ("Retain", "RetainExceptOnCreate"):
                self.report("DELETE_SKIPPED", name)
            else:
                self.report("DELETE_IN_PROGRESS", name)
                yield STEP
                try:
                    if resource is not None:
                        self.resource_map._delete_resource(resource, self.deployed[name])
                except Exception as error:
                    raise self._failed("DELETE", name, error) from error
                while _still_there(resource):
                    yield STEP
                self.report("DELETE_COMPLETE", name)
            self.resource_map._parsed_resources.pop(name, None)
            del self.deployed[name]

    def _tag(self, name, resource):
        """AWS: the stack's tags and its own go to all resources that can have tags, and through
        a group to its instances."""
        tags = {
            **self.tags,
            "aws:cloudformation:stack-name": self.name,
            "aws:cloudformation:stack-id": self.stack_id,
            "aws:cloudformation:logical-id": name,
        }
        if isinstance(resource, TaggedEC2Resource):
            ec2_backends[self.account_id][self.region_name].create_tags([resource.physical_resource_id], tags)
        elif isinstance(resource, FakeAutoScalingGroup):
            own = {tag["Key"] for tag in resource.tags}
            resource.tags = resource.tags + [
                {"Key": key, "Value": value, "PropagateAtLaunch": True} for key, value in tags.items() if key not in own
            ]

    def _check_exports(self):
        for export in self.output_map.exports:
            other = self.cross_stack_resources.get(export.name)
            if other and other.exporting_stack_id != self.stack_id:
                owner = other.exporting_stack_id.split("/")[1]
                raise ResourceFailed(f"Export with name {export.name} is already exported by stack {owner}.")

    def _finish(self, status):
        for export in self._exports:
            self.cross_stack_resources.pop(export.name, None)
        self._exports = self.output_map.exports
        for export in self._exports:
            self.cross_stack_resources[export.name] = export
        names = {export.value: export.name for export in self._exports}
        self._outputs = [
            {
                "OutputKey": output.key,
                "OutputValue": output.value,
                "Description": output.description,
                "ExportName": names.get(output.value),
            }
            for output in map(self.output_map.__getitem__, self.output_map.outputs)
            if output
        ]
        self.imports = set(templates.imports(self.resource_map, self.template_dict["Resources"]))
        self.report(status)

    # ---- events

    def report(self, status, resource=None, reason=None):
        """Records an event of the stack or of one of its resources."""
        if resource is None:
            self.status, self.status_reason = status, reason
            self._add_stack_event(status, resource_status_reason=reason)
            self.events[-1].client_request_token = self.request_token
            return
        definition = self.resource_map._resource_json_map.get(resource) or self.deployed[resource]
        event = models.Event(
            stack_id=self.stack_id,
            stack_name=self.name,
            logical_resource_id=resource,
            physical_resource_id=getattr(
                self.resource_map._parsed_resources.get(resource), "physical_resource_id", None
            ),
            resource_type=definition["Type"],
            resource_status=status,
            resource_status_reason=reason,
            resource_properties=None,
        )
        event.client_request_token = self.request_token
        self.resource_states[resource] = event
        self.events.append(event)

    def _failed(self, action, name, problem):
        reason = getattr(problem, "message", None) or str(problem)
        self.report(f"{action}_FAILED", name, reason)
        return ResourceFailed(f"The following resource(s) failed to {action.lower()}: [{name}].")


def _deletion_fails(stack):
    """Says whether the deletion that begins is to fail, and counts it."""
    if stack not in deletion_failures:
        return False
    deletion_failures[stack] -= 1
    if deletion_failures[stack] == 0:
        del deletion_failures[stack]
    return True


def _unsettled(resource):
    """Why a resource is not ready yet; None if it is."""
    if isinstance(resource, FakeAutoScalingGroup):
        size = sum(m.lifecycle_state == "InService" for m in resource.instance_states)
        if size < resource.desired_capacity:
            return (
                "Group did not stabilize. {current/minSize/group} group size = "
                f"{{{size}/{resource.min_size}/{resource.desired_capacity}}}."
            )
    if isinstance(resource, models.Stack) and not resource.status.endswith("_COMPLETE"):
        return f"Embedded stack {resource.stack_id} is in state {resource.status}."
    return None


def _still_there(resource):
    if isinstance(resource, FakeAutoScalingGroup):
        return resource.name in autoscaling_backends[resource.account_id][resource.region].autoscaling_groups
    return isinstance(resource, models.Stack) and resource.busy()


@extends(models.ChangeSet)
class ChangeSet:
    def __init__(self, **kwargs):
        _create_change_set(self, **kwargs)
        self.status, self.execution_status = "CREATE_COMPLETE", "AVAILABLE"
        if not self.changes and not self.stack.differs(self.template_dict, self.tags):
            self.status, self.execution_status = "FAILED", "UNAVAILABLE"
            self.status_reason = (
                "The submitted information didn't contain changes. Submit different information to create a change set."
            )

    def diff(self):
        return self.stack.preview(self.template_dict, self.parameters)

    def executing(self, operation):
        self.execution_status = "EXECUTE_IN_PROGRESS"
        yield from operation
        done = self.stack.status in ("CREATE_COMPLETE", "UPDATE_COMPLETE")
        self.execution_status = "EXECUTE_COMPLETE" if done else "EXECUTE_FAILED"


@extends(models.CloudFormationBackend)
class Backend:
    def create_stack(
        self,
        name,
        template,
        parameters,
        notification_arns=None,
        tags=None,
        role_arn=None,
        enable_termination_protection=False,
        timeout_in_mins=None,
        stack_policy_body=None,
    ):
        if any(stack.name == name for stack in self.stacks.values()):
            raise AlreadyExistsException(f"Stack [{name}] already exists")
        stack = models.Stack(
            stack_id=generate_stack_id(name, self.region_name, self.account_id),
            name=name,
            template=template,
            parameters=parameters,
            account_id=self.account_id,
            region_name=self.region_name,
            notification_arns=notification_arns,
            tags=tags,
            role_arn=role_arn,
            cross_stack_resources=self.exports,
            enable_termination_protection=enable_termination_protection,
            timeout_in_mins=timeout_in_mins,
            stack_policy_body=stack_policy_body,
        )
        templates.dependency_order(stack.template_dict["Resources"])
        self.stacks[stack.stack_id] = stack
        stack.status = "CREATE_IN_PROGRESS"
        stack.begin(stack.creating())
        return stack

    def update_stack(self, name, template, role_arn, parameters, tags):
        stack = self._updatable(name)
        parameters = self._resolve_update_parameters(instance=stack, incoming_params=parameters)
        template_dict = stack.parse_template(template)
        if not stack.preview(template_dict, parameters) and not stack.differs(template_dict, tags):
            raise ValidationError(message="No updates are to be performed.")
        stack.role_arn = role_arn
        stack.status = "UPDATE_IN_PROGRESS"
        stack.begin(stack.updating(template, parameters, tags or stack.tags))
        return stack

    def delete_stack(self, name_or_stack_id, request_token=None):
        """AWS: deleting what is not there is no error; termination protection and exports that
        others use keep a stack."""
        try:
            stack = self.get_stack(name_or_stack_id)
        except ValidationError:
            return
        if stack.stack_id not in self.stacks or stack.status == "DELETE_IN_PROGRESS":
            return
        if stack.enable_termination_protection:
            raise ValidationError(
                message=f"Stack [{stack.name}] cannot be deleted while TerminationProtection is enabled"
            )
        if stack.busy() and not stack.status.startswith(("CREATE", "ROLLBACK")):
            raise ValidationError(message=f"Stack [{stack.name}] cannot be deleted while in status {stack.status}")
        for export in stack.exports:
            users = [other.name for other in self.stacks.values() if export.name in other.imports]
            if users:
                raise ValidationError(
                    message=f"Export {export.name} cannot be deleted as it is in use by {', '.join(users)}"
                )
        stack.status = "DELETE_IN_PROGRESS"
        stack.begin(stack.deleting(), request_token)

    def forget(self, stack):
        self.deleted_stacks[stack.stack_id] = self.stacks.pop(stack.stack_id)
        for change_set in self.change_sets_of(stack):
            del self.change_sets[change_set.change_set_id]

    def _updatable(self, name):
        stack = self.get_stack(name)
        if stack.stack_id not in self.stacks:
            raise ValidationError(message=f"Stack [{name}] does not exist")
        updatable = stack.status.endswith("_COMPLETE") and stack.status != "ROLLBACK_COMPLETE"
        if stack.busy() or not updatable:
            raise ValidationError(message=f"Stack:{stack.stack_id} is in {stack.status} state and can not be updated.")
        return stack

    # ---- change sets; moto looks for their names in all stacks

    def create_change_set(
        self, stack_name, change_set_name, template, parameters, description, change_set_type, tags=None, role_arn=None
    ):
        stack = next((s for s in self.stacks.values() if stack_name in (s.name, s.stack_id)), None)
        if change_set_type == "CREATE":
            if stack and stack.status != "REVIEW_IN_PROGRESS":
                raise ValidationError(
                    message=f"Stack [{stack_name}] already exists and cannot be created again with the changeSet "
                    f"[{change_set_name}]."
                )
            stack = stack or self._review(stack_name, parameters, tags)
        elif stack is None:
            raise ValidationError(message=f"Stack [{stack_name}] does not exist")
        else:
            self._updatable(stack.stack_id)
        validate_create_change_set(change_set_name)
        if any(c.change_set_name == change_set_name for c in self.change_sets_of(stack)):
            raise AlreadyExistsException(f"ChangeSet [{change_set_name}] already exists")
        change_set = models.ChangeSet(
            change_set_type=change_set_type,
            change_set_id=generate_changeset_id(change_set_name, self.region_name, self.account_id),
            change_set_name=change_set_name,
            stack=stack,
            template=template,
            parameters=parameters,
            description=description,
            tags=tags,
            role_arn=role_arn,
        )
        self.change_sets[change_set.change_set_id] = change_set
        return change_set

    def _review(self, name, parameters, tags):
        """A stack that is nothing but a name until its first change set is executed."""
        stack = models.Stack(
            stack_id=generate_stack_id(name, self.region_name, self.account_id),
            name=name,
            template={},
            parameters=parameters,
            account_id=self.account_id,
            region_name=self.region_name,
            tags=tags,
            cross_stack_resources=self.exports,
        )
        self.stacks[stack.stack_id] = stack
        stack.report("REVIEW_IN_PROGRESS", reason="User Initiated")
        return stack

    def change_sets_of(self, stack):
        return [c for c in self.change_sets.values() if c.stack is stack]

    def describe_change_set(self, change_set_name, stack_name=None):
        for change_set in self.change_sets.values():
            if change_set_name == change_set.change_set_id:
                return change_set
            if change_set_name == change_set.change_set_name and stack_name in (
                change_set.stack_name,
                change_set.stack_id,
            ):
                return change_set
        raise CloudFormationError("ChangeSetNotFound", f"ChangeSet [{change_set_name}] does not exist")

    def delete_change_set(self, change_set_name, stack_name=None):
        change_set = self.describe_change_set(change_set_name, stack_name)
        if change_set.execution_status == "EXECUTE_IN_PROGRESS":
            raise CloudFormationError(
                "InvalidChangeSetStatus",
                f"An operation on ChangeSet [{change_set.change_set_id}] is currently in progress.",
            )
        del self.change_sets[change_set.change_set_id]

    def execute_change_set(self, change_set_name, stack_name=None, request_token=None):
        change_set = self.describe_change_set(change_set_name, stack_name)
        stack = change_set.stack
        if change_set.execution_status != "AVAILABLE" or stack.busy():
            status = change_set.status if change_set.status == "FAILED" else change_set.execution_status
            raise CloudFormationError(
                "InvalidChangeSetStatus",
                f"ChangeSet [{change_set.change_set_id}] cannot be executed in its current status of [{status}]",
            )
        if change_set.change_set_type == "CREATE":
            stack.template, stack.parameters = change_set.template, change_set.parameters
            stack.tags = change_set.tags or stack.tags
            operation, stack.status = stack.creating(), "CREATE_IN_PROGRESS"
        else:
            operation = stack.updating(change_set.template, change_set.parameters, change_set.tags or stack.tags)
            stack.status = "UPDATE_IN_PROGRESS"
        # AWS: the others were made for a stack that there is no more.
        for other in self.change_sets_of(stack):
            if other is not change_set:
                del self.change_sets[other.change_set_id]
        stack.begin(change_set.executing(operation), request_token)


@every_tick
def advance_stacks(now):
    for _, _, backend in cloudformation_backends.iter_backends():
        for stack in list(backend.stacks.values()):
            stack.advance(now)
