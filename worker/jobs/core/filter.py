"""Parses an operator's job filter: `status=failed endpoint=eu created_after=2026-11-23T00:00:00Z`. It takes no SQL."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from difflib import get_close_matches
from typing import Literal

from worker.core.duration import has_unit, seconds
from worker.core.lifecycle import Status
from worker.jobs.core import message_fields

TEXTS = ("tenant", "batch", "custom_id", "endpoint", "model", "error_code")
INSTANTS = ("created", "finished", "deadline")
NAMES = ("status", *TEXTS, "priority", *(f"{name}_{side}" for name in INSTANTS for side in ("before", "after")))
EXAMPLE = "status=failed created_after=2026-11-23T00:00:00Z"


class BadFilter(ValueError):
    """The text is not a filter; the message names the wrong part and the remedy."""


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition on one column of a job. `is`: equal to any of `values`; `before`, `after`: compared with the only
    value."""

    column: str
    compare: Literal["is", "before", "after"]
    values: tuple[str | int | datetime, ...]


def parse(texts: Sequence[str], *, now: datetime | None = None) -> tuple[Condition, ...]:
    """Parse `name=value` pairs, separated by spaces; quote values that contain spaces, as in a shell.

    A repeated name matches any of its values; different names must all match. Raises BadFilter, also for an empty
    filter, because it would match all jobs. With `now` a time may be a duration: `created_before=6h` is six hours ago,
    `deadline_before=6h` six hours ahead.
    """
    values_of: dict[str, list[str | int | datetime]] = {}
    for pair in (pair for text in texts for pair in _pairs(text)):
        name, sign, value = pair.partition("=")
        if not sign or not value:
            raise BadFilter(f"{pair!r} is not a name=value pair; write {EXAMPLE}")
        if name not in NAMES:
            near = get_close_matches(name, NAMES, n=1)
            raise BadFilter(
                f"{name!r} is not a filter name; did you mean {near[0]}?"
                if near
                else f"{name!r} is not a filter name; the names are {', '.join(NAMES)}"
            )
        values_of.setdefault(name, []).append(_value(name, value, now))
    if not values_of:
        raise BadFilter(f"the filter is empty; write {EXAMPLE}")
    return tuple(_condition(name, values) for name, values in values_of.items())


def instant(name: str, text: str) -> datetime:
    """Read a time with an offset (RFC 3339), moved into the range that a row can hold. Raises BadFilter."""
    try:
        return message_fields.within_reach(message_fields.instant(text))
    except ValueError as error:
        raise BadFilter(f"{name} is {text!r}; write a time with its offset, such as 2026-11-23T03:00:00Z") from error


def _pairs(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise BadFilter(f"{text!r} has a quote that does not end; close it") from error


def _value(name: str, text: str, now: datetime | None) -> str | int | datetime:
    if name in TEXTS:
        return text
    if name == "priority":
        if text not in tuple("0123456789"):
            raise BadFilter(f"priority is {text!r}; give a digit from 0 (runs first) to 9")
        return int(text)
    if name == "status":
        if text not in tuple(Status):
            raise BadFilter(f"status is {text!r}; give one of {', '.join(Status)}")
        return text
    if now is not None and has_unit(text):
        return _distant(name, text, now)
    return instant(name, text)


def _distant(name: str, text: str, now: datetime) -> datetime:
    try:
        distance = timedelta(seconds=seconds(text))
        return message_fields.within_reach(now + distance if name.startswith("deadline") else now - distance)
    except OverflowError as error:
        raise BadFilter(f"{name} is {text!r}, too long; write a duration such as 6h or 2d") from error


def _condition(name: str, values: list[str | int | datetime]) -> Condition:
    column, _, side = name.rpartition("_")
    if column not in INSTANTS:
        return Condition(name, "is", tuple(values))
    if len(values) > 1:
        raise BadFilter(f"{name} is given twice; give it once")
    return Condition(
        column if column == "deadline" else f"{column}_at", "before" if side == "before" else "after", (values[0],)
    )
