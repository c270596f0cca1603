"""What follows a failure: a retry with full jitter, a wait for the endpoint, or the end with its reason."""

from dataclasses import replace
from typing import Any

import pytest

from worker.core.failure import Code, Failure, failure
from worker.core.health import Blame
from worker.core.retry import Give_up, Hold, Retry, backoff_s, decide

BUSY = failure(Code.overloaded)
DOWN = failure(Code.connect_failed)


def after(found: Failure, **changes: Any) -> Retry | Hold | Give_up:
    plain = {
        "blame": Blame.job, "sent": True, "held": 0, "used": 1, "max_attempts": 5, "left_s": 1000.0, "jitter": 0.5,
    }  # fmt: skip
    return decide(found, **plain | changes)


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


@pytest.mark.parametrize("code", [Code.connect_failed, Code.unauthorized, Code.quota_exhausted, Code.server_error])
def test_what_the_endpoint_is_to_blame_for_holds_whatever_is_used(code: Code) -> None:
    held = after(failure(code), blame=Blame.endpoint, used=100, left_s=0.1, jitter=0.0)

    assert held == Hold(5.0)
    assert after(failure(code), blame=Blame.endpoint, jitter=1.0) == Hold(6.25)


@pytest.mark.parametrize("code", [Code.unauthorized, Code.quota_exhausted])
def test_a_job_that_alone_is_refused_spends_its_budget_and_fails(code: Code) -> None:
    assert after(failure(code), used=4, jitter=0.5) == Retry(2.0)
    assert after(failure(code), used=5) == Give_up("attempts")


def test_a_job_that_alone_makes_no_connection_waits_ever_longer_and_spends_nothing() -> None:
    def held(times: int) -> Retry | Hold | Give_up:
        return after(DOWN, sent=False, held=times, used=5, jitter=1.0)

    assert [held(times) for times in (0, 1, 4, 1000)] == [Hold(wait_s, alone=True) for wait_s in (0.5, 0.5, 4.0, 60.0)]
