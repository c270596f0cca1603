"""The database's clock, the only one that decides: `now()`, moved by durations in seconds."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Float, ScalarSelect, bindparam, cast, literal, select
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.expression import ColumnElement
from sqlalchemy.sql.functions import FunctionElement

from worker.store.types import Instant

# Milliseconds are all that SQLite's 'now' has before 3.42; julianday alone would lose them in its double.
SQLITE_NOW = "(CAST(ROUND((julianday('now') - 2440587.5) * 86400000.0) AS INTEGER) * 1000)"
# Not now(): that is the start of the transaction, older than the locks it waited for.
POSTGRESQL_NOW = "clock_timestamp()"


class now(FunctionElement[datetime]):
    """The present instant, by the database."""

    type = Instant()
    inherit_cache = True


@compiles(now, "postgresql")
def _now_postgresql(element: now, compiler: Any, **options: Any) -> str:
    return POSTGRESQL_NOW


@compiles(now, "sqlite")
def _now_sqlite(element: now, compiler: Any, **options: Any) -> str:
    return SQLITE_NOW


class shifted(FunctionElement[datetime]):
    """An instant moved by `seconds` (a float or a column of floats)."""

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
    """Seconds from now to an instant; negative when it has passed."""

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


# Unix time, by the database.
UNIX_S = -seconds_until(literal(datetime(1970, 1, 1, tzinfo=UTC), Instant()))


def from_now(seconds: float | ColumnElement[float]) -> shifted:
    """The instant `seconds` from now."""
    return shifted(now(), seconds)


def present() -> ScalarSelect[datetime]:
    """The present instant as a value read once a statement, for conditions that end an index range.

    PostgreSQL calls a volatile function, as clock_timestamp() is, anew for each row, and so never uses one as the bound
    of an index scan; a scalar subquery of it is such a bound. (PostgreSQL manual, 38.7 Function Volatility Categories.)
    """
    return select(now()).scalar_subquery()
