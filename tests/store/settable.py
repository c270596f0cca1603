"""A database whose clock a test can set, as NTP, an operator or a resumed machine sets it."""

import time
from collections.abc import Callable

from sqlalchemy import Engine, event, text

# The schema `shim` comes before pg_catalog in the search path.
_SHIM = (
    "CREATE SCHEMA shim",
    "CREATE TABLE shim.step (s interval)",
    "INSERT INTO shim.step VALUES ('0')",
    "CREATE FUNCTION shim.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE AS"
    " 'SELECT pg_catalog.clock_timestamp() + (SELECT s FROM shim.step)'",
)


def settable(engine: Engine) -> Callable[[float], None]:
    """Return a function that moves the database's clock forward by seconds; on SQLite, for this engine only."""
    return _settable_sqlite(engine) if engine.dialect.name == "sqlite" else _settable_postgresql(engine)


def _settable_postgresql(engine: Engine) -> Callable[[float], None]:
    with engine.begin() as connection:
        for statement in _SHIM:
            connection.execute(text(statement))
        connection.execute(text(f'ALTER DATABASE "{engine.url.database}" SET search_path = public, shim, pg_catalog'))
    engine.dispose()

    def set_clock(seconds: float) -> None:
        with engine.begin() as connection:
            connection.execute(text("UPDATE shim.step SET s = make_interval(secs => :s)"), {"s": seconds})

    return set_clock


def _settable_sqlite(engine: Engine) -> Callable[[float], None]:
    step = [0.0]
    engine.dispose()

    @event.listens_for(engine, "connect")
    def _shift(connection: object, record: object) -> None:
        connection.create_function("julianday", 1, lambda _: (time.time() + step[0]) / 86400 + 2440587.5)  # type: ignore[attr-defined]

    def set_clock(seconds: float) -> None:
        step[0] = seconds

    return set_clock
