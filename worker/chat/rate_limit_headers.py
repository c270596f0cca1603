"""Reads the wait that an endpoint asks for, from headers, members of a body and sentences. All waits are in seconds."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

LONGEST_WAIT_S: Final = 31 * 86_400.0
"""Every quota renews within this time. A longer wait is a mistake, such as seconds since 1970, and is ignored."""

# Go's time.Duration in the form of OpenAI-compatible endpoints: "6m0s", "20ms", "8.64s".
_PART: Final = re.compile(r"(\d+(?:\.\d+)?)(h|ms|m|s|us|µs|ns)", re.ASCII)
_DURATION: Final = re.compile(rf"(?:{_PART.pattern})+", re.ASCII)
_NUMBER: Final = re.compile(r"\d+(?:\.\d+)?", re.ASCII)
_SECONDS: Final = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
# A number from 1e9 (the year 2001) counts seconds since 1970; from 1e12 it counts milliseconds.
_EPOCH_S: Final = 1e9
_EPOCH_MS: Final = 1e12

_IN_WORDS: Final = re.compile(
    r"\b(?:retry|retrying|try again|wait|available|resets?|come back)\b[^.\d]{0,40}?"
    r"\b(?:in|after|for|wait)\s+(?:about\s+)?"
    r"((?:\d+(?:\.\d+)?\s*(?:h|ms|m|s|hours?|hrs?|minutes?|mins?|seconds?|secs?|milliseconds?)(?![a-z])[\s,]*)+)",
    re.ASCII,
)
_WAIT_N_SECONDS: Final = re.compile(r"\bwait\s+(?:about\s+)?(\d+(?:\.\d+)?)\s*(?:s|secs?|seconds?)\b", re.ASCII)
_WORD_PART: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]+)", re.ASCII)


@dataclass(frozen=True, slots=True)
class RateLimit:
    """One `x-ratelimit-*` bucket, such as `requests`, or "" without a name. None: the value is absent or invalid."""

    bucket: str
    limit: int | None
    remaining: int | None
    reset_s: float | None


def retry_after_s(headers: Mapping[str, str], *, now: datetime) -> float | None:
    """Return the wait in `retry-after-ms`, else in `retry-after` (RFC 9110, section 10.2.3); names are lower-case.

    A date in the past gives 0; an invalid or too long wait gives None. A date counts from the response's own `date`
    header, because the same clock wrote both, or from `now` without that header.
    """
    wait = _number(headers.get("retry-after-ms"))
    if wait is not None:
        return _plausible(wait / 1000)
    text = headers.get("retry-after")
    return None if text is None else _wait_until(text, _date(headers.get("date", "")) or now)


def rate_limits(headers: Mapping[str, str], *, now: datetime) -> tuple[RateLimit, ...]:
    """Return the buckets of the `x-ratelimit-{limit,remaining,reset}-<bucket>` headers, sorted by name.

    A reset can be a Go duration, seconds, or an instant (seconds or milliseconds since 1970, RFC 3339).
    """
    prefix = "x-ratelimit-"
    since = _date(headers.get("date", "")) or now
    named = [name.removeprefix(prefix).partition("-") for name in headers if name.startswith(prefix)]
    buckets = {bucket for word, _, bucket in named if word in ("limit", "remaining", "reset")}
    return tuple(
        RateLimit(
            bucket,
            _count(headers.get(f"{prefix}limit-{bucket}".rstrip("-"))),
            _count(headers.get(f"{prefix}remaining-{bucket}".rstrip("-"))),
            _reset_s(headers.get(f"{prefix}reset-{bucket}".rstrip("-")), since),
        )
        for bucket in sorted(buckets)
    )


def duration_s(text: str | None) -> float | None:
    """Read a Go duration (`1h0m0s`, `8.64s`, `20ms`) or plain seconds; anything else gives None."""
    if text is None:
        return None
    text = text.strip()
    if _DURATION.fullmatch(text):
        return sum(float(number) * _SECONDS[unit] for number, unit in _PART.findall(text))
    return _number(text)


def member_s(name: str, value: object) -> float | None:
    """Read the wait in a member of an error: `("retryDelay", "2.5s")`, `("retry_after_ms", 300)`. None: not a wait."""
    squashed = name.lower().replace("_", "").replace("-", "")
    if not squashed.startswith(("retryafter", "retrydelay", "retryin")):
        return None
    if isinstance(value, dict):  # google.protobuf.Duration as an object: {"seconds": 2, "nanos": 0}
        seconds, nanos = value.get("seconds", 0), value.get("nanos", 0)
        wait = duration_s(str(seconds))
        return None if wait is None else _plausible(wait + (nanos / 1e9 if isinstance(nanos, int) else 0.0))
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    wait = duration_s(_digits(value))
    return None if wait is None else _plausible(wait / 1000 if squashed.endswith(("ms", "milliseconds")) else wait)


def words_s(text: str) -> float | None:
    """Read the wait in a lower-case sentence: `try again in 20s`, `retry after 2 minutes`, `resets in 1m2.5s`."""
    found = _IN_WORDS.search(text) or _WAIT_N_SECONDS.search(text)
    if found is None:
        return None
    if found.re is _WAIT_N_SECONDS:
        return _plausible(float(found[1]))
    return _plausible(sum(float(number) * _unit_s(unit) for number, unit in _WORD_PART.findall(found[1])))


def _unit_s(unit: str) -> float:
    if unit.startswith(("ms", "milli")):
        return 1e-3
    return {"h": 3600.0, "m": 60.0, "s": 1.0}[unit[0]]


def _wait_until(text: str, since: datetime) -> float | None:
    """Read seconds, or an instant that counts from `since`; an instant in the past gives 0."""
    wait = _number(text)
    if wait is not None and wait < _EPOCH_S:
        return _plausible(wait)
    if wait is not None:
        return _plausible(max(0.0, wait / (1000 if wait >= _EPOCH_MS else 1) - since.timestamp()))
    then = _date(text)
    return None if then is None else _plausible(max(0.0, (then - since).total_seconds()))


def _reset_s(text: str | None, since: datetime) -> float | None:
    if text is None:
        return None
    wait = duration_s(text)
    return _wait_until(text, since) if wait is None or wait >= _EPOCH_S else _plausible(wait)


def _plausible(wait_s: float) -> float | None:
    return wait_s if wait_s <= LONGEST_WAIT_S else None


def _number(text: str | None) -> float | None:
    """Read a plain number ≥ 0; "NaN", "inf", "-1" and numbers too large for a float give None."""
    if text is None or not _NUMBER.fullmatch(text.strip()):
        return None
    number = float(text)
    return number if math.isfinite(number) else None


def _digits(value: float | str) -> str:
    """Write a number without an exponent; "" for a number of 1e12 or more, because it is not a wait."""
    if isinstance(value, str):
        return value
    return f"{value:.9f}" if abs(value) < _EPOCH_MS else ""


def _count(text: str | None) -> int | None:
    number = _number(text)
    return None if number is None else int(number)


def _date(text: str) -> datetime | None:
    try:
        then = datetime.fromisoformat(text) if text[4:5] == "-" else parsedate_to_datetime(text)
    except (ValueError, OverflowError):  # OverflowError: a year or time zone of twenty digits
        return None
    # HTTP dates are in GMT; parsedate_to_datetime returns "-0000" without a time zone.
    return then if then.tzinfo else then.replace(tzinfo=UTC)
