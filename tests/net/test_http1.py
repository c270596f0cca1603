"""Heads of HTTP answers are read as curl reads them, within limits; bodies end where RFC 9112 says, in every split."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.net.http1 import HEAD_BYTES, INFORMATIONAL_BYTES, Chunks, Head, HeadReader, Malformed, read_head

OK = b"HTTP/1.1 200 OK\r\n"


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(places)]


def framing(head: Head) -> tuple[int | None, bool, bool]:
    return head.length, head.chunked, head.persistent


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"HTTP/1.1 200 OK", 200),
        (b"HTTP/1.1 200", 200),
        (b"HTTP/1.1 200 ", 200),
        (b"HTTP/1.1  404  Not  Here", 404),
        (b"HTTP/1.0 503 \xfcberlastet", 503),
        (b"HTTP/2 200", 200),
        (b"HTTP/1.1 999 Denied", 999),
    ],
)
def test_a_status_line_gives_its_code(line: bytes, code: int) -> None:
    assert read_head(line + b"\r\nA: b").code == code


@pytest.mark.parametrize(
    "line", [b"HTTP/1.1 abc", b"HTTP/1.1 2000 OK", b"HTTP/1.1", b"HTTP/1.1 020 x", b"HTTPS/1.1 200"]
)
def test_another_first_line_is_malformed(line: bytes) -> None:
    with pytest.raises(Malformed):
        read_head(line + b"\r\nA: b")


@pytest.mark.parametrize(
    ("lines", "headers"),
    [
        (b"A: b\r\nC:d", [(b"A", b"b"), (b"C", b"d")]),
        (b"A: b\nC: d \t", [(b"A", b"b"), (b"C", b"d")]),
        (b"A: b\x01c", [(b"A", b"b\x01c")]),
        (b"A: b\0c\rd", [(b"A", b"b c d")]),
        (b"A: b\r\n c\r\n\td", [(b"A", b"b c d")]),
        (b"X-XSS-Protection=1;\r\nA: b", [(b"A", b"b")]),
        (b"A : b\r\nX Y: z", [(b"A", b"b"), (b"X Y", b"z")]),
        (b": b\r\nA:", [(b"A", b"")]),
        (b" lost\r\nA: b", [(b"A", b"b")]),
    ],
)
def test_odd_headers_are_read_or_skipped(lines: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    assert list(read_head(OK + lines).headers) == headers


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (b"Content-Length: 5", (5, False, True)),
        (b"content-length:5\r\nContent-Length: 5", (5, False, True)),
        (b"Content-Length: 5, 5", (5, False, True)),
        (b"Content-Length :5", (5, False, True)),
        (b"Content-Length:", (None, False, False)),
        (b"Content-Length: 5\r\nConnection: Keep-Alive, Close", (5, False, False)),
        (b"Transfer-Encoding: Chunked", (None, True, True)),
        (b"Transfer-Encoding: identity\r\nContent-Length: 5", (5, False, True)),
        # The length is kept beside the coding, for a body that turns out not to be chunked.
        (b"Transfer-Encoding: chunked\r\nContent-Length: 5", (5, True, False)),
        (b"Transfer-Encoding: chunked\r\nContent-Length: five", (None, True, True)),
        (b"Transfer-Encoding: chunked, chunked", (None, True, False)),
        (b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", (None, True, False)),
        (b"Transfer-Encoding: gzip, chunked", (None, True, False)),
        (b"Transfer-Encoding: gzip", (None, False, False)),
        (b"A: b", (None, False, False)),
    ],
)
def test_the_framing_follows_the_headers(lines: bytes, expected: tuple[int | None, bool, bool]) -> None:
    assert framing(read_head(OK + lines)) == expected


@pytest.mark.parametrize(
    "lines",
    [b"Content-Length: 5\r\nContent-Length: 6", b"Content-Length: 5, 6", b"Content-Length: -1", b"Content-Length: 1e3"],
)
def test_lengths_that_contradict_are_malformed(lines: bytes) -> None:
    with pytest.raises(Malformed):
        read_head(OK + lines)


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified", b"101 Switching Protocols"])
def test_an_answer_that_has_no_body_has_none(status: bytes) -> None:
    head = read_head(b"HTTP/1.1 " + status + b"\r\nTransfer-Encoding: chunked\r\nContent-Length: 3")
    assert (head.length, head.chunked) == (0, False)


@pytest.mark.parametrize(
    ("version", "lines", "keeps"), [(b"1.0", b"", False), (b"1.0", b"Connection: keep-alive", True)]
)
def test_http_1_0_keeps_a_connection_only_if_it_says_so(version: bytes, lines: bytes, keeps: bool) -> None:
    assert read_head(b"HTTP/" + version + b" 200 OK\r\nContent-Length: 2\r\n" + lines).persistent is keeps


@given(st.lists(st.integers(0, 10_000), max_size=6))
def test_a_head_is_found_in_any_split_behind_informational_ones(cuts: list[int]) -> None:
    wire = b"\r\nHTTP/1.1 100 Continue\r\n\r\n\nHTTP/1.1 103 Early Hints\nLink: x\n\n" + OK + b"A: b\n\r\nbody"
    heads = HeadReader()
    after: list[bytes] = []
    found: Head | None = None
    for piece in pieces(wire, cuts):
        if found is not None:
            after.append(piece)
        elif result := heads.feed(piece):
            found, rest = result
            after.append(rest)
    assert found is not None
    assert (found.code, found.headers, b"".join(after)) == (200, ((b"A", b"b"),), b"body")


@pytest.mark.parametrize(
    "flood",
    [b"A: b\r\n", b"A", b"X: " + b"y" * 1000 + b"\r\n", b" folded\r\n"],
    ids=["headers", "a_line", "long_headers", "folds"],
)
def test_a_head_is_bounded(flood: bytes) -> None:
    heads = HeadReader()
    heads.feed(OK)
    with pytest.raises(Malformed):
        for _ in range(HEAD_BYTES // len(flood) + 1):
            heads.feed(flood)


@pytest.mark.parametrize("flood", [b"HTTP/1.1 103 Early Hints\r\n\r\n", b"\r\n"])
def test_informational_heads_and_blank_lines_are_bounded(flood: bytes) -> None:
    heads = HeadReader()
    with pytest.raises(Malformed):
        for _ in range(INFORMATIONAL_BYTES // len(flood) + 1):
            heads.feed(flood)


@pytest.mark.parametrize("wire", [b"\x00\xffgarbage", b"SSH-2.0-OpenSSH_9.7\r\n", b"HTML", b"{}"])
def test_another_protocol_is_known_by_its_first_bytes(wire: bytes) -> None:
    with pytest.raises(Malformed):
        HeadReader().feed(wire)


def body_of(wire: bytes, cuts: list[int]) -> tuple[bytes, Chunks]:
    chunks = Chunks()
    return b"".join([chunks.feed(piece) for piece in pieces(wire, cuts)]), chunks


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=8), st.lists(st.integers(0, 10_000), max_size=8))
def test_chunks_give_their_body_in_any_split(parts: list[bytes], cuts: list[int]) -> None:
    wire = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
    body, chunks = body_of(wire + b"0\r\n\r\n", cuts)
    assert (body, chunks.ended, chunks.failed, chunks.plain) == (b"".join(parts), True, False, False)


@pytest.mark.parametrize(
    "wire",
    [
        b"5\nhello\n0\n\n",
        b"5 \r\nhello\r\n0\r\n\r\n",
        b"0005;name=value\r\nhello\r\n000\r\nX-Sum: 1\r\nY: 2\r\n\r\n",
        b"2 ; a\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
    ],
)
@given(cuts=st.lists(st.integers(0, 10_000), max_size=8))
def test_odd_chunks_are_read(wire: bytes, cuts: list[int]) -> None:
    body, chunks = body_of(wire, cuts)
    assert (body, chunks.is_clean) == (b"hello", True)


@pytest.mark.parametrize("rest", [b"", b"\r", b"X: y\r\n", b"no trailer\r\n\r\n", b"\r\n\r\n", b"\r\nHTTP/1.1 200 OK"])
def test_the_last_chunk_ends_a_body_and_a_bad_trailer_the_connection(rest: bytes) -> None:
    body, chunks = body_of(b"5\r\nhello\r\n0\r\n" + rest, [])
    assert (body, chunks.ended, chunks.is_clean) == (b"hello", True, False)


@pytest.mark.parametrize(
    "body", [b'{"id": 1}', b"data: {}\n\n", b": ping\n\n", b"event: error\n\n", b"\n\n{}", b"<html>"]
)
@given(cuts=st.lists(st.integers(0, 100), max_size=4))
def test_a_body_without_chunks_under_their_label_is_read_as_it_is(body: bytes, cuts: list[int]) -> None:
    read, chunks = body_of(body, cuts)
    assert (read, chunks.plain) == (body, True)


@pytest.mark.parametrize(
    "wire",
    [b"5\r\nhelloXX\r\n", b"5\r\nhello\r\nzz\r\n", b"5\r\nhello\r\n-1\r\n", b"5\r\nhello\r\n" + b"f" * 16 + b"\r\n"],
)
def test_bytes_that_do_not_follow_the_coding_are_a_failure(wire: bytes) -> None:
    body, chunks = body_of(wire, [])
    assert (body, chunks.failed, chunks.ended) == (b"hello", True, False)


def test_a_size_line_is_bounded() -> None:
    chunks = Chunks()
    chunks.feed(b"1\r\na\r\n1;")
    for _ in range(5000):
        chunks.feed(b"x")
    assert chunks.failed


def test_extensions_without_end_are_a_failure() -> None:
    chunks = Chunks()
    for _ in range(100):
        chunks.feed(b"1;" + b"x" * 1000 + b"\r\na\r\n")
    assert chunks.failed


def test_chunks_of_one_byte_are_no_failure() -> None:
    chunks = Chunks()
    for _ in range(100_000):
        chunks.feed(b"1\r\na\r\n")
    assert not chunks.failed
