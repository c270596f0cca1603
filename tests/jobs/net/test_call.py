"""The request of a call, and the Reply made of its answer."""

import asyncio
import gzip
import json
import logging
from dataclasses import replace

import pytest

from tests.net.raw_server import Peer, RawServer
from tests.net.wire import (
    DONE,
    JSON,
    KEY,
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
from worker.jobs.net.call import TransportKind, WireRequest, call, open_client
from worker.jobs.net.progress import Reply

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def exchange(kind: TransportKind, wire: WireRequest = WIRE, **changes: object) -> tuple[dict[str, str], bytes, Reply]:
    """Make one call; return the headers by lower-case name and the body that the server saw, and the reply."""
    seen = []

    def script(peer: Peer) -> None:
        seen.append(peer.read_request())
        peer.send(answer())

    with RawServer(script) as server:
        reply = once(endpoint(server.url, **changes), kind, wire)
    top, _, body = seen[0].partition(b"\r\n\r\n")
    pairs = [line.split(": ", 1) for line in top.decode().split("\r\n")[1:]]
    assert len({name.lower() for name, _ in pairs}) == len(pairs), "no header is sent twice"
    return {name.lower(): value for name, value in pairs}, body, reply


def refused(status: str, body: bytes, *headers: str, **changes: object) -> Reply:
    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(answer(body, status, *headers))

    with RawServer(script) as server:
        return once(endpoint(server.url, **changes), "aiohttp")


def test_the_body_goes_out_as_it_came(kind: TransportKind) -> None:
    body = b'{"model":"m", "temperature": 1.0, "x": "\\u0000", "messages":[]}'
    _, seen, _ = exchange(kind, replace(WIRE, body=body))
    assert seen == body


def test_a_request_identifies_itself(kind: TransportKind) -> None:
    headers, body, _ = exchange(kind, replace(WIRE, traceparent=TRACE))
    assert headers | {"host": "", "connection": ""} == {
        "host": "",
        "connection": "",
        "content-length": str(len(body)),
        "content-type": "application/json",
        "accept": "application/json",
        "accept-encoding": "identity",
        "user-agent": "afterword",
        "authorization": f"Bearer {KEY}",
        "idempotency-key": WIRE.idempotency_key,
        "x-oneapi-request-id": WIRE.attempt_id,
        "traceparent": TRACE,
    }


def test_a_streamed_request_accepts_events(kind: TransportKind) -> None:
    assert exchange(kind, STREAMED)[0]["accept"] == "text/event-stream"


def test_settings_replace_and_add_headers_but_not_the_framing(kind: TransportKind) -> None:
    extra = {"api-key": "azure-secret-1", "AUTHORIZATION": "Basic xyz", "Content-Length": "1", "User-Agent": "me"}
    headers, body, _ = exchange(kind, headers=extra, key=None)
    assert (headers["api-key"], headers["authorization"], headers["user-agent"]) == (
        "azure-secret-1",
        "Basic xyz",
        "me",
    )
    assert headers["content-length"] == str(len(body))


def test_a_call_without_a_key_sends_no_authorization(kind: TransportKind) -> None:
    assert "authorization" not in exchange(kind, key=None)[0]


def test_a_traceparent_that_is_none_is_not_sent(kind: TransportKind) -> None:
    assert "traceparent" not in exchange(kind, replace(WIRE, traceparent="x\r\nHost: evil"))[0]


def test_a_reply_keeps_ids_limits_and_the_exact_body(kind: TransportKind) -> None:
    def script(peer: Peer) -> None:
        peer.read_request()
        kept = ["X-Oneapi-Request-Id: 2026", "X-RateLimit-Remaining-Tokens: 7", "OpenAI-Processing-MS: 12"]
        peer.send(answer(JSON, "200 OK", *kept, "Set-Cookie: a=b", "Server: nginx"))

    with RawServer(script) as server:
        reply = once(endpoint(server.url), kind)
    assert (reply.http_status, reply.request_id, reply.raw, reply.raw_encoding) == (200, "2026", JSON, "identity")
    assert reply.headers == {
        "content-type": "application/json",
        "x-oneapi-request-id": "2026",
        "x-ratelimit-remaining-tokens": "7",
        "openai-processing-ms": "12",
    }


def test_a_stream_has_its_first_byte_then_its_first_token(kind: TransportKind) -> None:
    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(STREAM_HEAD, chunk(b": PING\n\n"), chunk(delta("hel")), chunk(delta("lo", "stop") + USAGE + DONE))
        peer.send(chunk(b""))

    with RawServer(script) as server:
        reply = once(endpoint(server.url), kind, STREAMED)
    assert reply.failure is None
    assert reply.first_byte_s is not None
    assert reply.first_token_s is not None
    assert 0 < reply.first_byte_s < reply.first_token_s < reply.elapsed_s


def test_a_long_raw_body_is_kept_compressed() -> None:
    events = delta("x" * 100) * 1000

    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(STREAM_HEAD + chunk(events) + chunk(delta("", "stop")) + chunk(b""))

    with RawServer(script) as server:
        reply = once(endpoint(server.url), "aiohttp", STREAMED)
    assert reply.raw_encoding == "gzip"
    assert gzip.decompress(reply.raw) == events + delta("", "stop")
    assert len(reply.raw) < len(events) / 5


def test_a_refusal_is_explained_and_keeps_the_endpoints_words() -> None:
    error = {"message": "too long", "type": "invalid_request_error", "param": None, "code": "context_length_exceeded"}
    reply = refused("500 Internal Server Error", json.dumps({"error": error}).encode())
    assert reply.failure is not None
    assert (reply.failure.code, reply.failure.retryable) == ("context_too_long", False)
    assert reply.failure.provider == error
    assert reply.failure.message.startswith("HTTP 500: ")
    assert reply.answer is None


def test_retry_after_is_read() -> None:
    reply = refused("429 Too Many Requests", b"", "Retry-After: 7")
    assert reply.failure is not None
    assert (code(reply), reply.failure.retry_after_s) == ("rate_limited", 7.0)


@pytest.mark.parametrize("where", ["body", "header", "stream"])
def test_a_key_that_the_endpoint_quotes_is_kept_nowhere(
    where: str, kind: TransportKind, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    quoted = json.dumps({"error": {"message": f"Incorrect API key provided: {KEY}."}}).encode()

    def script(peer: Peer) -> None:
        peer.read_request()
        if where == "body":
            peer.send(answer(quoted, "401 Unauthorized"))
        elif where == "header":
            peer.send(answer(b"", "401 Unauthorized", f"X-Request-Id: {KEY}"))
        else:
            peer.send(head("200 OK", "Content-Type: text/event-stream") + b"data: " + quoted + b"\n\n")

    with RawServer(script) as server:
        reply = once(endpoint(server.url), kind, STREAMED)
    assert reply.failure is not None
    assert KEY not in repr(reply)
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("worker")]
    assert not any(KEY in line for line in ours)


def test_an_answer_cut_in_the_middle_is_retried_only_if_the_endpoint_wants_it() -> None:
    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(STREAM_HEAD + chunk(delta("he")))

    retried = []
    for setting in (True, False):
        with RawServer(script) as server:
            reply = once(endpoint(server.url, retry_partial=setting), "aiohttp", STREAMED)
        assert reply.failure is not None
        retried.append(reply.failure.retryable)
    assert retried == [True, False]


def test_a_lost_request_is_retried_only_if_the_endpoint_wants_it() -> None:
    retried = []
    for setting in (True, False):
        with RawServer(lambda peer: peer.read_request()) as server:
            reply = once(endpoint(server.url, retry_ambiguous=setting), "aiohttp")
        assert reply.failure is not None
        retried.append(reply.failure.retryable)
    assert retried == [True, False]


def test_a_cancellation_of_the_callers_is_not_taken_for_a_deadline() -> None:
    async def run(url: str) -> None:
        where = endpoint(url)
        async with open_client(where) as client:
            async with asyncio.timeout(0.05) as outer:
                await call(client, where, WIRE)
            assert outer.expired()

    with RawServer(lambda peer: (peer.read_request(), peer.ended())) as server, pytest.raises(TimeoutError):
        asyncio.run(run(server.url))
