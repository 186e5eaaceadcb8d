"""Deploys the real templates by CloudFormation: what `sam deploy` does, without its questions."""

from __future__ import annotations

import hashlib
import json
import platform
import time
from pathlib import Path
from typing import Any

from awscli.customizations.cloudformation.yamlhelper import yaml_parse
from botocore.exceptions import ClientError

from claviger_local import settings
from claviger_local.aws import vendor
from claviger_local.trouble import Trouble

BUCKET = "claviger-artifacts"
ARCHITECTURE = {"aarch64": "arm64", "arm64": "arm64"}.get(platform.machine(), "x86_64")


def make_bucket() -> None:
    vendor("s3").create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": settings.REGION})


def _upload(data: bytes, name: str) -> str:
    key = f"{hashlib.sha256(data).hexdigest()[:16]}/{name}"
    vendor("s3").put_object(Bucket=BUCKET, Key=key, Body=data)
    return key


def packaged(template: Path, zips: dict[str, Path]) -> dict[str, Any]:
    """The template with each function's code pointing at its uploaded zip."""
    document: dict[str, Any] = yaml_parse(template.read_text())
    for resource in document["Resources"].values():
        if resource["Type"] == "AWS::Serverless::Function":
            function = resource["Metadata"]["BuildProperties"]["Binary"].removeprefix("claviger-")
            key = _upload(zips[function].read_bytes(), f"{function}.zip")
            resource["Properties"]["CodeUri"] = f"s3://{BUCKET}/{key}"
            resource.pop("Metadata")
    return document


def deploy(
    stack: str, template: Path, parameters: dict[str, str], zips: dict[str, Path] | None = None
) -> dict[str, str]:
    """Creates or updates the stack, waits, and gives its outputs."""
    cloudformation = vendor("cloudformation")
    body = json.dumps(packaged(template, zips or {})).encode()
    key = _upload(body, f"{stack}.json")
    arguments = {
        "StackName": stack,
        "TemplateURL": f"{settings.VENDOR_AWS}/{BUCKET}/{key}",
        "Parameters": [{"ParameterKey": k, "ParameterValue": v} for k, v in parameters.items()],
        "Capabilities": ["CAPABILITY_IAM", "CAPABILITY_NAMED_IAM", "CAPABILITY_AUTO_EXPAND"],
    }
    try:
        cloudformation.describe_stacks(StackName=stack)
        change = cloudformation.update_stack
    except ClientError:
        change = cloudformation.create_stack
    try:
        change(**arguments)
    except ClientError as error:
        if "No updates" in str(error):
            return outputs(stack)
        raise Trouble(f"stack `{stack}` was refused: {error}", f"correct {template.name}") from None
    return _wait(stack, template)


def _wait(stack: str, template: Path) -> dict[str, str]:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        status = vendor("cloudformation").describe_stacks(StackName=stack)["Stacks"][0]["StackStatus"]
        if status in ("CREATE_COMPLETE", "UPDATE_COMPLETE"):
            return outputs(stack)
        if not status.endswith("IN_PROGRESS"):
            raise Trouble(f"stack `{stack}` ended as {status}: {_first_failure(stack)}", f"correct {template.name}")
        time.sleep(0.1)
    raise Trouble(f"stack `{stack}` did not finish within 120 s", f"read {settings.LOGS / 'vendor-aws.log'}")


def _first_failure(stack: str) -> str:
    events = vendor("cloudformation").describe_stack_events(StackName=stack)["StackEvents"]
    failed = [event for event in events if event["ResourceStatus"].endswith("FAILED")]
    if not failed:
        return "no resource says why"
    event = failed[-1]
    return f"{event['LogicalResourceId']}: {event.get('ResourceStatusReason', '')}"


def outputs(stack: str) -> dict[str, str]:
    found = vendor("cloudformation").describe_stacks(StackName=stack)["Stacks"][0].get("Outputs", [])
    return {output["OutputKey"]: output["OutputValue"] for output in found}
