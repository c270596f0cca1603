"""The shared stream cases, each whole, in random pieces and byte by byte."""

from collections.abc import Iterable
from random import Random
from typing import Any

import pytest

from tests.chat.stream_texts import CASES, in_pieces, read_case, same
from worker.chat.answer import Answer

each_case = pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])


def check(case: dict[str, Any], pieces: Iterable[bytes]) -> Answer:
    answer = read_case(case, pieces)
    expected = case["expect"]
    error = expected.get("error")
    completion = expected["partial"] if error else expected
    assert answer.fault == (error["kind"] if error else None)
    assert answer.provider == (error["provider"] if error else None)
    assert same(answer.completion, completion), (answer.completion, completion)
    return answer


def test_there_are_cases_to_check() -> None:
    assert len(CASES) == 67


@each_case
def test_a_case_in_one_piece(case: dict[str, Any]) -> None:
    check(case, [case["sse"].encode()])


@each_case
def test_a_case_in_random_pieces(case: dict[str, Any]) -> None:
    body = case["sse"].encode()
    for seed in range(20):
        check(case, in_pieces(body, Random(seed), longest=len(body) // 8 + 2))


@each_case
def test_a_case_byte_by_byte(case: dict[str, Any]) -> None:
    body = case["sse"].encode()
    check(case, (body[at : at + 1] for at in range(len(body))))


@each_case
def test_the_usage_kept_is_text_of_the_stream(case: dict[str, Any]) -> None:
    answer = check(case, [case["sse"].encode()])
    usage = (answer.completion or {}).get("usage")
    assert (answer.usage is None) == (usage is None)
    assert answer.usage is None or answer.usage in case["sse"].encode()
