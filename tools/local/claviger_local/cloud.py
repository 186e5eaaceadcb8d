"""Brings the local cloud up, step by step, and takes it down."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from claviger_local import artifacts, customers, deploy, identity, services, settings, surroundings
from claviger_local.aws import http, vendor
from claviger_local.trouble import Trouble

# How the notes app names what it stores: the workers of a re-encryption find its records by it.
NOTES_LAYOUT = {
    "table": settings.NOTES_TABLE,
    "partition": "{organisation}/{site}",
    "sort": "{record}",
    "dataType": "note",
}


def say(text: str) -> None:
    print(text, flush=True)


@dataclass
class Cloud:
    """A local cloud that is up."""

    lock: surroundings.Lock
    services: list[services.Service] = field(default_factory=list)
    outputs: dict[str, str] = field(default_factory=dict)
    notes_outputs: dict[str, str] = field(default_factory=dict)
    people: identity.Identity | None = None
    key_access_role: str = ""
    notes: services.Service | None = None

    # Addresses. The Function URL and the API answer under the emulator's own address, by path.

    @property
    def api(self) -> str:
        api_id = self.outputs["ApiUrl"].split("//", 1)[1].split(".", 1)[0]
        return f"{settings.VENDOR_AWS}/_aws/execute-api/{api_id}/$default"

    @property
    def broker(self) -> str:
        url_id = self.outputs["BrokerUrl"].split("//", 1)[1].split(".", 1)[0]
        return f"{settings.VENDOR_AWS}/_aws/lambda-url/{url_id}"

    def token(self, person: str) -> str:
        assert self.people is not None
        return self.people.tokens[person]

    def down(self) -> None:
        for service in reversed(self.services):
            service.stop()
        settings.ENV_FILE.unlink(missing_ok=True)
        self.lock.release()


def _timed(text: str, work: Callable[[], Any]) -> Any:
    began = time.monotonic()
    result = work()
    say(f"  {text:<58} {time.monotonic() - began:6.1f} s")
    return result


def up() -> Cloud:
    """Everything that the story and a person need; on failure nothing is left running."""
    lock = surroundings.Lock()
    cloud = Cloud(lock)
    try:
        surroundings.check_tools()
        surroundings.check_ports()
        surroundings.sweep_leftovers()
        _bring_up(cloud)
    except BaseException:
        cloud.down()
        raise
    return cloud


def _bring_up(cloud: Cloud) -> None:
    say("starting the local cloud")
    zips = _timed("functions packed", artifacts.package_all)
    _timed("vendor's AWS", lambda: _start_vendor(cloud))
    _timed("customers' AWS", lambda: _start_customers(cloud))
    cloud.people = _timed("identity provider and its people", identity.create)
    deploy.make_bucket()
    _timed("key-access.yaml deployed", lambda: _deploy_key_access(cloud))
    _timed("template.yaml deployed", lambda: _deploy_claviger(cloud, zips))
    _timed("examples/notes/template.yaml deployed", lambda: _deploy_notes(cloud))
    _timed("first tick of the prober", tick)
    _timed("organisations fed", lambda: _feed(cloud))
    _timed("notes app", lambda: start_notes(cloud))
    write_environment(cloud)


def _start_vendor(cloud: Cloud) -> None:
    service = services.start_vendor_aws()
    cloud.services.append(service)
    service.wait_until(services.answers(f"{settings.VENDOR_AWS}/_ministack/health"), 60)


def _start_customers(cloud: Cloud) -> None:
    service = services.start_customer_aws()
    cloud.services.append(service)
    service.wait_until(services.answers(f"{settings.CUSTOMER_AWS}/_cloud/health"), 20)


def _deploy_key_access(cloud: Cloud) -> None:
    outputs = deploy.deploy(settings.KEY_ACCESS_STACK, settings.ROOT / "key-access.yaml", {"Cell": settings.STACK})
    cloud.key_access_role = outputs["KeyAccessRoleArn"]


def _deploy_claviger(cloud: Cloud, zips: dict[str, Any]) -> None:
    assert cloud.people is not None
    notes_role = f"arn:aws:iam::{settings.VENDOR_ACCOUNT}:role/{settings.NOTES_ROLE}"
    parameters = {
        "Architecture": deploy.ARCHITECTURE,
        "KeyAccessRoleArn": cloud.key_access_role,
        "TokenIssuer": cloud.people.issuer,
        "TokenAudience": cloud.people.audience,
        "AppRoles": json.dumps({notes_role: ["jira"]}),
        "RecordStores": json.dumps([{"app": "jira", "dynamodb": NOTES_LAYOUT}]),
        "RecordTableArns": f"arn:aws:dynamodb:{settings.REGION}:{settings.VENDOR_ACCOUNT}:table/{settings.NOTES_TABLE}",
        "CanaryKeys": json.dumps(customers.create_canaries(cloud.key_access_role)),
        "KmsEndpoint": settings.CUSTOMER_AWS,
        "StsEndpoint": settings.CUSTOMER_AWS,
        "FunctionUrlEndpoint": f"{settings.VENDOR_AWS}/_aws/lambda-url",
        **{name: str(value) for name, value in settings.TIMINGS.items()},
    }
    cloud.outputs = deploy.deploy(settings.STACK, settings.ROOT / "template.yaml", parameters, zips)


def _deploy_notes(cloud: Cloud) -> None:
    cloud.notes_outputs = deploy.deploy(
        settings.NOTES_STACK,
        settings.ROOT / "examples" / "notes" / "template.yaml",
        {
            "BusName": cloud.outputs["BusName"],
            "FenceTableArn": cloud.outputs["FenceTableArn"],
            "BrokerFunctionArn": cloud.outputs["BrokerFunctionArn"],
        },
    )


def tick() -> None:
    """The first minute tick: a schedule fires only a minute after it is made."""
    answer = vendor("lambda").invoke(
        FunctionName=f"{settings.STACK}-key-prober", Payload=json.dumps({"kind": "tick"}).encode()
    )
    if "FunctionError" in answer:
        raise Trouble(f"the prober failed: {answer['Payload'].read()[:300]!r}", _read_log())


def _feed(cloud: Cloud) -> None:
    assert cloud.people is not None
    subjects = cloud.people.subjects
    for customer in settings.CUSTOMERS:
        auditors = [subjects[f"{customer.org}-auditor"]] if f"{customer.org}-auditor" in subjects else []
        answer = http(
            "PUT",
            f"{cloud.api}/v1/organizations/{customer.org}",
            token=cloud.token("system"),
            body={
                "plans": {"jira": "enterprise", "jira-service-management": "enterprise", "confluence": "enterprise"},
                "government": False,
                "admins": [subjects[f"{customer.org}-admin"]],
                "auditors": auditors,
            },
        )
        if answer.status not in (200, 201, 204):
            raise Trouble(f"the feed of {customer.org} was refused: {answer}", _read_log())


def start_notes(cloud: Cloud) -> None:
    credentials = vendor("sts").assume_role(
        RoleArn=f"arn:aws:iam::{settings.VENDOR_ACCOUNT}:role/{settings.NOTES_ROLE}",
        RoleSessionName="notes",
        DurationSeconds=43_200,
    )["Credentials"]
    cloud.notes = services.start_notes(
        {
            "NOTES_PORT": str(settings.NOTES_PORT),
            "NOTES_TABLE": cloud.notes_outputs["NotesTable"],
            "NOTES_QUEUE_URL": cloud.notes_outputs["CommandsQueueUrl"],
            "AWS_ACCESS_KEY_ID": credentials["AccessKeyId"],
            "AWS_SECRET_ACCESS_KEY": credentials["SecretAccessKey"],
            "AWS_SESSION_TOKEN": credentials["SessionToken"],
            "AWS_REGION": settings.REGION,
            "AWS_ENDPOINT_URL": settings.VENDOR_AWS,
            "CLAVIGER_FENCE_TABLE": cloud.outputs["FenceTable"],
            "CLAVIGER_FENCE_COPIES": str(settings.TIMINGS["FenceCopies"]),
            "CLAVIGER_BROKER_URL": cloud.broker,
            "CLAVIGER_LEASE_MS": str(settings.LEASE_S * 1000),
            "CLAVIGER_POLL_MS": str(settings.POLL_MS),
            "CLAVIGER_API": cloud.api,
            "SYSTEM_TOKEN": cloud.token("system"),
        }
    )
    cloud.services.append(cloud.notes)
    cloud.notes.wait_until(services.answers(f"{settings.NOTES_APP}/health"), 20)


def _read_log() -> str:
    return f"read {settings.LOGS / 'vendor-aws.log'}"


def write_environment(cloud: Cloud, keys: dict[str, list[str]] | None = None) -> None:
    """`.local/env`, to be sourced by a person while the local cloud is up."""
    values = {
        "CLAVIGER_API": cloud.api,
        "CLAVIGER_CONSOLE": f"{cloud.api}/console",
        "NOTES_APP": settings.NOTES_APP,
        "CUSTOMER_AWS": settings.CUSTOMER_AWS,
        "VENDOR_AWS": settings.VENDOR_AWS,
        "CLAVIGER_BROKER": cloud.broker,
        "ORG_ADMIN_TOKEN": cloud.token("acme-admin"),
        "OTHER_ADMIN_TOKEN": cloud.token("globex-admin"),
        "INITECH_ADMIN_TOKEN": cloud.token("initech-admin"),
        "AUDITOR_TOKEN": cloud.token("acme-auditor"),
        "SUPPORT_TOKEN": cloud.token("support-1"),
        "SUPPORT2_TOKEN": cloud.token("support-2"),
        "SYSTEM_TOKEN": cloud.token("system"),
    }
    for customer in settings.CUSTOMERS:
        prefix = customer.org.upper()
        values[f"{prefix}_ACCOUNT"] = customer.account
        values[f"{prefix}_SITE"] = customer.site
        values[f"{prefix}_KEY_ARNS"] = " ".join((keys or {}).get(customer.org, []))
    lines = [f"export {name}={shlex.quote(value)}" for name, value in values.items()]
    settings.ENV_FILE.write_text("\n".join(lines) + "\n")
    settings.ENV_FILE.chmod(0o600)
