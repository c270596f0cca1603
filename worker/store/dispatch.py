"""DISPATCH: which rows are due, lane by lane, and which are over. A lane is an (endpoint, tenant) pair."""

from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, Select, func, literal_column, select, tuple_, union_all

from worker.core.lifecycle import EXPIRE_QUEUED, Status
from worker.store import finish, moves
from worker.store.clock import now, seconds_until
from worker.store.tables import jobs

PRIORITIES = range(10)
EXPIRY_BATCH = 500


class Due(NamedTuple):
    """A row that may start now. `attempt` is the number its claim will give it."""

    job_id: str
    attempt: int
    priority: int
    run_at: datetime


def lanes(connection: Connection) -> list[tuple[str, str]]:
    """Return the (endpoint, tenant) pairs that have queued rows.

    A walk from pair to pair over the index, one step a lane, however many rows each holds: neither database skips
    duplicates by itself on every version we support (PostgreSQL from 18 on).
    """
    found: list[tuple[str, str]] = []
    step = _queued(jobs.c.endpoint, jobs.c.tenant).order_by(jobs.c.endpoint, jobs.c.tenant).limit(1)
    row = connection.execute(step).first()
    while row is not None:
        found.append((row.endpoint, row.tenant))
        row = connection.execute(step.where(tuple_(jobs.c.endpoint, jobs.c.tenant) > tuple_(*found[-1]))).first()
    return found


def due(connection: Connection, lane: tuple[str, str], *, limit: int) -> list[Due]:
    """Return the best due rows of one lane: by priority, then by age.

    One index range a priority, each ending at the present: rows that wait for later are never read.
    """
    ranges = [_range(lane, priority, limit) for priority in PRIORITIES]
    best = union_all(*(select(part) for part in ranges)).subquery()
    rows = connection.execute(
        select(best.c.id, best.c.attempt + 1, best.c.priority, best.c.run_at)
        .order_by(best.c.priority, best.c.run_at)
        .limit(limit)
    )
    return [Due(*row) for row in rows]


def _range(lane: tuple[str, str], priority: int, limit: int) -> Any:
    endpoint, tenant = lane
    return (
        _queued(jobs.c.id, jobs.c.attempt, jobs.c.priority, jobs.c.run_at)
        .where(
            jobs.c.endpoint == endpoint,
            jobs.c.tenant == tenant,
            jobs.c.priority == priority,
            jobs.c.run_at <= now(),
        )
        .order_by(jobs.c.run_at)
        .limit(limit)
        .subquery()
    )


def _queued(*columns: Any) -> Select[Any]:
    # A literal: with a bound parameter the planner could not use the partial index.
    return select(*columns).where(jobs.c.status == literal_column("'queued'"))


def next_start_s(connection: Connection, lane: tuple[str, str]) -> float | None:
    """Return the seconds until the next row of the lane becomes due, or None when none waits."""
    endpoint, tenant = lane
    parts = [
        _queued(func.min(jobs.c.run_at).label("run_at"))
        .where(
            jobs.c.endpoint == endpoint,
            jobs.c.tenant == tenant,
            jobs.c.priority == priority,
            jobs.c.run_at > now(),
        )
        .subquery()
        for priority in PRIORITIES
    ]
    soonest = union_all(*(select(part.c.run_at) for part in parts)).subquery()
    return connection.execute(select(seconds_until(func.min(soonest.c.run_at)))).scalar()


def expire(connection: Connection, *, limit: int = EXPIRY_BATCH) -> set[str]:
    """End queued jobs that passed their deadline; return their ids. Running ones are ended by their holder."""
    over = (
        select(jobs.c.id, jobs.c.attempt)
        .where(jobs.c.deadline <= now(), jobs.c.status == Status.queued)
        .order_by(jobs.c.deadline)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    keys = [(row.id, row.attempt) for row in connection.execute(over)]
    changes = {"error_code": "expired", "error_message": "the deadline passed before the job was done"}
    ended = {job_id for job_id, _ in moves.apply(connection, EXPIRE_QUEUED, keys, changes=changes)}
    finish.number(connection, ended)
    return ended
