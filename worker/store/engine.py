"""Open the database engine of a process with the same guarantees on PostgreSQL and SQLite, and classify its errors."""

import contextlib
import sqlite3
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.engine import URL, ExceptionContext
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, OperationalError

from worker.store import session

SQLITE_MINIMUM = (3, 38, 0)
# SQLSTATE prefixes of a PostgreSQL that cannot serve us now: connection (08), resources (53), shutdown (57P), disk or
# files (58), authentication (28), missing database (3D000), read-only after a failover (25006), session ended because
# its transaction was idle (25P03), a permission that may be changing (42501).
_POSTGRESQL_AWAY = ("08", "53", "57P", "58", "28", "3D000", "25006", "25P03", "42501")
# Conflicts with another transaction: serialisation failure, deadlock, lock timeout, statement timeout.
_POSTGRESQL_BUSY = ("40001", "40P01", "55P03", "57014")
# SQLite's codes for trouble with the file, its disk or this process's memory: https://sqlite.org/rescode.html
SQLITE_AWAY = frozenset(
    {
        *(sqlite3.SQLITE_PERM, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR),
        *(sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PROTOCOL),
        sqlite3.SQLITE_NOTADB,
    }
)
# lock_timeout: a row that a person left locked in a console must not block all other rows. The idle timeout: a machine
# of ours that froze inside a transaction must not keep its locks. Every job's end locks the feed's counter, and
# PostgreSQL notices a dead connection only after two hours (tcp_keepalives_idle). Our transactions never idle.
_BOUNDS = "SET LOCAL lock_timeout = '2s'; SET LOCAL idle_in_transaction_session_timeout = '5s'"


log = structlog.get_logger()


class UnusableDatabase(RuntimeError):
    """The database cannot be used; the message has the reason and the remedy."""


def open_engine(url: str, *, schema: str | None = None, reading: bool = False) -> Engine:
    """Return an engine for `sqlite:///…` or `postgresql+psycopg://…`.

    `schema`: the PostgreSQL schema of all tables. `reading`: the engine is for reads only and does not block writers.
    Raises UnusableDatabase for any other database.
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
    event.listen(engine, "handle_error", _leave_wrong_server)
    return engine.execution_options(schema_translate_map={None: schema}) if schema else engine


def _leave_wrong_server(context: ExceptionContext) -> None:
    """Close this connection and all idle connections if the error says that the database cannot serve us now.

    The host name may point to another server by now. After a failover the old primary continues as a read-only replica,
    and a connection to it would stay in the pool for ever. A SQLite file may have been replaced.
    """
    if context.connection is None or context.connection.invalidated or not is_away(context.sqlalchemy_exception):
        return
    context.is_disconnect = True
    driver = context.connection.connection.dbapi_connection
    if isinstance(driver, sqlite3.Connection):
        # SQLite keeps a closed connection and its lock while a cursor of the connection exists.
        with contextlib.suppress(sqlite3.Error):
            driver.rollback()


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
        connection.isolation_level = None  # the driver begins no transaction; `_begin` below does
        # FULL: a paid answer survives a power cut. Group commit keeps it cheap.
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=30000", "cache_size=-32000"):
            connection.execute(f"PRAGMA {pragma}").close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # A deferred transaction that reads and then writes fails at once under contention, without the busy timeout.
        connection.exec_driver_sql(begin)

    return engine


def _open_postgresql(address: URL, *, reading: bool) -> Engine:
    engine = create_engine(
        address.set(drivername="postgresql+psycopg"),
        pool_size=8,
        max_overflow=8,
        # A role's default may differ. After a conflict we must see the other transaction's commit.
        isolation_level="READ COMMITTED",
        # Error texts quote parameters, and our parameters are prompts and answers.
        hide_parameters=True,
        # JSON columns take and give text, cleaned by core.storable_text.
        json_serializer=_as_text,
        json_deserializer=_as_text,
        connect_args=session.arguments(address, reading=reading),
    )
    # First, because SQLAlchemy's own queries at connect fail under another encoding.
    event.listen(engine, "connect", _prepare_session, insert=True)
    if not reading:

        @event.listens_for(engine, "begin")
        def _bound_locks(connection: Connection) -> None:
            if not connection.connection.dbapi_connection.autocommit:  # type: ignore[union-attr]
                connection.exec_driver_sql(_BOUNDS)

    return engine


def _prepare_session(connection: Any, record: Any) -> None:
    if fault := session.fault(connection):
        raise UnusableDatabase(fault)
    session.set_parameters(connection)


def _as_text(text: str | bytes) -> str:
    return text if isinstance(text, str) else text.decode()


def is_away(error: BaseException | None) -> bool:
    """Return whether the database is unreachable or refuses writes for now: the caller should wait and retry."""
    if not isinstance(error, DBAPIError):
        return False
    if error.connection_invalidated:
        return True
    if isinstance(error.orig, sqlite3.Error):
        return sqlite_code(error.orig) in SQLITE_AWAY
    state = sqlstate(error)
    # Without an SQLSTATE, libpq could not connect.
    return isinstance(error, OperationalError) if state is None else state.startswith(_POSTGRESQL_AWAY)


def is_busy(error: BaseException) -> bool:
    """Return whether another transaction caused a conflict: a retry of the same work may succeed."""
    if not isinstance(error, DBAPIError):
        return False
    if isinstance(error.orig, sqlite3.Error):
        return sqlite_code(error.orig) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
    return sqlstate(error) in _POSTGRESQL_BUSY


def is_refused(error: BaseException) -> bool:
    """Return whether the data or our code is probably at fault, and a retry would fail the same way.

    Only probably: a trigger or a constraint may refuse every write with the same error. `succeeds` finds out.
    """
    if not isinstance(error, DBAPIError):
        return True
    state = sqlstate(error) or ""
    # 54: a program limit of PostgreSQL is exceeded, for example a value is too large.
    return isinstance(error, DataError | IntegrityError) or state.startswith("54")


def succeeds(engine: Engine, write: Callable[[Connection], object]) -> bool:
    """Return whether the database accepts this write now: make the write, then roll it back."""
    try:
        with engine.connect() as connection:
            write(connection)
            connection.rollback()
    except Exception as error:
        log.warning("database.refuses", **describe(error))
        return False
    return True


def sqlite_code(error: sqlite3.Error) -> int | None:
    """Return SQLite's primary result code, the lower 8 bits of the extended code."""
    code = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


def sqlstate(error: DBAPIError) -> str | None:
    """Return PostgreSQL's five-character code of an error."""
    state = getattr(error.orig, "sqlstate", None)
    return state if isinstance(state, str) else None


def describe(error: BaseException) -> dict[str, Any]:
    """Return the facts of an error that a log line may contain: its type and the last six frames.

    A database error's message is left out, because PostgreSQL's DETAIL and CONTEXT quote rows, and rows hold prompts.
    Only a server that cannot serve us is quoted (`reason`).
    """
    frames = traceback.extract_tb(error.__traceback__)[-6:]
    places = [f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames]
    facts: dict[str, Any] = {"error": type(error).__name__, "where": places}
    if not isinstance(error, DBAPIError):
        return facts | {"message": str(error)}
    facts |= {"sqlstate": sqlstate(error), "driver": type(error.orig).__name__}
    return facts | {"message": reason(error)} if is_away(error) else facts


def reason(error: BaseException) -> str:
    """Return, on one line, the message of a server that cannot serve us; such a message quotes no row.

    Of PostgreSQL's fields only the primary message is used, without DETAIL and CONTEXT.
    """
    cause = getattr(error, "orig", None) or error
    return " ".join(str(getattr(getattr(cause, "diag", None), "message_primary", None) or cause).split())
