"""The fingerprint: differences that keep it, and differences that change it."""

import json

import pytest

from worker.jobs.core.request import fingerprint, text_fingerprint


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ('{"a": 1, "b": [2, 3]}', '{"b":[2,3],"a":1}'),
        ('{"a": "é"}', r'{"a": "\u00e9"}'),
        ('{"a": "😀"}', r'{"a": "\ud83d\ude00"}'),
        ('{"a": 1e2}', '{"a": 100.0}'),
        ('{"a": 0.1}', '{"a": 0.1000000000000000055}'),
        ('{"a": 1, "a": 2}', '{"a": 2}'),
    ],
)
def test_one_request_written_in_two_ways_is_the_same(one, other):
    assert fingerprint(json.loads(one)) == fingerprint(json.loads(other))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ('{"a": [1, 2]}', '{"a": [2, 1]}'),
        ('{"a": 1}', '{"a": 1.0}'),
        ('{"a": 1}', '{"a": true}'),
        ('{"a": 1}', '{"a": "1"}'),
        ('{"a": null}', "{}"),
        ('{"a": 9007199254740993}', '{"a": 9007199254740992}'),
        (r'{"a": "\u00e9"}', r'{"a": "e\u0301"}'),
    ],
)
def test_another_value_is_another_request(one, other):
    assert fingerprint(json.loads(one)) != fingerprint(json.loads(other))


@pytest.mark.parametrize("text", ["NaN", "[1e999]", '{"a": -Infinity}', r'["\ud800"]', r'{"\udfff": 1}'])
def test_a_value_that_json_cannot_carry_has_no_fingerprint_but_its_text_has(text):
    with pytest.raises(ValueError):
        fingerprint(json.loads(text))
    assert len(text_fingerprint(json.loads(f'"{chr(92)}ud800"') + text)) == 64
