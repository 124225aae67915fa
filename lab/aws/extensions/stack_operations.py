"""The API of CloudFormation: what moto leaves out of requests and answers."""

from moto.cloudformation import responses
from moto.cloudformation.exceptions import CloudFormationError, ValidationError
from moto.cloudformation.models import Stack
from moto.cloudformation.responses import CloudFormationResponse
from moto.core.responses import ActionResult, EmptyResult

from . import extends, tag_dict

MAX_TEMPLATE_BODY = 51200

_create_stack = CloudFormationResponse.create_stack
_update_stack = CloudFormationResponse.update_stack


@extends(responses.StackResourceDTO)
class Resource:
    """A resource of a stack with its own state, not that of the stack."""

    def __init__(self, stack, resource):
        event = stack.resource_states[resource.logical_resource_id]
        self.stack_id, self.stack_name = stack.stack_id, stack.name
        self.logical_resource_id = event.logical_resource_id
        self.physical_resource_id = event.physical_resource_id
        self.resource_type = event.resource_type
        self.resource_status = event.resource_status
        self.resource_status_reason = event.resource_status_reason
        self.timestamp = self.last_updated_timestamp = event.timestamp


@extends(responses.ChangeDTO)
class Change:
    def __init__(self, change):
        self.type = "Resource"
        self.resource_change = change


@extends(CloudFormationResponse)
class Responses:
    def create_stack(self):
        self._check_capabilities(self._template())
        result = _create_stack(self)
        stack = self.cloudformation_backend.get_stack(self._get_param("StackName"))
        stack.disable_rollback = self._get_bool_param("DisableRollback", False)
        stack.on_failure = "DO_NOTHING" if stack.disable_rollback else self._get_param("OnFailure", "ROLLBACK")
        return result

    def update_stack(self):
        if not self._get_bool_param("UsePreviousTemplate", False):
            self._check_capabilities(self._template())
        return _update_stack(self)

    def create_change_set(self):
        backend = self.cloudformation_backend
        stack_name = self._get_param("StackName")
        change_set_type = self._get_param("ChangeSetType", "UPDATE")
        stack = backend.get_stack(stack_name) if change_set_type == "UPDATE" else None
        if stack and self._get_bool_param("UsePreviousTemplate", False):
            body = stack.template
        else:
            body = self._template()
        self._check_capabilities(body)
        change_set = backend.create_change_set(
            stack_name=stack_name,
            change_set_name=self._get_param("ChangeSetName"),
            template=body,
            parameters=self._get_param_values(
                self._get_param("Parameters", []), stack.stack_parameters if stack else {}
            ),
            description=self._get_param("Description"),
            change_set_type=change_set_type,
            tags=tag_dict(self._get_param("Tags", [])),
            role_arn=self._get_param("RoleARN"),
        )
        return ActionResult({"Id": change_set.change_set_id, "StackId": change_set.stack_id})

    def describe_change_set(self):
        return ActionResult(self.cloudformation_backend.describe_change_set(*self._change_set()))

    def execute_change_set(self):
        self.cloudformation_backend.execute_change_set(*self._change_set(), self._get_param("ClientRequestToken"))
        return EmptyResult()

    def delete_stack(self):
        self.cloudformation_backend.delete_stack(self._get_param("StackName"), self._get_param("ClientRequestToken"))
        return EmptyResult()

    def delete_change_set(self):
        self.cloudformation_backend.delete_change_set(*self._change_set())
        return EmptyResult()

    def list_change_sets(self):
        stack = self.cloudformation_backend.get_stack(self._get_param("StackName"))
        return ActionResult({"Summaries": self.cloudformation_backend.change_sets_of(stack)})

    def _change_set(self):
        return self._get_param("ChangeSetName"), self._get_param("StackName")

    def list_stack_resources(self):
        stack, resources = self.cloudformation_backend.list_stack_resources(self._get_param("StackName"))
        return ActionResult({"StackResourceSummaries": [responses.StackResourceDTO(stack, r) for r in resources]})

    def update_termination_protection(self):
        stack = self.cloudformation_backend.get_stack(self._get_param("StackName"))
        stack.enable_termination_protection = self._get_bool_param("EnableTerminationProtection")
        return ActionResult({"StackId": stack.stack_id})

    def validate_template(self):
        """AWS checks the syntax; moto needs cfn-lint for more than that."""
        template = Stack.parse_template(self._template())
        if not isinstance(template, dict) or not template.get("Resources"):
            raise ValidationError(message="Template format error: At least one Resources member must be defined.")
        return ActionResult(
            {
                "Description": template.get("Description"),
                "Parameters": [
                    {"ParameterKey": key, "DefaultValue": value.get("Default"), "NoEcho": value.get("NoEcho", False)}
                    for key, value in template.get("Parameters", {}).items()
                ],
                "Capabilities": sorted(_needed_capabilities(template)),
            }
        )

    def _template(self):
        if url := self._get_param("TemplateURL"):
            return self._get_stack_from_s3_url(url)
        body = self._get_param("TemplateBody")
        if not body:
            raise ValidationError(message="Either Template URL or Template Body must be specified.")
        if len(body.encode()) > MAX_TEMPLATE_BODY:
            raise ValidationError(
                message="1 validation error detected: Value at 'templateBody' failed to satisfy constraint: "
                f"Member must have length less than or equal to {MAX_TEMPLATE_BODY}"
            )
        return body

    def _check_capabilities(self, body):
        needed = _needed_capabilities(Stack.parse_template(body))
        given = set(self._get_param("Capabilities", []))
        if "CAPABILITY_NAMED_IAM" in given:
            given.add("CAPABILITY_IAM")
        if not needed <= given:
            raise CloudFormationError(
                "InsufficientCapabilitiesException", f"Requires capabilities : [{', '.join(sorted(needed))}]"
            )


def _needed_capabilities(template):
    """What the caller must acknowledge: IAM resources, and those that choose their own name."""
    iam = [r for r in template.get("Resources", {}).values() if r["Type"].startswith("AWS::IAM::")]
    if not iam:
        return set()
    kinds = ("RoleName", "UserName", "GroupName", "InstanceProfileName", "ManagedPolicyName")
    named = any(kind in r.get("Properties", {}) for r in iam for kind in kinds)
    return {"CAPABILITY_NAMED_IAM" if named else "CAPABILITY_IAM"}
