"""Rule R6: which call a fragment belongs to."""

from typing import Any

import pytest
from stream_texts import message, said

from worker.core.toolcalls import ToolCalls


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
    "names are never glued": (
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
