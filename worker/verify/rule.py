"""The parts of a rule: the check function, its offenders, and the table whose rows it checks."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select

# The id of a row, and the fault in words: ("6f1c…", "status is queued").
Offender = tuple[str, str]
# Checks the rows that match a condition, a range of the table's key.
Check = Callable[[Connection, ColumnElement[bool]], Iterable[Offender]]


@dataclass(frozen=True, slots=True)
class TableRules:
    """A table, read in the order of its key, and the rules for its rows."""

    key: ColumnElement[Any]
    checks: tuple[Check, ...]


def found(connection: Connection, statement: Select[Any]) -> Iterable[Offender]:
    """Yield an offender for each row: the first column is the id, the others are shown as `name is value`."""
    for row in connection.execute(statement):
        (_, key), *columns = row._mapping.items()
        yield str(key), ", ".join(f"{name} is {value}" for name, value in columns)
