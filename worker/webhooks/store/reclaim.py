"""RECLAIM: deliveries of a worker process whose lease has ended are queued again."""

import json
from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import Connection, Select, bindparam, literal_column, select, tuple_, update

from worker.core.lifecycle import GIVE_UP_DELIVERY, TAKE_BACK_DELIVERY, DeliveryOutcome, DeliveryStatus
from worker.store import transitions
from worker.store.clock import now
from worker.store.tables import workers
from worker.webhooks.core.outcome import DeliveryErrorCode
from worker.webhooks.core.retry_schedule import SCHEDULE_S
from worker.webhooks.store import ordering
from worker.webhooks.store.expire import BATCH
from worker.webhooks.store.tables import deliveries, delivery_attempts, receivers


def held_deliveries(connection: Connection, worker_id: str) -> dict[str, int]:
    """Return the attempt numbers of the deliveries that the database assigns to this worker, by delivery id."""
    is_held = (deliveries.c.worker_id == worker_id, deliveries.c.status == DeliveryStatus.in_progress)
    return {row[0]: row[1] for row in connection.execute(select(deliveries.c.id, deliveries.c.attempt).where(*is_held))}


def take_back(connection: Connection) -> int:
    """Queue a batch of deliveries again whose worker is gone; return how many.

    The receiver may have got them, so the attempt is `unknown` and counts. Deliveries without attempts left fail.
    """
    return _requeue(connection, ordering.lock_rows(connection, orphans()))


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
    return _requeue(connection, ordering.lock_rows(connection, chosen))


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
    ordering.release_next(connection, spent)
    return len(moved)


def _steps(schedule: str | None) -> int:
    return len(SCHEDULE_S) if schedule is None else len(json.loads(schedule))
