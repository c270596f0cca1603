"""The door by SQL: rows of submit_v1 in the caller's transaction. Nothing is committed here, and Redis is not asked."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence

from afterword.dbapi import Connected, connected
from afterword.message import HINTS

# One text parameter holds all jobs of a statement: three times as fast as a row a parameter on PostgreSQL, and the
# same for every driver.
_INSERT = {
    "postgresql": "INSERT INTO {view} ({names}) SELECT {names}"
    " FROM json_to_recordset(CAST(:jobs AS json)) AS given ({types})",
    "sqlite": "INSERT INTO {view} ({names}) SELECT {values} FROM json_each(:jobs)",
}
# The columns that this role may fill: a database that was not upgraded yet has none of them.
_LOOK = (
    "SELECT count(*) FROM pg_attribute WHERE attrelid = to_regclass(CAST(:view AS text)) AND NOT attisdropped"
    " AND attname IN ('tenant', 'batch', 'custom_id', 'idempotency_key')"
    " AND has_column_privilege(attrelid, attnum, 'INSERT')"
)
# Of SQLite, for the same.
_NO_COLUMN = "has no column named"
_PLAIN = ("id", "job")
_ROWS = 1000
_CHARACTERS = 4_000_000

_identifier = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")


class Inbox:
    """Inserts jobs through callers' connections, with HINTS where the database takes them."""

    def __init__(self) -> None:
        # Asked once: a column does not go away.
        self._takes_hints = False

    def insert(self, target: object, jobs: Sequence[Mapping[str, str]], *, schema: str | None) -> None:
        """Insert jobs in their order: `{"id": …, "job": its message, "tenant": …}`, with any of HINTS."""
        connection, view = connected(target), qualified("submit_v1", schema)
        for chunk in _chunks(jobs):
            values = {"jobs": json.dumps(chunk)}
            if connection.vendor == "postgresql":
                # Not tried: an error would end the caller's transaction.
                connection.run(_statement("postgresql", view, hinted=self._are_taken(connection, view)), values)
            else:
                _run_sqlite(connection, view, values)

    def _are_taken(self, connection: Connected, view: str) -> bool:
        if not self._takes_hints:
            self._takes_hints = connection.run(_LOOK, {"view": view}) == [(len(HINTS),)]
        return self._takes_hints


def _run_sqlite(connection: Connected, view: str, values: Mapping[str, str]) -> None:
    """Try it: a look would begin a transaction that reads, and such a one cannot wait for its turn to write."""
    try:
        connection.run(_statement("sqlite", view, hinted=True), values)
    except Exception as error:
        if _NO_COLUMN not in str(error):
            raise
        connection.run(_statement("sqlite", view, hinted=False), values)


def _statement(vendor: str, view: str, *, hinted: bool) -> str:
    names = (*_PLAIN, *HINTS) if hinted else _PLAIN
    return _INSERT[vendor].format(
        view=view,
        names=", ".join(names),
        types=", ".join(f"{name} {'uuid' if name == 'id' else 'text'}" for name in names),
        values=", ".join(f"json_extract(value, '$.{name}')" for name in names),
    )


def _chunks(jobs: Sequence[Mapping[str, str]]) -> Iterator[list[Mapping[str, str]]]:
    """Cut what is to be inserted into statements of a bounded size."""
    chunk: list[Mapping[str, str]] = []
    size = 0
    for job in jobs:
        if chunk and (len(chunk) == _ROWS or size + len(job["job"]) > _CHARACTERS):
            yield chunk
            chunk, size = [], 0
        chunk.append(job)
        size += len(job["job"])
    if chunk:
        yield chunk


def qualified(view: str, schema: str | None) -> str:
    """Return a view's name with its schema."""
    if schema is None:
        return view
    if not _identifier.fullmatch(schema):
        raise ValueError(f"the schema is {schema!r}; give a plain SQL name of letters, digits and underscores")
    return f'"{schema}".{view}'
