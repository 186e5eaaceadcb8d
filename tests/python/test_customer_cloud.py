"""The customers' cloud from outside: the stock client and the `aws` command, compared with ministack where it is right.

ministack is not asked about what it gets wrong: keys of other accounts, `KeyId` and DryRun on Decrypt, ReEncrypt and a
tampered ciphertext.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from emulators import customer_cloud, kept_in, ministack

ACCOUNT = "222222222222"
REGION = "eu-west-1"


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    place = tmp_path_factory.mktemp("clouds")
    with kept_in(place), customer_cloud() as ours, ministack(place, ACCOUNT) as theirs:
        yield {"customer-cloud": ours, "ministack": theirs}


def kms(endpoint: str) -> Any:
    return boto3.client(
        "kms",
        endpoint_url=endpoint,
        region_name=REGION,
        aws_access_key_id=ACCOUNT,
        aws_secret_access_key="x",
        config=Config(retries={"max_attempts": 0}),
    )


@dataclass
class Play:
    """One cloud and what was made in it."""

    client: Any
    made: dict[str, Any] = field(default_factory=dict)


Step = tuple[str, Callable[[Play], Any]]


def create(play: Play) -> Any:
    metadata = play.client.create_key(Description="root key")["KeyMetadata"]
    play.made["key"] = metadata["Arn"]
    return [metadata[name] for name in ("KeyState", "Enabled", "KeySpec", "KeyUsage", "Origin", "KeyManager")]


def state(play: Play) -> Any:
    return play.client.describe_key(KeyId=play.made["key"])["KeyMetadata"]["KeyState"]


def encrypt(play: Play) -> Any:
    answer = play.client.encrypt(KeyId=play.made["key"], Plaintext=b"secret", EncryptionContext={"a": "1"})
    play.made["sealed"] = answer["CiphertextBlob"]
    return answer["KeyId"] == play.made["key"]


def decrypt(play: Play, context: dict[str, str] | None = None) -> Any:
    answer = play.client.decrypt(CiphertextBlob=play.made["sealed"], EncryptionContext=context or {"a": "1"})
    return answer["Plaintext"]


def data_key(play: Play) -> Any:
    answer = play.client.generate_data_key(KeyId=play.made["key"], KeySpec="AES_256")
    opened = play.client.decrypt(CiphertextBlob=answer["CiphertextBlob"])["Plaintext"]
    return len(answer["Plaintext"]), opened == answer["Plaintext"]


def data_key_without(play: Play) -> Any:
    answer = play.client.generate_data_key_without_plaintext(KeyId=play.made["key"], KeySpec="AES_256")
    return sorted(set(answer) & {"CiphertextBlob", "KeyId", "Plaintext"})


def alias(play: Play) -> Any:
    play.client.create_alias(AliasName="alias/root", TargetKeyId=play.made["key"])
    return play.client.describe_key(KeyId="alias/root")["KeyMetadata"]["Arn"] == play.made["key"]


def tags(play: Play) -> Any:
    play.client.tag_resource(KeyId=play.made["key"], Tags=[{"TagKey": "for", "TagValue": "claviger"}])
    return play.client.list_resource_tags(KeyId=play.made["key"])["Tags"]


def rotation(play: Play) -> Any:
    play.client.enable_key_rotation(KeyId=play.made["key"])
    return play.client.get_key_rotation_status(KeyId=play.made["key"])["KeyRotationEnabled"]


def on_key(operation: str, **arguments: Any) -> Callable[[Play], Any]:
    def call(play: Play) -> Any:
        getattr(play.client, operation)(KeyId=play.made["key"], **arguments)
        return None

    return call


STEPS: tuple[Step, ...] = (
    ("a key is made", create),
    ("it is enabled", state),
    ("it is listed", lambda play: play.made["key"] in [k["KeyArn"] for k in play.client.list_keys()["Keys"]]),
    ("it encrypts", encrypt),
    ("it decrypts", decrypt),
    ("another context is refused", lambda play: decrypt(play, {"a": "2"})),
    ("it makes data keys", data_key),
    ("it makes wrapped data keys", data_key_without),
    ("it has an alias", alias),
    ("it has tags", tags),
    ("it rotates", rotation),
    ("it is disabled", on_key("disable_key")),
    ("it says so", state),
    ("it does not encrypt", encrypt),
    ("it does not decrypt", decrypt),
    ("it makes no data key", data_key),
    ("it is enabled again", on_key("enable_key")),
    ("what was encrypted is back", decrypt),
    ("it is to be deleted", on_key("schedule_key_deletion", PendingWindowInDays=7)),
    ("it waits for its deletion", state),
    ("it does not decrypt while it waits", decrypt),
    ("its deletion is cancelled", on_key("cancel_key_deletion")),
    ("it is disabled then", state),
    ("it is enabled once more", on_key("enable_key")),
    ("what was encrypted is still there", decrypt),
    (
        "an unknown key is not found",
        lambda play: play.client.describe_key(KeyId="1234abcd-12ab-34cd-56ef-1234567890ab"),
    ),
)


def outcome(step: Callable[[Play], Any], play: Play) -> Any:
    try:
        return step(play)
    except ClientError as error:
        return error.response["Error"]["Code"]


def test_every_call_ends_as_on_ministack_where_that_is_right(servers: dict[str, str]) -> None:
    plays = {name: Play(kms(endpoint)) for name, endpoint in servers.items()}
    differences = []
    for what, step in STEPS:
        seen = {name: outcome(step, play) for name, play in plays.items()}
        if seen["customer-cloud"] != seen["ministack"]:
            differences.append((what, seen))
    assert not differences


def test_the_stock_aws_command_plays_a_customer(servers: dict[str, str]) -> None:
    def aws(*words: str) -> dict[str, Any]:
        command = [str(Path(sys.executable).with_name("aws")), *words]
        command += ["--endpoint-url", servers["customer-cloud"], "--region", REGION, "--output", "json"]
        environment = os.environ | {"AWS_ACCESS_KEY_ID": "444444444444", "AWS_SECRET_ACCESS_KEY": "x"}
        answer = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60)
        return dict(json.loads(answer.stdout)) if answer.stdout.strip() else {}

    assert aws("sts", "get-caller-identity")["Account"] == "444444444444"
    key = aws("kms", "create-key")["KeyMetadata"]
    assert key["Arn"].startswith(f"arn:aws:kms:{REGION}:444444444444:key/")
    aws("kms", "disable-key", "--key-id", key["KeyId"])
    assert aws("kms", "describe-key", "--key-id", key["KeyId"])["KeyMetadata"]["KeyState"] == "Disabled"
    aws("kms", "enable-key", "--key-id", key["KeyId"])
    assert aws("kms", "describe-key", "--key-id", key["KeyId"])["KeyMetadata"]["KeyState"] == "Enabled"
