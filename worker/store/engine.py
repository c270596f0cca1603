"""The connection to the database: one engine a process, set up so that both databases keep the same promises."""

import sqlite3
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, OperationalError

SQLITE_MINIMUM = (3, 38, 0)
# PostgreSQL's classes of "not now": connection, insufficient resources, operator intervention (shut down, starting up).
_POSTGRESQL_AWAY = ("08", "53", "57")
# Serialisation failure, deadlock.
_POSTGRESQL_BUSY = ("40001", "40P01")
_SQLITE_AWAY = ("unable to open", "disk I/O error", "disk is full")


class UnusableDatabase(RuntimeError):
    """The database cannot be used as it is; the text says why and what to do."""


def open_engine(url: str, *, schema: str | None = None, reading: bool = False) -> Engine:
    """Return an engine for `sqlite:///…` or `postgresql+psycopg://…`.

    `schema` puts every table into a PostgreSQL schema. `reading`: only reads, and takes no lock that writers want.
    Raises UnusableDatabase for anything else.
    """
    address = make_url(url)
    backend = address.get_backend_name()
    if backend == "sqlite":
        if schema:
            raise UnusableDatabase(f"the schema is {schema!r}, but SQLite has no schemas; unset it or use PostgreSQL")
        engine = _open_sqlite(address, begin="BEGIN" if reading else "BEGIN IMMEDIATE")
    elif backend == "postgresql":
        engine = _open_postgresql(address)
    else:
        raise UnusableDatabase(f"the database is {backend!r}; use sqlite:///… or postgresql://…")
    return engine.execution_options(schema_translate_map={None: schema}) if schema else engine


def _open_sqlite(address: URL, *, begin: str) -> Engine:
    engine = create_engine(
        address,
        connect_args={"check_same_thread": False, "timeout": 30.0},
    )

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, record: Any) -> None:
        if sqlite3.sqlite_version_info < SQLITE_MINIMUM:
            raise UnusableDatabase(f"SQLite is {sqlite3.sqlite_version}; 3.38 or newer is needed, or use PostgreSQL")
        connection.isolation_level = None  # transactions begin below, not in the driver
        # FULL: an answer that was paid for survives a power cut; group commit makes it cheap.
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=30000", "cache_size=-32000"):
            connection.execute(f"PRAGMA {pragma}").close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # Deferred transactions that read and then write fail at once under contention: no busy timeout applies.
        connection.exec_driver_sql(begin)

    return engine


def _open_postgresql(address: URL) -> Engine:
    return create_engine(
        address.set(drivername="postgresql+psycopg"),
        pool_size=8,
        max_overflow=8,
        # JSON travels as the text that core.clean made.
        json_serializer=_as_text,
        json_deserializer=_as_text,
        connect_args={
            # Server-side prepared statements are session state, which PgBouncer in transaction mode does not keep.
            "prepare_threshold": None,
            "connect_timeout": 5,
            "keepalives_idle": 10,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            "tcp_user_timeout": 20_000,
        },
    )


def _as_text(text: str | bytes) -> str:
    return text if isinstance(text, str) else text.decode()


def is_away(error: BaseException) -> bool:
    """Say whether the database could not be reached or is shutting down, so that waiting is the remedy."""
    if not isinstance(error, DBAPIError):
        return False
    if error.connection_invalidated:
        return True
    if not isinstance(error, OperationalError):
        return False
    if isinstance(error.orig, sqlite3.Error):
        return any(text in str(error.orig) for text in _SQLITE_AWAY)
    # No state at all: libpq could not connect.
    state = getattr(error.orig, "sqlstate", None)
    return state is None or state[:2] in _POSTGRESQL_AWAY


def is_busy(error: BaseException) -> bool:
    """Say whether another transaction was in the way, so that the same work may succeed when done again."""
    if not isinstance(error, DBAPIError):
        return False
    return getattr(error.orig, "sqlstate", None) in _POSTGRESQL_BUSY or "is locked" in str(error.orig)
