"""The servers of the local cloud: started under a guard each, waited for, and stopped without leftovers."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

from claviger_local import guard, settings
from claviger_local.trouble import Trouble


class Service:
    """One server. The guard's standard input is held open by this process: when it closes, the server is ended."""

    def __init__(self, name: str, command: list[str], environment: dict[str, str]) -> None:
        self.name = name
        self.log = settings.LOGS / f"{name}.log"
        with self.log.open("wb") as log:
            self._guard = subprocess.Popen(
                [sys.executable, str(Path(guard.__file__)), *command],
                cwd=settings.LOCAL,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The server's own process, below the guard."""
        children = [pid for pid in guard.descendants(self._guard.pid) if _parent(pid) == self._guard.pid]
        if not children:
            raise Trouble(f"{self.name} is not running", f"read {self.log}")
        return children[0]

    def alive(self) -> bool:
        return self._guard.poll() is None

    def wait_until(self, ready: Callable[[], bool], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if not self.alive():
                raise Trouble(f"{self.name} ended while starting: {self._last_line()}", f"read {self.log}")
            if ready():
                return
            time.sleep(0.05)
        raise Trouble(f"{self.name} did not answer within {seconds:.0f} s: {self._last_line()}", f"read {self.log}")

    def stop(self) -> None:
        if self._guard.stdin is not None:
            self._guard.stdin.close()
        try:
            self._guard.wait(guard.GRACE_S + 5)
        except subprocess.TimeoutExpired:
            self._guard.kill()
            self._guard.wait()

    def _last_line(self) -> str:
        lines = [line for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        return lines[-1].strip()[:200] if lines else "it said nothing"


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
    except (OSError, IndexError, ValueError):
        return 0


def answers(url: str) -> Callable[[], bool]:
    """Whether anything but a server error comes back: a 4xx is an answer too."""

    def ask() -> bool:
        try:
            with urllib.request.urlopen(url, timeout=1):
                return True
        except urllib.error.HTTPError as error:
            return error.code < 500
        except OSError:
            return False

    return ask


def start_vendor_aws() -> Service:
    tmp = settings.LOCAL / "tmp"
    service = Service(
        "vendor-aws",
        [sys.executable, str(Path(__file__).with_name("emulator.py"))],
        settings.clean_environment(
            BIND_HOST="127.0.0.1",
            GATEWAY_PORT=str(settings.VENDOR_PORT),
            MINISTACK_HOST="127.0.0.1",
            MINISTACK_ACCOUNT_ID=settings.VENDOR_ACCOUNT,
            MINISTACK_REGION=settings.REGION,
            AWS_ENDPOINT_URL=settings.VENDOR_AWS,
            AUTH="true",
            SFTP_ENABLED="0",
            IOT_MTLS_ENABLED="0",
            STATE_DIR=str(settings.LOCAL / "vendor-state"),
            S3_DATA_DIR=str(tmp / "s3"),
            PYTHONPATH=str(Path(__file__).resolve().parents[1]),
        ),
    )
    return service


def start_customer_aws() -> Service:
    return Service(
        "customer-aws",
        [
            str(settings.BINARIES / "claviger-customer-cloud"),
            "--port",
            str(settings.CUSTOMER_PORT),
            "--vendor-endpoint",
            settings.VENDOR_AWS,
        ],
        settings.clean_environment(RUST_LOG=os.environ.get("RUST_LOG", "info")),
    )


def start_notes(environment: dict[str, str]) -> Service:
    return Service(
        "notes",
        [str(settings.BINARIES / "claviger-notes")],
        settings.clean_environment(RUST_LOG=os.environ.get("RUST_LOG", "info"), **environment),
    )
