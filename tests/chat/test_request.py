"""The rules for each field of a request, in the three levels of validation, and the body sent to the endpoint."""

import json
import math

import pytest

from worker.chat.request import validate, wire_body
from worker.core.faults import FAULT_LIMIT, Fault, unsendable

MINIMAL = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
TOOL = {"type": "function", "function": {"name": "look_up", "parameters": {}}}
AUDIO = {"voice": "alloy", "format": "mp3"}
RESPONSE_SCHEMA = {"type": "json_schema", "json_schema": {"name": "city", "schema": {}}}


def faults(mode="document", **fields):
    return validate({**MINIMAL, **fields}, mode)


def paths(mode="document", **fields):
    return [fault.path.removeprefix("request.") for fault in faults(mode, **fields)]


def of_message(**message):
    return [path.removeprefix("messages[0]") for path in paths(messages=[message])]


def function(name):
    return {"type": "function", "function": {"name": name}}


GOOD = {
    "model": ["m", "vendor/model:free"],
    "temperature": [0, 2, 0.5, 1],
    "top_p": [0, 1, 0.95],
    "n": [1, 2, 129, 10**30],
    "stream": [True, False],
    "stop": ["", "x", [], ["a"], ["a", "b", "c", "d"], ["a"] * 16],
    "max_tokens": [1, 2**40, 0, -1],
    "max_completion_tokens": [1, -1],
    "presence_penalty": [-2, 2, 0.1],
    "frequency_penalty": [-2, 2, -0.1],
    "logit_bias": [{}, {"0": 100, "50256": -100, "7": 0.5}, {"word": 1}, {"1": 101}],
    "user": ["", "u"],
    "tools": [
        [],
        [TOOL],
        [{"type": "custom", "custom": {"name": "x"}}, {"type": "web_search"}],
        [function("weather.look_up")],
    ],
    "response_format": [{"type": "text"}, {"type": "json_object"}, RESPONSE_SCHEMA, {"type": "grammar"}],
    "seed": [0, -(2**63), 2**63 - 1, 2**64],
    "reasoning_effort": ["low", "medium", "high"],
    "modalities": [["text"], []],
}

BAD = {
    "model": ["", 5, True, ["m"]],
    "messages": [[], "hello", {}, [5], [None]],
    "temperature": [-0.1, 2.1, True, "1", [1], math.nan, math.inf],
    "top_p": [-0.1, 1.1, False, "0.5"],
    "n": [0, -1, 2.0, 1.5, True, "1"],
    "stream": [0, 1, "true"],
    "stream_options": ["x", [], True],
    "stop": [5, ["a", 1], [None], {}],
    "max_tokens": [1.0, True, "1"],
    "max_completion_tokens": ["1", 1.5],
    "presence_penalty": [-2.1, 2.1, "0"],
    "frequency_penalty": [-2.1, 2.1, True],
    "logit_bias": [[], "x", 5],
    "user": [5, ["u"]],
    "tools": [{}, "x", [5], [{}], [{"type": 5}], [{"type": "function"}], [{"type": "function", "function": {}}]],
    "tool_choice": [5, True, []],
    "response_format": ["text", {}, {"type": 1}, {"type": "json_schema"}, {"type": "json_schema", "json_schema": {}}],
    "seed": [1.5, 2.0, "1", True],
    "reasoning_effort": ["xhigh", "", 1, True, ["low"]],
    "modalities": ["text", [""], [1], {}],
    "audio": ["alloy", {}, {"voice": "alloy"}, {"format": "mp3"}, {"voice": 1, "format": "mp3"}],
}


@pytest.mark.parametrize(("field", "value"), [(field, value) for field, values in GOOD.items() for value in values])
def test_a_value_the_document_allows_passes(field, value):
    assert faults(**{field: value}) == []


@pytest.mark.parametrize(("field", "value"), [(field, value) for field, values in BAD.items() for value in values])
def test_a_value_the_document_does_not_allow_is_a_fault_at_its_path(field, value):
    found = paths(**{field: value})
    assert found
    assert all(path == field or path.startswith((f"{field}[", f"{field}.")) for path in found)


@pytest.mark.parametrize("field", sorted(set(GOOD) - {"model"} | {"stream_options", "tool_choice", "audio"}))
@pytest.mark.parametrize("mode", ["document", "openai", "shape"])
def test_an_optional_field_that_is_null_counts_as_absent(field, mode):
    assert faults(mode, **{field: None}) == []


def test_undocumented_fields_pass_unchanged():
    assert faults(top_k=-1, thinking={"type": "enabled"}, logprobs="whatever", n_predict=None) == []


@pytest.mark.parametrize("field", ["model", "messages"])
def test_what_is_required_is_missed_whether_absent_or_null(field):
    absent = {name: value for name, value in MINIMAL.items() if name != field}
    assert [fault.path for fault in validate(absent)] == [f"request.{field}"]
    assert "missing" in validate(absent)[0].message
    assert "null" in validate({**MINIMAL, field: None})[0].message


def test_all_faults_are_reported_together():
    found = paths(temperature=3, n=0, seed="x", messages=[{"role": "tool", "content": 5}])
    assert found == ["messages[0].content", "messages[0].tool_call_id", "temperature", "n", "seed"]


def test_a_fault_says_the_value_and_what_is_allowed():
    assert faults(temperature=3) == [Fault("request.temperature", "is 3; the document allows 0 to 2")]


def test_a_hundred_faults_are_enough():
    assert len(faults(messages=[5] * 10_000)) == FAULT_LIMIT


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"stream_options": {}, "stream": False}, "stream_options"),
        ({"stream_options": {}, "stream": None}, "stream_options"),
        ({"stream_options": {"include_usage": 1}, "stream": True}, "stream_options.include_usage"),
        ({"tool_choice": "auto"}, "tool_choice"),
        ({"tool_choice": "none", "tools": []}, "tool_choice"),
        ({"tool_choice": {}, "tools": [TOOL]}, "tool_choice.type"),
        ({"tool_choice": {"type": "function"}, "tools": [TOOL]}, "tool_choice.function"),
        (
            {"tool_choice": {"type": "function", "function": {"name": "x"}}, "tools": [TOOL]},
            "tool_choice.function.name",
        ),
        ({"modalities": ["text", "audio"]}, "audio"),
        ({"audio": AUDIO}, "audio"),
        ({"audio": AUDIO, "modalities": ["text"]}, "audio"),
        (
            {"tools": [{"type": "function", "function": {"name": "a", "parameters": []}}]},
            "tools[0].function.parameters",
        ),
    ],
)
def test_fields_that_do_not_go_together_are_a_fault(fields, path):
    assert paths(**fields) == [path]


@pytest.mark.parametrize(
    "fields",
    [
        {"stream_options": {"include_usage": False, "include_obfuscation": False}, "stream": True},
        {"tool_choice": "required", "tools": [TOOL]},
        {"tool_choice": "any", "tools": [TOOL]},
        {"tool_choice": {"type": "function", "function": {"name": "look_up"}}, "tools": [TOOL]},
        {"tool_choice": {"type": "allowed_tools", "allowed_tools": {}}, "tools": [TOOL]},
        {"audio": AUDIO, "modalities": ["text", "audio"]},
        {"audio": {"voice": {"id": "voice_1"}, "format": "wav"}, "modalities": ["audio"]},
        {"max_tokens": 5, "max_completion_tokens": 5},
    ],
)
def test_fields_that_go_together_pass(fields):
    assert faults(**fields) == []


@pytest.mark.parametrize(
    "message",
    [
        {"role": "system", "content": "x"},
        {"role": "developer", "content": [{"type": "text", "text": ""}], "name": "n"},
        {"role": "user", "content": ""},
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://x/y.png", "detail": "low"}}]},
        {"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}}]},
        {"role": "user", "content": [{"type": "file", "file": {"file_id": "f"}}]},
        {"role": "user", "content": [{"type": "video_url", "video_url": "x", "cache_control": {}}]},
        {"role": "assistant", "content": None},
        {
            "role": "assistant",
            "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": ""}}],
        },
        {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]},
        {"role": "assistant", "tool_calls": [{"id": "1", "type": "custom", "custom": {}}]},
        {"role": "assistant", "function_call": {"name": "f", "arguments": "{}"}},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}], "refusal": None},
        {"role": "assistant", "content": "", "reasoning_content": "hm", "prefix": True},
        {"role": "assistant", "audio": {"id": "audio_1"}},
        {"role": "tool", "tool_call_id": "1", "content": "42"},
        {"role": "function", "name": "f", "content": None},
        {"role": "observer", "anything": "else"},
    ],
)
def test_a_message_of_every_role_passes(message):
    assert of_message(**message) == []


@pytest.mark.parametrize(
    ("message", "path"),
    [
        ({"content": "x"}, ".role"),
        ({"role": "", "content": "x"}, ".role"),
        ({"role": 5, "content": "x"}, ".role"),
        ({"role": "user"}, ".content"),
        ({"role": "user", "content": None}, ".content"),
        ({"role": "user", "content": 5}, ".content"),
        ({"role": "system", "content": {}}, ".content"),
        ({"role": "assistant"}, ".content"),
        ({"role": "tool", "content": "x"}, ".tool_call_id"),
        ({"role": "tool", "content": "x", "tool_call_id": 5}, ".tool_call_id"),
        ({"role": "function", "content": "x"}, ".name"),
        ({"role": "function", "name": "f"}, ".content"),
        ({"role": "user", "content": "x", "name": 5}, ".name"),
        ({"role": "user", "content": ["x"]}, ".content[0]"),
        ({"role": "user", "content": [{"text": "x"}]}, ".content[0].type"),
        ({"role": "user", "content": [{"type": "text"}]}, ".content[0].text"),
        ({"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}, ".content[0].image_url"),
        ({"role": "user", "content": [{"type": "image_url", "image_url": {}}]}, ".content[0].image_url.url"),
        (
            {"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "x"}}]},
            ".content[0].input_audio.format",
        ),
        ({"role": "user", "content": [{"type": "file", "file": {"file_id": 5}}]}, ".content[0].file.file_id"),
        ({"role": "assistant", "content": [{"type": "refusal"}]}, ".content[0].refusal"),
        ({"role": "assistant", "tool_calls": {}}, ".tool_calls"),
        ({"role": "assistant", "tool_calls": [{"type": "function"}]}, ".tool_calls[0].function"),
        (
            {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": {}}}]},
            ".tool_calls[0].function.arguments",
        ),
        ({"role": "assistant", "function_call": {"name": "f"}}, ".function_call.arguments"),
        ({"role": "assistant", "content": "", "refusal": 5}, ".refusal"),
        ({"role": "assistant", "content": "", "audio": "x"}, ".audio"),
    ],
)
def test_a_message_of_the_wrong_shape_is_a_fault_at_its_path(message, path):
    assert of_message(**message) == [path]


@pytest.mark.parametrize("effort", ["none", "minimal", "xhigh", "max"])
def test_efforts_beyond_the_document_need_another_setting(effort):
    [fault] = faults(reasoning_effort=effort)
    assert 'validation is "openai"' in fault.message
    assert faults("openai", reasoning_effort=effort) == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_tokens", 0), ("max_tokens", -1), ("max_completion_tokens", 0), ("seed", 2**63), ("seed", -(2**63) - 1),
        ("response_format", {"type": "json_schema", "json_schema": {"name": "a b"}}),
        *(("tools", [function(name)]) for name in ("weather.look_up", "a b", "a" * 65, "a\n")),
        *(("logit_bias", bias) for bias in ({"a": 1}, {"²": 1}, {"": 1}, {"1": 101}, {"1": -100.5}, {"1": "5"})),
    ],
)  # fmt: skip
def test_a_bound_of_openai_alone_holds_where_openai_validates(field, value):
    assert faults("document", **{field: value}) == []
    assert len(faults("openai", **{field: value})) == 1


def test_the_words_of_a_tool_choice_are_openais():
    assert faults("document", tool_choice="any", tools=[TOOL]) == []
    assert paths("openai", tool_choice="any", tools=[TOOL]) == ["tool_choice"]


def test_both_token_limits_together_need_the_document():
    [fault] = faults("openai", max_tokens=5, max_completion_tokens=5)
    assert fault.path == "request.max_tokens" and 'validation to "document"' in fault.message


def test_openai_bounds_n_and_the_refusal_names_the_setting():
    [fault] = faults("openai", n=129)
    assert "1 to 128" in fault.message and "validation" in fault.message


@pytest.mark.parametrize("stop", [[], ["a"] * 5])
def test_openai_bounds_the_stop_sequences_and_the_refusal_names_the_setting(stop):
    [fault] = faults("openai", stop=stop)
    assert "1 to 4" in fault.message and "validation" in fault.message
    assert paths("openai", stop=["a", 5]) == ["stop[1]"]


def test_openai_holds_to_the_documents_ranges_too():
    assert paths("openai", temperature=3, reasoning_effort="extreme") == ["temperature", "reasoning_effort"]


def test_shape_checks_types_and_no_ranges():
    assert (
        paths(
            "shape", temperature=9, n=0, stop=["x"] * 9, reasoning_effort="extreme", tool_choice="x", stream_options={}
        )
        == []
    )
    assert paths("shape", temperature="9", n=1.5, stop=5, reasoning_effort=5, tool_choice=5, stream_options=5) == [
        "temperature", "n", "stop", "reasoning_effort", "tool_choice", "stream_options",
    ]  # fmt: skip
    assert paths("shape", messages=[{"role": "user", "content": [{"type": "text"}]}]) == []
    assert paths("shape", messages=[{"role": "user", "content": [{}]}]) == ["messages[0].content[0].type"]


def test_nan_and_lone_surrogates_are_found_with_their_paths():
    value = json.loads(r'{"a": [NaN, 1e999], "b": {"c": "\ud800x"}, "\udfff": 1, "ok": "\ud83d\ude00"}')
    found = [fault.path for fault in unsendable("request", value)]
    assert found == ["request.a[0]", "request.a[1]", "request.b.c", "request"]


def test_faults_can_always_be_stored():
    request = json.loads(r'{"model": "\ud800\u0000", "messages": [], "logit_bias": {"\udfff\u0000": 1}}')
    found = [*validate(request, "openai"), *unsendable("request", request)]
    assert len(found) == 4
    for fault in found:
        assert "\0" not in (fault.path + fault.message).encode().decode()


def test_a_long_or_nested_value_is_shown_in_few_characters():
    [fault] = faults(temperature="x" * 10_000)
    assert len(fault.message) < 120
    [fault] = faults(user=["secret"])
    assert fault.message == "is an array of 1 elements; send a string"


@pytest.mark.parametrize(
    ("request_text", "body", "added"),
    [
        ('{"stream": true}', '{"stream": true,"stream_options":{"include_usage":true}}', True),
        (
            '{"stream":true, "stream_options": null }',
            '{"stream":true, "stream_options": {"include_usage":true} }',
            True,
        ),
        ('{"stream":true,"stream_options":{ }}', '{"stream":true,"stream_options":{"include_usage":true }}', True),
        (
            '{"stream":true,"stream_options":{"include_obfuscation": false}, "x": 1.50}',
            '{"stream":true,"stream_options":{"include_obfuscation": false,"include_usage":true}, "x": 1.50}',
            True,
        ),
        ('{"stream":true,"stream_options":{"include_usage": false}}', None, False),
        ('{"stream":true,"stream_options":{"include_usage": true}}', None, False),
        ('{"model": "m"}', '{"model": "m","stream":true,"stream_options":{"include_usage":true}}', True),
        ('{"stream" : false, "a":1}', '{"stream" : true, "a":1,"stream_options":{"include_usage":true}}', True),
    ],
)
def test_a_streamed_body_asks_for_its_usage_and_keeps_every_other_character(request_text, body, added):
    assert wire_body(request_text, streamed=True) == ((body or request_text).encode(), added)


@pytest.mark.parametrize("text", ['{ "model" :"é" , "x":1e2,"x":1E+2 }', r'{"a":"\u00e9\/"}', '{"stream": false}'])
def test_a_plain_body_goes_out_as_it_came(text):
    assert wire_body(text, streamed=False) == (text.encode(), False)
