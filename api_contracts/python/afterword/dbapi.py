"""Runs one statement on the caller's connection: SQLAlchemy (1.4 or 2), Django, or a DB-API driver.

A connection is recognised by its attributes, because these libraries need not be installed. Statements use `:name`.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

VENDORS = ("postgresql", "sqlite")
ACCEPTED = "a SQLAlchemy Session or Connection, Django's connection, or a DB-API connection of psycopg or sqlite3"

Rows = list[tuple[Any, ...]]

# A parameter. The look-behind skips casts (`::text`) and colons after a letter or digit (`12:30`).
_name = re.compile(r"(?<![:\w]):([a-z_]+)")


@dataclass(frozen=True)
class Connected:
    """A connection that can run a statement: `run(sql, values)` returns its rows. `vendor`: postgresql or sqlite."""

    vendor: str
    run: Callable[[str, Mapping[str, str]], Rows]


def connected(target: Any) -> Connected:
    """Return a way to run statements in the transaction of `target`.

    Raises TypeError, with the remedy, if `target` is not a synchronous connection to PostgreSQL or SQLite.
    """
    if hasattr(target, "raw_connection"):
        raise TypeError("an Engine has no open transaction; give a connection: with engine.begin() as connection: …")
    # Both names: asyncpg's connection has no commit, and aiosqlite's execute is not a coroutine function.
    if any(inspect.iscoroutinefunction(getattr(target, name, None)) for name in ("execute", "commit")):
        raise TypeError(
            "this connection is asynchronous; with SQLAlchemy write "
            "await session.run_sync(lambda session: afterword.enqueue(session, request))"
        )
    if hasattr(target, "get_bind") and callable(getattr(target, "connection", None)):
        target = target.connection()
    if hasattr(target, "exec_driver_sql"):
        return _vendor_checked(_sqlalchemy(target))
    if hasattr(target, "fetchall"):
        # A cursor: our statement on it would discard the rows that the caller has not fetched yet. Use its connection.
        target = getattr(target, "db", None) or target.connection
    return _vendor_checked(_cursored(target))


def _vendor_checked(found: Connected) -> Connected:
    if found.vendor not in VENDORS:
        raise TypeError(f"this connection is to {found.vendor}; give one to Afterword's database, PostgreSQL or SQLite")
    return found


def _sqlalchemy(connection: Any) -> Connected:
    from sqlalchemy import text

    def run(sql: str, values: Mapping[str, str]) -> Rows:
        result = connection.execute(text(sql), dict(values))
        return [tuple(row) for row in result.fetchall()] if result.returns_rows else []

    return Connected(connection.dialect.name, run)


def _cursored(connection: Any) -> Connected:
    """Wrap a Django or DB-API connection. Django names its vendor and takes `%s`; others are known by their driver."""
    django = isinstance(getattr(connection, "vendor", None), str)
    vendor, style = (connection.vendor, "format") if django else _driver(connection)

    def run(sql: str, values: Mapping[str, str]) -> Rows:
        cursor = connection.cursor()
        if style == "pyformat" and hasattr(cursor, "row_factory"):
            # psycopg: the caller's row_factory may return any type; the code below needs tuples.
            cursor.row_factory = lambda _: tuple
        try:
            cursor.execute(*in_style(style, sql, values))
            rows = cursor.fetchall() if cursor.description else []
            return [tuple(row.values() if isinstance(row, Mapping) else row) for row in rows]
        finally:
            cursor.close()

    return Connected(vendor, run)


def _driver(connection: Any) -> tuple[str, str]:
    """Return (vendor, paramstyle of PEP 249) by the module of the connection's class or of one of its base classes."""
    for kind in type(connection).__mro__ if hasattr(connection, "cursor") else ():
        root = kind.__module__.partition(".")[0]
        for module in (kind.__module__, root):
            style = getattr(sys.modules.get(module), "paramstyle", None)
            if isinstance(style, str):
                vendor = "sqlite" if "sqlite" in root else "postgresql" if root.startswith(("psycopg", "pg")) else root
                return vendor, style
    kind = type(connection)
    raise TypeError(f"cannot enqueue through a {kind.__module__}.{kind.__qualname__}; give {ACCEPTED}")


def in_style(style: str, sql: str, values: Mapping[str, str]) -> tuple[str, Any]:
    """Rewrite `:name` into a paramstyle of PEP 249. Return the statement and its parameters."""
    if style == "named":
        return sql, dict(values)
    if style == "pyformat":
        return _name.sub(r"%(\1)s", sql), dict(values)
    places = iter(range(1, sql.count(":") + 1))
    marks: dict[str, Callable[[], str]] = {
        "qmark": lambda: "?",
        "format": lambda: "%s",
        "numeric": lambda: f":{next(places)}",
    }
    return _name.sub(lambda _: marks[style](), sql), [values[name] for name in _name.findall(sql)]
