"""Reads jobs_v1 through the caller's Engine, or by URL with psycopg, psycopg2 or sqlite3."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

from afterword.dbapi import Connected, Rows, connected
from afterword.errors import NotConfigured
from afterword.inbox import qualified
from afterword.job import FINAL, SELECTED, Job

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine

CONNECT_S = 5
_postgresql = re.compile(r"postgres(?:ql)?(?:\+\w+)?://")
# As SQLAlchemy reads it: the path ends at a question mark, and options follow.
_sqlite = re.compile(r"sqlite(?:\+\w+)?:///([^?]+)")

_FIND = "SELECT {columns} FROM {view} WHERE id = {id}"
ID = {"postgresql": "CAST(:id AS uuid)", "sqlite": ":id"}


class Results:
    """Reads results. `database`: a URL text or a SQLAlchemy Engine. `schema`: the PostgreSQL schema of the views."""

    def __init__(self, database: str | Engine, *, schema: str | None) -> None:
        _checked(database)
        self._database = database
        self._schema = schema

    def job(self, job_id: str) -> Job | None:
        """Return the job with this id, or None if no row has it."""
        with self._connection() as connection:
            return Job.of(found(connected(connection), job_id, SELECTED, schema=self._schema))

    def ended(self, job_id: str) -> bool:
        """Return True if the job with this id has ended. Reads only its status."""
        with self._connection() as connection:
            rows = found(connected(connection), job_id, "status", schema=self._schema)
        return any(status in FINAL for (status,) in rows)

    @contextmanager
    def _connection(self) -> Iterator[Any]:
        if isinstance(self._database, str):
            with closing(connect(self._database)) as connection:
                yield connection
        else:
            with self._database.connect() as connection:
                yield connection


def found(ready: Connected, job_id: str, columns: str, *, schema: str | None) -> Rows:
    """Return the rows of the job with this id, or of the earlier job if this one was its duplicate.

    Two queries, because SQLite would scan all jobs for a single one.
    """
    jobs, ids = qualified("jobs_v1", schema), qualified("job_ids_v1", schema)
    find = _FIND.format(columns=columns, view=jobs, id=ID[ready.vendor])
    if rows := ready.run(find, {"id": job_id}):
        return rows
    resolve = _FIND.format(columns="job_id", view=ids, id=ID[ready.vendor])
    return [row for (became,) in ready.run(resolve, {"id": job_id}) for row in ready.run(find, {"id": str(became)})]


@contextmanager
def transaction(database: str | Engine) -> Iterator[Connected]:
    """Open a transaction that may write. It commits when the block ends without an exception."""
    _checked(database)
    if not isinstance(database, str):
        with database.begin() as connection:
            yield connected(connection)
        return
    with closing(connect(database, writing=True)) as opened:
        yield connected(opened)
        opened.commit()


def _checked(database: object) -> None:
    if not isinstance(database, str) and not hasattr(database, "raw_connection"):
        raise TypeError(f"database is of type {type(database).__name__}; give a URL text or a SQLAlchemy Engine")


def connect(url: str, *, writing: bool = False) -> Any:
    """Open a DB-API connection to `postgresql://…` or `sqlite:///path`. A `+driver` in the URL is ignored.

    Raises NotConfigured if the scheme is another one, or if no PostgreSQL driver is installed.
    """
    if _postgresql.match(url):
        return _connect_postgresql(_postgresql.sub("postgresql://", url))
    if path := _sqlite.match(url):
        # Neither mode creates a file at a wrong path. Closing a read-only connection never writes the WAL back.
        mode = "rw" if writing else "ro"
        return sqlite3.connect(f"file:{quote(unquote(path[1]))}?mode={mode}", uri=True, timeout=CONNECT_S)
    scheme = url.partition(":")[0]
    raise NotConfigured(f"the database URL begins with {scheme!r}; give postgresql://… or sqlite:////path/to/file.db")


def _connect_postgresql(url: str) -> Any:
    for name in ("psycopg", "psycopg2"):
        try:
            driver = import_module(name)
        except ImportError:
            continue
        connection = driver.connect(url, connect_timeout=CONNECT_S, client_encoding="UTF8")
        if not (connection.info.parameter_status("DateStyle") or "ISO").startswith("ISO"):
            # psycopg reads timestamps only in ISO style. A role or a database may have another DateStyle.
            with connection.cursor() as cursor:
                cursor.execute("SET datestyle = 'ISO, MDY'")
            connection.commit()
        return connection
    raise NotConfigured(
        "PostgreSQL by URL needs a driver; run: pip install 'psycopg[binary]', or give Afterword an Engine"
    )
