"""CLAIM: queued rows become this worker's, each with an attempt row that exists before the wire is touched."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, func, insert, literal, select, update

from worker.core.lifecycle import CLAIM, Status
from worker.store.clock import now, seconds_until
from worker.store.tables import attempts, jobs, requests, workers


class Wish(NamedTuple):
    """A worker process that wants a job."""

    job_id: str
    worker_id: str


class Claim(NamedTuple):
    """A job that is ours, and what its one request needs. `left_s`: seconds to its deadline."""

    job_id: str
    attempt: int
    worker_id: str
    tenant: str
    endpoint: str
    model: str | None
    streamed: bool
    choices: int | None
    token_limit: int | None
    generation: int
    attempts_used: int
    max_attempts: int
    timeout_s: float
    left_s: float
    waited_s: float
    traceparent: str | None
    batch: str | None
    body: str


def claim(connection: Connection, wishes: Sequence[Wish]) -> list[Claim | None]:
    """Claim each wished job that is queued, due and not past its deadline; None where another was first.

    All wishes of one call are one worker's. A worker whose lease has ended claims nothing.
    """
    worker_id = wishes[0].worker_id
    rows = _move(connection, worker_id, wishes) if _alive(connection, worker_id) else {}
    if not rows:
        return [None] * len(wishes)
    opened = [
        {"job_id": job_id, "attempt": row.attempt, "endpoint": row.endpoint, "worker_id": worker_id}
        for job_id, row in rows.items()
    ]
    connection.execute(insert(attempts).values(sent_at=now(), billed="unknown"), opened)
    bodies = connection.execute(select(requests.c.job_id, requests.c.body).where(requests.c.job_id.in_(sorted(rows))))
    claims = {
        job_id: Claim._make([*rows[job_id], bytes(body).decode("utf-8", "surrogatepass")]) for job_id, body in bodies
    }
    # A job wished for twice in one batch is given once.
    return [claims.pop(wish.job_id, None) for wish in wishes]


def _alive(connection: Connection, worker_id: str) -> bool:
    """Say whether the lease stands, and keep it standing until our commit.

    KEY SHARE: the row cannot be deleted, and our jobs taken back, in between.
    """
    row = select(workers.c.id).where(workers.c.id == worker_id, workers.c.lease_until > now())
    return connection.execute(row.with_for_update(read=True, key_share=True)).first() is not None


def _move(connection: Connection, worker_id: str, wishes: Sequence[Wish]) -> dict[str, Row[Any]]:
    """Make the jobs this worker's; return what is known of them, by id."""
    due = (
        select(jobs.c.id)
        .where(
            jobs.c.id.in_(sorted({wish.job_id for wish in wishes})),
            jobs.c.status == Status.queued,
            jobs.c.run_at <= now(),
            jobs.c.deadline > now(),
            jobs.c.cancel_requested_at.is_(None),
        )
        .order_by(jobs.c.id)
        .with_for_update(skip_locked=True)
    )
    statement = (
        update(jobs)
        .where(jobs.c.id.in_(due))
        .values(
            status=CLAIM.target,
            worker_id=worker_id,
            attempt=jobs.c.attempt + 1,
            attempts_used=jobs.c.attempts_used + 1,
            started_at=func.coalesce(jobs.c.started_at, now()),
            waiting_for=None,
        )
        .returning(
            jobs.c.id, jobs.c.attempt, literal(worker_id), jobs.c.tenant, jobs.c.endpoint, jobs.c.model,
            jobs.c.streamed, jobs.c.choices, jobs.c.token_limit, jobs.c.generation, jobs.c.attempts_used,
            jobs.c.max_attempts, jobs.c.timeout_s, seconds_until(jobs.c.deadline), -seconds_until(jobs.c.run_at),
            jobs.c.traceparent, jobs.c.batch,
        )
    )  # fmt: skip
    return {row.id: row for row in connection.execute(statement)}
