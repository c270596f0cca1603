"""Durations and instants as values of options: `--timeout 5m`, `--since 6h`, `--deadline 2026-11-24T03:00:00Z`."""

import math
from datetime import UTC, datetime, timedelta
from typing import Any

import click

from worker.core.duration import has_unit, seconds

# `--since 99999d` means everything. Beyond this limit the subtraction from an instant leaves the years 1 to 9999.
LONGEST_S = 2000 * 365 * 86400.0


class Duration(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.4 on; 8.1 is allowed
    """Seconds as a float, from `90`, `90s`, `30m`, `6h` or `2d`."""

    name = "duration"

    def __init__(self, low: float = -math.inf, high: float = math.inf) -> None:
        self.low, self.high = low, high

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the seconds; UsageError gives the value and the remedy."""
        try:
            number = value if isinstance(value, float) else seconds(str(value))
        except ValueError as error:
            raise click.UsageError(f"{_option(param)} is {value!r}; {error}", ctx) from error
        if not self.low <= number <= self.high:
            bounds = f"at least {self.low:g}" + (f" and at most {self.high:g}" if self.high < math.inf else "")
            raise click.UsageError(f"{_option(param)} is {value!r}; it must be {bounds} seconds", ctx)
        return number


class InstantOption(click.ParamType):  # type: ignore[type-arg]  # see Duration
    """An aware datetime, or its distance from now: `6h` is a negative timedelta in the past, a positive one ahead.

    `at` makes a datetime of either. `bare`: a number without a unit is in seconds. `blank`: an empty text counts as not
    given, as in `--until "$END"`.
    """

    name = "time"

    def __init__(self, *, ahead: bool = False, bare: bool = False, blank: bool = False) -> None:
        self.ahead, self.bare, self.blank = ahead, bare, blank

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime | timedelta | None:
        """Return the instant; UsageError gives the value and the remedy."""
        if self.blank and value == "":
            return None
        try:
            return value if isinstance(value, datetime | timedelta) else self._read(value)
        except (ValueError, OverflowError) as error:
            example = "how far ahead it is, such as 6h" if self.ahead else "how long ago it was, such as 6h"
            message = f"{_option(param)} is {value!r}; write a time such as 2026-11-24T03:00:00Z, or {example}"
            raise click.UsageError(message, ctx) from error

    def _read(self, text: str) -> datetime | timedelta:
        from worker.jobs.core.message_fields import within_reach

        if has_unit(text) or (self.bare and text.isascii() and text.isdigit()):
            if (distance_s := seconds(text)) > LONGEST_S:
                raise ValueError(text)
            return timedelta(seconds=distance_s if self.ahead else -distance_s)
        found = datetime.fromisoformat(text.upper())
        if found.tzinfo is None:
            raise ValueError(text)
        return within_reach(found.astimezone(UTC))


def at(value: datetime | timedelta, now: datetime) -> datetime:
    """Return the instant that an option means."""
    return now + value if isinstance(value, timedelta) else value


def _option(param: click.Parameter | None) -> str:
    return param.opts[0] if param is not None else "the value"
