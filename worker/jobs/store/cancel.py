"""CANCEL: a queued job ends here; a running one is marked, and its holder ends it with what had come."""

from collections.abc import Iterable, Sequence

from sqlalchemy import Connection, select, tuple_, update

from worker.core.failure import ErrorCode
from worker.core.lifecycle import CANCEL_QUEUED, Status
from worker.jobs.store import finished_feed
from worker.store import transitions
from worker.store.clock import now
from worker.store.tables import jobs
from worker.store.transitions import error_columns


def cancel(connection: Connection, job_ids: Sequence[str]) -> list[str | None]:
    """Cancel jobs; return where each stood: queued (and is cancelled now), in_progress (and will be), final, or None.

    An answer that is recorded first wins: a final job stays as it is.
    """
    stands = select(jobs.c.id, jobs.c.attempt, jobs.c.status).where(jobs.c.id.in_(sorted(set(job_ids))))
    rows = {row.id: row for row in connection.execute(stands.order_by(jobs.c.id).with_for_update())}
    waiting = [(row.id, row.attempt) for row in rows.values() if row.status == Status.queued]
    ended = transitions.apply(connection, CANCEL_QUEUED, waiting, changes=error_columns(ErrorCode.cancelled))
    running = [row.id for row in rows.values() if row.status == Status.in_progress]
    if running:
        mark = update(jobs).where(jobs.c.id.in_(running), jobs.c.cancel_requested_at.is_(None))
        connection.execute(mark.values(cancel_requested_at=now()))
    finished_feed.append_to_feed(connection, {job_id for job_id, _ in ended})
    return [rows[job_id].status if job_id in rows else None for job_id in job_ids]


def settle(connection: Connection, keys: Iterable[transitions.Key]) -> set[str]:
    """End the jobs among `keys`, just queued again, that somebody asked to cancel meanwhile; return their ids.

    The holder would have done it; it is gone or was quicker to give the job back. The caller numbers them.
    """
    wanted = sorted(keys)
    if not wanted:
        return set()
    asked = select(jobs.c.id, jobs.c.attempt).where(
        tuple_(jobs.c.id, jobs.c.attempt).in_(wanted),
        transitions.hide_from_planner(jobs.c.status) == Status.queued,
        jobs.c.cancel_requested_at.is_not(None),
    )
    found = [(row.id, row.attempt) for row in connection.execute(asked)]
    return {
        job_id
        for job_id, _ in transitions.apply(connection, CANCEL_QUEUED, found, changes=error_columns(ErrorCode.cancelled))
    }
