"""Reads jobs_v1: through the caller's Engine, or by URL with psycopg or sqlite3. A connection lasts one statement."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from afterword.dbapi import Rows, connected
from afterword.errors import NotConfigured
from afterword.inbox import qualified
from afterword.job import FINAL, SELECTED, Job, from_row

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine

CONNECT_S = 5
_postgresql = re.compile(r"postgres(?:ql)?(?:\+\w+)?://")
# As SQLAlchemy reads it: what follows a question mark are options.
_sqlite = re.compile(r"sqlite(?:\+\w+)?:///([^?]+)")

_FIND = "SELECT {columns} FROM {view} WHERE id = {id}"
_ID = {"postgresql": "CAST(:id AS uuid)", "sqlite": ":id"}


class Results:
    """Where results are read. `database` is a URL text or a SQLAlchemy Engine."""

    def __init__(self, database: str | Engine, *, schema: str | None) -> None:
        if not isinstance(database, str) and not hasattr(database, "raw_connection"):
            raise TypeError(f"database is a {type(database).__name__}; give a URL text or a SQLAlchemy Engine")
        self._database = database
        self._schema = schema

    def job(self, job_id: str) -> Job | None:
        """Return the job that an id leads to, or None."""
        jobs = [from_row(row) for row in self._find(job_id, SELECTED)]
        # A job that was sent twice is both a row and, for a moment, an inbox row, which has no tenant.
        return next((job for job in jobs if job.tenant is not None), jobs[0] if jobs else None)

    def ended(self, job_id: str) -> bool:
        """Say whether the job that an id leads to has ended; cheaper than the whole job."""
        return any(status in FINAL for (status,) in self._find(job_id, "status"))

    def _find(self, job_id: str, columns: str) -> Rows:
        """Read the job, or the one that the id became: in two steps, because SQLite plans one as a scan of all jobs."""
        jobs, ids = qualified("jobs_v1", self._schema), qualified("job_ids_v1", self._schema)
        with self._connection() as connection:
            ready = connected(connection)
            find = _FIND.format(columns=columns, view=jobs, id=_ID[ready.vendor])
            if rows := ready.run(find, {"id": job_id}):
                return rows
            resolve = _FIND.format(columns="job_id", view=ids, id=_ID[ready.vendor])
            return [
                row for (became,) in ready.run(resolve, {"id": job_id}) for row in ready.run(find, {"id": str(became)})
            ]

    @contextmanager
    def _connection(self) -> Iterator[Any]:
        if isinstance(self._database, str):
            with closing(connect(self._database)) as connection:
                yield connection
        else:
            with self._database.connect() as connection:
                yield connection


def connect(url: str) -> Any:
    """Open a DB-API connection for reading to `postgresql://…` or `sqlite:///path`; a `+driver` is not looked at."""
    if _postgresql.match(url):
        return _connect_postgresql(_postgresql.sub("postgresql://", url))
    if found := _sqlite.match(url):
        # Read-only: a mistaken path makes no empty file, and closing never writes the log back.
        return sqlite3.connect(f"file:{quote(found[1])}?mode=ro", uri=True, timeout=CONNECT_S)
    scheme = url.partition(":")[0]
    raise NotConfigured(f"the database URL begins with {scheme!r}; give postgresql://… or sqlite:////path/to/file.db")


def _connect_postgresql(url: str) -> Any:
    for name in ("psycopg", "psycopg2"):
        try:
            driver = import_module(name)
        except ImportError:
            continue
        return driver.connect(url, connect_timeout=CONNECT_S)
    raise NotConfigured(
        "reading from PostgreSQL by URL needs a driver; run: pip install 'psycopg[binary]', or give an Engine"
    )
