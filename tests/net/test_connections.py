"""Connections: pieces arrive when they are sent, a cancelled call ends at once, no answer reaches another request."""

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable

import httpx
import pytest

from tests.net.raw_server import PATIENCE_S, Peer, RawServer, wait_for
from tests.net.wire import COMPLETION, JSON, STREAM_HEAD, STREAMED, WIRE, answer, chunk, code, delta, endpoint, head
from worker.core.failure import ErrorCode
from worker.jobs.net.call import TransportKind, call, open_client
from worker.jobs.net.progress import Progress, Reply

EVIL = answer(json.dumps(COMPLETION | {"id": "of-another-tenant"}).encode())


def serves(peer: Peer) -> None:
    while peer.read_request():
        peer.send(answer())


def ids(replies: list[Reply]) -> list[object]:
    assert all(reply.answer and reply.answer.completion for reply in replies)
    return [reply.answer.completion["id"] for reply in replies if reply.answer and reply.answer.completion]


def calls(url: str, kind: TransportKind, count: int, between: Callable[[], None] = lambda: None) -> list[Reply]:
    """Make calls one after another with one client. `between` blocks the event loop, so the loop sees nothing during
    it.
    """

    async def run() -> list[Reply]:
        where = endpoint(url, max_response_bytes=100_000)
        replies = []
        async with open_client(where, kind=kind) as client:
            for _ in range(count):
                replies.append(await call(client, where, WIRE))
                between()
        return replies

    return asyncio.run(run())


def cancelled(url: str, kind: TransportKind, when: Callable[[], bool]) -> Progress:
    """Cancel a streaming call once `when` holds."""

    async def run() -> Progress:
        where, progress = endpoint(url), Progress()
        async with open_client(where, kind=kind) as client:
            task = asyncio.create_task(call(client, where, STREAMED, progress))
            await asyncio.to_thread(wait_for, when, "the moment to cancel")
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        return progress

    return asyncio.run(run())


def test_pieces_arrive_one_by_one(kind: TransportKind) -> None:
    read = threading.Semaphore(0)
    pieces = [chunk(delta(str(number))) for number in range(5)]

    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(STREAM_HEAD)
        for piece in pieces:
            peer.send(piece)
            assert read.acquire(timeout=PATIENCE_S), "the client did not see a piece before the next was sent"
        peer.send(chunk(b""))

    async def run(url: str) -> list[bytes]:
        seen = []
        async with open_client(endpoint(url), kind=kind) as client, client.stream("POST", url) as response:
            async for piece in response.aiter_raw():
                seen.append(piece)
                read.release()
        return seen

    with RawServer(script) as server:
        assert asyncio.run(run(server.url)) == [delta(str(number)) for number in range(5)]


def test_a_call_cancelled_before_the_head_ends_the_connection(kind: TransportKind) -> None:
    asked, ended = threading.Event(), []

    def script(peer: Peer) -> None:
        peer.read_request()
        asked.set()
        ended.append(peer.ended())

    with RawServer(script) as server:
        reply = cancelled(server.url, kind, asked.is_set).cut(ErrorCode.cancelled)
    assert ended == ["fin"]
    assert (code(reply), reply.sent, reply.http_status) == ("cancelled", True, None)
    assert reply.failure is not None
    assert reply.failure.billed == "unknown"


def test_a_call_cancelled_within_the_body_keeps_the_received_part(kind: TransportKind) -> None:
    sent, ended = threading.Event(), []

    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(STREAM_HEAD + chunk(delta("par")) + chunk(delta("tial")))
        peer.settle()
        sent.set()
        ended.append(peer.ended())

    with RawServer(script) as server:
        reply = cancelled(server.url, kind, sent.is_set).cut(ErrorCode.cancelled)
    assert ended == ["fin"]
    assert reply.failure is not None
    assert (reply.failure.code, reply.failure.billed, reply.failure.retryable) == ("cancelled", "yes", False)
    assert reply.answer is not None
    assert reply.answer.completion is not None
    assert reply.answer.completion["choices"][0]["message"]["content"] == "partial"
    assert reply.raw == delta("par") + delta("tial")


def test_a_call_that_never_began_can_be_cut() -> None:
    reply = Progress().cut(ErrorCode.expired)
    assert (code(reply), reply.sent, reply.raw) == ("expired", False, b"")
    assert reply.failure is not None
    assert reply.failure.billed == "no"


def test_closing_the_client_ends_its_calls() -> None:
    asked = threading.Event()

    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(STREAM_HEAD + chunk(delta("he")))
        asked.set()
        peer.ended()

    async def run(url: str) -> Reply:
        where = endpoint(url)
        client = open_client(where)
        task = asyncio.create_task(call(client, where, STREAMED))
        await asyncio.to_thread(asked.wait)
        await client.aclose()
        return await task

    with RawServer(script) as server:
        assert code(asyncio.run(run(server.url))) in ("stream_truncated", "connection_lost")


def test_a_connection_is_reused_after_a_full_read() -> None:
    with RawServer(serves) as server:
        replies = calls(server.url, "aiohttp", 3)
    assert [reply.failure for reply in replies] == [None] * 3
    assert server.connections == 1


def test_the_fallback_makes_a_connection_a_request() -> None:
    with RawServer(serves) as server:
        calls(server.url, "httpx", 3)
    assert server.connections == 3


def test_a_half_read_connection_is_not_reused(kind: TransportKind) -> None:
    def script(peer: Peer) -> None:
        peer.read_request()
        if peer.number == 1:
            peer.send(head("200 OK", length=200_000) + b" " * 150_000)  # beyond the limit of 100,000
            peer.ended()
        else:
            peer.send(answer())

    with RawServer(script) as server:
        replies = calls(server.url, kind, 2)
    assert [code(reply) for reply in replies] == ["answer_too_large", None]
    assert server.connections == 2


def test_a_connection_with_an_unsent_remainder_is_not_reused() -> None:
    large = WIRE.body[:-1] + b', "x": "' + b"x" * 20_000_000 + b'"}'
    ended = []

    def script(peer: Peer) -> None:
        peer.read_head()
        peer.send(answer(b"{}", "413 Payload Too Large"))
        ended.append(peer.ended())

    async def run(url: str) -> int:
        async with open_client(endpoint(url)) as client:
            response = await client.post(url, content=large)
            await asyncio.to_thread(wait_for, lambda: bool(ended), "the end of the connection")
            return response.status_code

    with RawServer(script) as server:
        assert asyncio.run(run(server.url)) == 413


@pytest.mark.parametrize("moment", ["same_packet", "while_idle", "while_idle_unseen", "half_of_it"])
def test_an_unrequested_answer_reaches_no_call(moment: str, kind: TransportKind) -> None:
    answered, spoken = threading.Event(), threading.Event()

    def script(peer: Peer) -> None:
        peer.read_request()
        if peer.number > 1:
            peer.send(answer())
            return
        peer.send(answer() + {"same_packet": EVIL, "half_of_it": EVIL[:20]}.get(moment, b""))
        answered.wait(PATIENCE_S)
        try:
            if moment.startswith("while_idle"):
                peer.send(EVIL)
                peer.settle()
        finally:
            spoken.set()
        peer.ended()

    async def run(url: str) -> list[Reply]:
        where = endpoint(url)
        async with open_client(where, kind=kind) as client:
            first = await call(client, where, WIRE)
            answered.set()
            if moment == "while_idle":
                await asyncio.to_thread(spoken.wait)  # the loop reads the bytes
            else:
                spoken.wait(PATIENCE_S)  # the bytes stay in the kernel until the next call
            return [first, await call(client, where, WIRE)]

    with RawServer(script) as server:
        replies = asyncio.run(run(server.url))
    assert replies[0].failure is None
    assert ids(replies) == ["chatcmpl-1", "chatcmpl-1"]
    assert server.connections == 2


def test_a_connection_the_server_has_closed_is_not_tried(kind: TransportKind) -> None:
    closed = threading.Event()

    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(answer())
        peer.sock.close()
        closed.set()

    def until_closed() -> None:
        assert closed.wait(PATIENCE_S)
        closed.clear()

    with RawServer(script) as server:
        replies = calls(server.url, kind, 2, until_closed)
    assert ids(replies) == ["chatcmpl-1", "chatcmpl-1"]


def test_a_request_lost_on_a_reused_connection_is_not_repeated() -> None:
    requests = []

    def script(peer: Peer) -> None:
        requests.append(peer.read_request())
        peer.send(answer())
        requests.append(peer.read_request())
        peer.reset()

    with RawServer(script) as server:
        replies = calls(server.url, "aiohttp", 2)
    assert [code(reply) for reply in replies] == [None, "connection_lost"]
    assert len(requests) == 2


def test_no_cookie_comes_back(kind: TransportKind) -> None:
    requests = []

    def script(peer: Peer) -> None:
        while request := peer.read_request():
            requests.append(request)
            peer.send(answer(JSON, "200 OK", "Set-Cookie: session=tenant-a; Path=/"))

    async def run(send: Callable[[httpx.AsyncClient], Awaitable[object]], url: str) -> None:
        async with open_client(endpoint(url), kind=kind) as client:
            await send(client)
            await send(client)

    with RawServer(script) as server:
        calls(server.url, kind, 2)
        asyncio.run(run(lambda client: client.post(server.url, content=b"{}"), server.url))
    assert len(requests) == 4
    assert not any(b"cookie" in request.lower() for request in requests)


def test_proxies_and_passwords_of_the_environment_are_ignored(
    kind: TransportKind, monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    requests = []

    def script(peer: Peer) -> None:
        requests.append(peer.read_request())
        peer.send(answer())

    netrc = f"{tmp_path}/netrc"
    with open(netrc, "w") as file:  # noqa: PTH123
        file.write("machine localhost login u password netrc-secret\n")
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://localhost:1")
    monkeypatch.setenv("NETRC", netrc)
    with RawServer(script) as server:
        reply = calls(server.url, kind, 1)[0]
    assert reply.failure is None
    assert requests[0].lower().count(b"authorization") == 1
    assert requests[0].startswith(b"POST /v1/chat/completions HTTP/1.1\r\n")
