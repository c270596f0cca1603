"""SQL expressions for time. Only the database's clock decides: `now()`, plus or minus durations in seconds."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Float, ScalarSelect, bindparam, cast, literal, select
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.expression import ColumnElement
from sqlalchemy.sql.functions import FunctionElement

from worker.store.types import Instant

# SQLite before 3.42 knows 'now' only in milliseconds. ROUND is needed because julianday() returns a double.
SQLITE_NOW = "(CAST(ROUND((julianday('now') - 2440587.5) * 86400000.0) AS INTEGER) * 1000)"
# Not now(): it returns the start of the transaction, before its waits for locks.
POSTGRESQL_NOW = "clock_timestamp()"
# The tick of the coarser of the two clocks.
TICK_S = 0.001


class now(FunctionElement[datetime]):
    """The database's current time."""

    type = Instant()
    inherit_cache = True


@compiles(now, "postgresql")
def _now_postgresql(element: now, compiler: Any, **options: Any) -> str:
    return POSTGRESQL_NOW


@compiles(now, "sqlite")
def _now_sqlite(element: now, compiler: Any, **options: Any) -> str:
    return SQLITE_NOW


class shifted(FunctionElement[datetime]):
    """An instant plus `seconds`, a float or a column of floats; negative seconds go back."""

    type = Instant()
    inherit_cache = True

    def __init__(self, instant: ColumnElement[Any] | FunctionElement[Any], seconds: float | ColumnElement[float]):
        amount = seconds if isinstance(seconds, ColumnElement) else cast(bindparam(None, float(seconds)), Float)
        super().__init__(instant, amount)


@compiles(shifted, "postgresql")
def _shifted_postgresql(element: shifted, compiler: Any, **options: Any) -> str:
    instant, seconds = (compiler.process(clause, **options) for clause in element.clauses)
    return f"({instant} + make_interval(secs => {seconds}))"


@compiles(shifted, "sqlite")
def _shifted_sqlite(element: shifted, compiler: Any, **options: Any) -> str:
    instant, seconds = (compiler.process(clause, **options) for clause in element.clauses)
    return f"({instant} + CAST(({seconds}) * 1000000 AS INTEGER))"


class seconds_until(FunctionElement[float]):
    """Seconds from now to an instant; negative if the instant is past."""

    type = Float()
    inherit_cache = True


@compiles(seconds_until, "postgresql")
def _until_postgresql(element: seconds_until, compiler: Any, **options: Any) -> str:
    (instant,) = (compiler.process(clause, **options) for clause in element.clauses)
    return f"EXTRACT(EPOCH FROM {instant} - {POSTGRESQL_NOW})::float8"


@compiles(seconds_until, "sqlite")
def _until_sqlite(element: seconds_until, compiler: Any, **options: Any) -> str:
    (instant,) = (compiler.process(clause, **options) for clause in element.clauses)
    return f"(({instant} - {SQLITE_NOW}) / 1000000.0)"


# Unix time of the database's clock.
UNIX_S = -seconds_until(literal(datetime(1970, 1, 1, tzinfo=UTC), Instant()))


def from_now(seconds: float | ColumnElement[float]) -> shifted:
    """Return the instant `seconds` from now."""
    return shifted(now(), seconds)


def present() -> ScalarSelect[datetime]:
    """Return the current time as a scalar subquery, for conditions that bound an index scan.

    PostgreSQL calls a volatile function such as clock_timestamp() again for each row, and never uses it as the bound of
    an index scan. A scalar subquery runs once and can be the bound. (PostgreSQL manual, 38.7 Function Volatility
    Categories.)
    """
    return select(now()).scalar_subquery()
