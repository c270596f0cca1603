"""The step after a failure: a retry with full jitter, a wait for the endpoint, or the end with its reason."""

from dataclasses import replace
from typing import Any

import pytest

from worker.core.failure import ErrorCode, Failure, failure
from worker.core.lifecycle import FAIL, HOLD, RELEASE, RETRY, Outcome
from worker.jobs.core.endpoint_health import ALONE, FailureOwner, Verdict
from worker.jobs.core.retry import (
    COMPLETED,
    EXPIRED,
    FAILED,
    FREE_REFUSALS,
    AttemptBudget,
    JobDecision,
    backoff_s,
    decide,
    release,
)

ILL = failure(ErrorCode.server_error)
BUSY = failure(ErrorCode.overloaded)
DOWN = failure(ErrorCode.connect_failed)
DAY_S = 24 * 3600.0
HELD = Verdict(FailureOwner.endpoint)
# These failures blame neither the job nor its endpoint: the endpoint had no room.
REFUSED = [failure(ErrorCode.rate_limited), failure(ErrorCode.overloaded)]


PLENTY = AttemptBudget(used=1, max_attempts=5, held=0, refusals=0, left_s=1000.0)


def after(
    found: Failure | None, *, sent: bool = True, jitter: float = 0.5, verdict: Verdict = ALONE, **changes: Any
) -> JobDecision:
    return decide(found, replace(PLENTY, **changes), verdict=verdict, sent=sent, jitter=jitter)


def retry(delay_s: Any) -> JobDecision:
    return JobDecision(RETRY, Outcome.failed, counts=True, delay_s=delay_s, waiting_for="retry")


def hold(delay_s: float, waiting_for: Any, *, counts: bool = False, refusals: int = 0) -> JobDecision:
    return JobDecision(HOLD, Outcome.failed, counts, delay_s, waiting_for, refusals)


def test_a_complete_answer_completes_the_job_whatever_is_used() -> None:
    assert after(None) == after(None, used=5, left_s=-1.0) == COMPLETED


@pytest.mark.parametrize(("used", "longest_s"), [(0, 0.5), (1, 0.5), (2, 1.0), (3, 2.0), (8, 60.0), (10_000, 60.0)])
def test_the_backoff_doubles_to_a_minute(used: int, longest_s: float) -> None:
    assert backoff_s(used) == longest_s


@pytest.mark.parametrize(("jitter", "delay_s"), [(0.0, 0.0), (0.5, 1.0), (0.999, 1.998)])
def test_full_jitter_draws_from_zero_to_the_backoff(jitter: float, delay_s: float) -> None:
    assert after(ILL, used=3, jitter=jitter) == retry(pytest.approx(delay_s))


def test_retry_after_is_waited_out_and_then_spread() -> None:
    assert after(replace(ILL, retry_after_s=20.0), used=2, jitter=0.5) == retry(20.5)


@pytest.mark.parametrize(
    "code", [ErrorCode.bad_request, ErrorCode.redirected, ErrorCode.forbidden, ErrorCode.cancelled]
)
def test_a_permanent_failure_is_given_up_at_once(code: ErrorCode) -> None:
    assert after(failure(code)) == FAILED


def test_the_last_attempt_is_given_up() -> None:
    assert after(ILL, used=4, max_attempts=5) != FAILED
    assert after(ILL, used=5, max_attempts=5) == FAILED
    assert after(ILL, used=1, max_attempts=1) == FAILED


def test_a_failure_may_allow_fewer_attempts_but_not_more() -> None:
    limited = replace(ILL, tries=3)
    assert after(limited, used=2).move is RETRY
    assert after(limited, used=3) == FAILED
    assert after(limited, used=2, max_attempts=2) == FAILED


@pytest.mark.parametrize("found", [ILL, BUSY], ids=["a failure", "a refusal"])
def test_a_wait_beyond_the_deadline_is_given_up(found: Failure) -> None:
    assert after(replace(found, retry_after_s=60.0), left_s=59.0) == FAILED
    assert after(found, left_s=0.0) == EXPIRED


@pytest.mark.parametrize("found", [ILL, BUSY], ids=["a failure", "a refusal"])
@pytest.mark.parametrize("asked_s", [DAY_S + 1, 1.76e9, 1.76e12, 1e300], ids=["two days", "1970 s", "1970 ms", "ever"])
def test_a_wait_that_cannot_be_meant_is_not_believed(found: Failure, asked_s: float) -> None:
    step = after(replace(found, retry_after_s=asked_s), left_s=DAY_S)
    patient = after(replace(found, retry_after_s=asked_s), left_s=1e12)

    assert step.move in (RETRY, HOLD)
    assert step.delay_s == 0.25
    assert patient == step or asked_s < 31 * DAY_S


@pytest.mark.parametrize("found", [ILL, BUSY], ids=["a failure", "a refusal"])
def test_a_wait_of_days_is_believed_where_the_deadline_allows_it(found: Failure) -> None:
    step = after(replace(found, retry_after_s=3 * DAY_S), left_s=7 * DAY_S)

    assert step.move in (RETRY, HOLD)
    assert step.delay_s == 3 * DAY_S + 0.25


@pytest.mark.parametrize("found", REFUSED, ids=lambda found: found.code)
def test_a_refusal_for_the_moment_spends_nothing_however_few_attempts_there_are(found: Failure) -> None:
    assert after(found, used=1, max_attempts=1, jitter=1.0) == hold(0.5, "limit", refusals=1)
    assert after(found, used=5, max_attempts=5, refusals=3, jitter=1.0) == hold(4.0, "limit", refusals=4)


def test_a_refusal_with_a_hint_waits_as_asked_and_is_spread() -> None:
    assert after(replace(BUSY, retry_after_s=20.0), refusals=1) == hold(20.5, "limit", refusals=2)


@pytest.mark.parametrize("found", REFUSED, ids=lambda found: found.code)
def test_from_the_tenth_in_a_row_on_each_refusal_spends_an_attempt(found: Failure) -> None:
    used, refusals, steps = 0, 0, list[JobDecision]()
    while not steps or steps[-1].move is HOLD:
        steps.append(after(found, used=used + 1, refusals=refusals, jitter=1.0))
        if steps[-1].move is HOLD:
            used, refusals = used + steps[-1].counts, steps[-1].refusals

    assert [step.counts for step in steps if step.move is HOLD] == [False] * FREE_REFUSALS + [True] * 4
    assert steps[-1] == FAILED
    # The first six waits last 31.5 s together, half of a limit's minute.
    assert sum(step.delay_s for step in steps[:6] if step.move is HOLD) == 31.5


@pytest.mark.parametrize(
    "found",
    [replace(BUSY, billed="unknown"), replace(BUSY, billed="yes"), failure(ErrorCode.request_timeout), ILL],
    ids=["maybe billed", "billed", "another code", "no refusal"],
)
def test_a_failure_that_may_be_billed_is_no_temporary_refusal(found: Failure) -> None:
    assert after(found).move is RETRY
    assert after(found, used=5) == FAILED


@pytest.mark.parametrize(
    "code", [ErrorCode.connect_failed, ErrorCode.unauthorized, ErrorCode.quota_exhausted, ErrorCode.server_error]
)
def test_trouble_of_the_endpoint_holds_a_job_at_any_number_of_attempts(code: ErrorCode) -> None:
    held = after(failure(code), verdict=HELD, used=100, left_s=0.1, jitter=0.0)

    assert held == hold(5.0, "endpoint_paused")
    assert after(failure(code), verdict=HELD, jitter=1.0) == hold(6.25, "endpoint_paused")


def test_the_wait_of_a_held_job_is_that_of_the_verdict_and_five_minutes_at_most() -> None:
    assert after(DOWN, verdict=Verdict(FailureOwner.endpoint, hold_s=80.0), jitter=0.5) == hold(90.0, "endpoint_paused")
    assert after(DOWN, verdict=Verdict(FailureOwner.endpoint, hold_s=300.0), jitter=0.5) == hold(
        300.0, "endpoint_paused"
    )


@pytest.mark.parametrize("billed", ["yes", "unknown"])
@pytest.mark.parametrize("code", [ErrorCode.provider_error, ErrorCode.quota_exhausted, ErrorCode.first_byte_timeout])
def test_trouble_that_may_have_been_billed_spends_an_attempt_and_ends(code: ErrorCode, billed: Any) -> None:
    found = replace(failure(code), billed=billed, trouble="endpoint", retryable=False)

    assert after(found, verdict=HELD, used=4, jitter=0.0) == hold(5.0, "endpoint_paused", counts=True)
    assert after(found, verdict=HELD, used=5) == FAILED


@pytest.mark.parametrize("code", [ErrorCode.unauthorized, ErrorCode.quota_exhausted])
def test_a_job_that_alone_is_refused_spends_its_budget_and_fails(code: ErrorCode) -> None:
    assert after(failure(code), used=4, jitter=0.5) == retry(2.0)
    assert after(failure(code), used=5) == FAILED


def test_a_job_that_alone_makes_no_connection_waits_ever_longer_and_spends_nothing() -> None:
    def held(times: int) -> JobDecision:
        return after(DOWN, sent=False, held=times, used=5, jitter=1.0)

    assert [held(times) for times in (0, 1, 4, 1000)] == [hold(wait_s, "retry") for wait_s in (0.5, 0.5, 4.0, 60.0)]


@pytest.mark.parametrize("verdict", [ALONE, HELD], ids=["the job's", "the endpoint's"])
@pytest.mark.parametrize(
    ("billed", "allowed"),
    [("no", (True, True, True)), ("unknown", (True, True, False)), ("yes", (True, False, True))],
)
def test_two_settings_forbid_repeated_requests(billed: Any, allowed: tuple[bool, bool, bool], verdict: Verdict) -> None:
    # The rule also covers failures without a retry of their own, such as trouble of the endpoint.
    found = replace(failure(ErrorCode.quota_exhausted), billed=billed)

    decisions = (
        after(found, verdict=verdict, retry_partial=True, retry_ambiguous=True),
        after(found, verdict=verdict, retry_partial=False, retry_ambiguous=True),
        after(found, verdict=verdict, retry_partial=True, retry_ambiguous=False),
    )

    assert allowed == tuple(decision != FAILED for decision in decisions)
    assert {decision.move for decision in decisions} <= {FAIL, RETRY if verdict is ALONE else HOLD}


@pytest.mark.parametrize("found", [ILL, BUSY, DOWN], ids=lambda found: found.code)
def test_a_failure_after_the_deadline_expires_the_job(found: Failure) -> None:
    assert after(found, used=5, left_s=-1.0) == EXPIRED


def test_a_request_that_was_not_sent_is_given_back_unspent() -> None:
    given_back = JobDecision(RELEASE, Outcome.released, counts=False)

    assert release(failure(ErrorCode.worker_lost, sent=False), replace(PLENTY, used=5), sent=False) == given_back


def test_a_request_that_was_sent_is_given_back_within_the_budget() -> None:
    lost = failure(ErrorCode.worker_lost)

    assert release(lost, replace(PLENTY, used=4), sent=True) == JobDecision(RELEASE, Outcome.unknown)
    assert release(lost, replace(PLENTY, used=5), sent=True) == JobDecision(FAIL, Outcome.unknown)
    assert release(replace(lost, retryable=False), PLENTY, sent=True) == JobDecision(FAIL, Outcome.unknown)
