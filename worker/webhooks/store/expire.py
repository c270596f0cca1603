"""DISPATCH of deliveries: fails overdue rows, holds those of disabled receivers and drops those on hold for 30 days."""

from typing import Any, Final

from sqlalchemy import Connection, Select, select

from worker.core.lifecycle import (
    DROP_DELIVERY,
    GIVE_UP_DELIVERY,
    HOLD_DELIVERY,
    Move,
)
from worker.store import transitions
from worker.store.clock import from_now, present, seconds_until
from worker.webhooks.store import ordering
from worker.webhooks.store.due import ReceiverLane, select_queued
from worker.webhooks.store.tables import deliveries, receivers

BATCH: Final = 500
HELD_S: Final = 30 * 86400.0

_NEXT_START = (
    select_queued(seconds_until(deliveries.c.run_at))
    .where(deliveries.c.run_at > present())
    .order_by(deliveries.c.run_at)
    .limit(1)
)
_OVERDUE = (
    select_queued(*(deliveries.c[name] for name in ("id", "attempt", "receiver_id", "ordering_key")))
    .where(deliveries.c.deadline <= present())
    .order_by(deliveries.c.deadline)
    .limit(BATCH)
)


def next_start_s(connection: Connection) -> float | None:
    """Return the seconds until the next delivery becomes due, or None if no queued delivery has a later `run_at`."""
    return connection.execute(_NEXT_START).scalar()


def give_up(connection: Connection) -> int:
    """Fail a batch of queued deliveries past their deadline and release those behind them; return how many failed."""
    rows = ordering.lock_rows(connection, _OVERDUE)
    keys = [(row.id, row.attempt) for row in rows]
    ended = transitions.apply(
        connection, GIVE_UP_DELIVERY, keys, table=deliveries, changes={"last_error_code": "deadline"}
    )
    ordering.release_next(connection, [row for row in rows if (row.id, row.attempt) in ended])
    return len(ended)


def hold_or_drop(connection: Connection, lane: ReceiverLane) -> int:
    """Hold a batch of a disabled receiver's queued deliveries, or drop a removed receiver's; return how many."""
    # Locked: if the receiver were enabled before our commit, resuming would miss deliveries not yet on hold.
    locked = select(receivers.c.status).where(receivers.c.id == lane.receiver_id).with_for_update(read=True)
    status = connection.execute(locked).scalar()
    if status not in ("disabled", "removed"):
        return 0
    move = HOLD_DELIVERY if status == "disabled" else DROP_DELIVERY
    return _apply_to_batch(connection, move, select_queued(deliveries.c.id, deliveries.c.attempt), lane.receiver_id)


def drop_old(connection: Connection, receiver_id: str) -> int:
    """Drop a batch of a receiver's held deliveries that are older than HELD_S; return how many."""
    held = select(deliveries.c.id, deliveries.c.attempt).where(
        ordering.ON_HOLD, deliveries.c.created_at <= from_now(-HELD_S)
    )
    return _apply_to_batch(connection, DROP_DELIVERY, held, receiver_id)


def disabled_receivers(connection: Connection) -> list[str]:
    """Return the ids of the disabled receivers."""
    return list(connection.scalars(select(receivers.c.id).where(receivers.c.status == "disabled")))


def _apply_to_batch(connection: Connection, move: Move, chosen: Select[Any], receiver_id: str) -> int:
    batch = chosen.where(deliveries.c.receiver_id == receiver_id).limit(BATCH).with_for_update(skip_locked=True)
    keys = [(row.id, row.attempt) for row in connection.execute(batch)]
    return len(transitions.apply(connection, move, keys, table=deliveries))
