"""Answers that are one JSON body, and the columns of every answer."""

import base64
import json
from typing import Any

import pytest

from tests.chat.stream_texts import assemble, said
from worker.chat.answer import AnswerKind, Columns, columns, has_output, read_body

CHOICE = {"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}


def body(**members: Any) -> bytes:
    return json.dumps({"id": "c1", "object": "chat.completion", "model": "m", "choices": [CHOICE], **members}).encode()


def test_an_answer_stays_as_it_came() -> None:
    whole = {"id": "c1", "choices": [{**CHOICE, "x": 1}], "usage": {"prompt_tokens": 1}, "vendor": [1, {"a": None}]}
    answer = read_body(json.dumps(whole).encode())
    assert (answer.completion, answer.fault, answer.provider) == (whole, None, None)
    assert (answer.usage, answer.usage_source, answer.usage_flags) == (b'{"prompt_tokens": 1}', "top", ())


@pytest.mark.parametrize("before", [b"\n\n\n", b"\r\n \t\r\n", b"\xef\xbb\xbf", b"\xef\xbb\xbf\n"])
def test_blank_lines_and_a_byte_order_mark_before_the_json_are_skipped(before: bytes) -> None:
    assert read_body(before + body() + b"\n").fault is None


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (b"", AnswerKind.empty_stream),
        (b"\n\n", AnswerKind.empty_stream),
        (b"<!doctype html><html><body>Sign in</body></html>", AnswerKind.unexpected_content_type),
        (b"upstream connect error", AnswerKind.unexpected_content_type),
        (b'data: {"choices":[]}\n\n', AnswerKind.unexpected_content_type),
        (b"\xff\xfe\x00", AnswerKind.unexpected_content_type),
        (b"\x1f\x8b\x08", AnswerKind.unexpected_content_type),
        (b"[]", AnswerKind.invalid_chunk),
        (b"null", AnswerKind.invalid_chunk),
        (b'"text"', AnswerKind.invalid_chunk),
        (b"{'choices': 1}", AnswerKind.invalid_chunk),
        (body()[:-5], AnswerKind.stream_truncated),
        (body()[:20], AnswerKind.stream_truncated),
        (b'{"a":' * 100_000, AnswerKind.stream_truncated),
        (b'{"choices": [{"index": 0,}], "id": "x"', AnswerKind.invalid_chunk),
        (b'{"choices": [{"a": 1} {"a": 2}', AnswerKind.invalid_chunk),
        (b"{'choices': [", AnswerKind.invalid_chunk),
        (b'{"choices": tomorrow', AnswerKind.invalid_chunk),
        (b'{"choices": 12 34', AnswerKind.invalid_chunk),
        (b'{"choices": abc', AnswerKind.invalid_chunk),
        (b'{"a": "\x01", "b": [', AnswerKind.invalid_chunk),
        (b'{"a":' * 300 + b"1" + b"}" * 300, AnswerKind.invalid_chunk),
        (b"{}", AnswerKind.empty_stream),
        (b'{"choices":null}', AnswerKind.empty_stream),
        (b'{"choices":[]}', AnswerKind.empty_stream),
        (b'{"choices":[null]}', AnswerKind.empty_stream),
        (b'{"choices":{"0":{}}}', AnswerKind.empty_stream),
    ],
)
def test_a_body_without_a_completion_is_a_fault(text: bytes, fault: AnswerKind) -> None:
    answer = read_body(text)
    assert (answer.fault, answer.completion, answer.usage) == (fault, None, None)


def test_a_body_is_called_cut_wherever_it_was_cut() -> None:
    whole = '{"a": [1, -2.5e+7, true, false, null, {"b": "\\u00e9\\n\\"x"}], "c": {}, "choices": [{"index": 0}]}'
    cuts = [whole[:end] for end in range(1, len(whole))]

    faults = {cut: read_body(cut.encode()).fault for cut in cuts if not cut.rstrip().endswith("}")}

    assert {cut for cut, fault in faults.items() if fault is not AnswerKind.stream_truncated} == set()


@pytest.mark.parametrize("error", ["overloaded", {"message": "m", "type": "t", "code": ""}, {"code": 1214}, [1]])
def test_an_error_under_status_200_is_an_error(error: Any) -> None:
    answer = read_body(json.dumps({"error": error}).encode())
    assert (answer.fault, answer.provider, answer.completion) == (AnswerKind.provider_error, error, None)


@pytest.mark.parametrize(
    ("value", "provider"),
    [
        ({"detail": "Not Found"}, ...),
        ({"message": "no"}, ...),
        ({"code": "InvalidApiKey", "message": "no", "request_id": "r"}, ...),
        ({"base_resp": {"status_code": 2049, "status_msg": "no"}}, {"status_code": 2049, "status_msg": "no"}),
        ([{"error": {"code": 400}}], {"code": 400}),
    ],
)
def test_an_error_of_any_shape_under_status_200_is_an_error(value: Any, provider: Any) -> None:
    answer = read_body(json.dumps(value).encode())
    assert (answer.fault, answer.completion) == (AnswerKind.provider_error, None)
    assert answer.provider == (value if provider is ... else provider)


def test_an_array_around_an_answer_is_no_reason_to_buy_another() -> None:
    answer = read_body(b"[" + body(usage={"prompt_tokens": 2}) + b"]")
    assert (answer.fault, answer.usage) == (None, b'{"prompt_tokens":2}')
    assert columns(answer.completion).content == "Hi"


@pytest.mark.parametrize("junk", [b"<script>", b"\n\ndata: [DONE]\n\n", b"{}", b"\x00", b"}"])
def test_junk_after_a_whole_answer_does_not_undo_it(junk: bytes) -> None:
    answer = read_body(body(usage={"prompt_tokens": 2}) + junk)
    assert (answer.fault, answer.usage, answer.usage_flags) == (None, b'{"prompt_tokens": 2}', ("error_after_finish",))
    failed = read_body(b'{"error": "no"}' + junk)
    assert (failed.fault, failed.provider) == (AnswerKind.provider_error, "no")


@pytest.mark.parametrize("text", [b"{}x", b'{"choices":[]}x', b'{"a":1}{"a":2}', b'"text" x', b"7 x"])
def test_junk_after_no_answer_is_a_fault(text: bytes) -> None:
    assert read_body(text).fault in (
        AnswerKind.stream_truncated,
        AnswerKind.invalid_chunk,
        AnswerKind.unexpected_content_type,
    )


NOTHING = {"role": "assistant", "content": "", "refusal": None, "name": "AI"}


@pytest.mark.parametrize(
    ("choices", "provider"),
    [
        ([{"message": NOTHING, "finish_reason": "error", "error": {"code": 502}}], {"code": 502}),
        ([{"message": NOTHING, "finish_reason": "stop", "error": "no"}], "no"),
        (
            [{"message": NOTHING, "finish_reason": "error", "native_finish_reason": "SAFETY", "index": 0}],
            {"finish_reason": "error", "native_finish_reason": "SAFETY"},
        ),
        ([{"message": None, "finish_reason": "network_error"}], {"finish_reason": "network_error"}),
        ([{"finish_reason": "insufficient_system_resource"}] * 2, {"finish_reason": "insufficient_system_resource"}),
        ([{"finish_reason": "malformed_function_call"}], {"finish_reason": "malformed_function_call"}),
    ],
)
def test_an_end_in_an_error_with_nothing_before_it_is_no_answer(choices: Any, provider: Any) -> None:
    answer = read_body(body(choices=choices))
    assert (answer.fault, answer.provider) == (AnswerKind.provider_error, provider)
    assert answer.completion is not None


@pytest.mark.parametrize(
    "choices",
    [
        [{"message": {"content": "half"}, "finish_reason": "error"}],
        [{"message": NOTHING, "finish_reason": "stop"}],
        [{"message": None, "finish_reason": "content_filter"}],
        [{"message": NOTHING, "finish_reason": {"type": "error"}}],
        [{"message": {"content": "a"}, "finish_reason": "stop"}, {"message": NOTHING, "finish_reason": "error"}],
    ],
)
def test_any_other_end_is_an_answer(choices: Any) -> None:
    assert read_body(body(choices=choices)).fault is None


def test_an_error_beside_choices_keeps_them_as_a_partial_answer() -> None:
    answer = read_body(body(error={"code": 502}, usage={"prompt_tokens": 2}))
    assert (answer.fault, answer.provider, answer.usage) == (
        AnswerKind.provider_error,
        {"code": 502},
        b'{"prompt_tokens": 2}',
    )
    assert answer.completion is not None


def test_an_error_at_the_top_level_is_the_whole_object() -> None:
    error = {"object": "error", "message": "m", "code": 400}
    assert read_body(json.dumps(error).encode()).provider == error


@pytest.mark.parametrize("error", [None, {}, "", False])
def test_an_empty_error_is_none(error: Any) -> None:
    assert read_body(body(error=error)).fault is None


@pytest.mark.parametrize("without", ["id", "object", "model", "usage", "created"])
def test_a_missing_member_fails_nothing(without: str) -> None:
    whole = json.loads(body())
    whole.pop(without, None)
    assert read_body(json.dumps(whole).encode()).completion == whole


@pytest.mark.parametrize("choice", [{}, {"message": None}, {"message": {}}, {"message": "x", "finish_reason": 7}])
def test_a_choice_without_a_message_fails_nothing(choice: dict[str, Any]) -> None:
    answer = read_body(body(choices=[choice]))
    assert answer.fault is None
    assert columns(answer.completion).content is None


def test_tool_arguments_that_are_an_object_become_their_text() -> None:
    def calls(arguments: Any) -> list[Any]:
        return [{"message": {"tool_calls": [{"id": "a", "function": {"name": "f", "arguments": arguments}}, None, {}]}}]

    answer = read_body(body(choices=calls({"city": "Köln"})))
    assert answer.completion is not None
    assert answer.completion["choices"] == calls('{"city":"Köln"}')


@pytest.mark.parametrize(
    ("members", "source"),
    [
        ({"usage": {"prompt_tokens": 1}, "x_groq": {"usage": {"prompt_tokens": 2}}}, "top"),
        ({"usage": None, "choices": [{**CHOICE, "usage": {"prompt_tokens": 1}}]}, "choice"),
        ({"x_groq": {"usage": {"prompt_tokens": 1}}}, "x_groq"),
    ],
)
def test_usage_is_found_where_providers_put_it(members: dict[str, Any], source: str) -> None:
    answer = read_body(body(**members))
    assert (answer.usage, answer.usage_source) == (b'{"prompt_tokens": 1}', source)


def test_usage_is_the_exact_text() -> None:
    text = b'{ "prompt_tokens":1e1 ,\n"x":{"y":[1.10,2]},"z":123456789012345678901234567890}'
    answer = read_body(b'\n{"choices":[{}], "a":"\\"usage\\":{}", "usage" : ' + text + b' ,"b":1}')
    assert answer.usage == text


def test_numbers_no_double_holds_keep_their_text_and_nan_becomes_null() -> None:
    answer = read_body(
        b'{"choices":[{}],"a":NaN,"b":-Infinity,"c":1e999,"d":' + b"9" * 5000 + b',"e":12345678901234567890123}'
    )
    assert answer.completion is not None
    assert {key: answer.completion[key] for key in "abcde"} == {
        "a": None,
        "b": None,
        "c": "1e999",
        "d": "9" * 5000,
        "e": 12345678901234567890123,
    }


def test_megabytes_of_audio_are_an_answer() -> None:
    data = base64.b64encode(bytes(range(256)) * 16_384).decode()
    answer = read_body(body(choices=[{"message": {"content": None, "audio": {"id": "a", "data": data}}}]))
    assert answer.completion is not None
    assert answer.completion["choices"][0]["message"]["audio"]["data"] == data
    assert has_output(answer.completion)


# columns


def of_message(message: Any, **choice: Any) -> Columns:
    return columns({"choices": [{"index": 0, "message": message, **choice}]})


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ({"content": "a"}, {"content": "a"}),
        ({"content": ""}, {"content": ""}),
        ({"content": None}, {}),
        ({"content": {"a": 1}}, {}),
        ({"content": 7}, {}),
        (
            {"content": [{"type": "text", "text": "a"}, {"type": "image_url"}, {"type": "text", "text": "b"}]},
            {"content": "ab"},
        ),
        (
            {
                "content": [
                    {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
                    {"type": "text", "text": "a"},
                ]
            },
            {"content": "a", "reasoning_content": "hm"},
        ),
        ({"content": [{"text": "\ud83d"}, {"text": "\ude00"}]}, {"content": "\U0001f600"}),
        ({"content": "a\0b\ud83d"}, {"content": "a\ufffdb\ufffd"}),
        ({"reasoning_content": "a", "reasoning": "b"}, {"reasoning_content": "a"}),
        ({"reasoning": "b"}, {"reasoning_content": "b"}),
        ({"reasoning_content": None, "reasoning": "b"}, {"reasoning_content": "b"}),
        ({"reasoning_content": {"text": "a"}}, {"reasoning_content": "a"}),
        ({"reasoning": {"content": "a"}}, {"reasoning_content": "a"}),
        ({"reasoning_text": "a", "reasoning_opaque": "x"}, {"reasoning_content": "a"}),
        ({"thinking": "a"}, {"reasoning_content": "a"}),
        ({"thinking_blocks": [{"type": "thinking", "thinking": "a", "signature": "s"}]}, {"reasoning_content": "a"}),
        (
            {
                "reasoning_details": [
                    {"type": "reasoning.summary", "summary": "a"},
                    {"type": "reasoning.text", "text": "b", "signature": "s"},
                    {"type": "reasoning.encrypted", "data": "x"},
                ]
            },
            {"reasoning_content": "ab"},
        ),
        (
            {"reasoning_details": [{"text": "The"}, {"text": "The us"}, {"text": "The user"}]},
            {"reasoning_content": "The user"},
        ),
        ({"reasoning_details": [{"text": "ha"}, {"text": "ha"}]}, {"reasoning_content": "haha"}),
        ({"reasoning": "a", "reasoning_details": [{"text": "a"}]}, {"reasoning_content": "a"}),
        (
            {"content": [{"type": "reasoning", "summary": [{"type": "summary_text", "text": "a"}]}, {"text": "b"}]},
            {"content": "b", "reasoning_content": "a"},
        ),
        (
            {"content": [{"type": "text", "text": "a", "thought": True}, {"text": "b"}]},
            {"content": "b", "reasoning_content": "a"},
        ),
        ({"content": [{"type": "redacted_thinking", "data": "x"}, {"text": "b"}]}, {"content": "b"}),
        ({"refusal": "no"}, {"refusal": "no"}),
        ({"tool_calls": []}, {}),
        ({"tool_calls": None}, {}),
        ({"tool_calls": {"a": 1}}, {}),
        ({"tool_calls": [{"id": "a", "x": "\0é\ud83d"}]}, {"tool_calls": '[{"id":"a","x":"\\ufffdé\ufffd"}]'}),
        (None, {}),
        ("text", {}),
    ],
)
def test_the_columns_of_a_message(message: Any, expected: dict[str, str]) -> None:
    assert of_message(message) == Columns(**expected)


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("stop", "stop"),
        ("eos_token", "eos_token"),
        ("", None),
        (None, None),
        ({"type": "stop"}, None),
        ("a\0", "a\ufffd"),
    ],
)
def test_the_finish_reason_is_kept_as_it_came(reason: Any, expected: str | None) -> None:
    assert of_message({}, finish_reason=reason).finish_reason == expected


def test_the_columns_of_an_answer_are_those_of_choice_0() -> None:
    choices = [{"index": 1, "message": {"content": "b"}}, {"index": 0, "message": {"content": "a"}}]
    assert columns({"choices": choices}).content == "a"
    assert columns({"choices": choices[:1]}).content == "b"
    assert columns({"choices": [None, {"message": {"content": "c"}}]}).content == "c"


def test_names_may_be_missing_empty_or_numbers() -> None:
    assert columns({"id": 7, "model": "", "system_fingerprint": "f\0"}) == Columns(
        response_id="7", system_fingerprint="f\ufffd"
    )


def test_no_answer_has_no_columns() -> None:
    assert columns(None) == columns({}) == columns({"choices": None}) == Columns()


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ({"role": "assistant", "content": None}, False),
        ({"content": ""}, False),
        ({"content": "", "reasoning_content": "a"}, True),
        ({"content": "a"}, True),
        ({"refusal": "no"}, True),
        ({"tool_calls": [{}]}, True),
        ({"tool_calls": []}, False),
    ],
)
def test_whether_anything_was_generated(message: dict[str, Any], expected: bool) -> None:
    assert has_output({"choices": [{"message": {}}, {"message": message}]}) == expected


def test_nothing_was_generated_where_there_is_no_answer() -> None:
    assert not has_output(None)
    assert not has_output({"choices": "x"})


def test_a_stream_and_a_body_give_the_same_columns() -> None:
    streamed = assemble(said({"role": "assistant", "content": "H"}, {"content": "i"})).completion
    whole = read_body(body()).completion
    assert columns(streamed) == columns({**(whole or {}), "id": "c1"})
