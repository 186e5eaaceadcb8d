"""The customers' templates: deployed, made again in the customers' cloud, and used as claviger would use them."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from awscli.customizations.cloudformation.yamlhelper import yaml_parse
from botocore.config import Config
from botocore.exceptions import ClientError
from claviger_local import onboarding, services, settings

VENDOR = "111111111111"
CUSTOMER = "333333333333"
ORGANISATION = "0193d2a7-0000-4000-8000-000000000001"
STRANGER = "0193d2a7-0000-4000-8000-000000000002"
EXTERNAL_ID = "claviger-0123456789abcdef0123456789abcdef"
KEY_ACCESS = "claviger-key-access"
KEY_ACCESS_ARN = f"arn:aws:iam::{VENDOR}:role/{KEY_ACCESS}"
BUS = f"arn:aws:events:eu-central-1:{VENDOR}:event-bus/claviger"
BOUND = {"VendorAccountId": VENDOR, "KeyAccessRoleArn": KEY_ACCESS_ARN, "OrganisationId": ORGANISATION}
SAMPLES = settings.ROOT / "events" / "key-events"
TEMPLATES = sorted(onboarding.ONBOARDING.glob("*.yaml"))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def client(service: str, endpoint: str, account: str, region: str = "us-east-1", token: str | None = None) -> Any:
    return boto3.client(
        service,
        endpoint_url=endpoint,
        region_name=region,
        aws_access_key_id=account,
        aws_secret_access_key="x",
        aws_session_token=token,
        config=Config(retries={"max_attempts": 0}),
    )


class Clouds:
    """CloudFormation of the customer's account, the customers' cloud, and the vendor's role in it."""

    def __init__(self, processed: str, real: str) -> None:
        self.processed, self.real = processed, real
        trust = {"Effect": "Allow", "Principal": {"AWS": VENDOR}, "Action": "sts:AssumeRole"}
        may = {"Effect": "Allow", "Action": ["sts:AssumeRole", "kms:*"], "Resource": "*"}
        iam = client("iam", real, VENDOR)
        iam.create_role(RoleName=KEY_ACCESS, AssumeRolePolicyDocument=json.dumps({"Statement": [trust]}))
        iam.put_role_policy(RoleName=KEY_ACCESS, PolicyName="p", PolicyDocument=json.dumps({"Statement": [may]}))
        assumed = client("sts", real, VENDOR).assume_role(RoleArn=KEY_ACCESS_ARN, RoleSessionName="claviger")
        self.vendor = assumed["Credentials"]

    def deploy(self, template: str, region: str, **parameters: str) -> dict[str, str]:
        cloudformation = client("cloudformation", self.processed, CUSTOMER, region)
        stack = f"{Path(template).stem}-{region}"
        return onboarding.deployed(cloudformation, stack, onboarding.ONBOARDING / template, parameters)

    def as_vendor(self, service: str, region: str, credentials: dict[str, Any] | None = None) -> Any:
        held = credentials or self.vendor
        return client(service, self.real, held["AccessKeyId"], region, held["SessionToken"])


@pytest.fixture(scope="module")
def clouds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clouds]:
    binary = settings.BINARIES / "claviger-customer-cloud"
    assert binary.exists(), f"{binary} is missing: run `make build`, as `make test` does"
    place = tmp_path_factory.mktemp("onboarding")
    started: list[services.Service] = []
    patched = pytest.MonkeyPatch()
    patched.setattr(settings, "LOCAL", place)
    patched.setattr(settings, "LOGS", place)
    try:
        ours, theirs = free_port(), free_port()
        command = [str(binary), "--port", str(ours), "--vendor-endpoint", ""]
        started.append(services.Service("customer-aws", command, settings.clean_environment()))
        started[-1].wait_until(services.answers(f"http://127.0.0.1:{ours}/_cloud/health"), 20)
        environment = settings.clean_environment(
            BIND_HOST="127.0.0.1",
            GATEWAY_PORT=str(theirs),
            MINISTACK_ACCOUNT_ID=CUSTOMER,
            AWS_ENDPOINT_URL=f"http://127.0.0.1:{theirs}",
            SFTP_ENABLED="0",
            IOT_MTLS_ENABLED="0",
            STATE_DIR=str(place / "state"),
        )
        started.append(services.Service("ministack", [sys.executable, "-m", "ministack"], environment))
        started[-1].wait_until(services.answers(f"http://127.0.0.1:{theirs}/_ministack/health"), 60)
        yield Clouds(f"http://127.0.0.1:{theirs}", f"http://127.0.0.1:{ours}")
    finally:
        for service in reversed(started):
            service.stop()
        patched.undo()


def encrypts(kms: Any, key: str, organisation: str) -> str:
    """`ok`, or the error's code."""
    try:
        kms.encrypt(KeyId=key, Plaintext=b"note", EncryptionContext={"claviger:organisation": organisation})
        return "ok"
    except ClientError as error:
        return str(error.response["Error"]["Code"])


@pytest.mark.parametrize("region", ["eu-central-1", "eu-west-1"])
def test_e12_the_template_of_a_key_binds_it_to_the_organisation(clouds: Clouds, region: str) -> None:
    made = clouds.deploy("cmk-key.yaml", region, **BOUND)
    processed, real = (client("kms", end, CUSTOMER, region) for end in (clouds.processed, clouds.real))
    key = onboarding.replayed_key(made["RootKey"], processed, real)
    assert key.split(":")[3] == region
    vendor = clouds.as_vendor("kms", region)
    assert encrypts(vendor, key, ORGANISATION) == "ok"
    assert encrypts(vendor, key, STRANGER) == "AccessDeniedException"
    assert vendor.describe_key(KeyId=key)["KeyMetadata"]["KeyState"] == "Enabled"
    assert real.get_key_rotation_status(KeyId=key)["KeyRotationEnabled"]
    with pytest.raises(ClientError):
        vendor.disable_key(KeyId=key)
    # Another identity of the vendor's is not let in.
    assert encrypts(client("kms", clouds.real, VENDOR, region), key, ORGANISATION) == "AccessDeniedException"


def test_e12_byok_the_template_of_the_role_asks_for_the_external_id_and_makes_tagged_keys_only(clouds: Clouds) -> None:
    made = clouds.deploy("byok-role.yaml", "us-east-1", **BOUND, ExternalId=EXTERNAL_ID)
    assert made["KeyManagementRole"] == "key-management"
    processed, real = (client("iam", end, CUSTOMER) for end in (clouds.processed, clouds.real))
    role = onboarding.replayed_role("key-management", processed, real)
    sts = clouds.as_vendor("sts", "us-east-1")
    for wrong in ({}, {"ExternalId": EXTERNAL_ID.replace("0", "1")}):
        with pytest.raises(ClientError, match="AccessDenied"):
            sts.assume_role(RoleArn=role, RoleSessionName="claviger", **wrong)
    with pytest.raises(ClientError, match="AccessDenied"):
        root = client("sts", clouds.real, VENDOR)
        root.assume_role(RoleArn=role, RoleSessionName="another", ExternalId=EXTERNAL_ID)
    session = sts.assume_role(RoleArn=role, RoleSessionName="claviger", ExternalId=EXTERNAL_ID)["Credentials"]
    kms = clouds.as_vendor("kms", "us-east-1", session)
    with pytest.raises(ClientError, match="AccessDenied"):
        kms.create_key()
    with pytest.raises(ClientError, match="AccessDenied"):
        kms.create_key(Tags=[{"TagKey": "claviger:organisation", "TagValue": STRANGER}])
    tags = [{"TagKey": "claviger:organisation", "TagValue": ORGANISATION}]
    key = kms.create_key(Tags=tags)["KeyMetadata"]["Arn"]
    kms.create_alias(AliasName="alias/cryptor-1", TargetKeyId=key)
    assert encrypts(kms, key, ORGANISATION) == "ok"
    assert encrypts(kms, key, STRANGER) == "AccessDeniedException"
    for never in (kms.disable_key, kms.schedule_key_deletion):
        with pytest.raises(ClientError, match="AccessDenied"):
            never(KeyId=key)


@pytest.mark.parametrize("region", ["us-east-1", "us-west-2"])
def test_the_template_of_the_events_forwards_what_claviger_understands(clouds: Clouds, region: str) -> None:
    # IAM tells of its changes in us-east-1 only.
    role = "key-management" if region == "us-east-1" else ""
    made = clouds.deploy("key-events.yaml", region, VendorBusArn=BUS, RoleName=role)
    events = client("events", clouds.processed, CUSTOMER, region)
    assert ("RoleChanges" in made) == (region == "us-east-1")
    understood = [path for path in SAMPLES.glob("*.json") if not path.name.startswith("ignored-")]
    samples = [json.loads(path.read_text()) for path in understood]
    names = {sample["detail"].get("eventName", sample["detail-type"]) for sample in samples}
    covered: set[str] = set()
    for logical in ("KeyNotices", "KeyChanges", "RoleChanges", "PolicyChanges"):
        if logical not in made:
            continue
        rule = made[logical].rsplit("/", 1)[-1]
        pattern = json.loads(events.describe_rule(Name=rule)["EventPattern"])
        covered |= set(pattern["detail"]["eventName"] if "detail" in pattern else pattern["detail-type"])
        (target,) = events.list_targets_by_rule(Rule=rule)["Targets"]
        assert target["Arn"] == BUS and target["RoleArn"].startswith(f"arn:aws:iam::{CUSTOMER}:role/")
    if region == "us-east-1":
        assert names <= covered, names - covered
        assert {"CreatePolicyVersion", "SetDefaultPolicyVersion", "DeletePolicyVersion"} <= covered


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.name)
def test_every_template_names_the_version_of_the_documents_that_it_is(template: Path) -> None:
    source = (settings.ROOT / "shared" / "domain" / "src" / "key_policy.rs").read_text()
    version = yaml_parse(template.read_text())["Metadata"]["claviger"]["version"]
    assert f'KEY_POLICY_VERSION: &str = "{version}"' in source
