"""The door by SQL: rows of submit_v1 in the caller's transaction. Nothing is committed here, and Redis is not asked."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence

from afterword.dbapi import connected

# One text parameter holds all jobs of a statement: three times as fast as a row a parameter on PostgreSQL, and the
# same for every driver.
_INSERT = {
    "postgresql": "INSERT INTO {view} (id, job) SELECT CAST(pair->>0 AS uuid), pair->>1"
    " FROM json_array_elements(CAST(:pairs AS json)) AS pairs (pair)",
    "sqlite": "INSERT INTO {view} (id, job) SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]')"
    " FROM json_each(:pairs)",
}
_ROWS = 1000
_CHARACTERS = 4_000_000

_identifier = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")


def insert(target: object, jobs: Sequence[tuple[str, str]], *, schema: str | None) -> None:
    """Insert (id, message) pairs through the caller's connection, in their order."""
    connection = connected(target)
    statement = _INSERT[connection.vendor].format(view=qualified("submit_v1", schema))
    for chunk in _chunks(jobs):
        connection.run(statement, {"pairs": json.dumps(chunk)})


def _chunks(jobs: Sequence[tuple[str, str]]) -> Iterator[list[tuple[str, str]]]:
    """Cut what is to be inserted into statements of a bounded size."""
    chunk: list[tuple[str, str]] = []
    size = 0
    for job in jobs:
        if chunk and (len(chunk) == _ROWS or size + len(job[1]) > _CHARACTERS):
            yield chunk
            chunk, size = [], 0
        chunk.append(job)
        size += len(job[1])
    if chunk:
        yield chunk


def qualified(view: str, schema: str | None) -> str:
    """Return a view's name with its schema."""
    if schema is None:
        return view
    if not _identifier.fullmatch(schema):
        raise ValueError(f"the schema is {schema!r}; give a plain SQL name of letters, digits and underscores")
    return f'"{schema}".{view}'
