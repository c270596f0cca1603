"""RECOVER: queues a receiver's lost deliveries of a time range again, at a limited rate.

A recovery is a row; the dispatcher takes a step of each at its ticks. A step reads the receiver's deliveries in the
order of `created_at` and stores its position, so a crash loses nothing. It skips deliveries that are already queued or
delivered.
"""

import json
import uuid
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, Row, case, func, literal, select, tuple_, update

from worker.core.lifecycle import REDELIVER, DeliveryStatus
from worker.store.bulk_params import upsert
from worker.store.clock import from_now, now, seconds_until, shifted
from worker.store.types import Id, Instant
from worker.webhooks.store import ordering, redeliver
from worker.webhooks.store.tables import deliveries, receivers, recoveries

STATUSES: Final = (DeliveryStatus.failed, DeliveryStatus.cancelled, DeliveryStatus.held)
# Deliveries of any status that one step reads: a step must not hold SQLite's lock for long.
SCANNED: Final = 1000
# The longest time since the last step that counts towards the rate, for example after missed ticks.
LONGEST_PAUSE_S: Final = 5.0
ORIGIN: Final = "recover"


class Span(NamedTuple):
    """A receiver's deliveries with one of `statuses` and `since` <= `created_at` < `until`."""

    receiver_id: str
    since: datetime
    until: datetime
    statuses: tuple[DeliveryStatus, ...]


_running = recoveries.c.status == "running"
_RUNNING = (
    select(
        recoveries,
        receivers.c.status.label("receiver_status"),
        (-seconds_until(func.coalesce(recoveries.c.stepped_at, recoveries.c.created_at))).label("passed_s"),
    )
    .join(receivers, receivers.c.id == recoveries.c.receiver_id)
    .where(_running)
    .order_by(recoveries.c.receiver_id)
    .with_for_update(of=recoveries, skip_locked=True)
)


def begin(connection: Connection, span: Span, *, rate_per_s: float) -> str | None:
    """Write a recovery for the dispatcher; return its id, or None if the receiver already has a running recovery."""
    row = {
        "id": str(uuid.uuid4()),
        "receiver_id": span.receiver_id,
        "statuses": json.dumps(sorted(span.statuses)),
        "since": span.since,
        "until": span.until,
        "rate_per_s": rate_per_s,
        "status": "running",
    }
    statement = upsert(connection.dialect.name, recoveries).on_conflict_do_nothing().returning(recoveries.c.id)
    return connection.execute(statement.values(created_at=now(), **row)).scalar()


def count_deliveries(connection: Connection, span: Span) -> dict[str, int]:
    """Count the deliveries that a recovery would queue now, by status."""
    found = select(deliveries.c.status, func.count()).where(
        *_within(span.receiver_id, span.since, span.until),
        deliveries.c.status.in_([str(status) for status in span.statuses]),
    )
    return {row[0]: row[1] for row in connection.execute(found.group_by(deliveries.c.status))}


def list_recoveries(connection: Connection, *, recovery_id: str | None = None, limit: int = 20) -> list[Row[Any]]:
    """Return recoveries with their receivers' tenant and name, the newest first."""
    columns = [column for column in recoveries.c if column.name not in ("receiver_id", "at_id")]
    statement = select(receivers.c.tenant, receivers.c.name.label("receiver"), *columns)
    statement = statement.join(receivers, receivers.c.id == recoveries.c.receiver_id)
    if recovery_id is not None:
        statement = statement.where(recoveries.c.id == recovery_id)
    return list(connection.execute(statement.order_by(recoveries.c.created_at.desc()).limit(limit)))


def cancel(connection: Connection, recovery_id: str) -> bool:
    """End a running recovery; deliveries that it has queued stay queued. False if no running recovery has this id."""
    statement = update(recoveries).where(recoveries.c.id == recovery_id, _running)
    return connection.execute(statement.values(status="cancelled", finished_at=now())).rowcount == 1


def step(connection: Connection) -> int:
    """Take a step of each running recovery if its rate allows; return how many deliveries were queued.

    The dispatcher calls it at its tick, in a separate transaction.
    """
    return sum(_step(connection, row) for row in connection.execute(_RUNNING).all())


def _step(connection: Connection, row: Row[Any]) -> int:
    if row.receiver_status == "removed":
        _write(connection, row, status="cancelled", finished_at=now())
        return 0
    allowed = int(row.rate_per_s * min(row.passed_s, _longest_s(row.rate_per_s)))
    if row.receiver_status == "disabled" or allowed < 1:
        # The recovery of a disabled receiver waits: the dispatcher would put its queued deliveries on hold again.
        return 0
    ordering.lock(connection, [row.receiver_id])
    scanned = _next_deliveries(connection, row)
    wanted = json.loads(row.statuses)
    chosen = [delivery for delivery in scanned if delivery.status in wanted][:allowed]
    last = chosen[-1] if len(chosen) == allowed else scanned[-1] if scanned else None
    moved = redeliver.queue(connection, REDELIVER, chosen, origin=ORIGIN)
    is_done = len(scanned) < SCANNED and (last is None or last is scanned[-1])
    _write(
        connection,
        row,
        **({} if last is None else {"at": last.created_at, "at_id": last.id}),
        redelivered=recoveries.c.redelivered + len(moved),
        stepped_at=_stepped_at(row, len(chosen), whole=len(chosen) == allowed),
        **({"status": "done", "finished_at": now()} if is_done else {}),
    )
    return len(moved)


def _next_deliveries(connection: Connection, row: Row[Any]) -> Sequence[Any]:
    """Return up to SCANNED of the receiver's deliveries after the recovery's position, of any status."""
    columns = ("id", "attempt", "receiver_id", "ordering_key", "origin", "status", "created_at")
    # A condition on `created_at` alone too: for the pair of columns only, SQLite would scan from `since` every time.
    since = row.since if row.at is None else row.at
    statement = select(*(deliveries.c[name] for name in columns)).where(*_within(row.receiver_id, since, row.until))
    if row.at is not None:
        place = tuple_(deliveries.c.created_at, deliveries.c.id)
        statement = statement.where(place > tuple_(literal(row.at, Instant()), literal(row.at_id, Id)))
    in_time = statement.order_by(deliveries.c.created_at, deliveries.c.id)
    return connection.execute(in_time.limit(SCANNED)).all()


def _within(receiver_id: str, since: datetime, until: datetime) -> tuple[Any, ...]:
    return (
        deliveries.c.receiver_id == receiver_id,
        deliveries.c.created_at >= literal(since, Instant()),
        deliveries.c.created_at < literal(until, Instant()),
    )


def _stepped_at(row: Row[Any], spent: int, *, whole: bool) -> Any:
    """Return the instant from which the next step counts its share: the unused part of this tick is kept.

    A step that found less than its share (not `whole`) keeps nothing.
    """
    if not whole:
        return now()
    last = func.coalesce(recoveries.c.stepped_at, recoveries.c.created_at)
    earliest = from_now(-_longest_s(row.rate_per_s))
    return shifted(case((last < earliest, earliest), else_=last), spent / row.rate_per_s)


def _longest_s(rate_per_s: float) -> float:
    # A slow rate needs longer than LONGEST_PAUSE_S for a single delivery.
    return max(LONGEST_PAUSE_S, 2 / rate_per_s)


def _write(connection: Connection, row: Row[Any], **changes: Any) -> None:
    connection.execute(update(recoveries).where(recoveries.c.id == row.id).values(**changes))
