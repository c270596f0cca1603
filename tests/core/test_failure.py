"""The list of failures is closed and complete, and money follows what was sent and what came."""

import pytest

from worker.chat.answer import Kind
from worker.core.failure import FATES, Code, failure, interrupted, under_policy


def test_every_code_has_a_fate_with_a_sentence() -> None:
    assert set(FATES) == set(Code)
    assert all(fate.sentence.endswith(".") and fate.sentence[0].isupper() for fate in FATES.values())
    assert len({fate.sentence for fate in FATES.values()}) == len(FATES)


def test_every_fault_of_an_answer_is_a_code() -> None:
    assert {kind.value for kind in Kind} <= {code.value for code in Code}


def test_trouble_of_the_endpoint_is_never_billed() -> None:
    assert {fate.billed for fate in FATES.values() if fate.trouble == "endpoint"} == {"no"}


@pytest.mark.parametrize("code", Code)
def test_what_was_not_sent_was_not_billed(code: Code) -> None:
    assert failure(code, sent=False).billed == "no"


@pytest.mark.parametrize(
    ("code", "sent", "produced", "billed"),
    [
        (Code.total_timeout, True, False, "unknown"),
        (Code.total_timeout, True, True, "yes"),
        (Code.total_timeout, False, False, "no"),
        (Code.stream_truncated, True, True, "yes"),
        (Code.stream_truncated, True, False, "unknown"),
        (Code.unauthorized, True, False, "no"),
        (Code.bad_gateway, True, False, "unknown"),
    ],
)
def test_a_bill_follows_what_is_known(code: Code, sent: bool, produced: bool, billed: str) -> None:
    assert failure(code, sent=sent, produced=produced).billed == billed


@pytest.mark.parametrize(
    ("sent", "produced", "billed"), [(False, False, "no"), (True, False, "unknown"), (True, True, "yes")]
)
def test_a_call_we_end_ourselves_may_be_billed_once_sent(sent: bool, produced: bool, billed: str) -> None:
    assert interrupted(Code.cancelled, sent=sent, produced=produced).billed == billed


@pytest.mark.parametrize(
    ("code", "produced", "partial", "ambiguous", "retryable"),
    [
        (Code.stream_truncated, True, True, True, True),
        (Code.stream_truncated, True, False, True, False),
        (Code.connection_lost, False, True, False, False),
        (Code.connection_lost, False, False, True, True),
        (Code.rate_limited, False, False, False, True),
        (Code.connect_failed, False, False, False, True),
        (Code.bad_request, False, True, True, False),
    ],
)
def test_paying_twice_is_the_endpoints_setting(
    code: Code, produced: bool, partial: bool, ambiguous: bool, retryable: bool
) -> None:
    found = under_policy(failure(code, produced=produced), retry_partial=partial, retry_ambiguous=ambiguous)
    assert found.retryable is retryable
