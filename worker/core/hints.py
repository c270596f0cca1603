"""Reads what an endpoint's headers say about when to come back; `core.refusal` and the attempt's record use it."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

# Go's time.Duration, as OpenAI-compatible endpoints write it: "6m0s", "20ms", "8.64s".
_PART: Final = re.compile(r"(\d+(?:\.\d+)?)(h|ms|m|s|us|µs|ns)", re.ASCII)
_DURATION: Final = re.compile(rf"(?:{_PART.pattern})+", re.ASCII)
_NUMBER: Final = re.compile(r"\d+(?:\.\d+)?", re.ASCII)
_SECONDS: Final = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}


@dataclass(frozen=True, slots=True)
class RateLimit:
    """One `x-ratelimit-*` bucket, such as `requests` or `tokens`. None: not said, or a placeholder."""

    bucket: str
    limit: int | None
    remaining: int | None
    reset_s: float | None


def retry_after_s(headers: Mapping[str, str], *, now: datetime) -> float | None:
    """Return the wait in seconds that `retry-after-ms` or `retry-after` asks for; names are lower-case.

    Milliseconds win over seconds; a date in the past is 0; what cannot be read is None (RFC 9110, section 10.2.3).
    A date counts from the response's own `date`, which the same clock wrote; from `now` where it has none.
    """
    wait = _number(headers.get("retry-after-ms"))
    if wait is not None:
        return wait / 1000
    text = headers.get("retry-after")
    if text is None:
        return None
    wait = _number(text)
    if wait is not None:
        return wait
    then = _date(text)
    since = _date(headers.get("date", "")) or now
    return None if then is None else max(0.0, (then - since).total_seconds())


def rate_limits(headers: Mapping[str, str]) -> tuple[RateLimit, ...]:
    """Return every bucket of the `x-ratelimit-{limit,remaining,reset}-<bucket>` headers, sorted by name."""
    prefix = "x-ratelimit-"
    named = [name.removeprefix(prefix).partition("-") for name in headers if name.startswith(prefix)]
    buckets = {bucket for word, _, bucket in named if word in ("limit", "remaining", "reset") and bucket}
    return tuple(
        RateLimit(
            bucket,
            _count(headers.get(f"{prefix}limit-{bucket}")),
            _count(headers.get(f"{prefix}remaining-{bucket}")),
            duration_s(headers.get(f"{prefix}reset-{bucket}")),
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


def _number(text: str | None) -> float | None:
    """Read a plain number ≥ 0; "NaN", "inf", "-1" and digits beyond a float are None."""
    if text is None or not _NUMBER.fullmatch(text.strip()):
        return None
    number = float(text)
    return number if math.isfinite(number) else None


def _count(text: str | None) -> int | None:
    number = _number(text)
    return None if number is None else int(number)


def _date(text: str) -> datetime | None:
    try:
        then = parsedate_to_datetime(text)
    except (ValueError, OverflowError):  # overflow: a year or a zone of twenty digits
        return None
    # An HTTP date is in GMT; parsedate_to_datetime leaves "-0000" without a zone.
    return then if then.tzinfo else then.replace(tzinfo=UTC)
