"""boto3 clients of both clouds, and plain HTTP."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass, field
from typing import Any

import boto3
import requests
from botocore.config import Config

from claviger_local import settings

_CONFIG = Config(retries={"total_max_attempts": 1}, connect_timeout=2, read_timeout=30, max_pool_connections=20)


def client(service: str, account: str, region: str, endpoint: str) -> Any:
    return boto3.session.Session().client(
        service,
        region_name=region,
        endpoint_url=endpoint,
        aws_access_key_id=account,  # Twelve digits: both clouds take them for that account's root.
        aws_secret_access_key="local",
        config=_CONFIG,
    )


@functools.cache
def vendor(service: str) -> Any:
    return client(service, settings.VENDOR_ACCOUNT, settings.REGION, settings.VENDOR_AWS)


@functools.cache
def customer(service: str, account: str, region: str) -> Any:
    return client(service, account, region, settings.CUSTOMER_AWS)


@dataclass
class Answer:
    """An HTTP answer. `problem` is the slug of a problem+json, or empty."""

    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def json(self) -> Any:
        return json.loads(self.body or b"null")

    @property
    def problem(self) -> str:
        try:
            return str(self.json.get("type", "")).rsplit("/", 1)[-1]
        except (ValueError, AttributeError):
            return ""

    def __str__(self) -> str:
        return f"{self.status} {self.body[:600].decode(errors='replace')}"


_session = requests.Session()
_session.trust_env = False


def http(
    method: str,
    url: str,
    *,
    token: str | None = None,
    body: Any = None,
    raw: bytes | None = None,
    timeout: float = 30.0,
) -> Answer:
    headers = {}
    if token is not None:
        headers["authorization"] = f"Bearer {token}"
    data = raw
    if raw is None and body is not None:
        headers["content-type"] = "application/json"
        data = json.dumps(body).encode()
    answer = _session.request(method, url, headers=headers, data=data, timeout=timeout)
    return Answer(answer.status_code, answer.content, {k.lower(): v for k, v in answer.headers.items()})
