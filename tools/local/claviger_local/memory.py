"""Looks for byte strings in the memory of a running process."""

from __future__ import annotations

import re
from collections.abc import Iterable

CHUNK = 4 << 20


def _readable(pid: int) -> Iterable[tuple[int, int]]:
    with open(f"/proc/{pid}/maps") as maps:
        for line in maps:
            match = re.match(r"([0-9a-f]+)-([0-9a-f]+) r\S* \S+ \S+ \S+\s*(.*)", line)
            if match and match.group(3) not in ("[vvar]", "[vsyscall]", "[vvar_vclock]"):
                yield int(match.group(1), 16), int(match.group(2), 16)


def find(pid: int, needles: Iterable[bytes]) -> set[bytes]:
    """Those of `needles` that are anywhere in the process's memory."""
    wanted = set(needles)
    found: set[bytes] = set()
    overlap = max((len(needle) for needle in wanted), default=1) - 1
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for start, end in _readable(pid):
            tail = b""
            position = start
            while position < end:
                try:
                    memory.seek(position)
                    chunk = memory.read(min(CHUNK, end - position))
                except (OSError, ValueError, OverflowError):
                    break  # Unmapped meanwhile, or not for reading.
                if not chunk:
                    break
                window = tail + chunk
                found |= {needle for needle in wanted - found if needle in window}
                tail = window[-overlap:] if overlap else b""
                position += len(chunk)
            if found == wanted:
                break
    return found
