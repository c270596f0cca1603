"""What the rules of `verify.verify` are made of: a check, and the walk over a table that asks it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select

Offender = tuple[str, str]
Check = Callable[[Connection, ColumnElement[bool]], Iterable[Offender]]


@dataclass(frozen=True, slots=True)
class TableRules:
    """A table, walked by its key, and the rules its rows are asked about."""

    key: ColumnElement[Any]
    checks: tuple[Check, ...]


def found(connection: Connection, statement: Select[Any]) -> Iterable[Offender]:
    """Yield the first column as the id, the others by name as what is wrong."""
    for row in connection.execute(statement):
        (_, key), *told = row._mapping.items()
        yield str(key), ", ".join(f"{name} is {value}" for name, value in told)
