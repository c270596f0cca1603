"""Text and JSON that both databases can store."""

import json
import sqlite3
from contextlib import closing
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from worker.core.storable_text import clean_json, clean_text, clean_value, rejoin

TEXTS = {
    "": "",
    "plain": "plain",
    "a\0b": "a\ufffdb",
    "\ud83d\ude00": "\U0001f600",
    "\ud83d": "\ufffd",
    "\ude00 \ud83d": "\ufffd \ufffd",
    "a\ud83d\ud83d\ude00": "a\ufffd\U0001f600",
    "é\U0001f600\uffff\ufffe\x7f": "é\U0001f600\uffff\ufffe\x7f",
}
# JSON text and its stored form; None: stored unchanged.
JSON: dict[str, str | None] = {
    "{}": None,
    ' { "a" : [ 1 , 2.50 , -0.0 , 1E5 , null ] , "a" : "twice" } ': None,
    '"\\u00e9 \\n \\/ \\" \\\\ \\ud83d\\ude00 \\uD83D\\uDE00"': None,
    '"\\\\u0000 \\\\ud83d \\\\\\\\u0000"': None,
    '"\\u0001\\u001f\\u0008"': None,
    '"a\\u0000b"': '"a\\ufffdb"',
    '"\\\\\\u0000"': '"\\\\\\ufffd"',
    '"\\u0000\\u0000"': '"\\ufffd\\ufffd"',
    '{"\\u0000":"\\u0000"}': '{"\\ufffd":"\\ufffd"}',
    '"\\ud83d"': '"\\ufffd"',
    '"\\uDE00"': '"\\ufffd"',
    '"\\ude00\\ud83d"': '"\\ufffd\\ufffd"',
    '"\\ud83dx\\ude00"': '"\\ufffdx\\ufffd"',
    '"\\ud83d\\ud83d\\ude00"': '"\\ufffd\\ud83d\\ude00"',
    '"\\ud83d\\u0000"': '"\\ufffd\\ufffd"',
    '"\\ud83d\\\\\\ude00"': '"\\ufffd\\\\\\ufffd"',
    '"\ud83d"': '"\ufffd"',
    '"\ud83d\ude00"': '"\U0001f600"',
    "[NaN,Infinity,-Infinity]": "[null,null,null]",
    '["NaN",NaN,"-Infinity \\" Infinity"]': '["NaN",null,"-Infinity \\" Infinity"]',
    "[12345678901234567890123,0.1234567890123456789012345]": None,
    "[1e308,1e-300,-1.5E+10]": None,
    '[1e400,-1e400,1e-400,1E+99999,"1e400"]': '["1e400","-1e400","1e-400","1E+99999","1e400"]',
    "[0e5,0.0,-0.0,0]": '["0e5",0.0,-0.0,0]',
    "1e99999999999999999999999": '"1e99999999999999999999999"',
    "1" * 4300: None,
    "[NaN," + "1" * 4300 + "]": "[null," + "1" * 4300 + "]",
    "1" * 4301: f'"{"1" * 4301}"',
    "0." + "1" * 4298: None,
    "0." + "1" * 4299: f'"0.{"1" * 4299}"',
    "9" * 5000: f'"{"9" * 5000}"',
    "[0." + "1" * 20_000 + "]": '["0.' + "1" * 20_000 + '"]',
    '"base64 e123 NaN ' + "1" * 400 + '"': None,
    "[" * 200 + "]" * 200: None,
    "[" * 201 + "]" * 201: '"' + "[" * 201 + "]" * 201 + '"',
    '{"a":' * 900 + "1" + "}" * 900: '"' + '{\\"a\\":' * 900 + "1" + "}" * 900 + '"',
}
NO_JSON = ["", "not json", "{", "[1,]", '"\n"', "\0", "{'a':1}", "[" * 100_000, "<html>\ud83d", "nan", "01"]
each_json = pytest.mark.parametrize("source", JSON, ids=range(len(JSON)))


@pytest.mark.parametrize(("dirty", "clean"), TEXTS.items())
def test_text_is_cleaned(dirty: str, clean: str) -> None:
    assert clean_text(dirty) == clean
    clean.encode()


def test_surrogate_halves_are_joined_and_lone_ones_stay() -> None:
    assert rejoin("\ud83d\ude00\ude00\0") == "\U0001f600\ude00\0"


@each_json
def test_json_text_changes_only_where_it_must(source: str) -> None:
    expected = JSON[source]
    assert clean_json(source) == (source if expected is None else expected)


@each_json
def test_clean_json_stays_as_it_is(source: str) -> None:
    assert clean_json(clean_json(source)) == clean_json(source)


@pytest.mark.parametrize("source", NO_JSON, ids=range(len(NO_JSON)))
def test_text_that_is_no_json_becomes_a_json_string(source: str) -> None:
    assert json.loads(clean_json(source)) == clean_text(source)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (b'{"a":"\xc3\xa9"}', '{"a":"é"}'),
        (b'{"a":"\xff"}', '{"a":"\ufffd"}'),
        (b'\xef\xbb\xbf{"a":1}', '{"a":1}'),
        ('{"a":1}'.encode("utf-16"), '{"a":1}'),
        ('{"a":1}'.encode("utf-32-le"), '{"a":1}'),
        (b"", '""'),
    ],
)
def test_bytes_are_read_as_the_parser_reads_them(source: bytes, expected: str) -> None:
    assert clean_json(source) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"a": [1, 0.1, None, True], "é": "\0"}, '{"a":[1,0.1,null,true],"é":"\\ufffd"}'),
        ("\ud83d", '"\ufffd"'),
        ("\ud83d\ude00", '"\U0001f600"'),
        ("404", '"404"'),
        (None, "null"),
        (float("nan"), "null"),
        ([float("-inf"), "Infinity"], '[null,"Infinity"]'),
        (10**3000, str(10**3000)),
        (2**70, str(2**70)),
        ([2**20_000, True], f'["{2**20_000:#x}",true]'),
    ],
)
def test_values_are_written_clean(value: Any, expected: str) -> None:
    assert clean_value(value) == expected
    assert isinstance(value, str) or clean_json(value) == expected


def test_a_value_nested_too_deeply_is_cut() -> None:
    value: Any = "end"
    for _ in range(5000):
        value = {"a": [value]}
    found = clean_value(value)
    assert found.endswith('"nested too deeply"' + "]}" * 50)
    json.loads(found)


def every_kind() -> list[str]:
    sources: list[Any] = [*JSON, *NO_JSON, [2**20_000], {"a": "\ud83d\0"}]
    return [clean_json(source) for source in sources]


def test_sqlite_takes_it() -> None:
    with closing(sqlite3.connect(":memory:")) as connection:
        for clean in every_kind():
            assert connection.execute("SELECT json_valid(?)", [clean]).fetchone() == (1,)


def test_postgresql_takes_it(postgresql_url: str) -> None:
    engine = create_engine(postgresql_url)
    with engine.connect() as connection:
        for clean in every_kind():
            connection.execute(text("SELECT CAST(:json AS jsonb)"), {"json": clean})
        for dirty in TEXTS:
            assert connection.scalar(text("SELECT CAST(:text AS text)"), {"text": clean_text(dirty)}) == clean_text(
                dirty
            )
    engine.dispose()
