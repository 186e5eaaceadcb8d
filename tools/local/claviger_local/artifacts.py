"""Turns built binaries into what Lambda takes: `bootstrap` in a zip, stripped, stored without compression."""

from __future__ import annotations

import os
import subprocess
import zipfile
from pathlib import Path

from claviger_local import settings


def package(function: str) -> Path:
    """The zip of a function, made anew only when its binary changed."""
    binary = settings.BINARIES / f"claviger-{function}"
    folder = settings.ARTIFACTS / function
    folder.mkdir(parents=True, exist_ok=True)
    stamp = folder / "made-from"
    archive = folder / "function.zip"
    made_from = f"{binary} {binary.stat().st_mtime_ns} {binary.stat().st_size}"
    if archive.is_file() and stamp.is_file() and stamp.read_text() == made_from:
        return archive
    bootstrap = folder / "bootstrap"
    if binary.read_bytes()[:4] == b"\x7fELF":
        subprocess.run(["strip", "-s", "-o", str(bootstrap), str(binary)], check=True)
    else:
        bootstrap.write_bytes(binary.read_bytes())
    os.chmod(bootstrap, 0o755)
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as out:
        out.write(bootstrap, "bootstrap")
    stamp.write_text(made_from)
    return archive


def package_all() -> dict[str, Path]:
    return {function: package(function) for function in settings.FUNCTIONS}
