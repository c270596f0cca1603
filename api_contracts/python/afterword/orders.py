"""Cancels and replays a job: INSERT into cancel_v1 or replay_v1, then read the job, in one transaction."""

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
    "in_progress": "it is running; cancel it first, or wait until it has ended",
    "completed": "it is completed; submit the request as a new job to get another answer",
}
_REFUSALS = ("invalid_request", "idempotency_conflict")
_REFUSED = "it was refused at acceptance ({code}); correct it and submit it as a new job"


def cancel(database: str | Engine, job_id: str, *, schema: str | None) -> str | None:
    """Cancel the job with this id. Return its status afterwards, None if no worker has accepted the id yet."""
    with transaction(database) as ready:
        _order(ready, "cancel_v1", job_id, schema=schema)
        rows = found(ready, job_id, "status, deadline", schema=schema)
        # An inbox row has no deadline, because no worker has read it. The worker that reads it cancels the job.
        return next((str(status) for status, deadline in rows if deadline is not None), None)


def replay(database: str | Engine, job_id: str, *, schema: str | None) -> Job | None:
    """Queue a failed, expired or cancelled job again. Return it, None if no worker has accepted the id yet.

    Raises ValueError with the reason if the job cannot be replayed.
    """
    with transaction(database) as ready:
        _order(ready, "replay_v1", job_id, schema=schema)
        job = Job.of(found(ready, job_id, SELECTED, schema=schema))
    if job is None or not job.accepted:
        return None
    if job.status != "queued":
        raise ValueError(
            why_not(job)
            or f"job {job.id} was replayed and is already {job.status} again; read it, then repeat the replay"
        )
    return job


def why_not(job: Job) -> str | None:
    """Return the reason why a job cannot be replayed. None if it can, or is queued already."""
    reason = _NOT_AGAIN.get(job.status)
    if job.status == "failed" and job.attempts == 0 and job.error_code in _REFUSALS:
        reason = _REFUSED.format(code=job.error_code)
    return None if reason is None else f"job {job.id} cannot be replayed: {reason}"


def _order(ready: Connected, view: str, job_id: str, *, schema: str | None) -> None:
    statement = _INSERT.format(view=qualified(view, schema), id=ID[ready.vendor])
    ready.run(statement, {"id": job_id})
