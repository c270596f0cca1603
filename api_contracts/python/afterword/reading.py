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
from afterword.job import SELECTED, Job, from_row

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine

CONNECT_S = 5
_postgresql = re.compile(r"postgres(?:ql)?(?:\+\w+)?://")
_sqlite = re.compile(r"sqlite(?:\+\w+)?:///(.+)")

# An id that became another job's resolves through job_ids_v1. A job sent twice is a row and an inbox row for a
# moment: the row, which has a tenant, wins.
_FIND = (
    "SELECT {columns} FROM {jobs} WHERE id = coalesce("
    "(SELECT job_id FROM {ids} WHERE id = {id} ORDER BY id = job_id DESC LIMIT 1), {id}) "
    "ORDER BY tenant IS NULL LIMIT 1"
)
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
        rows = self._find(job_id, SELECTED)
        return from_row(rows[0]) if rows else None

    def status(self, job_id: str) -> str | None:
        """Return the status of the job that an id leads to, or None; cheaper than the whole job."""
        rows = self._find(job_id, "status")
        return rows[0][0] if rows else None

    def _find(self, job_id: str, columns: str) -> Rows:
        jobs, ids = qualified("jobs_v1", self._schema), qualified("job_ids_v1", self._schema)
        with self._connection() as connection:
            ready = connected(connection)
            return ready.run(_FIND.format(columns=columns, jobs=jobs, ids=ids, id=_ID[ready.vendor]), {"id": job_id})

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
    if found := _sqlite.fullmatch(url):
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
