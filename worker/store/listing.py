"""Looking: the newest jobs, a job's attempts, the workers, counts. It reads for the command line and moves nothing."""

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import Column, Connection, MetaData, Row, Select, Table, func, select

from worker.store.clock import seconds_until
from worker.store.tables import dead_letters, inbox, jobs, workers
from worker.store.types import Id, JsonText

# The views, as a reader sees them: other columns are there, these are shown.
_views = MetaData()
_jobs = Table(
    "jobs_v1",
    _views,
    Column("id", Id),
    *map(Column, ("status", "tenant", "endpoint", "model", "batch", "attempts", "max_attempts", "created_at")),
    *map(Column, ("finished_at", "waiting_for", "waiting_until", "finish_reason", "prompt_tokens")),
    *map(Column, ("completion_tokens", "error_code")),
)
_attempts = Table(
    "attempts_v1",
    _views,
    Column("job_id", Id),
    *map(Column, ("attempt", "endpoint", "sent_at", "first_token_at", "finished_at", "outcome", "http_status")),
    *map(Column, ("error_code", "error_message", "billed", "request_id", "prompt_tokens", "completion_tokens")),
    Column("usage", JsonText),
)
_JSON = frozenset({"usage"})


def newest(
    connection: Connection,
    *,
    status: str | None = None,
    batch: str | None = None,
    tenant: str | None = None,
    limit: int,
) -> list[dict[str, Any]]:
    """Return the newest jobs, as plain JSON values by column."""
    statement: Select[Any] = select(_jobs).order_by(_jobs.c.created_at.desc()).limit(limit)
    for column, wanted in (("status", status), ("batch", batch), ("tenant", tenant)):
        if wanted is not None:
            statement = statement.where(_jobs.c[column] == wanted)
    return [_plain(row) for row in connection.execute(statement)]


def attempts_of(connection: Connection, job_id: str) -> list[dict[str, Any]]:
    """Return a job's attempts in order, as plain JSON values by column."""
    statement = select(_attempts).where(_attempts.c.job_id == job_id).order_by(_attempts.c.attempt)
    return [_plain(row) for row in connection.execute(statement)]


def workers_seen(connection: Connection) -> list[tuple[str, float]]:
    """Return each worker's name (`host:pid`) and the seconds its lease still has; negative when it has ended."""
    rows = connection.execute(select(workers.c.name, seconds_until(workers.c.lease_until)).order_by(workers.c.name))
    return [(name, left_s) for name, left_s in rows]


def counts(connection: Connection) -> dict[str, int]:
    """Return how many jobs there are of each status, rows of the inbox nobody has read, and dead letters."""
    found = {
        status: number
        for status, number in connection.execute(select(jobs.c.status, func.count()).group_by(jobs.c.status))
    }
    for name, table in (("inbox", inbox), ("dead_letters", dead_letters)):
        found[name] = connection.execute(select(func.count()).select_from(table)).scalar_one()
    return found


def _plain(row: Row[Any]) -> dict[str, Any]:
    return {name: _json_value(name, value) for name, value in row._mapping.items()}


def _json_value(name: str, value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, Decimal):
        return str(value)
    return json.loads(value) if name in _JSON and value is not None else value
