"""DISPATCH of deliveries: fails overdue rows, holds those of disabled receivers, requeues those of lost workers."""

import json
from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import Connection, Select, bindparam, literal_column, select, tuple_, update

from worker.core.lifecycle import (
    DROP_DELIVERY,
    GIVE_UP_DELIVERY,
    HOLD_DELIVERY,
    TAKE_BACK_DELIVERY,
    DeliveryOutcome,
    DeliveryStatus,
    Move,
)
from worker.store import transitions
from worker.store.clock import from_now, now, present, seconds_until
from worker.store.tables import workers
from worker.webhooks.core.outcome import DeliveryErrorCode
from worker.webhooks.core.retry_schedule import SCHEDULE_S
from worker.webhooks.store import ordering
from worker.webhooks.store.due import ReceiverLane, queued
from worker.webhooks.store.tables import deliveries, delivery_attempts, receivers

BATCH = 500
HELD_S = 30 * 86400.0

_NEXT_START = (
    queued(seconds_until(deliveries.c.run_at))
    .where(deliveries.c.run_at > present())
    .order_by(deliveries.c.run_at)
    .limit(1)
)
_OVERDUE = (
    queued(*(deliveries.c[name] for name in ("id", "attempt", "receiver_id", "ordering_key")))
    .where(deliveries.c.deadline <= present())
    .order_by(deliveries.c.deadline)
    .limit(BATCH)
)


def next_start_s(connection: Connection) -> float | None:
    """Return the seconds until the next delivery becomes due, or None if no queued delivery has a later `run_at`."""
    return connection.execute(_NEXT_START).scalar()


def give_up(connection: Connection) -> int:
    """Fail a batch of queued deliveries past their deadline and release those behind them; return how many failed."""
    rows = _lock(connection, _OVERDUE)
    keys = [(row.id, row.attempt) for row in rows]
    ended = transitions.apply(
        connection, GIVE_UP_DELIVERY, keys, table=deliveries, changes={"last_error_code": "deadline"}
    )
    _release_next(connection, [row for row in rows if (row.id, row.attempt) in ended])
    return len(ended)


def hold_or_drop(connection: Connection, lane: ReceiverLane) -> int:
    """Hold a batch of a disabled receiver's queued deliveries, or drop a removed receiver's; return how many."""
    # Locked: if the receiver were enabled before our commit, resuming would miss deliveries not yet on hold.
    locked = select(receivers.c.status).where(receivers.c.id == lane.receiver_id).with_for_update(read=True)
    status = connection.execute(locked).scalar()
    if status not in ("disabled", "removed"):
        return 0
    move = HOLD_DELIVERY if status == "disabled" else DROP_DELIVERY
    return _apply_to_batch(connection, move, queued(deliveries.c.id, deliveries.c.attempt), lane.receiver_id)


def drop_old(connection: Connection, receiver_id: str) -> int:
    """Drop a batch of a receiver's held deliveries that are older than HELD_S; return how many."""
    held = select(deliveries.c.id, deliveries.c.attempt).where(
        ordering.ON_HOLD, deliveries.c.created_at <= from_now(-HELD_S)
    )
    return _apply_to_batch(connection, DROP_DELIVERY, held, receiver_id)


def disabled(connection: Connection) -> list[str]:
    """Return the ids of the disabled receivers."""
    return list(connection.scalars(select(receivers.c.id).where(receivers.c.status == "disabled")))


def _apply_to_batch(connection: Connection, move: Move, chosen: Select[Any], receiver_id: str) -> int:
    batch = chosen.where(deliveries.c.receiver_id == receiver_id).limit(BATCH).with_for_update(skip_locked=True)
    keys = [(row.id, row.attempt) for row in connection.execute(batch)]
    return len(transitions.apply(connection, move, keys, table=deliveries))


def held(connection: Connection, worker_id: str) -> dict[str, int]:
    """Return the attempt numbers of the deliveries that the database assigns to this worker, by delivery id."""
    is_held = (deliveries.c.worker_id == worker_id, deliveries.c.status == DeliveryStatus.in_progress)
    return {row[0]: row[1] for row in connection.execute(select(deliveries.c.id, deliveries.c.attempt).where(*is_held))}


def take_back(connection: Connection) -> int:
    """Queue a batch of deliveries again whose worker is gone; return how many.

    The receiver may have got them, so the attempt is `unknown` and counts. Deliveries without attempts left fail.
    """
    return _requeue(connection, _lock(connection, orphans()))


def orphans() -> Select[Any]:
    """Select a batch of deliveries whose worker is gone."""
    gone = deliveries.c.worker_id.not_in(select(workers.c.id))
    chosen = _in_progress().where(deliveries.c.worker_id.is_not(None), gone)
    return chosen.limit(BATCH)


def give_back(connection: Connection, worker_id: str, keys: Collection[transitions.Key]) -> int:
    """Queue deliveries again that the database assigns to a living worker but that no task of it runs."""
    if not keys:
        return 0
    key = tuple_(deliveries.c.id, deliveries.c.attempt)
    chosen = _in_progress().where(deliveries.c.worker_id == worker_id, key.in_(sorted(keys)))
    return _requeue(connection, _lock(connection, chosen))


def _in_progress() -> Select[Any]:
    names = ("id", "attempt", "attempts_used", "receiver_id", "ordering_key")
    schedule = select(receivers.c.schedule).where(receivers.c.id == deliveries.c.receiver_id).scalar_subquery()
    columns = select(*(deliveries.c[name] for name in names), schedule.label("schedule"))
    # In the order of the index afterword_deliveries_held: ordered by id alone, SQLite would read the whole table.
    held_now = columns.where(deliveries.c.status == literal_column("'in_progress'"))
    return held_now.order_by(deliveries.c.worker_id, deliveries.c.id)


def _requeue(connection: Connection, rows: Sequence[Any]) -> int:
    if not rows:
        return 0
    close = (
        update(delivery_attempts)
        .where(
            delivery_attempts.c.delivery_id == bindparam("of_delivery"),
            delivery_attempts.c.attempt == bindparam("of_attempt"),
            delivery_attempts.c.outcome.is_(None),
        )
        .values(outcome=DeliveryOutcome.unknown, finished_at=now(), error_code=DeliveryErrorCode.worker_lost)
    )
    connection.execute(close, [{"of_delivery": row.id, "of_attempt": row.attempt} for row in rows])
    changes = {"run_at": now(), "waiting_for": "retry", "last_error_code": DeliveryErrorCode.worker_lost}
    keys = [(row.id, row.attempt) for row in rows]
    moved = transitions.apply(connection, TAKE_BACK_DELIVERY, keys, table=deliveries, changes=changes)
    spent = [row for row in rows if (row.id, row.attempt) in moved and row.attempts_used > _steps(row.schedule)]
    lost = {"last_error_code": DeliveryErrorCode.worker_lost}
    ended = [(row.id, row.attempt) for row in spent]
    transitions.apply(connection, GIVE_UP_DELIVERY, ended, table=deliveries, changes=lost)
    _release_next(connection, spent)
    return len(moved)


def _steps(schedule: str | None) -> int:
    return len(SCHEDULE_S) if schedule is None else len(json.loads(schedule))


def _release_next(connection: Connection, rows: Sequence[Any]) -> None:
    """Release the deliveries behind failed ones; the caller has locked their receivers."""
    ordering.release(connection, {(row.receiver_id, row.ordering_key) for row in rows if row.ordering_key is not None})


def _lock(connection: Connection, chosen: Select[Any]) -> Sequence[Any]:
    """Lock and return the chosen rows; skip rows that another transaction holds.

    Lock order: receivers of deliveries with an ordering key first, then deliveries.
    """
    found = connection.execute(chosen).all()
    if not found:
        return found
    ordering.lock(connection, [row.receiver_id for row in found if row.ordering_key is not None])
    again = chosen.where(deliveries.c.id.in_([row.id for row in found]))
    return connection.execute(again.with_for_update(skip_locked=True)).all()
