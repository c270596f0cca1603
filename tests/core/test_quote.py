"""The part of an endpoint's error that becomes part of our error message."""

import unicodedata
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.core.failure import MEANINGS, ErrorCode, failure
from worker.core.quote import LONGEST, sentence

OURS = MEANINGS[ErrorCode.bad_request].sentence.removesuffix(".")


def said(provider: Any) -> str:
    return sentence(replace(failure(ErrorCode.bad_request), provider=provider))


@pytest.mark.parametrize(
    ("provider", "words"),
    [
        ({"message": "Unknown parameter: 'foo'.", "type": "invalid_request_error"}, "Unknown parameter: 'foo'."),
        ("model is loading", "model is loading"),
        ({"detail": "Not authenticated"}, "Not authenticated"),
        ({"detail": [{"loc": ["body"], "msg": "field required"}]}, "field required"),
        ([{"error": {"message": "deep"}}], "deep"),
        ({"error": {"code": 7}}, '{"error":{"code":7}}'),
        ({"code": 17}, '{"code":17}'),
        ("two\nlines\tand \x1b[31mred\x1b[0m\u202e", "two lines and [31mred [0m"),
        ("a\0b\ud800", "a\ufffdb\ufffd"),
    ],
)
def test_the_endpoints_words_are_in_the_sentence(provider: Any, words: str) -> None:
    assert said(provider) == f'{OURS}: "{words}".'


@pytest.mark.parametrize("provider", [None, "", " \n", {}, []])
def test_an_endpoint_that_says_nothing_is_not_quoted(provider: Any) -> None:
    assert said(provider) == f"{OURS}."


def test_a_long_text_is_cut() -> None:
    assert said("x" * 1_000_000) == f'{OURS}: "{"x" * LONGEST}…".'


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["message", "error", "x"]), inner),
    max_leaves=8,
)


@given(VALUES)
def test_any_error_value_makes_one_printable_line(provider: Any) -> None:
    sentence = said(provider)

    assert sentence.startswith(OURS)
    assert len(sentence) <= len(OURS) + LONGEST + 10
    assert {unicodedata.category(one) for one in sentence} & {"Cc", "Cf", "Cs", "Zl", "Zp"} == set()
