"""The rules of assembly, where the shared cases do not cover them."""

import tracemalloc
from typing import Any

import pytest

from tests.chat.stream_texts import PLENTY, assemble, chunk, event, message, said
from worker.chat.answer import AnswerKind
from worker.chat.stream import Assembler

DONE = event("[DONE]")
STOP = chunk(finish_reason="stop")


# R1: the events of an answer


@pytest.mark.parametrize(
    "data",
    [
        *(
            "{",
            "nonsense",
            "<html></html>",
            "[]",
            "[1]",
            "7",
            "null",
            "true",
            '"text"',
            '{"choices":[]} extra',
            "{'a': 1}",
        ),
        *('{"a":' * 250 + "1" + "}" * 250, '{"a":' * 50_000, "[DONE] [DONE]", '"\\ud83"'),
    ],
)
def test_data_that_is_no_json_object_is_an_invalid_chunk_and_the_partial_is_kept(data: str) -> None:
    lines = "".join(f"data: {line}\n" for line in data.split("\n")) + "\n"
    answer = assemble(chunk({"content": "Hel"}) + lines.encode() + chunk({"content": "lo"}) + STOP + DONE)
    assert answer.fault == AnswerKind.invalid_chunk
    assert answer.completion is not None
    assert answer.completion["choices"][0]["message"]["content"] == "Hel"


@pytest.mark.parametrize(
    "data", ["{}", '{"type":"ping"}', '{"id":"x","model":"other"}', '{"error":null}', '{"usage":null}']
)
def test_json_that_says_nothing_contributes_nothing(data: str) -> None:
    assert message(event(data) + said({"content": "a"})) == {"role": "assistant", "content": "a"}


@pytest.mark.parametrize("data", [" [DONE]", "[DONE] ", "\t[DONE]"])
def test_done_may_be_surrounded_by_spaces(data: str) -> None:
    assembler = Assembler(max_bytes=PLENTY)
    assembler.feed(event(data))
    assert assembler.done


def test_json_may_be_surrounded_by_spaces() -> None:
    assert message(b'data:   {"choices":[{"delta":{"content":"a"},"finish_reason":"stop"}]}  \n\n')["content"] == "a"


def test_malformed_utf8_becomes_replacement_characters() -> None:
    stream = b'data: {"choices":[{"delta":{"content":"a\xff\xc3"},"finish_reason":"stop"}]}\n\n'
    assert message(stream)["content"] == "a\ufffd\ufffd"


# R2: errors


@pytest.mark.parametrize("error", ["overloaded", {"message": "m", "code": 1}, {"code": None}, ["x"], 1, True])
def test_a_truthy_error_fails_the_stream_and_is_kept_as_it_came(error: Any) -> None:
    answer = assemble(chunk({"content": "a"}) + event({"error": error}) + STOP + DONE)
    assert (answer.fault, answer.provider) == (AnswerKind.provider_error, error)


@pytest.mark.parametrize("error", [None, "", {}, False, 0, []])
def test_an_empty_error_is_none(error: Any) -> None:
    assert assemble(chunk({"content": "a"}, error=error) + STOP).fault is None


def test_the_choices_of_an_error_chunk_count_and_nothing_after_it_but_usage() -> None:
    usage = {"prompt_tokens": 3}
    answer = assemble(
        chunk({"content": "a"}, error="x") + chunk({"content": "b"}, usage=usage, finish_reason="stop") + DONE
    )
    assert answer.completion is not None
    assert answer.completion["choices"][0]["message"]["content"] == "a"
    assert answer.completion["choices"][0]["finish_reason"] is None
    assert (answer.usage, answer.fault) == (b'{"prompt_tokens": 3}', AnswerKind.provider_error)


def test_the_first_fault_is_the_one_reported() -> None:
    answer = assemble(event({"error": "first"}) + event({"error": "second"}) + event("nonsense"))
    assert (answer.fault, answer.provider) == (AnswerKind.provider_error, "first")


@pytest.mark.parametrize(
    "late", [event({"error": "late"}), event("nonsense"), event("[1, 2]"), b"event: error\ndata: x\n\n"]
)
def test_a_fault_after_every_finish_reason_does_not_undo_the_answer(late: bytes) -> None:
    answer = assemble(chunk({"content": "a"}, finish_reason="stop") + late + closing('{"prompt_tokens":1}'))
    assert (answer.fault, answer.provider, answer.usage) == (None, None, b'{"prompt_tokens":1}')
    assert answer.usage_flags == ("error_after_finish",)
    assembler = Assembler(max_bytes=PLENTY)
    assembler.feed(chunk({"content": "a"}, finish_reason="stop") + late)
    assert assembler.failed, "the stream ends at an error"


def test_text_after_such_an_error_shows_that_it_was_no_end() -> None:
    # A server that writes finish_reason in every chunk.
    first, second = (chunk({"content": text}, finish_reason="stop") for text in "ab")
    answer = assemble(first + event({"error": "late"}) + second)
    assert (answer.fault, answer.provider, answer.usage_flags) == (AnswerKind.provider_error, "late", ())


@pytest.mark.parametrize(
    "stream",
    [
        chunk({"content": "a"}, finish_reason="error") + event({"error": "x"}),
        chunk({"content": "a"}, finish_reason="error", error="x"),
        chunk({"content": "a"}, finish_reason="stop", error="x"),
        chunk({"content": "a"}, finish_reason="stop", choice={"error": "x"}),
        chunk({"content": "a"}, finish_reason="stop") + chunk({"content": "b"}, index=1) + event({"error": "x"}),
    ],
)
def test_an_error_with_or_before_the_last_finish_reason_fails(stream: bytes) -> None:
    answer = assemble(stream)
    assert (answer.fault, answer.provider) == (AnswerKind.provider_error, "x")


FLAT = {"type": "error", "code": "server_error", "message": "no", "param": None}


@pytest.mark.parametrize(
    ("late", "provider"),
    [
        (event({"code": "DataInspectionFailed", "message": "no"}), {"code": "DataInspectionFailed", "message": "no"}),
        (event(FLAT), FLAT),
        (b'event: error\ndata: {"message": "no"}\n\n', {"message": "no"}),
        (b"event: error\ndata: it broke\n\n", "it broke"),
        (b'error: {"code": 400, "message": "no"}\n\n', {"code": 400, "message": "no"}),
        (b"error: it broke\n\n", "it broke"),
        (b'{"error": {"code": 502}}', {"code": 502}),
        (b'{\n  "error": {\n    "code": 502\n  }\n}\n', {"code": 502}),
        (b'[{"error": {"code": 502}}]\n', {"code": 502}),
        (event([{"error": {"code": 502}}]), {"code": 502}),
        (event({"base_resp": {"status_code": 1002, "status_msg": "no"}}), {"status_code": 1002, "status_msg": "no"}),
        (event({"choices": [{"index": 0, "delta": {}, "error": {"code": 502}}]}), {"code": 502}),
    ],
)
@pytest.mark.parametrize("size", [1, 10_000])
def test_an_error_in_a_stream_is_known_in_every_shape(late: bytes, provider: Any, size: int) -> None:
    stream = chunk({"content": "Hel"}) + late
    answer = assemble(stream[at : at + size] for at in range(0, len(stream), size))
    assert (answer.fault, answer.provider) == (AnswerKind.provider_error, provider)
    assert answer.completion is not None
    assert answer.completion["choices"][0]["message"]["content"] == "Hel"


@pytest.mark.parametrize(
    "kept_alive",
    [
        ": OPENROUTER PROCESSING",
        "ping",
        "[PING]",
        "keep-alive",
        '{"type": "ping"}',
        '{"code": 0, "message": "Success"}',
    ],
)
def test_a_keep_alive_is_no_answer_and_no_error(kept_alive: str) -> None:
    assembler = Assembler(max_bytes=PLENTY)
    assert assembler.feed(event(kept_alive)) == 0
    assert message(event(kept_alive) + said({"content": "a"}))["content"] == "a"


@pytest.mark.parametrize("reason", ["error", "network_error", "FINISH_ERROR", "insufficient_system_resource", "abort"])
def test_an_end_in_an_error_with_nothing_before_it_is_an_error(reason: str) -> None:
    answer = assemble(chunk({"role": "assistant", "content": ""}) + chunk(finish_reason=reason) + DONE)
    assert (answer.fault, answer.provider) == (AnswerKind.provider_error, {"finish_reason": reason})


def test_events_with_single_line_ends_are_an_answer() -> None:
    lines = said({"content": "a"}, {"content": "b"}).replace(b"\n\n", b"\n")
    assert message(lines)["content"] == "ab"
    answer = assemble(lines[at : at + 1] for at in range(len(lines)))
    assert answer.fault is None
    assert answer.completion is not None
    assert answer.completion["choices"][0]["message"]["content"] == "ab"


# R3: the envelope


def test_names_are_the_first_non_empty_and_other_members_the_last_non_null_value() -> None:
    azure = {"id": "", "object": "", "created": 0, "model": "", "choices": [], "prompt_filter_results": [{}]}
    first = {"id": "a", "created": 1, "model": "m1", "service_tier": "auto", "system_fingerprint": "f1"}
    second = {
        "id": "b",
        "created": 2,
        "model": "m2",
        "service_tier": "flex",
        "system_fingerprint": "f2",
        "obfuscation": "x",
    }
    last = {"service_tier": None, "system_fingerprint": None}
    answer = assemble(event(azure) + chunk({}, **first) + chunk({}, **second) + chunk({}, finish_reason="stop", **last))
    assert answer.completion == {
        "id": "a",
        "object": "chat.completion",
        "created": 1,
        "model": "m1",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": None}, "finish_reason": "stop"}],
        "usage": None,
        "system_fingerprint": "f2",
        "service_tier": "flex",
        "prompt_filter_results": [{}],
    }


def test_members_we_do_not_know_stay_where_an_unstreamed_answer_has_them() -> None:
    first = chunk(
        {"content": "a", "reasoning_text": "h", "extra_content": {"google": {"x": 1}}, "signature": "s", "name": "AI"},
        citations=["u"],
        x_groq={"id": "r"},
        choice={"token_ids": [1], "content_filter_results": {"hate": {}}},
    )
    second = chunk(
        {"reasoning_text": "m", "extra_content": {"google": {"y": 2}}, "signature": "", "name": "AI", "z": None},
        citations=["u", "v"],
        x_groq={"n": 1},
        choice={"token_ids": [2], "content_filter_results": {"self_harm": {}}, "stop_reason": 7},
        finish_reason="stop",
    )
    answer = assemble(first + second)
    assert answer.completion == {
        "id": "c1", "object": "chat.completion", "created": 7, "model": "m", "usage": None,
        "citations": ["u", "v"],
        "x_groq": {"id": "r", "n": 1},
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant", "content": "a", "reasoning_text": "hm", "signature": "s", "name": "AI",
                    "extra_content": {"google": {"x": 1, "y": 2}},
                },
                "finish_reason": "stop",
                "stop_reason": 7,
                "token_ids": [1, 2],
                "content_filter_results": {"hate": {}, "self_harm": {}},
            }
        ],
    }  # fmt: skip


def test_an_object_of_reasoning_grows_as_text() -> None:
    deltas = [{"reasoning_content": {"text": "I nee"}}, {"reasoning_content": {"text": "d", "signature": "s"}}]
    found = message(said(*deltas))
    assert found["reasoning_content"] == {"text": "I need", "signature": "s"}


def test_a_growing_text_of_an_unknown_name_costs_no_quadratic_time() -> None:
    assembler = Assembler(max_bytes=PLENTY)
    for _ in range(20_000):
        assembler.feed(chunk({"vendor": {"thinking_text": "word " * 10}}))
    answer = assembler.finish()
    assert answer.completion is not None
    assert len(answer.completion["choices"][0]["message"]["vendor"]["thinking_text"]) == 1_000_000


# R4: choices


def test_choices_are_sorted_by_index() -> None:
    stream = b"".join(chunk({"content": str(index)}, index=index, finish_reason="stop") for index in (10, 2, 0, 1))
    answer = assemble(stream, n=4)
    assert answer.completion is not None
    assert [(choice["index"], choice["message"]["content"]) for choice in answer.completion["choices"]] == [
        (0, "0"),
        (1, "1"),
        (2, "2"),
        (10, "10"),
    ]


@pytest.mark.parametrize("index", [None, 0.0, "0", "zero", True, [], {}, -0.0, 0.5])
def test_an_odd_index_is_the_first_choice(index: Any) -> None:
    answer = assemble(chunk({"content": "a"}) + chunk({"content": "b"}, index=index) + STOP)
    assert answer.completion is not None
    assert [choice["message"]["content"] for choice in answer.completion["choices"]] == ["ab"]


@pytest.mark.parametrize("choices", [None, {}, "x", 1, [], [None], ["x"], [[]], [{}], [{"index": 0, "delta": None}]])
def test_choices_that_say_nothing_make_no_choice(choices: Any) -> None:
    assert assemble(event({"choices": choices}) + DONE).fault == AnswerKind.empty_stream


# R5: texts


@pytest.mark.parametrize(
    ("deltas", "expected"),
    [
        ([{"content": None}, {"content": None}], {"content": None}),
        ([{"content": ""}, {"content": None}], {"content": ""}),
        ([{"content": "a"}, {"content": None}, {"content": "b"}], {"content": "ab"}),
        ([{"content": 1}, {"content": "b"}], {"content": "b"}),
        ([{"role": "assistant"}, {"role": "assistant"}], {"role": "assistant"}),
        ([{"role": ""}, {"role": "model"}, {"role": "assistant"}], {"role": "model"}),
        ([{"reasoning": "a"}, {"reasoning": "b"}], {"reasoning": "ab", "reasoning_content": "ab"}),
        ([{"reasoning": "a", "reasoning_content": "c"}], {"reasoning": "a", "reasoning_content": "c"}),
        (
            [{"content": [{"type": "text", "text": "a"}, "b", {"type": "image"}, 1]}, {"content": "c"}],
            {"content": "abc"},
        ),
        (
            [
                {
                    "content": [
                        {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
                        {"type": "text", "text": "a"},
                    ]
                }
            ],
            {"content": "a", "reasoning_content": "hm"},
        ),
        ([{"content": [{"type": "thinking", "thinking": "hm"}]}], {"content": None, "reasoning_content": "hm"}),
        ([{"content": []}], {"content": None}),
        ([{"content": "<think>a</think>b"}], {"content": "<think>a</think>b"}),
        ([{"refusal": "\ud83d"}, {"refusal": "\ude00"}], {"refusal": "\U0001f600"}),
        ([{"reasoning_content": "\ud83d"}, {"reasoning_content": "\ude00"}], {"reasoning_content": "\U0001f600"}),
        ([{"content": "a\ud83d"}], {"content": "a\ud83d"}),
        ([{"content": "\ude00\ud83d"}], {"content": "\ude00\ud83d"}),
    ],
)
def test_texts_are_concatenated(deltas: list[Any], expected: dict[str, Any]) -> None:
    assert message(said(*deltas)) == {"role": "assistant", "content": None, **expected}


# R7, R8: the old function call, and audio


def test_a_function_call_keeps_its_first_name_and_all_its_arguments() -> None:
    found = message(
        said(
            {"function_call": {"name": "f", "arguments": ""}},
            {"function_call": {"name": "", "arguments": '{"a"'}},
            {"function_call": {"arguments": ":1}"}},
            finish_reason="function_call",
        )
    )
    assert found["function_call"] == {"name": "f", "arguments": '{"a":1}'}


@pytest.mark.parametrize(
    ("fragments", "data"),
    [
        (["AQID", "BAUG"], "AQIDBAUG"),
        (["AQ==", "Ag==", "Aw=="], "AQID"),
        (["AQI", "DBAUG"], "AQIDBAUG"),
        (["AQ", "=="], "AQ=="),
        (["A*==", "Ag=="], "A*==Ag=="),
        (["é===", "Ag=="], "é===Ag=="),
        (["=A==", "Ag=="], "=A==Ag=="),
        (["AQ==", ""], "AQ=="),
    ],
)
def test_audio_data_is_joined_as_bytes_where_each_fragment_is_whole(fragments: list[str], data: str) -> None:
    assert message(said(*({"audio": {"data": fragment}} for fragment in fragments)))["audio"] == {"data": data}


def test_audio_keeps_its_first_id_its_last_expiry_and_all_of_its_transcript() -> None:
    found = message(
        said(
            {"audio": {"id": "a", "transcript": "Hel", "expires_at": 1}},
            {"audio": {"id": "b", "transcript": "lo", "expires_at": 2}},
            {"audio": {"id": None, "expires_at": None, "data": None}},
        )
    )
    assert found["audio"] == {"id": "a", "transcript": "Hello", "expires_at": 2}


# R9, R10, R11: lists and finish reasons


def test_logprobs_of_both_kinds_are_extended() -> None:
    answer = assemble(
        chunk({"content": "a"}, choice={"logprobs": {"content": [1], "refusal": None}})
        + chunk({"content": "b"}, choice={"logprobs": None})
        + chunk({"content": "c"}, choice={"logprobs": {"content": [2, 3], "refusal": [4]}})
        + STOP
    )
    assert answer.completion is not None
    assert answer.completion["choices"][0]["logprobs"] == {"content": [1, 2, 3], "refusal": [4]}


def test_logprobs_without_any_list_are_absent() -> None:
    answer = assemble(chunk({"content": "a"}, choice={"logprobs": {"content": None}}) + STOP)
    assert answer.completion is not None
    assert "logprobs" not in answer.completion["choices"][0]


def test_lists_that_vendors_stream_like_annotations_are_extended_too() -> None:
    found = message(said({"images": [{"a": 1}]}, {"images": [{"b": 2}], "annotations": [3]}, {"annotations": None}))
    assert (found["images"], found["annotations"]) == ([{"a": 1}, {"b": 2}], [3])


@pytest.mark.parametrize("reason", ["eos_token", "insufficient_system_resource", "STOP", {"type": "stop"}, "error"])
def test_an_unknown_finish_reason_is_kept_as_it_came(reason: Any) -> None:
    answer = assemble(chunk({"content": "a"}, finish_reason=reason))
    assert answer.fault is None
    assert answer.completion is not None
    assert answer.completion["choices"][0]["finish_reason"] == reason


def test_the_last_finish_reason_that_is_not_empty_counts() -> None:
    answer = assemble(
        chunk(finish_reason="length")
        + chunk(finish_reason="stop")
        + chunk(finish_reason="")
        + chunk(finish_reason=None)
    )
    assert answer.completion is not None
    assert answer.completion["choices"][0]["finish_reason"] == "stop"


# R12: usage


def usage_of(*chunks: bytes) -> tuple[bytes | None, str | None, tuple[str, ...]]:
    answer = assemble(b"".join(chunks) + DONE)
    return answer.usage, answer.usage_source, answer.usage_flags


def closing(usage: Any) -> bytes:
    return event(f'{{"choices":[],"usage":{usage}}}')


def test_usage_is_the_exact_text_of_the_last_object() -> None:
    text = '{ "prompt_tokens" : 1e1,"x":1.10, "a":"\\u00e9é", "prompt_tokens":12345678901234567890123 }'
    assert usage_of(STOP, closing('{"prompt_tokens":1}'), closing(text)) == (text.encode(), "top", ("multiple_usage",))


def test_usage_of_a_chunk_inside_an_array_of_one_is_kept() -> None:
    for usage in ('{"id": null}', '{"prompt_tokens": 3}'):
        assert assemble(event(f'[{{"usage": {usage}}}]')).usage == usage.replace(" ", "").encode()


def test_text_of_chunks_inside_arrays_of_one_keeps_a_surrogate_pair_that_two_chunks_share() -> None:
    first = r'[{"choices":[{"index":0,"delta":{"content":"\ud83d"}}]}]'
    second = (
        r'[{"choices":[{"index":0,"delta":{"content":"\ude00"},"finish_reason":"stop"}],"usage":{"total_tokens":3}}]'
    )
    completion = assemble(event(first) + event(second)).completion

    assert completion is not None
    assert completion["choices"][0]["message"]["content"] == "\U0001f600"


def test_usage_is_the_last_of_two_members_with_that_name() -> None:
    twice = '{"choices":[],"usage":{"prompt_tokens":1},"usage":{"prompt_tokens":2}}'
    assert usage_of(STOP, event(twice))[0] == b'{"prompt_tokens":2}'


def test_usage_on_several_lines_of_data_is_kept_with_its_line_ends() -> None:
    stream = b'data: {"choices":[],"usage":{"prompt_tokens":\ndata: 5}}\n\n'
    assert usage_of(STOP, stream)[0] == b'{"prompt_tokens":\n5}'


@pytest.mark.parametrize(
    "empty", ["{}", '{"prompt_tokens":0,"prompt_tokens_details":{"cached_tokens":0}}', '{"cost":0.0}']
)
def test_usage_that_is_all_zero_replaces_none_that_is_not(empty: str) -> None:
    counted = '{"prompt_tokens":1}'
    assert usage_of(STOP, closing(counted), closing(empty)) == (counted.encode(), "top", ())
    assert usage_of(STOP, closing(empty), closing(counted)) == (counted.encode(), "top", ())
    assert usage_of(STOP, closing(empty)) == (empty.encode(), "top", ())


def test_the_same_usage_twice_is_no_multiple_usage() -> None:
    assert usage_of(STOP, closing('{"prompt_tokens":1}'), closing('{"prompt_tokens":1}'))[2] == ()


def test_usage_that_grows_with_each_chunk_is_no_multiple_usage() -> None:
    growing = [chunk({"content": "a"}, usage={"completion_tokens": count}) for count in range(1, 4)]
    assert usage_of(*growing, STOP, closing('{"completion_tokens":4}')) == (b'{"completion_tokens":4}', "top", ())


@pytest.mark.parametrize("nothing", ["null", "[]", "7", '"x"', "true"])
def test_usage_that_is_no_object_is_none(nothing: str) -> None:
    assert usage_of(STOP, closing('{"prompt_tokens":1}'), closing(nothing))[0] == b'{"prompt_tokens":1}'
    assert usage_of(STOP, closing(nothing)) == (None, None, ())


def test_usage_at_the_top_comes_before_that_of_a_choice_and_of_groq() -> None:
    choice = chunk(choice={"usage": {"prompt_tokens": 2}}, finish_reason="stop")
    groq = chunk(x_groq={"usage": {"prompt_tokens": 3}})
    assert usage_of(groq, choice, closing('{"prompt_tokens":1}'))[1] == "top"
    assert usage_of(groq, choice) == (b'{"prompt_tokens": 2}', "choice", ())
    assert usage_of(groq, STOP) == (b'{"prompt_tokens": 3}', "x_groq", ())
    assert usage_of(choice, closing('{"prompt_tokens":0}'))[1] == "choice"


def test_different_usage_in_different_choices_is_flagged() -> None:
    first = chunk(choice={"usage": {"completion_tokens": 2}}, finish_reason="stop")
    second = chunk(choice={"usage": {"completion_tokens": 3}}, finish_reason="stop", index=1)
    assert usage_of(first, second) == (b'{"completion_tokens": 3}', "choice", ("multiple_usage",))


def test_usage_without_any_choice_is_kept() -> None:
    answer = assemble(closing('{"prompt_tokens":1}') + DONE)
    assert (answer.completion, answer.fault, answer.usage) == (None, AnswerKind.empty_stream, b'{"prompt_tokens":1}')


# R13: whole messages


def test_a_message_after_empty_deltas_is_the_answer() -> None:
    whole = {
        "role": "assistant",
        "content": "Hello",
        "tool_calls": [{"id": "a", "function": {"name": "f", "arguments": {}}}],
    }
    stream = chunk({"role": "assistant", "content": ""}) + chunk(None, choice={"delta": None, "message": whole}) + STOP
    found = message(stream)
    assert found["content"] == "Hello"
    assert found["tool_calls"] == [{"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}]


def test_each_call_of_a_whole_message_is_one_call() -> None:
    call = {"index": 0, "function": {"name": "f", "arguments": "{}"}}
    stream = chunk(None, choice={"delta": None, "message": {"tool_calls": [call, call]}}, finish_reason="tool_calls")
    assert len(message(stream)["tool_calls"]) == 2


def test_a_message_keeps_the_members_we_do_not_know() -> None:
    whole = {"content": "a", "vendor": {"x": 1}, "images": [1], "name": "n"}
    found = message(chunk(None, choice={"delta": None, "message": whole}, finish_reason="stop"))
    assert found == {"role": "assistant", **whole}


def test_a_second_message_is_the_first_again() -> None:
    frame = chunk(
        None, choice={"delta": None, "message": {"content": "a"}, "logprobs": {"content": [1]}}, finish_reason="stop"
    )
    answer = assemble(frame + frame)
    assert answer.completion is not None
    assert answer.completion["choices"][0]["message"]["content"] == "a"
    assert answer.completion["choices"][0]["logprobs"]["content"] == [1]


# R14, R15: completeness


@pytest.mark.parametrize(
    ("stream", "n", "fault"),
    [
        (STOP, None, None),
        (STOP, 1, None),
        (STOP + chunk(index=1, finish_reason="stop"), 2, None),
        (STOP + chunk(index=1, finish_reason="stop"), None, None),
        (STOP + chunk({"content": "a"}, index=1), None, AnswerKind.stream_truncated),
        (chunk({"content": "a"}), None, AnswerKind.stream_truncated),
        (chunk({"content": "a"}) + DONE, None, AnswerKind.missing_finish_reason),
        (chunk({"content": "a"}, finish_reason="") + DONE, None, AnswerKind.missing_finish_reason),
        (DONE, None, AnswerKind.empty_stream),
        (b": ping\n\n", None, AnswerKind.empty_stream),
        (b"", 3, AnswerKind.empty_stream),
    ],
)
def test_an_answer_is_complete_if_every_choice_is(stream: bytes, n: int | None, fault: AnswerKind | None) -> None:
    assert assemble(stream, n=n).fault == fault
    assembler = Assembler(n=n, max_bytes=PLENTY)
    assembler.feed(stream)
    assert assembler.finished == (fault is None)


@pytest.mark.parametrize(
    ("stream", "reset", "fault", "flags"),
    [
        (STOP + DONE, False, None, ("choices_missing",)),
        (STOP + DONE, True, None, ("choices_missing", "reset_after_finish")),
        (STOP, False, None, ("choices_missing",)),
        (STOP, True, AnswerKind.stream_truncated, ()),
        (STOP + chunk({"content": "a"}, index=1), False, AnswerKind.stream_truncated, ()),
        (chunk({"content": "a"}) + DONE, False, AnswerKind.missing_finish_reason, ()),
        (STOP + event({"error": "x"}), False, AnswerKind.provider_error, ()),
        (STOP + chunk(index=1, finish_reason="stop") + chunk(index=2, finish_reason="stop"), False, None, ()),
    ],
)
def test_fewer_choices_than_asked_for_are_an_answer_if_the_stream_ended_by_itself(
    stream: bytes, reset: bool, fault: AnswerKind | None, flags: tuple[str, ...]
) -> None:
    answer = assemble(stream, n=3, reset=reset)
    assert (answer.fault, answer.usage_flags) == (fault, flags)


def counted(*deltas: Any, last: str | None = "stop") -> bytes:
    """A stream whose index counts its chunks."""
    return b"".join(
        chunk(delta, index=index, finish_reason=last if index == len(deltas) - 1 else None)
        for index, delta in enumerate(deltas)
    )


def test_an_index_that_counts_tokens_is_one_choice() -> None:
    call = {"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f", "arguments": "{"}}]}
    rest = {"tool_calls": [{"index": 0, "function": {"arguments": "}"}}]}
    answer = assemble(
        counted({"role": "assistant", "content": "Wh"}, {"content": "is"}, {"reasoning": "hm"}, call, rest, {})
    )
    assert answer.fault is None
    assert answer.completion is not None
    (choice,) = answer.completion["choices"]
    assert (choice["index"], choice["finish_reason"]) == (0, "stop")
    assert choice["message"]["content"] == "Whis"
    assert choice["message"]["reasoning"] == "hm"
    assert [made["function"]["arguments"] for made in choice["message"]["tool_calls"]] == ["{}"]


def test_a_counted_stream_that_is_cut_is_truncated_and_one_partial_choice() -> None:
    answer = assemble(counted({"content": "a"}, {"content": "b"}, last=None))
    assert answer.fault == AnswerKind.stream_truncated
    assert answer.completion is not None
    assert [choice["message"]["content"] for choice in answer.completion["choices"]] == ["ab"]


@pytest.mark.parametrize(
    ("stream", "n"),
    [
        (chunk({"content": "a"}) + chunk({"content": "b"}, index=1) + chunk({"content": "c"}), None),
        (chunk({"content": "a"}, index=1) + chunk({"content": "b"}, finish_reason="stop"), None),
        (chunk({"content": "a"}) + chunk({"content": "b"}, index=1, finish_reason="stop"), 2),
        (chunk({"content": "a"}, finish_reason="stop") + chunk({"content": "b"}, index=1, finish_reason="stop"), None),
    ],
)
def test_choices_that_come_again_or_out_of_order_or_were_asked_for_are_several(stream: bytes, n: int | None) -> None:
    answer = assemble(stream, n=n)
    assert answer.completion is not None
    assert len(answer.completion["choices"]) == 2


def test_a_reset_after_every_finish_reason_costs_nothing_but_a_flag() -> None:
    answer = assemble(chunk({"content": "a"}) + STOP, reset=True)
    assert (answer.fault, answer.usage, answer.usage_flags) == (None, None, ("reset_after_finish",))


def test_a_reset_before_is_a_truncated_stream() -> None:
    answer = assemble(chunk({"content": "a"}), reset=True)
    assert (answer.fault, answer.usage_flags) == (AnswerKind.stream_truncated, ())


def test_finishing_twice_says_the_same() -> None:
    assembler = Assembler(max_bytes=PLENTY)
    assembler.feed(chunk({"content": "a", "audio": {"data": "AQ=="}}))
    assert assembler.finish() == assembler.finish()


# numbers


def test_numbers_no_double_holds_keep_their_text_and_nan_becomes_null() -> None:
    delta = '{"list":[NaN,-Infinity,Infinity,1e400,-1e999,0.1]}'
    assert message(event(f'{{"choices":[{{"delta":{delta},"finish_reason":"stop"}}]}}'))["list"] == [
        None,
        None,
        None,
        "1e400",
        "-1e999",
        0.1,
    ]


def test_integers_of_any_length_are_read() -> None:
    long = "9" * 5000
    text = f'{{"choices":[{{"delta":{{"content":"a","list":[{2**70},{long}]}},"finish_reason":"stop"}}]}}'
    assert message(event(text))["list"] == [2**70, long]


# The result of `feed`


@pytest.mark.parametrize(
    ("piece", "events"),
    [
        (chunk({"content": "a"}), 1),
        (chunk({"content": "a"}) * 5, 5),
        (chunk({"content": "a"})[:-1], 0),
        (b": ping\n\n", 0),
        (b"data:\n\n", 0),
        (event({"type": "ping"}), 0),
        (event({"error": "x"}), 1),
        (event("nonsense"), 1),
        (closing('{"prompt_tokens":1}'), 1),
        (STOP + DONE + STOP, 2),
        (b"", 0),
    ],
)
def test_feed_counts_the_events_of_an_answer(piece: bytes, events: int) -> None:
    assert Assembler(max_bytes=PLENTY).feed(piece) == events


def test_after_done_nothing_is_taken() -> None:
    assembler = Assembler(max_bytes=PLENTY)
    assembler.feed(STOP + DONE)
    assert assembler.feed(chunk({"content": "late"}) + event({"error": "late"})) == 0
    assert assembler.finish().fault is None


# the byte budget


def test_bytes_beyond_the_budget_are_not_taken() -> None:
    first = chunk({"content": "a"})
    assembler = Assembler(max_bytes=len(first) + 10)
    assembler.feed(first + chunk({"content": "b"}))
    assert assembler.feed(chunk({"content": "c"}) + STOP + DONE) == 0
    assert assembler.failed
    answer = assembler.finish()
    assert answer.fault == AnswerKind.answer_too_large
    assert answer.completion is not None
    assert answer.completion["choices"][0]["message"]["content"] == "a"


def test_a_stream_of_exactly_the_budget_is_taken_whole() -> None:
    stream = chunk({"content": "a"}) + STOP
    assembler = Assembler(max_bytes=len(stream))
    assembler.feed(stream)
    assert assembler.finish().fault is None


def test_a_complete_answer_followed_by_too_much_is_complete() -> None:
    stream = chunk({"content": "a"}) + STOP
    assembler = Assembler(max_bytes=len(stream))
    assembler.feed(stream + b": ping\n\n" * 10)
    assert not assembler.failed
    assert assembler.finish().fault is None


@pytest.mark.parametrize(
    "piece",
    [
        b"x" * 997,
        b": comment\n",
        b"data: x\n",
        chunk({"content": "word"}),
        chunk({"tool_calls": [{"function": {"name": "f"}, "id": "1"}]}),
        b'data: {"choices":[{"delta":{"l":[[],[],[],[],[],[],[],[],[],[]]}}]}\n\n',
        "data: {}\n\n".encode("utf-16"),
    ],
    ids=["a line", "comments", "an event", "text", "a call", "lists", "noise"],
)
def test_memory_is_bounded_by_the_budget_however_long_the_stream(piece: bytes) -> None:
    budget = 200_000
    tracemalloc.start()
    assembler = Assembler(max_bytes=budget)
    for _ in range(5 * budget // len(piece)):
        assembler.feed(piece)
    assembler.finish()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # A JSON value takes at most some forty times its text in memory: `[]` and a comma become 56 bytes and a reference.
    assert peak < 50 * budget


def test_a_token_costs_its_letters_and_little_more() -> None:
    tracemalloc.start()
    assembler = Assembler(max_bytes=PLENTY)
    for number in range(5000):
        assembler.feed(chunk({"content": f"w{number % 10}", "reasoning_content": "é"}))
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert held < 5000 * 4 * 1.3 + 20_000


def test_a_choice_or_a_call_for_every_few_bytes_stays_within_the_bound() -> None:
    budget = 200_000
    tracemalloc.start()
    assembler = Assembler(max_bytes=budget)
    for index in range(budget // 40):
        assembler.feed(b'data: {"choices":[{"index":%d,"delta":{}}]}\n\n' % index)
        assembler.feed(b'data: {"choices":[{"delta":{"tool_calls":[{"index":%d}]}}]}\n\n' % index)
    assembler.finish()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50 * budget
