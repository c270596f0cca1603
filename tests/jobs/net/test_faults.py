"""Every accident on the wire, from a raw socket, has one failure code and says whether it may be billed."""

import gzip
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from tests.net.raw_server import Peer, RawServer
from tests.net.wire import (
    DONE,
    JSON,
    OPEN_STREAM_HEAD,
    STREAM_HEAD,
    STREAMED,
    USAGE,
    WIRE,
    answer,
    chunk,
    code,
    delta,
    endpoint,
    event,
    head,
    once,
)
from worker.jobs.net.call import TransportKind, WireRequest

SLOW: dict[str, Any] = {"first_byte_s": 0.15}
IDLE: dict[str, Any] = {"idle_s": 0.15}
LARGE = replace(WIRE, body=b'{"messages": "' + b"x" * 20_000_000 + b'"}')
HALF = head("200 OK", "Content-Type: application/json", length=len(JSON)) + JSON[:40]
ERROR_EVENT = event({"error": {"message": "upstream broke", "code": 502}})


@dataclass(frozen=True)
class Fault:
    """The server's script and the expected (code or None, billed or None); `httpx` if that transport differs."""

    script: Callable[[Peer], object]
    expected: tuple[str | None, str | None]
    httpx: tuple[str | None, str | None] | None = None
    wire: WireRequest = WIRE
    changes: dict[str, Any] = field(default_factory=dict)


def sends(*pieces: bytes) -> Callable[[Peer], None]:
    """Read the request, send the pieces, close with FIN."""

    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(*pieces)

    return script


def resets(*pieces: bytes) -> Callable[[Peer], None]:
    """Read the request, send the pieces, and close with RST after the client could read them."""

    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(*pieces)
        peer.settle()
        peer.reset()

    return script


def holds(*pieces: bytes) -> Callable[[Peer], None]:
    """Read the request, send the pieces, then send nothing until the client closes."""

    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(*pieces)
        peer.ended()

    return script


def drips(first: bytes, *pieces: bytes, every_s: float = 0.01) -> Callable[[Peer], None]:
    """Read the request, send `first`, then repeat the pieces until the client closes."""

    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(first)
        peer.drip(*pieces, every_s=every_s)

    return script


def refuses_early(peer: Peer) -> None:
    """Answer 413 before reading the body, and close."""
    peer.read_head()
    peer.send(answer(b'{"error": {"message": "too large"}}', "413 Payload Too Large", "Connection: close"))


def resets_early(peer: Peer) -> None:
    """Close with RST while the client still sends the body."""
    peer.read_head()
    peer.reset()


LOST = ("connection_lost", "unknown")
MALFORMED = ("protocol_error", "unknown")
LATE = ("first_byte_timeout", "unknown")
FINE = (None, None)
CUT = ("body_truncated", "unknown")

BEFORE_THE_HEAD = {
    "fin_after_the_request": Fault(sends(), LOST),
    "reset_after_the_request": Fault(resets(), LOST),
    "fin_within_the_head": Fault(sends(b"HTTP/1.1 200 OK\r\nContent-Ty"), LOST),
    "reset_within_the_head": Fault(resets(b"HTTP/1.1 200 OK\r\nContent-Ty"), LOST),
    "reset_while_the_body_is_sent": Fault(resets_early, LOST, wire=LARGE),
    "silence": Fault(holds(), LATE, changes=SLOW),
    "silence_within_the_head": Fault(holds(b"HTTP/1.1 200 OK\r\nX: "), LATE, changes=SLOW),
    "drip_of_headers": Fault(drips(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n", every_s=0.02), LATE, changes=SLOW),
    "flood_of_103": Fault(drips(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n" * 20), LATE, changes=SLOW),
    "a_peer_that_never_reads": Fault(lambda peer: peer.read_head() and peer.wait(0.6), LATE, wire=LARGE, changes=SLOW),
    "garbage": Fault(sends(b"\x00\xff\x13garbage\r\n\r\n" * 20), MALFORMED),
    "bad_status_line": Fault(sends(b"HTTP/1.1 abc OK\r\n\r\n"), MALFORMED),
    "another_protocol": Fault(sends(b"SSH-2.0-OpenSSH_9.7\r\n"), MALFORMED, httpx=LOST),
    "http2": Fault(sends(b"\x00\x00\x12\x04\x00\x00\x00\x00\x00" + b"\x00" * 18 + b"\r\n\r\n"), MALFORMED),
    "two_lengths": Fault(sends(head("200 OK", "Content-Length: 3", length=len(JSON)) + JSON), MALFORMED),
    "a_header_of_1_mb": Fault(sends(head("200 OK", "X: " + "a" * 1_000_000, length=len(JSON)) + JSON), MALFORMED),
    "2000_headers": Fault(sends(head("200 OK", *["X: y"] * 2000, length=len(JSON)) + JSON), MALFORMED, httpx=FINE),
    "a_head_without_end": Fault(drips(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n" * 1000, every_s=0.0), MALFORMED),
    "an_upgrade": Fault(
        sends(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"),
        ("http_error", "no"),
        httpx=MALFORMED,
    ),
    # httpx notices the reset before it reads the answer.
    "413_before_the_body_is_read": Fault(refuses_early, ("request_too_large", "no"), httpx=LOST, wire=LARGE),
}

WITHIN_THE_BODY = {
    "length_cut_short": Fault(sends(HALF), CUT),
    "reset_within_a_length": Fault(resets(HALF), CUT),
    "chunks_cut_short": Fault(sends(head("200 OK", chunked=True) + chunk(JSON[:40])), CUT),
    "stream_of_chunks_cut_short": Fault(
        sends(STREAM_HEAD, chunk(delta("he"))), ("stream_truncated", "yes"), wire=STREAMED
    ),
    "stream_until_close_cut_short": Fault(
        sends(OPEN_STREAM_HEAD, delta("he")), ("stream_truncated", "yes"), wire=STREAMED
    ),
    "stream_until_close_reset": Fault(
        resets(OPEN_STREAM_HEAD, delta("he")), ("stream_truncated", "yes"), wire=STREAMED
    ),
    "body_until_close_reset": Fault(resets(head("200 OK", "Connection: close"), JSON[:40]), CUT),
    "stream_reset_before_any_event": Fault(resets(STREAM_HEAD), ("empty_stream", "unknown"), wire=STREAMED),
    "malformed_chunk_with_the_head": Fault(
        sends(STREAM_HEAD + b"5\r\nabcdeXX\r\n"), ("empty_stream", "unknown"), wire=STREAMED
    ),
    "chunk_extensions_without_end": Fault(
        drips(STREAM_HEAD, b"1;" + b"x" * 3000 + b"\r\n:\r\n", every_s=0.0),
        ("empty_stream", "unknown"),
        wire=STREAMED,
    ),
    "malformed_chunk_later": Fault(
        holds(STREAM_HEAD, chunk(delta("he")), b"zz\r\nabc\r\n"), ("stream_truncated", "yes"), wire=STREAMED
    ),
    "silence": Fault(holds(STREAM_HEAD, chunk(delta("he"))), ("idle_timeout", "yes"), wire=STREAMED, changes=IDLE),
    "silence_before_any_data": Fault(holds(STREAM_HEAD), ("idle_timeout", "unknown"), wire=STREAMED, changes=IDLE),
    "comments_for_ever": Fault(
        drips(STREAM_HEAD, chunk(b": PING\n\n")), ("idle_timeout", "unknown"), wire=STREAMED, changes=IDLE
    ),
    "blank_lines_for_ever": Fault(
        drips(head("200 OK", "Content-Type: application/json", chunked=True), chunk(b"\n")),
        ("total_timeout", "unknown"),
        wire=replace(WIRE, timeout_s=0.7),
        changes={"idle_s": 0.5},
    ),
    "a_body_byte_by_byte": Fault(
        drips(head("200 OK", "Content-Type: application/json", length=100_000), b"{", b" "),
        ("total_timeout", "unknown"),
        wire=replace(WIRE, timeout_s=0.7),
        changes={"idle_s": 0.5},
    ),
    "endless_events": Fault(
        drips(STREAM_HEAD, chunk(delta("x" * 1000)), every_s=0.0),
        ("answer_too_large", "yes"),
        wire=STREAMED,
        changes={"max_response_bytes": 50_000},
    ),
    "a_gzip_bomb": Fault(
        sends(answer(gzip.compress(b" " * 50_000_000), "200 OK", "Content-Encoding: gzip")),
        ("answer_too_large", "yes"),
        changes={"max_response_bytes": 1_000_000},
    ),
    "damaged_gzip": Fault(
        sends(answer(gzip.compress(JSON)[:12] + b"\xff" * 40, "200 OK", "Content-Encoding: gzip")),
        ("invalid_encoding", "unknown"),
    ),
    "an_encoding_nobody_offered": Fault(
        sends(answer(b"\x1b\x00\x01\xf8" * 9, "200 OK", "Content-Encoding: br")), ("invalid_encoding", "unknown")
    ),
    "html": Fault(sends(answer(b"<html>Sign in</html>", "200 OK", "X: y")), ("unexpected_content_type", "unknown")),
    "nothing": Fault(sends(answer(b"")), ("empty_stream", "unknown")),
    "an_error_event_and_silence": Fault(
        holds(STREAM_HEAD, chunk(delta("he")), chunk(ERROR_EVENT)), ("provider_error", "yes"), wire=STREAMED
    ),
    "an_error_event_and_a_reset": Fault(
        resets(STREAM_HEAD, chunk(ERROR_EVENT)), ("provider_error", "unknown"), wire=STREAMED
    ),
}

REFUSED = {
    "a_redirect": Fault(
        sends(answer(b"", "307 Temporary Redirect", "Location: http://localhost:1/elsewhere")), ("redirected", "no")
    ),
    "a_redirect_to_nowhere": Fault(sends(answer(b"", "302 Found", "Location: http://[::bad/")), ("redirected", "no")),
    "a_refusal_cut_short": Fault(
        sends(head("401 Unauthorized", length=500) + b'{"error": {"mess'), ("unauthorized", "no")
    ),
    "a_refusal_without_end": Fault(
        drips(head("500 Internal Server Error", chunked=True), chunk(b"x" * 65536), every_s=0.0), ("server_error", "no")
    ),
    "a_refusal_and_silence": Fault(
        holds(head("503 Service Unavailable", length=500)), ("overloaded", "no"), changes=IDLE
    ),
}

COMPLETE = {
    "a_header_of_9_kb": Fault(sends(head("200 OK", "X: " + "a" * 9000, length=len(JSON)) + JSON), FINE),
    "early_hints_first": Fault(sends(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" * 3 + answer()), FINE),
    "http_1_0": Fault(sends(b"HTTP/1.0 200 OK\r\n\r\n" + JSON), FINE),
    "a_body_until_close": Fault(sends(head("200 OK", "Connection: close"), JSON), FINE),
    "blank_lines_first": Fault(sends(answer(b"\n\n\r\n" + JSON)), FINE),
    "gzip": Fault(sends(answer(gzip.compress(JSON), "200 OK", "Content-Encoding: gzip")), FINE),
    "gzip_in_members": Fault(
        sends(answer(gzip.compress(JSON[:9]) + gzip.compress(JSON[9:]), "200 OK", "Content-Encoding: x-gzip")), FINE
    ),
    "zlib": Fault(sends(answer(zlib.compress(JSON), "200 OK", "Content-Encoding: deflate")), FINE),
    "bare_deflate": Fault(sends(answer(zlib.compress(JSON)[2:-4], "200 OK", "Content-Encoding: deflate")), FINE),
    "a_compressed_stream": Fault(
        sends(
            head("200 OK", "Content-Type: text/event-stream", "Content-Encoding: gzip")
            + gzip.compress(delta("hello", "stop") + USAGE + DONE)
        ),
        FINE,
        wire=STREAMED,
    ),
    "json_to_a_stream_request": Fault(sends(answer()), FINE, wire=STREAMED),
    "json_labelled_as_a_stream": Fault(
        sends(head("200 OK", "Content-Type: text/event-stream", length=len(JSON)) + JSON), FINE, wire=STREAMED
    ),
    "a_stream_to_a_plain_request": Fault(sends(OPEN_STREAM_HEAD + delta("hello", "stop") + USAGE + DONE), FINE),
    "a_stream_without_a_label": Fault(sends(head() + delta("hello", "stop") + USAGE), FINE, wire=STREAMED),
    "a_stream_without_a_label_in_small_pieces": Fault(
        sends(head(), b"\n", b"\r\n", b"da", b"ta: ", delta("hello", "stop")[6:]), FINE, wire=STREAMED
    ),
    "a_reset_after_every_finish_reason": Fault(resets(OPEN_STREAM_HEAD, delta("hello", "stop")), FINE, wire=STREAMED),
    "silence_after_every_finish_reason": Fault(
        holds(STREAM_HEAD, chunk(delta("hello", "stop"))), FINE, wire=STREAMED, changes=IDLE
    ),
    "silence_after_done": Fault(
        holds(STREAM_HEAD, chunk(delta("hello", "stop")), chunk(DONE)), FINE, wire=STREAMED, changes={"idle_s": 9.0}
    ),
    "comments_after_done": Fault(
        drips(STREAM_HEAD + chunk(delta("hello", "stop")) + chunk(DONE), chunk(b": PING\n\n")), FINE, wire=STREAMED
    ),
}


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(fault, id=f"{group}-{name}")
        for group, faults in [
            ("before_the_head", BEFORE_THE_HEAD),
            ("within_the_body", WITHIN_THE_BODY),
            ("refused", REFUSED),
            ("complete", COMPLETE),
        ]
        for name, fault in faults.items()
    ],
)
def test_an_accident_has_its_code(fault: Fault, kind: TransportKind) -> None:
    with RawServer(fault.script) as server:
        reply = once(endpoint(server.url, **fault.changes), kind, fault.wire)
    expected = fault.httpx if kind == "httpx" and fault.httpx is not None else fault.expected
    assert (code(reply), reply.failure and reply.failure.billed) == expected
    assert reply.sent
    assert server.connections == 1
    if reply.failure is None:
        assert reply.answer is not None
        assert reply.answer.completion is not None
        assert reply.answer.completion["choices"][0]["message"]["content"] == "hello"
    elif reply.failure.billed == "yes" and fault.wire.streamed:
        assert reply.answer is not None
        assert reply.answer.completion is not None, "a paid answer is kept"
