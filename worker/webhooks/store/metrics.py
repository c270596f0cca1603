"""The figures by which webhooks and the backlog of jobs are watched. `afterword doctor` asks; each is an index range.

Bounds in time are values, not expressions: of those PostgreSQL's planner cannot tell how few rows lie behind them.
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
# A trouble of ours is tried again within ten minutes and a fifth.
_SOON = timedelta(minutes=13)
# Enough to know of a trouble; a backlog of millions is not read through for it.
_SAMPLE: Final = 10_000
# A delivery is over a week after its event.
_LIFE = timedelta(days=8)


class ReceiverFigures(NamedTuple):
    """A receiver that stands. `overdue_s`: for how long its oldest due delivery could have gone; None: none is due."""

    id: str
    tenant: str
    name: str
    status: str
    disabled_reason: str | None
    health: ReceiverHealth
    overdue_s: float | None
    now_s: float


def standings(connection: Connection) -> list[ReceiverFigures]:
    """Return all receivers by tenant and name: one step over the index of what is due for each."""
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
    standing = select(*columns, oldest.label("overdue_s"), UNIX_S.label("now_s")).where(receivers.c.status != "removed")
    rows = connection.execute(standing.order_by(receivers.c.tenant, receivers.c.name))
    return [ReceiverFigures(**{**row._mapping, "health": health_of(row.health)}) for row in rows]


def unfinished(connection: Connection) -> dict[str, int]:
    """Return how many deliveries are not over, by status, MOST at most: the beginning of a partial index each."""
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
    """Return how the deliveries stand that were made within the last `span`, by status."""
    statement = select(deliveries.c.status, func.count()).where(_made(connection, span)).group_by(deliveries.c.status)
    return {row[0]: row[1] for row in connection.execute(statement)}


def latencies(connection: Connection, span: timedelta) -> dict[int, float]:
    """Return PERCENTILES of the seconds from a job's end to its receiver's 2xx, of events made within `span`.

    What has not been delivered yet is not in it; what is late shows as overdue.
    """
    took = seconds_until(deliveries.c.finished_at) - seconds_until(deliveries.c.created_at)
    chosen = select(
        took.label("took_s"),
        func.row_number().over(order_by=took).label("place"),
        func.count().over().label("number"),
    ).where(_made(connection, span), deliveries.c.status == "delivered", deliveries.c.origin == "event")
    ranked = chosen.subquery()
    found = {}
    for percent in PERCENTILES:
        # The nearest rank, counted in whole numbers.
        at = ranked.c.place * 100 >= ranked.c.number * percent
        statement = select(ranked.c.took_s).where(at).order_by(ranked.c.place).limit(1)
        if (took_s := connection.execute(statement).scalar()) is not None:
            found[percent] = float(took_s)
    return found


def refused(connection: Connection, span: timedelta, receiver_ids: Sequence[str]) -> int:
    """Return how many attempts the guard has refused within the last `span`, of receivers it was the last word on."""
    if not receiver_ids:
        return 0
    present = _present_value(connection)
    mine = (
        deliveries.c.receiver_id.in_(receiver_ids),
        deliveries.c.created_at >= present - _LIFE,
        deliveries.c.last_error_code == DeliveryErrorCode.target_forbidden,
    )
    return _attempts(
        connection,
        mine,
        delivery_attempts.c.error_code == DeliveryErrorCode.target_forbidden,
        delivery_attempts.c.finished_at >= present - span,
    )


def suspected_duplicates(connection: Connection, span: timedelta) -> int:
    """Return how many attempts nobody knows the fate of and another followed, of deliveries made within `span`."""
    return _attempts(
        connection,
        (_made(connection, span), deliveries.c.attempt > 1),
        delivery_attempts.c.outcome == DeliveryOutcome.unknown,
        delivery_attempts.c.attempt < deliveries.c.attempt,
    )


def own_trouble(connection: Connection) -> dict[str, int]:
    """Return how many deliveries wait because of a trouble of ours, by its code; of the next to go _SAMPLE at most."""
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


def _attempts(connection: Connection, of: Sequence[Any], *like: Any) -> int:
    """Count the attempts `like` these at the deliveries `of` these: by delivery, as attempts have no other index."""
    found = select(func.count()).where(delivery_attempts.c.delivery_id == deliveries.c.id, *like)
    statement = select(func.sum(found.correlate(deliveries).scalar_subquery())).where(*of)
    return int(connection.execute(statement).scalar() or 0)


def _made(connection: Connection, span: timedelta) -> Any:
    """Choose deliveries made within `span`, receiver by receiver, for so the index of each one's in time serves."""
    return deliveries.c.receiver_id.in_(select(receivers.c.id)) & (
        deliveries.c.created_at >= _present_value(connection) - span
    )


def _present_value(connection: Connection) -> Any:
    return connection.execute(select(now())).scalar_one()


def _present(connection: Connection) -> Any:
    return literal(_present_value(connection), Instant())
