"""Inserts jobs into submit_v1 in the caller's transaction. Does not commit and does not use Redis."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence

from afterword.dbapi import Connected, connected
from afterword.message import HINTS

# One text parameter holds all jobs of a statement. On PostgreSQL that is three times as fast as one parameter per row,
# and it is the same for every driver.
_INSERT = {
    "postgresql": "INSERT INTO {view} ({names}) SELECT {names}"
    " FROM json_to_recordset(CAST(:jobs AS json)) AS given ({types})",
    "sqlite": "INSERT INTO {view} ({names}) SELECT {values} FROM json_each(:jobs)",
}
# Counts the HINTS columns that this role may fill. A database that is not upgraded yet has none of them.
_LOOK = (
    "SELECT count(*) FROM pg_attribute WHERE attrelid = to_regclass(CAST(:view AS text)) AND NOT attisdropped"
    " AND attname IN ('tenant', 'batch', 'custom_id', 'idempotency_key')"
    " AND has_column_privilege(attrelid, attnum, 'INSERT')"
)
# SQLite's error in the same case.
_NO_COLUMN = "has no column named"
_PLAIN = ("id", "job")
_ROWS = 1000
_CHARACTERS = 4_000_000

_identifier = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")


class Inbox:
    """Inserts jobs through callers' connections. Fills the HINTS columns if the database has them."""

    def __init__(self) -> None:
        # Once True it stays True: no release removes a column.
        self._takes_hints = False

    def insert(self, target: object, jobs: Sequence[Mapping[str, str]], *, schema: str | None) -> None:
        """Insert jobs in order. A job is `{"id": …, "job": the message text, "tenant": …}`, with any of HINTS."""
        connection, view = connected(target), qualified("submit_v1", schema)
        for chunk in _chunks(jobs):
            values = {"jobs": json.dumps(chunk)}
            if connection.vendor == "postgresql":
                # Ask first: a failed INSERT would abort the caller's transaction.
                connection.run(_statement("postgresql", view, hinted=self._are_taken(connection, view)), values)
            else:
                _run_sqlite(connection, view, values)

    def _are_taken(self, connection: Connected, view: str) -> bool:
        if not self._takes_hints:
            self._takes_hints = connection.run(_LOOK, {"view": view}) == [(len(HINTS),)]
        return self._takes_hints


def _run_sqlite(connection: Connected, view: str, values: Mapping[str, str]) -> None:
    """Try with HINTS, then without.

    Do not ask first: a SELECT would start a read transaction, and SQLite does not let such a transaction wait to write.
    """
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
    """Cut the jobs into statements of a bounded size."""
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
    """Return the view's name, with its schema if there is one. Raises ValueError if the schema is no plain SQL name."""
    if schema is None:
        return view
    if not _identifier.fullmatch(schema):
        raise ValueError(f"the schema is {schema!r}; give a plain SQL name of letters, digits and underscores")
    return f'"{schema}".{view}'
