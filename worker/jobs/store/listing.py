"""Reads for the command line: the newest jobs, a job's attempts, workers, endpoints, counts, the migration."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Self, TypeVar

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    MetaData,
    Row,
    Select,
    Table,
    and_,
    case,
    func,
    literal_column,
    or_,
    select,
)
from sqlalchemy.exc import SQLAlchemyError

from worker.core.lifecycle import FINAL, Status
from worker.jobs.core.endpoint_health import Cause, State
from worker.store import migrate, version
from worker.store.clock import seconds_until
from worker.store.engine import open_engine
from worker.store.rights import open_schema
from worker.store.row_count import count
from worker.store.tables import dead_letters, inbox, jobs, workers
from worker.store.tables import endpoints as endpoint_rows
from worker.store.types import Id, JsonText

Answer = TypeVar("Answer")

# The columns of the views that these commands show; the views have more.
_views = MetaData()
_jobs = Table(
    "jobs_v1",
    _views,
    Column("id", Id),
    *map(Column, ("status", "tenant", "endpoint", "model", "batch", "attempts", "max_attempts", "attempts_used")),
    Column("created_at"),
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
# A job met trouble at an endpoint that is not paused; it has not ended, and no call that began later was answered.
_is_alone = and_(
    endpoint_rows.c.state != State.paused,
    endpoint_rows.c.suspect_job.is_not(None),
    jobs.c.id.is_not(None),
    or_(endpoint_rows.c.alive_at.is_(None), endpoint_rows.c.suspect_at >= endpoint_rows.c.alive_at),
)
# Then the message of the probe job's failure is shown, because it says more than an error code.
_is_probed = and_(endpoint_rows.c.state == State.paused, endpoint_rows.c.cause != Cause.operator)
_next_try_at = case((jobs.c.status == Status.queued, jobs.c.run_at))
_ENDPOINTS = select(
    endpoint_rows.c.name,
    endpoint_rows.c.state,
    case((_is_alone, Cause.trouble), else_=endpoint_rows.c.cause).label("cause"),
    case((_is_alone, jobs.c.error_code), else_=endpoint_rows.c.reason).label("reason"),
    case(
        (_is_alone, func.coalesce(endpoint_rows.c.troubled_at, endpoint_rows.c.suspect_at)),
        (endpoint_rows.c.state != State.open, endpoint_rows.c.since),
    ).label("since"),
    case((_is_alone, _next_try_at), else_=endpoint_rows.c.probe_at).label("next_probe"),
    case((_is_alone, endpoint_rows.c.suspect_job)).label("suspect_job"),
    case((or_(_is_alone, _is_probed), jobs.c.error_message)).label("message"),
).outerjoin(
    jobs,
    and_(
        jobs.c.id == func.coalesce(endpoint_rows.c.suspect_job, endpoint_rows.c.probe_job),
        jobs.c.status.in_([Status.queued, Status.in_progress]),
    ),
)
# Before any time in the table.
_EPOCH: ColumnElement[Any] = literal_column("'1970-01-01'")


class CannotRead(RuntimeError):
    """The database cannot be used; the text says why in one line."""


class Listing:
    """A context manager that reads a database for the command line. Database errors are raised as CannotRead."""

    def __init__(self, url: str, *, schema: str | None = None) -> None:
        self._engine = open_engine(url, schema=schema, reading=True)
        self._url, self._schema = url, schema

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._engine.dispose()

    @property
    def kind(self) -> str:
        """`postgresql` or `sqlite`."""
        return self._engine.dialect.name

    def state(self) -> tuple[str | None, str]:
        """Return the migration of the database and the newest migration of this release."""
        with readable_errors():
            return version.state(self._engine, schema=self._schema)

    def open_schema(self) -> str | None:
        """Return a warning about roles that could act as the owner of our schema; None if there are none."""
        return self.ask(lambda connection: open_schema(connection, schema=self._schema))

    def fault(self) -> str | None:
        """Return a sentence that says why this release cannot use the database; None if it can."""
        with readable_errors():
            return version.fault(self._engine, schema=self._schema)

    def upgrade(self) -> None:
        """Migrate the database to the newest migration."""
        engine = open_engine(self._url, schema=self._schema)
        try:
            with readable_errors():
                migrate.upgrade(engine, schema=self._schema)
        finally:
            engine.dispose()

    def newest(self, *, limit: int, **wanted: str | None) -> list[dict[str, Any]]:
        """Return the newest jobs as JSON objects. `wanted`: `status`, `batch` or `tenant` to match, or None for any."""
        statement: Select[Any] = select(_jobs).order_by(_jobs.c.created_at.desc()).limit(limit)
        conditions = [_jobs.c[column] == value for column, value in wanted.items() if value is not None]
        return [_json_object(row) for row in self._rows(statement.where(*conditions))]

    def attempts_of(self, job_id: str) -> list[dict[str, Any]]:
        """Return a job's attempts in order, as JSON objects."""
        statement = select(_attempts).where(_attempts.c.job_id == job_id).order_by(_attempts.c.attempt)
        return [_json_object(row) for row in self._rows(statement)]

    def attempts_used(self, job_id: str) -> int | None:
        """Return the attempts that count against `max_attempts`; None if there is no such job."""
        rows = self._rows(select(_jobs.c.attempts_used).where(_jobs.c.id == job_id))
        return rows[0][0] if rows else None

    def workers(self) -> dict[str, float]:
        """Return the seconds left of each worker's lease by name (`host:pid`); negative after its end."""
        return {
            name: left_s for name, left_s in self._rows(select(workers.c.name, seconds_until(workers.c.lease_until)))
        }

    def endpoints(self) -> list[dict[str, Any]]:
        """Return the endpoints that have a row or unfinished jobs, sorted by name, as JSON objects.

        `suspect_job`: the only job with trouble at an endpoint that is not paused. `cause`, `reason`, `since` and
        `next_probe` then describe this job. Without it, `since` is set only for an endpoint that is not open.
        `message`: the latest failure of the suspect job or of the latest probe.
        """
        unfinished = select(jobs.c.endpoint, jobs.c.status, func.count()).where(
            jobs.c.status.in_([Status.queued, Status.in_progress])
        )
        by_name = {row.name: _json_object(row) | {"queued": 0, "in_progress": 0} for row in self._rows(_ENDPOINTS)}
        for name, status, number in self._rows(unfinished.group_by(jobs.c.endpoint, jobs.c.status)):
            by_name.setdefault(name, {"name": name, "state": "open", "queued": 0, "in_progress": 0})[status] = number
        return [by_name[name] for name in sorted(by_name)]

    def ask(self, question: Callable[[Connection], Answer]) -> Answer:
        """Call `question` with a connection; return its result."""
        with readable_errors(), self._engine.connect() as connection:
            return question(connection)

    def _rows(self, statement: Select[Any]) -> Sequence[Any]:
        with readable_errors(), self._engine.connect() as connection:
            return connection.execute(statement).all()


def counts(connection: Connection) -> dict[str, int]:
    """Return the number of jobs by status, of rows in the `inbox`, and of `dead_letters`; each at most MOST.

    The limit keeps it fast: each count reads only the beginning of an index, a full count would read every row.
    """
    numbers = {}
    # On SQLite the index is on the expression of the view, and `IS NOT NULL` would not use it.
    source = jobs if connection.dialect.name == "postgresql" else _jobs
    for status in Status:
        # A literal, because the planner could not use a partial index with a bound parameter.
        wanted: ColumnElement[str] = literal_column(f"'{status}'")
        if status in FINAL:
            ended_at: ColumnElement[Any] = source.c.finished_at
            chosen = select(ended_at).where(source.c.status == wanted, ended_at > _EPOCH).order_by(ended_at)
        else:
            first = jobs.c.run_at if status is Status.queued else jobs.c.worker_id
            chosen = select(first).where(jobs.c.status == wanted).order_by(first)
        if number := count(connection, chosen):
            numbers[str(status)] = number
    for name, table in (("inbox", inbox), ("dead_letters", dead_letters)):
        numbers[name] = count(connection, select(table.c.seq).order_by(table.c.seq))
    return numbers


@contextmanager
def readable_errors() -> Iterator[None]:
    """Raise database errors as CannotRead."""
    try:
        yield
    except SQLAlchemyError as error:
        # SQLAlchemy adds the statement and a link. The driver's first line is enough, and it holds no password.
        raise CannotRead(str(getattr(error, "orig", None) or error).strip().partition("\n")[0]) from error


def _json_object(row: Row[Any]) -> dict[str, Any]:
    return {name: _json_value(name, value) for name, value in row._mapping.items()}


def _json_value(name: str, value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, Decimal):
        return str(value)
    return json.loads(value) if name in _JSON and value is not None else value
