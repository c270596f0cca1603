"""The statuses of jobs and deliveries, and the moves between them. The guarded UPDATEs in SQL are built from these.

    (nothing) ── accept ──▶ queued ── claim ──▶ in_progress ── complete ──▶ completed
        │                    ▲  │                  │  │  │
        └── refuse ──▶ failed│  ├── cancel ──▶ cancelled ◀── cancel ──┘  │  └── fail ──▶ failed
                             │  └── expire ──▶ expired ◀──── expire ─────┘
                             └── retry, hold, release ─────── in_progress

`complete` and `fail` also start from `queued` while the attempt number is current: the worker lost its lease, no other
worker has claimed the job since, and the answer is already paid for. A delivery has fewer moves:

    (event) ─▶ queued ── claim ──▶ in_progress ── deliver ──▶ delivered
                │ ▲                 │   └── fail, cancel ──▶ failed, cancelled
              hold resume           └── retry ──▶ queued
                ▼ │
                held          redeliver: delivered, failed, held, cancelled ──▶ queued
"""

from collections.abc import Set
from dataclasses import dataclass
from enum import StrEnum


class Status(StrEnum):
    """The status of a job, in OpenAI's words."""

    queued = "queued"
    in_progress = "in_progress"
    completed = "completed"
    failed = "failed"
    cancelled = "cancelled"
    expired = "expired"


FINAL = frozenset({Status.completed, Status.failed, Status.cancelled, Status.expired})


class Outcome(StrEnum):
    """The outcome of one attempt. `unknown`: its worker stopped between sending and recording, so it may be billed."""

    completed = "completed"
    failed = "failed"
    cancelled = "cancelled"
    expired = "expired"
    released = "released"
    unknown = "unknown"


class DeliveryStatus(StrEnum):
    """The status of the delivery of one event to one receiver. `held`: the receiver is disabled."""

    queued = "queued"
    in_progress = "in_progress"
    delivered = "delivered"
    failed = "failed"
    held = "held"
    cancelled = "cancelled"


DELIVERY_ENDED = frozenset({DeliveryStatus.delivered, DeliveryStatus.failed, DeliveryStatus.cancelled})


class DeliveryOutcome(StrEnum):
    """The outcome of one attempt at a delivery. `unknown`: the receiver may have got it; no record says so."""

    delivered = "delivered"
    failed = "failed"
    released = "released"
    unknown = "unknown"


@dataclass(frozen=True, slots=True)
class Move:
    """A change of status. `held`: only the worker that claimed the current attempt may make it."""

    name: str
    sources: frozenset[StrEnum]
    target: StrEnum
    held: bool = False

    @property
    def final(self) -> bool:
        return self.target in FINAL or self.target in DELIVERY_ENDED


def _move(name: str, sources: Set[StrEnum], target: StrEnum, *, held: bool = False) -> Move:
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

_D = DeliveryStatus
CLAIM_DELIVERY = _move("claim", {_D.queued}, _D.in_progress)
DELIVER = _move("deliver", {_D.queued, _D.in_progress}, _D.delivered, held=True)
FAIL_DELIVERY = _move("fail", {_D.in_progress}, _D.failed, held=True)
CANCEL_DELIVERY = _move("cancel", {_D.in_progress}, _D.cancelled, held=True)
RETRY_DELIVERY = _move("retry", {_D.in_progress}, _D.queued, held=True)
TAKE_BACK_DELIVERY = _move("take_back", {_D.in_progress}, _D.queued)
GIVE_UP_DELIVERY = _move("give_up", {_D.queued, _D.held}, _D.failed)
HOLD_DELIVERY = _move("hold", {_D.queued}, _D.held)
RESUME_DELIVERY = _move("resume", {_D.held}, _D.queued)
DROP_DELIVERY = _move("drop", {_D.queued, _D.held}, _D.cancelled)
REDELIVER = _move("redeliver", {_D.delivered, _D.failed, _D.held, _D.cancelled}, _D.queued)
