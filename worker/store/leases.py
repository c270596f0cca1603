"""Leases: a claim belongs to a worker process, and the process to one row that it renews every second."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, or_, select, update

from worker.core.lifecycle import EXHAUST, RELEASE, TAKE_BACK, Move, Outcome, Status
from worker.store import finish, moves
from worker.store.clock import from_now, now
from worker.store.tables import attempts, jobs, leaders, workers


def register(connection: Connection, worker_id: str, *, name: str, slots: int, lease_s: float) -> None:
    """Enter a worker process, which has `slots` calls in flight at most; its lease begins now."""
    row = {"id": worker_id, "name": name, "slots": slots}
    connection.execute(insert(workers).values(**row, started_at=now(), lease_until=from_now(lease_s)))


def renew(connection: Connection, worker_id: str, *, slots: int, lease_s: float) -> bool:
    """Renew the lease; False when it was taken back, and every call of the process must end."""
    statement = update(workers).where(workers.c.id == worker_id).values(slots=slots, lease_until=from_now(lease_s))
    return connection.execute(statement).rowcount == 1


def resign(connection: Connection, worker_id: str) -> None:
    """Take a worker process off the list, and off the dispatch; its jobs must have been released before."""
    connection.execute(delete(workers).where(workers.c.id == worker_id))
    connection.execute(update(leaders).where(leaders.c.worker_id == worker_id).values(lease_until=now()))


def living(connection: Connection) -> dict[str, int]:
    """Return the workers whose rows stand, and the slots of each."""
    return dict(connection.execute(select(workers.c.id, workers.c.slots)).all())


def held(connection: Connection, worker_id: str) -> dict[str, int]:
    """Return the jobs that are this worker's by the rows, and the attempt number of each."""
    mine = (jobs.c.worker_id == worker_id, jobs.c.status == Status.in_progress)
    return dict(connection.execute(select(jobs.c.id, jobs.c.attempt).where(*mine)).all())


def cancellations(connection: Connection, worker_id: str) -> list[str]:
    """Return the jobs held by this worker that somebody asked to cancel."""
    mine = (jobs.c.worker_id == worker_id, jobs.c.status == Status.in_progress, jobs.c.cancel_requested_at.is_not(None))
    return list(connection.scalars(select(jobs.c.id).where(*mine)))


def lead(connection: Connection, worker_id: str, *, name: str, lease_s: float) -> bool:
    """Take or keep the leadership `name`; False while another worker holds it."""
    free = or_(leaders.c.worker_id == worker_id, leaders.c.lease_until <= now())
    statement = (
        update(leaders).where(leaders.c.name == name, free).values(worker_id=worker_id, lease_until=from_now(lease_s))
    )
    return connection.execute(statement).rowcount == 1


@dataclass(frozen=True, slots=True)
class TakenBack:
    """What the end of a lease did: workers struck off, jobs queued again, jobs out of attempts."""

    workers: int
    queued: frozenset[str]
    failed: frozenset[str]


def take_back(connection: Connection, *, limit: int = 500) -> TakenBack:
    """Strike off workers whose lease has ended and queue their jobs again.

    The attempts stay open to a late answer: outcome `unknown`, possibly billed. A job whose budget is spent fails, so
    that one that kills its worker comes to an end.
    """
    struck = connection.execute(delete(workers).where(workers.c.lease_until <= now())).rowcount
    orphans = (
        select(jobs.c.id, jobs.c.attempt, (jobs.c.attempts_used >= jobs.c.max_attempts).label("spent"))
        .where(jobs.c.status == Status.in_progress, jobs.c.worker_id.not_in(select(workers.c.id)))
        .order_by(jobs.c.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    rows = connection.execute(orphans).all()
    _close_unknown(connection, [(row.id, row.attempt) for row in rows])
    lost: dict[str, Any] = {
        "error_code": "worker_lost",
        "error_message": "the worker ended during the call; the request may have been executed and billed",
    }
    queued = _back(connection, TAKE_BACK, [r for r in rows if not r.spent], {**lost, "run_at": now()})
    failed = _back(connection, EXHAUST, [r for r in rows if r.spent], lost)
    finish.number(connection, failed)
    return TakenBack(struck, frozenset(queued), frozenset(failed))


def give_back(connection: Connection, worker_id: str, keys: Sequence[moves.Key]) -> None:
    """Queue jobs of a living worker again that it has forgotten; their attempts may have been billed."""
    _close_unknown(connection, keys)
    moves.apply(connection, RELEASE, keys, worker_id=worker_id, changes={"run_at": now()})


def _back(connection: Connection, move: Move, rows: Sequence[Row[Any]], changes: dict[str, Any]) -> set[str]:
    keys = [(row.id, row.attempt) for row in rows]
    return {job_id for job_id, _ in moves.apply(connection, move, keys, changes=changes)}


def _close_unknown(connection: Connection, keys: Sequence[moves.Key]) -> None:
    statement = update(attempts).where(attempts.c.outcome.is_(None))
    for job_id, number in keys:
        connection.execute(
            statement.where(attempts.c.job_id == job_id, attempts.c.attempt == number).values(
                outcome=Outcome.unknown, finished_at=now(), billed="unknown", error_code="worker_lost"
            )
        )
