"""Framing: the same events in every split."""

import pytest

from worker.chat.sse import ErrorData, Events

CASES: dict[str, tuple[bytes, list[bytes]]] = {
    "one event": (b"data: a\n\n", [b"a"]),
    "two events": (b"data: a\n\ndata: b\n\n", [b"a", b"b"]),
    "lines joined": (b"data: a\ndata: b\n\n", [b"a\nb"]),
    "no space after the colon": (b"data:a\n\n", [b"a"]),
    "only one space is removed": (b"data:  a\n\n", [b" a"]),
    "a colon in the value": (b"data: a:b: c\n\n", [b"a:b: c"]),
    "CRLF": (b"data: a\r\n\r\ndata: b\r\n\r\n", [b"a", b"b"]),
    "CR": (b"data: a\r\rdata: b\r\r", [b"a", b"b"]),
    "mixed line ends": (b"data: a\r\n\ndata: b\n\rdata: c\r\r\n", [b"a", b"b", b"c"]),
    "CR LF CR LF is two lines": (b"data: a\r\ndata: b\r\n\r\n", [b"a\nb"]),
    "a CR splits even inside a value": (b"data: a\rdata: b\n\n", [b"a\nb"]),
    "a byte order mark": (b"\xef\xbb\xbfdata: a\n\n", [b"a"]),
    "only one byte order mark": (b"\xef\xbb\xbf\xef\xbb\xbfdata: a\n\n", []),
    "a byte order mark later": (b"data: a\n\n\xef\xbb\xbfdata: b\n\n", [b"a"]),
    "a comment": (b": ping\n\ndata: a\n\n", [b"a"]),
    "a comment between two lines of an event": (b"data: a\n: ping\ndata: b\n\n", [b"a\nb"]),
    "a lonely colon": (b":\n\ndata: a\n:\n\n", [b"a"]),
    "other fields": (b"event: x\nid: 1\nretry: 5\nfoo: bar\ndata: a\n\n", [b"a"]),
    "events without data": (b"event: x\n\nid: 1\n\nretry: 10\n\n", []),
    "names are case-sensitive": (b"Data: a\nDATA: b\n\n", []),
    "a longer name": (b"data2: a\ndatum: b\n\n", []),
    "a space before the name": (b" data: a\n\n", []),
    "empty data": (b"data:\n\ndata\n\ndata: \n\n", []),
    "empty lines of data": (b"data\ndata: a\ndata:\n\n", [b"\na\n"]),
    "many blank lines": (b"\n\n\ndata: a\n\n\n\n\ndata: b\n\n\n", [b"a", b"b"]),
    "an unfinished event": (b"data: a\n\ndata: b\n", [b"a"]),
    "an unfinished line": (b"data: a\n\ndata: b", [b"a"]),
    "other line separators": (
        "data: a\u2028b\u2029c\u0085d\x0be\x0cf\n\n".encode(),
        ["a\u2028b\u2029c\u0085d\x0be\x0cf".encode()],
    ),
    "no valid UTF-8": (b"data: \xff\xfe\n\n", [b"\xff\xfe"]),
    "a NUL": (b"data: a\x00b\n\n", [b"a\x00b"]),
    "single line ends between events": (
        b'data: {"a":1}\ndata: {"b":2}\ndata: [DONE]\n\n',
        [b'{"a":1}', b'{"b":2}', b"[DONE]"],
    ),
    "single line ends and other fields": (
        b'id: 1\ndata: {"a":1}\n: ping\nid: 2\ndata: {"b":2}\n: ping\n\n',
        [b'{"a":1}', b'{"b":2}'],
    ),
    "an object on several lines": (b'data: {"a":\ndata: 1}\n\n', [b'{"a":\n1}']),
    "objects on several lines": (b'data: {"a":\ndata: 1}\n\ndata: {\ndata: }\n\n', [b'{"a":\n1}', b"{\n}"]),
    "a comment as data among single lines": (b'data: : PROCESSING\ndata: {"a":1}\n\n', [b": PROCESSING", b'{"a":1}']),
    "an event called error": (b'event: error\ndata: {"a":1}\n\n', [b'{"a":1}']),
    "an error field": (b'error: {"a":1}\n\ndata: [DONE]\n\n', [b'{"a":1}', b"[DONE]"]),
    "JSON without framing": (b'data: a\n\n{"error":\n {"a":1}}\n\n', [b"a", b'{"error":\n {"a":1}}']),
    "nothing": (b"", []),
    "half a byte order mark": (b"\xef\xbb", []),
}
each_case = pytest.mark.parametrize(("stream", "expected"), CASES.values(), ids=CASES.keys())


def cut(stream: bytes, size: int) -> list[bytes]:
    events = Events()
    return [data for at in range(0, len(stream), size) for data in events.feed(stream[at : at + size])]


@each_case
def test_framing_in_one_piece(stream: bytes, expected: list[bytes]) -> None:
    assert Events().feed(stream) == expected


@each_case
def test_framing_in_pieces_of_each_size(stream: bytes, expected: list[bytes]) -> None:
    for size in range(1, len(stream) + 1):
        assert cut(stream, size) == expected, size


@each_case
def test_framing_with_empty_pieces_between(stream: bytes, expected: list[bytes]) -> None:
    events = Events()
    found = [data for at in range(len(stream)) for data in events.feed(stream[at : at + 1]) + events.feed(b"")]
    assert found == expected


def test_an_event_is_complete_at_a_carriage_return() -> None:
    # Waiting for a possible LF would hold back the last event of a stream until the stream ends.
    events = Events()
    assert events.feed(b"data: a\r\n\r") == [b"a"]
    assert events.feed(b"\ndata: b\n\n") == [b"b"]


def test_a_line_feed_is_swallowed_only_directly_after_a_carriage_return() -> None:
    events = Events()
    assert events.feed(b"data: a\r") == []
    assert events.feed(b"\n") == []
    assert events.feed(b"\n") == [b"a"]


def test_a_whole_event_after_half_a_byte_order_mark_is_part_of_its_line() -> None:
    events = Events()
    events.feed(b"\xef\xbb")
    assert events.feed(b"data: a\n\n") == []


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (b'event: error\ndata: {"a":1}\n\n', [ErrorData]),
        (b'data: {"a":1}\nevent: error\n\n', [ErrorData]),
        (b'event: x\nevent: error \ndata: {"a":1}\ndata: {"b":2}\n\n', [ErrorData, bytes]),
        (b'data: {"a":1}\nevent: error\ndata: {"b":2}\ndata: {"c":3}\n\n', [bytes, ErrorData, bytes]),
        (b'error: {"a":1}\n\n', [ErrorData]),
        (b'event: errors\ndata: {"a":1}\n\n', [bytes]),
    ],
)
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_an_event_that_is_called_an_error_is_marked(stream: bytes, expected: list[type], size: int) -> None:
    assert [type(data) for data in cut(stream, size)] == expected


def test_lines_without_blank_lines_are_returned_as_they_come() -> None:
    events = Events()
    assert events.feed(b'data: {"a":1}\n') == []
    assert events.feed(b'data: {"b":2}\nda') == [b'{"a":1}']
    assert events.feed(b"ta: [DONE]") == [b'{"b":2}']
    assert events.flush() == [b"[DONE]"]
    assert events.flush() == []


@pytest.mark.parametrize(
    ("rest", "expected"),
    [
        (b'data: {"a":1}\n', []),
        (b"data: [DONE]", []),
        (b'data: {"a":1}\ndata: {"b":2}\n', [b'{"b":2}']),
        (b'data: {"a":1}\ndata: {"b":2', []),
        (b'{"error": "x"}', [b'{"error": "x"}']),
        (b'[{\n"error": "x"}\n]\n', [b'[{\n"error": "x"}\n]']),
        (b'{"error": "x', []),
        (b'error: {"a":1}\n', [b'{"a":1}']),
        (b'event: error\ndata: {"a":1}\n', [b'{"a":1}']),
        (b"error: cut", []),
    ],
)
def test_the_end_yields_only_a_whole_unfinished_event(rest: bytes, expected: list[bytes]) -> None:
    events = Events()
    events.feed(b"data: before\n\n")
    events.feed(rest)
    assert events.flush() == expected
