"""The fake endpoint's limits as users write them, and its 429s as providers send them."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tests.dev.test_limiter import NOON, demand, limiter
from worker.chat.error_response import from_response
from worker.chat.rate_limit_headers import RateLimit, rate_limits
from worker.cli import main
from worker.core.failure import ErrorCode
from worker.dev.fake.limit_answers import limit_headers, refused
from worker.dev.fake.limiter import AdmittedCall, Demand, LimitRefusal, ProviderLimiter
from worker.dev.fake.limits import WORDS, BadLimits, ProviderLimit, load_limits, parse_limits

AT = datetime.fromtimestamp(NOON, UTC)


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"tokens_per_minute": "60k"}, "tokens_per_minute is '60k'; it must be a whole number from 1 to 1000000000"),
        ({"max_in_flight": 0}, "max_in_flight is 0; it must be a whole number from 1"),
        ({"requests_per_minute": True}, "requests_per_minute is True; it must be a whole number"),
        ({"tokens_per_min": 1}, "tokens_per_min is no field of a limit; did you mean tokens_per_minute?"),
        ({"kind": "leaky"}, "kind is 'leaky'; it must be one of reserve, after, sliding, window, window10s, slots"),
        ({"retry_after": -1}, "retry_after is -1; it must be seconds from 0 to 86400"),
        ({"retry_after": "soon"}, "retry_after is 'soon'; it must be one of seconds, ms, none or a number of seconds"),
        ({"burst_s": "2"}, "burst_s is '2'; it must be seconds from 0 to 86400"),
        ({"cached_input_counts": 1}, "cached_input_counts is 1; it must be true or false"),
        ({"model": ""}, "model is ''; it must be a pattern"),
        ({}, "it limits nothing; set one of requests_per_minute"),
        ({"kind": "slots", "max_in_flight": 1, "tokens_per_minute": 1}, "kind is slots but tokens_per_minute is set"),
        ({"kind": "window10s", "requests_per_minute": 5}, "kind is window10s; a limit for 10 seconds is a sixth"),
        ({"headers": "per_day", "tokens_per_minute": 1}, "headers is per_day; this form shows requests a day"),
        ("60", "'60' is no limit; write an object such as"),
    ],
)
def test_limits_that_cannot_hold_are_refused_with_the_reason(given: Any, error: str) -> None:
    with pytest.raises(BadLimits) as caught:
        parse_limits([given])
    assert str(caught.value).startswith(f"limits[0]: {error}")


def test_all_errors_are_reported_at_once() -> None:
    with pytest.raises(BadLimits) as caught:
        parse_limits([{"kind": "x", "burst_s": None}, {"max_in_flight": 1}, {}])
    assert [line[:9] for line in str(caught.value).splitlines()] == ["limits[0]", "limits[0]", "limits[2]"]


def test_limits_come_from_toml_and_json_and_are_written_as_they_were_read(tmp_path: Path) -> None:
    toml, given = tmp_path / "limits.toml", tmp_path / "limits.json"
    toml.write_text('[[limits]]\nkind = "sliding"\ntokens_per_minute = 60_000\n')
    written = [{"kind": "sliding", "tokens_per_minute": 60_000}]
    given.write_text(json.dumps(written))
    inline = json.dumps(written[0])
    expected = (ProviderLimit(kind="sliding", tokens_per_minute=60_000),)
    assert load_limits(str(toml)) == load_limits(str(given)) == load_limits(inline) == expected
    assert [limit.described() for limit in expected] == written


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ('[{"kind": "leaky"}]', "limits[0]: kind is 'leaky'"),
        ("[{", "the limits are not JSON"),
        ("/nowhere/limits.toml", "the limits file /nowhere/limits.toml cannot be read"),
    ],
)
def test_the_command_says_why_it_cannot_use_limits(given: str, error: str) -> None:
    result = CliRunner().invoke(main, ["fake-endpoint", "--port", "0", "--limits", given])
    assert result.exit_code == 1
    assert result.output.startswith(f"Error: {error}")


def refusal_of(limit: dict[str, Any], asked: Demand | None = None) -> tuple[ProviderLimiter, Demand, LimitRefusal]:
    """Fill a limit of two requests, 40 tokens or one slot, and return the refusal of the next request."""
    limits, asked = limiter(limit), asked or demand()
    for _ in range(10):
        verdict = limits.admit(asked, NOON)
        if isinstance(verdict, LimitRefusal):
            return limits, asked, verdict
    raise AssertionError("the limit refused nothing")


ALLOWANCES = [
    {"requests_per_minute": 2},
    {"tokens_per_minute": 40},
    {"input_tokens_per_minute": 15},
    {"output_tokens_per_minute": 25},
    {"max_in_flight": 1},
]


@pytest.mark.parametrize("retry_after", ["seconds", "ms", "none", 7])
@pytest.mark.parametrize("allowance", ALLOWANCES, ids=lambda allowance: next(iter(allowance)))
@pytest.mark.parametrize("provider", WORDS["provider"])
def test_every_refusal_reads_as_a_rate_limit_with_its_wait(
    provider: str, allowance: dict[str, int], retry_after: str | int
) -> None:
    limits, asked, refusal = refusal_of(
        {"provider": provider, "headers": "none", "retry_after": retry_after, **allowance}
    )
    plan, wait_s = refused(refusal, asked, limits.groups(asked), NOON)
    headers = {name.lower(): value for name, value in plan.headers.items()}
    found = from_response(plan.status, headers, b"".join(plan.pieces), now=AT)
    assert (plan.status, found.code, found.retryable) == (429, ErrorCode.rate_limited, True)
    assert found.retry_after_s == wait_s
    match retry_after:
        case "none":
            assert wait_s is None
        case "seconds" | "ms":
            assert wait_s is not None
            assert refusal.wait_s <= wait_s < refusal.wait_s + 1
        case _:
            assert wait_s == 7


@pytest.mark.parametrize("kind", ["reserve", "sliding"])
def test_a_request_that_never_fits_reads_as_too_large_and_gets_no_hint(kind: str) -> None:
    limits, asked, refusal = refusal_of({"kind": kind, "tokens_per_minute": 12})
    plan, wait_s = refused(refusal, asked, limits.groups(asked), NOON)
    found = from_response(plan.status, {}, b"".join(plan.pieces), now=AT)
    assert (found.code, wait_s) == (ErrorCode.request_too_large, None)
    assert "Retry-After" not in plan.headers


def headers_after(limit: dict[str, Any], *times_s: float) -> dict[str, str]:
    """Return the headers of the last of some requests at these seconds after noon."""
    limits, asked = limiter(limit), demand()
    for time_s in times_s:
        call = limits.admit(asked, NOON + time_s)
    assert isinstance(call, AdmittedCall)
    return limit_headers(call.groups, NOON + times_s[-1])


def read(headers: dict[str, str]) -> tuple[RateLimit, ...]:
    return rate_limits(headers, now=AT)


def test_exact_headers_tell_limit_rest_and_the_time_until_nothing_is_used() -> None:
    headers = headers_after({"requests_per_minute": 600, "tokens_per_minute": 6000}, 0, 0)
    assert read(headers) == (RateLimit("requests", 600, 598, 0.2), RateLimit("tokens", 6000, 5940, 0.6))
    assert headers["x-ratelimit-reset-requests"] == "200ms"
    minutes = headers_after({"requests_per_minute": 2, "burst_s": 600}, *[0] * 15)
    assert minutes["x-ratelimit-reset-requests"] == "7m30s"


def test_azure_writes_whole_seconds_and_gemini_writes_nothing() -> None:
    limit = {"requests_per_minute": 50}
    assert headers_after({"provider": "azure", **limit}, 0)["x-ratelimit-reset-requests"] == "2"
    assert headers_after({"provider": "gemini", **limit}, 0) == {}
    assert headers_after({"headers": "none", **limit}, 0) == {}


def test_anthropic_writes_an_instant() -> None:
    limit = {"provider": "anthropic", "input_tokens_per_minute": 100, "requests_per_minute": 60}
    assert headers_after(limit, 0) == {
        "anthropic-ratelimit-requests-limit": "60",
        "anthropic-ratelimit-requests-remaining": "59",
        "anthropic-ratelimit-requests-reset": "2027-01-15T08:00:01Z",
        "anthropic-ratelimit-input-tokens-limit": "100",
        "anthropic-ratelimit-input-tokens-remaining": "90",
        "anthropic-ratelimit-input-tokens-reset": "2027-01-15T08:00:06Z",
    }


def test_a_lie_can_be_placeholders_old_values_or_a_day() -> None:
    limit = {"requests_per_minute": 60, "kind": "sliding"}
    placeholders = headers_after({"headers": "minus_one", **limit}, 0)
    assert placeholders == {
        "x-ratelimit-limit-requests": "-1",
        "x-ratelimit-remaining-requests": "-1",
        "x-ratelimit-reset-requests": "0",
    }
    assert read(headers_after({"headers": "per_day", **limit}, 0)) == (RateLimit("requests", 28_800, 28_799, 3.0),)

    limits, asked = limiter({"headers": "stale", **limit}), demand()
    shown = []
    for time_s in (0, 1, 59, 60, 61):
        call = limits.admit(asked, NOON + time_s)
        assert isinstance(call, AdmittedCall)
        shown.append(limit_headers(call.groups, NOON + time_s)["x-ratelimit-remaining-requests"])
    assert shown == ["59", "59", "59", "57", "57"]


def test_of_two_limits_the_headers_show_the_fuller_one() -> None:
    limits, asked = limiter({"requests_per_minute": 100}, {"requests_per_minute": 10, "per": "all"}), demand()
    call = limits.admit(asked, NOON)
    assert isinstance(call, AdmittedCall)
    assert read(limit_headers(call.groups, NOON)) == (RateLimit("requests", 10, 9, 6.0),)
