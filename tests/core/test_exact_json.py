"""JSON with spans: every value is found at its place, every character is kept, every bad text raises the same error."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.core.exact_json import JsonError, deeper_than, elements, load, members, with_member

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)
INDENTS = st.sampled_from([None, 0, 2, "\t"])

BAD_OBJECTS = {
    "": "not_json",
    "   ": "not_json",
    "{": "not_json",
    '{"a"': "not_json",
    '{"a" 1}': "not_json",
    '{"a":}': "not_json",
    '{"a":1': "not_json",
    '{"a":1,}': "not_json",
    '{,"a":1}': "not_json",
    '{"a":1 "b":2}': "not_json",
    '{"a":1]': "not_json",
    "{'a':1}": "not_json",
    '{"a":1} x': "not_json",
    '{"a":"\t"}': "not_json",
    '{"a\n":1}': "not_json",
    '{"a":1}{"a":2}': "not_json",
    "[1": "not_json",
    "nope": "not_json",
    "[1]": "not_an_object",
    "null": "not_an_object",
    '"text"': "not_an_object",
    "9" * 5000: "not_an_object",
    '{"a":' * 100_000: "too_deep",
    "[" * 100_000: "too_deep",
}


@given(st.dictionaries(st.text(max_size=6), JSON, max_size=5), INDENTS, st.booleans())
def test_each_member_is_found_at_its_place(value, indent, ascii_only):
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    found = members(text)
    assert {name: member.value for name, member in found.items()} == value
    assert {name: json.loads(text[member.start : member.end]) for name, member in found.items()} == value


@given(st.lists(JSON, max_size=5), INDENTS)
def test_each_element_is_found_at_its_place(value, indent):
    text = json.dumps(value, indent=indent)
    assert [json.loads(text[each.start : each.end]) for each in elements(text)] == value


@pytest.mark.parametrize(("text", "reason"), BAD_OBJECTS.items(), ids=[text[:16] for text in BAD_OBJECTS])
def test_every_text_that_is_no_object_gets_the_same_error(text, reason):
    with pytest.raises(JsonError) as caught:
        members(text)
    assert caught.value.reason == reason


@given(st.text())
def test_no_text_raises_anything_but_our_error(text):
    for read in (members, elements, load):
        try:
            read(text)
        except JsonError as error:
            assert error.reason in {"not_json", "too_deep", "not_an_object", "not_an_array"}


def test_a_name_given_twice_counts_as_its_last():
    assert members('{"a": 1, "a": 2}')["a"].value == 2


def test_escaped_names_are_read():
    assert members(r'{ "\u0061\n" : 1 , "b":2}')["a\n"].value == 1


def test_an_object_may_begin_behind_other_text():
    assert members('xx {"a": 1} ', 2)["a"].start == 9


def test_an_integer_too_long_to_convert_is_an_infinity():
    found = members('{"a": ' + "9" * 5000 + ', "b": -' + "9" * 5000 + ', "c": 12345678901234567890}')
    assert [member.value for member in found.values()] == [float("inf"), float("-inf"), 12345678901234567890]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{}", '{"x":1}'),
        ("{ }", '{"x":1 }'),
        (' {"a": 2 } ', ' {"a": 2,"x":1 } '),
        ('{"x": 0, "a": 2}', '{"x": 1, "a": 2}'),
        ('{"a": {"x": 0}}', '{"a": {"x": 0},"x":1}'),
        ('{"x": 0, "x": 5, "a": 2}', '{"x": 0, "x": 1, "a": 2}'),
    ],
)
def test_a_member_is_added_without_touching_the_others(text, expected):
    assert with_member(text, "x", "1") == expected


@given(st.dictionaries(st.sampled_from("abcx"), JSON, max_size=4), JSON, INDENTS)
def test_a_member_put_in_changes_no_other(value, new, indent):
    text = with_member(json.dumps(value, indent=indent), "x", json.dumps(new))
    assert json.loads(text) == {**value, "x": new}


@pytest.mark.parametrize(
    ("depth", "limit", "deeper"), [(0, 1, False), (3, 3, False), (4, 3, True), (50_000, 200, True)]
)
def test_depth_is_measured_without_recursion(depth, limit, deeper):
    value: object = 1
    for level in range(depth):
        value = [value] if level % 2 else {"a": value}
    assert deeper_than(value, limit) is deeper
