"""Lists for an operator: the newest deliveries, the attempts at a delivery, and the feed of ended jobs."""

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import Column, Connection, MetaData, Row, Table, func, select

from worker.core.lifecycle import DeliveryStatus
from worker.store.clock import seconds_until
from worker.store.types import Id
from worker.webhooks.store.tables import deliveries, delivery_attempts, receivers

# The view has only small columns: a reader of the feed reads no bodies.
_finished = Table(
    "finished_v1",
    MetaData(),
    Column("cursor"),
    Column("id", Id),
    *map(Column, ("tenant", "status", "batch", "custom_id", "finished_at", "finish_reason", "error_code")),
    *map(Column, ("prompt_tokens", "completion_tokens", "total_tokens")),
)
_COLUMNS = (
    "id", "job_id", "event_id", "event_type", "tenant", "status", "attempt", "attempts_used", "created_at", "run_at",
    "deadline", "finished_at", "waiting_for", "origin", "ordering_key", "sequence", "last_http_status",
    "last_error_code", "receiver_id",
)  # fmt: skip
_DELIVERIES = select(
    *(deliveries.c[name] for name in _COLUMNS),
    receivers.c.name.label("receiver"),
    seconds_until(deliveries.c.run_at).label("due_in_s"),
).join(receivers, receivers.c.id == deliveries.c.receiver_id)


def newest(connection: Connection, *, limit: int, **wanted: str | None) -> list[Row[Any]]:
    """Return the newest deliveries; `wanted` may have `id`, `status`, `job_id` and `receiver_id` (None: any)."""
    conditions = [deliveries.c[name] == value for name, value in wanted.items() if value is not None]
    statement = _DELIVERIES.where(*conditions).order_by(deliveries.c.created_at.desc(), deliveries.c.id)
    return list(connection.execute(statement.limit(limit)))


def attempts(connection: Connection, delivery_id: str) -> list[Row[Any]]:
    """Return the attempts at a delivery in order."""
    rows = select(delivery_attempts).where(delivery_attempts.c.delivery_id == delivery_id)
    return list(connection.execute(rows.order_by(delivery_attempts.c.attempt)))


def in_flight(connection: Connection, receiver_ids: Iterable[str]) -> Mapping[str, int]:
    """Return the number of deliveries in flight, by receiver id."""
    found = select(deliveries.c.receiver_id, func.count()).where(
        deliveries.c.status == DeliveryStatus.in_progress, deliveries.c.receiver_id.in_(sorted(receiver_ids))
    )
    return {row[0]: row[1] for row in connection.execute(found.group_by(deliveries.c.receiver_id))}


def ended_after(connection: Connection, cursor: int, *, limit: int, tenant: str | None) -> list[Row[Any]]:
    """Return the jobs of the feed after a cursor, in the order of their cursors."""
    statement = select(_finished).where(_finished.c.cursor > cursor)
    if tenant is not None:
        statement = statement.where(_finished.c.tenant == tenant)
    return list(connection.execute(statement.order_by(_finished.c.cursor).limit(limit)))
