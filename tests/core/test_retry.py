"""What follows a failure: a retry with full jitter, a pause of the endpoint, or the end with its reason."""

from dataclasses import replace

import pytest

from worker.core.failure import Code, Failure, failure
from worker.core.retry import Give_up, Hold, Retry, backoff_s, decide

BUSY = failure(Code.overloaded)
DOWN = failure(Code.connect_failed)


def after(
    found: Failure, *, used: int = 1, max_attempts: int = 5, left_s: float = 1000.0, jitter: float = 0.5
) -> Retry | Hold | Give_up:
    return decide(found, used=used, max_attempts=max_attempts, left_s=left_s, jitter=jitter)


@pytest.mark.parametrize(("used", "longest_s"), [(0, 0.5), (1, 0.5), (2, 1.0), (3, 2.0), (8, 60.0), (10_000, 60.0)])
def test_the_backoff_doubles_to_a_minute(used: int, longest_s: float) -> None:
    assert backoff_s(used) == longest_s


@pytest.mark.parametrize(("jitter", "delay_s"), [(0.0, 0.0), (0.5, 1.0), (0.999, 1.998)])
def test_full_jitter_draws_from_zero_to_the_backoff(jitter: float, delay_s: float) -> None:
    assert after(BUSY, used=3, jitter=jitter) == Retry(pytest.approx(delay_s))


def test_retry_after_is_waited_out_and_then_spread() -> None:
    assert after(replace(BUSY, retry_after_s=20.0), used=2, jitter=0.5) == Retry(20.5)


@pytest.mark.parametrize("code", [Code.bad_request, Code.redirected, Code.forbidden, Code.cancelled])
def test_what_is_permanent_is_given_up_at_once(code: Code) -> None:
    assert after(failure(code)) == Give_up("permanent")


def test_the_last_attempt_is_given_up() -> None:
    assert after(BUSY, used=4, max_attempts=5) != Give_up("attempts")
    assert after(BUSY, used=5, max_attempts=5) == Give_up("attempts")
    assert after(BUSY, used=1, max_attempts=1) == Give_up("attempts")


def test_a_failure_may_allow_fewer_attempts_but_not_more() -> None:
    limited = replace(BUSY, tries=3)
    assert isinstance(after(limited, used=2), Retry)
    assert after(limited, used=3) == Give_up("attempts")
    assert after(limited, used=2, max_attempts=2) == Give_up("attempts")


def test_a_wait_beyond_the_deadline_is_given_up() -> None:
    assert after(replace(BUSY, retry_after_s=60.0), left_s=59.0) == Give_up("deadline")
    assert after(BUSY, left_s=0.0) == Give_up("deadline")


@pytest.mark.parametrize("code", [Code.connect_failed, Code.dns_failed, Code.unauthorized, Code.quota_exhausted])
def test_the_endpoints_trouble_holds_whatever_is_used(code: Code) -> None:
    assert isinstance(after(failure(code), used=100, max_attempts=5, left_s=0.1), Hold)


@pytest.mark.parametrize(
    ("found", "jitter", "pause_s"),
    [
        (DOWN, 0.0, 2.0),
        (DOWN, 1.0, 2.5),
        (failure(Code.unauthorized), 0.0, 30.0),
        (replace(DOWN, retry_after_s=100.0), 0.0, 100.0),
        (replace(DOWN, retry_after_s=0.0), 0.0, 2.0),
        (replace(DOWN, retry_after_s=1e9), 0.0, 3600.0),
    ],
)
def test_a_pause_has_bounds(found: Failure, jitter: float, pause_s: float) -> None:
    assert after(found, jitter=jitter) == Hold(pause_s)
