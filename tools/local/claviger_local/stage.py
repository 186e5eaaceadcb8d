"""What the story is told with: steps, checks and machine lines; failures are collected, not thrown."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


class Failed(Exception):
    """A check that the rest of its step cannot do without."""


class Stage:
    """Prints a readable line a step, with the time since the story began, and remembers what failed."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.failures: list[str] = []
        self._step = ""

    def _line(self, mark: str, text: str) -> None:
        print(f"{time.monotonic() - self.began:7.1f} s  {mark} {text}", flush=True)

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """A step. What goes wrong inside ends the step, not the story."""
        self._step = title
        began = time.monotonic()
        print("", flush=True)
        self._line("==", title)
        try:
            yield
        except Failed:
            pass
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            self._fail(
                f"{type(error).__name__}: {str(error)[:400]} ({where.filename.rsplit('/', 1)[-1]}:{where.lineno})"
            )
        self._line("--", f"took {time.monotonic() - began:.1f} s")

    def say(self, text: str) -> None:
        self._line("  ", text)

    def _fail(self, text: str) -> None:
        self.failures.append(f"{self._step}: {text}")
        self._line("NO", text)

    def check(self, holds: object, text: str, seen: object = "") -> bool:
        """Something that must hold. The story goes on either way."""
        if holds:
            self._line("ok", text)
            return True
        self._fail(f"{text}{f' — seen: {seen}' if str(seen) else ''}")
        return False

    def need(self, holds: object, text: str, seen: object = "") -> None:
        """Something without which the step has no sense."""
        if not self.check(holds, text, seen):
            raise Failed

    def number(self, name: str, **values: object) -> None:
        """A line for machines."""
        shown = " ".join(f"{key}={_shown(value)}" for key, value in values.items())
        print(f"story {name} {shown}", flush=True)

    def until(self, what: str, ask: Callable[[], Any], seconds: float, pause: float = 0.1) -> Any:
        """Asks until the answer is true-ish and gives it; the step ends if it never is."""
        deadline = time.monotonic() + seconds
        last: object = None
        while time.monotonic() < deadline:
            last = ask()
            if last:
                return last
            time.sleep(pause)
        self._fail(f"{what}: not within {seconds:.0f} s")
        raise Failed


def _shown(value: object) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value)
