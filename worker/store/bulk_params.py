"""Many rows, or many ids, as one parameter. A parameter for each value costs ten times as much: psycopg reads the
statement anew for every number of parameters, the database parses it anew, and we bind each value by itself."""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ARRAY,
    JSON,
    ColumnElement,
    FromClause,
    Table,
    Text,
    any_,
    bindparam,
    cast,
    column,
    func,
    select,
    type_coerce,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.types import TypeEngine

from worker.store.types import microseconds

# The name of the one parameter.
ROWS = "rows"


def unpacked(dialect: str, types: Mapping[str, TypeEngine[Any]]) -> FromClause:
    """Return what selects from the parameter ROWS as from a table with these columns; what a row leaves out is NULL.

    Types: text, numbers, booleans, `Id`, `Instant`. JSON for a JSON column travels as its text.
    """
    if dialect == "postgresql":
        made = func.json_to_recordset(cast(bindparam(ROWS, type_=Text), JSON))
        return made.table_valued(*(column(name, kind) for name, kind in types.items())).render_derived(
            name="given", with_types=True
        )
    each = func.json_each(bindparam(ROWS, type_=Text)).table_valued("value", name="each")
    values = (
        type_coerce(func.json_extract(each.c.value, f"$.{name}"), kind).label(name) for name, kind in types.items()
    )
    return select(*values).subquery("given")


def any_of(dialect: str, column: ColumnElement[Any], name: str) -> ColumnElement[bool]:
    """Return the condition that a column has one of the values in the list parameter `name`."""
    if dialect == "postgresql":
        return column == any_(bindparam(name, type_=ARRAY(column.type)))
    return column.in_(bindparam(name, expanding=True))


def pack(dialect: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return the parameter that `unpacked` reads, on the same dialect."""
    write: Callable[[datetime], object] = datetime.isoformat if dialect == "postgresql" else microseconds
    return {ROWS: json.dumps(rows, ensure_ascii=False, separators=(",", ":"), default=write)}


def upsert(dialect: str, table: Table) -> postgresql.Insert | sqlite.Insert:
    """Return an INSERT into `table` for the dialect's name, `postgresql` or `sqlite`."""
    return postgresql.insert(table) if dialect == "postgresql" else sqlite.insert(table)
