"""Endpoint calls and webhooks accept every answer that curl accepts; an odd connection is not reused."""

import asyncio
import gzip
import threading
import zlib

import pytest

from tests.net.raw_server import PATIENCE_S, Peer, RawServer
from tests.net.wire import (
    DONE,
    JSON,
    STREAM_HEAD,
    STREAMED,
    USAGE,
    WIRE,
    answer,
    chunk,
    code,
    delta,
    endpoint,
    head,
    once,
)
from tests.webhooks.net.receiver import BODY, LOOPBACK, SIGNED, hook, outcome
from worker.jobs.net.call import TransportKind, call, open_client
from worker.jobs.net.progress import Reply
from worker.webhooks.core.outcome import SendResult
from worker.webhooks.net.send import WebhookClient, WebhookRequest, send

CHUNKED = head("200 OK", chunked=True)
SSE = delta("hello", "stop") + USAGE + DONE
LAST = chunk(b"")
BARE = b"HTTP/1.1 200 OK\n"


def with_length(*lines: bytes, body: bytes = JSON) -> bytes:
    return b"\r\n".join([b"HTTP/1.1 200 OK", *lines, b"Content-Length: %d" % len(body), b"", body])


# The bytes of the server before FIN; each is the answer "hello". False: httpx's own transport refuses it.
ANSWERS: dict[str, tuple[bytes, bool]] = {
    "length_and_chunked": (head("200 OK", length=1234, chunked=True) + chunk(JSON) + LAST, True),
    "chunked_twice": (head("200 OK", "Transfer-Encoding: chunked", chunked=True) + chunk(JSON) + LAST, False),
    "chunked_and_identity": (head("200 OK", "Transfer-Encoding: identity", chunked=True) + chunk(JSON) + LAST, False),
    "identity": (head("200 OK", "Transfer-Encoding: identity", length=len(JSON)) + JSON, False),
    "gzip_as_transfer_coding": (
        head("200 OK", "Transfer-Encoding: gzip, chunked") + chunk(gzip.compress(JSON, mtime=0)) + LAST,
        False,
    ),
    "chunked_label_on_a_plain_body": (head("200 OK", chunked=True) + JSON, False),
    "chunked_label_on_a_plain_stream": (STREAM_HEAD + SSE, False),
    "the_same_length_twice": (with_length(b"content-length: %d" % len(JSON)), True),
    "the_same_length_in_a_list": (head("200 OK", f"Content-Length: {len(JSON)}, {len(JSON)}") + JSON, True),
    "a_length_without_a_number": (head("200 OK", "Content-Length:") + JSON, False),
    "a_space_before_the_colon": (head("200 OK", f"Content-Length : {len(JSON)}") + JSON, False),
    "a_space_in_a_header_name": (with_length(b"X-Echo stash: y"), False),
    "a_header_without_a_colon": (with_length(b"X-XSS-Protection=1;"), False),
    "a_control_character": (with_length(b"Set-Cookie: a=b\x01c"), True),
    "nul": (with_length(b"X: a\0b"), False),
    "a_bare_cr": (with_length(b"X: a\rb"), False),
    "latin_1": (with_length(b"X: Tr\xe8s bien"), True),
    "a_folded_header": (with_length(b"X: a", b"  b", b"\tc"), True),
    "lf_alone": (BARE + b"Content-Length: %d\n\n" % len(JSON) + JSON, True),
    "mixed_line_ends": (BARE + b"A: b\r\nContent-Length: %d\r\n\n" % len(JSON) + JSON, True),
    "no_reason": (answer(JSON, "200"), True),
    "an_empty_reason": (answer(JSON, "200 "), True),
    "two_spaces_in_the_first_line": (answer(JSON, " 200 OK"), False),
    "a_blank_line_first": (b"\r\n" + answer(), False),
    "http_1_0": (b"HTTP/1.0 200 OK\r\n\r\n" + JSON, True),
    "http_2_in_text": (b"HTTP/2 200\r\n\r\n" + JSON, False),
    "100_first": (b"HTTP/1.1 100 Continue\r\n\r\n" + answer(), True),
    "102_and_103_first": (b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Hints\r\nLink: x\r\n\r\n" + answer(), True),
    "a_space_after_a_chunk_size": (CHUNKED + b"%x \r\n" % len(JSON) + JSON + b"\r\n0\r\n\r\n", True),
    "chunks_with_lf_alone": (CHUNKED + b"%x\n" % len(JSON) + JSON + b"\n0\n\n", False),
    "chunk_extensions": (CHUNKED + b'%x;a="b"\r\n' % len(JSON) + JSON + b"\r\n0;c\r\n\r\n", True),
    "trailers": (CHUNKED + chunk(JSON) + b"0\r\nX-Sum: 1\r\n\r\n", True),
    "a_malformed_trailer": (CHUNKED + chunk(JSON) + b"0\r\nno trailer\r\n\r\n", True),
    "a_nul_behind_the_length": (answer() + b"\0", True),
    "a_line_break_behind_the_length": (answer() + b"\r\n", True),
    "rubbish_behind_the_length": (answer() + b"zz", True),
    "rubbish_behind_the_last_chunk": (CHUNKED + chunk(JSON) + LAST + b"zz", True),
    "another_answer_behind": (answer() + answer(b"{}", "500 Oh"), True),
    "no_last_chunk": (STREAM_HEAD + chunk(SSE), True),
    "no_last_chunk_of_json": (CHUNKED + chunk(JSON), True),
    "a_length_beyond_the_body": (head("200 OK", length=len(JSON) + 9) + JSON, True),
    "no_end_of_the_last_chunk": (CHUNKED + chunk(JSON) + b"0\r\n", True),
    "rubbish_for_a_chunk_behind_the_body": (CHUNKED + chunk(JSON) + b"zz\r\n", True),
    "a_stale_gzip_label": (answer(JSON, "200 OK", "Content-Encoding: gzip"), True),
    "a_stale_gzip_label_on_a_stream": (
        head("200 OK", "Content-Type: text/event-stream", "Content-Encoding: gzip") + SSE,
        True,
    ),
    "a_stale_deflate_label": (answer(JSON, "200 OK", "Content-Encoding: deflate"), True),
    "a_stale_br_label": (answer(JSON, "200 OK", "Content-Encoding: br"), True),
    "a_stale_zstd_label": (answer(JSON, "200 OK", "Content-Encoding: zstd"), True),
    "two_stale_labels": (answer(JSON, "200 OK", "Content-Encoding: gzip, br"), True),
    "an_unknown_label": (answer(JSON, "200 OK", "Content-Encoding: utf-8"), True),
    "gzip_without_a_label": (answer(gzip.compress(JSON, mtime=0)), True),
    "gzip_under_another_label": (answer(gzip.compress(JSON, mtime=0), "200 OK", "Content-Encoding: br"), True),
    "gzip_twice_under_one_label": (
        answer(gzip.compress(gzip.compress(JSON, mtime=0), mtime=0), "200 OK", "Content-Encoding: gzip"),
        True,
    ),
    "gzip_once_under_two_labels": (
        answer(gzip.compress(JSON, mtime=0), "200 OK", "Content-Encoding: gzip, gzip"),
        True,
    ),
    "zlib_without_a_label": (answer(zlib.compress(JSON)), True),
    "gzip_under_deflate": (answer(gzip.compress(JSON, mtime=0), "200 OK", "Content-Encoding: deflate"), True),
    "rubbish_behind_gzip": (answer(gzip.compress(JSON, mtime=0) + b"zz", "200 OK", "Content-Encoding: gzip"), True),
    "gzip_without_its_end": (answer(gzip.compress(JSON, mtime=0)[:-8], "200 OK", "Content-Encoding: gzip"), True),
}
# These answers end by themselves, but the next bytes of the connection would be ambiguous.
SPOILT = {
    "length_and_chunked", "chunked_twice", "gzip_as_transfer_coding", "a_malformed_trailer", "a_nul_behind_the_length",
    "a_line_break_behind_the_length", "rubbish_behind_the_length", "rubbish_behind_the_last_chunk",
    "another_answer_behind", "no_end_of_the_last_chunk",
}  # fmt: skip
# These answers end with the connection.
UNTIL_CLOSE = {
    "chunked_label_on_a_plain_body", "chunked_label_on_a_plain_stream", "a_length_without_a_number", "http_1_0",
    "http_2_in_text", "no_last_chunk", "no_last_chunk_of_json", "a_length_beyond_the_body",
    "rubbish_for_a_chunk_behind_the_body", "a_stale_gzip_label_on_a_stream",
}  # fmt: skip


def says(wire: bytes, packet: int) -> RawServer:
    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(*(wire[start : start + packet] for start in range(0, len(wire), packet)))

    return RawServer(script)


@pytest.mark.parametrize("packet", [1 << 20, 200])
@pytest.mark.parametrize("name", ANSWERS)
def test_an_odd_answer_of_an_endpoint_is_complete(name: str, packet: int, kind: TransportKind) -> None:
    wire, taken_by_httpx = ANSWERS[name]
    with says(wire, packet) as server:
        reply = once(endpoint(server.url), kind, STREAMED)
    if kind == "httpx" and not taken_by_httpx:
        assert code(reply) is not None
        return
    assert code(reply) is None
    assert reply.answer is not None
    assert reply.answer.completion is not None
    assert reply.answer.completion["choices"][0]["message"]["content"] == "hello"
    assert reply.raw in (JSON, SSE)


@pytest.mark.parametrize("packet", [1 << 20, 200])
@pytest.mark.parametrize("name", ANSWERS)
def test_an_odd_answer_of_a_receiver_is_a_delivery(name: str, packet: int) -> None:
    async def run() -> SendResult:
        async with WebhookClient(LOOPBACK) as client:
            return await send(client, WebhookRequest(hook(server), BODY, SIGNED, 10.0))

    with says(ANSWERS[name][0], packet) as server:
        assert outcome(asyncio.run(run())) == (None, 200, True)


@pytest.mark.parametrize("name", sorted(ANSWERS.keys() - UNTIL_CLOSE))
def test_only_a_clean_answer_leaves_a_connection_for_the_next_request(name: str) -> None:
    def script(peer: Peer) -> None:
        while peer.read_request():
            peer.send(ANSWERS[name][0])

    async def run(url: str) -> list[Reply]:
        where = endpoint(url)
        async with open_client(where) as client:
            return [await call(client, where, STREAMED) for _ in range(2)]

    with RawServer(script) as server:
        replies = asyncio.run(run(server.url))
    assert [code(reply) for reply in replies] == [None, None]
    assert server.connections == (2 if name in SPOILT else 1)


@pytest.mark.parametrize("status", ["204 No Content", "205 Reset Content", "304 Not Modified"])
def test_an_answer_without_a_body_ends_with_its_head(status: str) -> None:
    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(head(status, length=0) if "205" in status else head(status))
        peer.ended()

    with RawServer(script) as server:
        assert once(endpoint(server.url), "aiohttp", WIRE).http_status == int(status[:3])


def test_an_answer_before_a_reset_survives_a_write_that_fails() -> None:
    spoken = threading.Event()

    def script(peer: Peer) -> None:
        peer.send(answer(b'{"error": {"message": "too large"}}', "413 Payload Too Large"))
        peer.settle()
        peer.reset()
        spoken.set()

    async def run(url: str) -> int:
        where = endpoint(url)
        async with open_client(where) as client:
            request = client.build_request(
                "POST", url, content=b"x" * 1_000_000, extensions={"connected": lambda: spoken.wait(PATIENCE_S)}
            )
            response = await client.send(request)
            return response.status_code

    with RawServer(script) as server:
        assert asyncio.run(run(server.url)) == 413
