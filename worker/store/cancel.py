"""CANCEL: a queued job ends here; a running one is marked, and its holder ends it with what had come."""

from collections.abc import Sequence

from sqlalchemy import Connection, select, update

from worker.core.lifecycle import CANCEL_QUEUED, Status
from worker.store import finish, moves
from worker.store.clock import now
from worker.store.tables import jobs


def cancel(connection: Connection, job_ids: Sequence[str]) -> list[str | None]:
    """Cancel jobs; return where each stood: queued (and is cancelled now), in_progress (and will be), final, or None.

    An answer that is recorded first wins: a final job stays as it is.
    """
    stands = select(jobs.c.id, jobs.c.attempt, jobs.c.status).where(jobs.c.id.in_(sorted(set(job_ids))))
    rows = {row.id: row for row in connection.execute(stands.order_by(jobs.c.id).with_for_update())}
    waiting = [(row.id, row.attempt) for row in rows.values() if row.status == Status.queued]
    changes = {"error_code": "cancelled", "error_message": "The job was cancelled.", "cancel_requested_at": now()}
    ended = moves.apply(connection, CANCEL_QUEUED, waiting, changes=changes)
    running = [row.id for row in rows.values() if row.status == Status.in_progress]
    if running:
        mark = update(jobs).where(jobs.c.id.in_(running), jobs.c.cancel_requested_at.is_(None))
        connection.execute(mark.values(cancel_requested_at=now()))
    finish.number(connection, {job_id for job_id, _ in ended})
    return [rows[job_id].status if job_id in rows else None for job_id in job_ids]
