"""Pass many rows, or many ids, to a statement as one parameter.

One parameter for each value costs ten times as much: psycopg and the database parse the statement again for each new
number of parameters, and every value is bound separately.
"""

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

# The name of the parameter that holds all rows.
ROWS = "rows"


def pack(dialect: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return the parameter ROWS for `unpack` of the same dialect: a JSON array with one object for each row."""
    write: Callable[[datetime], object] = datetime.isoformat if dialect == "postgresql" else microseconds
    return {ROWS: json.dumps(rows, ensure_ascii=False, separators=(",", ":"), default=write)}


def unpack(dialect: str, types: Mapping[str, TypeEngine[Any]]) -> FromClause:
    """Return a FROM clause that reads the rows of the parameter ROWS. A column that a row leaves out is NULL.

    `types` gives the type of each column: text, numbers, booleans, `Id` or `Instant`. JSON for a JSON column travels
    as text.
    """
    if dialect == "postgresql":
        records = func.json_to_recordset(cast(bindparam(ROWS, type_=Text), JSON))
        return records.table_valued(*(column(name, kind) for name, kind in types.items())).render_derived(
            name="given", with_types=True
        )
    each = func.json_each(bindparam(ROWS, type_=Text)).table_valued("value", name="each")
    values = (
        type_coerce(func.json_extract(each.c.value, f"$.{name}"), kind).label(name) for name, kind in types.items()
    )
    return select(*values).subquery("given")


def any_of(dialect: str, column: ColumnElement[Any], name: str) -> ColumnElement[bool]:
    """Return the condition that the column equals an element of the list parameter `name`."""
    if dialect == "postgresql":
        return column == any_(bindparam(name, type_=ARRAY(column.type)))
    return column.in_(bindparam(name, expanding=True))


def upsert(dialect: str, table: Table) -> postgresql.Insert | sqlite.Insert:
    """Return an INSERT that can take ON CONFLICT, for the dialect `postgresql` or `sqlite`."""
    return postgresql.insert(table) if dialect == "postgresql" else sqlite.insert(table)
