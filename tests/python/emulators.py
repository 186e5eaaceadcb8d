"""Servers that a test starts for itself, each on a free port."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from claviger_local import services, settings


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def kept_in(place: Path) -> Iterator[None]:
    """Logs and process ids of what is started meanwhile go to this folder."""
    patched = pytest.MonkeyPatch()
    patched.setattr(settings, "LOCAL", place)
    patched.setattr(settings, "LOGS", place)
    try:
        yield
    finally:
        patched.undo()


@contextmanager
def ministack(place: Path, account: str) -> Iterator[str]:
    """The endpoint of a ministack of this account."""
    port = free_port()
    endpoint = f"http://127.0.0.1:{port}"
    service = services.Service(
        "ministack",
        [sys.executable, "-m", "ministack"],
        settings.clean_environment(
            BIND_HOST="127.0.0.1",
            GATEWAY_PORT=str(port),
            MINISTACK_ACCOUNT_ID=account,
            AWS_ENDPOINT_URL=endpoint,
            SFTP_ENABLED="0",
            IOT_MTLS_ENABLED="0",
            STATE_DIR=str(place / "state"),
        ),
    )
    try:
        service.wait_until(services.answers(f"{endpoint}/_ministack/health"), 60)
        yield endpoint
    finally:
        service.stop()


@contextmanager
def customer_cloud() -> Iterator[str]:
    """The endpoint of a customer-cloud without a vendor."""
    binary = settings.BINARIES / "claviger-customer-cloud"
    assert binary.exists(), f"{binary} is missing: run `make build`, as `make test` does"
    port = free_port()
    endpoint = f"http://127.0.0.1:{port}"
    service = services.Service(
        "customer-aws",
        [str(binary), "--port", str(port), "--vendor-endpoint", ""],
        settings.clean_environment(),
    )
    try:
        service.wait_until(services.answers(f"{endpoint}/_cloud/health"), 20)
        yield endpoint
    finally:
        service.stop()
