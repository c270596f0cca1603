"""The statuses of a job and the moves between them: the one table that SQL's guarded updates are built from.

    (nothing) ── accept ──▶ queued ── claim ──▶ in_progress ── complete ──▶ completed
        │                    ▲  │                  │  │  │
        └── refuse ──▶ failed│  ├── cancel ──▶ cancelled ◀── cancel ──┘  │  └── fail ──▶ failed
                             │  └── expire ──▶ expired ◀──── expire ─────┘
                             └── retry, hold, release ─────── in_progress

`complete` and `fail` also leave `queued` while the attempt number is current: the lease was lost, nobody claimed since,
and the answer is paid for (DESIGN section 3).
"""

from dataclasses import dataclass
from enum import StrEnum


class Status(StrEnum):
    """Where a job stands; the words are OpenAI's."""

    queued = "queued"
    in_progress = "in_progress"
    completed = "completed"
    failed = "failed"
    cancelled = "cancelled"
    expired = "expired"


FINAL = frozenset({Status.completed, Status.failed, Status.cancelled, Status.expired})


class Outcome(StrEnum):
    """How one attempt ended. `unknown`: its worker ended between sending and recording, so it may be billed."""

    completed = "completed"
    failed = "failed"
    cancelled = "cancelled"
    expired = "expired"
    released = "released"
    unknown = "unknown"


@dataclass(frozen=True, slots=True)
class Move:
    """A change of status. `held`: only the worker that holds the job may make it, from in_progress."""

    name: str
    sources: frozenset[Status]
    target: Status
    held: bool = False

    @property
    def final(self) -> bool:
        return self.target in FINAL


def _move(name: str, sources: set[Status], target: Status, *, held: bool = False) -> Move:
    return Move(name, frozenset(sources), target, held)


_OPEN = {Status.queued, Status.in_progress}

CLAIM = _move("claim", {Status.queued}, Status.in_progress)
COMPLETE = _move("complete", _OPEN, Status.completed, held=True)
FAIL = _move("fail", _OPEN, Status.failed, held=True)
RETRY = _move("retry", {Status.in_progress}, Status.queued, held=True)
HOLD = _move("hold", {Status.in_progress}, Status.queued, held=True)
RELEASE = _move("release", {Status.in_progress}, Status.queued, held=True)
TAKE_BACK = _move("take_back", {Status.in_progress}, Status.queued)
CANCEL = _move("cancel", {Status.in_progress}, Status.cancelled, held=True)
CANCEL_QUEUED = _move("cancel_queued", {Status.queued}, Status.cancelled)
EXPIRE = _move("expire", {Status.in_progress}, Status.expired, held=True)
EXPIRE_QUEUED = _move("expire_queued", {Status.queued}, Status.expired)
EXHAUST = _move("exhaust", {Status.in_progress}, Status.failed)
