"""The connection to the database: one engine a process, set up so that both databases keep the same promises."""

import sqlite3
import traceback
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.engine import URL
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, OperationalError

SQLITE_MINIMUM = (3, 38, 0)
# PostgreSQL's "not now": connection (08), resources (53), shutting down (57P), who we are (28), gone (3D000), read-only
# after a failover (25006), a session it ended because we rested in a transaction (25P03), a permission somebody is
# changing (42501).
_POSTGRESQL_AWAY = ("08", "53", "57P", "28", "3D000", "25006", "25P03", "42501")
# Serialisation failure, deadlock, lock timeout, statement timeout: another transaction was in the way.
_POSTGRESQL_BUSY = ("40001", "40P01", "55P03", "57014")
_SQLITE_AWAY = ("unable to open", "disk I/O error", "disk is full", "readonly database")
# A row that a person left locked in a console must not hold up all the others; nor must a machine of ours that froze in
# the middle of a transaction: the feed's counter is locked by every end of a job, and a dead connection is noticed by
# PostgreSQL after two hours (tcp_keepalives_idle). No transaction of ours rests between two statements.
_BOUNDS = "SET LOCAL lock_timeout = '2s'; SET LOCAL idle_in_transaction_session_timeout = '5s'"


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
        engine = _open_postgresql(address, reading=reading)
    else:
        raise UnusableDatabase(f"the database is {backend!r}; use sqlite:///… or postgresql://…")
    return engine.execution_options(schema_translate_map={None: schema}) if schema else engine


def _open_sqlite(address: URL, *, begin: str) -> Engine:
    engine = create_engine(
        address,
        hide_parameters=True,
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


def _open_postgresql(address: URL, *, reading: bool) -> Engine:
    engine = create_engine(
        address.set(drivername="postgresql+psycopg"),
        pool_size=8,
        max_overflow=8,
        # Not what a role's default may say: after a conflict we must see what the other one committed.
        isolation_level="READ COMMITTED",
        # Prompts and answers are parameters, and parameters stand in the texts of errors.
        hide_parameters=True,
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
    if not reading:

        @event.listens_for(engine, "begin")
        def _bound_locks(connection: Connection) -> None:
            if not connection.connection.dbapi_connection.autocommit:  # type: ignore[union-attr]
                connection.exec_driver_sql(_BOUNDS)

    return engine


def _as_text(text: str | bytes) -> str:
    return text if isinstance(text, str) else text.decode()


def is_away(error: BaseException) -> bool:
    """Say whether the database cannot be reached, or will not take writes now, so that waiting is the remedy."""
    if not isinstance(error, DBAPIError):
        return False
    if error.connection_invalidated:
        return True
    if isinstance(error.orig, sqlite3.Error):
        return any(text in str(error.orig) for text in _SQLITE_AWAY)
    state = sqlstate(error)
    # No state at all: libpq could not connect.
    return isinstance(error, OperationalError) if state is None else state.startswith(_POSTGRESQL_AWAY)


def is_busy(error: BaseException) -> bool:
    """Say whether another transaction was in the way, so that the same work may succeed when done again."""
    if not isinstance(error, DBAPIError):
        return False
    return sqlstate(error) in _POSTGRESQL_BUSY or "is locked" in str(error.orig)


def is_refused(error: BaseException) -> bool:
    """Say whether the data itself, or our own code, is at fault: the same work will fail the same way."""
    if not isinstance(error, DBAPIError):
        return True
    state = sqlstate(error) or ""
    # 54: larger than the database can hold.
    return isinstance(error, DataError | IntegrityError) or state.startswith("54")


def sqlstate(error: DBAPIError) -> str | None:
    """Return PostgreSQL's five-character code of an error."""
    state = getattr(error.orig, "sqlstate", None)
    return state if isinstance(state, str) else None


def describe(error: BaseException) -> dict[str, Any]:
    """Return what a log line may say of an error: where it was raised, never its text where that quotes data.

    PostgreSQL's DETAIL and CONTEXT hold rows, and rows hold prompts.
    """
    frames = traceback.extract_tb(error.__traceback__)[-6:]
    places = [f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames]
    told: dict[str, Any] = {"error": type(error).__name__, "where": places}
    if isinstance(error, DBAPIError):
        return told | {"sqlstate": sqlstate(error), "driver": type(error.orig).__name__}
    return told | {"message": str(error)}
