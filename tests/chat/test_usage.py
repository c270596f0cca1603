"""Usage as providers report it: the value of each column, and every flag."""

import json
from decimal import Decimal
from typing import Any

import pytest

from worker.chat.usage import TOKENS, Usage, normalise


def read(usage: Any, **options: Any) -> Usage:
    text = usage if isinstance(usage, bytes) else json.dumps(usage).encode()
    return normalise(text, **{"source": "top", "has_text": True, **options})


def reported(usage: Usage) -> dict[str, int]:
    assert tuple(usage.tokens) == TOKENS
    return {name: count for name, count in usage.tokens.items() if count is not None}


OPENAI = {
    "prompt_tokens": 100,
    "completion_tokens": 50,
    "total_tokens": 150,
    "prompt_tokens_details": {"cached_tokens": 64, "audio_tokens": 5},
    "completion_tokens_details": {
        "reasoning_tokens": 30,
        "audio_tokens": 0,
        "accepted_prediction_tokens": 2,
        "rejected_prediction_tokens": 1,
    },
}
SEED = {
    "prompt_tokens": 100,
    "completion_tokens": 20,
    "total_tokens": 120,
    "prompt_tokens_details": {"cached_tokens": 10, "text_tokens": 80, "audio_tokens": 0, "image_tokens": 20},
    "completion_tokens_details": {"text_tokens": 5, "audio_tokens": 0, "reasoning_tokens": 15},
}
PROVIDERS: dict[str, tuple[Any, dict[str, int], tuple[str, ...]]] = {
    "openai": (
        OPENAI,
        {
            "prompt_tokens": 100,
            "completion_tokens": 50,
            "total_tokens": 150,
            "cached_tokens": 64,
            "prompt_audio_tokens": 5,
            "reasoning_tokens": 30,
            "completion_audio_tokens": 0,
            "accepted_prediction_tokens": 2,
            "rejected_prediction_tokens": 1,
        },
        (),
    ),
    "the document's own": (
        SEED,
        {
            "prompt_tokens": 100,
            "completion_tokens": 20,
            "total_tokens": 120,
            "cached_tokens": 10,
            "prompt_text_tokens": 80,
            "prompt_audio_tokens": 0,
            "prompt_image_tokens": 20,
            "completion_text_tokens": 5,
            "completion_audio_tokens": 0,
            "reasoning_tokens": 15,
        },
        (),
    ),
    "deepseek": (
        {
            "prompt_tokens": 100,
            "completion_tokens": 20,
            "total_tokens": 120,
            "prompt_cache_hit_tokens": 64,
            "prompt_cache_miss_tokens": 36,
            "completion_tokens_details": {"reasoning_tokens": 15},
        },
        {
            "prompt_tokens": 100,
            "completion_tokens": 20,
            "total_tokens": 120,
            "cached_tokens": 64,
            "reasoning_tokens": 15,
        },
        (),
    ),
    "moonshot": (
        {"prompt_tokens": 9, "completion_tokens": 12, "total_tokens": 21, "cached_tokens": 4},
        {"prompt_tokens": 9, "completion_tokens": 12, "total_tokens": 21, "cached_tokens": 4},
        (),
    ),
    "openrouter": (
        {
            "prompt_tokens": 194,
            "completion_tokens": 2,
            "total_tokens": 196,
            "cost": 0.95,
            "is_byok": False,
            "prompt_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 100, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0, "image_tokens": 1},
            "cost_details": {"upstream_inference_cost": 19},
        },
        {
            "prompt_tokens": 194,
            "completion_tokens": 2,
            "total_tokens": 196,
            "cached_tokens": 0,
            "cache_write_tokens": 100,
            "prompt_audio_tokens": 0,
            "reasoning_tokens": 0,
            "completion_image_tokens": 1,
        },
        (),
    ),
    "xai": (
        {
            "prompt_tokens": 32,
            "completion_tokens": 9,
            "total_tokens": 135,
            "prompt_tokens_details": {"text_tokens": 32, "audio_tokens": 0, "image_tokens": 0, "cached_tokens": 6},
            "completion_tokens_details": {"reasoning_tokens": 94, "audio_tokens": 0},
            "num_sources_used": 0,
        },
        {
            "prompt_tokens": 32,
            "completion_tokens": 9,
            "total_tokens": 135,
            "cached_tokens": 6,
            "prompt_text_tokens": 32,
            "prompt_audio_tokens": 0,
            "prompt_image_tokens": 0,
            "completion_audio_tokens": 0,
            "reasoning_tokens": 94,
        },
        ("total_mismatch", "reasoning_outside_completion", "reasoning_gt_completion"),
    ),
    "anthropic": (
        {"input_tokens": 10, "output_tokens": 5, "cache_read_input_tokens": 2000, "cache_creation_input_tokens": 300},
        {"prompt_tokens": 10, "completion_tokens": 5, "cached_tokens": 2000, "cache_write_tokens": 300},
        ("cached_gt_prompt",),
    ),
    "new-api": (
        {
            "prompt_tokens": 0,
            "completion_tokens": 0,
            "total_tokens": 30,
            "prompt_tokens_details": {"cached_tokens": 0, "text_tokens": 0, "audio_tokens": 0, "image_tokens": 0},
            "completion_tokens_details": {"text_tokens": 0, "audio_tokens": 0, "reasoning_tokens": 0},
            "input_tokens": 10,
            "output_tokens": 20,
            "input_tokens_details": None,
        },
        {
            "prompt_tokens": 10,
            "completion_tokens": 20,
            "total_tokens": 30,
            "cached_tokens": 0,
            "prompt_text_tokens": 0,
            "prompt_audio_tokens": 0,
            "prompt_image_tokens": 0,
            "completion_text_tokens": 0,
            "completion_audio_tokens": 0,
            "reasoning_tokens": 0,
        },
        (),
    ),
    "new-api, cache writes": (
        {"prompt_tokens": 5, "prompt_tokens_details": {"cached_creation_tokens": 4}},
        {"prompt_tokens": 5, "cache_write_tokens": 4},
        (),
    ),
    "responses api": (
        {
            "input_tokens": 10,
            "output_tokens": 20,
            "total_tokens": 30,
            "input_tokens_details": {"cached_tokens": 8},
            "output_tokens_details": {"reasoning_tokens": 16},
        },
        {"prompt_tokens": 10, "completion_tokens": 20, "total_tokens": 30, "cached_tokens": 8, "reasoning_tokens": 16},
        (),
    ),
    "llama.cpp": (
        {
            "prompt_tokens": 21,
            "completion_tokens": 6,
            "total_tokens": 27,
            "prompt_tokens_details": {"cached_tokens": 20},
        },
        {"prompt_tokens": 21, "completion_tokens": 6, "total_tokens": 27, "cached_tokens": 20},
        (),
    ),
    "vllm": (
        {"prompt_tokens": 9, "total_tokens": 21, "completion_tokens": 12, "prompt_tokens_details": None},
        {"prompt_tokens": 9, "completion_tokens": 12, "total_tokens": 21},
        (),
    ),
    "perplexity": (
        {
            "prompt_tokens": 9,
            "completion_tokens": 12,
            "total_tokens": 21,
            "reasoning_tokens": 7,
            "search_context_size": "low",
        },
        {"prompt_tokens": 9, "completion_tokens": 12, "total_tokens": 21, "reasoning_tokens": 7},
        (),
    ),
    "groq": (
        {"queue_time": 0.1, "prompt_tokens": 9, "completion_tokens": 12, "total_tokens": 21, "total_time": 0.2},
        {"prompt_tokens": 9, "completion_tokens": 12, "total_tokens": 21},
        (),
    ),
}


@pytest.mark.parametrize(("usage", "tokens", "flags"), PROVIDERS.values(), ids=PROVIDERS.keys())
def test_usage_of_each_provider(usage: Any, tokens: dict[str, int], flags: tuple[str, ...]) -> None:
    found = read(usage)
    assert reported(found) == tokens
    assert found.flags == flags


@pytest.mark.parametrize(
    ("value", "count"),
    [(0, 0), (7, 7), (7.0, 7), ("7", 7), ("007", 7), (2**63 - 1, 2**63 - 1), (1e15, 10**15), (-0.0, 0), ("7.0", 7)],
)
def test_a_count_may_be_written_as_a_number_or_in_digits(value: Any, count: int) -> None:
    found = read({"prompt_tokens": value, "completion_tokens": 1})
    assert (found.tokens["prompt_tokens"], found.flags) == (count, ())


@pytest.mark.parametrize(
    "text",
    [
        *(
            "true",
            "false",
            "-1",
            "1.5",
            '"x"',
            '""',
            '"-1"',
            '"1e3"',
            "[]",
            "{}",
            "[7]",
            "NaN",
            "Infinity",
            "-Infinity",
        ),
        *("1e400", str(2**63), "9" * 5000, "1e999999999999999999999", "1e-5", '"²"', '"1_0"', '" 7"', '"٣.٤"'),
    ],
)
def test_a_value_that_is_no_count_is_unknown_and_flagged(text: str) -> None:
    found = read(f'{{"prompt_tokens":{text},"completion_tokens":1}}'.encode())
    assert (found.tokens["prompt_tokens"], found.flags) == (None, ("bad_value:prompt_tokens",))


def test_a_bad_value_is_named_by_its_path_and_gives_way_to_the_next_place() -> None:
    found = read({"prompt_tokens_details": {"cached_tokens": -5}, "prompt_cache_hit_tokens": 3, "prompt_tokens": 3})
    assert found.tokens["cached_tokens"] == 3
    assert found.flags == ("bad_value:prompt_tokens_details.cached_tokens",)


@pytest.mark.parametrize("details", [[], "x", 7, True])
def test_details_that_are_no_object_are_flagged_once(details: Any) -> None:
    found = read({"prompt_tokens": 1, "prompt_tokens_details": details})
    assert found.flags == ("bad_value:prompt_tokens_details",)


def test_null_and_absent_are_unknown_and_never_zero() -> None:
    found = read(
        {"prompt_tokens": None, "completion_tokens": 3, "completion_tokens_details": {"reasoning_tokens": None}}
    )
    assert reported(found) == {"completion_tokens": 3}
    assert found.flags == ()


def test_the_total_is_reported_never_computed() -> None:
    assert read({"prompt_tokens": 1, "completion_tokens": 2}).tokens["total_tokens"] is None


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"prompt_tokens": 0, "input_tokens": 4}, 4),
        ({"prompt_tokens": 0, "input_tokens": 0}, 0),
        ({"prompt_tokens": 0, "input_tokens": None}, 0),
        ({"prompt_tokens": 3, "input_tokens": 4}, 3),
        ({"prompt_tokens": None, "input_tokens": 0}, 0),
        ({"prompt_tokens": "x", "input_tokens": 4}, 4),
    ],
)
def test_a_zero_gives_way_to_the_count_of_the_other_vocabulary(usage: Any, expected: int) -> None:
    assert read({"completion_tokens": 1, **usage}).tokens["prompt_tokens"] == expected


@pytest.mark.parametrize(
    ("usage", "flag"),
    [
        ({"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 4}, "total_mismatch"),
        ({"completion_tokens": 2, "reasoning_tokens": 3}, "reasoning_gt_completion"),
        ({"prompt_tokens": 2, "cached_tokens": 3}, "cached_gt_prompt"),
        ({"prompt_tokens": 9, "prompt_tokens_details": {"text_tokens": 5, "image_tokens": 5}}, "details_sum_prompt"),
        ({"completion_tokens": 9, "completion_tokens_details": {"text_tokens": 5}}, "details_sum_completion"),
        ({"prompt_tokens": 9, "prompt_cache_hit_tokens": 4, "prompt_cache_miss_tokens": 4}, "ds_hit_miss"),
        ({"completion_tokens": 11}, "completion_gt_limit"),
    ],
)
def test_counts_that_do_not_add_up_are_flagged_and_kept(usage: Any, flag: str) -> None:
    assert read(usage, limit=10).flags == (flag,)


def test_reasoning_beside_the_completion_is_flagged() -> None:
    found = read({"prompt_tokens": 1, "completion_tokens": 5, "total_tokens": 9, "reasoning_tokens": 3})
    assert found.flags == ("total_mismatch", "reasoning_outside_completion")


@pytest.mark.parametrize(
    "usage",
    [
        {"completion_tokens": 10},
        {"prompt_tokens": 9, "prompt_tokens_details": {"text_tokens": 0, "audio_tokens": 0}},
        {"prompt_tokens": 9, "prompt_tokens_details": {"audio_tokens": 3}},
        {"completion_tokens": 9, "completion_tokens_details": {"reasoning_tokens": 9}},
        {"prompt_tokens": 9, "prompt_cache_hit_tokens": 4},
    ],
)
def test_plausible_counts_are_not_flagged(usage: Any) -> None:
    assert read(usage, limit=10).flags == ()


ZERO = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}


def test_zeros_beside_a_text_are_no_report() -> None:
    found = read({**ZERO, "cost": 0})
    assert (reported(found), found.reported_cost, found.flags) == ({}, None, ("all_zero",))


def test_zeros_beside_no_text_are_zeros() -> None:
    found = read(ZERO, has_text=False)
    assert (reported(found), found.flags) == (ZERO, ("all_zero",))


def test_a_cost_survives_beside_zeros() -> None:
    assert read({**ZERO, "cost": 0.5}).reported_cost == Decimal("0.5")


def test_no_usage_is_missing() -> None:
    found = normalise(None, source=None, flags=("reset_after_finish",), has_text=True)
    assert (reported(found), found.reported_cost, found.source) == ({}, None, "none")
    assert found.flags == ("reset_after_finish", "missing")


@pytest.mark.parametrize("usage", [{}, {"vendor": 1}, {"prompt_tokens": None}])
def test_usage_without_any_count_is_missing(usage: Any) -> None:
    assert read(usage).flags == ("missing",)


@pytest.mark.parametrize("text", [b"", b"[]", b"7", b"{", b"\xff", b"null", b'{"a":' * 100_000])
def test_usage_that_is_no_object_is_flagged(text: bytes) -> None:
    assert read(text).flags == ("bad_value:usage",)


def test_flags_and_source_of_the_answer_are_passed_on() -> None:
    found = read({"prompt_tokens": 1}, flags=("multiple_usage",), source="choice")
    assert (found.flags, found.source) == (("multiple_usage",), "choice")


@pytest.mark.parametrize(
    ("text", "cost"),
    [
        ("0.00012345678901234567", "0.00012345678901234567"),
        ("0", "0"),
        ("3", "3"),
        ('"0.25"', "0.25"),
        ("1e-7", "1E-7"),
    ],
)
def test_cost_is_kept_exactly(text: str, cost: str) -> None:
    found = read(f'{{"prompt_tokens":1,"cost":{text}}}'.encode())
    assert (found.reported_cost, found.flags) == (Decimal(cost), ())


@pytest.mark.parametrize(
    ("usage", "cost"),
    [
        ('"cost":{"input_tokens_cost":1e-6,"request_cost":0.005,"total_cost":0.006}', "0.006"),
        ('"cost":{"total":1}', "1"),
        ('"cost":{}', None),
        ('"total_cost":0.5', "0.5"),
        ('"cost_usd":0.5', "0.5"),
        ('"estimated_cost":8.775e-06', "8.775E-6"),
        ('"cost_in_usd_ticks":318319000', "0.0318319"),
        ('"cost":0,"total_cost":0.5', "0.5"),
        ('"cost":0.25,"estimated_cost":0.5', "0.25"),
        ('"cost":0,"estimated_cost":0', "0"),
        ('"cost":null', None),
    ],
)
def test_a_price_is_found_under_each_name(usage: str, cost: str | None) -> None:
    found = read(f'{{"prompt_tokens":1,{usage}}}'.encode())
    assert found.reported_cost == (None if cost is None else Decimal(cost))
    assert found.flags == ()


@pytest.mark.parametrize(
    "usage",
    [
        {"promptTokenCount": 9, "candidatesTokenCount": 2, "totalTokenCount": 14, "thoughtsTokenCount": 3,
         "cachedContentTokenCount": 4},
        {"inputTokens": 9, "outputTokens": 2, "totalTokens": 14, "cacheReadInputTokens": 4, "reasoning_tokens": 3},
        {"prompt_eval_count": 9, "eval_count": 2, "total_tokens": 14, "num_cached_tokens": 4, "thinking_tokens": 3},
        {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 14, "prompt_token_details": {"cached_tokens": 4},
         "completion_token_details": {"reasoning_tokens": 3}},
    ],
)  # fmt: skip
def test_tokens_are_found_under_each_name(usage: dict[str, Any]) -> None:
    found = reported(read(usage))
    assert found == {
        "prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 14, "cached_tokens": 4, "reasoning_tokens": 3,
    }  # fmt: skip


def test_a_number_beats_a_placeholder_in_every_column() -> None:
    placeholders = {"cached_tokens": 0, "cache_write_tokens": 0, "text_tokens": 0, "audio_tokens": 0, "image_tokens": 0}
    found = reported(
        read(
            {
                "prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0, "totalTokens": 15,
                "prompt_tokens_details": placeholders,
                "completion_tokens_details": {"reasoning_tokens": 0, "text_tokens": 0, "audio_tokens": 0},
                "input_tokens": 10, "output_tokens": 5, "prompt_cache_hit_tokens": 6, "cache_creation_input_tokens": 1,
                "input_tokens_details": {"text_tokens": 7, "audio_tokens": 2, "image_tokens": 1},
                "output_tokens_details": {"reasoning_tokens": 3, "text_tokens": 2},
            }
        )
    )  # fmt: skip
    assert found == {
        "prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15, "cached_tokens": 6, "cache_write_tokens": 1,
        "prompt_text_tokens": 7, "prompt_audio_tokens": 2, "prompt_image_tokens": 1, "completion_text_tokens": 2,
        "completion_audio_tokens": 0, "reasoning_tokens": 3,
    }  # fmt: skip


@pytest.mark.parametrize("text", ["-1", "true", '"x"', '"-1"', "[]", "NaN", "1e400", "1e-400", "1" * 60])
def test_a_value_that_is_no_price_is_flagged(text: str) -> None:
    found = read(f'{{"prompt_tokens":1,"cost":{text}}}'.encode())
    assert (found.reported_cost, found.flags) == (None, ("bad_value:cost",))
