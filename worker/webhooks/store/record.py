"""RECORD of deliveries: the move, the attempt's close, the receiver's health and the next in order commit together."""

import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import Boolean, Connection, bindparam, case, null, or_, select, update

from worker.core.lifecycle import DeliveryOutcome, Move
from worker.store import transitions
from worker.store.clock import from_now, now
from worker.webhooks.core.fair_slots import FairSlots
from worker.webhooks.core.outcome import SendResult
from worker.webhooks.core.receiver_health import ReceiverHealth, health_after
from worker.webhooks.store import due as webhook_lanes
from worker.webhooks.store import ordering
from worker.webhooks.store.claim import places_of
from worker.webhooks.store.due import ReceiverLane
from worker.webhooks.store.health_column import health_of, text_of
from worker.webhooks.store.tables import deliveries, delivery_attempts, receivers

CLOSED = (
    "error_code", "http_status", "retry_after_s", "dns_ms", "connect_ms", "tls_ms", "first_byte_ms", "total_ms",
    "response_headers", "response_body", "is_truncated", "peer",
)  # fmt: skip


# Among how many of the oldest due, and of how many receivers, each place that falls free is given away.
CHOICE = 8


@dataclass(frozen=True, slots=True)
class DeliveryRecord:
    """The end of one attempt at a delivery; `attempt` holds the columns of CLOSED.

    `move` is None when the lease was lost. `sent` None: the attempt says nothing about the receiver. `counts`: the
    attempt is one of the schedule's.
    """

    delivery_id: str
    number: int
    worker_id: str
    receiver_id: str
    tenant: str
    move: Move | None
    outcome: DeliveryOutcome
    was_sent: bool
    counts: bool
    attempt: Mapping[str, Any]
    variant: str
    sent: SendResult | None = None
    event_at_s: float = 0.0
    now_s: float = 0.0
    delay_s: float = 0.0
    lane: tuple[str, int] | None = None  # ordering key and sequence


class RecordedDelivery(NamedTuple):
    """What came of one closing: whether the delivery moved, what may go next, what the receiver has become by it.

    Of several ends in one transaction each says its own step, so that what a receiver becomes is told once.
    """

    moved: bool
    next_ids: tuple[str, ...]
    before: ReceiverHealth | None
    after: ReceiverHealth | None


UNTOLD = (None, None)
_CLOSE = (
    update(delivery_attempts)
    .where(
        delivery_attempts.c.delivery_id == bindparam("of_delivery"),
        delivery_attempts.c.attempt == bindparam("of_attempt"),
        or_(delivery_attempts.c.outcome.is_(None), delivery_attempts.c.outcome == DeliveryOutcome.unknown),
    )
    .values(
        outcome=bindparam("ended"),
        finished_at=now(),
        sent_at=case((bindparam("was_sent", type_=Boolean()), delivery_attempts.c.sent_at), else_=null()),
        **{name: bindparam(f"new_{name}", type_=delivery_attempts.c[name].type) for name in CLOSED},
    )
)


def record(connection: Connection, closings: Sequence[DeliveryRecord], *, slots: int) -> list[RecordedDelivery]:
    """Write each end. What is known of an attempt is kept also where another worker has the delivery by now.

    All ends of one call are one worker's, which has `slots`.
    """
    ordering.lock(connection, [closing.receiver_id for closing in closings])
    moved = _move(connection, closings)
    connection.execute(_CLOSE, [_closed(closing) for closing in sorted(closings, key=_place)])
    healths = _judge(connection, closings)
    released = _release(connection, [closing for closing in closings if _place(closing) in moved])
    following = _following(connection, closings, released, slots)
    return [
        # Of all that ended for a receiver, the first says what follows.
        RecordedDelivery(
            _place(one) in moved, tuple(following.pop(one.receiver_id, ())), *healths.get(_place(one), UNTOLD)
        )
        for one in closings
    ]


def _move(connection: Connection, closings: Sequence[DeliveryRecord]) -> set[transitions.Key]:
    moved: set[transitions.Key] = set()
    # One by one: each has a delay of its own, and few deliveries end in the same transaction.
    for closing in sorted(closings, key=_place):
        if closing.move is None:
            continue
        changes: dict[str, Any] = {
            "last_http_status": closing.attempt.get("http_status"),
            "last_error_code": closing.attempt.get("error_code"),
            "variant": closing.variant,
        }
        if not closing.counts:
            changes["attempts_used"] = deliveries.c.attempts_used - 1
        if not closing.move.final:
            changes |= {"run_at": from_now(closing.delay_s), "waiting_for": "retry"}
        moved |= transitions.apply(
            connection,
            closing.move,
            [_place(closing)],
            table=deliveries,
            worker_id=closing.worker_id,
            changes=changes,
        )
    return moved


def _judge(
    connection: Connection, closings: Sequence[DeliveryRecord]
) -> dict[transitions.Key, tuple[ReceiverHealth, ReceiverHealth]]:
    """Fold the attempts into their receivers' health, one after another; return it before and after each."""
    telling: dict[str, list[tuple[DeliveryRecord, SendResult]]] = defaultdict(list)
    for closing in closings:
        if closing.sent is not None:
            telling[closing.receiver_id].append((closing, closing.sent))
    found = connection.execute(
        select(receivers.c.id, receivers.c.health, receivers.c.status).where(receivers.c.id.in_(sorted(telling)))
    ).all()
    steps: dict[transitions.Key, tuple[ReceiverHealth, ReceiverHealth]] = {}
    for row in found:
        first = after = health_of(row.health)
        for closing, sent in telling[row.id]:
            before = after
            after = health_after(before, sent, now_s=closing.now_s, event_at_s=closing.event_at_s)
            steps[_place(closing)] = (before, after)
        if after != first:
            changes: dict[str, Any] = {"health": text_of(after)}
            if after.disabled is not None and row.status == "enabled":
                changes |= {"status": "disabled", "disabled_reason": after.disabled, "disabled_at": now()}
            connection.execute(update(receivers).where(receivers.c.id == row.id).values(changes))
    return steps


def _release(connection: Connection, closings: Sequence[DeliveryRecord]) -> dict[str, list[str]]:
    """Let those go that waited for a delivery which is over now; return them by receiver."""
    over = [one for one in closings if one.lane is not None and one.move is not None and one.move.final]
    released: dict[str, list[str]] = defaultdict(list)
    for receiver_id, next_id in ordering.release(
        connection, [(one.receiver_id, one.lane[0]) for one in over if one.lane]
    ):
        released[receiver_id].append(next_id)
    return released


def _following(
    connection: Connection, closings: Sequence[DeliveryRecord], released: dict[str, list[str]], slots: int
) -> dict[str, list[str]]:
    """Return what may go in the place of what ended, by receiver: what was let go, and of what is due as many.

    Without it a receiver's backlog would be sent in bursts of its limit, one a tick. Any of the oldest: whoever ends
    another delivery at this moment chooses too, and the same one would be claimed once and leave a place empty.
    """
    turns = _turns(connection, closings, slots)
    goes_on = Counter(one for ones in turns.values() for one in ones)
    due = webhook_lanes.due(connection, {one: CHOICE * count for one, count in goes_on.items()})
    following: dict[str, list[str]] = {}
    for receiver_id, ones in turns.items():
        following[receiver_id] = list(released[receiver_id])
        for one, count in Counter(ones).items():
            waiting = [row.row_id for row in due[one] if row.row_id not in released[one]]
            following[receiver_id] += random.sample(waiting, min(count, len(waiting)))
    return following


def _turns(connection: Connection, closings: Sequence[DeliveryRecord], slots: int) -> dict[str, list[str]]:
    """Return which receivers go on in the place of one that ended: itself, while its tenant has other places left.

    Where it has none, the next by their ids that have no more in flight than it: else those that came first would
    follow themselves for as long as they have a backlog.
    """
    places = places_of(connection, closings[0].worker_id, slots)
    given_back = Counter(one.tenant for one in closings)
    others: list[ReceiverLane] | None = None
    turns: dict[str, list[str]] = defaultdict(list)
    for one in closings:
        goes_on = None
        if places.left(one.tenant) <= given_back[one.tenant]:
            others = _others(connection, one.receiver_id) if others is None else others
            goes_on = _with_fewer(others, one.receiver_id, places)
        if goes_on is None:
            goes_on = one.receiver_id
            places.take(one.tenant, one.receiver_id)
        given_back[one.tenant] -= 1
        turns[one.receiver_id].append(goes_on)
    return turns


def _others(connection: Connection, receiver_id: str) -> list[ReceiverLane]:
    """Return the receivers behind one, in a ring, that something is due for and that have room."""
    lanes, _ = webhook_lanes.lanes(connection, after=receiver_id, most=CHOICE)
    if len(lanes) < CHOICE:
        lanes += webhook_lanes.lanes(connection, most=CHOICE - len(lanes))[0]
    return [lane for lane in lanes if lane.free and lane.is_due]


def _with_fewer(others: Sequence[ReceiverLane], receiver_id: str, places: FairSlots) -> str | None:
    held = places.held(receiver_id)
    for lane in sorted(others, key=lambda lane: places.held(lane.receiver_id)):
        may = lane.receiver_id != receiver_id and places.held(lane.receiver_id) <= held
        if may and places.take(lane.tenant, lane.receiver_id):
            return lane.receiver_id
    return None


def _place(closing: DeliveryRecord) -> transitions.Key:
    return closing.delivery_id, closing.number


def _closed(closing: DeliveryRecord) -> dict[str, Any]:
    return {
        "of_delivery": closing.delivery_id,
        "of_attempt": closing.number,
        "ended": closing.outcome,
        "was_sent": closing.was_sent,
        **{f"new_{name}": closing.attempt.get(name) for name in CLOSED},
    }
