"""The connection to the database: one engine a process, set up so that both databases keep the same promises."""

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
# PostgreSQL's "not now": connection (08), resources (53), shutting down (57P), its disk or its files (58), who we are
# (28), gone (3D000), read-only after a failover (25006), a session it ended because we rested in a transaction (25P03),
# a permission somebody is changing (42501).
_POSTGRESQL_AWAY = ("08", "53", "57P", "58", "28", "3D000", "25006", "25P03", "42501")
# Serialisation failure, deadlock, lock timeout, statement timeout: another transaction was in the way.
_POSTGRESQL_BUSY = ("40001", "40P01", "55P03", "57014")
# The file, its disk or this process's memory: https://sqlite.org/rescode.html
SQLITE_AWAY = frozenset(
    {
        *(sqlite3.SQLITE_PERM, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR),
        *(sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PROTOCOL),
        sqlite3.SQLITE_NOTADB,
    }
)
# A row that a person left locked in a console must not hold up all the others; nor must a machine of ours that froze in
# the middle of a transaction: the feed's counter is locked by every end of a job, and a dead connection is noticed by
# PostgreSQL after two hours (tcp_keepalives_idle). No transaction of ours rests between two statements.
_BOUNDS = "SET LOCAL lock_timeout = '2s'; SET LOCAL idle_in_transaction_session_timeout = '5s'"


log = structlog.get_logger()


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
    event.listen(engine, "handle_error", _leave_wrong_server)
    return engine.execution_options(schema_translate_map={None: schema}) if schema else engine


def _leave_wrong_server(context: ExceptionContext) -> None:
    """End the connection, and all idle ones, when the database says that it cannot serve us now.

    A name may lead to another server by then: after a failover the old primary lives on as a read-only replica, and a
    connection to it would stay in the pool for ever. A SQLite file may have been replaced.
    """
    if context.connection is None or context.connection.invalidated or not is_away(context.sqlalchemy_exception):
        return
    context.is_disconnect = True
    driver = context.connection.connection.dbapi_connection
    if isinstance(driver, sqlite3.Connection):
        # SQLite keeps a closed connection, and with it the lock, for as long as somebody holds a cursor of it.
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
        connect_args=session.arguments(address, reading=reading),
    )
    # Before SQLAlchemy's own look at the server, which another encoding breaks.
    event.listen(engine, "connect", _settle, insert=True)
    if not reading:

        @event.listens_for(engine, "begin")
        def _bound_locks(connection: Connection) -> None:
            if not connection.connection.dbapi_connection.autocommit:  # type: ignore[union-attr]
                connection.exec_driver_sql(_BOUNDS)

    return engine


def _settle(connection: Any, record: Any) -> None:
    if fault := session.fault(connection):
        raise UnusableDatabase(fault)
    session.settle(connection)


def _as_text(text: str | bytes) -> str:
    return text if isinstance(text, str) else text.decode()


def is_away(error: BaseException | None) -> bool:
    """Say whether the database cannot be reached, or will not take writes now, so that waiting is the remedy."""
    if not isinstance(error, DBAPIError):
        return False
    if error.connection_invalidated:
        return True
    if isinstance(error.orig, sqlite3.Error):
        return sqlite_code(error.orig) in SQLITE_AWAY
    state = sqlstate(error)
    # No state at all: libpq could not connect.
    return isinstance(error, OperationalError) if state is None else state.startswith(_POSTGRESQL_AWAY)


def is_busy(error: BaseException) -> bool:
    """Say whether another transaction was in the way, so that the same work may succeed when done again."""
    if not isinstance(error, DBAPIError):
        return False
    if isinstance(error.orig, sqlite3.Error):
        return sqlite_code(error.orig) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
    return sqlstate(error) in _POSTGRESQL_BUSY


def is_refused(error: BaseException) -> bool:
    """Say whether the data itself, or our own code, is probably at fault: the same work will fail the same way.

    Only probably: a trigger or a constraint refuses everything in the same words. `succeeds` knows more.
    """
    if not isinstance(error, DBAPIError):
        return True
    state = sqlstate(error) or ""
    # 54: larger than the database can hold.
    return isinstance(error, DataError | IntegrityError) or state.startswith("54")


def succeeds(engine: Engine, write: Callable[[Connection], object]) -> bool:
    """Say whether the database takes a write now: it is made and rolled back."""
    try:
        with engine.connect() as connection:
            write(connection)
            connection.rollback()
    except Exception as error:
        log.warning("database.refuses", **describe(error))
        return False
    return True


def sqlite_code(error: sqlite3.Error) -> int | None:
    """Return SQLite's primary result code; the upper bits only say more of the same."""
    code = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


def sqlstate(error: DBAPIError) -> str | None:
    """Return PostgreSQL's five-character code of an error."""
    state = getattr(error.orig, "sqlstate", None)
    return state if isinstance(state, str) else None


def describe(error: BaseException) -> dict[str, Any]:
    """Return what a log line may say of an error: where it was raised, never its text where that quotes data.

    PostgreSQL's DETAIL and CONTEXT hold rows, and rows hold prompts. A server that cannot serve us says why.
    """
    frames = traceback.extract_tb(error.__traceback__)[-6:]
    places = [f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames]
    facts: dict[str, Any] = {"error": type(error).__name__, "where": places}
    if not isinstance(error, DBAPIError):
        return facts | {"message": str(error)}
    facts |= {"sqlstate": sqlstate(error), "driver": type(error.orig).__name__}
    return facts | {"message": reason(error)} if is_away(error) else facts


def reason(error: BaseException) -> str:
    """Return what a server that does not serve us said of itself, on one line: such a text quotes no row.

    Only the first of PostgreSQL's fields: DETAIL and CONTEXT follow on lines of their own.
    """
    said = getattr(error, "orig", None) or error
    return " ".join(str(getattr(getattr(said, "diag", None), "message_primary", None) or said).split())
