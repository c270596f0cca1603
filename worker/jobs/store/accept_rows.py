"""The INSERTs of ACCEPT: jobs, requests and aliases; one statement per table for any number of rows."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from sqlalchemy import (
    Connection,
    Executable,
    Float,
    LargeBinary,
    Text,
    bindparam,
    case,
    cast,
    func,
    insert,
    literal,
    select,
    true,
)

from worker.core.lifecycle import Status
from worker.core.storable_text import clean_json, clean_text
from worker.jobs.core.message import Job, Refusal
from worker.jobs.core.message_fields import LAST_INSTANT
from worker.store.bulk_params import any_of, pack, unpack, upsert
from worker.store.clock import now, seconds_until, shifted
from worker.store.tables import aliases, jobs, requests
from worker.store.types import Instant, JsonText

# The columns with a value per job. The other columns are computed in the statement.
_GIVEN = (
    "id", "status", "tenant", "endpoint", "model", "priority", "not_before", "max_attempts", "timeout_s", "streamed",
    "choices", "token_limit", "batch", "custom_id", "idempotency_key", "owns_key", "fingerprint", "ordering_key",
    "traceparent", "webhook", "error_code", "error_message",
)  # fmt: skip


def used_ids(connection: Connection, ids: Sequence[str]) -> set[str]:
    """Return the ids that are already aliases of other jobs."""
    return set(connection.scalars(_find_aliases(connection.dialect.name), {"ids": ids}))


def write_jobs(connection: Connection, read: Sequence[Job | Refusal], *, job_ttl_s: float) -> dict[str, bool]:
    """Insert the jobs that conflict with no existing row; return the inserted ids, and whether each may start now."""
    dialect = connection.dialect.name
    values = {**pack(dialect, [_job_columns(job) for job in read]), "ttl_s": job_ttl_s}
    return {job_id: wait_s <= 0 for job_id, wait_s in connection.execute(_insert_jobs(dialect), values)}


def write_requests(connection: Connection, written: Sequence[Job]) -> None:
    """Insert the requests of these jobs."""
    dialect = connection.dialect.name
    connection.execute(_insert_requests(dialect), pack(dialect, [_request_columns(job) for job in written]))


def write_aliases(connection: Connection, rows: Sequence[Mapping[str, str]]) -> None:
    """Insert aliases, `{"id", "job_id", "outcome"}`; an existing alias is not changed."""
    dialect = connection.dialect.name
    connection.execute(_insert_aliases(dialect), pack(dialect, rows))


# Each statement is built once per dialect, because building costs more than running.
@cache
def _find_aliases(dialect: str) -> Executable:
    return select(aliases.c.id).where(any_of(dialect, aliases.c.id, "ids"))


@cache
def _insert_jobs(dialect: str) -> Executable:
    texts = {"metadata": Text(), "error": Text()}
    given = unpack(dialect, {name: jobs.c[name].type for name in _GIVEN} | texts | {"deadline": Instant()}).c
    later, earlier = (func.greatest, func.least) if dialect == "postgresql" else (func.max, func.min)
    # A start in the past counts as now, or the job would overtake jobs that have waited.
    start = later(func.coalesce(given.not_before, now()), now(), type_=Instant())
    end = earlier(shifted(start, cast(bindparam("ttl_s"), Float)), literal(LAST_INSTANT, Instant()), type_=Instant())
    values = {name: given[name] for name in _GIVEN} | {
        "metadata": cast(given.metadata, JsonText),
        "error": cast(given.error, JsonText),
        "run_at": start,
        "deadline": func.coalesce(given.deadline, end),
        "created_at": now(),
        "finished_at": case((given.status == Status.failed, now())),
    }
    # Sorted by id, because two processes with the same entries would otherwise deadlock.
    # The WHERE is for SQLite: without it, ON CONFLICT after SELECT is parsed as a join (its manual, "UPSERT").
    rows = select(*values.values()).where(true()).order_by(given.id)
    statement = upsert(dialect, jobs).from_select(list(values), rows).on_conflict_do_nothing()
    return statement.returning(jobs.c.id, seconds_until(jobs.c.run_at))


@cache
def _insert_requests(dialect: str) -> Executable:
    given = unpack(dialect, {"job_id": requests.c.job_id.type, "text": Text(), "shown": Text()}).c
    body = func.convert_to(given.text, "UTF8") if dialect == "postgresql" else cast(given.text, LargeBinary)
    shown = cast(func.coalesce(given.shown, given.text), JsonText)
    return insert(requests).from_select(["job_id", "body", "request"], select(given.job_id, body, shown))


@cache
def _insert_aliases(dialect: str) -> Executable:
    given = unpack(dialect, {name: aliases.c[name].type for name in ("id", "job_id", "outcome")}).c
    rows = select(given.id, given.job_id, given.outcome, now()).where(true()).order_by(given.id)
    columns = ["id", "job_id", "outcome", "created_at"]
    return upsert(dialect, aliases).from_select(columns, rows).on_conflict_do_nothing()


def _job_columns(read: Job | Refusal) -> dict[str, Any]:
    refused = isinstance(read, Refusal)
    job = read.job if isinstance(read, Refusal) else read
    row = {
        "id": job.id,
        "status": Status.failed if refused else Status.queued,
        "tenant": job.tenant,
        "endpoint": job.endpoint,
        "model": job.model,
        "priority": job.priority,
        "not_before": job.not_before,
        "deadline": job.deadline,
        "max_attempts": job.max_attempts,
        "timeout_s": job.timeout_s,
        "streamed": job.streamed,
        "choices": job.n,
        "token_limit": job.token_limit,
        "batch": job.batch,
        "custom_id": job.custom_id,
        "idempotency_key": job.idempotency_key,
        "owns_key": job.idempotency_key is not None and not refused,
        "fingerprint": job.fingerprint,
        "ordering_key": job.ordering_key,
        "traceparent": job.traceparent,
        "webhook": job.webhook,
        "metadata": None if job.metadata is None else clean_json(job.metadata),
        **(_error_columns(read) if isinstance(read, Refusal) else {}),
    }
    return {name: value for name, value in row.items() if value is not None}


def _error_columns(refusal: Refusal) -> dict[str, str]:
    faults = [{"path": fault.path, "message": fault.message} for fault in refusal.faults]
    return {
        "error_code": refusal.code,
        "error_message": clean_text(refusal.message),
        "error": clean_json({"code": refusal.code, "message": refusal.message, "faults": faults}),
    }


def _request_columns(job: Job) -> dict[str, str]:
    """Return a request's exact text, and as `shown` the text for the views if it differs."""
    shown = clean_json(job.request)
    return {"job_id": job.id, "text": job.request} | ({} if shown == job.request else {"shown": shown})
