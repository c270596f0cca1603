"""Tables, fields and JSON for the terminal."""

import json
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from worker.core.printable import printable, printable_json

if TYPE_CHECKING:
    from sqlalchemy import Row

WIDEST = 60
_JSON = frozenset({"response_headers", "statuses"})


def rows(columns: Sequence[str], lines: Sequence[Mapping[str, Any]]) -> str:
    """Return an aligned table. None is an empty cell; a text longer than 60 characters ends in an ellipsis."""
    cells = [[_cell(line.get(column)) for column in columns] for line in lines]
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    numbers = [all(isinstance(line.get(column), int | None) for line in lines) for column in columns]
    shown = [columns, ["-" * width for width in widths], *cells]
    return "\n".join(_line(line, widths, numbers) for line in shown)


def _line(cells: Sequence[str], widths: Sequence[int], numbers: Sequence[bool]) -> str:
    padded = [
        cell.rjust(width) if number else cell.ljust(width)
        for cell, width, number in zip(cells, widths, numbers, strict=True)
    ]
    return "  ".join(padded).rstrip()


def _cell(value: Any) -> str:
    text = "" if value is None else json.dumps(value) if isinstance(value, dict | list) else plain(value)
    text = " ".join(text.split())
    return text if len(text) <= WIDEST else f"{text[: WIDEST - 1]}…"


def fields(values: Mapping[str, Any]) -> str:
    """Return one line for each value that is not None, with aligned names."""
    known = {name: value for name, value in values.items() if value is not None}
    width = max(map(len, known), default=0)
    return "\n".join(f"{name.ljust(width)}  {_whole(value)}" for name, value in known.items())


def _whole(value: Any) -> str:
    return json.dumps(value, default=plain, ensure_ascii=False) if isinstance(value, dict | list) else plain(value)


def echo(text: str, *, err: bool = False, nl: bool = True) -> None:
    """Print text; control characters from a row, an answer or a message become visible escapes."""
    click.echo(printable(text), err=err, nl=nl)


def as_json(value: Any) -> None:
    """Print a value as JSON for a script, without control characters."""
    click.echo(printable_json(json.dumps(value, default=plain, ensure_ascii=False)))


def plain(value: Any) -> str:
    """Return a value as text; instants as the views write them, in UTC for every time zone of the session."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    return bytes(value).decode("utf-8", "replace") if isinstance(value, bytes | memoryview) else str(value)


def json_value(value: Any) -> Any:
    """Return a value as JSON has it: instants as the views write them, bytes as text, others unchanged."""
    return plain(value) if isinstance(value, datetime | bytes | memoryview) else value


def json_row(row: "Row[Any]", *, but: Collection[str] = ()) -> dict[str, Any]:
    """Return a row by column as JSON has it, without the columns `but`."""
    return {
        name: json.loads(value) if name in _JSON and value is not None else json_value(value)
        for name, value in row._mapping.items()
        if name not in but
    }
