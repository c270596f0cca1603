"""The list of failures is complete, and `billed` follows from the bytes that were sent and received."""

import pytest

from worker.chat.answer import AnswerKind
from worker.core.failure import MEANINGS, ErrorCode, failure, interrupted, under_policy


def test_every_code_has_a_fate_with_a_sentence() -> None:
    assert set(MEANINGS) == set(ErrorCode)
    assert all(fate.sentence.endswith(".") and fate.sentence[0].isupper() for fate in MEANINGS.values())
    assert len({fate.sentence for fate in MEANINGS.values()}) == len(MEANINGS)


def test_every_fault_of_an_answer_is_a_code() -> None:
    assert {kind.value for kind in AnswerKind} <= {code.value for code in ErrorCode}


def test_trouble_of_the_endpoint_is_never_billed() -> None:
    assert {fate.billed for fate in MEANINGS.values() if fate.trouble == "endpoint"} == {"no"}


@pytest.mark.parametrize("code", ErrorCode)
def test_an_unsent_request_was_not_billed(code: ErrorCode) -> None:
    assert failure(code, sent=False).billed == "no"


@pytest.mark.parametrize(
    ("code", "sent", "produced", "billed"),
    [
        (ErrorCode.total_timeout, True, False, "unknown"),
        (ErrorCode.total_timeout, True, True, "yes"),
        (ErrorCode.total_timeout, False, False, "no"),
        (ErrorCode.stream_truncated, True, True, "yes"),
        (ErrorCode.stream_truncated, True, False, "unknown"),
        (ErrorCode.unauthorized, True, False, "no"),
        (ErrorCode.bad_gateway, True, False, "unknown"),
    ],
)
def test_billed_follows_from_the_known_facts(code: ErrorCode, sent: bool, produced: bool, billed: str) -> None:
    assert failure(code, sent=sent, produced=produced).billed == billed


@pytest.mark.parametrize(
    ("sent", "produced", "billed"), [(False, False, "no"), (True, False, "unknown"), (True, True, "yes")]
)
def test_a_call_we_end_ourselves_may_be_billed_once_sent(sent: bool, produced: bool, billed: str) -> None:
    assert interrupted(ErrorCode.cancelled, sent=sent, produced=produced).billed == billed


@pytest.mark.parametrize(
    ("code", "produced", "partial", "ambiguous", "retryable"),
    [
        (ErrorCode.stream_truncated, True, True, True, True),
        (ErrorCode.stream_truncated, True, False, True, False),
        (ErrorCode.connection_lost, False, True, False, False),
        (ErrorCode.connection_lost, False, False, True, True),
        (ErrorCode.rate_limited, False, False, False, True),
        (ErrorCode.connect_failed, False, False, False, True),
        (ErrorCode.bad_request, False, True, True, False),
    ],
)
def test_paying_twice_is_the_endpoints_setting(
    code: ErrorCode, produced: bool, partial: bool, ambiguous: bool, retryable: bool
) -> None:
    found = under_policy(failure(code, produced=produced), retry_partial=partial, retry_ambiguous=ambiguous)
    assert found.retryable is retryable
