"""CLAIM: assign queued jobs to this worker. Each gets its attempt row before any request is sent."""

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
    """A claimed job, with the data of its one request. `left_s`: seconds to the deadline.

    `refusals`: refusals in a row before this attempt. `body` None: the request's row is deleted. `probe`: the endpoint
    is paused, and this request tests it.
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


# Statements are built once, because building costs more than running.
# The next two are uncorrelated: the database reads them once per statement, for any number of jobs.
_PAUSED = select(endpoints.c.name).where(endpoints.c.state == State.paused)
_PROBES = select(endpoints.c.probe_job).where(endpoints.c.state == State.paused, endpoints.c.probe_job.is_not(None))
# The count is valid only if the latest failure was a refusal: a lost worker or a replay leaves the old count behind.
_REFUSALS = case((or_(*(jobs.c.error_code == code for code in sorted(REFUSALS))), jobs.c.refusals), else_=0)
_OPEN = insert(attempts).values(sent_at=now(), billed="unknown")


@cache
def _move(dialect: str) -> Executable:
    """Return the UPDATE that claims jobs: one statement, because callers wait for each round trip."""
    # KEY SHARE: until our commit no one can delete the worker's row and take the jobs back.
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
    # In the order of the fields of Claim.
    return changed.returning(
        jobs.c.id, jobs.c.attempt, jobs.c.worker_id, jobs.c.tenant, jobs.c.endpoint, jobs.c.model, jobs.c.streamed,
        jobs.c.choices, jobs.c.token_limit, jobs.c.generation, jobs.c.attempts_used, jobs.c.max_attempts,
        _REFUSALS, jobs.c.timeout_s, seconds_until(jobs.c.deadline), -seconds_until(jobs.c.run_at), jobs.c.traceparent,
        jobs.c.batch, select(requests.c.body).where(requests.c.job_id == jobs.c.id).scalar_subquery(),
        jobs.c.id.in_(_PROBES),
    )  # fmt: skip


def claim(connection: Connection, claim_requests: Sequence[ClaimRequest]) -> list[Claim | None]:
    """Claim each requested job that is queued, due and before its deadline; None if another worker was first.

    Of a paused endpoint only the probe is claimed. All requests must come from the same worker. A worker whose lease
    has ended claims nothing.
    """
    worker_id = claim_requests[0].worker_id
    parameters = {"ids": sorted({each.row_id for each in claim_requests}), "holder": worker_id}
    rows = connection.execute(_move(connection.dialect.name), parameters).all()
    if not rows:
        return [None] * len(claim_requests)
    attempt_rows = [
        {"job_id": row.id, "attempt": row.attempt, "endpoint": row.endpoint, "worker_id": worker_id} for row in rows
    ]
    connection.execute(_OPEN, attempt_rows)
    claims = {row.id: _claim(row) for row in rows}
    # A job that is requested twice in one batch is returned once.
    return [claims.pop(each.row_id, None) for each in claim_requests]


def _claim(row: Any) -> Claim:
    *columns, body, probe = row
    # A job without its request must not fail the other claims of the batch.
    text = None if body is None else bytes(body).decode("utf-8", "surrogatepass")
    return Claim._make([*columns, text, bool(probe)])
