"""The order of deliveries under one key: a later one waits, with no due time of its own, until those before it ended.

A waiting row's `run_at` is its deadline, so that dispatch never reads it: ten thousand that wait cost a tick nothing.
Redeliveries that a person asked for (`origin` manual) stand outside of the order.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from sqlalchemy import Connection, bindparam, or_, select, update

from worker.core.lifecycle import DeliveryStatus
from worker.store.clock import now
from worker.store.webhook_tables import deliveries, receivers

WAITS = "order"
MANUAL = "manual"
UNFINISHED = (DeliveryStatus.queued, DeliveryStatus.in_progress, DeliveryStatus.held)

Lane = tuple[str, str]  # a receiver's id and an ordering key


class Place(NamedTuple):
    """The next free place of a lane. `gap`: the one before was given up; `waits`: one before is not over."""

    sequence: int
    waits: bool
    gap: bool


class Ended(NamedTuple):
    """A delivery under a key that is over: `gap` when the receiver has not had it."""

    receiver_id: str
    ordering_key: str
    sequence: int
    gap: bool


_LAST = (
    select(deliveries.c.sequence, deliveries.c.status, receivers.c.on_exhausted)
    .join(receivers, receivers.c.id == deliveries.c.receiver_id)
    .where(deliveries.c.receiver_id == bindparam("receiver"), deliveries.c.ordering_key == bindparam("key"))
    .order_by(deliveries.c.sequence.desc())
    .limit(1)
)
_before = deliveries.alias("before")
_UNFINISHED = (
    select(_before.c.id)
    .where(
        _before.c.receiver_id == bindparam("receiver"),
        _before.c.ordering_key == bindparam("key"),
        _before.c.status.in_([str(status) for status in UNFINISHED]),
        _before.c.origin != MANUAL,
    )
    .limit(1)
)
_NEXT = (
    select(deliveries.c.id)
    .where(
        deliveries.c.receiver_id == bindparam("receiver"),
        deliveries.c.ordering_key == bindparam("key"),
        deliveries.c.waiting_for == WAITS,
        deliveries.c.status == DeliveryStatus.queued,
        ~select(_before.c.id)
        .where(
            _before.c.receiver_id == deliveries.c.receiver_id,
            _before.c.ordering_key == deliveries.c.ordering_key,
            _before.c.sequence < deliveries.c.sequence,
            _before.c.status.in_([str(status) for status in UNFINISHED]),
            _before.c.origin != MANUAL,
        )
        .exists(),
    )
    .order_by(deliveries.c.sequence)
    .limit(1)
)


def lock(connection: Connection, receiver_ids: Iterable[str]) -> None:
    """Let nobody else begin or end a delivery to these receivers before our commit."""
    ids = sorted(set(receiver_ids))
    if ids:
        connection.execute(
            select(receivers.c.id).where(receivers.c.id.in_(ids)).order_by(receivers.c.id).with_for_update()
        ).all()


def enabled(connection: Connection, receiver_ids: Iterable[str]) -> set[str]:
    """Return those of these receivers that are enabled."""
    ids = sorted(receiver_ids)
    if not ids:
        return set()
    return set(
        connection.scalars(select(receivers.c.id).where(receivers.c.id.in_(ids), receivers.c.status == "enabled"))
    )


def next_place(connection: Connection, lane: Lane) -> Place:
    """Return the next free place of a lane; the caller holds the receiver's lock until it has filled it."""
    values = {"receiver": lane[0], "key": lane[1]}
    last = connection.execute(_LAST, values).first()
    if last is None:
        return Place(1, waits=False, gap=False)
    over = last.status in (DeliveryStatus.failed, DeliveryStatus.cancelled)
    blocked = last.status == DeliveryStatus.failed and last.on_exhausted == "block"
    waits = blocked or connection.execute(_UNFINISHED, values).first() is not None
    return Place(last.sequence + 1, waits=waits, gap=over and not blocked)


def release(connection: Connection, ended: Sequence[Ended]) -> list[str]:
    """Let the next of each lane go whose predecessors are all over; return the ids. The receivers are locked."""
    released: list[str] = []
    for one in sorted(ended):
        values = {"receiver": one.receiver_id, "key": one.ordering_key}
        next_id = connection.execute(_NEXT, values).scalar()
        if next_id is None:
            continue
        # What was attempted before is sent again as it was.
        gap = or_(deliveries.c.after_gap, deliveries.c.attempt == 0)
        changes = {"run_at": now(), "waiting_for": None} | ({"after_gap": gap} if one.gap else {})
        connection.execute(update(deliveries).where(deliveries.c.id == next_id).values(changes))
        released.append(next_id)
    return released


def blocks(connection: Connection, ended: Sequence[Ended]) -> list[Ended]:
    """Return those of `ended` that hold up what follows them: given up, at receivers that want every one."""
    gaps = sorted({one.receiver_id for one in ended if one.gap})
    if not gaps:
        return []
    block = select(receivers.c.id).where(receivers.c.id.in_(gaps), receivers.c.on_exhausted == "block")
    strict = set(connection.scalars(block))
    return [one for one in ended if one.gap and one.receiver_id in strict]
