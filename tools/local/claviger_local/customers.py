"""Plays the customers and the canary customer, and reaches the admin side of their cloud."""

from __future__ import annotations

import base64
import json
import uuid
from collections import Counter
from typing import Any
from urllib.parse import urlencode

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from claviger_local import settings
from claviger_local.aws import Answer, customer, http


def kms(account: str, region: str) -> Any:
    return customer("kms", account, region)


def create_key(account: str, region: str, policy: dict[str, Any] | None = None, description: str = "") -> str:
    arguments: dict[str, Any] = {"Description": description}
    if policy is not None:
        arguments["Policy"] = json.dumps(policy)
    return str(kms(account, region).create_key(**arguments)["KeyMetadata"]["Arn"])


def create_imported_key(account: str, region: str, policy: dict[str, Any], material: bytes) -> str:
    """A key of the customer's own material."""
    metadata = kms(account, region).create_key(Policy=json.dumps(policy), Origin="EXTERNAL")["KeyMetadata"]
    arn = str(metadata["Arn"])
    import_material(arn, material)
    return arn


def import_material(key_arn: str, material: bytes) -> None:
    """The owner imports the material, wrapped as KMS asks for it."""
    client = of_key(key_arn)
    asked = client.get_parameters_for_import(
        KeyId=key_arn, WrappingAlgorithm="RSAES_OAEP_SHA_256", WrappingKeySpec="RSA_2048"
    )
    wrapping = serialization.load_der_public_key(asked["PublicKey"])
    assert isinstance(wrapping, rsa.RSAPublicKey)
    sha256 = hashes.SHA256()
    wrapped = wrapping.encrypt(material, padding.OAEP(padding.MGF1(sha256), sha256, label=None))
    client.import_key_material(
        KeyId=key_arn,
        ImportToken=asked["ImportToken"],
        EncryptedKeyMaterial=wrapped,
        ExpirationModel="KEY_MATERIAL_DOES_NOT_EXPIRE",
    )


def region_of(key_arn: str) -> str:
    return key_arn.split(":")[3]


def account_of(key_arn: str) -> str:
    return key_arn.split(":")[4]


def of_key(key_arn: str) -> Any:
    return kms(account_of(key_arn), region_of(key_arn))


def canary_policy(key_access_role: str, organisation: str) -> dict[str, Any]:
    """A key policy of the shape that every customer pastes, for the canary customer."""
    vendor = {"AWS": f"arn:aws:iam::{settings.VENDOR_ACCOUNT}:root"}
    context = {"kms:EncryptionContext:claviger:organisation": organisation}
    return {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Sid": "OwnerAdministers",
                "Effect": "Allow",
                "Principal": {"AWS": f"arn:aws:iam::{settings.CANARY_ACCOUNT}:root"},
                "Action": "kms:*",
                "Resource": "*",
            },
            {
                "Sid": "ClavigerUse",
                "Effect": "Allow",
                "Principal": vendor,
                "Action": ["kms:Encrypt", "kms:Decrypt"],
                "Resource": "*",
                "Condition": {"StringEquals": {"aws:PrincipalArn": key_access_role, **context}},
            },
            {
                "Sid": "ClavigerDescribe",
                "Effect": "Allow",
                "Principal": vendor,
                "Action": "kms:DescribeKey",
                "Resource": "*",
                "Condition": {"StringEquals": {"aws:PrincipalArn": key_access_role}},
            },
        ],
    }


def create_canaries(key_access_role: str) -> dict[str, dict[str, str]]:
    """One canary key per region of the catalogue, and one role that uses them: the CanaryKeys parameter."""
    organisation = str(uuid.uuid4())
    policy = canary_policy(key_access_role, organisation)
    return {"role": create_canary_role(key_access_role)} | {
        region: {
            "keyArn": create_key(settings.CANARY_ACCOUNT, region, policy, "canary customer"),
            "organisation": organisation,
        }
        for region in settings.ALL_REGIONS
    }


def create_canary_role(key_access_role: str) -> dict[str, str]:
    external_id = f"claviger-{uuid.uuid4().hex}"
    trust = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"AWS": f"arn:aws:iam::{settings.VENDOR_ACCOUNT}:root"},
                "Action": "sts:AssumeRole",
                "Condition": {"StringEquals": {"aws:PrincipalArn": key_access_role, "sts:ExternalId": external_id}},
            }
        ],
    }
    use = {"Effect": "Allow", "Action": ["kms:Encrypt", "kms:Decrypt", "kms:DescribeKey"], "Resource": "*"}
    permissions = {"Version": "2012-10-17", "Statement": [use]}
    return {"arn": create_role(settings.CANARY_ACCOUNT, trust, permissions), "externalId": external_id}


# What a BYOK customer does with its key-management role: stock calls of IAM.

KEY_MANAGEMENT = "key-management"
PERMISSIONS = "claviger"


def iam(account: str) -> Any:
    return customer("iam", account, "us-east-1")


def create_role(account: str, trust: dict[str, Any], permissions: dict[str, Any], name: str = KEY_MANAGEMENT) -> str:
    arn = iam(account).create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(trust))["Role"]["Arn"]
    iam(account).put_role_policy(RoleName=name, PolicyName=PERMISSIONS, PolicyDocument=json.dumps(permissions))
    return str(arn)


def trust(account: str, document: dict[str, Any], name: str = KEY_MANAGEMENT) -> None:
    iam(account).update_assume_role_policy(RoleName=name, PolicyDocument=json.dumps(document))


def delete_role(account: str, name: str = KEY_MANAGEMENT) -> None:
    iam(account).delete_role_policy(RoleName=name, PolicyName=PERMISSIONS)
    iam(account).delete_role(RoleName=name)


def denied(document: dict[str, Any]) -> dict[str, Any]:
    """The same trust policy, set to Deny."""
    return document | {"Statement": [statement | {"Effect": "Deny"} for statement in document["Statement"]]}


# The admin side of the customers' cloud.


def admin(method: str, path: str, body: Any = None) -> Answer:
    return http(method, f"{settings.CUSTOMER_AWS}/_cloud/{path}", body=body)


def inject(kind: str, **where: Any) -> None:
    """throttle, error-500, timeout, events-lost, ...: for an account, a region, an operation, or all of them."""
    answer = admin("POST", "faults", {"kind": kind, **where})
    if answer.status >= 300:
        raise AssertionError(f"the customers' cloud refused the fault: {answer}")


def heal() -> None:
    admin("DELETE", "faults")


def decrypt_as_owner(ciphertext: str, key_arn: str, context: dict[str, str]) -> bytes:
    """What only a test may do: the plaintext of a wrapped data key."""
    answer = admin(
        "POST", "decrypt-as-owner", {"keyArn": key_arn, "ciphertext": ciphertext, "encryptionContext": context}
    )
    if answer.status != 200:
        raise AssertionError(f"the customers' cloud did not decrypt: {answer}")
    return base64.b64decode(answer.json["plaintext"])


def calls(account: str | None = None, operation: str | None = None, since: float | None = None) -> list[dict[str, Any]]:
    """The KMS and STS calls that the customers' cloud has answered, oldest first."""
    query: dict[str, Any] = {"limit": 50_000}
    if account is not None:
        query["account"] = account
    if operation is not None:
        query["operation"] = operation
    if since is not None:
        query["since"] = int(since * 1000)
    return list(admin("GET", f"calls?{urlencode(query)}").json["calls"])


Use = tuple[str, str, str]
"""Region, operation, and purpose in the encryption context."""


def uses(account: str) -> Counter[Use]:
    """How often the vendor, or a session of its in the customer's own account, used an account's keys: what the
    customer's CloudTrail would tell, and more (refused calls from another account too)."""
    return Counter(
        (call["region"], call["operation"], call["encryptionContext"].get("claviger:purpose", ""))
        for call in calls(account=account)
        if call["service"] == "kms" and "/claviger" in call["caller"]
    )


def data_key_calls(account: str, since: float) -> list[dict[str, Any]]:
    """The vendor's calls on an account's keys that are about data keys, not about watching."""
    return [
        call
        for call in calls(account=account, since=since)
        if call["callerAccount"] == settings.VENDOR_ACCOUNT
        and call["encryptionContext"].get("claviger:purpose") == "data-key"
    ]
