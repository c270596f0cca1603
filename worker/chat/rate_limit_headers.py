"""Reads when an endpoint says to come back, in headers, bodies and sentences. Used by `chat.error_response`."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

LONGEST_WAIT_S: Final = 31 * 86_400.0
"""No quota renews later than this: a longer wait is a mistake, such as seconds since 1970, and is not believed."""

# Go's time.Duration, as OpenAI-compatible endpoints write it: "6m0s", "20ms", "8.64s".
_PART: Final = re.compile(r"(\d+(?:\.\d+)?)(h|ms|m|s|us|µs|ns)", re.ASCII)
_DURATION: Final = re.compile(rf"(?:{_PART.pattern})+", re.ASCII)
_NUMBER: Final = re.compile(r"\d+(?:\.\d+)?", re.ASCII)
_SECONDS: Final = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
# A number from here on counts seconds since 1970 (2001 and later), from a thousand times as much on milliseconds.
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
    """One `x-ratelimit-*` bucket, such as `requests`, or "" for none. A value of None: not said, or a placeholder."""

    bucket: str
    limit: int | None
    remaining: int | None
    reset_s: float | None


def retry_after_s(headers: Mapping[str, str], *, now: datetime) -> float | None:
    """Return the wait in seconds that `retry-after-ms` or `retry-after` asks for; names are lower-case.

    Milliseconds win over seconds; a date in the past is 0; what cannot be read or believed is None (RFC 9110, section
    10.2.3). A date counts from the response's own `date`, which the same clock wrote; from `now` where it has none.
    """
    wait = _number(headers.get("retry-after-ms"))
    if wait is not None:
        return _believed(wait / 1000)
    text = headers.get("retry-after")
    return None if text is None else _wait_until(text, _date(headers.get("date", "")) or now)


def rate_limits(headers: Mapping[str, str], *, now: datetime) -> tuple[RateLimit, ...]:
    """Return every bucket of the `x-ratelimit-{limit,remaining,reset}-<bucket>` headers, sorted by name.

    A reset is a Go duration, seconds, or an instant: seconds or milliseconds since 1970, RFC 3339.
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
    """Read a Go duration (`1h0m0s`, `8.64s`, `20ms`) or plain seconds; anything else is None."""
    if text is None:
        return None
    text = text.strip()
    if _DURATION.fullmatch(text):
        return sum(float(number) * _SECONDS[unit] for number, unit in _PART.findall(text))
    return _number(text)


def member_s(name: str, value: object) -> float | None:
    """Read the wait in a member of an error: `("retryDelay", "2.5s")`, `("retry_after_ms", 300)`, `{"seconds": 2}`."""
    squashed = name.lower().replace("_", "").replace("-", "")
    if not squashed.startswith(("retryafter", "retrydelay", "retryin")):
        return None
    if isinstance(value, dict):  # google.protobuf.Duration as an object
        seconds, nanos = value.get("seconds", 0), value.get("nanos", 0)
        wait = duration_s(str(seconds))
        return None if wait is None else _believed(wait + (nanos / 1e9 if isinstance(nanos, int) else 0.0))
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    wait = duration_s(_digits(value))
    return None if wait is None else _believed(wait / 1000 if squashed.endswith(("ms", "milliseconds")) else wait)


def words_s(text: str) -> float | None:
    """Read the wait in a sentence, in lower case: `please try again in 20s`, `retry after 2 minutes`, `in 1m2.5s`."""
    found = _IN_WORDS.search(text) or _WAIT_N_SECONDS.search(text)
    if found is None:
        return None
    if found.re is _WAIT_N_SECONDS:
        return _believed(float(found[1]))
    return _believed(sum(float(number) * _unit_s(unit) for number, unit in _WORD_PART.findall(found[1])))


def _unit_s(unit: str) -> float:
    if unit.startswith(("ms", "milli")):
        return 1e-3
    return {"h": 3600.0, "m": 60.0, "s": 1.0}[unit[0]]


def _wait_until(text: str, since: datetime) -> float | None:
    """Read seconds, or an instant that is counted from `since`; one in the past is no wait."""
    wait = _number(text)
    if wait is not None and wait < _EPOCH_S:
        return _believed(wait)
    if wait is not None:
        return _believed(max(0.0, wait / (1000 if wait >= _EPOCH_MS else 1) - since.timestamp()))
    then = _date(text)
    return None if then is None else _believed(max(0.0, (then - since).total_seconds()))


def _reset_s(text: str | None, since: datetime) -> float | None:
    if text is None:
        return None
    wait = duration_s(text)
    return _wait_until(text, since) if wait is None or wait >= _EPOCH_S else _believed(wait)


def _believed(wait_s: float) -> float | None:
    return wait_s if wait_s <= LONGEST_WAIT_S else None


def _number(text: str | None) -> float | None:
    """Read a plain number ≥ 0; "NaN", "inf", "-1" and digits beyond a float are None."""
    if text is None or not _NUMBER.fullmatch(text.strip()):
        return None
    number = float(text)
    return number if math.isfinite(number) else None


def _digits(value: float | str) -> str:
    """Write a number without an exponent; an integer of thousands of digits is no wait."""
    if isinstance(value, str):
        return value
    return f"{value:.9f}" if abs(value) < _EPOCH_MS else ""


def _count(text: str | None) -> int | None:
    number = _number(text)
    return None if number is None else int(number)


def _date(text: str) -> datetime | None:
    try:
        then = datetime.fromisoformat(text) if text[4:5] == "-" else parsedate_to_datetime(text)
    except (ValueError, OverflowError):  # overflow: a year or a zone of twenty digits
        return None
    # An HTTP date is in GMT; parsedate_to_datetime leaves "-0000" without a zone.
    return then if then.tzinfo else then.replace(tzinfo=UTC)
