"""Deploys the customers' templates: CloudFormation is ministack's, the account's keys and roles are customer-cloud's.

ministack processes a template; what came of it is read back and made again, by the same calls, in the customers' cloud.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from claviger_local import settings

ONBOARDING = settings.ROOT / "onboarding"


def deployed(cloudformation: Any, stack: str, template: Path, parameters: dict[str, str]) -> dict[str, str]:
    """Creates the stack and gives the physical ids of its resources, by their names in the template."""
    cloudformation.create_stack(
        StackName=stack,
        TemplateBody=template.read_text(),
        Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()],
        Capabilities=["CAPABILITY_NAMED_IAM"],
    )
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        status = cloudformation.describe_stacks(StackName=stack)["Stacks"][0]["StackStatus"]
        if status == "CREATE_COMPLETE":
            resources = cloudformation.describe_stack_resources(StackName=stack)["StackResources"]
            return {resource["LogicalResourceId"]: resource["PhysicalResourceId"] for resource in resources}
        if not status.endswith("IN_PROGRESS"):
            raise AssertionError(f"{template.name} ended as {status}")
        time.sleep(0.1)
    raise AssertionError(f"{template.name} was not deployed within 60 s")


def document(value: Any) -> dict[str, Any]:
    """A policy as IAM gives it: an object, its JSON, or that percent-encoded."""
    if isinstance(value, dict):
        return value
    text = str(value)
    return dict(json.loads(text if text.lstrip().startswith("{") else unquote(text)))


def replayed_key(key_id: str, processed: Any, real: Any) -> str:
    """The key that the template made, made again; its ARN."""
    policy = document(processed.get_key_policy(KeyId=key_id, PolicyName="default")["Policy"])
    made = processed.describe_key(KeyId=key_id)["KeyMetadata"]
    answer = real.create_key(
        Policy=json.dumps(policy),
        Description=made["Description"],
        KeySpec=made["KeySpec"],
        KeyUsage=made["KeyUsage"],
    )
    arn = str(answer["KeyMetadata"]["Arn"])
    if processed.get_key_rotation_status(KeyId=key_id)["KeyRotationEnabled"]:
        real.enable_key_rotation(KeyId=arn)
    return arn


def replayed_role(name: str, processed: Any, real: Any) -> str:
    """The role that the template made, made again with its policies; its ARN."""
    role = processed.get_role(RoleName=name)["Role"]
    trust = json.dumps(document(role["AssumeRolePolicyDocument"]))
    arn = str(real.create_role(RoleName=name, AssumeRolePolicyDocument=trust)["Role"]["Arn"])
    for policy in processed.list_role_policies(RoleName=name)["PolicyNames"]:
        found = processed.get_role_policy(RoleName=name, PolicyName=policy)["PolicyDocument"]
        real.put_role_policy(RoleName=name, PolicyName=policy, PolicyDocument=json.dumps(document(found)))
    return arn
