"""What stops the local cloud: one clear line and the remedy, never a traceback."""

from __future__ import annotations


class Trouble(Exception):
    """A failure that a person can mend. `remedy` says how."""

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(what)
        self.remedy = remedy
