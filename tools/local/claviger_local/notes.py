"""Users of the notes app: they write, they read, and some of them never stop reading."""

from __future__ import annotations

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from claviger_local import settings
from claviger_local.aws import Answer, http

WORDS = (
    "Schlüssel", "ключ", "鍵", "chìa khoá", "कुंजी", "مفتاح", "clé", "clau", "κλειδί", "열쇠",
    "note", "🔑", "straße", "naïve", "Ωmega", "\u202emirror\u202c", "e\u0301",
)  # fmt: skip
LARGEST = 256 * 1024


def text_of(size: int, seed: int) -> bytes:
    """Unicode text of exactly `size` bytes, the same for the same seed."""
    if size == 1:
        return b"x"
    source = random.Random(seed)
    text = bytearray()
    while len(text) < size:
        text += (source.choice(WORDS) + " ").encode()
    cut = bytes(text[:size]).decode("utf-8", errors="ignore").encode()
    return cut + b"." * (size - len(cut))


def make_notes(count: int) -> dict[str, bytes]:
    """Sizes from 1 byte to 256 KiB, most of them small, both ends among them."""
    source = random.Random(2)
    sizes = [1, LARGEST] + [min(LARGEST, int(2 ** source.uniform(0, 18))) for _ in range(count - 2)]
    return {f"note-{number:04}": text_of(max(1, size), number) for number, size in enumerate(sizes)}


def url(customer: settings.Customer, note: str) -> str:
    return f"{settings.NOTES_APP}/{customer.org}/{customer.site}/notes/{note}"


def put(customer: settings.Customer, note: str, body: bytes) -> Answer:
    return http("PUT", url(customer, note), raw=body)


def get(customer: settings.Customer, note: str) -> Answer:
    return http("GET", url(customer, note))


def write_all(customer: settings.Customer, notes: dict[str, bytes]) -> list[str]:
    """What was not acknowledged."""
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda item: (item[0], put(customer, *item)), notes.items()))
    return [f"{note}: {answer}" for note, answer in answers if answer.status not in (200, 201, 204)]


def read_all(customer: settings.Customer, notes: dict[str, bytes]) -> list[str]:
    """What did not come back byte for byte."""
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda note: (note, get(customer, note)), notes))
    return [
        f"{note}: {answer.status} {answer.problem}"
        for note, answer in answers
        if answer.status != 200 or answer.body != notes[note]
    ]


@dataclass(frozen=True)
class Look:
    """One read: when it was sent and answered (Unix seconds), and how."""

    sent: float
    answered: float
    status: int
    problem: str


class Reader:
    """Reads one note over and over, and remembers every answer."""

    def __init__(self, customer: settings.Customer, note: str, pause: float = 0.05) -> None:
        self.customer = customer
        self.note = note
        self.pause = pause
        self.looks: list[Look] = []
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Reader:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join(35)

    def _run(self) -> None:
        while not self._end.is_set():
            sent = time.time()
            try:
                answer = get(self.customer, self.note)
                self.looks.append(Look(sent, time.time(), answer.status, answer.problem))
            except OSError as error:
                self.looks.append(Look(sent, time.time(), 0, type(error).__name__))
            self._end.wait(self.pause)

    def last_success(self) -> float:
        """When the last good answer came, in Unix seconds; 0 if none did."""
        return max((look.answered for look in self.looks if look.status == 200), default=0.0)

    def refused_since(self, moment: float, problem: str) -> bool:
        """Whether reads that began after `moment` exist and all were refused with `problem`."""
        later = [look for look in self.looks if look.sent > moment]
        return bool(later) and all(look.problem == problem for look in later)

    def kinds(self, since: float = 0.0) -> dict[str, int]:
        found: dict[str, int] = {}
        for look in self.looks:
            if look.sent >= since:
                kind = "ok" if look.status == 200 else (look.problem or str(look.status))
                found[kind] = found.get(kind, 0) + 1
        return found


class Writer:
    """Writes a new note over and over, and remembers each that was acknowledged."""

    def __init__(self, customer: settings.Customer, name: str, pause: float = 0.02) -> None:
        self.customer = customer
        self.name = name
        self.pause = pause
        self.acknowledged: dict[str, bytes] = {}
        self.refused: dict[str, int] = {}
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Writer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join(35)

    def _run(self) -> None:
        number = 0
        while not self._end.is_set():
            # A few notes are written again and again, so that the re-encryption meets them in the act.
            note, body = f"{self.name}-{number % 50:02}", f"version {number} of this note".encode()
            answer = put(self.customer, note, body)
            if answer.status in (200, 201, 204):
                self.acknowledged[note] = body
            else:
                kind = answer.problem or str(answer.status)
                self.refused[kind] = self.refused.get(kind, 0) + 1
            number += 1
            self._end.wait(self.pause)
