"""The producers' own book: what was sent by which door, what it must become, and which entries can become nothing."""

import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Submission:
    """One job of a producer's, known by its id; `twin_of` is the id of the job it must turn out to be.

    `door` is the one it first went by. `committed`: a SQL door took it, for good. `queued_at`: time.time() before a
    queue door last confirmed it, behind which Redis may lose it.
    """

    id: str
    door: str
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
    """Bytes pushed into the intake that can become nothing but a dead letter."""

    entry: bytes
    confirmed: bool = False
    seen: bool = False
    sent_at: float = 0.0


@dataclass
class Book:
    """All of it, for several threads."""

    submissions: dict[str, Submission] = field(default_factory=dict)
    junk: list[Junk] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    # Jobs that were replayed, and how often somebody asked for it.
    replayed: dict[str, int] = field(default_factory=dict)
    # What producers met: an error of a door, by its name.
    errors: dict[str, int] = field(default_factory=dict)

    def add(self, submission: Submission) -> None:
        with self.lock:
            self.submissions[submission.id] = submission

    def add_junk(self, junk: Junk) -> None:
        with self.lock:
            self.junk.append(junk)

    def note(self, door: str, error: Exception) -> None:
        name = f"{door}: {type(error).__name__}"
        with self.lock:
            self.errors[name] = self.errors.get(name, 0) + 1

    def open(self) -> list[Submission]:
        """Return what the producers have not seen accepted yet."""
        with self.lock:
            return [one for one in self.submissions.values() if not one.seen]

    def open_junk(self) -> list[Junk]:
        with self.lock:
            return [one for one in self.junk if not one.seen]

    def all(self) -> Iterable[Submission]:
        with self.lock:
            return list(self.submissions.values())
