"""Figures about webhooks for `afterword doctor`. Each query reads a range of an index.

Time bounds are values, not expressions: for an expression PostgreSQL's planner cannot estimate how few rows match.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, func, literal, literal_column, select

from worker.core.lifecycle import DeliveryOutcome
from worker.store.clock import UNIX_S, now, seconds_until
from worker.store.row_count import count
from worker.store.types import Instant
from worker.webhooks.core.outcome import OURS, DeliveryErrorCode
from worker.webhooks.core.receiver_health import ReceiverHealth
from worker.webhooks.store.health_column import health_of
from worker.webhooks.store.tables import deliveries, delivery_attempts, receivers

PERCENTILES: Final = (50, 95, 99)
# Our own trouble is tried again within 10 minutes plus a fifth.
_SOON = timedelta(minutes=13)
# Enough rows to notice our own trouble without reading a backlog of millions.
_SAMPLE: Final = 10_000
# A delivery ends at most a week after its event.
_LIFE = timedelta(days=8)


class ReceiverFigures(NamedTuple):
    """A receiver that is not removed. `overdue_s`: seconds since its oldest due delivery became due; None: none due."""

    id: str
    tenant: str
    name: str
    status: str
    disabled_reason: str | None
    health: ReceiverHealth
    overdue_s: float | None
    now_s: float


def receiver_figures(connection: Connection) -> list[ReceiverFigures]:
    """Return all receivers by tenant and name; costs one index step for each."""
    oldest = (
        select(-seconds_until(deliveries.c.run_at))
        .where(
            deliveries.c.status == literal_column("'queued'"),
            deliveries.c.receiver_id == receivers.c.id,
            deliveries.c.run_at <= _present(connection),
        )
        .order_by(deliveries.c.run_at)
        .limit(1)
        .scalar_subquery()
    )
    columns = (receivers.c[name] for name in ("id", "tenant", "name", "status", "disabled_reason", "health"))
    statement = select(*columns, oldest.label("overdue_s"), UNIX_S.label("now_s"))
    existing = statement.where(receivers.c.status != "removed")
    rows = connection.execute(existing.order_by(receivers.c.tenant, receivers.c.name))
    return [ReceiverFigures(**{**row._mapping, "health": health_of(row.health)}) for row in rows]


def unfinished(connection: Connection) -> dict[str, int]:
    """Count the deliveries that have not ended, by status, each up to `row_count.MOST`. Reads partial indexes only."""
    found = {}
    for status, first in (
        ("queued", deliveries.c.run_at),
        ("in_progress", deliveries.c.receiver_id),
        ("held", deliveries.c.receiver_id),
    ):
        # A literal: with a bound parameter the planner could not use the index.
        chosen = select(first).where(deliveries.c.status == literal_column(f"'{status}'"))
        found[status] = count(connection, chosen.order_by(first))
    return {status: number for status, number in found.items() if number}


def recent(connection: Connection, span: timedelta) -> dict[str, int]:
    """Count the deliveries that were created within the last `span`, by status."""
    statement = select(deliveries.c.status, func.count()).where(_created(connection, span))
    statement = statement.group_by(deliveries.c.status)
    return {row[0]: row[1] for row in connection.execute(statement)}


def latencies(connection: Connection, span: timedelta) -> dict[int, float]:
    """Return PERCENTILES of the seconds from a job's end to its receiver's 2xx, for events created within `span`.

    Deliveries that are not delivered yet are not counted; late ones show in `overdue_s`.
    """
    took = seconds_until(deliveries.c.finished_at) - seconds_until(deliveries.c.created_at)
    chosen = select(
        took.label("took_s"),
        func.row_number().over(order_by=took).label("place"),
        func.count().over().label("number"),
    ).where(_created(connection, span), deliveries.c.status == "delivered", deliveries.c.origin == "event")
    ranked = chosen.subquery()
    found = {}
    for percent in PERCENTILES:
        # The nearest rank, in integer arithmetic.
        at_rank = ranked.c.place * 100 >= ranked.c.number * percent
        statement = select(ranked.c.took_s).where(at_rank).order_by(ranked.c.place).limit(1)
        if (took_s := connection.execute(statement).scalar()) is not None:
            found[percent] = float(took_s)
    return found


def refused(connection: Connection, span: timedelta, receiver_ids: Sequence[str]) -> int:
    """Count the attempts that the guard refused within `span`, for deliveries whose last error was such a refusal."""
    if not receiver_ids:
        return 0
    present = _present_value(connection)
    chosen = (
        deliveries.c.receiver_id.in_(receiver_ids),
        deliveries.c.created_at >= present - _LIFE,
        deliveries.c.last_error_code == DeliveryErrorCode.target_forbidden,
    )
    return _attempts(
        connection,
        chosen,
        delivery_attempts.c.error_code == DeliveryErrorCode.target_forbidden,
        delivery_attempts.c.finished_at >= present - span,
    )


def suspected_duplicates(connection: Connection, span: timedelta) -> int:
    """Count the attempts with an unknown outcome before another attempt, for deliveries created within `span`."""
    return _attempts(
        connection,
        (_created(connection, span), deliveries.c.attempt > 1),
        delivery_attempts.c.outcome == DeliveryOutcome.unknown,
        delivery_attempts.c.attempt < deliveries.c.attempt,
    )


def own_trouble(connection: Connection) -> dict[str, int]:
    """Count the deliveries that wait because of our own trouble, by its code, among the next _SAMPLE queued ones."""
    soonest = (
        select(deliveries.c.last_error_code)
        .where(
            deliveries.c.status == literal_column("'queued'"),
            deliveries.c.run_at <= literal(_present_value(connection) + _SOON, Instant()),
        )
        .order_by(deliveries.c.run_at)
        .limit(_SAMPLE)
        .subquery()
    )
    counted = select(soonest.c.last_error_code, func.count()).where(soonest.c.last_error_code.in_(list(OURS)))
    return {row[0]: row[1] for row in connection.execute(counted.group_by(soonest.c.last_error_code))}


def _attempts(connection: Connection, of_deliveries: Sequence[Any], *of_attempts: Any) -> int:
    """Count the matching attempts at the matching deliveries; by delivery, because attempts have no other index."""
    found = select(func.count()).where(delivery_attempts.c.delivery_id == deliveries.c.id, *of_attempts)
    statement = select(func.sum(found.correlate(deliveries).scalar_subquery())).where(*of_deliveries)
    return int(connection.execute(statement).scalar() or 0)


def _created(connection: Connection, span: timedelta) -> Any:
    """Select deliveries created within `span`, by receiver, because the index on time begins with `receiver_id`."""
    return deliveries.c.receiver_id.in_(select(receivers.c.id)) & (
        deliveries.c.created_at >= _present_value(connection) - span
    )


def _present_value(connection: Connection) -> Any:
    return connection.execute(select(now())).scalar_one()


def _present(connection: Connection) -> Any:
    return literal(_present_value(connection), Instant())
