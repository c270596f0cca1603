"""Rule R6: each fragment belongs to one call."""

from typing import Any

import pytest

from tests.chat.stream_texts import message, said
from worker.chat.tool_calls import ToolCalls


def call(call_id: Any = None, name: str | None = None, arguments: Any = "", **rest: Any) -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}, **rest}


CASES: dict[str, tuple[list[dict[str, Any]], list[dict[str, Any]]]] = {
    "higher index first": (
        [call("b", "g", "2", index=1), call("a", "f", "1", index=0)],
        [call("a", "f", "1"), call("b", "g", "2")],
    ),
    "new id without a name is the same call": (
        [call("a", "f", "1", index=0), call("x", None, "2", index=0), call("y", "", "3", index=0)],
        [call("a", "f", "123")],
    ),
    "new id with a name is a new call, and fragments without an id continue it": (
        [call("a", "f", "1", index=0), call("b", "f", "2", index=0), call(None, None, "3", index=0)],
        [call("a", "f", "1"), call("b", "f", "23")],
    ),
    "an earlier id at the same index continues the earlier call": (
        [call("a", "f", "1", index=0), call("b", "g", "2", index=0), call("a", "f", "3", index=0)],
        [call("a", "f", "13"), call("b", "g", "2")],
    ),
    "the same id at another index is another call": (
        [call("a", "f", "1", index=0), call("a", "g", "2", index=1)],
        [call("a", "f", "1"), call("a", "g", "2")],
    ),
    "an id that comes late": (
        [call(None, "f", "1", index=0), call("a", None, "2", index=0)],
        [call("a", "f", "12")],
    ),
    "no index, known id": (
        [call("a", "f", "1"), call("b", "g", "2"), call("a", None, "3")],
        [call("a", "f", "13"), call("b", "g", "2")],
    ),
    "no index, new id without a name": (
        [call("a", "f", "1"), call("b", None, "2")],
        [call("a", "f", "1"), call("b", None, "2")],
    ),
    "no index, no id": (
        [call(None, "f", "1"), call(None, None, "2"), call(None, "f", "3")],
        [call(None, "f", "123")],
    ),
    "no index, no id, another name": (
        [call(None, "f", "1"), call(None, "g", "2")],
        [call(None, "f", "1"), call(None, "g", "2")],
    ),
    "a call without an index comes after those with one": (
        [call("a", "f", "1", index=5), call("b", "g", "2"), call("c", "h", "3", index=0)],
        [call("c", "h", "3"), call("a", "f", "1"), call("b", "g", "2")],
    ),
    "a name in pieces": (
        [call("a", "get_", "", index=0), call(None, "wea", None, index=0), call(None, "ther", "{", index=0)],
        [call("a", "get_weather", "{")],
    ),
    "a name in pieces, the id each time": (
        [call("a", "get_", "", index=0), call("a", "weather", "{}", index=0)],
        [call("a", "get_weather", "{}")],
    ),
    "a name that is repeated": (
        [call("a", "f", "", index=0), call(None, "f", "", index=0), call(None, "f", "1", index=0)],
        [call("a", "f", "1")],
    ),
    "a name that grows": (
        [call("a", "get", None, index=0), call(None, "get_weather", "1", index=0)],
        [call("a", "get_weather", "1")],
    ),
    "whole calls under one number without ids": (
        [call("", "f", '{"a": 1}', index=0), call("", "f", '{"a": 2}', index=0), call("", "g", "{}", index=0)],
        [call(None, "f", '{"a": 1}'), call(None, "f", '{"a": 2}'), call(None, "g", "{}")],
    ),
    "whole calls without number and id": (
        [call(None, "f", '{"a": 1}'), call(None, "f", {"a": 2})],
        [call(None, "f", '{"a": 1}'), call(None, "f", '{"a":2}')],
    ),
    "a call in pieces after a whole one under the same number": (
        [call(None, "f", "{}", index=0), call(None, "g", "", index=0), call(None, None, "{}", index=0)],
        [call(None, "f", "{}"), call(None, "g", "{}")],
    ),
    "an id only for the second of two whole calls": (
        [call(None, "f", "{}", index=0), call("b", "f", "{}", index=0)],
        [call(None, "f", "{}"), call("b", "f", "{}")],
    ),
    "the name with every piece of the arguments": (
        [call(None, "f", '{"a":', index=0), call(None, "f", "{}", index=0), call(None, "f", "}", index=0)],
        [call(None, "f", '{"a":{}}')],
    ),
    "the name once more after the arguments": (
        [call(None, "f", "{}", index=0), call(None, "f", "", index=0)],
        [call(None, "f", "{}")],
    ),
    "arguments that are null first": (
        [call("a", "f", None, index=0), call(None, "", "{}", index=0)],
        [call("a", "f", "{}")],
    ),
    "names are not glued after arguments": (
        [call("a", "f", "1", index=0), call("a", "f", "2", index=0), call(None, "other", "3", index=0)],
        [call("a", "f", "123")],
    ),
    "an index in a string": (
        [call("a", "f", "1", index="0"), call(None, None, "2", index=0)],
        [call("a", "f", "12")],
    ),
    "an id that is a number": ([call(7, "f", "1", index=0)], [call("7", "f", "1")]),
    "arguments of other kinds": (
        [call("a", "f", None, index=0), call("b", "g", [1, {"é": 2}], index=1), call("c", "h", {}, index=2)],
        [call("a", "f", ""), call("b", "g", '[1,{"é":2}]'), call("c", "h", "{}")],
    ),
    "arguments that are no JSON": ([call("a", "f", "{not json", index=0)], [call("a", "f", "{not json")]),
    "surrogate halves": (
        [call("a", "f", "\ud83d", index=0), call(None, None, "\ude00", index=0)],
        [call("a", "f", "\U0001f600")],
    ),
    "a vendor's member is kept": (
        [call("a", "f", "1", index=0, extra_content={"google": {"thought_signature": "x"}})],
        [call("a", "f", "1", extra_content={"google": {"thought_signature": "x"}})],
    ),
    "a custom tool": (
        [
            {"index": 0, "id": "a", "type": "custom", "custom": {"name": "f", "input": "x"}},
            {"index": 0, "custom": {"input": "y"}},
        ],
        [{"id": "a", "type": "custom", "custom": {"name": "f", "input": "xy"}}],
    ),
    "without a function": ([{"index": 0, "id": "a"}], [call("a")]),
    "a function that is no object": ([{"index": 0, "id": "a", "function": "f"}], [call("a")]),
}


@pytest.mark.parametrize(("fragments", "expected"), CASES.values(), ids=CASES.keys())
def test_fragments_find_their_call(fragments: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    together, apart = ToolCalls(), ToolCalls()
    together.take(fragments)
    for fragment in fragments:
        apart.take([fragment])
    assert together.build() == expected
    assert apart.build() == expected


@pytest.mark.parametrize("nothing", [None, [], [None], ["x"], "x", 7])
def test_no_calls_are_no_member(nothing: Any) -> None:
    assert "tool_calls" not in message(said({"content": "a", "tool_calls": nothing}))


def test_one_call_outside_a_list_is_a_call() -> None:
    assert message(said({"tool_calls": call("a", "f", "1")}))["tool_calls"] == [call("a", "f", "1")]


def test_pieces_that_look_whole_cost_no_quadratic_time() -> None:
    calls = ToolCalls()
    calls.take([call(None, "f", '{"a":"', index=0)])
    for _ in range(20_000):
        calls.take([call(None, "f", "{}" * 20, index=0)])
    assert len(calls.build()) == 1


def test_a_name_of_endless_pieces_ends() -> None:
    calls = ToolCalls()
    for number in range(2000):
        calls.take([call(None, f"{number}-", None, index=0)])
    assert len(calls.build()[0]["function"]["name"]) < 300
