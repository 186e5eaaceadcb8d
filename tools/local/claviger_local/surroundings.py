"""Looks round before anything starts: tools, ports, another local cloud, leftovers of the last one."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import socket
import time
from typing import IO

from claviger_local import settings
from claviger_local.trouble import Trouble

LOCK = settings.RUN / "lock"


class Lock:
    """Held by the one process that is the local cloud. The kernel lets go of it however that process ends."""

    def __init__(self) -> None:
        settings.RUN.mkdir(parents=True, exist_ok=True)
        self._file: IO[str] = LOCK.open("a+")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.seek(0)
            holder = self._file.read().strip() or "unknown"
            raise Trouble(
                f"the local cloud is already up here (process {holder})",
                "use it (`. .local/env`), or end it with `make stop`",
            ) from None
        self._file.truncate(0)
        self._file.write(str(os.getpid()))
        self._file.flush()

    def release(self) -> None:
        self._file.truncate(0)
        self._file.close()


def holder() -> int | None:
    """The process that is the local cloud now, if any."""
    try:
        with LOCK.open("r+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return None
            except BlockingIOError:
                return int(lock.read().strip() or 0) or None
    except FileNotFoundError:
        return None


def stop_running(seconds: float = 30.0) -> bool:
    """Ends the local cloud that is up; whether there was one."""
    pid = holder()
    if pid is None:
        return False
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + seconds
    while holder() is not None:
        if time.monotonic() > deadline:
            raise Trouble(f"process {pid} does not end", f"`kill -9 {pid}`: its servers end with it")
        time.sleep(0.1)
    return True


def check_ports() -> None:
    for variable, port in settings.PORTS.items():
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as error:
                raise Trouble(
                    f"port {port} of 127.0.0.1 is busy ({error.strerror})",
                    f"end what listens there (`ss -ltnp`), or choose another: `{variable}=... make run`",
                ) from None


def check_tools() -> None:
    if shutil.which("strip") is None:
        raise Trouble("`strip` is missing", "install a C compiler with its binutils (Debian: apt-get install gcc)")
    wanted = [
        "claviger-customer-cloud",
        "claviger-notes",
        "proof",
        *(f"claviger-{name}" for name in settings.FUNCTIONS),
    ]
    missing = [name for name in wanted if not (settings.BINARIES / name).is_file()]
    if missing:
        raise Trouble(f"not built yet: {', '.join(missing)}", "`make build`")


def sweep_leftovers() -> None:
    """State of an earlier local cloud: nothing of it is of use, for its emulators forget everything."""
    for name in ("tmp", "vendor-state", "log"):
        shutil.rmtree(settings.LOCAL / name, ignore_errors=True)
    settings.ENV_FILE.unlink(missing_ok=True)
    for folder in (settings.LOCAL / "tmp", settings.LOGS, settings.RUN, settings.ARTIFACTS):
        folder.mkdir(parents=True, exist_ok=True)
