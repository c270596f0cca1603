"""Generates almost valid requests and messages: valid values with one to three changes."""

import copy

from hypothesis import strategies as st

from worker.chat.request_fields import RULES

VALUES = [
    *(None, True, False, 0, 1, -1, 2, 3, -3, 2.0, 0.5, 2.5, 101, 128, 129, 2**63, -(2**63) - 1),
    *("", "x", "a b", "a" * 65, "auto", "none", "low", "xhigh", "audio", "get_weather"),
    *("text", "refusal", "image_url", "input_audio", "file", "function", "custom", "json_schema"),
    *("system", "user", "assistant", "tool"),
    *([], [""], ["a"] * 4, ["a"] * 5, [1], [None], [{}], ["audio"]),
    *({}, {"a": 1}, {"1": 5}, {"type": "text"}, {"type": "function"}, {"type": "custom"}, {"name": "get_weather"}),
    {"type": "function", "function": {"name": "get_weather"}},
    {"type": "image_url", "image_url": {"url": ""}},
    *({"role": "user", "content": "x"}, {"role": "tool", "content": "x"}, {"role": "function", "name": "x"}),
    *({"role": "assistant"}, {"name": "x", "arguments": ""}, {"include_usage": None}, {"url": "x"}),
    *({"data": "x", "format": "wav"}, {"voice": {}, "format": "x"}),
]

NAMES = sorted(
    {*RULES["document"], "role", "content", "name", "tool_calls", "function_call", "refusal", "audio", "tool_call_id"}
    | {"type", "text", "image_url", "url", "detail", "input_audio", "data", "format", "file", "file_id", "function"}
    | {"arguments", "parameters", "json_schema", "schema", "include_usage", "voice", "reasoning_content", "12", "x"}
)

MESSAGE_VALUES = [
    *(None, True, 0, 1, 9, 10, 0.5, 100, 101, 86400, 86401),
    *("", "x", "a" * 255, "a" * 256, "a\0", "default", "018F4A5E-7C1B-7D2E-9A53-0242AC120002"),
    *("2026-11-23T03:14:15Z", "2026-11-23T03:14:15.123456789+01:00", "2026-11-23T03:14:15", "2026-11-23"),
    *("2026-11-23 03:14:15Z", "2026-02-30T03:14:15Z"),
    *([], ["default"], ["default", 5], {}),
    *({"to": "billing.eu-1"}, {"to": "Billing"}, {"to": "a" * 65}, {"to": f"url-{'0a' * 12}"}, {"to": "url-0a"}),
    *({"to": "x"}, {"to": ""}, {"url": "https://x.example"}, {"url": "x"}, {"to": "x", "url": "https://x.example"}),
    *({"a": "b"}, {"a": 5}, {"a" * 65: "b"}, {"a": "b" * 513}, {str(number): "" for number in range(17)}),
]


def containers(value):
    """List every object and array of a value, the outermost first."""
    found = [value]
    for outer in found:
        inner = outer.values() if isinstance(outer, dict) else outer
        found += [each for each in inner if isinstance(each, (dict, list))]
    return found


@st.composite
def mutants(draw, originals, names, values):
    """Change a valid value in one to three places."""
    value = copy.deepcopy(draw(st.sampled_from(originals)))
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.sampled_from(containers(value)))
        new = copy.deepcopy(draw(st.sampled_from(values)))
        if isinstance(place, list):
            at = draw(st.integers(0, len(place)))
            place[at : at + draw(st.integers(0, 1))] = [new] * draw(st.integers(0, 2))
        else:
            name = draw(st.sampled_from(names) | st.sampled_from(sorted(place) or names))
            if draw(st.booleans()):
                place[name] = new
            else:
                place.pop(name, None)
    return value
