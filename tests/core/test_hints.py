"""Retry-After and x-ratelimit headers are read in every form seen; what cannot be read is ignored."""

from datetime import UTC, datetime

import pytest

from worker.core.hints import RateLimit, duration_s, rate_limits, retry_after_s

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ({}, None),
        ({"retry-after": "120"}, 120.0),
        ({"retry-after": " 0.5 "}, 0.5),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after-ms": "soon", "retry-after": "9"}, 9.0),
        ({"retry-after": "Mon, 23 Nov 2026 12:01:30 GMT"}, 90.0),
        ({"retry-after": "Mon, 23 Nov 2026 13:01:30 +0100"}, 90.0),
        ({"retry-after": "Mon, 23 Nov 2026 12:01:30 -0000"}, 90.0),
        ({"retry-after": "Mon, 23 Nov 2026 11:00:00 GMT"}, 0.0),
        # Our clock is ten minutes behind theirs, or ahead of it.
        ({"retry-after": "Mon, 23 Nov 2026 12:11:30 GMT", "date": "Mon, 23 Nov 2026 12:10:00 GMT"}, 90.0),
        ({"retry-after": "Mon, 23 Nov 2026 11:51:30 GMT", "date": "Mon, 23 Nov 2026 11:50:00 GMT"}, 90.0),
        ({"retry-after": "Mon, 23 Nov 2026 12:01:30 GMT", "date": "today"}, 90.0),
        ({"retry-after": "120", "date": "Mon, 23 Nov 2026 11:50:00 GMT"}, 120.0),
        ({"retry-after": "Monday, 23-Nov-26 12:00:10 GMT"}, 10.0),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "1e3"}, None),
        ({"retry-after": "9" * 400}, None),
        ({"retry-after": "tomorrow"}, None),
        ({"retry-after": "Mon, 99 Nov 2026 12:00:00 GMT"}, None),
        ({"retry-after": "Mon, 23 Nov 99999 12:00:00 GMT"}, None),
        ({"retry-after": "Mon, 23 Nov 99999999999999999999 12:00:00 GMT"}, None),
        ({"retry-after": "Mon, 23 Nov 2026 12:00:00 +99999999999999999999"}, None),
        ({"retry-after": "٣"}, None),
        ({"retry-after": ""}, None),
    ],
)
def test_retry_after_in_every_form(headers: dict[str, str], wait_s: float | None) -> None:
    assert retry_after_s(headers, now=NOW) == wait_s


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1s", 1.0),
        ("6m0s", 360.0),
        ("20ms", 0.02),
        ("8.64s", 8.64),
        ("1h0m0s", 3600.0),
        ("12", 12.0),
        ("0", 0.0),
        ("5µs", 5e-6),
        ("7us", 7e-6),
        ("100ns", 1e-7),
        (None, None),
        ("-1", None),
        ("1d", None),
        ("s", None),
        ("1s later", None),
        ("", None),
    ],
)
def test_a_reset_is_a_go_duration_or_seconds(text: str | None, seconds: float | None) -> None:
    assert duration_s(text) == (None if seconds is None else pytest.approx(seconds))


def test_every_bucket_is_read_and_placeholders_are_none() -> None:
    headers = {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": "1s",
        "x-ratelimit-remaining-tokens": "-1",
        "x-ratelimit-reset-tokens_usage_based": "6m0s",
        "x-ratelimit-strange": "1",
        "content-type": "text/plain",
    }
    assert rate_limits(headers) == (
        RateLimit("requests", 60, 0, 1.0),
        RateLimit("tokens", None, None, None),
        RateLimit("tokens_usage_based", None, None, 360.0),
    )
