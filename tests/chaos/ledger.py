"""The producers' ledger: every submission with its way and allowed ends, and every entry that must become a dead
letter.
"""

import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Submission:
    """One submitted job, known by its id; `twin_of` is the id of the job that it must become.

    `way` is the first way used. `committed`: SQL accepted it for good. `queued_at`: time.time() before the queue
    last confirmed it; until it is accepted, Redis may lose it.
    """

    id: str
    way: str
    job: dict[str, Any]
    expects: frozenset[str]
    twin_of: str | None = None
    cancel_after_s: float | None = None
    committed: bool = False
    queued_at: float | None = None
    seen: bool = False
    sends: int = 0


@dataclass(slots=True)
class Junk:
    """Bytes pushed into the intake that can only become a dead letter."""

    entry: bytes
    confirmed: bool = False
    seen: bool = False
    sent_at: float = 0.0


@dataclass
class Book:
    """The ledger, shared by several threads."""

    submissions: dict[str, Submission] = field(default_factory=dict)
    junk: list[Junk] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    # Replayed jobs and the number of replay requests.
    replayed: dict[str, int] = field(default_factory=dict)
    # Errors that producers got, counted by name.
    errors: dict[str, int] = field(default_factory=dict)

    def add(self, submission: Submission) -> None:
        with self.lock:
            self.submissions[submission.id] = submission

    def add_junk(self, junk: Junk) -> None:
        with self.lock:
            self.junk.append(junk)

    def note(self, way: str, error: Exception) -> None:
        name = f"{way}: {type(error).__name__}"
        with self.lock:
            self.errors[name] = self.errors.get(name, 0) + 1

    def open(self) -> list[Submission]:
        """Return the submissions that producers have not seen accepted yet."""
        with self.lock:
            return [one for one in self.submissions.values() if not one.seen]

    def open_junk(self) -> list[Junk]:
        with self.lock:
            return [one for one in self.junk if not one.seen]

    def all(self) -> Iterable[Submission]:
        with self.lock:
            return list(self.submissions.values())
