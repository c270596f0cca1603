"""CLAIM: queued rows become this worker's, each with an attempt row that exists before the wire is touched."""

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import Connection, Executable, bindparam, case, exists, func, insert, or_, select, update

from worker.core.lifecycle import CLAIM, Status
from worker.jobs.core.endpoint_health import State
from worker.jobs.core.retry import REFUSALS
from worker.store.bulk_params import any_of
from worker.store.clock import now, seconds_until
from worker.store.tables import attempts, endpoints, jobs, requests, workers
from worker.store.transitions import ClaimRequest, hide_from_planner
from worker.store.types import Id


class Claim(NamedTuple):
    """A job that is ours, and what its one request needs. `left_s`: seconds to its deadline.

    `refusals`: how many attempts in a row before this one were refused for the moment. `body` None: its request is
    gone. `probe`: its endpoint rests, and this request finds out whether it is back.
    """

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
    refusals: int
    timeout_s: float
    left_s: float
    waited_s: float
    traceparent: str | None
    batch: str | None
    body: str | None
    probe: bool = False


# Built once: building a statement costs more than running it.
# Small and uncorrelated: read once a statement, whatever the number of jobs.
_PAUSED = select(endpoints.c.name).where(endpoints.c.state == State.paused)
_PROBES = select(endpoints.c.probe_job).where(endpoints.c.state == State.paused, endpoints.c.probe_job.is_not(None))
# The latest failure tells whether the count is still one: a lost worker or a replay ends the row without writing it.
_REFUSALS = case((or_(*(jobs.c.error_code == code for code in sorted(REFUSALS))), jobs.c.refusals), else_=0)
_OPEN = insert(attempts).values(sent_at=now(), billed="unknown")


@cache
def _move(dialect: str) -> Executable:
    """Return the UPDATE that makes jobs ours: one statement, because each is a round trip that somebody waits for."""
    # KEY SHARE: the row cannot be deleted, and our jobs taken back, between this look and our commit.
    alive = (
        select(workers.c.id)
        .where(workers.c.id == bindparam("holder", type_=Id), workers.c.lease_until > now())
        .with_for_update(read=True, key_share=True)
        .cte("alive")
    )
    due = (
        select(jobs.c.id)
        .where(
            any_of(dialect, jobs.c.id, "ids"),
            hide_from_planner(jobs.c.status) == Status.queued,
            jobs.c.run_at <= now(),
            jobs.c.deadline > now(),
            jobs.c.cancel_requested_at.is_(None),
            or_(jobs.c.endpoint.not_in(_PAUSED), jobs.c.id.in_(_PROBES)),
            exists().select_from(alive),
        )
        .order_by(jobs.c.id)
        .with_for_update(skip_locked=True)
    )
    moved = update(jobs).where(jobs.c.id.in_(due))
    changed = moved.values(
        status=CLAIM.target,
        worker_id=bindparam("holder", type_=Id),
        attempt=jobs.c.attempt + 1,
        attempts_used=jobs.c.attempts_used + 1,
        started_at=func.coalesce(jobs.c.started_at, now()),
        waiting_for=None,
    )
    # As Claim has them.
    return changed.returning(
        jobs.c.id, jobs.c.attempt, jobs.c.worker_id, jobs.c.tenant, jobs.c.endpoint, jobs.c.model, jobs.c.streamed,
        jobs.c.choices, jobs.c.token_limit, jobs.c.generation, jobs.c.attempts_used, jobs.c.max_attempts,
        _REFUSALS, jobs.c.timeout_s, seconds_until(jobs.c.deadline), -seconds_until(jobs.c.run_at), jobs.c.traceparent,
        jobs.c.batch, select(requests.c.body).where(requests.c.job_id == jobs.c.id).scalar_subquery(),
        jobs.c.id.in_(_PROBES),
    )  # fmt: skip


def claim(connection: Connection, wishes: Sequence[ClaimRequest]) -> list[Claim | None]:
    """Claim each wished job that is queued, due and not past its deadline; None where another was first.

    Of a paused endpoint only the probe is claimed. All wishes of one call are one worker's. A worker whose lease has
    ended claims nothing.
    """
    worker_id = wishes[0].worker_id
    wanted = {"ids": sorted({wish.row_id for wish in wishes}), "holder": worker_id}
    rows = connection.execute(_move(connection.dialect.name), wanted).all()
    if not rows:
        return [None] * len(wishes)
    opened = [
        {"job_id": row.id, "attempt": row.attempt, "endpoint": row.endpoint, "worker_id": worker_id} for row in rows
    ]
    connection.execute(_OPEN, opened)
    claims = {row.id: _claim(row) for row in rows}
    # A job wished for twice in one batch is given once.
    return [claims.pop(wish.row_id, None) for wish in wishes]


def _claim(row: Any) -> Claim:
    *columns, body, probe = row
    # One without its request must not keep the others of its batch from their workers.
    text = None if body is None else bytes(body).decode("utf-8", "surrogatepass")
    return Claim._make([*columns, text, bool(probe)])
