"""What an operator asks of the database: the newest jobs, a job's attempts, the workers, counts, its migration."""

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
from worker.store.tables import endpoints as resting
from worker.store.types import Id, JsonText

Answer = TypeVar("Answer")

# The views, as a reader sees them: other columns are there, these are shown.
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
# It met trouble, its job is not over, and nobody was answered since.
_is_alone = and_(
    resting.c.state != State.paused,
    resting.c.suspect_job.is_not(None),
    jobs.c.id.is_not(None),
    or_(resting.c.alive_at.is_(None), resting.c.suspect_at >= resting.c.alive_at),
)
# The probe's own failure says more than a code does.
_is_probed = and_(resting.c.state == State.paused, resting.c.cause != Cause.operator)
_next_try = case((jobs.c.status == Status.queued, jobs.c.run_at))
_ENDPOINTS = select(
    resting.c.name,
    resting.c.state,
    case((_is_alone, Cause.trouble), else_=resting.c.cause).label("cause"),
    case((_is_alone, jobs.c.error_code), else_=resting.c.reason).label("reason"),
    case(
        (_is_alone, func.coalesce(resting.c.troubled_at, resting.c.suspect_at)),
        (resting.c.state != State.open, resting.c.since),
    ).label("since"),
    case((_is_alone, _next_try), else_=resting.c.probe_at).label("next_probe"),
    case((_is_alone, resting.c.suspect_job)).label("suspect_job"),
    case((or_(_is_alone, _is_probed), jobs.c.error_message)).label("message"),
).outerjoin(
    jobs,
    and_(
        jobs.c.id == func.coalesce(resting.c.suspect_job, resting.c.probe_job),
        jobs.c.status.in_([Status.queued, Status.in_progress]),
    ),
)
_EVER: ColumnElement[Any] = literal_column("'1970-01-01'")


class CannotRead(RuntimeError):
    """The database did not do what was asked; the text is the first line of what its driver said."""


class Listing:
    """A database for the command line; every error of it is a CannotRead. Use it in `with`."""

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
        """Return the migration the database is at and the newest one this release has."""
        with sentences():
            return version.state(self._engine, schema=self._schema)

    def open_schema(self) -> str | None:
        """Return a sentence about roles that could act as our owner, None without any."""
        return self.ask(lambda connection: open_schema(connection, schema=self._schema))

    def fault(self) -> str | None:
        """Return why this release cannot work on the database, in a sentence; None when it can."""
        with sentences():
            return version.fault(self._engine, schema=self._schema)

    def upgrade(self) -> None:
        """Bring the database to the newest migration."""
        engine = open_engine(self._url, schema=self._schema)
        try:
            with sentences():
                migrate.upgrade(engine, schema=self._schema)
        finally:
            engine.dispose()

    def newest(self, *, limit: int, **wanted: str | None) -> list[dict[str, Any]]:
        """Return the newest jobs with these values of `status`, `batch` or `tenant`, as plain JSON values by column."""
        statement: Select[Any] = select(_jobs).order_by(_jobs.c.created_at.desc()).limit(limit)
        conditions = [_jobs.c[column] == value for column, value in wanted.items() if value is not None]
        return [_plain(row) for row in self._rows(statement.where(*conditions))]

    def attempts_of(self, job_id: str) -> list[dict[str, Any]]:
        """Return a job's attempts in order, as plain JSON values by column."""
        statement = select(_attempts).where(_attempts.c.job_id == job_id).order_by(_attempts.c.attempt)
        return [_plain(row) for row in self._rows(statement)]

    def attempts_used(self, job_id: str) -> int | None:
        """Return how many attempts a job has spent, None where there is no such job."""
        found = self._rows(select(_jobs.c.attempts_used).where(_jobs.c.id == job_id))
        return found[0][0] if found else None

    def workers(self) -> dict[str, float]:
        """Return the workers by name (`host:pid`) and the seconds each lease still has; negative when it has ended."""
        return {
            name: left_s for name, left_s in self._rows(select(workers.c.name, seconds_until(workers.c.lease_until)))
        }

    def endpoints(self) -> list[dict[str, Any]]:
        """Return the endpoints that have a row or jobs to do, by name, as plain JSON values by column.

        `suspect_job`: the job that alone meets trouble at an endpoint that is not paused. `cause`, `reason`, `since`
        and `next_probe` are then the job's; otherwise `since` is of an endpoint that is not open. `message`: the latest
        failure of that job, or of the latest probe.
        """
        unfinished = select(jobs.c.endpoint, jobs.c.status, func.count()).where(
            jobs.c.status.in_([Status.queued, Status.in_progress])
        )
        found = {row.name: _plain(row) | {"queued": 0, "in_progress": 0} for row in self._rows(_ENDPOINTS)}
        for name, status, number in self._rows(unfinished.group_by(jobs.c.endpoint, jobs.c.status)):
            found.setdefault(name, {"name": name, "state": "open", "queued": 0, "in_progress": 0})[status] = number
        return [found[name] for name in sorted(found)]

    def ask(self, question: Callable[[Connection], Answer]) -> Answer:
        """Return what a reading function answers."""
        with sentences(), self._engine.connect() as connection:
            return question(connection)

    def _rows(self, statement: Select[Any]) -> Sequence[Any]:
        with sentences(), self._engine.connect() as connection:
            return connection.execute(statement).all()


def counts(connection: Connection) -> dict[str, int]:
    """Return how many jobs there are of each status, rows that no worker has read, and dead letters: MOST at most.

    A count of all reads all of them, on either database; each of these reads the beginning of an index.
    """
    found = {}
    # SQLite's index is on what the view shows; it does not use it for IS NOT NULL.
    shown = jobs if connection.dialect.name == "postgresql" else _jobs
    for status in Status:
        # Literals: with bound parameters the planner could not use a partial index.
        wanted: ColumnElement[str] = literal_column(f"'{status}'")
        if status in FINAL:
            ended: ColumnElement[Any] = shown.c.finished_at
            chosen = select(ended).where(shown.c.status == wanted, ended > _EVER).order_by(ended)
        else:
            first = jobs.c.run_at if status is Status.queued else jobs.c.worker_id
            chosen = select(first).where(jobs.c.status == wanted).order_by(first)
        if number := count(connection, chosen):
            found[str(status)] = number
    for name, table in (("inbox", inbox), ("dead_letters", dead_letters)):
        found[name] = count(connection, select(table.c.seq).order_by(table.c.seq))
    return found


@contextmanager
def sentences() -> Iterator[None]:
    """Turn an error of the database into a CannotRead."""
    try:
        yield
    except SQLAlchemyError as error:
        # SQLAlchemy adds the statement and a link; the driver's own first line says it, and holds no password.
        raise CannotRead(str(getattr(error, "orig", None) or error).strip().partition("\n")[0]) from error


def _plain(row: Row[Any]) -> dict[str, Any]:
    return {name: _json_value(name, value) for name, value in row._mapping.items()}


def _json_value(name: str, value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, Decimal):
        return str(value)
    return json.loads(value) if name in _JSON and value is not None else value
