"""Orders by SQL: one INSERT into cancel_v1 or replay_v1, and what the job says after it, in one transaction."""

from __future__ import annotations

from typing import TYPE_CHECKING

from afterword.dbapi import Connected
from afterword.inbox import qualified
from afterword.job import SELECTED, Job
from afterword.reading import ID, found, transaction

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine

_INSERT = "INSERT INTO {view} (id) VALUES ({id})"
_NOT_AGAIN = {
    "in_progress": "it runs; cancel it first, or wait for its end",
    "completed": "it is completed; submit the request as a new job to have another answer",
}
_REFUSALS = ("invalid_request", "idempotency_conflict")
_REFUSED = "it was refused when it came ({code}); submit it anew, mended"


def cancel(database: str | Engine, job_id: str, *, schema: str | None) -> str | None:
    """Cancel the job that an id leads to; return its status after that, None if nobody has accepted the id yet."""
    with transaction(database) as ready:
        _order(ready, "cancel_v1", job_id, schema=schema)
        rows = found(ready, job_id, "status, deadline", schema=schema)
        # A row of the inbox has no deadline: no worker has read it, and the one that does will meet the mark.
        return next((str(status) for status, deadline in rows if deadline is not None), None)


def replay(database: str | Engine, job_id: str, *, schema: str | None) -> Job | None:
    """Queue a job that has ended without an answer again; return it, None if nobody has accepted the id.

    ValueError says why a job cannot be replayed.
    """
    with transaction(database) as ready:
        _order(ready, "replay_v1", job_id, schema=schema)
        job = Job.of(found(ready, job_id, SELECTED, schema=schema))
    if job is None or not job.accepted:
        return None
    if job.status != "queued":
        raise ValueError(
            why_not(job) or f"job {job.id} was {job.status} again at once; look at it, then repeat the order"
        )
    return job


def why_not(job: Job) -> str | None:
    """Say why a job, as it stands, cannot be replayed; None if it can, or waits anyway."""
    reason = _NOT_AGAIN.get(job.status)
    if job.status == "failed" and job.attempts == 0 and job.error_code in _REFUSALS:
        reason = _REFUSED.format(code=job.error_code)
    return None if reason is None else f"job {job.id} cannot be replayed: {reason}"


def _order(ready: Connected, door: str, job_id: str, *, schema: str | None) -> None:
    statement = _INSERT.format(view=qualified(door, schema), id=ID[ready.vendor])
    ready.run(statement, {"id": job_id})
