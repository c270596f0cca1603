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


# A free slot goes to one of the CHOICE oldest due deliveries, and at most CHOICE other receivers are looked at.
CHOICE = 8


@dataclass(frozen=True, slots=True)
class DeliveryRecord:
    """The end of one attempt at a delivery. `attempt` holds the columns of CLOSED.

    `move` None: the lease is lost. `result` None: the attempt is no evidence about the receiver. `counts`: the attempt
    spends a step of the schedule. `lane`: ordering key and sequence.
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
    result: SendResult | None = None
    event_at_s: float = 0.0
    now_s: float = 0.0
    delay_s: float = 0.0
    lane: tuple[str, int] | None = None

    @property
    def key(self) -> transitions.Key:
        return self.delivery_id, self.number

    @property
    def is_final(self) -> bool:
        return self.move is not None and self.move.final


class RecordedDelivery(NamedTuple):
    """The result of one record. `moved` False: another worker has the delivery. `next_ids`: deliveries that may go now.

    `before` and `after`: the receiver's health around this attempt, None if it did not count. Each record of one
    transaction has its own step, so a change of health is reported once.
    """

    moved: bool
    next_ids: tuple[str, ...]
    before: ReceiverHealth | None
    after: ReceiverHealth | None


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


def record(connection: Connection, records: Sequence[DeliveryRecord], *, slots: int) -> list[RecordedDelivery]:
    """Write the ends of attempts. The attempt is closed even if another worker has the delivery by now.

    All records must come from the same worker; `slots` is its number of slots.
    """
    ordering.lock(connection, [each.receiver_id for each in records])
    moved = _move_deliveries(connection, records)
    connection.execute(_CLOSE, [_close_parameters(each) for each in sorted(records, key=lambda each: each.key)])
    healths = _update_healths(connection, records)
    released = _release_successors(connection, [each for each in records if each.key in moved])
    following = _choose_following(connection, records, released, slots)
    return [
        # The first record of a receiver gets all deliveries that follow there.
        RecordedDelivery(
            each.key in moved, tuple(following.pop(each.receiver_id, ())), *healths.get(each.key, (None, None))
        )
        for each in records
    ]


def _move_deliveries(connection: Connection, records: Sequence[DeliveryRecord]) -> set[transitions.Key]:
    moved: set[transitions.Key] = set()
    # One statement each: every delivery has its own delay, and few end in the same transaction.
    for each in sorted(records, key=lambda each: each.key):
        if each.move is None:
            continue
        changes: dict[str, Any] = {
            "last_http_status": each.attempt.get("http_status"),
            "last_error_code": each.attempt.get("error_code"),
            "variant": each.variant,
        }
        if not each.counts:
            changes["attempts_used"] = deliveries.c.attempts_used - 1
        if not each.move.final:
            changes |= {"run_at": from_now(each.delay_s), "waiting_for": "retry"}
        moved |= transitions.apply(
            connection,
            each.move,
            [each.key],
            table=deliveries,
            worker_id=each.worker_id,
            changes=changes,
        )
    return moved


def _close_parameters(attempt: DeliveryRecord) -> dict[str, Any]:
    return {
        "of_delivery": attempt.delivery_id,
        "of_attempt": attempt.number,
        "ended": attempt.outcome,
        "was_sent": attempt.was_sent,
        **{f"new_{name}": attempt.attempt.get(name) for name in CLOSED},
    }


def _update_healths(
    connection: Connection, records: Sequence[DeliveryRecord]
) -> dict[transitions.Key, tuple[ReceiverHealth, ReceiverHealth]]:
    """Apply the attempts to their receivers' health, in turn; return the health before and after each attempt."""
    results: dict[str, list[tuple[DeliveryRecord, SendResult]]] = defaultdict(list)
    for each in records:
        if each.result is not None:
            results[each.receiver_id].append((each, each.result))
    rows = connection.execute(
        select(receivers.c.id, receivers.c.health, receivers.c.status).where(receivers.c.id.in_(sorted(results)))
    ).all()
    steps: dict[transitions.Key, tuple[ReceiverHealth, ReceiverHealth]] = {}
    for row in rows:
        first = after = health_of(row.health)
        for each, result in results[row.id]:
            before = after
            after = health_after(before, result, now_s=each.now_s, event_at_s=each.event_at_s)
            steps[each.key] = (before, after)
        if after != first:
            changes: dict[str, Any] = {"health": text_of(after)}
            if after.disabled is not None and row.status == "enabled":
                changes |= {"status": "disabled", "disabled_reason": after.disabled, "disabled_at": now()}
            connection.execute(update(receivers).where(receivers.c.id == row.id).values(changes))
    return steps


def _release_successors(connection: Connection, records: Sequence[DeliveryRecord]) -> dict[str, list[str]]:
    """Release the deliveries that waited in order for one that has ended; return their ids by receiver."""
    ended = [(each.receiver_id, each.lane[0]) for each in records if each.lane is not None and each.is_final]
    released: dict[str, list[str]] = defaultdict(list)
    for receiver_id, delivery_id in ordering.release(connection, ended):
        released[receiver_id].append(delivery_id)
    return released


def _choose_following(
    connection: Connection, records: Sequence[DeliveryRecord], released: dict[str, list[str]], slots: int
) -> dict[str, list[str]]:
    """Return deliveries that may start now, by receiver: the released ones, and a due one for each slot that is free.

    Without this, the next tick would start a receiver's backlog in bursts of its limit. The choice among the oldest is
    random: another worker that ends a delivery at this moment chooses too. If both chose the same delivery, only one
    could claim it and a slot would stay empty.
    """
    turns = _turns(connection, records, slots)
    starts = Counter(receiver_id for chosen in turns.values() for receiver_id in chosen)
    due = webhook_lanes.due(connection, {receiver_id: CHOICE * count for receiver_id, count in starts.items()})
    following: dict[str, list[str]] = {}
    for receiver_id, chosen in turns.items():
        following[receiver_id] = list(released[receiver_id])
        for next_id, count in Counter(chosen).items():
            waiting = [row.row_id for row in due[next_id] if row.row_id not in released[next_id]]
            following[receiver_id] += random.sample(waiting, min(count, len(waiting)))
    return following


def _turns(connection: Connection, records: Sequence[DeliveryRecord], slots: int) -> dict[str, list[str]]:
    """Return the receivers that get the freed slots, by the receiver of the ended delivery.

    A receiver keeps its slot while its tenant has other free slots. Otherwise the slot goes to the next receiver, by
    id, that has no more deliveries in flight: without this, the first receivers would keep their slots for as long as
    they have a backlog.
    """
    places = places_of(connection, records[0].worker_id, slots)
    given_back = Counter(each.tenant for each in records)
    others: list[ReceiverLane] | None = None
    turns: dict[str, list[str]] = defaultdict(list)
    for each in records:
        next_id = None
        if places.left(each.tenant) <= given_back[each.tenant]:
            others = _receivers_after(connection, each.receiver_id) if others is None else others
            next_id = _take_for_other(others, each.receiver_id, places)
        if next_id is None:
            next_id = each.receiver_id
            places.take(each.tenant, each.receiver_id)
        given_back[each.tenant] -= 1
        turns[each.receiver_id].append(next_id)
    return turns


def _receivers_after(connection: Connection, receiver_id: str) -> list[ReceiverLane]:
    """Return the receivers after this one, by id in a ring, that have a due delivery and room for it."""
    lanes, _ = webhook_lanes.lanes(connection, after=receiver_id, most=CHOICE)
    if len(lanes) < CHOICE:
        lanes += webhook_lanes.lanes(connection, most=CHOICE - len(lanes))[0]
    return [lane for lane in lanes if lane.free and lane.is_due]


def _take_for_other(others: Sequence[ReceiverLane], receiver_id: str, places: FairSlots) -> str | None:
    """Take a slot for another receiver with no more deliveries in flight; return its id, None if there is none."""
    held = places.held(receiver_id)
    for lane in sorted(others, key=lambda lane: places.held(lane.receiver_id)):
        may = lane.receiver_id != receiver_id and places.held(lane.receiver_id) <= held
        if may and places.take(lane.tenant, lane.receiver_id):
            return lane.receiver_id
    return None
