"""The record of an attempt that fits no columns: a request that must not be repeated is not bought again."""

from dataclasses import replace
from typing import Any

import pytest

from worker.core.endpoint import Endpoint
from worker.core.failure import ErrorCode, Failure, failure
from worker.core.lifecycle import FAIL, RETRY
from worker.jobs.net.progress import Reply
from worker.jobs.outcome import build_broken_record
from worker.jobs.store.claim import Claim

ENDPOINT = Endpoint("default", "https://a.example/v1/chat/completions")
CLAIM = Claim(
    job_id="j", attempt=1, worker_id="w", tenant="t", endpoint="default", model="m", streamed=False, choices=None,
    token_limit=None, generation=0, attempts_used=1, max_attempts=5, refusals=0, timeout_s=60.0, left_s=3600.0,
    waited_s=0.0, traceparent=None, batch=None, body="{}",
)  # fmt: skip


def reply(found: Failure | None, *, sent: bool = True) -> Reply:
    return Reply(found, None, sent, None, None, None, None, 0.1, b"", "identity", {})


def end_of(made: Reply | None, claim: Claim = CLAIM, **settings: Any) -> Any:
    return build_broken_record(claim, made, replace(ENDPOINT, **settings), jitter=0.5)


def test_a_repeatable_request_is_bought_again_and_spends_an_attempt() -> None:
    attempt_record = end_of(reply(failure(ErrorCode.connection_lost)))
    assert (attempt_record.move, attempt_record.counts, attempt_record.attempt["billed"]) == (RETRY, True, "unknown")


@pytest.mark.parametrize("made", [reply(failure(ErrorCode.connection_lost)), None], ids=["a reply", "none"])
def test_an_endpoint_that_forbids_another_request_gets_none(made: Reply | None) -> None:
    assert end_of(made, retry_ambiguous=False).move is FAIL


def test_a_permanent_refusal_stays_one() -> None:
    assert end_of(reply(failure(ErrorCode.bad_request))).move is FAIL


def test_an_attempt_that_was_not_sent_is_not_billed_and_ends_with_the_budget() -> None:
    unsent = reply(failure(ErrorCode.out_of_resources, sent=False), sent=False)
    attempt_record = end_of(unsent)
    assert (attempt_record.move, attempt_record.counts, attempt_record.attempt["billed"]) == (RETRY, True, "no")
    assert end_of(unsent, CLAIM._replace(attempts_used=5)).move is FAIL


def test_a_whole_answer_that_breaks_us_is_not_bought_again() -> None:
    assert end_of(reply(None)).move is FAIL
