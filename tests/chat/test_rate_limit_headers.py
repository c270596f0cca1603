"""Retry-After and x-ratelimit headers are read in every known form; unreadable values are ignored."""

from datetime import UTC, datetime

import pytest

from worker.chat.rate_limit_headers import RateLimit, duration_s, member_s, rate_limits, retry_after_s, words_s

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
        # Our clock is ten minutes behind theirs, or ahead of theirs.
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
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after": "2026-11-23T12:00:20Z"}, 20.0),
        # Seconds and milliseconds since 1970.
        ({"retry-after": "1795435230"}, 30.0),
        ({"retry-after": "1795435230000"}, 30.0),
        ({"retry-after": "1737891780"}, 0.0),
        # 55 years and 32 days are ignored as absurd.
        ({"retry-after": "999999999"}, None),
        ({"retry-after": str(32 * 86400)}, None),
        ({"retry-after": str(31 * 86400)}, 31 * 86400.0),
        ({"retry-after-ms": "1e12"}, None),
        ({"retry-after": "Mon, 23 Nov 2076 12:00:00 GMT"}, None),
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
    assert rate_limits(headers, now=NOW) == (
        RateLimit("requests", 60, 0, 1.0),
        RateLimit("tokens", None, None, None),
        RateLimit("tokens_usage_based", None, None, 360.0),
    )


@pytest.mark.parametrize(
    ("reset", "wait_s"),
    [
        ("1737891780", 0.0),
        ("1737891780000", 0.0),
        ("1795435230", 30.0),
        ("1795435230000", 30.0),
        ("2026-11-23T12:00:30Z", 30.0),
        ("999999999", None),
        ("9" * 30, None),
        ("soon", None),
    ],
)
@pytest.mark.parametrize("bucket", ["", "-requests"])
def test_a_reset_may_be_an_instant_and_one_that_cannot_be_is_not_believed(
    bucket: str, reset: str, wait_s: float | None
) -> None:
    headers = {f"x-ratelimit-remaining{bucket}": "0", f"x-ratelimit-reset{bucket}": reset}
    assert [limit.reset_s for limit in rate_limits(headers, now=NOW)] == [wait_s]


@pytest.mark.parametrize(
    ("name", "value", "wait_s"),
    [
        ("retryDelay", "2.537906927s", 2.537906927),
        ("retryDelay", "36s", 36.0),
        ("retryDelay", {"seconds": 2, "nanos": 500_000_000}, 2.5),
        ("retryDelay", {"seconds": "7"}, 7.0),
        ("retry_after", 7, 7.0),
        ("retry_after", "7", 7.0),
        ("Retry-After", "1m", 60.0),
        ("retry_after_seconds", 1.5, 1.5),
        ("retry_after_ms", 300, 0.3),
        ("retryAfterMs", 300, 0.3),
        ("retry_after", -1, None),
        ("retry_after", True, None),
        ("retry_after", None, None),
        ("retry_after", "later", None),
        ("retry_after", 1e300, None),
        ("retry_after", 10**400, None),
        ("retry_after", {"seconds": []}, None),
        ("estimated_time", 20.0, None),
    ],
)
def test_a_wait_in_a_member_of_the_error(name: str, value: object, wait_s: float | None) -> None:
    assert member_s(name, value) == (None if wait_s is None else pytest.approx(wait_s))


@pytest.mark.parametrize(
    ("text", "wait_s"),
    [
        ("please retry in 2.537906927s.", 2.537906927),
        ("rate limit reached. please try again in 20s. visit the site", 20.0),
        ("please try again in 1h2m3.5s", 3723.5),
        ("please try again in 300ms", 0.3),
        ("retry after 2 minutes.", 120.0),
        ("please retry after 20 seconds", 20.0),
        ("please wait 43043 seconds before retrying.", 43043.0),
        ("wait for 5 s and try again", 5.0),
        ("too many requests; retry in 120 s", 120.0),
        ("your limit resets in 4 hours 5 minutes", 14_700.0),
        ("please try again later", None),
        ("reduce your message by 20 and try again", None),
        ("rate limit of 60 requests per minute reached", None),
        ("try again in 99999 hours", None),
    ],
)
def test_a_wait_in_words(text: str, wait_s: float | None) -> None:
    assert words_s(text) == (None if wait_s is None else pytest.approx(wait_s))
