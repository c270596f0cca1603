"""RECLAIM: after the lease of a worker process has ended, its jobs are queued again.

The database's clock decides when a lease ends, and an operator may set that clock: forward, and leases of living
workers end (see `worker.store.heartbeat`); back, and leases of dead workers do not (see `leases.ENDED`).
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, Select, bindparam, delete, or_, select, tuple_, update

from worker.core.failure import ErrorCode
from worker.core.lifecycle import EXHAUST, TAKE_BACK, Outcome, Status
from worker.jobs.store import finished_feed
from worker.jobs.store.cancel import cancel_requeued
from worker.store import leases, transitions
from worker.store.clock import now
from worker.store.tables import attempts, jobs, workers
from worker.store.transitions import error_columns


def held(connection: Connection, worker_id: str) -> dict[str, int]:
    """Return the jobs that the rows assign to this worker, with their attempt numbers."""
    is_held = (jobs.c.worker_id == worker_id, jobs.c.status == Status.in_progress)
    return dict(connection.execute(select(jobs.c.id, jobs.c.attempt).where(*is_held)).all())


def cancellations(connection: Connection, worker_id: str) -> list[str]:
    """Return the jobs of this worker that have `cancel_requested_at`."""
    is_held = (jobs.c.worker_id == worker_id, jobs.c.status == Status.in_progress)
    return list(connection.scalars(select(jobs.c.id).where(*is_held, jobs.c.cancel_requested_at.is_not(None))))


@dataclass(frozen=True, slots=True)
class TakenBack:
    """The result: the number of deleted workers, the jobs queued again, failed (no attempts left) and cancelled."""

    workers: int
    queued: frozenset[str]
    failed: frozenset[str]
    cancelled: frozenset[str]

    @property
    def jobs(self) -> int:
        return len(self.queued) + len(self.failed)


def take_back(connection: Connection, *, limit: int = 500, once_only: Collection[str] = ()) -> TakenBack:
    """Delete workers with an ended lease and queue their jobs again, at most `limit`.

    Jobs of the endpoints `once_only` fail instead, because those forbid a second payment.
    """
    deleted = connection.execute(delete(workers).where(leases.ENDED)).rowcount
    orphans = (
        _held(once_only)
        .where(jobs.c.worker_id.is_not(None), jobs.c.worker_id.not_in(select(workers.c.id)))
        .order_by(jobs.c.worker_id, jobs.c.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    return _requeue(connection, connection.execute(orphans).all(), workers=deleted)


def give_back(
    connection: Connection, worker_id: str, keys: Sequence[transitions.Key], *, once_only: Collection[str] = ()
) -> TakenBack:
    """Queue jobs again that a living worker holds but does not work on; `once_only` as for `take_back`."""
    if not keys:
        return TakenBack(0, frozenset(), frozenset(), frozenset())
    given = tuple_(jobs.c.id, jobs.c.attempt).in_(sorted(keys))
    held_jobs = _held(once_only).where(jobs.c.worker_id == worker_id, given)
    return _requeue(connection, connection.execute(held_jobs.with_for_update()).all())


def _held(once_only: Collection[str]) -> Select[Any]:
    spent = or_(jobs.c.attempts_used >= jobs.c.max_attempts, jobs.c.endpoint.in_(sorted(once_only)))
    return select(jobs.c.id, jobs.c.attempt, spent.label("spent")).where(jobs.c.status == Status.in_progress)


def _requeue(connection: Connection, rows: Sequence[Row[Any]], *, workers: int = 0) -> TakenBack:
    """Queue the jobs of a worker that is gone. Their attempts become `unknown`: possibly billed, open to a late answer.

    A job that has spent its attempts fails: a job that kills its worker must end.
    """
    _close_unknown(connection, rows)
    lost = error_columns(ErrorCode.worker_lost)
    waiting = [(row.id, row.attempt) for row in rows if not row.spent]
    spent = [(row.id, row.attempt) for row in rows if row.spent]
    queued = transitions.apply(connection, TAKE_BACK, waiting, changes={**lost, "run_at": now()})
    failed = {job_id for job_id, _ in transitions.apply(connection, EXHAUST, spent, changes=lost)}
    cancelled = cancel_requeued(connection, queued)
    finished_feed.append_to_feed(connection, failed | cancelled)
    return TakenBack(
        workers, frozenset(job_id for job_id, _ in queued) - cancelled, frozenset(failed), frozenset(cancelled)
    )


def _close_unknown(connection: Connection, rows: Sequence[Row[Any]]) -> None:
    if not rows:
        return
    statement = (
        update(attempts)
        .where(
            attempts.c.job_id == bindparam("of_job"),
            attempts.c.attempt == bindparam("of_attempt"),
            attempts.c.outcome.is_(None),
        )
        .values(outcome=Outcome.unknown, finished_at=now(), billed="unknown", error_code=ErrorCode.worker_lost)
    )
    connection.execute(statement, [{"of_job": row.id, "of_attempt": row.attempt} for row in rows])
