"""The order of deliveries under one key: a later one waits, with no due time of its own, until those before it ended.

A waiting row's `run_at` is its deadline, so that dispatch never reads it: ten thousand that wait cost a tick nothing.
Redeliveries that a person asked for (`origin` manual) stand outside of the order.

A receiver with `on_exhausted` skip is sent what follows a delivery that was given up; one with block wants every one,
and is sent nothing more under the key while one before has failed or is on its way again. Cancelled is over for both.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

from sqlalchemy import BigInteger, ColumnElement, Connection, Select, bindparam, literal_column, or_, select, update

from worker.core.lifecycle import DeliveryStatus
from worker.store.clock import now
from worker.webhooks.store.tables import deliveries, receivers

WAITS = "order"
MANUAL = "manual"
UNFINISHED = (DeliveryStatus.queued, DeliveryStatus.in_progress, DeliveryStatus.held)

Lane = tuple[str, str]  # a receiver's id and an ordering key


class LanePosition(NamedTuple):
    """The next free place of a lane. `gap`: the one before was given up; `waits`: one before is not over."""

    sequence: int
    waits: bool
    gap: bool


# Literals, or no planner could use the partial indexes: a lane may have a million deliveries that are over.
OPEN = deliveries.c.status.in_([literal_column(f"'{status}'") for status in UNFINISHED])
ON_HOLD = deliveries.c.status == literal_column(f"'{DeliveryStatus.held}'")
_FAILED = deliveries.c.status == literal_column(f"'{DeliveryStatus.failed}'")
_BEFORE = deliveries.c.sequence < bindparam("sequence", type_=BigInteger)
_GIVEN_UP = (DeliveryStatus.failed, DeliveryStatus.cancelled)


def _in_lane(*columns: ColumnElement[Any]) -> Select[Any]:
    return (
        select(*columns)
        .where(deliveries.c.receiver_id == bindparam("receiver"), deliveries.c.ordering_key == bindparam("key"))
        .limit(1)
    )


_by_place = deliveries.c.sequence
_LAST = _in_lane(deliveries.c.sequence, deliveries.c.status).order_by(_by_place.desc())
_HEAD = (
    _in_lane(deliveries.c.id, deliveries.c.sequence, deliveries.c.waiting_for)
    .where(OPEN, deliveries.c.origin != MANUAL)
    .order_by(_by_place)
)
_PREVIOUS = _in_lane(deliveries.c.status).where(_BEFORE).order_by(_by_place.desc())
# In an order, or PostgreSQL would read the whole table for the one row it expects to meet soon.
_OPEN_BEFORE = _in_lane(deliveries.c.id).where(OPEN, _BEFORE).order_by(_by_place)
_FAILED_BEFORE = _in_lane(deliveries.c.id).where(_FAILED, _BEFORE).order_by(_by_place)
_STRICT = select(receivers.c.id).where(receivers.c.id == bindparam("receiver"), receivers.c.on_exhausted == "block")


def lock(connection: Connection, receiver_ids: Iterable[str]) -> dict[str, str]:
    """Let nobody else begin or end a delivery to these receivers before our commit; return their statuses."""
    ids = sorted(set(receiver_ids))
    if not ids:
        return {}
    mine = select(receivers.c.id, receivers.c.status).where(receivers.c.id.in_(ids)).order_by(receivers.c.id)
    return {row.id: row.status for row in connection.execute(mine.with_for_update())}


def next_place(connection: Connection, lane: Lane) -> LanePosition:
    """Return the next free place of a lane; the caller holds the receiver's lock until it has filled it."""
    values = {"receiver": lane[0], "key": lane[1]}
    last = connection.execute(_LAST, values).first()
    if last is None:
        return LanePosition(1, waits=False, gap=False)
    sequence = last.sequence + 1
    waits = connection.execute(_HEAD, values).first() is not None or _held_up(connection, lane, sequence)
    # What waits learns of a gap when its turn comes.
    return LanePosition(sequence, waits=waits, gap=not waits and last.status in _GIVEN_UP)


def release(connection: Connection, lanes: Iterable[Lane]) -> list[tuple[str, str]]:
    """Let the first of each lane go if it waits for nobody any more; return (receiver's id, delivery's id) of those.

    The receivers are locked.
    """
    released: list[tuple[str, str]] = []
    for lane in sorted(set(lanes)):
        values = {"receiver": lane[0], "key": lane[1]}
        head = connection.execute(_HEAD, values).first()
        if head is None or head.waiting_for != WAITS or _held_up(connection, lane, head.sequence):
            continue
        changes: dict[str, Any] = {"run_at": now(), "waiting_for": None}
        previous = connection.execute(_PREVIOUS, values | {"sequence": head.sequence}).scalar()
        if previous in _GIVEN_UP:
            # What was attempted before is sent again as it was.
            changes["after_gap"] = or_(deliveries.c.after_gap, deliveries.c.attempt == 0)
        connection.execute(update(deliveries).where(deliveries.c.id == head.id).values(changes))
        released.append((lane[0], head.id))
    return released


def _held_up(connection: Connection, lane: Lane, sequence: int) -> bool:
    """Say whether the receiver wants every one, and one before has failed or is being sent again."""
    values = {"receiver": lane[0], "key": lane[1], "sequence": sequence}
    if connection.execute(_STRICT, values).first() is None:
        return False
    return any(connection.execute(one, values).first() is not None for one in (_FAILED_BEFORE, _OPEN_BEFORE))
